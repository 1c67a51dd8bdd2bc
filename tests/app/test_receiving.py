"""Long bodies that are received past the HTTP parser: whole, and where they belong."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("httptools")

import uvicorn
from starlette.requests import ClientDisconnect

from app.deps import INTO
from app.server import Protocol
from engine.workers.incoming import Private


@contextlib.asynccontextmanager
async def serving(application: Any) -> AsyncIterator[int]:
    """The port at which our protocol serves an application."""
    config = uvicorn.Config(application, port=0, http=Protocol, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


LONG = bytes(range(256)) * 8000
HEADERS = b"Host: x\r\nContent-Length: %d\r\n"


class Place(Private):
    """Memory that can fail."""

    fails_at = 1 << 40

    def write(self, data: bytes | memoryview) -> None:
        if self.filled > self.fails_at:
            raise MemoryError("no more")
        super().write(data)


class Taking:
    """An application that receives bodies into memory: a path of digits is where it fails; /late asks late."""

    def __init__(self) -> None:
        self.left = 0
        self.bodies: list[bytes] = []
        self.ways: list[bool] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        memory = Place(int(dict(scope["headers"])[b"content-length"]))
        path, said = scope["path"].strip("/"), b"taken"
        if path.isdigit():
            memory.fails_at = int(path)
        if path == "late":
            await asyncio.sleep(0.05)
        try:
            way = await scope["state"][INTO](scope["headers"], memory)
            self.ways.append(way)
            while not way:
                message = await receive()
                memory.write(message["body"])
                way = not message["more_body"]
            self.bodies.append(bytes(memory.finish()))
        except ClientDisconnect:
            self.left += 1
            return
        except MemoryError:
            said = b"fails"
        told = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": said})


@pytest.fixture(params=["asyncio", "uvloop"])
def factory(request: pytest.FixtureRequest) -> Any:
    """Makes the event loop that is served on."""
    if request.param == "asyncio":
        return asyncio.new_event_loop
    if importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not there")
    return pytest.importorskip("uvloop").new_event_loop


def exchanged(factory: Any, *pieces: bytes, answers: int) -> Taking:
    """What an application has taken of these bytes, sent one after the other on one connection that is then closed."""
    taking = Taking()

    async def run() -> None:
        async with serving(taking) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            held = b""
            while answers and (held.count(b"HTTP/1.1 200") < answers or not held.endswith((b"taken", b"fails"))):
                held += await asyncio.wait_for(reader.read(1000), 10)
            writer.close()
            until = asyncio.get_running_loop().time() + 10
            while not (answers or taking.left) and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            taking.bodies.append(held)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())
    return taking


def head(path: str = "/", length: int = len(LONG), more: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\n" % path.encode() + HEADERS % length + more + b"\r\n"


def test_a_long_body_goes_into_its_place(factory: Any) -> None:
    """Whatever comes with the head, and however the rest is cut."""
    for cut in (0, 1, 100_000, len(LONG) - 1):
        found = exchanged(factory, head() + LONG[:cut], LONG[cut:-1], LONG[-1:], answers=1)
        assert found.bodies[0] == LONG
        assert found.ways == [True]


def test_what_follows_is_the_next_request(factory: Any) -> None:
    """In the same piece as the end of a body; and again, into its place or past it."""
    parts = (head() + LONG[:10], LONG[10:] + head("/late", 3) + b"abc" + head() + LONG[:5], LONG[5:])
    found = exchanged(factory, *parts, answers=3)
    assert found.bodies[:3] == [LONG, b"abc", LONG]
    assert found.ways == [True, False, True]


def test_a_body_that_is_there_is_not_waited_for(factory: Any) -> None:
    found = exchanged(factory, head("/late", 5) + b"short", answers=1)
    assert (found.bodies[0], found.ways) == (b"short", [False])


def test_who_asks_whether_to_go_on_is_told(factory: Any) -> None:
    found = exchanged(factory, head(more=b"Expect: 100-continue\r\n"), LONG, answers=1)
    assert found.bodies[0] == LONG
    assert found.bodies[1].startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_after_a_failure_the_rest_comes_to_nothing_and_the_connection_goes_on(factory: Any) -> None:
    found = exchanged(factory, head("/300000") + LONG[:1_000_000], LONG[1_000_000:] + head() + LONG, answers=2)
    assert found.bodies[0] == LONG
    assert found.bodies[1].count(b"fails") == 1


def test_who_leaves_in_the_middle_is_gone(factory: Any) -> None:
    found = exchanged(factory, head() + LONG[:1_000_000], answers=0)
    assert (found.left, found.bodies) == (1, [b""])
