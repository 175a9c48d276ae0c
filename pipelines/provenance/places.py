"""From a URL, a domain or a doc_id to the places in the shards: which rows of which files, and where in their streams.

URLs are read from the provenance beside the shards, of which two columns are decoded in pieces; where there is none, from the
last table of the run. A doc_id alone is found by binary search.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tld import get_tld

from pipelines.errors import UserError
from pipelines.filter.hosts import unicode_host
from pipelines.filter.kernels.url_text import put_url, strip
from pipelines.filter.url import host
from pipelines.filter.url_lists import with_ascii_host
from pipelines.lookup import tables
from pipelines.rundir import RunDir, read_json
from pipelines.schema import KEPT
from pipelines.shards import ShardError, ShardFile, Shards, Span, TokenStream

BATCH_ROWS = 1 << 16
_DOC_ID = re.compile("[0-9a-fA-F]{32}")
_AUTHORITY = r"^[\x00-\x20]*(?P<authority>(?:[a-z][a-z0-9+.-]*:)?[/\\]*[^/\\?#]*)"  # of a URL in lower case, as far as its host
_PLAIN = re.compile(r"(?:https?://)?([a-z0-9.-]+)(?::[0-9]*)?")


@dataclass(frozen=True)
class Wanted:
    """Documents asked for: `urls` by their canonical form, `domains` as IDNA ASCII (with all below them), doc_ids."""

    urls: dict[str, str]  # canonical form -> as it was given
    domains: frozenset[str]
    doc_ids: frozenset[bytes]

    def mask(self, doc_ids: pa.Array, urls: pa.Array) -> np.ndarray:
        """Shape (rows,): the documents that are meant. Python sees each host once, and the pages of hosts in question."""
        found = np.zeros(len(urls), bool)
        if self.doc_ids:
            found |= pc.is_in(doc_ids, pa.array(sorted(self.doc_ids), pa.binary())).to_numpy(zero_copy_only=False)
        if not (self.urls or self.domains):
            return found
        coded = pc.extract_regex(pc.ascii_lower(urls.fill_null("")), _AUTHORITY).field("authority").dictionary_encode()
        hosts = [_host_of(authority) for authority in coded.dictionary.to_pylist()]
        rows = coded.indices.to_numpy()
        if self.domains:
            found |= np.array([self._domain(name) is not None for name in hosts], bool)[rows]
        if pages := {_page_host(page) for page in self.urls}:
            near = np.array([name.removeprefix("www.") in pages or name in pages for name in hosts], bool)[rows]
            for row in np.flatnonzero(near & ~found).tolist():
                found[row] = canonical(urls[row].as_py()) in self.urls
        return found

    def reason(self, doc_id: bytes, url: str | None) -> str:
        """Why a document is meant: the URL or domain as it was given, or its doc_id."""
        if url and (given := self.urls.get(canonical(url))) is not None:
            return f"url {given}"
        domain = self._domain(_host_of(url)) if url else None
        return f"domain {domain}" if domain is not None else f"doc_id {doc_id.hex()}"

    def _domain(self, name: str) -> str | None:
        labels = name.split(".")
        return next((d for i in range(len(labels)) if (d := ".".join(labels[i:])) in self.domains), None)

    def all_reasons(self) -> list[str]:
        """Every reason that there can be."""
        return [
            *(f"url {url}" for url in self.urls.values()),
            *(f"domain {domain}" for domain in sorted(self.domains)),
            *(f"doc_id {doc_id.hex()}" for doc_id in sorted(self.doc_ids)),
        ]


@dataclass(frozen=True)
class Place:
    """A document of the shards: row `row` of `file`, tokens [start, start + length) of the stream of its source and split."""

    doc_id: bytes
    url: str | None
    source: str
    split: str
    file: str
    row: int
    start: int
    length: int
    reason: str


def wanted(
    urls: Iterable[str] = (), domains: Iterable[str] = (), doc_ids: Iterable[str] = (), listed: Path | None = None
) -> Wanted:
    """What is asked for; `listed`: a file with one URL, domain or doc_id a line. Raises UserError for what is none of them."""
    asked = [*(("url", u) for u in urls), *(("domain", d) for d in domains), *(("doc_id", i) for i in doc_ids)]
    if listed is not None:
        asked += _listed(listed)
    by_url, hosts, ids = dict[str, str](), set[str](), set[bytes]()
    for kind, text in asked:
        if kind == "url":
            page = canonical(text)
            named = page.startswith("[") or "." in page.partition("/")[0]
            by_url[_checked(page if named else "", text, "a URL, e.g. https://site.example/page")] = text
        elif kind == "domain":
            hosts.add(_domain(text))
        else:
            ids.add(bytes.fromhex(_checked(text if _DOC_ID.fullmatch(text) else "", text, "a doc_id of 32 hex digits")))
    return Wanted(by_url, frozenset(hosts), frozenset(ids))


def canonical(url: str) -> str:
    """The form in which two URLs are one (url_text.put_url); "" where there is no host."""
    if not url.strip():
        return ""
    raw = with_ascii_host(url.strip().encode())
    text, out = np.frombuffer(raw, np.uint8), np.empty(3 * len(raw) + 8, np.uint8)
    start, end = strip(text, 0, len(raw))
    return out[: put_url(text, start, end, out)].tobytes().decode("utf-8", "replace")


def _host_of(url: str) -> str:
    """The host of a URL, or of its beginning, with or without a scheme; hosts of plain letters without the kernel's help."""
    if plain := _PLAIN.fullmatch(url):
        return plain[1].rstrip(".")
    return host(url if "//" in url or "\\" in url else f"http://{url}")


