"""Models in a recipe: scores as columns, bounds as decisions, labels as routes, and a fingerprint that follows the model."""

import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import classifiers
from classifiers.model import shipped
from pipelines.errors import UserError
from pipelines.filter.model import ModelConfig, PerplexityConfig, model_columns, score_perplexity, score_text
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.recipe import Input, Recipe, Stage, steps, with_settings
from pipelines.route import LabelRouteConfig, ValueRouteConfig, route_by_label, route_by_value
from pipelines.schedule import copies
from pipelines.schema import RECORD, record_batch

GOOD = (
    "The moons of Jupiter were first described in 1610, when an instrument of twenty magnifications made them visible. Their "
    "positions change from night to night, and the observer concluded that they move around the planet. The discovery mattered "
    "because it showed that not every body in the sky revolves around the Earth. Later measurements of their eclipses gave the "
    "first estimate of the speed of light, which had been thought to be infinite."
)
SHOP = (
    "Buy cheap sneakers online! Free shipping. Add to cart $39.99 SALE 50% OFF. Sign up for our newsletter. Click here to "
    "order now. Home | Shop | Contact | Login\nSize 8 9 10 11. In stock. Related products: boots $49.99. Best price ever!!!"
)
CODE = "def area(r):\n    return 3.14 * r ** 2\n\nfor i in range(10):\n    print(area(i))\n\nimport sys\nsys.exit(0)\n" * 3
ZH = (
    "\u7ec6\u80de\u819c\u662f\u5305\u56f4\u7ec6\u80de\u7684\u4e00\u5c42\u8584\u819c\uff0c\u6c27\u6c14\u53ef\u4ee5\u7a7f\u8fc7\u3002"
    * 3
)
TEXTS = [GOOD, SHOP, CODE, ZH, "", None]
LANGS = ["en", "en", "und", "zh", "und", None]


def docs(large: bool = False) -> pa.RecordBatch:
    batch = record_batch({"text": TEXTS, "lang": LANGS, "source": ["web"] * len(TEXTS)}, RECORD)
    kind = pa.large_string() if large else pa.string()
    return batch.set_column(batch.schema.get_field_index("text"), "text", batch["text"].cast(kind))


@pytest.mark.parametrize("large", [False, True])
def test_a_score_is_a_column_and_drops_nothing(large: bool) -> None:
    cfg = ModelConfig("quality")
    got = score_text(docs(large), cfg)
    assert got.schema.field("quality") == model_columns(cfg).field("quality")
    good, shop, *_ = scores = got["quality"].to_pylist()
    assert good > 0.5 > shop
    assert scores[4:] == [None, None]
    assert "drop_rule" not in got.schema.names


@pytest.mark.parametrize(
    ("bounds", "rules"),
    [
        ({"least": 0.5}, [None, "quality.least"]),
        ({"most": 0.5}, ["quality.most", None]),
        ({"least": 0.0, "most": 1.0}, [None, None]),
    ],
)
def test_a_bound_is_a_decision_with_value_and_bound(bounds: dict[str, float], rules: list[str | None]) -> None:
    got = score_text(docs(), ModelConfig("quality", **bounds))
    decided = got.to_pylist()
    assert [row.get("drop_rule") for row in decided[:2]] == rules
    for row in decided:
        if row.get("drop_rule"):
            assert row["drop_value"] == row["quality"]
            assert row["drop_bound"] == bounds[row["drop_rule"].partition(".")[2]]
    assert [row.get("drop_rule") for row in decided[4:]] == [None, None], "what has no score breaks no bound"


def test_labels_route_and_scores_weigh_and_order() -> None:
    cfg = ModelConfig("domain", label_column="domain_label")
    got = score_text(score_text(docs(), cfg), ModelConfig("quality"))
    assert got["domain_label"].to_pylist() == ["general", "other", "code", "multilingual", "und", "und"]
    by_label = route_by_label(got, LabelRouteConfig("domain_label", ("general", "code"), other=""))
    assert by_label["source"].to_pylist() == ["web-general", "web", "web-code", "web", "web", "web"]
    weighed = route_by_value(got, ValueRouteConfig("quality", (("x2", 0.5),)))
    assert [copies(name) for name in weighed["source"].to_pylist()][:2] == [2, 1], "the schedule reads the better ones twice"


