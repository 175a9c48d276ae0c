"""`python -m classifiers.data.ship DATA`: the shipped models from the training sets in DATA, with their cards."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from classifiers import perplexity
from classifiers.__main__ import main as verb
from classifiers.data.sets import LANGUAGES
from classifiers.labelled import site_share

MODELS = Path(__file__).parents[1] / "models"
HELD = 0.2  # share of the sites that a perplexity model does not learn from
LICENCE = (
    "of the model Apache-2.0. The texts: written for this project (Apache-2.0), examples/ (examples/SOURCES.md), and "
    "the Debian packages of classifiers/data/packages.tsv under the licences named there; the model keeps hashes and no text."
)
LIMITS = (
    " The training texts are manuals, dictionaries, books of the nineteenth century and pages put together from "
    "paragraphs and slotted blocks, in English and Chinese; of other languages only manuals' texts and lists. Not a "
    "judgement of truth or worth: look at what a threshold drops before using it, above all in other languages than these "
    "two. Make the training sets first: `python -m classifiers.data out/classifiers`."
)
CARD = """# {name}

An n-gram model (order 3, Kneser-Ney) of reference text in one language (`{lang}`): perplexity a token, and buckets.

## Use
Head, middle and tail as in CCNet (arXiv 1911.00359): a low perplexity is like books, manuals and dictionaries.
{limits}

## Data
{learned:,} texts with {tokens:,} tokens. Licence: {licence}

## Figures
Median perplexity of {held:,} reference texts of held-out sites: {reference:,.0f}; of {raw:,} raw texts: {crawl:,.0f}.
Head ends at {head:,.0f}, middle at {middle:,.0f}: the 30th and 60th percentiles of {count:,} of each.

## Made by
    python -m classifiers.data out/classifiers
    python -m classifiers.data.ship out/classifiers
"""


PLAIN = {"words": "1", "measures": "true", "bits": "16", "max_bytes": "10000"}


@dataclass(frozen=True)
class Shipped:
    """A model: the label of its score, its purpose, settings, and how it is split.

    `seed`: the first that brings two sites of every label, and none of the three largest, into what is held out
    (`quality`: 0); `held`: share of the sites that is validation, and test.
    """

    name: str
    label: str
    use: str
    settings: Mapping[str, str] = field(default_factory=lambda: PLAIN)
    seed: int = 0
    held: float = 0.2


WORDS = PLAIN | {"measures": "false"}  # words alone decide, not the shape of a text
LETTERS = WORDS | {"letters": "3,3", "bits": "17"}  # of words in languages of which little is there
SHIPPED = (
    Shipped(
        "quality", "reference", "Quality of web pages: text as of a reference work against what a crawl is full of.", held=0.15
    ),
    Shipped("domain", "general", "Class of knowledge of a page, for the weights of a mixture.", LETTERS, 37, 0.1),
    Shipped("code", "code", "Whether a page is about programs: listings, manuals, tutorials.", seed=11),
    Shipped("math", "math", "Whether a page is mathematics or reasoning with numbers.", seed=13),
    Shipped("toxic", "toxic", "Adult and abusive English text: words decide, medical and social subjects pass.", WORDS, 2),
)


def main() -> int:
    """Fit every model; the exit code of the first that fails."""
    data = Path(sys.argv[1])
    for model in SHIPPED:
        command = [
            "fit", (data / f"{model.name}.jsonl.gz").as_posix(), "--out", f"classifiers/models/{model.name}",
            "--kind", "hashed",
            *(word for name, value in model.settings.items() for word in ("--set", f"{name}={value}")), "--label", model.label,
            "--validation", str(model.held), "--test", str(model.held), "--seed", str(model.seed),
            "--use", model.use + LIMITS, "--licence", LICENCE,
        ]  # fmt: skip
        if code := verb(command):
            return code
    for lang in LANGUAGES:
        _perplexity(data, lang)
    return 0


def _perplexity(data: Path, lang: str) -> None:
    """Learn from the reference texts of four sites in five; the others, with as many raw texts, stand for a crawl."""
    reference, crawl = _texts(data / f"reference.{lang}.jsonl.gz", lang), _texts(data / "quality.jsonl.gz", lang)
    learned = [row["text"] for row in reference if site_share(row["site"], 0) >= HELD]
    held = [row["text"] for row in reference if site_share(row["site"], 0) < HELD]
    raw = [row["text"] for row in crawl if row["label"] == "raw"]
    count = min(len(held), len(raw))
    model = perplexity.fit(pa.array(learned, pa.large_string()), perplexity.Config(lang, limit=100_000))
    model = perplexity.with_reference(model, pa.array(held[:count] + raw[:count], pa.large_string()))
    medians = [float(np.nanmedian(model.score(pa.array(texts, pa.large_string())))) for texts in (held, raw)]
    name = f"perplexity-{lang}"
    card = CARD.format(
        name=name, lang=lang, learned=len(learned), tokens=model.facts["tokens"], held=len(held), raw=len(raw), count=count,
        head=model.cuts[0], middle=model.cuts[1], reference=medians[0], crawl=medians[1], limits=LIMITS.strip(),
        licence=LICENCE,
    )  # fmt: skip
    perplexity.save(model, MODELS / name, card)


def _texts(path: Path, lang: str) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [row for row in map(json.loads, file) if row["lang"] == lang]


if __name__ == "__main__":
    sys.exit(main())
