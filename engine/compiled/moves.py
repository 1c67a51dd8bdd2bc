"""Where memory is walked by index or in order: gather, scatter_add, rows of a table, running sums, optimizer steps."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from engine.compiled.jit import FLOATS, Dtypes, kernel

Array = Any

U = np.uint64  # of an unsigned index Numba does not ask whether it counts from the end
BITS: Dtypes = frozenset((np.dtype("i2"), np.dtype("i4"), np.dtype("i8")))


@kernel(BITS, exact=True)
def gather(x: Array, index: Array, out: Array) -> None:
    """out[a, i, b] = x[a, index[a, i, b], b]; no index is negative."""
    lead, n, tail = index.shape
    for a in range(lead):
        if tail == 1:
            line, at, made = x[a, :, 0], index[a, :, 0], out[a, :, 0]
            for i in range(n):
                made[i] = line[U(at[i])]
        else:
            for i in range(n):
                for b in range(tail):
                    out[a, i, b] = x[a, U(index[a, i, b]), b]


@kernel(FLOATS, exact=True)
def add_along(target: Array, index: Array, values: Array) -> None:
    """target[a, index[a, i, b], b] += values[a, i, b]; no index is negative."""
    lead, n, tail = index.shape
    for a in range(lead):
        if tail == 1:
            line, at, row = target[a, :, 0], index[a, :, 0], values[a, :, 0]
            for i in range(n):
                line[U(at[i])] += row[i]
        else:
            for i in range(n):
                for b in range(tail):
                    target[a, U(index[a, i, b]), b] += values[a, i, b]


@kernel(FLOATS, exact=True)
def add_rows(target: Array, index: Array, rows: Array) -> None:
    """target[index[i]] += rows[i]."""
    for i in range(index.size):
        to, row = target[U(index[i])], rows[i]
        for j in range(row.size):
            to[j] += row[j]


@kernel(FLOATS, exact=True)
def cumsum(x: Array, out: Array, reverse: bool) -> None:
    """Running sums along the second of three dimensions, from the end if `reverse`; added up in float64."""
    lead, n, tail = x.shape
    sums = np.empty(tail, np.float64)
    for a in range(lead):
        if tail == 1:
            s = np.float64(0)
            for i in range(n):
                at = n - 1 - i if reverse else i
                s += np.float64(x[a, at, 0])
                out[a, at, 0] = s
        else:
            sums[:] = 0.0
            for i in range(n):
                at = n - 1 - i if reverse else i
                row, made = x[a, at], out[a, at]
                for b in range(tail):
                    sums[b] += row[b]
                    made[b] = sums[b]


@kernel(FLOATS)
def adam(p: Array, g: Array, mean: Array, square: Array, rates: Array) -> None:
    """One step of Adam; `rates` are 1 - beta1, 1 - beta2, beta2, sqrt(1 - beta2^t), eps and lr / (1 - beta1^t)."""
    a, b, c, root, eps, lr = rates[0], rates[1], rates[2], rates[3], rates[4], rates[5]
    for i in range(p.size):
        mean[i] += (g[i] - mean[i]) * a
        square[i] = square[i] * c + (g[i] * g[i]) * b
        p[i] -= mean[i] / (p.dtype.type(sqrt(square[i])) / root + eps) * lr
