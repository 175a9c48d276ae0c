"""Rejection sampling: of several answers of a model the best ones by a reward, as conversations to fine-tune on.

Llama 3, arXiv 2407.21783, section 4.2.2: 10 to 30 answers a prompt, the reward model takes the best. Answers that do not end
are left out, and those too like a better one to the same prompt; across prompts the recipe chat removes duplicates.

python -m trainer.post reject RUN --prompts FILE.jsonl --reward RUN --out OUT.jsonl [--samples 10] [--keep 1]
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np

from trainer.errors import UserError
from trainer.post.evaluate import answer_prompts, read_prompts, words_of
from trainer.post.experience import Answer
from trainer.post.pairs import likeness
from trainer.post.policy import Floats
from trainer.post.rollout import Reward
from trainer.post.start import Base

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Chosen:
    """An answer to a prompt, by its number, that was kept."""

    prompt: int
    answer: Answer
    reward: float


def choose(
    answers: Sequence[Answer], rewards: Sequence[float], samples: int, keep: int = 1, alike: float = 0.8
) -> list[Chosen]:
    """Of the `samples` answers in a row to each prompt the best `keep`, the best first.

    One whose trigrams are those of a better one kept to a Jaccard similarity of `alike` or more is passed over.
    """
    made = []
    for first in range(0, len(answers), samples):
        kept: list[Chosen] = []
        order = sorted(range(first, first + samples), key=lambda i: -rewards[i])
        for number in (i for i in order if answers[i].completion.ended and answers[i].completion.body):
            body = answers[number].completion.body
            if len(kept) < keep and all(likeness(body, other.answer.completion.body) < alike for other in kept):
                kept.append(Chosen(first // samples, answers[number], rewards[number]))
        made += kept
    return made


def statistics(answers: Sequence[Answer], rewards: Sequence[float], samples: int, chosen: Sequence[Chosen]) -> dict[str, float]:
    """Mean reward of all answers, of those kept if there are any, and of the best of 1, 2, 4 ... to a prompt.

    The best of n is the mean over all choices of n among a prompt's answers.
    """
    table = np.asarray(rewards, np.float64).reshape(-1, samples)
    best = {
        f"best_of_{n}": float((np.sort(table) @ _chance_of_best(samples, n)).mean()) for n in _powers(samples) if len(table)
    }
    ended = float(np.mean([a.completion.ended for a in answers])) if answers else 0.0
    figures = {"prompts": float(len(table)), "answers": float(table.size), "ended": ended, "kept": float(len(chosen))}
    figures["mean_reward"] = float(table.mean()) if table.size else 0.0
    return figures | ({"kept_reward": float(np.mean([c.reward for c in chosen]))} if chosen else {}) | best


def _chance_of_best(samples: int, number: int) -> Floats:
    """How often each of so many answers, the worst first, is the best among `number` of them drawn without replacement."""
    return np.array([comb(worse, number - 1) / comb(samples, number) for worse in range(samples)])


def _powers(most: int) -> Iterator[int]:
    size = 1
    while size < most:
        yield size
        size *= 2
    yield most


def write(path: Path, chosen: Sequence[Chosen], conversations: Sequence[Messages]) -> None:
    """One JSON line a conversation, as the recipe chat reads them. Raises UserError on a full disk."""
    try:
        with path.open("w", encoding="utf-8") as file:
            for number, one in enumerate(chosen):
                messages = [*conversations[one.prompt], {"role": "assistant", "content": one.answer.text}]
                row = {
                    "id": f"{path.stem}#{number}",
                    "lang": one.answer.prompt.group,
                    "messages": messages,
                    "reward": one.reward,
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from error


def reject(
    run: Path,
    prompts: Path,
    reward: Reward,
    out: Path,
    samples: int,
    keep: int,
    limit: int,
    most: int | None,
    seed: int,
    vllm: bool = False,
    base: Base | None = None,
) -> dict[str, float]:
    """Answers of a run at temperature 1, judged; the best as conversations in OUT. Returns `statistics`. Raises UserError."""
    asked, conversations = read_prompts(prompts, words_of(run), most)
    answers = answer_prompts(run, asked, limit, 1.0, samples, seed, vllm, base)
    rewards = list(reward(answers))
    chosen = choose(answers, rewards, samples, keep)
    write(out, chosen, conversations)
    return statistics(answers, rewards, samples, chosen)
