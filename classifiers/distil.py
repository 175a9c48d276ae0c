"""Make ngrams.npz from the n-gram tables of lingua: `python -m classifiers.distil WHEEL [OUT]`.

WHEEL is lingua_language_detector-1.4.2-py3-none-any.whl (PyPI, Apache-2.0): for each of 75 languages the share of each letter
among all, and of each sequence of 2 to 5 letters among those that begin alike, as exact fractions. From the fractions the
counts come back, and from the counts how often a sequence begins or ends a word (its count less that of all its extensions),
which the tables do not name. From those we make for every language whose script it shares with others a letter model: the
chance of a letter after the up to four before it in its word, the word's edges being letters too (absolute discounting:
Ney, Essen and Kneser 1994). What says little more than the shorter sequence is left out (relative-entropy pruning: Stolcke,
arXiv cs/0006025, with our own measure), and values are stored in steps of STEP.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import zipfile
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from classifiers.ngrams import EDGE, FIRST, FLOOR, FORMAT, MODEL, ORDERS, STEP, UNSEEN
from classifiers.scripts import BOTH, WRITTEN

TABLES = ("unigrams", "bigrams", "trigrams", "quadrigrams", "fivegrams")
# Languages whose script alone names them, or names them among others that lingua lacks: they need no letters of ours.
BY_SCRIPT = frozenset(("bn", "el", "gu", "he", "hy", "ja", "ka", "ko", "pa", "ta", "te", "th", "zh"))
# Serbian in Latin letters, which the tables lack: letter by letter (Gaj's alphabet).
_PAIRS = files("classifiers").joinpath("serbian.txt").read_text(encoding="utf-8").splitlines()
SERBIAN = {pair[0]: pair[2:] for pair in _PAIRS if not pair.startswith("#")}
DISCOUNT = 0.75
PRUNE = 8e-6  # nats a letter of running text that a value must be worth
RARE = 2e-6  # share below which a letter is foreign to a language
LOWEST = 1e-7  # chance of a letter that a language does not have
_BITS = 9  # of a letter in a key
_LANG = 7  # bits of the language beside the key


def home(lang: str) -> str:
    """The script of a language's tables."""
    return next(
        (script for script in ("Cyrl", "Arab", "Deva") if lang in WRITTEN[script] and lang not in BOTH - {"sr", "kk", "mn"}),
        "Latn",
    )


def tables(wheel: zipfile.ZipFile, lang: str) -> list[dict[str, int]]:
    """Counts of the sequences of 1 to 5 letters of a language."""
    import brotli  # type: ignore[import-untyped]

    found: list[dict[str, int]] = []
    for name in TABLES:
        try:
            packed = wheel.read(f"lingua/language-models/{lang}/{name}.json.br")
        except KeyError:  # Chinese, Japanese and Korean have single letters only
            break
        shares = [(k.partition("/"), v) for k, v in json.loads(brotli.decompress(packed))["ngrams"].items()]
        whole = math.lcm(*(int(below or 1) for (_, _, below), _ in shares))
        counts: dict[str, int] = {}
        for (above, _, below), grams in shares:
            for gram in grams.split(" "):
                counts[gram] = (found[-1][gram[:-1]] if found else whole) * int(above) // int(below or 1)
        found.append(counts)
    return found


def with_edges(counts: list[dict[str, int]]) -> list[Counter[str]]:
    """The same with words' edges, written as a blank: "the" gives " the", "the " and, up to three letters, " the "."""
    after: list[Counter[str]] = [Counter() for _ in range(ORDERS + 1)]
    before: list[Counter[str]] = [Counter() for _ in range(ORDERS + 1)]
    for n in range(1, ORDERS):
        for gram, count in counts[n].items():
            after[n][gram[:-1]] += count
            before[n][gram[1:]] += count
    full = [Counter(c) for c in counts]
    begins: Counter[str] = Counter()
    for n in range(1, ORDERS):
        for gram, count in counts[n - 1].items():
            if count > after[n][gram]:
                full[n][gram + " "] = count - after[n][gram]
            if count > before[n][gram]:
                begins[gram] = count - before[n][gram]
    longer: Counter[str] = Counter()
    for gram, count in begins.items():
        full[len(gram)][" " + gram] = count
        longer[gram[:-1]] += count
    for gram, count in begins.items():
        if len(gram) <= ORDERS - 2 and count > longer[gram]:
            full[len(gram) + 1][f" {gram} "] = count - longer[gram]
    full[0][" "] = longer[""]
    return full


