"""Post-training: tokens a second of SFT and DPO beside TRL, with the same model and documents, and how full packed rows are."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import EXAMPLES, RESULTS, About, Row, machine, publish, row, shown, version
from bench.corpus import jsonl
from bench.post_run import SHAPES, packing
from pipelines.shards import VERSION, Manifest, Shards, write_manifest, write_shard
from pipelines.shards.roles import ANSWER, CONTEXT, LAST, UNRATED
from pipelines.shards.template import Ids, Markers, Turn, render
from trainer.post.config import Post, plan

ABOUT = About(
    title="Post-training",
    compared=(
        "Real tokens a second (what fills up a row is not counted) on one device, from the shards and from the same documents "
        "as lists of ids. Ours: packed, compiled, documents masked, the reference of DPO computed once. TRL: its trainers, "
        "without gradient checkpointing, with its reference in each step or computed before. bf16 with fp32 weights on a GPU."
    ),
    peers=("torch", "transformers", "trl"),
)
MARKS = Markers(1, 2, 3, 4, 5, 0)
FIRST = 6  # id of the first byte
Document = tuple[list[Ids], list[Any]]  # sequences: ids, codes


def ids_of(text: str) -> Ids:
    """An id for every fourth byte: as many as a tokenizer would give."""
    return np.frombuffer(text.encode(), np.uint8)[::4].astype(np.int64) + FIRST


def turns(messages: Sequence[dict[str, str]], grade: int) -> list[Turn]:
    """Messages as turns; of what the assistant says, `grade`."""
    return [
        Turn(m["role"], ids_of(m["content"]), grade if m["role"] in ("assistant", "tool_call") else CONTEXT) for m in messages
    ]


def conversations(data: Path) -> Iterator[Document]:
    """Of DATA/post/sft.jsonl.gz, or made ones of its lengths."""
    path = data / "post" / "sft.jsonl.gz"
    messages = (r["messages"] for r in jsonl(path)) if path.is_file() else (_talk(i) for i in range(600))
    for some in messages:
        yield tuple(map(list, zip(render(turns(some, ANSWER), MARKS), strict=True)))  # type: ignore[misc]


def preferences(data: Path) -> Iterator[Document]:
    """Of DATA/post/preference.jsonl.gz, or made ones."""
    path = data / "post" / "preference.jsonl.gz"
    rows = jsonl(path) if path.is_file() else (_pair(i) for i in range(600))
    for given in rows:
        if given["chosen"] == given["rejected"] or not given["chosen"] or not given["rejected"]:
            continue
        prompt = turns(given["prompt"], CONTEXT)
        both = ((given["chosen"], UNRATED), (given["rejected"], LAST))
        rendered = [render([*prompt, Turn("assistant", ids_of(text), grade)], MARKS) for text, grade in both]
        yield tuple(map(list, zip(*rendered, strict=True)))  # type: ignore[misc]


def _words(seed: int, mean: int) -> str:
    count = int(np.random.default_rng(seed).lognormal(np.log(mean), 0.8)) + 8
    return "x" * count


def _talk(seed: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": _words(seed, 150)}, {"role": "assistant", "content": _words(seed + 10**6, 400)}]


def _pair(seed: int) -> dict[str, Any]:
    prompt, *answers = (_words(seed + i * 10**6, 120) for i in range(3))
    return {"prompt": [{"role": "user", "content": prompt}], "chosen": answers[0], "rejected": answers[1] + "y"}


def write_data(data: Path, folder: Path, length: int) -> Path:
    """Shards of the sources `sft` and `preference`, of what fits into `length` tokens."""
    files = []
    for source, documents in (("sft", conversations(data)), ("preference", preferences(data))):
        made = [(np.concatenate(ids), np.concatenate(codes)) for ids, codes in documents]
        made = [(ids, codes) for ids, codes in made if len(ids) <= length]
        names = [hashlib.blake2b(f"{source}{i}".encode(), digest_size=16).digest() for i in range(len(made))]
        files.append(
            write_shard(folder / "shards", source, "train", 0, names, [m[0] for m in made], "uint32", [m[1] for m in made])
        )
    manifest = Manifest(VERSION, "uint32", 256 + FIRST, 0, "0" * 64, "bench", "bench", tuple(files))
    write_manifest(folder / "shards", manifest)
    return folder / "shards"


def ran(side: str, verb: str, shape: str, data: Path, out: Path, variant: str = "padded") -> dict[str, Any] | None:
    """The last line of a contestant; None, with the reason on stderr, where it failed."""
    command = [sys.executable, "-m", "bench.post_run", side, verb, shape, "--data", str(data), "--out", str(out)]
    done = subprocess.run([*command, "--variant", variant], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"{side} {verb} {variant} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def filled(shards: Path, folder: Path, lengths: Sequence[int]) -> list[Row]:
    """Packing efficiency by itself: what share of an epoch's places hold tokens."""
    from pipelines.schedule import write_schedule
    from trainer.config import Cosine, LearningRate

    rows, opened = [], Shards(shards)
    for length in lengths:
        cfg = Post("bench", LearningRate(1.0, 1, Cosine()), batch=64, sequence_length=length)
        for source, kind in (("sft", "conversations"), ("preference", "preferences")):
            write_schedule(folder / "plan.json", plan(opened, cfg, (kind,), length))  # type: ignore[arg-type]
            rows.append(row(f"packing {source}, {length:,} tokens", "share", packing(folder / "plan.json", opened), None, None))
    return rows


def measure(data: Path, shape: str) -> list[Row]:
    """The rows of a shape."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        length = SHAPES[shape].length
        shards = write_data(data, folder, length)
        rows = filled(shards, folder, (length, 2 * length))
        for verb, variants in (("sft", ("padded", "packed")), ("dpo", ("padded", "precomputed"))):
            mine = ran("ours", verb, shape, shards, folder)
            if mine is None:
                continue
            for variant in variants:
                peer = ran("trl", verb, shape, shards, folder, variant)
                name, rate, gib = f"{version('trl')}, {variant}", peer and peer["rate"], peer and peer["gib"]
                rows.append(row(f"speed {verb} {shape}", "tokens/s", mine["rate"], rate, name))
                if mine["gib"]:
                    rows.append(row(f"memory {verb} {shape}", "GiB", mine["gib"], gib, name, "lower"))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m bench.post", description=ABOUT.compared)
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder with post/*.jsonl.gz; without, made documents")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write results to")
    parser.add_argument("--shapes", help=f"some of {','.join(SHAPES)} (125m and 1.7b on a GPU, else tiny)")
    args = parser.parse_args(argv)
    before, start, cuda = machine(), time.perf_counter(), torch.cuda.is_available()
    shapes = (args.shapes or ("125m,1.7b" if cuda else "tiny")).split(",")
    rows = [r for shape in shapes for r in measure(args.data, shape)]
    about = replace(ABOUT, compared=f"{ABOUT.compared} On {torch.cuda.get_device_name() if cuda else 'a CPU'}.")
    command = shlex.join(["python", "-m", "bench.post", "--data", shown(args.data), "--shapes", ",".join(shapes)])
    publish("post", about, rows, before, command, args.results, start)


if __name__ == "__main__":
    main()
