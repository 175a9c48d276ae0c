"""Lines that many documents have: what counts as one, what is spared, and that any partitioning cuts the same."""

import random
import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from pipelines.dedup.kernels.lines import BLANK, CODE, ENTRY, characters, line_buffers, split
from pipelines.dedup.lines import LINES_COLUMNS, LinesConfig, _how, repeated_lines
from pipelines.filter.kernels.phrases import text_buffers
from pipelines.schema import DECISION

LEFT = LinesConfig(min_left=0)


def kinds(text):
    data, offsets = text_buffers(pa.array([text]))
    lines, _ = line_buffers(data, offsets)
    number, _ = split(data, offsets[0], offsets[1], characters(), _how(LEFT), lines)
    return lines.kind[:number].tolist()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("All rights reserved.", 0),
        ("Home | About | Contact", 0),
        ("Home :: Products :: Shop", 0),
        ("Read more ->", 0),
        (">> Next page", 0),
        ("return to top", 0),
        ("Sign in (or register)", 0),
        ("=== News ===", 0),
        ("See https://example.org/a?b=c&d=e for more", 0),
        ("Copyright \u00a9 2024; all rights reserved", 0),
        ("define what you mean", 0),
        ("A. Smith wrote this", 0),
        ("-- ", 0),
        ("\u767b\u5f55", 0),
        ("", BLANK),
        (" \t\u00a0\u3000", BLANK),
        ("- Home", ENTRY),
        ("* Home", ENTRY),
        ("\u2022 Home", ENTRY),
        ("\u00b7 Home", ENTRY),
        ("\u2013 Home", ENTRY),
        ("\u25aa Home", ENTRY),
        ("12. Twelfth", ENTRY),
        ("(3) Third", ENTRY),
        ("b) second", ENTRY),
        ("| a | b |", ENTRY),
        ("    indented by four", CODE),
        ("\tindented by a tab", CODE),
        ("x = f(y);", CODE),
        ("if (a == b) {", CODE),
        ("} else {", CODE),
        ("break;", CODE),
        ("def run(self):", CODE),
        ("total = price * 2", CODE),
        ("node->next->value", CODE),
        ("std::vector<int> found", CODE),
        ("calls open() first", CODE),
        ("#include <stdio.h>", CODE),
        ("// a comment", CODE),
        ("</div>", CODE),
        ("$ pip install headrace", CODE),
        ("a && b || c", CODE),
    ],
)
def test_kinds_of_lines(line, kind):
    assert kinds(f"{line}\n" if line == "" else line) == [kind]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\r\nc\rd\u2028e\u2029f\u0085g", [0] * 7),
        ("\n\r\n\r", [BLANK] * 3),
        ("text\n```\ncode\n\nmore\n```\ntext", [0, CODE, CODE, CODE | BLANK, CODE, CODE, 0]),
        ("~~~ python\n```\nx\n~~~\ntext", [CODE, CODE, CODE, CODE, 0]),
        ("```\nnever closed", [CODE, CODE]),
        ("x = 1\nbetween\n\ny = 2\nafter", [CODE, CODE, BLANK, CODE, 0]),
        ("", []),
    ],
)
def test_kinds_in_their_text(text, expected):
    assert kinds(text) == expected


# --- the stage ----------------------------------------------------------------------------------------------------------------

spark_test = pytest.mark.spark


COLUMNS = "doc_id binary, url string, date string, text string"


def run(spark, texts, cfg, partitions=None, dropped=()):
    """name -> row; and the table of lines."""
    names = list(texts)
    random.Random(5).shuffle(names)
    columns = {
        "doc_id": pa.array([n.encode() for n in names]),
        "url": pa.array(["http://e.org"] * len(names)),
        "date": pa.array(["2026-01-01T00:00:00Z"] * len(names)),
        "text": pa.array([texts[n] for n in names], pa.string()),
        "drop_rule": pa.array(["earlier" if n in dropped else None for n in names], pa.string()),
    }
    df = spark.createDataFrame(pa.table(columns))
    made = repeated_lines(df.repartition(partitions) if partitions else df, cfg)
    assert made.rows.columns == [*columns, *[n for n in DECISION.names if n not in columns], *LINES_COLUMNS.names]
    return {r["doc_id"].decode(): r for r in made.rows.toArrow().to_pylist()}, made.beside["lines"].toArrow().to_pylist()


