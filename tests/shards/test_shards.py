"""The shard format: what is written is read back by position, and damage is named."""

import dataclasses
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipelines.shards
import pipelines.shards.stream
from pipelines.shards import (
    VERSION,
    Manifest,
    Order,
    ShardError,
    Shards,
    TokenStream,
    is_validation,
    order_key,
    read_manifest,
    write_manifest,
    write_shard,
)
from pipelines.shards.tombstones import TOMBSTONES, publish_tombstones
from pipelines.shards.verify import verify

EOS, VOCABULARY, SEED = 0, 50_000, 7
HELD_OUT = next(i for n in range(10**6) if is_validation(SEED, i := n.to_bytes(16, "big"), 1e-4))


def documents(count: int, seed: int = 0, longest: int = 40) -> dict[bytes, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = sorted((rng.bytes(16) for _ in range(count)), key=lambda i: (order_key(SEED, i), i))
    return {i: np.append(rng.integers(1, VOCABULARY, rng.integers(0, longest)), EOS) for i in ids}


def write(root: Path, docs: dict[bytes, np.ndarray], files: int = 3, dtype: str = "uint16") -> Manifest:
    items, written = list(docs.items()), []
    for index in range(files):
        part = items[index * len(items) // files : (index + 1) * len(items) // files]
        written.append(write_shard(root, "web", "train", index, (i for i, _ in part), (t for _, t in part), dtype))
    held_out = write_shard(root, "web", "validation", 0, [HELD_OUT], [[5, EOS]], dtype)
    manifest = Manifest(VERSION, dtype, VOCABULARY, EOS, "t" * 64, "demo", "f" * 12, (*written, held_out), SEED)
    write_manifest(root, manifest)
    return manifest


@pytest.fixture(scope="module")
def docs() -> dict[bytes, np.ndarray]:
    return documents(500)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, docs: dict[bytes, np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.shards.write, "BATCH_TOKENS", 512)  # so that slices cross record batches as well as files
        write(folder, docs)
    return folder


@pytest.fixture(scope="module")
def stream(root: Path) -> TokenStream:
    return Shards(root).stream("web")


def test_the_schema_is_pinned(root: Path) -> None:
    with pa.ipc.open_file(pa.memory_map(str(root / "web/train-00000.arrow"))) as reader:
        assert reader.schema == pa.schema([("doc_id", pa.binary()), ("tokens", pa.list_(pa.uint16()))])
        assert reader.schema.metadata is None
        assert reader.num_record_batches > 1
    keys = "version dtype vocab_size eos_id tokenizer_sha256 recipe recipe_fingerprint files seed orders takedowns fingerprint"
    assert list(json.loads((root / "manifest.json").read_text())) == keys.split()


def test_same_rows_same_bytes(tmp_path: Path, docs: dict[bytes, np.ndarray]) -> None:
    first, second = write(tmp_path / "a", docs), write(tmp_path / "b", docs)
    assert first == second
    assert [f.sha256 for f in first.files] == [f.sha256 for f in second.files]
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint == dataclasses.replace(first, recipe_fingerprint="g").fingerprint  # another recipe, the same bytes
    assert first.fingerprint != dataclasses.replace(first, vocab_size=60_000).fingerprint
    write(tmp_path / "a", docs)  # a retry over what is there
    assert verify(tmp_path / "a") == first
    assert {p.name for p in (tmp_path / "a/web").iterdir()} == {f.path.split("/")[1] for f in first.files}


def test_manifest_counts_tokens_per_source_and_split(root: Path, docs: dict[bytes, np.ndarray]) -> None:
    manifest = verify(root)
    assert manifest == read_manifest(root)
    assert manifest.source_tokens() == {"web": sum(map(len, docs.values()))}
    assert manifest.source_tokens("validation") == {"web": 2}


def test_stream_is_the_documents_one_after_the_other(stream: TokenStream, docs: dict[bytes, np.ndarray]) -> None:
    flat = np.concatenate(list(docs.values()))
    assert (stream.n_documents, stream.n_tokens) == (500, len(flat))
    assert stream.slice(0, stream.n_tokens).dtype == np.uint16
    np.testing.assert_array_equal(stream.slice(0, stream.n_tokens), flat)
    assert stream.slice(5, 0).shape == (0,)


def test_a_slice_inside_a_record_batch_is_no_copy(stream: TokenStream) -> None:
    view = stream.slice(10, 20)
    assert not view.flags.writeable
    assert not view.flags.owndata


@settings(max_examples=200, deadline=None)
@given(start=st.integers(0, 30_000), length=st.integers(1, 25_000))
def test_slice_documents_and_starts_agree_with_the_flat_stream(
    stream: TokenStream, docs: dict[bytes, np.ndarray], start: int, length: int
) -> None:
    flat = np.concatenate(list(docs.values()))
    begins = set(np.cumsum([0, *map(len, docs.values())])[:-1].tolist())
    at = np.arange(start, start + length) % len(flat)
    np.testing.assert_array_equal(stream.slice(start, length), flat[at])
    spans = stream.documents(start, length)
    np.testing.assert_array_equal(np.concatenate([docs[s.doc_id][s.start : s.start + s.length] for s in spans]), flat[at])
    expected = [i for i, position in enumerate(at.tolist()) if i == 0 or position in begins]
    assert stream.document_starts(start, length).tolist() == expected
    assert np.cumsum([0, *(s.length for s in spans)])[:-1].tolist() == expected


def test_spans_name_file_and_row(root: Path, stream: TokenStream) -> None:
    for span in stream.documents(0, stream.n_tokens)[::37]:
        with pa.ipc.open_file(pa.memory_map(str(root / span.file))) as reader:
            assert reader.read_all().column("doc_id")[span.row].as_py() == span.doc_id


def test_locate_finds_every_document_and_no_other(stream: TokenStream, docs: dict[bytes, np.ndarray]) -> None:
    for doc_id, tokens in docs.items():
        start, length = stream.locate(doc_id) or (-1, -1)
        np.testing.assert_array_equal(stream.slice(start, length), tokens)
    assert stream.locate(b"\x00" * 16) is None
    assert stream.locate(b"\xff" * 16) is None


def test_rows_of_a_file_are_places_in_the_stream(stream: TokenStream, docs: dict[bytes, np.ndarray]) -> None:
    ids = list(docs)
    for span in stream.documents(0, stream.n_tokens)[::41]:
        (start,), (length,) = (array.tolist() for array in stream.places(span.file, [span.row]))
        assert (start, length) == stream.locate(span.doc_id) == (start, len(docs[span.doc_id]))
    starts, lengths = stream.places("web/train-00000.arrow", np.array([5, 2]))
    assert lengths.tolist() == [len(docs[ids[5]]), len(docs[ids[2]])]
    assert starts.tolist() == [sum(len(docs[i]) for i in ids[:row]) for row in (5, 2)]
    for file, row in (("web/train-00000.arrow", 10_000), ("web/train-00009.arrow", 0)):
        with pytest.raises(ShardError, match=rf"there are no rows \[{row}\] of '{file}'"):
            stream.places(file, [row])


def test_a_source_in_another_order_is_searched_by_its_column(tmp_path: Path, docs: dict[bytes, np.ndarray]) -> None:
    backwards = dict(reversed(list(docs.items())))
    manifest = write(tmp_path, backwards)
    write_manifest(tmp_path, dataclasses.replace(manifest, orders=(Order("web", "score", True, 8),)))
    stream = Shards(tmp_path).stream("web")
    for doc_id in list(docs)[::97]:
        start, length = stream.locate(doc_id) or (-1, -1)
        np.testing.assert_array_equal(stream.slice(start, length), docs[doc_id])
    assert stream.locate(b"\x00" * 16) is None


# --- tombstones ---------------------------------------------------------------------------------------------------------


def bury(root: Path, ids: list[bytes], source: str = "web", split: str = "train") -> Manifest:
    stream, rows = Shards(root).stream(source, split), []
    for doc_id in ids:
        start, length = stream.locate(doc_id) or (-1, -1)
        (span,) = stream.documents(start, 1)
        place = {"source": source, "split": split, "start": start, "length": length}
        rows.append(place | {"doc_id": doc_id, "file": span.file, "row": span.row, "reason": "test"})
    return publish_tombstones(root, read_manifest(root), pa.Table.from_pylist(rows, TOMBSTONES))


@pytest.fixture(scope="module")
def buried(tmp_path_factory: pytest.TempPathFactory, docs: dict[bytes, np.ndarray]) -> tuple[TokenStream, np.ndarray]:
    """The stream after two takedowns, neighbours and both ends among them; and where it has nothing any more."""
    root, ids = tmp_path_factory.mktemp("buried"), list(docs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.shards.write, "BATCH_TOKENS", 512)
        write(root, docs)
    gone = [ids[0], ids[-1], *ids[40:43], *ids[101::7]]
    bury(root, gone[4:])
    bury(root, gone[:4])
    where = np.concatenate([np.full(len(tokens), doc_id in gone) for doc_id, tokens in docs.items()])
    return Shards(root).stream("web"), where


@settings(max_examples=200, deadline=None)
@given(start=st.integers(0, 30_000), length=st.integers(0, 25_000))
def test_what_was_taken_down_reads_as_eos_and_nothing_moves(
    buried: tuple[TokenStream, np.ndarray], stream: TokenStream, start: int, length: int
) -> None:
    there, where = buried
    at = np.arange(start, start + length) % stream.n_tokens
    expected = stream.slice(start, length).copy()
    expected[where[at]] = EOS
    np.testing.assert_array_equal(there.slice(start, length), expected)
    inside = np.zeros(length, bool)
    gaps = there.gaps(start, length)
    assert gaps.dtype == np.int64
    for low, high in gaps.tolist():
        assert not inside[low:high].any()
        assert low < high
        inside[low:high] = True
    np.testing.assert_array_equal(inside, where[at])
    assert (np.diff(gaps.ravel()) >= 0).all()
    assert there.documents(start, length) == stream.documents(start, length)
    np.testing.assert_array_equal(there.document_starts(start, length), stream.document_starts(start, length))


def test_a_buried_stream_travels_and_where_nothing_is_gone_nothing_is_copied(
    buried: tuple[TokenStream, np.ndarray], stream: TokenStream
) -> None:
    there, where = buried
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(there)).slice(0, 999), there.slice(0, 999))
    start = int(np.flatnonzero(~where & np.roll(~where, -1))[0])
    assert not there.slice(start, 2).flags.owndata
    assert stream.gaps(0, 100).shape == (0, 2)


