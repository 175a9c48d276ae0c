"""E-mail and public IP addresses, in running text of any script."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

# No \b: between a Chinese character and a letter there is none.
_LOCAL = r"[A-Za-z0-9\u00c0-\u024f](?:[A-Za-z0-9\u00c0-\u024f!#$%&'*+/=?^_`{|}~-]|\.(?=[A-Za-z0-9_+-]))*"
_LABEL = r"[A-Za-z0-9\u00c0-\u024f](?:[A-Za-z0-9\u00c0-\u024f-]{0,61}[A-Za-z0-9\u00c0-\u024f])?"
_EMAIL = re.compile(
    rf"(?<=@)((?:{_LABEL}\.){{1,8}}(?:[A-Za-z]{{2,24}}|xn--[A-Za-z0-9-]{{2,59}}))(?![A-Za-z0-9_\u00c0-\u024f]|-[A-Za-z0-9])"
)
_LOCAL_END = re.compile(rf"(?:{_LOCAL}|_{_LOCAL})$")
_BEFORE_AT = re.compile(r"[A-Za-z0-9\u00c0-\u024f!#$%&'*+/=?^_`{|}~.-]{1,64}$")
_FILES = frozenset(
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "bmp", "ico", "css", "js", "ts", "json", "html", "php", "py", "txt"]
)

_IPV4 = re.compile(r"(?<![0-9A-Za-z_])(?<![0-9A-Za-z][.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z_]|[.-][0-9A-Za-z])")
_IPV6 = re.compile(
    r"(?<![0-9A-Za-z_:.])[0-9A-Fa-f]{1,4}:(?:[0-9A-Fa-f]{0,4}:){1,6}"
    r"(?:[0-9A-Fa-f]{1,4}|(?:[0-9]{1,3}\.){3}[0-9]{1,3})?(?![0-9A-Za-z_:])"
)
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
# Four numbers with points are a version or a heading where one of these stands shortly before.
_VERSION = re.compile(
    r"(?:\bv|\bver(?:sion|sione|si\u00f3n|s\u00e3o|sie|ze)?s?|\brelease|\bbuild|\bfirmware|\bkernel|\bdriver|\bupgrad\w*|\bupdat\w*"
    r"|\bsection|\bchapter|\bclause|\bfigure|\btable|\babschnitt|\bkapitel|\u00a7|\bwindows|\bios|\bmacos|\bandroid|\bchrome/?"
    r"|\u7248\u672c\w?|\u5347\u7ea7\w*|\u30d0\u30fc\u30b8\u30e7\u30f3|\ubc84\uc804|\u0432\u0435\u0440\u0441\u0438\w+)[\s:=.#\u53f7\u865f\uff1a]*(?:[\w.]+\s+){0,3}$",
    re.IGNORECASE,
)


# Four numbers below this are headings and versions far more often than addresses (1 address in 4,096 is so).
_SMALL = 32
_NETWORK = re.compile(r"(?:\bips?\b|address|adresse|host|server|ping|dns|client|://|@|\u5730\u5740)[^\n]{0,16}$", re.IGNORECASE)


def find_emails(text: str) -> Iterator[tuple[int, int]]:
    """Spans of e-mail addresses. `user@host:path` of scp and git, and file names like `logo@2x.png`, are none."""
    for match in _EMAIL.finditer(text):
        at = match.start() - 1
        before = _BEFORE_AT.search(text, max(0, at - 64), at)
        local = _LOCAL_END.search(before[0]) if before else None
        if before is None or local is None or match[0].rpartition(".")[2].lower() in _FILES:
            continue
        if text[match.end() : match.end() + 1] == ":" and re.match(r":[A-Za-z~/]", text[match.end() : match.end() + 2]):
            continue
        yield before.start() + local.start(), match.end()


def find_ips(text: str) -> Iterator[tuple[int, int]]:
    """Spans of public IPv4 and IPv6 addresses; private, loopback, documentation and reserved ones are left, and versions."""
    for match in _IPV4.finditer(text):
        before = text[max(0, match.start() - 40) : match.start()]
        if _is_public(match[0]) and not _VERSION.search(before) and not (_small(match[0]) and not _NETWORK.search(before)):
            yield match.span()
    for match in _IPV6.finditer(text):
        if _is_public(match[0]):
            yield match.span()


def _small(text: str) -> bool:
    return all(int(part) < _SMALL for part in text.split("."))


def _is_public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and (address.version == 4 or address in _GLOBAL_V6)
