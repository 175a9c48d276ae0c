"""From a token to its page, and from a page to the steps that see it: a document of the shards with all that a run knows of it.

What is known of a row comes from the provenance beside its shard, one row group; without it, from the run's last table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.errors import UserError
from pipelines.filter.rules import all_rules, bound_of
from pipelines.lookup import IGNORED, documents
from pipelines.provenance.places import Place, provenance
from pipelines.run_rules import stored_config
from pipelines.rundir import RunDir
from pipelines.schedule import Schedule, read_schedule
from pipelines.schedule.compiled import unit_of
from pipelines.schedule.packing import finder, rows_of
from pipelines.schema import KEPT
from pipelines.shards import Shards, Span

ORIGIN = ("doc_id", "url", "date", "lang", "file", "offset", "record_id")


@dataclass(frozen=True)
class Judged:
    """A rule that a document passed: what was measured, and the bound for its language."""

    rule: str
    measure: str
    measured: float
    bound: float


def place_of_row(shards: Shards, file: str, row: int) -> Place:
    """The document in a row of a shard file ("web-en/train-00000.arrow"). Raises UserError where there is no such row."""
    listed = next((f for f in shards.manifest.files if f.path == file), None)
    if listed is None:
        example = shards.manifest.files[0].path
        raise UserError(f"there is no shard {file!r} in {shards.root}; name it as the manifest does, e.g. {example}")
    if not 0 <= row < listed.rows:
        raise UserError(f"{file} has rows 0 to {listed.rows - 1}, not {row}")
    stream = shards.stream(listed.source, listed.split)
    (start,), (length,) = (array.tolist() for array in stream.places(file, [row]))
    (span,) = stream.documents(start, 1)
    return Place(span.doc_id, None, listed.source, listed.split, file, row, start, length, f"row {row}")


def spans_of_step(shards: Shards, schedule: Schedule, step: int, limit: int) -> list[Span]:
    """What the trainer reads in a step, in the order of its samples. Raises UserError for a step outside."""
    if not 0 <= step < schedule.total_steps:
        raise UserError(f"the schedule has steps 0 to {schedule.total_steps - 1}, not {step}")
    plan, phase, spans = schedule.step_plan(step), schedule.config.phases[schedule.step_plan(step).phase], list[Span]()
    for index in range(plan.first_sample, plan.first_sample + plan.samples):
        sample = schedule.sample(plan.phase, index)
        stream, counts = shards.stream(sample.source), schedule.layout.get(sample.source, {}).get(unit_of(phase), [])
        for start, length in rows_of(stream, phase.packing, sample.length, counts).pieces(sample.start).tolist():
            spans += stream.documents(start, length)
        if len(spans) >= limit:
            break
    return spans[:limit]


def trace_step(rundir: RunDir, plan: dict[str, Any], step: int, limit: int) -> list[dict[str, Any]]:
    """The pages behind a step: ORIGIN, and source, shard, its row and which tokens of the document. Raises UserError."""
    shards = Shards(rundir.shards)
    spans = spans_of_step(shards, read_schedule(rundir.schedule, *shards.manifest.lineage), step, limit)
    sources = {file.path: file.source for file in shards.manifest.files}
    return [
        {"source": sources[span.file], "shard": span.file, "row": span.row, "tokens": (span.start, span.start + span.length)}
        | {name: page[name] for name in ORIGIN}
        for span, page in zip(spans, pages(rundir, plan, shards, spans), strict=True)
    ]


def step_finder(shards: Shards, schedule: Schedule | None) -> Callable[[Place], list[int]]:
    """The steps that read a document; none of one that is held out, or without a schedule."""
    rows = finder(shards, schedule.layout) if schedule is not None else None

    def steps(place: Place) -> list[int]:
        if schedule is None or place.split != "train" or place.source not in schedule.source_tokens:
            return []
        return schedule.steps_seeing(place.source, place.start, place.length, rows)

    return steps


def pages(rundir: RunDir, plan: dict[str, Any], shards: Shards, rows: Sequence[Place | Span]) -> list[dict[str, Any]]:
    """What is known of rows of the shards, in their order: ORIGIN and the measures. Raises UserError where nothing is."""
    told = {file.path for file in shards.manifest.files if file.provenance}
    by_file: dict[str, dict[int, dict[str, Any]]] = {}
    for file in sorted({row.file for row in rows} & told):
        here = sorted({row.row for row in rows if row.file == file})
        by_file[file] = dict(zip(here, provenance(shards, file, here), strict=True))
    rest = {row.doc_id for row in rows if row.file not in told}
    by_id = {page["doc_id"]: page for page in documents(rundir, plan, outcome=KEPT, doc_ids=rest)} if rest else {}
    found = [by_file[row.file][row.row] if row.file in told else by_id.get(row.doc_id) for row in rows]
    for row, page in zip(rows, found, strict=True):
        if page is None or page["doc_id"] != row.doc_id:
            raise UserError(f"document {row.doc_id.hex()} of {row.file} is in no table of this run; was OUT changed by hand?")
    return [page for page in found if page is not None]


def stages_of(plan: dict[str, Any], page: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The stages that a document went through, in order, with their configs as the plan has them."""
    source = next((f["source"] for f in plan["files"] if f["path"] == page["file"]), None)
    found = []
    for stage in (stage for step in plan["steps"] for stage in step["stages"]):
        seen = (
            stage["source"] == source if stage["kind"] == "reader" else not stage.get("sources") or source in stage["sources"]
        )
        if seen:
            found.append((stage["name"], stage["config"]))
    return found


def passed(plan: dict[str, Any], page: dict[str, Any]) -> list[Judged]:
    """The rules that the document passed, as the recorded plan has them, with what was measured."""
    found = []
    for _, config in stages_of(plan, page):
        if isinstance(config, dict) and {"extra", "gopher_quality"} <= config.keys():
            for rule in all_rules(stored_config(config)):
                bound, measured = bound_of(rule, page["lang"]), page.get(rule.measure)
                if bound is not None and measured is not None:
                    found.append(Judged(rule.name, rule.measure, measured, bound))
    return found


def measures_of(page: dict[str, Any]) -> dict[str, float]:
    """The numbers that stages have measured on a document."""
    return {k: v for k, v in page.items() if k not in (*ORIGIN, "length") and isinstance(v, (int, float))}


def removed_for(rundir: RunDir, doc_id: bytes) -> list[dict[str, Any]]:
    """What the run removed as duplicates of a document, or of one that was removed as its duplicate: rows of OUT/removed."""
    if not rundir.removed.is_dir():
        return []
    removed = ds.dataset(rundir.removed, format="parquet", ignore_prefixes=IGNORED)
    found, frontier = list[dict[str, Any]](), [doc_id]
    while frontier:
        rows = removed.to_table(filter=pc.field("duplicate_of").isin(pa.array(frontier, pa.binary()))).to_pylist()
        found += rows
        frontier = sorted({row["doc_id"] for row in rows} - {doc_id})
    return found
