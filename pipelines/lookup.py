"""Questions to a finished run, answered from its files without Spark: inspect a document, trace a token to its page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.errors import UserError
from pipelines.rundir import RunDir
from pipelines.schedule import ScheduleError, read_schedule
from pipelines.schema import DROPPED, KEPT, QUARANTINED
from pipelines.shards import ShardError, Shards, Span

IGNORED = [".", "_", "manifest"]  # what lies in a step's folder besides Parquet
PROVENANCE = ("doc_id", "source", "url", "file", "offset", "record_id")


def tables(rundir: RunDir, plan: dict[str, Any]) -> Iterator[tuple[str, ds.Dataset]]:
    """The run's complete tables in order, by folder name, as datasets with the outcome as a column."""
    outcome = ds.partitioning(pa.schema([("outcome", pa.string())]), flavor="hive")
    for step in plan["steps"]:
        folder = rundir.path / step["directory"]
        if rundir.manifest(folder, step["fingerprint"]) is not None:
            yield step["directory"], ds.dataset(folder, format="parquet", partitioning=outcome, ignore_prefixes=IGNORED)


def documents(
    rundir: RunDir,
    plan: dict[str, Any],
    *,
    outcome: str | None = None,
    rule: str | None = None,
    url: str | None = None,
    doc_ids: Iterable[bytes] | None = None,
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the run that match: dropped and quarantined ones wherever they left, kept ones from the last table.

    `rule` is a rule ("gopher_quality.min_words"), its prefix ("gopher_quality"), or an error class; `url` a part of the URL.
    """
    found = 0
    made = list(tables(rundir, plan))
    wanted = [*doc_ids] if doc_ids is not None else None
    for index, (folder, table) in enumerate(made):
        names = set(table.schema.names)
        last = index == len(made) - 1
        outcomes = [o for o in (DROPPED, QUARANTINED, *([KEPT] if last else [])) if outcome in (None, o)]
        where = pc.field("outcome").isin(pa.array(outcomes, pa.string()))
        if rule is not None:
            where &= pc.starts_with(pc.field("drop_rule"), rule) | (pc.field("error_class") == rule)
        if url is not None:
            where &= pc.match_substring(pc.field("url"), url)
        if wanted is not None:
            where &= pc.field("doc_id").isin(pa.array(wanted, pa.binary()))
        for batch in table.to_batches(columns=sorted(names - {"html"}), filter=where):
            for row in batch.to_pylist():
                if limit is not None and found >= limit:
                    return
                found += 1
                yield {"table": folder, **row}


def trace_row(rundir: RunDir, plan: dict[str, Any], shard: str, row: int) -> list[dict[str, Any]]:
    """The page behind a row of a shard file ("web-en/train-00000.arrow"). Raises UserError where there is no such row."""
    path = rundir.shards / shard
    if not path.is_file():
        raise UserError(
            f"there is no shard {shard!r} in {rundir.shards}; name it as the manifest does, e.g. web-en/train-00000.arrow"
        )
    with pa.memory_map(str(path)) as mapped:
        ids = pa.ipc.open_file(mapped).read_all()["doc_id"]
        if not 0 <= row < len(ids):
            raise UserError(f"{shard} has rows 0 to {len(ids) - 1}, not {row}")
        doc_id = ids[row].as_py()
    return _pages(rundir, plan, [Span(doc_id, shard, row, 0, 0)])


def trace_step(rundir: RunDir, plan: dict[str, Any], step: int, limit: int) -> list[dict[str, Any]]:
    """The pages whose tokens the trainer sees in a step, in the order of its samples. Raises UserError for a step outside."""
    try:
        schedule, shards = read_schedule(rundir.schedule), Shards(rundir.shards)
        if not 0 <= step < schedule.total_steps:
            raise UserError(f"the schedule has steps 0 to {schedule.total_steps - 1}, not {step}")
        plan_ = schedule.step_plan(step)
        spans: list[Span] = []
        for index in range(plan_.first_sample, plan_.first_sample + plan_.samples):
            sample = schedule.sample(plan_.phase, index)
            spans += shards.stream(sample.source).documents(sample.start, sample.length)
            if len(spans) >= limit:
                break
    except (ShardError, ScheduleError) as error:
        raise UserError(str(error)) from error
    return _pages(rundir, plan, spans[:limit])


def _pages(rundir: RunDir, plan: dict[str, Any], spans: list[Span]) -> list[dict[str, Any]]:
    rows = documents(rundir, plan, outcome=KEPT, doc_ids={s.doc_id for s in spans})
    by_id = {row["doc_id"]: row for row in rows}
    if missing := [s for s in spans if s.doc_id not in by_id]:
        raise UserError(
            f"document {missing[0].doc_id.hex()} of {missing[0].file} is in no table of this run; was OUT changed by hand?"
        )
    return [
        {
            "shard": span.file,
            "row": span.row,
            "tokens": (span.start, span.start + span.length),
            **{name: by_id[span.doc_id][name] for name in PROVENANCE},
        }
        for span in spans
    ]
