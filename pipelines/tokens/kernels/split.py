"""The patterns of the presets as scanners: where the piece that begins at a byte ends. Texts are valid UTF-8.

A scanner reads classes of characters from a table (`classes.py`), so it agrees with the regular expressions of the installed
library, whatever version of Unicode that knows.
"""

from __future__ import annotations

from typing import Any

from pipelines.kernel import inlined, kernel

# classes of a character
SPACE = 1  # \s
LETTER = 2  # \p{L}; for deepseek_llm the cased letters of its second pattern
NUMBER = 4  # \p{N}; for deepseek_llm what its digits are
NEWLINE = 8  # \r and \n
MARK = 16  # the class of deepseek_llm's third pattern
WIDE = 32  # the class of its fifth: CJK and all else from U+0800
WORD = LETTER | NUMBER

# presets
GPT2 = 0
LLAMA3 = 1
DEEPSEEK = 2

_APOSTROPHE = 0x27
_BLANK = 0x20


@inlined
def width(lead: Any) -> Any:
    """Bytes of the character that begins with this byte."""
    return 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


@inlined
def point_at(data: Any, i: Any) -> Any:
    """The code point that begins at byte i."""
    lead = int(data[i])
    if lead < 0x80:
        point = lead
    elif lead < 0xE0:
        point = (lead & 0x1F) << 6 | (int(data[i + 1]) & 0x3F)
    elif lead < 0xF0:
        point = (lead & 0x0F) << 12 | (int(data[i + 1]) & 0x3F) << 6 | (int(data[i + 2]) & 0x3F)
    else:
        point = (
            (lead & 0x07) << 18 | (int(data[i + 1]) & 0x3F) << 12 | (int(data[i + 2]) & 0x3F) << 6 | (int(data[i + 3]) & 0x3F)
        )
    return point


@kernel
def piece_end(preset: int, data: Any, classes: Any, folds: Any, i: int, end: int) -> Any:
    """Where the piece ends that begins at byte i < end; `end` is that of the text."""
    if preset == DEEPSEEK:
        return _deepseek(data, classes, i, end)
    return _one_pattern(data, classes, folds, i, end, preset == LLAMA3)


@kernel
def _class_at(data: Any, classes: Any, i: int, end: int) -> int:
    return int(classes[point_at(data, i)]) if i < end else 0


@kernel
def _run(data: Any, classes: Any, i: int, end: int, wanted: int) -> Any:
    """The end of the run of characters from i of a class of `wanted`."""
    while i < end and classes[point_at(data, i)] & wanted:
        i += width(data[i])
    return i


@kernel
def _others(data: Any, classes: Any, i: int, end: int) -> Any:
    """The end of the run of characters from i that are neither blank nor letter nor number."""
    while i < end and not classes[point_at(data, i)] & (SPACE | WORD):
        i += width(data[i])
    return i


@kernel
def _contraction(data: Any, folds: Any, i: int, end: int) -> Any:
    """The end of 's 't 're 've 'm 'll 'd, of which the apostrophe lies at i; i where there is none."""
    i += 1
    if i >= end:
        return i - 1
    one, after = folds[point_at(data, i)], i + width(data[i])
    if one == 115 or one == 116 or one == 109 or one == 100:  # s t m d
        return after
    if after < end and (one == 114 or one == 118 or one == 108):
        two = folds[point_at(data, after)]
        if (two == 108 and one == 108) or (two == 101 and one != 108):  # ll; re ve
            return after + width(data[after])
    return i - 1


@kernel
def _one_pattern(data: Any, classes: Any, folds: Any, i: int, end: int, llama: bool) -> Any:
    """gpt2, and llama3 with its four differences: letters take any one character that is no word character before them,
    numbers come in threes, marks take newlines, blanks end after the last newline.
    """
    if data[i] == _APOSTROPHE:
        after = _contraction(data, folds, i, end)
        if after > i:
            return after
    blank, kind, after = data[i] == _BLANK, int(classes[point_at(data, i)]), i + width(data[i])
    second = _class_at(data, classes, after, end)
    if kind & LETTER or (second & LETTER and (not kind & (NEWLINE | WORD) if llama else blank)):
        return _run(data, classes, after, end, LETTER)
    if kind & NUMBER and llama:
        if second & NUMBER:
            after += width(data[after])
            if _class_at(data, classes, after, end) & NUMBER:
                after += width(data[after])
        return after
    if kind & NUMBER or (not llama and blank and second & NUMBER):
        return _run(data, classes, after, end, NUMBER)
    if not kind & (SPACE | WORD) or (blank and after < end and not second & (SPACE | WORD)):
        after = _others(data, classes, after, end)
        return _run(data, classes, after, end, NEWLINE) if llama else after
    return _blanks(data, classes, i, end, llama)


@kernel
def _blanks(data: Any, classes: Any, i: int, end: int, llama: bool) -> Any:
    """A run of blanks from i: to its last newline (llama3); else all if the text ends there, or all but the last of several."""
    newline, last, k = i, i, i
    while k < end:
        kind = classes[point_at(data, k)]
        if not kind & SPACE:
            break
        last = k
        k += width(data[k])
        if kind & NEWLINE:
            newline = k
    if llama and newline > i:
        return newline
    return k if k == end or last == i else last


@kernel
def _deepseek(data: Any, classes: Any, i: int, end: int) -> Any:
    """The five patterns of deepseek_llm and its digits as one rule: two characters are parted or not by what they are and by
    what follows them, whatever comes before.
    """
    kind = int(classes[point_at(data, i)])
    i += width(data[i])
    while i < end:
        right = int(classes[point_at(data, i)])
        if (kind ^ right) & WIDE or (kind | right) & NUMBER or _parted(data, classes, kind, right, i, end):
            return i
        if right & SPACE and not kind & SPACE and _blanks_end_a_piece(data, classes, i, end):
            return i
        kind = right
        i += width(data[i])
    return i


@kernel
def _parted(data: Any, classes: Any, left: int, right: int, i: int, end: int) -> bool:
    """Whether the first three patterns part two characters, of which the second lies at i."""
    if (left | right) & NEWLINE:
        return True
    # letters, and a blank before them
    if right & LETTER:
        if not left & (SPACE | LETTER):
            return True
    elif left & LETTER:
        return True
    # marks, and a blank before them
    if right & MARK:
        if not left & (SPACE | MARK):
            return True
    elif left & MARK:
        return True
    if not right & SPACE:
        return False
    i += width(data[i])
    after = _class_at(data, classes, i, end)
    if after & LETTER:
        return True
    if right & MARK or not after & MARK:
        return False
    # an ideographic space is a mark itself, but goes to the letters that follow it
    return not (after & SPACE and _class_at(data, classes, i + width(data[i]), end) & LETTER)


@kernel
def _blanks_end_a_piece(data: Any, classes: Any, i: int, end: int) -> bool:
    """Whether nothing but the blanks from i on is left of the piece that the first three patterns make: the fourth."""
    left = int(classes[point_at(data, i)])
    i += width(data[i])
    while i < end:
        right = int(classes[point_at(data, i)])
        if _parted(data, classes, left, right, i, end):
            return True
        if not right & SPACE:
            return False
        left = right
        i += width(data[i])
    return True