def test_a_takedown_is_another_fingerprint_that_descends_from_the_one_before(
    tmp_path: Path, docs: dict[bytes, np.ndarray]
) -> None:
    first, ids = write(tmp_path, docs), list(docs)
    second, third = bury(tmp_path, ids[3:5]), bury(tmp_path, ids[:2])
    assert read_manifest(tmp_path) == third
    assert third.lineage == (first.fingerprint, second.fingerprint, third.fingerprint)
    assert len(set(third.lineage)) == 3
    assert [t.rows for t in third.takedowns] == [2, 4]
    assert [t.before for t in third.takedowns] == [first.fingerprint, second.fingerprint]
    verify(tmp_path)
    last = bury(tmp_path, ids[9:10])
    assert {p.name for p in tmp_path.glob("tomb*")} == {t.path for t in last.takedowns[-2:]}  # one may be being read
    verify(tmp_path)


def test_tombstones_twice_are_refused_and_nothing_is_written(tmp_path: Path, docs: dict[bytes, np.ndarray]) -> None:
    write(tmp_path, docs)
    manifest, ids = bury(tmp_path, list(docs)[:3]), list(docs)
    with pytest.raises(ShardError, match="tombstones of source 'web', split 'train' overlap"):
        bury(tmp_path, ids[2:4])
    assert verify(tmp_path) == manifest


