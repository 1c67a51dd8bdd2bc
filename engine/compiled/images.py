"""Columns added back to the images that their windows lie on: what is left of a convolution's gradient after its
matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.compiled.jit import FLOATS, helper, kernel

Array = Any

U = np.uint64  # of an unsigned index Numba does not ask whether it counts from the end


@helper
def _within(offset: int, step: int, size: int, count: int) -> Any:
    """The range of q in [0, count) for which q * step + offset lies in [0, size)."""
    low = 0 if offset >= 0 else (-offset + step - 1) // step
    high = 0 if offset >= size else (size - 1 - offset) // step + 1
    low = low if low < count else count
    high = high if high < count else count
    return low, high if high > low else low


@kernel(FLOATS, exact=True)
def add_columns(shares: Array, steps: Array, out: Array) -> None:
    """out[n, c, z sd + a dd - pd, y sh + i dh - ph, x sw + j dw - pw] += shares[n, c, a, i, j, z, y, x].

    What lies beyond the borders is left out. `steps` are the strides of the three dimensions, the dilations, and the
    paddings.
    """
    _, _, depth, height, width = out.shape
    samples, channels, kd, kh, kw, sheets, rows, count = shares.shape
    for n in range(samples):
        for c in range(channels):
            image = out[n, c]
            for a in range(kd):
                for i in range(kh):
                    for j in range(kw):
                        part = shares[n, c, a, i, j]
                        offset, step = j * steps[5] - steps[8], steps[2]
                        low, high = _within(offset, step, width, count)
                        for z in range(sheets):
                            at = z * steps[0] + a * steps[3] - steps[6]
                            if at < 0 or at >= depth:
                                continue
                            plane, sheet = image[U(at)], part[U(z)]
                            for y in range(rows):
                                to = y * steps[1] + i * steps[4] - steps[7]
                                if to < 0 or to >= height:
                                    continue
                                if step == 1:
                                    for x in range(low, high):
                                        plane[U(to), U(x + offset)] += sheet[U(y), U(x)]
                                else:
                                    for x in range(low, high):
                                        plane[U(to), U(x * step + offset)] += sheet[U(y), U(x)]
