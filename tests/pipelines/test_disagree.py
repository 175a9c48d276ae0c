"""The disagreement report counts every document once, on the right side, and measures how far two dialects lie apart."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipelines.__main__ import main
from pipelines.disagree import Disagreement, Distance, Opinion, disagreement, disagreement_of_file, disagreement_of_run
from pipelines.errors import UserError
from pipelines.filter.measures import MeasureConfig, measure
from pipelines.filter.rules import FineWeb, GopherQuality, Rule, RulesConfig, WebPage, decide
from pipelines.recipe import Stage
from pipelines.rundir import RunDir, open_run
from pipelines.schema import RECORD, record_batch, with_decision
from pipelines.screen import print_disagreement

MakeRun = Callable[..., RunDir]
OURS = (Rule("ours.min_words", "words", "min", 50.0), Rule("ours.max_hash", "hash_ratio", "max", 0.1, (("zh", None),)))
THEIRS = (Rule("ours@other.min_words", "words@other", "min", 50.0, (("ja", 20.0),)),)


def table(*rows: tuple[Any, ...]) -> pa.Table:
    """Rows of (lang, words, words@other, hash_ratio)."""
    names = ("lang", "words", "words@other", "hash_ratio")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    types = {name: pa.float64() if name != "lang" else pa.string() for name in names}
    return pa.table({name: pa.array(column, types[name]) for name, column in columns.items()})


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("en", 60.0, 60.0, 0.0), ("kept", "kept")),
        (("en", 50.0, 49.0, 0.0), ("kept", "ours@other.min_words")),
        (("en", 49.0, 50.0, 0.0), ("ours.min_words", "kept")),
        (("en", 49.0, 49.0, 0.0), ("ours.min_words", "ours@other.min_words")),
        (("en", 49.0, 49.0, 0.9), ("ours.min_words", "ours@other.min_words")),  # the first rule counts
        (("en", 60.0, 60.0, 0.9), ("ours.max_hash", "kept")),
        (("zh", 60.0, 60.0, 0.9), ("kept", "kept")),  # off for the language
        (("ja", 30.0, 30.0, 0.0), ("ours.min_words", "kept")),
        ((None, 60.0, 30.0, 0.0), ("kept", "ours@other.min_words")),
        (("en", None, 60.0, 0.0), ("kept", "kept")),  # a null breaks nothing
    ],
)
def test_a_document_is_counted_by_the_first_rule_of_either_side(row: tuple[Any, ...], says: tuple[str, str]) -> None:
    made = disagreement(table(row), OURS, THEIRS)
    assert made.pairs == {says: 1}
    assert made.count(says[0] == "kept", says[1] == "kept") == 1
    assert made.languages == {row[0] or "und": {(says[0] == "kept", says[1] == "kept"): 1}}


def test_what_was_not_measured_is_not_counted() -> None:
    assert disagreement(table(("en", None, None, None), ("en", 1.0, None, None)), OURS, THEIRS).pairs.total() == 1


def test_a_sample_shows_what_both_sides_measured_and_allow() -> None:
    made = disagreement(table(("ja", 30.0, 40.0, 0.0), ("en", 51.0, 48.0, 0.0), ("en", 60.0, 60.0, 0.9)), OURS, THEIRS)
    (only_a,) = made.samples_only_a
    assert only_a.a == Opinion("ours.min_words", 51.0, 50.0, drops=False)
    assert only_a.b == Opinion("ours@other.min_words", 48.0, 50.0, drops=True)
    by_rule = {sample.a.rule: sample.b for sample in made.samples_only_b if sample.a}
    assert by_rule["ours.min_words"] == Opinion("ours@other.min_words", 40.0, 20.0, drops=False)
    assert by_rule["ours.max_hash"] is None  # the other side has no such rule


def test_only_measures_with_a_column_each_have_a_distance() -> None:
    both = (*THEIRS, OURS[1])
    made = disagreement(table(("en", 60.0, 58.0, 0.0), ("en", None, 60.0, 0.0), ("en", 7.0, 7.0, 0.0)), OURS, both)
    assert made.alike == {"hash_ratio"}
    assert made.distances.keys() == {"words"}
    words = made.distances["words"]
    assert (words.documents, words.equal, words.one_null, words.quantile(1.0)) == (2, 1, 1, 2.0)


# --- distances ------------------------------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(7)
WORDS = RANDOM.integers(0, 150, 5000).astype(float)


@pytest.mark.parametrize(
    ("apart", "tolerance"),
    [
        (WORDS, 0.0),  # small whole numbers: exact
        (np.zeros(10), 0.0),
        (np.array([3.0]), 0.0),
        (np.where(RANDOM.random(5000) < 0.7, 0.0, WORDS), 0.0),
        (RANDOM.lognormal(0, 3, 5000), 0.006),
        (RANDOM.random(5000) * 1e-3, 0.006),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
def test_a_quantile_is_that_of_all_differences(apart: np.ndarray, tolerance: float, share: float) -> None:
    distance = Distance()
    for part in np.array_split(apart, 3):
        distance.add(part, np.zeros(len(part)))
    exact = np.quantile(apart, share, method="inverted_cdf")
    assert distance.quantile(share) == pytest.approx(exact, rel=tolerance, abs=0)
    assert distance.equal == int((apart == 0).sum())


def test_no_documents_are_no_distance() -> None:
    assert Distance().quantile(0.5) == 0.0


def test_another_order_of_a_sum_is_no_difference() -> None:
    distance = Distance()
    distance.add(np.array([0.1 + 0.2, 1e6]), np.array([0.3, 1e6 + 1]))
    assert (distance.documents, distance.equal, distance.quantile(1.0)) == (2, 1, 1.0)


# --- on a run -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def out(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that drops by rules of its own; what it dropped is measured all the same."""
    stages = (Stage(measure, MeasureConfig()), Stage(decide, RulesConfig(web_page=WebPage(min_words=100.0))))
    return make_run(tmp_path_factory.mktemp("run") / "out", *stages, rows=20).path