def test_provenance_is_no_part_of_the_fingerprint_and_orders_are(tmp_path: Path, docs: dict[bytes, np.ndarray]) -> None:
    first = write(tmp_path, docs)
    told = dataclasses.replace(first, files=tuple(dataclasses.replace(f, provenance="p" * 64) for f in first.files))
    assert told.fingerprint == first.fingerprint
    ordered = dataclasses.replace(first, orders=(Order("web", "score", True, 8),))
    assert ordered.fingerprint != first.fingerprint
    write_manifest(tmp_path, dataclasses.replace(told, orders=ordered.orders))
    assert read_manifest(tmp_path) == dataclasses.replace(told, orders=ordered.orders)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing: the documents that it takes down would be read again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "was changed after it was written: sha256 is"),
        (lambda path: path.write_bytes(b""), "was changed after it was written: sha256 is"),
    ],
)
def test_tombstones_that_cannot_be_trusted_are_refused_before_a_token_is_read(
    tmp_path: Path, docs: dict[bytes, np.ndarray], damage: Callable[[Path], object], message: str
) -> None:
    write(tmp_path, docs)
    damage(tmp_path / bury(tmp_path, list(docs)[:1]).takedowns[-1].path)
    with pytest.raises(ShardError, match=message):
        Shards(tmp_path)


