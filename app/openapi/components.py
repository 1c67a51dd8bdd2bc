"""The schemas that operations and routes share: what an argument may be, and what an answer is.

The engine's catalogue refers to them as `#/components/schemas/NAME`, so their names are part of the contract with it.
"""

from __future__ import annotations

from typing import Any

from engine.dtypes import DTYPES

Json = dict[str, Any]

_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$"
_NOT_FINITE = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}


def ref(name: str) -> Json:
    """A reference to the schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Json) -> Json:
    """What the schema admits, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def closed(properties: Json, required: tuple[str, ...] = (), **rest: Any) -> Json:
    """An object without other fields: unknown ones are refused, never ignored."""
    found: Json = {"type": "object", "properties": properties, "additionalProperties": False, **rest}
    if required:
        found["required"] = list(required)
    return found


def map_of(schema: Json, **rest: Any) -> Json:
    """An object whose fields have any names and values of this schema."""
    return {"type": "object", "additionalProperties": schema, **rest}


def list_of(schema: Json, **rest: Any) -> Json:
    """An array of items of this schema."""
    return {"type": "array", "items": schema, **rest}


_ARGUMENTS: Json = {
    "TensorRef": {
        "type": "string",
        "pattern": _NAME,
        "description": "A tensor of the session, by id (`t1`) or name (`weight`); `x.grad` is the gradient of `x`.",
    },
    "ScalarArg": {
        "anyOf": [
            {"type": "number"},
            {"type": "boolean"},
            _NOT_FINITE,
            closed({"float": {"type": "number"}}, ("float",), title="Float"),
            closed({"re": {"type": "number"}, "im": {"type": "number"}}, ("re", "im"), title="Complex"),
        ],
        "description": "A number. `1` is an int and `1.0` a float, which decides dtypes as in PyTorch; where a "
        'language cannot write `1.0`, `{"float": 1}` is the float. `{"re": 1.5, "im": 2.5}` is complex; `"NaN"`, '
        '`"Infinity"` and `"-Infinity"` are what JSON lacks.',
    },
    "FloatArg": {
        "anyOf": [{"type": "number"}, _NOT_FINITE, closed({"float": {"type": "number"}}, ("float",), title="Float")],
        "description": "A float; an int is taken as one.",
    },
    "DataArg": {
        "anyOf": [{"type": "number"}, {"type": "boolean"}, _NOT_FINITE, ref("NestedList")],
        "description": "A number, a bool or nested lists; flat when a `shape` is given.",
    },
    "NestedList": list_of(
        {
            "anyOf": [
                {"type": "number"},
                {"type": "boolean"},
                {"type": "string", "pattern": "^(NaN|-?Infinity|-?[0-9]+)$"},
                ref("NestedList"),
            ]
        },
        description="Values as nested lists, all of one length at each depth. Integers become int64, floats the "
        "session's default float dtype, booleans bool. Integers past 53 bits may be strings.",
        examples=[[[1, 2], [3, 4]]],
    ),
    "TensorData": closed(
        {
            "data": ref("DataArg"),
            "shape": ref("ShapeArg"),
            "dtype": ref("DTypeArg"),
            "device": ref("DeviceArg"),
            "requires_grad": {"type": "boolean", "default": False},
        },
        ("data",),
        description="A tensor given in place, with its dtype.",
        examples=[{"data": [[1, 2], [3, 4]], "dtype": "float32", "requires_grad": True}],
    ),
    "TensorArg": {
        "anyOf": [ref("TensorRef"), ref("ScalarArg"), ref("NestedList"), ref("TensorData")],
        "description": "A tensor: the id or name of one, a number or bool, nested lists, or an object with `data`.",
        "examples": ["t1", [[1, 2], [3, 4]], {"data": [1, 2], "dtype": "float32"}],
    },
    "TensorListArg": list_of(ref("TensorArg"), description="A list of tensors, each given as a tensor argument is."),
    "FunctionArg": closed(
        {
            "inputs": list_of(
                {"type": "string"}, description="The names that the function's tensors have in its steps."
            ),
            "steps": list_of(ref("Step"), description="What the function does; it also sees what the caller sees."),
            "return": {
                "anyOf": [{"type": "string"}, list_of({"type": "string"})],
                "description": "The name of its result, or a list of names where it has several.",
            },
        },
        ("inputs", "return"),
        description="A function of tensors: a program that an operation calls.",
        examples=[
            {
                "inputs": ["x"],
                "steps": [{"op": "exp", "args": {"input": "x"}, "out": "y"}],
                "return": "y",
            }
        ],
    ),
    "StateArg": map_of(
        list_of(ref("TensorArg")),
        description="An optimizer's state: lists of tensors by name, made by `optim.adam_state` and the like.",
    ),
    "DTypeArg": {"type": "string", "enum": list(DTYPES), "description": "The type of a tensor's elements."},
    "DeviceArg": {
        "type": "string",
        "pattern": "^(cpu|cuda(:[0-9]+)?)$",
        "description": "Where a tensor lives. A device that the server lacks is an error, never a fallback.",
        "examples": ["cpu"],
    },
    "ShapeArg": list_of(
        {"type": "integer", "minimum": 0}, description="The size of each dimension.", examples=[[2, 3]]
    ),
    "IndexItem": {
        "anyOf": [
            {"type": "integer"},
            {"type": "boolean"},
            {"type": "null"},
            {
                "type": "string",
                "description": 'A slice (`"1:"`, `"::2"`), `"..."`, or the id or name of an index tensor.',
            },
            ref("NestedList"),
            ref("TensorData"),
        ]
    },
    "IndexArg": {
        "anyOf": [list_of(ref("IndexItem")), ref("IndexItem")],
        "description": 'A NumPy-style index: a list of integers, slices as strings (`"1:"`), `"..."`, null, tensor '
        "references or nested lists; anything but a list is a list of one.",
        "examples": [["0:10", -1]],
    },
    "OutName": {
        "type": "string",
        "pattern": _NAME,
        "description": "A name, usable wherever an id is. One that is in use is bound anew, as `x = x.float()` does.",
    },
    "OutNames": list_of(
        nullable(ref("OutName")), description="Names for several results, in their order; null leaves one without."
    ),
    "Keep": {"type": "boolean", "default": True, "description": "`false` keeps nothing on the server."},
    "NoGrad": {"type": "boolean", "default": False, "description": "`true` records no tape."},
}

