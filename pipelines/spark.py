"""Spark at one place: the session and the one mapInArrow adapter.

    files -> [ reader | batch stage | batch stage ... -> rows with an outcome -> Parquet (tables.py) ]
             `---------- one pass, one mapInArrow -------------------------------------------------'

`flow` is that pass without Spark: a generator from batches to batches, so that every stage can be tried without a JVM.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.java import class_archive, ensure_java
from pipelines.recipe import Input, Stage, Step, Table
from pipelines.schema import (
    DECISION,
    DROPPED,
    KEPT,
    OUTCOME,
    QUARANTINED,
    RECORD,
    quarantine,
    record_batch,
    undecided,
    with_decision,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BATCH_BYTES = 64 << 20  # an Arrow batch between the JVM and Python, or between two stages
_LOGGING = Path(__file__).parent / "log4j2.properties"
# On few cores the optimising compiler takes more than it gives: 22 of 66 CPU seconds of Java over 100,000 documents.
_TUNING = "-XX:+UseParallelGC" + (" -XX:TieredStopAtLevel=1" if (os.cpu_count() or 1) <= 4 else "")
Count = Callable[[str, int, float], None]  # (stage, rows in, seconds)
Batches = Iterator[pa.RecordBatch]
Pass = Callable[[Batches], Batches]

# What a reader's input rows are: one a file.
FILES = pa.schema([("source", pa.string()), ("path", pa.string()), ("bytes", pa.int64())])


def session(master: str | None = None, *, app: str = "headrace", settings: Mapping[str, str] | None = None) -> SparkSession:
    """The Spark session: local mode unless `master` (or spark-submit) names a cluster.

    It brings its own Java where this machine has none (`pipelines.java`); the workers run this Python, or PYSPARK_PYTHON. Local
    mode keeps the shuffle small; the workers of a cluster are sent the packages as they are here (docs/cluster.md). Settings
    of spark-submit win over ours, and what it ships is not shipped again.
    """
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    given = SparkConf()
    master = master or given.get("spark.master", None) or f"local[{os.cpu_count()}]"
    conf = {
        "spark.sql.session.timeZone": "UTC",
        # Spark bounds Arrow batches by rows only (10,000: 1.4 GB of pages); bound them by bytes as well
        "spark.sql.execution.arrow.maxRecordsPerBatch": "2000",
        "spark.sql.execution.arrow.maxBytesPerBatch": str(BATCH_BYTES),
        "spark.sql.parquet.compression.codec": "zstd",
        # rows of three outcomes go to three folders without a sort of the text before the write
        "spark.sql.maxConcurrentOutputFileWriters": "16",
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.pyspark.udf.faulthandler.enabled": "true",
        "spark.cleaner.referenceTracking.cleanCheckpoints": "true",  # files of `checkpoints` go when no table needs them
    }
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # by spark-submit, which has started Java and told the workers everything
    if not submitted:
        ensure_java()
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else the first python3 on the PATH runs the workers
    if is_local(master):
        conf |= {
            "spark.driver.memory": "2g",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.files.maxPartitionBytes": str(32 << 20),  # a few compressed files are work for all cores
            "spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 1)),
            # the default ones, so that who gives spark.driver.extraJavaOptions adds to them
            "spark.driver.defaultJavaOptions": f"-Dlog4j2.configurationFile={_LOGGING} {_TUNING} {_sharing()}".rstrip(),
        }
    builder = SparkSession.builder.master(master).appName(app)
    for key, value in (conf | dict(settings or {})).items():
        if not given.contains(key):
            builder = builder.config(key, value)
    running = SparkSession.getActiveSession() is not None
    spark = builder.getOrCreate()
    if not (submitted or running or is_local(str(spark.sparkContext.master))):
        _ship(spark)
    return spark


def is_local(master: str) -> bool:
    """Whether a master is this process alone: then no executor can be lost, and all see the same files and modules."""
    return master == "local" or master.startswith("local[")


def _sharing() -> str:
    """The options with which Java maps the classes of Spark that `pipelines.warm` archived; silent where they do not fit."""
    return f"-Xlog:disable -XX:SharedArchiveFile={archive}" if (archive := class_archive()).is_file() else ""


@contextmanager
def checkpoints(spark: SparkSession, out: Path) -> Iterator[None]:
    """Inside, `components.cut` writes to a temporary folder below OUT, gone at the end: a lost executor does no harm.

    Nothing in local mode, or where the session has a checkpoint folder (spark.checkpoint.dir). All workers must reach OUT.
    """
    context = spark.sparkContext
    if is_local(str(context.master)) or context.getCheckpointDir() is not None:
        yield
        return
    folder = Path(tempfile.mkdtemp(prefix=".tmp-checkpoints-", dir=out))
    context.setCheckpointDir(spark_path(folder))
    try:
        yield
    finally:
        context._jsc.sc().setCheckpointDir(None)  # a session may live longer than the folder
        shutil.rmtree(folder, ignore_errors=True)  # the cleaner may be at work in it; the next run removes what stays


def _ship(spark: SparkSession) -> None:
    """Send the packages that a worker loads; not where they lie in a wheel themselves."""
    root = Path(__file__).parents[1]
    files = [f for name in ("pipelines", "classifiers") for f in sorted((root / name).rglob("*")) if f.is_file()]
    if not files:
        return
    folder = tempfile.mkdtemp(prefix="headrace-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # executors that start later ask the driver for it too
    archive = f"{folder}/headrace.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in files:
            if "__pycache__" not in file.parts:
                zipped.write(file, file.relative_to(root))
    spark.sparkContext.addPyFile(archive)


# --- the pass -----------------------------------------------------------------------------------------------------------


def step_schema(step: Step, before: pa.Schema) -> pa.Schema:
    """The schema of a step's table, given that of the table it reads (RECORD for the first): columns, decision, outcome."""
    schema = before
    for stage in step.stages:
        schema = stage_schema(schema, stage)
    return pa.schema([*schema, *DECISION, *OUTCOME])


