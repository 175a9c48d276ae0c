"""The manifest of a shard folder, and the keyed hashes that order and split its rows: part of `shards.py`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

VERSION = 2
MANIFEST = "manifest.json"
ORDER, SPLIT = b"headrace-order", b"headrace-split"  # what a keyed hash is for
GROUP = "group"  # column of a table and of provenance: what is alike in it is held out together, instead of by doc_id
# not what a reader gets; the last takedown comes in by its tombstones
_LABELS = ("recipe", "recipe_fingerprint", "takedowns", "template")


class ShardError(Exception):
    """Shards that cannot be read, or do not hold what their manifest says. The message names the file and the way out."""


@dataclass(frozen=True)
class ShardFile:
    """One file of the manifest; `path` is relative to the root, with forward slashes.

    `provenance`: SHA-256 of the Parquet file beside it whose row i tells where row i comes from; None where there is none.
    """

    path: str
    source: str
    split: str
    rows: int
    tokens: int
    sha256: str
    provenance: str | None = None

    @property
    def provenance_path(self) -> str:
        """Where the provenance of the rows lies, relative to the root."""
        return self.path.removesuffix(".arrow") + ".provenance.parquet"


@dataclass(frozen=True)
class Order:
    """The rows of a source lie by the column `by`, shuffled inside blocks of `window` ranks, not by the keyed hash alone."""

    source: str
    by: str
    descending: bool
    window: int


@dataclass(frozen=True)
class Takedown:
    """A set of tombstones (all so far) of `rows` rows, and the fingerprint of the shards before it."""

    sha256: str
    rows: int
    before: str

    @property
    def path(self) -> str:
        """Where the set lies below the root: named by its content, so that a manifest and its set cannot be mixed up."""
        return f"tombstones-{self.sha256[:16]}.parquet"


@dataclass(frozen=True)
class Manifest:
    """What a shard folder holds. `dtype`: uint16 or uint32; `seed`: of `order_key`, None where rows are in no keyed order."""

    version: int
    dtype: str
    vocab_size: int  # ids lie below it; added tokens count
    eos_id: int
    tokenizer_sha256: str
    recipe: str
    recipe_fingerprint: str
    files: tuple[ShardFile, ...]
    seed: int | None = None
    orders: tuple[Order, ...] = ()
    takedowns: tuple[Takedown, ...] = ()  # oldest first; the last one's tombstones are in force
    template: Mapping[str, str] | None = None  # of conversations: the fields of template.Template

    @cached_property
    def _written(self) -> str:
        content = {name: value for name, value in vars(self).items() if name in _FIELDS and name not in _LABELS}
        content["files"] = [{k: v for k, v in vars(file).items() if k != "provenance"} for file in self.files]
        content["orders"] = [vars(order) for order in self.orders]
        return _digest(content)

    @property
    def lineage(self) -> tuple[str, ...]:
        """The fingerprints there were before each takedown and, last, the one there is.

        A takedown moves no token, so what was begun on earlier ones, a schedule or a training run, goes on.
        """
        return self._written, *(_digest([self._written, takedown.sha256]) for takedown in self.takedowns)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what a reader of tokens gets, as canonical JSON: every byte of every shard and the tombstones in force,
        not the recipe that wrote them nor where they come from."""
        return self.lineage[-1]

    def order(self, source: str) -> Order | None:
        """How the rows of a source lie; None: by the keyed hash, or with no seed as they were written."""
        return next((order for order in self.orders if order.source == source), None)

    def source_tokens(self, split: str = "train") -> dict[str, int]:
        """Tokens per source of one split, sources in manifest order."""
        tokens: dict[str, int] = {}
        for file in self.files:
            if file.split == split:
                tokens[file.source] = tokens.get(file.source, 0) + file.tokens
        return tokens


_FIELDS = tuple(f.name for f in fields(Manifest))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def order_key(seed: int, doc_id: bytes) -> int:
    """The keyed 64-bit hash (BLAKE2b) by which rows lie inside a source; ties are broken by doc_id."""
    return _keyed(seed, doc_id, ORDER)


def is_validation(seed: int, doc_id: bytes, share: float) -> bool:
    """Whether a document is held out; about `share` of all documents, by a hash independent of `order_key`."""
    return split_key(seed, doc_id) < int(share * 2**64)


def split_key(seed: int, doc_id: bytes) -> int:
    """The keyed 64-bit hash that splits: the documents held out are those with the lowest ones."""
    return _keyed(seed, doc_id, SPLIT)


def digests(seed: int, doc_ids: Iterable[bytes], purpose: bytes) -> bytes:
    """`order_key` (for ORDER) or `split_key` (SPLIT) of many documents, 8 bytes big-endian each."""
    copy = _state(seed, purpose).copy
    found = []
    for doc_id in doc_ids:
        state = copy()
        state.update(doc_id)
        found.append(state.digest())
    return b"".join(found)


def _keyed(seed: int, doc_id: bytes, purpose: bytes) -> int:
    state = _state(seed, purpose)
    state.update(doc_id)
    return int.from_bytes(state.digest(), "big")


def _state(seed: int, purpose: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, "little", signed=True), person=purpose)


def write_manifest(root: str | Path, manifest: Manifest) -> None:
    """Publish the shards: the manifest is written last, atomically."""
    content = {**asdict(manifest), "fingerprint": manifest.fingerprint}
    if content["template"] is None:  # as in shards written before there were conversations
        del content["template"]
    write_atomic(Path(root) / MANIFEST, json.dumps(content, indent=1) + "\n")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees all of it or none: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A hidden name beside `path` that no other attempt at it uses, on this machine or another."""
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def read_manifest(root: str | Path) -> Manifest:
    """The manifest of a shard folder. Raises ShardError if it is missing, of another version or was edited."""
    path = Path(root) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(f"{path} is missing: {root} holds no complete shards; run the recipe again, it goes on") from None
    except ValueError as error:
        raise ShardError(f"{path} is not JSON ({error}); delete it and run the recipe again") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise ShardError(f"{path} has format version {version!r}, this program reads {VERSION}; write the shards again")
    recorded = content.pop("fingerprint", None)
    try:
        parts: dict[str, Any] = {"files": ShardFile, "orders": Order, "takedowns": Takedown}
        manifest = Manifest(**content | {name: tuple(kind(**v) for v in content[name]) for name, kind in parts.items()})
    except (KeyError, TypeError) as error:
        raise ShardError(f"{path} does not hold the fields {', '.join(_FIELDS)} ({error}); write the shards again") from error
    if recorded != manifest.fingerprint:
        raise ShardError(f"{path} was changed after it was written: fingerprint {manifest.fingerprint}, recorded {recorded}")
    for takedown, before in zip(manifest.takedowns, manifest.lineage, strict=False):
        if takedown.before != before:
            raise ShardError(f"{path} was changed after it was written: a takedown was of {takedown.before}, not of {before}")
    return manifest
