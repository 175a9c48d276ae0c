"""How large and how deep a page is, by scans that cost little beside parsing it."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

VOID = frozenset(b"area base br col embed hr img input link meta param source track wbr !doctype".split())
# An element of the list is closed by the next of its kind, as parsers do.
CLOSES_ITSELF = frozenset(b"p li dt dd tr td th option optgroup thead tbody tfoot a nobr button".split())
TAG = re.compile(rb"<(/?)([a-zA-Z][^\s/>]{0,63})[^>]*?(/?)>|<!--.*?-->|<!\[CDATA\[.*?\]\]>", re.S)
RAW = re.compile(rb"<(script|style|textarea|title|noscript|iframe|xmp)\b[^>]*>.*?</\1\s*>", re.S | re.I)


def count_tags(html: bytes) -> tuple[int, int]:
    """`(elements begun, upper bound of the nesting depth)`: as if nothing closed itself; scripts and comments count too."""
    data: npt.NDArray[np.uint8] = np.frombuffer(html, np.uint8)
    after = data[1:][data[:-1] == ord("<")]
    letter = after | 32
    opens = (letter >= ord("a")) & (letter <= ord("z"))
    steps = opens.astype(np.int32) - (after == ord("/"))
    return int(opens.sum()), _highest(steps)


def _highest(steps: npt.NDArray[np.int32]) -> int:
    """The largest rise of the running sum over any earlier low: a stray closing tag lowers nothing."""
    if not len(steps):
        return 0
    level = np.cumsum(steps)
    return int((level - np.minimum(np.minimum.accumulate(level), 0)).max())


def depth(html: bytes, enough: int) -> int:
    """How deep elements nest, with void and self-closing elements as parsers treat them; stops at `enough`."""
    open_tags: list[bytes] = []
    count: dict[bytes, int] = {}
    deepest = 0
    for closing, name, empty in TAG.findall(RAW.sub(b"", html)):
        tag = name.lower()
        if not tag or tag in VOID or empty:
            continue
        if closing:
            while count.get(tag, 0):
                top = open_tags.pop()
                count[top] -= 1
                if top == tag:
                    break
            continue
        if tag in CLOSES_ITSELF and open_tags and open_tags[-1] == tag:
            continue
        open_tags.append(tag)
        count[tag] = count.get(tag, 0) + 1
        deepest = max(deepest, len(open_tags))
        if deepest >= enough:
            break
    return deepest
