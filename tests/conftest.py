"""What several folders of tests share: one Spark session, started when the first test asks; runs made without one."""

import gzip
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.filter.rules import RulesConfig, WebPage
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.recipe import Input, Recipe, Stage, config_dict
from pipelines.run import make_plan
from pipelines.rundir import MANIFEST, RunDir, write_json
from pipelines.schedule import Phase, ScheduleConfig, compile_schedule, write_schedule
from pipelines.schema import DROPPED, KEPT, QUARANTINED, REMOVED, doc_id
from pipelines.shards import VERSION, Manifest, Order, is_validation, order_key, write_manifest, write_shard
from pipelines.spark import FILES, flow, read_flow

EXAMPLES = Path(__file__).parents[1] / "examples"
MakeRun = Callable[..., RunDir]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run whole commands first, then those with a JVM: what is short fills the gaps at the end."""
    weight = Counter[Path]()
    for item in items:
        of_item = 2 * bool(item.get_closest_marker("slow")) + bool(item.get_closest_marker("spark"))
        weight[item.path] = max(weight[item.path], of_item)
    items.sort(key=lambda item: -weight[item.path])


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    from pipelines.spark import session

    started = session(
        "local[2]", app="headrace-tests", settings={"spark.driver.memory": "1g", "spark.sql.shuffle.partitions": "3"}
    )
    yield started
    started.stop()


@dataclass(frozen=True)
class Pages:
    """A run directory with shards, made by the real writers without Spark; `rows` are the pages, as the run kept them."""

    out: Path
    rows: list[dict[str, Any]]

    @property
    def shards(self) -> Path:
        return self.out / "shards"

    def url(self, number: int) -> str:
        return next(row["url"] for row in self.rows if row["number"] == number)


MakePages = Callable[..., Pages]
PAGE_SEED, PAGE_EOS = 11, 0
HOSTS = ("site.example", "blog.site.example", "www.mirror.example", "notsite.example", "b\u00fccher.example")


@pytest.fixture(scope="session")
def make_pages() -> MakePages:
    """`make_pages(out, provenance=True, order=None)`: 160 pages of two sources in two files each, tokenizer and schedule."""

    def make(out: Path, *, provenance: bool = True, order: Order | None = None) -> Pages:
        random = np.random.default_rng(5)
        rows = []
        for number in range(160):
            source = "web" if number % 4 else "code"
            url = f"https://{HOSTS[number % 5]}/page/{number}" if source == "web" else None
            identity = doc_id(source, str(number), b"")
            origin = {"date": None, "lang": "en", "file": f"{source}.jsonl", "offset": 100 * number, "record_id": f"r{number}"}
            measured = {"words": float(number % 7), "cluster_size": 1 + number % 3}
            rows.append({"number": number, "doc_id": identity, "source": source, "url": url, **origin, **measured})
        tokens = {r["doc_id"]: [*random.integers(1, 64, random.integers(1, 40)).tolist(), PAGE_EOS] for r in rows}
        files = []
        for source in ("code", "web"):
            ranked = [r for r in rows if r["source"] == source]
            ranked.sort(key=lambda r: order_key(PAGE_SEED, r["doc_id"]))
            held_out = [is_validation(PAGE_SEED, r["doc_id"], 0.1) for r in ranked]
            for split in ("train", "validation"):
                of_split = [r for r, held in zip(ranked, held_out, strict=True) if held == (split == "validation")]
                if order is not None and order.source == source:
                    of_split = _by_column(of_split, order)
                parts = 2 if split == "train" else 1
                for index in range(parts):
                    part = of_split[index * len(of_split) // parts : (index + 1) * len(of_split) // parts]
                    ids = [r["doc_id"] for r in part]
                    made = write_shard(out / "shards", source, split, index, ids, (tokens[i] for i in ids), "uint16")
                    if provenance:
                        told = pa.Table.from_pylist(
                            [{k: v for k, v in r.items() if k not in ("number", "source")} for r in part], TOLD
                        )
                        path = out / "shards" / made.provenance_path
                        pq.write_table(told, path, row_group_size=16)
                        made = replace(made, provenance=hashlib.sha256(path.read_bytes()).hexdigest())
                    files.append(made)
        (out / "tokenizer").mkdir()
        vocabulary = json.dumps({"model": {"vocab": {f"w{i}": i for i in range(63)}}, "added_tokens": [{"id": 63}]})
        (out / "tokenizer/tokenizer.json").write_text(vocabulary)
        digest = hashlib.sha256(vocabulary.encode()).hexdigest()
        orders = (order,) if order else ()
        manifest = Manifest(VERSION, "uint16", 64, PAGE_EOS, digest, "pages", "f" * 12, tuple(files), PAGE_SEED, orders)
        write_manifest(out / "shards", manifest)
        phases = (Phase("main", 4096, 32, 128, {"web": 3, "code": 1}), Phase("end", 1024, 64, 256, {"web": 1, "code": 1}))
        schedule = compile_schedule(ScheduleConfig(phases), manifest.source_tokens(), manifest.fingerprint)
        write_schedule(out / "schedule.json", schedule)
        _write_history(out, rows)
        return Pages(out, rows)

    return make


@pytest.fixture(scope="session")
def _pages(make_pages: MakePages, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    return make_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture
def pages(_pages: Pages, tmp_path: Path) -> Pages:
    """What `make_pages` makes, to damage."""
    shutil.copytree(_pages.out, tmp_path / "out")
    return replace(_pages, out=tmp_path / "out")


TOLD = pa.schema(
    [
        ("doc_id", pa.binary()),
        *((name, pa.string()) for name in ("url", "date", "lang", "file")),
        ("offset", pa.int64()),
        ("record_id", pa.string()),
        ("words", pa.float64()),
        ("cluster_size", pa.int64()),
    ]
)


def _write_history(out: Path, rows: list[dict[str, Any]]) -> None:
    """plan.json, and OUT/removed: of page 1 an exact copy, of this a near one, and of page 2 a copy."""
    stages = [{"name": "read", "kind": "reader", "source": source, "config": {}} for source in ("web", "code")]
    rules = config_dict(RulesConfig(web_page=WebPage(min_words=0.0)))
    stages.append({"name": "decide", "kind": "batch", "version": 1, "sources": ["web"], "config": rules})
    files = [{"source": source, "path": f"{source}.jsonl", "bytes": 1, "mtime_ns": 1} for source in ("web", "code")]
    step = {"directory": "00-decide-f", "fingerprint": "f", "stages": stages}
    write_json(out / "plan.json", {"recipe": "pages", "files": files, "steps": [step]})
    first, second = (row["doc_id"] for row in rows[1:3])
    copies = [
        (b"c" * 16, "https://copy.example/1", "exact_duplicates", first),
        (b"n" * 16, "https://twin.example/1", "near_duplicates", b"c" * 16),
        (b"d" * 16, "https://copy.example/2", "exact_duplicates", second),
    ]
    names = ("doc_id", "url", "stage", "duplicate_of")
    removed = [dict(zip(names, copy, strict=True)) | {"source": "web", "rule": f"{copy[2]}.x", "value": 2.0} for copy in copies]
    (out / "removed").mkdir()
    pq.write_table(pa.Table.from_pylist(removed, REMOVED), out / "removed/part-0.parquet")


def _by_column(rows: list[dict[str, Any]], order: Order) -> list[dict[str, Any]]:
    """Rows in keyed order to the stated one, as a specification: ranked, and blocks of ranks back in keyed order."""
    keyed = {row["doc_id"]: place for place, row in enumerate(rows)}
    sign = -1 if order.descending else 1
    ranked = sorted(rows, key=lambda r: (sign * r[order.by], keyed[r["doc_id"]]))
    blocks = [ranked[i : i + order.window] for i in range(0, len(ranked), order.window)]
    return [row for block in blocks for row in sorted(block, key=lambda r: keyed[r["doc_id"]])]


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with web.jsonl (books and code, cut to many lengths, of five languages by name) and code.jsonl."""
    folder = tmp_path_factory.mktemp("texts")
    books = pq.read_table(EXAMPLES / "books.parquet").select(["text", "lang"]).to_pylist()[::2]
    with gzip.open(EXAMPLES / "code.jsonl.gz", "rt", encoding="utf-8") as file:
        code = [json.loads(line)["text"] for _, line in zip(range(40), file, strict=False)]
    web = [
        {"text": row["text"][: 40 + 97 * i % 1700], "lang": row["lang"] if i % 4 else ("vi", "ko", None)[i // 4 % 3]}
        for i, row in enumerate(books)
    ]
    web += [{"text": text[:1500], "lang": "en"} for text in code[:20]]
    rows = {"web": [{"url": f"https://site.example/{i}", **row} for i, row in enumerate(web)]}
    rows["code"] = [{"text": text[:1500], "lang": "en"} for text in code[20:]]
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def make_run(texts: Path) -> MakeRun:
    """`make_run(out, *stages, rows=1000)`: a run of these stages over `texts`; `rows` a row group, three groups a file."""

    def make(out: Path, *stages: Stage, rows: int = 1000) -> RunDir:
        inputs = tuple(Input(name, str(texts / f"{name}.jsonl"), read_jsonl, JsonlConfig()) for name in ("web", "code"))
        plan, rundir = make_plan(Recipe("made", inputs, stages)), RunDir(out)
        (step,), (schema,) = plan.steps, plan.schemas
        files = pa.RecordBatch.from_pylist(
            [{"source": f["source"], "path": f["path"], "bytes": f["bytes"]} for f in plan.files], FILES
        )
        decided = flow(read_flow(iter([files]), inputs, _uncounted), stages, schema, _uncounted)
        table = pa.Table.from_batches(decided, schema)
        for outcome in (KEPT, DROPPED, QUARANTINED):
            part = table.filter(pc.equal(table["outcome"], outcome)).drop_columns("outcome")
            folder = rundir.table(step) / f"outcome={outcome}"
            folder.mkdir(parents=True)
            for start in range(0, part.num_rows, 3 * rows):
                pq.write_table(part.slice(start, 3 * rows), folder / f"part-{start:05d}.parquet", row_group_size=rows)
        write_json(rundir.table(step) / MANIFEST, {"recipe_fingerprint": step.fingerprint})
        described = plan.to_json()
        by_name = {stage.name: list(stage.sources) for stage in stages}
        for stage in described["steps"][0]["stages"]:
            if stage["name"] in by_name:
                stage.setdefault("sources", by_name[stage["name"]])
        write_json(rundir.plan, described)
        return rundir

    return make


def _uncounted(stage: str, rows: int, seconds: float) -> None:
    """Nobody asks how long it took."""
