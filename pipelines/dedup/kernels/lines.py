"""Lines and paragraphs of UTF-8 text in kernels: where they are, what they are compared by, and what is no running text.

Lines end at a newline, a carriage return, both, U+0085, U+2028 or U+2029. The form compared is the line in Unicode's form NFD
and lower case with every run of blanks as one space and none at the ends (marks that stand in an odd order are not reordered).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.filter.kernels.repetition import Table, add, clear, table
from pipelines.filter.kernels.tokens import HASH_BASIS, HASH_PRIME
from pipelines.filter.kernels.unicode import ALNUM, DIGIT, SPACE, flags, normal
from pipelines.kernel import inlined, kernel

# kinds of a line
BLANK, CODE, ENTRY = 1, 2, 4
_BUCKET = np.uint64(0x9E3779B97F4A7C15)
# What a line of code begins with, or, where a newline ends it, is.
_BEGINNINGS = ("#include", "#define", "#ifdef", "#ifndef", "#endif", "#!/", "//", "/*", "*/", "<?", "</", "<!", ">>> ", "$ ",
               "@@ ", "def ", "async def ", "import java", "using namespace", "elif ", "SELECT ", "INSERT INTO ",
               "CREATE TABLE ", "except:\n", "finally:\n", "try:\n", "else:\n", "done\n", "esac\n", "endif\n")  # fmt: skip


class Characters(NamedTuple):
    """Flags of each code point; where its folded form begins in `forms`, and all forms in a row."""

    flags: npt.NDArray[np.uint32]
    first: npt.NDArray[np.int32]
    forms: npt.NDArray[np.int32]
    beginnings: npt.NDArray[np.uint8]


class Lines(NamedTuple):
    """Of the lines of one document: byte offsets of begin, end, and of the next line; kind; the unit each belongs to, or -1.

    Of its units (lines or paragraphs): hash, and letters and digits in it; -1 where it is not to be compared.
    """

    begin: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]
    unit: npt.NDArray[np.int32]
    hash: npt.NDArray[np.uint64]
    size: npt.NDArray[np.int64]


class How(NamedTuple):
    """A config for kernels."""

    paragraphs: bool
    keep_code: bool
    keep_lists: bool
    fold_digits: bool
    min_chars: int


def characters() -> Characters:
    """The tables, once a process."""
    rows = np.zeros((len(_BEGINNINGS), max(map(len, _BEGINNINGS)) + 1), np.uint8)
    for row, word in zip(rows, _BEGINNINGS, strict=True):
        row[: len(word)] = np.frombuffer(word.encode(), np.uint8)
    return Characters(flags(), *normal(), rows)


def line_buffers(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[Lines, Table]:
    """Buffers for the documents of a batch: 45 bytes a line of the one with most lines, and a table of its units."""
    number = int(_most_lines(data, offsets))
    three = [np.empty(number, np.int64) for _ in range(3)]
    lines = Lines(three[0], three[1], three[2], np.empty(number, np.uint8), np.empty(number, np.int32),
                  np.empty(number, np.uint64), np.empty(number, np.int64))  # fmt: skip
    return lines, table(number)


@kernel
def _most_lines(data: Any, offsets: Any) -> int:
    """A bound of the lines of the document that has most."""
    most = 0
    for row in range(len(offsets) - 1):
        number = 1
        for i in range(offsets[row], offsets[row + 1]):
            number += data[i] == 10 or data[i] == 13 or data[i] == 0x85 or data[i] == 0xA8 or data[i] == 0xA9
        most = max(most, number)
    return most


@kernel
def point_at(data: Any, i: int, last: int) -> tuple[Any, int]:
    """The code point at a byte of data[:last] and how many bytes it has; U+FFFD and 1 where there is no valid one."""
    b = np.int64(data[i])
    if b < 0x80:
        return b, 1
    length, point = 0, np.int64(0)
    if 0xC2 <= b <= 0xDF:
        length, point = 2, b & 0x1F
    elif 0xE0 <= b <= 0xEF:
        length, point = 3, b & 0x0F
    elif 0xF0 <= b <= 0xF4:
        length, point = 4, b & 0x07
    if length == 0 or i + length > last:
        return np.int64(0xFFFD), 1
    for k in range(i + 1, i + length):
        if data[k] & 0xC0 != 0x80:
            return np.int64(0xFFFD), 1
        point = point << 6 | (np.int64(data[k]) & 0x3F)
    return (point, length) if point <= 0x10FFFF else (np.int64(0xFFFD), 1)


@kernel
def _line_end(data: Any, i: int, last: int) -> int:
    """Bytes of the end of a line at `i`, 0 if none is there."""
    b = data[i]
    if b == 10:
        return 1
    if b == 13:
        return 2 if i + 1 < last and data[i + 1] == 10 else 1
    if b == 0xC2:
        return 2 if i + 1 < last and data[i + 1] == 0x85 else 0
    if b == 0xE2 and i + 2 < last and data[i + 1] == 0x80 and (data[i + 2] == 0xA8 or data[i + 2] == 0xA9):
        return 3
    return 0


@kernel
def split(data: Any, first: int, last: int, t: Characters, how: How, lines: Lines) -> tuple[int, int]:
    """Fill `lines` for the document data[first:last]; returns how many lines and units."""
    number, i = 0, first
    fence = 0  # the character of the open fence
    while i < last:
        begin, ended = i, 0
        while i < last:
            b = data[i]
            if b == 10 or b == 13 or b == 0xC2 or b == 0xE2:
                ended = _line_end(data, i, last)
                if ended > 0:
                    break
            i += 1
        lines.begin[number], lines.end[number], lines.after[number] = begin, i, i + ended
        i += ended
        kind, fence = _kind(data, begin, lines.end[number], t, fence)
        lines.kind[number] = kind
        number += 1
    _code_between(lines.kind, number)
    return number, _units(data, number, t, how, lines)


@kernel
def _units(data: Any, number: int, t: Characters, how: How, lines: Lines) -> int:
    made = k = 0
    spared = (CODE if how.keep_code else 0) | (ENTRY if how.keep_lists else 0)
    while k < number:
        if lines.kind[k] & BLANK:
            lines.unit[k] = -1
            k += 1
            continue
        head, seen = k, 0
        while k < number and not lines.kind[k] & BLANK:
            seen |= lines.kind[k]
            lines.unit[k] = made
            k += 1
            if not how.paragraphs:
                break
        size = -1
        if not seen & spared:
            lines.hash[made], size = form_hash(data, lines.begin[head], lines.end[k - 1], t, how.fold_digits)
        lines.size[made] = size
        made += 1
    return made


@kernel
def form_hash(data: Any, i: int, last: int, t: Characters, fold_digits: bool) -> tuple[Any, int]:
    """The hash of the form compared (with `fold_digits`, of a run of digits as one 0), and its letters and digits."""
    value, size = HASH_BASIS, 0
    pending = digits = False
    while i < last:
        point = np.int64(data[i])
        length = 1
        if point >= 0x80:
            point, length = point_at(data, i, last)
        i += length
        flag = t.flags[point]
        if flag & SPACE:
            pending = value != HASH_BASIS
            digits = False
            continue
        if pending:
            value = (value ^ np.uint64(32)) * HASH_PRIME
            pending = False
        size += flag & ALNUM != 0
        if fold_digits and flag & DIGIT:
            if not digits:
                value = (value ^ np.uint64(48)) * HASH_PRIME
            digits = True
            continue
        digits = False
        if point < 0x80:
            if 65 <= point <= 90:
                point += 32
            value = (value ^ np.uint64(point)) * HASH_PRIME
        else:
            for k in range(t.first[point], t.first[point + 1]):
                value = (value ^ np.uint64(t.forms[k])) * HASH_PRIME
    return value, size


@inlined
def finish(value: Any, bucket: Any) -> Any:
    """The key of a hash in a bucket of documents: MurmurHash3's finaliser."""
    x = value ^ (np.uint64(bucket) * _BUCKET)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))


