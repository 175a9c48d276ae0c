"""From the compiled schedule to tensors: which samples a rank takes at a step is arithmetic, so there is no state to save.

Any PyTorch loop can use it alone:

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipelines.schedule import Schedule, ScheduleError, StepPlan, read_schedule
from pipelines.shards import ShardError, Shards, TokenStream
from trainer.errors import UserError
from trainer.loss import IGNORED

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Data:
    """Shards and the schedule compiled for them. One thread at a time reads training tokens."""

    shards: Shards
    schedule: Schedule
    _streams: dict[str, TokenStream] = field(default_factory=dict, repr=False, compare=False)

    def stream(self, source: str) -> TokenStream:
        """The training tokens of a source, opened once."""
        if source not in self._streams:
            self._streams[source] = self.shards.stream(source, "train")
        return self._streams[source]

    def phase_name(self, plan: StepPlan) -> str:
        """The name of a step's phase."""
        return self.schedule.config.phases[plan.phase].name


@dataclass(frozen=True)
class MicroBatch:
    """int64 tensors (B, T): token ids, next token ids (-100: not a target), document ids that do not decrease along T."""

    inputs: Tensor
    targets: Tensor
    documents: Tensor

    def to(self, device: torch.device) -> MicroBatch:
        """On another device, without waiting for the copy."""
        return MicroBatch(*(t.to(device, non_blocking=True) for t in (self.inputs, self.targets, self.documents)))


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
        return Data(opened, read_schedule(path, opened.manifest.fingerprint))
    except (ShardError, ScheduleError) as error:
        raise UserError(str(error)) from error


def rank_samples(samples: int, rank: int, world: int) -> range:
    """The part of a step's samples that a rank takes: contiguous, sizes differing by one at most."""
    return range(samples * rank // world, samples * (rank + 1) // world)


def load_batch(data: Data, step: int, rank: int, world: int, micro_batch: int) -> Batch:
    """A rank's part of a step, in equal micro-batches of at most `micro_batch` rows. Raises UserError on too many ranks."""
    plan = data.schedule.step_plan(step)
    if world > plan.samples:
        raise UserError(
            f"{world} processes, but step {step} has {plan.samples} samples; start at most {plan.samples} processes"
        )
    mine = rank_samples(plan.samples, rank, world)
    rows = -(-plan.samples // world)
    parts = -(-rows // micro_batch)
    height = -(-rows // parts)
    inputs = np.zeros((parts * height, plan.sequence_length), np.int64)
    targets = np.full_like(inputs, IGNORED)
    documents = np.zeros_like(inputs)
    names = []
    samples = data.schedule.samples(plan.phase, plan.first_sample + mine.start, len(mine))
    for row, (index, start) in enumerate(zip(samples.source.tolist(), samples.start.tolist(), strict=True)):
        source = samples.sources[index]
        fill_row(data.stream(source), start, samples.length, inputs[row], targets[row], documents[row])
        names.append(f"{source}:{start}")
    whole = [torch.from_numpy(array).view(parts, height, -1) for array in (inputs, targets, documents)]
    micro = tuple(MicroBatch(*(tensor[i] for tensor in whole)) for i in range(parts))
    return Batch(plan, micro, plan.samples * plan.sequence_length, tuple(names))


def fill_row(stream: TokenStream, start: int, length: int, inputs_T: Ints, targets_T: Ints, documents_T: Ints) -> None:
    """Write a sample of `length` targets, read from `length` + 1 tokens, into the first places of one row of a batch."""
    tokens = stream.slice(start, length + 1)
    inputs_T[:length] = tokens[:-1]
    targets_T[:length] = tokens[1:]
    begins = np.zeros(length, np.int64)
    begins[stream.document_starts(start, length)] = 1
    documents_T[:length] = np.cumsum(begins)
    documents_T[length:] = documents_T[length - 1] + 1


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
