"""Recipes: fusing into steps, fingerprints, settings from the command line."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.errors import UserError
from pipelines.filter.bad_words import BadWordsConfig
from pipelines.filter.language import LanguageConfig
from pipelines.recipe import (
    Input,
    Recipe,
    Stage,
    batch_stage,
    config_files,
    load_recipe,
    reader,
    steps,
    table_stage,
    with_settings,
)


@dataclass(frozen=True)
class Config:
    minimum: float = 1.0
    words: tuple[str, ...] = ("a", "b")
    name: str = "x"
    limit: int | None = None


@reader()
def read(path: str, source: str, cfg: Config) -> Any:
    yield from ()


@batch_stage()
def first(docs: pa.RecordBatch, cfg: Config) -> pa.RecordBatch:
    return docs


@batch_stage(version=2)
def second(docs: pa.RecordBatch, cfg: Config) -> pa.RecordBatch:
    return docs


@table_stage()
def shuffle(docs: Any, cfg: Config) -> Any:
    return docs


FILES = [{"source": "web", "path": f"/in/{n}.warc.gz", "bytes": 10, "mtime_ns": 5} for n in "ab"]


def recipe(*stages: Stage) -> Recipe:
    return Recipe("test", (Input("web", "/in", read, Config()),), stages)


def names(made: Recipe) -> list[list[str]]:
    return [list(step.stage_names) for step in steps(made, FILES)]


def test_consecutive_batch_stages_are_one_pass() -> None:
    made = recipe(
        Stage(first, Config()), Stage(second, Config()), Stage(shuffle, Config()), Stage(first, Config(), name="last")
    )
    assert names(made) == [["read", "first", "second"], ["shuffle"], ["last"]]


def test_a_checkpoint_ends_the_pass() -> None:
    assert names(recipe(Stage(first, Config(), checkpoint=True), Stage(second, Config()))) == [["read", "first"], ["second"]]


def test_a_changed_config_changes_its_step_and_all_after_it() -> None:
    made = recipe(Stage(first, Config(), checkpoint=True), Stage(second, Config()), Stage(shuffle, Config()))
    before = [s.fingerprint for s in steps(made, FILES)]
    after = [s.fingerprint for s in steps(with_settings(made, ["second.minimum=2"]), FILES)]
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert before[2] != after[2]


@pytest.mark.parametrize("change", [{"bytes": 11}, {"mtime_ns": 6}, {"path": "/in/c.warc.gz"}, {"source": "other"}])
def test_a_changed_input_file_changes_everything(change: dict[str, Any]) -> None:
    made = recipe(Stage(first, Config()))
    changed = [FILES[0], {**FILES[1], **change}]
    assert steps(made, FILES)[0].fingerprint != steps(made, changed)[0].fingerprint


def test_the_order_of_input_files_changes_nothing() -> None:
    made = recipe(Stage(first, Config()))
    assert steps(made, FILES) == steps(made, FILES[::-1])


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("first.minimum=3", Config(minimum=3.0)),
        ("first.minimum=0.5", Config(minimum=0.5)),
        ('first.words=["c"]', Config(words=("c",))),
        ("first.name=plain text", Config(name="plain text")),
        ("first.limit=5", Config(limit=5)),
    ],
)
def test_settings_from_the_command_line(setting: str, expected: Config) -> None:
    assert with_settings(recipe(Stage(first, Config())), [setting]).stages[0].cfg == expected


def test_an_inputs_paths_and_config_can_be_set() -> None:
    made = with_settings(recipe(Stage(first, Config())), ["web.paths=/other", "web.minimum=4"])
    assert made.inputs == (replace(made.inputs[0], paths="/other", cfg=Config(minimum=4.0)),)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("first.minimun=3", "no field 'minimun'; it has limit, minimum, name, words"),
        ("frist.minimum=3", "no stage 'frist'; it has first, web, tokenizer"),
        ("first.minimum=many", "minimum is float 1.0, not str 'many'"),
        ("minimum=3", "is not STAGE.FIELD=VALUE"),
    ],
)
def test_a_wrong_setting_says_what_there_is(setting: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        with_settings(recipe(Stage(first, Config())), [setting])


def test_one_name_for_one_stage() -> None:
    with pytest.raises(ValueError, match="uses the name 'first' twice"):
        recipe(Stage(first, Config()), Stage(first, Config()))


@pytest.mark.parametrize("name", ["nowhere", "nowhere.py:recipe"])
def test_an_unknown_recipe_says_what_to_write(name: str) -> None:
    with pytest.raises(UserError, match=r"path/to/file.py:function"):
        load_recipe(name)


@dataclass(frozen=True)
class ListConfig:
    path: str

    def files(self) -> tuple[str, ...]:
        return (self.path,)


def test_the_files_that_a_config_names_are_in_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    made = recipe(Stage(first, Config()), Stage(shuffle, ListConfig(str(path))), Stage(second, Config()))

    def fingerprints() -> list[str]:
        return [step.fingerprint for step in steps(made, FILES)]

    with pytest.raises(UserError, match=r"list.txt', which ListConfig names, cannot be read"):
        fingerprints()
    path.write_text("bad.example\n")
    os.utime(path, ns=(5, 5))
    before = fingerprints()
    assert fingerprints() == before
    os.utime(path, ns=(5, 6))
    touched = fingerprints()
    path.write_text("other.example\n")
    os.utime(path, ns=(5, 5))
    longer = fingerprints()
    for changed in (touched, longer):  # that of the stage and of what follows it, not of what comes before
        assert [a == b for a, b in zip(before, changed, strict=True)] == [True, False, False]


def test_models_and_word_lists_decide_by_their_content(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("one")
    for cfg in (LanguageConfig(model=str(given)), BadWordsConfig(lists=("a word", f"file:{given}"))):
        assert [(f["path"], f["bytes"]) for f in config_files(cfg)] == [(str(given), 3)]
    assert config_files(LanguageConfig()) == config_files(BadWordsConfig()) == []
    with pytest.raises(UserError, match="which LanguageConfig names, cannot be read"):
        config_files(LanguageConfig(model=str(tmp_path / "missing")))
