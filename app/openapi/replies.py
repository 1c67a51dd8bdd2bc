"""What every call has in common: parameters, response headers, and the problems that any of them may answer."""

from __future__ import annotations

from typing import Any

from app.openapi.components import Json, ref


def _parameter(name: str, place: str, schema: Json, description: str, **rest: Any) -> Json:
    return {"name": name, "in": place, "description": description, "schema": schema, **rest}


PARAMETERS: Json = {
    "SessionHeader": _parameter(
        "Curlgrad-Session",
        "header",
        {"type": "string"},
        "The session, by id or name; your `default` session without it.",
    ),
    "SessionQuery": _parameter(
        "session", "query", {"type": "string"}, "The session, as the header `Curlgrad-Session` says it."
    ),
    "Values": _parameter(
        "values",
        "query",
        {"type": "string", "enum": ["auto", "all", "none"]},
        "Whether tensors carry their values; `auto`, the default: up to 1000 elements.",
    ),
    "Int64": _parameter(
        "int64",
        "query",
        {"type": "string", "enum": ["number", "string"]},
        "`string` writes int64 as strings, for 53-bit readers.",
    ),
    "DryRun": _parameter(
        "dry_run",
        "query",
        {"type": "boolean"},
        "`true` runs nothing and answers as usual, without ids and values, plus `peak_bytes`.",
    ),
    "Explain": _parameter(
        "explain",
        "query",
        {"type": "boolean"},
        "`true` adds `notes`: why each result has its dtype, shape and device, which cells a `dim` joined, why it is a "
        "view or a copy, why it requires grad or not, and why a gradient is null.",
    ),
    "Language": _parameter(
        "Accept-Language",
        "header",
        {"type": "string", "examples": ["ko", "en"]},
        "The language of `notes` and of a problem's `hint`: `en`, the default, or `ko`.",
    ),
    "FreeName": _parameter(
        "If-None-Match",
        "header",
        {"type": "string", "enum": ["*"]},
        "`*` asks for 409 where a name to be given is taken.",
    ),
    "Cached": _parameter(
        "If-None-Match", "header", {"type": "string"}, "ETags that you have: 304 where one still holds."
    ),
    "Unchanged": _parameter(
        "If-Match", "header", {"type": "string"}, "The ETag that the changed tensor must still have, else 412."
    ),
    "Once": _parameter(
        "Idempotency-Key",
        "header",
        {"type": "string", "minLength": 1, "maxLength": 255, "examples": ["0b7c1c5e-5d0e-4c58-a3de-7c5f2a3d8e10"]},
        "Do it once: for 24 hours the same key with the same request is answered as the first time (values left out "
        "where that was over 1 MiB), with another request 422.",
    ),
    "Prefer": _parameter(
        "Prefer",
        "header",
        {"type": "string", "examples": ["respond-async", "respond-async, wait=20"]},
        "`respond-async` makes it a job: 202 with its `Location`. With `wait=20` the answer comes as usual where it is "
        "there within 20 s, else 202 (RFC 7240).",
    ),
    "JobPath": _parameter("id", "path", {"type": "string"}, "The job's id.", required=True),
    "LastEvent": _parameter(
        "Last-Event-ID",
        "header",
        {"type": "string"},
        "The `id` of the last event that you got: what follows it is told.",
    ),
    "TensorPath": _parameter("id", "path", {"type": "string"}, "The tensor's id or name.", required=True),
    "Limit": _parameter("limit", "query", {"type": "integer", "minimum": 1}, "How many at most."),
    "Cursor": _parameter("cursor", "query", {"type": "string"}, "Where to go on: the `cursor` of the page before."),
    "SessionPath": _parameter(
        "id", "path", {"type": "string"}, "The session's id or name, or `default`.", required=True
    ),
}

