"""Host names as they are compared: IDNA ASCII, Unicode, and the Latin name that a homograph passes for; registered domains.

The mapping is that of UTS 46 without its table of refused characters (a filter has to judge what a registry would refuse):
NFKC, lower case, ideographic full stops as dots, characters that show nothing left out; sharp s and final sigma stay what they
are.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
from tld import get_tld

from pipelines.filter import read_data

CONTEXT, MAY_PASS = -1, 1 << 24  # see fold_table

# Soft hyphen, joiners, zero-width spaces, variation selectors: they show nothing
_UNSEEN = dict.fromkeys([0xAD, 0x34F, 0x180B, 0x180C, 0x180D, 0x2060, 0xFEFF, *range(0x200B, 0x200E), *range(0xFE00, 0xFE10)])
_NO_HOST = re.compile(r"[\x00-\x20\x7f/?#@\\%]")  # what would end a host, or be refused; escapes and NFKC bring it in


def ascii_host(name: str) -> str:
    """A host in IDNA ASCII (punycode), lower case, without a final dot."""
    if not name.isascii():
        name = _fold(name.translate(_UNSEEN)).replace("\u3002", ".")
    name = _NO_HOST.sub("", name).lower().rstrip(".")
    return name if name.startswith("[") else ".".join(_to_ascii(label) for label in re.sub(r"[:\[\]]", "", name).split("."))


def unicode_host(name: str) -> str:
    """The same with its punycode labels decoded; a label that is none stays as it is."""
    return ".".join(_to_unicode(label) for label in ascii_host(name).split("."))


def latin_host(name: str) -> str | None:
    """The ASCII host that a homograph is read as, None where the host is plain ASCII or looks like no other.

    Every letter of `confusables.txt` becomes its Latin one, in any script or mix of scripts; no ASCII letter becomes another.
    """
    shown = unicode_host(name)
    if shown.isascii():
        return None
    folded = ascii_host(shown.translate(confusables()))
    return folded if folded != ascii_host(name) else None


def latin_words(words: str) -> str:
    """Words (of `fold_words`) with their confusable letters as Latin ones, in those that mix Latin with others.

    A word wholly of another script is most often just that: a word of that script.
    """
    return words if words.isascii() else " ".join(map(_fold_mixed, words.split(" ")))


def fold_words(text: str) -> str:
    """The words of a text between single blanks: NFKC, lower case, split at everything but letters, digits and their marks."""
    return " ".join(_fold(text).translate(_WORD_CHARACTERS).split())


@cache
def fold_table() -> npt.NDArray[np.int32]:
    """What `fold_words` and `latin_words` make of single code points, for the kernel `url_text.fold`. Shape (0x20000,).

    The code point it becomes, 0 for a blank, plus MAY_PASS for one that passes for a Latin letter; CONTEXT where that depends
    on its neighbours (marks, jamo, sigma) or it becomes several.
    """
    table = np.zeros(0x20000, np.int32)
    for point in range(0x80, len(table)):
        if 0xD800 <= point < 0xE000:
            continue
        mapped, folded = _fold(chr(point)), fold_words(chr(point))
        joins = unicodedata.category(chr(point))[0] == "M" or unicodedata.combining(chr(point)) or point == 0x3A3
        jamo = 0x1100 <= point < 0x1200 or 0xA960 <= point < 0xA980 or 0xD7B0 <= point < 0xD800
        if joins or jamo or (len(mapped) > 1 and folded):
            table[point] = CONTEXT
        elif folded:
            table[point] = ord(folded) | (MAY_PASS if ord(folded) in confusables() else 0)
    return table


@cache
def confusables() -> dict[int, int]:
    """Code point -> Latin lower-case letter, from confusables.txt."""
    lines = read_data("confusables.txt").splitlines()
    table: dict[int, int] = {}
    for line in lines:
        if not line.startswith("#"):
            letter, *points = line.replace("|", " ").split()
            table |= {int(point, 16): ord(letter) for point in points}
    return table


@lru_cache(maxsize=1 << 16)
def registered_domain(host: str) -> str:
    """The domain that somebody registered below a public suffix, in IDNA ASCII: `example.co.uk` of `www.example.co.uk`.

    By the Public Suffix List, its private part included (`me.github.io` is a domain of its own), as the package `tld` carries
    it. An address in numbers is its own; below an unknown suffix, the last two labels.
    """
    shown = unicode_host(host)
    if host.startswith("[") or re.fullmatch(r"[\d.]+", shown):
        return host
    try:
        known = get_tld(f"http://{shown}/", as_object=True, fail_silently=True, search_private=True)
    except ValueError:  # brackets, blanks: nothing that could be registered
        known = None
    found = getattr(known, "fld", None) or ".".join(shown.split(".")[-2:])
    return ascii_host(found)


class _WordCharacters(dict[int, int]):
    """For str.translate: what belongs to no word becomes a blank. Filled as characters come."""

    def __missing__(self, point: int) -> int:
        self[point] = point if unicodedata.category(chr(point))[0] in "LMN" else 0x20
        return self[point]


_WORD_CHARACTERS = _WordCharacters()


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())


def _to_ascii(label: str) -> str:
    return label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")


def _to_unicode(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except (UnicodeError, OverflowError):
        return label


def _fold_mixed(word: str) -> str:
    if word.isascii() or not any("a" <= c <= "z" for c in word):
        return word
    return word.translate(confusables())
