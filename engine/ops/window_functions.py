"""Window functions: what a signal is multiplied by before it is transformed."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np

from engine.backend import CPU
from engine.carriers import K
from engine.declare import Array, Device, DTypeArg, op
from engine.dtypes import C_NAMES, COMPLEX, FLOAT, DType, float32, float64
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch
from engine.metas import as_dtype
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.factories import rounded, spaced
from engine.samples import S

# ---------------------------------------------------------------- torch.signal.windows


def _checked(k: K, name: str, M: int, dtype: Any) -> Spec:
    d = as_dtype(dtype) or k.default_dtype
    if M < 0:
        raise ShapeMismatch(f"{name} requires non-negative window length, got M={M}", param="M")
    if d is not float32 and d is not float64:
        raise DtypeMismatch(f"{name} expects float32 or float64 dtypes, got: {d}", param="dtype")
    return Spec((M,), d)


def _meta(name: str) -> Any:
    def meta(k: K, M: int, sym: bool = True, dtype: Any = None, *rest: Any) -> Spec:
        return _checked(k, name, M, dtype)

    return meta


def _line(start: float, end: float, n: int, d: DType) -> Any:
    return spaced(float(start), float(end), n, d)


def _cosines(n: int, a: Any, sym: bool, d: DType) -> Any:
    """The sum of (-1)^i a[i] cos(2 pi i j / m), where m is n - 1 for a symmetric window and n for a periodic one."""
    if n < 2:
        return np.ones(n, d.np)
    places = _line(0, (n - 1) * (2 * pi / (n - 1 if sym else n)), n, d)
    signed = np.asarray([(-1) ** i * w for i, w in enumerate(a)], d.np)
    waves = np.cos(np.arange(len(signed)).astype(d.np)[:, None] * places)
    return (signed[:, None] * waves).sum(0)


_SAMPLES = [S(5), S(6, sym=False), S(1), S(0), S(4, dtype="float64")]


@op(family="factories", name="signal.windows.bartlett", meta=_meta("bartlett"), vjp=None, samples=_SAMPLES)
def bartlett(
    k: K,
    M: int,
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """The triangle 1 - |2 j / (M - 1) - 1|; `sym=False` makes it one period of M points."""
    d = k.spec.dtype
    if M < 2:
        return k.from_host(np.ones(M, d.np))
    constant = 2 / (M - 1 if sym else M)
    return k.from_host(1 - np.abs(_line(-1, -1 + (M - 1) * constant, M, d)))


@op(family="factories", name="signal.windows.blackman", meta=_meta("blackman"), vjp=None, samples=_SAMPLES)
def blackman(
    k: K,
    M: int,
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Blackman's window: `general_cosine` with 0.42, 0.5 and 0.08."""
    return k.from_host(_cosines(M, (0.42, 0.5, 0.08), sym, k.spec.dtype))


