"""Inverses, determinants and linear systems of matrices, or of batches of them.

What a factorisation meets in a singular matrix is checked here, on every device: CuPy does not tell.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.linalg import LinAlgError

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import BOOL, FLOAT, int32, scalar_type, to_real
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.products import adjoint, cast_hint
from engine.samples import C, I, S, T
from engine.shapes import Shape, broadcast_two, wrap_dim

# ---------------------------------------------------------------- refusals


def check_matrix(x: Spec, name: str, *, square: bool = False, letter: str = "A", kernel: str = "") -> None:
    """Refuses what is no batch of (square) matrices of floats, in PyTorch's words.

    `kernel`: what PyTorch calls the routine that lacks the reduced floats, where it only finds out there.
    """
    if x.ndim < 2:
        raise ShapeMismatch(f"{name}: The input tensor {letter} must have at least 2 dimensions.")
    if square and x.shape[-1] != x.shape[-2]:
        raise ShapeMismatch(
            f"{name}: {letter} must be batches of square matrices, but they are {x.shape[-2]} by {x.shape[-1]} "
            "matrices",
            hint=Hint("square", rows=x.shape[-2], columns=x.shape[-1]),
        )
    if kernel and x.dtype.reduced:
        raise not_implemented(kernel, x.dtype)
    check_float(x, name)


def check_float(x: Spec, name: str) -> None:
    """Refuses integers and the reduced floats, in PyTorch's words."""
    d = x.dtype
    words = ""
    if d.category < FLOAT:
        words = f"{name}: Expected a floating point or complex tensor as input. Got {scalar_type(d)}"
    elif d.reduced:
        words = f"{name}: Low precision dtypes not supported. Got {scalar_type(d)}"
    if words:
        call = Call("to", {"input": Param("A"), "dtype": "float32"})
        raise DtypeMismatch(words, hint=Hint("cast-input", call, have=d.name))


def _element(batch: Shape, flat: int) -> str:
    return f"(Batch element {flat}): " if batch else ""


def zero_pivot(matrix: Any) -> int:
    """The first diagonal element of U that is zero in a host matrix's LU decomposition, counting from 1; 0 if none."""
    u = matrix.copy()
    n = len(u)
    for i in range(n):
        at = i + int(np.argmax(np.abs(u[i:, i])))
        if u[at, i] == 0:
            return i + 1
        u[[i, at]] = u[[at, i]]
        u[i + 1 :, i:] -= np.outer(u[i + 1 :, i] / u[i, i], u[i, i:])
    return 0


def small_minor(matrix: Any) -> int:
    """The order of the first leading minor of a host matrix that is not positive; 0 if all are."""
    n = len(matrix)
    lower = np.tril(matrix)
    full = lower + np.conj(np.tril(matrix, -1)).T
    for i in range(1, n + 1):
        try:
            found = np.linalg.cholesky(full[:i, :i])
        except LinAlgError:
            return i
        if not np.isfinite(found).all():
            return i
    return 0


def _failures(k: K, x: Array, result: Array, test: Any) -> Any:
    """(flat batch index, what the test says) of each matrix for which a result is not finite and the test fails."""
    size = result.shape[-1] * result.shape[-2] if result.ndim > 1 else 1
    bad = ~k.xp.isfinite(result).reshape(-1, max(size, 1)).all(axis=1)
    if not bool(bad.any()):
        return
    matrices = k.backend.to_host(x).reshape(-1, *x.shape[-2:])
    for at in np.flatnonzero(k.backend.to_host(bad)):
        found = test(matrices[at])
        if found:
            yield int(at), found


def attempted(function: Any, x: Array, *rest: Any) -> Any:
    """NumPy's function of a batch of matrices, with NaN for each one where it fails, as on the devices."""
    try:
        return function(x, *rest)
    except LinAlgError:
        pass
    batch = x.shape[:-2]
    made = np.full((*batch, *(rest[0].shape[-2:] if rest else x.shape[-2:])), np.nan, x.dtype)
    for place in np.ndindex(batch):
        try:
            made[place] = function(x[place], *(r[place] for r in rest))
        except LinAlgError:
            continue
    return made


def _with_nan(k: K, A: Array, made: Array) -> Array:
    """What was made of matrices by elimination, all of it NaN where a matrix has one.

    OpenBLAS passes over a pivot that is NaN, and gives numbers.
    """
    xp = k.xp
    if k.backend.kind == "cpu" and not np.isnan(A.sum()):
        return made
    return xp.where(xp.isnan(A).any((-2, -1), keepdims=True), xp.asarray(np.nan, made.dtype), made)


