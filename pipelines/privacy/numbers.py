"""Numbers with a check digit: payment cards (ISO/IEC 7812, Luhn) and IBANs (ISO 13616, mod 97)."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Lengths by country from the SWIFT IBAN registry.
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28,
    "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24,
    "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26,
    "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip

# Issuer ranges: (first, last, lengths) over the leading digits; a little wider than issued (test numbers, typing errors).
CARD_RANGES = (
    (4, 4, (13, 16, 19)),  # Visa
    (51, 55, (16,)), (2221, 2720, (16,)),  # Mastercard
    (34, 34, (15, 16)), (37, 37, (15, 16)),  # American Express
    (300, 305, (14, 16)), (3095, 3095, (14,)), (36, 36, (14,)), (38, 39, (14, 16)),  # Diners Club
    (6011, 6011, (16, 19)), (644, 649, (16, 19)), (65, 65, (16, 19)),  # Discover
    (3500, 3599, (15, 16, 17, 18, 19)), (1800, 1800, (15,)), (2131, 2131, (15,)),  # JCB
    (62, 62, (15, 16, 17, 18, 19)), (81, 81, (16, 17, 18, 19)),  # UnionPay
    (5018, 5018, (12, 13, 14, 15, 16, 17, 18, 19)), (5020, 5020, (12, 13, 14, 15, 16, 17, 18, 19)),  # Maestro
    (5038, 5038, (12, 13, 14, 15, 16, 17, 18, 19)), (5893, 5893, (12, 13, 14, 15, 16, 17, 18, 19)),
    (6304, 6304, (12, 13, 14, 15, 16, 17, 18, 19)), (6759, 6763, (12, 13, 14, 15, 16, 17, 18, 19)),
    (2200, 2204, (16, 17, 18, 19)),  # Mir
    (60, 60, (16,)), (508, 508, (16,)),  # RuPay
)  # fmt: skip

# Digits in one run, or in groups of which the first three have four (4-4-4-4, 4-4-4-4-3, 4-6-5, 4-6-4 and the like).
_CARD = re.compile(
    r"(?<![0-9A-Za-z_.+#])(?<![0-9A-Za-z][-/:])(?<![0-9] )"
    r"(\d{12,19}|\d{4}([ -])\d{4}\2\d{4}\2\d{1,4}(?:\2\d{1,3})?|\d{4}([ -])\d{6}\3\d{4,5})"
    r"(?![0-9A-Za-z_])(?![-.:/ ][0-9])"
)
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,29}")


def luhn(digits: str) -> bool:
    """Whether the Luhn check digit is right (ISO/IEC 7812-1, annex B)."""
    doubled = (sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return (sum(int(d) for d in digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether the digits are a payment card number: issuer range, its length, Luhn, and not all digits the same."""
    known = any(
        len(digits) in lengths and first <= int(digits[: len(str(first))]) <= last for first, last, lengths in CARD_RANGES
    )
    return known and len(set(digits)) > 1 and luhn(digits)


def is_iban(compact: str) -> bool:
    """Whether letters and digits without blanks are an IBAN: the country's length, and mod 97 = 1."""
    compact = compact.upper()
    if IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def find_cards(text: str) -> Iterator[tuple[int, int]]:
    """Spans of payment card numbers."""
    for match in _CARD.finditer(text):
        if is_card(re.sub(r"\D", "", match[0])):
            yield match.span()


def find_ibans(text: str) -> Iterator[tuple[int, int]]:
    """Spans of IBANs, with blanks or hyphens between groups or without."""
    for match in _IBAN.finditer(text):
        length = IBAN_LENGTHS.get(match[0][:2].upper())
        if length is None:
            continue
        ends = [i + 1 for i, c in enumerate(match[0]) if c.isalnum()]
        if len(ends) < length:
            continue
        end = match.start() + ends[length - 1]
        following = text[end : end + 1]
        if not (following.isascii() and following.isalnum()) and is_iban(re.sub(r"[ \u00a0-]", "", text[match.start() : end])):
            yield match.start(), end
