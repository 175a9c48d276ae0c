"""Decontamination: questions of evaluation sets that were set into real texts; precision, recall, speed; against datatrove."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.common import About, Row, installed, interleave, quiet_datatrove, row, run_bench, speed_rows, version
from bench.corpus import jsonl
from pipelines.decontaminate import DecontaminateConfig, decontaminate

ABOUT = About(
    title="Decontamination",
    compared=(
        "Documents with questions of GSM8K and AGIEval set into them verbatim, with choices or answer, reformatted, or by "
        "half; and look-alikes: six words of a question, questions of the training set, nothing. Those that may count either "
        "way do not count. datatrove: its filter with the questions as the index, one n-gram in common being enough, n-grams "
        "of 12 words (its default) and an English word splitter. Ours was set on these documents, datatrove's is as it comes."
    ),
    peers=("datatrove",),
)
REPEAT = 3


def peer_filter(questions: Sequence[str]) -> Any:
    """datatrove's filter over an index of the questions."""
    from datatrove.pipeline.decont.n_grams import NGramsDecontFilter, NGramsDecontIndexer

    quiet_datatrove()
    made = NGramsDecontFilter(".")
    made._index_hashes = {h: "items" for q in questions for h in NGramsDecontIndexer.compute_hashes(made, q)}
    return made


def scores(found: Sequence[bool], truth: Sequence[bool | None]) -> tuple[float, float, float]:
    """(precision, recall, F1); a truth of None counts neither way."""
    hits = sum(f for f, t in zip(found, truth, strict=True) if t)
    wrong = sum(f for f, t in zip(found, truth, strict=True) if t is False)
    missed = sum(t is True for t in truth) - hits
    return hits / max(hits + wrong, 1), hits / max(hits + missed, 1), 2 * hits / max(2 * hits + wrong + missed, 1)


def run(data: Path, repeat: int = REPEAT) -> list[Row]:
    """All rows; none without the data set."""
    items, texts = data / "bench" / "items.jsonl.gz", data / "bench" / "contamination.jsonl.gz"
    if not texts.is_file():
        return []
    documents = list(jsonl(texts))
    cfg = DecontaminateConfig((str(items),))
    batch = pa.RecordBatch.from_pydict({"text": [d["text"] for d in documents]})
    contestants: dict[str, Any] = {"ours": lambda: decontaminate(batch, cfg)["drop_rule"].is_valid().to_pylist()}
    if installed("datatrove"):
        from datatrove.data import Document

        peer = peer_filter([item["question"] for item in jsonl(items)])
        contestants[version("datatrove")] = lambda: [
            peer.filter(Document(text=d["text"], id=d["id"])) is not True for d in documents
        ]
    decontaminate(batch.slice(0, 3), cfg)
    seconds, found = interleave(contestants, repeat)
    truth = [d["contaminated"] for d in documents]
    theirs = next((name for name in found if name != "ours"), None)
    ours, peers = scores(found["ours"], truth), scores(found[theirs], truth) if theirs else (None, None, None)
    unit = f"{sum(t is not None for t in truth)} documents"
    rows = [row(name, unit, a, b, theirs) for name, a, b in zip(("precision", "recall", "F1"), ours, peers, strict=True)]
    return rows + speed_rows("speed", "docs/s", len(documents), seconds, "ours")


if __name__ == "__main__":
    run_bench("decontaminate", ABOUT, run)
