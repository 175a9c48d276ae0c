"""Telephone numbers: shapes found by a pattern, judged by the numbering plans of the phonenumbers library.

A number in international form is one if its country code exists (its length need not be right: people mistype). One in
national form must look like a telephone number, not like a date, an amount, a table or a range, and either follow a word like
"phone", or be written as no other number is (a bracketed prefix; groups with a leading 0), or be valid in a country in which
the document's language is spoken. Numbers under nine digits need the word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import phonenumbers

_BLANK = r"[ \u00a0\u2009\u202f]"
_JOIN = rf"(?:[().\-/\u2010-\u2015 \u00a0\u2009\u202f]{{1,2}}|\) ?-? ?|{_BLANK}?[-/\u2013]{_BLANK}?)"
_EXTENSION = r"ext\.?|extension|x|\u8f6c|\u8f49|\u5185\u7ebf|\u5167\u7dda|\u0434\u043e\u0431\.?|poste|Durchwahl"
_CANDIDATE = re.compile(
    r"(?<![0-9A-Za-z_+])(?<![0-9][.,:/\u2013-])(?<![A-Za-z][/\u2013-])(?<![$\u20ac\u00a3\u00a5#@])"
    rf"(?:\(?\+|\()?[0-9](?:{_JOIN}?[0-9]){{5,15}}"
    rf"(?P<extension>{_BLANK}?(?:{_EXTENSION}){_BLANK}?[0-9]{{1,6}})?"
    r"(?![0-9A-Za-z_]|[.,:][0-9]|[-/][0-9]|%)"
)
# Words that name the number after them, by kind of gap: a label, and a verb that wants little between.
_LABELS = (
    r"tel|t\u00e9l|telefono?|telefone|telefon[eu]?|t\u00e9l\u00e9phone|phone|mobile?|mobil|cell|celular|fax|whatsapp|wechat|hotline|handy"
    r"|m\u00f3vil|portable|rufnummer|faks|puhelin|tlf|gsm|sms"
)
_VERBS = r"call(?:ing)?|dial|ring|reach|reached|answering|text|messages to|contact"
_OTHER_SCRIPTS = (
    r"\u0442\u0435\u043b(?:\u0435\u0444\u043e\u043d)?\w*|\u0444\u0430\u043a\u0441|\u043c\u043e\u0431\w*"  # Russian
    r"|\u7535\u8bdd|\u96fb\u8a71|\u624b\u673a|\u624b\u6a5f|\u70ed\u7ebf|\u71b1\u7dda|\u4f20\u771f|\u50b3\u771f|\u8054\u7cfb|\u806f\u7d61"
    r"|\u9023\u7d61|\u643a\u5e2f|\u81f4\u7535|\uc804\ud654|\ud734\ub300\ud3f0|\uc5f0\ub77d\ucc98|\ud329\uc2a4"  # CJK
    r"|\u0647\u0627\u062a\u0641|\u062a\u0644\u0641\u0646|\u05d8\u05dc|\u05d8\u05dc\u05e4\u05d5\u05df|\u0e42\u0e17\u0e23"
)
_WORD = re.compile(
    rf"(?:(?:\b(?:{_LABELS})\b|{_OTHER_SCRIPTS})[^0-9\n]{{0,18}}"
    rf"|\b(?:{_VERBS})(?:\s+(?:me|us|him|her|them|at|on|back|under|now|\w+ at))*[\s:(]*)$",
    re.IGNORECASE,
)
_LABEL_AFTER = re.compile(r"\s?[-(/,]?\s?(?:office|fax|mobile|home|work|cell|tel)\b", re.IGNORECASE)
_NOT_PHONE = re.compile(
    r"(?:\b(?:isbn|issn|doi|ean|order|invoice|serial|part|patent|version|article|ticket|case|ref|no|nr|id|lat|lon)"
    r"|\u8ba2\u5355|\u8a02\u55ae|\u7f16\u53f7|\u5e10\u53f7|\u5361\u53f7|\u8d44\u672c|\u2116)[\s.:#=\u53f7\u865f\uff1a-]*$",
    re.IGNORECASE,
)
_DECIMAL = re.compile(r"\d+\.\d+$")
_DATES = (
    r"(?:1[5-9]|20)\d\d[-./ ](?:0?[1-9]|1[0-2])[-./ ](?:0?[1-9]|[12]\d|3[01])\b",
    r"(?:0?[1-9]|[12]\d|3[01])[-./ ](?:0?[1-9]|[12]\d|3[01])[-./ ](?:1[5-9]|20)\d\d\b",
)
_DATE = re.compile("|".join(_DATES))
_YEARS = re.compile(r"\(?(?:1[0-9]|20)\d\d\)?\W{1,3}(?:1[0-9]|20)\d\d\)?$")
_AMOUNT = re.compile(r"[1-9]\d{0,2}(?:[ .\u00a0\u2009\u202f]\d{3})+$")
_SSN = re.compile(r"\d{3}[- ]\d{2}[- ]\d{4}$")

_CHINESE_MOBILE = re.compile(r"1[3-9]\d{9}$")
# A bracketed prefix; or a leading 0 and groups of two and more digits.
_UNMISTAKABLE = re.compile(
    r"\((?:0\d{1,4}|[2-9]\d{2})\)[-. ]?\d{2,4}[-. ]?\d{2,4}(?:[-. ]?\d{2,4})?$|0[1-9]\d{0,4}(?:[-/. ]\d{2,8}){1,4}$"
)
_US_POSTCODE = re.compile(r"\d{5}[- ]\d{1,4}$")  # ZIP+4, or a postcode before a house number
_NORTH_AMERICA = re.compile(r"(?:1[-. ])?\(?\d{3}\)?[-. /]{0,2}\d{3}[-. ]\d{4}$")

# Countries whose plans are tried for a national number, by language; "" for a language that is not listed.
REGIONS = {
    "": ("US", "GB", "CN"),
    "ar": ("SA", "AE", "EG", "MA", "IQ", "JO"), "bg": ("BG",), "bn": ("BD", "IN"), "ca": ("ES",), "cs": ("CZ",), "da": ("DK",),
    "de": ("DE", "AT", "CH"), "el": ("GR", "CY"), "en": ("US", "GB", "CA", "AU", "IE", "NZ", "IN", "ZA", "CN"),
    "es": ("ES", "MX", "AR", "CO", "CL", "PE", "EC", "VE"), "et": ("EE",), "fa": ("IR",), "fi": ("FI",),
    "fr": ("FR", "BE", "CH", "CA", "MA"), "he": ("IL",), "hi": ("IN",), "hr": ("HR",), "hu": ("HU",), "id": ("ID",),
    "it": ("IT", "CH"), "ja": ("JP",), "ko": ("KR",), "lt": ("LT",), "lv": ("LV",), "ms": ("MY", "SG"), "nb": ("NO",),
    "nl": ("NL", "BE"), "no": ("NO",), "pl": ("PL",), "pt": ("PT", "BR"), "ro": ("RO",), "ru": ("RU", "UA", "KZ", "BY"),
    "sk": ("SK",), "sl": ("SI",), "sr": ("RS",), "sv": ("SE", "FI"), "sw": ("KE", "TZ"), "ta": ("IN", "LK"), "th": ("TH",),
    "tl": ("PH",), "tr": ("TR",), "uk": ("UA",), "ur": ("PK",), "vi": ("VN",), "zh": ("CN", "TW", "HK", "SG"),
}  # fmt: skip


def find_phones(text: str, lang: str | None = None) -> Iterator[tuple[int, int]]:
    """Spans of telephone numbers, extensions included; `lang` chooses the national numbering plans."""
    for match in _CANDIDATE.finditer(text):
        start, end = match.span()
        core = text[start : match.start("extension") if match["extension"] else end]
        if core.startswith("(") and ")" not in core:
            core, start = core[1:], start + 1
        named = _WORD.search(text[max(0, start - 40) : start]) is not None or _LABEL_AFTER.match(text, end) is not None
        if not named and _NOT_PHONE.search(text[max(0, start - 16) : start]):
            continue
        extended = match["extension"] is not None and re.search(r"[-().]", core) is not None
        if is_phone(core, lang or "", named or extended):
            yield start, end


@lru_cache(maxsize=65536)
def is_phone(number: str, lang: str, named: bool) -> bool:
    """Whether a string of digits and separators is a telephone number; `named` if a word before it says so."""
    digits = re.sub(r"\D", "", number)
    if "+" in number:
        return 7 <= len(digits) <= 15 and _country_code(digits)
    if digits.startswith("00"):
        return _possible("+" + digits[2:]) or (named and 8 <= len(digits) <= 15)
    if _DECIMAL.match(number) or _DATE.match(number) or _YEARS.match(number) or _SSN.match(number) or len(set(digits)) == 1:
        return False
    if named:
        return 7 <= len(digits) <= 13
    bare = number == digits
    if len(digits) < 9 or len(digits) > 13 or _US_POSTCODE.match(number):
        return False
    if (_AMOUNT.match(number) and not bare) or _table(number):
        return False
    if _CHINESE_MOBILE.match(digits) or (not bare and _UNMISTAKABLE.match(number)):
        return True
    if bare and digits[0] != "0":
        return False
    return any(_valid(number, digits, region) for region in REGIONS.get(lang, REGIONS[""]))


def _table(number: str) -> bool:
    """Many short groups without a leading 0 or bracket: a row of figures rather than a number."""
    groups = re.findall(r"\d+", number)
    return number[0] not in "0(" and (len(groups) > 4 or min(map(len, groups)) < 2)


def _possible(number: str) -> bool:
    try:
        return bool(phonenumbers.is_possible_number(phonenumbers.parse(number, None)))
    except phonenumbers.NumberParseException:
        return False


def _country_code(digits: str) -> bool:
    return any(int(digits[:n]) in phonenumbers.COUNTRY_CODE_TO_REGION_CODE for n in (1, 2, 3))


def _valid(number: str, digits: str, region: str) -> bool:
    """Valid in the region's plan, and written as there: with the trunk prefix if the plan has one, 3-3-4 in North America."""
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
    if metadata is None:
        return False
    prefix = metadata.national_prefix
    if not (_NORTH_AMERICA.match(number) if metadata.country_code == 1 else not prefix or digits.startswith(prefix)):
        return False
    try:
        return bool(phonenumbers.is_valid_number_for_region(phonenumbers.parse(digits, region), region))
    except phonenumbers.NumberParseException:
        return False
