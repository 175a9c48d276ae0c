"""The kernels give the ids of `tokenizers`, whatever the text: each preset, all of Unicode, long words, GPT-2's own merges."""

import gzip
import json
import os
import random
import time
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from pipelines.tokens.encode import EncodeConfig, encode_array, kernel_encoder
from pipelines.tokens.kernels.model import NotOurs, read_model
from pipelines.tokens.presets import EOS, Preset, byte_characters, byte_level
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer

PRESETS: tuple[Preset, ...] = get_args(Preset)
DATA = Path(os.environ.get("DATA", "none"), "tokenizer")

# characters whose neighbours matter to some pattern, of each class and at the bounds of classes
HARD = (
    " \t\n\r\x0b\x1c\x00\x85\xa0\u1680\u2003\u2028\u3000'\u2019!/:~\uff01\uff5e\u2018\u201f\u3001\u3002\u3003"
    "aZsStTrReEvVmMlLdD\u017f\u212a\xe9\xdf\u0130\u0560\u10a0\u10d0\u1c89\u1e00\ua78f\U0001d400\u0416\u03c2"
    "019\u0661\u0967\xbd\u2167\u3007\u7fff\u0800\u07ff\u4e00\u9fa5\u9fa6\uabff\uac00\ud7ff\u0e01\u0915\u0301\u0627"
    "\u200d\ufe0f\U0001f469\U0001f3fd\U0001f1eb\ufffd\ufeff\U0010ffff"
)
SCRIPTS = {
    "latin": range(0x61, 0x7B),
    "cyrillic": range(0x430, 0x450),
    "arabic": range(0x627, 0x64B),
    "devanagari": range(0x905, 0x940),
    "thai": range(0xE01, 0xE2F),
    "hangul": range(0xAC00, 0xAC60),
    "han": range(0x4E00, 0x4E80),
    "emoji": range(0x1F600, 0x1F640),
}


def words(number: int, seed: int) -> list[str]:
    """Made-up words, a few scripts after the other: many pairs that occur again, and characters of which tokens have a part."""
    draw = random.Random(seed)
    scripts = [[chr(c) for c in points] for points in SCRIPTS.values()]
    return ["".join(draw.choices(scripts[k % len(scripts)], k=min(int(draw.expovariate(0.4)) + 1, 12))) for k in range(number)]


def prose(number: int, seed: int) -> str:
    draw = random.Random(seed)
    known = words(number // 20, 0)
    return "".join(
        draw.choice(known) + draw.choice(["", " ", " ", "  ", ", ", ".\n", "\n\n", " 12", "'s ", "\u3002"])
        for _ in range(number)
    )


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[Preset, EncodeConfig]:
    made = {}
    for preset in PRESETS:
        folder = tmp_path_factory.mktemp(preset)
        tokenizer = train_tokenizer([prose(20_000, 1)], TokenizerConfig(vocab_size=3000, preset=preset))
        made[preset] = EncodeConfig(str(folder / "tokenizer.json"), save(tokenizer, folder))
    return made


def library(cfg: EncodeConfig) -> Tokenizer:
    tokenizer = Tokenizer.from_file(cfg.tokenizer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def assert_same(texts: list[str], cfg: EncodeConfig) -> None:
    ids, offsets = encode_array(pa.array(texts, pa.large_string()), cfg)
    tokenizer = library(cfg)
    for text, (first, last) in zip(texts, pairwise(offsets.tolist()), strict=True):
        assert ids[first:last].tolist() == [*tokenizer.encode(text, add_special_tokens=False).ids, 0], repr(text[:80])


@pytest.mark.parametrize("preset", PRESETS)
def test_the_kernels_are_what_encodes_a_preset(configs: dict[Preset, EncodeConfig], preset: Preset) -> None:
    model = read_model(library(configs[preset]).to_str())
    assert (model.merges.loose != 0).any()  # so that what follows tries characters cut by a token
    assert (model.merges.joins != 0).any()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_character_alone_and_in_company(configs: dict[Preset, EncodeConfig], preset: Preset) -> None:
    planes = (range(0xD800), range(0xE000, 0x10000), range(0x10000, 0x110000))
    every = [chr(c) for points in planes for c in points]
    known = [c for c in every if unicodedata.category(c) not in {"Cn", "Co"}]
    sample = known + random.Random(0).sample(every, 5000)
    forms = [f"{c}\n{c}a\n'{c} \n\u4e2d{c}{c}1\n  {c}\u3000{c}!" for c in sample]
    assert_same(["\n".join(forms[k : k + 500]) for k in range(0, len(forms), 500)] + sample[:3000], configs[preset])


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(st.one_of(st.sampled_from(HARD), st.characters(codec="utf-8")), max_size=40), max_size=20))
def test_any_text(configs: dict[Preset, EncodeConfig], preset: Preset, texts: list[str]) -> None:
    assert_same(texts, configs[preset])


