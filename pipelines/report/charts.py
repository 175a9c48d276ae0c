"""The pictures of the report: pure functions of numbers and a width in pixels. The page carries a wide and a narrow one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from pipelines.report.svg import LINE, TEXT, cut, el, line, path, picture, rect, short, spread, text, text_width, ticks

Kind = Literal["kept", "dropped", "quarantined"]
NARROW = 480  # below it the labels take less room
MOST_RULES = 7  # a stage's branches in the funnel; the rest are one


@dataclass(frozen=True)
class Leaving:
    """Rows that leave the flow together: by one rule, or with one error."""

    label: str
    rows: int
    kind: Kind


@dataclass(frozen=True)
class Level:
    """One stage of the funnel: what came in, and what left by which rule. The rest goes on."""

    name: str
    rows: int
    leaving: tuple[Leaving, ...]

    @property
    def kept(self) -> int:
        """Rows that go on."""
        return self.rows - sum(b.rows for b in self.leaving)


def funnel(levels: Sequence[Level], width: float) -> Markup:
    """A stream from top to bottom whose width is the number of rows; at each stage what leaves branches off to its label.

    Branches are as thick as the stream they take with them: lengths across the flow are rows, everywhere at one scale.
    """
    stream = 108.0 if width < NARROW else min(0.36 * width, 340.0)
    labels = stream + (26 if width < NARROW else 56)
    top = max((level.rows for level in levels), default=0)
    scale = stream / max(top, 1)
    edge, y = top * scale, 0.0
    outline, branches, words = [f"M0 0H{edge:.2f}"], list[Markup](), list[Markup]()
    for level in levels:
        words += _level_head(level, y, edge, labels, width)
        y += 32
        for branch in _fewer(level.leaving):
            thick = branch.rows * scale
            row = max(float(LINE), thick + 4)
            turn = y + (row - thick) / 2
            branches.append(_branch(edge, thick, turn, labels - 8, branch, level, f"{width:g}"))
            outline.append(f"V{turn - _RADIUS:.2f}H{edge - thick:.2f}")
            words += _branch_label(branch, labels, y + row / 2, width)
            edge -= thick
            y += row
        y += 8
    outline.append(f"V{y + 14:.2f}H0Z")
    kept = levels[-1].kept if levels else 0
    words.append(text(0, y + 36, f"{kept:,} kept", kind="strong kept-text"))
    label = f"Funnel: {top:,} rows enter, {kept:,} are kept. " + " ".join(
        f"{level.name}: {level.rows - level.kept:,} leave." for level in levels
    )
    shades = el("defs", *(_shade(f"{width:g}", kind) for kind in ("dropped", "quarantined")))
    return picture(label, width, y + 46, shades, path("".join(outline), "kept"), *branches, *words, kind="funnel")


_RADIUS = 8.0  # of a branch's inner bend


def _fewer(leaving: Sequence[Leaving]) -> list[Leaving]:
    ordered = sorted(leaving, key=lambda b: (b.kind == "quarantined", -b.rows, b.label))
    dropped = [b for b in ordered if b.kind != "quarantined"]
    if len(dropped) <= MOST_RULES:
        return ordered
    rest = dropped[MOST_RULES - 1 :]
    merged = Leaving(f"{len(rest)} more rules", sum(b.rows for b in rest), "dropped")
    return [*dropped[: MOST_RULES - 1], merged, *(b for b in ordered if b.kind == "quarantined")]


def _level_head(level: Level, y: float, edge: float, labels: float, width: float) -> list[Markup]:
    came = f"{level.rows:,}"
    words = [line(labels, y + 0.5, width, y + 0.5, "hair")]
    if edge >= text_width(came) + 10:
        words.append(text(edge / 2, y + 21, came, kind="on-stream", anchor="middle"))
    else:
        words.append(text(edge + 6, y + 21, came, kind="faint"))
    gone = level.rows - level.kept
    if width >= NARROW:
        share = "nothing leaves" if not gone else f"{gone:,} leave, {gone / max(level.rows, 1):.1%}"
        words.append(text(width, y + 21, share, kind="faint", anchor="end"))
    room = width - labels - (150 if width >= NARROW else 0)
    words.append(text(labels, y + 21, level.name, kind="strong", room=room))
    return words


def _branch(edge: float, thick: float, turn: float, end: float, branch: Leaving, level: Level, shade: str) -> Markup:
    """A quarter of a ring from the stream's right side, then straight to the label."""
    drawn, inner, above = max(thick, 0.8), edge + _RADIUS, turn - _RADIUS
    outer = _RADIUS + drawn
    data = (
        f"M{edge:.2f} {above:.2f}A{_RADIUS:g} {_RADIUS:g} 0 0 0 {inner:.2f} {turn:.2f}H{max(end, inner):.2f}V{turn + drawn:.2f}"
        f"H{inner:.2f}A{outer:.2f} {outer:.2f} 0 0 1 {edge - drawn:.2f} {above:.2f}Z"
    )
    share = branch.rows / max(level.rows, 1)
    title = f"{level.name}: {branch.label}: {branch.rows:,} rows, {share:.2%} of what came in ({branch.kind})"
    return path(data, "branch", title, fill=f"url(#shade-{branch.kind}-{shade})")


