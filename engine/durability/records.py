"""Records in a segment, as bytes; and how they are found again after damage. Format 1.

A segment is a file `<number>.<sync>.log`: the number in 8 digits, counting from 1, and a random word in 16 hex digits.
It is nothing but records, each padded with zeros to a multiple of 8 bytes. Little-endian:

    offset  size
    0       8     the segment's sync word, as 8 bytes: where reading can begin again. No client knows it, so that none
                  can plant a record in what it uploads.
    8       8     u64 bytes of the payload
    16      8     u64 lsn: the record's number in this log, from 1, without gaps
    24      8     u64 synced: all records up to this one were on the disk when this one was written
    32      8     whose it is: BLAKE2b-64 of the session's id (of "" for records of the log itself)
    40      8     whose the record before it is
    48      4     u32 crc of the payload
    52      4     u32 crc of bytes 0 to 51
    56      …     payload

`crc` is CRC-32 as zlib has it (ISO 3309): it is in C in the standard library, reads above 1 GB/s, and finds every burst
of up to 32 bits. CRC-32C has a better distance for long blocks, which matters for bit errors on a wire; against the
faults of disks (lost, torn and misplaced blocks) they are alike, and it would be a dependency.

A payload is a head, a body, and arrays:

    u32 bytes of the head | u32 bytes of the body | head | body | zeros to a multiple of 64 | array | zeros to 64 | …

Head and body are msgpack. In them ext 1 is an integer beyond 64 bits (two's complement, little-endian), ext 2 an array
of bytes: u64 offset from the payload's first array, u64 length. The head says what the record is, and is all that is
read when the server starts:

    {"is": "open",   "session", "n", "at", "open": {…}}       what store.py says; the body of a fork is a commit
    {"is": "commit", "session", "n", "at", "call", "key", "reply", "short",
                     "over"? | "uses"?}                                the body is the commit (engine/commit.py)
    [session, n, at, call, key, reply, short, made, let]               … is a light commit's short form
    {"is": "patch",  "session", "n", "at", "name"?, "lease_s"?, "public"?}
    {"is": "close",  "session", "n", "at", "why": null, or what the owner is told, "key"?, "owner"?, "name"?}
    {"is": "table",  "sessions": {id: n}, "ended": [[owner, id, name, why, at]],      first in each segment
                     "deletions": [[owner, key, digest, at]]}
    {"is": "end",    "sessions": {id: n}}                                     the log was closed properly

`n` counts a session's records from 1, without gaps. `call` is the call's number and `key` [its idempotency key, digest
of its request], or null; `reply` is what the caller was answered, as the worker packed it, and `short` the same without
the values of tensors, where there is a key and that is much shorter. `over` is there where the commit does nothing but
write into memory that was there: where to (`overwritten`). Whoever reads a later record with an equal `over` needs the
body of the earlier one no more. `made`: the uids of the tensors that a light commit makes, whose storages have the
next ones each; `let`: of those that it lets go of. Whoever reads later records in which all that it made is let go of,
and nothing else of it mentioned, needs neither its body nor what it let go of. `uses`: the uids of all that another
commit mentions; where it lacks, they may be any.

After damage the next sync word is looked for. A payload that is damaged still has its header, and a header that is
damaged is named by the one behind it, so that the session is known.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]
import numpy as np

from engine.durability.checksums import crc32
from engine.durability.files import Buffer

FORMAT = 1
HEADER = struct.Struct("<8sQQQ8s8sI")
HEADER_BYTES = HEADER.size + 4
_WHOLE = struct.Struct(HEADER.format + "I")
_LENGTHS = struct.Struct("<II")
_EXTENT = struct.Struct("<QQ")
_INTEGER, _ARRAY = 1, 2
_SMALL = 2048  # arrays of up to this many bytes stand in the msgpack itself
_PAD, _ALIGN = 8, 64
_CRC = struct.Struct("<I")

Head = dict[str, Any]
LIGHT = ("session", "n", "at", "call", "key", "reply", "short", "made", "let")  # the head of a light commit, as a list


def tag_of(session: str) -> bytes:
    """What a header says of whose its record is."""
    return hashlib.blake2b(session.encode(), digest_size=8).digest()


NOBODY = tag_of("")


class Damaged(Exception):
    """Bytes that are not what was written."""


# ---------------------------------------------------------------- to bytes


class _Encoder:
    """msgpack, with arrays aside."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(default=self._extend, unicode_errors="surrogatepass")
        self.arrays: list[Buffer] = []
        self.offset = 0

    def _extend(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            if value.nbytes <= _SMALL:
                return value.tobytes()
            extent = _EXTENT.pack(self.offset, value.nbytes)
            pad = -value.nbytes % _ALIGN
            self.arrays += [value, bytes(pad)]
            self.offset += value.nbytes + pad
            return msgpack.ExtType(_ARRAY, extent)
        if isinstance(value, int):
            size = (value.bit_length() + 8) // 8
            return msgpack.ExtType(_INTEGER, value.to_bytes(size, "little", signed=True))
        raise TypeError(f"a record cannot hold a {type(value).__name__}")

    def payload(self, head: Head | list[Any], body: Any) -> list[Buffer]:
        self.arrays, self.offset = [], 0
        packed_head: bytes = self._packer.pack(head)
        packed_body: bytes = b"" if body is None else self._packer.pack(body)
        start = b"".join((_LENGTHS.pack(len(packed_head), len(packed_body)), packed_head, packed_body))
        if not self.arrays:
            return [start]
        return [start + bytes(-len(start) % _ALIGN), *self.arrays]


_encoder = _Encoder()


def payload_of(head: Head | list[Any], body: Any = None) -> list[Buffer]:
    """A payload, as buffers that follow each other; arrays are not copied. Used by one thread at a time."""
    try:
        return _encoder.payload(head, body)
    finally:
        _encoder.arrays = []


def seal(payload: list[Buffer], sync: bytes, lsn: int, synced: int, tag: bytes, before: bytes) -> list[Buffer]:
    """The record of a payload: header, payload, padding."""
    size = crc = 0
    for part in payload:
        size += len(part)
        crc = crc32(part, crc)
    header = HEADER.pack(sync, size, lsn, synced, tag, before, crc)
    if len(payload) == 1:
        return [b"".join((header, _CRC.pack(zlib.crc32(header)), payload[0], bytes(-size % _PAD)))]
    return [header + _CRC.pack(zlib.crc32(header)), *payload, bytes(-(HEADER_BYTES + size) % _PAD)]


# ---------------------------------------------------------------- from bytes


class Found(NamedTuple):
    """A record in a segment: `start` and `size` are those of its payload. `sound`: its payload is as it was written."""

    lsn: int
    synced: int
    tag: bytes
    before: bytes
    start: int
    size: int
    sound: bool

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.start + self.size + -(HEADER_BYTES + self.size) % _PAD


_found = tuple.__new__  # what the constructor of a named tuple does, without its cost
_whole, _lengths, _crc, _crc32 = _WHOLE.unpack_from, _LENGTHS.unpack_from, _CRC.unpack_from, zlib.crc32


def record_at(data: memoryview, offset: int, sync: bytes) -> Found | None:
    """The record at this place; None where there is none with a sound header."""
    start = offset + HEADER_BYTES
    if len(data) < start:
        return None
    word, size, lsn, synced, tag, before, crc, own = _WHOLE.unpack_from(data, offset)
    if word != sync or zlib.crc32(data[offset : start - 4]) != own:
        return None
    sound = start + size <= len(data) and zlib.crc32(data[start : start + size]) == crc
    return _found(Found, (lsn, synced, tag, before, start, size, sound))


def scan(data: memoryview, sync: bytes) -> Iterator[Found]:
    """The records of a segment, in order; what is between them is damage."""
    offset, end = 0, len(data)
    while offset < end:  # `record_at` once more, without its call
        start = offset + HEADER_BYTES
        if start > end:
            return
        word, size, lsn, synced, tag, before, crc, own = _whole(data, offset)
        if word != sync or _crc32(data[offset : start - 4]) != own:
            offset = _next(data, offset + 1, sync)
            continue
        stop = start + size
        sound = stop <= end and _crc32(data[start:stop]) == crc
        yield _found(Found, (lsn, synced, tag, before, start, size, sound))
        # Behind a damaged payload the next header is looked for from its start: what is there may be out of place.
        offset = stop + -(HEADER_BYTES + size) % _PAD if sound else _next(data, start, sync)


def _next(data: memoryview, start: int, sync: bytes) -> int:
    """Where the sync word comes next, from `start`; the end where it does not. In pieces, since views have no find."""
    step = 1 << 20
    while start < len(data):
        at = bytes(data[start : start + step + len(sync) - 1]).find(sync)
        if at >= 0:
            return start + at
        start += step
    return len(data)


def _extended(arrays: memoryview) -> Any:
    def extension(code: int, packed: bytes) -> Any:
        if code == _INTEGER:
            return int.from_bytes(packed, "little", signed=True)
        if code == _ARRAY:
            offset, size = _EXTENT.unpack(packed)
            if offset + size > len(arrays):
                raise Damaged("an array beyond its record's end")
            return arrays[offset : offset + size]
        raise Damaged(f"unknown extension {code}")

    return extension


_unpackb, _SURROGATES = msgpack.unpackb, "surrogatepass"
_NOT_OURS = ValueError, struct.error  # what msgpack raises for bytes that it did not write


def _unpack(packed: memoryview, hook: Any) -> Any:
    try:
        return _unpackb(packed, ext_hook=hook, strict_map_key=False, unicode_errors=_SURROGATES)
    except _NOT_OURS as error:
        raise Damaged(str(error)) from error


_no_arrays = _extended(memoryview(b""))


def raw_head(data: memoryview, start: int) -> Head | list[Any]:
    """The head of the payload that begins at `start`, whose crc was right, as it was written: a light commit's is a
    list. Raises Damaged for what another version wrote."""
    size, _ = _lengths(data, start)
    found: Head | list[Any] = _unpack(data[start + 8 : start + 8 + size], _no_arrays)
    return found


def head_of(payload: memoryview) -> Head:
    """The head of a payload whose crc was right, with names for all that it says. Raises Damaged for what another
    version wrote."""
    found = raw_head(payload, 0)
    return named(found) if isinstance(found, list) else found


def named(head: list[Any]) -> Head:
    """The head of a light commit, with names for all that it says."""
    return {"is": "commit", **dict(zip(LIGHT, head, strict=True))}


def body_at(data: memoryview, start: int, size: int) -> Any:
    """The body of the payload there, or None where there is none; its arrays are views of `data`."""
    head, body = _lengths(data, start)
    if not body:
        return None
    begin = start + 8 + head
    end = begin + body
    arrays = end + -(end - start) % _ALIGN
    return _unpack(data[begin:end], _no_arrays if arrays >= start + size else _extended(data[arrays : start + size]))


def body_of(payload: memoryview) -> Any:
    """The body of a payload, as `body_at`."""
    return body_at(payload, 0, len(payload))


def bodies(data: memoryview, places: Iterable[tuple[int, int]]) -> Iterator[Any]:
    """The bodies of the payloads at these places (start, size), whose headers were read once. Raises Damaged where one
    is no more what was written."""
    end = len(data)
    for start, size in places:
        stop = start + size
        if stop > end or _crc32(data[start:stop]) != _crc(data, start - 8)[0]:
            raise Damaged("a record is not what was written")
        head, body = _lengths(data, start)
        begin = start + 8 + head
        # Nearly all are a body without arrays: `body_at` without its calls.
        if begin + body == stop and body:
            try:
                yield _unpackb(data[begin:stop], ext_hook=_no_arrays, strict_map_key=False, unicode_errors=_SURROGATES)
            except _NOT_OURS as error:
                raise Damaged(str(error)) from error
        else:
            yield body_at(data, start, size)
