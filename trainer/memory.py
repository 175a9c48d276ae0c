"""Out of memory: what would fit, from what the run was given."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trainer.config import TrainConfig

GIB = 2**30


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the host had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def what_would_fit(cfg: TrainConfig, error: RuntimeError) -> str:
    """One line: what happened, what the state alone takes, and the settings that need less, the cheapest first."""
    total = state_bytes(cfg) / GIB
    what = next((line for line in str(error).splitlines() if "allocate" in line), str(error)).strip()
    state = f"weights, gradients and moments take {total:,.1f} GiB over all processes of a replica"
    ways = " or ".join(f"--set {way}" for way in lighter(cfg))
    return f"out of memory ({what}); {state}; what needs less: {ways}, or more processes. The last checkpoint is untouched"


def state_bytes(cfg: TrainConfig) -> int:
    """Bytes of fp32 weights, gradients and optimizer moments (Adafactor's are a row and a column a matrix: nothing)."""
    return cfg.model.parameters() * (8 if cfg.optimizer.kind == "adafactor" else 16)


def lighter(cfg: TrainConfig) -> Iterator[str]:
    """Settings that take less memory and compute the same, the one that costs least time first."""
    layout = cfg.parallel
    if layout.micro_batch > 1:
        yield f"parallel.micro_batch={layout.micro_batch // 2}"
    if layout.recompute == "none" and layout.compile:
        yield "parallel.recompute=selective"
    elif layout.recompute == "selective" and layout.kept > 0.25:
        yield f"parallel.kept={layout.kept - 0.25}"
    elif layout.recompute != "full":
        yield "parallel.recompute=full"
    if not layout.reshard:
        yield "parallel.reshard=true"
    if layout.replicas > 1:
        yield "parallel.replicas=1"
    if layout.loss_chunk > 1024:
        yield f"parallel.loss_chunk={layout.loss_chunk // 2}"
    if not layout.offload:
        yield "parallel.offload=true"
