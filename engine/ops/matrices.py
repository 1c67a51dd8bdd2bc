"""Functions of matrices made of other operations: exponentials, conditions, factorisations with an error code."""

from __future__ import annotations

from math import ceil, inf, log2, nan, prod
from typing import Any

import numpy as np

from engine.carriers import K
from engine.context import SMALL
from engine.declare import Array, Dim, Dims, Scalar, composite, op
from engine.dtypes import BOOL, scalar_type, to_real
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.decompositions import _lower_of, cholesky_rule
from engine.ops.linalg import _info_meta, _infos, _inverse_of, check_float, check_matrix, small_minor
from engine.ops.products import adjoint
from engine.samples import C, S, T
from engine.shapes import wrap_dim

# ---------------------------------------------------------------- the exponential

# Coefficients of the (13, 13) Pade approximant of exp, and the norm up to which it is exact to float64 (Higham 2005).
_PADE = (
    64764752532480000.0,
    32382376266240000.0,
    7771770303897600.0,
    1187353796428800.0,
    129060195264000.0,
    10559470521600.0,
    670442572800.0,
    33522128640.0,
    1323241920.0,
    40840800.0,
    960960.0,
    16380.0,
    182.0,
    1.0,
)
_REACH = 5.371920351148152
_ARRAYS = 10  # of the input's shape in double precision that are there at once


def _exp_meta(k: K, input: Spec) -> Spec:
    wide = Spec(input.shape, input.dtype.compute) if input.dtype.reduced else input
    check_matrix(wide, "linalg.matrix_exp", square=True)
    return input


@op(
    family="linalg",
    name="matrix_exp",
    alias=("linalg.matrix_exp",),
    meta=_exp_meta,
    save={"input": ("input",)},
    node="LinalgMatrixExpBackward0",
    samples=[S(T(2, 2)), S(T(2, 3, 3)), S(T(0, 0)), S(T(1, 1)), S(C(2, 2))],
)
def matrix_exp(k: K, input: Array) -> Array:
    """The exponential of a square matrix, by a Pade approximant of the scaled matrix and repeated squaring."""
    xp = k.xp
    if not input.size:
        return input.copy()
    single = input.dtype in (np.float32, np.complex64)
    room = _ARRAYS * input.size * (16 if input.dtype.kind == "c" else 8)
    if room > SMALL:
        k.ctx.admit(room)
    x = input.astype(xp.complex128 if input.dtype.kind == "c" else xp.float64)
    # Each matrix by its own norm: squared as often as the largest one asks, the others would lose their digits.
    norms = k.backend.to_host(xp.abs(x).sum(axis=-2).max(axis=-1)).reshape(-1)
    squarings = [max(0, ceil(log2(norm / _REACH))) if 0 < norm < inf else 0 for norm in norms.tolist()]
    scale = xp.asarray(np.exp2(-np.array(squarings, np.float64)).reshape(*x.shape[:-2], 1, 1))
    x = x * scale
    eye = xp.eye(x.shape[-1], dtype=x.dtype)
    b = _PADE
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x4 @ x2
    odd = x6 @ (b[13] * x6 + b[11] * x4 + b[9] * x2) + b[7] * x6 + b[5] * x4 + b[3] * x2 + b[1] * eye
    even = x6 @ (b[12] * x6 + b[10] * x4 + b[8] * x2) + b[6] * x6 + b[4] * x4 + b[2] * x2 + b[0] * eye
    odd = x @ odd
    made = _inverse_of(k, even - odd) @ (even + odd)
    least = min(squarings)
    for _ in range(least):
        made = made @ made
    if max(squarings) > least:
        made = made.reshape(-1, *x.shape[-2:])
        for done in range(least, max(squarings)):
            rest = xp.asarray(np.array([i for i, asked in enumerate(squarings) if asked > done]))
            part = made[rest]
            made[rest] = part @ part
        made = made.reshape(x.shape)
    return made.astype(input.dtype) if single else made


@matrix_exp.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    # The upper right block of exp([[A^H, G], [0, A^H]]) is the derivative of exp at A^H in the direction G.
    a = adjoint(F, saved.input)
    n = F.shape(a)[-1]
    if not n:
        return F.zeros_like(a)
    both = F.cat([F.cat([a, g], -1), F.cat([F.zeros_like(a), a], -1)], -2)
    return F.narrow(F.narrow(F.matrix_exp(both), -2, 0, n), -1, n, n)


