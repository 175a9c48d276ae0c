"""Spans of at least 50 tokens that occur more than once in a corpus: found exactly, and cut out of all places but the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import BinaryType, IntegerType, StructField, StructType

from pipelines.dedup.counting import bitmaps, bits_for, blobs, entries_of, packed_counts, values, whole_groups
from pipelines.dedup.decide import undecided, wide_batches, with_decision
from pipelines.dedup.kernels.spans import (
    assemble,
    count_anchors,
    cut_spans,
    most_tokens,
    new_slots,
    settle,
    windows_at_anchors,
)
from pipelines.dedup.lines import drop_rest, tables
from pipelines.dedup.order import ORDER, order_columns, sort_keys
from pipelines.dedup.pairs.components import cut
from pipelines.filter.kernels.phrases import text_buffers
from pipelines.filter.lines import text_array
from pipelines.recipe import Table, table_stage

SPANS_COLUMNS = pa.schema([("spans_cut", pa.int32()), ("span_chars_cut", pa.int64())])

_BITS = 30  # of the filter of anchors: 128 MB at most; where it is full, more windows travel and the result is the same
_HOT = 100_000  # places of an anchor from which on its windows are spread over several tasks
_SMALL = 50_000  # documents whose spans are sent to every task instead of shuffling texts to them


@dataclass(frozen=True)
class SubstringsConfig:
    """`tokens` of the shortest span that counts (kernels/spans.py); Lee et al. 2022 (arXiv 2107.06499) take 50 of BPE.

    `within`: a repeat in the same document counts too. `action` "report" leaves the texts as they are: the columns and the
    table beside say what a cut would take. `order`: the best document keeps a span, in it the first place. A document that
    loses spans and is left with fewer than `min_left` characters, or a smaller share than `min_share`, goes, unless others rely
    on what it has.
    """

    tokens: int = 50
    within: bool = True
    action: Literal["cut", "report"] = "cut"
    order: tuple[str, ...] = ORDER
    min_left: int = 100
    min_share: float = 0.0

    def __post_init__(self) -> None:
        if self.action not in ("cut", "report"):
            raise ValueError(f"action is {self.action!r}; it must be one of cut, report")
        if self.tokens < 2:
            raise ValueError(f"tokens is {self.tokens}; it must be at least 2")
        if self.min_left < 0:
            raise ValueError(f"min_left is {self.min_left}; it must be at least 0")
        if not 0 <= self.min_share <= 1:
            raise ValueError(f"min_share is {self.min_share}; it must be in [0, 1]")


@table_stage(adds=SPANS_COLUMNS)
def repeated_substrings(df: DataFrame, cfg: SubstringsConfig) -> Table:
    """Cut spans of `tokens` tokens or more that an earlier place has; set `spans_cut` and `span_chars_cut` (0 where none went).

    A place is earlier in a better document, or before in the same one. A window is `tokens` tokens in a row. Every window that
    is not at its first place is marked; what marked windows cover goes, but for the tokens of windows that are a first place
    on which another one relies. So every window that the corpus had more than once is still there once, whole and in a row;
    a text is cut in no other place. The exception are windows that bridge a cut: a pair of texts can come to share one anew.

    Drops `repeated_substrings.left` (characters left, min_left) and `repeated_substrings.share`. Beside: `spans`, a row each
    with `doc_id`, `start` and `end` in characters of the text as it was, `tokens`, and `duplicate_of`, the document with the
    first place of the window that covers the span's begin. Marks and blanks around a cut go too where they would hang loose.

    Exact but for equal 128-bit hashes of different windows. Expects each doc_id once (rows that share one share its fate), and
    reads `df` three times, so pass a materialised table. To the driver come numbers and a bitmap of a bounded size. Of
    the texts, windows around anchors seen twice are shuffled, 16 bytes a token of what is repeated.
    """
    df = with_decision(df)
    live = df.where(undecided() & F.col("text").isNotNull())
    with wide_batches(df.sparkSession):
        spans = cut(_spans(live, cfg))
    few = spans.count() <= _SMALL
    marked = df.select("*", undecided().alias("_live")).join(F.broadcast(spans) if few else spans, "doc_id", "left")
    marked = marked.withColumn("_touched", F.col("_live") & F.col("_first").isNotNull() & F.col("text").isNotNull())
    kept = [c for c in df.columns if c not in SPANS_COLUMNS.names]
    text = F.when(F.col("_touched"), F.col("text"))
    parts = _cutter()(text, F.col("_first"), F.col("_last"))
    done = marked.select("*", parts.alias("_cut"))
    changed = F.col("_touched") & F.lit(cfg.action == "cut")
    rows = done.select(
        *[F.when(changed, F.col("_cut.text")).otherwise(F.col(c)).alias(c) if c == "text" else F.col(c) for c in kept],
        F.col("_cut.spans_cut").alias("spans_cut"),
        F.col("_cut.chars_cut").alias("span_chars_cut"),
        F.col("_cut.left").alias("_left"),
        (changed & ~F.coalesce("_relied", F.lit(False))).alias("_may_go"),
    )
    rows = drop_rest(rows, F.col("_may_go"), F.col("span_chars_cut"), "repeated_substrings", cfg.min_left, cfg.min_share)
    each = F.explode(F.arrays_zip("_cut.start", "_cut.end", "_first", "_last", "_of"))
    beside = done.where("_touched").select("doc_id", each.alias("_s"))
    evidence = beside.select(
        "doc_id",
        F.col("_s.start").alias("start"),
        F.col("_s.end").alias("end"),
        (F.col("_s._last") - F.col("_s._first")).alias("tokens"),
        F.col("_s._of").alias("duplicate_of"),
    )
    return Table(rows.select(*kept, *SPANS_COLUMNS.names), {"spans": evidence})


# --- from texts to spans of tokens ------------------------------------------------------------------------------------------


def _spans(live: DataFrame, cfg: SubstringsConfig) -> DataFrame:
    """`doc_id`, and of the spans that it loses, in order, `_first` and `_last` (end) in tokens and `_of`; `_relied`."""
    places = cut(_by_rank(cut(_chunks(live, cfg)), cfg))
    occurrences = places.mapInArrow(_spread, "key long, rank long, start long, windows binary")
    occurrences = occurrences.repartition("key").sortWithinPartitions("key", "rank", "start")
    found = occurrences.mapInArrow(_settler(cfg.within), "rank long, start long, count long, first long, kind long")
    found = found.repartition("rank").sortWithinPartitions("rank", "start", "kind")
    spans = found.mapInArrow(_assembler(cfg.tokens), "rank long, a long, b long, first long, relied long")
    names = places.where("chunk = 0").select(F.col("_row").alias("rank"), "doc_id")
    firsts = names.select(F.col("rank").alias("first"), F.col("doc_id").alias("of"))
    each = spans.join(names, "rank").join(firsts, "first")
    whole = F.array_sort(F.collect_list(F.struct(F.col("a").cast("int").alias("a"), F.col("b").cast("int").alias("b"), "of")))
    by_document = each.groupBy("doc_id").agg(whole.alias("_s"), (F.max("relied") > 0).alias("_relied"))
    return by_document.select(
        "doc_id", F.col("_s.a").alias("_first"), F.col("_s.b").alias("_last"), F.col("_s.of").alias("_of"), "_relied"
    )


def _chunks(live: DataFrame, cfg: SubstringsConfig) -> DataFrame:
    """Documents with the windows around anchors that were seen twice: the order's columns, doc_id, chunk, two blobs."""
    size = cfg.tokens
    packed = cut(packed_counts(live.select("text"), lambda batch: _anchor_entries(batch, size), 2))
    bits = bits_for(entries_of(packed, 2), _BITS)
    hot_from = _HOT
    filters = bitmaps(packed, 2, [lambda e: e[:, 1] > 1, lambda e: e[:, 1] >= hot_from], bits)
    twice, hot = (live.sparkSession.sparkContext.broadcast(f) for f in filters)
    documents = live.select("doc_id", *order_columns(live, cfg.order), "text")
    added = [StructField("chunk", IntegerType()), StructField("found", BinaryType()), StructField("windows", BinaryType())]
    schema = StructType([*[f for f in documents.schema if f.name != "text"], *added])

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            data, offsets = text_buffers(batch.column("text"))
            most, _ = most_tokens(data, offsets)
            found, hashes, chunks, number = windows_at_anchors(
                data, offsets, size, tables(), most, twice.value, hot.value, 64 - bits
            )
            others = batch.drop_columns(["text"])
            chunks = chunks[:number]
            found_ends, window_ends = (np.concatenate(([0], chunks[:, i])) for i in (2, 3))
            for a in range(0, number, _CHUNKS):
                b = min(a + _CHUNKS, number)
                columns = [
                    *others.take(pa.array(chunks[a:b, 0])).columns,
                    pa.array(chunks[a:b, 1].astype(np.int32)),
                    _pieces(found, found_ends[a : b + 1]),
                    _pieces(hashes, window_ends[a : b + 1]),
                ]
                yield pa.RecordBatch.from_arrays(columns, [*others.schema.names, "chunk", "found", "windows"])

    return documents.mapInArrow(work, schema)


