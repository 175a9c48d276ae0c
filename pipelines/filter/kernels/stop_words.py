"""The stop words of every language as one hash table for the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.filter.kernels.tokens import HASH_BASIS, HASH_PRIME, hash_text, mix
from pipelines.filter.languages import STOP_WORDS, WITHOUT_BLANKS, base_code
from pipelines.kernel import inlined, kernel

GOPHER = ("the", "be", "to", "of", "and", "that", "have", "with")  # arXiv 2112.11446, appendix A.1.1
MOST = 255  # words of a language
LONGEST = 16  # characters of a word
_SALT = np.uint64(0x9E3779B97F4A7C15)


class StopWords(NamedTuple):
    """Open addressing over the hash of a word mixed with its language's number; language 0 is Gopher's English."""

    keys: npt.NDArray[np.uint64]
    words: npt.NDArray[np.int32]  # the word's place in the list of its language, from 1
    anywhere: npt.NDArray[np.int32]  # by language: 0 where words are tokens, else the longest word, sought at every character


class StopWordTables(NamedTuple):
    """The table and the number of each language."""

    table: StopWords
    numbers: dict[str, int]

    def rows(self, langs: Sequence[str]) -> npt.NDArray[np.int32]:
        """The language numbers of documents, -1 for one without a list."""
        return np.array([self.numbers.get(lang, self.numbers.get(base_code(lang), -1)) for lang in langs], np.int32)


@cache
def stop_word_tables() -> StopWordTables:
    """Built once a process. Raises ValueError for a language with more than MOST words."""
    lists = [("", frozenset(GOPHER)), *sorted(STOP_WORDS.items())]
    size = 1 << (2 * sum(len(words) for _, words in lists)).bit_length()
    keys, places = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    anywhere = np.zeros(len(lists), np.int32)
    for number, (lang, words) in enumerate(lists):
        if len(words) > MOST:
            raise ValueError(f"stop_words.txt: {lang} has {len(words)} words; at most {MOST} are counted, leave the rarest out")
        if lang in WITHOUT_BLANKS:
            anywhere[number] = max(map(len, words))
        for place, word in enumerate(sorted(words), 1):
            key = salted(hash_text(word), number)
            slot = int(key) & (size - 1)
            while keys[slot]:
                slot = (slot + 1) & (size - 1)
            keys[slot], places[slot] = key, place
    return StopWordTables(StopWords(keys, places, anywhere), {lang: i for i, (lang, _) in enumerate(lists) if lang})


@inlined
def salted(key: Any, number: int) -> Any:
    """The key of a word in a language."""
    return mix(key ^ (np.uint64(number + 1) * _SALT))


@inlined
def place_of(table: Any, key: Any, number: int) -> int:
    """The place of a word (its hash) in the list of a language, from 1; 0 where it is no stop word."""
    wanted = salted(key, number)
    mask = len(table.keys) - 1
    slot = np.int64(wanted) & mask
    while table.keys[slot] != 0:
        if table.keys[slot] == wanted:
            return int(table.words[slot])
        slot = (slot + 1) & mask
    return 0


@kernel
def different(points: Any, n: int, tokens: Any, count: int, table: Any, number: int) -> int:
    """How many different stop words of a language occur among the tokens, or anywhere in a text without blanks."""
    found = np.zeros(MOST + 1, np.bool_)
    longest = table.anywhere[number]
    if longest == 0:
        for k in range(count):
            if tokens.length[k] <= LONGEST:
                found[place_of(table, tokens.hash[k], number)] = True
    else:
        for i in range(n):
            value = HASH_BASIS
            for j in range(i, min(i + longest, n)):
                value = (value ^ np.uint64(points[j])) * HASH_PRIME
                found[place_of(table, mix(value), number)] = True
    return int(found[1:].sum())
