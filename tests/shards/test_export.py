"""Exports, each read back by the other side's own reader; and shards read as they are."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.__main__ import main
from pipelines.errors import UserError
from pipelines.shards import VERSION, Manifest, ShardError, Shards, order_key, write_manifest, write_shard
from pipelines.shards import write as shard_files
from pipelines.shards.export import FORMATS, Written, export
from pipelines.shards.tombstones import TOMBSTONES, publish_tombstones

EOS = 1


@dataclass(frozen=True)
class Made:
    root: Path
    kept: dict[str, list[tuple[bytes, list[int]]]]  # per source, in the order of the stream
    gone: dict[str, int]

    def tokens(self, source: str) -> list[int]:
        return [token for _, document in self.kept[source] for token in document]


@pytest.fixture(scope="module", params=["uint16", "uint32"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two sources, three files each, of several record batches; of `web` a third was taken down, its last file wholly."""
    root, random = tmp_path_factory.mktemp("made") / "shards", np.random.default_rng(0)
    vocab = 60_000 if request.param == "uint16" else 130_000
    files, documents, gone = [], dict[str, list[tuple[bytes, list[int]]]](), set[bytes]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_files, "BATCH_TOKENS", 200)
        for source in ("web", "code"):
            rows = []
            for number in range(90):
                doc_id = hashlib.blake2b(f"{source}{number}".encode(), digest_size=16).digest()
                rows.append((order_key(7, doc_id), doc_id, [*random.integers(2, vocab, random.integers(1, 60)).tolist(), EOS]))
            rows.sort()
            documents[source] = [(doc_id, tokens) for _, doc_id, tokens in rows]
            for index in range(3):
                part = documents[source][30 * index : 30 * index + 30]
                files.append(write_shard(root, source, "train", index, *zip(*part, strict=True), request.param))  # type: ignore[call-arg]
    tokenizer = hashlib.sha256(b"tokenizer").hexdigest()
    manifest = Manifest(VERSION, request.param, vocab, EOS, tokenizer, "made", "0" * 12, tuple(files), 7)
    write_manifest(root, manifest)
    stones = []
    for file, chosen in ((files[0], [0, 3, 4, 5, 29]), (files[2], range(30))):
        starts, lengths = Shards(root).stream("web").places(file.path, np.array(chosen))
        for row, start, length in zip(chosen, starts.tolist(), lengths.tolist(), strict=True):
            doc_id = documents["web"][files.index(file) * 30 + row][0]
            stones.append(("web", "train", start, length, doc_id, file.path, row, "asked"))
            gone.add(doc_id)
    publish_tombstones(
        root, manifest, pa.table(dict(zip(TOMBSTONES.names, zip(*stones, strict=True), strict=True)), TOMBSTONES)
    )
    kept = {source: [d for d in some if d[0] not in gone] for source, some in documents.items()}
    return Made(root, kept, {source: len(some) - len(kept[source]) for source, some in documents.items()})


def check(made: Made, written: list[Written]) -> None:
    assert [(w.source, w.documents, w.left_out, w.tokens) for w in written] == [
        (source, len(kept), made.gone[source], len(made.tokens(source))) for source, kept in made.kept.items()
    ]
    assert made.gone == {"web": 35, "code": 0}
    assert all(path.is_file() for w in written for path in w.files)


