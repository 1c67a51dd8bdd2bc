"""triplet_margin_with_distance_loss: a loss over a distance that is a program."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import EngineError, Invalid
from engine.session import Session
from tests.engine.programs import run, step, values

LOSS = "nn.functional.triplet_margin_with_distance_loss"
CITY = {
    "inputs": ["a", "b"],
    "steps": [
        step("sub", "d", input="a", other="b"),
        step("abs", "d", input="d"),
        step("sum", "d", input="d", dim=-1),
    ],
    "return": "d",
}


@pytest.fixture
def session() -> Session:
    made = Session("s", seed=0)
    run(
        made,
        inputs={
            "a": {"data": [[0.0, 0.0], [1.0, 1.0]], "requires_grad": True},
            "p": {"data": [[1.0, 0.0], [1.0, 3.0]], "requires_grad": True},
            "n": {"data": [[0.0, 1.5], [9.0, 9.0]], "requires_grad": True},
        },
        keep={"a": "a", "p": "p", "n": "n"},
    )
    return made


def loss(session: Session, *more: dict[str, Any], back: tuple[str, ...] = ("l",), **fields: Any) -> Any:
    asked = step(LOSS, "l", anchor="a", positive="p", negative="n", **fields)
    return run(session, asked, *more, return_=list(back))["results"]


def test_the_distance_is_the_program(session: Session) -> None:
    assert values(loss(session, distance_function=CITY, reduction="none")["l"]) == [0.5, 0.0]
    assert values(loss(session, distance_function=CITY)["l"]) == 0.25
    assert values(loss(session, distance_function=CITY, reduction="sum", margin=14.0)["l"]) == 13.5


def test_swap_takes_the_smaller_distance(session: Session) -> None:
    assert values(loss(session, distance_function=CITY, swap=True, margin=2.0, reduction="none")["l"]) == [1.5, 0.0]


def test_the_gradient_passes_through_the_program(session: Session) -> None:
    found = loss(
        session,
        step("backward", input="l"),
        back=("a.grad", "p.grad", "n.grad"),
        distance_function=CITY,
        reduction="sum",
    )
    assert values(found["a.grad"]) == [[-1.0, 1.0], [0.0, 0.0]]
    assert values(found["p.grad"]) == [[1.0, 0.0], [0.0, 0.0]]
    assert values(found["n.grad"]) == [[0.0, -1.0], [0.0, 0.0]]


def test_without_one_it_is_the_loss_with_the_2_norm(session: Session) -> None:
    plain = step("nn.functional.triplet_margin_loss", "q", anchor="a", positive="p", negative="n", margin=1.5)
    found = loss(session, plain, back=("l", "q"), margin=1.5, distance_function=None)
    assert values(found["l"]) == pytest.approx(values(found["q"]))


@pytest.mark.parametrize("distance", [None, CITY])
def test_a_dry_run_runs_through(session: Session, distance: Any) -> None:
    asked = step(LOSS, "l", anchor="a", positive="p", negative="n", distance_function=distance)
    assert run(session, asked, dry_run=True)["steps_run"] == 1


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"margin": 0.0}, "margin must be greater than 0, got 0.0"),
        ({"distance_function": {**CITY, "return": ["d", "d"]}}, "returns one tensor"),
        ({"distance_function": 3}, "distance_function is a program"),
    ],
)
def test_what_is_refused(session: Session, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=words) as found:
        loss(session, **fields)
    assert isinstance(found.value, Invalid)
