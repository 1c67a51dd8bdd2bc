"""The short lane: a small call that has nothing out of the ordinary, from its bytes to the worker and back, without the
objects that a request has otherwise.

Most requests on a connection have a head that an earlier one had, but for the Content-Length. What such a head comes
to (who calls, which operation, in which session, in which form) is found out once, by the functions that find it out
for any other request, and remembered with its bytes for as long as the connection lives. What may change meanwhile is
looked at anew for each: the gate, the keys, the rate. Then the body becomes a program as ever, the worker is told, and
its answer is written when it comes in: no task, no messages, no route.

Whatever is not as usual is left to the long way, which knows all there is to know: `begin` then has done nothing, and
the server feeds the same bytes to its parser. So a refusal is written there and nowhere else, but for the worker's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.types import Scope

from app import errors, hangups
from app.answers import Answer, Body, head_of
from app.deps import AS_JSON, OFF_LOOP_BYTES, Call, document_of, is_json
from app.security import TIMING, Exchange, Guard, finished
from app.watch import Done, route_of
from app.wire import arguments, form, json_read, json_write, media
from engine.errors import EngineError, Gone, NoSuchDevice, NoSuchSession
from engine.service import Pending, Timing, Told

MAX_BODY = 65_536  # bytes: what is longer comes in pieces
# A head with one of these is not for here; what the others say wrongly is found when it is read.
_UNUSUAL = frozenset(
    (
        b"content-encoding",
        b"expect",
        b"idempotency-key",
        b"if-match",
        b"if-none-match",
        b"prefer",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_QUERY = frozenset(("session", "values", "int64"))
_ELSEWHERE = (Gone, NoSuchDevice, NoSuchSession)  # where the session may have to be moved, or looked for anew


@dataclass(frozen=True, slots=True)
class Way:
    """What a route has of its own: `call` reads a request's head, `program` makes the program of a body, `answer` the
    answer of a reply. `stepless`: to the caller there are no steps."""

    call: Callable[[Request], Call]
    program: Callable[[str, json_read.Document, arguments.Kinds], dict[str, Any]]
    answer: Callable[[str, dict[str, Any], Call], dict[str, Any]]
    stepless: bool = False


class Connection(Protocol):
    """What the lane needs of a connection. `default_headers`: what the server puts before all others. `keep_alive`:
    whether more requests may come."""

    flight: Flight | None
    counted: bool
    keep_alive: bool

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]: ...
    def answered(self, data: bytes) -> None: ...


class Head:
    """What the head of a request comes to."""

    __slots__ = ("call", "key", "op", "owner", "route", "scope", "session", "shared_with", "state", "template", "way")

    def __init__(self, scope: Scope, way: Way, call: Call, shared_with: str | None, state: object, root: str) -> None:
        self.scope, self.way, self.call, self.shared_with = scope, way, call, shared_with
        self.state = state  # of the keys, when this was found out
        self.op: str = scope.get("path_params", {}).get("op", "")
        self.session, self.owner, self.key = call.session, call.owner, call.principal.key
        self.route = route_of(scope)
        self.template = _template(call.exchange.simulated, shared_with, root)


class _Blanks(Exchange):
    """An exchange of which everything is still to be filled in."""

    def __init__(self, *, simulated: bool) -> None:
        super().__init__(simulated=simulated)
        self.request_id = "%s"

    def server_timing(self) -> str:
        return TIMING


def _template(simulated: bool, shared_with: str | None, root: str) -> bytes:
    """The headers of an answer in JSON; its length, the request's id and the three times are to be filled in."""
    filled = (b"content-length", b"x-request-id", b"server-timing")
    headers = [(n, b"%d" if n == filled[0] else v) for n, v in Answer(b"", 200, AS_JSON).raw_headers]
    headers = finished(headers, _Blanks(simulated=simulated), shared_with, root)
    assert tuple(name for name, _ in headers if name in filled) == filled
    lines = [(name, value if name in filled else value.replace(b"%", b"%%")) for name, value in headers]
    return b"".join([b"%b: %b\r\n" % line for line in lines]) + b"\r\n"


class Lane:
    """The lane of an application, past its `guard`. `ways`: of the handlers whose requests may take it."""

    def __init__(self, app: Any, guard: Guard, ways: Mapping[Any, Way]) -> None:
        self.app, self.guard, self.ways = app, guard, ways
        self.service, self.kinds = app.state.house.service, app.state.house.kinds
        self._default: list[tuple[bytes, bytes]] | None = None
        self._begin = b""

    def look(self, scope: Scope) -> Head | None:
        """What a POST request's head comes to, of a scope as the server makes it; None where it is for the long way."""
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]) or not _UNUSUAL.isdisjoint(headers):
            return None
        if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
            return None
        scope["app"] = self.app
        scope["curlgrad.exchange"] = Exchange(simulated=self.guard.simulated)
        try:
            handler, shared_with = self.guard.looked_at(scope)
            way = None if handler is None else self.ways.get(handler)
            if way is None:
                return None
            call = way.call(Request(scope))
            kind = call.content_type
            if (
                call.form != media.JSON
                or not is_json(kind)
                or kind == form.MEDIA_TYPE
                or not _QUERY.issuperset(call.query)
            ):
                return None
            return Head(scope, way, call, shared_with, self.guard.keys.state, self.guard.root_path)
        except EngineError:
            return None

    def stale(self, head: Head) -> bool:
        """Whether keys have changed since a head was looked at."""
        return head.state is not self.guard.keys.state

    def begin(self, head: Head, body: bytes, connection: Connection) -> bool:
        """Begins a request, and tells the connection what to send when it is answered. False where nothing was begun:
        then the long way is to be taken."""
        guard, key = self.guard, head.key
        guard.keys.refresh()
        if guard.gate.closed or len(body) > guard.max_body or head.state is not guard.keys.state:
            return False
        begun = time.perf_counter()
        try:
            program = head.way.program(head.op, document_of(json_write.MEDIA_TYPE, body), self.kinds)
        except Exception:  # noqa: BLE001 - whatever it is, the long way comes upon it too, and tells
            return False
        if key is not None:
            if guard.keys.expired(key) or guard.rates.wait(key.id):
                return False
            connection.counted = True  # and is not again, if it comes to the long way
        flight = Flight(self, head, connection, program, begun)
        flight.pending = self.service.start_run(head.owner, head.session, program, head.call.values, flight)
        if flight.pending is None:
            return False
        connection.flight, connection.counted = flight, False
        guard.gate.inside += 1
        for watcher in guard.watchers:
            watcher.begun(head.scope)
        return True

    def first_lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Status line and the server's own headers of an answer that is as it should be."""
        if headers is not self._default:  # they are made anew every second
            self._default, self._begin = headers, head_of(200, headers)
        return self._begin


