"""Differences of neighbours, derivatives estimated by them, and integrals by the trapezoidal rule."""

from __future__ import annotations

from typing import Any

from engine.declare import Array, Dim, Dims, Scalar, composite
from engine.dtypes import BOOL, uint8
from engine.errors import DimOutOfRange, DtypeMismatch, Invalid, ShapeMismatch
from engine.samples import B, C, I, S, T
from engine.shapes import wrap_dim, wrap_dims


def _part(F: Any, x: Any, dim: int, start: int | None, end: int | None) -> Any:
    """x[start:end] along a dimension, as Python counts."""
    n = F.shape(x)[dim]
    low, high, _ = slice(start, end).indices(n)
    return F._slice(x, dim, low, max(high, low), 1)


# ---------------------------------------------------------------- differences


def _check_joined(F: Any, input: Any, other: Any, dim: int) -> None:
    mine, theirs = F.shape(input), F.shape(other)
    d = wrap_dim(dim, len(mine), scalar_ok=False)
    if len(mine) != len(theirs):
        raise ShapeMismatch("diff expects prepend or append to be the same dimension as input", param="prepend")
    for i, (n, m) in enumerate(zip(mine, theirs, strict=True)):
        if i != d and n != m:
            raise ShapeMismatch(
                "diff expects the shape of tensor to prepend or append to match that of input except along the "
                f"differencing dimension; input.size({i}) = {n}, but got tensor.size({i}) = {m}",
                param="prepend",
            )


@composite(
    family="reductions",
    moves=True,  # each difference is rounded
    samples=[
        S(T(4)),
        S(T(3, 4), 2, 0),
        S(T(2, 3), prepend=T(2, 1), append=T(2, 2)),
        S(B(4)),
        S(I(4), 3),
        S(C(3)),
        S(T(2, 3), 0),
        S(T(2), 5),
    ],
)
def diff(
    F: Any, input: Array, n: int = 1, dim: Dim = -1, prepend: Array | None = None, append: Array | None = None
) -> Array:
    """Differences of neighbours along `dim`, x[i + 1] - x[i], taken `n` times; `prepend` and `append` join it first."""
    shape = F.shape(input)
    if not shape:
        raise ShapeMismatch("diff expects input to be at least one-dimensional", param="input")
    if n < 0:
        raise Invalid(f"order must be non-negative but got {n}", param="n")
    for other in (prepend, append):
        if other is not None:
            _check_joined(F, input, other, dim)
    if n == 0:
        return F.clone(input)
    made = input
    if prepend is not None or append is not None:
        made = F.cat([x for x in (prepend, input, append) if x is not None], dim)
    d = wrap_dim(dim, len(shape))
    for _ in range(min(n, F.shape(made)[d])):
        after, before = _part(F, made, d, 1, None), _part(F, made, d, 0, -1)
        made = F.logical_xor(after, before) if F.dtype(made).category == BOOL else F.sub(after, before)
    return made


# ---------------------------------------------------------------- derivatives


def _scalar_slope(F: Any, x: Any, d: int, step: complex, edge_order: int) -> Any:
    """Central differences with one spacing, and one-sided ones at both ends."""
    centre = F.div(F.sub(_part(F, x, d, 2, None), _part(F, x, d, 0, -2)), step)
    if edge_order == 1:
        first = F.div(F.sub(_part(F, x, d, 1, 2), _part(F, x, d, 0, 1)), step)
        last = F.div(F.sub(_part(F, x, d, -1, None), _part(F, x, d, -2, -1)), step)
    else:
        first = _weighted(F, x, d, ((0, 1, -1.5), (1, 2, 2), (2, 3, -0.5)))
        last = _weighted(F, x, d, ((-3, -2, 0.5), (-2, -1, -2), (-1, None, 1.5)))
        first, last = F.div(first, step), F.div(last, step)
    return F.cat([first, F.div(centre, 2), last], d)


def _weighted(F: Any, x: Any, d: int, rows: Any) -> Any:
    """The sum of parts of x, each times its weight: a number or a tensor."""
    made: Any = None
    for start, end, weight in rows:
        term = F.mul(_part(F, x, d, start, end), weight)
        made = term if made is None else F.add(made, term)
    return made


