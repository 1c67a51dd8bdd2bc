"""What a session did: its latest programs as they were sent, so that they can be told again as a script.

Bounded in bytes: the oldest go first, and a program that is bigger than all that may be kept leaves a gap, after which
the history begins anew. Programs are kept packed, which is small, takes about 2 µs for one of one step, and leaves the
garbage collector nothing to look through. It lives in memory alone: of a session that was restored, it begins at the
restoring.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np

from engine.answer import ArrayData
from engine.op import REGISTRY, spelled

_ARRAY, _COMPLEX = 1, 2
_EACH = 200  # bytes that a kept program takes beside its packed form


@dataclass(slots=True)
class Told:
    """A program, packed before it ran; None where it was too big. `ids` are those it gave, by local name.

    `number` counts a session's programs from 1; `counter`: how many ids were given before.
    """

    packed: bytes | None
    counter: int
    number: int = 0
    ids: Any = None


class History:
    """The programs of one session, at most `limit` bytes of them."""

    def __init__(self, limit: int, **start: Any) -> None:
        self.limit = limit
        self.start = start  # what the session was made with: seed, default dtype, device
        self._forked: str | None = None
        self._counter = 0  # ids that were given before the first program
        self._told: deque[Told] = deque()
        self._held = 0
        self._count = 0
        self._packing = _Packing(limit)

    def fork(self, public: str | None, counter: int, **start: Any) -> None:
        """The session begins as a copy of a public one, with that one's ids."""
        self._forked, self._counter, self.start = public, counter, start

    def keep(self, program: Any, counter: int) -> Told | None:
        """A program, taken before it runs: what it is given in arrays may become a tensor and change."""
        return Told(self._packing.pack(program), counter) if self.limit else None

    def add(self, told: Told | None, ids: Any) -> None:
        """The program was done."""
        self._count += 1
        if told is None:
            return
        if told.packed is None:
            self._told.clear()
            self._held = 0
            return
        told.number, told.ids = self._count, ids
        self._told.append(told)
        self._held += len(told.packed) + _EACH
        while self._held > self.limit:
            self._held -= len(self._told.popleft().packed or b"") + _EACH

    def to_data(self) -> dict[str, Any]:
        """The history as data; `whole`: whether it begins where the session did; `forked`: the public id of the session
        that this one began as a copy of."""
        first = self._told[0] if self._told else None
        begins = self._count + 1 if first is None else first.number
        return {
            **self.start,
            "begins": begins,
            "whole": begins == 1 and (first is None or first.counter == self._counter),
            "forked": self._forked,
            "calls": [
                {"number": t.number, "program": _plainly(unpacked(t.packed or b"")), "ids": t.ids} for t in self._told
            ],
        }


def _plainly(program: Any) -> Any:
    """A program with parameters' names as they are here, whatever else PyTorch takes for them (see op.spelled)."""
    if not isinstance(program, dict):
        return program
    made = dict(program)
    if isinstance(made.get("steps"), list):
        made["steps"] = [_plainly(step) for step in made["steps"]]
    op = REGISTRY.get(made.get("op", ""))
    if op is not None and isinstance(made.get("args"), dict):
        made["args"] = {
            name: _plainly(v) if isinstance(v, dict) else v for name, v in spelled(op, made["args"]).items()
        }
    return made


class _TooBig(Exception):
    """Arrays that are more than all that may be kept."""


class _Packing:
    """Packs programs of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._packer = self._new()

    def _new(self) -> Any:
        # A packer's buffer grows with what it packs and never shrinks: a small one, and not kept after a big program.
        # It must not hold this object, which holds it: the two would wait for the garbage collector.
        other = partial(_other, self._limit)
        return msgpack.Packer(default=other, unicode_errors="surrogatepass", buf_size=4096)

    def pack(self, program: Any) -> bytes | None:
        try:
            packed: bytes = self._packer.pack(program)
        except (_TooBig, TypeError, ValueError, OverflowError):  # numbers of more than 64 bits, hundreds of levels
            packed = b""
        if not packed or len(packed) > self._limit:
            self._packer = self._new()
            return None
        return packed


def _other(limit: int, value: Any) -> Any:
    if type(value) is complex:
        return msgpack.ExtType(_COMPLEX, np.complex128(value).tobytes())
    if type(value) is not ArrayData:
        raise TypeError(f"a program holds a {type(value).__name__}")
    array = value.array
    if array.nbytes > limit:
        raise _TooBig
    fields = (list(array.shape), array.dtype.str, array.tobytes(), value.dtype, value.inferred)
    return msgpack.ExtType(_ARRAY, msgpack.packb(fields))


def unpacked(packed: bytes) -> Any:
    """The program that was packed."""
    return msgpack.unpackb(packed, ext_hook=_ext, unicode_errors="surrogatepass", strict_map_key=False)


def _ext(code: int, data: bytes) -> Any:
    if code == _COMPLEX:
        return complex(np.frombuffer(data, np.complex128)[0])
    shape, form, values, dtype, inferred = msgpack.unpackb(data)
    return ArrayData(np.frombuffer(values, np.dtype(form)).reshape(shape), dtype, inferred)
