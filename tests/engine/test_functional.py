"""Operations that call a program: autograd.functional, gradcheck; and anomaly mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.limits import Limits
from engine.program import run_program
from engine.session import Session
from engine.steps import compile_program
from tests.engine.programs import run, state, step, values

Json = dict[str, Any]


def function(inputs: str, *steps: Json, to: Any = "y") -> Json:
    return {"inputs": inputs.split(), "steps": list(steps), "return": to}


def double(*data: float, **options: Any) -> Json:
    return {"data": list(data), "dtype": "float64", **options}


def call(op: str, /, session: Session | None = None, **args: Any) -> Any:
    return run(session or Session("s"), step(f"autograd.{op}", "r", **args), return_=["r"])["results"]["r"]


def words(op: str, /, **args: Any) -> str:
    with pytest.raises(EngineError) as caught:
        call(op, **args)
    return caught.value.detail


SQUARE = function("x", step("mul", "y", input="x", other="x"))
CUBES = function("x", step("pow", "y", input="x", exponent=3), step("sum", "y", input="y"))
PRODUCT = function("a b", step("mul", "p", input="a", other="b"), step("sum", "y", input="p"))
BOTH = function("a b", step("mul", "p", input="a", other="b"), step("exp", "q", input="a"), to=["p", "q"])
LINEAR = function("x", step("mul", "y", input="x", other=2.0), step("sum", "y", input="y"))
CONSTANT = function("x", step("zeros", "y", size=[2]))


# ---------------------------------------------------------------- derivatives


def test_a_jacobian_has_the_shapes_of_output_and_input() -> None:
    f = function("x", step("sum", "y", input="x", dim=1))
    made = call("functional.jacobian", func=f, inputs={"data": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]})
    assert made.shape == (2, 2, 3)
    assert values(made) == [[[1, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 1]]]
    assert not made.requires_grad


def test_lists_of_inputs_and_outputs_give_lists() -> None:
    made = call("functional.jacobian", func=BOTH, inputs=[double(1, 2), double(3, 4)])
    p, q = made
    assert [values(x) for x in p] == [[[3, 0], [0, 4]], [[1, 0], [0, 2]]]
    np.testing.assert_allclose(values(q[0]), np.diag(np.exp([1.0, 2.0])))
    assert values(q[1]) == [[0, 0], [0, 0]]


def test_a_hessian() -> None:
    assert values(call("functional.hessian", func=CUBES, inputs=double(1, 2))) == [[6, 0], [0, 12]]
    made = call("functional.hessian", func=PRODUCT, inputs=[double(1, 2), double(3, 4)])
    assert [[values(x) for x in row] for row in made] == [
        [[[0, 0], [0, 0]], [[1, 0], [0, 1]]],
        [[[1, 0], [0, 1]], [[0, 0], [0, 0]]],
    ]


@pytest.mark.parametrize(
    "name, func, v, expected",
    [
        ("vjp", SQUARE, [1, 0.5], [2, 2]),
        ("jvp", SQUARE, [1, 0.5], [2, 2]),
        ("vhp", CUBES, [1, 0.5], [6, 6]),
        ("hvp", CUBES, [1, 0.5], [6, 6]),
    ],
)
def test_products_with_a_vector(name: str, func: Json, v: list[float], expected: list[float]) -> None:
    output, made = call(f"functional.{name}", func=func, inputs=double(1, 2), v=double(*v))
    assert values(made) == expected
    assert values(output) == ([1, 4] if func is SQUARE else 9)


def test_a_function_sees_what_its_caller_sees_and_leaves_no_names() -> None:
    session = Session("s")
    run(session, step("tensor", "w", data=[2.0, 3.0]), keep={"w": "w"})
    f = function("x", step("mul", "inner", input="x", other="w"), step("mul", "y", input="inner", other="z"))
    program = [step("autograd.functional.jacobian", "r", func=f, inputs="z")]
    reply = run(session, *program, inputs={"z": {"data": [1.0, 1.0]}}, return_=["r"])
    assert values(reply["results"]["r"]) == [[2, 0], [0, 3]]  # z is not x: it is held fixed
    with pytest.raises(EngineError, match="there is no tensor 'inner'"):
        run(session, *program, inputs={"z": {"data": [1.0, 1.0]}}, return_=["inner"])


def test_a_function_may_call_another_one() -> None:
    inner = function("t", step("pow", "u", input="t", exponent=3), to="u")
    product = step("autograd.functional.vjp", ["o", "g"], func=inner, inputs="x", v="one", create_graph=True)
    outer = function("x", product, to="g")
    reply = run(
        Session("s"),
        step("autograd.functional.jacobian", "r", func=outer, inputs="x"),
        inputs={"x": double(2, requires_grad=True), "one": double(1)},
        return_=["r"],
    )
    assert values(reply["results"]["r"]) == [[12]]


def test_with_create_graph_a_derivative_has_a_history() -> None:
    reply = run(
        Session("s"),
        step("autograd.functional.jacobian", "j", func=SQUARE, inputs="x", create_graph=True),
        step("sum", "s", input="j"),
        step("backward", input="s"),
        inputs={"x": double(1, 2, requires_grad=True)},
        return_=["j", "x.grad"],
    )
    assert values(reply["results"]["j"]) == [[2, 0], [0, 4]]
    assert values(reply["results"]["x.grad"]) == [2, 2]


# ---------------------------------------------------------------- refusals


REFUSED: list[tuple[str, Json, str]] = [
    (
        "functional.jacobian",
        {"func": CONSTANT, "inputs": double(1), "strict": True},
        (
            "Output 0 of the user-provided function does not require gradients. The outputs must be computed in a "
            "differentiable manner from the input when running in strict mode."
        ),
    ),
    (
        "functional.jacobian",
        {"func": BOTH, "inputs": [double(1), double(1)], "strict": True},
        "Output 1 of the user-provided function is independent of input 1. This is not allowed in strict mode.",
    ),
    (
        "functional.jacobian",
        {"func": SQUARE, "inputs": double(1), "strict": True, "vectorize": True},
        (
            "torch.autograd.functional.jacobian: `strict=True` and `vectorized=True` are not supported together. "
            "Please either set `strict=False` or `vectorize=False`."
        ),
    ),
    (
        "functional.hessian",
        {"func": LINEAR, "inputs": double(1), "strict": True},
        (
            "While computing the hessian, found that the jacobian of the user-provided function with respect to "
            "input 0 is independent of the input. This is not allowed in strict mode. You should ensure that your "
            "function is twice differentiable and that the jacobian depends on the inputs (this would be violated by a "
            "linear function for example)."
        ),
    ),
    (
        "functional.hessian",
        {"func": SQUARE, "inputs": double(1, 2)},
        "The Tensor returned by the function given to hessian should contain a single element",
    ),
    (
        "functional.hvp",
        {"func": BOTH, "inputs": [double(1), double(1)], "v": [double(1), double(1)]},
        "The function given to hvp should return a single Tensor",
    ),
    (
        "functional.vjp",
        {"func": SQUARE, "inputs": double(1, 2)},
        "The vector v can only be None if the user-provided function returns a single Tensor with a single element.",
    ),
    (
        "functional.jvp",
        {"func": SQUARE, "inputs": double(1, 2)},
        (
            "The vector v can only be None if the input to the user-provided function is a single Tensor with a single "
            "element."
        ),
    ),
    (
        "functional.vjp",
        {"func": SQUARE, "inputs": double(1, 2), "v": double(1)},
        "v has invalid size: should be torch.Size([2]) but got torch.Size([1]).",
    ),
    (
        "functional.jvp",
        {"func": PRODUCT, "inputs": [double(1), double(2)], "v": [double(1)]},
        "v is a tuple of invalid length: should be 2 but got 1.",
    ),
    (
        "functional.jacobian",
        {"func": BOTH, "inputs": [double(1)]},
        "the function takes 2 inputs (a, b), and 1 is given",
    ),
    (
        "functional.jacobian",
        {"func": {**SQUARE, "return": None}, "inputs": double(1)},
        "func needs a return: a name, or a list of them",
    ),
    (
        "functional.jacobian",
        {"func": "x", "inputs": double(1)},
        "func is a program, an object of inputs, steps and return, and got a string",
    ),
    (
        "gradcheck",
        {"func": SQUARE, "inputs": double(1)},
        "gradcheck expects at least one input tensor to require gradient, but none of them have requires_grad=True.",
    ),
]


@pytest.mark.parametrize("op, args, said", REFUSED)
def test_refusals_in_pytorchs_words(op: str, args: Json, said: str) -> None:
    assert words(op, **args) == said


def test_an_error_says_which_step_of_the_function_it_was_and_leaves_nothing() -> None:
    session = Session("s")
    run(session, step("tensor", "w", data=[2.0, 3.0]), keep={"w": "w"})
    before = state(session)
    f = function("x", step("exp", "y", input="x"), step("mm", "y", input="y", mat2="y"))
    with pytest.raises(EngineError) as caught:
        run(session, step("neg", input="w"), step("autograd.functional.jacobian", func=f, inputs="w"))
    assert (caught.value.step, caught.value.op) == ([1, 1], "mm")
    del caught  # its traceback holds the steps' tensors
    assert state(session) == before
    with pytest.raises(EngineError) as caught:  # what can be seen without a tensor is seen before anything runs
        run(session, step("autograd.functional.jacobian", func=function("x", step("nosuch")), inputs="w"))
    assert caught.value.step == [0, 0] or caught.value.step == [0]


def test_the_steps_of_every_call_are_counted_and_limited() -> None:
    x = double(1, 2, requires_grad=True)
    reply = run(Session("s"), step("autograd.gradcheck", func=SQUARE, inputs="x"), inputs={"x": x})
    assert reply["steps_run"] == 1 + 1 + 2 * 2  # itself, the function once, and twice for each element
    small = Session("s", limits=Limits(max_run=3))
    with pytest.raises(EngineError, match="more than the limit of 3 steps"):
        run(small, step("autograd.gradcheck", func=SQUARE, inputs="x"), inputs={"x": x})


def test_others_have_their_turn_between_the_steps_of_a_function() -> None:
    session = Session("s")
    program = {
        "inputs": {"x": double(1, 2, 3)},
        "steps": [step("autograd.functional.jacobian", func=SQUARE, inputs="x")],
    }
    turns = sum(1 for _ in run_program(compile_program(program, session.limits), session))
    assert turns == 1 + 3 + 1  # the function's step, three rows, the step itself


def test_a_dry_run_knows_the_shapes() -> None:
    def shapes(op: str, **args: Any) -> Any:
        reply = run(Session("s"), step(f"autograd.functional.{op}", "r", **args), return_=["r"], dry_run=True)
        return reply["results"]["r"]

    assert shapes("jacobian", func=SQUARE, inputs=double(1, 2)).shape == (2, 2)
    assert [[x.shape for x in row] for row in shapes("jacobian", func=BOTH, inputs=[double(1, 2), double(3, 4)])] == [
        [(2, 2), (2, 2)]
    ] * 2
    assert shapes("hessian", func=CUBES, inputs=double(1, 2, 3)).shape == (3, 3)
    assert [x.shape for x in shapes("hvp", func=CUBES, inputs=double(1, 2), v=double(1, 1))] == [(), (2,)]


# ---------------------------------------------------------------- gradcheck

CUT = function("x", step("detach", "c", input="x"), step("mul", "y", input="x", other="c"))


def test_gradients_that_agree() -> None:
    x = double(0.5, 1.5, requires_grad=True)
    assert call("gradcheck", func=SQUARE, inputs=x) is True
    assert call("gradcheck", func=BOTH, inputs=[x, double(1, 2, requires_grad=True)]) is True
    assert call("gradgradcheck", func=CUBES, inputs=x) is True
    z = {"data": [[0.5, 1.5]], "dtype": "complex128", "requires_grad": True}
    assert call("gradcheck", func=function("x", step("exp", "y", input="x")), inputs=z) is True
    assert call("gradcheck", func=function("x", step("abs", "y", input="x")), inputs=z) is True


def test_a_gradient_that_is_wrong() -> None:
    x = double(1, 2, requires_grad=True)
    assert call("gradcheck", func=CUT, inputs=x, raise_exception=False) is False
    said = words("gradcheck", func=CUT, inputs=x)
    assert said == (
        "Jacobian mismatch for output 0 with respect to input 0,\n"
        "numerical:tensor([[2.0000, 0.0000],\n        [0.0000, 4.0000]], dtype=torch.float64)\n"
        "analytical:tensor([[1., 0.],\n        [0., 2.]], dtype=torch.float64)\n"
    )


def test_a_function_without_a_gradient_must_be_constant() -> None:
    x = double(1, 2, requires_grad=True)
    moving = function("x", step("detach", "c", input="x"), step("mul", "y", input="c", other=2.0))
    assert words("gradcheck", func=moving, inputs=x) == "Numerical gradient for function expected to be zero"
    assert call("gradcheck", func=CONSTANT, inputs=x) is True


def test_float32_is_too_coarse_and_the_hint_says_so() -> None:
    with pytest.raises(EngineError) as caught:
        call("gradcheck", func=CUBES, inputs={"data": [1.0, 2.0], "requires_grad": True})
    assert (caught.value.code, caught.value.hint and caught.value.hint.key) == ("gradcheck-failed", "double-precision")


def test_a_check_changes_nothing() -> None:
    session = Session("s")
    run(session, step("tensor", "w", data=[1.0, 2.0], dtype="float64", requires_grad=True), keep={"w": "w"})
    before = state(session)
    changing = function(
        "x", step("clone", "c", input="x"), step("mul_", input="c", other=2.0), step("exp", "y", input="c")
    )
    assert run(session, step("autograd.gradcheck", "r", func=changing, inputs=["w"]), return_=["r"])["results"]["r"]
    after = state(session)
    assert {**after, "seq": 0} == {**before, "seq": 0}


# ---------------------------------------------------------------- anomaly mode

X = {"data": [0.0, 1.0], "requires_grad": True}
NAN = (
    step("exp", "e", input="x"),
    step("sqrt", "a", input="x"),
    step("mul", "b", input="a", other=0.0),
    step("sum", "c", input="b"),
)


def test_anomaly_mode_names_the_function_and_the_step_that_made_it() -> None:
    for steps, step_ in (((*NAN, step("backward", input="c")), [1]), (({"repeat": 2, "steps": list(NAN)},
                         step("backward", input="c")), [0, 1])):  # fmt: skip
        with pytest.raises(EngineError) as caught:
            run(Session("s"), *steps, inputs={"x": X}, detect_anomaly=True)
        assert caught.value.detail == "Function 'SqrtBackward0' returned nan values in its 0th output."
        assert (caught.value.step, caught.value.op) == (step_, "sqrt")
        assert caught.value.round == ([2] if step_ == [0, 1] else None)
    reply = run(Session("s"), *NAN, step("backward", input="c"), inputs={"x": X}, return_=["x.grad"])
    assert np.isnan(values(reply["results"]["x.grad"])[0])


def test_anomaly_mode_of_a_session_outlives_its_program_and_a_restart() -> None:
    commits: list[Any] = []
    session = Session("s", on_commit=commits.append)
    run(session, step("autograd.set_detect_anomaly", mode=True))
    run(session, *NAN, inputs={"x": X}, keep={"c": "loss"})
    for each in (session, Session.rebuild(commits, "s")):
        assert run(each, step("is_anomaly_enabled", "r"), return_=["r"])["results"]["r"] is True
        with pytest.raises(EngineError, match="Function 'SqrtBackward0' returned nan") as caught:
            run(each, step("backward", input="loss"))
        assert (caught.value.step, caught.value.op) == ([0], "backward")  # its steps are gone: where it was noticed
    run(session, step("autograd.set_detect_anomaly", mode=False), step("backward", input="loss"))


def test_anomaly_mode_looks_at_second_derivatives_too() -> None:
    grad = step("autograd.grad", ["g"], outputs=["c"], inputs=["x"], create_graph=True)
    with pytest.raises(EngineError, match="returned nan values"):
        run(Session("s"), *NAN, grad, inputs={"x": X}, detect_anomaly=True)


# ---------------------------------------------------------------- flags


def test_grad_mode_as_steps_of_a_program() -> None:
    reply = run(
        Session("s"),
        step("is_grad_enabled", "a"),
        step("set_grad_enabled", mode=False),
        step("is_grad_enabled", "b"),
        step("exp", "y", input="x"),
        step("set_grad_enabled", mode=True),
        step("exp", "z", input="x"),
        step("is_leaf", "c", input="y"),
        step("is_leaf", "d", input="z"),
        step("requires_grad", "e", input="z"),
        step("grad_fn", "f", input="z"),
        inputs={"x": X},
        return_=list("abcdef"),
    )
    assert list(reply["results"].values()) == [True, False, True, False, True, "ExpBackward0"]
    session = Session("s")
    run(session, step("set_grad_enabled", mode=False))
    assert run(session, step("is_grad_enabled", "a"), return_=["a"])["results"]["a"] is True  # the next program's own


# ---------------------------------------------------------------- against PyTorch


@pytest.mark.parametrize(
    "name, complex_",
    [(name, False) for name in ("jacobian", "hessian", "vjp", "jvp", "vhp", "hvp")]
    + [(name, True) for name in ("vjp", "jvp", "vhp", "hvp")],
)
def test_what_pytorch_gives(name: str, complex_: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    rng = np.random.default_rng(7)
    a, b, v, w = (rng.standard_normal((2, 3)) + (1j * rng.standard_normal((2, 3)) if complex_ else 0) for _ in range(4))
    scalar = name not in ("jacobian", "vjp", "jvp")

    def theirs(x: Any, y: Any) -> Any:
        made = torch.sin(x) * y * y
        return torch.sum(torch.abs(made) ** 2) if scalar else made

    last = [step("abs", "m", input="m"), step("pow", "m", input="m", exponent=2), step("sum", "m", input="m")]
    steps = [
        step("sin", "s", input="x"),
        step("mul", "m", input="s", other="y"),
        step("mul", "m", input="m", other="y"),
    ]
    ours = function("x y", *steps, *(last if scalar else []), to="m")

    def literal(x: Any) -> Json:
        data = np.stack([x.real, x.imag], -1) if complex_ else x
        return {"data": data.tolist(), "dtype": "complex128" if complex_ else "float64"}

    args: Json = {"func": ours, "inputs": [literal(a), literal(b)]}
    given: list[Any] = [theirs, (torch.tensor(a), torch.tensor(b))]
    if name == "vjp":
        args["v"] = literal(v)
        given.append(torch.tensor(v))
    elif name in ("jvp", "vhp", "hvp"):
        args["v"] = [literal(v), literal(w)]
        given.append((torch.tensor(v), torch.tensor(w)))
    expected = getattr(torch.autograd.functional, name)(*given)
    found = call(f"functional.{name}", **args)

    def compare(x: Any, y: Any) -> None:
        if isinstance(y, tuple):
            assert len(x) == len(y)
            for one, other in zip(x, y, strict=True):
                compare(one, other)
        else:
            np.testing.assert_allclose(x.values, y.resolve_conj().numpy(), rtol=1e-9, atol=1e-12)

    compare(found, expected)
