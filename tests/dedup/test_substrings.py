"""Repeated spans: equal to an oracle that looks at every window, whatever the partitioning, and nothing repeated is lost."""

import random
import re
import unicodedata

import pyarrow as pa
import pytest

from pipelines.dedup.substrings import SPANS_COLUMNS, SubstringsConfig, repeated_substrings
from pipelines.schema import DECISION

pytestmark = pytest.mark.spark

SIZE = 10
HAN = "".join(map(chr, range(0x4E00, 0x4E00 + 400)))


def prose(seed, count, vocabulary=4000):
    return random.Random(seed).choices([f"w{i}" for i in range(vocabulary)], k=count)


def text_of(*parts):
    return " ".join(" ".join(p) if isinstance(p, list) else p for p in parts)


# --- the oracle: a dict of all windows ------------------------------------------------------------------------------------


def tokens(text):
    """(begin, end, what is compared) of each token."""
    return [
        (m.start(), m.end(), unicodedata.normalize("NFD", m.group().lower()))
        for m in re.finditer(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff](?:[^\W\u4e00-\u9fff]|[\u0300-\u036f])*", text)
    ]


def order_of(texts):
    """Names, best first: the longest, then by name."""
    return sorted((n for n, t in texts.items() if t), key=lambda n: (-len(texts[n]), n))


def spans_of(texts, size, within):
    """name -> list of (start, end, tokens, name of the document with the first place); and the windows that stay for others."""
    first, marks, relied = {}, {}, {}
    units = {n: tokens(texts[n]) for n in order_of(texts)}
    for name, found in units.items():
        for i in range(len(found) - size + 1):
            window = tuple(t for *_, t in found[i : i + size])
            place = first.setdefault(window, (name, i))
            if place != (name, i) and (within or place[0] != name):
                marks.setdefault(name, {})[i] = place[0]
                relied.setdefault(place[0], set()).update(range(place[1], place[1] + size))
    result = {}
    for name, marked in marks.items():
        of = {}  # token -> the first place of the window that covers it and begins first
        for i, owner in sorted(marked.items()):
            for t in range(i, i + size):
                of.setdefault(t, owner)
        found = []
        for t in sorted(set(of) - relied.get(name, set())):
            if found and found[-1][1] == t and found[-1][2] == of[t]:
                found[-1][1] = t + 1
            else:
                found.append([t, t + 1, of[t]])
        if found:
            result[name] = [(units[name][a][0], units[name][b - 1][1], b - a, owner) for a, b, owner in found]
    return result


def windows(texts, size):
    """Each window of the texts and how often it occurs."""
    seen = {}
    for text in texts:
        found = [t for *_, t in tokens(text or "")]
        for i in range(len(found) - size + 1):
            window = tuple(found[i : i + size])
            seen[window] = seen.get(window, 0) + 1
    return seen


# --- the stage --------------------------------------------------------------------------------------------------------------


COLUMNS = "doc_id binary, url string, date string, text string"


def run(spark, texts, cfg, partitions=None, dropped=()):
    names = list(texts)
    random.Random(7).shuffle(names)
    columns = {
        "doc_id": pa.array([n.encode() for n in names]),
        "url": pa.array(["http://e.org"] * len(names)),
        "date": pa.array(["2026-01-01T00:00:00Z"] * len(names)),
        "text": pa.array([texts[n] for n in names], pa.string()),
        "drop_rule": pa.array(["earlier" if n in dropped else None for n in names], pa.string()),
    }
    df = spark.createDataFrame(pa.table(columns))
    made = repeated_substrings(df.repartition(partitions) if partitions else df, cfg)
    assert made.rows.columns == [*columns, *[n for n in DECISION.names if n not in columns], *SPANS_COLUMNS.names]
    rows = {r["doc_id"].decode(): r for r in made.rows.toArrow().to_pylist()}
    spans = {}
    for r in sorted(made.beside["spans"].toArrow().to_pylist(), key=lambda r: (r["doc_id"], r["start"])):
        spans.setdefault(r["doc_id"].decode(), []).append((r["start"], r["end"], r["tokens"], r["duplicate_of"].decode()))
    return rows, spans


