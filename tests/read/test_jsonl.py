import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.read.jsonl import Columns, JsonlConfig, read_jsonl
from pipelines.read.rows import ROW, check_tiling


def read(path: Path, cfg: JsonlConfig | None = None) -> list[dict[str, Any]]:
    batches = list(read_jsonl(str(path), "code", cfg or JsonlConfig()))
    assert all(b.schema == ROW for b in batches)
    return [row for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst"])
def test_lines_are_records(tmp_path: Path, name: str) -> None:
    lines = [
        json.dumps({"id": i, "text": f"text {i} \u4e2d", "url": f"http://a/{i}", "more": [1]}).encode() + b"\n"
        for i in range(5)
    ]
    data = b"".join(lines)
    pack = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}.get(name.rsplit(".", 1)[1], bytes)
    (tmp_path / name).write_bytes(pack(data))
    rows = read(tmp_path / name)
    assert [r["text"] for r in rows] == [f"text {i} \u4e2d" for i in range(5)]
    assert [r["record_id"] for r in rows] == list("01234")
    assert [data[r["offset"] : r["offset"] + r["length"]] for r in rows] == lines
    assert len({r["doc_id"] for r in rows}) == 5


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"text": "cut of', "InvalidJson"),
        (b"not JSON at all", "InvalidJson"),
        (b"[" * 100_000, "InvalidJson"),
        (b'{"text": "caf\xe9"}', "InvalidUtf8"),
        (b'["text"]', "NotAnObject"),
        (b"null", "NotAnObject"),
        (b'{"content": "x"}', "MissingText"),
        (b'{"text": null}', "MissingText"),
        (b'{"text": 7}', "WrongType"),
        (b'{"text": ["a"]}', "WrongType"),
        (b'{"text": "a", "url": {"href": 1}}', "WrongType"),
        (b'{"text": "' + b"x" * 200_000 + b'"}', "LineTooLong"),
    ],
)
def test_a_bad_line_costs_itself(tmp_path: Path, line: bytes, error: str) -> None:
    good = b'{"text": "good"}\n'
    file = tmp_path / "x.jsonl"
    file.write_bytes(good + line + b"\n" + good)
    rows = read(file, JsonlConfig(max_bytes=150_000))
    assert [r["error_class"] for r in rows] == [None, error, None]
    assert rows[1]["text"] is None
    assert rows[1]["offset"] == len(good)
    assert rows[1]["error_message"].startswith(f"{file}: byte {len(good)}: ")
    assert check_tiling((r["offset"], r["length"]) for r in rows) == file.stat().st_size


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b'{"text": "a"}\r\n\r\n\n{"text": "b"}', ["a", "b"]),
        (b'\xef\xbb\xbf{"text": "mark"}\n', ["mark"]),
        (b'{"text": "lone \\ud800 half"}', ["lone \ufffd half"]),
        (b'{"text": "pair \\ud83d\\ude00"}', ["pair \U0001f600"]),
        (b'{"text": "a"}\n\n\n', ["a", None]),
        (b'{"text": "  "}', [None]),
        (b"", []),
    ],
)
def test_line_ends_marks_and_surrogates(tmp_path: Path, data: bytes, texts: list[str | None]) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(data)
    rows = read(file)
    assert [r["text"] for r in rows] == texts
    assert all(r["error_class"] is None for r in rows)
    assert [r["drop_rule"] is not None for r in rows] == [t is None for t in texts]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gzip", "zstd"])
def test_a_truncated_file_keeps_its_lines(tmp_path: Path, pack: Any) -> None:
    import random

    noise = random.Random(1)
    lines = [json.dumps({"text": noise.randbytes(400).hex()}).encode() + b"\n" for _ in range(2_000)]
    data = pack(b"".join(lines))
    (tmp_path / "x").write_bytes(data[: len(data) // 2])
    rows = read(tmp_path / "x")
    assert [r["error_class"] for r in rows] == [None] * (len(rows) - 1) + ["DamagedFile"]
    assert 500 < len(rows) < 1100
    assert all(r["text"] == json.loads(line)["text"] for r, line in zip(rows[:-1], lines, strict=False))


def test_columns_are_named_in_the_config(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"body": "words", "key": "k", "when": 2024, "tongue": "en", "id": [1]}')
    (row,) = read(tmp_path / "x", JsonlConfig(columns=Columns(text="body", id="key", url=None, date="when", lang="tongue")))
    assert (row["text"], row["record_id"], row["url"], row["date"], row["lang"]) == ("words", "k", None, "2024", "en")


@settings(max_examples=80, deadline=None)
@given(
    data=st.binary(max_size=300)
    | st.lists(st.sampled_from([b'{"text": "a"}', b"\n", b"\r", b" ", b"{", b"\x00"])).map(b"".join)
)
def test_any_bytes_are_read_and_tiled(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_bytes(b"x" + data)
    rows = read(file, JsonlConfig(max_bytes=50))
    assert check_tiling((r["offset"], r["length"]) for r in rows) == len(data) + 1
