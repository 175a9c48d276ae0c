"""The manifest of a shard folder, and the keyed hashes that order and split its rows: part of `shards.py`."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from uuid import uuid4

VERSION = 1
MANIFEST = "manifest.json"


class ShardError(Exception):
    """Shards that cannot be read, or do not hold what their manifest says. The message names the file and the way out."""


@dataclass(frozen=True)
class ShardFile:
    """One file of the manifest; `path` is relative to the root, with forward slashes."""

    path: str
    source: str
    split: str
    rows: int
    tokens: int
    sha256: str


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

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what a reader gets, as canonical JSON: every byte of every file, not the recipe that wrote them."""
        content = {k: v for k, v in asdict(self).items() if k not in ("recipe", "recipe_fingerprint")}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def source_tokens(self, split: str = "train") -> dict[str, int]:
        """Tokens per source of one split, sources in manifest order."""
        tokens: dict[str, int] = {}
        for file in self.files:
            if file.split == split:
                tokens[file.source] = tokens.get(file.source, 0) + file.tokens
        return tokens


def order_key(seed: int, doc_id: bytes) -> int:
    """The keyed 64-bit hash (BLAKE2b) by which rows lie inside a source; ties are broken by doc_id."""
    return _keyed(seed, doc_id, b"headrace-order")


def is_validation(seed: int, doc_id: bytes, share: float) -> bool:
    """Whether a document is held out; about `share` of all documents, by a hash independent of `order_key`."""
    return _keyed(seed, doc_id, b"headrace-split") < int(share * 2**64)


def _keyed(seed: int, doc_id: bytes, purpose: bytes) -> int:
    key = seed.to_bytes(8, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(doc_id, digest_size=8, key=key, person=purpose).digest(), "big")


def write_manifest(root: str | Path, manifest: Manifest) -> None:
    """Publish the shards: the manifest is written last, atomically."""
    content = {**asdict(manifest), "fingerprint": manifest.fingerprint}
    write_atomic(Path(root) / MANIFEST, json.dumps(content, indent=1) + "\n")


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees all of it or none: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


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
        files = tuple(ShardFile(**file) for file in content.pop("files"))
        manifest = Manifest(**content, files=files)
    except (KeyError, TypeError) as error:
        names = ", ".join(f.name for f in fields(Manifest))
        raise ShardError(f"{path} does not hold the fields {names} ({error}); write the shards again") from error
    if recorded != manifest.fingerprint:
        raise ShardError(f"{path} was changed after it was written: fingerprint {manifest.fingerprint}, recorded {recorded}")
    return manifest