# ---------------------------------------------------------------- inv


def _inverse_of(k: K, x: Array) -> Array:
    if not x.size:
        return x.copy()
    return _with_nan(k, x, attempted(np.linalg.inv, x) if k.backend.kind == "cpu" else k.xp.linalg.inv(x))


def _square_meta(name: str) -> Any:
    def meta(k: K, A: Spec) -> Spec:
        check_matrix(A, name, square=True)
        return A

    return meta


def _inverse_rule(F: Any, saved: Any, g: Any, need: Any) -> Any:
    r = adjoint(F, saved.result)
    return -F.matmul(F.matmul(r, g), r)


@op(
    family="linalg",
    name="linalg.inv",
    meta=_square_meta("linalg.inv"),
    save={"A": ("result",)},
    node="LinalgInvExBackward0",
    samples=[S(T(2, 2, spd=True)), S(T(2, 3, 3, spd=True)), S(T(0, 0)), S(T(0, 2, 2)), S(C(2, 2))],
    example={"A": [[4.5, 7.5], [2.5, 6.5]]},
)
def inv(k: K, A: Array) -> Array:
    """The inverse of a square matrix. Shape: (..., n, n). A singular matrix is refused."""
    made = _inverse_of(k, A)
    for at, i in _failures(k, A, made, zero_pivot):
        raise Invalid(
            f"linalg.inv: {_element(A.shape[:-2], at)}The diagonal element {i} is zero, the inversion could not be "
            "completed "
            "because the input matrix is singular.",
            code="singular",
            hint=Hint("singular"),
            param="A",
        )
    return made


@inv.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return _inverse_rule(F, saved, g, need)


@composite(
    family="linalg",
    moves=True,
    samples=[S(T(2, 2, spd=True)), S(T(2, 3, 3, spd=True)), S(C(2, 2))],
    example={"input": [[4.5, 7.5], [2.5, 6.5]]},
)
def inverse(F: Any, input: Array) -> Array:
    """The inverse of a square matrix. Shape: (..., n, n). A singular matrix is refused."""
    return getattr(F, "linalg.inv")(input)


@op(family="linalg", meta=lambda k, A: A, save={"A": ("result",)})
def _inverse(k: K, A: Array) -> Array:
    """The inverse, and NaN or infinities where there is none: for rules, which may not refuse."""
    return _inverse_of(k, A)


@_inverse.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return _inverse_rule(F, saved, g, need)


def _info_meta(name: str, kernel: str = "") -> Any:
    def meta(k: K, A: Spec, *rest: Any) -> tuple[Spec, Spec]:
        check_matrix(A, name, square=True, kernel=kernel)
        return A, Spec(A.shape[:-2], int32)

    return meta


def _infos(k: K, x: Array, made: Array, test: Any) -> Array:
    info = np.zeros(x.shape[:-2], np.int32)
    for at, i in _failures(k, x, made, test):
        info.reshape(-1)[at] = i
    return k.from_host(info)


@op(
    family="linalg",
    name="linalg.inv_ex",
    meta=_info_meta("linalg.inv"),
    save={"A": ("inverse",)},
    outputs=("inverse", "info"),
    fields=True,
    nondiff=("info",),
    samples=[S(T(2, 2, spd=True)), S(T(2, 3, 3, spd=True))],
)
def inv_ex(k: K, A: Array, check_errors: bool = False) -> Any:
    """The inverse and, for each matrix, 0 or which diagonal element of its LU decomposition is zero."""
    if check_errors:
        made = inv.op.kernel(k, A)  # type: ignore[misc]
        return made, _infos(k, A, made, zero_pivot)
    made = _inverse_of(k, A)
    return made, _infos(k, A, made, zero_pivot)


@inv_ex.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    r = adjoint(F, saved.inverse)
    return -F.matmul(F.matmul(r, g[0]), r)


# ---------------------------------------------------------------- determinants


def _scalar_meta(name: str) -> Any:
    def meta(k: K, A: Spec) -> Spec:
        check_matrix(A, name, square=True, kernel="lu_cpu")
        return Spec(A.shape[:-2], A.dtype)

    return meta


