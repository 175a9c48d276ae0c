"""Documents to shards on Spark: encode, sort by keyed hash or by an order of the recipe's, write.

    Parquet -> [ read | encode | sort ] -> runs -> which rows lie in which shard -> [ find | order | write ] -> shards
               `-- a task a part ----'                                              `----- a task a shard --'

Spark hands out the work; documents and ids go from file to file and never through the JVM, which would take longer over
them than the encoder. Which shard a document lies in and where is a function of the documents alone: the split and the
order are keyed hashes of doc_id, the number of shards of a source follows from its tokens, and a shard is a range of the
order. So the bytes are the same for any partitioning, executor count or retry.
"""

from __future__ import annotations

import operator
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import UserError
from pipelines.shards import MANIFEST, VERSION, Manifest, Order, ShardFile, write_manifest
from pipelines.shards.template import Template
from pipelines.tokens.encode import TokenizerInfo
from pipelines.tokens.gather import Shard, write_from_runs
from pipelines.tokens.place import Mark, Stream, by_hash, by_rank, find_marks
from pipelines.tokens.runs import Plan, Run, columns, packed, parts, write_runs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NOTHING = "there are no documents to write as shards: all were dropped; see the report, or widen the inputs"
RUNS = ".runs"  # in ROOT while shards are written; as large as they are


@dataclass(frozen=True)
class ShardConfig:
    """`target_bytes`: about the bytes of ids a file; `validation_share`: of documents, held out by a hash of doc_id, or of the
    column `group` where the last table has one: what shares a group (the prompt of conversations) is held out together.

    `orders`: sources whose rows shall lie by a column of the last table (a score, a length) instead of by the keyed hash.
    Rows are ranked by the column, then the hash (null and NaN come last), and each `window` ranks are shuffled by the hash: 1
    is the strict order, and few windows a source are a curriculum in so many stages. Raises ValueError.
    """

    target_bytes: int = 256 << 20
    validation_share: float = 0.005
    seed: int = 0
    orders: tuple[Order, ...] = ()

    def __post_init__(self) -> None:
        if self.target_bytes < 1 or not 0 <= self.validation_share < 1:
            raise ValueError(
                f"target_bytes {self.target_bytes} must be positive and validation_share {self.validation_share} in [0, 1)"
            )
        orders = (o if isinstance(o, Order) else Order(*o) for o in self.orders)  # lists, where --set gave them
        object.__setattr__(self, "orders", tuple(sorted(orders, key=operator.attrgetter("source"))))
        sources = [o.source for o in self.orders]
        if len(set(sources)) < len(sources) or any(o.window < 1 for o in self.orders):
            raise ValueError(f"orders {self.orders} must name each source once and have windows of 1 or more")


