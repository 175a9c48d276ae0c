"""URL rules by name; hosts and words as browsers read them; each hit names the entry, as the list has it."""

import dataclasses
import gzip
import logging
import random
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from pipelines.filter.hosts import ascii_host, fold_table, fold_words, latin_host, latin_words, registered_domain
from pipelines.filter.kernels.url_text import HOST, fold
from pipelines.filter.url import RULES, UrlConfig, broken_rule, host, url_filter, url_hits
from pipelines.filter.url_lists import url_list
from pipelines.schema import RECORD, record_batch

PRIMER = "\u043f\u0440\u0438\u043c\u0435\u0440.example"  # a Russian word, xn--e1afmkfd
KAZINO = "\u043a\u0430\u0437\u0438\u043d\u043e"
LISTS = UrlConfig(
    domains=("bad.example", PRIMER, "a.b.example", ".xxx", "paypal.example", "10.1.2.3"),
    urls=("http://pages.example/one/?q=%7e1#top", "pages.example:8080/two", f"https://{PRIMER.upper()}/x"),
    strict_words=("xstrictx", "\u8d4c\u535a"),
    sub_words=("poker",),
    hard_words=("casino", KAZINO, "\u0939\u093f\u0902\u0926\u0940"),
    soft_words=("free", "bonus", "win"),
    allow_domains=("fine.bad.example", "good-poker.example"),
)


@pytest.mark.parametrize(
    ("url", "rule", "entry"),
    [
        ("https://good.example/page", None, None),
        # domains
        ("https://bad.example/", "domain", "bad.example"),
        ("https://www.sub.BAD.example.:443/x", "domain", "bad.example"),
        ("https://notbad.example/", None, None),
        ("https://b.example/", None, None),  # only a.b.example is listed
        ("https://x.a.b.example/", "domain", "a.b.example"),
        ("https://user:pw@bad.example/", "domain", "bad.example"),
        ("https://user@other.example@bad.example/", "domain", "bad.example"),  # the last @ counts
        ("https://good.example/?u=bad.example", None, None),
        ("https://good.example/@bad.example", None, None),
        ("  //bad.example\n", "domain", "bad.example"),
        ("http:\\\\bad.example\\x", "domain", "bad.example"),
        ("https://%62ad.example/", "domain", "bad.example"),
        ("https://any.xxx/", "domain", "xxx"),
        # IDNA
        ("https://xn--e1afmkfd.example/", "domain", PRIMER),
        (f"https://www.{PRIMER.upper()}/", "domain", PRIMER),
        ("https://\u043f\u0440\u0438\u043c\u0435\u0440\u3002example/", "domain", PRIMER),  # an ideographic full stop
        ("https://%D0%BF%D1%80%D0%B8%D0%BC%D0%B5%D1%80.example/", "domain", PRIMER),
        ("https://\uff42\uff41\uff44.example/", "domain", "bad.example"),  # full-width letters
        ("https://\U0001d41bad.example/", "domain", "bad.example"),  # a mathematical b
        ("https://ba\u00add.example/", "domain", "bad.example"),  # a soft hyphen
        # homographs
        ("https://b\u0430d.example/", "homograph", "bad.example"),  # a Cyrillic a
        ("https://www.xn--bd-7kc.example/", "homograph", "bad.example"),  # the same in punycode
        ("https://\u0440\u0430\u0443\u0440\u0430\u04cf.example/", "homograph", "paypal.example"),  # all Cyrillic
        ("https://p\u03b1yp\u0251l.example/", "homograph", "paypal.example"),  # Greek, phonetic
        ("https://p\u00e1ypal.example/", None, None),  # an accent is seen
        ("https://\u0440\u0430\u0443.example/", None, None),
        # whole URLs
        ("https://www.pages.example:443/one?q=~1", "page", "http://pages.example/one/?q=%7e1#top"),
        ("http://me@PAGES.example/%6Fne///?q=%7E1", "page", "http://pages.example/one/?q=%7e1#top"),
        ("http://pages.example/one", None, None),
        ("http://pages.example/ONE?q=~1", None, None),  # case counts in a path
        ("http://pages.example:8080/two/", "page", "pages.example:8080/two"),
        ("http://pages.example/two", None, None),
        # words
        ("https://good.example/aXSTRICTXb", "strict_word", "xstrictx"),
        ("https://good.example/x-strict/x", "strict_word", "xstrictx"),
        ("https://good.example/%E8%B5%8C%E5%8D%9A1", "strict_word", "\u8d4c\u535a"),
        (f"https://{ascii_host(chr(0x8D4C) + chr(0x535A))}.example/", "strict_word", "\u8d4c\u535a"),  # punycode of a host
        ("https://good.example/megapoker24", "sub_word", "poker"),
        ("https://good.example/po-ker", None, None),  # not over punctuation
        ("https://good.example/casino/1", "hard_word", "casino"),
        ("https://good.example/%63asino", "hard_word", "casino"),
        ("https://good.example/Casino%2Fx", "hard_word", "casino"),
        ("https://good.example/casinos", None, None),  # words are whole
        ("https://good.example/caf\u00e9casino", None, None),
        (f"https://good.example/{quote(KAZINO.upper())}", "hard_word", KAZINO),
        (f"https://good.example/{KAZINO}s", None, None),
        ("https://good.example/\uff43asino", "hard_word", "casino"),
        ("https://good.example/c\u0430sin\u043e", "hard_word", "casino"),  # Latin and Cyrillic in one word
        ("https://good.example/\u0939\u093f\u0902\u0926\u0940", "hard_word", "\u0939\u093f\u0902\u0926\u0940"),  # marks belong
        ("https://good.example/\u0939\u093f\u0902\u0926", None, None),
        ("casino://good.example/", None, None),  # a scheme is no word
        ("https://casino@good.example/", None, None),  # nor is a user
        ("https://good.example/free-stuff", None, None),
        ("https://good.example/free/free", None, None),  # one word twice is one
        ("https://good.example/free_bonus", "soft_words", "bonus, free"),
        # allowed
        ("https://www.fine.bad.example/casino", None, None),
        ("https://good-poker.example/xstrictx", None, None),
        # addresses
        ("http://93.184.216.34/index.html", "ip_host", None),
        ("http://10.1.2.3/", "ip_host", None),
        ("http://[2001:db8::1]:80/", "ip_host", None),
        ("http://3627734734/", "ip_host", None),
        ("http://0x7f.1/", "ip_host", None),
        ("http://\uff11\uff12\uff17.0.0.1/", "ip_host", None),
        ("http://1.example/", None, None),
        ("http://0x.example/", None, None),
        # no host
        ("mailto:someone", "no_host", None),
        ("/path/only", "no_host", None),
        ("http://", "no_host", None),
        ("http://user@/x", "no_host", None),
        ("\u0430", "no_host", None),
        ("", None, None),
    ],
)
def test_rule(url: str, rule: str | None, entry: str | None) -> None:
    got = broken_rule(url, LISTS)
    assert (got and got[0], got and got[3]) == (rule, entry)


