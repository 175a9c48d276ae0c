"""What the kernels know of a character: one 32-bit word of flags for each code point, looked up as the text is decoded.

The classes of Unicode come from Python's own database, so that `isspace`, `isalpha` and `splitlines` mean here what they mean
in Python. Those of the English tokenizer come from `spacy_english.json`, those of datatrove's rules from the sets it publishes.
"""

from __future__ import annotations

import json
import string
import sys
import unicodedata
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.filter import read_data

Flags = npt.NDArray[np.uint32]

SPACE = 1 << 0  # str.isspace
BREAK = 1 << 1  # ends a line for str.splitlines
ALPHA = 1 << 2  # str.isalpha
DIGIT = 1 << 3  # str.isdecimal
ALNUM = 1 << 4  # str.isalnum
UPPER = 1 << 5  # str.isupper
PUNCT = 1 << 6  # categories P*
MARK = 1 << 7  # categories M*, joiners, variation selectors
CJK = 1 << 8  # scripts without blanks: Han, kana
SEA = 1 << 9  # Thai, Lao, Khmer, Burmese
SENTENCE = 1 << 10  # ends a sentence: Unicode Sentence_Terminal, which is also datatrove's TERMINAL_PUNCTUATION
CLOSING = 1 << 11  # a quote or bracket that may follow such a mark
NO_WORD = 1 << 12  # in datatrove's PUNCTUATION_SET: a token of such characters alone is no word
BROKEN = 1 << 14  # replacement and control characters
PAUSE = 1 << 15  # colon, comma, semicolon, ellipsis: a line that ends so is running text
CASED = 1 << 17  # upper, lower or title case
# spaCy's English tokenizer
PREFIX = 1 << 18  # a token of its own at the beginning of a word
SUFFIX = 1 << 19  # the same at its end
INFIX = 1 << 20  # the same inside
LOWER = 1 << 21  # "lower": letters of small case, and of scripts without case
CAPITAL = 1 << 22  # "upper": capitals, and letters of scripts without case
LETTER = 1 << 23  # a letter in the sense of its infix rules
QUOTE = 1 << 24
CURRENCY = 1 << 25
BEFORE_POINT = 1 << 26  # a point after it ends the word
MARKS = 1 << 27  # ends a sentence for its sentencizer
PLAIN = 1 << 28  # a letter that starts, ends or splits nothing
HOST = 1 << 29  # in a host name of its URL pattern
UNSPACED = CJK | SEA

CHARS_PER_WORD_CJK = 2  # jieba and MeCab words have a mean of 1.6 to 2 characters in running text
CHARS_PER_WORD_SEA = 3  # about 3 letters a word, marks aside

