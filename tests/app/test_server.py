"""What leaves the server's protocol: a head and its body together, in order, and nothing kept back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("httptools")

import httpx
import uvicorn

from app.server import Protocol, Together

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Sent:
    """A transport that remembers what it was given."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def sent(*data: Any, turn_after: int | None = None, close: bool = False) -> list[bytes]:
    async def run() -> list[bytes]:
        inner = Sent()
        together = Together(inner)  # type: ignore[arg-type]
        for i, part in enumerate(data):
            together.write(part)
            if i == turn_after:
                await asyncio.sleep(0)
        if close:
            together.close()
            assert together.is_closing()
        else:
            await asyncio.sleep(0)
        return inner.writes

    return asyncio.run(run())


def test_a_head_goes_with_its_body() -> None:
    assert sent(HEAD, b"body") == [HEAD + b"body"]
    assert sent(HEAD, memoryview(b"body")) == [HEAD + b"body"]
    assert sent(HEAD, b"a", HEAD, b"b") == [HEAD + b"a", HEAD + b"b"]


def test_a_long_body_is_not_copied_to_its_head() -> None:
    long = bytes(100_000)
    assert sent(HEAD, long, b"more") == [HEAD, long, b"more"]


def test_a_head_without_a_body_waits_for_one_turn_of_the_loop() -> None:
    assert sent(HEAD) == [HEAD]
    assert sent(HEAD, b"event", turn_after=0) == [HEAD, b"event"]


def test_nothing_is_lost_at_the_end() -> None:
    assert sent(HEAD, close=True) == [HEAD]


def test_what_is_no_head_goes_at_once_and_in_order() -> None:
    continued = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"".join(sent(continued, HEAD, b"body")) == continued + HEAD + b"body"
    assert sent(b"x", b"HTTP/1.1 in a body", b"y") == [b"x", b"HTTP/1.1 in a body", b"y"]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Sends back what came, with how many pieces it came in."""
    if scope["type"] != "http":
        return
    body, pieces, more = b"", 0, True
    while more:
        message = await receive()
        assert type(message["body"]) is bytes
        body, pieces, more = body + message["body"], pieces + 1, message["more_body"]
        await asyncio.sleep(0.001)
    told = [(b"content-length", b"%d" % len(body)), (b"pieces", b"%d" % pieces)]
    await send({"type": "http.response.start", "status": 200, "headers": told})
    await send({"type": "http.response.body", "body": body})


def test_bodies_come_whole_however_they_are_cut() -> None:
    """Over a real connection, kept for several requests: short, empty, long, and in chunks of any size."""

    async def run() -> None:
        config = uvicorn.Config(echo, port=0, http=Protocol, loop="asyncio", log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        try:
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            long = bytes(range(256)) * 4000

            async def cut() -> Any:
                for size in (1, 70_000, 3, 500_000):
                    yield long[:size]

            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                for body in (b"x", b"", long, b"y" * 100):
                    assert (await http.post("/", content=body)).content == body
                found = await http.post("/", content=cut())
                assert found.content == long[:1] + long[:70_000] + long[:3] + long[:500_000]
                assert int(found.headers["pieces"]) > 1
        finally:
            server.should_exit = True
            await serving

    asyncio.run(run())
