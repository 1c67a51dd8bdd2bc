"""Systems of equations with triangular matrices."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import FLOAT, scalar_type
from engine.errors import DtypeMismatch, ShapeMismatch
from engine.op import Spec
from engine.ops import lapack
from engine.ops.common import not_implemented
from engine.ops.linalg import _solve_meta
from engine.ops.products import adjoint, cast_hint
from engine.samples import C, S, T


def _triangular_meta(k: K, A: Spec, B: Spec, upper: bool, unit: bool) -> Spec:
    return _solve_meta(k, A, B)


@op(
    family="linalg",
    meta=_triangular_meta,
    save={"A": ("A", "result"), "B": ("A",)},
    node="LinalgSolveTriangularBackward0",
)
def _triangular(k: K, A: Array, B: Array, upper: bool, unit: bool) -> Array:
    """X with A X = B; only one triangle of A is looked at, and its diagonal is ones if `unit`."""
    xp = k.xp
    shape = k.spec.shape
    if not A.size or not k.spec.numel:
        return xp.zeros(shape, B.dtype)
    a = xp.broadcast_to(A, (*shape[:-2], *A.shape[-2:]))
    b = xp.broadcast_to(B, shape)
    if k.backend.kind == "cpu":
        return lapack.triangular(a, b, upper, unit)
    solve = k.sp.linalg.solve_triangular
    return solve(xp.ascontiguousarray(a), xp.ascontiguousarray(b), lower=not upper, unit_diagonal=unit)


@_triangular.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    upper, unit = saved.upper, saved.unit
    to_b = F._triangular(adjoint(F, saved.A), g, not upper, unit)
    if not need.A:
        return False, to_b
    to_a = -F.matmul(to_b, adjoint(F, saved.result))
    # What was not looked at has no gradient.
    return (F.triu(to_a, int(unit)) if upper else F.tril(to_a, -int(unit))), need.B and to_b


def _batches(x: Spec, name: str) -> None:
    if x.ndim < 2:
        raise ShapeMismatch(f"{name}: The input tensor A must have at least 2 dimensions.", param="A")
    if x.shape[-1] != x.shape[-2]:
        raise ShapeMismatch(
            f"{name}: A must be batches of square matrices, but they are {x.shape[-2]} by {x.shape[-1]} matrices",
            param="A",
        )


def _full_precision(*specs: Spec) -> None:
    for x in specs:
        if x.dtype.category < FLOAT or x.dtype.reduced:
            raise not_implemented("triangular_solve_cpu", x.dtype)


@composite(
    family="linalg",
    name="linalg.solve_triangular",
    node="LinalgSolveTriangularBackward0",
    moves=True,
    samples=[
        S(T(2, 2, spd=True), T(2, 3), upper=True),
        S(T(2, 2, spd=True), T(2, 3), upper=False, unitriangular=True),
        S(T(2, 2, spd=True), T(3, 2), upper=True, left=False),
        S(T(2, 1, 2, 2, spd=True), T(3, 2, 1), upper=False),
        S(C(2, 2), C(2, 1), upper=True),
        S(T(0, 0), T(0, 2), upper=True),
    ],
)
def solve_triangular(
    F: Any, input: Array, B: Array, upper: bool, left: bool = True, unitriangular: bool = False
) -> Array:
    """X with A X = B, where only one triangle of A is looked at; X A = B where `left` is false."""
    a, b = Spec(tuple(F.shape(input)), F.dtype(input)), Spec(tuple(F.shape(B)), F.dtype(B))
    name = "linalg.solve_triangular"
    _batches(a, name)
    if b.ndim < 2:
        raise ShapeMismatch(f"{name}: The input tensor B must have at least 2 dimensions.", param="B")
    n = a.shape[-1]
    if b.shape[-2 if left else -1] != n:
        raise ShapeMismatch(
            f"{name}: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} "
            f"({n}x{n} and {b.shape[-2]}x{b.shape[-1]})",
            param="B",
        )
    _full_precision(a, b)
    if a.dtype is not b.dtype:
        raise DtypeMismatch(
            f"{name}: Expected A and B to have the same dtype, but found A of type {scalar_type(a.dtype)} and B of "
            f"type {scalar_type(b.dtype)} instead",
            hint=cast_hint(a, b, "input", "B"),
            param="B",
        )
    if left:
        return F._triangular(input, B, upper, unitriangular)
    made = F._triangular(F.transpose(input, -2, -1), F.transpose(B, -2, -1), not upper, unitriangular)
    return F.transpose(made, -2, -1)


@composite(
    family="linalg",
    outputs=("solution", "cloned_coefficient"),
    fields=True,
    node="TriangularSolveBackward0",
    moves=True,
    samples=[
        S(T(2, 3), T(2, 2, spd=True)),
        S(T(2, 3), T(2, 2, spd=True), upper=False, transpose=True),
        S(T(2, 1), T(3, 2, 2, spd=True), unitriangular=True),
        S(C(2, 1), C(2, 2)),
        S(T(0, 2), T(0, 0)),
    ],
    example={"input": [[1.5], [2.5]], "A": [[3.5, 1.5], [0.5, 2.5]]},
)
def triangular_solve(
    F: Any, input: Array, A: Array, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Array:
    """X with A X = B (A^T X = B with `transpose`), one triangle of A looked at, and a copy of A: the older form."""
    a, b = Spec(tuple(F.shape(A)), F.dtype(A)), Spec(tuple(F.shape(input)), F.dtype(input))
    name = "triangular_solve"
    for what, x, param in (("b", b, "input"), ("A", a, "A")):
        if x.ndim < 2:
            raise ShapeMismatch(
                f"torch.{name}: Expected {what} to have at least 2 dimensions, but it has {x.ndim} dimensions instead",
                param=param,
            )
    m, n = a.shape[-2:]
    if m != n:
        raise ShapeMismatch(f"A must be batches of square matrices, but they are {m} by {n} matrices", param="A")
    if b.shape[-2] != n:
        raise ShapeMismatch(
            f"Incompatible matrix sizes for {name}: each A matrix is {n} by {n} but each b matrix is {b.shape[-2]} by "
            f"{b.shape[-1]}",
            param="input",
        )
    if a.dtype is not b.dtype:
        raise DtypeMismatch(
            f"Expected b and A to have the same dtype, but found b of type {scalar_type(b.dtype)} and A of type "
            f"{scalar_type(a.dtype)} instead.",
            hint=cast_hint(b, a, "input", "A"),
            param="A",
        )
    _full_precision(b)
    made = F._triangular(F.transpose(A, -2, -1) if transpose else A, input, upper != transpose, unitriangular)
    return [made, F.clone(F.expand(A, [*F.shape(made)[:-2], n, n]))]
