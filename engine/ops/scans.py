"""Cumulative operations: as many elements out as in, each made of those before it along one dimension."""

from __future__ import annotations

from math import prod as product
from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, DTypeArg, op
from engine.dtypes import BOOL, C_NAMES, COMPLEX, FLOAT, INT, int64
from engine.errors import DtypeMismatch, IndexOutOfRange
from engine.metas import as_dtype
from engine.op import REGISTRY, Spec
from engine.ops.common import not_implemented
from engine.samples import C, I, S, T
from engine.shapes import wrap_dim

_CUMULATIVE = [
    S(T(2, 3), 1),
    S(T(2, 3), 0),
    S(T(), 0),
    S(T(0, 2), 0),
    S(C(3), 0),
    S(I(2, 3), -1),
    S(I(3), 0, dtype="float64"),
]


def _scan_types(k: K, input: Any, dim: Any, dtype: Any = None) -> Any:
    d = as_dtype(dtype) or (int64 if input.dtype.category <= INT else input.dtype)
    return d, d


def _scan_meta(name: str) -> Any:
    def meta(k: K, input: Spec, dim: int, dtype: Any = None) -> Spec:
        wrap_dim(dim, input.ndim)
        if k.dtype.category == BOOL and input.ndim and input.numel:  # PyTorch copies what has nothing to add up
            raise not_implemented(f"{name}_out_cpu", k.dtype)
        return Spec(input.shape, k.dtype)

    return meta


def _scan_in_place(name: str) -> Any:
    """What the in-place form alone refuses: it computes in its tensor's dtype."""

    def meta(k: K, input: Spec, dim: int, dtype: Any = None) -> Spec:
        d = as_dtype(dtype) or input.dtype
        wrap_dim(dim, input.ndim)
        if d is not input.dtype:
            have, want = (C_NAMES[x.name] for x in (input.dtype, d))
            raise DtypeMismatch(
                f"Bad in-place call: input tensor dtype {have} and output tensor dtype {want} should match",
                param="dtype",
            )
        if d.category == BOOL and input.ndim and input.numel:
            raise not_implemented(f"{name}_out_cpu", d)
        return input

    return meta


def row_major(k: K, x: Array) -> Array:
    """The array in row-major order, in which the results of scans are whatever the order of their input."""
    return x if x.flags.c_contiguous else k.xp.ascontiguousarray(x)


def running(k: K, how: str, x: Array, axis: int) -> Array:
    """The ufunc `how` accumulated along an axis; by doubling on a GPU, which has no such loop."""
    ufunc = getattr(k.xp, how)
    if k.backend.kind == "cpu":
        return ufunc.accumulate(x, axis=axis)
    made = k.xp.moveaxis(x, axis, 0).copy()
    step = 1
    while step < made.shape[0]:
        joined = made.copy()
        joined[step:] = ufunc(made[:-step], made[step:])
        made, step = joined, 2 * step
    return k.xp.moveaxis(made, 0, axis)


# ---------------------------------------------------------------- linear recurrences, of which gradients are made


def _like(k: K, input: Spec, *rest: Any) -> Spec:
    return input


@op(family="reductions", meta=_like)
def _shift(k: K, input: Array, dim: Any, by: Any, fill: Any = 0.0) -> Array:
    """The elements moved `by` places along `dim`; what comes in is `fill`."""
    xp = k.xp
    if input.ndim == 0:
        return xp.full((), fill, input.dtype)
    made = xp.empty(input.shape, input.dtype)
    new, old = xp.moveaxis(made, dim, 0), xp.moveaxis(input, dim, 0)
    by = max(min(by, new.shape[0]), -new.shape[0])
    if by == 0:
        made[...] = input
    elif by > 0:
        new[by:], new[:by] = old[: old.shape[0] - by], fill
    else:
        new[: old.shape[0] + by], new[old.shape[0] + by :] = old[-by:], fill
    return made


@_shift.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._shift(g, saved.dim, -saved.by, 0.0)


def _recurrence_meta(k: K, factor: Spec, input: Spec, dim: Any, reverse: Any = False) -> Spec:
    return input


