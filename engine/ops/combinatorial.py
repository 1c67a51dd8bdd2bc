"""Products and combinations of vectors, common shapes, sums to a smaller shape."""

from __future__ import annotations

from itertools import chain, combinations_with_replacement
from itertools import combinations as choices
from math import comb, lgamma, log
from typing import Any

import numpy as np

from engine.carriers import K
from engine.context import Context
from engine.declare import Array, Shape, composite, op, special
from engine.dtypes import int64, promote_types
from engine.errors import Invalid, LimitExceeded, ShapeMismatch
from engine.op import Spec
from engine.samples import B, C, I, S, T
from engine.shapes import text

# ---------------------------------------------------------------- shapes


@special(
    family="values", returns="value", example={"shapes": [[2, 1], [3]]}, samples=[S([[2, 1], [3]]), S([]), S([3, [1]])]
)
def broadcast_shapes(ctx: Context, shapes: Any) -> list[int]:
    """The common shape of tensors with these shapes; a whole number stands for a shape of one dimension."""
    if not isinstance(shapes, list | tuple):
        raise Invalid("shapes are lists of whole numbers", code="wrong-type", param="shapes")
    listed = [(s,) if type(s) is int else tuple(s) if isinstance(s, list | tuple) else s for s in shapes]
    for s in listed:
        if type(s) is not tuple or not all(type(n) is int for n in s):
            raise Invalid("shapes are lists of whole numbers", code="wrong-type", param="shapes")
    made = [1] * max((len(s) for s in listed), default=0)
    for at, s in enumerate(listed):
        for i in range(-1, -1 - len(s), -1):
            if made[i] == 1:
                if s[i] < 0:
                    raise ShapeMismatch("Attempting to broadcast a dimension with negative length!", param="shapes")
                made[i] = s[i]
            elif s[i] not in (1, made[i]):
                raise ShapeMismatch(
                    f"Attempting to broadcast a dimension of length {s[i]} at {i}! Mismatching argument at index {at} "
                    f"had {s}; but expected shape should be broadcastable to {made}",
                    param="shapes",
                )
    return made


@composite(
    family="reductions",
    moves=True,
    samples=[
        S(T(3, 4), [1, 4]),
        S(T(2, 3), []),
        S(T(2, 3), [2, 3]),
        S(T(2, 3, 2), [3, 1]),
        S(I(2, 2), [2]),
        S(T(), []),
    ],
)
def sum_to_size(F: Any, input: Array, size: Shape) -> Array:
    """The sum over dimensions, so that the result has a size from which the input's could be broadcast."""
    shape, want = tuple(F.shape(input)), tuple(size)
    lead = len(shape) - len(want)
    if lead < 0 or any(n not in (1, m) for n, m in zip(want, shape[lead:], strict=True)):
        raise ShapeMismatch(f"size {{{text(want)}}} is not expandable to size {{{text(shape)}}}.", param="size")
    if not want:
        return F.sum(input)
    dims = [i for i, n in enumerate(shape) if i < lead or (want[i - lead] == 1 and n != 1)]
    made = F.sum(input, dims, True) if dims else input
    return F.view(made, want) if lead else made


# ---------------------------------------------------------------- products and combinations


_COUNTABLE = 63 * log(2)


def _vector(F: Any, x: Any, param: str) -> None:
    if len(F.shape(x)) != 1:
        raise ShapeMismatch(f"Expect a 1D vector, but got shape {text(F.shape(x))}", param=param)


@composite(family="joining", moves=True, samples=[S([T(2), T(3)]), S([T(2)]), S([I(2), I(1), I(2)]), S([T(0), T(2)])])
def cartesian_prod(F: Any, tensors: list[Array]) -> Array:
    """Every way to take one element of each vector, a row for each, the last vector's changing fastest."""
    for x in tensors:
        _vector(F, x, "tensors")
    if len(tensors) == 1:
        return tensors[0]
    return F.stack([F.flatten(x) for x in F.meshgrid(tensors, "ij")], 1)


def _places_meta(k: K, like: Spec, n: int, r: int, with_replacement: bool) -> Spec:
    return Spec((r, _ways(n, r, with_replacement)), int64)


def _ways(n: int, r: int, with_replacement: bool) -> int:
    total = n + r - 1 if with_replacement and n else n
    if 0 <= r <= total and lgamma(total + 1) - lgamma(r + 1) - lgamma(total - r + 1) > _COUNTABLE:
        raise LimitExceeded(f"there are more ways to choose {r} of {n} than can be counted in 64 bits", param="r")
    return comb(total, r)


@op(family="joining", meta=_places_meta, vjp=None, samples=[S(T(1), 4, 2, False), S(T(1), 2, 3, False)])
def _combination_places(k: K, like: Array, n: int, r: int, with_replacement: bool) -> Array:
    """The places of `r` out of n things, a column for each way to choose them, in lexicographic order."""
    ways = combinations_with_replacement(range(n), r) if with_replacement else choices(range(n), r)
    flat = np.fromiter(chain.from_iterable(ways), np.int64, count=r * _ways(n, r, with_replacement))
    return k.from_host(np.ascontiguousarray(flat.reshape(-1, r).T))


@composite(
    family="joining",
    moves=True,
    samples=[S(T(4)), S(T(3), 3), S(T(3), with_replacement=True), S(I(3), 1), S(T(2), 3), S(C(3))],
)
def combinations(F: Any, input: Array, r: int = 2, with_replacement: bool = False) -> Array:
    """Every way to choose `r` elements of a vector, a row for each, in the order of the elements."""
    _vector(F, input, "input")
    if r < 0:
        raise Invalid(f"Expect a non-negative number, but got {r}", param="r")
    if r == 0:
        return F.new_zeros(input, (0,))
    places = F._combination_places(input, F.shape(input)[0], r, with_replacement)
    return F.stack([F.index_select(input, 0, F._select(places, 0, j)) for j in range(r)], 1)


@composite(
    family="factories",
    moves=True,
    samples=[S(T(3)), S(T(3), 2, True), S(I(2), 4), S(B(2)), S(T(2, grad=False), 0), S(C(2), 3)],
)
def vander(F: Any, x: Array, N: int | None = None, increasing: bool = False) -> Array:
    """Vandermonde's matrix: powers of the elements, a row for each, falling from N - 1 to 0 unless `increasing`."""
    shape = F.shape(x)
    if len(shape) != 1:
        raise ShapeMismatch("x must be a one-dimensional tensor.", param="x")
    n = shape[0] if N is None else N
    if n < 0:
        raise Invalid("N must be non-negative.", param="N")
    d = promote_types(F.dtype(x), int64)
    x = x if F.dtype(x) is d else F._to_dtype(x, d)
    if n == 0:
        return F.new_zeros(x, (shape[0], 0))
    made = F.new_ones(x, (shape[0], 1))
    if n > 1:
        powers = F.cumprod(F.expand(F.unsqueeze(x, 1), (shape[0], n - 1)), 1)
        made = F.cat([made, powers], 1)
    return made if increasing else F.flip(made, [1])
