"""Programs that attack, and what they get."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.errors import UserError
from trainer.post import sandbox
from trainer.post.confined import filter_program
from trainer.post.sandbox import Limits, run, run_many

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="the filter is Linux's"
)
QUICK = Limits(seconds=1, memory=256 << 20, output=1 << 16)
ADD = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("program", "tests", "passed", "why"),
    [
        (ADD, "assert add(2, 3) == 5", True, ""),
        (ADD, "assert add(2, 3) == 6", False, "failed"),
        ("def add(a, b) return", "assert add(2, 3) == 5", False, "failed"),
        ("", "assert add(2, 3) == 5", False, "failed"),
        ("import math, re, json, random, itertools, collections, datetime, decimal, string, heapq, bisect, functools",
         "assert math.gcd(12, 18) == 6 and random.random() < 1 and json.loads('[1]') == [1]", True, ""),
    ],
)  # fmt: skip
def test_tests_decide(program: str, tests: str, passed: bool, why: str) -> None:
    verdict = run(program, tests, QUICK)
    assert (verdict.passed, verdict.why) == (passed, why), verdict.output


@pytest.mark.parametrize(
    "program",
    ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit", "print('passed')", "import atexit; quit()"],
)
def test_a_program_that_ends_early_has_not_passed(program: str) -> None:
    assert not run(program, "assert False", QUICK).passed


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("while True: pass", "time"),
        ("import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "time"),
        ("import time; time.sleep(100)", "time"),
        ("x = bytearray(1 << 30)", "memory"),
        ("x = []\nwhile True: x.append(' ' * 10_000_000 + str(len(x)))", "memory"),
        ("while True: print('x' * 1000)", "output"),
    ],
)
def test_time_memory_and_output_are_bounded(program: str, why: str) -> None:
    verdict = run(program, "", QUICK)
    assert (verdict.passed, verdict.why) == (False, why)
    assert verdict.seconds < 4
    assert len(verdict.output) <= 2000


# What is tried; the attack has worked if nothing is raised.
ATTACKS = {
    "fork": "import os; os.fork()",
    "fork bomb": "import os\nwhile True: os.fork()",
    "thread": "import threading; threading.Thread(target=print).start()",
    "program": "import subprocess; subprocess.run(['true'], check=True)",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "TCP": "import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
    "UDP": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "local socket": "import socket; socket.socketpair()",
    "write outside": "open({outside!r}, 'w').write('x')",
    "append outside": "open({inside!r}, 'a').write('x')",
    "change in place": "open({inside!r}, 'r+')",
    "truncate": "import os; os.truncate({inside!r}, 0)",
    "remove": "import os; os.remove({inside!r})",
    "rename": "import os; os.rename({inside!r}, {outside!r})",
    "link": "import os; os.link({inside!r}, {outside!r})",
    "folder": "import os; os.mkdir({outside!r})",
    "mode": "import os; os.chmod({inside!r}, 0)",
    "time stamp": "import os; os.utime({inside!r}, (0, 0))",
    "working folder": "open('x', 'w')",
    "signal": "import os, signal; os.kill(os.getppid(), 0)",
    "limits": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))",
    "name space": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "trace": "import ctypes; assert ctypes.CDLL(None).ptrace(16, {pid}, 0, 0) == 0",
    "memory file": "import os; os.memfd_create('x')",
    "io_uring": "import ctypes; assert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(512)) >= 0",
    "32-bit calls": "import ctypes; assert ctypes.CDLL(None).syscall(0x40000000 | 39) > 0",
    "no more filter": "import ctypes; assert ctypes.CDLL(None).prctl(22, 0, 0, 0, 0) == 0",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_and_changes_nothing(attack: str, tmp_path: Path) -> None:
    inside, outside = tmp_path / "mine", tmp_path / "theirs"
    inside.write_text("untouched")
    before = inside.stat()
    program = attack.format(inside=str(inside), outside=str(outside), port=9, pid=os.getpid())
    verdict = run(program, "", QUICK)
    assert not verdict.passed
    assert any(
        word in verdict.output for word in ("not permitted", "not allowed", "can't start new thread", "AssertionError")
    ), verdict.output
    after = inside.stat()
    assert (inside.read_text(), os.listdir(tmp_path), after.st_mode) == ("untouched", ["mine"], before.st_mode)
    assert after.st_mtime_ns == before.st_mtime_ns


def test_the_environment_is_empty_and_nothing_installed_is_found() -> None:
    assert run("import os; assert not set(os.environ) - {'LC_CTYPE'}", "", QUICK).passed
    assert "ModuleNotFoundError" in run("import numpy", "", QUICK).output


def test_programs_are_judged_side_by_side_in_their_order() -> None:
    jobs = [(ADD, f"assert add(1, {i}) == {3 if i == 2 else 0}") for i in range(4)]
    assert [verdict.passed for verdict in run_many(jobs, QUICK, 2)] == [False, False, True, False]


def test_without_the_filter_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "confined.py"
    text = sandbox.CHILD.read_text().replace("import ctypes", "import ctypes, platform; platform.machine = lambda: 'vax'")
    child.write_text(text)
    monkeypatch.setattr(sandbox, "CHILD", child)
    with pytest.raises(UserError, match="code cannot be run here: 'vax'; it takes Linux"):
        run("import os; os.mkdir('made')", "", QUICK)


def test_both_machines_have_a_filter_and_it_fits_in_the_kernel() -> None:
    assert all(len(filter_program(machine)) // 8 < 4096 for machine in ("x86_64", "aarch64"))


def test_the_child_needs_the_standard_library_alone() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", str(sandbox.CHILD)], input=b"{}", capture_output=True, check=False)
    assert b"KeyError" in done.stderr
