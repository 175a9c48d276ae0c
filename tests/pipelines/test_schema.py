"""Rows are marked, never removed; the first decision stands."""

import pyarrow as pa
import pytest

from pipelines.schema import (
    DECISION,
    QUARANTINE,
    RECORD,
    REMOVED,
    doc_id,
    drop,
    quarantine,
    record_batch,
    undecided,
    with_columns,
)


def rows(*texts: str) -> pa.RecordBatch:
    return record_batch({"doc_id": [t.encode() for t in texts], "text": list(texts)}, RECORD)


def test_a_doc_id_depends_on_source_identity_and_content_and_nothing_else() -> None:
    first = doc_id("web", "<urn:uuid:1>", b"page")
    assert len(first) == 16
    assert doc_id("web", "<urn:uuid:1>", b"page") == first
    others = [
        doc_id("code", "<urn:uuid:1>", b"page"),
        doc_id("web", "<urn:uuid:2>", b"page"),
        doc_id("web", "<urn:uuid:1>", b"Page"),
    ]
    moved = doc_id("we", "b<urn:uuid:1>", b"page")  # the parts are delimited
    assert len({first, moved, *others}) == 5


def test_the_first_decision_on_a_row_stands() -> None:
    batch = drop(rows("a", "b", "c"), [True, False, False], "set.first", [7.0, 0.0, 0.0], 5.0)
    batch = drop(batch, [True, True, False], "set.second", 1.0, 0.0)
    batch = quarantine(batch, [True, False, True], "ParseError", "broken")
    assert batch["drop_rule"].to_pylist() == ["set.first", "set.second", None]
    assert batch["drop_value"].to_pylist() == [7.0, 1.0, None]
    assert batch["drop_bound"].to_pylist() == [5.0, 0.0, None]
    assert batch["error_class"].to_pylist() == [None, None, "ParseError"]
    assert undecided(batch).to_pylist() == [False, False, False]
    assert batch.num_rows == 3


def test_a_hit_names_the_entry_of_the_list() -> None:
    batch = drop(rows("a", "b", "c", "d"), [True, False, False, False], "url.domain", 1.0, 0.0, entry="bad.example")
    batch = drop(batch, [True, True, False, False], "url.words", 1.0, 0.0, entry=["x", "casino", "y", "z"])
    batch = drop(batch, [False, False, True, False], "set.rule", 7.0, 5.0)
    assert batch["drop_entry"].to_pylist() == ["bad.example", "casino", None, None]


def test_a_null_in_the_mask_decides_nothing() -> None:
    batch = drop(rows("a", "b"), pa.array([None, True]), "set.rule", None, None)
    assert batch["drop_rule"].to_pylist() == [None, "set.rule"]


def test_columns_keep_their_declared_type() -> None:
    batch = with_columns(rows("a"), {"offset": [5], "words": pa.array([1.5])})
    assert batch.schema.field("offset").type == pa.int64()
    assert batch["words"].to_pylist() == [1.5]


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(KeyError, match="langs"):
        record_batch({"langs": ["en"]}, RECORD)


def test_the_schemas_are_pinned() -> None:
    """Readers outside of this repository rely on these; a change is a new version."""
    assert RECORD.names == [
        *("doc_id", "source", "url", "date", "lang", "text", "html", "charset"),
        *("file", "offset", "length", "record_id"),
    ]
    assert REMOVED.names == [
        *("doc_id", "source", "url", "stage", "rule", "value", "bound", "entry", "duplicate_of"),
        *("file", "offset"),
    ]
    assert QUARANTINE.names == [
        *("doc_id", "source", "url", "stage", "error_class", "error_message"),
        *("file", "offset", "length", "record_id"),
    ]
    assert DECISION.names == [
        *("drop_rule", "drop_value", "drop_bound", "drop_entry", "duplicate_of"),
        *("error_class", "error_message"),
    ]
