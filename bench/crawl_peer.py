"""datatrove's own pipeline over a crawl, in a process of its own: `python -m bench.crawl_peer CRAWL WORK` (see crawl.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import magic
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers import JsonlWriter


class Reader(WarcReader):
    """datatrove's reader, but a body with an html tag near its beginning is HTML.

    Where the WARC names no payload type the reader asks libmagic, and some of its versions take real pages for JavaScript:
    without this the peer would lose 1 page in 13, by the version of a system library.
    """

    def read_file(self, filepath: str) -> Iterator[Any]:
        """The documents of one file."""
        guess = magic.from_buffer

        def from_buffer(body: bytes, mime: bool = False) -> str:
            head = body[:4096].lower()
            return "text/html" if b"<html" in head or b"<!doctype html" in head else str(guess(body, mime=mime))

        with patch("magic.from_buffer", from_buffer):
            yield from super().read_file(filepath)


def run(crawl: Path, work: Path) -> None:
    """datatrove over the WARC files of a folder, two workers; what it keeps lies in `work`/kept."""
    files = len(list(crawl.glob("*.warc.gz")))
    at = {name: str(work / name) for name in ("text", "signatures", "buckets", "remove", "kept")}
    cfg = MinhashConfig()
    steps: dict[str, tuple[int, list[Any]]] = {
        "extract": (
            files,
            [Reader(str(crawl), glob_pattern="*.warc.gz"), Trafilatura(timeout=10), JsonlWriter(at["text"])],
        ),
        "sign": (files, [JsonlReader(at["text"]), MinhashDedupSignature(at["signatures"], config=cfg)]),
        "pair": (cfg.num_buckets, [MinhashDedupBuckets(at["signatures"], at["buckets"], config=cfg)]),
        "cluster": (1, [MinhashDedupCluster(at["buckets"], at["remove"], config=cfg)]),
        "filter": (files, [JsonlReader(at["text"]), MinhashDedupFilter(at["remove"]), JsonlWriter(at["kept"])]),
    }
    for name, (tasks, pipeline) in steps.items():
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(2, tasks), logging_dir=str(work / "logs" / name)).run()


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
