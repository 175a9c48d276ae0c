"""Which documents of a candidate component go: exact similarity with the document that stays (pure: no Spark)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from pipelines.dedup.shingles import Hashes, Unit, containment, jaccard_at_least, shingle_sets

Measure = Literal["jaccard", "containment"]
Linkage = Literal["star", "complete"]

# Pairs that are alike: `other` is before `doc_id` in the survivor order; `survivor` marks it as the one for which doc_id goes.
EVIDENCE = pa.schema([("doc_id", pa.binary()), ("other", pa.binary()), ("similarity", pa.float64()), ("survivor", pa.bool_())])
COVER_NGRAM = 3  # of the stricter rule: each run of three units of the removed text is in the survivor's


@dataclass(frozen=True)
class Rule:
    """When two documents are alike, and when one of them may go."""

    threshold: float
    ngram: int
    unit: Unit = "auto"
    measure: Measure = "jaccard"
    covered: bool = False
    linkage: Linkage = "star"
    complete: int = 64  # so many of a component are compared each with each

    def likeness(self) -> Callable[[Hashes, Hashes], float]:
        """The similarity of two sets of shingles; 0 where it is below the threshold."""
        if self.measure == "jaccard":
            return lambda a, b: jaccard_at_least(a, b, self.threshold)
        return lambda a, b: value if (value := containment(a, b)) >= self.threshold else 0.0


@dataclass(frozen=True)
class _Document:
    doc_id: bytes
    shingles: Hashes
    cover: Hashes | None


@dataclass
class _Component:
    """What is known of the documents seen so far, best first: those that may still be compared, and who went for whom."""

    size: int = 0
    seen: set[bytes] = field(default_factory=set)
    held: dict[int, _Document] = field(default_factory=dict)
    survivor: dict[int, int] = field(default_factory=dict)
    gone: dict[int, list[int]] = field(default_factory=dict)  # of a survivor: who went for it and is still held

    def targets(self, neighbours: list[int], complete: int) -> Iterable[int]:
        """The documents to compare the next one with, best first: all at first, then its neighbours and their survivors."""
        if self.size <= complete:
            return self.held  # in the order in which they came
        return sorted({t for n in neighbours for t in (n, self.survivor.get(n, n)) if t in self.held})

    def goes_for(self, document: _Document, alike: dict[int, float], rule: Rule) -> int | None:
        """The kept document that is most like it, the better one of equals; None where it stays."""
        likeness = rule.likeness()
        best = None
        for target, value in alike.items():
            if target in self.survivor or (best is not None and value <= alike[best]):
                continue
            others = self.gone.get(target, []) if rule.linkage == "complete" else []
            fits = all(o in alike or likeness(document.shingles, self.held[o].shingles) for o in others)
            if fits and _covered(document, self.held[target]):
                best = target
        return best


def verify(batches: Iterable[pa.RecordBatch], rule: Rule) -> Iterator[pa.RecordBatch]:
    """The pairs found alike (schema EVIDENCE); for each document that goes, one of them is with its survivor.

    Columns: `component`, `rank`, `doc_id`, `text`, `neighbours` (ranks of candidates of better order, or null),
    `is_neighbour` (of a later one). Rows come by component, and within one best (least rank) first. A document goes only
    as the duplicate of one that stays, of those that are at least the threshold alike the most alike one: a cover by stars, so
    that a chain a-b-c never removes c for b's sake where c is not like a. With `linkage="complete"` it must be as much like all
    that went for the same one. The first `complete` of a component are compared each with each, later ones with their
    candidates and those candidates' survivors. Memory: the shingles of the first `complete` documents of one component, and of
    those kept that have later candidates.
    """
    current: int | None = None
    state = _Component()
    likeness = rule.likeness()
    for batch in batches:
        found: list[tuple[bytes, bytes, float, bool]] = []
        names = ("component", "rank", "doc_id", "neighbours", "is_neighbour")
        columns = [batch.column(name).to_pylist() for name in names]
        sets = shingle_sets(batch.column("text"), rule.ngram, rule.unit)
        covers = shingle_sets(batch.column("text"), COVER_NGRAM, rule.unit) if rule.covered else [None] * len(sets)
        for component, rank, doc_id, neighbours, is_neighbour, *of_text in zip(*columns, sets, covers, strict=True):
            if component != current:
                current, state = component, _Component()
            if doc_id in state.seen:
                continue  # the same row once more: its first decides
            state.seen.add(doc_id)
            document = _Document(doc_id, *of_text)
            state.size += 1
            targets = state.targets(neighbours or [], rule.complete)
            alike = {t: value for t in targets if (value := likeness(document.shingles, state.held[t].shingles))}
            survivor = state.goes_for(document, alike, rule)
            found += [(doc_id, state.held[t].doc_id, value, t == survivor) for t, value in alike.items()]
            hold = state.size <= rule.complete or (is_neighbour and survivor is None)
            if hold:
                state.held[rank] = document
            if survivor is not None:
                state.survivor[rank] = survivor
                if hold:
                    state.gone.setdefault(survivor, []).append(rank)
        if found:
            yield pa.RecordBatch.from_arrays(
                [pa.array(c, f.type) for c, f in zip(zip(*found, strict=True), EVIDENCE, strict=True)], schema=EVIDENCE
            )


def _covered(document: _Document, other: _Document) -> bool:
    """Whether all of the document is in the other, where the rule asks for it."""
    if document.cover is None or other.cover is None:
        return True
    return len(document.cover) <= len(other.cover) and containment(document.cover, other.cover) == 1.0
