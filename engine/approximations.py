"""Numbers of the approximations in float32 that kernels in NumPy and compiled ones share."""

from __future__ import annotations

from math import sqrt

# The error function. Below ERF_SPLIT it is x + x P(x^2), above it 1 - exp(Q(|x|)), with |x| cut off at ERF_END, where
# it is 1. Both polynomials, lowest power first, are least in relative error (Lawson's algorithm on 3000 and 4000
# points, in float64); evaluated in float32 the result is within 1.5 units in the last place.
ERF_SPLIT = 0.9275
ERF_END = 4.0
ERF_NEAR = (
    0.12837915122509003,
    -0.37612485885620117,
    0.11281724274158478,
    -0.026763243600726128,
    0.004988180939108133,
    -0.0005965157761238515,
)
ERF_FAR = (
    -0.00021877985273022205,
    -1.1275790929794312,
    -0.6373465061187744,
    -0.10378596931695938,
    0.022156061604619026,
    -0.003025287063792348,
    0.0001940949441632256,
)

# How much of the normal distribution lies beyond |x|: t (a1 + a2 t + ... + a5 t^4) exp(-x^2 / 2) / 2 with
# t = 1 / (1 + p |x| / sqrt(2)), to 7.5e-8 (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26). Highest
# power first.
TAIL_P = 0.3275911 / sqrt(2)
TAIL_A = tuple(a / 2 for a in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592))