def folded(line):
    return " ".join(unicodedata.normalize("NFD", line.lower()).split())


def oracle(texts, more_than):
    """name -> text, by a dict of lines; for texts of plain lines that end in newlines."""
    seen = {}
    for name, text in texts.items():
        for line in {folded(x) for x in text.split("\n")}:
            seen.setdefault(line, set()).add(name)
    gone = {x for x, names in seen.items() if len(names) > more_than and sum(c.isalnum() for c in x) >= 4}
    return {n: "\n".join(x for x in t.split("\n") if folded(x) not in gone) for n, t in texts.items()}, seen, gone


def random_texts(seed, documents=60):
    source = random.Random(seed)
    common = [f"Common line number {i} \u00e9t\u00e9" for i in range(30)]
    weights = [1 / (i + 1) for i in range(30)]
    texts = {}
    for d in range(documents):
        lines = source.choices(common, weights, k=source.randrange(6))
        lines = [source.choice([x, x.upper(), "  " + x.replace(" ", "  ") + "\t"]) for x in lines]
        lines = [unicodedata.normalize(source.choice(["NFC", "NFD"]), x) for x in lines]
        lines += [f"Line {k} of {d} alone" for k in range(source.randrange(1, 4))]
        source.shuffle(lines)
        texts[f"d{d:02}"] = "\n".join(lines)
    return texts


@spark_test
@pytest.mark.parametrize("partitions", [1, 13])
def test_lines_cut_are_those_of_the_oracle(spark, partitions):
    texts = random_texts(1)
    left, seen, gone = oracle(texts, 6)
    rows, shown = run(spark, texts, LEFT, partitions)
    assert 3 < len(gone) < 30
    assert {n: r["text"] for n, r in rows.items()} == left
    assert {n: r["chars_cut"] for n, r in rows.items()} == {n: len(t) - len(left[n]) for n, t in texts.items()}
    assert {n: r["lines_cut"] for n, r in rows.items()} == {n: t.count("\n") - left[n].count("\n") for n, t in texts.items()}
    assert {folded(x["text"]): x["documents"] for x in shown} == {x: len(seen[x]) for x in gone}
    assert [x["documents"] for x in shown] == sorted((len(seen[x]) for x in gone), reverse=True)
    copies = {x: sum(folded(line) == x for t in texts.values() for line in t.split("\n")) for x in gone}
    assert {folded(x["text"]): x["lines"] for x in shown} == copies


@spark_test
def test_the_join_gives_what_the_broadcast_gives(spark, monkeypatch):
    texts = random_texts(2)
    monkeypatch.setattr("pipelines.dedup.lines._BROADCAST", 0)
    monkeypatch.setattr("pipelines.dedup.lines._BITS", 15)
    rows, _ = run(spark, texts, LEFT, 3)
    assert {n: r["text"] for n, r in rows.items()} == oracle(texts, 6)[0]


SEVEN = 7 * ("",)


def corpus(text, others=SEVEN):
    """Seven documents that have the text, and one text of its own each."""
    return {f"d{i}": f"{text}\nThis is only in {i}." + x for i, x in enumerate(others)}


SPARED = [
    ("- About us", "keep_lists"),
    ("All rights reserved", True),
    ("\u7248\u6743\u6240\u6709\u8bf7\u52ff\u8f6c\u8f7d", True),
    ("* * *", False),
    ("-----", False),
    ("}", False),
    ("123", False),
    ("value = f(y);", "keep_code"),
    ("```\nthe same code\n```", "keep_code"),
]


