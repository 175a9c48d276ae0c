"""Answers that a model gave, and their way into micro-batches: packed with their prompts, with what is known of each token.

Shapes: R rows of T tokens, packed; N answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from pipelines.schedule.packing import best_fit_decreasing
from trainer.data import MicroBatch
from trainer.engine import Completion
from trainer.errors import UserError
from trainer.loss import IGNORED
from trainer.post.policy import Floats

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prompt:
    """Token ids up to the header of the answer, the answer of the data as text, and the token that ends one.

    `group`: its source or language, by which figures are told apart.
    """

    tokens: tuple[int, ...]
    reference: str
    stop: int
    group: str


@dataclass(frozen=True)
class Answer:
    """An answer sampled, and its text without the token that ends it."""

    prompt: Prompt
    completion: Completion
    text: str


@dataclass(frozen=True)
class Experience(MicroBatch):
    """A micro-batch of answers: all (R, T) fp32, 0 where no token was sampled.

    `old`, `reference`: log-probabilities under the policy that answered and the base; `share`: of a token in its answer, times
    the tokens an answer; `reward`: of its answer times that share. `values`, `aims`: of the critic, and what it learns.
    """

    old: Tensor | None = None
    reference: Tensor | None = None
    advantages: Tensor | None = None
    share: Tensor | None = None
    reward: Tensor | None = None
    values: Tensor | None = None
    aims: Tensor | None = None

    def to(self, device: torch.device) -> Experience:
        """On another device, without waiting for the copy."""
        moved: dict[str, Any] = {n: v.to(device, non_blocking=True) for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Packed:
    """Answers with their prompts in rows: the micro-batches of each part, and where each answer's tokens are targets."""

    parts: tuple[tuple[MicroBatch, ...], ...]
    places: tuple[Ints, ...]  # of answers: indices into all rows, flattened
    shape: tuple[int, int]

    def spread(self, values: Sequence[npt.NDArray[np.generic] | float]) -> Tensor:
        """An array (tokens,), or a number, an answer -> fp32 (R, T)."""
        flat = np.zeros(self.shape[0] * self.shape[1], np.float32)
        for at, value in zip(self.places, values, strict=True):
            flat[at] = value
        return torch.from_numpy(flat.reshape(self.shape))

    def shares(self) -> Floats:
        """One over the tokens of each answer, times the tokens an answer of its part on all ranks (N,).

        Summed over the tokens of a part and divided by their number, what is weighted so is the mean of the answers' means.
        """
        part_of = np.array([at[0] for at in self.places], np.int64) * len(self.parts) // (self.shape[0] * self.shape[1])
        counts = np.array([len(at) for at in self.places], np.float64)
        size = len(self.parts)
        sums = [*np.bincount(part_of, counts, size).tolist(), *np.bincount(part_of, minlength=size).tolist()]
        tokens, answers = np.array(summed(sums)).reshape(2, size)
        shares: Floats = (tokens / answers.clip(1))[part_of] / counts
        return shares

    def gather(self, rows_RT: Tensor) -> list[Floats]:
        """The reverse: an array (tokens,) an answer."""
        flat = rows_RT.flatten().double().numpy()
        return [flat[at] for at in self.places]


def pack_answers(answers: Sequence[Answer], length: int, parts: int, height: int, rows: Callable[[int], int]) -> Packed:
    """Best-fit into rows of `length`, dealt to `parts` in micro-batches of at most `height`.

    `rows`: from the number of rows needed here to that of the rank that needs most, so that all have as many micro-batches.
    Raises UserError where a prompt and its answer are longer than a row.
    """
    sequences = [(*a.prompt.tokens, *a.completion.tokens) for a in answers]
    sizes = np.array([len(s) - 1 for s in sequences], np.int64)
    if len(sizes) and sizes.max() > length:
        raise UserError(
            f"a prompt and its answer are {sizes.max() + 1} tokens, a row has {length}; --set online.limit to less, or "
            "sequence_length to more"
        )
    row_of = best_fit_decreasing(sizes, length) if len(sizes) else np.zeros(0, np.int64)
    per_part = -(-max(1, rows(int(row_of.max(initial=-1)) + 1)) // parts)
    micros = -(-per_part // height)
    height = -(-per_part // micros)
    total = parts * micros * height
    inputs, targets = np.zeros((total, length), np.int32), np.full((total, length), IGNORED, np.int32)
    segments: list[list[int]] = [[] for _ in range(total)]
    used = [0] * total
    places = []
    for sequence, answer, row in zip(sequences, answers, row_of.tolist(), strict=True):
        row, size = row % parts * (total // parts) + row // parts, len(sequence) - 1  # dealt out in turn
        begin, sampled = used[row], len(answer.completion.tokens)
        segments[row].append(begin)
        inputs[row, begin : begin + size] = sequence[:-1]
        at = np.arange(begin + size - sampled, begin + size)
        targets[row, at] = answer.completion.tokens
        places.append(row * length + at)
        used[row] += size
    for row, end in enumerate(used):
        segments[row] += [end] if end < length else []
    made = []
    for first in range(0, total, height):
        part = slice(first, first + height)
        bounds = [n * length + begin for n, row in enumerate(segments[part]) for begin in row] + [height * length]
        made.append(_micro_batch(inputs[part], targets[part], np.array(bounds, np.int32)))
    grouped = tuple(tuple(made[p * micros : (p + 1) * micros]) for p in range(parts))
    return Packed(grouped, tuple(places), (total, length))


def _micro_batch(inputs: npt.NDArray[np.int32], targets: npt.NDArray[np.int32], bounds: npt.NDArray[np.int32]) -> MicroBatch:
    lengths = np.diff(bounds)
    positions = (np.arange(inputs.size, dtype=np.int32) - np.repeat(bounds[:-1], lengths)).reshape(inputs.shape)
    arrays = (inputs, targets, positions.astype(np.int32), bounds)
    inputs_BT, targets_BT, positions_BT, cu_seqlens = (torch.from_numpy(array) for array in arrays)
    return MicroBatch(inputs_BT, targets_BT, positions_BT, cu_seqlens, int(lengths.max()))


def summed(values: Sequence[float]) -> list[float]:
    """Sums over the ranks."""
    total = _there(torch.tensor(values, dtype=torch.float64))
    dist.all_reduce(total)
    return [float(value) for value in total]


def most(value: int) -> int:
    """The greatest of the ranks' values."""
    most = _there(torch.tensor(value))
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)


def _there(tensor: Tensor) -> Tensor:
    """Where the ranks talk."""
    return tensor.cuda() if torch.cuda.is_available() else tensor
