"""Parquet files as records, row group by row group."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.read.files import open_file
from pipelines.read.jsonl import BadRecord, Columns, record_columns
from pipelines.read.rows import Row, batches
from pipelines.recipe import reader
from pipelines.schema import doc_id

STRINGS = (pa.string(), pa.large_string(), pa.string_view(), pa.null())


@dataclass(frozen=True)
class ParquetConfig:
    """Column names and bounds of the Parquet reader."""

    columns: Columns = field(default_factory=Columns)
    batch_rows: int = 1000
    batch_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        if min(self.batch_rows, self.batch_bytes) < 1:
            raise ValueError("batch_rows and batch_bytes must be at least 1")


@reader(version=1)
def read_parquet(path: str, source: str, cfg: ParquetConfig) -> Iterator[pa.RecordBatch]:
    """Every row as one row of RECORD + DECISION. `offset` and `length` count rows: the file's rows tile [0, rows).

    A file that is no Parquet, or whose columns have other types, is one quarantined row; so is the rest of a damaged row group.
    """
    with open_file(path) as file:
        try:
            table = pq.ParquetFile(file)
            _check_types(table.schema_arrow, cfg.columns)
        except (pa.ArrowException, OSError, BadRecord) as error:
            rows = 0 if not isinstance(error, BadRecord) else table.metadata.num_rows
            name, text = error.args if isinstance(error, BadRecord) else ("NotParquet", str(error))
            yield from batches([_quarantined(path, source, 0, rows, name, text)], cfg.batch_rows, cfg.batch_bytes, rows)
            return
        yield from batches(_rows(table, path, source, cfg), cfg.batch_rows, cfg.batch_bytes, table.metadata.num_rows)


def _check_types(schema: pa.Schema, columns: Columns) -> None:
    if columns.text is not None and columns.text not in schema.names:
        raise BadRecord("MissingColumn", f"there is no column {columns.text!r}; the file has {', '.join(schema.names[:30])}")
    for name in (columns.text, columns.id, columns.url, columns.date, columns.lang):
        if name is None or name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        good = kind in STRINGS
        if name in (columns.id, columns.date):
            good = good or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind)
        if not good:
            raise BadRecord("WrongType", f"column {name!r} is {kind}, not a string; convert it, or name another in the config")


def _quarantined(path: str, source: str, offset: int, length: int, name: str, text: str) -> Row:
    return {
        "doc_id": doc_id(source, "", b""),
        "source": source,
        "file": path,
        "offset": offset,
        "length": length,
        "error_class": name,
        "error_message": f"{path}: row {offset}: {text}",
    }


def _rows(table: pq.ParquetFile, path: str, source: str, cfg: ParquetConfig) -> Iterator[Row]:
    present = table.schema_arrow.names
    names = present if cfg.columns.text is None else [n for n in vars(cfg.columns).values() if n in present]
    position = 0
    for group in range(table.metadata.num_row_groups):
        end = position + table.metadata.row_group(group).num_rows
        try:
            for batch in table.iter_batches(batch_size=min(cfg.batch_rows, 1000), row_groups=[group], columns=names):
                for record in batch.to_pylist():
                    yield _row(record, path, source, position, cfg)
                    position += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            yield _quarantined(path, source, position, end - position, "DamagedRowGroup", f"row group {group}: {error}")
            position = end


def _row(record: dict[str, object], path: str, source: str, position: int, cfg: ParquetConfig) -> Row:
    record = {k: v.isoformat() if isinstance(v, (datetime.date, datetime.time)) else v for k, v in record.items()}
    try:
        return {"source": source, "file": path, "offset": position, "length": 1} | record_columns(record, cfg.columns, source)
    except BadRecord as bad:
        return _quarantined(path, source, position, 1, bad.args[0], bad.args[1])