def rows(out: Path) -> pa.RecordBatch:
    columns = {f.name for f in pq.read_schema(next(out.rglob("*.parquet"))) if pa.types.is_floating(f.type)}
    wanted = ["doc_id", "lang", *sorted(columns - {"drop_value", "drop_bound"})]
    table = pa.concat_tables(pq.ParquetFile(file).read(wanted) for file in out.rglob("*.parquet"))
    (batch,) = table.combine_chunks().to_batches()
    return batch


def test_a_run_is_judged_as_decide_would_under_either_set(out: Path) -> None:
    made, docs = disagreement_of_run(*open_run(out), "gopher_quality", "fineweb", samples=1000), rows(out)
    sides = [
        with_decision(decide(docs, cfg))["drop_rule"].fill_null("kept").to_pylist()
        for cfg in (RulesConfig(gopher_quality=GopherQuality()), RulesConfig(fineweb=FineWeb()))
    ]
    assert made.pairs == Counter(zip(*sides, strict=True))
    assert min(made.only_a, made.only_b) > 0
    ids = docs["doc_id"].to_pylist()
    for samples, keeps in ((made.samples_only_a, (True, False)), (made.samples_only_b, (False, True))):
        wanted = [i for i, a, b in zip(ids, *sides, strict=True) if (a == "kept", b == "kept") == keeps]
        assert [s.row["doc_id"] for s in samples] == sorted(wanted)
        assert all(s.row["text"] for s in samples)


def test_a_table_in_a_notebook_and_the_run_it_comes_from_say_the_same(out: Path) -> None:
    of_run = disagreement_of_run(*open_run(out), "gopher_quality", "fineweb", samples=3)
    of_table = disagreement(pa.table(rows(out)), GopherQuality(), FineWeb(), samples=3)
    assert (of_table.pairs, of_table.languages) == (of_run.pairs, of_run.languages)
    for a, b in ((of_table.samples_only_a, of_run.samples_only_a), (of_table.samples_only_b, of_run.samples_only_b)):
        assert [s.row["doc_id"] for s in a] == [s.row["doc_id"] for s in b]
        assert [(s.a, s.b) for s in a] == [(s.a, s.b) for s in b]


def test_rules_of_ones_own_come_from_a_file(out: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from pipelines.filter.rules import GopherQuality\n\n\ndef strict():\n    return GopherQuality(min_words=300.0)\n"
    )
    made = disagreement_of_run(*open_run(out), "gopher_quality", f"{tmp_path}/own.py:strict")
    assert made.only_a > 0
    assert made.only_b == 0
    assert "words" in made.alike


@pytest.mark.parametrize(
    ("a", "says"),
    [
        ("nosuch", "there is no rule set 'nosuch'"),
        ("nosuch.py:own", "there is no file 'nosuch.py'"),
        ("c4", "does not hold c4_curly_bracket_lines, c4_lorem_ipsum_lines, c4_sentences; put the stage `c4_lines`"),
    ],
)
def test_a_set_that_cannot_be_compared_is_one_line(out: Path, a: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disagree", str(out), a, "fineweb"]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_dialect_that_was_not_measured_is_named(out: Path) -> None:
    with pytest.raises(
        UserError, match=r'does not hold words@other; name the dialect .* MeasureConfig\(dialects=\("other",\)\)'
    ):
        disagreement_of_run(*open_run(out), "gopher_quality", THEIRS)


@pytest.mark.parametrize(
    ("nothing", "says"),
    [
        ((Rule("off", "words", "min", None),), "has no rule that is on"),
        (5, "5 is int, no rule set"),
    ],
)
def test_what_is_no_rule_set_is_refused(nothing: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        disagreement(table(("en", 1.0, 1.0, 0.0)), nothing, THEIRS)


def printed(made: Disagreement, width: int) -> str:
    console = Console(width=width, record=True)
    print_disagreement(made, console)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 160])
