"""Texts of any number with known duplicates among them: `python -m bench.planted OUT --data DATA --documents 100000`.

The sentences are real (pages, books, manuals, code, revision histories of the data folder, each sentence once); the documents
are not: each is put together from passages of one to three sentences that follow each other in one text, drawn at random from
one pool (a kind of text in one language), because no folder of ours holds a million different documents. They have
the vocabulary, the scripts and the lengths of web pages (log-normal, median 2 kB, mean 3 kB), but no thread, and two of
them share no more than a passage or a line of boilerplate by chance. So they are good for measuring time, and what becomes of
planted copies; they say nothing of how alike the pages of the web are, which is what the gold pairs (gold.py) are for.

Planted are exact copies, near copies (the edits below, in ones to threes and at many strengths), chains in which each is an
edit of the one before, and far relatives, edited until about .6 is left. Copies of one document come in numbers with a power
law: mostly one or two, some hundreds. What was planted is in OUT/truth, with the exact Jaccard similarity to the parent.

Document number n is a function of the seed and of n alone (Philox, keyed and counted), so that files are written in any order,
by any number of processes, and a text can be had again without its file. Only the sentences are held in memory.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from bench.common import EXAMPLES
from bench.corpus import jsonl, texts
from pipelines.dedup.shingles import jaccard, shingle_sets

NGRAM = 5
KINDS = ("base", "exact", "near", "chain", "far")
SHARES = {"exact": 0.10, "near": 0.13, "chain": 0.02, "far": 0.02}  # of all documents; the others are bases
NEAR, STEP, FAR = (0.75, 0.99), (0.82, 0.92), (0.56, 0.64)  # similarity to the parent that the edits aim at
POWER, MOST = 2.5, 400  # copies of one document: k of them with a weight of k ** -POWER, at most MOST
MEDIAN, SIGMA, LEAST, LONGEST = 2000, 0.9, 400, 60_000  # bytes of a document; exp(SIGMA ** 2 / 2) is the mean over the median
FAR_LEAST = 2500  # bytes of a text that gets a far relative: in a short one a sentence more or less is too much
PASSAGES = 3  # a document has at least so many
POOL = 5000  # sentences; a smaller pool would repeat itself
PER_FILE = 6250
CHUNK = 500  # documents whose similarities are taken together

TRUTH = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.int64()),  # documents that descend from one base
        ("parent", pa.string()),  # null for a base
        ("kind", pa.string()),
        ("jaccard", pa.float64()),  # exact, to the parent
        ("edits", pa.string()),
    ]
)


# --- sentences ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """Sentences of one kind of text in one language, in the order of their texts."""

    name: str
    sentences: tuple[str, ...]
    ends: tuple[int, ...]  # of the text to which sentence i belongs
    bytes: tuple[int, ...]
    blank: str  # between two sentences


def sources(data: Path) -> Iterator[tuple[str, str]]:
    """(name of the pool, text) of everything that the folder has; a name ends in the language, or is `code`."""
    yield from ((f"pages {lang}", text) for text, lang in texts(data) if lang)
    for name in ("prose/en", "prose/zh", "prose/code"):
        path = data / f"{name}.jsonl.zst"
        if path.is_file():
            yield from ((name.replace("prose/code", "code").replace("/", " "), line["text"]) for line in jsonl(path))
    if (data / "crawl" / "manifest.jsonl.gz").is_file():
        for line in jsonl(data / "crawl" / "manifest.jsonl.gz"):
            if line.get("text") and line.get("lang"):
                yield f"crawl {line['lang']}", line["text"]
    if (data / "neardup.jsonl.gz").is_file():
        yield from ((f"revisions {line['lang']}", line["text"]) for line in jsonl(data / "neardup.jsonl.gz"))
    if (data / "books.parquet").is_file():
        yield from (("prose en", text) for text in pq.read_table(data / "books.parquet")["text"].to_pylist())
    if (data / "code.jsonl.gz").is_file():
        yield from (("code", line["text"]) for line in jsonl(data / "code.jsonl.gz"))


_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])|\n+")
_BARE = ("zh", "ja", "th")


def sentences(name: str, text: str) -> list[str]:
    """The whole sentences of a text; of code, its blocks between blank lines. Fragments and what never ends are left out."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if name == "code":
        return [block for block in re.split(r"\n\s*\n", text) if 40 <= len(block) <= 800]
    low, high = (12, 200) if name.split()[-1].split("-")[0] in _BARE else (40, 600)
    return [s for s in (part.strip() for part in _SENTENCE.split(text)) if low <= len(s) <= high]


