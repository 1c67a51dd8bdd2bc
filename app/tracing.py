"""Traces by OpenTelemetry: an extra (`otel`), imported only where it is asked for.

Where they go is OpenTelemetry's own business: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and the like. A span is
named after the route's template and has no header, body, key or query in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.watch import route_of
from engine.errors import Invalid
from engine.service import version

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
UNTRACED = ("/healthz", "/readyz", "/metrics")
_PATHS = ("http.target", "http.url", "url.path", "url.full")  # attributes that say the path, by the conventions' age


def wanted(asked: bool) -> bool:
    """Whether traces were asked for: by `--otel`, or by OpenTelemetry's own variables."""
    return asked or any(os.environ.get(name) for name in ENDPOINTS)


def around(exporter: Any = None) -> tuple[Callable[[ASGIApp], ASGIApp], Any]:
    """(what traces every request to an application, the provider of its spans).

    `exporter`: where spans go, by OTLP over HTTP if not given. Raises Invalid where the extra is not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise Invalid(
            f"traces need the extra `otel` (pip install 'curlgrad[otel]'): {error}", code="no-otel", param="otel"
        ) from error
    if exporter is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    name = os.environ.get("OTEL_SERVICE_NAME", "curlgrad")
    resource = Resource.create({"service.name": name, "service.version": version()})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    middleware = partial(
        _Traced,
        traced=lambda inner: OpenTelemetryMiddleware(
            inner,
            tracer_provider=provider,
            default_span_details=lambda scope: (scope["method"], {}),
            exclude_spans=["receive", "send"],
        ),
        current=trace.get_current_span,
    )
    return middleware, provider


class _Traced:
    """The middleware of OpenTelemetry, around an application whose paths and queries it does not see.

    Both name tensors and sessions. What a span is called and says of the path is the route's template, known when the
    answer begins; the instrumentation ends the span when the answer does.
    """

    def __init__(self, app: ASGIApp, traced: Callable[[ASGIApp], ASGIApp], current: Callable[[], Any]) -> None:
        self.app = app
        self._current = current
        self._inside = traced(self._called)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].endswith(UNTRACED):
            await self.app(scope, receive, send)
            return
        seen = {**scope, "path": "/", "raw_path": b"/", "query_string": b"", "curlgrad.scope": scope}
        await self._inside(seen, receive, send)

    async def _called(self, seen: Scope, receive: Receive, send: Send) -> None:
        scope = seen["curlgrad.scope"]

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._name(scope)
            await send(message)

        await self.app(scope, receive, named)

    def _name(self, scope: Scope) -> None:
        span, route, exchange = self._current(), route_of(scope), scope["curlgrad.exchange"]
        span.update_name(f"{scope['method']} {route}")
        for name in _PATHS:
            if name in (getattr(span, "attributes", None) or ()):
                span.set_attribute(name, route)
        span.set_attribute("http.route", route)
        span.set_attribute("curlgrad.request_id", exchange.request_id)
        for phase in ("queue", "run", "encode"):
            span.set_attribute(f"curlgrad.{phase}_ms", getattr(exchange, f"{phase}_ms"))
