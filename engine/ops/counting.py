"""Where something is, how often, and what there is once: nonzero, bincount, one_hot, unique."""

from __future__ import annotations

from math import isfinite, prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, Scalar, composite, op
from engine.dtypes import COMPLEX, FLOAT, INT, float32, float64, int64
from engine.errors import Call, DtypeMismatch, Hint, IndexOutOfRange, Invalid, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented, number
from engine.samples import B, C, I, S, T
from engine.shapes import wrap_dim

# ---------------------------------------------------------------- where


def _where_meta(k: K, input: Spec) -> Spec:
    return Spec((input.numel, input.ndim), int64)


def _places(k: K, input: Array) -> Array:
    xp = k.xp
    if input.ndim == 0:
        return xp.zeros((int(bool(input != 0)), 0), int64.np)
    found = xp.nonzero(input)
    made = xp.empty((found[0].shape[0], input.ndim), int64.np, order="F")  # a dimension's places lie together
    for d, places in enumerate(found):
        made[:, d] = places
    return made


@op(
    family="indexing",
    meta=_where_meta,
    vjp=None,
    dynamic=True,
    samples=[S(I(2, 3, high=2)), S(B(4)), S(T()), S(T(0, 2)), S(C(2))],
)
def argwhere(k: K, input: Array) -> Array:
    """The indices of the nonzero elements, one row each, in the order of the elements."""
    return _places(k, input)


@argwhere.guard
def _(k: K, input: Any) -> None:
    k.ctx.admit(2 * 8 * input.ndim * int(k.xp.count_nonzero(input)))  # dimension by dimension, then as rows


@composite(
    family="indexing",
    moves=True,
    returns="Tensor or list of Tensors",
    samples=[S(I(2, 3, high=2)), S(B(4), as_tuple=True), S(T()), S(T(0, 2))],
)
def nonzero(F: Any, input: Array, as_tuple: bool = False) -> Array:
    """The indices of the nonzero elements: a row for each, or with `as_tuple` a vector for each dimension."""
    if not as_tuple:
        return F.argwhere(input)
    return F.unbind(F.argwhere(input if F.shape(input) else F.reshape(input, (1,))), 1)


def _static_meta(k: K, input: Spec, size: int, fill_value: int = -1) -> Spec:
    if size < 0:
        raise Invalid("nonzero_static: 'size' must be an non-negative integer", param="size")
    return Spec((size, input.ndim), int64)


@op(
    family="indexing",
    meta=_static_meta,
    vjp=None,
    samples=[S(I(2, 3, high=2), size=3), S(B(4), size=6, fill_value=0), S(T(), size=1)],
)
def nonzero_static(k: K, input: Array, size: int, fill_value: int = -1) -> Array:
    """The first `size` rows of `nonzero`, filled up with `fill_value`: a shape that does not depend on values."""
    made = k.xp.full((size, input.ndim), fill_value, int64.np)
    found = _places(k, input)[:size]
    made[: found.shape[0]] = found
    return made


# ---------------------------------------------------------------- how often


def _one_hot_meta(k: K, input: Spec, num_classes: int = -1) -> Spec:
    if input.dtype is not int64:
        raise DtypeMismatch(
            "one_hot is only applicable to index tensor of type LongTensor.",
            code="index-dtype",
            hint=Hint(
                "cast-index",
                Call("to", {"input": Param("input"), "dtype": "int64"}),
                have=input.dtype.name,
                param="input",
            ),
            param="input",
        )
    if input.numel == 0 and num_classes <= 0:
        raise Invalid("Can not infer total number of classes from empty tensor.", param="num_classes")
    return Spec((*input.shape, max(num_classes, 0)), int64)


@op(
    family="indexing",
    name="nn.functional.one_hot",
    meta=_one_hot_meta,
    vjp=None,
    dynamic=True,
    samples=[S(I(3, values=[0, 2, 1])), S(I(2, 2), 5), S(I(high=2), 3), S(I(0), 3)],
)
def one_hot(k: K, input: Array, num_classes: int = -1) -> Array:
    """Rows of zeros with a one at each class; `num_classes` defaults to the largest class plus one."""
    n = num_classes if num_classes != -1 else int(input.max()) + 1
    made = k.xp.zeros((input.size, n), int64.np)
    made.reshape(-1)[k.xp.arange(input.size) * n + input.reshape(-1)] = 1
    return made.reshape(*input.shape, n)


@one_hot.guard
def _(k: K, input: Any, num_classes: int = -1) -> None:
    if input.size and int(input.min()) < 0:
        raise IndexOutOfRange("Class values must be non-negative.", param="input")
    if input.size and num_classes != -1 and int(input.max()) >= num_classes:
        hint = Hint("more-classes", count=int(input.max()) + 1)
        raise IndexOutOfRange("Class values must be smaller than num_classes.", hint=hint, param="input")
    classes = num_classes if num_classes != -1 else int(input.max()) + 1
    k.ctx.admit(8 * input.size * (classes + 2))  # and where each one goes


