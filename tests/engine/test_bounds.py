"""What a session may hold and answer: refused in time, with what frees it, and nothing changes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine import costs
from engine.answer import ArrayData
from engine.context import HERE
from engine.errors import EngineError, LimitExceeded, OutOfMemory, OutOfTime
from engine.history import History
from engine.limits import Limits
from engine.op import REGISTRY
from engine.session import Session
from tests.engine.programs import run, state, step

MIB = 1 << 20


def session(**limits: Any) -> Session:
    return Session("s", seed=0, limits=Limits(**limits))


def refused(s: Session, kind: type[EngineError], *steps: dict[str, Any], **fields: Any) -> EngineError:
    """The refusal of a program, after which everything is as before."""
    before = state(s)
    found: EngineError | None = None
    try:
        run(s, *steps, **fields)
    except kind as error:  # its traceback would hold the tensors of the program
        found = error.with_traceback(None)
        found.__context__ = found.__cause__ = None
    assert found is not None
    assert state(s) == before
    assert found.hint is not None
    return found


# ---------------------------------------------------------------- tensors without a name


def test_tensors_without_a_name_are_limited_and_deleting_is_never_refused() -> None:
    s = session(max_unnamed=2)
    for _ in range(2):
        run(s, step("ones", {"whole": "r"}, size=[2]), keep_all={"r": None})
    error = refused(s, OutOfMemory, step("ones", {"whole": "r"}, size=[2]), keep_all={"r": None})
    assert (error.code, error.facts["held"], error.facts["limit"]) == ("too-many-unnamed", 2, 2)
    assert error.hint is not None
    assert error.hint.key == "delete-unnamed"
    run(s, step("ones", {"whole": "r"}, size=[2]), keep_all={"r": "named"})
    run(s, step("ones", "r", size=[2]), return_=["r"])
    run(s, step("_release_unnamed"))
    run(s, step("ones", {"whole": "r"}, size=[2]), keep_all={"r": None})
    assert list(s.names) == ["named"]


def test_names_are_limited_too() -> None:
    s = session(max_names=1)
    run(s, step("ones", "r", size=[2]), keep={"r": "a"})
    assert refused(s, OutOfMemory, step("ones", "r", size=[2]), keep={"r": "b"}).code == "too-many-names"
    run(s, step("ones", "r", size=[2]), keep={"r": "a"})


# ---------------------------------------------------------------- the tape


def forward(name: str, numel: int = 1000) -> dict[str, Any]:
    """A program that leaves a loss whose tape holds two tensors of so many float32."""
    return {
        "inputs": {"w": {"data": [1.0] * numel, "requires_grad": True}},
        "steps": [
            step("mul", "h", input="w", other=2),
            step("mul", "h", input="h", other="h"),
            step("sum", "loss", input="h"),
        ],
        "keep": {"loss": name},
    }


def send(s: Session, program: dict[str, Any]) -> Any:
    return run(s, *program["steps"], **{key: value for key, value in program.items() if key != "steps"})


def test_the_tape_has_a_limit_of_its_own() -> None:
    s = session(tape_bytes=20_000)
    send(s, forward("a"))
    send(s, forward("b"))
    assert s.bytes_held()["tape"] == 16_000
    program = forward("c")
    error = refused(s, OutOfMemory, *program["steps"], inputs=program["inputs"], keep=program["keep"])
    assert error.code == "tape-memory"
    assert error.hint is not None
    assert error.hint.facts["first"] in ("a", "b", "c")
    run(s, step("ones", "r", size=[10_000]), keep={"r": "big"})  # it records nothing, and is not the tape's
    run(s, step("_release", input="a"))
    send(s, program)
    refused(s, OutOfMemory, *program["steps"], inputs=program["inputs"], keep={"loss": "d"})
    run(s, step("backward", input="b"), step("_release", input="b"))
    send(s, forward("d"))


def test_a_tensor_that_only_the_tape_still_needs_counts_as_the_tapes() -> None:
    s = session(tape_bytes=10_000)
    run(
        s,
        step("mul", "h", input="w", other=2),
        step("mul", "y", input="h", other="h"),
        inputs={"w": {"data": [1.0] * 2000, "requires_grad": True}},
        keep={"h": "h", "y": "y"},
    )
    run(s, step("_release", input="h"))  # never refused, though the tape has it now
    assert s.bytes_held()["tape"] == 16_000
    refused(s, OutOfMemory, step("mul", "z", input="y", other=2), keep={"z": "z"})


# ---------------------------------------------------------------- time


def test_a_program_has_a_time_limit_and_says_where_it_was() -> None:
    s = session(max_seconds=1e-9)
    run(s, step("ones", "x", size=[2]), return_=["x"])  # done in its first turn
    rounds = {
        "repeat": 1_000_000,
        "steps": [step("relu", "x", input="x"), {"repeat": 1, "steps": [step("relu", input="x")]}],
    }
    error = refused(s, OutOfTime, step("ones", "x", size=[2]), rounds)
    assert error.code == "time-limit"
    assert error.step is not None
    assert error.step[0] == 1
    assert error.round is not None
    assert error.facts["steps_run"] >= 1


@pytest.mark.parametrize("op", ["backward", "matrix_power"])
def test_one_step_of_many_parts_ends_in_time_too(op: str) -> None:
    s = session(max_seconds=1e-9)
    s.limits.max_seconds = 0
    inputs = {"w": {"data": [[1.0]], "requires_grad": True}}
    run(s, *[step("mul", "w", input="w", other=1.0)] * 50, inputs=inputs, keep={"w": "w"})
    s.limits.max_seconds = 1e-9
    one = {"backward": step("backward", input="w"), "matrix_power": step("matrix_power", input="w", n=100)}[op]
    assert refused(s, OutOfTime, one).code == "time-limit"
    s.limits.max_seconds = 0
    run(s, one)


def test_planned_rounds_are_stopped_too() -> None:
    s = session(max_seconds=1e-9)
    error = refused(
        s, OutOfTime, step("ones", "x", size=[2]), {"repeat": 1_000_000, "steps": [step("relu", "x", input="x")]}
    )
    assert error.step == [1] or error.step == [1, 0]


def test_without_a_limit_nothing_is_stopped() -> None:
    s = session(max_seconds=0)
    reply = run(s, step("ones", "x", size=[2]), {"repeat": 3000, "steps": [step("relu", "x", input="x")]})
    assert reply["steps_run"] == 3001


@pytest.mark.parametrize(
    "one",
    [
        step("mm", input="a", mat2="a"),
        step("matmul", input="a", other="a"),
        step("einsum", equation="ij,jk->ik", operands=["a", "a"]),
        step("nn.functional.linear", input="a", weight="a"),
        step("linalg.inv", A="a"),
        step("linalg.svd", A="a"),
        step("linalg.eigh", A="a"),
        step("linalg.eig", A="a"),
        step("linalg.eigvals", A="a"),
        step("linalg.lu", A="a"),
        step("linalg.lstsq", A="a", B="a"),
        step("linalg.matrix_rank", A="a"),
        step("linalg.solve_triangular", input="a", B="a", upper=True),
        step("geqrf", input="a"),
        step("cdist", x1="a", x2="a", p=3.0),
        step("nn.functional.pdist", input="a"),
        step("chain_matmul", matrices=["a", "a", "a"]),
    ],
    ids=lambda one: one["op"],
)
def test_what_cannot_end_in_time_is_not_begun(one: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "CORE", 1e5)
    s = session(max_seconds=0.001)
    s.limits.max_seconds = 0  # the clock is another matter here
    run(s, step("ones", "a", size=[300, 300]), keep={"a": "a"})
    error = refused(s, OutOfTime, one)
    assert error.code == "too-costly"
    assert error.step == [0]
    assert error.facts["cost"] > 300**3 / 3


@pytest.mark.parametrize(
    "one",
    [
        step("max_pool2d", input="a", kernel_size=150, stride=1),
        step("max_pool2d", input="a", kernel_size=150, stride=1, return_indices=True),
        step("nn.functional.avg_pool2d", input="a", kernel_size=150, stride=1),
        step("nn.functional.lp_pool2d", input="a", norm_type=2, kernel_size=150, stride=1),
    ],
    ids=str,
)
def test_pools_that_cannot_end_in_time_are_not_begun(one: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "CORE", 1e5)
    s = session(max_seconds=0.001)
    s.limits.max_seconds = 0
    run(s, step("ones", "a", size=[1, 1, 300, 300]), keep={"a": "a"})
    error = refused(s, OutOfTime, one)
    assert error.code == "too-costly"
    assert error.facts["cost"] > 150 * 300 * 150


def test_costs_are_counted_from_shapes() -> None:
    class A:
        def __init__(self, *shape: int) -> None:
            self.shape = shape

    assert costs.COSTS["mm"]((A(2, 3), A(3, 4))) == 2 * 2 * 3 * 4
    assert costs.COSTS["matmul"]((A(5, 2, 3), A(3, 4))) == 5 * 48
    assert costs.COSTS["nn.functional.linear"]((A(7, 3), A(4, 3))) == 2 * 7 * 3 * 4
    conv = costs.COSTS["nn.functional.conv2d"]
    assert conv((A(2, 3, 8, 8), A(4, 3, 3, 3), None, 1, 0, 1, 1)) == 2 * 2 * 36 * 4 * 27
    assert conv((A(2, 4, 8, 8), A(4, 2, 3, 3), None, (2, 2), 0, 1, 2)) == 2 * 2 * 9 * 4 * 18
    assert costs.COSTS["nn.functional.conv_transpose1d"]((A(2, 3, 8), A(3, 4, 5))) == 2 * 48 * 20
    assert costs.COSTS["cdist"]((A(5, 2, 3), A(4, 3))) == 5 * 2 * 2 * 4 * 3
    assert costs.COSTS["_triangular"]((A(4, 4), A(5, 4, 2))) == 5 * 16 * 2
    pool = SimpleNamespace(input=(6, 8), output=(5, 3), kernel=(2, 4))
    assert costs.COSTS["_max_pool"]((A(2, 3, 6, 8), pool)) == 6 * (2 * 5 * 8 + 4 * 5 * 3)
    assert costs.COSTS["_avg_spread"]((A(2, 3, 5, 3), pool)) == 6 * (2 * 5 * 8 + 4 * 5 * 3)
    assert costs.COSTS["_max_places"]((A(2, 3, 6, 8), A(2, 3, 5, 3), pool)) == 6 * 15 * 8
    assert costs.COSTS["_qr"]((A(6, 4),)) == pytest.approx(4 / 3 * 6 * 4 * 4)
    assert all(name in REGISTRY for name in costs.COSTS)


# ---------------------------------------------------------------- answers


def test_an_answer_that_spells_out_too_many_numbers_is_refused() -> None:
    s = session(max_values=1500)
    run(s, step("ones", "x", size=[2000]), keep={"x": "x"}, values="auto")
    assert refused(s, LimitExceeded, step("add", "y", input="x", other=1), return_=["y"]).code == "answer-too-large"
    assert run(s, return_=["x"], values="auto")["results"]["x"].values is None
    with pytest.raises(LimitExceeded):
        s.query({"do": "read", "ref": "x", "spelled": True}, "all")
    assert s.query({"do": "read", "ref": "x"}, "all").values.size == 2000  # as bytes
    assert s.query({"do": "read", "ref": "x", "index": "0:1000", "spelled": True}, "all").values.size == 1000


# ---------------------------------------------------------------- memory


def test_over_memory_says_what_holds_it() -> None:
    s = session(session_bytes=MIB)
    run(s, step("ones", "r", size=[200_000]), keep={"r": "weights"})
    error = refused(s, OutOfMemory, step("ones", "r", size=[200_000]))
    assert (error.facts["asked"], error.facts["held"], error.facts["free"]) == (800_000, 800_000, MIB - 800_000)
    assert error.hint is not None
    assert error.hint.key == "free-biggest"
    assert error.hint.facts["holders"] == ["weights (t1) (800000 bytes)"]
    assert error.hint.facts["first"] == "weights"


def test_every_operation_whose_size_is_in_the_values_asks_for_memory_itself() -> None:
    dynamic = {op.name: op for op in REGISTRY.values() if op.kind != "overloads" and op.dynamic}
    del dynamic["_lstsq"]  # of whose size the values decide only whether there are residuals: one number a column
    assert len(dynamic) >= 7
    assert [name for name, op in dynamic.items() if op.guard is None] == []


@pytest.mark.parametrize(
    "one",
    [
        step("nn.functional.one_hot", input=[10**6]),
        step("bincount", input=[10**6]),
        step("bincount", input=[1], minlength=10**6),
        step("repeat_interleave", input=[1.5, 2.5], repeats={"data": [10**6, 1]}),
        step("repeat_interleave", input=[1.5, 2.5], repeats={"data": [2**62, 2**62]}),
        step("nonzero", input="mask"),
        step("argwhere", input="mask"),
        step("masked_select", input="x", mask="mask"),
        step("getitem", input="x", index=["mask"]),
        step("unique", input="x"),
        step("unique_consecutive", input="x"),
    ],
    ids=lambda one: one["op"],
)
def test_sizes_that_are_in_the_values_are_admitted(one: dict[str, Any]) -> None:
    s = session(session_bytes=3 * MIB)
    run(s, step("ones", "x", size=[450_000]), step("gt", "m", input="x", other=0), keep={"x": "x", "m": "mask"})
    held = s.ctx.ledger.held
    error = refused(s, OutOfMemory, one)
    assert error.facts["asked"] > 3 * MIB - held
    assert s.ctx.ledger.held == held


def test_few_hits_need_little_memory() -> None:
    """What is asked for is what the values ask for, not what the shape allows."""
    s = session(session_bytes=3 * MIB)
    run(s, step("zeros", "x", size=[500_000]), step("gt", "m", input="x", other=0), keep={"x": "x", "m": "mask"})
    for one in (step("nonzero", "r", input="mask"), step("masked_select", "r", input="x", mask="mask")):
        assert 0 in run(s, one, return_=["r"])["results"]["r"].shape


# ---------------------------------------------------------------- counting


def test_steps_are_counted_by_operation_each_round_of_them() -> None:
    s = session()
    rounds = {"repeat": 20, "steps": [step("relu", "x", input="x"), step("mul", "x", input="x", other=2)]}
    run(s, step("ones", "x", size=[2]), rounds)
    with pytest.raises(EngineError):
        run(s, step("ones", "x", size=[2]), step("add", input="nothing", other=1))
    assert s.tally.to_data() == {
        "programs": 1,
        "failed": 1,
        "steps": 41,
        "ops": {"ones": 1, "relu": 20, "mul": 20},
        "seconds": None,
    }


def test_times_are_taken_where_they_are_asked_for() -> None:
    s = session(op_times=True)
    run(s, step("ones", "x", size=[2]), {"repeat": 20, "steps": [step("relu", "x", input="x")]})
    seconds = s.tally.seconds
    assert seconds is not None
    assert set(seconds) == {"ones", "relu", "(planned rounds)"}
    assert all(spent >= 0 for spent in seconds.values())


# ---------------------------------------------------------------- history


def test_what_was_done_is_remembered_as_it_was_sent() -> None:
    import numpy as np

    s = session()
    data = ArrayData(np.ones(100, np.float32), "float32")
    run(s, step("add_", input="x", other=1), inputs={"x": {"data": data}}, keep={"x": "x"})
    with pytest.raises(EngineError):
        run(s, step("add", input="nothing", other=1))
    run(s, step("ones", "y", size=[2]), dry_run=True)
    found = s.query({"do": "history"})
    assert (found["begins"], found["whole"], found["seed"], found["default_dtype"]) == (1, True, 0, "float32")
    (call,) = found["calls"]
    assert call["ids"] == {"x": "t1"}
    assert call["program"]["inputs"]["x"]["data"].array.tolist() == [1.0] * 100  # and not what it became


def test_the_history_is_bounded_and_says_where_it_begins() -> None:
    s = session(history_bytes=1000)
    for _ in range(50):
        run(s, step("ones", "x", size=[2]))
    found = s.query({"do": "history"})
    assert 1 <= len(found["calls"]) < 10
    assert found["calls"][-1]["number"] == 50
    assert found["begins"] == found["calls"][0]["number"] > 1
    assert found["whole"] is False
    run(s, inputs={"x": {"data": [[1.5] * 100] * 100}})  # more than all that may be kept
    assert s.query({"do": "history"}) | {"calls": []} == {**found, "begins": 52, "calls": []}
    run(s, step("ones", "x", size=[2]))
    assert s.query({"do": "history"})["begins"] == 52


@pytest.mark.parametrize("value", [2**70, 1 + 2j, "\ud800", [[[[1.5]]]], {"re": 1.0, "im": 2}, None, -0.0, True])
def test_values_of_every_kind_are_remembered_as_they_were(value: Any) -> None:
    history = History(1000)
    program = {"steps": [{"op": "add", "args": {"input": value}}]}
    history.add(history.keep(program, 0), {"r": "t1"})
    calls = history.to_data()["calls"]
    if value == 2**70:
        assert calls == []  # no room in 64 bits: a gap, and not another number
    else:
        assert repr(calls) == repr([{"number": 1, "program": program, "ids": {"r": "t1"}}])


def test_nothing_is_remembered_where_nothing_may_be() -> None:
    s = session(history_bytes=0)
    run(s, step("ones", "x", size=[2]))
    found = s.query({"do": "history"})
    assert (found["calls"], found["begins"], found["whole"]) == ([], 2, False)


def test_a_restored_session_does_not_claim_to_know_its_beginning() -> None:
    commits: list[Any] = []
    first = Session("s", seed=1, on_commit=commits.append)
    run(first, step("ones", "x", size=[2]), keep={"x": "x"})
    again = Session.rebuild(commits, "s", seed=1)
    run(again, step("add", "y", input="x", other=1), keep={"y": "y"})
    assert again.query({"do": "history"})["whole"] is False


def test_the_context_outside_of_sessions_has_no_limits() -> None:
    assert HERE.ctx.max_seconds == 0
    assert HERE.ctx.holders() == []
