"""`python -m app`: serve over HTTP. `python -m app keys …`: the callers' keys."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Sequence

import uvicorn

from app import commands
from app import settings as options
from app.main import create_app
from app.settings import Settings, keys_file
from engine.errors import EngineError
from engine.service import configure_logs

SHUTDOWN_S = 10  # how long requests that run at the end may take


def greeting(settings: Settings, port: int) -> str:
    """What is said once the server listens: where to look, who can reach it, what is lost at the end."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else host
    reach = (
        f"Callers need a key of {keys_file(settings)}."
        if keys_file(settings).exists()
        else "No keys are set up, so it is open to this machine, and to no other."
        if settings.is_loopback
        else "No keys are set up: whoever reaches this address can use, read and delete everything (--allow-open)."
    )
    return (
        f"curlgrad listens on http://{host}:{port}; its documentation is at http://{shown}:{port}/docs\n"
        f"{reach}\n"
        "Tensors do not survive a restart yet."
    )


class Server(uvicorn.Server):
    """uvicorn, with our words at the start."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self.settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.servers:
            port = self.servers[0].sockets[0].getsockname()[1]
            print(greeting(self.settings, port), file=sys.stderr, flush=True)


def serve(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; the exit status."""
    settings = options.read(arguments)
    configure_logs(settings.log_format, settings.log_level.upper())
    os.environ["CURLGRAD_LOG_FORMAT"] = settings.log_format  # for the worker processes
    try:
        application = create_app(settings)
    except EngineError as error:
        print(f"python -m app: error: {error.detail}", file=sys.stderr)
        return 2
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        log_level="debug" if settings.log_level == "debug" else "warning",
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        http="httptools" if importlib.util.find_spec("httptools") else "h11",
        ws="none",
        access_log=False,  # app.logs writes one that says more
        log_config=None if settings.log_format == "json" else uvicorn.config.LOGGING_CONFIG,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = Server(config, settings)
    server.run()
    return 0 if server.started else 1


def main(arguments: Sequence[str]) -> int:
    """The exit status of `python -m app ARGUMENTS`."""
    if arguments[:1] == ["keys"]:
        return commands.run_keys(arguments[1:])
    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
