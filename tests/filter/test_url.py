"""URL rules by name; hosts and words as browsers read them."""

from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.filter.url import UrlConfig, broken_rule, host, url_filter
from pipelines.schema import RECORD, record_batch

LISTS = UrlConfig(
    domains=("bad.example", "\u043f\u0440\u0438\u043c\u0435\u0440.example", "a.b.example"),
    strict_words=("xstrictx",),
    hard_words=("casino",),
    soft_words=("free", "bonus", "win"),
)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://good.example/page", None),
        ("https://bad.example/", "domain"),
        ("https://www.sub.BAD.example.:443/x", "domain"),
        ("https://notbad.example/", None),
        ("https://b.example/", None),  # only a.b.example is listed
        ("https://user:pw@bad.example/", "domain"),
        ("https://good.example/?u=bad.example", None),
        ("https://xn--e1afmkfd.example/", "domain"),  # punycode of the listed name
        ("https://good.example/aXSTRICTXb", "strict_word"),
        ("https://good.example/x-strict-x", "strict_word"),
        ("https://good.example/casino/1", "hard_word"),
        ("https://good.example/%63asino", "hard_word"),
        ("https://good.example/casinos", None),  # words are whole
        ("https://good.example/free-stuff", None),
        ("https://good.example/free/free", None),  # one word twice is one
        ("https://good.example/free_bonus", "soft_words"),
        ("http://93.184.216.34/index.html", "ip_host"),
        ("http://[2001:db8::1]/", "ip_host"),
        ("http://3627734734/", "ip_host"),
        ("http://1.example/", None),
        ("mailto:someone", "no_host"),
        ("/path/only", "no_host"),
    ],
)
def test_rule(url: str, rule: str | None) -> None:
    got = broken_rule(url, LISTS)
    assert (got and got[0]) == rule
    if got:
        assert (got[1] < got[2]) if rule == "no_host" else (got[1] > got[2])


def test_more_soft_words_wanted_never_drops_more() -> None:
    urls = ["https://a.example/free", "https://a.example/free/win", "https://a.example/free/win/bonus"]
    dropped = [
        sum(broken_rule(u, UrlConfig(soft_words=LISTS.soft_words, min_soft_words=n)) is not None for u in urls)
        for n in (1, 2, 3, 4)
    ]
    assert dropped == [3, 2, 1, 0]


def test_stage_names_the_rule_and_passes_documents_without_url() -> None:
    docs = record_batch({"url": ["https://bad.example/", None, "https://good.example/"]}, RECORD)
    got = url_filter(docs, LISTS)
    assert got["drop_rule"].to_pylist() == ["url.domain", None, None]
    assert url_filter(docs.slice(1), LISTS).num_rows == 2


def test_lists_from_files(tmp_path: Path) -> None:
    path = tmp_path / "domains.txt"
    path.write_text("# ours\nlisted.example\n\n", encoding="utf-8")
    assert broken_rule("http://listed.example/", UrlConfig(domains=(f"file:{path}",))) == ("domain", 1.0, 0.0, "listed.example")
    with pytest.raises(UserError, match=r"missing.txt' cannot be read"):
        broken_rule("http://a.example/", UrlConfig(domains=(f"file:{tmp_path / 'missing.txt'}",)))


@pytest.mark.parametrize(("url", "name"), [("HTTP://A.Example/x", "a.example"), ("//c.example/p", "c.example"), ("x", "")])
def test_host(url: str, name: str) -> None:
    assert host(url) == name
