"""Heuristic filters: ours against datatrove's four on the same texts: speed, growth, parity; language (bench/language.py)."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench import language, parity
from bench.common import (
    RESULTS,
    About,
    Row,
    installed,
    interleave,
    quiet_datatrove,
    row,
    run_bench,
    sample,
    speed_rows,
    version,
)
from bench.corpus import every_text, texts
from pipelines.filter.lines import C4LinesConfig, c4_lines
from pipelines.filter.measures import DIALECTS, MEASURES, MeasureConfig, measure
from pipelines.filter.rules import C4, FineWeb, GopherQuality, GopherRepetition, RulesConfig, WebPage, decide
from pipelines.schema import undecided

ABOUT = About(
    title="Filters",
    compared=(
        "`all measures`: every measure of every set and dialect (ours, datatrove, DCLM, dolma, NeMo, RedPajama-v2) from Arrow "
        "to Arrow, against datatrove's Gopher repetition, Gopher quality, C4 and FineWeb filters, each asked about each text "
        "(English, words by spaCy's blank pipeline, which needs no download). `four sets`: the same four sets decided by ours "
        "(c4_lines, measure, decide; our own web_page set included) against the four filters each asked, and `chain` against "
        "them in the order of its FineWeb example, a dropped text asked no further, while ours always measures all. `growth`: "
        "CPU time a byte for one document of 10 MB over that of documents of 1 kB of the same text (1 is linear). `same "
        "decision`: share of all texts of the data folder, of any language and code, on which a rule decides as the installed "
        "package does, and share of equal values; rules that need no words must be equal everywhere; each disagreement "
        "stands in results/filters.disagreements.json with both values. One core."
    ),
    peers=("datatrove", "spacy", *language.ABOUT.peers),
)
ALL = RulesConfig(
    web_page=WebPage(), gopher_repetition=GopherRepetition(), gopher_quality=GopherQuality(), c4=C4(), fineweb=FineWeb()
)
PEERS = {
    "gopher_repetition": "GopherRepetitionFilter", "gopher_quality": "GopherQualityFilter", "c4": "C4QualityFilter",
    "fineweb": "FineWebQualityFilter",
}  # fmt: skip
REPEAT = 5
TARGET_BYTES = 6700  # of a document, as the figures are given
PATHOLOGICAL = {
    "prose": "The river had been rising since the morning, and people came to look at it.\n",
    "one word": "water ",
    "one line": "water",
    "newlines": "\n",
    "points": ". ",
}


def batch_of(documents: Sequence[tuple[str, str | None]]) -> pa.RecordBatch:
    """Columns text and lang."""
    return pa.RecordBatch.from_pydict(
        {"text": [t for t, _ in documents], "lang": [lang for _, lang in documents]},
        schema=pa.schema([("text", pa.string()), ("lang", pa.string())]),
    )


def ours_all(batch: pa.RecordBatch) -> list[bool]:
    """Which texts pass the four sets, and ours."""
    cleaned = c4_lines(batch, C4LinesConfig(end_mark=False))
    return list(undecided(decide(measure(cleaned, MeasureConfig()), ALL)).to_pylist())


def peer_filters(**c4: Any) -> dict[str, Any]:
    """datatrove's four filters, by the name of our set, in the order of its FineWeb example."""
    from datatrove.pipeline import filters

    return {name: getattr(filters, peer)(**(c4 if name == "c4" else {})) for name, peer in PEERS.items()}


def judge(judge_: Any, text: str) -> tuple[bool, str]:
    """Whether a filter keeps a text, and the text after it."""
    from datatrove.data import Document

    document = Document(text=text, id="")
    result = judge_.filter(document)
    return bool(result[0] if isinstance(result, tuple) else result), document.text


def peer_all(filters: dict[str, Any], documents: Sequence[tuple[str, str | None]], short: bool) -> list[bool]:
    """Which texts pass all filters; with `short` a dropped text is asked no further."""
    kept = []
    for text, _ in documents:
        passed = True
        for one in filters.values():
            fine, text = judge(one, text)
            passed &= fine
            if short and not passed:
                break
        kept.append(passed)
    return kept


def of_one_size(documents: Sequence[tuple[str, str | None]], limit: int) -> list[tuple[str, str | None]]:
    """At most `limit` documents of TARGET_BYTES on the mean: longer ones cut, shorter ones as they are."""
    chosen = [d for d in documents if len(d[0].encode()) >= TARGET_BYTES] or list(documents)
    return [(t.encode()[:TARGET_BYTES].decode("utf-8", "ignore"), lang) for t, lang in sample(chosen, limit)]


def speed(documents: Sequence[tuple[str, str | None]], repeat: int) -> list[Row]:
    """Documents and megabytes a second."""
    batch, every = batch_of(documents), MeasureConfig(dialects=DIALECTS)
    size = sum(len(t.encode()) for t, _ in documents)
    contestants: dict[str, Callable[[], Any]] = {
        "measures": lambda: measure(batch, every),
        "sets": lambda: ours_all(batch),
    }
    for warm_up in contestants.values():
        warm_up()
    names: dict[str, str] = {}
    if installed("datatrove", "spacy"):
        quiet_datatrove()
        filters, peer = peer_filters(filter_no_terminal_punct=False), version("datatrove")
        peer_all(filters, documents[:5], False)
        names = {"four": f"{peer}, four filters", "chain": f"{peer}, chain"}
        contestants |= {
            "four": functools.partial(peer_all, filters, documents, False),
            "chain": functools.partial(peer_all, filters, documents, True),
        }
    seconds, _ = interleave(contestants, repeat)
    mean = f"docs/s of {size / len(documents):,.0f} bytes"

    def rows(name: str, ours: str, peer: str) -> list[Row]:
        taken = {"ours": seconds[ours]} | ({names[peer]: seconds[peer]} if names else {})
        return [
            *speed_rows(name, mean, len(documents), taken, "ours"),
            *speed_rows(f"{name}, bytes", "MB/s", size / 1e6, taken, "ours"),
        ]

    return [
        row("all measures, number", "columns", len(MEASURES), None, None),
        *rows("all measures", "measures", "four"),
        *rows("four sets", "sets", "four"),
        *rows("chain", "sets", "chain"),
    ]


def growth(small: int = 1_000, large: int = 10_000_000, total: int = 10_000_000) -> list[Row]:
    """CPU time a byte of one large document over that of small ones."""
    every, made = MeasureConfig(dialects=DIALECTS), []
    for name, unit in PATHOLOGICAL.items():
        text = unit * (total // len(unit))
        cost = {}
        for size in (small, large):
            batch = batch_of([(text[i : i + size], "en") for i in range(0, total, size)])
            begin = time.process_time()
            measure(batch, every)
            c4_lines(batch, C4LinesConfig())
            cost[size] = (time.process_time() - begin) / total
        unit = f"cost a byte at {large / 1e6:g} MB over {small} B"
        made.append(row(f"growth {name}", unit, cost[large] / cost[small], None, None))
    return made


def run(data: Path, limit: int = 150, repeat: int = REPEAT, results: Path | None = RESULTS) -> list[Row]:
    """All rows. `limit`: of texts whose speed is measured, taken evenly."""
    pages = texts(data)
    made = speed(of_one_size(pages, limit), repeat)
    made += growth() if results is not None else growth(large=100_000, total=100_000)
    made += language.rows(data, pages, repeat)
    if installed("datatrove", "spacy"):
        quiet_datatrove()
        made += parity.rows(every_text(data), results)
    return made


if __name__ == "__main__":
    run_bench("filters", ABOUT, run)
