"""Fused kernels: their sources, compiled by a C++ compiler, say what array code says; plans on a device use them."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import kernels
from engine.backend import simulated_cuda
from engine.fused import launch as launching
from engine.fused.launch import Call, Kernels, Space
from engine.fused.source import DENSE, NAME, ONE, OPTIONS, PRELUDE, STRIDED, Chain, parameters, source
from engine.fused.table import C_TYPES, FUNCTIONS, array_code, scalar
from engine.limits import Limits
from engine.session import Session
from engine.simulated import raw, sp, xp
from engine.simulated.names import NAMES
from tests.engine import test_plans as plans
from tests.engine.chains import (
    apart,
    distances,
    every_function,
    hold,
    on_device,
    operands_of,
    random_chain,
    run_together,
)
from tests.engine.programs import floats, run, step
from tests.laws.planned import array_code as without_kernels

CUDA = "cuda:0"
needs_compiler = pytest.mark.skipif(raw.compiler() is None, reason="there is no C++ compiler here")
ARITHMETIC = {name for name, f in FUNCTIONS.items() if not f.ulps}


@pytest.fixture(autouse=True)
def chains() -> Iterator[Kernels]:
    """The stand-in's kernels, none of them made yet."""
    found: Kernels = simulated_cuda().chains  # type: ignore[attr-defined]
    found.forget()
    yield found
    found.forget()


# ---------------------------------------------------------------- sources beside array code


@needs_compiler
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 30))
def test_random_chains_say_what_array_code_says(seed: int) -> None:
    hold(range(seed, seed + 100))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(10))
def test_many_random_chains(chunk: int) -> None:
    hold(range(-400 * (chunk + 1), -400 * chunk), "-O1")


@needs_compiler
def test_every_function_in_every_loop_says_what_array_code_says() -> None:
    chains = every_function()
    for chain, kernel in zip(chains, run_together(chains, raw.OPTIONS), strict=True):
        for seed in range(5):
            distances(chain, *operands_of(chain, seed), kernel)


def test_random_chains_try_every_function() -> None:
    tried = {(name, loop) for seed in range(600) for name, loop, _ in random_chain(seed)[0].functions}
    assert {name for name, _ in tried} == set(FUNCTIONS)
    assert {loop for _, loop in tried} == set(C_TYPES)
    layouts = {layout for seed in range(100) for _, layout in random_chain(seed)[0].inputs}
    assert layouts == {DENSE, ONE, STRIDED}


def _ran(chain: Chain, arrays: list[Any], outputs: list[Any], scalars: list[Any] = []) -> list[Any]:  # noqa: B006
    kernel = raw.RawKernel(PRELUDE + source(chain), NAME, OPTIONS)
    device, made = [on_device(a) for a in arrays], [on_device(a) for a in outputs]
    shape = np.broadcast_shapes(*(a.shape for a in (*arrays, *outputs)))
    Call(chain, Space(shape, [*device, *made]), scalars, kernel, xp, sp).launch(device, made)
    return [x.get() for x in made]


