"""Real WARC bytes, built record by record."""

import gzip
import zlib
from types import SimpleNamespace

import pytest

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "rain", "falls", "on", "green", "hills"]


def record(kind: str, block: bytes, number: int = 0, **headers: str) -> bytes:
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{number:032x}>",
        "WARC-Date": "2024-03-01T00:00:00Z",
        "WARC-Target-URI": f"http://site.example/{number}",
        "Content-Type": "application/http; msgtype=response" if kind in ("response", "revisit") else "text/plain",
        "Content-Length": str(len(block)),
    } | {k.replace("_", "-"): v for k, v in headers.items()}
    head = "".join(f"{k}: {v}\r\n" for k, v in fields.items() if v)
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + block + b"\r\n\r\n"


def http(body: bytes, status: str = "200 OK", mime: str | None = "text/html; charset=utf-8", **headers: str) -> bytes:
    fields = ({"Content-Type": mime} if mime is not None else {}) | {k.replace("_", "-"): v for k, v in headers.items()}
    return f"HTTP/1.1 {status}\r\n".encode() + "".join(f"{k}: {v}\r\n" for k, v in fields.items()).encode() + b"\r\n" + body


def page(number: int = 0, size: int = 300) -> bytes:
    words = " ".join(WORDS[(number * 7 + i * i) % len(WORDS)] for i in range(size // 5))
    return f"<html><head><title>Page {number}</title></head><body><p>{words} {number}</p></body></html>".encode()


def chunked(body: bytes, step: int = 50) -> bytes:
    parts = [body[i : i + step] for i in range(0, len(body), step)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(body) + deflate.flush()


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """Functions that build records, responses and pages."""
    member = lambda data: gzip.compress(data, mtime=0)  # noqa: E731
    return SimpleNamespace(record=record, http=http, page=page, chunked=chunked, raw_deflate=raw_deflate, member=member)
