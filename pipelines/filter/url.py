"""Rules on a page's address, as in RefinedWeb (arXiv 2306.01116, G.1): whole hosts, then words of the URL.

| rule | drops a URL |
|---|---|
| `url.no_host` | that has no host at all |
| `url.ip_host` | whose host is an address in numbers |
| `url.domain` | whose host is a listed domain or below one |
| `url.strict_word` | that contains a listed string anywhere, blanks and punctuation aside |
| `url.hard_word` | of which one word is listed |
| `url.soft_words` | of which at least `min_soft_words` different words are listed |

No list is built in: a list is the user's own, as a tuple in the recipe or a file with one entry a line (`#` starts a comment).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from pipelines.errors import UserError
from pipelines.recipe import batch_stage
from pipelines.schema import drop

_SEPARATORS = re.compile(r"[\W_]+")
_AUTHORITY = re.compile(r"^(?:[a-zA-Z][a-zA-Z0-9+.-]*:)?//(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*)")
RULES = ("no_host", "ip_host", "domain", "strict_word", "hard_word", "soft_words")


@dataclass(frozen=True)
class UrlConfig:
    """Lists are entries or `file:PATH` (one entry a line). Documents without a URL pass."""

    domains: tuple[str, ...] = ()
    strict_words: tuple[str, ...] = ()
    hard_words: tuple[str, ...] = ()
    soft_words: tuple[str, ...] = ()
    min_soft_words: int = 2
    drop_ip_hosts: bool = True  # pages under a bare address are mostly machines, staging sites and spam


def host(url: str) -> str:
    """The host in lower case as IDNA ASCII without a final dot; "" where there is none."""
    match = _AUTHORITY.match(url.strip())
    name = unquote(match[1]).rstrip(".").lower() if match else ""
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return name


def url_words(url: str) -> list[str]:
    """The words of a URL: percent escapes decoded, lower case, split at everything that is no letter or digit."""
    return [word for word in _SEPARATORS.split(unquote(url).lower()) if word]


def broken_rule(url: str, cfg: UrlConfig) -> tuple[str, float, float, str | None] | None:
    """The first rule that a URL breaks, with value, bound and the entry that was hit; None for a good one."""
    name = host(url)
    if not name:
        return "no_host", 0.0, 1.0, None
    if cfg.drop_ip_hosts and _is_ip(name):
        return "ip_host", 1.0, 0.0, None
    domains = _entries(cfg.domains, True)
    labels = name.split(".")
    for listed in (".".join(labels[i:]) for i in range(len(labels)) if domains):
        if listed in domains:
            return "domain", 1.0, 0.0, listed
    words = url_words(url)
    strict = _strict_pattern(cfg.strict_words)
    if strict is not None and (match := strict.search("".join(words))):
        return "strict_word", 1.0, 0.0, match[0]
    found = set(words)
    if hard := found & _entries(cfg.hard_words, False):
        return "hard_word", float(len(hard)), 0.0, ", ".join(sorted(hard))
    soft = found & _entries(cfg.soft_words, False)
    if cfg.soft_words and len(soft) >= cfg.min_soft_words:
        return "soft_words", float(len(soft)), float(cfg.min_soft_words - 1), ", ".join(sorted(soft))
    return None


@batch_stage()
def url_filter(docs: pa.RecordBatch, cfg: UrlConfig) -> pa.RecordBatch:
    """Drop documents by their `url` alone; see the module's table. Raises UserError for a list that cannot be read."""
    broken = [broken_rule(url, cfg) if url else None for url in docs["url"].to_pylist()]
    for rule in RULES:
        where = [b is not None and b[0] == rule for b in broken]
        if any(where):
            values = pa.array([b[1] if b else None for b in broken], pa.float64())
            bounds = pa.array([b[2] if b else None for b in broken], pa.float64())
            entries = pa.array([b[3] if b else None for b in broken], pa.string())
            docs = drop(docs, where, f"url.{rule}", values, bounds, entry=entries)
    return docs


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        # one number, or octal and hexadecimal parts: what browsers also take for an address
        return bool(re.fullmatch(r"(?:0x[0-9a-f]+|\d+)(?:\.(?:0x[0-9a-f]+|\d+))*", name))
    return True


@lru_cache(maxsize=64)
def _entries(given: tuple[str, ...], as_host: bool) -> frozenset[str]:
    entries: list[str] = []
    for entry in given:
        if entry.startswith("file:"):
            path = Path(entry.removeprefix("file:"))
            try:
                lines = path.read_text("utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"URL list {str(path)!r} cannot be read: {error}; give one entry a line in UTF-8") from error
            entries += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        else:
            entries.append(entry)
    return frozenset(host(f"//{entry}") if as_host else "".join(url_words(entry)) for entry in entries)


@lru_cache(maxsize=16)
def _strict_pattern(given: tuple[str, ...]) -> re.Pattern[str] | None:
    words = _entries(given, False)
    return re.compile("|".join(re.escape(word) for word in sorted(words))) if words else None
