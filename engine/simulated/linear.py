"""`cupy.linalg`, `cupy.fft` and the parts of `cupyx.scipy` that the engine may use.

`cupy.linalg` checks shapes, but not whether a factorisation succeeded: cuSOLVER's status is ignored unless
`cupyx.errstate(linalg="raise")` says otherwise. So the inverse of a singular matrix is no error but rubbish; here it is
NaN, per matrix of a batch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.linalg import LinAlgError

from engine.simulated.array import CALLS, host_of, ndarray, wrap
from engine.simulated.functions import Before, Delegate, Function, rewrap, table
from engine.simulated.memory import Host
from engine.simulated.names import NotOffered, parameters

# ---------------------------------------------------------------- linear algebra


def _as_tuple(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, tuple) else (result,)


def silent(function: Callable[..., Any], operands: int = 1) -> Callable[..., Any]:
    """`function` of a stack of matrices, with NaN instead of LinAlgError for each matrix where it fails."""

    def run(*args: Any, **kwargs: Any) -> Any:
        matrices, rest = [_computable(a) for a in args[:operands]], args[operands:]
        try:
            return function(*matrices, *rest, **kwargs)
        except LinAlgError:
            return _one_by_one(function, matrices, rest, kwargs)

    return run


def _computable(a: Host) -> Host:
    """The dtype linear algebra is done in: integers as float64; float16 is a TypeError."""
    if a.dtype == np.float16:
        raise TypeError("float16 is unsupported in linalg")
    return a if a.dtype.kind in "fc" else a.astype(np.float64)


def _one_by_one(function: Callable[..., Any], matrices: list[Host], rest: Any, kwargs: Any) -> Any:
    batch = matrices[0].shape[:-2]
    core = matrices[0].shape[-2:]
    sample = [np.eye(*core, dtype=matrices[0].dtype), *(np.zeros(m.shape[len(batch) :], m.dtype) for m in matrices[1:])]
    forms = [np.asarray(form) for form in _as_tuple(function(*sample, *rest, **kwargs))]
    results = [np.full(batch + form.shape, np.nan, form.dtype) for form in forms]
    for place in np.ndindex(batch):
        try:
            values = _as_tuple(function(*[m[place] for m in matrices], *rest, **kwargs))
        except LinAlgError:
            continue
        for result, value in zip(results, values, strict=True):
            result[place] = value
    return tuple(results) if len(results) > 1 else results[0]


def _norm(x: Host, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    x = x if x.dtype.kind in "fc" else x.astype(np.float64)
    try:
        return np.linalg.norm(x, ord, axis, keepdims)
    except LinAlgError:  # a singular value decomposition that met a NaN
        form = np.asarray(np.linalg.norm(np.zeros_like(x), ord, axis, keepdims))
        return np.full_like(form, np.nan)


def _lstsq(a: Host, b: Host, rcond: float | None = None) -> tuple[Any, ...]:
    if b.ndim > 2:
        raise LinAlgError(f"{b.ndim}-dimensional array given. Array must be at most two-dimensional")
    x, residuals, rank, s = np.linalg.lstsq(_computable(a), _computable(b), rcond)
    return x, residuals, np.asarray(rank, np.int32), s


def _solve(a: Host, b: Host) -> Any:
    """`b` of one axis is one right side for every matrix; else it must have the matrices' batch: no broadcasting."""
    if b.ndim == 0:
        raise ValueError("b must have at least one dimension")
    if b.ndim == 1:
        if a.shape[-1] != b.size:
            raise ValueError("a must have (..., M, M) shape and b must have (M,) for one-dimensional b")
        columns = np.broadcast_to(b, a.shape[:-1])[..., None].copy()
        return silent(np.linalg.solve, 2)(a, columns)[..., 0]
    if a.shape[:-1] != b.shape[:-1]:
        raise ValueError("a must have (..., M, M) shape and b must have (..., M, K) for multidimensional b")
    return silent(np.linalg.solve, 2)(a, b)


def _stacked(square: bool, name: str = "a") -> Before:
    def before(bound: dict[str, Any]) -> dict[str, Any]:
        a = host_of("cupy.linalg", bound[name])
        if a.ndim < 2:
            raise LinAlgError(f"{a.ndim}-dimensional array given. Array must be at least two-dimensional")
        if square and a.shape[-1] != a.shape[-2]:
            raise LinAlgError("Last 2 dimensions of the array must be square")
        return bound

    return before


def _matrix(bound: dict[str, Any]) -> dict[str, Any]:
    a = host_of("cupy.linalg", bound["a"])
    if a.ndim != 2:
        raise LinAlgError(f"{a.ndim}-dimensional array given. Array must be two-dimensional")
    return bound


_SQUARE, _STACK = _stacked(square=True), _stacked(square=False)

