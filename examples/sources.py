"""Write SOURCES.md: sources.in.md with the counts filled in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

Rows = Sequence[Mapping[str, object]]


def write_sources(out: Path, expected: Rows, texts: Mapping[str, Rows]) -> None:
    """Write `out`/SOURCES.md from the rows of expected.jsonl.gz and of each text file. KeyError on an unknown count."""
    template = Path(__file__).with_name("sources.in.md").read_text(encoding="utf-8")
    origins = sorted(re.findall(r"\{records ([^}]+)\}", template), key=len, reverse=True)
    of = [next(name for name in origins if str(row["origin"]).startswith(name)) for row in expected]
    languages = Counter(str(row["lang"] or "-") for row in expected)
    real = Counter(row["lang"] for row in expected if row["kind"] == "page")

    def lengths(file: str, origin: str) -> list[int]:
        return [len(str(row["text"])) for row in texts[file] if str(row["source"]).startswith(origin)]

    def rows(file: str) -> int:
        named = {"expected.jsonl.gz": expected, **texts}
        return len(named[file]) if file in named else sum(row["file"] == file for row in expected)

    def origin_languages(origin: str) -> str:
        found = Counter(str(row["lang"] or "-") for row, name in zip(expected, of, strict=True) if name == origin)
        return ", ".join(lang for lang, _ in found.most_common())

    counts = {
        "rows": rows,
        "bytes": lambda file: (out / file).stat().st_size,
        "records": of.count,
        "languages": origin_languages,
        "texts": lambda which: len(lengths(*which.split())),
        "characters": lambda which: sum(lengths(*which.split())),
        "kind": lambda kind: sum(row["kind"] == kind for row in expected),
        "language": lambda _: "\n".join(f"| {lang} | {n} | {real[lang]} |" for lang, n in languages.most_common()),
    }

    def fill(found: re.Match[str]) -> str:
        value = counts[found.group(1)](found.group(2))
        return f"{value:,}" if isinstance(value, int) else str(value)

    (out / "SOURCES.md").write_text(re.sub(r"\{(\w+) ([^}]+)\}", fill, template), encoding="utf-8")
