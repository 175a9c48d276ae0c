"""Before and after on one page: OUT/report.html, self-contained, and the same figures as a table on the terminal.

Everything that a model or a file says is escaped on its way in. The style is that of the other reports, read as a file
(pipelines/report/style.css): the trainer loads nothing of the pipelines but the format.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trainer.errors import UserError
from trainer.post.experience import Answer

CURVE_WIDTH, CURVE_HEIGHT = 820, 180
_EXTRA = """
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); gap: 1rem 2rem; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--wash); padding: 0.7rem 0.9rem; margin: 0.2rem 0 0; }
.yes { color: var(--kept-text); font-weight: 600; } .no { color: var(--alarm-text); font-weight: 600; }
polyline { fill: none; stroke: var(--kept); stroke-width: 2; }
"""


@dataclass(frozen=True)
class Figure:
    """A measure before and after. `holds`: whether it went the way it should, None where there is no such way."""

    name: str
    before: float | None
    after: float | None
    holds: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """Values in the order in which they came, e.g. the mean reward of each rollout."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Sample:
    """A prompt as text with two answers, or one, and what they are called."""

    prompt: str
    before: str | None
    after: str
    note: str = ""


def samples_of(before: Sequence[Answer], after: Sequence[Answer], prompts: Sequence[str], most: int = 12) -> list[Sample]:
    """The first answers to the same prompts, side by side where there are two; where one did not end it is said."""

    def said(answer: Answer) -> str:
        return answer.text + ("" if answer.completion.ended else " [does not end]")

    old: Sequence[str | None] = [said(b) for b in before[:most]] or [None] * most
    return [Sample(p, b, said(a), a.prompt.group) for p, b, a in zip(prompts, old, after, strict=False)]


def show(title: str, figures: Sequence[Figure], console: Console | None = None) -> None:
    """The figures as a table on the terminal."""
    table = Table(title=title)
    for column in ("what", "before", "after", "as wished", "note"):
        table.add_column(column, justify="right" if column in ("before", "after") else "left")
    for f in figures:
        table.add_row(f.name, _number(f.before), _number(f.after), _held(f.holds), f.note)
    (console or Console()).print(table)


def write(
    path: Path, title: str, lead: str, figures: Sequence[Figure], curves: Sequence[Curve] = (), samples: Sequence[Sample] = ()
) -> None:
    """Write the page, whole or not at all. Raises UserError where it cannot."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(page(title, lead, figures, curves, samples), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def page(title: str, lead: str, figures: Sequence[Figure], curves: Sequence[Curve] = (), samples: Sequence[Sample] = ()) -> str:
    """The page as text."""
    style = (files("pipelines") / "report" / "style.css").read_text(encoding="utf-8") + _EXTRA
    links = [
        ("figures", "Figures"),
        *([("curves", "Rewards")] if curves else []),
        *([("samples", "Samples")] if samples else []),
    ]
    nav = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in links)
    rows = "".join(
        f'<tr><td>{_text(f.name)}</td><td class="r">{_number(f.before)}</td><td class="r">{_number(f.after)}</td>'
        f'<td class="{_held(f.holds)}">{_held(f.holds)}</td><td class="note">{_text(f.note)}</td></tr>\n'
        for f in figures
    )
    head = '<tr><th>what</th><th class="r">before</th><th class="r">after</th><th>as wished</th><th>note</th></tr>'
    parts = [f'<section id="figures"><h2>Figures</h2><div class="scroll"><table>{head}\n{rows}</table></div></section>']
    if curves:
        parts.append('<section id="curves"><h2>Rewards</h2>' + "".join(map(_curve, curves)) + "</section>")
    if samples:
        parts.append('<section id="samples"><h2>Samples</h2>' + "".join(map(_sample, samples)) + "</section>")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{_text(title)}</title><style>\n{style}</style></head>\n"
        f'<body><div class="page"><nav aria-label="Contents"><a class="mark" href="#top">headrace</a>{nav}</nav><main>\n'
        f'<header class="top" id="top"><h1>{_text(title)}</h1><p class="lead">{_text(lead)}</p></header>\n'
        + "\n".join(parts)
        + "\n</main></div></body></html>\n"
    )


def _curve(curve: Curve) -> str:
    """A line over its own range, with both ends in words."""
    low, high = min(curve.values), max(curve.values)
    step, scale = CURVE_WIDTH / max(1, len(curve.values) - 1), (CURVE_HEIGHT - 20) / ((high - low) or 1)
    points = " ".join(f"{i * step:.1f},{CURVE_HEIGHT - 10 - (v - low) * scale:.1f}" for i, v in enumerate(curve.values))
    label = f"{curve.name}: from {curve.values[0]:.3g} to {curve.values[-1]:.3g}, between {low:.3g} and {high:.3g}"
    return (
        f'<h3>{_text(curve.name)}</h3><svg class="chart" role="img" viewBox="0 0 {CURVE_WIDTH} {CURVE_HEIGHT}" '
        f'aria-label="{_text(label)}"><title>{_text(label)}</title><polyline points="{points}"/></svg>'
        f'<p class="note">{_text(label)}; {len(curve.values)} rollouts</p>'
    )


def _sample(sample: Sample) -> str:
    sides = "".join(
        f'<div><span class="soft">{name}</span><p class="said">{_text(text)}</p></div>'
        for name, text in (("before", sample.before), ("after", sample.after))
        if text is not None
    )
    return f'<h3>{_text(sample.note)}</h3><p class="said">{_text(sample.prompt)}</p><div class="pair">{sides}</div>\n'


def _text(value: str) -> str:
    """Escaped, without the control characters that HTML forbids."""
    shown = "".join(c if c in "\n\t" or c.isprintable() or c.isspace() else "\ufffd" for c in value)
    return html.escape(shown)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def _held(holds: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[holds]
