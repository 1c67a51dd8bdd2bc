"""/v1/tensors: tensors as resources, in every form that they come and go in."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from starlette.responses import Response

from app.answers import Body
from app.deps import READ, Call, check_expected, etag_of, is_json, off_loop, takes, unsupported
from app.wire import arguments, csv, dot, form, json_write, media, npy, pictures, plots, raw, safetensors, svg
from engine.errors import Hint, Invalid, LimitExceeded, MissingParameter, WrongType
from engine.service import TensorAnswer

router = APIRouter(include_in_schema=False)

_OPTIONS = ("name", "dtype", "shape", "device", "requires_grad", "skip_rows", "columns")
_FIELDS = ("data", "shape", "dtype", "device", "requires_grad", "name")
_PICTURES = (pictures.PNG, pictures.JPEG)
_UPLOAD_TYPES = (
    json_write.MEDIA_TYPE,
    form.MEDIA_TYPE,
    npy.MEDIA_TYPE,
    safetensors.MEDIA_TYPE,
    raw.MEDIA_TYPE,
    csv.MEDIA_TYPE,
    *_PICTURES,
)
_WRITERS: dict[str, Callable[[str, TensorAnswer], tuple[dict[str, str], Body]]] = {
    media.NPY: lambda name, tensor: npy.write(tensor),
    media.RAW: lambda name, tensor: raw.write(tensor),
    media.CSV: lambda name, tensor: csv.write(tensor),
    media.SAFETENSORS: lambda name, tensor: safetensors.write({name: tensor}),
}


# ---------------------------------------------------------------- making tensors


@router.post("/v1/tensors")
async def create_tensor(
    call: Annotated[Call, takes(*_OPTIONS, "explain")],
) -> Response:
    """A tensor of the body's data, or, of a safetensors file, one for each of its keys."""
    kind = call.content_type
    if kind == safetensors.MEDIA_TYPE:
        return await _create_many(call)
    if kind == npy.MEDIA_TYPE:
        given = await _of_npy(call)
    elif kind == raw.MEDIA_TYPE:
        given = await _of_bytes(call)
    elif kind == csv.MEDIA_TYPE:
        given = await _of_csv(call)
    elif kind in _PICTURES:
        given = await _of_picture(call)
    elif is_json(kind):
        given = await _of_json(call)
    else:
        raise unsupported(kind, _UPLOAD_TYPES)
    (tensor,), notes = await _create(call, [given], [given.pop("name", None)])
    headers = {"Location": f"/v1/tensors/{tensor.id}", **etag_of(tensor), **call.told}
    return await call.json(_with_notes(tensor, notes[0], call) if notes else tensor, 201, headers)


def _with_notes(tensor: TensorAnswer, notes: Sequence[Mapping[str, Any]], call: Call) -> dict[str, Any]:
    return {**json_write.tensor(tensor, call.integers), "notes": call.spoken(notes)}


async def _create(
    call: Call, given: list[dict[str, Any]], names: list[str | None]
) -> tuple[list[TensorAnswer], list[list[dict[str, Any]]]]:
    """Make the tensors in one program, and keep them under their names; with ?explain=true the notes on each."""
    call.refuse_if_match()
    local = ["data"] if len(given) == 1 else [f"data{i}" for i in range(len(given))]  # errors speak of these
    program: dict[str, Any] = {
        "inputs": dict(zip(local, given, strict=True)),
        "steps": [],
        "return": local,
        "keep_all": dict(zip(local, names, strict=True)),
    }
    if call.only_new_names():
        program["if_none_match"] = True
    reply = await call.run_alone(program)
    notes = reply.get("notes", {})
    return [reply["results"][name] for name in local], [notes[name] for name in local if name in notes]


async def _create_many(call: Call) -> Response:
    """A tensor for each key of a safetensors file, the key being its name."""
    options = _options(call, "device", "requires_grad")
    body = await call.elements()
    arrays = await off_loop(len(body), lambda: safetensors.read(body))
    tensors, notes = await _create(call, [{**options, "data": array} for array in arrays.values()], list(arrays))
    if not notes:
        return await call.json({"tensors": tensors}, 201)
    told = [_with_notes(tensor, about, call) for tensor, about in zip(tensors, notes, strict=True)]
    return await call.json({"tensors": told}, 201, call.told)


async def _of_json(call: Call) -> dict[str, Any]:
    _options(call)
    document = await call.document()
    fields = await call.fields(*_FIELDS, required=("data",), filled=False)
    fields = dict(arguments.data_with_array(fields, document.arrays))
    document.arrays.fill()
    name = fields.get("name")
    if name is not None and type(name) is not str:
        raise WrongType("name must be a string", param="name")
    return fields


