"""LU decompositions with row pivoting, A = P L U, packed as LAPACK has them and unpacked; systems solved from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import FLOAT, int32, scalar_type
from engine.errors import DtypeMismatch, Hint, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops import lapack
from engine.ops.common import not_implemented
from engine.ops.lapack import on_host
from engine.ops.linalg import _element, check_matrix
from engine.ops.products import adjoint, cast_hint
from engine.samples import C, I, S, T
from engine.shapes import text

# ---------------------------------------------------------------- refusals


def _check_factored(A: Spec, name: str, pivot: bool) -> None:
    """Refuses what `getrf` does not take, in PyTorch's words."""
    if A.ndim < 2:
        raise ShapeMismatch(
            f"{name}: Expected tensor with 2 or more dimensions. Got size: {text(A.shape)} instead", param="A"
        )
    if not pivot:
        raise Invalid(
            "linalg.lu_factor: LU without pivoting is not implemented on the CPU",
            code="no-pivot",
            hint=Hint("pivot"),
            param="pivot",
        )
    if A.dtype.category < FLOAT or A.dtype.reduced:
        raise not_implemented("lu_cpu", A.dtype)


def _packed(A: Spec) -> tuple[Spec, Spec, Spec]:
    *batch, m, n = A.shape
    return A, Spec((*batch, min(m, n)), int32), Spec(tuple(batch), int32)


def _zero_pivots(k: K, info: Any, name: str, batch: Any) -> None:
    for at in np.flatnonzero(info):
        i = int(info.reshape(-1)[at])
        raise Invalid(
            f"{name}: {_element(batch, int(at))}U[{i},{i}] is zero and using it on lu_solve would result in a division "
            "by zero. If you still want to perform the factorization, consider calling linalg.lu(A, pivot) or "
            "linalg.lu_factor_ex(A, pivot)",
            code="singular",
            hint=Hint("singular"),
            param="A",
        )


# ---------------------------------------------------------------- rules


def _square_rule(F: Any, low: Any, up: Any, lower: Any, upper: Any) -> Any:
    """The gradient of P^T A for a square A = P L U, from those of L and U (either may be none).

    L^-H [tril(L^H g_L, -1) + triu(g_U U^H)] U^-H: dL and dU are the parts of L^-1 P^T dA U^-1 (Murray 2016).
    """
    inner = None
    if low is not None:
        inner = F.tril(F.matmul(adjoint(F, lower), low), -1)
    if up is not None:
        part = F.triu(F.matmul(up, adjoint(F, upper)))
        inner = part if inner is None else F.add(inner, part)
    inner = adjoint(F, F._triangular(upper, adjoint(F, inner), True, False))
    return F._triangular(adjoint(F, lower), inner, True, True)


def _factor_rule(F: Any, low: Any, up: Any, lower: Any, upper: Any) -> Any:
    """The gradient of P^T A, of any shape. What overhangs is a triangular solve of its own: U_2 = L^-1 A_2."""
    m, n = F.shape(lower)[-2], F.shape(upper)[-1]
    k = min(m, n)
    if m == n:
        return _square_rule(F, low, up, lower, upper)
    if m < n:
        square, rest = F.narrow(upper, -1, 0, k), F.narrow(upper, -1, k, n - k)
        by_rest = F.zeros_like(rest)
        if up is not None:
            by_rest = F._triangular(adjoint(F, lower), F.narrow(up, -1, k, n - k), True, True)
            share = F.matmul(by_rest, adjoint(F, rest))
            low = F.neg(share) if low is None else F.sub(low, share)
            up = F.narrow(up, -1, 0, k)
        return F.cat([_square_rule(F, low, up, lower, square), by_rest], -1)
    square, rest = F.narrow(lower, -2, 0, k), F.narrow(lower, -2, k, m - k)
    by_rest = F.zeros_like(rest)
    if low is not None:
        by_rest = adjoint(F, F._triangular(upper, adjoint(F, F.narrow(low, -2, k, m - k)), True, False))
        share = F.matmul(adjoint(F, rest), by_rest)
        up = F.neg(share) if up is None else F.sub(up, share)
        low = F.narrow(low, -2, 0, k)
    return F.cat([_square_rule(F, low, up, square, upper), by_rest], -2)


