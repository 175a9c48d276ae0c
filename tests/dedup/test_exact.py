import pyarrow as pa
import pytest

from pipelines.dedup.exact import ExactConfig, UrlConfig, exact_duplicates, url_duplicates
from pipelines.errors import UserError

pytestmark = pytest.mark.spark

SCHEMA = pa.schema(
    [
        ("doc_id", pa.binary()), ("url", pa.string()), ("date", pa.string()), ("text", pa.string()), ("file", pa.string()),
        ("offset", pa.int64()), ("score", pa.float64()), ("drop_rule", pa.string()),
    ]
)  # fmt: skip


def table(spark, rows):
    """rows: doc_id, text and whatever else differs."""
    base = {"url": "http://e.org/x", "date": "2026-01-01T00:00:00Z", "file": "f", "offset": 0}
    data = [{**base, **r, "doc_id": r["doc_id"].encode().ljust(16, b".")} for r in rows]
    return spark.createDataFrame(pa.Table.from_pylist(data, SCHEMA))


def decisions(df):
    """(doc_id, file) -> None where it stays, else (rule, value, bound, survivor)."""

    def short(name):
        return name and name.rstrip(b".").decode()

    rows = df.toArrow().to_pylist()
    result = {
        (short(r["doc_id"]), r["file"]): r["drop_rule"]
        and (r["drop_rule"], r["drop_value"], r["drop_bound"], short(r["duplicate_of"]))
        for r in rows
    }
    assert len(result) == len(rows)
    return result


def content(size, survivor):
    return ("exact_duplicates.content", float(size), 1.0, survivor)


ROWS = [
    # the same text up to blanks and NFC; the newest stays
    {"doc_id": "old", "text": "caf\u00e9 au lait"},
    {"doc_id": "new", "text": "cafe\u0301  au\nlait", "date": "2026-03-01T00:00:00Z"},
    {"doc_id": "other", "text": "Caf\u00e9 au lait"},
    # of the same date, that of the shortest address; then by doc_id
    {"doc_id": "u3", "text": "same", "url": "http://e.org/long"},
    {"doc_id": "u2", "text": "same", "url": "http://e.org/b"},
    {"doc_id": "u1", "text": "same", "url": "http://e.org/a"},
    # one file fed twice: two rows of one doc_id
    {"doc_id": "twice", "text": "fed twice", "file": "one"},
    {"doc_id": "twice", "text": "fed twice", "file": "two"},
    {"doc_id": "void", "text": "", "file": "one"},
    {"doc_id": "void", "text": "", "file": "two"},
    # empty texts are no duplicates of each other
    {"doc_id": "e1", "text": ""},
    {"doc_id": "e2", "text": " \n"},
    {"doc_id": "e3", "text": None},
    # a decision stands, and who has one takes no part
    {"doc_id": "gone", "text": "same", "url": "", "drop_rule": "earlier.rule"},
]
EXPECTED = {
    ("old", "f"): content(2, "new"),
    ("new", "f"): None,
    ("other", "f"): None,
    ("u3", "f"): content(3, "u1"),
    ("u2", "f"): content(3, "u1"),
    ("u1", "f"): None,
    ("twice", "one"): None,
    ("twice", "two"): content(2, "twice"),
    ("void", "one"): None,
    ("void", "two"): content(2, "void"),
    ("e1", "f"): None,
    ("e2", "f"): None,
    ("e3", "f"): None,
    ("gone", "f"): ("earlier.rule", None, None, None),
}
BY_DATE = ExactConfig(order=("-date", "url_length"))


@pytest.mark.parametrize("partitions", [1, 13])
def test_one_of_each_text_stays(spark, partitions):
    assert decisions(exact_duplicates(table(spark, ROWS).repartition(partitions), BY_DATE)) == EXPECTED


def test_order_may_name_any_column_and_nulls_are_last(spark):
    rows = [
        {"doc_id": "a", "text": "t", "score": None},
        {"doc_id": "b", "text": "t", "score": 0.1},
        {"doc_id": "c", "text": "t", "score": 0.9},
    ]
    df = table(spark, rows)
    best = {
        order: {k[0] for k, v in decisions(exact_duplicates(df, ExactConfig(order=order))).items() if v is None}
        for order in (("-score",), ("score",), ())
    }
    assert best == {("-score",): {"c"}, ("score",): {"b"}, (): {"a"}}
    with pytest.raises(UserError, match="'quality'"):
        exact_duplicates(df, ExactConfig(order=("-quality",)))


def test_columns_are_those_that_came_and_the_decision(spark):
    df = table(spark, ROWS)
    added = ["drop_value", "drop_bound", "drop_entry", "duplicate_of", "error_class", "error_message"]
    assert url_duplicates(df, UrlConfig()).columns == [*df.columns, *added]
    assert sorted(exact_duplicates(df, ExactConfig()).columns) == sorted([*df.columns, *added, "cluster_size"])


def test_the_one_that_stays_counts_its_copies(spark):
    rows = [{"doc_id": n, "text": t} for n, t in (("a", "same"), ("b", "same "), ("c", "same"), ("d", "other"))]
    rows.append({"doc_id": "gone", "text": "same", "drop_rule": "earlier.rule"})
    result = exact_duplicates(table(spark, rows), ExactConfig()).toArrow().to_pylist()
    sizes = {r["doc_id"].rstrip(b".").decode(): r["cluster_size"] for r in result}
    assert sizes == {"a": 1, "b": 3, "c": 1, "d": 1, "gone": 1}  # the longest stays


def test_one_capture_of_each_address_stays(spark):
    rows = [
        {"doc_id": "a", "text": "state of May", "url": "http://www.e.org/p?utm_source=x", "date": "2026-05-01T00:00:00Z"},
        {"doc_id": "b", "text": "state of July", "url": "https://e.org/p/", "date": "2026-07-01T00:00:00Z"},
        {"doc_id": "c", "text": "another page", "url": "https://e.org/q"},
        {"doc_id": "d", "text": "no address", "url": None},
        {"doc_id": "e", "text": "no address", "url": ""},
    ]
    result = decisions(url_duplicates(table(spark, rows), UrlConfig()))
    assert {k[0]: v for k, v in result.items()} == {
        "a": ("url_duplicates.url", 2.0, 1.0, "b"),
        **dict.fromkeys("bcde"),
    }
