import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from trainer.config import (
    Experts,
    LinearScaling,
    Llama3Scaling,
    TrainConfig,
    WarmupStableDecay,
    as_dict,
    canonical_json,
    config_hash,
    load_recipe,
    model_from_dict,
    recipe_names,
    with_settings,
)
from trainer.errors import UserError

PRESETS = {
    *("deepseek_llm", "deepseek_llm_67b", "demo", "llama3", "llama3_70b", "llama3_405b"),
    *("tiny", "llama_125m", "llama_1b", "llama_1_7b"),
}


def test_recipes_are_known_by_the_names_of_their_functions() -> None:
    assert set(recipe_names()) == PRESETS
    assert load_recipe("llama3_70b") == load_recipe("llama3:llama3_70b")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_load_and_their_models_survive_json(name: str) -> None:
    cfg = load_recipe(name)
    assert model_from_dict(as_dict(cfg)["model"]) == cfg.model


@pytest.mark.parametrize(
    "change",
    [{"rope_scaling": LinearScaling(2.0)}, {"rope_scaling": Llama3Scaling()}, {"experts": Experts(8)}, {"prefix_lm": True}],
)
def test_each_option_of_the_model_survives_json_and_names_another_run(change: dict[str, Any]) -> None:
    cfg = load_recipe("demo")
    other = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, **change))
    assert model_from_dict(json.loads(canonical_json(other.model))) == other.model
    assert config_hash(other) != config_hash(cfg)


def test_a_config_cannot_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_recipe("demo").seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "same"),
    [
        ("seed=1", False),
        ("model.width=256", False),
        ("learning_rate.peak=1", False),
        ("optimizer.betas=[0.9, 0.99]", False),
        ("optimizer.kind=adafactor", False),
        ("z_loss=1e-4", False),
        ("parallel.micro_batch=2", True),
        ("parallel.replicas=2", True),
        ("run.keep=5", True),
        ("run.trackers=[]", True),
    ],
)
def test_the_hash_covers_what_is_learned_and_not_the_layout(setting: str, same: bool) -> None:
    cfg = load_recipe("demo")
    changed = with_settings(cfg, [setting])
    assert changed != cfg
    assert (config_hash(changed) == config_hash(cfg)) is same


def test_the_kind_of_a_shape_is_part_of_the_hash() -> None:
    cfg: TrainConfig = load_recipe("llama3")
    rate = dataclasses.replace(cfg.learning_rate, shape=WarmupStableDecay(decay=0.01, final=0.01))
    assert config_hash(dataclasses.replace(cfg, learning_rate=rate)) != config_hash(cfg)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed", "is not FIELD=VALUE"),
        ("model.depth=3", "ModelConfig has no field 'depth'; it has vocab_size"),
        ("model.width=wide", "width is int 128, not str 'wide'"),
        ("model.width=130", "width 130 does not give 4 heads"),
        ("model.kv_heads=3", "4 heads cannot share 3"),
        ("model=3", "model is ModelConfig"),
        ("optimizer.kind=sgd", "kind is one of adamw, adafactor"),
        ('optimizer.groups=[["bias", 0.5]]', "groups are trainer.config.Group; write them in a recipe"),
        ('model.experts={"count": 8}', "experts is Experts or None, not {'count': 8}; write it in a recipe"),
        ("model.rope_scaling=4", "rope_scaling is LinearScaling or Llama3Scaling or None, not 4"),
    ],
)
def test_bad_settings_say_what_is_there(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_settings(load_recipe("demo"), [setting])


def test_options_that_do_not_go_together() -> None:
    cfg = load_recipe("deepseek_llm")
    with pytest.raises(UserError, match="prefix_lm gives each document a prefix; set document_mask=True too"):
        with_settings(cfg, ["model.prefix_lm=true"])
    with pytest.raises(UserError, match=r'parallel.attention "varlen" is causal and knows no prefix'):
        with_settings(cfg, ["model.document_mask=true", "model.prefix_lm=true", "parallel.attention=varlen"])
    with pytest.raises(ValueError, match="must lie below high"):
        Llama3Scaling(low=4.0, high=1.0)


def test_bad_recipe_names_say_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def wrong():\n    return 3\n")
    for name, message in [
        ("gpt", "known are deepseek_llm, deepseek_llm_67b, demo, llama3, llama3_405b, llama3_70b, llama_125m"),
        ("llama3:x", "has no function 'x'"),
        ("nowhere.py:f", "no file 'nowhere.py'"),
        (f"{tmp_path}/mine.py:wrong", "returned int"),
    ]:
        with pytest.raises(UserError, match=message):
            load_recipe(name)


def test_the_page_about_the_trainer_names_what_there_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "trainer.md").read_text()
    cfg = load_recipe("demo")
    named = set(re.findall(r"\b(parallel|run|model|optimizer)\.([a-z_]+)", page)) | {
        ("parallel", n) for n in _rows(page, "Layout")
    }
    assert len(named) > 15
    assert [f"{part}.{name}" for part, name in sorted(named) if not hasattr(getattr(cfg, part), name)] == []
    assert _rows(page, "Presets") == PRESETS


def _rows(page: str, title: str) -> set[str]:
    """The names in the first column of a section's table."""
    lines = page.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    return {name for line in lines if line.startswith("| `") for name in re.findall(r"`([a-z0-9_]+)`", line.split("|")[1])}