X, Y, Z = prose(1, 40), prose(2, 25), prose(3, 12)
CORPUS = {
    # the shortest span that counts, and one that is a token shorter
    "just": text_of(prose(11, 30), X[:10], prose(12, 30)),
    "not": text_of(prose(13, 30), X[20:29], prose(14, 25)),
    # spans that overlap: x y is first here, then x alone and y alone elsewhere
    "both": text_of(prose(15, 60), X, Y, prose(16, 5)),
    "x": text_of(prose(17, 30), X, prose(18, 3)),
    "y": text_of("Head.", Y, prose(19, 31)),
    # windows over the border of two spans are first in a document that is not the best
    "long": text_of(prose(20, 200), X),
    "seam-1": text_of(prose(21, 50), X, Z),
    "seam-2": text_of(prose(22, 8), X, Z, prose(23, 7)),
    # in one document
    "twice": text_of(prose(24, 20), Z, prose(25, 20), Z, prose(26, 20)),
    "chorus": text_of(*[["la", "la", "li"]] * 40, prose(27, 9)),
    "same word": text_of(["go"] * 60),
    # other marks, case, blanks, accents
    "marked": text_of(prose(28, 9), ", ".join(Y).upper(), prose(29, 9)).replace(" ", "\r\n"),
    "accents": text_of(prose(30, 9), [f"caf\u00e9{i}" for i in range(12)]),
    "accents-2": text_of(prose(31, 11), [f"CAFE\u0301{i}" for i in range(12)]),
    # scripts without blanks
    "zh": HAN[:90] + "\u3002" + HAN[200:215],
    "zh-2": HAN[300:320] + "\uff0c" + HAN[40:52] + "\u3002" + HAN[310:330],
    "zh-words": "abc " + HAN[60:66] + "x1" + HAN[66:70] + text_of(prose(32, 9)),
    "copy-1": text_of(prose(33, 70)),
    "copy-2": text_of(prose(33, 70)),
    "copy-3": text_of(prose(33, 70)),
    "short": "two words",
    "empty": "",
    "null": None,
}


@pytest.mark.parametrize("partitions", [1, 13])
def test_spans_are_those_of_the_oracle(spark, partitions):
    rows, spans = run(spark, CORPUS, SubstringsConfig(tokens=SIZE, min_left=0), partitions)
    expected = spans_of(CORPUS, SIZE, True)
    assert {"x", "y", "seam-2", "twice", "chorus", "same word", "marked", "accents", "zh-2", "copy-2"} <= set(expected)
    assert spans == expected
    assert set(rows) == set(CORPUS)
    for name, row in rows.items():
        assert row["drop_rule"] is None
        lost = len(CORPUS[name] or "") - len(row["text"] or "")
        assert (row["spans_cut"] > 0, row["span_chars_cut"]) == (name in expected, lost)
        if name not in expected:
            assert row["text"] == CORPUS[name]


def test_repeats_within_a_document_may_stay(spark):
    _, spans = run(spark, CORPUS, SubstringsConfig(tokens=SIZE, within=False))
    expected = spans_of(CORPUS, SIZE, False)
    assert not {"chorus", "same word"} & set(expected)
    assert spans == expected


def test_what_is_cut_is_what_the_evidence_says_and_no_more(spark):
    rows, spans = run(spark, CORPUS, SubstringsConfig(tokens=SIZE, min_left=0))
    for name, found in spans.items():
        stays = [t for a, b, t in tokens(CORPUS[name]) if not any(s <= a and b <= e for s, e, *_ in found)]
        assert [t for *_, t in tokens(rows[name]["text"])] == stays, name


