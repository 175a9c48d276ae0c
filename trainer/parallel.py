"""Laying the model out over the ranks: recomputation, compilation, then sharding. The same code on GPU and over gloo on CPU.

`fully_shard` is applied at world size 1 too: one path, and it installs the precision policy. On a GPU compute is bf16 with
fp32 master weights and fp32 gradient sums; on CPU everything is fp32.
"""

from __future__ import annotations

import os
from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch._functorch import config as functorch_config
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from trainer.config import Parallel
from trainer.model import Block, Decoder


def start_processes(device: torch.device, replicas: int = 1) -> DeviceMesh:
    """The mesh over all ranks, in two dimensions where there are replicas; starts a group of one if the launcher has not."""
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # a process that no launcher started has a device without a number
    if not dist.is_initialized():
        backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    if device.type == "cpu":
        # Ranks of one machine share its cores; more threads than cores makes each of them slower.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    if replicas == 1:
        return init_device_mesh(device.type, (dist.get_world_size(),), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (replicas, dist.get_world_size() // replicas), mesh_dim_names=("replica", "shard"))


def parallelize(model: Decoder, mesh: DeviceMesh, cfg: Parallel) -> Decoder:
    """Recompute, compile and shard each block, then the rest; in place. The model may be on the meta device."""
    gpu = mesh.device_type == "cuda"
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if gpu else torch.float32, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    offload = CPUOffloadPolicy(pin_memory=gpu) if cfg.offload else OffloadPolicy()
    shard = partial(fully_shard, mesh=mesh, mp_policy=policy, offload_policy=offload)
    functorch_config.activation_memory_budget = cfg.kept if cfg.recompute == "selective" else 1.0
    model.kernel = cfg.attention
    for block in model.model.layers:
        assert isinstance(block, Block)
        block.recompute = cfg.recompute == "full"
        if cfg.compile:
            block.compile()  # in place: a wrapper would bypass the hooks of fully_shard
        shard(block, reshard_after_forward=cfg.reshard)
    shard(model.lm_head, reshard_after_forward=False)  # its backward pass comes next
    shard(model, reshard_after_forward=False)
    for method in ("loss", "losses", "outputs"):
        register_fsdp_forward_method(model.lm_head, method)
    for method in ("losses", "losses_with", "outputs_at", "next_logits"):
        register_fsdp_forward_method(model, method)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # The loss is divided by the valid tokens of all ranks, so gradients are summed, not averaged.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no scaled sum
    return model


def reshard(model: nn.Module) -> None:
    """Free gathered weights after passes without a backward, so that parameters are the sharded ones again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