# --- what is no running text ----------------------------------------------------------------------------------------------


@kernel
def _kind(data: Any, begin: int, end: int, t: Characters, fence: int) -> tuple[int, Any]:
    """The kind of a line, and the character of the fence that is open after it (0: none)."""
    a, column = begin, 0
    while a < end and (data[a] == 32 or data[a] == 9):
        column += 4 if data[a] == 9 else 1
        a += 1
    while a < end:
        point, length = point_at(data, a, end)
        if not t.flags[point] & SPACE:
            break
        a += length
    while end > a and data[end - 1] < 0x80 and t.flags[data[end - 1]] & SPACE:
        end -= 1
    mark = np.int64(data[a]) if a + 2 < end else 0
    if (mark == 96 or mark == 126) and data[a + 1] == mark and data[a + 2] == mark:
        if fence == 0:
            return CODE, mark
        return CODE, 0 if fence == mark else fence
    if fence != 0:
        return CODE | (BLANK if a == end else 0), fence
    if a == end:
        return BLANK, 0
    if _is_entry(data, a, end):
        return ENTRY, 0
    if column >= 4 or _is_code(data, a, end, t):
        return CODE, 0
    return 0, 0


@kernel
def _code_between(kind: Any, number: int) -> None:
    """A line between two lines of code is one (blank lines do not count)."""
    older = old = -1  # the two lines before
    for k in range(number):
        if kind[k] & BLANK:
            continue
        if older >= 0 and kind[k] & CODE and kind[older] & CODE:
            kind[old] |= CODE
        older, old = old, k