def _branch_label(branch: Leaving, x: float, middle: float, width: float) -> list[Markup]:
    number_room = 40 if width < NARROW else 52
    return [
        text(x + number_room, middle + 4, f"{branch.rows:,}", kind=f"number {branch.kind}-text", anchor="end"),
        text(x + number_room + 8, middle + 4, _fitting(branch.label, width - x - number_room - 8), room=width),
    ]


def _fitting(label: str, room: float) -> str:
    """A rule's whole name where there is room, else what follows its set's name."""
    return label if text_width(label) <= room else cut(label.rpartition(".")[2], room)


def _shade(name: str, kind: str) -> Markup:
    stops = (el("stop", offset="0", class_="stop-kept"), el("stop", offset="0.45", class_=f"stop-{kind}"))
    return el("linearGradient", *stops, id=f"shade-{kind}-{name}")


def bar(share: float, kind: str, label: str = "") -> Markup:
    """A horizontal bar over `share` of its cell (0 to 1)."""
    inside = rect(0, 0, 100 * min(max(share, 0.0), 1.0), 10, kind)
    name = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return el("svg", inside, viewBox="0 0 100 10", preserveAspectRatio="none", class_="bar", **name)


def bullet(value: float, bound: float, width: float = 200) -> Markup:
    """What was measured (dot) against what the rule allows (shaded, from the bound on)."""
    low, high = min(value, bound, 0.0), max(value, bound, 0.0)
    high = high + 0.08 * (high - low) or 1.0
    height, pad = 18.0, 5.0

    def x(v: float) -> float:
        return pad + (v - low) / (high - low) * (width - 2 * pad)

    least = value < bound
    allowed = (x(bound), width - pad) if least else (pad, x(bound))
    return picture(
        f"measured {value:g}, {'at least' if least else 'at most'} {bound:g} allowed",
        width,
        height,
        line(pad, height / 2, width - pad, height / 2, "hair"),
        rect(allowed[0], 5, allowed[1] - allowed[0], 8, "allowed"),
        line(x(bound), 1, x(bound), height - 1, "bound"),
        el("circle", cx=x(value), cy=height / 2, r=4.5, class_="dropped"),
        kind="bullet",
    )


@dataclass(frozen=True)
class Histogram:
    """Counts per bin of equal width in log10; bin i spans 10 ** (low + i step) to 10 ** (low + (i + 1) step)."""

    low: float
    step: float
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    median_kept: float | None
    median_dropped: float | None


