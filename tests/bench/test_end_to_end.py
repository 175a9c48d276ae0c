"""Planted duplicates from end to end: how outcomes are judged, what is measured, what it says of larger corpora."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import dedup, needs
from bench.common import EXAMPLES, Row, installed
from bench.end_to_end import Heap, Outcome, Quality, heap, measured, outcome_of_peer, quality
from bench.needs import Constants, constants
from bench.planted import Planted


def known(
    name: str, kind: str = "base", parent: str | None = None, jaccard: float | None = None, group: int = 0
) -> dict[str, Any]:
    return {"id": name, "kind": kind, "parent": parent, "jaccard": jaccard, "group": group}


TRUTH = [
    known("a"),
    known("a1", "exact", "a", 1.0),
    known("a2", "exact", "a", 1.0),
    known("a3", "near", "a", 0.85),
    known("b", group=1),
    known("b1", "far", "b", 0.6, 1),
    known("c", group=2),
]
CORPUS = Planted(EXAMPLES, 100)
RIGHT = {"a1": "a", "a2": "a", "a3": "a"}


@pytest.mark.parametrize(
    ("survivor", "figures"),
    [
        (RIGHT, Quality(3, 0, 0, 0, 0, 0)),
        ({}, Quality(0, 0, 1, 1, 0, 0)),
        ({"a3": "a", "a1": "a"}, Quality(2, 0, 1 / 3, 1 / 2, 0, 0)),  # a2 stays beside a
        (RIGHT | {"b1": "b"}, Quality(4, 1 / 4, 0, 0, 1, 0)),
        (RIGHT | {"b": "b1"}, Quality(4, 1 / 4, 0, 0, 1, 0)),  # either way
    ],
)
def test_an_outcome_is_held_against_the_truth(survivor: dict[str, str], figures: Quality) -> None:
    outcome = Outcome(frozenset({str(t["id"]) for t in TRUTH} - survivor.keys()), survivor)
    assert quality(CORPUS, TRUTH, outcome) == figures


def test_a_pair_that_was_not_planted_is_measured_by_its_texts() -> None:
    truth = [t for _, t in CORPUS.rows(range(100))]
    unique = sorted({t["id"] for t in truth} - {t["parent"] for t in truth} - {t["id"] for t in truth if t["parent"]})
    gone = {unique[0]: unique[1]}
    found = quality(CORPUS, truth, Outcome(frozenset({t["id"] for t in truth} - gone.keys()), gone))
    assert (found.wrong, found.unique_gone) == (1.0, pytest.approx(1 / len(unique)))


@pytest.mark.parametrize("kept", [{"a", "b"}, {"a", "a1", "a2", "a3", "b", "b1", "c"}])
def test_lost_or_doubled_documents_are_an_error(kept: set[str]) -> None:
    with pytest.raises(ValueError, match="do not add up"):
        quality(CORPUS, TRUTH, Outcome(frozenset(kept), {"a1": "a"}))


def test_the_peers_survivor_is_the_one_kept_of_the_cluster(tmp_path: Path) -> None:
    import zstandard

    for folder, rows in (("kept", [("a", 0), ("b", -1), ("c", None)]), ("removed", [("d", 0)])):
        lines = [{"id": i, "metadata": {} if n is None else {"minhash_cluster_id": n}} for i, n in rows]
        (tmp_path / folder).mkdir()
        packed = zstandard.compress("".join(json.dumps(x) + "\n" for x in lines).encode())
        (tmp_path / folder / "00000.jsonl.zst").write_bytes(packed)
    assert outcome_of_peer(tmp_path) == Outcome(frozenset("abc"), {"d": "a"})


def test_a_heap_is_read_from_the_log_of_collections(tmp_path: Path) -> None:
    log = tmp_path / "gc.log"
    log.write_text(
        "[0.003s][info][gc] Using G1\n"
        "[0.2s][info][gc] GC(0) Pause Young (Normal) (G1 Evacuation Pause) 210M->80M(382M) 32.5ms\n"
        "[0.6s][info][gc] GC(1) Pause Full (G1 Periodic Collection) 90M->45M(154M) 195.4ms\n"
        "[0.7s][info][gc] GC(2) Concurrent Mark Cycle 4.0ms\n"
    )
    assert heap(log) == Heap(before=210, after=80, live=45)
    log.write_text("[0.003s][info][gc] Using G1\n")
    assert heap(log) == Heap(0, 0, None)


def test_a_command_is_watched_with_its_children(tmp_path: Path) -> None:
    held = "x = bytearray(200 << 20); import time; time.sleep(3)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}])"
    (tmp_path / "file").write_bytes(bytes(999))
    found = measured([sys.executable, "-c", child], tmp_path.parent / "log", tmp_path)
    assert found.local == 999
    assert found.seconds > 2
    assert found.all >= found.worker > 0.19
    assert found.jvm == 0


def test_a_command_that_fails_tells_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3:\nno luck"):
        measured([sys.executable, "-c", "import sys; print('no luck'); sys.exit(3)"], tmp_path / "log")


def test_constants_are_those_of_the_event_log(tmp_path: Path) -> None:
    def task(stage: int, written: int, records: int, run: int) -> dict[str, Any]:
        shuffle = {"Shuffle Bytes Written": written, "Shuffle Records Written": records}
        metrics = {
            "Executor Run Time": run,
            "Disk Bytes Spilled": 50,
            "Peak Execution Memory": written,
            "Shuffle Write Metrics": shuffle,
        }
        return {"Event": "SparkListenerTaskEnd", "Stage ID": stage, "Task Metrics": metrics}

    failed = {"Event": "SparkListenerTaskEnd", "Stage ID": 4}
    events = [task(1, 300, 10, 1000), task(1, 100, 4, 500), task(2, 1000, 1, 500), task(3, 0, 0, 0), failed]
    path = tmp_path / "log"
    path.write_text("".join(json.dumps(e) + "\n" for e in (*events, {"Event": "SparkListenerApplicationEnd"})))
    found = constants(path, 10, texts=5000, local=2000, out=1000, worker=0.5)
    assert found == Constants(10, 0.2, ((100.0, 0.1), (40.0, 1.4)), 20.0, 500.0, 200.0, 100.0, 1000, 0.5)
    assert found.shuffle == 140


def test_needs_grow_in_proportion_but_a_task_does_not() -> None:
    of = Constants(1_000_000, 0.002, ((600.0, 14.0), (100.0, 1.0)), 0.0, 1200.0, 1000.0, 2000.0, 2**29, 0.25)
    found = needs.needs(of, 10_000_000_000)
    assert (found.core_hours, found.shuffle_tb, found.disk_tb) == pytest.approx((5555.6, 7.0, 30.0), rel=1e-4)
    assert found.task_gib == 0.75
    assert needs.needs(of, 10_000_000_000, growth=1.1).core_hours == pytest.approx(found.core_hours * 1.1**4)
    assert needs.needs(of, 1_000_000, growth=1.1).core_hours == pytest.approx(0.002 * 1e6 / 3600)
    text = needs.told(of, 1.1)
    assert "5,556 core hours (8,134 where each further tenfold" in text
    assert "600 in 14.00 records, 100 in 1.00 records" in text
    assert [r.ours for r in needs.rows(of)] == [found.core_hours, found.shuffle_tb, found.disk_tb, found.task_gib]


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_from_end_to_end(tmp_path: Path) -> None:
    command = [
        "--documents",
        "200",
        "--only",
        "planted",
        "--work",
        str(tmp_path / "work"),
        "--results",
        str(tmp_path / "results"),
    ]
    dedup.main(command)
    rows = {r["name"]: Row(**r) for r in json.loads((tmp_path / "results" / "dedup.json").read_text())}
    assert rows["end to end"].ours > 1
    row = rows["end to end"]
    assert (row.peer is None) is not installed("datatrove", "spacy", "orjson")  # without the extra `bench` the peer is left out
    assert row.ratio == (None if row.peer is None else pytest.approx(row.peer / row.ours))
    assert rows["planted, survivor under 0.7"].ours == 0
    assert rows["planted, exact copies left"].ours == 0
    assert rows["planted, documents without relatives that go"].ours == 0
    assert rows["planted, pairs at 0.8 of which both stay"].ours < 0.1
    assert rows["needs, core hours"].ours > 0
    run = json.loads((tmp_path / "results" / "dedup.run.json").read_text())
    assert "`needs`: 10,000,000,000 documents of this kind, carried on in proportion from 200" in run["compared"]
    assert run["command"].startswith("python -m bench.dedup --data examples --documents 200 --only planted")
