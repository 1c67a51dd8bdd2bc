"""The whole of it over HTTP: the real engine, its worker in this process. One test for each promise of the contract."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy

V1 = "/v1"


def ok(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def refused(response: httpx.Response, status: int, code: str) -> Any:
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    return body


def op(http: httpx.Client, name: str, /, **body: Any) -> Any:
    return ok(http.post(f"{V1}/ops/{name}", json=body))["result"]


def make(http: httpx.Client, data: Any, **options: Any) -> Any:
    return ok(http.post(f"{V1}/tensors", json={"data": data, **options}), 201)


# ---------------------------------------------------------------- the main job


def test_a_gradient_by_hand(http: httpx.Client) -> None:
    make(http, [[1.0, 2.0], [3.0, 4.0]], requires_grad=True, name="x")
    y = op(http, "mul", input="x", other="x")
    assert (y["requires_grad"], y["is_leaf"], y["grad_fn"]) == (True, False, "MulBackward0")
    loss = op(http, "sum", input=y["id"], out_name="loss")
    assert loss["values"] == 30.0
    grads = ok(http.post(f"{V1}/tensors/loss/backward"))["grads"]
    assert grads["x"]["values"] == [[2.0, 4.0], [6.0, 8.0]]
    assert ok(http.get(f"{V1}/tensors/x/grad"))["values"] == [[2.0, 4.0], [6.0, 8.0]]
    assert ok(http.get(f"{V1}/tensors/x"))["grad"]["values"] == [[2.0, 4.0], [6.0, 8.0]]
    assert ok(http.get(f"{V1}/tensors/x.grad"))["values"] == [[2.0, 4.0], [6.0, 8.0]]
    again = http.post(f"{V1}/tensors/loss/backward")
    refused(again, 409, "tape-freed")
    assert "retain_graph" in again.json()["hint"]


def test_training_in_one_program(http: httpx.Client) -> None:
    program = {
        "inputs": {
            "x": {"data": [[1.0], [2.0], [3.0]]},
            "y": {"data": [[2.0], [4.0], [6.0]]},
            "w": {"data": [[0.5]], "requires_grad": True},
        },
        "steps": [
            {
                "repeat": 50,
                "steps": [
                    {"op": "mm", "args": {"input": "x", "mat2": "w"}, "out": "p"},
                    {"op": "sub", "args": {"input": "p", "other": "y"}, "out": "d"},
                    {"op": "mul", "args": {"input": "d", "other": "d"}, "out": "d"},
                    {"op": "sum", "args": {"input": "d"}, "out": "loss"},
                    {"op": "autograd.grad", "args": {"outputs": ["loss"], "inputs": ["w"]}, "out": ["g"]},
                    {"op": "sub_", "args": {"input": "w", "other": "g", "alpha": 0.02}, "no_grad": True},
                ],
                "collect": {"loss": 10},
            }
        ],
        "return": ["w", "loss"],
        "keep": {"w": "weight"},
    }
    answer = ok(http.post(f"{V1}/programs", json=program))
    assert answer["results"]["w"]["values"][0][0] == pytest.approx(2.0, abs=1e-4)
    assert len(answer["collected"]["loss"]) == 5
    assert answer["steps_run"] == 300
    assert ok(http.get(f"{V1}/tensors/weight"))["id"] == answer["kept"]["w"]


# ---------------------------------------------------------------- tensors


def test_a_tensor_has_the_contracts_object(http: httpx.Client) -> None:
    response = http.post(f"{V1}/tensors", json={"data": [[1, 2, 3], [4, 5, 6]], "dtype": "float32"})
    tensor = ok(response, 201)
    etag = tensor.pop("etag")
    assert tensor == {
        "id": "t1",
        "name": None,
        "shape": [2, 3],
        "dtype": "float32",
        "device": "cpu",
        "numel": 6,
        "nbytes": 24,
        "requires_grad": False,
        "is_leaf": True,
        "grad_fn": None,
        "version": 0,
        "values": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
        "grad": None,
    }
    assert response.headers["location"] == "/v1/tensors/t1"
    assert response.headers["etag"] == f'"{etag}"'
    assert ok(http.get(response.headers["location"])) == {**tensor, "etag": etag}


@pytest.mark.parametrize(
    "data, dtype, values",
    [
        (3, "int64", 3),
        (3.0, "float32", 3.0),
        ([True, False], "bool", [True, False]),
        ([1, 2.5], "float32", [1.0, 2.5]),
        ([], "float32", []),
        (["NaN", "-Infinity", 1], "float32", ["NaN", "-Infinity", 1.0]),
        ([[]], "float32", [[]]),
    ],
)
def test_dtypes_are_inferred_as_torch_does(http: httpx.Client, data: Any, dtype: str, values: Any) -> None:
    tensor = make(http, data)
    assert (tensor["dtype"], tensor["values"]) == (dtype, values)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_long_lists_are_what_short_ones_are(http: httpx.Client, dtype: str) -> None:
    numbers: list[Any] = [0.1, 1, "NaN", -2.5] * 100
    short = make(http, numbers[:4], dtype=dtype)["values"]
    assert make(http, numbers, dtype=dtype)["values"] == short * 100
    assert make(http, [[n] for n in numbers])["dtype"] == "float32"
    assert make(http, list(range(400)))["dtype"] == "int64"
    assert make(http, [True] * 400)["dtype"] == "bool"


def test_a_complex_tensor_is_pairs(http: httpx.Client) -> None:
    tensor = make(http, [[1, 2], [3, -4.5]], dtype="complex64")
    assert (tensor["shape"], tensor["values"]) == ([2], [[1.0, 2.0], [3.0, -4.5]])
    long = make(http, [[1, 2]] * 300, dtype="complex128")
    assert (long["shape"], long["values"][299]) == ([300], [1.0, 2.0])


def test_a_shape_beside_the_data(http: httpx.Client) -> None:
    assert make(http, [1, 2, 3, 4], shape=[2, 2])["values"] == [[1, 2], [3, 4]]
    assert make(http, [], shape=[0, 3])["shape"] == [0, 3]


def test_integers_beyond_53_bits(http: httpx.Client) -> None:
    exact = 2**53 + 1
    assert make(http, [exact])["values"] == [exact]
    text = ok(http.post(f"{V1}/tensors?int64=string", json={"data": [str(exact)], "dtype": "int64"}), 201)
    assert text["values"] == [str(exact)]


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1] * 300, [1] * 299]])
def test_ragged_lists_are_refused_with_the_path(http: httpx.Client, data: Any) -> None:
    body = refused(http.post(f"{V1}/tensors", json={"data": data}), 422, "ragged-list")
    assert body["detail"] == f"expected sequence of length {len(data[0])} at dim 1 (got {len(data[1])})"
    assert "[1]" in body["hint"]


def upload(http: httpx.Client, body: bytes, kind: str, query: str = "") -> Any:
    return ok(http.post(f"{V1}/tensors{query}", content=body, headers={"Content-Type": kind}), 201)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int64", "float16", "float32", "float64", "complex64", "complex128"]
)
def test_npy_in_and_out(http: httpx.Client, dtype: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    file = io.BytesIO()
    np.save(file, np.asfortranarray(values))
    tensor = upload(http, file.getvalue(), "application/x-npy", "?name=a")
    assert (tensor["dtype"], tensor["shape"], tensor["name"]) == (dtype, [2, 3], "a")
    back = np.load(io.BytesIO(http.get(f"{V1}/tensors/a?as=npy").content))
    assert back.dtype == values.dtype
    assert np.array_equal(back, values)


def test_a_state_dict_in_and_out(http: httpx.Client) -> None:
    state = {"0.weight": np.ones((2, 2), np.float32), "0.bias": np.zeros(2, np.float32)}
    answer = upload(http, safetensors.numpy.save(state), "application/x-safetensors", "?requires_grad=true")
    assert {t["name"] for t in answer["tensors"]} == set(state)
    assert all(t["requires_grad"] for t in answer["tensors"])
    file = http.get(f"{V1}/tensors?names=0.weight,0.bias", headers={"Accept": "application/x-safetensors"}).content
    assert {n: v.tolist() for n, v in safetensors.numpy.load(file).items()} == {n: v.tolist() for n, v in state.items()}


def test_raw_bytes_in_and_out(http: httpx.Client) -> None:
    body = np.array([1.5, -2.0], "<f4").tobytes()
    tensor = upload(http, body, "application/octet-stream", "?dtype=float32&shape=2,1&name=r")
    assert tensor["values"] == [[1.5], [-2.0]]
    response = http.get(f"{V1}/tensors/r?as=raw")
    assert (response.content, response.headers["curlgrad-shape"]) == (body, "2,1")


def test_part_of_a_tensor(http: httpx.Client) -> None:
    make(http, [[1, 2, 3], [4, 5, 6]], name="m")
    assert ok(http.get(f"{V1}/tensors/m", params={"index": "0:1,:,"[:-1]}))["values"] == [[1, 2, 3]]
    assert ok(http.get(f"{V1}/tensors/m", params={"index": ":,-1"}))["values"] == [3, 6]
    assert http.get(f"{V1}/tensors/m", params={"index": "5"}).status_code == 422
    assert http.get(f"{V1}/tensors/m", params={"index": "x"}).status_code == 422


def test_values_are_shown_up_to_a_thousand(http: httpx.Client) -> None:
    make(http, [0.5] * 1001, name="long")
    assert ok(http.get(f"{V1}/tensors/long"))["values"] is None
    assert ok(http.get(f"{V1}/tensors/long?values=all"))["values"] == [0.5] * 1001
    assert ok(http.get(f"{V1}/tensors/long?index=0:2&values=none"))["values"] is None


def test_text_as_torch_prints_it(http: httpx.Client) -> None:
    make(http, [1.0, 2.0], name="x", requires_grad=True)
    assert http.get(f"{V1}/tensors/x?as=text").text == "tensor([1., 2.], requires_grad=True)\n"
    make(http, 21.0, name="s")
    described = http.get(f"{V1}/tensors/s/describe").text
    assert described == "Type: torch.FloatTensor\nShape/size: torch.Size([])\nValues: \n21.0\n"


def test_the_tape_is_shown(http: httpx.Client) -> None:
    make(http, [1.0, 2.0], name="x", requires_grad=True)
    op(http, "sum", input="x", out_name="s")
    graph = ok(http.get(f"{V1}/tensors/s/graph"))
    assert [node["name"] for node in graph["nodes"]] == ["SumBackward0", "AccumulateGrad"]
    assert graph["edges"] == [{"from": graph["root"], "to": graph["nodes"][1]["id"], "output": 0}]
    assert "SumBackward0" in http.get(f"{V1}/tensors/s/graph?as=dot").text


def test_names_move_and_can_be_kept_from_moving(http: httpx.Client) -> None:
    first = make(http, 1, name="x")["id"]
    second = make(http, 2, name="x")["id"]
    assert ok(http.get(f"{V1}/tensors/x"))["id"] == second
    refused(http.get(f"{V1}/tensors/{first}"), 404, "no-such-tensor")
    response = http.post(f"{V1}/tensors", json={"data": 3, "name": "x"}, headers={"If-None-Match": "*"})
    refused(response, 409, "name-taken")
    assert ok(http.get(f"{V1}/tensors/x"))["id"] == second


@pytest.mark.parametrize("name", ["t1", "7", "1.5", "true", "NaN", "a b", "x.grad", "", "-x", "é", "x" * 256])
def test_names_that_cannot_be(http: httpx.Client, name: str) -> None:
    refused(http.post(f"{V1}/tensors", json={"data": 1, "name": name}), 422, "bad-name")
    assert ok(http.get(f"{V1}/tensors"))["tensors"] == []


def test_a_tensor_is_changed(http: httpx.Client) -> None:
    make(http, [1.0], name="x")
    assert ok(http.patch(f"{V1}/tensors/x", json={"requires_grad": True, "name": "y"}))["requires_grad"]
    op(http, "sum", input="y", out_name="s")
    ok(http.post(f"{V1}/tensors/s/backward"))
    assert ok(http.patch(f"{V1}/tensors/y", json={"grad": None}))["grad"] is None
    refused(http.get(f"{V1}/tensors/y/grad"), 404, "no-grad")
    assert ok(http.patch(f"{V1}/tensors/y", json={"name": None}))["name"] is None
    refused(http.get(f"{V1}/tensors/y"), 404, "no-such-tensor")
    make(http, [1], name="n")
    problem = refused(http.patch(f"{V1}/tensors/n", json={"requires_grad": True}), 422, "integer-requires-grad")
    assert "dtype" in problem["hint"]


def test_tensors_are_released(http: httpx.Client) -> None:
    first = make(http, 1, name="a")["id"]
    make(http, 2)
    for _ in range(2):
        assert http.delete(f"{V1}/tensors/{first}").status_code == 204
    refused(http.delete(f"{V1}/tensors/a"), 404, "no-such-tensor")
    refused(http.delete(f"{V1}/tensors/t99"), 404, "no-such-tensor")
    make(http, 3, name="b")
    assert http.delete(f"{V1}/tensors?unnamed=true").status_code == 204
    assert [t["name"] for t in ok(http.get(f"{V1}/tensors"))["tensors"]] == ["b"]


def test_tensors_are_listed_in_pages(http: httpx.Client) -> None:
    for i in range(5):
        make(http, i)
    page = ok(http.get(f"{V1}/tensors?limit=2"))
    seen = [t["id"] for t in page["tensors"]]
    while page["cursor"]:
        page = ok(http.get(f"{V1}/tensors", params={"limit": 2, "cursor": page["cursor"]}))
        seen += [t["id"] for t in page["tensors"]]
    assert seen == ["t1", "t2", "t3", "t4", "t5"]
    assert http.get(f"{V1}/tensors?cursor=nonsense").status_code == 422
    assert http.get(f"{V1}/tensors?limit=0").status_code == 422


def test_tags_hold_and_break(http: httpx.Client) -> None:
    tag = {"If-Match": f'"{make(http, [1.0], name="x")["etag"]}"'}
    changed = ok(http.post(f"{V1}/ops/add_", json={"input": "x", "other": 1}, headers=tag))["result"]
    assert (changed["values"], changed["version"]) == ([2.0], 1)
    refused(http.post(f"{V1}/ops/add_", json={"input": "x", "other": 1}, headers=tag), 412, "precondition-failed")
    refused(http.delete(f"{V1}/tensors/x", headers=tag), 412, "precondition-failed")
    refused(http.patch(f"{V1}/tensors/x", json={"name": "y"}, headers=tag), 412, "precondition-failed")
    assert ok(http.get(f"{V1}/tensors/x"))["values"] == [2.0]
    now = http.get(f"{V1}/tensors/x").headers["etag"]
    assert http.get(f"{V1}/tensors/x", headers={"If-None-Match": now}).status_code == 304
    assert http.get(f"{V1}/tensors/x?as=npy", headers={"If-None-Match": now}).status_code == 200


# ---------------------------------------------------------------- operations and programs


def test_operations_as_curl_sends_them(http: httpx.Client) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = ok(http.post(f"{V1}/ops/ones", content=b"size=[2,3]&out_name=x", headers=form))
    assert (answer["op"], answer["result"]["name"], answer["result"]["shape"]) == ("ones", "x", [2, 3])
    assert ok(http.post(f"{V1}/ops/add", content=b'{"input": "x", "other": 1}', headers=form))["result"]["numel"] == 6


@pytest.mark.parametrize(
    "other, dtype",
    [(1, "int64"), (1.0, "float32"), ({"float": 1}, "float32"), ({"re": 1.0, "im": 0}, "complex64"), (True, "int64")],
)
def test_numbers_decide_dtypes_as_in_torch(http: httpx.Client, other: Any, dtype: str) -> None:
    assert op(http, "add", input=[1, 2], other=other)["dtype"] == dtype


def test_results_need_not_be_kept(http: httpx.Client) -> None:
    assert op(http, "add", input=[1], other=1, keep=False)["id"] is None
    assert ok(http.get(f"{V1}/tensors"))["tensors"] == []


def test_no_grad_records_no_tape(http: httpx.Client) -> None:
    make(http, [1.0], name="x", requires_grad=True)
    assert op(http, "mul", input="x", other=2, no_grad=True)["requires_grad"] is False
    assert op(http, "mul", input="x", other=2)["requires_grad"] is True


def test_a_dry_run_runs_nothing(http: httpx.Client) -> None:
    answer = ok(http.post(f"{V1}/ops/ones?dry_run=true", json={"size": [1000, 1000]}))
    assert (answer["result"]["shape"], answer["result"]["id"], answer["result"]["values"]) == ([1000, 1000], None, None)
    assert answer["peak_bytes"] >= 4_000_000
    assert ok(http.get(f"{V1}/tensors"))["tensors"] == []


def test_a_program_happens_entirely_or_not_at_all(http: httpx.Client) -> None:
    make(http, [1.0], name="x")
    steps = [
        {"op": "add_", "args": {"input": "x", "other": 1}},
        {"repeat": 3, "steps": [{"op": "add", "args": {"input": "x", "other": "nothing"}}]},
    ]
    problem = refused(http.post(f"{V1}/programs", json={"steps": steps, "keep": {"x": "y"}}), 404, "no-such-tensor")
    assert (problem["step"], problem["round"]) == ([1, 0], [1])
    tensor = ok(http.get(f"{V1}/tensors/x"))
    assert (tensor["values"], tensor["version"]) == ([1.0], 0)


def test_a_program_may_expect_tags(http: httpx.Client) -> None:
    etag = make(http, [1.0], name="x")["etag"]
    program = {"steps": [{"op": "add_", "args": {"input": "x", "other": 1}}], "expect": {"x": etag}}
    assert ok(http.post(f"{V1}/programs", json=program))["steps_run"] == 1
    refused(http.post(f"{V1}/programs", json=program), 412, "precondition-failed")


# ---------------------------------------------------------------- errors that teach


@pytest.mark.parametrize(
    "name, body, status, code, words",
    [
        (
            "mm",
            {"input": [[1, 2]], "mat2": [[0.5], [1.0]]},
            422,
            "dtype-mismatch",
            'POST /v1/ops/to {"input": [[1, 2]], "dtype": "float32"}',
        ),
        ("mm", {"input": [[1.0, 2.0]], "mat2": [[1.0]]}, 422, "shape-mismatch", "[1, 2]"),
        ("add", {"input": [1.0, 2.0], "other": [1.0, 2.0, 3.0]}, 422, "shape-mismatch", "[2] and [3]"),
        ("sum", {"input": [1.0], "dim": 3}, 422, "dim-out-of-range", "-1 to 0"),
        ("ad", {}, 404, "no-such-op", "add"),
        ("__getitem__", {"input": [1], "index": [0]}, 404, "no-such-op", "getitem"),
        ("add", {"input": 1, "othr": 2}, 422, "unknown-parameter", "other"),
        ("add", {"input": 1}, 422, "missing-parameter", ""),
        ("add", {"input": "x", "other": 1}, 404, "no-such-tensor", ""),
        ("ones", {"size": "big"}, 422, "wrong-type", ""),
        ("ones", {"size": [2], "dtype": "float"}, 200, "", ""),
        ("ones", {"size": [2], "dtype": "flot32"}, 422, "unknown-dtype", ""),
        ("ones", {"size": [2], "device": "cuda"}, 422, "no-such-device", "cpu"),
        ("ones", {"size": [2**40]}, 507, "out-of-memory", "DELETE /v1/tensors"),
        ("ones", {"size": [2**62, 2**62]}, 422, "", ""),
        ("add", {"input": {"data": [1], "dtyp": "int8"}, "other": 1}, 422, "unknown-field", "dtype"),
        ("add", {"input": [[1], [2, 3]], "other": 1}, 422, "ragged-list", "[1]"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    http: httpx.Client, name: str, body: Any, status: int, code: str, words: str
) -> None:
    response = http.post(f"{V1}/ops/{name}", json=body)
    assert response.status_code == status, response.text
    if status != 200:
        problem = response.json()
        assert code in ("", problem["code"]), problem
        assert words in problem.get("hint", ""), problem
        assert "step" not in problem
        assert ok(http.get(f"{V1}/tensors"))["tensors"] == []


# ---------------------------------------------------------------- sessions


def test_sessions_are_apart(real: httpx.Client) -> None:
    one = ok(real.post(f"{V1}/sessions", json={"name": "one", "seed": 3}), 201)
    two = ok(real.post(f"{V1}/sessions", json={}), 201)
    assert one["seed"] == 3
    ok(real.post(f"{V1}/tensors?session=one", json={"data": 1, "name": "x"}), 201)
    assert ok(real.get(f"{V1}/tensors/x?session={one['id']}"))["values"] == 1
    refused(real.get(f"{V1}/tensors/x?session={two['id']}"), 404, "no-such-tensor")
    info = ok(real.get(f"{V1}/sessions/one"))
    assert (info["tensors"], info["bytes"]["tensors"]) == (1, 8)
    assert {one["id"], two["id"]} <= {s["id"] for s in ok(real.get(f"{V1}/sessions"))["sessions"]}
    refused(real.post(f"{V1}/sessions", json={"name": "one"}), 409, "name-taken")
    assert ok(real.patch(f"{V1}/sessions/one", json={"name": "uno", "default_dtype": "float64"}))["name"] == "uno"
    assert ok(real.post(f"{V1}/tensors?session=uno", json={"data": 1.5}), 201)["dtype"] == "float64"
    for ref in (one["id"], two["id"]):
        for _ in range(2):
            assert real.delete(f"{V1}/sessions/{ref}").status_code == 204
    refused(real.get(f"{V1}/tensors?session={one['id']}"), 404, "no-such-session")
    refused(real.get(f"{V1}/sessions/nothing"), 404, "no-such-session")


def test_the_default_session_is_made_on_first_use(real: httpx.Client) -> None:
    assert real.delete(f"{V1}/sessions/default").status_code == 204
    assert make(real, 1)["id"] == "t1"
    assert ok(real.get(f"{V1}/sessions/default"))["tensors"] == 1
    assert real.delete(f"{V1}/sessions/default").status_code == 204
    assert make(real, 1)["id"] == "t1"
    assert real.delete(f"{V1}/sessions/default").status_code == 204


# ---------------------------------------------------------------- what is derived from the registry


NEED_CUDA = {"cuda", *(f"cuda.{n}" for n in ("current_device", "get_device_name", "mem_get_info", "synchronize"))}


def test_every_example_works_as_it_is_shown(http: httpx.Client) -> None:
    listed = ok(http.get(f"{V1}/ops"))["ops"]
    assert len(listed) > 50
    failed = []
    for entry in listed:
        sent = json.loads(json.dumps(json.loads(json.dumps(entry["example"]), parse_float=_as_a_browser)))
        response = http.post(f"{V1}/ops/{entry['name']}", json=sent)
        if entry["name"] in NEED_CUDA:  # without such a device the example shows what this server has
            assert response.json()["code"] == "no-such-device"
        elif response.status_code != 200:
            failed.append((entry["name"], sent, response.json()["detail"]))
        one = ok(http.get(f"{V1}/ops/{entry['name']}"))
        assert one == entry
    assert failed == []


def _as_a_browser(digits: str) -> int | float:
    """A number as JSON.parse and JSON.stringify hand it on: 1.0 becomes 1."""
    value = float(digits)
    return int(value) if value.is_integer() else value


@pytest.mark.parametrize("body", [b"\x80\x04N.", b"\x93NUMPY", b"{", b"[" * 10_000, b"\0" * 100, b"null"])
@pytest.mark.parametrize("kind", ["application/json", "application/x-npy", "application/x-safetensors"])
@pytest.mark.parametrize("path", ["tensors", "programs", "ops/add"])
def test_bytes_that_are_nothing_change_nothing(http: httpx.Client, body: bytes, kind: str, path: str) -> None:
    response = http.post(f"{V1}/{path}", content=body, headers={"Content-Type": kind})
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    assert ok(http.get(f"{V1}/tensors"))["tensors"] == []


def test_scalars_come_back_as_json(http: httpx.Client) -> None:
    make(http, "Infinity", name="i")
    assert ok(http.get(f"{V1}/tensors/i"))["values"] == "Infinity"


# ---------------------------------------------------------------- programs as one file


SAFETENSORS = "application/x-safetensors"


def program_file(tensors: dict[str, np.ndarray[Any, Any]], program: Any) -> bytes:
    return safetensors.numpy.save(tensors, {"program": json.dumps(program), "format": "np"})


def entries(body: bytes) -> Any:
    """The metadata of a file."""
    return json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["__metadata__"]


def test_a_program_in_one_safetensors_file(http: httpx.Client) -> None:
    make(http, [[2.0], [3.0]], name="w")
    steps = [{"op": "mm", "args": {"input": "x", "mat2": "w"}, "out": "y"}]
    x = np.array([[1.0, 10.0]], np.float32)
    sent = program_file({"x": x}, {"inputs": {"w": "w"}, "steps": steps, "return": ["y"]})
    as_json = ok(http.post(f"{V1}/programs", content=sent, headers={"content-type": SAFETENSORS}))
    assert as_json["results"]["y"]["values"] == [[32.0]]
    response = http.post(f"{V1}/programs", content=sent, headers={"content-type": SAFETENSORS, "accept": SAFETENSORS})
    assert response.headers["content-type"] == SAFETENSORS
    assert safetensors.numpy.load(response.content)["y"].tolist() == [[32.0]]
    told = json.loads(entries(response.content)["program"])
    assert told["steps_run"] == 1
    assert (told["results"]["y"]["key"], told["results"]["y"]["values"]) == ("y", None)


def test_a_file_of_results_holds_whatever_a_program_gives(http: httpx.Client) -> None:
    """Several tensors, a gradient, a number, and values that JSON has to round."""
    program = {
        "inputs": {"x": {"data": [3.0, 1.0, 2.0], "requires_grad": True}},
        "steps": [
            {"op": "sort", "args": {"input": "x"}, "out": ["v", "i"]},
            {"op": "sum", "args": {"input": "v"}, "out": "loss"},
            {"op": "backward", "args": {"input": "loss"}},
            {"op": "chunk", "args": {"input": "x", "chunks": 3}, "out": "parts"},
            {"op": "item", "args": {"input": "loss"}, "out": "n"},
            {"op": "complex", "args": {"real": "big", "imag": "big"}, "out": "z"},
        ],
        "return": ["v", "i", "x.grad", "x", "parts", "n", "z"],
    }
    program["inputs"]["big"] = {"data": [1.0], "dtype": "float64"}  # type: ignore[index]
    response = http.post(f"{V1}/programs?as=safetensors", json=program)
    assert response.status_code == 200, response.text
    tensors = safetensors.numpy.load(response.content)
    told = json.loads(entries(response.content)["program"])["results"]
    assert {key: found.tolist() for key, found in tensors.items()} == {
        "v": [1.0, 2.0, 3.0],
        "i": [1, 2, 0],
        "x": [3.0, 1.0, 2.0],
        "x.grad": [1.0, 1.0, 1.0],
        **{f"parts.{i}": [x] for i, x in enumerate([3.0, 1.0, 2.0])},
    }
    assert [part["key"] for part in told["parts"]] == ["parts.0", "parts.1", "parts.2"]
    assert told["n"] == 6.0
    assert (told["z"]["dtype"], told["z"]["values"]) == ("complex128", [[1.0, 1.0]])  # the format has no complex128


def test_files_that_are_no_program(http: httpx.Client) -> None:
    x = np.ones(2, np.float32)

    def post(body: bytes) -> httpx.Response:
        return http.post(f"{V1}/programs", content=body, headers={"content-type": SAFETENSORS})

    assert "metadata" in refused(post(safetensors.numpy.save({"x": x})), 400, "no-program")["hint"]
    refused(post(program_file({"x": x}, [1])), 400, "not-an-object")
    refused(post(safetensors.numpy.save({"x": x}, {"program": "{"})), 400, "not-json")
    twice = {"inputs": {"x": 1}, "steps": []}
    assert refused(post(program_file({"x": x}, twice)), 422, "input-twice")["param"] == "inputs"
    refused(post(program_file({"x": x}, {"steps": [], "nonsense": 1})), 422, "unknown-parameter")
    refused(http.post(f"{V1}/programs?as=npy", json={"steps": []}), 406, "not-acceptable")
    refused(http.post(f"{V1}/programs?as=safetensors&values=none", json={"steps": []}), 422, "invalid")


# ---------------------------------------------------------------- answers in a coding


def test_a_long_answer_comes_in_the_coding_that_is_asked_for(http: httpx.Client) -> None:
    op(http, "arange", end=3000, out_name="x")
    path = f"{V1}/tensors/x?values=all"
    plain = http.get(path, headers={"accept-encoding": "identity"})
    coded = http.get(path, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert coded.headers["content-encoding"] == "gzip"
    assert int(coded.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert coded.json() == plain.json()
    assert coded.headers["etag"] != plain.headers["etag"]
    assert "Accept-Encoding" in coded.headers["vary"]
    for tag in (plain.headers["etag"], coded.headers["etag"]):
        assert http.get(path, headers={"if-none-match": tag, "accept-encoding": "gzip"}).status_code == 304
        changed = {"requires_grad": False}
        assert http.patch(f"{V1}/tensors/x", json=changed, headers={"if-match": tag}).status_code == 200
    assert "content-encoding" not in http.get(f"{V1}/tensors/x?as=npy", headers={"accept-encoding": "gzip"}).headers
    assert (
        "content-encoding" not in http.get(f"{V1}/tensors/x?values=none", headers={"accept-encoding": "gzip"}).headers
    )


@pytest.mark.parametrize("kind", ["npy", "raw", "safetensors"])
def test_a_long_body_is_received_in_place(http: httpx.Client, kind: str) -> None:
    """Through the memory that workers are passed: lengths are held, digests of idempotency keys are of these bytes."""
    values = np.random.default_rng(0).random(400_000, np.float32)
    buffer = io.BytesIO()
    np.save(buffer, values)
    path, body = {
        "npy": ("name=x", buffer.getvalue()),
        "raw": ("name=x&dtype=float32", values.tobytes()),
        "safetensors": ("", safetensors.numpy.save({"x": values})),
    }[kind]
    types = {"npy": "application/x-npy", "raw": "application/octet-stream", "safetensors": SAFETENSORS}
    headers = {"content-type": types[kind], "idempotency-key": "once"}

    def post(content: bytes) -> httpx.Response:
        return http.post(f"{V1}/tensors?values=none&{path}", content=content, headers=headers)

    first = ok(post(body), 201)
    assert ok(post(body), 201) == first
    assert refused(post(body[:-4] + b"\0\0\0\0"), 422, "idempotency-key-reused")
    read = http.get(f"{V1}/tensors/x?as=raw")
    assert read.content == values.tobytes()
    op(http, "add_", input="x", other=1)
    assert np.array_equal(np.frombuffer(http.get(f"{V1}/tensors/x?as=raw").content, np.float32), values + 1)


def test_a_long_program_file_may_change_its_inputs(http: httpx.Client) -> None:
    values = np.arange(400_000, dtype=np.float32)
    steps = [
        {"op": "add_", "args": {"input": "x", "other": 1}},
        {"op": "sum", "args": {"input": "x", "dtype": "float64"}, "out": "s"},
    ]
    body = program_file({"x": values}, {"steps": steps, "return": ["s"]})
    for _ in range(2):
        answer = ok(http.post(f"{V1}/programs", content=body, headers={"content-type": SAFETENSORS}))
        assert answer["results"]["s"]["values"] == float(values.sum(dtype=np.float64) + 400_000)
