"""Approximations of low rank by random projections (Halko, Martinsson and Tropp 2009, algorithms 4.4 and 5.1)."""

from __future__ import annotations

from typing import Any

from engine.declare import Array, composite
from engine.errors import Invalid, LimitExceeded, ShapeMismatch
from engine.ops.products import adjoint
from engine.samples import S, T


def _projected(F: Any, A: Any, M: Any, x: Any) -> Any:
    """(A - M) x."""
    made = F.matmul(A, x)
    return made if M is None else F.sub(made, F.matmul(M, x))


def _orthonormal(F: Any, x: Any) -> Any:
    return F._qr(x, "reduced", "linalg.qr")[0]


MOST_ROUNDS = 1000  # of a subspace iteration, which nothing else bounds


def _basis(F: Any, A: Any, M: Any, q: int, niter: int) -> Any:
    """Orthonormal columns that nearly span A - M, from random ones, by subspace iteration."""
    columns = F.randn([F.shape(A)[-1], q], dtype=F.dtype(A), device=A.device if F.recording else None)
    Q = _orthonormal(F, _projected(F, A, M, columns))
    up, mean = adjoint(F, A), None if M is None else adjoint(F, M)
    if niter > MOST_ROUNDS:
        raise LimitExceeded(f"niter is at most {MOST_ROUNDS}, and a few are enough; got {niter}", param="niter")
    for _ in range(niter):
        Q = _orthonormal(F, _projected(F, up, mean, Q))
        Q = _orthonormal(F, _projected(F, A, M, Q))
    return Q


def _approximated(F: Any, A: Any, M: Any, q: int, niter: int) -> list[Any]:
    shape = F.shape(A)
    wide = shape[-2] < shape[-1]
    if M is not None:
        M = F.expand(M, list(shape))
    if wide:
        A, M = adjoint(F, A), None if M is None else adjoint(F, M)
    Q = _basis(F, A, M, q, niter)
    B = F.matmul(adjoint(F, Q), A)
    if M is not None:
        B = F.sub(B, F.matmul(adjoint(F, Q), M))
    u, s, vh = F._svd(B, False, "linalg.svd")
    u, v = F.matmul(Q, u), adjoint(F, vh)
    return [v, s, u] if wide else [u, s, v]


def _check(F: Any, A: Any) -> None:
    if len(F.shape(A)) < 2:
        raise ShapeMismatch(f"A must have at least 2 dimensions, and has {len(F.shape(A))}", param="A")


def _still(*shape: int) -> T:
    return T(*shape, grad=False)  # the vectors are known up to signs, and finite differences draw others


_SAMPLES = [S(_still(4, 3), 2), S(_still(3, 4), 2), S(_still(2, 4, 3), 3), S(_still(4, 3), 2, niter=0)]


@composite(
    family="linalg",
    outputs=("U", "S", "V"),
    returns="list of Tensors",
    random=True,
    moves=True,
    samples=[*_SAMPLES, S(_still(4, 3), 2, M=_still(4, 3))],
    example={"A": [[1.5, 2.5], [3.5, 4.5], [5.5, 7.5]], "q": 1},
)
def svd_lowrank(F: Any, A: Array, q: int | None = 6, niter: int | None = 2, M: Array | None = None) -> Array:
    """U, S and V with U diag(S) V^H nearly A (A - M where M is given), of rank q, by random projections."""
    _check(F, A)
    return _approximated(F, A, M, 6 if q is None else q, 2 if niter is None else niter)


@composite(
    family="linalg",
    outputs=("U", "S", "V"),
    returns="list of Tensors",
    random=True,
    moves=True,
    samples=[*_SAMPLES, S(_still(4, 3), 2, center=False)],
    example={"A": [[1.5, 2.5], [3.5, 4.5], [5.5, 7.5]], "q": 1},
)
def pca_lowrank(F: Any, A: Array, q: int | None = None, center: bool = True, niter: int = 2) -> Array:
    """The principal components of rows of observations: `svd_lowrank` of A less its columns' means."""
    _check(F, A)
    m, n = F.shape(A)[-2:]
    if q is None:
        q = min(6, m, n)
    elif not 0 <= q <= min(m, n):
        raise Invalid(f"q(={q}) must be non-negative integer and not greater than min(m, n)={min(m, n)}", param="q")
    if niter < 0:
        raise Invalid(f"niter(={niter}) must be non-negative integer", param="niter")
    if center:
        A = F.sub(A, F.mean(A, [-2], True))
    return _approximated(F, A, None, q, niter)
