"""Sorting, and the k largest or k-th smallest elements."""

from __future__ import annotations

from typing import Any

from engine.carriers import K, blank_like
from engine.declare import Array, Dim, composite, op
from engine.dtypes import BOOL, COMPLEX, int64
from engine.errors import DtypeMismatch, Hint, Invalid
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.extremes import picked_gradient, refuse_empty
from engine.samples import B, I, S, T
from engine.shapes import reduced, wrap_dim

_DISTINCT = T(2, 3, distinct=True)

# ---------------------------------------------------------------- what the kernels share


def lines_of(k: K, x: Array, dim: int) -> Array:
    """x with `dim` moved to the end; a 0-d array is a line of one."""
    return k.xp.moveaxis(x, dim, -1) if x.ndim else x.reshape(1)


def _unlines(k: K, x: Array, shape: tuple[int, ...], dim: int) -> Array:
    return k.xp.moveaxis(x, -1, dim) if shape else x.reshape(())


def _sorted_like(k: K, x: Array, input: Array, dim: int) -> Array:
    """Lines back in their place, in the layout of the input."""
    made = _unlines(k, x, input.shape, dim)
    if made.ndim < 2:
        return made
    kept = blank_like(k.xp, input, x.dtype)
    kept[...] = made
    return kept


def order_of(k: K, lines: Array, descending: bool) -> Array:
    """The permutation that sorts along the last axis: NaN is the largest, and equals keep their order."""
    xp = k.xp
    n = lines.shape[-1]
    if not lines.size:
        return xp.zeros(lines.shape, int64.np)
    if k.backend.kind == "cpu" and lines.dtype.name in ("float32", "int32") and 16 < n < 1 << 31:
        return _packed_order(k, lines, descending)
    if descending:
        # Sorting the reversed line and reversing the answer leaves equals in their order.
        return n - 1 - xp.argsort(lines[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    return xp.argsort(lines, axis=-1, kind="stable")


def _packed_order(k: K, lines: Array, descending: bool) -> Array:
    """The same by sorting int64 keys of value and place: NumPy's fastest sort, and stable since no two are equal."""
    xp = k.xp
    if lines.dtype.kind == "f":
        bits = xp.where(lines == lines, lines + 0.0, xp.zeros((), lines.dtype)).view("i4")  # -0.0 becomes 0.0
        bits ^= (bits >> 31) & 0x7FFFFFFF  # floats as integers in the same order
        bits[lines != lines] = 0x7FFFFFFF
    else:
        bits = lines
    keys = (xp.invert(bits) if descending else bits).astype(int64.np)
    keys <<= 32
    keys |= xp.arange(lines.shape[-1])
    keys.sort(axis=-1)
    keys &= 0xFFFFFFFF
    return keys


# ---------------------------------------------------------------- sort


def _sort_types(input: Spec) -> None:
    if input.dtype.category == COMPLEX:
        raise DtypeMismatch(" Sort does not support complex dtypes on CPU", code="dtype-not-implemented", param="input")


def _sort_meta(k: K, input: Spec, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    wrap_dim(dim, input.ndim)
    _sort_types(input)
    return input, Spec(input.shape, int64)


def _sort_node(input: Spec, dim: int = -1, descending: bool = False, stable: bool = False) -> str:
    return f"SortBackward{int(bool(stable))}"


@op(
    family="sorting",
    node=_sort_node,
    meta=_sort_meta,
    outputs=("values", "indices"),
    fields=True,
    nondiff=("indices",),
    save={"input": ("indices",)},
    samples=[
        S(_DISTINCT),
        S(_DISTINCT, 0, True),
        S(T(), 0),
        S(T(0, 2), 0),
        S(I(5), stable=True),
        S(B(4)),
        S(T(4, values=[1.0, float("nan"), 0.5, 2.0], grad=False), descending=True),
    ],
)
def sort(k: K, input: Array, dim: Dim = -1, descending: bool = False, stable: bool | None = False) -> Array:
    """The elements along `dim` in ascending order, and where they were; NaN counts as the largest.

    Equal elements keep their order, whether or not `stable` asks for it.
    """
    lines = lines_of(k, input, dim)
    order = order_of(k, lines, descending)
    values = k.xp.take_along_axis(lines, order, -1)
    return _sorted_like(k, values, input, dim), _sorted_like(k, order, input, dim)


@sort.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._place(g[0], saved.indices, saved.dim, saved.input.shape, True)


def _argsort_meta(k: K, input: Spec, dim: int = -1, descending: bool = False, stable: bool = False) -> Spec:
    wrap_dim(dim, input.ndim)
    _sort_types(input)
    return Spec(input.shape, int64)


@op(
    family="sorting",
    meta=_argsort_meta,
    vjp=None,
    samples=[S(_DISTINCT), S(_DISTINCT, 0, True), S(T(), 0), S(T(0, 2), 0), S(I(5), stable=True)],
)
def argsort(k: K, input: Array, dim: Dim = -1, descending: bool = False, stable: bool = False) -> Array:
    """The indices that sort the elements along `dim`; equal elements keep their order."""
    return _sorted_like(k, order_of(k, lines_of(k, input, dim), descending), input, dim)


@composite(family="sorting", moves=True, samples=[S(_DISTINCT), S(T()), S(I(3, 2))])
def msort(F: Any, input: Array) -> Array:
    """The elements along the first dimension in ascending order."""
    return F.sort(input, 0)[0]


# ---------------------------------------------------------------- topk, kthvalue


def _topk_meta(k: K, input: Spec, kth: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    d = wrap_dim(dim, input.ndim)
    n = input.shape[d] if input.ndim else 1
    if not 0 <= kth <= n:
        words = "selected index k out of range"
        raise Invalid(words, code="index-out-of-range", hint=Hint("k-range", high=n), param="k")
    if input.dtype.category == COMPLEX:
        words = " topk does not support complex dtypes on CPU"
        raise DtypeMismatch(words, code="dtype-not-implemented", param="input")
    if input.dtype.category == BOOL:
        raise DtypeMismatch("topk does not support bool dtypes on CPU", code="dtype-not-implemented", param="input")
    shape = (*input.shape[:d], kth, *input.shape[d + 1 :]) if input.ndim else ()
    return Spec(shape, input.dtype), Spec(shape, int64)


# Of more, one by one into a sorted list would be slow.
_FEW = 64


def _candidates(kit: K, lines: Array, k: int, largest: bool) -> tuple[Array, Array] | None:
    """A few elements of each line that hold its k largest or smallest, in their order, and where they were.

    Cut a line into more than k pieces: the k-th best of their extremes is a bound that k elements reach, so only what
    reaches it can be among the k. None where there are NaN, or so many equals that this would not pay.
    """
    xp = kit.xp
    n = lines.shape[-1]
    pieces = 4 * k if n >= 16 * k else 2 * k
    if lines.size < 4096:
        return None
    x = xp.ascontiguousarray(lines).reshape(-1, n)
    extreme = (xp.maximum if largest else xp.minimum).reduce(
        x[:, : n // pieces * pieces].reshape(len(x), -1, pieces), axis=1
    )
    if x.dtype.kind == "f" and xp.isnan(x.sum()) and xp.isnan(x).any():
        return None
    extreme.partition(pieces - k if largest else k - 1, axis=-1)
    if largest:
        at = xp.flatnonzero(x >= extreme[:, pieces - k, None])
    else:
        at = xp.flatnonzero(x <= extreme[:, k - 1, None])
    row = at // n
    counts = xp.bincount(row, minlength=len(x))
    width = int(counts.max())
    if 2 * width > n:
        return None
    place = row * width + xp.arange(at.size) - xp.repeat(xp.cumsum(counts) - counts, counts)
    # What fills up shorter lines comes after all else, since equals keep their order.
    if x.dtype.kind == "f":
        fill: Any = float("-inf") if largest else float("inf")
    else:
        fill = xp.iinfo(x.dtype).min if largest else xp.iinfo(x.dtype).max
    values, where = xp.full(len(x) * width, fill, x.dtype), xp.zeros(len(x) * width, int64.np)
    values[place] = x.reshape(-1)[at]
    where[place] = at - row * n
    shape = (*lines.shape[:-1], width)
    return values.reshape(shape), where.reshape(shape)


def _topk(kit: K, input: Array, k: int, dim: Dim = -1, largest: bool = True, sorted: bool = True) -> Array:
    """The `k` largest or smallest elements along `dim`, in order, and their indices; NaN counts as the largest."""
    xp = kit.xp
    lines = lines_of(kit, input, dim)
    n = lines.shape[-1]
    few = input.ndim and kit.backend.kind == "cpu" and k > 0 and 8 * k <= n
    if few and k <= _FEW and (run := kit.backend.compiled("topk", lines)) is not None:
        rows = lines.reshape(-1, n)
        values, order = xp.empty((len(rows), k), lines.dtype), xp.empty((len(rows), k), int64.np)
        run(rows, largest, values, order)
        shape = (*lines.shape[:-1], k)
        return _unlines(kit, values.reshape(shape), input.shape, dim), _unlines(
            kit, order.reshape(shape), input.shape, dim
        )
    if few and (found := _candidates(kit, lines, k, largest)) is not None:
        values, part = found
        order = order_of(kit, values, largest)[..., :k]
        order = xp.take_along_axis(part, order, -1)
    else:
        order = order_of(kit, lines, largest)[..., : k if input.ndim else 1]
    values = xp.take_along_axis(lines, order, -1)
    return _unlines(kit, values, input.shape, dim), _unlines(kit, order, input.shape, dim)


topk = op(
    family="sorting",
    name="topk",
    meta=_topk_meta,
    outputs=("values", "indices"),
    fields=True,
    nondiff=("indices",),
    save={"input": ("indices",)},
    samples=[
        S(T(2, 4, distinct=True), 2),
        S(T(4, 2, distinct=True), 2, 0, False),
        S(T(), 1),
        S(T(3, distinct=True), 0),
        S(I(5), 2),
        S(T(40, distinct=True), 3),
    ],
)(_topk)


@topk.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._place(g[0], saved.indices, saved.dim, saved.input.shape, True)


def _kth_meta(k: K, input: Spec, kth: int, dim: int = -1, keepdim: bool = False) -> Any:
    d = wrap_dim(dim, input.ndim)
    refuse_empty("kthvalue", input, d) if input.ndim else None
    n = input.shape[d] if input.ndim else 1
    if not 1 <= kth <= n:
        raise Invalid(
            f"kthvalue(): selected number k out of range for dimension {d}", code="index-out-of-range", param="k"
        )
    if input.ndim and input.dtype.category in (BOOL, COMPLEX):
        raise not_implemented("kthvalue_cpu", input.dtype)
    shape = reduced(input.shape, (d,), keepdim) if input.ndim else ()
    return Spec(shape, input.dtype), Spec(shape, int64)


def pick(k: K, input: Array, rank: Any, dim: int) -> tuple[Array, Array]:
    """The elements of a rank along `dim` (an int, or an array with one for each line), and their indices."""
    xp = k.xp
    lines = lines_of(k, input, dim)
    order = order_of(k, lines, False)
    if isinstance(rank, int):
        index = order[..., rank : rank + 1]
    else:
        index = xp.take_along_axis(order, rank, -1)
    values = xp.take_along_axis(lines, index, -1)
    shape = k.spec[0].shape
    return values.reshape(shape), index.reshape(shape)


def _kthvalue(kit: K, input: Array, k: int, dim: Dim = -1, keepdim: bool = False) -> Array:
    """The `k`-th smallest element along `dim`, counted from 1, and its index; NaN counts as the largest."""
    return pick(kit, input, k - 1, dim)


kthvalue = op(
    family="sorting",
    name="kthvalue",
    meta=_kth_meta,
    outputs=("values", "indices"),
    fields=True,
    nondiff=("indices",),
    save={"input": ("indices",)},
    samples=[S(_DISTINCT, 2), S(_DISTINCT, 1, 0, True), S(T(), 1), S(I(5), 3)],
)(_kthvalue)


@kthvalue.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return picked_gradient(F, saved, g[0])
