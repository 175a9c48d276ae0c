"""What a run shows while it goes: trackers, the bar of a terminal, traces on demand."""

import io
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from rich.console import Console

from trainer import log, train
from trainer.log import StepLog
from trainer.profiler import STEPS, Profiler

VALUES = {"phase": "main", "loss": 2.5, "lr": 3e-4, "grad_norm": 0.5, "tokens_per_second": 1.0, "data_wait_s": 0.0}


@pytest.fixture(scope="module")
def run(recipe: str, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps with a tracker and a trace."""
    out = tmp_path_factory.mktemp("shown") / "run"
    settings = ('run.trackers=["tensorboard"]', "run.profile_steps=[2, 3]")
    words = [recipe, "--data", str(shards), "--out", str(out), "--steps", "10"]
    assert train.main([*words, *(word for setting in settings for word in ("--set", setting))]) == 0
    return out


def test_tensorboard_has_all_that_is_measured(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "trackers" / "tiny")).Reload()
    scalars = {"tokens", "loss", "lr", "grad_norm", "tokens_per_second", "data_wait_s", "validation/web", "validation/code"}
    assert scalars | {"probe/next", "probe/needle 32 at 0%"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 11))
    assert {"sample/en/text_summary", "sample/zh/text_summary"} <= set(events.Tags()["tensors"])


def test_a_trace_of_the_steps_that_were_asked_for(run: Path) -> None:
    assert [path.name for path in (run / "profile").iterdir()] == ["step-00000002-rank-0.json"]
    trace = json.loads((run / "profile" / "step-00000002-rank-0.json").read_text())
    names = [event["name"] for event in trace["traceEvents"] if "name" in event]
    assert names.count("aten::embedding") == 2 * 2  # two steps of two micro-batches


def test_a_signal_asks_for_a_trace_of_the_next_steps(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with Profiler(tmp_path, 1, None) as profiler:
        for done in range(8):
            profiler(done)
            torch.ones(2).cumsum(0)
            if done == 2:
                os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is before
    trace = json.loads((tmp_path / "profile" / "step-00000004-rank-1.json").read_text())
    assert [e["name"] for e in trace["traceEvents"] if "name" in e].count("aten::cumsum") == STEPS


def test_an_error_does_not_lose_the_trace(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path, 0, (1, 5))

    def fail() -> None:
        with profiler:
            profiler(0)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (tmp_path / "profile" / "step-00000001-rank-0.json").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paper", "run.trackers: 'paper' is unknown to Accelerate, which knows aim, "),
        ("aim", "'aim' is not installed; here are "),
    ],
)
def test_a_tracker_that_is_not_there_is_told(
    name: str, message: str, recipe: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [recipe, "--data", str(shards), "--out", str(tmp_path / "run"), "--set", f'run.trackers=["{name}"]']
    assert train.main(words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_terminal_gets_a_bar_with_the_line_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(force_terminal=True, file=io.StringIO(), width=150, color_system=None)
    monkeypatch.setattr(log, "Console", lambda: screen)
    with StepLog(Accelerator(cpu=True), tmp_path, 4, 20, 10) as steps:
        steps.step({"step": 7} | VALUES, seconds_left=30.0)
        steps.evaluation(7, {"web": 3.25})
        steps.probes(7, {"needle 16 at 0%": 1.0, "needle 32 at 0%": 0.5, "next": 0.25})
    assert isinstance(screen.file, io.StringIO)
    shown = screen.file.getvalue()
    assert " 7/20 " in shown
    assert "main | loss 2.5000 | lr 3.00e-04" in shown
    assert "step 7 | validation web 3.2500" in shown
    assert "step 7 | right needle 0.75, next 0.25" in shown
