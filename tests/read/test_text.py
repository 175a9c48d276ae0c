import gzip
from pathlib import Path
from typing import Any

import pytest

from pipelines.read.text import TextConfig, read_text


def read(path: Path, cfg: TextConfig | None = None) -> dict[str, Any]:
    (batch,) = read_text(str(path), "books", cfg or TextConfig())
    (row,) = batch.to_pylist()
    return row  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("data", "cfg", "text", "decision"),
    [
        (b"words\nand lines\n", TextConfig(), "words\nand lines\n", None),
        (gzip.compress(b"packed", mtime=0), TextConfig(), "packed", None),
        (
            "\u0442\u0435\u043a\u0441\u0442".encode("koi8-r"),
            TextConfig(charset="koi8-r"),
            "\u0442\u0435\u043a\u0441\u0442",
            None,
        ),
        (b" \n", TextConfig(), None, "read.empty_body"),
        (b"", TextConfig(), None, "read.empty_body"),
        (b"x" * 11, TextConfig(max_bytes=10), None, "read.max_bytes"),
        (gzip.compress(bytes(1 << 22), mtime=0), TextConfig(max_bytes=10), None, "read.max_bytes"),
        (gzip.compress(b"packed", mtime=0)[:-6], TextConfig(), None, "DamagedFile"),
    ],
)
def test_a_file_is_a_document(tmp_path: Path, data: bytes, cfg: TextConfig, text: str | None, decision: str | None) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    row = read(tmp_path / "x.txt", cfg)
    assert row["text"] == text
    assert (row["drop_rule"] or row["error_class"]) == decision
    assert (row["offset"], row["length"]) == (0, len(data))