def _times_identity(F: Any, g: Any) -> Any:
    """A batch of numbers as a batch of 1 x 1 matrices, to be multiplied with matrices."""
    return F.reshape(g, (*F.shape(g), 1, 1))


@op(
    family="linalg",
    name="linalg.det",
    meta=_scalar_meta("linalg.det"),
    save={"A": ("A",)},
    node="LinalgDetBackward0",
    samples=[S(T(2, 2)), S(T(2, 3, 3)), S(T(0, 0)), S(T(0, 2, 2)), S(C(2, 2))],
)
def linalg_det(k: K, A: Array) -> Array:
    """The determinant of a square matrix. Shape: (..., n, n) gives (...)."""
    return k.xp.linalg.det(A) if A.size else k.xp.ones(A.shape[:-2], A.dtype)


@linalg_det.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.mul(_times_identity(F, g), F.conj(F._cofactors(saved.A)))


@op(family="linalg", meta=lambda k, A: A, save={"A": ("A",)})
def _cofactors(k: K, A: Array) -> Array:
    """The derivative of the determinant, det(A) inv(A).T, also where A is singular: by the singular values."""
    xp = k.xp
    n = A.shape[-1]
    if not A.size:
        return A.copy()
    u, s, vh = xp.linalg.svd(A)
    others = xp.ones_like(s)
    for i in range(n):
        for j in range(n):
            if i != j:
                others[..., i] *= s[..., j]
    phase = xp.linalg.det(u) * xp.linalg.det(vh)
    return xp.conj(u * others[..., None, :] @ vh) * phase[..., None, None]


@_cofactors.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    A = saved.A
    r = adjoint(F, F._inverse(A))
    d = F.conj(F.det(A))
    # C = det * inv.T, so there is a share of the determinant and one of the inverse.
    by_det = F.mul(F.sum(F.mul(g, r), (-2, -1)), d)
    inner = F.matmul(F.matmul(r, F.transpose(g, -2, -1)), r)
    return F.sub(F.mul(_times_identity(F, by_det), r), F.mul(_times_identity(F, d), inner))


def _slogdet_meta(k: K, A: Spec) -> tuple[Spec, Spec]:
    check_matrix(A, "linalg.slogdet", square=True)
    return Spec(A.shape[:-2], A.dtype), Spec(A.shape[:-2], to_real(A.dtype))


@op(
    family="linalg",
    name="linalg.slogdet",
    meta=_slogdet_meta,
    outputs=("sign", "logabsdet"),
    fields=True,
    save={"A": ("A", "sign")},
    node="LinalgSlogdetBackward0",
    samples=[S(T(2, 2, spd=True)), S(T(2, 3, 3, spd=True)), S(T(0, 0)), S(C(2, 2))],
)
def linalg_slogdet(k: K, A: Array) -> Any:
    """The sign of the determinant and the logarithm of its absolute value. Shape: (..., n, n) gives two (...)."""
    if not A.size:
        spec = k.spec
        return k.xp.ones(A.shape[:-2], A.dtype), k.xp.zeros(A.shape[:-2], spec[1].dtype.np)
    xp = k.xp
    sign, log = xp.linalg.slogdet(A)
    if A.dtype.kind != "c":  # NaN has no sign
        sign = xp.where(xp.isnan(log), xp.asarray(0, sign.dtype), sign)
    return sign, log


@linalg_slogdet.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    factor = g[1]
    if F.dtype(saved.A).is_complex:
        if g[0] is not None:
            turned = F.mul(g[0], F.conj(saved.sign))
            turn = F.mul(F.sub(turned, F.conj(turned)), 0.5)
            factor = turn if factor is None else F.add(turn, factor)
    elif factor is None:
        return F.zeros_like(saved.A)
    return F.mul(_times_identity(F, factor), adjoint(F, F._inverse(saved.A)))


@composite(family="linalg", moves=True, node="LinalgDetBackward0", samples=[S(T(2, 2)), S(T(2, 3, 3)), S(C(2, 2))])
def det(F: Any, input: Array) -> Array:
    """The determinant of a square matrix. Shape: (..., n, n) gives (...)."""
    return getattr(F, "linalg.det")(input)


@composite(
    family="linalg",
    moves=True,
    outputs=("sign", "logabsdet"),
    fields=True,
    samples=[S(T(2, 2, spd=True)), S(T(2, 3, 3, spd=True)), S(C(2, 2))],
)
def slogdet(F: Any, input: Array) -> Array:
    """The sign of the determinant and the logarithm of its absolute value. Shape: (..., n, n) gives two (...)."""
    return getattr(F, "linalg.slogdet")(input)


