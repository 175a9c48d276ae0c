import pyarrow as pa
import pytest

from pipelines.dedup.verify import EVIDENCE, verify

# Jaccard of word 1-grams: a~b .75, b~c .75, a~c .5
CHAIN = {"a": "1 2 3 4 5 6 7", "b": "1 2 3 4 5 6 8", "c": "1 2 3 4 9 6 8"}


def decide(rows, threshold, batch_rows=100):
    """rows: (component, doc, text, neighbours). -> {doc: (survivor, jaccard)}."""
    neighbours = {n for *_, ns in rows for n in ns}
    table = pa.table(
        {
            "component": [r[0].encode() for r in rows],
            "doc_id": [r[1].encode() for r in rows],
            "text": [r[2] for r in rows],
            "neighbours": pa.array([[n.encode() for n in r[3]] for r in rows], pa.list_(pa.binary())),
            "is_neighbour": [r[1] in neighbours for r in rows],
        }
    )
    result = list(verify(table.to_batches(max_chunksize=batch_rows), threshold, ngram=1))
    assert all(b.schema == EVIDENCE for b in result)
    found = [row for b in result for row in b.to_pylist()]
    return {r["doc_id"].decode(): (r["survivor"].decode(), pytest.approx(r["jaccard"])) for r in found}


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
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
        # of two that stay and are like it, the better one is named; the order in which neighbours are listed does not count
        (
            [("k", "a", "1 2 3 4 5 6", ""), ("k", "b", "3 4 5 6 7 8", "a"), ("k", "c", "1 2 3 4 5 6 7 8", "ba")],
            0.7,
            {"c": ("a", 0.75)},
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
def test_a_document_goes_only_for_one_that_stays(rows, threshold, expected, batch_rows):
    assert decide(rows, threshold, batch_rows) == expected
