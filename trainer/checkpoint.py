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

COMMIT = "COMMIT.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to."""

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
    skipped: tuple[tuple[int, int, int], ...] = ()
    version: int = 1


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, commit: Commit, keep: int) -> Path:
    """Write a checkpoint, called by every rank; returns its folder. The newest `keep` stay. Raises UserError on a full disk."""
    final, temporary = folder / f"step-{commit.step:08d}", folder / f".step-{commit.step:08d}.tmp"
    leader = dist.get_rank() == 0
    if leader:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True, exist_ok=True)
    dist.barrier()
    try:
        writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        state_dict_saver.save(_tensors(model, optimizer), storage_writer=writer)
    except (CheckpointException, OSError) as error:
        raise _write_error(error, final) from error
    failure: list[str] = [""]
    if leader:
        try:
            _publish(temporary, final, commit)
            _retire(folder, keep)
        except OSError as error:
            failure[0] = f"cannot write checkpoint {final}: {error.strerror or error}; free space or choose another --out"
    dist.broadcast_object_list(failure)
    if failure[0]:
        raise UserError(failure[0])
    return final


def _publish(temporary: Path, final: Path, commit: Commit) -> None:
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


def _retire(folder: Path, keep: int) -> None:
    for path in committed(folder)[:-keep]:
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
    return Commit(**values)


def check_identity(commit: Commit, mine: Identity, path: Path) -> None:
    """Raise UserError, with both values, where the checkpoint belongs to another config, shards or schedule."""
    for what in ("config", "shards", "schedule"):
        theirs, ours = getattr(commit.identity, what), getattr(mine, what)
        if theirs != ours:
            raise UserError(
                f"{path} belongs to {what} {theirs}, this run has {ours}; choose another --out or the {what} it began with"
            )


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, commit: Commit) -> None:
    """Fill weights and moments in place, whatever number of ranks wrote them. Called by every rank."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            local_step = torch.tensor(float(commit.step), dtype=torch.float32, device=parameter.device)
            optimizer.state[parameter] = {"step": local_step} | {m: torch.zeros_like(parameter) for m in _MOMENTS}
    state_dict_loader.load(_tensors(model, optimizer), storage_reader=HuggingFaceStorageReader(str(path)))


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill the weights of an unsharded model in one process."""
    state = {f"model/{name}": p.detach() for name, p in model.named_parameters()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # that is what was asked for
        state_dict_loader.load(state, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"model/{name}"] = parameter.detach()
        tensors |= {f"optimizer/{m}/{name}": optimizer.state[parameter][m] for m in _MOMENTS}
    return tensors


def _write_error(error: BaseException, path: Path) -> BaseException:
    """A UserError where the cause is the file system, else the error itself."""
    causes: list[Any] = [*(getattr(error, "failures", {}) or {}).values(), error]
    for cause in causes:
        cause = cause[0] if isinstance(cause, tuple) else cause
        if isinstance(cause, OSError) or any(s in str(cause) for s in (os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG))):
            reason = getattr(cause, "strerror", None) or str(cause).splitlines()[0]
            return UserError(f"cannot write checkpoint {path}: {reason}; free space or choose another --out")
    return error
