"""Text as characters and pieces of it as tokens, in kernels; the words of spaCy's English tokenizer are in `english.py`.

*Ours* are the same tokens, but a script that writes no blanks (Han, kana, Thai, Lao, Khmer, Burmese) gives one token a
character with its combining marks: no dictionary, so every machine and every version agrees.

A kernel works on one document: `points` its code points, `flag` their flags (`unicode.py`), `n` how many; invalid UTF-8 becomes
U+FFFD. Tokens are four parallel arrays: first character, length in characters, 64-bit hash, and KIND bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.filter.kernels.unicode import ALNUM, ALPHA, DIGIT, MARK, MARKS, NO_WORD, PUNCT, SPACE, UNSPACED
from pipelines.kernel import borrowed, inlined, kernel

# KIND bits of a token
HAS_LETTER = 1  # a letter
IS_WORD = 2  # more than datatrove's punctuation
IS_PUNCT = 4  # nothing but punctuation (categories P*)
IS_MARK = 8  # one of the sentencizer's marks
IS_UNSPACED = 16  # has a character of a script without blanks
STARTS_ALNUM = 32  # its first character is a letter or a digit
HASH_BASIS = np.uint64(0xCBF29CE484222325)  # FNV-1a
HASH_PRIME = np.uint64(0x100000001B3)


class Tokens(NamedTuple):
    """Tokens of one document at a time: arrays that hold any document of the batch, and scratch of the same size."""

    start: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]
    hash: npt.NDArray[np.uint64]
    kind: npt.NDArray[np.uint8]
    suffix: npt.NDArray[np.int32]


def token_buffers(size: int) -> Tokens:
    """Buffers for documents of at most `size` characters: 21 bytes a character."""
    number = max(size, 1)
    return Tokens(
        np.empty(number, np.int32),
        np.empty(number, np.int32),
        np.empty(number, np.uint64),
        np.empty(number, np.uint8),
        np.empty(number, np.int32),
    )


def hash_text(text: str) -> np.uint64:
    """The hash of a token with this text, as the kernels give it."""
    value, mask = int(HASH_BASIS), (1 << 64) - 1
    for c in text:
        value = (value ^ ord(c)) * int(HASH_PRIME) & mask
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & mask
    return np.uint64(value ^ value >> 33 | 1)


@kernel
def decode(data: Any, first: int, last: int, table: Any, points: Any, flag: Any) -> int:
    """Code points and flags of UTF-8 in data[first:last]; returns how many. Invalid bytes give U+FFFD (maximal subparts)."""
    n = 0
    i = first
    while i < last:
        b = np.int64(data[i])
        if b < 0x80:
            points[n] = b
            flag[n] = table[b]
            n += 1
            i += 1
            continue
        need, low, high, point = 0, 0x80, 0xBF, np.int64(0xFFFD)
        if 0xC2 <= b <= 0xDF:
            need, point = 1, b & 0x1F
        elif 0xE0 <= b <= 0xEF:
            need, point = 2, b & 0x0F
            if b == 0xE0:
                low = 0xA0
            elif b == 0xED:
                high = 0x9F
        elif 0xF0 <= b <= 0xF4:
            need, point = 3, b & 0x07
            if b == 0xF0:
                low = 0x90
            elif b == 0xF4:
                high = 0x8F
        i += 1
        for _ in range(need):
            if i >= last or data[i] < low or data[i] > high:
                point = np.int64(0xFFFD)
                break
            point = (point << 6) | (np.int64(data[i]) & 0x3F)
            low, high = 0x80, 0xBF
            i += 1
        points[n] = point
        flag[n] = table[point]
        n += 1
    return n


@inlined
def mix(x: Any) -> Any:
    """Half of MurmurHash3's finaliser; never 0, which marks an empty slot."""
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    return x | np.uint64(1)


@kernel
def hash_points(points: Any, first: int, last: int) -> Any:
    """The hash of points[first:last], FNV-1a over code points, mixed."""
    value = HASH_BASIS
    for i in range(first, last):
        value = (value ^ np.uint64(points[i])) * HASH_PRIME
    return mix(value)


@inlined
def is_digit(point: int) -> bool:
    """Whether it is an ASCII digit."""
    return 48 <= point <= 57


@inlined
def finish(points: Any, flag: Any, tokens: Any, begin: int, count: int) -> None:
    """Hash and KIND of the tokens from `begin` on."""
    for k in range(begin, count):
        first, last = tokens.start[k], tokens.start[k] + tokens.length[k]
        value, any_of, all_of = HASH_BASIS, np.uint32(0), np.uint32(0xFFFFFFFF)
        for i in range(first, last):
            value = (value ^ np.uint64(points[i])) * HASH_PRIME
            any_of |= flag[i]
            all_of &= flag[i]
        tokens.hash[k] = mix(value)
        tokens.kind[k] = kind_of(any_of, all_of, flag[first], last - first)


