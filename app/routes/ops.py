"""/v1/ops: the operations, and the one route that runs them all."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import replies
from app.deps import READ, SESSION_QUERY, Call, House, about
from app.lane import Way
from app.openapi.served import Served
from app.routes import jobs
from app.wire import json_write
from app.wire.arguments import Kinds, with_arrays
from app.wire.json_read import Document
from engine.errors import Invalid, WrongType
from engine.service import no_such_op

router = APIRouter(include_in_schema=False)

# What a body may say beside the operation's parameters, and the type of each.
OPTIONS: dict[str, type] = {"out_name": str, "out_names": list, "keep": bool, "no_grad": bool}
_LISTED = ("name", "summary", "family", "params", "returns", "differentiable", "inplace", "view", "doc", "example")
_PARAM = ("name", "type", "default", "required", "doc")
_QUERY = (*SESSION_QUERY, "dry_run", "explain")


async def run_op(request: Request) -> Response:
    """Run one operation: a program of one step, whose result is kept. Every POST /v1/ops/{op} comes here."""
    call, op = Call(request, _QUERY), request.path_params["op"]
    program = one_step(op, await call.document(), call.house.kinds)
    if call.only_new_names():
        program["if_none_match"] = True
    expected = call.expected()
    if expected is not None:
        target = program["steps"][0]["args"].get("input")
        if not (op.endswith("_") and type(target) is str):
            call.refuse_if_match()
        program["expect"] = {target: expected}
    dry_run, prefer = call.flag("dry_run"), call.prefer
    if prefer is not None and not dry_run:
        return await jobs.taken(call, program, prefer, op)
    reply = await call.run_alone(program, dry_run=dry_run)
    return await call.json(replies.of_op(op, reply, call.integers, call.language, dry_run=dry_run), headers=call.told)


# A plain route: FastAPI's parameter handling would double what the front adds to a small operation.
router.add_route("/v1/ops/{op}", run_op, methods=["POST"])


def one_step(op: str, document: Document, kinds: Kinds) -> dict[str, Any]:
    """The program of one operation: its result, a tensor or several, is `r` and kept under the name asked for."""
    if op.startswith("_"):
        raise no_such_op(op)
    args, options = dict(with_arrays(document.bare, kinds.get(op, {}), document.arrays)), {}
    document.arrays.fill()
    for name, kind in OPTIONS.items():
        if name in args:
            options[name] = value = args.pop(name)
            if type(value) is not kind:
                raise WrongType(f"{name} must be a {_A[kind]}", op=op, param=name)
    if "out_name" in options and "out_names" in options:
        raise Invalid("give out_name for one result or out_names for several, not both", op=op, param="out_names")
    keep_as = options.get("out_name", options.get("out_names"))
    program: dict[str, Any] = {"steps": [{"op": op, "args": args, "out": {"whole": "r"}}], "return": ["r"]}
    if options.get("keep", True):
        program["keep_all"] = {"r": keep_as}
    elif keep_as is not None:
        raise Invalid("keep is false, so there is nothing to name", op=op, param="keep")
    if options.get("no_grad"):
        program["no_grad"] = True
    return program


# A call that has nothing out of the ordinary goes past all of the above (app/lane.py).
WAY = Way(
    call=lambda request: Call(request, _QUERY),
    program=one_step,
    answer=lambda op, reply, call: replies.of_op(op, reply, call.integers, call.language),
    stepless=True,
)

_A = {str: "string", list: "list of strings", bool: "boolean"}


@router.api_route("/v1/ops", methods=READ)
async def list_ops(call: Annotated[Call, about()]) -> Response:
    """Every operation: name, parameters in torch's order, documentation, example."""
    return _listing(call.house).reply(call.request)


@router.api_route("/v1/ops/{op}", methods=READ)
async def read_op(op: str, call: Annotated[Call, about()]) -> Response:
    """One operation, as the list has it."""
    known = _entries(call.house)
    if op not in known:
        raise no_such_op(op)
    return await call.json(known[op])


@lru_cache(maxsize=4)
def _entries(house: House) -> dict[str, dict[str, Any]]:
    """What is said of each operation: the catalogue's entry without what only the OpenAPI document needs."""
    entries = {}
    for op in house.catalogue:
        params = [{key: param[key] for key in _PARAM if key in param} for param in op["params"]]
        entries[op["name"]] = {**{key: op[key] for key in _LISTED}, "params": params}
    return entries


@lru_cache(maxsize=4)
def _listing(house: House) -> Served:
    """The whole list as bytes: with hundreds of operations, too much to write anew for each who asks."""
    body = json_write.write({"ops": list(_entries(house).values())})
    return Served(body, json_write.MEDIA_TYPE, cache_control="private, no-cache")
