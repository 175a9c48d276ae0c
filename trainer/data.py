"""From the compiled schedule to tensors: which samples a rank takes at a step is arithmetic, so there is no state to save.

Any PyTorch loop can use it alone (trainer/dataset.py has the same rows as a plain `torch.utils.data` data set):

    from trainer.data import Prefetcher, load_batch, open_data
    data = open_data("OUT/shards")
    for batch in Prefetcher(lambda step: load_batch(data, step, rank, world, micro_batch=8), first_step, last_step):
        for micro in batch.micro_batches:
            loss = my_loss(my_model(micro.inputs), micro.targets) / batch.valid_tokens   # targets of -100 do not count

The union over the ranks is the same set of samples for any world size. A step whose samples do not divide is filled up with
rows that are not targets, so every rank has the same shapes and the loss, divided by `valid_tokens`, is weighted right.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipelines.schedule import Samples, Schedule, ScheduleError, StepPlan, read_schedule, unit_of
from pipelines.schedule.packing import Rows, rows_of
from pipelines.shards import ShardError, Shards, TokenStream
from pipelines.shards.roles import NONE, TARGET, sequence_starts
from trainer.errors import UserError
from trainer.loss import IGNORED

Ints = npt.NDArray[np.int64]
_ONE: Ints = np.zeros(1, np.int64)  # one segment, at the beginning


@dataclass(frozen=True)
class Data:
    """Shards and the schedule compiled for them. One thread at a time reads training tokens; it pickles, for workers."""

    shards: Shards
    schedule: Schedule
    _streams: dict[str, TokenStream] = field(default_factory=dict, repr=False, compare=False)
    _packings: dict[tuple[int, str], Rows] = field(default_factory=dict, repr=False, compare=False)

    def stream(self, source: str) -> TokenStream:
        """The training tokens of a source, opened once. Raises ShardError for one that is not there."""
        if source not in self._streams:
            self._streams[source] = self.shards.stream(source, "train")
        return self._streams[source]

    def phase_name(self, plan: StepPlan) -> str:
        """The name of a step's phase."""
        return self.schedule.config.phases[plan.phase].name

    def rows(self, phase: int, samples: Samples) -> list[Row]:
        """What each of these samples of phase number `phase` is made of."""
        streams = [self.stream(source) for source in samples.sources]
        pairs = zip(samples.source.tolist(), samples.start.tolist(), strict=True)
        if samples.packing == "concatenate":
            return [Row(streams[index], ((start, samples.length),)) for index, start in pairs]
        packings = [self.packing(phase, source) for source in samples.sources]
        return [Row(streams[index], packings[index].pieces(start).tolist(), joined=False) for index, start in pairs]

    def has_roles(self, samples: Samples) -> bool:
        """Whether a source that these samples may be of has roles: the same on all ranks."""
        return any(self.stream(source).has_roles for source in samples.sources)

    def packing(self, phase: int, source: str) -> Rows:
        """The rows of a source in a phase that packs documents."""
        if (phase, source) not in self._packings:
            cfg = self.schedule.config.phases[phase]
            counts = self.schedule.layout[source][unit_of(cfg)]
            self._packings[phase, source] = rows_of(self.stream(source), cfg.packing, cfg.sequence_length, counts)
        return self._packings[phase, source]


@dataclass(frozen=True)
class Row:
    """Pieces (position, length) of a stream in order. `joined`: a document's last token predicts the next one's first."""

    stream: TokenStream
    pieces: Sequence[Sequence[int]]
    joined: bool = True


@dataclass(frozen=True)
class MicroBatch:
    """int32 tensors of B rows of T tokens; a segment is what a row holds of one document (or its padding).

    `inputs`: token ids; `targets`: next token ids, -100 where there is none; `positions`: inside the segment, (B, T) each;
    `cu_seqlens` (segments + 1,): where segments begin in the flattened rows, and B T: with `max_seqlen` what varlen attention
    takes. PyTorch's own losses want `targets.long()`.

    `roles`: uint8 (B, T), the code (pipelines.shards.roles) of the token that each position predicts, NONE where no target is;
    None where no source of the phase has roles. Where they are, a segment is a *sequence*, of which a document with a
    preference holds several, and only what the assistant writes (`roles.TARGET`) is a target.
    """

    inputs: Tensor
    targets: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    roles: Tensor | None = None

    @property
    def documents(self) -> Tensor:
        """Number of the segment inside its row, from 1, (B, T): computed where the batch is."""
        return (self.positions == 0).cumsum(1, dtype=torch.int32)

    def to(self, device: torch.device) -> MicroBatch:
        """On another device, without waiting for the copy."""
        tensors = self.inputs, self.targets, self.positions, self.cu_seqlens
        inputs, targets, positions, cu_seqlens = (t.to(device, non_blocking=True) for t in tensors)
        roles = None if self.roles is None else self.roles.to(device, non_blocking=True)
        return MicroBatch(inputs, targets, positions, cu_seqlens, self.max_seqlen, roles)


