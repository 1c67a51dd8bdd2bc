"""What the Guard tells of each request when it is done, to those who count, log and trace."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.types import Scope

UNMATCHED = "(none)"  # no route was found, or the request was refused before one was looked for
HUNG_UP = 499  # the client left before the answer began: no status was sent


@dataclass(slots=True)
class Done:
    """One request that is over. `route`: the template of its path, which has few values; `seconds`: all of it."""

    scope: Scope
    exchange: Any  # app.security.Exchange
    method: str
    route: str
    status: int
    seconds: float


class Watcher(Protocol):
    """Told of every request, in the event loop: it must not wait."""

    def begun(self, scope: Scope) -> None: ...
    def done(self, done: Done) -> None: ...


def route_of(scope: Scope) -> str:
    """The template of the route that a request went to: `/v1/tensors/{ref}`."""
    path = getattr(scope.get("route"), "path", None)
    if path is None and "endpoint" in scope:  # a plain route of Starlette's is named by its endpoint alone
        path = scope["app"].state.templates.get(scope["endpoint"])
    return path if type(path) is str else UNMATCHED


def templates(routes: Iterable[Any]) -> dict[Any, str]:
    """The template of each endpoint among an application's routes."""
    return {route.endpoint: route.path for route in routes if hasattr(route, "endpoint")}
