"""What is done otherwise than in uvicorn's protocol: the head of an answer and the first part of its body leave in one
write, a small answer that is there in whole is sent without being taken apart, what was read of a body is handed on as
it is, and a long body can be received past the parser (app/receiving.py).

uvicorn writes head and body one after the other, and uvloop sends each at once: two system calls, two packets, and a
client that is woken twice. Of what a small call costs the web process, that is a tenth. What it reads it copies twice.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.answers import AT_ONCE, head_of
from app.deps import INTO
from app.lane import MAX_BODY, Flight, Head, Lane
from app.receiving import Into
from app.security import COUNTED

MAX_HEAD = 4096  # bytes of a head that is remembered
_HEADS = 64  # remembered of a connection: one for each operation and session that it calls
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?(\d{1,9})\r\n")
_FOLDED = re.compile(rb"\r\n[ \t]")
_CLOSE = ((b"connection", b"close"),)
_SMALL = 65_536  # bytes: what is shorter is joined to its head by a copy


class Together:
    """A transport that holds an answer's head back until its body's first part comes, or the loop turns."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.head = b""
        self._soon = asyncio.get_running_loop().call_soon

    def write(self, data: bytes | memoryview) -> None:
        head = self.head
        if not head and type(data) is bytes and data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n"):
            self.head = data
            self._soon(self.flush)
            return
        self.head = b""
        if not head:
            self.transport.write(data)
        elif len(data) <= _SMALL:
            self.transport.write(b"".join((head, data)))
        else:
            self.transport.write(head)
            self.transport.write(data)

    def flush(self) -> None:
        """Sends a head that no body followed."""
        if self.head:
            self.transport.write(self.head)
            self.head = b""

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol over such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Together(transport))  # type: ignore[arg-type]
        self.app_state = {**self.app_state, INTO: Into(self)}
        self.plain = transport
        # The short lane (app/lane.py).
        self.lane: Lane | None = None if self.access_log else getattr(getattr(self.app, "state", None), "lane", None)
        self.between = True  # the parser has seen whole requests and nothing of another
        self.heads: dict[bytes, Head | bool | None] = {}  # True: seen once; None: for the long way
        self.flight: Flight | None = None
        self.held = b""  # the head of a request that may take the lane when its body comes
        self.behind: list[bytes] = []  # what came in during a flight
        self.counted = self.lost = False
        self.keep_alive = True
        self.quiet = -math.inf  # when the last flight ended

    # ------------------------------------------------ the short lane

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return self.server_state.default_headers

    def data_received(self, data: bytes) -> None:
        if self.flight is not None:
            self.behind.append(data)
            if sum(map(len, self.behind)) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            return
        if self.held:
            data, self.held = self.held + data, b""
        if self.lane is None or not self._goes_short(self.lane, data):
            self._go_long(data)

    def _go_long(self, data: bytes) -> None:
        try:
            super().data_received(data)
        finally:
            self.counted = False

    def _goes_short(self, lane: Lane, data: bytes) -> bool:
        """Whether what came in is dealt with: one whole request whose head is known, or such a head alone."""
        cycle: RequestResponseCycle | None = self.cycle
        if not self.between or not (cycle is None or cycle.response_complete) or not data.startswith(b"POST /"):
            return False
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD) + 4
        length = _LENGTH.search(data, 0, end) if end > 4 else None
        if length is None or self.flow.write_paused or self.plain.is_closing():
            return False
        start, stop = length.span(1)
        place = data[:start] + data[stop:end]
        head = self.heads.get(place, False)
        if type(head) is bool:
            if len(self.heads) >= _HEADS:
                self.heads.clear()
            if not head:
                self.heads[place] = True
                return False
            head = self.heads[place] = self._learn(lane, data[:end])
        if head is None:
            return False
        body = int(data[start:stop])
        if len(data) == end + body:
            if lane.begin(head, data[end:], self):
                return True
            if lane.stale(head):
                del self.heads[place]
        elif len(data) == end and body <= MAX_BODY:
            self.held = data
            return True
        return False

    def _learn(self, lane: Lane, head: bytes) -> Head | None:
        """What the lane makes of a head, by another parser of the same kind."""
        found = _Parsed()
        parser = httptools.HttpRequestParser(found)
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        url = httptools.parse_url(found.url) if found.complete else None
        if url is None or parser.get_http_version() != "1.1" or b"%" in url.path or _FOLDED.search(head):
            return None
        if not head.count(b"\n") == head.count(b"\r\n") == len(found.headers) + 2:
            return None  # its end may be elsewhere than it seems
        path = url.path.decode("ascii")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "scheme": self.scheme,
            "server": self.server,
            "client": self.client,
            "root_path": self.root_path,
            "path": self.root_path + path,
            "raw_path": self.root_path.encode("ascii") + url.path,
            "query_string": url.query or b"",
            "headers": found.headers,
        }
        return lane.look(scope)

    def answered(self, data: bytes) -> None:
        """Sends the answer of what was in flight, and goes on with what came after."""
        self.flight = None
        self.server_state.total_requests += 1
        if self.lost:
            return
        self.plain.write(data)
        if not self.keep_alive:
            self.plain.close()
            return
        self.quiet = time.perf_counter()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_handler()
        if self.behind:
            data, self.behind = b"".join(self.behind), []
            self.flow.resume_reading()
            self.data_received(data)

    def timeout_keep_alive_handler(self) -> None:
        """Flights do not set the clock, but say when they ended: a timer for each would cost more than its answer."""
        busy = self.flight is not None or bool(self.held)
        left = self.timeout_keep_alive - (0.0 if busy else time.perf_counter() - self.quiet)
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._let_go()
        if self.flight is not None:
            self.flight.hung_up()
        self.heads = {}
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def _let_go(self) -> None:
        """The long way has to know of a request that has begun."""
        if self.held:
            data, self.held = self.held, b""
            self._go_long(data)

    def shutdown(self) -> None:
        self._let_go()
        if self.flight is not None:
            self.keep_alive = False
        else:
            super().shutdown()

    # ------------------------------------------------ the long way

    def on_message_begin(self) -> None:
        self.between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self.between = True
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        if self.counted:
            self.scope[COUNTED] = True  # type: ignore[literal-required]
            self.counted = False
        super().on_headers_complete()
        if self.cycle is not None:
            self.scope[AT_ONCE] = partial(_send_at_once, self.cycle)  # type: ignore[literal-required]

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if not cycle.body and not cycle.response_complete:
            # uvicorn gathers in a bytearray what comes before the application asks, and makes bytes of it when it does.
            cycle.body, body = body, b""  # type: ignore[assignment]
        super().on_body(body)

    def hear(self, protocol: asyncio.BaseProtocol) -> None:
        """What comes in is the other protocol's from now on."""
        self.flow.pause_reading()  # uvloop decides how it reads when it begins to
        self.transport.set_protocol(protocol)
        self.flow.resume_reading()

    def body_ended(self) -> None:
        """A body that the parser has not seen is there in whole; what follows is the next request."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self.between = True
        self.cycle.more_body = False
        self.cycle.message_event.set()
        self.hear(self)


class _Parsed:
    """A parser's callbacks, which keep what it found."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True


def _send_at_once(
    cycle: RequestResponseCycle, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Sends an answer whose headers, with their Content-Length, have names in lower case; what the two messages of ASGI
    would send, which go through 20 searches and as many calls. False, and nothing sent, where only those will do."""
    if (
        cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or cycle.access_log
        or len(body) > _SMALL
        or cycle.scope["method"] == "HEAD"
    ):
        return False
    try:
        head = head_of(status, cycle.default_headers, headers, () if cycle.keep_alive else _CLOSE)
    except ValueError:
        return False  # the long way refuses it
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join((head, b"\r\n", body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
