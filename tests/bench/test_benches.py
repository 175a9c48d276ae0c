"""Each benchmark on a pinch of examples/, and what the quality figures mean on made cases."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bench import crawl, dedup, extract, filters, language, parity, privacy, tokens
from bench.common import EXAMPLES, Row
from bench.corpus import jsonl

PROSE = ("The first line of the text says a little more than the others do.\n" * 3, "en")


def check(rows: list[Row], *names: str) -> None:
    found = [r.name for r in rows]
    assert set(names) <= set(found)
    assert all(r.ours >= 0 for r in rows)
    assert all((r.peer is None) == (r.peer_name is None) for r in rows if not r.name.startswith("same decision"))
    json.dumps([vars(r) for r in rows], allow_nan=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pages in the form of the larger data sets."""
    import zstandard

    page = "<html><head><title>t</title></head><body><main><p>{}</p></main></body></html>"
    texts = [" ".join(f"Sentence {i} of page {n} has some words in it." for i in range(40)) for n in range(3)]
    lines = [{"id": str(n), "html": page.format(t), "lang": "en", "text": t, "gold": "full"} for n, t in enumerate(texts)]
    raw = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (tmp_path / "pages.jsonl.zst").write_bytes(zstandard.compress(raw))
    return tmp_path


def test_extraction_runs_and_scores_the_known_text(data: Path) -> None:
    rows = extract.run(data, limit=6, repeat=1)
    check(rows, "speed, trafilatura", "speed, resiliparse", "F1 words, trafilatura", "F1 4-grams, resiliparse")
    assert min(r.ours for r in rows if r.name.startswith("F1")) > 0.9


def test_signatures_run(data: Path) -> None:
    check(dedup.signature(data, limit=3, repeat=1), "signature", "signature, bytes")


@pytest.mark.spark
def test_tokens_run(data: Path) -> None:
    rows = tokens.run(data, limit=3, steps=1, length=16, repeat=1, files=80, spark=1 << 20)
    check(rows, "encode", "loader", "loader start at a cursor of 15 T tokens in 80 files, slowest of 100", "spark encode")


