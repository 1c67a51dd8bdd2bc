"""/v1/programs: many steps in one request, all of them or none.

As JSON, or as one safetensors file: its tensors are inputs, its metadata entry `program` is the JSON. An answer in that
form has the results' values as tensors, and in `program` the JSON answer, whose tensor objects have no values but the
`key` of theirs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import replies
from app.answers import Body
from app.deps import SESSION_QUERY, Call, an_object, off_loop, untagged
from app.errors import unknown
from app.lane import Way
from app.routes import jobs
from app.wire import arguments, json_read, json_write, media, safetensors
from app.wire.json_read import Arrays, Document
from engine.errors import Hint, Invalid, Malformed, WrongType
from engine.service import TensorAnswer, no_such_op

router = APIRouter(include_in_schema=False)

FIELDS = ("inputs", "steps", "return", "keep", "strict", "expect", "no_grad", "detect_anomaly")
PROGRAM = "program"  # the metadata entry
_QUERY = (*SESSION_QUERY, "dry_run", "explain", "as")
_FORMS = (media.JSON, media.SAFETENSORS)


async def run_program(request: Request) -> Response:
    """Run a program in the caller's session."""
    call = Call(request, _QUERY, _FORMS)
    values = call.binary_values()
    document = await (_of_file(call) if call.content_type == safetensors.MEDIA_TYPE else call.document())
    program = prepared(document, call.house.kinds)
    if call.only_new_names():
        program["if_none_match"] = True
    call.refuse_if_match()
    dry_run, prefer = call.flag("dry_run"), call.prefer
    if prefer is not None and not dry_run:
        return await jobs.taken(call, program, prefer)
    reply = await call.run(program, dry_run=dry_run, values=values)
    if call.form == media.SAFETENSORS:
        if "notes" in reply:
            reply["notes"] = {name: call.spoken(notes) for name, notes in reply["notes"].items()}
        return await call.encoded(json_write.weight(reply["results"]), lambda: _as_file(reply, call), 200, call.told)
    return await call.json(replies.of_program(reply, call.integers, call.language), headers=call.told)


router.add_route("/v1/programs", run_program, methods=["POST"])


async def _of_file(call: Call) -> Document:
    """The program of a safetensors file, its tensors among the inputs."""
    body = await call.elements(changed=True)
    file = await off_loop(len(body), lambda: safetensors.read_file(body))
    text = file.metadata.get(PROGRAM)
    if text is None:
        raise Malformed(
            f"the safetensors file has no metadata entry {PROGRAM!r}", code="no-program", hint=Hint("program-entry")
        )
    document = an_object(json_read.read(text.encode("utf-8")), f"the metadata entry {PROGRAM!r}")
    inputs = document.bare.setdefault("inputs", {})
    if type(inputs) is not dict:
        return document  # which the engine refuses
    for name, array in file.tensors.items():
        if name in inputs:
            raise Invalid(
                f"the input {name!r} is a tensor of the file and stands in its program too",
                code="input-twice",
                param="inputs",
                hint=Hint("input-once", name=name),
            )
        inputs[name] = {"data": array}
    return document


def _as_file(reply: dict[str, Any], call: Call) -> tuple[dict[str, str], Body]:
    """The answer as a safetensors file. What the format cannot hold, complex128, keeps its values in the JSON."""
    tensors: dict[str, TensorAnswer] = {}

    def plain(value: Any, key: str) -> Any:
        if type(value) is list:
            return [plain(item, f"{key}.{i}") for i, item in enumerate(value)]
        if type(value) is dict:
            return {name: plain(item, f"{key}.{name}") for name, item in value.items()}
        if type(value) is not TensorAnswer:
            return json_write.result(value, call.integers)
        bare = replace(value, grad=None if value.grad is None else replace(value.grad, values=None))
        if value.values is None or value.dtype not in safetensors.HOLDS:
            return json_write.tensor(bare, call.integers)
        while key in tensors or key == safetensors.METADATA:
            key += "~"
        tensors[key] = value
        bare.values = None
        return {**json_write.tensor(bare, call.integers), "key": key}

    told = {**reply, "results": {name: plain(value, name) for name, value in reply["results"].items()}}
    if call.exchange.simulated:
        told["simulated"] = True
    return safetensors.write(tensors, {PROGRAM: json_write.write(told, call.integers).decode().rstrip()})


def prepared(document: Document, kinds: arguments.Kinds) -> dict[str, Any]:
    """The program with arrays in place of long lists, and nothing in it that only the front may say."""
    program: dict[str, Any] = document.bare
    unknown(program, FIELDS, "field")
    inputs = program.get("inputs")
    if type(inputs) is dict and document.arrays:
        program["inputs"] = {name: arguments.tensor_with_array(v, document.arrays) for name, v in inputs.items()}
    expect = program.get("expect")
    if type(expect) is dict:
        program["expect"] = {ref: untagged(tag) if type(tag) is str else tag for ref, tag in expect.items()}
    _prepare(program.get("steps"), [], kinds, document.arrays)
    document.arrays.fill()
    return program


WAY = Way(
    call=lambda request: Call(request, _QUERY, _FORMS),
    program=lambda op, document, kinds: prepared(document, kinds),
    answer=lambda op, reply, call: replies.of_program(reply, call.integers, call.language),
)


def _prepare(steps: Any, path: list[int], kinds: arguments.Kinds, arrays: Arrays) -> None:
    """Walk through the steps as far as they have the form of steps; what has not is the engine's to refuse."""
    if type(steps) is not list:
        return
    for number, step in enumerate(steps):
        if type(step) is not dict:
            continue
        here = [*path, number]
        op, args, out = step.get("op"), step.get("args"), step.get("out")
        if type(op) is str and op.startswith("_"):
            error = no_such_op(op)
            error.step = here
            raise error
        if type(out) is dict:
            wrong = WrongType("out is a name, or a list of names", op=op if type(op) is str else None, param="out")
            wrong.step = here
            raise wrong
        if arrays and type(args) is dict and type(op) is str:
            step["args"] = arguments.with_arrays(args, kinds.get(op, {}), arrays)
        _prepare(step.get("steps"), here, kinds, arrays)
