"""Reading WARC: our reader against FastWARC and warcio, and our Spark data source against the direct way into Spark."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from fastwarc.warc import ArchiveIterator, WarcRecordType

from bench.common import About, Row, installed, interleave, row, run_bench, speed_rows, version
from pipelines.read.files import list_files
from pipelines.read.rows import ROW
from pipelines.read.source import WarcDataSource
from pipelines.read.warc import WarcConfig, read_warc
from pipelines.spark import session, to_spark_schema

ABOUT = About(
    title="Reading",
    compared=(
        "`records`: all records of the crawl's WARC files (gzip), one core. Ours gives finished rows: damage skipped, HTTP "
        "codings undone, type sniffed, charset decided and the page decoded; FastWARC and warcio give records with parsed HTTP "
        "headers and the raw body read, undecoded, and end a file at its first damage. `Spark`: the same rows counted in "
        "Spark, on one core, after a warm-up, by the clock: the data source `headrace.warc` against the reader inside "
        "mapInArrow, which is what a run uses."
    ),
    peers=("FastWARC", "warcio", "pyspark"),
)
REPEAT = 3


def plain(paths: list[str]) -> list[Row]:
    """Rows of the readers without Spark."""

    def ours() -> int:
        return sum(batch.num_rows for path in paths for batch in read_warc(path, "web", WarcConfig()))

    def fastwarc() -> int:
        count = 0
        for path in paths:
            with open(path, "rb") as file:
                for record in ArchiveIterator(file, record_types=WarcRecordType.any_type, parse_http=True):
                    record.reader.read()
                    count += 1
        return count

    contestants: dict[str, Callable[[], int]] = {"ours": ours, version("FastWARC"): fastwarc}
    if installed("warcio"):
        from warcio.archiveiterator import ArchiveIterator as Warcio

        def warcio() -> int:
            count = 0
            for path in paths:
                with open(path, "rb") as file:
                    for record in Warcio(file):
                        record.content_stream().read()
                        count += 1
            return count

        contestants[version("warcio")] = warcio
    seconds, counts = interleave(contestants, REPEAT)
    return speed_rows("records", "records/s", float(counts["ours"]), seconds, "ours")


def through_spark(paths: list[str]) -> list[Row]:
    """The data source against the direct way, by the clock (the work is in other processes)."""
    spark = session("local[1]", app="bench-read")
    spark.dataSource.register(WarcDataSource)
    files = spark.createDataFrame([(path,) for path in paths], "path string").repartition(len(paths)).cache()

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for path in batch["path"].to_pylist():
                yield from read_warc(path, "web", WarcConfig())

    def source() -> Any:
        loaded = spark.read.format("headrace.warc").load(str(Path(paths[0]).parent / "*.warc.gz"))
        return loaded.selectExpr("count(*)", "sum(length(html))").head()

    def direct() -> Any:
        return files.mapInArrow(read, to_spark_schema(ROW)).selectExpr("count(*)", "sum(length(html))").head()

    clock: dict[str, list[float]] = {"source": [], "direct": []}
    if source() != direct():
        raise RuntimeError("the data source and the direct way read different rows")
    for _ in range(REPEAT):
        for name, run in (("source", source), ("direct", direct)):
            start = time.perf_counter()
            run()
            clock[name].append(time.perf_counter() - start)
    spark.stop()
    size = sum(Path(path).stat().st_size for path in paths) / 1e6
    ours, peer = (size / sorted(clock[name])[REPEAT // 2] for name in ("source", "direct"))
    return [row("Spark data source", "MB/s of gzip", ours, peer, "mapInArrow")]


def measure(data: Path) -> list[Row]:
    """The rows of both."""
    paths = [file["path"] for file in list_files(str(data / "crawl" / "*.warc.gz"))]
    return [*plain(paths), *through_spark(paths)]


if __name__ == "__main__":
    run_bench("read", ABOUT, measure)
