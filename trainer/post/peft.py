"""Adapters outside of a run: merged into their base, and to and from PEFT's folder format (LoRA, prefix, virtual tokens)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer import checkpoint, huggingface
from trainer.config import ModelConfig
from trainer.convert import appearing
from trainer.errors import UserError
from trainer.model import Decoder
from trainer.post import adapters
from trainer.post.adapters import PROJECTIONS, Adapter, Lora, Prefix, VirtualTokens
from trainer.post.reward import HEAD, scalar_head
from trainer.post.start import REWARD, Base, about, write_run

CONFIG, WEIGHTS, OURS = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Lora, Prefix, VirtualTokens)}
_MUST_BE: dict[str, tuple[Any, ...]] = {  # what our LoRA has no place for
    "bias": ("none", None),
    "use_dora": (False, None),
    "use_rslora": (False, None),
    "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
    "layers_to_transform": (None,),
    "prefix_projection": (False, None),
}


def adapter_of(run: Path) -> tuple[dict[str, Any], Adapter, Path]:
    """A run's config.json, its adapter and its newest checkpoint. Raises UserError for a run without one."""
    found = checkpoint.committed(run / "checkpoints")
    values = json.loads((run / "config.json").read_text()) if found else {}
    given = dict(values.get("task", {}).get("adapter", {}))
    if not given:
        raise UserError(f"{run} holds no trained adapter; give the --out of a run whose recipe has one")
    kind = _KINDS[given.pop("type")]
    adapter: Adapter = kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
    return values, adapter, found[-1]


def load_adapted(run: Path, base: Base) -> Decoder:
    """Base and adapter as one model on the CPU. Raises UserError where the adapter belongs to another base."""
    values, adapter, path = adapter_of(run)
    if values["task"]["base"] != base.sha256[:16]:
        raise UserError(f"{run} was trained on the base {values['task']['base']}, {base.run} is {base.sha256[:16]}")
    with torch.device("meta"):
        model = Decoder(base.model)
    adapters.inject(model, adapter)
    if is_reward := values["task"]["kind"] == "reward":
        scalar_head(model)
    model.to_empty(device="cpu")
    base.fill(model, skip=lambda name: is_reward and name == HEAD)
    checkpoint.load_weights(path, model)
    return model


def merge(run: Path, base: Base, out: Path) -> None:
    """Write a run of zero steps in which LoRA's update is part of the weights. Raises UserError for another adapter."""
    trained, adapter, _ = adapter_of(run)
    if not isinstance(adapter, Lora):
        raise UserError(f"{run} is a {type(adapter).__name__}, which is no change of weights and cannot be merged; export it")
    model = load_adapted(run, base)
    tensors = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    shapes = huggingface.shapes(base.model)
    weights = {f"model/{name}": torch.empty(shape) for name, shape in shapes.items()}
    checkpoint.read_tensors(base.checkpoint, weights)
    whole = adapters.merged({name.removeprefix("model/"): w for name, w in weights.items()}, tensors, adapter)
    values = base.values | {"identity": _identity(f"{run.name} merged"), "task": _merged(trained["task"])}
    write_run(out, values, whole, base.tokenizer)


def _merged(task: dict[str, Any]) -> dict[str, Any]:
    """What a merged run is: the same without an adapter, a reward model as before."""
    return {"kind": task["kind"]} | ({"partial": REWARD} if task["kind"] == "reward" else {})


def _identity(config: str) -> dict[str, str]:
    return {"config": config, "shards": "none", "schedule": "none"}


def export(run: Path, base: Base, out: Path) -> None:
    """Write a folder that `peft.PeftModel.from_pretrained` takes. Raises UserError."""
    values, adapter, _ = adapter_of(run)
    if values["task"]["kind"] == "reward":
        raise UserError(f"{run} is a reward model, whose head has no place in an adapter's folder; merge it")
    model = load_adapted(run, base)
    with torch.no_grad():
        tensors = _to_peft(model, adapter)
    with appearing(out) as folder:
        (folder / CONFIG).write_text(json.dumps(_config_of(adapter, base), indent=2) + "\n")
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _to_peft(model: Decoder, adapter: Adapter) -> dict[str, Tensor]:
    match adapter:
        case Lora():
            return {OURS + n: p.detach().contiguous() for n, p in model.named_parameters() if adapters.is_adapter(n)}
        case Prefix():
            layers: list[Any] = [block.self_attn for block in model.model.layers]
            both = [torch.stack((layer.prefix_k, layer.prefix_v), 1) for layer in layers]  # (P, 2, K, E)
            return {"prompt_embeddings": torch.stack(both, 1).flatten(1).contiguous()}
        case VirtualTokens():
            embedding: Any = model.model.embed_tokens
            return {"prompt_embeddings": embedding.table().contiguous()}


