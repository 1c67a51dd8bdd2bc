"""LAPACK's routines on batches of matrices in host memory, one matrix after another.

CuPy has no such functions for batches, or none at all: on a CUDA device the operands go to the host and the results
come back (`on_host`), which the operations say in their words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.backend import CPU
from engine.carriers import K

Host = Any  # a NumPy array


def on_host(k: K, function: Callable[..., Any], *arrays: Any) -> Any:
    """What a function of host arrays gives (an array or a tuple of them), as arrays of the kernel's device."""
    made = function(*[k.backend.to_host(a) for a in arrays])
    if type(made) is tuple:
        return tuple([k.from_host(m) for m in made])
    return k.from_host(made)


def routine(name: str, like: Host) -> Any:
    """LAPACK's routine for the dtype of an array: `getrf` is sgetrf for float32."""
    return CPU.sp.linalg.get_lapack_funcs((name,), (like,))[0]


def _hermitian_name(real: str, complex_: str, x: Host) -> str:
    return complex_ if x.dtype.kind == "c" else real


def lu_factor(A: Host) -> tuple[Host, Host, Host]:
    """(LU, pivots counting from 1, info) of each matrix: `getrf`."""
    *batch, m, n = A.shape
    lu = np.array(A, order="C")
    pivots = np.empty((*batch, min(m, n)), np.int32)
    info = np.zeros(tuple(batch), np.int32)
    if A.size:
        getrf = routine("getrf", A)
        for at in np.ndindex(*batch):
            lu[at], found, info[at] = (_eliminated if np.isnan(A[at]).any() else getrf)(A[at])
            pivots[at] = found + 1
    return lu, pivots, info


def _eliminated(A: Host) -> tuple[Host, Host, int]:
    """`getrf` of a matrix with NaN, step by step: OpenBLAS's passes over a pivot that is NaN, and gives numbers."""
    lu = np.array(A)
    pivots, info = np.arange(min(lu.shape)), 0
    for i in range(len(pivots)):
        column = np.abs(lu[i:, i])
        j = i + (0 if np.isnan(column[0]) else int(np.nanargmax(column)))
        pivots[i], lu[[i, j]] = j, lu[[j, i]]
        if lu[i, i] == 0:
            info = info or i + 1
        else:
            lu[i + 1 :, i] /= lu[i, i]
        lu[i + 1 :, i + 1 :] -= lu[i + 1 :, i, None] * lu[i, i + 1 :]
    return lu, pivots, info


def permutations(pivots: Host, rows: int) -> Host:
    """The order of rows that transpositions (counting from 1) make, as indices, for each batch."""
    *batch, n = pivots.shape
    order = np.broadcast_to(np.arange(rows), (*batch, rows)).copy()
    if not order.size or not n:
        return order
    flat, swaps = order.reshape(-1, rows), pivots.reshape(-1, n)
    every = np.arange(len(flat))
    for i in range(n):
        j = swaps[:, i] - 1
        flat[every, i], flat[every, j] = flat[every, j], flat[every, i].copy()
    return order


def permutation_matrices(order: Host, d: Any) -> Host:
    """The matrix P of A = P L U for each order of rows: column i has its one in row order[i]."""
    made = np.zeros((*order.shape, order.shape[-1]), d)
    if made.size:
        np.put_along_axis(made, order[..., None, :], 1, -2)
    return made


def ldl_factor(A: Host, hermitian: bool) -> tuple[Host, Host, Host]:
    """(LD, pivots, info) of each symmetric or Hermitian matrix, by its lower triangle: `sytrf` or `hetrf`."""
    batch = A.shape[:-2]
    made = np.tril(A)
    pivots = np.empty(A.shape[:-1], np.int32)
    info = np.zeros(batch, np.int32)
    if A.size:
        name = "hetrf" if hermitian and A.dtype.kind == "c" else "sytrf"
        factor, work = routine(name, A), routine(name + "_lwork", A)
        lwork = int(work(A.shape[-1], lower=1)[0].real)
        for at in np.ndindex(*batch):
            found, pivots[at], info[at] = factor(A[at], lower=1, lwork=lwork)
            made[at] = np.tril(found)
    return made, pivots, info


def ldl_solve(LD: Host, pivots: Host, B: Host, hermitian: bool) -> Host:
    """X with A X = B from `ldl_factor`'s results: `sytrs` or `hetrs`."""
    made = np.array(B, order="C")
    if LD.size and B.size:
        solve = routine("hetrs" if hermitian and LD.dtype.kind == "c" else "sytrs", LD)
        for at in np.ndindex(*B.shape[:-2]):
            made[at] = solve(LD[at], pivots[at].astype(np.int32), B[at], lower=1)[0]
    return made


