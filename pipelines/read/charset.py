"""Bytes of a page to text: byte order mark, declarations and evidence, in the order in which they are to be believed.

A declaration stands unless the bytes speak against it. Sources: WHATWG Encoding Standard (labels, 4.2; decoders) and HTML
Standard 13.2.3 (prescan); detection is that of uchardet, through cchardet.
"""

from __future__ import annotations

import codecs
import re

import cchardet

PRESCAN = 4096  # bytes; the standard asks for 1024, pages put scripts first
DETECT = 1 << 18  # bytes
MIN_HIGH = 40  # fewer bytes above 127 than this are no ground to doubt a declaration that fits
FEW_HIGH = 8  # fewer than this do not tell one Latin charset from the other
CONFIDENT = 0.6

# WHATWG name: Python codec | labels beyond the name (a label counts without case; "_" and "-" are told apart)
_TABLE = """
utf-8: utf_8 | unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf8 x-unicode20utf8 utf-8-sig
ibm866: cp866 | 866 cp866 csibm866
ibm855: cp855 | cp855 855 csibm855
iso-8859-2: iso8859_2 | csisolatin2 iso-ir-101 iso8859-2 iso88592 iso_8859-2 iso_8859-2:1987 l2 latin2
iso-8859-3: iso8859_3 | csisolatin3 iso-ir-109 iso8859-3 iso88593 iso_8859-3 iso_8859-3:1988 l3 latin3
iso-8859-4: iso8859_4 | csisolatin4 iso-ir-110 iso8859-4 iso88594 iso_8859-4 iso_8859-4:1988 l4 latin4
iso-8859-5: iso8859_5 | csisolatincyrillic cyrillic iso-ir-144 iso8859-5 iso88595 iso_8859-5 iso_8859-5:1988
iso-8859-6: iso8859_6 | arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6-e iso-8859-6-i
  iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987
iso-8859-7: iso8859_7 | csisolatingreek ecma-118 elot_928 greek greek8 iso-ir-126 iso8859-7 iso88597 iso_8859-7
  iso_8859-7:1987 sun_eu_greek
iso-8859-8: iso8859_8 | csiso88598e csisolatinhebrew hebrew iso-8859-8-e iso-ir-138 iso8859-8 iso88598 iso_8859-8
  iso_8859-8:1988 visual csiso88598i iso-8859-8-i logical
iso-8859-10: iso8859_10 | csisolatin6 iso-ir-157 iso8859-10 iso885910 l6 latin6
iso-8859-13: iso8859_13 | iso8859-13 iso885913
iso-8859-14: iso8859_14 | iso8859-14 iso885914
iso-8859-15: iso8859_15 | csisolatin9 iso8859-15 iso885915 iso_8859-15 l9
iso-8859-16: iso8859_16 |
koi8-r: koi8_r | cskoi8r koi koi8 koi8_r
koi8-u: koi8_u | koi8-ru
macintosh: mac_roman | csmacintosh mac x-mac-roman
x-mac-cyrillic: mac_cyrillic | x-mac-ukrainian maccyrillic mac-cyrillic
windows-874: cp874 | dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 tis620
windows-1250: cp1250 | cp1250 x-cp1250
windows-1251: cp1251 | cp1251 x-cp1251 win-1251 win1251
windows-1252: cp1252 | ansi_x3.4-1968 ascii us-ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100 iso8859-1
  iso88591 iso_8859-1 iso_8859-1:1987 l1 latin1 x-cp1252 x-user-defined
windows-1253: cp1253 | cp1253 x-cp1253
windows-1254: cp1254 | cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9 iso_8859-9:1989 l5
  latin5 x-cp1254
windows-1255: cp1255 | cp1255 x-cp1255
windows-1256: cp1256 | cp1256 x-cp1256
windows-1257: cp1257 | cp1257 x-cp1257
windows-1258: cp1258 | cp1258 x-cp1258 viscii
gb18030: gb18030 | gbk chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 iso-ir-58 x-gbk cp936 gb-2312
hz-gb-2312: hz |
big5: big5hkscs | big5-hkscs cn-big5 csbig5 x-x-big5 big-5 cp950
euc-jp: euc_jp | cseucpkdfmtjapanese x-euc-jp eucjp euc_jp
iso-2022-jp: iso2022_jp_ext | csiso2022jp
shift_jis: cp932 | csshiftjis ms932 ms_kanji shift-jis sjis windows-31j x-sjis cp932 shiftjis
euc-kr: cp949 | cseuckr csksc56011987 iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989 ksc5601 ksc_5601 windows-949 uhc
  cp949 ks_c_5601
johab: johab | ms1361
utf-16le: utf_16_le | csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16
utf-16be: utf_16_be | unicodefffe
"""
CODECS: dict[str, str] = {}
LABELS: dict[str, str] = {}
for _line in _TABLE.strip().replace("\n  ", " ").splitlines():
    _name, _, _rest = _line.partition(": ")
    _codec, _, _labels = _rest.partition(" |")
    CODECS[_name] = _codec
    LABELS.update(dict.fromkeys((_name, *_labels.split()), _name))

