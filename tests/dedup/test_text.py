import pyarrow as pa
import pytest

from pipelines.dedup.text import canonical_url, text_digests, url_digests


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("the same", "the same", True),
        ("  the\n\tsame ", "the same", True),  # runs of blanks are one space
        ("the\u3000same\u00a0text", "the same text", True),
        ("cafe\u0301", "caf\u00e9", True),  # NFC
        ("The same", "the same", False),  # case is kept
        ("\uff41", "a", False),  # NFC, not NFKC
        ("thesame", "the same", False),
    ],
)
def test_same_text(a, b, same):
    first, second = text_digests(pa.array([a, b])).to_pylist()
    assert (first == second) is same
    assert len(first) == 16


def test_an_empty_text_has_no_digest():
    assert text_digests(pa.array(["", None, " \n", "x"])).null_count == 3
    assert url_digests(pa.array(["", None, " ", "x"])).null_count == 3


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("http://example.org/a", "example.org/a"),
        ("HTTPS://WWW.Example.ORG:443/a/", "example.org/a"),
        ("http://example.org:8080/a", "example.org:8080/a"),
        ("http://example.org", "example.org"),
        ("http://example.org/", "example.org"),
        ("http://user:secret@example.org./a#part", "example.org/a"),
        ("http://example.org/a?b=2&a=1", "example.org/a?a=1&b=2"),
        ("http://example.org/a?utm_source=x&id=7&fbclid=y&PHPSESSID=z", "example.org/a?id=7"),
        ("http://example.org/A", "example.org/A"),  # paths have case
        ("http://example.org/a?q=", "example.org/a?q="),
        ("http://[broken", "http://[broken"),
        ("http://example.org:port/", "http://example.org:port/"),
        (" book-17 ", "book-17"),
    ],
)
def test_canonical_url(url, canonical):
    assert canonical_url(url) == canonical
