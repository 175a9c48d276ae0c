"""Lists of hosts, URLs or words, millions of entries long: read as they come, looked up by hash, hits held against the entry.

A list is entries in the recipe, or `file:PATH`, where PATH is a file, gzip or not, or a folder of such as the UT1 blacklists
are (`CATEGORY/domains` for hosts, `CATEGORY/urls` for URLs). Lines may be

| line | is |
|---|---|
| `bad.example`, `.bad.example`, `*.bad.example`, `http://bad.example/` | a host and all below it; `.example` a whole TLD |
| `0.0.0.0 bad.example other.example` | the same, each name (hosts file) |
| `||bad.example^`, with `$all`, `$document`, `$important` or nothing | the same (ad-block list) |
| `bad.example/page?x=1`, `http://bad.example/page?x=1` | in a list of URLs: this page |
| any letters and digits | in a list of words: these, punctuation aside |
| `# ...`, `! ...`, `[Adblock Plus 2.0]` | a comment; so is what follows a blank and `#` |

What else an ad-block list holds (exceptions, rules on paths and elements) is no host, and a name without a dot is none either;
such lines of a file are left out, and the log says how many. In memory are 16 bytes an entry and some; the entries themselves
stay in the file, mapped (a file that is packed, or one of several, is copied to a temporary one). Replace a list while a run
reads it, but do not write into it.
"""

from __future__ import annotations

import gzip
import logging
import mmap
import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt

from pipelines.errors import UserError
from pipelines.filter.hosts import ascii_host, fold_words, latin_words
from pipelines.filter.kernels.url_text import (
    HOST,
    MAX_WORD,
    URL,
    WORD,
    Bytes,
    Places,
    after_scheme,
    alnum,
    hex_value,
    host_span,
    lower,
    mix,
    put,
    step,
    strip,
)
from pipelines.kernel import kernel

_FOLDER_NAMES = {HOST: "domains", URL: "urls", WORD: "words"}
_WHAT = {HOST: "a host name", URL: "a URL", WORD: "a word (at most 255 bytes)"}
_LENGTH_BITS = 20  # a place is where an entry begins, shifted by these, plus its length
_LONGEST = (1 << _LENGTH_BITS) - 1

Hashes = npt.NDArray[np.uint64]
_NOTHING = (np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64), 0, -1, np.zeros(MAX_WORD + 1, np.bool_), 0)


class Table(NamedTuple):
    """What the kernels see of a list: N entries in the order of their hashes."""

    kind: int
    text: Bytes  # the lines
    extra: Bytes  # canonical forms of the entries that have more than ASCII; places in it come behind those in `text`
    hashes: Hashes  # shape (N,)
    places: Places  # shape (N,)
    buckets: npt.NDArray[np.int32]  # first entry whose hash begins with these bits, shape (2 ** bits + 1,)
    bits: int
    lengths: npt.NDArray[np.int64]  # of the canonical forms, each once, up to MAX_WORD
    firsts: npt.NDArray[np.bool_]  # which hashes (16 bits) the first `lengths[0]` bytes of an entry have; of words only
    longest: int  # entry, in bytes


@dataclass(frozen=True, eq=False)
class UrlList:
    """A list, and the entries as they were written."""

    table: Table
    written: dict[int, str]  # of the entries in `extra`, by place

    def __len__(self) -> int:
        return len(self.table.places)

    def entry(self, place: int) -> str:
        """The entry at a place that a kernel found, as the list has it."""
        if place in self.written:
            return self.written[place]
        start, length = place >> _LENGTH_BITS, place & _LONGEST
        return bytes(self.table.text[start : start + length]).decode("utf-8", "replace")


def url_list(given: tuple[str, ...], kind: int) -> UrlList:
    """The list of these entries and `file:PATH`s; kept by the process as long as the files stay as they are.

    Raises UserError for a file that cannot be read, and for an entry in the recipe that is none.
    """
    files = list_files(given, kind)
    return _load(given, kind, tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))


def list_files(given: tuple[str, ...], kind: int | None = None) -> list[Path]:
    """The files that the `file:PATH`s of a list name; of folders, those of the kind (None: of any). Raises UserError."""
    names = set(_FOLDER_NAMES.values()) if kind is None else {_FOLDER_NAMES[kind]}
    found = list[Path]()
    for path in (Path(entry.removeprefix("file:")) for entry in given if entry.startswith("file:")):
        try:
            inside = [p for p in sorted(path.rglob("*")) if p.name.removesuffix(".gz") in names and p.is_file()]
            with open(inside[0] if path.is_dir() and inside else path, "rb"):
                found += inside if path.is_dir() else [path]
        except OSError as error:
            raise UserError(
                f"URL list {str(path)!r} cannot be read: {error}; give a file with one entry a line, or a folder with files "
                f"named {' or '.join(sorted(names))}"
            ) from error
    return found


