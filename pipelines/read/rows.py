"""What all readers share: rows to bounded batches, and the proof that a file's rows cover it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from pipelines.schema import DECISION, RECORD, record_batch

ROW = pa.schema([*RECORD, *DECISION])

Row = dict[str, Any]  # column -> value; a column that is not there is null


def check_tiling(spans: Iterable[tuple[int, int]], start: int = 0) -> int:
    """The end of `(offset, length)` spans in file order; raises AssertionError unless each begins where the last one ended."""
    end = start
    for offset, length in spans:
        if offset != end or length < 0:
            raise AssertionError(f"records do not tile the file: after byte {end} comes offset {offset}, length {length}")
        end = offset + length
    return end


def spans(batch: pa.RecordBatch) -> Iterator[tuple[int, int]]:
    """`(offset, length)` of each row."""
    return zip(batch["offset"].to_numpy().tolist(), batch["length"].to_numpy().tolist(), strict=True)


def batches(rows: Iterable[Row], batch_rows: int, batch_bytes: int, size: int | None) -> Iterator[pa.RecordBatch]:
    """Rows of one file as batches of RECORD + DECISION, each of at most `batch_rows` and about `batch_bytes` of content.

    `size`: where the last row must end (None: not known). Raises AssertionError where the rows do not tile the file.
    """
    held: list[Row] = []
    weight = end = 0
    for row in rows:
        held.append(row)
        weight += len(row.get("html") or "") + len(row.get("text") or "")
        end = check_tiling([(row["offset"], row["length"])], end)
        if len(held) >= batch_rows or weight >= batch_bytes:
            yield _batch(held)
            held, weight = [], 0
    if held:
        yield _batch(held)
    if size is not None and end != size:
        raise AssertionError(f"records end at byte {end} of {size}")


def _batch(rows: list[Row]) -> pa.RecordBatch:
    return record_batch({name: [row.get(name) for row in rows] for name in ROW.names}, ROW)


def printable(text: str | None) -> str | None:
    """Text that Arrow can hold: lone surrogates, which UTF-8 does not have, become U+FFFD."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
