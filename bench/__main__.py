"""Every benchmark in turn, then bench/RESULTS.md: `python -m bench --data DATA`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.common import EXAMPLES, RESULTS, Row, cells

BENCHES = ("read", "filters", "dedup", "extract", "privacy", "classifiers", "decontaminate", "tokens", "crawl", "calibrate")
HEAD = """# Results

Ours and the peers on the same input in one run, one table a benchmark. A ratio above 1 means that ours is better: faster,
higher where more is better, lower where less is. `make bench` measures all of it again and rewrites this page from
`bench/results/`; `DATA=` names a folder with the larger data sets, without it they run on `examples/`. Speeds are per core:
one process held on one core, median of interleaved repetitions by CPU time.
"""


def page(results: Path) -> str:
    """RESULTS.md from the result files there are, in the order of BENCHES and then by name."""
    found = sorted(path.name.removesuffix(".run.json") for path in results.glob("*.run.json"))
    order = [name for name in BENCHES if name in found] + [name for name in found if name not in BENCHES]
    return "\n".join([HEAD, *(section(results, name) for name in order)])


def section(results: Path, name: str) -> str:
    """One benchmark's part of the page."""
    run: dict[str, Any] = json.loads((results / f"{name}.run.json").read_text(encoding="utf-8"))
    rows = [Row(**fields) for fields in json.loads((results / f"{name}.json").read_text(encoding="utf-8"))]
    of = run["machine"]
    where = (
        f"{run['date']}, {of['cores']} cores of {of['cpu']}, {of['memory_gib']} GiB, {of['system']}, Python {of['python']}, "
        f"load {of['load_before']} before; {', '.join(run['versions'])}; {run['seconds']:.0f} s in all."
    )
    table = ["| what | unit | ours | peer | peer is | ratio |", "|---|---|--:|--:|---|--:|"]
    table += [f"| {' | '.join(cells(r))} |" for r in rows]
    return "\n".join([f"## {run['title']}", "", f"`{run['command']}`: {where}", "", run["compared"], "", *table, ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for, write the page; the exit code is 1 where a benchmark failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHES)}; all without")
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder of the data sets; without it examples/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results; RESULTS.md lies beside it")
    parser.add_argument("--page-only", action="store_true", help="measure nothing; write the page from the results there are")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(BENCHES):
        parser.error(f"there is no benchmark {sorted(unknown)[0]!r}; there are {', '.join(BENCHES)}")
    failed = []
    for name in () if args.page_only else args.names or BENCHES:
        command = [sys.executable, "-m", f"bench.{name}", "--data", str(args.data), "--results", str(args.results)]
        if subprocess.run(command, check=False).returncode:  # a process each: its own core, memory and peers
            failed.append(name)
    (args.results.parent / "RESULTS.md").write_text(page(args.results), encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}; the page holds their last results, if any", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