@spark_test
@pytest.mark.parametrize("off", [(), ("keep_code",), ("keep_lists",), ("keep_code", "keep_lists")])
def test_what_is_spared(spark, off):
    rows, _ = run(spark, corpus("\n".join(line for line, _ in SPARED)), LinesConfig(min_left=0, **dict.fromkeys(off, False)))
    stays = [line for line, cut in SPARED if not (cut is True or cut in off)]
    if "keep_code" in off:
        stays.append("```\n```")  # too few letters to be counted
    assert rows["d3"]["text"] == "\n".join([*stays, "This is only in 3."])


@spark_test
@pytest.mark.parametrize(("change", "stays"), [({"more_than": 7}, True), ({"min_chars": 20}, True), ({"min_chars": 17}, False)])
def test_bounds(spark, change, stays):
    rows, _ = run(spark, corpus("All rights reserved"), LinesConfig(min_left=0, **change))
    assert rows["d3"]["text"] == "All rights reserved\n" * stays + "This is only in 3."


@spark_test
def test_digits_count_unless_they_are_folded(spark):
    texts = {f"d{i}": f"{i + 3} people like this\nThis is only in {'abcdefg'[i]}." for i in range(7)}
    assert {r["lines_cut"] for r in run(spark, texts, LEFT)[0].values()} == {0}
    folded_digits, _ = run(spark, texts, LinesConfig(min_left=0, fold_digits=True))
    assert {n: r["text"] for n, r in folded_digits.items()} == {n: t.split("\n")[1] for n, t in texts.items()}


@spark_test
def test_paragraphs(spark):
    texts = corpus("First line\nsecond line\n\nA paragraph\r\nof two lines\r\n\r\n\r\nFirst line")
    rows, shown = run(spark, texts, LinesConfig(unit="paragraph", min_left=0))
    assert rows["d2"]["text"] == "First line\nThis is only in 2."  # a line of a paragraph that is another one
    assert rows["d2"]["lines_cut"] == 2
    assert [re.sub(r"\s+", " ", x["text"]) for x in shown] == ["A paragraph of two lines", "First line second line"]


SEAMS = [
    ("Own.\n\nMENU LINE\n\nOwn.", "Own.\n\nOwn."),
    ("menu line\n\nOwn.", "Own."),
    ("Own.\n\nmenu line", "Own."),
    ("Own.\nmenu line\n", "Own."),
    ("Own.\r\nmenu line\r\nOwn.\r\n", "Own.\r\nOwn.\r\n"),
    ("Own.\rmenu line\rOwn.", "Own.\rOwn."),
    ("Own.\u2028menu line\u2028Own.", "Own.\u2028Own."),
    ("\n\nOwn.\n\n\nOwn.\n\n", "\n\nOwn.\n\n\nOwn.\n\n"),
    ("menu line\nmenu line", ""),
    ("  menu \u3000 line", ""),
    ("menu line.", "menu line."),
]


@spark_test
def test_seams(spark):
    own = [f"Only here {i} \u00e9" for i in range(len(SEAMS))]
    texts = {f"s{i:02}": text.replace("Own", own[i]) for i, (text, _) in enumerate(SEAMS)}
    rows, _ = run(spark, texts, LEFT)
    assert [rows[n]["text"] for n in texts] == [left.replace("Own", own[i]) for i, (_, left) in enumerate(SEAMS)]
    assert [rows[n]["chars_cut"] for n in texts] == [len(t) - len(rows[n]["text"]) for n, t in texts.items()]


@spark_test
def test_the_best_documents_may_keep_a_line(spark):
    texts = corpus("All rights reserved", ["+" * (i * 3 % 7) for i in range(7)])
    rows, _ = run(spark, texts, LinesConfig(min_left=0, keep=2), 3)
    best = sorted(texts, key=lambda n: (-len(texts[n]), n))[:2]
    assert {n for n, r in rows.items() if r["lines_cut"] == 0} == set(best)


