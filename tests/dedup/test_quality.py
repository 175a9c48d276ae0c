"""How good removal was, measured on a sample: every pair of it, every estimate within its error, every bound kept."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from pipelines.dedup.near import NearConfig, near_duplicates
from pipelines.dedup.quality.allpairs import TooMany, similar_pairs
from pipelines.dedup.quality.estimates import (
    QualityConfig,
    all_pairs,
    by_band,
    examples,
    precision,
    recall,
    to_check,
    weighted_share,
    wilson,
)
from pipelines.dedup.quality.measure import measure_quality, wanted
from pipelines.dedup.quality.sample import COLUMNS, SAMPLE, Bounds, Sampler, least_shingles, merged, sampled
from pipelines.dedup.shingles import Hashes, jaccard, shingle_sets
from pipelines.recipe import Recipe, Stage, Step, steps, with_settings
from pipelines.report.quality import qualities
from pipelines.rundir import BESIDE, QUALITY

WORDS = NearConfig().minhash.ngram
EVERYTHING = QualityConfig()


# --- all pairs ----------------------------------------------------------------------------------------------------------


def by_hand(sets: Sequence[Hashes], floor: float) -> list[tuple[int, int, float]]:
    return [(i, j, s) for i, j in combinations(range(len(sets)), 2) if (s := jaccard(sets[i], sets[j])) >= floor]


def joined(sets: Sequence[Hashes], floor: float) -> list[tuple[int, int, float]]:
    found = similar_pairs(sets, floor)
    return list(zip(found.a.tolist(), found.b.tolist(), found.similarity.tolist(), strict=True))


some_sets = st.lists(st.sets(st.integers(0, 40), max_size=30).map(lambda s: np.array(sorted(s), np.uint64)), max_size=25)


@settings(max_examples=150, deadline=None)
@given(some_sets, st.sampled_from([0.05, 0.3, 0.4, 0.5, 2 / 3, 0.75, 0.9, 1.0]))
def test_the_join_finds_what_comparing_each_with_each_finds(sets: list[Hashes], floor: float) -> None:
    assert joined(sets, floor) == by_hand(sets, floor)


@pytest.mark.parametrize("floor", [0.3, 0.5, 0.7])
def test_and_so_it_does_for_long_sets_with_a_common_part(floor: float) -> None:
    draw = np.random.default_rng(3)
    common = draw.integers(0, 2**63, 120).astype(np.uint64)
    sets = list[Hashes]()
    for number in range(120):
        own = draw.integers(0, 2**63, int(draw.integers(5, 400))).astype(np.uint64)
        old = sets[int(draw.integers(0, number))] if number and number % 2 else own
        kept = old[draw.random(len(old)) < draw.random()]
        sets.append(np.unique(np.concatenate((kept, own[: len(own) // 4], common[: int(draw.integers(0, 120))]))))
    found = joined(sets, floor)
    assert found == by_hand(sets, floor)
    assert len(found) >= 3


def test_too_many_pairs_or_too_much_work_is_refused_not_run() -> None:
    sets = [np.arange(50, dtype=np.uint64)] * 30
    assert len(similar_pairs(sets, 0.5, most_pairs=435)) == 435
    with pytest.raises(TooMany, match="more than 434 pairs"):
        similar_pairs(sets, 0.5, most_pairs=434)
    with pytest.raises(TooMany, match="100 steps among 30 sets"):
        similar_pairs(sets, 0.5, most_steps=100)
    with pytest.raises(ValueError, match=r"floor is 0; it must be in \(0, 1\]"):
        similar_pairs(sets, 0)


# --- sample -------------------------------------------------------------------------------------------------------------


def words(draw: random.Random, count: int) -> list[str]:
    return [f"w{draw.getrandbits(40):x}" for _ in range(count)]


def document(number: int, text: str | None, survivor: int | None = None, similarity: float | None = None) -> dict[str, Any]:
    """A document whose doc_id is a hash, as everywhere."""
    fields = {"source": f"source{number % 2}", "url": f"https://h{number % 3}.example/{number}", "lang": "en", "text": text}
    return {
        "doc_id": identity(number),
        **fields,
        "duplicate_of": None if survivor is None else identity(survivor),
        "drop_value": similarity,
    }


def identity(number: int) -> bytes:
    return random.Random(number).getrandbits(128).to_bytes(16, "big")


def batches(documents: Sequence[dict[str, Any]], rows: int = 100) -> list[pa.RecordBatch]:
    schema = pa.schema([SAMPLE.field(name) for name in COLUMNS])
    return list(pa.Table.from_pylist(list(documents), schema).to_batches(max_chunksize=rows))


def draw_sample(documents: Sequence[dict[str, Any]], bounds: Bounds) -> pa.Table:
    return pa.Table.from_batches(sampled(batches(documents), bounds, WORDS), SAMPLE)


def corpus(pairs: int, alone: int, seed: int = 5) -> list[dict[str, Any]]:
    """Pairs of documents of all similarities from .3 to 1 that have nothing in common with others, and documents alone."""
    draw = random.Random(seed)
    documents = [document(k, " ".join(words(draw, 40))) for k in range(alone)]
    for k in range(pairs):
        text = words(draw, 60)
        copied = text[: 60 - (k % 25)] + words(draw, k % 25)
        first = alone + 2 * k
        documents += [document(first, " ".join(text)), document(first + 1, " ".join(copied))]
    return documents


SMALL = Bounds(documents=300, bytes=1 << 20, longest=4096, alike=8)


def test_the_sample_is_that_of_the_documents_in_any_order_and_any_partitioning() -> None:
    documents = corpus(400, 700)
    whole = draw_sample(documents, SMALL)
    random.Random(1).shuffle(documents)
    assert draw_sample(documents, SMALL).equals(whole)
    for parts in (2, 7):
        drawn = [b for k in range(parts) for b in sampled(batches(documents[k::parts]), SMALL, WORDS)]
        random.Random(2).shuffle(drawn)
        assert pa.Table.from_batches(merged(drawn, SMALL), SAMPLE).equals(whole)
    early = pa.Table.from_batches(sampled(batches(documents), SMALL, WORDS, classes=4), SAMPLE)
    assert early.equals(whole)


def test_it_keeps_its_bounds_and_is_as_large_as_they_allow() -> None:
    documents = corpus(400, 700)
    for bounds in (SMALL, replace(SMALL, documents=40), replace(SMALL, bytes=40_000), replace(SMALL, longest=500)):
        drawn = draw_sample(documents, bounds)
        rows = drawn.filter(pc.is_valid(drawn["doc_id"]))
        size = [len(t) for t in rows["text"].to_pylist()]
        assert len(size) <= bounds.documents
        assert sum(size) <= bounds.bytes
        assert max(size) <= bounds.longest
        classes = drawn["classes"][0].as_py()
        eligible = [d for d in documents if len(d["text"]) <= bounds.longest]
        assert len(size) == pytest.approx(len(eligible) / classes, rel=0.45)
        assert classes == 1 or len(size) > bounds.documents / 4 or sum(size) > bounds.bytes / 4


def test_it_holds_pairs_that_a_plain_sample_of_its_size_would_not() -> None:
    drawn = draw_sample(corpus(400, 700), SMALL)
    found = all_pairs(drawn, NearConfig(), EVERYTHING)
    assert found.classes == 8
    assert len(found.pairs) > 3 * 400 / found.classes**2


def test_of_many_documents_with_one_least_shingle_a_bounded_number_is_held_and_counted() -> None:
    documents = [document(k, "the very same words in every one of these documents") for k in range(300)]
    drawn = draw_sample(documents, SMALL)
    rows = drawn.filter(pc.is_valid(drawn["doc_id"]))
    assert rows["doc_id"].to_pylist() == sorted(d["doc_id"] for d in documents)[:8]
    assert pc.sum(rows["members"]).as_py() == 300
    found = all_pairs(drawn, NearConfig(), EVERYTHING)
    (band,) = by_band(found, NearConfig(), EVERYTHING)
    assert (band.pairs, round(band.estimated)) == (28, 300 * 299 // 2)
    assert band.shared.number == pytest.approx(1)  # one group: 28 pairs are one observation
    assert band.shared.low < 0.3


@pytest.mark.parametrize("text", [None, "", " ... ", "x" * 5000])
def test_texts_without_shingles_and_very_long_ones_have_no_part_in_it(text: str | None) -> None:
    drawn = draw_sample([document(0, text)], SMALL)
    assert drawn["doc_id"].to_pylist() == [None]
    found = all_pairs(drawn, NearConfig(), EVERYTHING)
    assert by_band(found, NearConfig(), EVERYTHING) == []
    assert recall(found, NearConfig())["share"].share is None
    assert precision(found, to_check(found, EVERYTHING), {}, NearConfig())["checked"] == 0


def test_the_least_shingle_is_shared_as_often_as_the_similarity_says() -> None:
    draw = random.Random(9)
    shared, expected = 0, 0.0
    for k in range(1500):
        text = words(draw, 40)
        other = text[: 40 - k % 20] + words(draw, k % 20)
        a, b = shingle_sets(pa.array([" ".join(text), " ".join(other)]), WORDS)
        first, second = least_shingles([a, b])
        shared, expected = shared + int(first == second), expected + jaccard(a, b)
    assert shared == pytest.approx(expected, abs=4 * 1500**0.5 / 2)


def test_bounds_that_hold_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="bytes at least alike x longest"):
        Bounds(documents=10, bytes=100, longest=50, alike=3)
    with pytest.raises(ValueError, match="classes is 3; it must be a power of two"):
        Sampler(SMALL, 3)


# --- estimates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "number", "low", "high"),
    [(0.5, 100, 0.4038, 0.5962), (1.0, 10, 0.7225, 1.0), (0.0, 10, 0.0, 0.2775), (0.1, 1000, 0.0829, 0.1202), (0.7, 0, 0, 1)],
)
def test_wilsons_interval(share: float, number: float, low: float, high: float) -> None:
    assert wilson(share, number) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("hit", "weight", "group", "share", "number"),
    [
        ([True, True, False, False], [1, 1, 1, 1], [1, 2, 3, 4], 0.5, 4),
        ([True, True, False, False], [1, 1, 1, 1], [1, 1, 2, 2], 0.5, 2),
        ([True, False], [3, 1], [1, 2], 0.75, 1.6),
        ([True, True, True], [5, 5, 5], [7, 7, 7], 1.0, 1),
    ],
)
def test_a_share_counts_weights_and_what_was_drawn_together_once(
    hit: list[bool], weight: list[float], group: list[int], share: float, number: float
) -> None:
    found = weighted_share(np.array(hit), np.array(weight, float), np.array(group))
    assert (found.share, found.number) == pytest.approx((share, number))
    assert found.low <= share <= found.high


def removed_by_chance(documents: list[dict[str, Any]], seed: int) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Of pairs from .75 on, the second goes nine times of ten; and the true numbers per band."""
    draw, truth = random.Random(seed), Counter[str]()
    result = [dict(d) for d in documents]
    for k in range(len(documents) - 1):
        first, second = shingle_sets(pa.array([documents[k]["text"], documents[k + 1]["text"]]), WORDS)
        similarity = jaccard(first, second)
        if similarity >= 0.4:
            truth["pairs"] += 1
        if similarity >= 0.75:
            truth["over"] += 1
            if draw.random() < 0.9:
                truth["gone"] += 1
                result[k + 1] |= {"duplicate_of": documents[k]["doc_id"], "drop_value": similarity}
    return result, truth


