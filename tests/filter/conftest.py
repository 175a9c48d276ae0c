"""Real documents for the filters: books, code and crawled pages from examples/."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.filter.lines import C4LinesConfig, c4_lines
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.schema import RECORD, record_batch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def real_docs() -> pa.RecordBatch:
    """About 250 texts: prose in English and Chinese, code, and crawled pages in several languages, long ones cut."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    books = pq.read_table(EXAMPLES / "books.parquet").select(["text", "lang"]).to_pylist()[::6]
    with gzip.open(EXAMPLES / "code.jsonl.gz", "rt", encoding="utf-8") as file:
        code = [json.loads(line) for _, line in zip(range(40), file, strict=False)]
    pages = []
    for path in sorted((EXAMPLES / "crawl").glob("*.warc.gz"))[:3]:
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                html = record.reader.read().decode(record.http_charset or "utf-8", "replace")
                pages.append({"text": extract_plain_text(html, main_content=True), "lang": None})
    rows = [*books, *code, *pages[::3]]
    texts = [row["text"][:6000] for row in rows]
    langs = [row["lang"] if row["lang"] in ("en", "zh") else ("zh" if "\u7684" in row["text"] else "en") for row in rows]
    return record_batch({"text": texts, "lang": langs}, RECORD)


@pytest.fixture(scope="session")
def measured(real_docs: pa.RecordBatch) -> pa.RecordBatch:
    """The real documents with every column that a rule may ask for."""
    pages = c4_lines(real_docs, C4LinesConfig())
    docs = measure(real_docs, MeasureConfig())
    for name in pages.schema.names:
        if name.startswith("c4_"):
            docs = docs.append_column(name, pages[name])
    return docs
