"""Supervised fine-tuning: every answer of a conversation is learnt in one sample, what was given is masked (by roles)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from trainer.data import Batch, Data, MicroBatch, Row, count_targets, load_batch, pack
from trainer.model import Decoder
from trainer.post import adapters
from trainer.post.config import Post
from trainer.post.start import Base, about, held_out, shape_batch, with_adapter
from trainer.task import Task, next_token


def sft(cfg: Post, base: Base) -> Task:
    """The task: the shards' own targets, which are what the assistant writes, from the base's weights."""
    shape = shape_batch(cfg.adapter)

    def load(data: Data, step: int, rank: int, world: int, micro_batch: int) -> Batch:
        batch = load_batch(data, step, rank, world, micro_batch)
        return replace(batch, micro_batches=tuple(map(shape, batch.micro_batches)))

    def prepare(source: str, split: str, rows: Sequence[Row], height: int, length: int) -> tuple[MicroBatch, int]:
        return shape(pack(rows, height, length, with_roles=True)), sum(map(count_targets, rows))

    def begin(_: object, __: Data, model: Decoder, resumed: bool) -> None:
        start(cfg, base, model, resumed)

    return Task(
        load=load,
        objective=next_token,
        validate=partial(held_out, ("conversations",), prepare, next_token, ()),
        change=partial(with_adapter, adapter=cfg.adapter),
        begin=begin,
        about=about("sft", base, cfg.adapter),
    )


def start(cfg: Post, base: Base, model: Decoder, resumed: bool) -> None:
    """The base's weights where they are not in a checkpoint, and the adapter's first ones."""
    if cfg.adapter is not None:
        adapters.begin(model, cfg.seed)
    if cfg.adapter is not None or not resumed:
        base.fill(model)
