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
from pipelines.report.facts import smooth, thin
from pipelines.run import make_plan
from pipelines.rundir import RunDir, write_json
from pipelines.schedule import Phase, ScheduleConfig, compile_schedule, write_schedule
from pipelines.schema import drop
from pipelines.shards import VERSION, Manifest, write_manifest, write_shard
from pipelines.spark import flow, read_flow, row_schema
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer

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
    texts = kept["text"].to_pylist()
    tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=400))
    rundir.tokenizer.mkdir()
    sha256 = save(tokenizer, rundir.tokenizer)
    one = {"source": "web", "lang": "en", "characters_per_token": 3.25, "bytes_per_token": 3.5}
    two = {"source": "web", "lang": "zh", "characters_per_token": 1.1, "bytes_per_token": 3.3}
    write_json(rundir.tokenizer / "manifest.json", {"compression": [one, two]})
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


SECTIONS = ["funnel", "time", "balance", "rules", "duplicates", "languages", "lengths", "privacy", "quarantine", "tokens"]
SECTIONS += ["schedule", "training"]


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
        ("tokens", ["web-en", "books", "uint16", "400", "3.25", "1.10"]),
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
    assert report.render(report.gather(run)) == html


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
        (["train", "schedule.json", "shards"], ["schedule"], "Compression"),
        (["train", "schedule.json", "shards", "tokenizer"], ["schedule", "tokens"], "11 records"),
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


def test_a_ledger_that_does_not_balance_is_said_loudly(run: RunDir, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    content = json.loads(copy.ledger.read_text())
    content["stages"][1]["balance"] = 2
    write_json(copy.ledger, content)
    page = Page(written(copy))
    assert "does not balance" in page["top"]
    assert "accounted for" not in page["top"]


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
    frames = "".join(f'<iframe width={w} height=900 src="{run.report.as_uri()}"></iframe>' for w in (1280, 390))
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
