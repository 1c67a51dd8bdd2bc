"""From errors to problems: the one table of statuses, and the one body that every failing path answers with (RFC 9457).

The engine says what went wrong and what to do next, as data. Here it gets a status and a title, and its hint a sentence
(`hints.py`). What only HTTP knows (no such route, a foreign page) are errors of the same tree, below.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app import hints, language
from app.language import Language
from engine import errors as engine_errors
from engine.errors import Bug, EngineError, Hint, Invalid, NotFound, UnknownParameter, let_go

PROBLEM = "application/problem+json"
TYPE = "urn:curlgrad:problem:"
RETRY_AFTER_S = 1
MAX_DETAIL = 2000  # characters; what is longer repeats what the caller sent
MAX_NAME = 300  # characters of a name; a tensor's has at most 255

log = logging.getLogger("curlgrad")


class NoSuchRoute(NotFound):
    """404: nothing is at this path."""

    code = "no-such-route"


class MethodNotAllowed(EngineError):
    """405: something is at this path, but not for this method; the fact `allow` lists those it takes."""

    code = "method-not-allowed"


class Forbidden(EngineError):
    """403: the request comes from a foreign web page."""

    code = "foreign-origin"


class Unauthorized(EngineError):
    """401: no API key, or none that counts."""

    code = "no-key"


class MissingScope(EngineError):
    """403: the key may not do this."""

    code = "missing-scope"


class TooManyRequests(EngineError):
    """429: sent too often; the fact `retry_after` says when to send again, in seconds."""

    code = "rate-limit"


class Misdirected(EngineError):
    """421: the Host is not this server's."""

    code = "unknown-host"


# An error has the status of the nearest of these among its classes, itself first.
STATUSES: Mapping[type[EngineError], tuple[int, str]] = {
    engine_errors.Malformed: (400, "The request cannot be read"),
    Unauthorized: (401, "No valid API key"),
    Forbidden: (403, "Foreign origin"),
    MissingScope: (403, "The key may not do this"),
    engine_errors.NotFound: (404, "Not found"),
    MethodNotAllowed: (405, "Method not allowed"),
    engine_errors.NotAcceptable: (406, "Form not offered"),
    engine_errors.Conflict: (409, "The state forbids it"),
    engine_errors.Gone: (410, "Gone"),
    engine_errors.PreconditionFailed: (412, "Precondition failed"),
    engine_errors.TooLarge: (413, "Body over the limit"),
    engine_errors.Unsupported: (415, "Form not understood"),
    Misdirected: (421, "Unknown host"),
    engine_errors.Invalid: (422, "Invalid request"),
    TooManyRequests: (429, "Too many requests"),
    engine_errors.QueueFull: (429, "Too many calls waiting"),
    engine_errors.Bug: (500, "Internal error"),
    engine_errors.Unavailable: (503, "Unavailable"),
    engine_errors.OutOfTime: (504, "Out of time"),
    engine_errors.OutOfMemory: (507, "Out of memory"),
}


def status_of(error: EngineError) -> tuple[int, str]:
    """The error's status and title."""
    for cls in type(error).__mro__:
        if cls in STATUSES:
            return STATUSES[cls]
    return STATUSES[Bug]


def problem(error: EngineError, *, path: str, request_id: str, spoken: Language = hints.ENGLISH) -> dict[str, Any]:
    """The problem as plain data."""
    status, title = status_of(error)
    body: dict[str, Any] = {
        "type": TYPE + error.code,
        "title": title,
        "status": status,
        "detail": _shortened(error.detail, MAX_DETAIL),
        "instance": quote(path),
        "code": error.code,
    }
    if error.op is not None and not error.op.startswith("_"):  # an op with an underscore is no one's call but ours
        body["op"] = _shortened(error.op, MAX_NAME)
    if error.param is not None:
        body["param"] = _shortened(error.param, MAX_NAME)
    if error.step is not None:
        body["step"] = error.step
    if error.round:
        body["round"] = error.round
    sentence = hints.sentence(error.hint, spoken)
    if sentence is not None:
        body["hint"] = sentence
    body["request_id"] = request_id
    return body


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def respond(error: EngineError, scope: Scope) -> Response:
    """The problem as the answer to the request in `scope`."""
    request_id = scope["curlgrad.exchange"].request_id
    spoken = language.of_scope(scope)
    path = scope.get("curlgrad.root", "") + scope["path"]
    body = problem(error, path=path, request_id=request_id, spoken=spoken)
    if scope["curlgrad.exchange"].simulated:
        body["simulated"] = True
    headers = {"Content-Language": spoken.tag} if "hint" in body else {}
    if body["status"] in (429, 503):
        headers["Retry-After"] = str(error.facts.get("retry_after", RETRY_AFTER_S))
    if body["status"] == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if body["status"] == 405:
        headers["Allow"] = ", ".join(error.facts["allow"])
    return Response(
        orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE),
        status_code=body["status"],
        headers=headers,
        media_type=PROBLEM,
    )


