import random

import pyarrow as pa
import pytest

from pipelines.dedup.pairs.buckets import PAIRS, bucket_pairs


def run(rows, hubs, batch_rows=100):
    table = pa.table({name: pa.array([r[i] for r in rows], pa.int64()) for i, name in enumerate(("key", "rank"))})
    result = list(bucket_pairs(table.to_batches(max_chunksize=batch_rows), hubs))
    assert all(batch.schema == PAIRS for batch in result)
    found = [row for batch in result for row in batch.to_pylist()]
    pairs = [(r["a"], r["b"]) for r in found if r["key"] is None]
    return pairs, [(r["key"], r["members"]) for r in found if r["key"] is not None]


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
@pytest.mark.parametrize(
    ("rows", "pairs", "hot"),
    [
        ([], [], []),
        ([(7, 1)], [], []),
        # complete up to hubs + 1 documents; the earlier one is the better one
        ([(7, 1), (7, 4), (7, 9)], [(4, 1), (9, 1), (9, 4)], []),
        # a greater bucket: later ones with the best two only, and it is told
        ([(7, 1), (7, 2), (7, 3), (7, 4)], [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2)], [(7, 4)]),
        # buckets do not mix, keys and ranks may be any integers
        ([(-(2**63), 5), (-1, 5), (-1, 2**62), (0, 3)], [(2**62, 5)], []),
        ([(0, 1), (0, 2), (0, 3), (0, 4), (1, 5)], [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2)], [(0, 4)]),
    ],
)
def test_documents_of_a_bucket_are_paired_with_the_best_before_them(rows, pairs, hot, batch_rows):
    assert run(rows, 2, batch_rows) == (pairs, hot)


def test_a_bucket_of_a_million_documents_makes_a_bounded_number_of_pairs_each():
    members = 1_000_000
    table = pa.table({"key": pa.array([3] * members, pa.int64()), "rank": pa.array(range(members), pa.int64())})
    rows, hot = 0, []
    for batch in bucket_pairs(table.to_batches(max_chunksize=50_000), 8):
        hot += [r.as_py() for r in batch.column("members").drop_null()]
        rows += batch.num_rows - len(batch.column("members").drop_null())
    assert rows == 8 * (members - 8) + 28
    assert hot == [members]


def test_the_same_as_by_hand_on_random_buckets():
    of = random.Random(5)
    rows = sorted({(of.randrange(40), of.randrange(1000)) for _ in range(600)})
    buckets = {}
    for key, rank in rows:
        buckets.setdefault(key, []).append(rank)
    expected = sorted((a, b) for ranks in buckets.values() for i, a in enumerate(ranks) for b in ranks[: min(i, 4)])
    pairs, hot = run(rows, 4, 37)
    assert sorted(pairs) == expected
    assert hot == [(key, len(ranks)) for key, ranks in buckets.items() if len(ranks) > 5]
