"""Extend a vocabulary by entries for other languages, with no change to how it encodes its own (Llama 3: 100k and 28k more).

All merges of the extension rank behind those of the base, so a text is first encoded as the base does, and then goes on. It
stays as it was exactly if no new merge applies, which two walls see to. By characters: new entries are learnt only in runs of
characters that are foreign to the base's texts, and none is a part of a character that is not. By sample: no two tokens are
merged that stand side by side in a piece of the base's sample. A piece that holds a foreign character, as a name in a
quotation, is not the base's own and becomes shorter.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from pipelines.errors import UserError
from pipelines.tokens.compression import encoder_of
from pipelines.tokens.merges import WALL, learn_merges
from pipelines.tokens.presets import byte_characters, token_bytes
from pipelines.tokens.train import TokenizerConfig

log = logging.getLogger(__name__)

FOREIGN = 10  # a character that is no letter is foreign if it is so many times as frequent in the texts to extend on
OWN_SCRIPT = 0.05  # of the letters of the base's texts: a script with less is a guest there
MOST_FOREIGN = 0.01  # of the characters of the base's texts; with more, they are no texts of its own
BATCH = 32  # texts encoded at once: the library needs a hundred bytes a token

# the bytes of a whole character of several
_CHARACTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}", re.DOTALL)
_PART = re.compile(rb"([\x80-\xbf]*)([\xc2-\xf4][\x80-\xbf]*)?", re.DOTALL)

Pieces = Counter[bytes]  # ids of a piece as int32, and how often it occurs


@dataclass(frozen=True)
class Extension:
    """What became of the base, and what the documents of its own languages say to it.

    `base_size`, `added`: entries; `special`: of those added. `documents`: of the base's languages in the sample, of which
    `unchanged` have the ids that they had. The others hold `foreign` characters; `tokens` and `tokens_after` are of all.
    """

    base_size: int
    added: int
    special: int
    documents: int
    unchanged: int
    characters: int
    foreign: int
    tokens: int
    tokens_after: int


def load_base(path: str) -> Tokenizer:
    """A byte-level tokenizer.json. Raises UserError if it cannot be read, or is of another kind."""
    try:
        tokenizer = Tokenizer.from_str(Path(path).read_bytes().decode())
    except OSError as error:
        raise UserError(f"tokenizer.base {path}: {error.strerror}") from error
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"tokenizer.base {path} is no tokenizer.json ({error})") from error
    vocab = tokenizer.get_vocab().keys() - {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    alphabet = set(byte_characters())
    if (
        json.loads(tokenizer.to_str())["model"]["type"] != "BPE"
        or not alphabet <= vocab
        or not alphabet.issuperset("".join(vocab))
    ):
        raise UserError(f"tokenizer.base {path} is no byte-level BPE tokenizer, and no other can be extended")
    return tokenizer


def extend(base: Tokenizer, sample: pa.Table, cfg: TokenizerConfig) -> tuple[Tokenizer, Extension]:
    """The base with the special tokens that it lacks and `cfg.extra` entries learnt on the rows of `sample` (columns source,
    lang, text) whose language or source `cfg.extend_on` names; ids of the base stay, new ones follow.

    Raises UserError if the sample has no such rows or no others, or if the others turn out to be written in what is learnt.
    """
    named = pa.array(cfg.extend_on, pa.string())
    chosen: Any = pc.or_(pc.is_in(sample["lang"], named), pc.is_in(sample["source"], named))
    other, own = (sample.filter(rows)["text"].to_pylist() for rows in (chosen, pc.invert(chosen)))
    if not len(other) or not len(own):
        there = sorted({*sample["lang"].to_pylist(), *sample["source"].to_pylist()})
        lacking = "is of no language or source of" if not len(other) else "leaves nothing to hold unchanged of"
        raise UserError(f"tokenizer.extend_on {[*cfg.extend_on]} {lacking} the sample, which has {', '.join(there)}")
    tokens = token_bytes(base)
    alphabet = Alphabet.of(own, other)
    kept = Counter({p: n for p, n in pieces(base, own).items() if alphabet.foreign.isdisjoint(_text(p, tokens))})
    first = len(tokens) + len(special := [t for t in cfg.special_tokens if base.token_to_id(t) is None])
    symbols, counts = _words(pieces(base, other), tokens, alphabet if cfg.guard == "characters" else None)
    rule = _Rule(tokens, special, _pairs(kept), alphabet if cfg.guard == "characters" else None)
    merges = learn_merges(symbols, counts, cfg.extra, first, rule.allows)
    if not merges:
        raise UserError(
            f"tokenizer.extend_on {[*cfg.extend_on]} has nothing to learn that the other documents are not written in as well; "
            "take out those of its languages, or set tokenizer.guard to sample"
        )
    if len(merges) < cfg.extra:
        log.warning("the sample holds %d entries to extend the tokenizer by, %d were asked for", len(merges), cfg.extra)
    tokenizer = _grown(base, special, merges, rule.tokens)
    return tokenizer, _checked(base, tokenizer, own, alphabet, len(merges), len(special))


# --- characters -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alphabet:
    """`own`: the characters that the base's texts are written in; `foreign`: those of the texts to extend on that are none."""

    own: frozenset[str]
    foreign: frozenset[str]

    @classmethod
    def of(cls, own: Iterable[str], other: Iterable[str]) -> Alphabet:
        """By how often each character occurs on either side. A letter is judged by its script, as `unicodedata` names it: of a
        script that is the base's, all are its own. Any other character is judged by itself. ASCII is everybody's.
        """
        here, there = Counter[str](), Counter[str]()
        for counter, texts in ((here, own), (there, other)):
            for text in texts:
                counter.update(text)
        ratio = FOREIGN * max(there.total(), 1) / max(here.total(), 1)
        scripts = Counter[str]()
        for c, n in here.items():
            scripts[_script(c)] += n
        letters = scripts.total() - scripts.pop("", 0)
        home = {script for script, n in scripts.items() if n >= OWN_SCRIPT * letters}

        def is_foreign(c: str) -> bool:
            return script not in home if (script := _script(c)) else there[c] > ratio * here[c]

        foreign = {c for c in there if not c.isascii() and is_foreign(c)}
        mine = {c for c in map(chr, range(0x80, 0x40000)) if _script(c) in home}
        return cls(frozenset(mine | {c for c in here if not _script(c)} - foreign), frozenset(foreign))

    @cached_property
    def parts(self) -> tuple[frozenset[bytes], frozenset[bytes], frozenset[bytes]]:
        """What a token may hold of an own character that it does not hold whole: its first bytes, its last ones, any."""
        found: tuple[set[bytes], set[bytes], set[bytes]] = (set(), set(), set())
        for data in (c.encode() for c in self.own):
            for k in range(1, len(data)):
                found[0].add(data[:k])
                found[1].add(data[k:])
                found[2].update(data[k:end] for end in range(k + 1, len(data) + 1))
        return frozenset(found[0]), frozenset(found[1]), frozenset(found[2])


