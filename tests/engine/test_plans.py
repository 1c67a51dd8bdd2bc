"""Plans change nothing but the time: random programs with and without one, bit for bit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from engine.answer import TensorAnswer
from engine.errors import EngineError
from engine.limits import Limits
from engine.session import Session
from tests.engine.programs import floats, run, state, step

FROM = 3


def plain(value: Any) -> Any:
    """A reply as data that can be compared."""
    if isinstance(value, TensorAnswer):
        values = None if value.values is None else (value.values.tobytes(), str(value.values.dtype))
        known = (
            value.shape,
            value.dtype,
            value.requires_grad,
            value.is_leaf,
            value.grad_fn,
            value.version,
            value.strides,
        )
        return (known, values, plain(value.grad))
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items() if name != "plans"}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def of_session(session: Session) -> Any:
    """What `state` says, without the identities of objects."""
    whole = state(session)
    tensors = {
        key: (row[1], *row[2:8], row[8] is None, None if row[9] is None else row[9][1:])
        for key, row in whole["tensors"].items()
    }
    return {**whole, "tensors": tensors, "names": sorted(whole["names"])}


def outcome(
    program: list[dict[str, Any]], plan_from: int, again: int = 1, device: str = "cpu", **fields: Any
) -> tuple[Any, Any, Any]:
    """What a program answers or refuses, the session after it, and what became of its plans."""
    devices = ("cpu",) if device == "cpu" else ("cpu", device)
    session = Session("s", seed=7, limits=Limits(plan_from=plan_from), devices=devices, device=device)
    for name in ("a", "b", "c"):
        run(session, inputs={name: {**floats(3, 4, seed=ord(name)), "requires_grad": name != "c"}}, keep={name: name})
    run(session, inputs={"w": {**floats(4, 2, seed=1), "requires_grad": True}}, keep={"w": "w"})
    run(session, inputs={"n": {"data": [2, 0, 1]}}, keep={"n": "n"})
    plans = None
    try:
        for _ in range(again):
            reply = run(session, *program, **fields)
        plans = reply["plans"]
        answer: Any = plain(reply)
    except EngineError as error:
        answer = (type(error).__name__, error.code, str(error), error.step, error.round, error.op)
    return answer, of_session(session), plans


def same(program: list[dict[str, Any]], **fields: Any) -> Any:
    """Asserts that a plan changes nothing; what became of the plans."""
    slow, slow_state, _ = outcome(program, 0, **fields)
    fast, fast_state, plans = outcome(program, FROM, **fields)
    assert fast == slow
    assert fast_state == slow_state
    return plans


def repeat(times: int, *steps: dict[str, Any], **collect: int) -> dict[str, Any]:
    return {"repeat": times, "steps": list(steps), **({"collect": collect} if collect else {})}


def quiet(made: dict[str, Any]) -> dict[str, Any]:
    return {**made, "no_grad": True}


# ---------------------------------------------------------------- what is planned

FORWARD = (step("mm", "h", input="a", mat2="w"), step("tanh", "h", input="h"), step("sum", "loss", input="h"))
GRAD = step("autograd.grad", ["ga", "gw"], outputs=["loss"], inputs=["a", "w"])
DOWN = quiet(step("sub_", None, input="w", other="gw", alpha=0.1))

PLANNED: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "gradients and an in-place step": ([repeat(9, *FORWARD, GRAD, DOWN, loss=2)], {"return_": ["loss", "w", "h"]}),
    "backward and an optimizer": (
        [
            step("optim.adam_state", "s", params=["a", "w"]),
            repeat(
                9,
                *FORWARD,
                step("backward", None, input="loss"),
                step("optim.adam_", None, params=["a", "w"], grads=["a.grad", "w.grad"], state="s", lr=0.1),
                quiet(step("zero_", None, input="a.grad")),
                quiet(step("zero_", None, input="w.grad")),
                loss=1,
            ),
        ],
        {"return_": ["loss", "a", "w", "w.grad"]},
    ),
    "gradients that add up": (
        [repeat(9, *FORWARD, step("backward", None, input="loss"))],
        {"return_": ["w.grad", "loss"]},
    ),
    "a name that goes from round to round": (
        [
            step("mul", "x", input="c", other=1),
            repeat(9, step("mul", "x", input="x", other=0.5), step("add", "x", input="x", other="c")),
        ],
        {"return_": ["x"]},
    ),
    "two that change places": (
        [
            step("mul", "x", input="c", other=1.0),
            step("mul", "y", input="c", other=2.0),
            repeat(
                8,
                step("add", "z", input="x", other="y"),
                step("mul", "x", input="y", other=1.0),
                step("mul", "y", input="z", other=0.5),
            ),
        ],
        {"return_": ["x", "y", "z"]},
    ),
    "random numbers": (
        [
            step("zeros", "x", size=[3, 4]),
            repeat(9, step("randn", "r", size=[3, 4]), step("add", "x", input="x", other="r")),
        ],
        {"return_": ["x", "r"]},
    ),
    "dropout and an embedding": (
        [
            repeat(
                9,
                step("index_select", "r", input="a", dim=0, index="n"),
                step("nn.functional.dropout", "r", input="r", p=0.3),
                step("sum", "l", input="r"),
                step("autograd.grad", ["g"], outputs=["l"], inputs=["a"]),
                quiet(step("sub_", None, input="a", other="g")),
            )
        ],
        {"return_": ["a", "l"]},
    ),
    "views": (
        [
            repeat(
                9,
                step("transpose", "t", input="a", dim0=0, dim1=1),
                step("getitem", "s", input="t", index=["1:", [0, 2]]),
                step("reshape", "s", input="s", shape=[-1]),
                step("mul", "s", input="s", other="s"),
                step("sum", "l", input="s"),
                step("autograd.grad", ["g"], outputs=["l"], inputs=["a"]),
                quiet(step("sub_", None, input="a", other="g", alpha=0.01)),
            )
        ],
        {"return_": ["a", "l"]},
    ),
    "a classifier": (
        [
            repeat(
                9,
                step("nn.functional.linear", "h", input="c", weight="w2"),
                step("nn.functional.relu", "h", input="h"),
                step("nn.functional.cross_entropy", "l", input="h", target="n"),
                step("autograd.grad", ["g"], outputs=["l"], inputs=["w2"]),
                step("optim.sgd_", None, params=["w2"], grads=["g"], lr=0.5),
                l=3,
            )
        ],
        {"inputs": {"w2": {**floats(5, 4), "requires_grad": True}}, "return_": ["w2", "l"]},
    ),
    "large arrays, tile by tile": (
        [
            repeat(
                6,
                step("mul", "y", input="big", other="big"),
                step("add", "y", input="y", other=0.5),
                step("tanh", "y", input="y"),
                step("neg", "y", input="y"),
                step("sum", "l", input="y"),
                step("autograd.grad", ["g"], outputs=["l"], inputs=["big"]),
                quiet(step("sub_", None, input="big", other="g", alpha=0.1)),
            )
        ],
        {"inputs": {"big": {**floats(300, 301), "requires_grad": True}}, "return_": ["big", "y", "l"]},
    ),
    "large products are no tiles": (
        [
            repeat(
                5,
                step("matmul", "y", input="q", other="q"),
                step("matmul", "y", input="y", other="q"),
                step("mul", "y", input="y", other=0.001),
                step("add", "y", input="y", other="q"),
                step("sum", "l", input="y"),
                step("autograd.grad", ["g"], outputs=["l"], inputs=["q"]),
                step("optim.sgd_", None, params=["q"], grads=["g"], lr=0.01),
            )
        ],
        {"inputs": {"q": {**floats(300, 300), "requires_grad": True}}, "return_": ["q", "y", "l"]},
    ),
    "float64 and integers": (
        [
            repeat(
                9,
                step("mul", "y", input="d", other="n"),
                step("exp", "y", input="y"),
                step("mean", "l", input="y"),
                step("autograd.grad", ["g"], outputs=["l"], inputs=["d"]),
                quiet(step("sub_", None, input="d", other="g")),
            )
        ],
        {"inputs": {"d": {"data": [0.1, 0.2, 0.3], "dtype": "float64", "requires_grad": True}}, "return_": ["d", "y"]},
    ),
}


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_changes_nothing(name: str) -> None:
    program, fields = PLANNED[name]
    plans = same(program, **fields)
    assert [(p["rounds"] > 0, p["why_not"]) for p in plans] == [(True, None)]


def test_all_rounds_but_the_first_and_the_last_are_planned() -> None:
    _, _, plans = outcome([repeat(10, *FORWARD, GRAD, DOWN)], FROM)
    assert plans == [{"step": [0], "rounds": 8, "why_not": None}]


def test_few_rounds_are_not_worth_a_plan() -> None:
    assert outcome([repeat(FROM - 1, *FORWARD)], FROM)[2] == []


def test_a_repeat_within_a_repeat() -> None:
    inner = repeat(5, step("mul", "x", input="x", other=1.5), step("sub", "x", input="x", other="c"))
    plans = same([step("mul", "x", input="c", other=1), repeat(4, inner, step("tanh", "x", input="x"))], return_=["x"])
    assert {tuple(p["step"]): p["rounds"] for p in plans} == {(1,): 0, (1, 0): 3 + 3 * 4}


# ---------------------------------------------------------------- what is not, and why

NOT: dict[str, tuple[list[dict[str, Any]], str]] = {
    "dynamic": ([repeat(5, step("nonzero", "x", input="c"))], "the shape that argwhere gives depends on values"),
    "create_graph": (
        [repeat(5, *FORWARD, step("autograd.grad", ["g"], outputs=["loss"], inputs=["w"], create_graph=True))],
        "create_graph makes a tape of the gradients",
    ),
    "foreign tape": (
        [step("mul", "y", input="a", other=2.0), repeat(5, step("tanh", "z", input="y"))],
        "its tape comes from outside the round",
    ),
    "growing tape": (
        [step("mul", "y", input="c", other=2.0), repeat(5, step("mul", "y", input="y", other="a"))],
        "its tape comes from outside the round",
    ),
    "growing shape": (
        [step("mul", "y", input="c", other=2.0), repeat(5, step("cat", "y", tensors=["y", "c"]))],
        "the shape or dtype of 'y' changes from round to round",
    ),
    "tracked change": (
        [repeat(5, step("mul", "y", input="a", other=2.0), step("add_", None, input="y", other=1.0))],
        "an in-place change that the tape follows",
    ),
    "a flag": ([repeat(5, step("requires_grad_", None, input="c"))], "requires_grad_ works on tensors themselves"),
}


@pytest.mark.parametrize("name", NOT)
def test_what_a_plan_cannot_say_is_interpreted(name: str) -> None:
    program, why = NOT[name]
    assert same(program) == [{"step": [len(program) - 1], "rounds": 0, "why_not": why}]


# ---------------------------------------------------------------- errors


def test_a_guard_refuses_in_the_round_in_which_the_interpreter_would() -> None:
    program = [
        step("tensor", "i", data=[0, 1]),
        repeat(
            9, step("index_select", "r", input="a", dim=0, index="i"), quiet(step("add_", None, input="i", other=1))
        ),
    ]
    answer, _, _ = outcome(program, FROM)
    assert answer[0] == "IndexOutOfRange"
    assert answer[3:5] == ([1, 0], [3])
    same(program)


def test_what_a_planned_round_wrote_is_taken_back() -> None:
    program = [
        step("tensor", "i", data=[-5]),
        repeat(
            9,
            *FORWARD,
            GRAD,
            DOWN,
            quiet(step("add_", None, input="i", other=1)),
            step("gather", "r", input="n", dim=0, index="j"),
        ),
    ]
    program[1]["steps"].insert(0, step("add", "j", input="i", other=5))
    answer, after, _ = outcome(program, FROM)
    assert answer[0] == "IndexOutOfRange"
    assert answer[4] == [4]
    assert after == outcome([], FROM)[1]
    same(program)


def test_memory_that_a_plan_keeps_is_asked_for() -> None:
    session = Session("s", limits=Limits(plan_from=FROM, session_bytes=60_000))
    run(session, inputs={"x": floats(1000)}, keep={"x": "x"})
    body = [step("add", f"y{i}", input="x" if i == 0 else f"y{i - 1}", other=1.0) for i in range(8)]
    held = session.ctx.ledger.held
    reply = run(session, repeat(20, *body, y7=20) | {"collect": {}}, return_=["y7"])
    assert np.allclose(reply["results"]["y7"].values, np.asarray(session.names["x"].array) + 8)
    assert session.ctx.ledger.held == held


# ---------------------------------------------------------------- random programs

UNARY = ("tanh", "exp", "neg", "nn.functional.relu", "sigmoid", "abs", "nn.functional.softplus", "clone", "square")
BINARY = ("add", "sub", "mul", "maximum", "atan2")


class Maker:
    """Random rounds over three matrices of one shape, a parameter, and what they give."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.known = ["a", "b", "c"]
        self.written = set()
        self.steps: list[dict[str, Any]] = []

    def pick(self) -> str:
        return self.r.choice(self.known)

    def put(self, made: dict[str, Any]) -> None:
        if self.r.random() < 0.2:
            made = quiet(made)
        self.steps.append(made)
        out = made.get("out")
        if isinstance(out, str) and out not in self.known:
            self.known.append(out)

    def name(self) -> str:
        return self.r.choice(("x", "y", "z", "u"))

    def one(self) -> None:
        r = self.r
        kind = r.randrange(14)
        if kind < 3:
            self.put(step(r.choice(UNARY), self.name(), input=self.pick()))
        elif kind < 6:
            self.put(step(r.choice(BINARY), self.name(), input=self.pick(), other=self.pick()))
        elif kind == 6:
            self.put(step("mul", self.name(), input=self.pick(), other=r.choice((0.5, -1.5, 2))))
        elif kind == 7:
            self.put(step("nn.functional.softmax", self.name(), input=self.pick(), dim=r.choice((0, 1, -1))))
        elif kind == 8:
            self.put(step("index_select", self.name(), input=self.pick(), dim=0, index="n"))
        elif kind == 9:
            self.put(step("flip", self.name(), input=self.pick(), dims=[r.randrange(2)]))
        elif kind == 10:
            self.put(
                step(
                    "where",
                    self.name(),
                    condition={"data": [True, False, True, True]},
                    input=self.pick(),
                    other=self.pick(),
                )
            )
        elif kind == 11:
            self.put(step("rand_like", self.name(), input=self.pick()))
        elif kind == 12:  # a view, which may be read and changed later
            self.put(step("getitem", "row", input=self.pick(), index=[r.choice((0, -1)), r.choice((":", "::2"))]))
            self.put(step("sum", "part", input="row"))
            self.known = [name for name in self.known if name not in ("row", "part")]
            self.put(step("add", self.name(), input=self.pick(), other="part"))
            if r.random() < 0.5:
                self.steps.append(quiet(step("mul_", None, input="row", other=0.5)))
        else:
            self.put(step("transpose", "turned", input=self.pick(), dim0=0, dim1=1))
            self.known = [name for name in self.known if name != "turned"]
            self.put(step("mm", "square", input=self.pick(), mat2="turned"))
            self.known = [name for name in self.known if name != "square"]
            self.put(step("mm", self.name(), input="square", mat2=self.pick()))

    def change(self) -> None:
        r = self.r
        target = self.pick()
        what = r.choice(("mul_", "add_", "tanh_"))
        args = {} if what == "tanh_" else {"other": r.choice((0.9, self.pick()))}
        self.steps.append(quiet(step(what, None, input=target, **args)))

    def down(self) -> None:
        r = self.r
        self.steps.append(step(r.choice(("sum", "mean")), "loss", input=self.pick()))
        if r.random() < 0.6:
            self.steps.append(
                step("autograd.grad", ["g1", "g2"], outputs=["loss"], inputs=["a", "b"], allow_unused=True)
            )
            self.steps.append(step("optim.sgd_", None, params=["a", "b"], grads=["g1", "g2"], lr=0.1))
        else:
            self.steps.append(step("backward", None, input="loss"))

    def program(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        r = self.r
        before = [step("mul", name, input=r.choice("abc"), other=1.0) for name in ("x", "y") if r.random() < 0.5]
        if before and r.random() < 0.7:
            before = [quiet(made) for made in before]
        self.known += [made["out"] for made in before]
        for _ in range(r.randrange(1, 7)):
            self.one()
            if r.random() < 0.2:
                self.change()
        ends = r.random() < 0.7
        if ends:
            self.down()
        collected = {"loss": r.randrange(1, 4)} if ends and r.random() < 0.5 else {}
        returned = sorted({*self.known, *(["loss"] if ends else [])})
        return [*before, repeat(r.randrange(3, 9), *self.steps, **collected)], {"return_": returned}


def try_programs(seeds: range, device: str = "cpu") -> int:
    """How many of the random programs ran by a plan, all being what they are without one."""
    planned = 0
    for seed in seeds:
        program, fields = Maker(seed).program()
        try:
            plans = same(program, device=device, **fields)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {program} {fields}") from error
        planned += bool(plans and plans[0]["rounds"])
    return planned


@pytest.mark.parametrize("chunk", range(6))
def test_random_programs(chunk: int) -> None:
    assert try_programs(range(chunk * 50, chunk * 50 + 50)) > 10


# ---------------------------------------------------------------- tiles

LARGE = ("tanh", "neg", "nn.functional.relu", "abs", "square", "sigmoid", "nn.functional.leaky_relu", "sign")


def large_chain(seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A round over arrays of many tiles: chains, masks, views that overlap, changes in place, gradients."""
    r = random.Random(seed)
    shape = r.choice(((70_001,), (300, 301), (2, 65_536)))
    known, steps = ["p", "q", "m", "y0"], [step("mul", "y0", input="p", other="q")]
    for _ in range(r.randrange(4, 12)):
        kind, out, a, b = r.randrange(8), f"y{r.randrange(4)}", r.choice(known), r.choice(known)
        if kind < 3:
            steps.append(step(r.choice(LARGE), out, input=a))
        elif kind < 5:
            steps.append(step(r.choice(("add", "sub", "mul", "maximum", "minimum")), out, input=a, other=b))
        elif kind == 5:
            mask = step("gt", "mask", input=a, other=r.choice((0, 0.25)))
            steps += [mask, step("where", out, condition="mask", input=b, other=a)]
        elif kind == 6:
            steps += [quiet(step("getitem", "low", input="m", index=[":-1"])),
                      quiet(step("getitem", "high", input="m", index=["1:"])),
                      quiet(step("mul", "t", input="low", other=0.5)),
                      quiet(step(r.choice(("mul_", "add_", "sub_")), None, input="high", other="t"))]  # fmt: skip
            continue
        else:
            changed = "mul_" if r.random() < 0.5 else "add_"
            steps.append(quiet(step(changed, None, input="m", other=r.choice((0.5, "q", "p")))))
            continue
        known.append(out)
    steps.append(step("mul", "last", input="y0", other=r.choice(known)))
    steps.append(step("sum", "loss", input="last"))
    steps.append(step("autograd.grad", ["g"], outputs=["loss"], inputs=["p"], allow_unused=True))
    if r.random() < 0.5:
        steps.append(quiet(step("sub_", None, input="p", other="g", alpha=0.1)))
    inputs = {name: {**floats(*shape, seed=seed + ord(name)), "requires_grad": name == "p"} for name in ("p", "q", "m")}
    collect = {"loss": 2} if r.random() < 0.5 else {}
    return [repeat(4, *steps, **collect)], {"inputs": inputs, "return_": sorted({*known, "loss", "m"})}


@pytest.mark.parametrize("seed", range(24))
def test_tiles_change_nothing(seed: int) -> None:
    program, fields = large_chain(seed)
    same(program, **fields)


def test_most_large_chains_have_a_plan() -> None:
    planned = 0
    for seed in range(8):
        program, fields = large_chain(seed)
        _, _, plans = outcome(program, FROM, **fields)  # some are refused, for what was saved is changed
        planned += bool(plans and plans[0]["rounds"])
    assert planned > 2


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(20))
def test_many_random_programs(chunk: int) -> None:
    assert try_programs(range(1000 + chunk * 200, 1000 + chunk * 200 + 200)) > 40