def in_latin(full: list[Counter[str]]) -> list[Counter[str]]:
    """Serbian sequences as they are written in Latin letters; where one letter becomes two, so do the places that end there."""
    latin: list[Counter[str]] = [Counter() for _ in range(ORDERS)]
    for grams in full:
        for gram, count in grams.items():
            written = "".join(SERBIAN.get(c, c) for c in gram)
            for end in range(len(written) - len(SERBIAN.get(gram[-1], " ")) + 1, len(written) + 1):
                whole = written[:end]
                latin[min(len(gram), len(whole)) - 1][whole[-min(len(gram), len(whole)) :]] += count
    return latin


def _find(where: np.ndarray, what: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = np.searchsorted(where, what)
    at[at == len(where)] = 0
    return at, where[at] == what


def distil(path: Path) -> dict[str, np.ndarray]:
    """The arrays of ngrams.npz; see `classifiers.ngrams.load`."""
    with zipfile.ZipFile(path) as wheel:
        every = sorted(
            {n.split("/")[2] for n in wheel.namelist() if n.startswith("lingua/language-models/") and n.count("/") > 2}
        )
        langs = [lang for lang in every if lang not in BY_SCRIPT]
        raw = {lang: with_edges(tables(wheel, lang)) for lang in langs}
        han = {lang: tables(wheel, lang)[0] for lang in ("ja", "zh")}
    models = [(lang, raw[lang]) for lang in langs] + [("sr", in_latin(raw["sr"]))]
    letters = sorted({c for t in raw.values() for c, v in t[0].items() if c != " " and v >= 5 and v >= RARE * t[0].total()})
    ids = {letter: FIRST + i for i, letter in enumerate(letters)} | {" ": EDGE}
    if len(ids) + FIRST > 1 << _BITS:
        raise ValueError(f"{len(ids)} letters do not fit {_BITS} bits")
    keys: list[Any] = [[] for _ in range(ORDERS)]
    counts: list[Any] = [[] for _ in range(ORDERS)]
    for number, (_, tongue) in enumerate(models):
        for n, grams in enumerate(tongue):
            for gram, count in grams.items():
                if all(c in ids for c in gram):
                    key = 0
                    for c in gram:
                        key = key << _BITS | ids[c]
                    keys[n].append(key << _LANG | number)
                    counts[n].append(count)
    for n in range(ORDERS):
        packed = np.array(keys[n], np.int64)
        order = np.argsort(packed)
        keys[n], counts[n] = packed[order], np.array(counts[n], np.float64)[order]
    homes = ["Latn" if i == len(langs) else home(lang) for i, (lang, _) in enumerate(models)]
    return _model(keys, counts, letters, [lang for lang, _ in models], homes) | _han(han)


def _model(
    keys: list[np.ndarray], counts: list[np.ndarray], letters: list[str], langs: list[str], homes: list[str]
) -> dict[str, np.ndarray]:
    mask = (1 << _LANG) - 1
    total = np.bincount(keys[0] & mask, counts[0], len(langs))
    chance = counts[0] / total[keys[0] & mask]
    value = kept_value = np.maximum(np.log(chance) + UNSEEN, FLOOR)
    kept = [(keys[0], value)]
    reached = np.zeros((2, len(langs)))  # sums of value times count, and of counts, over the places of running text
    for n in range(1, ORDERS):
        key, lang = keys[n] >> _LANG, keys[n] & mask
        _, group = np.unique(key >> _BITS << _LANG | lang, return_inverse=True)
        seen, kinds = np.bincount(group, counts[n])[group], np.bincount(group)[group]
        at, there = _find(keys[n - 1], (key & ((1 << _BITS * n) - 1)) << _LANG | lang)
        shorter = np.where(there, chance[at], LOWEST)
        chance = (counts[n] - DISCOUNT) / seen + np.minimum(DISCOUNT * kinds / seen, 1) * shorter
        value = np.log(chance) + UNSEEN * (n + 1)
        inherited = np.where(there, kept_value[at], FLOOR)
        keep = counts[n] / total[lang] * np.abs(value - inherited) > PRUNE
        kept_value = np.where(keep, value, inherited)
        kept.append((keys[n][keep], value[keep]))
        place = np.ones(len(key), bool) if n == ORDERS - 1 else key >> _BITS * n == EDGE
        reached += [
            np.bincount(lang[place], (kept_value * counts[n])[place], len(langs)),
            np.bincount(lang[place], counts[n][place], len(langs)),
        ]
    arrays = {
        "format": np.array([FORMAT], np.int32),
        "langs": np.array(langs),
        "scripts": np.array(homes),
        "letters": np.array([ord(c) for c in letters], np.uint32),
        "typical": (reached[0] / reached[1] - FLOOR).astype(np.float32),
    }
    for n, (packed, value) in enumerate(kept, 1):
        key, first, uses = np.unique(packed >> _LANG, return_index=True, return_counts=True)
        parts = [(key >> _BITS * i & ((1 << _BITS) - 1)).astype(np.uint16) for i in reversed(range(n))]
        arrays[f"grams{n}"] = np.stack(parts) if n > 1 else parts[0][None]
        arrays[f"uses{n}"] = uses.astype(np.uint8)
        arrays[f"langs{n}"] = (packed & mask).astype(np.uint8)
        arrays[f"values{n}"] = np.round((value - FLOOR) / STEP).astype(np.uint8)
        assert (np.diff(first) == uses[:-1]).all()
    return arrays


def _han(counts: dict[str, dict[str, int]]) -> dict[str, np.ndarray]:
    """Han characters with the log of how much likelier they are in Japanese; only where no kana says so is it asked.

    The Chinese table is of traditional characters: of one that it lacks and GB 2312 has, nothing is known.
    """
    drawn = {lang: {c: v for c, v in t.items() if "\u3400" <= c <= "\u9fff"} for lang, t in counts.items()}
    total = {lang: sum(t.values()) for lang, t in drawn.items()}
    ratios = {}
    for c in sorted({*drawn["ja"], *drawn["zh"]}):
        japanese, chinese = drawn["ja"].get(c, 0), drawn["zh"].get(c, 0)
        simplified = chinese < 500 and bool(c.encode("gb2312", "ignore"))
        if not simplified and japanese + chinese >= 20:
            ratios[c] = np.log((japanese + 0.5) / total["ja"] * total["zh"] / (chinese + 0.5))
    for point in range(0x4E00, 0xA000):  # simplified characters that Japan does not write
        if (
            drawn["ja"].get(chr(point), 0) < 20
            and drawn["zh"].get(chr(point), 0) < 500
            and chr(point).encode("gb2312", "ignore")
        ):
            ratios[chr(point)] = -4.0
    every, ratio = list(ratios), list(ratios.values())
    return {
        "han": np.array([ord(c) for c in every], np.uint32),
        "han_ja": np.round(np.clip(ratio, -4, 4) / STEP).astype(np.int8),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m classifiers.distil", description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=MODEL)
    args = parser.parse_args()
    arrays = distil(args.wheel)
    np.savez_compressed(args.out, **arrays)  # type: ignore[arg-type]
    values = sum(len(arrays[f"langs{n}"]) for n in range(1, ORDERS + 1))
    sys.stdout.write(f"{args.out}: {args.out.stat().st_size:,} bytes, {values:,} values\n")


if __name__ == "__main__":
    main()
