"""What counts as the same text and as the same address (pure: no Spark)."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from urllib.parse import parse_qsl, urlencode, urlsplit

import pyarrow as pa

# Parameters that name a visit, not a page.
_VISIT = re.compile(r"utm_\w+|[gdy]clid|fbclid|msclkid|mc_[ce]id|igshid|(php|j|asp)?sess(ion)?id\w*", re.I)
_PORTS = {"http": 80, "https": 443}


def text_digests(texts: pa.Array) -> pa.Array:
    """16-byte BLAKE2b of each text in NFC with every run of blanks one space and none at the ends; null for an empty one."""
    return pa.array([_text_digest(t) for t in texts.to_pylist()], pa.binary())


def canonical_url(url: str) -> str:
    """One form for the addresses of one page.

    Scheme, `www.`, default port, fragment, user, a trailing slash, and parameters that name a visit do not count; the host's
    case and the order of parameters neither. A text that is no address is returned without blanks at its ends.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").removeprefix("www.").rstrip("."), parts.port
    except ValueError:
        return url
    if not host:
        return url
    where = host if port is None or port == _PORTS.get(parts.scheme.lower()) else f"{host}:{port}"
    pairs = sorted((k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not _VISIT.fullmatch(k))
    return f"{where}{parts.path.rstrip('/')}" + (f"?{urlencode(pairs)}" if pairs else "")


def url_digests(urls: pa.Array) -> pa.Array:
    """16-byte BLAKE2b of each canonical address; null for a null or empty one."""
    return pa.array([_digest(canonical_url(u)) if u and u.strip() else None for u in urls.to_pylist()], pa.binary())


def _text_digest(text: str | None) -> bytes | None:
    folded = " ".join(unicodedata.normalize("NFC", text).split()) if text else ""
    return _digest(folded) if folded else None


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
