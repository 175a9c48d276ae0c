"""The verbs: run, plan, report, inspect, trace, verify, takedown, export, whatif, disagree, tokenizers."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pipelines.errors import UserError
from pipelines.provenance import verbs as shard_verbs
from pipelines.recipe import load_recipe, with_settings
from pipelines.rundir import RunDir, open_run
from pipelines.schedule import ScheduleError
from pipelines.shards import ShardError
from pipelines.tokens import verb as tokenizer_verb

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
        "Show what `run` would do, without doing it: inputs with sizes, stages with settings, what is complete in OUT; and the "
        "schedule: phases, shares, tokens and epochs per source, and where it would pass its bounds.",
        "plan web --out out/web --set web.paths=crawl/ --tokens web-en=1.2e12 --tokens web-zh=3e11",
    )
    for made in (run, plan):
        made.add_argument("recipe", help=RECIPE_HELP)
        made.add_argument("--out", required=True, type=Path, help="the run directory (made if missing)")
        help_ = "change a setting, e.g. near_duplicates.threshold=0.8 or web.paths=DIR; VALUE is JSON or plain text; repeatable"
        made.add_argument("--set", action="append", default=[], metavar="STAGE.FIELD=VALUE", dest="settings", help=help_)
    for made in (run, plan):
        sizes = "tokens of a source, e.g. web-en=1.2e12, to plan a schedule before the shards are there; repeatable"
        made.add_argument("--tokens", action="append", default=[], metavar="SOURCE=TOKENS", help=sizes)
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
    shard_verbs.add(verb)
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
    tokenizer_verb.add(verb)
    for made in (whatif, disagree):
        made.add_argument("--samples", type=int, default=5, help="documents to show for either direction (default 5)")
        made.add_argument("--full", action="store_true", help="their whole text, and tables uncut")
    for made in (report, inspect, whatif):
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
    from pipelines.planning import planned_schedule, print_plan, print_schedule
    from pipelines.run import make_plan

    plan, rundir = make_plan(with_settings(load_recipe(args.recipe), args.settings)), RunDir(args.out)
    print_plan(plan, rundir, console)
    schedule = planned_schedule(plan, rundir, args.tokens)
    if schedule is not None:
        print_schedule(schedule, console)
        if over := schedule.violations():
            raise ScheduleError("\n  ".join(over))
    elif plan.recipe.schedule is not None:
        console.print("the schedule is compiled over the shards; --tokens SOURCE=TOKENS plans it before they are there")


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
