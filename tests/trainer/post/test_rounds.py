"""Rounds at a size for a CPU: every step is done once, the best model goes on, and what is held out decides."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from pipelines.shards import Shards, read_manifest
from pipelines.shards.roles import TARGET
from pipelines.shards.template import Template
from trainer.errors import UserError
from trainer.log import read
from trainer.post.__main__ import main
from trainer.post.evaluate import words_with
from trainer.post.rounds import Rounds, with_source

from .conftest import RECIPE

MARKS = Template()
NAMES = [MARKS.eos, MARKS.user, MARKS.assistant, MARKS.end, MARKS.system, MARKS.tool]  # ids of conftest's first ones


def tokenizer(chat: Path) -> tuple[Tokenizer, str]:
    """conftest's words, with the special tokens of the template."""
    words = {name: i for i, name in enumerate(NAMES)} | {f"w{i}": i for i in range(len(NAMES), 32)}
    made = Tokenizer(WordLevel(words, unk_token=NAMES[0]))
    made.pre_tokenizer = WhitespaceSplit()
    made.add_special_tokens(NAMES)
    return made, made.to_str()


@pytest.fixture
def shards(chat: Path, tmp_path: Path) -> tuple[Path, Tokenizer]:
    """The shards of conftest under that tokenizer."""
    from pipelines.shards import write_manifest

    made, text = tokenizer(chat)
    for file in chat.rglob("*.arrow"):
        link = tmp_path / "shards" / file.relative_to(chat)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_manifest(tmp_path / "shards", replace(read_manifest(chat), tokenizer_sha256=digest))
    return tmp_path / "shards", made


def test_a_source_of_conversations_is_set_beside_those_there_are(shards: tuple[Path, Tokenizer], tmp_path: Path) -> None:
    given, words = Shards(shards[0]), words_with(shards[0].parent / "tokenizer" / "tokenizer.json", None)
    talk = [[{"role": "user", "content": "w9 w8"}, {"role": "assistant", "content": "w8 w9"}]] * 2
    out = with_source(given, "round-1", talk, words, tmp_path / "more")
    made = Shards(out)
    made.check()
    assert set(made.manifest.source_tokens()) == {"judged", "pairs", "round-1", "talk"}
    stream = made.stream("round-1")
    assert stream.slice(0, stream.n_tokens).tolist() == [1, 9, 8, 3, 2, 8, 9, 3, 0]  # once: the same twice is one
    assert TARGET[stream.roles(0, stream.n_tokens)].tolist() == [False] * 5 + [True] * 3 + [False]
    assert made.stream("talk").slice(0, 50).tolist() == given.stream("talk").slice(0, 50).tolist()
    assert out == with_source(given, "round-1", talk, words, tmp_path / "more")  # again


@pytest.mark.slow
def test_rounds_keep_the_best_model_and_do_nothing_twice(
    shards: tuple[Path, Tokenizer], base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (base_run := tmp_path / "base").mkdir()
    for name in ("config.json", "checkpoints"):
        (base_run / name).symlink_to(base / name)
    (base_run / "tokenizer.json").write_text(shards[1].to_str())
    random, prompts = np.random.default_rng(5), tmp_path / "prompts.jsonl"
    asked = [" ".join(f"w{i}" for i in random.integers(6, 32, 3)) for _ in range(14)]
    prompts.write_text(
        "".join(json.dumps({"prompt": [{"role": "user", "content": text}], "chosen": ""}) + "\n" for text in asked)
    )
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE + ROUNDS.format(file=str(recipe)))
    words = ["rounds", f"{recipe}:rounds", "--data", str(shards[0]), "--base", str(base_run), "--prompts", str(prompts)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    lines = read(tmp_path / "out" / "rounds.json")
    assert [line["round"] for line in lines] == [1, 2]
    for line in lines:
        assert line["scores"][line["best"]] == max(line["scores"].values())
        assert len(line["scores"]) == 4
    assert str(tmp_path / "out" / "round-0" / "sft") in lines[0]["scores"]
    assert lines[0]["best"] in lines[1]["scores"]
    chosen = read(tmp_path / "out" / "round-1" / "rejected.jsonl")
    assert 0 < len(chosen) <= 10
    assert chosen[0]["messages"][0]["content"] in asked[4:]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert main([*words, "--out", str(tmp_path / "other"), "--set", "held_out=14"]) == 1
    assert "has 14 prompts, of which 14 are held out" in capfd.readouterr().err


ROUNDS = """
from trainer.post.rounds import Rounds


def rounds():
    name = "{file}:tiny"
    return Rounds(
        name, name, name, rounds=2, samples=3, limit=8, held_out=4, average=2,
        settings=("epochs=4", "run.save_every_steps=5", "run.evaluate_every=1000"),
    )
"""


def test_numbers_that_make_no_sense_are_refused() -> None:
    for values in ({"rounds": 0}, {"samples": 0}, {"average": 1}):
        with pytest.raises(ValueError, match="must be 1 or more"):
            Rounds("a", "b", "c", **values)  # type: ignore[arg-type]


def test_after_a_takedown_no_source_is_added(shards: tuple[Path, Tokenizer], tmp_path: Path) -> None:
    given = Shards(shards[0])
    given.manifest = replace(given.manifest, takedowns=(object(),))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="taken down"):
        with_source(
            given, "round-1", [], words_with(shards[0].parent / "tokenizer" / "tokenizer.json", None), tmp_path / "more"
        )
