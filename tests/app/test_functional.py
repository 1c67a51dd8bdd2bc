"""Operations that call a program, and anomaly mode, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

V1 = "/v1"
EXP = {"inputs": ["x"], "steps": [{"op": "exp", "args": {"input": "x"}, "out": "y"}], "return": "y"}
CUBES = {
    "inputs": ["x"],
    "steps": [
        {"op": "pow", "args": {"input": "x", "exponent": 3}, "out": "y"},
        {"op": "sum", "args": {"input": "y"}, "out": "s"},
    ],
    "return": "s",
}


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def refused(response: httpx.Response, status: int, code: str) -> Any:
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    return body


def op(http: httpx.Client, name: str, /, **body: Any) -> httpx.Response:
    return http.post(f"{V1}/ops/autograd.{name}", json=body)


def test_a_jacobian_is_a_tensor_of_the_session(http: httpx.Client) -> None:
    made = ok(op(http, "functional.jacobian", func=EXP, inputs=[0.0, 0.0], out_name="J"))["result"]
    assert (made["name"], made["values"]) == ("J", [[1.0, 0.0], [0.0, 1.0]])
    assert ok(http.get(f"{V1}/tensors/J"))["shape"] == [2, 2]


def test_lists_of_inputs_give_lists_of_results(http: httpx.Client) -> None:
    product = {"inputs": ["a", "b"], "steps": [{"op": "mul", "args": {"input": "a", "other": "b"}, "out": "y"}]}
    body = {"func": {**product, "return": ["y"]}, "inputs": [{"data": [2.0]}, {"data": [3.0]}]}
    result = ok(op(http, "functional.jacobian", **body))["result"]
    assert [[x["values"] for x in row] for row in result] == [[[[3.0]], [[2.0]]]]


def test_a_hessian_in_a_program_beside_other_steps(http: httpx.Client) -> None:
    program = {
        "inputs": {"w": [1.0, 2.0]},
        "steps": [
            {"op": "autograd.functional.hessian", "args": {"func": CUBES, "inputs": "w"}, "out": "H"},
            {"op": "linalg.inv", "args": {"A": "H"}, "out": "step"},
            {"op": "autograd.functional.vjp", "args": {"func": CUBES, "inputs": "w"}, "out": ["value", "g"]},
            {"op": "mv", "args": {"input": "step", "vec": "g"}, "out": "newton"},
        ],
        "return": ["H", "value", "newton"],
    }
    results = ok(http.post(f"{V1}/programs", json=program))["results"]
    assert results["H"]["values"] == [[6.0, 0.0], [0.0, 12.0]]
    assert results["value"]["values"] == 9.0
    assert results["newton"]["values"] == [0.5, 1.0]


def test_a_dry_run_and_an_explained_one(http: httpx.Client) -> None:
    body = {"func": EXP, "inputs": [0.0, 0.0]}
    dry = ok(http.post(f"{V1}/ops/autograd.functional.jacobian?dry_run=true", json=body))
    assert (dry["result"]["shape"], dry["result"]["values"]) == ([2, 2], None)
    told = ok(http.post(f"{V1}/ops/autograd.functional.jacobian?explain=true", json=body))
    assert told["result"]["values"] == [[1.0, 0.0], [0.0, 1.0]]
    assert told["notes"]


def test_a_gradient_that_is_wrong_is_shown(http: httpx.Client) -> None:
    cut = {
        "inputs": ["x"],
        "steps": [
            {"op": "detach", "args": {"input": "x"}, "out": "c"},
            {"op": "mul", "args": {"input": "x", "other": "c"}, "out": "y"},
        ],
        "return": "y",
    }
    x = {"data": [1.0], "dtype": "float64", "requires_grad": True}
    assert ok(op(http, "gradcheck", func=EXP, inputs=[x]))["result"] is True
    assert ok(op(http, "gradcheck", func=cut, inputs=[x], raise_exception=False))["result"] is False
    body = refused(op(http, "gradcheck", func=cut, inputs=[x]), 422, "gradcheck-failed")
    assert body["detail"].startswith("Jacobian mismatch for output 0 with respect to input 0,\nnumerical:tensor([[2.0")


def test_a_mistake_in_a_function_is_shown_with_its_path(http: httpx.Client) -> None:
    broken = {**EXP, "steps": [*EXP["steps"], {"op": "mm", "args": {"input": "y", "mat2": "y"}, "out": "y"}]}
    program = {"steps": [{"op": "autograd.functional.jacobian", "args": {"func": broken, "inputs": [1.0, 2.0]}}]}
    body = refused(http.post(f"{V1}/programs", json=program), 422, "shape-mismatch")
    assert (body["op"], body["step"]) == ("mm", [0, 1])
    unknown = {**EXP, "given": ["x"]}
    assert (
        refused(op(http, "functional.jacobian", func=unknown, inputs=[1.0]), 422, "unknown-field")["param"] == "given"
    )
    assert '"return"' in refused(op(http, "functional.jacobian", func=3, inputs=[1.0]), 422, "wrong-type")["hint"]


@pytest.mark.parametrize("session_wide", [False, True])
def test_anomaly_mode_names_the_step(http: httpx.Client, session_wide: bool) -> None:
    if session_wide:
        ok(op(http, "set_detect_anomaly", mode=True))
    program = {
        "inputs": {"x": {"data": [0.0, 1.0], "requires_grad": True}},
        "steps": [
            {"op": "sqrt", "args": {"input": "x"}, "out": "a"},
            {"op": "mul", "args": {"input": "a", "other": 0.0}, "out": "b"},
            {"op": "sum", "args": {"input": "b"}, "out": "c"},
            {"op": "backward", "args": {"input": "c"}},
        ],
        **({} if session_wide else {"detect_anomaly": True}),
    }
    body = refused(http.post(f"{V1}/programs", json=program), 422, "nan-gradient")
    assert body["detail"] == "Function 'SqrtBackward0' returned nan values in its 0th output."
    assert (body["op"], body["step"]) == ("sqrt", [0])
    assert "sqrt" in body["hint"]
