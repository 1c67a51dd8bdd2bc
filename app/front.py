"""`python -m app.front`: one of several fronts, started by app/fronts.py and by nothing else.

What the server knows it is told on standard input, as JSON. It listens nowhere: the server passes it connections, tells
it when to end, and starts another when it dies. When the server is gone it ends at once, whatever it is doing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Generator, Sequence
from typing import Any

from app.__main__ import Server, config_of, spare_collector
from app.keys import Known
from app.main import Share, create_app
from app.rates import SharedRates
from app.settings import Settings
from engine.errors import EngineError
from engine.service import Facts, Front, Limits, configure_logs

_ORPHANED = 1


class FrontServer(Server):
    """uvicorn on connections that others have accepted, and that ends when it is told."""

    def __init__(self, config: Any, settings: Settings, gate: Any, front: Front) -> None:
        super().__init__(config, settings, gate)
        self.front = front
        front.on_connection, front.on_signal = self._connected, self._told
        self._asked_itself = False
        self._connecting: set[asyncio.Task[Any]] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """A terminal and a service manager signal all processes at once, and the server passes it on besides: that is
        one wish. SIGTERM for this process alone ends it gently, and the server starts another."""

        def gently(number: int, frame: Any) -> None:
            if not self.gate.closed:
                self._asked_itself = True
                self.handle_exit(number, None)

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, gently)
        yield

    def _told(self, number: int) -> None:
        if number == signal.SIGTERM and self._asked_itself:
            self._asked_itself = False
        else:
            self.handle_exit(number, None)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    def _connected(self, sock: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(sock))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, sock: socket.socket) -> None:
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, sock)
        except OSError:  # the client is gone again
            sock.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return
        self.servers = []
        self.started = True
        spare_collector()
        self.front.say("ready")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.front.say("ending")
        await super().shutdown(sockets)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process, from its arguments to its exit status."""
    parser = argparse.ArgumentParser(prog="app.front", description="A front; the server starts it.")
    parser.add_argument("--fd", type=int, required=True, help="a Unix socket at whose other end is the server")
    parser.add_argument("--door", type=int, required=True, help="another, on which connections come in")
    parser.add_argument("--name", required=True, help="shown in process listings and in the log")
    options = parser.parse_args(arguments)
    told = json.load(sys.stdin)
    settings = Settings.from_data(told["settings"])
    extra = {"front": options.name} if settings.log_format == "json" else {}
    configure_logs(settings.log_format, settings.log_level.upper(), **extra)
    facts = Facts(
        options.name, tuple(told["workers"]), Limits(**told["limits"]), told["simulated"], bool(told["durable"])
    )
    front = Front(socket.socket(fileno=options.fd), socket.socket(fileno=options.door), facts)
    front.on_orphaned = lambda: os._exit(_ORPHANED)  # nothing that runs could be answered rightly any more
    share = Share(Known.from_data(told["keys"]), SharedRates(settings.max_rate, told["rates"]), told["server"])
    try:
        application = create_app(settings, front, share=share)
    except EngineError as error:
        print(f"{options.name}: error: {error.detail}", file=sys.stderr)
        return 2
    front.count = application.state.house.metrics.counts
    server = FrontServer(config_of(settings, application), settings, application.state.house.gate, front)
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
