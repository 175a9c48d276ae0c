"""A finished run over a crawl held against the crawl's manifest: what was kept, dropped and deduplicated, and the text.

python -m bench.crawl OUT --manifest crawl/manifest.jsonl.gz --pages pages.jsonl.zst; without OUT the recipe is run first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bench.common import EXAMPLES, RESULTS, About, Better, Row, installed, machine, publish, row, shown, version
from bench.corpus import jsonl
from bench.overlap import f1
from pipelines.filter.languages import base_code
from pipelines.lookup import documents
from pipelines.rundir import open_run
from pipelines.schema import KEPT

ABOUT = About(
    title="Crawl",
    compared=(
        "Recipe `web` over WARC files, against what their manifest says should become of each record. Peer: datatrove's "
        "own pipeline on the same files in the same run: WarcReader, Trafilatura (favour_precision; 10 s instead of 1 s a "
        "page, so that a busy machine loses none; what has an html tag counts as HTML, whatever libmagic says), MinHash "
        "in four stages with its defaults; no URL, language or quality filters, so it cannot drop what those would. A "
        "page to be kept counts as kept where any copy of its group is. Text: mean F1 over bags of words, of the pages "
        "that each has kept and whose whole main text is known. Time is not compared here."
    ),
    peers=("datatrove", "trafilatura", "spacy", "warcio", "python-magic"),
)
REAL = ("keep", "drop-duplicate")  # records that hold a page
GROUPS = ("English", "Chinese/Japanese/Korean", "other languages")


@dataclass(frozen=True)
class Outcome:
    """What a pipeline did with a crawl, by WARC-Record-ID."""

    kept: dict[str, str]  # text
    rules: dict[str, str]  # of the records removed, where known


def outcome_of(out: Path, known: set[str]) -> Outcome:
    """The outcome of a run of ours for the records of a manifest."""
    rundir, plan = open_run(out)
    kept: dict[str, str] = {}
    rules: dict[str, str] = {}
    for found in documents(rundir, plan):
        record = found["record_id"] if found["record_id"] in known else found["url"]
        if found["outcome"] == KEPT:
            kept[record] = found["text"]
        else:
            rules[record] = found["drop_rule"] or f"quarantine {found['error_class']}"
    return Outcome(kept, rules)


def run_ours(recipe: str, crawl: Path, out: Path) -> None:
    """Run a recipe whose source `web` reads WARC files; what is complete in `out` is skipped."""
    command = [sys.executable, "-m", "pipelines", "run", recipe, "--out", str(out), "--set", f"web.paths={crawl}/*.warc.gz"]
    subprocess.run(command, check=True, cwd=EXAMPLES.parent)


def peer_outcome(crawl: Path, known: set[str]) -> tuple[Outcome | None, str | None]:
    """datatrove's outcome and its name; without an outcome where it stopped, or (None, None) where it is not installed."""
    if not installed("datatrove", "spacy", "warcio", "magic", "orjson", "trafilatura"):
        return None, None
    name = version("datatrove")
    with tempfile.TemporaryDirectory() as work:
        # a process of its own, with a session of its own: its log is long, and when it fails its workers stay behind
        command = [sys.executable, "-m", "bench.crawl_peer", str(crawl.resolve()), work]
        with open(Path(work) / "log", "w+", encoding="utf-8") as log:
            with subprocess.Popen(command, cwd=EXAMPLES.parent, stdout=log, stderr=log, start_new_session=True) as process:
                code = process.wait()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            log.seek(0)
            errors = [line.strip() for line in log if "Error" in line]
        if code:
            return None, f"{name} stops: {errors[-1] if errors else f'exit code {code}'}"
        texts = (f for path in sorted((Path(work) / "kept").glob("*.jsonl.gz")) for f in jsonl(path))
        return Outcome({f["id"] if f["id"] in known else f["metadata"]["url"]: f["text"] for f in texts}, {}), name


def group_of(lang: str | None) -> str:
    """English, the three of East Asia, or the others and the unknown."""
    return GROUPS[0] if lang == "en" else GROUPS[1] if base_code(lang) in ("zh", "ja", "ko") else GROUPS[2]


