"""Personal data: what is found in running text of several scripts, and what only looks like it."""

import pyarrow as pa
import pytest

from pipelines.privacy.numbers import is_card, is_iban, luhn
from pipelines.privacy.pii import KINDS, PII_COLUMNS, PiiConfig, find_pii, mask_pii
from pipelines.schema import RECORD, record_batch


def masked(text: str, lang: str = "en", cfg: PiiConfig | None = None) -> str:
    return str(mask_pii(record_batch({"text": [text], "lang": [lang]}, RECORD), cfg or PiiConfig())["text"][0].as_py())


FOUND = [
    # e-mail
    ("Write to Jane.Roe+news@Mail.Example.org.", "en", "Write to <email>."),
    ("\u8bf7\u8054\u7cfbzhang_3@example.com\u8c22\u8c22", "zh", "\u8bf7\u8054\u7cfb<email>\u8c22\u8c22"),
    ("\u90ae\u7bb1\uff1azhang\uff20example\uff0ecom", "zh", "\u90ae\u7bb1\uff1a<email>"),
    ("<a@b.co>,c@d.example", "en", "<<email>>,<email>"),
    ("mailto:o'neil@example.ie?subject=x", "en", "mailto:<email>?subject=x"),
    # IP
    ("client 81.2.69.142:443 said", "en", "client <ip>:443 said"),
    ("\u5730\u574081.2.69.142\u88ab\u5c01", "zh", "\u5730\u5740<ip>\u88ab\u5c01"),
    ("from 2a00:1450:4001:82a::200e today", "en", "from <ip> today"),
    # cards
    ("card 4111 1111 1111 1111.", "en", "card <card>."),
    ("\u5361\u53f76222021234567890128\u3002", "zh", "\u5361\u53f7<card>\u3002"),
    ("5555-5555-5555-4444", "en", "<card>"),
    ("3782 822463 10005", "en", "<card>"),
    ("\uff14\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11\uff11", "ja", "<card>"),
    # IBAN
    ("IBAN DE89 3704 0044 0532 0130 00 today", "en", "IBAN <iban> today"),
    ("pay GB82WEST12345698765432, then", "en", "pay <iban>, then"),
    ("\u8d26\u53f7FR1420041010050500013M02606\u3002", "zh", "\u8d26\u53f7<iban>\u3002"),
    # phones
    ("Call +1 202-555-0143 now", "en", "Call <phone> now"),
    ("(202) 555-0143", "en", "<phone>"),
    ("Tel.: 030/12345-67", "de", "Tel.: <phone>"),
    ("unter 0345 122 99 84 erreichbar", "de", "unter <phone> erreichbar"),
    ("\u624b\u673a13812345678\u3002", "zh", "\u624b\u673a<phone>\u3002"),
    (
        "\u7535\u8bdd\uff1a\uff10\uff12\uff11\uff0d\uff15\uff14\uff10\uff19\uff18\uff15\uff17\uff17",
        "zh",
        "\u7535\u8bdd\uff1a<phone>",
    ),
    ("\u5e97\u306e\u96fb\u8a71\u306f03-1234-5678\u3067\u3059", "ja", "\u5e97\u306e\u96fb\u8a71\u306f<phone>\u3067\u3059"),
    ("\u0442\u0435\u043b. 8 (495) 123-45-67", "ru", "\u0442\u0435\u043b. <phone>"),
    ("Phone: 828-635-2307x09667", "en", "Phone: <phone>"),
    ("0044 20 7946 0958", "en", "<phone>"),
]
LEFT = [
    ("git clone git@github.com:torvalds/linux.git", "en"),
    ("npm i @types/node@20.11.5 and logo@2x.png", "en"),
    ("x = a @ b.T", "en"),
    ("127.0.0.1, 10.1.0.0/16, 192.168.0.1, 0.0.0.0, 192.0.2.7", "en"),
    ("Upgrade from 1.2.3.4 to 1.2.3.10; version 81.2.69.142", "en"),
    ("see \u7b2c 6.3.6.2 \u8282", "zh"),
    ("Section 3.2.1.4, 999.1.1.1, 1.2.3.4.5", "en"),
    ("12:30:45, 00:1B:44:11:3A:B7, std::vector, ::1, fe80::1, a::b", "en"),
    ("id 4111111111111112, 0000000000000000", "en"),  # wrong check digit; all the same
    ("ISBN 978-3-16-148410-0, EAN 4006381333931", "en"),
    ("GB82WEST12345698765431 and XX82WEST12345698765432", "en"),
    ("UUID 550e8400-e29b-41d4-a716-446655440000", "en"),
    ("commit 9fceb02d0ae598e95dc970b74767f19372d61af8", "en"),
    ("2024-05-17T12:34:56.789Z, 17.05.2024, 2010-2015", "en"),
    ("1 234 567 890 dollars, 1,234,567,890.12, 3.14159265358979", "en"),
    ("\u8ba2\u5355\u53f7\uff1a202405170012345678901", "zh"),
    ("\u6ce8\u518c\u8d44\u672c1000000000\u5143", "zh"),
    ("Boston, MA 02110-1301, USA", "en"),
    ("lat 39.904202, lon 116.407394; 120 + 240 + 360 = 720", "en"),
    ("DOI 10.1145/3292500.3330919, unix time 1715948096123", "en"),
    ("67-70 71-73 100 105 75-77", "en"),
    ("SSN 123-45-6789", "en"),
]


