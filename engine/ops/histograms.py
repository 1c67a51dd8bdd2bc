"""Histograms over any number of dimensions, and whether elements are among others."""

from __future__ import annotations

from math import isfinite, prod
from typing import Any

from engine.carriers import NUMBERS, K
from engine.declare import Array, Ints, Scalar, composite, op
from engine.dtypes import BOOL, C_NAMES, COMPLEX, FLOAT, bool_, scalar_dtype, scalar_type
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented, number
from engine.ops.factories import spaced
from engine.samples import I, S, T
from engine.shapes import text, wrap_dim

# ---------------------------------------------------------------- among others


def _isin_meta(k: K, elements: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False) -> Spec:
    if type(elements) is not Spec and type(test_elements) is not Spec:
        raise Invalid(
            "isin() received an invalid combination of arguments: one of the two must be a tensor",
            code="wrong-type",
            param="elements",
        )
    for x in (elements, test_elements):
        d = x.dtype if type(x) is Spec else scalar_dtype(x, k.default_dtype)
        if d.category in (BOOL, COMPLEX):
            raise DtypeMismatch(f"Unsupported input type encountered for isin(): {scalar_type(d)}", param="elements")
    return Spec(elements.shape if type(elements) is Spec else (), bool_)


@op(
    family="sorting",
    meta=_isin_meta,
    promote="compare",
    row_major=True,
    over=("elements", "test_elements"),
    vjp=None,
    samples=[S(I(2, 3), I(4)), S(T(3), T(2)), S(I(3), 2), S(2, I(3)), S(I(3), I(0)), S(I(4), I(2), invert=True)],
)
def isin(
    k: K,
    elements: Array | Scalar,
    test_elements: Array | Scalar,
    assume_unique: bool = False,
    invert: bool = False,
) -> Array:
    """Whether each of `elements` is among `test_elements`, or with `invert` is not. NaN is among none."""
    xp = k.xp
    d = next(x for x in (elements, test_elements) if type(x) not in NUMBERS).dtype
    mine = xp.asarray(elements, dtype=d)
    others = xp.sort(xp.asarray(test_elements, dtype=d).reshape(-1))
    if not others.size:
        return xp.full(mine.shape, invert)
    flat = mine.reshape(-1)
    at = xp.minimum(xp.searchsorted(others, flat), others.size - 1)
    found = (others[at] == flat).reshape(mine.shape)
    return ~found if invert else found


# ---------------------------------------------------------------- edges


def _edges_meta(k: K, input: Spec, column: int, bins: int, low: Any, high: Any) -> Spec:
    if low is not None:
        _check_range(float(low), float(high), column)
    elif input.numel and input.dtype.name not in ("float32", "float64"):
        raise not_implemented("histogramdd", input.dtype)
    if input.dtype.category != FLOAT:
        raise not_implemented("histogram_cpu", input.dtype)
    return Spec((max(bins, 0) + 1,), input.dtype)


def _check_range(low: float, high: float, column: int) -> None:
    shown = f"[{number(low)}, {number(high)}]"
    if not (isfinite(low) and isfinite(high)):
        raise Invalid(f"torch.histogramdd: dimension {column}'s range {shown} is not finite", param="range")
    if low > high:
        raise Invalid(
            f"torch.histogramdd: min should not exceed max, but got min {number(low)} max {number(high)} for dimension "
            f"{column}",
            param="range",
        )


def _outer(k: K, input: Any, column: int, low: Any, high: Any) -> tuple[float, float]:
    """The outermost edges: as given, or the smallest and the largest value of a column."""
    if low is not None:
        return float(low), float(high)
    if not input.size:
        return 0.0, 1.0
    values = input[:, column]
    return float(values.min()), float(values.max())


@op(family="sorting", meta=_edges_meta, vjp=None, samples=[S(T(4, 2), 1, 3, None, None), S(T(4, 1), 0, 2, 0.0, 1.0)])
def _bin_edges(k: K, input: Array, column: int, bins: int, low: Any, high: Any) -> Array:
    """The edges of equal bins between two numbers, or over the values of a column."""
    first, last = _outer(k, input, column, low, high)
    if first == last:
        first, last = first - 0.5, last + 0.5
    return k.from_host(spaced(first, last, k.spec.shape[0], k.spec.dtype))


