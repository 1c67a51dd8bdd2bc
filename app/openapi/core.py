"""The fixed routes: sessions, tensors, programs, the list of operations, and the system's own."""

from __future__ import annotations

from typing import Any

from app.openapi import jobs
from app.openapi.components import Json, ref
from app.openapi.replies import ASKS, CHANGES, READS, answer, json_of, parameters, problems

TAGS: dict[str, str] = {
    "sessions": "Namespaces of tensors, each with its own random generator, default dtype and device.",
    "tensors": "Upload, read, change and free tensors; gradients and tapes.",
    "programs": "Many operations in one request, entirely or not at all.",
    "jobs": "Programs that nobody waits for: how far they are, and what came of them.",
    "catalogue": "The operations that there are, as data.",
    "system": "What this server is and whether it is well.",
    "access": "Your key, and for admin keys everyone's sessions.",
}

_BINARY: Json = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
_SAFETENSORS = "application/x-safetensors"
_WHERE = ("SessionHeader", "SessionQuery")
_HOW = ("Values", "Int64")
_ONE = ("TensorPath", *_WHERE)
_UNCHANGED = {"304": answer("You have it.", ETag="ETag")}


def _call(tag: str, name: str, summary: str, replies: Json, **rest: Any) -> Json:
    """One operation of the document; `description`, `parameters` and `body` as they apply."""
    found: Json = {"tags": [tag], "operationId": name, "summary": summary}
    if "description" in rest:
        found["description"] = rest["description"]
    if rest.get("parameters"):
        found["parameters"] = rest["parameters"]
    if rest.get("open"):
        found["security"] = [{}]
    if "body" in rest:
        found["requestBody"] = {"content": rest["body"], "required": rest.get("required", True)}
    found["responses"] = replies
    return found


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _body(schema: Json, example: Json) -> Json:
    return {
        "application/json": {"schema": schema, "example": example},
        "application/x-www-form-urlencoded": {"schema": ref("Form")},
    }


def paths() -> Json:
    """Path -> path item of every fixed route in scope."""
    return {**_sessions(), **_tensors(), **_tensor(), **_programs(), **jobs.paths(), **_system(), **_access()}


def _sessions() -> Json:
    one = answer("The session.", json_of(ref("SessionObject")))
    named = parameters("SessionPath")
    return {
        "/v1/sessions": {
            "get": _call(
                "sessions",
                "list_sessions",
                "List your sessions",
                {"200": answer("Your sessions.", json_of(ref("SessionList"))), **problems((*ASKS, 503))},
                parameters=parameters("Limit", "Cursor"),
            ),
            "post": _call(
                "sessions",
                "create_session",
                "Make a session",
                {
                    "201": answer("The new session.", json_of(ref("SessionObject")), Location="Location"),
                    **problems(CHANGES),
                },
                parameters=parameters("Once"),
                description="Of `fork`, the public id of a session that its owner shares: a copy of that.",
                body=_body(ref("NewSession"), {"name": "lesson-1", "seed": 1234}),
                required=False,
            ),
        },
        "/v1/sessions/{id}/memory": {
            "get": _call(
                "sessions",
                "read_session_memory",
                "What holds a session's memory",
                {"200": answer("The ledger.", json_of(ref("MemoryLedger"))), **problems(READS)},
                description="Every storage, its bytes and who keeps it alive: a tensor, a view, a gradient, or the "
                "tape of a tensor. The biggest come first.",
                parameters=[*named, *parameters("Limit", "Cursor")],
            ),
        },
        "/v1/sessions/{id}/script": {
            "get": _call(
                "sessions",
                "read_session_script",
                "What a session did, as a script",
                {
                    "200": answer("The script.", {"text/plain": {"schema": {"type": "string"}}}),
                    **problems(READS),
                },
                description="It runs: in PyTorch, or as calls from Python or with curl. What is remembered is limited; "
                "a script says where it begins.",
                parameters=[
                    *named,
                    _query("language", {"enum": ["pytorch", "python", "curl"]}, "`pytorch` if not given."),
                ],
            ),
        },
        "/v1/sessions/{id}": {
            "get": _call(
                "sessions", "read_session", "Read a session", {"200": one, **problems(READS)}, parameters=named
            ),
            "patch": _call(
                "sessions",
                "change_session",
                "Change a session",
                {"200": one, **problems(CHANGES)},
                parameters=[*named, *parameters("Once")],
                body=_body(ref("SessionChange"), {"seed": 1234}),
                required=False,
            ),
            "delete": _call(
                "sessions",
                "delete_session",
                "Free a session and all it holds",
                {"204": answer("Freed."), **problems(READS)},
                parameters=[*named, *parameters("Once")],
                description="May be repeated; for `default` it is a reset.",
            ),
        },
        "/v1/sessions/{id}/snapshot": {
            "get": _call(
                "sessions",
                "read_snapshot",
                "Download a session as one file",
                {
                    "200": answer("A safetensors file.", {"application/x-safetensors": _BINARY}),
                    **problems((*READS, 507)),
                },
                description="Its named tensors, its leaves and their gradients, as a state dict; the metadata entry "
                "`curlgrad` says the rest: ids, flags, shared memory, generator, default dtype, print options. "
                "complex128 is float64 with a last dimension of 2.",
                parameters=named,
            ),
            "put": _call(
                "sessions",
                "put_snapshot",
                "Replace what a session holds by a file",
                {
                    "200": answer("The tensors by the file's keys, without values.", json_of(ref("TensorsByKey"))),
                    **problems(CHANGES),
                },
                description="A file that `GET` made, on this server or another. All of it, or nothing changes. "
                "Names stay; ids are new.",
                parameters=[
                    *named,
                    _query("device", ref("DeviceArg"), "Where all tensors go; without it, where each was."),
                    *parameters("Once"),
                ],
                body={"application/x-safetensors": _BINARY},
            ),
        },
    }


