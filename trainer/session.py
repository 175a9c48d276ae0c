"""Before the first step and after the last: check, build or resume; then samples and the summary."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from tokenizers import Tokenizer
from torch.distributed.device_mesh import DeviceMesh

from pipelines.schedule import Schedule, ScheduleError, StepPlan
from pipelines.shards import ShardError
from trainer import checkpoint
from trainer.checkpoint import Commit, Identity
from trainer.config import TrainConfig, as_dict, config_hash
from trainer.data import Data, load_batch, open_data
from trainer.engine import Sampling
from trainer.errors import UserError
from trainer.fp8 import check_fp8, to_fp8
from trainer.generate import continue_text
from trainer.log import append, read, say, truncate_after
from trainer.model import Decoder
from trainer.optimizer import make_optimizer
from trainer.parallel import parallelize, reshard, start_processes
from trainer.plan import in_brief, in_words, make_plan, outcome, this_device, write_plan
from trainer.probes import make_choices, probe
from trainer.schedules import Curve, curve
from trainer.task import Task


@dataclass
class Session:
    """A run on this rank, ready to go from `first_step` to `last_step` (steps counted from 0, the last not included)."""

    accelerator: Accelerator
    cfg: TrainConfig
    data: Data
    out: Path
    identity: Identity
    curve: Curve
    model: Any  # Decoder, sharded in place
    optimizer: torch.optim.Optimizer
    first_step: int
    last_step: int
    task: Task
    tokenizer: Tokenizer | None

    @property
    def rank(self) -> int:
        """This process among all."""
        return dist.get_rank()

    @property
    def world(self) -> int:
        """Number of processes."""
        return dist.get_world_size()

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        device: torch.device = self.accelerator.device
        return device

    def validate(self, sequence_length: int) -> dict[str, float]:
        """What the task measures on held-out documents, per source the loss; every rank calls it."""
        return self.task.validate(self.cfg, self.data, self.model, sequence_length, self.device)

    def probe(self, sequence_length: int) -> dict[str, float]:
        """Share of right answers per task of trainer.probes; every rank calls it."""
        assert self.tokenizer is not None
        shards, rows = self.data.shards, self.cfg.parallel.micro_batch
        asked = make_choices(self.cfg, self.tokenizer, shards, sequence_length)
        return probe(self.model, asked, sequence_length, rows, shards.manifest.eos_id, self.device)

    def tokens_after(self, step: int) -> int:
        """Tokens seen after `step` steps."""
        if step == 0:
            return 0
        plan = self.data.schedule.step_plan(step - 1)
        return plan.tokens_before + plan.samples * plan.sequence_length

    def rate(self, plan: StepPlan) -> float:
        """The learning rate of a step."""
        return self.curve.of_step(plan.tokens_before, plan.samples * plan.sequence_length)

    def save(self, step: int) -> Path:
        """Checkpoint after `step` steps; every rank calls it."""
        plan, tokens = self.data.schedule.step_plan(step - 1), self.tokens_after(step)
        identity = replace(self.identity, schedule=self.data.schedule.prefix(tokens))
        phase, run = self.data.phase_name(plan), self.cfg.run
        commit = Commit(step, tokens, identity, {}, learning_rate=self.rate(plan), phase=phase)
        tensors = checkpoint.tensors(self.model, self.optimizer)
        return checkpoint.save(self.out / "checkpoints", tensors, commit, run.keep, run.keep_phase)


def open_session(
    accelerator: Accelerator,
    cfg: TrainConfig,
    shards: Path,
    out: Path,
    schedule: Path | None = None,
    tokenizer: Path | None = None,
    steps: int | None = None,
    task: Task = Task(),  # noqa: B008  (frozen)
) -> Session | None:
    """Check everything a user can get wrong, then build or resume. None: there is nothing left to do. Raises UserError."""
    data = open_data(shards, schedule)
    with _readable():
        data.shards.check()
    last = data.schedule.total_steps if steps is None else min(steps, data.schedule.total_steps)
    rate = curve(cfg.learning_rate, data.schedule)
    check_sizes(cfg, data, accelerator.num_processes)
    identity = Identity(config_hash(cfg, task.about), data.shards.manifest.fingerprint[:12], _first_step(data.schedule))
    folder = out / "checkpoints"
    found = checkpoint.committed(folder)
    commit = checkpoint.read_commit(found[-1]) if found else None
    past = [fingerprint[:12] for fingerprint in data.shards.manifest.lineage]
    _check_run(out, identity, past)
    if commit is not None:
        if commit.average_of:
            raise UserError(f"{found[-1]} is an average, and no run goes on from it; go on from the run it was made of")
        _check_past(commit, identity, data.schedule, rate, found[-1], past)
    first = commit.step if commit is not None else 0
    words = _find_tokenizer(data, shards, tokenizer)
    if first >= last and (words is None or not _missing_samples(cfg, out, first)):
        if accelerator.is_main_process:
            say(f"{out} is complete: {first} of {data.schedule.total_steps} steps. {_summary(out)}")
        return None
    path = words or out / "tokenizer.json"
    known = Tokenizer.from_file(str(path)) if path.is_file() else None
    device = this_device()
    with _readable():
        _check_probes(cfg, data, known)
        # others than pre-training do more than the plan knows of
        known_work = task.load is load_batch and task.batches is None
        planned = make_plan(cfg, data, accelerator.num_processes, device, out) if known_work else None
    mesh = start_processes(accelerator.device, cfg.parallel.replicas)
    if accelerator.is_main_process:
        _prepare_folder(out, cfg, data, identity, words, first, task)
        say(_opening(cfg, data, accelerator, first, last))
        if planned is not None:
            write_plan(out, planned)
            say(f"plan: {in_brief(planned, device)}")
        if commit is not None and commit.identity.shards != identity.shards:
            say(_taken_down(data, commit))
    dist.barrier()
    accelerator.init_trackers(cfg.name, init_kwargs={"tensorboard": {"purge_step": first + 1}})
    model = _laid_out(cfg, mesh, task, torch.device("cpu") if cfg.parallel.offload else accelerator.device)
    optimizer = make_optimizer(model, cfg.optimizer)
    task.begin(cfg, data, model, commit is not None)
    if commit is not None:
        checkpoint.load(found[-1], model, optimizer, commit)
    return Session(accelerator, cfg, data, out, identity, rate, model, optimizer, first, max(first, last), task, known)


def finish(run: Session) -> None:
    """Continue the recipe's prompts into samples.jsonl and say how it went. Every rank calls it."""
    if run.tokenizer is not None:
        stop, sampling = run.data.shards.manifest.eos_id, Sampling(seed=run.cfg.seed)
        for prompt in _missing_samples(run.cfg, run.out, run.last_step):
            text = continue_text(run.model, run.tokenizer, prompt.text, run.cfg.run.sample_tokens, stop, sampling, run.device)
            if run.rank == 0:
                line = {"step": run.last_step, "lang": prompt.lang, "prompt": prompt.text, "continuation": text}
                append(run.out / "samples.jsonl", line)
                run.accelerator.log({f"sample/{prompt.lang}": prompt.text + text}, step=run.last_step)
                say(f"sample {prompt.lang} | {prompt.text}{text}")
        reshard(run.model)
    if run.rank == 0:
        if run.last_step > run.first_step and (compared := outcome(run.out)):
            words = in_words(compared)
            append(run.out / "metrics.jsonl", {"step": run.last_step, "plan": compared, "plan_in_words": words})
            say(words)
        say(f"done: {run.last_step} of {run.data.schedule.total_steps} steps. {_summary(run.out)}")
    run.accelerator.end_training()


