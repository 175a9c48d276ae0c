"""Tombstones: which documents of a shard folder were taken down. Part of `shards.py`.

    ROOT/tombstones-<SHA-256>.parquet   one row a document: where it lies in its stream; all takedowns so far in one file, of
                                        which the manifest names the last (the one before it is kept for a while)

The set is named by its content and is in force from the moment the manifest names it, which is written after it: a takedown
killed at any point has happened or has not.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.shards.manifest import MANIFEST, Manifest, ShardError, Takedown, write_atomic, write_manifest
from pipelines.shards.stream import Ints

TOMBSTONES = pa.schema(
    [
        ("source", pa.string()),
        ("split", pa.string()),
        ("start", pa.int64()),  # position in the stream
        ("length", pa.int64()),  # tokens, its eos among them
        ("doc_id", pa.binary()),
        ("file", pa.string()),  # the shard
        ("row", pa.int64()),  # of the shard
        ("reason", pa.string()),
    ]
)
KEPT = 2  # sets: a reader may have read the manifest just before the last takedown
_ORDER = ("source", "split", "start")


def read_tombstones(root: str | Path, manifest: Manifest) -> pa.Table:
    """The tombstones in force, in the order of source, split and start; none without a takedown.

    Raises ShardError for a set that is missing, was edited, is not in order, or lies outside of the streams.
    """
    if not manifest.takedowns:
        return TOMBSTONES.empty_table()
    import pyarrow.parquet as pq

    takedown = manifest.takedowns[-1]
    path = Path(root) / takedown.path
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ShardError(
            f"{path} is missing: the documents that it takes down would be read again; bring it back from a copy"
        ) from None
    if (found := hashlib.sha256(data).hexdigest()) != takedown.sha256:
        raise ShardError(f"{path} was changed after it was written: sha256 is {found}; bring it back from a copy")
    table = pq.read_table(pa.BufferReader(data))
    if table.schema != TOMBSTONES or len(table) != takedown.rows:
        raise ShardError(f"{path} has {len(table)} rows of {table.schema.names}, expected {takedown.rows} tombstones")
    _check(path, table, manifest)
    return table


def gone(table: pa.Table) -> dict[tuple[str, str], Ints]:
    """Per source and split: the places taken down as [start, end), neighbours joined. Shape (k, 2)."""
    joined = {}
    for key, places in _by_stream(table).items():
        apart = np.flatnonzero(places[1:, 0] > places[:-1, 1])
        firsts, lasts = np.append(0, apart + 1), np.append(apart, len(places) - 1)
        joined[key] = np.stack([places[firsts, 0], places[lasts, 1]], axis=1)
    return joined


def publish_tombstones(root: str | Path, manifest: Manifest, added: pa.Table) -> Manifest:
    """Put more tombstones in force: the set, then the manifest that names it; returns the manifest.

    `added`: rows of TOMBSTONES, none of which is in force yet. The caller keeps others from writing the folder. Raises
    ShardError, before anything is written, for tombstones that overlap or lie outside of the streams.
    """
    import pyarrow.parquet as pq

    root = Path(root)
    table = pa.concat_tables([read_tombstones(root, manifest), added.cast(TOMBSTONES)])
    table = table.sort_by([(name, "ascending") for name in _ORDER])
    _check(root, table, manifest)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    takedown = Takedown(hashlib.sha256(data).hexdigest(), len(table), manifest.fingerprint)
    write_atomic(root / takedown.path, data)
    manifest = replace(manifest, takedowns=(*manifest.takedowns, takedown))
    write_manifest(root, manifest)
    for stale in root.glob("tombstones-*.parquet"):  # of takedowns long ago, or killed
        if stale.name not in {kept.path for kept in manifest.takedowns[-KEPT:]}:
            stale.unlink(missing_ok=True)
    return manifest


def _check(path: Path, table: pa.Table, manifest: Manifest) -> None:
    sizes: dict[tuple[str, str], int] = {}
    for file in manifest.files:
        sizes[file.source, file.split] = sizes.get((file.source, file.split), 0) + file.tokens
    for (source, split), places in _by_stream(table).items():
        inside = places[0, 0] >= 0 and places[-1, 1] <= sizes.get((source, split), 0)
        if not inside or (places[:, 1] <= places[:, 0]).any() or (places[1:, 0] < places[:-1, 1]).any():
            raise ShardError(f"{path}: tombstones of source {source!r}, split {split!r} overlap or lie outside of the stream")


def _by_stream(table: pa.Table) -> dict[tuple[str, str], Ints]:
    if not len(table):
        return {}
    starts, lengths = (table[name].to_numpy() for name in ("start", "length"))
    places = np.stack([starts, starts + lengths], axis=1).astype(np.int64)
    names: Any = pc.binary_join_element_wise(table["source"], table["split"], "/")
    runs = pc.run_end_encode(names.combine_chunks())
    ends = [0, *runs.run_ends.to_pylist()]
    found: dict[tuple[str, str], Ints] = {}
    for name, first, last in zip(runs.values.to_pylist(), ends[:-1], ends[1:], strict=True):
        source, _, split = name.partition("/")
        if (source, split) in found:
            raise ShardError(f"tombstones of {name} lie apart: they are not sorted by source; see {MANIFEST}")
        found[source, split] = places[first:last]
    return found
