"""What answers are like: do they end, do they repeat, how long are they, are they right, and which of two is better.

python -m trainer.post evaluate RUN --prompts FILE.jsonl [--before RUN] [--reward RUN] --out OUT
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from pipelines.shards import ShardError
from pipelines.shards.template import Markers, Template, markers, render_prompt
from trainer.engine import Sampling, generate
from trainer.errors import UserError
from trainer.generate import load_run, placed
from trainer.model import Decoder
from trainer.post import report
from trainer.post.adapters import virtual_tokens
from trainer.post.experience import Answer, Prompt
from trainer.post.peft import load_adapted
from trainer.post.policy import Online
from trainer.post.rewards import exact_match, final_number
from trainer.post.rollout import Reward, answer_all
from trainer.post.start import Base


class Words(NamedTuple):
    """A tokenizer, and the ids of its markers of turns."""

    tokenizer: Tokenizer
    marks: Markers


def words_with(path: Path, template: Mapping[str, str] | None) -> Words:
    """A tokenizer.json with the template of conversations, ours where none is given. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path} is missing; copy the tokenizer.json that made the shards there")
    tokenizer = Tokenizer.from_file(str(path))
    try:
        return Words(tokenizer, markers(Template(**template or {}), tokenizer.token_to_id))
    except ShardError as error:
        raise UserError(f"{path}: {error}") from error


def words_of(run: Path) -> Words:
    """A run's tokenizer, and the markers of the conversations that it was trained on. Raises UserError."""
    values = json.loads((run / "config.json").read_text()) if (run / "config.json").is_file() else {}
    return words_with(run / "tokenizer.json", values.get("data", {}).get("template"))


def read_prompts(path: Path, words: Words, most: int | None = None) -> tuple[list[Prompt], list[list[dict[str, str]]]]:
    """Prompts of a JSON-lines file (.gz too), and their messages: up to the last answer, which is the reference.

    A line has `messages`, or `prompt` (messages) with `chosen` or `completion`, or `question` and `answer`; `lang` groups them.
    Raises UserError for another shape.
    """
    prompts, conversations = list[Prompt](), list[list[dict[str, str]]]()
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if most is not None and len(prompts) == most:
                break
            given, reference = _asked(json.loads(line), f"{path}, line {number}")
            if given:
                prompts.append(_prompt(given, reference, str(json.loads(line).get("lang", "all")), words))
                conversations.append(given)
    return prompts, conversations


def _asked(row: dict[str, Any], where: str) -> tuple[list[dict[str, str]], str]:
    """The messages before the last answer, and that answer; none where the model writes nothing."""
    if "messages" in row:
        messages = row["messages"]
        last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=0)
        return messages[:last], messages[last]["content"] if last else ""
    if "prompt" in row and not isinstance(row["prompt"], str):
        return row["prompt"], row.get("chosen") or row.get("completion") or ""
    if "question" in row or "prompt" in row:
        asked = row.get("question") or row["prompt"]
        return [{"role": "user", "content": asked}], str(row.get("answer", ""))
    raise UserError(f"{where} has neither messages, prompt nor question, but {', '.join(row)}; give one of these")


def _prompt(messages: list[dict[str, str]], reference: str, group: str, words: Words) -> Prompt:
    def encode(text: str) -> list[int]:
        ids: list[int] = words.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    turns = [(m["role"], m["content"] if isinstance(m["content"], str) else json.dumps(m["content"])) for m in messages]
    return Prompt(tuple(render_prompt(turns, words.marks, encode).tolist()), reference, words.marks.end, group)


