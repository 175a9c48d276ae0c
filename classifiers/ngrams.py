"""A letter model of languages: which of them write such words, read from Arrow's UTF-8 buffers without a Python object a text.

For each letter of a word the model has the chance of it after the up to four letters before it, in 62 languages; where the
longest sequence is not stored for a language, the longest that is stored counts, less UNSEEN for each letter that it is
shorter. Sums of integers: the same on every machine. `ngrams.npz` is made by `classifiers.distil`, which says from what.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import numpy as np

from classifiers import scripts
from classifiers.jit import kernel
from classifiers.scripts import BLANK, DIGIT, IGNORED, JOINER, LETTER, MARK, NUMBER, STRONG

MODEL = files("classifiers").joinpath("ngrams.npz")
FORMAT = 1
ORDERS = 5  # letters of the longest sequence
EDGE, FIRST = 1, 2  # numbers of a word's edge and of the first letter; 0 is a letter that the model lacks
FLOOR = -12.0  # the least value, in nats, stored as 0
STEP = 0.125  # nats of a stored step
UNSEEN = 1.0  # nats lost for each letter that a sequence is shorter than the longest

# Languages so close that single lines do not tell them apart: a text is not divided between them.
KIN = (("hr", "bs", "sr"), ("nb", "nn"), ("id", "ms"), ("zu", "xh"), ("st", "tn"))

# What is read of a text: all of it up to WHOLE bytes, else WINDOWS pieces at equal distances.
WHOLE = 1400
WINDOWS = 8
LETTERS = 72  # characters of a piece
REACH = 1024  # bytes of a piece, blanks and all
BLOCKS = 48  # parts (lines) of a text that are told apart
SHORT = 16  # letters under which a line is joined to the next
LONGEST = 40  # letters of a word; more are no word
MET = 16384  # words whose sums are kept while a batch is read; a power of 2

# Columns of the facts of a block
DOC, SCRIPT, WORDS, RUNS, SOLID, MARKS, PLACES, FOREIGN, BEGIN, END, HANS, HANT, HAN_JA, KANA, WEIGHT, FACTS = range(16)

KANA_SCRIPT = NUMBER["Kana"]
MODELLED, UNSPACED, DENSE, STRICT = (
    1,
    2,
    4,
    8,
)  # told apart by the letter model; no blanks; a letter says more; no digits in words
NATURE = np.zeros(64, np.uint8)
for _script in ("Latn", "Cyrl", "Arab", "Deva"):
    NATURE[NUMBER[_script]] |= MODELLED
for _script in ("Hani", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"):
    NATURE[NUMBER[_script]] |= UNSPACED
for _script in ("Hani", "Kana", "Hang"):
    NATURE[NUMBER[_script]] |= DENSE
for _script in ("Latn", "Cyrl", "Grek"):
    NATURE[NUMBER[_script]] |= STRICT
_MARK_FIRST, _MARK_LAST = 0x300, 0x36F  # marks that join the letter before them


@dataclass(frozen=True)
class NgramModel:
    """The arrays that the kernels read; L languages, A letters."""

    langs: tuple[str, ...]  # (L,) ISO 639-1
    script_of: np.ndarray  # uint8 (L,): the number of the script
    kin: np.ndarray  # int8 (L,): number of its KIN, -1 for none
    typical: np.ndarray  # float32 (L,): mean value a letter, in nats above FLOOR, of the language's own texts
    letter: np.ndarray  # uint16 (65536,): code point, in either case, to letter
    compose: np.ndarray  # uint16 (A, 112): letter and mark to letter, 0 for none
    single: np.ndarray  # int16 (A, L): values of single letters
    slots: np.ndarray  # uint64: hash table; 32 bits of hash, 25 of the first value, 7 of how many
    langs_at: np.ndarray  # uint8: language of a value
    values_at: np.ndarray  # uint8: value in steps above FLOOR
    script: np.ndarray  # uint8 (65536,)
    kind: np.ndarray  # uint8 (65536,)
    hans: np.ndarray  # int8 (65536,)
    han_ja: np.ndarray  # int8 (65536,): steps by which a Han character is likelier in Japanese


@lru_cache(maxsize=2)
def load(path: Traversable = MODEL) -> NgramModel:
    """The model in a file of `classifiers.distil`. Raises FileNotFoundError, or ValueError for a file that is no such model."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises what its decoder pleases
        raise ValueError(
            f"{str(path)!r} is damaged or no letter model ({error}); make it again with classifiers.distil"
        ) from error
    version = arrays.get("format", np.zeros(1, np.int32)).tolist()
    if version != [FORMAT]:
        raise ValueError(
            f"{str(path)!r} has format {version}, this program reads [{FORMAT}]; make it again with classifiers.distil"
        )
    try:
        return _unpack(arrays)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged or no letter model ({error}); make it again with classifiers.distil"
        ) from error


