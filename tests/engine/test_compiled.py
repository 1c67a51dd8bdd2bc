"""Compiled kernels agree with NumPy's forms. Where Numba is missing their loops run as Python: the same arithmetic."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from engine import compiled
from engine.autograd import run_backward
from engine.backend import COMPILED_FROM, CPU
from engine.compile import TILE, TILED_FROM
from engine.context import Context
from engine.limits import Limits
from engine.session import Session
from engine.tensor import Tensor
from tests.engine.programs import floats, run, step
from tests.engine.tensors import call, context, host, tensor

__all__ = ["context"]  # a fixture

FLOAT, DOUBLE = np.float32, np.float64


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Compiled kernels in use; the names of those that an operation asked for and got."""
    found: set[str] = set()
    plain = type(CPU).compiled

    def noticing(self: Any, name: str, *arrays: Any) -> Any:
        made = plain(self, name, *arrays)
        if made is not None:
            found.add(name)
        return made

    monkeypatch.setattr(CPU, "kernels", compiled.load())
    monkeypatch.setattr(type(CPU), "compiled", noticing)
    with np.errstate(all="ignore"):
        yield found


class Case(NamedTuple):
    """An operation on inputs, of which those that float have gradients; kernels that it is to use."""

    kernels: set[str]
    run: Callable[..., Any]
    inputs: Callable[[np.random.Generator, Any], list[Any]]
    backward: bool = True
    dtypes: tuple[Any, ...] = (FLOAT,)
    exact: bool = False


def _normal(*shape: int) -> Callable[[np.random.Generator, Any], Any]:
    return lambda rng, d: rng.standard_normal(shape).astype(d)


def _wild(*shape: int) -> Callable[[np.random.Generator, Any], Any]:
    """Numbers of all sizes with infinities, NaN and zeros of both signs among them."""

    def make(rng: np.random.Generator, d: Any) -> Any:
        made = (rng.standard_normal(shape) * 10 ** rng.uniform(-6, 3, shape)).astype(d)
        flat = made.reshape(-1)
        flat[:6] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40]
        return made

    return make


def _rows(rng: np.random.Generator, d: Any) -> Any:
    made = rng.standard_normal((12, 150)).astype(d) * d(30)
    made[0, 3], made[1, 140], made[2, 7] = np.nan, np.inf, -np.inf
    made[3] = -np.inf
    return made


def _index(high: int, *shape: int, dtype: Any = np.int64) -> Callable[[np.random.Generator, Any], Any]:
    return lambda rng, d: rng.integers(0, high, shape).astype(dtype)


def _all(*makers: Any) -> Callable[[np.random.Generator, Any], list[Any]]:
    return lambda rng, d: [make(rng, d) for make in makers]


