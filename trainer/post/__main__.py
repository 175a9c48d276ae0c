"""Post-training: python -m trainer.post VERB; each verb says its own options with --help.

accelerate launch -m trainer.post sft|reward|dpo|ppo|grpo RECIPE --data OUT/shards --base RUN_OR_HF_FOLDER --out RUN
python -m trainer.post evaluate RUN --prompts FILE.jsonl [--before RUN] [--reward RUN] --out OUT
python -m trainer.post reject RUN --prompts FILE.jsonl --reward RUN --out BEST.jsonl
python -m trainer.post merge|export RUN --base BASE --out OUT        an adapter into its base, or into PEFT's format
python -m trainer.post import PEFT_FOLDER --base BASE --out RUN
python -m trainer.post rounds RECIPE --data OUT/shards --base BASE --prompts FILE.jsonl --out OUT
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.schedule import ScheduleError, read_schedule, write_schedule
from pipelines.shards import ShardError, Shards
from trainer.base import check_tokenizer
from trainer.config import TrainConfig, load_from, with_settings
from trainer.errors import UserError
from trainer.log import say
from trainer.post import peft
from trainer.post.config import Post, check_schedule, plan, reads
from trainer.post.dpo import dpo
from trainer.post.evaluate import compare
from trainer.post.grpo import grpo
from trainer.post.ppo import ppo
from trainer.post.rejection import reject
from trainer.post.reward import reward
from trainer.post.rewards import find
from trainer.post.rollout import Reward
from trainer.post.rounds import Folders, Rounds, launcher, run_rounds
from trainer.post.sft import sft
from trainer.post.start import Base, dense_if_prefix, open_base
from trainer.task import Task
from trainer.train import launch

TASKS: dict[str, Callable[[Post, Base], Task]] = {"sft": sft, "reward": reward, "dpo": dpo}
ONLINE: dict[str, Callable[[Post, Base, Reward], Task]] = {"ppo": ppo, "grpo": grpo}


def make(args: argparse.Namespace) -> tuple[TrainConfig, Task]:
    """Config and task of a loop; its schedule is compiled into OUT/schedule.json unless one is given. Raises UserError."""
    cfg = with_settings(load_from("trainer.post.recipes", args.recipe, Post), args.set)
    base = open_base(args.base, args.out)
    try:
        shards = Shards(args.data)
        check_tokenizer(base, shards.manifest)
        kinds = reads(args.verb, cfg)
        if args.schedule is not None:
            check_schedule(read_schedule(args.schedule, *shards.manifest.lineage), shards, kinds)
        else:
            args.schedule = args.out / "schedule.json"
            schedule = plan(shards, cfg, kinds, base.context)
            args.out.mkdir(parents=True, exist_ok=True)
            write_schedule(args.schedule, schedule)
    except (ShardError, ScheduleError) as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"cannot write to {args.out}: {error.strerror}; choose another --out") from error
    task = ONLINE[args.verb](cfg, base, find(args.reward)) if args.verb in ONLINE else TASKS[args.verb](cfg, base)
    return dense_if_prefix(cfg.train_config(base.model), cfg.adapter), task


def main(arguments: list[str] | None = None) -> int:
    """The command line; a UserError becomes one line and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.post", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    _loops(verbs)
    _moves(verbs)
    _asks(verbs)
    _several(verbs)
    args = parser.parse_args(arguments)
    act: Callable[[argparse.Namespace], None] | None = args.act
    if act is None:
        return launch(lambda: make(args), args)
    try:
        act(args)
    except (UserError, ShardError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _loops(verbs: Any) -> None:
    loops = {"sft": "fine-tune on conversations", "reward": "a reward model", "dpo": "learn from preferences"}
    loops |= {"ppo": "learn from rewards, with a critic", "grpo": "learn from rewards, among answers to a prompt"}
    for verb, what in loops.items():
        loop = verbs.add_parser(verb, help=what)
        loop.set_defaults(act=None)
        loop.add_argument("recipe", metavar="RECIPE", help="a name in trainer/post/recipes, or path/to/file.py:function")
        loop.add_argument(
            "--data", type=Path, required=True, metavar="OUT/shards", help="shards with roles, of the recipe chat"
        )
        loop.add_argument("--base", type=Path, required=True, help="a training run, or a folder of Hugging Face safetensors")
        loop.add_argument("--out", type=Path, required=True, metavar="RUN", help="checkpoints, metrics and samples go here")
        loop.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. --set learning_rate.peak=1e-6"
        )
        loop.add_argument("--schedule", type=Path, help="default: compiled from the recipe's epochs, batch and stages")
        loop.add_argument("--tokenizer", type=Path, help="default: tokenizer/tokenizer.json beside the shard folder")
        loop.add_argument("--steps", type=int, help="stop after this step; go on later with the same command")
        if verb in ONLINE:
            loop.add_argument("--reward", default="number", help="number, tests, or the --out of a reward model (number)")


