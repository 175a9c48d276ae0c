"""What phrases make up of a text: notices of pages that say nothing but that there is no page, and NeMo's boilerplate."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.filter import read_data
from pipelines.filter.kernels.phrases import Phrases, find
from pipelines.kernel import kernel

NOTICE_CHARS = 160  # a phrase speaks for so much of its line: pages without line breaks are one long line
# NeMo Curator, stages/text/utils/constants.py: policy_substrings; of the long ones the beginning, which nothing else has.
BOILERPLATE = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "privacy overview", "use of cookies", "use cookies",
    "privacy & cookies policy", "privacy and cookies policy", "necessary cookies are absolutely essential for the website",
    "any cookies that may not be particularly necessary for the website",
    "if you continue to browse this site without changing your cookie settings",
)  # fmt: skip
_LOREM_IPSUM = "lorem ipsum"


@cache
def notices() -> Phrases:
    """The phrases of notices.txt, sought anywhere in a line in any case; a straight apostrophe stands for a curly one too."""
    lines = read_data("notices.txt").splitlines()
    phrases = sorted({line for line in lines if line and not line.startswith("#")})
    return Phrases([*phrases, *(phrase.replace("'", "\u2019") for phrase in phrases if "'" in phrase)], edges="any")


@cache
def _boilerplate() -> tuple[Phrases, Phrases]:
    return Phrases(BOILERPLATE, edges="any"), Phrases([_LOREM_IPSUM], edges="any")


@cache
def _every() -> Phrases:
    return Phrases([*notices().phrases, *BOILERPLATE, _LOREM_IPSUM], edges="any")


def phrase_ratios(
    buffer: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], boilerplate: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """For each text of the buffer, the share of notices, and with `boilerplate` that of NeMo's boilerplate.

    Notices: the share of its characters, blanks at the ends of lines aside, in lines with a notice; a line counts whole, but
    with at most NOTICE_CHARS characters for each phrase in it. Boilerplate: the share of its paragraphs (split at two newlines)
    with a phrase of BOILERPLATE, 1 with a lorem ipsum.
    """
    phrases, lorem = _boilerplate()
    suspects = (_every() if boilerplate else notices()).occurring(buffer, offsets)
    ratios: npt.NDArray[np.float64] = _ratios(buffer, offsets, suspects, notices().tables)
    return ratios, _paragraph_ratios(buffer, offsets, suspects, phrases.tables, lorem.tables) if boilerplate else None


@kernel
def _ratios(buffer: Any, offsets: Any, suspects: Any, tables: Any) -> Any:
    ratios = np.zeros(len(suspects))
    for row in np.flatnonzero(suspects):
        first, last = offsets[row], offsets[row + 1]
        chars = noticed = 0
        begin = first
        for i in range(first, last + 1):
            if i == last or buffer[i] == 10:
                length = _characters(buffer, begin, i)
                chars += length
                noticed += min(length, NOTICE_CHARS * find(buffer, begin, i, tables)[0])
                begin = i + 1
        ratios[row] = noticed / chars if chars else 0.0
    return ratios


@kernel
def _characters(buffer: Any, first: int, last: int) -> int:
    """Code points without ASCII blanks at the ends."""
    while first < last and (buffer[first] == 32 or 9 <= buffer[first] <= 13):
        first += 1
    while last > first and (buffer[last - 1] == 32 or 9 <= buffer[last - 1] <= 13):
        last -= 1
    count = 0
    for i in range(first, last):
        count += (buffer[i] & 0xC0) != 0x80
    return count


@kernel
def _paragraph_ratios(buffer: Any, offsets: Any, suspects: Any, phrases: Any, lorem: Any) -> Any:
    ratios = np.zeros(len(suspects))
    for row in np.flatnonzero(suspects):
        first, last = offsets[row], offsets[row + 1]
        if find(buffer, first, last, lorem)[0]:
            ratios[row] = 1.0
            continue
        paragraphs = hits = 0
        i = begin = first
        while i <= last:
            if i == last or (buffer[i] == 10 and i + 1 < last and buffer[i + 1] == 10):
                paragraphs += 1
                hits += find(buffer, begin, i, phrases)[0] > 0
                i += 1
                begin = i + 1
            i += 1
        ratios[row] = hits / paragraphs
    return ratios
