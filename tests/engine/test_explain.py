"""Notes: why a result has its dtype, shape, device and memory, what `dim` did, and why a gradient is none."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from engine import declare
from engine.dtypes import DTYPES, result_type
from engine.errors import EngineError, Invalid
from engine.op import REGISTRY
from engine.reasons import ABOUT, CATEGORIES, Operand, joined_dtype
from engine.session import Session
from tests.engine.programs import run, step

Notes = list[dict[str, Any]]


@pytest.fixture
def session() -> Session:
    return Session("s", seed=1, devices=("cpu", "cuda:0"))


def notes(session: Session, *steps: dict[str, Any], return_: str = "r", **fields: Any) -> Notes:
    found: Notes = run(session, *steps, explain=True, return_=[return_], **fields)["notes"][return_]
    return found


def about(found: Notes, what: str) -> list[tuple[str, dict[str, Any]]]:
    return [(note["key"], note["facts"]) for note in found if note["key"].startswith(f"{what}.")]


def one(op: str, what: str, /, **args: Any) -> list[tuple[str, dict[str, Any]]]:
    """What is said about one thing when an operation runs alone."""
    return about(notes(Session("s", seed=1), step(op, "r", **args)), what)


F = {"data": [[1, 2, 3], [4, 5, 6]], "dtype": "float32"}
I = [[1, 2, 3], [4, 5, 6]]
ZERO_D = {"data": 2.5, "dtype": "float64"}
COMPLEX = {"data": [[3, 4]], "dtype": "complex64"}


# ---------------------------------------------------------------- dtype


@pytest.mark.parametrize(
    "op, args, key, facts",
    [
        ("add", {"input": F, "other": F}, "dtype.same", {"params": ["input", "other"], "dtype": "float32"}),
        ("neg", {"input": I}, "dtype.kept", {"param": "input", "dtype": "int64"}),
        (
            "add",
            {"input": I, "other": F},
            "dtype.category",
            {
                "param": "other",
                "dtype": "float32",
                "other": "input",
                "have": "int64",
                "high_word": "float",
                "low_word": "int",
            },
        ),
        (
            "add",
            {"input": F, "other": {"data": [1.0], "dtype": "float64"}},
            "dtype.wider",
            {"param": "other", "dtype": "float64", "other": "input", "have": "float32"},
        ),
        (
            "add",
            {"input": {"data": [1], "dtype": "int8"}, "other": {"data": [1], "dtype": "uint8"}},
            "dtype.both",
            {"a": "int8", "b": "uint8", "dtype": "int16"},
        ),
        (
            "mul",
            {"input": I, "other": 1.5},
            "dtype.raised-by-number",
            {
                "param": "other",
                "other": "input",
                "have": "int64",
                "dtype": "float32",
                "high_word": "float",
                "low_word": "int",
            },
        ),
        (
            "mul",
            {"input": I, "other": ZERO_D},
            "dtype.raised-by-0d",
            {
                "param": "other",
                "other": "input",
                "have": "int64",
                "dtype": "float64",
                "high_word": "float",
                "low_word": "int",
            },
        ),
        (
            "mul",
            {"input": F, "other": ZERO_D},
            "dtype.over-0d",
            {"param": "input", "dtype": "float32", "other": "other", "have": "float64"},
        ),
        (
            "mul",
            {"input": F, "other": 2},
            "dtype.over-number",
            {"param": "input", "dtype": "float32", "other": "other", "have": "int64"},
        ),
        ("div", {"input": I, "other": I}, "dtype.to-float", {"have": "int64", "dtype": "float32"}),
        ("sqrt", {"input": I}, "dtype.to-float", {"have": "int64", "dtype": "float32"}),
        ("sum", {"input": [True, False]}, "dtype.int64-sum", {"have": "bool", "dtype": "int64"}),
        (
            "cumsum",
            {"input": {"data": [1], "dtype": "int32"}, "dim": 0},
            "dtype.int64-sum",
            {"have": "int32", "dtype": "int64"},
        ),
        ("gt", {"input": F, "other": 2}, "dtype.truth", {"dtype": "bool"}),
        ("argmax", {"input": F}, "dtype.index", {"dtype": "int64"}),
        ("count_nonzero", {"input": F}, "dtype.count", {"dtype": "int64"}),
        ("abs", {"input": COMPLEX}, "dtype.real", {"have": "complex64", "dtype": "float32"}),
        ("to", {"input": F, "dtype": "int64"}, "dtype.given", {"dtype": "int64"}),
        ("long", {"input": F}, "dtype.cast", {"op": "long", "have": "float32", "dtype": "int64"}),
        ("zeros", {"size": [2]}, "dtype.default", {"dtype": "float32"}),
        ("zeros", {"size": [2], "dtype": "int8"}, "dtype.given", {"dtype": "int8"}),
        ("arange", {"start": 3}, "dtype.whole-numbers", {"dtype": "int64"}),
        ("tensor", {"data": [1, 2]}, "dtype.data-int", {"param": "data", "dtype": "int64"}),
        ("tensor", {"data": [1, 2.5]}, "dtype.data-float", {"param": "data", "dtype": "float32"}),
        ("tensor", {"data": [True]}, "dtype.data-bool", {"param": "data", "dtype": "bool"}),
        ("LongTensor", {"data": [1]}, "dtype.constructor", {"op": "LongTensor", "dtype": "int64"}),
        ("gather", {"input": F, "dim": 1, "index": [[0]]}, "dtype.of", {"param": "input", "dtype": "float32"}),
        (
            "where",
            {"condition": [True], "input": [1.5], "other": [2.5]},
            "dtype.same",
            {"params": ["input", "other"], "dtype": "float32"},
        ),
    ],
)
def test_dtype(op: str, args: dict[str, Any], key: str, facts: dict[str, Any]) -> None:
    assert one(op, "dtype", **args) == [(key, facts)]


def test_in_place_the_dtype_stays(session: Session) -> None:
    found = notes(session, step("add_", "r", input="x", other=1), inputs={"x": F})
    assert about(found, "dtype") == [("dtype.inplace", {"param": "x", "dtype": "float32"})]
    assert about(found, "memory") == [("memory.inplace", {"param": "x", "version": 1})]


def test_the_winner_has_the_dtype_of_the_result() -> None:
    """For any two operands, of any dtypes and ranks, what is said to have won is the dtype that result_type gives."""
    for a in DTYPES.values():
        for b in DTYPES.values():
            for ranks in ((2, 2), (2, 1), (1, 2), (2, 0), (1, 1), (1, 0)):
                if 0 in ranks and b.name not in ("bool", "int64", "float32", "complex64"):
                    continue  # a number is of one of these
                try:
                    joint = result_type([(a, ranks[0]), (b, ranks[1])])
                except EngineError:
                    continue
                note = joined_dtype([Operand("a", a, ranks[0]), Operand("b", b, ranks[1])], joint)
                facts = note.facts
                assert facts["dtype"] == joint.name
                if note.key in ("dtype.category", "dtype.wider", "dtype.over-number", "dtype.over-0d"):
                    assert {"a": a, "b": b}[facts["param"]] is joint, (note, ranks)
                if "high_word" in facts:
                    assert CATEGORIES.index(facts["high_word"]) > CATEGORIES.index(facts["low_word"])


# ---------------------------------------------------------------- shape and dim


@pytest.mark.parametrize(
    "op, args, found",
    [
        ("add", {"input": F, "other": F}, [("shape.cell-by-cell", {"params": ["input", "other"], "shape": [2, 3]})]),
        ("add", {"input": F, "other": 1}, []),
        (
            "add",
            {"input": F, "other": [1.5, 2.5, 3.5]},
            [("shape.missing", {"param": "other", "have": [3], "shape": [2, 3], "dims": [0], "sizes": [2]})],
        ),
        (
            "add",
            {"input": [[1], [2]], "other": [1, 2, 3]},
            [
                ("shape.stretched", {"param": "input", "have": [2, 1], "shape": [2, 3], "dims": [1], "sizes": [3]}),
                ("shape.missing", {"param": "other", "have": [3], "shape": [2, 3], "dims": [0], "sizes": [2]}),
            ],
        ),
        ("add", {"input": F, "other": ZERO_D}, [("shape.single", {"param": "other", "have": [], "shape": [2, 3]})]),
        (
            "mm",
            {"input": I, "mat2": [[1], [2], [3]]},
            [("shape.matmul", {"a": [2, 3], "b": [3, 1], "inner": 3, "shape": [2, 1]})],
        ),
        (
            "matmul",
            {"input": I, "other": [1, 2, 3]},
            [("shape.matrix-vector", {"a": [2, 3], "b": [3], "inner": 3, "shape": [2]})],
        ),
        ("dot", {"input": [1, 2], "other": [3, 4]}, [("shape.dot", {"size": 2})]),
        (
            "reshape",
            {"input": I, "shape": [3, -1]},
            [
                ("shape.resized", {"have": [2, 3], "shape": [3, 2], "count": 6}),
                ("shape.guessed", {"size": 2, "count": 6}),
            ],
        ),
        ("t", {"input": I}, [("shape.swapped", {"have": [2, 3], "shape": [3, 2]})]),
        (
            "permute",
            {"input": I, "dims": [-1, 0]},
            [("shape.permuted", {"have": [2, 3], "shape": [3, 2], "dims": [1, 0]})],
        ),
        ("zeros", {"size": [2, 2]}, [("shape.size", {"shape": [2, 2]})]),
    ],
)
def test_shape(op: str, args: dict[str, Any], found: Any) -> None:
    assert one(op, "shape", **args) == found


@pytest.mark.parametrize(
    "op, args, found",
    [
        ("sum", {"input": I, "dim": 1}, [("dim.joined-row", {"dim": 1, "count": 3, "have": [2, 3], "shape": [2]})]),
        ("sum", {"input": I, "dim": -2}, [("dim.joined-column", {"dim": 0, "count": 2, "have": [2, 3], "shape": [3]})]),
        ("sum", {"input": I}, [("dim.all", {"count": 6, "have": [2, 3], "shape": []})]),
        ("sum", {"input": 1.5}, []),
        ("max", {"input": [1, 2], "dim": 0}, [("dim.joined-vector", {"dim": 0, "count": 2, "have": [2], "shape": []})]),
        (
            "mean",
            {"input": F, "dim": [0], "keepdim": True},
            [
                ("dim.joined-column", {"dim": 0, "count": 2, "have": [2, 3], "shape": [1, 3]}),
                ("dim.kept", {"dims": [0], "shape": [1, 3]}),
            ],
        ),
        (
            "amax",
            {"input": [[[1, 2]]], "dim": [0, 2]},
            [("dim.joined-several", {"dims": [0, 2], "count": 2, "have": [1, 1, 2], "shape": [1]})],
        ),
        ("softmax", {"input": F, "dim": -1}, [("dim.along-row", {"dim": 1, "count": 3, "have": [2, 3]})]),
        (
            "cat",
            {"tensors": [I, [[7, 8, 9]]], "dim": 0},
            [("dim.cat-column", {"dim": 0, "parts": [2, 1], "size": 3, "shape": [3, 3]})],
        ),
        ("stack", {"tensors": [I, I]}, [("dim.stack", {"dim": 0, "count": 2, "have": [2, 3], "shape": [2, 2, 3]})]),
        ("unsqueeze", {"input": [1, 2], "dim": -1}, [("dim.added", {"dim": 1, "have": [2], "shape": [2, 1]})]),
        ("squeeze", {"input": [[1, 2]]}, [("dim.dropped", {"dims": [0], "have": [1, 2], "shape": [2]})]),
        ("squeeze", {"input": [1, 2]}, [("dim.none-dropped", {"have": [2]})]),
        (
            "index_select",
            {"input": I, "dim": 1, "index": [0, 2]},
            [("dim.picked-row", {"dim": 1, "have": [2, 3], "shape": [2, 2]})],
        ),
        ("chunk", {"input": I, "chunks": 2, "dim": 0}, [("dim.cut-column", {"dim": 0, "count": 2, "have": [2, 3]})]),
    ],
)
def test_dim(op: str, args: dict[str, Any], found: Any) -> None:
    assert one(op, "dim", **args) == found


def test_of_several_results_each_has_its_own_notes(session: Session) -> None:
    found = notes(session, step("topk", {"whole": "r"}, input=F, k=1))
    assert [(n["key"], n.get("of")) for n in found if n["key"].startswith("dtype.")] == [
        ("dtype.kept", "values"),
        ("dtype.index", "indices"),
    ]
    assert [n.get("of") for n in found if n["key"].startswith("device.")] == [None]
    where = notes(session, step("topk", ["best", "where"], input=F, k=1), return_="where")
    assert about(where, "dtype") == [("dtype.index", {"dtype": "int64"})]


# ---------------------------------------------------------------- device and memory


def test_device() -> None:
    assert one("zeros", "device", size=[1]) == [("device.default", {"device": "cpu"})]
    assert one("zeros", "device", size=[1], device="cpu") == [("device.given", {"device": "cpu"})]
    assert one("neg", "device", input=F) == [("device.same", {"param": "input", "device": "cpu"})]


@pytest.mark.parametrize(
    "steps, found",
    [
        ([step("t", "r", input="x")], ("memory.view", {"param": "x"})),
        ([step("getitem", "r", input="x", index=[0])], ("memory.view", {"param": "x"})),
        ([step("getitem", "r", input="x", index=[[0, 1]])], ("memory.copy-index", {"param": "x"})),
        ([step("reshape", "r", input="x", shape=[6])], ("memory.view", {"param": "x"})),
        (
            [step("t", "y", input="x"), step("reshape", "r", input="y", shape=[6])],
            ("memory.copy-reshape", {"param": "y", "strides": [1, 3], "shape": [6]}),
        ),
        ([step("detach", "r", input="x")], ("memory.detached", {"param": "x"})),
        ([step("clone", "r", input="x")], ("memory.copy", {"param": "x"})),
        ([step("to", "r", input="x", dtype="float32")], ("memory.itself", {"param": "x"})),
    ],
)
def test_memory(session: Session, steps: Any, found: Any) -> None:
    assert about(notes(session, *steps, inputs={"x": F}), "memory") == [found]


def test_an_expanded_view_repeats_cells() -> None:
    assert one("expand", "memory", input=[1, 2], size=[3, 2]) == [
        ("memory.view", {"param": "input"}),
        ("memory.repeats", {"param": "input"}),
    ]


# ---------------------------------------------------------------- requires_grad and gradients

LEAF = {"data": [1.5, 2.5], "requires_grad": True}


@pytest.mark.parametrize(
    "made, found",
    [
        (step("mul", "r", input="x", other=2), ("requires_grad.recorded", {"param": "x", "grad_fn": "MulBackward0"})),
        ({**step("mul", "r", input="x", other=2), "no_grad": True}, ("requires_grad.no-grad", {"param": "x"})),
        (step("argmax", "r", input="x"), ("requires_grad.whole", {"dtype": "int64"})),
        (step("detach", "r", input="x"), ("requires_grad.detached", {"param": "x"})),
        (step("mul", "r", input="y", other="y"), ("requires_grad.none", {"params": ["y", "y"]})),
        (step("zeros", "r", size=[1], requires_grad=True), ("requires_grad.leaf", {})),
        ({**step("t", "r", input="x"), "no_grad": True}, ("requires_grad.view-no-grad", {"param": "x"})),
    ],
)
def test_requires_grad(session: Session, made: dict[str, Any], found: Any) -> None:
    assert about(notes(session, made, inputs={"x": LEAF, "y": [1.5]}), "requires_grad") == [found]


def test_gradients_in_a_program(session: Session) -> None:
    reply = run(
        session,
        step("mul", "y", input="x", other=2),
        step("sum", "loss", input="y"),
        step("backward", input="loss"),
        inputs={"x": LEAF, "other": LEAF, "plain": [1.5], "whole": [1]},
        return_=["x.grad", "y.grad", "other.grad", "plain.grad", "whole.grad", "loss"],
        explain=True,
    )
    said = {
        name: [(n["key"], n["facts"]) for n in found if n["key"].startswith("grad.")]
        for name, found in reply["notes"].items()
    }
    assert said == {
        "x.grad": [("grad.accumulated", {"name": "x"})],
        "y.grad": [("grad.not-leaf", {"name": "y", "grad_fn": "MulBackward0"})],
        "other.grad": [("grad.not-reached", {"name": "other"})],
        "plain.grad": [("grad.not-required", {"name": "plain"})],
        "whole.grad": [("grad.whole", {"name": "whole", "dtype": "int64"})],
        "loss": [("grad.not-leaf", {"name": "loss", "grad_fn": "SumBackward0"})],
    }
    assert {tuple(n["step"]) for n in reply["notes"]["loss"] if "step" in n} == {(1,)}


def test_a_gradient_that_is_missing_in_the_session(session: Session) -> None:
    def said() -> Any:
        return about(session.query({"do": "explain", "ref": "x"}), "grad")

    run(session, inputs={"x": LEAF}, keep={"x": "x"})
    assert said() == [("grad.unused", {"name": "x"})]
    run(session, step("mul", "y", input="x", other="x"), step("sum", "s", input="y"), keep={"y": "y", "s": "s"})
    assert said() == [("grad.no-backward", {"name": "x", "other": "s"})]
    run(session, step("backward", input="s"))
    assert said() == [("grad.accumulated", {"name": "x"})]
    run(session, step("_clear_grad", input="x"))
    assert said() == [("grad.cleared", {"name": "x", "other": "s"})]


def test_what_was_not_used_has_no_gradient(session: Session) -> None:
    steps = [
        step("mul", "y", input="x", other=2.0),
        step("sum", "s", input="y"),
        step("autograd.grad", {"whole": "r"}, outputs=["s"], inputs=["x", "z"], allow_unused=True),
    ]
    found = notes(session, *steps, inputs={"x": LEAF, "z": LEAF})
    assert about(found, "grad") == [("grad.unused-input", {"param": "inputs[1]"})]


def test_a_backward_pass_from_another_tensor(session: Session) -> None:
    steps = [step("mul", "y", input="x", other=2.0), step("sum", "s", input="z"), step("backward", input="s")]
    found = notes(session, *steps, inputs={"x": LEAF, "z": LEAF}, return_="x.grad")
    assert about(found, "grad") == [("grad.not-from", {"name": "x", "other": "y"})]


def test_a_read_says_whose_view_it_is(session: Session) -> None:
    run(session, step("t", "v", input="m"), inputs={"m": F}, keep={"m": "m", "v": "v"})
    assert about(session.query({"do": "explain", "ref": "v"}), "memory") == [("memory.view-of", {"base": "m"})]
    run(session, step("_release", input="m"))
    assert about(session.query({"do": "explain", "ref": "v"}), "memory") == [("memory.view-unnamed", {})]


# ---------------------------------------------------------------- programs


def test_a_result_is_explained_by_each_step_that_made_or_changed_it(session: Session) -> None:
    found = notes(
        session,
        step("zeros", "r", size=[2]),
        {"repeat": 3, "steps": [step("add_", input="r", other=1)]},
    )
    memory = [(n["step"], n["key"], n["facts"]) for n in found if n["key"].startswith("memory.")]
    assert memory == [([1, 0], "memory.inplace", {"param": "r", "version": 3})]
    assert {tuple(n["step"]) for n in found if "step" in n} == {(0,), (1, 0)}


def test_inputs_are_explained_by_how_they_were_written(session: Session) -> None:
    assert notes(session, inputs={"r": [1, 2]}) == [
        {"key": "dtype.data-int", "facts": {"param": "r", "dtype": "int64"}}
    ]


def test_explaining_changes_nothing(session: Session) -> None:
    """The same program gives the same results, graph and random state whether it is explained or not."""
    other = Session("s", seed=1)
    program = [
        step("rand", "x", size=[2, 3], requires_grad=True),
        step("t", "v", input="x"),
        step("matmul", "y", input="x", other="v"),
        step("sum", "s", input="y"),
        step("backward", input="s"),
        step("relu_", "y", input="y"),
    ]
    names = {"return_": ["x", "v", "y", "s", "x.grad"], "keep": {n: n for n in "xvys"}}
    plain, told = run(session, *program, **names), run(other, *program, explain=True, **names)
    assert "notes" not in plain
    assert set(told["notes"]) == set(plain["results"])
    for name, answer in plain["results"].items():
        mine = told["results"][name]
        assert answer.values.tobytes() == mine.values.tobytes()
        assert (answer.grad_fn, answer.version, answer.id) == (mine.grad_fn, mine.version, mine.id)
    assert session.ctx.rng.get_state() == other.ctx.rng.get_state()
    assert session.ctx.seq == other.ctx.seq


def test_the_steps_of_a_program_that_is_not_explained_are_the_declared_operations() -> None:
    before = {name: op.run for name, op in REGISTRY.items()}
    notes(Session("s", seed=1), step("add", "r", input=F, other=1))
    assert {name: op.run for name, op in REGISTRY.items()} == before


def test_a_dry_run_is_not_explained(session: Session) -> None:
    with pytest.raises(Invalid, match="dry run"):
        run(session, step("zeros", "r", size=[1]), return_=["r"], dry_run=True, explain=True)


# ---------------------------------------------------------------- the law


def bodies(name: str) -> list[dict[str, Any]]:
    """A call of each of the operation's samples; its own example, where it has no samples."""
    found = []
    for op in REGISTRY[name].overloads or [REGISTRY[name]]:
        if op.example is not None:
            found.append(op.example)
        for sample in op.samples() if op.samples else ():
            body = {
                n: declare.example_value(a, 3 * i) for i, (n, a) in enumerate(zip(op.names, sample.args, strict=False))
            }
            body.update({n: declare.example_value(v, 5) for n, v in sample.kwargs.items()})
            found.append(body)
    return found


@pytest.mark.parametrize("family", sorted({op.family for op in REGISTRY.values() if not op.internal}))
def test_every_call_can_be_explained(family: str) -> None:
    """Whatever call of an operation runs, runs explained too; each tensor is told about, in facts that can be sent."""
    ran = 0
    for name, op in sorted(REGISTRY.items()):
        if op.internal or op.family != family:
            continue
        for body in bodies(name):
            session = Session("s", seed=1)
            try:
                plain = run(session, step(name, {"whole": "r"}, **body), return_=["r"])
            except EngineError:
                continue  # an example may need a device that is not here, or a float where JSON has an integer
            ran += 1
            found = notes(Session("s", seed=1), step(name, {"whole": "r"}, **body))
            assert msgpack.packb(found), name
            assert {n["key"].partition(".")[0] for n in found} <= set(ABOUT), name
            if hasattr(plain["results"]["r"], "dtype"):
                (key,) = about(found, "dtype")
                assert key[1]["dtype"] == plain["results"]["r"].dtype, (name, body, key)
                assert about(found, "device"), name
    assert ran
