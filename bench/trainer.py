"""The trainer on GPUs: tokens a second beside plain PyTorch and beside transformers with Accelerate, in one run."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bench.common import EXAMPLES, RESULTS, About, Row, machine, publish, row, shown, version
from bench.corpus import jsonl
from pipelines.schedule import Phase, ScheduleConfig, compile_schedule, write_schedule
from pipelines.shards import VERSION, Manifest, write_manifest, write_shard

ABOUT = About(
    title="Trainer",
    compared=(
        "Tokens a second a GPU, median of seven steps after five, bf16 with fp32 master weights. Ours reads shards through "
        "its loader (documents of 1 to 10,000 tokens, masked at 1.7b; layouts: bench/trainer_run.py). The floor is a "
        "script of plain PyTorch given with --floor: random tokens, no loader, documents of 1,024 at 1.7b, full recomputation "
        "at 7b and 8b. transformers: LlamaForCausalLM under Accelerate's FSDP2, each layer compiled, random tokens, 8,192 x 2, "
        "causal, and with documents of 1,024 masked. `multipliers`: a bf16 product of 8,192 x 8,192 in the same run."
    ),
    peers=("torch", "accelerate", "transformers"),
)
FLOOR = {
    "1.7b": "--shape 1.7b --attn flex --docs 1024 --seq 8192 --batch 4",
    "7b": "--shape 7b --attn sdpa --seq 4096 --batch 4 --ac full",
    "8b": "--shape 8b --attn sdpa --seq 4096 --batch 2 --ac full",
}


def write_data(data: Path, folder: Path, vocabulary: int) -> dict[str, int]:
    """Shards of the texts there are, an id for every fourth byte; returns tokens per source."""
    documents: list[str] = []
    for path in sorted(data.glob("*.jsonl.gz")):
        documents += [r["text"] for r in jsonl(path) if "text" in r]
    for path in sorted(data.glob("*.parquet")):
        documents += pq.read_table(path, columns=["text"])["text"].to_pylist()
    ids = [hashlib.blake2b(f"{i}".encode(), digest_size=16).digest() for i in range(len(documents))]
    words = [np.append(np.frombuffer(t.encode(), np.uint8)[: 4 << 20 : 4].astype(np.uint32) + 1, 0) for t in documents if t]
    file = write_shard(folder / "shards", "text", "train", 0, ids, words, "uint32")
    manifest = Manifest(VERSION, "uint32", vocabulary, 0, "0" * 64, "bench", "bench", (file,))
    write_manifest(folder / "shards", manifest)
    return manifest.source_tokens()


def write_plan(folder: Path, tokens: dict[str, int], length: int, batch: int, steps: int) -> None:
    """The schedule of a run, in batches of `batch` sequences."""
    from pipelines.shards import read_manifest

    phase = Phase("all", steps * batch * length, length, batch * length, {"text": 1.0})
    manifest = read_manifest(folder / "shards")
    write_schedule(folder / "schedule.json", compile_schedule(ScheduleConfig((phase,)), tokens, manifest.fingerprint))


def launched(gpus: int, words: Sequence[str]) -> dict[str, Any] | None:
    """The last line of what torchrun prints, as JSON; None, with the reason on stderr, where it failed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(gpus), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"{shlex.join(words)} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def measure(data: Path, shapes: Sequence[str], gpus: int, floor: Path | None) -> list[Row]:
    """The rows of some shapes on `gpus` GPUs."""
    from bench.trainer_run import SHAPES, STEPS

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokens = write_data(data, folder, 32_000)
        gc.collect()
        for name in shapes:
            shape, on = SHAPES[name], f"{name} on {gpus}"
            count, micro, _ = shape.layout(gpus)
            write_plan(folder, tokens, shape.length, count * micro * gpus, STEPS)
            words = ["-m", "bench.trainer_run", "ours", name, "--shards", str(folder / "shards"), "--out", str(folder / on)]
            mine = launched(gpus, words)
            if mine is None:
                continue
            plain = launched(gpus, [str(floor), *shlex.split(FLOOR[name])]) if floor else None
            rate = plain["tokens_per_s_per_gpu"] if plain else None
            rows.append(row(f"speed {on}", "tokens/s a GPU", mine["rate"], rate, "plain PyTorch" if plain else None))
            rows.append(row(f"memory {on}", "GiB", mine["gib"], plain and plain["gib"], plain and "plain PyTorch", "lower"))
            rows.append(row(f"start to first step {on}", "s", mine["first_s"], None, None, "lower"))
            rows.append(row(f"data wait {on}", "share of a step", mine["wait"], None, None, "lower"))
            if plain:
                rows.append(row(f"multipliers {on}", "TFLOP/s", plain["matmul_tflops"], None, None))
            if name == "1.7b":
                for what, documents in (("causal", 0), ("documents masked", 1024)):
                    rows += _beside_transformers(name, gpus, folder, tokens, what, documents)
    return rows


def _beside_transformers(name: str, gpus: int, folder: Path, tokens: dict[str, int], what: str, documents: int) -> list[Row]:
    from bench.trainer_run import SHAPES, STEPS

    write_plan(folder, tokens, SHAPES[name].length, 2 * gpus, STEPS)
    shape = ["--rows", "2", "--documents", str(documents)]
    out = ["--shards", str(folder / "shards"), "--out", str(folder / f"{name}-{what}-{gpus}")]
    mine = launched(gpus, ["-m", "bench.trainer_run", "ours", name, *out, *shape])
    peer = launched(gpus, ["-m", "bench.trainer_run", "transformers", name, *shape])
    if mine is None:
        return []
    label, rate, gib = f"{name} on {gpus}, 8,192 x 2, {what}", peer and peer["rate"], peer and peer["gib"]
    other = peer and version("transformers")
    return [
        row(f"speed {label}", "tokens/s a GPU", mine["rate"], rate, other),
        row(f"memory {label}", "GiB", mine["gib"], gib, other, "lower"),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m bench.trainer", description=ABOUT.compared)
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder of the texts; without it examples/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write results to")
    parser.add_argument("--shapes", default="1.7b,7b,8b", help="which of 1.7b, 7b, 8b")
    parser.add_argument("--gpus", default="1", help="numbers of GPUs to measure, e.g. 1,2")
    parser.add_argument("--floor", type=Path, help="a script of plain PyTorch to compare with")
    args = parser.parse_args(argv)
    before, start = machine(), time.perf_counter()
    if not torch.cuda.is_available():
        parser.exit(1, "no GPU is here: bench.trainer measures the trainer on GPUs\n")
    rows = [r for gpus in args.gpus.split(",") for r in measure(args.data, args.shapes.split(","), int(gpus), args.floor)]
    about = replace(ABOUT, compared=f"{ABOUT.compared} On {torch.cuda.get_device_name()}.")
    command = shlex.join(
        ["python", "-m", "bench.trainer", "--data", shown(args.data), "--shapes", args.shapes, "--gpus", args.gpus]
    )
    command += " --floor SCRIPT" if args.floor else ""
    publish("trainer", about, rows, before, command, args.results, start)


if __name__ == "__main__":
    main()
