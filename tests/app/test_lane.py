"""The short lane beside the long way: whatever is sent, both say the same, count the same and log the same; and what
the short one is not for it leaves alone."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools")

import uvicorn

from app import hangups, keys
from app.lane import Flight, Lane
from app.main import create_app
from app.server import _HEADS, Protocol
from app.settings import Settings

ADD = b'{"input": [1.0, 2.0], "other": [3.0, 4.0], "out_name": "z"}'
PROGRAM = b'{"steps": [{"op": "add", "args": {"input": [1], "other": 2}, "out": "s"}], "return": ["s"]}'
TIMES = 4  # a head is taken the short way from the second time on
VARYING = ("date", "x-request-id", "server-timing")


class Long(Protocol):
    """The same server without the lane."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.lane = None


def asked(
    path: str = "/v1/ops/add",
    body: bytes = ADD,
    *lines: str,
    method: str = "POST",
    version: str = "1.1",
    host: str = "127.0.0.1",
    kind: str = "application/json",
    length: int | None = None,
) -> bytes:
    said = [f"Host: {host}", f"Content-Type: {kind}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join((f"{method} {path} HTTP/{version}", *said, *lines, "", "")).encode() + body


class Talk:
    """A connection to a server, and what is heard on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def hear(self, *, bodiless: bool = False) -> tuple[bytes, list[tuple[str, str]], bytes]:
        """Status line, headers, body; what differs from request to request is left out."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        first, *lines = head[:-4].split(b"\r\n")
        headers = [(n.lower(), v) for n, _, v in (line.decode("latin-1").partition(": ") for line in lines)]
        length = int(dict(headers).get("content-length", "0"))
        body = b"" if bodiless else await asyncio.wait_for(self.reader.readexactly(length), 20)
        varying = VARYING
        if dict(headers).get("content-encoding") == "gzip":
            body, varying = gzip.decompress(body), (*VARYING, "content-length")
        body = re.sub(rb'"(request_id|etag)":"[^"]*"', rb'"\1":"-"', body)
        body = re.sub(rb"etag is '[^']*'", b"etag is -", body)
        return first, [(n, "-" if n in varying else v) for n, v in headers], body

    async def ask(self, data: bytes, **how: Any) -> tuple[bytes, list[tuple[str, str]], bytes]:
        self.writer.write(data)
        return await self.hear(**how)


class House:
    """A server of one of the two kinds. `flights`: requests that took the lane."""

    def __init__(self, app: Any, port: int, server: uvicorn.Server) -> None:
        self.app, self.port, self.server = app, port, server
        self.flights = 0
        self.talks: list[Talk] = []

    async def talk(self) -> Talk:
        talk = Talk(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24))
        self.talks.append(talk)
        return talk

    def counts(self) -> dict[Any, int]:
        return {tuple(key): n for *key, n in self.app.state.house.metrics.counts()["requests"]}


@contextlib.asynccontextmanager
async def running(protocol: Any, **settings: Any) -> AsyncIterator[House]:
    app = create_app(Settings(**{"workers": "inline", **settings}))
    how: Any = {"loop": "asyncio", "log_level": "error", "access_log": False, "proxy_headers": False}
    how["timeout_keep_alive"] = 75
    config = uvicorn.Config(app, port=0, http=protocol, **how)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    begin = Lane.begin
    try:
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        house = House(app, server.servers[0].sockets[0].getsockname()[1], server)

        def counted(self: Lane, *args: Any) -> bool:
            begun = begin(self, *args)
            house.flights += begun
            return begun

        Lane.begin = counted  # type: ignore[method-assign]
        yield house
        for talk in house.talks:
            talk.writer.close()
        assert app.state.house.gate.inside == 0
        assert app.state.house.metrics.counts()["now"] == 0
    finally:
        Lane.begin = begin  # type: ignore[method-assign]
        server.should_exit = True
        await serving


def both(caplog: Any, work: Callable[[House], Any], **settings: Any) -> tuple[list[Any], int]:
    """What `work` returns of either kind of server, with what it counted and logged; and the number of flights."""
    found: list[Any] = []
    flights = 0
    for protocol in (Protocol, Long):

        async def run(protocol: Any = protocol) -> tuple[Any, Any, int]:
            async with running(protocol, **settings) as house:
                return await work(house), house.counts(), house.flights

        caplog.clear()
        with caplog.at_level(logging.DEBUG, "curlgrad.access"):
            heard, counts, number = asyncio.run(run())
        logged = [
            {k: v for k, v in record.fields.items() if k not in ("ms", "request_id")}
            for record in caplog.records
            if record.name == "curlgrad.access"
        ]
        found.append((heard, counts, logged))
        flights = flights or number
    return found, flights


