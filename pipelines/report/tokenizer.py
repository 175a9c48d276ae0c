"""The tokenizer on the page: what its manifest says of compression and entries, and the picture of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pipelines.report.quality import Mask
from pipelines.report.svg import LINE, line, picture, rect, text, text_width, ticks
from pipelines.rundir import RunDir, read_json
from pipelines.shards import MANIFEST

_NARROW = 480


@dataclass(frozen=True)
class Held:
    """Bytes of text that a token holds in texts of one name; `before` with the base that was extended."""

    name: str
    bytes: float
    before: float | None = None


def tokenizer_facts(rundir: RunDir, masked: Mask) -> dict[str, Any] | None:
    """What the tokenizer's manifest says, with sums over all texts, and the picture's rows; None where there is none. An entry
    may be a whole address, so each is `masked`.
    """
    file = rundir.tokenizer / MANIFEST
    if not file.is_file():
        return None
    said = read_json(file)
    extension = said.get("extension")
    before = {(c["source"], c["lang"]): c for c in extension["compression"]} if extension else {}
    rows = [c | {"before": before.get((c["source"], c["lang"]))} for c in said["compression"]]
    held = [Held(_name(c), c["bytes_per_token"], c["before"] and c["before"]["bytes_per_token"]) for c in rows]
    sums = {name: sum(c[name] for c in rows) for name in ("documents", "characters", "bytes", "tokens")}
    longest, unused = said.get("longest", {}), said.get("unused")  # a run of an older version has neither
    return {"preset": None, "given": None, "merged": None, "covering": {}, **said} | {
        "longest": {name: _shown(entries, masked) for name, entries in longest.items()},
        "unused": unused and unused | {"longest": _shown(unused["longest"], masked)},
        "compression": rows,
        "extension": extension,
        "held": sorted(held, key=lambda h: -h.bytes),
        "bytes_per_token": sums["bytes"] / max(sums["tokens"], 1),
        "characters_per_token": sums["characters"] / max(sums["tokens"], 1),
    }


def _shown(entries: Sequence[Mapping[str, Any]], masked: Mask) -> list[dict[str, Any]]:
    return [{**entry, "text": masked(entry["text"])} for entry in entries]


def _name(row: Mapping[str, Any]) -> str:
    source, lang = row["source"], row["lang"]
    return source if not lang or source.endswith(f"-{lang}") else f"{source} {lang}"


def compression(rows: Sequence[Held], width: float) -> Markup:
    """A bar a row, as long as the bytes of text that a token holds; where a base was extended, a line at what it held."""
    most = max((max(r.bytes, r.before or 0) for r in rows), default=1.0) or 1.0
    left = min(max((text_width(r.name) for r in rows), default=0.0) + 12, 0.4 * width)
    right = text_width("0.00, was 0.00" if any(r.before for r in rows) else "0.00") + 12
    top, each, scale = 6.0, LINE + 8.0, (width - left - right) / most
    bottom = top + each * len(rows)
    parts: list[Markup] = []
    for at in ticks(0, most, 6 if width >= _NARROW else 3):
        parts += [
            line(left + at * scale, top, left + at * scale, bottom, "grid"),
            text(left + at * scale, bottom + 16, f"{at:g}", kind="faint", anchor="middle"),
        ]
    for index, row in enumerate(rows):
        y = top + index * each
        was = f", was {row.before:.2f}" if row.before is not None and abs(row.bytes - row.before) >= 0.005 else ""
        parts += [
            text(left - 8, y + 17, row.name, anchor="end", room=left - 8),
            rect(left, y + 5, row.bytes * scale, each - 10, "kept", f"{row.name}: {row.bytes:.2f} bytes a token{was}"),
            text(left + max(row.bytes, row.before or 0) * scale + 7, y + 17, f"{row.bytes:.2f}{was}", kind="number"),
        ]
        if row.before is not None:
            parts.append(line(left + row.before * scale, y + 1, left + row.before * scale, y + each - 1, "bound"))
    parts.append(text(left, bottom + 34, "bytes of UTF-8 a token", kind="faint"))
    words = "; ".join(f"{r.name} {r.bytes:.2f}" for r in rows)
    return picture(f"Bytes a token: {words}", width, bottom + 40, *parts, kind="compression")
