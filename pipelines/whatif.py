"""What other bounds would keep: the decision of a finished run taken again from its stored measures, in seconds.

    whatif(*open_run("out/demo"), ["gopher.min_words=30"]).kept_after

Only the stage `decide` is decided again. What comes after it (duplicates, masking, shards) is not simulated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipelines.errors import UserError
from pipelines.filter.rules import (
    Rule,
    RulesConfig,
    all_rules,
    bound_of,
    broken_by,
    first_broken,
    floats,
    names_of,
)
from pipelines.lookup import tables
from pipelines.run_rules import changed, stored_config
from pipelines.rundir import RunDir
from pipelines.schema import KEPT, QUARANTINED
from pipelines.stored import (
    Place,
    batches,
    columns_of,
    fair_sample,
    mask,
    refuse_missing,
    rows_at,
)

SAMPLED = ("doc_id", "url", "lang", "source", "text")
IDENTITY = ("doc_id", "source", "url", "lang")  # of an exported document
JUDGED = ("doc_id", "source", "lang", "file", "outcome", "stage", "drop_rule", "drop_value", "drop_bound")


@dataclass(frozen=True)
class Decided:
    """A stage of rules in a run, and the table with its measures and decisions."""

    stage: str
    cfg: RulesConfig
    table: ds.Dataset
    later: tuple[str, ...]  # stages of the same pass that come after it
    sources: tuple[str, ...] | None  # it sees only rows of these; empty: of all; None: the plan is too old to say
    files: tuple[str, ...]  # the input files of these sources


@dataclass(frozen=True)
class Sample:
    """A document that changes sides, with the rule that makes the difference."""

    row: dict[str, Any]  # SAMPLED
    rule: str
    value: float
    before: float | None  # the rule's bound for the document's language; None: off
    after: float | None


@dataclass
class Sums:
    """A quantity of what the stage judged, of what it kept, and of what it would keep."""

    judged: int = 0
    before: int = 0
    after: int = 0

    def add(self, more: Iterable[int]) -> None:
        """Add (judged, before, after)."""
        judged, before, after = more
        self.judged, self.before, self.after = self.judged + judged, self.before + before, self.after + after


@dataclass
class WhatIf:
    """The answer: documents, and characters where `chars` is stored, in all and by source and language; drops by rule."""

    stage: str
    settings: tuple[str, ...]
    before: tuple[Rule, ...]
    after: tuple[Rule, ...]
    chars: Sums | None
    documents: Sums = field(default_factory=Sums)
    groups: dict[tuple[str, str], Sums] = field(default_factory=dict)  # (source, language)
    dropped_before: Counter[str] = field(default_factory=Counter)  # documents by the first rule they break
    dropped_after: Counter[str] = field(default_factory=Counter)
    gains: int = 0  # documents dropped by the run and kept with the settings
    losses: int = 0  # the reverse
    gained: list[Sample] = field(default_factory=list)  # some of either
    lost: list[Sample] = field(default_factory=list)


def whatif(
    rundir: RunDir,
    plan: dict[str, Any],
    settings: Sequence[str] = (),
    *,
    stage: str | None = None,
    samples: int = 5,
    export: Path | None = None,
) -> WhatIf:
    """Decide a run again with `settings` (see `run_rules.changed`) from the measures in its table.

    `stage` names the stage of rules where a recipe has several; `samples` is how many documents to show for either direction,
    the first by doc_id, which is a hash; `export`, where given, becomes a Parquet file of every judged document: identity, all
    measures that are stored, and the rule that drops it before and after. Memory is bounded by batches of 65,536 rows. Raises
    UserError for settings that make no sense, for measures that are not stored, and where the rules of this version do not
    decide, row by row, what the run decided.
    """
    judged = decided(rundir, plan, stage)
    stored = judged.table.schema
    before, after = all_rules(judged.cfg), all_rules(changed(judged.cfg, settings))
    refuse_missing(stored.names, (*before, *after), f"the table of `{judged.stage}`")
    measures = columns_of(stored.names, (*before, *after))
    has_chars = "chars" in stored.names
    answer = WhatIf(judged.stage, tuple(settings), before, after, Sums() if has_chars else None)
    every = [f.name for f in stored if pa.types.is_floating(f.type) and f.name not in JUDGED] if export else []
    columns = [*dict.fromkeys([*JUDGED, *(IDENTITY if export else ()), *measures, *["chars"][:has_chars], *every])]
    gained, lost, wrong = list[Place](), list[Place](), _Wrong()
    with _Export(export, stored, every) as exported:
        for file, start, batch in batches(judged.table, columns):
            seen = _judged(batch, judged, measures)
            was, now = first_broken(batch, before), first_broken(batch, after)
            wrong.check(batch, seen, was, before, judged.stage)
            _count(answer, batch, seen, was, now)
            gained = fair_sample(gained, samples, file, start, batch["doc_id"], np.flatnonzero(seen & (was >= 0) & (now < 0)))
            lost = fair_sample(lost, samples, file, start, batch["doc_id"], np.flatnonzero(seen & (was < 0) & (now >= 0)))
            exported.write(batch, seen, names_of(before, was), names_of(after, now))
    wrong.refuse(judged.stage, answer.documents.judged)
    answer.gained, answer.lost = _samples(gained, answer, before, measures), _samples(lost, answer, after, measures)
    return answer


def decided(rundir: RunDir, plan: dict[str, Any], stage: str | None = None) -> Decided:
    """The stage of rules of a run. Raises UserError where there is none, where it is not clear which, or not complete."""
    found = [
        (step, index, s)
        for step in plan["steps"]
        for index, s in enumerate(step["stages"])
        if s["kind"] == "batch" and isinstance(s["config"], dict) and {"extra", "gopher_quality"} <= s["config"].keys()
    ]
    names = [s["name"] for _, _, s in found]
    named = [f for f, name in zip(found, names, strict=True) if stage in (None, name)]
    if not named:
        has = f"its stages of rules are {', '.join(names)}" if names else "it has no stage `decide`"
        raise UserError(f"recipe {plan['recipe']!r} decides nothing{f' in a stage {stage!r}' if stage else ' by rules'}; {has}")
    if len(named) > 1:
        raise UserError(f"recipe {plan['recipe']!r} has several stages of rules; choose by --stage: {', '.join(names)}")
    step, index, described = named[0]
    complete = dict(tables(rundir, plan))
    if step["directory"] not in complete:
        raise UserError(f"{rundir.path / step['directory']} is not complete; run again, what is there is skipped")
    later = tuple(s["name"] for s in step["stages"][index + 1 :])
    sources = tuple(described["sources"]) if "sources" in described else None
    files = tuple(f["path"] for f in plan["files"] if sources and f["source"] in sources)
    return Decided(described["name"], stored_config(described["config"]), complete[step["directory"]], later, sources, files)


# --- one batch ------------------------------------------------------------------------------------------------------------


def _judged(batch: pa.RecordBatch, judged: Decided, measures: Sequence[str]) -> np.ndarray:
    """Shape (rows,): the rows that the stage saw and did not fail on."""
    here = pc.fill_null(pc.equal(batch["stage"], judged.stage), False)
    reached = pc.or_(pc.is_null(batch["stage"]), pc.is_in(batch["stage"], pa.array([judged.stage, *judged.later])))
    seen: np.ndarray = mask(pc.and_not(reached, pc.and_(here, pc.equal(batch["outcome"], QUARANTINED))))
    if judged.sources is None:  # rows that passed by it were not measured
        measured = [mask(pc.is_valid(batch[name])) for name in measures]
        return seen & (np.any(measured, axis=0) if measured else True)
    if judged.sources:
        named = mask(pc.is_in(batch["source"], pa.array(judged.sources)))
        if judged.later:  # the pass may have renamed the source afterwards ("web" to "web-en")
            named |= mask(pc.is_in(batch["file"], pa.array(judged.files, pa.string())))
        seen &= named
    return seen


class _Wrong:
    """Counts the documents that this version decides otherwise than the run did: by another rule, value or bound."""

    def __init__(self) -> None:
        self.documents = 0
        self.example: tuple[bytes, str, str] | None = None  # doc_id, rule then, rule now

    def check(self, batch: pa.RecordBatch, seen: np.ndarray, now: np.ndarray, rules: Sequence[Rule], stage: str) -> None:
        """Hold a batch's decisions against the run's."""
        own = pc.fill_null(pc.equal(batch["stage"], stage), False)
        then = pc.fill_null(pc.if_else(own, batch["drop_rule"], KEPT), KEPT)
        name = pc.fill_null(names_of(rules, now), KEPT)
        same = mask(pc.equal(then, name))
        dropped = np.where(seen & same, now, -1)
        for column, array in zip(("drop_value", "drop_bound"), broken_by(batch, rules, dropped), strict=True):
            same &= (dropped < 0) | (floats(batch[column]) == array)
        wrong = np.flatnonzero(seen & ~same)
        self.documents += len(wrong)
        for row in map(int, wrong[:1]):
            self.example = self.example or (batch["doc_id"][row].as_py(), then[row].as_py(), name[row].as_py())

    def refuse(self, stage: str, judged: int) -> None:
        """Raise UserError if there are any."""
        if self.example is not None:
            doc_id, then, now = self.example
            raise UserError(
                f"this version does not decide as the run's `{stage}` did: {self.documents:,} of {judged:,} documents differ "
                f"(e.g. {doc_id.hex()}: then {then}, now {now}); run again with this version, then ask"
            )


def _count(answer: WhatIf, batch: pa.RecordBatch, seen: np.ndarray, was: np.ndarray, now: np.ndarray) -> None:
    """Add a batch to the sums."""
    sides = (seen, seen & (was < 0), seen & (now < 0))
    answer.gains += int((sides[2] & ~sides[1]).sum())
    answer.losses += int((sides[1] & ~sides[2]).sum())
    answer.documents.add(int(rows.sum()) for rows in sides)
    if answer.chars is not None:
        chars = np.nan_to_num(floats(batch["chars"]))
        answer.chars.add(int(chars[rows].sum()) for rows in sides)
    for dropped, rules, first in ((answer.dropped_before, answer.before, was), (answer.dropped_after, answer.after, now)):
        counts = np.bincount(first[seen & (first >= 0)], minlength=len(rules))
        dropped.update({rules[index].name: int(counts[index]) for index in np.flatnonzero(counts)})
    sources, langs = batch["source"].dictionary_encode(), batch["lang"].dictionary_encode()
    width = len(langs.dictionary) + 1  # the last one is null
    pair = pc.fill_null(sources.indices, 0).to_numpy().astype(np.int64) * width
    pair += pc.fill_null(langs.indices, width - 1).to_numpy()
    counted = np.array([np.bincount(pair[rows], minlength=len(sources.dictionary) * width) for rows in sides])
    for index in map(int, np.flatnonzero(counted[0])):
        lang = langs.dictionary[index % width].as_py() if index % width < width - 1 else "und"
        group = answer.groups.setdefault((sources.dictionary[index // width].as_py(), lang), Sums())
        group.add(map(int, counted[:, index]))


def _samples(places: Sequence[Place], answer: WhatIf, rules: Sequence[Rule], measures: Sequence[str]) -> list[Sample]:
    """The sampled rows with the first of `rules` that each breaks: those of the side on which they are dropped."""
    sides = [{r.name: r for r in side} for side in (answer.before, answer.after)]
    made = []
    for row in rows_at(places, [*SAMPLED, *measures]):
        first = first_broken(row, rules)
        rule, lang = rules[int(first[0])], row["lang"][0].as_py()
        before, after = (bound_of(side.get(rule.name), lang) for side in sides)
        value = float(broken_by(row, rules, first)[0][0])
        made.append(Sample({name: row[name][0].as_py() for name in SAMPLED}, rule.name, value, before, after))
    return made


class _Export:
    """A Parquet file of judged documents, written batch by batch; nothing without a path."""

    def __init__(self, path: Path | None, table: pa.Schema, measures: Sequence[str]) -> None:
        names = [*IDENTITY, *measures]
        self.schema = pa.schema([*map(table.field, names), ("rule_before", pa.string()), ("rule_after", pa.string())])
        self.path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _Export:
        if self.path is not None:
            try:
                self._writer = pq.ParquetWriter(self.path, self.schema, compression="zstd")
            except OSError as error:
                raise UserError(f"cannot write --export {self.path}: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, batch: pa.RecordBatch, seen: np.ndarray, before: pa.Array, after: pa.Array) -> None:
        """Add the judged rows of a batch."""
        if self._writer is not None:
            columns = [*(batch[name] for name in self.schema.names[:-2]), before, after]
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema).filter(pa.array(seen)))