def test_without_the_rule_on_addresses_they_are_hosts_like_others() -> None:
    cfg = dataclasses.replace(LISTS, drop_ip_hosts=False)
    assert broken_rule("http://10.1.2.3/", cfg) == ("domain", 1.0, 0.0, "10.1.2.3")
    assert broken_rule("http://10.1.2.4/casino", cfg) == ("hard_word", 1.0, 0.0, "casino")


def test_more_soft_words_wanted_never_drops_more() -> None:
    urls = ["https://a.example/free", "https://a.example/free/win", "https://a.example/free/win/bonus"]
    dropped = [
        sum(broken_rule(u, UrlConfig(soft_words=LISTS.soft_words, min_soft_words=n)) is not None for u in urls)
        for n in (1, 2, 3, 4)
    ]
    assert dropped == [3, 2, 1, 0]


def test_the_stage_marks_rule_value_bound_and_entry() -> None:
    urls = ["https://bad.example/casino", None, "https://good.example/", "x:y", "http://a.example/free/win/bonus", ""]
    docs = record_batch({"url": urls}, RECORD)
    got = url_filter(docs, LISTS).select(["drop_rule", "drop_value", "drop_bound", "drop_entry"]).to_pylist()
    assert [tuple(row.values()) for row in got] == [
        ("url.domain", 1.0, 0.0, "bad.example"),
        (None, None, None, None),
        (None, None, None, None),
        ("url.no_host", 0.0, 1.0, None),
        ("url.soft_words", 3.0, 1.0, "bonus, free, win"),
        (None, None, None, None),
    ]
    for start in range(1, 5):  # a slice has its offsets elsewhere
        part = url_filter(docs.slice(start), LISTS)
        assert part["drop_rule"].to_pylist() == [row["drop_rule"] for row in got[start:]]


