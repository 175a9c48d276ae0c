"""What-if says what the stage itself would decide, from the measures alone, and whom it concerns."""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipelines.__main__ import main
from pipelines.errors import UserError
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.rules import (
    FineWeb,
    GopherQuality,
    GopherRepetition,
    Rule,
    RulesConfig,
    WebPage,
    all_rules,
    decide,
    first_broken,
    web_rules,
)
from pipelines.recipe import Stage, batch_stage, config_dict
from pipelines.route import RouteConfig, route_by_language
from pipelines.run_rules import changed, stored_config
from pipelines.rundir import RunDir, open_run, read_json, write_json
from pipelines.schema import DECISION, drop, with_decision
from pipelines.screen import print_whatif
from pipelines.whatif import Sample, WhatIf, whatif

MakeRun = Callable[..., RunDir]
OWN = Rule("mine.max_sentences", "sentences", "max", 40.0, (("zh", 60.0),))
RULES = RulesConfig(
    web_page=WebPage(), gopher_repetition=GopherRepetition(), gopher_quality=GopherQuality(min_stop_words=None), extra=(OWN,)
)


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Nothing to set."""


@batch_stage()
def drop_some(docs: pa.RecordBatch, cfg: Nothing) -> pa.RecordBatch:
    """Drop the documents whose doc_id begins with a byte below 85."""
    return drop(docs, [doc_id[0] < 85 for doc_id in docs["doc_id"].to_pylist()], "some.first_byte", None, None)


MEASURE, DECIDE = Stage(measure, MeasureConfig()), Stage(decide, RULES, sources=("web",))


@pytest.fixture(scope="module")
def out(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that most tests ask."""
    return make_run(tmp_path_factory.mktemp("run") / "out", MEASURE, DECIDE).path


def judged(out: Path) -> pa.RecordBatch:
    """The rows of the run's table that come from the file web.jsonl, as `decide` saw them."""
    (folder,) = out.glob("00-*")
    table = pa.concat_tables(pq.ParquetFile(file).read() for file in sorted(folder.rglob("*.parquet")))
    web = table.filter(pc.ends_with(table["file"], "web.jsonl"))
    (batch,) = web.drop_columns([*DECISION.names, "stage"]).combine_chunks().to_batches()
    return batch


def by_decide(docs: pa.RecordBatch, cfg: RulesConfig) -> dict[bytes, tuple[str, float, float] | None]:
    """What the stage itself decides: doc_id -> rule, value, bound."""
    found = with_decision(decide(docs, cfg)).select(["doc_id", "drop_rule", "drop_value", "drop_bound"]).to_pylist()
    return {r["doc_id"]: (r["drop_rule"], r["drop_value"], r["drop_bound"]) if r["drop_rule"] else None for r in found}


def ask(out: Path, *settings: str, **more: Any) -> WhatIf:
    return whatif(*open_run(out), settings, **more)


