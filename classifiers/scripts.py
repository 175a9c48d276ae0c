"""What a character is to language identification: its script, its kind, and the languages that are written in a script."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from importlib.resources import files

import numpy as np

_Range = tuple[int, int, str]  # first and last code point, script


def _table() -> tuple[tuple[_Range, ...], dict[str, tuple[str, ...]]]:
    """The blocks and the languages of scripts.txt."""
    ranges: list[_Range] = []
    written = {}
    for line in files("classifiers").joinpath("scripts.txt").read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            left, _, langs = line.partition("|")
            name, *spans = left.split()
            ranges += [(int(span[:4], 16), int(span[5:], 16), name) for span in spans]
            written[name] = tuple(langs.split())
    return tuple(ranges), written


_RANGES, WRITTEN = _table()  # WRITTEN: languages by script, where it is not Latin
OTHER = 0
SCRIPTS: tuple[str, ...] = ("Zyyy", *WRITTEN)  # by number
NUMBER = {script: i for i, script in enumerate(SCRIPTS)}
BOTH = frozenset(WRITTEN.pop("Latn")[1:])  # written in Latin letters too
_NOT_LATIN = frozenset(lang for langs in WRITTEN.values() for lang in langs) - BOTH


@lru_cache(maxsize=4096)
def may_write(lang: str, script: str) -> bool:
    """Whether a text in this script can be in this language (ISO 639 code; of a script we do not know: any)."""
    if script == "Latn":
        return lang not in _NOT_LATIN
    return script == SCRIPTS[OTHER] or lang in WRITTEN[script] or (script == "Cyrl" and lang in ("az", "uz", "tk", "ku", "ro"))


# Kinds of characters
BLANK, LETTER, MARK, DIGIT, STOP, JOINER, SIGN, STRONG, IGNORED = range(9)
_STRONG = frozenset("{}=_\\<>^")  # rare in prose, frequent in code and formulas
_STOPS = frozenset("$+\u20ac\u00a3\u00a9\u00ae\u00b0")  # signs of prose, beside all punctuation
_JOINERS = frozenset("'-\u00b7\u02bc\u2018\u2019\u2010\u2011\u05be\u05f3\u05f4\u055a\u055b\u055c\u055e\u055f")  # within words
_DIVIDERS = frozenset(
    "\u1361\u1362\u1363\u1364\u1365\u1366\u060c\u061b\u061f\u06d4\u0964\u0965\u1680"
)  # between words, often without a blank


def kinds() -> tuple[np.ndarray, np.ndarray]:
    """Script number and kind of each code point of the first plane, uint8 of shape (65536,)."""
    script = np.zeros(65536, np.uint8)
    for first, last, name in _RANGES:
        script[first : last + 1] = NUMBER[name]
    kind = np.full(65536, SIGN, np.uint8)
    for point in range(65536):
        letter = chr(point)
        category = unicodedata.category(letter)
        if category[0] == "L":
            kind[point] = LETTER
        elif category[0] == "M":
            kind[point] = MARK
        elif category[0] == "N":
            kind[point] = DIGIT
        elif category in ("Zs", "Zl", "Zp", "Cc") or letter in _DIVIDERS:
            kind[point] = BLANK
        elif category == "Cf":
            kind[point] = IGNORED
        elif letter in _STRONG:
            kind[point] = STRONG
        elif letter in _JOINERS:
            kind[point] = JOINER
        elif category[0] == "P" or letter in _STOPS:
            kind[point] = STOP
    kind[0x200C] = JOINER  # splits Persian words into parts
    kind[0x0640] = IGNORED  # stretches Arabic words
    kind[0x0670] = IGNORED
    kind[0x064B:0x0660] = IGNORED  # Arabic vowel signs
    script[kind != LETTER] = OTHER
    marks = np.flatnonzero(kind == MARK)
    for first, last, name in _RANGES:  # vowel signs belong to their script
        if name not in ("Latn", "Cyrl"):
            inside = marks[(marks >= first) & (marks <= last)]
            script[inside] = NUMBER[name]
    return script, kind


def simplified() -> np.ndarray:
    """int8 of shape (65536,): 1 where a Han character is in GB 2312 and not in Big5 (simplified), -1 the other way round."""
    found = np.zeros(65536, np.int8)
    for point in range(0x4E00, 0xA000):
        inside = []
        for charset in ("gb2312", "big5"):
            try:
                chr(point).encode(charset)
                inside.append(1)
            except UnicodeEncodeError:
                inside.append(0)
        found[point] = inside[0] - inside[1]
    return found
