"""Which documents of a candidate component go: exact similarity with the document that stays (pure: no Spark)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.dedup.shingles import Hashes, jaccard, shingle_sets

EVIDENCE = pa.schema([("doc_id", pa.binary()), ("survivor", pa.binary()), ("jaccard", pa.float64())])


@dataclass
class _Component:
    """What is known of the documents seen so far, best first: those that stay, and for those that go, of what."""

    place: dict[bytes, int] = field(default_factory=dict)
    kept: dict[bytes, Hashes] = field(default_factory=dict)
    survivor: dict[bytes, bytes] = field(default_factory=dict)

    def decide(self, doc: bytes, shingles: Hashes, neighbours: list[bytes], threshold: float) -> tuple[bytes, float] | None:
        """The best kept document among `neighbours` and their survivors that is at least `threshold` alike, with the value."""
        targets = {self.survivor.get(n, n) for n in neighbours}
        for target in sorted(targets, key=self.place.__getitem__):
            other = self.kept[target]
            if min(len(shingles), len(other)) < threshold * max(len(shingles), len(other)):
                continue  # the sizes alone rule it out
            value = jaccard(shingles, other)
            if value >= threshold:
                return target, value
        return None


def verify(batches: Iterable[pa.RecordBatch], threshold: float, ngram: int) -> Iterator[pa.RecordBatch]:
    """For each document that goes: its survivor and their exact Jaccard similarity, at least `threshold` (schema EVIDENCE).

    Columns: `component`, `doc_id`, `text`, `neighbours` (candidates of better order), `is_neighbour` (of a later one). Rows
    come by component, and within one best first. A document goes only as the duplicate of one that stays: this is a cover by
    stars, so that a chain a-b-c never removes c for b's sake where c is not like a. Memory: the shingles of the kept
    documents of one component that have candidates.
    """
    current: bytes | None = None
    state = _Component()
    for batch in batches:
        found: list[tuple[bytes, bytes, float]] = []
        columns = [batch.column(name).to_pylist() for name in ("component", "doc_id", "neighbours", "is_neighbour")]
        sets = shingle_sets(batch.column("text"), ngram)
        for component, doc, neighbours, is_neighbour, shingles in zip(*columns, sets, strict=True):
            if component != current:
                current, state = component, _Component()
            if doc in state.place:
                continue  # the same row once more: its first decides
            state.place[doc] = len(state.place)
            verdict = state.decide(doc, shingles, neighbours, threshold)
            if verdict:
                state.survivor[doc] = verdict[0]
                found.append((doc, *verdict))
            elif is_neighbour:
                state.kept[doc] = shingles
        if found:
            yield pa.RecordBatch.from_arrays(
                [pa.array(c, f.type) for c, f in zip(zip(*found, strict=True), EVIDENCE, strict=True)], schema=EVIDENCE
            )
