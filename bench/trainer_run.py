"""One contestant of `bench.trainer`, started by torchrun on every GPU; rank 0 prints one line of JSON.

python -m torch.distributed.run --nproc-per-node N -m bench.trainer_run ours 1.7b --shards SHARDS --schedule FILE --out OUT
python -m torch.distributed.run --nproc-per-node N -m bench.trainer_run transformers 1.7b --rows 2 [--documents 1024]
python -m torch.distributed.run --nproc-per-node 1 -m bench.trainer_run loss 1.7b
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil

import trainer  # noqa: F401  (before torch: it sets how threads wait)

import torch  # isort: skip
import torch.distributed as dist
from accelerate import Accelerator

from trainer.config import LearningRate, ModelConfig, OptimizerConfig, Parallel, Run, TrainConfig, WarmupStableDecay

STEPS, COLD = 10, 4  # of a run; the first are not counted
GIB = 2**30
LOSS_TOKENS = 32_768


@dataclass(frozen=True)
class Shape:
    """A model and how it is run: `rows` a micro-batch, `micro` micro-batches a step, by number of GPUs (or fewer)."""

    model: ModelConfig
    length: int
    layouts: tuple[tuple[int, int, int, Parallel], ...]  # GPUs, rows, micro-batches, layout
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    precision: Literal["bf16", "fp8"] = "bf16"

    def layout(self, gpus: int) -> tuple[int, int, Parallel]:
        """That of the greatest number of GPUs which is not more."""
        return max((g, *rest) for g, *rest in self.layouts if g <= gpus)[1:]  # type: ignore[return-value]


def _parallel(micro_batch: int, **more: Any) -> Parallel:
    return Parallel(micro_batch=micro_batch, compile=True, **({"loss_chunk": 4096} | more))


SHAPES = {  # what was fastest on one H200 of what fits; on two, what `trainer.plan` says fits without recomputation
    "1.7b": Shape(ModelConfig(128_256, 2048, 24, 16, 8, 5632), 8192, ((1, 4, 1, _parallel(4, reshard=False)),)),
    "7b": Shape(
        ModelConfig(32_000, 4096, 32, 32, 32, 11_008, document_mask=False),
        4096,
        ((1, 2, 4, _parallel(2, recompute="selective", kept=0.75)), (2, 2, 4, _parallel(2, reshard=False))),
    ),
    "8b": Shape(
        ModelConfig(128_256, 4096, 32, 32, 8, 14_336, document_mask=False),
        4096,
        ((1, 5, 3, _parallel(5, recompute="full", loss_chunk=2048)), (2, 2, 4, _parallel(2))),
    ),
}
SHAPES["1.7b-fp8"] = replace(SHAPES["1.7b"], precision="fp8")
SHAPES["8b-bf16"] = replace(  # moments in half the room, for activations that are kept
    SHAPES["8b"],
    layouts=((1, 2, 4, _parallel(2, recompute="selective", kept=0.9, loss_chunk=2048)),),
    optimizer=OptimizerConfig(moments="bf16"),
)


def config(shape: Shape, gpus: int, rows: int, documents: int | None) -> TrainConfig:
    """The recipe of a shape; `rows` of a micro-batch and whether documents are masked, where they are given."""
    parallel, model = shape.layout(gpus)[2], shape.model
    parallel = replace(parallel, micro_batch=rows) if rows else parallel
    model = model if documents is None else replace(model, document_mask=documents > 0)
    rate = LearningRate(peak=3e-4, warmup_steps=10, shape=WarmupStableDecay())
    never = Run(log_every=10**9, evaluate_every=10**9, save_every_steps=10**9, save_every_minutes=1e9, trackers=())
    return TrainConfig("bench", model, rate, optimizer=shape.optimizer, precision=shape.precision, parallel=parallel, run=never)


def ours(shape: Shape, shards: Path, schedule: Path, out: Path, rows: int, documents: int | None) -> dict[str, Any]:
    """Our own loop over real shards, one step ahead of what it knows as `trainer.train` is, without what that writes."""
    from trainer.data import Prefetcher, load_batch
    from trainer.plan import step_flops
    from trainer.report import peak_rate
    from trainer.session import open_session
    from trainer.step import Step, train_step

    accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available())
    cfg = config(shape, accelerator.num_processes, rows, documents)
    session = open_session(accelerator, cfg, shards, out, schedule, None, STEPS)
    assert session is not None
    size = cfg.parallel.micro_batch
    batches = Prefetcher(lambda step: load_batch(session.data, step, session.rank, session.world, size), 0, STEPS)
    waits, flops, under_way = list[float](), list[float](), list[Step]()

    def step() -> None:
        before = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - before)
        flops.append(step_flops(cfg.model, batch))
        under_way.append(train_step(session, batch, 3e-4))
        if len(under_way) > 1:
            under_way.pop(0).outcome()

    plan = session.data.schedule.step_plan(0)
    found = timed(step, plan.samples * plan.sequence_length)
    under_way.pop().outcome()  # raises where the loss is no number
    taken, peak = found["step_s"] * (STEPS - COLD), peak_rate(session.device)
    share = sum(flops[COLD:]) / taken / peak
    return found | {"wait": sum(waits[COLD:]) / taken, "matmul_tflops": peak / 1e12, "share": share}


def transformers(shape: Shape, rows: int, documents: int, attention: str) -> dict[str, Any]:
    """`LlamaForCausalLM` under Accelerate's FSDP2, each layer compiled, random tokens; `documents`: length of those masked."""
    from accelerate import FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy
    from transformers import LlamaConfig, LlamaForCausalLM

    model, length = shape.model, shape.length
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        reshard_after_forward=True, mixed_precision_policy=MixedPrecisionPolicy(torch.bfloat16, torch.float32),
    )  # fmt: skip
    accelerator = Accelerator(mixed_precision="bf16", fsdp_plugin=plugin)
    cfg = LlamaConfig(
        vocab_size=model.vocab_size, hidden_size=model.width, intermediate_size=model.feed_forward, use_cache=False,
        num_hidden_layers=model.layers, num_attention_heads=model.heads, num_key_value_heads=model.kv_heads,
        max_position_embeddings=length, attn_implementation=attention,
    )  # fmt: skip
    with torch.device(accelerator.device):
        made = LlamaForCausalLM(cfg)
    for layer in made.model.layers:
        layer.compile()
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    made, optimizer = accelerator.prepare(made, optimizer)
    tokens = torch.randint(0, model.vocab_size, (rows, length), device=accelerator.device)
    positions = torch.arange(length, device=accelerator.device) % (documents or length)

    def step() -> None:
        loss = made(input_ids=tokens, labels=tokens, position_ids=positions.expand(rows, length)).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, rows * length * accelerator.num_processes)


