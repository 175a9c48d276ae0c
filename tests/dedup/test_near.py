import logging
import random

import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from pipelines.dedup.near import NearConfig, near_duplicates
from pipelines.dedup.shingles import jaccard, shingle_sets
from pipelines.schema import DECISION

pytestmark = pytest.mark.spark

ZH = "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少白日依山尽黄河入海流欲穷千里目更上一层楼床前明月光疑是地上霜举头望明月低头思故乡"


def words(seed, count):
    return random.Random(seed).choices([f"w{i}" for i in range(3000)], k=count)


def edited(text, places, mark):
    """Other words at these places; each takes five of the text's shingles away."""
    return [f"{mark}{i}" if i in places else w for i, w in enumerate(text)]


BASE = words(1, 400)
CHAIN = words(2, 400)
DOCUMENTS = {
    # a page, two edited copies and a longer one; the longest stays
    "page": BASE,
    "page-edited": edited(BASE, {100}, "x"),
    "page-cut": BASE[:380],
    "page-longest": [*BASE, *words(5, 12)],
    # a chain: b is like a and like c, a and c are not alike
    "chain-a": [*CHAIN, "longest"],
    "chain-b": edited(CHAIN, set(range(0, 66, 6)), "b"),
    "chain-c": edited(CHAIN, set(range(0, 132, 6)), "b")[:-1],
    # fewer words than a shingle has
    "short-1": ["hello", "world"],
    "short-2": ["hello", "there"],
    "short-1-again": ["Hello,", "world!", ":)"],
    "empty": [],
    "dots": ["..."],
    "dots-again": ["..."],
    # no blanks
    "zh": [ZH * 1],
    "zh-edited": [ZH[:-2] + "。"],
    "zh-other": [ZH[::-1]],
    **{f"alone-{i}": words(100 + i, 150) for i in range(20)},
}
TEXTS = {name: " ".join(tokens) for name, tokens in DOCUMENTS.items()}
SURVIVOR = {
    "page": "page-longest",
    "page-edited": "page-longest",
    "page-cut": "page-longest",
    "chain-b": "chain-a",
    "short-1": "short-1-again",
    "zh-edited": "zh",
}


def similarity(a, b):
    return jaccard(*shingle_sets(pa.array([TEXTS[a], TEXTS[b]]), 5))


def table(spark, names=tuple(TEXTS)):
    return of_texts(spark, [n.encode() for n in names], [TEXTS[n] for n in names])


def of_texts(spark, ids, texts):
    columns = {"doc_id": ids, "url": ["http://e.org"] * len(ids), "date": ["2026-01-01T00:00:00Z"] * len(ids), "text": texts}
    return spark.createDataFrame(pa.table(columns))


def run(df, cfg):
    return near_duplicates(df, cfg).rows


def decisions(df):
    return sorted(
        (
            r["doc_id"].decode(),
            r["drop_rule"],
            r["drop_value"],
            r["drop_bound"],
            r["duplicate_of"] and r["duplicate_of"].decode(),
        )
        for r in df.toArrow().to_pylist()
    )


EXPECTED = sorted(
    (n, "near_duplicates.jaccard", similarity(n, SURVIVOR[n]), 0.75, SURVIVOR[n])
    if n in SURVIVOR
    else (n, None, None, None, None)
    for n in TEXTS
)


def test_the_documents_are_as_their_names_say():
    assert similarity("chain-a", "chain-b") >= 0.75
    assert similarity("chain-b", "chain-c") >= 0.75
    assert similarity("chain-a", "chain-c") < 0.75


def test_each_goes_for_one_that_stays_and_is_like_it(spark):
    df = table(spark)
    result = run(df, NearConfig())
    assert sorted(result.columns) == sorted([*df.columns, *DECISION.names, "cluster_size"])
    assert decisions(result) == EXPECTED


@pytest.mark.parametrize(("partitions", "adaptive"), [(1, "false"), (13, "true")])
def test_any_partitioning_and_plan_gives_the_same(spark, partitions, adaptive):
    before = spark.conf.get("spark.sql.adaptive.enabled")
    spark.conf.set("spark.sql.adaptive.enabled", adaptive)
    try:
        df = table(spark, sorted(TEXTS, key=lambda n: random.Random(n).random())).repartition(partitions)
        assert decisions(run(df, NearConfig())) == EXPECTED
    finally:
        spark.conf.set("spark.sql.adaptive.enabled", before)


