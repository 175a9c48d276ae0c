"""Checkpoints: the tensors by torch.distributed.checkpoint, one integer (tokens seen), and what they belong to.

    RUN/checkpoints/step-00000100/COMMIT.json            written last, inside a temporary folder that is then renamed
    RUN/checkpoints/step-00000100/*.safetensors          weights and optimizer moments, each rank its part

The tensor files are safetensors: nothing is unpickled. Each file carries the offsets of its parts, so that any number of
ranks reads what any other number wrote. A folder without COMMIT.json, or with a file of another size than it says, is not read.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from trainer.errors import UserError
from trainer.optimizer import empty_state, moments_of

COMMIT = "COMMIT.json"


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to. `schedule`: the part of it that is past (Schedule.prefix)."""

    config: str
    shards: str
    schedule: str


@dataclass(frozen=True)
class Commit:
    """The state beside the tensors. `skipped`: ranges of samples taken out of the run, as (phase, first, count)."""

    step: int  # steps done
    tokens: int  # tokens seen: the whole data state
    identity: Identity
    files: dict[str, int]  # bytes of each tensor file
    learning_rate: float  # of the last step
    skipped: tuple[tuple[int, int, int], ...] = ()
    phase: str = ""  # of the last step
    average_of: tuple[int, ...] = ()  # steps whose weights these are the mean of; then there are no moments
    version: int = 2


def save(folder: Path, tensors: dict[str, Tensor], commit: Commit, keep: int, keep_phase: str | None = None) -> Path:
    """Write a checkpoint, called by every rank; returns its folder. Raises UserError on a full disk.

    Older ones are removed, but for the newest `keep` and those of the phase `keep_phase`.
    """
    final, temporary = folder / f"step-{commit.step:08d}", folder / f".step-{commit.step:08d}.tmp"
    leader = dist.get_rank() == 0
    if leader:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    try:
        writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        state_dict_saver.save(tensors, storage_writer=writer)
    except (CheckpointException, OSError) as error:
        raise _write_error(error, final) from error
    failure: list[str] = [""]
    if leader:
        try:
            publish(temporary, final, commit)
            _retire(folder, keep, keep_phase)
        except OSError as error:
            failure[0] = f"cannot write checkpoint {final}: {error.strerror or error}; free space or choose another --out"
    dist.broadcast_object_list(failure)
    if failure[0]:
        raise UserError(failure[0])
    return final


def publish(temporary: Path, final: Path, commit: Commit) -> None:
    """Make a checkpoint of the files of a folder: told what belongs to it, then moved into its place."""
    files = sorted(p for p in temporary.iterdir() if p.is_file())
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    commit = Commit(**{**vars(commit), "files": {p.name: p.stat().st_size for p in files}})
    with (temporary / COMMIT).open("w") as file:
        json.dump(asdict(commit), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _sync_folder(final.parent)


def _retire(folder: Path, keep: int, keep_phase: str | None) -> None:
    for path in committed(folder)[:-keep]:
        if keep_phase is not None and read_commit(path).phase == keep_phase:
            continue
        (path / COMMIT).unlink()  # first, so that a half-deleted one is not read
        shutil.rmtree(path)
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def committed(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _is_complete(path))


def _is_complete(path: Path) -> bool:
    if not (path / COMMIT).is_file():
        return False
    files = read_commit(path).files
    return bool(files) and all((path / n).is_file() and (path / n).stat().st_size == size for n, size in files.items())


def read_commit(path: Path) -> Commit:
    """What a checkpoint says of itself. Raises UserError for a format this program does not know."""
    values = json.loads((path / COMMIT).read_text())
    if values.get("version") != Commit.version:
        raise UserError(f"{path / COMMIT} has version {values.get('version')!r}, this program reads {Commit.version}")
    values["identity"] = Identity(**values["identity"])
    values["skipped"] = tuple(tuple(s) for s in values["skipped"])
    values["average_of"] = tuple(values.get("average_of", ()))
    return Commit(**values)


def check_identity(found: Identity, mine: Identity, path: Path, past: Collection[str] = ()) -> None:
    """Raise UserError, with both values, where the checkpoint belongs to another config, shards or schedule.

    `past`: what the shards were before documents of them were taken down; a run that began on one of these goes on.
    """
    for what in ("config", "shards", "schedule"):
        theirs, ours = getattr(found, what), getattr(mine, what)
        if theirs != ours and not (what == "shards" and theirs in past):
            raise UserError(
                f"{path} belongs to {what} {theirs}, this run has {ours}; choose another --out or the {what} it began with"
            )


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, commit: Commit) -> None:
    """Fill weights and moments in place, whatever number of ranks wrote them. Called by every rank."""
    empty_state(optimizer, commit.step)
    state_dict_loader.load(tensors(model, optimizer), storage_reader=HuggingFaceStorageReader(str(path)))


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill the weights of an unsharded model in one process."""
    read_tensors(path, weights(model))


def read_tensors(path: Path, state: dict[str, Tensor]) -> None:
    """Fill tensors by their names in a checkpoint, in one process; no others are read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # that is what was asked for
        state_dict_loader.load(state, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that are trained by their names in a checkpoint; the tensors are the model's own."""
    return {f"model/{name}": parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and the optimizer's moments by their names in a checkpoint; the tensors are their own."""
    found = weights(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found |= {f"optimizer/{moment}/{name}": value for moment, value in moments_of(optimizer, parameter).items()}
    return found


def _write_error(error: BaseException, path: Path) -> BaseException:
    """A UserError where the cause is the file system, else the error itself."""
    causes: list[Any] = [*(getattr(error, "failures", {}) or {}).values(), error]
    for cause in causes:
        cause = cause[0] if isinstance(cause, tuple) else cause
        if isinstance(cause, OSError) or any(s in str(cause) for s in (os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG))):
            reason = getattr(cause, "strerror", None) or str(cause).splitlines()[0]
            return UserError(f"cannot write checkpoint {path}: {reason}; free space or choose another --out")
    return error
