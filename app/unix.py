"""Listening on a Unix socket: a file that its owner alone can connect to."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

MODE = 0o600
_LONGEST = 100  # bytes of a path: the system's address holds 108, and 104 on macOS
_BACKLOG = 2048


def listen(path: Path) -> socket.socket:
    """A socket that listens at `path`, in place of one that an ended server left there.

    Raises OSError, with words for who started the server: something else is there, a server listens there already, the
    path is too long.
    """
    target = path.absolute()
    if len(os.fsencode(target)) > _LONGEST:
        raise OSError(f"the path of a socket has at most {_LONGEST} bytes, and {target} has more")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(target.lstat().st_mode):
            raise OSError(f"{target} is there already, and is no socket")
        if _answers(target):
            raise OSError(f"another server listens at {target}")
    # Bound beside its place, closed to others, and then moved there: at no time can others connect.
    beside = target.with_name(f".{target.name[:20]}.{os.getpid()}")
    sock = socket.socket(socket.AF_UNIX)
    try:
        beside.unlink(missing_ok=True)
        sock.bind(os.fspath(beside))
        beside.chmod(MODE)
        sock.listen(_BACKLOG)
        beside.replace(target)
    except OSError:
        sock.close()
        beside.unlink(missing_ok=True)
        raise
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
        return True


def leave(path: Path, sock: socket.socket) -> None:
    """Closes the socket and removes its file, if it is still this socket's."""
    sock.close()
    with contextlib.suppress(OSError):
        if not _answers(path.absolute()):
            path.absolute().unlink()
