import math

import numpy as np
import pytest
import torch

from trainer.post.policy import Online, adapted, clipped_loss, divergence, estimate, group_advantages, value_loss


@pytest.mark.parametrize(
    ("rewards", "samples", "expected"),
    [
        ([1.0, 0.0, 0.0, 1.0], 4, [1.0, -1.0, -1.0, 1.0]),
        ([1.0, 0.0, 3.0, 5.0], 2, [1.0, -1.0, -1.0, 1.0]),  # each prompt for itself
        ([1.0, 1.0, 0.0, 0.0], 2, [0.0, 0.0, 0.0, 0.0]),  # nothing to tell apart
        ([], 2, []),
    ],
)
def test_groups_are_normalised(rewards: list[float], samples: int, expected: list[float]) -> None:
    assert group_advantages(rewards, samples).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("discount", "trace", "expected"),
    [
        (1.0, 1.0, [2.0 - 0.5, 2.0 - 0.25, 2.0 - 1.0]),  # the return less the value
        (1.0, 0.0, [0.25 - 0.5, 1.0 - 0.25, 2.0 - 1.0]),  # one step ahead
        (0.5, 1.0, [0.5**2 * 2.0 - 0.5, 0.5 * 2.0 - 0.25, 2.0 - 1.0]),
    ],
)
def test_advantages_look_ahead_as_far_as_the_trace_goes(discount: float, trace: float, expected: list[float]) -> None:
    rewards, values = np.array([0.0, 0.0, 2.0]), np.array([0.5, 0.25, 1.0])
    one, alone = estimate([rewards, rewards[2:]], [values, values[2:]], discount, trace)
    assert one.tolist() == pytest.approx(expected)
    assert alone.tolist() == [1.0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "cut"),
    [(1.0, 2.0, -2.0, 0), (1.5, 2.0, -2.4, 1), (0.5, 2.0, -1.0, 0), (0.5, -2.0, 1.6, 1), (1.5, -2.0, 3.0, 0)],
)
def test_the_ratio_is_clipped_where_it_would_gain(ratio: float, advantage: float, loss: float, cut: int) -> None:
    made, clipped = clipped_loss(torch.tensor(math.log(ratio)), torch.tensor(0.0), torch.tensor(advantage), 0.2)
    assert (float(made), int(clipped)) == (pytest.approx(loss), cut)


def test_a_value_may_not_gain_by_a_jump() -> None:
    values = torch.tensor([0.1, 1.0, 1.0])
    loss = value_loss(values, torch.zeros(3), torch.tensor([1.0, 1.0, 0.0]), 0.2)
    assert loss.tolist() == pytest.approx([0.81 / 2, 0.64 / 2, 1.0 / 2])


def test_the_divergence_is_estimated_without_bias_and_never_below_zero() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    estimated = divergence(p.log(), q.log())
    assert (estimated >= 0).all()
    assert float((p * estimated).sum()) == pytest.approx(float((p * (p / q).log()).sum()))
    assert float(divergence(p.log(), p.log()).abs().max()) == 0


@pytest.mark.parametrize(("kl", "expected"), [(6.0, 0.1), (6.6, 0.101), (60.0, 0.102), (5.4, 0.099), (0.0, 0.098)])
def test_the_weight_of_the_divergence_follows_it(kl: float, expected: float) -> None:
    assert adapted(0.1, kl, 6.0) == pytest.approx(expected)


def test_impossible_settings_are_refused() -> None:
    for values in ({"rows": 0}, {"samples": 0}, {"temperature": 0.0}, {"clip": 0.0}, {"parts": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            Online(**values)  # type: ignore[arg-type]
