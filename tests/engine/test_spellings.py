"""Other spellings of parameters: those that PyTorch's parser takes, for NumPy's sake."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import run, step, values

X = [[1.0, 2.0], [3.0, 4.0]]


def made(op: str, **args: Any) -> Any:
    return run(Session("s"), step(op, "y", **args), return_=["y"])["results"]["y"]


@pytest.mark.parametrize(
    "op, args, expected",
    [
        ("sum", {"input": X, "axis": 0}, [4.0, 6.0]),
        ("sum", {"input": X, "dim": 1, "keepdims": True}, [[3.0], [7.0]]),
        ("argmax", {"a": X, "axis": 1, "keepdims": True}, [[1], [1]]),
        ("exp", {"x": 0.0}, 1.0),
        ("add", {"x1": X, "x2": 1}, [[2.0, 3.0], [4.0, 5.0]]),
        ("cat", {"tensors": [X, X], "axis": 1}, [[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0]]),
        ("dot", {"input": [1.0, 2.0], "tensor": [3.0, 4.0]}, 11.0),
        ("softmax", {"input": [0.0, 0.0], "axis": 0}, [0.5, 0.5]),
        ("nn.functional.linear", {"x": X, "weight": [[1.0, 0.0]]}, [[1.0], [3.0]]),  # which PyTorch's parser binds
        ("linalg.cholesky", {"input": [[4.0]]}, [[2.0]]),
        ("linalg.matrix_power", {"input": X, "n": 1}, X),
        ("linalg.norm", {"A": [3.0, 4.0]}, 5.0),
        ("linalg.vector_norm", {"input": [3.0, 4.0]}, 5.0),
        ("linalg.pinv", {"input": [[2.0]], "rcond": 0.1}, [[0.5]]),
        ("linalg.tensorsolve", {"input": [[2.0]], "other": [4.0]}, [2.0]),
        ("cholesky_solve", {"input": [[4.0]], "input2": [[2.0]]}, [[1.0]]),
        ("cholesky_inverse", {"input": [[2.0]]}, [[0.25]]),
        ("ormqr", {"input": [[1.0]], "input2": [0.0], "input3": [[5.0]]}, [[5.0]]),
        ("isin", {"elements": [1, 2], "test_element": 2}, [False, True]),
        ("trapezoid", {"y": [1.0, 3.0], "x": [0.0, 2.0]}, 4.0),  # whose x is a parameter
    ],
)
def test_taken(op: str, args: dict[str, Any], expected: Any) -> None:
    assert values(made(op, **args)) == expected


def test_of_least_squares() -> None:
    assert values(made("linalg.lstsq", input=[[2.0]], b=[[4.0]])["solution"]) == [[2.0]]


def test_of_an_operation_with_overloads() -> None:
    assert values(made("max", input=X, axis=0)["indices"]) == [1, 1]


@pytest.mark.parametrize(
    "op, args, name",
    [
        ("sum", {"input": X, "axis": 0, "dim": 1}, "axis"),
        ("sum", {"input": X, "a": X}, "a"),
        ("exp", {"a": 1.0, "x": 1.0}, "a"),
        ("nn.functional.relu", {"x": X}, "x"),  # bound by Python, which takes no other names
        ("getitem", {"x": X, "index": [0]}, "x"),
        ("sum", {"input": X, "axes": 0}, "axes"),
    ],
)
def test_refused(op: str, args: dict[str, Any], name: str) -> None:
    with pytest.raises(EngineError, match=rf"got an unexpected keyword argument '{name}'"):
        made(op, **args)


def test_a_session_tells_its_history_by_the_names_of_the_reference() -> None:
    session = Session("s")
    inner = {"repeat": 2, "steps": [step("sum", "y", a=X, axis=0)]}
    for _ in range(3):  # from the second time on the program is known
        run(session, step("exp", "x", a=1.5), inner, return_=["x"])
    told = session.history.to_data()["calls"]
    assert [call["program"]["steps"][0]["args"] for call in told] == [{"input": 1.5}] * 3
    assert told[2]["program"]["steps"][1]["steps"][0]["args"] == {"input": X, "dim": 0}


def test_numbers_that_json_has_no_words_for_are_no_names() -> None:
    assert values(made("maximum", input=[1.0], other="Infinity")) == [float("inf")]
