"""A recipe becomes tables, a tokenizer, shards, a schedule and a report. Read `run` top to bottom: that is the data flow."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from pipelines import ledger
from pipelines.errors import UserError
from pipelines.progress import Meter, watch
from pipelines.read.files import list_files
from pipelines.recipe import Recipe, Step, Table, config_dict, config_files, fingerprint, steps
from pipelines.rundir import HIDDEN_MANIFEST, MANIFEST, RunDir, write_json
from pipelines.schedule import ScheduleError, compile_schedule, write_schedule
from pipelines.schema import DROPPED, KEPT, QUARANTINE, QUARANTINED, RECORD, REMOVED
from pipelines.shards import Shards
from pipelines.spark import (
    batch_pass,
    checkpoints,
    files_frame,
    run_table_step,
    session,
    spark_path,
    step_schema,
)
from pipelines.tables import read_table, row_schema, write_table

QUARANTINE_LIMIT = 0.5  # share of a step's rows; above it the stage is broken, not the data


@dataclass(frozen=True)
class Plan:
    """What will run, with all fingerprints: a pure function of recipe and input files."""

    recipe: Recipe
    files: list[dict[str, Any]]  # source, path, bytes, mtime_ns
    steps: tuple[Step, ...]
    schemas: tuple[pa.Schema, ...]  # of each step's table
    index: str  # fingerprints of what follows the tables
    tokenizer: str
    shards: str
    schedule: str

    def to_json(self) -> dict[str, Any]:
        """OUT/plan.json."""
        described = [
            {
                "directory": step.directory,
                "fingerprint": step.fingerprint,
                "stages": [
                    *(
                        {"name": "read", "kind": "reader", "source": i.source, "config": config_dict(i.cfg)}
                        for i in step.inputs
                    ),
                    *(
                        {
                            "name": s.name,
                            "kind": s.spec.kind,
                            "version": s.spec.version,
                            "sources": list(s.sources),
                            "config": config_dict(s.cfg),
                        }
                        | ({"files": used} if (used := config_files(s.cfg)) else {})
                        for s in step.stages
                    ),
                ],
            }
            for step in self.steps
        ]
        tail = {
            name: {"fingerprint": getattr(self, name), "config": config_dict(cfg := getattr(self.recipe, name))}
            | ({"files": used} if (used := config_files(cfg)) else {})
            for name in ("index", "tokenizer", "shards", "schedule")
            if getattr(self.recipe, name) is not None
        }
        return {"recipe": self.recipe.name, "doc": self.recipe.doc, "files": self.files, "steps": described, **tail}


def make_plan(recipe: Recipe) -> Plan:
    """The plan of a recipe over the files that are there now. Raises UserError where an input matches nothing."""
    files = [{"source": i.source, **file} for i in recipe.inputs for file in list_files(i.paths)]
    doubled = {f["path"] for f in files if sum(f["path"] == g["path"] for g in files) > 1}
    if doubled:
        raise UserError(f"{sorted(doubled)[0]} is an input twice; give each file to one source")
    made = steps(recipe, files)
    schemas: list[pa.Schema] = []
    for step in made:
        schemas.append(step_schema(step, row_schema(schemas[-1]) if schemas else RECORD))
    index = fingerprint("index", recipe.index, made[-1].fingerprint)
    tokenizer = fingerprint("tokenizer", recipe.tokenizer, made[-1].fingerprint, *config_files(recipe.tokenizer))
    shards = fingerprint("shards", recipe.shards, tokenizer)
    schedule = fingerprint("schedule", recipe.schedule, shards)
    return Plan(recipe, files, made, tuple(schemas), index, tokenizer, shards, schedule)


def run(
    recipe: Recipe,
    out: str | Path,
    console: Console | None = None,
    master: str | None = None,
    conf: Mapping[str, str] | None = None,
) -> RunDir:
    """Run a recipe into OUT and return it; what is complete there is skipped. `conf`: Spark settings.

    Without a console, progress is printed as plain lines. Raises UserError, LedgerError.
    """
    from pipelines import report as report_page

    plan, rundir = make_plan(recipe), RunDir(out)
    rundir.claim(recipe)
    plain = Console(force_terminal=False, force_jupyter=False)
    engine = Engine(plan, rundir, console or plain, master, conf or {})
    try:
        write_json(rundir.plan, plan.to_json())
        for index in range(len(plan.steps)):
            engine.table(index)
        engine.quality()
        engine.accounts()
        if recipe.index is not None:
            engine.part("index", rundir.index, plan.index, make_index)
        if recipe.tokenizer is not None:
            engine.part("tokenizer", rundir.tokenizer, plan.tokenizer, make_tokenizer)
        if recipe.shards is not None:
            engine.part("shards", rundir.shards, plan.shards, make_shards)
        if recipe.schedule is not None:
            make_schedule(plan, rundir)
        report_page.write(rundir)
        engine.tell_stale()
    except Exception as error:
        known = explain(error, rundir)
        if known is None:
            raise
        raise known from error
    finally:
        engine.stop()
        rundir.release()
    return rundir


class Engine:
    """Materialises a plan's parts in OUT, one after the other; Spark starts when the first incomplete part asks for it."""

    def __init__(self, plan: Plan, rundir: RunDir, console: Console, master: str | None, conf: Mapping[str, str]) -> None:
        self.plan, self.rundir, self.console, self.master, self.conf = plan, rundir, console, master, conf
        self._owned = False  # a session that was there before is not ours to stop

    @cached_property
    def spark(self) -> Any:
        """The session, started on first use; one that runs already (a notebook's) is used as it is."""
        from pyspark.sql import SparkSession

        self._owned = SparkSession.getActiveSession() is None
        if self._owned:
            self.console.print("  starting Spark", highlight=False)
        return session(self.master, app=f"headrace {self.plan.recipe.name}", settings=self.conf)

    def stop(self) -> None:
        """Stop Spark if it was started here."""
        if self._owned:
            self.spark.stop()

    def rows(self, index: int = -1) -> Any:
        """The kept rows of a step's table as a DataFrame."""
        return read_table(self.spark, self.rundir.table(self.plan.steps[index]), self.plan.schemas[index])

    def manifest(self, index: int) -> dict[str, Any] | None:
        """The manifest of a complete step, else None."""
        step = self.plan.steps[index]
        return self.rundir.manifest(self.rundir.table(step), step.fingerprint)

    def table(self, index: int) -> None:
        """Materialise a step: compute, write, balance, publish."""
        step = self.plan.steps[index]
        if self.manifest(index) is not None:
            self._say_complete(step.directory)
            return
        before = self.manifest(index - 1) if index else None
        total = sum(e["kept"] for e in before["ledger"] if e["stage"] == before["stages"][-1]) if before else None
        meter = Meter(self.spark)
        folder, started = self.rundir.begin(step.name), time.monotonic()
        with watch(self.spark, self.console, step.name, total, meter), checkpoints(self.spark, self.rundir.path):
            counts = self._write(index, folder, meter)
        wall = time.monotonic() - started
        files = {f["path"]: f["source"] for f in self.plan.files}
        entries = ledger.entries(step.stage_names, files, counts)
        ledger.check(before["ledger"] if before else None, entries, step.stage_names, before["stages"][-1] if before else None)
        _refuse_broken_stage(entries)
        seconds = {name: seconds for name, (_, seconds) in meter.sums.items()} or {step.name: wall}
        manifest = {
            "recipe_fingerprint": step.fingerprint,
            "stages": step.stage_names,
            "wall_seconds": round(wall, 3),
            "seconds": seconds,
            "ledger": entries,
        }
        write_json(folder / MANIFEST, manifest)
        self.rundir.publish(folder, self.rundir.table(step))

    def _write(self, index: int, folder: Path, meter: Meter) -> list[dict[str, Any]]:
        step, schema = self.plan.steps[index], self.plan.schemas[index]
        if step.inputs:
            numbers, files = files_frame(self.spark, self.plan.files)
            return write_table(Table(numbers), schema, folder, batch_pass(step, schema, meter.count, files))
        if step.stages[-1].spec.kind == "batch":
            return write_table(Table(self.rows(index - 1)), schema, folder, batch_pass(step, schema, meter.count))
        return write_table(run_table_step(self.rows(index - 1), step, schema), schema, folder)

    def quality(self) -> None:
        """How good the near-duplicate stages were, measured on what they kept and dropped; for the report."""
        from pipelines.dedup.quality.measure import wanted, write_quality

        for step, schema in zip(self.plan.steps, self.plan.schemas, strict=True):
            folder = self.rundir.table(step)
            if wanted(step, folder) is not None:
                shown = watch(self.spark, self.console, f"quality of {step.name}", None, Meter(self.spark))
                with shown, checkpoints(self.spark, self.rundir.path):
                    write_quality(self.spark, step, folder, schema)

    def part(self, name: str, folder: Path, want: str, make: Callable[[Engine, Path], None]) -> None:
        """Have OUT/index, OUT/tokenizer or OUT/shards made in a temporary folder, manifest last, and publish it."""
        if self.rundir.manifest(folder, want) is not None:
            self._say_complete(name)
            return
        temporary = self.rundir.begin(name)
        with watch(self.spark, self.console, name, None, Meter(self.spark)), checkpoints(self.spark, self.rundir.path):
            make(self, temporary)
        self.rundir.publish(temporary, folder)

    def accounts(self) -> None:
        """OUT/removed, OUT/quarantine and OUT/ledger.json from the steps' tables."""
        from pyspark.sql import DataFrame

        last = self.plan.steps[-1].fingerprint
        renamed = {f"drop_{name}": name for name in ("rule", "value", "bound", "entry")}
        for folder, outcome, schema in (
            (self.rundir.removed, DROPPED, REMOVED),
            (self.rundir.quarantine, QUARANTINED, QUARANTINE),
        ):
            if self.rundir.manifest(folder, last, HIDDEN_MANIFEST) is not None:
                continue
            parts = []
            for step, table in zip(self.plan.steps, self.plan.schemas, strict=True):
                rows = read_table(self.spark, self.rundir.table(step), table, outcome=None)
                parts.append(rows.where(rows["outcome"] == outcome).withColumnsRenamed(renamed).select(*schema.names))
            temporary = self.rundir.begin(folder.name)
            reduce(DataFrame.unionByName, parts).coalesce(8).write.mode("overwrite").parquet(spark_path(temporary))
            write_json(temporary / HIDDEN_MANIFEST, {"recipe_fingerprint": last, "rows": _rows_in(temporary)})
            self.rundir.publish(temporary, folder)
        manifests = [self.manifest(i) for i in range(len(self.plan.steps))]
        seconds = {name: s for m in manifests if m for name, s in m["seconds"].items()}
        write_json(self.rundir.ledger, ledger.summary((e for m in manifests if m for e in m["ledger"]), seconds))

    def tell_stale(self) -> None:
        """Name the tables of earlier settings, which stay so that going back to them costs nothing."""
        used = {step.directory for step in self.plan.steps}
        stale = [p.name for p in self.rundir.path.glob("[0-9][0-9]-*") if p.name not in used]
        if stale:
            names = ", ".join(sorted(stale))
            self.console.print(
                f"  tables of other settings or inputs are still in {self.rundir.path}: {names}", highlight=False
            )

    def _say_complete(self, name: str) -> None:
        self.console.print(f"  {name}: complete, skipped", highlight=False)


