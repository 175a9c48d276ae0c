"""Measures of what is no page though it came with status 200: error and wall notices, template lists, link lists, binary.

The lists of Gopher, C4 and FineWeb miss these: a soft 404 is a few good sentences. The bounds are in `rules.WebPage`.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pipelines.filter.words import CLOSING, SENTENCE_MARKS, is_word

LIST_LINE_WORDS = 5  # a line of fewer words that ends in no mark is an entry of a list, a menu or a table
NOTICE_CHARS = 160  # a phrase speaks for so much of its line: pages without line breaks are one long line
_DIGITS = re.compile(r"\d+")
_BLANKS = re.compile(r"\s+")
_BROKEN = re.compile("[\ufffd\x00-\x08\x0e-\x1f\x7f-\x9f]")
_END = tuple(SENTENCE_MARKS + ":;,\u2026\uff1a\uff1b\u3001\uff0c")


def _read_notices() -> tuple[str, ...]:
    lines = (Path(__file__).parent / "notices.txt").read_text("utf-8").splitlines()
    return tuple(sorted({line for line in lines if line and not line.startswith("#")}))


NOTICES = _read_notices()


def web_measures(text: str) -> dict[str, float]:
    """The web columns of one text; see the table in measures.py."""
    lines = [line for line in (_BLANKS.sub(" ", line).strip() for line in text.split("\n")) if line]
    chars = sum(map(len, lines))
    if not chars:
        return {"notice_ratio": 0.0, "same_shape_line_ratio": 0.0, "list_line_char_ratio": 0.0, "broken_char_ratio": 0.0}
    folded = [line.lower().replace("\u2019", "'") for line in lines]
    page = "\n".join(folded)
    present = [phrase for phrase in NOTICES if phrase in page]
    notice = sum(min(len(line), NOTICE_CHARS * sum(p in line for p in present)) for line in folded) if present else 0
    entries = 0
    shapes: Counter[str] = Counter()
    for line in lines:
        shapes[_DIGITS.sub("0", line)] += 1
        if not line.rstrip(CLOSING).endswith(_END) and _count_words(line) < LIST_LINE_WORDS:
            entries += len(line)
    repeated = sum(count - 1 for count in shapes.values())
    return {
        "notice_ratio": min(notice / chars, 1.0),
        "same_shape_line_ratio": repeated / len(lines),
        "list_line_char_ratio": entries / chars,
        "broken_char_ratio": len(_BROKEN.findall(text)) / len(text),
    }


def _count_words(line: str) -> float:
    if line.isascii():
        return len(line.split())
    wide = sum(c > "\u0dff" and c.isalpha() for c in line)  # about: scripts without blanks, and Hangul
    return max(sum(map(is_word, line.split())), wide / 2)
