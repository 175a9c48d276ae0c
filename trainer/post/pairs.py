"""Micro-batches of answers to compare: which sequences of a packed batch make a pair, and what the reference thinks of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.shards import Shards
from pipelines.shards.roles import BAD, CONTENT, GOOD, pairs, sequence_grades
from trainer.data import Batch, Data, MicroBatch, Row, load_batch, pack, rank_samples
from trainer.log import say
from trainer.loss import IGNORED
from trainer.model import Decoder
from trainer.parallel import reshard
from trainer.post.adapters import base_alone

Ints = npt.NDArray[np.int64]
NO_PAIRS: Ints = np.zeros((0, 3), np.int64)


@dataclass(frozen=True)
class Pairs(MicroBatch):
    """A micro-batch with roles. `pairs` int64 (P, 3): number of the better and of the other sequence, grade of the better.

    For KTO (N, 3): number of a sequence, 1 if it is good, its grade. `reference`: of targets, fp32 (B, T), nats.
    """

    pairs: Tensor = field(default_factory=lambda: torch.from_numpy(NO_PAIRS))
    reference: Tensor | None = None
    left_out: int = 0  # of the pairs, those whose answers are alike

    def to(self, device: torch.device) -> Pairs:
        """On another device, without waiting for the copy."""
        there = super().to(device)
        reference = None if self.reference is None else self.reference.to(device, non_blocking=True)
        pairs = self.pairs.to(device, non_blocking=True)
        return Pairs(**vars(there), pairs=pairs, reference=reference, left_out=self.left_out)


def find_pairs(micro: MicroBatch, alike: float = 1.0) -> Ints:
    """All pairs of a micro-batch on the host but those whose answers are alike (`likeness` of `alike` or more, if below 1)."""
    codes, starts = _codes(micro), micro.cu_seqlens.numpy()[:-1].astype(np.int64)
    found = pairs(sequence_grades(codes, starts))
    if alike >= 1 or not len(found):
        return found
    tokens, ends = micro.targets.numpy().reshape(-1), micro.cu_seqlens.numpy()[1:]

    def answer(sequence: int) -> list[int]:
        part = slice(int(starts[sequence]), int(ends[sequence]))
        words: list[int] = tokens[part][CONTENT[codes[part]]].tolist()
        return words

    return found[[likeness(answer(a), answer(b)) < alike for a, b, _ in found.tolist()]]


def find_judged(micro: MicroBatch, alike: float = 1.0) -> Ints:
    """What KTO learns from: answers judged by themselves, and both of each pair."""
    grades = sequence_grades(_codes(micro), micro.cu_seqlens.numpy()[:-1].astype(np.int64))
    single = np.flatnonzero((grades == GOOD) | (grades == BAD))
    found = [np.stack([single, grades[single] == GOOD, grades[single]], 1)]
    for better, other, grade in find_pairs(micro, alike).tolist():
        found.append(np.array([(better, 1, grade), (other, 0, grade)], np.int64))
    return np.concatenate(found).astype(np.int64)


def _codes(micro: MicroBatch) -> npt.NDArray[np.uint8]:
    assert micro.roles is not None
    codes: npt.NDArray[np.uint8] = micro.roles.numpy().reshape(-1)
    return codes


def likeness(a: Sequence[int], b: Sequence[int]) -> float:
    """Jaccard similarity of the sets of token trigrams (of the tokens, where an answer has fewer than three)."""
    size = min(3, len(a), len(b))
    first, second = (set(zip(*(x[i:] for i in range(size)), strict=False)) for x in (a, b))
    return len(first & second) / len(first | second) if size else float(len(a) == len(b))


@dataclass
class Reference:
    """Log-probabilities of the shards' answers under the base, computed once and kept beside the shards.

    A file a source and split, fp32, a number a token of its stream (0 where the token is no target): it is read by position as
    the tokens are. The folder is named by the base's weights, how they are held, and the tokens; a takedown moves none, so it
    stays.
    """

    base: str  # SHA-256 of the weights
    held: str = "whole"  # or "int8": a base in 8 bits is another model
    files: dict[tuple[str, str], npt.NDArray[np.float32]] = field(default_factory=dict)

    def folder(self, shards: Shards) -> Path:
        """Where the files lie."""
        return shards.root.parent / "reference" / f"{self.base[:16]}-{self.held}-{shards.manifest.lineage[0][:16]}"

    def prepare(
        self, shards: Shards, sources: Sequence[tuple[str, str]], model: Decoder, rows: RowsOf, height: int, length: int
    ) -> None:
        """Open the files, and compute with `model`, which holds the base's weights, those that are missing. On every rank.

        `height` rows of `length` tokens at once.
        """
        for source, split in sources:
            path = self.folder(shards) / source / f"{split}.f32"
            if not path.is_file():
                self._compute(path, rows(source, split), model, height, length)
            self.files[source, split] = np.memmap(path, np.float32, "r")

    def _compute(self, path: Path, rows: Sequence[Row], model: Decoder, height: int, length: int) -> None:
        rank, world, temporary = dist.get_rank(), dist.get_world_size(), path.with_suffix(".tmp")
        if rank == 0:
            say(f"reference: {rows[0].stream.n_tokens:,} tokens under the base {self.base[:16]}, once, into {path}")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.memmap(temporary, np.float32, "w+", shape=(rows[0].stream.n_tokens,)).flush()
        dist.barrier()
        found = np.memmap(temporary, np.float32, "r+")
        device = device_of(model)
        for first in range(rank * height, len(rows) + rank * height, world * height):  # as many passes on each rank
            mine = rows[first : first + height]
            micro = pack(mine, height, length, with_roles=True).to(device)
            with torch.no_grad(), base_alone(model):
                log_p_BT = -model.losses(micro.inputs, micro.targets, micro.documents).cpu().numpy()
            for row, log_p_T in zip(mine, log_p_BT, strict=False):
                done = 0
                for start, size in row.pieces:
                    found[start + 1 : start + size] = log_p_T[done : done + size - 1]  # the last one's target is none
                    done += size
        reshard(model)
        found.flush()
        dist.barrier()
        if rank == 0:
            shutil.move(temporary, path)
        dist.barrier()

    def of(self, source: str, split: str, row: Row, length: int) -> npt.NDArray[np.float32]:
        """Of the targets of a row (T,)."""
        found, done = np.zeros(length, np.float32), 0
        for start, size in row.pieces:
            found[done : done + size - 1] = self.files[source, split][start + 1 : start + size]
            done += size
        return found


RowsOf = Callable[[str, str], Sequence[Row]]  # (source, split): all its documents, packed


def device_of(model: Decoder) -> torch.device:
    """Where the model computes, also where its weights are offloaded."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else next(model.parameters()).device


