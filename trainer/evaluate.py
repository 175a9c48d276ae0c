"""Validation loss per source on the held-out documents: the same windows, in the same order, for any number of ranks."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.distributed as dist

from pipelines.shards import Shards
from trainer.data import MicroBatch, fill_row
from trainer.loss import IGNORED
from trainer.model import Decoder
from trainer.parallel import reshard


def validation_sources(shards: Shards) -> list[str]:
    """Sources with held-out tokens to predict."""
    return sorted(s for s, tokens in shards.manifest.source_tokens("validation").items() if tokens > 1)


def evaluate(
    model: Decoder, shards: Shards, sequence_length: int, max_tokens: int, rows: int, device: torch.device
) -> dict[str, float]:
    """Mean loss (nats a token) per source over at most `max_tokens` held-out tokens. Called by every rank.

    Windows do not overlap; each is scored by one rank, and the sums are added in window order on every rank.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    result = {}
    for source in validation_sources(shards):
        lengths = window_lengths(shards.stream(source, "validation").n_tokens, sequence_length, max_tokens)
        sums = torch.zeros(len(lengths), dtype=torch.float64, device=device)
        # Every rank makes the same number of forward passes, since sharded layers gather together.
        for first in range(0, len(lengths), rows * world):
            mine = range(min(first + rank * rows, len(lengths)), min(first + (rank + 1) * rows, len(lengths)))
            batch = _windows(shards, source, lengths, mine, rows, sequence_length).to(device)
            losses_BT = model.losses(batch.inputs, batch.targets, batch.documents)
            sums[mine.start : mine.stop] = losses_BT.double().sum(1)[: len(mine)]
        dist.all_reduce(sums)
        result[source] = math.fsum(sums.tolist()) / sum(lengths)
    reshard(model)
    return result


def window_lengths(tokens: int, sequence_length: int, max_tokens: int) -> list[int]:
    """Targets of each window: full ones, then what is left of the stream; none wraps."""
    left = min(tokens - 1, max_tokens)
    whole, rest = divmod(left, sequence_length)
    return [sequence_length] * whole + ([rest] if rest else [])


def _windows(shards: Shards, source: str, lengths: list[int], chosen: range, rows: int, sequence_length: int) -> MicroBatch:
    stream = shards.stream(source, "validation")
    inputs = np.zeros((rows, sequence_length), np.int64)
    targets = np.full_like(inputs, IGNORED)
    documents = np.zeros_like(inputs)
    for row, window in enumerate(chosen):
        fill_row(stream, window * sequence_length, lengths[window], inputs[row], targets[row], documents[row])
    return MicroBatch(torch.from_numpy(inputs), torch.from_numpy(targets), torch.from_numpy(documents))
