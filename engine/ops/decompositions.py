"""Decompositions of matrices, and what follows from them: norms, ranks, pseudoinverses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.linalg import LinAlgError

from engine.carriers import K
from engine.declare import Array, Scalar, composite, op
from engine.dtypes import FLOAT, float32, int64, scalar_type, to_real
from engine.errors import DtypeMismatch, Hint, Invalid, NoGradient, ShapeMismatch, WrongType
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.gauge import SINGULAR_WORDS, vectors_words
from engine.ops.linalg import _element, _failures, _inverse_of, _inverse_rule, attempted, check_matrix, small_minor
from engine.ops.products import adjoint, cast_hint
from engine.samples import C, S, T
from engine.shapes import broadcast_two, text

# ---------------------------------------------------------------- cholesky


def _positive(k: K, A: Array, made: Array, name: str) -> Array:
    for at, order in _failures(k, A, made, small_minor):
        raise Invalid(
            f"{name}: {_element(A.shape[:-2], at)}The factorization could not be completed because the input is not "
            f"positive-definite (the leading minor of order {order} is not positive-definite).",
            code="not-positive-definite",
            hint=Hint("positive-definite"),
            param="A",
        )
    return made


def _square_meta(k: Any, A: Spec, name: str) -> Spec:
    if name == "cholesky" and A.dtype.category < FLOAT and A.ndim > 1 and A.shape[-1] == A.shape[-2]:
        raise not_implemented("cholesky_cpu", A.dtype)
    check_matrix(A, name, square=True, kernel="cholesky_cpu")
    return A


def _lower_of(k: K, A: Array) -> Array:
    if not A.size:
        return A.copy()
    made = attempted(np.linalg.cholesky, A) if k.backend.kind == "cpu" else k.xp.linalg.cholesky(A)
    return k.xp.tril(made)


@op(family="linalg", meta=_square_meta, save={"A": ("result",)}, node="LinalgCholeskyExBackward0")
def _cholesky(k: K, A: Array, name: Any) -> Array:
    """The lower Cholesky factor; only the lower triangle is looked at."""
    return _positive(k, A, _lower_of(k, A), name)


@_cholesky.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return cholesky_rule(F, saved.result, g)


def cholesky_rule(F: Any, lower: Any, g: Any) -> Any:
    """The gradient of A = L L^H from that of L: L^-H P L^-1, P the Hermitian half of tril(L^H g) (Murray 2016)."""
    phi = F.tril(F.matmul(adjoint(F, lower), g))
    phi = F.mul(F.add(phi, adjoint(F, F.tril(phi, -1))), 0.5)
    up = adjoint(F, lower)
    made = F._triangular(up, phi, True, False)
    return adjoint(F, F._triangular(up, adjoint(F, made), True, False))


# The gradient is that of symmetric changes: a finite difference that changes one triangle alone differs.
_SPD = [
    S(T(2, 2, spd=True), gradcheck=False),
    S(T(2, 3, 3, spd=True), gradcheck=False),
    S(T(0, 0)),
    S(T(2, 2, spd=True), upper=True, gradcheck=False),
]


@composite(family="linalg", name="linalg.cholesky", node="LinalgCholeskyExBackward0", moves=True, samples=_SPD)
def linalg_cholesky(F: Any, A: Array, upper: bool = False) -> Array:
    """The lower triangular L with L L^H = A, for a positive definite A; its conjugate transpose with `upper`."""
    if upper:
        _square_meta(None, Spec(tuple(F.shape(A)), F.dtype(A)), "linalg.cholesky")
        return adjoint(F, F._cholesky(adjoint(F, A), "linalg.cholesky"))
    return F._cholesky(A, "linalg.cholesky")


@composite(family="linalg", node="CholeskyBackward0", moves=True, samples=_SPD)
def cholesky(F: Any, input: Array, upper: bool = False) -> Array:
    """The lower triangular L with L L^H = A, for a positive definite A; its conjugate transpose with `upper`."""
    if upper:
        _square_meta(None, Spec(tuple(F.shape(input)), F.dtype(input)), "cholesky")
        return adjoint(F, F._cholesky(adjoint(F, input), "cholesky"))
    return F._cholesky(input, "cholesky")


def check_square(x: Spec, name: str = "") -> None:
    """Refuses matrices that are not square, in PyTorch's words."""
    m, n = x.shape[-2:]
    if m != n:
        raise ShapeMismatch(f"{name}A must be batches of square matrices, but they are {m} by {n} matrices", param="A")


