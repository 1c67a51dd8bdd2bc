"""One log line for each request that is worth one: never a key, a body or a value.

Failures of the server are errors, slow requests warnings, refusals information, and all others are for `--log-level
debug`. As text it is one sentence; with `--log-format json` the same as fields.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Scope

from app.watch import HUNG_UP, Done

MAX_SESSION = 80  # characters of what the caller says is a session

log = logging.getLogger("curlgrad.access")


class AccessLog:
    """A watcher that logs. `slow`: seconds from which a request is slow; 0: none is."""

    def __init__(self, slow: float) -> None:
        self.slow = slow

    def begun(self, scope: Scope) -> None:
        """Nothing to say yet."""

    def done(self, done: Done) -> None:
        level = self._level(done)
        if log.isEnabledFor(level):
            fields = fields_of(done)
            text = "%s %s %s in %.1f ms (request %s, session %s, key %s)"
            who = fields["request_id"], fields["session"] or "-", fields["key"] or "-"
            log.log(
                level, text, done.method, done.route, done.status, done.seconds * 1e3, *who, extra={"fields": fields}
            )

    def _level(self, done: Done) -> int:
        # 503, 504 and 507 are the server's answer to what it was asked for; 500 alone is its own failure.
        if done.status == 500:
            return logging.ERROR
        if self.slow and done.seconds >= self.slow:
            return logging.WARNING
        return logging.INFO if done.status >= 400 and done.status != HUNG_UP else logging.DEBUG


def fields_of(done: Done) -> dict[str, Any]:
    """What is said of a request."""
    exchange, key = done.exchange, done.scope["curlgrad.principal"].key
    return {
        "request_id": exchange.request_id,
        "method": done.method,
        "route": done.route,
        "status": done.status,
        "ms": {
            "total": round(done.seconds * 1e3, 3),
            "queue": round(exchange.queue_ms, 3),
            "run": round(exchange.run_ms, 3),
            "encode": round(exchange.encode_ms, 3),
        },
        "session": _session(done),
        "key": None if key is None else key.id,
    }


def _session(done: Done) -> str | None:
    """The session as the caller named it; None where it is their default one, or none at all."""
    scope = done.scope
    named: str | None = None
    if done.route.startswith("/v1/sessions/{"):
        named = scope.get("path_params", {}).get("ref")
    else:
        for name, value in scope["headers"]:
            if name == b"curlgrad-session":
                named = value.decode("latin-1")
        if named is None and b"session=" in scope["query_string"]:
            named = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=None).get("session", [None])[0]
    return None if named is None else named[:MAX_SESSION]
