"""The process that extracts: `python -m pipelines.extract.child '{...}'`, pages in on stdin, texts out on stdout.

A page that eats its CPU time or the memory, or makes a library crash, ends this process and nothing else; `Extractor` starts
the next one. It ends with its parent: at the latest when the page in work is done or out of time, for then stdin is at its end.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from pipelines.extract.engines import Engine, Favour, engine

READY, TEXT, FAILED = b"R", b"T", b"F"
HEAD = struct.Struct("<cQ")  # kind of message, bytes that follow
PAGES = 20_000  # a process is replaced after this many: libxml2 keeps every tag and attribute name it has seen


class ExtractError(Exception):
    """A page could not be extracted: class and message of its quarantine row."""


@dataclass(frozen=True)
class Limits:
    """What the process runs, and under which limits."""

    engine: Engine
    favour: Favour
    tables: bool
    comments: bool
    rescue: float
    cpu_seconds: int  # of one page
    memory_bytes: int  # address space of the process


class Extractor:
    """A child process and the pipes to it; started at the first page and again after it died. One page at a time."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.pages = limits, 0
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    def __call__(self, html: bytes) -> str:
        """The text of a page. Raises ExtractError where the page was too much for the process or its engine."""
        with self.lock:
            if self.pages >= PAGES or (self.process is not None and self.process.poll() is not None):
                self.close()
            process = self.process or self._start()
            self.pages += 1
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(HEAD.pack(TEXT, len(html)))
                process.stdin.write(html)
                process.stdin.flush()
                kind, answer = _receive(process.stdout)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise ExtractError(*self._cause_of_death()) from None
            if kind == FAILED and answer.startswith(b"MemoryError"):
                self.close()
        if kind == FAILED:
            name, _, message = answer.decode("utf-8", "replace").partition(": ")
            if name == "MemoryError":
                raise ExtractError("MemoryExceeded", f"extraction needs more than {self.limits.memory_bytes} bytes of memory")
            raise ExtractError("ExtractorFailed", f"{self.limits.engine} raised {name}: {message}")
        return answer.decode()

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    _close(pipe)
            self.process.wait()
        self.process, self.pages = None, 0

    def forget(self) -> None:
        """Let go of a process that belongs to the parent of a fork: its pipes must not stay open here."""
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    os.close(pipe.fileno())
        self.process, self.pages, self.lock = None, 0, threading.Lock()

    def _start(self) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join(p or os.getcwd() for p in sys.path)  # Spark adds to sys.path what it ships to a worker
        command = [sys.executable, "-m", "pipelines.extract.child", json.dumps(vars(self.limits))]
        environment = os.environ | {"PYTHONPATH": paths}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdout is not None
        try:
            _receive(self.process.stdout)
        except EOFError:
            code = self.process.wait()
            self.close()
            raise RuntimeError(f"the extraction process does not start (exit code {code}); its error is on stderr") from None
        return self.process

    def _cause_of_death(self) -> tuple[str, str]:
        assert self.process is not None
        code = self.process.wait()
        self.close()
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            if code == -signal.SIGXCPU:
                return "CpuTimeExceeded", f"extraction takes more than {self.limits.cpu_seconds} s of CPU time"
            return "ExtractorCrashed", "the extraction process was killed (SIGKILL: out of memory?)"
        return "ExtractorCrashed", f"the extraction process ended with code {code}"


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:  # what it still held is for a process that is gone
        return


def _receive(pipe: IO[bytes]) -> tuple[bytes, bytes]:
    head = pipe.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    kind, length = HEAD.unpack(head)
    body = pipe.read(length)
    if len(body) < length:
        raise EOFError
    return kind, body


_extractors: dict[Limits, Extractor] = {}


def extractor(limits: Limits) -> Extractor:
    """The process's extractor for these limits."""
    return _extractors.setdefault(limits, Extractor(limits))


def close_all() -> None:
    """End all extraction processes of this process."""
    for one in _extractors.values():
        one.close()
    _extractors.clear()


def _after_fork() -> None:
    for one in _extractors.values():
        one.forget()
    _extractors.clear()


atexit.register(close_all)
os.register_at_fork(after_in_child=_after_fork)


def _send(pipe: IO[bytes], kind: bytes, body: bytes) -> None:
    pipe.write(HEAD.pack(kind, len(body)))
    pipe.write(body)
    pipe.flush()


def _answer(run: Callable[[str], str], html: bytes) -> tuple[bytes, bytes]:
    try:
        return TEXT, run(html.decode("utf-8", "replace")).encode()
    except Exception as error:  # whatever a library raises about a page belongs to that page's row
        return FAILED, f"{type(error).__name__}: {error}".encode("utf-8", "replace")


def serve(limits: dict[str, Any]) -> None:
    """Answer pages until stdin ends."""
    pages, texts = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the texts
    run = engine(limits["engine"], limits["favour"], limits["tables"], limits["comments"], limits["rescue"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end closes stdin
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"], hard))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    _send(texts, READY, b"")
    while True:
        try:
            _, html = _receive(pages)
        except EOFError:
            return
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + limits["cpu_seconds"], hard))
        _send(texts, *_answer(run, html))
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