def _full_precision(F: Any, x: Any, kernel: str) -> None:
    d = F.dtype(x)
    if d.category < FLOAT or d.reduced:
        raise not_implemented(kernel, d)


@composite(
    family="linalg",
    moves=True,
    node="CholeskySolveBackward0",
    samples=[S(T(2, 1), T(2, 2, spd=True)), S(T(2, 2), T(2, 2, spd=True), upper=True)],
)
def cholesky_solve(F: Any, B: Array, L: Array, upper: bool = False) -> Array:
    """X with A X = B, from the Cholesky factor of A."""
    b, a = Spec(tuple(F.shape(B)), F.dtype(B)), Spec(tuple(F.shape(L)), F.dtype(L))
    for what, x, param in (("b", b, "B"), ("u", a, "L")):
        if x.ndim < 2:
            raise ShapeMismatch(
                f"{what} should have at least 2 dimensions, but has {x.ndim} dimensions instead", param=param
            )
    check_square(a)
    if b.shape[-2] != a.shape[-2]:
        n = a.shape[-1]
        raise ShapeMismatch(
            f"Incompatible matrix sizes for cholesky_solve: each A matrix is {n} by {n} but each b matrix is "
            f"{b.shape[-2]} by {b.shape[-1]}",
            param="B",
        )
    if a.dtype is not b.dtype:
        raise DtypeMismatch(
            f"Expected b and A to have the same dtype, but found b of type {scalar_type(b.dtype)} and A of type "
            f"{scalar_type(a.dtype)} instead.",
            hint=cast_hint(b, a, "B", "L"),
            param="L",
        )
    _full_precision(F, L, "cholesky_solve_cpu")
    lower = adjoint(F, F.triu(L)) if upper else F.tril(L)
    return F._triangular(adjoint(F, lower), F._triangular(lower, B, False, False), True, False)


@composite(
    family="linalg",
    moves=True,
    node="CholeskyInverseBackward0",
    samples=[S(T(2, 2, spd=True)), S(T(2, 2, spd=True), upper=True)],
)
def cholesky_inverse(F: Any, L: Array, upper: bool = False) -> Array:
    """The inverse of A, from its Cholesky factor."""
    a = Spec(tuple(F.shape(L)), F.dtype(L))
    if a.ndim < 2:
        raise ShapeMismatch("cholesky_inverse: The input tensor A must have at least 2 dimensions.", param="L")
    check_square(a, "cholesky_inverse: ")
    _full_precision(F, L, "cholesky_inverse_out_cpu")
    inverse = F._factor_inverse(F.triu(L) if upper else F.tril(L))
    return F.matmul(inverse, adjoint(F, inverse)) if upper else F.matmul(adjoint(F, inverse), inverse)


@op(family="linalg", meta=lambda k, L: L, save={"L": ("result",)})
def _factor_inverse(k: K, L: Array) -> Array:
    """The inverse of a triangular matrix; one with a zero on its diagonal is refused."""
    if not L.size:
        return L.copy()
    zero = k.backend.to_host(k.xp.diagonal(L, axis1=-2, axis2=-1) == 0).reshape(-1, L.shape[-1])
    for at, i in np.argwhere(zero)[:1].tolist():
        raise Invalid(
            f"cholesky_inverse: {_element(L.shape[:-2], at)}The diagonal element {i + 1} is zero, the inversion could "
            "not be completed because the input matrix is singular.",
            code="singular",
            hint=Hint("singular"),
            param="L",
        )
    return _inverse_of(k, L)


