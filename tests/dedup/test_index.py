"""The index on disk, without Spark: what is written is found again, in few looks; damage and other keys are refused."""

import json
import math
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.dedup.index import format as format_
from pipelines.dedup.index.format import (
    DOCUMENTS,
    IndexConfig,
    IndexManifest,
    Writing,
    check,
    compressed,
    documents_name,
    key_file,
    keys_name,
    lookup_keys,
    pack_place,
    probe,
    read_manifest,
    unpack_place,
    verify,
    write_documents,
    write_keys,
    write_manifest,
)
from pipelines.dedup.index.lookup import Index, Latest
from pipelines.dedup.minhash import MinhashConfig, bands, signatures, sketch
from pipelines.errors import UserError

CFG = MinhashConfig()
TEXTS = {
    "a": "The river had been rising since the morning, and nobody could say how far it would come.",
    "b": "\u5929\u9999\u5f15\u6c34\u7684\u6e20\u9053\u5728\u5c71\u7684\u53e6\u4e00\u8fb9 \U0001f600 \x00 \r\n",
    "long": " ".join(f"w{i % 5000}" for i in range(400_000)),
    "empty": "",
}


def write(root: Path, documents: list[dict[str, Any]], pairs: Any, slots: int = 1) -> IndexManifest:
    """An index of these documents and (key, place) pairs; its keys need not be those of the documents."""
    files = []
    if documents:
        with Writing(root, documents_name(0)) as out:
            for _ in write_documents(out, 0, documents):
                pass
        files.append(out.made)
    pairs = np.array(sorted(map(tuple, np.reshape(pairs, (-1, 2)).tolist())), np.int64).reshape(-1, 2)
    numbers = key_file(pairs[:, 0], slots)
    for number in np.unique(numbers).tolist():
        with Writing(root, keys_name(number)) as out:
            write_keys(out, np.array_split(pairs[numbers == number], 3))
        files.append(out.made)
    manifest = IndexManifest(1, "old dump", "r", "f" * 12, asdict(CFG), probe(CFG), len(documents), slots, tuple(files))
    write_manifest(root, manifest)
    return manifest


