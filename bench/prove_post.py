"""Does post-training do what it is for? A small base, its instructions, preferences and made arithmetic; one report of figures.

python -m bench.prove_post --data DATA --out OUT [--base RUN] [--conversations SHARDS] [--preferences SHARDS] [--set ...]

What is not given is made: the base from DATA/prose, the shards from DATA/post. A stage that is finished is not done again.
Without a GPU there is less of everything. The figures fall as they fall: OUT/report.html and OUT/proof.json say of each whether
it went the way it should.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

import trainer  # noqa: F401  (before torch: it sets how threads wait)

import torch  # isort: skip
from bench.common import RESULTS, About, machine, publish, row, shown
from pipelines.shards import VERSION, Manifest, Shards, order_key, write_manifest, write_shard
from pipelines.shards.template import Template, markers, render_messages
from trainer.data import count_targets, pack
from trainer.errors import UserError
from trainer.generate import load_run
from trainer.log import read, say
from trainer.post import rejection, report, rollout
from trainer.post.__main__ import main as post
from trainer.post.arithmetic import problems
from trainer.post.config import sources_of
from trainer.post.evaluate import Words, answer_prompts, interval, read_prompts, repetition_rate, words_of
from trainer.post.experience import Answer, Prompt
from trainer.post.pairs import find_pairs
from trainer.post.report import Curve, Figure, Sample
from trainer.post.rewards import by_model, exact_match
from trainer.post.rounds import with_source
from trainer.post.start import held_out_rows

ABOUT = About(
    title="Post-training: what it changes",
    compared=(
        "A small model of ours before each stage (under 'peer') and after it (under 'ours'); prompts are held out but for "
        "rollouts. A ratio above 1 means that it went the way it should; rewards below zero have none, and should "
        "rise; a length has no way to go. The figures are of this model and these data alone."
    ),
    peers=("torch", "tokenizers"),
)
LOWER = ("loss", "rate")  # last words of the names of figures that should fall


@dataclass(frozen=True)
class Effort:
    """How much of everything; the defaults are for one large GPU."""

    base_recipe: str = "bench/prove_base.py:base"
    base_steps: int = 1465  # of the schedule's
    epochs: int = 3  # of SFT; the others have the recipes'
    online_epochs: int = 4
    warm: float = 0.25  # share of the sums that a base must get right before PPO and GRPO begin
    largest: int = 20  # number in the sums
    answered: int = 256  # held-out prompts
    limit: int = 256  # tokens of an answer
    samples: int = 8
    context: int = 2048
    settings: tuple[str, ...] = ()  # of all loops


WITHOUT_GPU = Effort("bench/prove_base.py:laptop", 100, largest=9, answered=64, limit=64, samples=4, context=512)


@dataclass(frozen=True)
class Place:
    """Where everything is."""

    base: Path
    conversations: Path
    preferences: Path
    asked: Path  # prompts to sample from, JSON lines
    out: Path

    @property
    def words(self) -> Words:
        """The base's tokenizer, and the markers of turns."""
        return words_of(self.base)


def loop(verb: str, effort: Effort, data: Path, base: Path, out: Path, *settings: str, reward: str = "") -> Path:
    """A verb of trainer.post with its small recipe; returns the run. Raises UserError where it failed."""
    words = [verb, f"small_{verb}", "--data", str(data), "--base", str(base), "--out", str(out)]
    words += ["--tokenizer", str(base / "tokenizer.json"), *(["--reward", reward] if reward else [])]
    words += [word for setting in ("run.evaluate_tokens=10000000", *settings, *effort.settings) for word in ("--set", setting)]
    if post(words):
        raise UserError(f"{verb} of {out} failed, its message is above; the same command goes on from there")
    return out


def prove_sft(place: Place, effort: Effort) -> list[Figure]:
    """Fine-tuning lowers the loss of held-out answers."""
    run = loop("sft", effort, place.conversations, place.base, place.out / "sft", f"epochs={effort.epochs}")
    before, after = (answer_loss(model, place.conversations, effort.context) for model in (place.base, run))
    return [Figure("SFT: held-out answer loss", before, after, after < before, "nats a token")]


