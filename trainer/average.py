"""The mean of checkpoints' weights, as a run folder of its own that `generate` and `evaluate` take.

python -m trainer.average RUN [--last N | --phase NAME] [--out RUN/average]

Llama 3's model is the average of the checkpoints of its annealing phase (arXiv 2407.21783, section 3.4.3). To have them all at
the end, train with `--set run.keep_phase=annealing`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from trainer import checkpoint
from trainer.config import whole_model
from trainer.errors import UserError
from trainer.log import say
from trainer.model import Decoder
from trainer.parallel import start_processes


def average(run: Path, out: Path, last: int | None = None, phase: str | None = None) -> tuple[int, ...]:
    """Write the mean of the `last` checkpoints, or of those of a phase, to OUT; returns their steps. Raises UserError.

    In fp32 on the CPU, with two models in memory at a time.
    """
    paths = chosen(run, last, phase)
    commits = [checkpoint.read_commit(path) for path in paths]
    with torch.device("meta"):
        model = Decoder(whole_model(json.loads((run / "config.json").read_text()), run))
    model.to_empty(device="cpu")
    mean: dict[str, torch.Tensor] = {}
    for count, path in enumerate(paths, start=1):
        checkpoint.load_weights(path, model)
        for name, tensor in checkpoint.weights(model).items():
            mean[name] = tensor.clone() if count == 1 else mean[name].lerp_(tensor, 1 / count)
    steps = tuple(commit.step for commit in commits)
    start_processes(torch.device("cpu"))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "tokenizer.json"):
            if (run / name).is_file():
                shutil.copyfile(run / name, out / name)
        checkpoint.save(out / "checkpoints", mean, replace(commits[-1], average_of=steps), keep=1)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    finally:
        dist.destroy_process_group()
    return steps


def chosen(run: Path, last: int | None, phase: str | None) -> list[Path]:
    """The checkpoints that are meant, oldest first: at least two. Raises UserError, with what is there."""
    found = checkpoint.committed(run / "checkpoints")
    if not found or not (run / "config.json").is_file():
        raise UserError(f"{run} holds no finished checkpoint; give the --out of a training run")
    phases = {path: checkpoint.read_commit(path).phase for path in found}
    paths = [path for path in found if phase is None or phases[path] == phase]
    paths = paths if last is None else paths[-last:]
    if len(paths) < max(2, last or 2):
        there = ", ".join(f"{checkpoint.read_commit(path).step} ({phases[path]})" for path in found)
        raise UserError(
            f"{run} has {len(paths)} of the checkpoints asked for, an average takes at least {max(2, last or 2)}; there are "
            f"those of steps {there}; train with --set run.keep_phase=NAME, or a greater run.keep, to have more"
        )
    return paths


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m trainer.average", description="Average the weights of checkpoints.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the --out of a training run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--last", type=int, metavar="N", help="the newest N checkpoints")
    which.add_argument("--phase", metavar="NAME", help="all of a phase of the schedule (annealing)")
    parser.add_argument("--out", type=Path, help="default: RUN/average")
    args = parser.parse_args(arguments)
    out = args.out or args.run / "average"
    phase = args.phase if args.phase or args.last else "annealing"
    try:
        steps = average(args.run, out, args.last, phase)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    say(f"{out}: the average of the checkpoints of steps {', '.join(map(str, steps))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
