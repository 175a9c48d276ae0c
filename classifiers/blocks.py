"""The blocks of a text, gathered by language: which of them are words at all, and which go together."""

from __future__ import annotations

import numpy as np

from classifiers.jit import kernel
from classifiers.ngrams import (
    BEGIN,
    DENSE,
    DOC,
    END,
    FOREIGN,
    HAN_JA,
    HANS,
    HANT,
    KANA,
    KANA_SCRIPT,
    MARKS,
    MODELLED,
    NATURE,
    PLACES,
    RUNS,
    SCRIPT,
    SOLID,
    STEP,
    WEIGHT,
    WORDS,
    NgramModel,
)
from classifiers.scripts import NUMBER

GROUPS = 5  # languages told apart in one text
# A text is words where their share of the characters is at least LEAST; where signs of code are frequent, only words in runs of
# four and more count, and a larger share is asked. Real pages of tables and lists lie above .6, formulas and code below .5.
LEAST = 0.3
MARKED = 0.02  # share of code signs from which runs alone count
MORE = 5.0  # by how much the share asked grows with that of the signs,
MOST = 0.55  # and its end
# Or else: blocks of at least SENTENCE characters, PURE of them in runs of words, make up SENTENCES of it (prose about code).
SENTENCE, PURE, SENTENCES = 90, 0.8, 0.2
# A second language in the same script: what its blocks gain, in nats, together and a letter, and how many letters they have.
GAIN = 12.0
GAIN_EACH = 0.12
GAIN_PLACES = 32
KANA_SHARE = 0.05  # of the characters from which a text in Han characters is Japanese

# Columns of a group
G_DOC, G_SCRIPT, G_WORDS, G_PLACES, G_FOREIGN, G_HANS, G_HANT, G_HAN_JA, G_FACTS = range(9)
_HANI = NUMBER["Hani"]


@kernel
def _prose(words: float, runs: float, solid: float, marks: float) -> bool:
    share = marks / solid
    found = (words - (words - runs) * min(1.0, share / MARKED)) / solid
    return found >= LEAST + min(MOST - LEAST, MORE * share)


@kernel
def gather(
    facts: np.ndarray, sums: np.ndarray, texts: int, script_of: np.ndarray, kin: np.ndarray,
    nature: np.ndarray, of_block: np.ndarray, groups: np.ndarray, totals: np.ndarray, solid: np.ndarray,
) -> int:  # fmt: skip
    """Gather blocks of one language; how many groups there are.

    `of_block` (blocks,) becomes the group of each block, -1 where it is no words; `groups` (GROUPS a text, G_FACTS) and
    `totals` (GROUPS a text, L), sums of the letter model in steps, are filled; `solid` (texts,) becomes the
    characters that the blocks stand for. A text that is no words as a whole has no group.
    """
    langs = sums.shape[1]
    used = 0
    at = 0
    while at < len(facts):
        doc = facts[at, DOC]
        end = at
        words = runs = marks = read = 0.0
        while end < len(facts) and facts[end, DOC] == doc:
            dense = facts[end, WORDS] if nature[facts[end, SCRIPT]] & DENSE else 0  # a letter there says as much as two
            words += facts[end, WORDS] + dense
            runs += facts[end, RUNS] + dense
            read += facts[end, SOLID] + dense
            marks += facts[end, MARKS]
            solid[doc] += facts[end, SOLID] * facts[end, WEIGHT]
            end += 1
        prose = words > 0 and _prose(words, runs, read, marks)
        whole = 0.0
        for b in range(at, end):
            if facts[b, RUNS] >= SENTENCE and facts[b, RUNS] >= PURE * facts[b, SOLID]:
                whole += facts[b, RUNS]
        prose = prose or (read > 0 and whole >= SENTENCES * read)
        some = False
        for b in range(at, end):
            of_block[b] = -1
            if prose and facts[b, WORDS] > 0 and _prose(facts[b, WORDS], facts[b, RUNS], facts[b, SOLID], facts[b, MARKS]):
                of_block[b] = -2
                some = True
        first = used
        if prose:
            for b in range(at, end):
                if not some and facts[b, WORDS] > 0:
                    of_block[b] = -2
                if facts[b, SCRIPT] in (_HANI, KANA_SCRIPT):
                    facts[b, SCRIPT] = KANA_SCRIPT if facts[b, KANA] > KANA_SHARE * facts[b, WORDS] else _HANI
            for b in range(at, end):
                if of_block[b] == -2 and used - first < GROUPS:
                    used += _split(
                        facts, sums, at, end, facts[b, SCRIPT], script_of, kin, nature, of_block, used, GROUPS - (used - first)
                    )
            for b in range(at, end):
                g = of_block[b]
                if g < 0:
                    of_block[b] = -1
                    continue
                groups[g, G_DOC] = doc
                groups[g, G_SCRIPT] = facts[b, SCRIPT]
                # a list of names says less of a text's language than running words
                groups[g, G_WORDS] += (facts[b, WORDS] + facts[b, RUNS]) * facts[b, WEIGHT] // 2
                groups[g, G_PLACES] += facts[b, PLACES]
                groups[g, G_FOREIGN] += facts[b, FOREIGN]
                groups[g, G_HANS] += facts[b, HANS]
                groups[g, G_HANT] += facts[b, HANT]
                groups[g, G_HAN_JA] += facts[b, HAN_JA]
                for lang in range(langs):
                    totals[g, lang] += sums[b, lang]
        at = end
    return used


