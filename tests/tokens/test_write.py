"""Shards on Spark: every document once, in keyed order or by a column, the same bytes on any partitioning, no stray file."""

import hashlib
import math
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import UserError
from pipelines.shards import Manifest, Order, ShardFile, Shards, is_validation, order_key, published
from pipelines.shards.verify import verify
from pipelines.tokens.encode import EncodeConfig, TokenizerInfo, encode_texts, tokenizer_info
from pipelines.tokens.gather import Shard, write_from_runs
from pipelines.tokens.place import Mark, by_hash, by_rank
from pipelines.tokens.runs import Part, Plan, columns, packed, parts, ranked, write_runs
from pipelines.tokens.train import TokenizerConfig, save, train_tokenizer
from pipelines.tokens.write import ShardConfig, write_shards

CFG = ShardConfig(target_bytes=4_000, validation_share=0.1, seed=2)
ORDERED = ShardConfig(
    target_bytes=4_000,
    validation_share=0.1,
    seed=2,
    orders=(Order("web", "score", descending=True, window=7), Order("code", "length", descending=False, window=1)),
)
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TokenizerInfo:
    folder = tmp_path_factory.mktemp("tokenizer")
    save(train_tokenizer(["the water turns the wheel \u6c34\u5230\u6e20\u6210 " * 5], TokenizerConfig(vocab_size=300)), folder)
    return tokenizer_info(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def documents() -> pa.Table:
    rng = random.Random(1)
    words = ["the", "water", "turns", "wheel", "\u6c34", "<|endoftext|>", "\U0001f600", "\x00", "\r\n"]
    rows = []
    for _ in range(300):
        text = " ".join(rng.choices(words, k=rng.randint(0, 40)))
        score = rng.choice([rng.random(), rng.random(), 0.5, 0.0, -0.0, -3.5, math.inf, math.nan, None])
        rows.append({"doc_id": rng.randbytes(16), "source": rng.choice(["web", "web", "code"]), "text": text, "score": score})
    rows.append({"doc_id": b"b" * 16, "source": "web", "text": "water " * 3_000, "score": 0.25})
    rows.append({"doc_id": b"s" * 16, "source": "single", "text": "one", "score": 0.0})
    for i, row in enumerate(rows):
        row |= {"url": f"https://site.example/{i}", "lang": None, "html": "<p>", "drop_rule": None, "stage": None}
        row |= {"file": f"crawl/{i % 3}.warc.gz", "offset": i, "length": (i * 37) % 101, "lines": [0.5 * i, None]}
    return pa.Table.from_pylist(rows)


def write(
    spark: Any, documents: pa.Table, root: Path, tokenizer: TokenizerInfo, files: int, cfg: ShardConfig = CFG
) -> Manifest:
    """Shards of the documents, which lie in so many files in an order of their own."""
    mixed = random.Random(files).sample(range(documents.num_rows), documents.num_rows)
    rows = documents.take(pa.array(mixed, pa.int64()))
    table = root.with_name(f"{root.name}-table")
    table.mkdir()
    size = -(-rows.num_rows // files)
    for number in range(files):
        pq.write_table(rows.slice(number * size, size), table / f"part-{number}.parquet", row_group_size=40 + 17 * files)
    return write_shards(spark, table, cfg, root, tokenizer, "demo", "f" * 12)


def files_in(root: Path) -> set[str]:
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


def listed(manifest: Manifest) -> set[str]:
    return {"manifest.json", *(f.path for f in manifest.files), *(f.provenance_path for f in manifest.files)}


def doc_ids(root: Path, files: list[ShardFile]) -> list[bytes]:
    return [i for f in files for i in pa.ipc.open_file(root / f.path).read_all()["doc_id"].to_pylist()]


@pytest.fixture(scope="module")
def written(spark: Any, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write(spark, documents, root, tokenizer, 3)
    return root


@pytest.fixture(scope="module")
def ordered(spark: Any, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ordered")
    write(spark, documents, root, tokenizer, 3, ORDERED)
    return root


@pytest.mark.spark
def test_every_document_lies_in_one_shard_with_its_ids(written: Path, documents: pa.Table, tokenizer: TokenizerInfo) -> None:
    manifest = verify(written)  # sha256, counts, eos, vocabulary, keyed order
    assert (manifest.recipe, manifest.recipe_fingerprint, manifest.tokenizer_sha256) == ("demo", "f" * 12, tokenizer.sha256)
    shards, cfg = Shards(written), EncodeConfig(tokenizer.path, tokenizer.sha256)
    rows = documents.to_pylist()
    for row, ids in zip(rows, encode_texts([r["text"] for r in rows], cfg), strict=True):
        split = "validation" if is_validation(CFG.seed, row["doc_id"], CFG.validation_share) else "train"
        stream = shards.stream(row["source"], split)
        place = stream.locate(row["doc_id"])
        assert place is not None, row
        np.testing.assert_array_equal(stream.slice(*place), ids)
    assert sum(f.rows for f in manifest.files) == len(rows)
    assert 15 < sum(f.rows for f in manifest.files if f.split == "validation") < 50
    assert files_in(written) == listed(manifest)


@pytest.mark.spark
def test_a_source_has_as_many_shards_as_its_tokens_ask_for(written: Path) -> None:
    manifest = verify(written)
    for source, tokens in manifest.source_tokens().items():
        files = [f.path for f in manifest.files if f.source == source and f.split == "train"]
        wanted = -(-tokens * 2 // CFG.target_bytes)  # two bytes an id
        assert files == [f"{source}/train-{i:05d}.arrow" for i in range(wanted)]
    assert len(manifest.files) > 6


@pytest.mark.spark
def test_provenance_tells_of_each_row_of_a_shard_where_it_comes_from(written: Path, documents: pa.Table) -> None:
    known = {(row["doc_id"], row["offset"]): row for row in documents.to_pylist()}
    first = ["doc_id", "url", "lang", "file", "offset", "source", "score", "length", "lines"]
    seen = set()
    for file in verify(written).files:
        path = written / file.provenance_path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.provenance
        table = pq.read_table(path)
        assert table.column_names == first
        assert table["doc_id"].to_pylist() == doc_ids(written, [file])
        for row in table.to_pylist():
            expected = {name: known[row["doc_id"], row["offset"]][name] for name in first}
            assert repr(row) == repr(expected)  # NaN equals no NaN
            seen.add((row["doc_id"], row["offset"]))
    assert seen == set(known)


@pytest.mark.spark
@pytest.mark.parametrize("number", [1, 7])
def test_any_partitioning_gives_the_same_bytes(
    spark: Any, written: Path, ordered: Path, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path: Path, number: int
) -> None:
    assert write(spark, documents, tmp_path / "keyed", tokenizer, number).files == verify(written).files
    assert write(spark, documents, tmp_path / "ordered", tokenizer, number, ORDERED).files == verify(ordered).files


def expected_order(rows: Rows, order: Order, seed: int) -> list[bytes]:
    """The definition: ranks by value and keyed hash, null and NaN last; each window of ranks by the keyed hash."""

    def rank(row: dict[str, Any]) -> tuple[Any, ...]:
        value = row[order.by]
        known = value is not None and not math.isnan(value)
        return not known, known and (-value if order.descending else value), order_key(seed, row["doc_id"]), row["doc_id"]

    ranks = [row["doc_id"] for row in sorted(rows, key=rank)]
    windows = [ranks[i : i + order.window] for i in range(0, len(ranks), order.window)]
    return [i for window in windows for i in sorted(window, key=lambda i: (order_key(seed, i), i))]


def of_stream(documents: pa.Table, source: str, split: str, cfg: ShardConfig) -> Rows:
    held_out = split == "validation"
    rows = [row for row in documents.to_pylist() if row["source"] == source]
    return [row for row in rows if is_validation(cfg.seed, row["doc_id"], cfg.validation_share) == held_out]


@pytest.mark.spark
def test_a_source_lies_by_the_column_that_is_asked_for(ordered: Path, written: Path, documents: pa.Table) -> None:
    manifest = verify(ordered)
    assert {o.source: o for o in manifest.orders} == {o.source: o for o in ORDERED.orders}
    for order in ORDERED.orders:
        for split in ("train", "validation"):
            files = [f for f in manifest.files if (f.source, f.split) == (order.source, split)]
            assert doc_ids(ordered, files) == expected_order(of_stream(documents, order.source, split, ORDERED), order, 2)
            assert split == "validation" or len(files) >= 3
    single = [f for f in manifest.files if f.source == "single"]
    assert single == [f for f in verify(written).files if f.source == "single"]


@pytest.mark.spark
def test_a_window_may_be_larger_than_a_shard(spark: Any, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path: Path) -> None:
    order = Order("web", "score", descending=False, window=60)
    cfg = ShardConfig(target_bytes=600, validation_share=0.0, orders=(order,))
    manifest = write(spark, documents, tmp_path / "shards", tokenizer, 2, cfg)
    files = [f for f in manifest.files if f.source == "web"]
    assert doc_ids(tmp_path / "shards", files) == expected_order(of_stream(documents, "web", "train", cfg), order, 0)
    assert len(files) > 10
    whole = [f for f in files if b"b" * 16 not in doc_ids(tmp_path / "shards", [f])]  # the long document
    assert max(f.tokens * 2 for f in whole) < 4 * 600


def test_ranks_are_cut_where_windows_begin() -> None:
    stream, end = ("web", "train"), Mark(100, 1_000, b"")
    marks = [Mark(0, 0, b"a"), Mark(30, 290, b"d"), Mark(40, 310, b"e"), Mark(50, 390, b"f"), Mark(60, 910, b"g")]
    shards = by_rank(stream, marks, end, target=300, window=10)
    bounds = [(s.low, s.high, s.first >> 32, s.last >> 32) for s in shards]
    half, last = 1 << 31, (1 << 32) - 1  # the window of 520 bytes is two shards, by the hash
    assert bounds == [
        (b"a", b"e", 0, last), (b"e", b"f", 0, last), (b"f", b"g", 0, half - 1), (b"f", b"g", half, last), (b"g", b"", 0, last),
    ]  # fmt: skip
    assert [s.index for s in shards] == [0, 1, 2, 3, 4]
    assert [s.size for s in by_hash(stream, 1_000, 300)] == [250] * 4


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.int64(), pa.int8()])
@pytest.mark.parametrize("descending", [False, True])
def test_bytes_of_numbers_are_in_the_order_of_the_numbers(kind: pa.DataType, descending: bool) -> None:
    whole = [-128, -3, -1, 0, 1, 2, 127]
    numbers = sorted([*whole, -math.inf, -0.5, 1e-30, math.inf]) if pa.types.is_floating(kind) else whole
    values = [*(reversed(numbers) if descending else numbers), None]
    found = [row.tobytes() for row in ranked(pa.array(values, kind), descending)]
    assert found == sorted(found)
    assert len(set(found)) == len(values)


def test_extreme_integers_come_before_null() -> None:
    column = pa.array([-(2**63), 2**63 - 1, None], pa.int64())
    assert [row.tobytes() for row in ranked(column, False)] == sorted(row.tobytes() for row in ranked(column, False))
    unsigned = ranked(pa.array([2**64 - 1, 2**63, 1], pa.uint64()), True)
    assert [row.tobytes() for row in unsigned] == sorted(row.tobytes() for row in unsigned)


def test_small_pieces_of_work_go_together() -> None:
    assert packed("abcdef", [5, 1, 9, 3, 3, 3], 6) == [["a", "b"], ["c"], ["d", "e"], ["f"]]


@pytest.fixture
def plan(documents: pa.Table, tokenizer: TokenizerInfo, tmp_path: Path) -> Plan:
    (tmp_path / "table").mkdir()
    (tmp_path / "runs").mkdir()
    pq.write_table(documents, tmp_path / "table" / "a.parquet", row_group_size=50)
    return Plan(tokenizer, columns(documents.schema), str(tmp_path / "runs"), 2, 0.1, ())


def test_an_attempt_that_is_repeated_writes_the_same_files_again(plan: Plan, tmp_path: Path) -> None:
    (task,) = parts(tmp_path / "table", 1)
    contents = []
    for _ in range(2):
        runs = tuple(run for run in write_runs(0, task, plan) if (run.source, run.split) == ("web", "train"))
        made = write_from_runs(Shard("web", "train", 0, 0, b""), runs, plan.folder, str(tmp_path / "out"), "uint16")
        assert made is not None
        contents.append((made, {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}))
    assert contents[0] == contents[1]
    assert files_in(tmp_path / "out") == {made.path, made.provenance_path}


def test_row_groups_are_each_read_once(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tokens.runs.RUN_BYTES", 1 << 14)
    (file,) = (tmp_path / "table").iterdir()
    bounds = [*range(0, file.stat().st_size, 1500), file.stat().st_size]
    tasks = [[Part(str(file), start, stop)] for start, stop in pairwise(bounds)]
    runs = [run for number, task in enumerate(tasks) for run in write_runs(number, task, plan)]
    assert len({run.file for run in runs}) > 3
    assert sum(run.rows for run in runs) == 302


def test_rows_of_one_doc_id_lie_by_their_origin(plan: Plan, documents: pa.Table, tmp_path: Path) -> None:
    ids = pa.array([b"%016d" % (i // 3) for i in range(302)])
    thrice = documents.set_column(documents.schema.get_field_index("doc_id"), "doc_id", ids)
    made = []
    for number in range(2):
        pq.write_table(thrice.take(random.Random(number).sample(range(302), 302)), tmp_path / "table" / "a.parquet")
        (task,) = parts(tmp_path / "table", 1)
        runs = tuple(run for run in write_runs(number, task, plan) if (run.source, run.split) == ("web", "train"))
        made.append(write_from_runs(Shard("web", "train", 0, 0, b""), runs, plan.folder, str(tmp_path / "out"), "uint16"))
    assert made[0] == made[1]


def test_what_is_not_written_to_its_end_is_not_there(tmp_path: Path) -> None:
    def stopped() -> None:
        with published(tmp_path / "web" / "train-00000.arrow") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert files_in(tmp_path) == set()


@pytest.mark.spark
def test_what_a_killed_run_left_is_removed(spark: Any, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path: Path) -> None:
    root = tmp_path / "shards"
    for name in ("web/train-00999.arrow", "web/.train-00000.arrow.77.tmp", ".runs/000000-0000.arrow", "web/train-00000.arrow"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"half")
    (root / "gone").mkdir()
    manifest = write(spark, documents, root, tokenizer, 2)
    assert files_in(root) == listed(manifest)
    assert not (root / "gone").exists()
    assert not (root / ".runs").exists()
    verify(root)


def without(documents: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        index = documents.schema.get_field_index(name)
        column = pa.array([values] * documents.num_rows, documents.schema.field(name).type)
        documents = documents.set_column(index, documents.schema.field(name), column)
    return documents


WRONG: dict[str, tuple[Callable[[pa.Table], pa.Table], ShardConfig, str]] = {
    "no documents": (lambda t: t.slice(0, 0), CFG, "there are no documents to write"),
    "all held out": (
        lambda t: t,
        ShardConfig(validation_share=1 - 1e-12),
        "all documents fell to validation",
    ),
    "no text": (lambda t: without(t, text=None), CFG, "has no text"),
    "short doc_id": (lambda t: without(t, doc_id=b"short"), CFG, "doc_id that is not 16 bytes"),
    "no folder name": (lambda t: without(t, source="../up"), CFG, "cannot name a shard"),
    "no such column": (
        lambda t: t,
        ShardConfig(orders=(Order("web", "quality", True, 9),)),
        "no such column in the last table",
    ),
    "no number": (lambda t: t, ShardConfig(orders=(Order("web", "url", True, 9),)), "that column is string"),
    "no such source": (lambda t: t, ShardConfig(orders=(Order("wed", "score", True, 9),)), "there are code, single, web"),
}


@pytest.mark.spark
@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_written_is_said(
    spark: Any, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path: Path, case: str
) -> None:
    change, cfg, message = WRONG[case]
    with pytest.raises(Exception, match=f"UserError: .*{message}|{message}") as caught:
        write(spark, change(documents), tmp_path / "shards", tokenizer, 1, cfg)
    assert isinstance(caught.value, UserError) or "pipelines.errors.UserError" in str(caught.value)
    assert files_in(tmp_path / "shards") == set()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"target_bytes": 0}, "must be positive"),
        ({"validation_share": 1.0}, "must be positive"),
        ({"validation_share": -0.1}, "must be positive"),
        ({"orders": (["web", "score", True, 0],)}, "windows of 1 or more"),
        ({"orders": (["web", "score", True, 5], ["web", "length", True, 5])}, "each source once"),
    ],
)
def test_a_config_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardConfig(**wrong)


@pytest.mark.spark
def test_documents_of_one_group_are_held_out_together(
    spark: Any, documents: pa.Table, tokenizer: TokenizerInfo, tmp_path: Path
) -> None:
    groups = [bytes([i % 50]) * 16 for i in range(documents.num_rows)]
    write(spark, documents.append_column("group", pa.array(groups, pa.binary())), tmp_path / "shards", tokenizer, 2)
    manifest = verify(tmp_path / "shards")
    splits: dict[str, set[bytes]] = {"train": set(), "validation": set()}
    for file in manifest.files:
        splits[file.split] |= set(pq.read_table(tmp_path / "shards" / file.provenance_path)["group"].to_pylist())
    assert splits["validation"]
    assert not splits["train"] & splits["validation"]
    assert splits["validation"] == {g for g in groups if is_validation(CFG.seed, g, CFG.validation_share)}


def test_a_document_that_the_stage_has_not_encoded_is_named(tokenizer: TokenizerInfo, tmp_path: Path) -> None:
    rows = {"doc_id": [b"a" * 16, b"b" * 16], "source": ["chat", "web"], "text": ["x", "y"], "tokens": [b"\x05\x00", None]}
    table = pa.table(rows | {"roles": [b"\x00", None]})
    pq.write_table(table, tmp_path / "part.parquet")
    plan = Plan(tokenizer, columns(table.schema), str(tmp_path), 0, 0.0, ())
    with pytest.raises(UserError, match="of source 'web' has no tokens, and others have"):
        list(write_runs(0, [Part(str(tmp_path / "part.parquet"), 0, 1 << 20)], plan))
