"""The report of a small run made by the real functions, without a JVM: it says what the run says, and no page can harm it."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import ledger, report
from pipelines.__main__ import main
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.rules import Rule, RulesConfig, decide
from pipelines.filter.url import UrlConfig, url_filter
from pipelines.privacy.pii import PiiConfig, mask_pii
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.recipe import Input, Recipe, Stage, batch_stage
from pipelines.report.facts import gather, smooth, thin
from pipelines.run import make_plan
from pipelines.rundir import RunDir, write_json
from pipelines.schedule import Phase, ScheduleConfig, compile_schedule, write_schedule
from pipelines.schema import drop
from pipelines.shards import VERSION, Manifest, write_manifest, write_shard
from pipelines.spark import flow, read_flow
from pipelines.tables import row_schema
from pipelines.tokens.fit import facts, fit
from pipelines.tokens.train import TokenizerConfig, save

CHROME = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))), ""
)
PLAIN = "The water runs from the lake to the mill and turns the wheel all day. "
COPIED = "A channel that leads the water to the turbine is called a headrace. "
HOSTILE = "</p></details></style><script>alert('page')</script><img src=x onerror=alert(1)>"
BIDI = "\u05e9\u05dc\u05d5\u05dd \u202e reversed \u2066 isolated"
CONTROL = "a bell \x07, an escape \x1b[31m, a form feed \x0c, next line \x85, a noncharacter \uffff"
URL = "https://example.org/?q=\"><script>alert('url')</script>"
PAGES: list[dict[str, Any]] = [
    {"id": "plain", "lang": "en", "text": PLAIN * 4},
    {"id": "original", "lang": "en", "url": "https://example.org/original", "text": COPIED * 8},
    {"id": "copy", "lang": "en", "url": "https://example.org/copy", "text": COPIED * 4 + "Another line. " + COPIED * 4},
    {"id": "mail", "lang": "en", "text": PLAIN * 3 + "Write to someone@kept-example.com, please. " + PLAIN},
    {"id": "zh", "lang": "zh", "text": "\u6c34\u4ece\u6e56\u91cc\u6d41\u5230\u78e8\u574a\u3002" * 20},
    {"id": "short", "lang": "en", "url": "https://example.org/short", "text": "Too short: call someone@dropped-example.com"},
    {"id": "listed", "lang": "en", "url": "https://www.bad.example/x", "text": PLAIN * 4},
    {"id": "hostile", "lang": "en\" onload=\"alert('lang')", "url": URL, "text": HOSTILE},
    {"id": "bidi", "lang": "he", "text": f"{BIDI}; {CONTROL}"},
    {"id": "endless", "lang": "en", "text": PLAIN * 3000},
]


@batch_stage()
def near_duplicates(docs: pa.RecordBatch, cfg: None) -> pa.RecordBatch:
    """Marks as the stage of that name does: rule, similarity, threshold, survivor."""
    texts, ids = docs["text"].to_pylist(), docs["doc_id"].to_pylist()
    survivor = next(i for t, i in zip(texts, ids, strict=True) if t == COPIED * 8)
    copies = [t.startswith(COPIED) and i != survivor for t, i in zip(texts, ids, strict=True)]
    return drop(docs, copies, "near_duplicates.jaccard", 0.913, 0.75, pa.array([survivor] * docs.num_rows, pa.binary()))


def recipe(path: Path) -> Recipe:
    rules = RulesConfig(
        extra=(Rule("length.min_words", "words", "min", 20.0), Rule("length.max_words", "words", "max", 9000.0))
    )
    return Recipe(
        name="mill",
        doc="Water & mills.",
        inputs=(Input("web", str(path), read_jsonl, JsonlConfig()),),
        stages=(
            Stage(url_filter, UrlConfig(domains=("other.example", "bad.example"))),
            Stage(measure, MeasureConfig()),
            Stage(decide, rules, checkpoint=True),
            Stage(near_duplicates, None, checkpoint=True),
            Stage(mask_pii, PiiConfig()),
        ),
    )


def make_tables(rundir: RunDir, used: Recipe) -> pa.Table:
    """plan.json, the steps' tables in several row groups and files, ledger.json; returns the kept rows."""
    plan = make_plan(used)
    write_json(rundir.plan, plan.to_json())
    source = pa.RecordBatch.from_pylist([{k: f[k] for k in ("source", "path", "bytes")} for f in plan.files])
    rows, entries = pa.Table.from_batches([source]), list[ledger.Entry]()
    for step, schema in zip(plan.steps, plan.schemas, strict=True):
        batches: Any = iter(rows.combine_chunks().to_batches())
        batches = read_flow(batches, step.inputs, lambda *_: None) if step.inputs else batches
        table = pa.Table.from_batches(flow(batches, step.stages, schema, lambda *_: None), schema)
        folder = rundir.table(step)
        for outcome in table["outcome"].unique().to_pylist():
            part = table.filter(pa.compute.equal(table["outcome"], outcome))
            (folder / f"outcome={outcome}").mkdir(parents=True)
            for index, rest in enumerate((part.slice(0, 3), part.slice(3))):
                file = folder / f"outcome={outcome}" / f"part-{index}.parquet"
                pq.write_table(rest.drop_columns(["outcome"]), file, row_group_size=2)
        keys = ["file", "outcome", "stage", "drop_rule", "error_class"]
        counts = [row | {"rows": row["count_all"]} for row in table.group_by(keys).aggregate([([], "count_all")]).to_pylist()]
        made = ledger.entries(step.stage_names, {f["path"]: f["source"] for f in plan.files}, counts)
        ledger.check(None, made, step.stage_names, None)
        entries += made
        write_json(folder / "manifest.json", {"recipe_fingerprint": step.fingerprint, "stages": step.stage_names})
        rows = table.filter(pa.compute.equal(table["outcome"], "kept")).select(row_schema(schema).names)
    write_json(rundir.ledger, ledger.summary(entries, {"read": 0.05, "measure": 12.5, "near_duplicates": 4000.0}))
    return rows