def test_estimates_are_right_within_their_errors() -> None:
    """Eight corpora: the sum of estimated pairs within four standard errors, each recall in an interval of four widths."""
    estimated = truth = variance = 0.0
    for seed in range(8):
        documents, true = removed_by_chance(corpus(500, 500, seed), seed)
        found = all_pairs(draw_sample(documents, SMALL), NearConfig(), EVERYTHING)
        assert found.classes > 1
        bands_found = by_band(found, NearConfig(), EVERYTHING)
        estimated += sum(b.estimated for b in bands_found)
        truth += true["pairs"]
        variance += float((found.weight**2).sum())
        share = recall(found, NearConfig())["share"]
        middle, width = true["gone"] / true["over"], max(share.high - share.low, 0.01)
        assert share.low - width < middle < share.high + width
    assert abs(estimated - truth) < 4 * variance**0.5
    assert variance**0.5 < 0.15 * truth


def test_the_observed_curve_is_the_predicted_one() -> None:
    stage = NearConfig()
    found = all_pairs(draw_sample(corpus(1500, 0), Bounds()), stage, EVERYTHING)
    assert found.classes == 1
    for band in by_band(found, stage, EVERYTHING):
        sigma = max((band.predicted * (1 - band.predicted) / band.pairs) ** 0.5, 0.02)
        assert abs((band.shared.share or 0.0) - band.predicted) < 4 * sigma, band
        assert band.low <= band.similarity <= band.high


