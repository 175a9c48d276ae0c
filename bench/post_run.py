"""One contestant of `bench.post`, a process of its own; its last line is JSON: rates of real tokens, and what was filled up.

python -m bench.post_run ours|trl sft|dpo SHAPE --data FOLDER --out OUT [--variant padded|packed|precomputed]
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import trainer  # noqa: F401  (before torch: it sets how threads wait)

import torch  # isort: skip

from pipelines.shards import Shards
from pipelines.shards.roles import TARGET, sequence_starts
from trainer.config import Cosine, LearningRate, ModelConfig, Parallel, Run, as_dict
from trainer.errors import UserError
from trainer.log import read
from trainer.model import Decoder, init_weights
from trainer.post.config import Post
from trainer.post.losses import Preference
from trainer.post.start import write_run

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """A model, and how much is in a step. `documents`: conversations a step of SFT; half as many pairs one of DPO."""

    model: ModelConfig
    length: int
    documents: int
    rows: int  # packed ones that ours takes at once, and padded ones of TRL: times four, for what is shorter
    steps: int
    cold: int  # of the steps, not counted
    compile: bool


SHAPES = {
    "tiny": Shape(ModelConfig(512, 32, 1, 2, 1, 64), 256, 8, 2, 4, 1, False),
    "125m": Shape(ModelConfig(32_768, 768, 12, 12, 4, 2048), 2048, 128, 8, 16, 6, True),
    "1.7b": Shape(ModelConfig(32_768, 2048, 24, 16, 8, 5632), 2048, 64, 4, 16, 6, True),
}


def base_run(shape: Shape, out: Path) -> Path:
    """A run of random weights."""
    if not out.exists():
        model = Decoder(shape.model)
        init_weights(model, shape.model.init_std, 0)
        about = {"config": {"name": "bench", "model": as_dict(shape.model)}}
        about |= {"identity": {"config": "bench", "shards": "none", "schedule": "none"}}
        about |= {"data": {"vocab_size": shape.model.vocab_size, "eos_id": 0, "sequence_length": shape.length}}
        write_run(out, about, {name: p.detach() for name, p in model.named_parameters()}, None)
    return out


def recipe(shape: Shape, verb: str) -> Post:
    """The settings that both sides have in common."""
    every = shape.steps + 1
    return Post(
        "bench",
        LearningRate(1e-5, 1, Cosine(1.0)),
        batch=shape.documents // (1 if verb == "sft" else 2),
        epochs=shape.steps,  # more than there is time for
        preference=Preference(format_mask=False),
        alike=1.0,
        parallel=Parallel(micro_batch=shape.rows, compile=shape.compile, loss_chunk=4096),
        run=Run(trackers=(), evaluate_every=10**9, save_every_steps=10**9, save_every_minutes=1e9, log_every=every),
    )


def ours(verb: str, shape: Shape, data: Path, out: Path) -> dict[str, Any]:
    """Through the command line's own path, from the shards to the log."""
    from trainer.post import __main__ as post

    made = out / "recipe.py"
    out.mkdir(parents=True, exist_ok=True)
    made.write_text(
        "from bench.post_run import Shape, recipe\nfrom trainer.config import ModelConfig\n\n\n"
        f"def bench():\n    return recipe({shape!r}, {verb!r})\n"
    )
    base, run = base_run(shape, out / "base"), out / f"ours-{verb}"
    words = [verb, f"{made}:bench", "--data", str(data), "--base", str(base), "--out", str(run), "--steps", str(shape.steps)]
    if post.main(words):
        raise UserError("our side failed; its message is above")
    lines = [line for line in read(run / "metrics.jsonl") if "loss" in line][shape.cold :]
    share = packing(run / "schedule.json", Shards(data))
    rate = statistics.median(line["tokens_per_second"] for line in lines)
    gib = max((line.get("memory_gib", 0.0) for line in lines), default=0.0)
    return {"rate": rate * share, "filled": share, "gib": gib}


def packing(schedule: Path, shards: Shards) -> float:
    """The share of the places of an epoch's rows that hold tokens."""
    values = json.loads(schedule.read_text())
    (phase,) = values["phases"]
    rows = tokens = 0
    for source in dict(phase["weights"]):
        units = values["layout"][source]
        tokens += sum(units["tokens"])
        rows += sum(next(counts for unit, counts in units.items() if unit != "tokens"))
    return tokens / (rows * phase["sequence_length"])


def sequences(shards: Shards, source: str, limit: int) -> list[list[tuple[list[int], list[bool]]]]:
    """Documents as lists of (ids, whether a target) of their sequences, without eos."""
    stream = shards.stream(source)
    found = []
    for start, end in pairwise(stream.bounds(0)[: limit + 1].tolist()):
        ids, codes = stream.slice(start, end - start), stream.roles(start, end - start)
        parts = [slice(a, b - 1) for a, b in pairwise([*sequence_starts(codes).tolist(), end - start])]
        found.append([(ids[part].tolist(), TARGET[codes[part]].tolist()) for part in parts])
    return found


