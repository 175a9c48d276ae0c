"""The examples keep what SOURCES.md and expected.jsonl.gz promise."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

EXAMPLES = Path(__file__).parents[2] / "examples"
WARCS = sorted((EXAMPLES / "crawl").glob("*.warc.gz"))
TEXT_FILES = ["code.jsonl.gz", "math.jsonl.gz", "books.parquet"]
DUPLICATES = {"exact_dup", "near_dup", "reencoded_mirror"}


@dataclass(frozen=True)
class Record:
    """What the WARC says of one response or revisit."""

    url: str
    status: int
    content_type: str
    body: bytes
    kind: WarcRecordType


def members(data: bytes) -> Iterator[bytes]:
    """The whole gzip members of a file; what lies between them is passed over."""
    start = data.find(b"\x1f\x8b\x08")
    while start >= 0:
        unpack = zlib.decompressobj(31)
        with contextlib.suppress(zlib.error):
            unpack.decompress(data[start:])
        if unpack.eof:
            stop = len(data) - len(unpack.unused_data)
            yield data[start:stop]
            start = data.find(b"\x1f\x8b\x08", stop)
        else:
            start = data.find(b"\x1f\x8b\x08", start + 1)


def unchunk(body: bytes) -> bytes:
    out = b""
    while size := int(body[: body.index(b"\r\n")], 16):
        start = body.index(b"\r\n") + 2
        out, body = out + body[start : start + size], body[start + size + 2 :]
    return out


@cache
def expected() -> dict[str, dict[str, Any]]:
    with gzip.open(EXAMPLES / "expected.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len({row["record_id"] for row in rows}) == len(rows)
    return {row["record_id"]: row for row in rows}


@cache
def records() -> dict[str, Record]:
    found = {}
    for path in WARCS:
        for member in members(path.read_bytes()):
            kinds = WarcRecordType.response | WarcRecordType.revisit
            for record in ArchiveIterator(io.BytesIO(member), record_types=kinds, verify_digests=True):
                http = record.http_headers
                body = record.reader.read()
                if body and http.get("Transfer-Encoding") == "chunked":
                    body = unchunk(body)
                if body and http.get("Content-Encoding"):
                    body = zlib.decompress(body, 47)  # zlib or gzip, told by its head
                found[record.headers["WARC-Record-ID"]] = Record(
                    record.headers["WARC-Target-URI"], http.status_code, http["Content-Type"], body, record.record_type
                )
    return found


@cache
def texts(name: str) -> list[dict[str, Any]]:
    if name.endswith(".parquet"):
        rows: list[dict[str, Any]] = pq.read_table(EXAMPLES / name).to_pylist()
        return rows
    with gzip.open(EXAMPLES / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_all_of_it_stays_small() -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < 12_000_000


def test_sources_names_every_file_with_its_rows_and_bytes() -> None:
    page = (EXAMPLES / "SOURCES.md").read_text(encoding="utf-8")
    rows = Counter(row["file"] for row in expected().values())
    rows.update({name: len(texts(name)) for name in TEXT_FILES}, **{"expected.jsonl.gz": len(expected())})
    assert rows
    for path in [*WARCS, *(EXAMPLES / name for name in [*TEXT_FILES, "expected.jsonl.gz"])]:
        name = path.relative_to(EXAMPLES).as_posix()
        assert f"| {name} | {rows[name]:,} | {path.stat().st_size:,} |" in page
    data = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.suffix in (".gz", ".parquet")}
    assert data == set(rows)


def test_sources_names_every_origin_and_its_licence() -> None:
    page = (EXAMPLES / "SOURCES.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| (?:[\w.]+ \| )?([\w./-]+) \| [^|]+ \| [^|]+ \| [\d,]+ \| [^|]+ \| ([^|]+) \|$", page, re.M)
    licences = dict(lines)
    origins = {row["origin"] for row in expected().values()} | {row["source"] for name in TEXT_FILES for row in texts(name)}
    for origin in origins:
        assert any(origin.startswith(name) for name in licences), origin
    assert all(re.search(r"GPL-2|CC BY-SA|Apache-2.0|MIT|BSD-3|PSF-2|public domain", licence) for licence in licences.values())
    for link in re.findall(r"\]\(([^)]+)\)", page):
        assert (EXAMPLES / link).exists(), link


@pytest.mark.parametrize("licence", ["CC BY-SA 3.0", "MIT", "BSD-3-Clause", "PSF-2.0"])
def test_the_notices_hold_the_short_licences(licence: str) -> None:
    assert f"\n## {licence}" in (EXAMPLES / "licenses" / "NOTICES.md").read_text(encoding="utf-8")


def test_every_expected_record_is_in_the_warc_and_none_beside() -> None:
    damaged = {record_id for record_id, row in expected().items() if row["kind"] == "damaged"}
    assert len(damaged) == 1
    assert set(records()) == set(expected()) - damaged


def test_records_are_as_expected() -> None:
    for record_id, record in records().items():
        row = expected()[record_id]
        content_type = row["mime"] + (f"; charset={row['declared']}" if "declared" in row else "")
        assert (record.url, record.status, record.content_type) == (row["url"], row["status"], content_type)
        assert (record.kind == WarcRecordType.revisit) == (row["kind"] == "revisit")
        assert bool(record.body) == (row["kind"] not in ("empty", "revisit"))
        if "charset" in row:
            record.body.decode(row["charset"])


def test_the_damage_lies_in_the_middle_and_stops_a_plain_reader() -> None:
    row = next(row for row in expected().values() if row["kind"] == "damaged")
    ids = [other["record_id"] for other in expected().values() if other["file"] == row["file"]]
    assert 0.2 < ids.index(row["record_id"]) / len(ids) < 0.8
    with (EXAMPLES / row["file"]).open("rb") as stream, pytest.raises(OSError, match="decompression"):
        list(ArchiveIterator(stream))


def test_languages_and_kinds_are_as_promised() -> None:
    rows = expected().values()
    languages = Counter(row["lang"] for row in rows if row["kind"] == "page")
    assert languages["en"] >= 150
    assert languages["zh"] >= 150
    assert {"de", "fr", "es", "ja", "ko", "ru", "pt", "it"} <= {lang for lang, count in languages.items() if count >= 5}
    kinds = Counter(row["kind"] for row in rows)
    assert 350 <= len(rows) - kinds["revisit"] <= 600
    assert 0.15 <= 1 - (kinds["page"] + kinds["contents"]) / len(rows) <= 0.25
    promised = {"redirect", "error", "soft_404", "empty", "short", "junk", "not_html", "damaged", "revisit", "contents", "page"}
    assert set(kinds) == promised | DUPLICATES
    assert {row["expect"] for row in rows} == {"keep", "drop", "drop-duplicate", "either"}
    charsets = {row.get("charset") for row in rows}
    assert {"gbk", "gb18030", "big5", "euc-kr", "euc-jp", "shift_jis", "koi8-r", "iso-8859-1"} <= charsets
    assert {"gzip", "deflate", "chunked", "gzip+chunked"} <= {row.get("coding") for row in rows}


def test_each_group_of_duplicates_has_one_original() -> None:
    groups = defaultdict(list)
    for row in expected().values():
        if "dup_group" in row and row["kind"] != "revisit":
            groups[row["dup_group"]].append(row)
    assert groups
    for rows in groups.values():
        kinds = Counter(row["kind"] for row in rows)
        assert kinds["page"] == 1
        assert set(kinds) <= {"page"} | DUPLICATES
        bodies = {row["kind"]: records()[row["record_id"]].body for row in rows}
        assert bodies.get("exact_dup", bodies["page"]) == bodies["page"]
        if "reencoded_mirror" in bodies:
            assert bodies["reencoded_mirror"] != bodies["page"]


def test_likeness_decides_what_is_expected_of_a_near_duplicate() -> None:
    rows = [row for row in expected().values() if row["kind"] == "near_dup"]
    assert all(row["jaccard"] >= 0.85 for row in rows if row["expect"] == "drop-duplicate")
    assert all(row["jaccard"] < 0.85 for row in rows if row["expect"] in ("keep", "either"))
    assert sum(row["expect"] == "drop-duplicate" for row in rows) >= 30


def test_contact_data_are_in_their_pages_and_of_every_kind() -> None:
    contacts = json.loads((EXAMPLES / "planted.json").read_text(encoding="utf-8"))["contact"]
    pages = [
        (row["pii"], records()[row["record_id"]].body.decode(row["charset"])) for row in expected().values() if "pii" in row
    ]
    assert {kind for counts, _ in pages for kind in counts} == {"email", "phone", "card", "iban", "ip"}
    for contact in contacts:
        counts = Counter(kind for _, kind in contact["items"])
        assert any(dict(counts) == pii and all(value in html for value, _ in contact["items"]) for pii, html in pages)


@pytest.mark.parametrize(
    ("name", "languages", "rows", "licences"),
    [
        ("code.jsonl.gz", {"python", "go", "rust"}, 500, {"PSF-2.0", "BSD-3-Clause", "MIT OR Apache-2.0"}),
        ("math.jsonl.gz", {"en"}, 5_000, {"MIT"}),
        ("books.parquet", {"en", "zh"}, 400, {"public domain"}),
    ],
)
def test_texts_are_whole(name: str, languages: set[str], rows: int, licences: set[str]) -> None:
    found = texts(name)
    assert len(found) >= rows
    assert all(set(row) == {"id", "text", "lang", "source", "license"} and row["text"].strip() for row in found)
    assert {row["lang"] for row in found} == languages
    assert {row["license"] for row in found} == licences
    assert len({row["id"] for row in found}) == len({row["text"] for row in found}) == len(found)
