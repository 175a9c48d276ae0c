"""C4's line rules (arXiv 1910.10683, 2.2), read as datatrove 0.10.1 does: they change the text, then pages are judged.

Each line, stripped: a word that is too long drops it, citation marks like [1] are cut, then it must end in an end mark (not in
"..."), have enough words (counted before the citations went), not name javascript, and not be a policy notice. "lorem ipsum"
and "{" condemn the page, but only on a line that got so far; what was seen is counted here and judged by rule set `c4`.
FineWeb uses C4 with `end_mark=False`. Lines are those of `str.splitlines`, blanks those of `str.isspace`.

Dialects:

- `""`, ours: end marks are those of the document's language, and not asked for where it has none; characters of scripts without
  blanks count as words, and a run of them is no long word.
- `"datatrove"`: C4's five end marks for every language, words between blanks; datatrove 0.10.1 to the letter.
- `"dclm"`: `baselines_configs/c4.yaml` of mlfoundations/dclm. Lines end at newlines only and are not stripped, empty ones stay;
  end marks are `.!?"` with blanks after them or not, U+2026 is an ellipsis; words are counted after the citations went.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.filter.kernels.english import borrow_english, count_sentences, english
from pipelines.filter.kernels.phrases import Phrases, text_buffers
from pipelines.filter.kernels.segments import count_line_sentences
from pipelines.filter.kernels.tokens import borrow_tokens, decode, token_buffers
from pipelines.filter.kernels.unicode import BREAK, DIGIT, SPACE, UNSPACED, flags
from pipelines.filter.languages import C4_END_MARKS, settings
from pipelines.kernel import borrowed, inlined, kernel
from pipelines.recipe import batch_stage
from pipelines.schema import with_columns

_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_LOREM, _SCRIPT, _NOTICE, _CURLY, _DROPPED = 1, 2, 4, 8, 16
_PARAGRAPH_CHARS = 200  # mC4's paragraph (arXiv 2010.11934, 3.1)

_COUNTS = ("c4_lorem_ipsum_lines", "c4_curly_bracket_lines", "c4_sentences", "c4_dropped_line_ratio", "c4_paragraphs")
C4_COLUMNS = pa.schema([(name, pa.float64()) for name in _COUNTS])

Ints = npt.NDArray[np.int32]
Letters = npt.NDArray[np.uint8]


def letters(*words: str) -> Letters:
    """ASCII words as the rows of an array for kernels, zeros behind the shorter ones."""
    rows = np.zeros((len(words), max(map(len, words)) + 1), np.uint8)
    for row, word in zip(rows, words, strict=True):
        row[: len(word)] = np.frombuffer(word.encode("ascii"), np.uint8)
    return rows


_CITATIONS = letters("edit]", "citation needed]")


@dataclass(frozen=True)
class C4LinesConfig:
    """Which parts are on. With all off the text stays as it is and only the page columns are set."""

    citations: bool = True  # cut [1], [edit], [citation needed]
    end_mark: bool = True  # a line must end in an end mark
    javascript: bool = True  # drop lines that say javascript
    policy: bool = True  # drop lines with one of six English policy phrases
    min_words: int | None = 3  # of a line
    max_word_chars: int | None = 1000
    dialect: Literal["", "datatrove", "dclm"] = ""  # see the top of this module


def dclm_c4() -> C4LinesConfig:
    """C4 as DCLM ran it. Its page rules besides: at most 190,000 characters before, at least 3 sentences after."""
    return C4LinesConfig(min_words=5, dialect="dclm")


@batch_stage(version=2, adds=C4_COLUMNS)
def c4_lines(docs: pa.RecordBatch, cfg: C4LinesConfig) -> pa.RecordBatch:
    """Replace `text` by its cleaned lines and set the columns that rule set `c4` judges. Decides nothing itself.

    `c4_sentences` are those of the lines that stay, as spaCy's sentencizer finds them (in languages without blanks by the marks
    alone, but for the dialects); `c4_paragraphs` the lines of at least 200 characters of the new text, for mC4's rule.
    A document with only null text keeps it and gets null measures. Measures taken before are stale afterwards.
    """
    texts = docs["text"]
    buffer, offsets = text_buffers(texts)
    langs = [settings(lang) for lang in docs["lang"].to_pylist()]
    marks, mark_set = _mark_table([C4_END_MARKS if cfg.dialect else lang.end_marks for lang in langs])
    unspaced = np.array([not (cfg.dialect or lang.blanks) for lang in langs], np.bool_)
    out = np.empty(3 * int(offsets[-1] - offsets[0]), np.uint8)  # an invalid byte becomes three
    out_offsets = np.zeros(len(docs) + 1, np.int64)
    counts = np.zeros((len(_COUNTS), len(docs)))
    how = _how(cfg)
    _clean(buffer, offsets, how, marks, mark_set, unspaced, _tables(buffer, offsets), out, out_offsets, counts)
    null = ~texts.is_valid().to_numpy(zero_copy_only=False)
    columns = {name: pa.array(counts[i], pa.float64(), mask=null) for i, name in enumerate(_COUNTS)}
    if how.change:
        columns["text"] = text_array(out, out_offsets, texts)
    return with_columns(docs, columns)


def text_array(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], like: pa.Array) -> pa.Array:
    """An array of the type of `like`, null where that is null, of texts in `data`, offsets of shape (rows + 1,)."""
    kind = np.int64 if pa.types.is_large_string(like.type) else np.int32
    valid = np.packbits(like.is_valid().to_numpy(zero_copy_only=False), bitorder="little")
    buffers = [pa.py_buffer(valid), pa.py_buffer(offsets.astype(kind)), pa.py_buffer(data[: offsets[-1]].copy())]
    return pa.Array.from_buffers(like.type, len(like), buffers)


class _How(NamedTuple):
    """A config for the kernel: numbers below 0 are off."""

    citations: bool
    end_mark: bool
    seeks: int  # phrases that drop a line
    min_words: int
    max_word_chars: int
    dialect: bool
    dclm: bool
    change: bool


def _how(cfg: C4LinesConfig) -> _How:
    seeks = (_SCRIPT if cfg.javascript else 0) | (_NOTICE if cfg.policy else 0)
    change = bool(cfg.citations or cfg.end_mark or seeks or cfg.min_words or cfg.max_word_chars)
    return _How(
        cfg.citations,
        cfg.end_mark,
        seeks,
        -1 if cfg.min_words is None else cfg.min_words,
        -1 if cfg.max_word_chars is None else cfg.max_word_chars,
        bool(cfg.dialect),
        cfg.dialect == "dclm",
        change,
    )


class _Tables(NamedTuple):
    """What the kernel looks up, and its working memory: characters of the longest document, tokens of the longest line."""

    flags: Any
    step: Any  # (states, classes) of the phrases
    of_byte: Ints
    found: npt.NDArray[np.uint8]  # which kinds of phrase end in a state
    english: Any
    tokens: Any
    points: Ints
    flag: npt.NDArray[np.uint32]
    cut: Ints  # the new text
    cut_flag: npt.NDArray[np.uint32]


@cache
def _phrases() -> tuple[Any, Ints, npt.NDArray[np.uint8]]:
    kinds = {"lorem ipsum": _LOREM, "javascript": _SCRIPT, **dict.fromkeys(_POLICY, _NOTICE)}
    sought = Phrases(kinds, "any")
    tables = sought.tables
    found = np.zeros(len(tables.ends), np.uint8)
    for state in range(len(found)):
        end = int(tables.ends[state])
        while end > 0:
            found[state] |= kinds[sought.phrases[tables.phrase[end]]]
            end = int(tables.shorter[end])
    return tables.step, tables.of_byte, found


def _tables(buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> _Tables:
    size = int(np.diff(offsets).max(initial=0)) + 2
    working = [np.empty(size, kind) for kind in (np.int32, np.uint32, np.int32, np.uint32)]
    return _Tables(flags(), *_phrases(), english(), token_buffers(_longest_line(buffer, offsets)), *working)  # type: ignore[arg-type]


def _mark_table(sets: list[tuple[str, ...] | None]) -> tuple[Ints, Ints]:
    """Each different set of end marks as a row of code points, filled with -1; and the row of each document, -1 for None."""
    rows = {marks: i for i, marks in enumerate(dict.fromkeys(marks for marks in sets if marks is not None))}
    table = np.full((len(rows) or 1, max(map(len, rows), default=1)), -1, np.int32)
    for marks, row in rows.items():
        table[row, : len(marks)] = [ord(mark) for mark in marks]
    return table, np.array([-1 if marks is None else rows[marks] for marks in sets], np.int32)


@kernel
def _longest_line(buffer: Any, offsets: Any) -> int:
    """Bytes of the longest line, and one."""
    longest = 0
    for row in range(len(offsets) - 1):
        begin = offsets[row]
        for i in range(offsets[row], offsets[row + 1]):
            if buffer[i] == 10:
                longest, begin = max(longest, i - begin), i + 1
        longest = max(longest, offsets[row + 1] - begin)
    return longest + 1


@kernel
def _clean(
    buffer: Any,
    offsets: Any,
    how: _How,
    marks: Any,
    mark_set: Any,
    unspaced: Any,
    tables: Any,
    out: Any,
    places: Any,
    counts: Any,
) -> None:
    t = _borrow(tables)
    end = 0
    for row in range(len(offsets) - 1):
        own_marks = marks[mark_set[row]]
        n = decode(buffer, offsets[row], offsets[row + 1], t.flags, t.points, t.flag)
        m = kept = seen = i = 0
        while i < n:
            first, i = i, end_of_line(t.points, t.flag, i, n, how.dclm)
            last = i
            i += 1
            if i < n and t.points[last] == 13 and t.points[i] == 10 and not how.dclm:
                i += 1
            seen += 1
            at = m
            if kept > 0:
                t.cut[m], t.cut_flag[m] = 10, t.flags[10]
                at += 1
            length, seen_on_line = _line(t, first, last, at, how, own_marks, mark_set[row] >= 0)
            counts[0, row] += seen_on_line & _LOREM
            counts[1, row] += seen_on_line & _CURLY > 0
            if not seen_on_line & _DROPPED:
                kept += 1
                m = at + length
                a, b = trim(t.cut_flag, at, m)
                if unspaced[row]:
                    counts[2, row] += count_line_sentences(t.cut_flag, t.cut, a, b) if a < b else 0
                else:
                    counts[2, row] += count_sentences(t.cut, t.cut_flag, a, b, t.english, t.tokens)
        counts[3, row] = (seen - kept) / max(seen, 1)
        a, m = trim(t.cut_flag, 0, m)
        if how.change:
            counts[4, row] = _long_lines(t.cut, a, m)
            end = encode(t.cut, a, m, out, end)
        else:
            counts[4, row] = _long_lines(t.points, 0, n)
        places[row + 1] = end


@inlined
def _borrow(t: Any) -> Any:
    return _Tables(
        borrowed(t.flags), borrowed(t.step), borrowed(t.of_byte), borrowed(t.found), borrow_english(t.english),
        borrow_tokens(t.tokens), borrowed(t.points), borrowed(t.flag), borrowed(t.cut), borrowed(t.cut_flag),
    )  # fmt: skip


@kernel
def end_of_line(points: Any, flag: Any, i: int, n: int, newline_only: bool) -> int:
    """Where the line that begins at `i` ends: at the next newline, or at any end of line of `str.splitlines`, or at `n`."""
    if newline_only:
        while i < n and points[i] != 10:
            i += 1
    else:
        while i < n and not flag[i] & BREAK:
            i += 1
    return i


@kernel
def trim(flag: Any, first: int, last: int) -> tuple[int, int]:
    """The span without the blanks at both ends."""
    while first < last and flag[first] & SPACE:
        first += 1
    while first < last and flag[last - 1] & SPACE:
        last -= 1
    return first, last


@inlined
def _line(t: _Tables, first: int, last: int, at: int, how: _How, marks: Any, marked: bool) -> tuple[int, int]:
    """Write what is left of a line to t.cut[at:]; its length, and what was seen on it (_DROPPED where the line goes)."""
    if not how.dclm:
        first, last = trim(t.flag, first, last)
    words, wide, longest = _words(t.flag, first, last)
    if how.dialect:
        wide = 0
    if how.max_word_chars >= 0 and longest > how.max_word_chars and wide == 0:
        return 0, _DROPPED
    end = at
    i = first
    while i < last:
        after = _citation(t.points, t.flag, i, last) if how.citations and t.points[i] == 91 else 0
        if after > 0:
            i = after
        else:
            t.cut[end], t.cut_flag[end] = t.points[i], t.flag[i]
            end += 1
            i += 1
    if how.dclm:
        if end == at:
            return 0, 0
        words, wide, longest = _words(t.cut_flag, at, end)
    if how.end_mark and marked and not _ends_well(t, at, end, how.dclm, marks):
        return 0, _DROPPED
    if max(words, wide) < how.min_words:
        return 0, _DROPPED
    seen = _seek(t, at, end, how.dclm)
    here = seen & _LOREM
    if seen & how.seeks & _SCRIPT:
        return 0, here | _DROPPED
    here |= seen & _CURLY
    return end - at, here | (_DROPPED if seen & how.seeks & _NOTICE else 0)


@kernel
def _words(flag: Any, first: int, last: int) -> tuple[int, int, int]:
    """Words between blanks, characters of scripts without blanks, and the characters of the longest word."""
    words = wide = longest = length = 0
    for i in range(first, last):
        if flag[i] & SPACE:
            length = 0
            continue
        wide += flag[i] & UNSPACED > 0
        words += length == 0
        length += 1
        longest = max(longest, length)
    return words, wide, longest


@kernel
def _citation(points: Any, flag: Any, i: int, last: int) -> int:
    """The end of the citation mark that begins at the bracket `i`, 0 if none does."""
    j = i + 1
    while j < last and flag[j] & DIGIT:
        j += 1
    if j < last and points[j] == 93:
        return j + 1
    for r in range(len(_CITATIONS)):
        if says(points, i + 1, last, _CITATIONS[r]):
            return i + 1 + length_of(_CITATIONS[r])
    return 0


@kernel
def length_of(word: Letters) -> int:
    """Letters of a row of `letters`."""
    k = 0
    while word[k] > 0:
        k += 1
    return k


@kernel
def says(points: Any, i: int, last: int, word: Letters) -> bool:
    """Whether the word stands at `i`, as it is written."""
    k = 0
    while word[k] > 0 and i + k < last and points[i + k] == word[k]:
        k += 1
    return bool(word[k] == 0)


@inlined
def _ends_well(t: _Tables, first: int, last: int, dclm: bool, marks: Any) -> bool:
    if dclm:
        while last > first and t.cut_flag[last - 1] & SPACE:
            last -= 1
    if last == first:
        return False
    point = t.cut[last - 1]
    if dclm:
        if point != 46 and point != 33 and point != 63 and point != 34:  # U+2026 would be one too, were it no ellipsis
            return False
    else:
        k = 0
        while k < len(marks) and marks[k] != point:
            k += 1
        if k == len(marks):
            return False
    return not (point == 46 and last - first >= 3 and t.cut[last - 2] == 46 and t.cut[last - 3] == 46)


@inlined
def _seek(t: _Tables, first: int, last: int, dclm: bool) -> int:
    """Which phrases a line has, in any case, and whether a curly bracket."""
    state, seen = 0, 0
    for i in range(first, last):
        point = lower_latin(t.cut[i], dclm)
        if point < 0x80:
            state = t.step[state, t.of_byte[point]]
            seen |= t.found[state]
            if point == 123:
                seen |= _CURLY
        else:
            state = 0
    return seen


@kernel
def lower_latin(point: int, regex: bool) -> int:
    """Lower case where it is ASCII; with `regex` as `re.IGNORECASE` compares: dotless and dotted i, long s.

    For `str.lower` a dotted capital I becomes two characters, of which no phrase has the second.
    """
    if 65 <= point <= 90:
        return point + 32
    if point == 0x212A:
        return 0x6B
    if regex:
        if point == 0x130 or point == 0x131:
            return 0x69
        if point == 0x17F:
            return 0x73
    return point


@kernel
def _long_lines(points: Any, first: int, last: int) -> int:
    """Lines, at newlines, of at least 200 characters."""
    number, length = 0, 0
    for i in range(first, last):
        if points[i] == 10:
            number += length >= _PARAGRAPH_CHARS
            length = 0
        else:
            length += 1
    return number + (length >= _PARAGRAPH_CHARS)


@kernel
def encode(points: Any, first: int, last: int, out: Any, end: int) -> int:
    """Append points[first:last] to out[:end] as UTF-8; the new end."""
    for i in range(first, last):
        point = points[i]
        if point < 0x80:
            out[end] = point
            end += 1
        elif point < 0x800:
            out[end], out[end + 1] = 0xC0 | point >> 6, 0x80 | (point & 0x3F)
            end += 2
        elif point < 0x10000:
            out[end], out[end + 1], out[end + 2] = 0xE0 | point >> 12, 0x80 | (point >> 6 & 0x3F), 0x80 | (point & 0x3F)
            end += 3
        else:
            out[end], out[end + 1] = 0xF0 | point >> 18, 0x80 | (point >> 12 & 0x3F)
            out[end + 2], out[end + 3] = 0x80 | (point >> 6 & 0x3F), 0x80 | (point & 0x3F)
            end += 4
    return end
