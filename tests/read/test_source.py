from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.read.warc import WarcConfig, read_warc


@pytest.mark.spark
def test_the_spark_data_source_gives_what_the_reader_gives(spark: Any, tmp_path: Path, build: SimpleNamespace) -> None:
    from pipelines.read.source import WarcDataSource

    for n in range(3):
        records = [build.record("response", build.http(build.page(i + 10 * n)), i + 10 * n) for i in range(4)]
        (tmp_path / f"{n}.warc.gz").write_bytes(b"".join(map(build.member, records)) + b"damage")
    direct = [
        r for n in range(3) for b in read_warc(str(tmp_path / f"{n}.warc.gz"), "web", WarcConfig()) for r in b.to_pylist()
    ]
    spark.dataSource.register(WarcDataSource)
    frame = spark.read.format("headrace.warc").option("source", "web").option("batch_rows", 3).load(str(tmp_path / "*.warc.gz"))
    rows = [{k: bytes(v) if isinstance(v, bytearray) else v for k, v in r.asDict().items()} for r in frame.collect()]
    key = lambda r: (r["file"], r["offset"])  # noqa: E731
    assert sorted(rows, key=key) == sorted(direct, key=key)
    assert sum(r["error_class"] is not None for r in rows) == 3
