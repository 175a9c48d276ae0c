"""A recipe is the data flow: inputs, the stages in order, then tokenizer, shards and schedule.

    def demo() -> Recipe:
        return Recipe(
            name="demo",
            inputs=(Input("web", "examples/crawl/*.warc.gz", read_warc, WarcConfig()),),
            stages=(Stage(extract, ExtractConfig()), Stage(identify_language, LanguageConfig()), ...),
            ...
        )

A *batch stage* `(pa.RecordBatch, cfg) -> pa.RecordBatch` returns the same rows in the same order, with columns added and
decisions marked (`schema.drop`, `schema.quarantine`). A *table stage* `(DataFrame, cfg) -> DataFrame` (or `Table`, with tables
beside) may shuffle, and marks decisions too. A *reader* `(path, source, cfg) -> batches of RECORD` is where rows come from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from pipelines.errors import UserError

Kind = Literal["reader", "batch", "table"]
Adds: TypeAlias = pa.Schema | Callable[[Any], pa.Schema]  # a function of the config where the columns depend on it


@dataclass(frozen=True)
class Spec:
    """What the engine must know of a stage function before it runs it."""

    name: str
    kind: Kind
    version: int  # raised when the same config comes to mean something else
    adds: Adds  # columns the stage adds (or gives another type)
    removes: tuple[str, ...]  # columns that go no further


def _stage(kind: Kind, name: str | None, version: int, adds: Adds | None, removes: tuple[str, ...]) -> Callable[..., Any]:
    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        spec = Spec(name or function.__name__, kind, version, pa.schema([]) if adds is None else adds, removes)
        function.spec = spec  # type: ignore[attr-defined]
        return function

    return mark


def reader(*, version: int = 1, name: str | None = None) -> Callable[..., Any]:
    """Mark `(path: str, source: str, cfg) -> Iterator[pa.RecordBatch]` of schema RECORD + DECISION as a reader."""
    return _stage("reader", name, version, None, ())


def batch_stage(
    *, version: int = 1, name: str | None = None, adds: Adds | None = None, removes: tuple[str, ...] = ()
) -> Callable[..., Any]:
    """Mark `(pa.RecordBatch, cfg) -> pa.RecordBatch` as a batch stage."""
    return _stage("batch", name, version, adds, removes)


def table_stage(
    *, version: int = 1, name: str | None = None, adds: Adds | None = None, removes: tuple[str, ...] = ()
) -> Callable[..., Any]:
    """Mark `(DataFrame, cfg) -> DataFrame | Table` as a table stage; it returns every row, with the DECISION columns."""
    return _stage("table", name, version, adds, removes)


@dataclass(frozen=True)
class Table:
    """What a table stage returns that also found something worth keeping: evidence, counts.

    `beside`: DataFrames by name; the engine writes each as Parquet into `beside/NAME` of the step's folder.
    """

    rows: Any
    beside: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """Files of one source. `paths`: files, folders or globs; each must match something when the run starts."""

    source: str
    paths: str | tuple[str, ...]
    read: Callable[..., Any]
    cfg: Any

    @property
    def spec(self) -> Spec:
        """The reader's spec."""
        return spec_of(self.read)


@dataclass(frozen=True)
class Stage:
    """One step of the flow: a marked function and its frozen config.

    `name` distinguishes two uses of one function; `sources`, where given, are those whose rows the stage sees (the others pass
    by it); `checkpoint` ends the fused pass here, so that what comes before is not done again when a later config changes
    (after an expensive stage). Table stages always end the pass.
    """

    run: Callable[..., Any]
    cfg: Any
    name: str = ""
    sources: tuple[str, ...] = ()
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", spec_of(self.run).name)

    @property
    def spec(self) -> Spec:
        """The function's spec."""
        return spec_of(self.run)

    @property
    def adds(self) -> pa.Schema:
        """The columns that the stage adds with this config."""
        adds = self.spec.adds
        return adds(self.cfg) if callable(adds) else adds


