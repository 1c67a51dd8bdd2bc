"""Busy polling: where it looks, where it sleeps, and that it is not for ever."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Self

import pytest

from engine.workers.busy import BusyPoll, Events, loop_fd, poller
from engine.workers.frames import Wire
from engine.workers.lines import Line
from engine.workers.messages import Message

LIMIT = 0.0005
READY = [(7, 1)]

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Windows has no Unix sockets")


class World:
    """A poll and a clock. `gaps`: after how many seconds each of the next things comes."""

    def __init__(self, gaps: Iterable[float]) -> None:
        self.now, self.looked, self.slept = 0.0, 0, 0
        self._gaps = iter(gaps)
        self._next = next(self._gaps)

    def clock(self) -> float:
        return self.now

    def poll(self, ms: float | None) -> Events:
        if ms == 0:
            self.looked += 1
            self.now += 0.00001
        else:
            self.slept += 1
            end = self._next if ms is None else min(self._next, self.now + ms / 1e3)
            self.now = max(self.now, end)
        if self.now < self._next:
            return []
        self._next = self.now + next(self._gaps)
        return READY

    def counted(self) -> tuple[int, int]:
        found = self.looked, self.slept
        self.looked = self.slept = 0
        return found


def waiting(*gaps: float) -> tuple[World, BusyPoll]:
    world = World([*gaps, 1e9])
    return world, BusyPoll(world.poll, LIMIT, world.clock)


def test_it_looks_once_what_comes_comes_soon() -> None:
    world, busy = waiting(0.0002, 0.0002, 0.0002)
    assert busy.wait(None) == READY
    assert world.counted() == (0, 1)  # nothing is known yet: it sleeps
    for _ in range(2):
        assert busy.wait(None) == READY
        looked, slept = world.counted()
        assert looked > 1
        assert slept == 0


def test_it_looks_in_vain_once_and_then_sleeps() -> None:
    world, busy = waiting(0.0002, 0.1, 0.1, 0.1)
    busy.wait(None)
    world.counted()
    assert busy.wait(None) == READY
    looked, slept = world.counted()
    assert 1 < looked <= 51  # half a millisecond, at ten microseconds a look
    assert slept == 1
    for _ in range(2):
        assert busy.wait(None) == READY
        assert world.counted() == (0, 1)


def test_it_looks_again_when_they_come_soon_again() -> None:
    world, busy = waiting(0.1, 0.0002, 0.0002)
    busy.wait(None)
    assert not busy.soon
    busy.wait(None)
    assert busy.soon
    world.counted()
    busy.wait(None)
    assert world.counted()[1] == 0


def test_a_time_that_is_over_is_nothing_that_came() -> None:
    world, busy = waiting(0.0002, 10.0)
    busy.wait(None)
    assert busy.wait(100) == []
    assert not busy.soon
    assert busy.wait(100) == []
    assert world.counted()[1] == 3


@pytest.mark.parametrize("limit", [0.0, -1.0])
def test_without_a_limit_it_never_looks(limit: float) -> None:
    world = World([0.0002] * 5 + [1e9])
    busy = BusyPoll(world.poll, limit, world.clock)
    for _ in range(4):
        assert busy.wait(None) == READY
    assert busy.look() == []
    assert world.counted() == (0, 4)


def test_a_look_without_waiting_is_one_look() -> None:
    world, busy = waiting(0.0002, 0.1)
    busy.wait(None)
    world.counted()
    assert busy.wait(0) == []
    assert world.counted() == (1, 0)
    assert busy.soon


def test_who_sleeps_elsewhere_tells_when_it_came() -> None:
    world, busy = waiting(0.0002, 0.0002, 1.0)
    assert busy.look() == []
    assert world.counted() == (0, 0)  # nothing is known yet
    world.now += 0.0002
    busy.came()
    assert busy.soon
    assert busy.look() == READY
    busy.came()
    assert busy.look() == READY
    busy.came()
    assert busy.look() == []  # in vain
    assert not busy.soon
    world.now += 1.0
    busy.came()
    assert busy.look() == []
    assert busy.soon is False


class Pair:
    """A line that has once been answered soon, the wire at its other end, and what the line heard since."""

    def __init__(self, limit: float) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.heard: list[Message] = []
        self._some = asyncio.Event()
        self.line = Line(ours, self._hear, lambda problem: None, other="the other", busy_poll_s=limit)
        self.wire = Wire(theirs, keeps=False)

    def _hear(self, message: Message) -> None:
        self.heard.append(message)
        self._some.set()

    def answer(self, number: int) -> None:
        self.wire.post_body(self.wire.pack({"id": number})[0], number)

    async def __aenter__(self) -> Self:
        self.line.send_soon({"id": 1}, alone=True)
        await asyncio.sleep(0)
        self.answer(1)
        await self._some.wait()
        self.heard.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.line.close()
        self.wire.close()


async def no_wait(line: Line) -> None:
    line.send_soon({"id": 2}, alone=True)


async def wait(line: Line) -> None:
    await line.send({"id": 2}, alone=True)


@pytest.mark.parametrize("send", [no_wait, wait])
def test_an_answer_that_is_there_is_heard_before_the_loop_turns(send: Callable[[Line], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Pair(600.0) as pair:
            seen: list[int] = []
            await send(pair.line)
            asyncio.get_running_loop().call_soon(lambda: seen.append(len(pair.heard)))
            pair.answer(2)
            await asyncio.sleep(0)
            assert seen == [1]

    asyncio.run(run())


def test_what_is_alone_goes_at_once_and_what_follows_in_the_same_turn_together() -> None:
    async def run() -> None:
        async with Pair(0.0) as pair:
            for number in (2, 3, 4):
                pair.line.send_soon({"id": number}, alone=number == 2)
            assert pair.line.unsent() == {3, 4}
            assert [message["id"] for message in pair.wire.receive()] == [1, 2]
            await asyncio.sleep(0)
            assert [message["id"] for message in pair.wire.receive()] == [3, 4]

    asyncio.run(run())


def test_what_is_alone_and_cannot_be_sent_is_told_of_when_the_loop_turns() -> None:
    async def run() -> None:
        ends: list[object] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        line = Line(ours, lambda message: None, ends.append, other="the other", busy_poll_s=1.0)
        theirs.close()
        line.send_soon({"id": 1}, alone=True)
        assert ends == []
        await asyncio.sleep(0)
        assert ends == [None]
        assert line.unsent() == {1}
        line.close()

    asyncio.run(run())


def test_where_others_are_waited_for_too_the_loop_turns_first() -> None:
    async def run() -> None:
        async with Pair(600.0) as pair:
            pair.line.send_soon({"id": 2}, alone=False)  # looked for, it would be waited for here
            await asyncio.sleep(0)
            assert pair.heard == []

    asyncio.run(run())


def test_what_else_the_loop_has_to_do_ends_the_look() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        told: asyncio.Future[bytes] = loop.create_future()
        loop.add_reader(near.fileno(), lambda: told.done() or told.set_result(near.recv(1)))
        try:
            async with Pair(600.0) as pair:
                far.send(b"x")
                pair.line.send_soon({"id": 2}, alone=True)  # no answer comes, and ten minutes are the limit
                assert await asyncio.wait_for(told, 60) == b"x"
        finally:
            loop.remove_reader(near.fileno())
            near.close()
            far.close()

    asyncio.run(run())


def test_a_loop_tells_of_its_descriptor() -> None:
    async def run() -> None:
        fd = loop_fd(asyncio.get_running_loop())
        assert fd is not None
        near, far = socket.socketpair()
        asyncio.get_running_loop().add_reader(near.fileno(), lambda: None)
        try:
            await asyncio.sleep(0)
            poll = poller(fd)
            assert poll(0) == []
            far.send(b"x")
            assert [found for found, _ in poll(0)] == [fd]
        finally:
            asyncio.get_running_loop().remove_reader(near.fileno())
            near.close()
            far.close()

    asyncio.run(run())
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not there on this system")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_a_loop_that_tells_of_none_is_never_kept() -> None:
    class Bare:
        pass

    assert loop_fd(Bare()) is None  # type: ignore[arg-type]
