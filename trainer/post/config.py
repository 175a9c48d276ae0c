"""What a run of post-training is: a frozen dataclass, and the schedule that follows from it and the shards.

A recipe is a function that returns a `Post` (trainer/post/recipes, or path/to/file.py:function). The model is the base's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from pipelines.schedule import Phase, ScheduleConfig, by_epochs, compile_schedule, unit_of
from pipelines.schedule.packing import layout
from pipelines.schedule.phases import weights_of
from pipelines.schedule.schedule import Schedule
from pipelines.shards import Shards
from pipelines.shards.roles import ANSWER, GOOD, grade_of
from trainer.attention import BLOCK
from trainer.config import LearningRate, ModelConfig, OptimizerConfig, Parallel, Run, TrainConfig
from trainer.errors import UserError
from trainer.post.adapters import Adapter
from trainer.post.losses import Preference
from trainer.post.policy import Online

Kind = Literal["conversations", "preferences", "judgements"]


@dataclass(frozen=True)
class Stage:
    """A stretch of the run: how many times each source, or pattern of sources, is read in it."""

    name: str
    epochs: Mapping[str, float]


@dataclass(frozen=True)
class Post:
    """A run on a base. `batch`: documents (conversations, preferences) a step, on average: packed rows are never split."""

    name: str
    learning_rate: LearningRate
    batch: int
    epochs: float = 1.0  # of every source of the right kind; `stages` say it source by source
    stages: tuple[Stage, ...] = ()
    sequence_length: int | None = None  # None: the longest the base was trained with
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(weight_decay=0.0))
    preference: Preference = field(default_factory=Preference)  # of dpo
    margins: tuple[float, ...] = ()  # of reward: by rating, from marginally to significantly better (Llama 2: 0 to 1); (): none
    alike: float = 0.9  # dpo leaves out pairs whose answers share this much of their trigrams (Jaccard, of tokens)
    adapter: Adapter | None = None  # None: all weights are trained
    online: Online = field(default_factory=Online)  # of ppo and grpo
    seed: int = 0
    parallel: Parallel = field(default_factory=lambda: Parallel(micro_batch=4))
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        if self.batch < 1 or self.epochs <= 0 or len(self.margins) not in (0, 4):
            raise ValueError(f"batch {self.batch} must be 1 or more, epochs {self.epochs} above 0, margins none or four")

    def train_config(self, model: ModelConfig) -> TrainConfig:
        """The trainer's config on a base. Documents are packed, so they are masked, whatever the base was trained with."""
        same = {name: getattr(self, name) for name in ("name", "learning_rate", "optimizer", "seed", "parallel", "run")}
        return TrainConfig(model=replace(model, document_mask=True), **same)


def reads(verb: str, cfg: Post) -> tuple[Kind, ...]:
    """What a loop learns from."""
    if verb in ("sft", "ppo", "grpo"):
        return ("conversations",)
    return ("preferences", "judgements") if verb == "dpo" and cfg.preference.kind == "kto" else ("preferences",)


def sources_of(shards: Shards, kinds: Sequence[Kind], split: str = "train") -> list[str]:
    """The sources with documents of these kinds, told by the grades of the first one. Raises UserError where there is none."""
    found = {source: _kind(shards, source, split) for source, tokens in shards.manifest.source_tokens(split).items() if tokens}
    if split == "train" and not set(kinds) & set(found.values()):
        there = ", ".join(f"{source}: {what}" for source, what in sorted(found.items()))
        raise UserError(f"{shards.root} holds no {' or '.join(kinds)} ({there}); write shards with the recipe chat")
    return sorted(source for source, what in found.items() if what in kinds)


def _kind(shards: Shards, source: str, split: str) -> str:
    stream = shards.stream(source, split)
    if not stream.has_roles:
        return "text without roles"
    grade = grade_of(stream.roles(0, int(stream.bounds(0)[1]))).max()
    return "conversations" if grade <= ANSWER else "judgements" if grade >= GOOD else "preferences"


def plan(shards: Shards, cfg: Post, kinds: Sequence[Kind], context: int) -> Schedule:
    """The compiled schedule: a phase a stage, whole documents packed into rows, each read as often as its stage says.

    A row is as long as the base's context, or for documents of several answers as the longest, in whole blocks of attention.
    Raises UserError where a document has no place in it, ScheduleError for a source that is not there.
    """
    sources = sources_of(shards, kinds)
    length, longest = cfg.sequence_length or context, _longest(shards, sources)
    if "preferences" in kinds and cfg.sequence_length is None and longest > context:
        length = min(3 * context, -(-longest // BLOCK) * BLOCK)
    if longest > length:
        raise UserError(
            f"a document of {longest} tokens is longer than the context of {length}; --set sequence_length={longest} if the "
            f"base can do so, or write the shards with --set encode_chat.context={context}, which leaves out what is longer"
        )
    every = layout(shards, [_phase("all", dict.fromkeys(sources, 1.0), length)])
    unit = unit_of(_phase("all", {}, length))
    rows = {source: sum(every[source][unit]) for source in sources}
    documents = {source: shards.stream(source).n_documents for source in sources}
    phases = []
    for stage in cfg.stages or (Stage("all", {"*": cfg.epochs}),):
        weights = by_epochs(stage.epochs, rows)
        budget = sum(weights.values())
        read = sum(weights[source] / rows[source] * documents[source] for source in weights)
        height = max(1, round(cfg.batch * budget / read))
        steps = -int(-budget // height)
        phases.append(_phase(stage.name, weights, length, steps * height * length, height * length))
    config = ScheduleConfig(tuple(phases))
    return compile_schedule(config, shards.manifest.source_tokens(), shards.manifest.fingerprint, layout(shards, phases))


def check_schedule(schedule: Schedule, shards: Shards, kinds: Sequence[Kind]) -> None:
    """Raise UserError for a schedule that cuts documents, or reads sources of another kind."""
    sources = sources_of(shards, kinds)
    for phase in schedule.config.phases:
        named = [source for source, weight in weights_of(phase, shards.manifest.source_tokens()).items() if weight]
        if other := [source for source in named if source not in sources]:
            raise UserError(f"phase {phase.name!r} reads {other[0]}, which holds no {' or '.join(kinds)}; leave it out")
        if phase.packing == "concatenate":
            raise UserError(f"phase {phase.name!r} cuts documents where a row ends; give it the packing 'best_fit'")


def _phase(name: str, weights: Mapping[str, float], length: int, tokens: int = 0, batch: int = 0) -> Phase:
    return Phase(name, tokens or length, length, batch or length, weights, packing="best_fit")


def _longest(shards: Shards, sources: Sequence[str]) -> int:
    """Tokens of the longest document."""
    files = [(s, i) for s in sources for i in range(sum(f.source == s and f.split == "train" for f in shards.manifest.files))]
    return max(int(np.diff(shards.stream(source).bounds(number)).max()) for source, number in files)
