"""The proof at a tiny size: every stage runs and every figure is there. How they fall is for a real run to say."""

import hashlib
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from bench.prove_post import main, write_sums
from pipelines.shards import VERSION, Manifest, order_key, write_manifest, write_shard
from pipelines.shards.roles import LAST, UNRATED
from pipelines.shards.template import Template, Turn, markers, render
from trainer.log import read
from trainer.post.arithmetic import problems

from .arithmetic_base import CONTEXT


def write_pairs(out: Path, words: Path) -> None:
    """The right answer is better than another one."""
    tokenizer = Tokenizer.from_file(str(words))
    marks, files = markers(Template(), tokenizer.token_to_id), []
    for split, keep in (("train", range(1, 10)), ("validation", range(0, 1))):
        rows = []
        for number, problem in enumerate(problems(4, 0, ("en",))):
            if number % 10 not in keep:
                continue
            asked, right = (tokenizer.encode(turn["content"]).ids for turn in problem["messages"])  # type: ignore[attr-defined]
            wrong = tokenizer.encode("9").ids
            parts = [
                render((Turn("user", asked), Turn("assistant", ids, grade)), marks)
                for ids, grade in ((right, UNRATED), (wrong, LAST))
            ]
            ids, codes = ([x for part in parts for x in part[i].tolist()] for i in (0, 1))
            name = hashlib.blake2b(json.dumps(ids).encode(), digest_size=16).digest()
            rows.append((order_key(0, name), name, ids, codes))
        rows.sort(key=lambda row: row[:2])
        names, tokens, roles = ([row[i] for row in rows] for i in (1, 2, 3))
        files.append(write_shard(out, "pairs", split, 0, names, tokens, "uint16", roles))
    digest = hashlib.sha256(words.read_bytes()).hexdigest()
    write_manifest(
        out, Manifest(VERSION, "uint16", tokenizer.get_vocab_size(), marks.eos, digest, "pairs", "0" * 12, tuple(files), 0)
    )


@pytest.mark.slow
def test_every_stage_runs_and_every_figure_is_there(sums: tuple[Path, Path], tmp_path: Path) -> None:
    words = sums[1] / "tokenizer.json"
    write_sums(tmp_path / "talk" / "shards", words, 4)
    write_pairs(tmp_path / "pairs" / "shards", words)
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps(problem) + "\n" for problem in problems(4, 0, ("en",))[:12]))
    given = ["--out", str(tmp_path / "out"), "--base", str(sums[1]), "--conversations", str(tmp_path / "talk" / "shards")]
    given += ["--preferences", str(tmp_path / "pairs" / "shards"), "--asked", str(asked), "--results", str(tmp_path)]
    size = {
        "epochs": 1,
        "online-epochs": 2,
        "largest": 4,
        "answered": 8,
        "limit": 6,
        "samples": 4,
        "context": CONTEXT,
        "warm": 0.1,
    }
    given += [word for name, value in size.items() for word in (f"--{name}", str(value))]
    assert main(given) == 0
    figures = {f["name"]: f for f in json.loads((tmp_path / "out" / "proof.json").read_text())}
    assert list(figures) == [
        "SFT: held-out answer loss",
        "reward model: held-out accuracy",
        "DPO: margin",
        "DPO: log-probability of the answer chosen",
        "DPO: repetition rate",
        "DPO: tokens an answer",
        "rejection: mean reward of all answers, and of those kept",
        "rejection: mean reward after fine-tuning on them",
        "GRPO: reward of rollouts",
        "GRPO: held-out exact match",
        "PPO: reward of rollouts",
        "PPO: held-out exact match",
    ]
    assert figures["rejection: mean reward of all answers, and of those kept"]["holds"]
    for verb in ("grpo", "ppo"):
        metrics = read(tmp_path / "out" / "sums" / verb / "metrics.jsonl")
        assert [line["validation"] for line in metrics if "validation" in line][-1].keys() == {"sums/reward"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(name in page for name in figures)
    assert page.count("<polyline") == 2
    assert {row["name"] for row in json.loads((tmp_path / "prove_post.json").read_text())} == set(figures)