@kernel
def _is_entry(data: Any, a: int, end: int) -> bool:
    """A bullet or a number with a blank after it, or a row of a table."""
    b = data[a]
    if b == 124:  # |
        return True
    i = a
    if b == 45 or b == 42 or b == 43:  # - * +
        i = a + 1
    elif b == 0xC2 and a + 1 < end and data[a + 1] == 0xB7:
        i = a + 2
    elif b == 0xE2 and a + 2 < end:  # bullets, hyphens and dashes, triangles and circles
        c, d = data[a + 1], data[a + 2]
        if (c == 0x80 and (0x90 <= d <= 0x95 or d == 0xA2 or d == 0xA3)) or (c == 0x81 and d == 0x83) or c == 0x96 or c == 0x97:
            i = a + 3
    else:
        i = a + (b == 40)  # (
        digits = i
        while i < end and i < digits + 3 and 48 <= data[i] <= 57:
            i += 1
        if i == digits and i < end and (97 <= data[i] <= 122 or 65 <= data[i] <= 90):
            i += 1  # one letter
            if i < end and data[i] == 46:
                return False  # an initial: "A. Smith"
        if i in (digits, end) or not (data[i] == 46 or data[i] == 41):
            return False
        i += 1
    return a < i < end and (data[i] == 32 or data[i] == 9 or data[i] == 0xC2 or data[i] == 0xE3)


@kernel
def _is_code(data: Any, a: int, end: int, t: Characters) -> bool:
    """Whether a line (without blanks at its ends) reads like a line of a program; prose that does so too is spared with it."""
    for r in range(len(t.beginnings)):
        k = 0
        while t.beginnings[r, k] > 0 and a + k < end and data[a + k] == t.beginnings[r, k]:
            k += 1
        if t.beginnings[r, k] == 0 or (t.beginnings[r, k] == 10 and a + k == end):
            return True
    brackets = equals = arrows = blanks = 0
    for i in range(a, end):
        b = data[i]
        if b == 58 and i + 2 < end and data[i + 1] == 47 and data[i + 2] == 47:
            return False  # an address
        before = data[i - 1] if i > a else np.uint8(32)
        after = data[i + 1] if i + 1 < end else np.uint8(32)
        if b == 61 and i > a and i + 1 < end and not (before == 61 and after == 61):
            equals += 1
            if i > a + 1 and after == 61 and before == 61:
                equals -= 1
        elif b == 32:
            blanks += 1
        elif b == 40 or b == 41 or b == 91 or b == 93 or b == 123 or b == 125:
            brackets += 1
            if b == 40 and after == 41 and _in_word(before):
                return True  # a call: f()
        elif b == 62 and before == 45 and i > a + 1:
            arrows += _in_word(data[i - 2]) and _in_word(after)
        elif b == 58 and after == 58 and i + 2 < end:
            arrows += _in_word(before) and _in_word(data[i + 2])
        elif (b == 38 or b == 124) and after == b and i + 3 < end:
            arrows += before == 32 and data[i + 2] == 32
    final = data[end - 1]
    if final == 123 or final == 125:
        return True
    if final == 59 and (brackets > 0 or equals > 0 or blanks < 2):
        return True
    return arrows > 0 or (equals > 0 and not _is_rule(data, a, end))


@inlined
def _in_word(b: Any) -> Any:
    return 97 <= b <= 122 or 65 <= b <= 90 or 48 <= b <= 57 or b == 95


@kernel
def _is_rule(data: Any, a: int, end: int) -> bool:
    """Whether the line is drawn with equal signs: a heading between them, or a ruler."""
    signs = 0
    for i in range(a, end):
        signs += data[i] == 61
    return signs >= 4 and (data[a] == 61 or data[end - 1] == 61)


# --- counting and cutting ---------------------------------------------------------------------------------------------------


