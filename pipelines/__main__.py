"""The verbs: run, plan, report, inspect, trace, whatif, disagree."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipelines.errors import UserError
from pipelines.recipe import config_dict, load_recipe, with_settings
from pipelines.rundir import RunDir, open_run
from pipelines.schedule import ScheduleError
from pipelines.shards import ShardError

RECIPE_HELP = "a name in pipelines/recipes (demo, web) or path/to/file.py:function"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 done, 1 something the user can mend (one line on stderr), 2 wrong usage."""
    parsed = _parser().parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=160)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        parsed.verb(parsed, console)
    except (UserError, ShardError, ScheduleError) as error:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted; the same command goes on where it stopped")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description="From raw crawls to training shards.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function: Any, text: str, example: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name,
            help=text.split(".")[0],
            description=textwrap.fill(text, 100),
            epilog=f"example:\n  python -m pipelines {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(verb=function)
        return made

    run = verb(
        "run",
        _run,
        "Run a recipe: tables, tokenizer, shards, schedule, report. What OUT already holds of the same recipe and inputs is "
        "skipped, so after a crash or a changed setting the same command does only what is missing.",
        "run demo --out out/demo --set near_duplicates.threshold=0.8",
    )
    plan = verb(
        "plan",
        _plan,
        "Show what `run` would do, without doing it: inputs with sizes, stages with settings, what is complete in OUT.",
        "plan web --out out/web --set web.paths=crawl/",
    )
    for made in (run, plan):
        made.add_argument("recipe", help=RECIPE_HELP)
        made.add_argument("--out", required=True, type=Path, help="the run directory (made if missing)")
        help_ = "change a setting, e.g. near_duplicates.threshold=0.8 or web.paths=DIR; VALUE is JSON or plain text; repeatable"
        made.add_argument("--set", action="append", default=[], metavar="STAGE.FIELD=VALUE", dest="settings", help=help_)
    run.add_argument("--master", help="Spark master; default: this machine, all cores (under spark-submit: what it says)")
    conf = "a Spark setting, e.g. spark.driver.memory=8g; repeatable"
    run.add_argument("--conf", action="append", default=[], metavar="KEY=VALUE", help=conf)
    run.add_argument("--dry-run", action="store_true", help="the same as `plan`")

    report = verb(
        "report",
        _report,
        "Write OUT/report.html anew, with training if OUT/train is there; print the summary.",
        "report out/demo",
    )
    inspect = verb(
        "inspect",
        _inspect,
        "Show documents of a run: kept ones with their text, removed ones with the rule, the measured value and its bound, "
        "duplicates with their survivor, quarantined ones with the error.",
        "inspect out/demo --rule gopher_quality --limit 5",
    )
    inspect.add_argument("--kept", action="store_true", help="kept documents only")
    inspect.add_argument("--removed", action="store_true", help="dropped and quarantined documents only")
    inspect.add_argument("--rule", help="a rule or its prefix, or an error class, e.g. gopher_quality.min_words")
    inspect.add_argument("--url", help="a part of the URL")
    inspect.add_argument("--id", help="a doc_id in hex, 32 digits")
    inspect.add_argument("--limit", type=int, default=10, help="at most this many documents (default 10)")
    inspect.add_argument("--full", action="store_true", help="the whole text, not its beginning")
    trace = verb(
        "trace",
        _trace,
        "From tokens back to pages: which document, URL, input file and offset lie behind a row of a shard, or behind the "
        "samples of a training step.",
        "trace out/demo --step 120",
    )
    trace.add_argument("--shard", help="a shard file as the manifest names it, with --row")
    trace.add_argument("--row", type=int, help="row of the shard, from 0")
    trace.add_argument("--step", type=int, help="a training step, from 0")
    trace.add_argument("--limit", type=int, default=20, help="at most this many documents (default 20)")
    whatif = verb(
        "whatif",
        _whatif,
        "Which documents a run would keep with other bounds, from the measures that its table holds: no page is read again. "
        "Shows documents that change sides. Later stages (duplicates) are not simulated.",
        "whatif out/demo --set gopher.min_words=30 --set fineweb.max_newlines@zh=0.5",
    )
    bound = (
        "a bound, e.g. gopher_quality.min_words=30 (=null: off), SET.RULE@LANG=VALUE for one language, SET=null for a set, "
        "SET.dialect=NAME; a beginning of SET will do; repeatable"
    )
    whatif.add_argument("--set", action="append", default=[], metavar="SET.RULE=VALUE", dest="settings", help=bound)
    whatif.add_argument("--stage", help="the stage of rules, where the recipe has several")
    whatif.add_argument("--export", type=Path, metavar="FILE.parquet", help="write the measures and both decisions")
    disagree = verb(
        "disagree",
        _disagree,
        "Where two rule sets, or two dialects of one, part ways on the documents of a run, from the measures its tables hold: "
        "counts, rule against rule, how far their measures lie apart, and documents that only one of them keeps.",
        "disagree out/demo gopher_quality gopher_quality@dclm",
    )
    for made in (whatif, disagree):
        made.add_argument("--samples", type=int, default=5, help="documents to show for either direction (default 5)")
        made.add_argument("--full", action="store_true", help="their whole text, and tables uncut")
    for made in (report, inspect, trace, whatif):
        made.add_argument("out", type=Path, help="a run directory")
    disagree.add_argument("out", type=Path, help="a run directory, or Parquet or JSONL with texts")
    for side in ("a", "b"):
        disagree.add_argument(side, metavar=side.upper(), help="a rule set, SET@DIALECT, or path/to/file.py:function")
    return parser


