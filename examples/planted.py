"""What is planted among the real pages, so that every stage has something to do; each page says what should become of it."""

from __future__ import annotations

import html as entities
import json
import random
import re
import struct
import unicodedata
import zlib
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import trafilatura
from markdown_it import MarkdownIt
from resiliparse.extract.html2text import extract_plain_text
from warcfile import Page

MARKDOWN = MarkdownIt("commonmark")
DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0eff]")
LABEL = {"euc_jp": "euc-jp", "euc_kr": "euc-kr"}

MIRRORS = [
    ("zh", "gbk"), ("zh", "gb18030"), ("zh", "big5"), ("ja", "shift_jis"), ("ja", "euc_jp"), ("ru", "koi8-r"),
    ("ru", "windows-1251"),
    ("de", "iso-8859-1"), ("ko", "euc_kr"), ("el", "iso-8859-7"), ("pl", "iso-8859-2"),
]  # fmt: skip

READING = """<!DOCTYPE html>
<html lang="{lang}"><head><meta charset="utf-8"><title>{title}</title><link rel="stylesheet" href="/style.css"></head>
<body><header><a href="/">{site}</a>
<nav><a href="/new">{new}</a> <a href="/authors">{authors}</a> <a href="/help">{help}</a></nav></header>
<main><article><h1>{title}</h1>
{body}
</article></main><footer><p>{site} &middot; <a href="/terms">{help}</a></p></footer></body></html>
"""
PORTAL = """<html><head>
<meta http-equiv="Content-Type" content="text/html; charset=utf-8"><title>{title} - Portal</title></head>
<body class="portal"><table width="100%"><tr>
<td colspan="2"><a href="/">Home</a> | <a href="/news">News</a> | <a href="/forum">Forum</a></td></tr>
<tr><td width="160"><ul><li><a href="/c/1">Systems</a></li><li><a href="/c/2">Networks</a></li>
<li><a href="/c/3">Books</a></li></ul></td>
<td><div id="content"><h2>{title}</h2>
{body}
</div></td></tr></table><p>Page views: {views}</p></body></html>
"""
WORDS = {
    "en": ("Reading room", "New", "Authors", "Help"),
    "zh": ("\u9605\u8bfb", "\u65b0\u4e66", "\u4f5c\u8005", "\u5e2e\u52a9"),
}


def main_text(html: str) -> str:
    """Main text of a page, as resiliparse sees it."""
    return str(extract_plain_text(html, main_content=True, alt_texts=False))


def main_texts(html: str) -> list[str]:
    """Main text by both engines, so that what is promised does not hang on one of them."""
    other = trafilatura.extract(html, include_comments=False, deduplicate=False)
    return [main_text(html), other or ""]


