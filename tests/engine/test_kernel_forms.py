"""Kernels that take another way for some shapes give what the plain way gives, and plans take the same way.

Products with transposed matrices, steps of gradient descent by BLAS, gradients of biases, cross_entropy of few classes,
layer_norm of rows whose mean is near 0. What they are compared with is computed in float64 here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.backend import CPU
from engine.carriers import K
from engine.context import Context
from engine.limits import Limits
from engine.lower import equal_bits
from engine.op import REGISTRY
from engine.session import Session
from engine.tensor import Tensor
from tests.engine.programs import run, step
from tests.engine.tensors import call, context, host, tensor  # noqa: F401  a fixture

Floats = np.ndarray[Any, Any]


def normal(*shape: int, dtype: str = "float32", seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


@pytest.fixture(params=[True, False], ids=["avx512", "other"])
def blas(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds of OpenBLAS, whichever this machine has."""
    monkeypatch.setattr(CPU, "slow_at_transposed", request.param)
    return bool(request.param)


# ---------------------------------------------------------------- products

# (rows, inner size, columns) on both sides of each bound: few results, short sums, wide results, small products.
SHAPES = [
    (1, 64, 4096), (2, 64, 600), (2, 64, 601), (2, 31, 700), (3, 7, 900), (4, 32, 512), (4, 256, 512), (4, 784, 512),
    (16, 31, 128), (16, 32, 128), (16, 64, 31), (31, 64, 62), (32, 8, 512), (32, 64, 64), (32, 64, 63), (32, 128, 64),
    (33, 40, 70), (40, 200, 30), (64, 784, 256), (64, 130, 130), (70, 8, 120), (128, 64, 64), (200, 10, 10),
    (5, 0, 300),
    (0, 40, 80), (40, 40, 0), (1, 1, 1), (40, 1, 80),
]  # fmt: skip


def _close(made: Tensor, wanted: Floats) -> None:
    have = host(made)
    assert have.dtype == np.float32
    assert have.shape == wanted.shape
    inner = np.abs(wanted).max(initial=1.0)
    np.testing.assert_allclose(have, wanted, rtol=1e-5, atol=2e-6 * inner + 2e-5)
    assert made.array.flags.c_contiguous


@pytest.mark.usefixtures("context", "blas")
@pytest.mark.parametrize("m, inner, n", SHAPES)
def test_products_with_a_transposed_matrix(m: int, inner: int, n: int) -> None:
    a, w, b = normal(m, inner), normal(n, inner, seed=1), normal(n, seed=2)
    wanted = a.astype("float64") @ w.T.astype("float64")
    x, weight, bias = tensor(a), tensor(w), tensor(b)
    turned = call("transpose", weight, 0, 1)
    for name in ("mm", "matmul"):
        _close(call(name, x, turned), wanted)
    _close(call("nn.functional.linear", x, weight), wanted)
    _close(call("nn.functional.linear", x, weight, bias), wanted + b)
    _close(call("addmm", bias, x, turned, beta=0.5, alpha=2.0), 0.5 * b + 2 * wanted)
    if m and inner:
        _close(call("nn.functional.linear", tensor(a[None]), weight, bias), (wanted + b)[None])
    np.testing.assert_array_equal(host(x), a)
    np.testing.assert_array_equal(host(weight), w)


@pytest.mark.usefixtures("context", "blas")
@pytest.mark.parametrize(
    "cut",
    [
        lambda a, w: (a[:, ::2], w[:, ::2]),
        lambda a, w: (a[::2], w[::2]),
        lambda a, w: (a[::-1], w),
        lambda a, w: (a, w[:, :64]),
        lambda a, w: (np.broadcast_to(a[:1], a.shape), w),
        lambda a, w: (a.T.copy().T, w.T.copy().T),
    ],
)
def test_products_of_what_lies_otherwise_in_memory(cut: Callable[..., Any]) -> None:
    a, w = cut(normal(16, 128), normal(600, 128, seed=1))
    inner = min(a.shape[1], w.shape[1])
    a, w = a[:, :inner], w[:, :inner]
    x, weight = tensor(a), tensor(w)
    x.array, weight.array = a.copy() if 0 in a.strides or min(a.strides) < 0 else a, w
    wanted = a.astype("float64") @ w.T.astype("float64")
    made = call("mm", x, call("t", tensor(np.ascontiguousarray(w))))
    _close(made, wanted)
    _close(call("nn.functional.linear", x, weight, tensor(np.zeros(len(w), "float32"))), wanted)


