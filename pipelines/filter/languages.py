"""What the rules know of a language: stop words, end marks, bounds. `settings` is the one place to ask.

A language without settings gets the *neutral* set, never the English one: no stop words, so that a rule on them does not apply;
the end marks of every script; for each bound the value that nine of ten languages with settings are at least as strict as.

Stop words are compared as they are written (case matters); in languages without blanks between words they are looked for
anywhere in the text. They are at hand in both Unicode forms, composed and decomposed: pages in Vietnamese come in either.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np

from pipelines.filter import read_data
from pipelines.filter.kernels.unicode import SENTENCE, flags

# Other names of a language, and languages that go by the settings of another one: macro-languages, members of them, old codes.
ALIASES = {
    "no": "nb", "fil": "tl", "sh": "hr", "hbs": "hr", "cnr": "sr", "pes": "fa", "prs": "fa",
    **dict.fromkeys(("yue", "wuu", "lzh", "gan", "hak", "hsn"), "zh"),
    **dict.fromkeys(("arz", "ary", "apc", "ajp", "acm", "ars", "aeb"), "ar"),
    "iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro", "eng": "en", "hau": "ha",
    "als": "gsw",  # Alemannic in fastText's lid.176, Albanian in ISO 639-3, which we call "sq": safer neutral
}  # fmt: skip

WITHOUT_BLANKS = frozenset({"zh", "yue", "wuu", "lzh", "gan", "hak", "hsn", "ja", "th", "lo", "km", "my"})

# End marks: those of Unicode's property Sentence_Terminal (PropList.txt, Unicode 15) that the language writes, and what serves
# as one where it is typed with a Latin keyboard: the semicolon is the Greek question mark, colons stand for the Armenian and
# the Ethiopic full stop.
C4_END_MARKS = (".", "?", "!", '"', "'")  # arXiv 1910.10683, 2.2
_QUOTES = (
    "\u201d",
    "\u2019",
    "\u00bb",
    "\u203a",
    "\u201c",
    "\u2018",
    "\u00ab",
    "\u2039",
)  # German closes with the opening ones
_CJK = ("\u3002", "\uff01", "\uff1f", "\uff0e", "\uff61", "\u203c", "\u2047", "\u2048", "\u2049", "\u300d", "\u300f", "\uff02")
_ARABIC, _DANDA = ("\u061f", "\u06d4"), ("\u0964", "\u0965")
_OWN_MARKS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("zh", "ja", "ko"), _CJK),
    **dict.fromkeys(("ar", "fa", "ur", "ps", "sd", "ckb", "ug"), _ARABIC),
    **dict.fromkeys(("hi", "mr", "ne", "sa", "bn", "as", "or", "gu", "pa"), _DANDA),
    "el": (";", "\u037e"),
    "he": ("\u05f4", "\u05f3"),
    "yi": ("\u05f4", "\u05f3"),
    "hy": ("\u0589", ":"),
    "am": ("\u1362", "\u1367", "\u1368", ":"),
    "ti": ("\u1362", "\u1367", "\u1368", ":"),
    "my": ("\u104a", "\u104b"),
    "km": ("\u17d4", "\u17d5"),
}
WITHOUT_END_MARKS = frozenset({"th", "lo"})  # a blank ends the sentence


@dataclass(frozen=True)
class Language:
    """The settings of one language."""

    code: str | None  # that they go by; None: the neutral set
    stop_words: frozenset[str] | None  # None: no list, a rule on stop words does not apply
    end_marks: tuple[str, ...] | None  # single characters; None: the script has none, a rule on them does not apply
    blanks: bool  # words are set apart by blanks
    # by the name of the rule, such as "max_dup_lines"; from fineweb2.tsv and bounds.tsv. English has none: see rules.py
    bounds: Mapping[str, float]


def base_code(lang: str | None) -> str:
    """The code that the settings of `lang` go by, without script and region: "zh" for "zh-Hant", "nb" for "no"."""
    code = (lang or "und").replace("_", "-").lower().partition("-")[0]
    return ALIASES.get(code) or _names().get(code, code)


@cache
def settings(lang: str | None) -> Language:
    """Settings of a language by its ISO 639 code ("de", "deu", "zh-Hant", "no"); the neutral set for None and unknown codes."""
    code = base_code(lang)
    bounds = _bounds().get(code)
    known = code in STOP_WORDS or bounds is not None
    if not known:
        return Language(None, None, _every_end_mark(), code not in WITHOUT_BLANKS, MappingProxyType(_neutral_bounds()))
    own = MappingProxyType({} if code == "en" else _neutral_bounds() if bounds is None else bounds)
    return Language(code, STOP_WORDS.get(code), _end_marks(code), code not in WITHOUT_BLANKS, own)


def _lines(name: str) -> list[str]:
    return [line for line in read_data(name).splitlines() if line and not line.startswith("#")]


def _read_stop_words() -> dict[str, frozenset[str]]:
    entries = [line.split() for line in _lines("stop_words.txt")]
    words = {code: frozenset(own) | {unicodedata.normalize("NFD", word) for word in own} for code, *own in entries}
    return words | {other: words[code] for other, code in ALIASES.items() if code in words}


STOP_WORDS = _read_stop_words()


@cache
def _table() -> list[list[str]]:
    return [line.split("\t") for line in _lines("fineweb2.tsv")]


def bound_names() -> frozenset[str]:
    """The rules that have bounds by language."""
    return frozenset(_table()[0][2:])


@cache
def _names() -> dict[str, str]:
    """FineWeb-2's names without the script, ISO 639-3, to our code; where ours is shorter."""
    return {name.partition("_")[0]: code for code, name, *_ in _table()[1:]}


def fineweb2_bounds() -> dict[str, dict[str, float]]:
    """FineWeb-2's bounds by language, also where ours take their place."""
    _, _, *names = _table()[0]
    return {
        code: {name: float(value) for name, value in zip(names, values, strict=True) if value != "-"}
        for code, _, *values in _table()[1:]
    }


@cache
def _bounds() -> dict[str, dict[str, float]]:
    bounds = fineweb2_bounds()
    for line in _lines("bounds.tsv")[1:]:
        code, name, value, _ = line.split("\t")
        bounds[code][name] = float(value)
    return bounds


@cache
def _neutral_bounds() -> dict[str, float]:
    neutral = {}
    for name in _table()[0][2:]:
        values = sorted((bounds[name] for bounds in _bounds().values() if name in bounds), reverse=name.startswith("min_"))
        neutral[name] = values[9 * len(values) // 10]
    return neutral


def _end_marks(code: str) -> tuple[str, ...] | None:
    if code in WITHOUT_END_MARKS:
        return None
    return C4_END_MARKS if code == "en" else (*C4_END_MARKS, *_QUOTES, *_OWN_MARKS.get(code, ()))


@cache
def _every_end_mark() -> tuple[str, ...]:
    marks = map(chr, np.flatnonzero(flags() & np.uint32(SENTENCE)).tolist())
    return tuple(dict.fromkeys((*C4_END_MARKS, *_QUOTES, *_CJK, *marks)))
