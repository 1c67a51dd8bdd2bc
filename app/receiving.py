"""A long body's way into memory: past the HTTP parser and the application, which is told when all of it is there.

Of such a body uvicorn makes an object for each piece, wakes the application for it, and lets the connection wait
meanwhile.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from app.server import Protocol

_BUFFER = 256 << 10  # bytes that are read at a time: what a core's own cache holds


class Into:
    """The way of a request's body into memory, past parser and application."""

    def __init__(self, protocol: Protocol) -> None:
        self._of = weakref.ref(protocol)  # each request holds this, and the protocol holds the request

    async def __call__(self, headers: Any, memory: Any) -> bool:
        """Receives the body of the request with these headers, of which nothing was asked for yet, into `memory`
        (engine.workers.incoming), which is as long. False where it cannot: it is to be received as any other.

        Raises ClientDisconnect, and what `memory.write` raises: the rest of the body is then received into nothing.
        """
        protocol = self._of()
        cycle = None if protocol is None else protocol.cycle
        if protocol is None or cycle is None or cycle.scope["headers"] is not headers:
            return False
        if cycle.disconnected or cycle.response_started or not cycle.more_body:
            return False
        if cycle.waiting_for_100_continue:
            protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        begun, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        waiting = protocol.loop.create_future()
        protocol.hear(_Receiving(protocol, memory, waiting, begun))
        problem: Exception | None = await waiting
        if problem is None:
            return True
        try:
            raise problem
        finally:
            del problem, waiting  # or the memory would wait for the garbage collector, in the exception's frames


class _Receiving(asyncio.BufferedProtocol):
    """What hears a connection while a body comes in."""

    def __init__(
        self, protocol: Protocol, memory: Any, waiting: asyncio.Future[Exception | None], begun: bytes
    ) -> None:
        self._protocol, self._memory, self._left = protocol, memory, memory.length - len(begun)
        self._waiting: asyncio.Future[Exception | None] | None = waiting  # is told what went wrong, or nothing
        self._view = memoryview(bytearray(_BUFFER))
        self._take(begun)

    def _take(self, data: bytes | memoryview) -> None:
        """Writes what came, unless a write has failed, or nobody waits for it any more."""
        if self._waiting is None or self._waiting.done():
            self._memory = None
            return
        try:
            self._memory.write(data)
        except Exception as problem:  # noqa: BLE001 - the handler's to deal with
            self._end(problem.with_traceback(None))

    def _end(self, problem: Exception | None) -> None:
        """Whatever comes now is nobody's."""
        waiting, self._waiting, self._memory = self._waiting, None, None
        if waiting is not None and not waiting.done():
            waiting.set_result(problem)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[: self._left]  # no byte of the next request

    def buffer_updated(self, nbytes: int) -> None:
        self._take(self._view[:nbytes])
        self._left -= nbytes
        if not self._left:
            self._protocol.body_ended()
            self._end(None)

    def eof_received(self) -> None:
        self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ClientDisconnect())
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
