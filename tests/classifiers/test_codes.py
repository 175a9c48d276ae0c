"""What fastText models call languages, and what we call them."""

import pytest

from classifiers.codes import code
from classifiers.language import language_model
from classifiers.scripts import SCRIPTS, WRITTEN, may_write


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("__label__en", "en"),
        ("__label__deu_Latn", "de"),
        ("__label__eng-Latn", "en"),
        ("__label__zho_Hans", "zh"),
        ("__label__cmn_Hani", "zh"),
        ("__label__zh-Hant", "zh"),
        ("__label__no", "nb"),
        ("__label__nor", "nb"),
        ("__label__nob_Latn", "nb"),
        ("__label__nn", "nn"),
        ("__label__fil_Latn", "tl"),
        ("__label__tgl", "tl"),
        ("__label__als", "gsw"),  # lid.176: Alemannic
        ("__label__als_Latn", "sq"),  # GlotLID: Tosk Albanian
        ("__label__arz", "ar"),
        ("__label__arb_Arab", "ar"),
        ("__label__pes_Arab", "fa"),
        ("__label__ekk_Latn", "et"),
        ("__label__zsm_Latn", "ms"),
        ("__label__ceb", "ceb"),  # no ISO 639-1
        ("__label__und_Zxxx", "und"),
        ("__label__zxx_Zxxx", "und"),
        ("zul", "zu"),
        ("something else", "und"),
        ("", "und"),
    ],
)
def test_labels(label: str, wanted: str) -> None:
    assert code(label) == wanted


def test_every_label_of_lid_176_has_a_code_in_use() -> None:
    knows = language_model().knows
    assert len(knows) > 160
    assert {"en", "nb", "nn", "zh", "tl", "gl", "sr", "gsw"} <= knows
    assert not {"no", "als", "und", "zu", "xh"} & knows


@pytest.mark.parametrize(
    ("lang", "script", "answer"),
    [
        ("en", "Latn", True),
        ("en", "Cyrl", False),
        ("ru", "Latn", False),
        ("sr", "Latn", True),
        ("sr", "Cyrl", True),
        ("ja", "Kana", True),
        ("zh", "Kana", False),
        ("ko", "Hani", False),
        ("zu", "Latn", True),
        ("yi", "Hebr", True),
        ("en", "Zyyy", True),
    ],
)
def test_who_may_write(lang: str, script: str, answer: bool) -> None:
    assert may_write(lang, script) is answer


def test_scripts() -> None:
    assert SCRIPTS[0] == "Zyyy"
    assert len(set(SCRIPTS)) == len(SCRIPTS) > 30
    assert "Latn" not in WRITTEN
