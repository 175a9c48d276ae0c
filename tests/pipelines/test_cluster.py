"""A Spark standalone cluster on this machine, a master and two workers, gives the bytes of local mode; a killed worker too."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pyspark
import pytest

from pipelines.java import ensure_java

ROOT = Path(__file__).parents[2]
SPARK = Path(pyspark.__file__).parent
pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]

RECIPE = """
from pathlib import Path
from pipelines.dedup.exact import ExactConfig, exact_duplicates
from pipelines.dedup.near import NearConfig, near_duplicates
from pipelines.read.jsonl import JsonlConfig, read_jsonl
from pipelines.recipe import Input, Recipe, Stage
from pipelines.tokens.train import TokenizerConfig
from pipelines.tokens.write import ShardConfig

TEXTS = Path(__file__).parent / "texts"


def small():
    return Recipe(
        name="cluster",
        inputs=(Input("web", f"{TEXTS}/*.jsonl", read_jsonl, JsonlConfig()),),
        stages=(Stage(exact_duplicates, ExactConfig()), Stage(near_duplicates, NearConfig())),
        tokenizer=TokenizerConfig(vocab_size=600, sample_bytes=1 << 20),
        shards=ShardConfig(target_bytes=100_000, validation_share=0.1),
    )
"""
# What a worker has loaded, and what becomes of an input that it could not find.
ASKED = """
import sys
from pipelines.errors import UserError
from pipelines.spark import files_frame, session

spark = session(sys.argv[1], settings=dict(s.split("=", 1) for s in sys.argv[2:]))
where = lambda _: (__import__("pipelines").__file__, __import__("classifiers").__file__, sys.executable)
print("loaded", *spark.sparkContext.parallelize([0], 1).map(where).first())
try:
    files_frame(spark, [{"source": "web", "path": "texts/a.jsonl", "bytes": 1}])
except UserError as error:
    print("refused", error)
