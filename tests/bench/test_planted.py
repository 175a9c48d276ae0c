"""The planted corpus: what is planted is what the truth says, and what is not planted is not alike."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bench import planted
from bench.common import EXAMPLES
from bench.corpus import jsonl
from bench.gold import all_pairs
from bench.planted import KINDS, SHARES, Draft, Draw, Planted, Pool, base, edited, pools, read_truth, sentences, write
from pipelines.dedup.shingles import jaccard, shingle_sets

WORDS = [f"{a}{b}" for a in ("stone", "river", "glass", "cloud", "paper") for b in ("s", "ed", "ing", "like", "less", "ward")]


def words(draw: Draw, count: int) -> list[str]:
    return [WORDS[draw.below(len(WORDS))] for _ in range(count)]


def made_pool(blank: str = " ") -> Pool:
    """A thousand sentences of 14 words, a name and a number among them, in texts of ten."""
    draw = Draw(9, 9, 9)
    some = tuple(" ".join(["Zeus" if i % 3 else "Hera", *words(draw, 6), str(i), *words(draw, 6)]) + "." for i in range(1000))
    return Pool("made en", some, tuple(10 * (i // 10 + 1) for i in range(1000)), tuple(map(len, some)), blank)


def drafts(count: int = 30) -> list[Draft]:
    return [base([made_pool()], Draw(1, planted.BASE, i), least=2000) for i in range(count)]


def alike(a: str, b: str) -> float:
    return planted.similarities([a], [b])[0]


@pytest.fixture(scope="module")
def corpus() -> Planted:
    return Planted(EXAMPLES, 2000)


@pytest.fixture(scope="module")
def rows(corpus: Planted) -> list[tuple[dict[str, str], dict[str, object]]]:
    return list(corpus.rows(range(2000)))


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("prose en", "The first sentence of this text is long enough. Short. And the second one is long enough as well!",
         ["The first sentence of this text is long enough.", "And the second one is long enough as well!"]),
        ("prose zh", "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u6211\u4eec\u53bb\u516c\u56ed\u5427\u3002\u597d\u3002",
         ["\u4eca\u5929\u5929\u6c14\u5f88\u597d\u6211\u4eec\u53bb\u516c\u56ed\u5427\u3002"]),
        ("code", "def function(argument):\n    return argument + 1\n\nx = 1\n",
         ["def function(argument):\n    return argument + 1"]),
        ("prose en", "", []),
        ("prose en", "Half a surro\ud800gate is replaced, the sentence stays.",
         ["Half a surro?gate is replaced, the sentence stays."]),
    ],
)  # fmt: skip
def test_sentences_are_whole(name: str, text: str, found: list[str]) -> None:
    assert sentences(name, text) == found


def test_a_sentence_is_in_one_pool_once(corpus: Planted) -> None:
    every = [s for pool in pools(EXAMPLES) for s in pool.sentences]
    assert len(every) == len(set(every))


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "expected.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(ValueError, match="5000 different sentences"):
        pools(tmp_path)


def test_numbers_are_a_function_of_seed_purpose_and_document() -> None:
    def some(*of: int) -> list[float]:
        draw = Draw(*of)
        return [draw.unit() for _ in range(200)]  # more than a block

    assert some(1, 0, 5) == some(1, 0, 5)
    assert len({tuple(some(*of)) for of in ((1, 0, 5), (2, 0, 5), (1, 1, 5), (1, 0, 6))}) == 4
    assert len(set(some(1, 0, 5))) == 200
    # the first values are of Philox itself, which NumPy promises not to change
    assert planted.raw(1, 0, 5, 2).tolist() == np.random.Philox(key=1, counter=[0, 0, 0, 5]).random_raw(2).tolist()


def test_passages_are_of_one_text_and_follow_each_other() -> None:
    pool = made_pool()
    place = {s: i for i, s in enumerate(pool.sentences)}
    for draft in drafts():
        found = [place[s] for paragraph in draft.body for s in paragraph]
        runs = np.split(found, np.flatnonzero(np.diff(found) != 1) + 1)
        assert all(run[-1] < pool.ends[run[0]] for run in runs if len(run) <= 3)
        assert len(runs) >= planted.PASSAGES


@pytest.mark.parametrize("edit", sorted(planted.LASTING))
@pytest.mark.parametrize("aim", [0.6, 0.75, 0.9])
def test_an_edit_leaves_about_what_it_aims_at(edit: str, aim: float) -> None:
    found = [alike(d.text(), planted.EDITS[edit](d, aim, Draw(1, planted.EDIT, i)).text()) for i, d in enumerate(drafts())]
    assert np.mean(found) == pytest.approx(aim, abs=0.1)


@pytest.mark.parametrize(
    ("edit", "low", "high"),
    [
        ("boilerplate", 0.5, 1.0),
        ("reordered", 0.4, 1.0),  # the edges of paragraphs only
        ("restyled", 1.0, 1.0),  # normalising takes it away
    ],
)
def test_other_edits_stay_near(edit: str, low: float, high: float) -> None:
    texts = [(d.text(), planted.EDITS[edit](d, 0.8, Draw(1, planted.EDIT, i)).text()) for i, d in enumerate(drafts())]
    assert all(low <= alike(a, b) <= high for a, b in texts)
    assert sum(a != b for a, b in texts) > 10


def test_edits_are_named_dropping_first() -> None:
    for i, draft in enumerate(drafts()):
        names = edited(draft, "near", Draw(1, planted.EDIT, i))[1].split("+")
        assert 1 <= len(names) <= 3
        assert "dropped" not in names[1:]
    assert edited(drafts(1)[0], "exact", Draw(1, 1, 1)) == (drafts(1)[0], "")


def test_shares_and_parents(corpus: Planted) -> None:
    place, parent, kind = corpus.layout
    assert sorted(place.tolist()) == [*range(2000)]
    counts = {k: int((kind == i).sum()) for i, k in enumerate(KINDS)}
    assert {k: counts[k] / 2000 for k in SHARES} == pytest.approx(SHARES)
    assert ((parent < 0) == (kind == 0)).all()
    younger = np.flatnonzero(parent >= 0)
    assert (parent[younger] < younger).all()  # so no cycle
    of_kind = {k: parent[kind == KINDS.index(k)] for k in ("exact", "near", "chain", "far")}
    stars = {*of_kind["exact"].tolist(), *of_kind["near"].tolist()}
    assert kind[[*stars, *of_kind["far"].tolist()]].max() == 0
    assert not stars & {*of_kind["chain"].tolist()}
    assert not (stars | {*of_kind["chain"].tolist()}) & {*of_kind["far"].tolist()}


def test_copies_come_in_twos_and_in_hundreds() -> None:
    _, parent, kind = Planted(EXAMPLES, 100_000).layout
    copies = parent[(kind == KINDS.index("exact")) | (kind == KINDS.index("near"))]
    sizes = np.sort(np.unique(copies, return_counts=True)[1])
    assert 0.85 < (sizes <= 2).mean() < 0.95
    assert sizes[-1] > 100
    chain = kind == KINDS.index("chain")
    assert sorted(Counter(np.diff(np.flatnonzero(~np.isin(parent[chain], np.flatnonzero(chain)))).tolist())) == [3, 4, 5, 6]


@pytest.mark.parametrize("documents", [0, 99, 1 << 32])
def test_a_number_of_documents_without_sense_is_refused(documents: int) -> None:
    with pytest.raises(ValueError, match="it must be from 100"):
        Planted(EXAMPLES, documents)


def test_the_truth_is_true(corpus: Planted, rows: list[tuple[dict[str, str], dict[str, object]]]) -> None:
    texts = {d["id"]: d["text"] for d, _ in rows}
    assert len(texts) == 2000
    for document, known in rows:
        if known["parent"] is None:
            assert known["kind"] == "base"
            assert known["jaccard"] is None
        else:
            a, b = shingle_sets(pa.array([document["text"], texts[str(known["parent"])]]), 5)
            assert known["jaccard"] == jaccard(a, b)
            assert (known["kind"] != "exact") or document["text"] == texts[str(known["parent"])]
    first = rows[0][0]
    assert corpus.text(first["id"]) == first["text"]


def test_strengths_are_spread(rows: list[tuple[dict[str, str], dict[str, object]]]) -> None:
    by_kind = {k: np.array([float(str(t["jaccard"])) for _, t in rows if t["kind"] == k]) for k in KINDS[1:]}
    assert (by_kind["exact"] == 1).all()
    near = np.histogram(by_kind["near"], [0, 0.7, 0.8, 0.9, 1.01])[0] / len(by_kind["near"])
    assert near[0] < 0.2
    assert min(near[1:]) > 0.1
    assert ((by_kind["far"] > 0.45) & (by_kind["far"] < 0.72)).mean() > 0.95
    assert 0.75 < np.median(by_kind["chain"]) < 0.92


def test_bases_are_not_alike(rows: list[tuple[dict[str, str], dict[str, object]]]) -> None:
    found = all_pairs([d["text"] for d, t in rows if t["kind"] == "base"][:1200])
    pairs = found[np.triu_indices(len(found), 1)]
    assert (pairs == 0).mean() > 0.85
    assert (pairs > 0.05).mean() < 1e-3
    assert (pairs > 0.2).mean() < 1e-4  # these pools are small; with those of the larger data set it is under 1e-6
    assert pairs.max() < 0.6


def test_lengths_are_those_of_pages(rows: list[tuple[dict[str, str], dict[str, object]]]) -> None:
    sizes = np.array([len(d["text"].encode()) for d, t in rows if t["kind"] == "base"])
    assert 1700 < np.median(sizes) < 2600
    assert 2600 < sizes.mean() < 3800


def test_files_hold_it_once_for_any_number_of_workers(tmp_path: Path, corpus: Planted) -> None:
    small = Planted(EXAMPLES, 120)
    about = write(small, tmp_path / "a", workers=1)
    write(small, tmp_path / "b", workers=3)
    for name in ("texts", "truth"):
        files = [sorted((tmp_path / side / name).iterdir()) for side in "ab"]
        assert [f.read_bytes() for f in files[0]] == [f.read_bytes() for f in files[1]]
    documents = [d for path in sorted((tmp_path / "a" / "texts").iterdir()) for d in jsonl(path)]
    assert [d["id"] for d in documents] == [f"d{i:09}" for i in range(120)]
    assert [d["text"] for d in documents] == [small.text(d["id"]) for d in documents]
    assert about["bytes"] == sum(len(d["text"].encode()) for d in documents)
    assert sum(about["kinds"].values()) == 120
    truth = read_truth(tmp_path / "a")
    assert truth["id"].to_pylist() == [d["id"] for d in documents]
    done = tmp_path / "a" / "planted.json"
    before = done.stat().st_mtime_ns
    assert write(small, tmp_path / "a") == json.loads(done.read_text())
    assert done.stat().st_mtime_ns == before  # what is there is not made again
