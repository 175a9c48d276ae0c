"""The trainer on GPUs: tokens a second beside plain PyTorch and beside transformers with Accelerate, in one run."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from bench.common import EXAMPLES, RESULTS, About, Row, machine, publish, row, shown, version
from bench.corpus import jsonl
from bench.trainer_run import SHAPES, STEPS
from pipelines.schedule import Phase, ScheduleConfig, compile_schedule, write_schedule
from pipelines.shards import VERSION, Manifest, ShardFile, read_manifest, write_manifest, write_shard

ABOUT = About(
    title="Trainer",
    compared=(
        "Tokens a second a GPU over ten steps after five, bf16 with fp32 master weights, each contestant's cache of "
        "compiled kernels empty at first. Ours reads shards through its loader, one step ahead of what it knows (layouts: "
        "bench/trainer_run.py): at 1.7b documents masked, cut to 1,024 tokens, which is the floor's and the peer's work, and "
        "once more as long as they are (1 to 10,000). The floor is a script of plain PyTorch given with --floor: random "
        "tokens, no loader, documents of 1,024 at 1.7b; it waits for each step. transformers: LlamaForCausalLM under "
        "Accelerate's FSDP2, each layer compiled, random tokens, 8,192 x 2, causal, and documents of 1,024 masked. "
        "`multipliers`: a bf16 product of 8,192 x 8,192 in the same process; `share of multipliers`: the model's FLOPs, "
        "attention counted causally within documents, over that. `loss`: its peak above weights, states and gradients. `start "
        "to first step` counts from the start of the process."
    ),
    peers=("torch", "accelerate", "transformers"),
)
CUT = 1024  # tokens of a document where ours does the floor's work
FLOOR = {  # by number of GPUs (or fewer), what was fastest
    "1.7b": {1: "--shape 1.7b --attn flex --docs 1024 --seq 8192 --batch 4"},
    "7b": {
        1: "--shape 7b --attn sdpa --seq 4096 --batch 4 --ac full",
        2: "--shape 7b --attn sdpa --seq 4096 --batch 2 --ac none --reshard 0",
    },
    "8b": {
        1: "--shape 8b --attn sdpa --seq 4096 --batch 2 --ac full",
        2: "--shape 8b --attn sdpa --seq 4096 --batch 8 --ac full",
    },
}


def write_data(data: Path, folder: Path, vocabulary: int) -> dict[str, int]:
    """Shards of the texts there are, an id for every fourth byte: `text`, and `cut` to `CUT` tokens; returns their tokens."""
    documents: list[str] = []
    for path in sorted(data.glob("*.jsonl.gz")):
        documents += [r["text"] for r in jsonl(path) if "text" in r]
    for path in sorted(data.glob("*.parquet")):
        documents += pq.read_table(path, columns=["text"])["text"].to_pylist()
    words = [np.append(np.frombuffer(t.encode(), np.uint8)[: 4 << 20 : 4].astype(np.uint32) + 1, 0) for t in documents if t]
    flat = np.concatenate(words)
    pieces = flat[: len(flat) // CUT * CUT].reshape(-1, CUT).copy()
    pieces[:, :-1], pieces[:, -1] = pieces[:, :-1].clip(min=1), 0
    files = [_shard(folder, "text", words), _shard(folder, "cut", list(pieces))]
    manifest = Manifest(VERSION, "uint32", vocabulary, 0, "0" * 64, "bench", "bench", tuple(files))
    write_manifest(folder / "shards", manifest)
    return manifest.source_tokens()


def _shard(folder: Path, source: str, words: Sequence[Any]) -> ShardFile:
    ids = [hashlib.blake2b(f"{source}{i}".encode(), digest_size=16).digest() for i in range(len(words))]
    return write_shard(folder / "shards", source, "train", 0, ids, words, "uint32")


def write_plan(folder: Path, tokens: dict[str, int], source: str, length: int, batch: int, steps: int) -> None:
    """The schedule of a run, in batches of `batch` sequences of a source."""
    phase = Phase("all", steps * batch * length, length, batch * length, {source: 1.0})
    manifest = read_manifest(folder / "shards")
    write_schedule(folder / "schedule.json", compile_schedule(ScheduleConfig((phase,)), tokens, manifest.fingerprint))


def launched(gpus: int, words: Sequence[str], kernels: Path) -> dict[str, Any] | None:
    """The last line of what torchrun prints, as JSON; None, with the reason on stderr, where it failed.

    `kernels`: where compiled ones are kept, so that the first to use it starts without any.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(gpus), *words]
    env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(kernels), "TRITON_CACHE_DIR": str(kernels / "triton")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"{shlex.join(words)} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    print(f"on {gpus}: {shlex.join(words)}: {lines[-1]}", file=sys.stderr)  # there even if a later one is killed
    found: dict[str, Any] = json.loads(lines[-1])
    return found


