"""The template, token by token: what each id is, and what is learnt of it."""

import numpy as np
import pytest
from tokenizers import Tokenizer

from pipelines.shards import ShardError
from pipelines.shards.roles import BETTER, CONTENT, LAST, LEARNT, TARGET
from pipelines.shards.template import Markers, Template, Turn, markers, render, render_messages, render_prompt

# One token a word here, so that an expectation is a row of a table.
WORDS = {
    w: i
    for i, w in enumerate(
        ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "brief", "hi", "yes", "sum", "four"]
    )
}
MARKS = markers(Template(), WORDS.get)


def encode(text: str) -> list[int]:
    return [WORDS[word] for word in text.split()]


CONVERSATION = [
    ("system", "brief"), ("tools", "sum"), ("user", "hi"), ("assistant", "hi hi"),
    ("user", "sum"), ("tool_call", "sum"), ("tool", "four"), ("assistant", "four yes"),
]  # fmt: skip
# token, part, learnt: the whole template
EXPECTED = """
<|system|>    HEADER     .
brief         SYSTEM     .
<|end|>       TERMINATOR .
<|system|>    HEADER     .
<|tool|>      HEADER     .
sum           SYSTEM     .
<|end|>       TERMINATOR .
<|user|>      HEADER     .
hi            USER       .
<|end|>       TERMINATOR .
<|assistant|> HEADER     .
hi            ASSISTANT  x
hi            ASSISTANT  x
<|end|>       TERMINATOR x
<|user|>      HEADER     .
sum           USER       .
<|end|>       TERMINATOR .
<|assistant|> HEADER     .
<|tool|>      TOOL_CALL  x
sum           TOOL_CALL  x
<|end|>       TERMINATOR x
<|tool|>      HEADER     .
four          TOOL       .
<|end|>       TERMINATOR .
<|assistant|> HEADER     .
four          ASSISTANT  x
yes           ASSISTANT  x
<|end|>       TERMINATOR x
<|endoftext|> NONE       .
"""
PARTS = ["NONE", "SYSTEM", "USER", "ASSISTANT", "TOOL_CALL", "TOOL", "HEADER", "TERMINATOR"]


def test_every_token_of_a_conversation_has_its_part_and_is_learnt_or_not() -> None:
    ids, codes = render_messages(CONVERSATION, MARKS, encode)
    words = list(WORDS)
    shown = [(words[i], PARTS[c & 15], "x" if TARGET[c] else ".") for i, c in zip(ids.tolist(), codes.tolist(), strict=True)]
    assert shown == [tuple(line.split()) for line in EXPECTED.strip().splitlines()]
    assert codes.dtype == np.uint8


def test_of_an_answer_that_is_compared_the_format_is_told_from_what_it_says() -> None:
    turns = [Turn("user", encode("hi")), Turn("assistant", encode("hi hi")), Turn("user", encode("sum"))]
    _, better = render([*turns, Turn("assistant", encode("four yes"), BETTER)], MARKS)
    _, last = render([*turns, Turn("assistant", encode("hi"), LAST)], MARKS)
    #                      <user> hi <end> <assistant> hi hi <end> <user> sum <end> | <assistant> four yes <end> <eos>
    assert TARGET[better].tolist() == [False] * 10 + [False, True, True, True, False]
    assert CONTENT[better].tolist() == [False] * 10 + [False, True, True, False, False]
    assert (better >> 4).tolist() == [0] * 10 + [BETTER] * 4 + [0]
    assert (TARGET[last].sum(), CONTENT[last].sum(), LEARNT[last].sum(), LEARNT[better].sum()) == (2, 1, 0, 3)


def test_a_prompt_ends_with_the_header_of_the_turn_to_write() -> None:
    whole, _ = render_messages(CONVERSATION[2:4], MARKS, encode)
    prompt = render_prompt(CONVERSATION[2:3], MARKS, encode)
    assert prompt.tolist() == encode("<|user|> hi <|end|> <|assistant|>") == whole[: len(prompt)].tolist()


def test_what_is_decoded_shows_the_template(library: Tokenizer, marks: Markers) -> None:
    messages = [("system", "Be brief."), ("user", " What is\n\u6c34? "), ("assistant", "the water.")]
    ids, _ = render_messages(messages, marks, lambda text: library.encode(text, add_special_tokens=False).ids)
    assert library.decode(ids.tolist(), skip_special_tokens=False) == (
        "<|system|>Be brief.<|end|><|user|> What is\n\u6c34? <|end|><|assistant|>the water.<|end|><|endoftext|>"
    )


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ({"<|endoftext|>": 0, "<|user|>": 1}, r"no token '<\|system\|>', '<\|assistant\|>', '<\|tool\|>', '<\|end\|>' for"),
        (dict.fromkeys(WORDS, 3), "one token for two things"),
    ],
)
def test_a_tokenizer_without_the_roles_is_refused(tokens: dict[str, int], says: str) -> None:
    with pytest.raises(ShardError, match=says):
        markers(Template(), tokens.get)