@needs_compiler
def test_every_float16_and_bfloat16_is_widened_and_narrowed_as_by_array_code() -> None:
    bits = np.arange(1 << 16, dtype="u2")
    wide = Chain((("f2", DENSE),), (), (("cast", "f4", (0,)),), ((1, DENSE),), 0, False)
    (made,) = _ran(wide, [bits.view("f2")], [np.zeros(1 << 16, "f4")])
    assert apart(made, bits.view("f2").astype("f4")) == 0
    brain = Chain((("u2", DENSE),), (), (("widen_bfloat16", "f4", (0,)),), ((1, DENSE),), 0, False)
    (made,) = _ran(brain, [bits], [np.zeros(1 << 16, "f4")])
    np.testing.assert_array_equal(made.view("u4"), bits.astype("u4") << 16)
    rng = np.random.default_rng(0)
    near = bits.view("f2").astype("f4")  # each float16, and numbers between two of them
    with np.errstate(all="ignore"):
        middle = (near[:-1] + near[1:]) / np.float32(2)
    values = np.concatenate([near, middle, rng.integers(0, 1 << 32, 200_000, "u4").view("f4")])
    with np.errstate(all="ignore"):
        values = np.concatenate([values, np.nextafter(values, np.float32(np.inf)), np.nextafter(values, np.float32(0))])
    narrow = Chain((("f4", DENSE),), (), (("cast", "f2", (0,)),), ((1, DENSE),), 0, False)
    with np.errstate(all="ignore"):
        assert apart(_ran(narrow, [values], [np.zeros(values.size, "f2")])[0], values.astype("f2")) == 0
    brain = Chain((("f4", DENSE),), (), (("narrow_bfloat16", "u2", (0,)),), ((1, DENSE),), 0, False)
    (made,) = _ran(brain, [values], [np.zeros(values.size, "u2")])
    np.testing.assert_array_equal(made, kernels.narrow_bfloat16(np, values))


@needs_compiler
def test_products_and_sums_are_not_fused() -> None:
    chain = Chain(
        (("f4", DENSE),) * 3, (), (("multiply", "f4", (0, 1)), ("add", "f4", (3, 2))), ((4, DENSE),), 0, False
    )
    a = np.float32([1 + 2**-12, 3.1]), np.float32([1 + 2**-12, 1.7]), np.float32([-1 - 2**-11, -5.27])
    (made,) = _ran(chain, list(a), [np.zeros(2, "f4")])
    assert made[0] == 0.0  # fused it would be 2^-24
    assert OPTIONS[0] == "--fmad=false"


@needs_compiler
def test_results_are_written_where_they_lie() -> None:
    chain = Chain((("f4", STRIDED),), (), (("negative", "f4", (0,)),), ((1, STRIDED),), 2, False)
    a = np.arange(12, dtype="f4").reshape(3, 4)
    target = np.zeros((4, 3, 2), "f4")[..., 1].T
    (made,) = _ran(chain, [a[:, ::-1]], [target])
    np.testing.assert_array_equal(made, -a[:, ::-1])


def test_neighbours_that_lie_alike_are_joined() -> None:
    a, b = xp.zeros((2, 3, 4, 5)), xp.zeros((4, 5))
    space = Space((2, 3, 4, 5), [a, b, xp.zeros((3, 2, 4, 5)).transpose(1, 0, 2, 3), xp.zeros(())])
    assert (space.sizes, space.layouts) == ([2, 3, 20], [DENSE, STRIDED, STRIDED, ONE])
    assert Space((2, 3, 4, 5), [a, b]).sizes == [6, 20]
    assert Space((4, 5), [b]).sizes == []
    assert not space.wide
    assert Space((1 << 15, 1 << 15), [xp.broadcast_to(xp.zeros(()), (1 << 15, 1 << 15))]).wide
    with pytest.raises(ValueError, match="too many dimensions"):
        Space((2,) * 7, [xp.zeros((2,) * 7).transpose(6, 5, 4, 3, 2, 1, 0)])


# ---------------------------------------------------------------- what gets into a source

WORDS = {
    *[
        "extern",
        "C",
        "__global__",
        "void",
        "const",
        "for",
        "if",
        "return",
        "asm",
        "static",
        "inline",
        "long",
        "int",
        "n",
        "i",
        "q",
        "step",
    ],
    *["gridDim", "blockDim", "blockIdx", "threadIdx", "x", "curlgrad_chain", "half_to_float", "float_to_half"],
    *" ".join(C_TYPES.values()).split(),
}


