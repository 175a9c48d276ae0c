"""What a run will take, before it is paid for: memory of a rank by part, time, checkpoints on disk; afterwards, what it took.

python -m trainer.plan RECIPE --data OUT/shards [--gpus N] [--device h200] [--out RUN] [--set FIELD=VALUE ...]

Time is the model's arithmetic (Kaplan et al. 2020, arXiv 2001.08361, section 2.1, with attention as far as documents see) over
the device's bf16 rate times a share: that of RUN, if it has gone some steps, else `SHARE`. The same plan is written to
RUN/plan.json when a run begins, and held against what happened when it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal, get_args

import torch
from rich.console import Console
from rich.table import Table

from trainer.config import ModelConfig, TrainConfig, config_hash, load_recipe, with_settings
from trainer.data import Batch, Data, load_batch, micro_batches, open_data
from trainer.errors import UserError
from trainer.huggingface import shapes
from trainer.log import read
from trainer.memory import GIB, memory_of_phases, moment_bytes
from trainer.schedules import curve

SHARE = 0.45  # of a device's nominal rate, before a run has shown its own: .45 to .53 were measured from 1.7 to 8 G parameters
LOOKS = 8  # steps whose documents are looked at, for how far attention sees
FILE = "plan.json"


@dataclass(frozen=True)
class Device:
    """`flops`: bf16 products without sparsity a second, by data sheet; `memory`: bytes."""

    name: str
    flops: float
    memory: int

    @property
    def compute(self) -> int:
        """Bytes of a number that is computed with: fp32 on a CPU, bf16 elsewhere."""
        return 4 if self.name == "cpu" else 2


_SHEETS = (("h200", 989, 139.8), ("h100", 989, 79.1), ("a100", 312, 79.1), ("b200", 2250, 178.0), ("l40s", 362, 44.4))
DEVICES = {name: Device(name, tera * 1e12, int(gib * GIB)) for name, tera, gib in _SHEETS}


@dataclass(frozen=True)
class Plan:
    """The figures that a run is held against."""

    device: str
    world: int
    flops_per_token: float
    share: float  # of the device's rate
    tokens_per_second: float  # of all ranks
    seconds: float  # of all steps
    memory_bytes: int  # on a rank, the most at once
    checkpoint_bytes: int
    checkpoints: int  # kept at the end


def make_plan(cfg: TrainConfig, data: Data, world: int, device: Device, run: Path | None = None) -> Plan:
    """The plan of a whole schedule; `run`: whose measured share is taken, where it has one. Raises UserError."""
    flops = flops_per_token(cfg.model, data)
    share = (measured_share(run) if run is not None else None) or SHARE
    rate = world * device.flops * share / flops
    peak = max(use.peak for use in memory_of_phases(cfg, data.schedule, world, device.compute).values())
    seconds, size = data.schedule.total_tokens / rate, checkpoint_bytes(cfg, world)
    return Plan(device.name, world, flops, share, rate, seconds, peak, size, kept_checkpoints(cfg, data))


def checkpoint_bytes(cfg: TrainConfig, world: int) -> int:
    """Of a checkpoint's files: tensors, and their names, which each rank writes for its part."""
    moments = {"adamw": 2, "adafactor": 1}[cfg.optimizer.kind]
    names = sum(2 * len(f"optimizer/exp_avg/{name}") + 95 for name in shapes(cfg.model)) * (1 + moments)
    return 4 * cfg.model.parameters() + moment_bytes(cfg.model, cfg.optimizer) + names * world


def kept_checkpoints(cfg: TrainConfig, data: Data) -> int:
    """Checkpoints that are there at the end, those by the clock not counted."""
    keep = cfg.run.keep
    for phase in data.schedule.config.phases:
        if phase.name == cfg.run.keep_phase:
            keep += phase.tokens // phase.batch_tokens // cfg.run.save_every_steps
    return keep