@pytest.mark.parametrize("preset", PRESETS)
def test_hard_characters_in_random_company(configs: dict[Preset, EncodeConfig], preset: Preset) -> None:
    draw = random.Random(3)
    assert_same(["".join(draw.choices(HARD, k=draw.randint(1, 30))) for _ in range(10_000)], configs[preset])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "I'm you're HE'S we'LL they'Ve o'DaY 'd'S x'\u017fy 'r 're'v ''s l'l ll'L'",
        "a  b   c \t d\n e \n\n f\r\n\r\n  \n g  ",
        " \u3000 \u3000x \u3000! \u2003\u3000\u2003 ! \u3000\u3000 ",
        "(x)  (y)\u3000(z) \u201cquoted\u201d  ...",
        "1 22 333 4444 55555 \u0661\u0662\u0663\u0664 \u00bd\u00b2\u2167\u3007",
        "\u0627\u0644\u0645\u0627\u0621 \u064a\u062f\u0648\u0631  \u0627\u0644\u0639\u062c\u0644\u0629  ",
        "na\u00efve \u0421\u0442r\u0430nge mi\u03c7ed w\u00f6rds \u0535\u0565 \u10d0\u10a0",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \U0001f44d\U0001f3fd e\u0301\u0301",
        "<|endoftext|><|pad|> <|system|>",
        "\x00\x00 \x00a\x00" + "\x00" * 40,
        "    def f(self, x: int) -> int:\n\t\treturn x['a']  # !!!\n" + " " * 100 + "\n" + "=" * 100,
    ],
)
def test_known_trouble(configs: dict[Preset, EncodeConfig], preset: Preset, text: str) -> None:
    assert_same([text, f"{text}a", f" {text}", f"{text} ", f"{text}\n"], configs[preset])


@pytest.mark.parametrize("preset", PRESETS)
def test_running_text_of_many_scripts(configs: dict[Preset, EncodeConfig], preset: Preset) -> None:
    assert_same([prose(3000, seed) for seed in range(10)] + words(3000, 7), configs[preset])


def test_more_words_than_the_cache_holds(configs: dict[Preset, EncodeConfig]) -> None:
    draw = random.Random(5)
    many = ["".join(draw.choices("abcdefgh", k=8)) for _ in range(150_000)]
    assert_same([" ".join(many), " ".join(many[::-1])], configs["gpt2"])


@pytest.mark.parametrize("alphabet", ["a", "etaoin", "abcdefghijklmnopqrstuvwxyz", "\u4e00\u4e01\u4e02\u4e03", "!", " "])
@pytest.mark.parametrize("preset", PRESETS)
def test_one_long_word(configs: dict[Preset, EncodeConfig], preset: Preset, alphabet: str) -> None:
    draw = random.Random(1)
    assert_same(["".join(draw.choices(alphabet, k=k)) for k in (31, 32, 33, 64, 65, 200, 30_000)], configs[preset])


def test_ten_megabytes_of_one_word_take_seconds(configs: dict[Preset, EncodeConfig]) -> None:
    cfg = configs["llama3"]
    encode_array(pa.array(["warm"]), cfg)
    text = "".join(random.Random(2).choices("abcdefgh", k=10_000_000))
    begin = time.process_time()
    ids, _ = encode_array(pa.array([text]), cfg)
    assert time.process_time() - begin < 100  # a square would take days
    assert library(cfg).decode(ids[:-1].tolist()) == text


@pytest.mark.skipif(not DATA.is_dir(), reason="GPT-2's vocabulary lies in DATA, outside of the repository")
def test_the_published_ids_of_gpt2(tmp_path: Path) -> None:
    vocab = json.loads(gzip.decompress((DATA / "gpt2-vocab.json.gz").read_bytes()))
    lines = gzip.decompress((DATA / "gpt2-merges.txt.gz").read_bytes()).decode().splitlines()
    merges = [tuple(line.split(" ")) for line in lines if not line.startswith("#version")]
    tokenizer = byte_level("gpt2", vocab, merges)  # type: ignore[arg-type]
    tokenizer.add_special_tokens([EOS])
    cfg = EncodeConfig(str(tmp_path / "tokenizer.json"), save(tokenizer, tmp_path))
    read_model(tokenizer.to_str())  # by the kernels
    cases = [json.loads(line) for line in gzip.decompress((DATA / "cases.jsonl.gz").read_bytes()).splitlines()]
    ids, offsets = encode_array(pa.array([case["text"] for case in cases]), cfg)
    rows = [ids[a : b - 1].tolist() for a, b in pairwise(offsets.tolist())]
    assert len(cases) > 300
    assert rows == [case["gpt2_ids"] for case in cases]


