import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.extract.engines import Engine, Favour, choose, engine, normalise

ARTICLE = (
    "<html><head><title>Herons</title></head><body><nav><a href=/>Home</a> <a href=/x>Contact</a></nav><article><h1>Herons</h1>"
    + "".join(
        f"<p>Paragraph {i}: the heron waits at the edge of the water, and it does not move for a long time.</p>"
        for i in range(6)
    )
    + "</article><footer>Copyright, all rights reserved, imprint</footer></body></html>"
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\u2028b\u2029c\u0085d", "a\nb\nc\nd"),
        ("a  \n b\t\n", "a\n b"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("a\n \n\t\n\u00a0\nb", "a\n\nb"),
        ("e\u0301", "\u00e9"),
        ("a\0b\ufeffc\x1bd\x80e", "abcde"),
        ("lone \ud800 half", "lone  half"),
        ("  \n", ""),
    ],
)
def test_text_is_normalised(text: str, normal: str) -> None:
    assert normalise(text) == normal


@given(st.text(alphabet=st.characters() | st.sampled_from("\r\n \t\u0301e\u2028\x00")))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    once.encode()


@pytest.mark.parametrize("name", ["trafilatura", "resiliparse"])
@pytest.mark.parametrize("favour", ["precision", "balanced", "recall"])
def test_the_article_comes_out(name: Engine, favour: Favour) -> None:
    text = engine(name, favour, tables=True, comments=False, rescue=0.5)(ARTICLE)
    assert all(f"Paragraph {i}: the heron waits" in text for i in range(6))
    if (name, favour) != ("resiliparse", "recall"):
        assert "Copyright" not in text
        assert "Contact" not in text


def test_a_page_gives_the_same_text_whatever_came_before() -> None:
    run = engine("trafilatura", "balanced", tables=True, comments=False, rescue=0.5)
    assert len({run(ARTICLE) for _ in range(5)}) == 1


def test_where_one_engine_finds_nothing_the_other_is_asked() -> None:
    deep = "<html><body>" + "<div>" * 500 + "<p>Words at the bottom of five hundred elements.</p>" + "</div>" * 500
    assert "Words at the bottom" in engine("trafilatura", "balanced", tables=True, comments=False, rescue=0.5)(deep)


@pytest.mark.parametrize(
    ("one", "other", "rescue", "text"),
    [
        ("12345", "1234567890", 0.5, "12345"),
        ("1234", "1234567890", 0.5, "1234567890"),
        ("1234", "1234567890", 0.0, "1234"),
        ("", "1234567890", 0.0, "1234567890"),
        ("1234567890", "", 1.0, "1234567890"),
        (" \n", "", 0.5, ""),
    ],
)
def test_the_other_engine_rescues_what_this_one_misses(one: str, other: str, rescue: float, text: str) -> None:
    assert choose(lambda _: one, lambda _: other, rescue, "") == text