@dataclass(frozen=True)
class Loader:
    """Reads steps of pairs. `shape`: what is done to a micro-batch first; `judged`: answers by themselves, for KTO."""

    shape: Callable[[MicroBatch], MicroBatch]
    reference: Reference | None = None
    alike: float = 1.0
    judged: bool = False

    def find(self, micro: MicroBatch, alike: float) -> Ints:
        """What is learnt from in a micro-batch, (P, 3) of `Pairs`."""
        return (find_judged if self.judged else find_pairs)(micro, alike)

    def __call__(self, data: Data, step: int, rank: int, world: int, micro_batch: int) -> Batch:
        """A rank's part of a step; `valid_tokens` is the number of pairs of all ranks, which each finds alike."""
        parts = [load_batch(data, step, other, world, micro_batch) for other in range(world)]
        counts = [sum(len(self.find(micro, self.alike)) for micro in part.micro_batches) for part in parts]
        batch, plan = parts[rank], parts[rank].plan
        samples = data.schedule.samples(plan.phase, plan.first_sample, plan.samples)
        rows, mine = data.rows(plan.phase, samples), rank_samples(plan.samples, rank, world)
        sources = [samples.sources[index] for index in samples.source.tolist()]
        height = len(batch.micro_batches[0].inputs)
        made = []
        for number, micro in enumerate(batch.micro_batches):
            part = range(mine.start + number * height, min(mine.stop, mine.start + (number + 1) * height))
            made.append(self.paired(micro, [(sources[i], "train", rows[i]) for i in part]))
        return replace(batch, micro_batches=tuple(made), valid_tokens=sum(counts))

    def prepare(self, source: str, split: str, rows: Sequence[Row], height: int, length: int) -> tuple[Pairs, int]:
        """Rows of a source as a micro-batch, and the number of its pairs."""
        micro = self.paired(pack(rows, height, length, with_roles=True), [(source, split, row) for row in rows])
        return micro, len(micro.pairs)

    def paired(self, micro: MicroBatch, rows: Sequence[tuple[str, str, Row]]) -> Pairs:
        """A micro-batch of these rows with its pairs."""
        reference = None
        if self.reference is not None:
            reference = torch.zeros(micro.inputs.shape)
            for number, (source, split, row) in enumerate(rows):
                reference[number] = torch.from_numpy(self.reference.of(source, split, row, micro.inputs.shape[1]))
        shaped = self.shape(Pairs(**vars(micro), reference=reference))
        assert isinstance(shaped, Pairs)
        found = self.find(shaped, self.alike)
        left_out = len(self.find(shaped, 1.0)) - len(found) if self.alike < 1 else 0
        return replace(shaped, pairs=torch.from_numpy(found), left_out=left_out)


def sequences(micro: MicroBatch) -> tuple[Tensor, int]:
    """The number of each token's sequence in the flattened rows (M,), from 0, and how many there are."""
    return (micro.positions.flatten() == 0).cumsum(0) - 1, len(micro.cu_seqlens) - 1


def targets_of(micro: MicroBatch) -> Tensor:
    """Which tokens are targets (M,)."""
    return (micro.targets != IGNORED).flatten()
