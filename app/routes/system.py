"""What the server is and how it is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.deps import READ, Call, about
from app.metrics import CONTENT_TYPE
from app.wire import media
from engine.errors import Unavailable

router = APIRouter(include_in_schema=False)


@router.api_route("/v1/info", methods=READ)
async def info(call: Annotated[Call, about()]) -> Response:
    """Version, build, dtypes, devices, workers and limits."""
    return await call.json(await call.house.service.told())


@router.api_route("/v1/devices", methods=READ)
async def devices(call: Annotated[Call, about()]) -> Response:
    """The devices that tensors can be on."""
    return await call.json({"devices": await call.house.service.devices()})


@router.api_route("/healthz", methods=READ)
async def healthz() -> Response:
    """Whether the process is up."""
    return Response('{"status":"ok"}', media_type="application/json")


@router.api_route("/readyz", methods=READ)
async def readyz(request: Request) -> Response:
    """Whether programs can run. Never waits for one."""
    house = request.app.state.house
    if house.gate.closed:
        raise Unavailable("the server is ending", code="not-applied")
    if not await house.service.up():
        raise Unavailable("the workers are starting", code="not-applied")
    return Response('{"status":"ready"}', media_type="application/json")


@router.api_route("/metrics", methods=READ)
async def metrics(call: Annotated[Call, about(offers=(media.TEXT,))]) -> Response:
    """Numbers for Prometheus. Waits for no program."""
    return Response(await call.house.numbers(), media_type=CONTENT_TYPE)


@router.api_route("/", methods=READ)
async def root() -> Response:
    """To the documentation."""
    return RedirectResponse("/docs")