BOTH = (FLOAT, DOUBLE)
CASES = {
    "erf": Case({"erf"}, lambda x: call("erf", x), _all(_wild(1500)), False),
    "gelu": Case({"gelu", "gelu_slope"}, lambda x: call("nn.functional.gelu", x), _all(_normal(30, 50))),
    "gelu of anything": Case({"gelu"}, lambda x: call("nn.functional.gelu", x), _all(_wild(1500)), False),
    "sigmoid": Case({"sigmoid"}, lambda x: call("sigmoid", x), _all(_wild(1500))),
    "silu": Case({"silu", "silu_slope"}, lambda x: call("nn.functional.silu", x), _all(_normal(1500))),
    "relu": Case({"unless_low"}, lambda x: call("relu", x), _all(_wild(1500)), True, BOTH, True),
    "hardtanh": Case({"between"}, lambda x: call("nn.functional.hardtanh", x), _all(_wild(1500)), True, BOTH, True),
    "leaky_relu": Case(
        {"leaky"}, lambda x: call("nn.functional.leaky_relu", x, 0.1), _all(_wild(1500)), True, BOTH, True
    ),
    "hardswish": Case(
        {"hardswish", "hardswish_slope"},
        lambda x: call("nn.functional.hardswish", x),
        _all(_wild(1500)),
        True,
        BOTH,
        True,
    ),
    "hardshrink": Case({"beyond"}, lambda x: call("hardshrink", x, 0.1), _all(_wild(1500)), True, BOTH, True),
    "softshrink": Case(
        {"softshrink", "beyond"},
        lambda x: call("nn.functional.softshrink", x, 0.1),
        _all(_wild(1500)),
        True,
        BOTH,
        True,
    ),
    "softmax": Case({"softmax", "softmax_back"}, lambda x: call("softmax", x, 1), _all(_rows)),
    "softmax of 3-D": Case(
        {"softmax", "softmax_back"}, lambda x: call("softmax", x, -1), _all(_normal(3, 5, 100)), True, (FLOAT,)
    ),
    "softmax in double": Case({"softmax_back"}, lambda x: call("softmax", x, 1), _all(_rows), True, (DOUBLE,)),
    "log_softmax": Case({"log_softmax", "log_softmax_back"}, lambda x: call("log_softmax", x, 1), _all(_rows)),
    "logsumexp": Case({"logsumexp"}, lambda x: call("logsumexp", x, 1), _all(_rows)),
    "cross_entropy": Case(
        {"softmax", "scale_rows"},
        lambda x, t: call("nn.functional.cross_entropy", x, t, label_smoothing=0.1),
        _all(_normal(20, 100), _index(100, 20)),
    ),
    "layer_norm": Case(
        {"layer_norm", "layer_norm_back"},
        lambda x, w, b: call("nn.functional.layer_norm", x, [60], w, b),
        _all(_normal(4, 6, 60), _normal(60), _normal(60)),
        True,
        BOTH,
    ),
    "layer_norm without parameters": Case(
        {"layer_norm", "layer_norm_back"},
        lambda x: call("nn.functional.layer_norm", x, [6, 60]),
        _all(_normal(4, 6, 60)),
    ),
    "batch_norm by known statistics": Case(
        {"affine_rows"},
        lambda x, w, b: call(
            "nn.functional.batch_norm", x, tensor(np.ones(5, x.array.dtype)), tensor(np.full(5, 2, x.array.dtype)), w, b
        ),
        _all(_normal(4, 5, 8, 9), _normal(5), _normal(5)),
        True,
        BOTH,
    ),
    "gather": Case(
        {"gather", "add_along"},
        lambda x, i: call("gather", x, 1, i),
        _all(_wild(40, 30), _index(30, 40, 60)),
        True,
        BOTH,
        True,
    ),
    "gather in the middle": Case(
        {"gather", "add_along"},
        lambda x, i: call("gather", x, 1, i),
        _all(_normal(6, 30, 8), _index(30, 6, 40, 8, dtype=np.int32)),
        True,
        BOTH,
        True,
    ),
    "scatter_add": Case(
        {"add_along"},
        lambda x, i, s: call("scatter_add", x, 0, i, s),
        _all(_normal(30, 40), _index(30, 60, 40), _normal(60, 40)),
        True,
        BOTH,
        True,
    ),
    "embedding": Case(
        {"add_rows"}, lambda w, i: call("embedding", w, i), _all(_normal(40, 32), _index(40, 9, 9)), True, BOTH
    ),
    "index_select": Case(
        {"add_rows"}, lambda x, i: call("index_select", x, 0, i), _all(_normal(600, 32), _index(600, 64)), True, BOTH
    ),
    "cumsum": Case(
        {"cumsum"}, lambda x: call("cumsum", x, 1), _all(_normal(40, 30)), True, BOTH, True
    ),
    "conv2d": Case(
        {"add_columns"},
        lambda x, w: call("nn.functional.conv2d", x, w, None, [2, 1], [2, 0], [1, 2], 2),
        _all(_normal(3, 6, 17, 18), _normal(8, 3, 4, 3)),
        True,
        BOTH,
    ),
    "conv1d": Case(
        {"add_columns"},
        lambda x, w: call("nn.functional.conv1d", x, w, None, 1, 3),
        _all(_normal(3, 6, 101), _normal(8, 6, 4)),
    ),
    "conv_transpose3d": Case(
        {"add_columns"},
        lambda x, w: call("nn.functional.conv_transpose3d", x, w, None, [2, 1, 3], [1, 0, 2]),
        _all(_normal(2, 6, 5, 6, 4), _normal(6, 3, 3, 2, 4)),
    ),
    "grid_sample": Case(
        {"grid_mix", "grid_spread", "grid_dots"},
        lambda x, g: call("nn.functional.grid_sample", x, g, align_corners=False),
        _all(_normal(2, 3, 16, 17), _normal(2, 19, 20, 2)),
        True,
        BOTH,
    ),
    "grid_sample, the nearest": Case(
        {"grid_mix", "grid_spread"},
        lambda x, g: call("nn.functional.grid_sample", x, g, "nearest", "border", False),
        _all(_wild(2, 3, 16, 17), _normal(2, 19, 20, 2)),
        True,
        BOTH,
    ),
    "cumsum of rows": Case(
        {"cumsum"}, lambda x: call("cumsum", x, 1), _all(_normal(3, 20, 300)), True, BOTH, True
    ),
}  # fmt: skip


for _name, _largest in (("largest", True), ("smallest", False)):
    for _part, _at in (("values", 0), ("indices", 1)):
        CASES[f"topk, {_name}, {_part}"] = Case(
            {"topk"},
            lambda x, large=_largest, at=_at: call("topk", call("round", x, decimals=1), 7, 1, large)[at],
            _all(_rows),
            _at == 0,
            BOTH,
            True,
        )


def _results(case: Case, arrays: list[Any]) -> list[Any]:
    inputs = [tensor(a) for a in arrays]
    floating = [t for t in inputs if t.dtype.is_floating]
    for t in floating:
        t.requires_grad = case.backward
    made = case.run(*inputs)
    assert type(made) is Tensor
    found = [host(made)]
    if case.backward:
        grad = np.random.default_rng(1).standard_normal(made.shape).astype(made.array.dtype)
        run_backward([made], [tensor(grad)])
        found += [host(t.grad) for t in floating if t.grad is not None]
    return found


