"""datatrove's four English filters, rule by rule: what the installed package measures on a text, against our `@datatrove`.

The package decides rule after rule and tells the first that fails; here every rule is asked of every text, with the package's
own functions and constants for splitting, duplicates and n-grams, so that nothing is hidden behind an earlier rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.common import Row, row, version
from pipelines.filter.lines import C4LinesConfig, c4_lines
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.rules import Rule, rule_set, rules_of

SETS = ("gopher_repetition@datatrove", "gopher_quality@datatrove", "fineweb@datatrove", "c4")
# Rules whose measure needs no splitting into words.
WITHOUT_WORDS = (
    "chars", "lines", "dup_paragraph_ratio", "dup_paragraph_char_ratio", "dup_line_ratio", "dup_line_char_ratio",
    "bullet_line_ratio", "ellipsis_line_ratio", "end_mark_line_ratio", "short_line_ratio@datatrove", "repeated_line_char_ratio",
    "c4_lorem_ipsum_lines", "c4_curly_bracket_lines",
)  # fmt: skip
CHUNK = 2000


def gopher_and_fineweb(text: str) -> dict[str, float]:
    """What the rules of its Gopher and FineWeb filters compare, by the names of our measures."""
    from datatrove.pipeline.filters import gopher_repetition_filter as repetition
    from datatrove.pipeline.filters.gopher_quality_filter import STOP_WORDS
    from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_words

    words = split_into_words(text, "en")
    real = [word for word in words if any(ch not in PUNCTUATION_SET for ch in word)]
    count, size = max(len(words), 1), max(len(text), 1)
    paragraphs, runs = re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text)
    split, filled = text.splitlines() or [""], [line for line in text.split("\n") if line.strip()]
    found = {
        "chars": len(text),
        "lines": len(filled),
        "words@datatrove": len(real),
        "mean_word_length@datatrove": sum(map(len, real)) / len(real) if real else 0.0,
        "hash_ratio@datatrove": text.count("#") / count,
        "ellipsis_ratio@datatrove": (text.count("...") + text.count("\u2026")) / count,
        "bullet_line_ratio": sum(line.lstrip().startswith(("\u2022", "-")) for line in split) / len(split),
        "ellipsis_line_ratio": sum(line.rstrip().endswith(("...", "\u2026")) for line in split) / len(split),
        "alpha_word_ratio@datatrove": sum(any(map(str.isalpha, word)) for word in words) / count,
        "stop_words@datatrove": len(set(STOP_WORDS) & set(words)),
        "end_mark_line_ratio": sum(line.endswith(tuple(TERMINAL_PUNCTUATION)) for line in filled) / max(len(filled), 1),
        "short_line_ratio@datatrove": sum(len(line) <= 30 for line in filled) / max(len(filled), 1),
        "repeated_line_char_ratio": repetition.find_duplicates(filled)[1] / max(size - text.count("\n"), 1),
        "newline_ratio@datatrove": text.count("\n") / count,
    }
    for name, segments in (("paragraph", paragraphs), ("line", runs)):
        repeats, chars = repetition.find_duplicates(segments)
        found |= {f"dup_{name}_ratio": repeats / len(segments), f"dup_{name}_char_ratio": chars / size}
    for n in (2, 3, 4):
        grams = repetition.get_n_grams(words, n)
        found[f"top_{n}gram_char_ratio@datatrove"] = repetition.find_top_duplicate(grams) / size if grams else 0.0
    for n in range(5, 11):
        found[f"dup_{n}gram_char_ratio@datatrove"] = repetition.find_all_duplicate(words, n) / size
    return {name: float(value) for name, value in found.items()}


def c4_of(filters: dict[str, Any], text: str) -> dict[str, float]:
    """What its C4 filter makes of a text: whether each page rule alone drops it, and the text that it keeps (hashed away: equal
    or not is told in `c4_text`).
    """
    from datatrove.data import Document

    found: dict[str, float] = {}
    for name, judge in filters.items():
        doc = Document(text=text, id="")
        result = judge.filter(doc)
        found[name] = float(result is not True)
        if name == "c4_text":
            found[name] = float(hash(doc.text))
    return found


def c4_filters() -> dict[str, Any]:
    """Its C4 filter with one page rule on at a time, and with none."""
    from datatrove.pipeline.filters import C4QualityFilter

    off = {"filter_lorem_ipsum": False, "filter_curly_bracket": False, "min_num_sentences": -1}
    return {
        "c4_text": C4QualityFilter(**off),
        "c4_lorem_ipsum_lines": C4QualityFilter(**off | {"filter_lorem_ipsum": True}),
        "c4_curly_bracket_lines": C4QualityFilter(**off | {"filter_curly_bracket": True}),
        "c4_sentences": C4QualityFilter(**off | {"min_num_sentences": 5}),
    }


def compare(texts: Sequence[str]) -> tuple[dict[str, dict[str, int]], list[dict[str, Any]]]:
    """For each of our rules how many texts, equal values and equal decisions; and every text on which they decide otherwise."""
    rules = [rule for name in SETS for rule in rules_of(rule_set(name)) if rule.bound is not None]
    counts = {rule.name: {"texts": 0, "values": 0, "decisions": 0} for rule in rules}
    counts["c4.text"] = {"texts": 0, "values": 0, "decisions": 0}
    listed: list[dict[str, Any]] = []
    c4 = c4_filters()
    for start in range(0, len(texts), CHUNK):
        chunk = list(texts[start : start + CHUNK])
        docs = pa.RecordBatch.from_pydict({"text": chunk, "lang": ["en"] * len(chunk)})
        ours = measure(docs, MeasureConfig(dialects=("datatrove",)))
        cleaned = c4_lines(docs, C4LinesConfig(dialect="datatrove"))
        theirs = [gopher_and_fineweb(text) | c4_of(c4, text) for text in chunk]
        same = [float(hash(text)) == t["c4_text"] for text, t in zip(cleaned["text"].to_pylist(), theirs, strict=True)]
        counts["c4.text"]["texts"] += len(chunk)
        counts["c4.text"]["values"] += sum(same)
        counts["c4.text"]["decisions"] += sum(same)
        for rule in rules:
            column = (cleaned if rule.measure.startswith("c4_") else ours)[rule.measure].to_numpy(zero_copy_only=False)
            other = np.array([t[rule.measure] for t in theirs])
            drops = _drops(rule, column)
            peer = other > 0 if rule.measure.startswith("c4_") else _drops(rule, other)
            counts[rule.name]["texts"] += len(chunk)
            counts[rule.name]["decisions"] += int((drops == peer).sum())
            equal = drops == peer if rule.measure.startswith("c4_") else np.isclose(column, other, rtol=1e-12, atol=1e-12)
            counts[rule.name]["values"] += int(equal.sum())
            for i in np.flatnonzero(drops != peer).tolist():
                listed.append(
                    {"rule": rule.name, "bound": rule.bound, "ours": column[i], "datatrove": other[i], "text": chunk[i][:80]}
                )
    return counts, listed


def _drops(rule: Rule, values: Any) -> Any:
    return values < rule.bound if rule.kind == "min" else values > rule.bound


def rows(texts: Sequence[str], results: Path | None = None) -> list[Row]:
    """A row a rule: share of the texts on which we decide as the package does; filters.disagreements.json lists the others."""
    counts, listed = compare(texts)
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        (results / "filters.disagreements.json").write_text(json.dumps(listed, ensure_ascii=True, indent=1) + "\n", "utf-8")
    peer = version("datatrove")
    exact = {rule.name for name in SETS for rule in rules_of(rule_set(name)) if rule.measure in WITHOUT_WORDS} | {"c4.text"}
    made = []
    for name, count in counts.items():
        needs = "no words" if name in exact else "words"
        share, values = count["decisions"] / count["texts"], count["values"] / count["texts"]
        made.append(row(f"same decision {name}", f"share of {count['texts']}, {needs}, values {values:.5f}", share, None, peer))
    return made
