"""Real documents for the filters: books, code, mathematics and crawled pages from examples/."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.filter.lines import C4LinesConfig, c4_lines
from pipelines.filter.measures import DIALECTS, MeasureConfig, measure
from pipelines.filter.refinedweb import RefinedWebLinesConfig, refinedweb_lines
from pipelines.schema import RECORD, record_batch

EXAMPLES = Path(__file__).parents[2] / "examples"
MOST_CHARS = 4000  # of a text: books and code are cut into pieces of this length, of which every few are taken


def read_lines(name: str) -> list[Any]:
    with gzip.open(EXAMPLES / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="session")
def pages() -> list[str]:
    """The main text of the pages of three of the crawl's files."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    texts = []
    for path in sorted((EXAMPLES / "crawl").glob("*.warc.gz"))[:3]:  # the last one is damaged on purpose
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                html = record.reader.read().decode(record.http_charset or "utf-8", "replace")
                texts.append(extract_plain_text(html, main_content=True))
    return texts


@pytest.fixture(scope="session")
def texts(pages: list[str]) -> list[str]:
    """About 3,500 real texts in many languages and scripts: every book, source file, crawled page, and some mathematics."""
    books = pq.read_table(EXAMPLES / "books.parquet")["text"].to_pylist()
    code = [row["text"] for row in read_lines("code.jsonl.gz")]
    math = [row["text"] for row in read_lines("math.jsonl.gz")[::3]]
    return [text[:MOST_CHARS] for text in (*books, *code, *math, *pages) if text]


@pytest.fixture(scope="session")
def texts_measured(texts: list[str]) -> pa.RecordBatch:
    """Those texts with every measure in every dialect, the language of all taken for English."""
    docs = record_batch({"text": texts, "lang": ["en"] * len(texts)}, RECORD)
    return measure(docs, MeasureConfig(dialects=DIALECTS))


@pytest.fixture(scope="session")
def real_docs(pages: list[str]) -> pa.RecordBatch:
    """About 250 texts: prose in English and Chinese, code, and crawled pages in several languages, long ones cut."""
    books = pq.read_table(EXAMPLES / "books.parquet").select(["text", "lang"]).to_pylist()[::6]
    code = read_lines("code.jsonl.gz")[:40]
    rows = [*books, *code, *({"text": text, "lang": None} for text in pages[::3])]
    texts = [row["text"][:6000] for row in rows]
    langs = [row["lang"] if row["lang"] in ("en", "zh") else ("zh" if "\u7684" in row["text"] else "en") for row in rows]
    return record_batch({"text": texts, "lang": langs}, RECORD)


@pytest.fixture(scope="session")
def measured(real_docs: pa.RecordBatch) -> pa.RecordBatch:
    """The real documents with every column that a rule may ask for."""
    pages = c4_lines(real_docs, C4LinesConfig())
    docs = measure(real_docs, MeasureConfig(dialects=DIALECTS))
    lines = refinedweb_lines(real_docs, RefinedWebLinesConfig())
    for stage in (pages, lines):
        for name in stage.schema.names:
            if name.startswith(("c4_", "refinedweb_")):
                docs = docs.append_column(name, stage[name])
    return docs