LAW = {
    "an operation": (asked(), 3),
    "a program": (asked("/v1/programs", PROGRAM), 3),
    "a result that is a number": (asked("/v1/ops/item", b'{"input": 3}'), 3),
    "a session by its query": (asked("/v1/ops/add?session=default&values=none&int64=string"), 3),
    "a session by its header": (asked("/v1/ops/add", ADD, "Curlgrad-Session: default"), 3),
    "two sessions": (asked("/v1/ops/add?session=a", ADD, "Curlgrad-Session: b"), 0),
    "no such session": (asked("/v1/ops/add?session=a"), 0),
    "no content type": (
        b'POST /v1/ops/add HTTP/1.1\r\nHost: localhost\r\ncontent-length: 28\r\n\r\n{"input": [1], "other": [2]}',
        3,
    ),
    "another content type": (asked(kind="text/plain"), 0),
    "JSON by another name": (asked(kind="application/x+json; charset=utf-8"), 3),
    "a form": (asked(body=b"input=[1]&other=[2]", kind="application/x-www-form-urlencoded"), 0),
    "a name that is taken": (asked("/v1/ops/add", ADD, "If-None-Match: *"), 0),
    "a condition": (asked("/v1/ops/add_", b'{"input": "z", "other": 1}', 'If-Match: "x"'), 0),
    "a job": (asked("/v1/ops/add", ADD, "Prefer: respond-async, wait=20"), 0),
    "a bad key of a repeat": (asked("/v1/ops/add", ADD, "Idempotency-Key: a b"), 0),
    "what cannot be added": (asked(body=b'{"input": [1, 2], "other": [1, 2, 3]}'), 3),
    "the same in Korean": (asked("/v1/ops/add", b'{"input": "nothing"}', "Accept-Language: ko"), 3),
    "the wrong step of a program": (asked("/v1/programs", PROGRAM.replace(b'"add"', b'"matmul"')), 3),
    "a missing argument": (asked(body=b'{"input": [1]}'), 3),
    "another device": (asked("/v1/ops/ones", b'{"size": [2], "device": "cuda"}'), 3),
    "no such operation": (asked("/v1/ops/no_such_thing"), 3),
    "an operation of ours": (asked("/v1/ops/_thing"), 0),
    "no JSON": (asked(body=b"{"), 0),
    "a list": (asked(body=b"[]"), 0),
    "a key twice": (asked(body=b'{"input": 1, "input": 2, "other": 3}'), 0),
    "no body": (asked(body=b""), 3),
    "an unknown field of a program": (asked("/v1/programs", b'{"stepz": []}'), 0),
    "an empty program": (asked("/v1/programs", b'{"steps": []}'), 3),
    "a host that is not ours": (asked(host="evil.example"), 0),
    "another page": (asked("/v1/ops/add", ADD, "Origin: http://evil.example"), 0),
    "another site": (asked("/v1/ops/add", ADD, "Sec-Fetch-Site: cross-site"), 0),
    "a page that may": (asked("/v1/ops/add", ADD, "Origin: http://good.example"), 3),
    "a page that may, refused": (asked("/v1/ops/add", b'{"input": [1]}', "Origin: http://good.example"), 3),
    "an explanation": (asked("/v1/ops/add?explain=true"), 0),
    "a rehearsal": (asked("/v1/ops/add?dry_run=true"), 0),
    "an unknown parameter": (asked("/v1/ops/add?what=1"), 0),
    "a wrong parameter": (asked("/v1/ops/add?values=some"), 0),
    "a form that is not offered": (asked("/v1/ops/add", ADD, "Accept: text/plain"), 0),
    "a form that is": (asked("/v1/ops/add", ADD, "Accept: text/html, */*;q=0.1"), 3),
    "a program as a file": (asked("/v1/programs?as=safetensors", PROGRAM), 0),
    "coded": (asked("/v1/ops/arange?values=all", b'{"end": 4000}', "Accept-Encoding: gzip"), 3),
    "not worth coding": (asked("/v1/ops/arange", b'{"end": 4}', "Accept-Encoding: gzip"), 3),
    "long": (asked("/v1/ops/ones?values=all", b'{"size": [300, 400]}'), 3),
    "NaN": (asked(body=b'{"input": "NaN", "other": [1, NaN]}'), 0),
    "a coding of the body": (asked("/v1/ops/add", ADD, "Content-Encoding: gzip"), 0),
    "a header twice": (asked("/v1/ops/add", ADD, "Accept-Language: ko", "Accept-Language: en"), 0),
    "kept alive": (asked("/v1/ops/add", ADD, "Connection: Keep-Alive"), 3),
    "a path with signs": (asked("/v1/ops/%61dd"), 0),
    "nothing there": (asked("/v1/nothing"), 0),
    "another method": (asked(method="PUT"), 0),
    "read": (b"GET /v1/ops/add HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
    "too long": (asked(body=b'{"input": [%s]}' % b",".join([b"1"] * 20_000)), None),
    "a large operation": (asked("/v1/ops/sum", b'{"input": [%s]}' % b",".join([b"1"] * 12_000)), None),
}  # fmt: skip


def place(request: bytes) -> bytes:
    """A request's head without its length."""
    return re.sub(rb"Length: \d+", b"", request.partition(b"\r\n\r\n")[0])


@pytest.mark.parametrize("kind", LAW)
def test_both_ways_say_count_and_log_the_same(caplog: Any, kind: str) -> None:
    request, short = LAW[kind]

    async def work(house: House) -> Any:
        talk = await house.talk()
        return [await talk.ask(data) for data in [asked(), *[request] * TIMES, asked()]]

    settings = {"cors_origin": ("http://good.example",), "max_body": 30_000}
    found, flights = both(caplog, work, **settings)
    assert found[0] == found[1]
    assert len(found[0][0]) == TIMES + 2
    if short is not None:
        same = place(request) == place(asked())
        assert flights == (short + same if short else 0) + 1  # one of them the last, whose head is known


def test_a_head_with_another_length_is_the_same_head(caplog: Any) -> None:
    bodies = [b'{"input": %d, "other": %d}' % (7**i, 3**i) for i in range(12)]

    async def work(house: House) -> Any:
        talk = await house.talk()
        return [await talk.ask(asked(body=body)) for body in bodies]

    found, flights = both(caplog, work)
    assert found[0] == found[1]
    assert flights == len(bodies) - 1


def cut(data: bytes, *places: int) -> list[bytes]:
    return [data[a:b] for a, b in zip((0, *places), (*places, len(data)), strict=True)]


HEAD = asked().index(b"\r\n\r\n") + 4


@pytest.mark.parametrize(
    "pieces",
    [
        cut(asked(), HEAD),  # as many clients send
        cut(asked(), 1),
        cut(asked(), HEAD - 1),
        cut(asked(), HEAD + 3),
        cut(asked(), HEAD, HEAD + 3),
        cut(asked(), HEAD, HEAD + 3, HEAD + 9),
        cut(asked() + asked(), HEAD + len(ADD) + 20),
        [asked() + asked()],
        [asked() + asked("/v1/programs", PROGRAM) + asked(body=b"{")],
        [b"\r\n" + asked()],
    ],
)
def test_requests_come_in_pieces_and_several_at_a_time(caplog: Any, pieces: list[bytes]) -> None:
    number = b"".join(pieces).count(b"HTTP/1.1")

    async def work(house: House) -> Any:
        talk = await house.talk()
        heard = [await talk.ask(asked()) for _ in range(3)]
        for _ in range(3):
            for piece in pieces:
                talk.writer.write(piece)
                await asyncio.sleep(0.005)
            heard += [await talk.hear() for _ in range(number)]
        return [*heard, await talk.ask(asked())]

    found, flights = both(caplog, work)
    assert found[0] == found[1]
    assert flights >= 3


@pytest.mark.parametrize("last", [asked("/v1/ops/add", ADD, "Connection: close"), asked(version="1.0")])
def test_the_last_request_of_a_connection(caplog: Any, last: bytes) -> None:
    async def work(house: House) -> Any:
        talk = await house.talk()
        heard = [await talk.ask(asked()) for _ in range(3)]
        heard.append(await talk.ask(last + asked()))
        assert await asyncio.wait_for(talk.reader.read(), 20) == b""
        return heard

    found, flights = both(caplog, work)
    assert found[0] == found[1]
    assert flights == 2


def test_a_body_that_is_announced_first(caplog: Any) -> None:
    async def work(house: House) -> Any:
        talk = await house.talk()
        heard = []
        for _ in range(3):
            heard.append(await talk.ask(asked("/v1/ops/add", b"", "Expect: 100-continue", length=len(ADD))))
            heard.append(await talk.ask(ADD))
        return heard

    found, flights = both(caplog, work)
    assert found[0] == found[1]
    assert flights == 0


def test_what_is_no_http_ends_the_connection(caplog: Any) -> None:
    async def work(house: House) -> Any:
        talk = await house.talk()
        heard = [await talk.ask(asked()) for _ in range(3)]
        talk.writer.write(b"POST /\0 nonsense\r\n\r\n")
        return heard, await asyncio.wait_for(talk.reader.read(), 20)

    found, _ = both(caplog, work)
    assert found[0][0][0] == found[1][0][0]
    assert all(rest.startswith(b"HTTP/1.1 400 ") for (_, rest), *_ in found)


def test_proxied_under_a_path(caplog: Any) -> None:
    async def work(house: House) -> Any:
        talk = await house.talk()
        paths = ("/under/v1/ops/add", "/v1/ops/add", "/other/v1/ops/add")
        return [await talk.ask(asked(path, body)) for path in paths for body in (ADD, b"{}", ADD, b"{}")]

    found, flights = both(caplog, work, root_path="/under")
    assert found[0] == found[1]
    assert flights == 6


def test_a_simulated_device_is_told(caplog: Any) -> None:
    async def work(house: House) -> Any:
        talk = await house.talk()
        return [await talk.ask(asked(body=body)) for body in (ADD, ADD, ADD, b"{}", b"{}")]

    found, flights = both(caplog, work, workers="practice-cuda")
    assert found[0] == found[1]
    assert flights == 4
    assert all(b'"simulated":true' in body for _, _, body in found[0][0])


# ---------------------------------------------------------------- what may change while a head is remembered


def with_key(text: str) -> bytes:
    return asked("/v1/ops/add", ADD, f"Authorization: Bearer {text}")


def test_keys_and_what_becomes_of_them(caplog: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOK_AGAIN_S", 0.0)
    clock = [1e9]

    async def work(house: House) -> Any:
        path = tmp_path / f"{house.port}.json"
        guard_keys = house.app.guard["keys"]
        guard_keys.path, guard_keys._seen = path, None
        monkeypatch.setattr(guard_keys._clock, "time", lambda: clock[0])
        talk = await house.talk()
        heard = [await talk.ask(asked()) for _ in range(3)]  # open still
        (writes, write), (_, reads) = (
            keys.create(path, ["w"], ["write"], expires=clock[0] + 60)[0],
            keys.create(path, ["r"], ["read"])[0],
        )
        heard += [await talk.ask(asked()) for _ in range(3)]
        assert heard[-1][0].split()[1] == b"401"
        for text in (write, reads, "cg_nothing_at_all"):
            heard += [await talk.ask(with_key(text)) for _ in range(4)]
        clock[0] += 61
        heard += [await talk.ask(with_key(write)) for _ in range(2)]
        clock[0] -= 61
        heard += [await talk.ask(with_key(write)) for _ in range(4)]
        keys.revoke(path, [writes.id])
        heard += [await talk.ask(with_key(write)) for _ in range(2)]
        return [(first, headers, re.sub(rb"this key may.*?\"", b"", body)) for first, headers, body in heard]

    found, flights = both(caplog, work)
    for _, _, logged in found:
        for fields in logged:
            fields["key"] = fields["key"] is not None
    assert found[0] == found[1]
    said = [first.split()[1].decode() for first, *_ in found[0][0]]
    assert (
        said
        == ["200"] * 3 + ["401"] * 3 + ["200"] * 4 + ["403"] * 4 + ["401"] * 4 + ["401"] * 2 + ["200"] * 4 + ["401"] * 2
    )
    assert flights >= 2 + 3 + 3


def test_every_request_is_counted_once_by_its_keys_rate(caplog: Any, tmp_path: Path) -> None:
    async def work(house: House) -> Any:
        path = tmp_path / f"{house.port}.json"
        house.app.guard["keys"].path = path
        ((_, text),) = keys.create(path, ["w"], ["write"])
        rates = house.app.guard["rates"]
        rates._clock = lambda: 0.0  # no token comes back
        talk = await house.talk()
        bodies = [ADD, ADD, ADD, b"{", b'{"input": 1}', ADD, ADD]
        said = f"Authorization: Bearer {text}"
        heard = [await talk.ask(asked("/v1/ops/add", body, said)) for body in bodies * 2]
        heard.append(await talk.ask(asked("/v1/ops/add", ADD, said, "Curlgrad-Session: other")))
        return [first for first, _, _ in heard]

    found, flights = both(caplog, work, max_rate=5.0)
    assert found[0][0] == found[1][0]
    assert found[0][1] == found[1][1]
    assert [first.split()[1] for first in found[0][0]].count(b"429") == 2 * 7 + 1 - 10
    assert flights >= 5


def test_a_server_that_ends_begins_nothing_new(caplog: Any) -> None:
    async def work(house: House) -> Any:
        talk = await house.talk()
        heard = [await talk.ask(asked()) for _ in range(3)]
        house.app.state.house.gate.closed = True
        return [*heard, *[await talk.ask(asked()) for _ in range(2)]]

    found, flights = both(caplog, work)
    assert found[0] == found[1]
    assert found[0][0][-1][0].split()[1] == b"503"
    assert flights == 2


SLOW = json.dumps(
    {
        "steps": [
            {"op": "ones", "args": {"size": [150, 150]}, "out": "x"},
            {"repeat": 1_000_000, "steps": [{"op": "mm", "args": {"input": "x", "mat2": "x"}, "out": "y"}]},
        ],
        "return": [],
    }
).encode()


def test_who_hangs_up_cancels_and_is_counted_alike(caplog: Any) -> None:
    async def work(house: House) -> Any:
        talk = await house.talk()
        heard = [await talk.ask(asked("/v1/programs", PROGRAM)) for _ in range(3)]
        talk.writer.write(asked("/v1/programs", SLOW))
        await asyncio.sleep(0.05)
        talk.writer.transport.abort()
        other = await house.talk()
        heard.append(await other.ask(asked()))  # in the same session: it waits for the program, or for its end
        while house.app.state.house.gate.inside:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return heard

    found, flights = both(caplog, work)
    assert found[0][:2] == found[1][:2]
    assert found[0][1][("POST", "/v1/programs", 409)] == 1
    assert flights == 3


def test_who_hangs_up_before_the_body_is_counted_alike(caplog: Any) -> None:
    async def work(house: House) -> Any:
        talk = await house.talk()
        heard = [await talk.ask(asked()) for _ in range(3)]
        talk.writer.write(asked()[:HEAD])
        await asyncio.sleep(0.05)
        talk.writer.transport.abort()
        await asyncio.sleep(0.05)
        return heard

    found, _ = both(caplog, work)
    assert found[0] == found[1]
    assert found[0][1][("POST", "/v1/ops/{op}", 499)] == 1


def test_an_idle_connection_is_closed_in_its_time_and_a_busy_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with running(Protocol) as house:
            house.server.config.timeout_keep_alive = 1
            talk = await house.talk()
            for _ in range(8):
                await talk.ask(asked())
                await asyncio.sleep(0.25)
            assert house.flights == 7
            assert await asyncio.wait_for(talk.reader.read(), 20) == b""

    asyncio.run(run())


def test_a_server_that_shuts_down_answers_what_is_in_flight() -> None:
    async def run() -> None:
        async with running(Protocol) as house:
            talk = await house.talk()
            for _ in range(3):
                await talk.ask(asked("/v1/programs", PROGRAM))
            connection: Any = next(iter(house.server.server_state.connections))
            talk.writer.write(asked("/v1/programs", PROGRAM))
            while connection.flight is None:  # noqa: ASYNC110
                await asyncio.sleep(0)
            connection.shutdown()
            first, headers, _ = await talk.hear()
            assert first == b"HTTP/1.1 200 OK"
            assert ("connection", "close") in headers
            assert await asyncio.wait_for(talk.reader.read(), 20) == b""

    asyncio.run(run())


def test_what_nothing_foresaw_is_a_bug_that_is_logged(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(house: House) -> Any:
        talk = await house.talk()
        heard = [await talk.ask(asked()) for _ in range(3)]
        from app.wire import json_write

        with monkeypatch.context() as patch:
            patch.setattr(json_write, "write", lambda *_: 1 / 0)
            heard.append(await talk.ask(asked()))
        return [*heard, await talk.ask(asked())]

    found, flights = both(caplog, work)
    assert found[0] == found[1]
    assert [first.split()[1] for first, *_ in found[0][0]] == [b"200"] * 3 + [b"500", b"200"]
    assert flights == 4


def test_a_connection_remembers_few_heads_and_none_that_came_once() -> None:
    async def run() -> None:
        async with running(Protocol) as house:
            talk = await house.talk()
            for i in range(5 * _HEADS):
                await talk.ask(asked("/v1/ops/add", ADD, f"Traceparent: {i}"))
            connection: Any = next(iter(house.server.server_state.connections))
            assert set(connection.heads.values()) == {True}
            assert len(connection.heads) <= _HEADS
            assert house.flights == 0

    asyncio.run(run())


def test_a_flight_that_is_over_holds_nothing() -> None:
    async def run() -> None:
        flights: list[Flight] = []
        async with running(Protocol) as house:
            talk = await house.talk()
            await talk.ask(asked())
            connection: Any = next(iter(house.server.server_state.connections))
            end = Flight._end

            def seen(self: Flight, *args: Any) -> None:
                flights.append(self)
                end(self, *args)

            Flight._end = seen  # type: ignore[method-assign]
            try:
                await talk.ask(asked())
            finally:
                Flight._end = end  # type: ignore[method-assign]
            (flight,) = flights
            assert flight.over
            assert flight.connection is flight.pending is connection.flight is None
            flight.set_exception(ValueError("too late"))
            assert hangups.LOOK_AFTER_S > 0

    asyncio.run(run())


@pytest.mark.skipif(sys.platform != "linux", reason="kills a worker's process")
@pytest.mark.parametrize("kept", [False, True])
def test_a_worker_that_dies_in_flight_is_told_alike(caplog: Any, tmp_path: Path, *, kept: bool) -> None:
    async def work(house: House) -> Any:
        talk = await house.talk()
        heard = [await talk.ask(asked("/v1/programs", PROGRAM)) for _ in range(3)]
        talk.writer.write(asked("/v1/programs", SLOW))
        await asyncio.sleep(0.3)
        os.kill(house.app.state.house.service.info()["workers"][0]["pid"], signal.SIGKILL)
        heard.append(await talk.hear())
        while not house.app.state.house.service.ready():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        heard += [await talk.ask(asked("/v1/programs", PROGRAM)) for _ in range(3)]
        return [(first, re.sub(rb"s-[0-9a-f]{32}", b"s-", body)) for first, _, body in heard]

    caplog.set_level(logging.CRITICAL, "curlgrad.supervisor")
    found: list[Any] = []
    for protocol in (Protocol, Long):

        async def run(protocol: Any = protocol) -> Any:
            folder = tmp_path / protocol.__name__ if kept else None
            async with running(protocol, workers="cpu:1", data_dir=folder) as house:
                heard = await work(house)
                assert house.flights == (0 if protocol is Long else house.flights)
                return heard

        found.append(asyncio.run(run()))
    assert found[0] == found[1]
    assert found[0][3][0].split()[1] == b"503"


def test_a_session_that_is_gone_is_made_or_missed_alike(caplog: Any) -> None:
    delete = b"DELETE /v1/sessions/%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
    named = asked("/v1/sessions", b'{"name": "a"}')

    async def work(house: House) -> Any:
        talk, other = await house.talk(), await house.talk()
        heard = [(await other.ask(named))[0]]
        for data in (asked(), asked("/v1/ops/add?session=a")):
            heard += [await talk.ask(data) for _ in range(3)]
        for name in (b"default", b"a"):
            heard.append(await other.ask(delete % name))
        for data in (asked(), asked("/v1/ops/add?session=a")):
            heard += [await talk.ask(data) for _ in range(2)]
        return heard

    found, flights = both(caplog, work)
    assert found[0] == found[1]
    assert flights == 2 + 2 + 1
