"""How alike an extracted text and the known one are: F1 over bags of words and of 4-grams, blanks folded."""

from __future__ import annotations

import re
from collections import Counter

# A word, or one character of a script written without blanks (Thai, Lao, Hangul, kana, CJK ideographs).
_UNSPACED = "\u0e00-\u0eff\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def f1(found: str, known: str, ngram: int = 1) -> float:
    """F1 of the multisets of n-grams; 1 where both are empty. Texts shorter than `ngram` words are one n-gram."""
    a, b = _bag(found, ngram), _bag(known, ngram)
    if not a and not b:
        return 1.0
    return 2 * (a & b).total() / (a.total() + b.total())


def folded(text: str) -> str:
    """Every run of blanks one space."""
    return " ".join(text.split())


def _bag(text: str, ngram: int) -> Counter[tuple[str, ...]]:
    tokens = _TOKEN.findall(text)
    return Counter(tuple(tokens[i : i + ngram]) for i in range(max(len(tokens) - ngram + 1, min(len(tokens), 1))))
