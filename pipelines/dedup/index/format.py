"""THE INDEX FORMAT: what a run kept, so that a later dump can be held against it; to write and check (no Spark).

    ROOT/documents/00000.arrow   one row a document: whose it is, a sketch, the text (zstd); in keyed order of doc_id
    ROOT/keys/00000.keys         pairs of little-endian int64, ascending: the key of a bucket, the place of a document in it
    ROOT/manifest.json           written last: what it does not list does not exist

All files are memory-mapped. Keys are spread evenly over `slots` files, so the file of a key follows from the key, and a lookup
is a search in that file: its cost is the new keys' number times the logarithm of the old one's. A place is the number of the
document's file, the record batch in it and the row in that, in one integer, so that a document is found without a search.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard

from pipelines.dedup.minhash import MinhashConfig, Signatures, bands, signatures
from pipelines.errors import UserError
from pipelines.shards.manifest import MANIFEST, temporary_name, write_atomic

VERSION = 1
BATCH_ROWS = 1 << 10  # a record batch of documents closes with the row that reaches this,
BATCH_BYTES = 1 << 20  # or these bytes of compressed text
SKETCH = 256  # values of a signature that the sketch has at most
_ROW_BITS, _BATCH_BITS = 15, 24  # of a place; what is left, 24 bits, is the file
_PROBE = ("The river had been rising since the morning.", "\u5929\u9999\u5f15\u6c34\u7684\u6e20", "\u00c9t\u00e9 1")

Ints: TypeAlias = npt.NDArray[np.int64]
Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class IndexConfig:
    """`dump`: the name by which a later run tells where an old document is from; the recipe's name where it is empty.

    `target_bytes`: about the size of a file.
    """

    dump: str = ""
    minhash: MinhashConfig = field(default_factory=MinhashConfig)
    target_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        if self.target_bytes < 1:
            raise ValueError(f"target_bytes is {self.target_bytes}; it must be at least 1")


@dataclass(frozen=True)
class IndexFile:
    """One file of the manifest; `path` is relative to the root, with forward slashes."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class IndexManifest:
    """What an index holds. `rows`: documents; `slots`: key files there may be (one without keys is not written)."""

    version: int
    dump: str
    recipe: str
    recipe_fingerprint: str
    minhash: dict[str, Any]
    probe: str  # of `probe`: tells apart hashes of one setting but of two programs
    rows: int
    slots: int
    files: tuple[IndexFile, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the rest as canonical JSON."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- what is looked up ---------------------------------------------------------------------------------------------------


def lookup_keys(signature: Signatures, cfg: MinhashConfig) -> Ints:
    """The keys of each document, shape (rows, bands + 1): one a band, and last one of the whole signature.

    By the last, equal texts meet among the few that are all but equal, however full the buckets of their bands are.
    """
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in signature.astype("<u4"))
    whole = np.frombuffer(b"".join(digests), "<i8")
    return np.column_stack((bands(signature, cfg), whole))


def probe(cfg: MinhashConfig) -> str:
    """A digest of the keys that this program gives three fixed texts: keys of another one could not be compared with ours."""
    keys = lookup_keys(signatures(pa.array(_PROBE), cfg), cfg)
    return hashlib.blake2b(keys.astype("<i8").tobytes(), digest_size=8).hexdigest()


def key_file(keys: Ints, slots: int) -> Ints:
    """The number of the file in which each key lies: the keys' range in `slots` equal parts, by their upper 32 bits."""
    return ((keys >> 32) + (1 << 31)) * slots >> 32


def pack_place(file: int, batch: int, row: int) -> int:
    """The place of a document. Raises UserError for more files or record batches than a place can name."""
    if file >= 1 << (63 - _BATCH_BITS - _ROW_BITS) or batch >= 1 << _BATCH_BITS:
        raise UserError(
            f"document file {file}, record batch {batch} cannot be numbered; set index.target_bytes nearer to 256 MiB"
        )
    return (file << _BATCH_BITS | batch) << _ROW_BITS | row


def unpack_place(place: int) -> tuple[int, int, int]:
    """File, record batch and row of a place."""
    return place >> (_BATCH_BITS + _ROW_BITS), place >> _ROW_BITS & ((1 << _BATCH_BITS) - 1), place & ((1 << _ROW_BITS) - 1)


# --- to write ------------------------------------------------------------------------------------------------------------

DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.binary()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("sketch", pa.binary()),  # minhash.sketch, of the first SKETCH values; empty for a text without shingles
        ("text", pa.large_binary()),  # one zstd frame with its size and checksum
    ]
)


def compressed(texts: Iterable[str]) -> list[bytes]:
    """Texts as the index holds them."""
    compress = zstandard.ZstdCompressor(level=3, write_checksum=True).compress
    return [compress(text.encode("utf-8", "surrogatepass")) for text in texts]


