import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.read.jsonl import Columns
from pipelines.read.parquet import ParquetConfig, read_parquet
from pipelines.read.rows import ROW, check_tiling


def read(path: Path, cfg: ParquetConfig | None = None) -> list[dict[str, Any]]:
    batches = list(read_parquet(str(path), "web", cfg or ParquetConfig()))
    assert all(b.schema == ROW for b in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def test_rows_are_records(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", None, " ", "d"],
            "id": [1, 2, 3, 4],
            "date": [datetime.date(2024, 3, i) for i in range(1, 5)],
            "x": [0.5] * 4,
        }
    )
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    rows = read(tmp_path / "x.parquet")
    assert [r["text"] for r in rows] == ["a", None, None, "d"]
    assert [r["error_class"] for r in rows] == [None, "MissingText", None, None]
    assert [r["drop_rule"] for r in rows] == [None, None, "read.empty_body", None]
    assert [r["record_id"] for r in rows] == ["1", None, "3", "4"]
    assert rows[0]["date"] == "2024-03-01"
    assert check_tiling((r["offset"], r["length"]) for r in rows) == 4


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_string_types(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array(["a", "b"], pa.string()).cast(kind)}), tmp_path / "x.parquet")
    assert [r["text"] for r in read(tmp_path / "x.parquet")] == ["a", "b"]


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        ({"text": [1, 2]}, "WrongType", "column 'text' is int64"),
        ({"text": [["a"], ["b"]]}, "WrongType", "column 'text' is list"),
        ({"text": [b"a", b"b"]}, "WrongType", "column 'text' is binary"),
        ({"text": ["a", "b"], "url": [1, 2]}, "WrongType", "column 'url' is int64"),
        ({"content": ["a", "b"]}, "MissingColumn", "no column 'text'; the file has content"),
    ],
)
def test_a_file_of_other_columns_is_one_quarantined_row(
    tmp_path: Path, columns: dict[str, Any], error: str, words: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    (row,) = read(tmp_path / "x.parquet")
    assert row["error_class"] == error
    assert words in row["error_message"]
    assert (row["offset"], row["length"]) == (0, 2)


@pytest.mark.parametrize("data", [b"", b"no parquet", b"PAR1" + bytes(50) + b"PAR1"])
def test_what_is_no_parquet_is_one_quarantined_row(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(data)
    (row,) = read(tmp_path / "x.parquet")
    assert row["error_class"] == "NotParquet"
    assert str(tmp_path / "x.parquet") in row["error_message"]


def test_a_damaged_row_group_costs_itself(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"text": [f"text {i} " * 50 for i in range(30)]}),
        file,
        row_group_size=10,
        compression="gzip",
        use_dictionary=False,
    )
    start = pq.ParquetFile(file).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(file.read_bytes())
    data[start : start + 60] = b"\xff" * 60
    file.write_bytes(data)
    rows = read(file)
    assert [r["error_class"] for r in rows] == [None] * 10 + ["DamagedRowGroup"] + [None] * 10
    assert check_tiling((r["offset"], r["length"]) for r in rows) == 30


def test_columns_are_named_in_the_config(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["a"], "text": [1]}), tmp_path / "x.parquet")
    (row,) = read(tmp_path / "x.parquet", ParquetConfig(columns=Columns(text="content")))
    assert row["text"] == "a"