def test_bands_tile_the_range_and_the_threshold_is_an_edge() -> None:
    stage = NearConfig(threshold=0.77)
    found = all_pairs(draw_sample(corpus(300, 0), Bounds()), stage, QualityConfig(floor=0.45))
    made = by_band(found, stage, QualityConfig(floor=0.45))
    assert [(b.low, b.high) for b in made][:1] == [(0.45, 0.5)]
    assert {0.77} <= {b.low for b in made}
    assert made[-1].high == 1.0
    assert sum(b.pairs for b in made) == len(found.pairs)


def test_more_pairs_than_are_wanted_thin_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw_sample(corpus(300, 0), Bounds())
    monkeypatch.setattr(
        "pipelines.dedup.quality.estimates.similar_pairs", lambda sets, floor: similar_pairs(sets, floor, most_pairs=60)
    )
    found = all_pairs(drawn, NearConfig(), EVERYTHING)
    assert found.classes >= 4
    assert 0 < len(found.pairs) <= 60
    assert float(found.weight.sum()) == pytest.approx(270, rel=0.6)


# --- a table ------------------------------------------------------------------------------------------------------------


BASE = " ".join(words(random.Random(1), 100))


def changed(text: str, count: int, seed: int) -> str:
    """The text with its last words replaced."""
    units = text.split()
    return " ".join(units[: len(units) - count] + words(random.Random(seed), count))


