import gzip
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import brotli
import pytest
import zstandard

from pipelines.read.rows import ROW, check_tiling, spans
from pipelines.read.warc import WarcConfig, read_warc

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj"
HTML = "<html><body><p>Caf\u00e9 au lait, \u4e2d\u6587</p></body></html>"


def read(path: Path, cfg: WarcConfig | None = None) -> list[dict[str, Any]]:
    return [row for batch in read_warc(str(path), "web", cfg or WarcConfig()) for row in batch.to_pylist()]


def only(path: Path, data: bytes, cfg: WarcConfig | None = None) -> dict[str, Any]:
    file = path / "one.warc"
    file.write_bytes(data)
    (row,) = read(file, cfg)
    return row


@pytest.mark.parametrize(
    ("status", "mime", "body", "rule", "value", "bound"),
    [
        ("404 Not Found", "text/html", b"<html>gone</html>", "read.http_status", 404, 200),
        ("301 Moved Permanently", "text/html", b"<html>moved</html>", "read.http_status", 301, 200),
        ("206 Partial Content", "text/html", b"<html>part</html>", "read.http_status", 206, 200),
        ("500", "text/html", b"<html>oops</html>", "read.http_status", 500, 200),
        ("200 OK", "image/png", PNG, "read.content_type", None, None),
        ("200 OK", "application/pdf", PDF, "read.content_type", None, None),
        ("200 OK", "application/json", b'{"a": 1}', "read.content_type", None, None),
        ("200 OK", None, PNG, "read.content_type", None, None),
        ("200 OK", "application/octet-stream", PDF, "read.content_type", None, None),
        ("200 OK", "text/html", PNG, "read.not_html", None, None),
        ("200 OK", "text/html", PDF, "read.not_html", None, None),
        ("200 OK", "text/html", gzip.compress(b"<html>", mtime=0), "read.not_html", None, None),
        ("200 OK", "text/html", b"<p>" + bytes(range(32)) * 9, "read.not_html", None, None),
        ("200 OK", "text/plain", b"text with \x00 and \x01", "read.not_html", None, None),
        ("200 OK", "text/html", b"", "read.empty_body", 0, 1),
        ("200 OK", "text/html", b" \r\n\0\t ", "read.empty_body", 6, 1),
    ],
)
def test_what_is_no_page_is_dropped_by_rule(
    tmp_path: Path, build: SimpleNamespace, status: str, mime: str | None, body: bytes, rule: str, value: Any, bound: Any
) -> None:
    row = only(tmp_path, build.record("response", build.http(body, status, mime)))
    assert (row["drop_rule"], row["drop_value"], row["drop_bound"]) == (rule, value, bound)
    assert row["html"] is None
    assert row["text"] is None
    assert row["error_class"] is None


@pytest.mark.parametrize(
    ("mime", "body", "column"),
    [
        ("text/html", b"plain words, declared as HTML", "html"),
        ("TEXT/HTML;charset=UTF-8", b"<p>x</p>", "html"),
        ("application/xhtml+xml", b"<?xml version='1.0'?><html><p>x</p></html>", "html"),
        ("application/xml", b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'/>", "html"),
        (None, b"\n <!DOCTYPE html><p>x", "html"),
        ("", b"<BODY bgcolor=red>x", "html"),
        ("html", b"<!-- a comment --><p>x", "html"),
        ("application/octet-stream", b"<html><p>x", "html"),
        ("text/plain", b"just words", "text"),
        ("text/plain", b"<!doctype html><html><p>x", "html"),
        (None, b"just words", "text"),
    ],
)
def test_pages_are_known_by_type_or_by_their_bytes(
    tmp_path: Path, build: SimpleNamespace, mime: str | None, body: bytes, column: str
) -> None:
    row = only(tmp_path, build.record("response", build.http(body, mime=mime)))
    assert row["drop_rule"] is None
    assert row[column] == body.decode()
    assert row["html" if column == "text" else "text"] is None


def test_plain_text_can_be_left_out(tmp_path: Path, build: SimpleNamespace) -> None:
    data = build.record("response", build.http(b"words", mime="text/plain"))
    assert only(tmp_path, data, WarcConfig(plain_text=False))["drop_rule"] == "read.content_type"


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("warcinfo", "read.record_type"),
        ("request", "read.record_type"),
        ("metadata", "read.record_type"),
        ("continuation", "read.record_type"),
        ("something", "read.record_type"),
        ("revisit", "read.revisit"),
        ("resource", None),
        ("conversion", None),
    ],
)
def test_record_types(tmp_path: Path, build: SimpleNamespace, kind: str, rule: str | None) -> None:
    row = only(tmp_path, build.record(kind, b"some words"))
    assert row["drop_rule"] == rule
    assert row["text"] == (None if rule else "some words")


