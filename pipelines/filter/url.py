"""Rules on a page's address, as in RefinedWeb (arXiv 2306.01116, G.1): whole hosts and pages, then words of the URL.

| rule | drops a URL |
|---|---|
| `url.no_host` | that has no host at all |
| `url.ip_host` | whose host is an address in numbers, in any form a browser takes |
| `url.domain` | whose host is a listed domain or below one |
| `url.homograph` | whose host looks like such a one: its letters that pass for Latin ones are read as these (hosts.py) |
| `url.page` | that is a listed URL (`url_text.put_url` says what makes two URLs one) |
| `url.strict_word` | that contains a listed string anywhere, blanks and punctuation aside |
| `url.sub_word` | of which one word contains a listed string |
| `url.hard_word` | of which one word is listed |
| `url.soft_words` | of which at least `min_soft_words` different words are listed |

The rules are asked in this order, and `drop_entry` is the entry that was hit, as the list has it (of words all that were, with
commas; of strings the first). A host of `allow_domains`, or below one, passes every rule. Words are runs of letters and digits
from the host on (not the scheme, not the user), in lower case, with escapes and punycode decoded; in a word that mixes scripts,
letters that pass for Latin ones are Latin. No list is built in: a list is the user's own; url_lists.py says in which forms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.filter.hosts import ascii_host, fold_table, fold_words, latin_host, latin_words, unicode_host
from pipelines.filter.kernels.url_text import (
    BEHIND,
    FACTOR,
    HOST,
    IN_HOST,
    MAX_WORD,
    URL,
    WORD,
    Bytes,
    Places,
    after_scheme,
    fold,
    host_span,
    irregular,
    is_address,
    part,
    put_host,
    put_url,
    put_words,
    step,
    strip,
)
from pipelines.filter.url_lists import Table, UrlList, find, first_bits, list_files, url_list
from pipelines.kernel import kernel
from pipelines.recipe import batch_stage
from pipelines.schema import drop

RULES = ("no_host", "ip_host", "domain", "homograph", "page", "strict_word", "sub_word", "hard_word", "soft_words")
Hit: TypeAlias = tuple[int, float, str | None]  # row, value, entry
Found: TypeAlias = tuple[int, int, int]  # row, number of the list, place
_HOST, _NO_HOST, _IP_HOST, _PASS = 0, 1, 2, 3  # state of a URL


@dataclass(frozen=True)
class UrlConfig:
    """Lists are entries or `file:PATH` (see url_lists.py). Documents without a URL pass."""

    domains: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    strict_words: tuple[str, ...] = ()
    sub_words: tuple[str, ...] = ()
    hard_words: tuple[str, ...] = ()
    soft_words: tuple[str, ...] = ()
    min_soft_words: int = 2
    allow_domains: tuple[str, ...] = ()
    drop_ip_hosts: bool = True  # pages under a bare address are mostly machines, staging sites and spam

    def files(self) -> list[Path]:
        """The files whose content decides, for the stage's fingerprint."""
        words = self.strict_words + self.sub_words + self.hard_words + self.soft_words
        given = ((self.domains + self.allow_domains, HOST), (self.urls, URL), (words, WORD))
        return [path for entries, kind in given for path in list_files(entries, kind)]


@batch_stage(version=2)
def url_filter(docs: pa.RecordBatch, cfg: UrlConfig) -> pa.RecordBatch:
    """Drop documents by their `url` alone; see the module's table. Raises UserError for a list that cannot be read."""
    for rule, hits in url_hits(docs["url"], cfg).items():
        if hits:
            where, values = np.zeros(docs.num_rows, np.bool_), np.zeros(docs.num_rows)
            entries: list[str | None] = [None] * docs.num_rows
            for row, value, entry in hits:
                where[row], values[row], entries[row] = True, value, entry
            docs = drop(docs, pa.array(where), f"url.{rule}", pa.array(values), _bound(rule, cfg), entry=entries)
    return docs


