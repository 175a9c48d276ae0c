"""The verb tokenizers: candidates side by side, before one is chosen."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.errors import UserError

if TYPE_CHECKING:
    from pipelines.tokens.train import TokenizerConfig


def add(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the verb to a command line; `verb` takes a name, the function, what it does and an example."""
    made = verb(
        "tokenizers",
        _tokenizers,
        "Compare tokenizers of several sizes and patterns, and extensions of a base, before one is chosen: all are trained on "
        "the same sample of a run's documents (or of Parquet or JSONL with `text`) and measured on texts held out.",
        "tokenizers out/demo --sizes 4000,8000,16000 --presets deepseek_llm,llama3 --html out/tokenizers.html",
    )
    made.add_argument("texts", nargs="+", type=Path, help="a run directory, or Parquet or JSONL files, a source each")
    made.add_argument("--sizes", default="8000,16000,32000", help="entries (default 8000,16000,32000)")
    made.add_argument("--presets", default="deepseek_llm,llama3,gpt2", help="patterns (default: all three; '' for none)")
    made.add_argument("--base", default="", metavar="FILE", help="a tokenizer.json to extend as well")
    made.add_argument("--extras", default="4000,16000", help="entries to extend it by (default 4000,16000)")
    made.add_argument("--extend-on", default="", metavar="LANG,...", help="languages or sources to extend it on")
    made.add_argument("--guard", default="characters", help="characters (the default) or sample: see docs/tokens.md")
    made.add_argument("--sample-bytes", type=int, default=32 << 20, help="of text to train on and measure (default 32 MiB)")
    made.add_argument("--seed", type=int, default=0, help="another number, another sample")
    made.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures")
    made.add_argument("--master", help="Spark master; default: this machine, all cores")


@dataclass(frozen=True)
class _Asked:
    trained: tuple[TokenizerConfig, ...]  # of a preset each, of the largest size
    sizes: tuple[int, ...]
    extended: TokenizerConfig | None
    extras: tuple[int, ...]


def _asked(args: argparse.Namespace) -> _Asked:
    from pipelines.tokens.train import TokenizerConfig

    presets, on = (tuple(filter(None, text.split(","))) for text in (args.presets, args.extend_on))
    try:
        sizes, extras = (tuple(sorted({int(n) for n in text.split(",")})) for text in (args.sizes, args.extras))
        cfg = TokenizerConfig(
            sample_bytes=args.sample_bytes, seed=args.seed, guard=args.guard, vocab_size=sizes[0], extra=extras[0]
        )
        trained = tuple(replace(cfg, preset=TokenizerConfig.named(p).preset, vocab_size=sizes[-1]) for p in presets)
    except ValueError as error:
        raise UserError(f"tokenizers: {error}") from error
    extended = replace(cfg, base=args.base, extend_on=on, extra=extras[-1]) if args.base else None
    if not trained and not extended:
        raise UserError("tokenizers: there is nothing to compare; give --presets, or a --base with --extend-on")
    return _Asked(trained, sizes, extended, extras)


def _tokenizers(args: argparse.Namespace, console: Console) -> None:
    asked = _asked(args)

    from pipelines.report.candidates import print_candidates, write_candidates
    from pipelines.spark import session
    from pipelines.tokens.candidates import documents, extensions, presets
    from pipelines.tokens.extend import load_base
    from pipelines.tokens.sample import sample_documents

    if asked.extended:
        load_base(asked.extended.base)  # before anything takes time
    cfg = asked.extended or asked.trained[0]
    spark = session(args.master, app="headrace tokenizers")
    try:
        sample = sample_documents(documents(spark, args.texts), cfg)
    finally:
        spark.stop()
    found = [c for used in asked.trained for c in presets(sample, used, asked.sizes)]
    if asked.extended:
        found += extensions(sample, asked.extended, asked.extras)
    print_candidates(found, console)
    if args.html:
        size = sum(len(text.encode()) for text in sample["text"].to_pylist())
        names = ", ".join(path.name for path in args.texts)
        write_candidates(found, args.html, f"{len(found)} candidates on {size / 1e6:,.1f} MB of {names}, a tenth held out.")
        console.print(f"page  {args.html}", highlight=False)