@cache
def pools(data: Path, least: int = POOL) -> tuple[Pool, ...]:
    """The pools of a folder by name, each sentence in the first text that has it. Raises ValueError where there are none."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    seen: set[str] = set()
    for name, text in sources(data):
        new = [s for s in dict.fromkeys(sentences(name, text)) if s not in seen]
        seen.update(new)
        if new:
            found[name].append(new)
    made = []
    for name, parts in sorted(found.items()):
        if sum(map(len, parts)) >= least:
            every = tuple(s for part in parts for s in part)
            ends = np.repeat(np.cumsum([len(p) for p in parts]), [len(p) for p in parts]).tolist()
            blank = "\n\n" if name == "code" else "" if name.split()[-1].split("-")[0] in _BARE else " "
            made.append(Pool(name, every, tuple(ends), tuple(len(s.encode()) for s in every), blank))
    if not made:
        raise ValueError(f"{data} has no kind of text with {least} different sentences; name a folder with more by --data")
    return tuple(made)


# --- numbers ------------------------------------------------------------------------------------------------------------


class Draw:
    """Random numbers of one purpose and one document: Philox with the seed as its key and both as its counter."""

    def __init__(self, seed: int, purpose: int, number: int) -> None:
        self._of = (seed, purpose, number)
        self._block, self._left = 0, list[int]()

    def unit(self) -> float:
        """In [0, 1), of 53 bits."""
        if not self._left:
            self._left = raw(*self._of, 96, self._block).tolist()
            self._block += 1
        return (self._left.pop() >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        """In 0 .. bound - 1."""
        return int(self.unit() * bound)

    def between(self, low: float, high: float) -> float:
        """In [low, high)."""
        return low + self.unit() * (high - low)

    def shuffled(self, items: Sequence[Any]) -> list[Any]:
        """All items, in random order."""
        keys = [self.unit() for _ in items]
        return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]


def raw(seed: int, purpose: int, number: int, count: int, block: int = 0) -> npt.NDArray[np.uint64]:
    """`count` numbers of 64 bits, shape (count,)."""
    return np.asarray(np.random.Philox(key=seed, counter=[0, block, purpose, number]).random_raw(count))


BASE, EDIT, PLACE, SIZES, MIX = range(5)  # purposes


# --- documents ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """A document in its parts: lines above, paragraphs of sentences, lines below."""

    pool: Pool
    body: tuple[tuple[str, ...], ...]
    head: tuple[str, ...] = ()
    foot: tuple[str, ...] = ()
    finish: tuple[str, ...] = ()  # changes of case and marks, which come last

    def text(self) -> str:
        """The text."""
        paragraphs = (self.pool.blank.join(p) for p in self.body)
        text = "\n\n".join([*(("\n".join(self.head),) if self.head else ()), *paragraphs, *self.foot])
        for name in self.finish:
            text = FINISHES[name](text)
        return text


_ABOVE = (
    "{site} | {word} | {number} readers online", "You are here: {word} > {number} > archive", "By {word}, {date}",
    "{word} {number} - last changed {date}", "Sign in to {site} or open an account", "Skip to {word}",
)  # fmt: skip
_BELOW = (
    "Share this: mail, print, {word} ({number})", "(c) {year} {site}. All rights reserved.", "{number} comments, newest first",
    "{site} uses cookies; read what for in part {number}", "Page made in {number} ms on {date}",
    "More from {word}: {number} pages", "Filed under {word} on {date}", "Tell {site} of a mistake on this page (ref {number})",
)  # fmt: skip


def boilerplate(lines: Sequence[str], count: int, pool: Pool, draw: Draw) -> tuple[str, ...]:
    """So many lines of what surrounds a page, filled in."""
    filled = []
    for line in draw.shuffled(lines)[:count]:
        number, year = str(draw.below(10_000)), str(1996 + draw.below(30))
        date = f"{year}-{1 + draw.below(12):02}-{1 + draw.below(28):02}"
        word = pool.sentences[draw.below(len(pool.sentences))].split()[0][:24]
        filled.append(line.format(site=f"www{number}.example", word=word, number=number, year=year, date=date))
    return tuple(filled)


def base(chosen: Sequence[Pool], draw: Draw, least: int = LEAST) -> Draft:
    """A new document, of one pool: pools are drawn by their number of sentences."""
    which = draw.below(sum(len(p.sentences) for p in chosen))
    at = 0
    while which >= len(chosen[at].sentences):
        which -= len(chosen[at].sentences)
        at += 1
    pool = chosen[at]
    drawn = MEDIAN * np.exp(SIGMA * NormalDist().inv_cdf(max(draw.unit(), 2.0**-53)))
    wanted, size, passages = min(max(drawn, least), LONGEST), 0, 0
    body: list[tuple[str, ...]] = []
    while True:
        start = draw.below(len(pool.sentences))
        end = min(start + 1 + draw.below(3), pool.ends[start])
        new = sum(pool.bytes[start:end])
        if size + new / 2 > wanted and passages >= PASSAGES:
            break
        size, passages = size + new, passages + 1
        if body and draw.unit() < 0.5:
            body[-1] += pool.sentences[start:end]
        else:
            body.append(pool.sentences[start:end])
    lines = 0 if draw.unit() < 0.5 else 1
    head, foot = (boilerplate(kind, lines, pool, draw) for kind in (_ABOVE, _BELOW))
    return Draft(pool, tuple(body), head, foot)


# --- edits: each is told what part of the document's n-grams should stay in common ----------------------------------------


def edge(pool: Pool) -> int:
    """Characters' worth of the n-grams that lie across the place where two sentences are parted or joined."""
    return (NGRAM - 1) * (6 if pool.blank else 1)


