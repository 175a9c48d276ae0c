"""RefinedWeb's line-wise corrections (arXiv 2306.01116, appendix G.2) as DCLM runs them.

That is `baselines/mappers/modifiers.py` of mlfoundations/dclm (commit 15af3ce) in the order of `dclm_baseline_refinedweb.yaml`.
First addresses are cut out of the text and runs of newlines shortened; DCLM asks its page rules in between. Then a line goes
that is mostly capitals, all digits, a counter ("3 likes") or a single word; and from lines of at most ten words are cut "items
in cart", "Read more" with three more characters at the end, and "Sign-in" at the beginning. How many words went is a measure:
more than 5 % condemn the page. Lines end at newlines only; each step but the one on single words strips the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.filter import read_data
from pipelines.filter.kernels.phrases import Phrases, Tables, borrow_tables, text_buffers
from pipelines.filter.kernels.tokens import decode
from pipelines.filter.kernels.unicode import ALNUM, DIGIT, SPACE, UPPER, flags
from pipelines.filter.lines import Letters, encode, end_of_line, length_of, letters, lower_latin, says, text_array
from pipelines.kernel import borrowed, inlined, kernel
from pipelines.recipe import batch_stage
from pipelines.schema import with_columns

REFINEDWEB_COLUMNS = pa.schema([("refinedweb_removed_word_ratio", pa.float64())])

_CAPITALS, _DIGITS, _COUNTERS, _WORDS, _CART, _READ_MORE, _SIGN_IN = range(7)
_SHORT = 10  # words of a line from which phrases are cut
_BLANKS, _HOST = 10, 256  # of an address: blanks before it, characters before the dot of its top-level domain

_NOUNS = letters("likes", "shares", "comments", "retweets", "reposts", "quotes", "bookmarks", "upvotes", "downvotes",
                 "downloads", "views", "followers")  # fmt: skip
_CUT = letters("items in cart", "read more", "sign-in")
_SCHEMES = letters("https://", "http://", "ftp://")

Points = npt.NDArray[np.int32]


@dataclass(frozen=True)
class RefinedWebLinesConfig:
    """Which parts are on, with DCLM's bounds."""

    # "dclm": in texts only that begin with the letters of a top-level domain, as its code does ("The ...": th)
    urls: Literal["all", "dclm", "none"] = "all"
    max_newlines: int | None = 2  # in a row
    max_upper_ratio: float | None = 0.5  # capitals over characters of a line
    max_numeric_ratio: float | None = 0.999999  # digits over characters of a line
    counters: bool = True  # drop lines such as "3 likes" and "1.2K views"
    min_words: int | None = 2  # of a line
    phrases: bool = True  # cut "items in cart", "Read more...", "Sign-in"


@batch_stage(adds=REFINEDWEB_COLUMNS)
def refinedweb_lines(docs: pa.RecordBatch, cfg: RefinedWebLinesConfig) -> pa.RecordBatch:
    """Replace `text` and set `refinedweb_removed_word_ratio`: words that the line rules removed over those before them.

    Words are fastText's: what stands between ASCII blanks and begins with a letter or digit. The ratio of a text without words
    is 1 (DCLM drops it). Decides nothing itself. A null text stays null and has no ratio. Measures taken before are stale.
    """
    texts = docs["text"]
    buffer, offsets = text_buffers(texts)
    size = int(np.diff(offsets).max(initial=0)) + 1
    out = np.empty(3 * int(offsets[-1] - offsets[0]), np.uint8)  # an invalid byte becomes three
    out_offsets, removed = np.zeros(len(docs) + 1, np.int64), np.zeros(len(docs))
    _clean(
        buffer,
        offsets,
        _how(cfg),
        _look_up(),
        np.empty((2, size), np.int32),
        np.empty(size, np.uint32),
        out,
        out_offsets,
        removed,
    )
    null = ~texts.is_valid().to_numpy(zero_copy_only=False)
    ratio = pa.array(removed, pa.float64(), mask=null)
    return with_columns(docs, {"text": text_array(out, out_offsets, texts), "refinedweb_removed_word_ratio": ratio})


