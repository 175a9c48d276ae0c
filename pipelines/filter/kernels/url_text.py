"""Kernels over the bytes of a URL: where its host lies, its canonical form, its words, and their hashes.

A byte above 127 is taken for a letter, except by `fold`. URLs that hold such (IDNs, percent escapes of other scripts) are told
by `irregular`; `pipelines.filter.url` has their hosts rewritten and their words folded first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.filter.hosts import CONTEXT, MAY_PASS
from pipelines.kernel import kernel

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
HOST, URL, WORD = 0, 1, 2  # what a text is, and so its canonical form
IN_HOST, BEHIND = 2, 1
MAX_WORD = 255  # bytes; listed words are no longer
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd (golden ratio): the hash of a text is a polynomial in it modulo 2**64


def _powers() -> npt.NDArray[np.uint64]:
    powers, power = [], 1
    for _ in range(MAX_WORD + 1):
        powers.append(power)
        power = power * int(FACTOR) % 2**64
    return np.array(powers, np.uint64)


_POWERS = _powers()


@kernel
def step(h: Any, byte: Any) -> Any:
    """The polynomial hash of a text with one more byte."""
    return h * FACTOR + (np.uint64(byte) + np.uint64(1))


@kernel
def part(prefixes: npt.NDArray[np.uint64], start: int, end: int) -> Any:
    """The polynomial hash of text[start:end], of at most MAX_WORD bytes, from those of all its beginnings."""
    return prefixes[end] - prefixes[start] * _POWERS[end - start]


@kernel
def mix(h: np.uint64) -> np.uint64:
    """MurmurHash3's 64-bit finaliser."""
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@kernel
def lower(byte: int) -> int:
    """A byte with A-Z as a-z."""
    return byte + 32 if 65 <= byte <= 90 else byte


@kernel
def alnum(byte: int) -> bool:
    """Whether a byte is a letter or digit of ASCII, or belongs to another character."""
    return 48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122 or byte >= 128


@kernel
def hex_value(byte: int) -> int:
    """0 to 15; -1 for a byte that is no hexadecimal digit."""
    if 48 <= byte <= 57:
        return byte - 48
    byte = lower(byte)
    return byte - 87 if 97 <= byte <= 102 else -1


@kernel
def escaped(text: Bytes, at: int, end: int) -> int:
    """The byte that `%XX` at this place stands for; -1 where there is no escape."""
    if text[at] != 37 or at + 2 >= end:
        return -1
    high, low = hex_value(text[at + 1]), hex_value(text[at + 2])
    return 16 * high + low if high >= 0 and low >= 0 else -1


@kernel
def strip(text: Bytes, start: int, end: int) -> tuple[int, int]:
    """The span without blanks and control characters at its ends."""
    while start < end and text[start] <= 32:
        start += 1
    while end > start and text[end - 1] <= 32:
        end -= 1
    return start, end


@kernel
def after_scheme(text: Bytes, start: int, end: int) -> int:
    """Where the authority of `scheme://` or `//` begins; -1 where the text has none. A backslash counts as a slash."""
    at = start
    while at < end and (alnum(text[at]) or text[at] in (43, 45, 46)):  # + - .
        at += 1
    if at > start:
        if at >= end or text[at] != 58 or not 97 <= lower(text[start]) <= 122:
            return -1
        at += 1
    if at + 1 < end and text[at] in (47, 92) and text[at + 1] in (47, 92):
        return at + 2
    return -1


@kernel
def host_span(text: Bytes, start: int, end: int) -> tuple[int, int, int]:
    """Of an authority that begins at `start`: (host start, host end, authority end), without user, password and port."""
    stop = start
    while stop < end and text[stop] not in (47, 92, 63, 35):  # / \ ? #
        if text[stop] == 64:  # @
            start = stop + 1
        stop += 1
    last = start
    if last < stop and text[last] == 91:  # [ of an IPv6 address
        while last < stop and text[last] != 93:
            last += 1
        return start, min(last + 1, stop), stop
    while last < stop and text[last] != 58:
        last += 1
    return start, last, stop


