"""Recipes and the schedules that they become."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.schedule import Phase, ScheduleConfig, ScheduleError, compile_schedule, unit_of
from pipelines.schedule.packing import layout
from pipelines.shards import Shards
from trainer.config import Cosine, LearningRate, load_from, recipe_names
from trainer.errors import UserError
from trainer.post.config import Post, Stage, check_schedule, plan, reads, sources_of
from trainer.post.losses import Preference
from trainer.post.rounds import Rounds

PLAIN = Post("plain", LearningRate(1e-3, 1, Cosine()), batch=10)


@pytest.mark.parametrize(
    ("name", "peak", "epochs", "batch", "shape"),
    [
        ("deepseek_llm_sft", 1e-5, 4, 256, Cosine(1.0)),
        ("deepseek_llm_67b_sft", 5e-6, 2, 256, Cosine(1.0)),
        ("deepseek_llm_dpo", 5e-6, 1, 512, Cosine(0.0)),
        ("llama3_sft", 1e-5, 2, 128, Cosine(0.1)),
        ("llama3_reward", 1e-5, 1, 128, Cosine(0.1)),
        ("llama3_dpo", 1e-5, 1, 128, Cosine(0.1)),
    ],
)
def test_presets(name: str, peak: float, epochs: float, batch: int, shape: Cosine) -> None:
    cfg = load_from("trainer.post.recipes", name, Post)
    assert (cfg.learning_rate.peak, cfg.epochs, cfg.batch, cfg.learning_rate.shape) == (peak, epochs, batch, shape)
    assert cfg.learning_rate.warmup_steps > 0


def test_llama_3_masks_the_format_and_holds_the_chosen_answer() -> None:
    assert load_from("trainer.post.recipes", "llama3_dpo", Post).preference == Preference("dpo", 0.1, nll=0.2, format_mask=True)
    assert load_from("trainer.post.recipes", "llama3_reward", Post).margins == ()


def test_every_recipe_of_the_package_loads() -> None:
    for name in recipe_names("trainer.post.recipes"):
        if name not in ("Post", "Rounds"):
            assert isinstance(load_from("trainer.post.recipes", name, object), (Post, Rounds))


@pytest.mark.parametrize("epochs", [0.5, 1, 3])
def test_epochs_and_batch_become_a_schedule_of_packed_documents(epochs: float, chat: Path) -> None:
    shards = Shards(chat)
    schedule = plan(shards, replace(PLAIN, epochs=epochs), ("conversations",), 48)
    (phase,), (row,) = schedule.config.phases, schedule.epochs()
    assert (phase.packing, phase.sequence_length, row.source) == ("best_fit", 48, "talk")
    height = phase.batch_tokens // 48
    documents = shards.stream("talk").n_documents
    rows = sum(schedule.layout["talk"][unit_of(phase)])
    assert height == max(1, round(10 * rows / documents))
    assert schedule.total_steps == -int(-epochs * rows // height)


def test_two_stages_are_two_phases(chat: Path) -> None:
    stages = Stage("skills", {"pai*": 2}), Stage("conversation", {"judged": 1, "pairs": 0.5})
    cfg = replace(PLAIN, stages=stages, preference=Preference("kto"))
    schedule = plan(Shards(chat), cfg, reads("dpo", cfg), 48)
    first, second = schedule.config.phases
    assert (first.name, [source for source, _ in first.weights]) == ("skills", ["pairs"])
    assert (second.name, [source for source, _ in second.weights]) == ("conversation", ["judged", "pairs"])
    with pytest.raises(ScheduleError, match="'talk' is not in the shards"):
        plan(Shards(chat), replace(PLAIN, stages=(Stage("a", {"talk": 1}),)), ("preferences",), 48)


def test_a_row_of_preferences_holds_the_longest_of_them(chat: Path) -> None:
    shards = Shards(chat)
    longest = max(int(size) for size in _sizes(shards, "pairs"))
    for context, length in ((longest - 5, 3 * (longest - 5)), (100, 100)):  # never more than three sequences
        assert plan(shards, PLAIN, ("preferences",), context).config.phases[0].sequence_length == length
    with pytest.raises(UserError, match=f"of {longest} tokens is longer than the context of {longest - 1}"):
        plan(shards, replace(PLAIN, sequence_length=longest - 1), ("preferences",), 100)


def _sizes(shards: Shards, source: str) -> list[int]:
    sizes: list[int] = (shards.stream(source).bounds(0)[1:] - shards.stream(source).bounds(0)[:-1]).tolist()
    return sizes


def test_a_loop_takes_the_sources_of_its_kind(chat: Path) -> None:
    shards = Shards(chat)
    assert sources_of(shards, reads("sft", PLAIN)) == ["talk"]
    assert sources_of(shards, reads("dpo", PLAIN)) == sources_of(shards, reads("reward", PLAIN)) == ["pairs"]
    assert sources_of(shards, reads("dpo", replace(PLAIN, preference=Preference("kto")))) == ["judged", "pairs"]


@pytest.mark.parametrize("values", [{"batch": 0}, {"epochs": 0}, {"margins": (1.0,)}])
def test_numbers_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        replace(PLAIN, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase("a", 960, 96, 960, {"pairs": 1}), "phase 'a' cuts documents where a row ends"),
        (Phase("a", 960, 96, 960, {"pairs": 1, "talk": 1}, packing="best_fit"), "reads talk, which holds no preferences"),
    ],
)
def test_a_schedule_that_is_given_must_suit_the_loop(phase: Phase, message: str, chat: Path) -> None:
    shards = Shards(chat)
    config, tokens = ScheduleConfig((phase,)), shards.manifest.source_tokens()
    schedule = compile_schedule(config, tokens, shards.manifest.fingerprint, layout(shards, (phase,)))
    with pytest.raises(UserError, match=message):
        check_schedule(schedule, shards, ("preferences",))
    check_schedule(plan(shards, PLAIN, ("preferences",), 48), shards, ("preferences",))