@op(family="reductions", meta=_recurrence_meta, save={"factor": ("factor", "result"), "input": ("factor",)})
def _recurrence(k: K, factor: Array, input: Array, dim: Any, reverse: Any = False) -> Array:
    """s[i] = input[i] + factor[i] * s[i - 1] along `dim`, or with `reverse` s[i + 1]: a scan in log2(n) passes."""
    xp = k.xp
    if input.ndim == 0:
        return input.copy()
    made, a = xp.moveaxis(input, dim, 0), xp.moveaxis(factor, dim, 0)
    if reverse:
        made, a = made[::-1], a[::-1]
    n, step = made.shape[0], 1
    while step < n:
        joined = made.copy()
        joined[step:] += a[step:] * made[:-step]
        if 2 * step < n:
            wider = a.copy()
            wider[step:] = a[step:] * a[:-step]
            a = wider
        made, step = joined, 2 * step
    return xp.moveaxis(made[::-1] if reverse else made, 0, dim)


@_recurrence.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    dim, reverse, by = saved.dim, saved.reverse, 1 if saved.reverse else -1
    total = F._recurrence(F.conj(F._shift(saved.factor, dim, by)), g, dim, not reverse)
    return need.factor and total * F.conj(F._shift(saved.result, dim, -by)), need.input and total


# ---------------------------------------------------------------- sums

# From so many elements on a row is added by a call of its own: NumPy's `accumulate` takes one element at a time.
_LONG_ROW = 256


def _cumsum(k: K, input: Array, dim: int, reverse: bool) -> Array:
    if input.ndim == 0:
        return input.copy()
    xp, kind = k.xp, input.dtype.kind
    if k.backend.kind == "cpu" and kind in "fc":
        # Like PyTorch, added up in double precision; NumPy is no slower at that than in single.
        axis = wrap_dim(dim, input.ndim)
        lines = (product(input.shape[:axis]), input.shape[axis], product(input.shape[axis + 1 :]))
        made = xp.empty(input.shape, input.dtype)
        if (run := k.backend.compiled("cumsum", input)) is not None:
            run(input.reshape(lines), made.reshape(lines), reverse)
            return made
        wide = input.astype("f8" if kind == "f" else "c16", order="C")
        wide += 0.0  # the sums begin at 0, and 0 + -0 is 0
        _accumulate(k, wide.reshape(lines), reverse)
        made[...] = wide
        return made
    made = xp.cumsum(row_major(k, xp.flip(input, axis=dim) if reverse else input), axis=dim, dtype=input.dtype)
    return xp.flip(made, axis=dim) if reverse else made


def _accumulate(k: K, lines: Array, reverse: bool) -> None:
    """Running sums along the second of three dimensions, in place; row by row where rows are long."""
    xp = k.xp
    if reverse:
        lines = lines[:, ::-1]
    lead, n, tail = lines.shape
    if lead > n or tail < _LONG_ROW:
        xp.add.accumulate(lines, axis=1, out=lines)
        return
    for line in lines:
        for i in range(1, n):
            xp.add(line[i - 1], line[i], out=line[i])


@op(
    family="reductions",
    meta=_scan_meta("cumsum"),
    promote=_scan_types,
    over=("input",),
    inplace=True,
    samples=_CUMULATIVE,
)
def cumsum(k: K, input: Array, dim: Dim, dtype: DTypeArg | None = None) -> Array:
    """Running sums along `dim`; integers and bools add up in int64."""
    return _cumsum(k, input, dim, False)


@cumsum.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._cumsum_back(g, saved.dim)


@op(family="reductions", meta=_like, node="CumsumBackward0")
def _cumsum_back(k: K, input: Array, dim: Any) -> Array:
    """Running sums from the end: the gradient of cumsum."""
    return _cumsum(k, input, dim, True)


@_cumsum_back.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.cumsum(g, saved.dim)


# ---------------------------------------------------------------- products


@op(
    family="reductions",
    meta=_scan_meta("cumprod"),
    promote=_scan_types,
    over=("input",),
    inplace=True,
    save={"input": ("input", "result")},
    samples=[*_CUMULATIVE, S(T(4, values=[2.0, 0.0, 3.0, 0.0]), 0)],
)
def cumprod(k: K, input: Array, dim: Dim, dtype: DTypeArg | None = None) -> Array:
    """Running products along `dim`; integers and bools multiply in int64."""
    if not input.ndim:
        return input.copy()
    return k.xp.cumprod(row_major(k, input), axis=dim, dtype=input.dtype)


@cumprod.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    # dx[j] = (product before j) * sum over i >= j of g[i] * x[j+1] ... x[i]: no division, so zeros do no harm.
    x, dim = saved.input, saved.dim
    after = F._recurrence(F.conj(F._shift(x, dim, -1)), g, dim, True)
    return F.conj(F._shift(saved.result, dim, 1, 1.0)) * after


# ---------------------------------------------------------------- logarithms of sums of exponentials


