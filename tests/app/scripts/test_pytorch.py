"""Scripts in PyTorch: what they say, and, where PyTorch is there, that they come to the same values."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import engine.ops  # noqa: F401
from app.scripts import pytorch
from engine import declare
from engine.answer import ArrayData
from engine.session import Session, host_values
from tests.engine.programs import run, step

CATALOGUE = declare.catalogue()
LABELS = {"session": "s-1", "name": None}


def script(session: Session) -> str:
    return pytorch.write({**session.query({"do": "history"}), **LABELS}, CATALOGUE)


def body(session: Session) -> list[str]:
    """The script's lines without the head and the prints."""
    lines = [line for line in script(session).splitlines() if line and not line.startswith("print(")]
    return lines[lines.index(f"torch.manual_seed({session.seed})") + 1 :]


def op(session: Session, name: str, /, out: Any = None, **args: Any) -> Any:
    """One call of an operation, as POST /v1/ops makes it."""
    return run(session, step(name, {"whole": "r"}, **args), return_=["r"], keep_all={"r": out})


@pytest.fixture
def session() -> Session:
    return Session("s", seed=7)


# ---------------------------------------------------------------- what they say


def test_calls_are_lines_and_tensors_are_variables(session: Session) -> None:
    run(session, inputs={"data": {"data": [[1.0, 2.0]], "requires_grad": True}}, keep_all={"data": "x"})
    op(session, "mul", input="x", other="x")
    op(session, "nn.functional.relu", "h", input="t2")
    op(session, "topk", input="h", k=1)
    op(session, "sum", "loss", input="h")
    run(session, step("backward", input="loss", retain_graph=True), return_=["x.grad"])
    op(session, "add_", input="t4", other=1)
    op(session, "getitem", "part", input="x", index=[0, "1:", None, "..."])
    run(session, step("_release", input="t4"))
    op(session, "view", input="h", size=[2, 1])
    assert body(session) == [
        "x = torch.tensor([[1.0, 2.0]]).requires_grad_()",
        "t2 = torch.mul(x, x)",
        "h = torch.nn.functional.relu(t2)",
        "result = torch.topk(h, k=1)",
        "t4 = result.values",
        "t5 = result.indices",
        "loss = torch.sum(h)",
        "loss.backward(retain_graph=True)",
        "t4 = t4.add_(1)",
        "part = x[0, 1:, None, ...]",
        "del t4",
        "t8 = h.view(size=[2, 1])",
    ]


def test_a_program_keeps_its_names_apart_from_the_sessions(session: Session) -> None:
    run(session, inputs={"x": [1.0], "y": [2.0]}, keep={"x": "x", "y": "y"})
    run(
        session,
        {"repeat": 2, "steps": [step("add", "x", input="x", other="y")], "collect": {"x": 2}},
        inputs={"z": [3.0]},
        keep={"x": "sum"},
        no_grad=True,
    )
    assert body(session) == [
        "# call 1",
        "x = torch.tensor([1.0])",
        "y = torch.tensor([2.0])",
        "# call 2",
        "x_2 = x",
        "z = torch.tensor([3.0])",
        "with torch.no_grad():",
        "    x_collected = []",
        "    for round_1 in range(1, 3):",
        "        x_2 = torch.add(x_2, y)",
        "        if round_1 % 2 == 0:",
        "            x_collected.append(x_2.item())",
        "sum_ = x_2",
    ]


def test_a_name_that_is_bound_anew_is_a_variable_that_is_assigned_again(session: Session) -> None:
    run(session, inputs={"data": [1, 2]}, keep_all={"data": "x"})
    op(session, "float", "x", input="x")
    op(session, "add", "0.weight", input="x", other=1)
    op(session, "add", "class", input="0.weight", other=1)
    assert body(session) == [
        "x = torch.tensor([1, 2])",
        "x = x.float()",
        "_0_weight = torch.add(x, 1)",
        "class_ = torch.add(_0_weight, 1)",
    ]


@pytest.mark.parametrize("name", ["x", "0.weight", "class", "print", "t-1", "T", "x.y", "torch", "a-b", "None1"])
def test_every_name_becomes_an_identifier(name: str) -> None:
    made = pytorch._identifier(name)
    assert made.isidentifier()
    assert not keyword.iskeyword(made)
    assert made not in ("torch", "print")


def test_values_of_every_kind_are_written_so_that_python_reads_them(session: Session) -> None:
    arrays = {
        "f": ArrayData(np.array([0.1, np.nan, -np.inf], np.float32), "float32"),
        "b": ArrayData(np.array([0x3FC0], np.uint16), "bfloat16"),
        "i": ArrayData(np.array([1, 2], np.int64), "int64", inferred=True),
    }
    run(session, inputs={**{k: {"data": v} for k, v in arrays.items()}, "c": {"data": [[1, 2]], "dtype": "complex64"},
                         "s": {"data": [1, 2], "shape": [2, 1]}, "n": {"data": ["9007199254740993"], "dtype": "int64"}},
        keep={})  # fmt: skip
    assert body(session)[1:] == [
        'f = torch.tensor([0.10000000149011612, float("nan"), -float("inf")], dtype=torch.float32)',
        "b = torch.tensor([1.5], dtype=torch.bfloat16)",
        "i = torch.tensor([1, 2])",
        "c = torch.tensor([complex(1, 2)], dtype=torch.complex64)",
        "s = torch.tensor([1, 2]).reshape([2, 1])",
        "n = torch.tensor([9007199254740993], dtype=torch.int64)",
    ]


