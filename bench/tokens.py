"""Tokens: encoding speed against tokenizers alone, and the speed at which a training process gets batches from shards."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from bench.common import About, Row, installed, interleave, run_bench, sample, speed_rows, version
from bench.corpus import texts
from pipelines.manifest import Manifest, write_manifest
from pipelines.schedule import Phase, ScheduleConfig, compile_schedule, write_schedule
from pipelines.shards import VERSION, write_shard
from pipelines.tokens.encode import EncodeConfig, encode, encode_texts, tokenizer_info
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer
from trainer.data import load_batch, open_data

ABOUT = About(
    title="Tokens and loader",
    compared=(
        "`encode`: a byte-level BPE tokenizer of 8,192 ids trained on the same texts, one thread; ours is the stage "
        "(Arrow in, Arrow lists out) around the same library, so that 1 is what to expect, the peer tokenizers' "
        "encode_batch_fast with the ids taken out. `loader`: tokens a second of whole batches in the process that trains. "
        "Ours follows a compiled schedule over two sources at 0.7 to 0.3 and gives inputs, targets and document numbers; "
        "datatrove's file data set reads one file in order (what it is made for) and gives inputs and positions; the "
        "NumPy memory map takes random slices, as nanoGPT does, and knows neither sources nor documents. Files lie in the "
        "page cache: disks and networks are not measured."
    ),
    peers=("tokenizers", "datatrove", "numpy", "torch"),
)
SAMPLES = 16  # a batch
REPEAT = 3


def encoding(documents: Sequence[str], folder: Path, repeat: int) -> tuple[list[Row], EncodeConfig]:
    """The rows, and the tokenizer for what follows."""
    save(train_tokenizer(documents, TokenizerConfig(vocab_size=8192)), folder)
    info = tokenizer_info(folder / "tokenizer.json")
    cfg = EncodeConfig(info.path, info.sha256)
    batch = pa.RecordBatch.from_pydict({"text": documents})
    plain = Tokenizer.from_file(info.path)
    chosen = list(documents)

    def bare() -> list[list[int]]:
        return [encoding.ids for encoding in plain.encode_batch_fast(chosen, add_special_tokens=False)]

    encode(batch.slice(0, 2), cfg)
    seconds, _ = interleave({"ours": lambda: encode(batch, cfg), version("tokenizers"): bare}, repeat)
    return speed_rows("encode", "MB/s", sum(len(t.encode()) for t in documents) / 1e6, seconds, "ours"), cfg


def write_sources(root: Path, tokens: Sequence[npt.NDArray[np.uint16]], cfg: EncodeConfig, steps: int, length: int) -> None:
    """Shards of two sources and their schedule, half of the documents each."""
    files, info = [], tokenizer_info(cfg.tokenizer)
    for number, source in enumerate(("even", "odd")):
        mine = tokens[number::2]
        ids = [hashlib.blake2b(f"{source}{i}".encode(), digest_size=16).digest() for i in range(len(mine))]
        files.append(write_shard(root, source, "train", 0, ids, mine, "uint16"))
    manifest = Manifest(
        version=VERSION, dtype="uint16", vocab_size=info.vocab_size, eos_id=info.eos_id, tokenizer_sha256=info.sha256,
        recipe="bench", recipe_fingerprint="bench", files=tuple(files), seed=0,
    )  # fmt: skip
    write_manifest(root, manifest)
    phase = Phase("all", steps * SAMPLES * length, length, SAMPLES * length, {"even": 0.7, "odd": 0.3})
    schedule = compile_schedule(ScheduleConfig((phase,)), manifest.source_tokens(), manifest.fingerprint)
    write_schedule(root.parent / "schedule.json", schedule)


def loader(documents: Sequence[str], cfg: EncodeConfig, folder: Path, steps: int, length: int, repeat: int) -> list[Row]:
    """Tokens a second of `steps` batches."""
    import torch

    tokens = [ids.astype(np.uint16) for ids in encode_texts(documents, cfg)]
    write_sources(folder / "shards", tokens, cfg, steps, length)
    flat = folder / "tokens.ds"
    np.concatenate(tokens).tofile(flat)
    np.cumsum([len(ids) for ids in tokens], dtype=np.uint64).tofile(f"{flat}.index")
    data = open_data(folder / "shards")
    mapped = np.memmap(flat, np.uint16, "r")
    samples = min(len(mapped) // (length + 1), steps * SAMPLES)
    draw = np.random.default_rng(0)

    def ours() -> None:
        for step in range(steps):
            load_batch(data, step, 0, 1, SAMPLES)

    def random_slices() -> None:
        for _ in range(steps):
            starts = draw.integers(0, len(mapped) - length - 1, SAMPLES)
            rows = torch.from_numpy(np.stack([mapped[i : i + length + 1].astype(np.int64) for i in starts]))
            rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    contestants: dict[str, Any] = {"ours": ours, f"{version('numpy')}, random slices": random_slices}
    if installed("datatrove"):
        from datatrove.utils.dataset import DatatroveFileDataset

        def in_order() -> None:
            read = DatatroveFileDataset(str(flat), length, return_positions=True)
            for step in range(steps):
                rows = [read[(step * SAMPLES + i) % samples] for i in range(SAMPLES)]
                torch.stack([r["input_ids"] for r in rows]), torch.stack([r["positions"] for r in rows])

        contestants[f"{version('datatrove')}, in order"] = in_order
    for run in contestants.values():
        run()
    seconds, _ = interleave(contestants, repeat)
    return speed_rows("loader", "tokens/s", steps * SAMPLES * length, seconds, "ours")


def run(data: Path, limit: int = 250, steps: int = 100, length: int = 2048, repeat: int = REPEAT) -> list[Row]:
    """All rows. `limit`: of texts; `steps`: batches read; `length`: tokens a sample."""
    documents = [text for text, _ in sample(texts(data), limit)]
    with tempfile.TemporaryDirectory() as folder:
        rows, cfg = encoding(documents, Path(folder), repeat)
        return rows + loader(documents, cfg, Path(folder), steps, length, repeat)


if __name__ == "__main__":
    run_bench("tokens", ABOUT, run)
