"""Tokenizer training: the sample and the bytes of tokenizer.json are functions of the documents alone."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers

from pipelines.errors import UserError
from pipelines.tokens import train
from pipelines.tokens.train import (
    EOS,
    TokenizerConfig,
    byte_level,
    report,
    sample_documents,
    save,
    share_out,
    train_tokenizer,
)

TEXTS = [
    "The mill turns when the water comes, and the water comes when the gate is open.\n" * 3,
    "def turn(wheel: int) -> int:\n    return wheel + 1  # 12345\n" * 3,
    "\u6c34\u5230\u6e20\u6210\uff0c\u6c34\u8f66\u8f6c\u52a8\u3002" * 5,
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerConfig(vocab_size=400))


def split(preset: train.Preset, text: str) -> list[str]:
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in train._PATTERNS[preset]]
    digits = [pre_tokenizers.Digits(individual_digits=True)] if preset == "deepseek_llm" else []
    return [piece for piece, _ in pre_tokenizers.Sequence([*steps, *digits]).pre_tokenize_str(text)]  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("preset", "text", "pieces"),
    [
        ("gpt2", "Hello world's 12345!!  x\n", ["Hello", " world", "'s", " 12345", "!!", " ", " x", "\n"]),
        ("llama3", "I'LL pay $12345.\n\n  ok", ["I", "'LL", " pay", " $", "123", "45", ".\n\n", " ", " ok"]),
        ("deepseek_llm", "Year 2024\n\nx=1;", ["Year", " ", "2", "0", "2", "4", "\n", "\n", "x", "=", "1", ";"]),
        ("deepseek_llm", "it's \u4e2d\u6587\uff0c\u597d", ["it", "'", "s", " ", "\u4e2d\u6587", "\uff0c", "\u597d"]),
        ("deepseek_llm", "\u30ab\u30bf \ud55c\uad6d end ", ["\u30ab\u30bf", " ", "\ud55c\uad6d", " end", " "]),
        ("deepseek_llm", "\u041c\u0438\u0440 \u03c6\u03ce\u03c2", ["\u041c\u0438\u0440", " \u03c6\u03ce\u03c2"]),
    ],
)  # fmt: skip
def test_presets_split_as_published(preset: train.Preset, text: str, pieces: list[str]) -> None:
    assert split(preset, text) == pieces


def test_the_vocabulary_is_special_tokens_bytes_then_merges(tokenizer: Tokenizer) -> None:
    cfg = TokenizerConfig()
    assert [tokenizer.token_to_id(t) for t in cfg.special_tokens] == list(range(len(cfg.special_tokens)))
    assert cfg.special_tokens[0] == EOS
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(tokenizer.get_vocab())
    assert tokenizer.get_vocab_size() <= 400


@pytest.mark.parametrize("preset", ["deepseek_llm", "llama3", "gpt2"])
@settings(max_examples=150, deadline=None)
@given(text=st.text() | st.text(alphabet="ab1 \n\r\t.'\u4e2d\u3002\U0001f600\u0301\u200d"))
def test_every_text_comes_back(preset: train.Preset, text: str) -> None:
    assert (tokenizer := _trained(preset)).decode(tokenizer.encode(text).ids) == text


_made: dict[str, Tokenizer] = {}


def _trained(preset: train.Preset) -> Tokenizer:
    if preset not in _made:
        _made[preset] = train_tokenizer(TEXTS, TokenizerConfig(vocab_size=330, preset=preset))
        _made[preset].encode_special_tokens = True  # as the encode stage does
    return _made[preset]


def test_the_same_texts_give_the_same_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    first = save(tokenizer, tmp_path / "a")
    assert first == save(train_tokenizer(iter(TEXTS), TokenizerConfig(vocab_size=400)), tmp_path / "b")
    assert first == hashlib.sha256((tmp_path / "a/tokenizer.json").read_bytes()).hexdigest()
    again = Tokenizer.from_file(str(tmp_path / "a/tokenizer.json"))
    assert again.encode(TEXTS[1]).ids == tokenizer.encode(TEXTS[1]).ids


def test_a_given_vocabulary_is_merged_by_rank() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*alphabet, "he", "ll", "hell"])}
    ids = byte_level("gpt2", vocab, [("h", "e"), ("l", "l"), ("he", "ll")]).encode("hello").ids
    assert ids == [vocab["hell"], vocab["o"]]


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


@pytest.mark.parametrize(
    "wrong", [{"preset": "bert"}, {"vocab_size": 200}, {"temperature": 2.0}, {"sample_bytes": 0}, {"special_tokens": ()}]
)
def test_a_config_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"preset|vocab_size|temperature"):
        TokenizerConfig(**wrong)


def test_report_counts_by_hand(tokenizer: Tokenizer) -> None:
    rare = "\u9f98\u9750"  # not in the texts: bytes one by one
    table = pa.table({"source": ["web", "web", "zh"], "lang": ["en", "en", None], "text": ["the water", "gate", rare]})
    english, chinese = report(tokenizer, table)
    tokens = len(tokenizer.encode("the water").ids) + len(tokenizer.encode("gate").ids)
    assert (english.source, english.lang, english.documents, english.characters, english.words) == ("web", "en", 2, 13, 3)
    assert (english.tokens, english.byte_tokens) == (tokens, 0)
    assert english.fertility == tokens / 3
    assert (chinese.lang, chinese.bytes, chinese.tokens, chinese.byte_share) == ("", 6, 6, 1.0)
    assert (chinese.characters_per_token, chinese.bytes_per_token) == (1 / 3, 1.0)


# --- Spark --------------------------------------------------------------------------------------------------------------


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
    cfg = TokenizerConfig(vocab_size=400, sample_bytes=20_000, max_document_bytes=1_000, seed=3)
    table, shas = corpus(), set()
    samples = []
    for partitions in (1, 3, 13):
        rows = table.take(random.Random(partitions).sample(range(table.num_rows), table.num_rows))
        sample = sample_documents(spark.createDataFrame(rows).repartition(partitions), cfg)
        samples.append(sample)
        shas.add(save(train_tokenizer(sample.column("text").to_pylist(), cfg), tmp_path / str(partitions)))
    assert samples[0] == samples[1] == samples[2]
    assert len(shas) == 1
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