def _log_meta(k: K, input: Spec, dim: int) -> Spec:
    wrap_dim(dim, input.ndim)
    if input.dtype.category < FLOAT:
        raise not_implemented("logcumsumexp_out_cpu", input.dtype)
    return input


def _complex_logcumsumexp(k: K, x: Array) -> Array:
    """Along the first axis, one element after the other: the order decides the branch of the imaginary part."""
    xp = k.xp
    made = xp.empty(x.shape, x.dtype)
    made[0] = x[0]
    for i in range(1, x.shape[0]):
        here, before = x[i], made[i - 1]
        less = here.real < before.real
        low, high = xp.where(less, here, before), xp.where(less, before, here)
        joined = xp.log(1 + xp.exp(low - high)) + high
        # Two infinities: their difference is NaN, their sum is what it is.
        level = (low.real == high.real) & ~xp.isfinite(low.real)
        both = xp.where(low.real < 0, low, xp.log(xp.exp(low) + xp.exp(high)))
        made[i] = xp.where(level, both, joined)
    return made


@op(
    family="reductions",
    meta=_log_meta,
    save={"input": ("input", "result")},
    samples=[S(T(2, 3), 1), S(T(2, 3), 0), S(T(), 0), S(T(0, 2), 0), S(C(3), 0)],
)
def logcumsumexp(k: K, input: Array, dim: Dim) -> Array:
    """The logarithm of running sums of exponentials along `dim`, without overflow."""
    if input.ndim == 0 or input.size == 0:
        return input.copy()
    if input.dtype.kind == "c":
        return k.xp.moveaxis(_complex_logcumsumexp(k, k.xp.moveaxis(input, dim, 0)), 0, dim)
    return running(k, "logaddexp", row_major(k, input), dim)


@logcumsumexp.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    # dx[j] = sum over i >= j of g[i] * exp(x[j] - y[i]) = exp(x[j] - y[j]) * s[j],
    # with s[j] = g[j] + exp(y[j] - y[j+1]) * s[j+1], where no exponential is larger than one.
    y, dim = saved.result, saved.dim
    step = F.exp(y - F._shift(y, dim, -1, float("inf")))
    return F.conj(F.exp(saved.input - y)) * F._recurrence(F.conj(step), g, dim, True)


for _name in ("cumsum", "cumprod"):
    REGISTRY[f"{_name}_"].meta = _scan_in_place(_name)


# ---------------------------------------------------------------- extremes


def _extreme_meta(name: str) -> Any:
    def meta(k: K, input: Spec, dim: int) -> Any:
        if not input.ndim and dim not in (-1, 0):
            raise IndexOutOfRange(f"{name}(): Expected reduction dim -1 or 0 for scalar but got {dim}", param="dim")
        if input.ndim and input.numel:  # of what has no two elements PyTorch makes a copy
            wrap_dim(dim, input.ndim)
            if input.dtype.category == COMPLEX:
                raise not_implemented(f"{name}_cpu", input.dtype)
        return input, Spec(input.shape, int64)

    return meta


def _declare_cumulative(name: str, how: str, word: str) -> None:
    def kernel(k: K, input: Array, dim: Dim) -> Array:
        xp = k.xp
        if input.ndim == 0 or input.size == 0:
            return input.copy(), xp.zeros(input.shape, int64.np)
        axis = wrap_dim(dim, input.ndim)
        wide = row_major(k, input.astype("i1") if input.dtype.kind == "b" else input)
        values = running(k, how, wide, axis)
        there = (wide == values) | (wide != wide)
        line = xp.arange(input.shape[axis], dtype=int64.np).reshape((-1,) + (1,) * (input.ndim - 1 - axis))
        return values, running(k, "maximum", xp.where(there, line, xp.zeros((), int64.np)), axis)

    kernel.__doc__ = f"The {word} so far along `dim`, and its index, the last of equals; NaN stays."
    made = op(
        family="reductions",
        name=name,
        meta=_extreme_meta(name),
        outputs=("values", "indices"),
        fields=True,
        nondiff=("indices",),
        save={"input": ("indices",)},
        samples=[S(T(2, 4, distinct=True), 1), S(T(4, 2, distinct=True), 0), S(T(), 0), S(T(0, 2), 0), S(I(5), 0)],
    )(kernel)
    made.vjp(lambda F, saved, g, need: F._place(g[0], saved.indices, saved.dim, saved.input.shape))


_declare_cumulative("cummax", "maximum", "largest element")
_declare_cumulative("cummin", "minimum", "smallest element")
