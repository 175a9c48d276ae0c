"""The shard format: documents as token ids in Arrow IPC files under one manifest; to write and to read by position.

    ROOT/<source>/<split>-00000.arrow                one row a document: doc_id, tokens (+ roles); memory-mappable, uncompressed
    ROOT/<source>/<split>-00000.provenance.parquet   where the same rows come from, row by row; not in every folder
    ROOT/tombstones-<SHA-256>.parquet                documents that were taken down since (tombstones.py)
    ROOT/manifest.json                               written last: what it does not list does not exist

Within a source and split the rows lie in the order of `order_key(seed, doc_id)`, or in the order that the manifest states for
the source, so one shuffle at write time serves every reader, and a source is an immutable token stream: files in manifest
order, rows in order, each document ending in eos.
"""

from pipelines.shards.folder import Shards
from pipelines.shards.manifest import (
    MANIFEST,
    VERSION,
    Manifest,
    Order,
    ShardError,
    ShardFile,
    Takedown,
    is_validation,
    order_key,
    read_manifest,
    write_atomic,
    write_manifest,
)
from pipelines.shards.stream import Span, TokenStream, shard_schema
from pipelines.shards.write import published, shard_path, write_batches, write_shard

__all__ = [
    "MANIFEST",
    "VERSION",
    "Manifest",
    "Order",
    "ShardError",
    "ShardFile",
    "Shards",
    "Span",
    "Takedown",
    "TokenStream",
    "is_validation",
    "order_key",
    "published",
    "read_manifest",
    "shard_path",
    "shard_schema",
    "write_atomic",
    "write_batches",
    "write_manifest",
    "write_shard",
]