def without_sentences(draft: Draft, aim: float, draw: Draw) -> Draft:
    """Sentences dropped, at least one, never all."""
    sizes = [len(s) for p in draft.body for s in p]
    left, gone = sum(sizes) * (1 - aim), set[int]()
    for i in draw.shuffled(range(len(sizes)))[:-1]:
        cost = sizes[i] + edge(draft.pool)
        if cost / 2 <= left or not gone:
            gone.add(i)
            left -= cost
    body, i = [], 0
    for paragraph in draft.body:
        stay = tuple(s for j, s in enumerate(paragraph, i) if j not in gone)
        i += len(paragraph)
        body += [stay] if stay else []
    return replace(draft, body=tuple(body))


def with_sentences(draft: Draft, aim: float, draw: Draw) -> Draft:
    """Sentences of the same pool put in, at least one."""
    left = sum(len(s) for p in draft.body for s in p) * (1 / aim - 1)
    body, added = [list(p) for p in draft.body], 0
    while left > 0:
        new = draft.pool.sentences[draw.below(len(draft.pool.sentences))]
        cost = len(new) + edge(draft.pool)
        if added and cost / 2 > left:
            break
        paragraph = body[draw.below(len(body))]
        paragraph.insert(draw.below(len(paragraph) + 1), new)
        left -= cost
        added += 1
    return replace(draft, body=tuple(map(tuple, body)))


_NAMED = re.compile(r"\d+|\b[A-Z]\w+|[\u4e00-\u9fff\u3040-\u30ff]{2}")
_UNIT = re.compile(r"[\u4e00-\u9fff\u3040-\u30ff\uac00-\ud7af\u0e00-\u0eff]|\w+")