def groups_of(manifest: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Record ids of the groups of two copies or more."""
    groups: dict[str, list[str]] = defaultdict(list)
    for record in manifest:
        if record.get("dup_group") and record["expect"] in REAL:
            groups[record["dup_group"]].append(record["record_id"])
    return {name: members for name, members in groups.items() if len(members) > 1}


def left_copies(groups: dict[str, list[str]], outcome: Outcome) -> list[str]:
    """The records kept of each group beyond the first in the manifest."""
    return [extra for members in groups.values() for extra in [m for m in members if m in outcome.kept][1:]]


def lost_keeps(manifest: Sequence[dict[str, Any]], outcome: Outcome) -> list[dict[str, Any]]:
    """Records to keep of which no copy was kept."""
    groups = groups_of(manifest)
    return [
        r
        for r in manifest
        if r["expect"] == "keep"
        and not any(c in outcome.kept for c in (r["record_id"], *groups.get(str(r.get("dup_group")), ())))
    ]


def text_f1(manifest: Sequence[dict[str, Any]], texts: dict[str, str], outcome: Outcome) -> tuple[float, int]:
    """Mean likeness of the kept pages whose text is known, and how many they are. `texts`: by page_id."""
    scores = []
    for record in manifest:
        known = record.get("text") or texts.get(str(record.get("page_id")), "")
        if known and record["expect"] in REAL and record["record_id"] in outcome.kept:
            scores.append(f1(outcome.kept[record["record_id"]], known))
    return (mean(scores) if scores else 0.0), len(scores)


def compare(
    manifest: Sequence[dict[str, Any]], texts: dict[str, str], ours: Outcome, peer: Outcome | None, label: str | None
) -> list[Row]:
    """All rows: shares first, then what was lost or left over, by rule, kind and language."""
    keep, drop = ([r for r in manifest if r["expect"] == e] for e in ("keep", "drop"))
    groups = groups_of(manifest)
    copies = sum(len(members) - 1 for members in groups.values())

    keep_of = Counter(group_of(r.get("lang")) for r in keep)
    wanted = [group for group in GROUPS if keep_of[group]]

    def shares(outcome: Outcome) -> list[float]:
        gone = sum(not any(m in outcome.kept for m in members) for members in groups.values())
        dropped = sum(r["record_id"] not in outcome.kept for r in drop)
        lost = Counter(group_of(r.get("lang")) for r in lost_keeps(manifest, outcome))
        return [
            1 - lost.total() / max(len(keep), 1),
            *(1 - lost[group] / keep_of[group] for group in wanted),
            dropped / max(len(drop), 1),
            len(left_copies(groups, outcome)) / max(copies, 1),
            float(gone),
        ]

    names: tuple[tuple[str, str, Better], ...] = (
        ("keep kept", f"share of {len(keep)}", "higher"),
        *((f"keep kept, {group}", f"share of {keep_of[group]}", "higher") for group in wanted),
        ("drop dropped", f"share of {len(drop)}", "higher"),
        ("duplicates left", f"share of {copies}", "lower"),
        ("groups gone wholly", f"of {len(groups)}", "lower"),
    )
    mine, theirs = shares(ours), shares(peer) if peer else [None] * len(names)
    rows = [row(n, unit, a, b, label, better) for (n, unit, better), a, b in zip(names, mine, theirs, strict=True)]
    likeness, count = text_f1(manifest, texts, ours)
    if count:
        rows.append(row("text F1", f"mean of {count}", likeness, text_f1(manifest, texts, peer)[0] if peer else None, label))
    kinds = {r["record_id"]: r["kind"] for r in manifest}
    counts: list[tuple[str, Callable[[Outcome], Counter[str]]]] = [
        ("duplicates left, kind", lambda o: Counter(kinds[m] for m in left_copies(groups, o))),
        ("drop stayed", lambda o: Counter(r["kind"] for r in drop if r["record_id"] in o.kept)),
        ("keep lost, language", lambda o: Counter(r.get("lang") or "unknown" for r in lost_keeps(manifest, o))),
        ("keep lost, kind", lambda o: Counter(r["kind"] for r in lost_keeps(manifest, o))),
        ("keep lost, rule", lambda o: Counter(o.rules.get(r["record_id"], "not in the run") for r in lost_keeps(manifest, o))),
    ]
    for name, count_by in counts:
        own, other = count_by(ours), count_by(peer) if peer and not name.endswith("rule") else None
        for key in sorted(set(own) | set(other or ()), key=lambda k: (-own[k], k)):
            value = None if other is None else float(other[key])
            rows.append(row(f"{name}: {key}", "pages", float(own[key]), value, None if value is None else label, "lower"))
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.crawl", description=ABOUT.compared)
    parser.add_argument(
        "out", nargs="?", type=Path, help="OUT of a finished run; without it the recipe is run into out/bench-DATA"
    )
    parser.add_argument("--recipe", default="web", help="recipe to run where OUT is not given; its source must be called web")
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder with crawl/ and its manifest")
    parser.add_argument("--manifest", type=Path, help="default: DATA/crawl/manifest.jsonl.gz, or DATA/expected.jsonl.gz")
    parser.add_argument("--pages", type=Path, help="texts by page_id; default: DATA/pages.jsonl.zst where it is there")
    parser.add_argument("--no-peer", action="store_true", help="do not run datatrove")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write results to")
    args = parser.parse_args(argv)
    before, start, command = machine(), time.perf_counter(), shlex.join(["make", "bench-crawl", f"DATA={shown(args.data)}"])
    named = args.data / "crawl" / "manifest.jsonl.gz"
    path = args.manifest or (named if named.is_file() else args.data / "expected.jsonl.gz")
    crawl = path.parent if path.name == named.name else path.parent / "crawl"
    manifest = [{"record_id": r["url"], **r} for r in jsonl(path)]  # a few records are known by their address only
    pages = args.pages or args.data / "pages.jsonl.zst"
    texts = {p["id"]: p["text"] for p in jsonl(pages) if p["text"]} if pages.is_file() else {}
    out = args.out or EXAMPLES.parent / "out" / f"bench-{args.data.resolve().name}"
    if args.out is None:
        run_ours(args.recipe, crawl.resolve(), out)
    known = {r["record_id"] for r in manifest}
    ours = outcome_of(out, known)
    peer, name = (None, None) if args.no_peer else peer_outcome(crawl, known)
    rows = compare(manifest, texts, ours, peer, name)
    publish("crawl", ABOUT, rows, before, command, args.results, start)


if __name__ == "__main__":
    main()