class Flight(Exchange, Told):
    """One request on the lane, and its exchange."""

    __slots__ = ("_again", "_task", "begun", "connection", "head", "lane", "over", "pending", "program")

    def __init__(self, lane: Lane, head: Head, connection: Connection, program: dict[str, Any], begun: float) -> None:
        super().__init__(simulated=lane.guard.simulated)
        self.lane, self.head, self.program, self.begun = lane, head, program, begun
        self.connection: Connection | None = connection
        self.pending: Pending | None = None
        self.over = self._again = False
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------ what the worker says

    def done(self) -> bool:
        return self.over

    def set_result(self, result: tuple[Any, Timing], /) -> None:
        if self.over:
            return
        reply, timing = result
        self.queue_ms, self.run_ms = timing.queue_ms, timing.run_ms
        call = self.head.call
        try:
            value = call.marked(self.head.way.answer(self.head.op, reply, call))
            if json_write.weight(value) >= OFF_LOOP_BYTES:
                self._task = asyncio.get_running_loop().create_task(self._write_elsewhere(value))
                return
            start = time.perf_counter()
            body, told = call.written(value)
        except Exception as error:  # noqa: BLE001 - the last door, as the guard's
            self._fail(error)
            return
        self._succeed(body, told, start)

    def set_exception(self, exception: BaseException, /) -> None:
        if self.over:
            return
        if isinstance(exception, _ELSEWHERE) and not self._again:
            self._again = True
            self._task = asyncio.get_running_loop().create_task(self._run_again())
        else:
            self._fail(exception)

    async def _run_again(self) -> None:
        """By the way that can wait; nothing was done yet."""
        head = self.head
        try:
            result = await self.lane.service.run(head.owner, head.session, self.program, head.call.values)
        except Exception as error:  # noqa: BLE001 - it is told
            self.set_exception(error)
        else:
            self.set_result(result)

    async def _write_elsewhere(self, value: Any) -> None:
        start = time.perf_counter()
        try:
            body, told = await asyncio.to_thread(self.head.call.written, value)
        except Exception as error:  # noqa: BLE001 - the last door, as the guard's
            self._fail(error)
        else:
            self._succeed(body, told, start)

    # ------------------------------------------------ what the client hears

    def hung_up(self) -> None:
        """Nobody is there to be answered. As on the long way, what ends at once may end."""
        left = self.begun + hangups.LOOK_AFTER_S - time.perf_counter()
        asyncio.get_running_loop().call_later(max(left, 0), self._withdraw)

    def _withdraw(self) -> None:
        if self.over:
            return
        if self.pending is not None:
            self.lane.service.withdraw(self.pending)
        if self._task is not None:
            self._task.cancel()
        self._fail(hangups.gone())

    def _succeed(self, body: Body, told: Mapping[str, str], start: float) -> None:
        if self.over:
            return
        connection, head = self.connection, self.head
        assert connection is not None
        self.encode_ms = (time.perf_counter() - start) * 1e3
        if told is AS_JSON and connection.keep_alive:
            blanks = (len(body), self.request_id.encode(), self.queue_ms, self.run_ms, self.encode_ms)
            first = self.lane.first_lines(connection.default_headers)
            self._end(200, b"".join((first, head.template % blanks, body)))  # type: ignore[arg-type]
        else:
            self._send(200, Answer(body, 200, told))

    def _fail(self, error: BaseException) -> None:
        scope = {**self.head.scope, "curlgrad.exchange": self}
        if isinstance(error, EngineError):
            if self.head.way.stepless:
                error.step = error.round = None
            response = errors.told(error, scope)
        else:
            assert isinstance(error, Exception)
            response = errors.unexpected(error, scope)
        self._send(response.status_code, response)

    def _send(self, status: int, response: Any) -> None:
        connection = self.connection
        assert connection is not None
        headers = finished(response.raw_headers, self, self.head.shared_with, self.lane.guard.root_path)
        if not connection.keep_alive:
            headers.append((b"connection", b"close"))
        self._end(status, b"".join((head_of(status, connection.default_headers, headers), b"\r\n", response.body)))

    def _end(self, status: int, data: bytes) -> None:
        """The answer is written, and the request over."""
        connection, self.connection, self.pending, self._task = self.connection, None, None, None
        assert connection is not None
        self.over, self.status = True, status
        guard, head = self.lane.guard, self.head
        guard.gate.inside -= 1
        done = Done(head.scope, self, "POST", head.route, status, time.perf_counter() - self.begun)
        for watcher in guard.watchers:
            watcher.done(done)
        connection.answered(data)