def table() -> list[dict[str, Any]]:
    """A cluster of 5, one of 3 with a wrong removal, a pair that was missed, a source that loses 19 of 20, documents alone."""
    draw = random.Random(4)
    rows = [document(0, BASE)]
    rows += [document(k, changed(BASE, k, k), 0, None) for k in (1, 2, 3, 4)]
    other = " ".join(words(draw, 100))
    rows += [
        document(10, other),
        document(11, changed(other, 3, 403), 10, None),
        document(12, changed(other, 60, 404), 10, 0.9),
    ]
    missed = " ".join(words(draw, 100))
    rows += [document(20, missed), document(21, changed(missed, 5, 406))]
    rows += [document(30 + k, " ".join(words(draw, 30))) for k in range(30)]
    spam = " ".join(words(draw, 80))
    rows += [document(100, spam) | {"source": "spam", "url": "https://user@WWW.Spam.example:8080/0"}]
    rows += [
        document(100 + k, changed(spam, 1, 50 + k), 100, None) | {"source": "spam", "url": f"https://spam.example/{k}"}
        for k in range(1, 20)
    ]
    sets = {r["doc_id"]: shingle_sets(pa.array([r["text"]]), WORDS)[0] for r in rows}
    for row in rows:
        if row["duplicate_of"] is not None and row["drop_value"] is None:
            row["drop_value"] = jaccard(sets[row["doc_id"]], sets[row["duplicate_of"]])
        row["outcome"] = "kept" if row["duplicate_of"] is None else "dropped"
    return [*rows, document(999, BASE) | {"outcome": "quarantined"}]


