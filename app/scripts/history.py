"""What recorded programs are in terms of HTTP: which call made each, and its body as JSON.

A call of one operation, an upload, a PATCH and a DELETE are programs inside (app.routes); here they are told apart
again by their form. Whatever has none of these forms is a program that was sent as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from engine.service import ArrayData

Program = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """One call: `body` is what is sent as JSON; None where nothing is."""

    method: str
    path: str
    body: dict[str, Any] | None = None


def request_of(program: Program) -> Request:
    """The call that made a program."""
    steps, inputs = program.get("steps") or [], program.get("inputs") or {}
    if not steps and inputs and "keep_all" in program:
        return _upload(program)
    if len(steps) == 1 and not inputs and "repeat" not in steps[0]:
        found = _of_step(steps[0], program)
        if found is not None:
            return found
    if list(inputs) == ["r"] and type(inputs["r"]) is str and program.get("return") == ["r"]:
        return _patch(inputs["r"], steps, program)
    fields = ("inputs", "steps", "return", "keep", "strict", "no_grad")
    return Request("POST", "/v1/programs", {name: jsonable(program[name]) for name in fields if program.get(name)})


def _of_step(step: Mapping[str, Any], program: Program) -> Request | None:
    op, args = step["op"], step.get("args") or {}
    if op == "_release":
        return Request("DELETE", f"/v1/tensors/{quote(args['input'], safe='')}")
    if op == "_release_unnamed":
        return Request("DELETE", "/v1/tensors?unnamed=true")
    out = step.get("out")
    if op == "backward" and out is None and "keep" not in program and type(args.get("input")) is str:
        rest = {name: jsonable(value) for name, value in args.items() if name != "input"}
        return Request("POST", f"/v1/tensors/{quote(args['input'], safe='')}/backward", rest)
    if type(out) is not dict:
        if out is None and not program.get("return") and not program.get("keep"):  # a PATCH of the session
            return Request("POST", f"/v1/ops/{op}", jsonable(args))
        return None
    body = {name: jsonable(value) for name, value in args.items()}
    if "keep_all" in program:
        names = program["keep_all"]["r"]
        if names is not None:
            body["out_names" if isinstance(names, list) else "out_name"] = names
    else:
        body["keep"] = False
    if program.get("no_grad"):
        body["no_grad"] = True
    return Request("POST", f"/v1/ops/{op}", body)


def _upload(program: Program) -> Request:
    inputs, names = program["inputs"], program["keep_all"]
    if len(inputs) == 1:
        (value,), (name,) = inputs.values(), names.values()
        body = jsonable(value) if type(value) is dict else {"data": jsonable(value)}
        return Request("POST", "/v1/tensors", {**body, **({} if name is None else {"name": name})})
    keep = {local: name for local, name in names.items() if name is not None}
    return Request("POST", "/v1/programs", {"inputs": jsonable(inputs), "keep": keep})


def _patch(ref: str, steps: Sequence[Mapping[str, Any]], program: Program) -> Request:
    body: dict[str, Any] = {}
    for step in steps:
        if step["op"] == "requires_grad_":
            body["requires_grad"] = step["args"]["requires_grad"]
        elif step["op"] == "_clear_grad":
            body["grad"] = None
        elif step["op"] == "_rename":
            body["name"] = None
    if "keep_all" in program:
        body["name"] = program["keep_all"]["r"]
    return Request("PATCH", f"/v1/tensors/{quote(ref, safe='')}", body)


# ---------------------------------------------------------------- values


def jsonable(value: Any) -> Any:
    """A recorded value as JSON: arrays as nested lists, beside their dtype where JSON would not give it."""
    if isinstance(value, ArrayData):
        return _listed(value) if value.inferred else {"data": _listed(value), "dtype": value.dtype}
    if isinstance(value, Mapping):
        found = {key: jsonable(item) for key, item in value.items() if not (key == "dtype" and item is None)}
        data = value.get("data")
        if isinstance(data, ArrayData):
            found["data"] = _listed(data)
            if not data.inferred:
                found.setdefault("dtype", data.dtype)
        return found
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if type(value) is complex:
        return {"re": _number(value.real), "im": _number(value.imag)}
    return _number(value) if type(value) is float else value


def _number(value: float) -> Any:
    """A float as JSON, where what JSON lacks is a string."""
    if value != value:
        return "NaN"
    return value if abs(value) != float("inf") else "Infinity" if value > 0 else "-Infinity"


def _listed(data: ArrayData) -> Any:
    values = floats_of(data)
    if values.dtype.kind == "c":
        values = np.stack([values.real, values.imag], axis=-1)
    return _finite(values.tolist()) if values.dtype.kind == "f" else values.tolist()


def _finite(values: Any) -> Any:
    return [_finite(v) for v in values] if isinstance(values, list) else _number(values)


def floats_of(data: ArrayData) -> np.ndarray[Any, Any]:
    """The values of given data; those of bfloat16, which travel as bits, as float32."""
    if data.dtype == "bfloat16" and data.array.dtype == np.uint16:
        return (data.array.astype(np.uint32) << 16).view(np.float32).reshape(data.array.shape)
    return data.array


def opening(history: Mapping[str, Any]) -> list[str]:
    """What stands at the top of every script: whose it is, and where it begins."""
    who = history["name"] or history["session"]
    lines = [f"What the session {who} did."]
    if history["whole"] and history["forked"] is not None:
        lines.append(f"It begins as a fork of {history['forked']}: with what that public session holds.")
    if not history["whole"]:
        lines += [
            f"It begins at call {history['begins']} of the session: what was done before is no longer remembered.",
            "Tensors that were made before, and the state of the random generator, are missing here.",
        ]
    return lines
