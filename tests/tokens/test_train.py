"""Training: the bytes of tokenizer.json are a function of the texts alone, and a config says what is wrong with it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers

from pipelines.errors import UserError
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.recipe import Input, Recipe, with_settings
from pipelines.run import Plan, make_plan
from pipelines.tokens.presets import EOS
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer

TEXTS = [
    "The mill turns when the water comes, and the water comes when the gate is open.\n" * 3,
    "def turn(wheel: int) -> int:\n    return wheel + 1  # 12345\n" * 3,
    "\u6c34\u5230\u6e20\u6210\uff0c\u6c34\u8f66\u8f6c\u52a8\u3002" * 5,
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerConfig(vocab_size=400))


def test_the_vocabulary_is_special_tokens_bytes_then_merges(tokenizer: Tokenizer) -> None:
    cfg = TokenizerConfig()
    assert [tokenizer.token_to_id(t) for t in cfg.special_tokens] == list(range(len(cfg.special_tokens)))
    assert cfg.special_tokens[0] == EOS
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(tokenizer.get_vocab())
    assert tokenizer.get_vocab_size() <= 400


def test_the_same_texts_give_the_same_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    first = save(tokenizer, tmp_path / "a")
    assert first == save(train_tokenizer(iter(TEXTS), TokenizerConfig(vocab_size=400)), tmp_path / "b")
    assert first == hashlib.sha256((tmp_path / "a/tokenizer.json").read_bytes()).hexdigest()
    again = Tokenizer.from_file(str(tmp_path / "a/tokenizer.json"))
    assert again.encode(TEXTS[1]).ids == tokenizer.encode(TEXTS[1]).ids


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"preset": "bert"}, "preset 'bert' is none of deepseek_llm, llama3, gpt2"),
        ({"guard": "none"}, "guard 'none' is none of characters, sample"),
        ({"vocab_size": 200}, "vocab_size 200 holds not even bytes and special tokens; take 263 or more"),
        ({"temperature": 2.0}, "temperature lies in"),
        ({"sample_bytes": 0}, "sample_bytes and max_document_bytes are positive"),
        ({"special_tokens": ()}, "an eos is needed"),
        ({"extra": 0}, "extra is 0"),
    ],
)
def test_a_config_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TokenizerConfig(**wrong)


@pytest.mark.parametrize(("name", "entries"), [("deepseek_llm", 100_015), ("llama3", 128_256), ("gpt2", 50_257)])
def test_a_published_tokenizer_by_name(name: Any, entries: int) -> None:
    recipe = Recipe("made", (Input("web", "x", read_jsonl, JsonlConfig()),), (), tokenizer=TokenizerConfig())
    made = with_settings(recipe, [f"tokenizer={name}", "tokenizer.sample_bytes=1000"])
    assert made.tokenizer == TokenizerConfig(preset=name, vocab_size=entries, sample_bytes=1000)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(ValueError, match="there is no tokenizer 'bert'; known are deepseek_llm, llama3, gpt2"):
        TokenizerConfig.named("bert")


def test_the_base_is_in_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_text('{"text": "water"}\n')
    inputs = (Input("web", str(tmp_path / "web.jsonl"), read_jsonl, JsonlConfig()),)
    base = tmp_path / "base.json"

    def plan(path: str) -> Plan:
        return make_plan(Recipe("made", inputs, (), tokenizer=TokenizerConfig(base=path)))

    with pytest.raises(UserError, match=r"base.json', which TokenizerConfig names, cannot be read"):
        plan(str(base))
    base.write_text("{}")
    before = plan(str(base))
    assert before.to_json()["tokenizer"]["files"] == [{"path": str(base), "bytes": 2, "mtime_ns": base.stat().st_mtime_ns}]
    assert plan(str(base)).tokenizer == before.tokenizer != plan("").tokenizer
    base.write_text("{} ")
    assert plan(str(base)).tokenizer != before.tokenizer
