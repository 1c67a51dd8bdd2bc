"""What to do next, in one sentence: the engine's hints (a key, facts, calls) in English.

In a sentence `{call}` is the first call that mends the error and `{calls}` all of them, as a user would send them;
any other name in braces is a fact of the hint. Where an error may come without a call that can be completed, the
sentence has two forms, `with {call} :: without`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from engine.errors import Call, Hint

MAX_ARGUMENT = 160  # characters of a call's arguments; longer ones are data that the caller knows

SENTENCES: Mapping[str, str] = {
    # -------------------------------------------------------- names and routes
    "near-names": "did you mean {near}?",
    "known-names": "the names are {names}",
    "takes-none": "it takes none",
    "list-ops": "GET /v1/ops lists every operation",
    "route-near": "did you mean {method} {path}?",
    "route-list": "the calls are described at /docs, the operations listed at /v1/ops",
    "methods": "it takes {methods}",
    "near-parameter": 'did you mean "{near}"?',
    "parameters": "its parameters are {params}",
    "near-field": 'did you mean "{near}"?',
    "fields": "the fields are {fields}",
    "choice": 'did you mean "{near}"?',
    "argument-type": "{param} takes: {type}",
    "missing-parameter": "{op} needs {param} ({type}); GET /v1/ops/{op} describes it",
    "list-tensors": "GET /v1/tensors lists what there is",
    "name-rule": "names are made of letters, digits, _, . and -: w, h_1 and 0.weight are names",
    "name-taken": "choose another name; without If-None-Match, {name} would from now on mean the new tensor",
    "out-count": "give {count} names",
    "read-again": "read it again with GET /v1/tensors/{name}, and decide anew",
    "make-state": "optim.adam_state and its like make one; keep it under a name",
    "limit": "{name} is {limit} on this server, set when it is started",
    # -------------------------------------------------------- values
    "ragged": "all lists of one level must have one length; in {param}, the first that has another is at {path}",
    "data-words": 'the strings that stand for numbers are "NaN", "Infinity" and "-Infinity"',
    "complex-pairs": "a complex number is [re, im], so complex data have one level more, of length 2",
    "tensor-data": 'a tensor that is written out is an object with data: {{"data": [[1.0, 2.0]]}}',
    "slice": 'slices are strings such as "1:", ":-1" and "::2"',
    # -------------------------------------------------------- dtypes and devices
    # What a beginner meets first is tested word for word in tests/app/test_teaching.py.
    "cast-one": (
        "cast {param} first: {call}; that makes a new tensor, so use its id, "
        'or add "out_name" to give it the old one\'s name'
    ),
    "cast-input": (
        "the tensor is {have}; cast it to a floating-point dtype first: {call} :: "
        "the values are {have}; give floating-point ones (1.0 instead of 1)"
    ),
    "cast-float": (
        "the tensor is {have}; cast it to a floating-point dtype first: {call} :: "
        "the values are {have}; give floating-point ones (1.0 instead of 1)"
    ),
    "mean-dtype": (
        "the mean of {have} is no {have}; say in which dtype it is computed: {call} :: "
        'the mean of {have} is no {have}; say in which dtype it is computed: "dtype": "float32"'
    ),
    "cast-index": (
        "{param} must be whole numbers of the dtype int64, and is {have}: {call} makes a new tensor of them, "
        "so use its id :: {param} must be whole numbers of the dtype int64 (JSON's 1, not 1.0), and is {have}"
    ),
    "bool-mask": 'comparisons (gt, eq, ...) make boolean tensors, and so does the operation to with "dtype": "bool"',
    "inplace-dtype": (
        "the result is {want} and cannot be kept in a tensor of {have}: use the operation without its underscore, "
        "or cast the tensor first: {call} :: the result is {want} and cannot be kept in a tensor of {have}: "
        "use the operation without its underscore"
    ),
    "give-dtype": 'say the dtype as well: "dtype": "{dtype}" (in JSON, 1 is an integer and 1.0 a float)',
    "move-device": (
        "move one of them first: {call} makes a new tensor there, so use its id :: "
        "move one of them first, with the operation to, and use the id of the new tensor"
    ),
    "device-here": "the devices here are {devices}",
    "float-exponent": "make one of the two a floating-point number: 2.0 ** -1 is 0.5, and no integer is",
    "integer-zero-division": "integers have no infinity: divide floats, or make sure that no divisor is 0",
    # -------------------------------------------------------- shapes
    "broadcast": (
        "counted from the last one, sizes must be equal or one of the two 1; {a} and {b} differ in dimension {dim}: "
        "unsqueeze, reshape or transpose one of them"
    ),
    "inner-sizes": "the last size of {a} must equal the last but one of {b}: transpose one of them, perhaps",
    "dim-range": "the tensor has {ndim} dimensions, so dim goes from {low} to {high}; negative ones count from the end",
    "index-range": "indices go from {low} to {high} here; the first that does not is {index}",
    "flip-instead": "steps are 1 or more; the operation flip turns a dimension round",
    "mask-shape": "a mask has the sizes of the dimensions it stands for: {mask} does not fit {shape}",
    "cat-sizes": "except in dimension {dim} all must have the same sizes; they are {shapes}",
    "stack-sizes": "stack takes tensors of one shape, and these are {shapes}; cat joins along a dimension they have",
    "stack-instead": "the operation stack joins 0-d tensors, into one of one dimension",
    "split-sizes": "the sizes must add up to {size}, the size of dimension {dim}",
    "conv-rank": "an input has the dimensions batch, channels and {dims} of space; the sizes here are {input}",
    "conv-channels": (
        "dimension 1 of the input is its channels: {have} here, where weight and groups make it {want}; "
        "permute it if the channels stand last"
    ),
    "conv-kernel": "the kernel reaches over {kernel}, the padded input is {input}: add padding, or take a smaller one",
    "view-size": "the sizes of a shape multiply to the number of elements, here {total}; one of them may be -1",
    "use-reshape": 'the elements would have to be copied: use the operation reshape, with "shape": {shape}',
    "expand": "only a dimension of size 1 can be expanded; the operation repeat copies any",
    "use-logits": (
        "give probabilities, as sigmoid makes them; "
        "or the logits themselves to nn.functional.binary_cross_entropy_with_logits"
    ),
    # -------------------------------------------------------- autograd
    "backward-scalar": (
        'its shape is {shape}: reduce it to one number first ({call}), or give "gradient", of the same shape :: '
        'its shape is {shape}: reduce it to one number first, or give "gradient", of the same shape'
    ),
    "backward-real": 'only a real floating-point number has a gradient of its own; give "gradient"',
    "gradient-shape": "a gradient has the shape of what it is the gradient of, here {shape}",
    "no-grad-yet": (
        "there is one after a backward pass that reaches {name}, if {name} requires grad: "
        "POST /v1/tensors/{{id}}/backward"
    ),
    "allow-unused": 'say "allow_unused": true to get null for what was not used',
    "requires-grad": (
        "mark what you want gradients of, and compute the result anew: {call} :: "
        'mark what you want gradients of with requires_grad_ (or "requires_grad": true where it is made), '
        "and compute the result anew"
    ),
    "retain-graph": (
        "compute the result anew, or keep the tape at the first time: {call} :: "
        'compute the result anew, or say "retain_graph": true at the first time'
    ),
    "saved-changed": (
        "the gradient of {op} needs the value from before the change: "
        "use the operation without its underscore, or change a clone"
    ),
    "leaf-inplace": (
        'say "no_grad": true with the change, as an optimizer does, '
        "or use the operation without its underscore, which makes a new tensor"
    ),
    "detach": (
        "{call} gives the same values without their history :: "
        "the operation detach gives the same values without their history"
    ),
    "out-of-place": "use the operation without its underscore, which makes a new tensor, or change a clone",
    "clone-first": (
        "give its elements memory of their own: {call} :: "
        "give its elements memory of their own with the operation clone"
    ),
    # -------------------------------------------------------- sessions, memory, workers
    "free-memory": (
        "free what the {whose} no longer needs: DELETE /v1/tensors/{{id}}, or DELETE /v1/tensors?unnamed=true; "
        'and in a program, "no_grad": true keeps no tape'
    ),
    "list-sessions": "GET /v1/sessions lists yours",
    "delete-sessions": "delete some of your {held} sessions: DELETE /v1/sessions/{{id}}",
    "session-name-rule": "a name has letters, digits, _, . and -, at most 255, and does not begin with . or -",
    "session-name-taken": "choose another name, or DELETE the session that has it",
    "make-session-anew": "POST /v1/sessions makes a new one; what was in the old one is lost",
    "try-again": "send it again in a moment",
    "queue-full": "wait for some of the {waiting} calls that you have sent; at most {limit} may wait",
    "worker-lost": "the worker starts anew, without what it held; its sessions are gone",
    "report-bug": "this is a bug of ours; please report it, with the reference {reference}",
    # -------------------------------------------------------- bodies and forms
    "json-nan": 'write the numbers that JSON lacks as the strings "NaN", "Infinity" and "-Infinity"',
    "json-quotes": "JSON's strings have double quotes; where the shell takes them away, send fields: -d size=[2,3]",
    "json-python": "JSON's words are true, false and null, in lower case",
    "json-object": 'send an object, {{"name": value}}, or fields, -d name=value',
    "form-how": "send JSON, or fields as in: curl -d size=[2,3] -d out_name=x",
    "npy-how": "numpy.save writes one; send it with --data-binary @x.npy -H 'Content-Type: application/x-npy'",
    "other-form": "ask for another form: {forms}",
    "accept-how": "choose with ?as= or the Accept header: {forms}",
    "content-types": "send one of {types}, with the header Content-Type",
    "max-body": "the limit is {limit} bytes, set by --max-body when the server starts",
    "raw-how": "say what the bytes are, as in ?dtype=float32&shape=2,3",
    "names-need-safetensors": "ask for the form that holds many: GET /v1/tensors?names={names}&as=safetensors",
    "delete-unnamed": "DELETE /v1/tensors?unnamed=true frees all that has no name; DELETE /v1/tensors/{{id}} frees one",
    "if-match-how": 'If-Match goes with calls that change one tensor; in a program, say "expect": {{"w": etag}}',
    "if-none-match-how": "on calls that give a name, If-None-Match: * asks for 409 where the name is taken",
    "one-session": "send either the header Curlgrad-Session or ?session=, or the same in both",
    # -------------------------------------------------------- who may ask
    "allowed-host": "if {host} is this server's name, start it with --allowed-host {host}",
    "cors-origin": "to let pages of that site in, start the server with --cors-origin {origin}",
}


def sentence(hint: Hint | None) -> str | None:
    """The hint as a sentence; None without a hint."""
    if hint is None:
        return None
    calls = [spoken(call) for call in hint.calls]
    template = SENTENCES.get(hint.key)
    if template is None:
        return " or ".join(calls) or None
    with_call, _, without = template.partition(" :: ")
    chosen = with_call if calls or "{call" not in with_call else without
    if not chosen:
        return None
    facts = {name: _fact(value) for name, value in hint.facts.items()}
    return chosen.format_map({**facts, "call": calls[0] if calls else "", "calls": " or ".join(calls)})


def spoken(call: Call) -> str:
    """The call as it is sent: `POST /v1/ops/to {"input": "x1", "dtype": "float32"}`."""
    arguments = ", ".join(f'"{name}": {_json(value)}' for name, value in call.args.items())
    return f"POST /v1/ops/{call.op} {{{arguments}}}"


def _json(value: Any) -> str:
    """One argument as JSON; what is too long to repeat, or was uploaded, is three dots."""
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f'"{key}": {_json(item)}' for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(map(_json, value)) + "]" if len(value) <= MAX_ARGUMENT else "..."
    elif value is None or isinstance(value, bool | int | float | str):
        text = orjson.dumps(value).decode()
    else:
        text = "..."
    return text if len(text) <= MAX_ARGUMENT else "..."


def _fact(value: Any) -> str:
    """A fact within a sentence: names after each other, numbers and shapes as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return _json(value)
