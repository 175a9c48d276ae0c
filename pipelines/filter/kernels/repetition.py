"""Repeated lines, paragraphs and n-grams in kernels: hash tables over 64-bit hashes, every measure in time linear in the text.

The readings of Gopher's table A1 (arXiv 2112.11446) differ; each has its figures here, `measures.py` says which is which:

| | repeats counted | duplicate n-grams | over |
|---|---|---|---|
| ours, datatrove | after the first copy | from the left, a repeat is jumped over: no overlaps | characters of the text |
| DCLM, RedPajama | all copies | words covered by any repeated n-gram | characters of words |
| dolma | all copies | characters of all repeated n-grams, overlaps counted again | characters of all n-grams |
| NeMo | after the first copy | repeats after the first copy, overlaps once, blanks between counted | characters of the text |

An n-gram can only repeat where the (n-1)-gram at its place does, so after the first table only such places are looked at again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.kernel import inlined, kernel

MIN_N, MAX_N = 2, 10
_STEP = np.uint64(0x9E3779B97F4A7C15)  # golden ratio; odd, so multiplication is a bijection


class Table(NamedTuple):
    """A hash table for one document at a time: slots hold the place of a key's first item, by which its copies are counted.

    Small on purpose: for a usual page it stays in the first-level cache.
    """

    slot: npt.NDArray[np.int32]  # the first place, -1 where empty
    copies: npt.NDArray[np.int32]  # by place


class Grams(NamedTuple):
    """Scratch for n-grams of one document, by token."""

    hash: npt.NDArray[np.uint64]  # of the n-gram that begins here
    end: npt.NDArray[np.int64]  # characters up to this token
    place: npt.NDArray[np.int32]  # where n-grams that may repeat begin, in order
    first: npt.NDArray[np.int32]  # where the same n-gram began first
    scanned: npt.NDArray[np.int32]  # the largest n for which the scan from the left has seen the n-gram that begins here


def table(items: int) -> Table:
    """A table for at most `items` keys: 12 bytes an item or more."""
    return Table(np.zeros(mask_for(items) + 1, np.int32), np.zeros(max(items, 1), np.int32))


def grams(tokens: int) -> Grams:
    """Scratch for documents of at most `tokens` tokens."""
    size = max(tokens, 1)
    return Grams(
        np.empty(size, np.uint64),
        np.empty(size + 1, np.int64),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
    )


@kernel
def mask_for(items: int) -> int:
    """The mask of the smallest table that holds so many keys at most half full."""
    size = 16
    while size < 2 * items:
        size *= 2
    return size - 1


@kernel
def clear(seen: Any, items: int) -> int:
    """Empty the table for so many items; returns its mask."""
    mask = mask_for(items)
    seen.slot[: mask + 1] = -1
    return mask


@inlined
def add(seen: Any, hashes: Any, i: int, mask: int) -> int:
    """Count item i, whose hash is hashes[i]; returns the place of the first item with this hash (i where it is the first)."""
    slots, counts = seen.slot, seen.copies
    key = hashes[i]
    slot = np.uint64(key ^ (key >> np.uint64(32))) & np.uint64(mask)
    while True:
        at = slots[slot]
        if at < 0:
            slots[slot] = i
            counts[i] = 1
            return i
        if hashes[at] == key:
            counts[at] += 1
            return int(at)
        slot = (slot + np.uint64(1)) & np.uint64(mask)


@kernel
def repeats(hashes: Any, lengths: Any, number: int, seen: Any, out: Any) -> None:
    """Of segments (hash, length): out[0] repeats after the first copy, out[1] their characters, out[2] copies of repeated ones,
    the first included, out[3] their characters, out[4] characters of all.
    """
    mask = clear(seen, number)
    after = after_chars = firsts = first_chars = chars = 0
    for i in range(number):
        chars += lengths[i]
        first = add(seen, hashes, i, mask)
        if first != i:
            after += 1
            after_chars += lengths[i]
            if seen.copies[first] == 2:
                firsts += 1
                first_chars += lengths[first]
    out[0] = after
    out[1] = after_chars
    out[2] = after + firsts
    out[3] = after_chars + first_chars
    out[4] = chars


@kernel
def repeats_of_lines(lines: Any, number: int, hashes: Any, lengths: Any, seen: Any, out: Any) -> int:
    """`repeats` over the lines that are not blank; returns how many they are."""
    made = 0
    for i in range(number):
        if lines.inner_first[i] < lines.inner_last[i]:
            hashes[made] = lines.hash[i]
            lengths[made] = lines.length[i]
            made += 1
    repeats(hashes, lengths, made, seen, out)
    return made


@kernel
def word_statistics(hashes: Any, count: int, seen: Any) -> tuple[int, float]:
    """Different words, and the entropy of their distribution in nats."""
    mask = clear(seen, count)
    unique = 0
    for k in range(count):
        unique += add(seen, hashes, k, mask) == k
    entropy, log = 0.0, np.log(max(count, 1))
    for slot in range(mask + 1):
        first = seen.slot[slot]
        if first >= 0:
            copies = seen.copies[first]
            entropy += copies * (log - np.log(copies)) if copies > 1 else log
    if count:
        entropy /= count
    return unique, entropy


@kernel
def ngrams(hashes: Any, lengths: Any, number: int, step: int, seen: Any, work: Any, out: Any) -> None:
    """The n-grams of `number` tokens, n = 2..10, an n-gram being n * step tokens; `out` is (9, 9), a row an n:

    out[:, 0] count of the most frequent n-gram (0 where there is none), out[:, 1] characters of its tokens, the first of
    equals, out[:, 2] the most characters among equals; of repeated n-grams: out[:, 3] characters of a scan from the left that
    jumps over repeats, out[:, 4] of tokens covered by any, out[:, 5] of all copies, overlaps again, out[:, 6] as NeMo counts
    them, blanks included; out[:, 7] characters of all n-grams; out[:, 8] the first token of the most frequent n-gram.
    """
    out[:] = 0
    grams, end, place = work.hash, work.end, work.place
    total = 0
    for i in range(number):
        grams[i] = hashes[i]
        end[i] = total
        total += lengths[i]
    end[number] = total
    width, alive = 1, -1  # -1: every place
    for n in range(2, 11):
        wide = n * step
        places = number - wide + 1
        if places <= 0:
            return
        row = out[n - 2]
        row[7] = _all_chars(lengths, number, wide, total)
        row[0] = 1
        row[1] = row[2] = end[wide]
        while width < wide:  # the hash of one token more
            if alive < 0:
                for i in range(number - width):
                    value = (grams[i] ^ (hashes[i + width] * _STEP)) * _STEP
                    grams[i] = value ^ (value >> np.uint64(29))
            else:
                for k in range(alive):
                    i = place[k]
                    if i + width < number:
                        value = (grams[i] ^ (hashes[i + width] * _STEP)) * _STEP
                        grams[i] = value ^ (value >> np.uint64(29))
            width += 1
        alive = _keep_repeated(seen, work, alive, places)
        if alive:
            _repeated(lengths, n, wide, alive, seen, work, row)


@kernel
def _keep_repeated(seen: Any, work: Any, alive: int, places: int) -> int:
    """Leave the places where an n-gram begins that occurs more than once, with its first place; returns how many."""
    place, first, counts = work.place, work.first, seen.copies
    every = alive < 0
    items = places if every else alive
    mask = clear(seen, items)
    made = 0
    for k in range(items):
        i = k if every else place[k]
        if i < places:
            place[made] = i
            first[made] = add(seen, work.hash, i, mask)
            made += 1
    items, made = made, 0
    for k in range(items):
        if counts[first[k]] > 1:
            place[made] = place[k]
            first[made] = first[k]
            made += 1
    if every:
        for k in range(made):
            work.scanned[place[k]] = 0
    return made


@kernel
def _all_chars(lengths: Any, number: int, wide: int, total: int) -> int:
    """Characters of all n-grams: each token counts in up to `wide` of them."""
    most = min(wide, number - wide + 1)
    result = total * most
    for i in range(most - 1):  # tokens near the ends are in fewer
        result -= (most - 1 - i) * (lengths[i] + lengths[number - 1 - i])
    return result


@kernel
def _repeated(lengths: Any, n: int, wide: int, alive: int, seen: Any, work: Any, out: Any) -> None:
    end, place, first, scanned, counts = work.end, work.place, work.first, work.scanned, seen.copies
    best = best_at = best_size = longest = 0
    jump = covered_to = overlap_to = 0
    jumped = every = nemo = cover = 0
    for k in range(alive):
        i, start = place[k], first[k]
        size = end[i + wide] - end[i]
        count = counts[start]
        every += size
        if count > best:
            best, best_at, best_size, longest = count, i, size, size
        elif count == best and size > longest:
            longest = size
        cover += end[i + wide] - end[max(i, covered_to)]  # words that no repeated n-gram before has covered
        covered_to = i + wide
        if i >= jump:  # the scan from the left knows only what it has not jumped over
            if scanned[start] == n:
                jumped += size
                jump = i + wide
            else:
                scanned[start] = n
        if start != i:
            overlap = max(overlap_to - i, 0)
            nemo += end[i + wide] - end[i + overlap] + min(wide - overlap, wide - 1)
            overlap_to = i + wide
    out[0] = best
    out[1] = best_size
    out[2] = longest
    out[3] = jumped
    out[4] = cover
    out[5] = every
    out[6] = nemo
    out[8] = best_at
