"""The file of a fastText classifier (.bin, quantised .ftz), read and written without the library; version 12, and 11 to read.

Source: fastText 0.9.2, fasttext.cc (`saveModel`), args.cc, dictionary.cc, densematrix.cc, quantmatrix.cc, productquantizer.cc.
Little-endian throughout. Reading is arithmetic on bytes: sizes are checked against the file before anything is allocated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from classifiers.errors import ModelError

MAGIC, VERSION = 793712314, 12
LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}
PREFIX = b"__label__"
_SUPERVISED = 3
_CENTROIDS = 256


@dataclass(frozen=True)
class Settings:
    """What scoring needs of fastText's arguments, and what training used."""

    dim: int
    epochs: int
    min_count: int
    words: int
    loss: str
    buckets: int
    low: int
    high: int
    rate_steps: int = 100


@dataclass(frozen=True)
class File:
    """What is in the file; W words, L labels."""

    settings: Settings
    words: tuple[bytes, ...]
    word_counts: np.ndarray  # int64 (W,)
    labels: tuple[bytes, ...]  # without their prefix
    label_counts: np.ndarray  # int64 (L,)
    tokens: int  # of the training texts
    moved: np.ndarray  # int32: of a pruned model, row behind the words of each bucket, -1 for none; else (0,)
    inputs: np.ndarray  # float32 (rows, dim)
    outputs: np.ndarray  # float32 (L, dim), or (L - 1, dim) of a tree


class _Reader:
    """A place in the bytes of a file that is being read."""

    def __init__(self, data: np.ndarray) -> None:
        self.data, self.at = data, 0

    def part(self, count: int) -> np.ndarray:
        if count < 0 or self.at + count > len(self.data):
            raise ValueError(f"it ends at byte {len(self.data)}, in the middle of {count} bytes from {self.at}")
        found = self.data[self.at : self.at + count]
        self.at += count
        return found

    def numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(f"<{form}", self.part(struct.calcsize(f"<{form}")).tobytes())

    def array(self, dtype: str, *shape: int) -> np.ndarray:
        if min(shape) < 0:
            raise ValueError(f"it has an array of shape {shape}")
        size = int(np.prod(shape, dtype=object))
        return np.frombuffer(self.part(size * np.dtype(dtype).itemsize), dtype).reshape(shape)

    def string(self) -> bytes:
        size = 256
        while True:
            ahead = self.data[self.at : self.at + size].tobytes()
            end = ahead.find(b"\0")
            if end >= 0:
                self.at += end + 1
                return ahead[:end]
            if len(ahead) < size:
                raise ValueError(f"it has a word without an end at byte {self.at}")
            size *= 16


def read(data: np.ndarray, name: str) -> File:
    """The classifier in the bytes (uint8) of a file. Raises ModelError, naming it, for anything else."""
    reader = _Reader(data)
    try:
        magic, version = reader.numbers("ii")
    except ValueError:
        magic, version = 0, 0
    if magic != MAGIC:
        raise ModelError(f"{name!r} is no fastText model; give one (.bin or .ftz), or a folder that `fit` wrote")
    if version not in (11, VERSION):
        raise ModelError(f"{name!r} is a fastText model of version {version}; this program reads 11 and {VERSION}")
    try:
        return _read(reader, version)
    except (ValueError, struct.error, KeyError) as error:
        raise ModelError(f"{name!r} is damaged or no classifier ({error}); fetch it again") from error


def _read(reader: _Reader, version: int) -> File:
    dim, _, epochs, min_count, _, longest, loss, model, buckets, low, high, steps = reader.numbers("12i")
    reader.numbers("d")
    if model != _SUPERVISED or LOSSES.get(loss) not in ("hs", "softmax", "ova"):
        raise ValueError(f"it is of kind {model} with loss {loss}; classifiers are of kind 3 with loss 1, 3 or 4")
    if not (0 < dim <= 1 << 16 and longest >= 1 and 0 <= buckets < 1 << 31 and high <= 64):
        raise ValueError(f"dim is {dim}, word n-grams {longest}, buckets {buckets}, letter n-grams up to {high}")
    if version == 11:
        high = 0
    size, words, labels, tokens, pruned = reader.numbers("3i2q")
    if size != words + labels or min(words, labels) < 0:
        raise ValueError(f"{size} entries are {words} words and {labels} labels")
    entries: list[tuple[bytes, int, int]] = []
    for _ in range(size):
        name = reader.string()
        count, kind = reader.numbers("qb")
        entries.append((name, count, kind))
    moved = np.zeros(0, np.int32)
    if pruned >= 0:
        pairs = reader.array("<i4", pruned, 2)
        moved = np.full(buckets, -1, np.int32)
        if pruned and not (pairs.min() >= 0 and pairs[:, 0].max() < buckets and pairs[:, 1].max() < pruned):
            raise ValueError("its pruned buckets lie outside of the table")
        moved[pairs[:, 0]] = pairs[:, 1]
    (quantised,) = reader.numbers("?")
    inputs = _quantised(reader) if quantised else _dense(reader)
    (quantised_out,) = reader.numbers("?")
    outputs = _quantised(reader) if quantised and quantised_out else _dense(reader)
    grams = buckets if pruned < 0 else pruned
    nodes = labels - 1 if LOSSES[loss] == "hs" else labels
    if inputs.shape != (words + grams, dim) or outputs.shape[1] != dim or outputs.shape[0] not in (labels, nodes):
        raise ValueError(f"its matrices are {inputs.shape} and {outputs.shape} for {words} words and {labels} labels")
    of_label = [e for e in entries if e[2] == 1]
    if len(of_label) != labels or entries[words:] != of_label:
        raise ValueError("its labels do not follow its words")
    return File(
        Settings(dim, epochs, min_count, longest, LOSSES[loss], buckets, max(low, 0), max(high, 0), steps),
        tuple(word for word, *_ in entries[:words]),
        np.array([count for _, count, _ in entries[:words]], np.int64),
        tuple(label.removeprefix(PREFIX) for label, *_ in of_label),
        np.array([count for _, count, _ in of_label], np.int64),
        tokens,
        moved,
        inputs,
        outputs,
    )