def _tensors() -> Json:
    options = [
        _query("dtype", ref("DTypeArg"), "The dtype: of raw bytes, or to convert to."),
        _query("shape", {"type": "string"}, "The shape of raw bytes, such as `2,3`."),
        _query("skip_rows", {"type": "integer", "minimum": 0}, "Of CSV: how many lines to skip, such as a header."),
        _query("columns", {"type": "string"}, "Of CSV: the columns to take, counted from 0, such as `0,2`."),
        _query("device", ref("DeviceArg"), "Where the tensor goes."),
        _query("requires_grad", {"type": "boolean"}, "Whether autograd records what is done with it."),
        _query("name", ref("OutName"), "A name for it."),
    ]
    return {
        "/v1/tensors": {
            "get": _call(
                "tensors",
                "list_tensors",
                "List the session's tensors",
                {
                    "200": answer(
                        "The tensors without values, or those of `names` as a state dict.",
                        {**json_of(ref("TensorList")), "application/x-safetensors": _BINARY},
                    ),
                    **problems(READS),
                },
                parameters=[
                    *parameters(*_WHERE, "Limit", "Cursor"),
                    _query(
                        "names", {"type": "string"}, "Names or ids, with commas: those tensors as one safetensors file."
                    ),
                    _query("as", {"type": "string", "enum": ["json", "safetensors"]}, "The form, as `Accept` says it."),
                ],
            ),
            "post": _call(
                "tensors",
                "create_tensor",
                "Upload a tensor",
                {
                    "201": answer(
                        "The tensor, or the tensors of a safetensors file.",
                        json_of({"anyOf": [ref("TensorObject"), ref("TensorList")]}),
                        Location="Location",
                        ETag="ETag",
                    ),
                    **problems(CHANGES),
                },
                description="Values as JSON, or a file as it is: CSV, "
                "PNG or JPEG (height x width x channels of uint8), npy, "
                "safetensors (each key becomes a name) or "
                "raw little-endian bytes with `dtype` and `shape`. Options of binary uploads are query parameters.",
                parameters=[*parameters(*_WHERE, *_HOW, "Explain", "Language", "FreeName", "Once"), *options],
                body={
                    **_body(
                        ref("TensorUpload"),
                        {"data": [[1, 2], [3, 4]], "dtype": "float32", "requires_grad": True, "name": "x"},
                    ),
                    "application/x-npy": _BINARY,
                    "application/x-safetensors": _BINARY,
                    "application/octet-stream": _BINARY,
                    "text/csv": {"schema": {"type": "string"}},
                    "image/png": _BINARY,
                    "image/jpeg": _BINARY,
                },
            ),
            "delete": _call(
                "tensors",
                "delete_unnamed_tensors",
                "Free all tensors without a name",
                {"204": answer("Freed."), **problems(READS)},
                parameters=[
                    *parameters(*_WHERE, "Once"),
                    {**_query("unnamed", {"type": "boolean", "const": True}, "Must be `true`."), "required": True},
                ],
            ),
        },
    }