class _How(NamedTuple):
    """A config for the kernel: numbers below 0 are off."""

    urls: bool
    like_dclm: bool
    max_newlines: int
    upper: float
    numeric: float
    counters: bool
    min_words: int
    phrases: bool


class _LookUp(NamedTuple):
    flags: npt.NDArray[np.uint32]
    other_digits: Points  # for `str.isdigit`, but no decimal digits: superscripts, digits in circles; ascending
    tlds: Tables


def _how(cfg: RefinedWebLinesConfig) -> _How:
    def off(value: float | None) -> float:
        return -1.0 if value is None else float(value)

    return _How(
        cfg.urls != "none",
        cfg.urls == "dclm",
        -1 if cfg.max_newlines is None else cfg.max_newlines,
        off(cfg.max_upper_ratio),
        off(cfg.max_numeric_ratio),
        cfg.counters,
        -1 if cfg.min_words is None else cfg.min_words,
        cfg.phrases,
    )


@cache
def top_level_domains() -> tuple[str, ...]:
    """Those of tlds.txt, as letters in lower case."""
    lines = read_data("tlds.txt").splitlines()
    return tuple(name for line in lines if not line.startswith("#") for name in line.split())


@cache
def _look_up() -> _LookUp:
    other = [point for point in range(0x110000) if chr(point).isdigit() and not chr(point).isdecimal()]
    return _LookUp(flags(), np.array(other, np.int32), Phrases(top_level_domains(), "any", fold=False).tables)


@kernel
def _clean(
    buffer: Any, offsets: Any, how: _How, tables: Any, work: Any, flag: Any, out: Any, places: Any, removed: Any
) -> None:
    t, now, then = _borrow(tables), borrowed(work[0]), borrowed(work[1])
    end = 0
    for row in range(len(offsets) - 1):
        n = decode(buffer, offsets[row], offsets[row + 1], t.flags, now, flag)
        if how.urls:
            if not how.like_dclm or _begins_with_tld(now, n, t.tlds):
                n = _cut_urls(now, n, then, t)
                now, then = then, now
            n = _cut_ips(now, n, then, t.flags)
            now, then = then, now
        if how.max_newlines >= 0:
            n = _shorten_newlines(now, n, how.max_newlines)
        before = _count_words(now, n, t.flags)
        for step in range(_SIGN_IN + 1):
            if _is_on(step, how):
                n = _step(step, now, n, then, how, t)
                now, then = then, now
        removed[row] = (before - _count_words(now, n, t.flags)) / before if before > 0 else 1.0
        end = encode(now, 0, n, out, end)
        places[row + 1] = end


@inlined
def _borrow(t: Any) -> Any:
    return _LookUp(borrowed(t.flags), borrowed(t.other_digits), borrow_tables(t.tlds))


@kernel
def _is_on(step: int, how: _How) -> bool:
    if step == _CAPITALS:
        return how.upper >= 0
    if step == _DIGITS:
        return how.numeric >= 0
    if step == _COUNTERS:
        return how.counters
    return how.min_words >= 0 if step == _WORDS else how.phrases


@kernel
def _step(step: int, now: Points, n: int, then: Points, how: _How, t: _LookUp) -> int:
    """Write to `then` what one step leaves of the text; its length."""
    first = m = kept = 0
    while first <= n:
        last = end_of_line(now, t.flags, first, n, True)
        at = m + (kept > 0)
        end = at
        if step <= _WORDS:
            if last == first or _stays(step, now, first, last, how, t):
                end = _copy(now, first, last, then, at)
                stays = True
            else:
                stays = False
        else:
            end = _cut_phrase(step, now, first, last, then, at, t.flags)
            stays = last == first or not _is_blank(then, at, end, t.flags)
        if stays:
            if kept > 0:
                then[m] = 10
            kept += 1
            m = end
        first = last + 1
    return m if step == _WORDS else _strip(then, m, t.flags)


