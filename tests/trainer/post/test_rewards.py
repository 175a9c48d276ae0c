from decimal import Decimal
from pathlib import Path

import pytest

from trainer.engine import Completion
from trainer.errors import UserError
from trainer.post.experience import Answer, Prompt
from trainer.post.rewards import exact_match, final_number, find, passes_tests, program_of


def answer(text: str, reference: str) -> Answer:
    return Answer(Prompt((1,), reference, 0, "en"), Completion((5, 0), (0.0, 0.0), True), text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", "18"),
        ("so it is 2*9 = $18 per day\nA: 18", "18"),
        ("1,234.50 dollars.", "1234.5"),
        ("the answer is 42.", "42"),
        ("-7 degrees", "-7"),
        ("\u22127", "-7"),
        ("\uff14\uff12\u4e2a", "42"),
        ("#### 5 apples, of 9", "9"),
        ("3, then 4,5", "5"),
        ("100,000 and 1,000,000", "1000000"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("18.00", "18"),
        ("no number", None),
        ("", None),
    ],
)
def test_the_final_number_of_a_text(text: str, number: str | None) -> None:
    assert final_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("text", "reference", "reward"),
    [("it is 18", "#### 18", 1.0), ("18.0", "18", 1.0), ("19", "18", 0.0), ("nothing", "18", 0.0), ("18", "no number", 0.0)],
)
def test_an_exact_match_is_worth_one(text: str, reference: str, reward: float) -> None:
    assert exact_match([answer(text, reference)]) == [reward]


def test_a_program_is_worth_what_its_tests_say() -> None:
    tests = "assert add(1, 2) == 3"
    right, wrong = "Here:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.", "def add(a, b):\n    return a - b"
    assert program_of(right) == "def add(a, b):\n    return a + b\n"
    assert passes_tests([answer(right, tests), answer(wrong, tests)]) == [1.0, 0.0]


def test_a_reward_is_known_by_name_or_by_a_run(base: Path) -> None:
    assert find("number") is exact_match
    with pytest.raises(UserError, match="'praise' is neither number, tests nor the --out of a reward model"):
        find("praise")
    with pytest.raises(UserError, match="holds no whole reward model"):
        find(str(base))