def with_other_names(draft: Draft, aim: float, draw: Draw) -> Draft:
    """Numbers and names exchanged, where they stand apart each at the cost of NGRAM n-grams."""
    units = sum(len(_UNIT.findall(s)) for p in draft.body for s in p)
    places = sum(len(_NAMED.findall(s)) for p in draft.body for s in p)
    share = (1 - aim) / (1 + aim) * units / NGRAM / max(places, 1)

    def other(match: re.Match[str]) -> str:
        if draw.unit() >= share:
            return match[0]
        if match[0].isdigit():
            return str(draw.below(10 ** len(match[0][:9])))
        found = _NAMED.findall(draft.pool.sentences[draw.below(len(draft.pool.sentences))])
        return str(found[draw.below(len(found))]) if found else match[0]

    return replace(draft, body=tuple(tuple(_NAMED.sub(other, s) for s in p) for p in draft.body))


def with_other_boilerplate(draft: Draft, aim: float, draw: Draw) -> Draft:
    """Other lines above and below, in the number that the aim allows (a line has some 40 characters)."""
    room = int(sum(len(s) for p in draft.body for s in p) * (1 / aim - 1) / 40)
    above = min(1 + draw.below(3), max(room // 2, 1), len(_ABOVE))
    below = min(max(room - above, 1), len(_BELOW))
    head, foot = boilerplate(_ABOVE, above, draft.pool, draw), boilerplate(_BELOW, below, draft.pool, draw)
    return replace(draft, head=head, foot=foot)


def reordered(draft: Draft, aim: float, draw: Draw) -> Draft:
    """Paragraphs moved to other places, at the cost of the n-grams over their edges."""
    body = list(draft.body)
    for _ in range(max(1, round((1 - aim) * len(body)))):
        body.insert(draw.below(len(body)), body.pop(draw.below(len(body))))
    return replace(draft, body=tuple(body))


def restyled(draft: Draft, aim: float, draw: Draw) -> Draft:
    """Other case or marks: what normalising takes away again, whatever the aim."""
    return replace(draft, finish=(*draft.finish, draw.shuffled(sorted(FINISHES))[0]))


FINISHES: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "curly": lambda text: text.replace("'", "\u2019").replace('"', "\u201d").replace(" - ", " \u2013 "),
    "plain": lambda text: text.replace(",", "").replace("\uff0c", " ").replace(";", ".").replace("!", "."),
    "wide": lambda text: text.replace(". ", ".  ").replace("\n\n", "\n\n\n"),
}
EDITS: dict[str, Callable[[Draft, float, Draw], Draft]] = {
    "dropped": without_sentences,
    "added": with_sentences,
    "names": with_other_names,
    "boilerplate": with_other_boilerplate,
    "reordered": reordered,
    "restyled": restyled,
}
LASTING = ("dropped", "added", "names")  # those that reach any aim


def edited(draft: Draft, kind: str, draw: Draw) -> tuple[Draft, str]:
    """A relative of a document, and the names of the edits."""
    if kind == "exact":
        return draft, ""
    low, high = {"near": NEAR, "chain": STEP, "far": FAR}[kind]
    aim = draw.between(low, high)
    names = draw.shuffled(sorted(EDITS))[: 1 + draw.below(3)] if kind == "near" else draw.shuffled(LASTING)[:2]
    names.sort(key=[*EDITS].index)  # dropping comes first: what was just added is not to be dropped
    felt = sum(name != "restyled" for name in names)
    for name in names:
        draft = EDITS[name](draft, aim ** (1 / max(felt, 1)), draw)
    return draft, "+".join(names)


# --- the corpus ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planted:
    """The settings of a corpus; its documents have places 0 .. documents - 1, which are their ids too."""

    data: Path
    documents: int
    seed: int = 1
    least_pool: int = field(default=POOL, compare=False)

    def __post_init__(self) -> None:
        if not 100 <= self.documents < 1 << 32:
            raise ValueError(f"documents is {self.documents}; it must be from 100 (for the shares) up to 2**32")

    @cached_property
    def layout(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int8]]:
        """(place of number i, parent's number or -1, index in KINDS) in the order of making; shape (documents,) each."""
        count = {kind: round(share * self.documents) for kind, share in SHARES.items()}
        bases = self.documents - sum(count.values())
        parent, kind = np.full(self.documents, -1, np.int64), np.zeros(self.documents, np.int8)
        copies = count["exact"] + count["near"]
        stars = np.repeat(np.arange(copies), self._sizes(copies))[:copies]
        mixed = np.argsort(raw(self.seed, MIX, 0, copies))
        steps = count["chain"]
        lengths = 3 + raw(self.seed, MIX, 1, steps) % np.uint64(4)  # of a chain: 3 to 6 edits
        chain = np.repeat(np.arange(steps), lengths.astype(np.int64))[:steps]
        first = np.concatenate(([True], chain[1:] != chain[:-1]))[:steps]
        at = bases
        parent[at : at + copies] = stars
        kind[at : at + copies] = np.where(mixed < count["exact"], KINDS.index("exact"), KINDS.index("near"))
        at, used = at + copies, int(stars[-1]) + 1
        parent[at : at + steps] = np.where(first, used + chain, np.arange(at, at + steps) - 1)
        kind[at : at + steps] = KINDS.index("chain")
        at, used = at + steps, used + int(chain[-1] if steps else -1) + 1
        parent[at:] = used + np.arange(count["far"])
        kind[at:] = KINDS.index("far")
        return np.argsort(raw(self.seed, PLACE, 0, self.documents)).astype(np.int64), parent, kind

    def _sizes(self, copies: int) -> npt.NDArray[np.int64]:
        weights = np.arange(1, MOST + 1) ** -POWER
        below = raw(self.seed, SIZES, 0, copies).astype(np.float64) / 2.0**64
        return np.minimum(np.searchsorted(np.cumsum(weights / weights.sum()), below) + 1, MOST)

    @cached_property
    def number_at(self) -> npt.NDArray[np.int64]:
        """The number of the document at each place, shape (documents,)."""
        return np.argsort(self.layout[0])

    @cached_property
    def far_bases(self) -> range:
        """The numbers of the bases that have a far relative."""
        _, parent, kind = self.layout
        far = parent[kind == KINDS.index("far")]
        return range(int(far[0]), int(far[-1]) + 1) if len(far) else range(0)

    def id(self, number: int) -> str:
        """The id of a document by its number."""
        return f"d{self.layout[0][number]:09}"

    def group(self, number: int) -> int:
        """The number of the base from which a document descends."""
        while (parent := int(self.layout[1][number])) >= 0:
            number = parent
        return number

    def draft(self, number: int) -> tuple[Draft, str]:
        """A document by its number, and the names of the edits that made it of its parent."""
        parent = int(self.layout[1][number])
        if parent < 0:
            least = FAR_LEAST if number in self.far_bases else LEAST
            return base(pools(self.data, self.least_pool), Draw(self.seed, BASE, number), least), ""
        return edited(self.draft(parent)[0], KINDS[self.layout[2][number]], Draw(self.seed, EDIT, number))

    def text(self, id_: str) -> str:
        """The text of a document by its id."""
        return self.draft(int(self.number_at[int(id_[1:])]))[0].text()

    def rows(self, places: range) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
        """Document (id, url, text) and truth (TRUTH) of each place."""
        for start in range(places.start, places.stop, CHUNK):
            numbers = [int(n) for n in self.number_at[start : min(start + CHUNK, places.stop)]]
            drafts = [self.draft(n) for n in numbers]
            made = [d.text() for d, _ in drafts]
            parents = {n: int(self.layout[1][n]) for n in numbers if self.layout[1][n] >= 0}
            younger = [text for n, text in zip(numbers, made, strict=True) if n in parents]
            alike = dict(zip(parents, similarities(younger, [self.draft(p)[0].text() for p in parents.values()]), strict=True))
            for number, text, (_, edits) in zip(numbers, made, drafts, strict=True):
                document = {"id": self.id(number), "url": f"https://www{number % 9973}.example/{number}", "text": text}
                has = number in parents
                yield (
                    document,
                    {
                        "id": document["id"],
                        "group": self.group(number),
                        "parent": self.id(parents[number]) if has else None,
                        "kind": KINDS[self.layout[2][number]],
                        "jaccard": alike.get(number),
                        "edits": edits,
                    },
                )


