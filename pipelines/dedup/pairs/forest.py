"""A graph in the memory of one task, shrunk to a forest of stars: union-find over edges as they come.

What has the same components as many edges and is never more of them: one edge (node, least node of its component) a node.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.kernel import kernel

EDGES = 2 << 20  # that a task holds at a time: about 200 MB with the table of their nodes
BATCH = 1 << 16  # rows of a batch that goes back to Spark

Ids = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]  # of nodes in an array of them


def stars(batches: Iterator[pa.RecordBatch], most: int = EDGES) -> Iterator[pa.RecordBatch]:
    """Edges `a`, `b` (int64, never null) to edges of the same components, a row a node that is not the least of its own.

    A node with loops only comes as a loop. A stream of more than about `most` edges comes in several forests, whose nodes
    overlap. Raises ValueError for a null, RuntimeError where the forest is not that of the edges.
    """
    held: list[tuple[Ids, Ids]] = []
    count = 0
    for batch in batches:
        held.append(_ends(batch))
        count += batch.num_rows
        if count >= most:
            a, b = _forest(held)
            held, count = [(a, b)], len(a)
            if count > most // 2:  # little is gained by going on
                yield from _slices(a, b, ["a", "b"])
                held, count = [], 0
    if count:
        yield from _slices(*_forest(held), ["a", "b"])


def labels(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Edges `a`, `b` (int64, never null) to `node`, `component`: every node once, with the least node of its component.

    Everything is held in memory. Raises ValueError for a null, RuntimeError where the labels are not those of the edges.
    """
    if held := [_ends(batch) for batch in batches]:
        yield from _slices(*components(*_joined(held)), ["node", "component"])


def components(a: Ids, b: Ids) -> tuple[Ids, Ids]:
    """The nodes of edges, each once, and beside each the least node of its component; int64 of any value.

    What comes back is held against the edges. Raises RuntimeError where it does not pass.
    """
    nodes, roots = _solved(a, b)
    return nodes, nodes[roots]


def _solved(a: Ids, b: Ids) -> tuple[Ids, Places]:
    """The nodes, and beside each the place of the least of its component among them."""
    nodes, first, second, parents = _united(a, b)
    roots = _roots(parents)
    ordered = np.sort(nodes)
    right = (
        np.array_equal(nodes[first], a)
        and np.array_equal(nodes[second], b)  # every node has a label,
        and bool((ordered[1:] > ordered[:-1]).all())  # and only one;
        and np.array_equal(roots[first], roots[second])  # no edge connects two;
        and np.array_equal(roots[roots], roots)  # a label is in its own component,
        and bool((nodes[roots] <= nodes).all())  # and no greater than any of it
    )
    if not right:
        raise RuntimeError(f"the labels of {len(a)} edges are not their components; this is a defect, please report it")
    return nodes, roots


def _ends(batch: pa.RecordBatch) -> tuple[Ids, Ids]:
    columns = batch.column("a"), batch.column("b")
    if any(c.null_count for c in columns):
        raise ValueError("an edge has a null for a node")
    a, b = (c.to_numpy() for c in columns)
    return a, b


def _joined(held: list[tuple[Ids, Ids]]) -> tuple[Ids, Ids]:
    return np.concatenate([a for a, _ in held]), np.concatenate([b for _, b in held])


def _forest(held: list[tuple[Ids, Ids]]) -> tuple[Ids, Ids]:
    nodes, roots = _solved(*_joined(held))
    told = roots != np.arange(len(roots))
    alone = np.ones(len(roots), np.bool_)
    alone[roots[told]] = False  # it has others in its component
    told |= alone
    return nodes[told], nodes[roots[told]]


def _slices(first: Ids, second: Ids, names: list[str]) -> Iterator[pa.RecordBatch]:
    whole = pa.RecordBatch.from_arrays([pa.array(first), pa.array(second)], names)
    for start in range(0, len(first), BATCH):
        yield whole.slice(start, BATCH)


@kernel
def _united(a: Ids, b: Ids) -> tuple[Ids, Places, Places, Places]:
    """Nodes in the order in which they come; of each edge, the places of its ends among them; the parent's place of each."""
    bits = 4
    while 1 << bits < 4 * len(a):  # at most half full, for an edge brings two nodes
        bits += 1
    slots, shift = 1 << bits, np.uint64(64 - bits)
    table = np.full(slots, -1, np.int32)
    nodes = np.empty(2 * len(a), np.int64)
    parents = np.empty(2 * len(a), np.int32)
    first, second = np.empty(len(a), np.int32), np.empty(len(a), np.int32)
    count = 0
    for i in range(len(a)):
        for side in range(2):
            node = a[i] if side == 0 else b[i]
            mixed = np.uint64(node) ^ (np.uint64(node) >> np.uint64(32))
            slot = np.int64((mixed * np.uint64(0x9E3779B97F4A7C15)) >> shift)
            while table[slot] >= 0 and nodes[table[slot]] != node:
                slot = (slot + 1) & (slots - 1)
            if table[slot] < 0:
                table[slot] = count
                nodes[count] = node
                parents[count] = count
                count += 1
            if side == 0:
                first[i] = table[slot]
            else:
                second[i] = table[slot]
        x, y = first[i], second[i]
        while parents[x] != x:  # every second link on the way is shortened
            parents[x] = parents[parents[x]]
            x = parents[x]
        while parents[y] != y:
            parents[y] = parents[parents[y]]
            y = parents[y]
        if nodes[x] < nodes[y]:
            parents[y] = x
        else:
            parents[x] = y
    return nodes[:count].copy(), first, second, parents[:count].copy()


@kernel
def _roots(parents: Places) -> Places:
    roots = np.empty(len(parents), np.int32)
    for i in range(len(parents)):
        x = i
        while parents[x] != x:
            parents[x] = parents[parents[x]]
            x = parents[x]
        roots[i] = x
    return roots