def _bincount_meta(k: K, input: Spec, weights: Spec | None = None, minlength: int = 0) -> Spec:
    if minlength < 0:
        raise Invalid("minlength should be >= 0", param="minlength")
    if input.dtype.category != INT:
        raise not_implemented("bincount_cpu", input.dtype)
    if input.ndim != 1:
        raise ShapeMismatch("bincount only supports 1-d non-negative integral inputs.", param="input")
    if weights is not None and input.numel and weights.shape != input.shape:
        raise ShapeMismatch("weights should be 1-d and have the same length as input", param="weights")
    d = int64 if weights is None or not input.numel else float32 if weights.dtype is float32 else float64
    return Spec((minlength,), d)


@op(
    family="reductions",
    meta=_bincount_meta,
    vjp=None,
    dynamic=True,
    samples=[S(I(6)), S(I(6), T(6), minlength=8), S(I(0)), S(I(3, dtype="uint8"))],
)
def bincount(k: K, input: Array, weights: Array | None = None, minlength: int = 0) -> Array:
    """How often each non-negative integer occurs in a vector, or the sum of its `weights`."""
    if input.size == 0:
        return k.xp.zeros(minlength, k.spec.dtype.np)
    if weights is not None:
        weights = weights.real.astype(float64.np)
    made = k.xp.bincount(input.astype(int64.np), weights, minlength)
    return made.astype(k.spec.dtype.np)


@bincount.guard
def _(k: K, input: Any, weights: Any = None, minlength: int = 0) -> None:
    if input.size and int(input.min()) < 0:
        raise IndexOutOfRange("bincount only supports 1-d non-negative integral inputs.", param="input")
    bins = max(minlength, int(input.max()) + 1 if input.size else 0)
    k.ctx.admit(2 * 8 * bins + 8 * input.size * (1 if weights is None else 2))  # counted in 64 bits, then converted


def _histc_meta(k: K, input: Spec, bins: int = 100, min: Any = 0, max: Any = 0) -> Spec:
    if bins <= 0:
        raise Invalid(f"torch.histogram(): bins must be > 0, but got {bins} for dimension 0", param="bins")
    for name, bound in (("min", min), ("max", max)):
        if isinstance(bound, complex):
            raise Invalid("value cannot be converted to type double without overflow", param=name)
    if min > max:
        raise Invalid("torch.histc: max must be larger than min", param="max")
    if input.dtype.category != FLOAT:
        raise not_implemented("histogram_cpu", input.dtype)
    return Spec((bins,), input.dtype)


@op(
    family="reductions",
    meta=_histc_meta,
    vjp=None,
    samples=[S(T(10), 4, -2, 2), S(T(3, 4), bins=5), S(T(0), 3), S(T(4), 3, 1.0, 1.0)],
)
def histc(k: K, input: Array, bins: int = 100, min: Scalar = 0, max: Scalar = 0) -> Array:
    """A histogram of equal bins from `min` to `max`, or over the input's range where the two are equal."""
    xp = k.xp
    x = input.reshape(-1)
    low, high = _histogram_range(x, min, max)
    made = xp.zeros(bins, x.dtype)
    if x.size:
        x = x[(x >= low) & (x <= high)]
        at = ((x - low) * bins / (high - low)).astype(int64.np)
        made += xp.bincount(xp.clip(at, 0, bins - 1), None, bins).astype(x.dtype)
    return made


def _histogram_range(x: Array, low: float, high: float) -> tuple[float, float]:
    """The range of a histogram: the values' own where none is given, one wider on both sides where it is a point."""
    if low == high and x.size:
        low, high = float(x.min()), float(x.max())
    return (low - 1, high + 1) if low == high else (low, high)


@histc.guard
def _(k: K, input: Any, bins: int = 100, min: Any = 0, max: Any = 0) -> None:
    low, high = _histogram_range(input, min, max)
    if not (isfinite(low) and isfinite(high)):
        raise Invalid(f"torch.histc: range of [{number(low)}, {number(high)}] is not finite", param="input")


# ---------------------------------------------------------------- once


def _unique_meta(name: str) -> Any:
    def meta(k: K, input: Spec, sorted: bool, dim: Any) -> Any:
        if input.dtype.category == COMPLEX:
            raise not_implemented(name if dim is None else "unique_dim", input.dtype)
        if dim is None:
            n = input.numel
            return Spec((n,), input.dtype), Spec(input.shape, int64), Spec((n,), int64)
        d = wrap_dim(dim, input.ndim, scalar_ok=False)
        if input.shape.count(0) > 1:
            raise ShapeMismatch(
                "Number of zero sized dimensions is more than one, so unique cannot be applied", param="input"
            )
        if any(n == 0 for i, n in enumerate(input.shape) if i != d):
            raise ShapeMismatch(
                "There are 0 sized dimensions, and they aren't selected, so unique cannot be applied", param="input"
            )
        n = input.shape[d]
        return Spec(input.shape, input.dtype), Spec((n,), int64), Spec((n,), int64)

    return meta


