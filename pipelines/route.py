"""Which source of the mixture a document belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

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
    lang = pc.if_else(known, docs["lang"], cfg.other)
    split = pc.is_in(docs["source"], pa.array(cfg.sources, pa.string()))
    return with_columns(
        docs, {"source": pc.if_else(split, pc.binary_join_element_wise(docs["source"], lang, "-"), docs["source"])}
    )


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
