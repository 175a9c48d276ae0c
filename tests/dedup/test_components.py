import random
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as by_scipy

from pipelines.dedup.components import NotConverged, connected_components

pytestmark = pytest.mark.spark


@contextmanager
def settings(spark, **values):
    names = {k: "spark.sql." + k.replace("__", ".") for k in values}
    before = {k: spark.conf.get(n) for k, n in names.items()}
    try:
        for k, v in values.items():
            spark.conf.set(names[k], v)
        yield
    finally:
        for k, v in before.items():
            spark.conf.set(names[k], v)


def renamed(edges, seed):
    """The graph with its nodes renamed at random: the order of the names tells nothing about the shape."""
    nodes = sorted({n for e in edges for n in e})
    name = dict(zip(nodes, random.Random(seed).sample(range(10 * len(nodes)), len(nodes)), strict=True))
    return [(name[a], name[b]) for a, b in edges]


def chain(length):
    return [(i, i + 1) for i in range(length)]


def random_graph(nodes, edges, seed):
    source = random.Random(seed)
    return [(source.randrange(nodes), source.randrange(nodes)) for _ in range(edges)]


GRAPHS = {
    "loop alone": [(5, 5)],
    "one edge, both ways, twice": [(1, 2), (2, 1), (1, 2)],
    "chain in order": chain(100),
    "chain, renamed": renamed(chain(2000), 1),
    "star": [(0, i) for i in range(1, 500)],
    "star with the greatest in the middle": [(1000, i) for i in range(500)],
    "cliques": [(10 * c + i, 10 * c + j) for c in range(20) for i in range(8) for j in range(i)],
    "ring of stars": chain(50) + [(50, 0)] + [(i, 100 * (i + 1) + k) for i in range(50) for k in range(9)],
    "sparse": random_graph(2000, 900, 3),
    "critical": random_graph(2000, 1000, 4),
    "dense": random_graph(300, 3000, 5),
}


def expected(edges):
    if not edges:
        return {}
    nodes, index = np.unique(np.array(edges), return_inverse=True)
    a, b = index.reshape(-1, 2).T
    _, label = by_scipy(coo_array((np.ones(len(a)), (a, b)), shape=(len(nodes), len(nodes))), directed=False)
    least = np.full(label.max() + 1, nodes.max() + 1)
    np.minimum.at(least, label, nodes)
    return dict(zip(nodes.tolist(), least[label].tolist(), strict=True))


def side_by_side(graphs):
    """One graph of many, none of which touches another: one run is a test of each."""
    edges = []
    for graph in graphs:
        start = 1 + max((max(e) for e in edges), default=-1)
        edges += [(a + start, b + start) for a, b in graph]
    return edges


def edge_table(spark, edges, kind=None):
    return spark.createDataFrame(
        pa.table({"a": pa.array([a for a, _ in edges], kind), "b": pa.array([b for _, b in edges], kind)})
    )


def components(spark, edges, partitions=2, cache=False, **kwargs):
    frame = edge_table(spark, edges).repartition(partitions)
    frame = frame.cache() if cache else frame
    rows = connected_components(frame, **kwargs).collect()
    frame.unpersist()
    assert len(rows) == len({r.node for r in rows})
    return {r.node: r.component for r in rows}


def test_components_are_those_of_scipy(spark):
    edges = side_by_side(GRAPHS.values())
    assert components(spark, edges) == expected(edges)


@pytest.mark.parametrize(("adaptive", "shuffle", "partitions", "cache"), [("true", "1", 1, False), ("false", "5", 7, True)])
def test_any_plan_gives_the_same(spark, adaptive, shuffle, partitions, cache):
    edges = side_by_side([GRAPHS["cliques"], random_graph(200, 90, 6)])
    with settings(spark, adaptive__enabled=adaptive, shuffle__partitions=shuffle):
        assert components(spark, edges, partitions, cache) == expected(edges)


def test_no_edges(spark):
    assert components(spark, []) == {}


def test_nodes_of_16_bytes(spark):
    edges = [(bytes([a]) * 16, bytes([b]) * 16) for a, b in [(200, 7), (7, 90), (255, 128)]]
    rows = connected_components(edge_table(spark, edges, pa.binary())).collect()
    assert {r.node[0]: r.component[0] for r in rows} == {200: 7, 7: 7, 90: 7, 255: 128, 128: 128}


def test_too_few_rounds_are_an_error_that_says_so(spark):
    with pytest.raises(NotConverged, match="not converged after 2 rounds"):
        components(spark, GRAPHS["chain, renamed"], max_rounds=2)


def test_labels_that_tear_an_edge_are_refused(spark):
    from pipelines.dedup.components import _prove

    labels = edge_table(spark, [(1, 1), (2, 1), (3, 3)]).toDF("node", "component")
    with pytest.raises(NotConverged, match="1 edges connect two components"):
        _prove(edge_table(spark, [(1, 2), (2, 3)]), labels)
