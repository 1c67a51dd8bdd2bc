"""Memory behind a descriptor: what two processes pass to each other instead of bytes. Linux and macOS.

A fresh page costs several times what copying into it does, since the kernel has to find and book it: filling 100 MB
took 52 ms where the copy is 9. So a worker keeps the memory of a big answer once the front has let go of it, and fills
it again: `Pages`, and the frames by which memory comes back (frames.py).

What a worker was passed itself, and keeps as a tensor, it passes on as it is where that tensor is asked for, and does
not write to it until it comes back (engine.tensor.Lendable). When the tensor is gone the front has the file back, for
what comes in next: `Given`. So a file is filled by one process alone, and only when no other has it mapped.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.tensor import Lendable
from engine.workers.messages import BadMessage, Blob

if sys.platform != "win32":
    import fcntl

_EVEN = 8  # what NumPy asks of the widest element, complex128
_SLACK = 64 << 10  # bytes beside an array in a file that is passed on whole: the header of a format
REUSED_FROM = Lendable.LENT_FROM  # bytes of an array from which its memory is kept: below, saying so costs more
_MOST_OPEN = 1000  # files that are kept open to be passed on again; a process may have some ten thousand
KEPT_BYTES = 256 << 20  # of memory that waits to be used again
KEPT_SECONDS = 5.0


def create() -> int:
    """A file without a name. Raises OSError."""
    if sys.platform == "linux":
        return os.memfd_create("curlgrad", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        with tempfile.TemporaryFile(buffering=0) as file:
            return os.dup(file.fileno())


def fill(fd: int, blob: Blob, offset: int) -> None:
    """Writes the bytes. Raises OSError."""
    # pwrite, not a mapping: it fills fresh pages without zeroing and faulting them first, twice as fast.
    view = blob.data
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def seal(fd: int) -> None:
    """From now on the file can neither grow nor shrink."""
    if sys.platform == "linux":
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)


def sealed(fd: int) -> bool:
    """Whether no holder can cut the file short."""
    return sys.platform != "linux" or bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value
_lending = threading.RLock()  # a mapping may end in the middle of anything


class Mapping(Lendable):
    """Mapped memory that NumPy can hold, unmapped when the last array on it is gone.

    Not the mmap module: before Python 3.13 each of its maps keeps a descriptor open, and a session may hold
    thousands of uploaded tensors.
    """

    __slots__ = ("__array_interface__", "__weakref__", "_address", "_unmap", "back", "fd", "length")

    kept = 0  # descriptors that are kept by all of them

    def __init__(self, fd: int, length: int, *, writable: bool) -> None:
        super().__init__()
        self.fd = -1  # a descriptor of the file, where it is kept to be passed on
        self.back: Callable[[], None] | None = None  # called, in any thread, once nothing reads the memory any more
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = _libc.mmap(None, length, protection, mmap.MAP_SHARED, fd, 0)
        if address is None or address == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._address, self.length, self._unmap = address, length, _libc.munmap
        self.__array_interface__ = {
            "data": (address, not writable),
            "shape": (length,),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        if hasattr(self, "_unmap"):
            self._unmap(self._address, self.length)
            if self.fd >= 0:
                os.close(self.fd)
                with _lending:
                    Mapping.kept -= 1
            if self.back is not None:
                self.back()

    def keep(self, fd: int) -> None:
        """Takes a descriptor of the file over, to pass it on."""
        self.fd = fd
        with _lending:
            Mapping.kept += 1

    def lend(self, readers: int) -> None:
        """So many read it more, or less: they were passed its file."""
        with _lending:
            self.readers += readers
            Lendable.out += readers

    def place(self, blob: Blob) -> int:
        """Where in the file the bytes of `blob`, an array on this memory, begin."""
        return int(blob.ctypes.data) - int(self._address)


class Shared:
    """Memory to be filled (incoming.py) that a worker process is passed as it is, by its descriptor.

    Raises MemoryError where the machine has no room, or too many files are open.
    """

    def __init__(self, length: int) -> None:
        self.length, self.filled = length, 0
        kept = UPLOADS.take(length, length + _SLACK // 2)
        try:
            self._fd = create() if kept is None else kept[0]
        except OSError as error:
            raise MemoryError(f"no memory for {length} bytes: {error}") from error

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes. Raises ValueError where they are more than was announced."""
        view = memoryview(data)
        if self.filled + len(view) > self.length:
            raise ValueError("more bytes than were announced")
        while view:
            try:
                done = os.pwrite(self._fd, view, self.filled)
            except OSError as error:
                if UPLOADS.kept_bytes:
                    UPLOADS.clear()  # the machine has no room, and this is some
                    continue
                raise MemoryError(f"no memory for {self.length} bytes: {error}") from error
            view = view[done:]
            self.filled += done

    def finish(self) -> memoryview:
        """All of it, read-only. Raises ValueError where bytes are missing."""
        if self.filled < self.length:
            raise ValueError("fewer bytes than were announced")
        if not sealed(self._fd):
            seal(self._fd)
        try:
            mapping = Mapping(self._fd, self.length, writable=False)
        except OSError as error:
            raise MemoryError(f"no memory for {self.length} bytes: {error}") from error
        mapping.keep(self._fd)
        self._fd = -1
        return np.asarray(mapping).data

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)