_factor_inverse.vjp(_inverse_rule)


# ---------------------------------------------------------------- singular values


def _svd_meta(k: K, A: Spec, full: bool, name: str) -> tuple[Spec, Spec, Spec]:
    check_matrix(A, name, kernel="linalg_svd_cpu")
    *batch, m, n = A.shape
    r = min(m, n)
    rows, columns = (m, n) if full else (r, r)
    return Spec((*batch, m, rows), A.dtype), Spec((*batch, r), to_real(A.dtype)), Spec((*batch, columns, n), A.dtype)


def _converged(k: K, x: Array, batch: Any, name: str) -> None:
    bad = ~k.xp.isfinite(x).reshape(*batch, -1).all(axis=-1)
    if bool(bad.any()):
        at = int(np.flatnonzero(k.backend.to_host(bad))[0])
        raise Invalid(
            f"{name}: {_element(batch, at)}The algorithm failed to converge because the input matrix contained "
            "non-finite "
            "values.",
            code="not-finite",
            hint=Hint("not-finite"),
        )


def _identity(k: K, spec: Spec) -> Array:
    """Identity matrices: the orthogonal factors of matrices without elements."""
    eye = k.xp.eye(*spec.shape[-2:], dtype=spec.dtype.np)
    return k.xp.broadcast_to(eye, spec.shape).copy()


@op(family="linalg", meta=_svd_meta, outputs=("U", "S", "Vh"), save={"A": ("U", "S", "Vh")}, node="LinalgSvdBackward0")
def _svd(k: K, A: Array, full: Any, name: Any) -> Any:
    """A = U diag(S) Vh."""
    if not A.size:
        u, s, v = k.spec
        return _identity(k, u), k.xp.zeros(s.shape, s.dtype.np), _identity(k, v)
    _converged(k, A, A.shape[:-2], name)
    return k.xp.linalg.svd(A, full_matrices=full)


def _identity_like(F: Any, S: Any) -> Any:
    return F.diag_embed(F.ones_like(S))


def _skew(F: Any, x: Any) -> Any:
    return F.sub(x, adjoint(F, x))


def _row(F: Any, s: Any) -> Any:
    shape = F.shape(s)
    return F.reshape(s, (*shape[:-1], 1, shape[-1]))


def _column(F: Any, s: Any) -> Any:
    return F.reshape(s, (*F.shape(s), 1))


@_svd.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved.S
    r = F.shape(s)[-1]
    u, v = F.narrow(saved.U, -1, 0, r), F.narrow(saved.Vh, -2, 0, r)
    gu = None if g[0] is None else F.narrow(g[0], -1, 0, r)
    gv = None if g[2] is None else F.narrow(g[2], -2, 0, r)
    m, n = F.shape(u)[-2], F.shape(v)[-1]
    complex_ = F.dtype(u).is_complex
    inner = None if g[1] is None else F.diag_embed(g[1])
    squares = F.mul(s, s)
    gaps = F.add(F.sub(_row(F, squares), _column(F, squares)), _identity_like(F, s))
    by_u = None if gu is None else _skew(F, F.matmul(adjoint(F, u), gu))
    by_v = None if gv is None else _skew(F, F.matmul(v, adjoint(F, gv)))
    if complex_:
        turn = [F.diagonal(x, 0, -2, -1) for x in (by_u, by_v) if x is not None]
        if turn:
            free = F._phase_free(turn[0] if len(turn) == 1 else F.add(*turn), SINGULAR_WORDS)
            # What the check gives is in the graph, or it would not be asked.
            by_u = by_u if by_u is None else F.add(by_u, F.diag_embed(F.mul(free, 0.0)))
    if by_u is not None:
        share = F.mul(F.div(by_u, gaps), _row(F, s))
        inner = share if inner is None else F.add(inner, share)
        if complex_:
            inner = F.add(inner, F.diag_embed(F.div(F.diagonal(by_u, 0, -2, -1), F.mul(s, 2.0))))
    if by_v is not None:
        share = F.mul(F.div(by_v, gaps), _column(F, s))
        inner = share if inner is None else F.add(inner, share)
    if inner is None:
        return None
    if complex_ and not F.dtype(inner).is_complex:  # nothing but the gradient of S
        return F.matmul(F.mul(u, _row(F, g[1])), v)
    made = F.matmul(F.matmul(u, inner), v)
    if m > r and gu is not None:
        rest = F.div(gu, _row(F, s))
        rest = F.sub(rest, F.matmul(u, F.matmul(adjoint(F, u), rest)))
        made = F.add(made, F.matmul(rest, v))
    if n > r and gv is not None:
        rest = F.div(gv, _column(F, s))
        rest = F.sub(rest, F.matmul(F.matmul(rest, adjoint(F, v)), v))
        made = F.add(made, F.matmul(u, rest))
    return made