@composite(
    family="linalg",
    node="WhereBackward0",
    moves=True,
    samples=[S(T(2, 2, spd=True)), S(T(2, 3, 3, spd=True)), S(T(0, 0)), S(C(2, 2))],
)
def logdet(F: Any, input: Array) -> Array:
    """The logarithm of the determinant; NaN where a real one is negative."""
    check_matrix(Spec(tuple(F.shape(input)), F.dtype(input)), "logdet", square=True)
    sign, log = F.slogdet(input)
    if F.dtype(input).is_complex:
        return F.add(F.log(sign), log)
    return F.where(F.lt(sign, 0), float("nan"), log)


# ---------------------------------------------------------------- linear systems


def _solve_meta(k: K, A: Spec, B: Spec) -> Spec:
    return Spec((*broadcast_two(A.shape[:-2], B.shape[:-2]), *B.shape[-2:]), B.dtype)


@op(family="linalg", meta=_solve_meta, save={"A": ("A", "result"), "B": ("A",)}, node="LinalgSolveExBackward0")
def _solve(k: K, A: Array, B: Array) -> Array:
    """X with A X = B, for matrices or batches of them, and NaN or infinities where there is none."""
    xp = k.xp
    shape = k.spec.shape
    if not A.size or not B.size or not k.spec.numel:
        return xp.zeros(shape, B.dtype)
    stacks = prod(shape[:-2])
    if stacks > prod(A.shape[:-2]):  # one matrix for many right sides is repeated, by LAPACK once more
        k.ctx.admit(2 * stacks * prod(A.shape[-2:]) * A.itemsize)
    a = xp.ascontiguousarray(xp.broadcast_to(A, (*shape[:-2], *A.shape[-2:])))
    b = xp.ascontiguousarray(xp.broadcast_to(B, shape))
    return _with_nan(k, a, attempted(np.linalg.solve, a, b) if k.backend.kind == "cpu" else xp.linalg.solve(a, b))


@_solve.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    to_b = F._solve(adjoint(F, saved.A), g)
    return need.A and -F.matmul(to_b, adjoint(F, saved.result)), need.B and to_b


def _checked_solve_meta(k: K, A: Spec, B: Spec, name: str) -> Spec:
    return _solve_meta(k, A, B)


@op(family="linalg", meta=_checked_solve_meta, save={"A": ("A", "result"), "B": ("A",)}, node="LinalgSolveExBackward0")
def _solve_checked(k: K, A: Array, B: Array, name: Any) -> Array:
    """X with A X = B; singular matrices are refused."""
    made = _solve.op.kernel(k, A, B)  # type: ignore[misc]
    if B.shape[-1]:
        a = k.xp.broadcast_to(A, (*made.shape[:-2], *A.shape[-2:]))
        for at, _ in _failures(k, a, made, zero_pivot):
            raise Invalid(
                f"torch.{name}: {_element(made.shape[:-2], at)}The solver failed because the input matrix is singular.",
                code="singular",
                hint=Hint("singular"),
                param="A",
            )
    return made


@_solve_checked.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    to_b = F._solve(adjoint(F, saved.A), g)
    return need.A and -F.matmul(to_b, adjoint(F, saved.result)), need.B and to_b


def is_vector(a: Shape, b: Shape) -> bool:
    """Whether a right side of shape `b` is a vector, or a batch of them, for matrices of shape `a`."""
    return len(b) == 1 or (len(a) - 1 == len(b) and a[:-1] == b)