def _script(character: str) -> str:
    """The first word of a letter's name, which is its script ("LATIN", "CJK", "ARABIC"); "" for what is no letter."""
    return unicodedata.name(character, "").partition(" ")[0] if unicodedata.category(character)[0] == "L" else ""


# --- pieces ---------------------------------------------------------------------------------------------------------------


def pieces(tokenizer: Tokenizer, texts: Sequence[str]) -> Pieces:
    """The pieces of several tokens into which texts are split, as the ids of each, and how often it occurs."""
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    found: Pieces = Counter()
    for start in range(0, len(texts), BATCH):
        for encoding in plain.encode_batch([*texts[start : start + BATCH]], add_special_tokens=False):
            ids, numbers = np.array(encoding.ids, np.int32), np.array(encoding.word_ids, np.int64)
            ends = np.flatnonzero(np.diff(numbers, append=-1)) + 1
            starts = np.append(0, ends[:-1])
            several = ends - starts > 1
            found.update(ids[a:b].tobytes() for a, b in zip(starts[several].tolist(), ends[several].tolist(), strict=True))
    return found


def _text(piece: bytes, tokens: Sequence[bytes]) -> str:
    return b"".join(tokens[i] for i in np.frombuffer(piece, np.int32).tolist()).decode(errors="replace")


def _pairs(found: Pieces) -> set[tuple[int, int]]:
    """The tokens that stand side by side in some piece."""
    symbols, _ = _joined(np.frombuffer(piece, np.int32) for piece in found)
    sides = np.unique(np.stack([symbols[:-1], symbols[1:]]), axis=1)
    return set(map(tuple, sides[:, (sides >= 0).all(0)].T.tolist()))


