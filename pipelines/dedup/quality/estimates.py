"""How good near-duplicate removal was: exact similarity of all pairs of a sample against what was found (pure: no Spark).

    sample of what the stage saw -> all pairs down to `floor` -> per band: found by the index, gone; per removed: its survivor

**Estimates.** The sample (sample.py) holds a pair of similarity s with the probability s/M + (1 - s)/M^2 for M classes, so each
pair counts with the inverse of it (Horvitz and Thompson 1952): a plain share would lean towards the upper end of its band.
Where documents of one least shingle were cut to a bound, the inverse of that share counts too. What is left is the bias of a
ratio of two estimated sums, of the order of 1 over the effective number. The least shingle is not that of any band, so whether
a pair is drawn says nothing of whether the index found it, once its similarity is known.

**Intervals.** Wilson (1927) at 95 %, over the effective number of pairs (Kish 1965): documents that share a least shingle came
together and stand or fall together, so the weight of such a group counts as one observation: (sum of W)^2 / sum of W^2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dedup.minhash import bands, hit_probability, signatures
from pipelines.dedup.quality.allpairs import Pairs, TooMany, similar_pairs
from pipelines.dedup.quality.sample import Bounds
from pipelines.dedup.shingles import Hashes, containment, jaccard, shingle_sets
from pipelines.kernel import kernel

if TYPE_CHECKING:
    from pipelines.dedup.near import NearConfig

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

EDGES = (0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)  # of the bands; the stage's threshold is one too
SHOWN_CHARS = 20_000  # kept of the texts that the report compares
_Z = 1.96


@dataclass(frozen=True)
class QualityConfig:
    """`floor`: least similarity of the pairs that are looked at. `alarm`: share of a source, or of a host of more than
    `host_documents`, above which its removal is an alarm. `checked`: removed documents held against their survivors at most.
    `shown`: pairs for the report. `sample`: what is drawn; of 0 documents: nothing is measured."""

    floor: float = 0.4
    alarm: float = 0.9
    host_documents: int = 100
    checked: int = 2_000
    shown: int = 8
    sample: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        for name in ("floor", "alarm"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in (0, 1]")
        for name in ("host_documents", "checked", "shown"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")


@dataclass(frozen=True)
class Share:
    """An estimated share with its interval; `number` is the effective number behind it, `share` None where there is nothing."""

    share: float | None
    low: float
    high: float
    number: float


@dataclass(frozen=True)
class Band:
    """Pairs of similarity [`low`, `high`) (the last: up to 1): of the sample, and estimated for the corpus; their mean
    similarity; the share with a common LSH band, and what theory gives for the same pairs; the share not both kept."""

    low: float
    high: float
    pairs: int
    estimated: float
    similarity: float
    shared: Share
    predicted: float
    gone: Share


def wilson(share: float, number: float) -> tuple[float, float]:
    """The 95 % interval of a share of `number` observations."""
    if number <= 0:
        return 0.0, 1.0
    middle, square = share + _Z**2 / (2 * number), 1 + _Z**2 / number
    half = _Z * (share * (1 - share) / number + _Z**2 / (4 * number**2)) ** 0.5
    return max(0.0, (middle - half) / square), min(1.0, (middle + half) / square)


def weighted_share(hit: Flags, weight: Floats, group: npt.NDArray[np.int64]) -> Share:
    """The share of the weight that hits; `group`: what was drawn together. Shapes (n,)."""
    if not len(hit):
        return Share(None, 0.0, 1.0, 0.0)
    _, inverse = np.unique(group, return_inverse=True)
    sums, total = np.bincount(inverse, weight), float(weight.sum())
    share, number = float(weight[hit].sum()) / total, total**2 / float((sums**2).sum())
    share = min(max(share, 0.0), 1.0)
    low, high = wilson(share, number)
    return Share(share, min(low, share), max(high, share), number)


@dataclass(frozen=True)
class Sampled:
    """The sample with the exact similarities in it: one row a document, `alone`: the weight of one, `weight`: of a pair."""

    rows: pa.Table
    classes: int
    sets: list[Hashes]
    value: npt.NDArray[np.int64]
    alone: Floats
    removed: Flags
    pairs: Pairs
    weight: Floats
    group: npt.NDArray[np.int64]


def all_pairs(sample: pa.Table, stage: NearConfig, cfg: QualityConfig) -> Sampled:
    """The pairs of a sample (schema SAMPLE). Where they are too many, the classes are doubled until they are not."""
    classes = pc.max(sample["classes"]).as_py() or 1
    rows = sample.filter(pc.is_valid(sample["doc_id"])).combine_chunks()
    sets = shingle_sets(_whole(rows["text"]), stage.minhash.ngram, stage.minhash.unit)
    while True:
        value = rows["value"].to_numpy()
        try:
            pairs = similar_pairs(sets, cfg.floor)
            break
        except TooMany:
            classes *= 2
            stay = value & (classes - 1) == 0
            rows = rows.filter(pa.array(stay)).combine_chunks()
            sets = [s for s, stays in zip(sets, stay.tolist(), strict=True) if stays]
    _, inverse, held = np.unique(value, return_inverse=True, return_counts=True)
    members = np.bincount(inverse, rows["members"].to_numpy()) if len(value) else np.empty(0)
    part, of_pair = held / members, (held * (held - 1)) / np.maximum(members * (members - 1), 1)
    a, b, s = pairs.a, pairs.b, pairs.similarity
    drawn = np.where(value[a] == value[b], of_pair[inverse[a]], part[inverse[a]] * part[inverse[b]])
    weight = 1 / ((s / classes + (1 - s) / classes**2) * drawn)
    group = np.minimum(value[a], value[b])
    removed = np.asarray(rows["duplicate_of"].is_valid())
    return Sampled(rows, classes, sets, value, classes / part[inverse], removed, pairs, weight, group)


def by_band(found: Sampled, stage: NearConfig, cfg: QualityConfig) -> list[Band]:
    """The bands of similarity from the floor up; one without pairs is left out."""
    a, b, similarity = found.pairs.a, found.pairs.b, found.pairs.similarity
    keys = bands(signatures(_whole(found.rows["text"]), stage.minhash), stage.minhash)
    shared, gone = np.empty(len(a), np.bool_), found.removed[a] | found.removed[b]
    _share_a_key(keys, a, b, shared)
    predicted = np.array([hit_probability(s, stage.minhash) for s in similarity.tolist()])
    result = []
    edges = sorted({cfg.floor, *(e for e in (*EDGES, stage.threshold) if e > cfg.floor)})
    for low, high in pairwise(edges if edges[-1] == 1 else [*edges, 1.0]):
        inside = (similarity >= low) & ((similarity < high) | (high == 1))
        if not inside.any():
            continue
        weight, group = found.weight[inside], found.group[inside]
        result.append(
            Band(
                low,
                high,
                int(inside.sum()),
                float(weight.sum()),
                float(np.average(similarity[inside], weights=weight)),
                weighted_share(shared[inside], weight, group),
                float(np.average(predicted[inside], weights=weight)),
                weighted_share(gone[inside], weight, group),
            )
        )
    return result


def recall(found: Sampled, stage: NearConfig) -> dict[str, Any]:
    """Of the pairs at or over the threshold, the share of which not both were kept; and how many were, by estimate."""
    over = found.pairs.similarity >= stage.threshold
    gone = found.removed[found.pairs.a] | found.removed[found.pairs.b]
    share = weighted_share(gone[over], found.weight[over], found.group[over])
    missed = over & ~gone
    return {
        "share": share,
        "pairs": int(over.sum()),
        "missed": int(missed.sum()),
        "estimated": float(found.weight[missed].sum()),
    }


def to_check(found: Sampled, cfg: QualityConfig) -> list[int]:
    """The removed documents of the sample (rows) to hold against their survivors: all, or those of least doc_id."""
    rows = np.flatnonzero(found.removed).tolist()
    ids = found.rows["doc_id"].to_pylist()
    return sorted(rows, key=lambda row: ids[row])[: cfg.checked]


def precision(found: Sampled, checked: list[int], texts: Mapping[bytes, str], stage: NearConfig) -> dict[str, Any]:
    """Of removed documents (rows of the sample), the share that is as like its survivor as the threshold asks, computed anew.

    `texts`: of the survivors. `differs`: those whose stored similarity is another; `unknown`: whose survivor is not in `texts`.
    `least`: the lowest similarity seen; `similarity`: of each, by row.
    """
    measure = jaccard if stage.measure == "jaccard" else containment
    survivor = found.rows["duplicate_of"].take(checked).to_pylist() if checked else []
    known = [(row, texts[s]) for row, s in zip(checked, survivor, strict=True) if s in texts]
    others = shingle_sets(pa.array([text for _, text in known], pa.large_string()), stage.minhash.ngram, stage.minhash.unit)
    similarity = {row: measure(found.sets[row], other) for (row, _), other in zip(known, others, strict=True)}
    rows = np.array(list(similarity), np.int64)
    values = np.array(list(similarity.values()), np.float64)
    stored = found.rows["drop_value"].take(rows).to_numpy(zero_copy_only=False) if len(rows) else values
    right = values >= stage.threshold
    return {
        "share": weighted_share(right, found.alone[rows], found.value[rows]),
        "checked": len(rows),
        "below": int((~right).sum()),
        "least": float(values.min()) if len(values) else None,
        "differs": int((np.abs(values - stored) > 1e-9).sum()),
        "unknown": len(checked) - len(known),
        "similarity": similarity,
    }


def examples(
    found: Sampled,
    similarity: Mapping[int, float],
    survivors: Mapping[bytes, dict[str, Any]],
    stage: NearConfig,
    cfg: QualityConfig,
) -> dict[str, list[dict[str, Any]]]:
    """Pairs for a person: removed documents and survivors over the range of similarity, and pairs that were both kept."""
    ids, of = (found.rows[name].to_pylist() for name in ("doc_id", "duplicate_of"))
    slots: dict[int, int] = {}
    for row in sorted(similarity, key=lambda row: ids[row]):
        width = (1 - stage.threshold) / max(cfg.shown, 1) or 1.0
        slots.setdefault(min(int((similarity[row] - stage.threshold) / width), cfg.shown - 1), row)
    removed = [
        {
            "similarity": similarity[row],
            "left": _document(found.rows, row),
            "right": _shown(survivors[of[row]]),
        }
        for row in sorted(slots.values(), key=lambda row: (similarity[row], ids[row]))[: cfg.shown]
    ]
    a, b, s = found.pairs.a, found.pairs.b, found.pairs.similarity
    both_kept = np.flatnonzero((s >= stage.threshold) & ~found.removed[a] & ~found.removed[b])
    chosen = sorted(both_kept.tolist(), key=lambda k: (ids[a[k]], ids[b[k]]))[: max(cfg.shown // 2, 1)] if cfg.shown else []
    missed = [
        {"similarity": float(s[k]), "left": _document(found.rows, int(a[k])), "right": _document(found.rows, int(b[k]))}
        for k in sorted(chosen, key=lambda k: s[k])
    ]
    return {"removed": removed, "missed": missed}


def _document(rows: pa.Table, row: int) -> dict[str, Any]:
    return _shown({name: rows[name][row].as_py() for name in ("doc_id", "source", "url", "lang", "text")})


def _shown(document: dict[str, Any]) -> dict[str, Any]:
    text = document["text"]
    cut = {"text": text[:SHOWN_CHARS], "text_chars": len(text), "doc_id": document["doc_id"].hex()}
    return document | cut


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.cast(pa.large_string()).combine_chunks()


@kernel
def _share_a_key(
    keys: npt.NDArray[np.int64], a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], shared: npt.NDArray[np.bool_]
) -> None:
    for pair in range(len(a)):
        shared[pair] = False
        for band in range(keys.shape[1]):
            if keys[a[pair], band] == keys[b[pair], band]:
                shared[pair] = True
                break
