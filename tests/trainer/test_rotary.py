from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from trainer.architecture import ntk_base
from trainer.config import LinearScaling, Llama3Scaling, ModelConfig
from trainer.rotary import frequencies, rotary_table, rotate

CFG = ModelConfig(vocab_size=8, width=256, layers=1, heads=2, kv_heads=2, feed_forward=8)
CPU = torch.device("cpu")
LLAMA31 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    ("scaling", "theirs"),
    [
        (None, {"rope_type": "default"}),
        (LinearScaling(4.0), {"rope_type": "linear", "factor": 4.0}),
        (Llama3Scaling(), {"rope_type": "llama3", "factor": 8.0} | LLAMA31),
        (Llama3Scaling(32.0), {"rope_type": "llama3", "factor": 32.0} | LLAMA31),
    ],
    ids=["plain", "linear", "Llama 3.1", "Llama 3.2"],
)
@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_frequencies_are_those_of_transformers(
    scaling: LinearScaling | Llama3Scaling | None, theirs: dict[str, Any], base: float
) -> None:
    cfg = replace(CFG, rope_scaling=scaling, rope_base=base)
    rope = theirs | {"rope_theta": base}
    other = LlamaConfig(hidden_size=256, num_attention_heads=2, max_position_embeddings=131_072, rope_parameters=rope)
    embedding = LlamaRotaryEmbedding(other)
    # to the last bits of fp32, in which the two ways to write base**-x differ
    torch.testing.assert_close(frequencies(cfg, CPU), embedding.inv_freq, rtol=1e-6, atol=0)
    positions = torch.arange(200)
    cos, sin = rotary_table(positions, cfg)
    their_cos, their_sin = embedding(torch.zeros(1), positions[None])
    torch.testing.assert_close(cos[:, 0], their_cos[0, :, :64], atol=2e-5, rtol=0)
    torch.testing.assert_close(sin[:, 0], their_sin[0, :, :64], atol=2e-5, rtol=0)


def test_llama3_keeps_the_fast_divides_the_slow_and_joins_them() -> None:
    plain, scaled = frequencies(CFG, CPU), frequencies(replace(CFG, rope_scaling=Llama3Scaling()), CPU)
    turns = 8192 * plain / (2 * torch.pi)
    assert torch.equal(scaled[turns > 4], plain[turns > 4])
    assert torch.equal(scaled[turns < 1], plain[turns < 1] / 8)
    assert bool((scaled.diff() < 0).all())
    assert int((turns > 4).sum()) > 10
    assert int((turns < 1).sum()) > 10


@pytest.mark.parametrize("factor", [2.0, 8.0])
def test_another_base_slows_the_slowest_by_the_factor_and_the_fastest_not(factor: float) -> None:
    plain = frequencies(CFG, CPU).double()
    slowed = frequencies(replace(CFG, rope_base=ntk_base(CFG.rope_base, factor, CFG.head_size)), CPU).double()
    assert float(slowed[0]) == float(plain[0]) == 1.0
    assert float(plain[-1] / slowed[-1]) == pytest.approx(factor, rel=1e-4)


def test_only_distance_counts() -> None:
    q, k = torch.randn(2, 1, 1, 1, 128, generator=torch.Generator().manual_seed(0)).unbind()
    cos, sin = rotary_table(torch.arange(50), CFG)
    turned = [(rotate(q, cos[t], sin[t]) * rotate(k, cos[s], sin[s])).sum() for t, s in ((7, 3), (27, 23), (49, 45))]
    torch.testing.assert_close(torch.stack(turned), turned[0].expand(3), atol=1e-4, rtol=0)
    assert not torch.isclose((rotate(q, cos[7], sin[7]) * rotate(k, cos[2], sin[2])).sum(), turned[0], atol=1e-2)
