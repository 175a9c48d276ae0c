"""Run a program that nobody has read, with its tests, in a process that can do next to nothing: did they pass?

The child is an isolated interpreter (`-I -S -B`, an empty environment, a temporary working directory) that gives up, by a
seccomp filter that it cannot take back, every system call but those to read files, compute, wait and end. So it has no
network, starts no process and no thread, signals nobody and changes no file; what it prints goes into a file of bounded size.
CPU time, memory and output are bounded by resource limits, its life by the clock of the parent.

What it is not: a virtual machine. The program reads what the user who trains may read (it has nowhere to send it but its
output, of which only the end is kept), shares the kernel with us, and could use a hole in it. It runs in the interpreter of
its tests, so one that hunts for the word that says "passed" through the interpreter's frames can say it. For code of an enemy,
not of a model, start it in a virtual machine. Linux on x86_64 and aarch64 alone: elsewhere it refuses, and never runs the
program without the filter.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import UserError

CHILD = Path(__file__).with_name("confined.py")
TAIL = 2000  # bytes of the output that are kept


@dataclass(frozen=True)
class Limits:
    """`seconds` of CPU, and twice as many of the clock; bytes of address space, and of output."""

    seconds: int = 5
    memory: int = 512 << 20
    output: int = 1 << 20


@dataclass(frozen=True)
class Verdict:
    """`passed`: program and tests ran to their end. `why` not: "failed", "time", "memory", "output" or the signal's name."""

    passed: bool
    why: str
    output: str  # the end of it
    seconds: float


def run(program: str, tests: str, limits: Limits = Limits()) -> Verdict:
    """Run a Python program, then its tests in the same name space. Raises UserError where the child cannot be confined."""
    word = secrets.token_hex(16)
    job = {"program": program, "tests": tests, "word": word, **vars(limits)}
    command = [sys.executable, "-I", "-S", "-B", str(CHILD)]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=folder, env={}, start_new_session=True
        ) as child:
            try:
                child.communicate(json.dumps(job).encode(), timeout=2 * limits.seconds)
            except subprocess.TimeoutExpired:
                child.kill()
        seconds = time.perf_counter() - began
        size = output.seek(0, 2)
        output.seek(max(0, size - TAIL))
        said = output.read().decode(errors="replace")
    if said.startswith(f"unconfined {word}"):
        raise UserError(
            f"code cannot be run here: {said[len(word) + 12 :]}; it takes Linux on x86_64 or aarch64 with seccomp, leave code "
            "rewards out elsewhere"
        )
    passed = child.returncode == 0 and said.endswith(word)
    why = "" if passed else "output" if size >= limits.output else _why(child.returncode, said)
    return Verdict(passed, why, said.removesuffix(word).rstrip(), seconds)


def run_many(jobs: Sequence[tuple[str, str]], limits: Limits = Limits(), workers: int = 8) -> list[Verdict]:
    """The verdicts of (program, tests), in their order, `workers` at a time."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda job: run(job[0], job[1], limits), jobs))


def _why(code: int, said: str) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "time"
    return signal.Signals(-code).name if code < 0 else "memory" if "MemoryError" in said else "failed"