def _check_driver(F: Any, A: Any, driver: str | None) -> None:
    """Refuses cuSOLVER's drivers on the CPU; on a GPU they are taken, and CuPy chooses."""
    if driver is None:
        return
    if (A.backend if F.recording else F.k.backend).kind == "cpu":
        raise Invalid(
            "torch.linalg.svd: keyword argument `driver=` is only supported on CUDA inputs with cuSOLVER backend.",
            param="driver",
        )
    if driver not in ("gesvd", "gesvdj", "gesvda"):
        raise Invalid(
            f"torch.linalg.svd: unknown svd driver {driver} in svd_cusolver computation. Choose from gesvd, gesvdj and "
            "gesvda.",
            param="driver",
        )


_RECT = [S(T(2, 3)), S(T(3, 2)), S(T(2, 2, 2)), S(T(0, 2)), S(C(2, 2))]
# The vectors are known up to signs, or phases: a finite difference of them compares different choices.
_GAUGED = [
    *(S(*s.args, gradcheck=False) for s in _RECT[:-1]),
    S(T(2, 2, dtype="complex64", grad=False)),  # random cotangents ask for phases, which is refused
]


@composite(
    family="linalg",
    name="linalg.svd",
    outputs=("U", "S", "Vh"),
    fields=True,
    moves=True,
    samples=[*_GAUGED, S(T(3, 2), full_matrices=False, gradcheck=False)],
)
def linalg_svd(F: Any, A: Array, full_matrices: bool = True, driver: str | None = None) -> Array:
    """A = U diag(S) Vh, with the singular values S in falling order. `full_matrices` makes U and Vh square.

    The gradient is that of functions that do not depend on the phases of the singular vectors.
    """
    _check_driver(F, A, driver)
    return F._svd(A, full_matrices, "linalg.svd")


@composite(
    family="linalg",
    outputs=("U", "S", "V"),
    fields=True,
    moves=True,
    samples=[*_GAUGED, S(T(3, 2), some=False, gradcheck=False)],
)
def svd(F: Any, input: Array, some: bool = True, compute_uv: bool = True) -> Array:
    """A = U diag(S) V^H, with the singular values S in falling order; `some` leaves out what only zeros would meet."""
    if len(F.shape(input)) < 2:
        raise ShapeMismatch(
            f"linalg.svd: input should have at least 2 dimensions, but has {len(F.shape(input))} dimensions instead",
            param="input",
        )
    u, s, v = F._svd(input, not some, "linalg.svd")
    if not compute_uv:
        m, n = F.shape(input)[-2:]
        batch = F.shape(input)[:-2]
        return [F.new_zeros(input, [*batch, m, m]), s, F.new_zeros(input, [*batch, n, n])]
    return [u, s, adjoint(F, v)]


