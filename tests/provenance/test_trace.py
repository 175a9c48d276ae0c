"""From a row, a step, a URL or a doc_id to everything known of the document; from provenance, or from the run's tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.__main__ import main
from pipelines.errors import UserError
from pipelines.provenance import places, trace
from pipelines.provenance.places import find, provenance, wanted
from pipelines.rundir import RunDir, open_run
from pipelines.schedule import read_schedule
from pipelines.shards import Shards

MakePages = Callable[..., Any]
Pages = Any  # of conftest.py: out, shards, rows, url(number)


def printed_by(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["trace", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_rows_of_provenance_are_read_by_their_row_groups(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = Shards(pages.shards)
    file = "web/train-00000.arrow"
    told = pq.read_table(pages.shards / "web/train-00000.provenance.parquet").to_pylist()
    groups: list[int] = []

    class Watched(pq.ParquetFile):  # type: ignore[misc]
        def read_row_group(self, group: int, *more: Any) -> Any:
            groups.append(group)
            return super().read_row_group(group, *more)

    monkeypatch.setattr(places.pq, "ParquetFile", Watched)
    assert provenance(shards, file, [40, 3, 33, 3]) == [told[40], told[3], told[33], told[3]]
    assert groups == [0, 2]  # of 16 rows each


def test_every_row_is_the_page_that_it_was_made_of(pages: Pages) -> None:
    shards, (rundir, plan) = Shards(pages.shards), open_run(pages.out)
    by_id = {row["doc_id"]: row for row in pages.rows}
    for file in shards.manifest.files:
        found = [trace.place_of_row(shards, file.path, row) for row in range(file.rows)]
        for place, page in zip(found, trace.pages(rundir, plan, shards, found), strict=True):
            assert page == {k: v for k, v in by_id[place.doc_id].items() if k not in ("number", "source")}


def test_a_step_is_the_pages_of_its_samples(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    shards, schedule = Shards(pages.shards), read_schedule(pages.out / "schedule.json")
    spans = trace.spans_of_step(shards, schedule, 5, 1000)
    plan = schedule.step_plan(5)
    assert sum(span.length for span in spans) == plan.samples * plan.sequence_length
    printed = printed_by(capsys, pages.out, "--step", 5, "--limit", 2)
    assert all(span.doc_id.hex()[:8] in printed for span in spans[:2])


@pytest.mark.parametrize("by", ["--url", "--doc-id", "--shard"])
def test_all_that_is_known_of_a_document(pages: Pages, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    (place,) = find(Shards(pages.shards), wanted([pages.url(1)]))
    words = {"--url": [pages.url(1)], "--doc-id": [place.doc_id.hex()], "--shard": [place.file, "--row", str(place.row)]}[by]
    lines = printed_by(capsys, pages.out, by, *words).splitlines()
    steps = trace.step_finder(Shards(pages.shards), read_schedule(pages.out / "schedule.json"))(place)
    end = place.start + place.length
    assert [line.strip() for line in lines[:10]] == [
        f"doc_id          {place.doc_id.hex()}",
        f"url             {pages.url(1)}",
        "from            web.jsonl at byte 100, record r1",
        "date, language  unknown, en",
        f"shard           {place.file} row {place.row}: {place.length} tokens, {place.start} to {end} of source web",
        f"steps           {', '.join(map(str, steps))}",
        "stages          read > decide",
        "duplicates      2 documents removed for it; cluster of 2",
        f"{(b'c' * 16).hex()}  exact_duplicates.x 2  https://copy.example/1",
        f"{(b'n' * 16).hex()}  near_duplicates.x 2  https://twin.example/1",
    ]
    assert [line.split() for line in lines[10:] if line.strip(" \u2500")] == [
        ["rule", "passed", "measured", "bound"],
        ["web_page.min_words", "1", "0"],
        ["also", "measured", "cluster_size", "2"],
    ]


def test_rules_passed_are_those_of_the_plan_for_the_source(pages: Pages) -> None:
    _, plan = open_run(pages.out)
    page = {"file": "web.jsonl", "lang": "en", "words": 6.0}
    assert trace.passed(plan, page) == [trace.Judged("web_page.min_words", "words", 6.0, 0.0)]
    assert trace.passed(plan, page | {"file": "code.jsonl"}) == []
    assert [name for name, _ in trace.stages_of(plan, page | {"file": "code.jsonl"})] == ["read"]


def test_a_document_that_was_taken_down_says_so(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["takedown", str(pages.out), "--url", pages.url(1)]) == 0
    capsys.readouterr()
    assert "(taken down: readers see eos in its place)" in printed_by(capsys, pages.out, "--url", pages.url(1))


def test_what_a_page_says_is_no_command_to_the_terminal(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    removed = pages.out / "removed/part-0.parquet"
    table = pq.read_table(removed).to_pylist()
    table[0]["url"] = "https://copy.example/\x1b[2J"
    pq.write_table(pq.read_table(removed).from_pylist(table, pq.read_schema(removed)), removed)
    assert "\x1b" not in printed_by(capsys, pages.out, "--url", pages.url(1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "trace takes one of --step N, --shard FILE --row N, --url URL, --doc-id HEX"),
        (["--step", "1", "--url", "https://a.example"], "trace takes one of"),
        (["--shard", "web/train-00000.arrow"], "trace takes one of"),
        (["--shard", "web/train-00009.arrow", "--row", "0"], "there is no shard 'web/train-00009.arrow'"),
        (["--shard", "web/train-00000.arrow", "--row", "9999"], "web/train-00000.arrow has rows 0 to "),
        (["--step", "9999"], "the schedule has steps 0 to 35, not 9999"),
        (["--url", "https://other.example/"], "the shards hold no such document; `python -m pipelines inspect"),
    ],
)
def test_what_cannot_be_traced(pages: Pages, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", str(pages.out), *words]) == 1
    assert message in capsys.readouterr().err


def test_without_provenance_the_last_table_tells(
    make_pages: MakePages, make_run: Callable[..., RunDir], tmp_path: Path
) -> None:
    """The shards of a run of an older version: the pages of the table, by their doc_id."""
    made = make_pages(tmp_path / "made", provenance=False)
    run = make_run(tmp_path / "run")
    plan = open_run(run.path)[1]
    (made.out / "shards").rename(run.shards)
    (made.out / "schedule.json").rename(run.schedule)
    shards = Shards(run.shards)
    with pytest.raises(UserError, match="is in no table of this run; was OUT changed by hand"):
        trace.pages(run, plan, shards, [trace.place_of_row(shards, "web/train-00000.arrow", 0)])
    folder = run.path / plan["steps"][-1]["directory"] / "outcome=kept"
    table = pq.read_table(next(folder.glob("*.parquet")), partitioning=None)
    for path in folder.glob("*.parquet"):
        path.unlink()
    schema = table.schema
    rows = [{name: row.get(name) for name in schema.names} | {"text": "x"} for row in made.rows]
    pq.write_table(table.from_pylist(rows, schema), folder / "part-0.parquet")
    (place,) = find(shards, wanted([made.url(2)]))
    assert place.url == made.url(2)
    (page,) = trace.pages(run, plan, shards, [place])
    assert (page["url"], page["offset"], page["record_id"]) == (made.url(2), 200, "r2")