def _agree(case: Case, arrays: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = _results(case, arrays)
    with monkeypatch.context() as patch:
        patch.setattr(CPU, "kernels", {})
        theirs = _results(case, arrays)
    assert len(ours) == len(theirs) > int(case.backward)
    for a, b in zip(ours, theirs, strict=True):
        if case.exact:
            np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))
        else:  # some units in the last place of what is added up
            single = a.dtype == FLOAT
            np.testing.assert_allclose(a, b, rtol=2e-6 if single else 1e-13, atol=1e-5 if single else 1e-13)


@pytest.mark.parametrize("name, d", [(name, d) for name, case in CASES.items() for d in case.dtypes])
def test_a_compiled_kernel_agrees_with_numpy(
    name: str, d: Any, context: Context, used: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    _agree(case, case.inputs(np.random.default_rng(0), d), monkeypatch)
    assert case.kernels <= used


def test_every_kernel_is_compared() -> None:
    compared = set().union(*(case.kernels for case in CASES.values())) | {"adam"}
    assert compared == set(compiled.load())


@pytest.mark.parametrize("d", BOTH)
def test_a_compiled_step_of_adam_agrees_with_numpy(
    d: Any, context: Context, used: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    values, grads = [rng.standard_normal(1500).astype(d) for _ in range(2)]

    def steps() -> list[Any]:
        p = tensor(values)
        state = call("optim.adam_state", [p])
        for _ in range(3):
            call("optim.adam_", [p], [tensor(grads)], state, lr=0.1)
        return [host(p), host(state["exp_avg"][0]), host(state["exp_avg_sq"][0])]

    ours = steps()
    assert used == {"adam"}
    monkeypatch.setattr(CPU, "kernels", {})
    for a, b in zip(ours, steps(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5 if d == FLOAT else 1e-12, atol=1e-6 if d == FLOAT else 1e-13)


def test_small_and_scattered_arrays_are_left_to_numpy(context: Context, used: set[str]) -> None:
    small = np.ones(COMPILED_FROM - 1, FLOAT)
    wide = np.ones((64, 128), FLOAT)
    call("erf", tensor(small))
    call("softmax", call("transpose", tensor(wide), 0, 1), 1)
    call("softmax", tensor(wide), 0)
    call("erf", tensor(wide.astype(DOUBLE)))
    assert used == set()
    call("erf", tensor(wide))
    assert used == {"erf"}


def _chain(shape: list[int], last: str) -> list[dict[str, Any]]:
    """A round whose gradients go through compiled loops, one of which is given a single number for all elements."""
    return [
        step("mul", "h", input="leaf", other="scale"),
        step("nn.functional.leaky_relu", "h", input="h", negative_slope=0.1),
        step("reshape", "h", input="h", shape=shape),
        step("tanh", "h", input="h"),
        step("nn.functional.hardtanh", "h", input="h", min_val=-0.5, max_val=0.5),
        step("relu", "h", input="h"),
        step("neg", last, input="h"),
        step("sum", "loss", input=last),
        step("autograd.grad", ["g"], outputs=["loss"], inputs=["leaf"]),
        step("optim.sgd_", None, params=["leaf"], grads=["g"], lr=0.5),
    ]


@pytest.mark.parametrize("shape", [(70_001,), (3, 25_000), (40, 50)], ids=str)
def test_a_plan_runs_compiled_loops_tile_by_tile(
    shape: tuple[int, ...], used: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    loops = {name: CPU.kernels[name] for name in ("unless_low", "leaky", "between")}

    def noted(run: Any) -> Any:
        def call(*arrays: Any) -> None:
            sizes.append(arrays[0].size)
            run(*arrays)

        return call

    monkeypatch.setattr(CPU, "kernels", {name: each._replace(run=noted(each.run)) for name, each in loops.items()})
    inputs = {name: floats(*shape, seed=len(name)) for name in ("leaf", "scale")}
    inputs["leaf"]["requires_grad"] = True
    found = {}
    for plan_from in (0, 3):
        sizes.clear()
        session = Session("s", limits=Limits(plan_from=plan_from))
        program = {"repeat": 4, "steps": _chain(list(shape), "h")}
        reply = run(session, program, inputs=inputs, return_=["leaf", "loss", "g", "h"])
        found[plan_from] = {name: answer.values.tobytes() for name, answer in reply["results"].items()}
    assert found[0] == found[3]
    assert reply["plans"][0]["rounds"] == 2
    whole = int(np.prod(shape))
    tiles = {min(TILE, whole - at) for at in range(0, whole, TILE)} if whole >= TILED_FROM else set()
    assert set(sizes) == {whole} | tiles


def test_nothing_of_it_is_imported_unless_it_is_asked_for() -> None:
    program = (
        "import sys, engine.session; "
        "print([m for m in sys.modules if m.split('.')[0] == 'numba' or m.startswith('engine.compiled.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
