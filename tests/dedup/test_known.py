"""A dump against the indexes of earlier ones: the right documents go, each for an old one that is named."""

import hashlib
import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.__main__ import main
from pipelines.dedup.index.format import IndexConfig, key_file, lookup_keys, unpack_place, verify
from pipelines.dedup.index.lookup import Index
from pipelines.dedup.index.write import range_of, write_index
from pipelines.dedup.known import MATCHES, KnownConfig, known_duplicates
from pipelines.dedup.minhash import MinhashConfig, signatures
from pipelines.dedup.shingles import jaccard, shingle_sets
from pipelines.errors import UserError
from pipelines.recipe import config_files
from pipelines.schema import DECISION

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]
CFG = MinhashConfig()
ZH = "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少白日依山尽黄河入海流欲穷千里目更上一层楼床前明月光疑是地上霜举头望明月低头思故乡"


def words(seed: int, count: int) -> list[str]:
    return random.Random(seed).choices([f"w{i}" for i in range(3000)], k=count)


def edited(text: list[str], places: Any, mark: str) -> list[str]:
    """Other words at these places; each takes five of the text's shingles away."""
    return [f"{mark}{i}" if i in places else w for i, w in enumerate(text)]


def joined(documents: dict[str, list[str]]) -> dict[str, str]:
    return {name: " ".join(tokens) for name, tokens in documents.items()}


PAGE, OTHER, LONG = words(1, 400), words(2, 400), words(3, 2000)
OLD = joined(
    {
        "page": PAGE,
        "other": OTHER,
        "long": LONG,
        "hello": ["hello", "world"],
        "empty": [],
        "zh": [ZH],
        **{f"old-{i}": words(100 + i, 150) for i in range(60)},
    }
)
NEW = joined(
    {
        "page-again": PAGE,
        "page-edited": edited(PAGE, {100, 200}, "x"),
        "page-too-far": edited(PAGE, set(range(0, 80, 5)), "x"),
        "other-shouted": [w.upper() + "," for w in OTHER],
        "part-of-long": LONG[300:900],
        "hello-again": ["Hello,", "world!"],
        "hello-there": ["hello", "there"],
        "empty-again": [],
        "zh-edited": [ZH[:-2] + "。"],
        **{f"new-{i}": words(500 + i, 150) for i in range(20)},
    }
)
KNOWN = {
    "page-again": "page", "page-edited": "page", "other-shouted": "other", "hello-again": "hello", "zh-edited": "zh",
}  # fmt: skip


def similarity(new: str, old: str) -> float:
    return jaccard(*shingle_sets(pa.array([NEW[new], OLD[old]]), CFG.ngram))


def table(spark: Any, texts: dict[str, str], host: str = "new") -> Any:
    columns = {
        "doc_id": [n.encode() for n in texts],
        "source": ["web"] * len(texts),
        "url": [f"http://{host}.org/{n}" for n in texts],
        "date": ["2026-01-01T00:00:00Z"] * len(texts),
        "text": list(texts.values()),
    }
    schema = pa.schema([(n, pa.binary() if n == "doc_id" else pa.string()) for n in columns])
    return spark.createDataFrame(pa.table(columns, schema=schema))


def rows(df: Any) -> list[dict[str, Any]]:
    return sorted(df.toArrow().to_pylist(), key=lambda r: [str(v) for v in r.values()])


def decisions(df: Any) -> dict[str, tuple[Any, ...]]:
    """Of each document that goes: rule, value, bound, entry and the old document."""
    names = ("drop_rule", "drop_value", "drop_bound", "drop_entry", "duplicate_of")
    return {r["doc_id"].decode(): tuple(r[n] for n in names) for r in rows(df) if r["drop_rule"] is not None}


EXPECTED = {
    new: ("known_duplicates.jaccard", similarity(new, old), 0.75, f"first: http://old.org/{old}", old.encode())
    for new, old in KNOWN.items()
}