def _laid_out(cfg: TrainConfig, mesh: DeviceMesh, task: Task, device: torch.device) -> Decoder:
    """The model over all ranks, its weights not filled yet."""
    with torch.device("meta"):
        model = Decoder(cfg.model, cfg.parallel.loss_chunk, cfg.z_loss)
    if cfg.precision == "fp8":
        to_fp8(model)
    task.change(model)
    parallelize(model, mesh, cfg.parallel)
    model.to_empty(device=device)
    return model


def _check_probes(cfg: TrainConfig, data: Data, tokenizer: Tokenizer | None) -> None:
    """Ask once what will be asked, so that mistakes are told before the first step."""
    if cfg.run.probe_every is None:
        return
    if tokenizer is None:
        raise UserError("probes need the tokenizer; give --tokenizer, or --set run.probe_every=null")
    for phase in data.schedule.config.phases:
        make_choices(cfg, tokenizer, data.shards, phase.sequence_length)


def check_sizes(cfg: TrainConfig, data: Data, world: int) -> None:
    """Raise UserError where model, shards, schedule and number of processes do not go together."""
    manifest = data.shards.manifest
    if manifest.vocab_size > cfg.model.vocab_size:
        raise UserError(
            f"the shards use {manifest.vocab_size} token ids, the model has {cfg.model.vocab_size}; "
            f"--set model.vocab_size={manifest.vocab_size} or use the shards of the recipe's tokenizer"
        )
    if world % cfg.parallel.replicas:
        raise UserError(f"{world} processes are not {cfg.parallel.replicas} replicas of equal size; --set parallel.replicas=1")
    check_fp8(cfg, [phase.sequence_length for phase in data.schedule.config.phases])
    for phase in data.schedule.config.phases:
        samples = phase.batch_tokens // phase.sequence_length
        if world > samples:
            raise UserError(
                f"{world} processes, but a step of phase {phase.name!r} has {samples} samples; start at most {samples}"
            )


@contextmanager
def _readable() -> Iterator[None]:
    """Where shards are read before the first step: what is wrong with them, for the user."""
    try:
        yield
    except ShardError as error:
        raise UserError(f"{error}; bring the file back from a copy, or write the shards again") from error


def _first_step(schedule: Schedule) -> str:
    """What names the data of a run that has no checkpoint yet."""
    return schedule.prefix(schedule.config.phases[0].batch_tokens)


