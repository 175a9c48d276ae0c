"""HTTP responses as crawls hold them: head, body without its codings, and what the bytes are.

Sources: RFC 9112 (HTTP/1.1) sections 4, 5 and 7; WHATWG MIME Sniffing section 7.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import brotli  # type: ignore[import-untyped]
import zstandard

from pipelines.read.frames import HEADER_END, MAX_HEADER, parse_headers
from pipelines.read.stream import OUTPUT

HTML_TYPES = frozenset(("text/html", "application/xhtml+xml", "application/vnd.wap.xhtml+xml"))
XML_TYPES = frozenset(("text/xml", "application/xml"))
UNKNOWN_TYPES = frozenset(("", "unknown/unknown", "application/unknown", "*/*", "application/octet-stream"))
STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})|ICY[ \t]+(\d{3})")
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]{0,4096})?\r?\n")
CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.I)

# First bytes of what a browser would not take for text.
BINARY_MAGIC = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0\0\0\0|RIFF.{4}(?:WEBP|WAVE|AVI )|\0\0\x01\0|II\x2a\0|MM\0\x2a|8BPS\0"
    rb"|%PDF-|%!PS-Adobe-|\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1|SQLite format 3\0"
    rb"|\x1f\x8b\x08|PK\x03\x04|Rar!\x1a\x07|7z\xbc\xaf\x27\x1c|BZh[1-9]1AY|\xfd7zXZ\0|\x28\xb5\x2f\xfd"
    rb"|OggS\0|ID3[\x02-\x04]|\xff[\xfb\xf3\xf2]|fLaC\0|MThd\0|\x1a\x45\xdf\xa3|.{4}ftyp|FLV\x01|[CF]WS[\x01-\x20]"
    rb"|\x7fELF|MZ.\0|\0asm|\xca\xfe\xba\xbe|wOF[F2]|\0\x01\0\0\0|OTTO\0|true\0",
    re.S,
)
BINARY_BYTES = bytes(b for b in range(32) if b not in (9, 10, 12, 13, 27))
HTML_MAGIC = re.compile(
    rb"(?:\xef\xbb\xbf)?[\t\n\f\r ]*(?:<!--|<(?:!DOCTYPE[ \t]+HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE"
    rb"|B|BODY|BR|P|META|LINK)(?=[\s>]))",
    re.I,
)
HTML_ROOT = re.compile(rb"<html[\s>]|<!DOCTYPE\s+html", re.I)


@dataclass(frozen=True)
class Response:
    """What a response holds; `status` 0 where it has no head (HTTP/0.9)."""

    status: int
    mime: str  # lower case, "" where none is declared
    charset: str | None
    body: bytes
    body_length: int  # of the body, decoded; a lower bound where it passed the bound and `body` is empty


def parse_response(block: bytes, max_bytes: int) -> Response:
    """The response in a record's block. A body over `max_bytes` after decoding is not held."""
    status = STATUS_LINE.match(block)
    if status is None:
        return Response(0, "", None, block, len(block))
    end = HEADER_END.search(block, 0, MAX_HEADER)
    headers = parse_headers(block[: end.end() if end else len(block)])
    body = block[end.end() :] if end else b""
    mime, charset = content_type(headers.get("content-type", ""))
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = unchunk(body)
    codings = f"{headers.get('content-encoding', '')},{headers.get('transfer-encoding', '')}".lower().split(",")
    size = len(body)
    for coding in reversed([c.strip() for c in codings]):
        body, size = decode_coding(body, coding, max_bytes)
        if size > max_bytes:
            break
    return Response(int(status[1] or status[2]), mime, charset, body if size <= max_bytes else b"", size)


def content_type(header: str) -> tuple[str, str | None]:
    """`(type/subtype in lower case, charset or None)` of a Content-Type header."""
    mime = re.split(r"[;,\s]", header.strip(), maxsplit=1)[0].lower()
    charset = CHARSET.search(header)
    return (mime if "/" in mime else ""), (charset[1] if charset else None)


def unchunk(body: bytes) -> bytes:
    """A chunked body joined; as it is where it does not begin with a chunk size; up to the damage where it breaks off later."""
    parts: list[bytes] = []
    at = 0
    while found := CHUNK_SIZE.match(body, at):
        length = int(found[1], 16)
        parts.append(body[found.end() : found.end() + length])
        at = found.end() + length
        if length == 0 or at >= len(body):
            return b"".join(parts)
        at += 2 if body[at : at + 2] == b"\r\n" else body[at : at + 1] == b"\n"
    return b"".join([*parts, body[at:]])  # not a size where one should be: what is there is still the page


def decode_coding(body: bytes, coding: str, max_bytes: int) -> tuple[bytes, int]:
    """`(body, its length)` without one content coding; the length passes `max_bytes` where decoding was given up there.

    A body that is not in the coding at all (crawlers store it decoded under the old header) stays; one that breaks off is used
    as far as it goes.
    """
    step: Callable[[bytes], bytes]
    if coding in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
        step = _inflater(zlib.decompressobj(31))
    elif coding == "deflate":  # zlib (RFC 9110) in theory, raw deflate in old servers
        head = int.from_bytes(body[:2], "big")
        step = _inflater(zlib.decompressobj(15 if len(body) > 1 and body[0] & 15 == 8 and head % 31 == 0 else -15))
    elif coding == "br":
        step = _brotli(brotli.Decompressor())
    elif coding == "zstd" and body.startswith(b"\x28\xb5\x2f\xfd"):
        step = zstandard.ZstdDecompressor().decompressobj().decompress
    else:
        return body, len(body)
    parts: list[bytes] = []
    size = 0
    for start in range(0, len(body), 256):
        try:
            part = step(body[start : start + 256])
        except (zlib.error, brotli.error, zstandard.ZstdError):
            break
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            return b"", size
    return (b"".join(parts), size) if size else (body, len(body))


def _inflater(inflate: zlib._Decompress) -> Callable[[bytes], bytes]:
    return lambda data: b"" if inflate.eof else inflate.decompress(data)


def _brotli(inflate: brotli.Decompressor) -> Callable[[bytes], bytes]:
    def step(data: bytes) -> bytes:
        if inflate.is_finished():
            return b""
        parts = [inflate.process(data, output_buffer_limit=OUTPUT)]
        while not inflate.can_accept_more_data():
            parts.append(inflate.process(b"", output_buffer_limit=OUTPUT))
        return b"".join(parts)

    return step


def kind_of(mime: str, body: bytes) -> str:
    """`html`, `text`, `binary` (not what it says) or `other` (another declared type) for a body of a declared type."""
    head = body[:1445]
    if mime not in HTML_TYPES and mime != "text/plain" and mime not in UNKNOWN_TYPES:
        return "html" if mime in XML_TYPES and HTML_ROOT.search(head) else "other"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "html" if mime != "text/plain" else "text"
    binary = len(head) - len(head.translate(None, BINARY_BYTES))
    if BINARY_MAGIC.match(head) or binary > len(head) * (0.02 if mime in HTML_TYPES else 0):
        return "binary" if mime not in UNKNOWN_TYPES else "other"
    if mime in HTML_TYPES or HTML_MAGIC.match(head):
        return "html"
    if head[:512].lstrip().startswith(b"<?xml"):
        return "html" if HTML_ROOT.search(head) else "other"
    return "text"
