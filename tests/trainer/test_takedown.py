"""Shards that lost documents, and shards that are damaged: a run goes on with the former and does not begin with the latter."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import trainer.train as trainer_train
from pipelines.schedule import read_schedule, write_schedule
from pipelines.shards import Shards, read_manifest
from pipelines.shards.tombstones import TOMBSTONES, publish_tombstones
from trainer.checkpoint import committed, read_commit

FILE = "web/train-00000.arrow"


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    """The shards with all that lies beside them, to change."""
    shutil.copytree(shards.parent, tmp_path / "out")
    return tmp_path / "out" / "shards"


def bury(root: Path, rows: range, schedule_too: bool = True) -> None:
    """Take documents of the web down, as `python -m pipelines takedown` does."""
    stream = Shards(root).stream("web")
    starts, lengths = (array.tolist() for array in stream.places(FILE, rows))
    added = [("web", "train", s, n, bytes([r] * 16), FILE, r, "test") for s, n, r in zip(starts, lengths, rows, strict=True)]
    table = pa.table(dict(zip(TOMBSTONES.names, zip(*added, strict=True), strict=True)), TOMBSTONES)
    manifest = publish_tombstones(root, read_manifest(root), table)
    if schedule_too:
        schedule = read_schedule(root.parent / "schedule.json", *manifest.lineage)
        schedule.shards_fingerprint = manifest.fingerprint
        write_schedule(root.parent / "schedule.json", schedule)


def error_of(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line that the command line says on standard error."""
    assert trainer_train.main([str(word) for word in words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("schedule_too", [True, False], ids=["whole", "killed before its schedule"])
def test_a_run_goes_on_after_takedowns_with_the_same_samples(
    whole_run: Path, train: Any, copy: Path, recipe: str, shards: Path, capsys: pytest.CaptureFixture[str], schedule_too: bool
) -> None:
    out = copy.parent / "run"
    shutil.copytree(whole_run, out)
    shutil.rmtree(out / "checkpoints" / "step-00000020")
    before = read_manifest(copy)
    bury(copy, range(3), schedule_too)
    bury(copy, range(20, 24), schedule_too)
    now = read_manifest(copy).fingerprint
    done = train.run(out, "--data", str(copy))  # the last --data counts
    assert done.returncode == 0, done.stderr
    assert "from step 17 to 20" in done.stdout
    assert "7 documents of the shards were taken down since step 16 was saved" in done.stdout
    assert f"shards {before.fingerprint[:12]} are now {now[:12]}" in done.stdout
    assert read_commit(committed(out / "checkpoints")[-1]).identity.shards == now[:12]
    for name in ("consumed-0.jsonl", "samples.jsonl"):
        steps = [[json.loads(line)["step"] for line in (run / name).read_text().splitlines()] for run in (out, whole_run)]
        assert steps[0] == steps[1]
    assert (out / "consumed-0.jsonl").read_text() == (whole_run / "consumed-0.jsonl").read_text()  # no sample has moved
    message = error_of(capsys, recipe, "--data", shards, "--out", out)
    assert f"belongs to shards {now[:12]}, this run has {before.fingerprint[:12]}" in message


def replaced(old: str, new: str) -> Callable[[Path], object]:
    """An edit of the manifest."""

    def change(root: Path) -> None:
        text = (root / "manifest.json").read_text()
        assert old in text
        (root / "manifest.json").write_text(text.replace(old, new))

    return change


def flipped(root: Path) -> None:
    data = bytearray((root / FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (root / FILE).write_bytes(data)


def buried(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """A change of the tombstones after a takedown."""

    def both(root: Path) -> None:
        bury(root, range(2))
        change(root / read_manifest(root).takedowns[-1].path)

    return both


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("another tokenizer", lambda root: (root / "../tokenizer/tokenizer.json").write_text("{}"), "the shards were made with"),
    ("cut short", lambda root: (root / FILE).write_bytes((root / FILE).read_bytes()[:-100]), "cannot be read as Arrow IPC"),
    ("a flipped byte", flipped, "sha256 is"),
    ("a missing source", lambda root: shutil.rmtree(root / "web"), "cannot be read as Arrow IPC"),
    ("an edited manifest", replaced('"vocab_size": 64', '"vocab_size": 65'), "was changed after it was written"),
    ("another version", replaced('"version": 2', '"version": 1'), "has format version 1, this program reads 2"),
    ("no manifest", lambda root: (root / "manifest.json").unlink(), "holds no complete shards"),
    ("edited tombstones", buried(lambda path: path.write_bytes(path.read_bytes() + b" ")), "was changed after it was written"),
    ("missing tombstones", buried(lambda path: path.unlink()), "is missing: the documents that it takes down"),
    ("another schedule", lambda root: (root / "../schedule.json").write_text("{}"), "this is no schedule"),
]


@pytest.mark.parametrize(("damage", "message"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
def test_damaged_shards_are_one_clear_line_before_the_first_step(
    copy: Path, recipe: str, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], message: str
) -> None:
    damage(copy)
    assert message in error_of(capsys, recipe, "--data", copy, "--out", copy.parent / "run")
    assert not (copy.parent / "run").exists()
