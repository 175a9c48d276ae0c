"""The one pass over a batch of texts: decode, lines, tokens, n-grams, from them every measure. Read `measure_batch` first."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.filter.kernels import dialects
from pipelines.filter.kernels.english import English, borrow_english, english, tokenise
from pipelines.filter.kernels.repetition import Grams, Table, grams, ngrams, repeats, repeats_of_lines, table, word_statistics
from pipelines.filter.kernels.segments import (
    SHORT_LINE_CHARS,
    Lines,
    blank_pieces,
    bullets_and_ellipses,
    character_counts,
    compressed_size,
    count_line_sentences,
    is_list_line,
    line_buffers,
    shape_repeats,
    split_lines,
    split_newline_runs,
    split_paragraphs,
    widths,
)
from pipelines.filter.kernels.stop_words import StopWords, different, stop_word_tables
from pipelines.filter.kernels.tokens import (
    HAS_LETTER,
    IS_UNSPACED,
    IS_WORD,
    Tokens,
    borrow_tokens,
    decode,
    split_blanks,
    split_normalised,
    split_segments,
    split_unspaced,
    token_buffers,
)
from pipelines.filter.kernels.unicode import CHARS_PER_WORD_CJK, CHARS_PER_WORD_SEA, CJK, SENTENCE, flags, lower, normal
from pipelines.kernel import borrowed, inlined, kernel

# Columns of the result: ours, then each dialect's; measures.MEASURES names them in this order.
(
    CHARS, WORDS, MEAN_WORD_LENGTH, HASH_RATIO, ELLIPSIS_RATIO, BULLET_LINES, ELLIPSIS_LINES, ALPHA_WORDS, STOP_WORDS,
    DUP_PARAGRAPHS, DUP_PARAGRAPH_CHARS, DUP_LINES, DUP_LINE_CHARS, TOP_2, TOP_3, TOP_4, DUP_5, DUP_6, DUP_7, DUP_8, DUP_9,
    DUP_10, LINES, END_MARK_LINES, SHORT_LINES, REPEATED_LINE_CHARS, NEWLINE_RATIO, SENTENCES, SAME_SHAPE_LINES,
    LIST_LINE_CHARS, BROKEN_CHARS, PARAGRAPHS, MEAN_LINE_CHARS, MAX_LINE_CHARS,
    LONGEST_WORD, ALPHA_CHARS, DIGIT_CHARS, UPPER_CHARS, SPACE_CHARS,
    PUNCTUATION_CHARS, BRACKET_CHARS, CURLY_BRACKETS, URL_CHARS, ALL_CAPS_WORDS, UNIQUE_WORDS, ENTROPY, COMPRESSION,
) = range(47)  # fmt: skip
DATATROVE = 47
DCLM = DATATROVE + 17
DOLMA = DCLM + 21
NEMO = DOLMA + 19
REDPAJAMA = NEMO + 29
WIDTH = REDPAJAMA + 23


class Scratch(NamedTuple):
    """What a document needs while it is measured; arrays that hold the largest one of the batch."""

    points: npt.NDArray[np.int32]
    flag: npt.NDArray[np.uint32]
    lines: Lines
    tokens: Tokens
    words: Tokens
    seen: Table
    grams: Grams
    hashes: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.int32]
    by_n: npt.NDArray[np.int64]  # (9, 9), see repetition.ngrams
    five: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    ascii: npt.NDArray[np.int64]  # (128,) how often each ASCII character occurs
    positions: npt.NDArray[np.int32]
    histogram: npt.NDArray[np.int64]
    stop_words: StopWords
    english: English


def measure_batch(
    buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], langs: npt.NDArray[np.int32], wanted: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Measures of the texts in an Arrow buffer, shape (rows, WIDTH), NaN where one does not apply or was not asked for.

    `langs` (rows,) are numbers of `stop_word_tables`; `wanted` (5,) says which of measures.DIALECTS to measure. Memory: that
    of the largest text, 3.4 GB for 100 MB of prose (measured); what a text does not use is never touched.
    """
    sizes = np.diff(offsets)
    size = int(sizes.max(initial=0)) + 1
    scratch = Scratch(
        np.empty(size, np.int32),
        np.empty(size, np.uint32),
        line_buffers(size),
        token_buffers(size),
        token_buffers(size),
        table(size),
        grams(size),
        np.empty(size + 2, np.uint64),
        np.empty(size + 2, np.int32),
        np.zeros((9, 9), np.int64),
        np.zeros(5, np.int64),
        np.zeros(12, np.int64),
        np.zeros(128, np.int64),
        np.zeros(4096, np.int32),
        np.zeros(4096, np.int64),
        stop_word_tables().table,
        english(),
    )
    values = np.full((len(sizes), WIDTH), np.nan)
    if wanted[1:].any():
        _measure_dialects(buffer, offsets, langs, wanted, flags(), lower(), normal(), scratch, values)
    else:
        _measure(buffer, offsets, langs, bool(wanted[0]), flags(), scratch, values)
    return values