def _unpack(arrays: dict[str, np.ndarray]) -> NgramModel:
    langs = tuple(str(lang) for lang in arrays["langs"])
    letters = {chr(point): FIRST + i for i, point in enumerate(arrays["letters"].tolist())}
    size = FIRST + len(letters)
    for n in range(1, ORDERS + 1):
        grams, uses, owners, values = (arrays[f"{name}{n}"] for name in ("grams", "uses", "langs", "values"))
        if grams.shape != (n, len(uses)) or uses.sum() != len(owners) or len(owners) != len(values):
            raise ValueError(f"the arrays of sequences of {n} do not fit together")
        if len(grams[0]) and (grams.max() >= size or owners.max() >= len(langs)):
            raise ValueError(f"sequences of {n} name letters or languages that are not there")
    letter, compose = np.zeros(65536, np.uint16), np.zeros((size, _MARK_LAST - _MARK_FIRST + 1), np.uint16)
    for point in range(65536):
        lower = "i" if point == 0x130 else chr(point).lower()
        letter[point] = letters.get(lower, 0)
    for name, number in letters.items():
        apart = unicodedata.normalize("NFD", name)
        mark = ord(apart[-1]) - _MARK_FIRST
        base = letters.get(unicodedata.normalize("NFC", apart[:-1]), 0) if len(apart) > 1 else 0
        if base and 0 <= mark < compose.shape[1]:
            compose[base, mark] = number
    single = np.zeros((size, len(langs)), np.int16)
    single[np.repeat(arrays["grams1"][0], arrays["uses1"]), arrays["langs1"]] = arrays["values1"]
    total = sum(len(arrays[f"uses{n}"]) for n in range(2, ORDERS + 1))
    slots = np.zeros(1 << int(total * 1.5).bit_length(), np.uint64)
    first = 0
    for n in range(2, ORDERS + 1):
        _fill(slots, arrays[f"grams{n}"], arrays[f"uses{n}"], first)
        first += len(arrays[f"langs{n}"])
    script, kind = scripts.kinds()
    han_ja = np.zeros(65536, np.int8)
    han_ja[arrays["han"]] = arrays["han_ja"]
    return NgramModel(
        langs=langs,
        script_of=np.array([NUMBER[str(name)] for name in arrays["scripts"]], np.uint8),
        kin=np.array([next((i for i, kin in enumerate(KIN) if lang in kin), -1) for lang in langs], np.int8),
        typical=arrays["typical"].astype(np.float32),
        letter=letter,
        compose=compose,
        single=single,
        slots=slots,
        langs_at=np.concatenate([arrays[f"langs{n}"] for n in range(2, ORDERS + 1)]).astype(np.uint8),
        values_at=np.concatenate([arrays[f"values{n}"] for n in range(2, ORDERS + 1)]).astype(np.uint8),
        script=script,
        kind=kind,
        hans=scripts.simplified(),
        han_ja=han_ja,
    )


