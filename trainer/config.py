"""What a run is: frozen dataclasses without a hidden default, their canonical JSON and the hash that names the run.

A recipe is a function that returns a TrainConfig. Batch size, sequence length, mixture and phases are not here: they are
compiled into schedule.json. `identity` covers what changes the numbers; `parallel` and `run` may differ between two starts
of the same run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from trainer.errors import UserError


@dataclass(frozen=True)
class ModelConfig:
    """A Llama-style decoder. `vocab_size` may exceed the tokenizer's (padding rows are then never a target)."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    rope_base: float = 500_000.0
    norm_eps: float = 1e-5
    init_std: float = 0.02
    document_mask: bool = True  # a token attends within its own document only (Llama 3, section 3.2)

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} does not give {self.heads} heads of an even size")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly")

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    def parameters(self) -> int:
        """Number of parameters, by formula: input and output embeddings are separate."""
        attention = 2 * self.width * self.width + 2 * self.width * self.kv_heads * self.head_size
        block = attention + 3 * self.width * self.feed_forward + 2 * self.width
        return 2 * self.vocab_size * self.width + self.layers * block + self.width


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW; the decay goes to matrices, not to norm gains."""

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0  # bound of the global gradient norm


@dataclass(frozen=True)
class MultiStep:
    """DeepSeek LLM: at each share of the tokens the rate becomes this fraction of the peak."""

    drops: tuple[tuple[float, float], ...] = ((0.8, 0.316), (0.9, 0.1))


@dataclass(frozen=True)
class Cosine:
    """From the peak down to `final` times the peak."""

    final: float = 0.1


@dataclass(frozen=True)
class WarmupStableDecay:
    """Level until the last `decay` share of the tokens, then linear to `final` times the peak."""

    decay: float = 0.1
    final: float = 0.0


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up, a shape, and optionally a last phase in which the rate goes linearly from where it is to zero."""

    peak: float
    warmup_steps: int
    shape: MultiStep | Cosine | WarmupStableDecay
    anneal_phase: str | None = None  # name of the schedule's last phase; None: no annealing


@dataclass(frozen=True)
class Parallel:
    """How the work is laid out. Never changes what is computed, beyond the rounding of sums."""

    micro_batch: int = 16  # sequences a rank takes at once; a step accumulates over as many as it needs
    recompute: Literal["none", "full"] = "none"
    compile: bool = False  # each block through torch.compile
    reshard: bool = True  # free a block's gathered weights after its forward (ZeRO-3); False keeps them (ZeRO-2)
    loss_chunk: int = 2048  # tokens whose logits exist at once


@dataclass(frozen=True)
class Prompt:
    """A text whose continuation is sampled at the end of a run."""

    lang: str
    text: str


@dataclass(frozen=True)
class Run:
    """Cadence of what is written. Steps unless a unit is named."""

    log_every: int = 10  # plain lines; metrics.jsonl has every step
    evaluate_every: int = 100
    evaluate_tokens: int = 65_536  # upper bound per source
    save_every_steps: int = 100
    save_every_minutes: float = 5.0
    keep: int = 2  # newest checkpoints kept
    log_samples: bool = False  # RUN/consumed-RANK.jsonl: which samples each step took
    prompts: tuple[Prompt, ...] = ()
    sample_tokens: int = 48
    tracker: Literal["tensorboard"] | None = "tensorboard"


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run needs beside its data."""

    name: str
    model: ModelConfig
    learning_rate: LearningRate
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    seed: int = 0
    parallel: Parallel = field(default_factory=Parallel)
    run: Run = field(default_factory=Run)


def as_dict(cfg: Any) -> Any:
    """A config as plain JSON values; the alternatives of a union carry their class name as `kind`."""
    if dataclasses.is_dataclass(cfg) and not isinstance(cfg, type):
        values = {f.name: as_dict(getattr(cfg, f.name)) for f in dataclasses.fields(cfg)}
        return {"kind": type(cfg).__name__} | values if isinstance(cfg, (MultiStep, Cosine, WarmupStableDecay)) else values
    if isinstance(cfg, (list, tuple)):
        return [as_dict(v) for v in cfg]
    return cfg


def canonical_json(value: Any) -> str:
    """Keys sorted, no spaces, ASCII: equal values give equal bytes."""
    return json.dumps(as_dict(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def identity(cfg: TrainConfig) -> dict[str, Any]:
    """The part of a config that changes what is learned."""
    return {key: as_dict(getattr(cfg, key)) for key in ("model", "learning_rate", "optimizer", "seed")}


def config_hash(cfg: TrainConfig) -> str:
    """12 hex digits that name what is learned: equal for two layouts of the same run."""
    return hashlib.sha256(canonical_json(identity(cfg)).encode()).hexdigest()[:12]


def model_from_dict(values: dict[str, Any]) -> ModelConfig:
    """The inverse of `as_dict` for a model."""
    return ModelConfig(**values)


def with_settings(cfg: TrainConfig, settings: list[str]) -> TrainConfig:
    """The config with each `FIELD[.FIELD]=VALUE` applied (VALUE is JSON, or a plain string). Raises UserError."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise UserError(f"--set {setting!r} is not FIELD=VALUE, e.g. --set learning_rate.peak=1e-3")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        cfg = _replaced(cfg, path, value, setting)
    return cfg


def _replaced(cfg: Any, path: str, value: Any, setting: str) -> Any:
    name, _, rest = path.partition(".")
    fields = [f.name for f in dataclasses.fields(cfg)] if dataclasses.is_dataclass(cfg) else []
    if name not in fields:
        raise UserError(f"--set {setting!r}: {type(cfg).__name__} has no field {name!r}; it has {', '.join(fields)}")
    old = getattr(cfg, name)
    if rest:
        value = _replaced(old, rest, value, setting)
    elif isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif isinstance(old, tuple) and isinstance(value, list):
        value = _tuples(value)
    elif old is not None and value is not None and type(old) is not type(value):
        raise UserError(f"--set {setting!r}: {name} is {type(old).__name__} {old!r}, not {type(value).__name__} {value!r}")
    try:
        return replace(cfg, **{name: value})
    except ValueError as error:
        raise UserError(f"--set {setting!r}: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def load_recipe(name: str) -> TrainConfig:
    """A config by `NAME` or `NAME:function` of trainer/recipes, or by `path/to/file.py:function`. Raises UserError."""
    stem, colon, function = name.rpartition(":")
    stem, function = (stem, function) if colon else (name, name)
    module = _recipe_module(name, stem)
    make = getattr(module, function, None)
    if make is None:
        raise UserError(f"recipe {name!r}: {stem} has no function {function!r}")
    cfg = make()
    if not isinstance(cfg, TrainConfig):
        raise UserError(f"recipe {name!r} returned {type(cfg).__name__}, not a trainer.config.TrainConfig")
    return cfg


def _recipe_module(name: str, stem: str) -> ModuleType:
    known = sorted(p.stem for p in (Path(__file__).parent / "recipes").glob("*.py") if p.stem != "__init__")
    if stem in known:
        return importlib.import_module(f"trainer.recipes.{stem}")
    if not stem.endswith(".py"):
        raise UserError(
            f"there is no training recipe {name!r}; known are {', '.join(known)}, or write path/to/file.py:function"
        )
    if not Path(stem).is_file():
        raise UserError(f"recipe {name!r}: there is no file {stem!r}; write path/to/file.py:function")
    spec = importlib.util.spec_from_file_location(Path(stem).stem, stem)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
