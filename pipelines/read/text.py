"""Plain text files (also gzip, zstd): a file is a document."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import zstandard

from pipelines.read.charset import decode
from pipelines.read.files import open_file
from pipelines.read.rows import Row, batches, printable
from pipelines.read.stream import decompressed
from pipelines.recipe import reader
from pipelines.schema import doc_id


@dataclass(frozen=True)
class TextConfig:
    """Bounds of the text reader."""

    charset: str | None = None  # what the files are in; None: found by evidence
    max_bytes: int = 64 << 20  # of a file, decompressed; a larger one is dropped


@reader(version=1)
def read_text(path: str, source: str, cfg: TextConfig) -> Iterator[pa.RecordBatch]:
    """The file as one row of RECORD + DECISION."""
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        chunks, _ = decompressed(file)
        row: Row = {"source": source, "file": path, "offset": 0, "length": size}
        parts: list[bytes] = []
        total = 0
        try:
            for chunk in chunks:
                total += len(chunk)
                if total > cfg.max_bytes:
                    break
                parts.append(chunk)
        except (zlib.error, zstandard.ZstdError, EOFError) as error:
            row |= {"error_class": "DamagedFile", "error_message": f"{path}: the file ends in damage: {error}"}
        body = b"".join(parts)
        row["doc_id"] = doc_id(source, "", body)
        if total > cfg.max_bytes:
            row |= {"drop_rule": "read.max_bytes", "drop_value": float(max(total, size)), "drop_bound": float(cfg.max_bytes)}
        elif "error_class" not in row and not body.strip():
            row |= {"drop_rule": "read.empty_body", "drop_value": float(len(body)), "drop_bound": 1.0}
        elif "error_class" not in row:
            text, row["charset"] = decode(body, cfg.charset)
            row["text"] = printable(text)
        yield from batches([row], 1, 1, size)