@kernel
def _split(
    facts: np.ndarray, sums: np.ndarray, begin: int, end: int, script: int, script_of: np.ndarray, kin: np.ndarray,
    nature: np.ndarray, of_block: np.ndarray, group: int, most: int,
) -> int:  # fmt: skip
    """Give the blocks of a script that wait (-2) their groups, numbered from `group`; how many groups."""
    langs = sums.shape[1]
    chosen = np.full(GROUPS, -1, np.int64)
    count = 1
    if nature[script] & MODELLED:
        total = np.zeros(langs, np.int64)
        for b in range(begin, end):
            if of_block[b] == -2 and facts[b, SCRIPT] == script:
                for lang in range(langs):
                    total[lang] += sums[b, lang]
        best = -1
        for lang in range(langs):
            if script_of[lang] == script and (best < 0 or total[lang] > total[best]):
                best = lang
        chosen[0] = best
        while count < most:
            best, best_gain = -1, 0.0
            for lang in range(langs):
                related = False
                for c in range(count):
                    related = related or (kin[lang] >= 0 and kin[lang] == kin[chosen[c]])
                if script_of[lang] != script or related:
                    continue
                gain, places = 0.0, 0.0
                for b in range(begin, end):
                    if of_block[b] == -2 and facts[b, SCRIPT] == script:
                        now = sums[b, chosen[0]]
                        for c in range(1, count):
                            now = max(now, sums[b, chosen[c]])
                        if sums[b, lang] > now:
                            gain += (sums[b, lang] - now) * STEP
                            places += facts[b, PLACES]
                if gain > best_gain and gain > GAIN and gain > GAIN_EACH * places and places >= GAIN_PLACES:
                    best, best_gain = lang, gain
            if best < 0:
                break
            chosen[count] = best
            count += 1
    number = np.full(GROUPS, -1, np.int64)
    made = 0
    for b in range(begin, end):
        if of_block[b] == -2 and facts[b, SCRIPT] == script:
            mine = 0
            for c in range(1, count):
                if sums[b, chosen[c]] > sums[b, chosen[mine]]:
                    mine = c
            if number[mine] < 0:
                number[mine] = group + made
                made += 1
            of_block[b] = number[mine]
    return made


@kernel
def excerpt(
    data: np.ndarray, facts: np.ndarray, of_block: np.ndarray, wanted: np.ndarray, limit: int, out: np.ndarray, ends: np.ndarray
) -> None:
    """Copy up to about `limit` characters of each wanted group, evenly from its blocks, into `out`; it ends at `ends[g]`.

    `wanted` (groups,) bool; `out` holds 4 * (limit + 64) bytes a group. Control characters become blanks.
    """
    blocks = np.zeros(len(wanted), np.int64)
    for b in range(len(facts)):
        if of_block[b] >= 0:
            blocks[of_block[b]] += 1
    room = 4 * (limit + 64)
    taken = np.zeros(len(wanted), np.int64)
    for g in range(len(wanted)):
        ends[g] = g * room
    for b in range(len(facts)):
        g = of_block[b]
        if g < 0 or not wanted[g] or taken[g] >= limit:
            continue
        share = max(48, limit // blocks[g])
        to = ends[g]
        count = 0
        for i in range(facts[b, BEGIN], facts[b, END]):
            byte = data[i]
            begins = (byte & 0xC0) != 0x80
            if begins and (taken[g] + count >= limit or count >= share) and (byte <= 32 or count >= share + 24):
                break
            if to >= (g + 1) * room - 5 or count >= limit + 48:
                break
            out[to] = 32 if byte < 32 or byte == 127 else byte
            to += 1
            count += begins
        out[to] = 32
        ends[g] = to + 1
        taken[g] += count


def group(
    model: NgramModel, facts: np.ndarray, sums: np.ndarray, texts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Groups (G, G_FACTS), their sums (G, L), the group of each block (-1: no words), and characters read (texts,).

    A text has at most GROUPS groups, in the order of their first blocks; one without words has none.
    """
    groups, totals = np.zeros((GROUPS * texts, G_FACTS), np.int64), np.zeros((GROUPS * texts, len(model.langs)), np.int64)
    of_block, solid = np.zeros(len(facts), np.int64), np.zeros(texts, np.int64)
    used = gather(facts, sums, texts, model.script_of, model.kin, NATURE, of_block, groups, totals, solid)
    return groups[:used], totals[:used], of_block, solid
