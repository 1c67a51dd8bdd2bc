"""Who runs next on a worker: fair turns by owner, whatever the number of their sessions or the length of their steps.

Every owner has a clock of the seconds it used. A turn goes to the owner who used least, and within an owner to its
sessions in rotation. An owner that comes back after a pause starts where the least of the active ones stands, so idle
time cannot be saved up, and what it overdrew is not forgotten while others wait (start-time fair queueing).

Lines whose head is a query come before lines whose head is a program, so that a read does not wait for the steps of
others; but an owner's queries have this precedence only while it is not more than `CREDIT` ahead of the owner whose
program would run: a flood of reads cannot stop everyone else's training.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sized
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Generic, Protocol, TypeVar

CREDIT = 0.02
"""Seconds."""

_QUERY, _PROGRAM = 0, 1
_KEPT_OWNERS = 1024


class Line(Protocol):
    """What waits for one session: calls in the order of arrival."""

    @property
    def owner(self) -> str: ...

    @property
    def calls(self) -> Sized: ...

    @property
    def quick(self) -> bool:
        """Whether the first call is a query."""


LineT = TypeVar("LineT", bound=Line)


class _Owner(Generic[LineT]):
    __slots__ = ("filed", "lines", "used")

    def __init__(self, used: float) -> None:
        self.used = used
        self.lines: tuple[deque[LineT], deque[LineT]] = (deque(), deque())
        self.filed = [False, False]  # whether it stands in the heap of this kind


class Turns(Generic[LineT]):
    """The lines that have something to do. A line is entered, then picked and put back until it is empty."""

    def __init__(self) -> None:
        self._owners: dict[str, _Owner[LineT]] = {}
        self._heaps: tuple[list[tuple[float, int, _Owner[LineT]]], list[tuple[float, int, _Owner[LineT]]]] = ([], [])
        self._entered: set[LineT] = set()
        self._ticks = count()
        self._floor = 0.0  # what the least of the active owners has used
        self._latest = 0.0  # what the most has

    def enter(self, line: LineT) -> None:
        """`line` has something to do. May be said again while it waits."""
        if line in self._entered:
            return
        self._entered.add(line)
        owner = self._owners.get(line.owner)
        if owner is None:
            if len(self._owners) >= _KEPT_OWNERS:
                self._forget()
            owner = self._owners[line.owner] = _Owner(self._floor)
        elif not owner.lines[0] and not owner.lines[1]:
            owner.used = max(owner.used, self._floor)
        self._file(owner, line)

    def pick(self) -> LineT | None:
        """The line whose turn it is, taken out; None where no line has anything to do."""
        while True:
            query, program = self._least(_QUERY), self._least(_PROGRAM)
            if query is not None and (program is None or query.used <= program.used + CREDIT):
                owner, kind = query, _QUERY
            elif program is not None:
                owner, kind = program, _PROGRAM
            else:
                # Nobody waits, so nobody is owed anything.
                self._floor = self._latest
                return None
            line = owner.lines[kind].popleft()
            if not line.calls:  # they were cancelled
                self._entered.discard(line)
                continue
            if kind == _QUERY and not line.quick:
                self._file(owner, line)
                continue
            least = min(other.used for other in (query, program) if other is not None)
            self._floor = max(self._floor, least)
            return line

    def put_back(self, line: LineT, seconds: float) -> None:
        """Ends the turn of a picked line, which took `seconds`."""
        owner = self._owners.get(line.owner)
        if owner is None:  # forgotten, as a turn may last long while others have theirs
            owner = self._owners[line.owner] = _Owner(self._floor)
        owner.used += seconds
        self._latest = max(self._latest, owner.used)
        if line.calls:
            self._file(owner, line)
        else:
            self._entered.discard(line)

    @property
    def waiting(self) -> bool:
        """Whether any line waits for a turn, or has one."""
        return bool(self._entered)

    def charge(self, name: str, seconds: float) -> None:
        """An owner was served for so long without a turn, as nobody waited for one."""
        owner = self._owners.get(name)
        if owner is None:
            if len(self._owners) >= _KEPT_OWNERS:
                self._forget()
            owner = self._owners[name] = _Owner(self._floor)
        self._floor = owner.used = max(owner.used, self._floor)
        owner.used += seconds
        self._latest = max(self._latest, owner.used)

    def _file(self, owner: _Owner[LineT], line: LineT) -> None:
        kind = _QUERY if line.quick else _PROGRAM
        owner.lines[kind].append(line)
        if not owner.filed[kind]:
            owner.filed[kind] = True
            heappush(self._heaps[kind], (owner.used, next(self._ticks), owner))

    def _least(self, kind: int) -> _Owner[LineT] | None:
        # Entries are put right only when they come up: an owner's clock never goes back, so none comes up too late.
        heap = self._heaps[kind]
        while heap:
            used, _, owner = heap[0]
            if not owner.lines[kind]:
                heappop(heap)
                owner.filed[kind] = False
            elif used < owner.used:
                heapreplace(heap, (owner.used, next(self._ticks), owner))
            else:
                return owner
        return None

    def _forget(self) -> None:
        """Drops owners who neither wait nor overdrew; they would come back as new ones do."""
        idle = [
            name
            for name, owner in self._owners.items()
            if not any(owner.filed) and not any(owner.lines) and owner.used <= self._floor
        ]
        for name in idle:
            del self._owners[name]
