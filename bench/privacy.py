"""Personal data: speed against datatrove's PIIFormatter; precision, recall and F1 per kind on annotated sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.common import About, Row, installed, interleave, quiet_datatrove, row, run_bench, speed_rows, version
from bench.corpus import jsonl, texts
from pipelines.privacy.pii import KINDS, PiiConfig, find_pii, mask_pii

ABOUT = About(
    title="Personal data",
    compared=(
        "`speed`: whole pages, ours masking all five kinds, and only e-mail and IP as datatrove does. Precision, recall "
        "and F1 on annotated sentences in several languages, templates and look-alikes among them: a span counts where it "
        "is of the right kind and overlaps the annotated one by at least .8 of their union. Spans that may be found or "
        "not (short national numbers, addresses that are not public, obfuscated e-mail) count neither way. datatrove "
        "knows e-mail and IPv4 only; names and postal addresses are found by neither."
    ),
    peers=("datatrove", "phonenumbers"),
)
GOLD = {"email": "email", "ip": "ip", "phone": "phone", "credit_card": "card", "bank_card": "card", "iban": "iban"}
EITHER = {"phone_short": "phone", "ip_not_public": "ip", "email_obfuscated": "email"}
ALIKE = 0.8
REPEAT = 3
Span = tuple[int, int, str]


def alike(a: Span, b: Span) -> bool:
    """Whether two spans are the same finding."""
    both = min(a[1], b[1]) - max(a[0], b[0])
    return a[2] == b[2] and both >= ALIKE * (max(a[1], b[1]) - min(a[0], b[0]))


def peer_spans(formatter: Any, text: str) -> list[Span]:
    """What datatrove's formatter would replace."""
    found = []
    for kind, replacer in (("email", formatter.emails_replacer), ("ip", formatter.ip_replacer)):
        for match in replacer.regex.finditer(text):
            if replacer.validator is None or replacer.validator(match[0]):
                found.append((match.start(), match.end(), kind))
    return found


def scores(cases: Sequence[dict[str, Any]], found: Iterable[list[Span]], kind: str) -> tuple[float, float, float]:
    """(precision, recall, F1) of one kind."""
    hits = wrong = missed = 0
    for case, spans in zip(cases, found, strict=True):
        gold = [(s["start"], s["end"], GOLD[s["kind"]]) for s in case["spans"] if GOLD.get(s["kind"]) == kind]
        either = [(s["start"], s["end"]) for s in case["spans"] if EITHER.get(s["kind"]) == kind]
        mine = [s for s in spans if s[2] == kind]
        hits += sum(any(alike(g, s) for s in mine) for g in gold)
        missed += sum(not any(alike(g, s) for s in mine) for g in gold)
        wrong += sum(
            not any(alike(g, s) for g in gold) and not any(s[0] < end and start < s[1] for start, end in either) for s in mine
        )
    precision, recall = hits / max(hits + wrong, 1), hits / max(hits + missed, 1)
    return precision, recall, 2 * hits / max(2 * hits + wrong + missed, 1)


def speed(documents: Sequence[tuple[str, str | None]], repeat: int) -> list[Row]:
    """Documents a second."""
    batch = pa.RecordBatch.from_pydict(
        {"text": [t for t, _ in documents], "lang": pa.array([lang for _, lang in documents], pa.string())}
    )
    two = PiiConfig(phone=None, card=None, iban=None)
    contestants: dict[str, Any] = {"all": lambda: mask_pii(batch, PiiConfig()), "two": lambda: mask_pii(batch, two)}
    if installed("datatrove"):
        formatter = peer_formatter()
        contestants[version("datatrove")] = lambda: [formatter.format(text) for text, _ in documents]
    mask_pii(batch.slice(0, 3), PiiConfig())
    seconds, _ = interleave(contestants, repeat)
    rows = []
    for name, key in (("speed, all kinds", "all"), ("speed, e-mail and IP", "two")):
        other = "two" if key == "all" else "all"
        rows += speed_rows(name, "docs/s", len(documents), {k: s for k, s in seconds.items() if k != other}, key)
    return rows


def peer_formatter() -> Any:
    """datatrove's, with its defaults."""
    from datatrove.pipeline.formatters import PIIFormatter

    quiet_datatrove()
    return PIIFormatter()


def quality(data: Path) -> list[Row]:
    """Precision, recall and F1 per kind."""
    cases = list(jsonl(data / "pii.jsonl.gz"))
    mine = [[(f.start, f.end, f.kind) for f in find_pii(c["text"], c["lang"])] for c in cases]
    formatter = peer_formatter() if installed("datatrove") else None
    theirs = [peer_spans(formatter, c["text"]) for c in cases] if formatter else None
    rows = []
    for kind in KINDS:
        ours = scores(cases, mine, kind)
        peer = scores(cases, theirs, kind) if theirs is not None and kind in ("email", "ip") else None
        count = sum(GOLD.get(s["kind"]) == kind for c in cases for s in c["spans"])
        for i, name in enumerate(("precision", "recall", "F1")):
            value = None if peer is None else peer[i]
            rows.append(row(f"{name} {kind}", f"{count} spans", ours[i], value, None if peer is None else version("datatrove")))
    return rows


def run(data: Path, repeat: int = REPEAT) -> list[Row]:
    """All rows."""
    rows = speed(texts(data), repeat)
    return rows + (quality(data) if (data / "pii.jsonl.gz").is_file() else [])


if __name__ == "__main__":
    run_bench("privacy", ABOUT, run)
