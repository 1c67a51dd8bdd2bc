"""Norms and distances: norm, normalize, renorm, cosine_similarity, cdist and their kin."""

from __future__ import annotations

from math import inf, prod
from typing import Any, Literal

from engine.autograd import vjp_through
from engine.carriers import K
from engine.declare import Array, Dim, Dims, DTypeArg, Scalar, composite, op
from engine.dtypes import FLOAT, float32, float64, int64, result_type, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented, number
from engine.ops.normalization import sum_squares
from engine.ops.reductions import total
from engine.samples import C, S, T
from engine.shapes import broadcast_two, wrap_dim

# ---------------------------------------------------------------- norm

_NORMS = [
    S(T(2, 3)),
    S(T(2, 3), 1),
    S(T(2, 3, low=0.2), 3, 1),
    S(T(2, 3), "fro", [0, 1]),
    S(T(2, 3, distinct=True), inf, 0, True),
    S(C(2, 3), 2, 1),
    S(T()),
]


@composite(family="linalg", moves=True, samples=_NORMS)
def norm(
    F: Any,
    input: Array,
    p: Scalar | str | None = "fro",
    dim: Dims | None = None,
    keepdim: bool = False,
    dtype: DTypeArg | None = None,
) -> Array:
    """The p-norm of all elements, or of vectors along `dim`: (sum |x|^p)^(1/p); `p` may be "fro", "nuc" or infinite.

    "nuc" is the nuclear norm of matrices.
    """
    dims = [dim] if isinstance(dim, int) else dim
    if isinstance(p, str) and p.lstrip("-") in ("inf", "Infinity"):
        p = -inf if p.startswith("-") else inf
    if isinstance(p, str):
        if p == "fro" and (dims is None or len(dims) <= 2):
            return F.vector_norm(input, 2.0, dims, keepdim, dtype)
        return F.matrix_norm(input, p, list(range(len(F.shape(input)))) if dims is None else dims, keepdim, dtype)
    return F.vector_norm(input, 2.0 if p is None else p, dims, keepdim, dtype)


@composite(
    family="linalg", node="DistBackward0", samples=[S(T(2, 3), T(3)), S(T(3), T(3), 3), S(T(), T()), S(C(3), C(3))]
)
def dist(F: Any, input: Array, other: Array, p: Scalar = 2) -> Array:
    """The p-norm of the difference of two tensors, which broadcast."""
    made = F.sub(input, other)
    if F.dtype(made).category < FLOAT:
        raise DtypeMismatch(
            "norm(): input dtype should be either floating point or complex. Got "
            f"{scalar_type(F.dtype(made))} instead.",
            hint=Hint("cast-input", Call("to", {"input": Param("input"), "dtype": "float32"}), have=F.dtype(made).name),
            param="input",
        )
    return F.vector_norm(made, p)


# ---------------------------------------------------------------- scaling to a norm


@composite(
    family="nn",
    name="nn.functional.normalize",
    node="DivBackward0",
    samples=[S(T(2, 3)), S(T(2, 3), 3.0, 0), S(T(3), dim=0, eps=0.5), S(C(2, 3)), S(T(2, 3), dim=[0, 1])],
)
def normalize(F: Any, input: Array, p: float = 2.0, dim: Dims | None = 1, eps: float = 1e-12) -> Array:
    """Vectors along `dim`, or all of them together, divided by their p-norm, or by `eps` where that is larger."""
    size = F.clamp_min(F.vector_norm(input, p, dim, True), eps)
    return F.div(input, F.expand(size, F.shape(input)))


def scaled_down(F: Any, input: Array, p: Scalar, dim: Dim, maxnorm: Scalar) -> Array:
    """The slices along `dim` whose p-norm is over `maxnorm`, scaled down to it."""
    shape = F.shape(input)
    if maxnorm == inf:  # nothing is over it, and its gradient would be NaN
        return F.clone(input)
    d = wrap_dim(dim, len(shape))
    size = F.vector_norm(input, p, [i for i in range(len(shape)) if i != d], True)
    return F.mul(input, F.where(F.gt(size, maxnorm), maxnorm / (size + 1e-7), 1.0))


