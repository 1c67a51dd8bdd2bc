"""set_ and what uses it: a tensor that sees the memory of another."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import run, state, step, values


@pytest.fixture
def session() -> Session:
    made = Session("s", seed=0)
    run(
        made,
        inputs={"x": [[1.0, 2.0], [3.0, 4.0]], "y": [5.0, 6.0, 7.0, 8.0], "w": {"data": [1.0], "requires_grad": True}},
        keep={"x": "x", "y": "y", "w": "w"},
    )
    return made


def read(session: Session, *names: str) -> list[Any]:
    results = run(session, return_=list(names))["results"]
    return [values(results[name]) for name in names]


def test_both_change_together_and_views_keep_the_old_memory(session: Session) -> None:
    run(session, step("select", "row", input="x", dim=0, index=0), keep={"row": "row"})
    run(session, step("set_", input="x", source="y"))
    run(session, step("mul_", input="x", other=10))
    assert read(session, "x", "y", "row") == [[50.0, 60.0, 70.0, 80.0], [50.0, 60.0, 70.0, 80.0], [1.0, 2.0]]
    run(session, step("fill_", input="row", value=0))
    assert read(session, "x", "row") == [[50.0, 60.0, 70.0, 80.0], [0.0, 0.0]]


def test_a_geometry_of_its_own(session: Session) -> None:
    run(session, step("set_", input="x", source="y", storage_offset=1, size=[2, 2], stride=[1, 1]))
    assert read(session, "x") == [[[6.0, 7.0], [7.0, 8.0]]]
    run(session, step("set_", input="x"))
    assert read(session, "x") == [[]]


def test_a_vector_becomes_the_memory_of_parameters(session: Session) -> None:
    run(
        session,
        step("nn.utils.parameters_to_vector", "v", parameters=["x", "w"]),
        step("detach", "v", input="v"),
        step("mul_", input="v", other=2),
        step("nn.utils.vector_to_parameters", vec="v", parameters=["x", "w"]),
        step("add_", input="v", other=1),
    )
    assert read(session, "x", "w") == [[[3.0, 5.0], [7.0, 9.0]], [3.0]]
    assert run(session, step("requires_grad", "r", input="w"), return_=["r"])["results"]["r"] is True


def test_what_was_saved_of_the_old_memory_is_not_taken_for_the_new(session: Session) -> None:
    with pytest.raises(EngineError, match="modified by an inplace operation"):
        run(
            session,
            step("mul", "z", input="w", other="y"),
            step("set_", input="y", source="x"),
            step("sum", "z", input="z"),
            step("backward", input="z"),
        )


def test_a_failed_program_takes_it_back(session: Session) -> None:
    before = state(session)
    with pytest.raises(EngineError):
        run(session, step("set_", input="x", source="y"), step("add", "z", input=[1.0, 2.0, 3.0], other=[1.0, 2.0]))
    assert state(session) == before


@pytest.mark.parametrize(
    "args, words",
    [
        ({"input": "x", "source": [1, 2]}, "Could not set tensor of type long int to a tensor of type float"),
        ({"input": "x", "source": "y", "size": [9], "stride": [1]}, "out of bounds for storage of size 16"),
        ({"input": "x", "source": "y", "size": [2], "stride": [1, 1]}, "unequal size length"),
        ({"input": "x", "source": "y", "storage_offset": -1, "size": [2]}, "invalid storage offset -1"),
        ({"input": "w", "source": "y"}, "a leaf Variable that requires grad"),
        ({"input": "x", "source": "w"}, "the derivative for 'set_' is not implemented"),
    ],
)
def test_what_is_refused(session: Session, args: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        run(session, step("set_", **args))
