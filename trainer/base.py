"""The weights that a run begins with: another run's newest checkpoint, or a folder in the format of Hugging Face.

Only weights are taken: moments, tokens seen and the schedule are the new run's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

from pipelines.shards import MANIFEST, Manifest, read_manifest
from trainer import checkpoint
from trainer.config import ModelConfig, TrainConfig, whole_model
from trainer.convert import import_folder
from trainer.data import Data
from trainer.errors import UserError
from trainer.log import say
from trainer.model import Decoder
from trainer.task import Task

# What may differ between a model and the base it begins with: it changes no shape, and to change it is a step of its own
# (a longer context: Llama 3, arXiv 2407.21783, section 3.4.2).
MAY_DIFFER = ("rope_base", "rope_scaling", "init_std", "document_mask", "prefix_lm", "embedding_gradient")


@dataclass(frozen=True)
class Base:
    """A finished run."""

    run: Path
    checkpoint: Path
    model: ModelConfig
    values: dict[str, Any]  # its config.json

    @cached_property
    def sha256(self) -> str:
        """Of the tensor files: what names the weights."""
        digest = hashlib.sha256()
        for path in sorted(self.checkpoint.glob("*.safetensors")):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def fill(self, model: Decoder) -> None:
        """Copy its weights into a model that is laid out; called by every rank."""
        state_dict_loader.load(checkpoint.weights(model), storage_reader=HuggingFaceStorageReader(str(self.checkpoint)))


def open_base(given: Path, out: Path) -> Base:
    """The base at `given`; a folder of Hugging Face becomes the run OUT/base. Raises UserError for what is neither."""
    config = given / "config.json"
    if not config.is_file():
        what = "the --out of a training run or a folder of safetensors"
        raise UserError(f"{given} holds no config.json to begin with; give {what}")
    values = json.loads(config.read_text())
    if "model_type" in values:
        given = _imported(given, out / "base")
        values = json.loads((given / "config.json").read_text())
    found = checkpoint.committed(given / "checkpoints")
    if not found:
        raise UserError(f"{given} holds no finished checkpoint to begin with; train it first")
    return Base(given, found[-1], whole_model(values, given), values)


def _imported(folder: Path, run: Path) -> Path:
    """Import once; processes other than the first wait until the run is there."""
    if os.environ.get("RANK", "0") == "0" and not run.exists():
        run.parent.mkdir(parents=True, exist_ok=True)
        import_folder(folder, run)
    while not run.exists():
        time.sleep(0.2)  # a launcher ends all processes if the first one fails
    return run


def check_model(base: Base, model: ModelConfig) -> list[str]:
    """What of `MAY_DIFFER` does differ, in words. Raises UserError for anything else."""
    pairs = [(f.name, getattr(base.model, f.name), getattr(model, f.name)) for f in fields(ModelConfig)]
    other = [(name, theirs, mine) for name, theirs, mine in pairs if theirs != mine]
    for name, theirs, mine in other:
        if name not in MAY_DIFFER:
            raise UserError(f"{base.run} has {name} {theirs}, this recipe {mine}; --set model.{name}={theirs}, or another base")
    return [f"{name} {theirs} is now {mine}" for name, theirs, mine in other]


def check_tokenizer(base: Base, manifest: Manifest) -> None:
    """Raise UserError where the shards were made with another tokenizer than the base's, if it has one."""
    path, theirs = base.run / "tokenizer.json", manifest.tokenizer_sha256
    mine = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else theirs
    if mine != theirs:
        raise UserError(
            f"{base.run} has the tokenizer {mine[:12]}, the shards were made with {theirs[:12]}; write the shards with {path}"
        )


def pretraining(cfg: TrainConfig, shards: Path, out: Path) -> Task:
    """The task of a recipe: from nothing, or from `run.init_from`, which is then part of what names the run.

    A run that has begun remembers the hash of its base, which need not be there any more. Raises UserError.
    """
    if cfg.run.init_from is None:
        return Task()
    begun = json.loads((out / "config.json").read_text()) if checkpoint.committed(out / "checkpoints") else None
    if begun is not None and begun["config"]["run"].get("init_from") == cfg.run.init_from:
        return Task(begin=lambda *_: None, about=begun["task"])
    base = open_base(Path(cfg.run.init_from), out)
    changes = check_model(base, cfg.model)
    if (shards / MANIFEST).is_file():  # else the session says what is missing
        check_tokenizer(base, read_manifest(shards))

    def begin(_: TrainConfig, data: Data, model: Decoder, resumed: bool) -> None:
        base.fill(model)
        if dist.get_rank() == 0:
            step = checkpoint.read_commit(base.checkpoint).step
            say("; ".join([f"begins with the weights of {base.run}, step {step}", *changes]))

    return Task(begin=begin, about={"init_from": base.sha256[:16]})
