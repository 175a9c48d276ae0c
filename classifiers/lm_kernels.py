"""Kernels of the n-gram model: keys of n-grams, a table of them, and what a text's tokens cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from classifiers import features
from classifiers.jit import kernel
from classifiers.words import word_hash

UNKNOWN, BEGIN, END = 1, 2, 3  # tokens that no text has
FIRST = 16  # hashes of words begin here
BACK_ZERO = 64  # stored step of a back-off weight of 1; they may lie above


@kernel
def insert(entries: np.ndarray, slots: np.ndarray) -> None:
    """Put entries (hash << 32 | value << 8 | back-off) into a table that is a power of 2, and larger."""
    mask = np.uint64(len(slots) - 1)
    for entry in entries:
        at = (entry >> np.uint64(32)) & mask
        while slots[at] != 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = entry


@kernel
def look_up(slots: np.ndarray, key: np.uint64) -> int:
    """Value << 8 | back-off of an n-gram, -1 where it is not there."""
    mask = np.uint64(len(slots) - 1)
    mine = key >> np.uint64(32)
    at = mine & mask
    while slots[at] != 0:
        if slots[at] >> np.uint64(32) == mine:
            found: Any = np.int64(slots[at] & np.uint64(0xFFFF))
            return int(found)
        at = (at + np.uint64(1)) & mask
    return -1


@kernel
def _longer(key: np.uint64, token: np.uint64) -> np.uint64:
    """The key of an n-gram with a token before it; of a single token, `key` is 0."""
    key = (key ^ token) * np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return key ^ (key >> np.uint64(29))


@kernel
def keys(stream: np.ndarray, order: int) -> np.ndarray:
    """Keys (order, tokens) of the n-grams that end at each token; 0 where there are too few before it."""
    keys = np.zeros((order, len(stream)), np.uint64)
    for i in range(len(stream)):
        key = np.uint64(0)
        for n in range(min(order, i + 1)):
            key = _longer(key, stream[i - n])
            keys[n, i] = key
    return keys


@kernel
def tokens_of(
    data: np.ndarray, start: int, end: int, klass: np.ndarray, fold: np.ndarray, limit: int, blanks: bool, out: np.ndarray
) -> int:
    """The tokens of a text behind BEGIN; of words between blanks, each line with a BEGIN and an END. How many they are."""
    end = min(end, start + limit)
    if not blanks:
        out[0] = BEGIN
        return 1 + features.tokenise(data, start, end, klass, fold, out[1:], np.zeros(10, np.float64))
    used = 0
    i = start
    fresh = True
    while i <= end:
        begin = i
        while i < end and data[i] > 32:
            i += 1
        if i > begin:
            if fresh:
                out[used] = BEGIN
                used += 1
                fresh = False
            out[used] = np.uint64(word_hash(data, begin, i) + FIRST)
            used += 1
        if (i >= end or data[i] == 10) and not fresh:
            out[used] = END
            used += 1
            fresh = True
        i += 1
    return used


@kernel
def score(
    data: np.ndarray, offsets: np.ndarray, klass: np.ndarray, fold: np.ndarray, limit: int, blanks: bool, order: int,
    slots: np.ndarray, tokens: np.ndarray, sums: np.ndarray, counts: np.ndarray,
) -> None:  # fmt: skip
    """Sums of -log p of the tokens of each text, in steps (N,), and how many there are (N,)."""
    now, before = np.zeros(order, np.uint64), np.zeros(order, np.uint64)
    last = np.zeros(order, np.uint64)  # tokens before, the latest first
    for doc in range(len(offsets) - 1):
        used = tokens_of(data, offsets[doc], offsets[doc + 1], klass, fold, limit, blanks, tokens)
        have = 0  # tokens before that count
        for t in range(used):
            token = tokens[t]
            now[0] = _longer(np.uint64(0), token)
            found = look_up(slots, now[0])
            if token != BEGIN:
                if found < 0:
                    token = np.uint64(UNKNOWN)
                    now[0] = _longer(np.uint64(0), token)
                    found = look_up(slots, now[0])
                most = min(order, have + 1)
                for n in range(1, most):
                    now[n] = _longer(now[n - 1], last[n - 1])
                cost = 255 if found < 0 else found >> 8
                lost = 0
                for n in range(most - 1, 0, -1):
                    entry = look_up(slots, now[n])
                    if entry >= 0:
                        cost = entry >> 8
                        break
                    context = look_up(slots, before[n - 1])
                    if context >= 0:
                        lost += (context & 255) - BACK_ZERO
                sums[doc] += cost + lost
                counts[doc] += 1
            else:
                have = 0
            for n in range(order - 1, 0, -1):
                last[n] = last[n - 1]
            last[0] = token
            before[:] = now
            have = min(have + 1, order - 1)
