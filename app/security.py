"""What every request passes on its way in and out, as plain ASGI.

In: the Host must be this server's (a page of another name that resolves here, "DNS rebinding", is turned away), the
request must not come from a foreign web page, where there are keys it must bring one that may do this and not too
often, and the body must keep within its limit. Out: a request id, the phases'
times, caching rules; for an origin that is allowed, what lets its pages read the answer. Whatever fails answers with
a problem.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors
from app.answers import AT_ONCE, Answer
from app.errors import Forbidden, Misdirected, MissingScope, TooManyRequests, Unauthorized
from app.keys import Key, Keys
from app.rates import Rates
from app.watch import HUNG_UP, Done, Watcher, route_of
from engine.errors import EngineError, Hint, Malformed, TooLarge, Unavailable

PROBES = frozenset(("/healthz", "/readyz"))
# The documentation is the same on every server and holds nothing of anyone's; and a browser that follows a link to it
# cannot send a key, which the page's Authorize button asks for.
_PAGES = ("/docs", "/redoc", "/openapi", "/favicon.ico")
ANYONE = "anyone"  # without keys all callers are one
_READING = frozenset(("GET", "HEAD", "OPTIONS"))
LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
CACHE_CONTROL = b"private, no-cache"
# An answer is data: a browser that is shown one as a page must run and embed nothing. Pages bring their own policy.
POLICY = b"default-src 'none'; frame-ancestors 'none'"
VARY = b"Authorization, Curlgrad-Session, Accept, Accept-Encoding, Accept-Language"
EXPOSED = (
    "Location, ETag, Retry-After, X-Request-Id, Server-Timing, Curlgrad-Dtype, Curlgrad-Shape, Curlgrad-Simulated, "
    "Preference-Applied"
)
ALLOWED_HEADERS = (
    "Authorization, Content-Type, Accept, Curlgrad-Session, If-Match, If-None-Match, Idempotency-Key, Prefer, "
    "Last-Event-ID"
)
ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
TIMING = "queue;dur=%.3f, run;dur=%.3f, encode;dur=%.3f"
COUNTED = "curlgrad.counted"  # in the scope of a request whose key's rate was counted before
PREFLIGHT_AGE_S = 600
DRAIN_RETRY_S = 5  # when to ask again a server that is ending: its successor takes about as long to come up


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: whose sessions are reached, and with which key. In the scope as `curlgrad.principal`."""

    owner: str
    key: Key | None = None

    def may(self, scope: str) -> bool:
        return self.key is None or self.key.may(scope)


NOBODY = Principal(ANYONE)


class Exchange:
    """One request and its answer: its id, and how long the phases took, in ms. In the scope as `curlgrad.exchange`.

    `simulated`: a device of this server is a simulation, which every answer says.
    """

    __slots__ = ("encode_ms", "queue_ms", "request_id", "run_ms", "simulated", "status")

    def __init__(self, *, simulated: bool = False) -> None:
        self.request_id = f"{_number(64):016x}"
        self.simulated = simulated
        self.status = HUNG_UP  # until an answer begins
        self.queue_ms = self.run_ms = self.encode_ms = 0.0

    def server_timing(self) -> str:
        return TIMING % (self.queue_ms, self.run_ms, self.encode_ms)


_number = random.Random().getrandbits  # ids tell requests apart; they open nothing


Handler = Callable[[Request], Awaitable[Response]]
AtOnce = Callable[[int, Sequence[tuple[bytes, bytes]], bytes], bool]


@dataclass(frozen=True, slots=True)
class Direct:
    """POST handlers that are found by a look at the path alone: `under` a path and one more segment, or `at` a path."""

    under: Mapping[str, Handler]
    at: Mapping[str, Handler]

    def find(self, scope: Scope) -> Handler | None:
        """The handler of a request, its path's last segment as the parameter `op` where it is `under`; else None."""
        if scope["method"] != "POST" or scope.get("root_path"):
            return None
        path: str = scope["path"]
        if path in self.at:
            scope["endpoint"] = self.at[path]
            return self.at[path]
        cut = path.rfind("/") + 1
        found = self.under.get(path[:cut])
        if found is not None and cut < len(path):
            scope["path_params"] = {"op": path[cut:]}
            scope["endpoint"] = found
            return found
        return None