@dataclass(frozen=True)
class Bench:
    """What the contestants of a run share."""

    folder: Path
    tokens: dict[str, int]
    gpus: int
    floor: Path | None

    def ours(self, name: str, source: str, rows: int = 0, documents: int | None = None) -> dict[str, Any] | None:
        """Ours on a source, with the layout of the shape, or `rows` at once and documents masked or not."""
        shape = SHAPES[name]
        count, micro, _ = shape.layout(self.gpus)
        write_plan(self.folder, self.tokens, source, shape.length, (rows or count * micro) * self.gpus, STEPS)
        with tempfile.TemporaryDirectory(dir=self.folder) as out:
            words = ["-m", "bench.trainer_run", "ours", name, "--shards", str(self.folder / "shards"), "--out", out]
            more = [] if documents is None else ["--rows", str(rows), "--documents", str(documents)]
            return launched(self.gpus, [*words, *more], self.folder / "ours")

    def rows(self, name: str) -> list[Row]:
        """The rows of a shape."""
        on, found = f"{name} on {self.gpus}", list[Row]()
        masked = SHAPES[name].model.document_mask
        if mine := self.ours(name, "cut" if masked else "text"):
            words = max((n, words) for n, words in FLOOR[name.partition("-")[0]].items() if n <= self.gpus)[1]
            plain = self.floor and launched(self.gpus, [str(self.floor), *shlex.split(words)], self.folder / "floor")
            found += _beside_floor(on, mine, plain)
        if masked and (real := self.ours(name, "text")):
            found.append(row(f"speed {on}, documents as they are", "tokens/s a GPU", real["rate"], None, None))
        if name == "1.7b":
            for what, documents in (("causal", 0), ("documents masked", CUT)):
                found += self._beside_transformers(name, what, documents)
        return found

    def _beside_transformers(self, name: str, what: str, documents: int) -> list[Row]:
        peer_words = ["transformers", name, "--rows", "2", "--documents", str(documents)]
        mine = self.ours(name, "cut", 2, documents)
        peer = launched(self.gpus, ["-m", "bench.trainer_run", *peer_words], self.folder / "transformers")
        if mine is None:
            return []
        label, other = f"{name} on {self.gpus}, 8,192 x 2, {what}", peer and version("transformers")
        return [
            row(f"speed {label}", "tokens/s a GPU", mine["rate"], peer and peer["rate"], other),
            row(f"memory {label}", "GiB", mine["gib"], peer and peer["gib"], other, "lower"),
        ]


def _beside_floor(on: str, mine: dict[str, Any], plain: dict[str, Any] | None) -> list[Row]:
    other, found = plain and "plain PyTorch", plain or {}
    return [
        row(f"speed {on}", "tokens/s a GPU", mine["rate"], found.get("tokens_per_s_per_gpu"), other),
        row(f"share of multipliers {on}", "share", mine["share"], found.get("share"), other),
        row(f"multipliers {on}", "TFLOP/s", mine["matmul_tflops"], found.get("matmul_tflops"), other),
        row(f"memory {on}", "GiB", mine["gib"], found.get("gib"), other, "lower"),
        row(f"start to first step {on}", "s", mine["first_s"], None, None, "lower"),
        row(f"data wait {on}", "share of a step", mine["wait"], None, None, "lower"),
    ]


def efficiency(rows: Sequence[Row]) -> list[Row]:
    """For each speed on several GPUs, the share of one GPU's that each of them keeps."""
    one = {r.name.removeprefix("speed "): r.ours for r in rows if r.name.startswith("speed ") and " on 1" in r.name}
    found = []
    for r in rows:
        name = re.sub(r" on \d+", " on 1", r.name.removeprefix("speed "))
        if r.name.startswith("speed ") and " on 1" not in r.name and name in one:
            share = r.ours / one[name]
            found.append(row(r.name.replace("speed", "efficiency", 1), "share of one GPU's speed", share, None, None))
    return found


def measure(data: Path, shapes: Sequence[str], numbers: Sequence[int], floor: Path | None) -> list[Row]:
    """All rows: the loss alone, then each shape on each number of GPUs, and what it keeps of one GPU's speed."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        if held := launched(1, ["-m", "bench.trainer_run", "loss", "1.7b"], Path(temporary) / "loss"):
            rows.append(row("memory of the loss, 32,768 tokens, vocabulary 128,256", "GiB", held["gib"], None, None, "lower"))
        tokens = write_data(data, Path(temporary), 32_000)
        gc.collect()
        for gpus in numbers:
            bench = Bench(Path(temporary), tokens, gpus, floor)
            rows += [r for name in shapes for r in bench.rows(name)]
    return rows + efficiency(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.trainer", description=ABOUT.compared)
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder of the texts; without it examples/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write results to")
    parser.add_argument("--shapes", default="1.7b,7b,8b", help=f"which of {', '.join(SHAPES)}")
    parser.add_argument("--gpus", help="numbers of GPUs to measure, e.g. 1,2; by default one, and two where there are")
    parser.add_argument("--floor", type=Path, help="a script of plain PyTorch to compare with")
    args = parser.parse_args(argv)
    before, start = machine(), time.perf_counter()
    if not torch.cuda.is_available():
        parser.exit(1, "no GPU is here: bench.trainer measures the trainer on GPUs\n")
    gpus = args.gpus or ("1,2" if torch.cuda.device_count() > 1 else "1")
    rows = measure(args.data, args.shapes.split(","), [int(n) for n in gpus.split(",")], args.floor)
    about = replace(ABOUT, compared=f"{ABOUT.compared} On {torch.cuda.get_device_name()}.")
    command = shlex.join(["python", "-m", "bench.trainer", "--data", shown(args.data), "--shapes", args.shapes, "--gpus", gpus])
    command += " --floor SCRIPT" if args.floor else ""
    publish("trainer", about, rows, before, command, args.results, start)


if __name__ == "__main__":
    main()
