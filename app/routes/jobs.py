"""/v1/jobs: programs that nobody waits for."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from app import errors, replies
from app.deps import READ, Call, about
from app.errors import TooManyRequests
from app.prefer import Async
from app.wire import json_write
from engine.errors import EngineError, Hint, Invalid, Unavailable

router = APIRouter(include_in_schema=False)

HEARTBEAT_S = 15.0
ASK_S = 0.2  # between two looks at a job that somebody listens to
ASKS = 50  # looks a second, of all who listen to this process together
MAX_LISTENERS = 100  # of one owner
_ENDED = ("done", "failed", "cancelled")
_JOB = re.compile(r"j-[0-9a-f]{46}")
_EVENT = re.compile(r"(?:\d{1,12}(?:\.\d{1,12}){0,999})?(-end)?")


async def taken(call: Call, program: dict[str, Any], prefer: Async, op: str | None = None) -> Response:
    """The program as a job: 202, or its answer where that comes in time. `op`: it is one operation."""
    told = {
        "op": op,
        "path": call.request.scope["path"],
        "request_id": call.exchange.request_id,
        "int64": call.integers,
    }
    service = call.house.service
    try:
        job, reply = await service.submit(
            call.owner,
            call.session,
            program,
            call.values,
            call.flag("explain"),
            about=told,
            once=await call.once(),
            wait=prefer.wait or 0,
        )
    except EngineError as error:
        if op is not None:
            error.step = error.round = None
        raise
    if reply is not None:
        call.exchange.queue_ms, call.exchange.run_ms = reply[1].queue_ms, reply[1].run_ms
        return await call.json(_answer(call, told, reply[0]), 200, {**call.told, "Preference-Applied": prefer.answered})
    where = {"Location": f"/v1/jobs/{job['job']}", "Preference-Applied": prefer.taken}
    return await call.json(_object(call, job), 202, where)


@router.api_route("/v1/jobs", methods=READ)
async def list_jobs(call: Annotated[Call, about("limit", "cursor")]) -> Response:
    """The caller's jobs, without their results, in the order of their making."""
    cursor = call.query.get("cursor")
    if cursor is not None and not _JOB.fullmatch(cursor):
        raise Invalid(f"{cursor[:100]!r} is no cursor of this list", code="bad-cursor", param="cursor")
    page = await call.house.service.jobs(call.owner, limit=call.limit(), cursor=cursor)
    return await call.json({**page, "jobs": [_object(call, job) for job in page["jobs"]]})


@router.api_route("/v1/jobs/{id}", methods=READ)
async def read_job(id: str, call: Annotated[Call, about()]) -> Response:
    """How a job stands, and what came of it."""
    job = await call.house.service.job(call.owner, id, result=True)
    found = _object(call, job)
    if job["reply"] is not None:
        call.integers = job["about"]["int64"]
        found["result"] = _answer(call, job["about"], job["reply"])
    return await call.json(found, headers={"Content-Language": call.language.tag})


@router.delete("/v1/jobs/{id}")
async def cancel_job(id: str, call: Annotated[Call, about()]) -> Response:
    """End a job, the session as it was before. One that has ended stays as it is."""
    await call.house.service.cancel_job(call.owner, id)
    return Response(status_code=204)


@router.get("/v1/jobs/{id}/events")
async def listen(id: str, call: Annotated[Call, about(offers=("events",))]) -> Response:
    """What becomes of a job, as Server-Sent Events."""
    seen, ended = _last(call.headers.get("last-event-id"))
    job = await call.house.service.job(call.owner, id, seen=seen)
    if ended:  # all was told: a browser that comes again is to stop (HTML, 9.2.3)
        return Response(status_code=204)
    if await call.house.listening(call.owner) >= MAX_LISTENERS:
        raise TooManyRequests(
            f"{MAX_LISTENERS} of your requests listen to jobs already",
            code="too-many-listeners",
            hint=Hint("too-many-listeners", limit=MAX_LISTENERS),
            retry_after=5,
        )
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(call, id, job), media_type="text/event-stream", headers=headers)