def _codings(build: SimpleNamespace) -> dict[str, tuple[bytes, dict[str, str]]]:
    body = HTML.encode()
    gz, zst = gzip.compress(body, mtime=0), zstandard.ZstdCompressor().compress(body)
    return {
        "gzip": (gz, {"Content-Encoding": "gzip"}),
        "x-gzip in capitals": (gz, {"content-encoding": "X-GZIP"}),
        "gzip cut off in its trailer": (gz[:-5], {"Content-Encoding": "gzip"}),
        "gzip with rubbish after it": (gz + b"rubbish", {"Content-Encoding": "gzip"}),
        "gzip declared, body stored decoded": (body, {"Content-Encoding": "gzip"}),
        "deflate": (zlib.compress(body), {"Content-Encoding": "deflate"}),
        "raw deflate": (build.raw_deflate(body), {"Content-Encoding": "deflate"}),
        "br": (brotli.compress(body), {"Content-Encoding": "br"}),
        "br declared, body stored decoded": (body, {"Content-Encoding": "br"}),
        "zstd": (zst, {"Content-Encoding": "zstd"}),
        "two codings": (brotli.compress(gz), {"Content-Encoding": "gzip, br"}),
        "identity": (body, {"Content-Encoding": "identity"}),
        "chunked": (build.chunked(body), {"Transfer-Encoding": "chunked"}),
        "chunked and gzip": (build.chunked(gz), {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"}),
        "chunks with extensions and LF": (
            b"5;a=b\n" + body[:5] + b"\n%x\n" % len(body[5:]) + body[5:],
            {"Transfer-Encoding": "chunked"},
        ),
        "chunked without its last chunk": (build.chunked(body)[:-5], {"Transfer-Encoding": "chunked"}),
        "chunked declared, body stored joined": (body, {"Transfer-Encoding": "chunked"}),
        "Content-Length too small": (body, {"Content-Length": "7"}),
        "Content-Length too large": (body, {"Content-Length": "70000"}),
        "Content-Length no number": (body, {"Content-Length": "many"}),
        "header without a colon": (body, {"X\r\nno header at all\r\nY": "1"}),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(_codings(SimpleNamespace(raw_deflate=bytes, chunked=bytes))))
def test_bodies_are_decoded(tmp_path: Path, build: SimpleNamespace, name: str) -> None:
    body, headers = _codings(build)[name]
    block = build.http(body)
    head, _, rest = block.partition(b"\r\n\r\n")
    extra = "".join(f"\r\n{k}: {v}" for k, v in headers.items()).encode()
    row = only(tmp_path, build.record("response", head + extra + b"\r\n\r\n" + rest))
    assert row["html"] == HTML


def test_broken_chunking_keeps_what_is_there(tmp_path: Path, build: SimpleNamespace) -> None:
    body = b"6\r\n<html>\r\n3\r\nabc\r\nZZZ\r\nthe rest"
    row = only(tmp_path, build.record("response", build.http(body, Transfer_Encoding="chunked")))
    assert row["html"] == "<html>abcZZZ\r\nthe rest"


@pytest.mark.parametrize(
    ("block", "html"),
    [
        (b"HTTP/1.1 200 OK\nContent-Type: text/html\n\n<p>LF only", "<p>LF only"),
        (b"HTTP/1.1 200\r\ncontent-type:text/html\r\n\r\n<p>no reason", "<p>no reason"),
        (b"HTTP/2 200 \r\nContent-Type: text/html\r\n\r\n<p>HTTP/2", "<p>HTTP/2"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html;\r\n charset=koi8-r\r\n\r\n<p>\xf4\xd2\xc9", "<p>\u0422\u0440\u0438"),
        (b"<html>HTTP/0.9 has no head", "<html>HTTP/0.9 has no head"),
    ],
)  # fmt: skip
def test_http_head_oddities(tmp_path: Path, build: SimpleNamespace, block: bytes, html: str) -> None:
    assert only(tmp_path, build.record("response", block))["html"] == html


def test_a_head_without_end_is_an_empty_body(tmp_path: Path, build: SimpleNamespace) -> None:
    assert only(tmp_path, build.record("response", b"HTTP/1.1 200 OK\r\nA: b"))["drop_rule"] == "read.empty_body"


def test_provenance_and_identity(tmp_path: Path, build: SimpleNamespace) -> None:
    records = [
        build.record("response", build.http(build.page(i)), i, WARC_Target_URI=f"<http://a.example/{i}>") for i in range(3)
    ]
    for name, data in (("a.warc", b"".join(records)), ("b.warc.gz", b"".join(map(build.member, records)))):
        (tmp_path / name).write_bytes(data)
    plain, packed = read(tmp_path / "a.warc"), read(tmp_path / "b.warc.gz")
    assert [r["doc_id"] for r in plain] == [r["doc_id"] for r in packed]
    assert len({r["doc_id"] for r in plain}) == 3
    assert [r["url"] for r in plain] == [f"http://a.example/{i}" for i in range(3)]
    assert plain[1]["record_id"] == "<urn:uuid:00000000000000000000000000000001>"
    data = (tmp_path / "a.warc").read_bytes()
    assert [data[r["offset"] : r["offset"] + r["length"]] for r in plain] == records
    data = (tmp_path / "b.warc.gz").read_bytes()
    assert [gzip.decompress(data[r["offset"] : r["offset"] + r["length"]]) for r in packed] == records
    assert [r["html"] for r in plain] == [r["html"] for r in packed]


def test_members_that_are_not_records(tmp_path: Path, build: SimpleNamespace) -> None:
    """One gzip member of all records, or members cut anywhere: offsets are of the decompressed stream."""
    records = [build.record("response", build.http(build.page(i)), i) for i in range(6)]
    text = b"".join(records)
    cuts = [text[i : i + 333] for i in range(0, len(text), 333)]
    for name, data in (
        ("one.warc.gz", build.member(text)),
        ("cut.warc.gz", b"".join(map(build.member, cuts))),
        ("all.warc.zst", zstandard.ZstdCompressor().compress(text)),
    ):
        (tmp_path / name).write_bytes(data)
        rows = read(tmp_path / name)
        assert [text[r["offset"] : r["offset"] + r["length"]] for r in rows] == records, name


def test_several_records_in_some_members(tmp_path: Path, build: SimpleNamespace) -> None:
    """Records of one member share its offset; the last has its length, so that the rows still tile the file."""
    records = [build.record("response", build.http(build.page(i)), i) for i in range(4)]
    members = [build.member(records[0]), build.member(records[1] + records[2]), build.member(records[3])]
    (tmp_path / "x.warc.gz").write_bytes(b"".join(members))
    a, b, c = map(len, members)
    assert [(r["offset"], r["length"]) for r in read(tmp_path / "x.warc.gz")] == [(0, a), (a, 0), (a, b), (a + b, c)]


ARC = (
    b"filedesc://x.arc 127.0.0.1 20140216050221 text/plain 75\n1 0 LiveWeb Capture\n"
    b"URL IP-address Archive-date Content-type Archive-length\n\n"
)


def test_arc(tmp_path: Path, build: SimpleNamespace) -> None:
    one, two = build.http(build.page(1)), build.http(b"<html>x", "404 No")
    data = ARC + b"http://a.example/a b 10.0.0.1 20140216050221 text/html %d\n%s\n" % (len(one), one)
    data += b"http://a.example/2 10.0.0.1 20140216050222 text/html %d\n%s\n" % (len(two), two)
    data += b"http://a.example/3 10.0.0.1 20140216050222 text/html abc\nno length\n"
    (tmp_path / "x.arc").write_bytes(data)
    (tmp_path / "x.arc.gz").write_bytes(gzip.compress(data, mtime=0))
    for name in ("x.arc", "x.arc.gz"):
        rows = read(tmp_path / name)
        assert [r["drop_rule"] or r["error_class"] for r in rows] == [
            "read.record_type",
            None,
            "read.http_status",
            "NoContentLength",
        ]
        assert rows[1]["url"] == "http://a.example/a b"
        assert rows[1]["date"] == "2014-02-16T05:02:21Z"
        assert rows[1]["html"] == build.page(1).decode()
        assert check_tiling((r["offset"], r["length"]) for r in rows) == len(data)


def test_a_record_over_the_bound_is_dropped_and_never_held(tmp_path: Path, build: SimpleNamespace) -> None:
    small = build.record("response", build.http(build.page(1)), 1)
    large = build.record("response", build.http(b"<html>" + b" x" * (24 << 20)), 2)
    bomb = build.record("response", build.http(gzip.compress(b"<html>" + bytes(48 << 20)), Content_Encoding="gzip"), 3)
    cfg = WarcConfig(max_bytes=1 << 20)
    for name, data in (
        ("plain.warc", small + large + bomb + small),
        ("members.warc.gz", b"".join(map(build.member, (small, large, bomb, small)))),
        ("stream.warc.gz", build.member(small + large + bomb + small)),
    ):
        (tmp_path / name).write_bytes(data)
        tracemalloc.start()
        rows = read(tmp_path / name, cfg)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [r["drop_rule"] for r in rows] == [None, "read.max_bytes", "read.max_bytes", None], name
        assert rows[1]["drop_value"] > 48 << 20
        assert rows[1]["drop_bound"] == 1 << 20
        assert peak < 12 << 20, name


def test_batches_are_bounded_in_rows_and_bytes(tmp_path: Path, build: SimpleNamespace) -> None:
    records = [build.record("response", build.http(build.page(i, 10_000)), i) for i in range(30)]
    (tmp_path / "x.warc").write_bytes(b"".join(records))
    for cfg in (WarcConfig(batch_rows=7), WarcConfig(batch_bytes=50_000)):
        batches = list(read_warc(str(tmp_path / "x.warc"), "web", cfg))
        assert all(b.schema == ROW for b in batches)
        assert [b.num_rows for b in batches] == ([7, 7, 7, 7, 2] if cfg.batch_rows == 7 else [b.num_rows for b in batches])
        assert max(b.nbytes for b in batches) < 100_000
        assert check_tiling(s for b in batches for s in spans(b)) == sum(map(len, records))


def test_robots_txt_is_no_page(tmp_path: Path, build: SimpleNamespace) -> None:
    data = build.record(
        "response", build.http(b"User-agent: *", mime="text/plain"), WARC_Target_URI="http://a.example/robots.txt"
    )
    assert only(tmp_path, data)["drop_rule"] == "read.robots_txt"


@pytest.mark.parametrize("spans_", [[(0, 5), (6, 1)], [(0, 5), (4, 1)], [(1, 5)], [(0, -1)]])
def test_check_tiling_sees_gaps_and_overlaps(spans_: list[tuple[int, int]]) -> None:
    with pytest.raises(AssertionError, match="do not tile"):
        check_tiling(spans_)