def _run(args: argparse.Namespace, console: Console) -> None:
    from pipelines.run import run
    from pipelines.summary import print_summary

    if args.dry_run:
        _plan(args, console)
        return
    if bad := [c for c in args.conf if "=" not in c]:
        raise UserError(f"--conf {bad[0]!r} is not KEY=VALUE, e.g. --conf spark.driver.memory=8g")
    conf = dict(c.split("=", 1) for c in args.conf)
    run(with_settings(load_recipe(args.recipe), args.settings), args.out, console, args.master, conf)
    print_summary(RunDir(args.out), console)


def _plan(args: argparse.Namespace, console: Console) -> None:
    from pipelines.run import make_plan

    plan, rundir = make_plan(with_settings(load_recipe(args.recipe), args.settings)), RunDir(args.out)
    console.print(f"recipe [bold]{plan.recipe.name}[/]: {plan.recipe.doc.splitlines()[0] if plan.recipe.doc else ''}")
    inputs = Table("source", "files", "MB", "reader", title="inputs", title_justify="left")
    for used in plan.recipe.inputs:
        sizes = [f["bytes"] for f in plan.files if f["source"] == used.source]
        inputs.add_row(used.source, str(len(sizes)), f"{sum(sizes) / 1e6:,.1f}", used.spec.name)
    table = Table("step", "stage", "kind", "settings", "state", title="steps", title_justify="left")
    for step in plan.steps:
        complete = rundir.manifest(rundir.table(step), step.fingerprint) is not None
        state = "complete, will be skipped" if complete else "to do"
        for stage in step.stages:
            table.add_row(f"{step.index:02d}", stage.name, stage.spec.kind, _settings(stage.cfg), state)
    for name in ("index", "tokenizer", "shards"):
        if getattr(plan.recipe, name) is not None:
            complete = rundir.manifest(getattr(rundir, name), getattr(plan, name)) is not None
            table.add_row(
                "", name, "", _settings(getattr(plan.recipe, name)), "complete, will be skipped" if complete else "to do"
            )
    if plan.recipe.schedule is not None:
        table.add_row("", "schedule", "", _settings(plan.recipe.schedule), "always compiled")
    console.print(inputs, table)


def _settings(cfg: Any) -> str:
    described = config_dict(cfg)
    text = ", ".join(f"{k}={v}" for k, v in described.items()) if isinstance(described, dict) else str(described)
    return textwrap.shorten(text, 160, placeholder=" ...")


def _report(args: argparse.Namespace, console: Console) -> None:
    from pipelines import report
    from pipelines.summary import print_summary

    rundir, _ = open_run(args.out)
    report.write(rundir)
    print_summary(rundir, console)


