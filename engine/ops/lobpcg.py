"""The largest or smallest eigenvalues of a symmetric matrix, as torch.lobpcg gives them.

PyTorch approximates them step by step, which pays for large sparse matrices. Matrices here are dense, and all
eigenvalues at once are had directly: what decides how PyTorch approximates changes nothing.
"""

from __future__ import annotations

from typing import Any

from engine.declare import Array, composite
from engine.dtypes import scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param, ShapeMismatch
from engine.ops.products import adjoint
from engine.samples import S, T
from engine.shapes import text


def _check(F: Any, A: Any, B: Any, X: Any, k: int, n: int) -> None:
    shape, d = tuple(F.shape(A)), F.dtype(A)
    if len(shape) < 2:
        raise ShapeMismatch(f"A is a matrix, or a batch of them, and its shape is {text(shape)}", param="A")
    if shape[-1] != shape[-2]:
        raise ShapeMismatch(f"A must be square, got shape torch.Size({text(shape)})", param="A")
    for name, x in (("A", A), ("B", B), ("X", X)):
        if x is not None and F.dtype(x).name not in ("float32", "float64"):
            raise DtypeMismatch(
                f"lobpcg takes float32 and float64 matrices, and {name} is {scalar_type(F.dtype(x))}",
                hint=Hint("cast-input", Call("to", {"input": Param(name), "dtype": "float32"}), have=F.dtype(x).name),
                param=name,
            )
        if x is not None and F.dtype(x) is not d:
            raise DtypeMismatch(f"A is {scalar_type(d)}, and {name} is {scalar_type(F.dtype(x))}", param=name)
    m = shape[-1]
    if B is not None and tuple(F.shape(B)) != shape:
        raise ShapeMismatch(
            f"A and B must have same shape, got torch.Size({text(shape)}) vs torch.Size({text(F.shape(B))})", param="B"
        )
    if X is not None and (len(F.shape(X)) < 2 or F.shape(X)[-2] != m):
        raise ShapeMismatch(f"X shape mismatch: got torch.Size({text(F.shape(X))}), expected ({m}, {n})", param="X")
    if k < 1 or n < 1:
        raise Invalid(f"k must be 1 or more, got {min(k, n)}", param="k")
    if m < 3 * n:
        raise Invalid(
            f"LOBPCG algorithm is not applicable when the number of A rows (={m}) is smaller than 3 x the number of "
            f"requested eigenpairs (={n})",
            param="k",
        )


_SYMMETRIC = T(6, 6, spd=True)


@composite(
    family="linalg",
    outputs=("E", "X"),
    returns="list of Tensors",
    node="LOBPCGAutogradFunctionBackward",
    samples=[  # the gradients are those of the symmetric part; vectors are known up to their signs
        S(_SYMMETRIC, 2, gradcheck=False),
        S(_SYMMETRIC, largest=False, gradcheck=False),
        S(_SYMMETRIC, 1, T(6, 6, spd=True), gradcheck=False),
        S(T(2, 6, 6, spd=True), 1, X=T(6, 2, grad=False), gradcheck=False),
    ],
    example={"A": [[4.5, 0.5, 0.25], [0.5, 3.5, 0.5], [0.25, 0.5, 2.5]]},
)
def lobpcg(
    F: Any,
    A: Array,
    k: int | None = None,
    B: Array | None = None,
    X: Array | None = None,
    n: int | None = None,
    iK: Array | None = None,
    niter: int | None = None,
    tol: float | None = None,
    largest: bool | None = None,
    method: str | None = None,
) -> Array:
    """The k largest (or smallest) eigenvalues E of a symmetric A, and their eigenvectors X: A X = B X diag(E).

    Without B it is the unit matrix; the vectors have X^T B X = 1. They are computed directly and exactly, so that
    `n`, `iK`, `niter`, `tol` and `method`, and the values of `X`, change nothing.
    """
    if k is None:
        k = 1 if X is None or not F.shape(X) else F.shape(X)[-1]
    width = (k if n is None else n) if X is None or len(F.shape(X)) < 2 else F.shape(X)[-1]
    _check(F, A, B, X, k, width)
    k = min(k, width)
    A = F.mul(F.add(A, adjoint(F, A)), 0.5)
    eigh = getattr(F, "linalg.eigh")
    if B is None:
        values, vectors = eigh(A)
    else:
        B = F.mul(F.add(B, adjoint(F, B)), 0.5)
        solve = getattr(F, "linalg.solve_triangular")
        factor = getattr(F, "linalg.cholesky")(B)
        inner = solve(factor, A, upper=False)
        inner = solve(adjoint(F, factor), inner, upper=True, left=False)
        values, vectors = eigh(inner)
        vectors = solve(adjoint(F, factor), vectors, upper=True)
    if largest is None or largest:
        values, vectors = F.flip(values, [-1]), F.flip(vectors, [-1])
    return [F.clone(F.narrow(x, -1, 0, k)) for x in (values, vectors)]
