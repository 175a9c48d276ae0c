"""What PPO and GRPO compute: advantages and losses, pure functions of log-probabilities, rewards and values.

Shapes: N answers, T tokens of the longest, M tokens flattened. A reward is an answer's, at its last token; a value is what is
expected from a token on. Log-probabilities are of the tokens sampled, in nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Online:
    """How a policy learns from its own answers.

    A rollout answers the prompts of the next `passes` x `parts` steps, then each of these steps updates on a part of it.
    `kl`: weight of the divergence from the base, with PPO in the reward (Ziegler et al. 2019, arXiv 1909.08593, section 2.2;
    adaptive where `kl_target` gives the nats an answer to hold), with GRPO in the loss.
    """

    samples: int = 8  # answers to a prompt
    limit: int = 256  # tokens of an answer
    temperature: float = 1.0
    passes: int = 1
    parts: int = 1
    clip: float = 0.2  # of the ratio (Schulman et al. 2017, arXiv 1707.06347, equation 7)
    kl: float = 0.04
    kl_target: float | None = None
    unended: float | None = 0.0  # reward of an answer that does not end; None: what it is judged to be
    discount: float = 1.0
    trace: float = 0.95  # lambda of generalised advantage estimation
    value: float = 0.1  # weight of the value's loss, whose gradient goes through the policy's own layers
    rows: int | None = None  # answers under way at a time (trainer.engine)
    graphs: bool = False  # decoding steps as captured graphs, on a GPU

    def __post_init__(self) -> None:
        counts = self.samples, self.limit, self.passes, self.parts, 1 if self.rows is None else self.rows
        if min(counts) < 1 or self.temperature <= 0 or self.clip <= 0:
            raise ValueError("samples, limit, passes, parts and rows are at least 1, temperature and clip above 0")


def group_advantages(rewards_N: Sequence[float], samples: int) -> Floats:
    """Rewards normalised among the `samples` answers to each prompt, in a row (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    Answers that all got the same teach nothing: 0.
    """
    rewards = np.asarray(rewards_N, np.float64).reshape(-1, samples)
    deviation = rewards.std(1, keepdims=True)
    centred = rewards - rewards.mean(1, keepdims=True)
    advantages: Floats = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 1e-8)
    return advantages.reshape(-1)


def estimate(rewards: Sequence[Floats], values: Sequence[Floats], discount: float, trace: float) -> list[Floats]:
    """Generalised advantages of each answer's tokens (arXiv 1506.02438, equation 16); after its last token there is nothing.

    `rewards` and `values`: an array (tokens,) an answer.
    """
    made = []
    for reward, value in zip(rewards, values, strict=True):
        delta = reward + discount * np.append(value[1:], 0.0) - value
        ahead = 0.0
        advantage = np.empty_like(delta)
        for place in range(len(delta) - 1, -1, -1):
            advantage[place] = ahead = delta[place] + discount * trace * ahead
        made.append(advantage)
    return made


def adapted(coefficient: float, kl: float, target: float) -> float:
    """The weight of the divergence after a rollout: by a tenth of the relative error, at most 2 % (Ziegler et al. 2019)."""
    return coefficient * (1 + 0.1 * min(0.2, max(-0.2, kl / target - 1)))


def clipped_loss(log_p_M: Tensor, old_M: Tensor, advantage_M: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """PPO's loss of each token, and where the clipping bites (arXiv 1707.06347, equation 7)."""
    ratio_M = (log_p_M - old_M).exp()
    plain_M, bounded_M = ratio_M * advantage_M, ratio_M.clamp(1 - clip, 1 + clip) * advantage_M
    return -torch.minimum(plain_M, bounded_M), (bounded_M < plain_M).float()


def value_loss(value_M: Tensor, old_M: Tensor, aim_M: Tensor, clip: float) -> Tensor:
    """Half of the squared error, the greater of the value's and of the one kept within `clip` of the old value."""
    bounded_M = old_M + (value_M - old_M).clamp(-clip, clip)
    return torch.maximum((value_M - aim_M).square(), (bounded_M - aim_M).square()) / 2


def divergence(log_p_M: Tensor, reference_M: Tensor) -> Tensor:
    """An estimate of the KL divergence from each token: unbiased and never negative (DeepSeekMath, equation 4)."""
    away_M = reference_M - log_p_M
    return away_M.exp() - away_M - 1
