"""Language identification: languages, scripts, shares, and texts that have no language."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from classifiers.language import Identified, LanguageModel, as_buffers, bundled_model, identify, language_model, prepare

# One sentence, in many languages
RAIN = dict(line.split("\t") for line in Path(__file__).with_name("rain.tsv").read_text(encoding="utf-8").splitlines())
NO_LANGUAGE = {
    "empty": "",
    "blanks": " \n\t\u00a0\u2028",
    "numbers": "12 + 34 = 46; 1,204.50 (3) ...",
    "address": "https://example.org/only/an/address someone@example.org",
    "code": "static int put(struct ring *r) {\n\tif (r->n == r->max)\n\t\treturn -EAGAIN;\n\tr->n++;\n\treturn 0;\n}",
    "python": "def area(self):\n    w, h = self.size\n    return w * h\n\nfor box in boxes:\n    print(box.area())\n",
    "json": '{"id": 7, "tags": ["a", "b"], "size": {"w": 3, "h": 4}, "on": true}',
    "formula": r"\int_0^1 \frac{x^2}{1+x} \, dx = \ln 2 - \frac{1}{2}",
    "base64": "qL0mZk3RzT9vXw1+Yp8sGf/2HdKc7uNbE5jAaVtQiMxO6rWlBnSyPgC4ZhUeFoIkD0==",
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "paths": "/usr/lib/x86_64/libfoo.so.3\nC:\\Windows\\System32\\drivers\\etc\\hosts\n/var/log/app/2024.log",
    "times": "2024-05-01T10:00:00Z 2024-05-01T10:00:05Z 10:15:33 10:15:48",
    "serials": "SN-88AX-19920-QQ7 SN-88AX-19921-QR1 SN-88AX-19922-QT4",
    "drawing": "+----+----+\n| a1 | b2 |\n+----+----+\n\u2588\u2593\u2592\u2591\u2588\u2593\u2592\u2591",
    "emoji": "\U0001f600\U0001f600 \u2605\u2606 \U0001f44d",
}


def found(*texts: str | None) -> Identified:
    return identify(*as_buffers(texts))


@pytest.mark.parametrize(("lang", "text"), RAIN.items(), ids=RAIN)
@pytest.mark.parametrize(
    "change", [str, str.upper, lambda text: unicodedata.normalize("NFD", text)], ids=["", "capitals", "apart"]
)
def test_a_sentence(lang: str, text: str, change: type[str]) -> None:
    got = found(change(text))
    assert got.langs == [lang]
    assert got.scores[0] > 0.5


@pytest.mark.parametrize("text", NO_LANGUAGE.values(), ids=NO_LANGUAGE)
def test_no_language(text: str) -> None:
    got = found(text)
    assert (got.langs, got.scores.tolist(), got.scripts) == (["und"], [0.0], [None])


def test_none_is_no_language() -> None:
    assert found(None, "").shares == [[], []]
    assert found().langs == []


def test_a_text_is_judged_by_itself_alone() -> None:
    texts = [*RAIN.values(), *NO_LANGUAGE.values()]
    together, backwards = found(*texts), found(*texts[::-1])
    for i, text in enumerate(texts):
        alone = found(text)
        for batch, at in ((together, i), (backwards, len(texts) - 1 - i)):
            assert (batch.langs[at], batch.scores[at], batch.shares[at]) == (alone.langs[0], alone.scores[0], alone.shares[0])


def test_loaded_once_a_process() -> None:
    assert language_model() is language_model()


def test_missing_model() -> None:
    assert bundled_model().name == "lid.176.ftz"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LanguageModel("nowhere.bin")


def test_what_fasttext_reads() -> None:
    assert prepare("A  line\nand https://example.org/x another\t") == "A line and another"
    assert prepare("ONLY CAPITALS HERE, almost") == "only capitals here, almost"
    assert prepare("e\u0301te\u0301 NATO") == "\u00e9t\u00e9 NATO"


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    data = np.frombuffer(
        RAIN["en"].encode() + b"\xff\xfe\x80\xc3 \xe4\xb8\xf0\x9f\x98" + RAIN["en"].encode() + b"\xf0\x9f", np.uint8
    )
    got = identify(data, np.array([0, len(data)]), np.array([True]))
    assert got.langs == ["en"]
