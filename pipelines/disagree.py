"""Where two rule sets, or two dialects of one, part ways: on the stored measures of a run, or on texts in a notebook.

disagreement(table, "gopher_quality", "gopher_quality@dclm").only_a
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import UserError
from pipelines.filter.language import LanguageConfig, identify_language
from pipelines.filter.lines import C4LinesConfig, c4_lines
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.rules import Rule, RulesConfig, all_rules, bound_of, first_broken, floats, is_on, rule_set, rules_of
from pipelines.lookup import tables
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.read.parquet import ParquetConfig, read_parquet
from pipelines.read.rows import ROW
from pipelines.recipe import load_function
from pipelines.rundir import RunDir
from pipelines.schema import KEPT, with_columns
from pipelines.stored import (
    BATCH_ROWS,
    Place,
    batches,
    columns_of,
    fair_sample,
    mask,
    refuse_missing,
    rows_at,
)

SAMPLED = ("doc_id", "url", "lang", "text")
EQUAL = 1e-9  # relative: two orders of the same sum are no difference
Batches = Iterator[tuple[str, int, pa.RecordBatch]]  # (file, its row at which the batch begins, batch)


@dataclass
class Distance:
    """How far two dialects of a measure lie apart, over the documents for which both have a value.

    Differences are counted in bins .5 % wide, each with its smallest one, so that memory does not grow with the table: a
    quantile is exact to .5 %, and exact where the differences are small whole numbers.
    """

    documents: int = 0
    equal: int = 0
    one_null: int = 0  # the measure applies in one dialect only
    bins: dict[int, tuple[int, float]] = field(default_factory=dict)  # documents, smallest difference

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Add the values of a batch, NaN for null."""
        self.one_null += int((np.isnan(a) != np.isnan(b)).sum())
        both = ~(np.isnan(a) | np.isnan(b))
        apart = np.abs(a[both] - b[both])
        apart = apart[apart > EQUAL * np.maximum(np.abs(a[both]), np.abs(b[both]))]
        self.documents += int(both.sum())
        self.equal += int(both.sum()) - len(apart)
        keys = np.floor(np.log2(apart) * 128).astype(np.int64)
        for key in np.unique(keys):
            here = apart[keys == key]
            count, least = self.bins.get(int(key), (0, np.inf))
            self.bins[int(key)] = (count + len(here), min(least, float(here.min())))

    def quantile(self, share: float) -> float:
        """The absolute difference that this share of the documents does not exceed; 0 for no documents."""
        rank = int(np.ceil(share * self.documents)) - self.equal
        for key in sorted(self.bins):
            if rank <= 0:
                break
            rank -= self.bins[key][0]
            if rank <= 0:
                return self.bins[key][1]
        return 0.0


@dataclass(frozen=True)
class Opinion:
    """What a rule says of a document."""

    rule: str
    value: float | None  # None: the measure does not apply
    bound: float | None  # None: off for this language
    drops: bool


@dataclass(frozen=True)
class Sample:
    """A document that one side keeps: the rule that drops it on the other, and its counterpart where there is one."""

    row: dict[str, Any]  # SAMPLED
    a: Opinion | None
    b: Opinion | None


@dataclass
class Disagreement:
    """Two rule sets on the same documents."""

    a: str
    b: str
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)  # first rule broken in a, in b; "kept" for none
    languages: dict[str, Counter[tuple[bool, bool]]] = field(default_factory=dict)  # (a keeps, b keeps): documents
    distances: dict[str, Distance] = field(default_factory=dict)  # measures that the two take differently
    alike: set[str] = field(default_factory=set)  # measures that are one column for both
    samples_only_a: list[Sample] = field(default_factory=list)  # a keeps, b drops
    samples_only_b: list[Sample] = field(default_factory=list)

    def count(self, a_keeps: bool, b_keeps: bool) -> int:
        """Documents by what the two decide."""
        return sum(n for (a, b), n in self.pairs.items() if (a == KEPT, b == KEPT) == (a_keeps, b_keeps))

    @property
    def only_a(self) -> int:
        """Documents that a keeps and b drops."""
        return self.count(True, False)

    @property
    def only_b(self) -> int:
        """Documents that b keeps and a drops."""
        return self.count(False, True)


