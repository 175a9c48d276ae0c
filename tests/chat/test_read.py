"""Records of JSON lines and of Parquet, as the same rows."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.chat.read import RecordsConfig, read_records

RECORDS = [
    {"id": "1", "lang": "en", "messages": [{"role": "user", "content": "hi \u6c34"}]},
    {"id": "2", "lang": None, "messages": [{"role": "user", "content": "yes"}]},
]


def test_a_record_is_one_row_of_the_same_text_from_either_kind_of_file(tmp_path: Path) -> None:
    lines = [json.dumps({k: v for k, v in record.items() if v is not None}) for record in RECORDS]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "b.parquet")
    of_lines, of_parquet = (
        pa.Table.from_batches(read_records(str(tmp_path / name), "chat", RecordsConfig())) for name in ("a.jsonl", "b.parquet")
    )
    for name in ("doc_id", "text", "lang", "record_id", "error_class", "drop_rule"):
        assert of_lines[name].to_pylist() == of_parquet[name].to_pylist(), name
    assert [json.loads(t) for t in of_lines["text"].to_pylist()] == [json.loads(line) for line in lines]
    assert of_lines["error_class"].null_count == 2


def test_a_value_that_json_has_not_is_written_as_its_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "raw": pa.array([b"x"])}), tmp_path / "a.parquet")
    (batch,) = read_records(str(tmp_path / "a.parquet"), "chat", RecordsConfig())
    assert batch["text"].to_pylist() == ['{"id":1,"raw":"b\'x\'"}']


def test_a_line_that_is_no_record_is_quarantined(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n[1, 2]\n{"id"', encoding="utf-8")
    (batch,) = read_records(str(tmp_path / "a.jsonl"), "chat", RecordsConfig())
    assert batch["error_class"].to_pylist() == [None, "NotAnObject", "InvalidJson"]
