"""The trainer on GPUs: tokens a second beside plain PyTorch and beside transformers with Accelerate, in one run."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import queue
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
        "Tokens a second a GPU over six steps after four, bf16 with fp32 master weights; the first on each GPU to use a "
        "contestant's cache of compiled kernels finds it empty. What takes one GPU runs beside others where there are "
        "several, each process on a GPU of its own. Ours reads shards through its loader, one step ahead of what it knows "
        "(layouts: bench/trainer_run.py): at 1.7b documents masked, cut to 1,024 tokens, which is the floor's and the peer's "
        "work, and once more as long as they are (1 to 10,000). The floor is a script of plain PyTorch given with --floor: "
        "random tokens, no loader, documents of 1,024; it waits for each step. transformers: LlamaForCausalLM under "
        "Accelerate's FSDP2, each layer compiled, random tokens, 8,192 x 2, causal, and documents of 1,024 masked, by its "
        "FlexAttention and by SDPA, its default. "
        "`multipliers`: a bf16 product of 8,192 x 8,192 in the same process; `share of multipliers`: the model's FLOPs, "
        "attention counted causally within documents, over that. `loss`: its peak above weights, states and gradients. `start "
        "to first step` counts from the start of the process. 8b-bf16 and 1.7b-fp8 are ours alone: moments in bf16, products "
        "in 8 bits."
    ),
    peers=("torch", "accelerate", "transformers"),
)
CUT = 1024  # tokens of a document where ours does the floor's work
BESIDE_TRANSFORMERS = {  # tokens of the documents that are masked, and how it attends
    "causal": (0, "sdpa"),
    "documents masked": (CUT, "flex_attention"),
    "documents masked, its default attention": (CUT, "sdpa"),
}
FLOOR = {"1.7b": "--shape 1.7b --attn flex --docs 1024 --seq 8192 --batch 4"}  # what of it is fastest


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


def write_plan(shards: Path, path: Path, tokens: dict[str, int], source: str, length: int, batch: int, steps: int) -> None:
    """The schedule of a run, in batches of `batch` sequences of a source."""
    phase = Phase("all", steps * batch * length, length, batch * length, {source: 1.0})
    write_schedule(path, compile_schedule(ScheduleConfig((phase,)), tokens, read_manifest(shards).fingerprint))


@dataclass(frozen=True)
class Contestant:
    """A process on each of some GPUs: what torchrun is given, and whose compiled kernels it may find."""

    who: str
    gpus: int
    words: tuple[str, ...]

    def run(self, folder: Path, device: int | None) -> dict[str, Any] | None:
        """The last line of what it prints, as JSON; None, with the reason on stderr, where it failed."""
        kernels = folder / f"{self.who}-{device or 0}"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(kernels), "TRITON_CACHE_DIR": str(kernels / "triton")}
        env |= {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}  # no room is lost between tensors
        env |= {} if device is None else {"CUDA_VISIBLE_DEVICES": str(device)}
        command = [*torchrun, "--nproc-per-node", str(self.gpus), *self.words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        lines, words = [line for line in done.stdout.splitlines() if line.startswith("{")], shlex.join(self.words)
        if done.returncode or not lines:
            print(f"{words} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
            return None
        print(f"on {self.gpus}: {words}: {lines[-1]}", file=sys.stderr)  # there even if a later one is killed
        found: dict[str, Any] = json.loads(lines[-1])
        return found


@dataclass(frozen=True)
class Bench:
    """Where the texts are, and the script of plain PyTorch."""

    folder: Path
    tokens: dict[str, int]
    floor: Path | None

    def ours(self, name: str, gpus: int, source: str, rows: int = 0, documents: int | None = None) -> Contestant:
        """Ours on a source, with the layout of the shape, or `rows` at once and documents masked or not."""
        shape = SHAPES[name]
        count, micro, _ = shape.layout(gpus)
        here = self.folder / "-".join(map(str, ("ours", name, gpus, source, rows, documents)))
        here.mkdir()
        batch = (rows or count * micro) * gpus
        write_plan(self.folder / "shards", here / "schedule.json", self.tokens, source, shape.length, batch, STEPS)
        words = ["ours", name, "--shards", self.folder / "shards", "--schedule", here / "schedule.json", "--out", here / "run"]
        more = [] if documents is None else ["--rows", rows, "--documents", documents]
        return Contestant("ours", gpus, ("-m", "bench.trainer_run", *map(str, words + more)))

    def of_shape(self, name: str, gpus: int) -> dict[str, Contestant]:
        """Those of a shape on a number of GPUs, by what they are in its rows."""
        masked = SHAPES[name].model.document_mask
        found = {"ours": self.ours(name, gpus, "cut" if masked else "text")}
        if self.floor and name in FLOOR:
            found["floor"] = Contestant("floor", gpus, (str(self.floor), *shlex.split(FLOOR[name])))
        if masked and gpus == 1:
            found["as they are"] = self.ours(name, gpus, "text")
        for what, (documents, attention) in BESIDE_TRANSFORMERS.items() if name == "1.7b" and gpus == 1 else ():
            words = ("--rows", "2", "--documents", str(documents), "--attention", attention)
            if f"ours, {documents}" not in found:
                found[f"ours, {documents}"] = self.ours(name, gpus, "cut", 2, documents)
            found[what] = Contestant("transformers", gpus, ("-m", "bench.trainer_run", "transformers", name, *words))
        return found


def run_all(contestants: Sequence[Contestant], folder: Path, devices: int) -> list[dict[str, Any] | None]:
    """What each gives: first those on one GPU, as many at a time as there are GPUs, then one after the other.

    The last, which are the largest, begin: what is short fills the gaps.
    """
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for device in range(devices):
        free.put(device)

    def alone(contestant: Contestant) -> dict[str, Any] | None:
        device = free.get()
        try:
            return contestant.run(folder, device)
        finally:
            free.put(device)

    with ThreadPoolExecutor(devices) as threads:
        small = {c: threads.submit(alone, c) for c in reversed(contestants) if c.gpus == 1}
    return [small[c].result() if c in small else c.run(folder, None) for c in contestants]


def rows_of(name: str, gpus: int, found: dict[str, dict[str, Any] | None]) -> list[Row]:
    """The rows of a shape on a number of GPUs."""
    on, rows = f"{name} on {gpus}", list[Row]()
    if mine := found["ours"]:
        rows += _beside_floor(on, mine, found.get("floor"))
    if real := found.get("as they are"):
        rows.append(row(f"speed {on}, documents as they are", "tokens/s a GPU", real["rate"], None, None))
    for what, (documents, _) in BESIDE_TRANSFORMERS.items():
        if mine := found.get(f"ours, {documents}"):
            peer, label = found.get(what), f"{on}, 8,192 x 2, {what}"
            other = peer and version("transformers")
            rows += [
                row(f"speed {label}", "tokens/s a GPU", mine["rate"], peer and peer["rate"], other),
                row(f"memory {label}", "GiB", mine["gib"], peer and peer["gib"], other, "lower"),
            ]
    return rows


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
    """All rows: each shape on each number of GPUs, what it keeps of one GPU's speed, and the loss alone."""
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary), write_data(data, Path(temporary), 32_000), floor)
        gc.collect()
        cases = {(name, gpus): bench.of_shape(name, gpus) for gpus in numbers for name in shapes}
        loss = Contestant("loss", 1, ("-m", "bench.trainer_run", "loss", "1.7b"))
        every = [*(contestant for case in cases.values() for contestant in case.values()), loss]
        *found, held = run_all(every, Path(temporary), torch.cuda.device_count())
    results = iter(found)
    rows = [r for (name, gpus), case in cases.items() for r in rows_of(name, gpus, {what: next(results) for what in case})]
    rows += efficiency(rows)
    if held:
        rows.append(row("memory of the loss, 32,768 tokens, vocabulary 128,256", "GiB", held["gib"], None, None, "lower"))
    return rows


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