def _uneven_slope(F: Any, x: Any, d: int, places: Any, edge_order: int) -> Any:
    """The same over places that need not be evenly spaced: parabolas through three neighbours (Fornberg, 1988)."""
    steps = F.diff(places, 1, 0)
    one, two = _part(F, steps, 0, 0, -1), _part(F, steps, 0, 1, None)
    shape = tuple([-1 if i == d else 1 for i in range(len(F.shape(x)))])
    both = F.add(one, two)
    a = F.reshape(F.div(F.neg(two), F.mul(one, both)), shape)
    b = F.reshape(F.div(F.sub(two, one), F.mul(one, two)), shape)
    c = F.reshape(F.div(one, F.mul(two, both)), shape)
    centre = _weighted(F, x, d, ((0, -2, a), (1, -1, b), (2, None, c)))
    n = F.shape(steps)[0]
    h = [F._select(steps, 0, i % n) for i in (0, 1, -2, -1)] if n > 1 else [F._select(steps, 0, 0)] * 4
    if edge_order == 1:
        first = F.div(F.sub(_part(F, x, d, 1, 2), _part(F, x, d, 0, 1)), h[0])
        last = F.div(F.sub(_part(F, x, d, -1, None), _part(F, x, d, -2, -1)), h[3])
        return F.cat([first, centre, last], d)
    both = F.add(h[0], h[1])
    a = F.div(F.neg(F.add(F.mul(h[0], 2.0), h[1])), F.mul(h[0], both))
    b = F.div(both, F.mul(h[0], h[1]))
    c = F.div(F.neg(h[0]), F.mul(h[1], both))
    first = _weighted(F, x, d, ((0, 1, a), (1, 2, b), (2, 3, c)))
    both = F.add(h[3], h[2])
    a = F.div(h[3], F.mul(h[2], both))
    b = F.div(F.neg(both), F.mul(h[3], h[2]))
    c = F.div(F.add(F.mul(h[3], 2), h[2]), F.mul(h[3], both))
    last = _weighted(F, x, d, ((-3, -2, a), (-2, -1, b), (-1, None, c)))
    return F.cat([first, centre, last], d)


def _check_gradient(F: Any, x: Any, count: int | None, dim: Any, edge_order: int) -> tuple[int, ...]:
    """The wrapped dims. Raises in PyTorch's order and words."""
    shape = F.shape(x)
    if F.dtype(x) is uint8:
        raise DtypeMismatch("torch.gradient does not support uint8 input.", param="input")
    if count is not None and dim is None and count != len(shape):
        raise ShapeMismatch(
            "torch.gradient expected spacing to be unspecified, a scalar, or a list of length equal to "
            f"'self.dim() = {len(shape)}', since dim argument was not given, but got a list of length {count}",
            param="spacing",
        )
    if count is not None and dim is not None and count != len(dim):
        raise ShapeMismatch(
            "torch.gradient expected spacing to be unspecified, a scalar or it's spacing and dim arguments to have the "
            f"same length, but got a spacing argument of length {count} and a dim argument of length {len(dim)}.",
            param="spacing",
        )
    if edge_order not in (1, 2):
        raise Invalid("torch.gradient only supports edge_order=1 and edge_order=2.", param="edge_order")
    dims = tuple(range(len(shape))) if dim is None else wrap_dims(dim, len(shape), empty_is_all=False)
    for d in dims:
        if shape and shape[d] < edge_order + 1:
            raise ShapeMismatch(
                "torch.gradient expected each dimension size to be at least edge_order+1", param="input"
            )
    return dims


@composite(
    family="reductions",
    moves=True,
    returns="list of Tensors",
    samples=[
        S(T(4)),
        S(T(3, 4), spacing=0.5, dim=1),
        S(T(3, 4), spacing=[1.0, 2.0], edge_order=2),
        S(T(3, 4), spacing=[T(3, values=[0.0, 1.0, 3.0], grad=False), T(4, values=[0.0, 0.5, 2.0, 3.0], grad=False)]),
        S(T(4), spacing=[T(4, values=[0.0, 0.5, 2.0, 3.0], grad=False)], edge_order=2),
        S(I(4)),
        S(C(3)),
    ],
)
def gradient(
    F: Any,
    input: Array,
    spacing: Scalar | list[Scalar] | list[Array] | None = None,
    dim: Dims | None = None,
    edge_order: int = 1,
) -> Array:
    """The derivative of a sampled function along each of the dimensions, by central differences of second order.

    `spacing` is the distance of samples, one for all or one a dimension, or a list of the places of the samples.
    """
    dims = [dim] if isinstance(dim, int) else dim
    if not isinstance(spacing, list | tuple):
        step = 1 if spacing is None else spacing
        wrapped = _check_gradient(F, input, None, dims, edge_order)
        return [_scalar_slope(F, input, d, step, edge_order) for d in wrapped]
    wrapped = _check_gradient(F, input, len(spacing), dims, edge_order)
    made = []
    for d, places in zip(wrapped, spacing, strict=True):
        if isinstance(places, bool | int | float | complex):
            made.append(_scalar_slope(F, input, d, places, edge_order))
            continue
        if len(F.shape(places)) != 1:
            raise ShapeMismatch(
                "torch.gradient expected each element of spacing to have one dimension, but got an element with "
                f"{len(F.shape(places))} dimensions!",
                param="spacing",
            )
        made.append(_uneven_slope(F, input, d, places, edge_order))
    return made


