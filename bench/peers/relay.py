"""Two processes and nothing else: a bare ASGI application that hands each body to another process and answers what it
gives back. What a request costs before anything is checked, computed or kept. Served as our service is.

python bench/peers/relay.py PORT
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from typing import Any

import uvicorn

_HEAD = struct.Struct("<II")  # the number of a request, and the length of its body
_READ = 65_536


def child(wire: socket.socket) -> None:
    """The other process: gives back what it gets until nobody is there."""
    while data := wire.recv(_READ):
        wire.sendall(data)


class Wire(asyncio.Protocol):
    """The way to the other process and back."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.sent = 0
        self._come = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        come = self._come + data
        at = 0
        while len(come) - at >= _HEAD.size:
            number, length = _HEAD.unpack_from(come, at)
            end = at + _HEAD.size + length
            if len(come) < end:
                break
            self.waiting.pop(number).set_result(come[at + _HEAD.size : end])
            at = end
        self._come = come[at:]

    def ask(self, body: bytes) -> asyncio.Future[bytes]:
        """What the other process gives back."""
        self.sent += 1
        future = self.waiting[self.sent] = asyncio.get_running_loop().create_future()
        self.transport.write(_HEAD.pack(self.sent, len(body)) + body)
        return future


class Relay:
    """The application."""

    def __init__(self, near: socket.socket) -> None:
        self._near = near
        self._wire: Wire | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        if scope["path"] == "/ready":
            body = b"{}"
        else:
            if self._wire is None:
                self._near.setblocking(False)
                _, self._wire = await asyncio.get_running_loop().create_connection(Wire, sock=self._near)
            body = await self._wire.ask(body)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serves on the port that is named."""
    near, far = socket.socketpair()
    if os.fork() == 0:
        near.close()
        child(far)
        os._exit(0)
    far.close()
    uvicorn.run(
        Relay(near),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
    )


if __name__ == "__main__":
    main()