@op(family="factories", name="signal.windows.cosine", meta=_meta("cosine"), vjp=None, samples=_SAMPLES)
def cosine(
    k: K,
    M: int,
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Half a wave: sin(pi (j + 0.5) / M)."""
    constant = pi / max(M + 1 if not sym and M > 1 else M, 1)
    return k.from_host(np.sin(_line(0.5 * constant, (0.5 + (M - 1)) * constant, M, k.spec.dtype)))


def _exponential_meta(
    k: K,
    M: int,
    center: float | None = None,
    tau: float = 1.0,
    sym: bool = True,
    dtype: Any = None,
    *rest: Any,
) -> Spec:
    made = _checked(k, "exponential", M, dtype)
    if tau <= 0:
        raise Invalid(f"Tau must be positive, got: {tau} instead.", param="tau")
    if sym and center is not None:
        raise Invalid("Center must be None for symmetric windows", param="center")
    return made


@op(
    family="factories",
    name="signal.windows.exponential",
    meta=_exponential_meta,
    vjp=None,
    samples=[*_SAMPLES, S(5, center=1.0, tau=2.0, sym=False)],
)
def exponential(
    k: K,
    M: int,
    center: float | None = None,
    tau: float = 1.0,
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """exp(-|j - center| / tau), also called Poisson's window; the centre is the middle if not given."""
    middle = _middle(M, sym) if center is None else center
    constant = 1 / tau
    places = _line(-middle * constant, (-middle + (M - 1)) * constant, M, k.spec.dtype)
    return k.from_host(np.exp(-np.abs(places)))


def _middle(n: int, sym: bool) -> float:
    return (n if not sym and n > 1 else n - 1) / 2.0


def _gaussian_meta(
    k: K,
    M: int,
    std: float = 1.0,
    sym: bool = True,
    dtype: Any = None,
    *rest: Any,
) -> Spec:
    made = _checked(k, "gaussian", M, dtype)
    if std <= 0:
        raise Invalid(f"Standard deviation must be positive, got: {std} instead.", param="std")
    return made


@op(
    family="factories",
    name="signal.windows.gaussian",
    meta=_gaussian_meta,
    vjp=None,
    samples=[*_SAMPLES, S(5, std=0.5)],
)
def gaussian(
    k: K,
    M: int,
    std: float = 1.0,
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """exp(-((j - middle) / std)^2 / 2)."""
    start, constant = -_middle(M, sym), 1 / (std * sqrt(2))
    places = _line(start * constant, (start + (M - 1)) * constant, M, k.spec.dtype)
    return k.from_host(np.exp(-(places * places)))


def _general_cosine_meta(
    k: K,
    M: int,
    a: Any,
    sym: bool = True,
    dtype: Any = None,
    *rest: Any,
) -> Spec:
    made = _checked(k, "general_cosine", M, dtype)
    if M > 1 and not isinstance(a, list | tuple):
        raise Invalid("Coefficients must be a list/tuple", code="wrong-type", param="a")
    if M > 1 and not a:
        raise Invalid("Coefficients cannot be empty", param="a")
    return made


@op(
    family="factories",
    name="signal.windows.general_cosine",
    meta=_general_cosine_meta,
    vjp=None,
    samples=[
        S(5, [0.5, 0.3, 0.2]),
        S(4, [1.0], sym=False),
        S(1, [0.5]),
        S(0, [0.5]),
        S(4, [0.5, 0.5], dtype="float64"),
    ],
)
def general_cosine(
    k: K,
    M: int,
    a: list[float],
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """A sum of cosines: (-1)^i a[i] cos(2 pi i j / (M - 1)) over i."""
    return k.from_host(_cosines(M, a, sym, k.spec.dtype))


def _hamming_meta(
    k: K,
    M: int,
    alpha: float = 0.54,
    sym: bool = True,
    dtype: Any = None,
    *rest: Any,
) -> Spec:
    return _checked(k, "general_cosine", M, dtype)


@op(
    family="factories",
    name="signal.windows.general_hamming",
    meta=_hamming_meta,
    vjp=None,
    samples=[*_SAMPLES, S(5, alpha=0.7)],
)
def general_hamming(
    k: K,
    M: int,
    alpha: float = 0.54,
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """alpha - (1 - alpha) cos(2 pi j / (M - 1))."""
    return k.from_host(_cosines(M, (alpha, 1.0 - alpha), sym, k.spec.dtype))


@op(family="factories", name="signal.windows.hamming", meta=_meta("general_cosine"), vjp=None, samples=_SAMPLES)
def hamming(
    k: K,
    M: int,
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Hamming's window: `general_hamming` with 0.54."""
    return k.from_host(_cosines(M, (0.54, 1.0 - 0.54), sym, k.spec.dtype))


@op(family="factories", name="signal.windows.hann", meta=_meta("general_cosine"), vjp=None, samples=_SAMPLES)
def hann(
    k: K,
    M: int,
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Hann's window: `general_hamming` with 0.5."""
    return k.from_host(_cosines(M, (0.5, 0.5), sym, k.spec.dtype))


def _kaiser_meta(
    k: K,
    M: int,
    beta: float = 12.0,
    sym: bool = True,
    dtype: Any = None,
    *rest: Any,
) -> Spec:
    made = _checked(k, "kaiser", M, dtype)
    if beta < 0:
        raise Invalid(f"beta must be non-negative, got: {beta} instead.", param="beta")
    return made


@op(family="factories", name="signal.windows.kaiser", meta=_kaiser_meta, vjp=None, samples=[*_SAMPLES, S(5, beta=3.0)])
def kaiser(
    k: K,
    M: int,
    beta: float = 12.0,
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Kaiser's window: I0(beta sqrt(1 - (2 j / (M - 1) - 1)^2)) / I0(beta), I0 being a Bessel function."""
    d = k.spec.dtype
    if M < 2:
        return k.from_host(np.ones(M, d.np))
    number = d.np.type
    b = number(beta)
    step = number(2.0) * b / number(M - 1 if sym else M)
    places = _line(-b, min(b, -b + number(M - 1) * step), M, d)
    i0 = CPU.sp.special.i0
    return k.from_host(i0(np.sqrt(b * b - places * places)) / i0(b))


@op(family="factories", name="signal.windows.nuttall", meta=_meta("general_cosine"), vjp=None, samples=_SAMPLES)
def nuttall(
    k: K,
    M: int,
    sym: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Nuttall's window of four terms: `general_cosine` with 0.3635819, 0.4891775, 0.1365995 and 0.0106411."""
    return k.from_host(_cosines(M, (0.3635819, 0.4891775, 0.1365995, 0.0106411), sym, k.spec.dtype))


# ---------------------------------------------------------------- the older ones, periodic by default


def _older(name: str) -> Any:
    def meta(k: K, window_length: int, periodic: bool = True, *rest: Any) -> Spec:
        d = as_dtype(next((x for x in rest if isinstance(x, DType | str)), None)) or k.default_dtype
        if d.category < FLOAT:
            raise DtypeMismatch(
                f"{name} expects floating point dtypes, got: TensorOptions(dtype={C_NAMES[d.name]}, "
                f"device={k.device}, layout=Strided (default), requires_grad=false (default), pinned_memory=false, "
                "memory_format=(nullopt))",
                param="dtype",
            )
        if window_length < 0:
            raise ShapeMismatch(
                f"{name} requires non-negative window_length, got window_length={window_length}", param="window_length"
            )
        if window_length > 1 and d.category == COMPLEX:
            raise not_implemented("arange_cpu", d)
        return Spec((window_length,), d)

    return meta


def _points(n: int, periodic: bool, d: DType) -> tuple[Any, int]:
    """(0, 1, ..., n - 1; the number of intervals that the window spans)."""
    return rounded(np.arange(n).astype(np.float64), d), n if periodic else n - 1


def _number(d: DType) -> Any:
    """Makes a factor or summand of a number: PyTorch rounds it to the dtype first."""
    return lambda value: rounded(np.float64(value), d)


def _raised(k: K, n: int, periodic: bool, alpha: float, beta: float) -> Any:
    """alpha - beta cos(2 pi j / intervals), each operation rounded."""
    d = k.spec.dtype
    if n < 2:
        return k.from_host(np.ones(n, d.compute.np))
    j, intervals = _points(n, periodic, d)
    number = _number(d)
    angles = rounded(j * number(pi * 2.0 / intervals), d)
    waves = rounded(rounded(np.cos(angles), d) * number(-beta), d)
    return k.from_host(rounded(waves + number(alpha), d))


_OLDER = [S(5), S(6, False), S(1), S(0), S(4, dtype="float64"), S(4, dtype="bfloat16")]


@op(family="factories", meta=_older("hann_window"), vjp=None, samples=_OLDER)
def hann_window(
    k: K,
    window_length: int,
    periodic: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Hann's window: 0.5 - 0.5 cos(2 pi j / n), with n the length, or the length - 1 if not `periodic`."""
    return _raised(k, window_length, periodic, 0.5, 0.5)


@op(
    family="factories",
    meta=_older("hamming_window"),
    vjp=None,
    samples=[*_OLDER, S(5, True, 0.6, 0.4)],
)
def hamming_window(
    k: K,
    window_length: int,
    periodic: bool = True,
    alpha: float = 0.54,
    beta: float = 0.46,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Hamming's window: alpha - beta cos(2 pi j / n), with n the length, or the length - 1 if not `periodic`."""
    return _raised(k, window_length, periodic, alpha, beta)


@op(family="factories", meta=_older("bartlett_window"), vjp=None, samples=_OLDER)
def bartlett_window(
    k: K,
    window_length: int,
    periodic: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Bartlett's triangle: 1 - |2 j / n - 1|, with n the length, or the length - 1 if not `periodic`."""
    d, n = k.spec.dtype, window_length
    if n < 2:
        return k.from_host(np.ones(n, d.compute.np))
    j, intervals = _points(n, periodic, d)
    number = _number(d)
    rising = rounded(j * number(2.0 / intervals), d)
    falling = rounded(-rising + number(2), d)
    return k.from_host(np.where(np.arange(n) <= intervals >> 1, rising, falling))


@op(family="factories", meta=_older("blackman_window"), vjp=None, samples=_OLDER)
def blackman_window(
    k: K,
    window_length: int,
    periodic: bool = True,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Blackman's window: 0.42 - 0.5 cos(2 pi j / n) + 0.08 cos(4 pi j / n), with n as in `hann_window`."""
    d = k.spec.dtype
    if window_length < 2:
        return k.from_host(np.ones(window_length, d.compute.np))
    j, intervals = _points(window_length, periodic, d)
    number = _number(d)
    angles = rounded(j * number(pi / intervals), d)
    fine = rounded(rounded(np.cos(rounded(angles * number(4), d)), d) * number(0.08), d)
    coarse = rounded(rounded(np.cos(rounded(angles * number(2), d)), d) * number(0.5), d)
    return k.from_host(rounded(rounded(fine - coarse, d) + number(0.42), d))


@op(family="factories", meta=_older("kaiser_window"), vjp=None, samples=[*_OLDER, S(5, True, 3.0)])
def kaiser_window(
    k: K,
    window_length: int,
    periodic: bool = True,
    beta: float = 12.0,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Kaiser's window: I0(beta sqrt(1 - (2 j / n - 1)^2)) / I0(beta), with n as in `hann_window`."""
    d = k.spec.dtype
    if window_length < 2:
        return k.from_host(np.ones(window_length, d.compute.np))
    j, intervals = _points(window_length, periodic, d)
    number = j.dtype.type
    i0 = CPU.sp.special.i0
    x = j * number(2.0 / intervals) - number(1)
    return k.from_host(i0(number(beta) * np.sqrt(np.maximum(number(1) - x * x, number(0)))) / i0(number(beta)))
