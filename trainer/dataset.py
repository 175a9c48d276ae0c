"""The schedule's samples as plain `torch.utils.data` data sets, for any training loop.

    import torch.nn.functional as F
    from torch.utils.data import DataLoader
    from trainer.dataset import BatchDataset

    batches = BatchDataset("OUT/shards", batch_size=4)
    for step, batch in enumerate(DataLoader(batches, batch_size=None, num_workers=2), start=1):
        logits = model(batch["inputs"])
        F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten()).backward()
        state = batches.state_after(step)  # {"samples": 40}: what load_state_dict takes

`BatchDataset` shards itself, over ranks and over the workers of a DataLoader: do not give its loader to Accelerate's
`prepare`, which would shard it once more. `SampleDataset` is the same samples one by one and does not shard: its loader is for
`prepare`, or takes a DistributedSampler (shuffle=False; the order is shuffled already).

Items are int64, rows of T tokens: `inputs`, `targets` (the next tokens, -100 where there is none: not to be shifted again)
and `positions`, counted from 0 in each document. Shards with roles give `roles` too, uint8 codes (pipelines.shards.roles) of
the targets; only what the assistant writes is a target then, and positions count from 0 in each sequence.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from trainer.data import Data, MicroBatch, open_data, pack
from trainer.errors import UserError

Item = dict[str, Tensor]


class SampleDataset(Dataset[Item]):
    """Map-style: item i is sample `first` + i of the run, rows (T,), in the order in which an unbroken run takes them.

    `first`: samples done. Where phases differ in length, a batch that spans two cannot be stacked: take a batch size that
    divides the samples of a phase, or `BatchDataset`.
    """

    def __init__(self, data: Data | str | Path, first: int = 0) -> None:
        self.data = data if isinstance(data, Data) else open_data(data)
        self._ends = _ends(self.data)
        self._first = _checked(first, self._ends)

    def __len__(self) -> int:
        return self._ends[-1] - self._first

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        batch = _read(self.data, self._ends, self._first + index % len(self), 1, 1)
        return {name: rows[0] for name, rows in batch.items()}

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """The items of a batch."""
        return [self[index] for index in indices]


class BatchDataset(IterableDataset[Item]):
    """Iterable: this rank's batches, (batch_size, T), in order whatever the number of workers; DataLoader(batch_size=None).

    All ranks together take `batch_size` x `world` samples at a time, the next ones of the run; the last ones of a phase are
    filled up with rows that have no targets, so ranks stay together and no batch spans two phases. The state is one integer,
    the samples that all ranks have taken, and means the same for any batch size and number of ranks. `rank` and `world` are
    those of torch.distributed, if it was started. One pass: what has come to its end stays there.
    """

    def __init__(
        self, data: Data | str | Path, batch_size: int, rank: int | None = None, world: int | None = None, first: int = 0
    ) -> None:
        started = dist.is_available() and dist.is_initialized()
        self.data = data if isinstance(data, Data) else open_data(data)
        self.batch_size = batch_size
        self.world = world if world is not None else dist.get_world_size() if started else 1
        self.rank = rank if rank is not None else dist.get_rank() if started else 0
        if batch_size < 1 or not 0 <= self.rank < self.world:
            raise UserError(f"batch_size {batch_size} must be 1 or more, rank {self.rank} one of {self.world}")
        self._ends = _ends(self.data)
        self._next = _checked(first, self._ends)
        self._of_worker = False  # whether _next is what a worker reads next, not what the first of them does

    def __len__(self) -> int:
        starts = (max(begin, self._next) for begin in self._ends)
        return sum(max(0, -(-(end - start) // self._width)) for start, end in zip(starts, self._ends[1:], strict=False))

    def __iter__(self) -> Iterator[Item]:
        info = get_worker_info()
        self._next, self._of_worker = self.state_dict()["samples"], info is not None
        while self._next < self._ends[-1]:
            at = self._next
            self._next = self._after(at, info.num_workers if info is not None else 1)
            left = self._ends[bisect_right(self._ends, at)] - at
            first = min(self.rank * self.batch_size, left)
            count = min(self.batch_size, left - first)
            yield _read(self.data, self._ends, at, count, self.batch_size, first)

    def state_dict(self) -> dict[str, int]:
        """The state after what this copy has given: in a worker, where that worker goes on (as StatefulDataLoader asks)."""
        info = get_worker_info()
        ahead = 0 if info is None or self._of_worker else info.id
        return {"samples": self._after(self._next, ahead)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a state. Raises UserError if the run has not so many samples."""
        self._next, self._of_worker = _checked(state["samples"], self._ends), get_worker_info() is not None

    def state_after(self, batches: int) -> dict[str, int]:
        """The state after so many batches from here, by arithmetic: what workers have read ahead does not matter."""
        return {"samples": self._after(self._next, batches)}

    @property
    def _width(self) -> int:
        return self.batch_size * self.world

    def _after(self, at: int, batches: int) -> int:
        for end in self._ends:
            if end > at:
                here = min(batches, -(-(end - at) // self._width))
                at, batches = min(at + here * self._width, end), batches - here
        return at


def _ends(data: Data) -> list[int]:
    """Where phases begin, in samples of the run, and its end."""
    phases = data.schedule.config.phases
    return [0, *accumulate(p.tokens // p.batch_tokens * (p.batch_tokens // p.sequence_length) for p in phases)]


def _checked(samples: int, ends: list[int]) -> int:
    if not 0 <= samples <= ends[-1]:
        raise UserError(f"the run has {ends[-1]} samples, none after {samples}; resume with the schedule that it began with")
    return samples


def _read(data: Data, ends: list[int], at: int, count: int, height: int, skip: int = 0) -> Item:
    """Samples [at + skip, at + skip + count) of the run, of the phase of sample `at`, filled up to `height` rows."""
    phase = bisect_right(ends, at) - 1
    samples = data.schedule.samples(phase, at + skip - ends[phase], count)
    batch: MicroBatch = pack(data.rows(phase, samples), height, samples.length, with_roles=data.has_roles(samples))
    item = {"inputs": batch.inputs.long(), "targets": batch.targets.long(), "positions": batch.positions.long()}
    return item if batch.roles is None else item | {"roles": batch.roles}
