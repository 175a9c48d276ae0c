"""What `whatif` and `disagree` print: tables that fit 80 columns, and the documents concerned."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from pipelines import disagree, whatif
from pipelines.filter.rules import Rule, bound_of
from pipelines.schema import KEPT

SHOWN = 20  # lines of a table, without --full
BEGINNING = 300  # characters of a text
CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])  # a page may hold what a terminal obeys


def print_whatif(answer: whatif.WhatIf, console: Console, full: bool = False) -> None:
    """Print the answer; `full`: the whole text of the samples, and every source and language."""
    console.print(
        Text.assemble(
            ("what if  ", "bold"),
            "  ".join(answer.settings) or "nothing changes",
            f"\n`{answer.stage}` decided again; later stages (duplicates, masking, shards) are not simulated",
            style="dim",
        )
    )
    totals = Table("", *_right("judged", "kept", "kept then", "change", "% then"), box=SIMPLE_HEAD, pad_edge=False)
    totals.add_row("documents", *_sums(answer.documents))
    if answer.chars is not None:
        totals.add_row("characters", *_sums(answer.chars))
    console.print(totals, _rules(answer), _groups(answer, full))
    for title, samples, total in (
        ("dropped by the run, kept then", answer.gained, answer.gains),
        ("kept by the run, dropped then", answer.lost, answer.losses),
    ):
        console.print(Text.assemble((title, "bold"), f": {len(samples)} of {total:,}" if samples else f": {total:,}"))
        for sample in samples:
            console.print(_changed(sample, full))


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right", no_wrap=True) for name in names]


def _sums(sums: whatif.Sums) -> list[str]:
    share = f"{100 * sums.after / sums.judged:.1f}" if sums.judged else ""
    return [f"{sums.judged:,}", f"{sums.before:,}", f"{sums.after:,}", _change(sums.after - sums.before), share]


def _change(change: int) -> str:
    return f"{change:+,}" if change else "0"


def _rules(answer: whatif.WhatIf) -> Table:
    """Rules that drop a document on either side, or whose bound changes, in the order in which they are asked."""
    table = Table(
        Column("first rule broken", overflow="fold"),
        "bound",
        *_right("dropped", "then", "change"),
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    sides = [{r.name: r for r in side} for side in (answer.before, answer.after)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = (side.get(name) for side in sides)
        dropped, then = answer.dropped_before[name], answer.dropped_after[name]
        if not (dropped or then or _bounds(old) != _bounds(new)):
            continue
        langs = dict.fromkeys(lang for rule in (old, new) if rule for lang, _ in rule.by_lang)
        bounds = [_arrow(old.bound if old else None, new.bound if new else None)]
        bounds += [
            f"{lang} {_arrow(bound_of(old, lang), bound_of(new, lang))}"
            for lang in langs
            if bound_of(old, lang) != bound_of(new, lang)
        ]
        if old and new and old.by_language != new.by_language:
            bounds.append("other languages: FineWeb-2's -> the same" if old.by_language else "other languages: FineWeb-2's")
        elif any(rule and rule.by_language for rule in (old, new)):
            bounds[0] += ", by language"
        table.add_row(name, "\n".join(bounds), f"{dropped:,}", f"{then:,}", _change(then - dropped))
    return table


def _bounds(rule: Rule | None) -> tuple[Any, ...]:
    return (None, (), False) if rule is None else (rule.bound, rule.by_lang, rule.by_language)


def _arrow(old: float | None, new: float | None) -> str:
    return number(old) if old == new else f"{number(old)} -> {number(new)}"


def _groups(answer: whatif.WhatIf, full: bool) -> Table:
    """Sources and languages by how much they change."""
    ordered = sorted(answer.groups.items(), key=lambda g: (-abs(g[1].after - g[1].before), -g[1].judged, g[0]))
    table = Table(
        "source", "language", *_right("judged", "kept", "kept then", "change", "% then"), box=SIMPLE_HEAD, pad_edge=False
    )
    for (source, lang), sums in ordered if full else ordered[:SHOWN]:
        table.add_row(source, lang, *_sums(sums))
    if not full and len(ordered) > SHOWN:
        table.caption = f"{len(ordered) - SHOWN} more with --full"
    return table


def _changed(sample: whatif.Sample, full: bool) -> Group:
    row = sample.row
    return Group(
        Text.assemble((row["doc_id"].hex(), "bold"), f"  {row['lang'] or 'und'}  {row['url'] or row['source']}"),
        Text(f"  {sample.rule}: measured {number(sample.value)}, bound {_arrow(sample.before, sample.after)}"),
        Padding(_text(row["text"], full), (0, 0, 1, 2)),
    )


def print_disagreement(made: disagree.Disagreement, console: Console, full: bool = False) -> None:
    """Print the report; `full`: every pair of rules and language, and the whole text of the samples."""
    total = made.pairs.total()
    console.print(Text.assemble(("a  ", "bold"), made.a, ("\nb  ", "bold"), made.b))
    table = Table("documents", *_right("", "%"), box=SIMPLE_HEAD, pad_edge=False)
    for name, a, b in (
        ("both keep", True, True),
        ("both drop", False, False),
        ("only a keeps", True, False),
        ("only b keeps", False, True),
    ):
        table.add_row(name, f"{made.count(a, b):,}", f"{100 * made.count(a, b) / max(total, 1):.2f}")
    console.print(table, _pairs(made, full))
    if made.distances:
        console.print(_distance_table(made))
    if made.alike:
        console.print(Text(f"the same column for both: {', '.join(sorted(made.alike))}\n", style="dim"))
    console.print(_languages(made, full))
    for title, samples, total in (
        ("only a keeps", made.samples_only_a, made.only_a),
        ("only b keeps", made.samples_only_b, made.only_b),
    ):
        if total:
            console.print(Text.assemble((title, "bold"), f": {len(samples)} of {total:,}"))
        for sample in samples:
            console.print(_disputed(sample, full))


def _pairs(made: disagree.Disagreement, full: bool) -> Table:
    """What the two say of a document that not both keep, the commonest first."""
    table = Table(
        Column("first rule broken in a", overflow="fold"),
        Column("in b", overflow="fold"),
        *_right("documents"),
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    ordered = sorted(((n, pair) for pair, n in made.pairs.items() if pair != (KEPT, KEPT)), key=lambda p: (-p[0], p[1]))
    for count, (a, b) in ordered if full else ordered[:SHOWN]:
        table.add_row(a.removeprefix(f"{made.a}."), b.removeprefix(f"{made.b}."), f"{count:,}")
    if not full and len(ordered) > SHOWN:
        table.caption = f"{len(ordered) - SHOWN} more with --full"
    return table


def _distance_table(made: disagree.Disagreement) -> Table:
    """How far the two values of a measure lie apart."""
    table = Table(Column("measure", overflow="fold"), *_right("both", "% equal", "median", "95 %", "one"), box=SIMPLE_HEAD)
    table.pad_edge = False
    table.caption = "both, one: documents to which it applies; median, 95 %: of absolute differences"
    for measure, apart in made.distances.items():
        equal = f"{100 * apart.equal / max(apart.documents, 1):.2f}"
        quantiles = (number(apart.quantile(share)) for share in (0.5, 0.95))
        table.add_row(measure, f"{apart.documents:,}", equal, *quantiles, f"{apart.one_null:,}")
    return table


def _languages(made: disagree.Disagreement, full: bool) -> Table:
    """Languages by how many documents the two decide differently."""
    table = Table("language", *_right("documents", "only a keeps", "only b keeps", "% agree"), box=SIMPLE_HEAD, pad_edge=False)
    ordered = sorted(made.languages.items(), key=lambda g: (-(g[1][True, False] + g[1][False, True]), -g[1].total(), g[0]))
    for lang, n in ordered if full else ordered[:SHOWN]:
        agree = 100 * (n[True, True] + n[False, False]) / n.total()
        table.add_row(lang, f"{n.total():,}", f"{n[True, False]:,}", f"{n[False, True]:,}", f"{agree:.1f}")
    if not full and len(ordered) > SHOWN:
        table.caption = f"{len(ordered) - SHOWN} more with --full"
    return table


def _disputed(sample: disagree.Sample, full: bool) -> Group:
    row = sample.row
    lines = [
        Text(f"  {side}  {o.rule}: measured {'nothing' if o.value is None else number(o.value)}, bound {number(o.bound)}")
        for side, o in (("a", sample.a), ("b", sample.b))
        if o is not None
    ]
    return Group(
        Text.assemble((row["doc_id"].hex(), "bold"), f"  {row['lang'] or 'und'}  {row['url'] or ''}"),
        *lines,
        Padding(_text(row["text"], full), (0, 0, 1, 2)),
    )


def _text(text: str | None, full: bool) -> Text:
    """A document's text, or its beginning on one line."""
    text = text or ""
    if not full:
        line = " ".join(text[: 4 * BEGINNING].split())
        text = line if len(line) <= BEGINNING and len(text) <= 4 * BEGINNING else f"{line[:BEGINNING]} ..."
    return Text(text.translate(CONTROL), style="dim")


def number(value: float | None) -> str:
    """A measure or a bound as a person reads it."""
    if value is None:
        return "off"
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"
