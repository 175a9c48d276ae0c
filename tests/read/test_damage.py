"""Damage costs the damaged record only, and what it costs is a quarantined row."""

import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.read.rows import check_tiling
from pipelines.read.warc import WarcConfig, read_warc

COUNT = 8


def read(path: Path, cfg: WarcConfig | None = None) -> list[dict[str, Any]]:
    return [row for batch in read_warc(str(path), "web", cfg or WarcConfig()) for row in batch.to_pylist()]


def parts_of(build: SimpleNamespace, layout: str) -> list[bytes]:
    records = [build.record("response", build.http(build.page(i, 200 + 150 * i)), i) for i in range(COUNT)]
    if layout == "lf":
        heads = [r.partition(b"\r\n\r\n") for r in records]
        return [head.replace(b"\r\n", b"\n") + b"\n\n" + rest for head, _, rest in heads]
    return [build.member(r) for r in records] if layout == "gz" else records


def kept(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {r["record_id"]: r["html"] for r in rows if r["html"] is not None and r["error_class"] is None}


def expected(build: SimpleNamespace, number: int) -> tuple[str, str]:
    return f"<urn:uuid:{number:032x}>", build.page(number, 200 + 150 * number).decode()


DAMAGE = st.tuples(
    st.floats(0, 1, exclude_max=True),  # where, as a share of the file
    st.sampled_from(["overwrite", "insert", "delete", "zero", "cut"]),
    st.binary(min_size=1, max_size=64),
    st.integers(1, 1500),
)


@settings(max_examples=150, deadline=None)
@given(layout=st.sampled_from(["gz", "plain", "lf"]), damage=DAMAGE)
def test_damage_anywhere_loses_no_record_it_does_not_touch(build: SimpleNamespace, layout: str, damage: Any) -> None:
    parts = parts_of(build, layout)
    data = b"".join(parts)
    share, how, noise, length = damage
    at = int(share * len(data))
    length = {"overwrite": len(noise), "insert": 0, "delete": length, "zero": length, "cut": len(data)}[how]
    end = min(len(data), at + length)
    new = {"overwrite": noise[: end - at], "insert": noise, "delete": b"", "zero": bytes(end - at), "cut": b""}[how]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x.warc"
        file.write_bytes(data[:at] + new + data[end:])
        rows = read(file)
        assert check_tiling((r["offset"], r["length"]) for r in rows) == file.stat().st_size
    start, found = 0, kept(rows)
    for number, part in enumerate(parts):
        stop = start + len(part)
        touched = at < stop and (end > start if end > at else at > start)
        if not touched:
            name, html = expected(build, number)
            assert found.get(name) == html, f"record {number} is gone"
        start = stop
    assert all(r["error_message"].startswith(f"{r['file']}: byte {r['offset']}: ") for r in rows if r["error_class"])


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), noise=st.binary(min_size=1, max_size=64))
def test_in_one_gzip_member_all_before_the_damage_is_read(build: SimpleNamespace, share: float, noise: bytes) -> None:
    parts = parts_of(build, "plain")
    data = build.member(b"".join(parts))
    at = 30 + int(share * (len(data) - 30))
    damaged = (data[:at] + noise + data[at:])[: len(data)]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x.warc.gz"
        file.write_bytes(damaged)
        rows = read(file)
    check_tiling((r["offset"], r["length"]) for r in rows)
    assert any(r["error_class"] for r in rows) == (damaged != data)
    good = len(_inflated(data[:at]))
    found = {(r["record_id"], r["html"]) for r in rows}
    for number in range(COUNT):
        if sum(map(len, parts[: number + 1])) + 200 < good:  # the header of the next one shows that records share the member
            assert expected(build, number) in found


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(data)


