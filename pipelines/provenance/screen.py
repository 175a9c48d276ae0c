"""What `verify`, `takedown` and `trace` print."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from pipelines.provenance.places import Place
from pipelines.provenance.takedown import Takedown
from pipelines.provenance.trace import measures_of, passed, stages_of
from pipelines.screen import CONTROL
from pipelines.shards.export import Written
from pipelines.shards.manifest import Manifest

STEPS, REMOVED = 4, 10  # shown of a document, before "and N more"


@contextmanager
def progress(console: Console, what: str, total: int) -> Iterator[Any]:
    """A bar on a terminal, nothing elsewhere; gives the function that advances it."""
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(show_speed=False), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=max(total, 1))
        yield lambda done: bar.advance(task, done)


def print_verified(root: Path, manifest: Manifest, seconds: float, hashed: bool, console: Console) -> None:
    """The sources of shards that are all well, and what was held against what."""
    table = Table("source", "split", *_right("files", "documents", "tokens"), box=SIMPLE_HEAD, pad_edge=False)
    streams: dict[tuple[str, str], list[int]] = {}
    for file in manifest.files:
        sums = streams.setdefault((file.source, file.split), [0, 0, 0])
        for at, number in enumerate((1, file.rows, file.tokens)):
            sums[at] += number
    for (source, split), sums in streams.items():
        table.add_row(source, split, *(f"{number:,}" for number in sums))
    console.print(table)
    told = sum(file.provenance is not None for file in manifest.files)
    files, rows, tokens = (sum(sums[at] for sums in streams.values()) for at in range(3))
    beside = [name for name in ("tokenizer/tokenizer.json", "schedule.json") if (root.parent / name).is_file()]
    lines = {
        "all is well": f"{files:,} files, {rows:,} documents, {tokens:,} tokens of {manifest.dtype} in {seconds:.2g} s"
        + ("" if hashed else "; --quick: no token was read and nothing was hashed"),
        "fingerprint": manifest.fingerprint,
        "provenance": "of every row" if told == files else f"of {told} of {files} files" if told else "none",
        "taken down": f"{manifest.takedowns[-1].rows:,} documents" if manifest.takedowns else "nothing",
        "beside it": ", ".join(beside) + " fit" if beside else "no tokenizer and no schedule",
    }
    _print_lines(lines, console)


def print_takedown(
    done: Takedown, find: Callable[[Place], list[int]], steps_done: int | None, dry_run: bool, limit: int, console: Console
) -> None:
    """Each document with its place and the steps that have seen or will see it, what was not found, and what has changed."""
    seen, ahead = set[int](), set[int]()
    if not done.new:
        steps_done = None  # which of the steps before it came before the takedown is not known
    names = ["seen in steps", "ahead in steps"] if steps_done is not None else ["in steps"]
    table = Table(
        *(Column(name, overflow="fold") for name in ("shard", "row", "position", "tokens", "document", *names)),
        box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for number, place in enumerate(done.new or done.before):
        steps = find(place)
        past = [step for step in steps if steps_done is not None and step < steps_done]
        future = steps[len(past) :]
        seen |= set(past)
        ahead |= set(future)
        if number < limit:
            groups = [future] if steps_done is None else [past, future]
            identity = Text.assemble(shown(place.url or ""), "\n" if place.url else "", (place.doc_id.hex(), "dim"))
            where = [place.file, f"{place.row}", f"{place.start}", f"{place.length}"]
            table.add_row(*where, identity, *(short_steps(s, place.split) for s in groups))
    if done.new or done.before:
        console.print(table)
    if (more := len(done.new or done.before) - limit) > 0:
        console.print(f"... and {more:,} more (--limit {limit + more} shows all)\n", highlight=False)
    _print_lines(_taken(done, seen, ahead, steps_done, dry_run), console)
    for twin in done.twins[:limit]:
        kept = f"{twin.stays.doc_id.hex()} {shown(twin.stays.url or '')} ({twin.stays.file} row {twin.stays.row})"
        console.print(
            Text.assemble(("its text stays  ", "bold yellow"), f"{shown(twin.url or '')}: removed as a duplicate of {kept}")
        )
    if done.twins:
        ids = " ".join(f"--doc-id {doc_id}" for doc_id in sorted({twin.stays.doc_id.hex() for twin in done.twins})[:limit])
        console.print(Text(f"to take {'it' if len(done.twins) == 1 else 'them'} down too: {ids}"), soft_wrap=True)


def _taken(done: Takedown, seen: set[int], ahead: set[int], steps_done: int | None, dry_run: bool) -> dict[str, str]:
    tokens = sum(place.length for place in done.new)
    shards = len({place.file for place in done.new or done.before})
    if done.new:
        verb = "would be taken down" if dry_run else "taken down"
        lines = {verb: f"{_count(len(done.new), 'document')} in {_count(shards, 'shard')}, {tokens:,} tokens"}
    elif done.before:
        lines = {"nothing to do": f"all {len(done.before):,} documents found were taken down before; nothing has changed"}
    else:
        lines = {"nothing to do": "the shards hold no such document; nothing has changed"}
    if done.new and done.before:
        lines["before"] = f"{_count(len(done.before), 'document')} of those asked for"
    if steps_done is not None:
        lines["training"] = f"{steps_done:,} steps done: {len(seen):,} have seen them, {len(ahead):,} would have"
    elif ahead and done.new:
        lines["schedule"] = f"{_count(len(ahead), 'step')} would see them"
    if done.missing:
        rest = f" and {len(done.missing) - 5:,} more" if len(done.missing) > 5 else ""
        lines["not there"] = ", ".join(done.missing[:5]) + rest
    if done.new and not dry_run:
        lines["fingerprint"] = f"{done.manifest.takedowns[-1].before[:12]} -> {done.manifest.fingerprint[:12]}"
    elif dry_run:
        lines["dry run"] = "nothing was written"
    return lines


def print_step(found: Sequence[dict[str, Any]], console: Console) -> None:
    """Which pages lie behind the tokens of a step, from trace.trace_step."""
    names = ("shard", "row", "tokens", "doc_id", "URL or record", "file", "offset")
    table = Table(*(Column(name, overflow="fold") for name in names), box=SIMPLE_HEAD, pad_edge=False)
    for page in found:
        first, end = page["tokens"]
        name = shown(page["url"] or page["record_id"] or "")
        where = (shown(page["file"]), str(page["offset"]))
        table.add_row(page["shard"], str(page["row"]), f"{first}-{end}", page["doc_id"].hex(), name, *where)
    console.print(table)


def print_document(
    place: Place,
    page: dict[str, Any],
    plan: dict[str, Any],
    removed: Sequence[dict[str, Any]],
    steps: Sequence[int],
    taken_down: bool,
    console: Console,
) -> None:
    """Everything known of one document of the shards."""
    end = place.start + place.length
    lines = {
        "doc_id": place.doc_id.hex() + ("  (taken down: readers see eos in its place)" if taken_down else ""),
        "url": shown(page["url"] or ""),
        "from": shown(f"{page['file']} at byte {page['offset']}, record {page['record_id'] or 'without a name'}"),
        "date, language": shown(f"{page['date'] or 'unknown'}, {page['lang'] or 'unknown'}"),
        "shard": f"{place.file} row {place.row}: {place.length:,} tokens, {place.start} to {end} of source {place.source}",
        "steps": short_steps(steps, place.split),
        "stages": " > ".join(name for name, _ in stages_of(plan, page)),
        "duplicates": f"{_count(len(removed), 'document')} removed for it; cluster of {page.get('cluster_size') or 1:,}",
    }
    _print_lines(lines, console)
    for row in removed[:REMOVED]:
        text = f"  {row['doc_id'].hex()}  {row['rule']} {row['value']:g}  {shown(row['url'] or '')}"
        console.print(Text(text, style="dim"), soft_wrap=True)
    if len(removed) > REMOVED:
        console.print(Text(f"  and {len(removed) - REMOVED:,} more", style="dim"))
    rules, used = passed(plan, page), set[str]()
    if rules:
        table = Table("rule passed", *_right("measured", "bound"), box=SIMPLE_HEAD, pad_edge=False)
        for rule in rules:
            used.add(rule.measure)
            table.add_row(rule.rule, f"{rule.measured:.6g}", f"{rule.bound:g}")
        console.print(table)
    rest = [f"{name} {value:.6g}" for name, value in measures_of(page).items() if name not in used]
    console.print(Text.assemble(("also measured  ", "bold"), ", ".join(rest) or "nothing"), "")


def shown(text: str) -> str:
    """A text from outside without what a terminal obeys."""
    return text.translate(CONTROL)


def short_steps(steps: Sequence[int], split: str = "train") -> str:
    """The first few, and how many more."""
    if split != "train":
        return f"at {split}"
    rest = f" and {len(steps) - STEPS:,} more" if len(steps) > STEPS else ""
    return ", ".join(map(str, steps[:STEPS])) + rest if steps else "none"


def _right(*names: str) -> Iterable[Column]:
    return [Column(name, justify="right", no_wrap=True) for name in names]


def _print_lines(lines: dict[str, str], console: Console) -> None:
    width = max(map(len, lines)) + 2
    for name, text in lines.items():
        console.print(Text.assemble((f"{name:<{width}}", "bold"), text), soft_wrap=True)


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def print_exported(written: Iterable[Written], ways: Sequence[str], eos_id: int, console: Console) -> None:
    """What an export holds, and how the other side reads each source."""
    table = Table(
        "source", *_right("documents", "taken down", "tokens", "files"), "to read it", box=SIMPLE_HEAD, pad_edge=False
    )
    for source, way in zip(written, ways, strict=True):
        numbers = (source.documents, source.left_out, source.tokens, len(source.files))
        table.add_row(source.source, *(f"{number:,}" for number in numbers), Text(way, overflow="fold"))
    console.print(table)
    console.print(f"Each document ends in eos, id {eos_id}: the reader is to add none. The tokenizer is that of the shards.")