def disagreement(table: pa.Table, a: Any, b: Any, samples: int = 5) -> Disagreement:
    """Two rule sets on a table in memory: on the measures it holds, or, where it lacks one, on its `text`.

    `a` and `b`: a name as `rule_named` takes it, a rule set, a RulesConfig, or rules. `lang` is identified where the table has
    none; `doc_id`, `url` and `text` are shown in samples. Raises UserError where a measure is lacking and is none of ours.
    """
    sides = _side(a), _side(b)
    (whole,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
    if "doc_id" not in whole.schema.names:
        ids = [hashlib.sha256(str(row).encode()).digest()[:16] for row in range(whole.num_rows)]
        whole = with_columns(whole, {"doc_id": pa.array(ids, pa.binary())})
    whole = _measured(whole, [*sides[0][1], *sides[1][1]])
    refuse_missing(whole.schema.names, [*sides[0][1], *sides[1][1]], "the table")
    found = (("", start, whole.slice(start, BATCH_ROWS)) for start in range(0, whole.num_rows, BATCH_ROWS))
    return _compare(found, sides, samples, lambda places: [whole.slice(place.row, 1) for place in places])


def disagreement_of_file(path: Path, a: Any, b: Any, samples: int = 5) -> Disagreement:
    """Two rule sets on the texts of a Parquet or JSONL file (columns or fields text, lang, url), which are held in memory.

    Raises UserError for a file of another kind, or with no text.
    """
    parquet = path.suffix == ".parquet"
    read = read_parquet(str(path), "file", ParquetConfig()) if parquet else read_jsonl(str(path), "file", JsonlConfig())
    table = pa.Table.from_batches(read, ROW)
    texts = table.filter(pc.is_valid(table["text"])).select(SAMPLED)
    if texts.num_rows == 0:
        error = next((e for e in table["error_message"].to_pylist() if e), "it is empty")
        raise UserError(f"{path} is neither a run nor Parquet or JSONL with texts: {error}")
    return disagreement(texts, a, b, samples)


def disagreement_of_run(rundir: RunDir, plan: dict[str, Any], a: Any, b: Any, samples: int = 5) -> Disagreement:
    """Two rule sets on the documents that a run has measured, those it dropped afterwards among them.

    Raises UserError where a measure is in no table of the run; it says which, and what the recipe must measure.
    """
    sides = _side(a), _side(b)
    stored = [table for _, table in tables(rundir, plan)]
    if not stored:
        raise UserError(f"{rundir.path} holds no complete table; run again")
    rules = [*sides[0][1], *sides[1][1]]
    table = min(stored, key=lambda t: len(_missing(t.schema.names, rules)))  # the first of those that lack least
    refuse_missing(table.schema.names, rules, f"the run in {rundir.path}")
    columns = columns_of(table.schema.names, rules)
    found = batches(table, ["doc_id", "lang", *columns])
    return _compare(found, sides, samples, lambda places: rows_at(places, [*SAMPLED, *columns]))


def rule_named(name: str) -> Any:
    """A rule set by its name ("gopher_quality", "gopher_quality@dclm"), or what `path/to/file.py:function` returns.

    Raises UserError if there is none.
    """
    if ":" not in name:
        return rule_set(name)
    return load_function(name, "rules")()


Side = tuple[str, tuple[Rule, ...]]  # a name to show, and the rules


def _side(rules: Any) -> Side:
    """The rules behind what a caller gave, with a name to show."""
    given = rule_named(rules) if isinstance(rules, str) else rules
    if isinstance(given, RulesConfig):
        found, name = all_rules(given), "rules"
    elif isinstance(given, (tuple, list)) and all(isinstance(rule, Rule) for rule in given):
        found, name = tuple(given), "rules"
    elif hasattr(given, "set_name"):
        found = rules_of(given)
        name = found[0].name.rpartition(".")[0]
    else:
        raise UserError(f"{rules!r} is {type(given).__name__}, no rule set; give a set, a RulesConfig or a tuple of rules")
    found = tuple(rule for rule in found if is_on(rule))
    if not found:
        raise UserError(f"{rules!r} has no rule that is on, so there is nothing to compare")
    return rules if isinstance(rules, str) else name, found


def _measured(docs: pa.RecordBatch, rules: Iterable[Rule]) -> pa.RecordBatch:
    """The documents with what the rules lack measured on their text, and `lang` identified where it is null."""
    missing = _missing(docs.schema.names, rules)
    if not missing or "text" not in docs.schema.names:
        return docs
    docs = with_columns(docs, {"text": docs["text"].cast(pa.string())})
    if "lang" not in docs.schema.names:
        docs = with_columns(docs, {"lang": pa.nulls(docs.num_rows, pa.string())})
    docs = identify_language(docs, LanguageConfig(keep=(), min_score=0.0))
    if any(name.startswith("c4_") for name in missing):
        docs = c4_lines(docs, C4LinesConfig(False, False, False, False, None, None))
    return measure(docs, MeasureConfig(dialects=tuple(sorted({name.partition("@")[2] for name in missing} - {""}))))


def _missing(names: Sequence[str], rules: Iterable[Rule]) -> list[str]:
    return sorted({rule.measure for rule in rules if rule.measure not in names})


def _distances(sides: Sequence[Side]) -> dict[str, tuple[str, str]]:
    """The measures that both sides have, each with its two columns."""
    columns = [{r.measure.partition("@")[0]: r.measure for r in rules} for _, rules in sides]
    return {measure: (a, columns[1][measure]) for measure, a in columns[0].items() if measure in columns[1]}


def _compare(
    found: Batches, sides: Sequence[Side], samples: int, fetch: Callable[[list[Place]], list[pa.RecordBatch]]
) -> Disagreement:
    (name_a, rules_a), (name_b, rules_b) = sides
    made = Disagreement(name_a, name_b)
    places: tuple[list[Place], list[Place]] = ([], [])
    for file, start, batch in found:
        names = batch.schema.names
        seen = np.any([mask(pc.is_valid(batch[name])) for name in columns_of(names, [*rules_a, *rules_b])], axis=0)
        first_a, first_b = first_broken(batch, rules_a), first_broken(batch, rules_b)
        _count(made, batch, seen, (rules_a, first_a), (rules_b, first_b))
        for name, (a, b) in _distances(sides).items():
            if a == b:
                made.alike.add(name)
            else:
                made.distances.setdefault(name, Distance()).add(floats(batch[a])[seen], floats(batch[b])[seen])
        for chosen, rows in zip(places, ((first_a < 0) & (first_b >= 0), (first_a >= 0) & (first_b < 0)), strict=True):
            chosen[:] = fair_sample(chosen, samples, file, start, batch["doc_id"], np.flatnonzero(seen & rows))
    made.samples_only_a, made.samples_only_b = ([_sample(row, rules_a, rules_b) for row in fetch(p)] for p in places)
    return made


def _count(
    made: Disagreement,
    batch: pa.RecordBatch,
    seen: np.ndarray,
    a: tuple[Sequence[Rule], np.ndarray],
    b: tuple[Sequence[Rule], np.ndarray],
) -> None:
    (rules_a, first_a), (rules_b, first_b) = a, b
    pairs, counts = np.unique(np.stack([first_a[seen], first_b[seen]]), axis=1, return_counts=True)
    for (one, other), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        made.pairs[rules_a[one].name if one >= 0 else KEPT, rules_b[other].name if other >= 0 else KEPT] += count
    langs = pc.fill_null(batch["lang"], "und").dictionary_encode()
    codes = langs.indices.to_numpy()[seen] * 4 + 2 * (first_a[seen] < 0) + (first_b[seen] < 0)
    for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
        lang = made.languages.setdefault(langs.dictionary[int(code) // 4].as_py(), Counter())
        lang[bool(code & 2), bool(code & 1)] += int(count)


def _sample(row: pa.RecordBatch, rules_a: Sequence[Rule], rules_b: Sequence[Rule]) -> Sample:
    firsts = [int(first_broken(row, rules)[0]) for rules in (rules_a, rules_b)]
    broken = next(rules[first] for rules, first in zip((rules_a, rules_b), firsts, strict=True) if first >= 0)
    opinions = []
    for rules, first in zip((rules_a, rules_b), firsts, strict=True):
        rule = rules[first] if first >= 0 else _counterpart(broken, rules)
        opinions.append(_opinion(row, rule, first >= 0) if rule else None)
    shown = {name: row[name][0].as_py() if name in row.schema.names else None for name in SAMPLED}
    return Sample(shown, *opinions)


def _counterpart(rule: Rule, others: Sequence[Rule]) -> Rule | None:
    """The rule of another set that bounds the same measure from the same side."""
    same = (r for r in others if (r.measure.partition("@")[0], r.kind) == (rule.measure.partition("@")[0], rule.kind))
    return next(same, None)


def _opinion(row: pa.RecordBatch, rule: Rule, drops: bool) -> Opinion:
    value = float(floats(row[rule.measure])[0])
    return Opinion(rule.name, None if np.isnan(value) else value, bound_of(rule, row["lang"][0].as_py()), drops)
