"""Texts of the packages and of examples/: what each page says, and what stands around it."""

from __future__ import annotations

import gzip
import json
import random
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
_DIGITS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
_LANGUAGE = {"C": "en", "zh_CN": "zh", "pt_BR": "pt"}
# Folders of web pages: package, folder below its root, site, language by the file's name ("": English)
_HTML = (
    ("debian-history", "usr/share/doc/debian-history/docs", "debian-history", "name"),
    ("debian-kernel-handbook", "usr/share/doc/debian-kernel-handbook", "kernel-handbook", ""),
    ("r-doc-html", "usr/share/R/doc/manual", "r-project", ""),
    ("maxima-doc", "usr/share/doc/maxima-doc/html", "maxima", ""),
    ("octave-doc", "usr/share/doc/octave/octave.html", "octave", ""),
    ("singular-doc", "usr/share/doc/singular/html", "singular", ""),
    ("sqlite3-doc", "usr/share/doc/sqlite3", "sqlite", ""),
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    """A text and where it comes from; `around`: what the page says beside it (menus, foot lines)."""

    text: str
    site: str
    lang: str
    around: str = ""
    page: str = ""


def draws(*names: object) -> random.Random:
    """Random numbers named by what they are for, the same everywhere."""
    return random.Random("/".join(map(str, names)))


def some(texts: Iterable[Text], count: int) -> list[Text]:
    """At most `count` of the texts, by a fixed shuffle that does not depend on their order."""
    return sorted(texts, key=lambda t: draws("some", t.site, t.page, t.text[:200]).random())[:count]


def pieces(of: Text, least: int = 500, most: int = 6000) -> Iterator[Text]:
    """The text cut at ends of lines into lengths as pages have them; a rest that is too short is left out."""
    rng, part = draws("pieces", of.site, of.page, of.text[:100]), ""
    scale = 3 if of.lang in ("zh", "ja") else 1
    bound = least * (most / least) ** rng.random() / scale
    for line in of.text.split("\n"):
        if len(part) + len(line) > bound and len(part) >= least / scale:
            yield replace(of, text=part.strip(), around="", page=f"{of.page}@{len(part)}")
            part, bound = "", least * (most / least) ** rng.random() / scale
        part += line + "\n"
    if len(part.strip()) >= least / scale:
        yield replace(of, text=part.strip(), page=f"{of.page}@end")


def manuals(folders: dict[str, Path]) -> Iterator[Text]:
    """Pages of manuals and handbooks, of the FAQ and GNOME's help in all their languages."""
    from resiliparse.extract.html2text import extract_plain_text

    def page(file: Path, site: str, lang: str) -> Text:
        html = file.read_bytes().decode("utf-8", "replace")
        whole, main = extract_plain_text(html, main_content=False), extract_plain_text(html, main_content=True)
        inside = set(main.splitlines())
        around = "\n".join(line for line in whole.splitlines() if line.strip() and line not in inside)
        return Text(main, site, lang, around, file.name)

    for package, folder, site, by in _HTML:
        for file in sorted((folders[package] / folder).rglob("*.html")):
            lang = file.name.split(".")[-2] if by else "en"
            if file.is_file() and not file.is_symlink() and len(lang) == 2:
                yield page(file, site, lang)
    for package in sorted(name for name in folders if name.startswith("debian-faq")):
        for file in sorted((folders[package] / "usr/share/doc/debian/FAQ").rglob("*.html")):
            yield page(file, "debian-faq", package.removeprefix("debian-faq").strip("-")[:2] or "en")
    yield from _help(folders["gnome-user-docs"] / "usr/share/help")


def _help(root: Path) -> Iterator[Text]:
    """GNOME's help in all languages; of a translation those pages that have been translated by more than half."""
    english = {file.name: _mallard(file, "en") for file in sorted((root / "C").rglob("*.page"))}
    for folder in sorted(root.iterdir()):
        for file in sorted(folder.rglob("*.page")):
            page = _mallard(file, _LANGUAGE.get(folder.name, folder.name[:2]))
            lines = page.text.split("\n")
            same = set(english[file.name].text.split("\n")) if file.name in english else set()
            if page.lang == "en" or 2 * sum(line in same for line in lines) < len(lines):
                yield page


def _mallard(file: Path, lang: str) -> Text:
    """A page of GNOME's help: its paragraphs, list items and titles, a line each."""
    source = re.sub(r"(?s)<info>.*?</info>|<!--.*?-->", "", file.read_bytes().decode("utf-8", "replace"))
    lines = (re.sub(r"<[^>]+>", "", part) for part in re.findall(r"(?s)<(?:p|title)\b[^>]*>(.*?)</(?:p|title)>", source))
    return Text("\n".join(" ".join(line.split()) for line in lines), "gnome-help", lang, "", file.name)


def dictionary(folder: Path, name: str, least: int) -> Iterator[Text]:
    """Entries of at least so many characters of a dictionary in dictd's format."""
    root = folder / "usr/share/dictd"
    data = gzip.decompress((root / f"{name}.dict.dz").read_bytes())
    for line in (root / f"{name}.index").read_text(encoding="utf-8", errors="replace").splitlines():
        word, at, size = line.split("\t")[:3]
        start, length = _number(at), _number(size)
        entry = data[start : start + length].decode("utf-8", "replace")
        if len(entry) < least or word.startswith("00"):
            continue
        entry = re.sub(r"\\[^\\\n]{1,60}\\|\[1913 Webster\]|\[Webster 1913 Suppl\.\]|\[PJC\]|[{}]", "", entry)
        blocks = re.split(r"\n\s*\n", entry)
        yield Text("\n\n".join(" ".join(block.split()) for block in blocks).strip(), name, "en", "", word)


def _number(digits: str) -> int:
    """dictd's numbers, in base 64."""
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS.index(digit)
    return value


def books() -> Iterator[Text]:
    """English and Chinese books of examples/, a site an author or collection."""
    import pyarrow.parquet as pq

    for row in pq.read_table(EXAMPLES / "books.parquet").to_pylist():
        site = str(row["id"]).split("/")[0] if row["lang"] == "en" else str(row["source"]).split("@")[0].split("/")[-1]
        yield Text(row["text"], site, row["lang"], "", row["id"])


def lines_of(name: str) -> Iterator[Text]:
    """code.jsonl.gz or math.jsonl.gz of examples/; a site of code is a top folder of its library."""
    with gzip.open(EXAMPLES / name, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            parts = row["id"].split("/")
            site = f"{parts[0]}-{parts[1]}" if len(parts) > 1 else f"{row['source'].split('/')[0]}-{row['id'][-1]}"
            yield Text(row["text"], site, row["lang"], "", row["id"])