def _unpacked(F: Any, lu: Any) -> tuple[Any, Any]:
    """L with ones on its diagonal, and U, of a packed decomposition."""
    m, n = F.shape(lu)[-2:]
    k = min(m, n)
    lower = F.tril(F.narrow(lu, -1, 0, k), -1)
    eye = F.diag_embed(F.ones_like(F.diagonal(F.narrow(F.narrow(lu, -1, 0, k), -2, 0, k), 0, -2, -1)))
    if m > k:
        eye = F.cat([eye, F.zeros_like(F.narrow(lower, -2, k, m - k))], -2)
    return F.add(lower, eye), F.triu(F.narrow(lu, -2, 0, k))


# ---------------------------------------------------------------- packed


@op(
    family="linalg",
    meta=lambda k, A, *rest: _packed(A),
    outputs=("LU", "pivots", "info"),
    nondiff=("pivots", "info"),
    save={"A": ("LU", "pivots")},
    node="LinalgLuFactorExBackward0",
)
def _lu(k: K, A: Array, check: Any = None) -> Any:
    """The packed LU decomposition; `check` names who refuses a zero on the diagonal of U."""

    def run(x: Any) -> Any:
        made = lapack.lu_factor(x)
        if check is not None:
            _zero_pivots(k, made[2], check, A.shape[:-2])
        return made

    return on_host(k, run, A)


@_lu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    lower, upper = _unpacked(F, saved.LU)
    m, n = F.shape(saved.LU)[-2:]
    k = min(m, n)
    low, up = F.tril(F.narrow(g[0], -1, 0, k), -1), F.triu(F.narrow(g[0], -2, 0, k))
    return F.matmul(F._permutation(saved.pivots, m, lower), _factor_rule(F, low, up, lower, upper))


def _permutation_meta(k: K, pivots: Spec, rows: int, like: Spec) -> Spec:
    return Spec((*pivots.shape[:-1], rows, rows), like.dtype)


@op(family="linalg", meta=_permutation_meta, vjp=None)
def _permutation(k: K, pivots: Array, rows: int, like: Array) -> Array:
    """The matrix P of A = P L U, from LAPACK's transpositions."""

    return on_host(k, lambda p: lapack.permutation_matrices(lapack.permutations(p, rows), like.dtype), pivots)


_SQUARES = [S(T(2, 2)), S(T(3, 3)), S(T(2, 3, 3)), S(T(0, 0)), S(T(0, 2, 2)), S(C(2, 2))]
_FACTORED = [*_SQUARES, S(T(2, 4)), S(T(4, 2)), S(T(2, 3, 2)), S(T(0, 3)), S(C(3, 2)), S(C(2, 3))]


@composite(
    family="linalg",
    name="linalg.lu_factor",
    outputs=("LU", "pivots"),
    fields=True,
    moves=True,
    samples=_FACTORED,
    example={"A": [[1.5, 2.5], [3.5, 4.5]]},
)
def lu_factor(F: Any, A: Array, pivot: bool = True) -> Array:
    """L and U in one matrix, the ones on L's diagonal left out, and the row that was exchanged with each, from 1.

    A matrix whose U has a zero on its diagonal is refused. Shape: (..., m, n) gives (..., m, n) and (..., min(m, n)).
    On a CUDA device the matrices are computed on the host.
    """
    _check_factored(Spec(tuple(F.shape(A)), F.dtype(A)), "torch.lu_factor", pivot)
    return list(F._lu(A, "torch.linalg.lu_factor"))[:2]


@composite(
    family="linalg",
    name="linalg.lu_factor_ex",
    outputs=("LU", "pivots", "info"),
    fields=True,
    moves=True,
    samples=[*_SQUARES, S(T(2, 2, values=[[1.0, 2.0], [2.0, 4.0]]), gradcheck=False)],
)
def lu_factor_ex(F: Any, A: Array, pivot: bool = True, check_errors: bool = False) -> Array:
    """`linalg.lu_factor`, and for each matrix 0 or which diagonal element of U is the first zero.

    On a CUDA device the matrices are computed on the host.
    """
    _check_factored(Spec(tuple(F.shape(A)), F.dtype(A)), "torch.lu_factor", pivot)
    return list(F._lu(A, "torch.linalg.lu_factor_ex" if check_errors else None))


