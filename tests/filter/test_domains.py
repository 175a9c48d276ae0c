"""Domains by the rate of what is found on their own pages."""

from typing import Any

import pyarrow as pa
import pytest

from pipelines.errors import UserError
from pipelines.filter.bad_words import BadWordsConfig, bad_words
from pipelines.filter.domains import (
    DomainRateConfig,
    PiiRateConfig,
    drop_domains_by_rate,
    hosts,
    pii_rate,
    registered_domains,
)
from pipelines.privacy.pii import PiiConfig, mask_pii
from pipelines.schema import RECORD, record_batch

HIT, GOOD = 0.5, 0.1
SCHEMA = pa.schema(
    [
        ("doc_id", pa.binary()), ("url", pa.string()), ("score", pa.float64()), ("drop_rule", pa.string()),
    ]
)  # fmt: skip
CFG = DomainRateConfig("test", "score", max_value=0.2, max_rate=0.5, min_documents=3)


def pages(prefix: str, *scores: float | None, path: str = "/") -> list[dict[str, Any]]:
    return [{"doc_id": f"{prefix}{path}{i}".encode(), "url": f"{prefix}{path}{i}", "score": s} for i, s in enumerate(scores)]


ROWS = [
    *pages("http://www.bad.co.uk", HIT, HIT),
    *pages("https://shop.bad.co.uk", HIT, GOOD),  # 3 of 4, whichever host
    *pages("http://other.co.uk", GOOD, GOOD, GOOD, HIT),
    *pages("http://half.example", HIT, HIT, GOOD, GOOD),  # a rate on the bound passes
    *pages("http://few.example", HIT, HIT),  # too few
    *pages("http://bound.example", 0.2, 0.2, 0.2),  # a value on the bound is no hit
    *pages("http://unmeasured.example", HIT, HIT, HIT, None, float("nan"), GOOD),  # 3 of 4 measured
    *pages("http://me.github.io", HIT, HIT, HIT),
    *pages("http://you.github.io", GOOD, GOOD, GOOD),
    *pages("http://\u043f\u0440\u0438\u043c\u0435\u0440.example", HIT, HIT),
    *pages("http://www.xn--e1afmkfd.example", HIT),  # the same domain
    *({"doc_id": f"none{i}".encode(), "url": url, "score": HIT} for i, url in enumerate([None, "", "x:y", None, "/path"])),
    {"doc_id": None, "url": None, "score": HIT},
]
GONE = [  # with a decision from before they count for nothing, and keep it
    {"doc_id": f"gone{i}".encode(), "url": f"http://half.example/gone{i}", "score": HIT, "drop_rule": "earlier.rule"}
    for i in range(5)
]


def decisions(df: Any) -> dict[str, tuple[str, float | None, float | None, str | None]]:
    rows = df.toArrow().to_pylist()
    assert len(rows) == len(ROWS) + len(GONE)
    return {
        r["doc_id"].decode(): (r["drop_rule"], r["drop_value"], r["drop_bound"], r["drop_entry"])
        for r in rows
        if r["drop_rule"] is not None
    }


EXPECTED = {
    **{r["doc_id"].decode(): ("domains.test", 0.75, 0.5, "bad.co.uk") for r in ROWS[:4]},
    **{
        r["doc_id"].decode(): ("domains.test", 0.75, 0.5, "unmeasured.example")
        for r in pages("http://unmeasured.example", *[None] * 6)
    },
    **{r["doc_id"].decode(): ("domains.test", 1.0, 0.5, "me.github.io") for r in pages("http://me.github.io", *[None] * 3)},
    **{
        r["doc_id"].decode(): ("domains.test", 1.0, 0.5, "xn--e1afmkfd.example")
        for r in [
            *pages("http://\u043f\u0440\u0438\u043c\u0435\u0440.example", None, None),
            *pages("http://www.xn--e1afmkfd.example", None),
        ]
    },
    **{r["doc_id"].decode(): ("earlier.rule", None, None, None) for r in GONE},
}


@pytest.mark.spark
@pytest.mark.parametrize("broadcast", ["-1", "10MB"])  # the bad domains sent to every worker, or shuffled like the rows
@pytest.mark.parametrize("partitions", [1, 3, 13])
def test_the_same_domains_go_for_any_partitioning(spark: Any, partitions: int, broadcast: str) -> None:
    before = spark.conf.get("spark.sql.autoBroadcastJoinThreshold")
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", broadcast)
    try:
        df = spark.createDataFrame(pa.Table.from_pylist([*ROWS, *GONE], SCHEMA)).repartition(partitions)
        assert decisions(drop_domains_by_rate(df, CFG)) == EXPECTED
    finally:
        spark.conf.set("spark.sql.autoBroadcastJoinThreshold", before)


