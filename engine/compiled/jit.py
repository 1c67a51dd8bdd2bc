"""How kernels are compiled: by Numba where it is installed. Without it they stay the Python functions they are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.compiled import KERNELS, Kernel, available

Function = Callable[..., Any]
Dtypes = frozenset[np.dtype[Any]]
SINGLE: Dtypes = frozenset((np.dtype("f4"),))
FLOATS: Dtypes = frozenset((np.dtype("f4"), np.dtype("f8")))

# Sums may be added up in lanes and products fused with sums, which is what makes loops fast; NaN, infinity and the
# sign of zero stay what they are.
_RELAXED = {"reassoc", "contract"}

log = logging.getLogger("curlgrad.compiled")


def _compiled(function: Function, **options: Any) -> Function:
    """`function`, to be compiled when it is first called with arrays of some dtype."""
    if not available():
        return function
    import numba

    options = {"error_model": "numpy", "nogil": True, **options}
    try:
        made: Function = numba.njit(cache=True, **options)(function)
    except RuntimeError as problem:  # no place that can be written to
        log.warning("%s is compiled anew in each process: %s", function.__name__, problem)
        made = numba.njit(**options)(function)
    return made


def kernel(dtypes: Dtypes, *, exact: bool = False) -> Callable[[Function], Function]:
    """Enters a function into the table of kernels. `exact`: not even sums may be reordered."""

    def enter(function: Function) -> Function:
        made = _compiled(function, fastmath=False if exact else _RELAXED)
        KERNELS[function.__name__] = Kernel(made, dtypes)
        return made

    return enter


def helper(function: Function) -> Function:
    """A function that kernels call: it becomes part of them."""
    return _compiled(function, inline="always", fastmath=_RELAXED)


def exact_helper(function: Function) -> Function:
    """The same for what must not be reordered: roundings that cancel by design."""
    return _compiled(function)
