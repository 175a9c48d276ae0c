"""Whole runs, in processes of their own: survival, layouts, errors."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.schedule import Phase, ScheduleConfig, compile_schedule, write_schedule
from pipelines.shards import read_manifest
from trainer import train as trainer_train
from trainer.checkpoint import committed, read_commit
from trainer.config import load_recipe, with_settings
from trainer.data import open_data
from trainer.errors import UserError
from trainer.session import check_sizes


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _steps(run: Path) -> dict[int, tuple[float, float]]:
    """Loss and gradient norm by step; a step that stands twice fails."""
    lines = [line for line in _lines(run / "metrics.jsonl") if "loss" in line]
    result = {line["step"]: (line["loss"], line["grad_norm"]) for line in lines}
    assert [line["step"] for line in lines] == sorted(result)
    return result


def _consumed(run: Path) -> dict[int, list[str]]:
    """Samples by step, the ranks' parts in order of rank."""
    parts = sorted((line["step"], line["rank"], line["samples"]) for path in run.glob("consumed-*") for line in _lines(path))
    result: dict[int, list[str]] = {}
    for step, _, samples in parts:
        result.setdefault(step, []).extend(samples)
    return result


def _validation(run: Path) -> dict[str, float]:
    found: dict[str, float] = [line["validation"] for line in _lines(run / "metrics.jsonl") if "validation" in line][-1]
    return found


def _probes(run: Path) -> dict[int, dict[str, float]]:
    return {line["step"]: line["probes"] for line in _lines(run / "metrics.jsonl") if "probes" in line}


