"""MinHash signatures: speed against datatrove, datasketch and rensa; near-duplicate pairs against exact Jaccard values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.common import About, Row, installed, interleave, quiet_datatrove, row, run_bench, sample, speed_rows, version
from bench.corpus import jsonl, texts
from pipelines.dedup.minhash import MinhashConfig, bands, signatures
from pipelines.dedup.near import NearConfig
from pipelines.dedup.shingles import jaccard, shingle_sets

ABOUT = About(
    title="Deduplication",
    compared=(
        "`signature`: text in, signature of 14 x 8 values over word 5-grams out, splitting and hashing included: ours "
        "(signatures and band keys; character 5-grams where a script has no blanks), datatrove (get_shingles, "
        "get_signature; words by spaCy), datasketch (MinHash.update a word 5-gram at a time, as its documentation does) "
        "and rensa (RMinHash.update of the list of 5-grams). `pairs`: pairs of real revisions with known exact Jaccard "
        "similarity; one counts as found where a band is shared (ours also verifies the exact similarity, its stage does "
        "so against the survivor), and should be found at .75 or above. Clustering and removal are not in this table; "
        "`bench.crawl` measures the whole way."
    ),
    peers=("datatrove", "spacy", "datasketch", "rensa", "xxhash"),
)
_WORD = re.compile(r"\w+")
REPEAT = 3


def grams(text: str, ngram: int) -> Iterator[str]:
    """Word n-grams as the documentation of datasketch and rensa makes them."""
    words = _WORD.findall(text.lower())
    for i in range(max(1, len(words) - ngram + 1)):
        yield " ".join(words[i : i + ngram])


def datatrove_signer(cfg: MinhashConfig) -> Callable[[str], Any]:
    """Text to its list of band tuples; empty for a text without shingles."""
    import tempfile

    from datatrove.pipeline.dedup.minhash import MinhashConfig as PeerConfig
    from datatrove.pipeline.dedup.minhash import MinhashDedupSignature

    quiet_datatrove()
    peer = PeerConfig(n_grams=cfg.ngram, num_buckets=cfg.bands, hashes_per_bucket=cfg.rows)
    step = MinhashDedupSignature(tempfile.gettempdir(), config=peer)

    def sign(text: str) -> list[tuple[int, ...]]:
        shingles = step.get_shingles(text)
        return [tuple(band) for band in step.get_signature(shingles)] if shingles.size else []

    return sign


def contestants(cfg: MinhashConfig, documents: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Ours first, then the peers that are installed."""
    column, hashes = pa.array(documents), cfg.bands * cfg.rows
    found: dict[str, Callable[[], Any]] = {"ours": lambda: bands(signatures(column, cfg), cfg)}
    if installed("datatrove", "spacy"):
        sign = datatrove_signer(cfg)
        found[version("datatrove")] = lambda: [sign(text) for text in documents]
    if installed("datasketch"):
        from datasketch import MinHash

        def sketch(text: str) -> Any:
            made = MinHash(hashes)
            for gram in grams(text, cfg.ngram):
                made.update(gram.encode())
            return made.hashvalues

        found[version("datasketch")] = lambda: [sketch(text) for text in documents]
    if installed("rensa"):
        from rensa import RMinHash

        def rensa(text: str) -> Any:
            made = RMinHash(num_perm=hashes, seed=1)
            made.update(list(grams(text, cfg.ngram)))
            return made.digest()

        found[version("rensa")] = lambda: [rensa(text) for text in documents]
    return found


def speed(documents: Sequence[str], repeat: int) -> list[Row]:
    """Documents and megabytes a second."""
    cfg = MinhashConfig()
    for run in contestants(cfg, documents[:3]).values():
        run()
    seconds, _ = interleave(contestants(cfg, documents), repeat)
    megabytes = sum(len(t.encode()) for t in documents) / 1e6
    return [
        *speed_rows("signature", "docs/s", len(documents), seconds, "ours"),
        *speed_rows("signature, bytes", "MB/s", megabytes, seconds, "ours"),
    ]


def pairs(data: Path) -> list[Row]:
    """Recall and precision of the pairs found, at the threshold of the near-duplicate stage."""
    cfg = NearConfig()
    texts_by_id = {d["id"]: d["text"] for d in jsonl(data / "neardup.jsonl.gz")}
    known = list(jsonl(data / "neardup_pairs.jsonl.gz"))
    place = {name: i for i, name in enumerate(texts_by_id)}
    column = pa.array(list(texts_by_id.values()))
    keys, sets = bands(signatures(column, cfg.minhash), cfg.minhash), shingle_sets(column, cfg.minhash.ngram)
    wanted = np.array([p["jaccard"] >= cfg.threshold for p in known])
    ends = [(place[p["a"]], place[p["b"]]) for p in known]
    shared = np.array([bool((keys[a] == keys[b]).any()) for a, b in ends])
    exact = np.array([jaccard(sets[a], sets[b]) for a, b in ends])
    error = float(np.abs(exact - np.array([p["jaccard"] for p in known])).mean())
    theirs: tuple[float | None, float | None, str | None] = (None, None, None)
    if installed("datatrove", "spacy"):
        sign = datatrove_signer(cfg.minhash)
        signed = [sign(text) for text in texts_by_id.values()]
        met = np.array([any(map(tuple.__eq__, signed[a], signed[b])) for a, b in ends])
        theirs = (*_scores(met, wanted), version("datatrove"))
    recall, precision = _scores(shared & (exact >= cfg.threshold), wanted)
    unit = f"share, {len(known)} pairs"
    return [
        row(f"pairs recall at {cfg.threshold}", unit, recall, theirs[0], theirs[2]),
        row(f"pairs precision at {cfg.threshold}", unit, precision, theirs[1], theirs[2]),
        row("pairs, error of the verified similarity", "mean, absolute", error, None, None, better="lower"),
    ]


def _scores(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    hits = int((found & wanted).sum())
    return hits / max(int(wanted.sum()), 1), hits / max(int(found.sum()), 1)


def run(data: Path, limit: int = 200, repeat: int = REPEAT) -> list[Row]:
    """All rows. `limit`: of texts, taken evenly."""
    every = [text for text, _ in texts(data)]
    found = speed(sample(every, limit), repeat)
    return found + (pairs(data) if (data / "neardup_pairs.jsonl.gz").is_file() else [])


if __name__ == "__main__":
    run_bench("dedup", ABOUT, run)