@composite(
    family="linalg",
    returns="list of Tensors",
    moves=True,
    samples=[S(T(2, 2)), S(T(2, 3, 2)), S(C(2, 2)), S(T(2, 2), get_infos=True)],
)
def lu(F: Any, input: Array, pivot: bool = True, get_infos: bool = False) -> Array:
    """`linalg.lu_factor_ex` by its older name: LU and pivots, and with `get_infos` the error codes.

    On a CUDA device the matrices are computed on the host.
    """
    _check_factored(Spec(tuple(F.shape(input)), F.dtype(input)), "torch.lu_factor", pivot)
    return list(F._lu(input, None))[: 3 if get_infos else 2]


# ---------------------------------------------------------------- in three parts


def _lu_meta(k: K, A: Spec, pivot: bool = True) -> tuple[Spec, Spec, Spec]:
    _check_factored(A, "linalg.lu", pivot)
    *batch, m, n = A.shape
    r = min(m, n)
    return Spec((*batch, m, m), A.dtype), Spec((*batch, m, r), A.dtype), Spec((*batch, r, n), A.dtype)


@op(
    family="linalg",
    name="linalg.lu",
    meta=_lu_meta,
    outputs=("P", "L", "U"),
    fields=True,
    nondiff=("P",),
    save={"A": ("P", "L", "U")},
    node="LinalgLuBackward0",
    samples=_FACTORED,
    example={"A": [[1.5, 2.5], [3.5, 4.5]]},
)
def linalg_lu(k: K, A: Array, pivot: bool = True) -> Any:
    """A = P L U: a permutation, a lower triangle with ones on its diagonal, and an upper triangle.

    On a CUDA device the matrices are computed on the host.
    """
    lu, pivots, _ = _lu.op.kernel(k, A)  # type: ignore[misc]
    return _parts(k, lu, pivots)


def _parts(k: K, lu: Any, pivots: Any) -> Any:
    xp = k.xp
    m, n = lu.shape[-2:]
    r = min(m, n)
    p = _permutation.op.kernel(k, pivots, m, lu)  # type: ignore[misc]
    return p, xp.tril(lu[..., :r], -1) + xp.eye(m, r, dtype=lu.dtype), xp.triu(lu[..., :r, :])


@linalg_lu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    if g[1] is None and g[2] is None:
        return None
    return F.matmul(saved.P, _factor_rule(F, g[1], g[2], saved.L, saved.U))


