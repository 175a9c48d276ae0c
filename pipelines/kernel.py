"""`@kernel`: a numba function compiled once a machine, or anew where nothing can be cached; the numbers are the same.

Kernels work on many small arrays, and numba counts references to each at every call, atomically: not to `borrowed` ones.
"""

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
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

F = TypeVar("F", bound=Callable[..., Any])


def inlined(function: F) -> F:
    """A small function that is copied into each kernel that calls it: groups of arrays are dear to pass a million times."""
    return numba.njit(inline="always", nogil=True)(function)  # type: ignore[no-any-return]


def kernel(function: F) -> F:
    """Compile `function` on its first call: no Python objects, the interpreter's lock released, machine code cached on disk.

    Sums keep their order (no fastmath), so every machine gets the same numbers. The cache lies in the user's cache folder
    (NUMBA_CACHE_DIR, where it is set), else below the system's temporary one, for a worker of a cluster may have no home; a
    worker that can write nowhere compiles in memory.
    """
    before = numba.config.CACHE_DIR
    for folder in _folders():
        numba.config.CACHE_DIR = str(folder)
        try:
            return numba.njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]
        except (RuntimeError, OSError):  # it cannot be written to
            continue
        finally:
            numba.config.CACHE_DIR = before
    return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


def _folders() -> list[Path]:
    """Where the cache may lie. Its name holds a digest of all kernels: numba itself does not see that a kernel is out of date
    when only another one, which is compiled into it, has changed.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    user = Path(os.environ.get("NUMBA_CACHE_DIR") or home / "headrace")
    return [user / _digest(), Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}" / _digest()]


@cache
def _digest() -> str:
    digest = hashlib.sha256()
    for text in _sources(files("pipelines")):
        if b"pipelines.kernel" in text:
            digest.update(text)
    return f"kernels-{digest.hexdigest()[:12]}"


def _sources(folder: Traversable) -> Iterator[bytes]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            yield from _sources(entry)
        elif entry.name.endswith(".py"):
            yield entry.read_bytes()


def _borrowed(typing_context: Any, array: Any) -> Any:
    """In a kernel: the array without its reference count. Whoever called the kernel holds it while the kernel runs."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = make_array(signature.args[0])(context, builder, arguments[0])
        made.meminfo = cgutils.get_null_value(made.meminfo.type)
        made.parent = cgutils.get_null_value(made.parent.type)
        return made._getvalue()

    return array(array), codegen


borrowed: Any = intrinsic(_borrowed)
