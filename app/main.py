"""The application: routes, errors, guard and pages around one engine service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import errors, openapi, pages
from app.deps import House
from app.keys import BadKeysFile, Keys
from app.rates import Rates
from app.routes import admin, jobs, ops, programs, sessions, system, tensors
from app.security import Gate, Guard
from app.settings import Settings, keys_file
from engine.errors import Invalid
from engine.service import Limits, Service

TITLE = "curlgrad"


def service_of(settings: Settings) -> Service:
    """The engine's door, with the workers and limits of the settings; not started yet."""
    limits = Limits(
        session_bytes=settings.session_bytes,
        device_bytes=settings.device_bytes,
        max_steps=settings.max_steps,
        max_rounds=settings.max_rounds,
        max_run=settings.max_run,
        max_nesting=settings.max_nesting,
        owner_bytes=settings.key_bytes,
        plan_from=settings.plan_from,
        idle_s=settings.sleep_after,
        max_jobs=settings.max_jobs,
        jobs_s=settings.keep_jobs,
    )
    if settings.server_bytes is not None:
        limits.server_bytes = settings.server_bytes
    cache = None if settings.data_dir is None else str(settings.data_dir.absolute() / "cupy")
    return Service(
        settings.workers,
        limits=limits,
        data_dir=settings.data_dir,
        sync=settings.sync,
        cache=cache,
        sync_steps=settings.sync_steps,
    )


def create_app(settings: Settings | None = None, service: Service | None = None) -> FastAPI:
    """The application. Without a service one is made by the settings; it starts and closes with the application."""
    settings = settings or Settings()
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

    application = FastAPI(
        title=TITLE, lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    gate = Gate()
    house = application.state.house = House(service, gate, settings.max_rate)
    for routes in (
        ops,
        programs,
        tensors,
        jobs,
        sessions,
        system,
        admin,
    ):  # what is asked most comes first: routes are tried in order
        application.router.routes.extend(routes.router.routes)
    openapi.install(application, lambda: house.catalogue)
    pages.mount(application, simulated=service.simulated)
    errors.install(application)
    application.add_middleware(
        Guard,
        hosts=hosts_of(settings),
        origins=settings.cors_origin,
        max_body=settings.max_body,
        keys=keys,
        rates=Rates(settings.max_rate),
        simulated=service.simulated,
        gate=gate,
    )
    return application


def hosts_of(settings: Settings) -> tuple[str, ...]:
    """The names that a Host header may say: those given, and the address listened on where it is one address."""
    everywhere = settings.host in ("0.0.0.0", "::", "")
    return settings.allowed_host if everywhere else (*settings.allowed_host, settings.host.strip("[]"))