def make_index(engine: Engine, folder: Path) -> None:
    """The last table as an index, for later dumps; what it holds is held against what the table keeps."""
    from pipelines.dedup.index.write import write_index

    plan = engine.plan
    manifest = write_index(engine.rows(), plan.recipe.index, folder, plan.recipe.name, plan.index)
    if manifest.rows != (kept := _kept(engine)):
        raise ledger.LedgerError(f"the index does not balance: {kept} documents were kept and {manifest.rows} are in the index")


def make_tokenizer(engine: Engine, folder: Path) -> None:
    """A tokenizer trained or extended on a sample of the last table, or the one that a stage was given, as it is; and how it
    compresses each source and language."""
    from pipelines.tokens.extend import load_base
    from pipelines.tokens.fit import facts, fit
    from pipelines.tokens.sample import sample_documents
    from pipelines.tokens.train import TokenizerConfig, copy, save

    encoder = engine.plan.recipe.encoder
    given = encoder.tokenizer if encoder else ""
    cfg = TokenizerConfig(base=given) if given else engine.plan.recipe.tokenizer
    sample = sample_documents(engine.rows(), cfg)
    tokenizer, extension = (load_base(given), None) if given else fit(sample, cfg)
    sha256 = copy(given, folder) if given else save(tokenizer, folder)
    said = facts(tokenizer, sample, cfg, extension) | ({"preset": None, "given": given} if given else {})
    write_json(folder / MANIFEST, {"recipe_fingerprint": engine.plan.tokenizer, "sha256": sha256, **said})


