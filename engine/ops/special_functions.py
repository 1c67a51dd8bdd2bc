"""Special functions beside the gamma and Bessel families: of the normal distribution, entropy, logit and sinc."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np

from engine.carriers import K
from engine.declare import Array, Scalar, composite, op
from engine.dtypes import COMPLEX
from engine.metas import same
from engine.ops.common import conjugate, either, full_precision, lacking, put
from engine.samples import C, I, S, T

_REAL = [S(T(2, 3)), S(T()), S(T(0, 2)), S(I(3))]
_UNIT = [S(T(2, 3, low=0.1, high=0.9)), S(T(low=0.1, high=0.9)), S(T(0, 2))]


# ---------------------------------------------------------------- the normal distribution


@op(
    name="special.erfcx",
    family="special",
    meta=full_precision("erfcx_cpu"),
    promote="float",
    elementwise=True,
    node="SpecialErfcxBackward0",
    save={"input": ("input", "result")},
    samples=_REAL,
)
def erfcx(k: K, input: Array, *, out: Any = None) -> Array:
    """exp(x^2) erfc(x), which stays in range for large x."""
    return k.sp.special.erfcx(input, out=out)


@erfcx.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * (saved.input * saved.result * 2 - 2 / sqrt(pi))


@composite(family="special", name="special.ndtr", samples=_REAL)
def ndtr(F: Any, input: Array) -> Array:
    """The distribution function of the standard normal distribution: (1 + erf(x / sqrt(2))) / 2."""
    return F.mul(F.add(F.erf(F.mul(input, 1 / sqrt(2))), 1), 0.5)


@op(
    name="special.log_ndtr",
    family="special",
    meta=full_precision("log_ndtr_cpu"),
    promote="float",
    elementwise=True,
    node="SpecialLogNdtrBackward0",
    save={"input": ("input",)},
    samples=_REAL,
)
def log_ndtr(k: K, input: Array, *, out: Any = None) -> Array:
    """The logarithm of `special.ndtr`, exact far below 0 too."""
    return k.sp.special.log_ndtr(input, out=out)


@log_ndtr.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g / F.erfcx(saved.input * -sqrt(0.5)) * sqrt(2 / pi)


@op(
    name="special.ndtri",
    family="special",
    meta=full_precision("ndtri_cpu"),
    promote="float",
    elementwise=True,
    node="SpecialNdtriBackward0",
    save={"input": ("result",)},
    samples=_UNIT,
)
def ndtri(k: K, input: Array, *, out: Any = None) -> Array:
    """The number whose `special.ndtr` is x; NaN outside [0, 1]."""
    return k.sp.special.ndtri(input, out=out)


@ndtri.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * (F.exp(F.square(saved.result) / 2) * sqrt(2 * pi))


# ---------------------------------------------------------------- logarithms with a factor


@op(
    name="special.entr",
    family="special",
    meta=lacking("entr_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    node="SpecialEntrBackward0",
    save={"input": ("input",)},
    samples=[S(T(2, 3, low=0.1)), S(T(low=0.1)), S(T(0, 2)), S(I(3))],
)
def entr(k: K, input: Array, *, out: Any = None) -> Array:
    """-x log(x); 0 where x is 0, -inf where it is negative."""
    return k.sp.special.entr(input, out=out)


@entr.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * (-F.log(saved.input) - 1)


@op(
    name="special.xlog1py",
    family="special",
    meta=lacking("xlog1py_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    node="SpecialXlog1PyBackward0",
    save={"input": ("input", "other"), "other": ("input", "other")},
    samples=[
        S(T(3, 2), T(2, low=-0.5)),
        S(T(), T(low=-0.5)),
        S(T(0, 2), T(1, 2)),
        S(T(2, 2), 2.5),
        S(2.0, T(2, 2, low=-0.5)),
        S(I(4), I(4)),
    ],
)
def xlog1py(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """input * log(1 + other), and 0 where input is 0 and other is no NaN."""
    return k.sp.special.xlog1py(input, other, out=out)


@xlog1py.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    of_input = None
    if need.input:
        off = F.logical_and(F.eq(saved.input, 0), F.le(saved.other, -1))
        of_input = g * F.where(off, 0, F.log1p(saved.other))
    return of_input, need.other and g * saved.input / (saved.other + 1)


@op(
    family="pointwise",
    meta=lacking("logit_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("special.logit",),
    save={"input": ("input",)},
    samples=[*_UNIT, S(T(2, 3, low=0.1, high=0.9), 0.05), S(T(3, low=-0.5, high=1.5), eps=0.2), S(I(3, high=2))],
)
def logit(k: K, input: Array, eps: float | None = None, *, out: Any = None) -> Array:
    """log(x / (1 - x)), the inverse of `sigmoid`; x is first moved into [eps, 1 - eps] if there is an eps >= 0."""
    xp = k.xp
    x = input
    if eps is not None and eps >= 0:
        low = float(np.asarray(eps, x.dtype))
        high = float(np.asarray(1 - low, x.dtype))
        x = either(xp, x < low, low, either(xp, x > high, high, x))
    return xp.log(x / (1 - x), out=out)


@logit.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x, eps = saved.input, saved.eps
    slope = g / (x * (1 - x))
    low, high, beyond = (0, 1, float("nan")) if eps is None or eps < 0 else (eps, 1 - eps, 0)
    return F.where(F.logical_or(F.lt(x, low), F.gt(x, high)), beyond, slope)


# ---------------------------------------------------------------- sinc


@op(
    family="pointwise",
    meta=same,
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("special.sinc",),
    save={"input": ("input",)},
    samples=[*_REAL, S(C(2, 2))],
)
def sinc(k: K, input: Array, *, out: Any = None) -> Array:
    """sin(pi x) / (pi x), and 1 at 0."""
    xp = k.xp
    angle = input * pi
    zero = angle == 0
    return put(either(xp, zero, 1, xp.sin(angle) / either(xp, zero, 1, angle)), out)


@sinc.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x = conjugate(F, saved.input)
    angle = x * pi
    square = x * x * pi
    zero = F.eq(square, 0)
    return F.where(zero, 0, g * ((angle * F.cos(angle) - F.sin(angle)) / F.where(zero, 1, square)))