def behind(blob: Blob) -> Mapping | None:
    """The mapping that the blob lies in, if its descriptor is kept, the blob is nearly all of it, and lies evenly."""
    owner: Any = blob
    while owner is not None:
        if isinstance(owner, memoryview):
            owner = owner.obj
        elif isinstance(owner, np.ndarray):
            owner = owner.base
        else:
            break
    if type(owner) is not Mapping or owner.fd < 0:
        return None
    return owner if blob.nbytes >= owner.length - _SLACK and owner.place(blob) % _EVEN == 0 else None


def map_whole(fd: int, *, writable: bool) -> Blob:
    """The whole file as bytes. Raises BadMessage for a file that a sender could still cut short; MemoryError."""
    length = os.fstat(fd).st_size
    if length == 0 or not sealed(fd):
        raise BadMessage("a descriptor that is empty, or not sealed against resizing")
    try:
        mapping = Mapping(fd, length, writable=writable)
        if writable and length >= REUSED_FROM and Mapping.kept < _MOST_OPEN:
            with contextlib.suppress(OSError):  # too many files are open: it will be copied then
                mapping.keep(os.dup(fd))
        return np.asarray(mapping)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        # The number of mappings of a process is limited (65,530 by default); the heap may still have room.
        blob = np.empty(length, np.uint8)
        view, offset = blob.data, 0
        while view:
            done = os.preadv(fd, [view], offset)
            if done == 0:
                raise BadMessage("a descriptor that was cut short") from error
            view, offset = view[done:], offset + done
        blob.flags.writeable = writable
        return blob


class Kept:
    """Files that nobody uses, to be filled again. Any thread may take one, and give one back."""

    def __init__(self) -> None:
        self.kept_bytes = 0
        self._lock = threading.RLock()
        self._kept: list[tuple[float, int, int]] = []  # since when, bytes, descriptor; the oldest first

    def take(self, size: int, most: int) -> tuple[int, int] | None:
        """The smallest file that holds from `size` to `most` bytes, with its size."""
        with self._lock:
            fitting = [one for one in self._kept if size <= one[1] <= most]
            if not fitting:
                return None
            best = min(fitting, key=lambda one: one[1])
            self._kept.remove(best)
            self.kept_bytes -= best[1]
            return best[2], best[1]

    def keep(self, fd: int, size: int) -> None:
        """Keeps a file, or closes it."""
        if size > KEPT_BYTES:
            os.close(fd)
            return
        with self._lock:
            self._kept.append((time.monotonic(), size, fd))
            self.kept_bytes += size
            while self.kept_bytes > KEPT_BYTES:
                self._drop_oldest()

    def expire(self) -> float | None:
        """Frees what has waited long enough; in how many seconds there will be more, None where nothing waits."""
        now = time.monotonic()
        with self._lock:
            while self._kept and self._kept[0][0] + KEPT_SECONDS <= now:
                self._drop_oldest()
            return self._kept[0][0] + KEPT_SECONDS - now if self._kept else None

    def _drop_oldest(self) -> None:
        _, size, fd = self._kept.pop(0)
        self.kept_bytes -= size
        os.close(fd)

    def clear(self) -> None:
        """Frees all that waits."""
        with self._lock:
            while self._kept:
                self._drop_oldest()


