"""WARC and ARC files (WET among them) as records; see frames.py for damage, payload.py for HTTP, charset.py for decoding."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from pipelines.read.charset import decode
from pipelines.read.files import open_file
from pipelines.read.frames import Piece, layout_of, pieces
from pipelines.read.payload import Response, content_type, kind_of, parse_response
from pipelines.read.rows import Row, batches, printable
from pipelines.recipe import reader
from pipelines.schema import doc_id

# 206 is a part of a page, 204 and 205 have none.
WHOLE_PAGE = (200, 201, 202, 203)
ROBOTS = re.compile(r"[a-z]+://[^/]+/robots\.txt(?:[?#]|\Z)")


@dataclass(frozen=True)
class WarcConfig:
    """Bounds and choices of the WARC reader."""

    max_bytes: int = 64 << 20  # of a record, and of a body after decoding; more is dropped without being held
    plain_text: bool = True  # keep text/plain, and WET conversion records, as `text`
    statuses: tuple[int, ...] = WHOLE_PAGE
    batch_rows: int = 1000
    batch_bytes: int = 16 << 20  # about; one page may be larger

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.batch_rows, self.batch_bytes) < 1:
            raise ValueError("max_bytes, batch_rows and batch_bytes must be at least 1")


@reader(version=1)
def read_warc(path: str, source: str, cfg: WarcConfig) -> Iterator[pa.RecordBatch]:
    """Every record, and every damaged span, of a WARC or ARC file (plain, gzip, zstd) as one row of RECORD + DECISION.

    Kept: HTTP responses of a status in `cfg.statuses` with HTML (in `html`) or plain text (in `text`), resource records of
    these types, conversion records. Everything else is dropped by a rule `read.*`; damage is quarantined. The rows tile the
    file.
    """
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        layout = layout_of(file, size)
        rows = (row_of(piece, path, source, cfg) for piece in pieces(file, size, layout, cfg.max_bytes))
        yield from batches(rows, cfg.batch_rows, cfg.batch_bytes, size if layout in ("plain", "members") else None)


def row_of(piece: Piece, path: str, source: str, cfg: WarcConfig) -> Row:
    """The row of one span of the file."""
    headers = piece.headers
    url = headers.get("warc-target-uri", "").strip("<>") or None
    record_id = headers.get("warc-record-id") or None
    date = headers.get("warc-date") or None
    row: Row = {
        "doc_id": doc_id(source, record_id or f"{url or ''} {date or ''}", piece.block),
        "source": source,
        "url": url,
        "date": date,
        "file": path,
        "offset": piece.offset,
        "length": piece.length,
        "record_id": record_id,
    }
    if piece.error_class is not None:
        return row | {"error_class": piece.error_class, "error_message": f"{path}: byte {piece.offset}: {piece.error_message}"}
    try:
        return row | _content(piece, source, record_id or f"{url or ''} {date or ''}", cfg)
    except Exception as error:  # one record that some decoder cannot bear must not end the file: its row says so
        return row | {"error_class": type(error).__name__, "error_message": f"{path}: byte {piece.offset}: {error!r}"}


def _dropped(rule: str, value: float | None = None, bound: float | None = None) -> Row:
    return {"drop_rule": f"read.{rule}", "drop_value": value, "drop_bound": bound}


def _content(piece: Piece, source: str, identity: str, cfg: WarcConfig) -> Row:
    """The columns that come of the record's block: content, or the rule that drops it."""
    headers = piece.headers
    kind = headers.get("warc-type", "").lower()
    if piece.kind == "arc":
        kind = "warcinfo" if headers["warc-target-uri"].startswith("filedesc:") else "response"
    if kind == "revisit":
        return _dropped("revisit")
    if kind not in ("response", "resource", "conversion"):
        return _dropped("record_type")
    if piece.oversize:
        return _dropped("max_bytes", piece.block_length, cfg.max_bytes)
    mime, charset = content_type(headers.get("content-type", ""))
    is_http = kind == "response" and (mime in ("application/http", "") or piece.kind == "arc")
    response = parse_response(piece.block, cfg.max_bytes) if is_http else None
    if response is None or (piece.kind == "arc" and response.status == 0):
        response = Response(200, mime, charset, piece.block, len(piece.block))
    if response.status and response.status not in cfg.statuses:
        return _dropped("http_status", response.status, 200)
    if response.body_length > cfg.max_bytes:
        return _dropped("max_bytes", response.body_length, cfg.max_bytes)
    return _document(response, headers.get("warc-target-uri", "").strip("<>"), source, identity, cfg)


def _document(response: Response, url: str, source: str, identity: str, cfg: WarcConfig) -> Row:
    body = response.body
    if not body.strip(b"\0\t\n\f\r "):
        return _dropped("empty_body", len(body), 1)
    kind = kind_of(response.mime, body)
    if kind == "text" and ROBOTS.match(url):
        return _dropped("robots_txt")
    if kind == "binary":
        return _dropped("not_html")
    if kind == "other" or (kind == "text" and not cfg.plain_text):
        return _dropped("content_type")
    text, charset = decode(body, response.charset)
    return {
        "doc_id": doc_id(source, identity, body),
        "html" if kind == "html" else "text": printable(text),
        "charset": charset,
    }
