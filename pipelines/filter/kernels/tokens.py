"""One tokenisation for every measure, in kernels: text -> characters -> tokens.

*Tokens* are those of spaCy's blank English tokenizer, which the published implementations of Gopher, FineWeb and C4 use
(through datatrove): text is cut at blanks; from each piece prefixes and suffixes come off, then what is left is one of the
exceptions ("don't" is two tokens), an address, or is cut at infixes. The algorithm is that of spaCy 3.8 (tokenizer.pyx), its
tables are `spacy_english.json`; `tests/filter/test_tokens.py` holds both against the package.

*Ours* are the same tokens, but a script that writes no blanks (Han, kana, Thai, Lao, Khmer, Burmese) gives one token a
character with its combining marks: no dictionary, so every machine and every version agrees.

A kernel works on one document: `points` its code points, `flag` their flags (`unicode.py`), `n` how many; invalid UTF-8 becomes
U+FFFD. Tokens are four parallel arrays: first character, length in characters, 64-bit hash, and KIND bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.filter.kernels.unicode import (
    ALNUM,
    ALPHA,
    BEFORE_POINT,
    CAPITAL,
    DIGIT,
    HOST,
    INFIX,
    LETTER,
    LOWER,
    MARK,
    MARKS,
    NO_WORD,
    PLAIN,
    PREFIX,
    PUNCT,
    QUOTE,
    SPACE,
    SUFFIX,
    UNSPACED,
    UPPER,
    spacy_english,
)
from pipelines.kernel import borrowed, inlined, kernel

# KIND bits of a token
HAS_LETTER = 1  # a letter
IS_WORD = 2  # more than datatrove's punctuation
IS_PUNCT = 4  # nothing but punctuation (categories P*)
IS_MARK = 8  # one of the sentencizer's marks
IS_UNSPACED = 16  # has a character of a script without blanks
STARTS_ALNUM = 32  # its first character is a letter or a digit
ALL_CAPITALS = 64  # of `split_blanks`: two characters or more, with letters, all of them capitals

_LONGEST = 12  # characters of an exception
_DONE = 255  # KIND of a token while exceptions are put together
HASH_BASIS = np.uint64(0xCBF29CE484222325)  # FNV-1a
HASH_PRIME = np.uint64(0x100000001B3)


class English(NamedTuple):
    """The exceptions and units of the English tokenizer, as tables of hashes."""

    keys: npt.NDArray[np.uint64]  # open addressing, 0 is empty; length a power of two
    values: npt.NDArray[np.int32]  # index of the exception; -1 a unit
    pieces: npt.NDArray[np.int32]  # (exceptions, 3) lengths of its tokens, 0 where there are fewer
    split: npt.NDArray[
        np.int32
    ]  # (exceptions, 12) lengths of the tokens that affixes alone would make of it; 0: it has no affix
    lengths: npt.NDArray[np.uint32]  # (1024,) by `ends` of the first and last character: which lengths exceptions have
    split_lengths: npt.NDArray[np.uint32]  # the same of those with an affix


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


def _ends(first: int, last: int) -> int:
    """Where `English.lengths` keeps exceptions with these first and last characters."""
    return (first * 37 + last) & 1023


ends: Any = inlined(_ends)


@cache
def english() -> English:
    """The tables, built once a process."""
    data = spacy_english()
    exceptions = [entry.split(" ") for entry in data["exceptions"]]
    units = set(data["unit"]) | set(data["currency"])
    size = 1 << (2 * (len(exceptions) + len(units))).bit_length()
    keys, values = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    entries = [("".join(pieces), i) for i, pieces in enumerate(exceptions)] + [(unit, -1) for unit in sorted(units)]
    for text, value in entries:
        key = hash_text("\x00" + text if value < 0 else text)
        slot = int(key) & (size - 1)
        while keys[slot]:
            slot = (slot + 1) & (size - 1)
        keys[slot], values[slot] = key, value
    lengths = np.zeros(1024, np.uint32)
    for pieces in exceptions:
        lengths[_ends(ord(pieces[0][0]), ord(pieces[-1][-1]))] |= np.uint32(1 << sum(map(len, pieces)))
    made = English(
        keys,
        values,
        np.array([[len(p) for p in pieces] + [0] * (3 - len(pieces)) for pieces in exceptions], np.int32),
        np.zeros((len(exceptions), _LONGEST), np.int32),
        lengths,
        np.zeros_like(lengths),
    )
    index = {"".join(pieces): i for i, pieces in enumerate(exceptions)}
    for pieces in (entry.split(" ") for entry in data["split_exceptions"]):
        i, size = index["".join(pieces)], sum(map(len, pieces))
        made.split[i, : len(pieces)] = [len(p) for p in pieces]
        made.split_lengths[_ends(ord(pieces[0][0]), ord(pieces[-1][-1]))] |= np.uint32(1 << size)
    return made


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
def _find(tables: Any, key: Any) -> int:
    """The value of a key, or -2."""
    mask = len(tables.keys) - 1
    slot = np.int64(key) & mask
    while tables.keys[slot] != 0:
        if tables.keys[slot] == key:
            return int(tables.values[slot])
        slot = (slot + 1) & mask
    return -2


@kernel
def _look_up(points: Any, first: int, last: int, tables: Any) -> int:
    return max(_find(tables, hash_points(points, first, last)), -1)


@inlined
def _exception(points: Any, first: int, last: int, tables: Any) -> int:
    """The index of the exception that these characters are, or -1; most words are told from one by their ends and length."""
    size = last - first
    if size > _LONGEST or not (tables.lengths[ends(points[first], points[last - 1])] >> np.uint32(size)) & 1:
        return -1
    return _look_up(points, first, last, tables)


@inlined
def _is_digit(point: int) -> bool:
    return 48 <= point <= 57


@inlined
def _prefix(points: Any, flag: Any, first: int, last: int) -> int:
    """Characters of the prefix at the beginning."""
    point = points[first]
    if flag[first] & PREFIX:
        return 0 if point == 43 and first + 1 < last and _is_digit(points[first + 1]) else 1  # no sign of a number
    if point == 46:
        end = first
        while end < last and points[end] == 46:
            end += 1
        return end - first if end - first > 1 else 0
    if point == 85 and first + 2 < last and points[first + 1] == 83 and points[first + 2] == 36:
        return 3  # US$
    if (point == 67 or point == 65) and first + 1 < last and points[first + 1] == 36:
        return 2  # C$, A$
    return 0


@inlined
def _suffix(points: Any, flag: Any, first: int, last: int, digits: bool, tables: Any) -> int:
    """Characters of the suffix at the end: the longest that matches. `digits`: whether there are any."""
    if last <= first:
        return 0
    end = points[last - 1]
    best = 1 if flag[last - 1] & SUFFIX else 0
    if end == 46:
        run = 1
        while last - run - 1 >= first and points[last - run - 1] == 46:
            run += 1
        if run > 1:
            return run
        if last - 2 >= first:
            if flag[last - 2] & BEFORE_POINT:
                return 1
            if last - 3 >= first and flag[last - 2] & CAPITAL and flag[last - 3] & CAPITAL:
                return 1
            before = points[last - 2]
            if last - 3 >= first and points[last - 3] == 0xB0 and (before == 70 or before == 67 or before == 75):
                return 1  # degrees
        return 0
    if last - 2 >= first:
        before = points[last - 2]
        if end == 0x2026 and before == 0x2026:
            return 2
        if (end == 115 or end == 83) and (before == 39 or before == 0x2019):
            best = 2  # 's
        if end == 43 and _is_digit(before):
            best = 1
    if digits and not _is_digit(end):
        return max(best, _unit(points, first, last, tables))
    return best


@kernel
def _unit(points: Any, first: int, last: int, tables: Any) -> int:
    """Characters of the longest unit or currency sign at the end that follows a digit, or 0."""
    for size in range(min(6, last - first - 1), 0, -1):
        if _is_digit(points[last - size - 1]):
            value = HASH_BASIS * HASH_PRIME  # the hash of "\x00" and the unit
            for i in range(last - size, last):
                value = (value ^ np.uint64(points[i])) * HASH_PRIME
            if _find(tables, mix(value)) == -1:
                return size
    return 0


@inlined
def _infix(points: Any, flag: Any, at: int, first: int, last: int) -> int:
    """Characters of the infix at a place inside, or 0."""
    point = points[at]
    if point == 46:
        end = at
        while end < last and points[end] == 46:
            end += 1
        if end - at > 1:
            return end - at
        inner = first < at and at + 1 < last
        return 1 if inner and flag[at - 1] & (LOWER | QUOTE) and flag[at + 1] & (CAPITAL | QUOTE) else 0
    if flag[at] & INFIX:
        return 1
    if at == first or at + 1 >= last:
        return 0
    before, after = points[at - 1], points[at + 1]
    sign = point == 43 or point == 45 or point == 42 or point == 94
    if sign and _is_digit(before) and (_is_digit(after) or after == 45):
        return 1
    if point == 44:
        return 1 if flag[at - 1] & LETTER and flag[at + 1] & LETTER else 0
    if not (flag[at - 1] & LETTER or _is_digit(before)):
        return 0
    if point == 58 or point == 60 or point == 62 or point == 61 or point == 47:
        return 1 if flag[at + 1] & LETTER else 0
    if point == 0x2013 or point == 126:
        return 1 if flag[at + 1] & LETTER else 0
    if point == 45 or point == 0x2014:
        most = 3 if point == 45 else 2
        for length in range(1, most + 1):
            if at + length >= last:
                return 0
            if flag[at + length] & LETTER:
                return length
            if points[at + length] != point:
                return 0
    return 0


@kernel
def _octets(points: Any, at: int, last: int) -> int:
    """The end of an IPv4 address in dots that is not private and not reserved (spaCy's URL pattern), or -1."""
    first = second = 0
    for part in range(4):
        value, digits = 0, 0
        while at < last and _is_digit(points[at]) and digits < 3:
            value = value * 10 + points[at] - 48
            digits += 1
            at += 1
        if digits == 0:
            return -1
        leading = points[at - digits] == 48
        if part == 0:
            if leading or value > 223:
                return -1
            first = value
        elif part < 3:
            if value > 255 or (digits == 3 and leading):
                return -1
            if part == 1:
                second = value
        elif leading or value > 254:
            return -1
        if part < 3:
            if at >= last or points[at] != 46:
                return -1
            at += 1
    if first == 10 or first == 127 or (first == 169 and second == 254) or (first == 192 and second == 168):
        return -1
    if first == 172 and 16 <= second <= 31:
        return -1
    return at


@kernel
def _url_tail(points: Any, at: int, last: int) -> bool:
    """Whether an optional port and an optional path end the text."""
    if at < last and points[at] == 58:
        digits = 0
        while at + 1 + digits < last and _is_digit(points[at + 1 + digits]):
            digits += 1
        if digits < 2 or digits > 5:
            return False
        at += 1 + digits
    return at == last or points[at] == 47 or points[at] == 63 or points[at] == 35


@kernel
def _url_host(points: Any, flag: Any, at: int, last: int) -> bool:
    """Whether a host (an address, or labels and a top-level domain) and the tail fill the text from here."""
    end = _octets(points, at, last)
    if end >= 0 and _url_tail(points, end, last):
        return True
    label = at
    while True:
        i = label
        while i < last and i - label <= 64 and (flag[i] & HOST or (i > label and (points[i] == 45 or points[i] == 95))):
            i += 1
        if i == label or i >= last or points[i] != 46 or i - label > 64:
            return False
        if not flag[i - 1] & HOST:
            return False
        top = i + 1
        end = top
        while end < last and end - top <= 63 and flag[end] & LOWER:
            end += 1
        if 2 <= end - top <= 63 and _url_tail(points, end, last):
            return True
        label = i + 1


@kernel
def _is_url(points: Any, flag: Any, first: int, last: int) -> bool:
    """Whether the text as a whole is an address, or an e-mail address, for spaCy's URL pattern; it has a point inside."""
    if _url_host(points, flag, first, last):
        return True
    i = first
    while i < last and (flag[i] & ALNUM or points[i] == 95 or points[i] == 43 or points[i] == 45 or points[i] == 46):
        i += 1
    scheme = i - first >= 2 and i + 2 < last and points[i] == 58 and points[i + 1] == 47 and points[i + 2] == 47
    if scheme and _url_host(points, flag, i + 3, last):
        return True
    for i in range(first + 1, last):  # noqa: SIM110 (a kernel has no generators)
        if points[i] == 64 and i + 1 < last and _url_host(points, flag, i + 1, last):
            return True
    return False


@inlined
def _emit_exception(tokens: Any, count: int, first: int, pieces: Any) -> int:
    for length in pieces:
        if length:
            tokens.start[count] = first
            tokens.length[count] = length
            first += length
            count += 1
    return count


@inlined
def _emit(tokens: Any, count: int, first: int, last: int) -> int:
    tokens.start[count] = first
    tokens.length[count] = last - first
    return count + 1


@inlined
def _has_point(points: Any, first: int, last: int) -> bool:
    for i in range(first + 1, last):  # noqa: SIM110
        if points[i] == 46:
            return True
    return False


@inlined
def _piece(points: Any, flag: Any, first: int, last: int, digits: bool, tables: Any, tokens: Any, count: int) -> int:
    """The tokens of one piece between blanks; returns the new count."""
    suffixes, before, simple, letters = 0, -1, False, first
    while first < last and last - first != before:
        if _exception(points, first, last, tables) >= 0:
            break
        before = last - first
        prefix = _prefix(points, flag, first, last)
        if prefix and first + prefix < last and _exception(points, first + prefix, last, tables) >= 0:
            count = _emit(tokens, count, first, first + prefix)
            first += prefix
            break
        suffix = _suffix(points, flag, first + prefix, last, digits, tables)
        if suffix and last - suffix > first and _exception(points, first, last - suffix, tables) >= 0:
            tokens.suffix[suffixes] = suffix
            suffixes += 1
            last -= suffix
            break
        if prefix:
            count = _emit(tokens, count, first, first + prefix)
            first += prefix
        if suffix:
            tokens.suffix[suffixes] = suffix
            suffixes += 1
            last -= suffix
        if first < last and last - first != before and flag[first] & PLAIN and flag[last - 1] & PLAIN:
            letters = max(letters, first)  # letters up to here: each is looked at once, however many suffixes come off
            while letters < last and flag[letters] & PLAIN:
                letters += 1
            simple = letters >= last  # they have no affix left; an exception they may be
            if simple:
                break
    if first < last:
        which = _exception(points, first, last, tables)
        if which >= 0:
            count = _emit_exception(tokens, count, first, tables.pieces[which])
        elif simple or (_has_point(points, first, last) and _is_url(points, flag, first, last)):
            count = _emit(tokens, count, first, last)
        else:
            at = start = first
            while at < last:
                infix = 0 if flag[at] & (ALNUM | INFIX) == ALNUM else _infix(points, flag, at, first, last)
                if infix and at > first:
                    if at > start:
                        count = _emit(tokens, count, start, at)
                    count = _emit(tokens, count, at, at + infix)
                    start = at + infix
                at += max(infix, 1)
            if start < last:
                count = _emit(tokens, count, start, last)
    while suffixes:
        suffixes -= 1
        count = _emit(tokens, count, last, last + tokens.suffix[suffixes])
        last += tokens.suffix[suffixes]
    return count


@inlined
def _may_join(points: Any, tables: Any, tokens: Any, begin: int, count: int) -> bool:
    """Whether some tokens in a row have the ends and the length of an exception with an affix."""
    for i in range(begin, count):
        first = tokens.start[i]
        for j in range(i, count):
            last = tokens.start[j] + tokens.length[j]
            if last - first > _LONGEST:
                break
            if (tables.split_lengths[ends(points[first], points[last - 1])] >> np.uint32(last - first)) & 1:
                return True
    return False


@inlined
def _split_exception(points: Any, tables: Any, tokens: Any, i: int, count: int, length: int) -> int:
    """The exception of `length` characters that starts with token i, where the tokens are as affixes split it; else -1.

    A `length` of 0 takes any.
    """
    first = tokens.start[i]
    for j in range(i, min(count, i + _LONGEST)):
        size = tokens.start[j] + tokens.length[j] - first
        if size > (length or _LONGEST):
            return -1
        if length and size != length:
            continue
        which = _exception(points, first, first + size, tables)
        if which >= 0:
            split = tables.split[which]
            same = split[j - i] != 0 and (j - i + 1 == _LONGEST or split[j - i + 1] == 0)
            for k in range(i, j + 1):
                same &= tokens.length[k] == split[k - i]
            if same:
                return which
    return -1


@kernel
def _join(points: Any, tables: Any, tokens: Any, begin: int, count: int) -> int:
    """Put exceptions together that affixes have split (":)", "a."), the longest first; returns the new count."""
    for k in range(begin, count):
        tokens.kind[k] = 0
    for k in range(begin, count):
        tokens.suffix[k] = tokens.start[k]
        tokens.hash[k] = 0
    for length in range(_LONGEST, 0, -1):
        for i in range(begin, count):
            which = _split_exception(points, tables, tokens, i, count, length)
            if which >= 0:
                last, end = i, tokens.start[i] + length
                while last + 1 < count and tokens.start[last + 1] < end:
                    last += 1
                if tokens.kind[i] != _DONE and tokens.kind[last] != _DONE:
                    tokens.hash[i] = np.uint64(which + 1)
                for k in range(i, last + 1):
                    tokens.kind[k] = _DONE  # also where it lost: it keeps the next one off, as in spaCy
    end = tokens.start[count - 1] + tokens.length[count - 1]
    made, k = begin, begin
    while k < count:
        first = tokens.suffix[k]
        if tokens.hash[k]:
            pieces = tables.pieces[np.int64(tokens.hash[k]) - 1]
            made = _emit_exception(tokens, made, first, pieces)
            last = first + pieces.sum()
            while k < count and tokens.suffix[k] < last:
                k += 1
        else:
            made = _emit(tokens, made, first, tokens.suffix[k + 1] if k + 1 < count else end)
            k += 1
    return made


@inlined
def _finish(points: Any, flag: Any, tokens: Any, begin: int, count: int) -> None:
    """Hash and KIND of the tokens from `begin` on."""
    for k in range(begin, count):
        first, last = tokens.start[k], tokens.start[k] + tokens.length[k]
        value, any_of, all_of = HASH_BASIS, np.uint32(0), np.uint32(0xFFFFFFFF)
        for i in range(first, last):
            value = (value ^ np.uint64(points[i])) * HASH_PRIME
            any_of |= flag[i]
            all_of &= flag[i]
        tokens.hash[k] = mix(value)
        tokens.kind[k] = _kind(any_of, all_of, flag[first], last - first)


@inlined
def _kind(any_of: Any, all_of: Any, first: Any, length: int) -> int:
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


@kernel
def tokenise(points: Any, flag: Any, first: int, last: int, tables: Any, tokens: Any) -> int:
    """The tokens of points[first:last] as spaCy's English tokenizer gives them, blanks left out; returns how many."""
    count = 0
    i = first
    while i < last:
        if flag[i] & SPACE:
            i += 1
            continue
        begin = i
        value, any_of, all_of = HASH_BASIS, np.uint32(0), np.uint32(0xFFFFFFFF)
        inner, inner_any, inner_all = value, any_of, all_of  # the same without the last character
        while i < last and not flag[i] & SPACE:
            inner, inner_any, inner_all = value, any_of, all_of
            value = (value ^ np.uint64(points[i])) * HASH_PRIME
            any_of |= flag[i]
            all_of &= flag[i]
            i += 1
        which = _exception(points, begin, i, tables)
        if which >= 0:
            before = count
            count = _emit_exception(tokens, count, begin, tables.pieces[which])
            _finish(points, flag, tokens, before, count)
        elif all_of & (PLAIN | DIGIT):  # letters, or digits: nothing to split
            count = _add(tokens, count, begin, i, value, any_of, all_of, flag[begin])
        elif i - begin > 1 and inner_all & PLAIN and _ends_word(points, flag, begin, i, tables):
            end = i - 1  # letters and one mark: the commonest
            count = _add(tokens, count, begin, end, inner, inner_any, inner_all, flag[begin])
            mark = (HASH_BASIS ^ np.uint64(points[end])) * HASH_PRIME
            count = _add(tokens, count, end, i, mark, flag[end], flag[end], flag[end])
        else:
            before = count
            count = _piece(points, flag, begin, i, (any_of & DIGIT) != 0, tables, tokens, count)
            if count - before > 1 and _may_join(points, tables, tokens, before, count):
                count = _join(points, tables, tokens, before, count)
            _finish(points, flag, tokens, before, count)
    return count


@inlined
def _add(tokens: Any, count: int, first: int, last: int, value: Any, any_of: Any, all_of: Any, flag: Any) -> int:
    tokens.start[count] = first
    tokens.length[count] = last - first
    tokens.hash[count] = mix(value)
    tokens.kind[count] = _kind(any_of, all_of, flag, last - first)
    return count + 1


@inlined
def _ends_word(points: Any, flag: Any, first: int, last: int, tables: Any) -> bool:
    """Whether the mark after letters is a suffix, and they a word: no exception ("id." ends in another one), no "US$"."""
    if points[last - 1] == 36 or _exception(points, first, last - 1, tables) >= 0:
        return False
    if points[last - 1] != 46:
        return bool(flag[last - 1] & SUFFIX)
    if flag[last - 2] & BEFORE_POINT:
        return True
    return last - first > 2 and (flag[last - 2] & CAPITAL) != 0 and (flag[last - 3] & CAPITAL) != 0


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
        _finish(points, flag, result, begin, made)
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
        value, any_of, all_of, small = HASH_BASIS, np.uint32(0), np.uint32(0xFFFFFFFF), np.uint32(0)
        while i < last and not flag[i] & SPACE:
            value = (value ^ np.uint64(points[i])) * HASH_PRIME
            any_of |= flag[i]
            all_of &= flag[i]
            small |= (flag[i] & ALPHA) & ~((flag[i] & UPPER) >> np.uint32(3))  # ALPHA where it is no capital
            i += 1
        count = _add(tokens, count, begin, i, value, any_of, all_of, flag[begin])
        if i - begin > 1 and any_of & ALPHA and not small:
            tokens.kind[count - 1] |= ALL_CAPITALS
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
        tokens.kind[count] = _kind(any_of, all_of, flag[begin], i - begin)
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
            tokens.kind[count] = _kind(any_of, all_of, flag[begin], length)
            count += 1
    return count


@inlined
def is_ascii_punctuation(point: int) -> bool:
    """Whether the character is in Python's `string.punctuation`."""
    return 33 <= point <= 47 or 58 <= point <= 64 or 91 <= point <= 96 or 123 <= point <= 126


@kernel
def count_sentences(points: Any, flag: Any, first: int, last: int, tables: Any, tokens: Any) -> int:
    """Sentences of a stripped line as spaCy's sentencizer finds them: after a mark, what is no punctuation begins a new one.

    Only pieces with a mark in them need to be cut into tokens to tell.
    """
    count, seen = 0, False
    i = first
    while i < last:
        if flag[i] & SPACE:
            begin = i
            while i < last and flag[i] & SPACE:
                i += 1
            if seen and (i - begin > 1 or points[begin] != 32):  # more than one blank is a token of spaCy's
                count += 1
                seen = False
            continue
        begin = i
        any_of, all_of = np.uint32(0), np.uint32(0xFFFFFFFF)
        while i < last and not flag[i] & SPACE:
            any_of |= flag[i]
            all_of &= flag[i]
            i += 1
        if count == 0:
            count = 1
        if not any_of & MARKS:
            if seen and not all_of & PUNCT:
                count += 1
                seen = False
            continue
        for k in range(tokenise(points, flag, begin, i, tables, tokens)):
            if seen and not tokens.kind[k] & (IS_PUNCT | IS_MARK):
                count += 1
                seen = False
            elif tokens.kind[k] & IS_MARK:
                seen = True
    return count


@inlined
def borrow_tokens(t: Any) -> Any:
    """The buffers without reference counts, in a kernel."""
    return Tokens(borrowed(t.start), borrowed(t.length), borrowed(t.hash), borrowed(t.kind), borrowed(t.suffix))


@inlined
def borrow_english(t: Any) -> Any:
    """The tables without reference counts, in a kernel."""
    return English(
        borrowed(t.keys),
        borrowed(t.values),
        borrowed(t.pieces),
        borrowed(t.split),
        borrowed(t.lengths),
        borrowed(t.split_lengths),
    )
