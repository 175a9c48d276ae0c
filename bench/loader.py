"""The `loader` rows of the token benchmark: batches in the process that trains, and the start at a cursor of a long plan."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch

from bench.common import Row, installed, interleave, row, speed_rows, version
from pipelines.schedule import Phase, ScheduleConfig, compile_schedule, write_schedule
from pipelines.shards import VERSION, ShardFile, write_shard
from pipelines.shards.export import export
from pipelines.shards.manifest import Manifest, write_manifest
from trainer.data import load_batch, open_data

SAMPLES = 16  # a batch
LONG = 15 * 10**12  # tokens of the long plan
Tokens = Sequence[npt.NDArray[np.uint16]]


def rows(documents: Tokens, eos_id: int, vocab_size: int, folder: Path, steps: int, length: int, repeat: int) -> list[Row]:
    """Tokens a second of `steps` batches of sequences of `length`, the documents being read as often as that takes."""
    wanted = steps * SAMPLES * (length + 1)
    tokens = list(documents) * -(-2 * wanted // sum(map(len, documents)))
    write_sources(folder / "shards", tokens, eos_id, vocab_size, steps, length)
    data = open_data(folder / "shards")

    def ours() -> None:
        for step in range(steps):
            load_batch(data, step, 0, 1, SAMPLES)

    contestants: dict[str, Callable[[], object]] = {"ours": ours}
    contestants |= random_slices(np.concatenate(tokens), folder / "tokens.bin", steps, length)
    contestants |= packed_rows(tokens, folder / "packed", steps, length)
    contestants |= streamed_shards(folder, steps, length)
    contestants |= datatrove_file(folder, steps, length)
    contestants |= megatron_dataset(folder, eos_id, vocab_size, steps, length)
    for run in contestants.values():
        run()
    seconds, _ = interleave(contestants, repeat)
    return speed_rows("loader", "tokens/s", steps * SAMPLES * length, seconds, "ours")


def write_sources(root: Path, tokens: Tokens, eos_id: int, vocab_size: int, steps: int, length: int) -> None:
    """Shards of two sources and their schedule, half of the documents each."""
    files = []
    for number, source in enumerate(("even", "odd")):
        mine = tokens[number::2]
        ids = [hashlib.blake2b(f"{source}{i}".encode(), digest_size=16).digest() for i in range(len(mine))]
        files.append(write_shard(root, source, "train", 0, ids, mine, "uint16"))
    manifest = Manifest(VERSION, "uint16", vocab_size, eos_id, "0" * 64, "bench", "bench", tuple(files))
    write_manifest(root, manifest)
    phase = Phase("all", steps * SAMPLES * length, length, SAMPLES * length, {"even": 0.7, "odd": 0.3})
    schedule = compile_schedule(ScheduleConfig((phase,)), manifest.source_tokens(), manifest.fingerprint)
    write_schedule(root.parent / "schedule.json", schedule)


def random_slices(tokens: npt.NDArray[np.uint16], path: Path, steps: int, length: int) -> dict[str, Callable[[], object]]:
    """The memory map of nanoGPT."""
    tokens.tofile(path)
    mapped, draw = np.memmap(path, np.uint16, "r"), np.random.default_rng(0)

    def run() -> None:
        for _ in range(steps):
            starts = draw.integers(0, len(mapped) - length - 1, SAMPLES)
            torch.from_numpy(np.stack([mapped[i : i + length].astype(np.int64) for i in starts]))
            torch.from_numpy(np.stack([mapped[i + 1 : i + 1 + length].astype(np.int64) for i in starts]))

    return {f"{version('numpy')}, random slices": run}


def packed_rows(documents: Tokens, folder: Path, steps: int, length: int) -> dict[str, Callable[[], object]]:
    """Rows cut beforehand, memory-mapped Arrow in the torch format: tokens in order; and the job of ours, which is two sources
    mixed at random, with positions."""
    if not installed("datasets"):
        return {}
    import datasets
    import pyarrow as pa

    datasets.disable_progress_bars()
    width, sources = length + 1, []
    for number in range(2):
        mine = documents[number::2]
        positions = np.concatenate([np.arange(len(document), dtype=np.int32) for document in mine])
        columns = {"input_ids": np.concatenate(mine).astype(np.int32), "position_ids": positions}
        count = len(positions) // width
        table = {n: pa.FixedSizeListArray.from_arrays(pa.array(c[: count * width]), width) for n, c in columns.items()}
        rows = pa.table({name: column.cast(pa.list_(pa.int32())) for name, column in table.items()})
        datasets.Dataset(rows).save_to_disk(str(folder / str(number)))
        sources.append(datasets.load_from_disk(str(folder / str(number))).with_format("torch"))
    mixed = datasets.interleave_datasets(sources, [0.7, 0.3], seed=0, stopping_strategy="all_exhausted").with_format("torch")
    plain = sources[0].select_columns("input_ids")

    def run(read: Any) -> None:
        for step in range(steps):
            first = step * SAMPLES % (len(read) - SAMPLES)
            batch = read[first : first + SAMPLES]
            batch["input_ids"][:, :-1], batch["input_ids"][:, 1:]

    name = version("datasets")
    return {f"{name}, packed rows in order": lambda: run(plain), f"{name}, mixed, with positions": lambda: run(mixed)}


def streamed_shards(folder: Path, steps: int, length: int) -> dict[str, Callable[[], object]]:
    """The shards as they lie, streamed, mixed and cut into rows with positions on the way: our job without a second copy."""
    if not installed("datasets"):
        return {}
    import datasets

    def cut(batch: dict[str, list[Any]]) -> dict[str, Any]:
        found = {"input_ids": np.concatenate(batch["tokens"]).astype(np.int64)}
        found["position_ids"] = np.concatenate([np.arange(len(document)) for document in batch["tokens"]])
        whole = len(found["input_ids"]) // (length + 1) * (length + 1)
        return {name: column[:whole].reshape(-1, length + 1) for name, column in found.items()}

    cache = str(folder / "cache")
    files = [[str(folder / "shards" / source / "train-00000.arrow")] for source in ("even", "odd")]
    sources = [datasets.load_dataset("arrow", data_files=f, split="train", streaming=True, cache_dir=cache) for f in files]
    mixed = datasets.interleave_datasets(sources, [0.7, 0.3], seed=0, stopping_strategy="all_exhausted")
    rows = mixed.with_format("numpy").map(cut, batched=True, batch_size=256, remove_columns=["doc_id", "tokens"])

    def run() -> None:
        loader = torch.utils.data.DataLoader(rows.with_format("torch"), batch_size=SAMPLES)
        for _, batch in zip(range(steps), loader, strict=False):
            batch["input_ids"][:, :-1], batch["input_ids"][:, 1:]

    return {f"{version('datasets')}, streamed and packed on the way": run}


def datatrove_file(folder: Path, steps: int, length: int) -> dict[str, Callable[[], object]]:
    """Its file data set, in order, with positions."""
    if not installed("datatrove"):
        return {}
    from datatrove.utils.dataset import DatatroveFileDataset

    export(folder / "shards", folder / "nanotron", "nanotron", ["even"])
    path = str(folder / "nanotron" / "even" / "train-00000.ds")

    def run() -> None:
        read = DatatroveFileDataset(path, length, return_positions=True)
        for step in range(steps):
            found = [read[(step * SAMPLES + i) % len(read)] for i in range(SAMPLES)]
            torch.stack([r["input_ids"] for r in found]), torch.stack([r["positions"] for r in found])

    return {f"{version('datatrove')}, in order": run}


def megatron_dataset(folder: Path, eos_id: int, vocabulary: int, steps: int, length: int) -> dict[str, Callable[[], object]]:
    """GPTDataset over its indexed reader, one source, shuffled as it does; with positions of the whole row or of documents."""
    with warnings.catch_warnings(action="ignore"):  # of optimisers that it does without
        if not installed("megatron.core.datasets.gpt_dataset"):
            return {}
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    class Tokenizer:
        eod, vocab_size = eos_id, vocabulary
        unique_identifiers: dict[str, str] = {}  # noqa: RUF012

    export(folder / "shards", folder / "megatron", "megatron", ["even"])
    found: dict[str, Callable[[], object]] = {}
    for name, reset in (("GPTDataset", False), ("GPTDataset, positions reset", True)):
        cfg = GPTDatasetConfig(
            random_seed=0, sequence_length=length, split="1", tokenizer=Tokenizer(), create_attention_mask=False,
            reset_position_ids=reset, reset_attention_mask=False, eod_mask_loss=False, path_to_cache=None,
            blend=([str(folder / "megatron" / "even-train")], None),
        )  # fmt: skip
        indexed = IndexedDataset(str(folder / "megatron" / "even-train"))
        some = np.arange(len(indexed), dtype=np.int32)
        read = GPTDataset(indexed, str(folder / "megatron" / "even-train"), some, steps * SAMPLES, Split.train, cfg)

        def run(read: Any = read) -> None:
            for step in range(steps):
                batch = [read[step * SAMPLES + i] for i in range(SAMPLES)]
                for key in ("tokens", "labels", "position_ids"):
                    torch.stack([r[key] for r in batch])

        found[f"{version('megatron-core')}, {name}"] = run
    return found


def start_rows(folder: Path, files: int) -> list[Row]:
    """Opening a plan of 15 T tokens in `files` files that are not there, and starting at cursors of it, in a process."""
    share, names = LONG // files, [f"source{i}" for i in range(8)]
    listed = [
        ShardFile(f"{name}/train-{i:05d}.arrow", name, "train", share // 1000, share + i % 977, f"{i:064x}")
        for name in names
        for i in range(files // len(names))
    ]
    manifest = Manifest(VERSION, "uint32", 128_256, 0, "0" * 64, "bench", "bench", tuple(listed), 0)
    write_manifest(folder / "shards", manifest)
    weights = {name: float(i) for i, name in enumerate(names, start=1)}
    phases = [Phase(str(i), LONG // 3, 4096 << i, 4 << 20 + i, weights) for i in range(3)]
    schedule = compile_schedule(ScheduleConfig(tuple(phases)), manifest.source_tokens(), manifest.fingerprint)
    write_schedule(folder / "schedule.json", schedule)
    code = f"from bench.loader import start; start({str(folder / 'shards')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    where = f"of 15 T tokens in {len(listed):,} files"
    return [
        row(f"loader start at a cursor {where}, slowest of 100", "ms", found["start"] * 1e3, None, None, "lower"),
        row(f"loader opens a plan {where}", "s", found["open"], None, None, "lower"),
        row(f"loader memory {where}, at its peak", "MB", found["memory"] / 1e6, None, None, "lower"),
    ]


def start(shards: str) -> None:
    """Print seconds to open, seconds of the slowest start at 100 cursors, and the bytes that both added to the process."""
    before, began = psutil.Process().memory_info().rss, time.process_time()
    data = open_data(shards)
    opened = time.process_time() - began
    slowest = 0.0
    for part in range(100):
        began = time.process_time()
        cursor = data.schedule.step_plan(data.schedule.total_steps * part // 100).tokens_before
        plan = data.schedule.step_plan(data.schedule.step_at(cursor))
        data.rows(plan.phase, data.schedule.samples(plan.phase, plan.first_sample, SAMPLES))
        slowest = max(slowest, time.process_time() - began)
    status = Path("/proc/self/status")  # Linux knows the peak of this program alone
    lines = status.read_text().splitlines() if status.is_file() else []
    peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    print(json.dumps({"open": opened, "start": slowest, "memory": max([psutil.Process().memory_info().rss, *peaks]) - before}))
