"""Records of any shape to conversations, and the rules that a conversation keeps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from pipelines.chat.shapes import BadShape, Chat, read_chat
from pipelines.read.rows import printable
from pipelines.recipe import batch_stage
from pipelines.schema import doc_id, drop, quarantine, with_columns
from pipelines.shards.manifest import GROUP

# What a conversation is from here on: turns, and answers with their grades (pipelines.shards.roles).
CHAT = pa.schema(
    [
        ("messages", pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))),
        ("answers", pa.list_(pa.struct([pa.field("content", pa.string()), pa.field("grade", pa.int32())]))),
        (GROUP, pa.binary()),  # 16 bytes of what is asked first: conversations that begin alike are held out together
    ]
)
# Which turn may follow which. An assistant may speak before it calls a tool; several calls and their results may lie in a row.
_FOLLOWS = {
    "start": {"system", "tools", "user"},
    "system": {"tools", "user"},
    "tools": {"user"},
    "user": {"assistant", "tool_call"},
    "assistant": {"tool_call", "user", "end"},
    "tool_call": {"tool_call", "tool", "end"},
    "tool": {"tool", "tool_call", "assistant"},
}

Fault = tuple[str, float, float]  # rule, value, bound


@dataclass(frozen=True)
class ChatConfig:
    """`least_characters`: of an answer or a question, without blanks at its ends."""

    least_characters: int = 1


@batch_stage(adds=CHAT)
def normalise_chat(batch: pa.RecordBatch, cfg: ChatConfig) -> pa.RecordBatch:
    """Read `text`, a record as JSON, into the columns of CHAT; `text` becomes what is said, for the stages that judge text.

    Quarantined: what is no conversation (UnknownShape, UnknownRole, UnknownRating, WrongType, NotAnAnswer). Dropped, with the
    number of the turn as value: `chat.<turn>_then_<turn>` for an order that no conversation has (start_then_assistant,
    user_then_user, user_then_end ...); `chat.empty_turn` (value: characters); `chat.equal_answers` (value: answers that are
    another one over again, blanks at the ends apart).
    """
    rows: list[Chat | None] = []
    errors: list[tuple[str, str]] = []
    for text in batch["text"].to_pylist():
        try:
            rows.append(_printable(read_chat(json.loads(text))))
            errors.append(("", ""))
        except BadShape as bad:
            rows.append(None)
            errors.append((bad.args[0], bad.args[1]))
    messages = [None if c is None else [{"role": r, "content": t} for r, t in c.messages] for c in rows]
    answers = [None if c is None else [{"content": t, "grade": g} for t, g in c.answers] for c in rows]
    columns = {
        "messages": pa.array(messages, CHAT.field("messages").type),
        "answers": pa.array(answers, CHAT.field("answers").type),
        GROUP: pa.array([None if c is None else _group(c) for c in rows], pa.binary()),
        "text": [text if c is None else spoken(c) for c, text in zip(rows, batch["text"].to_pylist(), strict=True)],
    }
    batch = with_columns(batch, columns)
    for name in sorted({name for name, _ in errors} - {""}):
        batch = quarantine(batch, [e[0] == name for e in errors], name, [e[1] for e in errors])
    faults = [None if c is None else fault(c, cfg) for c in rows]
    rules, values, bounds = zip(*(f or (None, None, None) for f in faults), strict=True)
    return drop(
        batch, [f is not None for f in faults], pa.array(rules, pa.string()),
        pa.array(values, pa.float64()), pa.array(bounds, pa.float64()),
    )  # fmt: skip


def spoken(chat: Chat) -> str:
    """What is said in a conversation, answers last."""
    return "\n\n".join([text for _, text in chat.messages] + [text for text, _ in chat.answers])


def fault(chat: Chat, cfg: ChatConfig) -> Fault | None:
    """The first rule that a conversation breaks, or None."""
    turns = [role for role, _ in chat.messages] + ["assistant"] * bool(chat.answers)
    for number, (before, after) in enumerate(pairwise(["start", *turns, "end"])):
        if after not in _FOLLOWS[before]:
            return f"chat.{before}_then_{after}", float(number), float(len(turns))
    # a tool may give nothing back, and the assistant may call without a word
    texts = [t for role, t in chat.messages if role in ("user", "assistant")] + [t for t, _ in chat.answers]
    shortest = min(len(t.strip()) for t in texts)
    if shortest < cfg.least_characters:
        return "chat.empty_turn", float(shortest), float(cfg.least_characters)
    said = [t.strip() for t, _ in chat.answers]
    if repeated := len(said) - len(set(said)):
        return "chat.equal_answers", float(repeated), 0.0
    return None


def _group(chat: Chat) -> bytes:
    asked = next((text for role, text in chat.messages if role == "user"), "")
    return doc_id("", "", " ".join(asked.split()).encode())


def _printable(chat: Chat) -> Chat:
    messages = tuple((role, printable(text) or "") for role, text in chat.messages)
    return Chat(messages, tuple((printable(text) or "", grade) for text, grade in chat.answers))