@lru_cache(maxsize=64)
def _load(given: tuple[str, ...], kind: int, state: tuple[tuple[str, int, int], ...]) -> UrlList:
    """`state`: path, bytes and mtime of the files, so that a changed file is read anew."""
    entries = [e for e in given if not e.startswith("file:")]
    if kind == WORD:
        entries = [e for e in entries if e.strip()]
    inline = "".join(f"{entry}\n" for entry in entries).encode()
    text = _lines(inline, list_files(given, kind))
    read = _read(text, kind) if len(text) else _NOTHING  # where no list is given, no kernel is compiled for it
    hashes, places, odd, rejected, first_rejected, used, longest = read
    if rejected:
        start = int(first_rejected)
        line = bytes(text[start : start + 200]).split(b"\n")[0].decode("utf-8", "replace").strip()
        if start < len(inline):
            raise UserError(f"entry {line!r} of a URL list is not {_WHAT[kind]}; see pipelines/filter/url_lists.py")
        _log(given, rejected, line, kind)
    extra, written, more = bytearray(), dict[int, str](), list[int]()
    for place in odd.tolist():
        start, length = place >> _LENGTH_BITS, place & _LONGEST
        raw = bytes(text[start : start + length])
        canonical = _canonical(raw, kind)
        if canonical:
            at = (len(text) + len(extra)) << _LENGTH_BITS | len(canonical)
            extra += canonical
            written[at] = raw.decode("utf-8", "replace")
            more.append(at)
            longest = max(longest, len(canonical))
    both = np.frombuffer(bytes(extra), np.uint8)
    extra_places = np.array(more, np.int64)
    if more:
        hashes = np.concatenate([hashes, _hashes(kind, len(text), both, extra_places, used)])
        places = np.concatenate([places, extra_places])
    order = np.argsort(hashes, kind="stable")
    hashes, places = hashes[order], places[order]
    bits = _bits(len(hashes))
    buckets = np.searchsorted(hashes >> np.uint64(64 - bits), np.arange((1 << bits) + 1, dtype=np.uint64)).astype(np.int32)
    lengths, firsts = np.flatnonzero(used).astype(np.int64), np.zeros(1 << 16, np.bool_)
    table = Table(kind, text, both, hashes, places, buckets, bits, lengths, firsts, int(longest))
    if kind == WORD and len(places):
        _mark_firsts(table)
    return UrlList(table, written)


def _bits(entries: int) -> int:
    """A small list has four buckets an entry, so that most lookups end at an empty one; a large one four entries a bucket."""
    bits = max(entries, 1).bit_length()
    return min(max(bits + 2 if entries < 1 << 16 else bits - 2, 6), 28)


def _log(given: tuple[str, ...], rejected: int, line: str, kind: int) -> None:
    files = [entry for entry in given if entry.startswith("file:")]
    logging.getLogger(__name__).warning(
        "%s: %d lines are left out because they are not %s, the first is %r", ", ".join(files), rejected, _WHAT[kind], line
    )


def _lines(inline: bytes, files: list[Path]) -> Bytes:
    """Inline entries and files as one text: a plain file alone is mapped as it is, others are copied to one that is."""
    if not files:
        return np.frombuffer(inline, np.uint8)
    if len(files) == 1 and not inline:
        with open(files[0], "rb") as file:
            if file.read(2) != b"\x1f\x8b":
                return _mapped(file)
    with tempfile.TemporaryFile() as whole:
        whole.write(inline)
        for path in files:
            with open(path, "rb") as file:
                packed = file.read(2) == b"\x1f\x8b"
                file.seek(0)
                try:
                    shutil.copyfileobj(gzip.GzipFile(fileobj=file) if packed else file, whole, 1 << 20)
                except (OSError, EOFError) as error:
                    raise UserError(f"URL list {str(path)!r} cannot be read: {error}; is it cut off?") from error
            whole.write(b"\n")
        whole.flush()
        return _mapped(whole)


def _mapped(file: IO[bytes]) -> Bytes:
    if file.seek(0, 2) == 0:
        return np.frombuffer(b"", np.uint8)
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _canonical(raw: bytes, kind: int) -> bytes:
    """An entry with more than ASCII in the form that the kernels compare; empty where it is not UTF-8."""
    try:
        if kind == WORD:
            return latin_words(fold_words(unquote_to_bytes(raw).decode())).replace(" ", "").encode()[: MAX_WORD + 1]
        text = raw.decode()
    except UnicodeDecodeError:
        return b""
    if kind == HOST:
        return ascii_host(unquote_to_bytes(text).decode("utf-8", "replace")).encode()
    return with_ascii_host(raw)


