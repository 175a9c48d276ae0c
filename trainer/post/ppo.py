"""PPO: a value head on the policy, generalised advantages, clipped ratio and value, the divergence from the base in the reward.

Schulman et al. 2017 (arXiv 1707.06347), as Ziegler et al. 2019 (arXiv 1909.08593) and Ouyang et al. 2022 (arXiv 2203.02155,
appendix C) used it on language models. Only what the model sampled, its terminator included, has a return.
"""

from __future__ import annotations

import math
from functools import partial, reduce

import numpy as np
import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.data import Data
from trainer.loss import IGNORED
from trainer.model import Decoder
from trainer.optimizer import local
from trainer.post.config import Post
from trainer.post.experience import Experience, summed
from trainer.post.policy import Floats, Online, adapted, clipped_loss, divergence, estimate, value_loss
from trainer.post.rollout import Judged, Reward, Rollouts, online_of
from trainer.post.sft import start
from trainer.post.start import Base, about, with_adapter
from trainer.task import Task

HEAD = "value_head"
METRICS = ("reward", "kl", "clipped", "value_loss")


def ppo(cfg: Post, base: Base, reward: Reward) -> Task:
    """The task: answers that turn out better than the value head expected become likelier."""
    online = online_of(cfg)

    def change(model: Decoder) -> None:
        with_adapter(model, cfg.adapter)
        model.add_module(HEAD, nn.Linear(model.cfg.width, 1, bias=False, device="meta"))

    def begin(_: TrainConfig, data: Data, model: Decoder, resumed: bool) -> None:
        start(cfg, base, model, resumed)
        if not resumed:
            nn.init.zeros_(local(model.get_submodule(HEAD).get_parameter("weight").detach()))

    rollouts = Rollouts(base, online, reward, partial(credit, online), cfg.adapter is not None, HEAD)
    return Task(
        objective=partial(objective, online),
        metrics=METRICS,
        validate=rollouts.validate,
        change=change,
        begin=begin,
        about=about("ppo", base, cfg.adapter, online=online),
        batches=rollouts,
    )


def coefficient(online: Online, kls: tuple[float, ...]) -> float:
    """The weight of the divergence in a rollout, from what it was (nats an answer) in those before."""
    if online.kl_target is None:
        return online.kl
    return reduce(lambda weight, kl: adapted(weight, kl, online.kl_target or 1.0), kls, online.kl)


def credit(online: Online, judged: Judged) -> dict[str, Tensor]:
    """Advantages, whitened over all ranks, and what the value head is to learn: advantages before that plus its values."""
    assert judged.values is not None
    packed, weight = judged.packed, coefficient(online, judged.kls[:-1])
    values = packed.gather(judged.values)
    rewards = [
        -weight * (mine - base) for mine, base in zip(packed.gather(judged.old), packed.gather(judged.reference), strict=True)
    ]
    for answer, reward in zip(rewards, judged.rewards, strict=True):
        answer[-1] += reward
    found = estimate(rewards, values, online.discount, online.trace)
    aims = [advantage + value for advantage, value in zip(found, values, strict=True)]
    return {"advantages": packed.spread(whitened(found)), "aims": packed.spread(aims)}


def whitened(advantages: list[Floats]) -> list[Floats]:
    """Less the mean of all tokens of all ranks, over their standard deviation."""
    flat = np.concatenate([*advantages, np.zeros(0)])
    number, total, squares = summed([len(flat), flat.sum(), np.square(flat).sum()])
    mean = total / max(number, 1)
    deviation = math.sqrt(max(squares / max(number, 1) - mean**2, 0.0)) + 1e-8
    return [(advantage - mean) / deviation for advantage in advantages]


def objective(online: Online, model: Decoder, micro: Experience, normalizer: float) -> Tensor:
    """The mean over tokens of the clipped loss and of the value's, which goes through the policy's layers, too."""
    assert micro.old is not None
    assert micro.reference is not None
    assert micro.advantages is not None
    assert micro.share is not None
    assert micro.reward is not None
    assert micro.values is not None
    assert micro.aims is not None
    losses, outputs = model.losses_with(HEAD, micro.inputs, micro.targets, micro.documents)
    sampled = (micro.targets != IGNORED).float()
    loss, cut = clipped_loss(-losses, micro.old, micro.advantages, online.clip)
    error = value_loss(outputs[..., 0].float(), micro.values, micro.aims, online.clip) * sampled
    told = (micro.reward, divergence(-losses, micro.reference) * micro.share, cut, error)
    sums = [(loss + online.value * error).sum(), *(values.detach().sum() for values in told)]
    return torch.stack(sums) / normalizer