def qr_factor(A: Host) -> tuple[Host, Host]:
    """(R above Householder's vectors, their factors tau) of each matrix: `geqrf`."""
    *batch, m, n = A.shape
    made = np.array(A, order="C")
    tau = np.zeros((*batch, min(m, n)), A.dtype)
    if A.size:
        geqrf = routine("geqrf", A)
        for at in np.ndindex(*batch):
            made[at], tau[at], _, _ = geqrf(A[at])
    return made, tau


def reflected(A: Host, tau: Host) -> Host:
    """The first columns of the product of Householder's reflections: `orgqr` or `ungqr`."""
    *batch, m, n = A.shape
    k = tau.shape[-1]
    made = np.array(A, order="C")
    if A.size:
        if k:
            orgqr = routine(_hermitian_name("orgqr", "ungqr", A), A)
            for at in np.ndindex(*batch):
                made[at] = orgqr(A[at], tau[at])[0]
        else:
            made[...] = np.eye(m, n, dtype=A.dtype)
    return made


def reflect(A: Host, tau: Host, other: Host, left: bool, transpose: bool) -> Host:
    """Q @ other or other @ Q, Q the product of Householder's reflections, or its adjoint: `ormqr` or `unmqr`."""
    made = np.array(other, order="C")
    if other.size and tau.shape[-1]:
        ormqr = routine(_hermitian_name("ormqr", "unmqr", A), A)
        side = "L" if left else "R"
        trans = "N" if not transpose else "C" if A.dtype.kind == "c" else "T"
        columns = A[..., : tau.shape[-1]]
        lwork = max(1, 64 * max(other.shape[-2:]))
        for at in np.ndindex(*other.shape[:-2]):
            made[at] = ormqr(side, trans, columns[at], tau[at], other[at], lwork)[0]
    return made


def triangular(A: Host, B: Host, upper: bool, unit: bool) -> Host:
    """X with A X = B, one triangle of A looked at: BLAS' `trsm`, which divides by zeros and does not ask."""
    made = np.array(B, order="C")
    if A.size and B.size:
        trsm = CPU.sp.linalg.get_blas_funcs(("trsm",), (A,))[0]
        for at in np.ndindex(*B.shape[:-2]):
            made[at] = trsm(1, A[at], B[at], side=0, lower=0 if upper else 1, diag=int(unit))
    return made


def eigenvalues(A: Host, vectors: bool) -> tuple[Host, Host]:
    """(eigenvalues, eigenvectors or nothing) of each square matrix, complex: `geev`."""
    d = np.result_type(A.dtype, np.complex64)
    if not vectors:
        return np.linalg.eigvals(A).astype(d), np.zeros((0,), d)
    values, v = np.linalg.eig(A)
    return values.astype(d), v.astype(d)


def least_squares(A: Host, B: Host, rcond: float, driver: str) -> tuple[Host, Host, Host, Host]:
    """(solutions, rank, singular values, info) of each least squares problem, by LAPACK's driver.

    Rows of a solution below the n of A hold what the driver leaves there: the residuals' parts.
    """
    *batch, m, n = A.shape
    wide = max(m, n)
    padded = np.zeros((*batch, wide, B.shape[-1]), B.dtype)
    padded[..., :m, :] = B
    real = np.zeros((), A.dtype).real.dtype
    rank = np.zeros(tuple(batch), np.int64)
    values = np.zeros((*batch, min(m, n)), real)
    info = np.zeros(tuple(batch), np.int32)
    if not A.size or not B.shape[-1]:
        padded[...] = 0
        if not B.shape[-1] and A.size and driver != "gels":
            values = np.linalg.svd(A, compute_uv=False)
            rank[...] = (values > rcond * values[..., :1]).sum(-1)
        return padded, rank, values, info
    function = routine(driver, A)
    # One query of the work space for all, as they have one size.
    if driver == "gelsy":
        lwork = int(routine("gelsy_lwork", A)(m, n, B.shape[-1], rcond)[0].real)
    elif driver == "gelsd":
        sizes = routine("gelsd_lwork", A)(m, n, B.shape[-1], rcond)
        lwork = [int(np.real(s)) for s in sizes[:-1]]  # type: ignore[assignment]
    elif driver == "gelss":
        lwork = int(np.real(routine("gelss_lwork", A)(m, n, B.shape[-1], rcond)[0]))
    for at in np.ndindex(*batch):
        if driver == "gels":
            _, padded[at], info[at] = function(A[at], padded[at])
        elif driver == "gelsy":
            _, padded[at], _, rank[at], info[at] = function(A[at], padded[at], np.zeros(n, np.int32), rcond, lwork)
        elif driver == "gelsd":
            padded[at], values[at], rank[at], info[at] = function(A[at], padded[at], *lwork, rcond)  # type: ignore[misc]
        else:
            _, padded[at], values[at], rank[at], _, info[at] = function(A[at], padded[at], cond=rcond, lwork=lwork)
    return padded, rank, values, info