def test_nothing_of_a_program_gets_into_a_source() -> None:
    """All words of a kernel are those of the tables, and names of its own: a letter or two with a number."""
    known = WORDS | {
        w for f in FUNCTIONS.values() for t in (f.float, f.whole, f.truth) for w in re.findall(r"[a-z_]\w+", t)
    }
    known |= {f"{w}f" for w in known}
    for seed in range(400):
        text = source(random_chain(seed)[0])
        strange = {
            w for w in re.findall(r"[A-Za-z_]\w*", text) if w not in known and not re.fullmatch(r"[arcvni]\d+(_\d)?", w)
        }
        assert not strange, text
        assert not set(text) & set("\"'\\#@$`") - {'"'}
        assert text.count('"') == 2


HOSTILE = "__asm__.system-touch"  # as far as names go


@needs_compiler
def test_names_and_numbers_of_programs_are_arguments_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _sources(monkeypatch)
    body = [step("mul", HOSTILE, input=HOSTILE, other=0.123456789), step("add", HOSTILE, input=HOSTILE, other=77.25)]
    session = _session()
    reply = run(session, plans.repeat(6, *body), inputs={HOSTILE: floats(5)}, return_=[HOSTILE])
    assert reply["plans"][0]["kernels"] == 1
    assert seen
    assert all("system" not in text and "0.12" not in text and "77.25" not in text for text in seen)