def shingles(text: str) -> frozenset[str]:
    """Word 5-grams, or character 5-grams where over 30 % of the characters are of scripts without spaces (NFKC, lower case)."""
    text = unicodedata.normalize("NFKC", text).lower()
    if len(DENSE.findall(text)) > 0.3 * len(text):
        units: list[str] = list("".join(re.findall(r"\w+", text)))
    else:
        units = re.findall(r"\w+", text)
    return frozenset(" ".join(units[i : i + 5]) for i in range(max(1, len(units) - 4)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Intersection over union."""
    return len(a & b) / max(1, len(a | b))


def markdown_page(title: str, text: str, lang: str) -> bytes:
    """A page of ours around a Markdown text."""
    text = "\n".join(line.strip("\u3000") for line in text.split("\n"))
    site, new, authors, help_ = WORDS[lang]
    title = entities.escape(title)
    page = READING.format(lang=lang, title=title, body=MARKDOWN.render(text), site=site, new=new, authors=authors, help=help_)
    return page.encode()


def decoded(page: Page) -> str:
    """The page as text."""
    return page.body.decode(page.charset or "utf-8")


def reencode(page: Page, codec: str) -> Page:
    """The same page in another charset, its own declarations changed with it; what the charset lacks becomes a reference."""
    label = LABEL.get(codec, codec)
    html = re.sub(r"(?i)(<meta[^>]{0,80}charset=[\"']?)[\w-]+", rf"\g<1>{label}", decoded(page), count=1)
    html = re.sub(r"(?i)(<\?xml[^>]{0,40}encoding=[\"'])[\w-]+", rf"\g<1>{label}", html, count=1)
    declared = page.declared and label
    return replace(page, body=html.encode(codec, "xmlcharrefreplace"), charset=label, declared=declared, note="reencoded")


# planted.json: contact data are reserved or published test values only: RFC 2606 domains, drama numbers of the regulators (NANP
# 555-01xx, Ofcom, BNetzA, ARCEP), example numbers of libphonenumber (CN), IBANs of the SWIFT registry, test card numbers and
# public resolvers.
TEXTS = json.loads(Path(__file__).with_name("planted.json").read_text(encoding="utf-8"))
EMPTY_BODIES = ["https://www.example.org/blank", "https://docs.example.net/en/new/", "http://www.example.com/zh/"]


def _junk(adverts: list[str]) -> list[tuple[str, str, str]]:
    """Language, name and body of pages that no one should train on."""
    cities = ["london", "paris", "rome", "oslo", "cairo"] * 30
    lorem = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore. "
    return [
        ("en", "buy-cheap-tickets", " ".join(f"cheap {city} tickets best price {city} hotel" for city in cities)),
        ("en", "lorem", lorem * 25),
        ("en", "repeat", "<br>\n".join([adverts[0]] * 60)),
        ("en", "symbols", " ".join(f"### {i} ... {i * 7919 % 997} // *** #{i} | {i * 31 % 89}" for i in range(400))),
        ("en", "script", " ".join(f"function f{i}() {{ return document.getElementById('x{i}').value; }} " for i in range(80))),
        ("zh", "tuiguang", "<br>\n".join([adverts[1]] * 60)),
        (
            "en",
            "link-farm",
            "\n".join(f'<li><a href="http://site{i}.example/">best site {i} visit now</a></li>' for i in range(250)),
        ),
    ]


def _key(page: Page) -> str:
    return blake2b(page.url.encode(), digest_size=8).hexdigest()


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = b"".join(b"\0" + bytes((x * y) % 251 for x in range(64)) for y in range(64))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def _with_contact(page: Page, form: str, items: list[tuple[str, str]]) -> Page:
    """The page with one made-up contact paragraph in the middle of its text."""
    html = decoded(page)
    ends = [found.end() for found in re.finditer(r"(?i)</p>", html)]
    at = ends[len(ends) // 2]
    html = f"{html[:at]}\n<p>{form.format(*(value for value, _ in items))}</p>{html[at:]}"
    pii = {kind: sum(k == kind for _, k in items) for kind in sorted({k for _, k in items})}
    return replace(page, body=html.encode(page.charset or "utf-8", "xmlcharrefreplace"), pii=pii, note="contact")


def _edited(page: Page, level: float, rng: random.Random) -> Page:
    """Some paragraphs dropped, some with their sentences turned round: a share `level` of all."""

    def change(found: re.Match[str]) -> str:
        if rng.random() >= level:
            return found.group()
        if rng.random() < 0.5:
            return ""
        parts = re.split(r"(?<=[.!?\u3002\uff01\uff1f])\s*", found.group(2))
        return found.group(1) + " ".join(reversed(parts)) + found.group(3)

    html = re.sub(r"(?is)(<p(?:\s[^>]*)?>)((?:(?!<p[\s>]).)*?)(</p>)", change, decoded(page))
    return replace(page, url=f"{page.url}?rev={rng.randrange(2, 40)}", body=html.encode(), note=f"edited {level:.2f}")


def _portal(page: Page, rng: random.Random) -> Page:
    """The page's main text in the template of another site."""
    lines = [line.strip() for line in main_text(decoded(page)).splitlines() if line.strip()]
    body = "\n".join(f"<p>{entities.escape(line)}</p>" for line in lines[1:])
    html = PORTAL.format(title=entities.escape(lines[0][:80]), body=body, views=rng.randrange(10**5))
    return replace(
        page, url=f"http://portal.example/article/{_key(page)}", body=html.encode(), declared="utf-8", note="other template"
    )


def _dynamic(page: Page, rng: random.Random) -> Page:
    """The page as served a moment later: another session, another list of links beside the text."""
    session = f"{rng.getrandbits(64):016x}"
    links = "".join(
        f'<li><a href="/t/{rng.randrange(9999)}?sid={session}">Topic {rng.randrange(9999)}</a></li>' for _ in range(8)
    )
    html = re.sub(r"(?i)</body>", f'<div class="sidebar"><ul>{links}</ul></div></body>', decoded(page), count=1)
    return replace(page, url=f"{page.url}?sid={session}", body=html.encode(), note="other session")


def _edition(page: Page, packages: Path) -> Page | None:
    """The same page of the manual's other edition: arm64 for amd64, Linux 6.12 for 6.1."""
    for package, old, new, folder in [
        ("installation-guide-arm64", "/amd64/", "/arm64/", ""),
        ("linux-doc-6.12", "/v6.1/", "/v6.12/", "html/"),
    ]:
        if old in page.url:
            file = packages / package / "usr/share/doc" / package / folder / page.url.split(old, 1)[1]
            if file.exists() and file.stat().st_size < 130_000:
                url = page.url.replace(old, new)
                return replace(
                    page,
                    url=url,
                    body=file.read_bytes(),
                    charset="utf-8",
                    declared="utf-8",
                    origin=package,
                    note="other edition",
                )
    return None


def _judged(page: Page, original: Page) -> Page:
    """A near-duplicate with its measured likeness (resiliparse, trafilatura: the smaller); a promise only where it is clear."""
    texts = zip(main_texts(decoded(page)), main_texts(decoded(original)), strict=True)
    values = [jaccard(shingles(ours), shingles(theirs)) for ours, theirs in texts]
    expect = "drop-duplicate" if min(values) >= 0.85 else "keep" if max(values) < 0.65 else "either"
    return replace(page, kind="near_dup", expect=expect, jaccard=round(min(values), 4), dup_group=_key(original), coding="")


def _duplicates(pages: list[Page], packages: Path, rng: random.Random) -> list[Page]:
    pool = [
        p for p in pages if p.kind == "page" and p.charset == "utf-8" and p.note is None and not p.url.startswith("http://")
    ]
    pool.sort(key=lambda p: blake2b(b"pool" + p.url.encode()).digest())
    twins = ((p, _judged(e, p)) for p in pool if (e := _edition(p, packages)) and e.body != p.body)
    editions = list(islice(((p, e) for p, e in twins if (e.jaccard or 0) > 0.4), 20))
    used = {p.url for p, _ in editions}
    free = iter([p for p in pool if p.url not in used])
    out = [edition for _, edition in editions]
    addresses = [lambda u: u.replace("https://", "http://", 1), lambda u: u + "?utm_source=feed&utm_medium=rss",
                 lambda u: re.sub(r"//[^/]+/", "//mirror.example.net/pub/", u)]  # fmt: skip
    for i in range(14):
        page = next(free)
        copies = addresses if i % 7 == 0 else [addresses[i % 3]]
        out += [
            replace(page, url=make(page.url), kind="exact_dup", expect="drop-duplicate", dup_group=_key(page), coding="")
            for make in copies
        ]
    for i in range(12):
        page = next(free)
        out.append(_judged(_edited(page, (0.04, 0.08, 0.15, 0.3)[i % 4], rng), page))
    for i in range(16):
        page = next(free)
        out.append(_judged((_portal if i % 2 else _dynamic)(page, rng), page))
    rest = list(free)
    for i, (lang, codec) in enumerate(MIRRORS):
        page = next(p for p in rest if p.lang == lang and ("TW" in p.url or "tw" in p.url) == (codec == "big5"))
        rest.remove(page)
        copy = reencode(replace(page, declared="x" if i % 2 else None), codec)
        url = re.sub(r"//[^/]+/", "//old.example.net/", page.url)
        out.append(replace(copy, url=url, kind="reencoded_mirror", expect="drop-duplicate", dup_group=_key(page), coding=""))
    for page in rest[:6]:
        out.append(replace(page, kind="revisit", expect="drop"))
    return out


def _bare(url: str, kind: str, body: str | bytes, lang: str | None = None, **more: object) -> Page:
    data = body if isinstance(body, bytes) else body.encode()
    page = Page(url, data, lang, "made", kind, "drop", charset=None if isinstance(body, bytes) else "utf-8")
    return replace(page, **more)  # type: ignore[arg-type]


def _html(title: str, body: str, lang: str) -> str:
    head = f'<html lang="{lang}"><head><meta charset="utf-8"><title>{title}</title></head>'
    return f"<!DOCTYPE html>\n{head}\n<body><h1>{title}</h1>\n<p>{body}</p></body></html>\n"


def _no_pages(pages: list[Page]) -> list[Page]:
    """Redirects, errors, bodies that are no pages, pages not worth keeping."""
    out = [_bare(url, "empty", b"") for url in EMPTY_BODIES]
    for i, page in enumerate([p for p in pages if p.kind == "page" and p.lang in ("en", "zh")][5:205:25]):
        status, text = ((301, "Moved Permanently"), (302, "Found"))[i % 2]
        body = _html(text, f'The document has moved <a href="{page.url}">here</a>.', "en")
        out.append(_bare(page.url.replace("https://", "http://old."), "redirect", body, "en", status=status, location=page.url))
    for i, (status, lang, title, text) in enumerate(TEXTS["errors"]):
        out.append(
            _bare(f"https://www.example.org/{lang}/page{i}.html", "error", _html(title, text, lang), lang, status=status)
        )
    article = next(p for p in pages if p.kind == "page" and p.lang == "en" and p.charset == "utf-8" and p.pii is None)
    out.append(
        replace(
            article,
            url=article.url + ".bak",
            kind="error",
            expect="drop",
            status=404,
            coding="",
            note="404 that repeats an article",
        )
    )
    for i, (lang, title, text) in enumerate(TEXTS["soft_404"]):
        out.append(_bare(f"https://shop.example/item/{i}", "soft_404", _html(title, text, lang), lang))
    for i, (lang, text) in enumerate(TEXTS["short"]):
        out.append(_bare(f"https://www.example.com/s{i}", "short", _html("Notice", text, lang), lang))
    for i, (lang, name, text) in enumerate(_junk(TEXTS["advert"])):
        out.append(_bare(f"http://{name}.example/index.php?id={i}", "junk", _html(name, text, lang), lang))
    return out + _no_html()


def _no_html() -> list[Page]:
    pdf = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n"
    feed = (
        '<?xml version="1.0"?><rss version="2.0"><channel><title>News</title><item><title>First</title></item></channel></rss>'
    )
    json_ = '{"status": "ok", "items": [{"id": 1, "title": "first"}, {"id": 2, "title": "second"}]}'
    return [
        _bare("https://www.example.org/logo", "not_html", _png(), note="PNG as text/html"),
        _bare("https://www.example.org/img/chart.png", "not_html", _png(), mime="image/png"),
        _bare("https://www.example.org/report", "not_html", pdf + bytes(range(256)) * 8, note="PDF as text/html"),
        _bare("https://www.example.org/report.pdf", "not_html", pdf, mime="application/pdf"),
        _bare("https://www.example.org/data.tar", "not_html", zlib.compress(bytes(range(256)) * 16), note="zlib as text/html"),
        _bare("https://api.example.org/v1/items", "not_html", json_, mime="application/json"),
        _bare("https://www.example.org/feed", "not_html", feed, mime="application/rss+xml"),
        _bare("https://www.example.org/style.css", "not_html", "body { margin: 0; color: #222 }\n", mime="text/css"),
    ]


def plant(pages: list[Page], packages: Path) -> list[Page]:
    """The crawl: real pages, some with a made-up contact line, one damaged in the file, and all that is planted beside them."""
    rng = random.Random(20240302)
    pages = sorted(pages, key=lambda p: blake2b(p.url.encode()).digest())
    for contact in TEXTS["contact"]:
        lang, items = contact["lang"], contact["items"]
        free = (i for i, p in enumerate(pages) if p.lang == lang and p.kind == "page" and p.note is None and b"</p>" in p.body)
        told = ((i, _with_contact(pages[i], contact["text"], items)) for i in free)
        i, page = next((i, p) for i, p in told if all(value in text for text in main_texts(decoded(p)) for value, _ in items))
        pages[i] = page
    copies = _duplicates(pages, packages, rng)
    groups = {p.dup_group for p in copies}
    pages = [replace(p, dup_group=_key(p)) if _key(p) in groups else p for p in pages]
    alone = (i for i, p in enumerate(pages) if p.kind == "page" and p.lang == "en" and not p.dup_group and p.note is None)
    lost = next(i for i in alone if len(pages[i].body) > 20_000)
    pages[lost] = replace(pages[lost], kind="damaged", expect="drop", coding="", note="gzip member without its middle third")
    return pages + copies + _no_pages(pages)
