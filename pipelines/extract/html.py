"""The extract stage: pages to text, bounded first by what can be counted, at last by CPU time."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from pipelines.extract.bounds import count_tags, depth
from pipelines.extract.child import ExtractError, Limits, extractor
from pipelines.extract.engines import Engine, Favour
from pipelines.recipe import batch_stage
from pipelines.schema import drop, quarantine, undecided, with_columns


@dataclass(frozen=True)
class ExtractConfig:
    """Engine and bounds. The counted bounds drop a page, by rule; CPU time and memory depend on the machine: quarantine."""

    engine: Engine = "trafilatura"
    favour: Favour = "balanced"
    tables: bool = True
    comments: bool = False  # readers' comments below an article
    rescue: float = (
        0.5  # take the other engine's text where this one finds less than this share of it; 0: where it finds nothing
    )
    max_bytes: int = 10 << 20  # of the page in UTF-8
    max_nodes: int = 100_000  # elements
    max_depth: int = 1_000  # of nesting
    min_chars: int = 1  # of the text
    cpu_seconds: int = 60  # of one page
    memory_bytes: int = 4 << 30  # of the extracting process

    def __post_init__(self) -> None:
        for name, value, known in (
            ("engine", self.engine, ("trafilatura", "resiliparse")),
            ("favour", self.favour, ("precision", "balanced", "recall")),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        if min(self.max_bytes, self.max_nodes, self.max_depth, self.cpu_seconds, self.memory_bytes) < 1:
            raise ValueError("max_bytes, max_nodes, max_depth, cpu_seconds and memory_bytes must be at least 1")
        if not 0 <= self.rescue <= 1:
            raise ValueError(f"rescue is {self.rescue}; it must be between 0 and 1")

    @property
    def limits(self) -> Limits:
        """What the extracting process must know."""
        return Limits(self.engine, self.favour, self.tables, self.comments, self.rescue, self.cpu_seconds, self.memory_bytes)


@batch_stage(version=1, removes=("html",))
def extract(docs: pa.RecordBatch, cfg: ExtractConfig) -> pa.RecordBatch:
    """Set `text` where `html` is set, normalised, and remove `html`; rows that come with text pass.

    Drops: `extract.max_bytes`, `max_nodes`, `max_depth`, `no_text`, each with the measured value and the bound. Quarantines:
    CpuTimeExceeded, MemoryExceeded, ExtractorCrashed, ExtractorFailed.
    """
    texts: list[str | None] = docs["text"].to_pylist()
    pages = docs["html"].cast(pa.large_binary())
    dropped: dict[str, dict[int, float]] = {}
    failed: dict[int, tuple[str, str]] = {}
    run = extractor(cfg.limits)
    for row, open_row in enumerate(undecided(docs).to_pylist()):
        html = pages[row].as_py()
        if html is None or not open_row:
            continue
        broken = over_bounds(html, cfg)
        if broken is not None:
            dropped.setdefault(broken[0], {})[row] = broken[1]
            continue
        try:
            texts[row] = run(html)
        except ExtractError as error:
            failed[row] = (error.args[0], error.args[1])
            continue
        length = len(texts[row] or "")
        if length < max(1, cfg.min_chars):
            texts[row] = None
            dropped.setdefault("no_text", {})[row] = length
    result = with_columns(docs, {"text": texts}).drop_columns(["html"])
    rows = range(docs.num_rows)
    bounds = {
        "max_bytes": cfg.max_bytes,
        "max_nodes": cfg.max_nodes,
        "max_depth": cfg.max_depth,
        "no_text": max(1, cfg.min_chars),
    }
    for rule, values in dropped.items():
        result = drop(
            result, [r in values for r in rows], f"extract.{rule}", [float(values.get(r, 0)) for r in rows], bounds[rule]
        )
    for name in sorted({n for n, _ in failed.values()}):
        chosen = [failed.get(r, ("", ""))[0] == name for r in rows]
        result = quarantine(result, chosen, name, [failed.get(r, ("", ""))[1] for r in rows])
    return result


def over_bounds(html: bytes, cfg: ExtractConfig) -> tuple[str, float] | None:
    """`(rule, value)` of the first bound that the page breaks, None if none."""
    if len(html) > cfg.max_bytes:
        return "max_bytes", len(html)
    nodes, deepest = count_tags(html)
    if nodes > cfg.max_nodes:
        return "max_nodes", nodes
    if deepest > cfg.max_depth and (exact := depth(html, cfg.max_depth + 1)) > cfg.max_depth:
        return "max_depth", exact
    return None
