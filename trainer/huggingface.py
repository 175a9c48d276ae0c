"""The folder format of Hugging Face: our model as `transformers` knows it (Llama, and Mixtral where there are experts).

The names of tensors are theirs already, but experts, which lie apart there, are one tensor each kind here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainer.config import Experts, LinearScaling, Llama3Scaling, ModelConfig
from trainer.errors import UserError
from trainer.model import Decoder

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
_MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}  # ours -> theirs
_MUST_BE = {  # what our block has no place for
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "sliding_window": (None,),
    "quantization_config": (None,),
    "pretraining_tp": (1, None),
}


def shapes(cfg: ModelConfig) -> dict[str, torch.Size]:
    """Name and shape of each tensor of our model, in the order in which data flows."""
    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in Decoder(cfg).named_parameters()}


def split(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One of our tensors as theirs."""
    parts = _their_names(name, len(tensor))
    return dict(zip(parts, (one.clone() for one in tensor), strict=True)) if _is_stacked(name) else {parts[0]: tensor}


def _is_stacked(name: str) -> bool:
    return name.rpartition(".")[2] in _MIXTRAL


def _their_names(name: str, experts: int) -> list[str]:
    """What one of our tensors is called there; of `experts` stacked in one, each."""
    prefix, _, kind = name.partition(".mlp.")
    if _is_stacked(name):
        return [f"{prefix}.block_sparse_moe.experts.{i}.{_MIXTRAL[kind]}.weight" for i in range(experts)]
    return [f"{prefix}.block_sparse_moe.gate.weight" if kind == "router.weight" else name]


def config_of(cfg: ModelConfig, context: int, eos_id: int, pad_id: int | None, dtype: str) -> dict[str, Any]:
    """config.json of a model trained with up to `context` tokens a sequence. Raises UserError for what they do not have."""
    if cfg.prefix_lm:
        raise UserError("a model with prefix_lm has no place in transformers, whose Llama is causal")
    if cfg.experts:
        _check_experts(cfg.experts)
    values: dict[str, Any] = {
        "architectures": ["MixtralForCausalLM" if cfg.experts else "LlamaForCausalLM"],
        "model_type": "mixtral" if cfg.experts else "llama",
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.width,
        "intermediate_size": cfg.feed_forward,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": context,
        "initializer_range": cfg.init_std,
        "rms_norm_eps": cfg.norm_eps,
        "rope_theta": cfg.rope_base,
        "rope_scaling": _scaling_of(cfg),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "torch_dtype": dtype,
    }
    if cfg.experts:
        # their loss counts each of a token's experts, ours shares it among them
        more = {"num_local_experts": cfg.experts.count, "num_experts_per_tok": cfg.experts.chosen, "sliding_window": None}
        values |= more | {"router_aux_loss_coef": cfg.experts.balance / cfg.experts.chosen}
    return values


def _check_experts(experts: Experts) -> None:
    if experts.chosen == 1 < experts.count:
        raise UserError(
            "one expert chosen is weighted with 1 by Mixtral, by its probability here: such a model cannot be converted"
        )


def _scaling_of(cfg: ModelConfig) -> dict[str, Any] | None:
    match cfg.rope_scaling:
        case LinearScaling(factor):
            return {"rope_type": "linear", "factor": factor}
        case Llama3Scaling(factor, low, high, original_length):
            bounds = {"low_freq_factor": low, "high_freq_factor": high}
            return {"rope_type": "llama3", "factor": factor} | bounds | {"original_max_position_embeddings": original_length}
        case None:
            return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no {path}; give the folder of a model in the format of Hugging Face") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object")
    return values


def model_of(values: dict[str, Any], path: Path) -> ModelConfig:
    """Our config of theirs, read from `path`. Raises UserError for an architecture, or a part of one, that we do not have."""
    kind = values.get("model_type")
    if kind not in ("llama", "mixtral"):
        raise UserError(f"{path}: model_type {kind!r} is unknown here; known are llama and mixtral")
    for key, allowed in _MUST_BE.items():
        if key in values and values[key] not in allowed:
            raise UserError(f"{path}: {key} {values[key]!r} is not supported, only {allowed[0]!r}")
    try:
        width, heads = _number(values, "hidden_size"), _number(values, "num_attention_heads")
        base, scaling = _rope(values)
        experts = None
        if kind == "mixtral":
            count, chosen = _number(values, "num_local_experts"), _number(values, "num_experts_per_tok")
            experts = Experts(count, chosen, float(values.get("router_aux_loss_coef", 0.001)) * chosen)
            _check_experts(experts)
        cfg = ModelConfig(
            vocab_size=_number(values, "vocab_size"),
            width=width,
            layers=_number(values, "num_hidden_layers"),
            heads=heads,
            kv_heads=_number(values, "num_key_value_heads", heads),
            feed_forward=_number(values, "intermediate_size"),
            rope_base=base,
            norm_eps=float(values.get("rms_norm_eps", 1e-6)),
            init_std=float(values.get("initializer_range", 0.02)),
            rope_scaling=scaling,
            experts=experts,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    if _number(values, "head_dim", cfg.head_size) != cfg.head_size:
        raise UserError(f"{path}: head_dim {values['head_dim']} is not supported, only hidden_size / heads = {cfg.head_size}")
    return cfg


def _number(values: dict[str, Any], key: str, default: int | None = None) -> int:
    value = values.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} is {value!r}, not a positive number")
    return value


