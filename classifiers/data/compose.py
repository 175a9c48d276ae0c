"""Pages put together from paragraphs written for this project (reference.*.txt) and from slotted blocks (raw.*.txt)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files

from classifiers.data.pages import Text, draws

_STOPS = {"en": r"(?<=[.!?]) ", "zh": "(?<=[\u3002\uff01\uff1f]) ?"}
_NUMBERS = {
    "number": (2, 999), "number2": (10, 99), "percent": (5, 90), "year": (1999, 2024), "day": (1, 28), "hour": (1, 11),
}  # fmt: skip


@lru_cache(maxsize=8)
def sections(kind: str, lang: str) -> dict[str, tuple[str, ...]]:
    """The blocks of each topic or genre of `kind`.`lang`.txt."""
    text = files("classifiers.data").joinpath(f"{kind}.{lang}.txt").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for block in re.split(r"\n(?:\s*\n)?(?=== )|\n\s*\n", text):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if lines and lines[0].startswith("== "):
            name, lines = lines[0][3:], lines[1:]
            found[name] = []
        if body := "\n".join(lines).strip():
            found[name].append(body)
    return {name: tuple(blocks) for name, blocks in found.items()}


@lru_cache(maxsize=2)
def slots(lang: str) -> dict[str, tuple[str, ...]]:
    """The values of each slot."""
    text = files("classifiers.data").joinpath(f"slots.{lang}.txt").read_text(encoding="utf-8")
    pairs = (line.split(": ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: tuple(value.strip() for value in values.split(";")) for name, values in pairs}


def filled(block: str, lang: str, rng: random.Random) -> str:
    """A block with its slots filled; a slot has one value in a block. Raises KeyError for a slot of no list."""
    chosen: dict[str, str] = {}

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in chosen:
            chosen[name] = _value(name, lang, rng)
        return chosen[name]

    return re.sub(r"\{([a-z]+\d?)\}", value, block)


def _value(name: str, lang: str, rng: random.Random) -> str:
    if name in _NUMBERS:
        return str(rng.randint(*_NUMBERS[name]))
    if name.startswith("price"):
        amount = f"{rng.randint(3, 400)}" + rng.choice(("", ".99", ".00", ".95"))
        return amount if lang == "zh" else rng.choice(("$", "$", "$", "\u00a3", "\u20ac", "USD ")) + amount
    if name == "phone":
        return (
            f"555-{rng.randint(100, 999)}-{rng.randint(1000, 9999)}" if lang == "en" else f"1{rng.randint(10**9, 10**10 - 1)}"
        )
    if name == "model":
        return "".join(rng.choice("ABCDEFGHJKLMNPRSTVWXZ") for _ in range(2)) + str(rng.randint(10, 9999))
    return rng.choice(slots(lang)[name.rstrip("0123456789")])


def composed(kind: str, lang: str, each: int) -> Iterator[Text]:
    """`each` pages of every topic or genre of a kind, one to six blocks long, of several shapes."""
    for name, blocks in sections(kind, lang).items():
        for number in range(each):
            rng = draws("composed", kind, lang, name, number)
            chosen = [rng.choice(blocks) for _ in range(rng.randint(1, 6))]
            if kind == "reference":
                chosen = list(dict.fromkeys(chosen))
            text = shaped([filled(block, lang, rng) for block in chosen], lang, rng, broken=0.5 if kind == "raw" else 0.15)
            yield Text(text, f"{kind}-{lang}-{name}", lang, "", str(number))


def shaped(blocks: list[str], lang: str, rng: random.Random, broken: float) -> str:
    """Blocks as extraction may leave them: paragraphs, one line, or with a share of `broken` a line a sentence."""
    draw = rng.random()
    if draw < broken:
        return "\n".join("\n".join(re.split(_STOPS[lang], block)) for block in blocks)
    return ("\n\n" if draw > 0.8 else "\n" if draw > broken + 0.15 else " ").join(blocks)


def soiled(text: Text, raw: tuple[str, ...], share: float) -> Text:
    """The text with a sentence or two of raw blocks before or after, for a share of texts: pages are seldom clean."""
    rng = draws("soiled", text.site, text.page, text.text[:80])
    lang = "zh" if text.lang == "zh" else "en"
    if rng.random() >= share or text.lang not in ("en", "zh"):
        return text
    lines = re.split(_STOPS[lang], filled(rng.choice(raw), lang, rng))
    some = rng.sample(lines, min(len(lines), rng.randint(1, 3)))
    body = [*some, text.text] if rng.random() < 0.5 else [text.text, *some]
    return Text("\n".join(body), text.site, text.lang, "", text.page)