def _moves(verbs: Any) -> None:
    for verb, what in (("merge", "LoRA into its base"), ("export", "an adapter for PEFT"), ("import", "an adapter of PEFT")):
        move = verbs.add_parser(verb, help=what)
        move.set_defaults(act=_move)
        move.add_argument("source", type=Path, metavar="PEFT_FOLDER" if verb == "import" else "RUN")
        move.add_argument("--base", type=Path, required=True, help="the run that the adapter was trained on")
        move.add_argument("--out", type=Path, required=True, help="a new folder")


def _asks(verbs: Any) -> None:
    for verb, what in (("evaluate", "what its answers are like"), ("reject", "the best of its answers, to fine-tune on")):
        ask = verbs.add_parser(verb, help=what)
        ask.set_defaults(act=_ask)
        ask.add_argument("run", type=Path, metavar="RUN", help="a training run")
        ask.add_argument("--prompts", type=Path, required=True, metavar="FILE.jsonl", help="messages, or question and answer")
        ask.add_argument("--out", type=Path, required=True, help="a folder" if verb == "evaluate" else "a file of JSON lines")
        ask.add_argument("--limit", type=int, default=256, help="tokens of an answer (256)")
        ask.add_argument("--most", type=int, help="prompts, the first ones")
        ask.add_argument("--base", type=Path, help="of a RUN that is an adapter: the run it was trained on")
        ask.add_argument("--vllm", action="store_true", help="generate with vLLM, which must be installed")
        if verb == "evaluate":
            ask.add_argument("--before", type=Path, metavar="RUN", help="what it is compared with")
            ask.add_argument("--reward", help="number, tests, or the --out of a reward model")
        else:
            ask.add_argument("--reward", required=True, help="number, tests, or the --out of a reward model")
            ask.add_argument("--samples", type=int, default=10, help="answers to a prompt (10)")
            ask.add_argument("--keep", type=int, default=1, help="of them (1)")
            ask.add_argument("--seed", type=int, default=0)


def _several(verbs: Any) -> None:
    several = verbs.add_parser("rounds", help="reward model, rejection sampling, SFT and DPO, several times")
    several.set_defaults(act=_rounds)
    several.add_argument("recipe", metavar="RECIPE", help="as for the others; it returns trainer.post.rounds.Rounds")
    several.add_argument("--data", type=Path, nargs="+", required=True, help="shards of each round, the last for those beyond")
    several.add_argument("--base", type=Path, required=True, help="a training run, or a folder of Hugging Face safetensors")
    several.add_argument("--prompts", type=Path, required=True, metavar="FILE.jsonl", help="conversations, or prompts alone")
    several.add_argument("--out", type=Path, required=True, help="a folder a round")
    several.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. --set rounds=2")
    several.add_argument("--launch", default=launcher(), help='e.g. "accelerate launch --num_processes 8 -m"')


def _move(args: argparse.Namespace) -> None:
    base = open_base(args.base, args.out)
    {"merge": peft.merge, "export": peft.export, "import": peft.import_folder}[args.verb](args.source, base, args.out)
    say(f"{args.out} is written")


def _ask(args: argparse.Namespace) -> None:
    judge = find(args.reward) if args.reward else None
    base = open_base(args.base, args.run) if args.base else None
    try:
        if args.verb == "evaluate":
            compare(args.before, args.run, args.prompts, judge, args.limit, args.most, args.out, args.vllm, base)
        elif judge is not None:
            how = args.samples, args.keep, args.limit, args.most, args.seed, args.vllm, base
            told = reject(args.run, args.prompts, judge, args.out, *how)
            say(f"{args.out}: " + ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in told.items()))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; give a file that can be read, and another --out") from error


def _rounds(args: argparse.Namespace) -> None:
    cfg = with_settings(load_from("trainer.post.recipes", args.recipe, Rounds), args.set)
    base = open_base(args.base, args.out).run
    say(f"the best model is {run_rounds(cfg, Folders(tuple(args.data), base, args.prompts, args.out, args.launch))}")


if __name__ == "__main__":
    sys.exit(main())
