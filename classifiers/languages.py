"""The languages of labelled texts."""

from __future__ import annotations

from classifiers import features
from classifiers.labelled import Labelled
from classifiers.language import identify


def languages(data: Labelled) -> list[str]:
    """The language of each text: as the data says, else as `classifiers.language` finds; "und" for none."""
    if data.langs:
        return [lang or "und" for lang in data.langs]
    return identify(*features.buffers(data.texts)).langs
