"""Factors as LAPACK packs them: Householder's reflections of a QR decomposition, and LDL decompositions."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.autograd import vjp_through
from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import BOOL, FLOAT, int32, scalar_type
from engine.errors import DtypeMismatch, Invalid, NoGradient, ShapeMismatch
from engine.op import Spec
from engine.ops import lapack
from engine.ops.common import not_implemented
from engine.ops.lapack import on_host
from engine.ops.linalg import _element
from engine.ops.products import adjoint, cast_hint
from engine.samples import C, I, S, T
from engine.shapes import Shape, broadcast_two, text


def _no_rule(words: str) -> Any:
    """The rule of an operation that PyTorch has no gradient for: there is a tape, and backward says so."""

    def rule(F: Any, saved: Any, g: Any, need: Any) -> Any:
        raise NoGradient(words, code="no-derivative")

    return rule


def _full_precision(d: Any, kernel: str) -> None:
    if d.category < FLOAT or d.reduced:
        raise not_implemented(kernel, d)


# ---------------------------------------------------------------- Householder


def _geqrf_meta(k: K, input: Spec) -> tuple[Spec, Spec]:
    if input.ndim < 2:
        raise ShapeMismatch("torch.geqrf: input must have at least 2 dimensions.", param="input")
    _full_precision(input.dtype, "geqrf_cpu")
    *batch, m, n = input.shape
    return input, Spec((*batch, min(m, n)), input.dtype)


# PyTorch has no gradient here, so none is asked of the samples.
def _still(*shape: int, **given: Any) -> T:
    return T(*shape, grad=False, **given)


def _still_complex(*shape: int) -> T:
    return T(*shape, dtype="complex64", grad=False)


@op(
    family="linalg",
    meta=_geqrf_meta,
    outputs=("a", "tau"),
    fields=True,
    save={"input": ()},
    samples=[S(_still(3, 2)), S(_still(2, 3)), S(_still(2, 3, 3)), S(_still(0, 2)), S(_still_complex(2, 2))],
    example={"input": [[1.5, 2.5], [3.5, 4.5]]},
)
def geqrf(k: K, input: Array) -> Any:
    """LAPACK's packed QR decomposition: R on and above the diagonal, below it Householder's vectors, and factors tau.

    There is no gradient. On a CUDA device the matrices are computed on the host.
    """
    return on_host(k, lapack.qr_factor, input)


geqrf.vjp(_no_rule("the derivative for 'geqrf' is not implemented."))


def _check_tau(input: Spec, tau: Spec, name: str) -> None:
    if input.ndim - tau.ndim != 1:
        raise ShapeMismatch(
            f"{name}: Expected tau to have one dimension less than input, but got tau.ndim equal to {tau.ndim} and "
            f"input.ndim is equal to {input.ndim}",
            param="tau",
        )
    if tau.shape[:-1] != input.shape[:-2]:
        raise ShapeMismatch(
            f"{name}: Expected batch dimensions of tau to be equal to input.shape[:-2], but got {text(tau.shape[:-1])}",
            param="tau",
        )


def _householder_meta(k: K, input: Spec, tau: Spec) -> Spec:
    name = "torch.linalg.householder_product"
    if input.ndim < 2:
        raise ShapeMismatch(f"{name}: input must have at least 2 dimensions.", param="input")
    if input.shape[-2] < input.shape[-1]:
        raise ShapeMismatch(f"{name}: input.shape[-2] must be greater than or equal to input.shape[-1]", param="input")
    if not tau.shape:
        raise ShapeMismatch("Dimension specified as -1 but tensor has no dimensions", param="tau")
    if input.shape[-1] < tau.shape[-1]:
        raise ShapeMismatch(f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1]", param="tau")
    _check_tau(input, tau, name)
    if input.dtype is not tau.dtype:
        raise DtypeMismatch(
            f"{name}: tau dtype {scalar_type(tau.dtype)} does not match input dtype {scalar_type(input.dtype)}",
            hint=cast_hint(input, tau, "input", "tau"),
            param="tau",
        )
    _full_precision(input.dtype, "orgqr_cpu")
    return input


def _vector(F: Any, input: Any, i: int) -> Any:
    """Householder's vector i, a column: zeros above place i, a one there, and the input's column below it."""
    m = F.shape(input)[-2]
    column = F.narrow(input, -1, i, 1)
    below = F.narrow(column, -2, i + 1, m - i - 1)
    above = F.zeros_like(F.narrow(column, -2, 0, i))
    return F.cat([above, F.ones_like(F.narrow(column, -2, i, 1)), below], -2)


def _reflected(F: Any, v: Any, factor: Any, x: Any) -> Any:
    """x - factor v v^H x."""
    by = F.matmul(F.conj(F.transpose(v, -2, -1)), x)
    return F.sub(x, F.mul(F.mul(F.reshape(factor, (*F.shape(factor), 1)), v), by))


def _product_by_steps(F: Any, input: Any, tau: Any) -> Any:
    """The product of the reflections I - tau_i v_i v_i^H, its first n columns: what `orgqr` computes in blocks."""
    m, n = F.shape(input)[-2:]
    if not n:
        return F.clone(input)
    made = F.diag_embed(F.ones_like(F.select(input, -2, 0)))
    if m > n:
        made = F.cat([made, F.zeros_like(F.narrow(input, -2, n, m - n))], -2)
    for i in reversed(range(F.shape(tau)[-1])):
        made = _reflected(F, _vector(F, input, i), F.narrow(tau, -1, i, 1), made)
    return made


@op(
    family="linalg",
    name="linalg.householder_product",
    alias=("orgqr",),
    meta=_householder_meta,
    save={"input": ("input", "tau"), "tau": ("input", "tau")},
    node="LinalgHouseholderProductBackward0",
    samples=[
        S(T(3, 2), T(2)),
        S(T(3, 3), T(2)),
        S(T(2, 3, 2), T(2, 1)),
        S(T(3, 2), T(0)),
        S(T(0, 0), T(0)),
        S(C(3, 2), C(2)),
    ],
    example={"input": [[1.5, 2.5], [0.5, 3.5]], "tau": [1.5, 0.5]},
)
def householder_product(k: K, input: Array, tau: Array) -> Array:
    """The first n columns of the product of Householder's reflections I - tau_i v_i v_i^H, as `geqrf` packs them.

    Shape: (..., m, n) and (..., k), k <= n <= m. On a CUDA device the matrices are computed on the host.
    """
    return on_host(k, lapack.reflected, input, tau)


householder_product.vjp(vjp_through(_product_by_steps))


def _ormqr_meta(k: K, input: Spec, tau: Spec, other: Spec, left: bool = True, transpose: bool = False) -> Spec:
    name = "torch.ormqr"
    for what, x in (("input", input), ("other", other)):
        if x.ndim < 2:
            raise ShapeMismatch(f"{name}: {what} must have at least 2 dimensions.", param=what)
    at = -2 if left else -1
    if other.shape[at] != input.shape[-2]:
        raise ShapeMismatch(f"{name}: other.shape[{at}] must be equal to input.shape[-2]", param="other")
    if not tau.shape or tau.shape[-1] != min(other.shape[at], input.shape[-1]):
        raise ShapeMismatch(
            f"{name}: tau.shape[-1] must be equal to min(other.shape[{at}], input.shape[-1])", param="tau"
        )
    _check_tau(input, tau, name)
    if other.ndim != input.ndim:
        raise ShapeMismatch(
            f"{name}: Expected other to have the same number of dimensions as input, but got other.ndim equal to "
            f"{other.ndim} and input.ndim is equal to {input.ndim}",
            param="other",
        )
    if other.shape[:-2] != input.shape[:-2]:
        raise ShapeMismatch(
            f"{name}: Expected batch dimensions of other to be equal to input.shape[:-2], but got "
            f"{text(other.shape[:-2])}",
            param="other",
        )
    for what, x in (("tau", tau), ("other", other)):
        if x.dtype is not input.dtype:
            raise DtypeMismatch(
                f"{name}: Expected input and {what} to have the same dtype, but input has dtype"
                f"{scalar_type(input.dtype)} and {what} has dtype {scalar_type(x.dtype)}",
                hint=cast_hint(input, x, "input", what),
                param=what,
            )
    _full_precision(input.dtype, "ormqr_cpu")
    return other


def _applied_by_steps(F: Any, input: Any, tau: Any, other: Any, left: bool, transpose: bool) -> Any:
    x = other if left else adjoint(F, other)
    backwards = left != transpose  # Q x applies the last reflection first, and Q^H x the first one
    k = F.shape(tau)[-1]
    order = range(k)
    factors = F.conj(tau) if transpose == left else tau
    for i in reversed(order) if backwards else order:
        x = _reflected(F, _vector(F, input, i), F.narrow(factors, -1, i, 1), x)
    return x if left else adjoint(F, x)


@op(
    family="linalg",
    meta=_ormqr_meta,
    save=dict.fromkeys(("input", "tau", "other"), ("input", "tau", "other")),
    samples=[
        S(T(3, 2), T(2), T(3, 2)),
        S(T(3, 2), T(2), T(2, 3), left=False),
        S(T(3, 3), T(3), T(3, 1), transpose=True),
        S(T(2, 3, 2), T(2, 2), T(2, 2, 3), left=False, transpose=True),
        S(T(0, 0), T(0), T(0, 2)),
        S(C(3, 2), C(2), C(3, 2)),
        S(C(3, 2), C(2), C(2, 3), left=False, transpose=True),
    ],
    example={"input": [[1.5, 2.5], [0.5, 3.5]], "tau": [1.5, 0.5], "other": [[1.5], [2.5]]},
)
def ormqr(k: K, input: Array, tau: Array, other: Array, left: bool = True, transpose: bool = False) -> Array:
    """Q @ other (other @ Q where `left` is false), Q the whole product of Householder's reflections, or its adjoint.

    On a CUDA device the matrices are computed on the host.
    """
    return on_host(k, lambda a, t, b: lapack.reflect(a, t, b, left, transpose), input, tau, other)


ormqr.vjp(vjp_through(_applied_by_steps))

# ---------------------------------------------------------------- LDL


def _check_symmetric(A: Spec, name: str) -> None:
    if A.ndim < 2:
        raise ShapeMismatch(f"{name}: The input tensor A must have at least 2 dimensions.", param="A")
    if A.shape[-1] != A.shape[-2]:
        raise ShapeMismatch(
            f"{name}: A must be batches of square matrices, but they are {A.shape[-2]} by {A.shape[-1]} matrices",
            param="A",
        )
    if A.dtype.category < FLOAT:
        raise DtypeMismatch(
            f"{name}: Expected a floating point or complex tensor as input. Got {scalar_type(A.dtype)}", param="A"
        )


def _ldl_meta(k: K, A: Spec, hermitian: bool, check: Any = None) -> tuple[Spec, Spec, Spec]:
    _check_symmetric(A, "torch.linalg.ldl_factor_ex")
    _full_precision(A.dtype, "ldl_factor_kernel_cpu")
    return A, Spec(A.shape[:-1], int32), Spec(A.shape[:-2], int32)


@op(
    family="linalg",
    meta=_ldl_meta,
    outputs=("LD", "pivots", "info"),
    nondiff=("pivots", "info"),
    save={"A": ()},
    node="NotImplemented",
)
def _ldl(k: K, A: Array, hermitian: Any, check: Any = None) -> Any:
    """The packed LDL decomposition; `check` names who refuses a block D that cannot be divided by."""

    def run(x: Any) -> Any:
        made = lapack.ldl_factor(x, hermitian)
        for at in np.flatnonzero(made[2]) if check is not None else ():
            i = int(made[2].reshape(-1)[at])
            raise Invalid(
                f"{check}: {_element(A.shape[:-2], int(at))}D[{i},{i}] is zero, and a system could not be solved with "
                "it: linalg.ldl_factor_ex gives the factors all the same.",
                code="singular",
                param="A",
            )
        return made

    return on_host(k, run, A)


_ldl.vjp(_no_rule("derivative for aten::linalg_ldl_factor_ex is not implemented"))

_SYMMETRIC = [
    S(_still(2, 2, spd=True)),
    S(_still(2, 3, 3, spd=True)),
    S(_still(3, 3)),
    S(_still(0, 0)),
    S(_still_complex(2, 2)),
    S(_still_complex(3, 3), hermitian=True),
]


@composite(
    family="linalg",
    name="linalg.ldl_factor",
    outputs=("LD", "pivots"),
    fields=True,
    moves=True,
    samples=_SYMMETRIC,
    example={"A": [[1.5, 2.5], [2.5, 4.5]]},
)
def ldl_factor(F: Any, A: Array, hermitian: bool = False) -> Array:
    """A = L D L^T, or L D L^H if `hermitian`, by the lower triangle of a symmetric matrix, packed as LAPACK does.

    D has blocks of 1 x 1 and, where `pivots` are negative, 2 x 2. There is no gradient. On a CUDA device the matrices
    are computed on the host.
    """
    return list(F._ldl(A, hermitian, "torch.linalg.ldl_factor"))[:2]


@composite(
    family="linalg",
    name="linalg.ldl_factor_ex",
    outputs=("LD", "pivots", "info"),
    fields=True,
    moves=True,
    samples=[*_SYMMETRIC, S(_still(2, 2, values=[[0.0, 0.0], [0.0, 0.0]]))],
    example={"A": [[1.5, 2.5], [2.5, 4.5]]},
)
def ldl_factor_ex(F: Any, A: Array, hermitian: bool = False, check_errors: bool = False) -> Array:
    """`linalg.ldl_factor`, and for each matrix 0 or which block of D is zero.

    On a CUDA device the matrices are computed on the host.
    """
    return list(F._ldl(A, hermitian, "torch.linalg.ldl_factor_ex" if check_errors else None))


def _ldl_batch(LD: Shape, B: Shape) -> Shape:
    return broadcast_two(LD[:-2], B[:-2])


def _ldl_solve_meta(k: K, LD: Spec, pivots: Spec, B: Spec, hermitian: bool = False) -> Spec:
    name = "torch.linalg.ldl_solve"
    _check_symmetric(LD, name)
    if B.ndim < 2:
        raise ShapeMismatch(f"{name}: The input tensor B must have at least 2 dimensions.", param="B")
    n = LD.shape[-1]
    if B.shape[-2] != n:
        raise ShapeMismatch(
            f"Incompatible matrix sizes for {name}: each A matrix is {n} by {n} but each b matrix is {B.shape[-2]} by "
            f"{B.shape[-1]}",
            param="B",
        )
    if LD.dtype is not B.dtype:
        raise DtypeMismatch(
            f"Expected b and A to have the same dtype, but found b of type {scalar_type(B.dtype)} and A of type "
            f"{scalar_type(LD.dtype)} instead.",
            hint=cast_hint(LD, B, "LD", "B"),
            param="B",
        )
    if pivots.dtype.category >= FLOAT or pivots.dtype.category == BOOL:
        raise DtypeMismatch(f"{name}: Expected pivots to be integers. Got {scalar_type(pivots.dtype)}", param="pivots")
    if pivots.shape != LD.shape[:-1]:
        raise ShapeMismatch(
            f"{name}: Expected LD.shape[:-1] and pivots.shape to be the same, but got pivots with shape "
            f"{text(pivots.shape)} instead",
            param="pivots",
        )
    _full_precision(LD.dtype, "ldl_solve_kernel_cpu")
    return Spec((*_ldl_batch(LD.shape, B.shape), *B.shape[-2:]), B.dtype)


@op(
    family="linalg",
    name="linalg.ldl_solve",
    meta=_ldl_solve_meta,
    save={"LD": (), "B": ()},
    node="NotImplemented",
    samples=[
        S(_still(2, 2, spd=True), I(2, dtype="int32", values=[1, 2]), _still(2, 3)),
        S(_still(2, 2, 2, spd=True), I(2, 2, dtype="int32", values=[[2, 2], [-1, -1]]), _still(2, 1)),
        S(_still_complex(2, 2), I(2, dtype="int32", values=[1, 2]), _still_complex(2, 1)),
        S(_still_complex(2, 2), I(2, dtype="int32", values=[1, 2]), _still_complex(2, 1), hermitian=True),
        S(_still(0, 0), I(0, dtype="int32"), _still(0, 2)),
    ],
    example={"LD": [[1.5, 2.5], [0.5, 4.5]], "pivots": {"data": [1, 2], "dtype": "int32"}, "B": [[1.5], [2.5]]},
)
def ldl_solve(k: K, LD: Array, pivots: Array, B: Array, hermitian: bool = False) -> Array:
    """X with A X = B, from `linalg.ldl_factor`'s LD and pivots.

    There is no gradient. On a CUDA device the matrices are computed on the host.
    """
    batch = k.spec.shape[:-2]

    def run(ld: Any, p: Any, b: Any) -> Any:
        wide = np.broadcast_to(ld, (*batch, *ld.shape[-2:])), np.broadcast_to(p, (*batch, p.shape[-1]))
        return lapack.ldl_solve(*wide, np.broadcast_to(b, (*batch, *b.shape[-2:])), hermitian)

    return on_host(k, run, LD, pivots, B)


@ldl_solve.guard
def _(k: K, LD: Array, pivots: Array, B: Array, hermitian: bool = False) -> None:
    # LAPACK takes these on trust, and would write wherever they point.
    n = LD.shape[-1]
    if pivots.size and bool(((abs(pivots) < 1) | (abs(pivots) > n)).any()):
        raise Invalid(
            f"torch.linalg.ldl_solve: pivots are from 1 to {n}, or from -1 to -{n} for the blocks of 2 x 2: pass the "
            "result of linalg.ldl_factor",
            code="pivots",
            param="pivots",
        )


ldl_solve.vjp(_no_rule("derivative for aten::linalg_ldl_solve is not implemented"))