def _unpack_meta(k: K, LU_data: Spec, LU_pivots: Spec, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    if LU_data.ndim < 2:
        raise ShapeMismatch(
            f"torch.lu_unpack: Expected tensor with 2 or more dimensions. Got size: {text(LU_data.shape)} instead",
            param="LU_data",
        )
    if unpack_pivots and LU_pivots.dtype is not int32:
        raise DtypeMismatch(
            "torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 dtype.\nNote: this "
            "function is intended to be used with the output produced by torch.linalg.lu_factor",
            param="LU_pivots",
        )
    *batch, m, n = LU_data.shape
    if unpack_pivots and (not LU_pivots.ndim or LU_pivots.shape[:-1] != tuple(batch)):
        # PyTorch does not look, and reads memory that is not the pivots'.
        raise ShapeMismatch(
            f"torch.lu_unpack: Expected LU_pivots to have the batch dimensions {text(tuple(batch))} of LU_data, but "
            f"got {text(LU_pivots.shape)}",
            param="LU_pivots",
        )
    if unpack_pivots and LU_pivots.shape[-1] > m:
        raise ShapeMismatch(f"torch.lu_unpack: {LU_pivots.shape[-1]} pivots for {m} rows", param="LU_pivots")
    r = min(m, n)
    none = Spec((0,), LU_data.dtype)
    return (
        Spec((*batch, m, m), LU_data.dtype) if unpack_pivots else none,
        Spec((*batch, m, r), LU_data.dtype) if unpack_data else none,
        Spec((*batch, r, n), LU_data.dtype) if unpack_data else none,
    )


_PACKED = T(3, 3)
_PIVOTS = I(3, dtype="int32", values=[3, 2, 3])


@op(
    family="linalg",
    meta=_unpack_meta,
    outputs=("P", "L", "U"),
    fields=True,
    nondiff=("P",),
    save={"LU_data": ()},
    node="LuUnpackBackward0",
    samples=[
        S(_PACKED, _PIVOTS),
        S(T(2, 3, 2), I(2, 2, dtype="int32", values=[[1, 3], [2, 2]])),
        S(T(2, 3), I(2, dtype="int32", values=[2, 2])),
        S(_PACKED, _PIVOTS, unpack_data=False, gradcheck=False),
        S(_PACKED, _PIVOTS, unpack_pivots=False),
        S(C(3, 3), _PIVOTS),
        S(T(0, 0), I(0, dtype="int32")),
    ],
    example={"LU_data": [[3.5, 4.5], [0.5, 1.5]], "LU_pivots": {"data": [2, 2], "dtype": "int32"}},
)
def lu_unpack(k: K, LU_data: Array, LU_pivots: Array, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    """P, L and U of a packed LU decomposition; what is not unpacked is empty."""
    xp = k.xp
    nothing = xp.zeros((0,), LU_data.dtype)
    lower = upper = p = nothing
    m, n = LU_data.shape[-2:]
    r = min(m, n)
    if unpack_data:
        lower = xp.tril(LU_data[..., :r], -1) + xp.eye(m, r, dtype=LU_data.dtype)
        upper = xp.triu(LU_data[..., :r, :])
    if unpack_pivots:

        def run(given: Any) -> Any:
            order = lapack.permutations(np.broadcast_to(given, (*LU_data.shape[:-2], given.shape[-1])), m)
            return lapack.permutation_matrices(order, LU_data.dtype)

        p = on_host(k, run, LU_pivots)
    return p, lower, upper


@lu_unpack.guard
def _(k: K, LU_data: Array, LU_pivots: Array, unpack_data: bool = True, unpack_pivots: bool = True) -> None:
    m = LU_data.shape[-2]
    if unpack_pivots and LU_pivots.size and bool(((LU_pivots < 1) | (LU_pivots > m)).any()):
        raise Invalid(
            "pivots passed to lu_unpack must be between 1 and LU.size(-2) inclusive.Did you properly pass the result "
            "of lu_factor?",
            code="pivots",
            param="LU_pivots",
        )


@lu_unpack.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    m, n = F.shape(saved.LU_data)[-2:]
    r = min(m, n)
    made = None
    if g[1] is not None and saved.unpack_data:
        made = F.tril(g[1], -1)
        if n > r:
            made = F.cat([made, F.new_zeros(made, [*F.shape(made)[:-1], n - r])], -1)
    if g[2] is not None and saved.unpack_data:
        part = F.triu(g[2])
        if m > r:
            part = F.cat([part, F.new_zeros(part, [*F.shape(part)[:-2], m - r, n])], -2)
        made = part if made is None else F.add(made, part)
    return made, None


# ---------------------------------------------------------------- systems


def _check_solve(LU: Spec, pivots: Spec, B: Spec, left: bool) -> None:
    name = "linalg.lu_solve"
    if LU.ndim < 2 or LU.shape[-1] != LU.shape[-2] or LU.dtype.category < FLOAT:
        wide = LU if not LU.dtype.reduced else Spec(LU.shape, LU.dtype.compute)
        check_matrix(wide, f"torch.{name}", square=True)
    if B.ndim < 2:
        raise ShapeMismatch(f"{name}: The input tensor B must have at least 2 dimensions.", param="B")
    if LU.dtype is not B.dtype:
        raise DtypeMismatch(
            f"{name}: Expected LU and B to have the same dtype, but found LU of type {scalar_type(LU.dtype)} and B of "
            f"type {scalar_type(B.dtype)} instead",
            hint=cast_hint(LU, B, "LU", "B"),
            param="B",
        )
    if pivots.dtype is not int32:
        raise DtypeMismatch(f"{name}: pivots should be a Tensor of scalar type torch.int32", param="pivots")
    n = LU.shape[-1]
    if B.shape[-2 if left else -1] != n:
        raise ShapeMismatch(
            f"{name}: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} ({n}x{n} and "
            f"{B.shape[-2]}x{B.shape[-1]})",
            param="B",
        )
    if not pivots.shape or pivots.shape[-1] != n:
        raise ShapeMismatch(
            f"{name}: Number of pivots per batch should be same as the dimension of the matrix", param="pivots"
        )
    if pivots.shape != LU.shape[:-1]:
        raise ShapeMismatch(
            f"{name}: Expected LU.shape[:-1] and pivots.shape to be the same, but got pivots with shape "
            f"{text(pivots.shape)} instead",
            param="pivots",
        )
    if LU.dtype.reduced:
        raise not_implemented(f"{name}_cpu", LU.dtype)


@op(family="linalg", meta=lambda k, pivots, rows: pivots, vjp=None)
def _checked_pivots(k: K, pivots: Array, rows: int) -> Array:
    """The pivots, if they are rows of a matrix."""
    return pivots.copy()


@_checked_pivots.guard
def _(k: K, pivots: Array, rows: int) -> None:
    if pivots.size and bool(((pivots < 1) | (pivots > rows)).any()):
        raise Invalid(
            "Pivots given to lu_solve must all be smaller or equal to LU.size(-2). Did you properly pass the result of "
            "lu_factor?",
            code="pivots",
            param="pivots",
        )


def _solve(F: Any, LU: Any, pivots: Any, B: Any, left: bool, adjoint_: bool) -> Any:
    a = Spec(tuple(F.shape(LU)), F.dtype(LU))
    _check_solve(a, Spec(tuple(F.shape(pivots)), F.dtype(pivots)), Spec(tuple(F.shape(B)), F.dtype(B)), left)
    n = a.shape[-1]
    P = F._permutation(F._checked_pivots(pivots, n), n, LU)
    # X A = B is A^H X^H = B^H.
    if not left:
        return adjoint(F, _from_left(F, LU, P, adjoint(F, B), not adjoint_))
    return _from_left(F, LU, P, B, adjoint_)


def _from_left(F: Any, LU: Any, P: Any, B: Any, adjoint_: bool) -> Any:
    if adjoint_:
        made = F._triangular(adjoint(F, LU), B, False, False)
        return F.matmul(P, F._triangular(adjoint(F, LU), made, True, True))
    made = F._triangular(LU, F.matmul(F.transpose(P, -2, -1), B), False, True)
    return F._triangular(LU, made, True, False)


_THREE = I(2, dtype="int32", values=[2, 2])
_SOLVED = T(2, 2, spd=True)


@composite(
    family="linalg",
    name="linalg.lu_solve",
    node="LinalgLuSolveBackward0",
    moves=True,
    samples=[
        S(_SOLVED, _THREE, T(2, 3)),
        S(_SOLVED, _THREE, T(3, 2), left=False),
        S(_SOLVED, _THREE, T(2, 1), adjoint=True),
        S(T(2, 2, 2, spd=True), I(2, 2, dtype="int32", values=[[1, 2], [2, 2]]), T(2, 3)),
        S(C(2, 2), _THREE, C(2, 2)),
        S(C(2, 2), _THREE, C(2, 2), left=False, adjoint=True),
        S(T(0, 0), I(0, dtype="int32"), T(0, 2)),
    ],
    example={
        "LU": [[3.5, 4.5], [0.5, 1.5]],
        "pivots": {"data": [2, 2], "dtype": "int32"},
        "B": [[1.5], [2.5]],
    },
)
def lu_solve(F: Any, LU: Array, pivots: Array, B: Array, left: bool = True, adjoint: bool = False) -> Array:
    """X with A X = B (X A = B where `left` is false) from A's packed LU decomposition; A^H in place of A by `adjoint`.

    On a CUDA device the permutation is computed on the host.
    """
    return _solve(F, LU, pivots, B, left, adjoint)


@composite(
    family="linalg",
    name="lu_solve",
    node="LinalgLuSolveBackward0",
    moves=True,
    samples=[S(T(2, 3), _SOLVED, _THREE), S(C(2, 2), C(2, 2), _THREE)],
    example={
        "input": [[1.5], [2.5]],
        "LU_data": [[3.5, 4.5], [0.5, 1.5]],
        "LU_pivots": {"data": [2, 2], "dtype": "int32"},
    },
)
def torch_lu_solve(F: Any, input: Array, LU_data: Array, LU_pivots: Array) -> Array:
    """`linalg.lu_solve` by its older name, the right side first."""
    return _solve(F, LU_data, LU_pivots, input, True, False)
