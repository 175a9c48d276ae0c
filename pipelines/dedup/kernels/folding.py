"""What the kernels know of a character: its lower-cased form in Unicode's NFKC, and when its neighbours change that form.

NFKC of a text is NFKC of its characters in a row, as long as no two of them compose and no marks change places. Unicode's quick
check (UAX #15, section 9) tells where that is so from one look at each character. Lower case depends on neighbours only for the
capital sigma. A text that fails the check goes through Python's own functions first; all tables come from Python's database.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# A word of 32 bits for each code point. Bits 0 .. 20: the folded character, or where its characters begin in `sequences`.
POINT = (1 << 21) - 1
WORD = 1 << 21  # the folded character is one of a word: str.isalnum, or "_"
UNSPACED = 1 << 22  # it is of a script written without blanks
SEVERAL = 1 << 23  # it is a sequence: its length, then its characters with WORD and UNSPACED
CHECK = 1 << 24  # what stands before matters: one of the following
COMBINES = 1 << 25  # may compose with a starter that is COMPOSABLE
COMPOSABLE = 1 << 26
SIGMA = 1 << 27  # a capital sigma: what comes after matters
CASED = 1 << 28  # a letter with case: a sigma before it is no final one

# Thai, Lao, Hangul, kana, CJK ideographs with their extensions and compatibility forms (after NFKC no half-width form is left)
UNSPACED_RANGES = (
    (0x0E00, 0x0EFF), (0x1100, 0x11FF), (0x3000, 0x30FF), (0x3130, 0x318F), (0x31F0, 0x31FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF),
)  # fmt: skip
_CAPITAL_SIGMA = "\u03a3"
_SURROGATES = range(0xD800, 0xE000)
_JAMO = ((0x1100, 0x1113), (0x1161, 0x1176), (0x11A8, 0x11C3))  # leading, vowel, trailing: these compose by arithmetic
_BLOCK = 256


class Folding(NamedTuple):
    """`table`: (0x110000,), see above; `ascii`: (256,) the folded word characters of ASCII, 0 for the others of it, 255 for
    bytes beyond; `before`, `after`: (0x110000,) combining classes of the first and last character of the NFKC form.
    """

    table: npt.NDArray[np.uint32]
    sequences: npt.NDArray[np.uint32]
    ascii: npt.NDArray[np.uint8]
    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]


def normalise(text: str) -> str:
    """NFKC, then lower case."""
    return unicodedata.normalize("NFKC", text).lower()


@cache
def folding() -> Folding:
    """The tables, once a process: about a quarter of a second."""
    points = sys.maxunicode + 1
    characters = list(map(chr, range(points)))
    classes = np.fromiter(map(unicodedata.combining, characters), np.uint8, points)
    word = np.fromiter(map(str.isalnum, characters), np.bool_, points)
    word[ord("_")] = True
    own = word * np.uint32(WORD)
    for first, last in UNSPACED_RANGES:
        own[first : last + 1] |= UNSPACED
    firsts, seconds = _compositions()
    composable = np.zeros(points, np.bool_)
    composable[firsts] = True
    table = own | np.arange(points, dtype=np.uint32)
    table |= composable * np.uint32(COMPOSABLE)
    before, after = classes.copy(), classes.copy()
    sequences: list[int] = []
    combines = np.zeros(points, np.bool_)
    combines[seconds] = True
    table |= combines * np.uint32(COMBINES)
    for point in _changing():
        form = unicodedata.normalize("NFKC", chr(point))
        folded = form.lower()
        before[point], after[point] = classes[ord(form[0])], classes[ord(form[-1])]
        flags = COMBINES * int(combines[ord(form[0])]) | COMPOSABLE * int(composable[_starter(form)])
        flags |= SIGMA * (_CAPITAL_SIGMA in form) | CASED * (unicodedata.category(form[0]) in ("Lu", "Ll", "Lt"))
        if len(folded) == 1:
            table[point] = own[ord(folded)] | ord(folded) | flags
        else:
            table[point] = len(sequences) | flags | SEVERAL
            sequences += [len(folded), *(int(own[ord(c)]) | ord(c) for c in folded)]
    lower = np.flatnonzero(np.fromiter(map(str.islower, characters), np.bool_, points))
    table[[point for point in lower if unicodedata.category(characters[point]) == "Ll"]] |= CASED
    table |= (((table & (COMBINES | SIGMA)) > 0) | (before > 0)) * np.uint32(CHECK)
    folded_ascii = np.full(256, 255, np.uint8)
    folded_ascii[:128] = np.where(table[:128] & WORD, table[:128] & POINT, 0)
    result = Folding(table, np.array(sequences, np.uint32), folded_ascii, before, after)
    for array in result:
        array.flags.writeable = False
    return result


def _changing() -> Iterator[int]:
    """Every code point that folding changes (and some more): most blocks of code points hold none."""
    for block in range(0, sys.maxunicode + 1, _BLOCK):
        if block in _SURROGATES:
            continue
        text = "".join(map(chr, range(block, block + _BLOCK)))
        if unicodedata.normalize("NFKC", text) != text or text.lower() != text:
            yield from range(block, block + _BLOCK)


def _compositions() -> tuple[list[int], list[int]]:
    """The code points whose decomposition begins with one that composes with a following one; those that follow."""
    begins, seconds, pairs = {}, set(), set()
    for block in range(0, sys.maxunicode + 1, _BLOCK):
        if block in _SURROGATES:
            continue
        text = "".join(map(chr, range(block, block + _BLOCK)))
        if unicodedata.normalize("NFD", text) == text:
            continue
        for point in range(block, block + _BLOCK):
            parts = unicodedata.decomposition(chr(point)).split()
            if len(parts) == 2 and not parts[0].startswith("<"):
                pairs.add(int(parts[0], 16))
                seconds.add(int(parts[1], 16))
            begins[point] = ord(unicodedata.normalize("NFD", chr(point))[0])
    for first, last in _JAMO[1:]:
        seconds.update(range(first, last))
    pairs.update(range(*_JAMO[0]))
    firsts = pairs | {point for point, begin in begins.items() if begin in pairs}
    return sorted(firsts), sorted(seconds)


def _starter(form: str) -> int:
    """The last character that marks after `form` could compose with: its last of combining class 0, or its first."""
    starters = [c for c in form if not unicodedata.combining(c)]
    return ord(starters[-1] if starters else form[0])
