"""The base that a run begins with, and what a loop measures on held-out documents."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

from pipelines.schedule.packing import best_fit_decreasing
from pipelines.shards import Shards
from trainer import base, checkpoint, huggingface
from trainer.checkpoint import Commit, Identity
from trainer.config import TrainConfig, as_dict
from trainer.convert import appearing
from trainer.data import Data, MicroBatch, Row
from trainer.model import Decoder
from trainer.parallel import reshard
from trainer.post import adapters
from trainer.post.adapters import Adapter, Int8Linear, Lora
from trainer.post.config import Kind, sources_of

REWARD = "a reward model, whose head gives no words; give the model that it was made of"
ADAPTER = "an adapter alone; merge it first: python -m trainer.post merge RUN --base BASE --out MERGED"
PREFIX = "an adapter alone; `trainer.post evaluate` and `reject` take its --base, PEFT what `trainer.post export` writes"


@dataclass(frozen=True)
class Base(base.Base):
    """A finished run, whose weights also go where an adapter lies beside them."""

    @property
    def context(self) -> int:
        """The longest sequence it was trained with, in tokens."""
        return int(self.values["data"].get("sequence_length", 2048))

    @property
    def tokenizer(self) -> Path | None:
        """Its tokenizer.json, if it has one."""
        path = self.run / "tokenizer.json"
        return path if path.is_file() else None

    def fill(self, model: Decoder, skip: Callable[[str], bool] = lambda name: False) -> None:
        """Copy its weights into a model that is laid out, by name; those of an adapter, and what `skip` names, are left."""
        names = huggingface.shapes(self.model)
        found = {n: p.detach() for n, p in model.named_parameters() if adapters.base_name(n) in names and not skip(n)}
        rounded = {
            f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, Int8Linear)
        }  # read as they are, then rounded, each rank its rows
        read = {n: torch.zeros_like(p, dtype=torch.float32) if n in rounded else p for n, p in found.items()}
        state = {f"model/{adapters.base_name(n)}": p for n, p in read.items()}
        if dist.is_initialized():
            state_dict_loader.load(state, storage_reader=HuggingFaceStorageReader(str(self.checkpoint)))
        else:
            checkpoint.read_tensors(self.checkpoint, state)
        for name, module in rounded.items():
            module.fill(read[name])


def open_base(given: Path, out: Path) -> Base:
    """The newest checkpoint of a run, or a folder in the format of Hugging Face, which becomes the run OUT/base.

    Raises UserError for what is neither, and for weights that are no whole language model.
    """
    found = base.open_base(given, out)
    return Base(found.run, found.checkpoint, found.model, found.values)


def about(kind: str, given: Base, adapter: Adapter | None, **more: Any) -> dict[str, Any]:
    """What tells a run of post-training from another: its kind, the weights it began with, and what the kind adds."""
    values = {"kind": kind, "base": given.sha256[:16]} | {name: as_dict(value) for name, value in more.items()}
    if kind == "reward":
        values |= {"partial": REWARD}
    if adapter is not None:
        values |= {"adapter": {"type": type(adapter).__name__} | as_dict(adapter)}
        values |= {"partial": ADAPTER if isinstance(adapter, Lora) else PREFIX}
    return values


def write_run(out: Path, about: dict[str, Any], tensors: dict[str, Tensor], tokenizer: Path | None) -> None:
    """Weights by the model's names as a run of zero steps; `about`: its config.json. Raises UserError where OUT exists."""
    with appearing(out) as made:
        (made / "config.json").write_text(json.dumps(about, indent=1) + "\n")
        if tokenizer is not None:
            shutil.copyfile(tokenizer, made / "tokenizer.json")
        temporary = made / "checkpoints" / ".step-00000000.tmp"
        temporary.mkdir(parents=True)
        save_file({f"model/{n}": t.contiguous() for n, t in tensors.items()}, temporary / "model-00001.safetensors")
        commit = Commit(0, 0, Identity(**about["identity"]), {}, learning_rate=0.0)
        checkpoint.publish(temporary, made / "checkpoints" / "step-00000000", commit)