spark.stop()
"""


def wait_for(what: str, found: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"{what} did not come in {seconds:.0f} s"
        time.sleep(0.02)
    return value


class Cluster:
    """A master and workers of one core each, as processes on free ports; logs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.master, self.workers, self.all = folder, "", list[psutil.Popen](), list[psutil.Popen]()

    def start(self, workers: int = 2) -> None:
        """Master, then workers; returns when they know each other."""
        self._launch("master", "master.Master")
        log = self.folder / "master.log"
        self.master = wait_for("the master", lambda: re.search(r"Starting Spark master at (spark://\S+)", log.read_text()))[1]
        for number in range(workers):
            self.add_worker(number)
        wait_for("a worker", lambda: log.read_text().count("Registering worker") == workers, 120)

    def add_worker(self, number: int) -> None:
        """One more, which registers in its own time."""
        work = self.folder / f"work-{number}"
        room = ["--cores", "1", "--memory", "1g", "--work-dir", str(work), self.master]
        self.workers.append(self._launch(f"worker-{number}", "worker.Worker", *room))

    def executors(self, worker: psutil.Popen) -> list[psutil.Process]:
        """Of a worker, with the Python processes below them; none of one that has ended."""
        return below(worker)

    def stop(self) -> None:
        """End every process, those of the executors too."""
        for process in [*self.all, *(child for parent in self.all for child in below(parent))]:
            kill(process)
        for process in self.all:
            process.wait(30)

    def _launch(self, name: str, kind: str, *arguments: str) -> psutil.Popen:
        ensure_java()
        own = {"SPARK_HOME": str(SPARK), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"}
        own["SPARK_LOCAL_DIRS"] = str(self.folder / "local")
        words = [f"{SPARK}/bin/spark-class", f"org.apache.spark.deploy.{kind}", "--host", "127.0.0.1"]
        words += ["--port", "0", "--webui-port", "0", *arguments]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYSPARK"))} | own
        with (self.folder / f"{name}.log").open("w") as log:
            process = psutil.Popen(words, env=environment, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)
        self.all.append(process)
        return process


def below(process: psutil.Process) -> list[psutil.Process]:
    """The processes that it started, and theirs; none where it has ended, whether or not anybody has waited for it."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:  # a zombie is one too
        return []


def command_of(process: psutil.Process) -> str:
    """What it was started with; nothing where it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return  # it ended when its parent did


def end(running: "subprocess.Popen[bytes]") -> None:
    """Whatever it is at; Spark ends with the process that started it."""
    running.kill()
    running.wait(30)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four files of pieces of real books, some again as they are, more of them with a word put in."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "texts").mkdir()
    books = pq.read_table(ROOT / "examples" / "books.parquet")["text"].to_pylist()
    pieces = [text[start : start + 1500] for text in books for start in range(0, min(len(text), 6000) - 1500, 1500)][:300]
    assert len(pieces) == 300
    rows = [{"url": f"https://site.example/{i}", "text": text} for i, text in enumerate(pieces)]
    for i, text in enumerate(pieces[::3]):
        place = 37 * i % len(text)
        rows.append({"url": f"https://near.example/{i}", "text": f"{text[:place]} changed {text[place:]}"})
    rows += [{"url": f"https://copy.example/{i}", "text": text} for i, text in enumerate(pieces[::7])]
    for number in range(4):
        lines = [json.dumps(row) + "\n" for row in rows[number::4]]
        (folder / "texts" / f"{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "mine.py").write_text(RECIPE, encoding="utf-8")
    return f"{folder}/mine.py:small"


SETTINGS = ["spark.sql.shuffle.partitions=3", "spark.driver.memory=1g", "spark.executor.memory=700m", "spark.ui.enabled=false"]
SETTINGS += ["spark.driver.host=127.0.0.1", "spark.driver.bindAddress=127.0.0.1"]


def start(recipe: str, out: Path, master: str, log: Path) -> "subprocess.Popen[bytes]":
    flags = [word for setting in SETTINGS for word in ("--conf", setting)]
    words = [sys.executable, "-m", "pipelines", "run", recipe, "--out", str(out), "--master", master, *flags]
    with log.open("w") as file:
        return subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)


def run(recipe: str, out: Path, master: str) -> None:
    log = out.with_suffix(".log")
    running = start(recipe, out, master, log)
    try:
        assert running.wait(280) == 0, log.read_text()[-4000:]
    finally:
        end(running)


def table(folder: Path) -> list[tuple[str, str]]:
    """The rows of all Parquet below a folder, each with where it lies, in an order of their own."""
    files = [(f, str(f.parent.relative_to(folder))) for f in folder.rglob("*.parquet")]
    return sorted((place, repr(row)) for file, place in files for row in pq.ParquetFile(file).read().to_pylist())


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "seconds" not in k}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def result(out: Path) -> dict[str, Any]:
    """All that must be the same: bytes of shards and tokenizer, the ledger but for times, tables by their rows."""
    files = [*sorted((out / "shards").rglob("*.*")), out / "tokenizer" / "tokenizer.json"]
    found: dict[str, Any] = {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    found["ledger"] = without_times(json.loads((out / "ledger.json").read_text()))
    for folder in (out / "removed", *sorted(out.glob("[0-9][0-9]-*"))):
        found[folder.name] = table(folder)
    assert not list(out.glob(".tmp-*"))
    return found


@pytest.fixture(scope="module")
def expected(recipe: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What local mode gives."""
    out = tmp_path_factory.mktemp("local") / "out"
    run(recipe, out, "local[2]")
    found = result(out)
    rules = repr(found["removed"])
    assert rules.count("exact_duplicates.content") > 40
    assert rules.count("near_duplicates.jaccard") > 80
    return found


def test_workers_load_the_packages_of_the_driver_and_are_given_no_relative_path(cluster: Cluster) -> None:
    words = [sys.executable, "-c", ASKED, cluster.master, *SETTINGS]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    loaded = re.search(r"loaded (\S+) (\S+) (\S+)", done.stdout)
    assert loaded, done.stdout
    assert "headrace.zip/pipelines" in loaded[1]
    assert "headrace.zip/classifiers" in loaded[2]
    assert loaded[3] == sys.executable
    assert "refused input 'texts/a.jsonl' is a relative path" in done.stdout


def test_a_cluster_gives_the_bytes_of_local_mode(
    cluster: Cluster, recipe: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    run(recipe, tmp_path / "out", cluster.master)
    assert result(tmp_path / "out") == expected


def test_a_worker_killed_in_the_middle_changes_nothing(
    cluster: Cluster, recipe: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    running = start(recipe, out, cluster.master, log)
    try:

        def half_done() -> bool:
            assert running.poll() is None, log.read_text()[-4000:]
            written = out.glob(".tmp-checkpoints-*/*/rdd-*/part-*")  # a table of the step is there, others are to come
            return any(out.glob(".tmp-near_duplicates-*")) and any(written)

        wait_for("the middle of near_duplicates", half_done, 280)
        victim = cluster.workers[0]
        doomed = cluster.executors(victim)
        assert any("CoarseGrainedExecutorBackend" in command_of(p) for p in doomed)
        for process in [victim, *doomed]:
            kill(process)
        assert not list(out.glob("[0-9][0-9]-near_duplicates-*"))
        assert running.wait(250) == 0, log.read_text()[-4000:]
    finally:
        end(running)
    assert re.search(r"Lost executor \d+", log.read_text())
    assert "Removing worker" in (cluster.folder / "master.log").read_text()
    assert result(out) == expected