@_bin_edges.guard
def _(k: K, input: Any, column: int, bins: int, low: Any, high: Any) -> None:
    _check_range(*_outer(k, input, column, low, high), column)


# ---------------------------------------------------------------- counts


def _counts_meta(k: K, input: Spec, edges: Any, weight: Any, density: bool) -> Spec:
    if input.dtype.category != FLOAT:
        raise not_implemented("histogram_cpu", input.dtype)
    return Spec(tuple([e.shape[0] - 1 for e in edges]), input.dtype)


@op(family="sorting", meta=_counts_meta, vjp=None, samples=[S(T(5, 1), [T(3, values=[-2.0, 0.0, 2.0])], None, True)])
def _binned(k: K, input: Array, edges: list[Array], weight: Array | None, density: bool) -> Array:
    """How many rows fall into each cell of a grid, or the sum of their weights; the last edges belong to the cells."""
    xp, shape = k.xp, k.spec.shape
    if not prod(shape) or not edges:
        return xp.zeros(shape, input.dtype)
    inside = xp.ones(input.shape[0], bool)
    cell = xp.zeros(input.shape[0], "int64")
    for column, edge in enumerate(edges):
        x, bins = input[:, column], edge.shape[0] - 1
        inside &= (x >= edge[0]) & (x <= edge[-1])
        at = xp.searchsorted(edge, x, side="right") - 1
        cell = cell * bins + xp.clip(at, 0, bins - 1)
    weights = None if weight is None else weight.reshape(-1)[inside]
    made = xp.bincount(cell[inside], weights, prod(shape)).astype(input.dtype).reshape(shape)
    if density:
        made = made / made.sum()
        for column, edge in enumerate(edges):
            lengths = edge[1:] - edge[:-1]
            made = made / lengths.reshape(tuple([-1 if i == column else 1 for i in range(len(shape))]))
    return made


def _check_bins(F: Any, input: Any, bins: Any, weight: Any) -> None:
    """What PyTorch asks of edges that are given as tensors."""
    shape, d = F.shape(input), F.dtype(input)
    n = shape[-1]
    if len(bins) != n:
        raise ShapeMismatch(
            f"torch.histogramdd: expected {n} sequences of bin edges for a {n}-dimensional histogram but got "
            f"{len(bins)}",
            param="bins",
        )
    for i, edges in enumerate(bins):
        if F.dtype(edges) is not d:
            raise DtypeMismatch(
                "torch.histogramdd: input tensor and bins tensors should have the same dtype, but got input with dtype "
                f"{C_NAMES[d.name]} and bins for dimension {i} with dtype {C_NAMES[F.dtype(edges).name]}",
                param="bins",
            )
        if len(F.shape(edges)) != 1:
            raise ShapeMismatch(
                f"torch.histogramdd: bins tensor should have one dimension, but got {len(F.shape(edges))} dimensions "
                f"in the bins tensor for dimension {i}",
                param="bins",
            )
        if not F.shape(edges)[0]:
            raise ShapeMismatch(
                "torch.histogramdd: bins tensor should have at least 1 element, but got 0 elements in the bins tensor "
                f"for dimension {i}",
                param="bins",
            )
    _check_weight(F, input, weight)


def _check_counts(counts: Any) -> None:
    for i, n in enumerate(counts):
        if n <= 0:
            raise Invalid(f"torch.histogram(): bins must be > 0, but got {n} for dimension {i}", param="bins")


def _check_weight(F: Any, input: Any, weight: Any) -> None:
    if weight is None:
        return
    shape, d = F.shape(input), F.dtype(input)
    if F.dtype(weight) is not d:
        raise DtypeMismatch(
            "torch.histogramdd: if weight tensor is provided, input tensor and weight tensor should have the same "
            f"dtype, but got input({C_NAMES[d.name]}), and weight({C_NAMES[F.dtype(weight).name]})",
            param="weight",
        )
    if (F.shape(weight) or (1,)) != shape[:-1]:
        raise ShapeMismatch(
            "torch.histogramdd: if weight tensor is provided it should have the same shape as the input tensor "
            f"excluding its innermost dimension, but got input with shape {text(shape)} and weight with shape "
            f"{text(F.shape(weight))}",
            param="weight",
        )


