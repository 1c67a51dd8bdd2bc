"""The application: routes, errors, guard and pages around one engine service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp

from app import errors, openapi, pages, tracing
from app.deps import House
from app.keys import BadKeysFile, Keys, Known
from app.lane import Lane
from app.logs import AccessLog
from app.metrics import Metrics
from app.rates import Rates
from app.routes import admin, jobs, ops, programs, sessions, system, tensors
from app.security import Direct, Gate, Guard
from app.settings import Settings, keys_file
from app.watch import templates
from engine.errors import Invalid
from engine.service import Limits, Service

if TYPE_CHECKING:
    from engine.service import Front

TITLE = "curlgrad"
# FastAPI asks OpenTelemetry's variables at every request; this server tells its numbers at /metrics.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
# The calls of which there are most go from the Guard to their handler. The router has them too, for what it says of
# paths and methods, but does not have to look for them.
_DIRECT = Direct(under={"/v1/ops/": ops.run_op}, at={"/v1/programs": programs.run_program})
_WAYS = {ops.run_op: ops.WAY, programs.run_program: programs.WAY}


class Application(FastAPI):
    """FastAPI behind the Guard, which answers whatever fails further in, so that no other layer has to."""

    guard: Mapping[str, Any]
    traced: Callable[[ASGIApp], ASGIApp] | None = None  # what goes around the Guard, where traces are asked for

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        inner = stack.app if isinstance(stack, ServerErrorMiddleware) else stack
        guarded: ASGIApp
        guarded = guard = Guard(inner, **self.guard)
        self.state.lane = None if guard.traced else Lane(self, guard, _WAYS)
        return guarded if self.traced is None else self.traced(guarded)


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
        plan_bytes=settings.plan_cache,
        idle_s=settings.sleep_after,
        max_seconds=settings.max_seconds,
        max_unnamed=settings.max_unnamed,
        tape_bytes=settings.tape_bytes,
        max_values=settings.max_values,
        history_bytes=settings.history,
        op_times=settings.op_times,
        busy_poll_s=settings.busy_poll * 1e-6,
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
        threads=settings.threads or None,
    )


@dataclass(frozen=True, slots=True)
class Share:
    """What a process that is one of several fronts has in common with them. `server`: the process that runs them."""

    keys: Known
    rates: Rates
    server: int


def create_app(
    settings: Settings | None = None,
    service: Service | Front | None = None,
    span_exporter: Any = None,
    share: Share | None = None,
) -> FastAPI:
    """The application. Without a service one is made by the settings; it starts and closes with the application.

    `span_exporter`: where OpenTelemetry's spans go, if they are asked for; by OTLP over HTTP if not given. `share`:
    where it is one of several fronts.
    """
    settings = settings or Settings()
    traced = tracing.wanted(settings.otel)
    service = service or service_of(settings)
    try:
        keys = Keys(keys_file(settings), before=None if share is None else share.keys)
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

    application = Application(
        title=TITLE,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    metrics = Metrics(None if share is None else share.server)
    gate = Gate()
    house = application.state.house = House(service, gate, settings.max_rate, metrics)
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
    openapi.install(application, lambda: house.catalogue, settings.root_path)
    pages.mount(application, simulated=service.simulated)
    errors.install(application)
    application.state.templates = templates(application.routes)
    application.guard = {
        "hosts": hosts_of(settings),
        "origins": settings.cors_origin,
        "max_body": settings.max_body,
        "keys": keys,
        "rates": Rates(settings.max_rate) if share is None else share.rates,
        "simulated": service.simulated,
        "gate": gate,
        "direct": _DIRECT,
        "root_path": settings.root_path,
        "watchers": (metrics, AccessLog(settings.slow_request)),
        "traced": traced,
    }
    if traced:
        application.traced, application.state.tracing = tracing.around(span_exporter)
    return application


def hosts_of(settings: Settings) -> tuple[str, ...]:
    """The names that a Host header may say: those given, and the address listened on where it is one address."""
    everywhere = settings.host in ("0.0.0.0", "::", "")
    return settings.allowed_host if everywhere else (*settings.allowed_host, settings.host.strip("[]"))