# ---------------------------------------------------------------- with an error code


@op(
    family="linalg",
    name="linalg.cholesky_ex",
    meta=lambda k, A, upper=False, check_errors=False: _info_meta("linalg.cholesky", "cholesky_cpu")(k, A),
    outputs=("L", "info"),
    fields=True,
    nondiff=("info",),
    save={"A": ("L",)},
    node="LinalgCholeskyExBackward0",
    samples=[S(T(2, 2, spd=True), gradcheck=False), S(T(2, 3, 3, spd=True), upper=True, gradcheck=False)],
)
def cholesky_ex(k: K, A: Array, upper: bool = False, check_errors: bool = False) -> Any:
    """The Cholesky factor and, for each matrix, 0 or the order of the first leading minor that is not positive."""
    x = k.xp.conj(A).swapaxes(-1, -2) if upper else A
    made = _lower_of(k, x)
    info = _infos(k, x, made, small_minor)
    if check_errors and bool((info != 0).any()):
        order = int(k.backend.to_host(info).reshape(-1).max())
        raise Invalid(
            "linalg.cholesky_ex: The factorization could not be completed because the input is not positive-definite "
            f"(the leading minor of order {order} is not positive-definite).",
            code="not-positive-definite",
            param="A",
        )
    return (k.xp.conj(made).swapaxes(-1, -2) if upper else made), info


@cholesky_ex.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    lower = adjoint(F, saved.L) if saved.upper else saved.L
    return cholesky_rule(F, lower, adjoint(F, g[0]) if saved.upper else g[0])


@composite(
    family="linalg",
    name="linalg.solve_ex",
    outputs=("result", "info"),
    fields=True,
    moves=True,
    samples=[S(T(2, 2, spd=True), T(2)), S(T(2, 2, spd=True), T(2, 3)), S(T(2, 2, spd=True), T(3, 2), left=False)],
)
def solve_ex(F: Any, A: Array, B: Array, left: bool = True, check_errors: bool = False) -> Array:
    """`linalg.solve`, and for each matrix 0 or which diagonal element of its LU decomposition is zero."""
    solve = getattr(F, "linalg.solve")
    a = F.shape(A)
    if check_errors or len(a) < 2 or a[-1] != a[-2]:
        return [solve(A, B, left), getattr(F, "linalg.inv_ex")(A)[1]]
    info = getattr(F, "linalg.inv_ex")(A)[1]
    # Instead of a singular matrix, which is refused, one of NaN, whose solutions are NaN.
    singular = F.reshape(F.ne(info, 0), (*a[:-2], 1, 1))
    return [solve(F.where(singular, nan, A), B, left), info]


# ---------------------------------------------------------------- made of others


_NORMS = (1, -1, 2, -2, inf, -inf, "fro", "nuc")


@composite(
    family="linalg",
    name="linalg.cond",
    moves=True,
    samples=[S(T(2, 2, spd=True)), S(T(2, 3)), S(T(2, 2, spd=True), 1), S(T(2, 2, spd=True), "fro"), S(T(2, 2), -2)],
)
def cond(F: Any, A: Array, p: Scalar | str | None = None) -> Array:
    """The condition number of a matrix in a norm: the 2-norm's by singular values, else norm(A) * norm(inv(A)).

    That of a matrix without elements is 0.
    """
    a = Spec(tuple(F.shape(A)), F.dtype(A))
    if a.ndim < 2:
        raise ShapeMismatch("linalg.cond: The input tensor must have at least 2 dimensions.", param="A")
    if p is not None and (isinstance(p, complex) or p not in _NORMS):
        shown = f"{p:g}" if isinstance(p, int | float) else p
        raise Invalid(f"linalg.cond got an invalid norm type: {shown}", param="p")
    if not a.numel:
        return F.new_zeros(A, list(a.shape[:-2]), to_real(a.dtype))
    if p is None or p in (2, -2):
        s = F._svd(A, False, "linalg.svd")[1]
        n = F.shape(s)[-1]
        first, last = F.narrow(s, -1, 0, 1), F.narrow(s, -1, n - 1, 1)
        made = F.div(last, first) if p == -2 else F.div(first, last)
        return F.reshape(made, F.shape(s)[:-1])
    norm = getattr(F, "linalg.matrix_norm")
    if a.shape[-1] != a.shape[-2]:
        raise ShapeMismatch(
            f"linalg.cond(ord={p if isinstance(p, str) else f'{p:g}'}): A must be batches of square matrices, but they "
            f"are {a.shape[-2]} by {a.shape[-1]} matrices",
            param="A",
        )
    check_float(a, "linalg.inv")
    return F.mul(norm(A, p), norm(F._inverse(A), p))