@composite(family="linalg", name="linalg.svdvals", node="LinalgSvdBackward0", moves=True, samples=_RECT)
def svdvals(F: Any, A: Array, driver: str | None = None) -> Array:
    """The singular values of a matrix, in falling order."""
    _check_driver(F, A, driver)
    return F._svd(A, False, "linalg.svd")[1]


# ---------------------------------------------------------------- QR


def _qr_meta(k: K, A: Spec, mode: str, name: str) -> tuple[Spec, Spec]:
    check_matrix(Spec(A.shape, A.dtype.compute) if A.dtype.reduced else A, name)
    if mode not in ("reduced", "complete", "r"):
        raise Invalid(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'",
            param="mode",
        )
    if A.dtype.reduced:
        raise not_implemented("geqrf_cpu", A.dtype)
    *batch, m, n = A.shape
    r = m if mode == "complete" else min(m, n)
    q = (0,) if mode == "r" else (*batch, m, r)
    return Spec(q, A.dtype), Spec((*batch, r, n), A.dtype)


@op(family="linalg", meta=_qr_meta, outputs=("Q", "R"), save={"A": ("A", "Q", "R")}, node="LinalgQrBackward0")
def _qr(k: K, A: Array, mode: Any, name: Any) -> Any:
    """A = Q R."""
    xp = k.xp
    q, r = k.spec
    if not A.size:
        return _identity(k, q) if mode != "r" else xp.zeros((0,), A.dtype), xp.zeros(r.shape, A.dtype)
    if mode == "r":
        return xp.zeros((0,), A.dtype), xp.linalg.qr(A, "r")
    return xp.linalg.qr(A, mode)


def _mirrored(F: Any, x: Any) -> Any:
    """The upper triangle and its conjugate mirror image, with a real diagonal."""
    upper = F.triu(x)
    both = F.add(upper, adjoint(F, upper))
    return F.sub(both, F.diag_embed(F.mul(F.diagonal(both, 0, -2, -1), 0.5)))


@_qr.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    q, r = saved.Q, saved.R
    m, n = F.shape(r)[-2:]
    if saved.mode == "r":
        raise NoGradient(
            "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Please use linalg.qr(A, "
            "mode='reduced') if you are going to differentiate through "
            "linalg.qr."
        )
    if saved.mode == "complete" and m > n:
        raise NoGradient("The QR decomposition is not differentiable when mode='complete' and nrows > ncols.")
    gq, gr = g
    rest = None
    if n > m:  # A = Q (U | V)
        if gr is not None:
            gv, gr = F.narrow(gr, -1, m, n - m), F.narrow(gr, -1, 0, m)
            rest = F.matmul(q, gv)
            share = F.matmul(F.narrow(saved.A, -1, m, n - m), adjoint(F, gv))
            gq = share if gq is None else F.add(gq, share)
        r = F.narrow(r, -1, 0, m)
    inner = None if gr is None else F.matmul(gr, adjoint(F, r))
    if gq is not None:
        share = F.matmul(adjoint(F, q), gq)
        inner = F.neg(share) if inner is None else F.sub(inner, share)
    made = F.matmul(q, _mirrored(F, inner))
    if gq is not None:
        made = F.add(made, gq)
    made = adjoint(F, F._solve(r, adjoint(F, made)))
    if n > m:
        made = F.cat([made, F.zeros_like(F.narrow(saved.A, -1, m, n - m)) if rest is None else rest], -1)
    return made


@composite(
    family="linalg",
    name="linalg.qr",
    outputs=("Q", "R"),
    fields=True,
    moves=True,
    samples=[S(T(2, 2)), S(T(3, 2)), S(T(2, 3)), S(T(2, 2, 2)), S(T(0, 2)), S(C(2, 2)), S(T(2, 2), mode="complete")],
)
def linalg_qr(F: Any, A: Array, mode: str = "reduced") -> Array:
    """A = Q R, with orthonormal columns in Q and an upper triangular R.

    Mode "complete" makes Q square, "r" leaves it out.
    """
    return F._qr(A, mode, "linalg.qr")


