"""Personal data by rule: e-mail, public IP, phone, payment card and IBAN numbers found and masked, counted per kind.

Names, postal addresses and national identity numbers are not covered: rules alone cannot find them without harm.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from pipelines.privacy.addresses import find_emails, find_ips
from pipelines.privacy.numbers import find_cards, find_ibans
from pipelines.privacy.phones import find_phones
from pipelines.recipe import batch_stage
from pipelines.schema import with_columns

# In order of precedence: where two overlap, the earlier kind stands.
KINDS = ("email", "iban", "card", "ip", "phone")
PII_COLUMNS = pa.schema([pa.field(f"pii_{kind}", pa.int32()) for kind in ("email", "ip", "phone", "card", "iban")])

_DIGIT = re.compile(r"\d")
_SIX_DIGITS = re.compile(r"[0-9](?:[^\n0-9]{0,3}[0-9]){5}")
_IPV6_HINT = re.compile(r"[0-9A-Fa-f]:[0-9A-Fa-f:]*:")


@dataclass(frozen=True)
class PiiConfig:
    """What stands in the place of each kind; None leaves that kind alone (its count is then 0).

    The defaults are names in angle brackets: they say what was there, cannot be anybody's, and are easy to find.
    """

    email: str | None = "<email>"
    ip: str | None = "<ip>"
    phone: str | None = "<phone>"
    card: str | None = "<card>"
    iban: str | None = "<iban>"


@dataclass(frozen=True)
class Found:
    """A span of code points [start, end) and what it is."""

    start: int
    end: int
    kind: str


def _fold_table() -> dict[int, int]:
    """Digits of every script to ASCII ones, full-width signs and letters to ASCII: one character each, so offsets stay."""
    digits = {p: 48 + unicodedata.decimal(chr(p)) for p in range(0x80, 0xFF01) if unicodedata.category(chr(p)) == "Nd"}
    return {p: p - 0xFEE0 for p in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0x2212: 0x2D} | digits


_FOLD = _fold_table()
_FOLDED = re.compile("[" + "".join(map(chr, sorted(_FOLD))) + "]")


def find_pii(text: str, lang: str | None = None, kinds: tuple[str, ...] = KINDS) -> list[Found]:
    """Personal data in a text, by position, without overlaps. Digits of any script and full-width forms count as ASCII ones."""
    has_at, has_digit = "@" in text or "\uff20" in text, _DIGIT.search(text) is not None
    if not has_at and not has_digit:
        return []
    if not text.isascii() and _FOLDED.search(text):
        text = text.translate(_FOLD)
    many = has_digit and _SIX_DIGITS.search(text) is not None
    finders: dict[str, tuple[bool, Callable[[str], Iterator[tuple[int, int]]]]] = {
        "email": (has_at, find_emails),
        "iban": (many, find_ibans),
        "card": (many, find_cards),
        "ip": (has_digit and (many or _IPV6_HINT.search(text) is not None or "." in text), find_ips),
        "phone": (many, lambda t: find_phones(t, lang)),
    }
    found: list[Found] = []
    for kind in KINDS:
        wanted, find = finders[kind]
        if wanted and kind in kinds:
            for start, end in find(text):
                if all(end <= other.start or other.end <= start for other in found):
                    found.append(Found(start, end, kind))
    return sorted(found, key=lambda f: f.start)


def mask(text: str, found: list[Found], cfg: PiiConfig) -> str:
    """The text with every span replaced by its kind's substitute."""
    parts, at = [], 0
    for item in found:
        parts += [text[at : item.start], getattr(cfg, item.kind)]
        at = item.end
    return "".join([*parts, text[at:]])


@batch_stage(adds=PII_COLUMNS)
def mask_pii(docs: pa.RecordBatch, cfg: PiiConfig) -> pa.RecordBatch:
    """Replace personal data in `text` and count it per kind in `pii_*` (int32). Drops nothing."""
    kinds = tuple(kind for kind in KINDS if getattr(cfg, kind) is not None)
    texts, counts = [], []
    for text, lang in zip(docs["text"].to_pylist(), docs["lang"].to_pylist(), strict=True):
        found = find_pii(text, lang, kinds) if text else []
        texts.append(mask(text, found, cfg) if text and found else text)
        counts.append([sum(f.kind == field.name.removeprefix("pii_") for f in found) for field in PII_COLUMNS])
    columns = {field.name: pa.array([row[i] for row in counts], pa.int32()) for i, field in enumerate(PII_COLUMNS)}
    return with_columns(docs, {"text": pa.array(texts, pa.string()), **columns})
