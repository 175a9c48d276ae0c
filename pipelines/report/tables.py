"""What the page shows of the documents, read from a run's Parquet tables in bounded memory: one row group at a time.

Samples are the rows with the smallest doc_id, which is a hash: the same for any partitioning, and no worse than random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.report.charts import Histogram
from pipelines.rundir import RunDir
from pipelines.schema import DROPPED, KEPT, QUARANTINED

Counts: TypeAlias = npt.NDArray[np.int64]
Groups: TypeAlias = Iterable[tuple[str, Any]]  # Any: an integer array of row numbers

SHOWN_CHARS = 600  # of a document's text as an example
COMPARED_CHARS = 40_000  # of a document's text beside its survivor's
LENGTH_BYTES = 1 << 30  # of text read for the length distribution; of more, every n-th row group
_FINE = 100  # bins a power of ten from which medians are taken
_POWERS = 9


@dataclass(frozen=True)
class Part:
    """One row group of a table."""

    path: Path
    group: int

    def read(self, names: Iterable[str]) -> pa.Table:
        """Those of the named columns that the file has."""
        with pq.ParquetFile(self.path) as file:
            return file.read_row_group(self.group, columns=[n for n in names if n in file.schema_arrow.names])


@dataclass(frozen=True)
class Place:
    """A row of a row group."""

    part: Part
    row: int


@dataclass(frozen=True)
class Tables:
    """The complete tables of a run, in order, and the columns of the last."""

    folders: tuple[Path, ...]

    @staticmethod
    def of(rundir: RunDir, plan: Mapping[str, Any]) -> Tables:
        """The tables that the plan names and that are complete."""
        made = [(rundir.path / s["directory"], s["fingerprint"]) for s in plan["steps"]]
        return Tables(tuple(folder for folder, want in made if rundir.manifest(folder, want) is not None))

    def kept(self) -> list[Part]:
        """What the last table kept."""
        return parts(self.folders[-1], KEPT) if self.folders else []

    def dropped(self) -> list[Part]:
        """What any table dropped."""
        return [part for folder in self.folders for part in parts(folder, DROPPED)]

    def quarantined(self) -> list[Part]:
        """What any table quarantined."""
        return [part for folder in self.folders for part in parts(folder, QUARANTINED)]


def parts(folder: Path, outcome: str) -> list[Part]:
    """The row groups of one outcome of a table."""
    files = sorted((folder / f"outcome={outcome}").glob("*.parquet"))
    return [Part(path, group) for path in files for group in range(pq.read_metadata(path).num_row_groups)]


def pick(
    where: Iterable[Part], names: Iterable[str], groups: Callable[[pa.Table], Groups], count: int
) -> dict[str, list[Place]]:
    """Per group, the `count` rows with the smallest doc_id. `groups`: of a table of the named columns, (group, row numbers)."""
    best: dict[str, list[tuple[bytes, Place]]] = {}
    for part in where:
        table = part.read([*names, "doc_id"])
        for name, rows in groups(table):
            ids: Any = pc.fill_null(table["doc_id"].take(rows), pa.scalar(b"", pa.binary()))
            first = pc.sort_indices(ids)[:count]
            found = zip(ids.take(first).to_pylist(), rows.take(first).to_pylist(), strict=True)
            merged = [*best.get(name, []), *((doc_id, Place(part, row)) for doc_id, row in found)]
            best[name] = sorted(merged, key=lambda p: (p[0], str(p[1].part.path), p[1].part.group, p[1].row))[:count]
    return {name: [place for _, place in chosen] for name, chosen in best.items()}


def by_value(column: str) -> Callable[[pa.Table], Groups]:
    """Groups by the value of a column; null belongs to none."""

    def groups(table: pa.Table) -> Groups:
        for value in pc.unique(table[column]).to_pylist():
            if value is not None:
                yield value, pc.indices_nonzero(pc.equal(table[column], pa.scalar(value)))

    return groups


def positive(columns: Collection[str]) -> Callable[[pa.Table], Groups]:
    """A group a column: the rows where it is above 0."""

    def groups(table: pa.Table) -> Groups:
        for name in columns:
            if name in table.column_names:
                values: Any = table[name]
                yield name, pc.indices_nonzero(pc.fill_null(pc.greater(values, pa.scalar(0)), pa.scalar(False)))

    return groups


_PROVENANCE = ("doc_id", "source", "url", "lang", "file", "offset", "record_id", "stage")
_DECISION = ("drop_rule", "drop_value", "drop_bound", "drop_entry", "duplicate_of", "error_class", "error_message")


def rows(places: Iterable[Place], chars: int) -> list[dict[str, Any]]:
    """The rows in the given order, with the first `chars` characters of their text and its whole length as `text_chars`."""
    wanted = list(places)
    found: dict[Place, dict[str, Any]] = {}
    for part in dict.fromkeys(p.part for p in wanted):
        here = [p for p in wanted if p.part == part]
        table = part.read([*_PROVENANCE, *_DECISION, "text"]).take([p.row for p in here])
        table = table.append_column("text_chars", pc.utf8_length(table["text"]))
        whole: Any = table["text"]
        text = pc.utf8_slice_codeunits(whole, 0, chars)
        table = table.set_column(table.column_names.index("text"), "text", text)
        read = ({"folder": part.path.parent.parent, **row} for row in table.to_pylist())
        found |= dict(zip(here, read, strict=True))
    return [found[p] for p in wanted]


def find(where: Iterable[Part], ids: Collection[bytes]) -> dict[bytes, Place]:
    """Where documents are; those that are not there are left out."""
    wanted, found = pa.array(sorted(ids), pa.binary()), dict[bytes, Place]()
    for part in where:
        if len(found) == len(wanted):
            break
        column: Any = part.read(["doc_id"])["doc_id"]
        hits: Any = pc.indices_nonzero(pc.is_in(column, wanted))
        for row in hits.to_pylist():
            found.setdefault(column[row].as_py(), Place(part, row))
    return found


def survivors(duplicates: Iterable[dict[str, Any]], chars: int) -> dict[bytes, dict[str, Any]]:
    """The surviving documents of duplicates (of `rows`), by doc_id, as they were in the table that dropped these."""
    by_folder: dict[Path, set[bytes]] = {}
    for row in duplicates:
        by_folder.setdefault(row["folder"], set()).add(row["duplicate_of"])
    found: dict[bytes, dict[str, Any]] = {}
    for folder, ids in by_folder.items():
        places = find(parts(folder, KEPT), ids)
        found |= dict(zip(places, rows(places.values(), chars), strict=True))
    return found


def languages(where: Iterable[Part]) -> Counter[str]:
    """Documents per `lang`; "" where none was found out."""
    counted: Counter[str] = Counter()
    for part in where:
        table = part.read(["lang"])
        if table.num_columns:
            named: Any = pc.fill_null(table["lang"], pa.scalar(""))
            for pair in named.value_counts().to_pylist():
                counted[pair["values"]] += pair["counts"]
    return counted


def length_counts(where: list[Part]) -> tuple[Counts, int]:
    """Texts per fine bin of log10 of their characters, and n where only every n-th row group was read."""
    counts = np.zeros(_FINE * _POWERS, np.int64)
    sizes = [_text_bytes(part) for part in where]
    stride = max(1, -(-sum(sizes) // LENGTH_BYTES))
    for part in where[::stride]:
        table = part.read(["text"])
        if table.num_columns:
            chars = pc.utf8_length(table["text"]).drop_null().to_numpy()
            bins = np.log10(np.maximum(chars[chars > 0], 1)) * _FINE
            counts += np.bincount(np.minimum(bins.astype(np.int64), len(counts) - 1), minlength=len(counts))
    return counts, stride


def _text_bytes(part: Part) -> int:
    group = pq.read_metadata(part.path).row_group(part.group)
    columns = (group.column(i) for i in range(group.num_columns))
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == "text")


def histogram(kept: Counts, dropped: Counts) -> Histogram | None:
    """The two counts in bins of a tenth of a power of ten, cut to where there is anything; None if there is nothing."""
    coarse = [c.reshape(-1, _FINE // 10).sum(1) for c in (kept, dropped)]
    filled = np.flatnonzero(coarse[0] + coarse[1])
    if not len(filled):
        return None
    first, last = int(filled[0]), int(filled[-1]) + 1
    above, below = (tuple(int(n) for n in c[first:last]) for c in coarse)
    return Histogram(first / 10, 0.1, above, below, _median(kept), _median(dropped))


def _median(counts: Counts) -> float | None:
    total = int(counts.sum())
    return float(10 ** ((np.searchsorted(counts.cumsum(), (total + 1) / 2) + 0.5) / _FINE)) if total else None


def pii_counts(where: Iterable[Part]) -> dict[str, dict[str, int]]:
    """Per `pii_*` column: what was found in all, and in how many documents."""
    found: dict[str, dict[str, int]] = {}
    for part in where:
        names = [f.name for f in pq.read_schema(part.path) if f.name.startswith("pii_") and pa.types.is_integer(f.type)]
        table = part.read(names)
        for name in names:
            sums = found.setdefault(name, {"found": 0, "documents": 0})
            column: Any = table[name]
            sums["found"] += pc.sum(column).as_py() or 0
            sums["documents"] += pc.sum(pc.greater(column, pa.scalar(0))).as_py() or 0
    return found
