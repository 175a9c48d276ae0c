"""Every published shape becomes one: messages, and answers with grades; what is none says why."""

from typing import Any

import pytest

from pipelines.chat.shapes import BadShape, Chat, read_chat
from pipelines.shards.roles import ANSWER, BAD, BETTER, EDITED, GOOD, LAST, MARGINALLY, SIGNIFICANTLY, SLIGHTLY, UNRATED

ASKED = ("user", "2 + 2?")
SAID = ("assistant", "4")
TURNS = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
CALL = {"name": "sum", "arguments": {"of": [2, 2]}}
CALLED = ("tool_call", '{"name": "sum", "arguments": {"of": [2, 2]}}')
PROMPT = [{"role": "user", "content": "2 + 2?"}]


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"messages": TURNS}, [ASKED, SAID]),
        ({"messages": [{"role": "developer", "content": "Brief."}, *TURNS]}, [("system", "Brief."), ASKED, SAID]),
        ({"messages": [{"role": "user", "content": [{"text": "2 "}, {"text": "+ 2?"}]}, TURNS[1]]}, [ASKED, SAID]),
        (
            {
                "messages": [
                    TURNS[0],
                    {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]},
                    {"role": "tool", "content": "4"},
                    TURNS[1],
                ],
                "tools": [{"name": "sum"}],
            },
            [("tools", '[{"name": "sum"}]'), ASKED, CALLED, ("tool", "4"), SAID],
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "2 + 2?"},
                    {"from": "function_call", "value": "sum"},
                    {"from": "observation", "value": "4"},
                    {"from": "gpt", "value": "4"},
                ],
                "system": "Brief.",
                "tools": '[{"name": "sum"}]',
            },
            [("system", "Brief."), ("tools", '[{"name": "sum"}]'), ASKED, ("tool_call", "sum"), ("tool", "4"), SAID],
        ),
        ({"messages": TURNS, "tools": "[]"}, [ASKED, SAID]),
        ({"instruction": "2 + 2?", "output": "4"}, [ASKED, SAID]),
        ({"instruction": "2 + 2?", "input": None, "output": "4", "system": ""}, [ASKED, SAID]),
        (
            {"instruction": "Add.", "input": "2, 2", "output": "4", "history": [["1 + 1?", "2"]]},
            [("user", "1 + 1?"), ("assistant", "2"), ("user", "Add.\n2, 2"), SAID],
        ),
    ],
)  # fmt: skip
def test_a_conversation_of_any_shape_is_its_turns(record: dict[str, Any], messages: list[tuple[str, str]]) -> None:
    assert read_chat(record) == Chat(tuple(messages))


@pytest.mark.parametrize(
    ("record", "answers"),
    [
        ({"prompt": "2 + 2?", "completion": "4"}, [("4", ANSWER)]),
        ({"prompt": PROMPT, "completion": [TURNS[1]]}, [("4", ANSWER)]),
        ({"prompt": PROMPT, "completion": "4", "label": True}, [("4", GOOD)]),
        ({"prompt": "2 + 2?", "completion": "5", "label": False}, [("5", BAD)]),
        ({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}, [("4", UNRATED), ("5", LAST)]),
        ({"prompt": PROMPT, "chosen": [TURNS[1]], "rejected": "5"}, [("4", UNRATED), ("5", LAST)]),
        (
            {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "5"}]},
            [("4", UNRATED), ("5", LAST)],
        ),
        (
            {"prompt": PROMPT, "chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "5"}]},
            [("4", UNRATED), ("5", LAST)],
        ),
        (
            {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "rating": "significantly better"},
            [("4", SIGNIFICANTLY), ("5", LAST)],
        ),
        ({"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "rating": "better"}, [("4", BETTER), ("5", LAST)]),
        ({"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "rating": "slightly better"}, [("4", SLIGHTLY), ("5", LAST)]),
        (
            {"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "rating": "marginally better", "edited": "Four."},
            [("Four.", EDITED), ("4", MARGINALLY), ("5", LAST)],
        ),
    ],
)
def test_a_prompt_has_its_answers_best_first_with_their_grades(record: dict[str, Any], answers: list[tuple[str, int]]) -> None:
    assert read_chat(record) == Chat((ASKED,), tuple(answers))


def test_a_prompt_may_be_a_conversation_of_its_own() -> None:
    prompt = [{"role": "system", "content": "Brief."}, *TURNS, {"role": "user", "content": "Sure?"}]
    chat = read_chat({"prompt": prompt, "chosen": "Yes.", "rejected": "No."})
    assert chat.messages == (("system", "Brief."), ASKED, SAID, ("user", "Sure?"))


@pytest.mark.parametrize(
    ("record", "name", "says"),
    [
        ({"text": "water"}, "UnknownShape", "the record has text; a conversation has one of: messages;"),
        ({}, "UnknownShape", "the record has no fields"),
        ({"prompt": "2 + 2?", "chosen": "4"}, "UnknownShape", "the record has prompt, chosen"),
        ({"messages": [{"role": "oracle", "content": "4"}]}, "UnknownRole", "field 'messages' has a turn of 'oracle'"),
        ({"messages": "2 + 2?"}, "WrongType", "field 'messages' is str, not a list"),
        ({"messages": ["2 + 2?"]}, "WrongType", "field 'messages' holds str, not an object"),
        ({"messages": [{"role": "user", "content": 4}]}, "WrongType", "field 'messages' holds int, not a string"),
        ({"prompt": "a", "completion": "b", "label": "yes"}, "WrongType", "field 'label' is 'yes', not true or false"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "rating": "best"}, "UnknownRating", "'rating' is 'best', none of"),
        ({"prompt": "a", "chosen": PROMPT, "rejected": "c"}, "NotAnAnswer", "field 'chosen' is not one turn of the assistant"),
        ({"chosen": TURNS, "rejected": TURNS[1:] * 2}, "NotAnAnswer", "after the prompt, but: user, assistant"),
    ],
)  # fmt: skip
def test_what_is_no_conversation_says_why(record: dict[str, Any], name: str, says: str) -> None:
    with pytest.raises(BadShape) as caught:
        read_chat(record)
    assert caught.value.args[0] == name
    assert says in caught.value.args[1]