# Function, the NumPy behind it, further array parameters, the check of shapes.
LINALG: dict[str, tuple[Callable[..., Any], dict[str, str], Before | None]] = {
    "cholesky": (silent(np.linalg.cholesky), {}, _SQUARE),
    "cond": (np.linalg.cond, {}, None),
    "cross": (np.linalg.cross, {"x2": "A"}, None),
    "det": (silent(np.linalg.det), {}, _SQUARE),
    "eig": (silent(np.linalg.eig), {}, _SQUARE),
    "eigh": (silent(np.linalg.eigh), {}, _SQUARE),
    "eigvals": (silent(np.linalg.eigvals), {}, _SQUARE),
    "eigvalsh": (silent(np.linalg.eigvalsh), {}, _SQUARE),
    "inv": (silent(np.linalg.inv), {}, _SQUARE),
    "lstsq": (_lstsq, {"b": "A"}, _matrix),
    "matrix_power": (silent(np.linalg.matrix_power), {}, _stacked(square=True, name="M")),
    "matrix_rank": (np.linalg.matrix_rank, {}, None),
    "matrix_transpose": (np.linalg.matrix_transpose, {}, None),
    "norm": (_norm, {}, None),
    "pinv": (silent(np.linalg.pinv), {}, _STACK),
    "qr": (silent(np.linalg.qr), {}, _STACK),
    "slogdet": (silent(np.linalg.slogdet), {}, _SQUARE),
    "solve": (_solve, {"b": "A"}, _SQUARE),
    "svd": (silent(np.linalg.svd), {}, _STACK),
    "tensorinv": (np.linalg.tensorinv, {}, None),
    "tensorsolve": (np.linalg.tensorsolve, {"b": "A"}, None),
}
_LINALG_DEFAULTS: dict[str, dict[str, Any]] = {"pinv": {"rcond": 1e-15}}
_LINALG_BY_POSITION = {"cross": 2}


def linalg(name: str) -> Any:
    """The function `name` of `cupy.linalg`; KeyError if the stand-in has none."""
    if name == "matmul":
        return CALLS["cupy.matmul"]
    function, kinds, before = LINALG[name]
    signature = parameters("cupy.linalg", name)
    return Function(
        signature,
        Delegate(
            signature,
            function,
            kinds,
            by_position=_LINALG_BY_POSITION.get(name, 1),
            defaults=_LINALG_DEFAULTS.get(name),
            before=before,
        ),
    )


# ---------------------------------------------------------------- Fourier transforms

_FROM_REAL = frozenset({"rfft", "rfft2", "rfftn", "ihfft"})
_REAL_OF = {np.dtype(np.float16): np.float32, np.dtype(np.float32): np.float32}
_COMPLEX_OF = {np.dtype(t): np.complex64 for t in (np.float16, np.float32, np.complex64)}


def _transform(name: str) -> Callable[..., Any]:
    target = getattr(np.fft, name)

    def run(a: Host, **kwargs: Any) -> Any:
        if kwargs.get("s") is not None and kwargs.get("axes") is None and not name.endswith("2"):
            kwargs["axes"] = tuple(range(-len(kwargs["s"]), 0))
        if name in _FROM_REAL:
            if a.dtype.kind == "c":
                raise TypeError(f"cupy.fft.{name} wants real input")
            return target(a.astype(_REAL_OF.get(a.dtype, np.float64), copy=False), **kwargs)
        return target(a.astype(_COMPLEX_OF.get(a.dtype, np.complex128), copy=False), **kwargs)

    return run


def fft(name: str) -> Function:
    """The function `name` of `cupy.fft`; KeyError if the stand-in has none."""
    signature = parameters("cupy.fft", name)
    if name.endswith("freq"):
        return Function(signature, Delegate(signature, getattr(np.fft, name), {"n": "-"}))
    target = getattr(np.fft, name) if name.endswith("shift") else _transform(name)
    return Function(signature, Delegate(signature, target, {}))


# ---------------------------------------------------------------- SciPy

# As in functions.OFFERED: by module the functions and how their parameters take arrays.
SCIPY: dict[str, dict[str, dict[str, str]]] = {
    "special": table(
        """
        log_softmax
        logsumexp    b:N
        multigammaln d:-
        polygamma    n:A x:A
        softmax
        """
    ),
    "linalg": table(
        """
        block_diag   *:S
        circulant
        companion
        dft          n:-
        expm
        hadamard     n:-
        hankel       r:N
        hilbert      n:-
        khatri_rao   b:A
        toeplitz     r:N
        """
    ),
    "signal": table(
        """
        convolve     in2:A
        convolve2d   in2:A
        correlate    in2:A
        correlate2d  in2:A
        fftconvolve  in2:A
        medfilt
        oaconvolve   in2:A
        """
    ),
    "ndimage": table(
        """
        convolve         weights:A
        convolve1d       weights:A
        correlate        weights:A
        correlate1d      weights:A
        gaussian_filter
        map_coordinates  coordinates:A
        maximum_filter
        median_filter
        minimum_filter
        rotate
        shift
        sobel
        uniform_filter
        zoom
        """
    ),
    "fft": table(
        """
        dct
        dctn
        dst
        dstn
        fft
        fft2
        fftfreq          n:-
        fftn
        fftshift
        hfft
        hfft2
        hfftn
        idct
        idctn
        idst
        idstn
        ifft
        ifft2
        ifftn
        ifftshift
        ihfft
        ihfft2
        ihfftn
        irfft
        irfft2
        irfftn
        rfft
        rfft2
        rfftfreq         n:-
        rfftn
        """
    ),
}
_HOST_SCIPY = {("fft", "next_fast_len"): {"target": "-"}}


