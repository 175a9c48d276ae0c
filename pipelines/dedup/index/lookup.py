"""To look up in an index: new keys to the places of old documents, a place to its document (no Spark).

Only the pages of a file that a search touches are read; documents are read for candidates alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard

from pipelines.dedup.index.format import (
    DOCUMENTS,
    Ints,
    check_size,
    documents_name,
    key_file,
    keys_name,
    read_manifest,
    unpack_place,
)
from pipelines.errors import UserError
from pipelines.kernel import kernel

OPEN_FILES = 16  # memory maps of each kind held at once

T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """Of each key: the documents in its bucket, and how many are given; `places`: those of all keys, key after key."""

    size: Ints  # (keys,)
    given: Ints  # (keys,)
    places: Ints  # (given.sum(),)


@dataclass(frozen=True)
class Origin:
    """Whose an old document is."""

    doc_id: bytes
    source: str | None
    url: str | None
    date: str | None


class Index:
    """An index to look up in. `looked`: entries of key files that were looked at so far."""

    def __init__(self, root: str | Path) -> None:
        """Read the manifest; files are opened when they are needed. Raises UserError."""
        self.root, self.manifest, self.looked = Path(root), read_manifest(root), 0
        self._files = {f.path: f for f in self.manifest.files}
        self._unpack = zstandard.ZstdDecompressor().decompress
        self._keys: Latest[Ints | None] = Latest(OPEN_FILES)
        self._documents: Latest[pa.ipc.RecordBatchFileReader] = Latest(OPEN_FILES)

    def find(self, keys: Ints, most: int) -> Found:
        """The documents in the buckets of `keys`, distinct and ascending, shape (n,); of each bucket at most `most`."""
        size, first = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
        parts = []
        numbers = key_file(keys, self.manifest.slots)
        cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(keys)]
        for begin, end in pairwise(cuts):
            if begin == end or (entries := self._keys.get(int(numbers[begin]), self._open_keys)) is None:
                continue
            here = slice(begin, end)
            self.looked += _search(entries, keys[here], first[here], size[here])
            given = np.minimum(size[here], most)
            rows = np.repeat(first[here] - (np.cumsum(given) - given), given) + np.arange(given.sum())
            parts.append(entries[rows, 1])
        return Found(size, np.minimum(size, most), np.concatenate(parts) if parts else np.zeros(0, np.int64))

    def origin(self, place: int) -> Origin:
        """Whose the document is."""
        return Origin(*(self._cell(place, name) for name in ("doc_id", "source", "url", "date")))

    def sketch(self, place: int) -> npt.NDArray[np.uint8]:
        """The document's sketch, shape (values,)."""
        return np.frombuffer(self._cell(place, "sketch"), np.uint8)

    def text(self, place: int) -> str:
        """The document's text. Raises UserError where it is damaged."""
        try:
            return self._unpack(self._cell(place, "text")).decode("utf-8", "surrogatepass")
        except (zstandard.ZstdError, UnicodeDecodeError) as error:
            raise self._damaged(place, error) from error

    def _cell(self, place: int, column: str) -> Any:
        file, batch, row = unpack_place(place)
        try:
            return self._documents.get(file, self._open_documents).get_batch(batch).column(column)[row].as_py()
        except (LookupError, ValueError, OSError, pa.ArrowException) as error:
            raise self._damaged(place, error) from error

    def _open_keys(self, number: int) -> Ints | None:
        file = self._files.get(keys_name(number))
        if file is None:
            return None
        check_size(path := self.root / file.path, file)
        return np.frombuffer(pa.memory_map(str(path)).read_buffer(), "<i8").reshape(file.rows, 2)

    def _open_documents(self, number: int) -> pa.ipc.RecordBatchFileReader:
        file = self._files[documents_name(number)]
        check_size(path := self.root / file.path, file)
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.schema != DOCUMENTS:
            raise UserError(f"{path}: has columns {reader.schema.names}, expected {DOCUMENTS.names}; run its recipe again")
        return reader

    def _damaged(self, place: int, error: Exception) -> UserError:
        return UserError(
            f"the index {self.root} is damaged: there is no sound document at {unpack_place(place)} ({error}); "
            "remove it and run its recipe again"
        )


class Latest(Generic[T]):
    """What was used last, up to `limit` in weight (and at least the newest)."""

    def __init__(self, limit: int, weigh: Callable[[T], int] = lambda value: 1) -> None:
        self._held: OrderedDict[Any, T] = OrderedDict()
        self._limit, self._weigh, self._weight = limit, weigh, 0

    def get(self, key: Any, make: Callable[..., T]) -> T:
        """The value of a key (a tuple: of several arguments), made by `make(key)` where it is not held."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        value = self._held[key] = make(*key) if isinstance(key, tuple) else make(key)
        self._weight += self._weigh(value)
        while self._weight > self._limit and len(self._held) > 1:
            self._weight -= self._weigh(self._held.popitem(last=False)[1])
        return value


@kernel
def _gallop(entries: Any, key: int, low: int, after: bool) -> tuple[int, int]:
    """The first row at or behind `low` whose key is at least `key` (or, `after`, above it), and the rows looked at."""
    looked, step, high = 0, 1, low
    while high < len(entries):
        looked += 1
        found = entries[high, 0]
        if found > key or (found == key and not after):
            break
        low = high + 1
        high += step
        step *= 2
    high = min(high, len(entries))
    while low < high:
        middle = (low + high) // 2
        looked += 1
        found = entries[middle, 0]
        if found > key or (found == key and not after):
            high = middle
        else:
            low = middle + 1
    return low, looked


@kernel
def _search(entries: Any, keys: Any, first: Any, size: Any) -> int:
    """First row and number of rows of each of the ascending keys in entries of shape (n, 2); returns the rows looked at."""
    at = looked = 0
    for i in range(len(keys)):
        begin, one = _gallop(entries, keys[i], at, False)
        at, other = _gallop(entries, keys[i], begin, True)
        first[i], size[i] = begin, at - begin
        looked += one + other
    return looked