def test_a_label_and_a_column_by_name() -> None:
    got = score_text(docs(), ModelConfig("domain", label="code", column="is_code"))
    assert pc.index(got["is_code"], pc.max(got["is_code"])).as_py() == TEXTS.index(CODE)


def test_perplexity_by_language() -> None:
    got = score_perplexity(docs(), PerplexityConfig())
    assert [value is not None for value in got["perplexity"].to_pylist()] == [True, True, False, True, False, False]
    assert got["perplexity"][0].as_py() < got["perplexity"][1].as_py()
    assert set(got["perplexity_bucket"].to_pylist()) <= {"head", "middle", "tail", None}
    kept = score_perplexity(docs(), PerplexityConfig(keep=("head", "middle"))).to_pylist()
    assert kept[1]["drop_rule"] == "perplexity.tail"
    assert kept[1]["drop_value"] == kept[1]["perplexity"] > kept[1]["drop_bound"]
    assert [row["drop_rule"] for row in kept[2:]] == [None] * 4


def _copy(folder: Path) -> Path:
    shutil.copytree(Path(classifiers.__file__).parent / "models" / "quality", folder)
    return folder


def test_another_model_is_another_stage(tmp_path: Path) -> None:
    def fingerprint(cfg: ModelConfig) -> str:
        inputs = (Input("web", "x", read_jsonl, JsonlConfig()),)
        return steps(Recipe("r", inputs, (Stage(score_text, cfg),)), [])[0].fingerprint

    mine = _copy(tmp_path / "quality")
    before = ModelConfig(str(mine))
    assert before.fingerprint == ModelConfig("quality").fingerprint
    header = json.loads((mine / "model.json").read_text())
    (mine / "model.json").write_text(json.dumps(header | {"note": "another"}))
    other = _copy(tmp_path / "other")
    (other / "model.json").write_text(json.dumps(header | {"note": "another"}))
    assert fingerprint(ModelConfig(str(other), column="q")) != fingerprint(replace(before, model="quality", column="q"))


def test_a_worker_with_another_model_says_so(tmp_path: Path) -> None:
    cfg = ModelConfig(str(_copy(tmp_path / "quality")))
    sent = pickle.loads(pickle.dumps(cfg))
    assert sent == cfg
    object.__setattr__(sent, "fingerprint", "0" * 64)
    with pytest.raises(UserError, match=r"is [0-9a-f]{12} here and was 000000000000 where the run began"):
        score_text(docs(), sent)


@pytest.mark.spark
def test_workers_score_as_the_driver_does(spark: Any) -> None:
    cfg = ModelConfig("quality")

    def scored(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield score_text(batch, cfg).select(["text", "quality"])

    frame = spark.createDataFrame([(text,) for text in TEXTS], "text string").repartition(3)
    found = {row.text: row.quality for row in frame.mapInArrow(scored, "text string, quality double").collect()}
    assert found == dict(zip(TEXTS, score_text(docs(), cfg)["quality"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig("qualty"), "there is no model 'qualty'.*quality"),
        (lambda: ModelConfig("quality", label="best"), "no label 'best'; it has raw, reference"),
        (lambda: ModelConfig("perplexity-en"), "of kind 'perplexity'"),
        (lambda: PerplexityConfig(models=(("en", "quality"),)), "of kind 'hashed'"),
        (lambda: PerplexityConfig(keep=("best",)), "keep has 'best'; buckets are head, middle, tail"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_where_the_recipe_is_made(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]


def test_settings_by_the_command_line() -> None:
    recipe = Recipe(
        "r", (Input("web", "x", read_jsonl, JsonlConfig()),), (Stage(score_text, ModelConfig("quality"), name="q"),)
    )
    cfg = with_settings(recipe, ["q.least=0.1", "q.model=toxic"]).stages[0].cfg
    assert (cfg.least, cfg.name, cfg.fingerprint) == (0.1, "toxic", ModelConfig("toxic").fingerprint)


def test_what_is_shipped_scores_and_is_small() -> None:
    folder = Path(classifiers.__file__).parent / "models"
    assert set(shipped()) >= {"quality", "domain", "code", "math", "toxic", "perplexity-en", "perplexity-zh"}
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 5_000_000
    for name in shipped():
        assert "## Made by" in (folder / name / "card.md").read_text(encoding="utf-8")
