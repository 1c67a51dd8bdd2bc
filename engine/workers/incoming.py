"""Memory that is filled from its start while bytes come in: what a front receives a big body into."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Incoming(Protocol):
    """`length` bytes to be: written in order, then read as a whole."""

    length: int
    filled: int

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes. Raises ValueError where they are more than was announced; MemoryError."""

    def finish(self) -> memoryview:
        """All of it, read-only. Raises ValueError where bytes are missing; MemoryError."""


class Private:
    """Memory of this process, for workers in threads of it. Raises MemoryError."""

    def __init__(self, length: int) -> None:
        self.length, self.filled = length, 0
        self._memory = np.empty(length, np.uint8)

    def write(self, data: bytes | memoryview) -> None:
        end = self.filled + len(data)
        if end > self.length:
            raise ValueError("more bytes than were announced")
        self._memory.data[self.filled : end] = data
        self.filled = end

    def finish(self) -> memoryview:
        if self.filled < self.length:
            raise ValueError("fewer bytes than were announced")
        self._memory.flags.writeable = False
        return self._memory.data
