"""Train a recipe on shards. The run goes on from its newest checkpoint; the same command again continues or says it is done.

accelerate launch -m trainer.train RECIPE --data OUT/shards --out RUN [--set FIELD=VALUE ...] [--steps N]
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator

from trainer.base import pretraining
from trainer.config import TrainConfig, load_recipe, with_settings
from trainer.data import Batch, Prefetcher
from trainer.errors import UserError
from trainer.log import StepLog, check_trackers
from trainer.memory import is_out_of_memory, what_would_fit
from trainer.profiler import Profiler
from trainer.report import Report
from trainer.session import Session, finish, open_session
from trainer.step import Step, moment, train_step
from trainer.task import Task


def main(arguments: list[str] | None = None) -> int:
    """The command line; a UserError becomes one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="accelerate launch -m trainer.train", description="Train a recipe on shards.")
    parser.add_argument("recipe", metavar="RECIPE", help="a name in trainer/recipes, or path/to/file.py:function")
    parser.add_argument("--data", type=Path, required=True, metavar="OUT/shards", help="the shard folder")
    parser.add_argument("--schedule", type=Path, help="default: schedule.json beside the shard folder")
    parser.add_argument("--tokenizer", type=Path, help="default: tokenizer/tokenizer.json beside the shard folder")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="checkpoints, metrics and samples go here")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. --set learning_rate.peak=1e-3")
    parser.add_argument("--steps", type=int, help="stop after this step of the schedule; go on later with the same command")
    args = parser.parse_args(arguments)

    def make() -> tuple[TrainConfig, Task]:
        cfg = with_settings(load_recipe(args.recipe), args.set)
        return cfg, pretraining(cfg, args.data, args.out)

    return launch(make, args)


def launch(make: Callable[[], tuple[TrainConfig, Task]], args: argparse.Namespace) -> int:
    """Run what `make` gives, by `data`, `schedule`, `tokenizer`, `out` and `steps` of a command line; its exit code."""
    cfg: TrainConfig | None = None
    accelerator: Accelerator | None = None
    session: Session | None = None
    task: Task | None = None
    try:
        cfg, task = make()
        # Precision is the business of `parallelize`. Without cpu=True several processes on a CPU would not form a group.
        cpu = not torch.cuda.is_available()
        trackers = check_trackers(cfg.run.trackers)
        folder = args.out / "trackers"
        accelerator = Accelerator(cpu=cpu, log_with=trackers or None, project_dir=folder, mixed_precision="no")
        session = open_session(accelerator, cfg, args.data, args.out, args.schedule, args.tokenizer, args.steps, task)
        if session is not None:
            gc.freeze()  # what is here stays: the collector need not go through it again, on each rank at another time
            train(session)
            finish(session)
    except UserError as error:
        # What is checked before the first step fails on every rank alike: one of them speaks.
        alike = session is None or error.everywhere
        if not alike or accelerator is None or accelerator.is_main_process:
            sys.stderr.write(f"error: {error}\n")
        return 1
    except RuntimeError as error:
        if cfg is None or not is_out_of_memory(error):
            raise
        known = (session.data.schedule, session.world) if session is not None else ()
        sys.stderr.write(f"error: {what_would_fit(cfg, error, *known)}\n")
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        session = task = accelerator = None
        gc.unfreeze()
        gc.collect()  # process groups in cycles would outlive the interpreter, and their threads abort it
    return 0


def train(run: Session) -> None:
    """From the session's first step to its last: queue a step, then report the one before; evaluate and save when due."""
    cfg, schedule = run.cfg, run.data.schedule
    batches: Iterator[Batch] = (
        run.task.batches(run)
        if run.task.batches
        else Prefetcher(
            lambda step: run.task.load(run.data, step, run.rank, run.world, cfg.parallel.micro_batch),
            run.first_step,
            run.last_step,
        )
    )
    saved_at, under_way = time.monotonic(), list[Step]()
    log = StepLog(run.accelerator, run.out, run.first_step, run.last_step, cfg.run.log_every)
    with log, Profiler(run.out, run.rank, cfg.run.profile_steps) as profiler:
        report = Report(run, log)
        for done in range(run.first_step + 1, run.last_step + 1):
            profiler(done - 1)
            began, asked = moment(run.device), time.perf_counter()
            batch = next(batches)
            waited, overdue = time.perf_counter() - asked, time.monotonic() - saved_at > 60 * cfg.run.save_every_minutes
            under_way.append(train_step(run, batch, run.rate(batch.plan), overdue, waited, began))
            evaluate, probe = (
                every is not None and (done % every == 0 or done == schedule.total_steps)
                for every in (cfg.run.evaluate_every, cfg.run.probe_every)
            )
            save = done % cfg.run.save_every_steps == 0 or done == run.last_step
            if len(under_way) > 1:
                save |= report(under_way.pop(0))  # what rank 0 wished a step ago, all ranks read now
            if evaluate or probe or save:
                report(under_way.pop())  # nothing is saved before it is known to be sound
            if evaluate:
                log.evaluation(done, run.validate(batch.plan.sequence_length))
            if probe:
                log.probes(done, run.probe(batch.plan.sequence_length))
            if save:
                run.save(done)
                saved_at = time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