@kernel
def _stays(step: int, now: Points, first: int, last: int, how: _How, t: _LookUp) -> bool:
    if step == _COUNTERS:
        return not _is_counter(now, first, last, t)
    if step == _WORDS:
        return _split_words(now, first, last, t.flags) >= how.min_words
    count = 0
    if step == _CAPITALS:
        for i in range(first, last):
            count += t.flags[now[i]] & np.uint32(UPPER) > 0
        return count / (last - first) <= how.upper
    for i in range(first, last):
        count += _is_decimal(now[i], t.flags) or (now[i] > 0x7F and _is_in(t.other_digits, now[i]))
    return count / (last - first) <= how.numeric


@kernel
def _is_counter(now: Points, i: int, last: int, t: _LookUp) -> bool:
    """A number, K, M or B with it or not, and one of twelve nouns, in any case; around them what belongs to no word."""
    while i < last and not _is_word(now[i], t.flags):
        i += 1
    if i == last or not _is_decimal(now[i], t.flags):
        return False
    while i < last and (now[i] == 44 or now[i] == 46 or _is_decimal(now[i], t.flags)):
        i += 1
    if i < last:
        letter = lower_latin(now[i], False)
        i += letter == 0x6B or letter == 0x6D or letter == 0x62
    blanks = i
    while i < last and t.flags[now[i]] & SPACE:
        i += 1
    if i == blanks:
        return False
    for r in range(len(_NOUNS)):
        if _says(now, i, last, _NOUNS[r], False):
            i += length_of(_NOUNS[r])
            while i < last and not _is_word(now[i], t.flags):
                i += 1
            return i == last
    return False


@kernel
def _says(now: Points, i: int, last: int, word: Letters, regex: bool) -> bool:
    """Whether a word in lower case stands at `i`, in any case."""
    k = 0
    while word[k] > 0 and i + k < last and lower_latin(now[i + k], regex) == word[k]:
        k += 1
    return bool(word[k] == 0)


@kernel
def _cut_phrase(step: int, now: Points, first: int, last: int, then: Points, end: int, table: Any) -> int:
    """Append a line without the phrase of the step to then[:end]; the new end. Long lines are only copied."""
    if _split_words(now, first, last, table) > _SHORT:
        return _copy(now, first, last, then, end)
    if step == _SIGN_IN:
        if _says(now, first, last, _CUT[2], True):
            first += length_of(_CUT[2])
            first += first < last and table[now[first]] & np.uint32(SPACE) > 0
        return _copy(now, first, last, then, end)
    if step == _READ_MORE:
        begin = last - length_of(_CUT[1]) - 3  # "..." in DCLM's regular expression are any three characters
        if begin >= first and _says(now, begin, last, _CUT[1], True):
            last = begin
            last -= last > first and table[now[last - 1]] & np.uint32(SPACE) > 0
        return _copy(now, first, last, then, end)
    i = first
    while i < last:
        blank = table[now[i]] & np.uint32(SPACE) > 0
        if blank and _says(now, i + 1, last, _CUT[0], True):
            i += 1 + length_of(_CUT[0])
        elif not blank and _says(now, i, last, _CUT[0], True):
            i += length_of(_CUT[0])
        else:
            then[end] = now[i]
            end += 1
            i += 1
    return end


