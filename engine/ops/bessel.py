"""Bessel functions of orders 0 and 1, the modified ones, and Airy's function.

Those that PyTorch has in `torch.special` alone have no gradient there, nor here.
"""

from __future__ import annotations

from functools import cache
from math import gamma, pi, sqrt
from typing import Any

import numpy as np

from engine.carriers import K
from engine.declare import Array, op
from engine.dtypes import COMPLEX
from engine.ops.common import either, full_precision, lacking, put
from engine.samples import I, S, T

_REAL = [S(T(2, 3)), S(T()), S(T(0, 2)), S(I(4, low=-3))]
_POSITIVE = [S(T(2, 3, low=0.3, high=9.0)), S(T(low=0.3)), S(T(0, 2)), S(I(4, low=1))]


# ---------------------------------------------------------------- modified ones, with gradients


def _nowhere_infinite(k: K, name: str, x: Any) -> Any:
    """A SciPy function, NaN where x is infinite: PyTorch's approximations have no limits there."""
    return either(k.xp, k.xp.isinf(x), float("nan"), getattr(k.sp.special, name)(x))


@op(
    family="special",
    meta=lacking("i0_vml_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("special.i0",),
    save={"input": ("input",)},
    samples=_REAL,
)
def i0(k: K, input: Array, *, out: Any = None) -> Array:
    """The modified Bessel function of the first kind, of order 0."""
    return put(_nowhere_infinite(k, "i0", input), out)


@i0.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * F.i1(saved.input)


@op(
    name="special.i0e",
    family="special",
    meta=lacking("i0e_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    node="SpecialI0EBackward0",
    save={"input": ("input", "result")},
    samples=_REAL,
)
def i0e(k: K, input: Array, *, out: Any = None) -> Array:
    """exp(-|x|) i0(x)."""
    return k.sp.special.i0e(input, out=out)


@i0e.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * (F.i1e(saved.input) - F.sgn(saved.input) * saved.result)


@op(
    name="special.i1",
    family="special",
    meta=lacking("i1_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    node="SpecialI1Backward0",
    save={"input": ("input",)},
    samples=_REAL,
)
def i1(k: K, input: Array, *, out: Any = None) -> Array:
    """The modified Bessel function of the first kind, of order 1."""
    return put(_nowhere_infinite(k, "i1", input), out)


def _tiny(F: Any, x: Any) -> tuple[Any, Any]:
    """Where x is too small to divide by, or NaN, and x with something harmless there."""
    tiny = F.logical_not(F.gt(F.abs(x), float(np.finfo(F.dtype(x).np).eps)))
    return tiny, F.where(tiny, 1, x)


@i1.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    tiny, x = _tiny(F, saved.input)
    return g * F.where(tiny, 0.5, F.i0(x) - F.i1(x) / x)


@op(
    name="special.i1e",
    family="special",
    meta=lacking("i1e_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    node="SpecialI1EBackward0",
    save={"input": ("input",)},
    samples=_REAL,
)
def i1e(k: K, input: Array, *, out: Any = None) -> Array:
    """exp(-|x|) i1(x)."""
    return k.sp.special.i1e(input, out=out)


@i1e.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    tiny, x = _tiny(F, saved.input)
    return g * F.where(tiny, 0.5, F.i0e(x) - F.i1e(x) * (F.sgn(x) + F.reciprocal(x)))


# ---------------------------------------------------------------- without gradients


def _without_gradient(name: str, function: str, doc: str, *, positive: bool = False, limits: bool = True) -> None:
    def kernel(k: K, input: Array, *, out: Any = None) -> Array:
        if limits:
            return getattr(k.sp.special, function)(input, out=out)
        return put(_nowhere_infinite(k, function, input), out)

    kernel.__doc__ = doc
    op(
        name=f"special.{name}",
        family="special",
        meta=full_precision(f"{name}_cpu"),
        promote="float",
        elementwise=True,
        vjp=None,
        samples=_POSITIVE if positive else _REAL,
    )(kernel)


_without_gradient("bessel_j0", "j0", "The Bessel function of the first kind, of order 0.")
_without_gradient("bessel_j1", "j1", "The Bessel function of the first kind, of order 1.")
_without_gradient(
    "bessel_y0", "y0", "The Bessel function of the second kind, of order 0; NaN for negative numbers.", positive=True
)
_without_gradient(
    "bessel_y1", "y1", "The Bessel function of the second kind, of order 1; NaN for negative numbers.", positive=True
)
_without_gradient(
    "modified_bessel_i0", "i0", "The modified Bessel function of the first kind, of order 0.", limits=False
)
_without_gradient(
    "modified_bessel_i1", "i1", "The modified Bessel function of the first kind, of order 1.", limits=False
)
for _order in (0, 1):
    _without_gradient(
        f"modified_bessel_k{_order}",
        f"k{_order}",
        f"The modified Bessel function of the second kind, of order {_order}; NaN for negative numbers.",
        positive=True,
    )
    _without_gradient(
        f"scaled_modified_bessel_k{_order}",
        f"k{_order}e",
        f"exp(x) times the modified Bessel function of the second kind, of order {_order}; NaN for negative numbers.",
        positive=True,
    )


@op(
    name="special.spherical_bessel_j0",
    family="special",
    meta=full_precision("spherical_bessel_j0_cpu"),
    promote="float",
    elementwise=True,
    vjp=None,
    samples=_REAL,
)
def spherical_bessel_j0(k: K, input: Array, *, out: Any = None) -> Array:
    """The spherical Bessel function of the first kind, of order 0: sin(x) / x, 1 at 0."""
    xp = k.xp
    special = (input == 0) | xp.isinf(input)
    x = either(xp, special, 1, input)
    return put(either(xp, special, input == 0, xp.sin(x) / x), out)


# ---------------------------------------------------------------- Airy's function

_NEAR = 2.0  # where the power series has lost no more than a digit
_NODES = 40
_UNDERFLOWS = 103.892  # Ai is smaller than the least double from here on


@op(
    name="special.airy_ai",
    family="special",
    meta=full_precision("airy_ai_cpu"),
    promote="float",
    elementwise=True,
    vjp=None,
    samples=[*_REAL, S(T(2, 3, low=-30.0, high=30.0))],
)
def airy_ai(k: K, x: Array, *, out: Any = None) -> Array:
    """Airy's function Ai: the solution of y'' = x y that goes to 0 as x goes to infinity.

    Near 0 its power series; elsewhere Gauss-Laguerre quadrature of
    Ai(z) = exp(-zeta) / (2 sqrt(pi) z^(1/4) Gamma(5/6)) * integral of exp(-t) t^(-1/6) (1 + t / (2 zeta))^(-1/6),
    zeta = 2/3 z^(3/2), after Gil, Segura and Temme, Computing complex Airy functions by numerical quadrature
    (Numerical Algorithms 30, 2002). A negative x is half the sum over the two directions z = |x| exp(+-i pi/3).
    """
    xp = k.xp
    wide = x.astype(np.float64)
    size = xp.abs(wide)
    near = size <= _NEAR
    far = either(xp, near | ~xp.isfinite(wide), 2 * _NEAR, size)
    zeta = far * xp.sqrt(far) * (2 / 3)
    falling, waving = _quadrature(xp, zeta)
    root = 1 / (sqrt(pi) * xp.sqrt(xp.sqrt(far)))
    angle = zeta - pi / 4
    ai = either(
        xp,
        wide > 0,
        either(xp, wide > _UNDERFLOWS, 0, 0.5 * root * xp.exp(-zeta) * falling),
        root * (xp.cos(angle) * waving.real + xp.sin(angle) * waving.imag),
    )
    ai = either(xp, near, _airy_series(xp, either(xp, near, wide, 0)), ai)
    return put(either(xp, xp.isfinite(wide), ai, float("nan")).astype(x.dtype), out)


@cache
def _laguerre() -> tuple[list[float], list[float]]:
    """Nodes and weights for the weight function t^(-1/6) exp(-t), the weights adding up to 1.

    They are the eigenvalues of Jacobi's matrix and the first components of its eigenvectors, squared
    (Golub and Welsch, Calculation of Gauss quadrature rules, 1969).
    """
    n = np.arange(_NODES, dtype=np.float64)
    off = np.sqrt(n[1:] * (n[1:] - 1 / 6))
    nodes, vectors = np.linalg.eigh(np.diag(2 * n + 5 / 6) + np.diag(off, 1) + np.diag(off, -1))
    return nodes.tolist(), (vectors[0] ** 2).tolist()


def _quadrature(xp: Any, zeta: Any) -> tuple[Any, Any]:
    """The means of (1 + t / (2 zeta))^(-1/6) and of (1 + t / (2 i zeta))^(-1/6)."""
    falling = xp.zeros_like(zeta)
    waving = xp.zeros(zeta.shape, np.complex128)
    for t, weight in zip(*_laguerre(), strict=True):
        s = t / (2 * zeta)
        falling = falling + weight * (1 + s) ** (-1 / 6)
        modulus = (1 + s * s) ** (-1 / 12)
        phase = xp.arctan(s) / 6
        waving = waving + weight * modulus * (xp.cos(phase) + 1j * xp.sin(phase))
    return falling, waving


def _airy_series(xp: Any, x: Any) -> Any:
    """Ai(0) f(x) + Ai'(0) g(x), f and g being the solutions that begin as 1 and as x."""
    cube = x * x * x
    f = even = xp.ones_like(x)
    g = odd = x
    for n in range(2, 60, 3):
        even = even * cube / (n * (n + 1))
        odd = odd * cube / ((n + 1) * (n + 2))
        f = f + even
        g = g + odd
    return f / (3 ** (2 / 3) * gamma(2 / 3)) - g / (3 ** (1 / 3) * gamma(1 / 3))