def held_out_rows(shards: Shards, source: str, length: int, most: int, split: str = "validation") -> list[Row]:
    """The first documents of a source, held-out ones, that fit into rows of `length`, at most `most` tokens of them, packed."""
    files = sum(file.source == source and file.split == split for file in shards.manifest.files)
    stream = shards.stream(source, split)
    starts, sizes = (
        np.concatenate(parts) for parts in zip(*((b[:-1], np.diff(b)) for b in map(stream.bounds, range(files))), strict=True)
    )
    kept = np.flatnonzero((sizes <= length) & (np.cumsum(sizes) <= max(most, length)))
    if not len(kept):
        return []
    row_of = best_fit_decreasing(sizes[kept], length)
    rows: list[list[tuple[int, int]]] = [[] for _ in range(int(row_of.max()) + 1)]
    for row, start, size in zip(row_of.tolist(), starts[kept].tolist(), sizes[kept].tolist(), strict=True):
        rows[row].append((start, size))
    return [Row(stream, pieces, joined=False) for pieces in rows]


# Of rows of a source: (source, split, rows, height, length) -> a micro-batch, and how many of what is averaged it has.
Prepare = Callable[[str, str, Sequence[Row], int, int], tuple[MicroBatch, int]]


@torch.no_grad()
def held_out(
    kinds: Sequence[Kind],
    prepare: Prepare,
    measure: Callable[[Decoder, Any, float], Tensor],
    names: Sequence[str],
    cfg: TrainConfig,
    data: Data,
    model: Decoder,
    length: int,
    device: torch.device,
) -> dict[str, float]:
    """Means of what `measure` sums, as "source" for the first and "source/name" for the others. Called by every rank."""
    result: dict[str, float] = {}
    for source in sources_of(data.shards, kinds, "validation"):
        sums, count = held_out_sums(source, prepare, measure, len(names) + 1, cfg, data, model, length, device)
        if count:
            means = [value / count for value in sums]
            result |= {source: means[0]} | {f"{source}/{name}": value for name, value in zip(names, means[1:], strict=True)}
    return result


@torch.no_grad()
def held_out_sums(
    source: str,
    prepare: Prepare,
    measure: Callable[[Decoder, Any, float], Tensor],
    size: int,
    cfg: TrainConfig,
    data: Data,
    model: Decoder,
    length: int,
    device: torch.device,
) -> tuple[list[float], int]:
    """The sums (size,) over a source's held-out documents, and the number to divide them by. Called by every rank."""
    rank, world, height = dist.get_rank(), dist.get_world_size(), cfg.parallel.micro_batch
    rows = held_out_rows(data.shards, source, length, cfg.run.evaluate_tokens)
    total = torch.zeros(size + 1, dtype=torch.float64, device=device)
    for first in range(0, len(rows), height * world):
        mine = rows[first + rank * height : first + (rank + 1) * height]
        micro, count = prepare(source, "validation", mine, height, length)
        total[:-1] += measure(model, micro.to(device), 1.0).double()
        total[-1] += count
    dist.all_reduce(total)
    reshard(model)
    *sums, count = total.tolist()
    return sums, round(count)


def with_adapter(model: Decoder, adapter: Adapter | None) -> None:
    """Put the adapter in, if there is one."""
    if adapter is not None:
        adapters.inject(model, adapter)


def shape_batch(adapter: Adapter | None) -> Callable[[MicroBatch], MicroBatch]:
    """What a loop does to a micro-batch before it is used."""
    if isinstance(adapter, adapters.VirtualTokens):
        return adapters.before_documents(adapter.tokens)
    return lambda micro: micro


def dense_if_prefix(cfg: TrainConfig, adapter: Adapter | None) -> TrainConfig:
    """A prefix is seen through a dense mask."""
    if not isinstance(adapter, adapters.Prefix):
        return cfg
    return replace(cfg, parallel=replace(cfg.parallel, attention="dense"))
