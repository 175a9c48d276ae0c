"""The sample, and so the bytes of tokenizer.json, is a function of the documents alone."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.errors import UserError
from pipelines.tokens.fit import fit
from pipelines.tokens.sample import sample_documents, share_out
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer

TEXTS = [
    "The mill turns when the water comes, and the water comes when the gate is open.\n" * 3,
    "def turn(wheel: int) -> int:\n    return wheel + 1  # 12345\n" * 3,
    "\u6c34\u5230\u6e20\u6210\uff0c\u6c34\u8f66\u8f6c\u52a8\u3002" * 5,
]


@pytest.mark.parametrize(
    ("sizes", "total", "temperature", "expected"),
    [
        ({"a": 100, "b": 100}, 100, 1.0, {"a": 50, "b": 50}),
        ({"a": 900, "b": 100}, 100, 1.0, {"a": 90, "b": 10}),
        ({"a": 900, "b": 100}, 100, 0.0, {"a": 50, "b": 50}),
        ({"a": 900, "b": 100}, 400, 0.5, {"a": 300, "b": 100}),
        ({"a": 900, "b": 10}, 400, 0.0, {"a": 390, "b": 10}),  # what b cannot give, a does
        ({"a": 9, "b": 1}, 100, 0.5, {"a": 9, "b": 1}),
    ],
)
def test_a_sample_is_shared_out(sizes: dict[str, int], total: int, temperature: float, expected: dict[str, int]) -> None:
    assert share_out(sizes, total, temperature) == expected


def corpus(count: int = 400) -> pa.Table:
    rng = random.Random(5)
    rows = []
    for i in range(count):
        source, lang = rng.choice([("web", "en"), ("web", "zh"), ("code", None)])
        words = rng.choices(TEXTS[{"en": 0, "zh": 2}.get(lang or "", 1)].split(), k=rng.randint(1, 60))
        rows.append({"doc_id": i.to_bytes(16, "big"), "source": source, "lang": lang, "text": " ".join(words) + f" {i}"})
    rows += [{"doc_id": b"e" * 16, "source": "web", "lang": "en", "text": ""}]
    rows += [{"doc_id": b"l" * 16, "source": "code", "lang": None, "text": "\u6c34" * 5_000}]
    return pa.Table.from_pylist(rows)


@pytest.mark.spark
def test_the_sample_is_the_same_for_any_partitioning(spark: Any, tmp_path: Path) -> None:
    save(train_tokenizer(TEXTS[:1], TokenizerConfig(vocab_size=300, preset="gpt2")), tmp_path)
    base = str(tmp_path / "tokenizer.json")
    cfg = TokenizerConfig(vocab_size=400, sample_bytes=20_000, max_document_bytes=1_000, seed=3)
    extension = replace(cfg, base=base, extra=40, extend_on=("zh", "code"), guard="sample")
    table, shas = corpus(), set()
    samples = []
    for partitions in (1, 3, 13):
        rows = table.take(random.Random(partitions).sample(range(table.num_rows), table.num_rows))
        sample = sample_documents(spark.createDataFrame(rows).repartition(partitions), cfg)
        samples.append(sample)
        shas |= {save(fit(sample, used)[0], tmp_path / str(partitions)) for used in (cfg, extension)}
    assert samples[0] == samples[1] == samples[2]
    assert len(shas) == 2  # of the trained one, and of the extended one
    texts = samples[0].column("text").to_pylist()
    sizes = [len(t.encode()) for t in texts]
    assert 15_000 < sum(sizes) < 23_000
    assert max(sizes) <= 1_000
    assert "" not in texts
    strata = {(r["source"], r["lang"]) for r in samples[0].to_pylist()}
    assert strata == {("web", "en"), ("web", "zh"), ("code", "")}
    other = sample_documents(spark.createDataFrame(table), TokenizerConfig(sample_bytes=20_000, seed=4))
    assert other.column("text").to_pylist() != texts


@pytest.mark.spark
def test_a_corpus_smaller_than_the_sample_is_taken_whole(spark: Any) -> None:
    table = corpus()
    sample = sample_documents(spark.createDataFrame(table), TokenizerConfig(max_document_bytes=1 << 20))
    assert sorted(sample.column("text").to_pylist()) == sorted(t for t in table.column("text").to_pylist() if t)


@pytest.mark.spark
def test_nothing_to_train_on(spark: Any) -> None:
    with pytest.raises(UserError, match="no text to train a tokenizer on"):
        sample_documents(spark.createDataFrame(corpus().slice(400, 1)), TokenizerConfig())
