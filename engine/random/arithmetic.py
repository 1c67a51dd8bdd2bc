"""Casts and roundings as C++ does them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from engine.dtypes import bf16_to_f32, f32_to_bf16

Array: TypeAlias = np.ndarray[Any, Any]

f4, f8, i4, u8 = np.float32, np.float64, np.int32, np.uint64

# The chunk in which long fills are made, in words: its temporaries stay in the second-level cache.
CHUNK = 1 << 14


def chunks(n: int) -> Iterator[slice]:
    """[0, n) in pieces; each but the last holds a multiple of 16."""
    return (slice(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK))


def narrow(values: Array, dtype: str) -> Array:
    """float64 or float32 numbers as C++ casts them to a float `dtype`; bfloat16 stays float32, rounded."""
    if dtype == "float64":
        return values
    with np.errstate(over="ignore"):
        single = values.astype(f4, copy=False)
        if dtype == "float16":
            return single.astype(np.float16)
    return bf16_to_f32(f32_to_bf16(single)) if dtype == "bfloat16" else single


def from_int64(values: Array, dtype: str) -> Array:
    """int64 numbers as C++ casts them to a real `dtype`."""
    if dtype in ("float16", "bfloat16"):
        return narrow(values.astype(f4), dtype)
    return values.astype(dtype, copy=False)


def libm(function: Callable[[float], float], x: Array, dtype: str) -> Array:
    """math.`function` of float64 numbers that are wanted as `dtype`.

    NumPy's vector functions may differ from the C library's, which torch calls, in the last bit. That shows in
    float64 only, so there alone the slow way is taken.
    """
    if dtype == "float64":
        try:
            return np.fromiter(map(function, x.tolist()), f8, x.size)
        except OverflowError:  # from math.exp, where C gives infinity
            pass
    with np.errstate(over="ignore"):
        return np.asarray(getattr(np, function.__name__)(x))


def fma32(x: Array, y: Array | np.float64, z: Array | np.float64) -> Array:
    """x * y + z of float32 numbers, rounded once: in float64 their product is exact."""
    wide = np.multiply(x, y, dtype=f8)
    wide += z
    return wide.astype(f4)


def fma64(x: Array, scale: float, shift: float) -> Array:
    """x * scale + shift in float64, rounded once, by the algorithm of Boldo and Melquiond (2008)."""
    exact = shift == 0.0 or abs(math.frexp(scale)[0]) == 0.5  # nothing is added, or scale is a power of two
    if exact or not abs(scale) < 2.0**990 or not math.isfinite(shift):
        return x * scale + shift
    if x.size > CHUNK:
        return np.concatenate([fma64(x[part], scale, shift) for part in chunks(x.size)])
    high, low = _split(x)
    top, bottom = _split(f8(scale))
    product = x * scale
    error = ((high * top - product) + high * bottom + low * top) + low * bottom
    carry, carry_error = _two_sum(error, f8(shift))
    total, total_error = _two_sum(product, carry)
    rest, rest_error = _two_sum(carry_error, total_error)
    # `rest` rounded to odd, so that the last addition rounds as if nothing had been rounded before.
    bits = rest.view(np.int64)
    inexact = (rest_error != 0) & (bits & 1 == 0)
    bits += np.where(inexact, np.where((rest_error > 0) == (rest > 0), 1, -1), 0)
    return np.asarray(total + rest)


def _split(x: Any) -> tuple[Any, Any]:
    """x as the sum of two numbers of 26 bits each (Veltkamp)."""
    scaled = x * f8(2.0**27 + 1)
    high = scaled - (scaled - x)
    return high, x - high


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """a + b and its rounding error, exactly (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
