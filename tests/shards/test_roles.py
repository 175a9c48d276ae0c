"""The byte a token: what follows from it, as tables."""

import numpy as np
import pytest

from pipelines.shards.roles import (
    ANSWER,
    ASSISTANT,
    BAD,
    BETTER,
    CONTENT,
    CONTEXT,
    EDITED,
    GOOD,
    HEADER,
    LAST,
    LEARNT,
    NONE,
    SYSTEM,
    TARGET,
    TERMINATOR,
    TOOL,
    TOOL_CALL,
    UNRATED,
    USER,
    code,
    grade_of,
    pairs,
    part_of,
    sequence_grades,
    sequence_starts,
)


@pytest.mark.parametrize(
    ("part", "target", "content"),
    [
        (NONE, False, False),
        (SYSTEM, False, False),
        (USER, False, False),
        (ASSISTANT, True, True),
        (TOOL_CALL, True, True),
        (TOOL, False, False),
        (HEADER, False, False),
        (TERMINATOR, True, False),
    ],
)
def test_what_is_learnt_follows_from_part_and_grade(part: int, target: bool, content: bool) -> None:
    for grade in range(ANSWER, BAD + 1):
        number = code(part, grade)
        assert (part_of(np.uint8(number)), grade_of(np.uint8(number))) == (part, grade)
        assert (TARGET[number], CONTENT[number]) == (target, content)
        assert LEARNT[number] == (target and grade not in (LAST, BAD))
    assert not TARGET[code(part, CONTEXT)]
    assert not TARGET[code(part, 15)]


def test_a_sequence_begins_behind_each_eos_and_has_the_grade_of_its_answer() -> None:
    turn = [HEADER, USER, TERMINATOR]
    best, last = ([*turn, *(code(p, g) for p in (HEADER, ASSISTANT, TERMINATOR)), NONE] for g in (BETTER, LAST))
    codes = np.array([*best, *last, NONE, NONE, *turn, NONE], np.uint8)  # two answers, something taken down, no answer
    starts = sequence_starts(codes)
    assert starts.tolist() == [0, 7, 16]
    assert sequence_grades(codes, starts).tolist() == [BETTER, LAST, CONTEXT]


@pytest.mark.parametrize(
    ("grades", "expected"),
    [
        ([], []),
        ([ANSWER, GOOD, BAD, CONTEXT], []),
        ([BETTER, LAST], [(0, 1, BETTER)]),
        ([UNRATED, LAST, ANSWER, BETTER, LAST], [(0, 1, UNRATED), (3, 4, BETTER)]),
        ([EDITED, BETTER, LAST], [(0, 1, EDITED), (0, 2, EDITED), (1, 2, BETTER)]),
        ([BETTER, CONTEXT, LAST], []),
    ],
)
def test_answers_in_a_row_make_pairs_up_to_the_last(grades: list[int], expected: list[tuple[int, int, int]]) -> None:
    assert list(map(tuple, pairs(np.array(grades, np.int64)).tolist())) == expected