@composite(
    family="linalg",
    outputs=("Q", "R"),
    fields=True,
    moves=True,
    samples=[S(T(2, 2)), S(T(3, 2)), S(T(2, 3)), S(T(2, 2), some=False)],
)
def qr(F: Any, input: Array, some: bool = True) -> Array:
    """A = Q R, with orthonormal columns in Q and an upper triangular R; `some` false makes Q square."""
    return F._qr(input, "reduced" if some else "complete", "linalg.qr")


# ---------------------------------------------------------------- eigenvalues


def _eigh_meta(k: K, A: Spec, UPLO: str, name: str) -> tuple[Spec, Spec]:
    check_matrix(Spec(A.shape, float32), name, square=True)
    if UPLO.upper() not in ("L", "U"):
        raise Invalid(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}", param="UPLO")
    if A.dtype.category < FLOAT or A.dtype.reduced:
        raise not_implemented("linalg_eigh_cpu", A.dtype)
    return Spec(A.shape[:-1], to_real(A.dtype)), A


@op(
    family="linalg",
    meta=_eigh_meta,
    outputs=("eigenvalues", "eigenvectors"),
    save={"A": ("eigenvalues", "eigenvectors")},
    node="LinalgEighBackward0",
)
def _eigh(k: K, A: Array, UPLO: Any, name: Any) -> Any:
    """A = V diag(L) V^H."""
    if not A.size:
        return k.xp.zeros(A.shape[:-1], k.spec[0].dtype.np), A.copy()
    _converged(k, A, A.shape[:-2], name)
    try:
        return k.xp.linalg.eigh(A, UPLO.upper())
    except LinAlgError as e:
        raise Invalid(f"{name}: The algorithm failed to converge.", code="not-finite") from e


@_eigh.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    values, v = saved.eigenvalues, saved.eigenvectors
    inner = None if g[0] is None else F.diag_embed(g[0])
    vh = adjoint(F, v)
    if g[1] is not None:
        gaps = F.add(F.sub(_row(F, values), _column(F, values)), _identity_like(F, values))
        by_v = F.matmul(vh, g[1])
        if F.dtype(v).is_complex:
            free = F._phase_free(F.diagonal(by_v, 0, -2, -1), vectors_words("linalg_eigh_backward"))
            by_v = F.add(by_v, F.diag_embed(F.sub(free, F.diagonal(by_v, 0, -2, -1))))
        # What changes unitary vectors within their space is skew-Hermitian: only that part of the cotangent counts.
        off = F.mul(F.mul(_skew(F, by_v), 0.5), F.sub(1.0, _identity_like(F, values)))
        share = F.div(off, gaps)
        inner = share if inner is None else F.add(inner, share)
    if inner is None:
        return None
    if F.dtype(v).is_complex and not F.dtype(inner).is_complex:
        return F.matmul(F.mul(v, _row(F, g[0])), vh)
    return F.matmul(F.matmul(v, inner), vh)


@composite(
    family="linalg",
    name="linalg.eigh",
    outputs=("eigenvalues", "eigenvectors"),
    fields=True,
    moves=True,
    samples=[
        S(T(2, 2, spd=True), gradcheck=False),
        S(T(2, 3, 3, spd=True), gradcheck=False),
        S(T(0, 0)),
        S(T(2, 2, dtype="complex64", spd=True, grad=False)),
    ],
)
def eigh(F: Any, A: Array, UPLO: str = "L") -> Array:
    """The eigenvalues, rising, and eigenvectors of a Hermitian matrix; only the triangle UPLO is looked at.

    The gradient is that of functions that do not depend on the phases of the eigenvectors.
    """
    return F._eigh(A, UPLO, "linalg.eigh")


