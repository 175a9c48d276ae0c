"""The shard format: what is written is read back by position, and damage is named."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipelines.shards
from pipelines.shards import (
    Manifest,
    ShardError,
    Shards,
    TokenStream,
    is_validation,
    order_key,
    read_manifest,
    verify,
    write_manifest,
    write_shard,
)

EOS, VOCABULARY, SEED = 0, 50_000, 7


def documents(count: int, seed: int = 0, longest: int = 40) -> dict[bytes, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = sorted((rng.bytes(16) for _ in range(count)), key=lambda i: (order_key(SEED, i), i))
    return {i: np.append(rng.integers(1, VOCABULARY, rng.integers(0, longest)), EOS) for i in ids}


def write(root: Path, docs: dict[bytes, np.ndarray], files: int = 3, dtype: str = "uint16") -> Manifest:
    items, written = list(docs.items()), []
    for index in range(files):
        part = items[index * len(items) // files : (index + 1) * len(items) // files]
        written.append(write_shard(root, "web", "train", index, (i for i, _ in part), (t for _, t in part), dtype))
    held_out = write_shard(root, "web", "validation", 0, [b"v" * 16], [[5, EOS]], dtype)
    manifest = Manifest(1, dtype, VOCABULARY, EOS, "t" * 64, "demo", "f" * 12, (*written, held_out), SEED)
    write_manifest(root, manifest)
    return manifest


@pytest.fixture(scope="module")
def docs() -> dict[bytes, np.ndarray]:
    return documents(500)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, docs: dict[bytes, np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.shards, "BATCH_TOKENS", 512)  # so that slices cross record batches as well as files
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
    keys = "version dtype vocab_size eos_id tokenizer_sha256 recipe recipe_fingerprint files seed fingerprint"
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


def test_a_stream_travels_to_another_process(stream: TokenStream) -> None:
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(stream)).slice(3, 99), stream.slice(3, 99))


def test_more_files_than_are_held_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docs: dict[bytes, np.ndarray]) -> None:
    monkeypatch.setattr(pipelines.shards, "OPEN_FILES", 2)
    write(tmp_path, docs, files=9)
    stream = Shards(tmp_path).stream("web")
    held = [stream.slice(i * 1000, 50) for i in range(9)]
    flat = np.concatenate(list(docs.values()))
    for i, view in enumerate(held):
        np.testing.assert_array_equal(view, flat[i * 1000 : i * 1000 + 50])


def test_roles_lie_beside_the_tokens(tmp_path: Path) -> None:
    file = write_shard(tmp_path, "chat", "train", 0, [b"a" * 16, b"b" * 16], [[7, 8, 0], [9, 0]], "uint32", [[0, 1, 1], [2, 1]])
    write_manifest(tmp_path, Manifest(1, "uint32", 10, 0, "t", "chat", "f", (file,)))
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


def flip(root: Path) -> None:
    data = bytearray((root / FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (root / FILE).write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "sha256 is"),
        (lambda root: (root / FILE).write_bytes((root / FILE).read_bytes()[:-100]), "sha256 is"),
        (lambda root: (root / FILE).unlink(), "No such file"),
    ],
)
def test_verify_names_a_damaged_file(tmp_path: Path, docs: dict[bytes, np.ndarray], damage: object, message: str) -> None:
    write(tmp_path, docs)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(ShardError, match=rf"1 of 4 shard files are bad(?s:.*){FILE}: {message}"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("file", "manifest", "message"),
    [
        ({"rows": 9}, {}, "tokens, the manifest says 9 and"),
        ({"tokens": 9}, {}, "the manifest says 166 and 9|the manifest says 167 and 9"),
        ({}, {"vocab_size": 100}, "holds id 4[0-9]{4}, the vocabulary has 100"),
        ({}, {"eos_id": 3}, r"row 0 does not end in eos \(3\)"),
        ({}, {"dtype": "uint32"}, r"has columns doc_id: binary, tokens: list<item: uint16>"),
        ({}, {"seed": 8}, r"breaks the keyed order \(seed 8\)"),
        ({}, {"eos_id": VOCABULARY}, "do not go together"),
        ({}, {"dtype": "int64"}, "do not go together"),
    ],
)
def test_verify_names_what_the_manifest_gets_wrong(
    tmp_path: Path, docs: dict[bytes, np.ndarray], file: dict[str, int], manifest: dict[str, object], message: str
) -> None:
    right = write(tmp_path, docs)
    files = tuple(dataclasses.replace(f, **file) if f.path == FILE else f for f in right.files)
    write_manifest(tmp_path, dataclasses.replace(right, files=files, **manifest))  # type: ignore[arg-type]
    with pytest.raises(ShardError, match=message):
        verify(tmp_path)


def test_a_reader_refuses_a_file_cut_short(tmp_path: Path, docs: dict[bytes, np.ndarray]) -> None:
    write(tmp_path, docs)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-100])
    stream = Shards(tmp_path).stream("web")
    with pytest.raises(ShardError, match=rf"{FILE}: cannot be read as Arrow IPC"):
        stream.slice(0, stream.n_tokens)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no complete shards"),
        ("{", "is not JSON"),
        ("[]", "format version None"),
        ('{"version": 99}', "format version 99, this program reads 1"),
        ('{"version": 1, "files": []}', "does not hold the fields version, dtype"),
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
