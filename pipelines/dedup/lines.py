"""Lines, or paragraphs, that many documents have: menus, notices, calls to subscribe. They are cut out of the texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import LongType, StructField, StructType

from pipelines.dedup.counting import Bits, bitmaps, bits_for, entries_of, is_set, over_buckets, packed_counts
from pipelines.dedup.decide import drop, undecided, with_decision
from pipelines.dedup.kernels.lines import (
    Characters,
    How,
    characters,
    count_units,
    cut_units,
    find_units,
    line_buffers,
    total_lines,
)
from pipelines.dedup.order import ORDER, order_columns, sort_keys
from pipelines.dedup.pairs.components import cut
from pipelines.filter.kernels.phrases import text_buffers
from pipelines.filter.lines import text_array
from pipelines.kernel import kernel
from pipelines.recipe import Table, table_stage

LINES_COLUMNS = pa.schema([("lines_cut", pa.int32()), ("chars_cut", pa.int64())])

_BROADCAST = 4 << 20  # frequent lines that every task may hold: 32 MB
_BITS = 30  # of the filter that stands in for more of them: 128 MB at most
_SHOWN = 500  # characters of a line in the table beside


@dataclass(frozen=True)
class LinesConfig:
    """Which lines are cut.

    `more_than`: a line goes that more than so many documents have, or with `count="copies"` one that occurs more often than
    that, a chorus in one document too. Llama 3 (arXiv 2407.21783, 3.1.1) cuts lines that appear more than 6 times in each
    bucket of 30 million documents; so do the defaults: with one count over a greater corpus the same bound would mean
    something else. `bucket`: documents of a bucket, to which they belong by a hash of their doc_id; 0: all in one.

    `keep`: so many of the documents that have a frequent line, the best in `order`, keep it. 0, nobody keeps it, is what is
    published, and right for menus and notices, of which no copy is wanted.

    Lines are compared in lower case, with blanks folded and none at the ends, in one Unicode form (NFD, not NFKC: a text in
    which the superscript differs is another text); digits count, for "Chapter 7" is not "Chapter 8" and a row of figures is
    content, unless `fold_digits` (ccNet does: "3 likes" is "17 likes"). Punctuation counts.

    `keep_code`: code (in fences, indented by four columns, or looking like it: kernels/lines.py; a paragraph with such a line)
    is neither counted nor cut; `keep_lists`: list entries and rows of tables neither. `min_chars`: letters and digits that a
    line has at least to be counted: rulers, brackets and page numbers never are.

    A document that loses lines and is left with fewer than `min_left` characters, or a smaller share than `min_share`, goes.
    `top`: lines shown in the table beside.
    """

    unit: Literal["line", "paragraph"] = "line"
    more_than: int = 6
    count: Literal["documents", "copies"] = "documents"
    bucket: int = 30_000_000
    keep: int = 0
    keep_code: bool = True
    keep_lists: bool = True
    fold_digits: bool = False
    min_chars: int = 4
    min_left: int = 100
    min_share: float = 0.0
    order: tuple[str, ...] = ORDER
    top: int = 200

    def __post_init__(self) -> None:
        known = {"unit": ("line", "paragraph"), "count": ("documents", "copies")}
        for name, allowed in known.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        for name, least in (("more_than", 1), ("bucket", 0), ("keep", 0), ("min_chars", 1), ("min_left", 0), ("top", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 <= self.min_share <= 1:
            raise ValueError(f"min_share is {self.min_share}; it must be in [0, 1]")
        if self.top > 10_000:
            raise ValueError(f"top is {self.top}; the table beside shows at most 10,000 lines")


@table_stage(adds=LINES_COLUMNS)
def repeated_lines(df: DataFrame, cfg: LinesConfig) -> Table:
    """Cut lines that more than `more_than` documents have out of `text`; set `lines_cut` and `chars_cut` (0 where none went).

    Drops documents of which too little is left: `repeated_lines.left`, `drop_value` characters left, `drop_bound` min_left;
    `repeated_lines.share` with shares. Beside: `lines`, the most frequent lines with `text` (500 characters), `bucket`,
    `documents` and `lines` that have it. Rows with a decision neither count nor change. Reads `df` up to four times, so pass
    a materialised table.

    Hashes have 64 bits: with a billion different lines in a bucket, ten million of them frequent, the chance that any line of
    the bucket is taken for another one is 1 in 2,000. To the driver come numbers, the `top` lines, and keys or a bitmap of a
    bounded size; where more lines are frequent than a task may hold, they meet their documents in a join.
    """
    df = with_decision(df)
    buckets = max(1, math.ceil(df.where(undecided()).count() / cfg.bucket)) if cfg.bucket else 1
    marked = df.select("*", undecided().alias("_live"), _bucket(buckets).alias("_bucket"))
    documents = marked.where(F.col("_live") & F.col("text").isNotNull()).drop("_live")
    how = _how(cfg)
    packed = cut(packed_counts(documents.select("text", "_bucket", F.xxhash64("doc_id").alias("_mark")), _counter(how), 4))
    frequent = cut(_frequent(packed, cfg))
    number = frequent.count()
    text = F.when(F.col("_live"), F.col("text"))
    if cfg.keep == 0 and number <= _BROADCAST:
        rows = marked
        keys = frequent.sparkSession.sparkContext.broadcast(_keys(frequent))
        parts = _cutter(how, lambda: keys.value)(text, F.col("_bucket"))
    else:
        rows = marked.join(_lines_to_cut(documents, frequent, packed, number, cfg), "doc_id", "left")
        parts = _cutter_by_row(how)(text, F.col("_bucket"), F.col("_keys"))
    kept = [c for c in df.columns if c not in LINES_COLUMNS.names]
    done = rows.select(*kept, "_live", parts.alias("_cut")).select(
        *[F.when(F.col("_live"), F.col("_cut.text")).otherwise(F.col(c)).alias(c) if c == "text" else F.col(c) for c in kept],
        *[F.col(f"_cut.{c}").alias(c) for c in LINES_COLUMNS.names],
        F.col("_cut.left").alias("_left"),
    )
    done = drop_rest(done, F.col("lines_cut") > 0, F.col("chars_cut"), "repeated_lines", cfg.min_left, cfg.min_share)
    return Table(done.select(*kept, *LINES_COLUMNS.names), {"lines": _top(documents, frequent, how, cfg.top)})


def drop_rest(df: DataFrame, touched: Column, gone: Column, stage: str, min_left: int, min_share: float) -> DataFrame:
    """Drop touched rows of which too few characters are left (`_left`; `gone` went): rules `stage.left` and `stage.share`."""
    left = F.col("_left")
    share = left / F.greatest(left + gone, F.lit(1))
    df = drop(df, touched & (left < min_left), f"{stage}.left", left, float(min_left), F.lit(None).cast("binary"))
    return drop(df, touched & (share < min_share), f"{stage}.share", share, min_share, F.lit(None).cast("binary"))


def _bucket(buckets: int) -> Column:
    return F.pmod(F.xxhash64("doc_id"), F.lit(buckets)).cast("long") if buckets > 1 else F.lit(0).cast("long")


def _how(cfg: LinesConfig) -> How:
    return How(cfg.unit == "paragraph", cfg.keep_code, cfg.keep_lists, cfg.fold_digits, cfg.min_chars)


_TABLES: list[Characters] = []  # a process looks them up once: a third of a second


def tables() -> Characters:
    """What kernels know of characters."""
    if not _TABLES:
        _TABLES.append(characters())
    return _TABLES[0]


def _longs(column: pa.Array) -> npt.NDArray[np.int64]:
    return np.ascontiguousarray(column.to_numpy(zero_copy_only=False), np.int64)


def _entries(batch: pa.RecordBatch, how: How) -> npt.NDArray[np.int64]:
    data, offsets = text_buffers(batch.column("text"))
    found = np.empty((total_lines(data, offsets), 4), np.int64)
    columns = _longs(batch.column("_bucket")), _longs(batch.column("_mark"))
    number = count_units(data, offsets, *columns, tables(), how, *line_buffers(data, offsets), found)
    return found[:number]


def _counter(how: How) -> Callable[[pa.RecordBatch], npt.NDArray[np.int64]]:
    return lambda batch: _entries(batch, how)


def _frequent(packed: DataFrame, cfg: LinesConfig) -> DataFrame:
    """`key`, `documents`, `lines`, and `mark`, the least hash of a doc_id that has it."""
    counted, bound = 1 if cfg.count == "documents" else 2, cfg.more_than

    def over(entries: npt.NDArray[np.int64]) -> pa.RecordBatch:
        found = entries[entries[:, counted] > bound]
        names = ["key", "documents", "lines", "mark"]
        return pa.RecordBatch.from_arrays([pa.array(found[:, i]) for i in range(4)], names)

    return over_buckets(packed, 4, over, "key long, documents long, lines long, mark long")


def _keys(frequent: DataFrame) -> npt.NDArray[np.int64]:
    return np.sort(_longs(frequent.select("key").toArrow().column("key").combine_chunks()))


def _lines_to_cut(documents: DataFrame, frequent: DataFrame, packed: DataFrame, number: int, cfg: LinesConfig) -> DataFrame:
    """`doc_id` and `_keys`, ascending, of the frequent lines that it loses."""
    how, counted, bound = _how(cfg), 1 if cfg.count == "documents" else 2, cfg.more_than
    bits = bits_for(min(number, entries_of(packed, 4)), _BITS)
    (filtered,) = bitmaps(packed, 4, [lambda entries: entries[:, counted] > bound], bits)
    shared = frequent.sparkSession.sparkContext.broadcast(filtered)
    places = documents.select(
        "doc_id", *order_columns(documents, cfg.order), "text", "_bucket", F.lit(0).cast("long").alias("_mark")
    )
    schema = StructType(
        [*[f for f in places.schema if f.name not in ("text", "_bucket", "_mark")], StructField("key", LongType())]
    )

    def holders(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = np.arange(batch.num_rows)
            numbered = batch.set_column(batch.schema.get_field_index("_mark"), "_mark", pa.array(rows))
            entries = _entries(numbered, how)
            entries = entries[_known(shared.value, 64 - bits, entries[:, 0])]
            taken = batch.drop_columns(["text", "_bucket", "_mark"]).take(pa.array(entries[:, 3]))
            yield taken.append_column("key", pa.array(entries[:, 0]))

    held = places.mapInArrow(holders, schema).join(frequent.select("key"), "key")
    if cfg.keep:
        by_line = Window.partitionBy("key").orderBy(*sort_keys(cfg.order))
        held = held.select("doc_id", "key", F.row_number().over(by_line).alias("_place")).where(F.col("_place") > cfg.keep)
    return held.groupBy("doc_id").agg(F.array_sort(F.collect_set("key")).alias("_keys"))


@kernel
def _known(bits: Bits, shift: int, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    found = np.empty(len(keys), np.bool_)
    for i in range(len(keys)):
        found[i] = is_set(bits, shift, keys[i])
    return found


_PARTS = "text string, lines_cut int, chars_cut long, left long"


def _cut(texts: pa.Array, buckets: pa.Array, how: How, keys: Any, low: Any, high: Any) -> pa.Array:
    data, offsets = text_buffers(texts)
    rows = len(texts)
    out, ends = np.empty(int(offsets[-1] - offsets[0]), np.uint8), np.zeros(rows + 1, np.int64)
    units, chars, left = np.zeros(rows, np.int32), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    lines, _ = line_buffers(data, offsets)
    cut_units(data, offsets, _longs(buckets), tables(), how, lines, keys, low, high, out, ends, units, chars, left)
    columns = [text_array(out, ends, texts), pa.array(units), pa.array(chars), pa.array(left)]
    return pa.StructArray.from_arrays(columns, ["text", "lines_cut", "chars_cut", "left"])


def _cutter(how: How, keys: Callable[[], npt.NDArray[np.int64]]) -> Callable[..., Column]:
    def cut_lines(texts: pa.Array, buckets: pa.Array) -> pa.Array:
        rows, sought = len(texts), keys()
        return _cut(texts, buckets, how, sought, np.zeros(rows, np.int64), np.full(rows, len(sought), np.int64))

    return arrow_udf(cut_lines, _PARTS)  # type: ignore[call-overload,no-any-return]  # its kind is told by its hints


def _cutter_by_row(how: How) -> Callable[..., Column]:
    def cut_lines(texts: pa.Array, buckets: pa.Array, keys: pa.Array) -> pa.Array:
        ends = np.concatenate(([0], np.cumsum(pa.compute.list_value_length(keys).fill_null(0).to_numpy()))).astype(np.int64)
        return _cut(texts, buckets, how, _longs(keys.flatten()), ends[:-1], ends[1:])

    return arrow_udf(cut_lines, _PARTS)  # type: ignore[call-overload,no-any-return]


def _top(documents: DataFrame, frequent: DataFrame, how: How, top: int) -> DataFrame:
    """The most frequent lines with their text: of each, the least in the documents that carry its mark."""
    best = frequent.orderBy(F.desc("documents"), F.desc("lines"), "key").limit(top).toArrow().sort_by("key")
    session = frequent.sparkSession
    chosen = session.createDataFrame(best)
    keys = _longs(best.column("key").combine_chunks())

    def find(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            data, offsets = text_buffers(batch.column("text"))
            at, begins, ends = (np.empty(total_lines(data, offsets), np.int64) for _ in range(3))
            lines, _ = line_buffers(data, offsets)
            buckets = _longs(batch.column("_bucket"))
            number = find_units(data, offsets, buckets, tables(), how, lines, keys, at, begins, ends)
            # a key's texts may differ in case and blanks
            texts = [
                data[a:b].tobytes().decode("utf-8", "replace").strip()[:_SHOWN]
                for a, b in zip(begins[:number], ends[:number], strict=True)
            ]
            owners = batch.column("_bucket").take(pa.array(np.searchsorted(offsets, begins[:number], "right") - 1))
            yield pa.RecordBatch.from_arrays(
                [pa.array(keys[at[:number]]), owners, pa.array(texts, pa.string())], ["key", "bucket", "text"]
            )

    holders = documents.join(F.broadcast(chosen.select("mark").distinct()), F.xxhash64("doc_id") == F.col("mark"), "left_semi")
    found = holders.select("text", "_bucket").mapInArrow(find, "key long, bucket long, text string")
    texts = found.groupBy("key").agg(F.min("text").alias("text"), F.min("bucket").alias("bucket"))
    shown = texts.join(F.broadcast(chosen), "key").select("text", "bucket", "documents", "lines", "key")
    return shown.orderBy(F.desc("documents"), F.desc("lines"), "key").drop("key")
