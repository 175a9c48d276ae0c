import json
import re
from pathlib import Path

import pytest

from trainer.post.arithmetic import main, problems

SIGNS = {"+": "+", "-": "-", "\u52a0": "+", "\u51cf": "-"}


@pytest.mark.parametrize(("langs", "count"), [(("en",), 25 + 15), (("zh",), 40), (("en", "zh"), 80)])
def test_every_problem_once_with_its_answer(langs: tuple[str, ...], count: int) -> None:
    made = problems(4, 0, langs)
    assert len({str(problem["id"]) for problem in made}) == len(made) == count
    for problem in made:
        asked, answer = (turn["content"] for turn in problem["messages"])  # type: ignore[attr-defined]
        found = re.search(r"(\d+) (\S) (\d+)", asked)
        assert found is not None
        a, sign, b = int(found[1]), SIGNS[found[2]], int(found[3])
        assert int(answer) == (a + b if sign == "+" else a - b) >= 0


def test_the_order_follows_the_seed(tmp_path: Path) -> None:
    assert problems(3, 1) == problems(3, 1) != problems(3, 2)
    assert main([str(tmp_path / "sums.jsonl"), "--largest", "3", "--seed", "1"]) == 0
    assert [json.loads(line) for line in (tmp_path / "sums.jsonl").read_text().splitlines()] == problems(3, 1)
