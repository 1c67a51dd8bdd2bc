"""Backward: gradients, what is kept and freed, what is refused, and graphs of any depth."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest

from engine.errors import EngineError, NoGradient, NotScalar, SavedChanged, TapeFreed
from engine.session import Session
from tests.engine.programs import run, step, values


@pytest.fixture
def session() -> Session:
    made = Session("s", seed=0)
    run(made, inputs={"w": {"data": [1.5, -2.0, 0.5], "requires_grad": True}}, keep={"w": "w"})
    return made


def grad(session: Session, name: str = "w") -> object:
    return values(run(session, return_=[f"{name}.grad"])["results"][f"{name}.grad"])


def squares(session: Session) -> None:
    run(session, step("mul", "s", input="w", other="w"), step("sum", "l", input="s"), keep={"l": "l"})


class TestAccumulation:
    def test_gradients_add_up_until_they_are_cleared(self, session: Session) -> None:
        squares(session)
        run(session, step("backward", input="l", retain_graph=True))
        run(session, step("backward", input="l"))
        assert grad(session) == [6.0, -8.0, 2.0]
        run(session, step("_clear_grad", input="w"))
        assert run(session, return_=["w.grad"])["results"]["w.grad"] is None

    @pytest.mark.parametrize("create_graph", [False, True])
    def test_a_leaf_that_views_what_has_no_history_gets_all_of_its_gradient(self, create_graph: bool) -> None:
        done = run(
            Session("s"),
            {"op": "narrow", "args": {"input": "m", "dim": 0, "start": 1, "length": 2}, "out": "x", "no_grad": True},
            step("requires_grad_", "x", input="x"),
            step("mul", "y", input="x", other="x"),
            step("sum", "l", input="y"),
            step("autograd.grad", "g", outputs=["l"], inputs=["x"], create_graph=create_graph),
            inputs={"m": {"data": [1.0, 2.0, 3.0]}},
            return_=["g"],
        )
        assert values(done["results"]["g"][0]) == [4.0, 6.0]

    def test_two_leaves_never_share_one_gradient(self, session: Session) -> None:
        run(session, inputs={"v": {"data": [1.0, 1.0, 1.0], "requires_grad": True}}, keep={"v": "v"})
        run(session, step("add", "a", input="w", other="v"), step("sum", "l", input="a"), step("backward", input="l"))
        run(session, step("mul", "b", input="v", other=2), step("sum", "l", input="b"), step("backward", input="l"))
        assert grad(session, "w") == [1, 1, 1]
        assert grad(session, "v") == [3, 3, 3]

    def test_a_given_gradient_is_not_taken_over(self, session: Session) -> None:
        run(session, inputs={"g": {"data": [1.0, 2.0, 3.0]}}, keep={"g": "g"})
        run(session, step("clone", "c", input="w"), step("backward", input="c", gradient="g"))
        run(session, step("clone", "c", input="w"), step("backward", input="c", gradient="g"))
        assert grad(session) == [2, 4, 6]
        assert values(run(session, return_=["g"])["results"]["g"]) == [1, 2, 3]

    def test_only_the_asked_for_inputs_receive(self, session: Session) -> None:
        run(session, inputs={"v": {"data": 2.0, "requires_grad": True}}, keep={"v": "v"})
        run(
            session,
            step("mul", "h", input="w", other="v"),
            step("mul", "s", input="h", other="h"),
            step("sum", "l", input="s"),
            step("backward", input="l", inputs=["v"]),
        )
        assert run(session, return_=["w.grad"])["results"]["w.grad"] is None
        assert grad(session, "v") == pytest.approx(2 * 2.0 * (1.5**2 + 2.0**2 + 0.5**2))

    def test_a_computed_tensor_may_be_asked_for(self, session: Session) -> None:
        found = run(
            session,
            step("mul", "h", input="w", other=3),
            step("mul", "s", input="h", other="h"),
            step("sum", "l", input="s"),
            step("autograd.grad", ["gh", "gw"], outputs=["l"], inputs=["h", "w"]),
            return_=["gh", "gw", "w.grad"],
        )["results"]
        assert values(found["gh"]) == [9, -12, 3]
        assert values(found["gw"]) == [27, -36, 9]
        assert found["w.grad"] is None

    def test_unused_inputs(self, session: Session) -> None:
        squares(session)
        run(session, inputs={"v": {"data": 2.0, "requires_grad": True}}, keep={"v": "v"})
        with pytest.raises(NoGradient, match="appears to not have been used in the graph"):
            run(session, step("autograd.grad", outputs=["l"], inputs=["v"]))
        found = run(
            session, step("autograd.grad", ["g"], outputs=["l"], inputs=["v"], allow_unused=True), return_=["g"]
        )
        assert found["results"]["g"] is None


class TestHigherOrders:
    def test_second_and_third_derivatives_of_a_cube(self, session: Session) -> None:
        found = run(
            session,
            step("mul", "c", input="w", other="w"),
            step("mul", "c", input="c", other="w"),
            step("sum", "l", input="c"),
            step("autograd.grad", ["g1"], outputs=["l"], inputs=["w"], create_graph=True),
            step("sum", "s1", input="g1"),
            step("autograd.grad", ["g2"], outputs=["s1"], inputs=["w"], create_graph=True),
            step("sum", "s2", input="g2"),
            step("autograd.grad", ["g3"], outputs=["s2"], inputs=["w"]),
            return_=["g1", "g2", "g3"],
        )["results"]
        w = np.array([1.5, -2.0, 0.5])
        assert values(found["g1"]) == pytest.approx(3 * w**2)
        assert values(found["g2"]) == pytest.approx(6 * w)
        assert values(found["g3"]) == [6, 6, 6]

    def test_a_gradient_with_a_graph_is_a_tensor_with_history(self, session: Session) -> None:
        squares(session)
        run(session, step("backward", input="l", create_graph=True))
        answer = run(session, return_=["w.grad"])["results"]["w.grad"]
        assert answer.requires_grad
        run(session, step("sum", "s", input="w.grad"), step("backward", input="s"))


class TestRefusals:
    def test_a_second_backward(self, session: Session) -> None:
        squares(session)
        run(session, step("backward", input="l"))
        with pytest.raises(TapeFreed, match="Trying to backward through the graph a second time"):
            run(session, step("backward", input="l"))

    def test_a_second_backward_through_what_saved_nothing_is_fine(self, session: Session) -> None:
        run(session, step("sum", "l", input="w"), keep={"l": "l"})
        run(session, step("backward", input="l"), step("backward", input="l"))
        assert grad(session) == [2, 2, 2]

    def test_a_saved_tensor_that_changed(self, session: Session) -> None:
        run(
            session,
            step("mul", "h", input="w", other=1),
            step("mul", "s", input="h", other="h"),
            step("sum", "l", input="s"),
            keep={"h": "h", "l": "l"},
        )
        run(session, step("add_", input="h", other=1))
        with pytest.raises(SavedChanged) as caught:
            run(session, step("backward", input="l"))
        assert "[torch.FloatTensor [3]], which is output 0 of Mul, is at version 1; expected version 0" in str(
            caught.value
        )

    def test_a_saved_result_that_changed(self, session: Session) -> None:
        run(
            session,
            step("exp", "e", input="w"),
            step("sum", "l", input="e"),
            step("add_", input="e", other=1),
            keep={"l": "l"},
        )
        with pytest.raises(SavedChanged, match="which is output 0 of Exp, is at version 1; expected version 0"):
            run(session, step("backward", input="l"))

    def test_what_nobody_saved_may_change(self, session: Session) -> None:
        run(
            session,
            step("mul", "h", input="w", other=3),
            step("sum", "l", input="h"),
            step("add_", input="h", other=1),
            step("backward", input="l"),
        )
        assert grad(session) == [3, 3, 3]

    def test_no_scalar_no_grad_wrong_shape(self, session: Session) -> None:
        with pytest.raises(NotScalar, match="grad can be implicitly created only for scalar outputs"):
            run(session, step("mul", "h", input="w", other=3), step("backward", input="h"))
        with pytest.raises(NoGradient, match="element 0 of tensors does not require grad and does not have a grad_fn"):
            run(session, step("ones", "o", size=[]), step("backward", input="o"))
        with pytest.raises(
            EngineError, match=r"Mismatch in shape: grad_output\[0\] has a shape of torch.Size\(\[2\]\)"
        ):
            run(session, step("mul", "h", input="w", other=3), step("backward", input="h", gradient=[1.0, 2.0]))

    def test_no_grad_records_nothing(self, session: Session) -> None:
        answer = run(session, step("mul", "h", input="w", other=3) | {"no_grad": True}, return_=["h"])["results"]["h"]
        assert not answer.requires_grad
        assert answer.grad_fn is None
        answer = run(session, step("mul", "h", input="w", other=3), return_=["h"], no_grad=True)["results"]["h"]
        assert not answer.requires_grad


class TestMemory:
    def test_memory_goes_by_reference_count_alone(self, session: Session) -> None:
        gc.collect()
        gc.disable()
        try:
            before = session.ctx.ledger.held
            run(
                session,
                step("ones", "x", size=[64, 64], requires_grad=True),
                step("mm", "h", input="x", mat2="x"),
                step("getitem", "v", input="h", index=["1:"]),
                step("mul_", input="v", other=2),
                step("tanh", "h", input="h"),
                step("sum", "l", input="h"),
                step("backward", input="l", retain_graph=True),
            )
            assert session.ctx.ledger.held == before
        finally:
            gc.enable()

    def test_the_tape_keeps_what_it_needs_and_backward_frees_it(self, session: Session) -> None:
        run(
            session,
            step("ones", "x", size=[100], requires_grad=True),
            step("exp", "h", input="x"),
            step("sum", "l", input="h"),
            keep={"x": "x", "l": "l"},
        )
        assert session.bytes_held()["tape"] == 400
        run(session, step("backward", input="l"))
        held = session.bytes_held()
        assert (held["tape"], held["grads"]) == (0, 400)


class TestDepth:
    def test_a_hundred_thousand_nodes(self) -> None:
        session = Session("s", seed=0)
        steps = [step("ones", "x", size=[], requires_grad=True), step("mul", "t", input="x", other=1.0)]
        run(
            session,
            *steps,
            {"repeat": 100_000, "steps": [step("add", "t", input="t", other="x")]},
            keep={"t": "t", "x": "x"},
        )
        start = time.process_time()
        run(session, step("backward", input="t"))
        assert values(run(session, return_=["x.grad"])["results"]["x.grad"]) == 100_001
        assert time.process_time() - start < 60, "this is seconds where it is linear, hours where it is not"
        run(session, step("_release", input="t"))  # and letting go of such a chain needs no recursion either
        assert session.bytes_held()["tensors"] == 4
