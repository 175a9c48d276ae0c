"""A step's table: a file for each task and outcome, whole or not there, and counted as it lies on disk."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import tables
from pipelines.tables import COUNTS, write_part

TEXTS = ("text", "file", "drop_rule", "error_class", "outcome", "stage")
SCHEMA = pa.schema([("doc_id", pa.binary()), *((name, pa.string()) for name in TEXTS)])


def batch(*rows: tuple[int, str, str]) -> pa.RecordBatch:
    """Rows of (number, file, outcome)."""
    made = []
    for number, file, outcome in rows:
        row = {"doc_id": bytes([number]), "text": f"text {number} " * 50, "file": file, "outcome": outcome}
        made.append(row | {"stage": "keep", "drop_rule": "r.x"} if outcome == "dropped" else row)
    return pa.RecordBatch.from_pylist(made, SCHEMA)


ROWS = [batch((0, "a", "kept"), (1, "a", "dropped"), (2, "b", "kept")), batch((3, "a", "kept"))]


def counted(batches: Iterator[pa.RecordBatch]) -> dict[tuple[str, str, str | None], int]:
    totals: dict[tuple[str, str, str | None], int] = {}
    for found in batches:
        assert found.schema == COUNTS
        for row in found.to_pylist():
            key = (row["file"], row["outcome"], row["drop_rule"])
            totals[key] = totals.get(key, 0) + row["rows"]
    return totals


@pytest.mark.parametrize("group_bytes", [1, 1 << 20], ids=["a row group a batch", "one row group"])
def test_rows_lie_in_order_in_the_folder_of_their_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_bytes: int
) -> None:
    monkeypatch.setattr(tables, "GROUP_BYTES", group_bytes)
    counts = counted(write_part(iter(ROWS), SCHEMA, tmp_path, 7))
    kept, dropped = (pq.ParquetFile(tmp_path / f"outcome={name}" / "part-00007.parquet") for name in ("kept", "dropped"))
    assert counts == {("a", "kept", None): 2, ("b", "kept", None): 1, ("a", "dropped", "r.x"): 1}
    assert kept.read()["doc_id"].to_pylist() == [b"\0", b"\2", b"\3"]
    assert kept.num_row_groups == (2 if group_bytes == 1 else 1)
    assert dropped.read()["doc_id"].to_pylist() == [b"\1"]
    assert kept.schema_arrow.names == [name for name in SCHEMA.names if name != "outcome"]


def test_a_task_without_rows_writes_nothing(tmp_path: Path) -> None:
    assert counted(write_part(iter([]), SCHEMA, tmp_path, 0)) == {}
    assert not list(tmp_path.rglob("*"))


def test_a_task_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        yield ROWS[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(write_part(failing(), SCHEMA, tmp_path, 0))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_task_that_is_tried_again_gives_the_same_file(tmp_path: Path) -> None:
    first = counted(write_part(iter(ROWS), SCHEMA, tmp_path, 0))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    assert counted(write_part(iter(ROWS), SCHEMA, tmp_path, 0)) == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