def test_the_command_writes_its_results(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import common

    monkeypatch.setattr(common, "one_core", lambda: None)  # the test process keeps its cores
    common.run_bench("privacy", privacy.ABOUT, privacy.run, ["--data", str(data), "--results", str(tmp_path / "r")])
    rows = [Row(**r) for r in json.loads((tmp_path / "r" / "privacy.json").read_text())]
    check(rows, "speed, all kinds", "speed, e-mail and IP")
    assert json.loads((tmp_path / "r" / "privacy.run.json").read_text())["command"].startswith("make bench-privacy DATA=")


def test_ours_decides_and_language_is_found() -> None:
    documents = [PROSE, ("word " * 5, "en")]
    assert filters.ours_all(filters.batch_of(documents)) == [False, False]
    check(language.rows(EXAMPLES, documents, 1), "language")
    check(filters.speed(documents, 1), "all measures", "four sets", "chain")


def test_cost_is_told_a_byte() -> None:
    rows = filters.growth(large=200_000, total=200_000)
    check(rows, *(f"growth {name}" for name in filters.PATHOLOGICAL))


def test_parity_tells_each_disagreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [PROSE[0], "word " * 60, "It's here, isn't it?\n\nYes { no.", "x"]
    rows = parity.rows(texts, tmp_path)
    assert {r.ours for r in rows} == {1.0}
    assert {r.name for r in rows} > {"same decision gopher_quality@datatrove.min_words", "same decision c4.text"}
    assert json.loads((tmp_path / "filters.disagreements.json").read_text()) == []
    real = parity.gopher_and_fineweb
    monkeypatch.setattr(parity, "gopher_and_fineweb", lambda text: real(text) | {"words@datatrove": 1e9})
    rows = [r for r in parity.rows(texts, tmp_path) if r.ours < 1]
    assert [r.name for r in rows] == ["same decision gopher_quality@datatrove." + rule for rule in ("min_words", "max_words")]
    (first, *_) = json.loads((tmp_path / "filters.disagreements.json").read_text())
    assert (first["ours"], first["datatrove"], first["bound"]) == (42.0, 1e9, 50.0)


@pytest.mark.parametrize(
    ("found", "figures"),
    [
        ([(0, 10, "email")], (1.0, 1.0, 1.0)),
        ([(0, 9, "email")], (1.0, 1.0, 1.0)),  # nine tenths of it
        ([(0, 5, "email")], (0.0, 0.0, 0.0)),
        ([(0, 10, "ip")], (0.0, 0.0, 0.0)),
        ([], (0.0, 0.0, 0.0)),
        ([(0, 10, "email"), (20, 30, "email")], (1.0, 1.0, 1.0)),  # the second may be found or not
        ([(0, 10, "email"), (40, 50, "email")], (0.5, 1.0, 2 / 3)),
    ],
)
def test_personal_data_scores(found: list[privacy.Span], figures: tuple[float, float, float]) -> None:
    spans = [{"start": 0, "end": 10, "kind": "email"}, {"start": 20, "end": 30, "kind": "email_obfuscated"}]
    assert privacy.scores([{"spans": spans}], [found], "email") == pytest.approx(figures)


MANIFEST = [
    {"record_id": "a", "expect": "keep", "kind": "page", "lang": "en", "dup_group": "g", "text": "one two"},
    {"record_id": "a2", "expect": "drop-duplicate", "kind": "exact_dup", "lang": "en", "dup_group": "g", "text": "one two"},
    {"record_id": "b", "expect": "keep", "kind": "page", "lang": "de", "page_id": "p"},
    {"record_id": "c", "expect": "drop", "kind": "soft_404", "lang": "en"},
    {"record_id": "d", "expect": "drop", "kind": "redirect"},
    {"record_id": "e", "expect": "either", "kind": "partial"},
]


def figures(kept: dict[str, str], rules: dict[str, str] | None = None) -> dict[str, float]:
    rows = crawl.compare(MANIFEST, {"p": "three four"}, crawl.Outcome(kept, rules or {}), None, None)
    return {r.name: r.ours for r in rows}


def test_a_perfect_run() -> None:
    assert figures({"a": "one two", "b": "three four"}) == {
        "keep kept": 1.0, "keep kept, English": 1.0, "keep kept, other languages": 1.0, "drop dropped": 1.0,
        "duplicates left": 0.0, "groups gone wholly": 0.0, "text F1": 1.0,
    }  # fmt: skip


def test_any_copy_of_a_group_will_do() -> None:
    assert figures({"a2": "one two", "b": "three four"})["keep kept"] == 1.0


def test_what_went_wrong_is_named() -> None:
    found = figures({"a": "one", "a2": "one two", "c": ""}, {"b": "language.low_score"})
    assert found.pop("text F1") == pytest.approx((2 / 3 + 1) / 2)
    assert found == {
        "keep kept": 0.5,
        "keep kept, English": 1.0,
        "keep kept, other languages": 0.0,
        "drop dropped": 0.5,
        "duplicates left": 1.0,
        "groups gone wholly": 0.0,
        "duplicates left, kind: exact_dup": 1.0,
        "drop stayed: soft_404": 1.0,
        "keep lost, language: de": 1.0,
        "keep lost, kind: page": 1.0,
        "keep lost, rule: language.low_score": 1.0,
    }


@pytest.mark.parametrize(
    ("lang", "group"),
    [
        ("en", "English"),
        ("zh-Hant", "Chinese/Japanese/Korean"),
        ("yue", "Chinese/Japanese/Korean"),
        ("ja", "Chinese/Japanese/Korean"),
        ("ko", "Chinese/Japanese/Korean"),
        ("vi", "other languages"),
        (None, "other languages"),
    ],
)
def test_languages_are_told_in_three_groups(lang: str | None, group: str) -> None:
    assert crawl.group_of(lang) == group


def test_a_group_can_go_wholly() -> None:
    found = figures({"b": "three four"}, {"a": "x.y"})
    assert (found["groups gone wholly"], found["duplicates left"], found["keep lost, rule: x.y"]) == (1.0, 0.0, 1.0)


def test_the_peer_is_held_against_the_same_manifest() -> None:
    mine, peer = crawl.Outcome({"a": "one two"}, {}), crawl.Outcome({"a": "", "a2": "", "c": ""}, {})
    rows = {r.name: r for r in crawl.compare(MANIFEST, {}, mine, peer, "peer")}
    assert (rows["drop dropped"].ours, rows["drop dropped"].peer, rows["drop dropped"].ratio) == (1.0, 0.5, 2.0)
    assert (rows["drop stayed: soft_404"].ours, rows["drop stayed: soft_404"].peer) == (0.0, 1.0)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_lines_of_json(tmp_path: Path, suffix: str) -> None:
    path, raw = tmp_path / f"x{suffix}", b'{"a": 1}\n{"a": "\xc3\xa9"}\n'
    path.write_bytes(gzip.compress(raw) if suffix.endswith("gz") else raw)
    assert list(jsonl(path)) == [{"a": 1}, {"a": "\u00e9"}]