@composite(
    family="linalg",
    name="linalg.eigvalsh",
    node="LinalgEighBackward0",
    moves=True,
    samples=[
        S(T(2, 2, spd=True), gradcheck=False),
        S(T(2, 3, 3, spd=True), gradcheck=False),
        S(T(0, 0)),
        S(T(2, 2, dtype="complex64", spd=True, grad=False)),
    ],
)
def eigvalsh(F: Any, A: Array, UPLO: str = "L") -> Array:
    """The eigenvalues of a Hermitian matrix, rising."""
    return F._eigh(A, UPLO, "linalg.eigh")[0]


# ---------------------------------------------------------------- pseudoinverse, rank


def _spectrum(k: K, A: Array, hermitian: bool) -> Any:
    xp = k.xp
    _converged(k, A, A.shape[:-2], "linalg.eigh" if hermitian else "linalg.svd")
    if hermitian:
        values, v = xp.linalg.eigh(A, "L")
        return v, values, xp.conj(v).swapaxes(-1, -2)
    return xp.linalg.svd(A, full_matrices=False)


def _cutoff(k: K, s: Array, A: Any, atol: Any, rtol: Any) -> Array:
    """Below which a singular value counts as zero: the larger of `atol` and `rtol` times the largest of them."""
    if rtol is None:
        eps = float(np.finfo(A.dtype).eps)
        given = atol is not None and (hasattr(atol, "ndim") or atol > 0)
        rtol = 0.0 if given else eps * max(A.shape[-2:])
    largest = k.xp.abs(s).max(axis=-1, keepdims=True)

    def spread(t: Any) -> Any:
        return t.astype(s.dtype)[..., None] if hasattr(t, "ndim") else t

    return k.xp.maximum(k.xp.asarray(spread(0.0 if atol is None else atol), dtype=s.dtype), largest * spread(rtol))


def _check_tolerances(name: str, **given: Any) -> None:
    for param, x in given.items():
        if type(x) is complex:
            raise WrongType(f"{name}: argument '{param}' must be float, not complex", param=param)
        if type(x) is Spec and x.dtype.is_complex:
            raise DtypeMismatch(
                f"{name}: {param} tensor of complex type is not supported. Got {scalar_type(x.dtype)}", param=param
            )


def _batch_of(A: Spec, *limits: Any) -> tuple[int, ...]:
    """The matrices of A, broadcast with limits that are tensors."""
    batch = A.shape[:-2]
    for limit in reversed(limits):
        if isinstance(limit, Spec):
            batch = broadcast_two(limit.shape, batch)
    return batch