def make_shards(engine: Engine, folder: Path) -> None:
    """The last table as token shards; what they hold is held against what the table keeps. Takedowns of OUT stay in force."""
    from pipelines.provenance.takedown import apply_recorded
    from pipelines.tokens.encode import tokenizer_info
    from pipelines.tokens.presets import EOS
    from pipelines.tokens.write import write_shards

    plan, encoder = engine.plan, engine.plan.recipe.encoder
    info = tokenizer_info(engine.rundir.tokenizer / "tokenizer.json", encoder.eos if encoder else EOS)
    table = engine.rundir.table(plan.steps[-1]) / f"outcome={KEPT}"
    template = encoder.template if encoder else None
    manifest = write_shards(engine.spark, table, plan.recipe.shards, folder, info, plan.recipe.name, plan.shards, template)
    written = sum(f.rows for f in manifest.files)
    if written != (kept := _kept(engine)):
        raise ledger.LedgerError(f"the shards do not balance: {kept} documents were kept and {written} are in the shards")
    if gone := apply_recorded(engine.rundir.path, folder):
        engine.console.print(f"  shards: {gone} documents of takedowns.json are taken down in them too", highlight=False)


def _kept(engine: Engine) -> int:
    """Documents that the last step kept."""
    last = engine.manifest(-1)
    return sum(e["kept"] for e in last["ledger"] if e["stage"] == last["stages"][-1]) if last else 0


