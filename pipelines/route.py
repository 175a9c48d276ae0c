"""Which source of the mixture a document belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.recipe import batch_stage
from pipelines.schema import with_columns


@dataclass(frozen=True)
class RouteConfig:
    """Inputs that are split by language into `<source>-<lang>`; `other` is the name for languages not listed."""

    sources: tuple[str, ...] = ("web",)
    languages: tuple[str, ...] = ("en", "zh")
    other: str = "other"


@batch_stage()
def route_by_language(docs: pa.RecordBatch, cfg: RouteConfig) -> pa.RecordBatch:
    """Rename the source of rows of `cfg.sources`: "web" and "zh" become "web-zh". Shards and mixture weights use this name."""
    known = pc.is_in(docs["lang"], pa.array(cfg.languages, pa.string()))
    lang = pc.if_else(known, docs["lang"], cfg.other)
    split = pc.is_in(docs["source"], pa.array(cfg.sources, pa.string()))
    return with_columns(
        docs, {"source": pc.if_else(split, pc.binary_join_element_wise(docs["source"], lang, "-"), docs["source"])}
    )