def lengths(data: Histogram, unit: str, width: float) -> Markup:
    """Kept above the axis, dropped below it, each as shares of its own sum at one scale, over a logarithmic axis."""
    bins = len(data.kept)
    half, left, axis = (84.0 if width >= NARROW else 64.0), 6.0, 26.0
    sums = [max(sum(counts), 1) for counts in (data.kept, data.dropped)]
    tallest = max(max(counts, default=0) / total for counts, total in zip((data.kept, data.dropped), sums, strict=True)) or 1.0
    across = (width - 2 * left) / max(bins, 1)
    base = half + 22
    parts: list[Markup] = []
    for counts, total, kind, sign in ((data.kept, sums[0], "kept", -1), (data.dropped, sums[1], "dropped", 1)):
        for i, count in enumerate(counts):
            tall = half * count / total / tallest
            start = base if sign < 0 else base + axis
            span = f"{short(10 ** (data.low + i * data.step))} to {short(10 ** (data.low + (i + 1) * data.step))} {unit}"
            if count:
                y = start - tall if sign < 0 else start
                parts.append(rect(left + i * across + 0.5, y, across - 1, tall, kind, f"{span}: {count:,} {kind}"))
    for power in range(math.ceil(data.low), math.floor(data.low + bins * data.step) + 1):
        x = left + (power - data.low) / data.step * across
        parts.append(text(x, base + axis / 2 + 4, short(10.0**power), kind="faint", anchor="middle"))
    for median, kind, y in ((data.median_kept, "kept", 12.0), (data.median_dropped, "dropped", base + axis + half + 16)):
        if median:
            x = left + (math.log10(median) - data.low) / data.step * across
            ends = (y + 4, base) if kind == "kept" else (base + axis, y - 11)
            parts.append(line(x, ends[0], x, ends[1], "median"))
            label = f"{kind}: median {median:,.0f} {unit}"
            at = max(0.0, min(x, width - 1.1 * text_width(label)))  # bold is a tenth wider
            parts.append(text(at, y, label, kind=f"{kind}-text strong"))
    label = f"{unit} a document: {sum(data.kept):,} kept, {sum(data.dropped):,} dropped"
    return picture(label, width, base + axis + half + 22, *parts, kind="histogram")


@dataclass(frozen=True)
class Stretch:
    """A phase on the token axis; `shares` per source sum to 1."""

    name: str
    tokens: int
    steps: int
    sequence_length: int
    batch_tokens: int
    shares: dict[str, float]


def mixture(phases: Sequence[Stretch], colours: Mapping[str, int], width: float) -> Markup:
    """Phases along the tokens, each with its mixture stacked; the last one's sources are named at its right.

    `colours`: the number (0 to 7) of each source's colour.
    """
    total = max(sum(p.tokens for p in phases), 1)
    sources = sorted({s for p in phases for s, share in p.shares.items() if share > 0})
    right = min(max((text_width(f"{s} 100%") for s in sources), default=0.0) + 12, 0.4 * width)
    across, top, tall = width - right, 40.0, 190.0
    parts: list[Markup] = []
    x, named = 0.0, list[tuple[float, str]]()
    for phase in phases:
        wide = across * phase.tokens / total
        below = top + tall
        for source in sources:
            share = phase.shares.get(source, 0.0)
            below -= tall * share
            if share <= 0:
                continue
            title = f"{phase.name}: {source} {share:.1%}, {share * phase.tokens:,.0f} tokens"
            parts.append(rect(x + 0.75, below + 0.75, wide - 1.5, tall * share - 1.5, f"s{colours[source]}", title))
            inside = f"{source} {share:.0%}"
            if phase is phases[-1]:
                named.append((below + tall * share / 2 + 4, inside))
            elif wide > text_width(inside) + 12 and tall * share > LINE:
                parts.append(text(x + 8, below + tall * share / 2 + 4, inside, kind="on-area"))
        parts += _phase_words(phase, x, wide, top, tall)
        x += wide
    for y, (_, label) in zip(spread([n[0] for n in named], 15, top + 10, top + tall), named, strict=True):
        parts.append(text(across + 8, y, label, kind="strong", room=right - 8))
    for at in ticks(0, total, 5 if width >= NARROW else 3):
        anchor = "start" if at == 0 else "middle"
        parts.append(text(across * at / total, top + tall + 52, short(at), kind="faint", anchor=anchor))
    parts.append(text(across + 8, top + tall + 52, "tokens", kind="faint"))
    words = "; ".join(
        f"{p.name} {p.tokens:,} tokens, " + ", ".join(f"{s} {v:.0%}" for s, v in p.shares.items()) for p in phases
    )
    return picture(f"Schedule: {words}", width, top + tall + 60, *parts, kind="mixture")


