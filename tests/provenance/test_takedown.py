"""A takedown finds what is meant, says which steps see it, and either has happened or has not."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import pipelines.provenance.takedown
import pipelines.shards.manifest
import pipelines.shards.tombstones
from pipelines.__main__ import main
from pipelines.errors import UserError
from pipelines.provenance.places import canonical, find, wanted
from pipelines.provenance.takedown import apply_recorded, takedown
from pipelines.provenance.trace import step_finder
from pipelines.rundir import RunDir
from pipelines.schedule import read_schedule
from pipelines.shards import ShardError, Shards, read_manifest, write_manifest, write_shard
from pipelines.shards.verify import verify

MakePages = Callable[..., Any]
Pages = Any  # of conftest.py: out, shards, rows, url(number)


def numbers(pages: Pages, *urls: str, domains: tuple[str, ...] = (), ids: tuple[str, ...] = ()) -> list[int]:
    """The pages that are found."""
    by_id = {row["doc_id"]: row["number"] for row in pages.rows}
    return sorted(by_id[place.doc_id] for place in find(Shards(pages.shards), wanted(urls, domains, ids)))


# --- what is meant --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://www.mirror.example/page/2",
        "http://mirror.example:80/page/2/",
        "HTTPS://Mirror.Example/page/2#top",
        "mirror.example/page/2?",
        "  https://user@www.mirror.example:443/%70age/2",
    ],
)
def test_a_url_is_meant_in_any_of_its_forms(pages: Pages, url: str) -> None:
    assert canonical(url) == "mirror.example/page/2"
    assert numbers(pages, url) == [2]


def test_a_url_means_no_other_page(pages: Pages) -> None:
    assert (
        numbers(pages, "https://mirror.example/page/", "https://mirror.example/page/20", "https://mirror.example/PAGE/2") == []
    )


@pytest.mark.parametrize(
    ("asked", "there", "meant"),
    [
        ("https://a.example/p", "a.example/p", True),
        ("a.example/p q", "http://A.example/p q", True),
        ("https://a.example/%C3%BC", "//a.example/\u00fc", True),
        ("https://a.example:8080/p", "https://www.a.example:8080/p", True),
        ("https://a.example:8080/p", "https://a.example/p", False),
        ("https://a.example", "https://a.example/?", True),
        ("http://1.2.3.4/p", "https://1.2.3.4/p/", True),
        ("http://[::1]/p", "http://[::1]:80/p", True),
        ("https://a.example/p", None, False),
        ("https://a.example/p", "", False),
        ("a.example", "http:\\\\user:word@b.A.example\\p", True),
        ("a.example", "http://a%2Eexample./", True),
        ("a.example", "http://a.example:81?x", True),
        ("a.example", "http://a.example.evil.example/", False),
        ("a.example", "http://evil.example/?u=http://a.example/", False),
        ("a.example", "http://a.example@evil.example/", False),
        ("a.example", "http://nota.example/", False),
        ("a.example", None, False),
    ],
)
def test_addresses_as_inputs_have_them(asked: str, there: str | None, meant: bool) -> None:
    what = wanted([asked]) if "/" in asked else wanted(domains=[asked])
    ids = pa.array([b"i" * 16] * 3, pa.binary())
    urls = pa.array(["https://other.example/p", there, None])
    assert what.mask(ids, urls).tolist() == [False, meant, False]
    if meant:
        assert what.reason(b"i" * 16, there) in what.all_reasons()


OF_HOST = {host: [n for n in range(160) if n % 4 and n % 5 == host] for host in range(5)}


@pytest.mark.parametrize(
    ("domain", "hosts"),
    [
        ("site.example", (0, 1)),  # and what is below it, not notsite.example
        ("blog.site.example", (1,)),
        ("MIRROR.example.", (2,)),
        ("https://notsite.example/any", (3,)),
        ("*.b\u00fccher.example", (4,)),
        ("xn--bcher-kva.example", (4,)),
        ("unknown.example", ()),
    ],
)
def test_a_domain_is_meant_with_all_below_it(pages: Pages, domain: str, hosts: tuple[int, ...]) -> None:
    assert numbers(pages, domains=(domain,)) == sorted(itertools.chain(*(OF_HOST[host] for host in hosts)))


def test_a_doc_id_of_any_source_and_split(pages: Pages) -> None:
    assert numbers(pages, ids=tuple(row["doc_id"].hex() for row in pages.rows)) == list(range(160))
    assert {place.split for place in find(Shards(pages.shards), wanted(domains=["site.example"]))} == {"train", "validation"}


def test_a_list_of_all_three(pages: Pages, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"# by mail\n\nblog.site.example\n{pages.rows[8]['doc_id'].hex()}\nhttps://mirror.example/page/2\n")
    found = find(Shards(pages.shards), wanted(listed=listed))
    by_id = {row["doc_id"]: row["number"] for row in pages.rows}
    assert sorted(by_id[place.doc_id] for place in found) == sorted([*OF_HOST[1], 8, 2])
    reasons = {"domain blog.site.example", f"doc_id {pages.rows[8]['doc_id'].hex()}", "url https://mirror.example/page/2"}
    assert {place.reason for place in found} == reasons


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"urls": ["https://"]}, "'https://' is not a URL"),
        ({"urls": [""]}, "'' is not a URL"),
        ({"urls": ["file:8080/etc"]}, "'file:8080/etc' is not a URL"),
        ({"domains": ["localhost"]}, "'localhost' is not a domain"),
        ({"domains": ["co.uk"]}, "'co.uk' is a public suffix, below which anybody registers"),
        ({"domains": ["com"]}, "'com' is not a domain"),
        ({"doc_ids": ["beef"]}, "'beef' is not a doc_id of 32 hex digits"),
        ({"listed": Path("/no/such/file")}, "list '/no/such/file' cannot be read"),
    ],
)
def test_what_cannot_be_meant(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        wanted(**asked)


def test_places_are_those_of_the_streams(pages: Pages) -> None:
    shards = Shards(pages.shards)
    for place in find(shards, wanted(domains=["site.example"])):
        stream = shards.stream(place.source, place.split)
        assert stream.locate(place.doc_id) == (place.start, place.length)
        (span,) = stream.documents(place.start, 1)
        assert (span.file, span.row) == (place.file, place.row)


def test_provenance_of_other_rows_is_refused(pages: Pages) -> None:
    files = read_manifest(pages.shards).files
    first, second = (pages.shards / file.provenance_path for file in files if file.source == "web" and file.split == "train")
    first.write_bytes(second.read_bytes())
    with pytest.raises(ShardError, match="tells of another document"):
        numbers(pages, domains=("site.example",))


def test_without_provenance_and_tables_only_doc_ids_are_known(make_pages: MakePages, tmp_path: Path) -> None:
    pages = make_pages(tmp_path, provenance=False)
    assert numbers(pages, ids=(pages.rows[5]["doc_id"].hex(),)) == [5]
    with pytest.raises(UserError, match="nobody knows its URLs; give doc_ids"):
        numbers(pages, domains=("site.example",))


def test_a_document_that_nobody_made_unique_goes_with_its_copies(pages: Pages) -> None:
    """A row of a shard is written three times, as a recipe without deduplication would."""
    manifest = read_manifest(pages.shards)
    file = next(f for f in manifest.files if f.path == "code/train-00001.arrow")
    with pa.memory_map(str(pages.shards / file.path)) as mapped:
        rows = pa.ipc.open_file(mapped).read_all().to_pylist()
    rows[3:3] = [rows[3]] * 2
    made = write_shard(pages.shards, "code", "train", 1, [r["doc_id"] for r in rows], [r["tokens"] for r in rows], "uint16")
    write_manifest(pages.shards, replace(manifest, files=tuple(made if f is file else f for f in manifest.files)))
    found = find(Shards(pages.shards), wanted(doc_ids=[rows[3]["doc_id"].hex()]))
    assert [place.row for place in found] == [3, 4, 5]
    assert np.diff([place.start for place in found]).tolist() == [found[0].length] * 2


# --- what it does ---------------------------------------------------------------------------------------------------------


def test_steps_are_those_whose_samples_hold_the_document(pages: Pages) -> None:
    shards, schedule = Shards(pages.shards), read_schedule(pages.out / "schedule.json")
    steps = step_finder(shards, schedule)
    for place in find(shards, wanted(domains=["blog.site.example"], doc_ids=[pages.rows[4]["doc_id"].hex()])):
        seen = []
        for step in range(schedule.total_steps):
            plan = schedule.step_plan(step)
            for index in range(plan.first_sample, plan.first_sample + plan.samples):
                sample = schedule.sample(plan.phase, index)
                if place.split == "train" and sample.source == place.source:
                    spans = shards.stream(sample.source).documents(sample.start, sample.length + 1)
                    seen += [step] if place.doc_id in {span.doc_id for span in spans} else []
        assert steps(place) == sorted(set(seen))


def test_it_is_in_force_and_the_schedule_says_the_same_of_the_new_shards(pages: Pages) -> None:
    path, before = pages.out / "schedule.json", read_manifest(pages.shards)
    old = json.loads(path.read_text())
    done = takedown(pages.shards, wanted(domains=["site.example"]), path)
    assert len(done.new) == len(OF_HOST[0]) + len(OF_HOST[1])
    after = verify(pages.shards)
    assert after == done.manifest
    assert after.lineage == (before.fingerprint, after.fingerprint)
    assert json.loads(path.read_text()) == old | {"shards_fingerprint": after.fingerprint}
    shards = Shards(pages.shards)
    for place in done.new:
        tokens = shards.stream(place.source, place.split).slice(place.start, place.length)
        assert set(tokens.tolist()) == {after.eos_id}


def test_the_same_again_changes_nothing(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["takedown", str(pages.out), "--domain", "site.example"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"taken down   {len(OF_HOST[0]) + len(OF_HOST[1])} documents in 3 shards" in printed
    files = {path: path.read_bytes() for path in pages.out.rglob("*") if path.is_file()}
    assert main(words) == 0
    assert "nothing to do  all 48 documents found were taken down before" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in pages.out.rglob("*") if path.is_file()} == files


def test_a_second_takedown_adds_to_the_first(pages: Pages) -> None:
    path = pages.out / "schedule.json"
    takedown(pages.shards, wanted(domains=["blog.site.example"]), path)
    done = takedown(pages.shards, wanted(domains=["site.example"]), path)
    assert (len(done.new), len(done.before)) == (len(OF_HOST[0]), len(OF_HOST[1]))
    assert [t.rows for t in verify(pages.shards).takedowns] == [len(OF_HOST[1]), len(OF_HOST[0]) + len(OF_HOST[1])]


def test_a_dry_run_writes_nothing(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    files = {path: path.read_bytes() for path in pages.out.rglob("*") if path.is_file()}
    assert main(["takedown", str(pages.out), "--url", pages.url(2), "--dry-run"]) == 0
    assert "would be taken down  1 document in 1 shard" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in pages.out.rglob("*") if path.is_file()} == files


def test_what_was_asked_for_goes_from_shards_written_later_too(pages: Pages, make_pages: MakePages, tmp_path: Path) -> None:
    takedown(pages.shards, wanted([pages.url(2)], ["notsite.example"]), None)
    takedown(pages.shards, wanted([], [], [pages.rows[4]["doc_id"].hex()]), None)
    later = make_pages(tmp_path / "later").shards
    assert apply_recorded(pages.out, later) == 2 + len(OF_HOST[3])
    assert verify(later).takedowns[-1].rows == verify(pages.shards).takedowns[-1].rows
    asked = wanted([pages.url(2)], ["notsite.example"], [pages.rows[4]["doc_id"].hex()])
    for place in find(Shards(later), asked):
        assert not Shards(later).stream(place.source, place.split).slice(place.start, place.length).any()  # all eos
    assert apply_recorded(tmp_path, later) == 0  # nothing recorded there


def test_a_record_that_was_edited_is_one_clear_line(pages: Pages) -> None:
    (pages.out / "takedowns.json").write_text("{}")
    with pytest.raises(UserError, match=r"takedowns\.json does not hold urls, domains and doc_ids"):
        takedown(pages.shards, wanted([pages.url(2)]), None)
    assert not read_manifest(pages.shards).takedowns


@pytest.mark.parametrize("killed_at", range(4))
def test_killed_at_any_point_it_has_happened_or_not_and_the_same_command_ends_it(
    pages: Pages, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """Before the tombstones, before the manifest, before the schedule, and before a file's rename."""
    path, before = pages.out / "schedule.json", read_manifest(pages.shards)
    asked = wanted(domains=["site.example"])
    with monkeypatch.context() as patch:
        if killed_at == 3:
            patch.setattr(Path, "replace", kill)
        else:
            where = [(pipelines.shards.tombstones, "write_atomic"), (pipelines.shards.tombstones, "write_manifest")]
            patch.setattr(*[*where, (pipelines.provenance.takedown, "write_schedule")][killed_at], kill)
        with pytest.raises(KeyboardInterrupt):
            takedown(pages.shards, asked, path)
    now = read_manifest(pages.shards)
    assert len(now.takedowns) == (killed_at == 2)
    read_schedule(path, *now.lineage)  # it fits in either state
    place = find(Shards(pages.shards), asked)[0]
    tokens = Shards(pages.shards).stream(place.source, place.split).slice(place.start, place.length)
    assert (set(tokens.tolist()) == {now.eos_id}) == bool(now.takedowns)
    takedown(pages.shards, asked, path)
    after = verify(pages.shards)
    assert after.lineage == (before.fingerprint, after.fingerprint)
    assert read_schedule(path, after.fingerprint).shards_fingerprint == after.fingerprint


