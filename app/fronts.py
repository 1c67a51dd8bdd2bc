"""`python -m app --fronts N`: this process listens, owns the data directory, the sessions' map and the workers, and
starts N fronts (app/front.py), which serve HTTP.

It reads no request. What it accepts it passes on to the fronts in turn. Told to end, it tells the fronts, goes on
passing connections to those that still refuse them politely, and ends its workers when the last front is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import signal
import socket
import sys
from collections.abc import Sequence

from app import unix
from app.__main__ import DRAIN_S, SHUTDOWN_S, greeting
from app.keys import LOOK_AGAIN_S, BadKeysFile, Keys
from app.main import service_of
from app.metrics import merged
from app.rates import shared_table
from app.settings import Settings, keys_file
from app.tracing import wanted
from engine.errors import EngineError, Invalid
from engine.service import Fronts, Service, python

_BACKLOG = 2048
_AT_ONCE = 64  # connections accepted in one look
_RETRY_S = 0.01
_ENDING_S = DRAIN_S + SHUTDOWN_S + 2

log = logging.getLogger("curlgrad.fronts")


def serve_with_fronts(settings: Settings) -> int:
    """Serve until told to stop; the exit status."""
    try:
        keys = Keys(keys_file(settings))
        service = service_of(settings)
        rates = shared_table()
        fronts = service.fronts(
            settings.fronts,
            python("app.front"),
            lambda: _told(settings, keys, rates),
            merge=merged,
            inherited=(rates,),
        )
        if wanted(settings.otel) and importlib.util.find_spec("opentelemetry") is None:
            raise Invalid("traces need the extra `otel` (pip install 'curlgrad[otel]')", param="otel")
        service.take_data_dir()
    except (EngineError, BadKeysFile) as error:
        detail = error.detail if isinstance(error, EngineError) else str(error)
        print(f"python -m app: error: {detail}", file=sys.stderr)
        return 2
    try:
        listeners = [unix.listen(settings.uds)] if settings.uds is not None else listen(settings.host, settings.port)
    except OSError as error:
        where = "--uds" if settings.uds is not None else f"{settings.host}:{settings.port}"
        print(f"python -m app: error: {where}: {error}", file=sys.stderr)
        return 2 if settings.uds is not None else 1
    factory = None
    if importlib.util.find_spec("uvloop"):
        import uvloop

        factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(_Server(settings, service, fronts, listeners, keys).run())
    finally:
        for sock in listeners:
            if settings.uds is not None:
                unix.leave(settings.uds, sock)
            else:
                sock.close()


def _told(settings: Settings, keys: Keys, rates: int) -> dict[str, object]:
    """What a front is told when it starts."""
    keys.refresh()
    return {"settings": settings.to_data(), "keys": keys.known().to_data(), "rates": rates}


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on every address of `host`, all on one port. Raises OSError."""
    found: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(
            socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        ):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError:  # the system knows the address and does not speak its protocol
                continue
            found.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken = found[0].getsockname()[1] if len(found) > 1 else port
            sock.bind((address[0], taken, *address[2:]))
            sock.listen(_BACKLOG)
            sock.setblocking(False)
    except OSError:
        for sock in found:
            sock.close()
        raise
    if not found:
        raise OSError(f"{host} has no address that can be listened on")
    return found


class _Server:
    """The process that the operator started, in its event loop."""

    def __init__(
        self, settings: Settings, service: Service, fronts: Fronts, listeners: Sequence[socket.socket], keys: Keys
    ) -> None:
        self.settings, self.service, self.fronts = settings, service, fronts
        self.listeners, self.keys = listeners, keys
        self._told: asyncio.Event = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """From start to end; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        starting = loop.create_task(self._start())
        told = loop.create_task(self._told.wait())
        try:
            await asyncio.wait((starting, told), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():  # told to end before it was up
                return 0
            try:
                starting.result()
            except RuntimeError as error:
                log.error("%s", error)
                return 1
            port = 0 if self.settings.uds is not None else self.listeners[0].getsockname()[1]
            print(greeting(self.settings, port), file=sys.stderr, flush=True)
            self._tasks = [loop.create_task(self._accept(sock)) for sock in self.listeners]
            self._tasks.append(loop.create_task(self._watch_keys()))
            await told
            await self.fronts.ended(_ENDING_S)
            return 0
        finally:
            for task in (starting, told, *self._tasks):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, RuntimeError):
                    await task
            await self.fronts.close()
            await self.service.close()

    async def _start(self) -> None:
        await asyncio.gather(self.service.start(), self.fronts.start())

    async def _watch_keys(self) -> None:
        """A front that is started later has to know of keys that were there once."""
        while self.keys.path is not None:
            self.keys.refresh()
            await asyncio.sleep(LOOK_AGAIN_S)

    def _end(self, number: int) -> None:
        """SIGTERM lets what runs come to its end; a second one, or Ctrl-C, does not wait."""
        self._told.set()
        self.fronts.signal(number)

    # ------------------------------------------------ connections

    async def _accept(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        while True:
            while not self.fronts.taking():  # they wait in the system's queue
                await self.fronts.changed(1.0)
            await _readable(listener)
            for _ in range(_AT_ONCE):
                try:
                    connection, _ = listener.accept()
                except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                    break
                except OSError as error:  # too many open files
                    log.error("no connection can be accepted: %s", error)
                    await asyncio.sleep(1.0)
                    break
                try:
                    await self._hand(connection)
                except BaseException:
                    connection.close()
                    raise

    async def _hand(self, connection: socket.socket) -> None:
        while not self.fronts.hand(connection):
            if self.fronts.taking():
                await asyncio.sleep(_RETRY_S)
            else:
                await self.fronts.changed(1.0)


async def _readable(sock: socket.socket) -> None:
    """Waits until something comes in."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not came.done():
            came.set_result(None)

    loop.add_reader(sock.fileno(), ready)
    try:
        await came
    finally:
        loop.remove_reader(sock.fileno())