def _differs(k: K, rows: Array) -> Array:
    """Whether each row is another than the one before; the first one is. NaN is other than NaN."""
    made = k.xp.ones(rows.shape[0], bool)
    if rows.shape[0] > 1:
        made[1:] = (rows[1:] != rows[:-1]).any(axis=1) if rows.ndim > 1 else rows[1:] != rows[:-1]
    return made


def _runs(k: K, rows: Array) -> tuple[Array, Array, Array]:
    """(the first of each run of equal rows, the run that each row belongs to, the length of each run)."""
    xp = k.xp
    new = _differs(k, rows)
    starts = xp.flatnonzero(new)
    group = xp.cumsum(new) - 1
    ends = xp.append(starts[1:], xp.asarray([rows.shape[0]]))[: starts.shape[0]]
    return rows[starts], group.astype(int64.np), (ends - starts).astype(int64.np)


def _as_rows(k: K, input: Array, dim: Any) -> Array:
    if dim is None:
        return input.reshape(-1)
    moved = k.xp.moveaxis(input, dim, 0)
    return moved.reshape(moved.shape[0], prod(moved.shape[1:]))


def _shaped(k: K, input: Array, dim: Any, made: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    values, inverse, counts = made
    if dim is None:
        return values, inverse.reshape(input.shape), counts
    d = wrap_dim(dim, input.ndim)
    moved = k.xp.moveaxis(values.reshape(-1, *input.shape[:d], *input.shape[d + 1 :]), 0, d)
    kept = k.xp.empty_like(moved)  # slice by slice in memory
    kept[...] = moved
    return kept, inverse, counts


@op(family="sorting", meta=_unique_meta("unique"), vjp=None, dynamic=True, outputs=("result", "inverse", "counts"))
def _unique(k: K, input: Array, sorted: Any, dim: Any) -> Array:
    """All three answers of `unique`."""
    xp = k.xp
    rows = _as_rows(k, input, dim)
    if dim is None:
        order = xp.argsort(rows, kind="stable")
    else:
        order = xp.lexsort(xp.flip(rows, axis=1).T) if rows.shape[1] else xp.arange(rows.shape[0])
    values, group, counts = _runs(k, rows[order])
    inverse = xp.empty(rows.shape[0], int64.np)
    inverse[order] = group
    return _shaped(k, input, dim, (values, inverse, counts))


@op(family="sorting", meta=_unique_meta("unique"), vjp=None, dynamic=True, outputs=("result", "inverse", "counts"))
def _unique_consecutive(k: K, input: Array, sorted: Any, dim: Any) -> Array:
    """All three answers of `unique_consecutive`."""
    return _shaped(k, input, dim, _runs(k, _as_rows(k, input, dim)))


def _chosen(made: Any, inverse: bool, counts: bool) -> Any:
    wanted = [made[0], *([made[1]] if inverse else []), *([made[2]] if counts else [])]
    return wanted[0] if len(wanted) == 1 else wanted


def _admit_once(k: K, input: Any, sorted: Any, dim: Any) -> None:
    """At most everything is there once: the rows in order, twice, and about six numbers for each of them."""
    rows = input.size if dim is None else input.shape[dim]
    k.ctx.admit(2 * input.nbytes + 6 * 8 * rows)


_unique.guard(_admit_once)
_unique_consecutive.guard(_admit_once)


@composite(
    family="sorting",
    moves=True,
    returns="Tensor or list of Tensors",
    samples=[
        S(I(6)),
        S(I(6), return_inverse=True, return_counts=True),
        S(I(4, 2, high=2), dim=0),
        S(T(0)),
        S(B(4)),
        S(I(), return_inverse=True),
    ],
)
def unique(
    F: Any,
    input: Array,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: Dim | None = None,
) -> Array:
    """The distinct elements, or slices along `dim`, in ascending order; on demand where each went, and how many."""
    return _chosen(F._unique(input, sorted, dim), return_inverse, return_counts)


@composite(
    family="sorting",
    moves=True,
    returns="Tensor or list of Tensors",
    samples=[
        S(I(6, values=[1, 1, 2, 2, 2, 1])),
        S(I(6), return_inverse=True, return_counts=True),
        S(I(4, 2, high=2), dim=0),
        S(T(0)),
    ],
)
def unique_consecutive(
    F: Any, input: Array, return_inverse: bool = False, return_counts: bool = False, dim: Dim | None = None
) -> Array:
    """The input without repetitions of what came just before; on demand where each went, and how many."""
    return _chosen(F._unique_consecutive(input, True, dim), return_inverse, return_counts)