def repeats(tokens: Sequence[int], times: int = 3, least: int = 16) -> bool:
    """Whether a text ends in one piece said `times` times or more in a row, over at least `least` tokens."""
    ids = np.asarray(tokens, np.int64)
    for period in range(1, len(ids) // times + 1):
        same = ids[period:] == ids[:-period]
        run = len(same) if same.all() else int(np.argmin(same[::-1]))
        if run + period >= max(times * period, least):
            return True
    return False


def repetition_rate(answers: Sequence[Answer]) -> float:
    """The share of answers that do not end and repeat a piece of text (DeepSeek LLM, arXiv 2401.02954, section 4)."""
    return _mean([not a.completion.ended and repeats(a.completion.tokens) for a in answers])


def summarize(answers: Sequence[Answer], rewards: Sequence[float] = ()) -> dict[str, float]:
    """Figures of some answers: shares and means. `exact_match` where references have a number, `reward` where there are any."""
    figures = {"answers": float(len(answers)), "repetition_rate": repetition_rate(answers)}
    figures["ended"] = _mean([a.completion.ended for a in answers])
    figures["tokens"] = _mean([len(a.completion.tokens) for a in answers])
    if checkable := [a for a in answers if final_number(a.prompt.reference) is not None]:
        figures["exact_match"] = _mean(exact_match(checkable))
    return figures | ({"reward": _mean(rewards)} if len(rewards) else {})


def by_group(answers: Sequence[Answer], rewards: Sequence[float] = ()) -> dict[str, dict[str, float]]:
    """`summarize` of all answers, and of those of each language where there are several."""
    groups = sorted({a.prompt.group for a in answers})
    result = {"all": summarize(answers, rewards)}
    for group in groups if len(groups) > 1 else ():
        mine = [number for number, a in enumerate(answers) if a.prompt.group == group]
        result[group] = summarize([answers[i] for i in mine], [rewards[i] for i in mine] if len(rewards) else ())
    return result


def win_rate(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """How often the reward of the answer after is the higher one, ties counted half, with its 95 % interval."""
    wins = sum(0.5 if a == b else float(a > b) for b, a in zip(before, after, strict=True))
    return interval(wins, len(before))


def interval(successes: float, trials: int) -> tuple[float, float, float]:
    """A share with its 95 % interval (Wilson 1927); of nothing, all is possible."""
    if not trials:
        return 0.0, 0.0, 1.0
    z, share = 1.959964, successes / trials
    middle, spread = share + z * z / (2 * trials), z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    scale = 1 + z * z / trials
    return share, max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def answer_prompts(
    run: Path,
    prompts: Sequence[Prompt],
    limit: int,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 0,
    vllm: bool = False,
    base: Base | None = None,
) -> list[Answer]:
    """A run's answers, `samples` a prompt in a row, on the device that is there (bf16 on a GPU). Greedy at temperature 0.

    `base`: what the run is an adapter of. Raises UserError.
    """
    if vllm:
        from trainer.post import with_vllm

        if base is not None:
            raise UserError(f"vLLM takes whole weights, and {run} is an adapter; merge it, or leave --vllm out")
        model, tokenizer = with_vllm.opened(run), words_of(run).tokenizer
        produce, device = with_vllm.generate, torch.device("cpu")
    else:
        whole, tokenizer = load_run(run)[:2] if base is None else (load_adapted(run, base), words_of(run).tokenizer)
        model, device = placed(whole)
        produce = partial(_after, virtual_tokens(model))
    return answer_all(
        model, prompts, tokenizer, Sampling(temperature, 1.0, seed), Online(samples=samples, limit=limit), device, produce
    )


def _after(first: tuple[int, ...], model: Decoder, prompts: Sequence[Sequence[int]], *more: Any, **named: Any) -> Any:
    """As trainer.engine.generate, with the same tokens before every prompt."""
    return generate(model, [(*first, *prompt) for prompt in prompts], *more, **named)


def compare(
    before: Path | None,
    after: Path,
    prompts: Path,
    reward: Reward | None,
    limit: int,
    most: int | None,
    out: Path,
    vllm: bool = False,
    base: Base | None = None,
) -> dict[str, Any]:
    """Greedy answers of a run, beside those of another one if given: OUT/evaluate.json, OUT/report.html and a table.

    `base`: what the run `after` is an adapter of. Raises UserError.
    """
    out.mkdir(parents=True, exist_ok=True)
    runs = {"before": before, "after": after} if before else {"after": after}
    answers, rewards, asked = dict[str, list[Answer]](), dict[str, list[float]](), list[str]()
    for name, run in runs.items():
        some, conversations = read_prompts(prompts, words_of(run), most)
        asked = ["\n\n".join(str(message["content"]) for message in messages) for messages in conversations]
        answers[name] = answer_prompts(run, some, limit, vllm=vllm, base=base if name == "after" else None)
        rewards[name] = list(reward(answers[name])) if reward else []
    found: dict[str, Any] = {name: by_group(answers[name], rewards[name]) for name in runs}
    if reward and before:
        found["win_rate"] = win_rate(rewards["before"], rewards["after"])
    (out / "evaluate.json").write_text(json.dumps(found, indent=1) + "\n")
    figures = figures_of(found)
    title = f"{after.name} against {before.name}" if before else after.name
    lead = f"{len(asked)} prompts of {prompts.name}, answered greedily with at most {limit} tokens."
    report.write(
        out / "report.html", title, lead, figures, (), report.samples_of(answers.get("before", ()), answers["after"], asked)
    )
    report.show(title, figures)
    return found


LOWER, HIGHER = ("repetition_rate",), ("ended", "exact_match", "reward")  # what better means; of a length nothing is said


def figures_of(found: dict[str, Any]) -> list[report.Figure]:
    """Lines of a report from `by_group` before and after."""
    made = []
    for group, after in found["after"].items():
        before = found.get("before", {}).get(group, {})
        for name, value in after.items():
            old = before.get(name)
            better = None if old in (None, value) or name not in LOWER + HIGHER else (value < old) == (name in LOWER)
            made.append(report.Figure(f"{group}: {name.replace('_', ' ')}", old, value, better))
    if "win_rate" in found:
        share, low, high = found["win_rate"]
        held = None if low <= 0.5 <= high else low > 0.5
        made.append(report.Figure("win rate by the reward", 0.5, share, held, f"95 % interval {low:.3f} to {high:.3f}"))
    return made


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