def kill(*_: object) -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


def test_others_that_write_are_not_written_over(pages: Pages) -> None:
    other = RunDir(pages.out)
    other.lock()
    with pytest.raises(UserError, match="another run is writing"):
        takedown(pages.shards, wanted([pages.url(2)]), None)
    other.release()
    assert len(takedown(pages.shards, wanted([pages.url(2)]), None).new) == 1


def test_a_schedule_of_other_shards_is_refused_before_anything_is_written(
    pages: Pages, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(pages.shards, replace(read_manifest(pages.shards), seed=12))
    manifest = (pages.shards / "manifest.json").read_bytes()
    assert main(["takedown", str(pages.out), "--doc-id", pages.rows[1]["doc_id"].hex(), "--url", pages.url(1)]) == 1
    assert "the schedule was compiled for shards" in capsys.readouterr().err
    assert (pages.shards / "manifest.json").read_bytes() == manifest


# --- what it says ---------------------------------------------------------------------------------------------------------


def test_it_lists_places_and_tells_steps_seen_from_steps_ahead(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    shards, schedule = Shards(pages.shards), read_schedule(pages.out / "schedule.json")
    (place,) = find(shards, wanted([pages.url(2)]))
    steps = step_finder(shards, schedule)(place)
    assert len(steps) == 2
    words = ["takedown", str(pages.out), "--url", pages.url(2), "--dry-run"]
    for given, done in (("--step", steps[1]), (None, steps[-1] + 1)):
        if given is None:
            (pages.out / "train").mkdir()
            (pages.out / "train/metrics.jsonl").write_text(json.dumps({"step": done, "loss": 1.0}) + "\n")
        assert main(words + ([given, str(done)] if given else [])) == 0
        printed = " ".join(capsys.readouterr().out.split())
        seen = sum(step < done for step in steps)
        assert f"{done} steps done: {seen} have seen them, {len(steps) - seen} would have" in printed
        assert f"{place.file} {place.row} {place.start} {place.length} {pages.url(2)}" in printed
    assert not read_manifest(pages.shards).takedowns


def test_a_folder_that_cannot_be_written_is_one_clear_line(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipelines.shards.tombstones, "write_atomic", full)
    with pytest.raises(UserError, match=r"cannot write to .*: No space left on device; run the same command again"):
        takedown(pages.shards, wanted([pages.url(2)]), None)


def test_a_page_whose_text_stays_as_another_one_is_told(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["takedown", str(pages.out), "--domain", "twin.example", "--domain", "mirror.example"]) == 0
    printed = capsys.readouterr().out
    first = pages.rows[1]["doc_id"].hex()
    assert f"its text stays  https://twin.example/1: removed as a duplicate of {first} {pages.url(1)}" in printed
    assert f"to take it down too: --doc-id {first}" in printed
    assert "not there    domain twin.example" in printed


def test_a_page_whose_survivor_goes_too_is_not(pages: Pages) -> None:
    done = takedown(pages.shards, wanted([pages.url(1)], ["copy.example"]), None)
    assert [(twin.url, twin.stays.doc_id) for twin in done.twins] == [("https://copy.example/2", pages.rows[2]["doc_id"])]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing is asked for; give --url, --domain, --doc-id or --file"),
        (["--schedule", "/no/schedule.json", "--domain", "a.example"], "/no/schedule.json: No such file"),
    ],
)
def test_a_command_that_cannot_be_carried_out(
    pages: Pages, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["takedown", str(pages.out), *words]) == 1
    assert f"error: {message}" in capsys.readouterr().err


def test_what_is_not_there_is_named(pages: Pages, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["takedown", str(pages.out), "--domain", "other.example"]) == 0
    printed = capsys.readouterr().out
    assert "nothing to do  the shards hold no such document" in printed
    assert "not there      domain other.example" in printed