def _inspect(args: argparse.Namespace, console: Console) -> None:
    from pipelines.lookup import documents
    from pipelines.schema import KEPT

    rundir, plan = open_run(args.out)
    if args.id is not None and (len(args.id) != 32 or set(args.id.lower()) - set("0123456789abcdef")):
        raise UserError(f"--id {args.id!r} is not a doc_id: 32 hexadecimal digits, as `inspect` prints them")
    ids = [bytes.fromhex(args.id)] if args.id else None
    shown = 0
    for row in documents(rundir, plan, outcome=KEPT if args.kept else None, rule=args.rule, url=args.url, doc_ids=ids):
        if args.removed and row["outcome"] == KEPT:
            continue
        if shown == args.limit:
            console.print(f"... more than {shown}; raise --limit", style="dim")
            break
        shown += 1
        _print_document(row, console, args.full)
    if shown == 0:
        raise UserError("no document of this run matches; `python -m pipelines report` lists the rules that dropped any")


def _print_document(row: dict[str, Any], console: Console, full: bool) -> None:
    identity = row["doc_id"].hex() if row["doc_id"] else "no doc_id"
    console.print(
        Text.assemble(
            (identity, "bold"), "  ", (row["outcome"], "green" if row["outcome"] == "kept" else "red"), f"  {row['url'] or ''}"
        )
    )
    console.print(
        f"  from {row['file']} at byte {row['offset']}  source {row['source']}  language {row['lang']}",
        highlight=False,
        markup=False,
    )
    if row["drop_rule"]:
        value, bound = row["drop_value"], row["drop_bound"]
        measured = "" if value is None else f" measured {value:g}" + ("" if bound is None else f", bound {bound:g}")
        entry = f", entry {row['drop_entry']}" if row.get("drop_entry") else ""  # a table of an older version has no entries
        survivor = f", duplicate of {row['duplicate_of'].hex()}" if row["duplicate_of"] else ""
        console.print(
            f"  dropped by {row['stage']}: {row['drop_rule']}{measured}{entry}{survivor}", highlight=False, markup=False
        )
    if row["error_class"]:
        console.print(
            f"  quarantined by {row['stage']}: {row['error_class']}: {row['error_message']}", highlight=False, markup=False
        )
    text = row["text"] or ""
    console.print(Text(textwrap.indent(text if full else textwrap.shorten(text, 300, placeholder=" ..."), "  "), style="dim"))


def _trace(args: argparse.Namespace, console: Console) -> None:
    from pipelines.lookup import trace_row, trace_step

    rundir, plan = open_run(args.out)
    if (args.step is None) == (args.shard is None or args.row is None):
        raise UserError("trace takes either --step N or --shard FILE --row N")
    if args.step is not None:
        found = trace_step(rundir, plan, args.step, args.limit)
    else:
        found = trace_row(rundir, plan, args.shard, args.row)
    table = Table(
        "shard", "row", "tokens", "doc_id", Column("URL or record", overflow="fold"), Column("file", overflow="fold"), "offset"
    )
    for page in found:
        tokens = f"{page['tokens'][0]}-{page['tokens'][1]}" if page["tokens"][1] else "all"
        name = page["url"] or page["record_id"] or ""
        table.add_row(page["shard"], str(page["row"]), tokens, page["doc_id"].hex(), name, page["file"], str(page["offset"]))
    console.print(table)


def _whatif(args: argparse.Namespace, console: Console) -> None:
    from pipelines.screen import print_whatif
    from pipelines.whatif import whatif

    if not args.settings and args.export is None:
        raise UserError("nothing is asked; give --set SET.RULE=VALUE, e.g. --set gopher_quality.min_words=30, or --export")
    rundir, plan = open_run(args.out)
    found = whatif(rundir, plan, args.settings, stage=args.stage, samples=args.samples, export=args.export)
    print_whatif(found, console, args.full)


def _disagree(args: argparse.Namespace, console: Console) -> None:
    from pipelines.disagree import disagreement_of_file, disagreement_of_run
    from pipelines.screen import print_disagreement

    if args.out.is_file():
        found = disagreement_of_file(args.out, args.a, args.b, args.samples)
    else:
        found = disagreement_of_run(*open_run(args.out), args.a, args.b, args.samples)
    print_disagreement(found, console, args.full)


if __name__ == "__main__":
    sys.exit(main())
