"""One contestant of `bench.trainer`, started by torchrun on every GPU; rank 0 prints one line of JSON.

python -m torch.distributed.run --nproc-per-node N -m bench.trainer_run ours 1.7b --shards SHARDS --out OUT
python -m torch.distributed.run --nproc-per-node N -m bench.trainer_run transformers 1.7b [--documents 1024]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trainer  # noqa: F401  (before torch: it sets how threads wait)

import torch  # isort: skip
import torch.distributed as dist
from accelerate import Accelerator

from trainer.config import LearningRate, ModelConfig, Parallel, Run, TrainConfig, WarmupStableDecay

STEPS, COLD = 12, 5  # of a run; the first are not counted


@dataclass(frozen=True)
class Shape:
    """A model and how it is run: `rows` a micro-batch, `micro` micro-batches a step, by number of GPUs (or fewer)."""

    model: ModelConfig
    length: int
    layouts: tuple[tuple[int, int, int, Parallel], ...]  # GPUs, rows, micro-batches, layout

    def layout(self, gpus: int) -> tuple[int, int, Parallel]:
        """That of the greatest number of GPUs which is not more."""
        return max((g, *rest) for g, *rest in self.layouts if g <= gpus)[1:]  # type: ignore[return-value]


def _parallel(**more: Any) -> Parallel:
    return Parallel(compile=True, loss_chunk=4096, **more)


SHAPES = {
    "1.7b": Shape(ModelConfig(128_256, 2048, 24, 16, 8, 5632), 8192, ((1, 4, 1, _parallel(micro_batch=4)),)),
    "7b": Shape(
        ModelConfig(32_000, 4096, 32, 32, 32, 11_008, document_mask=False),
        4096,
        (
            (1, 2, 4, _parallel(micro_batch=2, recompute="selective", kept=0.75)),
            (2, 4, 2, _parallel(micro_batch=4, reshard=False)),
        ),
    ),
    "8b": Shape(
        ModelConfig(128_256, 4096, 32, 32, 8, 14_336, document_mask=False),
        4096,
        (
            (1, 2, 4, _parallel(micro_batch=2, recompute="full")),
            (2, 2, 4, _parallel(micro_batch=2, recompute="selective", kept=0.75)),
        ),
    ),
}


def config(shape: Shape, gpus: int, rows: int, documents: int | None) -> TrainConfig:
    """The recipe of a shape; `rows` of a micro-batch and whether documents are masked, where they are given."""
    parallel, model = shape.layout(gpus)[2], shape.model
    parallel = replace(parallel, micro_batch=rows) if rows else parallel
    model = model if documents is None else replace(model, document_mask=documents > 0)
    rate = LearningRate(peak=3e-4, warmup_steps=10, shape=WarmupStableDecay())
    never = Run(log_every=10**9, evaluate_every=10**9, save_every_steps=10**9, save_every_minutes=1e9, tracker=None)
    return TrainConfig(name="bench", model=model, learning_rate=rate, parallel=parallel, run=never)


def ours(shape: Shape, shards: Path, out: Path, rows: int, documents: int | None) -> dict[str, Any]:
    """Our own loop over real shards, without what it writes."""
    from trainer.data import Prefetcher, load_batch
    from trainer.session import open_session
    from trainer.step import train_step

    began = time.perf_counter()
    accelerator = Accelerator(mixed_precision="no")
    cfg = config(shape, accelerator.num_processes, rows, documents)
    session = open_session(accelerator, cfg, shards, out, None, None, STEPS)
    assert session is not None
    size = cfg.parallel.micro_batch
    batches = Prefetcher(lambda step: load_batch(session.data, step, session.rank, session.world, size), 0, STEPS)
    waits = []

    def step() -> float:
        before = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - before)
        return train_step(session, batch, 3e-4).outcome().loss

    plan = session.data.schedule.step_plan(0)
    found = timed(step, plan.samples * plan.sequence_length, began)
    return found | {"wait": statistics.median(waits[COLD:]) / found["step_s"]}


def transformers(shape: Shape, rows: int, documents: int) -> dict[str, Any]:
    """`LlamaForCausalLM` under Accelerate's FSDP2, each layer compiled, random tokens; `documents`: length of those masked."""
    from accelerate import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy
    from transformers import LlamaConfig, LlamaForCausalLM

    began, model, length = time.perf_counter(), shape.model, shape.length
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        reshard_after_forward=True, mixed_precision_policy=MixedPrecisionPolicy(torch.bfloat16, torch.float32),
    )  # fmt: skip
    accelerator = Accelerator(mixed_precision="bf16", fsdp_plugin=plugin)
    cfg = LlamaConfig(
        vocab_size=model.vocab_size, hidden_size=model.width, intermediate_size=model.feed_forward, use_cache=False,
        num_hidden_layers=model.layers, num_attention_heads=model.heads, num_key_value_heads=model.kv_heads,
        max_position_embeddings=length, attn_implementation="flex_attention" if documents else "sdpa",
    )  # fmt: skip
    with torch.device(accelerator.device):
        made = LlamaForCausalLM(cfg)
    for layer in made.model.layers:
        layer.compile()
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    made, optimizer = accelerator.prepare(made, optimizer)
    tokens = torch.randint(0, model.vocab_size, (rows, length), device=accelerator.device)
    positions = torch.arange(length, device=accelerator.device) % (documents or length)

    def step() -> float:
        loss = made(input_ids=tokens, labels=tokens, position_ids=positions.expand(rows, length)).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    return timed(step, rows * length * accelerator.num_processes, began)


def timed(step: Callable[[], float], tokens: int, began: float) -> dict[str, Any]:
    """Tokens a second a GPU: the median of the steps after the first ones."""
    taken, loss = [], 0.0
    for _ in range(STEPS):
        before = time.perf_counter()
        loss = step()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - before)
        if len(taken) == 1:
            first = time.perf_counter() - began
    median = statistics.median(taken[COLD:])
    gib = torch.cuda.max_memory_allocated() / 2**30
    rate = tokens / median / dist.get_world_size()
    return {"rate": rate, "step_s": median, "first_s": first, "gib": gib, "loss": loss}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("who", choices=("ours", "transformers"))
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=0, help="of a micro-batch")
    parser.add_argument("--documents", type=int, help="length of the documents that are masked, 0 for none")
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    if args.who == "ours":
        found = ours(shape, args.shards, args.out, args.rows, args.documents)
    else:
        found = transformers(shape, args.rows, args.documents or 0)
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