_CJK = ((0x3005, 0x3007), (0x3041, 0x3096), (0x30A1, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
        (0xFF66, 0xFF9F), (0x20000, 0x323AF))  # fmt: skip
_SEA = ((0x0E01, 0x0E4F), (0x0E81, 0x0ECF), (0x1000, 0x103F), (0x1050, 0x108F), (0x1780, 0x17D3))
# Unicode Sentence_Terminal (PropList.txt)
_SENTENCE = (
    "0021 002E 003F 0589 061D-061F 06D4 0700-0702 07F9 0837 0839 083D-083E 0964-0965 104A-104B 1362 1367-1368 166E 1735-1736 "
    "17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 "
    "2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 "
    "FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD "
    "111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 "
    "11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F 1DA88"
)
_CLOSING = "\"'\u2019\u201d\u00bb\u203a\u300d\u300f\u3011\uff09)]"
_PAUSES = ":;,\u2026\uff1a\uff1b\u3001\uff0c"
# datatrove 0.10.1, utils/text.py, PUNCTUATION_SET: ASCII punctuation, these, control characters and Sentence_Terminal.
_NO_WORD = (
    string.punctuation
    + "\u2014\u201d\uff05\uff11\u3008\u3001\u2501\u3010\u3011\u300c\uff0c\u300d\uff1b\u201c\u300a\u201e\u2019\u2236\u00b4\uff0e"
    "\u2013\uff08\uff1f\uff1a\uff01\uff5e\u00ab\u3009\u300b\uff09\u3002\u2026\u25ba\u00bb"
)


def _points(ranges: list[str]) -> list[tuple[int, int]]:
    pairs = [r.partition("-") for r in ranges]
    return [(int(a, 16), int(b or a, 16)) for a, _, b in pairs]


@cache
def spacy_english() -> dict[str, Any]:
    """The tables of spaCy's English tokenizer, as `spacy_english.json` has them."""
    data: dict[str, Any] = json.loads(read_data("spacy_english.json"))
    return data


@cache
def flags() -> Flags:
    """The flags of every code point, shape (0x110000,). About a quarter of a second, once a process."""
    table = np.zeros(sys.maxunicode + 1, np.uint32)
    characters = list(map(chr, range(sys.maxunicode + 1)))
    for flag, test in ((SPACE, str.isspace), (ALPHA, str.isalpha), (DIGIT, str.isdecimal), (ALNUM, str.isalnum),
                       (UPPER, str.isupper)):  # fmt: skip
        table |= np.fromiter(map(test, characters), np.bool_, len(table)) * np.uint32(flag)
    cased = np.fromiter((c.islower() or c.istitle() for c in characters), np.bool_, len(table))
    table |= (cased | ((table & UPPER) > 0)) * np.uint32(CASED)
    categories = np.fromiter((ord(unicodedata.category(c)[0]) for c in characters), np.uint8, len(table))
    table |= (categories == ord("P")) * np.uint32(PUNCT)
    table |= (categories == ord("M")) * np.uint32(MARK)
    for a, b in ((0x200C, 0x200D), (0xE0100, 0xE01EF)):
        table[a : b + 1] |= MARK
    for flag, ranges in ((CJK, _CJK), (SEA, _SEA), (BROKEN, ((0x00, 0x08), (0x0E, 0x1F), (0x7F, 0x9F), (0xFFFD, 0xFFFD))),
                         (NO_WORD, ((0x00, 0x08), (0x0B, 0x1F), (0x7F, 0x9F)))):  # fmt: skip
        for a, b in ranges:
            table[a : b + 1] |= flag
    for flag, marks in ((BREAK, "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), (CLOSING, _CLOSING), (PAUSE, _PAUSES),
                        (NO_WORD, _NO_WORD)):  # fmt: skip
        for point in map(ord, marks):
            table[point] |= flag
    for a, b in _points(_SENTENCE.split()):
        table[a : b + 1] |= SENTENCE | NO_WORD
    _add_spacy(table)
    table.flags.writeable = False
    return table


@cache
def lower() -> npt.NDArray[np.int32]:
    """The lower case of every code point that has one of a single character, shape (0x110000,)."""
    small = (chr(point).lower() for point in range(sys.maxunicode + 1))
    table = np.array([ord(c) if len(c) == 1 else point for point, c in enumerate(small)], np.int32)
    table.flags.writeable = False
    return table


@cache
def normal() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Lower case of every code point in Unicode's form NFD: where it begins, shape (0x110001,), and all of them in a row."""
    forms = [unicodedata.normalize("NFD", chr(point).lower()) for point in range(sys.maxunicode + 1)]
    first = np.zeros(len(forms) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, forms), np.int32, len(forms)), out=first[1:])
    return first, np.fromiter(map(ord, "".join(forms)), np.int32, first[-1])


def _add_spacy(table: Flags) -> None:
    data = spacy_english()
    both = {"uncased": LOWER | CAPITAL | LETTER | BEFORE_POINT, "lower": LOWER | LETTER | BEFORE_POINT,
            "upper": CAPITAL | LETTER,
            "other_letter": LETTER, "icon": INFIX, "quote": QUOTE, "affix": PREFIX | SUFFIX, "prefix_only": PREFIX,
            "before_point": BEFORE_POINT, "sentence_mark": MARKS}  # fmt: skip
    for name, flag in both.items():
        for start, end in _points(data[name]):
            table[start : end + 1] |= flag
    for sign in data["currency"]:
        if len(sign) == 1:
            table[ord(sign)] |= CURRENCY
    table[ord("\u2026")] |= INFIX
    table[0xA1:0x10000] |= HOST
    for a, b in ("09", "AZ", "az"):
        table[ord(a) : ord(b) + 1] |= HOST
    plain = ((table & ALPHA) > 0) & ((table & (PREFIX | SUFFIX | INFIX)) == 0)
    table |= plain * np.uint32(PLAIN)