TABLE = (
    "doc_id binary, source string, url string, lang string, text string, duplicate_of binary, drop_value double, outcome string"
)
CONFIG = QualityConfig(host_documents=10, alarm=0.9)


@pytest.fixture(scope="module")
def measured(spark: SparkSession) -> dict[str, Any]:
    hot = spark.createDataFrame([(7, 100), (8, 300), (9, 100)], "key long, members long")
    rows = spark.createDataFrame([tuple(row[n.split()[0]] for n in TABLE.split(", ")) for row in table()], TABLE)
    made: dict[str, Any] = json.loads(json.dumps(measure_quality(rows.repartition(3), NearConfig(), CONFIG, hot)))
    return made


def test_what_was_removed_wrongly_and_what_was_missed(measured: dict[str, Any]) -> None:
    assert (measured["documents"], measured["removed"]) == (60, 25)
    exact = measured["precision"]
    assert (exact["checked"], exact["below"], exact["differs"], exact["unknown"]) == (25, 1, 1, 0)
    assert exact["least"] == pytest.approx(36 / (2 * 96 - 36))
    assert exact["share"]["share"] == pytest.approx(24 / 25)
    assert measured["recall"]["missed"] == 1
    assert measured["recall"]["pairs"] == 10 + 1 + 1 + 190
    assert measured["sample"] | {"bytes": 0} == {"documents": 60, "bytes": 0, "classes": 1, "pairs": 202}


def test_clusters(measured: dict[str, Any]) -> None:
    sizes = [(s["least"], s["most"], s["clusters"], s["documents"]) for s in measured["clusters"]["sizes"]]
    assert sizes == [(1, 1, 32, 32), (3, 3, 1, 3), (4, 7, 1, 5), (16, 31, 1, 20)]
    largest = measured["clusters"]["largest"]
    assert [c["size"] for c in largest] == [20, 5, 3]
    assert largest[0]["places"] == [{"source": "spam", "host": "spam.example", "documents": 20}]
    assert largest[0]["doc_id"] == identity(100).hex()
    assert largest[1]["text"] == BASE[:400]
    assert largest[1]["text_chars"] == len(BASE)
    assert sum(p["documents"] for p in largest[1]["places"]) == 5


def test_losses_by_source_and_host_and_hot_buckets(measured: dict[str, Any]) -> None:
    by_source = {s["source"]: (s["documents"], s["removed"]) for s in measured["sources"]}
    assert by_source["spam"] == (20, 19)
    assert measured["sources"][0]["source"] == "spam"
    assert sum(n for n, _ in by_source.values()) == 60
    assert measured["hosts"]["alarms"] == 1
    assert measured["hosts"]["first"][0] | {"share": 0} == {
        "source": "spam", "host": "spam.example", "documents": 20, "removed": 19, "share": 0,
    }  # fmt: skip
    buckets = [{"key": 8, "members": 300}, {"key": 7, "members": 100}, {"key": 9, "members": 100}]
    assert measured["hot_buckets"] == {"number": 3, "members": 500, "most": 300, "first": buckets}


def test_pairs_to_look_at_span_the_similarities(measured: dict[str, Any]) -> None:
    removed = [p["similarity"] for p in measured["examples"]["removed"]]
    assert removed == sorted(removed)
    assert removed[0] < 0.75 < 0.95 < removed[-1]
    (missed,) = measured["examples"]["missed"]
    assert {missed["left"]["doc_id"], missed["right"]["doc_id"]} == {identity(20).hex(), identity(21).hex()}


def test_the_report_says_what_is_alarming(measured: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / BESIDE).mkdir()
    (tmp_path / BESIDE / QUALITY).write_text(json.dumps({"stage": "near_duplicates", **measured}))
    (found,) = qualities([tmp_path], lambda text: text, 500)
    assert [alarm.split(" documents")[0] for alarm in found["alarms"]] == [
        "source spam loses 19 of 20",
        "host spam.example loses 19 of 20",
        "1 of 25 removed",
        "1 of 25 removed",
    ]


