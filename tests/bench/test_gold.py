"""What the gold figures mean, on five texts; and that those of the peers are what is known of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from bench import gold
from bench.gold import Found, Gold, all_pairs, closure, figures, read_gold, with_datasketch

# a, b and c drift (.85 a step, .7 from end to end), d is a copy of e
ALIKE = np.array(
    [
        [1.0, 0.85, 0.7, 0.0, 0.0],
        [0.85, 1.0, 0.85, 0.0, 0.0],
        [0.7, 0.85, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 1.0, 0.9],
        [0.0, 0.0, 0.0, 0.9, 1.0],
    ]
)
FIVE = Gold(tuple("abcde"), ("",) * 5, ALIKE)
ALL = frozenset({(0, 1), (1, 2), (3, 4)})


@pytest.mark.parametrize(
    ("found", "recall", "precision", "resolved", "cluster_precision", "cluster_recall", "under"),
    [
        (Found(ALL, {1: 0, 4: 3}), 1, 1, 1, 1, 2 / 3, 0),  # c stays: it is like b only, which is gone
        (Found(ALL, {1: 0, 2: 0, 4: 3}), 1, 1, 1, 3 / 4, 1, 0),  # a chain: a and c are .7 alike
        (Found(frozenset({(0, 1), (0, 3)}), {1: 0, 3: 0}), 1 / 3, 1 / 2, 1, 1 / 3, 1 / 3, 1 / 2),  # d went for a
        (Found(frozenset(), {}), 0, 0, 0, 0, 0, 0),
    ],
)
def test_figures(found: Found, recall: float, precision: float, resolved: float, cluster_precision: float,
                 cluster_recall: float, under: float) -> None:  # fmt: skip
    assert figures(FIVE, found) == pytest.approx(
        {
            "pair recall": recall,
            "pair precision": precision,
            "pairs resolved": resolved,
            "cluster precision": cluster_precision,
            "cluster recall": cluster_recall,
            "survivor under": under,
            "removed": len(found.survivor),
        }
    )


def test_who_does_not_tell_pairs_has_no_figures_of_them() -> None:
    assert not {"pair recall", "pair precision"} & set(figures(FIVE, Found(None, {1: 0})))


def test_a_survivor_that_went_itself_is_an_error() -> None:
    with pytest.raises(ValueError, match="b, which did not stay"):
        figures(FIVE, Found(ALL, {1: 0, 2: 1}))


@pytest.mark.parametrize(
    ("pairs", "survivors"),
    [([(0, 1), (1, 2), (3, 4)], {1: 0, 2: 0, 4: 3}), ([], {}), ([(1, 4), (2, 4)], {2: 1, 4: 1})],
)
def test_a_chain_of_pairs_is_one_cluster_of_which_the_first_stays(
    pairs: list[tuple[int, int]], survivors: dict[int, int]
) -> None:
    assert closure(5, pairs) == survivors


def test_similarities_are_exact() -> None:
    found = all_pairs(["a b c d e f", "a b c d e g", "A, b; c d e f!", "", "x"])
    assert found[0].tolist() == [1.0, 1 / 3, 1.0, 0.0, 0.0]
    assert found[3].tolist() == [0.0] * 5


def gold_folder(folder: Path, jaccard: float) -> Path:
    texts = [{"id": i, "lang": "en", "text": t} for i, t in (("p", "a b c d e f"), ("q", "a b c d e g"))]
    pairs = [{"a": "p", "b": "q", "jaccard": jaccard}]
    for name, lines in (("neardup", texts), ("neardup_pairs", pairs)):
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(x) + "\n" for x in lines).encode()))
    return folder


def test_a_gold_file_of_another_similarity_is_refused(tmp_path: Path) -> None:
    assert read_gold(gold_folder(tmp_path, 0.3333), "en").jaccard[0, 1] == 1 / 3
    with pytest.raises(ValueError, match=r"p and q are 0\.3333 alike, but 0\.5"):
        read_gold(gold_folder(tmp_path, 0.5), "en")


def test_datasketch_finds_what_shares_a_band() -> None:
    words = [f"w{i}" for i in range(300)]
    texts = (" ".join(words), " ".join(words[:299]), " ".join(reversed(words)), " ".join(words[1:]))
    found = with_datasketch(Gold(tuple("pqrs"), texts, all_pairs(texts)))
    assert found == Found(frozenset({(0, 1), (0, 3), (1, 3)}), {1: 0, 3: 0})


@pytest.mark.spark
def test_our_stage_over_three_texts() -> None:
    from pipelines.spark import session

    words = [f"w{i}" for i in range(300)]
    texts = (" ".join(words), " ".join(words[:280]), " ".join(reversed(words)))
    spark = session("local[1]", app="test-gold")
    found = gold.ours(spark, Gold(tuple("pqr"), texts, all_pairs(texts)))
    assert found == Found(frozenset({(0, 1)}), {1: 0})
