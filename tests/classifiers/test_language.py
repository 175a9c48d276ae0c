"""Language identification: labels, scores, and texts that have no language."""

import numpy as np
import pytest

from classifiers.language import MAX_CHARS, LanguageModel, bundled_model, language_model, prepare

TEXTS = [
    ("en", "It rained all night, and in the morning the river was over the road."),
    ("de", "Es regnete die ganze Nacht, und am Morgen stand der Fluss \u00fcber der Stra\u00dfe."),
    ("fr", "Il a plu toute la nuit, et le matin la rivi\u00e8re passait par-dessus la route."),
    ("es", "Llovi\u00f3 toda la noche y por la ma\u00f1ana el r\u00edo cubr\u00eda la carretera."),
    ("ru", "Всю ночь шёл дождь, и утром река была выше дороги."),
    ("zh", "\u4e0b\u4e86\u4e00\u591c\u7684\u96e8\uff0c\u65e9\u4e0a\u6cb3\u6c34\u6f2b\u8fc7\u4e86\u516c\u8def\u3002"),
    ("ja", "一晩中雨が降って、朝には川が道を越えていました。"),
    ("und", ""),
    ("und", " \n\t"),
    ("und", "12 + 34 = 46; ..."),
    ("und", "https://example.org/only/an/address someone@example.org"),
]  # fmt: skip


def test_labels() -> None:
    labels, scores = language_model().predict([text for _, text in TEXTS])
    assert labels == [lang for lang, _ in TEXTS]
    assert scores.shape == (len(TEXTS),)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert all((score == 0) == (lang == "und") for score, (lang, _) in zip(scores, TEXTS, strict=True))


def test_one_text_is_judged_by_itself() -> None:
    together = language_model().predict([text for _, text in TEXTS])
    for i, (_, text) in enumerate(TEXTS):
        label, score = language_model().predict([text])
        assert (label[0], score[0]) == (together[0][i], np.float32(together[1][i]))


def test_line_breaks_do_not_matter() -> None:
    text = TEXTS[0][1]
    assert prepare(text.replace(" ", "\r\n")) == prepare(text) == text


def test_long_text_is_read_at_its_beginning_middle_and_end() -> None:
    text = "a" * 5000 + "b" * 5000 + "c" * 5000
    got = prepare(text)
    assert len(got) <= MAX_CHARS + 2
    assert {c: got.count(c) for c in "abc"} == dict.fromkeys("abc", MAX_CHARS // 3)


def test_lone_surrogates_are_survived() -> None:
    labels, _ = language_model().predict([TEXTS[0][1] + "\ud83d"])
    assert labels == ["en"]


def test_loaded_once_a_process() -> None:
    assert language_model() is language_model()


def test_missing_model() -> None:
    assert bundled_model().name == "lid.176.ftz"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LanguageModel("nowhere.bin")
