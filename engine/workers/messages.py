"""What a front and a worker say to each other, as bytes. Never pickle.

A message is a dict with string keys. The front says, with `id` a number of its own choosing that the reply repeats:

    {"do": "start",  "id", "protocol", "version", "name", "devices", "practice", "epoch", "limits", "data"}  once, first
    {"do": "open",   "id", "session", "owner", "name", "device", "seed", "default_dtype", "number", "lease_s", "key"}
    {"do": "run",    "id", "sent", "call", "session", "program", "values", "dry_run", "explain", "key", "digest"}
    {"do": "query",  "id", "sent", "call", "session", "q", "values"}
    {"do": "rename", "id", "sent", "call", "session", "name"}
    {"do": "lease",  "id", "sent", "call", "session", "lease_s"}
    {"do": "close",  "id", "sent", "call", "session"}
    {"do": "cancel", "id", "target"}            target: the id of a run or query
    {"do": "info",   "id", "sessions": [id]}    of the worker, and of these sessions; never waits. With `numbers: True`
                                                also what it counts
    {"do": "outcome", "id", "session", "call", "values"}    what became of a call that the worker before took: {"known",
                                                            "ok"}
    {"do": "job",    "id", "sent", "session", "job", "program", "values", "explain", "about", "key", "digest", "waiter"}
    {"do": "look",   "id", "owner", "job", "seen", "result"}    a job as it stands; nil where it is not here
    {"do": "jobs",   "id", "owner"}             all of the owner's; never waits, nor does "look" or "drop"
    {"do": "drop",   "id", "owner", "job"}      cancels a job; nil where it is not here

and the worker answers each once, in whatever order they end:

    {"id", "ok": anything, "queue_ms", "run_ms"}        or
    {"id", "error": EngineError.to_data(), "queue_ms", "run_ms"}

`data` is {"folder", "adopt": [folder], "sync"}, or nil where nothing is kept on disk; the answer to "start" has what is
there: "sessions", "ended" and "ran", the call that ran when the last worker of the folder ended. `call` names a call
beyond the life of a worker; `key` is an idempotency key (of a run with `digest`, of an open [key, digest]), or nil.
`waiter` is a second number of the front's: the reply to it is that of the job's program, when that ends.
`sent` is time.monotonic() of the front, which shares its clock with every worker on the machine. `lost: True` is set
by the receiving end where the arrays of a message could not be received (no descriptor was free).

The bytes, protocol 1
---------------------
A message is one msgpack value, the *body*, and a list of *blobs*: the bytes of the arrays of more than 64 KiB. How
blobs travel is the transport's business (frames.py: as descriptors; inline.py: by reference). In the body:

    str       UTF-8, with lone surrogates as "surrogatepass" writes them (JSON may hold them)
    ext 1     an integer beyond 64 bits: two's complement, little-endian, as few bytes as hold it with its sign
    ext 2     complex: real and imaginary part, two little-endian float64
    ext 3     ArrayData:    msgpack array [shape, data, dtype, inferred]
    ext 4     TensorAnswer: msgpack array of its fields in the order of TENSOR_FIELDS, `values` being data

    data      nil (TensorAnswer without values) | bin: the elements, C order, native byte order (front and worker
              share a machine) | uint: the number of the blob that holds them
    dtype     a name of engine.dtypes; bfloat16 travels as uint16 bits

Who holds an array: a message's arrays are given away with it. Those that arrive writable are the receiver's to keep
and to write to; those that arrive read-only must be copied before a write.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from operator import attrgetter
from types import UnionType
from typing import Any, Protocol

import msgpack  # type: ignore[import-untyped]
import numpy as np

from engine import __version__
from engine.answer import ArrayData, TensorAnswer
from engine.dtypes import DTYPES

PROTOCOL = 1
INLINE_BYTES = 64 << 10

Message = dict[str, Any]
Blob = np.ndarray[Any, np.dtype[np.uint8]]  # one dimension

TENSOR_FIELDS = (
    "id", "name", "shape", "dtype", "device", "numel", "nbytes", "requires_grad", "is_leaf", "grad_fn", "version",
    "etag", "values", "grad", "strides",
)  # fmt: skip

_INTEGER, _COMPLEX, _ARRAY, TENSOR = 1, 2, 3, 4
_PAIR = struct.Struct("<dd")
_tensor_fields = attrgetter(*TENSOR_FIELDS)
_VALUES, _SHAPE, _STRIDES = (TENSOR_FIELDS.index(name) for name in ("values", "shape", "strides"))
_DTYPE = TENSOR_FIELDS.index("dtype")


class BadMessage(Exception):
    """Bytes that no peer of this protocol writes. The connection they came from is not to be trusted further.

    `before`: the messages that had come in whole in front of them.
    """

    before: Sequence[Message] = ()


class CannotPack(ValueError):
    """A value that has no place in a message, or nests deeper than msgpack goes (511)."""


class Closed(Exception):
    """The other end is gone."""


class NotSent(Exception):
    """The other end has seen nothing of this message."""


class Peer(Protocol):
    """Someone who sends messages and gets replies: a front."""

    def reply(self, message: Message) -> None:
        """Raises CannotPack, MemoryError. A peer that is gone is no error."""


class Inbox(Protocol):
    """Where a worker's messages come from."""

    def poll(self, timeout: float | None) -> Sequence[tuple[Peer, Message | None]]:
        """What came in within `timeout` seconds (None: for ever), None for a peer that is gone.

        Raises Closed when no peer is left.
        """

    def drop(self, peer: Peer) -> None:
        """Hangs up on a peer that does not keep to the protocol."""