@kernel
def _cut_urls(now: Points, n: int, then: Points, t: _LookUp) -> int:
    """Write to `then` the text without what DCLM's regular expression for addresses finds; its length.

    That is: up to 10 blanks, a scheme or none, 1 to 256 characters of a host, a point and a top-level domain at whose end a
    word ends, and all characters of an address that follow. The expression is tried from left to right and is greedy: the last
    such point counts.
    """
    done = m = p = 0
    while p < n:
        if not _in_host(now[p]):
            p += 1
            continue
        q = p
        while q < n and _in_host(now[q]):
            q += 1
        point, end = _next_tld(now, p + 1, q, n, t)
        if point < 0:
            p = q
            continue
        begin = max(p, point - _HOST)
        for k in range(min(q - 1, begin + _HOST), point, -1):
            if now[k] == 46:
                later = _tld_end(now, k, n, t)
                if later > 0:
                    end = later
                    break
        while end < n and _in_address(now[end]):
            end += 1
        if begin == p:
            begin = _blanks_before(now, _scheme_before(now, p, done), done, t.flags)
        m = _copy(now, done, begin, then, m)
        done = p = end
    return _copy(now, done, n, then, m)


@kernel
def _cut_ips(now: Points, n: int, then: Points, table: Any) -> int:
    """The same for IPv4 addresses, where a word begins before the number or its scheme."""
    done = m = p = 0
    while p < n:
        end = 0
        if 48 <= now[p] <= 57 and (p == 0 or not _is_word(now[p - 1], table)):
            end = _ip_end(now, p, n)
        if end == 0:
            p += 1
            continue
        while end < n and _in_address(now[end]):
            end += 1
        begin = _scheme_before(now, p, done)
        if begin > 0 and _is_word(now[begin - 1], table):
            begin = p
        begin = _blanks_before(now, begin, done, table)
        m = _copy(now, done, begin, then, m)
        done = p = end
    return _copy(now, done, n, then, m)


@kernel
def _ip_end(now: Points, i: int, n: int) -> int:
    """The end of three numbers of up to 3 digits with points after them, and a digit; 0 if that is not at `i`."""
    for _ in range(3):
        digits = i
        while i < n and 48 <= now[i] <= 57:
            i += 1
        length = i - digits
        if not 1 <= length <= 3 or (length == 3 and now[digits] > 50) or i == n or now[i] != 46:
            return 0
        i += 1
    return i + 1 if i < n and 48 <= now[i] <= 57 else 0


@kernel
def _next_tld(now: Points, first: int, last: int, n: int, t: _LookUp) -> tuple[int, int]:
    """The first point in now[first:last] with a top-level domain after it, and where that ends; -1, 0 if there is none."""
    for k in range(first, last):
        if now[k] == 46:
            end = _tld_end(now, k, n, t)
            if end > 0:
                return k, end
    return -1, 0


@kernel
def _tld_end(now: Points, point: int, n: int, t: _LookUp) -> int:
    """The end of the longest top-level domain after a point at whose end a word ends; 0 for none."""
    state = taken = best = 0
    for i in range(point + 1, n):
        state, taken = _walk(t.tlds, state, taken, now[i])
        if t.tlds.depth[state] != taken:
            break
        if t.tlds.phrase[state] >= 0:
            word = _is_word(now[i], t.flags)
            if word != (i + 1 < n and _is_word(now[i + 1], t.flags)):
                best = i + 1
    return best


@kernel
def _begins_with_tld(now: Points, n: int, tlds: Tables) -> bool:
    state = taken = 0
    for i in range(n):
        state, taken = _walk(tlds, state, taken, lower_latin(now[i], True))
        if tlds.depth[state] != taken:
            return False
        if tlds.phrase[state] >= 0:
            return True
    return False