def _page_host(page: str) -> str:
    """The host of a URL in canonical form."""
    return re.sub(r":[0-9]*$", "", re.split("[/?]", page, maxsplit=1)[0])


def _listed(path: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {str(path)!r} cannot be read: {error}") from error
    for line in filter(None, (line.strip() for line in lines)):
        if not line.startswith("#"):
            yield ("doc_id" if _DOC_ID.fullmatch(line) else "url" if "/" in line else "domain"), line


def _domain(text: str) -> str:
    name = _host_of(text.strip().lower().removeprefix("*").removeprefix("."))
    _checked(name if "." in name else "", text, "a domain, e.g. site.example")
    below: Any = get_tld(f"http://x.{unicode_host(name)}/", as_object=True, fail_silently=True)
    if below is not None and below.tld == unicode_host(name):
        raise UserError(f"{text!r} is a public suffix, below which anybody registers; name the domain below it")
    return name


def _checked(value: str, text: str, what: str) -> str:
    if not value:
        raise UserError(f"{text!r} is not {what}")
    return value


def shard_folder(path: str | Path) -> Path:
    """OUT/shards of a run directory, or the folder itself."""
    return below if (below := Path(path) / "shards").is_dir() else Path(path)


def find(shards: Shards, asked: Wanted, advance: Callable[[int], object] = lambda _: None) -> list[Place]:
    """The documents asked for that the shards hold, taken down or not, in the order of the streams.

    `advance` hears of rows of provenance that were read. Memory: what is found and one piece of provenance.
    Raises UserError where URLs are asked for and neither provenance nor a run's table says them.
    """
    told = [file for file in shards.manifest.files if file.provenance] if asked.urls or asked.domains else []
    found = dict[tuple[str, int], Place]()
    for file in told:
        stream, first = shards.stream(file.source, file.split), 0
        with _provenance(shards, file.provenance_path) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS, columns=["doc_id", "url"]):
                rows = np.flatnonzero(asked.mask(batch["doc_id"], batch["url"]))
                for place in _at_rows(stream, asked, file, first + rows, batch.take(rows)) if len(rows) else ():
                    found[place.file, place.row] = place
                first += batch.num_rows
                advance(batch.num_rows)
    untold = len(told) < len(shards.manifest.files)
    pairs: dict[bytes, str | None] = dict.fromkeys(asked.doc_ids) if untold else {}
    if untold and (asked.urls or asked.domains):
        pairs |= _in_last_table(shards.root, asked)
    for source, split in sorted({(f.source, f.split) for f in shards.manifest.files}) if pairs else []:
        stream = shards.stream(source, split)
        for doc_id, url in sorted(pairs.items()):
            for span, start, length in _copies(stream, doc_id):
                reason = asked.reason(doc_id, url)
                place = Place(doc_id, url, source, split, span.file, span.row, start, length, reason)
                found.setdefault((span.file, span.row), place)
    return sorted(found.values(), key=lambda p: (p.source, p.split, p.start))


