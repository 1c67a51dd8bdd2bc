"""How many requests a second a caller may send: a token bucket each.

A bucket holds `burst` tokens, a request takes one, and `rate` come back in a second. What is full again is forgotten,
so the table grows with the callers of the last seconds, not with all that ever called.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_SWEEP = 1024  # callers known at which the full buckets are looked for


class Rates:
    """The buckets of all callers. `rate` in requests per second; 0 lets everything through."""

    def __init__(self, rate: float, burst: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.burst = max(1.0, 2 * rate if burst is None else burst)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and when that was

    def wait(self, caller: str) -> float:
        """0.0 where the request may go on, which takes a token; else the seconds until one may."""
        if not self.rate:
            return 0.0
        now = self._clock()
        left, then = self._buckets.get(caller, (self.burst, now))
        left = min(self.burst, left + (now - then) * self.rate)
        if left < 1:
            self._buckets[caller] = left, now
            return (1 - left) / self.rate
        self._buckets[caller] = left - 1, now
        if len(self._buckets) > _SWEEP:
            self._sweep(now)
        return 0.0

    def _sweep(self, now: float) -> None:
        full = [who for who, (left, then) in self._buckets.items() if left + (now - then) * self.rate >= self.burst]
        for who in full:
            del self._buckets[who]