@dataclass(frozen=True)
class Batch:
    """One rank's part of one step. `valid_tokens`: targets of all ranks; `samples`: this rank's, each as source:start."""

    plan: StepPlan
    micro_batches: tuple[MicroBatch, ...]
    valid_tokens: int
    samples: tuple[str, ...]


def open_data(shards: str | Path, schedule: str | Path | None = None) -> Data:
    """Open shards and their schedule (default: schedule.json beside the folder). Raises UserError if they do not fit."""
    root = Path(shards)
    path = Path(schedule) if schedule is not None else root.parent / "schedule.json"
    if not root.is_dir():
        raise UserError(f"there is no shard folder {str(root)!r}; give --data OUT/shards of a finished pipelines run")
    if not path.is_file():
        raise UserError(f"there is no schedule {str(path)!r}; give --schedule, or finish the pipelines run that writes it")
    try:
        opened = Shards(root)
        data = Data(opened, read_schedule(path, *opened.manifest.lineage))
        for row in data.schedule.epochs():
            data.stream(row.source)  # now, not at the step that first reads it
        return data
    except (ShardError, ScheduleError) as error:
        raise UserError(str(error)) from error


def rank_samples(samples: int, rank: int, world: int) -> range:
    """The part of a step's samples that a rank takes: contiguous, sizes differing by one at most."""
    return range(samples * rank // world, samples * (rank + 1) // world)


def micro_batches(samples: int, world: int, most: int) -> tuple[int, int]:
    """How many micro-batches each of `world` ranks makes of a step, and of how many rows, at most `most`."""
    height = -(-samples // world)
    parts = -(-height // most)
    return parts, -(-height // parts)


def load_batch(data: Data, step: int, rank: int, world: int, micro_batch: int) -> Batch:
    """A rank's part of a step, in equal micro-batches of at most `micro_batch` rows. Raises UserError on too many ranks."""
    plan = data.schedule.step_plan(step)
    if world > plan.samples:
        raise UserError(
            f"{world} processes, but step {step} has {plan.samples} samples; start at most {plan.samples} processes"
        )
    mine = rank_samples(plan.samples, rank, world)
    parts, height = micro_batches(plan.samples, world, micro_batch)
    samples = data.schedule.samples(plan.phase, plan.first_sample + mine.start, len(mine))
    rows = data.rows(plan.phase, samples)
    pin = torch.cuda.is_available()
    roles = data.has_roles(samples)
    micro = [pack(rows[i * height : (i + 1) * height], height, plan.sequence_length, pin, roles) for i in range(parts)]
    pairs = zip(samples.source.tolist(), samples.start.tolist(), strict=True)
    names = tuple(f"{samples.sources[index]}:{start}" for index, start in pairs)
    return Batch(plan, tuple(micro), step_targets(data, plan), names)


def step_targets(data: Data, plan: StepPlan) -> int:
    """Targets of a step on all ranks, which each rank finds alike: by arithmetic where every row is full."""
    samples = data.schedule.samples(plan.phase, plan.first_sample, plan.samples)
    read = bool(data.shards.manifest.takedowns) or data.has_roles(samples)
    if data.schedule.config.phases[plan.phase].packing == "concatenate" and not read:
        return plan.samples * plan.sequence_length
    if read:
        return sum(map(count_targets, data.rows(plan.phase, samples)))
    packings = [data.packing(plan.phase, source) for source in samples.sources]
    pairs = zip(samples.source.tolist(), samples.start.tolist(), strict=True)
    return sum(packings[index].targets(start) for index, start in pairs)


def count_targets(row: Row) -> int:
    """Tokens of a row that have a next one to predict, and where there are roles to learn."""
    if row.stream.has_roles:
        return sum(int(TARGET[_target_codes(row, start, size)].sum()) for start, size in row.pieces)
    holes = [_holes(row, start, size, row.stream.document_starts(start, size + 1)) for start, size in row.pieces]
    return sum(size for _, size in row.pieces) - sum(int((h[:, 1] - h[:, 0]).sum()) for h in holes)


def pack(rows: Sequence[Row], height: int, length: int, pin: bool = False, with_roles: bool = False) -> MicroBatch:
    """A micro-batch of `height` rows of `length` tokens: these rows, then empty ones. `pin`: in page-locked memory.
    `with_roles`: give roles even where none of these rows has them.

    Its memory is its own: nothing is written to it again.
    """
    # in one piece, which the C library gives from what the last batch gave back, and does not map anew
    inputs, targets, positions = torch.empty((3, height, length), dtype=torch.int32, pin_memory=pin)
    begins = _fill(rows, inputs.numpy(), targets.numpy())
    roles = None
    if with_roles or any(row.stream.has_roles for row in rows):
        roles = torch.full((height, length), NONE, dtype=torch.uint8, pin_memory=pin)
        begins = np.union1d(begins, _fill_roles(rows, roles.numpy(), targets.numpy()))
    cu_seqlens = np.append(begins, height * length).astype(np.int32)
    lengths = np.diff(cu_seqlens)
    np.subtract(_places(height * length), np.repeat(cu_seqlens[:-1], lengths), out=positions.view(-1).numpy())
    bounds = torch.from_numpy(cu_seqlens)
    return MicroBatch(inputs, targets, positions, bounds.pin_memory() if pin else bounds, int(lengths.max()), roles)


@lru_cache(maxsize=8)
def _places(count: int) -> npt.NDArray[np.int32]:
    return np.arange(count, dtype=np.int32)


def _fill(rows: Sequence[Row], inputs_BT: npt.NDArray[np.int32], targets_BT: npt.NDArray[np.int32]) -> Ints:
    """Write the rows; returns where segments begin in the flattened batch."""
    height, length = inputs_BT.shape
    found, at = list[Ints](), list[int]()  # where the segments of a piece begin, and where the piece does
    for number, (row, inputs_T, targets_T) in enumerate(zip(rows, inputs_BT, targets_BT, strict=False)):
        done = 0
        for start, size in row.pieces:
            tokens, begins = row.stream.read(start, size + 1)
            inputs_T[done : done + size] = tokens[:-1]
            targets_T[done : done + size] = tokens[1:]
            for low, high in _holes(row, start, size, begins).tolist():
                targets_T[done + low : done + high] = IGNORED
            found.append(begins[:-1] if begins[-1] == size else begins)
            at.append(number * length + done)
            done += size
        if done < length:
            inputs_T[done:], targets_T[done:] = 0, IGNORED
            found.append(_ONE)
            at.append(number * length + done)
    inputs_BT[len(rows) :], targets_BT[len(rows) :] = 0, IGNORED
    found += [_ONE] * (height - len(rows))
    at += range(len(rows) * length, height * length, length)
    return np.repeat(at, [len(some) for some in found]) + np.concatenate(found)


def _fill_roles(rows: Sequence[Row], roles_BT: npt.NDArray[np.uint8], targets_BT: npt.NDArray[np.int32]) -> Ints:
    """Write the codes of the targets, take away those that are not to be learnt; where sequences begin in the flat batch."""
    found: list[Ints] = [np.zeros(0, np.int64)]
    for number, row in enumerate(rows):
        done = number * roles_BT.shape[1]
        for start, size in row.pieces if row.stream.has_roles else ():
            codes = roles_BT.reshape(-1)[done : done + size]
            codes[:] = _target_codes(row, start, size)
            targets_BT.reshape(-1)[done : done + size][~TARGET[codes]] = IGNORED
            found.append(sequence_starts(row.stream.roles(start, size)) + done)
            done += size
    return np.concatenate(found)


def _target_codes(row: Row, start: int, size: int) -> npt.NDArray[np.uint8]:
    """The codes of the targets of a piece, NONE where a target is none."""
    codes = row.stream.roles(start + 1, size).copy()
    for low, high in _holes(row, start, size, row.stream.document_starts(start, size + 1)).tolist():
        codes[low:high] = NONE
    return codes


def _holes(row: Row, start: int, size: int, begins: Ints) -> Ints:
    """Which targets of a piece are none, as disjoint [low, high); `begins`: document_starts(start, size + 1)."""
    if row.joined or begins[-1] < size:
        return row.stream.gaps(start + 1, size)
    return np.append(row.stream.gaps(start + 1, size - 1), [[size - 1, size]], 0)  # the piece ends with a document


class Prefetcher(Iterator[Batch]):
    """Loads the steps [first, last) in a thread, `depth` ahead; an error in the thread is raised where the batch is taken."""

    def __init__(self, load: Callable[[int], Batch], first: int, last: int, depth: int = 2) -> None:
        self._left = last - first
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(load, first, last), daemon=True, name="prefetch")
        self._thread.start()

    def _work(self, load: Callable[[int], Batch], first: int, last: int) -> None:
        for step in range(first, last):
            item: Batch | BaseException
            try:
                item = load(step)
            except BaseException as error:  # handed over to the consumer, who raises it
                item = error
            while not self._closed.is_set():
                try:
                    self._ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._closed.is_set() or isinstance(item, BaseException):
                return

    def __next__(self) -> Batch:
        """The next step's batch."""
        if self._left == 0:
            raise StopIteration
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._left = 0
            raise _for_user(item)
        self._left -= 1
        return item

    def close(self) -> None:
        """Stop the thread; batches not taken are dropped."""
        self._closed.set()
        self._thread.join()


def _for_user(error: BaseException) -> BaseException:
    return UserError(str(error)) if isinstance(error, ShardError) else error