async def _of_npy(call: Call) -> dict[str, Any]:
    options = _options(call, "name", "device", "requires_grad", "dtype")
    body = await call.elements()
    return {**options, "data": await off_loop(len(body), lambda: npy.read(body))}


async def _of_bytes(call: Call) -> dict[str, Any]:
    """The tensor of raw elements, which the query describes."""
    options = _options(call, "name", "device", "requires_grad", "dtype", "shape")
    if "dtype" not in options:
        raise MissingParameter(
            "?dtype= is missing: raw bytes do not say what they are", param="dtype", hint=Hint("raw-how")
        )
    data = raw.read(await call.elements(), options.pop("dtype"), options.pop("shape", None))
    return {**options, "data": data}


async def _of_csv(call: Call) -> dict[str, Any]:
    options = _options(call, "name", "device", "requires_grad", "dtype", "skip_rows", "columns")
    skip = _whole(options.pop("skip_rows", "0"), "skip_rows")
    asked = options.pop("columns", None)
    columns = None if asked is None else [_whole(part, "columns") for part in asked.split(",")]
    body = await call.body()
    return {**options, "data": await off_loop(len(body), lambda: csv.read(body, skip, columns, options.get("dtype")))}


async def _of_picture(call: Call) -> dict[str, Any]:
    options = _options(call, "name", "device", "requires_grad", "dtype")
    body, kind = await call.body(), call.content_type
    # A few bytes may be millions of pixels: always off the loop.
    return {**options, "data": await asyncio.to_thread(pictures.read, body, kind)}