def _phase_words(phase: Stretch, x: float, wide: float, top: float, tall: float) -> list[Markup]:
    parts = [line(x + 0.5, top - 32, x + 0.5, top + tall + 34, "hair")] if x else []
    rows = (
        (top - 24, phase.name, "strong"),
        (top - 8, f"{phase.steps:,} steps", "faint"),
        (top + tall + 16, f"length {phase.sequence_length:,}", "faint"),
        (top + tall + 32, f"batch {short(phase.batch_tokens)}", "faint"),
    )
    # a narrow phase keeps its words where they fit; its title has them all
    return parts + [text(x + 5, y, cut(label, wide - 6), kind=kind) for y, label, kind in rows if wide > 5 * TEXT]


@dataclass(frozen=True)
class Series:
    """A line of points (x, y), with the class that colours it; `dots` marks each point."""

    name: str
    points: tuple[tuple[float, float], ...]
    kind: str
    dots: bool = False


def curves(
    series: Sequence[Series],
    marks: Sequence[tuple[float, str]],
    label: str,
    width: float,
    height: float = 250,
    beside: Sequence[Series] = (),
) -> Markup:
    """Lines over one x axis (tokens), named at their ends; `marks` are dashed lines with a name (where a phase begins).

    `beside`: lines of a picture above or below with which this one shall share its axis.
    """
    points = [p for s in series for p in s.points if all(map(math.isfinite, p))]
    if not points:
        return Markup("")
    names = max((text_width(s.name) for s in (*series, *beside)), default=0.0)
    left, right, top, bottom = 48.0, min(names + 14, 0.36 * width), 24.0, 24.0
    x1 = max(p[0] for p in points) or 1.0
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    margin = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = (0.0 if low >= 0 and low - margin < 0 else low - margin), high + margin

    def x(v: float) -> float:
        return left + v / x1 * (width - left - right)

    def y(v: float) -> float:
        return top + (high - v) / (high - low) * (height - top - bottom)

    parts: list[Markup] = []
    for at in ticks(low, high, 5 if height > 150 else 3):
        parts += [
            line(left, y(at), width - right, y(at), "grid"),
            text(left - 6, y(at) + 4, short(at), kind="faint", anchor="end"),
        ]
    for at in ticks(0, x1, 6 if width >= NARROW else 3):
        parts.append(text(x(at), height - 6, short(at), kind="faint", anchor="middle"))
    for at, name in marks:
        parts.append(line(x(at), 6, x(at), height - bottom, "mark"))
        parts.append(text(x(at) + 4, 14, name, kind="faint", room=max(width - x(at) - 4, 24)))
    ends = []
    for s in series:
        good = [(x(a), y(b)) for a, b in s.points if math.isfinite(b)]
        if not good:
            continue
        parts.append(path("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in good), f"line {s.kind}"))
        if s.dots:
            parts += [
                el("circle", el("title", f"{s.name}: {b:.4g} at {short(a)}"), cx=x(a), cy=y(b), r=2.6, class_=s.kind)
                for a, b in s.points
                if math.isfinite(b)
            ]
        ends.append((good[-1][1] + 4, s))
    for at, (_, s) in zip(spread([e[0] for e in ends], 14, top, height - bottom), ends, strict=True):
        parts.append(text(width - right + 8, at, s.name, kind=f"{s.kind}-text", room=right - 8))
    return picture(label, width, height, *parts, kind="curves")
