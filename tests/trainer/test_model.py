from dataclasses import replace

import pytest
import torch
from torch.distributed.tensor import DTensor

from trainer.config import Experts, Kernel, ModelConfig, Parallel
from trainer.engine import Sampling, generate
from trainer.loss import IGNORED
from trainer.model import Decoder, init_weights
from trainer.parallel import parallelize, start_processes
from trainer.recipes.deepseek_llm import deepseek_llm, deepseek_llm_67b
from trainer.recipes.llama3 import llama3, llama3_70b, llama3_405b
from trainer.recipes.small import llama_1_7b, llama_1b, llama_125m, tiny

TINY = ModelConfig(vocab_size=40, width=32, layers=2, heads=4, kv_heads=2, feed_forward=48)


def _model(cfg: ModelConfig = TINY, seed: int = 0) -> Decoder:
    model = Decoder(cfg, loss_chunk=16)
    init_weights(model, 0.2, seed)
    return model


@pytest.mark.parametrize(
    ("cfg", "parameters"),
    [
        (TINY, 2 * 40 * 32 + 2 * (3072 + 4608 + 64) + 32),
        (llama3().model, 8_030_261_248),
        (llama3_70b().model, 70_553_706_496),
        (llama3_405b().model, 405_853_388_800),
        (deepseek_llm().model, 6_910_365_696),
        (deepseek_llm_67b().model, 67_425_001_472),
        (tiny().model, 12_815_616),
        (llama_125m().model, 125_848_320),
        (llama_1b().model, 1_023_477_760),
        (llama_1_7b().model, 1_657_899_008),
        (replace(TINY, experts=Experts(4)), 2 * 40 * 32 + 2 * (3072 + 4 * 4608 + 4 * 32 + 64) + 32),
    ],
)
def test_parameter_count_by_formula_and_by_building(cfg: ModelConfig, parameters: int) -> None:
    with torch.device("meta"):
        model = Decoder(cfg)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert cfg.parameters() == parameters


def test_parameter_names_are_those_of_hugging_face() -> None:
    names = [n for n, _ in Decoder(replace(TINY, layers=1)).named_parameters()]
    layer = "model.layers.0."
    assert sorted(names) == sorted(
        ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
        + [f"{layer}self_attn.{p}_proj.weight" for p in "qkvo"]
        + [f"{layer}mlp.{p}_proj.weight" for p in ("gate", "up", "down")]
        + [f"{layer}input_layernorm.weight", f"{layer}post_attention_layernorm.weight"]
    )


