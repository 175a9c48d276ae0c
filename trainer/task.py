"""What a run learns, and from what: pre-training as it stands here, the loops of trainer.post as they say.

Session, steps, schedule, checkpoints and log are the same for all of them; a task is what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainer.config import TrainConfig
from trainer.data import Batch, Data, MicroBatch, load_batch
from trainer.evaluate import evaluate
from trainer.model import Decoder, init_weights


def next_token(model: Decoder, micro: MicroBatch, normalizer: float) -> Tensor:
    """The next token's cross-entropy in nats, (1,)."""
    loss: Tensor = model(micro.inputs, micro.targets, micro.documents, normalizer)
    return loss[None]


def held_out(cfg: TrainConfig, data: Data, model: Decoder, sequence_length: int, device: torch.device) -> dict[str, float]:
    """Validation loss per source."""
    return evaluate(model, data.shards, sequence_length, cfg.run.evaluate_tokens, cfg.parallel.micro_batch, device)


def from_nothing(cfg: TrainConfig, data: Data, model: Decoder, resumed: bool) -> None:
    """Weights drawn at random."""
    if not resumed:
        init_weights(model, cfg.model.init_std, cfg.seed)


@dataclass(frozen=True)
class Task:
    """`load` reads a rank's part of a step: (data, step, rank, world, micro_batch) -> Batch.

    `objective`: (model, micro-batch, Batch.valid_tokens) -> fp32 (1 + metrics,): what is minimised, then what is reported, each
    divided by the normalizer, so that the sum over micro-batches and ranks is the step's. `validate`: on every rank, to
    {name: value}. `change`: to the model before it is laid out. `begin`: its first weights; where the run is `resumed`, a
    checkpoint then replaces those that are trained. `about`: what of a task, as JSON, tells one run from another, part of the
    run's identity; "partial" in it says what the weights are where they are no whole language model. `batches`: of a session's
    steps, where the model itself makes them (trainer.post.rollout), which no `load` can do ahead. `context`: the longest
    sequence that is learnt, None for the schedule's rows.
    """

    load: Callable[[Data, int, int, int, int], Batch] = load_batch
    objective: Callable[[Decoder, Any, float], Tensor] = next_token
    metrics: tuple[str, ...] = ()
    validate: Callable[[TrainConfig, Data, Decoder, int, torch.device], dict[str, float]] = held_out
    change: Callable[[Decoder], object] = lambda model: None
    begin: Callable[[TrainConfig, Data, Decoder, bool], None] = from_nothing
    about: Mapping[str, Any] = field(default_factory=dict)
    batches: Callable[[Any], Iterator[Batch]] | None = None
    context: int | None = None
