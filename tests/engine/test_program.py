"""Programs: names, rounds, limits, all or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import (
    EngineError,
    Invalid,
    LimitExceeded,
    MissingParameter,
    NoSuchOp,
    NoSuchTensor,
    OutOfMemory,
    PreconditionFailed,
    UnknownParameter,
    WrongType,
)
from engine.limits import Limits
from engine.session import Session
from tests.engine.programs import floats, run, state, step, values


@pytest.fixture
def session() -> Session:
    made = Session("s", seed=0)
    run(
        made,
        inputs={"x": {"data": [[1, 2], [3, 4]], "dtype": "float32", "requires_grad": True}, "y": floats(2, 2)},
        keep={"x": "x", "y": "y"},
    )
    return made


class TestNames:
    def test_steps_see_outputs_then_inputs_then_the_session(self, session: Session) -> None:
        reply = run(
            session,
            step("add", "x", input="x", other=1),
            step("add", "z", input="x", other="y"),
            inputs={"y": [[10.0, 10.0], [10.0, 10.0]]},
            return_=["x", "z", "y"],
        )
        assert values(reply["results"]["x"]) == [[2, 3], [4, 5]]
        assert values(reply["results"]["z"]) == [[12, 13], [14, 15]]
        assert session.names["x"].id == "t1", "a local name does not rebind the session's"

    def test_strict_hides_the_session(self, session: Session) -> None:
        with pytest.raises(NoSuchTensor) as caught:
            run(session, step("add", "z", input="x", other=1), strict=True)
        assert caught.value.step == [0]

    def test_grad_is_a_name_null_where_returned_and_refused_where_used(self, session: Session) -> None:
        assert run(session, return_=["x.grad"])["results"] == {"x.grad": None}
        with pytest.raises(EngineError) as caught:
            run(session, step("add", "z", input="x.grad", other=1))
        assert caught.value.code == "no-grad"

    def test_keep_rebinds_as_python_does(self, session: Session) -> None:
        run(session, step("add", "h", input="x", other=1), keep={"h": "y"})
        assert session.names["y"].id == "t3"
        assert "t2" not in session.tensors, "the tensor that had the name is released"
        run(session, step("mul", "h", input="y", other=2), keep={"h": "y"})
        assert values(run(session, return_=["y"])["results"]["y"]) == [[4, 6], [8, 10]]

    def test_a_tensor_has_one_name_the_newest(self, session: Session) -> None:
        run(session, return_=["y"], keep={"y": "z"})
        assert set(session.names) == {"x", "z"}

    @pytest.mark.parametrize("name", ["t1", "", "a b", "NaN", "7", "1.5", "true", "x.grad", "-x", "x" * 256, None, 3])
    def test_names_that_could_not_be_told_from_something_else_are_refused(self, session: Session, name: Any) -> None:
        with pytest.raises(Invalid):
            run(session, step("add", "h", input="x", other=1), keep={"h": name})

    @pytest.mark.parametrize("name", ["0.weight", "_x", "layer-1.bias", "T1", "t1x", "grad"])
    def test_checkpoint_names_are_names(self, session: Session, name: str) -> None:
        run(session, step("add", "h", input="x", other=1), keep={"h": name})
        assert name in session.names

    def test_structures_are_bound_whole_or_in_parts(self, session: Session) -> None:
        whole = run(session, step("split", "parts", input="x", split_size_or_sections=1), return_=["parts"])
        assert [values(part) for part in whole["results"]["parts"]] == [[[1, 2]], [[3, 4]]]
        parts = run(session, step("topk", ["best", "where"], input="x", k=1), return_=["best", "where"])
        assert values(parts["results"]["best"]) == [[2], [4]]
        assert values(parts["results"]["where"]) == [[1], [1]]
        fields = run(session, step("topk", "both", input="x", k=1), return_=["both"])
        assert set(fields["results"]["both"]) == {"values", "indices"}
        with pytest.raises(Invalid, match="gives 2 results"):
            run(session, step("topk", ["one"], input="x", k=1))


class TestRounds:
    def test_names_carry_over_and_steps_are_counted(self, session: Session) -> None:
        reply = run(
            session,
            step("sum", "n", input="x"),
            {"repeat": 5, "steps": [step("mul", "n", input="n", other=2)], "collect": {"n": 2}},
            return_=["n"],
        )
        assert values(reply["results"]["n"]) == 320
        assert reply["collected"] == {"n": [40, 160]}
        assert reply["steps_run"] == 6

    def test_rounds_nest_and_errors_say_where(self, session: Session) -> None:
        inner = {"repeat": 3, "steps": [step("add", "n", input="n", other=1)], "collect": {"n": 3}}
        reply = run(session, step("zeros", "n", size=[]), {"repeat": 2, "steps": [inner]}, return_=["n"])
        assert reply["collected"] == {"n": [3, 6]}
        bad = {"repeat": 2, "steps": [{"repeat": 1, "steps": [step("mm", input="x", mat2=[[1.0]])]}]}
        with pytest.raises(Invalid) as caught:
            run(session, bad)
        assert (caught.value.step, caught.value.round) == ([0, 0, 0], [1, 1])

    def test_collect_takes_one_element(self, session: Session) -> None:
        with pytest.raises(Invalid, match="one element"):
            run(session, {"repeat": 1, "steps": [], "collect": {"x": 1}})


TRAIN = {
    "repeat": 5,
    "steps": [
        step("mm", "h", input="x", mat2="y"),
        step("tanh", "h", input="h"),
        step("sum", "l", input="h"),
        step("backward", input="l"),
        step("sub_", input="y", other="x.grad"),
        step("randn", "noise", size=[2, 2]),
        step("mul_", input="y", other="noise"),
    ],
}


class TestAllOrNothing:
    @pytest.mark.parametrize(
        "bad",
        [
            step("nosuch", input="x"),
            step("add", input="x"),
            step("add", input="x", othr=1),
            step("add", input="nosuch", other=1),
            step("mm", input="x", mat2=[[1.0]]),
            step("add_", input="x", other=1),
            step("sum", input="x", dim=5),
            step("sum", input="x", dim="one"),
            step("backward", input="x"),
            step("ones", size=[1 << 40]),
            step("index_select", input="x", dim=0, index=[9]),
        ],
        ids=lambda s: s["op"] + "-" + "-".join(s["args"]),
    )
    def test_a_failing_step_leaves_no_trace(self, session: Session, bad: dict[str, Any]) -> None:
        run(session, step("mul", "w", input="x", other="x"), step("sum", "w", input="w"), keep={"w": "w"})
        before = state(session)
        with pytest.raises(EngineError):
            run(
                session,
                step("backward", input="w", retain_graph=True),
                step("backward", input="w"),
                TRAIN,
                step("set_default_dtype", d="float64"),
                step("manual_seed", seed=7),
                step("requires_grad_", input="y"),
                bad,
                keep={"w": "x"},
            )
        assert state(session) == before
        run(session, step("backward", input="w"))  # its tape is whole again

    def test_a_cancelled_program_leaves_no_trace(self, session: Session) -> None:
        before = state(session)
        running = session.run({"steps": [{**TRAIN, "repeat": 100_000}]})
        for _ in range(3):
            next(running)
        running.close()
        assert state(session) == before

    def test_a_return_that_fails_leaves_no_trace(self, session: Session) -> None:
        before = state(session)
        with pytest.raises(NoSuchTensor):
            run(session, TRAIN, return_=["nosuch"])
        assert state(session) == before

    def test_memory_is_asked_for_before_it_is_taken(self) -> None:
        session = Session("s", seed=0, limits=Limits(session_bytes=1 << 20))
        try:
            run(session, step("ones", "a", size=[1000]), step("ones", "b", size=[1 << 18]))
        except OutOfMemory as e:
            facts = e.facts
        assert (facts["asked"], facts["free"]) == (1 << 20, (1 << 20) - 4000)
        assert session.ctx.ledger.held == 0

    def test_rounds_need_no_more_memory_than_one(self) -> None:
        session = Session("s", seed=0, limits=Limits(session_bytes=1 << 20))
        run(session, step("ones", "w", size=[100, 100], requires_grad=True), keep={"w": "w"})
        body = [
            step("mul", "h", input="w", other=0.5),
            step("tanh", "h", input="h"),
            step("sum", "l", input="h"),
            step("autograd.grad", ["g"], outputs=["l"], inputs=["w"]),
            step("sub_", input="w", other="g") | {"no_grad": True},
        ]
        run(session, {"repeat": 200, "steps": body})


class TestExpect:
    def test_an_etag_that_holds_and_one_that_does_not(self, session: Session) -> None:
        tag = session.answer(session.names["y"], "none").etag
        run(session, step("add_", input="y", other=1), expect={"y": tag})
        with pytest.raises(PreconditionFailed):
            run(session, step("add_", input="y", other=1), expect={"y": tag})

    def test_etags_change_with_value_gradient_name_and_flag(self, session: Session) -> None:
        def tag() -> str | None:
            return session.answer(session.tensors["t1"], "none").etag

        tags = [tag()]
        for change in (
            [step("sum", "l", input="x"), step("backward", input="l")],
            [step("sum", "l", input="x"), step("backward", input="l")],
            [step("_rename", input="x", name="v")],
            [step("requires_grad_", input="t1", requires_grad=False)],
            [step("add_", input="t1", other=1)],
            [step("_clear_grad", input="t1")],
        ):
            run(session, *change)
            tags.append(tag())
        assert len(set(tags)) == len(tags)
        assert tag() == tags[-1]


class TestForm:
    @pytest.mark.parametrize(
        "program, error",
        [
            ([], WrongType),
            ({"step": []}, UnknownParameter),
            ({"steps": {}}, WrongType),
            ({"steps": [3]}, WrongType),
            ({"steps": [{"args": {}}]}, MissingParameter),
            ({"steps": [{"op": "add", "arg": {}}]}, UnknownParameter),
            ({"steps": [{"op": "_release", "args": {"input": 3}}]}, WrongType),
            ({"steps": [{"op": "_to_dtype", "args": {}}]}, NoSuchOp),
            ({"steps": [{"repeat": -1}]}, WrongType),
            ({"steps": [{"repeat": True}]}, WrongType),
            ({"steps": [{"repeat": 10**9}]}, LimitExceeded),
            (
                {"steps": [{"repeat": 10**6, "steps": [{"repeat": 10**6, "steps": [step("ones", size=[])]}]}]},
                LimitExceeded,
            ),
            ({"steps": [], "return": [3]}, WrongType),
            ({"steps": [], "return": "x"}, WrongType),
            ({"inputs": {"t1": 3}}, Invalid),
            ({"inputs": {"a": {"dat": 3}}}, UnknownParameter),
            ({"inputs": {"a": {"data": 3, "dtype": "float31"}}}, Invalid),
            ({"inputs": {"a": None}}, WrongType),
            ({"steps": [], "strict": 1}, WrongType),
        ],
        ids=str,
    )
    def test_what_is_no_program_is_refused(self, session: Session, program: Any, error: type[Exception]) -> None:
        before = state(session)
        with pytest.raises(error):
            for _ in session.run(program):
                pass
        assert state(session) == before

    def test_nesting_is_bounded(self, session: Session) -> None:
        program: dict[str, Any] = {"repeat": 1, "steps": []}
        for _ in range(50):
            program = {"repeat": 1, "steps": [program]}
        with pytest.raises(LimitExceeded):
            run(session, program)

    def test_near_names_are_suggested(self, session: Session) -> None:
        with pytest.raises(NoSuchOp) as op:
            run(session, step("relu6x", input="x"))
        assert op.value.hint is not None
        with pytest.raises(UnknownParameter) as parameter:
            run(session, step("sum", input="x", dims=1))
        assert parameter.value.hint is not None
        assert parameter.value.hint.facts["near"] == "dim"
        with pytest.raises(NoSuchTensor) as tensor:
            run(session, step("sum", input="xx"))
        assert tensor.value.hint is not None
        assert tensor.value.hint.facts["near"] == ["x"]


class TestDryRun:
    def test_shapes_dtypes_and_flags_without_doing_anything(self, session: Session) -> None:
        before = state(session)
        steps = [
            step("mm", "h", input="x", mat2="y"),
            step("sum", "l", input="h"),
            step("backward", input="l"),
            step("split", "parts", input="h", split_size_or_sections=1),
            step("add_", input="y", other=1),
        ]
        planned = run(session, *steps, return_=["h", "l", "parts", "x.grad"], dry_run=True)
        assert state(session) == before
        real = run(session, *steps, return_=["h", "l", "parts", "x.grad"])

        def shown(answer: Any) -> Any:
            if isinstance(answer, list):
                return [shown(a) for a in answer]
            return answer.shape, answer.dtype, answer.requires_grad, answer.grad_fn, answer.is_leaf

        for name in ("h", "l", "parts", "x.grad"):
            assert shown(planned["results"][name]) == shown(real["results"][name]), name
            assert name == "parts" or planned["results"][name].values is None
        assert planned["peak_bytes"] >= 16 + 4 + 16
        assert planned["steps_run"] == real["steps_run"]

    def test_errors_are_found_and_huge_results_cost_nothing(self, session: Session) -> None:
        with pytest.raises(Invalid) as caught:
            run(session, step("ones", "a", size=[3, 4]), step("mm", input="a", mat2="x"), dry_run=True)
        assert caught.value.step == [1]
        planned = run(session, step("ones", "a", size=[1 << 20, 1 << 20]), return_=["a"], dry_run=True)
        assert planned["results"]["a"].nbytes == 1 << 42
