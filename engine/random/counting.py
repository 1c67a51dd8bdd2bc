"""Poisson and binomial numbers, one at a time, by the algorithms that torch uses.

Each takes a function that returns the next u53. Where C would go on with an infinity, this asks first: the case is
one draw in 2^53.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

Draw = Callable[[], float]

# log k! less Stirling's formula, for k to 9
STIRLING_TAILS = (
    0.0810614667953272,
    0.0413406959554092,
    0.0276779256849983,
    0.02079067210376509,
    0.0166446911898211,
    0.0138761288230707,
    0.0118967099458917,
    0.0104112652619720,
    0.00925546218271273,
    0.00833056343336287,
)


def poisson(rate: float, draw: Draw) -> int:
    """A Poisson number, 0 <= rate < 2^63: from 10 on by Hormann's PTRS (1993), below by multiplying uniforms."""
    if rate == 0.0:
        return 0
    if rate < 10.0:
        count, product, limit = 0, draw(), math.exp(-rate)
        while product > limit:
            product *= draw()
            count += 1
        return count
    a, b, tight, log_inverse_alpha, log_rate = _ptrs(rate)
    while True:
        u, v = draw() - 0.5, draw()
        us = 0.5 - abs(u)
        if us == 0.0:
            continue
        k = math.floor((2.0 * a / us + b) * u + rate + 0.43)
        if us >= 0.07 and v <= tight:
            return k
        if k < 0 or (us < 0.013 and v > us):
            continue
        density = -rate + k * log_rate - math.lgamma(k + 1.0)
        if v == 0.0 or math.log(v) + log_inverse_alpha - math.log(a / (us * us) + b) <= density:
            return k


@lru_cache(1024)
def _ptrs(rate: float) -> tuple[float, ...]:
    b = 0.931 + 2.53 * math.sqrt(rate)
    a = -0.059 + 0.02483 * b
    return a, b, 0.9277 - 3.6224 / (b - 2.0), math.log(1.1239 + 1.1328 / (b - 3.4)), math.log(rate)


def binomial(count: float, prob: float, draw: Draw, single: bool) -> float:
    """A binomial number, count and prob finite. `single`: the arguments' products are rounded to float32, as torch's.

    A count below 0 is taken as 0, and a prob outside [0, 1] as the nearer end.
    """
    if count <= 0.0 or prob <= 0.0:
        return 0.0
    if prob >= 1.0:
        return count
    if prob > 0.5:
        return count - _binomial(count, _rounded(1.0 - prob, single), draw, single)
    return _binomial(count, prob, draw, single)


def _binomial(count: float, prob: float, draw: Draw, single: bool) -> int:
    """For prob <= 1/2: by Hormann's BTRS (1993) from a mean of 10 on, below it by adding up geometric waits."""
    mean, a, b, tight, alpha, odds, mode = _btrs(count, prob, single)
    if mean < 10.0:
        return _by_waits(count, prob, draw)
    while True:
        u, v = draw() - 0.5, draw()
        us = 0.5 - abs(u)
        if us == 0.0:
            continue
        k = math.floor((2.0 * a / us + b) * u + (mean + 0.5))
        if not 0 <= k <= count:
            continue
        if v == 0.0 or (us >= 0.07 and v <= tight):
            return k
        bound = (
            (mode + 0.5) * math.log((mode + 1.0) / (odds * (count - mode + 1.0)))
            + (count + 1.0) * math.log((count - mode + 1.0) / (count - k + 1.0))
            + (k + 0.5) * math.log(odds * (count - k + 1.0) / (k + 1.0))
            + _stirling_tail(mode)
            + _stirling_tail(count - mode)
            - _stirling_tail(k)
            - _stirling_tail(count - k)
        )
        if math.log(v * alpha / (a / (us * us) + b)) <= bound:
            return k


@lru_cache(1024)
def _btrs(count: float, prob: float, single: bool) -> tuple[float, ...]:
    mean, miss = _rounded(count * prob, single), _rounded(1.0 - prob, single)
    deviation = math.sqrt(_rounded(mean * miss, single))
    b = 1.15 + 2.53 * deviation
    a = -0.0873 + 0.0248 * b + 0.01 * prob
    alpha = (2.83 + 5.1 / b) * deviation
    mode = math.floor(_rounded((count + 1.0) * prob, single))
    return mean, a, b, 0.92 - 4.2 / b, alpha, _rounded(prob / miss, single), mode


def _rounded(x: float, single: bool) -> float:
    return float(np.float32(x)) if single else x


def _by_waits(count: float, prob: float, draw: Draw) -> int:
    trials, successes, log_miss = 0, 0, math.log1p(-prob)
    while True:
        u = draw()
        wait = math.log(u) / log_miss if u else math.inf
        if wait > count:
            return successes
        trials += math.ceil(wait)
        if trials > count:
            return successes
        successes += 1


def _stirling_tail(k: float) -> float:
    if k <= 9.0:
        return STIRLING_TAILS[int(k)]
    square = (k + 1.0) * (k + 1.0)
    return (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / 1260.0 / square) / square) / (k + 1.0)
