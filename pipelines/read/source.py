"""WARC files as a Spark data source.

spark.dataSource.register(WarcDataSource)
pages = spark.read.format("headrace.warc").load("crawl/*.warc.gz")
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from pipelines.errors import UserError
from pipelines.read.files import list_files
from pipelines.read.rows import ROW
from pipelines.read.warc import WarcConfig, read_warc


class WarcDataSource(DataSource):
    """The rows of `read_warc`. Options: `path` (file, folder or glob), `source`, and the fields of WarcConfig as JSON."""

    @classmethod
    def name(cls) -> str:
        """The name of the format."""
        return "headrace.warc"

    def schema(self) -> StructType:
        """RECORD and DECISION."""
        schema: StructType = from_arrow_schema(ROW)
        return schema

    def reader(self, schema: StructType) -> WarcSourceReader:
        """One partition a file. Raises UserError for a missing path or an option that is none."""
        options = dict(self.options)
        path, source = options.pop("path", ""), options.pop("source", "warc")
        known = {f.name.lower(): f.name for f in fields(WarcConfig)}
        unknown = set(options) - set(known)
        if unknown:
            raise UserError(f"headrace.warc has no option {sorted(unknown)}; it has path, source, {', '.join(known.values())}")
        values: dict[str, Any] = {known[k]: json.loads(v) for k, v in options.items()}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return WarcSourceReader([f["path"] for f in list_files(path)], source, WarcConfig(**values))


class WarcSourceReader(DataSourceReader):
    """Reads the files of one load."""

    def __init__(self, paths: list[str], source: str, cfg: WarcConfig) -> None:
        self.paths, self.source, self.cfg = paths, source, cfg

    def partitions(self) -> list[InputPartition]:
        """One a file."""
        return [InputPartition(path) for path in self.paths]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """The batches of the partition's file."""
        return read_warc(partition.value, self.source, self.cfg)  # type: ignore[no-any-return]
