"""What each call asks of the engine, and what it makes of the answer; the engine itself is a stand-in."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy

from engine.errors import NameTaken
from engine.service import ArrayData
from tests.app.conftest import FakeService, tensor

JSON = {"Content-Type": "application/json"}


def code(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["code"]


# ---------------------------------------------------------------- operations


@pytest.fixture
def op(client: httpx.Client, fake: FakeService) -> httpx.Client:
    fake.answer = {"results": {"r": tensor([1.0, 2.0])}, "peak_bytes": 8}
    return client


def test_an_operation_is_a_program_of_one_step(op: httpx.Client, fake: FakeService) -> None:
    response = op.post("/v1/ops/add", json={"input": [1, 2], "other": "t1", "alpha": 2})
    assert fake.last[:3] == ("run", "anyone", None)
    assert fake.last[4:] == ("auto", False)
    assert fake.program == {
        "steps": [{"op": "add", "args": {"input": [1, 2], "other": "t1", "alpha": 2}, "out": {"whole": "r"}}],
        "return": ["r"],
        "keep_all": {"r": None},
    }
    assert response.status_code == 200
    assert response.json()["op"] == "add"
    assert response.json()["result"]["values"] == [1.0, 2.0]


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"out_name": "y"}, {"keep_all": {"r": "y"}}),
        ({"out_names": ["a", "b"]}, {"keep_all": {"r": ["a", "b"]}}),
        ({"keep": False}, {}),
        ({"keep": True, "no_grad": True}, {"keep_all": {"r": None}, "no_grad": True}),
        ({"no_grad": False}, {"keep_all": {"r": None}}),
    ],
)
def test_what_becomes_of_the_result(op: httpx.Client, fake: FakeService, options: Any, expected: Any) -> None:
    assert op.post("/v1/ops/add", json={"input": 1, **options}).status_code == 200
    told = {key: value for key, value in fake.program.items() if key not in ("steps", "return")}
    assert told == expected
    assert fake.program["steps"][0]["args"] == {"input": 1}


@pytest.mark.parametrize(
    "body, param",
    [
        ({"out_name": 3}, "out_name"),
        ({"out_name": None}, "out_name"),
        ({"out_names": "a"}, "out_names"),
        ({"keep": 0}, "keep"),
        ({"no_grad": "true"}, "no_grad"),
        ({"out_name": "a", "out_names": ["a"]}, "out_names"),
        ({"keep": False, "out_name": "a"}, "keep"),
    ],
)
def test_options_that_make_no_sense(op: httpx.Client, fake: FakeService, body: Any, param: str) -> None:
    response = op.post("/v1/ops/add", json=body)
    assert (response.status_code, response.json()["param"]) == (422, param)
    assert fake.asked == [("start",)]


@pytest.mark.parametrize(
    "query, expected",
    [
        ("", (None, "auto", False)),
        ("?session=s&values=all", ("s", "all", False)),
        ("?dry_run=true&values=none", (None, "none", True)),
        ("?dry_run=0", (None, "auto", False)),
    ],
)
def test_query_parameters_of_an_operation(op: httpx.Client, fake: FakeService, query: str, expected: Any) -> None:
    response = op.post(f"/v1/ops/add{query}", json={})
    assert (fake.last[2], *fake.last[4:]) == expected
    assert ("peak_bytes" in response.json()) == expected[2]


@pytest.mark.parametrize(
    "query, words",
    [
        ("valeus=all", "unknown query parameter 'valeus'"),
        ("values=some", "none of auto, all, none"),
        ("values=all&values=all", "given twice"),
        ("dry_run=yes", "none of false, true"),
        ("int64=text", "none of number, string"),
        ("explain=yes", "none of false, true"),
        ("%ff=1", "UTF-8"),
    ],
)
def test_query_parameters_are_never_ignored(op: httpx.Client, fake: FakeService, query: str, words: str) -> None:
    response = op.post(f"/v1/ops/add?{query}", json={})
    assert response.status_code == (400 if "UTF-8" in words else 422)
    assert words in response.json()["detail"]
    assert fake.asked == [("start",)]


def test_an_unknown_query_parameter_names_the_nearest(op: httpx.Client) -> None:
    assert op.post("/v1/ops/add?valeus=all", json={}).json()["hint"] == "did you mean values?"


def test_the_session_by_header_and_by_query(op: httpx.Client, fake: FakeService) -> None:
    assert op.post("/v1/ops/add", json={}, headers={"Curlgrad-Session": "s1"}).status_code == 200
    assert fake.last[2] == "s1"
    assert op.post("/v1/ops/add?session=s1", json={}, headers={"Curlgrad-Session": "s1"}).status_code == 200
    both = op.post("/v1/ops/add?session=s2", json={}, headers={"Curlgrad-Session": "s1"})
    assert code(both) == (422, "two-sessions")


@pytest.mark.parametrize(
    "headers, body, args",
    [
        ({"Content-Type": "application/x-www-form-urlencoded"}, b'{"input": [1.5]}', {"input": [1.5]}),
        (
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"input=[1.5]&other=x1",
            {"input": [1.5], "other": "x1"},
        ),
        ({}, b'{"input": 1}', {"input": 1}),
        ({"Content-Type": "application/json; charset=utf-8"}, b'{"input": 1.0}', {"input": 1.0}),
        ({"Content-Type": "application/vnd.x+json"}, b'{"input": true}', {"input": True}),
        ({}, b"", {}),
        (JSON, b"", {}),
    ],
)
def test_bodies_of_curl(op: httpx.Client, fake: FakeService, headers: Any, body: bytes, args: Any) -> None:
    assert op.post("/v1/ops/add", content=body, headers=headers).status_code == 200
    assert fake.program["steps"][0]["args"] == args
    assert [type(v) for v in fake.program["steps"][0]["args"].values()] == [type(v) for v in args.values()]


@pytest.mark.parametrize(
    "headers, body, expected",
    [
        (JSON, b"{", (400, "not-json")),
        (JSON, b"[1]", (400, "not-an-object")),
        (JSON, b"null", (400, "not-an-object")),
        (JSON, b'{"input": 1, "input": 2}', (400, "duplicate-key")),
        (JSON, b'{"input": ' + b"[" * 3000 + b"]" * 3000 + b"}", (422, "nested-too-deeply")),
        (JSON, b'{"input": 99999999999999999999}', (422, "integer-too-large")),
        (JSON, b'{"input": NaN}', (400, "not-json")),
        (JSON, b'{"input": "\xff"}', (400, "not-json")),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"input=1&input=2", (400, "duplicate-key")),
        ({"Content-Type": "text/plain"}, b'{"input": 1}', (415, "unsupported-media-type")),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", (415, "unsupported-media-type")),
        ({**JSON, "Content-Encoding": "gzip"}, b"{}", (415, "unsupported-media-type")),
    ],
)
def test_bodies_that_are_refused(
    op: httpx.Client, fake: FakeService, headers: Any, body: bytes, expected: tuple[int, str]
) -> None:
    assert code(op.post("/v1/ops/add", content=body, headers=headers)) == expected
    assert fake.asked == [("start",)]


def test_a_long_list_comes_to_the_engine_as_an_array(op: httpx.Client, fake: FakeService) -> None:
    rows = [[float(i), 0.5] for i in range(200)]
    assert op.post("/v1/ops/add", json={"input": rows, "size": [1] * 400}).status_code == 200
    args = fake.program["steps"][0]["args"]
    assert isinstance(args["input"]["data"], ArrayData)
    assert args["input"]["data"].array.tolist() == rows
    assert args["size"] == [1] * 400


def test_operations_of_our_own_are_no_ones_to_call(op: httpx.Client, fake: FakeService) -> None:
    assert code(op.post("/v1/ops/_release", json={"input": "t1"})) == (404, "no-such-op")
    program = {"steps": [{"repeat": 2, "steps": [{"op": "add"}, {"op": "_release"}]}]}
    response = op.post("/v1/programs", json=program)
    assert code(response) == (404, "no-such-op")
    assert response.json()["step"] == [0, 1]
    assert fake.asked == [("start",)]


def test_results_of_every_kind_are_written(client: httpx.Client, fake: FakeService) -> None:
    for result, expected in [
        (None, None),
        (True, True),
        (3, 3),
        (float("nan"), "NaN"),
        (1 + 2j, {"re": 1.0, "im": 2.0}),
        ([1, "x", None], [1, "x", None]),
        ({"sign": 1.0, "flag": False}, {"sign": 1.0, "flag": False}),
    ]:
        fake.answer = {"results": {"r": result}}
        assert client.post("/v1/ops/add", json={}).json() == {"op": "add", "result": expected}


def test_int64_as_strings(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"results": {"r": tensor([2**53 + 1], "int64")}}
    assert client.post("/v1/ops/add?int64=string", json={}).json()["result"]["values"] == ["9007199254740993"]
    fake.answer = {"results": {"r": 2**53 + 1}}
    assert client.post("/v1/ops/add?int64=string", json={}).json()["result"] == "9007199254740993"


def test_what_is_long_is_read_and_written_off_the_event_loop(
    client: httpx.Client, fake: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[Any] = []
    to_thread = asyncio.to_thread

    async def counted(work: Any) -> Any:
        threads.append(work)
        return await to_thread(work)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    values = np.arange(100_000, dtype=np.float64)
    fake.answer = {"results": {"r": [tensor(values, "float64")]}}
    assert client.post("/v1/ops/add", json={}).json()["result"][0]["values"] == values.tolist()
    assert len(threads) == 1
    fake.answer = {"results": {"r": None}}
    assert client.post("/v1/ops/add", json={"input": values.tolist()}).status_code == 200
    assert len(threads) == 2
    assert client.post("/v1/ops/add", json={"input": [1.0]}).status_code == 200
    assert len(threads) == 2


def test_conditions_of_an_operation(op: httpx.Client, fake: FakeService) -> None:
    tag = {"If-Match": '"e5"'}
    assert op.post("/v1/ops/add_", json={"input": "w"}, headers=tag).status_code == 200
    assert fake.program["expect"] == {"w": "e5"}
    assert op.post("/v1/ops/add_", json={"input": "w"}, headers={"If-Match": '"e5~abc"'}).status_code == 200
    assert fake.program["expect"] == {"w": "e5"}
    assert op.post("/v1/ops/add_", json={"input": "w"}, headers={"If-Match": "*"}).status_code == 200
    assert "expect" not in fake.program
    assert op.post("/v1/ops/add", json={"out_name": "y"}, headers={"If-None-Match": "*"}).status_code == 200
    assert fake.program["if_none_match"] is True
    for path, body, headers in [
        ("add", {"input": "w"}, tag),
        ("add_", {"input": [1]}, tag),
        ("add_", {"input": "w"}, {"If-Match": '"a", "b"'}),
        ("add", {}, {"If-None-Match": '"a"'}),
    ]:
        assert op.post(f"/v1/ops/{path}", json=body, headers=headers).status_code == 422


def test_what_is_not_there_yet_is_said_and_not_ignored(op: httpx.Client, fake: FakeService) -> None:
    assert code(op.post("/v1/programs", content=b"x", headers={"Content-Type": "application/x-npy"}))[0] == 415
    assert fake.asked == [("start",)]


def test_operations_are_listed(client: httpx.Client) -> None:
    listed = client.get("/v1/ops").json()["ops"]
    assert [entry["name"] for entry in listed] == ["add", "add_", "matmul"]
    fields = ["name", "summary", "family", "params", "returns", "differentiable", "inplace", "view", "doc", "example"]
    assert list(listed[0]) == fields
    assert listed[0]["params"][0] == {"name": "input", "type": "Tensor", "required": True, "doc": "a tensor"}
    assert client.get("/v1/ops/matmul").json() == listed[2]
    response = client.get("/v1/ops/matmull")
    assert code(response) == (404, "no-such-op")
    assert "matmul" in response.json()["hint"]


# ---------------------------------------------------------------- programs


def test_a_program_goes_through_as_it_is(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {
        "results": {"loss": tensor(0.5), "w.grad": None, "n": 3},
        "collected": {"loss": [1.5, float("inf")]},
        "kept": {"h": "t9"},
        "steps_run": 5,
    }
    program = {
        "inputs": {"x": {"data": [[1, 2]], "dtype": "float32"}, "w": "t3"},
        "steps": [
            {"op": "mm", "args": {"input": "x", "mat2": "w"}, "out": "h"},
            {"op": "topk", "args": {"input": "h", "k": 1}, "out": ["best", "where"]},
            {"repeat": 3, "steps": [{"op": "add", "args": {"input": "h", "other": 1.0}}], "collect": {"loss": 1}},
        ],
        "return": ["loss", "w.grad"],
        "keep": {"h": "hidden"},
        "strict": True,
        "no_grad": True,
    }
    response = client.post("/v1/programs?session=s&values=all&dry_run=true", json=program)
    assert fake.last == ("run", "anyone", "s", program, "all", True)
    answer = response.json()
    assert answer["results"]["loss"]["values"] == 0.5
    assert answer["results"]["w.grad"] is None
    assert answer["collected"] == {"loss": [1.5, "Infinity"]}
    assert (answer["kept"], answer["steps_run"]) == ({"h": "t9"}, 5)


def test_long_lists_in_a_program_become_arrays(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"results": {}}
    rows = [[1, 2]] * 300
    inner = {"op": "add", "args": {"input": rows, "other": {"data": rows}}}
    program = {"inputs": {"x": rows, "y": {"data": rows}}, "steps": [{"repeat": 2, "steps": [inner]}]}
    assert client.post("/v1/programs", json=program).status_code == 200
    sent = fake.program
    args = sent["steps"][0]["steps"][0]["args"]
    for data in (sent["inputs"]["x"], sent["inputs"]["y"], args["input"], args["other"]):
        assert data["data"].dtype == "int64"
        assert data["data"].inferred


def test_expected_tags_lose_their_form(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"results": {}}
    program = {"steps": [], "expect": {"w": "e5", "v": '"e6~0011"'}}
    assert client.post("/v1/programs", json=program).status_code == 200
    assert fake.program["expect"] == {"w": "e5", "v": "e6"}


@pytest.mark.parametrize("field", ["keep_all", "if_none_match", "stepz", "x"])
def test_a_program_has_no_other_fields(client: httpx.Client, fake: FakeService, field: str) -> None:
    assert code(client.post("/v1/programs", json={"steps": [], field: {}})) == (422, "unknown-parameter")
    assert fake.asked == [("start",)]


def test_the_private_form_of_an_output_is_refused(client: httpx.Client) -> None:
    response = client.post("/v1/programs", json={"steps": [{"op": "add", "out": {"whole": "r"}}]})
    assert code(response) == (422, "wrong-type")
    assert response.json()["step"] == [0]


def test_a_form_that_is_not_offered_is_refused_before_anything_is_done(op: httpx.Client, fake: FakeService) -> None:
    for path, body in [("ops/add", {}), ("programs", {"steps": []}), ("tensors", {"data": 1}), ("sessions", {})]:
        response = op.post(f"/v1/{path}", json=body, headers={"Accept": "application/x-npy"})
        assert code(response) == (406, "not-acceptable")
    assert fake.asked == [("start",)]


@pytest.mark.parametrize("steps", [None, 3, "x", [3], [None, {"op": 3, "args": 4, "steps": "x"}]])
def test_what_has_not_the_form_of_steps_is_left_to_the_engine(
    client: httpx.Client, fake: FakeService, steps: Any
) -> None:
    fake.answer = {"results": {}}
    assert client.post("/v1/programs", json={"steps": steps}).status_code == 200
    assert fake.program == {"steps": steps}


# ---------------------------------------------------------------- tensors: making


@pytest.fixture
def made(client: httpx.Client, fake: FakeService) -> httpx.Client:
    fake.answer = lambda *asked: {
        "results": {name: tensor(id="t7", name=asked[3]["keep_all"][name]) for name in asked[3]["return"]}
    }
    return client


def test_a_tensor_of_json(made: httpx.Client, fake: FakeService) -> None:
    body = {"data": [[1, 2]], "dtype": "float32", "requires_grad": True, "name": "w"}
    response = made.post("/v1/tensors", json=body)
    assert fake.program == {
        "inputs": {"data": {"data": [[1, 2]], "dtype": "float32", "requires_grad": True}},
        "steps": [],
        "return": ["data"],
        "keep_all": {"data": "w"},
    }
    assert response.status_code == 201
    assert response.headers["location"] == "/v1/tensors/t7"
    assert response.headers["etag"] == '"e1"'
    assert response.json()["id"] == "t7"


def test_a_long_list_in_a_tensor_of_json(made: httpx.Client, fake: FakeService) -> None:
    assert made.post("/v1/tensors", json={"data": [[0.5, 1]] * 300}).status_code == 201
    assert fake.program["inputs"]["data"]["data"].array.shape == (300, 2)


@pytest.mark.parametrize(
    "body, detail",
    [
        ({}, "the field 'data' is missing"),
        ({"data": 1, "shap": [1]}, "unknown field 'shap'"),
        ({"data": 1, "name": 7}, "name must be a string"),
    ],
)
def test_a_tensor_of_json_that_is_refused(made: httpx.Client, body: Any, detail: str) -> None:
    response = made.post("/v1/tensors", json=body)
    assert (response.status_code, response.json()["detail"]) == (422, detail)


def test_query_options_do_not_go_with_json(made: httpx.Client) -> None:
    assert made.post("/v1/tensors?dtype=float32", json={"data": 1}).status_code == 422


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_tensor_of_an_npy_file(made: httpx.Client, fake: FakeService) -> None:
    path = "/v1/tensors?name=x&requires_grad=true&device=cpu"
    response = made.post(path, content=npy(np.arange(3.0)), headers={"Content-Type": "application/x-npy"})
    assert response.status_code == 201
    given = fake.program["inputs"]["data"]
    assert (given["requires_grad"], given["device"]) == (True, "cpu")
    assert (given["data"].dtype, given["data"].inferred) == ("float64", False)
    assert fake.program["keep_all"] == {"data": "x"}


def test_a_tensor_of_raw_bytes(made: httpx.Client, fake: FakeService) -> None:
    raw = {"Content-Type": "application/octet-stream"}
    values = np.arange(6, dtype="<i2")
    assert made.post("/v1/tensors?dtype=int16&shape=2,3", content=values.tobytes(), headers=raw).status_code == 201
    assert fake.program["inputs"]["data"]["data"].array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert made.post("/v1/tensors?dtype=int16", content=values.tobytes(), headers=raw).status_code == 201
    assert fake.program["inputs"]["data"]["data"].array.shape == (6,)
    assert made.post("/v1/tensors?dtype=int16&shape=", content=b"\1\0", headers=raw).status_code == 201
    assert fake.program["inputs"]["data"]["data"].array.shape == ()
    for query, status in [
        ("", 422),
        ("?dtype=int17", 422),
        ("?dtype=int16&shape=2,x", 422),
        ("?dtype=int16&shape=7", 400),
    ]:
        assert made.post(f"/v1/tensors{query}", content=values.tobytes(), headers=raw).status_code == status


def test_tensors_of_a_safetensors_file(made: httpx.Client, fake: FakeService) -> None:
    body = safetensors.numpy.save({"0.weight": np.ones((2, 2), np.float32), "0.bias": np.zeros(2, np.float32)})
    response = made.post(
        "/v1/tensors?requires_grad=true", content=body, headers={"Content-Type": "application/x-safetensors"}
    )
    assert response.status_code == 201
    assert {t["name"] for t in response.json()["tensors"]} == {"0.weight", "0.bias"}
    assert set(fake.program["keep_all"].values()) == {"0.weight", "0.bias"}
    assert all(given["requires_grad"] for given in fake.program["inputs"].values())
    refused = made.post("/v1/tensors?name=x", content=body, headers={"Content-Type": "application/x-safetensors"})
    assert refused.status_code == 422


def test_a_name_that_is_taken(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = NameTaken("taken")
    response = client.post("/v1/tensors", json={"data": 1, "name": "x"}, headers={"If-None-Match": "*"})
    assert code(response) == (409, "name-taken")
    assert fake.program["if_none_match"] is True


# ---------------------------------------------------------------- tensors: reading


def test_a_tensor_is_read(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = tensor([1.0], name="w")
    response = client.get("/v1/tensors/w?index=0:10,:,-1&values=all")
    question = {"do": "read", "ref": "w", "index": "0:10,:,-1", "want_grad": True, "spelled": True}
    assert fake.last == ("query", "anyone", None, question, "all")
    assert response.json()["values"] == [1.0]
    assert response.json()["name"] == "w"


@pytest.mark.parametrize(
    "form, media_type",
    [("npy", "application/x-npy"), ("safetensors", "application/x-safetensors"), ("raw", "application/octet-stream")],
)
def test_a_tensor_in_binary_forms(client: httpx.Client, fake: FakeService, form: str, media_type: str) -> None:
    fake.answer = tensor([[1.5, 2.5]])
    by_query = client.get(f"/v1/tensors/w?as={form}")
    by_header = client.get("/v1/tensors/w", headers={"Accept": media_type})
    assert by_query.headers["content-type"] == by_header.headers["content-type"] == media_type
    assert by_query.content == by_header.content
    assert by_query.headers["etag"] == by_header.headers["etag"] != '"e1"'
    assert fake.last[4] == "all"
    if form == "npy":
        assert np.load(io.BytesIO(by_query.content)).tolist() == [[1.5, 2.5]]
    elif form == "safetensors":
        assert safetensors.numpy.load(by_query.content)["w"].tolist() == [[1.5, 2.5]]
    else:
        assert (by_query.headers["curlgrad-dtype"], by_query.headers["curlgrad-shape"]) == ("float32", "1,2")
        assert np.frombuffer(by_query.content, "<f4").tolist() == [1.5, 2.5]
    assert client.get(f"/v1/tensors/w?as={form}&values=none").status_code == 422


def test_a_form_that_cannot_hold_the_dtype_is_406(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = tensor([0], "bfloat16")
    response = client.get("/v1/tensors/w?as=npy")
    assert code(response) == (406, "dtype-not-acceptable")
    assert "safetensors" in response.json()["hint"]
    fake.answer = tensor([0], "complex128")
    assert code(client.get("/v1/tensors/w?as=safetensors")) == (406, "dtype-not-acceptable")


def test_a_tensor_as_text(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = lambda *asked: {"text": "tensor([1.])"} if asked[3]["do"] == "text" else tensor([1.0])
    response = client.get("/v1/tensors/w", headers={"Accept": "text/plain"})
    again = client.get("/v1/tensors/w?as=text", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
    assert client.get("/v1/tensors/w?as=text&index=0").status_code == 422
    client.get("/v1/tensors/w?as=text")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == "tensor([1.])\n"
    assert [asked[3]["do"] for asked in fake.asked[-2:]] == ["text", "read"]


def test_tags_are_compared(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = tensor([1.0])
    tag = client.get("/v1/tensors/w").headers["etag"]
    assert tag == '"e1"'
    unchanged = client.get("/v1/tensors/w", headers={"If-None-Match": f'"x", {tag}'})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    assert fake.last[4] == "none"
    assert client.get("/v1/tensors/w", headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get("/v1/tensors/w?as=npy", headers={"If-None-Match": tag}).status_code == 200
    assert client.get("/v1/tensors/w?values=none", headers={"If-None-Match": tag}).status_code == 200
    assert client.get("/v1/tensors/w?index=0", headers={"If-None-Match": tag}).status_code == 200
    other = client.get("/v1/tensors/w?as=npy").headers["etag"]
    assert client.get("/v1/tensors/w?as=npy", headers={"If-None-Match": f"W/{other}"}).status_code == 304
    assert client.get("/v1/tensors/w", headers={"If-Match": other}).status_code == 200
    assert code(client.get("/v1/tensors/w", headers={"If-Match": '"x"'})) == (412, "precondition-failed")


def test_a_gradient_is_read(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = tensor([1.0], id=None, etag=None)
    response = client.get("/v1/tensors/w/grad")
    assert fake.last[3] == {"do": "grad", "ref": "w"}
    assert response.json()["values"] == [1.0]
    assert "etag" not in response.headers
    assert client.get("/v1/tensors/w/grad?as=npy").headers["content-type"] == "application/x-npy"


def test_describe_and_graph(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"text": "Type: torch.FloatTensor"}
    assert client.get("/v1/tensors/w/describe").text == "Type: torch.FloatTensor\n"
    fake.answer = {"nodes": [{"id": 1, "name": "MulBackward0", "op": "mul"}], "edges": [], "root": 1, "saved_bytes": 0}
    assert client.get("/v1/tensors/w/graph").json()["root"] == 1
    dot = client.get("/v1/tensors/w/graph", headers={"Accept": "text/vnd.graphviz"})
    assert dot.headers["content-type"] == "text/vnd.graphviz; charset=utf-8"
    assert dot.text.startswith("digraph")


def test_tensors_are_listed(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"tensors": [], "cursor": None}
    assert client.get("/v1/tensors?limit=5&cursor=t9").json() == {"tensors": [], "cursor": None}
    assert fake.last[3:] == ({"do": "list", "limit": 5, "cursor": "t9"}, "none")
    assert client.get("/v1/tensors?limit=-1").status_code == 422
    assert client.get("/v1/tensors?names=a").status_code == 422


def test_several_tensors_as_one_file(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"a": tensor([1.0]), "b": tensor([2.0, 3.0])}
    response = client.get("/v1/tensors?names=a,b", headers={"Accept": "application/x-safetensors"})
    assert fake.last[3:] == ({"do": "export", "names": ["a", "b"]}, "all")
    assert {n: v.tolist() for n, v in safetensors.numpy.load(response.content).items()} == {"a": [1.0], "b": [2.0, 3.0]}
    client.get("/v1/tensors?as=safetensors")
    assert fake.last[3] == {"do": "export", "names": None}


# ---------------------------------------------------------------- tensors: changing


@pytest.mark.parametrize(
    "body, steps",
    [
        ({"requires_grad": True}, [("requires_grad_", {"input": "r", "requires_grad": True})]),
        ({"grad": None}, [("_clear_grad", {"input": "r"})]),
        ({"name": None}, [("_rename", {"input": "r", "name": None})]),
        (
            {"name": "v", "grad": None, "requires_grad": False},
            [
                ("requires_grad_", {"input": "r", "requires_grad": False}),
                ("_clear_grad", {"input": "r"}),
            ],
        ),
        ({"name": "v"}, []),
    ],
)
def test_a_tensor_is_changed(client: httpx.Client, fake: FakeService, body: Any, steps: Any) -> None:
    fake.answer = {"results": {"r": tensor(etag="e2")}}
    response = client.patch("/v1/tensors/w", json=body, headers={"If-Match": '"e1"'})
    assert response.headers["etag"] == '"e2"'
    assert fake.program == {
        "inputs": {"r": "w"},
        "steps": [{"op": name, "args": args} for name, args in steps],
        "return": ["r"],
        "expect": {"w": "e1"},
        **({"keep_all": {"r": body["name"]}} if body.get("name") else {}),
    }


@pytest.mark.parametrize("body", [{}, {"grad": 1}, {"name": 3}, {"values": [1]}])
def test_a_change_that_is_refused(client: httpx.Client, fake: FakeService, body: Any) -> None:
    assert client.patch("/v1/tensors/w", json=body).status_code == 422
    assert fake.asked == [("start",)]


def test_tensors_are_released(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"results": {}}
    response = client.delete("/v1/tensors/w", headers={"If-Match": '"e1"'})
    assert (response.status_code, response.content) == (204, b"")
    assert fake.program["steps"] == [{"op": "_release", "args": {"input": "w"}}]
    assert fake.program["expect"] == {"w": "e1"}
    response = client.delete("/v1/tensors")
    assert code(response) == (422, "missing-parameter")
    assert "unnamed=true" in response.json()["hint"]
    assert client.delete("/v1/tensors?unnamed=true").status_code == 204


def test_backward(client: httpx.Client, fake: FakeService) -> None:
    nodes = [{"id": "n1", "name": "SumBackward0"}, {"id": "a", "tensor": "w"}, {"id": "b", "tensor": None}]

    def answer(*asked: Any) -> Any:
        return {"nodes": nodes} if asked[0] == "query" else {"results": {"w.grad": tensor([2.0]), "b.grad": None}}

    fake.answer = answer
    response = client.post("/v1/tensors/loss/backward", json={"retain_graph": True})
    assert fake.program == {
        "steps": [{"op": "backward", "args": {"input": "loss", "retain_graph": True}}],
        "return": ["w.grad"],
    }
    assert response.json()["grads"]["w"]["values"] == [2.0]
    assert client.post("/v1/tensors/loss/backward").status_code == 200
    confined = client.post("/v1/tensors/loss/backward", json={"inputs": ["w", "b"]})
    assert fake.program["return"] == ["w.grad", "b.grad"]
    assert list(confined.json()["grads"]) == ["w"]
    assert code(client.post("/v1/tensors/loss/backward", json={"input": "x"})) == (422, "unknown-parameter")


# ---------------------------------------------------------------- sessions and system


def test_sessions(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"id": "s-1", "name": "x"}
    response = client.post("/v1/sessions", json={"name": "x", "seed": 7})
    assert (response.status_code, response.headers["location"]) == (201, "/v1/sessions/s-1")
    assert fake.last == ("create_session", "anyone", {"name": "x", "seed": 7})
    assert client.get("/v1/sessions/default").json() == fake.answer
    assert client.patch("/v1/sessions/x", json={"name": "y"}).status_code == 200
    assert fake.last == ("patch_session", "anyone", "x", {"name": "y"})
    assert client.delete("/v1/sessions/x").status_code == 204
    fake.answer = {"sessions": [], "cursor": None}
    assert client.get("/v1/sessions?limit=2").json() == fake.answer
    assert fake.last == ("list_sessions", "anyone", 2, None)
    assert code(client.post("/v1/sessions", json={"seeed": 1})) == (422, "unknown-parameter")
    assert code(client.get("/v1/sessions?values=none")) == (422, "unknown-parameter")


def test_system(client: httpx.Client, fake: FakeService) -> None:
    assert client.get("/v1/info").json()["version"] == "0"
    assert client.get("/v1/devices").json() == {"devices": [{"name": "cpu"}]}
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    fake.is_ready = False
    response = client.get("/readyz")
    assert code(response) == (503, "not-applied")
    assert response.headers["retry-after"] == "1"
    assert client.get("/healthz").status_code == 200


def test_the_root_leads_to_the_documentation(client: httpx.Client) -> None:
    response = client.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/docs")


def test_json_routes_answer_in_json_alone(client: httpx.Client) -> None:
    assert code(client.get("/v1/info", headers={"Accept": "text/csv"})) == (406, "not-acceptable")
    assert client.get("/v1/info", headers={"Accept": "text/html,*/*;q=0.1"}).status_code == 200


def test_the_service_is_started_and_closed_with_the_application(make_client: Any, fake: FakeService) -> None:
    make_client()
    assert fake.asked == [("start",)]


def test_answers_are_utf8(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"results": {"r": "값"}}
    assert json.loads(client.post("/v1/ops/add", json={}).content) == {"op": "add", "result": "값"}