def write_shards(
    spark: SparkSession,
    table: str | Path,
    cfg: ShardConfig,
    root: str | Path,
    tokenizer: TokenizerInfo,
    recipe: str,
    fingerprint: str,
    template: Template | None = None,
) -> Manifest:
    """Encode the Parquet files of a folder and write ROOT, manifest last; returns the manifest.

    The table has doc_id, source and text; its other columns go into the provenance of the shards. ROOT is a folder that the
    driver and all workers reach under one path. What an earlier, killed run left in it is removed. The driver sees one row a
    run (`runs.RUN_BYTES`) and one a shard. `template`: what conversations were encoded with. Raises UserError if there are no
    documents, or no column to order by.
    """
    table, root = Path(table).absolute(), Path(root).absolute()
    schema = _schema(table, cfg.orders)
    (root / MANIFEST).unlink(missing_ok=True)
    folder = root / RUNS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    context = spark.sparkContext
    try:
        plan = Plan(tokenizer, schema, str(folder), cfg.seed, cfg.validation_share, cfg.orders)
        tasks = list(enumerate(parts(table, context.defaultParallelism)))
        made = context.parallelize(tasks, len(tasks)).flatMap(lambda task: write_runs(*task, plan)).collect()
        streams = _streams(made, cfg)
        shards = _shards(spark, streams, str(folder), cfg)
        sizes = [shard.size for shard in shards]
        groups = packed(shards, sizes, min(cfg.target_bytes, sum(sizes) // (2 * context.defaultParallelism)))
        where = str(folder), str(root), tokenizer.dtype

        def write(group: list[Shard]) -> list[ShardFile | None]:
            return [write_from_runs(shard, streams[shard.source, shard.split], *where) for shard in group]

        written = [f for f in context.parallelize(groups, len(groups)).flatMap(write).collect() if f is not None]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if (got := sum(f.rows for f in written)) != (had := sum(run.rows for run in made)):
        raise RuntimeError(f"{had} documents were encoded and {got} are in the shards; is {root} the same folder everywhere?")
    files = tuple(sorted(written, key=operator.attrgetter("source", "split", "path")))
    _remove_stale(root, {f.path for f in files} | {f.provenance_path for f in files})
    manifest = Manifest(
        version=VERSION,
        dtype=tokenizer.dtype,
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        tokenizer_sha256=tokenizer.sha256,
        recipe=recipe,
        recipe_fingerprint=fingerprint,
        files=files,
        seed=cfg.seed,
        orders=cfg.orders,
        template=asdict(template) if template else None,
    )
    write_manifest(root, manifest)
    return manifest


def _schema(table: Path, orders: tuple[Order, ...]) -> pa.Schema:
    """The columns that are read, by the first file. Raises UserError."""
    first = next(iter(sorted(table.glob("*.parquet"))), None)
    if first is None:
        raise UserError(NOTHING)
    schema = columns(pq.read_schema(first))
    for order in orders:
        kind = schema.field(order.by).type if order.by in schema.names else None
        if kind is None or not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            numbers = [f.name for f in schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
            what = "there is no such column" if kind is None else f"that column is {kind}"
            raise UserError(
                f"shards.orders: source {order.source!r} shall lie by {order.by!r}, but {what} in the last table; "
                f"numbers in it are {', '.join(numbers) or 'none'}"
            )
    return schema


def _streams(runs: list[Run], cfg: ShardConfig) -> dict[Stream, tuple[Run, ...]]:
    """The runs of each source and split, in order. Raises UserError."""
    if not runs:
        raise UserError(NOTHING)
    if all(run.split != "train" for run in runs):
        raise UserError("all documents fell to validation; lower shards.validation_share or add documents")
    sources = {run.source for run in runs}
    for order in cfg.orders:
        if order.source not in sources:
            raise UserError(f"shards.orders names source {order.source!r}; there are {', '.join(sorted(sources))}")
    runs = sorted(runs, key=operator.attrgetter("source", "split", "file", "batch"))
    return {stream: tuple(of) for stream, of in groupby(runs, operator.attrgetter("source", "split"))}


def _shards(spark: SparkSession, streams: Mapping[Stream, tuple[Run, ...]], folder: str, cfg: ShardConfig) -> list[Shard]:
    """Every shard of every stream."""
    windows = {order.source: order.window for order in cfg.orders}
    ordered = [run for (source, _), runs in streams.items() if source in windows for run in runs]
    marks = find_marks(spark, ordered, folder, windows, cfg.target_bytes) if ordered else {}
    shards: list[Shard] = []
    for stream, runs in streams.items():
        rows, size = sum(run.rows for run in runs), sum(run.size for run in runs)
        if stream in marks:
            end = Mark(rows, size, b"")
            shards += by_rank(stream, marks[stream], end, cfg.target_bytes, windows[stream[0]])
        else:
            shards += by_hash(stream, size, cfg.target_bytes)
    return shards


def _remove_stale(root: Path, listed: set[str]) -> None:
    for path in sorted(root.glob("**/*"), reverse=True):  # what a folder holds comes before it
        if path.is_file() and path.relative_to(root).as_posix() not in listed:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