SNIPPETS = [
    b"WARC/1.0\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 99999999999999\r\n",
    b"WARC-Type: response\r\n",
    b"a:b 1.1.1.1 20140101000000 text/html 7\n",
    b"HTTP/1.1 200 OK\r\n",
    b"\r\n",
    b"\x1f\x8b\x08\0\0\0\0\0\0\3",
    b"<html>",
    b"\xff\xfe",
    b"\0\0",
]


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=600) | st.lists(st.sampled_from(SNIPPETS), max_size=30).map(b"".join))
def test_any_bytes_are_read_and_tiled(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x.warc"
        file.write_bytes(data)
        rows = read(file, WarcConfig(max_bytes=100))
        if not data.startswith((b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")):
            assert check_tiling((r["offset"], r["length"]) for r in rows) == len(data)
        else:
            check_tiling((r["offset"], r["length"]) for r in rows)


@pytest.mark.parametrize(
    ("name", "change", "errors"),
    [
        ("cut inside the last member", lambda p, x: [*p[:-1], p[-1][:-40]], ["DamagedGzip"]),
        ("garbage between members", lambda p, x: [*p[:3], b"garbage" * 99, *p[3:]], ["DamagedGzip"]),
        ("zeroes inside a member", lambda p, x: [*p[:3], p[3][:60] + bytes(50) + p[3][110:], *p[4:]], ["DamagedGzip"]),
        ("zeroes at the end", lambda p, x: [*p, bytes(512)], ["DamagedGzip"]),
        ("a member that holds nothing", lambda p, x: [*p[:2], x[0], *p[2:]], ["EmptyMember"]),
        ("a member of something else", lambda p, x: [*p[:2], x[1], *p[2:]], ["NoRecord"]),
    ],
)
def test_damaged_members(tmp_path: Path, build: SimpleNamespace, name: str, change: Any, errors: list[str]) -> None:
    parts = parts_of(build, "gz")
    extra = [build.member(b""), build.member(b"no record")]
    file = tmp_path / "x.warc.gz"
    file.write_bytes(b"".join(change(parts, extra)))
    rows = read(file)
    assert [r["error_class"] for r in rows if r["error_class"]] == errors, name
    assert len(kept(rows)) >= COUNT - 1
    assert check_tiling((r["offset"], r["length"]) for r in rows) == file.stat().st_size


@pytest.mark.parametrize("layout", ["plain", "gz"])
@pytest.mark.parametrize("factor", [0.33, 4, 10**12])
def test_a_wrong_length_of_one_record_hurts_no_other(
    tmp_path: Path, build: SimpleNamespace, layout: str, factor: float
) -> None:
    block = build.http(build.page(3))
    records = [build.record("response", build.http(build.page(i)), i) for i in range(6)]
    records[3] = build.record("response", block, 3, Content_Length=str(int(len(block) * factor)))
    file = tmp_path / "x.warc"
    file.write_bytes(b"".join(map(build.member, records) if layout == "gz" else records))
    rows = read(file)
    assert len(rows) == 6
    assert [r["html"] for r in rows] == [build.page(i).decode() for i in range(6)]


def test_a_record_cut_off_by_the_end_of_the_file_is_quarantined_with_its_url(tmp_path: Path, build: SimpleNamespace) -> None:
    data = b"".join(parts_of(build, "plain"))
    file = tmp_path / "x.warc"
    file.write_bytes(data[:-200])
    rows = read(file)
    assert len(kept(rows)) == COUNT - 1
    assert rows[-1]["error_class"] == "TruncatedRecord"
    assert rows[-1]["url"] == f"http://site.example/{COUNT - 1}"
    assert f"x.warc: byte {rows[-1]['offset']}: the record has " in rows[-1]["error_message"]


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        (b"", 0),
        (b"<html>503 Slow Down</html>", 1),
        (b"\x1f\x8b\x08 not gzip at all", 1),
        (bytes(100_000), 1),
    ],
)
def test_what_is_no_warc_is_one_quarantined_row(tmp_path: Path, data: bytes, rows: int) -> None:
    file = tmp_path / "x.warc.gz"
    file.write_bytes(data)
    found = read(file)
    assert len(found) == rows
    assert all(r["error_class"] and r["length"] == len(data) for r in found)