def _renorm_meta(k: K, input: Spec, p: Any, dim: int, maxnorm: Any) -> Spec:
    for name, given in (("p", p), ("maxnorm", maxnorm)):
        if type(given) is complex:
            raise Invalid(f"renorm: {name} must be real-valued", param=name)
    if not p > 0:
        raise Invalid("renorm: non-positive-norm not supported", param="p")
    if not maxnorm >= 0:
        raise Invalid(f"renorm: expected maxnorm to be >= 0 but got {number(maxnorm)}", param="maxnorm")
    if input.ndim <= 1:
        raise ShapeMismatch(f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions", param="input")
    wrap_dim(dim, input.ndim)
    if input.dtype.category < FLOAT:
        raise DtypeMismatch(
            f"linalg.vector_norm: Expected a floating point or complex tensor as input. Got {scalar_type(input.dtype)}",
            hint=Hint("cast-input", Call("to", {"input": Param("input"), "dtype": "float32"}), have=input.dtype.name),
            param="input",
        )
    return input


@op(
    family="linalg",
    meta=_renorm_meta,
    inplace=True,
    save={"input": ("input",)},
    samples=[S(T(2, 3), 2, 0, 1.0), S(T(2, 3), 1, 1, 0.5), S(T(2, 3, low=0.5), 3, 0, 1.5), S(C(2, 3), 2, 0, 1.0)],
)
def renorm(k: K, input: Array, p: Scalar, dim: Dim, maxnorm: Scalar) -> Array:
    """The slices along `dim` whose p-norm is over `maxnorm`, scaled down to it."""
    return k.xp.ascontiguousarray(scaled_down(k.raw, input, p, dim, maxnorm))


@renorm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return vjp_through(scaled_down)(F, saved, g, need)


# ---------------------------------------------------------------- similarities and distances of pairs


def _at_least(F: Any, x: Any, low: float) -> Any:
    """max(x, low), with the gradient of x throughout: PyTorch clamps where no tape runs."""
    return x + F.detach(F.clamp_min(x, low) - x)


@composite(
    family="nn",
    name="nn.functional.cosine_similarity",
    alias=("cosine_similarity",),
    node="SumBackward1",
    samples=[S(T(2, 3), T(2, 3)), S(T(2, 3), T(3)), S(T(3), T(3), dim=0, eps=1.0)],
)
def cosine_similarity(F: Any, x1: Array, x2: Array, dim: Dim = 1, eps: float = 1e-8) -> Array:
    """The cosine of the angle between vectors along `dim`; norms count as no smaller than `eps`."""
    if not eps >= 0:
        raise Invalid(f"eps must be non-negative, got: {eps:g}", param="eps")
    a, b = F.shape(x1), F.shape(x2)
    common = result_type(((F.dtype(x1), 2 if a else 1), (F.dtype(x2), 2 if b else 1)))
    if common.category != FLOAT:
        raise DtypeMismatch(
            f"expected common dtype to be floating point, yet common dtype is {scalar_type(common)}", param="x1"
        )
    shape = broadcast_two(a, b)
    pair = []
    for x in (x1, x2):
        x = F.expand(x if F.dtype(x) is common else F._to_dtype(x, common), shape)
        pair.append(F.div(x, _at_least(F, F.vector_norm(x, 2.0, dim, True), eps)))
    return F.sum(F.mul(*pair), dim)


@composite(
    family="nn",
    name="nn.functional.pairwise_distance",
    alias=("pairwise_distance",),
    node="NormBackward1",
    samples=[S(T(2, 3), T(2, 3)), S(T(2, 3), T(3), 1.0, keepdim=True), S(T(3), T(3), 3.0), S(C(2, 3), C(2, 3))],
)
def pairwise_distance(F: Any, x1: Array, x2: Array, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Array:
    """The p-norm of x1 - x2 + eps along the last dimension; the two broadcast."""
    difference = F.add(F.sub(x1, x2), float(eps))
    return F.vector_norm(difference, p, len(F.shape(difference)) - 1 if F.shape(difference) else None, keepdim)


def _cdist_meta(k: K, x1: Spec, x2: Spec, p: float = 2.0, compute_mode: str = "") -> Spec:
    for name, x in (("X1", x1), ("X2", x2)):
        if x.dtype.category != FLOAT:
            raise DtypeMismatch(
                f"cdist only supports floating-point dtypes, {name} got: {scalar_type(x.dtype)}", param=name.lower()
            )
        if x.ndim < 2:
            raise ShapeMismatch(f"cdist only supports at least 2D tensors, {name} got: {x.ndim}D", param=name.lower())
    if x1.shape[-1] != x2.shape[-1]:
        raise ShapeMismatch(
            f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}", param="x2"
        )
    if not p >= 0:
        raise Invalid("cdist only supports non-negative p values", param="p")
    if x1.dtype is not x2.dtype:
        raise DtypeMismatch(
            f"expected scalar type {scalar_type(x1.dtype)} but found {scalar_type(x2.dtype)}", param="x2"
        )
    if x1.dtype.reduced:
        raise not_implemented("cdist", x1.dtype)
    if compute_mode not in _MODES:
        raise Invalid(f"{compute_mode} is not a valid value for compute_mode", param="compute_mode")
    batch = broadcast_two(x1.shape[:-2], x2.shape[:-2])
    return Spec((*batch, x1.shape[-2], x2.shape[-2]), x1.dtype)


_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")
# Differences of pairs are formed in pieces of at most this many elements.
_PIECE = 1 << 22


def _pieces(a: Array) -> Any:
    """Ranges of the rows of x1 whose differences fit in a piece."""
    rows, per_row = a
    step = max(_PIECE // max(per_row, 1), 1)
    return ((i, min(i + step, rows)) for i in range(0, rows, step))


@op(
    family="nn",
    meta=_cdist_meta,
    save={"x1": ("x1", "x2", "result"), "x2": ("x1", "x2", "result")},
    samples=[
        S(T(2, 3), T(4, 3)),
        S(T(2, 3, distinct=True), T(4, 3), 1.0),
        S(T(2, 2, 3), T(4, 3), 3.0),
        S(T(0, 3), T(2, 3)),
    ],
)
def cdist(
    k: K,
    x1: Array,
    x2: Array,
    p: float = 2.0,
    compute_mode: Literal[
        "use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"
    ] = "use_mm_for_euclid_dist_if_necessary",
) -> Array:
    """The p-norm distance between each row of x1 (..., P, M) and each row of x2 (..., R, M): (..., P, R).

    Euclidean distances of many rows are computed by a matrix product, which `compute_mode` can forbid.
    """
    xp = k.xp
    shape = k.spec.shape
    made = xp.zeros(shape, x1.dtype)
    if not made.size or not x1.shape[-1]:
        return made
    large = x1.shape[-2] > 25 or x2.shape[-2] > 25
    if p == 2 and (compute_mode == _MODES[1] or (compute_mode == _MODES[0] and large)):
        squares = (x1 * x1).sum(axis=-1)[..., :, None] + (x2 * x2).sum(axis=-1)[..., None, :]
        squares = squares - 2 * (x1 @ x2.swapaxes(-1, -2))
        return xp.sqrt(xp.maximum(squares, 0))
    per_row = prod(shape[:-2]) * x2.shape[-2] * x1.shape[-1]
    for low, high in _pieces((x1.shape[-2], per_row)):
        size = x1[..., low:high, None, :] - x2[..., None, :, :]
        if p == 2:
            part = xp.sqrt(sum_squares(k, size.reshape(-1, size.shape[-1]))).reshape(size.shape[:-1])
        elif p == inf:
            part = xp.abs(size, out=size).max(axis=-1)
        elif p == 1:
            part = total(k, xp.abs(size, out=size), (size.ndim - 1,))
        elif p == 0:
            part = xp.where(xp.isnan(size), size, size != 0).sum(axis=-1).astype(size.dtype)
        else:
            part = total(k, xp.abs(size, out=size) ** p, (size.ndim - 1,)) ** (1.0 / p)
        made[..., low:high, :] = part
    return made


def _all_pairs(F: Any, x1: Array, x2: Array, p: float = 2.0, compute_mode: str = "") -> Array:
    """cdist as a norm of all differences."""
    return F.vector_norm(F.sub(F.unsqueeze(x1, -2), F.unsqueeze(x2, -3)), p, -1)


@cdist.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x1, x2 = saved.x1, saved.x2
    if 0 in F.shape(g):  # of no distances; sums of nothing times an infinity would be NaN
        return need.x1 and F.zeros_like(x1), need.x2 and F.zeros_like(x2)
    if saved.p != 2:
        return vjp_through(_all_pairs)(F, saved, g, need)
    # d |a - b| / da = (a - b) / |a - b|, and zero where the rows are equal: two matrix products.
    weight = F.where(F.eq(saved.result, 0), 0.0, g / saved.result)
    mine = need.x1 and F.sum(weight, -1, True) * x1 - F.matmul(weight, x2)
    turned = F.transpose(weight, -1, -2)
    return mine, need.x2 and F.sum(turned, -1, True) * x2 - F.matmul(turned, x1)


@composite(
    family="nn",
    name="nn.functional.pdist",
    alias=("pdist",),
    node="PdistBackward0",
    samples=[S(T(4, 3)), S(T(3, 2, distinct=True), 1.0), S(T(1, 3))],
)
def pdist(F: Any, input: Array, p: float = 2.0) -> Array:
    """The p-norm distances of all pairs of rows: (0, 1), (0, 2), ..., (1, 2), ...; a vector of n (n - 1) / 2."""
    shape = F.shape(input)
    if len(shape) != 2:
        raise ShapeMismatch(f"pdist only supports 2D tensors, got: {len(shape)}D", param="input")
    if F.dtype(input) not in (float32, float64):
        if F.dtype(input).reduced:
            raise not_implemented("pdist", F.dtype(input))
        raise DtypeMismatch("pdist only supports floating-point dtypes", param="input")
    if not p >= 0:
        raise Invalid("pdist only supports non-negative p values", param="p")
    n = shape[0]
    flat = F.reshape(F.cdist(input, input, p, _MODES[2]), (n * n,))
    return F.gather(flat, 0, F._upper_places(flat, n))


def _upper_meta(k: K, like: Spec, n: Any) -> Spec:
    return Spec((n * (n - 1) // 2,), int64)


@op(family="nn", meta=_upper_meta, vjp=None)
def _upper_places(k: K, like: Array, n: Any) -> Array:
    """The flat indices above the diagonal of an n x n matrix, on the device of `like`."""
    row, column = k.xp.triu_indices(n, 1)
    return row * n + column