def _grid(F: Any, input: Any, bins: Any, limits: Any, weight: Any, density: bool) -> Any:
    """(the histogram, the edges of each dimension) of the rows of the input."""
    shape = F.shape(input)
    if isinstance(bins, int):
        bins = [bins] * shape[wrap_dim(-1, len(shape), scalar_ok=False)]
    if len(shape) < 2:
        raise ShapeMismatch("torch.histogramdd: input tensor should have at least 2 dimensions", param="input")
    n, d = shape[-1], F.dtype(input)
    rows = F.reshape(input, (prod(shape[:-1]), n))
    if all(isinstance(b, int) for b in bins):
        if len(bins) != n:
            raise ShapeMismatch(
                "histogramdd: The size of bins must be equal to the innermost dimension of the input.", param="bins"
            )
        if limits is not None and len(limits) != 2 * n:
            raise ShapeMismatch(
                f"torch.histogramdd: for a {n}-dimensional histogram range should have {2 * n} elements, but got "
                f"{len(limits)}",
                param="range",
            )
        ends = [(None, None)] * n if limits is None else list(zip(limits[::2], limits[1::2], strict=True))
        edges = [F._bin_edges(rows, i, b, *ends[i]) for i, b in enumerate(bins)]
        _check_counts(bins)
        _check_weight(F, input, weight)
    else:
        _check_bins(F, input, bins, weight)
        _check_counts([F.shape(b)[0] - 1 for b in bins])
        edges = list(bins)
    if d.category != FLOAT:
        raise not_implemented("histogram_cpu", d)
    return F._binned(rows, edges, weight, density), edges


@composite(
    family="sorting",
    moves=True,
    outputs=("hist", "bin_edges"),
    fields=True,
    samples=[
        S(T(8, grad=False), 4),
        S(T(8, grad=False), 4, [0.0, 1.0]),
        S(T(8, grad=False), T(3, values=[-2.0, 0.0, 1.0], grad=False), density=True),
    ],
)
def histogram(
    F: Any,
    input: Array,
    bins: Array | Scalar = 100,
    range: list[float] | None = None,
    weight: Array | None = None,
    density: bool = False,
) -> Any:
    """A histogram of all elements: `bins` equal bins over `range` or over the values, or the bins between given edges.

    Gives the counts, or sums of weights, and the edges. With `density` the integral is 1.
    """
    if isinstance(bins, bool | float | complex):
        raise Invalid(
            "histogram() received an invalid combination of arguments: bins is a whole number or a tensor",
            code="wrong-type",
            param="bins",
        )
    column = F.reshape(input, (prod(F.shape(input)), 1))
    flat = None if weight is None else F.reshape(weight, (prod(F.shape(weight)),))
    made, edges = _grid(F, column, [bins], range, flat, density)
    return [made, edges[0] if isinstance(bins, int) else F.clone(edges[0])]


@composite(
    family="sorting",
    moves=True,
    outputs=("hist", "bin_edges"),
    fields=True,
    samples=[
        S(T(6, 2, grad=False), [2, 3]),
        S(T(6, 2, grad=False), 2, [-1.0, 1.0, -1.0, 1.0], density=True),
        S(T(6, 2, grad=False), [T(3, values=[-2.0, 0.0, 1.0], grad=False), T(2, values=[-1.0, 1.0], grad=False)]),
    ],
)
def histogramdd(
    F: Any,
    input: Array,
    bins: Ints | list[Array],
    range: list[float] | None = None,
    weight: Array | None = None,
    density: bool = False,
) -> Any:
    """A histogram of points, the last dimension holding their coordinates: a number of bins, or edges, for each.

    Gives the counts, or sums of weights, and a list of the edges. With `density` the integral is 1.
    """
    made, edges = _grid(F, input, bins, range, weight, density)
    return [made, edges]
