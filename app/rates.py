"""How many requests a second a caller may send: a token bucket each.

Several fronts share one table in shared memory. It is locked for the microseconds of a look, so that the limit is that
of all fronts together, exactly; the system lets go of the lock of a front that dies.

A bucket holds `burst` tokens, a request takes one, and `rate` come back in a second. What is full again is forgotten,
so the table grows with the callers of the last seconds, not with all that ever called.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable

_BUCKETS = 4096  # of a shared table
_NEAR = 16  # places at which a caller's bucket may be
_BUCKET = struct.Struct("<16sdd")  # a digest of who it is, tokens left, and when that was
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


class SharedRates(Rates):
    """The buckets of all callers, in memory that several processes share by its descriptor `fd`. Linux and macOS.

    A caller's bucket is at one of a few places that its name leads to. Where all of them are taken by others who called
    just now, the fullest of these makes room, and its owner may send a burst more.
    """

    def __init__(
        self, rate: float, fd: int, burst: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(rate, burst, clock)
        import fcntl

        self._lock = fcntl.lockf
        self._exclusive, self._free = fcntl.LOCK_EX, fcntl.LOCK_UN
        self.fd = fd
        self._table = mmap.mmap(fd, _BUCKETS * _BUCKET.size)

    def wait(self, caller: str) -> float:
        if not self.rate:
            return 0.0
        who = hashlib.blake2b(caller.encode(), digest_size=16).digest()
        self._lock(self.fd, self._exclusive)
        try:
            return self._wait(who, int.from_bytes(who[:4], "little") % _BUCKETS)
        finally:
            self._lock(self.fd, self._free)

    def _wait(self, who: bytes, first: int) -> float:
        now = self._clock()
        place, left, most = -1, self.burst, -1.0
        for i in range(_NEAR):
            at = (first + i) % _BUCKETS * _BUCKET.size
            whose, tokens, then = _BUCKET.unpack_from(self._table, at)
            tokens = self.burst if not then else min(self.burst, tokens + (now - then) * self.rate)
            if whose == who:
                place, left = at, tokens
                break
            if tokens > most:
                place, most = at, tokens
        enough = left >= 1
        _BUCKET.pack_into(self._table, place, who, left - enough, now)
        return 0.0 if enough else (1 - left) / self.rate


def shared_table() -> int:
    """The descriptor of an empty table, in memory alone."""
    if sys.platform == "linux":
        fd = os.memfd_create("curlgrad-rates")
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, _BUCKETS * _BUCKET.size)
    return fd
