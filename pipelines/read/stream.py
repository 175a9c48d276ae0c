"""Bounded reading of plain and compressed files: bytes at a position, and what is still good when they end in damage."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import IO

import zstandard

CHUNK = 1 << 15  # bytes read at a time
OUTPUT = 1 << 18  # bytes inflated at a time: a decompression bomb is never held
OVERLAP = 1 << 14  # longer than any match of a pattern given to Stream.find

GZIP, ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"


class Stream:
    """A window that moves over chunks. `open_at(position)` gives the chunks from there; damage ends them, see `error`."""

    def __init__(self, open_at: Callable[[int], Iterator[bytes]], position: int = 0) -> None:
        self.open_at = open_at
        self.rewind(position)

    def rewind(self, position: int) -> None:
        """Go to a position, forward or back."""
        self.position, self.ended = position, False
        self.error: str | None = None
        self._buffer, self._at = bytearray(), 0
        self._chunks = self.open_at(position)

    def ensure(self, count: int) -> int:
        """Have `count` bytes at hand, fewer only where the stream ends; returns how many there are (maybe more than asked)."""
        have = len(self._buffer) - self._at
        if have < count and self._at:
            del self._buffer[: self._at]
            self._at = 0
        while have < count and not self.ended:
            try:
                self._buffer += next(self._chunks)
            except StopIteration:
                self.ended = True
            except (zlib.error, zstandard.ZstdError, EOFError) as error:
                self.ended, self.error = True, str(error)
            have = len(self._buffer)
        return have

    def peek(self, start: int, end: int) -> bytes:
        """Bytes [start, end) counted from here, fewer where the stream ends."""
        self.ensure(end)
        return bytes(memoryview(self._buffer)[self._at + start : self._at + end])

    def match(self, pattern: re.Pattern[bytes], start: int = 0) -> re.Match[bytes] | None:
        """Match the pattern at `start` bytes from here."""
        self.ensure(start + OVERLAP)
        return pattern.match(self._buffer, self._at + start)

    def search(self, pattern: re.Pattern[bytes], start: int, end: int) -> int:
        """Where the pattern first begins in [start, end) counted from here, or -1; the bytes are at hand afterwards."""
        self.ensure(end + OVERLAP)
        found = pattern.search(self._buffer, self._at + start)
        return found.start() - self._at if found and found.start() - self._at < end else -1

    def skip(self, count: int) -> int:
        """Go `count` bytes forward, fewer where the stream ends; returns how many."""
        gone = 0
        while gone < count:
            have = min(self.ensure(1), count - gone)
            if have == 0:
                break
            self._at += have
            self.position += have
            gone += have
        return gone

    def skip_to(self, pattern: re.Pattern[bytes], start: int) -> int:
        """Go to where the pattern next begins, at least `start` bytes from here, or to the end; returns how many bytes."""
        gone = self.skip(start)
        while self.ensure(1):
            found = self.search(pattern, 0, OUTPUT)
            if found >= 0:
                return gone + self.skip(found)
            gone += self.skip(OUTPUT)
        return gone


def plain(file: IO[bytes], position: int) -> Iterator[bytes]:
    """The bytes of a file from a position."""
    while True:
        file.seek(position)
        chunk = file.read(OUTPUT)
        if not chunk:
            return
        position += len(chunk)
        yield chunk


class Members:
    """Inflates the gzip members of a file one after the other, from `start` on; `limit` 1 stops after the first.

    `member` is where the current member begins and `end` where it ended. Raises EOFError or zlib.error at damage, after having
    yielded whatever was good before it.
    """

    def __init__(self, file: IO[bytes], start: int, limit: int | None = None) -> None:
        self.file, self.member, self.end, self.limit = file, start, start, limit

    def __iter__(self) -> Iterator[bytes]:
        while self.limit is None or self.limit > 0:
            self.member = self.end
            self.file.seek(self.member)
            if not self.file.read(1):
                return
            yield from self._one()
            self.limit = None if self.limit is None else self.limit - 1

    def _one(self) -> Iterator[bytes]:
        inflate, position = zlib.decompressobj(31), self.member
        while not inflate.eof:
            self.file.seek(position)
            raw = self.file.read(CHUNK)
            if not raw:
                raise EOFError("the file ends inside a gzip member")
            position += len(raw)
            while raw and not inflate.eof:
                before = inflate.copy()
                try:
                    chunk = inflate.decompress(raw, OUTPUT)
                except zlib.error:
                    yield from _until_damage(before, raw)
                    raise
                yield chunk
                raw = inflate.unconsumed_tail
        self.end = position - len(inflate.unused_data)


def _until_damage(inflate: zlib._Decompress, raw: bytes) -> Iterator[bytes]:
    """What inflates before the error, which costs the output of the whole call: the same bytes again, one by one."""
    for start in range(len(raw)):
        try:
            yield inflate.decompress(raw[start : start + 1])
        except zlib.error:
            return


def skipping(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """The chunks without their first `count` bytes."""
    for chunk in chunks:
        if count < len(chunk):
            yield chunk[count:]
        count = max(0, count - len(chunk))


def unzstd(file: IO[bytes], start: int) -> Iterator[bytes]:
    """The decompressed bytes of a file of zstd frames. Raises ZstdError at damage, EOFError inside a frame."""
    inflate = zstandard.ZstdDecompressor().decompressobj()
    position, fresh = start, True
    while True:
        file.seek(position)
        raw = file.read(CHUNK)
        if not raw:
            break
        position += len(raw)
        while raw:
            step, raw = raw[:1024], raw[1024:]  # a block holds up to 128 KiB, and may be 4 bytes long
            chunk, fresh = inflate.decompress(step), False
            if chunk:
                yield chunk
            if inflate.eof:
                raw, fresh = inflate.unused_data + raw, True
                inflate = zstandard.ZstdDecompressor().decompressobj()
    if not fresh:
        raise EOFError("the file ends inside a zstd frame")


def next_member(file: IO[bytes], start: int, size: int, begins: re.Pattern[bytes] | None) -> int:
    """Where the next gzip member begins whose content matches `begins` (None: inflates at all); `size` if there is none."""
    position = start
    while position < size:
        file.seek(position)
        window = file.read(OUTPUT)
        found = window.find(GZIP)
        if found < 0:
            position += max(1, len(window) - len(GZIP) + 1)
            continue
        position += found
        if _begins_member(file, position, begins):
            return position
        position += 1
    return size


def _begins_member(file: IO[bytes], position: int, begins: re.Pattern[bytes] | None) -> bool:
    file.seek(position)
    if begins is not None:
        return begins.match(b"".join(_until_damage(zlib.decompressobj(31), file.read(1024)))) is not None
    try:
        return bool(zlib.decompressobj(31).decompress(file.read(CHUNK), OVERLAP))
    except zlib.error:
        return False


def decompressed(file: IO[bytes]) -> tuple[Iterator[bytes], bool]:
    """`(chunks of the content, whether the file is compressed)`, judged by its first bytes."""
    file.seek(0)
    magic = file.read(4)
    if magic.startswith(GZIP):
        return iter(Members(file, 0)), True
    if magic.startswith(ZSTD):
        return unzstd(file, 0), True
    return plain(file, 0), False
