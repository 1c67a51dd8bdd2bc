"""Least squares, and the covariances and approximations of low rank that statistics needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import BOOL, COMPLEX, FLOAT, INT, int64, scalar_type, to_real
from engine.errors import DtypeMismatch, Hint, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops import lapack
from engine.ops.lapack import on_host
from engine.ops.linalg import _element, is_vector
from engine.ops.products import adjoint, cast_hint
from engine.samples import C, I, S, T
from engine.shapes import broadcast_two

# ---------------------------------------------------------------- lstsq

_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


def _lstsq_specs(A: Spec, B: Spec, driver: str) -> tuple[Spec, Spec, Spec, Spec]:
    *batch, m, n = A.shape
    columns = B.shape[-1]
    real = to_real(A.dtype)
    residuals = (*batch, columns) if m > n and driver != "gelsy" else (0,)
    return (
        Spec((*batch, n, columns), A.dtype),
        Spec(residuals, real),
        Spec(tuple(batch) if driver != "gels" else (0,), int64),
        Spec((*batch, min(m, n)) if driver in ("gelsd", "gelss") else (0,), real),
    )


@op(
    family="linalg",
    meta=lambda k, A, B, rcond, driver: _lstsq_specs(A, B, driver),
    outputs=("solution", "residuals", "rank", "singular_values"),
    nondiff=("rank", "singular_values"),
    save={"A": ("A", "B", "solution"), "B": ("A", "B", "solution")},
    node="LinalgLstsqBackward0",
    dynamic=True,
)
def _lstsq(k: K, A: Array, B: Array, rcond: Any, driver: Any) -> Any:
    """The solutions of least squares problems; residuals are left out where any matrix lacks full rank."""
    m, n = A.shape[-2:]
    if rcond is None:
        rcond = float(np.finfo(A.dtype).eps) * max(m, n)
    if not bool(k.xp.isfinite(A).all()):
        raise Invalid(
            "torch.linalg.lstsq: the least squares solution could not be computed because the input matrix contained "
            "non-finite values.",
            code="not-finite",
            hint=Hint("not-finite"),
            param="A",
        )

    def run(a: Any, b: Any) -> Any:
        found, rank, values, info = lapack.least_squares(a, b, rcond, driver)
        for at in np.flatnonzero(info):
            i = int(info.reshape(-1)[at])
            said = _element(A.shape[:-2], int(at))
            if driver == "gels":
                raise Invalid(
                    f"torch.linalg.lstsq: {said}The least squares solution could not be computed because the input "
                    f"matrix does not have full rank (error code: {i}).",
                    code="singular",
                    hint=Hint("singular"),
                    param="A",
                )
            raise Invalid(
                f"torch.linalg.lstsq: {said}The least squares solution could not be computed because SVD failed to "
                f"converge (error code: {i}).",
                code="not-finite",
                param="A",
            )
        full = driver == "gels" or bool((rank == n).all())
        residuals = np.zeros((0,), values.dtype)
        if m > n and driver != "gelsy" and full:
            rest = found[..., n:, :]
            residuals = np.square(np.abs(rest)).sum(-2, dtype=values.dtype)
        none = np.zeros((0,), values.dtype)
        return (
            found[..., :n, :],
            residuals,
            rank if driver != "gels" else np.zeros((0,), np.int64),
            values if driver in ("gelsd", "gelss") else none,
        )

    return on_host(k, run, A, B)


@_lstsq.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    # X = A^+ B, so its gradients are those of the pseudoinverse and of a product; residuals are |A X - B|^2.
    A, B, X = saved.A, saved.B, saved.solution
    to_a = to_b = None
    if g[0] is not None:
        p = F._pinv(A, None, None, False)
        to_b = F.matmul(adjoint(F, p), g[0])
        if need.A:
            to_a = _pinv_rule(F, A, p, F.matmul(g[0], adjoint(F, B)))
    if g[1] is not None and g[1].shape[-1:] == B.shape[-1:] and len(g[1].shape) == len(B.shape) - 1:
        rest = F.sub(F.matmul(A, X), B)
        shape = F.shape(g[1])
        share = F.mul(F.mul(F.reshape(g[1], (*shape[:-1], 1, shape[-1])), rest), 2.0)
        to_b = F.neg(share) if to_b is None else F.sub(to_b, share)
        part = F.matmul(share, adjoint(F, X))
        to_a = part if to_a is None else F.add(to_a, part)
    return need.A and to_a, need.B and to_b


def _pinv_rule(F: Any, A: Any, p: Any, g: Any) -> Any:
    """The gradient of A from that of its pseudoinverse p, where A keeps its rank (Golub and Pereyra 1973).

    -p^H g p^H + (I - A p) g^H p p^H + p^H p g^H (I - p A), of which the second vanishes where A has full row rank, and
    the third where it has full column rank.
    """
    ph, gh = adjoint(F, p), adjoint(F, g)
    m, n = F.shape(A)[-2:]
    if m >= n:  # products are taken in the order in which none is larger than the smaller side squared, or A
        made = F.matmul(ph, F.matmul(g, ph))
        left = F.matmul(F.sub(gh, F.matmul(A, F.matmul(p, gh))), F.matmul(p, ph))
        right = F.matmul(ph, F.matmul(p, F.sub(gh, F.matmul(gh, F.matmul(p, A)))))
    else:
        made = F.matmul(F.matmul(ph, g), ph)
        left = F.matmul(F.matmul(F.sub(gh, F.matmul(F.matmul(A, p), gh)), p), ph)
        right = F.matmul(F.matmul(ph, p), F.sub(gh, F.matmul(F.matmul(gh, p), A)))
    return F.add(F.sub(left, made), right)


@composite(
    family="linalg",
    name="linalg.lstsq",
    outputs=("solution", "residuals", "rank", "singular_values"),
    fields=True,
    moves=True,
    samples=[
        S(T(3, 2), T(3, 2)),
        S(T(3, 2), T(3)),
        S(T(2, 3), T(2, 2)),
        S(T(3, 2), T(3, 2), driver="gelsd", gradcheck=False),
        S(T(3, 2), T(3, 2), driver="gels"),
        S(T(3, 2), T(3, 2), driver="gelss", gradcheck=False),
        S(T(2, 3, 2), T(2, 3, 1)),
        S(T(2, 3, 2), T(2, 3)),
        S(C(3, 2), C(3, 2)),
        S(T(2, 0), T(2, 1)),
    ],
    example={"A": [[1.5, 0.5], [2.5, 0.5], [3.5, 0.5]], "B": [2.5, 3.5, 5.5]},
)
def lstsq(F: Any, A: Array, B: Array, rcond: float | None = None, driver: str | None = None) -> Array:
    """X that makes the norm of A X - B smallest: (..., m, n) and (..., m, k) give (..., n, k).

    `residuals` are the squared norms, where m > n and A has full rank (driver gelsy has none); `rank` and
    `singular_values` are empty where the driver does not compute them. Drivers are LAPACK's: gels takes full rank for
    granted, gelsy (the default) pivots, gelsd and gelss use singular values. On a CUDA device the matrices are computed
    on the host.
    """
    a, b = Spec(tuple(F.shape(A)), F.dtype(A)), Spec(tuple(F.shape(B)), F.dtype(B))
    name = "torch.linalg.lstsq"
    if a.ndim < 2:
        raise ShapeMismatch(f"{name}: input must have at least 2 dimensions.", param="A")
    if b.ndim < 1:
        raise ShapeMismatch(f"{name}: other must have at least 1 dimension.", param="B")
    if a.ndim - b.ndim not in (0, 1):
        raise ShapeMismatch(
            f"{name}: input.dim() must be greater or equal to other.dim() and (input.dim() - other.dim()) <= 1",
            param="B",
        )
    vector = is_vector(a.shape, b.shape)
    sizes = (*b.shape, 1) if vector else b.shape
    if a.shape[-2] != sizes[-2]:
        raise ShapeMismatch(f"{name}: input.size(-2) should match other.size({-1 if vector else -2})", param="B")
    batch = broadcast_two(a.shape[:-2], b.shape[: a.ndim - 2])
    if a.dtype is not b.dtype:
        raise DtypeMismatch(
            f"{name}: Expected input and other to have the same dtype, but got input's dtype {scalar_type(a.dtype)} "
            f"and other's dtype {scalar_type(b.dtype)}",
            hint=cast_hint(a, b, "A", "B"),
            param="B",
        )
    if a.dtype.category < FLOAT or a.dtype.reduced:
        raise DtypeMismatch("This function doesn't handle types other than float and double", param="A")
    driver = driver.lower() if driver is not None else None
    if driver is not None and driver not in _DRIVERS:
        raise Invalid(f"{name}: parameter `driver` should be one of (gels, gelsy, gelsd, gelss)", param="driver")
    columns = F.reshape(B, (*b.shape, 1)) if vector else B
    A = F.expand(A, (*batch, *a.shape[-2:])) if batch != a.shape[:-2] else A
    columns = F.expand(columns, (*batch, *sizes[-2:])) if batch != sizes[:-2] else columns
    made = list(F._lstsq(A, columns, rcond, driver or "gelsy"))
    own = a.shape[:-2]
    if batch != own and driver != "gels" and 0 not in batch:  # ranks are those of the matrices that were given
        for i, (n, spread) in enumerate(zip((1,) * (len(batch) - len(own)) + own, batch, strict=True)):
            made[2] = made[2] if n == spread else F.narrow(made[2], i, 0, 1)
        made[2] = F.reshape(made[2], own)
    if vector:
        made[0] = F.reshape(made[0], F.shape(made[0])[:-1])
    return made


# ---------------------------------------------------------------- covariance


def _check_weights(F: Any, given: Any, what: str, floating: bool, observations: int) -> None:
    shape, d = F.shape(given), F.dtype(given)
    if len(shape) > 1:
        raise ShapeMismatch(
            f"cov(): expected {what} to have one or fewer dimensions but got {what} with {len(shape)} dimensions",
            param=what,
        )
    if d.category != (FLOAT if floating else INT):
        kind = "floating point" if floating else "integral"
        raise DtypeMismatch(
            f"cov(): expected {what} to have {kind} dtype but got {what} with {scalar_type(d)} dtype", param=what
        )
    size = shape[0] if shape else 1
    if size != observations:
        raise ShapeMismatch(
            f"cov(): expected {what} to have the same numel as there are observations in the input but got {size} != "
            f"{observations}",
            param=what,
        )


@op(family="linalg", meta=lambda k, weights, name: weights, save={"weights": ()})
def _weights(k: K, weights: Array, name: Any) -> Array:
    """Weights of a covariance, which may not be negative."""
    return weights.copy()


@_weights.guard
def _(k: K, weights: Array, name: str) -> None:
    if not bool((weights >= 0).all()):  # NaN too
        raise Invalid(f"cov(): {name} cannot be negative", code="negative-weights", param=name)


@_weights.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g


@op(family="linalg", meta=lambda k, total: total, save={"total": ()})
def _total(k: K, total: Array) -> Array:
    """The sum of a covariance's weights, which may not be zero."""
    return total.copy()


