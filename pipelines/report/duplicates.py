"""The pictures of near duplicates: what the index found by similarity, and how large clusters are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipelines.report.svg import el, line, path, picture, rect, short, text, text_width

_NARROW = 480


@dataclass(frozen=True)
class Point:
    """A share with its interval at a similarity; `number` is of pairs."""

    x: float
    share: float
    low: float
    high: float
    number: int


def s_curve(
    predicted: Sequence[tuple[float, float]], shared: Sequence[Point], gone: Sequence[Point], threshold: float, width: float
) -> Markup:
    """Shares of pairs over their similarity: predicted and observed to meet in a bucket, and observed not to be both kept.

    `predicted` from the least similarity to 1, at least two points; the threshold is a vertical line, and only from there on
    should not both be kept.
    """
    left, right, top, bottom = 40.0, 12.0, (66.0 if width < _NARROW else 30.0), 40.0
    height = top + bottom + (190.0 if width < _NARROW else 230.0)
    low = predicted[0][0]

    def x(v: float) -> float:
        return left + (v - low) / (1 - low) * (width - left - right)

    def y(v: float) -> float:
        return top + (1 - v) * (height - top - bottom)

    parts = _key(width)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [
            line(left, y(share), width - right, y(share), "grid"),
            text(left - 6, y(share) + 4, f"{share:.0%}", kind="faint", anchor="end"),
        ]
    for tenth in range(math.ceil(10 * low - 1e-9), 11):
        parts.append(text(x(tenth / 10), height - bottom + 18, f"{tenth / 10:.1f}", kind="faint", anchor="middle"))
    parts.append(text((left + width - right) / 2, height - 5, "similarity of the pair", kind="faint", anchor="middle"))
    if low < threshold <= 1:
        label, at = f"threshold {threshold:g}", x(threshold)
        parts.append(line(at, top, at, height - bottom, "mark"))
        fits = at + 5 + text_width(label) < width - right
        parts.append(text(at + (5 if fits else -5), y(0) - 8, label, kind="faint", anchor="start" if fits else "end"))
    parts.append(path("M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in predicted), "line faint-curve"))
    for points, kind, name, shift in ((shared, "kept", "share a bucket", -2.5), (gone, "dropped", "were not both kept", 2.5)):
        for p in points:
            at = x(p.x) + shift
            title = f"{p.share:.1%} of {p.number:,} pairs about {p.x:.3f} {name} ({p.low:.1%} to {p.high:.1%})"
            parts.append(line(at, y(p.high), at, y(p.low), f"whisker {kind}-line"))
            parts.append(el("circle", el("title", title), cx=at, cy=y(p.share), r=4.0, class_=kind))
    words = [f"at {p.x:.2f} {p.share:.0%} share a bucket" for p in shared]
    words += [f"at {p.x:.2f} {p.share:.0%} are not both kept" for p in gone]
    return picture(f"Pairs by similarity: {'; '.join(words)}", width, height, *parts, kind="scurve")


def _key(width: float) -> list[Markup]:
    """Names of the line and of both kinds of point, one after the other or below each other."""
    entries = (("line", "predicted to share a bucket"), ("kept", "share a bucket"), ("dropped", "not both kept"))
    parts, x, y = list[Markup](), 0.0, 10.0
    for kind, name in entries:
        if kind == "line":
            parts.append(path(f"M{x + 1:g} {y:g}H{x + 17:g}", "line faint-curve"))
        else:
            parts.append(el("circle", cx=x + 9, cy=y, r=4.0, class_=kind))
        parts.append(text(x + 23, y + 4, name))
        if width < _NARROW:
            y += 18
        else:
            x += 23 + text_width(name) + 26
    return parts


@dataclass(frozen=True)
class Size:
    """How many clusters hold from `least` to `most` documents."""

    least: int
    most: int
    clusters: int

    @property
    def label(self) -> str:
        """One number, or the first and the last; great ones shortened."""
        return short(self.least) if self.least == self.most else f"{short(self.least)}\u2013{short(self.most)}"


def cluster_sizes(sizes: Sequence[Size], width: float) -> Markup:
    """A column a size, as high as the logarithm of the number of clusters: each line up is ten times as many."""
    left, top, bottom, tall = 40.0, 22.0, 40.0, 150.0
    powers = max(1, math.ceil(math.log10(max((s.clusters for s in sizes), default=1) or 1)))
    each = min((width - left) / max(len(sizes), 1), 72.0)
    base = top + tall
    ground = 10.0  # a single cluster is a column too

    def high(count: int) -> float:
        return ground + (tall - ground) * math.log10(count) / powers if count else 0.0

    parts: list[Markup] = []
    for power in range(powers + 1):
        at = base - high(10**power)
        parts += [line(left, at, width, at, "grid"), text(left - 6, at + 4, short(10.0**power), kind="faint", anchor="end")]
    room = max((text_width(s.label) for s in sizes), default=0.0) + 4
    every = max(1, math.ceil(room / each))
    for i, size in enumerate(sizes):
        x, up = left + i * each, high(size.clusters)
        title = f"{size.clusters:,} clusters of {size.label} documents"
        parts.append(rect(x + 3, base - up, each - 6, up, "kept" if size.least == 1 else "dropped", title))
        if size.clusters and text_width(short(size.clusters)) < each:
            parts.append(text(x + each / 2, base - up - 5, short(size.clusters), kind="number", anchor="middle"))
        if i % every == 0:
            parts.append(text(x + each / 2, base + 16, size.label, kind="faint", anchor="middle"))
    parts.append(text(left, base + 34, "documents in the cluster", kind="faint"))
    words = "; ".join(f"{s.clusters:,} of {s.label}" for s in sizes)
    return picture(f"Clusters by their number of documents: {words}", width, base + bottom, *parts, kind="clusters")