@composite(
    family="linalg",
    name="linalg.solve",
    node="LinalgSolveExBackward0",
    moves=True,
    samples=[
        S(T(2, 2, spd=True), T(2)),
        S(T(2, 2, spd=True), T(2, 3)),
        S(T(2, 3, 3, spd=True), T(2, 3)),
        S(T(2, 1, 2, 2, spd=True), T(3, 2, 1)),
        S(T(2, 2, spd=True), T(3, 2), left=False),
        S(T(0, 0), T(0, 2)),
        S(C(2, 2), C(2, 2)),
    ],
    example={"A": [[3.5, 1.5], [1.5, 2.5]], "B": [9.5, 8.5]},
)
def solve(F: Any, A: Array, B: Array, left: bool = True) -> Array:
    """X with A X = B, or X A = B where `left` is false. B is a vector, a matrix, or a batch of them."""
    a, b = Spec(tuple(F.shape(A)), F.dtype(A)), Spec(tuple(F.shape(B)), F.dtype(B))
    if a.dtype.category < FLOAT:
        check_float(a, "linalg.solve")
    check_matrix(a if not a.dtype.reduced else Spec(a.shape, a.dtype.compute), "linalg.solve", square=True)
    if not b.shape:
        raise ShapeMismatch("linalg.solve: The input tensor B must have at least 2 dimensions.", param="B")
    if a.dtype is not b.dtype:
        raise DtypeMismatch(
            f"linalg.solve: Expected A and B to have the same dtype, but found A of type {scalar_type(a.dtype)} and B "
            "of type "
            f"{scalar_type(b.dtype)} instead",
            hint=cast_hint(a, b, "A", "B"),
            param="B",
        )
    vector = is_vector(a.shape, b.shape)
    columns = F.reshape(B, (*b.shape, 1)) if vector else B
    sizes = (*b.shape, 1) if vector else b.shape
    n = a.shape[-1]
    if sizes[-2 if left else -1] != n:
        raise ShapeMismatch(
            f"linalg.solve: Incompatible shapes of A and B for the equation {'AX = B' if left else 'XA = B'} ({n}x{n} "
            "and "
            f"{sizes[-2]}x{sizes[-1]})",
            hint=Hint("inner-sizes", a=list(a.shape), b=list(b.shape)),
            param="B",
        )
    if vector and not left:
        raise Invalid(
            "linalg.solve: Vector broadcasting of the left hand side is not supported for left=False. In this case "
            "linalg.solve is equivalent to B / A.squeeze(-1)",
            param="left",
        )
    if a.dtype.reduced:
        raise not_implemented("lu_cpu", a.dtype)
    if left:
        made = F._solve_checked(A, columns, "linalg.solve")
        return F.reshape(made, F.shape(made)[:-1]) if vector else made
    made = F._solve_checked(F.transpose(A, -2, -1), F.transpose(columns, -2, -1), "linalg.solve")
    return F.transpose(made, -2, -1)


# ---------------------------------------------------------------- powers, traces, crosses


_POWERS = [
    S(T(2, 2, spd=True), 3),
    S(T(2, 2, 2, spd=True), 2),
    S(T(2, 2, spd=True), -2),
    S(T(2, 2, spd=True), 0),
    S(T(2, 2, spd=True), 1),
    S(C(2, 2), 2),
]


def _power(F: Any, A: Any, n: int) -> Any:
    spec = Spec(tuple(F.shape(A)), F.dtype(A))
    if spec.ndim < 2 or spec.shape[-1] != spec.shape[-2]:
        check_matrix(
            Spec(spec.shape, spec.dtype if spec.dtype.category >= FLOAT else to_real(spec.dtype)),
            "linalg.matrix_power",
            square=True,
        )
    if n == 0:
        one = F.diag_embed(F.ones_like(F.diagonal(A, 0, -2, -1)))
        return F.where(F.ones_like(A, "bool"), one, A)  # on A's tape, and without its NaN
    base = getattr(F, "linalg.inv")(A) if n < 0 else A
    n = abs(n)
    made = None
    while n:
        if n & 1:
            made = base if made is None else F.matmul(made, base)
        n >>= 1
        if n:
            base = F.matmul(base, base)
    return F.clone(A) if made is A else made


@composite(family="linalg", name="linalg.matrix_power", node="MmBackward0", samples=_POWERS)
def linalg_matrix_power(F: Any, A: Array, n: int) -> Array:
    """A square matrix multiplied with itself n times; the inverse's powers where n is negative."""
    return _power(F, A, n)


@composite(family="linalg", node="MmBackward0", samples=_POWERS)
def matrix_power(F: Any, input: Array, n: int) -> Array:
    """A square matrix multiplied with itself n times; the inverse's powers where n is negative."""
    return _power(F, input, n)


@composite(
    family="linalg",
    node="TraceBackward0",
    moves=True,
    samples=[S(T(3, 3)), S(T(2, 3)), S(T(0, 2)), S(C(2, 2)), S(I(2, 2))],
)
def trace(F: Any, input: Array) -> Array:
    """The sum of a matrix's diagonal."""
    if F.dtype(input).category == BOOL:
        raise not_implemented("trace", F.dtype(input))
    if len(F.shape(input)) != 2:
        raise ShapeMismatch(f"trace: expected a matrix, but got tensor with dim {len(F.shape(input))}", param="input")
    return F.sum(F.diagonal(input))