def test_rules_are_asked_in_the_order_in_which_they_are_written() -> None:
    hits = url_hits(pa.array(["https://bad.example/casino/free/win/xstrictx"]), LISTS)
    assert tuple(hits) == RULES
    assert [rule for rule, found in hits.items() if found] == ["domain", "strict_word", "hard_word", "soft_words"]


# --- kernels against the same in Python ------------------------------------------------------------------------------------

WORDS = ["free", "bonus", "po", "poker", KAZINO, "\u8d4c", "c\u0430sino", "win-win", "\u00fc", "x" * 300]
PIECES = [
    *WORDS,
    "/",
    "-",
    "%2F",
    "%D0",
    "%BA%D0",
    "?",
    "#",
    "%",
    "%C3%BC",
    "\u0456",
    "\u0301",
    "\uac00",
    "\u0130",
    "\u00b7",
    "A",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=12))
@example(["\u03a3", "a\u03c3"])
@example(["%ED%A0%80", "%F4%90%80%80", "%C0%AF", "%E2%82"])
def test_folding_in_the_kernel_is_that_of_python(pieces: list[str]) -> None:
    text = "".join(pieces).encode("utf-8", "replace")
    data, places, in_context = fold(np.frombuffer(text, np.uint8), np.array([0]), np.array([len(text)]), fold_table())
    if not in_context[0]:
        assert bytes(data[: places[1]]).decode().split() == latin_words(fold_words(unquote(text.decode()))).split()


def test_most_paths_need_no_python() -> None:
    texts = [quote(w).encode() for w in (KAZINO, "\u8d4c\u535a", "gr\u00fc\u00dfe", "\u0627\u0644\u0639", "\u304b\u3058")]
    ends = np.cumsum([len(t) for t in texts])
    _, _, in_context = fold(np.frombuffer(b"".join(texts), np.uint8), ends - [len(t) for t in texts], ends, fold_table())
    assert not in_context.any()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text("abw./-%2\u0430", max_size=4)), max_size=10))
def test_words_are_found_as_a_plain_search_finds_them(pieces: list[str]) -> None:
    url = "http://h.example/" + "".join(pieces)
    words = latin_words(fold_words(unquote(url.removeprefix("http://")))).split()
    listed = {latin_words(fold_words(w)).replace(" ", ""): w for w in WORDS if len(w) < 256}
    cfg = UrlConfig(strict_words=tuple(WORDS[:9]), sub_words=tuple(WORDS[:9]), hard_words=tuple(WORDS[:9]))
    hits = {rule: found[0][2] for rule, found in url_hits(pa.array([url]), cfg).items() if found}
    assert ("strict_word" in hits) == any(w in "".join(words) for w in listed)
    assert ("sub_word" in hits) == any(w in word for w in listed for word in words)
    assert hits.get("hard_word") == (", ".join(sorted({listed[w] for w in words if w in listed})) or None)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_no_text_breaks_the_rules(text: str) -> None:
    for url in (text, f"http://{text}", f"http://{text}.example/{text}"):
        url = url.encode("utf-8", "replace").decode()
        broken, name = broken_rule(url, LISTS), host(url)
        assert (broken is not None and broken[0] == "no_host") == (bool(url) and not name)
        assert ascii_host(name) == name


# --- lists ------------------------------------------------------------------------------------------------------------------


def listed(path: Path, url: str) -> str | None:
    got = broken_rule(url, UrlConfig(domains=(f"file:{path}",), urls=(f"file:{path}",), drop_ip_hosts=False))
    return got and got[3]


