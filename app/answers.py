"""Answers that are written once: known bytes, or parts of memory that are sent as they lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.wire.arrays import Parts

Body = bytes | Parts

AT_ONCE = "curlgrad.at_once"
"""Where a request's scope has what sends a small answer at once: (status, headers, body) -> whether it did. Servers
without one are sent the messages of ASGI."""

CHUNK = 4 << 20  # bytes given to the server at a time: one that copies what a socket does not take holds so much


_PHRASES = {status: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def head_of(status: int, *headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Status line and headers as HTTP/1.1 writes them, without the empty line that ends them. Raises ValueError for
    a value that would begin another line."""
    lines = [_PHRASES[status]]  # type: ignore[index]
    for some in headers:
        for name, value in some:
            lines += (name, b": ", value, b"\r\n")
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) // 4 + 1 or head.count(b"\r") != head.count(b"\n"):
        raise ValueError("a header of more than one line")
    return head


class Answer(Response):
    """A response of a known length. A body in parts is sent without being joined."""

    def __init__(self, body: Body, status: int, headers: Mapping[str, str]) -> None:
        self.status_code = status
        self.background = None
        self.body = body  # type: ignore[assignment]
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]
        length = len(body) if isinstance(body, bytes) else sum(map(len, body))
        self.raw_headers.append((b"content-length", b"%d" % length))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Takes the parts out of the answer, so that each can be freed when it is on its way."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body: Body = self.body  # type: ignore[assignment]
        if isinstance(body, bytes):
            await send({"type": "http.response.body", "body": body})
            return
        for part in body:
            for start in range(0, len(part), CHUNK):
                await send({"type": "http.response.body", "body": part[start : start + CHUNK], "more_body": True})
        await send({"type": "http.response.body", "body": b""})
