"""Where a Unix socket may be put, and who may connect to it."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from app import unix

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
        return True


def test_a_socket_is_its_owners_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    sock = unix.listen(path)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert connects(path)
    unix.leave(path, sock)
    assert list(tmp_path.iterdir()) == []


def test_what_an_ended_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    unix.listen(path).close()
    assert path.exists()
    sock = unix.listen(path)
    assert connects(path)
    sock.close()


def test_a_place_that_is_taken_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with unix.listen(path), pytest.raises(OSError, match="another server"):
        unix.listen(path)
    path.unlink()
    path.write_text("mine")
    with pytest.raises(OSError, match="no socket"):
        unix.listen(path)
    assert path.read_text() == "mine"
    with pytest.raises(OSError, match="at most"):
        unix.listen(tmp_path / ("x" * 200))


def test_the_socket_of_a_server_that_came_later_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = unix.listen(path)
    first.close()
    second = unix.listen(path)
    unix.leave(path, first)
    assert connects(path)
    unix.leave(path, second)
    assert not path.exists()
