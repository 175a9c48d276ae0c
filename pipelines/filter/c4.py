"""C4's line rules (arXiv 1910.10683, 2.2), read as datatrove 0.10.1 does: they change the text, then pages are judged.

Each line, stripped: a word that is too long drops it, citation marks like [1] are cut, then it must end in an end mark (not in
"..."), have enough words (counted before the citations went), not name javascript, and not be a policy notice. "lorem ipsum"
and "{" condemn the page, but only on a line that got so far; what was seen is counted here and judged by rule set `c4`.
FineWeb uses C4 with `end_mark=False`. Lines are those of `str.splitlines`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from pipelines.filter.languages import end_marks
from pipelines.filter.words import UNSPACED, count_sentences
from pipelines.recipe import batch_stage
from pipelines.schema import with_columns

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")

_COUNTS = ("c4_lorem_ipsum_lines", "c4_curly_bracket_lines", "c4_sentences", "c4_dropped_line_ratio")
C4_COLUMNS = pa.schema([(name, pa.float64()) for name in _COUNTS])


@dataclass(frozen=True)
class C4LinesConfig:
    """Which parts are on. With all off the text stays as it is and only the page columns are set."""

    citations: bool = True  # cut [1], [edit], [citation needed]
    end_mark: bool = True  # a line must end in an end mark of its language
    javascript: bool = True  # drop lines that say javascript
    policy: bool = True  # drop lines with one of six English policy phrases
    min_words: int | None = 3  # of a line; characters of scripts without blanks count one each
    max_word_chars: int | None = 1000  # not asked of words in scripts without blanks


@dataclass(frozen=True)
class CleanedLines:
    """What is left of a text, and what was seen on the way."""

    lines: list[str]
    lorem_ipsum: int
    curly_bracket: int
    sentences: int
    seen: int


def clean_lines(text: str, lang: str | None, cfg: C4LinesConfig) -> CleanedLines:
    """Apply the line rules to one text."""
    marks = end_marks(lang)
    kept: list[str] = []
    lorem = curly = sentences = 0
    lines = text.splitlines()
    for line in lines:
        line = line.strip()
        words = line.split()
        unspaced = 0 if line.isascii() else len(_UNSPACED.findall(line))
        if cfg.max_word_chars is not None and not unspaced and any(len(word) > cfg.max_word_chars for word in words):
            continue
        if cfg.citations:
            line = _CITATION.sub("", line)
        if cfg.end_mark and (not line.endswith(marks) or line.endswith("...")):
            continue
        if cfg.min_words is not None and max(len(words), unspaced) < cfg.min_words:
            continue
        lower = line.lower()
        lorem += "lorem ipsum" in lower
        if cfg.javascript and "javascript" in lower:
            continue
        curly += "{" in line
        if cfg.policy and any(phrase in lower for phrase in _POLICY):
            continue
        sentences += count_sentences(line)
        kept.append(line)
    return CleanedLines(kept, lorem, curly, sentences, len(lines))


@batch_stage(adds=C4_COLUMNS)
def c4_lines(docs: pa.RecordBatch, cfg: C4LinesConfig) -> pa.RecordBatch:
    """Replace `text` by its cleaned lines and set the columns that rule set `c4` judges. Decides nothing itself.

    A document with only null text keeps it and gets null measures. Measures taken before are stale afterwards.
    """
    langs = docs["lang"].to_pylist()
    change = any((cfg.citations, cfg.end_mark, cfg.javascript, cfg.policy, cfg.min_words, cfg.max_word_chars))
    texts: list[str | None] = []
    rows: list[tuple[float, float, float, float] | None] = []
    for text, lang in zip(docs["text"].to_pylist(), langs, strict=True):
        if text is None:
            texts.append(None)
            rows.append(None)
            continue
        cleaned = clean_lines(text, lang, cfg)
        texts.append("\n".join(cleaned.lines).strip() if change else text)
        dropped = (cleaned.seen - len(cleaned.lines)) / max(cleaned.seen, 1)
        rows.append((float(cleaned.lorem_ipsum), float(cleaned.curly_bracket), float(cleaned.sentences), dropped))
    columns = {
        name: pa.array([None if row is None else row[i] for row in rows], pa.float64()) for i, name in enumerate(_COUNTS)
    }
    return with_columns(docs, {"text": pa.array(texts, pa.string()), **columns})


_UNSPACED = re.compile("[" + "".join(f"{chr(a)}-{chr(b)}" for script in UNSPACED.values() for a, b in script) + "]")
