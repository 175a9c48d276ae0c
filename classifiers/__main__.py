"""The verbs: fit, evaluate, predict, perplexity."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.text import Text

from classifiers import encoder, fasttext_model, folder, hashed, perplexity
from classifiers.card import CardConfig, card, perplexity_card
from classifiers.errors import DataError, ModelError
from classifiers.evaluation import evaluate
from classifiers.fit import BALANCED, NONE, FitConfig, fit
from classifiers.labelled import DROP, MAJORITY, REFUSE, Labelled, read, split
from classifiers.model import load, save
from classifiers.predict import predict, texts_of
from classifiers.screen import show_data, show_evaluation, show_prediction, show_unspaced

KINDS = {"fasttext": fasttext_model.Config, "hashed": hashed.Config, "encoder": encoder.Config}
TEXTS = "JSONL, Parquet, or a text a line"
DATA = "JSONL (text, label, and url or site, lang), Parquet with such columns, or lines of __label__NAME text"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit code: 0 done, 1 something the user can mend (one line on stderr), 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parsed = _parser().parse_args(given)
    parsed.command = "python -m classifiers " + shlex.join(given)
    console = Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=120)
    try:
        parsed.verb(parsed, console)
    except (DataError, ModelError) as error:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; nothing was written")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m classifiers", description="Models that score text.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function: Any, text: str, example: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example:\n  python -m classifiers {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(verb=function)
        return made

    one = verb(
        "fit",
        _fit,
        "learn from labelled texts; split by site, calibrate, judge",
        "fit pages.jsonl --out quality --precision 0.9",
    )
    _takes_data(one)
    one.add_argument("--out", type=Path, required=True, help="folder of the model")
    one.add_argument("--kind", choices=KINDS, default="fasttext", help="default: %(default)s")
    one.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="a setting of the kind")
    one.add_argument("--label", default="", help="label that the threshold is of; default: the last in the alphabet")
    goal = one.add_mutually_exclusive_group()
    goal.add_argument("--precision", type=float, default=0.0, help="choose the threshold that reaches this precision")
    goal.add_argument("--share", type=float, default=0.0, help="choose the threshold that keeps this share")
    one.add_argument("--weights", choices=(BALANCED, NONE), default=BALANCED, help="of the labels; default: %(default)s")
    one.add_argument("--validation", type=float, default=0.1, help="share of the sites; default: %(default)s")
    one.add_argument("--test", type=float, default=0.1, help="share of the sites; default: %(default)s")
    one.add_argument("--seed", type=int, default=0)
    for name, text in (("name", "name of the model"), ("use", "what it is for"), ("licence", "of the data and the model")):
        one.add_argument(f"--{name}", default="", help=f"{text}; for the card")

    two = verb("evaluate", _evaluate, "judge a model on labelled texts that it has not seen", "evaluate quality held-out.jsonl")
    two.add_argument("model", help="a shipped name, a model's folder, or a fastText file")
    _takes_data(two)
    two.add_argument("--label", default="", help="default: the label of the model's threshold")
    two.add_argument("--threshold", type=float, help="default: the model's")

    three = verb("predict", _predict, "score texts", "predict quality pages.jsonl --out scored.jsonl")
    three.add_argument("model", help="a shipped name, a model's folder, a fastText file or an ARPA file (.arpa)")
    three.add_argument("data", type=Path, nargs="+", help=TEXTS)
    three.add_argument("--out", type=Path, help="JSON lines; default: standard output")
    three.add_argument("--text", default="text", help="field of the text; default: %(default)s")
    three.add_argument("--label", default="", help="default: the label of the model's threshold")
    three.add_argument("--threshold", type=float, help="default: the model's")

    four = verb(
        "perplexity",
        _perplexity,
        "learn a language's n-gram model, for perplexity and its buckets",
        "perplexity books.jsonl --lang en --reference crawl.jsonl --out perplexity-en",
    )
    four.add_argument("data", type=Path, nargs="+", help=TEXTS)
    four.add_argument("--out", type=Path, required=True, help="folder of the model")
    four.add_argument("--lang", required=True, help="ISO 639-1 where it exists")
    four.add_argument("--reference", type=Path, nargs="+", required=True, help="texts whose percentiles bound the buckets")
    four.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    four.add_argument("--text", default="text", help="field of the text; default: %(default)s")
    return parser


def _takes_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, nargs="+", help=DATA)
    parser.add_argument("--text", default="text", help="field of the text; default: %(default)s")
    parser.add_argument("--label-field", default="label", help="field of the label; default: %(default)s")
    parser.add_argument("--conflicts", choices=(REFUSE, DROP, MAJORITY), default=REFUSE, help="texts with several labels")


def _read(args: argparse.Namespace, console: Console) -> Labelled:
    data = read(args.data, args.text, args.label_field, args.conflicts)
    show_data(data, console)
    return data


def _fit(args: argparse.Namespace, console: Console) -> None:
    how = settings(args.kind, args.settings)
    config = FitConfig(how, args.label, args.precision, args.share, args.weights, args.validation, args.test, args.seed)
    data = _read(args, console)
    model = fit(data, config)
    found = evaluate(model, split(data, args.seed, args.validation, args.test)[2])
    about = CardConfig(args.name or args.out.name, args.use or "Not stated.", args.licence or "Not stated.", args.command)
    saved = save(model, args.out, card(model, found, about))
    show_evaluation(model, found, console)
    show_unspaced(model, console)
    console.print(f"{args.out}/ has the model {saved.fingerprint[:12]} and its card")


def _evaluate(args: argparse.Namespace, console: Console) -> None:
    model, data = load(args.model), _read(args, console)
    if data.fingerprint == model.facts.get("data", {}).get("fingerprint"):
        was = model.facts["split"]
        data = split(data, was["seed"], was["validation"], was["test"])[2]
        console.print("the model was made of these texts: those of its test sites count, no others", style="yellow")
    show_evaluation(model, evaluate(model, data, args.label, args.threshold), console)


def _predict(args: argparse.Namespace, console: Console) -> None:
    path = folder.find(args.model)
    ngrams = folder.kind(path) == perplexity.KIND or path.name.endswith(".arpa")
    model = perplexity.load(args.model) if ngrams else load(args.model)
    if args.out is None:
        show_prediction(predict(model, args.data, sys.stdout, args.text, args.label, args.threshold), console)
        return
    part = args.out.with_name(f".{args.out.name}.part")  # a file that is there is whole
    try:
        with part.open("w", encoding="utf-8") as file:
            found = predict(model, args.data, file, args.text, args.label, args.threshold)
        part.replace(args.out)
    finally:
        part.unlink(missing_ok=True)
    show_prediction(found, console)


def _perplexity(args: argparse.Namespace, console: Console) -> None:
    config = settings(perplexity.KIND, [f"lang={args.lang}", *args.settings])
    learned, reference = (
        pa.array([row[args.text] for row in texts_of(paths, args.text)], pa.large_string())
        for paths in (args.data, args.reference)
    )
    model = perplexity.with_reference(perplexity.fit(learned, config), reference)
    saved = perplexity.save(model, args.out, perplexity_card(model, args.out.name, len(learned), len(reference), args.command))
    head, middle = model.cuts
    console.print(
        f"{model.facts['tokens']:,} tokens, {model.facts['known']:,} known; head to {head:,.1f}, middle to {middle:,.1f}"
    )
    console.print(f"{args.out}/ has the model {saved.fingerprint[:12]} and its card")


def settings(kind: str, given: Sequence[str]) -> Any:
    """The settings of a kind, some of them given as NAME=VALUE; several numbers with commas. Raises DataError."""
    config = {**KINDS, perplexity.KIND: perplexity.Config}[kind]
    made = config()
    types = {f.name: type(getattr(made, f.name)) for f in fields(made)}
    values: dict[str, Any] = {}
    for one in given:
        name, _, value = one.partition("=")
        if name not in types:
            raise DataError(f"--set {one}: {kind} has no setting {name!r}; it has {', '.join(types)}")
        try:
            values[name] = _value(types[name], value)
        except ValueError as error:
            raise DataError(f"--set {one}: {name} is of type {types[name].__name__} ({error})") from error
    try:
        return config(**values)
    except ValueError as error:
        raise DataError(f"{error}") from error


def _value(kind: type, value: str) -> Any:
    if kind is tuple:
        return tuple(int(part) for part in value.split(","))
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return value.lower() == "true"
    return kind(value)


if __name__ == "__main__":
    sys.exit(main())