def told(error: EngineError, scope: Scope) -> Response:
    """The problem as the answer; what is a bug of the server is told to the log as well."""
    if isinstance(error, Bug):
        log.error("request %s: %s", scope["curlgrad.exchange"].request_id, error.detail)
    let_go(error)
    return respond(error, scope)


def unexpected(error: Exception, scope: Scope) -> Response:
    """The answer to an exception that nothing foresaw. What it was is told to the log, not to the caller."""
    exchange = scope["curlgrad.exchange"]
    log.error("request %s: %s %s failed", exchange.request_id, scope["method"], scope["path"], exc_info=error)
    let_go(error)
    return respond(Bug("the server failed on this request; the reason is in its log, under the request_id"), scope)


def install(application: FastAPI) -> None:
    """Make every exception of a request answer with a problem."""

    async def engine_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, EngineError)
        return told(error, request.scope)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return respond(_of_http(error, request), request.scope)

    async def validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        return respond(Invalid(f"{place}: {first['msg']}", param=place or None), request.scope)

    application.add_exception_handler(EngineError, engine_error)
    application.add_exception_handler(HTTPException, http_error)
    application.add_exception_handler(RequestValidationError, validation_error)


def _of_http(error: HTTPException, request: Request) -> EngineError:
    """What the router refused, as an error of the tree."""
    path = request.scope["path"]
    if error.status_code == 404:
        return _no_such_route(path, request)
    if error.status_code == 405:
        allowed = _methods(path, request)
        return MethodNotAllowed(
            f"{request.method} is not a method of {path}", hint=Hint("methods", methods=allowed), allow=allowed
        )
    if error.status_code == 400:
        return engine_errors.Malformed(str(error.detail))
    return Bug(f"unforeseen HTTP error {error.status_code}")


def _no_such_route(path: str, request: Request) -> NoSuchRoute:
    detail = f"there is nothing at {path}"
    trimmed = path.rstrip("/")
    for other in (trimmed, f"/v1{path}", f"/v1{trimmed}"):
        if other and other != path and (methods := _methods(other, request)):
            method = request.method if request.method in methods else methods[0]
            return NoSuchRoute(detail, hint=Hint("route-near", method=method, path=other))
    return NoSuchRoute(detail, hint=Hint("route-list"))


def _methods(path: str, request: Request) -> list[str]:
    """The methods that the application's routes take at `path`, in the order of their registration."""
    found: dict[str, None] = {}
    scope = {**request.scope, "path": path}
    for route in request.app.routes:
        if route.matches(scope)[0] is not Match.NONE:
            found.update(dict.fromkeys(sorted(getattr(route, "methods", None) or ())))
    return list(found)


# ---------------------------------------------------------------- refusals that several routes share


def unknown(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse a name that is not among the known ones, with the nearest of them."""
    known = list(known)
    for name in given:
        if name not in known:
            raise UnknownParameter(f"unknown {what} {name!r}", param=name, hint=nearest_hint(name, known))


def nearest_hint(name: str, known: Iterable[str]) -> Hint | None:
    """A hint at the known names that are like `name`; at all of them where there are few."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6) if len(name) <= MAX_NAME else []
    if near:
        return Hint("near-names", near=near)
    return Hint("known-names", names=known) if 0 < len(known) <= 12 else Hint("takes-none") if not known else None
