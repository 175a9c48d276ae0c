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
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from trainer.architecture import Experts as Experts
from trainer.architecture import LinearScaling as LinearScaling
from trainer.architecture import Llama3Scaling as Llama3Scaling
from trainer.architecture import ModelConfig as ModelConfig
from trainer.errors import UserError

Config = TypeVar("Config")
Kernel = Literal["auto", "dense", "flex", "varlen"]  # of attention within documents


@dataclass(frozen=True)
class Group:
    """Parameters treated differently: those whose name holds `match`, a regular expression."""

    match: str
    rate: float = 1.0  # times the learning rate
    weight_decay: float | None = None  # None: the optimizer's, for matrices


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, or Adafactor, which has neither betas nor eps; the decay goes to matrices, not to norm gains."""

    kind: Literal["adamw", "adafactor"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0  # bound of the global gradient norm
    moments: Literal["fp32", "bf16"] = "fp32"  # as they are kept, of AdamW; bf16 rounds to the nearest after each step
    groups: tuple[Group, ...] = ()  # a parameter belongs to the first that matches its name

    def __post_init__(self) -> None:
        if not all(isinstance(group, Group) for group in self.groups):
            raise ValueError("groups are trainer.config.Group; write them in a recipe")
        if self.moments == "bf16" and (self.kind != "adamw" or max(self.betas) > 0.99):
            raise ValueError(
                f'moments "bf16" would stall: they are for adamw with betas up to 0.99, not {self.kind} {self.betas}'
            )


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
    recompute: Literal["none", "selective", "full"] = "none"
    kept: float = 0.75  # "selective": share of a block's activations kept, chosen by what is dear to compute; with compile
    compile: bool = False  # each block through torch.compile
    reshard: bool = True  # free a block's gathered weights after its forward (ZeRO-3); False keeps them (ZeRO-2)
    loss_chunk: int = 2048  # tokens whose logits exist at once
    attention: Kernel = "auto"  # with documents: FlexAttention on a GPU, a dense mask on a CPU; trainer.attention has the rest
    replicas: int = 1  # copies of the model, each sharded over its part of the ranks (HSDP)
    offload: bool = False  # weights and moments in host memory, and the optimizer with them

    def __post_init__(self) -> None:
        if self.recompute == "selective" and not self.compile:
            raise ValueError('recompute "selective" is what the compiler does; set compile=True too, or recompute "full"')


@dataclass(frozen=True)
class Prompt:
    """A text whose continuation is sampled at the end of a run."""

    lang: str
    text: str


@dataclass(frozen=True)
class Needle:
    """A statement hidden in held-out text: at shares of the sequence length, at depths; {} is one of the values."""

    statement: str = "The number of the green house is {}."
    values: tuple[str, ...] = ("7421", "3856", "9102", "5647")
    lengths: tuple[float, ...] = (0.25, 0.5, 1.0)
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Run:
    """Cadence of what is written. Steps unless a unit is named."""

    log_every: int = 10  # plain lines; metrics.jsonl has every step
    evaluate_every: int = 100
    evaluate_tokens: int = 65_536  # upper bound per source
    save_every_steps: int = 100
    save_every_minutes: float = 5.0
    keep: int = 2  # newest checkpoints kept
    keep_phase: str | None = None  # name of a phase whose checkpoints are all kept, to be averaged (trainer.average)
    log_samples: bool = False  # RUN/consumed-RANK.jsonl: which samples each step took
    prompts: tuple[Prompt, ...] = ()
    sample_tokens: int = 48
    probe_every: int | None = None  # None: never (trainer.probes)
    needle: Needle | None = field(default_factory=Needle)
    questions: str | None = None  # JSON lines of question, choices and answer
    probe_questions: int = 200  # at most, a bench
    shots: int = 5  # questions of a bench that are shown with their answers
    trackers: tuple[str, ...] = ("tensorboard",)  # any that Accelerate knows by name
    profile_steps: tuple[int, int] | None = None  # first and last step of a trace; SIGUSR1 asks for one too (trainer.profiler)
    init_from: str | None = None  # the run, or Hugging Face folder, whose weights it begins with; part of its identity


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run needs beside its data."""

    name: str
    model: ModelConfig
    learning_rate: LearningRate
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    z_loss: float = 0.0  # weight of the square of log Z in what is minimised (PaLM: 1e-4); the logged loss includes it
    seed: int = 0
    precision: Literal["bf16", "fp8"] = "bf16"  # of the blocks' linear layers (trainer.fp8); a CPU has fp32 for bf16
    parallel: Parallel = field(default_factory=Parallel)
    run: Run = field(default_factory=Run)

    def __post_init__(self) -> None:
        if self.model.prefix_lm and self.parallel.attention == "varlen":
            raise ValueError('parallel.attention "varlen" is causal and knows no prefix; use "auto" with model.prefix_lm')