def with_ascii_host(url: bytes) -> bytes:
    """A URL with its host in IDNA ASCII, the rest as it is."""
    text = np.frombuffer(url, np.uint8)
    start = max(after_scheme(text, 0, len(url)), 0)
    first, last, _ = host_span(text, start, len(url))
    name = ascii_host(unquote_to_bytes(url[first:last]).decode("utf-8", "replace"))
    return url[:first] + name.encode() + url[last:]


# --- kernels ------------------------------------------------------------------------------------------------------------


@kernel
def find(table: Table, text: Bytes, start: int, end: int, h: np.uint64, scratch: Bytes, begins: Bytes) -> int:
    """The place of the entry whose canonical form is text[start:end] with the polynomial hash `h`; -1 where there is none.

    Equal hashes are not enough: the entry itself is compared. `scratch` and `begins`: at least `table.longest` bytes.
    """
    h = mix(h)
    bucket = h >> np.uint64(64 - table.bits)
    if table.buckets[bucket] == table.buckets[bucket + np.uint64(1)]:
        return -1
    size = end - start
    for index in range(table.buckets[bucket], table.buckets[bucket + np.uint64(1)]):
        if table.hashes[index] < h:
            continue
        if table.hashes[index] > h:
            break
        place = int(table.places[index])
        first, length = place >> _LENGTH_BITS, place & _LONGEST
        source = table.text
        if first >= len(table.text):
            source = table.extra
            first -= len(table.text)
        if put(table.kind, source, first, first + length, scratch, begins) == size:
            same = True
            for k in range(size):
                if scratch[k] != text[start + k]:
                    same = False
                    break
            if same:
                return place
    return -1


@kernel
def first_bits(h: np.uint64) -> np.uint64:
    """Where `Table.firsts` has the polynomial hash of a beginning."""
    return mix(h) >> np.uint64(48)


@kernel
def _mark_firsts(table: Table) -> None:
    out, begins = np.empty(table.longest + 8, np.uint8), np.empty(table.longest + 8, np.uint8)
    for place in table.places:
        first, length = place >> _LENGTH_BITS, place & _LONGEST
        source = table.text
        if first >= len(table.text):
            source = table.extra
            first -= len(table.text)
        put(table.kind, source, first, first + length, out, begins)
        h = np.uint64(0)
        for k in range(table.lengths[0]):
            h = step(h, out[k])
        table.firsts[first_bits(h)] = True


@kernel
def _hashes(kind: int, base: int, extra: Bytes, places: Places, used: npt.NDArray[np.bool_]) -> Hashes:
    """The hashes of canonical forms in `extra`; `used` gets their lengths."""
    result = np.empty(len(places), np.uint64)
    out, begins = np.empty(len(extra) + 4, np.uint8), np.empty(len(extra) + 4, np.uint8)
    for index in range(len(places)):
        place = int(places[index])
        start, length = (place >> _LENGTH_BITS) - base, place & _LONGEST
        size = put(kind, extra, start, start + length, out, begins)
        h = np.uint64(0)
        for k in range(size):
            h = step(h, out[k])
        used[min(size, MAX_WORD)] = True
        result[index] = mix(h)
    return result


@kernel
def _grown(array: Any) -> Any:
    larger = np.empty(2 * len(array), array.dtype)
    larger[: len(array)] = array
    return larger


@kernel
def _token(text: Bytes, start: int, end: int) -> int:
    """Where the run without blanks that begins here ends."""
    while start < end and text[start] > 32:
        start += 1
    return start


@kernel
def _is_number(text: Bytes, start: int, end: int) -> bool:
    """Whether a token is an address, as the first of a line of a hosts file is."""
    marks = 0
    for at in range(start, end):
        if text[at] in (46, 58):
            marks += 1
        elif hex_value(text[at]) < 0:
            return False
    return marks > 1


@kernel
def _hides(text: Bytes, start: int, end: int) -> bool:
    """Whether a token is an ad-block rule on elements of a page: it has `##`, `#@` or `#?`."""
    found = False
    for at in range(start, end - 1):
        found |= text[at] == 35 and text[at + 1] in (35, 64, 63)
    return found


@kernel
def _rule_end(text: Bytes, start: int, end: int) -> int:
    """Where the host of an ad-block rule ends that begins behind `||`; -1 for a rule that is not on a whole site."""
    at = start
    while at < end and text[at] not in (94, 36):  # ^ $
        at += 1
    last = at
    if at < end and text[at] == 94:
        at += 1
    if at < end and text[at] != 36:
        return -1
    at += 1
    while at < end:
        stop = at
        while stop < end and text[stop] != 44:
            stop += 1
        size, first = stop - at, text[at]
        # all, doc, document, important, told by length and letters; every other option narrows the rule
        whole = (size == 3 and first in (97, 100)) or (size == 9 and first == 105)
        if not whole and not (size == 8 and first == 100 and text[at + 2] == 99):
            return -1
        at = stop + 1
    return last


