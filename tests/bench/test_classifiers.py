"""The benchmark of the classifiers, small: what is shipped reaches what is promised of it."""

import pytest

from bench.classifiers import cards, held_out, human, speed
from bench.common import EXAMPLES
from classifiers.evaluation import evaluate
from classifiers.model import load


def test_quality_on_topics_and_genres_that_it_has_not_learned_from() -> None:
    model = load("quality")
    data = held_out(model)
    found = evaluate(model, data)
    assert found.sites >= 8
    assert found.auc.value > 0.95
    assert found.auc.low > 0.9


def test_the_cards_say_what_was_measured() -> None:
    rows = {row.name: row.ours for row in cards()}
    assert set(rows) >= {f"AUC, held-out sites, {name} (card)" for name in ("quality", "domain", "code", "math", "toxic")}
    assert min(rows.values()) >= 0.95


def test_without_judgements_there_is_no_row_of_them() -> None:
    assert human(EXAMPLES) == []


def test_speed_is_measured_on_one_model_and_the_same_probabilities() -> None:
    rows = {row.name: row for row in speed(["A page of a few words.\nAnd one line more."] * 4, 1)}
    assert rows["speed, fasttext format"].peer is not None
    assert rows["same probabilities, fasttext format"].ours < 1e-6
    assert rows["speed, quality"].ours > 0


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("def f(x):\n    return [x ** 2 for x in range(10)]\n\nclass A:\n    def g(self):\n        self.y = 1\n" * 3, "code"),
        ("Tom has 12 apples and gives 5 of them to Ann. How many are left?\n12 - 5 = 7 are left.\nAnswer: 7\n" * 3, "math"),
        ("Add to cart. Free shipping on all orders over $50! Sign up for our newsletter. Save 20% today. " * 4, "other"),
        ("The king ruled for twenty years. During his reign the walls of the city were built, and trade with the islands "
         "increased because the tax on salt had been lifted. Historians have described it as a time of peace.", "general"),
        ("Der K\u00f6nig herrschte zwanzig Jahre lang. In dieser Zeit wurden die Mauern der Stadt gebaut, und der Handel mit "
         "den Inseln nahm zu, weil die Steuer auf Salz aufgehoben worden war.", "multilingual"),
    ],
)  # fmt: skip
def test_classes_of_knowledge(text: str, domain: str) -> None:
    model = load("domain")
    assert model.labels_of(model.scores([text])) == [domain]
