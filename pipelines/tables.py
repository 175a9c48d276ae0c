"""A step's table on disk: Parquet below FOLDER/outcome=.../, written by the workers, counted as it lies there.

    rows with an outcome -> [ a file for each task and outcome -> its counts, read back ] -> the ledger
                            `------------ in the worker, by pyarrow ------------------'

Rows that Python made would else go through Java once more, one by one, before they lie in the same files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.recipe import Table
from pipelines.rundir import BESIDE
from pipelines.schema import DECISION, KEPT, OUTCOME
from pipelines.shards.manifest import temporary_name
from pipelines.spark import Pass, spark_path, to_spark_schema

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

GROUP_BYTES = 32 << 20  # of rows that a worker holds for each outcome: a row group
_UNLIKE = {"doc_id", "text", "html"}  # where no value comes twice: a dictionary of them is work for nothing

# What a worker says of its files.
COUNTS = pa.schema(
    [*((name, pa.string()) for name in ("file", "stage", "drop_rule", "error_class", "outcome")), ("rows", pa.int64())]
)
_KINDS = COUNTS.names[:4]  # read back from a file; the outcome is its folder's


def row_schema(table: pa.Schema) -> pa.Schema:
    """The columns of the rows that go on: a step's table without decision and outcome."""
    gone = {*DECISION.names, *OUTCOME.names}
    return pa.schema([f for f in table if f.name not in gone])


def read_table(spark: SparkSession, folder: Path, schema: pa.Schema, outcome: str | None = KEPT) -> DataFrame:
    """A step's table: the rows of one outcome without decision columns, or (None) everything."""
    table = spark.read.schema(to_spark_schema(schema)).parquet(spark_path(folder))
    if outcome is None:
        return table
    return table.where(table["outcome"] == outcome).select(*row_schema(schema).names)


def write_table(table: Table, schema: pa.Schema, folder: Path, work: Pass = iter) -> list[dict[str, Any]]:
    """Write a step's table of this schema, and what its stage put beside it; the COUNTS of all files. `work`: what a worker
    does to the rows before it writes them.

    A file is named after its task, and one that is tried again puts the same rows in its place, in one rename.
    """
    from pyspark import TaskContext
    from pyspark.sql import functions as f

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task = TaskContext.get()
        yield from write_part(work(batches), schema, folder.absolute(), task.partitionId() if task else 0)

    written = table.rows.mapInArrow(write, to_spark_schema(COUNTS))
    counts: list[dict[str, Any]] = written.groupBy(*_KINDS, "outcome").agg(f.sum("rows").alias("rows")).toArrow().to_pylist()
    for left_over in folder.glob("outcome=*/.*.tmp"):
        left_over.unlink()  # of a worker that was killed
    for name, beside in table.beside.items():
        beside.write.parquet(spark_path(folder / BESIDE / name))
    return counts


def write_part(batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, number: int) -> Iterator[pa.RecordBatch]:
    """Write the rows of task `number`, in order; the COUNTS of what then lies in its files."""
    files: dict[str, _File] = {}
    with ExitStack() as stack:
        for batch in batches:
            for outcome in pc.unique(batch["outcome"]).to_pylist():
                if outcome not in files:
                    path = folder / f"outcome={outcome}" / f"part-{number:05d}.parquet"
                    files[outcome] = stack.enter_context(_File(path, schema))
                files[outcome].add(batch.filter(pc.equal(batch["outcome"], outcome)))
    for outcome, file in files.items():
        yield from _count(file.path, outcome)


def _count(path: Path, outcome: str) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            found = file.read_row_group(group, _KINDS).group_by(_KINDS).aggregate([([], "count_all")])
            columns = [*found.select(_KINDS).columns, pa.array([outcome] * len(found)), found["count_all"]]
            yield from pa.Table.from_arrays(columns, schema=COUNTS).combine_chunks().to_batches()


class _File:
    """A Parquet file that appears when it is whole: all rows of a table's part that have one outcome."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._temporary = path, temporary_name(path)
        self._schema = pa.schema([f for f in schema if f.name != "outcome"])
        few = [name for name in self._schema.names if name not in _UNLIKE]
        self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd", use_dictionary=few)
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Rows of the table's columns, in any order of these."""
        self._held.append(rows.select(self._schema.names).cast(self._schema))
        self._bytes += rows.nbytes
        if self._bytes >= GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._held, self._schema))
        self._held, self._bytes = [], 0

    def __enter__(self) -> _File:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._held:
            self._write()
        self._writer.close()
        if kind is None:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink()
