"""From bytes to hashed units: words, or single characters, folded as they are read. Read `fill` first."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.dedup.kernels.folding import (
    CASED,
    CHECK,
    COMBINES,
    COMPOSABLE,
    POINT,
    SEVERAL,
    SIGMA,
    UNSPACED,
    WORD,
)
from pipelines.kernel import kernel

UNDERSCORE = 95
MOST = 32  # units that one character may become, at most
_SEED = np.uint64(0xAF251AF3B0F025B5)
_WIDE = np.uint64(0x800000)
_33, _8 = np.uint64(33), np.uint64(8)
_ONE, _TWO = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)


@kernel
def mix64(x: Any) -> Any:
    """MurmurHash3's 64-bit finaliser: a bijection in which every input bit moves every output bit."""
    x ^= x >> _33
    x *= _ONE
    x ^= x >> _33
    x *= _TWO
    return x ^ (x >> _33)


@kernel
def is_ascii(data: Any, first: int, last: int) -> bool:
    """Whether no byte of data[first:last] is beyond ASCII."""
    every: Any = np.uint8(0)
    for i in range(first, last):
        every |= data[i]
    return bool(every < 128)


@kernel
def decode(data: Any, i: int, last: int) -> tuple[int, int]:
    """The code point beyond ASCII at data[i], and where the next begins; -1 for a point where it is broken."""
    b: Any = np.int64(data[i])
    if b < 0xE0:
        if b < 0xC2 or i + 1 >= last or data[i + 1] & 0xC0 != 0x80:
            return -1, i + 1
        return (b & 0x1F) << 6 | (np.int64(data[i + 1]) & 0x3F), i + 2
    if b < 0xF0:
        if i + 2 >= last or data[i + 1] & 0xC0 != 0x80 or data[i + 2] & 0xC0 != 0x80:
            return -1, i + 1
        point = (b & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (np.int64(data[i + 2]) & 0x3F)
        return -1 if point < 0x800 or 0xD800 <= point < 0xE000 else point, i + 3
    if i + 3 >= last or data[i + 1] & 0xC0 != 0x80 or data[i + 2] & 0xC0 != 0x80 or data[i + 3] & 0xC0 != 0x80:
        return -1, i + 1
    point = (b & 0x07) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12
    point |= (np.int64(data[i + 2]) & 0x3F) << 6 | (np.int64(data[i + 3]) & 0x3F)
    return -1 if b > 0xF4 or not 0x10000 <= point < 0x110000 else point, i + 4


@kernel
def survey(data: Any, first: int, last: int, folding: Any, folded: bool) -> tuple[int, int]:
    """The characters of the folded text, and how many of them belong to scripts without blanks.

    (-1, -1) where the text must be folded by Python first: characters interact, or bytes are broken. `folded`: it has been.
    """
    chars: Any = 0
    unspaced, i = 0, first
    starter: Any = np.uint32(0)
    after, sigma = 0, False
    while i < last:
        if data[i] < 128:
            begin = i
            while i < last and data[i] < 128:
                i += 1
            chars += i - begin
            if sigma and not folding.table[data[begin]] & CASED:
                return -1, -1
            starter, after, sigma = folding.table[data[i - 1]], 0, False
            continue
        point, i = decode(data, i, last)
        if point < 0:
            return -1, -1
        word = folding.table[point]
        if not folded:
            if sigma and not word & CASED:
                return -1, -1
            sigma = False
            if word & CHECK:
                before = folding.before[point]
                if (0 < before < after) or (word & COMBINES and starter & COMPOSABLE):
                    return -1, -1
                sigma = (word & SIGMA) != 0
                if sigma and word & SEVERAL:
                    return -1, -1
                if before == 0:
                    starter = word
            else:
                starter = word
            after = folding.after[point]
        if word & SEVERAL:
            place: Any = np.int64(word & POINT)
            number: Any = np.int64(folding.sequences[place])
            chars += number
            for k in range(place + 1, place + 1 + number):
                unspaced += (folding.sequences[k] & UNSPACED) != 0
        else:
            chars += 1
            unspaced += (word & UNSPACED) != 0
    return (-1, -1) if sigma else (chars, unspaced)


@kernel
def fill(data: Any, i: int, last: int, single: bool, folding: Any, units: Any, n: int, state: Any) -> tuple[int, int]:
    """Hash the units from data[i] on to units[n:] until these are full; returns where it stopped and the new n.

    The bytes must have passed `survey`. A word is hashed in pieces of up to eight bytes: one for a character of ASCII, three
    with the highest bit set for others, so that no two words have the same pieces. `state` (3,) carries a word that is not
    yet at its end from call to call; `begin` sets it.
    """
    limit = len(units) - MOST
    table, ascii, sequences = folding.table, folding.ascii, folding.sequences
    h, piece = state[0], state[1]
    used: Any = np.int64(state[2])
    while i < last and n < limit:
        c: Any = np.int64(ascii[data[i]])
        if c == 0:
            i += 1
            if used:
                units[n] = mix64(h ^ piece)
                n += 1
                h, piece, used = _SEED, np.uint64(0), 0
        elif c < 128:
            i += 1
            if not single:
                if used > 7:
                    h, piece, used = mix64(h ^ piece), np.uint64(0), 0
                piece = piece << _8 | np.uint64(c)
                used += 1
            elif c != UNDERSCORE:
                units[n] = mix64(_SEED ^ np.uint64(c))
                n += 1
        else:
            point, i = decode(data, i, last)
            word = table[point]
            k: Any = 0
            end: Any = 0
            if word & SEVERAL:
                k = np.int64(word & POINT) + 1
                end = k + np.int64(sequences[k - 1])
                word = sequences[k]
            while True:
                c = np.int64(word & POINT)
                wide = np.uint64(c) if c < 128 else np.uint64(c) | _WIDE
                if single:
                    if word & WORD and c != UNDERSCORE:
                        units[n] = mix64(_SEED ^ wide)
                        n += 1
                elif word & WORD:
                    size = 1 if c < 128 else 3
                    if used + size > 8:
                        h, piece, used = mix64(h ^ piece), np.uint64(0), 0
                    piece = piece << np.uint64(8 * size) | wide
                    used += size
                elif used:
                    units[n] = mix64(h ^ piece)
                    n += 1
                    h, piece, used = _SEED, np.uint64(0), 0
                k += 1
                if k >= end:
                    break
                word = sequences[k]
    if i >= last and used:
        units[n] = mix64(h ^ piece)
        n += 1
        h, piece, used = _SEED, np.uint64(0), 0
    state[0], state[1], state[2] = h, piece, np.uint64(used)
    return i, n


@kernel
def begin(state: Any) -> None:
    """No word has begun."""
    state[0], state[1], state[2] = _SEED, np.uint64(0), np.uint64(0)