def flops_per_token(cfg: ModelConfig, data: Data) -> float:
    """Mean over `LOOKS` steps of the schedule, of a few of their rows."""
    total, steps = 0.0, data.schedule.total_steps
    looks = sorted({step * steps // LOOKS for step in range(min(LOOKS, steps))})
    for step in looks:
        plan = data.schedule.step_plan(step)
        batch = load_batch(data, step, 0, max(1, plan.samples // 8), plan.samples)
        total += step_flops(cfg, batch) / (len(batch.samples) * plan.sequence_length)
    return total / len(looks)


def step_flops(cfg: ModelConfig, batch: Batch) -> float:
    """Floating-point operations that the model asks of this rank in a step, forward and backward, whatever is recomputed.

    Six for each weight that a token is multiplied with, so without the input embedding and the gains; attention counted
    causally, within documents where they are masked: six for each channel of each pair of positions that see each other, twice.
    """
    length, samples = batch.plan.sequence_length, len(batch.samples)
    weights = cfg.active_parameters() - cfg.vocab_size * cfg.width - (2 * cfg.layers + 1) * cfg.width
    pairs = samples * length**2 / 2
    if cfg.document_mask:
        empty = sum(len(micro.inputs) for micro in batch.micro_batches) - samples  # rows that only fill up
        pairs = sum(float(micro.cu_seqlens.diff().double().square().sum()) for micro in batch.micro_batches) / 2
        pairs -= empty * length**2 / 2
    return 6.0 * weights * samples * length + 12.0 * cfg.layers * cfg.width * pairs


def this_device() -> Device:
    """The device at hand; a GPU that is not in `DEVICES` is given the rate of an A100, a CPU core 50 GFLOP/s."""
    if not torch.cuda.is_available():
        bytes_there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Device("cpu", 50e9 * torch.get_num_threads(), bytes_there)
    name = torch.cuda.get_device_name().lower()
    known = next((device for key, device in DEVICES.items() if key in name), DEVICES["a100"])
    return replace(known, name=known.name if known.name in name else name)


def measured_share(run: Path) -> float | None:
    """The share of the device's rate that a run with a plan has reached: the median of its steps after the first ten."""
    planned, rates = read_plan(run), [line["tokens_per_second"] for line in read(run / "metrics.jsonl") if "loss" in line][10:]
    if planned is None or not rates:
        return None
    return planned.share * float(statistics.median(rates)) / planned.tokens_per_second


def read_plan(run: Path) -> Plan | None:
    """The plan with which a run began, if it has one."""
    path = run / FILE
    return Plan(**json.loads(path.read_text())) if path.is_file() else None


def outcome(run: Path) -> dict[str, tuple[float, float]]:
    """What was planned and what came of it: seconds of all steps, tokens a second (median), bytes of memory, of a checkpoint.

    Seconds are those of the steps done, without validation and saving; memory is known on a GPU only.
    """
    planned, lines = read_plan(run), [line for line in read(run / "metrics.jsonl") if "loss" in line]
    if planned is None or not lines:
        return {}
    rates, seen = [line["tokens_per_second"] for line in lines], [0, *(line["tokens"] for line in lines)]
    seconds = sum((after - before) / rate for before, after, rate in zip(seen, seen[1:], rates, strict=False))
    found = {"seconds": seconds, "tokens_per_second": statistics.median(rates)}
    if "memory_gib" in lines[-1]:
        found["memory_bytes"] = lines[-1]["memory_gib"] * GIB
    if saved := sorted((run / "checkpoints").glob("step-*")):
        found["checkpoint_bytes"] = sum(path.stat().st_size for path in saved[-1].glob("*.safetensors"))
    expected = asdict(planned) | {"seconds": seen[-1] / planned.tokens_per_second}
    return {name: (expected[name], value) for name, value in found.items()}


def in_brief(plan: Plan, device: Device) -> str:
    """A plan as one line."""
    speed = f"{plan.tokens_per_second:,.0f} tokens/s at {plan.share:.0%} of {device.name}"
    return (
        f"{amount(plan.memory_bytes)} of {amount(device.memory)} on a rank, {speed}, "
        f"{duration(plan.seconds)} in all, checkpoints of {amount(plan.checkpoint_bytes)}"
    )


def in_words(compared: dict[str, tuple[float, float]]) -> str:
    """`outcome` as one line."""
    shown: dict[str, tuple[str, Callable[[float], str]]] = {
        "seconds": ("time", duration),
        "tokens_per_second": ("tokens/s", "{:,.0f}".format),
        "memory_bytes": ("memory of a rank", amount),
        "checkpoint_bytes": ("checkpoint", amount),
    }
    pairs = ((*shown[name], *pair) for name, pair in compared.items())
    return "planned " + "; ".join(f"{name} {words(planned)}, was {words(came)}" for name, words, planned, came in pairs)


def duration(seconds: float) -> str:
    """Days, hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def amount(size: float) -> str:
    """Bytes in the largest unit that makes it 1 or more."""
    power = min(4, max(0, int(size).bit_length() - 1) // 10)
    return f"{size / 1024**power:,.{0 if power == 0 else 1}f} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


Recompute = Literal["none", "selective", "full"]


def phase_table(cfg: TrainConfig, data: Data, plan: Plan) -> Table:
    """Each phase of the schedule as this number of ranks does it."""
    table = Table("phase", "tokens", "steps", "length", "batch", "on a rank", "learning rate", "time", title="Phases")
    rate, step = curve(cfg.learning_rate, data.schedule), 0
    for phase in data.schedule.config.phases:
        steps, samples = phase.tokens // phase.batch_tokens, phase.batch_tokens // phase.sequence_length
        count, rows = micro_batches(samples, plan.world, cfg.parallel.micro_batch)
        ends = (data.schedule.step_plan(s).tokens_before for s in (step, step + steps - 1))
        rates = " to ".join(f"{rate.of_step(before, phase.batch_tokens):.1e}" for before in ends)
        time = duration(steps * phase.batch_tokens / plan.tokens_per_second)
        sizes = (steps * phase.batch_tokens, steps, phase.sequence_length, samples)
        table.add_row(phase.name, *(f"{size:,}" for size in sizes), f"{count} x {rows}", rates, time)
        step += steps
    return table


def memory_table(cfg: TrainConfig, data: Data, plan: Plan, device: Device) -> Table:
    """The memory of a rank by part, for each kind of recomputation, in the phase that takes most."""
    uses = {}
    for kind in get_args(Recompute):
        layout = replace(cfg.parallel, recompute=kind, compile=cfg.parallel.compile or kind == "selective")
        found = memory_of_phases(replace(cfg, parallel=layout), data.schedule, plan.world, device.compute)
        uses[kind] = max(found.values(), key=lambda use: use.peak)
    mine = [f"{name} (chosen)" if name == cfg.parallel.recompute else name for name in uses]
    table = Table("recomputation", *mine, title=f"Memory of a rank, of {amount(device.memory)} ({device.name})")
    for part in vars(uses["none"]):
        table.add_row(part, *(amount(getattr(use, part)) for use in uses.values()))
    table.add_section()
    # a twentieth is for what fragments and libraries take
    table.add_row("at once", *(amount(u.peak) + (": too much" if u.peak > 0.95 * device.memory else "") for u in uses.values()))
    return table


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    from trainer.session import check_sizes  # which leaves a plan itself

    parser = argparse.ArgumentParser(prog="python -m trainer.plan", description="What a run will take.")
    parser.add_argument("recipe", metavar="RECIPE", help="a name in trainer/recipes, or path/to/file.py:function")
    parser.add_argument("--data", type=Path, required=True, metavar="OUT/shards", help="the shard folder")
    parser.add_argument("--schedule", type=Path, help="default: schedule.json beside the shard folder")
    parser.add_argument("--gpus", type=int, default=1, help="number of processes (1)")
    parser.add_argument("--device", choices=DEVICES, help="default: what is here")
    parser.add_argument("--out", type=Path, metavar="RUN", help="a run: its speed is taken, and what it took is shown")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. --set parallel.recompute=full")
    args = parser.parse_args(arguments)
    try:
        cfg, data = with_settings(load_recipe(args.recipe), args.set), open_data(args.data, args.schedule)
        check_sizes(cfg, data, args.gpus)
        device = DEVICES.get(args.device) or this_device()
        plan = make_plan(cfg, data, args.gpus, device, args.out)
        shown = phase_table(cfg, data, plan), memory_table(cfg, data, plan, device)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    console = Console(highlight=False, soft_wrap=True)
    size = f"{cfg.model.parameters():,} parameters, {data.schedule.total_tokens:,} tokens"
    for part in (f"{cfg.name} {config_hash(cfg)}: {size}", *shown, *_lines(cfg, plan, args.out)):
        console.print(part)
    return 0


def _lines(cfg: TrainConfig, plan: Plan, run: Path | None) -> Iterator[str]:
    source = f"measured by {run}" if run is not None and measured_share(run) else "assumed; --out RUN takes what a run reached"
    yield (
        f"time: {duration(plan.seconds)} at {plan.tokens_per_second:,.0f} tokens/s on {plan.world} x "
        f"{plan.device}: {plan.flops_per_token:.3g} FLOPs a token, {plan.share:.1%} of the nominal rate ({source})"
    )
    disk = plan.checkpoint_bytes * (plan.checkpoints + 1)
    every = f"every {cfg.run.save_every_steps} steps or {cfg.run.save_every_minutes:g} minutes"
    yield (
        f"checkpoints: {amount(plan.checkpoint_bytes)} each, {every}; {plan.checkpoints} kept and one being written: "
        f"{amount(disk)} on disk"
    )
    if run is not None and (compared := outcome(run)):
        yield f"{run}: {in_words(compared)}"


def write_plan(run: Path, plan: Plan) -> None:
    """Leave the plan in a run's folder."""
    (run / FILE).write_text(json.dumps(asdict(plan), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
