"""Many phrases sought in many texts at once: Aho-Corasick over the UTF-8 bytes of the lower-cased text.

The time is linear in the text, whatever the text and however many the phrases (of phrases that are ends of one another, each is
looked at once a place). A text is lower-cased as `str.lower` does it, except that a final sigma counts as a sigma.

*Hits* do not overlap and are as many as there can be: from left to right, the phrase that ends first; of several that end at
one place, the longest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.errors import UserError
from pipelines.filter.kernels.unicode import ALNUM, MARK, flags
from pipelines.kernel import borrowed, inlined, kernel

Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]
Bytes: TypeAlias = npt.NDArray[np.uint8]

Edges = Literal["any", "word", "regex"]
MAX_CELLS = 1 << 28  # of the table of steps: 1 GiB

_UNDERSCORE, _FINAL_SIGMA, _SIGMA, _DOTTED_I, _DOT_ABOVE = 0x5F, 0x3C2, 0x3C3, 0x130, 0x307
_LOWERED = 0x1E944  # no code point from here on has a lower-case form


class Tables(NamedTuple):
    """The automaton as arrays, S states by C classes of bytes; what `find` takes."""

    step: Ints  # (S, C): the state after a byte of the class; state 0 is the start
    of_byte: Ints  # (256,): the class of each byte; 0 = in no phrase
    ends: Ints  # (S,): the state itself where a phrase ends, else that of its longest end which is a phrase, 0 for none
    shorter: Ints  # (S,): of a state where a phrase ends, the state of the next shorter one that ends there too, 0 for none
    phrase: Ints  # (S,): the phrase that ends, -1 for none
    depth: Ints  # (S,): bytes since the start
    lower: Ints  # (0x1E944,): lower case of a code point; the code point itself where case matters
    flags: npt.NDArray[np.uint32]  # of every code point, see unicode.py
    word: int  # flags of a character of a word; 0: hits may begin and end anywhere
    ring: int  # a power of two above the longest phrase in bytes


class Hits(NamedTuple):
    """What `Phrases.scan` found, an entry a text."""

    hits: Longs  # how many
    first: Longs  # index of the phrase of the first hit, -1 for none
    offset: Longs  # byte of the text at which that hit begins, -1 for none


class Phrases:
    """Phrases ready to be sought.

    `edges` says where a hit may begin and end: "any" - anywhere (scripts without blanks); "word" - where a word does, a
    character of a word being a letter, digit, underscore or combining mark; "regex" - the same without the marks, as `\\W` of
    Python's `re` has it. With `fold`, case does not matter. Phrases that are equal then are one, named as
    the first is written.

    Raises UserError for an empty phrase and for more phrases than fit into a table of 1 GiB (about half a million words).
    """

    def __init__(self, phrases: Iterable[str], edges: Edges = "word", fold: bool = True) -> None:
        named: dict[str, str] = {}
        for phrase in phrases:
            if not phrase:
                raise UserError("a list of phrases has an empty one, which would be found everywhere; remove it")
            named.setdefault(_folded(phrase) if fold else phrase, phrase)
        self.phrases: Sequence[str] = tuple(named.values())
        self.tables: Tables = _build([key.encode("utf-8", "replace") for key in named], edges, fold)

    def scan(self, texts: pa.Array, rows: Longs | None = None) -> Hits:
        """Hits in a string or large_string array; in the given rows only, if any are given. A null has none."""
        buffer, offsets = text_buffers(texts)
        rows = np.arange(len(texts), dtype=np.int64) if rows is None else rows
        return Hits(*_scan(buffer, offsets, rows, self.tables))

    def occurring(self, buffer: Bytes, offsets: Longs) -> npt.NDArray[np.bool_]:
        """Whether any phrase occurs in each text, whatever its edges: quicker than `scan`, to pass over most texts."""
        t = self.tables
        classes = t.step.shape[1]
        steps = np.where(t.ends[t.step] > 0, -1, t.step * classes).astype(np.int32).reshape(-1)
        found: npt.NDArray[np.bool_] = _occurring(buffer, offsets, steps, t.of_byte, t.of_byte[t.lower[:128]], t.lower)
        return found


def text_buffers(texts: pa.Array) -> tuple[Bytes, Longs]:
    """The bytes of a string or large_string array, and the offsets (rows + 1,) of its texts; a null is an empty text."""
    if texts.null_count:
        texts = texts.fill_null("")
    _, offsets, data = texts.buffers()
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    places = (
        np.zeros(1, kind) if offsets is None else np.frombuffer(offsets, kind)[texts.offset : texts.offset + len(texts) + 1]
    )
    return np.frombuffer(data or b"", np.uint8), places.astype(np.int64)


def _folded(phrase: str) -> str:
    # a letter at a time: "str.lower" of a whole word makes its last sigma a final one
    return "".join(map(str.lower, phrase)).replace(chr(_FINAL_SIGMA), chr(_SIGMA))


@cache
def _lower(fold: bool) -> Ints:
    table = np.arange(_LOWERED, dtype=np.int32)
    if fold:
        table[:] = [ord(chr(point).lower()[0]) for point in range(_LOWERED)]
        table[_DOTTED_I] = _DOTTED_I  # becomes two characters, see `find`
        table[_FINAL_SIGMA] = _SIGMA
    return table


def _build(phrases: Sequence[bytes], edges: Edges, fold: bool) -> Tables:
    used = sorted(set().union(*phrases))
    of_byte = np.zeros(256, np.int32)
    of_byte[used] = np.arange(1, len(used) + 1)
    classes, most = len(used) + 1, sum(map(len, phrases)) + 1
    if classes * most > MAX_CELLS:
        raise UserError(f"{len(phrases)} phrases of {most} bytes are too many to be sought at once; split the list")
    step, phrase, depth = np.zeros((most, classes), np.int32), np.full(most, -1, np.int32), np.zeros(most, np.int32)
    offsets = np.cumsum([0, *map(len, phrases)], dtype=np.int64)
    states = _trie(np.frombuffer(b"".join(phrases), np.uint8), offsets, of_byte, step, phrase, depth)
    step, phrase, depth = step[:states].copy(), phrase[:states].copy(), depth[:states].copy()
    ends, shorter = np.zeros(states, np.int32), np.zeros(states, np.int32)
    _link(step, phrase, ends, shorter)
    word = {"any": 0, "word": ALNUM | MARK, "regex": ALNUM}[edges]
    ring = 1 << int(depth.max(initial=0) + 4).bit_length()
    return Tables(step, of_byte, ends, shorter, phrase, depth, _lower(fold), flags(), word, ring)


@kernel
def _trie(data: Bytes, offsets: Longs, of_byte: Ints, step: Any, phrase: Ints, depth: Ints) -> int:
    """Lay the phrases into the table of steps; the number of states."""
    states = 1
    for p in range(len(offsets) - 1):
        state = 0
        for i in range(offsets[p], offsets[p + 1]):
            c = of_byte[data[i]]
            if step[state, c] == 0:
                step[state, c] = states
                depth[states] = depth[state] + 1
                states += 1
            state = step[state, c]
        phrase[state] = p
    return states


@kernel
def _link(step: Any, phrase: Ints, ends: Ints, shorter: Ints) -> None:
    """Complete the steps, breadth first: where the trie has none, that of the longest end of the state which is in the trie."""
    states, classes = step.shape
    queue = np.empty(states, np.int32)
    back = np.zeros(states, np.int32)
    head, tail = 0, 0
    for c in range(1, classes):
        if step[0, c] > 0:
            queue[tail] = step[0, c]
            tail += 1
    while head < tail:
        state = queue[head]
        head += 1
        shorter[state] = ends[back[state]]
        ends[state] = state if phrase[state] >= 0 else shorter[state]
        for c in range(1, classes):
            target = step[state, c]
            if target > 0:
                back[target] = step[back[state], c]
                queue[tail] = target
                tail += 1
            else:
                step[state, c] = step[back[state], c]


@kernel
def _scan(buffer: Bytes, offsets: Longs, rows: Longs, given: Tables) -> tuple[Longs, Longs, Longs]:
    tables = borrow_tables(given)
    count, first, place = np.zeros(len(rows), np.int64), np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    for k in range(len(rows)):
        row = rows[k]
        count[k], first[k], place[k] = find(buffer, offsets[row], offsets[row + 1], tables)
    return count, first, place


@inlined
def borrow_tables(t: Any) -> Any:
    """The tables without reference counts, in a kernel."""
    return Tables(
        borrowed(t.step), borrowed(t.of_byte), borrowed(t.ends), borrowed(t.shorter), borrowed(t.phrase), borrowed(t.depth),
        borrowed(t.lower), borrowed(t.flags), t.word, t.ring,
    )  # fmt: skip


@kernel
def _occurring(buffer: Bytes, offsets: Longs, steps: Ints, of_byte: Ints, ascii: Ints, lower: Ints) -> Any:
    found = np.zeros(len(offsets) - 1, np.bool_)
    fold = lower[0x41] == 0x61
    for row in range(len(found)):
        state = 0
        i, end = offsets[row], offsets[row + 1]
        while i < end:
            byte = np.int64(buffer[i])
            if byte < 0x80:
                state = steps[state + ascii[byte]]
                i += 1
            else:
                point, size = decode(buffer, i, end)
                i += size
                if point < 0:
                    state = 0
                    continue
                if point == _DOTTED_I and fold:
                    state = steps[state + of_byte[0x69]]
                    point = _DOT_ABOVE
                elif point < _LOWERED:
                    point = np.int64(lower[point])
                if state >= 0 and point >= 0x800:
                    if point >= 0x10000:
                        state = steps[state + of_byte[0xF0 | point >> 18]]
                        if state >= 0:
                            state = steps[state + of_byte[0x80 | (point >> 12 & 0x3F)]]
                    else:
                        state = steps[state + of_byte[0xE0 | point >> 12]]
                    if state >= 0:
                        state = steps[state + of_byte[0x80 | (point >> 6 & 0x3F)]]
                elif state >= 0:
                    state = steps[state + of_byte[0xC0 | point >> 6]]
                if state >= 0:
                    state = steps[state + of_byte[0x80 | (point & 0x3F)]]
            if state < 0:
                found[row] = True
                break
    return found


@kernel
def find(buffer: Bytes, start: int, end: int, t: Tables) -> tuple[int, int, int]:
    """Hits in buffer[start:end], the phrase of the first, and the byte after `start` at which it begins; -1, -1 without a hit.

    For use in kernels too. Bytes that are no UTF-8 are characters of their own that no phrase has.
    """
    count, first, place = 0, -1, -1
    mask = t.ring - 1
    ring = np.zeros(
        t.ring, np.int64
    )  # for a folded byte: 2 * (the byte of the text it comes from) + whether a word goes before
    state, folded, in_word, second = 0, 0, 0, 0
    i = start
    while True:
        point, size, ended = -1, 0, i >= end and second == 0
        if second > 0:
            point, second = second, 0
        elif not ended:
            point, size = decode(buffer, i, end)
        if 0 <= point < _LOWERED:
            if point == _DOTTED_I and t.lower[0x41] == 0x61:
                point, second = 0x69, _DOT_ABOVE
            else:
                point = t.lower[point]
        word = 0
        if t.word > 0 and point >= 0 and ((t.flags[point] & np.uint32(t.word)) > 0 or point == _UNDERSCORE):
            word = 1
        if t.ends[state] > 0 and word == 0:  # a phrase may have ended before this character
            found = t.ends[state]
            while found > 0 and ring[(folded - t.depth[found]) & mask] & 1:
                found = t.shorter[found]
            if found > 0:
                if count == 0:
                    first, place = t.phrase[found], (ring[(folded - t.depth[found]) & mask] >> 1) - start
                count += 1
                state = 0  # what comes does not overlap
        if ended:
            return count, first, place
        ring[folded & mask] = 2 * i + in_word
        if point < 0:
            state = 0
            folded += 1
        elif point < 0x80:
            state = t.step[state, t.of_byte[point]]
            folded += 1
        else:
            if point < 0x800:
                state = t.step[state, t.of_byte[0xC0 | point >> 6]]
                folded += 2
            else:
                if point < 0x10000:
                    state = t.step[state, t.of_byte[0xE0 | point >> 12]]
                    folded += 3
                else:
                    state = t.step[state, t.of_byte[0xF0 | point >> 18]]
                    state = t.step[state, t.of_byte[0x80 | (point >> 12 & 0x3F)]]
                    folded += 4
                state = t.step[state, t.of_byte[0x80 | (point >> 6 & 0x3F)]]
            state = t.step[state, t.of_byte[0x80 | (point & 0x3F)]]
        in_word = word
        i += size


@kernel
def decode(buffer: Bytes, i: int, end: int) -> tuple[Any, int]:
    """The code point at byte i and its length; (-1, 1) for a byte that begins no whole character of UTF-8."""
    lead = np.int64(buffer[i])
    if lead < 0x80:
        return lead, 1
    if lead < 0xC2 or lead > 0xF4:
        return -1, 1
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if i + size > end:
        return -1, 1
    point = lead & (0x7F >> size)
    for k in range(1, size):
        byte = np.int64(buffer[i + k])
        if byte & 0xC0 != 0x80:
            return -1, 1
        point = point << 6 | byte & 0x3F
    if (size == 3 and (point < 0x800 or 0xD800 <= point < 0xE000)) or (size == 4 and not 0x10000 <= point < 0x110000):
        return -1, 1
    return point, size
