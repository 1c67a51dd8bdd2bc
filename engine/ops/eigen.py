"""Eigenvalues and eigenvectors of square matrices of any kind."""

from __future__ import annotations

from typing import Any

from numpy.linalg import LinAlgError

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import FLOAT, complex64, result_type, scalar_type
from engine.errors import DtypeMismatch, Hint, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops import lapack
from engine.ops.common import not_implemented
from engine.ops.gauge import vectors_words
from engine.ops.lapack import on_host
from engine.ops.products import adjoint
from engine.samples import C, S, T
from engine.tape import refresh

# ---------------------------------------------------------------- eig


def _check(A: Spec, name: str) -> None:
    if A.dtype.category < FLOAT:
        raise DtypeMismatch(f"Unknown Complex ScalarType for {scalar_type(A.dtype)}", param="A")
    if A.ndim < 2:
        raise ShapeMismatch(f"{name}: The input tensor A must have at least 2 dimensions.", param="A")
    if A.shape[-1] != A.shape[-2]:
        raise ShapeMismatch(
            f"{name}: A must be batches of square matrices, but they are {A.shape[-2]} by {A.shape[-1]} matrices",
            param="A",
        )
    if A.dtype.reduced:
        raise not_implemented("linalg_eig_out_cpu", A.dtype)


def _eig_meta(k: K, A: Spec, vectors: bool, name: str) -> tuple[Spec, Spec]:
    _check(A, name)
    d = result_type([(A.dtype, 2), (complex64, 2)], k.default_dtype)
    return Spec(A.shape[:-1], d), Spec(A.shape if vectors else (0,), d)


@op(
    family="linalg",
    meta=_eig_meta,
    outputs=("eigenvalues", "eigenvectors"),
    save={"A": ("eigenvalues", "eigenvectors")},
    node="LinalgEigBackward0",
)
def _eig(k: K, A: Array, vectors: Any, name: Any) -> Any:
    """A V = V diag(L)."""
    if not A.size:
        return tuple(k.xp.zeros(s.shape, s.dtype.np) for s in k.spec)
    if not bool(k.xp.isfinite(A).all()):
        raise Invalid(
            "torch.linalg.eig: input tensor should not contain infs or NaNs.",
            code="not-finite",
            hint=Hint("not-finite"),
            param="A",
        )
    try:
        return on_host(k, lambda x: lapack.eigenvalues(x, vectors), A)
    except LinAlgError as e:
        raise Invalid(f"{name}: The algorithm failed to converge.", code="not-finite") from e


@_eig.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    # V^-H (diag(g_L) + (V^H g_V - V^H V diag(re(V^H g_V))) / conj(E)) V^H, E_ij = L_j - L_i (Giles 2008, van der Aa
    # et al. 2007): the second term keeps the norms of the vectors.
    values, v = saved.eigenvalues, saved.eigenvectors
    vh = adjoint(F, v)
    inner = None if g[0] is None else F.diag_embed(g[0])
    if g[1] is not None:
        by_v = F.matmul(vh, g[1])
        diagonal = F._phase_free(F.diagonal(by_v, 0, -2, -1), vectors_words("linalg_eig_backward"))
        shape = F.shape(values)
        row, column = F.reshape(values, (*shape[:-1], 1, shape[-1])), F.reshape(values, (*shape, 1))
        real = F.reshape(F.real(diagonal), (*shape[:-1], 1, shape[-1]))
        eye = F.diag_embed(F.ones_like(values))
        gaps = F.conj(F.add(F.sub(row, column), eye))
        share = F.div(F.sub(by_v, F.mul(F.matmul(vh, v), real)), gaps)
        share = F.mul(share, F.sub(1.0, eye))
        inner = share if inner is None else F.add(inner, share)
    if inner is None:
        return None
    return F._solve(vh, F.matmul(inner, vh))


# The vectors are known up to phases, and backward refuses cotangents that ask for them, as random ones do.
def _still(*shape: int, **given: Any) -> T:
    return T(*shape, grad=False, **given)


_SQUARE = [S(T(2, 2)), S(T(2, 3, 3)), S(T(0, 0)), S(T(0, 2, 2)), S(C(2, 2))]


@composite(
    family="linalg",
    name="linalg.eig",
    outputs=("eigenvalues", "eigenvectors"),
    fields=True,
    moves=True,
    samples=[S(_still(2, 2)), S(_still(2, 3, 3)), S(_still(0, 0)), S(_still(2, 2, dtype="complex64"))],
    example={"A": [[1.5, 2.5], [3.5, 4.5]]},
)
def eig(F: Any, A: Array) -> Array:
    """The eigenvalues of a square matrix and its eigenvectors, of norm 1, as columns: A V = V diag(L). Both complex.

    The gradient is that of functions that do not depend on the phases of the eigenvectors, and needs distinct
    eigenvalues. On a CUDA device the matrices are computed on the host.
    """
    return F._eig(A, True, "linalg.eig")


@composite(
    family="linalg",
    name="linalg.eigvals",
    node="LinalgEigBackward0",
    moves=True,
    samples=_SQUARE,
    example={"A": [[1.5, 2.5], [3.5, 4.5]]},
)
def eigvals(F: Any, A: Array) -> Array:
    """The eigenvalues of a square matrix, complex, in no order. Shape: (..., n, n) gives (..., n).

    On a CUDA device the matrices are computed on the host.
    """
    return F._eig(A, _recorded(F, A), "linalg.eigvals")[0]


def _recorded(F: Any, A: Any) -> bool:
    """Whether a gradient may be asked for: it alone needs the vectors."""
    if not F.recording:
        return False
    if A.view is not None:
        refresh(A)
    return bool(A.requires_grad)
