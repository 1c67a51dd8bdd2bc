"""Images read at indexed places, with weights: the three sums behind grid_sample.

Images are (N, C, pixels), weights and indices (N, taps, places); an index of `pixels` stands for all that lies outside.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.compiled.jit import FLOATS, kernel

Array = Any

U = np.uint64  # of an unsigned index Numba does not ask whether it counts from the end


@kernel(FLOATS)
def grid_mix(image: Array, weights: Array, index: Array, out: Array) -> None:
    """out[n, c, p] = sum over k of weights[n, k, p] * image[n, c, index[n, k, p]]."""
    samples, channels, pixels = image.shape
    taps, places = index.shape[1], index.shape[2]
    line = np.zeros(pixels + 1, image.dtype)
    for i in range(samples):
        for c in range(channels):
            line[:pixels] = image[i, c]
            made = out[i, c]
            for k in range(taps):
                at, weight = index[i, k], weights[i, k]
                if k == 0:
                    for p in range(places):
                        made[p] = weight[p] * line[U(at[p])]
                else:
                    for p in range(places):
                        made[p] += weight[p] * line[U(at[p])]


@kernel(FLOATS)
def grid_spread(grad: Array, weights: Array, index: Array, out: Array) -> None:
    """out[n, c, index[n, k, p]] += weights[n, k, p] * grad[n, c, p]."""
    samples, channels, pixels = out.shape
    taps, places = index.shape[1], index.shape[2]
    line = np.empty(pixels + 1, out.dtype)
    for i in range(samples):
        for c in range(channels):
            line[:] = 0
            row = grad[i, c]
            for k in range(taps):
                at, weight = index[i, k], weights[i, k]
                for p in range(places):
                    line[U(at[p])] += weight[p] * row[p]
            out[i, c] = line[:pixels]


@kernel(FLOATS)
def grid_dots(image: Array, grad: Array, index: Array, out: Array) -> None:
    """out[n, k, p] = sum over c of image[n, c, index[n, k, p]] * grad[n, c, p]."""
    samples, channels, pixels = image.shape
    taps, places = index.shape[1], index.shape[2]
    line = np.zeros(pixels + 1, image.dtype)
    for i in range(samples):
        for c in range(channels):
            line[:pixels] = image[i, c]
            row = grad[i, c]
            for k in range(taps):
                at, made = index[i, k], out[i, k]
                if c == 0:
                    for p in range(places):
                        made[p] = line[U(at[p])] * row[p]
                else:
                    for p in range(places):
                        made[p] += line[U(at[p])] * row[p]