_TENSOR_FIELDS: Json = {
    "id": {"type": ["string", "null"], "description": "Null where nothing was kept.", "examples": ["t3"]},
    "name": {"type": ["string", "null"]},
    "shape": list_of({"type": "integer", "minimum": 0}),
    "dtype": ref("DTypeArg"),
    "device": {"type": "string", "examples": ["cpu"]},
    "numel": {"type": "integer", "minimum": 0, "description": "How many elements."},
    "nbytes": {"type": "integer", "minimum": 0, "description": "How many bytes they take."},
    "requires_grad": {"type": "boolean"},
    "is_leaf": {"type": "boolean"},
    "grad_fn": {
        "type": ["string", "null"],
        "description": "What made it, where a tape was recorded.",
        "examples": ["MulBackward0"],
    },
    "version": {"type": "integer", "minimum": 0, "description": "How often it was changed in place."},
    "etag": {"type": ["string", "null"], "description": "Opaque; changes with value, gradient, name and flag."},
    "values": {
        "anyOf": [ref("Values"), {"type": "null"}],
        "description": "Null where not asked for, or, with `values=auto`, past 1000 elements.",
    },
}
_TENSOR_REQUIRED = tuple(_TENSOR_FIELDS)
_TENSOR_EXAMPLE: Json = {
    "id": "t3",
    "name": None,
    "shape": [2, 2],
    "dtype": "float32",
    "device": "cpu",
    "numel": 4,
    "nbytes": 16,
    "requires_grad": False,
    "is_leaf": True,
    "grad_fn": None,
    "version": 0,
    "etag": "5f1d",
    "values": [[1.5, 2.5], [3.5, 4.5]],
    "grad": None,
}