def url_hits(urls: pa.Array, cfg: UrlConfig) -> dict[str, list[Hit]]:
    """Per rule, in the order of the rules, every row that breaks it. `urls`: string or large_string; null and "" break none."""
    lists = _lists(cfg)
    urls = urls.cast(pa.large_string()).fill_null("")
    text, offsets = _buffers(urls)
    odd = irregular(text, offsets)
    odd_hosts = np.flatnonzero(odd == IN_HOST)
    names = [_split(url) for url in urls.take(pa.array(odd_hosts)).to_pylist()]
    plain, plain_offsets = text, offsets
    if names:
        hosts = pa.array([f"{before}{ascii_host(name)}{after}" for before, name, after in names], pa.large_string())
        plain, plain_offsets = _buffers(pc.replace_with_mask(urls, pa.array(odd == IN_HOST), hosts))
    state, starts, domains, pages = _scan_hosts(plain, plain_offsets, lists.allow.table, lists.domains.table, lists.urls.table)
    starts += offsets[:-1] - plain_offsets[:-1]  # in the URLs as they came, for those with a plain host
    state[np.diff(offsets) == 0] = _PASS
    open_ = (state == _HOST) | (state == _IP_HOST)

    hits: dict[str, list[Hit]] = {rule: [] for rule in RULES}
    hits["no_host"] = [(row, 0.0, None) for row in np.flatnonzero(state == _NO_HOST).tolist()]
    if cfg.drop_ip_hosts:
        hits["ip_host"] = [(row, 1.0, None) for row in np.flatnonzero(state == _IP_HOST).tolist()]
    latin = np.full(len(urls), -1, np.int64)
    if names and len(lists.domains):
        latin[odd_hosts] = _latin_places([latin_host(name) or "" for _, name, _ in names], lists.domains)
    for rule, places, used in (
        ("domain", domains, lists.domains),
        ("homograph", latin, lists.domains),
        ("page", pages, lists.urls),
    ):
        for row in np.flatnonzero(open_ & (places >= 0)).tolist():
            hits[rule].append((row, 1.0, used.entry(int(places[row]))))
    if any(len(used) for used in lists.words):
        found = list(_word_places(urls, odd, starts, open_, lists))
        _add_word_hits(hits, found, lists, cfg.min_soft_words)
    return hits


def _bound(rule: str, cfg: UrlConfig) -> float:
    return {"no_host": 1.0, "soft_words": cfg.min_soft_words - 1.0}.get(rule, 0.0)


def _latin_places(names: list[str], domains: UrlList) -> Places:
    nothing = url_list((), HOST).table, url_list((), URL).table
    urls = _buffers(pa.array([f"//{name}" for name in names], pa.large_string()))
    _, _, places, _ = _scan_hosts(*urls, nothing[0], domains.table, nothing[1])
    return places  # type: ignore[no-any-return]


def _word_places(urls: pa.Array, odd: Bytes, starts: Places, open_: npt.NDArray[np.bool_], lists: _Lists) -> Iterator[Found]:
    """The listed words of the URLs: of plain ones from their bytes, of others from what `fold` makes of them, or Python."""
    tables = [used.table for used in lists.words]
    text, offsets = _buffers(urls)
    rows = np.flatnonzero(open_ & (odd == 0))
    yield from _found(rows, _scan_words(text, starts[rows], offsets[1:][rows], *tables))
    rows, left = np.flatnonzero(open_ & (odd == BEHIND)), np.flatnonzero(open_ & (odd == IN_HOST))
    if len(rows):
        folded, places, in_context = fold(text, starts[rows], offsets[1:][rows], fold_table())
        folded.flags.writeable = False
        good = ~in_context
        yield from _found(rows[good], _scan_words(folded, places[:-1][good], places[1:][good], *tables))
        left = np.concatenate([left, rows[in_context]])
    if len(left):
        texts = [_words(url) for url in urls.take(pa.array(left)).to_pylist()]
        text, offsets = _buffers(pa.array(texts, pa.large_string()))
        yield from _found(left, _scan_words(text, offsets[:-1].copy(), offsets[1:].copy(), *tables))


def _found(rows: Places, found: tuple[Places, Bytes, Places]) -> Iterator[Found]:
    return zip(rows[found[0]].tolist(), found[1].tolist(), found[2].tolist(), strict=True)