def make_schedule(plan: Plan, rundir: RunDir) -> None:
    """OUT/schedule.json, compiled against the shards that are there. Raises UserError for a plan that cannot be carried out."""
    from pipelines.schedule.packing import layout

    shards = Shards(rundir.shards)
    try:
        wanted, tokens = plan.recipe.schedule, shards.manifest.source_tokens()
        cfg = wanted(tokens) if callable(wanted) else wanted
        schedule = compile_schedule(cfg, tokens, shards.manifest.fingerprint, layout(shards, cfg.phases))
    except ScheduleError as error:
        raise UserError(f"the schedule of recipe {plan.recipe.name!r} cannot be carried out: {error}") from error
    write_schedule(rundir.schedule, schedule)


def _rows_in(folder: Path) -> int:
    return sum(pq.read_metadata(file).num_rows for file in folder.glob("*.parquet"))


def _refuse_broken_stage(entries: list[ledger.Entry]) -> None:
    totals: dict[str, list[int]] = {}
    errors: dict[str, str] = {}
    for entry in entries:
        got, lost = sum(entry["quarantined"].values()), totals.setdefault(entry["stage"], [0, 0])
        lost[0] += entry["in"]
        lost[1] += got
        errors[entry["stage"]] = next(iter(entry["quarantined"]), errors.get(entry["stage"], ""))
    for stage, (rows, lost_rows) in totals.items():
        if stage != "read" and rows >= 10 and lost_rows > QUARANTINE_LIMIT * rows:
            raise UserError(
                f"stage {stage!r} failed on {lost_rows} of {rows} documents ({errors[stage]}); "
                "that is a broken stage, not broken data: mend it, or try its function on one batch without Spark"
            )


def explain(error: BaseException, rundir: RunDir) -> UserError | None:
    """The clear line for an error a user can act on (full disk, no memory, a UserError inside a worker), else None."""
    if isinstance(error, UserError):
        return error
    text = str(error)
    if "No space left on device" in text or "Disk quota exceeded" in text or getattr(error, "errno", None) == 28:
        free = shutil.disk_usage(rundir.path).free if rundir.path.exists() else 0
        return UserError(
            f"the disk of {rundir.path} is full ({free / 2**20:,.0f} MiB free); make room and run the same command again"
        )
    if isinstance(error, PermissionError) or "Permission denied" in text:
        return UserError(f"no permission: {text.splitlines()[0]}; check the rights of the inputs and of {rundir.path}")
    if "OutOfMemoryError" in text or isinstance(error, MemoryError):
        return UserError("out of memory; give Spark more (--conf spark.driver.memory=8g) or use smaller input files")
    for line in text.splitlines():
        if line.startswith("pipelines.errors.UserError: "):
            return UserError(line.removeprefix("pipelines.errors.UserError: "))
    return None
