"""What an answer is worth: a final number, tests that a program passes, or what a reward model says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import torch

from trainer.errors import UserError
from trainer.post.experience import Answer
from trainer.post.reward import load_reward, scorer
from trainer.post.rollout import Reward
from trainer.post.sandbox import Limits, run_many

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")
_PROGRAM = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)


def find(name: str) -> Reward:
    """`number`, `tests`, or the reward model of a run folder. Raises UserError for what is none of these."""
    known: dict[str, Reward] = {"number": exact_match, "tests": passes_tests}
    if name not in known and not Path(name).is_dir():
        raise UserError(f"--reward {name!r} is neither {', '.join(known)} nor the --out of a reward model")
    return known[name] if name in known else by_model(Path(name))


def by_model(run: Path) -> Reward:
    """The reward model of a run, on the device that is there. Raises UserError for a run of another kind."""
    score = scorer(load_reward(run).to("cuda" if torch.cuda.is_available() else "cpu"))

    def reward(answers: Sequence[Answer]) -> list[float]:
        rewards: list[float] = score([(*a.prompt.tokens, *a.completion.body, a.prompt.stop) for a in answers]).tolist()
        return rewards

    return reward


def final_number(text: str) -> Decimal | None:
    """The answer of a text as GSM8K gives it: the number after the last `####`, or the last one there is; None without any.

    1,234.50 and 1234.5 are the same, so are full-width digits; a unit or a full stop after it does not matter.
    """
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-")
    found = _NUMBER.findall(text.rsplit("####", 1)[-1] if "####" in text else text)
    return Decimal(found[-1].replace(",", "")).normalize() if found else None


def exact_match(answers: Sequence[Answer]) -> list[float]:
    """1 where the final number is that of the reference, else 0."""
    return [_same(a.text, a.prompt.reference) for a in answers]


def _same(text: str, reference: str) -> float:
    wanted = final_number(reference)
    return float(wanted is not None and final_number(text) == wanted)


def passes_tests(answers: Sequence[Answer], limits: Limits = Limits()) -> list[float]:  # noqa: B008  (frozen)
    """1 where the answer's program (its last fenced block, or all of it) passes the tests that are its reference, else 0.

    Programs run in trainer.post.sandbox, which see for what it keeps them from. Raises UserError where it cannot.
    """
    jobs = [(program_of(a.text), program_of(a.prompt.reference)) for a in answers]
    return [float(verdict.passed) for verdict in run_many(jobs, limits)]


def program_of(text: str) -> str:
    """The last fenced block of a text, or all of it."""
    blocks = _PROGRAM.findall(text)
    return blocks[-1] if blocks else text
