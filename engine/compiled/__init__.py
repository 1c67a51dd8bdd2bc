"""Kernels compiled by Numba, an optional extra: `pip install curlgrad[compiled]`.

Each is a plain loop over C-contiguous arrays, named in a table; an operation asks its backend for one by name
(`Backend.compiled`) and has a NumPy form for when there is none. Nothing here is imported where Numba is not
installed, and no result differs but by rounding (docs/decisions/0005-compiled-kernels.md says which by how much).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np


class Kernel(NamedTuple):
    """A compiled function and the dtypes of its arrays."""

    run: Callable[..., Any]
    dtypes: frozenset[np.dtype[Any]]


KERNELS: dict[str, Kernel] = {}


def available() -> bool:
    """Whether the extra is installed."""
    return find_spec("numba") is not None


def load() -> Mapping[str, Kernel]:
    """The table of kernels. Where Numba is missing they run as Python, which is how tests check what they compute."""
    from engine.compiled import images, maps, moves, rows, sampling  # noqa: F401  they enter themselves

    return KERNELS
