"""Form fields, media types, arrays in arguments, DOT: the rest of what is read and written."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.wire import arguments, dot, form, json_read, media
from engine.errors import EngineError, LimitExceeded, Malformed, NotAcceptable
from engine.service import ArrayData


@pytest.mark.parametrize(
    "body, fields",
    [
        (b"size=[2,3]&out_name=x", {"size": [2, 3], "out_name": "x"}),
        (b'{"size": [2, 3], "equation": "a+b"}', {"size": [2, 3], "equation": "a+b"}),
        (b'  {"a": 1}', {"a": 1}),
        (
            b"a=1&b=1.0&c=true&d=null&e=%22x%22&f=t1&g=",
            {"a": 1, "b": 1.0, "c": True, "d": None, "e": "x", "f": "t1", "g": ""},
        ),
        (b"text=hello+world%21", {"text": "hello world!"}),
        (b"data=[%22NaN%22,1]", {"data": ["NaN", 1]}),
        (b"x=NaN", {"x": "NaN"}),
        (b"a=b=c", {"a": "b=c"}),
        (b"%ED%95%9C=%EA%B8%80", {"한": "글"}),
        (b"", {}),
        (b"a=1&", {"a": 1}),
    ],
)
def test_fields_are_read_as_json_where_they_are_json(body: bytes, fields: Any) -> None:
    value = form.read(body).value
    assert value == fields
    assert [type(v) for v in value.values()] == [type(v) for v in fields.values()]


@pytest.mark.parametrize(
    "body, words",
    [
        (b"a=1&a=2", "'a' is given twice"),
        (b"a=1&%61=2", "'a' is given twice"),
        (b"hello", "neither a JSON object nor name=value"),
        (b"[1,2]", "neither a JSON object nor name=value"),
        (b"a=%ff", "not UTF-8"),
        (b"index=[1:2]", "field 'index'"),
        (b"data=[1,NaN]", "field 'data'"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        form.read(body)


def test_a_form_is_bounded() -> None:
    with pytest.raises(LimitExceeded, match="64 bits"):
        form.read(b"seed=99999999999999999999")
    with pytest.raises(LimitExceeded, match="1000"):
        form.read(b"&".join(b"a%d=1" % i for i in range(1001)))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_form_or_refused(body: bytes) -> None:
    try:
        value = form.read(body).value
    except EngineError:
        return
    json.dumps(value)


def test_long_lists_in_a_field_are_kept_as_arrays() -> None:
    document = form.read(b"data=[" + b",".join([b"1"] * 300) + b"]")
    assert document.arrays[id(document.value["data"])].array.shape == (300,)


# ---------------------------------------------------------------- forms of answers


@pytest.mark.parametrize(
    "accept, form_name",
    [
        (None, "json"),
        ("*/*", "json"),
        ("", "json"),
        ("application/json", "json"),
        ("application/*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("text/plain", "text"),
        ("TEXT/PLAIN; charset=utf-8", "text"),
        ("text/*", "text"),
        ("application/x-npy, application/json;q=0.5", "npy"),
        ("application/json;q=0, */*", "text"),
        ("application/octet-stream;q=0.2, application/x-safetensors;q=0.3", "safetensors"),
    ],
)
def test_accept_chooses_the_form(accept: str | None, form_name: str) -> None:
    assert media.choose(accept, None, media.TENSOR_FORMS) == form_name


def test_as_wins_over_accept() -> None:
    assert media.choose("application/json", "npy", media.TENSOR_FORMS) == "npy"


@pytest.mark.parametrize("accept, wanted", [("image/png", None), ("*/*", "svg"), ("application/json;q=0", None)])
def test_a_form_that_is_not_offered_is_406_with_those_that_are(accept: str, wanted: str | None) -> None:
    offered = (media.JSON,) if "q=0" in accept else media.TENSOR_FORMS
    with pytest.raises(NotAcceptable) as caught:
        media.choose(accept, wanted, offered)
    assert caught.value.hint
    assert caught.value.hint.facts["forms"] == list(offered)


# ---------------------------------------------------------------- arrays in arguments

TENSOR = {"anyOf": [{"$ref": "#/components/schemas/TensorArg"}, {"type": "null"}]}
CATALOGUE = [
    {
        "name": "f",
        "params": [
            {"name": "input", "schema": TENSOR},
            {"name": "tensors", "schema": {"$ref": "#/components/schemas/TensorListArg"}},
            {"name": "index", "schema": {"$ref": "#/components/schemas/IndexArg"}},
            {"name": "data", "schema": {"$ref": "#/components/schemas/DataArg"}},
            {"name": "size", "schema": {"type": "array", "items": {"type": "integer"}}},
        ],
    }
]
LONG = [[1, 2]] * 200


def test_kinds_are_read_off_the_schemas() -> None:
    assert arguments.kinds_of(CATALOGUE) == {
        "f": {"input": "tensor", "tensors": "items", "index": "items", "data": "data"}
    }


def taken(args: Any) -> Any:
    document = json_read.read(json.dumps(args).encode())
    return arguments.with_arrays(document.value, arguments.kinds_of(CATALOGUE)["f"], document.arrays)


def test_long_lists_that_are_tensors_become_arrays() -> None:
    args = taken({"input": LONG, "tensors": [LONG, "t1", [1, 2]], "size": [2] * 300, "data": LONG})
    assert isinstance(args["data"], ArrayData)
    assert isinstance(args["input"]["data"], ArrayData)
    assert args["input"]["data"].inferred
    assert isinstance(args["tensors"][0]["data"], ArrayData)
    assert args["tensors"][1:] == ["t1", [1, 2]]
    assert args["size"] == [2] * 300


def test_data_become_arrays_wherever_they_stand() -> None:
    args = taken({"input": {"data": LONG, "dtype": "int32"}, "other": {"data": LONG}})
    assert args["input"]["dtype"] == "int32"
    assert np.array_equal(args["input"]["data"].array, LONG)
    assert np.array_equal(args["other"]["data"].array, LONG)


def test_the_items_of_a_list_of_tensors_stay_items() -> None:
    args = taken({"tensors": [[1] * 200, [2] * 200], "index": [0] * 300})
    assert [item["data"].array.tolist() for item in args["tensors"]] == [[1] * 200, [2] * 200]
    assert args["index"] == [0] * 300


def test_each_item_has_a_dtype_of_its_own() -> None:
    args = taken({"index": [[True, False] * 100, [0, 1] * 100], "tensors": [[1] * 200, [0.5] * 200]})
    assert [item["data"].dtype for item in args["index"]] == ["bool", "int64"]
    assert [item["data"].dtype for item in args["tensors"]] == ["int64", "float64"]


# ---------------------------------------------------------------- DOT


def test_a_graph_is_written_as_dot() -> None:
    graph = {
        "nodes": [
            {"id": 2, "name": "MulBackward0", "op": "mul", "saved_bytes": 8, "shapes": [(2, 3)]},
            {"id": "w", "name": 'a "b" \\', "op": None, "saved_bytes": 0},
        ],
        "edges": [{"from": 2, "to": "w", "output": 0}, {"from": 2, "to": "w", "output": 1}],
    }
    assert dot.write(graph).splitlines() == [
        "digraph tape {",
        "  node [shape=box, fontname=monospace];",
        '  "2" [label="MulBackward0\\n[2, 3]\\nsaves 8 bytes"];',
        '  "w" [label="a \\"b\\" \\\\"];',
        '  "2" -> "w";',
        '  "2" -> "w" [label="1"];',
        "}",
    ]