def test_texts_that_do_not_fit_a_broadcast_are_shuffled_to_the_same_result(spark, monkeypatch):
    monkeypatch.setattr("pipelines.dedup.decide.BROADCAST_ROWS", 0)
    assert decisions(run(table(spark), NearConfig())) == EXPECTED


def test_nothing_alike_nothing_goes(spark):
    result = decisions(run(table(spark, ["alone-1", "alone-2", "empty", "dots"]), NearConfig()))
    assert [(n, rule) for n, rule, *_ in result] == [("alone-1", None), ("alone-2", None), ("dots", None), ("empty", None)]
    assert decisions(run(table(spark).limit(0), NearConfig())) == []


def test_a_hot_bucket_is_paired_with_its_best_and_told(spark, caplog):
    texts = [" ".join(edited(BASE, {12 * i}, "x")) + " end" * (i == 7) for i in range(30)]
    df = of_texts(spark, [f"copy-{i:02}".encode() for i in range(30)], texts)
    with caplog.at_level(logging.WARNING, "pipelines.dedup.near"):
        made = near_duplicates(df, NearConfig(hubs=2))
    assert {r[0]: r[4] for r in decisions(made.rows)} == {f"copy-{i:02}": None if i == 7 else "copy-07" for i in range(30)}
    hot = made.beside["hot_buckets"].toArrow()["members"].to_pylist()
    assert min(hot) > 3
    assert f"{len(hot)} buckets hold more than 3 documents (the largest: {max(hot)}, in all: {sum(hot)})" in caplog.text


def test_documents_with_the_same_keys_do_not_fill_the_buckets(spark):
    df = of_texts(spark, [f"copy-{i:02}".encode() for i in range(30)], [TEXTS["page"]] * 30)
    made = near_duplicates(df, NearConfig(hubs=2))
    assert {r[0]: r[4] for r in decisions(made.rows)} == {f"copy-{i:02}": "copy-00" if i else None for i in range(30)}
    assert made.beside["hot_buckets"].count() == 0


def test_the_evidence_names_every_pair_found_alike(spark):
    pairs = near_duplicates(table(spark), NearConfig()).beside["pairs"].toArrow().to_pylist()
    assert all(p["similarity"] == similarity(p["doc_id"].decode(), p["other"].decode()) >= 0.75 for p in pairs)
    assert {p["doc_id"].decode(): p["other"].decode() for p in pairs if p["survivor"]} == SURVIVOR
    assert ("chain-c", "chain-b", False) in {(p["doc_id"].decode(), p["other"].decode(), p["survivor"]) for p in pairs}


def test_the_survivor_counts_its_copies(spark):
    rows = {r["doc_id"].decode(): r["cluster_size"] for r in run(table(spark), NearConfig()).toArrow().to_pylist()}
    assert {n: size for n, size in rows.items() if size != 1} == {"page-longest": 4, "chain-a": 2, "short-1-again": 2, "zh": 2}
    counted = table(spark).withColumn("cluster_size", F.when(F.col("doc_id") == b"page", 10).otherwise(1).cast("long"))
    rows = {r["doc_id"].decode(): r["cluster_size"] for r in run(counted, NearConfig()).toArrow().to_pylist()}
    assert (rows["page-longest"], rows["page"]) == (13, 10)


def test_containment_and_cover_are_asked_for_by_name(spark):
    part = of_texts(spark, [b"part", b"whole"], [" ".join(BASE[:300]), TEXTS["page"]])
    goes = ("part", "near_duplicates.containment", 1.0, 0.9, "whole")
    assert decisions(run(part, NearConfig(threshold=0.9, measure="containment")))[0] == goes
    new = table(spark, ["page", "page-edited", "page-cut"])
    covered = {r[0]: r[4] for r in decisions(run(new, NearConfig(covered=True)))}
    assert sorted(covered.values(), key=str).count(None) == 2  # of page and page-edited each has a word of its own
    assert covered["page-cut"] in ("page", "page-edited")


def test_rows_of_one_doc_id_are_not_multiplied(spark):
    df = table(spark, ["page", "page", "page-longest", "alone-1", "alone-1"])
    result = decisions(run(df, NearConfig()))
    assert [(n, survivor) for n, *_, survivor in result] == [
        ("alone-1", None), ("alone-1", None), ("page", "page-longest"), ("page", "page-longest"), ("page-longest", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0.0}, {"threshold": 1.1}, {"hubs": 0}, {"max_rounds": 0}, {"linkage": "x"}, {"measure": "x"}]
)
def test_config_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NearConfig(**wrong)
