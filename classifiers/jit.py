"""`@kernel`: a numba function compiled once a machine, or anew where nothing can be cached; the numbers are the same."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import _CacheLocator

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` on its first call: no Python objects, the interpreter's lock released, machine code cached on disk.

    Sums keep their order (no fastmath), so every machine gets the same numbers. The cache lies in the user's cache folder
    (NUMBA_CACHE_DIR, where it is set), else below the system's temporary one, for a worker of a cluster may have no home; a
    worker that can write nowhere compiles in memory.
    """
    before = numba.config.CACHE_LOCATOR_CLASSES
    numba.config.CACHE_LOCATOR_CLASSES = f"{__name__}.KernelCache"
    try:
        return numba.njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # there is no folder to write to
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]
    finally:
        numba.config.CACHE_LOCATOR_CLASSES = before


class KernelCache(_CacheLocator):  # type: ignore[misc]
    """Where numba keeps a kernel: in a folder named after a digest of all kernels of its package.

    numba by itself does not see that a kernel is out of date when only another one, which is compiled into it, has changed, and
    keeps nothing of a package in a zip, as a wheel is on a cluster.
    """

    def __init__(self, folder: Path, function: Any) -> None:
        """The cache of a function in a folder."""
        package = function.__module__.partition(".")[0]
        self._digest, self._line = _digest(package), function.__code__.co_firstlineno
        self._folder = folder / f"{package}-{self._digest}" / function.__module__

    @classmethod
    def from_function(cls, function: Any, file: str) -> KernelCache | None:
        """The first folder that can be written to; None where there is none."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        user = Path(os.environ.get("NUMBA_CACHE_DIR") or home / "headrace")
        for folder in (user, Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}"):
            made = cls(folder, function)
            try:
                made.ensure_cache_path()
            except OSError:
                continue
            return made
        return None

    def get_cache_path(self) -> str:
        """The folder."""
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """The same for all: another source has another folder."""
        return self._digest

    def get_disambiguator(self) -> str:
        """Tells functions of one name in one module apart."""
        return str(self._line)


@cache
def _digest(package: str) -> str:
    digest = hashlib.sha256()
    for text in _sources(files(package)):
        if b"@kernel" in text or b"@inlined" in text:
            digest.update(text)
    return digest.hexdigest()[:12]


def _sources(folder: Traversable) -> Iterator[bytes]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            yield from _sources(entry)
        elif entry.name.endswith(".py"):
            yield entry.read_bytes()
