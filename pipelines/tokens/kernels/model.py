"""A tokenizer.json as tables for the kernels, or why it cannot be one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from pipelines.tokens.kernels.classes import class_table
from pipelines.tokens.kernels.merge import MOST_IDS, MOST_MERGES, make_merges
from pipelines.tokens.kernels.split import DEEPSEEK, GPT2, LETTER, LLAMA3, MARK, NUMBER, SPACE, WIDE
from pipelines.tokens.kernels.words import Model
from pipelines.tokens.presets import Preset, byte_characters, pre_tokenizer

_SCANNERS: Mapping[Preset, int] = {"gpt2": GPT2, "llama3": LLAMA3, "deepseek_llm": DEEPSEEK}
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "dropout": (None, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


class NotOurs(Exception):
    """The tokenizer does something that the kernels do not; says what."""


def read_model(text: str) -> Model:
    """The tables of a tokenizer, given as the library writes it (`Tokenizer.to_str`). Raises NotOurs.

    Special tokens in a text are taken for text, as with `encode_special_tokens`.
    """
    data = json.loads(text)
    preset = _preset(data["pre_tokenizer"])
    model, added = data["model"], data["added_tokens"]
    if data["normalizer"] is not None:
        raise NotOurs(f"it has a normalizer, {data['normalizer']['type']}")
    if model["type"] != "BPE":
        raise NotOurs(f"its model is {model['type']}")
    for field, plain in _PLAIN.items():
        if model.get(field) not in plain:
            raise NotOurs(f"its {field} is {model[field]!r}")
    if plain_tokens := [token["content"] for token in added if not token["special"]]:
        raise NotOurs(f"it has added tokens that are not special, {plain_tokens[0]!r} for one")
    vocab: Mapping[str, int] = model["vocab"]
    if max(vocab.values()) >= MOST_IDS or len(model["merges"]) > MOST_MERGES:
        raise NotOurs(f"it has ids of {MOST_IDS} or more, or more than {MOST_MERGES} merges")
    characters = byte_characters()
    if missing := [c for c in characters if c not in vocab]:
        raise NotOurs(f"{len(missing)} bytes are not in its vocabulary")
    byte_of = {c: byte for byte, c in enumerate(characters)}
    merges, made = {}, []
    for rank, (left, right) in enumerate(model["merges"]):
        merges[vocab[left], vocab[right]] = rank, vocab[left + right]
        made.append(left + right)
    byte_ids = np.array([vocab[c] for c in characters], np.uint32)
    tokens = [bytes(map(byte_of.__getitem__, token)) for token in made]
    classes, folds = _classes(preset)
    letters = np.array([b < 0x80 and bool(classes[b] & LETTER) for b in range(256)])
    return Model(_SCANNERS[preset], letters, classes, folds, make_merges(byte_ids, merges, tokens))


@cache
def _classes(preset: Preset) -> Any:
    if preset == "deepseek_llm":
        _, letters, marks, _, wide = [step["pattern"]["Regex"] for step in _own_steps(preset)[:5]]
        inner = ((SPACE, r"\s"), (LETTER, letters), (MARK, marks), (WIDE, wide))
        return class_table(
            tuple((flag, p.removeprefix(r"\s?").removesuffix("+")) for flag, p in inner), digits=True, fold=False
        )
    return class_table(((SPACE, r"\s"), (LETTER, r"\p{L}"), (NUMBER, r"\p{N}")), digits=False, fold=preset == "llama3")


def _preset(found: Any) -> Preset:
    """The preset that splits as this pre-tokenizer does."""
    steps = _steps(found)
    for preset in _SCANNERS:
        if steps == _own_steps(preset):
            return preset
    raise NotOurs("its pre_tokenizer is that of no preset")


def _own_steps(preset: Preset) -> list[Any]:
    return _steps(json.loads(pre_tokenizer(preset).__getstate__()))


def _steps(found: Any) -> list[Any]:
    """The steps of a pre-tokenizer without what leaves ids as they are. ByteLevel with a pattern of its own has gpt2's."""
    if not found:
        return []
    steps = [{k: v for k, v in step.items() if k != "trim_offsets"} for step in found.get("pretokenizers", [found])]
    own = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    return _own_steps("gpt2") if steps == [own] else steps
