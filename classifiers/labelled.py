"""Labelled texts: from files, without contradictions, split by site.

JSONL (`text`, `label`, and where known `url` or `site`, `lang`), Parquet with the same columns, or fastText's lines
(`__label__x text`). Raises DataError where they cannot be used.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tld import get_fld

from classifiers.errors import DataError

PREFIX = "__label__"
REFUSE, DROP, MAJORITY = "refuse", "drop", "majority"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Labelled:
    """N texts. `numbers` index `labels`; `sites` are registered domains, or a text's own hash where no address is known."""

    texts: pa.LargeStringArray
    numbers: np.ndarray  # int64 (N,)
    labels: tuple[str, ...]
    sites: tuple[str, ...]
    langs: tuple[str, ...] = ()  # ISO 639 codes; () where they were not given
    facts: dict[str, Any] = field(default_factory=dict)  # what was read: files, rows, empty, repeated, contradicting

    def take(self, where: np.ndarray) -> Labelled:
        """The texts at `where`, of int64 or bool."""
        index = np.flatnonzero(where) if where.dtype == np.bool_ else where
        chosen = index.tolist()
        return Labelled(
            self.texts.take(pa.array(index)),
            self.numbers[index],
            self.labels,
            tuple(self.sites[i] for i in chosen),
            tuple(self.langs[i] for i in chosen) if self.langs else (),
            self.facts,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 over texts, labels and sites, whatever their order."""
        rows = zip(self.texts.to_pylist(), self.numbers.tolist(), self.sites, strict=True)
        each = sorted(hashlib.sha256(f"{self.labels[n]}\0{site}\0{text}".encode()).digest() for text, n, site in rows)
        return hashlib.sha256(b"".join(each)).hexdigest()


def labelled(
    texts: Sequence[str | None],
    names: Sequence[str],
    sites: Sequence[str] | None = None,
    langs: Sequence[str] | None = None,
    conflicts: str = REFUSE,
    facts: dict[str, Any] | None = None,
) -> Labelled:
    """Texts with the names of their labels; addresses or hosts as `sites`.

    Texts without a word are left out, and those that repeat one before them (blanks folded). Texts that are there with several
    labels are refused, or all dropped, or get the most frequent label (dropped where there is a tie). All of it is counted.
    """
    if conflicts not in (REFUSE, DROP, MAJORITY):
        raise DataError(f"conflicts is {conflicts!r}; it must be {REFUSE}, {DROP} or {MAJORITY}")
    votes: dict[bytes, Counter[str]] = {}
    first: dict[bytes, int] = {}
    empty = 0
    for i, (text, name) in enumerate(zip(texts, names, strict=True)):
        folded = " ".join((text or "").split())
        if not folded:
            empty += 1
            continue
        key = hashlib.blake2b(folded.encode("utf-8", "replace"), digest_size=16).digest()
        votes.setdefault(key, Counter())[name] += 1
        first.setdefault(key, i)
    torn = [key for key, found in votes.items() if len(found) > 1]
    if torn and conflicts == REFUSE:
        shown, found = " ".join((texts[first[torn[0]]] or "").split())[:60], ", ".join(sorted(votes[torn[0]]))
        raise DataError(
            f"{len(torn)} of {len(votes)} texts have several labels, the first ({found}): {shown!r}; mend them, or give "
            f"--conflicts {MAJORITY} or {DROP}"
        )
    kept: list[tuple[int, str]] = []
    for key, i in first.items():
        (name, most), *others = votes[key].most_common()
        if not others or (conflicts == MAJORITY and others[0][1] < most):
            kept.append((i, name))
    labels = tuple(sorted({name for _, name in kept}, key=_in_order))
    if len(labels) < 2:
        has = f"the one label {labels[0]!r}" if labels else "no label"
        raise DataError(f"the {len(kept)} texts have {has}; give texts of two or more")
    numbers = np.array([labels.index(name) for _, name in kept], np.int64)
    chosen = [texts[i] or "" for i, _ in kept]
    counted = {
        "rows": len(texts), "empty": empty, "repeated": len(texts) - empty - len(votes), "contradicting": len(torn),
        "conflicts": conflicts, "texts": len(kept),
    }  # fmt: skip
    return Labelled(
        pa.array([t.encode("utf-8", "replace").decode() for t in chosen], pa.large_string()),
        numbers,
        labels,
        tuple(site_of(sites[i]) if sites and sites[i] else own_site(t) for (i, _), t in zip(kept, chosen, strict=True)),
        tuple(langs[i] for i, _ in kept) if langs and any(langs) else (),
        {**(facts or {}), **counted},
    )


def read(paths: Sequence[Path], text: str = "text", label: str = "label", conflicts: str = REFUSE) -> Labelled:
    """The labelled texts in files: .jsonl (.gz, .zst), .parquet, and fastText's lines in whatever else."""
    rows = [row for path in paths for row in _rows(path, text, label)]
    texts, names, sites, langs = zip(*rows, strict=True) if rows else ((), (), (), ())
    return labelled(texts, names, sites, langs, conflicts, {"files": sorted(path.name for path in paths)})


def split(data: Labelled, seed: int = 0, validation: float = 0.1, test: float = 0.1) -> tuple[Labelled, Labelled, Labelled]:
    """Train, validation and test; a site lies in one of them, by a keyed hash of its name alone.

    Raises DataError where a label is missing in one of them.
    """
    share = np.array([site_share(site, seed) for site in data.sites])
    bounds = (test, test + validation)
    parts = (data.take(share >= bounds[1]), data.take((share >= bounds[0]) & (share < bounds[1])), data.take(share < bounds[0]))
    for name, part in zip(SPLITS, parts, strict=True):
        missing = sorted(set(data.labels) - {data.labels[n] for n in np.unique(part.numbers).tolist()})
        if missing:
            raise DataError(
                f"the {name} split has no text labelled {', '.join(missing)}: {len(set(part.sites))} of {len(set(data.sites))} "
                f"sites are in it; give texts of more sites, or another seed or larger shares"
            )
    return parts


def site_share(site: str, seed: int) -> float:
    """Where a site lies in [0, 1), by a keyed hash."""
    digest = hashlib.blake2b(site.encode(), digest_size=8, key=seed.to_bytes(8, "little", signed=True)).digest()
    return int.from_bytes(digest, "big") / 2**64


def _in_order(name: str) -> tuple[float, str]:
    """Whole numbers by their value, and before names."""
    return int(name) if name.isdecimal() else float("inf"), name


@lru_cache(maxsize=65536)
def site_of(address: str) -> str:
    """The registered domain of an address or host (Public Suffix List), else its host, else the name itself, in lower case."""
    lower = address.strip().lower()
    found = get_fld(lower if "://" in lower else f"http://{lower}", fail_silently=True)
    return found or lower.partition("://")[2].partition("/")[0] or lower


def own_site(text: str) -> str:
    """What stands for the site of a text of no known address: its hash."""
    return "text:" + hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


_Row = tuple[str | None, str, str, str]


def _rows(path: Path, text: str, label: str) -> Iterator[_Row]:
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}")
    if path.suffix == ".parquet":
        yield from _parquet(path, text, label)
        return
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            yield _json(line, text, label) if ".jsonl" in path.suffixes else _fasttext(line)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"line {number} of {str(path)!r} is no labelled text ({error}): {line[:60]!r}") from error


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file, unpacked where its name ends in .gz or .zst; bytes that are no UTF-8 are replaced."""
    if path.suffix == ".zst":
        import zstandard

        with zstandard.open(
            path, "rt", encoding="utf-8", errors="replace", dctx=zstandard.ZstdDecompressor(max_window_size=2**27)
        ) as file:
            yield from file
        return
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", errors="replace") as file:
        for line in file:
            yield str(line)


def _json(line: str, text: str, label: str) -> _Row:
    row = json.loads(line)
    if text not in row or label not in row:
        raise ValueError(f"it needs the fields {text!r} and {label!r} and has {', '.join(map(repr, sorted(row)))}")
    if not isinstance(row[text], str | None) or row[label] is None:
        raise ValueError(f"{text!r} must be a string, and {label!r} must not be null")
    return row[text], str(row[label]), str(row.get("site") or row.get("url") or ""), str(row.get("lang") or "")


def _fasttext(line: str) -> _Row:
    words = line.split()
    names = [word for word in words if word.startswith(PREFIX)]
    if len(names) != 1:
        raise ValueError(f"it must have one {PREFIX}NAME and has {len(names)}")
    return " ".join(word for word in words if not word.startswith(PREFIX)), names[0].removeprefix(PREFIX), "", ""


def _parquet(path: Path, text: str, label: str) -> Iterator[_Row]:
    file = pq.ParquetFile(path)
    names = set(file.schema_arrow.names)
    if not {text, label} <= names:
        raise DataError(f"{str(path)!r} needs the columns {text!r} and {label!r} and has {', '.join(map(repr, sorted(names)))}")
    for batch in file.iter_batches(columns=[n for n in (text, label, "site", "url", "lang") if n in names]):
        for row in batch.to_pylist():
            if row[label] is None:
                raise DataError(f"{str(path)!r} has a null in {label!r}; every text needs a label")
            yield row[text], str(row[label]), str(row.get("site") or row.get("url") or ""), str(row.get("lang") or "")
