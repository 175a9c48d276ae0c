"""Debian packages as a source of text: fetched by apt-get, held against their SHA-256, unpacked."""

from __future__ import annotations

import csv
import hashlib
import subprocess
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from classifiers.errors import DataError


@dataclass(frozen=True)
class Package:
    """A row of packages.tsv."""

    name: str
    version: str
    sha256: str
    licence: str
    what: str


def packages() -> tuple[Package, ...]:
    """All rows of packages.tsv."""
    text = files("classifiers.data").joinpath("packages.tsv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(Package(*row) for row in csv.reader(lines, delimiter="\t"))


def fetch(cache: Path) -> dict[str, Path]:
    """The folder of each package, unpacked below `cache`; what is there already is not fetched again. Raises DataError.

    A version that the mirrors have let go stands in https://snapshot.debian.org; put the .deb into `cache` by hand then.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = {}
    for package in packages():
        file = cache / f"{package.name}_{package.version.replace(':', '%3a')}_all.deb"
        if not file.is_file():
            command = ["apt-get", "download", "-qq", f"{package.name}={package.version}"]
            _run(command, cache, f"{package.name} {package.version} cannot be fetched; put {file.name} into {str(cache)!r}")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest != package.sha256:
            raise DataError(f"{str(file)!r} has SHA-256 {digest[:12]}, packages.tsv says {package.sha256[:12]}; fetch it again")
        found[package.name] = cache / package.name
        if not found[package.name].is_dir():
            _run(["dpkg-deb", "-x", file.name, package.name], cache, f"{file.name} cannot be unpacked")
    return found


def _run(command: list[str], folder: Path, failed: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    except FileNotFoundError as error:
        raise DataError(
            f"{failed}: {command[0]} is not here; the sources are Debian packages, run this on Debian 12"
        ) from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise DataError(f"{failed} ({' '.join(last)})") from error
