"""Documents that hold questions of an evaluation set: n-gram overlap with sets that are given as files.

An item is found by the share of its n-grams that a document holds, wherever in it they stand (Llama 3, section 5.1.4, asks
the same of n-grams of tokens). The n-grams are of word characters alone, folded as for near duplicates (dedup/shingles.py),
so case, blanks, punctuation and scripts without blanks make no difference.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.dedup.shingles import shingle_sets
from pipelines.errors import UserError
from pipelines.read.files import open_file
from pipelines.read.stream import decompressed
from pipelines.recipe import batch_stage
from pipelines.schema import drop

log = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DecontaminateConfig:
    """`sets`: JSONL files (plain, gzip, zstd) of evaluation items; none: nothing is dropped. `text`: fields that are the item.

    `ngram`: word characters; `share`: least part of an item's distinct n-grams that makes a document contaminated; an item of
    fewer than `least` of them is too short to be told from ordinary text, and left out. `name`: fields that name an item.
    """

    sets: tuple[str, ...] = ()
    text: tuple[str, ...] = ("question",)
    name: tuple[str, ...] = ("bench", "id")
    ngram: int = 20
    share: float = 0.3
    least: int = 8

    def __post_init__(self) -> None:
        if self.ngram < 1 or self.least < 1 or not 0 < self.share <= 1:
            raise ValueError(f"ngram {self.ngram} and least {self.least} must be 1 or more, share {self.share} in (0, 1]")

    def files(self) -> tuple[str, ...]:
        """The sets: their content decides."""
        return self.sets


@dataclass(frozen=True)
class Items:
    """The n-grams of items, ascending, each with the number of its item; the names of items, and how many each has."""

    hashes: npt.NDArray[np.uint64]
    owners: Ints
    names: list[str]
    sizes: Ints


@batch_stage()
def decontaminate(batch: pa.RecordBatch, cfg: DecontaminateConfig) -> pa.RecordBatch:
    """Drop documents that hold an item: `decontaminate.overlap`, value the largest share, bound `share`, entry the item's name.

    Raises UserError for a set that cannot be read, or has items without text.
    """
    items = load_items(cfg)
    found = [overlap(hashes, items) for hashes in shingle_sets(batch["text"], cfg.ngram, "char")]
    shares = pa.array([share for share, _ in found], pa.float64())
    names = [items.names[item] if share else None for share, item in found]
    return drop(batch, [share >= cfg.share for share, _ in found], "decontaminate.overlap", shares, cfg.share, entry=names)


def overlap(hashes: npt.NDArray[np.uint64], items: Items) -> tuple[float, int]:
    """The largest share of an item's n-grams that a document holds, and the number of that item (the first of equals).

    `hashes`: distinct n-grams of the document, ascending.
    """
    low, high = np.searchsorted(items.hashes, hashes, "left"), np.searchsorted(items.hashes, hashes, "right")
    hit = high > low
    if not hit.any():
        return 0.0, 0
    owners = np.concatenate([items.owners[a:b] for a, b in zip(low[hit].tolist(), high[hit].tolist(), strict=True)])
    numbers, counts = np.unique(owners, return_counts=True)
    shares = counts / items.sizes[numbers]
    best = int(shares.argmax())
    return float(shares[best]), int(numbers[best])


def load_items(cfg: DecontaminateConfig) -> Items:
    """The items of all sets, read once a process and state of the files. Raises UserError."""
    return _load(cfg, tuple(Path(path).stat().st_mtime_ns for path in cfg.sets))


@lru_cache(maxsize=2)
def _load(cfg: DecontaminateConfig, states: tuple[int, ...]) -> Items:
    texts, names = list[str](), list[str]()
    for path in cfg.sets:
        for number, item in enumerate(_lines(path)):
            said = [str(item[field]) for field in cfg.text if item.get(field)]
            if not said:
                has, wanted = ", ".join(item), ", ".join(cfg.text)
                raise UserError(f"evaluation set {path}: item {number} has {has}, not {wanted}; set decontaminate.text")
            texts.append("\n".join(said))
            names.append("/".join(str(item[field]) for field in cfg.name if item.get(field) is not None) or f"{path}#{number}")
    sets = shingle_sets(pa.array(texts, pa.large_string()), cfg.ngram, "char")
    sizes = np.array([len(s) for s in sets], np.int64)
    if short := int((sizes < cfg.least).sum()):
        log.warning("decontaminate: %d of %d items are too short to look for", short, len(sizes))
    kept = [s if len(s) >= cfg.least else s[:0] for s in sets]
    hashes = np.concatenate([np.zeros(0, np.uint64), *kept])
    owners = np.repeat(np.arange(len(sizes)), [len(s) for s in kept])
    order = np.argsort(hashes, kind="stable")
    return Items(hashes[order], owners[order], names, sizes)


def _lines(path: str) -> list[dict[str, Any]]:
    try:
        with open_file(path) as file:
            data = b"".join(decompressed(file)[0])
        items = [json.loads(line) for line in data.splitlines() if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"evaluation set {path} cannot be read ({error}); give JSONL files, an object a line") from error
    if not all(isinstance(item, dict) for item in items):
        raise UserError(f"evaluation set {path} holds a line that is no object; give JSONL files, an object a line")
    return items
