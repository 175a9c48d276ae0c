"""A small transformer encoder with a regression head, as FineWeb-Edu's (Penedo et al., arXiv 2406.17557, section 4), in torch.

Where that one stands on a pretrained model, this one learns from the labelled texts alone: tokens are those of the `hashed`
kind, hashed into rows of an embedding. Torch is loaded when such a model is made or read, and not before. Every batch
has one shape, so that on one machine a text's score does not depend on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from classifiers import features
from classifiers.errors import DataError

KIND = "encoder"
_DECAY, _WARM = 0.01, 0.1  # of the weights; share of the steps in which the rate rises


@dataclass(frozen=True)
class Config:
    """`length`: tokens that are read of a text; 2 ** `bits` rows of embeddings; `batch`: texts at a time; `rate`: of AdamW.

    `regression`: the labels are steps of one scale (two labels, or whole numbers), and the head is one number, learned by its
    squared error; else one number a label, by cross-entropy. `device`: "" is the accelerator where there is one.
    """

    dim: int = 128
    layers: int = 2
    heads: int = 4
    length: int = 256
    bits: int = 15
    epochs: int = 4
    batch: int = 64
    rate: float = 1e-3
    regression: bool = True
    device: str = ""

    def __post_init__(self) -> None:
        if (
            self.dim % self.heads
            or min(self.dim, self.layers, self.heads, self.length, self.batch) < 1
            or not 8 <= self.bits <= 24
        ):
            raise ValueError(f"{self}: dim must be a multiple of heads, bits 8 to 24, and the others above 0")


@dataclass(frozen=True)
class Encoder:
    """A torch module on its device, with L labels."""

    config: Config
    module: Any
    labels: int


def fit(texts: Any, labels: np.ndarray, names: tuple[str, ...], weights: np.ndarray, config: Config, seed: int) -> Encoder:
    """Learn from N texts: `labels` int64 (N,), from 0; `weights` float64 (L,), of the labels.

    The same on one machine with one number of threads. Raises DataError where labels are to be a scale and are none.
    """
    import torch
    from torch.nn import functional

    if config.regression and len(names) > 2 and not all(name.isdecimal() for name in names):
        raise DataError(f"the labels {', '.join(names)} are no scale; give whole numbers, or --set regression=false")
    ids, counts = _tokens(texts, config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = _module(config, len(names)).to(_device(config))
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.rate, weight_decay=_DECAY)
    order = np.random.default_rng(seed)
    there = np.flatnonzero(counts > 0)
    size = min(config.batch, len(there))
    steps = config.epochs * (len(there) // size)
    rise = max(1, int(_WARM * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: min((n + 1) / rise, (steps - n) / (steps - rise + 1)))
    each = torch.tensor(weights, dtype=torch.float32, device=_device(config))
    for _ in range(config.epochs):
        mixed = order.permutation(there)
        for at in range(0, len(mixed) - size + 1, size):
            some = mixed[at : at + size]
            target = torch.from_numpy(labels[some]).to(each.device)
            found = _forward(module, ids[some], counts[some], config)
            if config.regression:
                losses = (found[:, 0] - target) ** 2
            else:
                losses = functional.cross_entropy(found, target, reduction="none")
            (losses * each[target]).mean().backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
    return Encoder(config, module.eval(), len(names))


def logits(model: Encoder, texts: Any) -> np.ndarray:
    """Logits of N texts, float32 (N, L); NaN for a text without a token.

    Of a regression's number y, label k has the logit k * y: with the calibration that is the adjacent-categories model
    (Agresti, Analysis of Ordinal Categorical Data, section 4.1), of two labels a logistic one.
    """
    import torch

    cfg = model.config
    ids, counts = _tokens(texts, cfg)
    found: np.ndarray = np.zeros((len(ids), 1 if cfg.regression else model.labels), np.float32)
    room, sizes = np.zeros((cfg.batch, cfg.length), np.int32), np.ones(cfg.batch, np.int64)
    with torch.inference_mode():
        for at in range(0, len(ids), cfg.batch):
            some = slice(at, min(at + cfg.batch, len(ids)))
            filled = some.stop - at
            room[:filled], sizes[:filled] = ids[some], np.maximum(counts[some], 1)
            found[some] = _forward(model.module, room, sizes, cfg)[:filled].float().cpu().numpy()
    if cfg.regression:
        found = found * np.arange(model.labels, dtype=np.float32)
    found[counts == 0] = np.nan
    return found


def to_bytes(model: Encoder) -> bytes:
    """The payload of a model's folder: safetensors."""
    from safetensors.numpy import save

    return save({name: tensor.cpu().numpy() for name, tensor in model.module.state_dict().items()})


def from_bytes(payload: bytes, config: Config, labels: int) -> Encoder:
    """The model in a payload. Raises what safetensors and torch raise where it does not fit."""
    from safetensors.torch import load

    module = _module(config, labels)
    module.load_state_dict(load(payload))
    return Encoder(config, module.to(_device(config)).eval(), labels)


def _module(config: Config, labels: int) -> Any:
    from torch import nn

    layer = nn.TransformerEncoderLayer(
        config.dim, config.heads, 4 * config.dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.ModuleDict(
        {
            "tokens": nn.Embedding(1 << config.bits, config.dim),
            "places": nn.Embedding(config.length, config.dim),
            "layers": nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(config.dim), enable_nested_tensor=False),
            "head": nn.Linear(config.dim, 1 if config.regression else labels),
        }
    )


def _forward(module: Any, ids: np.ndarray, counts: np.ndarray, config: Config) -> Any:
    """Values of the head (N, 1 or L) for tokens (N, length), of which the first `counts` (N,) are there."""
    import torch

    device = module["head"].weight.device
    rows = torch.from_numpy(ids.astype(np.int64)).to(device)
    places = torch.arange(config.length, device=device)
    absent = places[None, :] >= torch.from_numpy(counts).to(device)[:, None]
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        hidden = module["tokens"](rows) + module["places"](places)
        hidden = module["layers"](hidden, src_key_padding_mask=absent).masked_fill(absent[:, :, None], 0.0)
        return module["head"](hidden.sum(1) / (~absent).sum(1, keepdim=True)).float()


def _tokens(texts: Any, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the first tokens of N texts, int32 (N, length), 0 behind the last, and how many there are (N,)."""
    data, offsets, _ = features.buffers(texts)
    ids, counts = np.zeros((len(offsets) - 1, config.length), np.int32), np.zeros(len(offsets) - 1, np.int64)
    limit = min(int(np.diff(offsets).max(initial=0)), 64 * config.length)
    features.token_rows(data, offsets, *features.alphabet(), limit, config.bits, np.empty(limit + 1, np.uint64), ids, counts)
    return ids, counts


def _device(config: Config) -> Any:
    import torch

    return torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
