"""What is done otherwise than in uvicorn's protocol: the head of an answer and the first part of its body leave in one
write, a small answer that is there in whole is sent without being taken apart, what was read of a body is handed on as
it is, and a long body can be received past the parser (app/receiving.py).

uvicorn writes head and body one after the other, and uvloop sends each at once: two system calls, two packets, and a
client that is woken twice. Of what a small call costs the web process, that is a tenth. What it reads it copies twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.answers import AT_ONCE
from app.deps import INTO
from app.receiving import Into

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

    def on_headers_complete(self) -> None:
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
        self.cycle.more_body = False
        self.cycle.message_event.set()
        self.hear(self)


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
    lines = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        lines += (name, b": ", value, b"\r\n")
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) // 4 + 1 + (not cycle.keep_alive) or head.count(b"\r") != head.count(b"\n"):
        return False  # a value that would begin another line: the long way refuses it
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join((head, b"\r\n", body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
