"""The classes of characters that the scanners of `split.py` read, asked of the installed `tokenizers` itself.

Its regular expressions know a version of Unicode of their own, older or newer than Python's: thousands of letters and numbers
differ. So all of Unicode is split by each class, and the library's answer is the table.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, pre_tokenizers

from pipelines.tokens.kernels.split import NEWLINE, NUMBER

Classes = npt.NDArray[np.uint8]

POINTS = 0x110000
_CONTRACTED = "strevmld"  # the letters of 's 't 're 've 'm 'll 'd


@cache
def class_table(patterns: tuple[tuple[int, str], ...], digits: bool, fold: bool) -> tuple[Classes, Classes]:
    """Flags of each code point, shape (0x110000,), and which of the letters strevmld it is; 0 for none.

    `patterns`: a flag and the regular expression of one character that has it; `digits`: NUMBER is what the library's `Digits`
    parts; `fold`: the letters are those of `(?i:x)`, else themselves alone. Takes a second or two, once a process.
    """
    letters = [(ord(x), f"(?i:{x})" if fold else x) for x in _CONTRACTED]
    classes = [*patterns, (NEWLINE, r"[\r\n]")]
    # a run of characters that nothing parts is of one kind, and its first character tells of which
    steps: list[Any] = [pre_tokenizers.Split(Regex(f"(?:{pattern})+"), "isolated") for _, pattern in classes]
    some_letter = f"(?i:[{_CONTRACTED}])" if fold else f"[{_CONTRACTED}]"
    steps.append(pre_tokenizers.Split(Regex(some_letter), "isolated"))  # each by itself, to be asked which
    if digits:
        steps.append(pre_tokenizers.Digits(individual_digits=False))
    text = "".join(map(chr, chain(range(0xD800), range(0xE000, POINTS))))
    runs = [run for run, _ in pre_tokenizers.Sequence(steps).pre_tokenize_str(text)]
    points, lengths = np.array(list(map(ord, text)), np.int64), [len(run) for run in runs]
    firsts = "".join(run[0] for run in runs)
    flags, folds = np.zeros(POINTS, np.uint8), np.zeros(POINTS, np.uint8)
    for flag, pattern in classes:
        flags[points[np.repeat(_matching(pattern, firsts), lengths)]] |= flag
    if digits:
        flags[points[np.repeat(_digits(firsts), lengths)]] |= NUMBER
    for letter, pattern in letters:
        folds[points[np.repeat(_matching(pattern, firsts), lengths)]] = letter
    return flags, folds


def _matching(pattern: str, characters: str) -> npt.NDArray[np.bool_]:
    matching = np.ones(len(characters), bool)
    for _, (first, last) in pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(characters):
        matching[first:last] = False
    return matching


def _digits(characters: str) -> npt.NDArray[np.bool_]:
    """Whether `Digits` parts each character from a letter before it."""
    after_letters = "".join(f"a{c}" for c in characters)
    parted = np.zeros(len(after_letters), bool)
    for _, (first, _) in pre_tokenizers.Digits(individual_digits=True).pre_tokenize_str(after_letters):
        parted[first] = True
    return parted[1::2]