@spark_test
def test_documents_count_or_copies(spark):
    texts = {"song": "\n".join(["Sing along with me"] * 7) + "\nOther verse", "other": "Something else"}
    assert run(spark, texts, LEFT)[0]["song"]["lines_cut"] == 0
    assert run(spark, texts, LinesConfig(min_left=0, count="copies"))[0]["song"]["text"] == "Other verse"


@spark_test
def test_each_bucket_counts_for_itself(spark):
    texts = {f"d{i:03}": f"All rights reserved\nThis is only in {i}." for i in range(100)}
    rows, shown = run(spark, texts, LinesConfig(min_left=0, bucket=5, more_than=6), 3)
    assert sum(x["documents"] for x in shown) == sum(r["lines_cut"] for r in rows.values())
    assert len({x["bucket"] for x in shown}) == len(shown) > 1
    assert all(x["documents"] > 6 for x in shown)
    assert 0 < sum(r["lines_cut"] for r in rows.values()) < 100


@spark_test
def test_documents_with_too_little_left_go(spark):
    texts = {**corpus("All rights reserved by us"), "small": "tiny"}
    rows, _ = run(spark, texts, LinesConfig(min_left=19))
    assert {(r["drop_rule"], r["drop_value"], r["drop_bound"]) for n, r in rows.items() if n != "small"} == {
        ("repeated_lines.left", 18.0, 19.0)
    }
    assert rows["small"]["drop_rule"] is None  # it lost nothing
    rows, _ = run(spark, texts, LinesConfig(min_left=18, min_share=0.5))
    assert {(r["drop_rule"], r["drop_value"]) for n, r in rows.items() if n != "small"} == {("repeated_lines.share", 18 / 44)}


@spark_test
def test_rows_with_a_decision_neither_count_nor_change(spark):
    texts = corpus("All rights reserved")
    rows, shown = run(spark, texts, LEFT, dropped=("d0",))
    assert {n: r["text"] for n, r in rows.items()} == texts
    assert shown == []
    rows, shown = run(spark, {**texts, "d7": "All rights reserved"}, LEFT, dropped=("d0",))
    assert rows["d0"]["text"] == texts["d0"]
    assert rows["d7"]["text"] == ""
    assert [x["documents"] for x in shown] == [7]


@spark_test
@pytest.mark.parametrize("texts", [{}, {"one": "A line\nA line"}, {"null": None}, {"empty": ""}])
def test_nothing_frequent(spark, texts):
    df = spark.createDataFrame([(n.encode(), "u", "d", t) for n, t in texts.items()], COLUMNS)
    made = repeated_lines(df, LinesConfig())
    assert {r.doc_id.decode(): (r.text, r.lines_cut, r.chars_cut) for r in made.rows.collect()} == {
        n: (t, 0, 0) for n, t in texts.items()
    }
    assert made.beside["lines"].count() == 0


@spark_test
def test_all_identical_and_a_document_of_20_mb(spark):
    great = "\n".join(f"Line {i} of many" for i in np.random.default_rng(1).permutation(1_100_000)) + "\nSame text"
    rows, shown = run(spark, {**{f"copy-{i}": "Same text" for i in range(50)}, "great": great}, LEFT, 3)
    assert len(great) > 20_000_000
    assert rows["great"]["text"] == great.removesuffix("\nSame text")
    assert {r["text"] for n, r in rows.items() if n != "great"} == {""}
    assert shown == [{"text": "Same text", "bucket": 0, "documents": 51, "lines": 51}]


@pytest.mark.parametrize(
    "wrong", [{"unit": "word"}, {"count": "x"}, {"more_than": 0}, {"bucket": -1}, {"keep": -1}, {"min_chars": 0},
              {"min_share": 2.0}, {"min_left": -1}, {"top": 0}, {"top": 10_001}],
)  # fmt: skip
def test_config_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinesConfig(**wrong)
