"""What leaves the server's protocol: a head and its body together, in order, and nothing kept back."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

pytest.importorskip("httptools")

import httpx
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.main import create_app
from app.server import Protocol, Together, _send_at_once
from app.settings import Settings

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


ADD = b'{"input": [1.0, 2.0], "other": [3.0, 4.0], "out_name": "z"}'


def asked(*lines: bytes, body: bytes = ADD, version: bytes = b"1.1", path: bytes = b"/v1/ops/add") -> bytes:
    told = (b"host: 127.0.0.1", b"content-type: application/json", b"content-length: %d" % len(body), *lines)
    return b"POST %s HTTP/%s\r\n%s\r\n\r\n" % (path, version, b"\r\n".join(told)) + body


def answers(protocol: Any, *requests: bytes, of: int) -> list[tuple[bytes, dict[bytes, bytes], bytes, bool]]:
    """What a server says to the requests, sent in one go on one connection, which is left open: status line, headers,
    body of each of `of` answers, and whether it hung up then."""

    async def run() -> list[tuple[bytes, dict[bytes, bytes], bytes, bool]]:
        app = create_app(Settings(workers="inline"))
        server = uvicorn.Server(uvicorn.Config(app, port=0, http=protocol, loop="asyncio", log_level="error"))
        serving = asyncio.create_task(server.serve())
        try:
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"".join(requests))
            found = []
            for _ in range(of):
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
                first, *lines = head[:-4].split(b"\r\n")
                headers = dict(line.split(b": ", 1) for line in lines)
                assert len(headers) == len(lines)
                body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
                found.append((first, headers, body, False))
            try:
                rest = await asyncio.wait_for(reader.read(1), 0.2)
            except TimeoutError:
                rest = None
            assert rest in (None, b"")
            writer.close()
            return [(*one[:3], rest is not None) for one in found]
        finally:
            server.should_exit = True
            await serving

    return asyncio.run(run())


CHANGING = (b"date", b"x-request-id", b"server-timing", b"content-length")


@pytest.mark.parametrize(
    "requests, of",
    [
        ((asked(),), 1),
        ((asked(), asked(), asked(path=b"/v1/ops/mul?explain=true")), 3),
        ((asked(b"connection: close"),), 1),
        ((asked(version=b"1.0"),), 1),
        ((asked(b"connection: keep-alive", version=b"1.0"),), 1),
        ((asked(b"expect: 100-continue"),), 2),
        ((asked(body=b"{"), asked()), 2),
        ((asked(path=b"/v1/ops/no_such_thing"), asked()), 2),
        ((asked(b"origin: http://elsewhere.example"),), 1),
    ],
)
def test_what_is_sent_at_once_is_what_the_messages_of_asgi_send(requests: tuple[bytes, ...], of: int) -> None:
    ours, theirs = answers(Protocol, *requests, of=of), answers(HttpToolsProtocol, *requests, of=of)
    for (status, headers, _, closed), (status_there, headers_there, _, closed_there) in zip(ours, theirs, strict=True):
        assert status == status_there
        assert closed == closed_there
        assert list(headers) == list(headers_there)
        for name in set(headers) - set(CHANGING):
            assert headers[name] == headers_there[name]
    for status, _, body, _ in ours:
        assert b'"values":[' in body or b" 200 " not in status


class Cycle:
    """As much of uvicorn's as sending needs."""

    def __init__(self, **said: Any) -> None:
        self.response_started = self.response_complete = self.disconnected = self.access_log = False
        self.waiting_for_100_continue, self.keep_alive = True, True
        self.default_headers = [(b"date", b"today")]
        self.scope = {"method": "POST"}
        self.flow = type("Flow", (), {"write_paused": False})()
        self.transport, self.message_event, self.done = Sent(), asyncio.Event(), 0
        for name, value in said.items():
            setattr(self, name, value)

    def on_response(self) -> None:
        self.done += 1


def test_an_answer_at_once_ends_the_exchange() -> None:
    cycle: Any = Cycle(keep_alive=False)
    assert _send_at_once(cycle, 200, [(b"content-length", b"2")], b"ok")
    sent = b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    assert cycle.transport.writes == [sent]
    assert cycle.transport.closed
    assert cycle.response_complete
    assert cycle.message_event.is_set()
    assert cycle.done == 1
    assert not _send_at_once(cycle, 200, [(b"content-length", b"2")], b"ok")


@pytest.mark.parametrize(
    "said, headers, body",
    [
        ({"disconnected": True}, [], b""),
        ({"scope": {"method": "HEAD"}}, [], b""),
        ({"access_log": True}, [], b""),
        ({}, [], bytes(100_000)),
        ({}, [(b"etag", b"x\r\nset-cookie: stolen=1")], b""),
        ({}, [(b"etag", b"x\nset-cookie: stolen=1")], b""),
        ({}, [(b"etag", b"x\r")], b""),
        ({"flow": type("Flow", (), {"write_paused": True})()}, [], b""),
    ],
)
def test_what_cannot_go_at_once_is_left_to_the_messages(said: Any, headers: Any, body: bytes) -> None:
    cycle: Any = Cycle(**said)
    assert not _send_at_once(cycle, 200, headers, body)
    assert cycle.transport.writes == []
    assert not cycle.response_started
    assert cycle.done == 0


def test_requests_leave_nothing_for_the_garbage_collector() -> None:
    """Over a real connection, since what the protocol holds is part of it; the server's collector seldom looks."""

    async def run() -> int:
        app = create_app(Settings(workers="inline"))
        server = uvicorn.Server(uvicorn.Config(app, port=0, http=Protocol, loop="asyncio", log_level="error"))
        serving = asyncio.create_task(server.serve())
        try:
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname()[:2])

            async def ask(request: bytes) -> None:
                writer.write(request)
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
                await reader.readexactly(int(length[16:]))

            kinds = [asked(), asked(body=b"{"), asked(path=b"/v1/tensors", body=b'{"data": [1.0]}')]
            for request in kinds * 3:
                await ask(request)
            gc.collect()
            gc.disable()
            for request in kinds * 20:
                await ask(request)
            found = gc.collect()
            gc.enable()
            writer.close()
            return found
        finally:
            gc.enable()
            server.should_exit = True
            await serving

    assert asyncio.run(run()) < 60