@pytest.mark.parametrize(
    ("line", "url", "entry"),
    [
        ("listed.example", "http://a.listed.example/", "listed.example"),
        ("  Listed.Example.\r", "http://listed.example/", "Listed.Example."),
        ("\ufefflisted.example", "http://listed.example/", "listed.example"),
        ("*.listed.example", "http://listed.example/", "listed.example"),
        (".listed.example", "http://listed.example/", "listed.example"),
        ("http://listed.example/", "http://listed.example/x", "listed.example"),
        ("listed.example # why", "http://listed.example/", "listed.example"),
        ("0.0.0.0 listed.example", "http://listed.example/", "listed.example"),
        ("127.0.0.1\tone.example listed.example # both", "http://listed.example/", "listed.example"),
        ("::1 listed.example", "http://listed.example/", "listed.example"),
        ("0.0.0.0 listed.example#why", "http://listed.example/", "listed.example"),
        ("0.0.0.0 listed.example", "http://0.0.0.0/", None),
        ("127.0.0.1 localhost", "http://localhost/", None),
        ("||listed.example^", "http://a.listed.example/", "listed.example"),
        ("||listed.example^$all,important", "http://listed.example/", "listed.example"),
        ("||listed.example^$document", "http://listed.example/", "listed.example"),
        ("||listed.example^$third-party", "http://listed.example/", None),
        ("||listed.example^$domain=d", "http://listed.example/", None),
        ("||listed.example/ads/", "http://listed.example/", None),
        ("@@||listed.example^", "http://listed.example/", None),
        ("listed.example##.advert", "http://listed.example/", None),
        ("! listed.example", "http://listed.example/", None),
        ("# listed.example", "http://listed.example/", None),
        ("[Adblock Plus 2.0]", "http://2.0/", None),
        ("this is prose", "http://www.is/", None),  # would else be all of Iceland
        ("is", "http://www.is/", None),
        ("listed.example/page", "http://listed.example/page", "listed.example/page"),
        ("listed.example/page", "http://listed.example/", None),
        (f"http://{PRIMER}/\u0436?%D0%B6", "http://www.xn--e1afmkfd.example/%D0%b6?\u0436", f"http://{PRIMER}/\u0436?%D0%B6"),
        ("93.184.216.34", "http://93.184.216.34/", "93.184.216.34"),
        (PRIMER, "http://xn--e1afmkfd.example/", PRIMER),
        (f"0.0.0.0 {PRIMER}", "http://xn--e1afmkfd.example/", PRIMER),
        ("xn--e1afmkfd.example", f"http://{PRIMER}/", "xn--e1afmkfd.example"),
        ("b\u0430d.example", "http://bad.example/", None),  # a listed homograph is not what it looks like
    ],
)
def test_a_line_of_a_list(tmp_path: Path, line: str, url: str, entry: str | None) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"other.example\n{line}\n\nlast.example", encoding="utf-8", newline="")
    assert listed(path, url) == entry
    assert listed(path, "http://last.example/") == "last.example"


def test_a_folder_of_categories_and_packed_files(tmp_path: Path) -> None:
    (tmp_path / "adult").mkdir()
    (tmp_path / "games").mkdir()
    (tmp_path / "adult" / "domains").write_bytes(b"one.example\n\xff\xfe.example\ntwo.example")
    (tmp_path / "adult" / "urls").write_text("pages.example/bad\n")
    (tmp_path / "games" / "domains.gz").write_bytes(gzip.compress(b"three.example\n"))
    (tmp_path / "games" / "very_restrictive_expression").write_text("(casino)\n")
    found = {u: listed(tmp_path, f"http://{u}") for u in ("one.example", "two.example", "three.example", "pages.example/bad")}
    assert found == {u: u for u in found}
    assert listed(tmp_path, "http://pages.example/") is None
    assert [p.name for p in UrlConfig(domains=(f"file:{tmp_path}",)).files()] == ["domains", "domains.gz"]


def test_entries_and_files_together(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("one.example")  # without an end of line
    two.write_text("two.example\n")
    cfg = UrlConfig(domains=("given.example", f"file:{one}", f"file:{two}"))
    assert [broken_rule(f"http://{n}.example/", cfg) for n in ("given", "one", "two", "three")] == [
        *(("domain", 1.0, 0.0, f"{n}.example") for n in ("given", "one", "two")),
        None,
    ]


def test_a_changed_list_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("one.example\n")
    assert listed(path, "http://one.example/") == "one.example"
    new = tmp_path / "new.txt"
    new.write_text("another.example\n")
    new.replace(path)
    assert listed(path, "http://one.example/") is None
    assert listed(path, "http://another.example/") == "another.example"


def test_lines_that_are_left_out_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# a list\none.example\nbad.example/path\n@@||x.example^\n")
    with caplog.at_level(logging.WARNING):
        assert listed(path, "http://one.example/") == "one.example"
    assert f"file:{path}: 2 lines are left out because they are not a host name, the first is 'bad.example/path'" in caplog.text


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (UrlConfig(domains=("file:/no/such.txt",)), "'/no/such.txt' cannot be read"),
        (UrlConfig(domains=("bad.example/path",)), "'bad.example/path' of a URL list is not a host name"),
        (UrlConfig(domains=("example",)), "'example' of a URL list is not a host name"),
        (UrlConfig(hard_words=("x" * 256,)), "is not a word"),
        (UrlConfig(hard_words=("--",)), "'--' of a URL list is not a word"),
    ],
)
def test_what_is_no_list_is_one_clear_line(cfg: UrlConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        broken_rule("http://a.example/", cfg)


def test_a_folder_without_lists_and_a_cut_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder with files named domains"):
        listed(tmp_path, "http://a.example/")
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"one.example\n" * 100)[:-9])
    with pytest.raises(UserError, match="is it cut off"):
        listed(path, "http://a.example/")


