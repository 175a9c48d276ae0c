"""What the heuristics know of a language: its stop words and end marks. A language without an entry gets the neutral set.

*Neutral* means: no stop words, so that a rule on them does not apply; the end marks of every script; the bounds of the rule
set itself. It is never the English set. Stop words are compared as they are written (case matters); in languages without
blanks between words they are looked for anywhere in the text.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from pipelines.filter.words import SENTENCE_MARKS


def _read_stop_words() -> dict[str, frozenset[str]]:
    lines = (Path(__file__).parent / "stop_words.txt").read_text("utf-8").splitlines()
    entries = [line.split() for line in lines if line and not line.startswith("#")]
    words = {entry[0]: frozenset(entry[1:]) for entry in entries}
    return words | {"no": words["nb"], "bs": words["hr"], "yue": words["zh"], "wuu": words["zh"]}


STOP_WORDS = _read_stop_words()

WITHOUT_BLANKS = frozenset({"zh", "yue", "wuu", "ja", "th", "lo", "km", "my"})

C4_END_MARKS = (".", "?", "!", '"', "'")  # arXiv 1910.10683, 2.2
_QUOTES = ("\u201d", "\u2019", "\u00bb", "\u300d", "\u300f", "\u2026\u2026")
_ALL_END_MARKS = (*C4_END_MARKS, *(mark for mark in SENTENCE_MARKS if mark not in ".?!"), *_QUOTES)


def end_marks(lang: str | None) -> tuple[str, ...]:
    """What may end a line in C4's sense: C4's own five for English, those of every script and closing quotes for the rest."""
    return C4_END_MARKS if lang == "en" else _ALL_END_MARKS


def count_stop_words(lang: str | None, text: str, tokens: Set[str]) -> int | None:
    """How many different stop words of the language occur; None for a language without a list."""
    words = STOP_WORDS.get(lang or "")
    if words is None:
        return None
    return sum(word in text for word in words) if lang in WITHOUT_BLANKS else len(words & tokens)
