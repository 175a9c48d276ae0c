"""Pairs of a bucket's documents, at most a bounded number for each (pure: no Spark).

Rows come as (key, rank), sorted: a bucket is a run of equal keys, its best document first. In buckets of up to `hubs` + 1
documents all are paired; in greater ones each later document with the best `hubs` only, and the bucket is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.kernel import kernel

Longs = npt.NDArray[np.int64]

# A pair: `b` is before `a` in the survivor order. A hot bucket: its key and how many documents it holds; a and b are null.
PAIRS = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("key", pa.int64()), ("members", pa.int64())])


def bucket_pairs(batches: Iterable[pa.RecordBatch], hubs: int) -> Iterator[pa.RecordBatch]:
    """The pairs of all buckets and, once each, the buckets of more than `hubs` + 1 documents (schema PAIRS).

    Columns: `key`, `rank` (int64, no nulls), sorted by both; a bucket may lie across batches, not across calls.
    """
    state = np.zeros(2, np.int64)  # the bucket's key, and its documents so far
    best = np.empty(hubs, np.int64)
    for batch in batches:
        key, rank = (batch.column(name).to_numpy() for name in ("key", "rank"))
        yield _rows(*_pair(key, rank, best, state))
    if state[1] > hubs + 1:
        yield _rows(best[:0], best[:0], state[:1], state[1:])


def _rows(a: Longs, b: Longs, key: Longs, members: Longs) -> pa.RecordBatch:
    pairs, hot = pa.nulls(len(a), pa.int64()), pa.nulls(len(key), pa.int64())
    columns = [(a, hot), (b, hot), (pairs, key), (pairs, members)]
    return pa.RecordBatch.from_arrays([pa.concat_arrays([pa.array(x), pa.array(y)]) for x, y in columns], schema=PAIRS)


@kernel
def _pair(key: Longs, rank: Longs, best: Longs, state: Longs) -> tuple[Longs, Longs, Longs, Longs]:
    hubs = len(best)
    a, b = np.empty(len(key) * hubs, np.int64), np.empty(len(key) * hubs, np.int64)
    hot_key, hot_members = np.empty(len(key), np.int64), np.empty(len(key), np.int64)
    pairs = hot = 0
    for i in range(len(key)):
        if state[1] == 0 or key[i] != state[0]:
            if state[1] > hubs + 1:
                hot_key[hot], hot_members[hot] = state[0], state[1]
                hot += 1
            state[0], state[1] = key[i], 0
        before = min(state[1], hubs)
        for j in range(before):
            a[pairs], b[pairs] = rank[i], best[j]
            pairs += 1
        if state[1] < hubs:
            best[state[1]] = rank[i]
        state[1] += 1
    return a[:pairs], b[:pairs], hot_key[:hot], hot_members[:hot]
