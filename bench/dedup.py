"""Signatures, planted duplicates from end to end, and real revisions: against datatrove, datasketch and rensa.

python -m bench.dedup --data DATA; with --documents 5000 in minutes, with --scale at ten times the documents too.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench import gold, needs
from bench.common import (
    EXAMPLES,
    RESULTS,
    About,
    Row,
    installed,
    interleave,
    machine,
    one_core,
    publish,
    quiet_datatrove,
    sample,
    shown,
    speed_rows,
    version,
)
from bench.corpus import texts
from bench.end_to_end import end_to_end, scale
from bench.planted import cores
from pipelines.dedup.minhash import MinhashConfig, bands, signatures

ABOUT = About(
    title="Deduplication",
    compared=(
        "`signature`: one core, text in, signature of 14 x 8 values over word 5-grams out, splitting and hashing included: "
        "ours (signatures and band keys; character 5-grams where a script has no blanks), datatrove (get_shingles, "
        "get_signature; words by spaCy), datasketch (MinHash.update_batch of the word 5-grams) and "
        "rensa (RMinHash.update of the list of 5-grams). `end to end`: two cores, seconds that pass, from compressed JSON "
        "lines to clean documents and evidence, start-up included: `python -m pipelines run bench/dedup_recipe.py:planted` "
        "(near duplicates only, not measured for the report, 4 GB for the JVM) and datatrove's four stages with its defaults, "
        "cluster numbers and an exclusion writer, two workers; the documents are put together from real sentences, the "
        "duplicates planted (bench/planted.py says how). `planted`: what became of these, by exact similarity; the survivor "
        "is the document for "
        "which another went, with datatrove the one kept of its cluster. `gold`: real revision histories, each language by "
        "itself; bench/gold.py defines the figures; datasketch and datatrove take what a chain of found pairs connects for "
        "one cluster. There ours keeps the first of a history, as datasketch does, an order chosen after seven were tried on "
        "these texts; the rows `longest first` are what our default order gives. `scale` (with --scale only): ours at ten "
        "times the documents; the driver alone is measured with the "
        "executor in a JVM of its own."
    ),
    peers=("datatrove", "spacy", "datasketch", "rensa", "xxhash", "pyspark"),
)
WORK = EXAMPLES.parent / "out" / "bench-dedup"
DOCUMENTS = 100_000
PARTS = ("signature", "planted", "gold")
_WORD = re.compile(r"\w+")
REPEAT = 3
PASSES = 10  # of ours in a repetition: one alone is too short for the clock


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
    found: dict[str, Callable[[], Any]] = {"ours": lambda: [bands(signatures(column, cfg), cfg) for _ in range(PASSES)]}
    if installed("datatrove", "spacy"):
        sign = datatrove_signer(cfg)
        found[version("datatrove")] = lambda: [sign(text) for text in documents]
    if installed("datasketch"):
        from datasketch import MinHash

        def sketch(text: str) -> Any:
            made = MinHash(hashes)
            made.update_batch([gram.encode() for gram in grams(text, cfg.ngram)])
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
    seconds["ours"] /= PASSES
    megabytes = sum(len(t.encode()) for t in documents) / 1e6
    return [
        *speed_rows("signature", "docs/s", len(documents), seconds, "ours"),
        *speed_rows("signature, bytes", "MB/s", megabytes, seconds, "ours"),
    ]


def signature(data: Path, limit: int = 200, repeat: int = REPEAT) -> list[Row]:
    """The rows of the signatures. `limit`: of texts, taken evenly."""
    return speed(sample([text for text, _ in texts(data)], limit), repeat)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.dedup", description=ABOUT.compared)
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder of the data sets; without it examples/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write results to")
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help=f"planted ones (default {DOCUMENTS:,})")
    parser.add_argument("--scale", action="store_true", help="measure ten times the documents too (disk: 10 GB a million)")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part, and those named likewise; all without")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for texts and runs, kept for the next time")
    args = parser.parse_args(argv)
    before, start, parts = machine(), time.perf_counter(), args.only or PARTS
    rows, about, every = list[Row](), ABOUT, cores()
    if "signature" in parts:
        one_core()
        rows += signature(args.data)
    hold(every[-2:])  # and all processes that follow, theirs and ours
    if "planted" in parts:
        args.work.mkdir(parents=True, exist_ok=True)
        found, small = end_to_end(args.data, args.documents, args.work.resolve())
        rows, measured, growth = rows + found, small.constants, None
        if args.scale:
            found, large = scale(args.data, args.documents, args.work.resolve(), small)
            growth = large.constants.task_seconds / small.constants.task_seconds
            rows, measured = rows + found, large.constants
        rows += needs.rows(measured)
        about = replace(ABOUT, compared=f"{ABOUT.compared} {needs.told(measured, growth)}")
        print(needs.told(measured, growth))
    if "gold" in parts and (args.data / "neardup_pairs.jsonl.gz").is_file():
        rows += gold.run(args.data)
    hold(every)
    publish("dedup", about, rows, before, _command(args), args.results, start)


def hold(some: Sequence[int]) -> None:
    """Hold this process, and those it starts, on these cores (Linux)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, some)


def _command(args: argparse.Namespace) -> str:
    words = ["make", "bench-dedup", f"DATA={shown(args.data)}"]
    if args.scale or args.only or args.documents != DOCUMENTS:
        words = ["python", "-m", "bench.dedup", "--data", shown(args.data), "--documents", str(args.documents)]
        words += ["--scale"] * args.scale + [w for part in args.only or () for w in ("--only", part)]
    return shlex.join(words)


if __name__ == "__main__":
    main()
