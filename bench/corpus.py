"""The inputs: real pages and texts of the data folder, or those of examples/ where it has none."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

WINDOW = 1 << 27  # bytes


def jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl, .jsonl.gz or .jsonl.zst file."""
    with path.open("rb") as raw:
        lines: Any = raw
        if path.suffix == ".zst":
            import zstandard

            lines = io.BufferedReader(zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(raw))
        elif path.suffix == ".gz":
            lines = gzip.GzipFile(fileobj=raw)
        for line in lines:
            yield json.loads(line)


@lru_cache(maxsize=2)
def pages(data: Path) -> tuple[dict[str, Any], ...]:
    """Web pages: `html`, `lang` (None where unknown), and where known `gold`, `text`, `with`, `without`."""
    if (data / "pages.jsonl.zst").is_file():
        return tuple(jsonl(data / "pages.jsonl.zst"))
    from pipelines.read.warc import WarcConfig, read_warc

    expected = {e["record_id"]: e for e in jsonl(data / "expected.jsonl.gz")}
    found = []
    for path in sorted((data / "crawl").glob("*.warc.gz")):
        for batch in read_warc(str(path), "web", WarcConfig()):
            for record in batch.select(["html", "record_id", "url"]).to_pylist():
                if record["html"]:
                    known = expected.get(record["record_id"], {})
                    found.append({"html": record["html"], "url": record["url"], "lang": known.get("lang")})
    return tuple(found)


@lru_cache(maxsize=2)
def texts(data: Path) -> tuple[tuple[str, str | None], ...]:
    """(text, lang) of each page: the known main text, or resiliparse's; pages without text are left out."""
    from resiliparse.extract.html2text import extract_plain_text

    found = []
    for page in pages(data):
        text = page.get("text") or extract_plain_text(page["html"], main_content=True, alt_texts=False)
        if text.strip():
            found.append((text, page["lang"]))
    return tuple(found)


def every_text(data: Path) -> list[str]:
    """Every text of the folder, of whatever language, code and noise among them, once."""
    found: list[str] = []
    for path in sorted(data.rglob("*.jsonl*")):
        for line in jsonl(path):
            text = line.get("text") or line.get("expect") if isinstance(line, dict) else None
            if isinstance(text, str) and text:
                found.append(text.encode("utf-8", "replace").decode("utf-8"))
    found += [text for text, _ in texts(data)]
    return list(dict.fromkeys(found))