@torch.no_grad()
def answer_loss(run: Path, shards: Path, length: int) -> float:
    """Mean loss of the held-out answers' tokens."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, opened = load_run(run)[0].to(device), Shards(shards)
    total, count = 0.0, 0
    for source in sources_of(opened, ("conversations",), "validation"):
        for one in held_out_rows(opened, source, length, opened.stream(source, "validation").n_tokens):
            micro = pack([one], 1, length, with_roles=True).to(device)
            total += float(model.losses(micro.inputs, micro.targets, micro.documents).double().sum())
            count += count_targets(one)
    return total / max(count, 1)


def prove_reward(place: Place, effort: Effort) -> list[Figure]:
    """A reward model tells better answers from others, to prompts that it has not seen."""
    run = loop("reward", effort, place.preferences, place.base, place.out / "reward")
    measured, opened = validation(run), Shards(place.preferences)
    right, pairs = 0.0, 0
    for source in sources_of(opened, ("preferences",), "validation"):
        length = int(json.loads((run / "config.json").read_text())["data"]["sequence_length"])
        rows = held_out_rows(opened, source, length, opened.stream(source, "validation").n_tokens)
        number = sum(len(find_pairs(pack([one], 1, length, with_roles=True))) for one in rows)
        right, pairs = right + measured.get(f"{source}/accuracy", 0.0) * number, pairs + number
    share, low, high = interval(right, pairs)
    note = f"{pairs} pairs, 95 % interval {low:.3f} to {high:.3f}"
    return [Figure("reward model: held-out accuracy", 0.5, share, low > 0.5, note)]


def validation(run: Path) -> dict[str, float]:
    """The last held-out figures of a run."""
    found: list[dict[str, float]] = [line["validation"] for line in read(run / "metrics.jsonl") if "validation" in line]
    return found[-1] if found else {}


def prove_dpo(place: Place, effort: Effort) -> tuple[list[Figure], list[Sample]]:
    """DPO raises the margin, keeps the likelihood of the answers chosen, and makes answers repeat less."""
    sft, run = place.out / "sft", place.out / "dpo"
    loop("dpo", effort, place.preferences, sft, run)
    measured = validation(run)
    figures = []
    for name, what in (("margin", "margin"), ("chosen", "log-probability of the answer chosen")):
        values = [value for key, value in measured.items() if key.endswith(f"/{name}")]
        value = float(np.mean(values)) if values else 0.0
        note = "held out, nats an answer, relative to before" if name == "chosen" else "held out, beta times the log-ratios"
        figures.append(Figure(f"DPO: {what}", 0.0, value, value > 0 if name == "margin" else value >= 0, note))
    prompts = held_out_prompts(place.conversations, place.words.tokenizer, effort)
    before, after = (answer_prompts(model, prompts, effort.limit) for model in (sft, run))
    rates = repetition_rate(before), repetition_rate(after)
    note = f"{len(prompts)} held-out prompts, greedy, at most {effort.limit} tokens"
    figures.append(Figure("DPO: repetition rate", *rates, rates[1] < rates[0] if rates[0] else None, note))
    lengths = [float(np.mean([len(a.completion.tokens) for a in some])) for some in (before, after)]
    figures.append(Figure("DPO: tokens an answer", lengths[0], lengths[1], None, note))
    asked = [place.words.tokenizer.decode(list(p.tokens), skip_special_tokens=False) for p in prompts]
    return figures, report.samples_of(before, after, asked)


def held_out_prompts(shards: Path, tokenizer: Tokenizer, effort: Effort) -> list[Prompt]:
    """The first held-out prompts that leave room for an answer."""
    opened, rows = Shards(shards), []
    for source in sources_of(opened, ("conversations",), "validation"):
        every = held_out_rows(opened, source, effort.context, opened.stream(source, "validation").n_tokens)
        rows += [(source, one) for one in every]
    return [p for p in rollout.prompts_of(rows, tokenizer) if len(p.tokens) + effort.limit <= effort.context][: effort.answered]


def prove_rejection(place: Place, effort: Effort) -> list[Figure]:
    """The answers kept have a higher reward than all, and a model fine-tuned on them answers better."""
    sft, reward, here = place.out / "sft", by_model(place.out / "reward"), place.out / "rejection"
    prompts, conversations = read_prompts(place.asked, place.words, effort.answered)
    room = [i for i, p in enumerate(prompts) if len(p.tokens) + effort.limit <= effort.context]
    answers = answer_prompts(sft, [prompts[i] for i in room], effort.limit, 1.0, effort.samples)
    rewards = list(reward(answers))
    chosen = rejection.choose(answers, rewards, effort.samples)
    told = rejection.statistics(answers, rewards, effort.samples, chosen)
    all_of, kept = told["mean_reward"], told.get("kept_reward")
    held = kept is not None and kept > all_of
    figures = [Figure("rejection: mean reward of all answers, and of those kept", all_of, kept, held, _kept(told))]
    if not chosen:
        return figures
    turns = [[*conversations[room[c.prompt]], {"role": "assistant", "content": c.answer.text}] for c in chosen]
    shards = here / "shards"
    if not (shards / "manifest.json").is_file():
        with_source(Shards(place.conversations), "kept", turns, place.words, shards)
    run = loop("sft", effort, shards, sft, here / "sft", "epochs=1")
    held_out = held_out_prompts(place.conversations, place.words.tokenizer, effort)
    scores = [list(reward(answer_prompts(model, held_out, effort.limit, 1.0))) for model in (sft, run)]
    before, after = (float(np.mean(some)) for some in scores)
    gains = np.subtract(*reversed(scores))
    spread = 1.96 * float(np.std(gains, ddof=1)) / len(gains) ** 0.5
    interval_of_gain = f"{after - before - spread:.3f} to {after - before + spread:.3f}"
    note = f"{len(held_out)} held-out prompts, one answer each at temperature 1; 95 % interval of the gain {interval_of_gain}"
    return [*figures, Figure("rejection: mean reward after fine-tuning on them", before, after, after > before, note)]


def _kept(told: dict[str, float]) -> str:
    return f"{told['kept']:.0f} kept of {told['answers']:.0f}, {told['ended']:.0%} of which end"


def prove_online(place: Place, effort: Effort) -> tuple[list[Figure], list[Curve]]:
    """PPO and GRPO raise their reward on sums, and the share of held-out sums that are right."""
    here = place.out / "sums"
    shards = here / "shards"
    if not (shards / "manifest.json").is_file():
        write_sums(shards, place.base / "tokenizer.json", effort.largest)
    base = warmed(place, effort, shards, here)
    figures, curves = list[Figure](), list[Curve]()
    asked = held_out_prompts(shards, place.words.tokenizer, effort)
    right = {base: share_right(answer_prompts(base, asked, 16))}
    for verb in ("grpo", "ppo"):
        settings = (f"epochs={effort.online_epochs}", "online.limit=16", f"online.samples={effort.samples}", _short(effort))
        run = loop(verb, effort, shards, base, here / verb, *settings, reward="number")
        curve = [line["reward"] for line in read(run / "rollouts.jsonl")]
        part = max(1, len(curve) // 10)
        first, last = float(np.mean(curve[:part])), float(np.mean(curve[-part:]))
        note = f"first and last tenth of {len(curve)} rollouts"
        figures.append(Figure(f"{verb.upper()}: reward of rollouts", first, last, last > first, note))
        after = share_right(answer_prompts(run, asked, 16))
        note = f"{len(asked)} sums never seen, greedy"
        figures.append(Figure(f"{verb.upper()}: held-out exact match", right[base], after, after > right[base], note))
        curves.append(Curve(f"{verb.upper()}: mean reward", curve))
    return figures, curves


def share_right(answers: Sequence[Answer]) -> float:
    """Share of answers whose number is right."""
    return float(np.mean(exact_match(answers))) if answers else 0.0


def warmed(place: Place, effort: Effort, shards: Path, here: Path, most: int = 30) -> Path:
    """The base fine-tuned on the sums, an epoch at a time, until it gets `effort.warm` of them right: something to win."""
    base, prompts = place.base, held_out_prompts(shards, place.words.tokenizer, effort)
    for number in range(most):
        answers = answer_prompts(base, prompts, 16, 1.0)
        if share_right(answers) >= effort.warm:
            break
        base = loop("sft", effort, shards, base, here / f"warm-{number}", "epochs=1", _short(effort))
    return base


def _short(effort: Effort) -> str:
    """Rows for sums: a step has a few, not one long one."""
    return f"sequence_length={min(256, effort.context)}"


def write_sums(out: Path, words: Path, largest: int) -> None:
    """Shards of made arithmetic in the tokenizer of a file; every tenth problem is held out."""
    tokenizer = Tokenizer.from_file(str(words))
    marks, size = markers(Template(), tokenizer.token_to_id), tokenizer.get_vocab_size()
    kind: Literal["uint16", "uint32"] = "uint16" if size <= 1 << 16 else "uint32"
    files = []
    for split in ("train", "validation"):
        rows = []
        for number, problem in enumerate(problems(largest, 0)):
            if (number % 10 == 0) == (split == "validation"):
                turns: Any = problem["messages"]
                pairs = [(turn["role"], turn["content"]) for turn in turns]
                ids, codes = render_messages(pairs, marks, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
                name = hashlib.blake2b(str(problem["id"]).encode(), digest_size=16).digest()
                rows.append((order_key(0, name), name, ids, codes))
        rows.sort(key=lambda row: row[:2])
        names, tokens, roles = [r[1] for r in rows], [r[2] for r in rows], [r[3] for r in rows]
        files.append(write_shard(out, "sums", split, 0, names, tokens, kind, roles))
    digest = hashlib.sha256(words.read_bytes()).hexdigest()
    write_manifest(out, Manifest(VERSION, kind, size, marks.eos, digest, "sums", "0" * 12, tuple(files), 0))


def prepare(args: argparse.Namespace, effort: Effort) -> Place:
    """What is not given is made, by the pipelines and the trainer. Raises UserError where one of them failed."""
    base, made = args.base, args.out / "made"
    if base is None:
        folder = (args.data / "prose").resolve()
        _command(["-m", "pipelines", "run", "bench/prove_recipe.py:prose", "--out", str(made / "prose")], PROSE=str(folder))
        base = made / "base"
        words = ["-m", "trainer.train", effort.base_recipe, "--data", str(made / "prose" / "shards"), "--out", str(base)]
        _command([*words, "--steps", str(effort.base_steps)])
    found = {}
    for name, recipe, file in (("conversations", "chat", "sft"), ("preferences", "preference", "preference")):
        found[name] = getattr(args, name)
        if found[name] is None:
            settings = [f"chat.paths={args.data / 'post' / file}.jsonl.gz", f"encode_chat.tokenizer={base / 'tokenizer.json'}"]
            settings += [f"encode_chat.context={effort.context}", "shards.validation_share=0.2"]
            words = ["-m", "pipelines", "run", f"pipelines/recipes/chat.py:{recipe}", "--out", str(made / name)]
            _command([*words, *(word for setting in settings for word in ("--set", setting))])
            found[name] = made / name / "shards"
    asked = args.asked or args.data / "post" / "sft.jsonl.gz"
    return Place(base, found["conversations"], found["preferences"], asked, args.out)


def _command(words: list[str], **environment: str) -> None:
    command = [sys.executable, *words]
    if subprocess.run(command, check=False, env=os.environ | environment).returncode:
        raise UserError(f"{shlex.join(words)} failed, its message is above; the same command goes on from there")


def prove(place: Place, effort: Effort) -> list[Figure]:
    """All of it: the figures, OUT/proof.json and OUT/report.html."""
    figures = [*prove_sft(place, effort), *prove_reward(place, effort)]
    more, samples = prove_dpo(place, effort)
    figures += [*more, *prove_rejection(place, effort)]
    more, curves = prove_online(place, effort)
    figures += more
    held = sum(f.holds is True for f in figures)
    lead = f"{held} of {sum(f.holds is not None for f in figures)} figures went the way they should."
    (place.out / "proof.json").write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n", encoding="utf-8")
    report.write(place.out / "report.html", ABOUT.title, lead, figures, curves, samples)
    report.show(f"{ABOUT.title}: {lead}", figures)
    say(f"{place.out / 'report.html'} is written")
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; a UserError becomes one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.prove_post", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("examples"), help="folder with prose/ and post/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", type=Path, help="a training run; without it one is trained")
    parser.add_argument("--conversations", type=Path, metavar="SHARDS", help="of the recipe chat, in the base's tokenizer")
    parser.add_argument("--preferences", type=Path, metavar="SHARDS", help="of the recipe preference, the same")
    parser.add_argument("--asked", type=Path, metavar="FILE.jsonl", help="to sample from; DATA/post/sft.jsonl.gz without it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder to write results to")
    usual = Effort() if torch.cuda.is_available() else WITHOUT_GPU
    for name, value in asdict(usual).items():
        if not isinstance(value, tuple):
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=str(value))
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of all loops")
    args = parser.parse_args(argv)
    chosen = {name: getattr(args, name) for name in asdict(usual) if name != "settings"}
    effort = Effort(**chosen, settings=tuple(args.set))
    before, start = machine(), time.perf_counter()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        figures = prove(prepare(args, effort), effort)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [
        row(f.name, f.note, f.after, f.before, "before", "lower" if f.name.endswith(LOWER) else "higher")
        for f in figures
        if f.after is not None
    ]
    command = shlex.join(["make", "prove-post", f"DATA={shown(args.data)}"])
    publish("prove_post", ABOUT, rows, before, command, args.results, start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
