"""From the catalogue's entries to paths: each operation with its own schema, description, example and identifier."""

from __future__ import annotations

import json
from collections.abc import Iterable

from app.openapi.components import Json, closed, ref
from app.openapi.jobs import TAKEN
from app.openapi.replies import CHANGES, answer, json_of, parameters, problems

# The engine's words for what is returned -> the schema of the answer; anything else is the general OpResult.
_RETURNS = {"Tensor": "TensorResult", "list of Tensors": "TensorsResult"}

_COMMON: Json = {
    "out_name": ref("OutName"),
    "out_names": ref("OutNames"),
    "keep": ref("Keep"),
    "no_grad": ref("NoGrad"),
}
_PROBLEMS = problems(CHANGES)
_PARAMETERS = parameters(
    "SessionHeader", "SessionQuery", "Values", "Int64", "DryRun", "Explain", "Language", "FreeName", "Once", "Prefer"
)
_INPLACE_PARAMETERS = [*_PARAMETERS, *parameters("Unchanged")]


def path(entry: Json) -> str:
    """Where the operation is called."""
    return f"/v1/ops/{entry['name']}"


def paths(entries: Iterable[Json]) -> Json:
    """Path -> path item of each entry."""
    return {path(entry): {"post": _operation(entry)} for entry in entries}


def _operation(entry: Json) -> Json:
    result = _RETURNS.get(str(entry.get("returns")), "OpResult")
    return {
        "tags": [entry["family"]],
        "operationId": entry["operation_id"],
        "summary": summary(entry),
        "description": _description(entry),
        "parameters": _INPLACE_PARAMETERS if entry.get("inplace") else _PARAMETERS,
        "requestBody": {
            "required": any(p["required"] for p in entry["params"]),
            "content": {
                "application/json": {"schema": _request(entry), "example": entry["example"]},
                "application/x-www-form-urlencoded": {"schema": ref("Form")},
            },
        },
        "responses": {
            "200": answer(
                "The result.",
                json_of(ref(result)),
                Content_Language="ContentLanguage",
                Preference_Applied="PreferenceApplied",
            ),
            "202": TAKEN,
            **_PROBLEMS,
        },
    }


def summary(entry: Json) -> str:
    """The summary as plain text: it is no Markdown in OpenAPI."""
    return str(entry["summary"]).replace("`", "")


def _request(entry: Json) -> Json:
    """The body's schema: the operation's parameters, and what any operation takes."""
    given: Json = dict(entry.get("schema") or {})
    properties: Json = given.pop("properties", None) or {p["name"]: _property(p) for p in entry["params"]}
    required = given.pop("required", None) or tuple(p["name"] for p in entry["params"] if p["required"])
    common = {name: schema for name, schema in _COMMON.items() if name not in properties}
    return {**closed({**properties, **common}, tuple(required)), **given}


def _property(param: Json) -> Json:
    found: Json = dict(param["schema"])
    if param.get("doc"):
        found["description"] = param["doc"]
    if not param["required"] and param["default"] is not None:
        found["default"] = param["default"]
    return found


def _description(entry: Json) -> str:
    facts = [f"`{signature(entry)}`"]
    if entry.get("inplace"):
        facts.append("Changes its input in place.")
    if entry.get("view"):
        facts.append("The result shares memory with its input.")
    facts.append("Differentiable." if entry.get("differentiable") else "Not differentiable.")
    return "  \n".join([facts[0], " ".join(facts[1:])]) + (f"\n\n{entry['doc']}" if entry.get("doc") else "")


def signature(entry: Json) -> str:
    """The call as Python writes it: `add(input, other, alpha=1) -> Tensor`."""
    words = [p["name"] if p["required"] else f"{p['name']}={_literal(p['default'])}" for p in entry["params"]]
    returns = entry.get("returns")
    return f"{entry['name']}({', '.join(words)})" + (f" -> {returns}" if isinstance(returns, str) else "")


def _literal(value: object) -> str:
    constants = {None: "None", True: "True", False: "False"}
    if value is None or isinstance(value, bool):
        return constants[value]
    return json.dumps(value, ensure_ascii=False)