@_total.guard
def _(k: K, total: Array) -> None:
    if not bool((total != 0).all()):
        raise Invalid("cov(): weights sum to zero, can't be normalized", code="zero-weights", param="aweights")


@_total.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g


_SIX = T(6)
_COUNTS = I(3, low=1)


@composite(
    family="linalg",
    node="SqueezeBackward0",
    samples=[
        S(T(2, 3)),
        S(_SIX),
        S(T(), gradcheck=False),
        S(T(2, 3), correction=0),
        S(T(2, 3), fweights=_COUNTS),
        S(T(2, 3), aweights=T(3, low=0.5)),
        S(T(2, 3), correction=2, fweights=_COUNTS, aweights=T(3, low=0.5)),
        S(C(2, 3)),
        S(I(2, 3)),
        S(T(2, 0), gradcheck=False),
    ],
    example={"input": [[1.5, 2.5, 4.5], [3.5, 1.5, 0.5]]},
)
def cov(
    F: Any, input: Array, correction: int = 1, fweights: Array | None = None, aweights: Array | None = None
) -> Array:
    """The covariances of variables, rows of observations: (n, m) gives (n, n), and (m) one number.

    `fweights` says how often each observation counts, `aweights` how much; the sum is divided by the weights' sum less
    `correction`.
    """
    shape, d = tuple(F.shape(input)), F.dtype(input)
    if len(shape) > 2:
        raise ShapeMismatch(
            f"cov(): expected input to have two or fewer dimensions but got an input with {len(shape)} dimensions",
            param="input",
        )
    if d.category == BOOL:
        raise DtypeMismatch("cov(): bool dtype is not supported for input", param="input")
    x = F.reshape(input, (1, shape[0] if shape else 1)) if len(shape) < 2 else input
    observations = F.shape(x)[1]
    weights: Any = None
    if fweights is not None:
        _check_weights(F, fweights, "fweights", False, observations)
        weights = F._weights(F.reshape(fweights, (observations,)), "fweights")
    if aweights is not None:
        _check_weights(F, aweights, "aweights", True, observations)
        part = F._weights(F.reshape(aweights, (observations,)), "aweights")
        weights = part if weights is None else F.mul(weights, part)
    total: Any = None
    if weights is None:
        centred = F.sub(x, F.div(F.sum(x, 1, True), observations))
        product = F.mm(centred, adjoint(F, centred))
        return F.squeeze(F.div(product, max(observations - correction, 0)))
    total = F._total(F.sum(weights))
    centred = F.sub(x, F.div(F.sum(F.mul(x, weights), 1, True), total))
    product = F.mm(centred, adjoint(F, F.mul(centred, weights)))
    by = total
    if aweights is None:
        by = F.sub(total, correction)
    elif correction:
        share = F.sum(F.mul(weights, F.reshape(aweights, (observations,))))
        by = F.sub(total, F.mul(F.div(share, total), correction))
    return F.squeeze(F.div(product, F.clamp(by, 0)))