def broken_rule(url: str, cfg: UrlConfig) -> tuple[str, float, float, str | None] | None:
    """The first rule that a URL breaks, with value, bound and entry; None for a good one."""
    for rule, hits in url_hits(pa.array([url], pa.large_string()), cfg).items():
        for _, value, entry in hits:
            return rule, value, _bound(rule, cfg), entry
    return None


def host(url: str) -> str:
    """The host in lower case as IDNA ASCII without a final dot; "" where there is none."""
    return ascii_host(_split(url)[1])


@dataclass(frozen=True)
class _Lists:
    allow: UrlList
    domains: UrlList
    urls: UrlList
    words: tuple[UrlList, UrlList, UrlList, UrlList]  # strict, sub, hard, soft


def _lists(cfg: UrlConfig) -> _Lists:
    words = tuple(url_list(given, WORD) for given in (cfg.strict_words, cfg.sub_words, cfg.hard_words, cfg.soft_words))
    return _Lists(url_list(cfg.allow_domains, HOST), url_list(cfg.domains, HOST), url_list(cfg.urls, URL), words)  # type: ignore[arg-type]


def _add_word_hits(hits: dict[str, list[Hit]], found: Iterable[Found], lists: _Lists, min_soft_words: int) -> None:
    by_row: dict[tuple[int, int], set[int]] = {}
    for row, kind, place in found:
        by_row.setdefault((kind, row), set()).add(place)
    for (kind, row), places in sorted(by_row.items()):
        rule = ("strict_word", "sub_word", "hard_word", "soft_words")[kind]
        if rule != "soft_words" or len(places) >= min_soft_words:
            names = sorted(lists.words[kind].entry(place) for place in places)
            hits[rule].append((row, float(len(places)), ", ".join(names)))


def _split(url: str) -> tuple[str, str, str]:
    """What comes before the host, the host without escapes, what comes after it."""
    raw = url.encode()
    text = np.frombuffer(raw, np.uint8)
    start, end = strip(text, 0, len(raw))
    authority = after_scheme(text, start, end)
    first, last, _ = host_span(text, authority, end) if authority >= 0 else (end, end, end)
    return raw[:first].decode(), unquote(raw[first:last].decode()), raw[last:].decode()


def _words(url: str) -> str:
    """The words of a URL with blanks between."""
    _, name, rest = _split(url)
    return latin_words(fold_words(f"{unicode_host(name)} {unquote(rest)}"))


def _buffers(urls: pa.Array) -> tuple[Bytes, Places]:
    """The bytes of a large_string array and its offsets, shape (rows + 1,), both read-only."""
    _, offsets, data = urls.buffers()
    places = np.frombuffer(offsets, np.int64)[urls.offset : urls.offset + len(urls) + 1] if offsets else np.zeros(1, np.int64)
    text = np.frombuffer(data if data is not None else b"", np.uint8)
    text.flags.writeable = places.flags.writeable = False  # whatever Arrow says: one type for the kernels
    return text, places


# --- kernels ------------------------------------------------------------------------------------------------------------


@kernel
def _scan_hosts(text: Bytes, offsets: Places, allow: Table, domains: Table, urls: Table):  # type: ignore[no-untyped-def]
    """Of each URL: its state, where its host begins, and the places in `domains` and `urls` that it hits, -1 for none."""
    rows = len(offsets) - 1
    state, starts = np.full(rows, _HOST, np.uint8), offsets[:-1].copy()
    in_domains, in_urls = np.full(rows, -1, np.int64), np.full(rows, -1, np.int64)
    longest = 8
    for row in range(rows):
        longest = max(longest, offsets[row + 1] - offsets[row] + 8)
    out = np.empty(longest, np.uint8)
    scratch = np.empty(max(allow.longest, domains.longest, urls.longest) + 8, np.uint8)
    for row in range(rows):
        start, end = strip(text, offsets[row], offsets[row + 1])
        authority = after_scheme(text, start, end)
        if authority < 0:
            state[row] = _NO_HOST
            continue
        first, last, _ = host_span(text, authority, end)
        size = put_host(text, first, last, out)
        starts[row] = first
        if size == 0:
            state[row] = _NO_HOST
            continue
        if is_address(out, size):
            state[row] = _IP_HOST
        h, power = np.uint64(0), np.uint64(1)  # of out[at:size], grown from its end
        for at in range(size - 1, -1, -1):
            h += (np.uint64(out[at]) + np.uint64(1)) * power
            power *= FACTOR
            if at == 0 or out[at - 1] == 46:
                if len(domains.places):
                    place = find(domains, out, at, size, h, scratch, scratch)
                    if place >= 0:
                        in_domains[row] = place  # the longest listed one stands
                if len(allow.places) and find(allow, out, at, size, h, scratch, scratch) >= 0:
                    state[row] = _PASS
        if len(urls.places):
            size = put_url(text, start, end, out)
            h = np.uint64(0)
            for at in range(size):
                h = step(h, out[at])
            in_urls[row] = find(urls, out, 0, size, h, scratch, scratch)
    return state, starts, in_domains, in_urls


