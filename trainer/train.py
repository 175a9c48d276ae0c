"""Train a recipe on shards. The run goes on from its newest checkpoint; the same command again continues or says it is done.

accelerate launch -m trainer.train RECIPE --data OUT/shards --out RUN [--set FIELD=VALUE ...] [--steps N]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from trainer.config import load_recipe, with_settings
from trainer.data import Batch, Prefetcher, load_batch
from trainer.errors import UserError
from trainer.log import StepLog, append
from trainer.session import Session, finish, open_session


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
    accelerator: Accelerator | None = None
    session: Session | None = None
    try:
        cfg = with_settings(load_recipe(args.recipe), args.set)
        # Precision is the business of `parallelize`. Without cpu=True several processes on a CPU would not form a group.
        cpu = not torch.cuda.is_available()
        accelerator = Accelerator(cpu=cpu, log_with=cfg.run.tracker, project_dir=args.out, mixed_precision="no")
        session = open_session(accelerator, cfg, args.data, args.out, args.schedule, args.tokenizer, args.steps)
        if session is not None:
            train(session)
            finish(session)
    except UserError as error:
        # What is checked before the first step fails on every rank alike: one of them speaks.
        if session is not None or accelerator is None or accelerator.is_main_process:
            sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def train(run: Session) -> None:
    """From the session's first step to its last: batch, step, log; evaluate and save when due."""
    cfg, schedule = run.cfg, run.data.schedule
    batches = Prefetcher(
        lambda step: load_batch(run.data, step, run.rank, run.world, cfg.parallel.micro_batch), run.first_step, run.last_step
    )
    saved_at = time.monotonic()
    with StepLog(run.accelerator, run.out, run.first_step, run.last_step, cfg.run.log_every) as log:
        for step in range(run.first_step, run.last_step):
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            plan, done = batch.plan, step + 1
            tokens = plan.samples * plan.sequence_length
            rate = run.curve.of_step(plan.tokens_before, tokens)
            overdue = time.monotonic() - saved_at > 60 * cfg.run.save_every_minutes
            loss, norm, save = train_step(run, batch, rate, overdue)
            values = {"step": done, "tokens": plan.tokens_before + tokens, "phase": run.data.phase_name(plan), "loss": loss}
            speed = tokens / (time.perf_counter() - began)
            log.step(values | {"lr": rate, "grad_norm": norm, "tokens_per_second": speed, "data_wait_s": waited})
            if cfg.run.log_samples:
                seen = {"step": done, "rank": run.rank, "world": run.world, "samples": batch.samples}
                append(run.out / f"consumed-{run.rank}.jsonl", seen)
            if done % cfg.run.evaluate_every == 0 or done == schedule.total_steps:
                log.evaluation(done, run.validate(plan.sequence_length))
            if save or done % cfg.run.save_every_steps == 0 or done == run.last_step:
                run.save(done, plan.tokens_before + tokens)
                saved_at = time.monotonic()


def train_step(run: Session, batch: Batch, rate: float, overdue: bool) -> tuple[float, float, bool]:
    """One optimizer step. Returns loss (nats a token, over all ranks), gradient norm, and whether rank 0 wants to save."""
    total = torch.zeros((), device=run.device)
    for number, micro in enumerate(batch.micro_batches, start=1):
        run.model.set_requires_gradient_sync(number == len(batch.micro_batches))
        micro = micro.to(run.device)
        loss = run.model(micro.inputs, micro.targets, micro.documents, batch.valid_tokens)
        loss.backward()
        total += loss.detach()
    norm = clip_gradients(run)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    run.optimizer.zero_grad()
    shared = torch.stack((total, torch.tensor(float(overdue and run.rank == 0), device=run.device)))
    dist.all_reduce(shared)
    mean, norm_value = float(shared[0]), float(norm)
    if not (math.isfinite(mean) and math.isfinite(norm_value)):
        raise UserError(
            f"step {batch.plan.step + 1}: loss is {mean}, gradient norm {norm_value}; the last checkpoint is untouched. "
            f"Lower learning_rate.peak, or look at the samples {', '.join(batch.samples[:4])} ..."
        )
    return mean, norm_value, bool(shared[1])


def clip_gradients(run: Session) -> torch.Tensor:
    """Scale the gradients to the configured norm; returns the norm before, over all ranks."""
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.cfg.optimizer.clip)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


if __name__ == "__main__":
    sys.exit(main())