@composite(
    family="linalg",
    node="ClampBackward1",
    samples=[S(T(2, 3)), S(T(3, 4)), S(_SIX), S(C(2, 3)), S(I(2, 3, values=[[1, 2, 4], [3, 1, 0]]))],
    example={"input": [[1.5, 2.5, 4.5], [3.5, 1.5, 0.5]]},
)
def corrcoef(F: Any, input: Array) -> Array:
    """Pearson's correlation coefficients of variables, rows of observations: (n, m) gives (n, n)."""
    if len(F.shape(input)) > 2:
        raise ShapeMismatch(
            f"corrcoef(): expected input to have two or fewer dimensions but got an input with {len(F.shape(input))} "
            "dimensions",
            param="input",
        )
    c = F.cov(input)
    if not F.shape(c):
        return F.div(c, c)
    n = F.shape(c)[0]
    variances = F.diagonal(c)
    deviations = F.sqrt(F.real(variances) if F.dtype(c).category == COMPLEX else variances)
    made = F.div(F.div(c, F.reshape(deviations, (n, 1))), F.reshape(deviations, (1, n)))
    if F.dtype(made).category == COMPLEX:
        return F.add(F.clamp(F.real(made), -1, 1), F.mul(F.clamp(F.imag(made), -1, 1), 1j))
    return F.clamp(made, -1, 1)
