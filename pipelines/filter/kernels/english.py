"""The one tokenisation behind every measure: spaCy's blank English tokenizer, in a kernel.

The published implementations of Gopher, FineWeb and C4 use it (through datatrove): text is cut at blanks; from each piece
prefixes and suffixes come off, then what is left is one of the exceptions ("don't" is two tokens), an address, or is cut at
infixes. The algorithm is that of spaCy 3.8 (tokenizer.pyx), its tables are `data/spacy_english.json`;
`tests/filter/test_tokens.py` holds both against the package.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.filter.kernels.tokens import (
    HASH_BASIS,
    HASH_PRIME,
    IS_MARK,
    IS_PUNCT,
    add_token,
    finish,
    hash_points,
    hash_text,
    is_digit,
    mix,
)
from pipelines.filter.kernels.unicode import (
    ALNUM,
    BEFORE_POINT,
    CAPITAL,
    DIGIT,
    HOST,
    INFIX,
    LETTER,
    LOWER,
    MARKS,
    PLAIN,
    PREFIX,
    PUNCT,
    QUOTE,
    SPACE,
    SUFFIX,
    spacy_english,
)
from pipelines.kernel import borrowed, inlined, kernel

_LONGEST = 12  # characters of an exception
_DONE = 255  # KIND of a token while exceptions are put together


class English(NamedTuple):
    """The exceptions and units of the English tokenizer, as tables of hashes."""

    keys: npt.NDArray[np.uint64]  # open addressing, 0 is empty; length a power of two
    values: npt.NDArray[np.int32]  # index of the exception; -1 a unit
    pieces: npt.NDArray[np.int32]  # (exceptions, 3) lengths of its tokens, 0 where there are fewer
    split: npt.NDArray[np.int32]  # (exceptions, 12) lengths of the tokens that affixes alone make of it; 0: no affix
    lengths: npt.NDArray[np.uint32]  # (1024,) by `ends` of the first and last character: which lengths exceptions have
    split_lengths: npt.NDArray[np.uint32]  # the same of those with an affix


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
def _prefix(points: Any, flag: Any, first: int, last: int) -> int:
    """Characters of the prefix at the beginning."""
    point = points[first]
    if flag[first] & PREFIX:
        return 0 if point == 43 and first + 1 < last and is_digit(points[first + 1]) else 1  # no sign of a number
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
        if end == 43 and is_digit(before):
            best = 1
    if digits and not is_digit(end):
        return max(best, _unit(points, first, last, tables))
    return best


@kernel
def _unit(points: Any, first: int, last: int, tables: Any) -> int:
    """Characters of the longest unit or currency sign at the end that follows a digit, or 0."""
    for size in range(min(6, last - first - 1), 0, -1):
        if is_digit(points[last - size - 1]):
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
    if sign and is_digit(before) and (is_digit(after) or after == 45):
        return 1
    if point == 44:
        return 1 if flag[at - 1] & LETTER and flag[at + 1] & LETTER else 0
    if not (flag[at - 1] & LETTER or is_digit(before)):
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
        while at < last and is_digit(points[at]) and digits < 3:
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
        while at + 1 + digits < last and is_digit(points[at + 1 + digits]):
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
            finish(points, flag, tokens, before, count)
        elif all_of & (PLAIN | DIGIT):  # letters, or digits: nothing to split
            count = add_token(tokens, count, begin, i, value, any_of, all_of, flag[begin])
        elif i - begin > 1 and inner_all & PLAIN and _ends_word(points, flag, begin, i, tables):
            end = i - 1  # letters and one mark: the commonest
            count = add_token(tokens, count, begin, end, inner, inner_any, inner_all, flag[begin])
            mark = (HASH_BASIS ^ np.uint64(points[end])) * HASH_PRIME
            count = add_token(tokens, count, end, i, mark, flag[end], flag[end], flag[end])
        else:
            before = count
            count = _piece(points, flag, begin, i, (any_of & DIGIT) != 0, tables, tokens, count)
            if count - before > 1 and _may_join(points, tables, tokens, before, count):
                count = _join(points, tables, tokens, before, count)
            finish(points, flag, tokens, before, count)
    return count


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
