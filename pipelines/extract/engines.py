"""HTML to text by the engines there are: pure functions of the page, no state between pages.

trafilatura: Barbaresi, ACL 2021 demos. resiliparse: Bevendorff et al., ECIR 2018.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Literal

Engine = Literal["trafilatura", "resiliparse"]
Favour = Literal["precision", "balanced", "recall"]

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
_LINE_END = re.compile(r"\r\n?|[\u0085\u2028\u2029]")
_TRAILING = re.compile(r"[^\S\n]+$", re.M)
_BLANK_LINES = re.compile(r"\n{3,}")


def engine(name: Engine, favour: Favour, tables: bool, comments: bool, rescue: float) -> Callable[[str], str]:
    """The function from a page to its main text, normalised; "" where there is none. Imports the engines' libraries.

    Where the engine finds less than the share `rescue` of what the other one finds, or nothing, the other one's text is taken:
    trafilatura keeps one article of a page of several, and nothing of what nests deeper than 256.
    """
    first, second = _trafilatura(favour, tables, comments), _resiliparse(favour, comments)
    if name == "resiliparse":
        first, second = second, first
    return partial(choose, first, second, rescue)


def choose(first: Callable[[str], str], second: Callable[[str], str], rescue: float, html: str) -> str:
    """The text of a page by the first engine, or by the second; see `engine`."""
    html = _CONTROL.sub("", html)
    text = normalise(first(html))
    if text and not rescue:
        return text
    other = normalise(second(html))
    return text if text and len(text) >= rescue * len(other) else other


def normalise(text: str) -> str:
    """NFC, lines end in one newline and not in blanks, at most one empty line in a row, no control characters."""
    text = _CONTROL.sub("", _LINE_END.sub("\n", text))
    text = _TRAILING.sub("", unicodedata.normalize("NFC", text))
    return _BLANK_LINES.sub("\n\n", text).strip()


def _trafilatura(favour: Favour, tables: bool, comments: bool) -> Callable[[str], str]:
    import logging

    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it reports each odd page

    def run(html: str) -> str:
        return (
            trafilatura.extract(
                html,
                favor_precision=favour == "precision",
                favor_recall=favour == "recall",
                include_comments=comments,
                include_tables=tables,
                deduplicate=False,  # a cache over all pages of the process
                with_metadata=False,
            )
            or ""
        )

    return run


def _resiliparse(favour: Favour, comments: bool) -> Callable[[str], str]:
    from resiliparse.extract.html2text import extract_plain_text

    def run(html: str) -> str:
        text: str = extract_plain_text(
            html, main_content=favour != "recall", alt_texts=False, list_bullets=False, noscript=False, comments=comments
        )
        return text

    return run