def test_megatron_reads_its_files(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed")
    monkeypatch.setattr("pipelines.shards.export.CHUNK", 7)
    check(made, export(made.root, tmp_path / "out", "megatron"))
    assert len(list((tmp_path / "out").iterdir())) == 4
    for source, kept in made.kept.items():
        read = megatron.IndexedDataset(str(tmp_path / "out" / f"{source}-train"))
        assert [read[i].tolist() for i in range(len(read))] == [tokens for _, tokens in kept]
        assert read.sequence_lengths.tolist() == [len(tokens) for _, tokens in kept]
        assert read.document_indices.tolist() == list(range(len(kept) + 1))
        assert read[0].dtype == (np.uint16 if Shards(made.root).manifest.dtype == "uint16" else np.int32)


def test_datatrove_reads_what_nanotron_takes(made: Made, tmp_path: Path) -> None:
    datatrove = pytest.importorskip("datatrove.utils.dataset", reason="datatrove is not installed")
    check(made, export(made.root, tmp_path / "out", "nanotron"))
    size = np.dtype(Shards(made.root).manifest.dtype).itemsize
    for source, files in (("web", 2), ("code", 3)):
        folder = tmp_path / "out" / source
        names = [f"train-{number:05d}.ds" for number in range(files)]
        assert sorted(p.name for p in folder.iterdir()) == sorted(n + e for n in names for e in ("", ".index", ".metadata"))
        assert len(datatrove.DatatroveFolderDataset(str(folder), 9, "*.ds", token_size=size)) > 10
        found, ends = list[int](), list[int]()
        for name in names:
            whole = datatrove.DatatroveFileDataset(str(folder / name), 0, token_size=size)
            tokens = [int(whole[i]["input_ids"]) for i in range(len(whole))]
            ends += [len(found) + end for end in np.fromfile(folder / f"{name}.index", np.uint64).tolist()]
            found += tokens
            about = (folder / f"{name}.metadata").read_text().split("\n")
            assert about[:2] == [f"{Shards(made.root).manifest.tokenizer_sha256}|{size}", str(len(tokens))]
        assert found == made.tokens(source)
        assert ends == np.cumsum([len(tokens) for _, tokens in made.kept[source]]).tolist()


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("datasets", reason="datasets is not installed")
    module.disable_progress_bars()
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return module


def test_datasets_reads_its_folder_with_a_config_for_each_source(made: Made, tmp_path: Path, datasets: Any) -> None:
    check(made, export(made.root, tmp_path / "out", "huggingface"))
    assert sorted(datasets.get_dataset_config_names(str(tmp_path / "out"))) == ["code", "web"]
    for source, kept in made.kept.items():
        for streaming in (False, True):
            read = datasets.load_dataset(str(tmp_path / "out"), source, split="train", streaming=streaming)
            assert [(row["doc_id"], row["input_ids"]) for row in read] == kept
    groups = pq.ParquetFile(tmp_path / "out" / "code" / "train-00000.parquet").num_row_groups
    assert groups > 2  # a record batch at a time, not a file


def by_pyarrow(path: Path) -> list[tuple[bytes, list[int]]]:
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return list(zip(table["doc_id"].to_pylist(), table["tokens"].to_pylist(), strict=True))


def by_polars(path: Path) -> list[tuple[bytes, list[int]]]:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    table = polars.read_ipc(path)
    return list(zip(table["doc_id"].to_list(), table["tokens"].to_list(), strict=True))


def by_datasets(path: Path) -> list[tuple[bytes, list[int]]]:
    module = pytest.importorskip("datasets", reason="datasets is not installed")
    read = module.load_dataset("arrow", data_files=[str(path)], split="train")
    return [(row["doc_id"], row["tokens"]) for row in read]


@pytest.mark.parametrize("read", [by_pyarrow, by_polars, by_datasets])
def test_a_shard_is_read_as_it_is(
    made: Made, read: Callable[[Path], list[tuple[bytes, list[int]]]], request: pytest.FixtureRequest
) -> None:
    if read is by_datasets:
        request.getfixturevalue("datasets")
    assert read(made.root / "code" / "train-00001.arrow") == made.kept["code"][30:60]


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_an_export_is_whole_or_not_there(made: Made, tmp_path: Path, to: str) -> None:
    root = tmp_path / "shards"
    for file in Shards(made.root).manifest.files:
        (root / file.path).parent.mkdir(parents=True, exist_ok=True)
        (root / file.path).write_bytes((made.root / file.path).read_bytes())
    for path in (*made.root.glob("*.json"), *made.root.glob("*.parquet")):
        (root / path.name).write_bytes(path.read_bytes())
    whole = export(root, tmp_path / "a", to, ["code"])
    again = export(root, tmp_path / "b", to, ["code"])
    assert [p.read_bytes() for w in whole for p in w.files] == [p.read_bytes() for w in again for p in w.files]
    cut = root / "code" / "train-00002.arrow"
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ShardError, match=r"train-00002\.arrow"):
        export(root, tmp_path / "out", to)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "shards"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "test"], "no split 'test'; --split takes one that they have: train"),
        (["--source", "books"], "has no source 'books' in split 'train'; it has web, code"),
    ],
)
def test_what_is_not_there_is_named(
    made: Made, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(made.root), str(tmp_path / "out"), "--to", "megatron", *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match="is there already and not empty; name a new folder"):
        export(made.root, tmp_path, "megatron")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("to", "way"),
    [
        ("megatron", "--data-path {out}/web-train"),
        ("nanotron", "DatatroveFolderDataset('{out}/web', seq_len, '*.ds', token_size="),
        ("huggingface", "load_dataset('{out}', 'web', split='train')"),
    ],
)
def test_the_command_says_how_the_other_side_reads_it(
    made: Made, tmp_path: Path, to: str, way: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(made.root), "out", "--to", to, "--source", "web"]) == 0
    printed = capsys.readouterr().out
    assert way.format(out="out") in printed
    assert "35" in printed  # taken down
    assert "ends in eos, id 1" in printed