def trl(verb: str, variant: str, shape: Shape, data: Path, out: Path) -> dict[str, Any]:
    """TRL's trainer on the same documents: padded to the longest of a batch, or packed with positions; bf16 on a GPU."""
    import transformers
    from datasets import Dataset

    warnings.simplefilter("ignore")
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from trainer import huggingface

    cuda = torch.cuda.is_available()
    values = huggingface.config_of(shape.model, shape.length, 0, 0, "float32")
    config = transformers.LlamaConfig(
        **{k: v for k, v in values.items() if k not in ("architectures", "model_type", "torch_dtype")}
    )
    model = transformers.LlamaForCausalLM(config)
    clock = Clock(transformers.TrainerCallback)
    rows = shape.rows * 4
    common: dict[str, Any] = {"output_dir": str(out / "trl"), "max_steps": shape.steps, "report_to": [], "save_strategy": "no"}
    common |= {"per_device_train_batch_size": rows, "bf16": cuda, "use_cpu": not cuda, "logging_strategy": "no"}
    common |= {"gradient_checkpointing": False, "max_length": shape.length, "dataloader_num_workers": 0, "disable_tqdm": True}
    documents = sequences(Shards(data), "sft" if verb == "sft" else "preference", 4000)
    if verb == "sft":
        examples = [
            {"input_ids": i, "labels": [t if m else -100 for t, m in zip(i, k, strict=True)]} for ((i, k),) in documents
        ]
        common |= {"gradient_accumulation_steps": max(1, shape.documents // rows)}
        packed = {"packing": True, "packing_strategy": "bfd"} if variant == "packed" else {}
        if packed:
            common["per_device_train_batch_size"], common["gradient_accumulation_steps"] = shape.rows, 1
        prepared = {} if packed else {"dataset_kwargs": {"skip_prepare_dataset": True}}
        args = SFTConfig(**common, **packed, **prepared)
        made: Any = SFTTrainer(model, args, train_dataset=Dataset.from_list(examples), processing_class=words(shape, out))
    else:
        examples = [_pair(*document[:2]) for document in documents]
        common |= {"gradient_accumulation_steps": max(1, shape.documents // 2 // (rows // 2))}
        common["per_device_train_batch_size"] = rows // 2  # pairs: twice as many rows

        class Prepared(DPOTrainer):  # its own reads texts; here the ids are there already
            def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
                return dataset

        args = DPOConfig(**common, precompute_ref_log_probs=variant == "precomputed", beta=0.1)
        reference = None if variant == "precomputed" else copy.deepcopy(model)
        made = Prepared(model, reference, args, train_dataset=Dataset.from_list(examples), processing_class=words(shape, out))
    made.data_collator = clock.counting(made.data_collator)
    made.add_callback(clock.callback)
    made.train()
    return clock.told(shape.cold) | {"gib": torch.cuda.max_memory_allocated() / GIB if cuda else 0.0}


def _pair(better: tuple[list[int], list[bool]], other: tuple[list[int], list[bool]]) -> dict[str, list[int]]:
    at = better[1].index(True)
    return {"prompt_ids": better[0][:at], "chosen_ids": better[0][at:], "rejected_ids": other[0][at:]}


def words(shape: Shape, out: Path) -> Any:
    """A tokenizer that TRL asks for and does not use."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({f"w{i}": i for i in range(shape.model.vocab_size)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="w0", pad_token="w0", unk_token="w0")


class Clock:
    """Seconds of each step and the tokens in it, real ones and all."""

    def __init__(self, base: Any) -> None:
        self.steps: list[tuple[float, int, int]] = []  # seconds, real tokens, places
        self.read: list[tuple[int, int]] = []
        self._began = 0.0
        clock = self

        class Callback(base):  # type: ignore[misc]
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                _wait()
                clock._began = clock._began or time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                _wait()
                now = time.perf_counter()
                clock.steps.append((now - clock._began, sum(r for r, _ in clock.read), sum(p for _, p in clock.read)))
                clock._began, clock.read = now, []

        self.callback = Callback()

    def counting(self, collate: Any) -> Any:
        """The collator, and what it gave is counted. The next batch is read before a step ends: over all steps it evens out."""

        def counted(examples: Any) -> Any:
            batch = collate(examples)
            mask = batch.get("attention_mask")
            places = batch["input_ids"].numel()
            self.read.append((places if mask is None else int(mask.sum()), places))
            return batch

        return counted

    def told(self, cold: int) -> dict[str, float]:
        """Real tokens a second after the cold steps, and the share of the places that they fill."""
        warm = self.steps[cold:]
        seconds, real, places = (sum(step[i] for step in warm) for i in range(3))
        return {"rate": real / seconds, "filled": real / max(places, 1)}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.post_run")
    parser.add_argument("side", choices=("ours", "trl"))
    parser.add_argument("verb", choices=("sft", "dpo"))
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", default="padded", choices=("padded", "packed", "precomputed"))
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    if args.side == "ours":
        found = ours(args.verb, shape, args.data, args.out)
    else:
        found = trl(args.verb, args.variant, shape, args.data, args.out)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