@kernel
def _hash(key: np.uint64) -> np.uint64:
    key *= np.uint64(0x9E3779B97F4A7C15)
    return (key ^ (key >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)


@kernel
def _fill(slots: np.ndarray, grams: np.ndarray, uses: np.ndarray, first: int) -> None:
    mask = np.uint64(len(slots) - 1)
    value = np.uint64(first)
    for i in range(grams.shape[1]):
        key = np.uint64(0)
        for n in range(grams.shape[0]):
            key = (key << np.uint64(9)) | np.uint64(grams[n, i])
        spread = _hash(key)
        at = (spread >> np.uint64(40)) & mask
        while slots[at] != 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = (spread << np.uint64(32)) | (value << np.uint64(7)) | np.uint64(uses[i])
        value += np.uint64(uses[i])


@kernel
def _score(
    word: np.ndarray, size: int, single: np.ndarray, slots: np.ndarray, langs_at: np.ndarray, values_at: np.ndarray,
    now: np.ndarray, sums: np.ndarray,
) -> int:  # fmt: skip
    """Add the values of a word (letters with an edge on either side) to `sums`; how many places it had."""
    mask = np.uint64(len(slots) - 1)
    low = np.uint64(0xFFFFFFFF)
    places = 0
    for i in range(1, size):
        if word[i] == 0:
            continue
        now[:] = single[word[i]]
        key = np.uint64(word[i])
        shift = np.uint64(9)
        for back in range(1, 5):
            if i < back or word[i - back] == 0:
                break
            key |= np.uint64(word[i - back]) << shift
            shift += np.uint64(9)
            spread = _hash(key)
            at = (spread >> np.uint64(40)) & mask
            mine = spread & low
            while slots[at] != 0:
                slot = slots[at]
                if slot >> np.uint64(32) == mine:
                    value = (slot & low) >> np.uint64(7)
                    for j in range(value, value + (slot & np.uint64(127))):
                        now[langs_at[j]] = values_at[j]
                    break
                at = (at + np.uint64(1)) & mask
            if word[i - back] == 1:
                break
        for lang in range(len(sums)):
            sums[lang] += now[lang]
        places += 1
    return places


@kernel
def _piece(data: np.ndarray, start: int, end: int, at: int) -> int:
    """Where a piece that should begin at `at` begins: after the next line end nearby, else the next blank, else a character."""
    if at <= start:
        return start
    blank = -1
    for i in range(at, min(at + 96, end)):
        if data[i] == 10:
            return i + 1
        if data[i] == 32 and blank < 0 and i >= at:
            blank = i + 1
    if blank >= 0:
        return blank
    while at < end and (data[at] & 0xC0) == 0x80:
        at += 1
    return at


@kernel
def scan(
    data: np.ndarray, offsets: np.ndarray, valid: np.ndarray,
    letter: np.ndarray, compose: np.ndarray, single: np.ndarray, slots: np.ndarray, langs_at: np.ndarray, values_at: np.ndarray,
    script: np.ndarray, kind: np.ndarray, hans: np.ndarray, han_ja: np.ndarray, nature: np.ndarray,
    facts: np.ndarray, sums: np.ndarray,
) -> int:  # fmt: skip
    """Read texts; fill `facts` (BLOCKS a text, FACTS) and `sums` (BLOCKS a text, L); how many blocks they are.

    A block is a line, or several short ones. Bytes that are no UTF-8 count as signs.
    """
    word = np.zeros(LONGEST * 2 + 4, np.int64)
    now = np.zeros(sums.shape[1], np.int16)
    met = np.zeros(
        (MET, 2), np.uint64
    )  # words met before, letter by letter, with what they added: most words of a text are few
    met_sums = np.empty((MET, sums.shape[1]), np.int16)
    per_script = np.zeros(64, np.int64)  # letters,
    per_places, per_foreign = np.zeros(64, np.int64), np.zeros(64, np.int64)  # and what the model reads, of a block
    used = 0
    for doc in range(len(offsets) - 1):
        start, end = offsets[doc], offsets[doc + 1]
        if not valid[doc] or end <= start:
            continue
        pieces = 1 if end - start <= WHOLE else WINDOWS
        first_block = used
        reached = start
        for piece in range(pieces):
            at = max(reached, _piece(data, start, end, start + (end - start) * piece // pieces))
            while at < end and data[at] <= 32:
                at += 1
            opening, opening_block = at, used
            stop = end if pieces == 1 else min(end, at + REACH)
            budget = WHOLE if pieces == 1 else LETTERS
            opened = False
            size = letters = chars = strong = run = run_chars = alike = 0
            digit = inner = after = False
            tongue = np.int64(-1)
            previous = 0
            while True:
                # one character
                point = 10
                step = 1
                last = at >= stop
                if not last:
                    b = data[at]
                    if b < 0x80:
                        point = b
                    elif 0xC2 <= b < 0xE0 and at + 1 < end and (data[at + 1] & 0xC0) == 0x80:
                        point = (b & 0x1F) << 6 | (data[at + 1] & 0x3F)
                        step = 2
                    elif 0xE0 <= b < 0xF0 and at + 2 < end and (data[at + 1] & 0xC0) == 0x80 and (data[at + 2] & 0xC0) == 0x80:
                        point = (np.int64(b) & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | (data[at + 2] & 0x3F)
                        step = 3
                    elif 0xF0 <= b < 0xF5 and at + 3 < end and (data[at + 1] & 0xC0) == 0x80:
                        # beyond the first plane: the rest of Han, or a sign
                        point = 0x4E00 if b == 0xF0 and 0xA0 <= data[at + 1] <= 0xB2 else 0x2603
                        step = 4
                    else:
                        point = 0xFFFD
                what = kind[point]
                tongue_here = np.int64(script[point])
                apart = what == LETTER and nature[tongue_here] & UNSPACED > 0
                if (what == BLANK or apart or last) and chars > 0:  # the end of a token
                    facts[used, SOLID] += chars if letters > 0 or strong > 0 or not digit else (chars + 3) // 4
                    facts[used, MARKS] += strong
                    fine = letters > 0 and not inner and strong == 0 and letters <= LONGEST
                    fine = fine and not (digit and nature[tongue] & STRICT > 0) and alike < 4
                    if fine:
                        if word[size - 1] != 1:
                            word[size] = 1
                            size += 1
                        if nature[tongue] & MODELLED > 0:
                            foreign = 0
                            one = two = np.uint64(0)
                            for i in range(size):
                                foreign += word[i] == 0
                            for i in range(1, min(size - 1, 8)):
                                one = (one << np.uint64(9)) | np.uint64(word[i])
                            for i in range(8, min(size - 1, 15)):
                                two = (two << np.uint64(9)) | np.uint64(word[i])
                            per_foreign[tongue] += foreign
                            if size > 16 or foreign:
                                per_places[tongue] += _score(word, size, single, slots, langs_at, values_at, now, sums[used])
                            else:
                                slot = np.int64(_hash(one + (two << np.uint64(1))) >> np.uint64(32)) & (MET - 1)
                                if met[slot, 0] != one or met[slot, 1] != two:
                                    met[slot, 0] = one
                                    met[slot, 1] = two
                                    met_sums[slot, :] = 0
                                    _score(word, size, single, slots, langs_at, values_at, now, met_sums[slot])
                                for lang in range(sums.shape[1]):
                                    sums[used, lang] += met_sums[slot, lang]
                                per_places[tongue] += size - 1
                        if letters > 1:
                            facts[used, WORDS] += chars
                            run += 1
                            run_chars += chars
                            if run == 4:
                                facts[used, RUNS] += run_chars
                            elif run > 4:
                                facts[used, RUNS] += chars
                            per_script[tongue] += letters
                    elif letters > 0 or strong > 0:
                        run = run_chars = 0
                    size = letters = chars = strong = alike = 0
                    digit = inner = after = False
                    tongue = np.int64(-1)
                if last or ((point == 10 or point == 13) and opened):
                    run = run_chars = 0
                    total = 0
                    for i in range(1, 64):
                        total += per_script[i]
                    if opened and (last or (total >= SHORT and used - first_block < BLOCKS - 1 - (pieces - 1 - piece))):
                        best = most = 0
                        for i in range(1, 64):
                            weight = per_script[i] * (2 if nature[i] & DENSE > 0 else 1)
                            if weight > most:
                                best, most = i, weight
                        facts[used, SCRIPT] = best
                        facts[used, PLACES], facts[used, FOREIGN] = per_places[best], per_foreign[best]
                        facts[used, END] = at
                        per_script[:] = per_places[:] = per_foreign[:] = 0
                        opened = False
                        used += 1
                if last or (budget <= 0 and what == BLANK) or budget < -64:
                    if opened:
                        stop = at
                        continue  # once more, to close what is open
                    break
                if not opened and what != BLANK:
                    opened = True
                    facts[used, DOC] = doc
                    facts[used, BEGIN] = at
                if what != BLANK:
                    budget -= 1
                at += step
                if apart:
                    facts[used, SOLID] += 1
                    facts[used, WORDS] += 1
                    facts[used, RUNS] += 1
                    per_script[tongue_here] += 1
                    facts[used, HANS] += hans[point] > 0
                    facts[used, HANT] += hans[point] < 0
                    facts[used, HAN_JA] += han_ja[point]
                    facts[used, KANA] += script[point] == KANA_SCRIPT
                elif what == LETTER:
                    if tongue < 0:
                        size = 1
                        word[0] = 1
                        tongue = tongue_here
                    if after:
                        inner = True
                    if size < LONGEST * 2:
                        word[size] = letter[point]
                        size += 1
                    if alike < 4:
                        alike = alike + 1 if point == previous else 1
                        previous = point
                    letters += 1
                    chars += 1
                elif what == MARK:
                    chars += 1
                    if letters > 0 and 0x300 <= point <= 0x36F and size > 1:
                        joined = compose[word[size - 1], point - 0x300]
                        if joined > 0:
                            word[size - 1] = joined
                    elif letters > 0 and size < LONGEST * 2 and word[size - 1] != 1:
                        word[size] = 1  # the tables that the model was made from end a word at a vowel sign
                        size += 1
                    if tongue >= 0 and tongue_here > 0:
                        letters += 1
                elif what == JOINER:
                    chars += 1
                    if letters > 0 and size < LONGEST * 2 and word[size - 1] != 1:
                        word[size] = 1
                        size += 1
                elif what == DIGIT:
                    chars += 1
                    digit = True
                    if after:
                        inner = True
                elif what == STRONG:
                    chars += 1
                    strong += 1
                elif what != BLANK and what != IGNORED:
                    chars += 1
                    strong += (
                        point == 40 and letters > 0 and nature[tongue] & STRICT > 0
                    )  # a bracket that touches the word before
                    after = letters > 0 or after
            reached = at
            for b in range(opening_block, used):  # what a character stands for: pieces lie at equal distances of bytes
                weight = 64 if pieces == 1 else max(1, 64 * (end - start) // (pieces * max(at - opening, 1)))
                facts[b, WEIGHT] = weight * 3 // 2 if nature[facts[b, SCRIPT]] & DENSE > 0 else weight
    return used


def read(model: NgramModel, data: np.ndarray, offsets: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Facts (blocks, FACTS) int64 and sums (blocks, L) int32 of all texts; texts without a block have no row."""
    texts = len(offsets) - 1
    room = BLOCKS * texts + 1 if texts else 1
    facts, sums = np.zeros((room, FACTS), np.int64), np.zeros((room, len(model.langs)), np.int32)
    used = scan(
        data, offsets, valid, model.letter, model.compose, model.single, model.slots, model.langs_at, model.values_at,
        model.script, model.kind, model.hans, model.han_ja, NATURE, facts, sums,
    )  # fmt: skip
    return facts[:used], sums[:used]
