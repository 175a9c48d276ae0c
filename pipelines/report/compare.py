"""Two texts side by side: where they differ, with a little of what surrounds it. Bounded in work and in length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby, takewhile
from operator import itemgetter
from typing import Literal, TypeAlias

# a word with the blanks after it; characters of scripts without blanks (kana, Han and what follows) one by one
_WORD = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]\s*|[^\W\u2e80-\u9fff]+\s*|[^\w\s]\s*|\s+")
MOST_WORDS = 2_000  # of a stretch that is compared word by word; a longer one counts as replaced as a whole
MOST_LINES = 4_000  # above it the commonest lines are not asked for matches
CONTEXT = 90  # characters of equal text on either side of a difference

Stretch: TypeAlias = tuple[bool, str, str]  # whether the two are equal, left, right


@dataclass(frozen=True)
class Span:
    """A stretch of text on one side: `same` on both, `only` here, or `left out` (equal on both; the text says how much)."""

    kind: Literal["same", "only", "left out"]
    text: str


@dataclass(frozen=True)
class Pair:
    """A row: what stands left and what stands right."""

    left: tuple[Span, ...]
    right: tuple[Span, ...]


def compare(left: str, right: str, most: int) -> list[Pair]:
    """Rows of the two texts that begin with their differences in context, about `most` characters a side in all.

    Lines are matched first, then the words (characters in Chinese and Japanese) of lines that differ. Equal texts give one
    row with their beginning.
    """
    result: list[tuple[list[Span], list[Span]]] = [([], [])]
    stretches = list(_merge(_stretches(left, right)))
    shown = 0
    for index, (equal, a, b) in enumerate(stretches):
        if shown > most:
            rest = (sum(map(len, side)) for side in zip(*((x, y) for _, x, y in stretches[index:]), strict=True))
            result.append(tuple([Span("left out", f"{n:,} more characters")] for n in rest))  # type: ignore[arg-type]
            break
        if equal:
            for span in _around(a, first=index == 0, last=index == len(stretches) - 1):
                result[-1][0].append(span)
                result[-1][1].append(span)
                if span.kind == "left out":
                    result.append(([], []))  # a new row, so that both sides stay level
        else:
            result[-1][0].extend(_only(a, most))
            result[-1][1].extend(_only(b, most))
        shown += sum(len(s.text) for s in _around(a, first=False, last=False)) if equal else min(max(len(a), len(b)), most)
    return [Pair(tuple(x), tuple(y)) for x, y in result if x or y]


def _only(text: str, most: int) -> tuple[Span, ...]:
    if not text:
        return ()
    if len(text) <= most:
        return (Span("only", text),)
    return Span("only", text[:most]), Span("left out", f"{len(text) - most:,} more characters")


def _around(text: str, *, first: bool, last: bool) -> tuple[Span, ...]:
    """An equal stretch: its end where a difference follows, its beginning where one came before."""
    if first and last:
        whole = text[: 4 * CONTEXT]
        rest = len(text) - len(whole)
        return (Span("same", whole), *((Span("left out", f"{rest:,} more, equal"),) if rest else ()))
    head, tail = (0 if first else CONTEXT), (0 if last else CONTEXT)
    if len(text) <= head + tail + 40:
        return (Span("same", text),)
    middle = Span("left out", f"{len(text) - head - tail:,} equal characters")
    parts = (Span("same", text[:head].rstrip("\n")), middle, Span("same", text[len(text) - tail :].lstrip("\n")))
    return tuple(p for p in parts if p.text)


def _stretches(left: str, right: str) -> Iterator[Stretch]:
    a, b = left.splitlines(keepends=True), right.splitlines(keepends=True)
    for tag, i, j, k, m in SequenceMatcher(None, a, b, autojunk=len(a) > MOST_LINES).get_opcodes():
        x, y = "".join(a[i:j]), "".join(b[k:m])
        if tag != "replace":
            yield tag == "equal", x, y
            continue
        words = _WORD.findall(x), _WORD.findall(y)
        if max(map(len, words)) > MOST_WORDS:
            yield False, x, y
        else:
            yield from _by_words(*words)


def _by_words(a: Sequence[str], b: Sequence[str]) -> Iterator[Stretch]:
    head = _common(zip(a, b, strict=False))
    tail = _common(zip(reversed(a[head:]), reversed(b[head:]), strict=False))
    yield True, "".join(a[:head]), "".join(b[:head])
    middle = a[head : len(a) - tail], b[head : len(b) - tail]
    for tag, i, j, k, m in SequenceMatcher(None, *middle, autojunk=False).get_opcodes():
        yield tag == "equal", "".join(middle[0][i:j]), "".join(middle[1][k:m])
    yield True, "".join(a[len(a) - tail :]), "".join(b[len(b) - tail :])


def _common(pairs: Iterable[tuple[str, str]]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _merge(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Join neighbours of one kind; an equal blank or mark between two differences is no relief for the eye."""
    some = [s for s in stretches if s[1] or s[2]]
    kinds = [equal for equal, _, _ in some]
    for i in range(1, len(some) - 1):
        if kinds[i] and not some[i - 1][0] and not some[i + 1][0] and not any(map(str.isalnum, some[i][1])):
            kinds[i] = False
    for equal, run in groupby(zip(kinds, some, strict=True), key=itemgetter(0)):
        joined = [s for _, s in run]
        yield equal, "".join(x for _, x, _ in joined), "".join(y for _, _, y in joined)