def _tensor() -> Json:
    text = {"text/plain": {"schema": {"type": "string"}}}
    forms = {
        **json_of(ref("TensorObject")),
        **text,
        "application/x-npy": _BINARY,
        "application/x-safetensors": _BINARY,
        "application/octet-stream": _BINARY,
        "text/csv": {"schema": {"type": "string"}},
    }
    index = _query("index", {"type": "string", "examples": ["0:10,:,-1"]}, "A NumPy-style index: returns that part.")
    read = [
        *parameters(*_ONE, *_HOW, "Cached"),
        _query(
            "as",
            {"type": "string", "enum": ["json", "text", "npy", "safetensors", "raw", "csv"]},
            "The form, as `Accept` says it.",
        ),
    ]
    found = {"ETag": "ETag", "Curlgrad_Dtype": "Dtype", "Curlgrad_Shape": "Shape"}
    return {
        "/v1/tensors/{id}": {
            "get": _call(
                "tensors",
                "read_tensor",
                "Read a tensor",
                {"200": answer("The tensor, in the form asked for.", forms, **found), **_UNCHANGED, **problems(READS)},
                parameters=[*read, index, *parameters("Explain", "Language")],
            ),
            "patch": _call(
                "tensors",
                "change_tensor",
                "Change flag, name or gradient",
                {"200": answer("The tensor.", json_of(ref("TensorObject")), ETag="ETag"), **problems(CHANGES)},
                parameters=parameters(*_ONE, *_HOW, "Unchanged", "FreeName", "Once"),
                body=_body(ref("TensorChange"), {"requires_grad": True}),
            ),
            "delete": _call(
                "tensors",
                "delete_tensor",
                "Free a tensor",
                {"204": answer("Freed, now or before."), **problems((*READS, 412))},
                description="Its memory is returned once no tape and no view needs it.",
                parameters=parameters(*_ONE, "Unchanged", "Once"),
            ),
        },
        "/v1/tensors/{id}/describe": {
            "get": _call(
                "tensors",
                "describe_tensor",
                "Type, shape and values as PyTorch prints them",
                {"200": answer("Three lines.", text), **problems(READS)},
                parameters=parameters(*_ONE),
            ),
        },
        "/v1/tensors/{id}/grad": {
            "get": _call(
                "tensors",
                "read_gradient",
                "Read the accumulated gradient",
                {
                    "200": answer(
                        "The gradient, in the form asked for.", {**forms, **json_of(ref("GradObject"))}, **found
                    ),
                    **_UNCHANGED,
                    **problems(READS),
                },
                parameters=read,
            ),
        },
        "/v1/tensors/{id}/graph": {
            "get": _call(
                "tensors",
                "read_graph",
                "Read the tape behind a tensor",
                {
                    "200": answer(
                        "Nodes, edges and saved bytes.",
                        {
                            **json_of(ref("Graph")),
                            "text/vnd.graphviz": {"schema": {"type": "string"}},
                            "image/svg+xml": {"schema": {"type": "string"}},
                        },
                    ),
                    **problems(READS),
                },
                parameters=[
                    *parameters(*_ONE),
                    _query("as", {"type": "string", "enum": ["json", "dot", "svg"]}, "The form, as `Accept` says it."),
                ],
            ),
        },
        "/v1/tensors/{id}/image": {
            "get": _call(
                "tensors",
                "read_image",
                "Draw the values",
                {
                    "200": answer(
                        "A picture.",
                        {"image/png": _BINARY, "image/svg+xml": {"schema": {"type": "string"}}},
                        ETag="ETag",
                    ),
                    **_UNCHANGED,
                    **problems(READS),
                },
                description="A heat map of two dimensions, a line of fewer, a histogram of more; uint8 of height x "
                "width x channels is shown as the picture that it is.",
                parameters=[
                    *parameters(*_ONE, "Cached"),
                    _query("as", {"type": "string", "enum": ["png", "svg"]}, "The form, as `Accept` says it."),
                    index,
                    _query(
                        "kind",
                        {"type": "string", "enum": ["auto", "heatmap", "line", "histogram", "picture"]},
                        "What is drawn.",
                    ),
                ],
            ),
        },
        "/v1/tensors/{id}/backward": {
            "post": _call(
                "tensors",
                "backward_from_tensor",
                "Compute gradients",
                {
                    "200": answer("The gradient of each leaf it reached, by name or id.", json_of(ref("Gradients"))),
                    **problems(CHANGES),
                },
                description="Adds to the `.grad` of each leaf. A scalar needs no `gradient`.",
                parameters=parameters(*_ONE, *_HOW, "Unchanged", "Once"),
                body=_body(ref("BackwardCall"), {"retain_graph": True}),
                required=False,
            ),
        },
    }


