"""The run directory: what lies where under OUT, and when a part of it counts as complete.

Everything is written under a temporary name and renamed when its manifest is in place, so a part either is complete or is not
there: a run killed at any point leaves nothing that a later run, or a reader, could take for finished.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.recipe import Recipe, Step

MANIFEST = "manifest.json"
HIDDEN_MANIFEST = "_manifest.json"  # in a folder that is read whole: readers of Parquet pass over names that begin with "_"
BESIDE = "_beside"  # in a step's folder: what its stage found besides the rows (recipe.Table)
QUALITY = "quality.json"  # below BESIDE: how good near-duplicate removal was (dedup/quality/measure.py)


class RunDir:
    """Paths below OUT and the acts that must be atomic."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.plan = self.path / "plan.json"
        self.ledger = self.path / "ledger.json"
        self.removed = self.path / "removed"
        self.quarantine = self.path / "quarantine"
        self.index = self.path / "index"
        self.tokenizer = self.path / "tokenizer"
        self.shards = self.path / "shards"
        self.schedule = self.path / "schedule.json"
        self.report = self.path / "report.html"
        self.training = self.path / "train"

    def claim(self, recipe: Recipe) -> None:
        """Make OUT ours: create it, lock it, refuse another recipe's. Raises UserError."""
        self.lock()
        if self.plan.is_file():
            owner = read_json(self.plan)["recipe"]
            if owner != recipe.name:
                raise UserError(
                    f"{self.path} holds a run of recipe {owner!r}, not {recipe.name!r}; choose another --out, or remove it"
                )
        elif any(not p.name.startswith((".lock", ".tmp-")) for p in self.path.iterdir()):
            raise UserError(f"{self.path} is not empty and holds no run of ours (no plan.json); choose another --out")
        for half_written in self.path.glob(".tmp-*"):
            shutil.rmtree(half_written) if half_written.is_dir() else half_written.unlink()

    def lock(self) -> None:
        """Keep others from writing to OUT until `release`. Raises UserError where another does."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "w")  # noqa: SIM115 (held until the process ends)
        except OSError as error:
            raise UserError(f"cannot write to --out {self.path}: {error.strerror}; choose a folder you may write to") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise UserError(f"another run is writing to {self.path}; wait for it, or choose another --out") from None

    def release(self) -> None:
        """Give the lock back; a process that ends does so too."""
        self._lock.close()

    def table(self, step: Step) -> Path:
        """The folder of a step's table."""
        return self.path / step.directory

    def beside(self, folder: Path, name: str) -> Path | None:
        """A table that the stage of a step put beside its rows; None where it has none of this name."""
        table = folder / BESIDE / name
        return table if table.is_dir() else None

    def manifest(self, folder: Path, fingerprint: str, name: str = MANIFEST) -> dict[str, Any] | None:
        """A part's manifest if the part is complete and of this fingerprint, else None."""
        file = folder / name
        if not file.is_file():
            return None
        manifest: dict[str, Any] = read_json(file)
        return manifest if manifest.get("recipe_fingerprint") == fingerprint else None

    def begin(self, name: str) -> Path:
        """A fresh temporary folder below OUT for a part to be published by `publish`."""
        return Path(tempfile.mkdtemp(prefix=f".tmp-{name}-", dir=self.path))

    def publish(self, temporary: Path, folder: Path) -> None:
        """Move a whole part, its manifest written, to its place in one rename."""
        os.chmod(temporary, 0o755)  # mkdtemp's 0700 would hide the part from other users of a cluster
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)


def read_json(path: Path) -> Any:
    """A JSON file. Raises UserError where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; remove it and run again") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either the old or the new one, never half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".tmp-{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def open_run(path: str | Path) -> tuple[RunDir, dict[str, Any]]:
    """An existing run and its plan. Raises UserError if there is none."""
    rundir = RunDir(path)
    if not rundir.plan.is_file():
        raise UserError(f"{path} holds no run (no plan.json); make one with `python -m pipelines run RECIPE --out {path}`")
    return rundir, read_json(rundir.plan)
