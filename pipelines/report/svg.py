"""SVG elements as escaped markup, and the few measures that every chart needs. Units are CSS pixels."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from markupsafe import Markup, escape

TEXT = 12  # font size of labels
LINE = 18  # of a label and the space around it


def el(name: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """An element. Children and attribute values are escaped unless they are markup; `_` in a name is `-`, None is left out."""
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), number(value) if isinstance(value, float) else value)
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{}{}>{}</{}>").format(Markup(name), given, Markup("").join(escape(c) for c in children), Markup(name))


def picture(label: str, width: float, height: float, *children: Markup, kind: str = "") -> Markup:
    """A whole picture that scales with its column and says in words what it shows."""
    box = f"0 0 {number(width)} {number(height)}"
    return el("svg", el("title", label), *children, viewBox=box, role="img", aria_label=label, class_=f"chart {kind}".strip())


def text(x: float, y: float, content: str, *, kind: str = "", anchor: str = "start", room: float | None = None) -> Markup:
    """A line of text at its baseline, cut to `room` pixels (the whole of it then is its title)."""
    shown = content if room is None else cut(content, room)
    title = () if shown == content else (el("title", content),)
    return el("text", *title, shown, x=float(x), y=float(y), class_=kind or None, text_anchor=anchor)


def rect(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> Markup:
    """A filled rectangle."""
    inside = (el("title", title),) if title else ()
    return el("rect", *inside, x=float(x), y=float(y), width=float(max(width, 0)), height=float(max(height, 0)), class_=kind)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return el("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=kind)


def path(data: str, kind: str, title: str = "", fill: str | None = None) -> Markup:
    """A path from its data."""
    inside = (el("title", title),) if title else ()
    return el("path", *inside, d=data, class_=kind, fill=fill)


def number(value: float) -> str:
    """A coordinate: two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def text_width(content: str, size: float = TEXT) -> float:
    """About the width of a text in a proportional sans serif font; wide characters (CJK) are one em."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.56 for c in content) * size


def cut(content: str, room: float, size: float = TEXT) -> str:
    """The text, cut with an ellipsis so that it fits into `room`."""
    if text_width(content, size) <= room:
        return content
    while content and text_width(content + "\u2026", size) > room:
        content = content[:-1]
    return content + "\u2026"


def short(value: float) -> str:
    """A number for an axis or a label: 950, 12k, 1.5M, 0.003, 3e-05."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers in [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m, most in ((1, 1.5), (2, 3.5), (5, 7.5), (10, math.inf)) if rough / power < most)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, at least `gap` apart and in their order, inside [low, high] where there is room."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    at = low - gap
    for i in order:
        at = placed[i] = max(wanted[i], at + gap)
    at = high + gap
    for i in reversed(order):
        at = placed[i] = min(placed[i], at - gap)
    return placed