@kernel
def _measure(buffer: Any, offsets: Any, langs: Any, datatrove: bool, table: Any, scratch: Any, values: Any) -> None:
    """Ours, and datatrove's."""
    s = _borrow(scratch)
    buffer, table = borrowed(buffer), borrowed(table)
    for row in range(len(values)):
        _document(buffer, offsets[row], offsets[row + 1], langs[row], datatrove, table, s, values[row])


@kernel
def _document(buffer: Any, first: int, last: int, lang: int, datatrove: bool, table: Any, s: Any, out: Any) -> tuple[int, int]:
    """One document; returns its characters and its lines, which `s` then holds."""
    n = decode(buffer, first, last, table, s.points, s.flag)
    number = split_lines(s.points, s.flag, n, s.lines)
    character_counts(s.points, s.flag, n, table, s.ascii, s.counts)
    _characters(n, s, out)
    out[COMPRESSION] = compressed_size(buffer, first, last, s.positions) / (last - first) if last > first else 0.0
    _lines(n, number, s, out)
    count = tokenise(s.points, s.flag, 0, n, s.english, s.tokens)
    if _has_unspaced(s.tokens, count):
        made = split_unspaced(s.flag, s.points, s.tokens, count, s.words)
        _tokens(n, s.words, made, lang, s, out)
        if datatrove:
            _datatrove(n, count, s, out)
    else:
        _tokens(n, s.tokens, count, lang, s, out)
        if datatrove:
            _datatrove_from_ours(out)
    _short_lines(number, s, out, datatrove)
    if datatrove:
        out[DATATROVE + 16] = s.counts[8] / count if count else 0.0
        out[DATATROVE + 5] = different(s.points, n, s.tokens, count, s.stop_words, 0)
    pieces, longest, capital = blank_pieces(s.flag, n)
    out[LONGEST_WORD] = longest
    out[ALL_CAPS_WORDS] = capital / max(pieces, 1)
    return n, number


@kernel
def _measure_dialects(
    buffer: Any, offsets: Any, langs: Any, wanted: Any, table: Any, lower: Any, normal: Any, scratch: Any, values: Any
) -> None:
    """Ours and the others'; a kernel of its own, so that who does not ask for them need not wait for its compilation."""
    s = _borrow(scratch)
    buffer, table, lower = borrowed(buffer), borrowed(table), borrowed(lower)
    for row in range(len(values)):
        out, lang = values[row], langs[row]
        n, number = _document(buffer, offsets[row], offsets[row + 1], lang, wanted[0], table, s, out)
        count = split_blanks(s.points, s.flag, 0, n, s.words)
        if wanted[1]:
            dialects.dclm(s.points, s.flag, n, s.lines, number, s.words, count, lower, s, out[DCLM : DCLM + 21])
            made = split_segments(s.points, s.flag, 0, n, s.tokens)
            ngrams(s.tokens.hash, s.tokens.length, made, 1, s.seen, s.grams, s.by_n)
            dialects.dclm_grams(s.tokens, made, s.by_n, out[DCLM + 12 : DCLM + 21])
        if wanted[4]:
            made = split_normalised(s.points, s.flag, 0, n, normal, s.tokens)
            ngrams(s.tokens.hash, s.tokens.length, made, 1, s.seen, s.grams, s.by_n)
            dialects.redpajama(s.points, s.flag, n, s.counts, s.lines, number, s.tokens, made, s.by_n, lang, s, out[REDPAJAMA:])
        if wanted[2] or wanted[3]:
            ngrams(s.words.hash, s.words.length, count, 1, s.seen, s.grams, s.by_n)
        if wanted[2]:
            dialects.dolma(s.points, n, s.lines, number, s.words, count, s.by_n, s, out[DOLMA : DOLMA + 19])
        if wanted[3]:
            dialects.nemo(s.points, s.flag, n, s.counts, s.lines, number, s.words, count, s.by_n, s, out[NEMO : NEMO + 29])


@inlined
def _has_unspaced(tokens: Any, count: int) -> bool:
    kinds, k = tokens.kind, 0
    while k < count and not kinds[k] & IS_UNSPACED:
        k += 1
    return k < count


