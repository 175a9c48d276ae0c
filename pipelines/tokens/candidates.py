"""Tokenizers of several sizes and patterns, trained on the same sample and compared on texts that none of them has seen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from pipelines.errors import UserError
from pipelines.lookup import tables
from pipelines.read.files import list_files
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.read.parquet import ParquetConfig, read_parquet
from pipelines.recipe import Input, Recipe, steps
from pipelines.rundir import RunDir, open_run
from pipelines.schema import KEPT, RECORD
from pipelines.spark import batch_pass, files_frame, spark_path, step_schema, to_spark_schema
from pipelines.tokens.compression import Compression, use
from pipelines.tokens.extend import load_base
from pipelines.tokens.fit import fit
from pipelines.tokens.presets import TOKENIZER
from pipelines.tokens.train import TokenizerConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

HELD_OUT = 10  # one document in so many of each source and language is kept for the comparison, and one at least


@dataclass(frozen=True)
class Candidate:
    """A tokenizer on the held-out texts. `name`: of those that differ in size only; `unused`: entries that no text has."""

    name: str
    entries: int
    compression: list[Compression]
    merged: int
    unused: int

    @property
    def languages(self) -> dict[str, Compression]:
        """Compression of each language, over all sources; of texts without one, of each source."""
        summed: dict[str, Compression] = {}
        for c in self.compression:
            name = c.lang or c.source
            summed[name] = _added(summed[name], c) if name in summed else replace(c, source="", lang=name)
        return summed

    @property
    def whole(self) -> Compression:
        """Compression of all texts."""
        first, *others = self.compression
        for other in others:
            first = _added(first, other)
        return first


def _added(a: Compression, b: Compression) -> Compression:
    names = ("documents", "characters", "bytes", "tokens", "words", "byte_tokens")
    return replace(a, **{name: getattr(a, name) + getattr(b, name) for name in names})


def documents(spark: SparkSession, paths: Sequence[Path]) -> DataFrame:
    """doc_id, source, lang, text of a run's last table, or of Parquet or JSONL files, a source each. Raises UserError."""
    if (first := paths[0]).is_dir() and RunDir(first).plan.is_file():
        complete = [folder for folder, _ in tables(*open_run(first))]
        if len(paths) > 1:
            raise UserError(f"{first} is a run; give one by itself, or files with texts")
        if not complete:
            raise UserError(f"{first} is a run without a complete table; run it again, it goes on where it stopped")
        rows = spark.read.parquet(spark_path(first / complete[-1] / f"outcome={KEPT}"))
    else:
        inputs = tuple(_input(path) for path in paths)
        if len({i.source for i in inputs}) < len(inputs):
            raise UserError(f"two of {', '.join(map(str, paths))} have one name; a file is a source, and named after it")
        files = [{"source": i.source, **file} for i in inputs for file in list_files(i.paths)]
        (step,) = steps(Recipe("texts", inputs, ()), files)
        numbers, look_up = files_frame(spark, files)
        schema = step_schema(step, RECORD)
        read = numbers.mapInArrow(batch_pass(step, schema, _uncounted, look_up), to_spark_schema(schema))
        rows = read.where(read["outcome"] == KEPT)
    return rows.select("doc_id", "source", "lang", "text")


def _input(path: Path) -> Input:
    name = path.name.partition(".")[0]
    if path.suffix == ".parquet":
        return Input(name, str(path), read_parquet, ParquetConfig())
    return Input(name, str(path), read_jsonl, JsonlConfig())


def _uncounted(stage: str, rows: int, seconds: float) -> None:
    """There is no ledger."""


def split(sample: pa.Table) -> tuple[pa.Table, pa.Table]:
    """To train on and to compare on. Rows of a source and language lie in the order of a keyed hash, so its last are any; a
    document that is the only one of its kind is both.
    """
    held = np.zeros(sample.num_rows, bool)
    keys = zip(sample["source"].to_pylist(), sample["lang"].to_pylist(), strict=True)
    both, start = held.copy(), 0
    for _, group in groupby(keys):
        end = start + sum(1 for _ in group)
        held[end - max((end - start) // HELD_OUT, 1) : end] = True
        both[start:end] = end - start == 1
        start = end
    return sample.filter(pa.array(~held | both)), sample.filter(pa.array(held))


def presets(sample: pa.Table, cfg: TokenizerConfig, sizes: Sequence[int]) -> Iterator[Candidate]:
    """A candidate for each size, up to the config's; `sample` as `sample_documents` gives it. Merges are learnt one after the
    other, so a smaller vocabulary is the beginning of a larger one, and one training does.
    """
    train, held = split(sample)
    largest, _ = fit(train, cfg)
    for size in sizes:
        if size == cfg.vocab_size or size < largest.get_vocab_size():
            yield _candidate(cfg.preset, shortened(largest, size), held)


def extensions(sample: pa.Table, cfg: TokenizerConfig, extras: Sequence[int]) -> Iterator[Candidate]:
    """The base of the config, and what so many entries more make of it."""
    train, held = split(sample)
    largest, made = fit(train, cfg)
    assert made is not None
    path = Path(cfg.base)
    name = f"{path.parent.name if path.name == TOKENIZER else path.stem} + {', '.join(cfg.extend_on)}".lstrip(" +")
    yield _candidate(name, load_base(cfg.base), held)
    for extra in extras:
        if extra == cfg.extra or extra < made.added:
            yield _candidate(name, shortened(largest, made.base_size + made.special + extra), held)


def _candidate(name: str, tokenizer: Tokenizer, held: pa.Table) -> Candidate:
    usage = use(tokenizer, held)
    entries = tokenizer.get_vocab_size(with_added_tokens=True)
    return Candidate(name, entries, usage.compression, usage.merged, len(usage.unused))


def shortened(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """The tokenizer as it was when it had `size` entries: without the ids from there on, and the merges that came later."""
    data: Any = json.loads(tokenizer.to_str())
    model = data["model"]
    made = [model["vocab"][left + right] for left, right in model["merges"]]
    if size <= max(made, default=0):
        model["merges"] = model["merges"][: made.index(size - 1) + 1 if size - 1 in made else 0]
        model["vocab"] = {name: number for name, number in model["vocab"].items() if number < size}
    return Tokenizer.from_str(json.dumps(data))
