"""What a tokenizer does to texts is counted as by hand, with kernels or without."""

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, normalizers

from pipelines.tokens.compression import use
from pipelines.tokens.presets import byte_characters, byte_level
from pipelines.tokens.train import TokenizerConfig, train_tokenizer

TEXTS = ["The mill turns when the water comes, and the water comes when the gate is open.\n" * 3]
RARE = "\u9f98\u9750"  # not in the texts: bytes one by one
TABLE = pa.table({"source": ["web", "web", "zh"], "lang": ["en", "en", None], "text": ["the water", "gate", RARE]})


@pytest.fixture(scope="module", params=[True, False], ids=["kernels", "library"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    made = train_tokenizer(TEXTS, TokenizerConfig(vocab_size=400))
    if not request.param:
        made.normalizer = normalizers.NFC()  # which the kernels do not do
    return made


def test_compression_by_hand(tokenizer: Tokenizer) -> None:
    english, chinese = use(tokenizer, TABLE).compression
    tokens = len(tokenizer.encode("the water").ids) + len(tokenizer.encode("gate").ids)
    assert (english.source, english.lang, english.documents, english.characters, english.words) == ("web", "en", 2, 13, 3)
    assert (english.tokens, english.byte_tokens) == (tokens, 0)
    assert english.fertility == tokens / 3
    assert (chinese.lang, chinese.bytes, chinese.tokens, chinese.byte_share) == ("", 6, 6, 1.0)
    assert (chinese.characters_per_token, chinese.bytes_per_token) == (1 / 3, 1.0)


def test_counts_are_of_each_id(tokenizer: Tokenizer) -> None:
    usage = use(tokenizer, TABLE)
    ids = [i for text in TABLE["text"].to_pylist() for i in tokenizer.encode(text).ids]
    assert usage.counts.tolist() == np.bincount(ids, minlength=tokenizer.get_vocab_size()).tolist()
    merged = [i for i, token in enumerate(usage.tokens) if len(token) > 1]
    assert usage.merged == len(merged)
    assert usage.unused == sorted(set(merged) - set(ids))


def test_special_tokens_in_a_text_are_text(tokenizer: Tokenizer) -> None:
    table = pa.table({"source": ["web"], "lang": ["en"], "text": ["<|endoftext|>"]})
    assert use(tokenizer, table).counts[0] == 0


def test_lists_of_entries() -> None:
    names = [
        *byte_characters(),
        "ab",
        "abc",
        "de",
        "\u00e6\u00b0",
        "\u00e6\u00b0\u00b4",
        "\u00e6\u00b0\u00b4abc",
        "\u00e6\u00b0\u00b4abcde",
    ]
    vocab = {name: i for i, name in enumerate(names)}
    merges = [("a", "b"), ("ab", "c"), ("d", "e"), ("\u00e6", "\u00b0"), ("\u00e6\u00b0", "\u00b4")]
    merges += [("\u00e6\u00b0\u00b4", "abc"), ("\u00e6\u00b0\u00b4abc", "de")]
    texts = ["abc abc", "\u6c34abc", "\u6c34"]
    said = use(byte_level("gpt2", vocab, merges), pa.table({"source": ["s"] * 3, "lang": ["l"] * 3, "text": texts})).to_json()
    assert said["longest"]["ascii"] == [{"id": 257, "text": "abc", "used": 2}]
    assert said["longest"]["other"] == [
        {"id": 262, "text": "\u6c34abcde", "used": 0},
        {"id": 261, "text": "\u6c34abc", "used": 1},
        {"id": 260, "text": "\u6c34", "used": 1},
    ]
    assert (said["merged"], said["unused"]["number"]) == (7, 4)  # ab, de, a part of a character, and the longest
    assert said["unused"]["longest"] == [{"id": 262, "text": "\u6c34abcde", "used": 0}]
    assert said["covering"] == {"0.5": 2, "0.9": 4, "0.99": 4}