@dataclass(frozen=True)
class Recipe:
    """The whole way from inputs to a compiled schedule; without tokenizer, shards or schedule the run ends before.

    `tokenizer`: a TokenizerConfig, or the name of a stage that has encoded already: the tokenizer in its config is the run's.
    `index`: an IndexConfig, where later dumps shall be held against what this run keeps (dedup/known.py).
    `schedule` is a ScheduleConfig, or a function that makes one of the tokens per source that the shards turn out to hold.
    """

    name: str
    inputs: tuple[Input, ...]
    stages: tuple[Stage, ...]
    index: Any = None
    tokenizer: Any = None
    shards: Any = None
    schedule: Any = None
    doc: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        names = [i.source for i in self.inputs] + ["index", "tokenizer", "shards", "schedule", "read"]
        for stage in self.stages:
            if stage.name in names:
                raise ValueError(f"recipe {self.name!r} uses the name {stage.name!r} twice; give one Stage(..., name=...)")
            names.append(stage.name)
        encoders = [stage.name for stage in self.stages if hasattr(stage.cfg, "tokenizer")]
        if isinstance(self.tokenizer, str) and self.tokenizer not in encoders:
            has = ", ".join(encoders) or "none"
            raise ValueError(f"recipe {self.name!r} takes the tokenizer of stage {self.tokenizer!r}; stages with one: {has}")
        for later, earlier in (("shards", "tokenizer"), ("schedule", "shards")):
            if getattr(self, later) is not None and getattr(self, earlier) is None:
                raise ValueError(f"recipe {self.name!r} has {later} without {earlier}")

    @property
    def encoder(self) -> Any:
        """The config of the stage that has encoded already (its `tokenizer`, `eos`, `template`); None without such a stage."""
        return next((stage.cfg for stage in self.stages if stage.name == self.tokenizer), None)


@dataclass(frozen=True)
class Step:
    """What is materialised once: one fused pass of batch stages, or one table stage."""

    index: int
    stages: tuple[Stage, ...]  # empty for a pass that only reads
    inputs: tuple[Input, ...]  # not empty for the first step only
    fingerprint: str

    @property
    def name(self) -> str:
        """The last stage names the step."""
        return self.stages[-1].name if self.stages else "read"

    @property
    def directory(self) -> str:
        """`NN-stage-FINGERPRINT` below OUT."""
        return f"{self.index:02d}-{self.name}-{self.fingerprint}"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Stages whose counts this step's ledger holds, in order."""
        return (("read",) if self.inputs else ()) + tuple(s.name for s in self.stages)


def spec_of(function: Callable[..., Any]) -> Spec:
    """The spec of a marked function. Raises TypeError for an unmarked one."""
    spec = getattr(function, "spec", None)
    if not isinstance(spec, Spec):
        raise TypeError(f"{function!r} is not a stage; mark it with @batch_stage, @table_stage or @reader (pipelines.recipe)")
    return spec


def config_dict(cfg: Any) -> Any:
    """A config as plain JSON values: dataclasses become objects, tuples lists, functions their qualified names."""
    if dataclasses.is_dataclass(cfg) and not isinstance(cfg, type):
        return {f.name: config_dict(getattr(cfg, f.name)) for f in dataclasses.fields(cfg) if f.compare}
    if isinstance(cfg, dict):
        return {str(k): config_dict(v) for k, v in sorted(cfg.items(), key=lambda kv: str(kv[0]))}
    if isinstance(cfg, (list, tuple)):
        return [config_dict(v) for v in cfg]
    if isinstance(cfg, (set, frozenset)):
        return sorted(config_dict(v) for v in cfg)
    if callable(cfg):
        return f"{cfg.__module__}:{cfg.__qualname__}"
    return cfg


def config_files(cfg: Any) -> list[dict[str, Any]]:
    """Path, bytes and mtime_ns of the files that decide beside the config itself: those of its method `files()`, if it has one.

    A list of domains or a model is such a file. Raises UserError where one is missing.
    """
    found = []
    for path in map(Path, cfg.files() if hasattr(cfg, "files") else ()):
        try:
            state = path.stat()
        except OSError as error:
            raise UserError(f"{str(path)!r}, which {type(cfg).__name__} names, cannot be read: {error}") from error
        found.append({"path": str(path), "bytes": state.st_size, "mtime_ns": state.st_mtime_ns})
    return found


