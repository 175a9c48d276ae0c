import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.extract.child import ExtractError, Extractor, Limits

LIMITS = Limits("resiliparse", "recall", tables=True, comments=False, rescue=0.0, cpu_seconds=5, memory_bytes=4 << 30)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def extractor() -> Iterator[Extractor]:
    one = Extractor(LIMITS)
    yield one
    one.close()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_one_process_serves_many_pages(extractor: Extractor) -> None:
    assert extractor(b"<p>one</p>") == "one"
    assert extractor.process is not None
    first = extractor.process.pid
    assert extractor(b"<p>two</p>") == "two"
    assert extractor.process.pid == first


def test_it_is_replaced_after_its_share_of_pages(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.extract.child.PAGES", 2)
    pids = []
    for _ in range(4):
        extractor(b"<p>x</p>")
        assert extractor.process is not None
        pids.append(extractor.process.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_a_process_killed_between_pages_costs_no_page(extractor: Extractor) -> None:
    extractor(b"<p>x</p>")
    assert extractor.process is not None
    extractor.process.kill()
    extractor.process.wait()
    assert extractor(b"<p>y</p>") == "y"


def test_a_process_killed_at_a_page_is_a_crash_of_that_page(extractor: Extractor) -> None:
    extractor(b"<p>x</p>")
    assert extractor.process is not None
    os.kill(extractor.process.pid, signal.SIGSTOP)  # it takes the page and works on it forever
    killer = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(0.3); os.kill({extractor.process.pid}, 9)"])
    with pytest.raises(ExtractError) as caught:
        extractor(b"<p>y</p>")
    killer.wait()
    assert caught.value.args[0] == "ExtractorCrashed"
    assert extractor(b"<p>z</p>") == "z"


PARENT = """
import sys
from pipelines.extract.child import Extractor, Limits
one = Extractor(Limits("resiliparse", "recall", tables=True, comments=False, rescue=0.0, cpu_seconds=5, memory_bytes=4 << 30))
one(b"<p>x</p>")
print(one.process.pid, flush=True)
sys.stdin.read()
"""


def test_it_ends_with_a_parent_that_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
        assert gone(pid)


FORK = """
import os
from pipelines.extract.child import extractor, Limits
limits = Limits("resiliparse", "recall", tables=True, comments=False, rescue=0.0, cpu_seconds=5, memory_bytes=4 << 30)
assert extractor(limits)(b"<p>x</p>") == "x"
pid = extractor(limits).process.pid
if os.fork() == 0:
    assert extractor(limits)(b"<p>fork</p>") == "fork"
    assert extractor(limits).process.pid != pid
    extractor(limits).close()
    os._exit(0)
assert os.wait()[1] == 0
assert extractor(limits)(b"<p>y</p>") == "y"
assert extractor(limits).process.pid == pid
"""


def test_a_fork_starts_its_own() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, cwd=ROOT, timeout=60)


def test_an_environment_that_cannot_extract_stops_the_run(monkeypatch: pytest.MonkeyPatch, extractor: Extractor) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"does not start \(exit code 1\)"):
        extractor(b"<p>x</p>")
