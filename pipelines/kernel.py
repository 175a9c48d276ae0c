"""`@kernel`: a numba function compiled once a machine, and compiled anew where nothing can be cached; the numbers are the same.

Kernels work on many small arrays, and numba counts references to each at every call, atomically: `borrowed` arrays are not counted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
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
    """Compile `function` on its first call: no Python objects, the interpreter's lock released, the machine code cached on disk.

    The cache lies beside the module, else in the user's cache folder, else in a folder of the user's below the system's temporary
    one (a worker of a cluster may have no home); a worker that can write nowhere compiles in memory. Sums keep their order (no
    fastmath), so every machine gets the same numbers.
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


@intrinsic
def borrowed(typing_context: Any, array: Any) -> Any:
    """In a kernel: the array without its reference count. Whoever called the kernel holds it while the kernel runs."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = make_array(signature.args[0])(context, builder, arguments[0])
        made.meminfo = cgutils.get_null_value(made.meminfo.type)
        made.parent = cgutils.get_null_value(made.parent.type)
        return made._getvalue()

    return array(array), codegen