def _rope(values: dict[str, Any]) -> tuple[float, LinearScaling | Llama3Scaling | None]:
    """Base and scaling, as transformers 4 writes them (rope_theta, rope_scaling) or 5 (rope_parameters)."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ValueError(f"rope_scaling is {rope!r}, not an object")
    base = float(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0)
    kind = rope.get("rope_type", rope.get("type", "default"))
    known = {"rope_theta", "rope_type", "type"}
    scaling: LinearScaling | Llama3Scaling | None = None
    try:
        if kind == "default":
            pass
        elif kind == "linear":
            known |= {"factor"}
            scaling = LinearScaling(float(rope["factor"]))
        elif kind == "llama3":
            known |= {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
            factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
            length = rope.get("original_max_position_embeddings") or values["max_position_embeddings"]
            scaling = Llama3Scaling(factor, low, high, int(length))
        else:
            raise ValueError(f"rope_type {kind!r} is not supported, only default, linear and llama3")
    except KeyError as error:
        raise ValueError(f"rope_scaling of type {kind!r} lacks {error.args[0]!r}") from error
    if unknown := {key for key in rope if key not in known and rope[key] is not None}:
        raise ValueError(f"rope_scaling has {', '.join(sorted(unknown))}, which is not supported for type {kind!r}")
    return base, scaling


def read_tensors(folder: Path, cfg: ModelConfig, tied: bool) -> Iterator[tuple[str, Tensor]]:
    """Our tensors of a folder, fp32, one in memory at a time. `tied`: the head is the embedding, and is copied from it.

    All names and shapes are checked before the first is read. Raises UserError.
    """
    places = _places(folder)
    wanted = {name: (_their_names(name, shape[0]), shape) for name, shape in shapes(cfg).items()}
    if tied:
        wanted["lm_head.weight"] = (["model.embed_tokens.weight"], wanted["lm_head.weight"][1])
        places.pop("lm_head.weight", None)
    _check(folder, places, wanted)
    for name, (parts, shape) in wanted.items():
        read = [_read(places[part], part) for part in parts]
        yield name, torch.stack(read).view(shape) if _is_stacked(name) else read[0]


def _check(folder: Path, places: dict[str, Path], wanted: dict[str, tuple[list[str], torch.Size]]) -> None:
    expected: dict[str, list[int]] = {}
    for name, (parts, shape) in wanted.items():
        expected |= {part: list(shape[1:] if _is_stacked(name) else shape) for part in parts}
    if missing := [name for name in expected if name not in places]:
        raise UserError(f"{folder} lacks {_some(missing)} of the tensors that its config.json asks for")
    if unknown := [name for name in places if name not in expected]:
        raise UserError(f"{folder} has tensors that a model of its config.json does not: {_some(unknown)}")
    for name, sizes in expected.items():
        with _opened(places[name]) as file:
            part = file.get_slice(name)
            found, dtype = part.get_shape(), part.get_dtype()
        if found != sizes:
            raise UserError(f"{places[name]}: {name} is {found}, by config.json it should be {sizes}")
        if dtype not in ("F32", "F16", "BF16"):
            raise UserError(f"{places[name]}: {name} is {dtype}; weights must be F32, F16 or BF16")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _places(folder: Path) -> dict[str, Path]:
    """Tensor -> file, without the rotary tables that old exports hold."""
    if (folder / INDEX).is_file():
        listed = read_json(folder / INDEX).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(f, str) and Path(f).name == f for f in listed.values()):
            raise UserError(f"{folder / INDEX} has no weight_map from tensors to files beside it")
        files = {folder / file for file in listed.values()}
    else:
        files = {folder / WEIGHTS}
    places: dict[str, Path] = {}
    for path in sorted(files):
        if not path.is_file():
            raise UserError(f"there is no {path}; pickled weights (*.bin) are not read, convert them to safetensors")
        with _opened(path) as file:
            places |= dict.fromkeys(file.keys(), path)
    return {name: path for name, path in places.items() if not re.fullmatch(r".*\.rotary_emb\.inv_freq", name)}


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from error


def _read(path: Path, name: str) -> Tensor:
    with _opened(path) as file:
        tensor: Tensor = file.get_tensor(name)
    return tensor.float()
