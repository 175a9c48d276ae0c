"""The loop that PPO and GRPO share, and GRPO: made arithmetic, real sessions."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines.shards import Shards
from pipelines.shards.template import Template
from trainer.checkpoint import committed
from trainer.engine import Completion
from trainer.errors import UserError
from trainer.generate import load_run
from trainer.log import read
from trainer.loss import IGNORED
from trainer.post.__main__ import main
from trainer.post.adapters import is_adapter
from trainer.post.experience import Answer, Packed, Prompt, pack_answers
from trainer.post.rollout import judge, prompt_of

from .arithmetic_base import tokenizer
from .conftest import ROOT

RECIPE = """
from trainer.config import Cosine, LearningRate, Parallel, Run
from trainer.post.config import Post
from trainer.post.policy import Online


def tiny():
    return Post(
        "tiny", LearningRate(1e-3, 2, Cosine(1.0)), batch=20, parallel=Parallel(micro_batch=16, loss_chunk=500),
        online=Online(samples=8, limit=4), run=Run(log_every=50, evaluate_every=1000, save_every_steps=100, trackers=()),
    )
"""


def words(verb: str, sums: tuple[Path, Path], out: Path, *settings: str, steps: int | None = None) -> list[str]:
    """A command; its recipe lies beside OUT."""
    recipe = out.parent / "recipe.py"
    recipe.write_text(RECIPE)
    given = [verb, f"{recipe}:tiny", "--data", str(sums[0]), "--base", str(sums[1]), "--out", str(out)]
    given += [word for setting in settings for word in ("--set", setting)]
    return given + ([] if steps is None else ["--steps", str(steps)])


def rewards(out: Path) -> list[float]:
    return [line["reward"] for line in read(out / "rollouts.jsonl")]


def made(prompt: list[int], answer: list[int], ended: bool = True) -> Answer:
    return Answer(Prompt(tuple(prompt), "", 0, "x"), Completion(tuple(answer), (0.0,) * len(answer), ended), "")


def pack(answers: list[Answer], length: int = 8, parts: int = 1, height: int = 2) -> Packed:
    return pack_answers(answers, length, parts, height, lambda rows: rows)


def test_a_prompt_ends_at_the_header_of_the_last_answer(sums: tuple[Path, Path]) -> None:
    words_of, stream = tokenizer(), Shards(sums[0]).stream("sums")
    bounds, seen = stream.bounds(0).tolist(), set()
    for start, end in pairwise(bounds):
        ids, codes = stream.slice(start, end - start), stream.roles(start, end - start)
        prompt = prompt_of(ids, codes, "sums", words_of)
        assert prompt is not None
        text = words_of.decode(list(prompt.tokens), skip_special_tokens=False)
        asked, answer = words_of.decode(ids.tolist(), skip_special_tokens=False).split(Template().assistant)
        assert (text, prompt.reference) == (asked + Template().assistant, answer.removesuffix("<|end|><|endoftext|>"))
        assert prompt.stop == words_of.token_to_id("<|end|>")
        seen.add(text)
    assert len(seen) == stream.n_documents == 40
    assert prompt_of(ids, np.zeros_like(codes), "sums", words_of) is None


def test_answers_are_packed_with_their_prompts_and_only_what_was_sampled_is_a_target() -> None:
    packed = pack([made([1, 2], [3, 4]), made([5], [6, 7, 8, 9]), made([1, 2, 3], [4])])
    (micro,) = packed.parts[0]
    rows = sorted(zip(micro.inputs.tolist(), micro.targets.tolist(), micro.positions.tolist(), strict=True))
    no = IGNORED
    assert rows == [
        ([1, 2, 3, 0, 0, 0, 0, 0], [no, no, 4, no, no, no, no, no], [0, 1, 2, 0, 1, 2, 3, 4]),
        ([1, 2, 3, 5, 6, 7, 8, 0], [no, 3, 4, 6, 7, 8, 9, no], [0, 1, 2, 0, 1, 2, 3, 0]),
    ]
    values = [np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0, 6.0]), np.array([7.0])]
    assert [v.tolist() for v in packed.gather(packed.spread(values))] == [v.tolist() for v in values]
    assert torch.equal(packed.spread([1.0, 1.0, 1.0]) > 0, torch.cat([m.targets for m in packed.parts[0]]) != IGNORED)


@pytest.mark.parametrize(
    ("parts", "height", "shape"), [(1, 2, (1, 2, 2)), (1, 1, (1, 3, 1)), (2, 4, (2, 1, 2)), (3, 4, (3, 1, 1))]
)
def test_rows_are_dealt_to_parts_in_micro_batches_of_one_size(parts: int, height: int, shape: tuple[int, int, int]) -> None:
    packed = pack([made([1, 2, 3], [4, 5, 6, 7])] * 3, 8, parts, height)
    assert (len(packed.parts), len(packed.parts[0]), len(packed.parts[0][0].inputs)) == shape
    targets = torch.cat([m.targets for part in packed.parts for m in part]).flatten()
    assert all(targets[at].tolist() == [4, 5, 6, 7] for at in packed.places)
    assert int((targets != IGNORED).sum()) == 12


def test_an_answer_longer_than_a_row_is_refused_and_none_at_all_is_an_empty_row() -> None:
    with pytest.raises(UserError, match="a prompt and its answer are 10 tokens, a row has 8; --set online"):
        pack([made([1] * 6, [2] * 4)])
    assert bool((pack([]).parts[0][0].targets == IGNORED).all())


@pytest.mark.parametrize(("unended", "expected"), [(0.0, [1.0, 0.0]), (-1.0, [1.0, -1.0]), (None, [1.0, 1.0])])
def test_what_does_not_end_is_worth_what_is_said(unended: float | None, expected: list[float]) -> None:
    answers = [made([1], [2]), made([1], [2], ended=False)]
    assert judge(answers, lambda some: [1.0] * len(some), unended).tolist() == expected


def test_grpo_raises_the_reward(sums: tuple[Path, Path], tmp_path: Path) -> None:
    assert main(words("grpo", sums, tmp_path / "run", "epochs=15")) == 0
    assert not (tmp_path / "run" / "plan.json").exists(), "what sampling takes is not planned"
    curve = rewards(tmp_path / "run")
    assert len(curve) == 30
    assert np.mean(curve[-6:]) > np.mean(curve[:6]) + 0.08
    lines = read(tmp_path / "run" / "rollouts.jsonl")
    assert max(line["drift"] for line in lines) < 1e-5  # engine and trainer agree on what was sampled
    metrics = [line for line in read(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert [line["reward"] for line in metrics] == pytest.approx(curve, abs=1e-5)
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("verb", ["grpo", "ppo"])
def test_a_run_that_is_resumed_repeats_what_it_would_have_done(verb: str, sums: tuple[Path, Path], tmp_path: Path) -> None:
    settings = ("epochs=3", "online.kl_target=1.0") if verb == "ppo" else ("epochs=3",)
    for out in ("whole", "broken"):
        (tmp_path / out).mkdir()
    assert main(words(verb, sums, tmp_path / "whole" / "run", *settings)) == 0
    for steps in (3, None):
        assert main(words(verb, sums, tmp_path / "broken" / "run", *settings, steps=steps)) == 0
    whole, broken = (read(tmp_path / out / "run" / "rollouts.jsonl") for out in ("whole", "broken"))
    assert len(whole) == 6
    assert whole == broken


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["grpo", "ppo"])
def test_two_processes_compute_what_one_does(verb: str, sums: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    assert main(words(verb, sums, tmp_path / "one" / "run", "epochs=2")) == 0
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0", "-m", "trainer.post", *words(verb, sums, tmp_path / "run", "epochs=2")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    ours, theirs = (read(out / "run" / "rollouts.jsonl") for out in (tmp_path, tmp_path / "one"))
    assert len(ours) == len(theirs) == 4
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("answers", "reward", "tokens", "kl"):
            assert mine[name] == pytest.approx(other[name], rel=1e-3, abs=1e-3), name


def adapted(recipe: Path, adapter: str) -> None:
    """Give the recipe an adapter."""
    text = RECIPE.replace("online=Online", f"adapter={adapter}, online=Online")
    recipe.write_text(f"{text}\n\nfrom trainer.post.adapters import Lora, Prefix\n")


@pytest.mark.parametrize(("verb", "adapter"), [("grpo", "Lora()"), ("ppo", "Lora(eight_bit=True)")])
def test_lora_alone_is_trained_and_answers_are_sampled_with_it(
    verb: str, adapter: str, sums: tuple[Path, Path], tmp_path: Path
) -> None:
    given = words(verb, sums, tmp_path / "run", "epochs=15", "learning_rate.peak=3e-3")
    adapted(tmp_path / "recipe.py", adapter)
    assert main(given) == 0
    curve, lines = rewards(tmp_path / "run"), read(tmp_path / "run" / "rollouts.jsonl")
    assert np.mean(curve[-6:]) > np.mean(curve[:6]) + 0.08
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-5), "the reference is the frozen base, rounded as it is"
    assert lines[-1]["kl"] > 0.01
    assert max(line["drift"] for line in lines) < 1e-4, "merged into the weights that answer, beside those that learn"
    held = load_file(next(committed(tmp_path / "run" / "checkpoints")[-1].glob("*.safetensors")))
    assert {is_adapter(name) or "value_head" in name for name in held if name.startswith("model/")} == {True}
    assert main(["merge", str(tmp_path / "run"), "--base", str(sums[1]), "--out", str(tmp_path / "merged")]) == 0
    load_run(tmp_path / "merged")


def test_an_adapter_that_is_no_change_of_weights_is_refused(
    sums: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words("grpo", sums, tmp_path / "run")
    adapted(tmp_path / "recipe.py", "Prefix(4)")
    assert main(given) == 1
    assert "has the adapter Prefix(tokens=4); ppo and grpo sample from weights: take Lora or None" in capsys.readouterr().err