def test_the_report_fits_the_terminal_and_holds_the_numbers(out: Path, width: int) -> None:
    made = disagreement_of_run(*open_run(out), "gopher_quality", "fineweb", samples=2)
    shown = printed(made, width)
    assert max(map(len, shown.splitlines())) <= width
    for number in (made.only_a, made.only_b):
        assert f"2 of {number:,}" in shown
    for (a, b), count in made.pairs.most_common(3):
        if (a, b) != ("kept", "kept"):
            assert [a.removeprefix("gopher_quality."), b.removeprefix("fineweb."), f"{count:,}"] in map(
                str.split, shown.splitlines()
            )


def test_the_verb_prints_the_report(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disagree", str(out), "gopher_quality", "fineweb", "--samples", "1"]) == 0
    shown = capsys.readouterr().out
    assert "only a keeps" in shown
    assert "first rule broken in a" in shown


# --- on texts -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages(texts: Path) -> pa.Table:
    """The texts of web.jsonl, those with a language."""
    lines = [json.loads(line) for line in (texts / "web.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [line for line in lines if line["lang"]]
    return pa.table({name: [row.get(name) for row in rows] for name in ("url", "lang", "text")})


def test_texts_are_measured_where_their_measures_lack(pages: pa.Table) -> None:
    docs = record_batch({name: pages[name].to_pylist() for name in pages.column_names}, RECORD)
    measured = pa.table(measure(docs, MeasureConfig()).drop_columns("doc_id"))
    assert disagreement(pages, "gopher_quality", "fineweb") == disagreement(measured, "gopher_quality", "fineweb")


def test_a_dialect_is_measured_on_texts(pages: pa.Table) -> None:
    theirs = (Rule("gopher_quality@dclm.min_words", "words@dclm", "min", 50.0),)
    made = disagreement(pages, "gopher_quality", theirs)
    words = made.distances["words"]
    assert words.documents == pages.num_rows
    assert 0 < words.equal < words.documents
    assert words.quantile(0.95) > words.quantile(0.5)


def test_page_rules_of_c4_are_counted_on_the_text_as_it_is(pages: pa.Table) -> None:
    made = disagreement(pages, (Rule("own.min_words", "words", "min", 0.0),), "c4")
    curly = sum("{" in text for text in pages["text"].to_pylist())
    assert made.pairs["kept", "c4.max_curly_bracket_lines"] == curly > 0


def test_a_language_that_is_not_given_is_identified() -> None:
    english = "The river had been rising since the morning, and people of the village came to look at it. "
    german = "Der Fluss war seit dem Morgen gestiegen, und die Leute aus dem Dorf kamen, um ihn sich anzusehen. "
    made = disagreement(pa.table({"text": [english * 5, german * 5]}), "web_page", "fineweb")
    assert made.languages.keys() == {"en", "de"}


@pytest.mark.parametrize("name", ["texts.parquet", "texts.jsonl"])
def test_a_file_of_texts_is_judged_as_its_table(pages: pa.Table, tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pq.write_table(pages, tmp_path / name)
    else:
        lines = (json.dumps({k: v for k, v in row.items() if v}) for row in pages.to_pylist())
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    of_file = disagreement_of_file(tmp_path / name, "gopher_quality", "fineweb")
    assert of_file.pairs == disagreement(pages, "gopher_quality", "fineweb").pairs
    assert main(["disagree", str(tmp_path / name), "gopher_quality", "fineweb"]) == 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"", "it is empty"),
        ("a.jsonl", b"no json\n", "neither a run nor Parquet or JSONL with texts"),
        ("a.parquet", b"PAR1", "neither a run nor Parquet or JSONL with texts"),
    ],
)
def test_a_file_without_texts_is_one_line(
    tmp_path: Path, name: str, content: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["disagree", str(tmp_path / name), "gopher_quality", "fineweb"]) == 1
    assert says in capsys.readouterr().err


def test_an_empty_table_has_nothing_to_disagree_on() -> None:
    assert disagreement(table(), OURS, THEIRS).pairs.total() == 0