@pytest.mark.parametrize(("text", "lang", "expected"), FOUND)
def test_found(text: str, lang: str, expected: str) -> None:
    assert masked(text, lang) == expected


@pytest.mark.parametrize(("text", "lang"), LEFT)
def test_look_alikes_stay(text: str, lang: str) -> None:
    assert masked(text, lang) == text


def test_counts_and_types() -> None:
    docs = record_batch(
        {"text": ["a@b.example or c@d.example, 81.2.69.142", None, "nothing"], "lang": ["en", None, None]}, RECORD
    )
    got = mask_pii(docs, PiiConfig())
    assert got["pii_email"].to_pylist() == [2, 0, 0]
    assert got["pii_ip"].to_pylist() == [1, 0, 0]
    assert got["text"].to_pylist() == ["<email> or <email>, <ip>", None, "nothing"]
    for field in PII_COLUMNS:
        assert got.schema.field(field.name).type == pa.int32()


def test_substitutes_and_kinds_that_are_off() -> None:
    cfg = PiiConfig(email="someone@example.com", ip=None)
    assert masked("a@b.org at 81.2.69.142", cfg=cfg) == "someone@example.com at 81.2.69.142"
    docs = record_batch({"text": ["81.2.69.142"], "lang": ["en"]}, RECORD)
    assert mask_pii(docs, cfg)["pii_ip"].to_pylist() == [0]


@pytest.mark.parametrize(("text", "lang", "expected"), FOUND)
def test_masked_text_has_nothing_left_to_mask(text: str, lang: str, expected: str) -> None:
    assert masked(expected, lang) == expected


def test_spans_are_offsets_into_the_given_text() -> None:
    text = "\U0001f4de \u7535\u8bdd\uff11\uff13\uff18\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18 ok"
    found = find_pii(text, "zh")
    assert [(f.kind, text[f.start : f.end]) for f in found] == [("phone", text[4:15])]
    assert set(KINDS) == {field.name.removeprefix("pii_") for field in PII_COLUMNS}


@pytest.mark.parametrize(("digits", "right"), [("79927398713", True), ("79927398710", False), ("0", True)])
def test_luhn(digits: str, right: bool) -> None:
    assert luhn(digits) is right


def test_check_digits_catch_every_single_error() -> None:
    card, iban = "4111111111111111", "DE89370400440532013000"
    assert is_card(card)
    assert is_iban(iban)
    for i in range(1, 16):
        assert not is_card(card[:i] + str((int(card[i]) + 1) % 10) + card[i + 1 :])
    for i in range(2, 22):
        assert not is_iban(iban[:i] + str((int(iban[i]) + 1) % 10) + iban[i + 1 :])
