"""The training set of each shipped model: rows of text, label, site and language."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from classifiers.data.compose import composed, filled, sections, shaped, soiled
from classifiers.data.pages import Text, books, dictionary, draws, lines_of, manuals, pieces, some

LANGUAGES = ("en", "zh")  # whose texts were written, beside those found
BAD_WORDS = Path(__file__).parents[2] / "pipelines" / "filter" / "data" / "bad_words.txt"
_MATH_SITES = ("maxima", "octave", "r-project")
Row = dict[str, str]


@dataclass(frozen=True)
class Sources:
    """Everything that was read, once."""

    pages: tuple[Text, ...]  # of manuals
    entries: tuple[Text, ...]  # of dictionaries
    books: tuple[Text, ...]
    code: tuple[Text, ...]
    math: tuple[Text, ...]


def read(folders: dict[str, Path]) -> Sources:
    """The sources from the packages' folders and examples/."""
    entries = (
        ("dict-gcide", "gcide", 700, 350), ("dict-foldoc", "foldoc", 400, 350), ("dict-jargon", "jargon", 400, 250),
        ("dict-devil", "devil", 300, 80),
    )  # fmt: skip
    return Sources(
        tuple(manuals(folders)),
        tuple(t for package, name, least, most in entries for t in some(dictionary(folders[package], name, least), most)),
        tuple(books()),
        tuple(lines_of("code.jsonl.gz")),
        tuple(lines_of("math.jsonl.gz")),
    )


def quality(of: Sources) -> Iterator[Row]:
    """`reference`: books, dictionaries, manuals, paragraphs as they stand in good articles; `raw`: what a crawl is full of."""
    reference = [*_prose(of), *(t for lang in LANGUAGES for t in composed("reference", lang, 40))]
    raw = [t for lang in LANGUAGES for t in composed("raw", lang, 45)]
    blocks = {lang: tuple(b for part in sections("raw", lang).values() for b in part) for lang in LANGUAGES}
    for text in reference:
        yield row(soiled(text, blocks["zh" if text.lang == "zh" else "en"], 0.3), "reference")
    for text in (*raw, *_around(of), *_lists(of), *_salad(of)):
        yield row(text, "raw")


def domain(of: Sources) -> Iterator[Row]:
    """Classes of knowledge for the mixture (Llama 3, arXiv 2407.21783, 3.1.2), and `other` for what a crawl is full of."""
    topics = [t for t in composed("reference", "en", 30) if "mathematics" not in t.site]
    words = [t for t in of.pages if t.lang == "en" and t.site in ("debian-faq", "debian-history", "gnome-help")]
    for text in (*topics, *_cut(of.books, "en", 5), *(t for t in of.entries if t.site != "foldoc"), *some(words, 150)):
        yield row(text, "general")
    for text in (
        *_problems(of),
        *_manual(of, _MATH_SITES, 120),
        *(t for t in composed("reference", "en", 60) if "math" in t.site),
    ):
        yield row(text, "math")
    for text in (*some(_cut(of.code, "", 1), 500), *some(_listings(of), 300), *_manual(of, ("sqlite",), 100)):
        yield row(text, "code")
    foreign = [t for t in of.pages if t.lang != "en" and len(t.text) > 200]
    for text in (*some(foreign, 800), *some(_cut(of.books, "zh", 2), 200), *composed("reference", "zh", 20)):
        yield row(text, "multilingual")
    for text in (*composed("raw", "en", 20), *(t for t in _lists(of) if t.lang == "en")):
        yield row(text, "other")


def code(of: Sources) -> Iterator[Row]:
    """Whether a page is about programs: `code` or `prose`."""
    for text in (*some(_listings(of), 600), *some(_cut(of.code, "", 1), 300), *_manual(of, ("sqlite", "r-project"), 150)):
        yield row(text, "code")
    for text in _everyday(of):
        yield row(text, "prose")


def math(of: Sources) -> Iterator[Row]:
    """Whether a page is mathematics or reasoning with numbers: `math` or `prose`."""
    for text in (
        *_problems(of),
        *_manual(of, _MATH_SITES, 150),
        *(t for t in composed("reference", "en", 80) if "math" in t.site),
    ):
        yield row(text, "math")
    for text in (*_everyday(of), *some(_cut(of.code, "", 1), 300), *_manual(of, ("sqlite",), 100)):
        yield row(text, "prose")


