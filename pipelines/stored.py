"""Decisions taken again from the measures a run has stored, without a page being read: what `whatif` and `disagree` share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipelines.errors import UserError
from pipelines.filter.rules import Rule, is_on

BATCH_ROWS = 1 << 16
TEXT_ROWS = 512  # texts are read in pieces of this many, and no further than the last one wanted


@dataclass(frozen=True)
class Place:
    """Where a row of a table lies; places are ordered by doc_id, a hash, so the first few of any set are a fair sample."""

    doc_id: bytes
    file: str
    row: int  # of the file, from 0

    def __lt__(self, other: Place) -> bool:
        return (self.doc_id, self.file, self.row) < (other.doc_id, other.file, other.row)


def columns_of(names: Collection[str], rules: Iterable[Rule]) -> list[str]:
    """The stored columns that the rules that are on ask for, each once, by name."""
    return sorted({rule.measure for rule in rules if is_on(rule) and rule.measure in names})


def refuse_missing(names: Collection[str], rules: Iterable[Rule], where: str) -> None:
    """Raise UserError if `where` (a table with these columns) lacks what a rule that is on measures; it says what to do."""
    missing = sorted({rule.measure for rule in rules if is_on(rule) and rule.measure not in names})
    if not missing:
        return
    dialects = sorted({measure.partition("@")[2] for measure in missing} - {""})
    if dialects:
        named = ", ".join(f'"{dialect}"' for dialect in dialects)
        cure = f"name the dialect in the recipe's stage `measure`, MeasureConfig(dialects=({named},)),"
    else:
        cure = f"put the stage `{'c4_lines' if missing[0].startswith('c4_') else 'measure'}` into the recipe"
    raise UserError(f"{where} does not hold {', '.join(missing)}; {cure} and run again")


def mask(column: pa.Array) -> np.ndarray:
    """A Boolean column without nulls as an array."""
    return np.asarray(column.to_numpy(zero_copy_only=False), bool)


def batches(table: ds.Dataset, columns: Sequence[str]) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """(file, its row at which the batch begins, batch) over a table of a run; only the named columns are read."""
    for fragment in sorted(table.get_fragments(), key=lambda f: f.path):
        row = 0
        found = fragment.to_batches(
            schema=table.schema, columns=[*columns], batch_size=BATCH_ROWS, batch_readahead=2, fragment_readahead=1
        )
        for batch in found:
            yield fragment.path, row, batch
            row += batch.num_rows


def rows_at(places: Sequence[Place], columns: Sequence[str]) -> list[pa.RecordBatch]:
    """The named columns of single rows, a batch of one row each. Only row groups that hold a wanted row are read, in pieces."""
    by_file: dict[str, list[Place]] = {}
    for place in places:
        by_file.setdefault(place.file, []).append(place)
    found: dict[Place, pa.RecordBatch] = {}
    for path, wanted in by_file.items():
        with pq.ParquetFile(path) as file:
            start = 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                here = {p.row - start: p for p in wanted if start <= p.row < end}
                found.update(_rows_of_group(file, group, here, columns))
                start = end
    return [found[place] for place in places]


def _rows_of_group(
    file: pq.ParquetFile, group: int, wanted: Mapping[int, Place], columns: Sequence[str]
) -> Iterator[tuple[Place, pa.RecordBatch]]:
    start, last = 0, max(wanted, default=-1)
    if last < 0:
        return
    for batch in file.iter_batches(TEXT_ROWS, row_groups=[group], columns=[*columns]):
        here = (row for row in wanted if start <= row < start + batch.num_rows)
        yield from ((wanted[row], batch.slice(row - start, 1)) for row in here)
        start += batch.num_rows
        if start > last:
            return


def fair_sample(places: Sequence[Place], count: int, file: str, start: int, ids: pa.Array, rows: np.ndarray) -> list[Place]:
    """The first `count`, in the order of places, of those so far and of `rows` of the batch with these doc_ids."""
    if count <= 0 or len(rows) == 0:
        return [*places]
    rows = rows[pc.array_sort_indices(ids.take(pa.array(rows))).to_numpy()[:count]]
    return sorted([*places, *(Place(ids[int(row)].as_py(), file, start + int(row)) for row in rows)])[:count]
