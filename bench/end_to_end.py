"""Documents in, clean documents and evidence out: our recipe and datatrove's four stages over the same planted texts."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.compute as pc

from bench.common import EXAMPLES, Row, installed, row, version
from bench.corpus import jsonl
from bench.needs import Constants, constants, tree_bytes
from bench.planted import Planted, read_truth, similarities, write
from pipelines.lookup import tables
from pipelines.rundir import open_run
from pipelines.schema import DROPPED, KEPT

ROOT = EXAMPLES.parent
RECIPE = "bench/dedup_recipe.py:planted"
HEAP = "4g"  # of the JVM, which in local mode is driver and executor in one
THRESHOLD = 0.8  # planted pairs from here on should not both stay
FAR = 0.7  # and a document should not go for one that is less alike
GIB = 2**30
PERIOD = 0.5  # seconds between two looks at the memory


# --- running and watching -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What a command took, with the processes it started. Memory is proportional (PSS), so that shared pages count once."""

    seconds: float
    all: float  # GiB, at the worst moment
    jvm: float  # GiB, of the largest java
    worker: float  # GiB, of the largest other process under the first
    local: int  # bytes below the watched folder, at the worst moment


def measured(command: Sequence[str], log: Path, watched: Path | None = None) -> Usage:
    """Run a command from the root of the repository, and watch it. Raises RuntimeError with the end of its log if it fails."""
    peak = {"all": 0.0, "jvm": 0.0, "worker": 0.0}
    local, looked = 0, 0.0
    start = time.perf_counter()
    with (
        log.open("w", encoding="utf-8") as out,
        subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True) as process,
    ):
        try:
            while process.poll() is None:
                for name, value in _memory(process.pid).items():
                    peak[name] = max(peak[name], value / GIB)
                if watched and time.perf_counter() - looked > 4 * PERIOD:
                    local, looked = max(local, tree_bytes(watched)), time.perf_counter()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PERIOD)
        finally:
            with contextlib.suppress(ProcessLookupError):  # a run that failed may leave workers behind
                os.killpg(process.pid, signal.SIGTERM)
    seconds = time.perf_counter() - start
    if process.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        raise RuntimeError("\n".join([f"{command[:5]} ended with exit code {process.returncode}:", *tail]))
    return Usage(seconds, **peak, local=local)


def _memory(pid: int) -> dict[str, float]:
    """Bytes of all processes, of the largest JVM and of the largest other process under `pid`, now."""
    found = {"all": 0.0, "jvm": 0.0, "worker": 0.0}
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                info = process.memory_full_info()
                size = float(getattr(info, "pss", info.uss))
                found["all"] += size
                if process.pid != pid:
                    kind = "jvm" if process.name().startswith("java") else "worker"
                    found[kind] = max(found[kind], size)
    return found


@dataclass(frozen=True)
class Heap:
    """A JVM's heap as its log of collections tells it, MiB at the worst moment."""

    before: float  # in use when a collection began, garbage included
    after: float  # left by a collection
    live: float | None  # left by a full collection: what is really held; None where there was none


_COLLECTION = re.compile(r"Pause (\w+).* (\d+)M->(\d+)M\(")


def heap(log: Path) -> Heap:
    """The figures of a log written with -Xlog:gc."""
    found = [(m[1], int(m[2]), int(m[3])) for m in map(_COLLECTION.search, log.read_text().splitlines()) if m]
    full = [after for kind, _, after in found if kind == "Full"]
    return Heap(max((f[1] for f in found), default=0), max((f[2] for f in found), default=0), max(full, default=None))


@dataclass(frozen=True)
class Run:
    """A finished run of our recipe."""

    out: Path
    usage: Usage
    heap: Heap
    constants: Constants


def ours(texts: Path, work: Path, documents: int, *, alone: bool = False) -> Run:
    """Our recipe as a user would run it: two cores, HEAP.

    `alone`: the executor in a JVM of its own, and the driver made to collect all its garbage once a second, so that its heap
    shows what a driver holds (local mode has both in one).
    """
    shutil.rmtree(work, ignore_errors=True)
    local, events = work / "local", work / "events"
    for folder in (local, events):
        folder.mkdir(parents=True)
    log = work / "gc.log"
    java = [f"-Xlog:gc:file={log}"]
    conf = {
        "spark.driver.memory": HEAP,
        "spark.local.dir": str(local),
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{events}",
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }
    if alone:
        conf |= {"spark.driver.memory": "1g", "spark.executor.memory": HEAP}
        java += [f"-Dlog4j2.configurationFile={ROOT / 'pipelines' / 'log4j2.properties'}", "-XX:+UseG1GC"]
        java += ["-XX:G1PeriodicGCInterval=1000", "-XX:-G1PeriodicGCInvokesConcurrent"]
    conf["spark.driver.extraJavaOptions"] = " ".join(java)
    out = work / "run"
    command = [sys.executable, "-m", "pipelines", "run", RECIPE, "--out", str(out)]
    command += ["--set", f"planted.paths={texts}/*.jsonl.zst", "--master", "local-cluster[1,2,5120]" if alone else "local[2]"]
    for key, value in conf.items():
        command += ["--conf", f"{key}={value}"]
    usage = measured(command, work / "log", local)
    (written,) = events.iterdir()
    found = constants(written, documents, tree_bytes(texts), usage.local, tree_bytes(out), usage.worker)
    return Run(out, usage, heap(log), found)


