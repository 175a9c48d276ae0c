"""The decontamination benchmark on made documents."""

import gzip
import json
from pathlib import Path

import pytest

from bench import decontaminate

QUESTION = "How many turns does the wheel make while the water rises from the lower level of the channel to the upper one?"


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))


def test_it_runs_against_the_peer_and_counts_what_is_known(tmp_path: Path) -> None:
    write(tmp_path / "bench" / "items.jsonl.gz", [{"bench": "mill", "id": 1, "question": QUESTION}])
    texts = [(QUESTION.upper(), True), ("The wheel turns.", False), (QUESTION[:50], None)]
    rows = [{"id": str(i), "text": f"Text. {text}", "contaminated": truth} for i, (text, truth) in enumerate(texts)]
    write(tmp_path / "bench" / "contamination.jsonl.gz", rows)
    found = {row.name: row for row in decontaminate.run(tmp_path, repeat=1)}
    assert [found[name].ours for name in ("precision", "recall", "F1")] == [1.0, 1.0, 1.0]
    assert found["precision"].unit == "2 documents"
    assert found["speed"].ours > 0
    assert decontaminate.run(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        ([True, False], [True, False], (1.0, 1.0, 1.0)),
        ([True, True, False, True], [True, False, True, None], (0.5, 0.5, 0.5)),
        ([False], [True], (0.0, 0.0, 0.0)),
    ],
)
def test_scores(found: list[bool], truth: list[bool | None], expected: tuple[float, float, float]) -> None:
    assert decontaminate.scores(found, truth) == expected
