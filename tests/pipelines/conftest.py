"""A run without a JVM: real texts read, measured and decided by the engine's own pass, written as a run's table."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.recipe import Input, Recipe, Stage
from pipelines.run import make_plan
from pipelines.rundir import MANIFEST, RunDir, write_json
from pipelines.schema import DROPPED, KEPT, QUARANTINED
from pipelines.spark import FILES, flow, read_flow

EXAMPLES = Path(__file__).parents[2] / "examples"
MakeRun = Callable[..., RunDir]


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