def _cross_meta(k: K, input: Spec, other: Spec, dim: int = -1) -> Spec:
    if input.ndim != other.ndim:
        raise ShapeMismatch("linalg.cross: inputs must have the same number of dimensions.", param="other")
    at = wrap_dim(dim, input.ndim, scalar_ok=False)
    n, m = input.shape[at], other.shape[at]
    if n != 3 or m != 3:
        raise ShapeMismatch(f"linalg.cross: inputs dimension {dim} must have length 3. Got {n} and {m}", param="dim")
    shape = broadcast_two(input.shape, other.shape)
    if input.dtype.category == BOOL:
        raise not_implemented("cross", input.dtype)
    if input.dtype is not other.dtype:
        raise DtypeMismatch(
            f"expected scalar type {scalar_type(input.dtype)} but found {scalar_type(other.dtype)}",
            hint=cast_hint(input, other, "input", "other"),
            param="other",
        )
    return Spec(shape, input.dtype)


@op(
    family="linalg",
    name="linalg.cross",
    meta=_cross_meta,
    save={"input": ("other",), "other": ("input",)},
    node="LinalgCrossBackward0",
    samples=[
        S(T(3), T(3)),
        S(T(2, 3), T(1, 3)),
        S(T(3, 2), T(3, 2), dim=0),
        S(T(0, 3), T(0, 3)),
        S(C(3), C(3)),
        S(I(3), I(3)),
    ],
)
def linalg_cross(k: K, input: Array, other: Array, dim: int = -1) -> Array:
    """The cross product of vectors of three along `dim`, with broadcasting."""
    a, b = k.xp.moveaxis(input, dim, 0), k.xp.moveaxis(other, dim, 0)
    made = k.xp.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
    return k.xp.moveaxis(made, 0, dim)


@linalg_cross.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    cross_ = getattr(F, "linalg.cross")
    shape = g.shape
    a, b = saved.input, saved.other
    return (
        need.input and cross_(F.expand(F.conj(b), shape), g, saved.dim),
        need.other and cross_(g, F.expand(F.conj(a), shape), saved.dim),
    )


@composite(
    family="linalg",
    moves=True,
    samples=[S(T(3), T(3)), S(T(2, 3), T(2, 3)), S(T(3, 2), T(3, 2)), S(T(2, 3), T(2, 3), dim=1), S(I(3), I(3))],
)
def cross(F: Any, input: Array, other: Array, dim: int | None = None) -> Array:
    """The cross product of vectors of three along `dim`: by default the first dimension of size 3."""
    if dim is None:
        shape = F.shape(input)
        if 3 not in shape:
            raise ShapeMismatch("no dimension of size 3 in input", param="input")
        dim = list(shape).index(3)
    return getattr(F, "linalg.cross")(input, other, dim)


@composite(
    family="linalg",
    name="linalg.vecdot",
    samples=[S(T(3), T(3)), S(T(2, 3), T(3)), S(T(3, 2), T(3, 2), dim=0), S(C(3), C(3))],
)
def vecdot(F: Any, x: Array, y: Array, dim: int = -1) -> Array:
    """The dot products of vectors along `dim`, the first one conjugated, with broadcasting."""
    a, b = Spec(tuple(F.shape(x)), F.dtype(x)), Spec(tuple(F.shape(y)), F.dtype(y))
    if a.dtype.category < FLOAT:
        check_float(a, "linalg.vecdot")
    if a.dtype is not b.dtype:
        raise DtypeMismatch(
            f"linalg.vecdot: Expected x and y to have the same dtype, but found x of type {scalar_type(a.dtype)} and y "
            f"of type {scalar_type(b.dtype)} instead",
            hint=cast_hint(a, b, "x", "y"),
            param="y",
        )
    if a.ndim == 1 and b.ndim == 1 and a.numel != b.numel:  # PyTorch takes the dot product of two vectors
        raise ShapeMismatch(
            f"inconsistent tensor size, expected tensor [{a.numel}] and src [{b.numel}] to have the same number of "
            f"elements, but got {a.numel} and {b.numel} elements respectively",
            param="y",
        )
    return F.sum(F.mul(F.conj(x), y), dim)
