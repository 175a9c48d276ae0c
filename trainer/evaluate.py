"""Validation loss per source on the held-out documents: the same windows, in the same order, for any number of ranks."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist

from pipelines.shards import Shards
from trainer.data import Row, count_targets, pack
from trainer.model import Decoder
from trainer.parallel import reshard


def validation_sources(shards: Shards) -> list[str]:
    """Sources with held-out tokens to predict."""
    return sorted(s for s, tokens in shards.manifest.source_tokens("validation").items() if tokens > 1)


@torch.no_grad()
def evaluate(
    model: Decoder, shards: Shards, sequence_length: int, max_tokens: int, rows: int, device: torch.device
) -> dict[str, float]:
    """Mean loss (nats a token) per source over at most `max_tokens` held-out tokens. Called by every rank.

    Windows do not overlap; each is scored by one rank, and the sums are added in window order on every rank.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    result = {}
    for source in validation_sources(shards):
        stream = shards.stream(source, "validation")
        lengths = window_lengths(stream.n_tokens, sequence_length, max_tokens)
        windows = [Row(stream, ((number * sequence_length, length),)) for number, length in enumerate(lengths)]
        sums = torch.zeros(len(lengths), dtype=torch.float64, device=device)
        # Every rank makes the same number of forward passes, since sharded layers gather together.
        for first in range(0, len(lengths), rows * world):
            mine = windows[first + rank * rows : first + (rank + 1) * rows]
            batch = pack(mine, rows, sequence_length).to(device)
            losses_BT = model.losses(batch.inputs, batch.targets, batch.documents)
            sums[first + rank * rows :][: len(mine)] = losses_BT.double().sum(1)[: len(mine)]
        dist.all_reduce(sums)
        if targets := sum(map(count_targets, windows)):
            result[source] = math.fsum(sums.tolist()) / targets
    reshard(model)
    return result


def window_lengths(tokens: int, sequence_length: int, max_tokens: int) -> list[int]:
    """Targets of each window: full ones, then what is left of the stream; none wraps."""
    left = min(tokens - 1, max_tokens)
    whole, rest = divmod(left, sequence_length)
    return [sequence_length] * whole + ([rest] if rest else [])
