"""The whole trainer against a plain one, written here from the papers: the same loss at every step."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.schedule import Phase
from trainer import train
from trainer.config import TrainConfig, load_recipe, with_settings
from trainer.data import Data, load_batch, open_data
from trainer.log import read
from trainer.model import Decoder, init_weights

MAIN, ANNEALING, BATCH, LENGTH = 160, 40, 160, 32  # steps, steps, tokens, tokens
PHASES = (
    Phase("main", MAIN * BATCH, LENGTH, BATCH, {"web": 0.6, "code": 0.4}),
    Phase("annealing", ANNEALING * BATCH, LENGTH, BATCH, {"web": 0.2, "code": 0.8}),
)


def _logits(w: dict[str, Tensor], cfg: TrainConfig, tokens: Tensor, documents: Tensor) -> Tensor:
    """Logits (T, V) of one row."""
    size, turns = cfg.model.head_size, torch.arange(cfg.model.head_size // 2)
    angles = torch.arange(len(tokens))[:, None] * cfg.model.rope_base ** (-2.0 * turns / size)

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + cfg.model.norm_eps).sqrt() * w[f"{name}.weight"]

    def turned(x: Tensor) -> Tensor:
        a, b = x[..., : size // 2], x[..., size // 2 :]
        return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)

    unseen = torch.ones(len(tokens), len(tokens)).triu(1).bool()
    if cfg.model.document_mask:
        unseen |= documents[:, None] != documents[None, :]
    x = w["model.embed_tokens.weight"][tokens]
    for layer in range(cfg.model.layers):
        at = f"model.layers.{layer}"
        h = norm(x, f"{at}.input_layernorm")
        q, k, v = (h @ w[f"{at}.self_attn.{part}_proj.weight"].T for part in "qkv")
        q, k, v = (x.view(len(tokens), -1, size).transpose(0, 1) for x in (q, k, v))  # a head each
        k, v = (x.repeat_interleave(cfg.model.heads // cfg.model.kv_heads, 0) for x in (turned(k), v))
        scores = (turned(q) @ k.transpose(1, 2) / math.sqrt(size)).masked_fill(unseen, -math.inf)
        seen = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = x + seen @ w[f"{at}.self_attn.o_proj.weight"].T
        h = norm(x, f"{at}.post_attention_layernorm")
        gate, up = (h @ w[f"{at}.mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        x = x + (gate * gate.sigmoid() * up) @ w[f"{at}.mlp.down_proj.weight"].T
    return norm(x, "model.norm") @ w["lm_head.weight"].T


def _rate(step: int, peak: float, warmup: int) -> float:
    """At the middle of a step: warm-up, a third from 80 % of the main phase, a tenth from 90 %, then down to zero."""
    at = step + 0.5
    if at < warmup:
        return peak * at / warmup
    fraction = 1.0 if at < 0.8 * MAIN else 0.316 if at < 0.9 * MAIN else 0.1
    return peak * fraction * min(1.0, (MAIN + ANNEALING - at) / ANNEALING)


def _plain_losses(cfg: TrainConfig, data: Data) -> list[float]:
    model = Decoder(cfg.model)
    init_weights(model, cfg.model.init_std, cfg.seed)
    w = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    matrices, gains = [p for p in w.values() if p.dim() > 1], [p for p in w.values() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    losses = []
    for step in range(MAIN + ANNEALING):
        (batch,) = load_batch(data, step, 0, 1, 99).micro_batches
        rows = zip(batch.inputs.long(), batch.documents, strict=True)
        logits = torch.cat([_logits(w, cfg, tokens, documents) for tokens, documents in rows])
        loss = F.cross_entropy(logits, batch.targets.long().flatten())
        loss = loss + cfg.z_loss * logits.logsumexp(-1).pow(2).mean()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.pow(2).sum()) for p in w.values() if p.grad is not None))
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, cfg.learning_rate.peak, cfg.learning_rate.warmup_steps)
            for p in group["params"]:
                p.grad *= min(1.0, cfg.optimizer.clip / (norm + 1e-6))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(("masked", "z_loss"), [(True, 0.0), (False, 1e-3)])
def test_200_steps_have_the_losses_of_a_plain_trainer(
    masked: bool, z_loss: float, recipe: str, make_data: Callable[..., Path], tmp_path: Path
) -> None:
    shards = make_data(tmp_path / "data", 0, PHASES)
    settings = [f"model.document_mask={str(masked).lower()}", f"z_loss={z_loss}", "learning_rate.peak=3e-3", "run.prompts=[]"]
    settings += ["run.evaluate_every=1000", "run.save_every_steps=1000"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert train.main([recipe, "--data", str(shards), "--out", str(tmp_path / "run"), *words]) == 0
    ours = [line["loss"] for line in read(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    plain = _plain_losses(with_settings(load_recipe(recipe), settings), open_data(shards))
    assert ours == pytest.approx(plain, abs=1e-5)
    assert ours[-1] < ours[0] - 1