def test_an_empty_list_hits_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_bytes(b"")
    assert listed(path, "http://a.example/") is None


def test_a_long_list_is_small_in_memory_and_every_entry_is_found(tmp_path: Path) -> None:
    names = [f"{random.Random(i).randbytes(4 + i % 9).hex()}.example" for i in range(200_000)]
    path = tmp_path / "long.txt"
    path.write_text("\n".join(names))
    cfg = UrlConfig(domains=(f"file:{path}",))
    urls = pa.array([f"https://www.{name}/page" for name in names] + [f"https://www.x{name}/page" for name in names])
    hits = url_hits(urls, cfg)["domain"]
    assert [(row, entry) for row, _, entry in hits] == list(enumerate(names))
    table = url_list(cfg.domains, HOST).table
    assert sum(a.nbytes for a in (table.hashes, table.places, table.buckets, table.firsts, table.extra)) < 20 * len(names)


def test_equal_hashes_are_not_enough() -> None:
    used = url_list(("one.example", "two.example"), HOST)
    forged = dataclasses.replace(used, table=used.table._replace(places=used.table.places[::-1].copy()))
    from pipelines.filter.url import _buffers, _scan_hosts

    nothing = url_list((), HOST).table
    urls = _buffers(pa.array(["http://one.example/", "http://two.example/"], pa.large_string()))
    assert (_scan_hosts(*urls, nothing, used.table, nothing)[2] >= 0).all()
    assert (_scan_hosts(*urls, nothing, forged.table, nothing)[2] < 0).all()


# --- hosts ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("HTTP://A.Example/x", "a.example"),
        ("//c.example/p", "c.example"),
        ("x", ""),
        ("http://fa\u00df.example/", "xn--fa-hia.example"),  # sharp s is kept, as browsers do
        ("http://\u0130.example", "xn--i-rca5j.example".replace("xn--i-rca5j", ascii_host("i\u0307"))),
        ("http://[::1]:80/", "[::1]"),
    ],
)
def test_host(url: str, name: str) -> None:
    assert host(url) == name


@pytest.mark.parametrize(
    ("name", "latin"),
    [
        ("example.com", None),
        ("ex\u0430mple.com", "example.com"),
        ("xn--80ak6aa92e.com", "apple.com"),  # the well-known all-Cyrillic copy
        ("\u0561\u0585\u0578.com", "won.com"),  # Armenian
        ("m\u00fcller.com", None),
        ("xn--.com", None),
        ("xn--99999999999999.com", None),
    ],
)
def test_the_host_that_a_homograph_looks_like(name: str, latin: str | None) -> None:
    assert latin_host(name) == latin


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("www.example.com", "example.com"),
        ("a.b.example.co.uk", "example.co.uk"),
        ("me.github.io", "me.github.io"),  # below a private suffix everyone is somebody else
        ("www.me.blogspot.com", "me.blogspot.com"),
        ("a.b.c.kobe.jp", "b.c.kobe.jp"),
        ("www.city.kobe.jp", "city.kobe.jp"),
        ("www.xn--e1afmkfd.xn--p1ai", "xn--e1afmkfd.xn--p1ai"),
        ("a.b.xn--55qx5d.cn", "b.xn--55qx5d.cn"),
        ("a.b.unknown-suffix", "b.unknown-suffix"),
        ("localhost", "localhost"),
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "[::1]"),
        ("", ""),
    ],
)
def test_registered_domain(name: str, domain: str) -> None:
    assert registered_domain(name) == domain
