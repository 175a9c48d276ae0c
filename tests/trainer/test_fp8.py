"""8-bit products against fp32 ones: the same numbers that a GPU computes, within what the formats can tell apart."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from trainer import train
from trainer.config import Experts, ModelConfig, config_hash, load_recipe
from trainer.fp8 import BACKWARD, FORWARD, Float8Linear, rounded, to_fp8
from trainer.log import read
from trainer.model import Decoder, init_weights

ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CFG = ModelConfig(vocab_size=64, width=64, layers=2, heads=4, kv_heads=2, feed_forward=128)


@pytest.mark.parametrize(("dtype", "error"), [(FORWARD, 2**-4), (BACKWARD, 2**-3)])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_value_is_rounded_by_at_most_half_of_the_last_place(dtype: torch.dtype, error: float, size: float) -> None:
    x = size * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    x8, scale = rounded(x, dtype)
    back = x8.float() * scale
    assert back.abs().max() == pytest.approx(float(x.abs().max()), rel=1e-6)
    large = x.abs() > 1e-3 * x.abs().max()  # smaller ones are below the format's normal numbers
    assert ((back - x)[large].abs() <= error * x[large].abs()).all()
    assert torch.equal(rounded(torch.zeros(4), dtype)[0].float(), torch.zeros(4))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_CUDA)])
def test_output_and_gradients_are_products_of_the_rounded_factors(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, upstream = (torch.randn(shape, generator=generator).to(device) for shape in ((96, 64), (48, 64), (96, 48)))
    layer = Float8Linear(64, 48, bias=False, device=device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    layer.weight = nn.Parameter(weight.to(dtype))
    given = x.to(dtype).requires_grad_()
    out = layer(given.view(2, 48, 64))
    out.backward(upstream.to(dtype).view(2, 48, 48))

    def back(tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
        values, scale = rounded(tensor.to(dtype), kind)
        return values.float() * scale

    x8, weight8, grad8 = back(x, FORWARD), back(weight, FORWARD), back(upstream, BACKWARD)
    assert given.grad is not None
    assert layer.weight.grad is not None
    pairs = [(out.flatten(0, 1), x8 @ weight8.t(), x @ weight.t())]
    pairs += [(given.grad, grad8 @ weight8, upstream @ weight), (layer.weight.grad, grad8.t() @ x8, upstream.t() @ x)]
    for found, expected, exact in pairs:
        torch.testing.assert_close(
            found.float(), expected, rtol=1e-2 if device == "cuda" else 1e-5, atol=0.1 if device == "cuda" else 1e-4
        )
        assert (found.float() - exact).norm() < 0.09 * exact.norm()
    with torch.no_grad():
        torch.testing.assert_close(layer(given), nn.functional.linear(given, layer.weight))


def test_of_the_model_only_the_blocks_linear_layers_change() -> None:
    model = Decoder(replace(CFG, experts=Experts(4)))
    names = [name for name, _ in model.named_parameters()]
    to_fp8(model)
    assert [name for name, _ in model.named_parameters()] == names
    changed = {
        name.partition("layers.0.")[2] for name, m in model.named_modules() if isinstance(m, Float8Linear) and ".0." in name
    }
    assert changed == {f"self_attn.{part}_proj" for part in "qkvo"}  # experts and routers stay
    dense = Decoder(CFG)
    to_fp8(dense)
    assert sum(isinstance(m, Float8Linear) for m in dense.modules()) == 7 * CFG.layers


@pytest.mark.parametrize("recompute", [False, True])
def test_the_gradient_of_a_model_points_where_it_did(recompute: bool) -> None:
    tokens = torch.randint(0, 64, (2, 48), generator=torch.Generator().manual_seed(1))
    results = []
    for eight in (False, True):
        model = Decoder(CFG)
        init_weights(model, 0.1, 0)
        if eight:
            to_fp8(model)
        for block in model.model.layers:
            block.recompute = recompute
        loss = model(tokens, tokens.roll(-1, 1), None, 96.0)
        loss.backward()
        results.append((loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    (loss, gradient), (loss8, gradient8) = results
    assert float(loss8) == pytest.approx(float(loss), rel=0.01)
    assert torch.nn.functional.cosine_similarity(gradient, gradient8, 0) > 0.98


def test_a_run_in_8_bits_learns_as_well_and_is_another_run(whole_run: Path, recipe: str, shards: Path, tmp_path: Path) -> None:
    settings = ("precision=fp8", "run.prompts=[]", "run.probe_every=null")
    words = [recipe, "--data", str(shards), "--out", str(tmp_path / "run")]
    assert train.main([*words, *(word for setting in settings for word in ("--set", setting))]) == 0
    mine, theirs = (
        [line["loss"] for line in read(run / "metrics.jsonl") if "loss" in line] for run in (tmp_path / "run", whole_run)
    )
    assert mine != theirs
    assert sum(mine[-5:]) == pytest.approx(sum(theirs[-5:]), rel=0.03)
    cfg = load_recipe(recipe)
    assert config_hash(replace(cfg, precision="fp8")) != config_hash(cfg)
