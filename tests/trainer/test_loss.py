import pytest
import torch
import torch.nn.functional as F

from trainer.loss import IGNORED, _differentiate, _differentiate_eagerly, linear_cross_entropy, token_losses

N, D, V = 23, 16, 51


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(N, D, generator=generator)
    weight = torch.randn(V, D, generator=generator)
    targets = torch.randint(0, V, (N,), generator=generator)
    targets[[3, 4, 22]] = IGNORED
    return hidden, weight, targets


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("chunk", [1, 5, N, 1000])
def test_loss_and_gradients_equal_those_of_eager_cross_entropy(chunk: int, z_loss: float, dtype: torch.dtype) -> None:
    hidden, weight, targets = _inputs()
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    oracle = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    loss = linear_cross_entropy(ours[0], ours[1], targets.to(dtype), 20, chunk, z_loss)
    (3 * loss).backward()
    logits = oracle[0] @ oracle[1].t()
    squares = logits.logsumexp(-1)[targets != IGNORED].square()
    expected = F.cross_entropy(logits, targets, ignore_index=IGNORED) + z_loss * squares.mean()
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    for mine, theirs in zip(ours, oracle, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-6, rtol=1e-6)


def test_parts_of_a_batch_add_up_to_the_whole_whatever_their_sizes() -> None:
    hidden, weight, targets = _inputs()
    whole = linear_cross_entropy(hidden, weight, targets, 20, 8)
    parts = sum(linear_cross_entropy(hidden[p], weight, targets[p], 20, 8) for p in (slice(0, 7), slice(7, 23)))
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-6)


def test_token_losses_are_those_of_eager_and_zero_where_ignored() -> None:
    hidden, weight, targets = _inputs()
    losses = token_losses(hidden, weight, targets, 6)
    expected = F.cross_entropy(hidden @ weight.t(), targets, ignore_index=IGNORED, reduction="none")
    torch.testing.assert_close(losses, expected, atol=1e-6, rtol=1e-6)
    assert losses[3] == 0
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets, 20, 6), losses.sum() / 20)


@pytest.mark.parametrize("chunk", [1, 6, 1000])
def test_token_losses_have_the_gradient_of_eager_whatever_each_token_weighs(chunk: int) -> None:
    hidden, weight, targets = _inputs()
    weights = torch.randn(N, generator=torch.Generator().manual_seed(2))
    ours, oracle = ([hidden.clone().requires_grad_(), weight.clone().requires_grad_()] for _ in range(2))
    (token_losses(*ours, targets, chunk) * weights).sum().square().backward()
    expected = F.cross_entropy(oracle[0] @ oracle[1].t(), targets, ignore_index=IGNORED, reduction="none")
    (expected * weights).sum().square().backward()
    for mine, theirs in zip(ours, oracle, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-4, rtol=1e-5)


def test_weight_gradient_is_summed_in_fp32_under_bf16() -> None:
    # 4,096 equal parts of 2**-10: a bf16 sum would stall at 2**-10 * 256.
    hidden = torch.full((4096, 1), 1.0, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16).requires_grad_()
    loss = linear_cross_entropy(hidden, weight, torch.zeros(4096, dtype=torch.long), 512, 1)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [-4.0, 4.0]


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_what_is_compiled_on_a_gpu_and_what_a_cpu_runs_are_the_same_function(z_loss: float) -> None:
    hidden, weight, targets = _inputs()
    logits = hidden @ weight.t()
    scale, one, other = torch.full((1,), 0.05), logits.clone(), logits.clone()
    torch.testing.assert_close(
        _differentiate(one, targets, scale, z_loss), _differentiate_eagerly(other, targets, scale, z_loss)
    )
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