@kernel
def count_units(
    data: Any, offsets: Any, buckets: Any, marks: Any, t: Characters, how: How, lines: Lines, seen: Any, out: Any
) -> int:
    """Entries (key, 1, copies in the document, mark of the document) of each document's different units; returns how many.

    `out` grows with the lines of the batch: it must hold as many rows.
    """
    made = 0
    for row in range(len(offsets) - 1):
        _, units = split(data, offsets[row], offsets[row + 1], t, how, lines)
        some = 0
        for u in range(units):
            if lines.size[u] >= how.min_chars:
                lines.hash[some] = finish(lines.hash[u], buckets[row])
                some += 1
        mask = clear(seen, some)
        begin = made
        for u in range(some):
            if add(seen, lines.hash, u, mask) == u:
                out[made, 0] = np.int64(lines.hash[u])
                out[made, 1] = 1
                out[made, 2] = u  # its place, until all are counted
                out[made, 3] = marks[row]
                made += 1
        for k in range(begin, made):
            out[k, 2] = seen.copies[out[k, 2]]
    return made


@kernel
def total_lines(data: Any, offsets: Any) -> int:
    """A bound of the lines of a batch."""
    number = 0
    for row in range(len(offsets) - 1):
        number += 1
        for i in range(offsets[row], offsets[row + 1]):
            number += data[i] == 10 or data[i] == 13 or data[i] == 0x85 or data[i] == 0xA8 or data[i] == 0xA9
    return number


@inlined
def _holds(keys: Any, low: int, high: int, key: Any) -> bool:
    """Whether ascending keys[low:high] hold a key."""
    stop = high
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low < stop and keys[low] == key


@kernel
def cut_units(
    data: Any, offsets: Any, buckets: Any, t: Characters, how: How, lines: Lines, keys: Any, low: Any, high: Any, out: Any,
    ends: Any, units_cut: Any, chars_cut: Any, left: Any,
) -> None:  # fmt: skip
    """Write the documents without the units whose keys are in ascending keys[low[row]:high[row]] to `out`, up to ends[row + 1].

    Units and characters cut, and characters left, go to (rows,) arrays. A cut unit takes its line end along; blank lines after
    it go where a blank line, or nothing, is before; where the end of a text is cut, so are the line ends before it.
    """
    at = 0
    for row in range(len(offsets) - 1):
        first, last = offsets[row], offsets[row + 1]
        gone = 0
        if low[row] < high[row]:
            number, units = split(data, first, last, t, how, lines)
            for u in range(units):
                hit = False
                if lines.size[u] >= how.min_chars:
                    key = np.int64(finish(lines.hash[u], buckets[row]))
                    hit = _holds(keys, low[row], high[row], key)
                gone += hit
                lines.size[u] = -2 if hit else 0
        if gone == 0:
            for i in range(first, last):
                out[at + i - first] = data[i]
            at += last - first
            left[row] = count_points(data, first, last)
        else:
            begin = at
            at = _write_rest(data, number, lines, out, at)
            left[row] = count_points(out, begin, at)
            chars_cut[row] = count_points(data, first, last) - left[row]
        units_cut[row] = gone
        ends[row + 1] = at


@kernel
def _write_rest(data: Any, number: int, lines: Lines, out: Any, at: int) -> int:
    seam, blank_before = False, True
    full = at  # the end of the last line that is not blank, without its line end
    for k in range(number):
        unit = lines.unit[k]
        if unit >= 0 and lines.size[unit] == -2:
            seam = True
            continue
        if unit < 0 and seam and blank_before:
            continue
        for i in range(lines.begin[k], lines.after[k]):
            out[at] = data[i]
            at += 1
        blank_before = unit < 0
        if unit >= 0:
            seam = False
            full = at - (lines.after[k] - lines.end[k])
    return full if seam else at


@kernel
def count_points(data: Any, first: int, last: int) -> int:
    """Code points of UTF-8."""
    number = 0
    for i in range(first, last):
        number += data[i] & 0xC0 != 0x80
    return number


@kernel
def find_units(
    data: Any, offsets: Any, buckets: Any, t: Characters, how: How, lines: Lines, keys: Any, at: Any, begins: Any, ends: Any
) -> int:
    """Where units of the ascending keys are: place in `keys`, begin and end in `data`, as many as fit; returns how many."""
    made = 0
    for row in range(len(offsets) - 1):
        number, _ = split(data, offsets[row], offsets[row + 1], t, how, lines)
        for k in range(number):
            u = lines.unit[k]
            if u < 0 or lines.size[u] < how.min_chars or (k > 0 and lines.unit[k - 1] == u):
                continue
            key = np.int64(finish(lines.hash[u], buckets[row]))
            place = np.searchsorted(keys, key)
            if place < len(keys) and keys[place] == key and made < len(at):
                stop = k
                while stop + 1 < number and lines.unit[stop + 1] == u:
                    stop += 1
                at[made], begins[made], ends[made] = place, lines.begin[k], lines.end[stop]
                made += 1
    return made
