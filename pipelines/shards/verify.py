"""Everything that a shard folder says, held against what is there: each thing that is wrong is one line.

| of | is checked |
|---|---|
| each shard | SHA-256, Arrow schema, rows, tokens, ids below the vocabulary, eos behind each document, doc_ids of 16 bytes |
| each source | the keyed order, or the one the manifest states; no doc_id twice; who is held out, by the keyed hash |
| provenance | SHA-256, and row by row the doc_id of the shard |
| tombstones | SHA-256, order, and that each is a document of its stream |
| the folder | that it holds no file that the manifest does not list |
| beside it | that the tokenizer is the one that made the shards, and that the schedule was compiled for them |
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.schedule import ScheduleError, read_schedule
from pipelines.shards import Shards, shard_path
from pipelines.shards.manifest import (
    GROUP,
    MANIFEST,
    Manifest,
    Order,
    ShardError,
    ShardFile,
    order_key,
    read_manifest,
    split_key,
)
from pipelines.shards.stream import DTYPES, MappedShard, TokenStream, check_digest
from pipelines.shards.tombstones import KEPT, read_tombstones

SPREAD_BYTES = 256 << 20  # of ids; with more, the files are shared out among processes
IDS_AT_ONCE = 1 << 25  # doc_ids held at once where the order does not tell that they differ

Key = tuple[int, bytes]
Place = tuple[int, str, int]  # key that splits, file, row


@dataclass(frozen=True)
class _Found:
    """What a file tells about itself: problems, and what its source needs of it."""

    problems: tuple[str, ...] = ()
    first: Key | None = None  # order keys of the first and last row
    last: Key | None = None
    lowest: Place | None = None  # rows with the lowest and the highest key that splits
    highest: Place | None = None


def verify(root: str | Path, quick: bool = False, advance: Callable[[int], object] = lambda _: None) -> Manifest:
    """Check a shard folder and what lies beside it; returns its manifest. `advance` hears of documents that are done.

    `quick` reads no token and hashes nothing: files, schemas, rows and offsets only. Memory: the doc_ids of one file, and at
    most `IDS_AT_ONCE` of a source in no keyed order. Raises ShardError with one line a problem.
    """
    root = Path(root)
    manifest = read_manifest(root)
    if manifest.dtype not in DTYPES or not 0 <= manifest.eos_id < manifest.vocab_size <= np.iinfo(manifest.dtype).max + 1:
        raise ShardError(
            f"{root}/{MANIFEST}: dtype {manifest.dtype!r}, vocab_size {manifest.vocab_size} and eos_id {manifest.eos_id} "
            "do not go together; write the shards again"
        )
    problems = [*_listing(root, manifest), *_beside(root, manifest)]
    found = list(_files(root, manifest, quick, advance))
    of_files = [line for file in found for line in file.problems]
    problems += of_files
    if not of_files and not quick:
        problems += _sources(root, manifest, found)
    try:
        table = read_tombstones(root, manifest)
        problems += [] if of_files else _tombstones(root, table)
    except ShardError as error:
        problems.append(str(error))
    if problems:
        ways = "bring back what is named from a copy, or remove the folder and run its recipe again"
        count = "1 thing is" if len(problems) == 1 else f"{len(problems)} things are"
        raise ShardError("\n  ".join([f"{count} wrong with {root}; {ways}", *problems]))
    return manifest


# --- the folder and what lies beside it -----------------------------------------------------------------------------------


def _listing(root: Path, manifest: Manifest) -> Iterator[str]:
    listed = {MANIFEST, *(takedown.path for takedown in manifest.takedowns[-KEPT:])}
    for file in manifest.files:
        index = Path(file.path).stem.rpartition("-")[2]
        if not index.isdecimal() or file.path != shard_path(file.source, file.split, int(index)):
            yield f"{root / MANIFEST}: lists {file.path!r}, which is no shard of source {file.source!r}, split {file.split!r}"
        elif file.path in listed:
            yield f"{root / MANIFEST}: lists {file.path} twice"
        listed |= {file.path} | ({file.provenance_path} if file.provenance else set())
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            if (path := Path(folder, name)).relative_to(root).as_posix() not in listed:
                yield f"{path}: is not listed in the manifest; delete it"


def _beside(root: Path, manifest: Manifest) -> Iterator[str]:
    tokenizer, schedule = root.parent / "tokenizer" / "tokenizer.json", root.parent / "schedule.json"
    if tokenizer.is_file():
        data = tokenizer.read_bytes()
        if (digest := hashlib.sha256(data).hexdigest()) != manifest.tokenizer_sha256:
            yield f"{tokenizer}: sha256 is {digest}, the shards were made with {manifest.tokenizer_sha256}"
        elif (size := _vocabulary(data)) > manifest.vocab_size:
            yield f"{tokenizer}: has {size} ids, the manifest says {manifest.vocab_size}"
    if schedule.is_file():
        try:
            compiled = read_schedule(schedule, *manifest.lineage)
            if compiled.source_tokens != dict(sorted(manifest.source_tokens().items())):
                yield f"{schedule}: was compiled for {compiled.source_tokens}, the shards have {manifest.source_tokens()}"
        except ScheduleError as error:
            yield str(error)


def _vocabulary(data: bytes) -> int:
    content = json.loads(data)
    words, added = content["model"].get("vocab", {}), content.get("added_tokens") or []
    ids = words.values() if isinstance(words, dict) else range(len(words))
    return 1 + max((*ids, *(token["id"] for token in added)), default=-1)


# --- each file for itself -------------------------------------------------------------------------------------------------


def _files(root: Path, manifest: Manifest, quick: bool, advance: Callable[[int], object]) -> Iterator[_Found]:
    """In the order of the manifest; of large sets in processes, since hashing ids of documents holds the interpreter."""
    width = np.dtype(manifest.dtype).itemsize
    check = partial(_check_file, root, replace(manifest, files=(), takedowns=()), quick)
    workers = min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, len(manifest.files)
    )
    with ExitStack() as stack:
        spread = workers > 1 and not quick and sum(f.tokens for f in manifest.files) * width > SPREAD_BYTES
        run: Any = map
        if spread:
            run = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"))).map
        for file, found in zip(manifest.files, run(check, manifest.files), strict=True):
            advance(file.rows)
            yield found


def _check_file(root: Path, manifest: Manifest, quick: bool, file: ShardFile) -> _Found:
    problems, ids, keys = list[str](), None, _Found()
    try:
        if not quick:
            check_digest(root / file.path, file.sha256)
        shard = MappedShard(root, file, manifest.dtype)
        ids = pa.chunked_array([b.doc_ids for b in shard.batches], pa.binary())
        if not quick:
            _check_ids(root / file.path, shard, manifest)
            keys = _keys(root, ids, file, manifest)
    except ShardError as error:
        problems.append(str(error))
    try:
        if file.provenance is not None:
            _check_provenance(root / file.provenance_path, file, ids, quick)
    except ShardError as error:
        problems.append(str(error))
    return replace(keys, problems=tuple(problems))


def _check_ids(path: Path, shard: MappedShard, manifest: Manifest) -> None:
    for batch in shard.batches:
        if (top := int(batch.tokens.max())) >= manifest.vocab_size:
            raise ShardError(f"{path}: holds id {top}, the vocabulary has {manifest.vocab_size}")
        if (bad := np.flatnonzero(batch.tokens[batch.offsets[1:] - 1] != manifest.eos_id)).size:
            raise ShardError(f"{path}: row {batch.first_row + int(bad[0])} does not end in eos ({manifest.eos_id})")
        odd = np.flatnonzero(pc.binary_length(batch.doc_ids).to_numpy() != 16)
        if odd.size:
            raise ShardError(f"{path}: the doc_id of row {batch.first_row + int(odd[0])} has not 16 bytes")


def _keys(root: Path, ids: pa.ChunkedArray[Any], file: ShardFile, manifest: Manifest) -> _Found:
    """The keyed order inside of the file, and what the files beside it must fit."""
    if manifest.seed is None:
        return _Found()
    doc_ids, seed = ids.to_pylist(), manifest.seed
    splits = [(split_key(seed, group), file.path, row) for row, group in enumerate(_groups(root, file) or doc_ids)]
    found = _Found(lowest=min(splits), highest=max(splits))
    if manifest.order(file.source) is not None:
        return found
    keys = [(order_key(seed, doc_id), doc_id) for doc_id in doc_ids]
    for row, (before, key) in enumerate(pairwise(keys), start=1):
        if key <= before:
            raise ShardError(f"{root / file.path}: row {row} {_wrong(before, key, seed)}")
    return replace(found, first=keys[0], last=keys[-1])


def _groups(root: Path, file: ShardFile) -> list[bytes]:
    """What the documents of a file were held out by, where that is not the doc_id; else nothing."""
    if file.provenance is None:
        return []
    try:
        with pq.ParquetFile(root / file.provenance_path) as parquet:
            return parquet.read([GROUP])[GROUP].to_pylist() if GROUP in parquet.schema_arrow.names else []
    except (OSError, pa.ArrowException):
        return []  # what is wrong with it is told where provenance is checked


def _wrong(before: Key, key: Key, seed: int) -> str:
    return f"repeats document {key[1].hex()}" if key == before else f"breaks the keyed order (seed {seed})"


def _check_provenance(path: Path, file: ShardFile, ids: pa.ChunkedArray[Any] | None, quick: bool) -> None:
    if not quick:
        check_digest(path, file.provenance or "")
    try:
        with pq.ParquetFile(path) as parquet:
            rows = parquet.metadata.num_rows
            told = parquet.read(columns=["doc_id"])["doc_id"].cast(pa.binary()) if not quick else ids
    except (OSError, pa.ArrowException, KeyError) as error:
        raise ShardError(f"{path}: cannot be read as the provenance of {file.path} ({error})") from error
    if rows != file.rows:
        raise ShardError(f"{path}: has {rows} rows, the manifest says {file.rows}")
    if ids is not None and told is not None and len(ids) == rows:
        differ = np.flatnonzero(~pc.fill_null(pc.equal(told, ids), False).to_numpy())
        if differ.size:
            raise ShardError(f"{path}: row {int(differ[0])} is of another document than row {int(differ[0])} of {file.path}")


# --- the files of a source together -----------------------------------------------------------------------------------------


def _sources(root: Path, manifest: Manifest, found: list[_Found]) -> Iterator[str]:
    by_stream: dict[tuple[str, str], list[tuple[ShardFile, _Found]]] = {}
    for file, keys in zip(manifest.files, found, strict=True):
        by_stream.setdefault((file.source, file.split), []).append((file, keys))
    for files in by_stream.values():
        for (_, before), (file, after) in pairwise(files):
            if before.last is not None and after.first is not None and after.first <= before.last:
                yield f"{root / file.path}: row 0 {_wrong(before.last, after.first, manifest.seed or 0)}"
    for source in sorted({source for source, _ in by_stream}):
        order, both = manifest.order(source), (by_stream.get((source, "train")), by_stream.get((source, "validation")))
        if manifest.seed is not None and all(both):
            yield from _split(root, *([keys for _, keys in files] for files in both if files))
        if manifest.seed is None or order is not None:
            yield from _repeated(root, manifest, source)
        if order is not None:
            for split in sorted({split for name, split in by_stream if name == source}):
                yield from _stated_order(root, manifest, order, [file for file, _ in by_stream[source, split]])


def _split(root: Path, train: list[_Found], validation: list[_Found]) -> Iterator[str]:
    """All keys of the documents held out lie below all of the others."""
    low, high = min(f.lowest for f in train if f.lowest), max(f.highest for f in validation if f.highest)
    if low[0] <= high[0]:
        yield (
            f"{root / high[1]}: row {high[2]} or row {low[2]} of {low[1]} is in the wrong split: "
            "the keyed hash of a document held out lies below those of the others"
        )


def _repeated(root: Path, manifest: Manifest, source: str) -> Iterator[str]:
    """Where no strict order tells that ids differ: counted, by their first byte in as many passes as memory asks for."""
    files = [file for file in manifest.files if file.source == source]
    passes = min(-(-sum(file.rows for file in files) // IDS_AT_ONCE), 256)
    for number in range(passes):
        low, high = bytes([number * 256 // passes]), (number + 1) * 256 // passes
        parts: list[Any] = []
        for file in files:
            for batch in MappedShard(root, file, manifest.dtype).batches:
                here = pc.greater_equal(batch.doc_ids, low)
                if high < 256:
                    here = pc.and_(here, pc.less(batch.doc_ids, bytes([high])))
                parts.append(batch.doc_ids.filter(here) if passes > 1 else batch.doc_ids)
        counts = pa.chunked_array(parts, pa.binary()).value_counts()
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
        if twice:
            yield f"{root / source}: document {min(twice).hex()} is there more than once ({len(twice)} such documents)"


def _stated_order(root: Path, manifest: Manifest, order: Order, files: Sequence[ShardFile]) -> Iterator[str]:
    """Rows ranked by the column, then the keyed hash; blocks of `window` ranks, each in keyed order. Names the first breach."""
    done, last = 0, None
    block_end = highest = _FIRST
    for file in files:
        if file.provenance is None:
            yield f"{root / file.path}: lies by {order.by!r}, and has no provenance to check it by"
            return
        path = root / file.provenance_path
        with pq.ParquetFile(path) as parquet:
            if order.by not in parquet.schema_arrow.names:
                yield f"{path}: has no column {order.by!r}, by which the manifest orders source {order.source!r}"
                return
            for batch in parquet.iter_batches(columns=["doc_id", order.by]):
                for doc_id, score in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    key = order_key(manifest.seed or 0, doc_id), doc_id
                    rank = _rank(score, order.descending, key)
                    if done % order.window == 0:
                        block_end, last = highest, None
                    if rank <= block_end or (last is not None and key <= last):
                        yield f"{path}: document {doc_id.hex()} breaks the order by {order.by!r} (window {order.window})"
                        return
                    done, last, highest = done + 1, key, max(highest, rank)


Rank = tuple[bool, float, Key]
_FIRST: Rank = (False, -math.inf, (-1, b""))


def _rank(score: float | None, descending: bool, key: Key) -> Rank:
    """Documents without a score come last."""
    if score is None or math.isnan(score):
        return True, 0, key
    return False, -score if descending else score, key


def _tombstones(root: Path, table: pa.Table) -> Iterator[str]:
    shards = Shards(root)
    streams: dict[tuple[str, str], TokenStream] = {}
    for row in table.to_pylist():
        stream = streams.setdefault(key := (row["source"], row["split"]), streams.get(key) or shards.stream(*key))
        (span,) = stream.documents(row["start"], 1)
        whole = [array.tolist() for array in stream.places(span.file, [span.row])]
        if (span.doc_id, span.file, span.row) != (row["doc_id"], row["file"], row["row"]) or whole != [
            [row["start"]],
            [row["length"]],
        ]:
            yield f"{root / shards.manifest.takedowns[-1].path}: document {row['doc_id'].hex()} lies elsewhere in its stream"
