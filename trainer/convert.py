"""A run as a folder that `transformers` loads, and such a folder as a run that `trainer.generate` takes.

python -m trainer.convert RUN DIR [--dtype float32]      the newest checkpoint: safetensors, config.json, the tokenizer
python -m trainer.convert RUN --from DIR                 a Llama or Mixtral folder; RUN must not exist

Weights pass through memory a file of at most 2 GiB at a time (or one tensor that is larger). The result appears by one rename.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from pipelines.shards.manifest import ShardError
from pipelines.shards.template import Template, jinja, markers
from trainer import checkpoint, huggingface
from trainer.checkpoint import Commit, Identity
from trainer.config import ModelConfig, as_dict, whole_model
from trainer.errors import UserError
from trainer.log import say

FILE_BYTES = 2 << 30
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TOKENIZER, _PAD = "tokenizer.json", "<|pad|>"


def export_run(run: Path, out: Path, dtype: str = "float32", file_bytes: int = FILE_BYTES) -> None:
    """Write the newest checkpoint of a run as OUT, for `transformers.AutoModelForCausalLM`. Raises UserError."""
    found = checkpoint.committed(run / "checkpoints")
    if not found or not (run / "config.json").is_file():
        raise UserError(f"{run} holds no finished checkpoint; give the --out of a training run")
    values = json.loads((run / "config.json").read_text())
    cfg, eos_id = whole_model(values, run), int(values["data"]["eos_id"])
    tokenizer = Tokenizer.from_file(str(run / _TOKENIZER)) if (run / _TOKENIZER).is_file() else None
    context = int(values["data"].get("sequence_length", 2048))
    pad_id = tokenizer.token_to_id(_PAD) if tokenizer else None
    about = huggingface.config_of(cfg, context, eos_id, pad_id, dtype)
    with appearing(out) as folder:
        _write_json(folder / huggingface.CONFIG, about)
        if tokenizer is not None:
            shutil.copyfile(run / _TOKENIZER, folder / _TOKENIZER)
            _write_json(folder / "tokenizer_config.json", _tokenizer_config(tokenizer, eos_id, context))
            if "task" in values:
                _write_chat(folder, tokenizer, Template(**values["data"].get("template", {})))
        _write_weights(found[-1], cfg, folder, DTYPES[dtype], file_bytes)


def _write_chat(folder: Path, tokenizer: Tokenizer, template: Template) -> None:
    """What a model that was fine-tuned is asked with, and what ends its answers."""
    try:
        marks = markers(template, tokenizer.token_to_id)
    except ShardError:
        return  # its conversations have markers that nobody wrote down
    (folder / "chat_template.jinja").write_text(jinja(template))
    _write_json(folder / "generation_config.json", {"eos_token_id": [marks.end, marks.eos]})


def _write_weights(path: Path, cfg: ModelConfig, folder: Path, dtype: torch.dtype, file_bytes: int) -> None:
    shapes = huggingface.shapes(cfg)
    groups = list(_groups(((name, 4 * shape.numel()) for name, shape in shapes.items()), file_bytes))
    places: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        read = {f"model/{name}": torch.empty(shapes[name]) for name in group}
        checkpoint.read_tensors(path, read)
        tensors: dict[str, Tensor] = {}
        for name in group:
            tensors |= huggingface.split(name, read.pop(f"model/{name}").to(dtype))
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors" if len(groups) > 1 else huggingface.WEIGHTS
        save_file(tensors, folder / file, metadata={"format": "pt"})
        shutil.copymode(folder / huggingface.CONFIG, folder / file)  # it is made for its owner alone
        places |= dict.fromkeys(tensors, file)
    if len(groups) > 1:
        size = dtype.itemsize * cfg.parameters()
        _write_json(folder / huggingface.INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def _groups(sizes: Iterable[tuple[str, int]], most: int) -> Iterator[list[str]]:
    """Names in order, as many together as have `most` bytes, at least one."""
    group, held = list[str](), 0
    for name, size in sizes:
        if group and held + size > most:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    yield group


def _tokenizer_config(tokenizer: Tokenizer, eos_id: int, context: int) -> dict[str, Any]:
    """What tokenizer.json does not say: which special token ends a document and which pads; the others, the chat roles."""
    special = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items()) if token.special]
    eos = tokenizer.id_to_token(eos_id)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "pad_token": _PAD if _PAD in special else None,
        "additional_special_tokens": [token for token in special if token not in (eos, _PAD)],
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }


def import_folder(folder: Path, run: Path, file_bytes: int = FILE_BYTES) -> ModelConfig:
    """Write a Llama or Mixtral folder as a run of zero steps, fp32; returns its config. Raises UserError."""
    values = huggingface.read_json(folder / huggingface.CONFIG)
    cfg = huggingface.model_of(values, folder / huggingface.CONFIG)
    eos = values.get("eos_token_id")
    eos = eos[0] if isinstance(eos, list) and eos else eos
    if not isinstance(eos, int) or not 0 <= eos < cfg.vocab_size:
        raise UserError(f"{folder / huggingface.CONFIG}: eos_token_id {eos!r} is none of the {cfg.vocab_size} ids")
    data = {"vocab_size": cfg.vocab_size, "eos_id": eos, "sequence_length": values.get("max_position_embeddings", 2048)}
    identity = Identity(config="imported", shards="none", schedule="none")
    about = {"config": {"name": folder.resolve().name, "model": as_dict(cfg)}, "identity": vars(identity), "data": data}
    tensors = huggingface.read_tensors(folder, cfg, tied=bool(values.get("tie_word_embeddings", False)))
    with appearing(run) as made:
        if (folder / _TOKENIZER).is_file():
            shutil.copyfile(folder / _TOKENIZER, made / _TOKENIZER)
        _write_json(made / "config.json", about | {"parameters": cfg.parameters()})
        temporary = made / "checkpoints" / ".step-00000000.tmp"
        temporary.mkdir(parents=True)
        names, number, held = (f"model-{i:05d}.safetensors" for i in count(1)), 0, dict[str, Tensor]()
        for name, tensor in tensors:
            if held and number + tensor.nbytes > file_bytes:
                save_file(held, temporary / next(names))
                held, number = {}, 0
            held[f"model/{name}"] = tensor
            number += tensor.nbytes
        save_file(held, temporary / next(names))
        commit = Commit(step=0, tokens=0, identity=identity, files={}, learning_rate=0.0)
        checkpoint.publish(temporary, made / "checkpoints" / "step-00000000", commit)
    return cfg


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place at the end; gone where something failed. Raises UserError."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; choose another folder")
    made = out.with_name(f".{out.name}.tmp")
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        yield made
        made.replace(out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {out}: {reason}; free space or choose another folder") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m trainer.convert", description="To and from the format of Hugging Face.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out of a training run; with --from a new folder")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("out", type=Path, metavar="DIR", nargs="?", help="the folder to write for transformers")
    which.add_argument("--from", type=Path, dest="source", metavar="DIR", help="the folder of a Llama or Mixtral to read")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the written weights (float32)")
    args = parser.parse_args(arguments)
    try:
        if args.source is None:
            export_run(args.run, args.out, args.dtype)
            say(f"{args.out}: transformers.AutoModelForCausalLM.from_pretrained loads it")
        else:
            cfg = import_folder(args.source, args.run)
            say(f"{args.run}: {cfg.parameters():,} parameters; trainer.generate takes it")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
