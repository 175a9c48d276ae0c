"""Presets split as the published tokenizers do, and no byte is ever lost."""

import random
from itertools import pairwise
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers

from pipelines.tokens.encode import EncodeConfig, encode_array
from pipelines.tokens.extend import extend
from pipelines.tokens.presets import PATTERNS, Preset, byte_characters, byte_level, token_bytes
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer

PRESETS: tuple[Preset, ...] = get_args(Preset)
TEXTS = [
    "The mill turns when the water comes, and the water comes when the gate is open.\n" * 3,
    "def turn(wheel: int) -> int:\n    return wheel + 1  # 12345\n" * 3,
]
CHINESE = "\u6c34\u5230\u6e20\u6210\uff0c\u6c34\u8f66\u8f6c\u52a8\u3002" * 5


def split(preset: Preset, text: str) -> list[str]:
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in PATTERNS[preset]]
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
def test_presets_split_as_published(preset: Preset, text: str, pieces: list[str]) -> None:
    assert split(preset, text) == pieces


def test_a_given_vocabulary_is_merged_by_rank() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate([*alphabet, "he", "ll", "hell"])}
    ids = byte_level("gpt2", vocab, [("h", "e"), ("l", "l"), ("he", "ll")]).encode("hello").ids
    assert ids == [vocab["hell"], vocab["o"]]


def test_bytes_are_the_characters_that_the_library_has() -> None:
    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    every = "".join(map(chr, range(0x110, 0x800)))
    ((shown, _),) = splitter.pre_tokenize_str(every)
    assert bytes(map(byte_characters().index, shown)) == every.encode()


# --- nothing is lost ------------------------------------------------------------------------------------------------------

Made = tuple[Tokenizer, EncodeConfig]


@pytest.fixture(scope="module", params=[*PRESETS, "extended"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A tokenizer of each preset, and one that was extended."""
    folder = tmp_path_factory.mktemp(request.param)
    preset = "gpt2" if request.param == "extended" else request.param
    tokenizer = train_tokenizer([*TEXTS, CHINESE], TokenizerConfig(vocab_size=330, preset=preset))
    if request.param == "extended":
        base = train_tokenizer(TEXTS, TokenizerConfig(vocab_size=330, preset="gpt2"))
        sample = pa.table({"source": ["web"] * 3, "lang": ["en", "en", "zh"], "text": [*TEXTS, CHINESE]})
        tokenizer, extension = extend(base, sample, TokenizerConfig(base="given", extra=20, extend_on=("zh",)))
        assert extension.added == 20
    cfg = EncodeConfig(str(folder / "tokenizer.json"), save(tokenizer, folder))
    tokenizer.encode_special_tokens = True  # as the encode stage does
    return tokenizer, cfg


def there_and_back(data: list[bytes], made: Made) -> list[bytes]:
    ids, offsets = encode_array(pa.array(data, pa.large_binary()), made[1])
    tokens = token_bytes(made[0])
    return [b"".join(tokens[i] for i in ids[a : b - 1].tolist()) for a, b in pairwise(offsets.tolist())]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<|endoftext|> <|user|><|end|>",
        "\x00\x01\x7f\x80\x9f\u2028\u2029\ufeff\ufffe\uffff\U0010ffff",
        "\u202ereversed\u202c \u2066isolated\u2069 \u200b\u200d\ufe0f",
        "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031e\u0320\u034dA\u036b\u0357",
        "\U0001f469\u200d\u2764\ufe0f\u200d\U0001f48b\u200d\U0001f468 \U0001f1eb\U0001f1f7",
        "1\ufe0f\u20e3 \U0001f3f4\U000e0067\U000e007f",
        "\ufdfa \u0130\u0131 \u017f\u212a \ufb03 \u1e9e \u01c4\u01c5\u01c6 e\u0301\u00e9 \uac00\u1100\u1161",
        "'; DROP TABLE users;-- \\x41 \\u0041 %00 %n%s ${jndi:x} <script>alert(1)</script> $(touch /x) ../../etc/passwd",
        "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u200a\u202f\u205f\u3000\u180e",
        "-9223372036854775808 1e309 0x7f 1/0 NaN \u0661\u0662\u0663 \u215b\u2167",
        "a" * 3000 + "\n" * 300 + " " * 300 + "\u6c34" * 300,
    ],
)
def test_what_is_naughty_comes_back(made: Made, text: str) -> None:
    assert there_and_back([text.encode()], made) == [text.encode()]
    assert made[0].decode(made[0].encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xff", "\ufffd"),
        (b"\xc3", "\ufffd"),
        (b"\x80\x80", "\ufffd\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),  # an overlong slash
        (b"\xe0\x80\xaf", "\ufffd\ufffd\ufffd"),
        (b"\xf0\x9f\x98", "\ufffd"),  # cut: one maximal subpart
        (b"\xf0\x9f\x98a", "\ufffda"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a surrogate
        (b"\xed\xa0\xbd\xed\xb8\x80", "\ufffd" * 6),
        (b"\xf4\x90\x80\x80", "\ufffd" * 4),  # above U+10FFFF
        (b"\xf8\x88\x80\x80\x80", "\ufffd" * 5),
        (b"a\xe6\xb0\xb4\xe6\xb0b", "a\u6c34\ufffdb"),
        (b"\xe6\xb0\xb4\xe6", "\u6c34\ufffd"),
    ],
)
def test_what_is_no_utf8_is_replaced_by_maximal_subparts(made: Made, data: bytes, text: str) -> None:
    assert there_and_back([data, b"x", data + data], made) == [text.encode(), b"x", (text + text).encode()]


def test_all_of_unicode_comes_back(made: Made) -> None:
    points = [*map(chr, range(0xD800)), *map(chr, range(0xE000, 0x110000))]
    random.Random(1).shuffle(points)
    texts = ["".join(points[k : k + 20_000]) for k in range(0, len(points), 20_000)]
    data = [text.encode() for text in texts]
    assert there_and_back(data, made) == data


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
def test_any_bytes_come_back(made: Made, data: bytes) -> None:
    assert there_and_back([data], made) == [data.decode("utf-8", "replace").encode()]


@settings(max_examples=100, deadline=None)
@given(text=st.text() | st.text(alphabet="ab1 \n\r\t.'\u4e2d\u3002\U0001f600\u0301\u200d"))
def test_the_library_gives_every_text_back(made: Made, text: str) -> None:
    ids: Any = made[0].encode(text).ids
    assert made[0].decode(ids) == text
