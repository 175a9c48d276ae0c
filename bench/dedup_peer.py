"""datatrove's MinHash stages in a process of their own: `python -m bench.dedup_peer TEXTS WORK` (see end_to_end.py)."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


def run(texts: Path, work: Path, workers: int) -> dict[str, float]:
    """The four stages over a folder of .jsonl.zst; WORK/kept and WORK/removed hold documents with their cluster's number.

    14 buckets of 8 hashes over 5-grams of words by its English splitter: its defaults. Numbering the clusters and writing the
    removed documents are not, but are all the evidence that it can give. Returns the seconds of each stage.
    """
    files = len(list(texts.glob("*.jsonl.zst")))
    at = {name: str(work / name) for name in ("signatures", "buckets", "remove", "kept", "removed")}
    cfg = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    removed, kept = (JsonlWriter(at[name], compression="zstd") for name in ("removed", "kept"))
    stages: dict[str, tuple[int, list[Any]]] = {
        "sign": (files, [JsonlReader(str(texts)), MinhashDedupSignature(at["signatures"], config=cfg)]),
        "pair": (cfg.num_buckets, [MinhashDedupBuckets(at["signatures"], at["buckets"], config=cfg)]),
        "cluster": (1, [MinhashDedupCluster(at["buckets"], at["remove"], config=cfg, save_cluster_id=True)]),
        "filter": (files, [JsonlReader(str(texts)), MinhashDedupFilter(at["remove"], removed, load_cluster_ids=True), kept]),
    }
    seconds = {}
    for name, (tasks, pipeline) in stages.items():
        start = time.perf_counter()
        logs = str(work / "logs" / name)
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(workers, tasks), logging_dir=logs).run()
        seconds[name] = round(time.perf_counter() - start, 2)
    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.dedup_peer")
    parser.add_argument("texts", type=Path, help="folder of .jsonl.zst files")
    parser.add_argument("work", type=Path, help="an empty folder for all that datatrove writes")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    args = parser.parse_args(argv)
    seconds = run(args.texts, args.work, args.workers)
    (args.work / "seconds.json").write_text(json.dumps(seconds) + "\n")


if __name__ == "__main__":
    main()