def test_two_merges_may_make_one_token() -> None:
    """What a trainer may do: abc of a + bc and of ab + c; the lower rank of the pair that is there decides."""
    characters = byte_characters()
    vocab = {c: k for k, c in enumerate([*characters, "ab", "bc", "abc", "cd", "abcd", EOS])}
    for order in ([("b", "c"), ("a", "bc"), ("a", "b"), ("ab", "c"), ("c", "d"), ("abc", "d")],
                  [("c", "d"), ("a", "b"), ("ab", "c"), ("ab", "cd"), ("b", "c"), ("a", "bc")]):  # fmt: skip
        tokenizer = byte_level("gpt2", vocab, order)
        draw, model = random.Random(0), read_model(tokenizer.to_str())
        assert model.merges.made.tolist() == [vocab[left + right] for left, right in order]
        texts = ["".join(draw.choices("abcd", k=draw.randint(1, 90))) for _ in range(300)]
        assert encoded(tokenizer, texts) == [tokenizer.encode(t).ids for t in texts]


def encoded(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    ids, offsets = kernel_encoder(tokenizer, 0)(pa.array(texts, pa.large_string()))
    return [ids[a : b - 1].tolist() for a, b in pairwise(offsets.tolist())]


def changed(**fields: Any) -> str:
    """A tokenizer that the kernels can do, but for some fields of its model."""
    data = json.loads(byte_level("gpt2", {c: k for k, c in enumerate(byte_characters())}).to_str())
    return json.dumps(data | {"model": data["model"] | fields})


def test_without_changes_it_is_ours() -> None:
    assert np.array_equal(read_model(changed()).merges.byte_ids, np.arange(256))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (changed(dropout=0.1), "its dropout is 0.1"),
        (changed(continuing_subword_prefix="##"), "its continuing_subword_prefix is '##'"),
        (changed(end_of_word_suffix="</w>"), "its end_of_word_suffix"),
        (changed(byte_fallback=True), "its byte_fallback is True"),
        (changed(ignore_merges=True), "its ignore_merges is True"),
        (changed(vocab={"a": 0}), "255 bytes are not in its vocabulary"),
        (changed(vocab={c: k << 14 for k, c in enumerate(byte_characters())}), "ids of 2097151 or more"),
    ],
)
def test_what_the_kernels_leave_to_the_library(text: str, reason: str) -> None:
    with pytest.raises(NotOurs, match=reason):
        read_model(text)


def test_other_parts_that_the_kernels_leave_to_the_library() -> None:
    vocab = {c: k for k, c in enumerate(byte_characters())}
    other = byte_level("gpt2", vocab)
    other.normalizer = normalizers.NFC()
    with pytest.raises(NotOurs, match="it has a normalizer, NFC"):
        read_model(other.to_str())
    other = byte_level("gpt2", vocab)
    other.add_tokens(["<tag>"])
    with pytest.raises(NotOurs, match="added tokens that are not special, '<tag>' for one"):
        read_model(other.to_str())
    other = byte_level("gpt2", vocab)
    for split in (pre_tokenizers.ByteLevel(add_prefix_space=True), pre_tokenizers.Whitespace()):
        other.pre_tokenizer = split  # type: ignore[assignment]
        with pytest.raises(NotOurs, match="its pre_tokenizer is that of no preset"):
            read_model(other.to_str())
    with pytest.raises(NotOurs, match="its pre_tokenizer is that of no preset"):
        read_model(Tokenizer(models.BPE()).to_str())


def test_gpt2_as_it_was_published_is_ours() -> None:
    """Its pattern lies inside ByteLevel there."""
    tokenizer = byte_level("gpt2", {c: k for k, c in enumerate(byte_characters())})
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    text = "we're 'LL  12 \u00e9 \n\n x"
    assert encoded(tokenizer, [text]) == [tokenizer.encode(text).ids]
