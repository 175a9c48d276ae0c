"""Duplicates of what earlier runs kept: looked up in their indexes, verified by exact similarity with the old text."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.dedup.decide import drop, lookup_side, undecided, wide_batches, with_decision
from pipelines.dedup.index.format import SKETCH, Ints, check, lookup_keys
from pipelines.dedup.index.lookup import Index, Latest
from pipelines.dedup.index.write import range_of
from pipelines.dedup.minhash import MinhashConfig, Sketches, estimate, has_shingles, signatures, sketch
from pipelines.dedup.pairs.components import cut, cut_and_sum
from pipelines.dedup.shingles import Hashes, jaccard, shingle_sets
from pipelines.recipe import Table, table_stage
from pipelines.schema import record_batch
from pipelines.shards.manifest import MANIFEST
from pipelines.spark import to_spark_schema

log = logging.getLogger(__name__)

_RANGES = 1 << 12  # of keys, dealt to the tasks: each searches a few key files, in order
_HELD_BYTES = 64 << 20  # of old texts' shingles that a task holds
_DEVIATIONS = 5.0  # a pair goes unread where its sketches lie that far below the threshold: once in three million

# What a lookup finds: an old document for a new one, or (doc_id null) a bucket of which not all was taken.
_FOUND = pa.schema(
    [
        ("doc_id", pa.binary()),
        ("index", pa.int32()),
        ("place", pa.int64()),
        ("key", pa.int64()),
        ("size", pa.int64()),
        ("documents", pa.int64()),
    ]
)
MATCHES = pa.schema(
    [
        ("doc_id", pa.binary()),
        ("other", pa.binary()),  # the old document,
        ("dump", pa.string()),  # and where it is from
        ("source", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("jaccard", pa.float64()),
        ("containment", pa.float64()),  # share of the new document's shingles that the old one has
    ]
)


@dataclass(frozen=True)
class KnownConfig:
    """`index`: folders that earlier runs wrote (Recipe.index), one a dump; with none, nothing is known.

    `measure`: `jaccard`, or `containment`: the share of the new document's shingles that the old one has, for documents that
    an old one covers. `threshold`: its least value at which a document goes. `minhash`: that of the indexes. `hubs`: of one
    bucket of an index so many documents are compared with each new one; what is left out is counted (table `hot`).
    """

    index: tuple[str, ...] = ()
    threshold: float = 0.75
    minhash: MinhashConfig = field(default_factory=MinhashConfig)
    measure: Literal["jaccard", "containment"] = "jaccard"
    hubs: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must be in (0, 1]")
        if self.measure not in ("jaccard", "containment"):
            raise ValueError(f"measure is {self.measure!r}; it must be 'jaccard' or 'containment'")
        if self.hubs < 1:
            raise ValueError(f"hubs is {self.hubs}; it must be at least 1")
        if isinstance(self.index, str):
            raise ValueError(f"index is {self.index!r}; it must be a tuple of folders")

    def files(self) -> tuple[str, ...]:
        """The manifests: another index gives another result. Raises UserError, before a run begins, where `check` does."""
        for index in self.index:
            check(index, self.minhash)
        return tuple(str(Path(index) / MANIFEST) for index in self.index)


@table_stage()
def known_duplicates(df: DataFrame, cfg: KnownConfig) -> Table:
    """Drop documents that an index has, or has one like: rules `known_duplicates.jaccard`, `known_duplicates.containment`.

    `drop_value` is the exact similarity with the old document most alike (of several the first, in the order of the indexes,
    then of their places), `duplicate_of` its doc_id, `drop_entry` its dump and address. Texts are compared as they are at this
    point with what the old run kept at its end: put the stage where they have been treated alike. Beside the rows: `matches`
    (schema MATCHES) and `hot` (buckets of which more than `hubs` documents were asked for). The work is that of the new
    documents; of an index only the parts that are hit are read. Reads `df` three times, so pass a materialised table. Raises
    UserError for an index that is not whole, or of other parameters.
    """
    df = with_decision(df)
    if not cfg.index:
        return Table(df)
    roots = tuple(str(Path(index).absolute()) for index in cfg.index)
    dumps = [check(root, cfg.minhash).dump for root in roots]
    with wide_batches(df.sparkSession):
        found = cut(_found(df, roots, cfg))
    hot = _hot(found.where("doc_id is null"), roots, dumps, cfg)
    matches, gone = cut_and_sum(_verified(df, found.where("doc_id is not null"), roots, cfg), number=F.count(F.lit(1)))
    entry = F.concat_ws(": ", "dump", F.coalesce("url", F.lower(F.hex("other"))))
    known = matches.select("doc_id", F.col("other").alias("_other"), F.col(cfg.measure).alias("_value"), entry.alias("_entry"))
    marked = df.join(lookup_side(known, **gone), "doc_id", "left")
    marked = marked.withColumn("_goes", undecided() & F.col("_other").isNotNull())
    rule = f"known_duplicates.{cfg.measure}"
    marked = drop(marked, F.col("_goes"), rule, F.col("_value"), cfg.threshold, F.col("_other"))
    marked = marked.withColumn("drop_entry", F.when(F.col("_goes"), F.col("_entry")).otherwise(F.col("drop_entry")))
    return Table(marked.select(*df.columns), {"matches": matches, "hot": hot})


def _found(df: DataFrame, roots: tuple[str, ...], cfg: KnownConfig) -> DataFrame:
    keyed = df.where(undecided()).select("doc_id", "text").mapInArrow(_Keys(cfg.minhash), "doc_id binary, keys array<long>")
    keys = keyed.select("doc_id", F.explode("keys").alias("key"))
    placed = keys.repartition(range_of("key", _RANGES)).sortWithinPartitions("key")
    return placed.mapInArrow(_LookUp(roots, cfg.hubs), to_spark_schema(_FOUND))


def _hot(found: DataFrame, roots: tuple[str, ...], dumps: list[str], cfg: KnownConfig) -> DataFrame:
    buckets = found.groupBy("index", "key").agg(F.max("size").alias("size"), F.sum("documents").alias("documents"))
    total = buckets.agg(F.count(F.lit(1)), F.max("size"), F.sum("documents")).head()
    if total is not None and total[0]:
        log.warning(
            "known duplicates: %d buckets of the indexes have more than %d documents (the largest: %d); for %d keys of new "
            "documents not all of them were compared: table `hot`, raise hubs to compare more",
            total[0], cfg.hubs, total[1], total[2],
        )  # fmt: skip
    left_out = (F.col("size") - cfg.hubs).alias("left_out")
    return buckets.select(_name(roots).alias("index"), _name(dumps).alias("dump"), "key", "size", left_out, "documents")


def _name(names: tuple[str, ...] | list[str]) -> Column:
    return F.array(*map(F.lit, names))[F.col("index")]


def _verified(df: DataFrame, found: DataFrame, roots: tuple[str, ...], cfg: KnownConfig) -> DataFrame:
    """MATCHES of the documents that go, each doc_id once."""
    asked = found.groupBy("doc_id").agg(F.collect_set(F.struct("index", "place")).alias("places"))
    places, documents = cut_and_sum(asked, number=F.count(F.lit(1)))
    texts = df.where(undecided()).select("doc_id", "text").join(lookup_side(places, **documents), "doc_id")
    matches = texts.mapInArrow(_Verify(roots, cfg), to_spark_schema(MATCHES))
    # rows of one doc_id are one document (schema.doc_id)
    return matches.groupBy("doc_id").agg(F.max(F.struct(*MATCHES.names[1:])).alias("_")).select("doc_id", "_.*")


@dataclass(frozen=True)
class _Keys:
    """Rows of (doc_id, text) to (doc_id, keys), without the texts that have no shingles."""

    minhash: MinhashConfig

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            signature = signatures(batch.column("text"), self.minhash)
            some = has_shingles(signature)
            keys = lookup_keys(signature[some], self.minhash)
            lists = pa.FixedSizeListArray.from_arrays(pa.array(keys.ravel()), keys.shape[1]).cast(pa.list_(pa.int64()))
            yield pa.record_batch({"doc_id": batch.column("doc_id").filter(pa.array(some)), "keys": lists})


@dataclass(frozen=True)
class _LookUp:
    """Rows of (doc_id, key), ascending by key, to rows of _FOUND."""

    roots: tuple[str, ...]
    hubs: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        indexes = [Index(root) for root in self.roots]
        for batch in batches:
            for number, index in enumerate(indexes):
                yield from self._look_up(batch, index, number)

    def _look_up(self, batch: pa.RecordBatch, index: Index, number: int) -> Iterator[pa.RecordBatch]:
        keys, documents = np.unique(batch.column("key").to_numpy(), return_counts=True)
        found = index.find(keys, self.hubs)
        # a run of rows of one key gets its places once a row
        given = np.repeat(found.given, documents)
        begin = np.repeat(np.cumsum(found.given) - found.given, documents)
        rows = np.repeat(np.arange(len(given)), given)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(given) - given, given)
        columns = {"doc_id": batch.column("doc_id").take(pa.array(rows)), "place": _ints(found.places[begin[rows] + within])}
        yield record_batch({**columns, "index": _ints(np.full(len(rows), number))}, _FOUND)
        hot = found.size > self.hubs
        columns = {"key": _ints(keys[hot]), "size": _ints(found.size[hot]), "documents": _ints(documents[hot])}
        yield record_batch({**columns, "index": _ints(np.full(int(hot.sum()), number))}, _FOUND)


class _Match(NamedTuple):
    value: float
    jaccard: float
    containment: float
    number: int  # of the index
    place: int


@dataclass(frozen=True)
class _Verify:
    """Rows of (doc_id, text, places) to MATCHES: exact similarity with the old texts, read where they lie."""

    roots: tuple[str, ...]
    cfg: KnownConfig

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        indexes, minhash = [Index(root) for root in self.roots], self.cfg.minhash
        held: Latest[Hashes] = Latest(_HELD_BYTES, lambda hashes: hashes.nbytes)

        def read(number: int, place: int) -> Hashes:
            return shingle_sets(pa.array([indexes[number].text(place)]), minhash.ngram, minhash.unit)[0]

        for batch in batches:
            texts, matches = batch.column("text"), list[dict[str, Any]]()
            sketches = sketch(signatures(texts, minhash)[:, :SKETCH])
            sets = shingle_sets(texts, minhash.ngram, minhash.unit)
            columns = (batch.column(name).to_pylist() for name in ("doc_id", "places"))
            for doc_id, places, short, own in zip(*columns, sketches, sets, strict=True):
                best: _Match | None = None
                for number, place in self._near(indexes, places, short):
                    match = self._compare(own, held.get((number, place), read), number, place)
                    if match.value >= self.cfg.threshold and (best is None or match.value > best.value):
                        best = match
                if best is not None:
                    matches.append({"doc_id": doc_id, **_described(best, indexes[best.number])})
            yield record_batch({name: [m[name] for m in matches] for name in MATCHES.names}, MATCHES)

    def _near(self, indexes: list[Index], places: list[dict[str, int]], short: Sketches) -> list[tuple[int, int]]:
        """Index and place, in order, of the candidates whose sketches do not say that they are far below the threshold."""
        order = sorted((p["index"], p["place"]) for p in places)
        if self.cfg.measure != "jaccard":
            return order  # a short text in a long one has next to no Jaccard similarity
        threshold = self.cfg.threshold
        least = threshold - _DEVIATIONS * sqrt(threshold * (1 - threshold) / len(short))
        theirs = np.stack([indexes[number].sketch(place) for number, place in order])
        likely = estimate(np.broadcast_to(short, theirs.shape).copy(), theirs) >= least
        return [o for o, keep in zip(order, likely, strict=True) if keep]

    def _compare(self, own: Hashes, other: Hashes, number: int, place: int) -> _Match:
        both = jaccard(own, other)
        contained = round(both * (len(own) + len(other)) / (1 + both)) / len(own)  # as many are shared
        return _Match(both if self.cfg.measure == "jaccard" else contained, both, contained, number, place)


def _described(match: _Match, index: Index) -> dict[str, Any]:
    origin = index.origin(match.place)
    old = {"other": origin.doc_id, "source": origin.source, "url": origin.url, "date": origin.date}
    return {**old, "dump": index.manifest.dump, "jaccard": match.jaccard, "containment": match.containment}


def _ints(values: Ints) -> pa.Array:
    return pa.array(values)