def datatrove(texts: Path, work: Path) -> Usage:
    """datatrove's four stages, two workers; what they write is below `work`."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command = [sys.executable, "-m", "bench.dedup_peer", str(texts), str(work), "--workers", "2"]
    return measured(command, work / "log")


# --- quality ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a pipeline did, by the documents' own ids: which it kept, and for which each of the others went."""

    kept: frozenset[str]
    survivor: Mapping[str, str]


def outcome_of_run(out: Path) -> Outcome:
    """The outcome of a run of ours."""
    rundir, plan = open_run(out)
    kept: set[str] = set()
    names: dict[bytes, str] = {}
    gone: dict[str, bytes] = {}
    made = list(tables(rundir, plan))
    for index, (_, table) in enumerate(made):
        wanted = [DROPPED, KEPT] if index == len(made) - 1 else [DROPPED]
        for batch in table.to_batches(
            columns=["doc_id", "record_id", "duplicate_of", "outcome"], filter=pc.field("outcome").isin(wanted)
        ):
            for found in batch.to_pylist():
                names[found["doc_id"]] = found["record_id"]
                if found["outcome"] == KEPT:
                    kept.add(found["record_id"])
                else:
                    gone[found["record_id"]] = found["duplicate_of"]
    return Outcome(frozenset(kept), {name: names[other] for name, other in gone.items()})


def outcome_of_peer(work: Path) -> Outcome:
    """The outcome of datatrove: for a removed document, the one that it kept of the same cluster."""
    kept, stays = set[str](), dict[int, str]()
    for found in _all(work / "kept"):
        kept.add(found[0])
        if found[1] >= 0:
            stays[found[1]] = found[0]
    return Outcome(frozenset(kept), {name: stays[cluster] for name, cluster in _all(work / "removed")})


def _all(folder: Path) -> Iterable[tuple[str, int]]:
    for path in sorted(folder.glob("*.jsonl.zst")):
        for found in jsonl(path):
            # a file without duplicates passes the filter by, without numbers
            yield found["id"], found["metadata"].get("minhash_cluster_id", -1)


@dataclass(frozen=True)
class Quality:
    """An outcome held against the truth."""

    removed: int
    wrong: float  # share of the removed whose exact similarity to the survivor is under FAR
    missed: float  # share of the planted pairs from THRESHOLD on of which both stayed
    exact_left: float  # share of the exact copies that stayed beside an equal text
    far_gone: float  # share of the pairs under FAR of which one went for the other
    unique_gone: float  # share of the documents without planted relatives that went


def quality(corpus: Planted, truth: Sequence[Mapping[str, object]], outcome: Outcome) -> Quality:
    """The figures of an outcome. `truth`: rows of TRUTH (planted.py). Raises ValueError where documents are lost."""
    kept, survivor = outcome.kept, outcome.survivor
    ids = {str(t["id"]) for t in truth}
    if ids != kept | survivor.keys() or kept & survivor.keys():
        raise ValueError(f"of {len(ids)} documents {len(kept)} were kept and {len(survivor)} removed: they do not add up")
    planted = [(str(t["id"]), str(t["parent"]), float(str(t["jaccard"]))) for t in truth if t["parent"] is not None]
    known = {frozenset(p[:2]): p[2] for p in planted}
    unknown = [(a, b) for a, b in survivor.items() if frozenset((a, b)) not in known]
    for start in range(0, len(unknown), 500):  # texts are made again: a few at a time
        some = unknown[start : start + 500]
        values = similarities([corpus.text(a) for a, _ in some], [corpus.text(b) for _, b in some])
        known |= {frozenset(pair): value for pair, value in zip(some, values, strict=True)}
    wrong = sum(known[frozenset(pair)] < FAR for pair in survivor.items())
    near = [p for p in planted if p[2] >= THRESHOLD]
    far = [p for p in planted if p[2] < FAR]
    equal: dict[str, int] = {}  # texts equal to that of a base which stayed, by the base
    copies = [t for t in truth if t["kind"] == "exact"]
    for name in (*(str(t["id"]) for t in copies), *{str(t["parent"]) for t in copies}):
        equal.setdefault(name, int(name in kept))
    left: dict[str, int] = {}
    for t in copies:
        base = str(t["parent"])
        left[base] = left.get(base, equal[base]) + equal[str(t["id"])]
    related = {str(t["group"]) for t in truth if t["parent"] is not None}
    unique = [str(t["id"]) for t in truth if str(t["group"]) not in related]
    return Quality(
        removed=len(survivor),
        wrong=wrong / max(len(survivor), 1),
        missed=sum(a in kept and b in kept for a, b, _ in near) / max(len(near), 1),
        exact_left=sum(max(n - 1, 0) for n in left.values()) / max(len(copies), 1),
        far_gone=sum(survivor.get(a) == b or survivor.get(b) == a for a, b, _ in far) / max(len(far), 1),
        unique_gone=sum(u not in kept for u in unique) / max(len(unique), 1),
    )


