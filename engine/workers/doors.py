"""Sockets passed from process to process, each with a few numbers that say what it is. Linux and macOS.

A record is 16 bytes, little-endian, and comes with one descriptor by SCM_RIGHTS:

    u32 kind, u32 number, u64 epoch

    HELLO       to a worker: one more front is at the other end
    CONNECTION  to a front: an HTTP client that was accepted
    LINK        to a front: worker `number` in its incarnation `epoch` is at the other end
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

_RECORD = struct.Struct("<IIQ")
_MOST = 64  # records in one look, so that other work comes between
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
HELLO, CONNECTION, LINK = range(3)


@dataclass(frozen=True, slots=True)
class Passed:
    """A socket that came in; None where this process has too many files open, and it is lost."""

    kind: int
    number: int
    epoch: int
    sock: socket.socket | None


def pass_socket(door: socket.socket, sock: socket.socket, kind: int = HELLO, number: int = 0, epoch: int = 0) -> bool:
    """Passes the socket on, which stays open here. False where the other end is gone, or its door is full."""
    try:
        socket.send_fds(door, [_RECORD.pack(kind, number, epoch)], [sock.fileno()])
    except OSError:  # among them EAGAIN, and ETOOMANYREFS: too many sockets are under way
        return False
    return True


def take_sockets(door: socket.socket) -> tuple[list[Passed], bool]:
    """What has come in, and whether more can come."""
    found: list[Passed] = []
    while len(found) < _MOST:
        try:
            data, fds, _, _ = socket.recv_fds(door, _RECORD.size, 1, _FLAGS)
        except (BlockingIOError, InterruptedError):
            break
        except OSError:
            return found, False
        if not data:
            return found, False
        if len(data) < _RECORD.size:
            for fd in fds:
                os.close(fd)
            return found, False
        kind, number, epoch = _RECORD.unpack(data)
        found.append(Passed(kind, number, epoch, socket.socket(fileno=fds[0]) if fds else None))
    return found, True
