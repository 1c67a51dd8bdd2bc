"""`python -m app`: serve over HTTP. `python -m app keys …`: the callers' keys."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from app import commands, unix
from app import settings as options
from app.main import create_app
from app.security import Gate
from app.settings import Settings, has_keys, keys_file
from engine.errors import EngineError
from engine.service import configure_logs, repair

# Clients keep a connection over a pause for thought, and proxies theirs for a minute by default: a server that drops it
# first answers a request that is on its way with a reset.
KEEP_ALIVE_S = 75
# What a server does in its last seconds, all of which fit into the 30 that the container is given: new requests are
# refused while those that run are finished, then connections are closed, then the workers.
DRAIN_S = 12.0
SHUTDOWN_S = 8
_LOOK_S = 0.05
_YOUNG_OBJECTS = 10_000


def spare_collector() -> None:
    """What a process holds once it serves stays, and requests leave no cycles: the garbage collector looks through what
    is new alone, and seldom. By default it takes an eighth of a small call's time, to find nothing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)


def greeting(settings: Settings, port: int) -> str:
    """What is said once the server listens: where to look, who can reach it, what is lost at the end."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else host
    where = f"curlgrad listens on http://{host}:{port}; its documentation is at http://{shown}:{port}/docs"
    if settings.uds is not None:
        path = settings.uds.absolute()
        where = f"curlgrad listens on {path}: curl --unix-socket {path} http://localhost/v1/info"
    reach = (
        f"Callers need a key of {keys_file(settings)}."
        if has_keys(settings)
        else "No keys are set up, so it is open to whoever may use that file: its owner."
        if settings.uds is not None
        else "No keys are set up, so it is open to this machine, and to no other."
        if settings.is_loopback
        else "No keys are set up: whoever reaches this address can use, read and delete everything (--allow-open)."
    )
    return f"{where}\n{reach}\n" + (
        "Tensors are kept in memory alone: they do not survive a restart (--data-dir none)."
        if settings.data_dir is None
        else f"What is acknowledged is kept in {settings.data_dir.absolute()} (--data-dir)."
    )


class Server(uvicorn.Server):
    """uvicorn, with our words at the start, and an end that lets go of nothing half done."""

    def __init__(self, config: uvicorn.Config, settings: Settings, gate: Gate) -> None:
        super().__init__(config)
        self.settings, self.gate = settings, gate
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM closes the gate and lets what runs come to its end; a second one, or Ctrl-C, does not wait."""
        if sig == signal.SIGTERM and not self.gate.closed and self._loop is not None:
            self.gate.closed = True
            self._loop.call_soon_threadsafe(self._drain, sig)
        else:
            super().handle_exit(sig, frame)

    def _drain(self, sig: int) -> None:
        assert self._loop is not None
        self._draining = self._loop.create_task(self._end_when_empty(sig))

    async def _end_when_empty(self, sig: int) -> None:
        until = time.monotonic() + DRAIN_S
        while self.gate.inside and time.monotonic() < until:  # noqa: ASYNC110 - seldom, and every request would pay
            await asyncio.sleep(_LOOK_S)
        super().handle_exit(sig, None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        spare_collector()
        if self.started and self.servers:
            port = 0 if self.settings.uds is not None else self.servers[0].sockets[0].getsockname()[1]
            print(greeting(self.settings, port), file=sys.stderr, flush=True)


def serve(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["repair"]:
        return repair_data(arguments[1:])
    settings = options.read(arguments)
    configure_logs(settings.log_format, settings.log_level.upper())
    os.environ["CURLGRAD_LOG_FORMAT"] = settings.log_format  # for the worker processes
    if settings.fronts > 1:
        if sys.platform == "win32":
            print("python -m app: error: --fronts: Windows passes no sockets between processes", file=sys.stderr)
            return 2
        from app.fronts import serve_with_fronts

        return serve_with_fronts(settings)
    try:
        application = create_app(settings)
        application.state.house.service.take_data_dir()
    except EngineError as error:
        print(f"python -m app: error: {error.detail}", file=sys.stderr)
        return 2
    server = Server(config_of(settings, application), settings, application.state.house.gate)
    if settings.uds is None:
        server.run()
        return 0 if server.started else 1
    try:
        sock = unix.listen(settings.uds)
    except (OSError, AttributeError) as error:  # Windows has no socket.AF_UNIX
        print(f"python -m app: error: --uds: {error}", file=sys.stderr)
        return 2
    try:
        server.run(sockets=[sock])
    finally:
        unix.leave(settings.uds, sock)
    return 0 if server.started else 1


def config_of(settings: Settings, application: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the application."""
    http: Any = "h11"
    if importlib.util.find_spec("httptools"):
        from app.server import Protocol as http  # noqa: N813 - what imports httptools

    return uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        log_level="debug" if settings.log_level == "debug" else "warning",
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        http=http,
        ws="none",
        access_log=False,  # app.logs writes one that says more
        log_config=None if settings.log_format == "json" else uvicorn.config.LOGGING_CONFIG,
        server_header=False,
        proxy_headers=False,  # nothing here goes by a client's address or scheme
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


def repair_data(arguments: Sequence[str]) -> int:
    """`python -m app repair --data-dir DIR`: makes damaged data readable again, as far as they are there."""
    settings = options.read(arguments)
    configure_logs(settings.log_format, "WARNING")
    if settings.data_dir is None or not settings.data_dir.is_dir():
        print(f"python -m app repair: error: there is no data directory {settings.data_dir}", file=sys.stderr)
        return 2
    try:
        report = repair(settings.data_dir)
    except EngineError as error:
        print(f"python -m app repair: error: {error.detail}", file=sys.stderr)
        return 2
    print("\n".join(report))
    return 0


def main(arguments: Sequence[str]) -> int:
    """The exit status of `python -m app ARGUMENTS`."""
    if arguments[:1] == ["keys"]:
        return commands.run_keys(arguments[1:])
    if arguments[:1] == ["repair"]:
        return repair_data(arguments[1:])
    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
