"""C4's bad words (arXiv 1910.10683, 2.2): pages with a word of the list of their language are dropped, the word named.

The list is LDNOOBW's (`bad_words.txt`, 27 languages), or one of the user's. A word is sought in the lower-cased text between
characters that belong to no word; in scripts without blanks it is sought anywhere, as C4 does for Chinese, Japanese and Thai.
For a language without a list both measures are null and no page is dropped.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.errors import UserError
from pipelines.filter import read_data
from pipelines.filter.kernels.phrases import Bytes, Longs, Phrases, decode, text_buffers
from pipelines.filter.kernels.unicode import ALNUM, CHARS_PER_WORD_CJK, CHARS_PER_WORD_SEA, CJK, MARK, SEA, flags
from pipelines.filter.languages import WITHOUT_BLANKS, base_code
from pipelines.kernel import kernel
from pipelines.recipe import batch_stage
from pipelines.schema import drop, with_columns

BAD_WORD_COLUMNS = pa.schema([("bad_words", pa.float64()), ("bad_word_ratio", pa.float64())])
_SAME_LIST = {"nn": "nb"}


@dataclass(frozen=True)
class BadWordsConfig:
    """Which words, and how many are too many. C4's reading is the default but for `edges`."""

    lists: tuple[str, ...] = ()  # file:PATH (an entry a line, blank lines and # comments aside) or entries; (): ours
    langs: tuple[str, ...] = ()  # languages that `lists` are for; (): all of them
    max_hits: float | None = 0.0  # hits do not overlap
    max_ratio: float | None = None  # hits over words, for lists whose words turn up in good pages too
    # what ends a word: "word" counts combining marks to it; "regex" does not, as C4 and datatrove have it
    edges: Literal["word", "regex"] = "word"

    def files(self) -> list[Path]:
        """The files of `lists`: their content decides."""
        return [Path(entry.removeprefix("file:")) for entry in self.lists if entry.startswith("file:")]


@batch_stage(adds=BAD_WORD_COLUMNS)
def bad_words(docs: pa.RecordBatch, cfg: BadWordsConfig) -> pa.RecordBatch:
    """Add `bad_words` (hits) and `bad_word_ratio` (hits over words); drop by rule `c4.bad_words` or `c4.bad_word_ratio`.

    A drop names the first entry found. Raises UserError for a list that cannot be read or has no entry.
    """
    texts, langs = docs["text"], [base_code(lang) for lang in docs["lang"].to_pylist()]
    hits, words = np.full(len(docs), np.nan), np.ones(len(docs))
    entries: list[str | None] = [None] * len(docs)
    here = texts.is_valid().to_numpy(zero_copy_only=False)
    codes = np.array(langs, object)
    for code in sorted(set(langs)):
        phrases = _phrases(code, cfg)
        rows = np.flatnonzero(here & (codes == code))
        if phrases is None or not len(rows):
            continue
        found = phrases.scan(texts, rows)
        hits[rows], words[rows] = found.hits, _count_words(*text_buffers(texts), rows, flags())
        for k in np.flatnonzero(found.hits).tolist():
            entries[rows[k]] = phrases.phrases[found.first[k]]
    ratio = hits / np.maximum(words, 1.0)
    docs = with_columns(docs, {"bad_words": _column(hits), "bad_word_ratio": _column(ratio)})
    for rule, measured, bound in (("c4.bad_words", hits, cfg.max_hits), ("c4.bad_word_ratio", ratio, cfg.max_ratio)):
        if bound is not None:
            docs = drop(docs, pa.array(measured > bound), rule, pa.array(measured), bound, entry=pa.array(entries, pa.string()))
    return docs


def _column(values: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)  # NaN becomes null


def _phrases(code: str, cfg: BadWordsConfig) -> Phrases | None:
    edges = "any" if code in WITHOUT_BLANKS else cfg.edges
    if cfg.lists:
        if cfg.langs and code not in map(base_code, cfg.langs):
            return None
        return _users(cfg.lists, tuple(map(_stamp, cfg.lists)), edges)
    code = _SAME_LIST.get(code, code)
    return _ours(code, edges) if code in _lists() else None


@cache
def _lists() -> dict[str, tuple[str, ...]]:
    lists: dict[str, tuple[str, ...]] = {}
    for block in read_data("bad_words.txt").split("\n# ")[1:]:
        heading, *entries = block.splitlines()
        if " " not in heading:
            lists[heading] = tuple(entries)
    return lists


@cache
def _ours(code: str, edges: Literal["any", "word", "regex"]) -> Phrases:
    return Phrases(_lists()[code], edges)


@lru_cache(maxsize=8)
def _users(lists: tuple[str, ...], stamps: tuple[object, ...], edges: Literal["any", "word", "regex"]) -> Phrases:
    entries = [entry for item in lists for entry in (_read(item) if item.startswith("file:") else [item.strip()]) if entry]
    if not entries:
        raise UserError(
            f"bad_words.lists {lists} have no entry; give file:PATH with an entry a line, or leave it empty for ours"
        )
    return Phrases(entries, edges)


def _stamp(item: str) -> object:
    """What changes when a list file does."""
    if not item.startswith("file:"):
        return None
    try:
        found = os.stat(item.removeprefix("file:"))
    except OSError as error:
        raise UserError(f"bad_words.lists: {item!r} cannot be read ({error.strerror}); check the path") from error
    return found.st_size, found.st_mtime_ns


def _read(item: str) -> list[str]:
    try:
        text = Path(item.removeprefix("file:")).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"bad_words.lists: {item!r} cannot be read as UTF-8 text ({error}); check the file") from error
    return [line.strip() for line in text.splitlines() if not line.startswith("#")]


@kernel
def _count_words(buffer: Bytes, offsets: Longs, rows: Longs, table: npt.NDArray[np.uint32]) -> npt.NDArray[np.float64]:
    """Runs of letters, digits and marks; of scripts without blanks, characters over the mean length of a word."""
    words = np.zeros(len(rows))
    for k in range(len(rows)):
        i, end, inside = offsets[rows[k]], offsets[rows[k] + 1], False
        runs, cjk, sea = 0, 0, 0
        while i < end:
            point, size = decode(buffer, i, end)
            i += size
            flag = table[point] if point >= 0 else np.uint32(0)
            if flag & np.uint32(CJK):
                cjk += 1
                inside = False
            elif flag & np.uint32(SEA):
                sea += 1
                inside = False
            elif flag & np.uint32(ALNUM | MARK):
                if not inside:
                    runs += 1
                inside = True
            else:
                inside = False
        words[k] = runs + cjk / CHARS_PER_WORD_CJK + sea / CHARS_PER_WORD_SEA
    return words
