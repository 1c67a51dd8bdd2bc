"""Gradients, as arrays, made to fit what they are gradients of."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from engine.backend import Array, Backend
from engine.dtypes import float32, from_numpy
from engine.op import Spec
from engine.tape import Node

# So many rows are added up by BLAS in half of NumPy's time, and with no larger an error.
_FEW_ROWS, _MANY_ROWS = 32, 1 << 12


@lru_cache(maxsize=64)
def ones(count: int, dtype: Any) -> Array:
    """A vector of ones, which nobody changes."""
    made = np.ones(count, dtype)
    made.flags.writeable = False
    return made


def fit_array(g: Array, spec: Spec, backend: Backend, node: Node) -> Array:
    """A gradient as its input is: summed over what was broadcast, real where it is real, in its storage dtype."""
    d = spec.dtype
    if node.backend is not backend and type(g) is node.backend.ndarray:
        # The input lives on another device: it was moved, or is a 0-d CPU tensor beside tensors of a GPU.
        reduced = d.reduced and node.op.moves
        g = g if g.shape == spec.shape or reduced else sum_to(g, spec.shape)
        g = backend.from_host(node.backend.to_host(g))
    if type(g) is not backend.ndarray:
        g = backend.xp.asarray(g)
    if d.reduced and node.op.moves and g.dtype == d.np:
        if g.shape == spec.shape:
            return g  # moved as it is
        g = backend.widen(g, d)
    if g.shape != spec.shape:
        g = sum_to(g, spec.shape)
    if d.reduced:
        g = backend.cast(g, from_numpy(g.dtype) or float32, d)
    elif g.dtype != d.np:
        if g.dtype.kind == "c" and not d.is_complex:
            g = g.real
        g = g.astype(d.np)
    return g if type(g) is backend.ndarray else backend.xp.asarray(g)


def row_sums(g: Array, shape: tuple[int, ...]) -> Array | None:
    """The ones by which `g`, as rows, is multiplied for its sum in `shape`; None where it is added up otherwise."""
    if g.ndim > 1 == len(shape) and shape[0] == g.shape[-1] > 1 and type(g) is np.ndarray:  # of a bias, most often
        rows = g.size // shape[0]
        if _FEW_ROWS <= rows <= _MANY_ROWS and g.dtype.char in "fd" and g.flags.c_contiguous:
            row: Array = ones(rows, g.dtype)
            return row
    return None


def sum_to(g: Array, shape: tuple[int, ...]) -> Array:
    """The sum of `g` over the dimensions along which `shape` was broadcast to it."""
    extra = g.ndim - len(shape)
    if extra < 0:  # of a weight with dimensions of size 1 before its channels
        return g.reshape(shape)
    if (row := row_sums(g, shape)) is not None:
        return np.matmul(row, g if g.ndim == 2 else g.reshape(len(row), shape[0]))
    axes = tuple(range(extra)) + tuple(i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1)
    if axes:
        g = g.sum(axis=axes, keepdims=True)
    return g.reshape(shape)