SETTINGS = [
    (),
    ("gopher_quality.min_words=20",),
    ("gopher.min_words=200", "web.min_words=40"),
    ("gopher_quality.min_alpha_words=null",),
    ("gopher_quality.min_words@zh=400", "gopher_quality.min_stop_words@en=3"),
    ("gopher_quality.min_mean_word_length=4.4",),
    ("gopher_quality.min_mean_word_length@ko=null",),
    ("gopher_quality=null", "gopher_repetition=null"),
    ("fineweb=true",),
    ("fineweb.max_short_lines=0.2",),
    ("mine.max_sentences=5", "mine.max_sentences@zh=3"),
    ("mine.max_sentences=null",),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_the_answer_is_what_the_stage_decides(out: Path, settings: tuple[str, ...]) -> None:
    docs, answer = judged(out), ask(out, *settings, samples=1000)
    before, after = by_decide(docs, RULES), by_decide(docs, changed(RULES, settings))
    kept = [{i for i, decision in side.items() if decision is None} for side in (before, after)]
    assert dataclasses.astuple(answer.documents) == (docs.num_rows, len(kept[0]), len(kept[1]))
    assert answer.dropped_before == Counter(d[0] for d in before.values() if d)
    assert answer.dropped_after == Counter(d[0] for d in after.values() if d)
    chars = dict(zip(docs["doc_id"].to_pylist(), docs["chars"].to_pylist(), strict=True))
    assert answer.chars is not None
    assert (answer.chars.before, answer.chars.after) == tuple(sum(chars[i] for i in side) for side in kept)
    langs = dict(zip(docs["doc_id"].to_pylist(), docs["lang"].to_pylist(), strict=True))
    assert {lang: s.after for (_, lang), s in answer.groups.items() if s.after} == Counter(langs[i] or "und" for i in kept[1])
    gained, lost = ([(s.row["doc_id"], (s.rule, s.value)) for s in side] for side in (answer.gained, answer.lost))
    assert gained == [(i, before[i][:2]) for i in sorted(kept[1] - kept[0])]  # type: ignore[index]
    assert lost == [(i, after[i][:2]) for i in sorted(kept[0] - kept[1])]  # type: ignore[index]
    assert (answer.gains, answer.losses) == (len(gained), len(lost))


def test_the_settings_above_move_documents_both_ways(out: Path) -> None:
    answers = [ask(out, *settings) for settings in SETTINGS]
    assert sum(a.gains > 0 for a in answers) >= 4
    assert sum(a.losses > 0 for a in answers) >= 5
    assert (answers[0].gains, answers[0].losses) == (0, 0)


def test_a_sample_shows_the_rule_with_both_bounds_and_the_text(out: Path) -> None:
    (sample,) = ask(out, "gopher.min_words=20", samples=1).gained
    assert (sample.rule, sample.before, sample.after) == ("gopher_quality.min_words", 50.0, 20.0)
    assert 20 <= sample.value < 50
    assert sample.row["url"].startswith("https://site.example/")
    docs = judged(out)
    assert docs.filter(pc.equal(docs["doc_id"], pa.scalar(sample.row["doc_id"])))["text"].to_pylist() == [sample.row["text"]]


@pytest.mark.parametrize(
    ("setting", "lang", "before", "after"),
    [
        ("gopher_quality.min_mean_word_length@ko=9", "ko", 1.0, 9.0),  # the language had a bound of its own
        (
            "gopher_quality.max_mean_word_length@zh=0.1",
            "zh",
            None,
            0.1,
        ),  # off: words of Chinese have no length
        ("fineweb.min_lines=1000", None, None, 1000.0),  # the set was off
    ],
)
def test_a_sample_shows_the_bounds_of_its_language(
    out: Path, setting: str, lang: str | None, before: float | None, after: float
) -> None:
    samples = ask(out, setting).lost
    assert samples
    assert {(s.before, s.after) for s in samples} == {(before, after)}
    assert lang is None or {s.row["lang"] for s in samples} == {lang}


def test_samples_are_the_first_by_doc_id_however_the_table_is_cut(out: Path, make_run: MakeRun, tmp_path: Path) -> None:
    pieces = make_run(tmp_path / "out", MEASURE, DECIDE, rows=7).path
    assert len([*pieces.rglob("*.parquet")]) > len([*out.rglob("*.parquet")])
    settings = ("gopher.min_words=200", "gopher.min_words@zh=10", "mine.max_sentences=null")
    few, every = (ask(pieces, *settings, samples=n) for n in (3, 1000))
    assert few == ask(out, *settings, samples=3)
    for some, whole in ((few.gained, every.gained), (few.lost, every.lost)):
        assert len(some) == 3
        assert some == whole[:3]


def test_texts_are_read_for_samples_only(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "out")
    for file in (tmp_path / "out").rglob("*.parquet"):
        damaged = bytearray(file.read_bytes())
        group = pq.ParquetFile(file).metadata.row_group(0)
        (text,) = (c for i in range(group.num_columns) if (c := group.column(i)).path_in_schema == "text")
        start = text.dictionary_page_offset or text.data_page_offset
        damaged[start : start + text.total_compressed_size] = bytes(text.total_compressed_size)
        file.write_bytes(damaged)
    assert ask(tmp_path / "out", "gopher.min_words=20", samples=0).gains > 0
    with pytest.raises(OSError, match=r".+"):
        ask(tmp_path / "out", "gopher.min_words=20", samples=1)


# --- which rows the stage saw ---------------------------------------------------------------------------------------------


SOME, ROUTE = Stage(drop_some, Nothing()), Stage(route_by_language, RouteConfig())


@pytest.mark.parametrize(
    ("stages", "seen"),
    [
        ((MEASURE, DECIDE), "web"),  # measured, but not seen: code
        ((MEASURE, dataclasses.replace(DECIDE, sources=())), "all"),
        ((SOME, MEASURE, DECIDE), "web from 85"),  # dropped before
        ((MEASURE, SOME, DECIDE), "web from 85"),
        ((MEASURE, DECIDE, SOME), "web"),  # dropped afterwards
        ((MEASURE, DECIDE, ROUTE), "web"),  # renamed afterwards
        ((MEASURE, ROUTE, dataclasses.replace(DECIDE, sources=("web-en", "web-zh", "web-other"))), "web"),
    ],
    ids=lambda v: " ".join(s.name for s in v) if isinstance(v, tuple) else v,
)
def test_only_rows_that_the_stage_saw_are_judged(
    make_run: MakeRun, tmp_path: Path, stages: tuple[Stage, ...], seen: str
) -> None:
    rundir = make_run(tmp_path / "out", *stages)
    answer = ask(rundir.path, "gopher.min_words=30")
    (folder,) = rundir.path.glob("00-*")
    table = pa.concat_tables(pq.ParquetFile(f).read(["doc_id", "file"]) for f in folder.rglob("*.parquet"))
    wanted = [
        (seen == "all" or row["file"].endswith("web.jsonl")) and ("from" not in seen or row["doc_id"][0] >= 85)
        for row in table.to_pylist()
    ]
    assert sum(wanted) > 0
    assert answer.documents.judged == sum(wanted)


def test_a_plan_that_names_no_sources_goes_by_what_was_measured(make_run: MakeRun, tmp_path: Path) -> None:
    web_only = (dataclasses.replace(MEASURE, sources=("web",)), DECIDE)
    rundir = make_run(tmp_path / "out", *web_only)
    plan = read_json(rundir.plan)
    for stage in plan["steps"][0]["stages"]:
        stage.pop("sources", None)
    assert {source for source, _ in whatif(rundir, plan, ["gopher.min_words=30"]).groups} == {"web"}


# --- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "rule", "lang", "bound"),
    [
        ("gopher_quality.min_words=30", "gopher_quality.min_words", None, 30.0),
        ("gopher.min_words=30", "gopher_quality.min_words", None, 30.0),
        ("gopher.min_chars=30", "gopher_repetition.min_chars", None, 30.0),
        ("w.max_notices=0.5", "web_page.max_notices", None, 0.5),
        ("gopher_quality.min_words=null", "gopher_quality.min_words", None, None),
        ("gopher_quality.min_words@zh=1e2", "gopher_quality.min_words", "zh", 100.0),
        ("gopher_quality.min_mean_word_length@ko=2", "gopher_quality.min_mean_word_length", "ko", 2.0),
        ("fineweb.min_lines=2", "fineweb.min_lines", None, 2.0),
        ("fineweb.max_newlines@zh=0.5", "fineweb.max_newlines", "zh", 0.5),
        ("mine.max_sentences=9", "mine.max_sentences", None, 9.0),
        ("mine.max_sentences@zh=null", "mine.max_sentences", "zh", None),
        ("mine.max_sentences@en=7", "mine.max_sentences", "en", 7.0),
    ],
)
def test_a_setting_changes_one_bound_and_nothing_else(setting: str, rule: str, lang: str | None, bound: float | None) -> None:
    def bounds(cfg: RulesConfig) -> dict[tuple[str, str | None], float | None]:
        rules = all_rules(cfg)
        return {(r.name, None): r.bound for r in rules} | {(r.name, at): b for r in rules for at, b in r.by_lang}

    before, after = bounds(RULES), bounds(changed(RULES, [setting]))
    moved = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert moved == {(rule, lang)}
    assert after[rule, lang] == bound


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("gopher=null", "may mean any of gopher_repetition, gopher_quality"),
        ("gopher_quality.min_word=3", "did you mean gopher_quality.min_words"),
        ("nosuch.min_words=3", "there is no rule set 'nosuch'; there are web_page, "),
        ("gopher_quality.min_words", "is not SET.RULE=VALUE"),
        ("gopher_quality.min_words=many", "a bound is a number, or null for off, not 'many'"),
        ("gopher_quality.min_words=true", "not True"),
        ("gopher_quality.min_words=NaN", "not nan"),
        ("gopher_quality=5", "switched off by null or on by true"),
        ("gopher_quality@nosuch.min_words=5", "is our own"),
        ("c4.min_sentences=5", "does not hold c4_sentences; put the stage `c4_lines`"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_line(
    out: Path, setting: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["whatif", str(out), "--set", setting]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("cfg", [RulesConfig(), RULES, web_rules(), RulesConfig(fineweb=FineWeb(max_newlines=None))])
def test_the_plan_gives_the_rules_back(cfg: RulesConfig) -> None:
    assert stored_config(json.loads(json.dumps(config_dict(cfg)))) == cfg


def test_a_rule_that_the_run_did_not_know_is_off() -> None:
    stored = config_dict(RULES)
    del stored["gopher_quality"]["min_words"], stored["gopher_quality"]["by_lang"], stored["web_page"]
    cfg = stored_config(stored)
    assert (cfg.web_page, cfg.gopher_quality) == (None, GopherQuality(min_words=None, min_stop_words=None, by_lang=()))


@pytest.mark.parametrize("path", [("nosuch_set",), ("gopher_quality", "nosuch_rule")])
def test_a_rule_that_this_version_does_not_know_asks_for_another_run(path: tuple[str, ...]) -> None:
    stored = inner = config_dict(RULES)
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = 3.0
    with pytest.raises(UserError, match=rf"'{path[-1]}'; run again"):
        stored_config(stored)


def test_first_broken_is_decide_on_every_set_and_language(out: Path) -> None:
    docs = judged(out)
    for cfg in (RULES, web_rules(), RulesConfig(gopher_quality=GopherQuality()), RulesConfig(fineweb=FineWeb())):
        rules = all_rules(cfg)
        names = [rules[i].name if i >= 0 else None for i in first_broken(docs, rules)]
        assert names == with_decision(decide(docs, cfg))["drop_rule"].to_pylist()
    assert len(set(docs["lang"].to_pylist())) == 5
    assert None in docs["lang"].to_pylist()


# --- errors, export, screen -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [("drop_rule", "gopher_quality.max_words"), ("drop_value", 1e9), ("drop_bound", 49.0), ("words", 60.0), ("lang", "km")],
)
def test_a_decision_that_is_not_the_runs_is_an_error(out: Path, tmp_path: Path, column: str, value: Any) -> None:
    """One value of one document dropped for few words, or for short words, is changed in the table."""
    shutil.copytree(out, tmp_path / "out")
    rule = "gopher_quality.min_words" if column != "lang" else "gopher_quality.min_mean_word_length"
    (file,) = (tmp_path / "out").rglob("outcome=dropped/*.parquet")
    table = pq.ParquetFile(file).read()
    at = table["drop_rule"].to_pylist().index(rule)
    index = table.schema.get_field_index(column)
    values = table[column].to_pylist()
    values[at] = value
    pq.write_table(table.set_column(index, table.schema.field(index), [values]), file)
    with pytest.raises(UserError, match=rf"1 of [\d,]+ documents differ .*{table['doc_id'][at].as_py().hex()}.*run again"):
        ask(tmp_path / "out")


def test_a_run_without_rules_or_with_a_table_half_written_says_so(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it has no stage `decide`"):
        ask(make_run(tmp_path / "a", MEASURE).path)
    rundir = make_run(tmp_path / "b", MEASURE, DECIDE)
    (manifest,) = rundir.path.rglob("manifest.json")
    write_json(manifest, {"recipe_fingerprint": "another"})
    with pytest.raises(UserError, match="is not complete; run again"):
        ask(rundir.path)


def test_several_stages_of_rules_are_told_apart_by_name(make_run: MakeRun, tmp_path: Path) -> None:
    first = Stage(decide, RulesConfig(web_page=WebPage()), name="decide_pages")
    out = make_run(tmp_path / "out", MEASURE, first, dataclasses.replace(DECIDE, sources=())).path
    with pytest.raises(UserError, match="choose by --stage: decide_pages, decide"):
        ask(out)
    both = [ask(out, "web.min_words=1", stage=name) for name in ("decide_pages", "decide")]
    assert both[0].documents.before == both[1].documents.judged
    with pytest.raises(UserError, match="'nosuch'; its stages of rules are decide_pages, decide"):
        ask(out, stage="nosuch")


def test_the_export_holds_every_judged_document_with_its_measures(out: Path, tmp_path: Path) -> None:
    ask(out, "gopher.min_words=200", export=tmp_path / "signals.parquet")
    table, docs = pq.read_table(tmp_path / "signals.parquet").sort_by("doc_id"), judged(out)
    docs = docs.take(pc.sort_indices(docs["doc_id"]))
    assert table["doc_id"].to_pylist() == docs["doc_id"].to_pylist()
    measures = [f.name for f in docs.schema if pa.types.is_floating(f.type)]
    assert table.schema.names == ["doc_id", "source", "url", "lang", *measures, "rule_before", "rule_after"]
    assert all(np.array_equal(table[n].to_numpy(), docs[n].to_numpy(zero_copy_only=False), equal_nan=True) for n in measures)
    for column, cfg in (("rule_before", RULES), ("rule_after", changed(RULES, ["gopher.min_words=200"]))):
        assert table[column].to_pylist() == with_decision(decide(docs, cfg))["drop_rule"].to_pylist()


def test_the_verb_prints_the_answer(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", str(out), "--set", "gopher.min_words=20", "--samples", "2"]) == 0
    shown, answer = capsys.readouterr().out, ask(out, "gopher.min_words=20", samples=2)
    assert "later stages (duplicates, masking, shards) are not simulated" in shown
    assert f"dropped by the run, kept then: 2 of {answer.gains:,}" in shown
    assert "50 -> 20" in shown
    assert [s.row["doc_id"].hex() in shown for s in answer.gained] == [True, True]


def test_the_verb_wants_something_to_do(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", str(out)]) == 1
    assert "nothing is asked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "full", "shown"),
    [
        ("one\n\n two", False, "one two"),
        ("one\n\n two", True, "one\n\n two"),
        ("\u6c34" * 1000, False, "\u6c34" * 300 + " ..."),  # no blank to cut at
        ("word " * 1000, False, "word " * 60 + " ..."),
        ("a\x1b[31mb\x00c\x9bd\r\n", True, "a[31mbcd\n"),  # nothing that a terminal obeys
        (None, False, ""),
    ],
)
def test_a_text_is_shown_by_its_beginning(text: str | None, full: bool, shown: str) -> None:
    row = {"doc_id": b"1" * 16, "url": None, "lang": "en", "source": "web", "text": text}
    answer = WhatIf("decide", (), (), (), None, gained=[Sample(row, "a.b", 1.0, 2.0, 0.5)], gains=1)
    console = Console(width=1000, record=True)
    print_whatif(answer, console, full)
    lines = console.export_text().partition("a.b: measured 1, bound 2 -> 0.5")[2].partition("kept by the run")[0]
    assert [line.strip() for line in lines.strip().splitlines()] == [line.strip() for line in shown.splitlines()]
