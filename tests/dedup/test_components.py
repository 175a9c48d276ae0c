"""Components are those of scipy: in one task, in rounds, and in rounds that one task ends; for any plan and partitioning."""

from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as by_scipy

from pipelines.dedup.pairs import components as module
from pipelines.dedup.pairs import forest
from pipelines.dedup.pairs.components import NotConverged, connected_components

spark_test = pytest.mark.spark
LEAST, GREATEST = -(2**63), 2**63 - 1


def edges_of(*pairs):
    return np.array(pairs, np.int64).reshape(-1, 2)


def path(nodes):
    return np.stack([np.arange(nodes - 1), np.arange(1, nodes)], axis=1)


def star(nodes, centre=0):
    return np.stack([np.full(nodes, centre), np.arange(nodes)], axis=1)[np.arange(nodes) != centre]


def cliques(count, size):
    a, b = np.triu_indices(size, 1)
    return np.stack([(size * np.arange(count)[:, None] + ends).ravel() for ends in (a, b)], axis=1)


def caterpillar(body, legs):
    spine = path(body)
    feet = np.arange(body, body * (1 + legs))
    return np.concatenate([spine, np.stack([np.arange(body).repeat(legs), feet], axis=1)])


def random_graph(nodes, edges, seed):
    return np.random.default_rng(seed).integers(0, nodes, (edges, 2))


def renamed(edges, seed=1):
    """The graph with its nodes renamed at random, to any int64, and its edges shuffled: names tell nothing about the shape."""
    random = np.random.default_rng(seed)
    nodes, places = np.unique(edges, return_inverse=True)
    names = np.unique(random.integers(LEAST, GREATEST, nodes.size, endpoint=True))
    assert names.size == nodes.size
    return random.permutation(random.permutation(names)[places].reshape(-1, 2))


SMALL = {
    "loop alone": edges_of((5, 5)),
    "one edge, both ways, twice, and loops on it": edges_of((1, 2), (2, 1), (1, 2), (2, 2), (1, 1)),
    "the least and the greatest number": edges_of((GREATEST, LEAST), (0, GREATEST)),
    "around zero": edges_of((-1, 0), (0, 1), (-3, -2)),
    "path in order": path(100),
    "path against its order": path(100)[::-1, ::-1],
    "path": renamed(path(2000)),
    "ring": renamed(np.concatenate([path(500), edges_of((499, 0))])),
    "star": star(500),
    "star with the greatest in the middle": star(500, 499),
    "cliques": renamed(cliques(20, 8)),
    "caterpillar": renamed(caterpillar(50, 9)),
    "sparse": random_graph(2000, 900, 3),
    "critical": random_graph(2000, 1000, 4),
    "dense": random_graph(300, 3000, 5),
    "all in both directions": np.concatenate([path(300), path(300)[:, ::-1]]),
}
BIG = {
    "path of 100,000": path(100_000),
    "star of 1,000,000": star(1_000_000),
    "10,000 cliques": cliques(10_000, 8),
    "caterpillar of 100,000": caterpillar(20_000, 4),
    "sparse": random_graph(100_000, 30_000, 6),
    "critical": random_graph(100_000, 50_000, 7),
    "dense": random_graph(50_000, 200_000, 8),
}


def expected(edges):
    """Node to least node, ordered by node, as scipy has it."""
    nodes, places = np.unique(edges, return_inverse=True)
    a, b = places.reshape(-1, 2).T
    count, label = by_scipy(coo_array((np.ones(len(a)), (a, b)), shape=(len(nodes), len(nodes))), directed=False)
    least = np.full(count, GREATEST)
    np.minimum.at(least, label, nodes)
    return np.stack([nodes, least[label]], axis=1)


def side_by_side(graphs):
    """One graph of many, none of which touches another: one run is a test of each."""
    start, parts = 0, []
    for graph in graphs:
        _, places = np.unique(graph, return_inverse=True)
        parts.append(start + places.reshape(-1, 2))
        start += places.max() + 1
    return renamed(np.concatenate(parts))


def arrow(edges):
    return pa.table({"a": pa.array(edges[:, 0], pa.int64()), "b": pa.array(edges[:, 1], pa.int64())})


@pytest.fixture
def components(spark, tmp_path):
    """A function: edges to node and component, ordered by node; by way of files, as in a run."""

    def find(edges, partitions=3, cache=False, **kwargs):
        pq.write_table(arrow(edges), tmp_path / "edges.parquet")
        frame = spark.read.parquet(f"{tmp_path}/edges.parquet").repartition(partitions)
        frame = frame.cache() if cache else frame
        connected_components(frame, **kwargs).write.parquet(f"{tmp_path}/labels")
        frame.unpersist()
        table = pq.read_table(tmp_path / "labels")
        assert table.schema.names == ["node", "component"]
        rows = np.stack([c.to_numpy() for c in table.columns], axis=1)
        return rows[np.argsort(rows[:, 0])]

    return find


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


@pytest.fixture(params=["one task", "rounds", "rounds, then one task"])
def way(request, monkeypatch):
    if request.param != "one task":
        monkeypatch.setattr(module, "ONE_TASK", 0 if request.param == "rounds" else 9000)
        monkeypatch.setattr(forest, "EDGES", 500)  # a partition has several forests
    return request.param