def _joined(words: Iterable[npt.NDArray[np.int32]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """All words with walls around them, and the length of each with its wall."""
    wall, parts, sizes = np.array([WALL], np.int32), [np.array([WALL], np.int32)], [1]
    for word in words:
        parts += [word, wall]
        sizes.append(len(word) + 1)
    return np.concatenate(parts), np.array(sizes)


def _words(
    found: Pieces, tokens: Sequence[bytes], alphabet: Alphabet | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """The pieces as `learn_merges` takes them; with an alphabet, a token with a byte of what is not foreign is a wall too."""
    ordered = sorted(found)
    cut = (_cut(piece, tokens, alphabet) if alphabet else np.frombuffer(piece, np.int32) for piece in ordered)
    symbols, sizes = _joined(cut)
    return symbols, np.repeat([0, *(found[piece] for piece in ordered)], sizes)


def _cut(piece: bytes, tokens: Sequence[bytes], alphabet: Alphabet) -> npt.NDArray[np.int32]:
    text, ids = _text(piece, tokens), np.frombuffer(piece, np.int32)
    if alphabet.foreign.issuperset(text):
        return ids
    outside = np.repeat([c not in alphabet.foreign for c in text], [len(c.encode()) for c in text])
    ends = np.cumsum([len(tokens[i]) for i in ids.tolist()])
    return np.where(np.logical_or.reduceat(outside, np.append(0, ends[:-1])), np.int32(WALL), ids)


# --- merges ---------------------------------------------------------------------------------------------------------------


class _Rule:
    """Which pairs may be merged; keeps the bytes of each token, those of the extension as they are allowed."""

    def __init__(
        self, base: Sequence[bytes], special: Sequence[str], own: set[tuple[int, int]], alphabet: Alphabet | None
    ) -> None:
        self.tokens = [*base, *(b"" for _ in special)]
        self._known, self._own, self._alphabet = set(base), own, alphabet

    def allows(self, left: int, right: int) -> bool:
        """Neither the bytes of an entry that is there, so that each is made in one way, nor what the base's texts may hold."""
        made = self.tokens[left] + self.tokens[right]
        if made in self._known or (left, right) in self._own or (self._alphabet and may_hold(self._alphabet, made)):
            return False
        self._known.add(made)
        self.tokens.append(made)
        return True


def may_hold(alphabet: Alphabet, made: bytes) -> bool:
    """Whether a text of own characters may hold these bytes, which are of foreign ones. A whole character settles it; else they
    are the end of one character, the beginning of another, or both, or from the midst of one.
    """
    if _CHARACTER.search(made) or not (part := _PART.fullmatch(made)):
        return False
    first, last, any_ = alphabet.parts
    end, begin = part[1], part[2] or b""
    if end and begin:
        return end in last and begin in first
    return begin in first if begin else end in any_


def _grown(base: Tokenizer, special: Sequence[str], merges: Sequence[tuple[int, int]], tokens: Sequence[bytes]) -> Tokenizer:
    """The base with more. Added tokens stand in its vocabulary too, so that a reader has no other way to number them."""
    data = json.loads(base.to_str())
    model, added = data["model"], data["added_tokens"]
    model["vocab"] |= {token["content"]: token["id"] for token in added}
    first = max(model["vocab"].values()) + 1
    for number, content in enumerate(special, first):
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        added.append({"id": number, "content": content} | plain)
        model["vocab"][content] = number
    characters = byte_characters()
    names = ["".join(characters[b] for b in token) for token in tokens]
    for number, (left, right) in enumerate(merges, first + len(special)):
        model["vocab"][names[number]] = number
        model["merges"].append([names[left], names[right]])
    return Tokenizer.from_str(json.dumps(data))


def _checked(
    base: Tokenizer, tokenizer: Tokenizer, own: Sequence[str], alphabet: Alphabet, added: int, special: int
) -> Extension:
    """Encode the base's documents both ways and compare. Raises UserError where what must stay does not."""
    before, after = encoder_of(base), encoder_of(tokenizer)
    unchanged = characters = foreign = tokens = tokens_after = 0
    for start in range(0, len(own), BATCH):
        texts = own[start : start + BATCH]
        batch = pa.array(texts, pa.large_string())
        for text, old, new in zip(texts, _rows(before, batch), _rows(after, batch), strict=True):
            guests = sum(map(text.count, alphabet.foreign.intersection(text)))
            same = np.array_equal(old, new)
            if not same and not guests:
                raise UserError(f"the extension changes a text of the base's own characters: {text[:80]!r}; please report this")
            unchanged, characters, foreign = unchanged + same, characters + len(text), foreign + guests
            tokens, tokens_after = tokens + len(old) - 1, tokens_after + len(new) - 1
    if foreign > MOST_FOREIGN * characters:
        raise UserError(
            f"{foreign:,} of {characters:,} characters of the {len(own):,} documents that extend_on does not name are foreign "
            f"to them, and the extension changes {len(own) - unchanged:,}; name their languages there too, or leave them out"
        )
    size = max(base.get_vocab(with_added_tokens=True).values()) + 1
    return Extension(size, added, special, len(own), unchanged, characters, foreign, tokens, tokens_after)


def _rows(encoder: Any, texts: pa.Array) -> Iterator[npt.NDArray[np.uint32]]:
    ids, offsets = encoder(texts)
    return iter(np.split(ids, offsets[1:-1]))
