import gzip
import importlib.util
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pipelines.shards.template import Template, markers
from trainer.engine import Completion
from trainer.errors import UserError
from trainer.post import report
from trainer.post.__main__ import main
from trainer.post.evaluate import (
    Words,
    by_group,
    figures_of,
    interval,
    read_prompts,
    repeats,
    repetition_rate,
    win_rate,
    words_of,
)
from trainer.post.experience import Answer, Prompt

from .arithmetic_base import tokenizer


def with_markers(words: Tokenizer) -> Words:
    return Words(words, markers(Template(), words.token_to_id))


def answer(tokens: list[int], ended: bool, group: str = "en", text: str = "4", reference: str = "4") -> Answer:
    return Answer(Prompt((1,), reference, 0, group), Completion(tuple(tokens), (0.0,) * len(tokens), ended), text)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([7] * 16, True),
        ([7] * 15, False),  # short
        ([1, 2, 3, 4] * 4, True),
        ([9, 8, 7, *[1, 2, 3, 4, 5, 6] * 3], True),
        ([*[1, 2, 3, 4, 5, 6] * 3, 1, 2, 3], True),  # cut in the middle of it
        ([*[1, 2, 3, 4, 5, 6] * 3, 9], False),  # and then it goes on
        (list(range(30)) * 2, False),  # twice
        (list(range(30)) * 3, True),
        (list(range(100)), False),
        ([], False),
    ],
)
def test_what_repeats(tokens: list[int], expected: bool) -> None:
    assert repeats(tokens) == expected


def test_the_repetition_rate_counts_answers_that_repeat_and_do_not_end() -> None:
    some = [answer([7] * 20, False), answer([*[7] * 20, 0], True), answer(list(range(20)), False), answer([1, 0], True)]
    assert repetition_rate(some) == 0.25
    assert repetition_rate([]) == 0


def test_figures_of_each_language() -> None:
    some = [answer([7] * 20, False, "en", "5"), answer([1, 0], True, "zh"), answer([1, 2, 0], True, "zh", "x", "no number")]
    found = by_group(some, [1.0, 2.0, 3.0])
    assert found["all"] == {
        "answers": 3, "repetition_rate": pytest.approx(1 / 3), "ended": pytest.approx(2 / 3),
        "tokens": pytest.approx(25 / 3), "exact_match": 0.5, "reward": 2.0,
    }  # fmt: skip
    assert (found["en"]["exact_match"], found["zh"]["exact_match"], found["zh"]["reward"]) == (0.0, 1.0, 2.5)
    assert list(by_group(some[:1])) == ["all"]


@pytest.mark.parametrize(
    ("before", "after", "share"), [([0.0, 0.0], [1.0, 1.0], 1.0), ([0.0, 1.0], [1.0, 0.0], 0.5), ([1.0], [1.0], 0.5)]
)
def test_ties_are_half_a_win(before: list[float], after: list[float], share: float) -> None:
    assert win_rate(before, after)[0] == share