@composite(
    family="linalg",
    name="linalg.diagonal",
    moves=True,
    samples=[S(T(3, 3)), S(T(2, 3, 4)), S(T(2, 3), offset=1), S(T(2, 3, 4), dim1=0, dim2=1)],
)
def diagonal(F: Any, A: Array, offset: int = 0, dim1: Dim = -2, dim2: Dim = -1) -> Array:
    """A view of the diagonals of matrices, by default of the last two dimensions."""
    return F.diagonal(A, offset, dim1, dim2)


@composite(family="linalg", name="linalg.vander", moves=True, samples=[S(T(3)), S(T(2, 3), N=4)])
def linalg_vander(F: Any, x: Array, N: int | None = None) -> Array:
    """The powers of each element, from the 0th on: (..., n) gives (..., n, N)."""
    shape, d = tuple(F.shape(x)) or (1,), F.dtype(x)
    if d.category == BOOL or d.reduced:
        raise DtypeMismatch(
            f"linalg.vander supports floating point, complex, and integer tensors, but got {scalar_type(d)}", param="x"
        )
    count = shape[-1] if N is None else N
    if count <= 1:
        raise Invalid("N must be greater than 1.", param="N")
    column = F.reshape(x, (*shape, 1))
    ones = F.ones_like(column)
    return F.cat([ones, F.cumprod(F.expand(column, (*shape, count - 1)), -1)], -1)


@composite(
    family="linalg",
    name="linalg.tensorinv",
    moves=True,
    samples=[S(T(2, 2, spd=True), ind=1), S(T(4, 2, 2, values=np.eye(4).reshape(4, 2, 2).tolist()), ind=1)],
)
def tensorinv(F: Any, A: Array, ind: int = 2) -> Array:
    """The inverse for tensordot: the tensor as a matrix from its last dimensions to its first `ind`."""
    shape = tuple(F.shape(A))
    if ind <= 0:
        raise Invalid(f"Expected a strictly positive integer for 'ind', but got {ind}", param="ind")
    rows, columns = prod(shape[:ind]), prod(shape[ind:])
    if rows != columns:
        raise ShapeMismatch(
            "Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), but got "
            f"{columns} != {rows}",
            param="A",
        )
    return F.reshape(getattr(F, "linalg.inv")(F.reshape(A, (rows, columns))), (*shape[ind:], *shape[:ind]))


@composite(
    family="linalg", name="linalg.tensorsolve", moves=True, samples=[S(T(2, 2, spd=True), T(2)), S(T(2, 3, 6), T(2, 3))]
)
def tensorsolve(F: Any, A: Array, B: Array, dims: Dims | None = None) -> Array:
    """X with tensordot(A, X, X.ndim) = B; `dims` are moved to the end of A first."""
    if dims is not None:
        last = [wrap_dim(d, len(F.shape(A))) for d in ([dims] if isinstance(dims, int) else dims)]
        A = F.permute(A, [*(d for d in range(len(F.shape(A))) if d not in last), *last])
    a, b = tuple(F.shape(A)), tuple(F.shape(B))
    unknown = a[len(b) :]
    rows, columns = prod(unknown), prod(b)
    if rows != columns:
        raise ShapeMismatch(
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == prod(self.shape[:other.ndim]), "
            f"but got {rows} != {columns}",
            param="A",
        )
    made = getattr(F, "linalg.solve")(F.reshape(A, (columns, rows)), F.reshape(B, (columns,)))
    return F.reshape(made, unknown)
