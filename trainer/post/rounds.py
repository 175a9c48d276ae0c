"""Rounds of reward model, rejection sampling, SFT and DPO (Llama 3, arXiv 2407.21783, section 4.1), the best model kept.

    OUT/round-0/sft/                                                          the model that the first round samples from
    OUT/round-1/reward/  rejected.jsonl  shards/  sft/  dpo/  dpo/average/     of each round; what is there is not done again
    OUT/rounds.json                                                           scores, and which model is the best so far
    OUT/report.html  evaluate.json                                            the best model beside the first one

A round samples from the best model of those before, lets the reward model choose, fine-tunes the first base on what was given
and chosen, goes on with DPO, and takes what answers held-out prompts best. Training runs in processes of its own, by the verbs.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.shards import Shards, order_key, read_manifest, write_manifest, write_shard
from pipelines.shards.template import render_messages
from trainer.average import average
from trainer.checkpoint import committed
from trainer.errors import UserError
from trainer.log import append, read, say
from trainer.post import rejection
from trainer.post.evaluate import Words, answer_prompts, compare, read_prompts, words_with
from trainer.post.experience import Prompt
from trainer.post.rewards import by_model
from trainer.post.rollout import Reward

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Rounds:
    """`reward`, `sft`, `dpo`: recipes as the verbs take them; `settings`: FIELD=VALUE for all three."""

    reward: str
    sft: str
    dpo: str
    rounds: int = 2
    samples: int = 10  # answers to a prompt (Llama 3: 10 to 30)
    keep: int = 1  # of them
    temperature: float = 1.0
    limit: int = 512  # tokens of an answer
    held_out: int = 128  # prompts, the first ones, that models are judged by and never learn from
    average: int = 0  # the last so many checkpoints of DPO, averaged, are a candidate too (run.keep must be as many)
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.rounds, self.samples, self.keep, self.held_out) < 1 or self.average == 1:
            raise ValueError(f"{self}: rounds, samples, keep and held_out must be 1 or more, an average of 2 or more, or 0")


@dataclass(frozen=True)
class Folders:
    """What a command line names. `data`: of each round, that round's pairs and all before; the last one for those beyond."""

    data: tuple[Path, ...]
    base: Path
    prompts: Path
    out: Path
    launch: str  # what starts a module on the devices there are


def run_rounds(cfg: Rounds, folders: Folders) -> Path:
    """All rounds; returns the best model's run. Raises UserError."""
    words = words_with(_tokenizer(folders), read_manifest(folders.data[0]).template)
    prompts, conversations = read_prompts(folders.prompts, words)
    if len(prompts) <= cfg.held_out:
        raise UserError(
            f"{folders.prompts} has {len(prompts)} prompts, of which {cfg.held_out} are held out; set held_out lower"
        )
    folders.out.mkdir(parents=True, exist_ok=True)
    log, first = folders.out / "rounds.json", folders.out / "round-0" / "sft"
    done = read(log)
    if not done:  # a base that was only trained on text answers nothing yet
        _train("sft", cfg.sft, cfg, folders, folders.data[0], folders.base, first)
    best = Path(done[-1]["best"]) if done else first
    for number in range(len(done) + 1, cfg.rounds + 1):
        here, data = folders.out / f"round-{number}", folders.data[min(number, len(folders.data)) - 1]
        judge = folders.out / f"round-{min(number, len(folders.data))}" / "reward"
        _train("reward", cfg.reward, cfg, folders, data, folders.base, judge)
        reward = by_model(judge)
        chosen = _sample(cfg, best, reward, prompts[cfg.held_out :], conversations[cfg.held_out :], here / "rejected.jsonl")
        shards = with_source(Shards(data), f"round-{number}", chosen, words, here / "shards")
        _train("sft", cfg.sft, cfg, folders, shards, folders.base, here / "sft")
        _train("dpo", cfg.dpo, cfg, folders, data, here / "sft", here / "dpo")
        candidates = [best, here / "sft", here / "dpo"]
        if cfg.average:
            candidates.append(_averaged(here / "dpo", cfg.average))
        scores = {str(run): score(run, prompts[: cfg.held_out], reward, cfg.limit) for run in candidates}
        best = max(candidates, key=lambda run: scores[str(run)])
        append(log, {"round": number, "scores": scores, "best": str(best), "settings": asdict(cfg)})
        say(f"round {number}: {', '.join(f'{Path(run).name} {value:.3f}' for run, value in scores.items())}; best {best}")
        compare(first, best, folders.prompts, reward, cfg.limit, cfg.held_out, folders.out)
    return best