def _pinv_meta(k: K, A: Spec, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Spec:
    if A.ndim < 2 or A.dtype.category < FLOAT or A.dtype.reduced:
        raise Invalid(
            f"linalg.pinv({scalar_type(A.dtype)}{{{text(A.shape)}}}): expected a tensor with 2 or more dimensions of "
            "float, "
            "double, cfloat or cdouble types",
            param="A",
        )
    _check_tolerances("torch.linalg.pinv", atol=atol, rtol=rtol)
    if not A.numel:
        return Spec((*A.shape[:-2], A.shape[-1], A.shape[-2]), A.dtype)  # where PyTorch looks no further
    if hermitian:
        check_square(A, "linalg.eigh: ")
    return Spec((*_batch_of(A, atol, rtol), A.shape[-1], A.shape[-2]), A.dtype)


@op(family="linalg", meta=_pinv_meta, save={"A": ("A", "result")}, node="LinalgPinvBackward0")
def _pinv(
    k: K, A: Array, atol: Array | Scalar | None = None, rtol: Array | Scalar | None = None, hermitian: Any = False
) -> Array:
    """The pseudoinverse, by the singular values above a limit."""
    xp = k.xp
    if not A.size:
        return xp.zeros(k.spec.shape, A.dtype)
    u, s, vh = _spectrum(k, A, hermitian)
    keep = xp.abs(s) > _cutoff(k, s, A, atol, rtol)
    inverse = xp.where(keep, 1.0 / s, 0.0)
    return xp.conj(vh).swapaxes(-1, -2) * inverse[..., None, :] @ xp.conj(u).swapaxes(-1, -2)


@_pinv.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    A, p = saved.A, saved.result
    m, n = F.shape(A)[-2:]
    ph, gh = adjoint(F, p), adjoint(F, g)
    if not need.A:
        return None, None, None
    if m <= n:
        inner = F.matmul(gh, p)
        outer = F.matmul(inner, ph)
        made = F.sub(outer, adjoint(F, F.matmul(p, inner)))
        made = F.sub(made, F.matmul(F.matmul(A, p), outer))
        return F.add(made, F.matmul(F.matmul(ph, p), F.sub(gh, F.matmul(inner, A)))), None, None
    inner = F.matmul(p, gh)
    outer = F.matmul(ph, inner)
    made = F.sub(outer, adjoint(F, F.matmul(inner, p)))
    made = F.add(made, F.matmul(F.matmul(F.sub(gh, F.matmul(A, inner)), p), ph))
    return F.sub(made, F.matmul(F.matmul(outer, p), A)), None, None


@composite(
    family="linalg",
    name="linalg.pinv",
    node="LinalgPinvBackward0",
    moves=True,
    samples=[S(T(2, 3)), S(T(3, 2)), S(T(2, 2, 2, spd=True)), S(T(0, 2)), S(C(2, 2)), S(T(2, 3), rtol=0.01)],
)
def linalg_pinv(
    F: Any, A: Array, atol: Array | Scalar | None = None, rtol: Array | Scalar | None = None, hermitian: bool = False
) -> Array:
    """The Moore-Penrose pseudoinverse. Singular values of at most max(atol, rtol * the largest) count as zero."""
    return F._pinv(A, atol, rtol, hermitian)


@composite(
    family="linalg", node="LinalgPinvBackward0", moves=True, samples=[S(T(2, 3)), S(T(3, 2)), S(T(2, 2), rcond=0.01)]
)
def pinverse(F: Any, input: Array, rcond: float = 1e-15) -> Array:
    """The Moore-Penrose pseudoinverse. Singular values of at most rcond * the largest count as zero."""
    return F._pinv(input, None, rcond, False)


def _rank_meta(k: K, A: Spec, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Spec:
    if A.ndim < 2:
        raise ShapeMismatch(
            "torch.linalg.matrix_rank: The input tensor input must have at least 2 dimensions.", param="A"
        )
    _check_tolerances("torch.linalg.matrix_rank", atol=atol, rtol=rtol)
    if not A.numel:
        return Spec(A.shape[:-2], int64)  # where PyTorch looks no further
    if hermitian and A.shape[-1] != A.shape[-2]:
        check_square(A, "linalg.eigh: ")
    if A.dtype.category < FLOAT or A.dtype.reduced:
        raise DtypeMismatch("This function doesn't handle types other than float and double", param="A")
    return Spec(_batch_of(A, atol, rtol), int64)


@op(
    family="linalg",
    name="linalg.matrix_rank",
    meta=_rank_meta,
    vjp=None,
    samples=[S(T(2, 3)), S(T(2, 3, 2)), S(T(0, 2)), S(T(2, 2, values=[[1.0, 2.0], [2.0, 4.0]])), S(T(2, 2), atol=0.1)],
)
def matrix_rank(
    k: K, A: Array, atol: Array | Scalar | None = None, rtol: Array | Scalar | None = None, hermitian: bool = False
) -> Array:
    """How many singular values are larger than max(atol, rtol * the largest)."""
    if not A.size:
        return k.xp.zeros(A.shape[:-2], int64.np)
    s = _spectrum(k, A, hermitian)[1]
    return (k.xp.abs(s) > _cutoff(k, s, A, atol, rtol)).sum(axis=-1, dtype=int64.np)