def test_a_history_that_was_cut_says_so_and_what_is_missing() -> None:
    from engine.limits import Limits

    session = Session("s", seed=7, limits=Limits(history_bytes=700))
    run(session, inputs={"data": [1.0] * 10}, keep_all={"data": "early"})
    for _ in range(5):
        op(session, "add", "late", input="early", other=1)
    text = script(session)
    assert "It begins at call" in text
    assert "early = None  # early: made before call" in text
    assert 'assert all(t is not None for t in [early]), "fill in what was made before: early"' in text
    compile(text, "script", "exec")


def test_an_optimizer_keeps_its_state_between_the_steps(session: Session) -> None:
    _train(session, "adam", "adam_state", lr=0.1)
    text = script(session)
    assert "def optimizer_step(kind, params, grads, state, **options):" in text
    assert "optimizer_step(torch.optim.Adam, [w], [g], state, lr=0.1)" in text
    assert "def optimizer_step" not in script(Session("s", seed=1))


SQUARE = {"inputs": ["x"], "steps": [step("mul", "y", input="x", other="x")], "return": "y"}


def test_a_function_that_an_operation_calls_is_a_function(session: Session) -> None:
    run(session, inputs={"data": [1.0, 2.0]}, keep_all={"data": "x"})
    op(session, "autograd.functional.jacobian", "j", func=SQUARE, inputs="x")
    op(
        session,
        "autograd.functional.vjp",
        func={**SQUARE, "return": ["y", "x"]},
        inputs=["x"],
        v=["x", {"data": [1.0, 0.0]}],
    )
    op(session, "requires_grad", input="j")
    assert body(session) == [
        "x = torch.tensor([1.0, 2.0])",
        "def function_1(x_1):",
        "    y = torch.mul(x_1, x_1)",
        "    return y",
        "j = torch.autograd.functional.jacobian(function_1, x)",
        "def function_2(x_2):",
        "    y = torch.mul(x_2, x_2)",
        "    return (y, x_2,)",
        "result = torch.autograd.functional.vjp(function_2, tuple([x]), v=tuple([x, torch.tensor([1.0, 0.0])]))",
        "t3 = result[0][0]",
        "t4 = result[0][1]",
        "t5 = result[1][0]",
        "j.requires_grad",
    ]


def _train(session: Session, name: str, maker: str, **options: Any) -> None:
    run(
        session,
        step(f"optim.{maker}", "state", params=["w"]),
        {
            "repeat": 12,
            "steps": [
                step("mul", "y", input="w", other="w"),
                step("sum", "loss", input="y"),
                step("autograd.grad", ["g"], outputs=["loss"], inputs=["w"]),
                step(f"optim.{name}_", params=["w"], grads=["g"], state="state", **options),
            ],
        },
        inputs={"w": {"data": [[1.0, -2.0]] if name == "muon" else [1.0, -2.0], "requires_grad": True}},
        keep={"w": "w"},
    )


# ---------------------------------------------------------------- what they come to, where PyTorch is there

UNSET = "memory that is not set has any values"
SIGNS = "the signs of singular vectors are open"
# Operations that are not compared, and why.
OPEN = {
    "empty": UNSET,
    "empty_like": UNSET,
    "empty_permuted": UNSET,
    "empty_strided": UNSET,
    "new_empty": UNSET,
    "new_empty_strided": UNSET,
    "svd": SIGNS,
    "linalg.svd": SIGNS,
    "lobpcg": SIGNS,
    "optim.lbfgs_": "torch.optim keeps its state inside; the script says so and raises",
    "nn.utils.clip_grad_value_": "the tensors of the example have no gradients",
    "cuda": "it moves a tensor to a GPU, which the service may lack where PyTorch has one",
}
# What PyTorch does not answer without a GPU: it raises. The others of torch.cuda answer 0 or False.
GPU = frozenset(("cuda.current_device", "cuda.get_device_name", "cuda.mem_get_info", "cuda.synchronize"))


def same(session: Session, variables: Mapping[str, Any]) -> None:
    """Whether the script's variables are the session's tensors."""
    for id, t in session.tensors.items():
        if t.name is not None and t.name.rpartition(".")[2].isdigit():
            continue  # of a list or a state, which is one variable
        found = variables[pytorch._identifier(t.name or id)]
        ours = host_values(t)
        if t.dtype.name == "bfloat16":
            ours = (ours.astype(np.uint32) << 16).view(np.float32)
            found = found.float()
        assert list(found.shape) == list(t.shape)
        assert str(found.dtype).removeprefix("torch.") in (t.dtype.name, "float32")
        np.testing.assert_allclose(found.detach().resolve_conj().numpy(), ours, rtol=1e-4, atol=1e-5)
        if t.grad is not None:
            np.testing.assert_allclose(found.grad.numpy(), host_values(t.grad), rtol=1e-4, atol=1e-5)