HEADERS: Json = {
    "RequestId": {"description": "Names the request, also in the server's log.", "schema": {"type": "string"}},
    "ServerTiming": {"description": "`queue`, `run` and `encode`, in ms.", "schema": {"type": "string"}},
    "ETag": {"description": "Opaque; changes with what it tags.", "schema": {"type": "string"}},
    "Location": {"description": "Where the new one is.", "schema": {"type": "string", "format": "uri-reference"}},
    "PreferenceApplied": {
        "description": "Which preference was followed (RFC 7240).",
        "schema": {"type": "string", "examples": ["respond-async"]},
    },
    "Dtype": {"description": "The dtype of raw bytes.", "schema": {"type": "string"}},
    "Shape": {"description": "The shape of raw bytes, such as `2,3`.", "schema": {"type": "string"}},
    "ContentLanguage": {
        "description": "The language of `notes` or `hint`, where there are any.",
        "schema": {"type": "string", "enum": ["en", "ko"]},
    },
    "Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}},
    "RetryAfter": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
}
_EVERY_HEADER = {
    "X-Request-Id": {"$ref": "#/components/headers/RequestId"},
    "Server-Timing": {"$ref": "#/components/headers/ServerTiming"},
}

# status -> (name of the component, title, when)
_PROBLEMS: dict[int, tuple[str, str]] = {
    400: ("Malformed", "Not JSON, or not what its media type says."),
    401: ("Unauthorized", "No API key, or none that counts, on a server that asks for one."),
    403: ("Forbidden", "The request comes from a foreign web page, or the key may not do this."),
    404: ("NotFound", "No such tensor, session, job or operation."),
    406: ("NotAcceptable", "A form that is not offered, or that cannot hold the dtype."),
    409: (
        "Conflict",
        "The state forbids it: a freed tape, a changed saved tensor, a leaf that requires grad, a name that is taken.",
    ),
    410: ("Gone", "The session was yours and has expired, or its data are damaged; says why."),
    412: ("PreconditionFailed", "`If-Match` or `expect` does not hold."),
    413: ("TooLarge", "The body is over the limit."),
    415: ("Unsupported", "A media type that is not understood."),
    421: ("Misdirected", "A Host that is not this server's."),
    422: ("Invalid", "A wrong parameter, shape, dtype or device, or more than the limits allow."),
    429: (
        "TooManyRequests",
        "Sent more often than a key may, or too many calls wait; `Retry-After` says when to send again.",
    ),
    503: (
        "Unavailable",
        "A worker restarts, the server is ending, or its disk fails; `code` is `not-applied` or `outcome-unknown`.",
    ),
    504: ("OutOfTime", "The program ran past its time limit, or must; the session is as it was before."),
    507: (
        "OutOfMemory",
        "Over the memory of the session or the server, or the disk is full; says what was asked and what frees more.",
    ),
}

RESPONSES: Json = {
    name: {
        "description": when,
        "headers": {
            **_EVERY_HEADER,
            "Content-Language": {"$ref": "#/components/headers/ContentLanguage"},
            **({"Retry-After": {"$ref": "#/components/headers/RetryAfter"}} if status in (429, 503) else {}),
            **({"WWW-Authenticate": {"$ref": "#/components/headers/Authenticate"}} if status == 401 else {}),
        },
        "content": {"application/problem+json": {"schema": ref("Problem")}},
    }
    for status, (name, when) in _PROBLEMS.items()
}

_REFUSALS = (401, 403, 406, 421, 422, 429)  # by Host, Origin, key, Accept and query, before anything else
_SESSION = (404, 410, 503)
_BODY = (400, 413, 415)

# Which problems each kind of call may answer.
ASKS = _REFUSALS
READS = (*_REFUSALS, *_SESSION)
CHANGES = (*READS, *_BODY, 409, 412, 504, 507)


def problems(statuses: tuple[int, ...]) -> Json:
    """The responses of these statuses."""
    return {str(s): {"$ref": f"#/components/responses/{_PROBLEMS[s][0]}"} for s in sorted(statuses)}


def parameters(*names: str) -> list[Json]:
    """References to the parameters of these names in `PARAMETERS`."""
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def answer(description: str, content: Json | None = None, **headers: str) -> Json:
    """A success; `headers` maps a header's name (`_` for `-`) to the component that describes it."""
    told = {
        name.replace("_", "-"): {"$ref": f"#/components/headers/{component}"} for name, component in headers.items()
    }
    found: Json = {"description": description, "headers": {**_EVERY_HEADER, **told}}
    if content:
        found["content"] = content
    return found


def json_of(schema: Json) -> Json:
    """Content that is JSON of this schema."""
    return {"application/json": {"schema": schema}}