_CURSOR: Json = {"type": ["string", "null"], "description": "What to ask with for the next ones; null after the last."}
_PEAK: Json = {"type": "integer", "minimum": 0, "description": "The most memory it would take, with `dry_run=true`."}
_OP: Json = {"type": "string", "description": "The operation.", "examples": ["add"]}
_NOTES: Json = {"type": "array", "items": ref("Note"), "description": "Why it is as it is, with `explain=true`."}
_ANSWERS: Json = {
    "Note": closed(
        {
            "about": {
                "type": "string",
                "enum": ["dtype", "shape", "dim", "device", "memory", "requires_grad", "grad"],
                "description": "What the note is about; `memory`: whether the result is a view or a copy.",
            },
            "text": {"type": "string", "description": "One sentence, in the language of `Accept-Language`: en or ko."},
            "of": {"type": "string", "description": "Which of several results, where it is not about all of them."},
            "step": list_of({"type": "integer"}, description="In programs: the path to the step that it explains."),
        },
        ("about", "text"),
        description="Why a result is as it is, in one sentence.",
        examples=[
            {
                "about": "dim",
                "text": "dim 1 runs along each row: the 3 cells of a row were joined into one, so [2, 3] became [2]",
            }
        ],
    ),
    "Values": {
        "anyOf": [
            {"type": "number"},
            {"type": "boolean"},
            {"type": "string", "description": '`"NaN"`, `"Infinity"`, `"-Infinity"`, or an int64 with `int64=string`.'},
            list_of(ref("Values")),
        ],
        "description": "A number for a 0-d tensor, else nested lists; a complex number is the pair `[re, im]`.",
    },
    # A gradient has no id and no gradient: it is reached through its tensor.
    "GradObject": {
        "type": "object",
        "properties": _TENSOR_FIELDS,
        "description": "A gradient: a tensor object without id and gradient.",
    },
    "TensorObject": {
        "type": "object",
        "properties": {**_TENSOR_FIELDS, "grad": nullable(ref("GradObject")), "notes": _NOTES},
        "required": [*_TENSOR_REQUIRED, "grad"],
        "description": "A tensor: what it is, and its values where they are asked for.",
        "examples": [_TENSOR_EXAMPLE],
    },
    "Result": {
        "anyOf": [
            ref("TensorObject"),
            list_of(ref("Result")),
            map_of(ref("Result")),
            {"type": ["number", "boolean", "string", "null"]},
        ],
        "description": "A tensor, a list of results, an object of results by PyTorch's field names, a plain JSON value "
        "for operations that return a Python value, or null for those that return nothing.",
    },
    "OpResult": closed(
        {"op": _OP, "result": ref("Result"), "peak_bytes": _PEAK, "notes": _NOTES},
        ("op", "result"),
        description="What an operation answers.",
    ),
    "TensorResult": closed(
        {"op": _OP, "result": ref("TensorObject"), "peak_bytes": _PEAK, "notes": _NOTES},
        ("op", "result"),
        description="What an operation with one tensor as its result answers.",
    ),
    "TensorsResult": closed(
        {"op": _OP, "result": list_of(ref("TensorObject")), "peak_bytes": _PEAK, "notes": _NOTES},
        ("op", "result"),
        description="What an operation with a list of tensors as its result answers.",
    ),
    "TensorList": closed(
        {"tensors": list_of(ref("TensorObject")), "cursor": _CURSOR},
        ("tensors",),
    ),
    "Gradients": closed(
        {"grads": map_of(ref("TensorObject"))}, ("grads",), description="The accumulated gradient of each leaf."
    ),
    "Graph": {
        "type": "object",
        "description": "The tape behind a tensor.",
        "properties": {
            "nodes": list_of({"type": "object"}),
            "edges": list_of({"type": "object"}),
            "root": {"description": "The node that made the tensor."},
            "saved_bytes": {"type": "integer", "minimum": 0},
        },
        "required": ["nodes", "edges"],
    },
    "SessionObject": {
        "type": "object",
        "description": "A namespace of tensors with its own random generator, default dtype and device.",
        "properties": {
            "id": {"type": "string"},
            "name": {"type": ["string", "null"]},
            "state": {
                "type": "string",
                "enum": ["ready", "damaged", "unavailable"],
                "description": "`damaged`: its data on the disk are, and `python -m app repair` may help; "
                "`unavailable`: it cannot be woken now. `why` says more.",
            },
            "why": {"type": "string"},
            "device": {"type": "string"},
            "default_dtype": ref("DTypeArg"),
            "seed": {"type": ["integer", "null"]},
            "worker": {"type": ["string", "null"]},
            "tensors": {"type": "integer", "minimum": 0},
            "bytes": map_of({"type": "integer"}, description="Bytes held by tensors, by tape and by gradients."),
            "created": {"type": "number", "description": "Seconds since 1970."},
            "last_used": {"type": "number", "description": "Seconds since 1970."},
            "expires_at": {
                "type": ["number", "null"],
                "description": "When its lease runs out, in seconds since 1970; null: never.",
            },
            "public_id": {
                "type": ["string", "null"],
                "description": "Under which others may read and fork it; null: nobody may.",
            },
        },
        "required": ["id"],
    },
    "TensorsByKey": {
        "type": "object",
        "properties": {"tensors": map_of(ref("TensorObject"))},
        "required": ["tensors"],
    },
    "SessionList": {
        "type": "object",
        "properties": {"sessions": list_of(ref("SessionObject")), "cursor": _CURSOR},
        "required": ["sessions"],
    },
    "AdminSessionList": {
        "type": "object",
        "properties": {
            "sessions": list_of(
                {"allOf": [ref("SessionObject"), {"properties": {"owner": {"type": "string"}}, "required": ["owner"]}]}
            ),
            "cursor": _CURSOR,
        },
        "required": ["sessions"],
    },
    "MemoryHolder": {
        "type": "object",
        "description": "What keeps a storage alive: a tensor (`id`, `name`), a view (`of` which tensor), a gradient "
        "(`of` which), or the tape (`of` up to five tensors, the newest first; `saved_by`: up to five nodes).",
        "properties": {
            "kind": {"type": "string", "enum": ["tensor", "view", "gradient", "tape"]},
            "id": {"type": "string"},
            "name": {"type": ["string", "null"]},
            "of": {"anyOf": [{"type": "string"}, list_of({"type": "string"})]},
            "saved_by": list_of({"type": "string"}),
        },
        "required": ["kind"],
    },
    "MemoryLedger": {
        "type": "object",
        "description": "A session's storages, the biggest first.",
        "properties": {
            "session": {"type": "string"},
            "name": {"type": ["string", "null"]},
            "bytes": map_of({"type": "integer"}, description="By what holds them: tensors, grads, tape; and in total."),
            "limits": map_of({"type": "integer"}, description="Bytes in total and of the tape; unnamed tensors."),
            "unnamed": {"type": "integer", "minimum": 0, "description": "Tensors without a name."},
            "storages": list_of(
                {
                    "type": "object",
                    "properties": {
                        "storage": {"type": "integer"},
                        "bytes": {"type": "integer", "minimum": 0},
                        "device": {"type": "string"},
                        "held_by": list_of(ref("MemoryHolder")),
                    },
                    "required": ["storage", "bytes", "device", "held_by"],
                }
            ),
            "cursor": _CURSOR,
        },
        "required": ["session", "bytes", "limits", "unnamed", "storages", "cursor"],
    },
    "OpEntry": {
        "type": "object",
        "description": "An operation, as it was declared.",
        "properties": {
            "name": {"type": "string"},
            "summary": {"type": "string"},
            "family": {"type": "string"},
            "params": list_of({"type": "object"}, description="In PyTorch's positional order."),
            "returns": {"description": "What it returns."},
            "differentiable": {"type": "boolean"},
            "inplace": {"type": "boolean"},
            "view": {"type": "boolean"},
            "doc": {"type": "string"},
            "example": {"type": "object"},
        },
        "required": ["name", "summary", "family", "params"],
    },
    "OpList": closed({"ops": list_of(ref("OpEntry"))}, ("ops",)),
    "Facts": {"type": "object", "description": "Facts about the server."},
    "Problem": {
        "type": "object",
        "description": "What went wrong and what to do about it (RFC 9457).",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What PyTorch would say, where PyTorch has the same error."},
            "instance": {"type": "string"},
            "code": {"type": "string", "description": "A word that stays the same for the same kind of problem."},
            "op": {"type": ["string", "null"]},
            "param": {"type": ["string", "null"]},
            "step": {
                "type": ["array", "null"],
                "items": {"type": "integer"},
                "description": "The path to the step that failed.",
            },
            "round": {
                "type": ["array", "null"],
                "items": {"type": "integer"},
                "description": "The rounds around that step.",
            },
            "hint": {"type": ["string", "null"], "description": "What to do, with the call that does it."},
            "request_id": {"type": "string"},
        },
        "required": ["type", "title", "status", "detail", "code"],
        "examples": [
            {
                "type": "about:blank",
                "title": "Unprocessable Content",
                "status": 422,
                "detail": "mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)",
                "instance": "/v1/ops/mm",
                "code": "shape-mismatch",
                "op": "mm",
                "request_id": "5f0c2b7e",
            }
        ],
    },
}