def ran(session: Session) -> dict[str, Any]:
    """The script's variables, once it has run. What it sets for all of PyTorch is set back."""
    import torch

    variables: dict[str, Any] = {}
    grad, dtype, anomaly = torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_anomaly_enabled()
    try:
        exec(compile(script(session), "script", "exec"), variables)
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.autograd.set_detect_anomaly(anomaly)
        torch.set_printoptions(profile="default")
    return variables


COMPARED = [op["name"] for op in CATALOGUE if op["name"] not in OPEN and "_state" not in op["name"]]
if find_spec("torch") is None:  # one skipped test says it as well as a thousand
    COMPARED = COMPARED[:1]


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.filterwarnings("ignore")
def test_every_operation_comes_to_the_same_in_pytorch(name: str, session: Session) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if name in GPU and not torch.cuda.is_available():
        pytest.skip("PyTorch raises without a GPU")
    entry = next(op for op in CATALOGUE if op["name"] == name)
    op(session, name, **entry["example"])
    same(session, ran(session))


@pytest.mark.parametrize(
    "name, maker, options",
    [
        ("sgd", "sgd_state", {"lr": 0.1, "momentum": 0.9}),
        ("adam", "adam_state", {"lr": 0.1}),
        ("adamw", "adam_state", {"lr": 0.1, "weight_decay": 0.1}),
        ("rmsprop", "rmsprop_state", {"lr": 0.01}),
        ("adagrad", "adagrad_state", {"lr": 0.1}),
        ("adadelta", "adadelta_state", {}),
        ("adamax", "adamax_state", {}),
        ("nadam", "nadam_state", {}),
        ("radam", "radam_state", {}),
        ("asgd", "asgd_state", {}),
        ("rprop", "rprop_state", {}),
        ("adafactor", "adafactor_state", {"weight_decay": 0.1}),
        ("muon", "muon_state", {}),
    ],
)
def test_optimizers_come_to_the_same_in_pytorch(
    name: str, maker: str, options: dict[str, Any], session: Session
) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    _train(session, name, maker, **options)
    same(session, ran(session))


def test_functions_come_to_the_same_in_pytorch(session: Session) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    rebinding = {
        "inputs": ["x"],
        "steps": [
            step("mul", "w", input="w", other="x"),  # what is outside, until it is made here
            {"repeat": 2, "steps": [step("mul", "w", input="w", other="x")]},
            step("add", "later", input="w", other="z"),
        ],
        "return": "later",
    }
    inner = step("autograd.functional.vjp", ["o", "g"], func=SQUARE, inputs="x", v="z", create_graph=True)
    both = {"inputs": ["a", "b"], "steps": [step("mul", "y", input="a", other="b")], "return": ["y", "a"]}
    run(session, inputs={"w": [2.0, 3.0]}, keep={"w": "w"})
    run(
        session,
        step("autograd.functional.jacobian", "first", func=rebinding, inputs="z"),
        step("autograd.functional.jacobian", "second", func={**SQUARE, "steps": [inner], "return": "g"}, inputs="z"),
        step("autograd.functional.jacobian", {"whole": "third"}, func=both, inputs=["z", "w"]),
        step("autograd.functional.jvp", {"whole": "fourth"}, func=both, inputs=["z", "w"], v=["w", [1.0, 2.0]]),
        step("autograd.gradcheck", func=SQUARE, inputs={"data": [1.0], "dtype": "float64", "requires_grad": True}),
        step("add", "later", input="first", other=1),
        inputs={"z": {"data": [1.0, -1.0]}},
        keep={"first": "first", "second": "second", "third": "third", "fourth": "fourth", "later": "later"},
    )
    op(session, "autograd.functional.hessian", "fifth", func={**SQUARE, "steps": [
        step("mul", "fifth", input="x", other="w"), step("pow", "y", input="fifth", exponent=3),
        step("sum", "s", input="y")], "return": "s"}, inputs=[1.0, 2.0])  # fmt: skip
    assert len(session.tensors) > 8
    same(session, ran(session))


def test_a_training_with_random_numbers_comes_to_the_same_in_pytorch(session: Session) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    run(
        session,
        step("randn", "x", size=[8, 3]),
        step("randn", "w", size=[3, 1], requires_grad=True),
        {
            "repeat": 20,
            "collect": {"loss": 5},
            "steps": [
                step("mm", "y", input="x", mat2="w"),
                step("nn.functional.dropout", "y", input="y", p=0.5),
                step("mean", "loss", input="y"),
                step("backward", input="loss"),
                {**step("sub_", input="w", other="w.grad", alpha=0.1), "no_grad": True},
                step("zero_", input="w.grad"),
            ],
        },
        keep={"w": "w", "x": "x", "loss": "loss"},
    )
    op(session, "detach", "frozen", input="w")
    op(session, "setitem_", input="frozen", index=[0], value=5)
    op(session, "split", input="x", split_size=3)
    variables = ran(session)
    same(session, variables)
    assert len(variables["loss_collected"]) == 4