def test_what_the_stage_itself_removes_holds(spark: SparkSession) -> None:
    rows = [(d["doc_id"], d["source"], d["url"], "en", None, d["text"]) for d in corpus(60, 20)]
    df = spark.createDataFrame(rows, "doc_id binary, source string, url string, lang string, date string, text string")
    made = near_duplicates(df, NearConfig())
    outcome = "case when drop_rule is null then 'kept' else 'dropped' end as outcome"
    quality = measure_quality(made.rows.selectExpr("*", outcome), NearConfig(), QualityConfig(), made.beside["hot_buckets"])
    exact = quality["precision"]
    assert quality["removed"] == exact["checked"] > 10
    assert (exact["below"], exact["differs"], exact["unknown"]) == (0, 0, 0)
    assert exact["least"] >= 0.75
    assert quality["recall"]["share"]["share"] > 0.85
    assert [s["share"] for s in quality["sources"]] == sorted((s["share"] for s in quality["sources"]), reverse=True)


def test_nothing_was_there(spark: SparkSession) -> None:
    quality = measure_quality(spark.createDataFrame([], TABLE), NearConfig(), QualityConfig())
    assert (quality["documents"], quality["bands"], quality["hot_buckets"]) == (0, [], None)
    assert quality["clusters"] == {"sizes": [{"least": 1, "most": 1, "clusters": 0, "documents": 0}], "largest": []}


def test_containment_is_checked_as_containment() -> None:
    long, short = words(random.Random(2), 100), words(random.Random(2), 50)
    rows = [document(0, " ".join(long)), document(1, " ".join(short), 0, 1.0)]
    stage = NearConfig(measure="containment", threshold=0.9)
    found = all_pairs(draw_sample(rows, Bounds()), stage, EVERYTHING)
    exact = precision(found, to_check(found, EVERYTHING), {identity(0): rows[0]["text"]}, stage)
    assert (exact["least"], exact["below"], exact["differs"]) == (1.0, 0, 0)
    shown = examples(found, exact["similarity"], {identity(0): rows[0] | {"text_chars": 1}}, stage, EVERYTHING)
    assert [p["similarity"] for p in shown["removed"]] == [1.0]
    gone = precision(found, to_check(found, EVERYTHING), {}, stage)
    assert (gone["checked"], gone["unknown"]) == (0, 1)


def test_it_is_measured_once_and_again_for_other_settings(tmp_path: Path) -> None:
    step = Step(3, (Stage(near_duplicates, NearConfig()),), (), "f00d")
    want = wanted(step, tmp_path)
    assert want is not None
    (tmp_path / BESIDE).mkdir()
    (tmp_path / BESIDE / QUALITY).write_text(json.dumps({"fingerprint": want}))
    assert wanted(step, tmp_path) is None
    assert wanted(replace(step, fingerprint="beef"), tmp_path) not in (None, want)
    assert wanted(Step(0, (), (), "f00d"), tmp_path) is None


@pytest.mark.parametrize(
    ("setting", "measures"),
    [("alarm=0.5", True), ("sample.documents=100", True), ("sample.documents=0", False)],
)
def test_its_settings_are_reached_from_the_command_line_and_repeat_no_stage(
    setting: str, measures: bool, tmp_path: Path
) -> None:
    recipe = Recipe("one", (), (Stage(near_duplicates, NearConfig()),))
    changed = with_settings(recipe, [f"near_duplicates.quality.{setting}"])
    ((before,), (after,)) = (steps(r, []) for r in (recipe, changed))
    assert before.fingerprint == after.fingerprint
    assert (wanted(after, tmp_path) is not None) == measures
    assert wanted(after, tmp_path) != wanted(before, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"), [("floor", 0), ("floor", 1.1), ("alarm", 0), ("checked", -1), ("shown", -1), ("host_documents", -1)]
)
def test_settings_that_mean_nothing_are_refused(field: str, value: float) -> None:
    assert asdict(QualityConfig())[field] != value
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        replace(QualityConfig(), **{field: value})  # type: ignore[arg-type]