def _check_past(commit: Commit, mine: Identity, schedule: Schedule, rate: Curve, path: Path, shards: list[str]) -> None:
    """What was read and learned until the checkpoint is what this schedule would have had; what comes after may be new."""
    try:
        if schedule.step_at(commit.tokens) != commit.step:
            raise ScheduleError(f"{commit.tokens} tokens are not step {commit.step} of the schedule")
        mine = replace(mine, schedule=schedule.prefix(commit.tokens))
    except ScheduleError as error:
        raise UserError(f"{path} cannot go on: {error}; choose another --out or the schedule it began with") from error
    checkpoint.check_identity(commit.identity, mine, path, shards)
    now = _rate_at(rate, schedule, commit.step)
    if not math.isclose(now, commit.learning_rate, rel_tol=1e-9):
        raise UserError(
            f"{path} was reached at a learning rate of {commit.learning_rate:.4g}, with this schedule it would be {now:.4g}; "
            "a longer budget goes on from a checkpoint of the plateau: remove the later ones, or choose another --out"
        )


def _rate_at(rate: Curve, schedule: Schedule, step: int) -> float:
    """The learning rate of the last of `step` steps."""
    plan = schedule.step_plan(step - 1)
    return rate.of_step(plan.tokens_before, plan.samples * plan.sequence_length)


def _check_run(out: Path, identity: Identity, past: list[str]) -> None:
    """A folder that another run began is refused even before its first checkpoint."""
    if not (out / "config.json").is_file():
        return
    values = json.loads((out / "config.json").read_text())["identity"]
    checkpoint.check_identity(Identity(**values), identity, out, past)


def _prepare_folder(
    out: Path, cfg: TrainConfig, data: Data, identity: Identity, tokenizer: Path | None, first: int, task: Task
) -> None:
    manifest = data.shards.manifest
    longest = max(phase.sequence_length for phase in data.schedule.config.phases)
    about = {"shards": str(data.shards.root.resolve()), "vocab_size": manifest.vocab_size, "eos_id": manifest.eos_id}
    about |= {"sequence_length": task.context or longest}
    about |= {"template": dict(manifest.template)} if manifest.template else {}
    values = {"config": as_dict(cfg), "identity": vars(identity), "data": about, "parameters": cfg.model.parameters()}
    values |= {"task": dict(task.about)} if task.about else {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".config.json.tmp").write_text(json.dumps(values, indent=1) + "\n")
        (out / ".config.json.tmp").replace(out / "config.json")
        if tokenizer is not None:
            shutil.copyfile(tokenizer, out / "tokenizer.json")
        for path in (out / "metrics.jsonl", out / "samples.jsonl", *out.glob("consumed-*.jsonl")):
            truncate_after(path, first)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from error


def _find_tokenizer(data: Data, shards: Path, given: Path | None) -> Path | None:
    path = given or shards.parent / "tokenizer" / "tokenizer.json"
    if not path.is_file():
        if given is not None:
            raise UserError(f"there is no tokenizer {str(given)!r}")
        return None
    digest, expected = hashlib.sha256(path.read_bytes()).hexdigest(), data.shards.manifest.tokenizer_sha256
    if digest != expected:
        raise UserError(f"tokenizer {str(path)!r} has sha256 {digest[:12]}, the shards were made with {expected[:12]}")
    return path


def _missing_samples(cfg: TrainConfig, out: Path, step: int) -> list[Any]:
    made = {line["prompt"] for line in read(out / "samples.jsonl") if line["step"] == step}
    return [prompt for prompt in cfg.run.prompts if prompt.text not in made]


def _opening(cfg: TrainConfig, data: Data, accelerator: Accelerator, first: int, last: int) -> str:
    where = f"{accelerator.num_processes} x {accelerator.device.type}"
    start = f"step {first + 1}" if first else "the start"
    return (
        f"{cfg.name} {config_hash(cfg)}: {cfg.model.parameters():,} parameters on {where} ({torch.get_num_threads()} threads), "
        f"{data.schedule.total_tokens:,} tokens in {data.schedule.total_steps} steps; from {start} to {last}"
    )


def _taken_down(data: Data, commit: Commit) -> str:
    """What a run says that began on the shards before a takedown."""
    takedowns = data.shards.manifest.takedowns
    before = next(i for i, t in enumerate(takedowns) if t.before.startswith(commit.identity.shards))
    rows = takedowns[-1].rows - (takedowns[before - 1].rows if before else 0)
    return (
        f"{rows} documents of the shards were taken down since step {commit.step} was saved: their places stay, none of their "
        f"tokens is read; shards {commit.identity.shards} are now {data.shards.manifest.fingerprint[:12]}"
    )


def _summary(out: Path) -> str:
    lines = read(out / "metrics.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    validation = [line["validation"] for line in lines if "validation" in line]
    text = f"loss first {losses[0]:.4f}, last {losses[-1]:.4f}" if losses else "no steps"
    if validation:
        text += "; validation " + ", ".join(f"{source} {loss:.4f}" for source, loss in validation[-1].items())
    return text
