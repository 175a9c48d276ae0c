import json
from pathlib import Path

import pytest

from trainer.engine import Completion
from trainer.post.__main__ import main
from trainer.post.experience import Answer, Prompt
from trainer.post.rejection import choose, statistics, write


def answer(tokens: list[int], ended: bool = True) -> Answer:
    return Answer(Prompt((1,), "", 0, "en"), Completion((*tokens, 0), (0.0,) * (len(tokens) + 1), ended), str(tokens))


A, NEAR_A, B, EMPTY = list(range(20)), [*range(19), 99], list(range(50, 70)), list[int]()


@pytest.mark.parametrize(
    ("answers", "rewards", "keep", "expected"),
    [
        ([answer(A), answer(B)], [1.0, 2.0], 1, [B]),
        ([answer(A), answer(B)], [1.0, 2.0], 2, [B, A]),
        ([answer(A), answer(NEAR_A)], [1.0, 2.0], 2, [NEAR_A]),  # alike: the better one
        ([answer(A), answer(A)], [1.0, 1.0], 2, [A]),
        ([answer(A), answer(B, ended=False)], [1.0, 2.0], 1, [A]),
        ([answer(A), answer(EMPTY)], [1.0, 2.0], 1, [A]),
        ([answer(A, ended=False), answer(EMPTY)], [1.0, 2.0], 1, []),
    ],
)
def test_the_best_answers_that_end_and_differ(
    answers: list[Answer], rewards: list[float], keep: int, expected: list[list[int]]
) -> None:
    assert [list(c.answer.completion.body) for c in choose(answers, rewards, 2, keep)] == expected


def test_each_prompt_gets_its_own_and_the_statistics_tell_what_it_brought(tmp_path: Path) -> None:
    answers, rewards = [answer(A), answer(B), answer(B), answer(A)], [0.0, 1.0, 4.0, 2.0]
    chosen = choose(answers, rewards, 2)
    assert [(c.prompt, c.reward) for c in chosen] == [(0, 1.0), (1, 4.0)]
    told = statistics(answers, rewards, 2, chosen)
    assert (told["mean_reward"], told["kept_reward"], told["best_of_1"], told["best_of_2"]) == (1.75, 2.5, 1.75, 2.5)
    write(tmp_path / "best.jsonl", chosen, [[{"role": "user", "content": "first"}], [{"role": "user", "content": "second"}]])
    rows = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text().splitlines()]
    assert rows[1]["messages"] == [{"role": "user", "content": "second"}, {"role": "assistant", "content": str(B)}]


def test_a_run_makes_a_better_set_of_its_own_answers(
    sums: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "best.jsonl"
    results = {f"What is {a} + {b}?": str(a + b) for a in range(3) for b in range(3)}
    prompts.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in results.items()))
    words = ["--prompts", str(prompts), "--reward", "number", "--limit", "4", "--samples", "8", "--out", str(out)]
    assert main(["reject", str(sums[1]), *words]) == 0
    said = capsys.readouterr().out
    figures = {name: float(value) for name, value in (part.rsplit(" ", 1) for part in said.split(": ")[1].split(", "))}
    assert figures["kept reward"] > figures["mean reward"]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    right = sum(row["messages"][1]["content"] == results[row["messages"][0]["content"]] for row in rows)
    assert right == round(sum(row["reward"] for row in rows))
