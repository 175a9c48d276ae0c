"""Words, sentences and lines of a text, in any script. One tokenisation serves every measure.

*Tokens* are words, numbers and punctuation marks. Scripts that write no blanks between words (Han, kana, Thai, Lao, Khmer,
Burmese) give one token a character, with its combining marks: no dictionary, so every machine and every version agrees.
*Words* of such scripts are counted as `characters / CHARS_PER_WORD`, so that a bound on words means about the same amount of
text everywhere, and word n-grams are taken over `n * CHARS_PER_WORD` characters.

For English this follows spaCy's blank English tokenizer (what datatrove 0.10 uses) in what moves a measure: punctuation marks
are tokens of their own, hyphens split, `don't` is two tokens, numbers, addresses and abbreviations like `U.S.` are one.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from dataclasses import dataclass

# One token a character: (first, last) code points, and how many characters make a word. Han and kana: jieba and MeCab words
# have a mean of 1.6 to 2 characters in running text; Thai, Lao, Khmer, Burmese: about 3 letters, marks aside.
UNSPACED = {
    "cjk": ((0x3005, 0x3007), (0x3041, 0x3096), (0x30A1, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
            (0xFF66, 0xFF9F), (0x20000, 0x323AF)),
    "sea": ((0x0E01, 0x0E4F), (0x0E81, 0x0ECF), (0x1000, 0x103F), (0x1050, 0x108F), (0x1780, 0x17D3)),
}  # fmt: skip
CHARS_PER_WORD = {"cjk": 2, "sea": 3}

# Unicode Sentence_Terminal, the part that ends sentences in living scripts (PropList.txt).
SENTENCE_MARKS = (
    ".!?\u0589\u061d\u061e\u061f\u06d4\u0700\u0701\u0702\u07f9\u0964\u0965\u104a\u104b\u1362\u1367\u1368\u166e\u1803\u1809"
    "\u17d4\u17d5\u1c7e\u1c7f\u203c\u203d\u2047\u2048\u2049\u2e2e\u3002\ufe52\ufe56\ufe57\uff01\uff0e\uff1f\uff61"
)
CLOSING = "\"'\u2019\u201d\u00bb\u203a\u300d\u300f\u3011\uff09)\\]"
# Marks after which a sentence ends without a blank.
_WIDE_MARKS = "\u3002\uff01\uff1f\uff61\u0964\u0965\u104b\u17d4\u17d5\u06d4\u1362"


def _class(ranges: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in ranges)


def _marks() -> str:
    """Combining marks and joiners as a regex class: Python's `\\w` has them not, so Hindi words would fall to pieces."""
    points = [p for p in range(0x300, 0x1F000) if unicodedata.category(chr(p))[0] == "M"] + [0x200C, 0x200D]
    points += range(0xE0100, 0xE01F0)
    ranges, start = [], points[0]
    for point, following in zip(points, [*points[1:], sys.maxunicode + 2], strict=True):
        if following != point + 1:
            ranges.append((start, point))
            start = following
    return _class(tuple(ranges))


