"""A shard folder to read: part of `pipelines.shards`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pipelines.shards.manifest import ShardError, ShardFile, read_manifest
from pipelines.shards.stream import NOTHING, MappedShard, TokenStream, check_digest, check_ends
from pipelines.shards.tombstones import gone, read_tombstones

HASHED_BYTES = 1 << 30  # of ids: about a second
CHECKED_AT_ONCE = 16  # files: more than cores, since a shared file system answers late


class Shards:
    """A shard folder to read: the manifest and the tombstones in force. No shard is opened before it is asked for.

    Raises ShardError for a folder without either, or whose manifest or tombstones were edited.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.manifest = read_manifest(root)
        self._gone = gone(read_tombstones(root, self.manifest))

    def stream(self, source: str, split: str = "train") -> TokenStream:
        """The token stream of a source. Raises ShardError for one that the manifest does not list."""
        manifest = self.manifest
        files = tuple(f for f in manifest.files if f.source == source and f.split == split)
        if not files:
            known = ", ".join(manifest.source_tokens(split)) or "none"
            raise ShardError(f"{self.root} has no source {source!r} in split {split!r}; it has {known}")
        seed = manifest.seed if manifest.order(source) is None else None
        return TokenStream(self.root, files, manifest.dtype, manifest.eos_id, seed, self._gone.get((source, split), NOTHING))

    def check(self) -> None:
        """Look at every shard before a long run begins; where all together are small (`HASHED_BYTES`), read them too.

        Of large ones only the size and the last bytes, in about fifty microseconds each: a shard is opened, and its rows
        held against the manifest, by the step that first reads it. What `python -m pipelines verify` checks besides takes time.
        Raises ShardError for a shard that is missing, was cut short or, if it was read, has another SHA-256.
        """
        width = np.dtype(self.manifest.dtype).itemsize
        small = sum(file.tokens for file in self.manifest.files) * width <= HASHED_BYTES

        def check(file: ShardFile) -> None:
            if small:
                MappedShard(self.root, file, self.manifest.dtype)
                check_digest(self.root / file.path, file.sha256)
            else:
                check_ends(self.root / file.path, file.tokens * width)

        with ThreadPoolExecutor(CHECKED_AT_ONCE) as threads:
            list(threads.map(check, self.manifest.files, chunksize=64))
