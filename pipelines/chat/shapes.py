"""The shapes in which conversations and preferences are published, each read into one: a prompt and its answers, best first.

| fields | shape | becomes |
|---|---|---|
| messages (, tools) | roles and contents, OpenAI's tool_calls too | a conversation |
| conversations (, system, tools) | ShareGPT: from and value | a conversation |
| instruction, output (, input, system, history) | Alpaca | a conversation |
| prompt, completion | TRL: prompt and completion | an answer to learn |
| prompt, completion, label | TRL: unpaired preference | an answer that is good or bad |
| (prompt,) chosen, rejected (, rating, edited) | TRL and Llama 3: preference | answers, edited > chosen > rejected |

A prompt or an answer is a text or messages; where `chosen` and `rejected` are whole conversations, their prompt is what they
begin with in common. Other fields are left behind. First match wins, from the bottom up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.shards import roles
from pipelines.shards.template import ROLES

Record = Mapping[str, Any]
Message = tuple[str, str]  # role, text

# How others name the roles of template.ROLES.
_SPEAKERS = {role: role for role in ROLES} | {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "developer": "system",
    "function_call": "tool_call",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
}
RATINGS = {
    "significantly better": roles.SIGNIFICANTLY,
    "better": roles.BETTER,
    "slightly better": roles.SLIGHTLY,
    "marginally better": roles.MARGINALLY,
}


class BadShape(Exception):
    """A record that is no conversation: class and message of its quarantine row."""


@dataclass(frozen=True)
class Chat:
    """Turns in order, and answers to them as (text, grade of roles.py), the best first.

    Without answers the turns are a conversation, and what the assistant says in it is to be learnt.
    """

    messages: tuple[Message, ...]
    answers: tuple[tuple[str, int], ...] = ()


def read_chat(record: Record) -> Chat:
    """The conversation, or the prompt and answers, of a record. Raises BadShape, with what is missing."""
    given = {name: value for name, value in record.items() if value is not None}
    for needed, read in reversed(_SHAPES):
        if given.keys() >= needed:
            return read(given)
    known = "; ".join(", ".join(sorted(needed)) for needed, _ in _SHAPES)
    raise BadShape("UnknownShape", f"the record has {', '.join(given) or 'no fields'}; a conversation has one of: {known}")


# --- shapes ---------------------------------------------------------------------------------------------------------------


def _messages(record: Record) -> Chat:
    return Chat(_with_tools(_turns(record["messages"], "messages"), record))


def _sharegpt(record: Record) -> Chat:
    return Chat(_with_tools((*_system(record), *_turns(record["conversations"], "conversations")), record))


def _alpaca(record: Record) -> Chat:
    past = [
        turn
        for question, answer in _list(record.get("history", []), "history")
        for turn in (("user", _text(question, "history")), ("assistant", _text(answer, "history")))
    ]
    asked = [_text(record[name], name) for name in ("instruction", "input") if record.get(name)]
    answer = ("assistant", _text(record["output"], "output"))
    return Chat(_with_tools((*_system(record), *past, ("user", "\n".join(asked)), answer), record))


def _completion(record: Record) -> Chat:
    prompt, (answer,) = _split(record, "completion")
    return Chat(prompt, ((answer, roles.ANSWER),))


def _judged(record: Record) -> Chat:
    prompt, (answer,) = _split(record, "completion")
    if not isinstance(label := record["label"], (bool, int)) or label not in (0, 1):
        raise BadShape("WrongType", f"field 'label' is {label!r}, not true or false")
    return Chat(prompt, ((answer, roles.GOOD if label else roles.BAD),))


def _preference(record: Record) -> Chat:
    rating = record.get("rating")
    if rating is not None and rating not in RATINGS:
        raise BadShape("UnknownRating", f"field 'rating' is {rating!r}, none of {', '.join(RATINGS)}")
    edited = ["edited"] if record.get("edited") else []
    prompt, texts = _split(record, *edited, "chosen", "rejected")
    grades = [roles.EDITED] * len(edited) + [RATINGS.get(str(rating), roles.UNRATED), roles.LAST]
    return Chat(prompt, tuple(zip(texts, grades, strict=True)))


_SHAPES: tuple[tuple[frozenset[str], Callable[[Record], Chat]], ...] = (
    (frozenset({"messages"}), _messages),
    (frozenset({"conversations"}), _sharegpt),
    (frozenset({"instruction", "output"}), _alpaca),
    (frozenset({"prompt", "completion"}), _completion),
    (frozenset({"prompt", "completion", "label"}), _judged),
    (frozenset({"chosen", "rejected"}), _preference),
)


# --- parts ----------------------------------------------------------------------------------------------------------------


def _split(record: Record, *names: str) -> tuple[tuple[Message, ...], list[str]]:
    """The prompt, and the text of each answer, which is one turn of the assistant after it."""
    turns = [_speech(record[name], name, "assistant") for name in names]
    prompt = _speech(record["prompt"], "prompt", "user") if "prompt" in record else ()
    common = 0
    while all(len(t) > common + 1 and t[common] == turns[0][common] for t in turns):
        common += 1
    for name, said in zip(names, turns, strict=True):
        if [role for role, _ in said[common:]] != ["assistant"]:
            what = ", ".join(role for role, _ in said[common:])
            raise BadShape("NotAnAnswer", f"field {name!r} is not one turn of the assistant after the prompt, but: {what}")
    shared = turns[0][:common]
    prompt = shared if shared[: len(prompt)] == prompt else (*prompt, *shared)
    return _with_tools((*_system(record), *prompt), record), [said[common][1] for said in turns]


def _speech(value: Any, field: str, role: str) -> tuple[Message, ...]:
    """Messages as they are, a text as one message of `role`."""
    return ((role, value),) if isinstance(value, str) else _turns(value, field)


def _turns(value: Any, field: str) -> tuple[Message, ...]:
    made: list[Message] = []
    for message in _list(value, field):
        if not isinstance(message, dict):
            raise BadShape("WrongType", f"field {field!r} holds {type(message).__name__}, not an object")
        speaker = message.get("role", message.get("from"))
        if (role := _SPEAKERS.get(str(speaker).lower())) is None:
            raise BadShape("UnknownRole", f"field {field!r} has a turn of {speaker!r}, none of {', '.join(_SPEAKERS)}")
        content, calls = message.get("content", message.get("value")), message.get("tool_calls")
        if content or not calls:
            made.append((role, _text(content, field)))
        made += [("tool_call", _json(call.get("function", call))) for call in calls or []]
    return tuple(made)


def _system(record: Record) -> tuple[Message, ...]:
    return (("system", _text(record["system"], "system")),) if record.get("system") else ()


def _with_tools(messages: tuple[Message, ...], record: Record) -> tuple[Message, ...]:
    """With the tools there are after what the system says."""
    tools = record.get("tools") or "[]"
    listed = ("tools", tools if isinstance(tools, str) else _json(tools))
    if listed[1].strip() == "[]":
        return messages
    behind = 1 if messages and messages[0][0] == "system" else 0
    return (*messages[:behind], listed, *messages[behind:])


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadShape("WrongType", f"field {field!r} is {type(value).__name__}, not a list")
    return value


def _text(value: Any, field: str) -> str:
    if isinstance(value, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in value):
        return "".join(part["text"] for part in value)  # content in parts, text alone
    if not isinstance(value, str):
        raise BadShape("WrongType", f"field {field!r} holds {type(value).__name__}, not a string")
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))
