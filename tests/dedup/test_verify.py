import pyarrow as pa
import pytest

from pipelines.dedup.pairs.verify import EVIDENCE, Rule, verify

# Jaccard of word 1-grams: a~b .75, b~c .75, a~c .56
CHAIN = {"a": "1 2 3 4 5 6 7", "b": "1 2 3 4 5 6 8", "c": "1 2 3 4 9 6 8"}


def pairs(rows, rule, batch_rows=100):
    """rows: (component, doc, text, neighbours), best first. -> {(doc, other): (similarity, whether it goes for that one)}."""
    ranks = {doc: i - 3 for i, (_, doc, *_) in enumerate(dict.fromkeys(rows))}  # any integers that grow
    neighbours = {n for *_, ns in rows for n in ns}
    table = pa.table(
        {
            "component": [ord(r[0]) for r in rows],
            "rank": pa.array([ranks[r[1]] for r in rows], pa.int64()),
            "doc_id": [r[1].encode() for r in rows],
            "text": [r[2] for r in rows],
            "neighbours": pa.array([[ranks[n] for n in r[3]] or None for r in rows], pa.list_(pa.int64())),
            "is_neighbour": [r[1] in neighbours for r in rows],
        }
    )
    result = list(verify(table.to_batches(max_chunksize=batch_rows), rule))
    assert all(b.schema == EVIDENCE for b in result)
    found = [row for b in result for row in b.to_pylist()]
    return {(r["doc_id"].decode(), r["other"].decode()): (pytest.approx(r["similarity"]), r["survivor"]) for r in found}


def decide(rows, rule, batch_rows=100):
    """{doc that goes: (survivor, similarity)}."""
    return {doc: (other, value) for (doc, other), (value, goes) in pairs(rows, rule, batch_rows).items() if goes}


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
@pytest.mark.parametrize("complete", [0, 64])
@pytest.mark.parametrize(
    ("rows", "threshold", "expected"),
    [
        # like enough: it goes, and names whom it is like
        ([("k", "a", CHAIN["a"], ""), ("k", "b", CHAIN["b"], "a")], 0.75, {"b": ("a", 0.75)}),
        # a candidate that is not like enough stays
        ([("k", "a", CHAIN["a"], ""), ("k", "b", CHAIN["b"], "a")], 0.76, {}),
        # a chain: c is like b, which goes as a's duplicate, but c is not like a, so c stays
        (
            [("k", "a", CHAIN["a"], ""), ("k", "b", CHAIN["b"], "a"), ("k", "c", CHAIN["c"], "b")],
            0.7,
            {"b": ("a", 0.75)},
        ),
        # c is like a though no band said so: b's survivor is tried
        (
            [("k", "a", CHAIN["a"], ""), ("k", "b", CHAIN["b"], "a"), ("k", "c", CHAIN["b"] + " 7", "b")],
            0.7,
            {"b": ("a", 0.75), "c": ("a", 7 / 8)},
        ),
        # of two that stay and are alike like it, the better one is named; the order of the neighbours does not count
        (
            [("k", "a", "1 2 3 4 5 6", ""), ("k", "b", "3 4 5 6 7 8", "a"), ("k", "c", "1 2 3 4 5 6 7 8", "ba")],
            0.7,
            {"c": ("a", 0.75)},
        ),
        # of two that are not, the one that is more like it
        (
            [("k", "a", "1 2 3 4 5 6", ""), ("k", "b", "2 3 4 5 6 7 8", "a"), ("k", "c", "1 2 3 4 5 6 7 8", "ab")],
            0.7,
            {"c": ("b", 7 / 8)},
        ),
        # components do not mix
        ([("k", "a", "1 2 3", ""), ("l", "b", "1 2 3", ""), ("l", "c", "1 2 3", "b")], 0.9, {"c": ("b", 1.0)}),
        # a row that comes twice is decided once
        (
            [("k", "a", "1 2", ""), ("k", "a", "1 2", ""), ("k", "b", "1 2", "a"), ("k", "b", "1 2", "a")],
            1.0,
            {"b": ("a", 1.0)},
        ),
    ],
)
def test_a_document_goes_only_for_one_that_stays(rows, threshold, expected, complete, batch_rows):
    assert decide(rows, Rule(threshold, 1, complete=complete), batch_rows) == expected


LINKED = [("k", "a", CHAIN["a"], ""), ("k", "b", "1 2 3 4 5", "a"), ("k", "c", CHAIN["b"], "b")]


def test_the_first_of_a_component_are_compared_each_with_each():
    # a~b 5/7, b~c 5/7, a~c .75, though a and c share no bucket and b stays
    assert decide(LINKED, Rule(0.75, 1, complete=3)) == {"c": ("a", 0.75)}
    assert decide(LINKED, Rule(0.75, 1, complete=2)) == {}


def test_every_pair_found_alike_is_evidence_and_one_of_them_names_the_survivor():
    rows = [("k", "a", CHAIN["a"], ""), ("k", "b", CHAIN["b"], "a"), ("k", "c", CHAIN["c"], "b")]
    assert pairs(rows, Rule(0.7, 1)) == {("b", "a"): (0.75, True), ("c", "b"): (0.75, False)}
    assert pairs(rows, Rule(0.5, 1)) == {("b", "a"): (0.75, True), ("c", "a"): (5 / 9, True), ("c", "b"): (0.75, False)}


@pytest.mark.parametrize("complete", [3, 64])
def test_complete_linkage_keeps_what_is_not_like_all_of_the_cluster(complete):
    # b and c are each like a, not like each other; d is like both of what stays and what went
    rows = [("k", "a", "1 2 3 4 5 6 7 8", ""), ("k", "b", "1 2 3 4 5 6 7", "a"), ("k", "c", "2 3 4 5 6 7 8", "ab"),
            ("k", "d", "1 2 3 4 5 6 7 8 9", "abc")]  # fmt: skip
    star = {"b": ("a", 7 / 8), "c": ("a", 7 / 8), "d": ("a", 8 / 9)}
    assert decide(rows, Rule(0.76, 1, complete=complete)) == star
    assert decide(rows, Rule(0.76, 1, linkage="complete", complete=complete)) == {"b": ("a", 7 / 8), "d": ("a", 8 / 9)}


def test_containment_is_of_the_smaller_text():
    rows = [("k", "a", "1 2 3 4 5 6 7 8 9", ""), ("k", "b", "2 3 4", "a")]
    assert decide(rows, Rule(0.8, 1, measure="containment")) == {"b": ("a", 1.0)}
    assert decide(rows, Rule(0.8, 1)) == {}


@pytest.mark.parametrize(
    ("text", "goes"),
    [
        ("1 2 3 4 5 6 7 8", True),  # all of it is in the survivor
        ("0 1 2 3 4 5 6 7 8 9", True),
        ("1 2 3 4 5 6 7 8 new", False),  # "7 8 new" is not
        ("1 2 3 4 5 6 8 7", False),
    ],
)
def test_covered_asks_for_each_run_of_three_units_in_the_survivor(text, goes):
    rows = [("k", "a", "0 1 2 3 4 5 6 7 8 9", ""), ("k", "b", text, "a")]
    assert bool(decide(rows, Rule(0.7, 1))) is True
    assert bool(decide(rows, Rule(0.7, 1, covered=True))) is goes
