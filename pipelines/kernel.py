"""`@kernel` (classifiers/jit.py: the package that imports nothing of ours has it), and what kernels here need besides.

Kernels work on many small arrays, and numba counts references to each at every call, atomically: not to `borrowed` ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from classifiers.jit import kernel

__all__ = ["borrowed", "inlined", "kernel"]

F = TypeVar("F", bound=Callable[..., Any])


def inlined(function: F) -> F:
    """A small function that is copied into each kernel that calls it: groups of arrays are dear to pass a million times."""
    return numba.njit(inline="always", nogil=True)(function)  # type: ignore[no-any-return]


def _borrowed(typing_context: Any, array: Any) -> Any:
    """In a kernel: the array without its reference count. Whoever called the kernel holds it while the kernel runs."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = make_array(signature.args[0])(context, builder, arguments[0])
        made.meminfo = cgutils.get_null_value(made.meminfo.type)
        made.parent = cgutils.get_null_value(made.parent.type)
        return made._getvalue()

    return array(array), codegen


borrowed: Any = intrinsic(_borrowed)
