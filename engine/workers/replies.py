"""What a caller was answered, as bytes to keep: msgpack array [body, blobs], which messages.py makes of {"ok": reply}.

Arrays of more than 64 KiB are blobs. They are kept only for calls with an idempotency key, and only up to 1 MiB in all;
elsewhere they are nil, and read from the session again where that still has what was answered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np

from engine.answer import TensorAnswer
from engine.workers.messages import TENSOR, TENSOR_FIELDS, Codec

MOST = 1 << 20  # bytes of a kept answer with values
PLAIN = 64 << 10  # the same where there is no key: it is wanted only if the worker dies before it was sent
SHORT = 4 << 10  # an answer from this size is kept in its short form, too
_FEW = 1000  # `values=auto`

# The bytes of a reply around its one result, and of a message around that.
_BEFORE = b"\x85\xa7results\x81\xa1r"
_BEHIND = b"\xa9collected\x80\xa4kept\x80\xa9steps_run\x01\xa5plans\x90"
_OK = b"\x81\xa2ok"
_MESSAGE = b"\x84\xa2id"
_TIMES = struct.Struct(">9sBd7sBd")
_VALUES = TENSOR_FIELDS.index("values")


def _ext(size: int) -> bytes:
    """What is before the packed fields of a TensorAnswer."""
    if size < 256:
        return bytes((0xC7, size, TENSOR))
    return bytes((0xC8, size >> 8, size & 255, TENSOR)) if size < 65536 else struct.pack(">BIB", 0xC9, size, TENSOR)


def message_of(number: bytes, ok: bytes, queue_ms: float, run_ms: float) -> bytes:
    """The body of a reply to the message of that packed number."""
    times = _TIMES.pack(b"\xa8queue_ms", 0xCB, queue_ms, b"\xa6run_ms", 0xCB, run_ms)
    return b"".join((_MESSAGE, number, b"\xa2ok", ok, times))


class Replies:
    """Packs and unpacks. Not for two threads at once."""

    def __init__(self) -> None:
        self._codec = Codec()
        self._pack: Callable[[Any], bytes] = msgpack.Packer(buf_size=4096).pack  # one, since each has a buffer

    def pack(self, reply: dict[str, Any], *, keyed: bool) -> tuple[bytes, bytes | None]:
        """A reply, and the same without the values of tensors where there is a key and that is shorter."""
        body, blobs = self._codec.pack({"ok": reply})
        if not keyed:
            if len(body) <= PLAIN:
                return self._pack([body, [None] * len(blobs)]), None
            return self._short(reply), None
        size = len(body) + sum(blob.nbytes for blob in blobs)
        if size > MOST:
            return self._short(reply), None
        packed = self._pack([body, [blob.data for blob in blobs]])
        return packed, self._short(reply) if size > SHORT else None

    def single(self, fields: tuple[Any, ...]) -> tuple[bytes, bytes]:
        """The reply of a single operation whose result is a small tensor of these fields: as the "ok" of a message, and
        as `pack` gives it. `engine.single.reply_of` says it as an object."""
        values = fields[_VALUES]
        row = fields if values is None else (*fields[:_VALUES], values.tobytes(), *fields[_VALUES + 1 :])
        packed = self._pack(row)
        ok = b"".join((_BEFORE, _ext(len(packed)), packed, _BEHIND))
        return ok, self._pack([_OK + ok, []])

    def _short(self, reply: dict[str, Any]) -> bytes:
        body, _ = self._codec.pack({"ok": _bare(reply)})
        return self._pack([body, []])

    def unpack(self, packed: bytes) -> dict[str, Any]:
        """The reply; where values were left out they are None."""
        body, blobs = msgpack.unpackb(packed)
        arrays = [None if blob is None else np.frombuffer(blob, np.uint8) for blob in blobs]
        reply: dict[str, Any] = self._codec.unpack(body, arrays)["ok"]
        return reply

    def fill(self, reply: dict[str, Any], session: Any, values: str) -> None:
        """Puts values back that were left out, from tensors that are still as they were when they were answered."""
        for answer in _tensors(reply["results"]):
            if answer.values is None and (values == "all" or (values == "auto" and answer.numel <= _FEW)):
                t = session.find(answer.id) if answer.id is not None else None
                if t is not None and session.etag(t) == answer.etag:
                    answer.values = session.answer(t, "all", grad=False).values
                    if answer.grad is not None and t.grad is not None:
                        answer.grad.values = session.answer(t.grad, values, grad=False).values


def _tensors(value: Any) -> list[TensorAnswer]:
    if type(value) is TensorAnswer:
        return [value]
    if type(value) is dict:
        return [t for inner in value.values() for t in _tensors(inner)]
    return [t for inner in value for t in _tensors(inner)] if type(value) in (list, tuple) else []


def _bare(value: Any) -> Any:
    if type(value) is TensorAnswer:
        return replace(value, values=None, grad=_bare(value.grad))
    if type(value) is dict:
        return {key: _bare(inner) for key, inner in value.items()}
    return [_bare(inner) for inner in value] if type(value) in (list, tuple) else value