@pytest.mark.usefixtures("context", "blas")
@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "float64", "complex64"])
def test_other_dtypes_are_multiplied_as_they_were(dtype: str) -> None:
    a, w = (np.asarray(normal(*shape, dtype="float64") * 10).astype(dtype) for shape in ((16, 64), (200, 64)))
    made = host(call("mm", tensor(a), call("t", tensor(w))))
    np.testing.assert_allclose(made, a @ w.T, rtol=1e-6, atol=1e-4 if dtype == "complex64" else 0)
    assert made.dtype == dtype


# ---------------------------------------------------------------- steps down


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [10, 4095, 4096, 5001, 1 << 21])
def test_a_step_of_gradient_descent(dtype: str, size: int) -> None:
    p, g = normal(size, dtype=dtype), normal(size, dtype=dtype, seed=1)
    g[:3] = [np.inf, np.nan, 0.0]
    made = tensor(p)
    call("optim.sgd_", [made], [tensor(g)], lr=0.1)
    wanted = p.astype("longdouble") - np.array(0.1, dtype).astype("longdouble") * g.astype("longdouble")
    np.testing.assert_allclose(host(made), wanted.astype(dtype), rtol=4 * np.finfo(dtype).eps, atol=1e-7)


@pytest.mark.usefixtures("context")
def test_a_rate_of_zero_is_multiplied_too() -> None:
    p, g = normal(5000), np.full(5000, np.inf, "float32")
    made = tensor(p)
    call("optim.sgd_", [made], [tensor(g)], lr=0.0)
    assert np.isnan(host(made)).all()


