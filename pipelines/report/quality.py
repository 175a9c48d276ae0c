"""What the page says of how good near-duplicate removal was, from what the run measured (pipelines.dedup.quality.measure)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.report.compare import compare
from pipelines.report.duplicates import Point, Size
from pipelines.rundir import BESIDE, QUALITY, read_json

log = logging.getLogger(__name__)

MOST_ALARMS = 5  # named one by one

Mask = Callable[[str | None], str | None]


def qualities(folders: Iterable[Path], masked: Mask, chars: int) -> list[dict[str, Any]]:
    """Per table of near duplicates that was measured: its numbers, pictures' inputs, alarms, and pairs side by side.

    `masked`: makes a text fit to be shown; `chars`: of a side. Raises UserError where a file is damaged.
    """
    files = [folder / BESIDE / QUALITY for folder in folders]
    return [_shown(read_json(file), masked, chars) for file in files if file.is_file()]


def warn(measured: Iterable[Mapping[str, Any]]) -> None:
    """Log a line for every alarm."""
    for quality in measured:
        for alarm in quality["alarms"]:
            log.warning("%s: %s", quality["stage"], alarm)


def alarms(quality: Mapping[str, Any]) -> list[str]:
    """What a person must see: sources and hosts that lose more than they may, and removals that do not hold."""
    bound, hosts = quality["settings"]["quality"]["alarm"], quality["hosts"]
    lost = [("source", s["source"], s) for s in quality["sources"] if s["share"] > bound]
    lost += [("host", h["host"], h) for h in hosts["first"] if h["share"] > bound]
    said = [
        f"{kind} {name or 'without a name'} loses {row['removed']:,} of {row['documents']:,} documents ({row['share']:.1%}, "
        f"the alarm is at {bound:.0%})"
        for kind, name, row in lost[:MOST_ALARMS]
    ]
    more = len(lost) - len(said) + hosts["alarms"] - sum(kind == "host" for kind, _, _ in lost)
    if more > 0:
        said.append(f"{more:,} more lose above {bound:.0%} of their documents")
    exact = quality["precision"]
    if exact["below"]:
        said.append(
            f"{exact['below']:,} of {exact['checked']:,} removed documents are less like their survivors than the threshold "
            f"{quality['settings']['threshold']:g}; the least has {exact['least']:.3f}"
        )
    if exact["differs"]:
        said.append(f"{exact['differs']:,} of {exact['checked']:,} removed documents state another similarity than they have")
    return said


def _shown(quality: dict[str, Any], masked: Mask, chars: int) -> dict[str, Any]:
    largest = [c | {"text": masked(c["text"])} for c in quality["clusters"]["largest"]]
    bound, bands = quality["settings"]["quality"]["alarm"], quality["bands"]
    over = [b for b in bands if b["low"] >= quality["settings"]["threshold"]]
    return quality | {
        "alarms": alarms(quality),
        "alarm": bound,
        "points": {"shared": [_point(b, "shared") for b in bands], "gone": [_point(b, "gone") for b in over]},
        "sizes": [Size(s["least"], s["most"], s["clusters"]) for s in quality["clusters"]["sizes"]],
        "grouped": sum(s["clusters"] for s in quality["clusters"]["sizes"] if s["least"] > 1),
        "largest": largest,
        "removed_pairs": [_pair(p, masked, chars) for p in quality["examples"]["removed"]],
        "missed_pairs": [_pair(p, masked, chars) for p in quality["examples"]["missed"]],
    }


def _point(band: Mapping[str, Any], kind: str) -> Point:
    share = band[kind]
    return Point(band["similarity"], share["share"], share["low"], share["high"], band["pairs"])


def _pair(pair: Mapping[str, Any], masked: Mask, chars: int) -> dict[str, Any]:
    left, right = (masked(pair[side]["text"]) or "" for side in ("left", "right"))
    return {**pair, "rows": compare(left, right, chars), "equal": left == right}