def stage_schema(before: pa.Schema, stage: Stage) -> pa.Schema:
    """The columns a row has after a stage: `before` less what the stage removes, plus what it adds."""
    added = stage.adds
    kept = [f for f in before if f.name not in added.names and f.name not in stage.spec.removes]
    return pa.schema([*kept, *added])


def flow(
    batches: Iterator[pa.RecordBatch], stages: tuple[Stage, ...], schema: pa.Schema, count: Count
) -> Iterator[pa.RecordBatch]:
    """Send batches through batch stages; yield every row once, with its outcome and the stage that decided it.

    `schema` is that of the result (`step_schema`). Raises RuntimeError if a stage loses, adds or reorders rows.
    """
    for whole in batches:
        for batch in _pieces(whole):
            name = "read"
            for stage in stages:
                batch, *decided = _split(batch, name)
                yield from (_conform(d, schema) for d in decided if d.num_rows)
                if batch.num_rows == 0:
                    break
                name = stage.name
                started = time.perf_counter()
                batch = _run_stage(stage, batch)
                count(name, batch.num_rows, time.perf_counter() - started)
            yield from (_conform(part, schema) for part in _split(batch, name) if part.num_rows)


def read_flow(rows: Iterator[pa.RecordBatch], inputs: tuple[Input, ...], count: Count) -> Iterator[pa.RecordBatch]:
    """Batches of RECORD + DECISION from FILES rows. A file whose reader fails is quarantined from where the reader stood."""
    by_source = {i.source: i for i in inputs}
    for files in rows:
        for file in files.to_pylist():
            used = by_source[file["source"]]
            end, started = 0, time.perf_counter()
            try:
                for batch in used.read(file["path"], file["source"], used.cfg):
                    if batch.num_rows:
                        end = max(end, pc.max(pc.add(batch["offset"], batch["length"])).as_py() or 0)
                    count("read", batch.num_rows, time.perf_counter() - started)
                    yield batch
                    started = time.perf_counter()
            except (OSError, EOFError, ValueError, pa.ArrowException) as error:
                rest = {"source": file["source"], "file": file["path"], "offset": end, "length": max(file["bytes"] - end, 0)}
                row = record_batch({k: [v] for k, v in rest.items()}, RECORD)
                count("read", 1, time.perf_counter() - started)
                yield quarantine(row, [True], type(error).__name__, str(error))


def _run_stage(stage: Stage, batch: pa.RecordBatch) -> pa.RecordBatch:
    expected = pa.schema([*stage_schema(batch.schema, stage), *DECISION])
    if stage.sources:
        seen = pc.is_in(batch["source"], pa.array(stage.sources, pa.string()))
        passing = _conform(batch.filter(pc.invert(seen)), expected)
        return _concat([_try_stage(stage, batch.filter(seen), expected), passing])
    return _try_stage(stage, batch, expected)


def _try_stage(stage: Stage, batch: pa.RecordBatch, expected: pa.Schema) -> pa.RecordBatch:
    if batch.num_rows == 0:
        return _conform(batch, expected)
    try:
        result = stage.run(batch, stage.cfg)
    except (UserError, ImportError, MemoryError):
        raise
    except Exception as error:  # a document breaks the stage: find it, quarantine it, keep the others
        if batch.num_rows > 1:
            half = batch.num_rows // 2
            return _concat([_try_stage(stage, part, expected) for part in (batch.slice(0, half), batch.slice(half))])
        return _conform(quarantine(batch, [True], type(error).__name__, str(error)), expected)
    if result.num_rows != batch.num_rows or not result["doc_id"].equals(batch["doc_id"]):
        raise RuntimeError(
            f"stage {stage.name!r} returned {result.num_rows} rows for {batch.num_rows}, or in another order; "
            "a batch stage marks rows (schema.drop, schema.quarantine) and never removes or moves one"
        )
    return _conform(with_decision(result), expected)


