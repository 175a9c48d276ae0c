"""The tables of a finished run, read without Spark: which of its documents match."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.rundir import RunDir
from pipelines.schema import DROPPED, KEPT, QUARANTINED

IGNORED = [".", "_", "manifest"]  # what lies in a step's folder besides Parquet


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
