"""How large and how deep a page is, by scans that cost little beside parsing it."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

VOID = frozenset(b"area base br col embed hr img input link meta param source track wbr !doctype".split())
# An element of the list is closed by the next of its kind, as parsers do.
CLOSES_ITSELF = frozenset(b"p li dt dd tr td th option optgroup thead tbody tfoot a nobr button".split())
NAME = 16  # bytes of a name that are compared
END_OF_NAME = np.isin(np.arange(256), list(b"\0\t\n\v\f\r /<>"))
VOID_NAMES = np.array(sorted(VOID), f"S{NAME}")
TAG = re.compile(rb"<(/?)([a-zA-Z][^\s/<>]{0,63})[^<>]*?(/?)(?=[<>]|\Z)")
RAW_NAMES = (b"iframe", b"script", b"style", b"textarea", b"title", b"xmp")
NO_MARKUP = re.compile(rb"<!--.*?-->|(<(" + b"|".join(RAW_NAMES) + rb")(?=[\s/>])).*?(?=</\2[\s/>])", re.S | re.I)


def count_tags(html: bytes) -> tuple[int, int]:
    """`(elements begun, upper bound of the nesting depth)`, the latter as if only its own end tag closed an element."""
    data: npt.NDArray[np.uint8] = np.frombuffer(html + bytes(NAME + 2), np.uint8)
    at = np.flatnonzero(data[: len(html)] == ord("<"))
    comments = at[data[at + 1] == ord("!")]
    closing = data[at + 1] == ord("/")
    first = data[at + 1 + closing] | 32
    at, closing = (x[(first >= ord("a")) & (first <= ord("z"))] for x in (at, closing))
    if not len(at):
        return 0, 0
    names = data[(at + 1 + closing)[:, None] + np.arange(NAME)]
    names = np.where((names >= ord("A")) & (names <= ord("Z")), names | 32, names)
    names[np.logical_or.accumulate(END_OF_NAME[names], axis=1)] = 0
    keys, which = np.unique(np.ascontiguousarray(names).view(f"S{NAME}").ravel(), return_inverse=True)
    seen = ~_unmarked(html, at, closing, keys, which, comments)
    at, closing, which = at[seen], closing[seen], which[seen]
    if not len(at):
        return 0, 0
    steps = np.where(closing, -1, 1) * ~np.isin(keys, VOID_NAMES)[which]
    return int((~closing).sum()), _depth_bound(steps, which)


def _unmarked(
    html: bytes,
    at: npt.NDArray[np.int64],
    closing: npt.NDArray[np.bool_],
    keys: npt.NDArray[np.bytes_],
    which: npt.NDArray[np.int64],
    comments: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Which tags are none: those in comments, in scripts and the like. Shape (tags,)."""
    raw = np.isin(keys, np.array(RAW_NAMES, f"S{NAME}"))[which]
    begins = np.concatenate([at[raw & ~closing], comments])
    names = np.concatenate([which[raw & ~closing], np.full(len(comments), -1)])
    ends = {name: at[closing & (which == name)] for name in set(names.tolist())}
    hidden = np.zeros(len(at), bool)
    position = 0
    for index in np.argsort(begins):
        start, name = int(begins[index]), int(names[index])
        if start < position:
            continue
        if name < 0:
            end = html.find(b"-->", start + 4) if html.startswith(b"<!--", start) else -1
        else:
            later = np.searchsorted(ends[name], start)
            end = int(ends[name][later]) if later < len(ends[name]) else -1
        if end > 0:
            hidden[np.searchsorted(at, start + 1) : np.searchsorted(at, end)] = True
            position = end
    return hidden


def _depth_bound(steps: npt.NDArray[np.int64], which: npt.NDArray[np.int64]) -> int:
    """The highest number of open elements, where an end tag closes one of its name if one is open, and nothing else.

    `steps` +1 or -1, `which` the number of the name, both of shape (tags,).
    """
    order = np.argsort(which, kind="stable")
    steps, which = steps[order], which[order]
    level = np.cumsum(steps)
    begins = np.flatnonzero(np.diff(which, prepend=-1))
    level -= np.repeat((level - steps)[begins], np.diff(begins, append=len(level)))  # each name counts from 0
    spread = which * (2 * len(level) + 2)  # makes names fall one below the other, so that one pass gives each its own minimum
    lowest = np.minimum.accumulate(level - spread) + spread
    opened = level - np.minimum(lowest, 0)
    opened[1:] -= np.where(which[1:] == which[:-1], opened[:-1], 0)
    change = np.empty_like(opened)
    change[order] = opened
    return int(max(0, np.cumsum(change).max()))


def depth(html: bytes, enough: int) -> int:
    """How deep elements nest, with void and self-closing elements as parsers treat them; stops at `enough`."""
    open_tags: list[bytes] = []
    count: dict[bytes, int] = {}
    deepest = 0
    for closing, name, empty in TAG.findall(NO_MARKUP.sub(rb"\1>", html)):
        tag = name.lower()
        if tag in VOID or empty:
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