def fingerprint(*parts: Any) -> str:
    """12 hex digits of the SHA-256 of the parts as canonical JSON."""
    text = json.dumps(config_dict(parts), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def steps(recipe: Recipe, files: list[dict[str, Any]]) -> tuple[Step, ...]:
    """Fuse consecutive batch stages into passes; a step's fingerprint covers its configs with their files, inputs and upstream.

    `files`: one object a input file (source, path, bytes, mtime_ns), in any order.
    """
    known = sorted((f["source"], f["path"], f["bytes"], f["mtime_ns"]) for f in files)
    readers = [(i.source, i.spec.name, i.spec.version, _code(i.read), i.cfg) for i in recipe.inputs]
    upstream = fingerprint("read", readers, known)
    result: list[Step] = []
    inputs, group = recipe.inputs, list[Stage]()

    def close() -> None:
        nonlocal inputs, upstream
        described = [(s.name, s.spec.name, s.spec.version, _code(s.run), s.sources, s.cfg, *config_files(s.cfg)) for s in group]
        upstream = fingerprint(upstream, described)
        result.append(Step(len(result), tuple(group), inputs, upstream))
        group.clear()
        inputs = ()

    for stage in recipe.stages:
        if stage.spec.kind == "table":
            if group or inputs:
                close()
            group.append(stage)
            close()
        else:
            group.append(stage)
            if stage.checkpoint:
                close()
    if group or inputs:
        close()
    return tuple(result)


def _code(function: Callable[..., Any]) -> str:
    """The source of a function that is not ours: ours say by their version what they mean, a notebook's cell does not."""
    return "" if function.__module__.startswith("pipelines.") else inspect.getsource(function)


def with_settings(recipe: Recipe, settings: list[str]) -> Recipe:
    """The recipe with `STAGE.FIELD=VALUE` applied (VALUE is JSON, or a plain string where it is not). Raises UserError."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        owner, _, name = path.partition(".")
        whole = owner in ("index", "tokenizer", "shards", "schedule")  # a field of the recipe, which may have a name as a whole
        if not (equals and (name or (whole and "." not in path))):
            raise UserError(f"--set {setting!r} is not STAGE.FIELD=VALUE, e.g. --set near_duplicates.threshold=0.8")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        if whole:
            recipe = _set(recipe, path, value, setting)
            continue
        owners: dict[str, Stage | Input] = {s.name: s for s in recipe.stages}
        owners |= {i.source: i for i in recipe.inputs}
        if owner not in owners:
            known = ", ".join([*owners, "tokenizer", "shards", "schedule", "index"])
            raise UserError(f"--set {setting!r}: recipe {recipe.name!r} has no stage {owner!r}; it has {known}")
        old = owners[owner]
        new: Any
        if name == "paths" and isinstance(old, Input):
            new = replace(old, paths=tuple(value) if isinstance(value, list) else value)
        else:
            new = replace(old, cfg=_set(old.cfg, name, value, setting))
        recipe = replace(
            recipe,
            stages=tuple(new if s is old else s for s in recipe.stages),
            inputs=tuple(new if i is old else i for i in recipe.inputs),
        )
    return recipe


def _set(cfg: Any, path: str, value: Any, setting: str) -> Any:
    name, _, rest = path.partition(".")
    fields = {f.name for f in dataclasses.fields(cfg)} if dataclasses.is_dataclass(cfg) else set()
    if name not in fields:
        raise UserError(f"--set {setting!r}: {type(cfg).__name__} has no field {name!r}; it has {', '.join(sorted(fields))}")
    old = getattr(cfg, name)
    if rest:
        value = _set(old, rest, value, setting)
    elif isinstance(value, list) and isinstance(old, tuple):
        value = tuple(value)
    elif isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif isinstance(value, str) and hasattr(type(old), "named"):  # a published setting by its name
        try:
            value = type(old).named(value)
        except ValueError as error:
            raise UserError(f"--set {setting!r}: {error}") from error
    elif old is not None and type(old) is not type(value) and value is not None:
        raise UserError(f"--set {setting!r}: {name} is {type(old).__name__} {old!r}, not {type(value).__name__} {value!r}")
    try:
        return replace(cfg, **{name: value})
    except ValueError as error:
        raise UserError(f"--set {setting!r}: {error}") from error


def load_function(name: str, what: str) -> Any:
    """The function of `path/to/file.py:function`. Raises UserError where there is none, naming `what` it is for."""
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise UserError(f"{what} {name!r}: there is no file {path!r}; write path/to/file.py:function")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, function):
        raise UserError(f"{what} {name!r}: {path} has no function {function!r}")
    return getattr(module, function)


def load_recipe(name: str) -> Recipe:
    """A recipe by its name in `pipelines/recipes`, or `path/to/file.py:function`. Raises UserError if there is none."""
    if ":" in name:
        make = load_function(name, "recipe")
    else:
        folder = Path(__file__).parent / "recipes"
        known = sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")
        if name not in known:
            raise UserError(f"there is no recipe {name!r}; known are {', '.join(known)}, or write path/to/file.py:function")
        make = getattr(importlib.import_module(f"pipelines.recipes.{name}"), name)
    recipe = make()
    if not isinstance(recipe, Recipe):
        raise UserError(f"recipe {name!r} returned {type(recipe).__name__}, not a Recipe")
    return replace(recipe, doc=recipe.doc or (make.__doc__ or "").strip())
