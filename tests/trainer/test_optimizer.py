import copy

import pytest
import torch
from torch import Tensor, nn

from trainer.config import Group, OptimizerConfig
from trainer.errors import UserError
from trainer.optimizer import Adafactor, AdamWithHalfMoments, make_optimizer, moments_of, parameter_groups, set_rate
from trainer.step import guard

ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=ON_CUDA)]


def _model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 7))


def _give_gradients(model: nn.Module, seed: int, scale: float = 1.0) -> Tensor:
    """Gaussian ones; returns their norm."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = (scale * torch.randn(p.shape, generator=generator)).to(p.device)
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    moments = [m for p in model.parameters() for m in moments_of(optimizer, p).values()]
    return [t.clone() for t in (*(p.detach() for p in model.parameters()), *moments)]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ((), {"0.weight": (1.0, 0.1), "0.bias": (1.0, 0.0), "1.weight": (1.0, 0.1), "1.bias": (1.0, 0.0)}),
        (
            (Group("^0", rate=0.5), Group("bias", weight_decay=0.3)),
            {"0.weight": (0.5, 0.1), "0.bias": (0.5, 0.0), "1.weight": (1.0, 0.1), "1.bias": (1.0, 0.3)},
        ),
    ],
)
def test_a_parameter_has_the_rate_and_decay_of_the_first_group_that_matches(
    groups: tuple[Group, ...], expected: dict[str, tuple[float, float]]
) -> None:
    model = _model()
    names = {p: name for name, p in model.named_parameters()}
    made = parameter_groups(model.named_parameters(), OptimizerConfig(groups=groups))
    assert {names[p]: (g["rate"], g["weight_decay"]) for g in made for p in g["params"]} == expected
    optimizer = make_optimizer(model, OptimizerConfig(groups=groups))
    set_rate(optimizer, 0.2)
    assert all(group["lr"] == 0.2 * group["rate"] for group in optimizer.param_groups)


def test_a_group_that_nothing_belongs_to_is_told() -> None:
    with pytest.raises(UserError, match="'lm_head' is in no parameter's name"):
        make_optimizer(_model(), OptimizerConfig(groups=(Group("lm_head"),)))


@pytest.mark.parametrize("cfg", [OptimizerConfig(), OptimizerConfig(kind="adafactor"), OptimizerConfig(moments="bf16")])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_step_that_is_no_number_changes_neither_weights_nor_moments(
    cfg: OptimizerConfig, bad: float, where: str, device: str
) -> None:
    model = _model().to(device)
    optimizer = make_optimizer(model, cfg)
    set_rate(optimizer, 0.1)
    for seed in range(3):
        norm = _give_gradients(model, seed)
        guard(optimizer, torch.ones_like(norm), norm, clip=1.0)
        optimizer.step()
    before = _state(model, optimizer)
    norm = _give_gradients(model, 3)
    parameter = next(model.parameters())
    assert parameter.grad is not None
    if where == "gradient":
        parameter.grad[0, 0] = norm = torch.tensor(bad, device=device)
    guard(optimizer, torch.tensor(bad if where == "loss" else 1.0, device=device), norm, clip=1.0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, _state(model, optimizer), strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("scale", "rounding"), [(0.01, 0.0), (100.0, 2**-23)])
def test_clipping_in_the_update_is_that_of_pytorch_but_for_a_rounding(scale: float, rounding: float, device: str) -> None:
    ours = _model().to(device)
    theirs = copy.deepcopy(ours)
    made = [make_optimizer(model, OptimizerConfig()) for model in (ours, theirs)]
    for model in (ours, theirs):
        norm = _give_gradients(model, 1, scale)
    guard(made[0], torch.ones_like(norm), norm, clip=1.0)
    nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
    for optimizer in made:
        optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine, reference = made[0].state[p]["exp_avg"], made[1].state[q]["exp_avg"]
        torch.testing.assert_close(mine, reference, rtol=2 * rounding, atol=0.0)


@pytest.mark.parametrize("device", DEVICES)
def test_half_moments_are_those_of_pytorch_to_a_rounding_a_step(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AdamWithHalfMoments, "PIECE", 7)  # tensors in several pieces, the last a rest
    ours = _model().to(device)
    theirs = copy.deepcopy(ours)
    made = [make_optimizer(model, OptimizerConfig(moments=kind)) for model, kind in ((ours, "bf16"), (theirs, "fp32"))]  # type: ignore[arg-type]
    for seed in range(20):
        for model, optimizer in zip((ours, theirs), made, strict=True):
            norm = _give_gradients(model, seed)
            guard(optimizer, torch.ones_like(norm), norm, clip=1.0)
            set_rate(optimizer, 0.01)
            optimizer.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine, reference = moments_of(made[0], p), moments_of(made[1], q)
        assert {m.dtype for m in mine.values()} == {torch.bfloat16}
        assert made[0].state[p]["step"] == 20
        for name, moment in mine.items():  # roundings of 2 ** -9 add up over the steps that a moment remembers
            assert (moment.float() - reference[name]).norm() < 0.01 * reference[name].norm()
        torch.testing.assert_close(p, q, atol=2e-3, rtol=0)  # a hundredth of the way


def test_half_moments_do_not_stall() -> None:
    """Without a gradient they fall to nothing, as slowly as the largest betas allowed let them."""
    model = _model()
    optimizer = make_optimizer(model, OptimizerConfig(moments="bf16", betas=(0.99, 0.99)))
    _give_gradients(model, 0)
    set_rate(optimizer, 0.0)
    optimizer.step()
    before = _state(model, optimizer)[4:]
    _give_gradients(model, 0, scale=0.0)
    for _ in range(1000):
        optimizer.step()
    for old, new in zip(before, _state(model, optimizer)[4:], strict=True):
        assert (new.abs() <= 1e-3 * old.abs()).all()
    with pytest.raises(ValueError, match=r'moments "bf16" would stall'):
        OptimizerConfig(moments="bf16", betas=(0.9, 0.999))


def _adafactor(x: Tensor, gradients: list[Tensor], rate: float, decay: float) -> Tensor:
    """Algorithms 4 and 5 of Shazeer and Stern 2018 for one parameter, written out with sums, in fp64."""
    x = x.double().clone()
    rows = columns = variance = torch.zeros((), dtype=torch.float64)
    for t, gradient in enumerate(gradients, start=1):
        squares, beta = gradient.double() ** 2 + 1e-30, 1 - t**-0.8
        if x.dim() == 2:
            rows = beta * rows + (1 - beta) * squares.sum(1)
            columns = beta * columns + (1 - beta) * squares.sum(0)
            variance = torch.outer(rows, columns) / rows.sum()
        else:
            variance = beta * variance + (1 - beta) * squares
        update = gradient.double() / variance.sqrt()
        update /= max(1.0, float(update.square().mean().sqrt()))
        step = rate * max(1e-3, float(x.square().mean().sqrt()))
        x = x - rate * decay * x - step * update
    return x


def test_adafactor_is_the_algorithm_of_the_paper() -> None:
    model = _model()
    start = [p.detach().clone() for p in model.parameters()]
    optimizer = make_optimizer(model, OptimizerConfig(kind="adafactor", weight_decay=0.1))
    assert isinstance(optimizer, Adafactor)
    seen: list[list[Tensor]] = []
    for seed in range(6):
        _give_gradients(model, seed, scale=3.0 if seed == 4 else 1.0)
        seen.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        set_rate(optimizer, 0.05)
        optimizer.step()
    for index, p in enumerate(model.parameters()):
        expected = _adafactor(start[index], [g[index] for g in seen], 0.05, 0.1 if p.dim() > 1 else 0.0)
        torch.testing.assert_close(p.detach().double(), expected, atol=1e-6, rtol=1e-5)
    kept = sum(m.numel() for p in model.parameters() for m in moments_of(optimizer, p).values())
    assert kept == (6 + 5) + 5 + (5 + 7) + 7