class Pages(Kept):
    """The files of big arrays that were sent and come back: each is out, under its number, or kept for the next one.

    Only the process that fills a file can write to it, and it does so only once the other has said that it let go.
    Any thread may `send`: the lock is not held while a file is filled.
    """

    def __init__(self) -> None:
        super().__init__()
        self._closed = False
        self._out: dict[int, tuple[int, int]] = {}  # number: descriptor, bytes
        self._lent: dict[int, Mapping] = {}
        self._last = 0

    def send(self, blob: Blob) -> tuple[int, int]:
        """A file with the bytes of `blob`: its number, and a descriptor for the caller to close. Raises OSError."""
        with self._lock:
            number = self._next()
            fd, size = self.take(blob.nbytes, blob.nbytes + blob.nbytes // 4) or (create(), blob.nbytes)
        try:
            try:
                fill(fd, blob, 0)
            except OSError:
                if not self._kept:
                    raise
                self.clear()  # the machine has no room, and this is some
                fill(fd, blob, 0)
            if not sealed(fd):
                seal(fd)
            sent = os.dup(fd)
        except BaseException:
            os.close(fd)
            raise
        with self._lock:
            if self._closed:
                os.close(fd)
            else:
                self._out[number] = fd, size
        return number, sent

    def lend(self, mapping: Mapping) -> tuple[int, int]:
        """The same for all of the memory that a tensor has, which is not written to meanwhile. Raises OSError."""
        sent = os.dup(mapping.fd)
        with self._lock:
            number = self._next()
            if not self._closed:
                self._lent[number] = mapping
                mapping.lend(1)
        return number, sent

    def _next(self) -> int:
        self._last = self._last % 0xFFFF_FFFF + 1
        return self._last

    def back(self, number: int) -> None:
        """The other process reads this file no more. Raises BadMessage for one that is not out."""
        with self._lock:
            lent = self._lent.pop(number, None)
            if lent is not None:
                lent.lend(-1)
                return
            if number not in self._out:
                raise BadMessage(f"memory that was not passed on comes back: {number}")
            self.keep(*self._out.pop(number))

    def close(self) -> None:
        """Frees all of it; what the other process has mapped stays until it lets go."""
        with self._lock:
            self._closed = True
            self.clear()
            for fd, _ in self._out.values():
                os.close(fd)
            self._out.clear()
            for mapping in self._lent.values():
                mapping.lend(-1)
            self._lent.clear()


UPLOADS = Kept()  # of this process


class Given:
    """What a front has passed on as a worker's to keep. Once no tensor stands on it any more it comes back, and is
    filled with what comes in next, unless something here reads it still. Any thread may `lend`."""

    MOST = 64  # files: each is held open here for as long as its tensor lives

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._closed = False
        self._files: dict[int, tuple[int, int, weakref.ref[Mapping]]] = {}
        self._last = 0

    def lend(self, mapping: Mapping) -> tuple[int, int]:
        """A number, 0 where it is not to come back, and a descriptor for the caller to close. Raises OSError."""
        sent = os.dup(mapping.fd)
        with self._lock:
            size = os.fstat(sent).st_size
            if self._closed or len(self._files) >= self.MOST or not REUSED_FROM <= size <= KEPT_BYTES:
                return 0, sent
            try:
                held = os.dup(sent)
            except OSError:
                return 0, sent
            self._last = self._last % 0xFFFF_FFFF + 1
            self._files[self._last] = held, size, weakref.ref(mapping)
            return self._last, sent

    def back(self, number: int) -> None:
        """The worker stands on this file no more. Raises BadMessage for one that it was not given."""
        with self._lock:
            if number not in self._files:
                raise BadMessage(f"memory that was not passed on comes back: {number}")
            fd, size, here = self._files.pop(number)
        if here() is None:
            UPLOADS.keep(fd, size)
        else:
            os.close(fd)

    def close(self) -> None:
        """Lets go of all of it, and of what waits to be filled."""
        with self._lock:
            self._closed = True
            for fd, *_ in self._files.values():
                os.close(fd)
            self._files.clear()
        UPLOADS.clear()
