"""Gradients of tensors that are no leaves: retain_grad, in PyTorch's way."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import EngineError, NoGradient
from engine.session import Session
from tests.engine.programs import run, state, step, values


@pytest.fixture
def session() -> Session:
    made = Session("s", seed=0)
    run(made, inputs={"x": {"data": [1.0, 1.0, 1.0], "requires_grad": True}}, keep={"x": "x"})
    run(made, step("mul", "m", input="x", other=2), step("retain_grad", input="m"), keep={"m": "m"})
    return made


def grad(session: Session, name: str) -> Any:
    found = run(session, return_=[f"{name}.grad"])["results"][f"{name}.grad"]
    return None if found is None else values(found)


def squares(of: str = "m") -> list[dict[str, Any]]:
    return [step("mul", "s", input=of, other=of), step("sum", "l", input="s")]


def test_backward_adds_to_it(session: Session) -> None:
    run(session, *squares(), step("backward", input="l", retain_graph=True), step("backward", input="l"))
    assert grad(session, "m") == [8.0, 8.0, 8.0]
    assert grad(session, "x") == [16.0, 16.0, 16.0]


def test_autograd_grad_fills_it_too(session: Session) -> None:
    answer = run(session, *squares(), step("autograd.grad", "g", outputs=["l"], inputs=["x"]), return_=["g"])
    assert values(answer["results"]["g"][0]) == [8.0, 8.0, 8.0]
    assert grad(session, "m") == [4.0, 4.0, 4.0]
    assert grad(session, "x") is None


@pytest.mark.parametrize("inputs", [["m"], ["m", "x"]])
def test_as_an_input_of_backward_it_gets_its_gradient_once(session: Session, inputs: list[str]) -> None:
    run(session, *squares(), step("backward", input="l", inputs=inputs))
    assert grad(session, "m") == [4.0, 4.0, 4.0]


def test_what_is_not_on_the_way_to_the_inputs_gets_none(session: Session) -> None:
    run(session, inputs={"z": {"data": [3.0], "requires_grad": True}}, keep={"z": "z"})
    run(session, step("mul", "p", input="m", other="z"), step("sum", "l", input="p"), keep={"l": "l"})
    run(session, step("backward", input="l", inputs=["z"]))
    assert grad(session, "m") is None
    assert grad(session, "z") == [6.0]


def test_after_a_change_in_place_it_is_the_gradient_of_the_new_values(session: Session) -> None:
    run(session, step("mul_", input="m", other=3), *squares(), step("backward", input="l"))
    assert grad(session, "m") == [12.0, 12.0, 12.0]


def test_after_a_change_through_a_view_as_well(session: Session) -> None:
    run(
        session,
        step("narrow", "v", input="m", dim=0, start=0, length=2),
        step("mul_", input="v", other=5),
        *squares(),
        step("backward", input="l"),
    )
    assert grad(session, "m") == [20.0, 20.0, 4.0]


def test_with_create_graph_it_can_be_differentiated(session: Session) -> None:
    run(session, *squares(), step("backward", input="l", create_graph=True))
    answer = run(
        session,
        step("sum", "t", input="m.grad"),
        step("autograd.grad", "g", outputs=["t"], inputs=["x"]),
        return_=["g"],
    )
    assert values(answer["results"]["g"][0]) == [4.0, 4.0, 4.0]


def test_one_part_of_several(session: Session) -> None:
    run(
        session,
        step("split", ["a", "b"], input="m", split_size_or_sections=[1, 2]),
        step("retain_grad", input="b"),
        step("sum", "l", input="b"),
        step("backward", input="l"),
        keep={"b": "b", "a": "a"},
    )
    assert grad(session, "b") == [1.0, 1.0]
    assert grad(session, "a") is None
    assert grad(session, "m") == [0.0, 1.0, 1.0]


def test_in_rounds_it_is_the_same_with_and_without_a_plan(session: Session) -> None:
    for rounds in (1, 40):
        before = grad(session, "m") or [0.0] * 3
        run(
            session,
            {
                "repeat": rounds,
                "steps": [step("sum", "l", input="m"), step("backward", input="l", retain_graph=True)],
            },
        )
        assert grad(session, "m") == [v + rounds for v in before]


def test_a_failed_program_takes_it_back(session: Session) -> None:
    run(session, step("mul", "n", input="x", other=4), keep={"n": "n"})
    before = state(session)
    with pytest.raises(EngineError):
        run(
            session,
            step("retain_grad", input="n"),
            *squares("n"),
            step("backward", input="l", retain_graph=True),
            step("add", "z", input=[1.0, 2.0, 3.0], other=[1.0, 2.0]),
        )
    assert state(session) == before
    run(session, *squares("n"), step("backward", input="l"))
    assert grad(session, "n") is None


def test_what_requires_no_gradient_has_none_to_retain(session: Session) -> None:
    with pytest.raises(NoGradient, match="can't retain_grad on Tensor that has requires_grad=False"):
        run(session, step("ones", "y", size=[2]), step("retain_grad", input="y"))


def test_a_leaf_has_it_anyway(session: Session) -> None:
    asked = [step("retain_grad", input="x"), step("retains_grad", "leaf", input="x")]
    answer = run(session, *asked, step("retains_grad", "made", input="m"), return_=["leaf", "made"])
    assert answer["results"] == {"leaf": False, "made": True}
