"""Along the rows of matrices: softmax and its kin, layer_norm. Each row is read while it is in the nearest cache."""

from __future__ import annotations

from math import isinf, log, sqrt
from typing import Any

import numpy as np

from engine.compiled.jit import FLOATS, SINGLE, exact_helper, kernel
from engine.compiled.maps import exp32

Array = Any
Float = Any

# Columns whose maxima are taken side by side.
_LANES = 64


@exact_helper
def _largest(row: Array, lanes: Array) -> Float:
    """The maximum of a row; what it is where there are NaN is left open."""
    n = row.size
    top = row[0]
    whole = n // _LANES * _LANES
    if whole:
        for j in range(_LANES):
            lanes[j] = row[j]
        for block in range(1, n // _LANES):
            part = row[block * _LANES : (block + 1) * _LANES]
            for j in range(_LANES):
                v, m = part[j], lanes[j]
                lanes[j] = v if v > m else m
        for j in range(_LANES):
            top = lanes[j] if lanes[j] > top else top
    for j in range(whole, n):
        top = row[j] if row[j] > top else top
    return top


@exact_helper
def _before(v: Float, w: Float, largest: bool) -> Any:
    """Whether v comes before w in the order of topk."""
    if largest:
        return v > w or (v != v and w == w)
    return v < w or (w != w and v == v)


@kernel(SINGLE)
def softmax(x: Array, out: Array, top: Array, total: Array) -> None:
    """exp(x - max) / sum(exp(x - max)) of each row; the maxima and the sums as well."""
    lanes = np.empty(_LANES, x.dtype)
    for i in range(x.shape[0]):
        row, made = x[i], out[i]
        m = _largest(row, lanes)
        s = x.dtype.type(0)
        for j in range(row.size):
            e = exp32(row[j] - m)
            made[j] = e
            s += e
        q = x.dtype.type(1) / s
        for j in range(row.size):
            made[j] *= q
        top[i], total[i] = m, s


@kernel(SINGLE)
def log_softmax(x: Array, out: Array) -> None:
    """x - max - log(sum(exp(x - max))) of each row."""
    lanes = np.empty(_LANES, x.dtype)
    for i in range(x.shape[0]):
        row, made = x[i], out[i]
        m = _largest(row, lanes)
        s = x.dtype.type(0)
        for j in range(row.size):
            s += exp32(row[j] - m)
        shift = x.dtype.type(log(s))
        for j in range(row.size):
            made[j] = (row[j] - m) - shift


@kernel(SINGLE)
def logsumexp(x: Array, out: Array) -> None:
    """log(sum(exp(x))) of each row, without overflow."""
    lanes = np.empty(_LANES, x.dtype)
    for i in range(x.shape[0]):
        row = x[i]
        m = _largest(row, lanes)
        if isinf(m):
            m = x.dtype.type(0)
        s = x.dtype.type(0)
        for j in range(row.size):
            s += exp32(row[j] - m)
        out[i] = x.dtype.type(log(s)) + m if s > 0 else (s - s) + x.dtype.type(-np.inf)


@kernel(FLOATS)
def softmax_back(g: Array, y: Array, out: Array) -> None:
    """(g - sum(g * y)) * y of each row."""
    for i in range(g.shape[0]):
        row, p, made = g[i], y[i], out[i]
        s = g.dtype.type(0)
        for j in range(row.size):
            s += row[j] * p[j]
        for j in range(row.size):
            made[j] = (row[j] - s) * p[j]


@kernel(SINGLE)
def log_softmax_back(g: Array, y: Array, out: Array) -> None:
    """g - exp(y) * sum(g) of each row."""
    for i in range(g.shape[0]):
        row, p, made = g[i], y[i], out[i]
        s = g.dtype.type(0)
        for j in range(row.size):
            s += row[j]
        for j in range(row.size):
            made[j] = row[j] - exp32(p[j]) * s


@kernel(FLOATS, exact=True)
def topk(x: Array, largest: bool, values: Array, indices: Array) -> None:
    """The largest or smallest elements of each row, as many as `values` has columns, in order; NaN is the largest.

    A sorted list of the best so far, which few elements get into; equals keep their order.
    """
    k = values.shape[1]
    for i in range(x.shape[0]):
        row, best, where = x[i], values[i], indices[i]
        have = 0
        for j in range(row.size):
            v = row[j]
            if have == k:
                worst = best[k - 1]
                if (v <= worst) if largest else (v >= worst):
                    continue
                if not _before(v, worst, largest):
                    continue
            else:
                have += 1
            at = have - 1
            while at > 0 and _before(v, best[at - 1], largest):
                best[at], where[at] = best[at - 1], where[at - 1]
                at -= 1
            best[at], where[at] = v, j


@kernel(FLOATS)
def layer_norm(x: Array, weight: Array, bias: Array, eps: float, out: Array, mean: Array, rstd: Array) -> None:
    """(x - mean) / sqrt(var + eps) * weight + bias of each row; the means and one over the deviations as well."""
    n = x.dtype.type(x.shape[1])
    for i in range(x.shape[0]):
        row, made = x[i], out[i]
        s = x.dtype.type(0)
        for j in range(row.size):
            s += row[j]
        m = s / n
        s = x.dtype.type(0)
        for j in range(row.size):
            s += (row[j] - m) * (row[j] - m)
        r = x.dtype.type(1.0 / sqrt(s / n + eps))
        for j in range(row.size):
            made[j] = (row[j] - m) * r * weight[j] + bias[j]
        mean[i], rstd[i] = m, r


@kernel(FLOATS)
def layer_norm_back(
    g: Array, x: Array, weight: Array, mean: Array, rstd: Array, of_x: Array, of_weight: Array, of_bias: Array
) -> None:
    """The gradients of layer_norm; those of weight and bias are added to what is there."""
    n = x.dtype.type(x.shape[1])
    for i in range(x.shape[0]):
        row, grad, made = x[i], g[i], of_x[i]
        m, r = mean[i], rstd[i]
        first = x.dtype.type(0)
        second = x.dtype.type(0)
        for j in range(row.size):
            scaled = grad[j] * weight[j]
            first += scaled
            second += scaled * ((row[j] - m) * r)
        first /= n
        second /= n
        for j in range(row.size):
            normal = (row[j] - m) * r
            made[j] = r * ((grad[j] * weight[j] - first) - normal * second)
            of_weight[j] += grad[j] * normal
            of_bias[j] += grad[j]


@kernel(FLOATS)
def scale_rows(x: Array, by: Array, out: Array) -> None:
    """Each row times its number."""
    for i in range(x.shape[0]):
        row, made, f = x[i], out[i], by[i]
        for j in range(row.size):
            made[j] = row[j] * f


@kernel(FLOATS)
def affine_rows(x: Array, scale: Array, shift: Array, out: Array) -> None:
    """Each row times one number and plus another; their numbers repeat from row to row."""
    for i in range(x.shape[0]):
        row, made = x[i], out[i]
        a, b = scale[i % scale.size], shift[i % scale.size]
        for j in range(row.size):
            made[j] = row[j] * a + b