@kernel
def put_host(text: Bytes, start: int, end: int, out: Bytes) -> int:
    """Write a host in lower case without final dots; returns its length."""
    while end > start and text[end - 1] == 46:
        end -= 1
    for at in range(start, end):
        out[at - start] = lower(text[at])
    return end - start


@kernel
def put_url(text: Bytes, start: int, end: int, out: Bytes) -> int:
    """Write a URL in canonical form; returns its length, 0 where it has no host. `out`: at least as long as the URL.

    Scheme, user, `www.`, port 80 or 443, fragment, slashes at the end of the path and an empty query do not count. An escape of
    a letter, a digit, one of `-._~` or a byte above 127 is that byte, any other has upper-case digits.
    """
    authority = after_scheme(text, start, end)
    first, last, stop = host_span(text, start if authority < 0 else authority, end)
    www = last - first > 4 and lower(text[first]) == 119 and lower(text[first + 1]) == 119
    if www and lower(text[first + 2]) == 119 and text[first + 3] == 46:
        for at in range(first + 4, last):
            if text[at] == 46:  # of www.is nothing would be left but the suffix
                first += 4
                break
    size = put_host(text, first, last, out)
    if size == 0:
        return 0
    port = stop - last
    default = (port == 3 and text[last + 1] == 56 and text[last + 2] == 48) or (
        port == 4 and text[last + 1] == 52 and text[last + 2] == 52 and text[last + 3] == 51
    )
    if port > 1 and not default:
        for at in range(last, stop):
            out[size] = text[at]
            size += 1
    host_size, in_path, at = size, True, stop
    while at < end and text[at] != 35:
        byte = int(text[at])
        if in_path and byte == 63:
            while size > host_size and out[size - 1] == 47:
                size -= 1
            in_path = False
        value = escaped(text, at, end)
        if value < 0:
            out[size] = 47 if in_path and byte == 92 else byte
            size += 1
            at += 1
        elif alnum(value) or value in (45, 46, 95, 126):
            out[size] = value
            size += 1
            at += 3
        else:
            out[size] = 37
            for k in range(1, 3):
                digit = hex_value(text[at + k])
                out[size + k] = digit + (48 if digit < 10 else 55)
            size += 3
            at += 3
    while size > host_size and out[size - 1] == (47 if in_path else 63):
        size -= 1
    return size


@kernel
def put_words(text: Bytes, start: int, end: int, out: Bytes, begins: Bytes) -> int:
    """Write the letters and digits in lower case, escapes resolved; returns how many. `begins`: 1 where a word begins."""
    size, begin, at = 0, 1, start
    while at < end:
        value = escaped(text, at, end)
        byte = int(text[at]) if value < 0 else value
        at += 1 if value < 0 else 3
        if alnum(byte):
            out[size] = lower(byte)
            begins[size] = begin
            size += 1
            begin = 0
        else:
            begin = 1
    return size


@kernel
def put(kind: int, text: Bytes, start: int, end: int, out: Bytes, begins: Bytes) -> int:
    """Write the canonical form of a host, URL or word; returns its length."""
    if kind == HOST:
        return put_host(text, start, end, out)
    if kind == URL:
        return put_url(text, start, end, out)
    return put_words(text, start, end, out, begins)