def write(file: File) -> bytes:
    """The bytes of a dense model, as fastText 0.9.2 writes them."""
    s = file.settings
    loss = next(number for number, name in LOSSES.items() if name == s.loss)
    parts = [
        struct.pack("<2i", MAGIC, VERSION),
        struct.pack(
            "<12i", s.dim, 5, s.epochs, s.min_count, 5, s.words, loss, _SUPERVISED, s.buckets, s.low, s.high, s.rate_steps
        ),
        struct.pack("<d", 1e-4),
        struct.pack("<3i2q", len(file.words) + len(file.labels), len(file.words), len(file.labels), file.tokens, -1),
    ]
    entries = [(w, c, 0) for w, c in zip(file.words, file.word_counts.tolist(), strict=True)]
    entries += [(PREFIX + name, c, 1) for name, c in zip(file.labels, file.label_counts.tolist(), strict=True)]
    parts += [word + b"\0" + struct.pack("<qb", count, kind) for word, count, kind in entries]
    for matrix in (file.inputs, file.outputs):
        parts += [struct.pack("<?2q", False, *matrix.shape), np.ascontiguousarray(matrix, "<f4").tobytes()]
    return b"".join(parts)


def tree(label_counts: np.ndarray) -> np.ndarray:
    """Of a hierarchical softmax: int8 (L, L - 1), 1 where the label is right of a node, -1 where left, 0 if not below it.

    The Huffman tree of fastText, loss.cc (`buildTree`): labels are sorted by their counts, largest first.
    """
    size = len(label_counts)
    counts = np.full(2 * size - 1, 10**15, np.int64)
    counts[:size] = label_counts
    below = np.zeros((2 * size - 1, size), np.bool_)
    below[:size] = np.eye(size, dtype=np.bool_)
    paths = np.zeros((size, size - 1), np.int8)
    leaf, node = size - 1, size
    for i in range(size, 2 * size - 1):
        sides = []
        for _ in range(2):
            if leaf >= 0 and counts[leaf] < counts[node]:
                sides.append(leaf)
                leaf -= 1
            else:
                sides.append(node)
                node += 1
        counts[i] = counts[sides[0]] + counts[sides[1]]
        below[i] = below[sides[0]] | below[sides[1]]
        paths[below[sides[0]], i - size], paths[below[sides[1]], i - size] = -1, 1
    return paths


def _dense(reader: _Reader) -> np.ndarray:
    rows, columns = reader.numbers("2q")
    return reader.array("<f4", rows, columns)


def _quantised(reader: _Reader) -> np.ndarray:
    """A matrix of product-quantised rows (Joulin et al., arXiv 1612.03651, section 3), unpacked."""
    with_norms, rows, columns, size = reader.numbers("?2qi")
    codes = reader.array("u1", size)
    found = _unquantised(reader, codes, rows, columns)
    if with_norms:
        found *= _unquantised(reader, reader.array("u1", rows), rows, 1)
    return found


def _unquantised(reader: _Reader, codes: np.ndarray, rows: int, columns: int) -> np.ndarray:
    dim, parts, width, last = reader.numbers("4i")
    if dim != columns or parts < 1 or width < 1 or (parts - 1) * width + last != dim or len(codes) != rows * parts:
        raise ValueError(f"{len(codes)} codes in {parts} parts of {width} and {last} do not make {rows} rows of {columns}")
    centroids = reader.array("<f4", dim * _CENTROIDS)
    found = np.empty((rows, columns), np.float32)
    for part in range(parts):
        wide = last if part == parts - 1 else width
        begin = part * _CENTROIDS * width
        table = centroids[begin : begin + _CENTROIDS * wide].reshape(_CENTROIDS, wide)
        found[:, part * width : part * width + wide] = table[codes.reshape(rows, parts)[:, part]]
    return found
