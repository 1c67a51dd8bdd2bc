"""Messages that are sent together: in order, in one go if the socket takes them, and known to be unsent if not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from engine.workers.frames import Wire
from engine.workers.lines import Line
from engine.workers.messages import CannotPack, Closed, Message, NotSent

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Windows has no Unix sockets")


def with_line(work: Callable[[Line, Wire, list[Any]], Coroutine[Any, Any, None]]) -> list[Any]:
    """Runs `work` with a line, the wire at its other end, and a list in which the line's end is noted."""
    ends: list[Any] = []

    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        line = Line(ours, lambda message: None, ends.append, other="the other")
        wire = Wire(theirs, keeps=False)
        try:
            await work(line, wire, ends)
        finally:
            line.close()
            wire.close()

    asyncio.run(run())
    return ends


def heard(wire: Wire) -> list[int]:
    """The ids of all messages that are there."""
    found: list[int] = []
    while messages := wire.receive():
        found += [message["id"] for message in messages]
    return found


def message(number: int, size: int = 1) -> Message:
    return {"id": number, "text": "x" * size}


def test_they_go_when_the_loop_turns_and_together() -> None:
    async def work(line: Line, wire: Wire, ends: list[Any]) -> None:
        for number in (1, 2, 3):
            line.send_soon(message(number))
        assert line.unsent() == {1, 2, 3}
        assert heard(wire) == []
        await asyncio.sleep(0)
        assert line.unsent() == set()
        assert [m["id"] for m in wire.receive()] == [1, 2, 3]
        line.send_soon(message(4))
        await asyncio.sleep(0)
        assert heard(wire) == [4]

    assert with_line(work) == []


def test_what_is_sent_at_once_does_not_overtake_them() -> None:
    async def work(line: Line, wire: Wire, ends: list[Any]) -> None:
        line.send_soon(message(1))
        line.send_now(message(2))
        line.send_soon(message(3))
        await line.send(message(4))
        await asyncio.sleep(0)
        assert heard(wire) == [1, 2, 3, 4]

    assert with_line(work) == []


def test_what_the_socket_does_not_take_follows_in_order() -> None:
    async def work(line: Line, wire: Wire, ends: list[Any]) -> None:
        for number in range(1, 9):
            line.send_soon(message(number, 100_000))
        await asyncio.sleep(0)
        left = line.unsent()
        assert left
        assert left == set(range(min(left), 9))
        line.send_soon(message(9))
        found: list[int] = []
        while len(found) < 9:
            await asyncio.sleep(0.001)
            found += heard(wire)
        assert found == list(range(1, 10))
        assert line.unsent() == set()

    assert with_line(work) == []


def test_where_the_other_end_is_gone_they_are_unsent() -> None:
    async def work(line: Line, wire: Wire, ends: list[Any]) -> None:
        wire.close()
        line.send_soon(message(1))
        line.send_soon(message(2))
        await asyncio.sleep(0)
        assert ends == [None]
        assert line.unsent() == {1, 2}
        with pytest.raises(NotSent):
            line.send_soon(message(3))

    assert with_line(work) == [None]


def test_what_cannot_be_packed_says_so_at_once() -> None:
    async def work(line: Line, wire: Wire, ends: list[Any]) -> None:
        with pytest.raises(CannotPack):
            line.send_soon({"id": 1, "text": object()})
        assert line.unsent() == set()

    assert with_line(work) == []


def test_a_wire_that_is_closed_takes_none() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    wire = Wire(ours, keeps=False)
    theirs.close()
    with pytest.raises(Closed):
        wire.post_several([(b"\x80", 1), (b"\x80", 2)])
    wire.close()
