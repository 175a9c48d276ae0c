"""The proof of the quality model: halves of equal size, reference text that nobody has seen, and an interval that is right."""

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.common import EXAMPLES
from bench.prove_quality import half, interval, recipe, reference, rows_of, small
from classifiers.labelled import site_share
from classifiers.model import load


@pytest.mark.parametrize(
    ("order", "chosen"),
    [((0, 1, 2, 3), [0, 1, 2]), ((3, 2, 1, 0), [3, 2]), ((2, 0, 1, 3), [2, 0, 1])],
    ids=["first", "last", "mixed"],
)
def test_a_half_has_half_of_the_tokens(order: tuple[int, ...], chosen: list[int]) -> None:
    lengths = [10, 20, 10, 30]
    assert half(order, lengths) == chosen
    assert 0 <= sum(lengths[i] for i in chosen) - sum(lengths) // 2 < max(lengths)


def test_reference_text_is_new_to_the_quality_model() -> None:
    split = load("quality").facts["split"]
    books = {row["text"]: row["id"].split("/")[0] for row in pq.read_table(EXAMPLES / "books.parquet").to_pylist()}
    authors = {books[text] for text in reference(EXAMPLES)["books"]}
    assert len(authors) >= 2
    assert all(site_share(author.lower(), split["seed"]) < split["test"] for author in authors)


def test_pages_go_whole_through_the_recipe_web(tmp_path: Path) -> None:
    made = recipe(EXAMPLES, tmp_path)
    assert [i.source for i in made.inputs] == ["web"]
    extract = next(stage for stage in made.stages if stage.name == "extract")
    assert (extract.cfg.engine, extract.cfg.favour) == ("resiliparse", "recall")
    assert "quality" in [stage.name for stage in made.stages]
    assert made.tokenizer.vocab_size == small().model.vocab_size


def test_the_interval_is_students() -> None:
    low, high = interval([0.1, 0.2, 0.3])
    assert low == pytest.approx(0.2 - 4.3027 * 0.1 / math.sqrt(3), abs=1e-4)
    assert high == pytest.approx(0.2 + 4.3027 * 0.1 / math.sqrt(3), abs=1e-4)
    assert all(map(math.isnan, interval([0.1])))


def test_a_lower_loss_is_better() -> None:
    found = {"kept": [{"books": 4.0}, {"books": 4.2}], "chance": [{"books": 4.2}, {"books": 4.6}]}
    loss, difference = rows_of(found)
    assert (loss.ours, loss.peer) == (pytest.approx(4.1), pytest.approx(4.4))
    assert loss.ratio is not None
    assert loss.ratio > 1
    assert difference.ours == pytest.approx(0.3)
    assert "2 seeds" in difference.unit