# --- one task's part ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_labels_of_a_graph_are_those_of_scipy(name):
    nodes, least = forest.components(*np.ascontiguousarray(SMALL[name].T))
    rows = np.stack([nodes, least], axis=1)
    assert rows[np.argsort(nodes)].tolist() == expected(SMALL[name]).tolist()


@pytest.mark.parametrize("most", [1, 2, 100, 10**9])
@pytest.mark.parametrize("name", SMALL)
def test_forests_have_the_components_of_the_graph_and_no_more_edges(name, most):
    graph = SMALL[name]
    stars = pa.Table.from_batches(forest.stars(iter(arrow(graph).to_batches(max_chunksize=7)), most))
    hung = np.stack([c.to_numpy() for c in stars.columns], axis=1)
    assert (hung[:, 0] >= hung[:, 1]).all()
    assert expected(hung).tolist() == expected(graph).tolist()
    if most > len(graph):
        nodes = expected(graph)
        alone = sum(node == least and (nodes[:, 1] == node).sum() == 1 for node, least in nodes)
        assert len(hung) == (nodes[:, 0] != nodes[:, 1]).sum() + alone


def test_nothing_gives_nothing():
    assert list(forest.stars(iter([]))) == list(forest.labels(iter([]))) == []


def test_a_null_is_an_error():
    edges = pa.table({"a": pa.array([1, None]), "b": pa.array([1, 2])})
    with pytest.raises(ValueError, match="null"):
        list(forest.stars(iter(edges.to_batches())))


def test_labels_that_are_not_those_of_the_edges_are_refused(monkeypatch):
    def torn(a, b, united=forest._united):
        nodes, first, second, parents = united(a, b)
        return nodes, first, second, np.arange(len(parents), dtype=np.int32)

    monkeypatch.setattr(forest, "_united", torn)
    with pytest.raises(RuntimeError, match="2 edges are not their components"):
        forest.components(np.array([1, 2]), np.array([2, 3]))


# --- the whole ----------------------------------------------------------------------------------------------------------


@spark_test
def test_components_are_those_of_scipy(components, way):
    graph = side_by_side(SMALL.values())
    assert np.array_equal(components(graph), expected(graph))


@spark_test
@pytest.mark.parametrize("adaptive", ["true", "false"])
def test_big_graphs(spark, components, adaptive):
    graph = side_by_side(BIG.values())
    with settings(spark, adaptive__enabled=adaptive):
        assert np.array_equal(components(graph), expected(graph))


@spark_test
@pytest.mark.parametrize("adaptive", ["true", "false"])
def test_rounds_on_a_long_path_and_a_star(spark, components, adaptive, monkeypatch):
    monkeypatch.setattr(module, "ONE_TASK", 0)
    graph = side_by_side([path(10_000), star(50_000), cliques(1000, 6), random_graph(10_000, 5000, 9)])
    with settings(spark, adaptive__enabled=adaptive):
        assert np.array_equal(components(graph), expected(graph))


@spark_test
@pytest.mark.parametrize(("adaptive", "shuffle", "partitions", "cache"), [("true", "1", 1, False), ("false", "5", 7, True)])
def test_any_plan_gives_the_same(spark, components, way, adaptive, shuffle, partitions, cache):
    graph = side_by_side([SMALL["cliques"], SMALL["loop alone"], random_graph(200, 90, 6)])
    with settings(spark, adaptive__enabled=adaptive, shuffle__partitions=shuffle):
        assert np.array_equal(components(graph, partitions, cache), expected(graph))


@spark_test
def test_many_partitions_with_next_to_nothing(components):
    graph = side_by_side([SMALL["cliques"], SMALL["loop alone"], random_graph(200, 90, 6)])
    assert np.array_equal(components(graph, partitions=200), expected(graph))


@spark_test
@pytest.mark.parametrize("graph", [edges_of(), edges_of((7, 7), (7, 7), (8, 8))])
def test_no_edges_and_loops_alone(components, way, graph):
    assert np.array_equal(components(graph), expected(graph))


@spark_test
def test_edges_are_read_once(spark):
    read = spark.sparkContext.accumulator(0)

    def count(batches):
        for batch in batches:
            read.add(batch.num_rows)
            yield batch

    frame = spark.createDataFrame(arrow(path(1000))).mapInArrow(count, "a long, b long")
    connected_components(frame).count()
    assert read.value == 999


@spark_test
def test_too_few_rounds_are_an_error_that_says_so(components, monkeypatch):
    monkeypatch.setattr(module, "ONE_TASK", 0)
    with pytest.raises(NotConverged, match=r"not converged after 1 rounds \(1999 edges left\)"):
        components(SMALL["path"], max_rounds=1)


@spark_test
@pytest.mark.parametrize(
    ("labels", "torn"),
    [([(1, 1), (2, 1), (3, 3)], 1), ([(1, 1), (2, 1)], 1), ([(1, 7), (2, 7), (3, 7)], 3), ([(1, 1), (2, 1), (3, 1)], 0)],
)
def test_labels_that_tear_an_edge_or_are_not_their_own_are_refused(spark, labels, torn):
    edges = spark.createDataFrame(arrow(edges_of((1, 2), (2, 3))))
    labels = spark.createDataFrame(arrow(edges_of(*labels))).toDF("node", "component")
    if not torn:
        module._prove(edges, labels)
        return
    with pytest.raises(NotConverged, match=f"{torn} edges connect two components"):
        module._prove(edges, labels)
