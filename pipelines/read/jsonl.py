"""JSON Lines (plain, gzip, zstd) as records; a bad line costs itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.read.files import open_file
from pipelines.read.rows import Row, batches, printable
from pipelines.read.stream import OUTPUT, Stream, decompressed
from pipelines.recipe import reader
from pipelines.schema import doc_id

NEWLINE = re.compile(rb"\n")
BLANK = b"\xef\xbb\xbf \t\r\n"


@dataclass(frozen=True)
class Columns:
    """Which field of the input is what; None: the input has none. Other fields are left behind.

    `text` None: the text is the record itself as JSON, for a stage that reads it (chat/normalise.py).
    """

    text: str | None = "text"
    id: str | None = "id"
    url: str | None = "url"
    date: str | None = "date"
    lang: str | None = "lang"


@dataclass(frozen=True)
class JsonlConfig:
    """Field names and bounds of the JSONL reader."""

    columns: Columns = field(default_factory=Columns)
    max_bytes: int = 64 << 20  # of a line; a longer one is quarantined without being held
    batch_rows: int = 1000
    batch_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.batch_rows, self.batch_bytes) < 1:
            raise ValueError("max_bytes, batch_rows and batch_bytes must be at least 1")


class BadRecord(Exception):
    """A record that cannot be read: class and message of its quarantine row."""


@reader(version=1)
def read_jsonl(path: str, source: str, cfg: JsonlConfig) -> Iterator[pa.RecordBatch]:
    """Every line as one row of RECORD + DECISION; offsets are of the decompressed text, blank lines belong to the next line."""
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        chunks, compressed = decompressed(file)
        stream = Stream(lambda at: chunks)
        rows = _rows(stream, path, source, cfg)
        yield from batches(rows, cfg.batch_rows, cfg.batch_bytes, None if compressed else size)


def _rows(stream: Stream, path: str, source: str, cfg: JsonlConfig) -> Iterator[Row]:
    blank, reported = 0, False
    while stream.ensure(1):
        start = stream.position
        line, length = _line(stream, cfg.max_bytes)
        if line is not None and not line.strip(BLANK) and stream.error is None:
            blank += length
            continue
        row: Row = {"source": source, "file": path, "offset": start - blank, "length": length + blank}
        blank = 0
        try:
            if stream.error is not None and stream.ensure(1) == 0:
                reported = True
                raise BadRecord("DamagedFile", f"the file ends in damage: {stream.error}")
            if line is None:
                raise BadRecord("LineTooLong", f"the line has {length} bytes, more than max_bytes = {cfg.max_bytes}")
            row |= record_columns(_parse(line), cfg.columns, source)
        except BadRecord as bad:
            row["doc_id"] = doc_id(source, "", line or b"")
            row |= {"error_class": bad.args[0], "error_message": f"{path}: byte {start}: {bad.args[1]}"}
        yield row
    if blank or (stream.error is not None and not reported):
        row = {"doc_id": doc_id(source, "", b""), "source": source, "file": path}
        row |= {"offset": stream.position - blank, "length": blank}
        message = f"{path}: byte {stream.position}: the file ends in damage: {stream.error}"
        damage = {"error_class": "DamagedFile", "error_message": message}
        yield row | ({"drop_rule": "read.blank"} if stream.error is None else damage)


def _line(stream: Stream, max_bytes: int) -> tuple[bytes | None, int]:
    """The next line with its end, and its length; None in place of one over `max_bytes`."""
    window, seen = 1 << 12, 0
    while True:
        end = stream.search(NEWLINE, seen, window)
        if end >= 0 or stream.ensure(window + 1) <= window:
            length = end + 1 if end >= 0 else stream.ensure(1)
            break
        if window > max_bytes:
            length = stream.skip_to(NEWLINE, window)
            return None, length + stream.skip(1)
        window, seen = min(window * 4, max(max_bytes, window) + OUTPUT), window
    line = stream.peek(0, length) if length <= max_bytes else None
    stream.skip(length)
    return line, length


def _parse(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.removeprefix(b"\xef\xbb\xbf").decode())
    except UnicodeDecodeError as error:
        raise BadRecord("InvalidUtf8", f"no UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadRecord("InvalidJson", f"no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRecord("NotAnObject", f"the line is a JSON {type(value).__name__}, not an object")
    return value


def whole(record: dict[str, Any]) -> str:
    """A record as JSON, the same whatever file it comes from: a Parquet file has null where JSON lines have nothing."""
    given = {name: value for name, value in record.items() if value is not None}
    return json.dumps(given, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str)


def record_columns(record: dict[str, Any], columns: Columns, source: str) -> Row:
    """The RECORD columns of an input record. Raises BadRecord where it has no text, or a field has another type."""
    text = whole(record) if columns.text is None else record.get(columns.text)
    if text is None:
        raise BadRecord("MissingText", f"there is no field {columns.text!r}; the record has {', '.join(list(record)[:20])}")
    if not isinstance(text, str):
        raise BadRecord("WrongType", f"field {columns.text!r} is {type(text).__name__}, not a string")
    row: Row = {"text": printable(text), "charset": "utf-8"}
    for ours, theirs in (("record_id", columns.id), ("url", columns.url), ("date", columns.date), ("lang", columns.lang)):
        value = record.get(theirs) if theirs else None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and ours in ("record_id", "date"):
            value = str(value)
        if value is not None and not isinstance(value, str):
            raise BadRecord("WrongType", f"field {theirs!r} is {type(value).__name__}, not a string")
        row[ours] = printable(value)
    row["doc_id"] = doc_id(source, row["record_id"] or row["url"] or "", row["text"].encode())
    if not text.strip():
        row |= {"text": None, "drop_rule": "read.empty_body", "drop_value": float(len(text)), "drop_bound": 1.0}
    return row