class Headers:
    """The headers of a request by their names in lower case, as text."""

    __slots__ = ("raw",)

    def __init__(self, raw: dict[bytes, bytes]) -> None:
        self.raw = raw

    def get(self, name: str) -> str | None:
        value = self.raw.get(name.encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    def __contains__(self, name: str) -> bool:
        return name.encode("latin-1") in self.raw


class Gate:
    """Whether requests may come in, and how many are inside. A server that is told to end closes it first."""

    __slots__ = ("closed", "inside")

    def __init__(self) -> None:
        self.closed, self.inside = False, 0


class Guard:
    """The middleware. `max_body` in bytes; `hosts` beside loopback and the address that is listened on.

    What `direct` finds is handled without the application's router.
    `root_path`: where a proxy publishes the server; it is taken off the paths that still have it, and put before
    Location. `watchers` are told of every request when it is done. `traced`: something around this one wants to see
    what is sent, as messages.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        origins: Iterable[str],
        max_body: int,
        gate: Gate,
        keys: Keys | None = None,
        rates: Rates | None = None,
        simulated: bool = False,
        direct: Direct = Direct({}, {}),
        root_path: str = "",
        watchers: Sequence[Watcher] = (),
        traced: bool = False,
    ) -> None:
        self.app, self.gate = app, gate
        self.direct = direct
        self.root_path = root_path
        self.watchers = tuple(watchers)
        self.traced = traced
        self.keys = keys or Keys(None)
        self.rates = rates or Rates(0)
        self.simulated = simulated
        self.hosts = frozenset(host.lower() for host in hosts) | LOOPBACK_NAMES
        self.origins = frozenset(origins)
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        at_once = scope.pop(AT_ONCE, None)  # it stands on the exchange that the scope is of: they would be a cycle
        exchange = scope["curlgrad.exchange"] = Exchange(simulated=self.simulated)
        scope["curlgrad.principal"] = NOBODY
        if self.root_path:
            _go_below(self.root_path, scope)
        begin = time.perf_counter()
        for watcher in self.watchers:
            watcher.begun(scope)
        try:
            await self._answer(scope, receive, send, exchange, None if self.traced else at_once)
        finally:
            seconds = time.perf_counter() - begin
            done = Done(scope, exchange, scope["method"], route_of(scope), exchange.status, seconds)
            for watcher in self.watchers:
                watcher.done(done)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, exchange: Exchange, at_once: AtOnce | None
    ) -> None:
        headers = _headers(scope)
        scope["curlgrad.headers"] = Headers(headers)
        origin = headers.get(b"origin", b"").decode("latin-1")
        shared_with = origin if origin in self.origins else None
        started = False
        self.gate.inside += 1

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                exchange.status = message["status"]
                message["headers"] = finished(message.get("headers", ()), exchange, shared_with, self.root_path)
            await send(message)

        try:
            self._admit(scope, headers, origin)
            if shared_with is not None and b"access-control-request-method" in headers and scope["method"] == "OPTIONS":
                await _preflight(headers)(scope, receive, answer)
                return
            self.keys.refresh()
            if self.keys.closed and not _is_open(scope["path"]):
                scope["curlgrad.principal"] = self._authenticate(scope, headers)
            limited = self._limited(receive, headers)
            handler = self.direct.find(scope)
            if handler is None:
                await self.app(scope, limited, answer)
            else:
                response = await handler(Request(scope, limited))
                if at_once is not None and type(response) is Answer:
                    headers_out = finished(response.raw_headers, exchange, shared_with, self.root_path)
                    if type(response.body) is bytes and at_once(response.status_code, headers_out, response.body):
                        exchange.status = response.status_code
                        return
                await response(scope, limited, answer)
        except EngineError as error:
            if started:
                raise
            await errors.told(error, scope)(scope, receive, answer)
        except ClientDisconnect:
            return  # the caller hung up before all was sent: nothing was done, and nobody is there to be answered
        except Exception as error:  # the last door: whatever comes this far is answered and logged
            if started:
                raise  # half an answer cannot be taken back: the server closes the connection
            await errors.unexpected(error, scope)(scope, receive, answer)
        finally:
            self.gate.inside -= 1

    # ------------------------------------------------------------ in

    def _admit(self, scope: Scope, headers: dict[bytes, bytes], origin: str) -> None:
        """Raise Misdirected, Forbidden, Malformed or TooLarge for a request that may not come in."""
        path = scope["path"]
        if self.gate.closed and path not in PROBES:
            raise Unavailable(
                "the server is ending: what runs is finished, and nothing new is begun; nothing was done",
                code="not-applied",
                hint=Hint("server-ending"),
                retry_after=DRAIN_RETRY_S,
            )
        host = headers.get(b"host", b"").decode("latin-1")
        if path not in PROBES:
            self._check_host(host, scope)
            self._check_origin(scope, headers, origin, host)
        length = headers.get(b"content-length")
        if length is not None:
            if not length.isdigit():
                raise Malformed("the Content-Length is not a number")
            if int(length) > self.max_body:
                raise self._too_large()

    def _authenticate(self, scope: Scope, headers: dict[bytes, bytes]) -> Principal:
        """Whose call this is. Raise Unauthorized, MissingScope or TooManyRequests where it may not be made."""
        key = self._key(headers)
        wait = 0.0 if COUNTED in scope else self.rates.wait(key.id)
        if wait:
            raise TooManyRequests(
                f"this key may send {self.rates.rate:g} requests a second, and {self.rates.burst:g} at once",
                hint=Hint("slower", seconds=f"{wait:.2g}"),
                retry_after=max(1, round(wait)),
            )
        return _allowed(key, scope)

    def _key(self, headers: dict[bytes, bytes]) -> Key:
        """The key that a request brings. Raise Unauthorized where it brings none that counts."""
        scheme, _, text = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("this server asks for an API key", code="no-key", hint=Hint("send-key"))
        key, why_not = self.keys.find(text.strip())
        if key is None:
            raise Unauthorized("this is no API key of this server", code="bad-key", hint=Hint("send-key"))
        if why_not is not None:
            raise Unauthorized(f"this API key is {why_not}", code=f"key-{why_not}", hint=Hint("other-key"))
        return key

    def looked_at(self, scope: Scope) -> tuple[Handler | None, str | None]:
        """For a request that is not traced, of a scope as the server makes it, and that may come in: the handler that
        it goes to without the router, and the origin that its answer is shared with; the scope is then as handlers
        find it, but for the exchange. Raises what refuses it. The rate of its key is not counted, nor the length of its
        body."""
        scope["curlgrad.principal"] = NOBODY
        if self.root_path:
            _go_below(self.root_path, scope)
        headers = _headers(scope)
        scope["curlgrad.headers"] = Headers(headers)
        origin = headers.get(b"origin", b"").decode("latin-1")
        self._admit(scope, headers, origin)
        self.keys.refresh()
        if self.keys.closed and not _is_open(scope["path"]):
            scope["curlgrad.principal"] = _allowed(self._key(headers), scope)
        return self.direct.find(scope), origin if origin in self.origins else None

    def _check_host(self, host: str, scope: Scope) -> None:
        server = scope.get("server")
        if server and server[1] is None and server[0].startswith("/"):
            return  # a Unix socket: no name leads a browser there
        name = _without_port(host)
        if name in self.hosts or _is_loopback(name):
            return
        if server and name == server[0].lower() and _is_address(name):
            return  # the very address that the connection came in on; no name can be made to point there by others
        raise Misdirected(
            f"this server is not {host!r}" if host else "the request names no Host",
            hint=Hint("allowed-host", host=name),
        )

    def _check_origin(self, scope: Scope, headers: dict[bytes, bytes], origin: str, host: str) -> None:
        """Browsers say where a request comes from; what comes from another site's page is refused, read or write.

        Sec-Fetch-Site cannot be forged by a page. Following a link to one of our pages is no request of the foreign
        page.
        """
        if origin:
            if origin in self.origins or _authority(origin) == host.lower():
                return
            raise _foreign(f"the page at {origin} may not use this server", origin)
        site = headers.get(b"sec-fetch-site", b"none")
        if site in (b"none", b"same-origin"):
            return
        follows_link = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
        if follows_link and scope["method"] in ("GET", "HEAD") and not scope["path"].startswith("/v1/"):
            return
        raise _foreign("a page of another site may not use this server", None)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the body is over the limit of {self.max_body} bytes", hint=Hint("max-body", limit=self.max_body)
        )

    def _limited(self, receive: Receive, headers: dict[bytes, bytes]) -> Receive:
        """`receive`, counting what comes without a Content-Length that was checked before."""
        if b"content-length" in headers and b"transfer-encoding" not in headers:
            return receive
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body:
                raise self._too_large()
            return message

        return counted


def _go_below(root_path: str, scope: Scope) -> None:
    """Takes the proxy's path off the scope's, where the proxy has not."""
    path, raw = scope["path"], scope.get("raw_path") or b""
    scope["curlgrad.root"] = root_path
    if path == root_path or path.startswith(root_path + "/"):
        scope["path"] = path[len(root_path) :] or "/"
        scope["raw_path"] = raw.removeprefix(root_path.encode()) or b"/"


def _is_open(path: str) -> bool:
    """Whether a path is served without a key."""
    return path in PROBES or path == "/" or any(path == p or path.startswith((p + "/", p + ".")) for p in _PAGES)


def _allowed(key: Key, scope: Scope) -> Principal:
    """The caller with this key. Raise MissingScope where the key does not allow the request."""
    needed = scope_of(scope["method"], scope["path"])
    if needed is not None and not key.may(needed):
        raise MissingScope(
            f"this key may {' and '.join(key.scopes)}, and {scope['method']} {scope['path'][:200]} needs {needed}",
            hint=Hint("missing-scope", scope=needed),
        )
    return Principal(key.owner, key)


def scope_of(method: str, path: str) -> str | None:
    """What a key must be allowed for a call; None where any key will do."""
    if path == "/v1/me":
        return None
    if path == "/metrics":
        return "metrics"
    if path.startswith("/v1/admin/"):
        return "admin"
    return "read" if method in _READING else "write"


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """The headers by name; one that may come once but comes twice is refused later as the value it then has."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _without_port(host: str) -> str:
    """The name in a Host header, in lower case, without port, brackets and the root's dot."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def _authority(origin: str) -> str:
    """`host:port` of an origin, as a Host header would say it."""
    return origin.partition("://")[2].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


def is_loopback(host: str) -> bool:
    """Whether listening on `host` reaches no further than this machine."""
    return host.lower() == "localhost" or _is_loopback(host.strip("[]"))


def _foreign(detail: str, origin: str | None) -> Forbidden:
    return Forbidden(detail, hint=Hint("cors-origin", origin=origin or "https://that.site"))


# ---------------------------------------------------------------- out


def finished(
    given_headers: Iterable[tuple[bytes, bytes]], exchange: Exchange, shared_with: str | None, root_path: str = ""
) -> list[tuple[bytes, bytes]]:
    """An answer's headers with those that every answer has."""
    headers = [header for header in given_headers if header[0] not in _OURS]
    if root_path:
        headers = [(n, root_path.encode() + v) if n == b"location" and v[:1] == b"/" else (n, v) for n, v in headers]
    given = {name for name, _ in headers}
    headers.append((b"x-request-id", exchange.request_id.encode()))
    headers.append((b"server-timing", exchange.server_timing().encode()))
    headers.append(_NOSNIFF)
    if exchange.simulated:
        headers.append((b"curlgrad-simulated", b"true"))
    if b"cache-control" not in given:
        headers.append(_CACHING)
    if b"content-security-policy" not in given:
        headers += _POLICIES
    headers.append((b"vary", VARY if shared_with is None else VARY + b", Origin"))
    if shared_with is not None:
        headers.append((b"access-control-allow-origin", shared_with.encode("latin-1")))
        headers.append((b"access-control-expose-headers", EXPOSED.encode()))
    return headers


_OURS = frozenset((b"vary", b"x-content-type-options"))
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_CACHING = (b"cache-control", CACHE_CONTROL)
_POLICIES = [(b"content-security-policy", POLICY), (b"referrer-policy", b"no-referrer")]


def _preflight(headers: dict[bytes, bytes]) -> Response:
    """The answer to a browser that asks whether an allowed origin's page may send this."""
    response = Response(status_code=204)
    response.headers["Access-Control-Allow-Methods"] = ALLOWED_METHODS
    response.headers["Access-Control-Allow-Headers"] = ALLOWED_HEADERS
    response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_AGE_S)
    if headers.get(b"access-control-request-private-network") == b"true":
        response.headers["Access-Control-Allow-Private-Network"] = "true"
    return response
