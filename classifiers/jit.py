"""`@kernel`: a numba function compiled once a machine; where nothing can be cached, each time, with the same numbers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` on its first call: no Python objects, the interpreter's lock released, the code cached on disk.

    The twin of `pipelines.kernel`, for this package loads nothing of ours. The cache lies beside the module, else in the user's
    cache folder, else below the system's temporary one; a worker that can write nowhere compiles in memory.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # numba found no place that it can write to
        folder = Path(tempfile.gettempdir()) / f"headrace-kernels-{os.getuid()}"
        numba.config.CACHE_DIR = str(folder)
    try:
        return numba.njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]
