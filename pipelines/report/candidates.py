"""Tokenizer candidates side by side: a table for the terminal, and a page with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from pipelines import report
from pipelines.report.charts import Series
from pipelines.shards import write_atomic
from pipelines.tokens.candidates import Candidate

SHOWN = 6  # languages that have a column and a picture, of most text first


def print_candidates(candidates: Sequence[Candidate], console: Console) -> None:
    """A line a candidate: characters a token of each language, bytes a token of all."""
    languages = _languages(candidates)
    names = ["entries", *languages, "all, bytes", "single bytes", "unused"]
    table = Table(Column("tokenizer", overflow="fold"), box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right")
    for c in candidates:
        held = [f"{c.languages[lang].characters_per_token:.2f}" for lang in languages]
        whole = [f"{c.whole.bytes_per_token:.2f}", f"{c.whole.byte_share:.1%}", f"{c.unused / max(c.merged, 1):.1%}"]
        table.add_row(c.name, f"{c.entries:,}", *held, *whole)
    console.print("characters a token by language, on texts that no candidate was trained on", style="dim")
    console.print(table)


def write_candidates(candidates: Sequence[Candidate], path: Path, said: str) -> None:
    """Write a self-contained page; `said`: what was compared, in a sentence."""
    languages = _languages(candidates)
    pictures = [(lang, _lines(candidates, lang), _sentence(candidates, lang)) for lang in languages]
    write_atomic(path, report.page("candidates.html", {"candidates": candidates, "pictures": pictures, "said": said}))


def _languages(candidates: Sequence[Candidate]) -> list[str]:
    sizes = {name: c.bytes for name, c in candidates[0].languages.items()}
    return sorted(sizes, key=lambda name: (-sizes[name], name))[:SHOWN]


def _lines(candidates: Sequence[Candidate], lang: str) -> list[Series]:
    """A line for each name: characters a token over the number of entries."""
    names = list(dict.fromkeys(c.name for c in candidates))
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for c in candidates:
        points[c.name].append((float(c.entries), c.languages[lang].characters_per_token))
    return [Series(name, tuple(points[name]), f"s{index % 8}", True) for index, name in enumerate(names)]


def _sentence(candidates: Sequence[Candidate], lang: str) -> str:
    each: Any = (f"{c.name} {c.entries:,} {c.languages[lang].characters_per_token:.2f}" for c in candidates)
    return f"Characters a token in {lang}: {'; '.join(each)}"
