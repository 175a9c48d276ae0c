"""An extension helps the languages that it was learnt on, and leaves the ids of all other text exactly as they were."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from pipelines.errors import UserError
from pipelines.tokens.compression import use
from pipelines.tokens.encode import EncodeConfig, encode_array
from pipelines.tokens.extend import Alphabet, Extension, extend, load_base, may_hold
from pipelines.tokens.fit import facts, fit
from pipelines.tokens.presets import SPECIAL_TOKENS, byte_characters, byte_level
from pipelines.tokens.train import Guard, TokenizerConfig, save, train_tokenizer

WORDS = ["the", "mill", "turns", "when", "water", "comes", "and", "gate", "is", "open", "na\u00efve", "caf\u00e9", "\u2014"]
WORDS += ["\u201cquoted\u201d", "it\u2019s", "12", "345", "\u20ac5"]
PHRASES = [
    "\u6c34\u5230\u6e20\u6210",
    "\u78e8\u574a\u8f6c\u52a8",
    "\u6cb3\u6d41",
    "\u8f66\u95e8",
    "\u65e5\u6708\u5c71\u5ddd",
    "\u5f00",
]


def english(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(5, 80))) + ".\n" for _ in range(count)]


def chinese(count: int, seed: int) -> list[str]:
    """Sentences with full-width marks, with Latin words that the English texts lack, and with dashes of both."""
    draw = random.Random(seed)
    ends = ["\uff0c", "\u3002", " WiFi ", " iPhone\u2122", "\u2014\u2014", "\u300a\u5b57\u300b"]
    return ["".join(draw.choice(PHRASES) + draw.choice(ends) for _ in range(draw.randint(5, 60))) for _ in range(count)]


def table(**texts: list[str]) -> pa.Table:
    rows = [{"source": "web", "lang": lang, "text": text} for lang, column in texts.items() for text in column]
    return pa.Table.from_pylist(rows, pa.schema({"source": pa.string(), "lang": pa.string(), "text": pa.string()}))


SAMPLE = table(en=[*english(150, 1), "It is called \u6c34 or \u6c34\u8f66 there."], zh=chinese(120, 2))


def config(**fields: Any) -> TokenizerConfig:
    return TokenizerConfig(**{"base": "given", "extra": 150, "extend_on": ("zh",), **fields})


@pytest.fixture(scope="module")
def base() -> Tokenizer:
    return train_tokenizer(english(150, 1), TokenizerConfig(vocab_size=420, preset="llama3", special_tokens=("<|endoftext|>",)))


@pytest.fixture(scope="module", params=["characters", "sample"])
def extended(request: pytest.FixtureRequest, base: Tokenizer) -> tuple[Tokenizer, Extension, Guard]:
    return *extend(base, SAMPLE, config(guard=request.param)), request.param


Extended = tuple[Tokenizer, Extension, Guard]


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    tokenizer.encode_special_tokens = True
    found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return found


def test_what_was_there_stays_and_the_new_follows(base: Tokenizer, extended: Extended) -> None:
    tokenizer, extension, _ = extended
    old, new = (json.loads(t.to_str())["model"] for t in (base, tokenizer))
    assert new["merges"][: len(old["merges"])] == old["merges"]
    assert {name: new["vocab"][name] for name in old["vocab"]} == old["vocab"]
    assert extension.base_size == len(old["vocab"])
    special = [tokenizer.token_to_id(t) for t in SPECIAL_TOKENS]
    assert special == [0, *range(extension.base_size, extension.base_size + 6)]  # its own eos, then those that it lacked
    assert (extension.special, extension.added) == (6, len(new["merges"]) - len(old["merges"]))
    names = ["".join(merge) for merge in new["merges"][len(old["merges"]) :]]
    assert [new["vocab"][name] for name in names] == [*range(extension.base_size + 6, tokenizer.get_vocab_size())]
    assert len({*new["vocab"]}) == len(new["vocab"]) == tokenizer.get_vocab_size()


def test_documents_of_the_base_keep_their_ids(base: Tokenizer, extended: Extended) -> None:
    tokenizer, extension, _ = extended
    assert [ids(base, t) for t in english(150, 1)] == [ids(tokenizer, t) for t in english(150, 1)]
    assert (extension.documents, extension.unchanged, extension.foreign) == (151, 150, 3)
    assert extension.tokens - extension.tokens_after == sum(
        len(ids(base, t)) - len(ids(tokenizer, t)) for t in SAMPLE["text"].to_pylist()[:151]
    )


def test_the_language_that_was_learnt_takes_fewer_tokens(base: Tokenizer, extended: Extended) -> None:
    held_out = table(zh=chinese(30, 9))
    (before,), (after,) = use(base, held_out).compression, use(extended[0], held_out).compression
    assert before.characters_per_token < 0.6
    assert after.characters_per_token > 2 * before.characters_per_token


HOME = "".join(sorted({*"".join(WORDS)})) + " \n\t.,;()\u00e0\u0142\u1e6d\u01d4"  # more Latin letters than the sample has


@pytest.fixture(scope="module")
def by_characters(base: Tokenizer) -> Tokenizer:
    return extend(base, SAMPLE, config())[0]


@settings(max_examples=300, deadline=None)
@given(text=st.text(HOME, max_size=60) | st.lists(st.sampled_from([*WORDS, "WiFi", "iPhone"]), max_size=9).map(" ".join))
def test_no_text_in_the_characters_of_the_base_changes(base: Tokenizer, by_characters: Tokenizer, text: str) -> None:
    assert ids(base, text) == ids(by_characters, text)


@pytest.mark.parametrize(("guard", "learnt"), [("characters", False), ("sample", True)])
def test_latin_words_in_chinese_texts(base: Tokenizer, guard: Guard, learnt: bool) -> None:
    """Pieces that the English sample lacks: by characters they stay as they are, by sample they may be learnt."""
    tokenizer, _ = extend(base, SAMPLE, config(guard=guard))
    assert (len(ids(tokenizer, " iPhone")) < len(ids(base, " iPhone"))) == learnt


def test_the_encode_stage_gives_its_ids(extended: Extended, tmp_path: Path) -> None:
    cfg = EncodeConfig(str(tmp_path / "tokenizer.json"), save(extended[0], tmp_path))
    again = Tokenizer.from_file(cfg.tokenizer)
    texts = [*chinese(40, 3), *english(10, 4), "mixed \u6c34WiFi\u6e20 \u6210", "\u6c34" * 300, "<|user|>"]
    found, offsets = encode_array(pa.array(texts), cfg)
    assert [found[a : b - 1].tolist() for a, b in pairwise(offsets.tolist())] == [ids(again, t) for t in texts]


def test_the_same_rows_in_any_order_give_the_same_bytes(base: Tokenizer) -> None:
    order = random.Random(3).sample(range(SAMPLE.num_rows), SAMPLE.num_rows)
    assert extend(base, SAMPLE, config())[0].to_str() == extend(base, SAMPLE.take(order), config())[0].to_str()


def test_letters_are_judged_by_script_and_marks_by_how_often_they_occur() -> None:
    own = ["na\u00efve \u2014 \u201cquoted\u201d \u03b1 \u6c34 \u3002\u2122"] * 2 + ["plain words " * 20] * 20
    other = ["\u6c34\u3002\u2014\u201c\u300a\u01d4 \u0436 \u03b1"] * 40
    found = Alphabet.of(own, other)
    assert {c: c in found.foreign for c in "\u6c34\u3002\u300a\u0436\u03b1"} == dict.fromkeys(
        "\u6c34\u3002\u300a\u0436\u03b1", True
    )
    home = "\u00ef\u01d4\u1e6d\u2122"  # a Latin letter is the base's though none of its texts has it
    assert {c: (c in found.own, c in found.foreign) for c in home} == dict.fromkeys(home, (True, False))
    assert not any(c.isascii() for c in found.foreign)
    assert found.own.isdisjoint(found.foreign)


@pytest.mark.parametrize(
    ("made", "held"),
    [
        ("\u6c34".encode(), False),  # whole, and foreign
        (b"\xe6\xb0", False),  # no own character begins so
        (b"\xe2\x80", True),  # the beginning of an own dash
        (b"\x80\x94", True),  # its end
        (b"\x80\x95", False),
        (b"\xa9\xe2", True),  # the end of an own letter, the beginning of the dash
        (b"\xa9\xe2\x80", True),
        (b"\xaa\xe2\x80", False),
        (b"\xa9\xe6", False),
        (b"\x9f\x98", True),  # from the midst of an own emoji
        (b"\x98\x9f", False),
    ],
)
def test_what_a_text_of_own_characters_may_hold(made: bytes, held: bool) -> None:
    assert may_hold(Alphabet(frozenset("\u2014\u00e9\U0001f600"), frozenset("\u6c34")), made) == held


def test_an_added_token_outside_of_the_vocabulary_keeps_its_id() -> None:
    vocab = {c: i for i, c in enumerate(byte_characters())}
    base = byte_level("llama3", vocab)
    base.add_special_tokens([AddedToken("<|begin|>", special=True), AddedToken("<|endoftext|>", special=True)])
    tokenizer, extension = extend(base, SAMPLE, config(extra=10))
    assert [tokenizer.token_to_id(t) for t in ("<|begin|>", "<|endoftext|>", "<|pad|>")] == [256, 257, 258]
    assert (extension.base_size, extension.special, tokenizer.get_vocab_size()) == (258, 6, 274)


def test_merges_that_make_a_token_of_the_base_are_not_learnt() -> None:
    """Each token is made in one way, so that no merge of the base applies behind one of the extension."""
    characters = byte_characters()
    a, b, c = (characters[x] for x in "\u6c34".encode())
    vocab = {name: i for i, name in enumerate([*characters, b + c, a + b, a + b + c])}
    base = byte_level("gpt2", vocab, [(b, c), (a, b), (a + b, c)])
    assert ids(base, "\u6c34") == [vocab[a], vocab[b + c]]
    tokenizer, _ = extend(base, SAMPLE, config(extra=60))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    assert len({left + right for left, right in merges}) == len(merges)
    assert ids(tokenizer, "\u6c34") == ids(base, "\u6c34")


# --- what cannot be -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ((), r"extend_on \[\] is of no language or source of the sample, which has en, web, zh"),
        (("fr",), r"extend_on \['fr'\] is of no language or source"),
        (("web",), r"extend_on \['web'\] leaves nothing to hold unchanged of the sample"),
    ],
)
def test_extend_on_must_leave_something_on_either_side(base: Tokenizer, on: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        extend(base, SAMPLE, config(extend_on=on))


def test_other_documents_that_are_written_in_what_is_learnt(base: Tokenizer) -> None:
    mixed = table(en=[*english(100, 1), *chinese(5, 5)], zh=chinese(100, 2))
    said = r"[\d,]+ of [\d,]+ characters of the 105 documents .* are foreign to them, and the extension changes 5; name"
    with pytest.raises(UserError, match=said):
        extend(base, mixed, config())


def test_a_script_of_the_other_documents_is_not_learnt_in_silence(base: Tokenizer) -> None:
    both = table(en=english(20, 1), ja=chinese(20, 5), zh=chinese(20, 2))
    with pytest.raises(UserError, match=r"extend_on \['zh'\] has nothing to learn that the other documents are not written in"):
        extend(base, both, config())


def test_fewer_entries_than_asked_for_are_told(base: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    _, extension = extend(base, SAMPLE, config(extra=5000))
    assert extension.added < 5000
    assert f"the sample holds {extension.added} entries to extend the tokenizer by, 5000 were asked for" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("{}", "is no tokenizer.json"),
        (Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).to_str(), "is no byte-level BPE tokenizer"),
        (Tokenizer(models.BPE({"a": 0, "b": 1}, [])).to_str(), "is no byte-level BPE tokenizer"),
        (byte_level("gpt2", {c: i for i, c in enumerate([*byte_characters(), "\u6c34"])}).to_str(), "is no byte-level BPE"),
    ],
)
def test_a_base_that_cannot_be_extended(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "base.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_base(str(path))


def test_the_manifest_says_before_and_after(base: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    save(base, tmp_path)
    cfg = config(base=str(path))
    assert cfg.files() == (str(path),)
    said = facts(*(made := fit(SAMPLE, cfg))[:1], SAMPLE, cfg, made[1])
    before, after = said["extension"]["compression"], said["compression"]
    assert (
        [(c["source"], c["lang"]) for c in before]
        == [(c["source"], c["lang"]) for c in after]
        == [("web", "en"), ("web", "zh")]
    )
    assert after[1]["characters_per_token"] > 2 * before[1]["characters_per_token"]
    assert before[0]["tokens"] - after[0]["tokens"] == said["extension"]["tokens"] - said["extension"]["tokens_after"] > 0
    assert (said["extension"]["base"], said["extension"]["extend_on"]) == (str(path), ["zh"])
