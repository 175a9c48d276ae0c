from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from pipelines.extract import child
from pipelines.extract.html import ExtractConfig, extract
from pipelines.read.rows import ROW
from pipelines.schema import drop, record_batch

PAGE = (
    "<html><body><article>"
    + "<p>The heron waits at the edge of the water and does not move.</p>" * 8
    + "</article></body></html>"
)
# Within every counted bound, and yet more than a second of work.
SLOW = "<html><body>" + "".join(f"<p>alpha beta gamma delta <i>epsilon</i> {i}</p>" for i in range(49_000)) + "</body></html>"


@pytest.fixture(autouse=True)
def _end_processes() -> Iterator[None]:
    yield
    child.close_all()


def batch(*html: str | None, **columns: Any) -> pa.RecordBatch:
    return record_batch({"html": list(html), "doc_id": [bytes([i]) * 16 for i in range(len(html))]} | columns, ROW)


def rows(*html: str | None, cfg: ExtractConfig | None = None, **columns: Any) -> list[dict[str, Any]]:
    result = extract(batch(*html, **columns), cfg or ExtractConfig())
    assert "html" not in result.schema.names
    return result.to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("html", "cfg", "rule", "value", "bound"),
    [
        ("x" * 101, ExtractConfig(max_bytes=100), "extract.max_bytes", 101, 100),
        ("\u4e2d" * 34, ExtractConfig(max_bytes=100), "extract.max_bytes", 102, 100),
        ("<p>x</p>" * 11, ExtractConfig(max_nodes=10), "extract.max_nodes", 11, 10),
        ("<i>" * 11, ExtractConfig(max_depth=10), "extract.max_depth", 11, 10),
        ("<i>" * 100_000 + "deep", ExtractConfig(), "extract.max_depth", 1_001, 1_000),
        ("<div>" * 100_001, ExtractConfig(), "extract.max_nodes", 100_001, 100_000),
        ("<p>" + "50 MB of words " * (50 << 16), ExtractConfig(), "extract.max_bytes", 3 + 15 * (50 << 16), 10 << 20),
        ("<html><body><script>only()</script></body></html>", ExtractConfig(), "extract.no_text", 0, 1),
        ("", ExtractConfig(), "extract.no_text", 0, 1),
        ("<p>short</p>", ExtractConfig(min_chars=6), "extract.no_text", 5, 6),
    ],
    ids=[
        "bytes",
        "bytes in UTF-8",
        "nodes",
        "depth",
        "100,000 nested",
        "nodes by default",
        "50 MB",
        "no text",
        "empty",
        "short",
    ],
)
def test_bounds_drop_by_rule(html: str, cfg: ExtractConfig, rule: str, value: float, bound: float) -> None:
    (row,) = rows(html, cfg=cfg)
    assert (row["drop_rule"], row["drop_value"], row["drop_bound"]) == (rule, value, bound)
    assert row["text"] is None
    assert row["error_class"] is None


def test_rows_keep_their_order_and_texts_pass() -> None:
    result = rows(PAGE, None, "<p></p>", PAGE, text=[None, "code\t\r\n as it came", None, None])
    assert [r["doc_id"][0] for r in result] == [0, 1, 2, 3]
    assert result[1]["text"] == "code\t\r\n as it came"
    assert result[0]["text"] == result[3]["text"] != ""
    assert [r["drop_rule"] for r in result] == [None, None, "extract.no_text", None]


def test_a_row_that_is_decided_is_left_alone() -> None:
    docs = drop(batch(SLOW, PAGE), [True, False], "url.blocked", 1, 0)
    result = extract(docs, ExtractConfig()).to_pylist()
    assert [r["drop_rule"] for r in result] == ["url.blocked", None]
    assert [r["text"] is None for r in result] == [True, False]


@pytest.mark.parametrize(
    ("html", "cfg", "error"),
    [
        (SLOW, ExtractConfig(cpu_seconds=1), "CpuTimeExceeded"),
        (SLOW, ExtractConfig(memory_bytes=150 << 20), "MemoryExceeded"),
    ],
)
def test_what_the_process_does_not_survive_is_quarantined_alone(html: str, cfg: ExtractConfig, error: str) -> None:
    result = rows(PAGE, html, PAGE, cfg=cfg)
    assert [r["error_class"] for r in result] == [None, error, None]
    assert result[0]["text"] == result[2]["text"] != ""
    assert result[1]["drop_rule"] is None


def test_raising_a_maximum_never_keeps_less() -> None:
    pages = ["<p>" * n + PAGE for n in (0, 5, 50)] + [f"<i>{'<b>' * n}{PAGE}" for n in (5, 50)]
    for name, values in (("max_bytes", (10, 650, 10_000)), ("max_nodes", (5, 30, 500)), ("max_depth", (2, 20, 200))):
        kept = [sum(r["drop_rule"] is None for r in rows(*pages, cfg=ExtractConfig(**{name: v}))) for v in values]
        assert kept == sorted(kept)
        assert kept[0] < kept[-1]


@pytest.mark.parametrize(
    "setting", [{"engine": "boilerpipe"}, {"favour": "speed"}, {"max_bytes": 0}, {"cpu_seconds": 0}, {"rescue": 2.0}]
)
def test_a_config_that_means_nothing_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ExtractConfig(**setting)
