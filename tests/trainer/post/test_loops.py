"""The loops on the shared session: they learn, go on after a break, and compute the same on two processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.checkpoint import committed
from trainer.errors import UserError
from trainer.log import read
from trainer.post.__main__ import main
from trainer.post.reward import load_reward, scorer

from ..conftest import write_data
from .conftest import ASK, END, RECIPE, REPLY, conversation, write_chat

ROOT = Path(__file__).parents[3]


def run(verb: str, recipe: str, chat: Path, base: Path, out: Path, *settings: str, more: tuple[str, ...] = ()) -> int:
    words = [verb, recipe, "--data", str(chat), "--base", str(base), "--out", str(out), *more]
    return main([*words, *(word for setting in settings for word in ("--set", setting))])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of an error."""
    assert run(*words) == 1  # type: ignore[arg-type]
    (line,) = capsys.readouterr().err.splitlines()
    return line


def steps(out: Path) -> list[dict[str, Any]]:
    """Lines of steps without the phase and what a clock says."""
    clock = ("phase", "tokens_per_second", "data_wait_s")
    return [{k: v for k, v in line.items() if k not in clock} for line in read(out / "metrics.jsonl") if "loss" in line]


def held_out(out: Path) -> dict[str, float]:
    found: dict[str, float] = [line["validation"] for line in read(out / "metrics.jsonl") if "validation" in line][-1]
    return found


def test_sft_lowers_the_loss_of_held_out_answers(post_recipe: str, chat: Path, base: Path, tmp_path: Path) -> None:
    assert run("sft", post_recipe, chat, base, tmp_path / "run", "epochs=6") == 0
    lines = steps(tmp_path / "run")
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5
    assert set(held_out(tmp_path / "run")) == {"talk"}


def test_dpo_raises_the_margin_and_with_nll_the_chosen_answers_keep_their_probability(
    post_recipe: str, chat: Path, base: Path, tmp_path: Path
) -> None:
    settings = ("epochs=6", "preference.nll=0.2", "run.evaluate_every=1000")
    assert run("dpo", post_recipe, chat, base, tmp_path / "run", *settings) == 0
    lines = steps(tmp_path / "run")
    first, last = lines[0], lines[-1]
    assert (first["margin"], first["chosen"], first["rejected"]) == pytest.approx((0, 0, 0), abs=1e-4)  # the reference itself
    assert first["loss"] == pytest.approx(0.6931 + 0.2 * first["chosen_nll"], abs=1e-3)
    assert last["margin"] > 0.5
    assert last["accuracy"] == 1
    assert last["chosen"] > 0 > last["rejected"]
    found = held_out(tmp_path / "run")
    assert found["pairs/margin"] > 0.5
    assert found["pairs/chosen"] > 0


@pytest.mark.parametrize("kind", ["ipo", "orpo", "simpo", "kto"])
def test_its_relatives_tell_the_answers_apart_too(kind: str, post_recipe: str, chat: Path, base: Path, tmp_path: Path) -> None:
    assert run("dpo", post_recipe, chat, base, tmp_path / "run", f"preference.kind={kind}", "epochs=4") == 0
    lines = steps(tmp_path / "run")
    assert lines[-1]["loss"] < lines[0]["loss"]
    found = held_out(tmp_path / "run")
    if kind == "kto":
        assert found["judged/good"] > found["judged/bad"]
    else:
        assert found["pairs/margin"] > 0


def test_a_reward_model_learns_which_answers_are_preferred(post_recipe: str, chat: Path, base: Path, tmp_path: Path) -> None:
    assert run("reward", post_recipe, chat, base, tmp_path / "run", "epochs=6") == 0
    found = held_out(tmp_path / "run")
    assert found["pairs/accuracy"] == found["accuracy/unrated"] == 1
    assert found["calibration/0.9-1.0 accuracy"] == 1


@pytest.mark.parametrize("verb", ["sft", "reward", "dpo"])
def test_stopped_in_the_middle_it_goes_on_with_the_same_numbers(
    verb: str, post_recipe: str, chat: Path, base: Path, tmp_path: Path
) -> None:
    assert run(verb, post_recipe, chat, base, tmp_path / "whole", "epochs=1") == 0
    assert run(verb, post_recipe, chat, base, tmp_path / "run", "epochs=1", more=("--steps", "3")) == 0
    assert run(verb, post_recipe, chat, base, tmp_path / "run", "epochs=1") == 0
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")
    assert held_out(tmp_path / "run") == held_out(tmp_path / "whole")


def launched(verb: str, recipe: str, chat: Path, base: Path, out: Path, ranks: int) -> list[str]:
    """The command line in processes of its own."""
    launch = ["-m", "accelerate.commands.accelerate_cli", "launch", "--quiet", "--multi_gpu", "--num_processes", str(ranks)]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    words = ["-m", "trainer.post", verb, recipe, "--data", str(chat), "--base", str(base), "--out", str(out)]
    return [sys.executable, *(launch if ranks > 1 else []), *words, "--set", "epochs=1"]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["sft", "dpo"])