@dataclass(slots=True, frozen=True)
class Timing:
    """Where a call's time went in its worker, in milliseconds: waiting (for a turn, too), and running."""

    queue_ms: float
    run_ms: float


def version() -> str:
    """The version of this code."""
    return __version__


class Codec:
    """Messages to bodies and blobs, and back. Not for two threads at once; cheap to make."""

    __slots__ = ("_blobs", "_depth", "_packers", "lost")

    def __init__(self) -> None:
        # One packer for each level of ext in ext: a packer cannot be entered twice, and a new one for each value
        # would cost an allocation of its whole buffer.
        self._packers: list[msgpack.Packer] = []
        self._depth = 0
        self._blobs: list[Blob | None] = []
        self.lost = False

    # ------------------------------------------------ to bytes

    def pack(self, message: Message) -> tuple[bytes, list[Blob]]:
        """The body, and the arrays that it refers to, which are not copied here. Raises CannotPack."""
        blobs: list[Blob | None] = []
        self._blobs, self._depth = blobs, 0
        try:
            return self._pack(message), blobs  # type: ignore[return-value]
        except (TypeError, ValueError, OverflowError) as error:
            raise CannotPack(str(error)) from error
        finally:
            self._blobs = []

    def _pack(self, value: Any) -> bytes:
        depth = self._depth
        if depth == len(self._packers):
            size = 64 << 10 if depth == 0 else 4 << 10
            self._packers.append(
                msgpack.Packer(default=self._extend, unicode_errors="surrogatepass", buf_size=size, use_bin_type=True)
            )
        self._depth = depth + 1
        try:
            packed: bytes = self._packers[depth].pack(value)
            return packed
        finally:
            self._depth = depth

    def _extend(self, value: Any) -> Any:
        kind = type(value)
        if kind is TensorAnswer:
            fields = list(_tensor_fields(value))
            if value.values is not None:
                fields[_VALUES] = self._data(value.values)
            return msgpack.ExtType(TENSOR, self._pack(fields))
        if kind is ArrayData:
            fields = [value.array.shape, self._data(value.array), value.dtype, value.inferred]
            return msgpack.ExtType(_ARRAY, self._pack(fields))
        if isinstance(value, complex):
            return msgpack.ExtType(_COMPLEX, _PAIR.pack(value.real, value.imag))
        if isinstance(value, np.generic):
            item = value.item()
            return self._extend(item) if isinstance(item, complex) else item
        if isinstance(value, int):
            size = (value.bit_length() + 8) // 8
            return msgpack.ExtType(_INTEGER, value.to_bytes(size, "little", signed=True))
        raise TypeError(f"a message cannot hold a {kind.__name__}")

    def _data(self, array: np.ndarray[Any, Any]) -> bytes | int:
        if array.nbytes <= INLINE_BYTES:
            return array.tobytes()
        self._blobs.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        return len(self._blobs) - 1

    # ------------------------------------------------ from bytes

    def unpack(self, body: bytes | bytearray | memoryview, blobs: Sequence[Blob | None] = ()) -> Message:
        """The message. A blob that is None was lost on the way: its array is None and `lost` is set.

        Arrays are views of their blobs, writable where the blob is; those inside the body are read-only.
        Raises BadMessage.
        """
        self._blobs, self.lost = list(blobs), False
        try:
            message = self._unpack(body)
        except Exception as error:  # msgpack raises four unrelated kinds, and the fields may be of any type
            raise BadMessage(f"{type(error).__name__}: {error}") from error
        finally:
            self._blobs = []
        if type(message) is not dict:
            raise BadMessage(f"a message is a dict, not a {type(message).__name__}")
        if self.lost:
            message["lost"] = True
        return message

    def _unpack(self, data: bytes | bytearray | memoryview) -> Any:
        return msgpack.unpackb(data, ext_hook=self._extension, unicode_errors="surrogatepass")

    def _extension(self, code: int, data: bytes) -> Any:
        if code == TENSOR:
            fields = self._unpack(data)
            if fields[_VALUES] is not None:
                fields[_VALUES] = self._array(fields[_SHAPE], fields[_VALUES], fields[_DTYPE])
            fields[_SHAPE] = tuple(fields[_SHAPE])
            if fields[_STRIDES] is not None:
                fields[_STRIDES] = tuple(fields[_STRIDES])
            return TensorAnswer(*fields)
        if code == _ARRAY:
            shape, values, dtype, inferred = self._unpack(data)
            return ArrayData(self._array(shape, values, dtype), dtype, inferred)  # type: ignore[arg-type]
        if code == _COMPLEX:
            return complex(*_PAIR.unpack(data))
        if code == _INTEGER:
            return int.from_bytes(data, "little", signed=True)
        raise ValueError(f"unknown extension {code}")

    def _array(self, shape: list[int], data: bytes | int, dtype: str) -> np.ndarray[Any, Any] | None:
        storage = DTYPES[dtype].np
        for n in shape:
            if type(n) is not int or n < 0:
                raise ValueError(f"bad shape {shape!r}")
        expected = prod(shape) * storage.itemsize
        if isinstance(data, bytes):
            if len(data) != expected:
                raise ValueError(f"{len(data)} bytes for shape {shape} of {dtype}")
            return np.ndarray(tuple(shape), storage, data)
        if type(data) is not int or not 0 <= data < len(self._blobs):
            raise ValueError("array data that are neither bytes nor a blob of this message")
        blob = self._blobs[data]
        if blob is None:
            self.lost = True
            return None
        if blob.nbytes != expected:
            raise ValueError(f"{blob.nbytes} bytes for shape {shape} of {dtype}")
        return blob.view(storage).reshape(shape)


_ABSENT = object()


def checked(message: Message, fields: Mapping[str, Mapping[str, type | UnionType]]) -> tuple[int, str]:
    """The id and the word of a message whose fields are as they should be. Raises BadMessage."""
    number, word = message.get("id"), message.get("do")
    wanted = fields.get(word) if type(word) is str else None
    if type(number) is not int or type(word) is not str or wanted is None:
        raise BadMessage(f"no such message: do={word!r}, id={number!r}")
    for name, kind in wanted.items():
        if not isinstance(message.get(name, _ABSENT), kind):
            raise BadMessage(f"{word!r} with {name}={message.get(name)!r:.80}")
    return number, word
