"""Scatter with a reduction, and what index_reduce shares with it."""

from __future__ import annotations

from typing import Any, Literal

from engine.carriers import K
from engine.declare import Array, Dim, op
from engine.dtypes import BOOL, COMPLEX, int64
from engine.errors import Invalid
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.scatter import _ALONG, _scatter_checks, check_along, combine, cut, editable, edited, places
from engine.samples import I, S, T
from engine.shapes import wrap_dim

_REDUCTIONS = {"sum": "add", "mean": "add", "prod": "multiply", "amax": "maximum", "amin": "minimum"}


def _identity(how: str, dtype: Any) -> Any:
    """What changes nothing under a reduction, as a Python number of this NumPy dtype."""
    if how in ("add", "multiply"):
        return how == "multiply" if dtype.kind == "b" else int(how == "multiply")
    low = how == "maximum"
    if dtype.kind == "f":
        return float("-inf") if low else float("inf")
    if dtype.kind == "b":
        return not low
    bits = 8 * dtype.itemsize
    if dtype.kind == "u":
        return 0 if low else (1 << bits) - 1
    return -(1 << (bits - 1)) if low else (1 << (bits - 1)) - 1


def reduce_at(k: K, made: Array, at: Array, values: Array, reduce: str, include_self: bool) -> None:
    """Reduces `values` into the C-contiguous `made` at flat places `at`, in place, what is there counting or not."""
    xp = k.xp
    flat = made.reshape(-1)
    how = _REDUCTIONS[reduce]
    if not include_self:
        flat[at] = _identity(how, made.dtype)
    combine(k, how, flat, at, values)
    if reduce == "mean":
        n = (xp.ones if include_self else xp.zeros)(flat.shape, int64.np)
        combine(k, "add", n, at, xp.ones(at.shape, int64.np))
        n = xp.maximum(n, 1)
        if made.dtype.kind in "iu":
            flat[...] = flat // n.astype(made.dtype)
        else:
            flat /= n.astype(made.real.dtype)


def _reduce_meta(k: K, input: Spec, dim: int, index: Spec, src: Spec, reduce: str, include_self: bool = True) -> Spec:
    _scatter_checks(input, dim, index, src)
    if reduce not in _REDUCTIONS:
        raise Invalid(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}", param="reduce")
    category = input.dtype.category
    if (category == BOOL and reduce == "mean") or (category == COMPLEX and reduce in ("amax", "amin")):
        raise not_implemented(f"scatter_gather_tensor_cpu_reduce_{reduce}", input.dtype)
    return input


_REDUCE_SAVE = ("input", "index", "src", "result")


@op(
    family="scatter",
    meta=_reduce_meta,
    updates=True,
    inplace=True,
    save={"input": _REDUCE_SAVE, "src": _REDUCE_SAVE},
    samples=[S(T(2, 3), 1, _ALONG, T(2, 2), r) for r in ("sum", "prod", "mean")]
    + [S(T(2, 3, distinct=True), 1, _ALONG, T(2, 2, distinct=True, low=2.5, high=4.0), r) for r in ("amax", "amin")]
    + [S(T(2, 3), 1, _ALONG, T(2, 2), r, include_self=False) for r in ("sum", "prod", "mean")]
    + [
        S(T(), 0, I(2, high=1), T(2), "prod"),
        S(T(), 0, I(high=1), T(3), "sum"),
        S(I(2, 3), 1, _ALONG, I(2, 2), "mean"),
    ],
)
def scatter_reduce(
    k: K,
    input: Array,
    dim: Dim,
    index: Array,
    src: Array,
    reduce: Literal["sum", "prod", "mean", "amax", "amin"],
    include_self: bool = True,
    *,
    out: Any = None,
) -> Array:
    """A copy with `src` reduced into it along `dim` at `index`; `include_self` says whether what was there counts."""
    made = editable(k, input, out)
    if index.size:
        at = places(k, made.shape, wrap_dim(dim, input.ndim), index).reshape(-1)
        reduce_at(k, made, at, cut(src, index.shape).reshape(-1), reduce, include_self)
    return edited(made, out)


@scatter_reduce.guard
def _(k: K, input: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool = True) -> None:
    check_along(input, dim, index)


class _Along:
    """What a reducing scatter reads and writes with, so that index_reduce has the same gradient."""

    def __init__(self, F: Any, dim: int, index: Any, reduce: str, include_self: bool) -> None:
        self.F, self.dim, self.index, self.reduce, self.include_self = F, dim, index, reduce, include_self

    def read(self, x: Any) -> Any:
        return self.F.gather(x, self.dim, self.index)

    def add(self, x: Any, src: Any) -> Any:
        return self.F.scatter_add(x, self.dim, self.index, src)

    def clear(self, x: Any) -> Any:
        return self.F.scatter(x, self.dim, self.index, value=0)

    def run(self, x: Any, src: Any) -> Any:
        return self.F.scatter_reduce(x, self.dim, self.index, src, self.reduce, self.include_self)


def reduce_gradient(F: Any, to: Any, x: Any, src: Any, result: Any, g: Any) -> tuple[Any, Any]:
    """The gradients of a reducing scatter, as PyTorch has them: ties share, zeros in products take the other way."""
    reduce = to.reduce
    if reduce == "sum":
        mine, theirs = g, to.read(g)
    elif reduce == "mean":
        base = F.ones_like(g) if to.include_self else F.zeros_like(g)
        n = to.add(base, F.ones_like(src))
        n = F.where(F.eq(n, 0), 1.0, n)
        mine, theirs = g / n, to.read(g) / to.read(n)
    elif reduce == "prod":
        nonzero_x = F.where(F.eq(x, 0), 1.0, x)
        mine = g * to.run(nonzero_x, src) / nonzero_x
        zero = F.eq(src, 0)
        zeros = to.read(to.add(F.zeros_like(x), F.where(zero, F.ones_like(src), 0.0)))
        single = F.logical_and(zero, F.eq(zeros, 1))
        others = to.read(g * to.run(x, F.where(single, 1.0, src)))
        theirs = F.where(single, others, to.read(g * result) / F.where(zero, 1.0, src))
    else:
        at_x = F.where(F.eq(x, result), F.ones_like(g), 0.0)
        at_src = F.where(F.eq(src, to.read(result)), F.ones_like(src), 0.0)
        shared = g / to.add(at_x, at_src)
        mine, theirs = at_x * shared, at_src * to.read(shared)
    return (mine if to.include_self else to.clear(mine)), theirs


@scatter_reduce.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    src, index = saved.src, saved.index
    whole = F.shape(src)
    used = F.shape(index)
    if 0 in used:  # nothing was moved, whatever the dimensions of `src`
        return need.input and g, None, need.src and F.zeros_like(src)
    corner = used or (1,) * len(whole)  # an index of no dimensions is one place
    for i, n in enumerate(corner):
        if whole and n != whole[i]:
            src = F.narrow(src, i, 0, n)
    src = F.reshape(src, used)
    to = _Along(F, saved.dim, index, saved.reduce, saved.include_self)
    mine, theirs = reduce_gradient(F, to, saved.input, src, saved.result, g)
    if whole and corner != whole:
        theirs = F._enlarge(theirs, whole)
    return need.input and mine, None, need.src and F.reshape(theirs, whole)
