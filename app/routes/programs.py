"""/v1/programs: many steps in one request, all of them or none."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import answers
from app.deps import SESSION_QUERY, Call, untagged
from app.errors import unknown
from app.routes import jobs
from app.wire import arguments
from app.wire.json_read import Document
from engine.errors import NoSuchOp, WrongType

router = APIRouter(include_in_schema=False)

FIELDS = ("inputs", "steps", "return", "keep", "strict", "expect", "no_grad", "detect_anomaly")
_QUERY = (*SESSION_QUERY, "dry_run", "explain")


async def run_program(request: Request) -> Response:
    """Run a program in the caller's session."""
    call = Call(request, _QUERY)
    program = prepared(await call.document(), call.house.kinds)
    if call.only_new_names():
        program["if_none_match"] = True
    call.refuse_if_match()
    dry_run, prefer = call.flag("dry_run"), call.prefer
    if prefer is not None and not dry_run:
        return await jobs.taken(call, program, prefer)
    reply = await call.run(program, dry_run=dry_run)
    return await call.json(answers.of_program(reply, call.integers, call.language), headers=call.told)


router.add_route("/v1/programs", run_program, methods=["POST"])


def prepared(document: Document, kinds: arguments.Kinds) -> dict[str, Any]:
    """The program with arrays in place of long lists, and nothing in it that only the front may say."""
    program: dict[str, Any] = document.value
    unknown(program, FIELDS, "field")
    inputs = program.get("inputs")
    if type(inputs) is dict and document.arrays:
        program["inputs"] = {name: arguments.tensor_with_array(v, document.arrays) for name, v in inputs.items()}
    expect = program.get("expect")
    if type(expect) is dict:
        program["expect"] = {ref: untagged(tag) if type(tag) is str else tag for ref, tag in expect.items()}
    _prepare(program.get("steps"), [], kinds, document.arrays)
    return program


def _prepare(steps: Any, path: list[int], kinds: arguments.Kinds, arrays: arguments.Arrays) -> None:
    """Walk through the steps as far as they have the form of steps; what has not is the engine's to refuse."""
    if type(steps) is not list:
        return
    for number, step in enumerate(steps):
        if type(step) is not dict:
            continue
        here = [*path, number]
        op, args, out = step.get("op"), step.get("args"), step.get("out")
        if type(op) is str and op.startswith("_"):
            error = NoSuchOp(f"no operation {op!r}", op=op)
            error.step = here
            raise error
        if type(out) is dict:
            wrong = WrongType("out is a name, or a list of names", op=op if type(op) is str else None, param="out")
            wrong.step = here
            raise wrong
        if arrays and type(args) is dict and type(op) is str:
            step["args"] = arguments.with_arrays(args, kinds.get(op, {}), arrays)
        _prepare(step.get("steps"), here, kinds, arrays)
