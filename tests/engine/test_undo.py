"""The undo log itself: what is logged, when, how often, and that rolling back restores it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.backend import CPU, Backend
from engine.errors import EngineError
from engine.random import Generator
from engine.session import Session
from engine.tensor import Ledger, Storage
from engine.undo import Undo
from tests.devices import cuda
from tests.engine.programs import floats, run, state, step

BOTH = pytest.mark.parametrize("backend", [CPU, cuda()], ids=lambda b: b.name)


class Thing:
    def __init__(self, uid: int = 1) -> None:
        self.uid = uid
        self.value = "old"


def storage(backend: Backend, n: int = 10, uid: int = 1) -> Storage:
    made = Storage(backend.from_host(np.arange(float(n))), backend, Ledger(1 << 30))
    made.uid = uid
    return made


class TestSlots:
    def test_the_first_old_value_is_restored(self) -> None:
        undo, thing = Undo(0), Thing()
        for new in ("a", "b"):
            undo.slot(thing, "value")
            thing.value = new
        undo.rollback()
        assert thing.value == "old"

    def test_what_the_program_itself_made_is_not_logged(self) -> None:
        undo, thing = Undo(0), Thing(uid=0)
        undo.slot(thing, "value")
        assert undo.empty
        undo.force_slot(thing, "value")
        assert not undo.empty

    def test_items_come_back_and_new_ones_go(self) -> None:
        undo, mapping = Undo(0), {"a": 1, "b": 2}
        for key in ("a", "b", "c"):
            undo.item(mapping, key)
        mapping["a"] = 5
        del mapping["b"]
        mapping["c"] = 3
        undo.rollback()
        assert mapping == {"a": 1, "b": 2}

    def test_nodes_of_before_the_program_alone(self) -> None:
        class Node:
            uid = 0

            def __init__(self, seq: int) -> None:
                self.seq = seq
                self.saved: Any = "saved"

        undo, old, new = Undo(5), Node(4), Node(5)
        for node in (old, new):
            undo.node(node, "saved")
            node.saved = None
        undo.rollback()
        assert (old.saved, new.saved) == ("saved", None)


class TestBytes:
    @BOTH
    def test_overlapping_writes_are_copied_once_and_restored(self, backend: Backend) -> None:
        undo, s = Undo(0), storage(backend)
        for low, high in ((2, 4), (3, 7), (0, 10), (5, 6)):
            undo.write(s, low, high)
            s.flat[low:high] = -1.0
            s.version += 1
        assert undo.bytes_held == 80, "every element is held exactly once"
        undo.rollback()
        assert backend.to_host(s.flat).tolist() == list(range(10))
        assert s.version == 0

    @BOTH
    def test_only_the_range_that_is_written_is_held(self, backend: Backend) -> None:
        undo, s = Undo(0), storage(backend)
        undo.write(s, 8, 10)
        undo.write(s, 4, 4)
        assert undo.bytes_held == 16

    def test_a_new_storage_is_not_logged(self) -> None:
        undo, s = Undo(0), storage(CPU, uid=0)
        undo.write(s, 0, 10)
        assert undo.empty

    def test_the_buffer_itself_is_restored_so_that_views_see_it(self) -> None:
        undo, s = Undo(0), storage(CPU)
        view = s.flat[3:5]
        undo.write(s, 0, 10)
        s.flat[:] = 0.0
        undo.rollback()
        assert view.tolist() == [3.0, 4.0]


def test_a_generator_is_put_back_with_its_cached_normal() -> None:
    rng = Generator(7)
    undo, before = Undo(0), rng.get_state()
    undo.generator(rng)
    rng.manual_seed(99)
    undo.generator(rng)
    undo.rollback()
    assert np.array_equal(rng.get_state(), before)


class TestInASession:
    @pytest.fixture
    def session(self) -> Session:
        made = Session("s", seed=0)
        x = floats(3, 2) | {"requires_grad": True}
        run(made, step("mul", "y", input="x", other="x"), inputs={"x": x, "z": floats(3, 2, seed=1)},
            keep={"x": "x", "y": "y", "z": "z"})  # fmt: skip
        return made

    FAIL = step("add", input=[1.0, 2.0], other=[1.0, 2.0, 3.0])

    @pytest.mark.parametrize(
        "steps",
        [
            [step("add_", input="z", other=1)],
            [step("select", "v", input="z", dim=0, index=1), step("mul_", input="v", other="v")],
            [step("sum", "l", input="y"), step("backward", input="l")],
            [step("sum", "l", input="y"), step("backward", input="l", create_graph=True)],
            [step("mul_", input="y", other=2), step("sum", "l", input="y"), step("backward", input="l")],
            [step("t", "v", input="y"), step("mul_", input="v", other=3)],
            [step("manual_seed", seed=5), step("rand", "r", size=[3])],
            [step("randn", "r", size=[5])],
            [step("_release", input="z")],
            [step("_rename", input="z", name="w"), step("add_", input="w", other=1)],
            [step("detach_", input="y")],
            [step("requires_grad_", input="z")],
            [step("set_default_dtype", d="float64"), step("ones", "o", size=[2])],
            [step("optim.sgd_", params=["z"], grads=["z"], lr=0.1)],
            [{"repeat": 3, "steps": [step("add_", input="z", other=1), step("randn", "r", size=[1])]}],
        ],
        ids=lambda steps: "+".join(s.get("op", "repeat") for s in steps),
    )
    def test_a_failing_program_leaves_no_trace(self, session: Session, steps: list[dict[str, Any]]) -> None:
        before = state(session)
        with pytest.raises(EngineError) as caught:
            run(session, *steps, self.FAIL)
        assert caught.value.step == [len(steps)], caught.value
        del caught
        assert state(session) == before

    def test_after_a_failure_the_session_goes_on_as_if_it_had_not_happened(self, session: Session) -> None:
        twin = Session("s", seed=0)
        x = floats(3, 2) | {"requires_grad": True}
        run(twin, step("mul", "y", input="x", other="x"), inputs={"x": x, "z": floats(3, 2, seed=1)},
            keep={"x": "x", "y": "y", "z": "z"})  # fmt: skip
        with pytest.raises(EngineError):
            run(session, step("randn", "r", size=[3]), step("sum", "l", input="y"), step("backward", input="l"),
                step("add_", input="z", other=1), self.FAIL)  # fmt: skip
        for s in (session, twin):
            run(
                s,
                step("randn", "r", size=[3]),
                step("sum", "l", input="y"),
                step("backward", input="l"),
                keep={"r": "r"},
            )
        for name in ("x", "z", "r"):
            a, b = session.names[name], twin.names[name]
            assert (a.id, a.version) == (b.id, b.version)
            assert np.array_equal(a.array, b.array)
        assert np.array_equal(session.names["x"].grad.array, twin.names["x"].grad.array)  # type: ignore[union-attr]
