"""What a session did: its latest programs as they were sent, so that they can be told again as a script.

Bounded in bytes: the oldest go first, and a program that is bigger than all that may be kept leaves a gap, after which
the history begins anew. It lives in memory alone: of a session that was restored, it begins at the restoring.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from engine.answer import ArrayData


@dataclass(frozen=True, slots=True)
class Kept:
    """A program before it runs: its copy, about how many bytes that takes, and how many ids were given before it."""

    program: Any
    weight: int
    counter: int


@dataclass(frozen=True, slots=True)
class Told:
    """A program that was done. `number` counts a session's programs from 1; `ids` are those it gave, by local name."""

    number: int
    program: Any
    weight: int
    counter: int
    ids: Any


class History:
    """The programs of one session, at most `limit` bytes of them."""

    def __init__(self, limit: int, **start: Any) -> None:
        self.limit = limit
        self.start = start  # what the session was made with: seed, default dtype, device
        self._told: deque[Told] = deque()
        self._held = 0
        self._count = 0

    def keep(self, program: Any, counter: int) -> Kept | None:
        """A program, taken before it runs: what it is given in arrays may become a tensor and change."""
        if not self.limit:
            return None
        weight, arrays = weigh(program)
        if weight > self.limit:
            return Kept(None, weight, counter)
        return Kept(copied(program) if arrays else program, weight, counter)

    def add(self, kept: Kept | None, ids: Any) -> None:
        """The program was done."""
        self._count += 1
        if kept is None:
            return
        if kept.program is None:
            self._told.clear()
            self._held = 0
            return
        self._told.append(Told(self._count, kept.program, kept.weight, kept.counter, ids))
        self._held += kept.weight
        while self._held > self.limit:
            self._held -= self._told.popleft().weight

    def to_data(self) -> dict[str, Any]:
        """The history as data; `whole`: whether it begins where the session did."""
        first = self._told[0] if self._told else None
        begins = self._count + 1 if first is None else first.number
        return {
            **self.start,
            "begins": begins,
            "whole": begins == 1 and (first is None or first.counter == 0),
            "calls": [{"number": t.number, "program": t.program, "ids": t.ids} for t in self._told],
        }


def weigh(value: Any) -> tuple[int, bool]:
    """About how many bytes a value takes in memory, and whether there are arrays in it."""
    kind = type(value)
    if kind is dict:
        size, arrays = 64, False
        for key, item in value.items():
            more, found = weigh(item)
            size += 64 + len(key) + more
            arrays = arrays or found
        return size, arrays
    if kind is list or kind is tuple:
        size, arrays = 56, False
        for item in value:
            more, found = weigh(item)
            size += 8 + more
            arrays = arrays or found
        return size, arrays
    if kind is ArrayData:
        return 256 + int(value.array.nbytes), True
    if kind is str:
        return 49 + len(value), False
    return 32, False


def copied(value: Any) -> Any:
    """The value with its arrays copied."""
    kind = type(value)
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [copied(item) for item in value]
    return ArrayData(value.array.copy(), value.dtype, value.inferred) if kind is ArrayData else value
