"""The verbs on shards: trace, verify, takedown, export."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from pipelines.errors import UserError
from pipelines.rundir import RunDir, open_run
from pipelines.schedule import read_schedule
from pipelines.shards import Shards, read_manifest
from pipelines.shards.export import FORMATS, export
from pipelines.shards.tombstones import read_tombstones


def add(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the verbs to a command line; `verb` takes a name, the function, what it does and an example."""
    trace = verb(
        "trace",
        _trace,
        "From tokens back to pages, and from a page to the steps that see it: URL, input file and offset, measures, rules "
        "passed and duplicates of a document; or which pages lie behind the samples of a training step.",
        "trace out/demo --url https://site.example/page",
    )
    trace.add_argument("--shard", help="a shard file as the manifest names it, with --row")
    trace.add_argument("--row", type=int, help="row of the shard, from 0")
    trace.add_argument("--step", type=int, help="a training step, from 0")
    trace.add_argument("--limit", type=int, default=20, help="at most this many documents (default 20)")
    verify = verb(
        "verify",
        _verify,
        "Check shards: every byte against the manifest, order, provenance and tombstones, and the tokenizer and schedule "
        "beside them. One line for each thing that is wrong, and exit code 1.",
        "verify out/demo/shards",
    )
    verify.add_argument("--quick", action="store_true", help="hash nothing and read no token: files, rows and offsets only")
    takedown = verb(
        "takedown",
        _takedown,
        "Take documents out of the shards: shows their rows and the steps that have seen or will see them, and writes "
        "tombstones, which readers honour. No token moves, so schedules and training runs go on.",
        "takedown out/demo --domain site.example --dry-run",
    )
    takedown.add_argument("--domain", action="append", default=[], help="a domain with all below it; repeatable")
    takedown.add_argument("--file", type=Path, metavar="LIST", help="a file with one URL, domain or doc_id a line")
    takedown.add_argument("--schedule", type=Path, help="default: schedule.json beside the shards")
    takedown.add_argument("--step", type=int, help="training steps done; default: what OUT/train has done")
    takedown.add_argument("--limit", type=int, default=20, help="show at most this many documents (default 20)")
    takedown.add_argument("--dry-run", action="store_true", help="show, and write nothing")
    trace.add_argument("out", type=Path, help="a run directory")
    for made in (trace, takedown):
        made.add_argument("--url", action="append", default=[], help="a URL, in any of its forms; repeatable")
        made.add_argument("--doc-id", action="append", default=[], metavar="HEX", help="a doc_id, 32 hex digits; repeatable")
    export = verb(
        "export",
        _export,
        "Write the shards in the files of another trainer or of a data set library: documents in stream order, without those "
        "taken down, a folder that appears when it is whole. Says how the other side reads it.",
        "export out/demo/shards export/megatron --to megatron",
    )
    for made in (verify, takedown, export):
        made.add_argument("out", type=Path, help="a run directory, or a shard folder")
    export.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    export.add_argument("--to", required=True, choices=sorted(FORMATS), help="whose files")
    export.add_argument("--source", action="append", default=[], help="only this source; repeatable (default: all)")
    export.add_argument("--split", default="train", help="default: train")


def _trace(args: argparse.Namespace, console: Console) -> None:
    from pipelines.provenance import screen as shard_screen
    from pipelines.provenance import trace
    from pipelines.provenance.places import find, wanted

    by_page = bool(args.url or args.doc_id)
    if [args.step is not None, args.shard is not None and args.row is not None, by_page].count(True) != 1:
        raise UserError("trace takes one of --step N, --shard FILE --row N, --url URL, --doc-id HEX")
    rundir, plan = open_run(args.out)
    if args.step is not None:
        shard_screen.print_step(trace.trace_step(rundir, plan, args.step, args.limit), console)
        return
    shards = Shards(rundir.shards)
    lineage = shards.manifest.lineage
    schedule = read_schedule(rundir.schedule, *lineage) if rundir.schedule.is_file() else None
    if by_page:
        places = find(shards, wanted(args.url, doc_ids=args.doc_id))[: args.limit]
        if not places:
            raise UserError(f"the shards hold no such document; `python -m pipelines inspect {args.out}` shows removed ones")
    else:
        places = [trace.place_of_row(shards, args.shard, args.row)]
    find_steps = trace.step_finder(shards, schedule)
    gone = set(read_tombstones(shards.root, shards.manifest)["doc_id"].to_pylist())
    for place, page in zip(places, trace.pages(rundir, plan, shards, places), strict=True):
        removed, steps = trace.removed_for(rundir, place.doc_id), find_steps(place)
        shard_screen.print_document(place, page, plan, removed, steps, place.doc_id in gone, console)


def _verify(args: argparse.Namespace, console: Console) -> None:
    from pipelines.provenance.places import shard_folder
    from pipelines.provenance.screen import print_verified, progress
    from pipelines.shards.verify import verify

    root, began = shard_folder(args.out), time.perf_counter()
    manifest = read_manifest(root)
    with progress(console, "checking", sum(file.rows for file in manifest.files)) as advance:
        verify(root, args.quick, advance)
    print_verified(root, manifest, time.perf_counter() - began, not args.quick, console)


def _takedown(args: argparse.Namespace, console: Console) -> None:
    from pipelines.provenance.places import shard_folder, wanted
    from pipelines.provenance.screen import print_takedown, progress
    from pipelines.provenance.takedown import steps_done, takedown
    from pipelines.provenance.trace import step_finder

    asked, root = wanted(args.url, args.domain, args.doc_id, args.file), shard_folder(args.out)
    if not asked.all_reasons():
        raise UserError("nothing is asked for; give --url, --domain, --doc-id or --file")
    beside = root.parent / "schedule.json"
    path = args.schedule or (beside if beside.is_file() else None)
    rows = sum(file.rows for file in read_manifest(root).files if file.provenance)
    with progress(console, "searching", rows) as advance:
        done = takedown(root, asked, path, args.dry_run, advance)
    steps = step_finder(Shards(root), read_schedule(path) if path is not None else None)
    seen = args.step if args.step is not None else steps_done(RunDir(root.parent))
    print_takedown(done, steps, seen, args.dry_run, args.limit, console)


def _export(args: argparse.Namespace, console: Console) -> None:
    from pipelines.provenance.places import shard_folder
    from pipelines.provenance.screen import print_exported, progress

    root = shard_folder(args.out)
    manifest = read_manifest(root)
    chosen = [f.rows for f in manifest.files if f.split == args.split and (not args.source or f.source in args.source)]
    with progress(console, "writing", sum(chosen)) as advance:
        written = export(root, args.folder, args.to, args.source, args.split, advance)
    size = np.dtype(manifest.dtype).itemsize
    reading = FORMATS[args.to].reading
    ways = [reading.format(out=args.folder, source=w.source, split=args.split, size=size) for w in written]
    print_exported(written, ways, manifest.eos_id, console)
