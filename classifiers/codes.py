"""Language codes: ISO 639-1 where there is one, else 639-3, from whatever a fastText model calls its languages."""

from __future__ import annotations

import re
from importlib.resources import files

_LINES = files("classifiers").joinpath("codes.txt").read_text(encoding="ascii").splitlines()
_SHORT = dict(pair.split("=") for line in _LINES if not line.startswith("#") for pair in line.split())
# What lid.176 calls otherwise than we do
_LID = {"no": "nb", "als": "gsw", "arz": "ar", "eml": "egl", "bh": "bho"}
SERBO_CROATIAN = ("hr", "bs", "sr")  # what a model may mean by sh
_LABEL = re.compile(r"(?:__label__)?([A-Za-z]{2,3})(?:[_-]([A-Za-z]{4}))?(?:[_-].*)?$")


def code(label: str) -> str:
    """Our code for a model's label: `__label__de`, `__label__deu_Latn`, `__label__zh-Hant`; "und" for what is no language.

    `no` is Norwegian Bokmal (nb), `fil` Tagalog (tl), `cmn` Chinese (zh). `als` is Tosk Albanian (sq) in ISO 639-3, but where
    no script follows it is lid.176's label of Alemannic (gsw).
    """
    found = _LABEL.match(label)
    if not found:
        return "und"
    lang, script = found[1].lower(), found[2]
    if lang in ("und", "zxx", "mul", "mis"):
        return "und"
    if not script and lang in _LID:
        return _LID[lang]
    return _SHORT.get(lang, "nb" if lang == "no" else lang)
