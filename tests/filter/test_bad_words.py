"""Bad words: which list a document gets, what is a hit, what a drop says; and the same pages as datatrove drops."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.errors import UserError
from pipelines.filter.bad_words import BAD_WORD_COLUMNS, BadWordsConfig, _lists, bad_words
from pipelines.schema import RECORD, record_batch

OURS = BadWordsConfig()


def run(texts: list[str | None], langs: list[str | None], cfg: BadWordsConfig = OURS) -> pa.RecordBatch:
    return bad_words(record_batch({"text": texts, "lang": langs}, RECORD), cfg)


@pytest.mark.parametrize(
    ("lang", "text", "hits", "entry"),
    [
        ("en", "A book on gardens.", 0.0, None),
        ("en", "This is SHIT, really.", 1.0, "shit"),
        ("en", "Scunthorpe, classic, assets, shitake", 0.0, None),  # no words by themselves
        ("en", "shit! shit? bullshit", 3.0, "shit"),
        ("en", "a ball gag", 1.0, "ball gag"),
        ("en", "a ball  gag", 0.0, None),
        ("de", "Das ist SCHEI\u00dfE.", 1.0, "schei\u00dfe"),
        ("de", "So ein Arschloch.", 1.0, "arschloch"),
        ("de-AT", "So ein Arschloch.", 1.0, "arschloch"),
        ("es", "vaya cabr\u00f3n", 1.0, "Cabr\u00f3n"),  # an entry with a capital letter
        ("no", "en fitte", 1.0, "fitte"),
        ("nn", "ei fitte", 1.0, "fitte"),
        ("zh", "\u4ed6\u8bf4\u4ed6\u5988\u7684\u3002", 1.0, "\u4ed6\u5988"),  # anywhere in the text
        ("zh", "\u5973\u6027\u7684\u6743\u5229", 0.0, None),  # left out of the list
        ("ja", "\u5973\u306e\u5b50\u306e\u672c", 0.0, None),
        ("ko", "\uc13d\uc2a4", 0.0, None),
        ("la", "shit", None, None),  # no list
        ("und", "shit", None, None),
        (None, "shit", None, None),
        ("en", None, None, None),
        ("en", "", 0.0, None),
    ],
)
def test_hits(lang: str | None, text: str | None, hits: float | None, entry: str | None) -> None:
    got = run([text], [lang])
    assert got["bad_words"].to_pylist() == [hits]
    assert got["drop_rule"].to_pylist() == ["c4.bad_words" if hits else None]
    assert got["drop_entry"].to_pylist() == [entry]


def test_a_drop_says_value_bound_and_entry() -> None:
    got = run(["shit, my ass", "fine", "shit"], ["en", "en", "fr"])
    assert got["drop_value"].to_pylist() == [2.0, None, None]
    assert got["drop_bound"].to_pylist() == [0.0, None, None]
    assert got["drop_entry"].to_pylist() == ["shit", None, None]
    assert [got.schema.field(name) for name in BAD_WORD_COLUMNS.names] == list(BAD_WORD_COLUMNS)


def test_a_hit_more_is_too_many() -> None:
    texts: list[str | None] = ["shit and ass", "shit, ass and tits"]
    assert run(texts, ["en", "en"], BadWordsConfig(max_hits=2.0))["drop_rule"].to_pylist() == [None, "c4.bad_words"]
    assert run(texts, ["en", "en"], BadWordsConfig(max_hits=None)).schema.get_field_index("drop_rule") < 0


def test_ratio_is_hits_over_words() -> None:
    cfg = BadWordsConfig(max_hits=None, max_ratio=0.3)
    got = run(["shit one two three", "shit one", "\u4ed6\u5988\u4eba\u4eba"], ["en", "en", "zh"], cfg)
    assert got["bad_word_ratio"].to_pylist() == [0.25, 0.5, 0.5]
    assert got["drop_rule"].to_pylist() == [None, "c4.bad_word_ratio", "c4.bad_word_ratio"]


def test_combining_marks_belong_to_the_word_unless_asked_otherwise() -> None:
    text: list[str | None] = ["\u0915\u093e"]
    assert run(text, ["hi"], BadWordsConfig(lists=("\u0915",)))["bad_words"].to_pylist() == [0.0]
    assert run(text, ["hi"], BadWordsConfig(lists=("\u0915",), edges="regex"))["bad_words"].to_pylist() == [1.0]


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# mine\nCasino\n\nfree spins\n", "utf-8")
    cfg = BadWordsConfig(lists=(f"file:{path}", "jackpot"))
    got = run(["A casino", "FREE SPINS", "JackPot", "shit"], ["en", "la", None, "en"], cfg)
    assert got["drop_entry"].to_pylist() == ["Casino", "free spins", "jackpot", None]
    german = run(["A casino", "Ein Casino"], ["en", "de"], BadWordsConfig(lists=(f"file:{path}",), langs=("de",)))
    assert german["bad_words"].to_pylist() == [None, 1.0]
    path.write_text("roulette\n", "utf-8")
    assert run(["A casino", "roulette"], ["en", "en"], cfg)["bad_words"].to_pylist() == [0.0, 1.0]


@pytest.mark.parametrize(("content", "message"), [(None, "cannot be read"), (b"\xff\xfe", "UTF-8"), (b"# none\n", "no entry")])
def test_a_list_that_is_none(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        run(["x"], ["en"], BadWordsConfig(lists=(f"file:{path}",)))


def test_our_lists() -> None:
    lists = _lists()
    assert len(lists) == 27
    assert len(lists["en"]) == 377
    assert all(entry == entry.strip() != "" for entries in lists.values() for entry in entries)
    assert {"sm", "\u5973\u306e\u5b50", "\u6027"}.isdisjoint(lists["ja"] + lists["zh"])


def test_the_same_english_pages_as_datatrove(real_docs: pa.RecordBatch) -> None:
    import re

    from datatrove.data import Document
    from datatrove.pipeline.filters.c4_filters import C4BadWordsFilter

    peer = C4BadWordsFilter()  # its list comes from the network, so it gets ours, in the form that it makes of it
    words = "|".join(map(re.escape, _lists()["en"]))
    peer._badwords_regex["en"] = re.compile(rf"(?:\W|^)({words})(?:\W|$)")
    texts = [text + (" What an ASS!" if i % 7 == 0 else "") for i, text in enumerate(real_docs["text"].to_pylist())]
    theirs = [peer.filter(Document(text=text, id="", metadata={"language": "en"})) is True for text in texts]
    got = run(texts, ["en"] * len(texts), BadWordsConfig(edges="regex"))
    assert [rule is None for rule in got["drop_rule"].to_pylist()] == theirs
    assert 0 < sum(theirs) < len(theirs)
