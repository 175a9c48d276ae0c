# ruff: noqa: RUF001
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.read.charset import CODECS, LABELS, declared_in, decode, label_to_name

RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. Все смешалось в доме."
CHINESE = "滾滾長江東逝水，浪花淘盡英雄。是非成敗轉頭空，青山依舊在，幾度夕陽紅。白髮漁樵江渚上，慣看秋月春風。一壺濁酒喜相逢。"
SIMPLIFIED = (
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭"
    "之后，楚、汉分争，又并入于汉。汉朝自高祖斩白蛇而起义，一统天下。"
)
JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何"
    "でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。"
)
KOREAN = (
    "나랏말이 중국과 달라 한자와 서로 통하지 아니하므로 어리석은 백성이 "
    "말하고자 하는 바가 있어도 마침내 제 뜻을 펴지 못하는 사람이 많다."
)
GREEK = (
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπει"
    "α και τα δικαιώματα. Είναι προικισμένοι με λογική και συνείδηση."
)
GERMAN = "Übermäßig größere Bäume wüchsen früher über die schönen Häuser der Stadt hinaus, hört man heute öfter an der Tür."
HEBREW = (
    "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננ"
    "ו בתבונה ובמצפון, לפיכך חובה עליהם לנהוג איש ברעהו ברוח של אחוה."
)

TEXTS = [
    ("windows-1251", RUSSIAN),
    ("koi8-r", RUSSIAN),
    ("ibm866", RUSSIAN),
    ("iso-8859-5", RUSSIAN),
    ("big5", CHINESE),
    ("gb18030", SIMPLIFIED),
    ("shift_jis", JAPANESE),
    ("euc-jp", JAPANESE),
    ("euc-kr", KOREAN),
    ("iso-8859-7", GREEK),
    ("windows-1252", GERMAN),
    ("windows-1255", HEBREW),
    ("utf-8", RUSSIAN),
    ("utf-8", CHINESE),
    ("utf-8", GERMAN),
]


def body(text: str, codec: str, head: str = "") -> bytes:
    return (f"<html><head>{head}</head><body>" + "".join(f"<p>{text}</p>\n" for _ in range(3)) + "</body></html>").encode(codec)


@pytest.mark.parametrize(("name", "text"), TEXTS)
@pytest.mark.parametrize("says", ["nothing", "http", "meta", "http lies utf-8", "http lies latin", "meta lies utf-8"])
def test_pages_are_decoded_whatever_they_say(name: str, text: str, says: str) -> None:
    codec = CODECS[name]
    head = {"meta": f'<meta charset="{name}">', "meta lies utf-8": '<meta charset="utf-8">'}.get(says, "")
    http = {"http": name, "http lies utf-8": "utf-8", "http lies latin": "ISO-8859-1"}.get(says)
    data = body(text, codec, head)
    assert decode(data, http)[0] == data.decode(codec)


@pytest.mark.parametrize(("name", "text"), TEXTS)
def test_the_page_is_believed_over_a_default_of_the_server(name: str, text: str) -> None:
    data = body(text, CODECS[name], f'<meta http-equiv="Content-Type" content="text/html; charset={name}">')
    assert decode(data, "iso-8859-1") == (data.decode(CODECS[name]), name)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("UTF8", "utf-8"),
        ("GB2312", "gb18030"),
        ("gbk", "gb18030"),
        ("ISO-8859-1", "windows-1252"),
        ("latin1", "windows-1252"),
        ("us-ascii", "windows-1252"),
        ("iso-8859-9", "windows-1254"),
        ("tis-620", "windows-874"),
        ("x-sjis", "shift_jis"),
        ("windows-31j", "shift_jis"),
        ("ks_c_5601-1987", "euc-kr"),
        ("big5-hkscs", "big5"),
        (" 'utf-8' ", "utf-8"),
        ("x-mac-cyrillic", "x-mac-cyrillic"),
        ("none", None),
        ("", None),
        (None, None),
    ],
)
def test_labels(label: str | None, name: str | None) -> None:
    assert label_to_name(label) == name


@pytest.mark.parametrize("name", sorted(set(LABELS.values())))
def test_every_charset_decodes_ascii(name: str) -> None:
    text = "plain words"
    assert text.encode(CODECS[name]).decode(CODECS[name]) == text


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b'<meta charset="koi8-r">', "koi8-r"),
        (b"<META CHARSET=koi8-r>", "koi8-r"),
        (b"<meta http-equiv=Content-Type content='text/html; charset=Shift_JIS'>", "shift_jis"),
        (b'<?xml version="1.0" encoding="EUC-JP"?>', "euc-jp"),
        (b'<!-- <meta charset="big5"> --><meta charset=gbk>', "gb18030"),
        (b'<meta charset="utf-16">', "utf-8"),
        (b'<meta charset="nonsense">', None),
        (b"<p>charset=big5</p>", None),
    ],
)
def test_declarations_in_the_page(head: bytes, name: str | None) -> None:
    assert declared_in(b"<html>" * (not head.startswith(b"<?")) + head) == name


@pytest.mark.parametrize(
    ("data", "text", "name"),
    [
        (b"\xef\xbb\xbf<p>\xc3\xa9", "<p>\u00e9", "utf-8"),
        (b"\xff\xfe<\0p\0>\0", "<p>", "utf-16le"),
        (b"\xfe\xff\0<\0p\0>", "<p>", "utf-16be"),
        ("<p>no mark".encode("utf-16-le"), "<p>no mark", "utf-16le"),
        (b"\x1b$B$3$s\x1b(B", "\u3053\u3093", "iso-2022-jp"),
        (b"<p>plain", "<p>plain", "utf-8"),
        (b"<p>caf\xe9", "<p>caf\u00e9", "windows-1252"),
        (b"<p>\xe4\xb8\xad\xe6\x96\x87" * 30 + b"\xe4\xb8", "<p>\u4e2d\u6587" * 30 + "\ufffd", "utf-8"),
        (b"", "", "utf-8"),
    ],
)
def test_marks_escapes_and_cuts(data: bytes, text: str, name: str) -> None:
    assert decode(data, None) == (text, name)


@given(
    data=st.binary(max_size=300), http=st.sampled_from([None, "", "gbk", "utf-16", "iso-2022-jp", "hz-gb-2312", "x", "johab"])
)
def test_any_bytes_are_decoded_the_same_way_each_time(data: bytes, http: str | None) -> None:
    text, name = decode(data, http)
    assert name in CODECS
    assert decode(data, http) == (text, name)
