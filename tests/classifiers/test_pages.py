"""Pages: languages by line, prose about code, what is read of a long text, and bytes of any kind."""

from pathlib import Path

import numpy as np
import pytest

from classifiers.language import Identified, as_buffers, identify

RAIN = dict(line.split("\t") for line in Path(__file__).with_name("rain.tsv").read_text(encoding="utf-8").splitlines())
CODE = "for (int i = 0; i < n; i++) {\n    total[i] += rows[i]->size * 2;\n    if (!rows[i]) { break; }\n}\n"


def found(*texts: str | None) -> Identified:
    return identify(*as_buffers(texts))


def page(lang: str, lines: int) -> str:
    return f"{RAIN[lang]}\n" * lines


@pytest.mark.parametrize(
    ("most", "less"),
    [
        ("de", "en"),
        ("en", "fr"),
        ("fr", "es"),
        ("ru", "en"),
        ("uk", "ru"),
        ("zh", "ja"),
        ("ja", "pt"),
        ("ko", "en"),
        ("ar", "en"),
    ],
)
@pytest.mark.parametrize("turn", ["one after the other", "line by line"])
def test_a_page_in_two_languages(most: str, less: str, turn: str) -> None:
    one, two = [RAIN[most]] * (1400 // len(RAIN[most])), [RAIN[less]] * (500 // len(RAIN[less]))
    lines = (
        one + two if turn == "one after the other" else [line for pair in zip(one, two, strict=False) for line in pair] + one
    )
    got = found("\n".join(lines))
    assert got.langs == [most]
    assert [lang for lang, _ in got.shares[0][:2]] == [most, less]
    assert sum(share for _, share in got.shares[0][:2]) > 0.9
    assert sum(share for _, share in got.shares[0]) == pytest.approx(1)
    assert got.scores[0] > 0.5


@pytest.mark.parametrize("lang", ["en", "de", "ru", "zh"])
def test_prose_that_quotes_code_keeps_its_language(lang: str) -> None:
    got = found(page(lang, 4) + CODE + page(lang, 4))
    assert got.langs == [lang]
    assert found(CODE * 3).langs == ["und"]


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("Home\nNews\nContact us\nAbout this site\nPrivacy policy\nTerms of use", "en"),
        ("Zutaten:\n200 g Mehl\n2 Eier\n1 Prise Salz\n50 g Butter\nZubereitung:\nAlles gut mischen und backen.", "de"),
        ("Nom | Ville | Pays\nDupont | Lyon | France\nMoreau | Lille | France\nle prix est de 12,50 euros", "fr"),
        ("re: where do i find it??\n> have you looked in the attic\nyes!!! nothing there :-(", "en"),
        ("- comprar leche\n- llamar al fontanero\n- pagar la luz\n- recoger a los ni\u00f1os", "es"),
        ("See https://example.org/a/b?c=d#e and mail me@example.org, or call the office tomorrow morning.", "en"),
    ],
)
def test_lists_tables_and_posts_are_words(text: str, lang: str) -> None:
    assert found(text).langs == [lang]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pt", "gl"),
        ("pt", "es"),
        ("cs", "sk"),
        ("da", "nb"),
        ("uk", "ru"),
        ("zu", "xh"),
        ("et", "fi"),
        ("hi", "mr"),
        ("he", "yi"),
    ],
)
def test_close_languages(one: str, other: str) -> None:
    got = found(RAIN[one], RAIN[other])
    assert got.langs == [one, other]


@pytest.mark.parametrize(
    ("text", "lang", "script"),
    [
        ("\u8fd9\u4e2a\u56fd\u5bb6\u7684\u7ecf\u6d4e\u53d1\u5c55\u5f88\u5feb", "zh", "Hans"),
        ("\u9019\u500b\u570b\u5bb6\u7684\u7d93\u6fdf\u767c\u5c55\u5f88\u5feb", "zh", "Hant"),
        (RAIN["ja"], "ja", "Jpan"),
        (RAIN["ko"], "ko", "Kore"),
        (RAIN["ru"], "ru", "Cyrl"),
        (RAIN["sr"], "sr", "Cyrl"),
        (RAIN["yi"], "yi", "Hebr"),
        (RAIN["en"], "en", "Latn"),
    ],
)  # fmt: skip
def test_script(text: str, lang: str, script: str) -> None:
    got = found(text)
    assert (got.langs, got.scripts) == ([lang], [script])


@pytest.mark.parametrize("lang", RAIN)
def test_the_script_rules_out_the_impossible(lang: str) -> None:
    word = max(RAIN[lang].split(), key=len)
    assert found(word).scripts in ([found(RAIN[lang]).scripts[0]], ["Hani"])


def test_a_long_text_is_read_in_eight_places() -> None:
    text = page("de", 300) + page("en", 200)
    got = found(text)
    assert got.langs == ["de"]
    assert dict(got.shares[0])["en"] == pytest.approx(0.4, abs=0.13)
    assert found("\n" * 100_000 + page("fr", 3)).langs == ["fr"]


@pytest.mark.parametrize("filler", ["\n", " ", "\x00", "a", "7", "\u3042", "\U0001f600", "spam ", "{", "\u0301", "'"])
def test_huge_and_pathological(filler: str) -> None:
    data = np.frombuffer(filler.encode() * (20_000_000 // len(filler.encode())), np.uint8)
    got = identify(data, np.array([0, len(data)]), np.array([True]))
    assert got.langs[0] == {"\u3042": "ja", "spam ": got.langs[0]}.get(filler, "und")
    assert 0 <= got.scores[0] <= 1


@pytest.mark.parametrize(
    ("data", "lang"),
    [
        (b"\xff\xfe\xfd" * 50, "und"),
        (b"\xc3" * 40 + b"\xe4\xb8", "und"),
        (b"\xed\xa0\x80\xed\xb0\x80" * 9, "und"),  # surrogates in UTF-8
        (b"\x00\x01\x02 \x7f" * 20, "und"),
        (RAIN["en"].encode() + b"\xff\xfe\x80\xc3 \xe4\xb8\xf0\x9f\x98" + RAIN["en"].encode() + b"\xf0\x9f", "en"),
        (RAIN["en"].encode().replace(b" ", b"\x00"), "en"),
        (RAIN["ru"].encode()[1:-2], "ru"),
        (RAIN["fr"].encode("latin-1"), "fr"),
    ],
)
def test_bytes_that_are_not_text(data: bytes, lang: str) -> None:
    got = identify(np.frombuffer(data, np.uint8), np.array([0, len(data)]), np.array([True]))
    assert got.langs == [lang]


def test_random_bytes_never_break_it() -> None:
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, 200_000).astype(np.uint8)
    offsets = np.sort(rng.integers(0, len(data) + 1, 300))
    got = identify(data, offsets, np.ones(299, np.bool_))
    assert ((got.scores >= 0) & (got.scores <= 1)).all()
    assert all(score == 0 for lang, score in zip(got.langs, got.scores, strict=True) if lang == "und")