# --- rows -------------------------------------------------------------------------------------------------------------------


def end_to_end(data: Path, documents: int, work: Path) -> tuple[list[Row], Run]:
    """Time, memory and quality of both; and our run, whose constants scale."""
    corpus, texts = Planted(data, documents), work / f"planted-{documents}"
    about = write(corpus, texts)
    run = ours(texts / "texts", work / f"ours-{documents}", documents)
    truth = read_truth(texts).to_pylist()
    mine = quality(corpus, truth, outcome_of_run(run.out))
    peer, theirs, name = None, None, None
    if installed("datatrove", "spacy", "orjson"):
        peer, name = datatrove(texts / "texts", work / f"datatrove-{documents}"), version("datatrove")
        theirs = quality(corpus, truth, outcome_of_peer(work / f"datatrove-{documents}"))
    of = f"{documents:,} documents, {about['bytes'] / 1e6:,.0f} MB"
    pairs = sum(t["jaccard"] is not None and t["jaccard"] >= THRESHOLD for t in truth)
    far = sum(t["jaccard"] is not None and t["jaccard"] < FAR for t in truth)
    figures: tuple[tuple[str, str, Usage | Quality, Usage | Quality | None, str], ...] = (
        ("end to end", f"s, {of}", run.usage, peer, "seconds"),
        ("end to end, memory of all processes", "GiB, peak", run.usage, peer, "all"),
        ("end to end, memory of the JVM", "GiB, peak", run.usage, None, "jvm"),
        (f"planted, survivor under {FAR}", f"share of removed ({mine.removed:,})", mine, theirs, "wrong"),
        (f"planted, pairs at {THRESHOLD} of which both stay", f"share of {pairs:,}", mine, theirs, "missed"),
        ("planted, exact copies left", f"share of {about['kinds']['exact']:,}", mine, theirs, "exact_left"),
        (f"planted, pairs under {FAR}, one gone for the other", f"share of {far:,}", mine, theirs, "far_gone"),
        ("planted, documents without relatives that go", "share", mine, theirs, "unique_gone"),
    )
    rows = []
    for label, unit, own, other, field in figures:
        value = None if other is None else float(getattr(other, field))
        rows.append(row(label, unit, float(getattr(own, field)), value, None if value is None else name, "lower"))
    return rows, run


def scale(data: Path, documents: int, work: Path, small: Run) -> tuple[list[Row], Run]:
    """Ours at ten times the documents: time and memory over those of `small`; a driver alone at a tenth of them and at all."""
    many, few = 10 * documents, max(documents // 10, 1)
    for number in (many, few):
        write(Planted(data, number), work / f"planted-{number}")
    run = ours(work / f"planted-{many}" / "texts", work / f"ours-{many}", many)
    driver = {n: ours(work / f"planted-{n}" / "texts", work / f"alone-{n}", n, alone=True) for n in (few, documents)}
    before, unit = f"ours, {documents:,}", f"{many:,} documents"
    rows = [
        row("scale", f"s, {unit}", run.usage.seconds, small.usage.seconds, before, "lower"),
        row("scale, times the seconds", unit, run.usage.seconds / small.usage.seconds, 11.0, "allowed", "lower"),
        row("scale, memory of the JVM", f"GiB, {unit}", run.usage.jvm, small.usage.jvm, before, "lower"),
        row("scale, heap of the JVM after collections", f"MiB, {unit}", run.heap.after, small.heap.after, before, "lower"),
        row("scale, memory of all processes", f"GiB, {unit}", run.usage.all, small.usage.all, before, "lower"),
    ]
    live, live_before = driver[documents].heap.live, driver[few].heap.live
    if live is not None:
        sizes = f"MiB, {documents:,} documents", f"ours, {few:,}"
        rows.append(row("scale, live heap of a driver alone", sizes[0], live, live_before, sizes[1], "lower"))
    return rows, run
