"""Documents in Parquet to shards on Spark, from end to end, against the encoder alone on the same texts."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from bench.common import Row, interleave, speed_rows
from pipelines.schema import RECORD
from pipelines.spark import session
from pipelines.tokens.encode import EncodeConfig, encode_array, tokenizer_info
from pipelines.tokens.train import TOKENIZER, TokenizerConfig, save, train_tokenizer
from pipelines.tokens.write import ShardConfig, write_shards

FILES = 4
MEASURES = 16  # columns of numbers, as filters leave them


def shuffled(kinds: dict[str, list[str]], size: int) -> Iterator[tuple[str, str]]:
    """(kind, text) of `size` bytes or some more: each document again and again, its lines in another order each time."""
    rng, made = random.Random(0), 0
    documents = [(kind, text) for kind, texts in kinds.items() for text in texts]
    while made < size:
        rng.shuffle(documents)
        for kind, text in documents:
            lines = text.split("\n")
            rng.shuffle(lines)
            yield kind, "\n".join(lines)
            made += len(text.encode())
            if made >= size:
                break


def write_table(documents: Sequence[tuple[str, str]], folder: Path) -> None:
    """Parquet as the last stage of a run leaves it: all columns of a record, and measures."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(FILES):
        columns: dict[str, list[object]] = {name: [] for name in RECORD.names}
        for i, (kind, text) in list(enumerate(documents))[number::FILES]:
            digest = hashlib.blake2b(b"%d" % i, digest_size=16)
            row = {"doc_id": digest.digest(), "source": kind, "text": text, "lang": "en", "charset": "utf-8"}
            row |= {"url": f"https://site-{i % 997}.example/{digest.hexdigest()}.html", "date": "2026-01-02T03:04:05Z"}
            row |= {"file": f"crawl/{i % 50:05d}.warc.gz", "offset": 4099 * i, "length": len(text)}
            row |= {"record_id": f"<urn:uuid:{digest.hexdigest()}>", "html": None}
            for name, column in columns.items():
                column.append(row[name])
        table = pa.table({field.name: pa.array(columns[field.name], field.type) for field in RECORD})
        for measure in range(MEASURES):
            table = table.append_column(f"measure_{measure}", pa.array(draw.random(table.num_rows).round(4)))
        pq.write_table(table, folder / f"part-{number}.parquet", compression="zstd")


def spark_rows(kinds: dict[str, list[str]], folder: Path, size: int, entries: int, repeat: int) -> list[Row]:
    """MB/s a core of the whole job. Spark runs already, and has done a small job; its share of each job counts."""
    documents = list(shuffled(kinds, size))
    save(train_tokenizer([text for _, text in documents[:: max(1, size >> 24)]], TokenizerConfig(vocab_size=entries)), folder)
    info = tokenizer_info(folder / TOKENIZER)
    cfg = EncodeConfig(info.path, info.sha256)
    write_table(documents, folder / "table")
    write_table(documents[:500], folder / "small")
    parts = sorted((folder / "table").iterdir())
    batches = [b for p in parts for b in pq.read_table(p, columns=["doc_id", "text"]).to_batches(2000)]
    amount = sum(len(text.encode()) for _, text in documents) / 1e6
    del documents
    running = SparkSession.getActiveSession() is not None
    spark = session("local[1]", app="bench")
    try:

        def ours(table: str = "table") -> int:
            root = Path(tempfile.mkdtemp(dir=folder))
            return sum(f.tokens for f in write_shards(spark, folder / table, ShardConfig(), root, info, "bench", "bench").files)

        def bare() -> int:
            return sum(int(encode_array(batch.column("text"), cfg, batch.column("doc_id"))[1][-1]) for batch in batches)

        ours("small")
        seconds, tokens = interleave({"ours": ours, "the encoder alone": bare}, repeat)
    finally:
        if not running:
            spark.stop()
    if len(set(tokens.values())) > 1:
        raise RuntimeError(f"tokens are not the same: {tokens}")
    return speed_rows("spark encode", "MB/s", amount, seconds, "ours")