def _programs() -> Json:
    example = {
        "inputs": {
            "x": {"data": [[1, 2], [3, 4]], "dtype": "float32"},
            "w": {"data": [[0.5], [0.25]], "requires_grad": True},
        },
        "steps": [
            {"op": "mm", "args": {"input": "x", "mat2": "w"}, "out": "h"},
            {"op": "mean", "args": {"input": "h"}, "out": "loss"},
            {"op": "backward", "args": {"input": "loss"}},
        ],
        "return": ["loss", "w.grad"],
        "keep": {"w": "weight"},
    }
    return {
        "/v1/programs": {
            "post": _call(
                "programs",
                "run_program",
                "Run a program",
                {
                    "200": answer(
                        "What was asked for. As safetensors: the results' values are its tensors, and the metadata "
                        "entry `program` is the JSON, whose tensor objects have null `values` and the `key` of theirs.",
                        {**json_of(ref("ProgramResult")), _SAFETENSORS: _BINARY},
                        Content_Language="ContentLanguage",
                        Preference_Applied="PreferenceApplied",
                    ),
                    "202": jobs.TAKEN,
                    **problems(CHANGES),
                },
                description="If a step fails, the session is as it was before; the problem's `step` is the path to it. "
                "As one safetensors file: its tensors are inputs, and its metadata entry `program` is the JSON.",
                parameters=[
                    *parameters(*_WHERE, *_HOW, "DryRun", "Explain", "Language", "FreeName", "Once", "Prefer"),
                    _query("as", {"type": "string", "enum": ["json", "safetensors"]}, "The form, as `Accept` says it."),
                ],
                body={"application/json": {"schema": ref("Program"), "example": example}, _SAFETENSORS: _BINARY},
            ),
        },
    }


def _system() -> Json:
    facts = json_of(ref("Facts"))
    name = {
        "name": "op",
        "in": "path",
        "required": True,
        "description": "The operation's name.",
        "schema": {"type": "string"},
    }
    return {
        "/v1/ops": {
            "get": _call(
                "catalogue",
                "list_operations",
                "List all operations",
                {"200": answer("All.", json_of(ref("OpList")), ETag="ETag"), **_UNCHANGED, **problems(ASKS)},
                parameters=parameters("Cached"),
            ),
        },
        "/v1/ops/{op}": {
            "get": _call(
                "catalogue",
                "read_operation",
                "Read one operation",
                {"200": answer("The operation.", json_of(ref("OpEntry"))), **problems((*ASKS, 404))},
                parameters=[{**name, "examples": {"add": {"value": "add"}}}],
            ),
        },
        "/v1/info": {
            "get": _call(
                "system",
                "read_info",
                "Version, build, dtypes, devices, workers and limits",
                {"200": answer("What this server is.", facts), **problems(ASKS)},
            ),
        },
        "/v1/devices": {
            "get": _call(
                "system",
                "list_devices",
                "List the devices",
                {"200": answer("The devices that there are.", facts), **problems(ASKS)},
            ),
        },
        "/metrics": {
            "get": _call(
                "system",
                "read_metrics",
                "Numbers for Prometheus",
                {
                    "200": answer("Prometheus' text format.", {"text/plain": {"schema": {"type": "string"}}}),
                    **problems(ASKS),
                },
                description="For keys with the scope `metrics`. Never waits behind a program.",
            ),
        },
        "/healthz": {
            "get": _call("system", "check_health", "Is the process up?", {"200": answer("It is.", facts)}, open=True)
        },
        "/readyz": {
            "get": _call(
                "system",
                "check_ready",
                "Are the workers up?",
                {"200": answer("They are.", facts), **problems((503,))},
                description="Never waits behind a program.",
                open=True,
            ),
        },
    }


def _access() -> Json:
    session = {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The session's id.",
        "schema": {"type": "string"},
    }
    return {
        "/v1/me": {
            "get": _call(
                "access",
                "read_me",
                "Whose key this is",
                {"200": answer("Key, scopes, limits and use.", json_of(ref("Facts"))), **problems((*ASKS, 503))},
                description="Without keys on the server, `key` is null and every scope is yours.",
            ),
        },
        "/v1/admin/sessions": {
            "get": _call(
                "access",
                "list_all_sessions",
                "List everyone's sessions",
                {
                    "200": answer("Sessions, each with its `owner`.", json_of(ref("AdminSessionList"))),
                    **problems((*ASKS, 503)),
                },
                description="For keys with the scope `admin`.",
                parameters=parameters("Limit", "Cursor"),
            ),
        },
        "/v1/admin/sessions/{id}": {
            "delete": _call(
                "access",
                "delete_any_session",
                "Free anyone's session",
                {"204": answer("Freed."), **problems((*ASKS, 404, 503))},
                description="For keys with the scope `admin`.",
                parameters=[session],
            ),
        },
    }
