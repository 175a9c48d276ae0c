"""The training sets: written pages are the same everywhere, sites keep apart, and what is read is what the source says."""

import gzip
import re
from pathlib import Path

import pytest

from classifiers.data import packages, sets
from classifiers.data.compose import composed, filled, sections, slots, soiled
from classifiers.data.pages import Text, books, dictionary, draws, lines_of, pieces, some
from classifiers.data.ship import SHIPPED
from classifiers.errors import DataError

WRITTEN = [("reference", "en"), ("reference", "zh"), ("raw", "en"), ("raw", "zh"), ("toxic", "en"), ("clean", "en")]
EMPTY = sets.Sources((), (), tuple(books()), tuple(lines_of("code.jsonl.gz")), tuple(lines_of("math.jsonl.gz")))


@pytest.mark.parametrize(("kind", "lang"), WRITTEN)
def test_what_was_written_has_topics_and_known_slots(kind: str, lang: str) -> None:
    found = sections(kind, lang)
    assert len(found) >= 4
    assert all(blocks for blocks in found.values())
    for blocks in found.values():
        for block in blocks:
            text = filled(re.sub(r"\{bad\d?\}", "BAD", block), lang, draws(kind, lang))  # a slot without a list is a KeyError
            assert not re.search(r"\{[a-z]+\d?\}", text)


def test_pages_are_the_same_every_time_and_differ_from_each_other() -> None:
    first, second = (list(composed("raw", "en", 5)) for _ in range(2))
    assert first == second
    assert len({page.text for page in first}) == len(first) == 5 * len(sections("raw", "en"))
    assert {page.site for page in first} == {f"raw-en-{genre}" for genre in sections("raw", "en")}


def test_a_slot_has_one_value_in_a_block_and_others_may_have_another() -> None:
    text = filled("{city} {city} {city2}", "en", draws("x"))
    one, two, _ = re.findall("|".join(map(re.escape, slots("en")["city"])), text)
    assert one == two


@pytest.mark.parametrize(("length", "count"), [(100, 0), (600, 1), (40_000, 5)])
def test_pieces_end_with_lines_and_lose_no_order(length: int, count: int) -> None:
    text = "\n".join(f"line {i} of the text, which goes on for a while" for i in range(length // 45))
    found = [piece.text for piece in pieces(Text(text, "site", "en"))]
    assert len(found) >= count
    assert "\n".join(found) in text
    assert all(len(piece) >= 500 for piece in found)


def test_a_choice_does_not_depend_on_the_order() -> None:
    texts = [Text(str(i) * 10, "site", "en", "", str(i)) for i in range(50)]
    assert some(texts, 10) == some(texts[::-1], 10)


def test_soiled_pages_keep_their_text() -> None:
    clean = [Text(f"A paragraph about the number {i}.", "site", "en", "", str(i)) for i in range(100)]
    dirty = [soiled(text, ("Add to cart. Log in. Share.",), 0.3) for text in clean]
    assert all(a.text in b.text for a, b in zip(clean, dirty, strict=True))
    assert 15 < sum(a.text != b.text for a, b in zip(clean, dirty, strict=True)) < 45


@pytest.mark.parametrize("name", [model.name for model in SHIPPED])
def test_a_set_has_several_sites_of_every_label(name: str) -> None:
    rows = list(getattr(sets, name)(EMPTY))
    labels = {row["label"] for row in rows}
    assert len(labels) >= 2
    for label in labels:
        assert len({row["site"] for row in rows if row["label"] == label}) >= 3
    assert all(row["text"].strip() for row in rows)


def test_a_dictionary_of_dictd(tmp_path: Path) -> None:
    root = tmp_path / "usr/share/dictd"
    root.mkdir(parents=True)
    entries = {"abacus": 'Abacus \\Ab"a*cus\\, n.\n   A {frame} with beads,\n   for counting.\n', "zero": "Zero\n   None.\n"}
    data = "".join(entries.values())
    (root / "d.dict.dz").write_bytes(gzip.compress(data.encode()))
    (root / "d.index").write_text(f"abacus\tA\t{_base64(len(entries['abacus']))}\nzero\t{_base64(len(entries['abacus']))}\tP\n")
    (found,) = dictionary(tmp_path, "d", 30)
    assert (found.page, found.text) == ("abacus", "Abacus , n. A frame with beads, for counting.")


def _base64(number: int) -> str:
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return digits[number // 64] + digits[number % 64]


def test_packages_are_held_against_their_sum(tmp_path: Path) -> None:
    first, *_ = packages.packages()
    assert all(len(p.sha256) == 64 and p.licence and p.version for p in packages.packages())
    (tmp_path / f"{first.name}_{first.version}_all.deb").write_bytes(b"another")
    with pytest.raises(DataError, match=r"has SHA-256 .* packages.tsv says"):
        packages.fetch(tmp_path)
