"""Whose key this is, and what the holder of an admin key sees of everyone's sessions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from starlette.responses import Response

from app.deps import READ, Call, about
from app.keys import SCOPES

router = APIRouter(include_in_schema=False)


@router.api_route("/v1/me", methods=READ)
async def me(call: Annotated[Call, about()]) -> Response:
    """The caller's key, what it may do, how much, and how much of that is used."""
    service, key = call.house.service, call.principal.key
    limits = {
        "sessions": service.limits.max_sessions,
        "session_bytes": service.limits.session_bytes,
        "bytes": service.limits.owner_bytes,
        "requests_per_second": call.house.max_rate if key is not None and call.house.max_rate else None,
    }
    return await call.json(
        {
            "owner": call.owner,
            "key": None if key is None else key.shown(),
            "scopes": list(SCOPES) if key is None else [scope for scope in SCOPES if key.may(scope)],
            "limits": limits,
            "use": await service.usage(call.owner),
        }
    )


@router.api_route("/v1/admin/sessions", methods=READ)
async def all_sessions(call: Annotated[Call, about("limit", "cursor")]) -> Response:
    """Everyone's sessions, by owner and order of creation."""
    return await call.json(await call.house.service.all_sessions(limit=call.limit(), cursor=call.query.get("cursor")))


@router.delete("/v1/admin/sessions/{session_id}")
async def delete_any_session(session_id: str, call: Annotated[Call, about()]) -> Response:
    """Free a session, whoever's it is."""
    await call.house.service.delete_any_session(session_id)
    return Response(status_code=204)
