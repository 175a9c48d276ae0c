"""The balance: in = kept + dropped + quarantined for every stage and file, across steps too, or the run fails."""

from typing import Any

import pytest

from pipelines.ledger import LedgerError, check, entries, summary

FILES = {"a.warc": "web", "b.warc": "web"}


def row(file: str, rows: int, stage: str | None = None, rule: str | None = None, error: str | None = None) -> dict[str, Any]:
    outcome = "dropped" if rule else "quarantined" if error else "kept"
    counted = {"outcome": outcome, "stage": stage, "drop_rule": rule, "error_class": error, "rows": rows}
    return {"file": file, **counted}


COUNTS = [
    *(row("a.warc", 5), row("a.warc", 3, "read", "read.http_status"), row("a.warc", 2, "extract", error="CpuTimeExceeded")),
    row("b.warc", 1, "extract", "extract.no_text"),
]


def test_a_stage_gets_what_the_stage_before_let_through() -> None:
    made = {(e["stage"], e["file"]): (e["in"], e["kept"]) for e in entries(("read", "extract"), FILES, COUNTS)}
    assert made == {
        ("read", "a.warc"): (10, 7),
        ("extract", "a.warc"): (7, 5),
        ("read", "b.warc"): (1, 1),
        ("extract", "b.warc"): (1, 0),
    }


def test_a_file_without_a_row_is_in_the_ledger() -> None:
    assert [e["in"] for e in entries(("read",), {"empty.warc": "web"}, [])] == [0]


@pytest.mark.parametrize(("rows", "balances"), [(5, True), (4, False), (6, False)])
def test_rows_lost_or_doubled_between_steps_fail_the_run(rows: int, balances: bool) -> None:
    before = entries(("read", "extract"), FILES, COUNTS)
    after = entries(("dedup",), FILES, [row("a.warc", rows)])
    if balances:
        check(before, after, ("dedup",), "extract")
    else:
        with pytest.raises(LedgerError, match=rf"a.warc: stage 'extract' kept 5 rows and {rows} came out"):
            check(before, after, ("dedup",), "extract")


def test_rows_that_changed_their_file_fail_the_run() -> None:
    before = entries(("read",), FILES, [row("a.warc", 1), row("b.warc", 1)])
    after = entries(("dedup",), FILES, [row("a.warc", 2)])
    with pytest.raises(LedgerError):
        check(before, after, ("dedup",), "read")


def test_a_decision_of_an_unknown_stage_fails_the_run() -> None:
    with pytest.raises(LedgerError, match="does not have"):
        entries(("read",), FILES, [row("a.warc", 1, "ghost", "x.y")])


def test_rows_of_a_file_that_is_no_input_fail_the_run() -> None:
    with pytest.raises(LedgerError, match="no input of this run"):
        entries(("read",), FILES, [row("c.warc", 1)])


def test_the_summary_adds_up_files() -> None:
    made = summary(entries(("read", "extract"), FILES, COUNTS), {"extract": 1.5})
    assert made["balanced"] is True
    read, extract = made["stages"]
    assert (read["in"], read["kept"], read["dropped"]) == (11, 8, {"read.http_status": 3})
    assert (extract["in"], extract["kept"], extract["dropped"], extract["quarantined"]) == (
        *(8, 5),
        *({"extract.no_text": 1}, {"CpuTimeExceeded": 2}),
    )
    assert extract["seconds"] == 1.5
