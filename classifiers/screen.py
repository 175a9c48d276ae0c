"""What the verbs show in a terminal."""

from __future__ import annotations

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from classifiers.card import figures, ratio
from classifiers.evaluation import Evaluation, Interval
from classifiers.evaluation import Group as Part
from classifiers.labelled import Labelled
from classifiers.model import Model
from classifiers.predict import Prediction

_BAR = 24
_UNSPACED = frozenset(("zh", "yue", "wuu", "ja", "th", "lo", "km", "my", "bo"))


def show_data(data: Labelled, console: Console) -> None:
    """What was read, and what was left out."""
    facts = data.facts
    counts = ", ".join(f"{label} {int((data.numbers == n).sum()):,}" for n, label in enumerate(data.labels))
    console.print(f"[bold]{len(data.numbers):,}[/] texts of [bold]{len(set(data.sites)):,}[/] sites: {counts}")
    left = [
        (facts.get("empty"), "empty"),
        (facts.get("repeated"), "repeated"),
        (facts.get("contradicting"), "with several labels"),
    ]
    if any(n for n, _ in left):
        console.print("left out or resolved: " + ", ".join(f"{n:,} {what}" for n, what in left if n), style="yellow")


def show_evaluation(model: Model, found: Evaluation, console: Console) -> None:
    """Figures with intervals, and where the model goes wrong."""
    title = f"[bold]{found.label}[/] at {found.threshold:.4f}: {found.texts:,} texts of {found.sites:,} sites"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for name, justify in (("figure", "left"), ("", "right"), ("95 % interval", "left"), ("0" + " " * (_BAR - 2) + "1", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, figure in figures(found):
        table.add_row(name, f"[bold]{ratio(figure.value)}[/]", f"{ratio(figure.low)} to {ratio(figure.high)}", _bar(figure))
    console.print(
        Panel(Group(table, "", _parts("language", found.by_language), "", _parts("characters", found.by_length)), expand=False)
    )
    if found.empty:
        console.print(f"{found.empty:,} texts have no token: no score, taken for none", style="yellow")
    unseen = [part.name for part in found.by_language if not part.seen]
    if unseen:
        console.print(f"the model never saw a text in {', '.join(unseen)}: trust its scores there less", style="yellow")


def show_unspaced(model: Model, console: Console) -> None:
    """A word between blanks is a whole sentence in some languages: say so where nothing smaller counts."""
    found = sorted(model.languages & _UNSPACED)
    if model.kind == "fasttext" and not model.payload.config.letters[1] and found:
        console.print(
            f"texts in {', '.join(found)} have no blanks between words: give --set letters=1,3, or --kind hashed",
            style="yellow",
        )


def show_prediction(found: Prediction, console: Console) -> None:
    """How many of which label, or in which bucket."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, justify in ((found.what, "left"), ("texts", "right"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for label, count in found.labels.items():
        table.add_row(label, f"{count:,}", Text("\u2588" * round(_BAR * count / max(found.rows, 1)), "cyan"))
    console.print(table)
    if found.taken is not None:
        console.print(f"{found.taken:,} of {found.rows:,} at or above the threshold")
    if found.unseen:
        langs = ", ".join(f"{lang} {n:,}" for lang, n in found.unseen.items())
        console.print(f"in languages that the model never saw (seen: false): {langs}", style="yellow")


def _bar(figure: Interval) -> Text:
    low, high = (figure.value if x != x else x for x in (figure.low, figure.high))
    if figure.value != figure.value:
        return Text("-")
    at, begin, end = (min(round(x * (_BAR - 1)), _BAR - 1) for x in (figure.value, low, high))
    line = ["\u2500" if begin <= n <= end else "\u00b7" for n in range(_BAR)]
    line[at] = "\u25cf"
    return Text("".join(line), "cyan")


def _parts(name: str, parts: tuple[Part, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(name)
    for column in ("texts", "hits", "missed", "false", "right", "precision", "recall", "AUC"):
        table.add_column(column, justify="right")
    for p in parts[:12]:
        precision, recall = (p.hits / n if n else float("nan") for n in (p.hits + p.false, p.hits + p.missed))
        counts = (f"{n:,}" for n in (p.texts, p.hits, p.missed, p.false, p.right))
        table.add_row(Text(p.name, "" if p.seen else "yellow"), *counts, ratio(precision), ratio(recall), ratio(p.auc))
    return table
