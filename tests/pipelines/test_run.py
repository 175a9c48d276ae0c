"""Whole runs as a user starts them: the balance, the same bytes, survival, bad input, and errors that say what to do."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.recipe import load_recipe
from pipelines.rundir import RunDir

ROOT = Path(__file__).parents[2]
SMALL = f"{ROOT}/tests/recipes/small.py:small"
pytestmark = [pytest.mark.spark, pytest.mark.slow]


def members(file: Path, count: int) -> list[bytes]:
    """The first gzip members (a record each) of a WARC file, packed as they are."""
    data, found = file.read_bytes(), []
    while data and len(found) < count:
        inflate = zlib.decompressobj(31)
        inflate.decompress(data)
        end = len(data) - len(inflate.unused_data)
        found.append(data[:end])
        data = data[end:]
    return found


@pytest.fixture(scope="module")
def records() -> list[list[bytes]]:
    """About 60 records of each of three files of examples/crawl, and some duplicates with what they are duplicates of."""
    with gzip.open(ROOT / "examples" / "expected.jsonl.gz") as file:
        expected = [json.loads(line) for line in file]
    groups = list(dict.fromkeys(e["dup_group"] for e in expected if e["kind"] in ("exact_dup", "near_dup")))[:12]
    wanted = {e["record_id"].encode() for e in expected if e.get("dup_group") in groups}
    chosen = []
    for path in sorted((ROOT / "examples" / "crawl").glob("*.warc.gz"))[:3]:
        every = members(path, 400)
        chosen.append(every[:60] + [m for m in every[60:] if any(w in gzip.decompress(m)[:1000] for w in wanted)])
    return chosen


@pytest.fixture(scope="module")
def code() -> list[bytes]:
    """Lines of examples/code.jsonl.gz."""
    with gzip.open(ROOT / "examples" / "code.jsonl.gz") as file:
        return [next(file) for _ in range(60)]


def write_inputs(folder: Path, crawl: dict[str, list[bytes]], code: dict[str, list[bytes]]) -> Path:
    for name, parts in crawl.items():
        target = folder / "crawl" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"".join(parts))
    for name, lines in code.items():
        target = folder / "code" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"".join(lines))
    return folder


def command(out: Path, inputs: Path | None, *flags: str, recipe: str = SMALL) -> list[str]:
    paths = ["--set", f"web.paths={inputs}/crawl", "--set", f"code.paths={inputs}/code"] if inputs else []
    return [sys.executable, "-m", "pipelines", "run", recipe, "--out", str(out), *paths, *flags]


def run(out: Path, inputs: Path | None, *flags: str, recipe: str = SMALL, code: int = 0) -> str:
    arguments = command(out, inputs, *flags, recipe=recipe)
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def bytes_of(out: Path) -> dict[str, str]:
    """SHA-256 of everything a trainer reads."""
    files = [*(out / "shards").rglob("*.arrow"), out / "tokenizer" / "tokenizer.json", out / "schedule.json"]
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def read_parquet(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.ParquetFile(f).read() for f in sorted(folder.glob("*.parquet")))


def rows(folder: Path, outcome: str) -> list[dict[str, Any]]:
    part = folder / f"outcome={outcome}"
    return read_parquet(part).to_pylist() if part.is_dir() else []


def tables(out: Path) -> list[Path]:
    return [out / step["directory"] for step in json.loads((out / "plan.json").read_text())["steps"]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, records: list[list[bytes]], code: list[bytes]) -> Path:
    a, b, c = records
    folder = tmp_path_factory.mktemp("inputs")
    return write_inputs(folder, {"a.warc.gz": a, "b.warc.gz": b, "c.warc.gz": c}, {"code.jsonl": code})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Path:
    """An unbroken run on local[2] with 3 shuffle partitions."""
    out = tmp_path_factory.mktemp("reference") / "out"
    run(out, inputs, "--master", "local[2]", "--conf", "spark.sql.shuffle.partitions=3")
    return out


def test_every_stage_and_file_balances(reference: Path, records: list[list[bytes]]) -> None:
    ledger = json.loads((reference / "ledger.json").read_text())
    assert ledger["balanced"] is True
    for stage in ledger["stages"]:
        for entry in stage["files"]:
            gone = sum(entry["dropped"].values()) + sum(entry["quarantined"].values())
            assert entry["in"] == entry["kept"] + gone, (stage["stage"], entry)
    read = {Path(e["file"]).name: e["in"] for e in ledger["stages"][0]["files"]}
    assert read == {**{f"{name}.warc.gz": len(part) for name, part in zip("abc", records, strict=True)}, "code.jsonl": 60}
    for earlier, later in zip(ledger["stages"], ledger["stages"][1:], strict=False):
        assert earlier["kept"] == later["in"]


def test_every_dropped_row_is_in_removed_with_rule_value_and_bound(reference: Path) -> None:
    removed = pq.read_table(reference / "removed")
    dropped = [r for t in tables(reference) for r in rows(t, "dropped")]
    ledger = json.loads((reference / "ledger.json").read_text())
    assert removed.num_rows == len(dropped) == sum(n for s in ledger["stages"] for n in s["dropped"].values())
    assert {(r["doc_id"], r["rule"], r["stage"]) for r in removed.to_pylist()} == {
        (r["doc_id"], r["drop_rule"], r["stage"]) for r in dropped
    }
    measured = [r for r in dropped if r["drop_rule"].startswith(("gopher", "fineweb", "c4", "near_duplicates"))]
    assert measured
    assert all(r["drop_value"] is not None and r["drop_bound"] is not None for r in measured)


def test_every_duplicate_names_a_survivor_that_its_stage_kept(reference: Path) -> None:
    found = 0
    for table in tables(reference):
        kept = {r["doc_id"] for r in rows(table, "kept")}
        for row in rows(table, "dropped"):
            if "duplicates" in row["drop_rule"]:
                found += 1
                assert row["duplicate_of"] in kept
    assert found >= 3


def test_the_same_bytes_for_any_partitioning_executors_and_file_names(
    reference: Path, tmp_path: Path, records: list[list[bytes]], code: list[bytes]
) -> None:
    a, b, c = records
    whole, half = [*c, *a[:45]], a[45:]
    moved = write_inputs(
        tmp_path, {"0.warc.gz": b, "1.warc.gz": whole, "9.warc.gz": half}, {"x.jsonl": code[40:], "y.jsonl": code[:40]}
    )
    run(tmp_path / "out", moved, "--master", "local[1]", "--conf", "spark.sql.shuffle.partitions=13")
    assert bytes_of(tmp_path / "out") == bytes_of(reference)


def test_killed_at_several_points_the_same_command_ends_with_the_same_bytes(
    reference: Path, tmp_path: Path, inputs: Path
) -> None:
    out = tmp_path / "out"
    finished: dict[Path, int] = {}
    for point in ("extract", "near_duplicates", "tokenizer", "shards"):
        process = subprocess.Popen(command(out, inputs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 240
        while not list(out.glob(f".tmp-{point}-*")):
            assert process.poll() is None, f"the run ended before it came to {point}"
            assert time.monotonic() < deadline, f"the run never came to {point}"
            time.sleep(0.02)
        time.sleep(0.3)  # let it write a part of it
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for manifest, written in finished.items():
            assert manifest.stat().st_mtime_ns == written, f"{manifest} was made again"
        finished = {m: m.stat().st_mtime_ns for m in out.glob("*/manifest.json")}
    printed = run(out, inputs)
    assert printed.count("complete, skipped") >= 4
    assert bytes_of(out) == bytes_of(reference)
    assert not list(out.glob(".tmp-*"))


def test_a_finished_run_is_skipped_without_starting_spark(reference: Path, inputs: Path) -> None:
    started = time.monotonic()
    printed = run(reference, inputs, "--conf", "spark.sql.shuffle.partitions=3")
    assert "starting Spark" not in printed
    assert time.monotonic() - started < 20


def test_a_changed_rule_keeps_what_comes_before_it(reference: Path, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(reference, out)
    printed = run(out, inputs, "--dry-run", "--set", "decide.gopher_quality.min_words=60")
    states = [line for line in printed.splitlines() if "extract" in line or "decide" in line or "near_duplicates" in line]
    assert ["complete" in line for line in states] == [True, False, False]


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_survived_and_accounted_for(tmp_path: Path, records: list[list[bytes]], code: list[bytes]) -> None:
    a, b, c = records
    damaged = bytearray(b[5])
    damaged[len(damaged) // 2] ^= 0xFF
    crawl = {
        "good.warc.gz": a[:40],
        "rot.warc.gz": [*b[:5], bytes(damaged), *b[6:40]],
        "cut.warc.gz": [*c[:39], c[39][: len(c[39]) // 2]],
        "empty.warc.gz": [b""],
        "not-a-warc.warc.gz": [b"<html>no archive</html>"],
    }
    inputs = write_inputs(
        tmp_path, crawl, {"code.jsonl": [*code[:20], b'{"text": "cut here\n', b'{"text": 5}\n', *code[20:40]]}
    )
    out = tmp_path / "out"
    run(out, inputs)
    ledger = json.loads((out / "ledger.json").read_text())
    read = {Path(e["file"]).name: e for e in ledger["stages"][0]["files"]}
    assert {name: sum(e["quarantined"].values()) for name, e in read.items()} == {
        "good.warc.gz": 0,
        "rot.warc.gz": 1,
        "cut.warc.gz": 1,
        "empty.warc.gz": 0,
        "not-a-warc.warc.gz": 1,
        "code.jsonl": 2,
    }
    assert read["rot.warc.gz"]["in"] == 40
    assert read["code.jsonl"]["in"] == 42
    quarantined = pq.read_table(out / "quarantine").to_pylist()
    by_file = {Path(q["file"]).name: q for q in quarantined}
    assert by_file["rot.warc.gz"]["offset"] == sum(map(len, b[:5]))
    assert by_file["cut.warc.gz"]["offset"] == sum(map(len, c[:39]))
    assert all(q["error_class"] and q["error_message"] for q in quarantined)


def test_a_parquet_file_with_a_wrong_column_type_is_quarantined_and_the_others_are_read(tmp_path: Path) -> None:
    good = pa.table({"id": ["1", "2"], "text": ["one text", "another text"]})
    inputs = tmp_path / "in"
    inputs.mkdir()
    pq.write_table(good, inputs / "good.parquet")
    pq.write_table(pa.table({"id": [1], "text": [2.5]}), inputs / "wrong.parquet")
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from pipelines.read.parquet import ParquetConfig, read_parquet\n"
        "from pipelines.recipe import Input, Recipe\n"
        "def books():\n"
        f"    return Recipe('books', (Input('books', {str(inputs)!r}, read_parquet, ParquetConfig()),), ())\n"
    )
    run(tmp_path / "out", None, recipe=f"{recipe}:books")
    (read,) = json.loads((tmp_path / "out" / "ledger.json").read_text())["stages"]
    assert {Path(e["file"]).name: (e["kept"], sum(e["quarantined"].values())) for e in read["files"]} == {
        "good.parquet": (2, 0),
        "wrong.parquet": (0, 1),
    }


def one_line_error(printed: str) -> str:
    assert "Traceback" not in printed
    assert "\tat " not in printed  # a JVM's stack trace
    (line,) = [p for p in printed.splitlines() if p.startswith("error: ")]
    return line


def test_a_missing_input_is_one_clear_line(tmp_path: Path, inputs: Path) -> None:
    assert "/nowhere" in one_line_error(run(tmp_path / "out", inputs, "--set", "web.paths=/nowhere/*.warc.gz", code=1))


def test_an_output_that_cannot_be_written_is_one_clear_line(tmp_path: Path, inputs: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    printed = run(tmp_path / "file" / "out", inputs, code=1)
    assert "cannot write to --out" in one_line_error(printed)


def test_an_output_of_another_recipe_is_refused(reference: Path, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "plan.json").write_text(json.dumps({"recipe": "web"}))
    assert "holds a run of recipe 'web', not 'small'" in one_line_error(run(out, inputs, code=1))


def test_a_folder_of_someone_else_is_not_written_to(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    assert "is not empty" in one_line_error(run(out, inputs, code=1))
    assert [p.name for p in out.iterdir() if p.name != ".lock"] == ["thesis.txt"]


def test_killed_before_its_plan_stood_the_folder_is_still_ours(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".tmp-plan.json-half").write_text('{"recipe": "sm')
    rundir = RunDir(out)
    rundir.claim(load_recipe(SMALL))
    rundir.release()
    assert not list(out.glob(".tmp-*"))


def test_shards_that_were_edited_are_one_clear_line(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(reference, out)
    manifest = out / "shards" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"vocab_size": 1000', '"vocab_size": 9'))
    done = subprocess.run([sys.executable, "-m", "pipelines", "report", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "was changed after it was written" in one_line_error(done.stdout + done.stderr)


CAN_MOUNT = (
    shutil.which("unshare")
    and not subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
)


@pytest.mark.skipif(not CAN_MOUNT, reason="needs Linux user namespaces (unshare -rm) to mount a small disk")
def test_a_full_disk_is_one_clear_line_and_the_same_command_goes_on(tmp_path: Path, inputs: Path, reference: Path) -> None:
    """OUT on a disk of 1 MiB, which is then given room: as a user would do it."""
    out = tmp_path / "disk" / "out"
    out.parent.mkdir()
    first = " ".join(command(out, inputs))
    script = (
        f"mount -t tmpfs -o size=1m none {out.parent}; {first}; echo code $?; "
        f"mount -o remount,size=500m {out.parent}; {first} && cp -r {out} {tmp_path}/copy"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=280)
    assert "code 1" in done.stdout
    assert "is full" in one_line_error(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr[-2000:]
    assert bytes_of(tmp_path / "copy") == bytes_of(reference)


@pytest.mark.skipif(not CAN_MOUNT, reason="needs Linux user namespaces (unshare -rm) to mount a small disk")
def test_a_disk_too_small_for_the_plan_is_one_clear_line(tmp_path: Path, inputs: Path) -> None:
    script = f"mount -t tmpfs -o size=8k none {tmp_path}; {' '.join(command(tmp_path / 'out', inputs))}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "is full" in one_line_error(done.stdout + done.stderr)
