"""Which source of the mixture a document belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.recipe import batch_stage
from pipelines.schedule import copies
from pipelines.schema import with_columns

# Least size of a cluster of duplicates, and how often its document is wanted. FineWeb-2 (huggingface/fineweb-2, README,
# "Deduplication"): its authors tried no others at length, and take very large clusters for text of low quality.
FINEWEB2 = ((1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1000, 1))


@dataclass(frozen=True)
class RouteConfig:
    """Inputs that are split by language into `<source>-<lang>`; `other` is the name for languages not listed."""

    sources: tuple[str, ...] = ("web",)
    languages: tuple[str, ...] = ("en", "zh")
    other: str = "other"


@dataclass(frozen=True)
class LabelRouteConfig:
    """`column`: of labels; `labels`: those that get a part of their own; `other`: name for the rest, "" to keep the source's.

    `sources`: those that are split; none given: all.
    """

    column: str
    labels: tuple[str, ...]
    other: str = "other"
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class ValueRouteConfig:
    """`parts`: (name, least value), values ascending; `column`: of numbers. `sources`: which are split; none given: all."""

    column: str = "characters"
    parts: tuple[tuple[str, float], ...] = (("long", 131_072),)
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(tuple(pair) for pair in self.parts))  # lists, where --set gave them
        values = [least for _, least in self.parts]
        if not values or any(a >= b for a, b in pairwise(values)):
            raise ValueError(f"parts is {self.parts}; it must be pairs (name, least value), values ascending")


@dataclass(frozen=True)
class RehydrateConfig:
    """`copies`: (least cluster size, copies), sizes ascending from 1: a size between two has the copies of the lesser.

    `sources`: those that are split, by the names they have when the stage sees them; none given: all. Raises ValueError.
    """

    copies: tuple[tuple[int, int], ...] = FINEWEB2
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "copies", tuple(tuple(pair) for pair in self.copies))  # lists, where --set gave them
        sizes = [size for size, _ in self.copies]
        if not sizes or sizes[0] != 1 or any(a >= b for a, b in pairwise(sizes)) or min(n for _, n in self.copies) < 1:
            raise ValueError(
                f"copies is {self.copies}; it must be pairs (size, copies), sizes ascending from 1, copies at least 1"
            )


@batch_stage()
def route_by_language(docs: pa.RecordBatch, cfg: RouteConfig) -> pa.RecordBatch:
    """Rename the source of rows of `cfg.sources`: "web" and "zh" become "web-zh". Shards and mixture weights use this name."""
    known = pc.is_in(docs["lang"], pa.array(cfg.languages, pa.string()))
    split = pc.is_in(docs["source"], pa.array(cfg.sources, pa.string()))
    return _split(docs, (), pc.if_else(split, pc.if_else(known, docs["lang"], cfg.other), ""))


@batch_stage()
def route_by_label(docs: pa.RecordBatch, cfg: LabelRouteConfig) -> pa.RecordBatch:
    """Rename the source of rows by what a classifier said of them: "web" with the label "math" becomes "web-math".

    A schedule gives weights to such classes over all sources by pattern: {"*-math": 0.25} (Llama 3, section 3.1.2, mixes by
    classes of knowledge). Raises UserError without the column.
    """
    label = _column(docs, cfg.column)
    known = pc.is_in(label, pa.array(cfg.labels, pa.string()))
    return _split(docs, cfg.sources, pc.if_else(pc.fill_null(known, False), label, cfg.other))


@batch_stage()
def route_by_value(docs: pa.RecordBatch, cfg: ValueRouteConfig) -> pa.RecordBatch:
    """Rename the source of rows whose value is large enough: "books" becomes "books-long", others keep their name.

    `characters` is the length of the text where no column has this name: documents for phases of long context (Llama 3,
    section 3.4.2). A quality score makes buckets that the phases of a curriculum weigh. A null value keeps its name. Raises
    UserError without the column.
    """
    if cfg.column == "characters" and "characters" not in docs.schema.names:
        value = pc.utf8_length(docs["text"])
    else:
        value = _column(docs, cfg.column)
    name: Any = pa.scalar("", pa.string())
    for part, least in cfg.parts:
        name = pc.if_else(pc.fill_null(pc.greater_equal(value, least), False), part, name)
    return _split(docs, cfg.sources, name)


def _column(docs: pa.RecordBatch, name: str) -> Any:
    if name not in docs.schema.names:
        raise UserError(f"there is no column {name!r} to route by; put the stage that adds it before, or name another")
    return docs[name]


def _split(docs: pa.RecordBatch, sources: tuple[str, ...], part: Any) -> pa.RecordBatch:
    """`<source>-<part>` for rows of `sources` (none given: of all) whose part has a name."""
    here = pc.not_equal(part, "")
    if sources:
        here = pc.and_(here, pc.is_in(docs["source"], pa.array(sources, pa.string())))
    name = pc.binary_join_element_wise(docs["source"], part, "-")
    return with_columns(docs, {"source": pc.if_else(here, name, docs["source"])})


@batch_stage()
def route_by_cluster_size(docs: pa.RecordBatch, cfg: RehydrateConfig) -> pa.RecordBatch:
    """Rename the source of documents that stand for a cluster of duplicates: "web" becomes "web-x5" where five are wanted.

    Nothing is copied: the schedule reads such a source so many times as often (schedule.rehydrated, schedule.with_copies).
    Belongs after the stages that count duplicates and after route_by_language. Raises UserError without a column
    `cluster_size`, and for a source whose name already ends like one of these.
    """
    if "cluster_size" not in docs.schema.names:
        raise UserError(
            "route_by_cluster_size needs the column cluster_size; put exact_duplicates or near_duplicates before it"
        )
    for name in pc.unique(docs["source"]).to_pylist():
        if name and copies(name) > 1:
            raise UserError(f"source {name!r} ends like one that route_by_cluster_size makes; give the input another name")
    sizes = pc.fill_null(docs["cluster_size"], 1).to_numpy(zero_copy_only=False)
    steps = np.searchsorted([size for size, _ in cfg.copies], np.maximum(sizes, 1), side="right") - 1
    wanted = np.array([number for _, number in cfg.copies])[steps]
    split = pa.array(wanted > 1)
    if cfg.sources:
        split = pc.and_(split, pc.is_in(docs["source"], pa.array(cfg.sources, pa.string())))
    number = pa.array(wanted).cast(pa.string())
    name = pc.binary_join_element_wise(docs["source"], number, "-x")
    return with_columns(docs, {"source": pc.if_else(split, name, docs["source"])})
