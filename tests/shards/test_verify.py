"""`verify` names everything that is wrong with shards, a line each, and nothing that is right."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.shards.verify
from pipelines.__main__ import main
from pipelines.shards import Manifest, Order, ShardError, Shards, read_manifest, write_manifest, write_shard
from pipelines.shards.tombstones import TOMBSTONES, publish_tombstones
from pipelines.shards.verify import verify

MakePages = Callable[..., Any]
Pages = Any  # of conftest.py: out, shards, rows

FILE = "web/train-00001.arrow"
TOLD = "web/train-00001.provenance.parquet"


def again(root: Path, **changes: object) -> None:
    """The manifest with other fields, and a fingerprint that fits."""
    write_manifest(root, dataclasses.replace(read_manifest(root), **changes))  # type: ignore[arg-type]


def of_file(root: Path, name: str, **changes: object) -> None:
    """The same for one file."""
    files = read_manifest(root).files
    again(root, files=tuple(dataclasses.replace(f, **changes) if f.path == name else f for f in files))  # type: ignore[arg-type]


def rewritten(root: Path, path: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """A shard and its provenance with other rows; all sums are right."""
    file = next(f for f in read_manifest(root).files if f.path == path)
    with pa.memory_map(str(root / path)) as mapped:
        rows = [dict(row) for row in pa.ipc.open_file(mapped).read_all().to_pylist()]
    told = {row["doc_id"]: row for row in pq.read_table(root / file.provenance_path).to_pylist()}
    change(rows)
    index = int(Path(path).stem.rpartition("-")[2])
    made = write_shard(root, file.source, file.split, index, (r["doc_id"] for r in rows), (r["tokens"] for r in rows), "uint16")
    page = next(iter(told.values()))
    table = pa.Table.from_pylist([told.get(r["doc_id"], page) | {"doc_id": r["doc_id"]} for r in rows])
    pq.write_table(table, root / file.provenance_path)
    digest = hashlib.sha256((root / file.provenance_path).read_bytes()).hexdigest()
    of_file(root, path, **vars(dataclasses.replace(made, provenance=digest)))


def told_of_others(root: Path) -> None:
    table = pq.read_table(root / TOLD)
    pq.write_table(table.take([1, 0, *range(2, len(table))]), root / TOLD)
    of_file(root, FILE, provenance=hashlib.sha256((root / TOLD).read_bytes()).hexdigest())


def flipped(root: Path) -> None:
    data = bytearray((root / FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (root / FILE).write_bytes(data)


def cut_short(root: Path) -> None:
    (root / FILE).write_bytes((root / FILE).read_bytes()[:-100])


def buried(root: Path, **changes: object) -> None:
    """A tombstone of the first document of the stream, with something changed."""
    stream = Shards(root).stream("web")
    (span,) = stream.documents(0, 1)
    (length,) = stream.places(span.file, [0])[1].tolist()
    row = {"source": "web", "split": "train", "start": 0, "length": length, "doc_id": span.doc_id, "file": span.file, "row": 0}
    publish_tombstones(root, read_manifest(root), pa.Table.from_pylist([row | {"reason": "test"} | changes], TOMBSTONES))


def moved_to(split: str) -> Callable[[Path], None]:
    """The last document of a shard goes to the other split, at the place that the keyed order gives it."""

    def move(root: Path) -> None:
        taken: list[dict[str, Any]] = []
        source, target = ("web/validation-00000.arrow", FILE)[:: 1 if split == "train" else -1]
        rewritten(root, source, lambda rows: taken.append(rows.pop()))
        seed = read_manifest(root).seed or 0
        rewritten(
            root,
            target,
            lambda rows: (rows.append(taken[0]), rows.sort(key=lambda r: pipelines.shards.verify.order_key(seed, r["doc_id"]))),
        )

    return move


# --- what is right --------------------------------------------------------------------------------------------------------


def test_shards_that_are_well(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    buried(pages.shards)
    heard: list[int] = []
    assert verify(pages.shards, advance=heard.append) == read_manifest(pages.shards)
    assert sum(heard) == 160
    assert main(["verify", str(pages.out)]) == 0
    printed = capsys.readouterr().out
    assert "all is well  6 files, 160 documents" in printed
    assert (
        "provenance   of every row\ntaken down   1 documents\nbeside it    tokenizer/tokenizer.json, schedule.json fit"
        in printed
    )
    assert main(["verify", "--quick", str(pages.shards)]) == 0


@pytest.mark.parametrize(("descending", "window"), [(False, 1), (True, 7), (False, 1000)])
def test_a_stated_order(make_pages: MakePages, tmp_path: Path, descending: bool, window: int) -> None:
    root = make_pages(tmp_path, order=Order("web", "words", descending, window)).shards
    verify(root)
    again(root, orders=(Order("web", "words", descending, window + 1),))
    if window < 1000:
        with pytest.raises(ShardError, match=rf"breaks the order by 'words' \(window {window + 1}\)"):
            verify(root)


def test_many_bytes_are_shared_out_among_processes(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.shards.verify, "SPREAD_BYTES", 0)
    flipped(pages.shards)
    with pytest.raises(ShardError, match=rf"1 thing is wrong with (?s:.*){FILE}: sha256 is"):
        verify(pages.shards)


# --- what is wrong --------------------------------------------------------------------------------------------------------


def repeat(rows: list[dict[str, Any]]) -> None:
    rows.insert(3, rows[3])


def reverse(rows: list[dict[str, Any]]) -> None:
    rows.reverse()


WRONG: list[tuple[str, Callable[[Path], object], str]] = [
    ("a flipped byte", flipped, f"{FILE}: sha256 is .*, the manifest says"),
    ("cut short", cut_short, f"{FILE}: sha256 is"),
    ("missing", lambda root: (root / FILE).unlink(), f"{FILE}: No such file"),
    ("a missing source", lambda root: [p.unlink() for p in (root / "code").iterdir()], "code/train-00000.arrow: No such file"),
    ("rows", lambda root: of_file(root, FILE, rows=9), f"{FILE}: has .* the manifest says 9 and"),
    ("tokens", lambda root: of_file(root, FILE, tokens=9), f"{FILE}: has .* and 9$"),
    ("vocabulary", lambda root: again(root, vocab_size=60), "holds id 6[0-3], the vocabulary has 60"),
    ("eos", lambda root: again(root, eos_id=3), r"row 0 does not end in eos \(3\)"),
    ("dtype", lambda root: again(root, dtype="uint32"), "has columns doc_id: binary, tokens: list<item: uint16>"),
    ("eos and vocabulary", lambda root: again(root, eos_id=64), "do not go together"),
    ("no dtype", lambda root: again(root, dtype="int64"), "do not go together"),
    ("seed", lambda root: again(root, seed=8), r"breaks the keyed order \(seed 8\)"),
    ("order", lambda root: rewritten(root, FILE, reverse), f"{FILE}: row 1 breaks the keyed order"),
    (
        "order of files",
        lambda root: again(root, files=read_manifest(root).files[::-1]),
        "train-00000.arrow: row 0 breaks the keyed",
    ),
    ("twice", lambda root: rewritten(root, FILE, repeat), f"{FILE}: row 4 repeats document [0-9a-f]{{32}}"),
    ("not held out", moved_to("train"), "is in the wrong split"),
    ("held out", moved_to("validation"), "is in the wrong split"),
    ("stated order", lambda root: again(root, orders=(Order("web", "words", False, 9),)), "breaks the order by 'words'"),
    ("no such column", lambda root: again(root, orders=(Order("web", "score", False, 9),)), "has no column 'score'"),
    ("another page's provenance", told_of_others, f"{TOLD}: row 0 is of another document than row 0 of {FILE}"),
    ("edited provenance", lambda root: (root / TOLD).write_bytes(b"PAR1"), f"{TOLD}: sha256 is"),
    ("no provenance", lambda root: (root / TOLD).unlink(), f"{TOLD}: No such file"),
    ("a stray file", lambda root: (root / "web/x.tmp").write_text(""), "web/x.tmp: is not listed in the manifest"),
    (
        "a shard of another name",
        lambda root: of_file(root, FILE, source="blog"),
        "lists .*, which is no shard of source 'blog'",
    ),
    ("listed twice", lambda root: again(root, files=read_manifest(root).files * 2), "lists code/train-00000.arrow twice"),
    (
        "tokenizer",
        lambda root: (root / "../tokenizer/tokenizer.json").write_text("{}"),
        "tokenizer.json: sha256 is .*, the shards",
    ),
    ("schedule", lambda root: again(root, seed=None), "schedule.json: the schedule was compiled for shards"),
    ("no schedule", lambda root: (root / "../schedule.json").write_text("{}"), "schedule.json: "),
    ("tombstone of no document", lambda root: buried(root, row=1), "lies elsewhere in its stream"),
    ("half a document", lambda root: buried(root, length=1), "lies elsewhere in its stream"),
]


@pytest.mark.parametrize(("damage", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_is_wrong_is_named(
    pages: Pages, damage: Callable[[Path], object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(pages.shards)
    with pytest.raises(ShardError, match=f"(?m){message}"):
        verify(pages.shards)
    assert main(["verify", str(pages.out)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_all_that_is_wrong_is_named_at_once(pages: Pages) -> None:
    flipped(pages.shards)
    (pages.shards / TOLD).unlink()
    (pages.shards / "code/train-00000.arrow").unlink()
    (pages.shards / "stray").write_text("")
    with pytest.raises(ShardError) as raised:
        verify(pages.shards)
    first, *lines = str(raised.value).splitlines()
    assert first.startswith(f"4 things are wrong with {pages.shards}; ")
    named = ["stray", "code/train-00000.arrow", FILE, TOLD]
    assert [line.strip().partition(": ")[0] for line in lines] == [str(pages.shards / name) for name in named]


def test_roles_without_a_seed_and_a_document_twice(tmp_path: Path) -> None:
    file = write_shard(
        tmp_path, "chat", "train", 0, [b"a" * 16, b"b" * 16, b"a" * 16], [[7, 0], [9, 0], [7, 0]], "uint16", [[1, 1]] * 3
    )
    write_manifest(tmp_path, Manifest(2, "uint16", 10, 0, "t", "chat", "f", (file,)))
    with pytest.raises(ShardError, match=f"chat: document {b'a'.hex() * 16} is there more than once"):
        verify(tmp_path)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_documents_that_come_twice_are_found_in_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(pipelines.shards.verify, "IDS_AT_ONCE", at_once)
    ids = [bytes([n]) * 16 for n in (255, 0, 128, 7)]
    file = write_shard(tmp_path, "chat", "train", 0, ids, [[0]] * 4, "uint16")
    write_manifest(tmp_path, Manifest(2, "uint16", 10, 0, "t", "chat", "f", (file,)))
    verify(tmp_path)
    again_ = write_shard(tmp_path, "chat", "validation", 0, [ids[0]], [[0]], "uint16")
    write_manifest(tmp_path, Manifest(2, "uint16", 10, 0, "t", "chat", "f", (file, again_)))
    with pytest.raises(ShardError, match=r"document (ff){16} is there more than once"):
        verify(tmp_path)


def test_an_edited_manifest_is_refused_before_anything_is_read(pages: Pages) -> None:
    path = pages.shards / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"vocab_size": 65}))
    with pytest.raises(ShardError, match="was changed after it was written"):
        verify(pages.shards)
