"""Labelled texts: what files may look like, what is refused, and that no site is in two splits."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers.errors import DataError
from classifiers.labelled import Labelled, labelled, read, site_of, split

GIVEN = [("a b", "x"), ("c d", "y")]


@pytest.mark.parametrize("form", ["t.jsonl", "t.jsonl.gz", "t.parquet", "t.txt"])
def test_every_form_of_file_gives_the_same(form: str, tmp_path: Path) -> None:
    path = tmp_path / form
    lines = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in GIVEN)
    if form == "t.jsonl":
        path.write_text(lines, encoding="utf-8")
    elif form == "t.jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif form == "t.parquet":
        pq.write_table(pa.table({"text": [t for t, _ in GIVEN], "label": [x for _, x in GIVEN]}), path)
    else:
        path.write_text("".join(f"__label__{label} {text}\n" for text, label in GIVEN), encoding="utf-8")
    found = read([path])
    assert (found.texts.to_pylist(), found.numbers.tolist(), found.labels) == (["a b", "c d"], [0, 1], ("x", "y"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", '{"text": "a"}\n', r"line 1 of .*needs the fields 'text' and 'label' and has 'text'"),
        ("t.jsonl", '\n{"text": 3, "label": "x"}\n', r"line 2 of .*'text' must be a string"),
        ("t.jsonl", "{", "line 1 of .* is no labelled text"),
        ("t.txt", "no label\n", "must have one __label__NAME and has 0"),
        ("t.txt", "__label__a __label__b two\n", "has 2"),
    ],
)
def test_a_file_that_is_none(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read([tmp_path / name])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*none\.jsonl"):
        read([tmp_path / "none.jsonl"])


TORN = (["one text", "one  text\n", "another", "one text", " ", None], ["x", "y", "y", "x", "x", "x"])


@pytest.mark.parametrize(
    ("conflicts", "kept"),
    [("drop", {"another": "y", "third": "x"}), ("majority", {"one text": "x", "another": "y", "third": "x"})],
)
def test_contradictions_are_resolved_as_asked_and_counted(conflicts: str, kept: dict[str, str]) -> None:
    found = labelled([*TORN[0], "third"], [*TORN[1], "x"], conflicts=conflicts)
    assert {t: found.labels[n] for t, n in zip(found.texts.to_pylist(), found.numbers.tolist(), strict=True)} == kept
    facts = {name: found.facts[name] for name in ("rows", "empty", "repeated", "contradicting", "texts")}
    assert facts == {"rows": 7, "empty": 2, "repeated": 2, "contradicting": 1, "texts": len(kept)}


def test_contradictions_are_refused_by_default_and_named() -> None:
    with pytest.raises(DataError, match=r"1 of 2 texts have several labels, the first \(x, y\): 'one text'; mend them"):
        labelled(*TORN)


def test_an_even_vote_is_no_majority() -> None:
    assert labelled(["a", "a", "b", "c"], ["x", "y", "x", "y"], conflicts="majority").texts.to_pylist() == ["b", "c"]


@pytest.mark.parametrize(("names", "message"), [(["x", "x"], "have the one label 'x'"), ([], "have no label")])
def test_one_label_is_too_few(names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        labelled(["a", "b"][: len(names)], names)


def test_numbers_are_in_the_order_of_their_values() -> None:
    assert labelled(["a", "b", "c"], ["10", "2", "none"]).labels == ("2", "10", "none")


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("https://www.News.example.co.uk/a?b", "example.co.uk"),
        ("sub.example.com", "example.com"),
        ("http://10.0.0.1/x", "10.0.0.1"),
        ("https://Site.example/a/b", "site.example"),
        ("book 7", "book 7"),
    ],
)
def test_a_site_is_a_registered_domain_or_the_name_itself(address: str, site: str) -> None:
    assert site_of(address) == site


def test_a_text_without_an_address_is_its_own_site() -> None:
    assert len(set(labelled(["a", "b", "c"], ["x", "y", "x"]).sites)) == 3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(30, 60))
def test_no_site_is_in_two_splits_and_no_text_is_lost(seed: int, sites: int) -> None:
    count = 10 * sites
    found = labelled(
        [str(n) for n in range(count)], ["xy"[n % 2] for n in range(count)], [f"s{n % sites // 2}.com" for n in range(count)]
    )
    try:
        parts = split(found, seed, 0.3, 0.3)
    except DataError as error:
        assert "has no text labelled" in str(error)  # noqa: PT017
        return
    assert sorted(t for part in parts for t in part.texts.to_pylist()) == sorted(found.texts.to_pylist())
    assert sum(len(set(part.sites)) for part in parts) == len(set(found.sites))


def test_a_site_stays_in_its_split_when_others_come(data: Labelled) -> None:
    half = data.take(np.arange(len(data.sites)) % 5 > 1)
    for whole, part in zip(split(data, 1, 0.3, 0.3), split(half, 1, 0.3, 0.3), strict=True):
        assert set(part.sites) <= set(whole.sites)


def test_a_split_without_a_label_says_so() -> None:
    with pytest.raises(DataError, match=r"the \w+ split has no text labelled (x|y|x, y): \d of 2 sites are in it"):
        split(labelled(["a", "b"], ["x", "y"], ["one.com", "two.com"]))


def test_the_fingerprint_is_of_the_set(data: Labelled) -> None:
    turned = data.take(np.arange(len(data.sites))[::-1])
    assert turned.fingerprint == data.fingerprint
    assert data.take(np.arange(10)).fingerprint != data.fingerprint