def _config_of(adapter: Adapter, base: Base) -> dict[str, Any]:
    model = base.model
    values: dict[str, Any] = {"task_type": "CAUSAL_LM", "inference_mode": True, "base_model_name_or_path": base.run.name}
    if isinstance(adapter, Lora):
        values |= {"peft_type": "LORA", "r": adapter.rank, "lora_alpha": adapter.alpha, "bias": "none", "lora_dropout": 0.0}
        return values | {"target_modules": list(adapter.targets)}
    values |= {"num_virtual_tokens": adapter.tokens, "num_layers": model.layers, "num_transformer_submodules": 1}
    if isinstance(adapter, Prefix):
        width = model.kv_heads * model.head_size
        values |= {"token_dim": width, "num_attention_heads": model.kv_heads, "encoder_hidden_size": width}
        return values | {"peft_type": "PREFIX_TUNING", "prefix_projection": False}
    values |= {"token_dim": model.width, "num_attention_heads": model.heads}
    if adapter.hidden:
        network = {"encoder_hidden_size": adapter.hidden, "encoder_reparameterization_type": "MLP"}
        return values | {"peft_type": "P_TUNING"} | network
    return values | {"peft_type": "PROMPT_TUNING"}


def import_folder(folder: Path, base: Base, out: Path) -> Adapter:
    """Write a folder of PEFT's as a run of zero steps on a base. Raises UserError for what we have no place for."""
    values = huggingface.read_json(folder / CONFIG)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder / WEIGHTS} cannot be read ({error}); pickled adapters are not, save as safetensors"
        ) from error
    adapter = _adapter_of(values, folder / CONFIG)
    found = _from_peft(tensors, adapter, base.model)
    with torch.device("meta"):
        model = Decoder(base.model)
    adapters.inject(model, adapter)
    expected = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    if wrong := [n for n in expected.keys() | found.keys() if n not in found or found[n].shape != expected.get(n)]:
        raise UserError(f"{folder}: {sorted(wrong)[0]} is not as its config and the base {base.run} say")
    values = base.values | {"identity": _identity("imported"), "task": about("adapter", base, adapter)}
    write_run(out, values, found, base.tokenizer)
    return adapter


def _adapter_of(values: Mapping[str, Any], path: Path) -> Adapter:
    for key, allowed in _MUST_BE.items():
        if key in values and values[key] not in allowed:
            raise UserError(f"{path}: {key} {values[key]!r} is not supported, only {allowed[0]!r}")
    try:
        match values.get("peft_type"):
            case "LORA":
                targets = values["target_modules"]
                if not isinstance(targets, list):
                    raise ValueError(f"target_modules {targets!r} is no list")
                return Lora(
                    int(values["r"]), float(values["lora_alpha"]), tuple(t for t in PROJECTIONS if t in targets) or ("",)
                )
            case "PREFIX_TUNING":
                return Prefix(int(values["num_virtual_tokens"]))
            case "PROMPT_TUNING" | "P_TUNING":
                return VirtualTokens(int(values["num_virtual_tokens"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {error!r} cannot be read as an adapter of ours") from error
    raise UserError(f"{path}: peft_type {values.get('peft_type')!r} is not LORA, PREFIX_TUNING, PROMPT_TUNING or P_TUNING")


def _from_peft(tensors: dict[str, Tensor], adapter: Adapter, model: ModelConfig) -> dict[str, Tensor]:
    if isinstance(adapter, Lora):
        return {name.removeprefix(OURS): tensor.float() for name, tensor in tensors.items()}
    table = tensors.get("prompt_embeddings", torch.empty(0)).float()
    if isinstance(adapter, VirtualTokens):
        return {"model.embed_tokens.virtual": table}
    shape = adapter.tokens, model.layers, 2, model.kv_heads, model.head_size
    if table.numel() != torch.Size(shape).numel():
        return {"prompt_embeddings": table}
    found: dict[str, Tensor] = {}
    for layer, (k_PKE, v_PKE) in enumerate(table.view(shape).permute(1, 2, 0, 3, 4)):
        prefix = f"model.layers.{layer}.self_attn.prefix_"
        found |= {f"{prefix}k": k_PKE.contiguous(), f"{prefix}v": v_PKE.contiguous()}
    return found
