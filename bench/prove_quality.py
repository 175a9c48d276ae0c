"""What a model learns from the text that the quality model keeps: `make prove-quality`.

Real pages go through our own recipe, whole as they are in WET files, menus and all. Half of the tokens that are left is
chosen by score, another half by chance; on each a small model is trained for the same number of tokens, and judged by its
loss on reference text of sources that neither it nor the quality model has learned from. Once a seed: the half by chance and
the model's beginning are another each time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from scipy.stats import t as student
from tokenizers import Tokenizer

from bench.common import EXAMPLES, RESULTS, About, Row, machine, publish, row, shown
from bench.corpus import jsonl
from classifiers.labelled import site_share
from classifiers.model import load
from pipelines.extract.html import ExtractConfig
from pipelines.filter.language import LanguageConfig
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.recipe import Input, Recipe
from pipelines.recipes.web import web
from pipelines.rundir import RunDir
from pipelines.schedule import Phase, ScheduleConfig, compile_schedule, write_schedule
from pipelines.shards import VERSION, Manifest, read_manifest, write_manifest, write_shard
from pipelines.tokens.train import TokenizerConfig
from trainer.config import Cosine, LearningRate, ModelConfig, Parallel, Run, TrainConfig

ABOUT = About(
    title="What the quality score is worth",
    compared=(
        "A model of {parameters:.1f} M parameters, {tokens:,} tokens each: loss on reference text after training on the half "
        "that the quality model scores highest (ours) and on a half chosen by chance (peer). English pages, whole (WET-like), "
        "through the recipe web, and, with DATA, web texts of the evaluation sets beside them: {documents:,} documents, "
        "{pool:,} tokens. Reference text is of sources that neither the quality model nor these models have learned from. "
        "`difference`: chance minus kept over the seeds, with its 95 % interval (Student's t)."
    ),
    peers=("torch", "numba"),
)
LENGTH, BATCH = 128, 4  # tokens of a sequence, sequences of a step
HELD = 120_000  # tokens of a reference source that are scored


def small() -> TrainConfig:
    """About 2 M parameters."""
    model = ModelConfig(vocab_size=4096, width=160, layers=4, heads=4, kv_heads=2, feed_forward=448)
    never = 10**9
    return TrainConfig(
        name="prove_quality",
        model=model,
        learning_rate=LearningRate(2e-3, 50, Cosine(0.05)),
        parallel=Parallel(micro_batch=BATCH),
        run=Run(log_every=never, evaluate_every=never, evaluate_tokens=HELD, save_every_steps=never, save_every_minutes=1e9),
    )


def recipe(data: Path, folder: Path) -> Recipe:
    """The recipe web over whole pages, and over web texts that lie in the data folder as text."""
    texts = [line["text"] for line in jsonl(data / "quality.jsonl.gz")] if (data / "quality.jsonl.gz").is_file() else []
    if (data / "prose/en.jsonl.zst").is_file():
        texts += [line["text"] for line in jsonl(data / "prose/en.jsonl.zst") if line["kind"] == "web"]
    stages = []
    for stage in web().stages:
        if stage.name == "extract":
            stage = replace(stage, cfg=ExtractConfig(engine="resiliparse", favour="recall", comments=True, rescue=0.0))
        elif stage.name == "identify_language":
            stage = replace(stage, cfg=LanguageConfig(keep=("en",)))
        stages.append(replace(stage, sources=("web",)) if stage.name in ("url_filter", "extract") else stage)
    inputs = [replace(web().inputs[0], paths=f"{data}/crawl/*.warc.gz")]
    if texts:
        (folder / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
        inputs.append(Input("texts", str(folder / "texts.jsonl"), read_jsonl, JsonlConfig()))
    return replace(
        web(), name="prove_quality", inputs=tuple(inputs), stages=tuple(s for s in stages if s.name != "route_by_language"),
        tokenizer=TokenizerConfig(vocab_size=small().model.vocab_size, preset="deepseek_llm"), shards=None, schedule=None,
    )  # fmt: skip


def reference(data: Path) -> dict[str, list[str]]:
    """Reference texts by source: an encyclopedia, and books by authors of whom the quality model has learned nothing."""
    books = [r for r in pq.read_table(EXAMPLES / "books.parquet").to_pylist() if r["lang"] == "en"]
    split = load("quality").facts["split"]
    known = {r["id"].split("/")[0] for r in books}
    if not (data / "prose/en.jsonl.zst").is_file():
        held = {author for author in known if site_share(author.lower(), split["seed"]) < split["test"]}
        return {"books": [r["text"] for r in books if r["id"].split("/")[0] in held]}
    lines = list(jsonl(data / "prose/en.jsonl.zst"))
    return {
        "encyclopedia": [r["text"] for r in lines if r["kind"] == "encyclopedia"],
        "books": [r["text"] for r in lines if r["kind"] == "book" and r["id"].split("/")[0] not in known],
    }


def pool(run: RunDir, made: Recipe) -> list[tuple[str, float]]:
    """Text and score of each document that the recipe kept; pages that are books of ours are left out."""
    from pipelines.run import make_plan

    last = make_plan(made).steps[-1]
    table = ds.dataset(run.table(last) / "outcome=kept").to_table(columns=["text", "quality", "url"])
    rows = sorted(table.to_pylist(), key=lambda r: hashlib.sha256(r["text"].encode()).digest())
    return [
        (r["text"], r["quality"]) for r in rows if r["quality"] is not None and "reading-room.example" not in (r["url"] or "")
    ]


def half(order: Sequence[int], lengths: Sequence[int]) -> list[int]:
    """The first documents of an order that have half of the tokens."""
    total, chosen = 0, []
    for number in order:
        if total >= sum(lengths) // 2:
            break
        total += lengths[number]
        chosen.append(number)
    return chosen


def write_data(out: Path, documents: Sequence[Sequence[int]], held: dict[str, list[list[int]]], steps: int, eos: int) -> None:
    """Shards of the documents to train on and of the reference text, and the schedule."""

    def ids(name: str, count: int) -> list[bytes]:
        return [hashlib.blake2b(f"{name}{i}".encode(), digest_size=16).digest() for i in range(count)]

    files = [write_shard(out / "shards", "half", "train", 0, ids("half", len(documents)), documents, "uint16")]
    for name, texts in sorted(held.items()):
        files.append(write_shard(out / "shards", name, "validation", 0, ids(name, len(texts)), texts, "uint16"))
    digest = hashlib.sha256((out / "tokenizer" / "tokenizer.json").read_bytes()).hexdigest()
    vocabulary = small().model.vocab_size
    manifest = Manifest(VERSION, "uint16", vocabulary, eos, digest, "prove_quality", "prove_quality", tuple(files))
    write_manifest(out / "shards", manifest)
    phase = Phase("all", steps * BATCH * LENGTH, LENGTH, BATCH * LENGTH, {"half": 1.0})
    found = read_manifest(out / "shards")
    write_schedule(
        out / "schedule.json", compile_schedule(ScheduleConfig((phase,)), found.source_tokens("train"), found.fingerprint)
    )


def train(out: Path, seed: int) -> dict[str, float]:
    """Train on OUT/shards; the loss on each source of reference text."""
    launch = "--quiet --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"
    launch += f" --num_cpu_threads_per_process {os.cpu_count()}"
    command = [
        sys.executable, "-m", "accelerate.commands.launch", *launch.split(), "-m", "trainer.train", f"{__file__}:small",
        "--data", str(out / "shards"), "--out", str(out / "run"), "--set", f"seed={seed}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"training failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses: dict[str, float] = [line["validation"] for line in lines if "validation" in line][-1]
    return losses


def compare(data: Path, seeds: int, epochs: float, work: Path) -> tuple[list[Row], dict[str, Any]]:
    """The rows, and what the description says of the sizes."""
    from pipelines.run import run

    made = recipe(data, work)
    rundir = run(made, work / "run")
    documents = pool(rundir, made)
    tokenizer = Tokenizer.from_file(str(rundir.tokenizer / "tokenizer.json"))
    eos = tokenizer.token_to_id(made.tokenizer.special_tokens[0])
    encoded = [[*e.ids, eos] for e in tokenizer.encode_batch([text for text, _ in documents], add_special_tokens=False)]
    held = {
        name: [[*e.ids, eos] for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        for name, texts in reference(data).items()
    }
    lengths = [len(ids) for ids in encoded]
    steps = int(epochs * sum(lengths) / 2 / (BATCH * LENGTH))
    by_score = sorted(range(len(documents)), key=lambda i: -documents[i][1])
    found: dict[str, list[dict[str, float]]] = {"kept": [], "chance": []}
    for seed in range(seeds):
        shuffled = np.random.default_rng(seed).permutation(len(documents)).tolist()
        for side, order in (("kept", by_score), ("chance", shuffled)):
            out = work / f"{side}-{seed}"
            (out / "tokenizer").mkdir(parents=True)
            (out / "tokenizer" / "tokenizer.json").write_bytes((rundir.tokenizer / "tokenizer.json").read_bytes())
            chosen = set(half(order, lengths))
            mine = [encoded[i] for i in shuffled if i in chosen]
            write_data(out, mine, held, steps, eos)
            found[side].append(train(out, seed))
            print(f"seed {seed}, {side}: {found[side][-1]}", flush=True)
    cfg = small().model
    block = cfg.width * (2 * cfg.width + 2 * cfg.width * cfg.kv_heads // cfg.heads + 3 * cfg.feed_forward)
    parameters = (cfg.layers * block + 2 * cfg.vocab_size * cfg.width) / 1e6
    sizes = {"parameters": parameters, "tokens": steps * BATCH * LENGTH, "documents": len(documents), "pool": sum(lengths)}
    return rows_of(found), sizes


def rows_of(found: dict[str, list[dict[str, float]]]) -> list[Row]:
    """The mean loss a source on both sides, and the difference with its interval."""
    made = []
    for source in sorted(found["kept"][0]):
        kept, chance = ([losses[source] for losses in found[side]] for side in ("kept", "chance"))
        made.append(
            row(f"loss on {source}", "nats a token", statistics.mean(kept), statistics.mean(chance), "half by chance", "lower")
        )
        low, high = interval([c - k for k, c in zip(kept, chance, strict=True)])
        unit = f"nats a token, 95 % {low:.3f} to {high:.3f}, {len(kept)} seeds"
        made.append(row(f"difference on {source}", unit, statistics.mean(chance) - statistics.mean(kept), None, None))
    return made


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean (Student's t); NaN for one value."""
    if len(values) < 2:
        return math.nan, math.nan
    mean, error = statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))
    reach = float(student.ppf(0.975, len(values) - 1)) * error
    return mean - reach, mean + reach


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.prove_quality", description=__doc__)
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder of the data sets; without it examples/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write results to")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=1.0, help="over a half, on each side")
    args = parser.parse_args(argv)
    before, start = machine(), time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        rows, sizes = compare(args.data.resolve(), args.seeds, args.epochs, Path(work))
    about = replace(ABOUT, compared=ABOUT.compared.format(**sizes))
    command = shlex.join(["make", "prove-quality", f"DATA={shown(args.data)}"])
    publish("prove_quality", about, rows, before, command, args.results, start)


if __name__ == "__main__":
    main()