def test_two_processes_compute_what_one_does(verb: str, post_recipe: str, chat: Path, base: Path, tmp_path: Path) -> None:
    assert run(verb, post_recipe, chat, base, tmp_path / "one", "epochs=1") == 0
    for kept in (chat.parent / "reference").glob("*/*/*.f32"):
        kept.unlink()  # two compute it too
    words = launched(verb, post_recipe, chat, base, tmp_path / "two", 2)
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    ours, theirs = steps(tmp_path / "two"), steps(tmp_path / "one")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert held_out(tmp_path / "two") == pytest.approx(held_out(tmp_path / "one"), rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_two_processes_shard_an_8_bit_base_too(chat: Path, base: Path, tmp_path: Path) -> None:
    text = RECIPE.replace("batch=10", "batch=10, adapter=Lora(rank=2, eight_bit=True)")
    (tmp_path / "recipe.py").write_text(text + "\nfrom trainer.post.adapters import Lora\n")
    recipe = f"{tmp_path / 'recipe.py'}:tiny"
    assert run("dpo", recipe, chat, base, tmp_path / "one", "epochs=1") == 0
    words = launched("dpo", recipe, chat, base, tmp_path / "two", 2)
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for mine, other in zip(steps(tmp_path / "two"), steps(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_killed_it_goes_on_from_its_last_checkpoint(post_recipe: str, chat: Path, base: Path, tmp_path: Path) -> None:
    assert run("dpo", post_recipe, chat, base, tmp_path / "whole", "epochs=1") == 0
    process = subprocess.Popen(
        launched("dpo", post_recipe, chat, base, tmp_path / "run", 1), env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") >= 5) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert committed(tmp_path / "run" / "checkpoints")
    assert run("dpo", post_recipe, chat, base, tmp_path / "run", "epochs=1") == 0
    assert steps(tmp_path / "run") == steps(tmp_path / "whole")


def test_the_reference_is_computed_once_for_a_base_and_its_shards(
    post_recipe: str, chat: Path, base: Path, tmp_path: Path
) -> None:
    assert run("dpo", post_recipe, chat, base, tmp_path / "one", more=("--steps", "1")) == 0
    files = sorted((chat.parent / "reference").glob("*-whole-*/pairs/*.f32"))
    assert [path.name for path in files] == ["train.f32", "validation.f32"]
    before = [path.stat().st_mtime_ns for path in files]
    assert run("dpo", post_recipe, chat, base, tmp_path / "two", "preference.beta=0.5", more=("--steps", "1")) == 0
    assert [path.stat().st_mtime_ns for path in files] == before


@pytest.mark.parametrize("adapter", ["Prefix(3)", "VirtualTokens(3)", "Lora(2)", "Lora(2, eight_bit=True)"])
def test_the_reference_is_the_base_whatever_is_trained_beside_it(
    adapter: str, post_recipe: str, chat: Path, base: Path, tmp_path: Path
) -> None:
    found = []
    (tmp_path / "adapted.py").write_text(
        RECIPE.replace("batch=10", f"batch=10, adapter={adapter}")
        + "\nfrom trainer.post.adapters import Lora, Prefix, VirtualTokens\n"
    )
    for name, recipe in (("plain", post_recipe), ("adapted", f"{tmp_path / 'adapted.py'}:tiny")):
        shutil.copytree(chat.parent, tmp_path / name, ignore=shutil.ignore_patterns("reference"))
        assert run("dpo", recipe, tmp_path / name / chat.name, base, tmp_path / name / "run", more=("--steps", "1")) == 0
        (folder,) = (tmp_path / name / "reference").iterdir()
        found.append((folder.name, np.fromfile(folder / "pairs" / "train.f32", np.float32)))
    (plain, expected), (adapted, got) = found
    if "eight" in adapter:  # another model, and no one else's reference
        assert adapted == plain.replace("whole", "int8")
        assert np.abs(got - expected).max() < 0.5
    else:
        assert adapted == plain
        assert np.allclose(got, expected, atol=1e-4)


def test_bad_input_is_one_line(
    post_recipe: str, chat: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, none = tmp_path / "run", tmp_path / "none"
    assert "holds no config.json" in refused(capsys, "sft", post_recipe, chat, none, out)
    assert "a document of" in (line := refused(capsys, "sft", post_recipe, chat, base, out, "sequence_length=8"))
    assert "is longer than the context of 8; --set sequence_length=" in line
    plain = write_data(tmp_path / "plain")
    other = tmp_path / "other"
    shutil.copytree(base, other)
    shutil.copyfile(tmp_path / "plain" / "tokenizer" / "tokenizer.json", other / "tokenizer.json")
    assert "has the tokenizer" in refused(capsys, "sft", post_recipe, chat, other, out)
    line = refused(capsys, "sft", post_recipe, plain, other, out)
    assert "holds no conversations (code: text without roles, web: text without roles)" in line
    random = np.random.default_rng(0)
    talk = write_chat(tmp_path / "talk", {"talk": ([conversation(random)], [])})
    assert "holds no preferences (talk: conversations)" in refused(capsys, "dpo", post_recipe, talk, base, out)
    assert run("reward", post_recipe, chat, base, out, more=("--steps", "1")) == 0
    assert "is a reward model" in refused(capsys, "sft", post_recipe, chat, out, none)
    assert "belongs to config" in refused(capsys, "dpo", post_recipe, chat, base, out)
    with pytest.raises(UserError, match="holds no whole reward model"):
        load_reward(base)


def test_a_reward_model_scores_conversations_of_any_lengths(post_recipe: str, chat: Path, base: Path, tmp_path: Path) -> None:
    assert run("reward", post_recipe, chat, base, tmp_path / "run", "epochs=6") == 0
    score = scorer(load_reward(tmp_path / "run"), rows=2)
    question = [ASK, 5, 6, END, REPLY]
    answers = [[8, 10, 12, END], [9, 11, 13, 15, END], [20, 6, 8, 10, END]]
    rewards = score([question + answer for answer in answers])
    assert rewards[0] > rewards[1] < rewards[2]
    torch.testing.assert_close(rewards[1:2], score([question + answers[1]]), atol=1e-5, rtol=1e-5)