@pytest.mark.parametrize("seed", range(3))
def test_every_repeated_window_is_still_there_once(spark, seed):
    """Few words, so that windows repeat and overlap in every way."""
    source = random.Random(seed)
    passages = [prose(100 * seed + i, source.randrange(4, 25), 60) for i in range(25)]
    texts = {f"d{i:02}": text_of(*source.choices(passages, k=source.randrange(1, 9))) for i in range(40)}
    rows, spans = run(spark, texts, SubstringsConfig(tokens=SIZE, min_left=60), 3)
    assert spans == spans_of(texts, SIZE, True)
    before = {w for w, n in windows(texts.values(), SIZE).items() if n > 1}
    after = set(windows([r["text"] for r in rows.values() if r["drop_rule"] is None], SIZE))
    assert len(before) > 100
    assert before <= after


def test_windows_of_hot_anchors_are_spread_and_a_full_filter_changes_nothing(spark, monkeypatch):
    monkeypatch.setattr("pipelines.dedup.substrings._HOT", 3)
    monkeypatch.setattr("pipelines.dedup.substrings._BITS", 15)
    monkeypatch.setattr("pipelines.dedup.substrings._SMALL", 0)  # and spans that do not fit a broadcast
    _, spans = run(spark, CORPUS, SubstringsConfig(tokens=SIZE), 3)
    assert spans == spans_of(CORPUS, SIZE, True)


SEAMS = [
    ("Before it. {x}. After it.", "Before it. After it."),
    ("Before it.\n\n{x}.\nAfter it.", "Before it.\n\nAfter it."),
    ("Before it. {x}!\r\n\r\nAfter it.", "Before it.\r\n\r\nAfter it."),
    ("Before it, ({x}) after it.", "Before it, after it."),
    ("Before\u3000\u201c{x}\u201d after.", "Before\u3000after."),
    ("{x}; after it.", "after it."),
    ("  {x}", ""),
    ("Before it: {x}...  ", "Before it:"),
    ("Before-{x}-after", "Before--after"),
    ("\u524d\u9762{x}\u3002\u540e\u9762", "\u524d\u9762\u540e\u9762"),
    ("Gr\u00fc\u00dfe {x}\n\U0001f600 Ende", "Gr\u00fc\u00dfe\n\U0001f600 Ende"),
]


def own(text, i):
    """The words around a cut are others in each case, so that none repeats."""
    return text.replace(" it", f" it{i}").replace("efore", f"efore{i}").replace("fter", f"fter{i}")


def test_seams(spark):
    x = text_of(X)
    texts = {
        "best": text_of(X, prose(5, 100)),
        **{f"s{i}": own(text, i).replace("{x}", x) for i, (text, _) in enumerate(SEAMS)},
    }
    rows, spans = run(spark, texts, SubstringsConfig(tokens=SIZE, min_left=0))
    del rows["best"]
    assert {n: r["text"] for n, r in rows.items()} == {f"s{i}": own(left, i) for i, (_, left) in enumerate(SEAMS)}
    for name, row in rows.items():
        begin = texts[name].index(x)
        assert spans[name] == [(begin, begin + len(x), 40, "best")]
        assert (row["spans_cut"], row["span_chars_cut"]) == (1, len(texts[name]) - len(row["text"]))


def test_words_do_not_join(spark):
    texts = {"best": HAN[:60], "cut": "one" + HAN[5:30] + "two"}
    assert run(spark, texts, SubstringsConfig(tokens=SIZE, min_left=0))[0]["cut"]["text"] == "one two"


def test_report_leaves_texts_and_decisions(spark):
    cut, spans = run(spark, CORPUS, SubstringsConfig(tokens=SIZE))
    rows, reported = run(spark, CORPUS, SubstringsConfig(tokens=SIZE, action="report"))
    assert reported == spans
    assert {n: r["text"] for n, r in rows.items()} == CORPUS
    assert {r["drop_rule"] for r in rows.values()} == {None}
    assert {n: (r["spans_cut"], r["span_chars_cut"]) for n, r in rows.items()} == {
        n: (r["spans_cut"], r["span_chars_cut"]) for n, r in cut.items()
    }