@kernel
def _walk(tlds: Tables, state: int, taken: int, point: int) -> tuple[Any, int]:
    """The state after one more character, and the bytes taken: as long as they are its depth, the text begins a phrase."""
    if point < 0x80:
        return tlds.step[state, tlds.of_byte[point]], taken + 1
    if point < 0x800:
        state = tlds.step[state, tlds.of_byte[0xC0 | point >> 6]]
        taken += 1
    else:
        if point < 0x10000:
            state = tlds.step[state, tlds.of_byte[0xE0 | point >> 12]]
            taken += 1
        else:
            state = tlds.step[state, tlds.of_byte[0xF0 | point >> 18]]
            state = tlds.step[state, tlds.of_byte[0x80 | (point >> 12 & 0x3F)]]
            taken += 2
        state = tlds.step[state, tlds.of_byte[0x80 | (point >> 6 & 0x3F)]]
        taken += 1
    return tlds.step[state, tlds.of_byte[0x80 | (point & 0x3F)]], taken + 1


@kernel
def _scheme_before(now: Points, p: int, first: int) -> int:
    """Where the scheme before `p` begins, not before `first`; `p` if there is none."""
    for r in range(len(_SCHEMES)):
        begin = p - length_of(_SCHEMES[r])
        if begin >= first and says(now, begin, p, _SCHEMES[r]):
            return begin
    return p


@kernel
def _blanks_before(now: Points, p: int, first: int, table: Any) -> int:
    """The same for blanks, at most 10."""
    begin = p
    while begin > first and p - begin < _BLANKS and table[now[begin - 1]] & np.uint32(SPACE):
        begin -= 1
    return begin


@kernel
def _in_host(point: int) -> bool:
    return (
        97 <= point <= 122 or 48 <= point <= 58 or 64 <= point <= 90 or point == 46 or point == 45 or point == 95 or point == 37
        or point == 43 or point == 126 or point == 35 or point == 61
    )  # fmt: skip


@kernel
def _in_address(point: int) -> bool:
    return _in_host(point) or point == 47 or point == 63 or point == 38 or point == 40 or point == 41


@kernel
def _is_decimal(point: int, table: Any) -> bool:
    return table[point] & np.uint32(DIGIT) > 0  # type: ignore[no-any-return]


@kernel
def _is_in(points: Points, point: int) -> bool:
    k = np.searchsorted(points, point)
    return bool(k < len(points) and points[k] == point)


@kernel
def _is_word(point: int, table: Any) -> bool:
    return point == 95 or table[point] & np.uint32(ALNUM) > 0


@kernel
def _shorten_newlines(now: Points, n: int, most: int) -> int:
    m = run = 0
    for i in range(n):
        run = run + 1 if now[i] == 10 else 0
        if run <= most:
            now[m] = now[i]
            m += 1
    return m


@kernel
def _count_words(now: Points, n: int, table: Any) -> int:
    """fastText's words: between ASCII blanks and zero bytes; those that begin with a letter or digit."""
    words, inside = 0, False
    for i in range(n):
        point = now[i]
        if point == 32 or 9 <= point <= 13 or point == 0:
            inside = False
        else:
            words += not inside and table[point] & np.uint32(ALNUM) > 0
            inside = True
    return words


@kernel
def _split_words(now: Points, first: int, last: int, table: Any) -> int:
    """Words between blanks, as `str.split` has them."""
    words, inside = 0, False
    for i in range(first, last):
        blank = table[now[i]] & np.uint32(SPACE) > 0
        words += not blank and not inside
        inside = not blank
    return words


@kernel
def _is_blank(now: Points, first: int, last: int, table: Any) -> bool:
    while first < last and table[now[first]] & np.uint32(SPACE):
        first += 1
    return first == last


@kernel
def _copy(now: Points, first: int, last: int, then: Points, end: int) -> int:
    for i in range(first, last):
        then[end] = now[i]
        end += 1
    return end


@kernel
def _strip(now: Points, n: int, table: Any) -> int:
    """Take the blanks from both ends, in place; the new length."""
    while n > 0 and table[now[n - 1]] & np.uint32(SPACE):
        n -= 1
    first = 0
    while first < n and table[now[first]] & np.uint32(SPACE):
        first += 1
    if first > 0:
        _copy(now, first, n, now, 0)
    return n - first
