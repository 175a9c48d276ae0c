"""Write a crawl as WARC files: one gzip member a record, plain bytes, the same for the same pages."""

from __future__ import annotations

import base64
import gzip
import hashlib
import uuid
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

STATUS = {200: "OK", 301: "Moved Permanently", 302: "Found", 403: "Forbidden", 404: "Not Found", 410: "Gone",
          500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "headrace.example")
FIELDS = (
    "url",
    "status",
    "lang",
    "kind",
    "expect",
    "dup_group",
    "jaccard",
    "mime",
    "charset",
    "declared",
    "pii",
    "note",
    "origin",
)
START = datetime(2024, 3, 2, 4, 11, 7, tzinfo=UTC)


@dataclass(frozen=True)
class Page:
    """One response. `charset` is what the bytes are in, `declared` what the HTTP header says (None: nothing)."""

    url: str
    body: bytes
    lang: str | None
    origin: str
    kind: str = "page"
    expect: str = "keep"
    status: int = 200
    mime: str = "text/html"
    charset: str | None = "utf-8"
    declared: str | None = None
    coding: str = ""  # any of gzip, deflate, chunked, joined by "+"
    location: str | None = None
    note: str | None = None
    dup_group: str | None = None
    jaccard: float | None = None
    pii: dict[str, int] | None = None


def _digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode()


def _http(page: Page) -> tuple[bytes, bytes]:
    """The HTTP message as sent, and its payload (content coding kept, transfer coding taken off)."""
    codings = page.coding.split("+")
    payload = page.body
    head = [f"HTTP/1.1 {page.status} {STATUS[page.status]}", "Server: nginx"]
    content_type = page.mime + (f"; charset={page.declared}" if page.declared else "")
    head.append(f"Content-Type: {content_type}")
    if page.location:
        head.append(f"Location: {page.location}")
    if "gzip" in codings:
        payload = gzip.compress(payload, 6, mtime=0)
        head.append("Content-Encoding: gzip")
    elif "deflate" in codings:
        payload = zlib.compress(payload, 6)
        head.append("Content-Encoding: deflate")
    if "chunked" in codings:
        head.append("Transfer-Encoding: chunked")
        parts = [payload[i : i + 4096] for i in range(0, len(payload), 4096)]
        wire = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])
    else:
        head.append(f"Content-Length: {len(payload)}")
        wire = payload
    return ("\r\n".join(head) + "\r\n\r\n").encode() + wire, payload


def _record(version: str, headers: list[tuple[str, str]], block: bytes) -> bytes:
    lines = [f"WARC/{version}", *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(block)}"]
    return gzip.compress(("\r\n".join(lines) + "\r\n\r\n").encode() + block + b"\r\n\r\n", 9, mtime=0)


def _urn(*parts: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(NAMESPACE, ' '.join(parts))}>"


def write_warc(path: Path, pages: list[Page], version: str, first: int) -> list[dict[str, object]]:
    """Write warcinfo, then request and response of each page; `kind` "revisit" becomes a revisit record.

    A page of kind "damaged" loses the middle of its gzip member, as after a lost disk block. `first` is the number of the
    first page in the whole crawl: it sets the time. Returns the expected line of each response and revisit.
    """
    info = f"software: headrace examples/build.py\r\nformat: WARC File Format {version}\r\nisPartOf: headrace-examples\r\n"
    info_id = _urn(path.name)

    def date(number: int) -> str:
        seconds = number * 9311 + number * number % 7919
        at = START + timedelta(seconds=seconds, microseconds=number * 7001 % 1_000_000)
        return at.strftime("%Y-%m-%dT%H:%M:%SZ" if version == "1.0" else "%Y-%m-%dT%H:%M:%S.%fZ")

    head = [("WARC-Type", "warcinfo"), ("WARC-Date", date(first)), ("WARC-Record-ID", info_id),
            ("WARC-Filename", path.name), ("Content-Type", "application/warc-fields")]  # fmt: skip
    out, expected = [_record(version, head, info.encode())], []
    for number, page in enumerate(pages, first):
        parts = urlsplit(page.url)
        wire, payload = _http(page)
        record_id, when = _urn("response", page.url, str(number)), date(number)
        common = [("WARC-Date", when), ("WARC-Target-URI", page.url), ("WARC-Warcinfo-ID", info_id),
                  ("WARC-IP-Address", f"192.0.2.{number % 254 + 1}")]  # fmt: skip
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: examplebot/1.0\r\nAccept: */*\r\n\r\n"
        kind = "revisit" if page.kind == "revisit" else "response"
        out.append(_record(version, [("WARC-Type", "request"), ("WARC-Record-ID", _urn("request", page.url, str(number))),
                                     *common, ("WARC-Concurrent-To", record_id),
                                     ("Content-Type", "application/http; msgtype=request")], request.encode()))  # fmt: skip
        head = [("WARC-Type", kind), ("WARC-Record-ID", record_id), *common, ("WARC-Payload-Digest", _digest(payload))]
        if kind == "revisit":
            wire = wire[: wire.index(b"\r\n\r\n") + 4]
            profile = f"http://netpreserve.org/warc/{version}/revisit/identical-payload-digest"
            head += [("WARC-Profile", profile), ("WARC-Refers-To-Target-URI", page.url)]
        head += [("WARC-Block-Digest", _digest(wire)), ("Content-Type", "application/http; msgtype=response")]
        member = _record(version, head, wire)
        if page.kind == "damaged":
            member = member[: len(member) // 3] + member[len(member) * 2 // 3 :]
        out.append(member)
        own = {name: getattr(page, name) for name in FIELDS}
        line = {"file": f"crawl/{path.name}", "record_id": record_id, **own, "coding": page.coding or None}
        expected.append({key: value for key, value in line.items() if value is not None or key == "lang"})
    path.write_bytes(b"".join(out))
    return expected