def _copies(stream: TokenStream, doc_id: bytes) -> Iterator[tuple[Span, int, int]]:
    """A document and, where nobody removed duplicates, its copies, which lie beside it."""
    if (at := stream.locate(doc_id)) is None:
        return
    low = high = at[0]
    while low > 0 and (before := stream.documents(low - 1, 1)[0]).doc_id == doc_id:
        low -= before.start + 1
    while high < stream.n_tokens and (span := stream.documents(high, 1)[0]).doc_id == doc_id:
        high += stream.places(span.file, [span.row])[1].item()
    while low < high:
        (span,) = stream.documents(low, 1)
        length = stream.places(span.file, [span.row])[1].item()
        yield span, low, length
        low += length


def with_urls(shards: Shards, places: list[Place]) -> list[Place]:
    """The same with the URLs that provenance tells, for places found by doc_id."""
    told = {file.path for file in shards.manifest.files if file.provenance}
    rows: dict[str, list[int]] = {}
    for place in places:
        if place.url is None and place.file in told:
            rows.setdefault(place.file, []).append(place.row)
    urls = {
        (file, row): page["url"]
        for file, of_file in rows.items()
        for row, page in zip(of_file, provenance(shards, file, of_file, ["url"]), strict=True)
    }
    return [replace(place, url=urls.get((place.file, place.row), place.url)) for place in places]


def provenance(shards: Shards, file: str, rows: list[int], columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Rows of the provenance of a shard that has one, in the order asked for; only their row groups are read."""
    listed = next(f for f in shards.manifest.files if f.path == file)
    with _provenance(shards, listed.provenance_path) as parquet:
        ends = np.cumsum([parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)])
        groups = np.searchsorted(ends, rows, "right").tolist()
        found: dict[int, dict[str, Any]] = {}
        for group in sorted(set(groups)):
            here = [row for row, g in zip(rows, groups, strict=True) if g == group]
            start = int(ends[group]) - parquet.metadata.row_group(group).num_rows
            table = parquet.read_row_group(group, columns).take([row - start for row in here])
            found |= dict(zip(here, table.to_pylist(), strict=True))
    return [found[row] for row in rows]


def _provenance(shards: Shards, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(shards.root / path)
    except (OSError, pa.ArrowException) as error:
        raise ShardError(f"{shards.root / path}: cannot be read ({error}); python -m pipelines verify {shards.root}") from error


def _at_rows(stream: TokenStream, asked: Wanted, file: ShardFile, rows: np.ndarray, told: pa.RecordBatch) -> Iterator[Place]:
    starts, lengths = stream.places(file.path, rows)
    for row, start, length, page in zip(rows.tolist(), starts.tolist(), lengths.tolist(), told.to_pylist(), strict=True):
        (span,) = stream.documents(start, 1)
        if span != Span(page["doc_id"], file.path, row, 0, 1):
            raise ShardError(f"the provenance of {file.path} tells of another document at row {row} than the shard holds")
        reason = asked.reason(page["doc_id"], page["url"])
        yield Place(page["doc_id"], page["url"], file.source, file.split, file.path, row, start, length, reason)


def _in_last_table(root: Path, asked: Wanted) -> dict[bytes, str | None]:
    """doc_ids and URLs of what the run kept and is asked for."""
    rundir = RunDir(root.parent)
    made = list(tables(rundir, read_json(rundir.plan))) if rundir.plan.is_file() else []
    if not made:
        raise UserError(
            f"{root} has no provenance, and no tables of its run lie beside it: nobody knows its URLs; give doc_ids"
        )
    found: dict[bytes, str | None] = {}
    for batch in made[-1][1].to_batches(columns=["doc_id", "url"], filter=pc.field("outcome") == KEPT):
        here = batch.filter(pa.array(asked.mask(batch["doc_id"], batch["url"])))
        found |= dict(zip(here["doc_id"].to_pylist(), here["url"].to_pylist(), strict=True))
    return found
