"""Busy polling: to look for a message again and again for a moment, where it is likely to come soon, instead of going
to sleep and being woken.

In a small call two processes wait for each other, and to sleep and be woken takes longer than what they do. Looking
keeps a processor busy, though. So it is done for a few hundred microseconds at most, only where the wait before, slept
through or not, was shorter than that, and anybody who waits for the processor has it first. Who is called now and then
looks in vain once after each burst of calls.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Callable

# Who waits for this processor has it first. Where the system has no such call, the clock decides.
_give_way: Callable[[], None] = getattr(os, "sched_yield", lambda: None)

Events = list[tuple[int, int]]


class BusyPoll:
    """Waits at a `select.poll`. `limit`: seconds to look for at most; 0 for never."""

    __slots__ = ("_begun", "_clock", "_poll", "limit", "soon")

    def __init__(
        self, poll: Callable[[float | None], Events], limit: float = 0.0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._poll, self._clock, self.limit = poll, clock, limit
        self.soon = False  # whether what was waited for last came within the limit
        self._begun: float | None = None

    def wait(self, ms: float | None) -> Events:
        """As poll(ms): what there is, once there is something or the time is over."""
        if self.limit <= 0.0 or ms == 0:
            return self._poll(ms)
        begin = self._clock()
        if self.soon and (found := self._look(begin)):
            return found
        found = self._poll(ms)
        self.soon = bool(found) and self._clock() - begin < self.limit
        return found

    # For who sleeps elsewhere, in an event loop:

    def look(self) -> Events:
        """What comes within the limit, if that is likely; `came` is to tell when it did not come here."""
        if self.limit <= 0.0:
            return []
        self._begun = self._clock()
        return self._look(self._begun) if self.soon else []

    def came(self) -> None:
        """What was looked for is there."""
        if self._begun is not None:
            self.soon, self._begun = self._clock() - self._begun < self.limit, None

    def _look(self, begin: float) -> Events:
        poll, clock, end = self._poll, self._clock, begin + self.limit
        while clock() < end:
            if found := poll(0):
                return found
            _give_way()
        self.soon = False
        return []


def poller(*fds: int) -> Callable[[float | None], Events]:
    """Waits for one of these to be readable."""
    waiting = select.poll()
    for fd in fds:
        waiting.register(fd, select.POLLIN)
    return waiting.poll


def loop_fd(loop: asyncio.AbstractEventLoop) -> int | None:
    """The descriptor that is readable while an event loop's others have something for it: of uvloop's libuv, or of
    asyncio's selector. None where the loop tells of none."""
    told = getattr(loop, "_get_backend_id", None) or getattr(getattr(loop, "_selector", None), "fileno", None)
    return None if told is None else int(told())