def test_what_is_left_decides_unless_others_rely_on_it(spark):
    texts = {
        "best": text_of(X, prose(5, 100)),
        "rest": text_of(X, "little more"),
        "relied": text_of(X, Z),  # of which 9 words of X and Z are first here
        "other": text_of(Z),
        "small": "always was",
    }
    rows, _ = run(spark, texts, SubstringsConfig(tokens=SIZE, min_left=200))
    assert {n: (r["drop_rule"], r["drop_value"], r["drop_bound"]) for n, r in rows.items()} == {
        "best": (None, None, None),
        "rest": ("repeated_substrings.left", 11.0, 200.0),
        "relied": (None, None, None),
        "other": ("repeated_substrings.left", 0.0, 200.0),
        "small": (None, None, None),
    }
    rows, _ = run(spark, texts, SubstringsConfig(tokens=SIZE, min_left=0, min_share=0.2))
    assert {n for n, r in rows.items() if r["drop_rule"] == "repeated_substrings.share"} == {"rest", "other"}


def test_rows_with_a_decision_take_no_part(spark):
    texts = {"best": text_of(X, prose(5, 100)), "second": text_of(X, prose(6, 50)), "third": text_of(X, prose(8, 9))}
    rows, spans = run(spark, texts, SubstringsConfig(tokens=SIZE), dropped=("best",))
    assert {n: s[0][3] for n, s in spans.items()} == {"third": "second"}
    assert (rows["best"]["text"], rows["best"]["drop_rule"]) == (texts["best"], "earlier")


@pytest.mark.parametrize("texts", [{}, {"one": text_of(X)}, {"null": None}, {"empty": ""}, {"a": "a", "b": "a"}])
def test_nothing_repeated(spark, texts):
    df = spark.createDataFrame([(n.encode(), "u", "d", t) for n, t in texts.items()], COLUMNS)
    made = repeated_substrings(df, SubstringsConfig())
    assert {r.doc_id.decode(): (r.text, r.spans_cut, r.span_chars_cut) for r in made.rows.collect()} == {
        n: (t, 0, 0) for n, t in texts.items()
    }
    assert made.beside["spans"].count() == 0


def test_all_identical_one_stays(spark):
    texts = {f"copy-{i:03}": text_of(X) for i in range(200)}
    rows, spans = run(spark, texts, SubstringsConfig(tokens=SIZE), 3)
    assert [n for n, r in rows.items() if r["drop_rule"] is None] == ["copy-000"]
    assert {s[0][3] for s in spans.values()} == {"copy-000"}


def test_rows_of_one_doc_id_share_their_fate(spark):
    texts = [(b"a", text_of(X, prose(5, 100))), (b"b", text_of(X, prose(6, 9))), (b"b", text_of(X, prose(6, 9)))]
    df = spark.createDataFrame([(n, "u", "d", t) for n, t in texts], COLUMNS)
    rows = repeated_substrings(df.repartition(3), SubstringsConfig(tokens=SIZE, min_left=0)).rows.collect()
    assert sorted((bytes(r.doc_id), r.text) for r in rows) == [
        (b"a", texts[0][1]), (b"b", text_of(prose(6, 9))), (b"b", text_of(prose(6, 9)))
    ]  # fmt: skip


def test_a_document_of_20_mb(spark):
    """Half of it is repeated in itself: more than one chunk of windows, and more than a batch of occurrences."""
    half = text_of(prose(40, 1_600_000, 500_000))
    texts = {"great": half + " middle " + half, "small": half[1000:3000]}
    rows, spans = run(spark, texts, SubstringsConfig(min_left=0))
    assert len(texts["great"].encode()) > 20_000_000
    assert [(s[0], s[1]) for s in spans["great"]] == [(len(half) + 8, 2 * len(half) + 8)]
    assert rows["great"]["text"] == half + " middle"
    assert len(spans["small"]) == 1
    assert len(rows["small"]["text"]) < 20  # but for halves of words at its ends


@pytest.mark.parametrize("wrong", [{"tokens": 1}, {"action": "drop"}, {"min_left": -1}, {"min_share": 2.0}])
def test_config_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SubstringsConfig(**wrong)
