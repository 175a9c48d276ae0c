"""What a model can do while it learns: find a needle in a long text, and choose the right answer after a few examples.

Both compare the likelihood of continuations, in the batches that validation uses, so nothing is compiled anew, and the same on
any number of ranks. Needle: a statement at some depth of held-out text, and at its end the statement again up to its value;
right is the value that was stated (after github.com/gkamradt/LLMTest_NeedleInAHaystack, without generation). Questions: JSON
lines of `question, choices, answer` and `bench`, the log-probability of a choice taken per byte, after the first few questions
of the same `bench` as examples (Brown et al. 2020, arXiv 2005.14165, section 2.4).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tokenizers import Tokenizer

from pipelines.shards import Shards
from trainer.config import Needle, Run, TrainConfig
from trainer.errors import UserError
from trainer.evaluate import validation_sources
from trainer.loss import IGNORED
from trainer.model import Decoder
from trainer.parallel import reshard


@dataclass(frozen=True)
class Choice:
    """A continuation to be scored: `tokens` from `start` on, given those before. `right`: it is the one; `size`: bytes."""

    task: str  # which figure its question belongs to
    question: int
    tokens: list[int]
    start: int
    size: int
    right: bool


def probe(
    model: Decoder, choices: Sequence[Choice], length: int, rows: int, eos_id: int, device: torch.device
) -> dict[str, float]:
    """Share of right answers per task. Called by every rank."""
    scores = log_probabilities(model, choices, length, rows, eos_id, device)
    questions: dict[tuple[str, int], list[tuple[float, bool]]] = {}
    for choice, score in zip(choices, scores, strict=True):
        questions.setdefault((choice.task, choice.question), []).append((score / choice.size, choice.right))
    found: dict[str, list[bool]] = {}
    for (task, _), answers in questions.items():
        found.setdefault(task, []).append(max(answers, key=lambda answer: answer[0])[1])
    return {task: sum(right) / len(right) for task, right in found.items()}


@torch.no_grad()
def log_probabilities(
    model: Decoder, choices: Sequence[Choice], length: int, rows: int, eos_id: int, device: torch.device
) -> list[float]:
    """Log-probability (nats) of each continuation: several in a row of `length` where documents are masked, else one."""
    rank, world = dist.get_rank(), dist.get_world_size()
    places = list(_placed(choices, length, model.cfg.document_mask))
    sums = torch.zeros(len(choices), dtype=torch.float64, device=device)
    height = max((row for row, _ in places), default=-1) + 1
    for first in range(0, height, rows * world):
        batch = torch.full((3, rows, length), eos_id, dtype=torch.int64)  # inputs, targets, documents
        batch[1], batch[2] = IGNORED, 0
        mine: list[tuple[int, int, slice]] = []  # number of a choice, its row, its targets there
        for number, (choice, (row, at)) in enumerate(zip(choices, places, strict=True)):
            here = row - first - rank * rows
            if 0 <= here < rows:
                cut = max(0, len(choice.tokens) - length - 1)  # of one too long the beginning goes
                tokens, start = torch.tensor(choice.tokens[cut:]), max(0, choice.start - cut - 1)
                scored = slice(at + start, at + len(tokens) - 1)
                batch[0, here, at : scored.stop], batch[1, here, scored] = tokens[:-1], tokens[start + 1 :]
                batch[2, here, at:] = number + 1
                mine.append((number, here, scored))
        inputs, targets, documents = batch.to(device)
        losses_BT = model.losses(inputs, targets, documents).double()
        for number, here, scored in mine:
            sums[number] = -losses_BT[here, scored].sum()
    dist.all_reduce(sums)
    reshard(model)
    result: list[float] = sums.tolist()
    return result


def _placed(choices: Sequence[Choice], length: int, together: bool) -> Iterator[tuple[int, int]]:
    """Row and place of each, in order."""
    row, at = 0, 0
    for choice in choices:
        size = min(len(choice.tokens) - 1, length)
        if at and (not together or at + size > length):
            row, at = row + 1, 0
        yield row, at
        at += size


def continuation(tokenizer: Tokenizer, before: list[int], context: str, text: str) -> tuple[list[int], int]:
    """Tokens of `before`, the context and the text, and how many come before the text, as both together are encoded."""
    whole, alone = (tokenizer.encode(t, add_special_tokens=False).ids for t in (context + text, context))
    same = next((i for i, pair in enumerate(zip(whole, alone, strict=False)) if pair[0] != pair[1]), len(alone))
    return before + whole, len(before) + min(same, len(whole) - 1)


def needles(cfg: Needle, tokenizer: Tokenizer, shards: Shards, length: int, begin: list[int]) -> Iterator[Choice]:
    """A question for each share of the length and each depth, in text of the first held-out source."""
    sources, eos = validation_sources(shards), shards.manifest.eos_id
    if not sources:
        raise UserError("the shards hold no text out in which to hide a needle; --set run.needle=null")
    stream = shards.stream(sources[0], "validation")
    statement, _, _ = cfg.statement.partition(" {}")
    number = 0
    for share in cfg.lengths:
        for depth in cfg.depths:
            value = cfg.values[number % len(cfg.values)]
            needle = tokenizer.encode(f"\n{cfg.statement.format(value)}\n", add_special_tokens=False).ids
            asked = [continuation(tokenizer, [], f"\n{statement}", f" {v}") for v in cfg.values]
            room = int(share * length) - len(needle) - max(len(tokens) for tokens, _ in asked)
            if room < 1:
                raise UserError(f"no needle fits into {share * length:.0f} tokens; --set run.needle=null, or longer sequences")
            hay = [needle[0] if token == eos else token for token in stream.slice(number * room, room).tolist()]  # one document
            before = [*begin, *hay[: int(depth * room)], *needle, *hay[int(depth * room) :]]
            for other, (tokens, start) in zip(cfg.values, asked, strict=True):
                task = f"needle {int(share * length)} at {depth:.0%}"
                yield Choice(task, number, before + tokens, len(before) + start, len(other), other == value)
            number += 1


def questions(path: Path, cfg: Run, tokenizer: Tokenizer, begin: list[int]) -> Iterator[Choice]:
    """The questions with choices of a JSON-lines file (or .gz), at most `probe_questions` a bench. Raises UserError."""
    benches: dict[str, list[dict[str, Any]]] = {}
    for item in _read(path):
        if item.get("choices") and isinstance(item.get("answer"), (str, int)):
            benches.setdefault(str(item.get("bench", path.stem)), []).append(item)
    if not benches:
        raise UserError(f"{path} has no line with question, choices and answer")
    for bench, items in sorted(benches.items()):
        shown = "".join(f"{_asked(item)} {item['choices'][_right(item)]}\n\n" for item in items[: cfg.shots])
        for number, item in enumerate(items[cfg.shots :][: cfg.probe_questions]):
            for index, choice in enumerate(item["choices"]):
                tokens, start = continuation(tokenizer, begin, shown + _asked(item), f" {choice}")
                yield Choice(bench, number, tokens, start, max(1, len(str(choice).encode())), index == _right(item))


def _read(path: Path) -> Iterable[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    except (OSError, ValueError) as error:
        raise UserError(f"run.questions {str(path)!r} cannot be read as JSON lines: {error}") from error


def _asked(item: dict[str, Any]) -> str:
    return f"Question: {item['question']}\nAnswer:"


def _right(item: dict[str, Any]) -> int:
    """The answer as an index: given as one, as a letter, or as the text of a choice."""
    answer, choices = item["answer"], item["choices"]
    if isinstance(answer, int):
        return answer
    return choices.index(answer) if answer in choices else ord(answer.strip("() ").upper()[:1] or "A") - ord("A")


def make_choices(cfg: TrainConfig, tokenizer: Tokenizer, shards: Shards, length: int) -> list[Choice]:
    """All that is asked at a sequence length. Raises UserError."""
    # trained without a document mask, a document is seen after the end of another
    begin = [] if cfg.model.document_mask else [shards.manifest.eos_id]
    found = list(needles(cfg.run.needle, tokenizer, shards, length, begin)) if cfg.run.needle is not None else []
    if cfg.run.questions is not None:
        found += questions(Path(cfg.run.questions), cfg.run, tokenizer, begin)
    return found
