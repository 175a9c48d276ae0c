from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from bench import __main__ as everything
from bench.common import About, Row, cells, cpu_seconds, interleave, publish, row, sample, speed_rows
from bench.overlap import f1

KEYS = ["name", "unit", "ours", "peer", "peer_name", "ratio"]
ABOUT = About(title="Some things", compared="One thing is compared, another is not.", peers=("pyarrow", "no-such-package"))


@pytest.mark.parametrize(
    ("ours", "peer", "better", "ratio"),
    [
        (200.0, 100.0, "higher", 2.0),
        (100.0, 200.0, "higher", 0.5),
        (2.0, 8.0, "lower", 4.0),
        (8.0, 2.0, "lower", 0.25),
        (0.0, 5.0, "higher", 0.0),
        (5.0, 0.0, "higher", None),
        (0.0, 5.0, "lower", None),
        (5.0, 0.0, "lower", 0.0),
        (5.0, None, "higher", None),
        (5.0, None, "lower", None),
    ],
)
def test_a_ratio_above_one_means_that_ours_is_better(ours: float, peer: float | None, better: str, ratio: float | None) -> None:
    assert row("x", "u", ours, peer, "p", better).ratio == ratio  # type: ignore[arg-type]


def test_rows_have_exactly_the_keys_of_the_contract() -> None:
    assert [f.name for f in fields(Row)] == KEYS


def test_speed_is_amount_over_seconds_and_each_peer_has_a_row() -> None:
    rows = speed_rows("speed", "docs/s", 100, {"ours": 2.0, "slow": 10.0, "fast": 1.0}, "ours")
    assert [asdict(r) for r in rows] == [
        {"name": "speed", "unit": "docs/s", "ours": 50.0, "peer": 10.0, "peer_name": "slow", "ratio": 5.0},
        {"name": "speed", "unit": "docs/s", "ours": 50.0, "peer": 100.0, "peer_name": "fast", "ratio": 0.5},
    ]
    assert speed_rows("speed", "docs/s", 100, {"ours": 2.0}, "ours") == [Row("speed", "docs/s", 50.0, None, None, None)]


def test_contestants_take_turns_and_the_median_counts() -> None:
    order: list[str] = []

    def run(name: str) -> str:
        order.append(name)
        return f"{name} {len(order)}"

    seconds, results = interleave({"a": lambda: run("a"), "b": lambda: run("b")}, 3)
    assert order == ["a", "b"] * 3
    assert results == {"a": "a 5", "b": "b 6"}
    assert all(0 <= s < 5 for s in seconds.values())


def test_cpu_seconds_count_work_and_not_waiting() -> None:
    start = cpu_seconds()
    time.sleep(0.2)
    slept = cpu_seconds() - start
    sum(math.sqrt(i) for i in range(2_000_000))
    assert slept < 0.1 < cpu_seconds() - start


@pytest.mark.parametrize(
    ("count", "limit", "taken"), [(10, 5, [0, 2, 4, 6, 8]), (9, 5, [0, 2, 4, 6, 8]), (3, 5, [0, 1, 2]), (0, 5, []), (5, 1, [0])]
)
def test_a_sample_is_even_and_not_above_its_limit(count: int, limit: int, taken: list[int]) -> None:
    assert list(sample(range(count), limit)) == taken


@pytest.mark.parametrize(
    ("found", "known", "ngram", "value"),
    [
        ("a b c d", "a b c d", 1, 1.0),
        ("a  b\nc d", "a b c d", 4, 1.0),
        ("a b", "a b c d", 1, 2 * 2 / 6),
        ("a a", "a", 1, 2 * 1 / 3),
        ("\u4e2d\u6587", "\u4e2d \u6587", 1, 1.0),
        ("a", "b", 1, 0.0),
        ("", "", 1, 1.0),
        ("", "a", 4, 0.0),
        ("a b", "a b", 4, 1.0),
    ],
)
def test_f1_of_bags(found: str, known: str, ngram: int, value: float) -> None:
    assert f1(found, known, ngram) == pytest.approx(value)


def test_results_become_a_page(tmp_path: Path) -> None:
    results = tmp_path / "results"
    rows = [row("speed", "docs/s", 1234.5, 100.0, "peer 1.0"), row("alone", "share", 0.5, None, None)]
    of = {"cpu": "A CPU", "cores": 2, "memory_gib": 8.0, "load_before": 0.1, "python": "3.11.0", "system": "Linux x86_64"}
    publish("zeta", ABOUT, rows, of, "make bench-zeta DATA=../data", results, time.perf_counter())
    publish("dedup", ABOUT, rows[:1], of, "make bench-dedup", results, time.perf_counter())
    assert json.loads((results / "zeta.json").read_text()) == [asdict(r) for r in rows]
    assert everything.main(["--page-only", "--results", str(results)]) == 0
    text = (tmp_path / "RESULTS.md").read_text()
    assert text == everything.page(results)
    assert text.count("## Some things") == 2
    assert text.index("make bench-dedup") < text.index("make bench-zeta")
    assert "| speed | docs/s | 1,234 | 100 | peer 1.0 | 12.3 |" in text
    assert "| alone | share | 0.500 | - |  | - |" in text
    assert "2 cores of A CPU, 8.0 GiB" in text
    assert ABOUT.compared in text
    assert "no-such-package (not installed)" in text


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        everything.main(["speeed"])
    assert "no benchmark 'speeed'; there are read, filters, dedup" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.0123, "0.012"), (12.345, "12.3"), (1234.5, "1,234"), (0.5, "0.500"), (100.0, "100")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert cells(Row("n", "u", value, None, None, None))[2] == text