_SESSION_SETTINGS: Json = {
    "name": {
        "anyOf": [ref("OutName"), {"type": "null"}],
        "description": "A name for the session, usable wherever its id is.",
    },
    "seed": {"type": ["integer", "null"], "description": "The seed of its random generator."},
    "default_dtype": {"anyOf": [ref("DTypeArg"), {"type": "null"}]},
    "lease_s": {
        "type": ["number", "null"],
        "minimum": 1,
        "description": "Seconds without use after which it expires (410 from then on); null: never.",
    },
}

_PROGRAMS: Json = {
    "OpStep": closed(
        {
            "op": {"type": "string", "description": "The operation's name."},
            "args": {"type": "object", "description": "Its parameters by name; a tensor may be a local name."},
            "out": {
                "anyOf": [ref("OutName"), list_of(nullable(ref("OutName")))],
                "description": "The local name of the result, or names of several.",
            },
            "no_grad": ref("NoGrad"),
        },
        ("op",),
    ),
    "RepeatStep": closed(
        {
            "repeat": {"type": "integer", "minimum": 0, "description": "How many rounds."},
            "steps": list_of(ref("Step")),
            "collect": map_of(
                {"type": "integer", "minimum": 1},
                description="Gathers a one-element tensor as a number after rounds k, 2k, …, by local name.",
            ),
            "no_grad": ref("NoGrad"),
        },
        ("repeat", "steps"),
    ),
    "Step": {"anyOf": [ref("OpStep"), ref("RepeatStep")]},
    "Program": closed(
        {
            "inputs": map_of(ref("TensorArg"), description="Local names for tensors of the session or given in place."),
            "steps": list_of(ref("Step"), description="What to do, in this order."),
            "return": list_of({"type": "string"}, description="The names whose values the answer carries."),
            "keep": map_of(ref("OutName"), description="Local name to the name it gets in the session."),
            "strict": {"type": "boolean", "default": False, "description": "`true` resolves no name in the session."},
            "expect": map_of({"type": "string"}, description="Tensor to ETag: 412 when one has changed."),
            "no_grad": ref("NoGrad"),
            "detect_anomaly": {
                "type": "boolean",
                "default": False,
                "description": "`true` makes backward refuse a gradient with a NaN, and `step` say which step made it.",
            },
        },
        ("steps",),
        description="Many steps in one request. It happens entirely or not at all.",
    ),
    "ProgramResult": {
        "type": "object",
        "properties": {
            "results": map_of(ref("Result")),
            "collected": map_of(list_of({"type": ["number", "string", "boolean"]})),
            "kept": map_of({"type": ["string", "null"]}),
            "steps_run": {"type": "integer", "minimum": 0, "description": "Each round's steps are counted."},
            "peak_bytes": _PEAK,
            "plans": list_of(
                {
                    "type": "object",
                    "properties": {
                        "step": list_of(
                            {"type": "integer"}, description="The path to the repeat; empty for the program itself."
                        ),
                        "rounds": {
                            "type": "integer",
                            "minimum": 0,
                            "description": "Rounds that ran by a plan; 1 for a program.",
                        },
                        "why_not": {
                            "type": ["string", "null"],
                            "description": "Why none did, where there is a reason.",
                        },
                        "kernels": {
                            "type": "integer",
                            "minimum": 0,
                            "description": "On a CUDA device: fused kernels that a planned round calls.",
                        },
                        "why_not_fused": {
                            "type": ["string", "null"],
                            "description": "On a CUDA device: why element-wise steps are single calls after all.",
                        },
                    },
                },
                description="How each repeat of enough rounds, and a program that was there before, ran: by a plan, "
                "or why not. Results are the same; on a CUDA device, functions of its mathematical library aside.",
            ),
            "notes": map_of(
                list_of(ref("Note")), description="With `explain=true`: why each result is as it is, by returned name."
            ),
        },
        "required": ["results", "steps_run"],
    },
    "JobProgress": {
        "type": "object",
        "properties": {
            "steps_run": {"type": "integer", "minimum": 0, "description": "Each round's steps are counted."},
            "steps": {
                "type": ["integer", "null"],
                "description": "The steps that it will run in all; of a function that an operation calls one call is "
                "counted. Null before it has begun.",
            },
            "rounds": list_of(
                {"type": "integer", "minimum": 0}, description="Of the repeats that are under way, the outer one first."
            ),
            "of": list_of({"type": "integer", "minimum": 0}, description="How many rounds each of these has."),
            "seconds": {"type": "number", "minimum": 0, "description": "How long it ran, without waiting for others."},
        },
        "required": ["steps_run", "steps", "rounds", "of", "seconds"],
    },
    "Job": {
        "type": "object",
        "description": "A program that nobody waits for.",
        "properties": {
            "id": {"type": "string"},
            "session": {"type": "string", "description": "The id of the session that it works in."},
            "state": {"type": "string", "enum": ["queued", "running", "done", "failed", "cancelled"]},
            "position": {
                "type": ["integer", "null"],
                "description": "While it is queued: how many calls of its session come before it.",
            },
            "progress": ref("JobProgress"),
            "created": {"type": "number", "description": "Seconds since 1970."},
            "ended": {"type": ["number", "null"], "description": "Seconds since 1970."},
            "kept_until": {
                "type": ["number", "null"],
                "description": "When it is forgotten, in seconds since 1970; sooner where more jobs end than are kept.",
            },
            "survives_restart": {
                "type": "boolean",
                "description": "Whether it, and its result, outlive the end of the server (`--data-dir`).",
            },
            "result": {
                "anyOf": [ref("ProgramResult"), ref("OpResult")],
                "description": "Of a job that is done: what the call would have answered. Values of a result over "
                "1 MiB are left out where their tensors have changed since.",
            },
            "problem": {**ref("Problem"), "description": "Of a job that failed: what the call would have answered."},
        },
        "required": ["id", "session", "state", "position", "progress", "created", "survives_restart"],
    },
    "JobList": {
        "type": "object",
        "properties": {"jobs": list_of(ref("Job")), "cursor": _CURSOR},
        "required": ["jobs"],
    },
    "NewSession": closed(
        {
            **_SESSION_SETTINGS,
            "device": {"anyOf": [ref("DeviceArg"), {"type": "null"}]},
            "fork": {
                "type": ["string", "null"],
                "description": "A public id: a copy of that session, on shared memory until one of the two is changed; "
                "device, seed and default_dtype are its.",
            },
        },
    ),
    "SessionChange": closed(
        {
            **_SESSION_SETTINGS,
            "public": {
                "type": ["boolean", "null"],
                "description": "Whether others may read and fork it: `public_id` of the answer is for them.",
            },
        },
        description="A session's device is chosen when it is made.",
    ),
    "TensorUpload": closed(
        {
            "data": ref("DataArg"),
            "shape": ref("ShapeArg"),
            "dtype": ref("DTypeArg"),
            "device": ref("DeviceArg"),
            "requires_grad": {"type": "boolean", "default": False},
            "name": ref("OutName"),
        },
        ("data",),
    ),
    "TensorChange": closed(
        {
            "requires_grad": {"type": "boolean"},
            "name": nullable(ref("OutName")),
            "grad": {"type": "null", "description": "Null clears the gradient."},
        },
    ),
    "BackwardCall": closed(
        {
            "gradient": nullable(ref("TensorArg")),
            "retain_graph": {"type": ["boolean", "null"]},
            "create_graph": {"type": "boolean", "default": False},
            "inputs": nullable(ref("TensorListArg")),
        },
    ),
    "Form": {
        "type": "object",
        "additionalProperties": True,
        "description": "The JSON body's fields as form fields, each read as JSON if it is JSON and else as a string; a "
        "body that starts with `{` is read as JSON.",
    },
}

# What a reader of a documentation page sees as the type of a parameter.
_TITLES = {
    "TensorArg": "Tensor",
    "TensorRef": "Tensor id or name",
    "TensorData": "Tensor data",
    "TensorListArg": "list of Tensors",
    "NestedList": "nested list",
    "ScalarArg": "Number",
    "FloatArg": "float",
    "DataArg": "number or nested list",
    "StateArg": "object of lists of Tensors",
    "FunctionArg": "object of inputs, steps and return",
    "DTypeArg": "dtype",
    "DeviceArg": "device",
    "ShapeArg": "shape",
    "IndexArg": "index",
    "IndexItem": "index item",
    "OutName": "name",
    "OutNames": "list of names",
    "Keep": "boolean",
    "NoGrad": "boolean",
}

SCHEMAS: Json = {
    name: {**({"title": _TITLES[name]} if name in _TITLES else {}), **schema}
    for name, schema in {**_ARGUMENTS, **_ANSWERS, **_PROGRAMS}.items()
}
