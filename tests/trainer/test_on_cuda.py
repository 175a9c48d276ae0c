"""What runs other code on a GPU than on a CPU, against what runs on a CPU."""

from dataclasses import replace

import pytest
import torch

from trainer.attention import attend, dense_mask, document_mask
from trainer.config import Experts, Kernel, ModelConfig
from trainer.experts import MixtureOfExperts
from trainer.fp8 import to_fp8
from trainer.loss import linear_cross_entropy
from trainer.model import Decoder, init_weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

CFG = ModelConfig(vocab_size=256, width=256, layers=2, heads=4, kv_heads=2, feed_forward=512)
LENGTHS = [100, 28, 300, 84, 1, 127]


@pytest.mark.parametrize(
    ("kernel", "share"), [("dense", None), ("flex", None), ("varlen", None), ("dense", 0.4), ("flex", 0.4)]
)
def test_attention_and_its_gradient(kernel: Kernel, share: float | None) -> None:
    documents = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)).expand(2, -1).contiguous()
    prefix = None
    if share is not None:
        prefix = torch.cat([torch.arange(n) < max(1, round(share * n)) for n in LENGTHS]).expand(2, -1).contiguous()
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(2, heads, 640, 64, generator=generator).bfloat16() for heads in (4, 2, 2)]
    weights = torch.randn(2, 4, 640, 64, generator=generator)
    results = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        mine = [x.to(device, dtype).requires_grad_() for x in leaves]
        if device == "cpu":
            mask = dense_mask(documents, prefix)
        else:
            mask = document_mask(documents.cuda(), kernel, None if prefix is None else prefix.cuda())
        out = attend(mine[0], mine[1], mine[2], mask)
        results.append([out, *torch.autograd.grad((out * weights.to(device)).sum(), mine)])
    for oracle, found in zip(*results, strict=True):
        torch.testing.assert_close(found.float().cpu(), oracle, atol=3e-2, rtol=3e-2)


def test_heads_too_small_for_flex_attention_have_a_dense_mask() -> None:
    documents = torch.zeros(1, 256, dtype=torch.long, device="cuda")
    assert isinstance(document_mask(documents, channels=8), torch.Tensor)
    assert not isinstance(document_mask(documents, channels=16), torch.Tensor)


@pytest.mark.parametrize("compiled", [False, True])
def test_experts_of_uneven_load(compiled: bool) -> None:
    layer = MixtureOfExperts(replace(CFG, experts=Experts(16, 2)))
    init_weights(layer, 0.05, 0)
    x = torch.randn(2, 333, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    x += 0.5 * layer.router.weight[3].detach().sign()  # expert 3 gets most, some get nothing
    other = MixtureOfExperts(replace(CFG, experts=Experts(16, 2))).cuda().bfloat16()
    other.load_state_dict(layer.state_dict())
    layer.load_state_dict(other.state_dict())  # rounded alike
    if compiled:
        other.compile(fullgraph=True)
    results = []
    for one, given in ((layer, x.float()), (other, x.cuda())):
        out, balance = one(given)
        (out.square().mean() + balance).backward()
        results.append([out, balance, *(p.grad for p in one.parameters())])
    for oracle, found in zip(*results, strict=True):
        assert torch.nn.functional.cosine_similarity(oracle.flatten(), found.float().cpu().flatten(), 0) > 0.999


@pytest.mark.parametrize("kernel", ["flex", "varlen"])
def test_a_compiled_block_takes_each_mask(kernel: Kernel) -> None:
    """Batches of other documents: the same code."""
    results = []
    for use in ("dense", kernel):
        model = Decoder(CFG, loss_chunk=1024).cuda().bfloat16()
        init_weights(model, 0.05, 0)
        model.kernel = use
        for block in model.model.layers:
            block.compile(fullgraph=True)
        for seed in range(4):
            generator = torch.Generator().manual_seed(seed)
            tokens = torch.randint(0, 256, (2, 640), generator=generator).cuda()
            documents = (torch.rand(2, 640, generator=generator) < 0.01).cumsum(1).cuda()
            loss = model(tokens, tokens, documents, 4 * 1280.0)
            loss.backward()
        results.append([loss, *(p.grad for p in model.parameters())])
    for oracle, found in zip(*results, strict=True):
        assert torch.nn.functional.cosine_similarity(oracle.float().flatten(), found.float().flatten(), 0) > 0.99


def test_the_loss_holds_logits_of_one_chunk_at_a_time() -> None:
    tokens, width, vocabulary, chunk = 8192, 512, 65_536, 1024
    hidden = torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(vocabulary, width, device="cuda", dtype=torch.bfloat16).mul_(0.02).requires_grad_()
    targets = torch.randint(0, vocabulary, (tokens,), device="cuda", dtype=torch.int32)
    for _ in range(2):  # the first compiles
        hidden.grad = weight.grad = None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        linear_cross_entropy(hidden, weight, targets, tokens, chunk).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    above = torch.cuda.max_memory_allocated() - before - hidden.grad.nbytes - weight.grad.nbytes
    sums = 4 * weight.numel() - weight.grad.nbytes  # in fp32, before they are rounded
    assert above < 1.1 * (2 * chunk * vocabulary + sums)


def test_a_compiled_block_in_8_bits() -> None:
    results = []
    for compiled in (False, True):
        model = Decoder(CFG, loss_chunk=1024)
        to_fp8(model)
        model = model.cuda().bfloat16()
        init_weights(model, 0.05, 0)
        for block in model.model.layers:
            if compiled:
                block.compile(fullgraph=True)
        tokens = torch.randint(0, 256, (2, 640), generator=torch.Generator().manual_seed(0)).cuda()
        loss = model(tokens, tokens.roll(-1, 1), None, 1280.0)
        loss.backward()
        results.append([loss, *(p.grad for p in model.parameters())])
    for eager, found in zip(*results, strict=True):
        assert torch.nn.functional.cosine_similarity(eager.float().flatten(), found.float().flatten(), 0) > 0.98
