from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.config import Experts, ModelConfig
from trainer.experts import MixtureOfExperts
from trainer.loss import IGNORED
from trainer.model import Decoder, FeedForward, init_weights

CFG = ModelConfig(vocab_size=40, width=32, layers=2, heads=4, kv_heads=2, feed_forward=48, experts=Experts(6, 2, 0.5))


def _layer(cfg: ModelConfig = CFG) -> MixtureOfExperts:
    layer = MixtureOfExperts(cfg)
    init_weights(layer, 0.2, 0)
    return layer


def _input(tokens: int = 20) -> Tensor:
    return torch.randn(2, tokens, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)


def _oracle(layer: MixtureOfExperts, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """Every expert on every token, weighted with zero where it is not chosen."""
    probability_BTX = layer.router(x_BTD).softmax(-1)
    weight_BTX = torch.zeros_like(probability_BTX)
    for b in range(x_BTD.shape[0]):
        for t in range(x_BTD.shape[1]):
            chosen = probability_BTX[b, t].argsort(descending=True)[: layer.chosen]
            whole = probability_BTX[b, t, chosen].sum() if layer.chosen > 1 else 1.0
            weight_BTX[b, t, chosen] = probability_BTX[b, t, chosen] / whole
    out, share = torch.zeros_like(x_BTD), []
    for i in range(probability_BTX.shape[-1]):
        hidden = F.silu(x_BTD @ layer.gate_proj[i].T) * (x_BTD @ layer.up_proj[i].T)
        out = out + weight_BTX[..., i, None] * (hidden @ layer.down_proj[i].T)
        share.append((weight_BTX[..., i] > 0).float().sum() / (weight_BTX > 0).sum())
    balance = probability_BTX.shape[-1] * (torch.stack(share) * probability_BTX.mean((0, 1))).sum()
    return out, balance


@pytest.mark.parametrize(("count", "chosen"), [(6, 2), (6, 1), (4, 4), (1, 1), (64, 3)])
def test_sorted_dispatch_is_the_loop_over_all_experts(count: int, chosen: int) -> None:
    layer = _layer(replace(CFG, experts=Experts(count, chosen)))
    leaves = [_input(), *layer.parameters()]
    results = []
    for way in (layer, lambda x: _oracle(layer, x)):
        out, balance = way(leaves[0])
        gradients = torch.autograd.grad(out.square().sum() + balance, leaves)
        results.append((out, balance, *gradients))
    for ours, oracle in zip(*results, strict=True):
        torch.testing.assert_close(ours, oracle, atol=2e-5, rtol=2e-5)


def test_all_tokens_at_one_expert_are_taken_and_unbalanced() -> None:
    layer, x = _layer(replace(CFG, experts=Experts(6, 1))), 10 * _input().detach().abs()
    with torch.no_grad():
        layer.router.weight.fill_(-1.0)
        layer.router.weight[3] = 1.0
        out, balance = layer(x)
        alone = F.silu(x @ layer.gate_proj[3].T) * (x @ layer.up_proj[3].T) @ layer.down_proj[3].T
        torch.testing.assert_close(out, alone)
        assert float(balance) == pytest.approx(6, rel=1e-3)
        layer.router.weight.zero_()
        assert float(layer(x)[1]) == pytest.approx(1)


def test_one_expert_is_a_feed_forward() -> None:
    layer, plain = _layer(replace(CFG, experts=Experts(1, 1))), FeedForward(replace(CFG, experts=None))
    for name in ("gate_proj", "up_proj", "down_proj"):
        getattr(plain, name).weight.data = getattr(layer, name).data[0]
    torch.testing.assert_close(layer(_input())[0], plain(_input())[0])


def _gradients(cfg: ModelConfig, parts: int, recompute: bool = False) -> tuple[float, list[Tensor]]:
    """Of a batch in equal parts, in which half of the targets are ignored."""
    model = Decoder(cfg, loss_chunk=16)
    init_weights(model, 0.2, 0)
    for block in model.model.layers:
        block.recompute = recompute
    tokens = torch.randint(0, 40, (4, 10), generator=torch.Generator().manual_seed(2))
    targets = torch.where(torch.arange(10) % 2 == 0, tokens, IGNORED)
    losses = [model(t, y, None, 20.0) for t, y in zip(tokens.chunk(parts), targets.chunk(parts), strict=True)]
    torch.stack(losses).sum().backward()
    return float(torch.stack(losses).sum().detach()), [p.grad for p in model.parameters() if p.grad is not None]


def test_balancing_is_in_the_gradient_and_not_in_the_loss() -> None:
    (without, plain), (loss, pulled) = (_gradients(replace(CFG, experts=Experts(6, 2, w)), 1) for w in (0.0, 0.5))
    assert loss == without
    assert not all(torch.allclose(a, b) for a, b in zip(plain, pulled, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(pulled, _gradients(CFG, 1, recompute=True)[1], strict=True))


def test_balancing_weighs_micro_batches_by_their_targets() -> None:
    """Equal rows twice: the mean of two micro-batches is that of one."""
    model = Decoder(CFG, loss_chunk=16)
    init_weights(model, 0.2, 0)
    tokens = torch.randint(0, 40, (1, 10)).expand(2, -1)
    results = []
    for parts in (1, 2):
        model.zero_grad()
        for part in tokens.chunk(parts):
            model(part, part, None, 20.0).backward()
        results.append([p.grad for p in model.parameters()])
    for whole, halves in zip(*results, strict=True):
        assert whole is not None
        torch.testing.assert_close(whole, halves)


def test_balancing_levels_the_load() -> None:
    """Trained on balance alone, a router that prefers two experts learns to use all."""
    layer, x = _layer(), _input(200).detach()
    with torch.no_grad():
        layer.router.weight[:2] += 0.5 * x.mean((0, 1)).sign()
    before = float(layer(x)[1].detach())
    optimizer = torch.optim.Adam([layer.router.weight], lr=1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        layer(x)[1].backward()
        optimizer.step()
    assert float(layer(x)[1].detach()) - 1 < 0.2 * (before - 1)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the tracer looks at it
def test_in_bf16_it_compiles_whole() -> None:
    layer, x = _layer().bfloat16(), _input().detach().bfloat16()
    expected, _ = layer(x)
    expected.sum().backward()
    gradients = [p.grad for p in layer.parameters()]
    layer.zero_grad()
    layer.compile(backend="aot_eager", fullgraph=True)
    out, _ = layer(x)
    out.sum().backward()
    torch.testing.assert_close(out, expected)
    for parameter, gradient in zip(layer.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_parameters_by_formula() -> None:
    cfg = replace(CFG, experts=Experts(8, 2))
    with torch.device("meta"):
        assert cfg.parameters() == sum(p.numel() for p in Decoder(cfg).parameters())
    assert cfg.active_parameters() == cfg.parameters() - 2 * 6 * 3 * 32 * 48


@pytest.mark.parametrize(("count", "chosen"), [(2, 3), (2, 0)])
def test_impossible_choices(count: int, chosen: int) -> None:
    with pytest.raises(ValueError, match=f"{chosen} experts cannot be chosen of {count}"):
        Experts(count, chosen)