_KINDS = (MultiStep, Cosine, WarmupStableDecay, LinearScaling, Llama3Scaling)


def as_dict(cfg: Any) -> Any:
    """A config as plain JSON values; the alternatives of a union carry their class name as `kind`."""
    if dataclasses.is_dataclass(cfg) and not isinstance(cfg, type):
        values = {f.name: as_dict(getattr(cfg, f.name)) for f in dataclasses.fields(cfg)}
        return {"kind": type(cfg).__name__} | values if isinstance(cfg, _KINDS) else values
    if isinstance(cfg, (list, tuple)):
        return [as_dict(v) for v in cfg]
    return cfg


def canonical_json(value: Any) -> str:
    """Keys sorted, no spaces, ASCII: equal values give equal bytes."""
    return json.dumps(as_dict(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def identity(cfg: TrainConfig) -> dict[str, Any]:
    """The part of a config that changes what is learned."""
    return {key: as_dict(getattr(cfg, key)) for key in ("model", "learning_rate", "optimizer", "z_loss", "seed", "precision")}


def config_hash(cfg: TrainConfig, task: Mapping[str, Any] = MappingProxyType({})) -> str:
    """12 hex digits that name what is learned (`task`: Task.about): equal for two layouts of the same run."""
    values = identity(cfg) | ({"task": dict(task)} if task else {})
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()[:12]


def model_from_dict(values: dict[str, Any]) -> ModelConfig:
    """The inverse of `as_dict` for a model."""
    values = dict(values)
    if values.get("experts"):
        values["experts"] = Experts(**values["experts"])
    if values.get("rope_scaling"):
        scaling = dict(values["rope_scaling"])
        values["rope_scaling"] = {k.__name__: k for k in (LinearScaling, Llama3Scaling)}[scaling.pop("kind")](**scaling)
    return ModelConfig(**values)


def whole_model(values: dict[str, Any], run: Path) -> ModelConfig:
    """The model of a run by its config.json. Raises UserError where its weights are none, by Task.about."""
    if partial := values.get("task", {}).get("partial"):
        raise UserError(f"{run} is {partial}")
    return model_from_dict(values["config"]["model"])


def with_settings(cfg: Config, settings: list[str]) -> Config:
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
    old, hint = getattr(cfg, name), get_type_hints(type(cfg))[name]
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise UserError(f"--set {setting!r}: {name} is one of {', '.join(map(str, get_args(hint)))}")
    if rest:
        value = _replaced(old, rest, value, setting)
    elif isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif (old is None or isinstance(old, tuple)) and isinstance(value, list):
        value = _tuples(value)
    elif old is not None and value is not None and type(old) is not type(value):
        raise UserError(f"--set {setting!r}: {name} is {type(old).__name__} {old!r}, not {type(value).__name__} {value!r}")
    try:
        return replace(cfg, **{name: value})
    except ValueError as error:
        raise UserError(f"--set {setting!r}: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def recipe_names(package: str = "trainer.recipes") -> dict[str, str]:
    """The recipes that come in a package: public function -> module."""
    found: dict[str, str] = {}
    for folder in importlib.import_module(package).__path__:
        for path in sorted(Path(folder).glob("[!_]*.py")):
            module = importlib.import_module(f"{package}.{path.stem}")
            made_here = (n for n, f in vars(module).items() if getattr(f, "__module__", "") == module.__name__ and callable(f))
            found |= {name: path.stem for name in made_here if not name.startswith("_")}
    return found


def load_recipe(name: str) -> TrainConfig:
    """A config by the NAME of a recipe of trainer/recipes, or by `path/to/file.py:function`. Raises UserError."""
    return load_from("trainer.recipes", name, TrainConfig)


def load_from(package: str, name: str, kind: type[Config]) -> Config:
    """What a recipe of a package, or a function of a file, returns: a `kind`. Raises UserError."""
    stem, colon, function = name.rpartition(":")
    known = recipe_names(package)
    if not colon and name in known:
        stem, function = known[name], name
    make = getattr(_recipe_module(name, stem, known, package), function, None)
    if make is None:
        raise UserError(f"recipe {name!r}: {stem} has no function {function!r}")
    cfg = make()
    if not isinstance(cfg, kind):
        raise UserError(f"recipe {name!r} returned {type(cfg).__name__}, not a {kind.__module__}.{kind.__name__}")
    return cfg


def _recipe_module(name: str, stem: str, known: dict[str, str], package: str) -> ModuleType:
    if stem in known.values():
        return importlib.import_module(f"{package}.{stem}")
    if not stem.endswith(".py"):
        raise UserError(
            f"there is no training recipe {name!r}; known are {', '.join(sorted(known))}, or write path/to/file.py:function"
        )
    if not Path(stem).is_file():
        raise UserError(f"recipe {name!r}: there is no file {stem!r}; write path/to/file.py:function")
    spec = importlib.util.spec_from_file_location(Path(stem).stem, stem)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
