"""Rules that a conversation keeps: each one that does not is dropped or quarantined by name, with value and bound."""

import json
from typing import Any

import pyarrow as pa
import pytest

from pipelines.chat.normalise import ChatConfig, normalise_chat
from pipelines.read.rows import ROW
from pipelines.schema import record_batch


def batch(*records: Any) -> pa.RecordBatch:
    ids = [bytes([i]) * 16 for i in range(len(records))]
    return record_batch({"doc_id": ids, "text": [json.dumps(r) for r in records]}, ROW)


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"{role} {i}"} for i, role in enumerate(roles)]}


@pytest.mark.parametrize(
    "roles",
    [
        "user assistant",
        "system user assistant user assistant",
        "user tool_call tool assistant",
        "user assistant tool_call tool_call tool tool tool_call tool assistant user assistant",
        "user tool_call",
    ],
)
def test_a_conversation_in_order_is_kept(roles: str) -> None:
    result = normalise_chat(batch(turns(*roles.split())), ChatConfig())
    assert result["drop_rule"].to_pylist() == result["error_class"].to_pylist() == [None]
    (messages,) = result["messages"].to_pylist()
    assert [m["role"] for m in messages] == roles.split()
    assert result["text"].to_pylist() == ["\n\n".join(m["content"] for m in messages)]


def answered(first: str, second: str, **more: str) -> dict[str, Any]:
    return {"prompt": "hi", "chosen": first, "rejected": second, **more}


@pytest.mark.parametrize(
    ("record", "rule", "value", "bound"),
    [
        (turns("assistant", "user", "assistant"), "chat.start_then_assistant", 0, 3),
        (turns("system", "assistant"), "chat.system_then_assistant", 1, 2),
        (turns("user", "user", "assistant"), "chat.user_then_user", 1, 3),
        (turns("user", "assistant", "assistant"), "chat.assistant_then_assistant", 2, 3),
        (turns("user", "assistant", "user"), "chat.user_then_end", 3, 3),
        (turns("user", "tool", "assistant"), "chat.user_then_tool", 1, 3),
        (turns("user", "tool_call", "tool"), "chat.tool_then_end", 3, 3),
        ({"messages": []}, "chat.start_then_end", 0, 0),
        ({"prompt": [{"role": "assistant", "content": "hi"}], "completion": "hi"}, "chat.start_then_assistant", 0, 2),
        ({"instruction": "hi", "output": " \n"}, "chat.empty_turn", 0, 1),
        ({"instruction": " ", "output": "hi"}, "chat.empty_turn", 0, 1),
        (answered("yes", ""), "chat.empty_turn", 0, 1),
        (answered("yes", " yes\n"), "chat.equal_answers", 1, 0),
        (answered("yes", "no", edited="yes"), "chat.equal_answers", 1, 0),
    ],
)
def test_a_conversation_that_breaks_a_rule_is_dropped_with_the_value(
    record: dict[str, Any], rule: str, value: float, bound: float
) -> None:
    result = normalise_chat(batch(turns("user", "assistant"), record), ChatConfig())
    decided = [result[name].to_pylist()[1] for name in ("drop_rule", "drop_value", "drop_bound", "error_class")]
    assert decided == [rule, value, bound, None]
    assert result["drop_rule"].to_pylist()[0] is None


def test_what_cannot_be_read_is_quarantined_and_kept_as_it_is() -> None:
    records = [
        {"text": "water"},
        turns("user", "assistant"),
        {"messages": [{"role": "oracle", "content": "x"}]},
        {"messages": 4},
    ]
    given = batch(*records)
    result = normalise_chat(given, ChatConfig())
    assert result["error_class"].to_pylist() == ["UnknownShape", None, "UnknownRole", "WrongType"]
    assert result["error_message"].to_pylist()[2].startswith("field 'messages' has a turn of 'oracle', none of system")
    assert result["drop_rule"].to_pylist() == [None] * 4
    assert result["text"].to_pylist()[0] == given["text"].to_pylist()[0]


def test_half_a_surrogate_pair_costs_itself() -> None:
    (messages,) = normalise_chat(batch({"instruction": "hi \ud83d", "output": "yes"}), ChatConfig())["messages"].to_pylist()
    assert messages[0]["content"] == "hi \ufffd"


def test_conversations_that_begin_alike_are_of_one_group() -> None:
    first, again, other = (
        {"prompt": "hi  you", "completion": "a"},
        {"prompt": "hi you\n", "completion": "b"},
        answered("yes", "no"),
    )
    groups = normalise_chat(batch(first, again, other), ChatConfig())["group"].to_pylist()
    assert groups[0] == groups[1] != groups[2]
    assert {len(group) for group in groups} == {16}