def _error(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a command line run in this process says on standard error."""
    assert trainer_train.main([str(a) for a in arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_run_learns_and_leaves_what_the_report_reads(whole_run: Path) -> None:
    steps = _steps(whole_run)
    assert list(steps) == list(range(1, 21))
    assert steps[20][0] < steps[1][0] - 0.3
    first = _lines(whole_run / "metrics.jsonl")[0]
    assert set(first) == {"step", "tokens", "phase", "loss", "lr", "grad_norm", "tokens_per_second", "data_wait_s"}
    assert (first["tokens"], first["phase"]) == (160, "main")
    assert set(_validation(whole_run)) == {"code", "web"}
    needles = {f"needle {length} at {depth}" for length in (16, 32) for depth in ("0%", "50%")}
    assert {step: set(found) for step, found in _probes(whole_run).items()} == dict.fromkeys((10, 20), needles | {"next"})
    samples = _lines(whole_run / "samples.jsonl")
    assert [(s["lang"], s["prompt"], s["step"]) for s in samples] == [("en", "w5 w6 w7 w8", 20), ("zh", "w9 w14 w19", 20)]
    assert all(len(consumed) == 5 for consumed in _consumed(whole_run).values())


def test_the_same_command_after_the_end_says_so(
    whole_run: Path, recipe: str, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole_run.rglob("*")}
    assert trainer_train.main([recipe, "--data", str(shards), "--out", str(whole_run)]) == 0
    assert "is complete: 20 of 20 steps. loss first" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in whole_run.rglob("*")} == before


def test_killed_between_checkpoints_it_sees_exactly_what_the_unbroken_run_saw(
    whole_run: Path, train: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = train.start(out)
    metrics, deadline = out / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") >= 6) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved = read_commit(committed(out / "checkpoints")[-1]).step
    assert 4 <= saved < 20
    with metrics.open("a") as file:
        file.write('{"step": 99, "lo')  # what a power cut leaves
    done = train.run(out)
    assert done.returncode == 0, done.stderr
    assert f"from step {saved + 1} to 20" in done.stdout
    assert _consumed(out) == _consumed(whole_run)
    assert _steps(out) == _steps(whole_run)  # the same layout: the same bits
    assert (_validation(out), _probes(out)) == (_validation(whole_run), _probes(whole_run))
    assert (out / "samples.jsonl").read_text() == (whole_run / "samples.jsonl").read_text()


def _same_as(whole_run: Path, out: Path) -> None:
    assert {p.name for p in out.glob("consumed-*")} == {"consumed-0.jsonl", "consumed-1.jsonl"}
    assert _consumed(out) == _consumed(whole_run)
    ours, theirs = _steps(out), _steps(whole_run)
    assert list(ours) == list(theirs)
    for step, values in theirs.items():
        assert ours[step] == pytest.approx(values, rel=1e-4), step
    assert _validation(out) == pytest.approx(_validation(whole_run), rel=1e-4)
    assert _probes(out) == _probes(whole_run)


def test_two_ranks_take_the_same_documents_and_one_goes_on(whole_run: Path, train: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for ranks, more in ((2, ("--steps", "10")), (0, ())):
        done = train.run(out, *more, ranks=ranks)
        assert done.returncode == 0, done.stderr
    assert "on 1 x cpu" in done.stdout
    assert "from step 11 to 20" in done.stdout
    _same_as(whole_run, out)


def test_two_ranks_go_on_where_one_was(whole_run: Path, train: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole_run, out)
    shutil.rmtree(out / "checkpoints" / "step-00000020")
    done = train.run(out, ranks=2)
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu" in done.stdout
    assert "from step 17 to 20" in done.stdout
    _same_as(whole_run, out)


def test_half_written_checkpoints_are_not_read(
    whole_run: Path, recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole_run, out)
    folder = out / "checkpoints"
    last = committed(folder)[-1]
    assert last.name == "step-00000020"
    (folder / ".step-00000024.tmp").mkdir()
    shutil.copytree(last, folder / "step-00000028")
    (folder / "step-00000028" / "COMMIT.json").unlink()
    shutil.copytree(last, folder / "step-00000032")
    with next((folder / "step-00000032").glob("*.safetensors")).open("r+b") as file:
        file.truncate(1000)
    assert committed(folder)[-1] == last
    assert trainer_train.main([recipe, "--data", str(shards), "--out", str(out)]) == 0
    assert "is complete: 20 of 20" in capsys.readouterr().out


def test_only_the_newest_checkpoints_stay(whole_run: Path) -> None:
    assert [p.name for p in sorted((whole_run / "checkpoints").iterdir())] == ["step-00000016", "step-00000020"]


def test_what_belongs_to_another_run_is_refused_with_both_values(
    whole_run: Path,
    recipe: str,
    shards: Path,
    make_data: Callable[[Path, int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = read_commit(committed(whole_run / "checkpoints")[-1]).identity
    text = _error(capsys, recipe, "--data", shards, "--out", whole_run, "--set", "seed=1")
    assert f"belongs to config {mine.config}, this run has " in text
    other = make_data(tmp_path / "other", 1)
    assert f"belongs to shards {mine.shards}, this run has " in _error(capsys, recipe, "--data", other, "--out", whole_run)
    text = _error(capsys, recipe, "--data", other, "--schedule", shards.parent / "schedule.json", "--out", tmp_path / "x")
    assert f"compiled for shards {mine.shards}, not " in text
    assert not (tmp_path / "x").exists()
    # Also before the first checkpoint.
    young = tmp_path / "young"
    young.mkdir()
    shutil.copy(whole_run / "config.json", young)
    assert f"{young} belongs to config" in _error(capsys, recipe, "--data", shards, "--out", young, "--set", "seed=1")


def _schedule(shards: Path, path: Path, steps: int) -> Path:
    """`steps` steps in the mixture of the whole run, then two of annealing."""
    manifest = read_manifest(shards)
    phases = (
        Phase("main", steps * 160, 32, 160, {"web": 0.6, "code": 0.4}),
        Phase("annealing", 2 * 160, 32, 160, {"web": 0.2, "code": 0.8}),
    )
    write_schedule(path, compile_schedule(ScheduleConfig(phases), manifest.source_tokens(), manifest.fingerprint))
    return path


def test_a_longer_budget_goes_on_from_the_plateau(
    recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, long = _schedule(shards, tmp_path / "short.json", 14), _schedule(shards, tmp_path / "long.json", 30)

    def run(out: str, *more: object) -> int:
        words = [recipe, "--data", shards, "--out", tmp_path / out, "--set", "run.keep=9", *more]
        return trainer_train.main([str(w) for w in words])

    assert run("grown", "--schedule", short, "--steps", 8) == 0
    assert run("grown", "--schedule", long, "--steps", 20) == 0
    assert run("long", "--schedule", long, "--steps", 20) == 0
    assert _steps(tmp_path / "grown") == _steps(tmp_path / "long")
    assert (tmp_path / "grown" / "consumed-0.jsonl").read_text() == (tmp_path / "long" / "consumed-0.jsonl").read_text()
    # From behind the plateau, or behind annealing, nothing goes on.
    assert run("late", "--schedule", short, "--steps", 14) == 0
    capsys.readouterr()
    assert run("late", "--schedule", long) == 1
    assert "was reached at a learning rate of 0.001, with this schedule it would be 0.01" in capsys.readouterr().err
    assert run("late", "--schedule", short) == 0
    assert run("late", "--schedule", long) == 1
    assert "step-00000016 belongs to schedule " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "model.vocab_size=60"], "the shards use 64 token ids, the model has 60; --set model.vocab_size=64"),
        (["--set", "learning_rate.anneal_phase=end"], "the schedule's phases are main, annealing"),
        (
            ["--set", "precision=fp8", "--set", "model.feed_forward=40"],
            "precision fp8: feed_forward of 40 is not a multiple of 16",
        ),
        (["--data", "nowhere/shards"], "there is no shard folder 'nowhere/shards'"),
        (["--schedule", "nowhere.json"], "there is no schedule 'nowhere.json'"),
        (["--tokenizer", "nowhere.json"], "there is no tokenizer 'nowhere.json'"),
        (["--tokenizer", __file__], "the shards were made with"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], message: str, recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in _error(capsys, recipe, "--data", shards, "--out", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("world", "setting", "message"),
    [
        (6, "parallel.replicas=1", "6 processes, but a step of phase 'main' has 5 samples; start at most 5"),
        (4, "parallel.replicas=3", "4 processes are not 3 replicas of equal size; --set parallel.replicas=1"),
    ],
)
def test_a_number_of_processes_that_does_not_divide_is_told(
    world: int, setting: str, message: str, recipe: str, shards: Path
) -> None:
    cfg = with_settings(load_recipe(recipe), [setting])
    with pytest.raises(UserError, match=message):
        check_sizes(cfg, open_data(shards), world)


def test_a_launched_mistake_is_one_line_too(train: Any, tmp_path: Path) -> None:
    done = train.run(tmp_path / "run", "--set", "model.depth=3", ranks=1)
    assert done.returncode == 1
    assert "error: --set 'model.depth=3': ModelConfig has no field 'depth'" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="ulimit")
def test_a_full_disk_is_one_line_and_leaves_no_checkpoint(train: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = train.run(out, shell="ulimit -f 64")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write checkpoint ")
    assert "File too large; free space or choose another --out" in done.stderr
    assert done.stderr.count("\n") == 1
    assert committed(out / "checkpoints") == []