def _whole(text: str, name: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise WrongType(f"?{name}= takes whole numbers from 0, and {text!r} is none", param=name)
    return int(text)


def _options(call: Call, *known: str) -> dict[str, Any]:
    """The query's options for an upload. Raises Invalid for one that does not go with this kind of body."""
    options: dict[str, Any] = {}
    for name in _OPTIONS:
        if name not in call.query:
            continue
        if name not in known:
            raise Invalid(f"?{name}= does not go with a body of the type {call.content_type or 'JSON'!r}", param=name)
        options[name] = call.query[name]
    if "requires_grad" in options:
        options["requires_grad"] = call.flag("requires_grad")
    if "shape" in options:
        options["shape"] = _shape(options["shape"])
    return options


def _shape(text: str) -> list[int]:
    """`2,3` as sizes; nothing is the shape of a 0-d tensor."""
    parts = text.strip("[] ").split(",") if text.strip("[] ") else []
    if not all(part.strip().isascii() and part.strip().isdigit() and len(part) < 20 for part in parts):
        raise WrongType(f"?shape={text} is not a list of sizes such as 2,3", param="shape", hint=Hint("raw-how"))
    return [int(part) for part in parts]


# ---------------------------------------------------------------- reading them


@router.api_route("/v1/tensors", methods=READ)
async def list_tensors(
    call: Annotated[Call, takes("limit", "cursor", "names", offers=(media.JSON, media.SAFETENSORS))],
) -> Response:
    """The session's tensors, without values; or several by name, as one safetensors file."""
    if call.form == media.SAFETENSORS:
        return await _export(call)
    if "names" in call.query:
        raise Invalid(
            "?names= goes with the safetensors form",
            param="names",
            hint=Hint("names-need-safetensors", names=call.query["names"]),
        )
    question: dict[str, Any] = {"do": "list", "limit": call.limit(), "cursor": call.query.get("cursor")}
    return await call.json(await call.ask(question, "none"))


async def _export(call: Call) -> Response:
    names = call.query.get("names")
    question = {"do": "export", "names": None if names is None else [n.strip() for n in names.split(",")]}
    tensors = await call.ask(question, "all")
    return await call.encoded(json_write.weight(tensors), lambda: safetensors.write(tensors))


@router.api_route("/v1/tensors/{ref}", methods=READ)
async def read_tensor(
    ref: str, call: Annotated[Call, takes("index", "explain", offers=media.TENSOR_FORMS)]
) -> Response:
    """The tensor, or the part of it that `index` says, in the form that is asked for."""
    question = {"do": "read", "ref": ref, "index": call.query.get("index"), "want_grad": True}
    return await _read(ref, question, call)


@router.api_route("/v1/tensors/{ref}/grad", methods=READ)
async def read_grad(ref: str, call: Annotated[Call, takes(offers=media.TENSOR_FORMS)]) -> Response:
    """The accumulated gradient, in the form that is asked for."""
    return await _read(f"{ref}.grad", {"do": "grad", "ref": ref}, call)


async def _read(ref: str, question: dict[str, Any], call: Call) -> Response:
    values = call.binary_values()
    if call.flag("explain"):
        return await _explained(question, call)
    form_tag = _form_tag(call)
    headers: dict[str, str] = {}
    text = ""
    if call.form == media.TEXT:
        if "index" in call.query:
            raise Invalid("?index= does not go with the text form", param="index")
        text = (await call.ask({"do": "text", "ref": ref}))["text"] + "\n"
        # set_printoptions and set_default_dtype change the text and not the tensor.
        form_tag += "-" + hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    if call.form == media.TEXT or "if-none-match" in call.headers or "if-match" in call.headers:
        tensor = await call.ask(question, "none")
        check_expected(call.expected(), tensor.etag)
        headers = etag_of(tensor, form_tag)
        if call.unchanged(headers):
            return Response(status_code=304, headers=headers)
    if call.form == media.TEXT:
        return Response(text, headers=headers, media_type="text/plain")
    if values == "all" and call.form in (media.JSON, media.CSV):
        question = {**question, "spelled": True}  # numbers as text: more of them than any reader wants are refused
    tensor = await call.ask(question, values)
    headers = etag_of(tensor, form_tag)
    if call.form == media.JSON:
        return await call.json(tensor, headers=headers)
    write = _WRITERS[call.form]
    return await call.encoded(json_write.weight(tensor), lambda: write(ref, tensor), 200, headers)


async def _explained(question: dict[str, Any], call: Call) -> Response:
    """The tensor with notes. No ETag: the notes change with what else the session holds."""
    if call.form != media.JSON:
        raise Invalid("?explain=true goes with JSON alone", param="explain")
    tensor = await call.ask(question)
    check_expected(call.expected(), tensor.etag)
    notes = await call.ask({"do": "explain", "ref": question["ref"]}, "none")
    return await call.json(_with_notes(tensor, notes, call), headers=call.told)


def _form_tag(call: Call) -> str:
    """What tells this representation's ETag from that of the plain JSON object."""
    told = {name: call.query[name] for name in ("index", "values", "int64") if name in call.query}
    if call.form == media.JSON and not told:
        return ""
    text = repr((call.form, sorted(told.items())))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@router.api_route("/v1/tensors/{ref}/describe", methods=READ)
async def describe_tensor(ref: str, call: Annotated[Call, takes(offers=(media.TEXT,))]) -> Response:
    """Type, size and values as PyTorch's books print them."""
    answer = await call.ask({"do": "describe", "ref": ref})
    return Response(answer["text"] + "\n", media_type="text/plain")


@router.api_route("/v1/tensors/{ref}/graph", methods=READ)
async def read_graph(ref: str, call: Annotated[Call, takes(offers=(media.JSON, media.DOT, media.SVG))]) -> Response:
    """The tape behind the tensor: its nodes and edges, and what they save."""
    graph = await call.ask({"do": "graph", "ref": ref})
    if call.form == media.DOT:
        return Response(dot.write(graph), media_type=media.MEDIA_TYPES[media.DOT])
    if call.form == media.SVG:
        return Response(svg.graph(graph), media_type=media.MEDIA_TYPES[media.SVG])
    return await call.json(graph)


@router.api_route("/v1/tensors/{ref}/image", methods=READ)
async def read_image(
    ref: str, call: Annotated[Call, takes("index", "kind", offers=(media.PNG, media.SVG))]
) -> Response:
    """The values, or the part of them that `index` says, as a picture."""
    kind = call.one_of("kind", plots.KINDS)
    call.binary_values()
    question = {"do": "read", "ref": ref, "index": call.query.get("index")}
    tensor = await call.ask(question, "none")
    check_expected(call.expected(), tensor.etag)
    headers = {**etag_of(tensor, f"{_form_tag(call)}-{kind}"), "Content-Type": media.MEDIA_TYPES[call.form]}
    if call.unchanged(headers):
        return Response(status_code=304, headers=headers)
    if tensor.numel > plots.MOST:
        raise LimitExceeded(
            f"{tensor.numel} numbers are too many for a picture: it is drawn of {plots.MOST} at most",
            code="picture-too-large",
            hint=Hint("image-part", ref=ref),
            param="index",
        )
    async with call.house.drawing:
        tensor = await call.ask(question, "all")
        body = await asyncio.to_thread(plots.draw, ref, tensor, kind, call.form)
    return Response(body, headers={**headers, **etag_of(tensor, f"{_form_tag(call)}-{kind}")})


# ---------------------------------------------------------------- changing them


@router.patch("/v1/tensors/{ref}")
async def change_tensor(ref: str, call: Annotated[Call, takes()]) -> Response:
    """Set `requires_grad`, give a name, clear the gradient."""
    given = await call.fields("requires_grad", "name", "grad")
    program: dict[str, Any] = {"inputs": {"r": ref}, "steps": _changes(given), "return": ["r"]}
    if given.get("name") is not None:
        program["keep_all"] = {"r": given["name"]}
    tensor = (await _change(ref, call, program))["results"]["r"]
    return await call.json(tensor, headers=etag_of(tensor))


def _changes(given: dict[str, Any]) -> list[dict[str, Any]]:
    """A PATCH as steps on the local name `r`; a new name is given as results are named, when the program is done."""
    if not given:
        raise MissingParameter("give at least one of requires_grad, name, grad")
    steps: list[dict[str, Any]] = []
    if "requires_grad" in given:
        args = {"input": "r", "requires_grad": given["requires_grad"]}
        steps.append({"op": "requires_grad_", "args": args})
    if "grad" in given:
        if given["grad"] is not None:
            raise WrongType("grad can only be set to null, which clears it", param="grad")
        steps.append({"op": "_clear_grad", "args": {"input": "r"}})
    if "name" in given:
        if given["name"] is not None and type(given["name"]) is not str:
            raise WrongType("name must be a string, or null to take the name away", param="name")
        if given["name"] is None:
            steps.append({"op": "_rename", "args": {"input": "r", "name": None}})
    return steps


async def _change(ref: str, call: Call, program: dict[str, Any]) -> dict[str, Any]:
    """Run a program that changes one tensor, if If-Match allows it."""
    expected = call.expected()
    if expected is not None:
        program["expect"] = {ref: expected}
    if call.only_new_names():
        program["if_none_match"] = True
    return await call.run_alone(program)


@router.delete("/v1/tensors/{ref}")
async def delete_tensor(ref: str, call: Annotated[Call, takes()]) -> Response:
    """Release the tensor; its memory goes when no tape and no view needs it."""
    await _change(ref, call, {"steps": [{"op": "_release", "args": {"input": ref}}], "return": []})
    return Response(status_code=204)


@router.delete("/v1/tensors")
async def delete_unnamed(call: Annotated[Call, takes("unnamed")]) -> Response:
    """Release every tensor that has no name."""
    if not call.flag("unnamed"):
        raise MissingParameter("?unnamed=true is missing", param="unnamed", hint=Hint("delete-unnamed"))
    await call.run_alone({"steps": [{"op": "_release_unnamed", "args": {}}], "return": []})
    return Response(status_code=204)


@router.post("/v1/tensors/{ref}/backward")
async def backward(ref: str, call: Annotated[Call, takes()]) -> Response:
    """Differentiate the tensor; the answer has the gradient of every leaf that was reached."""
    document = await call.document()
    given = await call.fields("gradient", "retain_graph", "create_graph", "inputs", filled=False)
    args = arguments.with_arrays({"input": ref, **given}, call.house.kinds.get("backward", {}), document.arrays)
    document.arrays.fill()
    # With a known Idempotency-Key even an empty program is answered as the first one was; the graph may be gone by now.
    results = {} if call.key is None else (await call.run_alone({"steps": []}))["results"]
    if not results:
        leaves = await _leaves(ref, given.get("inputs"), call)
        program = {"steps": [{"op": "backward", "args": args}], "return": [f"{leaf}.grad" for leaf in leaves]}
        results = (await _change(ref, call, program))["results"]
    grads = {leaf.removesuffix(".grad"): grad for leaf, grad in results.items()}
    return await call.json({"grads": {leaf: grad for leaf, grad in grads.items() if grad is not None}})


async def _leaves(ref: str, inputs: Any, call: Call) -> list[str]:
    """The names, or ids, of the leaves that a backward pass from `ref` reaches, or of the inputs it is confined to.

    What lies behind a tensor is fixed when it is computed, so that another call in between cannot make this list wrong;
    where one has released a leaf meanwhile, the program is refused.
    """
    if type(inputs) is list:
        return [name for name in inputs if type(name) is str]
    graph = await call.ask({"do": "graph", "ref": ref}, "none")
    return [node["tensor"] for node in graph["nodes"] if node.get("tensor")]