def _sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is compiled from now on."""
    seen: list[str] = []
    build = raw.build
    monkeypatch.setattr(raw, "build", lambda code, names: seen.append(code) or build(code, names))
    return seen


@needs_compiler
def test_one_source_serves_all_shapes_and_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _sources(monkeypatch)
    for shape, number in (((5,), 0.5), ((300, 7), 3.0), ((2, 2, 2, 2), -1e30)):
        body = step("mul", "x", input="x", other=number), step("add", "x", input="x", other=number)
        reply = run(_session(), plans.repeat(6, *body), inputs={"x": floats(*shape)}, return_=["x"])
        assert reply["plans"][0]["kernels"] == 1
    assert len(seen) == 1


# ---------------------------------------------------------------- plans on a device


def _session(plan_from: int = plans.FROM) -> Session:
    return Session("s", seed=7, limits=Limits(plan_from=plan_from), devices=("cpu", CUDA), device=CUDA)


@pytest.mark.parametrize("name", plans.PLANNED)
def test_a_plan_changes_nothing_by_array_code(name: str) -> None:
    program, fields = plans.PLANNED[name]
    with without_kernels(CUDA):
        found = plans.same(program, device=CUDA, **fields)
    assert [(p["rounds"] > 0, p["why_not"], p["kernels"]) for p in found] == [(True, None, 0)]


@pytest.mark.parametrize("name", plans.NOT)
def test_what_a_plan_cannot_say_is_interpreted(name: str) -> None:
    program, why = plans.NOT[name]
    assert plans.same(program, device=CUDA) == [{"step": [len(program) - 1], "rounds": 0, "why_not": why}]


@pytest.mark.parametrize("chunk", range(3))
def test_random_programs_by_array_code(chunk: int) -> None:
    with without_kernels(CUDA):
        assert plans.try_programs(range(chunk * 50, chunk * 50 + 50), CUDA) > 10


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(10))
def test_many_random_programs_by_array_code(chunk: int) -> None:
    with without_kernels(CUDA):
        assert plans.try_programs(range(1000 + chunk * 200, 1200 + chunk * 200), CUDA) > 40


LIBRARY = ("tanh", "exp", "sigmoid", "nn.functional.softplus", "nn.functional.softmax", "atan2")


class Plain(plans.Maker):
    """Random programs whose element-wise part calls no mathematical library."""

    def one(self) -> None:
        state = self.r.getstate()
        known, before = list(self.known), len(self.steps)
        super().one()
        if any(s["op"] in LIBRARY for s in self.steps[before:]):
            del self.steps[before:]
            self.known = known
            self.r.setstate(state)
            self.r.random()
            self.put(
                step(self.r.choice(("neg", "square", "abs", "nn.functional.relu")), self.name(), input=self.pick())
            )

    def change(self) -> None:
        self.steps.append(plans.quiet(step("mul_", None, input=self.pick(), other=0.9)))


@needs_compiler
def test_random_programs_by_kernels() -> None:
    """Without the mathematical library kernels give the same bits."""
    called = 0
    for seed in range(90):
        program, fields = Plain(seed).program()
        slow, slow_state, _ = plans.outcome(program, 0, device=CUDA, **fields)
        fast, fast_state, found = plans.outcome(program, plans.FROM, device=CUDA, **fields)
        assert fast == slow, (seed, program)
        assert fast_state == slow_state, (seed, program)
        called += sum(p.get("kernels", 0) for p in found or ())
    assert called > 20


_X = {"x": {**floats(6, 5), "requires_grad": True}, "w": {**floats(5, seed=3), "requires_grad": True}}
_DOWN = (
    step("sum", "l", input="y"),
    step("autograd.grad", ["g"], outputs=["l"], inputs=["x"]),
    plans.quiet(step("sub_", None, input="x", other="g", alpha=0.01)),
)
CHAINS: dict[str, tuple[list[dict[str, Any]], int]] = {
    "gelu": ([step("nn.functional.gelu", "y", input="x")], 1),
    "gelu by tanh": ([step("nn.functional.gelu", "y", input="x", approximate="tanh")], 1),
    "silu, sigmoid and erf": (
        [step("nn.functional.silu", "y", input="x"), step("sigmoid", "y", input="y"), step("erf", "y", input="y")],
        1,
    ),
    "a broadcast row": ([step("mul", "y", input="x", other="w"), step("tanh", "y", input="y")], 1),
    "clamp, where and a power": (
        [
            step("clamp", "y", input="x", min=-0.5, max=0.75),
            step("gt", "m", input="x", other=0.25),
            step("where", "y", condition="m", input="y", other=2.0),
            step("pow", "y", input="y", exponent=3),
        ],
        1,
    ),
    "softmax, its sums between two kernels": (
        [step("nn.functional.softmax", "y", input="x", dim=1), step("square", "y", input="y")],
        4,
    ),
}


@needs_compiler
@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_a_training_step(name: str) -> None:
    """Forward, backward and the step down of one chain are as many kernels, and give what single calls give."""
    body, most = CHAINS[name]
    told = []
    for plan_from in (0, plans.FROM):
        reply = run(_session(plan_from), plans.repeat(8, *body, *_DOWN), inputs=_X, return_=["x", "y"])
        told.append([reply["results"][n].values for n in ("x", "y")])
    (report,) = reply["plans"]
    assert (report["rounds"], report["why_not"], report["why_not_fused"]) == (6, None, None)
    assert 1 <= report["kernels"] <= most
    for slow, fast in zip(*told, strict=True):
        np.testing.assert_allclose(fast, slow, 1e-5, 1e-6)


@needs_compiler
@pytest.mark.parametrize("d", ["bfloat16", "float16"])
def test_reduced_floats_are_computed_in_float32_and_rounded_after_each_function(d: str) -> None:
    x = {"data": np.linspace(-2, 2, 12).reshape(3, 4).tolist(), "dtype": d, "requires_grad": True}
    body = [step("mul", "y", input="x", other="x"), step("add", "y", input="y", other=0.3), step("abs", "y", input="y")]
    told = []
    for plan_from in (0, plans.FROM):
        reply = run(_session(plan_from), plans.repeat(8, *body, *_DOWN), inputs={"x": x}, return_=["x", "y"])
        told.append([reply["results"][n].values.tobytes() for n in ("x", "y")])
    assert reply["plans"][0]["kernels"] >= 1
    assert told[0] == told[1]


@needs_compiler
@pytest.mark.parametrize("d", ["int64", "uint8", "int16", "bool"])
def test_integers_and_bools(d: str) -> None:
    x = {"data": [[0, 1, 1], [1, 0, 1]] if d == "bool" else [[1, 2, 250], [3, 100, 7]], "dtype": d}
    op = ("logical_xor", "logical_not", "bitwise_or") if d == "bool" else ("mul", "bitwise_not", "bitwise_xor")
    body = [step(op[0], "y", input="x", other="x"), step(op[1], "y", input="y"), step(op[2], "x", input="y", other="x")]
    start = step("clone", "x", input="x0")
    told = []
    for plan_from in (0, plans.FROM):
        reply = run(_session(plan_from), start, plans.repeat(8, *body), inputs={"x0": x}, return_=["x"])
        told.append(reply["results"]["x"].values.tobytes())
    assert reply["plans"][0]["kernels"] == 1
    assert told[0] == told[1]


@needs_compiler
@pytest.mark.parametrize("name", ["optim.adam_", "optim.adamw_", "optim.sgd_"])
def test_an_optimizer_step_is_a_kernel(name: str) -> None:
    """Adam's rates change from round to round, and are arguments of its kernel: the bits are those of single calls."""
    state = {} if name == "optim.sgd_" else {"state": "s"}
    body = [
        step("square", "y", input="x"),
        *_DOWN[:2],
        step(name, None, params=["x", "w"], grads=["g", None], lr=0.1, weight_decay=0.01, **state),
    ]
    before = [] if name == "optim.sgd_" else [step("optim.adam_state", "s", params=["x", "w"])]
    told = []
    for plan_from in (0, plans.FROM):
        reply = run(_session(plan_from), *before, plans.repeat(9, *body), inputs=_X, return_=["x"])
        told.append(reply["results"]["x"].values.tobytes())
    assert told[0] == told[1]
    assert (reply["plans"][0]["rounds"], reply["plans"][0]["kernels"]) == (7, 1 if name == "optim.sgd_" else 2)


