"""The one pass: every row comes out once, with its outcome and the stage that decided it; a breaking document breaks alone."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from pipelines.recipe import Input, Stage, Step, Table, batch_stage, reader
from pipelines.schema import DECISION, RECORD, drop, quarantine, record_batch, with_columns
from pipelines.spark import batch_pass, files_frame, flow, read_flow, step_schema
from pipelines.tables import read_table, write_table


@batch_stage(adds=pa.schema([("words", pa.float64())]))
def count_words(docs: pa.RecordBatch, cfg: None) -> pa.RecordBatch:
    return with_columns(docs, {"words": [float(len(t.split())) for t in docs["text"].to_pylist()]})


@batch_stage()
def keep_long(docs: pa.RecordBatch, cfg: float) -> pa.RecordBatch:
    words = docs["words"]
    return drop(docs, [w < cfg for w in words.to_pylist()], "length.min_words", words, cfg)


@batch_stage()
def break_on_bad(docs: pa.RecordBatch, cfg: None) -> pa.RecordBatch:
    if "bad" in docs["text"].to_pylist():
        raise ZeroDivisionError("the page divides by zero")
    return docs


@batch_stage()
def lose_a_row(docs: pa.RecordBatch, cfg: None) -> pa.RecordBatch:
    return docs.slice(1)


@batch_stage()
def reverse(docs: pa.RecordBatch, cfg: None) -> pa.RecordBatch:
    return docs.take(pa.array(range(docs.num_rows))[::-1])


@reader()
def read_lines(path: str, source: str, cfg: None) -> Iterator[pa.RecordBatch]:
    """A line a document; "!" breaks the file there, "#" is no document."""
    at = 0
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("!"):
                raise OSError("the disk broke")
            where = {"source": [source], "file": [path], "offset": [at], "length": [len(line)]}
            batch = record_batch({"doc_id": [line.encode()], "text": [line.strip()], **where}, RECORD)
            yield drop(batch, [line.startswith("#")], "read.comment", None, None)
            at += len(line)


def stages(*functions: Any) -> tuple[Stage, ...]:
    return tuple(Stage(f, 2.0 if f is keep_long else None) for f in functions)


def batch(*texts: str) -> pa.RecordBatch:
    return record_batch({"doc_id": [t.encode() for t in texts], "text": list(texts)}, RECORD)


def run(used: tuple[Stage, ...], *batches: pa.RecordBatch) -> dict[str, tuple[Any, ...]]:
    schema = step_schema(Step(0, used, (), ""), RECORD)
    rows = [row for out in flow(iter(batches), used, schema, lambda *_: None) for row in out.to_pylist()]
    result = {row["text"]: (row["outcome"], row["stage"], row["drop_rule"] or row["error_class"]) for row in rows}
    assert len(result) == len(rows)
    return result


def test_a_row_leaves_at_the_stage_that_decides_it() -> None:
    assert run(stages(count_words, keep_long, break_on_bad), batch("a b c", "a", "a b")) == {
        "a b c": ("kept", None, None),
        "a": ("dropped", "keep_long", "length.min_words"),
        "a b": ("kept", None, None),
    }


def test_a_document_that_breaks_a_stage_is_quarantined_alone() -> None:
    assert run(stages(break_on_bad), batch("a", "b", "bad", "c")) == {
        "a": ("kept", None, None),
        "b": ("kept", None, None),
        "bad": ("quarantined", "break_on_bad", "ZeroDivisionError"),
        "c": ("kept", None, None),
    }


def test_a_decided_row_is_not_shown_to_later_stages() -> None:
    gone = quarantine(batch("bad"), [True], "ReadError", "cut")
    assert run(stages(break_on_bad), gone) == {"bad": ("quarantined", "read", "ReadError")}


def test_a_stage_sees_the_rows_of_its_sources_only() -> None:
    both = with_columns(batch("a", "a b c", "x"), {"source": ["web", "web", "code"]})
    assert run((Stage(count_words, None), Stage(keep_long, 2.0, sources=("web",))), both) == {
        "a": ("dropped", "keep_long", "length.min_words"),
        "a b c": ("kept", None, None),
        "x": ("kept", None, None),
    }


@pytest.mark.parametrize("stage", [lose_a_row, reverse])
def test_a_stage_that_loses_or_moves_a_row_fails_the_run(stage: Any) -> None:
    with pytest.raises(RuntimeError, match="never removes or moves one"):
        run(stages(stage), batch("a", "b"))


def test_removed_columns_go_no_further_and_added_ones_are_null_for_those_who_left_earlier() -> None:
    used = stages(break_on_bad, count_words)
    (out,) = [o for o in flow(iter([batch("bad")]), used, step_schema(Step(0, used, (), ""), RECORD), lambda *_: None)]
    assert out.schema.names[: len(RECORD.names)] == RECORD.names
    assert out["words"].to_pylist() == [None]


def test_a_file_that_breaks_keeps_what_was_read_and_quarantines_the_rest(tmp_path: Any) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("one\ntwo\n!\nthree\n")
    rows = pa.RecordBatch.from_pylist([{"source": "web", "path": str(file), "bytes": 16}])
    read = [r for b in read_flow(iter([rows]), (Input("web", "", read_lines, None),), lambda *_: None) for r in b.to_pylist()]
    assert [(r["text"], r["offset"], r["length"], r["error_class"]) for r in read] == [
        ("one", 0, 4, None),
        ("two", 4, 4, None),
        (None, 8, 8, "OSError"),
    ]


@pytest.mark.spark
def test_spark_gives_what_the_plain_pass_gives(spark: Any, tmp_path: Any) -> None:
    for name, text in {"x.txt": "a b\n#c\nbad\n", "y.txt": "d\ne f g\n"}.items():
        (tmp_path / name).write_text(text)
    files = [{"source": "web", "path": str(p), "bytes": p.stat().st_size} for p in sorted(tmp_path.glob("*.txt"))]
    step = Step(0, stages(count_words, break_on_bad, keep_long), (Input("web", "", read_lines, None),), "")
    schema = step_schema(step, RECORD)
    ignore = lambda *_: None  # noqa: E731
    local = flow(read_flow(iter([pa.RecordBatch.from_pylist(files)]), step.inputs, ignore), step.stages, schema, ignore)
    expected = sorted((row for out in local for row in out.to_pylist()), key=lambda r: r["doc_id"])

    numbers, look_up = files_frame(spark, files)
    counts = write_table(Table(numbers), schema, tmp_path / "table", batch_pass(step, schema, ignore, look_up))
    table = read_table(spark, tmp_path / "table", schema, outcome=None).toArrow().to_pylist()

    assert sorted(table, key=lambda r: r["doc_id"]) == expected
    assert {r["outcome"] for r in expected} == {"kept", "dropped", "quarantined"}
    keys = ("file", "stage", "drop_rule", "error_class", "outcome")
    assert {tuple(c[k] for k in keys): c["rows"] for c in counts} == Counter(tuple(r[k] for k in keys) for r in expected)
    kept = read_table(spark, tmp_path / "table", schema)
    assert sorted(r["text"] for r in kept.toArrow().to_pylist()) == ["a b", "e f g"]
    assert not set(DECISION.names) & set(kept.columns)
