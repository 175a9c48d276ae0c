"""Answers of the policy as it is, judged, and packed into the batches of the next steps: what PPO and GRPO train on.

Prompts are the documents of the shards up to their last answer; that answer is the reference by which an answer may be judged.
Everything else is the trainer's: session, steps, schedule, checkpoints, log, resume. An answer depends on seed, step, prompt
and weights alone, so a run that is resumed between two rollouts repeats what it would have done; inside of one, the updates
that are left learn from a new one.

Shapes: R rows of T tokens, packed; N answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch import Tensor

from pipelines.shards.roles import TARGET, Codes, sequence_starts
from trainer.config import TrainConfig
from trainer.data import Batch, Data, Row, rank_samples
from trainer.engine import Completion, Sampling, generate
from trainer.errors import UserError
from trainer.log import append, read, truncate_after
from trainer.loss import IGNORED
from trainer.model import Decoder
from trainer.parallel import reshard
from trainer.post.adapters import Lora, plain_weights
from trainer.post.config import Post, sources_of
from trainer.post.experience import Answer, Experience, Packed, Prompt, most, pack_answers, summed
from trainer.post.policy import Floats, Online
from trainer.post.start import Base, held_out_rows
from trainer.session import Session

Ints = npt.NDArray[np.int64]


Reward = Callable[[Sequence[Answer]], Sequence[float]]  # one number each
HELD_OUT = 256  # prompts of a source that validation answers


def online_of(cfg: Post) -> Online:
    """How a run learns from its own answers. Raises UserError for an adapter that is no change of weights."""
    if cfg.adapter is not None and not isinstance(cfg.adapter, Lora):
        raise UserError(f"{cfg.name} has the adapter {cfg.adapter}; ppo and grpo sample from weights: take Lora or None")
    return cfg.online


def prompt_of(ids: npt.NDArray[np.generic], codes: Codes, source: str, tokenizer: Tokenizer) -> Prompt | None:
    """The prompt of a document: its first sequence up to the last answer in it. None where the model writes nothing."""
    second = sequence_starts(codes)[1:2]
    learnt = np.flatnonzero(TARGET[codes[: second[0] if len(second) else None]])
    if not len(learnt):
        return None
    begin = int(learnt[np.flatnonzero(np.diff(learnt, prepend=-2) > 1)[-1]])
    end = int(learnt[-1])
    return Prompt(tuple(ids[:begin].tolist()), tokenizer.decode(ids[begin:end].tolist()), int(ids[end]), source)


def prompts_of(rows: Sequence[tuple[str, Row]], tokenizer: Tokenizer) -> list[Prompt]:
    """Those of the documents of packed rows, in their order."""
    made = []
    for source, row in rows:
        for start, size in row.pieces:
            made.append(prompt_of(row.stream.slice(start, size), row.stream.roles(start, size), source, tokenizer))
    return [prompt for prompt in made if prompt is not None]


def answer_all(
    model: Any,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    sampling: Sampling,
    online: Online,
    device: torch.device,
    produce: Callable[..., list[list[Completion]]] = generate,
) -> list[Answer]:
    """`online.samples` answers of a whole model to each prompt, those of a prompt in a row; `produce`: by which engine."""
    stops = {prompt.stop for prompt in prompts}
    made = produce(
        model, [p.tokens for p in prompts], online.limit, stops, sampling, device, online.samples,
        tokenizer.get_vocab_size(), online.rows, compiled=online.graphs and device.type == "cuda",
    )  # fmt: skip
    return [Answer(p, c, tokenizer.decode(c.body)) for p, some in zip(prompts, made, strict=True) for c in some]


def judge(answers: Sequence[Answer], reward: Reward, unended: float | None) -> Floats:
    """The reward of each answer; that of one that does not end is `unended`."""
    rewards = np.array(reward(answers), np.float64)
    if unended is not None:
        rewards[[not answer.completion.ended for answer in answers]] = unended
    return rewards


@dataclass(frozen=True)
class Judged:
    """A rollout of this rank with all that is known of it. `kls`: nats an answer over all ranks, of each rollout so far."""

    packed: Packed
    rewards: Floats  # (N,)
    old: Tensor
    reference: Tensor
    values: Tensor | None
    kls: tuple[float, ...]


Credit = Callable[[Judged], dict[str, Tensor]]  # advantages (R, T), and what else the objective wants


@dataclass
class Rollouts:
    """Makes the batches of a session, one a step; `credit` turns rewards into advantages.

    `adapted`: the weights of the base are in the model, frozen, beside what is trained. `critic`: the name of its head.
    """

    base: Base
    online: Online
    reward: Reward
    credit: Credit
    adapted: bool
    critic: str | None = None
    kls: list[float] = field(default_factory=list)

    def __call__(self, run: Session) -> Iterator[Batch]:
        """Batches from the session's first step to its last. Called by every rank."""
        tokenizer = Tokenizer.from_file(str(run.out / "tokenizer.json"))
        actor, reference = _copy(run.cfg, run.device), _copy(run.cfg, run.device, None if self.adapted else self.base)
        if self.adapted:
            refresh(reference, run.model, updated=False)
        block, told = self.online.passes * self.online.parts, run.out / "rollouts.jsonl"
        if run.rank == 0:
            truncate_after(told, run.first_step - 1)
        dist.barrier()
        self.kls = [line["kl"] for line in read(told)]
        for first in range(run.first_step, run.last_step, block):
            steps = range(first, min(first + block, run.last_step))
            refresh(actor, run.model)
            rows = [row for step in steps for row in _rows(run, step)]
            prompts, too_long = self._with_room(prompts_of(rows, tokenizer), run.data.schedule.step_plan(first).sequence_length)
            sampling = Sampling(self.online.temperature, 1.0, run.cfg.seed * 1_000_003 + first)
            answers = answer_all(actor, prompts, tokenizer, sampling, self.online, run.device)
            parts = self._experience(run, reference, answers, first, too_long)
            for number, step in enumerate(steps):
                plan, micro_batches = run.data.schedule.step_plan(step), parts[number % self.online.parts]
                valid = sum(int((micro.targets != IGNORED).sum()) for micro in micro_batches)
                names = tuple(f"{source}:{start}" for source, row in rows for start, _ in row.pieces)
                yield Batch(plan, micro_batches, round(summed([valid])[0]), names)

    def validate(self, cfg: TrainConfig, data: Data, model: Decoder, length: int, device: torch.device) -> dict[str, float]:
        """Mean reward of greedy answers to the first held-out prompts of each source. Called by every rank."""
        sources = sources_of(data.shards, ("conversations",), "validation")
        if not sources or self.base.tokenizer is None:
            return {}
        tokenizer, actor = Tokenizer.from_file(str(self.base.tokenizer)), _copy(cfg, device)
        refresh(actor, model)
        found = dict[str, float]()
        for source in sources:
            rows = held_out_rows(data.shards, source, length, cfg.run.evaluate_tokens)
            prompts, _ = self._with_room(prompts_of([(source, row) for row in rows], tokenizer), length)
            mine = prompts[:HELD_OUT][dist.get_rank() :: dist.get_world_size()]
            answers = answer_all(actor, mine, tokenizer, Sampling(0.0), replace(self.online, samples=1), device)
            total, number = summed([judge(answers, self.reward, self.online.unended).sum(), len(answers)])
            found |= {f"{source}/reward": total / number} if number else {}
        return found

    def _with_room(self, prompts: list[Prompt], length: int) -> tuple[list[Prompt], int]:
        """Prompts that leave room for an answer in a row, and how many do not."""
        kept = [prompt for prompt in prompts if len(prompt.tokens) + self.online.limit <= length]
        return kept, len(prompts) - len(kept)

    def _experience(
        self, run: Session, reference: Decoder, answers: list[Answer], step: int, too_long: int
    ) -> tuple[tuple[Experience, ...], ...]:
        length = run.data.schedule.step_plan(step).sequence_length
        packed = pack_answers(answers, length, self.online.parts, run.cfg.parallel.micro_batch, most)
        rewards = judge(answers, self.reward, self.online.unended)
        old, values = self._under(run.model, packed, run)
        reshard(run.model)
        away, _ = self._under(reference, packed, run, whole=True)
        self._note(run, step, answers, rewards, packed, old, away, too_long)
        shares = packed.shares()
        made = self.credit(Judged(packed, rewards, old, away, values, tuple(self.kls)))
        made |= {
            "old": old,
            "reference": away,
            "share": packed.spread(list(shares)),
            "reward": packed.spread(list(shares * rewards)),
        }
        made |= {"values": values} if values is not None else {}
        flat, height = [], len(packed.parts[0][0].inputs)
        for place, micro in enumerate(micro for part in packed.parts for micro in part):
            cut: dict[str, Any] = {name: value[place * height : (place + 1) * height] for name, value in made.items()}
            flat.append(Experience(**vars(micro), **cut))
        size = len(packed.parts[0])
        return tuple(tuple(flat[i : i + size]) for i in range(0, len(flat), size))

    @torch.no_grad()
    def _under(self, model: Decoder, packed: Packed, run: Session, whole: bool = False) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities of the targets (R, T) on the host, and values where there is a critic."""
        log_p, values = list[Tensor](), list[Tensor]()
        for micro in (micro.to(run.device) for part in packed.parts for micro in part):
            if self.critic is None or whole:
                losses = model.losses(micro.inputs, micro.targets, micro.documents)
            else:
                losses, outputs = model.losses_with(self.critic, micro.inputs, micro.targets, micro.documents)
                values.append((outputs[..., 0].float() * (micro.targets != IGNORED)).cpu())
            log_p.append(-losses.cpu())
        return torch.cat(log_p), torch.cat(values) if values else None

    def _note(
        self,
        run: Session,
        step: int,
        answers: list[Answer],
        rewards: Floats,
        packed: Packed,
        old: Tensor,
        away: Tensor,
        too_long: int,
    ) -> None:
        """A line of RUN/rollouts.jsonl, over all ranks. `drift`: between the log-probabilities of engine and trainer."""
        mine, theirs = packed.gather(old), packed.gather(away)
        drift = sum(float(np.abs(o - a.completion.logprobs).sum()) for o, a in zip(mine, answers, strict=True))
        sums = [len(answers), rewards.sum(), sum(float((o - r).sum()) for o, r in zip(mine, theirs, strict=True))]
        sums += [sum(len(a.completion.tokens) for a in answers), sum(a.completion.ended for a in answers), drift, too_long]
        number, reward, kl, tokens, ended, drift, passed_over = summed(sums)
        self.kls.append(kl / max(number, 1))
        if run.rank == 0 and number:
            line = {"step": step, "answers": round(number), "reward": reward / number, "kl": self.kls[-1]}
            line |= {
                "tokens": tokens / number,
                "ended": ended / number,
                "drift": drift / tokens,
                "too_long": round(passed_over),
            }
            append(run.out / "rollouts.jsonl", line | {"sample": answers[0].text if answers else ""})


def _rows(run: Session, step: int) -> list[tuple[str, Row]]:
    """This rank's rows of a step, with their sources."""
    plan = run.data.schedule.step_plan(step)
    mine = rank_samples(plan.samples, run.rank, run.world)
    samples = run.data.schedule.samples(plan.phase, plan.first_sample + mine.start, len(mine))
    rows = run.data.rows(plan.phase, samples)
    return [(samples.sources[index], row) for index, row in zip(samples.source.tolist(), rows, strict=True)]


def _copy(cfg: TrainConfig, device: torch.device, base: Base | None = None) -> Decoder:
    """A whole model on this rank, to be read only, of the base's weights if one is given."""
    with torch.device("meta"):
        model = Decoder(cfg.model, cfg.parallel.loss_chunk)
    model.to_empty(device=device).requires_grad_(False)
    model.kernel = cfg.parallel.attention
    if base is not None:
        base.fill(model)
    return model.to(torch.bfloat16) if device.type == "cuda" else model


@torch.no_grad()
def refresh(actor: Decoder, model: Decoder, updated: bool = True) -> None:
    """Copy a sharded model's weights into a whole one, `updated` by its LoRA or as that found them. Called by every rank."""
    mine = dict(actor.named_parameters())
    for name, weight in plain_weights(model, updated):
        if name in mine:  # a critic's head is not
            mine[name].copy_(weight)