# ------------------------------------------------------------ events


async def _events(call: Call, id: str, job: dict[str, Any]) -> AsyncIterator[bytes]:
    """The events from a first look on. It looks again when what it told has been read: a slow reader hears of fewer
    steps, and holds up nobody."""
    house, owner = call.house, call.owner
    house.listens(owner, 1)
    try:
        told, spoke = None, time.monotonic()
        yield b"retry: 2000\n\n"
        while True:
            counts = ".".join(map(str, job["seen"]))
            news = []
            if job["collected"]:
                news.append(_event("collected", counts, job["collected"], call))
            if (progress := {"state": job["state"], **_progress(job)}) != told and not job["more"]:
                told = progress
                news.append(_event("progress", counts, progress, call))
            if job["state"] in _ENDED and not job["more"]:
                news.append(_event("done", f"{counts}-end", _object(call, job), call))
            if news:
                yield b"".join(news)
                spoke = time.monotonic()
            if job["state"] in _ENDED and not job["more"]:
                return
            if not job["more"]:
                await asyncio.sleep(max(ASK_S, sum(house.listeners.values()) / ASKS))
                if time.monotonic() - spoke >= HEARTBEAT_S:
                    yield b": still here\n\n"
                    spoke = time.monotonic()
            if house.gate.closed or await call.request.is_disconnected():
                return
            try:
                job = await house.service.job(owner, id, seen=job["seen"])
            except Unavailable:  # its worker starts anew
                job = {**job, "collected": {}, "more": False}
            except EngineError as error:  # it was forgotten meanwhile
                yield _event("problem", f"{counts}-end", _problem(call, error, job["about"]), call)
                return
    finally:
        house.listens(owner, -1)


def _event(name: str, id: str, data: Any, call: Call) -> bytes:
    return b"".join((f"event: {name}\nid: {id}\ndata: ".encode(), json_write.write(data, call.integers), b"\n\n"))


def _last(text: str | None) -> tuple[list[int], bool]:
    """Last-Event-ID: how many collected values of each name were told, and whether all was."""
    match = _EVENT.fullmatch(text or "")
    if match is None:
        raise Invalid(f"{(text or '')[:100]!r} is no id of these events", param="Last-Event-ID", hint=Hint("event-id"))
    counts = (text or "").removesuffix("-end")
    return [int(count) for count in counts.split(".")] if counts else [], match[1] is not None


# ------------------------------------------------------------ what is told


def _progress(job: dict[str, Any]) -> dict[str, Any]:
    told = {name: job[name] for name in ("steps_run", "steps", "rounds", "of")}
    return {"position": job["position"], **told, "seconds": round(job["seconds"], 6)}


def _object(call: Call, job: dict[str, Any]) -> dict[str, Any]:
    progress = _progress(job)
    found = {
        "id": job["job"],
        "session": job["session"],
        "state": job["state"],
        "position": progress.pop("position"),
        "progress": progress,
        "created": job["created"],
        "ended": job["ended"],
        "kept_until": job["kept_until"],
        "survives_restart": call.house.service.durable,
    }
    if job["problem"] is not None:
        found["problem"] = _problem(call, EngineError.from_data(job["problem"]), job["about"])
    return found


def _problem(call: Call, error: EngineError, told: dict[str, Any]) -> dict[str, Any]:
    """The problem that the program would have been answered."""
    if told["op"] is not None:
        error.step = error.round = None
    return errors.problem(error, path=told["path"], request_id=told["request_id"], spoken=call.language)


def _answer(call: Call, told: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    if told["op"] is None:
        return replies.of_program(reply, told["int64"], call.language)
    return replies.of_op(told["op"], reply, told["int64"], call.language)
