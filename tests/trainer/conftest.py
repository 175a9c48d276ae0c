"""Tiny shards, made by the real writer: two sources of a small language with a little structure."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

import trainer  # noqa: F401  (before torch: it sets how threads wait)

import torch  # isort: skip
from pipelines.schedule import Phase, ScheduleConfig, compile_schedule, write_schedule
from pipelines.schedule.packing import layout
from pipelines.shards import VERSION, Manifest, Shards, order_key, write_manifest, write_shard

ROOT = Path(__file__).parents[2]
EOS, VOCAB = 0, 64
RECIPE = """
from pathlib import Path

from trainer.config import LearningRate, ModelConfig, MultiStep, Needle, Parallel, Prompt, Run, TrainConfig

QUESTIONS = str(Path(__file__).with_name("questions.jsonl"))


def tiny():
    return TrainConfig(
        name="tiny",
        model=ModelConfig(vocab_size=64, width=32, layers=2, heads=4, kv_heads=2, feed_forward=64),
        learning_rate=LearningRate(peak=1e-2, warmup_steps=3, shape=MultiStep(), anneal_phase="annealing"),
        parallel=Parallel(micro_batch=3, loss_chunk=50),
        run=Run(
            log_every=5, evaluate_every=10, evaluate_tokens=300, save_every_steps=4, log_samples=True, trackers=(),
            probe_every=10, questions=QUESTIONS, shots=2,
            needle=Needle("w60 w61 {}", ("w7", "w9", "w11"), lengths=(0.5, 1.0), depths=(0.0, 0.5)),
            prompts=(Prompt("en", "w5 w6 w7 w8"), Prompt("zh", "w9 w14 w19")), sample_tokens=6,
        ),
    )
"""


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> Iterator[None]:
    """Models as small as these take twice as long on two cores; workers of pytest-xdist take one each."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(cores)[worker % len(cores)]})
    torch.set_num_threads(1)
    yield
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


def write_data(out: Path, seed: int = 0, phases: tuple[Phase, ...] | None = None) -> Path:
    """OUT/shards and OUT/schedule.json; returns the shard folder. A token is mostly the one before plus its source's stride."""
    random = np.random.default_rng(seed)
    files = []
    for source, stride in (("web", 1), ("code", 5)):
        for split, count in (("train", 60), ("validation", 8)):
            rows = []
            for _ in range(count):
                length = int(random.integers(5, 60))
                noise = random.integers(1, VOCAB, length)
                regular = 1 + (int(random.integers(0, 63)) + stride * np.arange(length)) % (VOCAB - 1)
                tokens = np.append(np.where(random.random(length) < 0.9, regular, noise), EOS)
                doc_id = hashlib.blake2b(tokens.tobytes() + source.encode(), digest_size=16).digest()
                rows.append((order_key(seed, doc_id), doc_id, tokens))
            rows.sort(key=lambda row: row[:2])
            ids, tokens_of = [r[1] for r in rows], [r[2] for r in rows]
            files.append(write_shard(out / "shards", source, split, 0, ids, tokens_of, "uint16"))
    tokenizer = _write_tokenizer(out / "tokenizer")
    manifest = Manifest(VERSION, "uint16", VOCAB, EOS, tokenizer, "tiny", "0" * 12, tuple(files), seed)
    write_manifest(out / "shards", manifest)
    given = phases or (
        Phase("main", 15 * 160, 32, 160, {"web": 0.6, "code": 0.4}),
        Phase("annealing", 5 * 160, 32, 160, {"web": 0.2, "code": 0.8}),
    )
    rows = layout(Shards(out / "shards"), given)
    schedule = compile_schedule(ScheduleConfig(given), manifest.source_tokens(), manifest.fingerprint, rows)
    write_schedule(out / "schedule.json", schedule)
    return out / "shards"


def _write_tokenizer(folder: Path) -> str:
    """Words w1 to w63; returns the SHA-256 of tokenizer.json."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(WordLevel({"<eos>": 0} | {f"w{i}": i for i in range(1, VOCAB)}, unk_token="<eos>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 steps of 5 samples of 32 tokens: five do not divide by two ranks."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "mine.py"
    path.write_text(RECIPE)
    asked = [(i, f"w{i + 1} w{i + 2} w{i + 3}", [f"w{(7 * i + 30) % 63 + 1}", f"w{i + 4}"]) for i in range(9)]
    lines = [{"bench": "next", "id": i, "question": q, "choices": c, "answer": "B"} for i, q, c in asked]
    path.with_name("questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"{path}:tiny"


@pytest.fixture(scope="session")
def make_data() -> Callable[[Path, int], Path]:
    return write_data


class CommandLine:
    """The trainer's command line, for processes of its own."""

    def __init__(self, recipe: str, shards: Path) -> None:
        self.recipe, self.shards = recipe, shards
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "CUDA_VISIBLE_DEVICES": ""}

    def words(self, out: Path, *more: str, ranks: int = 0) -> list[str]:
        """`ranks` 0: without a launcher."""
        launch = ["-m", "accelerate.commands.accelerate_cli", "launch", "--quiet", "--num_processes", str(ranks)]
        launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
        # The name notwithstanding: this is the launcher for several processes, on CPU too.
        launch += ["--multi_gpu"] if ranks > 1 else ["--cpu"]
        start = [sys.executable, *(launch if ranks else []), "-m", "trainer.train"]
        return [*start, self.recipe, "--data", str(self.shards), "--out", str(out), *more]

    def run(self, out: Path, *more: str, ranks: int = 0, shell: str = "") -> subprocess.CompletedProcess[str]:
        """To the end; `shell` goes before, in the same process."""
        words, env = self.words(out, *more, ranks=ranks), dict(self.environment)
        if ranks:
            del env["PYTHONWARNINGS"]  # the launcher's own code warns
        if shell:
            words = ["bash", "-c", f'{shell} && exec "$@"', "bash", *words]
        return subprocess.run(words, capture_output=True, text=True, env=env, timeout=120, check=False)

    def start(self, out: Path) -> subprocess.Popen[bytes]:
        """Only begun."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(self.words(out), env=self.environment, stdout=quiet, stderr=quiet)


@pytest.fixture(scope="session")
def train(recipe: str, shards: Path) -> CommandLine:
    return CommandLine(recipe, shards)


@pytest.fixture(scope="session")
def whole_run(train: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unbroken run of one process that others are compared with."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = train.run(out)
    assert done.returncode == 0, done.stderr
    return out