def test_a_history_of_takedowns_that_was_edited_is_refused(tmp_path: Path, docs: dict[bytes, np.ndarray]) -> None:
    write(tmp_path, docs)
    manifest = bury(tmp_path, list(docs)[:1])
    write_manifest(
        tmp_path, dataclasses.replace(manifest, takedowns=(dataclasses.replace(manifest.takedowns[0], before="0" * 64),))
    )
    with pytest.raises(ShardError, match="was changed after it was written: a takedown was of 000"):
        read_manifest(tmp_path)


def test_a_stream_travels_to_another_process(stream: TokenStream) -> None:
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stream)).slice(3, 99), stream.slice(3, 99))


def test_more_files_than_are_held_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docs: dict[bytes, np.ndarray]) -> None:
    monkeypatch.setattr(pipelines.shards.stream, "OPEN_FILES", 2)
    write(tmp_path, docs, files=9)
    stream = Shards(tmp_path).stream("web")
    held = [stream.slice(i * 1000, 50) for i in range(9)]
    flat = np.concatenate(list(docs.values()))
    for i, view in enumerate(held):
        np.testing.assert_array_equal(view, flat[i * 1000 : i * 1000 + 50])


def test_roles_lie_beside_the_tokens(tmp_path: Path) -> None:
    file = write_shard(tmp_path, "chat", "train", 0, [b"a" * 16, b"b" * 16], [[7, 8, 0], [9, 0]], "uint32", [[0, 1, 1], [2, 1]])
    write_manifest(tmp_path, Manifest(VERSION, "uint32", 10, 0, "t", "chat", "f", (file,)))
    verify(tmp_path)
    stream = Shards(tmp_path).stream("chat")
    assert stream.slice(1, 4).tolist() == [8, 0, 9, 0]
    assert stream.roles(1, 4).tolist() == [1, 1, 2, 1]


def test_roles_of_shards_without_them(stream: TokenStream) -> None:
    with pytest.raises(ShardError, match=r"web/train-00000\.arrow has no column 'roles'"):
        stream.roles(0, 5)


@pytest.mark.parametrize(
    ("doc_id", "tokens", "message"),
    [
        (b"short", [1, 0], "row 0: a doc_id of 5 bytes"),
        (b"i" * 16, [], "0 tokens"),
        (b"i" * 16, [70_000, 0], "ids from 0 to 70000 do not fit uint16"),
        (b"i" * 16, [-1, 0], "ids from -1 to 0 do not fit uint16"),
    ],
)
def test_rows_that_cannot_be_written(tmp_path: Path, doc_id: bytes, tokens: list[int], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        write_shard(tmp_path, "web", "train", 0, [doc_id], [tokens], "uint16")
    assert list((tmp_path / "web").iterdir()) == []


@pytest.mark.parametrize("name", ["../web", "a/b", "", ".hidden"])
def test_a_source_that_is_no_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ShardError, match="cannot name a shard"):
        write_shard(tmp_path, name, "train", 0, [b"i" * 16], [[0]], "uint16")


