"""Messages on a Unix stream socket, their big arrays as file descriptors. Linux and macOS.

A frame, little-endian:

    offset  size
    0       2     "cg"
    2       1     protocol (messages.PROTOCOL)
    3       1     flags: 1 = the blobs' bytes follow the body, there are no descriptors; 2 = memory comes back
    4       4     u32 bytes of the body
    8       4     u32 blobs
    12      4     u32 descriptors, 64 at most (one sendmsg carries 253)
    16      8     u64 bytes after the body: the blobs' bytes one after the other where flag 1 is set, else 0
    24      24*n  for each blob: u32 descriptor, u32 number, u64 offset, u64 length
                  (offset: within the descriptor's file, or with flag 1 within the bytes after the body;
                  number: 0, or the file's: it is to come back)
    …             body: one msgpack value (messages.py); with flag 2, a u32 for each file that comes back, by number
    …             with flag 1, the blobs' bytes

The descriptors travel as SCM_RIGHTS with the first byte of their frame, in one sendmsg, and no two frames share one.
Each is a memfd sealed against resizing (macOS: a temporary file without a name), so the receiver can map it without
the fear that the sender cuts it short under it. The memory of either goes with its last holder: nothing is left
behind by a killed process, and no size limit of /dev/shm applies.

A blob has a descriptor of its own, so that its memory can be freed alone; where there are more than 64, neighbours
share one, and a receiver that keeps its arrays (`keeps=True`, the worker) copies them out. Where no descriptor can be
made (the process has too many open), bytes follow the body; where none could be received, the message says `lost`.

What a worker answers is read once and let go. So it keeps the file of a big array, and the front says when nothing
there reads it any more: filling pages that exist costs a third of what fresh ones do (pages.py). What a front sends
stays with the worker's tensors; a big file comes back in the same way when they are gone. Where a tensor that came so
is answered, its own file goes back as it is, and a tensor that is written to meanwhile gets other memory first.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from engine.workers.messages import PROTOCOL, BadMessage, Blob, Closed, Codec, Message
from engine.workers.pages import REUSED_FROM, Given, Mapping, Pages, behind, create, fill, map_whole, seal

if sys.platform != "win32":
    import resource

MAX_DESCRIPTORS = 64
_HEADER = struct.Struct("<4sIIIQ")
_ROW = struct.Struct("<IIQQ")
_PLAIN = bytes((*b"cg", PROTOCOL, 0))
_BYTES_FOLLOW = bytes((*b"cg", PROTOCOL, 1))
_COMES_BACK = bytes((*b"cg", PROTOCOL, 2))
_KINDS = (_PLAIN, _BYTES_FOLLOW, _COMES_BACK)
_NUMBER = struct.Struct("<I")
_MAX_BODY = 1 << 30
_MAX_BLOBS = 1 << 20
_BUFFER = 256 << 10
_SCM = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
_RECEIVE_FLAGS = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_CUT = int(socket.MSG_CTRUNC)  # as a number: the flags of an enum cost a call of Python each time
_ALIGN = 64


class Parcel:
    """A frame ready to be sent, and what of it was not sent yet."""

    __slots__ = ("descriptors", "numbers", "pieces", "size", "started", "tag")

    def __init__(self, pieces: list[memoryview], descriptors: list[int], tag: int) -> None:
        self.pieces, self.descriptors, self.tag = pieces, descriptors, tag
        self.size = sum(len(piece) for piece in pieces)
        self.numbers: list[int] = []  # of the files that are to come back
        self.started = False

    def close(self) -> None:
        """Closes the descriptors: they were sent, or never will be."""
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = []


def parcel(body: bytes, blobs: Sequence[Blob] = (), tag: int = 0, pages: Pages | Given | None = None) -> Parcel:
    """The frame of a packed message; copies the blobs, so their arrays may change afterwards. Any thread may do it.

    `tag` is the caller's name for it; with `pages` big arrays go in memory that comes back. Raises MemoryError where
    the machine has no room for the copies.
    """
    if not blobs:
        header = _HEADER.pack(_PLAIN, len(body), 0, 0, 0)
        return Parcel([memoryview(header + body)], [], tag)
    try:
        descriptors, rows, numbers = _share(blobs, pages)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise MemoryError(f"no memory to pass {sum(b.nbytes for b in blobs)} bytes on: {error}") from error
        rows, at = [], 0
        for blob in blobs:
            rows.append(_ROW.pack(0, 0, at, blob.nbytes))
            at += blob.nbytes
        header = _HEADER.pack(_BYTES_FOLLOW, len(body), len(blobs), 0, at)
        return Parcel(
            [memoryview(b"".join([header, *rows, body])), memoryview(b"".join(blob.data for blob in blobs))], [], tag
        )
    header = _HEADER.pack(_PLAIN, len(body), len(blobs), len(descriptors), 0)
    item = Parcel([memoryview(b"".join([header, *rows, body]))], descriptors, tag)
    item.numbers = numbers
    return item


def comes_back(number: int) -> Parcel:
    """The frame that says that nothing here reads the memory of that number any more."""
    return Parcel([memoryview(_HEADER.pack(_COMES_BACK, _NUMBER.size, 0, 0, 0) + _NUMBER.pack(number))], [], 0)


def _share(blobs: Sequence[Blob], pages: Pages | Given | None) -> tuple[list[int], list[bytes], list[int]]:
    """Descriptors with the blobs' bytes in them, the rows of the frame that say where, and the numbers in those."""
    each = -(-len(blobs) // MAX_DESCRIPTORS)
    descriptors: list[int] = []
    rows: list[bytes] = []
    numbers: list[int] = []
    try:
        for first in range(0, len(blobs), each):
            whole = behind(blobs[first]) if each == 1 else None
            if whole is not None:
                number, fd = (0, os.dup(whole.fd)) if pages is None else pages.lend(whole)
                descriptors.append(fd)
                if number:
                    numbers.append(number)
                rows.append(_ROW.pack(len(descriptors) - 1, number, whole.place(blobs[first]), blobs[first].nbytes))
                continue
            if isinstance(pages, Pages) and each == 1 and blobs[first].nbytes >= REUSED_FROM:
                number, fd = pages.send(blobs[first])
                numbers.append(number)
                descriptors.append(fd)
                rows.append(_ROW.pack(len(descriptors) - 1, number, 0, blobs[first].nbytes))
                continue
            fd = create()
            descriptors.append(fd)
            offset = 0
            for blob in blobs[first : first + each]:
                fill(fd, blob, offset)
                rows.append(_ROW.pack(len(descriptors) - 1, 0, offset, blob.nbytes))
                offset = -(-(offset + blob.nbytes) // _ALIGN) * _ALIGN
            seal(fd)
    except BaseException:
        for fd in descriptors:
            os.close(fd)
        for number in numbers:
            assert pages is not None
            pages.back(number)
        raise
    return descriptors, rows, numbers


class Wire:
    """One end of a connected Unix stream socket that carries messages. Never blocks; the owner polls.

    `keeps`: whether arrays are received to stay (writable, each freed alone) or to be read soon and dropped. An end
    that keeps has `pages` for what it sends, and one that sends to such an end may have. `let_go` is called, in any
    thread, with the number of each file that is to come back.
    """

    def __init__(self, sock: socket.socket, *, keeps: bool) -> None:
        sock.setblocking(False)
        self._sock, self._keeps = sock, keeps
        self.pages: Pages | Given | None = Pages() if keeps else None
        self.let_go: Callable[[int], None] | None = None
        self._codec = Codec()
        self._view = memoryview(bytearray(_BUFFER))
        self._fill = 0
        self._batches: deque[list[Blob] | None] = deque()
        self._queue: deque[Parcel] = deque()
        self.waiting = 0  # bytes not yet sent
        self.choked = False  # too many descriptors are under way: try again a little later, the socket is writable

    def fileno(self) -> int:
        return self._sock.fileno()

    # ------------------------------------------------ sending

    def pack(self, message: Message) -> tuple[bytes, list[Blob]]:
        """See Codec.pack."""
        return self._codec.pack(message)

    def post(self, item: Parcel) -> bool:
        """Sends the frame, or what the socket takes of it; False where some is left for `flush`. Raises Closed."""
        self._queue.append(item)
        self.waiting += item.size
        return self.flush() if len(self._queue) == 1 else False

    def post_body(self, body: bytes, tag: int = 0) -> bool:
        """The same as `post(parcel(body, (), tag))`, by the shortest way: most messages are small and go at once."""
        if self._queue:
            return self.post(parcel(body, (), tag))
        return self._post_frame(_HEADER.pack(_PLAIN, len(body), 0, 0, 0) + body, tag)

    def post_bodies(self, bodies: Sequence[bytes]) -> bool:
        """The same for several, in one go."""
        frames = b"".join([part for body in bodies for part in (_HEADER.pack(_PLAIN, len(body), 0, 0, 0), body)])
        if self._queue:
            return self.post(Parcel([memoryview(frames)], [], 0))
        return self._post_frame(frames, 0)

    def _post_frame(self, frame: bytes, tag: int) -> bool:
        try:
            sent = self._sock.send(frame)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise Closed(f"cannot send: {error}") from error
        if sent == len(frame):
            return True
        item = Parcel([memoryview(frame)[sent:]], [], tag)
        item.started = sent > 0
        self._queue.append(item)
        self.waiting += item.size
        return False

    def flush(self) -> bool:
        """Sends what waits; False where some is left. Raises Closed."""
        self.choked = False
        while self._queue:
            item = self._queue[0]
            try:
                if item.descriptors:
                    rights = array.array("i", item.descriptors)
                    sent = self._sock.sendmsg(item.pieces, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                elif len(item.pieces) == 1:
                    sent = self._sock.send(item.pieces[0])
                else:
                    sent = self._sock.sendmsg(item.pieces)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    self.choked = True
                    return False
                raise Closed(f"cannot send: {error}") from error
            item.started = True
            item.close()
            self.waiting -= sent
            while item.pieces and sent >= len(item.pieces[0]):
                sent -= len(item.pieces.pop(0))
            if item.pieces:
                item.pieces[0] = item.pieces[0][sent:]
            else:
                self._queue.popleft()
        return True

    def unsent(self) -> set[int]:
        """The tags of frames of which the other end has seen nothing."""
        return {item.tag for item in self._queue if not item.started}

    def post_several(self, bodies: Sequence[tuple[bytes, int]]) -> bool:
        """As `post_body` of each, with its tag, in one go."""
        frames = [_HEADER.pack(_PLAIN, len(body), 0, 0, 0) + body for body, _ in bodies]
        sent = 0
        if not self._queue:
            try:
                sent = self._sock.send(b"".join(frames))
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                raise Closed(f"cannot send: {error}") from error
        for frame, (_, tag) in zip(frames, bodies, strict=True):
            if sent < len(frame):
                item = Parcel([memoryview(frame)[sent:]], [], tag)
                item.started = sent > 0
                self._queue.append(item)
                self.waiting += item.size
            sent = max(0, sent - len(frame))
        return not self._queue

    # ------------------------------------------------ receiving

    def receive(self) -> list[Message]:
        """The messages that one read completes, none where nothing is there. Raises Closed, BadMessage."""
        try:
            count, ancillary, flags, _ = self._sock.recvmsg_into([self._view[self._fill :]], _SCM, _RECEIVE_FLAGS)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise Closed(f"cannot receive: {error}") from error
        if ancillary or flags & _CUT:
            self._batches.append(self._descriptors(ancillary, whole=not flags & _CUT))
        if count == 0:
            raise Closed("end of stream")
        self._fill += count
        messages: list[Message] = []
        try:
            self._frames(messages)
        except BadMessage as problem:
            problem.before = messages
            raise
        return messages

    def _frames(self, messages: list[Message]) -> None:
        """Takes the whole frames out of the buffer."""
        start, fill, view = 0, self._fill, self._view
        while fill - start >= _HEADER.size:
            kind, body, blobs, descriptors, after = _HEADER.unpack_from(view, start)
            if kind not in _KINDS:
                raise BadMessage(f"not a frame of protocol {PROTOCOL}: {bytes(view[start : start + 8])!r}")
            if body > _MAX_BODY or blobs > _MAX_BLOBS or descriptors > MAX_DESCRIPTORS:
                raise BadMessage("a frame beyond every limit")
            table = start + _HEADER.size
            first = table + blobs * _ROW.size
            end = first + body + after
            if end > fill:
                break
            found: list[Blob | None] = []
            if blobs or descriptors or after:
                rows = [_ROW.unpack_from(view, table + i * _ROW.size) for i in range(blobs)]
                if kind == _BYTES_FOLLOW:
                    found = self._bytes(rows, view[first + body : end])
                else:
                    found = self._shared(rows, descriptors)
            elif kind == _COMES_BACK:
                self._come_back(view[first:end])
                start = end
                continue
            messages.append(self._codec.unpack(view[first : first + body], found))
            start = end
        if 4 <= fill - start < _HEADER.size and bytes(view[start : start + 4]) not in _KINDS:
            raise BadMessage(f"not the start of a frame of protocol {PROTOCOL}: {bytes(view[start:fill])!r}")
        if start == fill and self._batches:
            raise BadMessage("descriptors that no frame announced")
        if start == fill and len(view) == _BUFFER:
            self._fill = 0
        else:
            self._make_room(start)

    def _come_back(self, numbers: memoryview) -> None:
        if self.pages is None or len(numbers) % _NUMBER.size:
            raise BadMessage("memory that was not passed on comes back")
        for (number,) in _NUMBER.iter_unpack(numbers):
            self.pages.back(number)

    def _bytes(self, rows: list[tuple[Any, ...]], after: memoryview) -> list[Blob | None]:
        blobs: list[Blob | None] = []
        for _, _, offset, length in rows:
            if offset + length > len(after):
                raise BadMessage("a blob beyond its frame")
            blob = np.array(after[offset : offset + length], np.uint8)
            blob.flags.writeable = self._keeps
            blobs.append(blob)
        return blobs

    def _shared(self, rows: list[tuple[Any, ...]], descriptors: int) -> list[Blob | None]:
        if not descriptors:
            raise BadMessage("blobs without a descriptor")
        if not self._batches:
            raise BadMessage("descriptors were announced and did not come")
        files = self._batches.popleft()
        if files is None:
            for _, number, *_ in rows:
                self._let_go(number)
            return [None] * len(rows)
        if len(files) != descriptors:
            raise BadMessage(f"{len(files)} descriptors came, {descriptors} were announced")
        holders = [0] * descriptors
        for which, *_ in rows:
            if which >= descriptors:
                raise BadMessage("a blob of a descriptor that is not there")
            holders[which] += 1
        blobs: list[Blob | None] = []
        for which, number, offset, length in rows:
            if offset + length > files[which].nbytes:
                raise BadMessage("a blob beyond its descriptor's end")
            blob = files[which][offset : offset + length]
            if number:
                mapping = files[which].base
                if type(mapping) is Mapping:
                    mapping.back = partial(self._let_go, number)
                else:  # it was copied
                    self._let_go(number)
            blobs.append(blob.copy() if self._keeps and holders[which] > 1 else blob)
        return blobs

    def _let_go(self, number: int) -> None:
        if number and self.let_go is not None:
            self.let_go(number)

    def _descriptors(self, ancillary: list[tuple[int, int, bytes]], *, whole: bool) -> list[Blob] | None:
        """Maps what came and closes the descriptors; None where some could not be received or mapped."""
        fds = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        try:
            return [map_whole(fd, writable=self._keeps) for fd in fds] if whole else None
        except MemoryError:
            return None
        finally:
            for fd in fds:
                os.close(fd)

    def _make_room(self, start: int) -> None:
        """Moves an unfinished frame to the buffer's start, and grows the buffer as its bytes come in, not before."""
        left = self._fill - start
        size = len(self._view)
        if left == size:
            size *= 2
        elif left <= _BUFFER // 2:
            size = _BUFFER
        if size != len(self._view):
            room = memoryview(bytearray(size))
            room[:left] = self._view[start : self._fill]
            self._view = room
        elif start:
            self._view[:left] = self._view[start : self._fill]
        self._fill = left

    def close(self) -> None:
        """Closes the socket and whatever was not sent."""
        for item in self._queue:
            item.close()
        self._queue.clear()
        self._batches.clear()
        if self.pages is not None:
            self.pages.close()
        self._sock.close()


def raise_file_limit() -> None:
    """As many open files as the system allows: the usual soft limit of 1024 is soon met by many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS refuses "unlimited" for this one.
    wanted = 65536 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
