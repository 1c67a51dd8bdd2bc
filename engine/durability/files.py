"""The few things that are asked of a file system. Tests give a Files of their own, which loses what was not synced."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl
else:
    import msvcrt

_IOV_MAX = 1024  # buffers in one writev, on Linux and macOS
_SMALL = 64 << 10  # up to here one copy is cheaper than many buffers
Buffer = Any  # bytes, memoryview, or a contiguous uint8 array


class Locked(Exception):
    """Another process holds the lock."""


class File:
    """A file that is written at its end."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path, self.fd = path, fd

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Writes all of them, one after the other, big ones without copying. Raises OSError: a part may be written."""
        if sum(map(len, buffers)) <= _SMALL:
            whole = b"".join(buffers)
            done = os.write(self.fd, whole)
            if done == len(whole):
                return
            buffers = [whole[done:]]
        left = [view for view in (memoryview(b).cast("B") for b in buffers if len(b)) if view]
        at = 0
        while at < len(left):
            done = self._some(left[at : at + _IOV_MAX])
            while at < len(left) and done >= len(left[at]):
                done -= len(left[at])
                at += 1
            if done:
                left[at] = left[at][done:]

    def _some(self, views: list[memoryview]) -> int:
        if sys.platform == "win32":
            return os.write(self.fd, views[0])
        return os.writev(self.fd, views)

    def sync(self) -> None:
        """Returns when what was written is on the disk. Raises OSError: then nobody knows what is."""
        if sys.platform == "darwin":
            fcntl.fcntl(self.fd, fcntl.F_FULLFSYNC)  # fsync leaves it in the drive's cache there
        elif sys.platform == "win32":
            os.fsync(self.fd)
        else:
            os.fdatasync(self.fd)

    def truncate(self, size: int) -> None:
        os.ftruncate(self.fd, size)
        os.lseek(self.fd, size, os.SEEK_SET)

    def close(self) -> None:
        os.close(self.fd)


class Files:
    """The file system."""

    def create(self, path: Path) -> File:
        """A new, empty file. Raises FileExistsError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        return File(path, os.open(path, flags, 0o600))

    def truncate(self, path: Path, size: int) -> None:
        """Cuts a file, and returns when the disk knows."""
        with path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def set_aside(self, path: Path, start: int) -> None:
        """Moves a file's bytes from `start` on to `<name>.torn`, for whoever wants to look at them."""
        with self.mapped(path) as data:
            aside = path.with_name(f"{path.name}.torn")
            self.remove(aside)
            made = self.create(aside)
            try:
                made.write([data[start:]])
            finally:
                made.close()
        if start:
            self.truncate(path, start)
        else:
            self.remove(path)

    def sync(self, path: Path) -> None:
        """Returns when a file that another process wrote is on the disk."""
        with path.open("r+b") as file:
            os.fsync(file.fileno())

    def rename(self, old: Path, new: Path) -> None:
        old.replace(new)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def sync_folder(self, path: Path) -> None:
        """Returns when the folder's entries are on the disk."""
        if sys.platform == "win32":
            return
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def folder(self, path: Path) -> None:
        """Makes a folder, where it is not there, that no other user may look into."""
        if not path.is_dir():
            path.mkdir(mode=0o700)
            self.sync_folder(path.parent)

    def list(self, path: Path) -> list[Path]:
        """The folder's files and folders, by name."""
        return sorted(path.iterdir()) if path.is_dir() else []

    @contextlib.contextmanager
    def mapped(self, path: Path) -> Iterator[memoryview]:
        """A file's bytes, read as they are touched; arrays made on them must be copied before the end."""
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                yield memoryview(b"")
                return
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            view = memoryview(whole)
            try:
                yield view
            finally:
                view.release()
                # An exception's traceback may still hold a part of it; it is unmapped when that is gone.
                with contextlib.suppress(BufferError):
                    whole.close()

    def lock(self, path: Path) -> int:
        """Locks a file, made if need be, until the descriptor that is returned is closed. Raises Locked."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            if sys.platform == "win32":
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = b"" if sys.platform == "win32" else os.pread(fd, 20, 0)
            os.close(fd)
            raise Locked(owner.decode("ascii", "replace").strip() or "unknown") from None
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        return fd