@needs_compiler
def test_a_step_that_reads_a_result_in_another_order_begins_a_kernel_of_its_own() -> None:
    body = [
        step("mul", "y", input="x", other=0.5),
        step("add", "y", input="y", other=1.0),
        step("transpose", "t", input="y", dim0=0, dim1=1),
        step("add", "z", input="y", other="t"),
        step("mul", "x", input="z", other=0.25),
    ]
    start = step("mul", "x", input="x0", other=1.0)
    told = []
    for plan_from in (0, plans.FROM):
        reply = run(_session(plan_from), start, plans.repeat(7, *body), inputs={"x0": floats(4, 4)}, return_=["x"])
        told.append(reply["results"]["x"].values.tobytes())
    assert told[0] == told[1]
    assert reply["plans"][0]["kernels"] == 2


@needs_compiler
def test_guards_stay_and_say_the_round() -> None:
    program = [
        step("tensor", "i", data=[0, 1]),
        plans.repeat(
            9,
            step("mul", "b", input="b", other=0.5),
            step("add", "b", input="b", other=1.0),
            step("index_select", "r", input="a", dim=0, index="i"),
            plans.quiet(step("add_", None, input="i", other=1)),
        ),
    ]
    program[0:0] = [step("mul", "b", input="c", other=1.0)]
    answer, _, _ = plans.outcome(program, plans.FROM, device=CUDA)
    assert answer[0] == "IndexOutOfRange"
    assert answer[3:5] == ([2, 2], [3])
    plans.same(program, device=CUDA)


def test_steps_that_are_waited_for_are_not_planned() -> None:
    session = Session("s", seed=1, limits=Limits(plan_from=3), devices=("cpu", CUDA), device=CUDA, sync=True)
    reply = run(
        session, plans.repeat(6, step("mul", "x", input="x", other=0.5)), inputs={"x": floats(3)}, return_=["x"]
    )
    assert reply["plans"] == [{"step": [0], "rounds": 0, "why_not": "the device is waited for after every step"}]


def test_what_a_kernel_is_not_told_is_not_said_of_the_cpu() -> None:
    reply = run(
        Session("s", seed=1, limits=Limits(plan_from=3)),
        plans.repeat(6, step("mul", "x", input="x", other=0.5)),
        inputs={"x": floats(3)},
        return_=["x"],
    )
    assert reply["plans"] == [{"step": [0], "rounds": 4, "why_not": None}]