class Writing:
    """A file of the index as it is written: to a temporary name, then fsync, then renamed; `made` describes it afterwards."""

    made: IndexFile

    def __init__(self, root: str | Path, name: str) -> None:
        self.name, self.path, self.rows = name, Path(root) / name, 0
        self._temporary = temporary_name(self.path)

    def __enter__(self) -> Writing:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = pa.OSFile(str(self._temporary), "wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.file.close()
        try:
            if kind is None:
                with self._temporary.open("rb") as raw:
                    os.fsync(raw.fileno())
                    size = os.fstat(raw.fileno()).st_size
                    self.made = IndexFile(self.name, self.rows, size, hashlib.file_digest(raw, "sha256").hexdigest())
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def documents_name(number: int) -> str:
    """The name of a file of documents."""
    return f"documents/{number:05d}.arrow"


def keys_name(number: int) -> str:
    """The name of a file of keys."""
    return f"keys/{number:05d}.keys"


def write_documents(out: Writing, number: int, rows: Iterable[Row]) -> Iterator[tuple[list[Row], Ints]]:
    """Write rows with the columns of DOCUMENTS; yields those of each record batch, when it is written, with their places.

    The same rows in order give the same bytes. Memory: one record batch.
    """
    with pa.ipc.new_file(out.file, DOCUMENTS) as writer:
        for index, group in enumerate(_groups(rows)):
            columns: list[Any] = [pa.array([d[f.name] for d in group], f.type) for f in DOCUMENTS]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS))
            out.rows += len(group)
            yield group, pack_place(number, index, 0) + np.arange(len(group))


def write_keys(out: Writing, pairs: Iterable[Ints]) -> None:
    """Write keys with their places: arrays of shape (n, 2), ascending in themselves and in turn."""
    for part in pairs:
        out.file.write(part.astype("<i8").tobytes())
        out.rows += len(part)


def write_manifest(root: str | Path, manifest: IndexManifest) -> None:
    """Publish the index: what the manifest does not list is removed, then it is written, atomically."""
    listed = {f.path for f in manifest.files}
    for path in Path(root).glob("*/*"):
        if path.relative_to(root).as_posix() not in listed:
            path.unlink()
    content = {**asdict(manifest), "fingerprint": manifest.fingerprint}
    write_atomic(Path(root) / MANIFEST, json.dumps(content, indent=1) + "\n")


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row["text"])
        if len(group) == BATCH_ROWS or size >= BATCH_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


# --- to read -------------------------------------------------------------------------------------------------------------


def read_manifest(root: str | Path) -> IndexManifest:
    """The manifest of an index. Raises UserError if it is missing, of another version, or was edited."""
    path = Path(root) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {root} holds no complete index; run its recipe again, it goes on") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove {root} and run its recipe again") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise UserError(
            f"{path} has format version {version!r}, this program reads {VERSION}; remove {root} and run its recipe again"
        )
    recorded = content.pop("fingerprint", None)
    try:
        manifest = IndexManifest(**content | {"files": tuple(IndexFile(**f) for f in content["files"])})
    except (KeyError, TypeError) as error:
        names = ", ".join(f.name for f in fields(IndexManifest))
        raise UserError(f"{path} does not hold the fields {names} ({error}); run its recipe again") from error
    if recorded != manifest.fingerprint:
        raise UserError(f"{path} was changed after it was written: fingerprint {manifest.fingerprint}, recorded {recorded}")
    return manifest


def check(root: str | Path, cfg: MinhashConfig) -> IndexManifest:
    """The manifest of an index that may be searched with `cfg`; its files are there, of the right size.

    Raises UserError, naming both settings where they differ.
    """
    manifest, ours = read_manifest(root), asdict(cfg)
    differ = [n for n in dict.fromkeys((*ours, *manifest.minhash)) if ours.get(n) != manifest.minhash.get(n)]
    if differ:
        theirs, wanted = (", ".join(f"{n}={s.get(n)!r}" for n in differ) for s in (manifest.minhash, ours))
        raise UserError(
            f"the index {root} was made with {theirs}, and is to be searched with {wanted}; "
            "give the stage the index's settings (minhash), or index that run anew with these"
        )
    if manifest.probe != (found := probe(cfg)):
        raise UserError(
            f"the index {root} was made by a program whose keys differ from this one's (probe {manifest.probe}, here {found}); "
            "remove it and run its recipe again"
        )
    for file in manifest.files:
        check_size(Path(root) / file.path, file)
    return manifest


def verify(root: str | Path) -> IndexManifest:
    """Read and check every byte against the manifest; returns it. Raises UserError with one line a bad file."""
    manifest = read_manifest(root)
    problems = []
    for file in manifest.files:
        path = Path(root) / file.path
        try:
            check_size(path, file)
            with path.open("rb") as raw:
                digest = hashlib.file_digest(raw, "sha256").hexdigest()
            if digest != file.sha256:
                problems.append(f"{path}: sha256 is {digest}, the manifest says {file.sha256}")
        except (OSError, UserError) as error:
            problems.append(str(error))
    if problems:
        count = f"{len(problems)} of {len(manifest.files)} files of the index are bad; remove {root} and run its recipe again"
        raise UserError("\n  ".join([count, *problems]))
    return manifest


def check_size(path: Path, file: IndexFile) -> None:
    """Raise UserError where a file is not there, or not of the size that the manifest says."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; the index is not whole, run its recipe again") from error
    if size != file.bytes:
        raise UserError(f"{path}: has {size} bytes, the manifest says {file.bytes}; the index is damaged, run its recipe again")
