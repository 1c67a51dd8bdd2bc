"""Traces by OpenTelemetry: an extra (`otel`), imported only where it is asked for.

Where they go is OpenTelemetry's own business: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and the like. A span is
named after the route's template and has no header, body, key or query in it.
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.watch import Done
from engine.errors import Invalid
from engine.service import version

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
UNTRACED = "/healthz,/readyz,/metrics"


def wanted(asked: bool) -> bool:
    """Whether traces were asked for: by `--otel`, or by OpenTelemetry's own variables."""
    return asked or any(os.environ.get(name) for name in ENDPOINTS)


def install(application: FastAPI, exporter: Any = None) -> None:
    """Trace every request. `exporter`: where spans go, by OTLP over HTTP if not given. Raises Invalid without them."""
    try:
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
    application.state.tracing = provider
    application.add_middleware(
        _Traced,
        traced=lambda inner: OpenTelemetryMiddleware(
            inner,
            tracer_provider=provider,
            excluded_urls=UNTRACED,
            default_span_details=lambda scope: (scope["method"], {}),
            exclude_spans=["receive", "send"],
        ),
    )


class _Traced:
    """The middleware of OpenTelemetry, without what a span must not hold."""

    def __init__(self, app: ASGIApp, traced: Any) -> None:
        self.app = app
        self._inside = traced(self._called)
        self._closed: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # The instrumentation would put path and query, which name tensors and sessions, into the span.
        seen = {**scope, "query_string": b"", "raw_path": b"", "curlgrad.scope": scope}
        await self._inside(seen, receive, send)

    async def _called(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope["curlgrad.scope"], receive, send)


class Spans:
    """A watcher that names the span of a request when its route is known."""

    def begun(self, scope: Scope) -> None:
        """The span is begun by the middleware around the Guard."""

    def done(self, done: Done) -> None:
        from opentelemetry import trace

        span = trace.get_current_span()
        if not span.is_recording():
            return
        exchange = done.exchange
        span.update_name(f"{done.method} {done.route}")
        span.set_attribute("http.route", done.route)
        span.set_attribute("curlgrad.request_id", exchange.request_id)
        for phase in ("queue", "run", "encode"):
            span.set_attribute(f"curlgrad.{phase}_ms", getattr(exchange, f"{phase}_ms"))