def test_unknown_source(root: Path) -> None:
    with pytest.raises(ShardError, match="no source 'books' in split 'train'; it has web"):
        Shards(root).stream("books")


def test_the_readers_of_the_format_load_numpy_and_pyarrow_and_nothing_heavy() -> None:
    code = "import sys, pipelines.shards, pipelines.schedule; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert {"numpy", "pyarrow"} <= loaded
    assert loaded.isdisjoint({"pyspark", "torch", "tokenizers", "pandas", "numba", "trainer"})


# --- damage -------------------------------------------------------------------------------------------------------------

FILE = "web/train-00001.arrow"


def test_a_reader_refuses_a_file_cut_short(tmp_path: Path, docs: dict[bytes, np.ndarray]) -> None:
    write(tmp_path, docs)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-100])
    stream = Shards(tmp_path).stream("web")
    with pytest.raises(ShardError, match=rf"{FILE}: cannot be read as Arrow IPC"):
        stream.slice(0, stream.n_tokens)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cannot be read as Arrow IPC"),
        (lambda path: path.write_bytes(path.read_bytes()[:700] + b"!" + path.read_bytes()[701:]), "sha256 is"),
        (lambda path: path.unlink(), "No such file"),
    ],
)
def test_a_check_before_a_long_run_reads_small_shards(
    tmp_path: Path, docs: dict[bytes, np.ndarray], damage: Callable[[Path], object], message: str
) -> None:
    write(tmp_path, docs)
    Shards(tmp_path).check()
    damage(tmp_path / FILE)
    with pytest.raises(ShardError, match=rf"{FILE}: .*{message}"):
        Shards(tmp_path).check()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "was cut short, or is no Arrow IPC file"),
        (lambda path: path.write_bytes(path.read_bytes()[:100] + b"ARROW1"), r"was cut short, .* \(106 bytes\)"),
        (lambda path: path.unlink(), "No such file"),
    ],
)
def test_a_check_of_large_shards_looks_at_their_ends(
    tmp_path: Path,
    docs: dict[bytes, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    manifest = write(tmp_path, docs)
    write_manifest(
        tmp_path, dataclasses.replace(manifest, files=tuple(dataclasses.replace(f, sha256="0") for f in manifest.files))
    )
    monkeypatch.setattr(pipelines.shards.folder, "HASHED_BYTES", 1000)
    Shards(tmp_path).check()
    damage(tmp_path / FILE)
    with pytest.raises(ShardError, match=rf"{FILE}: .*{message}"):
        Shards(tmp_path).check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no complete shards"),
        ("{", "is not JSON"),
        ("[]", "format version None"),
        ('{"version": 99}', "format version 99, this program reads 2"),
        ('{"version": 2, "files": []}', "does not hold the fields version, dtype"),
    ],
)
def test_a_manifest_that_cannot_be_read(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ShardError, match=message):
        read_manifest(tmp_path)


def test_an_edited_manifest_is_refused(tmp_path: Path, docs: dict[bytes, np.ndarray]) -> None:
    write(tmp_path, docs)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"vocab_size": 50000', '"vocab_size": 60000'))
    with pytest.raises(ShardError, match="was changed after it was written"):
        read_manifest(tmp_path)


# --- the keyed hashes ---------------------------------------------------------------------------------------------------


def test_the_keyed_hashes_are_pinned() -> None:
    assert order_key(0, b"0123456789abcdef") == 7802447809563837509
    assert order_key(1, b"0123456789abcdef") != 7802447809563837509


def test_validation_share_is_met_and_independent_of_the_order() -> None:
    ids = [i.to_bytes(16, "big") for i in range(20_000)]
    held_out = [i for i in ids if is_validation(3, i, 0.1)]
    assert 1_850 < len(held_out) < 2_150
    assert 0.45 < np.mean([order_key(3, i) < 2**63 for i in held_out]) < 0.55
    assert set(held_out) <= {i for i in ids if is_validation(3, i, 0.2)}
    assert not any(is_validation(3, i, 0.0) for i in ids)