@kernel
def irregular(text: Bytes, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Which URLs hold more than ASCII, escaped or not: IN_HOST (punycode is such), BEHIND it, or 0. Shape (rows,)."""
    rows = len(offsets) - 1
    result = np.zeros(rows, np.uint8)
    for row in range(rows):
        start, end = strip(text, offsets[row], offsets[row + 1])
        authority = after_scheme(text, start, end)
        if authority < 0:
            continue
        first, last, _ = host_span(text, authority, end)
        for at in range(first, end):
            byte = text[at]
            if at < last and (byte <= 32 or byte == 127 or (byte in (91, 93) and text[first] != 91)):
                result[row] = IN_HOST  # what a host cannot have
                break
            if byte < 128 and byte != 37 and byte != 45:
                continue
            found = byte >= 128 or escaped(text, at, end) >= 128 or (byte == 37 and at < last)
            if byte == 45 and first + 3 <= at < last and text[at - 1] == 45:  # xn--
                found = lower(text[at - 3]) == 120 and lower(text[at - 2]) == 110
            if found:
                result[row] = IN_HOST if at < last else BEHIND
                break
    return result


@kernel
def fold(text: Bytes, starts: Places, ends: Places, table: npt.NDArray[np.int32]):  # type: ignore[no-untyped-def]
    """The spans as words with blanks between, as `hosts.fold_words` and `latin_words` make them of the unescaped text.

    Returns (bytes, offsets, open): `open` tells the spans for which this needs more than one character at a time. `table`:
    hosts.fold_table().
    """
    size = 0
    for row in range(len(starts)):
        size += 2 * (ends[row] - starts[row]) + 4  # a letter's lower case may be longer
    out, offsets, open_ = np.empty(size, np.uint8), np.zeros(len(starts) + 1, np.int64), np.zeros(len(starts), np.bool_)
    size = 0
    for row in range(len(starts)):
        at, end = starts[row], ends[row]
        latin = passing = False
        while at < end and not open_[row]:
            point, at = _code_point(text, at, end)
            if point < 128:
                new = lower(point) if alnum(point) else 0
            elif point < len(table):
                new = table[point]
            else:
                new = CONTEXT  # rare
            if new == CONTEXT:
                open_[row] = True
            passing = new > 0 and (passing or (new & MAY_PASS) != 0)
            if new > 0:
                new &= MAY_PASS - 1
            latin = new > 0 and (latin or 97 <= new <= 122)
            open_[row] |= latin and passing
            if new <= 0:
                out[size] = 32
                size += 1
            elif new < 0x80:
                out[size] = new
                size += 1
            elif new < 0x800:
                out[size], out[size + 1] = 0xC0 | new >> 6, 0x80 | new & 63
                size += 2
            elif new < 0x10000:
                out[size], out[size + 1], out[size + 2] = 0xE0 | new >> 12, 0x80 | new >> 6 & 63, 0x80 | new & 63
                size += 3
            else:
                out[size], out[size + 1] = 0xF0 | new >> 18, 0x80 | new >> 12 & 63
                out[size + 2], out[size + 3] = 0x80 | new >> 6 & 63, 0x80 | new & 63
                size += 4
        offsets[row + 1] = size
    return out[:size], offsets, open_


@kernel
def _code_point(text: Bytes, at: int, end: int) -> tuple[int, int]:
    """The character that begins here, escaped or not, and where the next one does; 1 for what is no UTF-8."""
    value = escaped(text, at, end)
    first = int(text[at]) if value < 0 else value
    at += 1 if value < 0 else 3
    if first < 0x80:
        return first, at
    more = 1 if 0xC2 <= first < 0xE0 else 2 if 0xE0 <= first < 0xF0 else 3 if 0xF0 <= first < 0xF5 else 0
    if more == 0:
        return 1, at
    point, place = first & (63 >> more), at
    for _ in range(more):
        if place >= end:
            return 1, at
        value = escaped(text, place, end)
        byte = int(text[place]) if value < 0 else value
        if byte & 0xC0 != 0x80:
            return 1, at
        point = point << 6 | byte & 63
        place += 1 if value < 0 else 3
    if (more == 2 and point < 0x800) or (more == 3 and not 0x10000 <= point < 0x110000) or 0xD800 <= point < 0xE000:
        return 1, at
    return point, place


@kernel
def is_address(text: Bytes, size: int) -> bool:
    """Whether a canonical host is an IPv6 address, or what browsers take for an IPv4 one (parts in hexadecimal, too)."""
    if text[0] == 91:
        return True
    begin = 0
    for at in range(size + 1):
        if at < size and text[at] != 46:
            continue
        digits = begin
        in_hex = at - begin > 2 and text[begin] == 48 and text[begin + 1] == 120
        if in_hex:
            digits = begin + 2
        if digits == at:
            return False
        for k in range(digits, at):
            if not (48 <= text[k] <= 57 or (in_hex and 97 <= text[k] <= 102)):
                return False
        begin = at + 1
    return True
