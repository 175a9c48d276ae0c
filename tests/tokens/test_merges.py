"""Merges are learnt as by counting all pairs anew each time, and as `tokenizers` learns them; from any tokens to begin with."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from pipelines.tokens.merges import WALL, learn_merges
from pipelines.tokens.presets import byte_characters, byte_level
from pipelines.tokens.train import TokenizerConfig, train_tokenizer

Words = dict[tuple[int, ...], int]


def as_arrays(words: Words) -> tuple[np.ndarray, np.ndarray]:
    symbols = [WALL, *(s for word in words for s in (*word, WALL))]
    counts = [0, *(n for word, n in words.items() for _ in (*word, WALL))]
    return np.array(symbols, np.int32), np.array(counts, np.int64)


def merged(word: tuple[int, ...], pair: tuple[int, int], made: int) -> tuple[int, ...]:
    out, i = [], 0
    while i < len(word):
        both = word[i : i + 2] == pair
        out.append(made if both else word[i])
        i += 2 if both else 1
    return tuple(out)


def by_counting(words: Words, number: int, first: int, allowed: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """The specification."""
    made: list[tuple[int, int]] = []
    refused = set[tuple[int, int]]()
    while len(made) < number:
        pairs = Counter[tuple[int, int]]()
        for word, n in words.items():
            for pair in pairwise(word):
                pairs[pair] += n
        left = [(-n, pair) for pair, n in pairs.items() if n > 1 and pair not in refused]
        if not left:
            break
        pair = min(left)[1]
        if not allowed(*pair):
            refused.add(pair)
            continue
        joined = Counter[tuple[int, ...]]()
        for word, n in words.items():
            joined[merged(word, pair, first + len(made))] += n
        words = joined
        made.append(pair)
    return made


@settings(max_examples=300, deadline=None)
@given(
    words=st.dictionaries(st.lists(st.integers(0, 3), min_size=1, max_size=12).map(tuple), st.integers(1, 5), max_size=8),
    odd=st.booleans(),
)
def test_as_by_counting_anew(words: Words, odd: bool) -> None:
    def allowed(left: int, right: int) -> bool:
        return not (odd and (left + 2 * right) % 3 == 1)

    assert learn_merges(*as_arrays(words), 9, 4, allowed) == by_counting(words, 9, 4, allowed)


@pytest.mark.parametrize(
    ("word", "left"),
    [("aa", "A"), ("aaa", "Aa"), ("aaaa", "AA"), ("aaaaa", "AAa"), ("baab", "bAb"), ("aabaaa", "AbAa")],
)
def test_of_a_run_every_other_pair_is_merged(word: str, left: str) -> None:
    ids = tuple("abA".index(c) for c in word)
    wanted = tuple("abA".index(c) for c in left)
    assert merged(ids, (0, 0), 2) == wanted
    more = {ids: 5, (0, 0): 100}
    assert learn_merges(*as_arrays(more), 8, 2, lambda *_: True) == by_counting(more, 8, 2, lambda *_: True)


def test_as_tokenizers_learns() -> None:
    draw = random.Random(4)
    known = ["".join(draw.choices("abcdeno\u6c34\u5230\u6e20", k=draw.randint(1, 9))) for _ in range(200)]
    text = "".join(draw.choice(known) + draw.choice(" \n,") for _ in range(5000))
    theirs = train_tokenizer([text], TokenizerConfig(vocab_size=900, preset="gpt2", special_tokens=("<|eos|>",)))
    characters = byte_characters()
    vocab = theirs.get_vocab()
    pieces = Counter(piece for piece, _ in byte_level("gpt2").pre_tokenizer.pre_tokenize_str(text))  # type: ignore[union-attr]
    words = {tuple(vocab[c] for c in piece): n for piece, n in pieces.items()}
    names = {i: name for name, i in vocab.items()}
    made = set(names[i] for i in range(257))

    def once(left: int, right: int) -> bool:
        new = names.get(left, "") + names.get(right, "")
        return new not in made and (made.add(new) is None)

    assert set(characters) == set(pre_tokenizers.ByteLevel.alphabet())
    ours = learn_merges(*as_arrays(words), 900 - 257, 257, once)
    assert [names[left] + names[right] for left, right in ours] == [names[i] for i in range(257, 900)]


def test_nothing_is_learnt_of_nothing() -> None:
    assert learn_merges(np.array([WALL], np.int32), np.zeros(1, np.int64), 5, 256, lambda *_: True) == []
    assert learn_merges(*as_arrays({(1, 2): 1}), 5, 256, lambda *_: True) == []
