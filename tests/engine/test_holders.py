"""The ledger: every storage of a session, its bytes, and who keeps it alive."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import Invalid
from engine.session import Session
from tests.engine.programs import run, step

W = {"data": [1.0] * 1000, "requires_grad": True}


@pytest.fixture
def session() -> Session:
    return Session("s", seed=0)


def ledger(session: Session, **asked: Any) -> Any:
    return session.query({"do": "memory", **asked})


def holders(session: Session) -> list[tuple[int, list[dict[str, Any]]]]:
    return [(row["bytes"], row["held_by"]) for row in ledger(session)["storages"]]


def test_everything_that_is_held_is_in_it(session: Session) -> None:
    run(
        session,
        step("mul", "h", input="w", other=2),
        step("view", "v", input="h", size=[10, 100]),
        step("mul", "y", input="v", other="v"),
        step("sum", "loss", input="y"),
        step("backward", input="loss", retain_graph=True),
        inputs={"w": W},
        keep={"w": "w", "loss": "loss"},
    )
    found = ledger(session)
    assert sum(row["bytes"] for row in found["storages"]) == found["bytes"]["total"] == session.ctx.ledger.held
    assert found["bytes"] == {"tensors": 4004, "grads": 4000, "tape": 4000, "total": 12004}
    by_kind = {tuple(one["kind"] for one in row["held_by"]): row for row in found["storages"]}
    assert by_kind["tensor",]["held_by"] in (
        [{"kind": "tensor", "id": "t1", "name": "w"}],
        [{"kind": "tensor", "id": "t2", "name": "loss"}],
    )
    assert by_kind["gradient",]["held_by"] == [{"kind": "gradient", "of": "w"}]
    assert by_kind["tape",]["held_by"] == [{"kind": "tape", "of": ["loss"], "saved_by": ["MulBackward0"]}]
    assert [row["bytes"] for row in found["storages"]] == sorted((r["bytes"] for r in found["storages"]), reverse=True)


def test_a_view_names_what_it_is_a_view_of(session: Session) -> None:
    run(session, inputs={"x": [1.5, 2.5]}, keep={"x": "x"})
    run(session, step("getitem", "v", input="x", index=[0]), keep={"v": "v"})
    assert holders(session) == [
        (8, [{"kind": "tensor", "id": "t1", "name": "x"}, {"kind": "view", "id": "t2", "name": "v", "of": "x"}])
    ]
    run(session, step("_release", input="x"))
    assert holders(session)[0][1][0] == {"kind": "tensor", "id": "t2", "name": "v"}


def test_a_leaf_without_an_id_is_held_by_the_tape_that_ends_in_it(session: Session) -> None:
    run(session, step("mul", "y", input="w", other="w"), inputs={"w": W}, keep={"y": "y"})
    taped = [by for _, (by, *_) in holders(session) if by["kind"] == "tape"]
    assert taped == [{"kind": "tape", "of": ["y"], "saved_by": ["MulBackward0", "AccumulateGrad"]}]


def test_a_tape_is_held_by_all_that_come_from_it_the_newest_first(session: Session) -> None:
    run(session, step("exp", "h", input="w"), inputs={"w": W}, keep={"w": "w"})
    steps = step("exp", "h", input="w"), step("mul", "a", input="h", other=2), step("mul", "b", input="h", other=3)
    run(session, *steps, keep={"a": "a", "b": "b"})
    (by,) = next(by for _, by in holders(session) if by[0]["kind"] == "tape")
    assert by == {"kind": "tape", "of": ["b", "a"], "saved_by": ["ExpBackward0"]}


def test_what_backward_frees_is_gone_from_it(session: Session) -> None:
    run(
        session,
        step("exp", "h", input="w"),
        step("sum", "loss", input="h"),
        inputs={"w": W},
        keep={"w": "w", "loss": "l"},
    )
    assert ledger(session)["bytes"]["tape"] == 4000
    run(session, step("backward", input="l"))
    assert ledger(session)["bytes"]["tape"] == 0
    assert session.holders() == [("w (t1)", 4000, "w"), ("w.grad", 4000, "w"), ("l (t2)", 4, "l")]


def test_pages_are_whole_and_in_order(session: Session) -> None:
    for size in (3, 1, 3, 2, 5, 3):
        run(session, step("ones", {"whole": "r"}, size=[size]), keep_all={"r": None})
    whole = ledger(session)["storages"]
    found, cursor = [], None
    while True:
        page = ledger(session, limit=2, cursor=cursor)
        found += page["storages"]
        cursor = page["cursor"]
        if cursor is None:
            break
        assert len(page["storages"]) == 2
    assert found == whole
    assert len({row["storage"] for row in whole}) == 6


@pytest.mark.parametrize("cursor", ["", "5", "a.b", "1.2.3", "-1.2", "1." + "9" * 30])
def test_what_is_no_cursor_is_refused(session: Session, cursor: str) -> None:
    with pytest.raises(Invalid):
        ledger(session, cursor=cursor)


def test_undo_of_a_running_program_is_told_by_device(session: Session) -> None:
    run(session, inputs={"x": W["data"]}, keep={"x": "x"})
    running = session.run(
        {"steps": [step("add_", input="x", other=1), {"repeat": 10**5, "steps": [step("relu", input="x")]}]}
    )
    next(running)
    assert session.bytes_by_device()["cpu"]["undo"] == 4000
    running.close()
    assert "undo" not in session.bytes_by_device()["cpu"]


def test_devices_are_told_apart() -> None:
    from engine.backend import simulated_cuda

    simulated_cuda("cuda:0")
    session = Session("s", seed=0, devices=("cpu", "cuda:0"))
    run(session, step("ones", "a", size=[10]), step("ones", "b", size=[20], device="cuda"), keep={"a": "a", "b": "b"})
    assert session.bytes_by_device() == {
        "cpu": {"tensors": 40, "grads": 0, "tape": 0},
        "cuda:0": {"tensors": 80, "grads": 0, "tape": 0},
    }