def make_tokens(rundir: RunDir, kept: pa.Table) -> None:
    """Tokenizer, shards and schedule, as after the tables."""
    texts, cfg = kept["text"].to_pylist(), TokenizerConfig(vocab_size=400)
    rundir.tokenizer.mkdir()
    tokenizer, _ = fit(kept, cfg)
    sha256 = save(tokenizer, rundir.tokenizer)
    write_json(rundir.tokenizer / "manifest.json", facts(tokenizer, kept, cfg, None))
    ids = [np.array(tokenizer.encode(t).ids, np.uint16) for t in texts]
    files = [
        write_shard(rundir.shards, source, split, 0, [b"%016d" % i for i in range(len(ids))], ids, "uint16")
        for source, split in (("web-en", "train"), ("web-en", "validation"), ("books", "train"))
    ]
    manifest = Manifest(VERSION, "uint16", 400, 0, sha256, "mill", "f00d", tuple(files))
    write_manifest(rundir.shards, manifest)
    phases = (
        Phase("main", 3000, 10, 100, {"web-en": 0.6, "books": 0.4}, max_epochs=50),
        Phase("annealing", 1000, 20, 100, {"books": 1.0}, max_epochs=80),
    )
    write_schedule(rundir.schedule, compile_schedule(ScheduleConfig(phases), manifest.source_tokens(), manifest.fingerprint))