def test_first_document_does_not_reach_the_second() -> None:
    model = _model()
    tokens = torch.randint(0, 40, (1, 20), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[0, :8] = (changed[0, :8] + 1) % 40
    documents = torch.tensor([[1] * 8 + [2] * 12])
    before, after = model.hidden(tokens, documents), model.hidden(changed, documents)
    assert torch.equal(before[0, 8:], after[0, 8:])
    assert not torch.allclose(before[0, :8], after[0, :8])
    # Without the mask the same change is felt, and the second document alone gives what the mask gives.
    assert not torch.allclose(model.hidden(tokens, None)[0, 8:], model.hidden(changed, None)[0, 8:])
    torch.testing.assert_close(model.hidden(tokens[:, 8:], None)[0], before[0, 8:], atol=1e-5, rtol=1e-5)
    unmasked = _model(replace(TINY, document_mask=False))
    torch.testing.assert_close(unmasked.hidden(tokens, documents), unmasked.hidden(tokens, None))


def test_a_later_token_does_not_reach_an_earlier_one() -> None:
    model = _model()
    tokens = torch.randint(0, 40, (1, 12))
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 40
    assert torch.equal(model.hidden(tokens, None)[0, :-1], model.hidden(changed, None)[0, :-1])


def test_a_prefix_is_seen_both_ways_and_no_target_is_given_away() -> None:
    model, causal = _model(replace(TINY, prefix_lm=True)), _model()
    tokens = torch.randint(0, 40, (1, 20), generator=torch.Generator().manual_seed(1))
    documents = torch.tensor([[1] * 12 + [2] * 8])
    targets = torch.roll(tokens, -1, 1)
    targets[0, :5] = IGNORED  # the first document's prefix: tokens 0 to 5, the last of which predicts token 6
    before = model.losses(tokens, targets, documents)
    for position in range(20):
        changed = tokens.clone()
        changed[0, position] = (changed[0, position] + 1) % 40
        after = model.losses(changed, targets, documents)
        felt = (after != before)[0].nonzero()[:, 0].tolist()
        document = range(12) if position < 12 else range(12, 20)
        assert felt == [t for t in document if t >= max(position, 5)]
    # In the second document every token has a target, so it is causal; and the first is not.
    second = causal.losses(tokens, targets, documents)
    torch.testing.assert_close(before[0, 12:], second[0, 12:])
    assert not torch.allclose(before[0, 5:12], second[0, 5:12])
    torch.testing.assert_close(model(tokens, targets, documents, 15.0), before.sum() / 15)


def test_a_prompt_is_the_prefix_of_what_is_generated() -> None:
    model = _model(replace(TINY, prefix_lm=True))
    prompt = torch.randint(1, 40, (1, 9), generator=torch.Generator().manual_seed(1))
    out = generate(model, prompt.tolist(), 5, {0}, Sampling(temperature=0.0), torch.device("cpu"), vocab_size=40)[0][0].tokens
    assert len(out) == 5
    tokens = torch.cat((prompt, torch.tensor([out])), 1)
    targets = torch.roll(tokens, -1, 1)
    targets[0, : 9 - 1], targets[0, -1] = IGNORED, IGNORED
    losses = model.losses(tokens, targets, None)[0]
    for position in range(8, 13):
        others = targets.clone()
        for token in range(40):
            others[0, position] = token
            assert model.losses(tokens, others, None)[0, position] >= losses[position]


@pytest.mark.parametrize("kernel", ["dense", "varlen"])
def test_the_kernel_of_attention_changes_nothing(kernel: Kernel) -> None:
    tokens = torch.randint(0, 40, (2, 20))
    documents = torch.tensor([[1] * 8 + [2] * 12, [1] * 20])
    model, other = _model(), _model()
    other.kernel = kernel
    for one in (model, other):
        one(tokens, tokens, documents, 40.0).backward()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_embedding_learns_less_and_all_else_the_same() -> None:
    tokens = torch.randint(0, 40, (2, 11))
    whole, shrunk = _model(), _model(replace(TINY, embedding_gradient=0.1))
    losses = [one(tokens, tokens, None, 22.0) for one in (whole, shrunk)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for (name, a), b in zip(whole.named_parameters(), shrunk.parameters(), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(b.grad, a.grad * 0.1 if name == "model.embed_tokens.weight" else a.grad)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the tracer looks at it
@pytest.mark.parametrize("experts", [None, Experts(5, 2)])
def test_compiled_and_sharded_it_learns_the_same(experts: Experts | None) -> None:
    cfg = replace(TINY, experts=experts)
    tokens = torch.randint(0, 40, (2, 11))
    plain, sharded = _model(cfg), Decoder(cfg, loss_chunk=16)
    mesh = start_processes(torch.device("cpu"))
    try:
        for block in sharded.model.layers:
            # traced as for the compiler, which itself would take long
            block.compile(backend="aot_eager", fullgraph=experts is None)
        parallelize(sharded, mesh, Parallel())
        init_weights(sharded, 0.2, 0)
        for model in (plain, sharded):
            model(tokens, tokens, None, 22.0).backward()
        for a, b in zip(plain.parameters(), sharded.parameters(), strict=True):
            assert a.grad is not None
            assert isinstance(b.grad, DTensor)
            torch.testing.assert_close(b.grad.full_tensor(), a.grad)
    finally:
        torch.distributed.destroy_process_group()


def test_losses_and_forward_agree() -> None:
    model, tokens = _model(), torch.randint(0, 40, (2, 11))
    targets = torch.roll(tokens, -1, 1)
    losses = model.losses(tokens, targets, None)
    torch.testing.assert_close(model(tokens, targets, None, 22.0), losses.mean())


def test_recomputation_changes_no_gradient() -> None:
    tokens = torch.randint(0, 40, (2, 11))
    grads = []
    for recompute in (False, True):
        model = _model()
        for block in model.model.layers:
            block.recompute = recompute
        model(tokens, tokens, None, 22.0).backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_weights_depend_on_seed_and_name_alone() -> None:
    one, same, other = _model(), _model(), _model(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, one.model.embed_tokens.weight)
    wide = Decoder(replace(TINY, vocab_size=4000))
    init_weights(wide, 0.006, 0)
    assert float(wide.lm_head.weight.detach().std()) == pytest.approx(0.006, rel=0.02)
    assert wide.model.norm.weight.eq(1).all()


def test_overfits_a_small_text_and_repeats_it() -> None:
    text = b"the water of the headrace turns the wheel of the mill"
    tokens = torch.tensor([list(text)])
    model = _model(replace(TINY, vocab_size=128))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(tokens[:, :-1], tokens[:, 1:], None, tokens.shape[1] - 1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05
    answer = generate(model, [list(text[:8])], 20, {0}, Sampling(temperature=0.0), torch.device("cpu"))[0][0]
    assert bytes(answer.tokens) == text[8:28]