@inlined
def _borrow(s: Any) -> Any:
    lines = Lines(
        borrowed(s.lines.first), borrowed(s.lines.last), borrowed(s.lines.inner_first), borrowed(s.lines.inner_last),
        borrowed(s.lines.hash), borrowed(s.lines.length), borrowed(s.lines.plain),
    )  # fmt: skip
    work = Grams(
        borrowed(s.grams.hash), borrowed(s.grams.end), borrowed(s.grams.place), borrowed(s.grams.first),
        borrowed(s.grams.scanned),
    )  # fmt: skip
    words = StopWords(borrowed(s.stop_words.keys), borrowed(s.stop_words.words), borrowed(s.stop_words.anywhere))
    return Scratch(
        borrowed(s.points), borrowed(s.flag), lines, borrow_tokens(s.tokens), borrow_tokens(s.words),
        Table(borrowed(s.seen.slot), borrowed(s.seen.copies)), work, borrowed(s.hashes), borrowed(s.lengths), borrowed(s.by_n),
        borrowed(s.five), borrowed(s.counts), borrowed(s.ascii), borrowed(s.positions), borrowed(s.histogram), words,
        borrow_english(s.english),
    )  # fmt: skip


@kernel
def _characters(n: int, s: Any, out: Any) -> None:
    counts = s.counts
    size = max(n, 1)
    out[CHARS] = n
    out[SPACE_CHARS] = counts[0] / size
    out[ALPHA_CHARS] = counts[1] / size
    out[DIGIT_CHARS] = counts[2] / size
    out[UPPER_CHARS] = counts[3] / max(counts[1], 1)
    out[PUNCTUATION_CHARS] = counts[4] / size
    out[BROKEN_CHARS] = counts[7] / size
    out[CURLY_BRACKETS] = counts[9] / size
    out[BRACKET_CHARS] = counts[10] / size
    out[URL_CHARS] = counts[11] / size


@kernel
def _lines(n: int, number: int, s: Any, out: Any) -> None:
    points, flag, lines = s.points, s.flag, s.lines
    size = max(n, 1)
    bullets_and_ellipses(points, flag, n, s.five[:3])
    out[BULLET_LINES] = s.five[1] / max(s.five[0], 1)
    out[ELLIPSIS_LINES] = s.five[2] / max(s.five[0], 1)
    made = split_paragraphs(points, flag, n, lines, number, False, s.hashes, s.lengths)
    repeats(s.hashes, s.lengths, made, s.seen, s.five)
    out[PARAGRAPHS] = made if s.lengths[0] else 0
    out[DUP_PARAGRAPHS] = s.five[0] / made
    out[DUP_PARAGRAPH_CHARS] = s.five[1] / size
    made = split_newline_runs(points, n, lines, number, s.hashes, s.lengths)
    repeats(s.hashes, s.lengths, made, s.seen, s.five)
    out[DUP_LINES] = s.five[0] / made
    out[DUP_LINE_CHARS] = s.five[1] / size
    filled = repeats_of_lines(lines, number, s.hashes, s.lengths, s.seen, s.five)
    out[LINES] = filled
    out[REPEATED_LINE_CHARS] = s.five[1] / max(n - s.counts[8], 1)
    marks = longest = sentences = listed = inner = 0
    for k in range(number):
        a, b = lines.inner_first[k], lines.inner_last[k]
        longest = max(longest, lines.length[k])
        if a < b:
            inner += b - a
            marks += (flag[lines.last[k] - 1] & SENTENCE) != 0
            sentences += count_line_sentences(flag, points, a, b)
            if is_list_line(flag, points, a, b):
                listed += b - a
    out[END_MARK_LINES] = marks / max(filled, 1)
    out[SENTENCES] = sentences
    out[LIST_LINE_CHARS] = listed / max(inner, 1)
    out[SAME_SHAPE_LINES] = shape_repeats(points, flag, lines, number, s.hashes, s.seen) / max(filled, 1)
    out[MEAN_LINE_CHARS] = inner / max(filled, 1)
    out[MAX_LINE_CHARS] = longest