# ---------------------------------------------------------------- integrals


def _steps(F: Any, name: str, y: Any, x: Any, d: int) -> Any:
    """The distances of the places `x`, in as many dimensions as y has, or more."""
    shape = F.shape(y)
    places = F.shape(x)
    if len(places) == 1:
        if places[0] != shape[d]:
            raise ShapeMismatch(f"{name}: There must be one `x` value for each sample point", param="x")
        x = F.reshape(x, tuple([places[0] if i == d else 1 for i in range(len(shape))]))
    elif len(places) < len(shape):
        x = F.reshape(x, (1,) * (len(shape) - len(places)) + tuple(places))
    return F.sub(_part(F, x, d, 1, None), _part(F, x, d, 0, -1))


def _check_integral(F: Any, name: str, y: Any, x: Any, dx: Any, dim: int) -> int:
    """The wrapped dim. Raises in PyTorch's words."""
    d = wrap_dim(dim, len(F.shape(y)))
    if not F.shape(y):
        if name == "trapezoid":
            wrap_dim(dim if x is None else d, 0, scalar_ok=False)
        raise DimOutOfRange("slice() cannot be applied to a 0-dim tensor.", param="y")
    if x is not None:
        if BOOL in (F.dtype(y).category, F.dtype(x).category):
            raise DtypeMismatch(f"{name}: received a bool input for `x` or `y`, but bool is not supported", param="y")
        if dx != 1:
            raise Invalid(f"{name}() received an invalid combination of arguments: both x and dx", param="dx")
        return d
    if F.dtype(y).category == BOOL:
        raise DtypeMismatch(f"{name}: received a bool input for `y`, but bool is not supported", param="y")
    if isinstance(dx, complex | bool):
        raise Invalid(f"{name}: Currently, we only support dx as a real number.", param="dx")
    return d


def _pairs(F: Any, y: Any, dim: int) -> Any:
    return F.add(_part(F, y, dim, 0, -1), _part(F, y, dim, 1, None))


def _integral(F: Any, y: Any, x: Any, dx: Any, dim: int) -> Any:
    d = _check_integral(F, "trapezoid", y, x, dx, dim)
    shape = F.shape(y)
    if shape[d] == 0:
        return F.new_zeros(y, tuple(shape[:d] + shape[d + 1 :]))
    if x is None:
        ends = F.mul(F.add(F._select(y, d, 0), F._select(y, d, shape[d] - 1)), 0.5)
        return F.mul(F.sub(F.sum(y, [d]), ends), float(dx))
    return F.div(F.sum(F.mul(_pairs(F, y, d), _steps(F, "trapezoid", y, x, d)), [d]), 2.0)


_SAMPLES = [
    S(T(4)),
    S(T(3, 4), dx=0.5, dim=0),
    S(T(3, 4), T(4)),
    S(T(2, 3), T(2, 3), dim=0),
    S(I(4)),
    S(C(3), T(3)),
    S(T(2, 1)),
]


@composite(family="reductions", moves=True, samples=[*_SAMPLES, S(T(2, 0, grad=False))])
def trapezoid(F: Any, y: Array, x: Array | None = None, dx: Scalar = 1, dim: Dim = -1) -> Array:
    """The integral of y along `dim` by the trapezoidal rule, its samples `dx` apart or at the places `x`."""
    return _integral(F, y, x, dx, dim)


@composite(family="reductions", moves=True, samples=_SAMPLES)
def trapz(F: Any, y: Array, x: Array | None = None, dx: float = 1, dim: Dim = -1) -> Array:
    """The integral of y along `dim`; another name of `trapezoid`."""
    return _integral(F, y, x, dx, dim)


@composite(family="reductions", moves=True, samples=_SAMPLES)
def cumulative_trapezoid(F: Any, y: Array, x: Array | None = None, dx: Scalar = 1, dim: Dim = -1) -> Array:
    """The integral of y from the first sample to each of the others, by the trapezoidal rule."""
    d = _check_integral(F, "cumulative_trapezoid", y, x, dx, dim)
    if x is not None:
        steps = _steps(F, "cumulative_trapezoid", y, x, d)
        return F.div(F.cumsum(F.mul(_pairs(F, y, d), steps), d), 2.0)
    return F.cumsum(F.mul(_pairs(F, y, d), float(dx) / 2.0), d)