LATIN = frozenset(
    [f"iso-8859-{n}" for n in (2, 3, 4, 10, 13, 14, 15, 16)] + [f"windows-125{n}" for n in (0, 2, 4, 7, 8)] + ["macintosh"]
)
MULTI_BYTE = frozenset(("gb18030", "hz-gb-2312", "big5", "euc-jp", "iso-2022-jp", "shift_jis", "euc-kr", "johab"))
BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16le"), (codecs.BOM_UTF16_BE, "utf-16be"))

_COMMENT = re.compile(rb"<!--.*?-->", re.S)
_XML = re.compile(rb"\s*<\?xml\s[^>]*?encoding\s*=\s*[\"']\s*([A-Za-z0-9._:-]+)", re.S)
_META = re.compile(rb"<meta[\s/][^>]*?charset\s*=\s*[\"']?\s*([A-Za-z0-9._:-]+)", re.I | re.S)
_HIGH = bytes(range(128, 256))
_ISO_2022 = re.compile(rb"\x1b(?:\$[@AB(]|\([BIJ])")


def decode(body: bytes, http_charset: str | None) -> tuple[str, str]:
    """`(text, WHATWG name of the charset)`; what does not fit becomes U+FFFD. `http_charset`: the HTTP header's label."""
    for bom, name in BOMS:
        if body.startswith(bom):
            return body[len(bom) :].decode(CODECS[name], "replace"), name
    name = find_charset(body, http_charset)
    return body.decode(CODECS[name], "replace"), name


def label_to_name(label: str | None) -> str | None:
    """The WHATWG name for a label, None for none or an unknown one."""
    return LABELS.get((label or "").strip().strip("\"'").lower())


def declared_in(body: bytes) -> str | None:
    """The charset a page declares in its own head (meta or XML declaration); one it could not be read in counts as utf-8."""
    head = body[:PRESCAN]
    found = _META.search(_COMMENT.sub(b"", head)) or _XML.match(head)
    name = label_to_name(found[1].decode("ascii")) if found else None
    return "utf-8" if name in ("utf-16le", "utf-16be") else name


def find_charset(body: bytes, http_charset: str | None) -> str:
    """The charset of a body without byte order mark."""
    wide = _wide(body)
    if wide:
        return wide
    declared = [n for n in (label_to_name(http_charset), declared_in(body)) if n and not n.startswith("utf-16")]
    if body.isascii():
        if _ISO_2022.search(body):
            return "iso-2022-jp"
        if "hz-gb-2312" in declared and b"~{" in body:
            return "hz-gb-2312"
        return declared[-1] if declared and declared[-1] not in MULTI_BYTE else "utf-8"
    if _is_utf8(body, declared):
        return "utf-8"
    legacy = [n for n in dict.fromkeys(declared) if n != "utf-8" and _fits(body, n)]
    return _by_evidence(body, legacy)


def _by_evidence(body: bytes, declared: list[str]) -> str:
    """One of the declared charsets (all of which fit), or what is detected where that speaks against them."""
    high = len(body) - len(body.translate(None, _HIGH))
    detected, confidence = _detect(body)
    if not declared:
        return "windows-1252" if detected is None or (high < FEW_HIGH and detected in LATIN) else detected
    if detected in declared:
        return detected
    if detected is not None and high >= MIN_HIGH and confidence >= CONFIDENT:
        latin = [n for n in declared if n in LATIN] if detected in LATIN else []  # which Latin it is, detection knows no better
        return latin[0] if latin else detected
    return declared[-1 if declared[0] == "windows-1252" else 0]


def _detect(body: bytes) -> tuple[str | None, float]:
    """What uchardet takes the body for, and how surely; of the halves where the whole does not fit its answer."""
    body = body[:DETECT]
    for part in (body, body[: len(body) // 2], body[len(body) // 2 :]):
        found = cchardet.detect(part)
        name = label_to_name(found["encoding"])
        if name is not None and name != "utf-8" and _fits(body, name):
            return name, found["confidence"] or 0.0
    return None, 0.0


def _wide(body: bytes) -> str | None:
    """UTF-16 without a mark: nearly every other byte of markup is zero."""
    head = body[:1024]
    if head.count(0) < len(head) // 4 or len(head) < 4:
        return None
    return "utf-16be" if head[0::2].count(0) > head[1::2].count(0) else "utf-16le"


def _is_utf8(body: bytes, declared: list[str]) -> bool:
    """Valid UTF-8, or nearly so (a page cut or spliced); a few two-byte letters alone may be a declared multi-byte charset."""
    try:
        text = body.decode()
        if len(text.encode("ascii", "ignore")) + 4 < len(text):
            return True
    except UnicodeDecodeError:
        text = body.decode("utf-8", "replace")
    high = [c for c in text if c > "\x7f"]
    errors = high.count("\ufffd")
    if errors == 0:
        few = len(high) <= 4 and max(high) < "\u0800"
        return not (few and any(n in MULTI_BYTE and _fits(body, n) for n in declared))
    return errors * 10 <= len(high) - errors


def _fits(body: bytes, name: str) -> bool:
    """Whether the body decodes, but for one in 200 characters above ASCII (a cut or spliced page) and at least one."""
    high = [c for c in body.decode(CODECS[name], "replace") if c > "\x7f"]
    errors = sum(c == "\ufffd" or c < "\xa0" for c in high)
    return errors <= max(1, len(high) // 200)