@kernel
def _scan_words(text: Bytes, starts: Places, ends: Places, strict: Table, sub: Table, hard: Table, soft: Table):  # type: ignore[no-untyped-def]
    """The listed words of each span: (row, number of the list, place) as three arrays. Of `strict` and `sub` the first only."""
    longest = 8
    for row in range(len(ends)):
        longest = max(longest, ends[row] - starts[row] + 8)
    out, begins, prefixes = np.empty(longest, np.uint8), np.empty(longest, np.uint8), np.zeros(longest, np.uint64)
    size = max(strict.longest, sub.longest, hard.longest, soft.longest) + 8
    scratch, unused = np.empty(size, np.uint8), np.empty(size, np.uint8)
    rows, kinds, places = np.empty(256, np.int64), np.empty(256, np.uint8), np.empty(256, np.int64)
    count = 0
    for row in range(len(ends)):
        size = put_words(text, starts[row], ends[row], out, begins)
        for at in range(size):
            prefixes[at + 1] = step(prefixes[at], out[at])
        if count + size + 2 > len(rows):
            more = len(rows) + size + 2
            rows = np.concatenate((rows, np.empty(more, np.int64)))
            kinds = np.concatenate((kinds, np.empty(more, np.uint8)))
            places = np.concatenate((places, np.empty(more, np.int64)))
        if len(strict.places):
            place = _first_inside(strict, out, prefixes, 0, size, scratch, unused)
            if place >= 0:
                rows[count], kinds[count], places[count] = row, 0, place
                count += 1
        start, seen = 0, False
        while start < size:
            end = start + 1
            while end < size and not begins[end]:
                end += 1
            if len(sub.places) and not seen:
                place = _first_inside(sub, out, prefixes, start, end, scratch, unused)
                if place >= 0:
                    rows[count], kinds[count], places[count] = row, 1, place
                    count += 1
                    seen = True
            if end - start <= MAX_WORD:
                h = part(prefixes, start, end)
                if len(hard.places):
                    place = find(hard, out, start, end, h, scratch, unused)
                    if place >= 0:
                        rows[count], kinds[count], places[count] = row, 2, place
                        count += 1
                if len(soft.places):
                    place = find(soft, out, start, end, h, scratch, unused)
                    if place >= 0:
                        rows[count], kinds[count], places[count] = row, 3, place
                        count += 1
            start = end
    return rows[:count].copy(), kinds[:count].copy(), places[:count].copy()


@kernel
def _first_inside(
    table: Table, out: Bytes, prefixes: npt.NDArray[np.uint64], start: int, end: int, scratch: Bytes, unused: Bytes
) -> int:
    """The place of the first entry that is a part of out[start:end]; -1 where there is none."""
    lengths, firsts = table.lengths, table.firsts
    for at in range(start, end - lengths[0] + 1):
        if not firsts[first_bits(part(prefixes, at, at + lengths[0]))]:
            continue
        for length in lengths:
            if at + length > end:
                break
            place = find(table, out, at, at + length, part(prefixes, at, at + length), scratch, unused)
            if place >= 0:
                return place
    return -1
