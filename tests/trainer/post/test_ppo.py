from pathlib import Path

import numpy as np
import pytest
import torch

from trainer import checkpoint
from trainer.generate import load_run
from trainer.log import read
from trainer.parallel import start_processes
from trainer.post import ppo
from trainer.post.__main__ import main
from trainer.post.experience import pack_answers
from trainer.post.policy import Online
from trainer.post.ppo import coefficient, credit, whitened
from trainer.post.rollout import Judged

from .test_grpo import made, rewards, words


@pytest.fixture
def _alone() -> object:
    start_processes(torch.device("cpu"))
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("_alone")
def test_credit_is_the_reward_at_the_end_less_the_divergence_on_the_way() -> None:
    packed = pack_answers([made([1], [2, 3]), made([1], [4])], 8, 1, 2, lambda rows: rows)
    old = packed.spread([np.array([-1.0, -2.0]), np.array([-3.0])])
    reference = packed.spread([np.array([-1.5, -1.0]), np.array([-3.0])])
    values = packed.spread([np.array([0.5, 0.25]), np.array([1.0])])
    judged = Judged(packed, np.array([2.0, 1.0]), old, reference, values, (0.0,))
    found = credit(Online(kl=0.1, discount=1.0, trace=1.0), judged)
    # 2 at the end; of the first token -0.1 * 0.5, of the second +0.1 * 1
    first, second = packed.gather(found["aims"])
    assert first.tolist() == pytest.approx([2.0 - 0.05 + 0.1, 2.0 + 0.1])
    assert second.tolist() == pytest.approx([1.0])
    advantages = np.concatenate(packed.gather(found["advantages"]))
    assert (advantages.mean(), advantages.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))


@pytest.mark.usefixtures("_alone")
def test_nothing_to_tell_apart_is_no_advantage() -> None:
    assert [a.tolist() for a in whitened([np.array([2.0, 2.0]), np.array([2.0])])] == [[0.0, 0.0], [0.0]]
    assert whitened([]) == []


@pytest.mark.parametrize(
    ("online", "kls", "expected"),
    [
        (Online(kl=0.1), (5.0, 9.0), 0.1),
        (Online(kl=0.1, kl_target=2.0), (), 0.1),
        (Online(kl=0.1, kl_target=2.0), (9.0, 9.0), 0.1 * 1.02**2),
        (Online(kl=0.1, kl_target=2.0), (0.0, 2.0), 0.1 * 0.98),
    ],
)
def test_the_weight_of_the_divergence_follows_from_the_log(online: Online, kls: tuple[float, ...], expected: float) -> None:
    assert coefficient(online, kls) == pytest.approx(expected)


def test_ppo_raises_the_reward_and_its_critic_learns(sums: tuple[Path, Path], tmp_path: Path) -> None:
    out, settings = tmp_path / "run", ("epochs=12", "online.kl=0.02", "online.value=0.5", "online.passes=2")
    assert main(words("ppo", sums, out, *settings)) == 0
    curve = rewards(out)
    assert len(curve) == 12  # two passes over each
    assert np.mean(curve[-4:]) > np.mean(curve[:4]) + 0.08
    losses = [line["value_loss"] for line in read(out / "metrics.jsonl") if "loss" in line]
    assert np.mean(losses[-6:]) < np.mean(losses[:2])
    load_run(out)  # the model is read without its critic
    critic = {f"model/{ppo.HEAD}.weight": torch.zeros(1, 64)}
    checkpoint.read_tensors(checkpoint.committed(out / "checkpoints")[-1], critic)
    assert float(critic[f"model/{ppo.HEAD}.weight"].abs().max()) > 0