# ---------------------------------------------------------------- where there can be no kernel

_BODY = (step("mul", "x", input="x", other=0.5), step("add", "x", input="x", other=1.0))


def _told() -> Any:
    reply = run(_session(), plans.repeat(6, *_BODY), inputs={"x": floats(4)}, return_=["x"])
    (report,) = reply["plans"]
    return report, reply["results"]["x"].values


def test_without_a_compiler_array_code_runs_and_the_answer_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = run(_session(0), plans.repeat(6, *_BODY), inputs={"x": floats(4)}, return_=["x"])["results"]["x"].values
    monkeypatch.setattr(raw, "compiler", lambda: None)
    report, made = _told()
    assert (report["rounds"], report["kernels"]) == (4, 0)
    assert report["why_not_fused"] == "there is no C++ compiler here, with which the simulated device runs kernels"
    np.testing.assert_array_equal(made, wanted)


@needs_compiler
@pytest.mark.parametrize(
    "wrong, why",
    [
        ("v2 * v3", "a kernel does not give what its array code gives"),
        ("no_such_function(v2)", "a kernel does not compile"),
    ],
)
def test_a_kernel_that_is_wrong_is_not_used(wrong: str, why: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(launching, "source", lambda chain: re.sub(r"v\d \+ v\d", wrong, source(chain)))
    report, made = _told()
    assert (report["kernels"], report["why_not_fused"]) == (0, why)
    assert "array code runs" in caplog.text
    assert np.isfinite(made).all()


def test_kernels_are_let_go_of(monkeypatch: pytest.MonkeyPatch, chains: Kernels) -> None:
    monkeypatch.setattr(launching, "KEPT", 3)
    monkeypatch.setattr(Kernels, "_trouble", lambda self, chain, kernel: None)
    made = [chains.kernel(random_chain(seed)[0]) for seed in range(6)]
    assert len(chains._made) == 3
    assert chains.kernel(random_chain(5)[0]) is made[5]


# ---------------------------------------------------------------- the stand-in's RawKernel

SCALE = """extern "C" __global__ void scale(const float* x, float* y, float by, long long n, int x_0) {
  for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = x[i * x_0] * by;
}"""


def _scale() -> raw.RawKernel:
    return raw.RawKernel(SCALE, "scale", ("--fmad=false",))


@needs_compiler
def test_the_stand_in_runs_a_kernel_thread_after_thread() -> None:
    x, y = xp.arange(100, dtype="f4"), xp.empty(50, dtype="f4")
    _scale()((2,), (16,), (x[::2], y, np.float32(0.5), 50, np.int32(2)))
    np.testing.assert_array_equal(y.get(), np.arange(100, dtype="f4")[::2] * np.float32(0.5))


_F4 = xp.zeros(4, dtype="f4")
REFUSED: dict[str, tuple[int, Any, str]] = {
    "a NumPy array": (0, np.zeros(4, "f4"), "x is a NumPy array: CuPy would pass its bytes by value"),
    "an array of another dtype": (0, xp.zeros(4, dtype="f8"), "x points to float, and the array is float64"),
    "a number for a pointer": (1, 3, "y is a pointer, and got int"),
    "an array without strides": (1, xp.zeros(8, dtype="f4")[::2], "y is not C-contiguous, and the kernel takes no"),
    "a Python float for a float": (2, 0.5, "by is float, and got float64"),
    "a wrong width": (3, np.int32(4), "n is long long, and got int32"),
    "a Python int for an int": (4, 1, "x_0 is int, and got int64"),
    "an array for a number": (2, _F4, "by is float, and got an array: CuPy would pass its address"),
    "what is neither": (2, "1", "Unsupported type"),
}


@needs_compiler
@pytest.mark.parametrize("what", REFUSED)
def test_the_stand_in_refuses(what: str) -> None:
    at, value, words = REFUSED[what]
    arguments = [_F4, _F4, np.float32(1), 4, np.int32(1)]
    arguments[at] = value
    with pytest.raises(TypeError, match=re.escape(words)):
        _scale()((1,), (4,), tuple(arguments))


@needs_compiler
def test_the_stand_in_refuses_what_no_kernel_is() -> None:
    with pytest.raises(TypeError, match="takes 5 arguments, and got 2"):
        _scale()((1,), (4,), (_F4, _F4))
    with pytest.raises(ValueError, match="no GPU runs"):
        _scale()((1,), (2048,), (_F4, _F4, np.float32(1), 4, np.int32(1)))
    with pytest.raises(TypeError, match="are tuples"):
        _scale()([1], (4,), ())
    with pytest.raises(raw.CompileException, match="oops"):
        raw.RawKernel(SCALE.replace("* by", "* oops"), "scale", OPTIONS)((1,), (4,), (_F4,) * 5)
    with pytest.raises(raw.CompileException, match="there is no extern"):
        raw.RawKernel(SCALE, "other", OPTIONS).compile()
    with pytest.raises(NotImplementedError, match="--fmad=false"):
        raw.RawKernel(SCALE, "scale")
    assert "RawKernel" in NAMES["modules"]["cupy"]["others"]


# ---------------------------------------------------------------- the tables


def test_every_function_is_one_that_cupy_has() -> None:
    ours = {"copy", "where", "fill", "cast", "widen_bfloat16", "narrow_bfloat16", "erf", "erfc"}
    assert {name for name in FUNCTIONS if name not in ours} <= set(NAMES["modules"]["cupy"]["ufuncs"])
    assert {"erf", "erfc"} <= set(NAMES["modules"]["cupyx.scipy.special"]["ufuncs"])


def test_parameters_fit_into_what_a_kernel_takes() -> None:
    from engine.fused.source import MOST_DIMENSIONS, MOST_OPERANDS

    chain = Chain((("f8", STRIDED),) * (MOST_OPERANDS - 1), (), (), ((0, STRIDED),), MOST_DIMENSIONS, True)
    assert len(parameters(chain)) * 8 <= 4096


def test_scalars_are_cast_as_numpy_casts_them() -> None:
    assert scalar(1e300, "f4") == np.inf
    assert scalar(0.1, "f4") == np.float32(0.1)
    assert array_code("fill", "i4", xp, sp)(None, 3).dtype == np.int32


# ---------------------------------------------------------------- plans that are kept


@needs_compiler
def test_a_kept_plan_runs_its_kernels_on_other_arrays_and_holds_none_of_them() -> None:
    limits = Limits(plan_from=3, plan_bytes=1 << 28)
    session = Session("s", seed=7, limits=limits, devices=("cpu", CUDA), device=CUDA)
    program = [
        plans.repeat(
            9, step("mul", "y", input="x", other="x"), step("neg", "y", input="y"), *_DOWN[:2],
            plans.quiet(step("sub_", None, input="x", other="g", alpha=0.1)),
        )
    ]  # fmt: skip
    told, kernels = [], []
    for seed in range(4):
        x = {"x": {**floats(6, 5, seed=seed), "requires_grad": True}}
        reply = run(session, *program, inputs=x, return_=["x"], keep={"x": f"x{seed}"})
        alone = run(_session(0), *program, inputs=x, return_=["x"])
        told.append(np.array_equal(reply["results"]["x"].values, alone["results"]["x"].values))
        kernels.append((reply["plans"][0]["rounds"], reply["plans"][0]["kernels"]))
    assert told == [True] * 4
    assert kernels[0] == (7, 1)  # the first round and the last are interpreted
    assert kernels[2:] == [(8, 1)] * 2  # the last alone
    kept = session.ctx.plans
    arrays = [weakref.ref(t.array) for t in session.tensors.values()]
    assert len(arrays) == 4
    session.close()
    del session
    gc.collect()
    assert kept is not None
    assert not any(array() is not None for array in arrays)
