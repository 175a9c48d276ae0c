"""GRPO: rewards normalised among the answers to a prompt, no critic (DeepSeekMath, arXiv 2402.03300, section 4.1)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from trainer.model import Decoder
from trainer.post.config import Post
from trainer.post.experience import Experience
from trainer.post.policy import Online, clipped_loss, divergence, group_advantages
from trainer.post.rollout import Judged, Reward, Rollouts, online_of
from trainer.post.sft import start
from trainer.post.start import Base, about, with_adapter
from trainer.task import Task

METRICS = ("reward", "kl", "clipped")


def grpo(cfg: Post, base: Base, reward: Reward) -> Task:
    """The task: answers better than the others to their prompt become likelier."""
    online = online_of(cfg)

    def credit(judged: Judged) -> dict[str, Tensor]:
        return {"advantages": judged.packed.spread(list(group_advantages(list(judged.rewards), online.samples)))}

    rollouts = Rollouts(base, online, reward, credit, cfg.adapter is not None)
    return Task(
        objective=partial(objective, online),
        metrics=METRICS,
        validate=rollouts.validate,
        change=partial(with_adapter, adapter=cfg.adapter),
        begin=lambda _, __, model, resumed: start(cfg, base, model, resumed),
        about=about("grpo", base, cfg.adapter, online=online),
        batches=rollouts,
    )


def objective(online: Online, model: Decoder, micro: Experience, normalizer: float) -> Tensor:
    """Equation 3: the mean over answers of the mean over their tokens, the divergence from the base in it."""
    assert micro.old is not None
    assert micro.reference is not None
    assert micro.advantages is not None
    assert micro.share is not None
    assert micro.reward is not None
    log_p = -model.losses(micro.inputs, micro.targets, micro.documents)
    loss, cut = clipped_loss(log_p, micro.old, micro.advantages, online.clip)
    away = divergence(log_p, micro.reference)
    told = (micro.reward, away * micro.share, cut)
    sums = [((loss + online.kl * away) * micro.share).sum(), *(values.detach().sum() for values in told)]
    return torch.stack(sums) / normalizer