def _triangular(
    a: ndarray,
    b: ndarray,
    trans: int | str = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = False,
) -> ndarray:
    """Batches share their leading axes, without broadcasting; a zero on the diagonal gives inf or NaN, no error."""
    matrix, right = host_of("solve_triangular", a), host_of("solve_triangular", b)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError("expected one square matrix or a batch of square matrices")
    batch = matrix.shape[:-2]
    if right.shape[: len(batch) + 1] != matrix.shape[:-1]:
        raise ValueError("incompatible dimensions")
    if trans not in (0, 1, 2, "N", "T", "C"):
        raise ValueError("unknown trans")
    dtype = np.promote_types(np.promote_types(matrix.dtype, np.float32), right.dtype)
    work = np.triu(matrix) if not lower else np.tril(matrix)
    work = work.astype(dtype)
    if unit_diagonal:
        index = np.arange(matrix.shape[-1])
        work[..., index, index] = 1
    if trans in (1, "T", 2, "C"):
        work = work.swapaxes(-1, -2)
    if trans in (2, "C"):
        work = work.conj()
    columns = right.astype(dtype)
    columns = columns[..., None] if right.ndim == matrix.ndim - 1 else columns
    solution = silent(np.linalg.solve, 2)(work, columns)
    return wrap(np.asarray(solution.reshape(right.shape), order="C"))


def _lu_factor(a: ndarray, overwrite_a: bool = False, check_finite: bool = True) -> tuple[ndarray, ndarray]:
    """One matrix only. A singular one is a RuntimeWarning, in SciPy too."""
    matrix = _lu_input(a)
    lu, pivots = importlib.import_module("scipy.linalg").lu_factor(matrix, check_finite=check_finite)
    return wrap(lu), wrap(pivots.astype(np.int32))


def _lu(a: ndarray, permute_l: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    matrix = _lu_input(a)
    return rewrap(importlib.import_module("scipy.linalg").lu(matrix, permute_l, check_finite=check_finite), [a])


def _lu_input(a: ndarray) -> Host:
    matrix = host_of("lu_factor", a)
    if matrix.ndim != 2:
        raise LinAlgError(f"{matrix.ndim}-dimensional array given. Array must be two-dimensional")
    if matrix.dtype.char not in "fdFD":
        raise NotImplementedError("Only float32, float64, complex64 and complex128 are supported.")
    return matrix


def _lu_solve(
    lu_and_piv: tuple[ndarray, ndarray],
    b: ndarray,
    trans: int = 0,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> ndarray:
    """The right side is cast to the factors' dtype."""
    factors = _lu_input(lu_and_piv[0]), host_of("lu_solve", lu_and_piv[1])
    right = host_of("lu_solve", b).astype(factors[0].dtype)
    solution = importlib.import_module("scipy.linalg").lu_solve(factors, right, trans, check_finite=check_finite)
    return wrap(np.asarray(solution, order="C"))


WRITTEN_OUT: dict[tuple[str, str], Callable[..., Any]] = {
    ("linalg", "lu"): _lu,
    ("linalg", "lu_factor"): _lu_factor,
    ("linalg", "lu_solve"): _lu_solve,
    ("linalg", "solve_triangular"): _triangular,
}


def is_written(part: str, name: str) -> bool:
    """Whether there is a line or a function of its own for `cupyx.scipy.<part>.<name>` here."""
    return (part, name) in WRITTEN_OUT or (part, name) in _HOST_SCIPY or name in SCIPY[part]


def scipy_function(part: str, name: str) -> Any:
    """The function `name` of `cupyx.scipy.<part>`; KeyError if the stand-in has none."""
    module = f"cupyx.scipy.{part}"
    signature = parameters(module, name)
    if (part, name) in WRITTEN_OUT:
        written = WRITTEN_OUT[part, name]
        return Function(signature, lambda bound: written(**bound), written.__doc__)
    host = (part, name) in _HOST_SCIPY
    kinds = _HOST_SCIPY[part, name] if host else SCIPY[part][name]
    target = getattr(importlib.import_module(f"scipy.{part}"), name, None)
    if target is None:
        raise NotOffered(f"{module} has {name!r}, but the SciPy underneath has not")
    return Function(
        signature, Delegate(signature, target, kinds, by_position=2 if name == "polygamma" else 1, host=host)
    )
