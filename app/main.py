"""The application: routes, errors, guard and pages around one engine service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app import errors, openapi, pages, tracing
from app.deps import House
from app.keys import BadKeysFile, Keys
from app.logs import AccessLog
from app.metrics import Metrics
from app.rates import Rates
from app.routes import admin, ops, programs, sessions, system, tensors
from app.security import Guard
from app.settings import Settings, keys_file
from app.watch import templates
from engine.errors import Invalid
from engine.service import Limits, Service

TITLE = "curlgrad"


def service_of(settings: Settings) -> Service:
    """The engine's door, with the workers and limits of the settings; not started yet."""
    limits = Limits(
        session_bytes=settings.session_bytes,
        max_steps=settings.max_steps,
        max_rounds=settings.max_rounds,
        max_run=settings.max_run,
        max_nesting=settings.max_nesting,
        owner_bytes=settings.key_bytes,
        max_seconds=settings.max_seconds,
        max_unnamed=settings.max_unnamed,
        tape_bytes=settings.tape_bytes,
        max_values=settings.max_values,
        history_bytes=settings.history,
        op_times=settings.op_times,
    )
    if settings.server_bytes is not None:
        limits.server_bytes = settings.server_bytes
    return Service(settings.workers, limits=limits)


def create_app(settings: Settings | None = None, service: Service | None = None, span_exporter: Any = None) -> FastAPI:
    """The application. Without a service one is made by the settings; it starts and closes with the application.

    `span_exporter`: where OpenTelemetry's spans go, if they are asked for; by OTLP over HTTP if not given.
    """
    settings = settings or Settings()
    traced = tracing.wanted(settings.otel)
    service = service or service_of(settings)
    try:
        keys = Keys(keys_file(settings))
    except BadKeysFile as error:
        raise Invalid(str(error), param="keys_file") from error

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()
            if traced:
                application.state.tracing.shutdown()  # sends what is left

    application = FastAPI(
        title=TITLE, lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    metrics = Metrics()
    house = application.state.house = House(service, settings.max_rate, metrics)
    for routes in (
        ops,
        programs,
        tensors,
        sessions,
        system,
        admin,
    ):  # what is asked most comes first: routes are tried in order
        application.router.routes.extend(routes.router.routes)
    openapi.install(application, lambda: house.catalogue, settings.root_path)
    pages.mount(application)
    errors.install(application)
    application.state.templates = templates(application.routes)
    application.add_middleware(
        Guard,
        hosts=hosts_of(settings),
        origins=settings.cors_origin,
        max_body=settings.max_body,
        keys=keys,
        rates=Rates(settings.max_rate),
        root_path=settings.root_path,
        watchers=(metrics, AccessLog(settings.slow_request)),
    )
    if traced:
        tracing.install(application, span_exporter)
    return application


def hosts_of(settings: Settings) -> tuple[str, ...]:
    """The names that a Host header may say: those given, and the address listened on where it is one address."""
    everywhere = settings.host in ("0.0.0.0", "::", "")
    return settings.allowed_host if everywhere else (*settings.allowed_host, settings.host.strip("[]"))
