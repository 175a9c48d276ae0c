"""Shards on Spark: every document once, in keyed order, the same bytes on any partitioning, no trace of a killed run."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import UserError
from pipelines.shards import Manifest, Shards, is_validation, verify
from pipelines.tokens.encode import EncodeConfig, TokenizerInfo, encode_texts, tokenizer_info
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer
from pipelines.tokens.write import ShardConfig, write_shards

CFG = ShardConfig(target_bytes=4_000, validation_share=0.1, seed=2)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TokenizerInfo:
    folder = tmp_path_factory.mktemp("tokenizer")
    save(train_tokenizer(["the water turns the wheel \u6c34\u5230\u6e20\u6210 " * 5], TokenizerConfig(vocab_size=300)), folder)
    return tokenizer_info(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def documents() -> pa.Table:
    rng = random.Random(1)
    words = ["the", "water", "turns", "wheel", "\u6c34", "<|endoftext|>", "\U0001f600", "\x00", "\r\n"]
    rows = []
    for i in range(300):
        text = " ".join(rng.choices(words, k=rng.randint(0, 40)))
        rows.append(
            {"doc_id": rng.randbytes(16), "source": rng.choice(["web", "web", "code"]), "lang": None, "text": text, "i": i}
        )
    rows.append({"doc_id": b"b" * 16, "source": "web", "lang": "en", "text": "water " * 3_000, "i": 300})
    rows.append({"doc_id": b"s" * 16, "source": "single", "lang": "en", "text": "one", "i": 301})
    return pa.Table.from_pylist(rows)


def write(spark: Any, documents: pa.Table, root: Path, tokenizer: TokenizerInfo, partitions: int) -> Manifest:
    rows = documents.take(random.Random(partitions).sample(range(documents.num_rows), documents.num_rows))
    df = spark.createDataFrame(rows).repartition(partitions)
    return write_shards(df, CFG, root, tokenizer, "demo", "f" * 12)


@pytest.fixture(scope="module")
def written(spark: Any, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write(spark, documents, root, tokenizer, 3)
    return root


@pytest.mark.spark
def test_every_document_lies_in_one_shard_with_its_ids(written: Path, documents: pa.Table, tokenizer: TokenizerInfo) -> None:
    manifest = verify(written)  # sha256, counts, eos, vocabulary, keyed order
    assert (manifest.recipe, manifest.recipe_fingerprint, manifest.tokenizer_sha256) == ("demo", "f" * 12, tokenizer.sha256)
    shards, cfg = Shards(written), EncodeConfig(tokenizer.path, tokenizer.sha256)
    rows = documents.to_pylist()
    for row, ids in zip(rows, encode_texts([r["text"] for r in rows], cfg), strict=True):
        split = "validation" if is_validation(CFG.seed, row["doc_id"], CFG.validation_share) else "train"
        stream = shards.stream(row["source"], split)
        place = stream.locate(row["doc_id"])
        assert place is not None, row
        np.testing.assert_array_equal(stream.slice(*place), ids)
    assert sum(f.rows for f in manifest.files) == len(rows)
    assert 15 < sum(f.rows for f in manifest.files if f.split == "validation") < 50


@pytest.mark.spark
def test_a_source_has_as_many_shards_as_its_tokens_ask_for(written: Path) -> None:
    manifest = verify(written)
    for source, tokens in manifest.source_tokens().items():
        files = [f.path for f in manifest.files if f.source == source and f.split == "train"]
        wanted = -(-tokens * 2 // CFG.target_bytes)  # two bytes an id
        assert files == [f"{source}/train-{i:05d}.arrow" for i in range(wanted)]
    assert len(manifest.files) > 6


@pytest.mark.spark
@pytest.mark.parametrize("partitions", [1, 13])
def test_any_partitioning_gives_the_same_bytes(
    spark: Any, written: Path, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path: Path, partitions: int
) -> None:
    assert write(spark, documents, tmp_path, tokenizer, partitions).files == verify(written).files


@pytest.mark.spark
def test_what_a_killed_run_left_is_removed(spark: Any, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "gone").mkdir()
    for name in ("web/train-00999.arrow", "web/.train-00000.arrow.77.tmp", "gone/train-00000.arrow", "web/train-00000.arrow"):
        (tmp_path / name).write_bytes(b"half")
    manifest = write(spark, documents, tmp_path, tokenizer, 2)
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"manifest.json", *(f.path for f in manifest.files)}
    assert not (tmp_path / "gone").exists()
    verify(tmp_path)


@pytest.mark.spark
def test_nothing_to_write(spark: Any, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no documents to write"):
        write_shards(spark.createDataFrame(documents).where("i < 0"), CFG, tmp_path, tokenizer, "demo", "f")
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("wrong", [{"target_bytes": 0}, {"validation_share": 1.0}, {"validation_share": -0.1}])
def test_a_config_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ShardConfig(**wrong)