def test_the_interval_of_a_share() -> None:
    assert interval(50, 100) == pytest.approx((0.5, 0.4038, 0.5962), abs=1e-4)
    assert interval(0, 0) == (0.0, 0.0, 1.0)
    low, high = interval(10, 10)[1:]
    assert low > 0.7
    assert high == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"messages": [{"role": "user", "content": "1 + 1"}, {"role": "assistant", "content": "2"}]}, "2"),
        ({"prompt": [{"role": "user", "content": "1 + 1"}], "chosen": "2", "rejected": "3"}, "2"),
        ({"prompt": "1 + 1", "answer": "2"}, "2"),
        ({"question": "1 + 1", "answer": 2, "lang": "en"}, "2"),
    ],
)
def test_prompts_of_the_usual_shapes(row: dict[str, object], reference: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write((json.dumps(row) + "\n") * 3)
    words = tokenizer()
    prompts, conversations = read_prompts(path, with_markers(words), 2)
    assert len(prompts) == len(conversations) == 2
    assert words.decode(list(prompts[0].tokens), skip_special_tokens=False) == "<|user|>1 + 1<|end|><|assistant|>"
    assert (prompts[0].reference, prompts[0].stop) == (reference, words.token_to_id("<|end|>"))


def test_a_run_is_asked_with_the_markers_of_its_own_conversations(tmp_path: Path) -> None:
    words = tokenizer()
    words.save(str(tmp_path / "tokenizer.json"))
    values: dict[str, object] = {"data": {"template": asdict(Template(user="<|tool|>", tool="<|user|>"))}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "1 + 1", "answer": "2"}\n')
    (prompt,), _ = read_prompts(tmp_path / "prompts.jsonl", words_of(tmp_path))
    assert words.decode(list(prompt.tokens), skip_special_tokens=False) == "<|tool|>1 + 1<|end|><|assistant|>"
    values["data"] = {"template": asdict(Template(user="<|human|>"))}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"the tokenizer has no token '<\|human\|>'"):
        words_of(tmp_path)


def test_prompts_of_another_shape_are_told(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"text": "x"}\n')
    with pytest.raises(UserError, match="line 1 has neither messages, prompt nor question, but text"):
        read_prompts(path, with_markers(tokenizer()))


@pytest.mark.parametrize(
    ("ended", "win_rate", "expected"),
    [
        (0.25, (0.4, 0.3, 0.49), [False, None, False]),
        (0.5, (0.6, 0.45, 0.7), [None, None, None]),  # as before, and not told from even
        (0.75, (0.6, 0.55, 0.7), [True, None, True]),
    ],
)
def test_what_went_as_wished(ended: float, win_rate: tuple[float, float, float], expected: list[bool | None]) -> None:
    found = {"before": {"all": {"ended": 0.5, "tokens": 3.0}}, "after": {"all": {"ended": ended, "tokens": 2.0}}}
    assert [f.holds for f in figures_of(found | {"win_rate": win_rate})] == expected


def test_the_page_escapes_what_models_say_and_needs_nothing_from_elsewhere() -> None:
    figures = figures_of({"after": {"all": {"ended": 0.5}}})
    evil = report.Sample("<script>alert(1)</script>", "a\x00b", "\u4f60\u597d</p>", "zh")
    page = report.page("Title", "Lead", figures, [report.Curve("reward", [0.0, 1.0, 0.5])], [evil])
    assert "<script" not in page
    assert "\x00" not in page
    assert "\u4f60\u597d&lt;/p&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_run_is_evaluated_against_another(
    sums: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"question": f"What is {a} + 1?", "answer": str(a + 1), "lang": ("en", "zh")[a % 2]} for a in range(4)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [str(sums[1]), "--prompts", str(prompts), "--before", str(sums[1]), "--reward", "number", "--limit", "4"]
    assert main(["evaluate", *words, "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert found["before"] == found["after"]
    assert found["after"]["all"]["reward"] == found["after"]["all"]["exact_match"]
    assert found["win_rate"][0] == 0.5
    assert "What is 3 + 1?" in (tmp_path / "out" / "report.html").read_text()
    assert "exact match" in capsys.readouterr().out
    alone = [str(sums[1]), "--prompts", str(prompts), "--limit", "4", "--out", str(tmp_path / "alone")]
    assert main(["evaluate", *alone]) == 0
    assert list(json.loads((tmp_path / "alone" / "evaluate.json").read_text())) == ["after"]
    assert ">before</span>" not in (tmp_path / "alone" / "report.html").read_text()


def test_without_vllm_it_is_said(sums: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    assert main(["evaluate", str(sums[1]), "--prompts", str(prompts), "--vllm", "--out", str(tmp_path / "out")]) == 1
    assert "pip install vllm" in capsys.readouterr().err
