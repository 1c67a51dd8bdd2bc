"""Element by element: what NumPy needs many passes for. One-dimensional arrays of one size; the last is written."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np

from engine import approximations as near
from engine.compiled.jit import FLOATS, SINGLE, exact_helper, helper, kernel

Array = Any
Float = Any

F = np.float32
I = np.int32

# exp(x) = 2^n exp(r) with n the integer nearest to x / log(2); adding MAGIC rounds to it, and its bits hold it.
_LOG2E, _MAGIC, _MAGIC_BITS = F(1.4426950408889634), F(12582912.0), I(0x4B400000)
_LN2_HIGH, _LN2_LOW = F(0.693359375), F(-2.12194440e-4)
_LOWEST, _HIGHEST = F(-104.0), F(89.0)  # beyond: 0 and infinity
_ONE, _HALF, _ZERO = F(1), F(0.5), F(0)
_C3, _C4, _C5, _C6, _C7 = F(1 / 6), F(1 / 24), F(1 / 120), F(1 / 720), F(1 / 5040)


@exact_helper
def _nearest(t: Float) -> Float:
    """t / log(2), rounded to an integer, plus MAGIC."""
    return t * _LOG2E + _MAGIC


@exact_helper
def _integer(t: Float) -> Float:
    return t - _MAGIC


@helper
def _power_of_two(n: Any) -> Float:
    return I((n + I(127)) << I(23)).view(F)


@helper
def exp32(x: Float) -> Float:
    """exp in float32, within one unit in the last place; also below the smallest normal number."""
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    t = F(_nearest(x))
    n = t.view(I) - _MAGIC_BITS
    f = _integer(t)
    r = (x - f * _LN2_HIGH) - f * _LN2_LOW
    p = (((((_C7 * r + _C6) * r + _C5) * r + _C4) * r + _C3) * r + _HALF) * r * r + r + _ONE
    h = n >> I(1)
    return p * _power_of_two(h) * _power_of_two(n - h)


_N0, _N1, _N2, _N3, _N4, _N5 = (F(c) for c in near.ERF_NEAR)
_F0, _F1, _F2, _F3, _F4, _F5, _F6 = (F(c) for c in near.ERF_FAR)
_SPLIT, _END = F(near.ERF_SPLIT), F(near.ERF_END)


@kernel(SINGLE)
def erf(x: Array, out: Array) -> None:
    """The error function."""
    for i in range(x.size):
        v = x[i]
        z = v * v
        low = (((((_N5 * z + _N4) * z + _N3) * z + _N2) * z + _N1) * z + _N0) * v + v
        a = abs(v)
        a = _END if a > _END else a
        e = _ONE - exp32((((((_F6 * a + _F5) * a + _F4) * a + _F3) * a + _F2) * a + _F1) * a + _F0)
        high = -e if v < _ZERO else e
        out[i] = low if a < _SPLIT else high


_P = F(near.TAIL_P)
_A1, _A2, _A3, _A4, _A5 = (F(c) for c in near.TAIL_A)
_DENSITY = F(1 / sqrt(2 * pi))


@kernel(SINGLE)
def gelu(x: Array, out: Array) -> None:
    """x times the probability that a normal number is below x: max(x, 0) - |x| P(X > |x|)."""
    for i in range(x.size):
        v = x[i]
        a = abs(v)
        t = _ONE / (_ONE + _P * a)
        tail = ((((_A1 * t + _A2) * t + _A3) * t + _A4) * t + _A5) * t * exp32(-_HALF * v * v)
        out[i] = (_ZERO if v < _ZERO else v) - a * tail


@kernel(SINGLE)
def gelu_slope(g: Array, x: Array, out: Array) -> None:
    """g times the slope of gelu."""
    for i in range(x.size):
        v = x[i]
        t = _ONE / (_ONE + _P * abs(v))
        e = exp32(-_HALF * v * v)
        inside = _HALF - ((((_A1 * t + _A2) * t + _A3) * t + _A4) * t + _A5) * t * e
        out[i] = g[i] * (_HALF + (-inside if v < _ZERO else inside) + v * e * _DENSITY)


@kernel(SINGLE)
def sigmoid(x: Array, out: Array) -> None:
    """1 / (1 + exp(-x))."""
    for i in range(x.size):
        out[i] = _ONE / (_ONE + exp32(-x[i]))


@kernel(SINGLE)
def silu(x: Array, out: Array) -> None:
    """x / (1 + exp(-x))."""
    for i in range(x.size):
        out[i] = x[i] / (_ONE + exp32(-x[i]))


@kernel(SINGLE)
def silu_slope(g: Array, x: Array, out: Array) -> None:
    """g times the slope of silu."""
    for i in range(x.size):
        s = _ONE / (_ONE + exp32(-x[i]))
        out[i] = g[i] * (s * (_ONE + x[i] * (_ONE - s)))


@kernel(FLOATS, exact=True)
def unless_low(g: Array, y: Array, out: Array) -> None:
    """g where not y <= 0, elsewhere 0: the slope of relu."""
    zero = g.dtype.type(0)
    for i in range(g.size):
        out[i] = zero if y[i] <= zero else g[i]


# ---------------------------------------------------------------- made of pieces


@kernel(FLOATS, exact=True)
def leaky(g: Array, x: Array, out: Array, slope: float) -> None:
    """g where x > 0, elsewhere slope * g."""
    factor = g.dtype.type(slope)
    for i in range(g.size):
        out[i] = g[i] if x[i] > 0 else g[i] * factor


@kernel(FLOATS, exact=True)
def between(g: Array, x: Array, out: Array, low: float, high: float) -> None:
    """g, but 0 where x <= low or x >= high."""
    bottom, top, zero = g.dtype.type(low), g.dtype.type(high), g.dtype.type(0)
    for i in range(g.size):
        out[i] = zero if x[i] <= bottom or x[i] >= top else g[i]


@kernel(FLOATS, exact=True)
def beyond(g: Array, x: Array, out: Array, bound: float) -> None:
    """g, but 0 where -bound <= x <= bound."""
    top, zero = g.dtype.type(bound), g.dtype.type(0)
    for i in range(g.size):
        out[i] = zero if x[i] >= -top and x[i] <= top else g[i]


@kernel(FLOATS, exact=True)
def softshrink(x: Array, out: Array, bound: float) -> None:
    """x moved towards 0 by bound, and no further."""
    top, zero = x.dtype.type(bound), x.dtype.type(0)
    for i in range(x.size):
        v = x[i]
        out[i] = v - top if v > top else v + top if v < -top else v * zero


@kernel(FLOATS, exact=True)
def hardswish(x: Array, out: Array) -> None:
    """x * min(max(x + 3, 0), 6) / 6."""
    three, six, zero = x.dtype.type(3), x.dtype.type(6), x.dtype.type(0)
    for i in range(x.size):
        t = x[i] + three
        t = zero if t < zero else t
        t = six if t > six else t
        out[i] = t * x[i] / six


@kernel(FLOATS, exact=True)
def hardswish_slope(g: Array, x: Array, out: Array) -> None:
    """g times the slope of hardswish."""
    three, half, zero = x.dtype.type(3), x.dtype.type(0.5), x.dtype.type(0)
    for i in range(x.size):
        v = x[i]
        inner = (v / three + half) * g[i] if v < three else g[i]
        out[i] = zero if v <= -three else inner