@pytest.mark.spark
def test_by_host_each_host_stands_for_itself(spark: Any) -> None:
    df = spark.createDataFrame(pa.Table.from_pylist([*ROWS, *GONE], SCHEMA))
    cfg = DomainRateConfig("test", "score", 0.2, max_rate=0.5, min_documents=2, by="host")
    entries = {entry for _, _, _, entry in decisions(drop_domains_by_rate(df, cfg)).values()}
    expected = {"www.bad.co.uk", "few.example", "unmeasured.example", "me.github.io", "xn--e1afmkfd.example", None}
    assert entries == expected  # not shop.bad.co.uk: 1 of 2


@pytest.mark.spark
def test_columns_are_those_that_came_and_the_decision(spark: Any) -> None:
    df = spark.createDataFrame(pa.Table.from_pylist(ROWS, SCHEMA))
    added = ["drop_value", "drop_bound", "drop_entry", "duplicate_of", "error_class", "error_message"]
    assert drop_domains_by_rate(df, CFG).columns == [*df.columns, *added]
    with pytest.raises(UserError, match="needs the column 'ratio'"):
        drop_domains_by_rate(df, DomainRateConfig("test", "ratio", 0.2, 0.5))


def test_domains_and_hosts_of_urls() -> None:
    urls = pa.array(["http://www.A.example/x", None, "", "x:y", "http://u@b.c.co.uk:80", "http://10.0.0.1/"])
    assert registered_domains(urls).to_pylist() == ["a.example", None, None, None, "c.co.uk", "10.0.0.1"]
    assert hosts(urls).to_pylist() == ["www.a.example", None, None, None, "b.c.co.uk", "10.0.0.1"]


TEXTS = ["Write to someone@site.com or +1 212 555 0123." + "x" * 455, "Nothing here.", "", None]


def test_personal_data_per_1000_characters() -> None:
    docs = record_batch({"doc_id": [b"a", b"b", b"c", b"d"], "text": TEXTS, "lang": ["en"] * 4}, RECORD)
    assert len(TEXTS[0] or "") == 500
    assert pii_rate(docs, PiiRateConfig())["pii_per_1000_chars"].to_pylist() == [4.0, 0.0, None, None]
    assert pii_rate(docs, PiiRateConfig(("email",)))["pii_per_1000_chars"].to_pylist() == [2.0, 0.0, None, None]


def test_behind_the_mask_its_counts_are_taken() -> None:
    docs = record_batch({"doc_id": [b"a", b"b", b"c", b"d"], "text": TEXTS, "lang": ["en"] * 4}, RECORD)
    masked = mask_pii(docs, PiiConfig())
    length = len(masked["text"][0].as_py())
    assert pii_rate(masked, PiiRateConfig())["pii_per_1000_chars"].to_pylist() == [2000 / length, 0.0, None, None]
    assert pii_rate(masked, PiiRateConfig(()))["pii_per_1000_chars"].to_pylist() == [0.0, 0.0, None, None]


@pytest.mark.spark
def test_adult_domains_by_the_words_of_a_users_list(spark: Any) -> None:
    texts = ["rude words here", "rude", "nothing of the kind", "rude rude rude rude", "fine"]
    urls = ["http://a.example/1", "http://www.a.example/2", "http://a.example/3", "http://b.example/1", "http://c.example/1"]
    docs = record_batch({"doc_id": [bytes([i]) for i in range(5)], "text": texts, "url": urls, "lang": ["en"] * 5}, RECORD)
    measured = bad_words(docs, BadWordsConfig(lists=("rude",), max_hits=None))
    df = spark.createDataFrame(pa.Table.from_batches([measured]))
    rows = (
        drop_domains_by_rate(df, DomainRateConfig("adult", "bad_word_ratio", 0.1, 0.5, min_documents=2)).toArrow().to_pylist()
    )
    got = {r["url"]: (r["drop_rule"], r["drop_value"], r["drop_entry"]) for r in rows}
    assert got == {u: ("domains.adult", pytest.approx(2 / 3), "a.example") for u in urls[:3]} | {
        u: (None, None, None) for u in urls[3:]
    }