@pytest.mark.usefixtures("context")
def test_a_gradient_that_shares_the_parameters_memory_is_read_before_it_is_written() -> None:
    values = normal(6001)
    base = tensor(values)
    call("optim.sgd_", [call("narrow", base, 0, 1, 6000)], [call("narrow", base, 0, 0, 6000)], lr=0.5)
    np.testing.assert_allclose(host(base)[1:], values[1:] - np.float32(0.5) * values[:-1], rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("context")
def test_parameters_that_lie_otherwise_in_memory_go_down_too() -> None:
    values, g = normal(80, 100), normal(100, 80, seed=1)
    base = tensor(values)
    call("optim.sgd_", [call("t", base), tensor(normal(5000))], [tensor(g), tensor(normal(5000))], lr=0.5)
    np.testing.assert_allclose(host(base), values - np.float32(0.5) * g.T, rtol=1e-6, atol=1e-7)


# ---------------------------------------------------------------- sums, losses, normalization


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("rows, columns", [(31, 5), (32, 5), (64, 256), (4096, 3), (4097, 3), (64, 1), (40, 0)])
def test_the_gradient_of_a_bias_is_the_sum_of_the_rows(rows: int, columns: int) -> None:
    x, b, g = tensor(normal(rows, columns)), tensor(normal(columns)), normal(rows, columns, seed=1)
    b.requires_grad = True
    (made,) = call("autograd.grad", [call("add", x, b)], [b], [tensor(g)])
    np.testing.assert_allclose(host(made), g.astype("float64").sum(0), rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("shape", [(64, 10), (300, 2), (9, 32), (64, 33), (2000, 10)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_cross_entropy_of_few_and_many_classes(shape: tuple[int, int], reduction: str, scale: float) -> None:
    values = normal(*shape) * np.float32(scale)
    classes = np.random.default_rng(3).integers(0, shape[1], shape[0])
    at = values.astype("float64")
    top = at.max(1, keepdims=True)
    log_p = at - top - np.log(np.exp(at - top).sum(1, keepdims=True))
    count = shape[0] if reduction == "mean" else 1
    slope = np.exp(log_p)
    slope[np.arange(shape[0]), classes] -= 1
    for turned in (False, True):  # the second one is a view of a matrix in the other order
        x = call("t", tensor(np.ascontiguousarray(values.T))) if turned else tensor(values)
        before = host(x)
        leaf = call("detach", x)
        leaf.requires_grad = True
        loss = call("nn.functional.cross_entropy", leaf, tensor(classes), reduction=reduction)
        wanted = -log_p[np.arange(shape[0]), classes].sum() / count
        np.testing.assert_allclose(host(loss), wanted, rtol=1e-5)
        (made,) = call("autograd.grad", [loss], [leaf])
        np.testing.assert_allclose(host(made), slope / count, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(host(x), before)


ALONE = {
    "_cross_entropy": [
        ((64, 10), None, "mean", -100, 0.0),
        ((64, 10), None, "none", -100, 0.0),
        ((64, 10), None, "sum", 3, 0.0),
        ((64, 10), 10, "mean", -100, 0.1),
        ((40, 300), None, "mean", -100, 0.0),
        ((2, 3), None, "mean", -100, 0.0),
        ((5,), None, "sum", -100, 0.0),
        ((30, 5, 4), None, "mean", -100, 0.2),
        ((0, 4), None, "mean", -100, 0.0),
    ]
}


def test_every_kernel_of_one_result_alone_is_compared() -> None:
    assert {name for name, op in REGISTRY.items() if op.alone} == set(ALONE)


@pytest.mark.parametrize("case", ALONE["_cross_entropy"], ids=str)
def test_probabilities_alone_are_those_of_cross_entropy(case: Any, context: Context) -> None:  # noqa: F811
    shape, classes, *rest = case
    op = REGISTRY["_cross_entropy"]
    assert op.kernel is not None
    x = normal(*shape) * 8
    rows = () if len(shape) == 1 else (shape[0], *shape[2:])
    target = np.arange(int(np.prod(rows))).reshape(rows) % 4 % shape[-1 if len(shape) == 1 else 1]
    given = (K(CPU, context), x, target, classes and normal(classes), *rest)
    made = op.kernel(*given)
    assert equal_bits(op.alone["probs"](*given), made[op.outputs.index("probs")])


@pytest.mark.parametrize("collect", [{}, {"loss": 3}], ids=["not", "every third"])
def test_a_loss_that_nobody_needs_changes_nothing_else(collect: dict[str, int]) -> None:
    """Without its loss a round of a plan is other code than the interpreter's."""
    left = []
    for plan_from in (0, 3):
        session = Session("s", limits=Limits(plan_from=plan_from))
        inputs = {"w": {"data": normal(64, 10).tolist(), "dtype": "float32", "requires_grad": True}}
        inputs["t"] = {"data": [i % 10 for i in range(64)]}
        rounds = [
            step("nn.functional.cross_entropy", "loss", input="w", target="t"),
            step("autograd.grad", ["g"], outputs=["loss"], inputs=["w"]),
            step("optim.sgd_", None, params=["w"], grads=["g"], lr=0.5),
        ]
        program = {"repeat": 7, "steps": rounds, "collect": collect}
        reply = run(session, program, inputs=inputs, return_=["w", "loss"])
        left.append(([reply["results"][name].values.tobytes() for name in ("w", "loss")], reply["collected"]))
    assert reply["plans"][0]["rounds"] == 5
    assert left[0] == left[1]


def _offsets(rows: int, kind: str) -> Floats:
    made = {"none": 0.0, "near": 1.5, "far": 300.0}
    if kind in made:
        return np.full((rows, 1), made[kind])
    return np.where(np.arange(rows) % 7 == 3, 50.0, 0.0)[:, None]  # some rows far from 0


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("kind", ["none", "near", "far", "some"])
@pytest.mark.parametrize("rows, width", [(300, 256), (5000, 64), (40, 1000), (3, 5)])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm_of_rows_with_any_mean(kind: str, rows: int, width: int, affine: bool) -> None:
    x = (normal(rows, width) + _offsets(rows, kind)).astype("float32")
    x[0] = x[0, 0]  # of which only rounding is left, over the root of eps
    w, b = (normal(width, seed=1), normal(width, seed=2)) if affine else (None, None)
    g = normal(rows, width, seed=3)
    g[0] = 0
    at, up = x.astype("float64"), g.astype("float64")
    mean, r = at.mean(1, keepdims=True), 1 / np.sqrt(at.var(1, keepdims=True) + 1e-5)
    n = (at - mean) * r
    scaled = up if w is None else up * w
    of_x = r * (scaled - scaled.mean(1, keepdims=True) - n * (scaled * n).mean(1, keepdims=True))
    inputs = [tensor(given) for given in (x, w, b) if given is not None]
    for t in inputs:
        t.requires_grad = True
    made = call("nn.functional.layer_norm", inputs[0], [width], *inputs[1:])
    slack = {"none": 1, "near": 2, "far": 300, "some": 50}[kind]  # float32 holds that much fewer digits of x - mean
    wanted = n if w is None or b is None else n * w + b
    np.testing.assert_allclose(host(made)[1:], wanted[1:], rtol=1e-5, atol=4e-6 * slack)
    found = call("autograd.grad", [made], inputs, [tensor(g)])
    np.testing.assert_allclose(host(found[0])[1:], of_x[1:], rtol=1e-4, atol=4e-6 * slack)
    if affine:
        bound = 1e-6 * slack * rows**0.5 * 10
        np.testing.assert_allclose(host(found[1]), (up * n).sum(0), rtol=1e-5, atol=bound)
        np.testing.assert_allclose(host(found[2]), up.sum(0), rtol=1e-5, atol=bound)


# ---------------------------------------------------------------- plans

MODEL = [
    step("nn.functional.linear", "h", input="x", weight="w0", bias="b0"),
    step("relu", "h", input="h"),
    step("nn.functional.linear", "h", input="h", weight="w1"),
    step("nn.functional.gelu", "h", input="h"),
    step("t", "v", input="w2"),
    step("mm", "h", input="h", mat2="v"),
    step("nn.functional.cross_entropy", "loss", input="h", target="target"),
    step("autograd.grad", ["g0", "gb", "g1", "g2"], outputs=["loss"], inputs=["w0", "b0", "w1", "w2"]),
    step("optim.sgd_", None, params=["w0", "b0", "w1", "w2"], grads=["g0", "gb", "g1", "g2"], lr=0.1),
]
SIZES = {"x": (40, 100), "w0": (300, 100), "b0": (300,), "w1": (90, 300), "w2": (10, 90)}


@pytest.mark.usefixtures("blas")
@pytest.mark.parametrize("batch", [2, 40])
def test_a_plan_gives_the_bits_of_the_interpreter(batch: int) -> None:
    found = []
    for plan_from in (0, 3):
        session = Session("s", seed=7, limits=Limits(plan_from=plan_from))
        for name, shape in SIZES.items():
            size = [batch, shape[1]] if name == "x" else list(shape)
            steps = [step("randn", name, size=size), step("mul", name, input=name, other=0.1)]
            if name != "x":
                steps.append(step("requires_grad_", None, input=name))
            run(session, *steps, keep={name: name})
        run(session, step("randint", "target", low=0, high=10, size=[batch]), keep={"target": "target"})
        names = {name: name for name in (*SIZES, "target")}
        for _ in range(2):
            reply = run(
                session, {"repeat": 6, "steps": MODEL, "collect": {"loss": 1}}, inputs=names, return_=list(SIZES)
            )
        found.append((reply, {n: t.values.tobytes() for n, t in reply["results"].items()}))
    (slow, bits), (fast, other) = found
    assert fast["plans"][0]["rounds"] == 5
    assert not slow["plans"]
    assert slow["collected"] == fast["collected"]
    assert bits == other