def document(name: str, text: str) -> dict[str, Any]:
    short = sketch(signatures(pa.array([text]), CFG))[0].tobytes()
    packed = compressed([text])[0]
    return {"doc_id": name.encode(), "source": "web", "url": None, "date": "2025-01-01", "sketch": short, "text": packed}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An index of TEXTS with their keys, in 4 key files."""
    pairs = [
        (key, place)
        for place, text in enumerate(TEXTS.values())
        if text
        for key in lookup_keys(signatures(pa.array([text]), CFG), CFG)[0].tolist()
    ]
    write(tmp_path / "index", [document(n, t) for n, t in TEXTS.items()], pairs, slots=4)
    return tmp_path / "index"


# --- keys and places -----------------------------------------------------------------------------------------------------


def test_a_document_has_a_key_a_band_and_one_of_the_whole() -> None:
    texts = pa.array([TEXTS["a"], TEXTS["a"].upper(), TEXTS["a"] + " Far away."])
    signature = signatures(texts, CFG)
    keys = lookup_keys(signature, CFG)
    assert keys.shape == (3, CFG.bands + 1)
    assert (keys[:, :-1] == bands(signature, CFG)).all()
    assert keys[0, -1] == keys[1, -1] != keys[2, -1]


@pytest.mark.parametrize("slots", [1, 2, 3, 1000])
def test_key_files_are_equal_ranges_of_all_keys(slots: int) -> None:
    keys = np.array([-(2**63), -1, 0, 2**63 - 1])
    assert key_file(keys, slots).tolist() == [0, (slots * (2**31 - 1)) >> 32, slots // 2, slots - 1]
    drawn = np.random.default_rng(1).integers(-(2**63), 2**63, 100_000, np.int64)
    numbers = key_file(np.sort(drawn), slots)
    assert (np.diff(numbers) >= 0).all()
    assert np.bincount(numbers, minlength=slots).max() < 2 * 100_000 / slots


@pytest.mark.parametrize("where", [(0, 0, 0), (1, 2, 3), (2**24 - 1, 2**24 - 1, 2**15 - 1)])
def test_a_place_is_file_batch_and_row(where: tuple[int, int, int]) -> None:
    assert unpack_place(pack_place(*where)) == where
    assert 0 <= pack_place(*where) < 2**63


@pytest.mark.parametrize("where", [(2**24, 0, 0), (0, 2**24, 0)])
def test_a_place_that_cannot_be_named_is_refused(where: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="target_bytes"):
        pack_place(*where)


# --- what is written is found --------------------------------------------------------------------------------------------


def test_documents_come_back_as_they_were(root: Path) -> None:
    index = Index(root)
    for place, (name, text) in enumerate(TEXTS.items()):
        assert index.text(place) == text
        assert asdict(index.origin(place)) == {"doc_id": name.encode(), "source": "web", "url": None, "date": "2025-01-01"}
        assert index.sketch(place).tolist() == sketch(signatures(pa.array([text]), CFG))[0].tolist()
    assert verify(root).rows == 4


def test_places_lead_to_documents_over_many_record_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_, "BATCH_ROWS", 7)
    monkeypatch.setattr(format_, "BATCH_BYTES", 3000)
    rng, places = random.Random(1), list[int]()
    texts = [rng.randbytes(rng.choice([1, 100, 4000])).hex() for _ in range(50)]
    with Writing(tmp_path, documents_name(3)) as out:
        for rows, found in write_documents(out, 3, (document(str(i), t) for i, t in enumerate(texts))):
            assert 1 <= len(rows) <= 7
            places += found.tolist()
    made = replace(write(tmp_path / "other", [], []), files=(out.made,), rows=50)
    write_manifest(tmp_path, made)
    index = Index(tmp_path)
    assert [index.text(p) for p in places] == texts
    assert {unpack_place(p)[0] for p in places} == {3}
    assert len({unpack_place(p)[1] for p in places}) > 7


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("most", [1, 4, 1000])
def test_a_lookup_finds_what_a_dictionary_finds(tmp_path: Path, slots: int, most: int) -> None:
    rng = np.random.default_rng(slots)
    known = rng.integers(-(2**63), 2**63, 300, np.int64)
    pairs = [(int(k), int(p)) for k in known for p in rng.integers(0, 2**62, rng.choice([1, 1, 2, 40]))]
    pairs += [(2**63 - 1, 5), (-(2**63), 6)]
    write(tmp_path, [], pairs, slots)
    buckets: dict[int, list[int]] = {}
    for key, place in sorted(pairs):
        buckets.setdefault(key, []).append(place)
    asked = np.unique(np.concatenate((known[::2], rng.integers(-(2**63), 2**63, 100, np.int64), [2**63 - 1, -(2**63), 0])))
    found = Index(tmp_path).find(asked, most)
    wanted = [buckets.get(int(k), []) for k in asked]
    assert found.size.tolist() == [len(w) for w in wanted]
    assert found.given.tolist() == [min(len(w), most) for w in wanted]
    assert found.places.tolist() == [p for w in wanted for p in w[:most]]


@pytest.mark.parametrize("asked", [[], [3, 9]])
def test_nothing_is_found_where_nothing_is(tmp_path: Path, asked: list[int]) -> None:
    write(tmp_path, [], [])
    found = Index(tmp_path).find(np.array(asked, np.int64), 8)
    assert (found.size.tolist(), found.places.tolist()) == ([0] * len(asked), [])
    assert check(tmp_path, CFG).rows == 0


def test_the_work_follows_the_new_keys_not_the_old_index(tmp_path: Path) -> None:
    rng, keys = np.random.default_rng(1), 500
    looked = {}
    for old in (10_000, 100_000, 1_000_000):
        known = rng.integers(-(2**63), 2**63, old, np.int64)
        known[: old // 2] = 77  # half of the index is one bucket
        write(tmp_path / str(old), [], np.column_stack((known, np.arange(old))))
        index = Index(tmp_path / str(old))
        index.find(np.unique(np.concatenate((known[-250:], rng.integers(-(2**63), 2**63, 249, np.int64), [77]))), 8)
        looked[old] = index.looked
        assert index.looked < keys * (2 * math.log2(old / keys) + 6)
    assert looked[1_000_000] < 3 * looked[10_000]  # a hundred times the index


# --- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "theirs", "ours"),
    [
        (MinhashConfig(bands=20, rows=13), "bands=14, rows=8", "bands=20, rows=13"),
        (MinhashConfig(ngram=3), "ngram=5", "ngram=3"),
        (MinhashConfig(seed=2), "seed=1", "seed=2"),
        (MinhashConfig(unit="word"), "unit='auto'", "unit='word'"),
        (MinhashConfig(scheme="datasketch"), "scheme='headrace'", "scheme='datasketch'"),
    ],
)
def test_an_index_of_other_parameters_is_refused_with_both_named(
    root: Path, asked: MinhashConfig, theirs: str, ours: str
) -> None:
    with pytest.raises(UserError) as refused:
        check(root, asked)
    assert f"was made with {theirs}, and is to be searched with {ours}; " in str(refused.value)
    assert str(root) in str(refused.value)


def test_an_index_of_another_programs_keys_is_refused(root: Path) -> None:
    write_manifest(root, replace(read_manifest(root), probe="0123456789abcdef"))
    with pytest.raises(UserError, match=rf"probe 0123456789abcdef, here {probe(CFG)}"):
        check(root, CFG)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "no manifest": (lambda root: (root / "manifest.json").unlink(), "holds no complete index"),
    "half a manifest": (lambda root: (root / "manifest.json").write_text('{"version": 1, "du'), "cannot be read"),
    "a list": (lambda root: (root / "manifest.json").write_text("[]"), "format version None, this program reads 1"),
    "a later version": (lambda root: _edit(root / "manifest.json", version=2), "format version 2, this program reads 1"),
    "a field more": (lambda root: _edit(root / "manifest.json", more=1), "does not hold the fields"),
    "edited": (lambda root: _edit(root / "manifest.json", dump="mine"), "was changed after it was written"),
    "a file missing": (lambda root: next(root.glob("keys/*")).unlink(), "No such file or directory; the index is not whole"),
    "a file cut": (lambda root: _cut(next(root.glob("documents/*"))), "the manifest says"),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_half_written_index_is_refused(root: Path, damage: str) -> None:
    act, message = DAMAGE[damage]
    act(root)
    with pytest.raises(UserError, match=message):
        check(root, CFG)
    with pytest.raises(UserError, match=message):
        verify(root)


@pytest.mark.parametrize("folder", ["keys", "documents"])
def test_a_turned_bit_is_found(root: Path, folder: str) -> None:
    path = next(root.glob(f"{folder}/*"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"1 of \d files of the index are bad(.|\n)*{path.name}: sha256 is"):
        verify(root)


def test_a_damaged_packedis_never_taken_for_one(root: Path) -> None:
    path = root / documents_name(0)
    data, frame = bytearray(path.read_bytes()), compressed([TEXTS["long"]])[0]
    data[data.index(frame) + len(frame) // 2] ^= 1
    path.write_bytes(data)
    index = Index(root)
    assert index.text(0) == TEXTS["a"]
    with pytest.raises(UserError, match=r"is damaged: there is no sound document at \(0, 0, 2\)"):
        index.text(2)


@pytest.mark.parametrize("place", [4, pack_place(0, 1, 0), pack_place(1, 0, 0)])
def test_a_place_without_a_document_is_an_error(root: Path, place: int) -> None:
    with pytest.raises(UserError, match="there is no sound document at"):
        Index(root).text(place)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Any:
        yield document("a", "one two")
        raise RuntimeError("the task is killed")

    with pytest.raises(RuntimeError, match="killed"), Writing(tmp_path, documents_name(0)) as out:
        list(write_documents(out, 0, rows()))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_what_a_killed_run_left_is_removed(root: Path) -> None:
    (root / "keys" / ".00007.keys.0123.tmp").write_bytes(b"half")
    (root / "keys" / "00009.keys").write_bytes(b"stale")
    write_manifest(root, read_manifest(root))
    assert {p.relative_to(root).as_posix() for p in root.glob("*/*")} == {f.path for f in verify(root).files}


def test_the_columns_are_what_a_reader_of_arrow_sees(root: Path) -> None:
    with pa.memory_map(str(root / documents_name(0))) as file:
        assert pa.ipc.open_file(file).read_all().schema == DOCUMENTS


def test_config_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="target_bytes is 0"):
        IndexConfig(target_bytes=0)


def test_latest_holds_up_to_its_limit_and_at_least_the_newest() -> None:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key

    latest: Latest[str] = Latest(4, len)
    for key in ("aa", "bb", "aa", "cc", "aa", "bb", "much more", "aa"):
        assert latest.get(key, make) == key
    assert made == ["aa", "bb", "cc", "bb", "much more", "aa"]