def score(run: Path, prompts: Sequence[Prompt], reward: Reward, limit: int) -> float:
    """Mean reward of the greedy answers to held-out prompts."""
    return float(np.mean(reward(answer_prompts(run, prompts, limit))))


def _sample(
    cfg: Rounds, run: Path, reward: Reward, prompts: Sequence[Prompt], conversations: Sequence[Messages], path: Path
) -> list[Messages]:
    """The conversations with the answers chosen, from `path` if they are there already."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        answers = answer_prompts(run, prompts, cfg.limit, cfg.temperature, cfg.samples)
        rewards = reward(answers)
        chosen = rejection.choose(answers, rewards, cfg.samples, cfg.keep)
        figures = rejection.statistics(answers, rewards, cfg.samples, chosen)
        say(f"{path}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
        if not chosen:
            raise UserError(f"none of {len(answers)} answers of {run} came to an end; set limit higher, or fine-tune it first")
        temporary = path.with_suffix(".tmp")
        rejection.write(temporary, chosen, conversations)
        temporary.replace(path)
    return [line["messages"] for line in read(path)]


def with_source(given: Shards, source: str, conversations: Iterable[Messages], words: Words, out: Path) -> Path:
    """Shards of what is given, by links, and one more source of conversations. Raises UserError after a takedown."""
    manifest, root = given.manifest, given.root.resolve()
    if manifest.takedowns:
        raise UserError(f"{root} has documents that were taken down; write it again without them to add a source")
    tokenizer, seed, rows = words.tokenizer, manifest.seed or 0, []
    for messages in conversations:
        turns = [(m["role"], m["content"]) for m in messages]
        ids, codes = render_messages(turns, words.marks, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
        doc_id = hashlib.blake2b(ids.tobytes(), digest_size=16, person=b"rounds").digest()
        rows.append((order_key(seed, doc_id), doc_id, ids, codes))
    rows = sorted({row[1]: row for row in rows}.values(), key=lambda row: row[:2])
    for file in manifest.files:
        link = out / file.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.symlink(root / file.path, link)
    made = write_shard(
        out, source, "train", 0, [r[1] for r in rows], [r[2] for r in rows], manifest.dtype, [r[3] for r in rows]
    )
    write_manifest(out, replace(manifest, files=(*(replace(f, provenance=None) for f in manifest.files), made)))
    return out


def _train(verb: str, recipe: str, cfg: Rounds, folders: Folders, data: Path, base: Path, out: Path) -> None:
    words = [verb, recipe, "--data", str(data), "--base", str(base), "--out", str(out), "--tokenizer", str(_tokenizer(folders))]
    command = [*shlex.split(folders.launch), "trainer.post", *words, *(w for s in cfg.settings for w in ("--set", s))]
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"{verb} of {out} failed, its message is above; the same command goes on from there")


def _averaged(run: Path, last: int) -> Path:
    out = run / "average"
    if not committed(out / "checkpoints"):
        average(run, out, last)
    return out


def _tokenizer(folders: Folders) -> Path:
    """That of the base or, where it has none, the one beside the shards."""
    places = folders.base / "tokenizer.json", folders.data[0].parent / "tokenizer" / "tokenizer.json"
    found = [path for path in places if path.is_file()]
    if not found:
        raise UserError(f"there is neither {places[0]} nor {places[1]}; copy the tokenizer that made the shards there")
    return found[0]


def launcher() -> str:
    """Without a launcher: one process."""
    return shlex.join([sys.executable, "-m"])