@kernel
def _tokens(n: int, tokens: Any, count: int, lang: int, s: Any, out: Any) -> None:
    """Ours, from our tokens."""
    words = chars = letters = cjk = sea = unspaced_words = 0
    for k in range(count):
        kind = tokens.kind[k]
        letters += (kind & HAS_LETTER) != 0
        if kind & IS_UNSPACED:
            if s.flag[tokens.start[k]] & CJK:
                cjk += 1
            else:
                sea += 1
            chars += tokens.length[k]
            unspaced_words += 1
        elif kind & IS_WORD:
            words += 1
            chars += tokens.length[k]
    step = 1
    if 2 * (cjk + sea) > count:
        step = CHARS_PER_WORD_CJK if cjk >= sea else CHARS_PER_WORD_SEA
    weighted = cjk / CHARS_PER_WORD_CJK + sea / CHARS_PER_WORD_SEA
    total = words + weighted
    units = count - cjk - sea + weighted
    size = max(n, 1)
    out[WORDS] = total
    out[MEAN_WORD_LENGTH] = chars / total if total else 0.0
    out[HASH_RATIO] = s.counts[5] / max(count, 1)
    out[ELLIPSIS_RATIO] = s.counts[6] / max(count, 1)
    out[ALPHA_WORDS] = letters / max(count, 1)
    if lang >= 0:
        out[STOP_WORDS] = different(s.points, n, tokens, count, s.stop_words, lang)
    out[NEWLINE_RATIO] = s.counts[8] / units if units else 0.0
    s.five[0] = step
    unique, entropy = word_statistics(tokens.hash, count, s.seen)
    out[UNIQUE_WORDS] = unique / max(count, 1)
    out[ENTROPY] = entropy
    if step == 1:
        ngrams(tokens.hash, tokens.length, count, step, s.seen, s.grams, s.by_n)
    else:
        made = _without_runs(tokens, count, s.hashes, s.lengths)
        ngrams(s.hashes, s.lengths, made, step, s.seen, s.grams, s.by_n)
    for g in range(9):
        if g < 3:
            out[TOP_2 + g] = (s.by_n[g, 1] + g + 1) * s.by_n[g, 0] / size if s.by_n[g, 0] else 0.0
        else:
            out[TOP_2 + g] = s.by_n[g, 3] / size


@kernel
def _without_runs(tokens: Any, count: int, hashes: Any, lengths: Any) -> int:
    """The tokens with a run of one punctuation mark as one: in a text without blanks, where an n-gram is more than n tokens, a
    line of asterisks would else be the commonest of all; returns how many.
    """
    made = 0
    for k in range(count):
        again = made > 0 and not tokens.kind[k] & IS_WORD and tokens.hash[k] == hashes[made - 1]
        if again and tokens.start[k] == tokens.start[k - 1] + tokens.length[k - 1]:
            lengths[made - 1] += tokens.length[k]
        else:
            hashes[made] = tokens.hash[k]
            lengths[made] = tokens.length[k]
            made += 1
    return made


@kernel
def _datatrove_from_ours(out: Any) -> None:
    """Where no script is without blanks, ours and datatrove's are the same numbers."""
    out[DATATROVE] = out[WORDS]
    out[DATATROVE + 1] = out[MEAN_WORD_LENGTH]
    out[DATATROVE + 2] = out[HASH_RATIO]
    out[DATATROVE + 3] = out[ELLIPSIS_RATIO]
    out[DATATROVE + 4] = out[ALPHA_WORDS]
    for g in range(9):
        out[DATATROVE + 6 + g] = out[TOP_2 + g]


@kernel
def _datatrove(n: int, count: int, s: Any, out: Any) -> None:
    tokens = s.tokens
    words = chars = letters = 0
    for k in range(count):
        letters += (tokens.kind[k] & HAS_LETTER) != 0
        if tokens.kind[k] & IS_WORD:
            words += 1
            chars += tokens.length[k]
    size = max(n, 1)
    out[DATATROVE] = words
    out[DATATROVE + 1] = chars / words if words else 0.0
    out[DATATROVE + 2] = s.counts[5] / max(count, 1)
    out[DATATROVE + 3] = s.counts[6] / max(count, 1)
    out[DATATROVE + 4] = letters / max(count, 1)
    ngrams(tokens.hash, tokens.length, count, 1, s.seen, s.grams, s.by_n)
    for g in range(9):
        if g < 3:
            out[DATATROVE + 6 + g] = (s.by_n[g, 1] + g + 1) * s.by_n[g, 0] / size if s.by_n[g, 0] else 0.0
        else:
            out[DATATROVE + 6 + g] = s.by_n[g, 3] / size


@kernel
def _short_lines(number: int, s: Any, out: Any, datatrove: bool) -> None:
    """Lines of at most 30 characters; in a text mostly of a script without blanks its characters count twice."""
    lines, wide = s.lines, s.five[0] > 1
    short = plain = filled = 0
    for k in range(number):
        if lines.inner_first[k] < lines.inner_last[k]:
            filled += 1
            plain += lines.length[k] <= SHORT_LINE_CHARS
            if wide:
                short += widths(s.flag, lines.first[k], lines.last[k]) <= SHORT_LINE_CHARS
            else:
                short += lines.length[k] <= SHORT_LINE_CHARS
    out[SHORT_LINES] = short / max(filled, 1)
    if datatrove:
        out[DATATROVE + 15] = plain / max(filled, 1)