@kernel
def _host_of(text: Bytes, start: int, end: int) -> tuple[int, int]:
    """The span of the host in a line of a list of hosts; (start, start) where the line is something else."""
    if end - start > 2 and text[start] == 124 and text[start + 1] == 124:  # ||
        stop = _rule_end(text, start + 2, end)
        if stop < 0:
            return start, start
        start, end = start + 2, stop
    authority = after_scheme(text, start, end)
    first, last, stop = host_span(text, start if authority < 0 else authority, end)
    comment = stop < end and text[stop] == 35 and not _hides(text, stop, end)
    if not comment and (end - stop > 1 or (end - stop == 1 and text[stop] != 47)):
        return start, start  # it has a path: a page, no host
    if last - first > 1 and text[first] == 42 and text[first + 1] == 46:  # *.
        first += 1
    dots = 0
    for at in range(first, last):
        dots += text[at] in (46, 58) or text[at] >= 128  # an ideographic full stop is one, too
    if dots == 0:
        return start, start
    if last - first > 1 and text[first] == 46:
        first += 1
    for at in range(first, last):
        byte = text[at]
        if not (alnum(byte) or byte in (45, 46, 95, 37) or (text[first] == 91 and byte in (58, 91, 93))):
            return start, start
    return first, last


@kernel
def _read(text: Bytes, kind: int):  # type: ignore[no-untyped-def]
    """Go through the lines of a list.

    Returns hashes and places of the entries, the places of those that have more than ASCII (`odd`), how many lines are no
    entries and where the first of them begins, the lengths in use (bool, shape (MAX_WORD + 1,)), and the longest entry.
    """
    lines = 1
    for byte in text:
        lines += byte == 10
    hashes, places, odd = np.empty(lines, np.uint64), np.empty(lines, np.int64), np.empty(64, np.int64)
    out, begins = np.empty(_LONGEST + 8, np.uint8), np.empty(_LONGEST + 8, np.uint8)
    used = np.zeros(MAX_WORD + 1, np.bool_)
    count = odds = rejected = longest = line = 0
    first_rejected = -1
    while line < len(text):
        line_end = line
        while line_end < len(text) and text[line_end] != 10:
            line_end += 1
        start, end = strip(text, line, line_end)
        begin, line = line, line_end + 1
        if end - start >= 3 and text[start] == 0xEF and text[start + 1] == 0xBB and text[start + 2] == 0xBF:
            start, end = strip(text, start + 3, end)
        for at in range(start + 1, end):
            if text[at] == 35 and text[at - 1] <= 32:
                start, end = strip(text, start, at)
                break
        if start == end or text[start] in (33, 35):
            continue
        if end - start > 2 and text[start] == 91 and lower(text[start + 1]) == 97 and lower(text[start + 2]) == 100:
            continue
        stop = _token(text, start, end)
        names = kind == HOST and stop < end and _is_number(text, start, stop)
        if names:
            start, _ = strip(text, stop, end)  # of a hosts file
        good = kind == WORD or names or stop == end
        while good and start < end:
            stop = end if kind == WORD else _token(text, start, end)
            first, last = start, stop
            if kind == HOST:
                first, last = _host_of(text, start, stop)
            elif kind == URL and (text[start] in (64, 124) or _hides(text, start, stop)):
                last = start  # an ad-block rule
            plain = True
            for at in range(first, last):
                if text[at] >= 128 or (text[at] == 37 and kind != URL):
                    plain = False
                    break
            if last - first > _LONGEST or last == first:
                good = names  # localhost and the like
            elif not plain:
                if odds == len(odd):
                    odd = _grown(odd)
                odd[odds] = (first << _LENGTH_BITS) | (last - first)
                odds += 1
            else:
                size = put(kind, text, first, last, out, begins)
                if size == 0 or (kind == WORD and size > MAX_WORD):
                    good = False
                else:
                    h = np.uint64(0)
                    for k in range(size):
                        h = step(h, out[k])
                    if count == len(hashes):
                        hashes, places = _grown(hashes), _grown(places)
                    hashes[count] = mix(h)
                    places[count] = (first << _LENGTH_BITS) | (last - first)
                    count += 1
                    used[min(size, MAX_WORD)] = True
                    longest = max(longest, last - first)
            start, _ = strip(text, stop, end)
        if not good:
            rejected += 1
            if first_rejected < 0:
                first_rejected = begin
    return hashes[:count], places[:count], odd[:odds], rejected, first_rejected, used, longest
