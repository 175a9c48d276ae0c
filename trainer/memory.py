"""Bytes on a rank, by arithmetic: before a run what it will take, and out of memory what would fit.

Weights, gradients and moments are exact. Activations are what autograd keeps, which tests count without compilation on a CPU;
compiled, what is cheap is computed again (the gate's activation, norms before their gains). A dense mask is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch

from pipelines.schedule import Schedule
from trainer.config import ModelConfig, OptimizerConfig, Parallel, TrainConfig, with_settings
from trainer.data import micro_batches
from trainer.huggingface import shapes

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes on a rank by part."""

    weights: int  # fp32, this rank's shard
    moments: int
    gradients: int  # fp32, this rank's shard
    waiting: int  # gradients that earlier micro-batches of a step leave: fp32, whole
    gathered: int  # weights as they are computed with: what is not sharded again, and two blocks
    activations: int
    loss: int  # logits of a chunk, and the gradients of the head and of the states before it

    @property
    def peak(self) -> int:
        """The most at once: gradients come as activations go."""
        lasting = self.weights + self.moments + self.gathered
        return lasting + max(self.gradients, self.waiting + self.activations + self.loss)


def memory(cfg: TrainConfig, length: int, rows: int, micro_batches: int, world: int, compute: int = 2) -> Memory:
    """What a step takes of the device of one of `world` ranks.

    `micro_batches` of `rows` sequences of `length`, `compute` bytes a number. What is offloaded takes nothing of it.
    """
    model, layout = cfg.model, cfg.parallel
    sharded = shard_numbers(model, world // layout.replicas)
    outer = 2 * model.vocab_size * model.width + model.width
    block = (model.parameters() - outer) // model.layers
    together = 2 if layout.reshard else model.layers
    head, tokens = model.vocab_size * model.width, length * rows
    here = not layout.offload
    return Memory(
        weights=here * 4 * sharded,
        moments=here * moment_bytes(cfg.model, cfg.optimizer, world // layout.replicas),
        gradients=here * 4 * sharded,
        waiting=here * (micro_batches > 1) * 4 * model.parameters(),
        gathered=compute * (outer + together * block),
        activations=activations(model, layout, tokens, compute),
        loss=compute * min(layout.loss_chunk, length * rows) * model.vocab_size
        + 4 * head
        + compute * length * rows * model.width,
    )


def memory_of_phases(cfg: TrainConfig, schedule: Schedule, world: int, compute: int = 2) -> dict[str, Memory]:
    """Memory of a rank in each phase of the schedule."""
    found = {}
    for phase in schedule.config.phases:
        count, rows = micro_batches(phase.batch_tokens // phase.sequence_length, world, cfg.parallel.micro_batch)
        found[phase.name] = memory(cfg, phase.sequence_length, rows, count, world, compute)
    return found


def activations(cfg: ModelConfig, layout: Parallel, tokens: int, compute: int) -> int:
    """Bytes that the blocks keep of `tokens` tokens for the backward pass, by `layout.recompute`."""
    block = inside(cfg, tokens, compute, layout.compile)
    inputs = (cfg.layers + 1) * tokens * cfg.width * compute  # of each block and of the last norm
    if not layout.compile:
        inputs += tokens * cfg.width * compute  # the last norm before its gain
    everything, alone = inputs + cfg.layers * block, inputs + block  # `alone`: the block that is computed again
    if layout.recompute == "full":
        return alone
    return everything if layout.recompute == "none" else int(alone + layout.kept * (everything - alone))


def inside(cfg: ModelConfig, tokens: int, compute: int, compiled: bool) -> int:
    """Bytes that a block keeps beside its input: two norms' and attention's outputs, the sum, q, k and v, the feed-forward.

    Of the feed-forward gate, up and their product (of experts those that are chosen); uncompiled also the activated gate, and
    both norms before their gains.
    """
    widths = 5 if compiled else 7
    wide = (3 if compiled else 4) * cfg.feed_forward * (cfg.experts.chosen if cfg.experts else 1)
    if cfg.experts:
        widths += 1 + cfg.experts.chosen  # tokens in the order of experts, and back
    numbers = widths * cfg.width + 2 * cfg.kv_heads * cfg.head_size + wide
    return tokens * (compute * numbers + 4 * (cfg.heads + 2))  # attention's normaliser, the norms' scales


@cache
def shard_numbers(cfg: ModelConfig, shards: int) -> int:
    """Parameters on the first of `shards` ranks: each tensor is cut along its first dimension, rounded up."""
    return sum(-(-shape[0] // shards) * shape[1:].numel() for shape in shapes(cfg).values())


def moment_bytes(cfg: ModelConfig, optimizer: OptimizerConfig, shards: int = 1) -> int:
    """Bytes of the optimizer's moments on the first of `shards` ranks, or in a checkpoint."""
    if optimizer.kind == "adamw":
        return (4 if optimizer.moments == "bf16" else 8) * shard_numbers(cfg, shards)
    matrices = [shape for shape in shapes(cfg).values() if len(shape) > 1]
    vectors = sum(-(-shape[0] // shards) for shape in shapes(cfg).values() if len(shape) == 1)
    return 4 * (vectors + sum(-(-s[0] // shards) * s[1:-1].numel() + s[-1] for s in matrices))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the host had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def what_would_fit(cfg: TrainConfig, error: RuntimeError, schedule: Schedule | None = None, world: int = 1) -> str:
    """One line: what happened, what the state alone takes, and the settings that need less, the cheapest first.

    With a schedule also what a rank then takes, by arithmetic.
    """
    total = state_bytes(cfg) / GIB
    what = next((line for line in str(error).splitlines() if "allocate" in line), str(error)).strip()
    state = f"weights, gradients and moments take {total:,.1f} GiB over all processes of a replica"

    def needs(way: str) -> str:
        if schedule is None:
            return ""
        peaks = [use.peak for use in memory_of_phases(with_settings(cfg, [way]), schedule, world).values()]
        return f" ({max(peaks) / GIB:,.1f} GiB on a rank)"

    ways = " or ".join(f"--set {way}{needs(way)}" for way in lighter(cfg))
    return f"out of memory ({what}); {state}; what needs less: {ways}, or more processes. The last checkpoint is untouched"


def state_bytes(cfg: TrainConfig) -> int:
    """Bytes of fp32 weights and gradients, and of the optimizer's moments."""
    return 8 * cfg.model.parameters() + moment_bytes(cfg.model, cfg.optimizer)


def lighter(cfg: TrainConfig) -> Iterator[str]:
    """Settings that take less memory and compute the same, the one that costs least time first."""
    layout = cfg.parallel
    if layout.micro_batch > 1:
        yield f"parallel.micro_batch={layout.micro_batch // 2}"
    if layout.recompute == "none" and layout.compile:
        yield "parallel.recompute=selective"
    elif layout.recompute == "selective" and layout.kept > 0.25:
        yield f"parallel.kept={layout.kept - 0.25}"
    elif layout.recompute != "full":
        yield "parallel.recompute=full"
    if not layout.reshard:
        yield "parallel.reshard=true"
    if layout.replicas > 1:
        yield "parallel.replicas=1"
    if layout.loss_chunk > 1024:
        yield f"parallel.loss_chunk={layout.loss_chunk // 2}"
    if not layout.offload:
        yield "parallel.offload=true"