_CHUNKS = 64  # rows of chunks in a batch: up to 100 MB


def _pieces(table: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> pa.Array:
    return blobs(table[ends[0] : ends[-1]], (ends - ends[0]) * (8 * table.shape[1]))


def _anchor_entries(batch: pa.RecordBatch, size: int) -> npt.NDArray[np.int64]:
    data, offsets = text_buffers(batch.column("text"))
    most, total = most_tokens(data, offsets)
    entries = np.empty((total, 2), np.int64)
    return entries[: count_anchors(data, offsets, size, tables(), most, entries)].copy()


def _by_rank(chunks: DataFrame, cfg: SubstringsConfig) -> DataFrame:
    """Chunks in the survivor order, numbered by `_row`, which grows with it; a document's chunks lie in one partition."""
    keys = sort_keys(cfg.order)
    placed = chunks.repartitionByRange(*keys).sortWithinPartitions(*keys, "chunk")
    return placed.select("doc_id", "chunk", "found", "windows", F.monotonically_increasing_id().alias("_row"))


def _spread(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Chunks to occurrences; the rank of a document is the row of its first chunk, and the same row once more is left out."""
    last, rank, chunk = None, -1, -1
    for batch in batches:
        keep, ranks = [], []
        for i, (doc, number, row) in enumerate(
            zip(*(batch.column(c).to_pylist() for c in ("doc_id", "chunk", "_row")), strict=True)
        ):
            if doc != last:
                last, rank, chunk = doc, row, -1
            if number > chunk:
                chunk = number
                keep.append(i)
                ranks.append(rank)
        batch = batch.take(pa.array(keep, pa.int64()))
        found = _aligned(batch.column("found"), 3)
        sizes = pc.binary_length(batch.column("found")).to_numpy() // 24
        ends = np.concatenate(([0], np.cumsum(found[:, 2]))) * 16
        hashes = _aligned(batch.column("windows"), 2)
        for a in range(0, len(found), _ROWS):
            b = min(a + _ROWS, len(found))
            own = np.repeat(np.array(ranks, np.int64), sizes)[a:b]
            windows = blobs(hashes[ends[a] // 16 : ends[b] // 16], ends[a : b + 1] - ends[a])
            columns = [pa.array(found[a:b, 0]), pa.array(own), pa.array(found[a:b, 1]), windows]
            yield pa.RecordBatch.from_arrays(columns, ["key", "rank", "start", "windows"])


_ROWS = 1 << 16  # occurrences in a batch


def _aligned(column: pa.Array, width: int) -> npt.NDArray[np.int64]:
    return np.frombuffer(values(column, np.uint8).tobytes(), np.int64).reshape(-1, width)


def _settler(within: bool) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        slots, state = new_slots(), np.zeros(3, np.int64)
        for batch in batches:
            columns = [_longs(batch.column(c)) for c in ("key", "rank", "start")]
            ends = np.cumsum(pc.binary_length(batch.column("windows")).to_numpy().astype(np.int64)) // 16
            hashes = _aligned(batch.column("windows"), 2)
            found, number, slots = settle(columns[0], columns[1], columns[2], ends, hashes, within, slots, state)
            yield _rows(found, number, ["rank", "start", "count", "first", "kind"])

    return work


def _assembler(size: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for group in whole_groups(batches, "rank"):
            ranks, starts, counts, firsts, kinds = map(_longs, group.columns)
            found, number = assemble(ranks, starts, counts, firsts, kinds, size)
            yield _rows(found, number, ["rank", "a", "b", "first", "relied"])

    return work


def _rows(found: npt.NDArray[np.int64], number: int, names: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(np.ascontiguousarray(found[:number, i])) for i in range(len(names))], names)


def _longs(column: pa.Array) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(column.to_numpy(zero_copy_only=False), np.int64)


# --- the cut ------------------------------------------------------------------------------------------------------------------

_PARTS = "text string, spans_cut int, chars_cut long, left long, start array<int>, end array<int>"


def _cutter() -> Callable[..., Column]:
    def cut_out(texts: pa.Array, first: pa.Array, last: pa.Array) -> pa.Array:
        data, offsets = text_buffers(texts)
        number = len(texts)
        live = texts.is_valid().to_numpy(zero_copy_only=False)
        sizes = np.where(live, pc.list_value_length(first).fill_null(0).to_numpy(zero_copy_only=False), 0)
        rows = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        # a row without text has no list either
        a, b = _longs(first.flatten()), _longs(last.flatten())
        most, _ = most_tokens(data, offsets)
        out, ends = np.empty(int(offsets[-1] - offsets[0]), np.uint8), np.zeros(number + 1, np.int64)
        cuts, chars, left = np.zeros(number, np.int32), np.zeros(number, np.int64), np.zeros(number, np.int64)
        from_char, to_char = np.zeros(len(a), np.int32), np.zeros(len(a), np.int32)
        cut_spans(data, offsets, rows, a, b, tables(), most, out, ends, cuts, chars, left, from_char, to_char)
        places = pa.array(rows.astype(np.int32))
        lists = [pa.ListArray.from_arrays(places, pa.array(c)) for c in (from_char, to_char)]
        columns: list[Any] = [text_array(out, ends, texts), pa.array(cuts), pa.array(chars), pa.array(left), *lists]
        return pa.StructArray.from_arrays(columns, ["text", "spans_cut", "chars_cut", "left", "start", "end"])

    return arrow_udf(cut_out, _PARTS)  # type: ignore[call-overload,no-any-return]  # its kind is told by its hints