def _split(batch: pa.RecordBatch, stage: str) -> tuple[pa.RecordBatch, pa.RecordBatch, pa.RecordBatch]:
    """(kept, dropped, quarantined) rows of a batch with or without DECISION columns; the last two get outcome and stage."""
    batch = with_decision(batch)
    bad = pc.is_valid(batch["error_class"])
    gone = pc.and_(pc.is_valid(batch["drop_rule"]), pc.invert(bad))
    kept = batch.filter(undecided(batch)).select([n for n in batch.schema.names if n not in DECISION.names])
    return kept, _outcome(batch.filter(gone), DROPPED, stage), _outcome(batch.filter(bad), QUARANTINED, stage)


def _outcome(batch: pa.RecordBatch, outcome: str, stage: str) -> pa.RecordBatch:
    return batch.append_column("outcome", _fill(outcome, batch.num_rows)).append_column("stage", _fill(stage, batch.num_rows))


def _concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    columns = [pa.concat_arrays([b.column(i) for b in batches]) for i in range(batches[0].num_columns)]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


def _fill(value: str, rows: int) -> pa.Array:
    return pa.array([value] * rows, pa.string())


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with exactly the schema's columns: null (or KEPT, for outcome) where it has none."""
    columns = []
    for field in schema:
        index = batch.schema.get_field_index(field.name)
        if index >= 0:
            column = batch.column(index)
            columns.append(column if column.type == field.type else column.cast(field.type))
        elif field.name == "outcome":
            columns.append(_fill(KEPT, batch.num_rows))
        else:
            columns.append(pa.nulls(batch.num_rows, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slices of at most about BATCH_BYTES."""
    rows = max(1, batch.num_rows * BATCH_BYTES // max(batch.nbytes, 1))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


# --- tables -------------------------------------------------------------------------------------------------------------


def batch_pass(step: Step, schema: pa.Schema, count: Count, files: Callable[[Batches], Batches] | None = None) -> Pass:
    """The fused pass of a step, as a function of batches: of the kept rows of the step before, or of what `files` turns into
    FILES rows (`files_frame`) if the step reads."""
    inputs, stages = step.inputs, step.stages

    def work(batches: Batches) -> Batches:
        if files is not None:
            batches = read_flow(files(batches), inputs, count)
        return flow(batches, stages, schema, count)

    return work


def run_table_step(source: DataFrame, step: Step, schema: pa.Schema) -> Table:
    """A table stage over the kept rows of the step before; outcome and stage are written from its decision."""
    from pyspark.sql import functions as f

    (stage,) = step.stages
    seen = f.col("source").isin(*stage.sources) if stage.sources else None
    made = stage.run(source if seen is None else source.where(seen), stage.cfg)
    made = made if isinstance(made, Table) else Table(made)
    result: DataFrame = made.rows
    if seen is not None:
        passing = source.where(~seen | f.col("source").isNull())
        result = result.unionByName(passing, allowMissingColumns=True)
    missing = {*schema.names} - {*OUTCOME.names} - {*result.columns}
    if missing:
        raise RuntimeError(f"table stage {stage.name!r} lacks the columns {sorted(missing)} that it declares")
    decided = f.when(f.col("error_class").isNotNull(), QUARANTINED).when(f.col("drop_rule").isNotNull(), DROPPED)
    outcome = decided.otherwise(KEPT)
    result = result.withColumn("outcome", outcome).withColumn("stage", f.when(outcome != KEPT, stage.name))
    return replace(made, rows=result.select(*schema.names))


def files_frame(spark: SparkSession, files: list[dict[str, Any]]) -> tuple[DataFrame, Pass]:
    """A row a file, one a partition, largest first so that no worker ends late; and what makes FILES rows of them in a worker.

    Raises UserError on a cluster for a path that says nothing to a worker, whose working directory is another.
    """
    relative = [f["path"] for f in files if not (f["path"].startswith("/") or "://" in f["path"])]
    if relative and not is_local(str(spark.sparkContext.master)):
        raise UserError(
            f"input {relative[0]!r} is a relative path; on a cluster give paths from the root, which all workers reach"
        )
    ordered = sorted(files, key=lambda f: -f["bytes"])
    rows = spark.sparkContext.broadcast([{name: f[name] for name in FILES.names} for f in ordered])

    def look_up(numbers: Batches) -> Batches:
        for batch in numbers:
            yield pa.RecordBatch.from_pylist([rows.value[number] for number in batch.column(0).to_pylist()], FILES)

    return spark.range(0, len(ordered), numPartitions=len(ordered)), look_up


def to_spark_schema(schema: pa.Schema) -> Any:
    """The Spark StructType of an Arrow schema."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


def spark_path(path: Path) -> str:
    """A path Spark takes for a file of the local or shared file system, whatever its default file system is."""
    return f"file://{path.absolute()}"