def similarities(texts_a: Sequence[str], texts_b: Sequence[str]) -> list[float]:
    """The exact Jaccard similarity of each a with the b at its place."""
    sets_a, sets_b = (shingle_sets(pa.array(t, pa.string()), NGRAM) for t in (texts_a, texts_b))
    return [jaccard(a, b) for a, b in zip(sets_a, sets_b, strict=True)]


def write(corpus: Planted, out: Path, workers: int | None = None) -> dict[str, Any]:
    """OUT/texts/*.jsonl.zst (id, url, text), OUT/truth/*.parquet (TRUTH) and OUT/planted.json, which is written last.

    A folder that holds the same corpus is left as it is. Returns what planted.json holds: settings, bytes, documents a kind.
    """
    settings = {"data": str(corpus.data.resolve()), "documents": corpus.documents, "seed": corpus.seed, "version": 1}
    done = out / "planted.json"
    if done.is_file() and (known := json.loads(done.read_text()))["settings"] == settings:
        return dict(known)
    for name in ("texts", "truth"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    files = max(4, -(-corpus.documents // PER_FILE))
    jobs = [(corpus, out, i, files) for i in range(files)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers or len(cores()), mp_context=spawn) as several:
        sizes = list(several.map(_write_part, jobs))
    kinds = {k: int((corpus.layout[2] == i).sum()) for i, k in enumerate(KINDS)}
    found = {"settings": settings, "bytes": sum(sizes), "files": files, "kinds": kinds}
    done.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _write_part(job: tuple[Planted, Path, int, int]) -> int:
    """One file of each; returns the bytes of its texts."""
    corpus, out, index, files = job
    corpus = _once(corpus)
    places = range(corpus.documents * index // files, corpus.documents * (index + 1) // files)
    size, truth = 0, []
    with (
        (out / "texts" / f"part-{index:05}.jsonl.zst").open("wb") as raw_file,
        zstandard.ZstdCompressor(3).stream_writer(raw_file) as compressed,
        io.TextIOWrapper(compressed, encoding="utf-8", newline="\n") as lines,
    ):
        for document, known in corpus.rows(places):
            lines.write(json.dumps(document, ensure_ascii=False) + "\n")
            size += len(document["text"].encode())
            truth.append(known)
    pq.write_table(pa.Table.from_pylist(truth, TRUTH), out / "truth" / f"part-{index:05}.parquet")
    return size


@cache
def _once(corpus: Planted) -> Planted:
    return corpus  # the first that a process is sent: its layout is made once


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def read_truth(out: Path) -> pa.Table:
    """The whole truth of a folder, schema TRUTH: numbers and ids, no texts."""
    return pa.concat_tables([pq.read_table(path, schema=TRUTH) for path in sorted((out / "truth").glob("*.parquet"))])


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.planted", description="Write a corpus with known duplicates.")
    parser.add_argument("out", type=Path, help="folder to write texts/, truth/ and planted.json to")
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder of the data sets; without it examples/")
    parser.add_argument("--documents", type=int, default=100_000, help="how many (default 100,000)")
    parser.add_argument("--seed", type=int, default=1, help="another number gives other documents")
    args = parser.parse_args(argv)
    found = write(Planted(args.data, args.documents, args.seed), args.out)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