@pytest.fixture(scope="module")
def first(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The index of OLD, in several files."""
    root = tmp_path_factory.mktemp("first") / "index"
    write_index(table(spark, OLD, "old"), IndexConfig(dump="first", target_bytes=8_000), root, "recipe", "f" * 12)
    return str(root)


# --- the index as Spark writes it ----------------------------------------------------------------------------------------


def digests(root: str | Path) -> dict[str, str]:
    files = [p for p in Path(root).rglob("*") if p.is_file()]
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_every_document_and_each_of_its_keys_is_in_the_index(first: str) -> None:
    manifest, index = verify(first), Index(first)
    assert (manifest.rows, manifest.dump, manifest.recipe, manifest.recipe_fingerprint) == (
        len(OLD),
        "first",
        "recipe",
        "f" * 12,
    )
    assert sum(f.path.startswith("documents/") for f in manifest.files) > 3
    assert sum(f.path.startswith("keys/") for f in manifest.files) > 1
    texts = [t for t in OLD.values() if t]
    keys = lookup_keys(signatures(pa.array(texts), CFG), CFG)
    for text, own in zip(texts, keys, strict=True):
        for key in own:
            assert text in [index.text(p) for p in index.find(np.array([key]), 99).places.tolist()]
    assert sum(f.rows for f in manifest.files if f.path.startswith("keys/")) == keys.size


@pytest.mark.parametrize("partitions", [1, 3, 7])
def test_the_same_bytes_for_any_partitioning(spark: Any, first: str, tmp_path: Path, partitions: int) -> None:
    shuffled = {n: OLD[n] for n in random.Random(partitions).sample(sorted(OLD), len(OLD))}
    df = table(spark, shuffled, "old").repartition(partitions)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / ".00001.keys.0123.tmp").write_bytes(b"of a killed run")
    write_index(df, IndexConfig(dump="first", target_bytes=8_000), tmp_path, "recipe", "f" * 12)
    assert digests(tmp_path) == digests(first)


@pytest.mark.parametrize("parts", [1, 3, 4096])
def test_spark_and_numpy_agree_on_the_file_of_a_key(spark: Any, parts: int) -> None:
    keys = [-(2**63), -(2**62), -1, 0, 1, 2**40, 2**63 - 1]
    found = spark.createDataFrame([(k,) for k in keys], "key long").select("key", range_of("key", parts).alias("file"))
    assert {r["key"]: r["file"] for r in found.collect()} == dict(
        zip(keys, key_file(np.array(keys), parts).tolist(), strict=True)
    )


# --- a dump against it ---------------------------------------------------------------------------------------------------


def test_the_documents_are_as_their_names_say() -> None:
    assert 0.6 < similarity("page-too-far", "page") < 0.75
    assert 0.75 < similarity("page-edited", "page") < 1
    assert similarity("other-shouted", "other") == similarity("hello-again", "hello") == 1
    assert similarity("part-of-long", "long") < 0.5


def test_what_is_known_goes_and_names_document_dump_and_url(spark: Any, first: str) -> None:
    df = table(spark, NEW)
    made = known_duplicates(df, KnownConfig(index=(first,)))
    assert made.rows.columns == [*df.columns, *DECISION.names]
    assert len(rows(made.rows)) == len(NEW)
    assert decisions(made.rows) == EXPECTED
    matches = rows(made.beside["matches"])
    assert [list(m) for m in matches] == [MATCHES.names] * len(KNOWN)
    for match in matches:
        new, old = match["doc_id"].decode(), match["other"].decode()
        assert KNOWN[new] == old
        assert match["jaccard"] == similarity(new, old)
        of_new, of_old = shingle_sets(pa.array([NEW[new], OLD[old]]), CFG.ngram)
        assert match["containment"] == len(np.intersect1d(of_new, of_old)) / len(of_new)
        assert (match["dump"], match["source"], match["url"]) == ("first", "web", f"http://old.org/{old}")
        assert match["date"] == "2026-01-01T00:00:00Z"
    assert rows(made.beside["hot"]) == []


@pytest.mark.parametrize(("partitions", "adaptive"), [(1, "false"), (13, "true")])
def test_any_partitioning_and_plan_gives_the_same(
    spark: Any, first: str, monkeypatch: pytest.MonkeyPatch, partitions: int, adaptive: str
) -> None:
    before = spark.conf.get("spark.sql.adaptive.enabled")
    monkeypatch.setattr("pipelines.dedup.decide.BROADCAST_ROWS", 0)  # texts and ids are shuffled to each other
    spark.conf.set("spark.sql.adaptive.enabled", adaptive)
    try:
        df = table(spark, {n: NEW[n] for n in random.Random(partitions).sample(sorted(NEW), len(NEW))}).repartition(partitions)
        assert decisions(known_duplicates(df, KnownConfig(index=(first,))).rows) == EXPECTED
    finally:
        spark.conf.set("spark.sql.adaptive.enabled", before)


def test_containment_finds_what_an_old_document_covers(spark: Any, first: str) -> None:
    # so many bands of one row that a part of a third of the whole meets it
    minhash = MinhashConfig(bands=64, rows=1)
    root = str(Path(first).with_name("wide"))
    write_index(table(spark, OLD, "old"), IndexConfig(dump="first", minhash=minhash), root)
    cfg = KnownConfig(index=(root,), minhash=minhash, measure="containment", threshold=0.9)
    found = decisions(known_duplicates(table(spark, NEW), cfg).rows)
    assert set(found) == {*KNOWN, "part-of-long"}
    assert found["part-of-long"][:2] == ("known_duplicates.containment", 1.0)


def test_decided_rows_stay_as_they_are_and_rows_of_one_doc_id_are_not_multiplied(spark: Any, first: str) -> None:
    twice = table(spark, {"page-again": NEW["page-again"], "new-1": NEW["new-1"]})
    decided = table(spark, {"page-edited": NEW["page-edited"]}).selectExpr("*", "'mine' AS drop_rule", "'e' AS drop_entry")
    df = twice.union(twice).unionByName(decided, allowMissingColumns=True)
    found = [(r["doc_id"], r["drop_rule"], r["drop_entry"]) for r in rows(known_duplicates(df, KnownConfig((first,))).rows)]
    again = (b"page-again", "known_duplicates.jaccard", "first: http://old.org/page")
    assert found == [(b"new-1", None, None)] * 2 + [again] * 2 + [(b"page-edited", "mine", "e")]


def test_an_old_document_without_an_address_is_named_by_its_id(spark: Any, tmp_path: Path) -> None:
    df = table(spark, {"page": OLD["page"]}).selectExpr("doc_id", "source", "cast(null as string) AS url", "date", "text")
    write_index(df, IndexConfig(dump="books"), tmp_path)
    found = decisions(known_duplicates(table(spark, {"page-again": NEW["page-again"]}), KnownConfig((str(tmp_path),))).rows)
    assert found["page-again"][3] == f"books: {b'page'.hex()}"


def test_of_two_indexes_the_most_alike_document_is_named_and_of_equal_ones_the_first(
    spark: Any, first: str, tmp_path: Path
) -> None:
    later = {"page-2": NEW["page-edited"], "other-2": OLD["other"]}
    write_index(table(spark, later, "later"), IndexConfig(), tmp_path, "second")
    found = decisions(known_duplicates(table(spark, NEW), KnownConfig((first, str(tmp_path)))).rows)
    entries = {new: (value, entry) for new, (_, value, _, entry, _) in found.items()}
    assert entries["page-again"] == (1.0, "first: http://old.org/page")
    assert entries["page-edited"] == (1.0, "second: http://later.org/page-2")
    assert entries["other-shouted"] == (1.0, "first: http://old.org/other")
    turned = decisions(known_duplicates(table(spark, NEW), KnownConfig((str(tmp_path), first))).rows)
    assert turned["other-shouted"][3] == "second: http://later.org/other-2"
    assert set(turned) == set(found) == set(KNOWN)


def test_of_a_full_bucket_some_are_compared_the_rest_is_counted_and_an_equal_text_is_found_all_the_same(
    spark: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    variants = {f"variant-{i}": " ".join(edited(PAGE, {i}, "v")) for i in range(0, 400, 10)}
    whole = lookup_keys(signatures(pa.array([OLD["page"], *variants.values()]), CFG), CFG)[:, -1]
    # a few are so near that all values of the signature are those of the page
    many = {n: t for (n, t), key in zip(variants.items(), whole[1:], strict=True) if key != whole[0]} | {"page": OLD["page"]}
    write_index(table(spark, many, "old"), IndexConfig(dump="first"), tmp_path)
    with caplog.at_level(logging.WARNING, "pipelines.dedup.known"):
        made = known_duplicates(table(spark, {"page-again": NEW["page-again"]}), KnownConfig((str(tmp_path),), hubs=1))
    assert decisions(made.rows)["page-again"][4] == b"page"
    own = lookup_keys(signatures(pa.array([NEW["page-again"]]), CFG), CFG)[0]
    others = lookup_keys(signatures(pa.array(list(many.values())), CFG), CFG)
    full = {int(k): int((others == k).sum()) for k in own if (others == k).sum() > 1}
    assert len(full) > 7
    assert max(full.values()) > 20
    assert int(own[-1]) not in full
    hot = rows(made.beside["hot"])
    assert {h["key"]: (h["size"], h["left_out"], h["documents"]) for h in hot} == {k: (n, n - 1, 1) for k, n in full.items()}
    assert {(h["index"], h["dump"]) for h in hot} == {(str(tmp_path), "first")}
    assert f"{len(full)} buckets of the indexes have more than 1 documents (the largest: {max(full.values())})" in caplog.text


def test_a_great_bucket_costs_no_more_than_its_hubs(spark: Any, tmp_path: Path) -> None:
    copies = {f"copy-{i:04}": "the same few words in every one of these documents" for i in range(3000)}
    write_index(table(spark, copies, "old"), IndexConfig(dump="first"), tmp_path)
    found = Index(tmp_path).find(
        np.sort(lookup_keys(signatures(pa.array(["The same few words in every one of these documents"]), CFG), CFG)[0]), 8
    )
    assert found.size.tolist() == [3000] * 15
    assert len(found.places) == 15 * 8
    made = known_duplicates(
        table(spark, {f"new-{i}": text for i, text in enumerate(list(copies.values())[:50])}), KnownConfig((str(tmp_path),))
    )
    wanted = Index(tmp_path).origin(int(found.places.min())).doc_id
    assert {d[4] for d in decisions(made.rows).values()} == {wanted}
    assert unpack_place(int(found.places.min())) == (0, 0, 0)
    assert {(h["size"], h["documents"]) for h in rows(made.beside["hot"])} == {(3000, 50)}


# --- nothing, and what is refused ----------------------------------------------------------------------------------------


def test_no_index_an_empty_index_an_empty_dump(spark: Any, first: str, tmp_path: Path) -> None:
    assert decisions(known_duplicates(table(spark, NEW), KnownConfig()).rows) == {}
    manifest = write_index(table(spark, {}, "old"), IndexConfig(), tmp_path)
    assert (manifest.rows, manifest.files) == (0, ())
    assert decisions(known_duplicates(table(spark, NEW), KnownConfig((str(tmp_path),))).rows) == {}
    made = known_duplicates(table(spark, {}), KnownConfig((first, str(tmp_path))))
    assert (rows(made.rows), rows(made.beside["matches"]), rows(made.beside["hot"])) == ([], [], [])


def test_an_index_of_other_parameters_is_refused_before_any_work(spark: Any, first: str) -> None:
    cfg = KnownConfig((first,), minhash=MinhashConfig(bands=20, rows=13))
    with pytest.raises(UserError, match=r"made with bands=14, rows=8, and is to be searched with bands=20, rows=13"):
        known_duplicates(table(spark, NEW), cfg)


def test_an_index_is_part_of_the_fingerprint_and_a_missing_one_is_named(first: str, tmp_path: Path) -> None:
    (found,) = config_files(KnownConfig((first,)))
    assert found["path"] == f"{first}/manifest.json"
    with pytest.raises(UserError, match=f"{tmp_path}/manifest.json is missing: {tmp_path} holds no complete index"):
        config_files(KnownConfig((str(tmp_path),)))
    with pytest.raises(UserError, match="made with ngram=5, and is to be searched with ngram=7"):
        config_files(KnownConfig((first,), minhash=MinhashConfig(ngram=7)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold": 0.0}, "threshold is 0.0"),
        ({"threshold": 1.1}, "threshold is 1.1"),
        ({"measure": "cosine"}, "measure is 'cosine'"),
        ({"hubs": 0}, "hubs is 0"),
        ({"index": "out/index"}, "index is 'out/index'; it must be a tuple"),
    ],
)
def test_config_out_of_range_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnownConfig(**wrong)


# --- whole runs, as a user starts them -----------------------------------------------------------------------------------


def pipelines(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a verb, in the session that runs already."""
    code = main(arguments)
    return code, *capsys.readouterr()


def dump(path: Path, texts: dict[str, str], host: str) -> Path:
    lines = [json.dumps({"id": n, "url": f"http://{host}.org/{n}", "text": t}) for n, t in texts.items() if t]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_second_run_is_held_against_the_index_of_the_first(
    spark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = f"{ROOT}/tests/recipes/dumps.py:dump"
    old, new = dump(tmp_path / "old.jsonl", OLD, "old"), dump(tmp_path / "new.jsonl", NEW, "new")
    one, two = tmp_path / "one", tmp_path / "two"
    settings = ["--set", f"web.paths={old}", "--set", "index.dump=2025-10"]
    assert pipelines(capsys, "run", recipe, "--out", str(one), *settings)[0] == 0
    assert (verify(one / "index").dump, verify(one / "index").rows) == ("2025-10", sum(1 for t in OLD.values() if t))

    settings = ["--set", f"web.paths={new}", "--set", f'known_duplicates.index=["{one}/index"]']
    assert pipelines(capsys, "run", recipe, "--out", str(two), *settings)[0] == 0
    removed = pq.read_table(two / "removed").to_pylist()
    assert {r["url"].rpartition("/")[2]: (r["rule"], r["value"], r["entry"]) for r in removed} == {
        new: ("known_duplicates.jaccard", similarity(new, old), f"2025-10: http://old.org/{old}") for new, old in KNOWN.items()
    }
    (step,) = two.glob("*-known_duplicates-*")
    matches = pq.read_table(step / "_beside" / "matches").to_pylist()
    assert {(m["doc_id"], m["other"]) for m in matches} == {(r["doc_id"], r["duplicate_of"]) for r in removed}
    assert verify(two / "index").rows == sum(1 for t in NEW.values() if t) - len(KNOWN)

    _, planned, _ = pipelines(capsys, "plan", recipe, "--out", str(two), *settings)
    assert planned.count("complete, will be skipped") == 3  # two stages, the index
    wrong = [*settings, "--set", "known_duplicates.minhash.bands=20"]
    code, _, refused = pipelines(capsys, "run", recipe, "--out", str(two), *wrong)
    assert code == 1
    assert refused.startswith(f"error: the index {one}/index was made with bands=14, and is to be searched with bands=20;")