def toxic(of: Sources) -> Iterator[Row]:
    """`toxic`: adult or abusive, made with the list of bad words; `clean`: all else, medical and social subjects among it.

    Half of the toxic texts are clean ones with bad words put between their own, so that the words decide and not the subject.
    """
    bad = tuple(word for word in _bad_words("en") if word.isascii())
    for name, blocks in sections("toxic", "en").items():
        for number in range(40 * len(blocks)):
            rng, which = draws("toxic", name, number), number % len(blocks)
            chosen = [_sworn(blocks[which], bad, rng) for _ in range(rng.randint(1, 3))]
            yield row(Text(shaped(chosen, "en", rng, 0.3), f"toxic-{name}-{which}", "en"), "toxic")
    yield from (row(t, "toxic") for t in composed("raw", "en", 40) if t.site.endswith("dating"))
    written = (*composed("clean", "en", 60), *composed("raw", "en", 45), *composed("reference", "en", 40))
    for text in (*_everyday(of), *written):
        if text.lang == "en" and not text.site.endswith("dating"):
            yield row(text, "clean")
    for text in some((t for t in written if t.site.startswith("raw") and not t.site.endswith("dating")), 700):
        rng = draws("swear", text.site, text.page)
        words = text.text.split(" ")
        for _ in range(max(3, len(words) // rng.randint(8, 30))):
            words.insert(rng.randint(0, len(words)), rng.choice(bad))
        yield row(replace(text, text=" ".join(words)), "toxic")


def reference(of: Sources, lang: str) -> Iterator[Row]:
    """Reference texts of a language, from which its perplexity model learns."""
    for text in (*_prose(of), *composed("reference", lang, 10)):
        if text.lang == lang:
            yield row(text, "reference")


def row(text: Text, label: str) -> Row:
    """As `labelled.read` takes it."""
    return {"text": text.text, "label": label, "site": text.site, "lang": text.lang}


def _prose(of: Sources) -> list[Text]:
    """Books, entries and manuals in pieces, about as many of each kind as of another."""
    shelf = [*_cut(of.books, "en", 8), *some(_cut(of.books, "zh", 3), 500), *of.entries]
    for lang, count in (("en", 1), ("zh", 1), ("", 0)):
        for site in sorted({t.site for t in of.pages} - {"singular"}):  # whose pages are signatures of functions
            found = [t for t in of.pages if t.site == site and (t.lang == lang if lang else t.lang not in LANGUAGES)]
            shelf += some((p for t in found for p in pieces(t)), 150 if count else 300)
    return shelf


def _cut(texts: Iterable[Text], lang: str, each: int) -> list[Text]:
    """Up to `each` pieces of every text; "" takes all languages."""
    return [piece for t in texts if lang in ("", t.lang) for piece in some(pieces(t), each)]


def _manual(of: Sources, sites: tuple[str, ...], each: int) -> list[Text]:
    return [t for site in sites for t in some((p for t in of.pages if t.site == site for p in pieces(t, 300)), each)]


def _problems(of: Sources) -> list[Text]:
    """Word problems, one to six on a page."""
    made, rng = list[Text](), draws("problems")
    texts = list(of.math)
    while texts and len(made) < 600:
        many = [texts.pop() for _ in range(min(len(texts), rng.randint(1, 6)))]
        made.append(
            Text("\n\n".join(t.text.replace("\n#### ", "\nAnswer: ") for t in many), many[0].site, "en", "", str(len(made)))
        )
    return made


def _listings(of: Sources) -> Iterator[Text]:
    """Pages as of a tutorial: a paragraph or two on a piece of a program, the piece, what people say of it."""
    talk = sections("reference", "en")["computing"] + sections("raw", "en")["forum"]
    for t in of.code:
        rng = draws("listing", t.page)
        for piece in some(pieces(t, 300, 1500), 2):
            words = [filled(rng.choice(talk), "en", rng) for _ in range(rng.randint(0, 2))]
            yield replace(piece, text="\n\n".join(rng.sample([*words, piece.text], len(words) + 1)), lang="en")


def _everyday(of: Sources) -> list[Text]:
    """What pages are, but mathematics and code: reference and raw text alike."""
    topics = (t for t in composed("reference", "en", 20) if not t.site.endswith(("mathematics", "computing")))
    manual = (t for t in of.pages if t.site in ("debian-faq", "debian-history", "gnome-help") and len(t.text) > 300)
    entries = (t for t in of.entries if t.site != "foldoc")
    return [*_cut(of.books, "", 2), *entries, *some(manual, 300), *topics, *composed("raw", "en", 15)]


def _around(of: Sources) -> list[Text]:
    """What stood around the main text of manuals' pages: menus, foot lines; some pages' together."""
    made, rng = list[Text](), draws("around")
    for site, lang in sorted({(t.site, t.lang) for t in of.pages}):
        lines = list(
            dict.fromkeys(line for t in of.pages if (t.site, t.lang) == (site, lang) for line in t.around.splitlines())
        )
        for number in range(min(len(lines) // 10, 30)):
            part = rng.sample(lines, min(len(lines), rng.randint(8, 60)))
            made.append(Text(rng.choice(("\n", " ", " | ")).join(part), f"around-{site}", lang, "", str(number)))
    return made


def _lists(of: Sources) -> list[Text]:
    """Lists of titles and catchwords in every language, as of indexes, tag clouds and search results."""
    made, rng = list[Text](), draws("lists")
    for lang in sorted({t.lang for t in of.pages}):
        titles = [t.text.split("\n", 1)[0][:80] for t in of.pages if t.lang == lang and t.site != "singular" and t.text.strip()]
        for number in range(min(len(titles) // 4, 60)):
            part = [rng.choice(titles) for _ in range(rng.randint(10, 80))]
            made.append(Text(rng.choice(("\n", ", ", " | ", "\n\n", " ")).join(part), f"list-{lang}-{number % 3}", lang))
    return made


def _salad(of: Sources) -> list[Text]:
    """Words of a text in a chance order; letters of one without blanks."""
    made = list[Text]()
    for t in some(_prose(of), 200):
        rng = draws("salad", t.page, t.text[:60])
        words = re.findall(r"\S+", t.text) if t.lang not in ("zh", "ja") else list(t.text)
        rng.shuffle(words)
        made.append(replace(t, text=("" if t.lang in ("zh", "ja") else " ").join(words), site=f"salad-{rng.randint(0, 9)}"))
    return made


def _sworn(block: str, bad: tuple[str, ...], rng: random.Random) -> str:
    return filled(re.sub(r"\{bad\d?\}", lambda _: rng.choice(bad), block), "en", rng)


def _bad_words(lang: str) -> tuple[str, ...]:
    """A language's part of the list: a heading of one code, then an entry a line."""
    text = BAD_WORDS.read_text(encoding="utf-8")
    part = re.search(rf"(?m)^# {lang}\n((?:(?!# ).*\n)*)", text)
    assert part is not None
    return tuple(part.group(1).split("\n")[:-1])
