import dataclasses
from pathlib import Path

import pytest

from trainer.config import TrainConfig, WarmupStableDecay, as_dict, config_hash, load_recipe, model_from_dict, with_settings
from trainer.errors import UserError

PRESETS = ["demo", "deepseek_llm", "deepseek_llm:deepseek_llm_67b", "llama3", "llama3:llama3_70b", "llama3:llama3_405b"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_and_their_models_survive_json(name: str) -> None:
    cfg = load_recipe(name)
    assert model_from_dict(as_dict(cfg)["model"]) == cfg.model


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
        ("parallel.micro_batch=2", True),
        ("run.keep=5", True),
        ("run.tracker=null", True),
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
    ],
)
def test_bad_settings_say_what_is_there(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_settings(load_recipe("demo"), [setting])


def test_bad_recipe_names_say_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def wrong():\n    return 3\n")
    for name, message in [
        ("gpt", "known are deepseek_llm, demo, llama3"),
        ("llama3:x", "has no function 'x'"),
        ("nowhere.py:f", "no file 'nowhere.py'"),
        (f"{tmp_path}/mine.py:wrong", "returned int"),
    ]:
        with pytest.raises(UserError, match=message):
            load_recipe(name)