def make_training(rundir: RunDir) -> None:
    """metrics.jsonl and samples.jsonl as the trainer writes them, the last line cut by a kill."""
    rundir.training.mkdir()
    lines: list[dict[str, Any]] = []
    for step in range(1, 41):
        phase, loss = ("main" if step <= 30 else "annealing"), (float("nan") if step == 7 else 6 - step / 20)
        values = {"loss": loss, "lr": 1e-3 / step, "grad_norm": 1.0, "tokens_per_second": 5000.0, "data_wait_s": 0.01}
        lines.append({"step": step, "tokens": step * 100, "phase": phase, **values})
        if step % 20 == 0:
            lines.append({"step": step, "validation": {"web-en": 5 - step / 40, "books": 5.5 - step / 40}})
    lines.append({"step": 40, "plan": {}, "plan_in_words": "planned tokens/s 6,000, was 5,000"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (rundir.training / "metrics.jsonl").write_text(text + '{"step": 41, "tok')
    samples = [
        {"step": 20, "lang": "en", "prompt": "The mill", "continuation": " of an earlier step"},
        {"step": 40, "lang": "en", "prompt": "The mill", "continuation": " turns <b>all</b> day \ud83d"},
        {"step": 40, "lang": "zh", "prompt": "\u6c34", "continuation": "\u6d41\u5230\u78e8\u574a"},
    ]
    (rundir.training / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A whole run; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("report")
    lines = [json.dumps(page) for page in PAGES] + ['{"text": "broken']
    (folder / "pages.jsonl").write_text("\n".join(lines) + "\n")
    rundir = RunDir(folder / "out")
    rundir.path.mkdir()
    make_tokens(rundir, make_tables(rundir, recipe(folder / "pages.jsonl")))
    make_training(rundir)
    report.write(rundir)
    return rundir


class Page(HTMLParser):
    """Tags with their attributes, and the visible text per section."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self._at = "top"
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._at = dict(attrs)["id"] or ""

    def handle_data(self, data: str) -> None:
        self.sections[self._at] = self.sections.get(self._at, "") + data

    def __getitem__(self, section: str) -> str:
        return re.sub(r"\s+", " ", self.sections[section])


@pytest.fixture(scope="module")
def html(run: RunDir) -> str:
    return run.report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


SECTIONS = ["funnel", "time", "balance", "rules", "duplicates", "languages", "lengths", "privacy", "quarantine", "tokenizer"]
SECTIONS += ["tokens", "schedule", "training"]


@pytest.mark.parametrize(
    ("section", "facts"),
    [
        ("top", ["mill", "Water & mills.", "Of 11 records in 1 file", "4 were kept", "dropped 6", "1 waits in quarantine"]),
        ("top", ["Every record is accounted for.", "40 steps", "from 5.95 to 4.2"]),
        ("funnel", ["length.min_words", "near_duplicates.jaccard", "4 kept", "InvalidJson"]),
        ("time", ["50 ms", "12.5 s", "1 h 06 min"]),
        ("balance", ["unaccounted", "pages.jsonl"]),
        ("rules", ["length.min_words", "at least 20 allowed", "length.max_words", "at most 9,000 allowed", "more characters]"]),
        ("rules", ["measured 45,000", "https://example.org/short", "--rule length.min_words"]),
        ("rules", ["url.domain", "entry of the list: bad.example"]),
        ("duplicates", ["Jaccard similarity 0.913", "0.75", "https://example.org/copy", "https://example.org/original"]),
        ("languages", ["en", "zh", "he"]),
        ("lengths", ["kept: median", "dropped: median"]),
        ("privacy", ["email", "Write to <email>, please."]),
        ("quarantine", ["InvalidJson", "pages.jsonl", "read"]),
        ("tokenizer", ["deepseek_llm", "entries357", "characters a token", "make 90% of all tokens"]),
        ("tokenizer", ["web zh", "4.50", "Longest entries", "turbine", "\u5230\u78e8\u574a", "Never used 69 of 94"]),
        ("tokens", ["web-en", "books", "uint16", "400"]),
        ("schedule", ["main", "annealing", "40 steps", "4,000 tokens", "30 steps", "length 20"]),
        ("training", ["annealing", "web-en 4.00", "books 4.50", "turns <b>all</b> day", "\u6d41\u5230\u78e8\u574a"]),
    ],
)
def test_the_page_says_what_the_run_says(page: Page, section: str, facts: list[str]) -> None:
    text = page[section]
    assert [fact for fact in facts if fact not in text] == []


def test_it_has_every_section_and_its_contents_lead_there(page: Page) -> None:
    assert [a["id"] for tag, a in page.tags if tag == "section"] == SECTIONS
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["#top", *(f"#{name}" for name in SECTIONS)]


def test_inspect_names_value_bound_and_entry(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(run.path), "--removed"]) == 0
    printed = capsys.readouterr().out
    assert "dropped by url_filter: url.domain measured 1, bound 0, entry bad.example\n" in printed
    assert re.search(r"dropped by decide: length.min_words measured \d+, bound 20\n", printed)


def test_the_differences_of_a_duplicate_are_marked(page: Page, html: str) -> None:
    assert "<mark>Another line. </mark>" in html


def test_what_training_took_is_held_against_its_plan(page: Page) -> None:
    assert "waiting for data in all; planned tokens/s 6,000, was 5,000." in page["training"]


def test_only_the_newest_continuation_is_shown(page: Page) -> None:
    assert "an earlier step" not in page["training"]


def test_what_comes_from_pages_stays_text(page: Page, html: str) -> None:
    assert {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe", "object", "embed", "base", "form"} == set()
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert HOSTILE in page["rules"]
    assert "alert('url')" in page["rules"]
    assert not any("alert" in (a.get("lang") or "") and len(a) > 4 for _, a in page.tags)


def test_nothing_is_loaded_from_anywhere(page: Page, html: str) -> None:
    loads = [a[n] for _, a in page.tags for n in ("src", "href", "srcset", "xlink:href", "data", "action") if n in a]
    assert all((target or "").startswith("#") for target in loads)
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))
    assert "@import" not in styles
    assert "url(" not in styles
    assert re.findall(r"url\((?!#)", html) == []


def test_control_characters_become_visible_and_directions_stay_inside(page: Page, html: str) -> None:
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\uffff]", html) is None
    assert "a bell \u2407, an escape \u241b[31m, a form feed \u240c" in page["rules"]
    holders = re.findall(r"<(\w+)([^>]*)>(?:[^<]*)\u202e", html)
    assert holders
    assert all('dir="auto"' in attributes for _, attributes in holders)


def test_personal_data_is_nowhere_on_the_page(html: str) -> None:
    assert "someone@" not in html
    assert "call &lt;email&gt;" in html


def test_it_is_small_and_the_same_every_time(run: RunDir, html: str) -> None:
    assert len(html.encode()) < 200_000
    assert report.render(gather(run)) == html


def test_the_same_documents_are_shown_however_the_tables_are_cut(run: RunDir, html: str, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    for folder in copy.path.glob("*/outcome=*"):
        whole = pa.concat_tables([pq.read_table(f, partitioning=None) for f in sorted(folder.glob("*.parquet"), reverse=True)])
        shutil.rmtree(folder)
        folder.mkdir()
        pq.write_table(whole, folder / "one.parquet")
    assert written(copy).replace(str(copy.path), str(run.path)) == html


def copied(run: RunDir, to: Path) -> RunDir:
    return RunDir(shutil.copytree(run.path, to / "out"))


def written(rundir: RunDir) -> str:
    report.write(rundir)
    return rundir.report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("missing", "gone", "said"),
    [
        (["train"], [], "Nothing was trained yet."),
        (["train/samples.jsonl"], [], "Learning rate"),
        (["train", "schedule.json"], ["schedule"], "Nothing was trained yet."),
        (["train", "schedule.json", "shards"], ["schedule", "tokens"], "Compression"),
        (["train", "schedule.json", "shards", "tokenizer"], ["schedule", "tokens", "tokenizer"], "11 records"),
        (["02-*"], ["privacy"], "length.min_words"),
        (["0*"], ["duplicates", "languages", "lengths", "privacy"], "The table that holds its documents is no longer there."),
        (["ledger.json", "0*"], ["funnel", "time", "balance", "rules", "duplicates"], "has not come to an end yet"),
    ],
)
def test_what_is_missing_is_done_without(run: RunDir, tmp_path: Path, missing: list[str], gone: list[str], said: str) -> None:
    copy = copied(run, tmp_path)
    for pattern in missing:
        for path in copy.path.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = Page(written(copy))
    shown = [a["id"] for tag, a in page.tags if tag == "section"]
    assert set(gone).isdisjoint(shown)
    assert any(said in page[section] for section in page.sections)


def test_an_extension_is_told_with_before_and_after(run: RunDir, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    path = copy.tokenizer / "manifest.json"
    content = json.loads(path.read_text())
    before = [row | {"bytes_per_token": 1.23, "characters_per_token": 0.41} for row in content["compression"]]
    counts = {"base_size": 300, "added": 57, "special": 6, "documents": 3, "unchanged": 2, "characters": 900, "foreign": 4}
    counts |= {"tokens": 500, "tokens_after": 491}
    content["extension"] = {"base": "<base>/tokenizer.json", "extend_on": ["zh"], **counts, "compression": before}
    write_json(path, content)
    said = Page(written(copy))["tokenizer"]
    assert "300 entries are those of <base>/tokenizer.json; 57 were learnt on zh. Of 3 other documents 2 have the ids" in said
    assert "are 9 of 500 tokens shorter" in said
    assert "13.50, was 1.23" in said
    assert "0.41" in said


def test_a_ledger_that_does_not_balance_is_said_loudly(run: RunDir, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    content = json.loads(copy.ledger.read_text())
    content["stages"][1]["balance"] = 2
    write_json(copy.ledger, content)
    page = Page(written(copy))
    assert "does not balance" in page["top"]
    assert "accounted for" not in page["top"]


def share(value: float | None, low: float = 0.0, high: float = 1.0) -> dict[str, Any]:
    return {"share": value, "low": low, "high": high, "number": 50.0}


def shown_document(text: str, url: str | None = None) -> dict[str, Any]:
    return {"doc_id": "00" * 16, "source": "web", "url": url, "lang": "en", "text": text, "text_chars": len(text)}


QUALITY_OF_MANY: dict[str, Any] = {
    "fingerprint": "f00d",
    "stage": "near_duplicates",
    "settings": {
        "threshold": 0.75, "measure": "jaccard", "covered": False, "bands": 14, "rows": 8,
        "quality": {"floor": 0.4, "alarm": 0.9, "host_documents": 100},
    },
    "documents": 500_000,
    "removed": 120_000,
    "sample": {"documents": 15_625, "bytes": 9_000_000, "classes": 32, "pairs": 4321},
    "curve": [[0.4 + 0.01 * k, k / 60] for k in range(61)],
    "bands": [
        {"low": 0.4, "high": 0.5, "pairs": 1200, "estimated": 80_000.4, "similarity": 0.44, "predicted": 0.02,
         "shared": share(0.03, 0.02, 0.04), "gone": share(0.31, 0.28, 0.34)},
        {"low": 0.75, "high": 0.8, "pairs": 321, "estimated": 12_000.0, "similarity": 0.77, "predicted": 0.86,
         "shared": share(0.85, 0.81, 0.88), "gone": share(0.982, 0.96, 0.99)},
    ],
    "recall": {"share": share(0.982, 0.96, 0.99), "pairs": 321, "missed": 6, "estimated": 220.0},
    "precision": {"share": share(0.999, 0.99, 1.0), "checked": 1000, "below": 1, "least": 0.61, "differs": 0, "unknown": 0},
    "examples": {
        "removed": [
            {"similarity": 0.8, "left": shown_document(PLAIN + "red", URL), "right": shown_document(PLAIN + "blue")},
            {"similarity": 1.0, "left": shown_document(PLAIN), "right": shown_document(PLAIN)},
        ],
        "missed": [
            {"similarity": 0.77, "left": shown_document(HOSTILE), "right": shown_document("write someone@missed.example")},
        ],
    },
    "clusters": {
        "sizes": [
            {"least": 1, "most": 1, "clusters": 300_000, "documents": 300_000},
            {"least": 8, "most": 15, "clusters": 4000, "documents": 40_000},
        ],
        "largest": [
            {"size": 9000, **shown_document(HOSTILE + " someone@cluster.example", URL), "hosts": 40, "text_chars": 7000,
             "places": [{"source": "web", "host": "<b>host</b>.example", "documents": 8000}]},
        ],
    },
    "sources": [
        {"source": "spam<i>", "documents": 1000, "removed": 990, "share": 0.99},
        {"source": "web", "documents": 499_000, "removed": 119_010, "share": 0.2385},
    ],
    "hosts": {
        "number": 900, "alarms": 35,
        "first": [{"source": "web", "host": f"mirror{k}.example", "documents": 200, "removed": 199, "share": 0.995}
                  for k in range(30)],
    },
    "hot_buckets": {"number": 3, "members": 5000, "most": 4000, "first": [{"key": -77, "members": 4000}]},
}  # fmt: skip


def with_quality(run: RunDir, tmp_path: Path, **changed: Any) -> RunDir:
    copy = copied(run, tmp_path)
    (folder,) = copy.path.glob("01-near_duplicates-*")
    (folder / "_beside").mkdir()
    write_json(folder / "_beside" / "quality.json", QUALITY_OF_MANY | changed)
    return copy


@pytest.mark.parametrize(
    "fact",
    [
        "Of 500,000 documents it removed 120,000 (24.0%)",
        "Of the pairs that are so much alike, 1.8% were both kept.",
        "98.2%96.0% to 99.0%; 321 pairs, 6 missed",
        "99.9%99.0% to 100.0%; 1,000 checked",
        "0.6100.75 is asked",
        "3the greatest of 4,000 documents",
        "All pairs of 15,625 sampled documents, drawn so that similar ones come together (one of 32 classes)",
        "0.40\u20130.50 1,200 80,000 2.0% 3.0% 2.0% to 4.0% 31.0%".replace(" ", ""),
        "4,000 of more than one document",
        "9,000 documents of 40 sources and hosts: web <b>host</b>.example 8,000, and 39 more",
        "hosts of more than 100 documents: 900, 35 above the alarm",
        "buckets that were too great to be paired completely: 3, of 5,000 documents in all",
        "Jaccard similarity 1.000; the texts are equal",
        "1 of 6 in the sample",
        "Source spam<i> loses 990 of 1,000 documents (99.0%, the alarm is at 90%).",
        "31 more lose above 90% of their documents.",
        "1 of 1,000 removed documents are less like their survivors than the threshold 0.75; the least has 0.610.",
    ],
)
def test_how_good_removal_was_is_on_the_page(run: RunDir, tmp_path: Path, fact: str) -> None:
    said = Page(written(with_quality(run, tmp_path)))["duplicates"]
    assert fact in said or fact in said.replace(" ", "")


def test_pairs_of_a_measured_stage_are_its_sample_and_stay_text(run: RunDir, tmp_path: Path) -> None:
    html = written(with_quality(run, tmp_path))
    page = Page(html)
    assert "0.913" not in page["duplicates"]
    assert "<mark>red</mark>" in html
    assert "someone@" not in html
    assert HOSTILE in page["duplicates"]
    assert {tag for tag, _ in page.tags} & {"script", "img", "i"} == set()
    alarmed = [a for tag, a in page.tags if tag == "tr" and a.get("class") == "alarmed"]
    assert len(alarmed) == 31


def test_alarms_are_printed_where_the_report_is_made(
    run: RunDir, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = with_quality(run, tmp_path)
    assert main(["report", str(copy.path)]) == 0
    assert "near_duplicates: source spam<i> loses 990 of 1,000 documents (99.0%, the alarm is at 90%)" in caplog.messages
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 7
    capsys.readouterr()


def test_a_stage_that_found_nothing_is_measured_too(run: RunDir, tmp_path: Path) -> None:
    nothing: dict[str, Any] = {
        "removed": 0,
        "bands": [],
        "sources": [],
        "hot_buckets": None,
        "hosts": {"number": 0, "alarms": 0, "first": []},
        "recall": {"share": share(None), "pairs": 0, "missed": 0, "estimated": 0.0},
        "precision": {"share": share(None), "checked": 0, "below": 0, "least": None, "differs": 0, "unknown": 0},
        "examples": {"removed": [], "missed": []},
        "clusters": {"sizes": [{"least": 1, "most": 1, "clusters": 0, "documents": 0}], "largest": []},
    }
    page = Page(written(with_quality(run, tmp_path, **nothing)))
    assert "no pair so much alike" in page["duplicates"]
    assert "nothing to check" in page["duplicates"]
    assert "not recorded" in page["duplicates"]


def test_smoothing_and_thinning_keep_the_ends() -> None:
    points = [(float(i), float(i % 2)) for i in range(1001)]
    assert smooth(points)[-1] == (1000.0, 0.5)
    assert smooth([(0.0, 4.0), (1.0, float("nan")), (2.0, 2.0)]) == [(0.0, 4.0), (2.0, 3.0)]
    thinned = thin(points, 100)
    assert len(thinned) <= 101
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])


def test_it_loads_neither_spark_nor_torch() -> None:
    code = "import sys, pipelines.report; print([m for m in ('pyspark', 'torch', 'trainer') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


PROBE = """<body>{frames}<pre id=found></pre><script>
onload = () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement, box = e => e.getBoundingClientRect();
    return {{
      width: root.clientWidth, overflow: root.scrollWidth - root.clientWidth,
      wide: [...page.querySelectorAll("main *")]
        .filter(e => box(e).right > root.clientWidth + 1 && !e.closest(".scroll")).map(e => e.outerHTML.slice(0, 90)),
      sections: Object.fromEntries([...page.querySelectorAll("section")].map(s => [s.id, box(s).height])),
      pictures: [...page.querySelectorAll("svg.chart")].map(box).filter(b => b.width).map(b => [b.width, b.height]),
      scripts: page.scripts.length,
    }};
  }});
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(not CHROME, reason="no Chromium or Chrome on the PATH; install one (Debian: apt-get install chromium)")
def test_a_real_browser_shows_every_section_at_desk_and_phone_width(run: RunDir, tmp_path: Path) -> None:
    shown_run = with_quality(run, tmp_path)
    report.write(shown_run)
    frames = "".join(f'<iframe width={w} height=900 src="{shown_run.report.as_uri()}"></iframe>' for w in (1280, 390))
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(frames=frames))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    shown = subprocess.run(
        [CHROME, *flags, profile, "--virtual-time-budget=3000", "--dump-dom", probe.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert [line for line in shown.stderr.splitlines() if "CONSOLE" in line] == []
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', shown.stdout)[1])  # type: ignore[index]
    assert [frame["width"] > 1000 for frame in found] == [True, False]
    for frame in found:
        assert list(frame["sections"]) == SECTIONS
        assert min(frame["sections"].values()) > 60
        assert len(frame["pictures"]) >= 5
        assert all(width > 100 and height > 10 for width, height in frame["pictures"])
        assert (frame["overflow"], frame["wide"]) == (0, [])
        assert frame["scripts"] == 0
