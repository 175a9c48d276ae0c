"""The chat template: turns of a conversation to token ids and their roles, as pure functions.

    <|system|>Be brief.<|end|><|user|>What is 2 + 2?<|end|><|assistant|>4<|end|><|endoftext|>

A turn is opened by the special token of its speaker and ended by one; what is between is text, encoded by itself, so that no
entry of the vocabulary crosses into a marker and no text, whatever a user writes, becomes one. A turn that calls a tool is
the assistant's and begins with the tool's marker, which the model writes itself; a list of tools is the system's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.shards.manifest import ShardError
from pipelines.shards.roles import (
    ANSWER,
    ASSISTANT,
    CONTEXT,
    HEADER,
    NONE,
    SYSTEM,
    TERMINATOR,
    TOOL,
    TOOL_CALL,
    USER,
    Codes,
    code,
)

Ids = npt.NDArray[np.int64]
Encode = Callable[[str], Sequence[int] | npt.NDArray[Any]]  # text to ids: no special token is read in it, and none added

# By the role of a message: the markers that open its turn with the part each is of, and the part of its text.
_TURNS: dict[str, tuple[tuple[tuple[str, int], ...], int]] = {
    "system": ((("system", HEADER),), SYSTEM),
    "tools": ((("system", HEADER), ("tool", HEADER)), SYSTEM),  # what tools there are, as JSON
    "user": ((("user", HEADER),), USER),
    "assistant": ((("assistant", HEADER),), ASSISTANT),
    "tool_call": ((("assistant", HEADER), ("tool", TOOL_CALL)), TOOL_CALL),
    "tool": ((("tool", HEADER),), TOOL),  # what a tool gave back
}
ROLES = tuple(_TURNS)
WRITTEN = ("assistant", "tool_call")  # by the model


@dataclass(frozen=True)
class Template:
    """The special tokens that open and end turns, and `eos`, which ends a sequence; our tokenizers reserve these."""

    system: str = "<|system|>"
    user: str = "<|user|>"
    assistant: str = "<|assistant|>"
    tool: str = "<|tool|>"
    end: str = "<|end|>"
    eos: str = "<|endoftext|>"


@dataclass(frozen=True)
class Markers:
    """The ids of a template's tokens in one tokenizer."""

    system: int
    user: int
    assistant: int
    tool: int
    end: int
    eos: int


@dataclass(frozen=True)
class Turn:
    """A message as `role` (of ROLES) and the ids of its text; `grade`: of roles.py, for what the model writes."""

    role: str
    ids: Sequence[int] | npt.NDArray[Any]
    grade: int = CONTEXT


def markers(template: Template, token_to_id: Callable[[str], int | None]) -> Markers:
    """The ids of a template's tokens. Raises ShardError for a tokenizer that lacks one, or has one id for two."""
    found = {f.name: token_to_id(getattr(template, f.name)) for f in fields(template)}
    missing = [getattr(template, name) for name, number in found.items() if number is None]
    if missing:
        raise ShardError(
            f"the tokenizer has no token {', '.join(map(repr, missing))} for the turns of a conversation; add them as special "
            "tokens before the base model is trained, or name its own in the template"
        )
    if len(set(found.values())) < len(found):
        raise ShardError(f"the template has one token for two things: {template}; give each its own")
    return Markers(**{name: number for name, number in found.items() if number is not None})


def render(turns: Iterable[Turn], marks: Markers) -> tuple[Ids, Codes]:
    """A sequence: ids and their codes (roles.py), shape (tokens,) each, eos last."""
    ids: list[Ids] = []
    codes: list[Codes] = []
    for turn in turns:
        opening, part = _TURNS[turn.role]
        parts = [p for _, p in opening] + [part] * len(turn.ids) + [TERMINATOR]
        ids += [np.array([getattr(marks, name) for name, _ in opening]), np.asarray(turn.ids, np.int64), np.array([marks.end])]
        codes.append(np.array([code(p, turn.grade) for p in parts], np.uint8))
    return np.concatenate([*ids, [marks.eos]]), np.append(np.concatenate(codes), np.uint8(NONE)).astype(np.uint8)


def render_messages(messages: Iterable[tuple[str, str]], marks: Markers, encode: Encode) -> tuple[Ids, Codes]:
    """`render` of (role, text) in order: all that the model writes is an answer to learn."""
    return render((Turn(role, encode(text), ANSWER if role in WRITTEN else CONTEXT) for role, text in messages), marks)


def render_prompt(messages: Iterable[tuple[str, str]], marks: Markers, encode: Encode) -> Ids:
    """The ids of the messages so far and the header that the assistant's next turn opens with: what a model goes on from."""
    ids, _ = render((Turn(role, encode(text)) for role, text in messages), marks)
    return np.append(ids[:-1], marks.assistant)


def jinja(template: Template) -> str:
    """The template in the language of `transformers.PreTrainedTokenizerBase.apply_chat_template`; roles are those of ROLES.

    There markers are text like any other, so a user who writes one is read as having opened a turn: `render` knows better.
    """
    cases = []
    for role, (opening, _) in _TURNS.items():
        words = "".join(getattr(template, name) for name, _ in opening)
        cases.append(f"if message['role'] == {role!r} %}}{{{{ {words!r} + message['content'] + {template.end!r} }}}}")
    refused = "{% else %}{{ raise_exception('no role ' + message['role']) }}{% endif %}{% endfor %}"
    turns = "{% for message in messages %}{% " + "{% el".join(cases) + refused
    return f"{turns}{{{{ {template.assistant!r} if add_generation_prompt else {template.eos!r} }}}}"