@inlined
def kind_of(any_of: Any, all_of: Any, first: Any, length: int) -> int:
    """KIND of a token from the flags of its characters."""
    kind = HAS_LETTER if any_of & ALPHA else 0
    if not all_of & NO_WORD:
        kind |= IS_WORD
    if all_of & PUNCT:
        kind |= IS_PUNCT
    if length == 1 and first & MARKS:
        kind |= IS_MARK
    if any_of & UNSPACED:
        kind |= IS_UNSPACED
    if first & ALNUM:
        kind |= STARTS_ALNUM
    return kind


@inlined
def add_token(tokens: Any, count: int, first: int, last: int, value: Any, any_of: Any, all_of: Any, flag: Any) -> int:
    """Write one token; returns the new count."""
    tokens.start[count] = first
    tokens.length[count] = last - first
    tokens.hash[count] = mix(value)
    tokens.kind[count] = kind_of(any_of, all_of, flag, last - first)
    return count + 1


@kernel
def split_unspaced(flag: Any, points: Any, tokens: Any, count: int, result: Any) -> int:
    """Ours of the tokens: a character of a script without blanks is one, with its marks; returns how many."""
    made = 0
    for k in range(count):
        if not tokens.kind[k] & IS_UNSPACED:
            result.start[made] = tokens.start[k]
            result.length[made] = tokens.length[k]
            result.hash[made] = tokens.hash[k]
            result.kind[made] = tokens.kind[k]
            made += 1
            continue
        first, last = tokens.start[k], tokens.start[k] + tokens.length[k]
        begin = made
        i = first
        while i < last:
            start = i
            if flag[i] & UNSPACED:
                i += 1
                while i < last and flag[i] & MARK:
                    i += 1
            else:
                while i < last and not flag[i] & UNSPACED:
                    i += 1
            result.start[made] = start
            result.length[made] = i - start
            made += 1
        finish(points, flag, result, begin, made)
    return made


@kernel
def split_blanks(points: Any, flag: Any, first: int, last: int, tokens: Any) -> int:
    """The words of `str.split()`; returns how many."""
    count = 0
    i = first
    while i < last:
        if flag[i] & SPACE:
            i += 1
            continue
        begin = i
        value, any_of, all_of = HASH_BASIS, np.uint32(0), np.uint32(0xFFFFFFFF)
        while i < last and not flag[i] & SPACE:
            value = (value ^ np.uint64(points[i])) * HASH_PRIME
            any_of |= flag[i]
            all_of &= flag[i]
            i += 1
        count = add_token(tokens, count, begin, i, value, any_of, all_of, flag[begin])
    return count


@kernel
def split_segments(points: Any, flag: Any, first: int, last: int, tokens: Any) -> int:
    """The segments of Unicode's UAX 29 that begin with a letter or digit, as DCLM takes them from uniseg; returns how many.

    Han, hiragana and scripts such as Thai give one segment a character, katakana runs stay together.
    """
    count = 0
    i = first
    while i < last:
        if not flag[i] & ALNUM and not _is_connector(points[i]):
            i += 1
            continue
        begin = i
        while i < last and points[i] < 128 and flag[i] & ALNUM:  # ASCII letters and digits stay together
            i += 1
        if i == begin or (i < last and not flag[i] & SPACE):
            i = _segment_end(points, flag, begin, last)
        if not flag[begin] & ALNUM:
            continue
        value, any_of, all_of = HASH_BASIS, np.uint32(0), np.uint32(0xFFFFFFFF)
        for k in range(begin, i):
            value = (value ^ np.uint64(points[k])) * HASH_PRIME
            any_of |= flag[k]
            all_of &= flag[k]
        tokens.start[count] = begin
        tokens.length[count] = i - begin
        tokens.hash[count] = mix(value)
        tokens.kind[count] = kind_of(any_of, all_of, flag[begin], i - begin)
        count += 1
    return count


@kernel
def _segment_end(points: Any, flag: Any, begin: int, last: int) -> int:
    """The end of the segment that begins with a letter, a digit or a connector such as "_" (WB3 to WB13b of UAX 29)."""
    base, i = begin, begin + 1  # the last character that is no mark; the next one
    alone = flag[begin] & ALNUM and not _joins(points[begin], flag[begin])
    while i < last:
        point = points[i]
        if flag[i] & MARK or _is_format(point):
            i += 1
            continue
        if alone:
            return i
        if flag[i] & ALNUM:
            if not _joins(point, flag[i]):
                return i
            if not _is_connector(points[base]) and _is_katakana(points[base]) != _is_katakana(point):
                return i
        elif not _is_connector(point):
            hebrew = 0x5D0 <= points[base] <= 0x5EA
            after = i + 1
            while after < last and (flag[after] & MARK or _is_format(points[after])):
                after += 1
            inside = after < last and _is_inside(points, flag, base, i, after, hebrew)
            if not inside and not (hebrew and point == 39):
                return i
            if inside:
                i = after
        base = i
        i += 1
    return i