def loss(shape: Shape) -> dict[str, Any]:
    """GiB that the loss of `LOSS_TOKENS` tokens holds at its peak above weights, states and the gradients of both."""
    from trainer.loss import linear_cross_entropy

    cfg, device = shape.model, torch.device("cuda", 0)
    torch.manual_seed(0)
    dist.init_process_group("nccl")
    weight = torch.randn(cfg.vocab_size, cfg.width, device=device, dtype=torch.bfloat16).mul_(0.02).requires_grad_()
    hidden = torch.randn(LOSS_TOKENS, cfg.width, device=device, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.randint(0, cfg.vocab_size, (LOSS_TOKENS,), device=device, dtype=torch.int32)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear_cross_entropy(hidden, weight, targets, LOSS_TOKENS, shape.layout(1)[2].loss_chunk).backward()
    gradients = sum(leaf.grad.nbytes for leaf in (weight, hidden) if leaf.grad is not None)
    return {"gib": (torch.cuda.max_memory_allocated() - before - gradients) / GIB}


def timed(step: Callable[[], None], tokens: int) -> dict[str, Any]:
    """Tokens a second a GPU over the steps after the first ones, with nothing that waits for a step between them."""
    for number in range(COLD):
        step()
        if number == 0:
            _settle()
            first = time.time() - psutil.Process().create_time()
    _settle()
    began = time.perf_counter()
    for _ in range(STEPS - COLD):
        step()
    _settle()
    taken = (time.perf_counter() - began) / (STEPS - COLD)
    gib = torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else 0.0
    return {"rate": tokens / taken / dist.get_world_size(), "step_s": taken, "first_s": first, "gib": gib}


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("who", choices=("ours", "transformers", "loss"))
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--schedule", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=0, help="of a micro-batch")
    parser.add_argument("--documents", type=int, help="length of the documents that are masked, 0 for none")
    parser.add_argument("--attention", default="sdpa", help="of transformers")
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    if args.who == "ours":
        found = ours(shape, args.shards, args.schedule, args.out, args.rows, args.documents)
    elif args.who == "loss":
        found = loss(shape)
    else:
        found = transformers(shape, args.rows, args.documents or 0, args.attention)
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
