"""Conversations as they are published, JSON lines or Parquet: a record is a row, its fields as JSON in `text`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.read.files import open_file
from pipelines.read.jsonl import Columns, JsonlConfig, read_jsonl
from pipelines.read.parquet import ParquetConfig, read_parquet
from pipelines.recipe import reader

RECORD = Columns(text=None)
PARQUET = b"PAR1"


@dataclass(frozen=True)
class RecordsConfig:
    """How files of either kind are read."""

    jsonl: JsonlConfig = field(default_factory=lambda: JsonlConfig(RECORD))
    parquet: ParquetConfig = field(default_factory=lambda: ParquetConfig(RECORD))


@reader(version=1)
def read_records(path: str, source: str, cfg: RecordsConfig) -> Iterator[pa.RecordBatch]:
    """Every record as one row of RECORD + DECISION; the first bytes of a file tell its kind."""
    with open_file(path) as file:
        parquet = file.read(len(PARQUET)) == PARQUET
    yield from read_parquet(path, source, cfg.parquet) if parquet else read_jsonl(path, source, cfg.jsonl)