@inlined
def _joins(point: int, f: Any) -> bool:
    """Whether a letter or digit makes segments with others: no ideograph, hiragana, Thai, superscript or circled number."""
    if f & UNSPACED:
        return _is_katakana(point)
    return (f & (ALPHA | DIGIT)) != 0 or 0x2160 <= point <= 0x2188


@kernel
def _is_inside(points: Any, flag: Any, before: int, at: int, after: int, hebrew: bool) -> bool:
    """Whether a mark stays inside a segment, between two letters or two digits."""
    point = points[at]
    if flag[before] & DIGIT and flag[after] & DIGIT:
        if (
            point == 0x2C
            or point == 0x3B
            or point == 0x37E
            or point == 0x589
            or point == 0x60C
            or point == 0x66C
            or point == 0x2044
        ):
            return True
        if point == 0xFF0C or point == 0xFF1B:
            return True
    elif not (flag[before] & ALPHA and flag[after] & ALPHA) or (flag[before] | flag[after]) & UNSPACED:
        return False
    elif (
        point == 0x3A
        or point == 0xB7
        or point == 0x387
        or point == 0x55F
        or point == 0x5F4
        or point == 0x2027
        or point == 0xFF1A
        or (hebrew and point == 0x22 and 0x5D0 <= points[after] <= 0x5EA)
    ):
        return True
    return bool(
        point == 0x27
        or point == 0x2E
        or point == 0x2018
        or point == 0x2019
        or point == 0x2024
        or point == 0xFF07
        or point == 0xFF0E
    )


@inlined
def _is_connector(point: int) -> bool:
    return point == 95 or (
        point > 0x2000 and (point == 0x202F or 0x203F <= point <= 0x2040 or point == 0x2054 or 0xFE33 <= point <= 0xFE34
                            or 0xFE4D <= point <= 0xFE4F or point == 0xFF3F)
    )  # fmt: skip


@inlined
def _is_format(point: int) -> bool:
    """Characters that UAX 29 looks through, beside combining marks: soft hyphens, directions, half-width voiced marks."""
    return point == 0xAD or (
        point > 0x600 and (point == 0x61C or 0x200E <= point <= 0x200F or 0x202A <= point <= 0x202E or 0x2060 <= point <= 0x206F
                           or point == 0xFEFF or 0xFF9E <= point <= 0xFF9F or 0xFFF9 <= point <= 0xFFFB)
    )  # fmt: skip


@kernel
def _is_katakana(point: int) -> bool:
    return 0x30A1 <= point <= 0x30FF or 0xFF66 <= point <= 0xFF9D


@kernel
def split_normalised(points: Any, flag: Any, first: int, last: int, normal: Any, tokens: Any) -> int:
    """RedPajama-v2's words: ASCII punctuation taken out, lower case, accents apart (NFD), cut at blanks; returns how many.

    `normal` is `unicode.normal`. Lengths and hashes are those of the words so changed.
    """
    places, letters = normal
    count = 0
    i = first
    while i < last:
        if flag[i] & SPACE:
            i += 1
            continue
        begin = i
        length = 0
        value, any_of, all_of = HASH_BASIS, np.uint32(0), np.uint32(0xFFFFFFFF)
        while i < last and not flag[i] & SPACE:
            point = points[i]
            if point >= 128:
                for k in range(places[point], places[point + 1]):
                    value = (value ^ np.uint64(letters[k])) * HASH_PRIME
                    length += 1
                any_of |= flag[i]
                all_of &= flag[i]
            elif not is_ascii_punctuation(point):
                value = (value ^ np.uint64(point | 32 if 65 <= point <= 90 else point)) * HASH_PRIME
                length += 1
                any_of |= flag[i]
                all_of &= flag[i]
            i += 1
        if length:
            tokens.start[count] = begin
            tokens.length[count] = length
            tokens.hash[count] = mix(value)
            tokens.kind[count] = kind_of(any_of, all_of, flag[begin], length)
            count += 1
    return count


@inlined
def is_ascii_punctuation(point: int) -> bool:
    """Whether the character is in Python's `string.punctuation`."""
    return 33 <= point <= 47 or 58 <= point <= 64 or 91 <= point <= 96 or 123 <= point <= 126


@inlined
def borrow_tokens(t: Any) -> Any:
    """The buffers without reference counts, in a kernel."""
    return Tokens(borrowed(t.start), borrowed(t.length), borrowed(t.hash), borrowed(t.kind), borrowed(t.suffix))
