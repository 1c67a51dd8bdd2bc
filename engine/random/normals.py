"""Normals from uniforms, sixteen at a time, by the transform of Box and Muller.

Of each sixteen uniforms d, the first eight give the radius sqrt(-2 log(1 - d)), the last eight the angle 2 pi d;
cosines become the first eight normals, sines the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import xlogy

from engine.random.arithmetic import Array, chunks, f4, f8, fma64, i4

# How many float32 pairs are made at a time: calls are few, and the buffers, 1.2 MB, stay in the cache.
PAIRS = 1 << 15

Draw = Callable[[int], Array]
SQRT_HALF_BITS = i4(0x3F3504F3)


def _single(*coefficients: float) -> tuple[np.float64, ...]:
    return tuple(f8(f4(c)) for c in coefficients)


# The polynomials of Cephes' logf, cosf and sinf, from the highest power down.
LOG_HIGH = _single(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1)
LOG = (*LOG_HIGH, *_single(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1))
COS = _single(2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
SIN = _single(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
(QUARTER_TURN_REST,) = _single(-3.77489497744594108e-8)


def normal64(out: Array, draw: Draw, mean: float, std: float) -> None:
    """Fills out, float64, a multiple of sixteen long, from as many uniforms of `draw`."""
    for part in chunks(out.size):
        made = out[part].reshape(-1, 2, 8)
        block = draw(made.size).reshape(-1, 2, 8)
        radius = np.sqrt(-2.0 * xlogy(1.0, 1.0 - block[:, 0]))  # the C library's log; np.log may be its own
        angle = 2.0 * math.pi * block[:, 1]
        made[:, 0] = fma64(radius * np.cos(angle), std, mean)
        made[:, 1] = fma64(radius * np.sin(angle), std, mean)


def normal32(out: Array, draw: Draw, mean: float, std: float) -> None:
    """Fills out, float32, a multiple of sixteen long, from as many uniforms of `draw`.

    To the bit what torch computes with AVX2: its vector log and sincos are those of Cephes, compiled to fused
    multiply-adds, so each of those is one rounding here as well.
    """
    step = min(out.size, 2 * PAIRS)
    singles, wides = np.empty((5, step // 2), f4), np.empty((2, step // 2))
    for start in range(0, out.size, step):
        made = out[start : start + step].reshape(-1, 2, 8)
        block = draw(made.size).reshape(-1, 2, 8)
        shape = (-1, 8)
        x, radius, sine, cosine, spare = singles[:, : made.size // 2]
        wide, product = wides[:, : made.size // 2]
        np.subtract(f4(1.0), block[:, 0], radius.reshape(shape))
        _log(radius, sine, cosine, spare, wide, product)
        np.multiply(radius, f4(-2.0), radius)
        np.sqrt(radius, radius)
        np.multiply(f4(2.0 * math.pi), block[:, 1], x.reshape(shape))
        _sincos(x, sine, cosine, spare, wide, product)
        for values, place in ((cosine, 0), (sine, 1)):
            np.multiply(values, radius, values)
            if std == 1.0:
                np.add(values.reshape(shape), f4(mean), made[:, place])
            else:
                np.copyto(wide, values)
                _fma(wide, f8(f4(std)), f8(f4(mean)), product, values)
                made[:, place] = values.reshape(shape)


# What follows works in buffers that are handed to it, and says in `out=` position where each result goes: a new
# array for each of a hundred steps would take longer than the arithmetic.


def _fma(x: Array, y: Array | np.float64, z: Array | np.float64, product: Array, out: Array) -> None:
    """out = x * y + z, rounded once to float32. One of x and y is float64, so that the product is exact."""
    np.multiply(x, y, product)
    np.add(product, z, product)
    np.copyto(out, product, casting="same_kind")


def _log(x: Array, y: Array, exponent: Array, square: Array, wide: Array, product: Array) -> None:
    """x = log(x) for float32 numbers from (0, 1]; the other arguments are buffers."""
    bits, whole = x.view(i4), y.view(i4)
    np.subtract(bits, SQRT_HALF_BITS, bits)
    np.right_shift(bits, 23, whole)
    np.copyto(exponent, whole, casting="unsafe")
    np.bitwise_and(bits, 0x7FFFFF, bits)
    np.add(bits, SQRT_HALF_BITS, bits)
    np.subtract(x, f4(1.0), x)  # the argument was 2^exponent * (1 + x), with 1 + x from [sqrt(1/2), sqrt(2))
    np.copyto(wide, x)
    _fma(wide, LOG[0], LOG[1], product, y)
    for c in LOG[2:]:
        _fma(y, wide, c, product, y)
    np.multiply(y, x, y)
    np.multiply(x, x, square)
    np.copyto(wide, y)
    np.multiply(exponent, f4(-2.12194440e-4), y)
    _fma(wide, square, y, product, y)
    np.multiply(square, f4(0.5), square)
    np.subtract(y, square, y)
    np.add(x, y, x)
    np.multiply(exponent, f4(0.693359375), exponent)  # 355/512: the product is exact, a plain sum is a fused one
    np.add(x, exponent, x)


def _sincos(x: Array, sine: Array, cosine: Array, square: Array, wide: Array, product: Array) -> None:
    """sine and cosine of the float32 numbers x from [0, 2 pi]; x is overwritten, the rest are buffers."""
    octant = np.multiply(x, f4(4.0 / math.pi)).astype(i4)
    np.add(octant, 1, octant)
    np.bitwise_and(octant, ~1, octant)
    np.copyto(cosine, octant, casting="unsafe")
    for part in (f4(-0.78515625), f4(-2.4187564849853515625e-4)):  # pi/4 goes in three parts; these products are exact
        np.multiply(cosine, part, sine)
        np.add(x, sine, x)
    np.copyto(wide, cosine)
    _fma(wide, QUARTER_TURN_REST, x, product, x)
    np.multiply(x, x, square)
    np.copyto(wide, square)
    _fma(wide, COS[0], COS[1], product, cosine)
    _fma(cosine, wide, COS[2], product, cosine)
    np.multiply(cosine, square, cosine)
    np.multiply(square, f4(-0.5), sine)
    _fma(cosine, wide, sine, product, cosine)
    np.add(cosine, f4(1.0), cosine)
    _fma(wide, SIN[0], SIN[1], product, sine)
    _fma(sine, wide, SIN[2], product, sine)
    np.multiply(sine, square, sine)
    np.copyto(wide, x)
    _fma(sine, wide, wide, product, sine)
    _turn(octant, sine.view(i4), cosine.view(i4), square.view(i4), x.view(i4))


def _turn(octant: Array, sine: Array, cosine: Array, mask: Array, spare: Array) -> None:
    """From the first octant to the right one, on the bits: odd quarter turns swap the two, and signs change."""
    np.left_shift(octant, 30, mask)
    np.right_shift(mask, 31, mask)
    np.bitwise_xor(sine, cosine, spare)
    np.bitwise_and(spare, mask, spare)
    np.bitwise_xor(sine, spare, sine)
    np.bitwise_xor(cosine, spare, cosine)
    np.bitwise_and(octant, 4, mask)
    np.left_shift(mask, 29, mask)
    np.bitwise_xor(sine, mask, sine)
    np.subtract(1, octant, mask)
    np.bitwise_and(mask, 4, mask)
    np.left_shift(mask, 29, mask)
    np.bitwise_xor(cosine, mask, cosine)