_CJK, _SEA, _MARKS = _class(UNSPACED["cjk"]), _class(UNSPACED["sea"]), _marks()
_LETTERS = rf"[^\W_{_CJK}{_SEA}][^\W{_CJK}{_SEA}]*(?:[{_MARKS}]+[^\W{_CJK}{_SEA}]*)*"
_CONTRACTION = r"(?:[sStTmMdD]|[lL][lL]|[rR][eE]|[vV][eE])\b"
# Marks that stay inside a word: before a digit, a point before a small letter, a hyphen from a letter to a digit.
_INNER = r"[.,:/\u2013](?=\d)|\.(?=[a-z])|(?<=[^\W\d])-(?=\d)"
# English abbreviations keep their point, as single letters do (spaCy's list of English exceptions, the common part).
_ABBREVIATIONS = (
    "Mr|Mrs|Ms|Messrs|Dr|St|Mt|Prof|Gen|Gov|Sen|Rep|Rev|Adm|Jr|Sr|Co|Corp|Inc|Ltd|Bros|vs|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct"
    "|Nov|Dec|Ala|Ariz|Ark|Calif|Colo|Conn|Del|Fla|Ga|Ill|Ind|Kan|Ky|Mass|Md|Mich|Minn|Miss|Mo|Mont|Neb|Nev|Okla|Ore|Pa|Tenn|Va|Wash|Wis"
)
# Groups in order: a character of a CJK script; of another script without blanks; a word. No group: a mark or symbol.
_TOKEN = re.compile(
    rf"((?:[{_CJK}])[{_MARKS}]*)|((?:[{_SEA}])[{_MARKS}]*)"
    rf"|((?:https?://|www\.)[^\s{_CJK}]*[^\s{_CJK}.,;:!?)\]\"']"
    rf"|(?:[A-Za-z]\.){{2,}}|[A-Za-z]\.(?!\w)|(?:{_ABBREVIATIONS})\.(?!\w)"
    rf"|(?:(?<![^\s(\[\"'])[-/\\@|]+)?{_LETTERS}(?:(?:['\u2019](?!{_CONTRACTION})|{_INNER}){_LETTERS})*"
    rf"|(?<=\w)['\u2019]{_CONTRACTION})"
    r"|\.{2,}|\u2026+|[-|/\\@^~=+]+|\S"
)
_UNSPACED = re.compile(f"[{_CJK}{_SEA}]")
_LETTER = re.compile(r"[^\W\d_]")
_SENTENCE_END = re.compile(
    rf"(?<![{SENTENCE_MARKS}])[{SENTENCE_MARKS}]++[{CLOSING}]*+(?=\s|$)|[{_WIDE_MARKS}]+[{CLOSING}]*"  # linear in runs of marks
)


@dataclass(frozen=True)
class Tokens:
    """The tokens of one text. `weights` of words: 1 for a written word, 1 / CHARS_PER_WORD for a character of its own."""

    tokens: list[str]
    words: float  # weighted tokens with a letter, digit or symbol other than punctuation
    word_chars: int  # characters of those
    units: float  # weighted tokens of all kinds
    with_letter: int  # tokens with a letter
    step: int  # tokens that stand for a word in n-grams: 1, or CHARS_PER_WORD where most of the text is of such a script


def is_word(token: str) -> bool:
    """Whether a token is more than punctuation: it has a letter, a digit, or a symbol outside ASCII (a currency, an arrow)."""
    return any(c.isalnum() or (c > "\x7f" and unicodedata.category(c)[0] in "SM") for c in token)


def tokenise(text: str) -> Tokens:
    """Split a text into tokens and count its words."""
    tokens: list[str] = []
    cjk = sea = plain = chars = letters = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        tokens.append(token)
        kind = match.lastindex
        if kind == 3:
            plain += 1
            chars += len(token)
            letters += token.isalpha() or _LETTER.search(token) is not None
        elif kind == 1:
            cjk += 1
            chars += len(token)
        elif kind == 2:
            sea += 1
            chars += len(token)
        elif is_word(token):
            plain += 1
            chars += len(token)
    unspaced = cjk / CHARS_PER_WORD["cjk"] + sea / CHARS_PER_WORD["sea"]
    step = 1
    if 2 * (cjk + sea) > len(tokens):
        step = CHARS_PER_WORD["cjk" if cjk >= sea else "sea"]
    units = len(tokens) - cjk - sea + unspaced
    return Tokens(tokens, plain + unspaced, chars, units, letters + cjk + sea, step)


def count_sentences(line: str) -> int:
    """Sentences of one line: at least one where it has any text; marks count before a blank, wide ones anywhere."""
    line = line.strip()
    if not line:
        return 0
    ends = list(_SENTENCE_END.finditer(line))
    return len(ends) + (not ends or ends[-1].end() < len(line))


def widths(lines: list[str]) -> list[int]:
    """Length of each line in characters, one of a script without blanks counted twice (it says about twice as much)."""
    return [len(line) + (0 if line.isascii() else len(_UNSPACED.findall(line))) for line in lines]
