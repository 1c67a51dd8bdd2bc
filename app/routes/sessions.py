"""/v1/sessions: namespaces of tensors."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from starlette.responses import Response

from app import scripts
from app.deps import READ, Call, about, off_loop, unsupported
from app.wire import json_write, media, snapshot

router = APIRouter(include_in_schema=False)

_FIELDS = ("name", "device", "seed", "default_dtype", "lease_s")


@router.post("/v1/sessions")
async def create_session(call: Annotated[Call, about()]) -> Response:
    """A new session, or a fork of one that is public."""
    session = await call.house.service.create_session(
        call.owner, await call.fields(*_FIELDS, "fork"), await call.once()
    )
    return await call.json(session, 201, {"Location": f"/v1/sessions/{session['id']}"})


@router.api_route("/v1/sessions", methods=READ)
async def list_sessions(call: Annotated[Call, about("limit", "cursor")]) -> Response:
    """The caller's sessions, in order of creation."""
    page = call.house.service.list_sessions(call.owner, limit=call.limit(), cursor=call.query.get("cursor"))
    return await call.json(await page)


@router.api_route("/v1/sessions/{ref}", methods=READ)
async def read_session(ref: str, call: Annotated[Call, about()]) -> Response:
    """What the session holds and where it lives."""
    return await call.json(await call.house.service.session_info(call.owner, ref))


@router.api_route("/v1/sessions/{ref}/memory", methods=READ)
async def read_memory(ref: str, call: Annotated[Call, about("limit", "cursor")]) -> Response:
    """The ledger: every storage, its bytes, and who keeps it alive."""
    ledger = call.house.service.session_memory(call.owner, ref, limit=call.limit(), cursor=call.query.get("cursor"))
    return await call.json(await ledger)


@router.api_route("/v1/sessions/{ref}/script", methods=READ)
async def read_script(ref: str, call: Annotated[Call, about("language", offers=(media.TEXT,))]) -> Response:
    """What the session did, as a script that runs."""
    write = scripts.WRITERS[call.one_of("language", tuple(scripts.WRITERS))]
    history = await call.house.service.session_history(call.owner, ref)
    text = await off_loop(scripts.weight(history), lambda: write(history, call.house.catalogue))
    return Response(text, media_type="text/plain")


@router.patch("/v1/sessions/{ref}")
async def change_session(ref: str, call: Annotated[Call, about()]) -> Response:
    """Change its name, seed, default dtype or lease, and whether others may read it."""
    changed = call.house.service.patch_session(
        call.owner, ref, await call.fields(*_FIELDS, "public"), await call.once()
    )
    return await call.json(await changed)


@router.delete("/v1/sessions/{ref}")
async def delete_session(ref: str, call: Annotated[Call, about()]) -> Response:
    """Free all that it holds. Of the default session this is a reset."""
    await call.house.service.delete_session(call.owner, ref, await call.once())
    return Response(status_code=204)


@router.api_route("/v1/sessions/{ref}/snapshot", methods=READ)
async def read_snapshot(ref: str, call: Annotated[Call, about(offers=(media.SAFETENSORS,))]) -> Response:
    """The session as one safetensors file."""
    found, _ = await call.house.service.query(call.owner, ref, {"do": "snapshot"}, "all")
    return await call.encoded(json_write.weight(found["tensors"]), lambda: snapshot.write(found))


@router.put("/v1/sessions/{ref}/snapshot")
async def put_snapshot(ref: str, call: Annotated[Call, about("device")]) -> Response:
    """What the file holds in the place of all that the session holds."""
    if call.content_type != snapshot.MEDIA_TYPE:
        raise unsupported(call.content_type, (snapshot.MEDIA_TYPE,))
    call.refuse_if_match()
    body = await call.elements()
    contents = await off_loop(len(body), lambda: snapshot.read(body))
    keys = list(contents["arrays"])
    program = {"steps": [], "return": keys, "contents": {**contents, "device": call.query.get("device")}}
    reply, _ = await call.house.service.run(call.owner, ref, program, "none", once=await call.once())
    return await call.json({"tensors": reply["results"]})
