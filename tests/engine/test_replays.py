"""Plans that are kept change nothing either: the same programs again and again, and all that may change in between."""

from __future__ import annotations

import gc
import random
import weakref
from traceback import clear_frames
from typing import Any

import numpy as np
import pytest

from engine import passes
from engine.errors import EngineError
from engine.limits import Limits
from engine.replays import Plans
from engine.session import Session
from engine.tape import FREED
from engine.tensor import ServerLedger
from tests.engine.programs import floats, run, step
from tests.engine.test_plans import (
    DOWN,
    FORWARD,
    GRAD,
    PLANNED,
    Maker,
    large_chain,
    of_session,
    plain,
    quiet,
    repeat,
)

Request = tuple[list[dict[str, Any]], dict[str, Any]]


def session(kept: int, server: ServerLedger | None = None, plan_from: int = 3, owner: str = "") -> Session:
    limits = Limits(plan_from=plan_from if kept else 0, plan_bytes=kept)
    made = Session("s", seed=7, limits=limits, server=server, owner=owner)
    for name in ("a", "b", "c"):
        run(made, inputs={name: {**floats(3, 4, seed=ord(name)), "requires_grad": name != "c"}}, keep={name: name})
    run(made, inputs={"w": {**floats(4, 2, seed=1), "requires_grad": True}}, keep={"w": "w"})
    run(made, inputs={"n": {"data": [2, 0, 1]}}, keep={"n": "n"})
    return made


def told(made: Session, request: Request) -> tuple[Any, Any]:
    """What a request answers or is refused with, and what became of its plans."""
    steps, fields = request
    try:
        reply = run(made, *steps, **fields)
    except EngineError as error:
        clear_frames(error.__traceback__)  # they hold tensors, and some errors lie in a cycle with them
        return (type(error).__name__, error.code, str(error), error.step, error.round, error.op), None
    return plain(reply), reply["plans"]


def tape(made: Session) -> Any:
    """The whole tape behind a session's tensors, saved values and versions included."""
    nodes, stack = {}, [t.edge[0] for t in made.tensors.values() if t.edge is not None]
    while stack:
        node = stack.pop()
        if node.seq in nodes:
            continue
        saved: Any = "freed"
        if node.saved is not FREED:
            saved = [
                (at, sub, array.tobytes(), array.strides, s is not None and (s.version, s.nbytes), version)
                for at, sub, array, s, version in node.saved
            ]
        edges = [e if e is None else (e[0].seq, e[1]) if type(e) is tuple else e.shape for e in node.edges]
        nodes[node.seq] = (node.op.name, node.grad_fn, repr(node.args), edges, saved, repr(node.outs), node.mask)
        stack += [e[0] for e in node.edges if type(e) is tuple]
    views = {
        name: (t.view.creation, t.view.version, t.view.base.shape, len(t.view.steps))
        for name, t in made.tensors.items()
        if t.view is not None
    }
    shared = [[t.storage is o.storage for o in made.tensors.values()] for t in made.tensors.values()]
    return nodes, views, shared


def same(requests: list[Request], plan_from: int = 3) -> list[Any]:
    """Asserts that kept plans change nothing, request by request; what became of the plans of each."""
    slow, fast = session(0), session(1 << 28, plan_from=plan_from)
    found = []
    for number, request in enumerate(requests):
        wanted, _ = told(slow, request)
        answer, plans = told(fast, request)
        assert answer == wanted or repr(answer) == repr(wanted), (number, plans)  # NaN is not equal to itself
        assert of_session(fast) == of_session(slow), (number, plans)
        assert tape(fast) == tape(slow), (number, plans)
        found.append(plans)
    return found


def ran(plans: Any) -> list[int]:
    return [p["rounds"] for p in plans or []]


ONCE = [*FORWARD, GRAD, DOWN]


# ---------------------------------------------------------------- what is replayed


def test_a_pass_has_a_plan_from_the_third_time_on() -> None:
    found = same([(ONCE, {"return_": ["loss", "w"]})] * 6)
    assert [ran(p) for p in found] == [[], [], [1], [1], [1], [1]]
    assert found[3] == [{"step": [], "rounds": 1, "why_not": None}]


@pytest.mark.parametrize("name", PLANNED)
def test_repeats_that_come_again(name: str) -> None:
    steps, fields = PLANNED[name]
    inputs = {"inputs": fields["inputs"]} if "inputs" in fields else {}
    found = same([(steps, fields)] * 4)
    rounds = next(s["repeat"] for s in steps if "repeat" in s)
    assert [p["rounds"] for p in found[-1]] == [rounds - 1], inputs  # not even the first is interpreted


@pytest.mark.parametrize("name", PLANNED)
def test_passes_that_come_again(name: str) -> None:
    steps, fields = PLANNED[name]
    flat = [s for one in steps for s in (one["steps"] if "repeat" in one else [one])]
    before: list[Request] = []
    if flat[0]["op"] == "optim.adam_state":  # made once, as one does
        before = [([flat.pop(0)], {"keep": {"s": "s"}})]
    found = same([*before, *[(flat, fields)] * 6])
    assert ran(found[-1]) == ([1] if len(flat) > 3 else []), found[-1]


def test_few_rounds_have_a_plan_when_they_come_again() -> None:
    found = same([([repeat(4, *ONCE)], {"return_": ["loss"]})] * 3, plan_from=16)
    assert [ran(p) for p in found] == [[], [2], [3]]


def test_inputs_are_no_part_of_the_program() -> None:
    requests = [
        ([*FORWARD, GRAD, DOWN], {"inputs": {"a": {**floats(3, 4, seed=i), "requires_grad": True}}, "return_": ["ga"]})
        for i in range(6)
    ]
    assert [ran(p) for p in same(requests)] == [[], [], [1], [1], [1], [1]]


def test_the_tape_that_a_pass_leaves() -> None:
    steps = [
        step("mul", "h", input="a", other="b"),
        step("transpose", "t", input="h", dim0=0, dim1=1),
        step("getitem", "r", input="t", index=["1:"]),
        step("exp", "e", input="r"),
        step("unbind", ["p", "q", "s"], input="e"),
        step("sum", "loss", input="e"),
    ]
    keep = {"keep": {"loss": "loss", "r": "row", "p": "one"}, "return_": ["loss", "q", "t", "a"]}
    requests: list[Request] = [(steps, keep)] * 5
    requests.append(([step("backward", None, input="loss")], {"return_": ["a.grad", "b.grad"]}))
    requests.append((steps, keep))
    requests.append(([step("mul_", None, input="row", other=2.0)], {"return_": ["row"]}))
    requests.append(([step("autograd.grad", ["g"], outputs=["one"], inputs=["a"], grad_outputs=["one"])], {}))
    found = same(requests)
    assert [ran(p) for p in found[2:5]] == [[1]] * 3


def test_first_gradients_and_those_that_add_up() -> None:
    steps = [*FORWARD, step("backward", None, input="loss"), step("tanh", "z", input="c")]
    requests: list[Request] = []
    for _ in range(7):
        requests.append((steps, {"return_": ["loss", "w.grad"]}))
        requests.append(([step("_clear_grad", None, input="w")], {}))
        requests.append(([step("_clear_grad", None, input="a")], {}))
    requests += [(steps, {"return_": ["w.grad", "a.grad"]})] * 3
    found = same(requests)
    assert ran(found[9]) == [1]
    assert ran(found[-1]) == [1]


# ---------------------------------------------------------------- what changes in between

CHANGES: dict[str, Request] = {
    "values": ([quiet(step("mul_", None, input="w", other=1.5))], {}),
    "another tensor": ([], {"inputs": {"x": {**floats(4, 2, seed=9), "requires_grad": True}}, "keep": {"x": "w"}}),
    "another shape": ([], {"inputs": {"x": {**floats(4, 5, seed=9), "requires_grad": True}}, "keep": {"x": "w"}}),
    "another dtype": (
        [step("to", "x", input="w", dtype="float64"), step("detach", "x", input="x")],
        {"keep": {"x": "w"}},
    ),
    "another layout": (
        [quiet(step("transpose", "x", input="w", dim0=0, dim1=1)), quiet(step("contiguous", "x", input="x")),
         quiet(step("transpose", "x", input="x", dim0=0, dim1=1))],
        {"keep": {"x": "w"}},
    ),
    "an alias": ([quiet(step("getitem", "x", input="a", index=[":2"])), quiet(step("t", "x", input="x"))],
                 {"keep": {"x": "w"}}),
    "no gradient wanted": ([step("requires_grad_", None, input="w", requires_grad=False)], {}),
    "a tape": ([step("mul", "x", input="w", other=2.0)], {"keep": {"x": "w"}}),
    "a gradient": ([*FORWARD, step("backward", None, input="loss")], {}),
    "the default dtype": ([step("set_default_dtype", None, d="float64")], {}),
    "how numbers are printed": ([step("set_printoptions", None, precision=2)], {}),
    "anomaly detection": ([step("autograd.set_detect_anomaly", None, mode=True)], {}),
    "the generator": ([step("manual_seed", None, seed=11)], {}),
    "gone": ([step("_release", None, input="w")], {}),
}  # fmt: skip

PROGRAMS: dict[str, Request] = {
    "training": (ONCE, {"return_": ["loss", "w"]}),
    "without a tape": ([*map(quiet, FORWARD), quiet(step("mul", "z", input="loss", other={"data": 2.0}))],
                       {"return_": ["z"]}),
    "a repeat": ([repeat(4, *ONCE, loss=1)], {"return_": ["loss"]}),
    "kept": ([*FORWARD, step("randn", "r", size=[2])], {"return_": ["h", "r"], "keep": {"loss": "kept", "h": "h"}}),
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_requests(change: str, program: str) -> None:
    it, other = PROGRAMS[program], CHANGES[change]
    same([it, it, it, it, other, it, it, it, it, other, it, it])


def test_what_is_not_what_it_was_is_said() -> None:
    it: Request = (ONCE, {"return_": ["loss"]})
    found = same([it, it, it, CHANGES["a tape"], it, it])
    assert found[4] == [{"step": [], "rounds": 0, "why_not": "its tape comes from outside the round"}]


def test_names_of_one_memory_are_told_apart() -> None:
    steps = [
        quiet(step("add_", None, input="x", other="y")),
        quiet(step("mul_", None, input="y", other=0.5)),
        step("add", "z", input="x", other="y"),
        step("sub", "z", input="z", other="x"),
    ]
    requests: list[Request] = [
        (steps, {"inputs": {"x": x, "y": y}, "return_": ["x", "y", "z"]}) for x, y in ("ab", "aa", "ca", "ba", "cc") * 4
    ]
    assert sum(sum(ran(p)) for p in same(requests)) > 8


def test_guards_run_in_every_replay() -> None:
    steps = [
        step("index_select", "r", input="a", dim=0, index="i"),
        step("sum", "loss", input="r"),
        step("autograd.grad", ["g"], outputs=["loss"], inputs=["a"]),
        quiet(step("sub_", None, input="a", other="g")),
        step("index_select", "last", input="a", dim=0, index="j"),
    ]
    requests: list[Request] = [
        (steps, {"inputs": {"i": {"data": i}, "j": {"data": j}}, "return_": ["a", "loss", "last"]})
        for i, j in [([0, 1], [0])] * 4 + [([0, 1], [3]), ([7, 1], [0]), ([2, 2], [1])]
    ]
    found = same(requests)
    assert [ran(p) for p in found] == [[], [], [1], [1], [], [], [1]]


def test_anomaly_detection_looks_at_what_a_plan_would_not() -> None:
    steps = [
        step("sub", "y", input="x", other="x"),
        step("sqrt", "y", input="y"),
        step("mul", "y", input="y", other=0.0),
        step("sum", "y", input="y"),
        step("backward", None, input="y"),
        step("_clear_grad", None, input="x"),
    ]
    x = {"inputs": {"x": {"data": [1.0, 2.0], "requires_grad": True}}}
    plain_steps = [*steps[:4], step("autograd.grad", ["g"], outputs=["y"], inputs=["x"])]
    for program in (steps, plain_steps):
        found = same([*[(program, x)] * 4, CHANGES["anomaly detection"], (program, x), (program, x)])
        assert ran(found[-1]) == []
    assert ran(found[3]) == [1]


def test_what_takes_long_has_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "LONGEST_S", 0.001)
    made = session(1 << 28)
    steps = [*[step("mm", "y", input="x", mat2="x")] * 6, step("sum", "y", input="y")]
    for _ in range(3):
        reply = run(made, step("ones", "x", size=[300, 300]), *steps, return_=["y"])
    assert reply["plans"] == [{"step": [], "rounds": 0, "why_not": "it takes too long for one turn"}]


# ---------------------------------------------------------------- sessions


def test_a_plan_serves_other_sessions_and_gives_away_nothing() -> None:
    server = ServerLedger(1 << 30)
    server.plans = Plans(1 << 28, server)
    slow = [session(0) for _ in range(3)]
    fast = [session(1 << 28, server) for _ in range(3)]
    for i, (one, other) in enumerate(zip(slow, fast, strict=True)):
        for made in (one, other):
            run(made, inputs={"w": {**floats(4, 2, seed=50 + i), "requires_grad": True}}, keep={"w": "w"})
    for request in [PROGRAMS["training"], PROGRAMS["a repeat"], PROGRAMS["kept"]] * 4:
        for one, other in zip(slow, fast, strict=True):
            assert told(one, request)[0] == told(other, request)[0]
            assert of_session(other) == of_session(one)
    assert server.plans.replayed > 15
    assert server.plans.made == 3


def test_nobody_learns_from_plans_what_another_has_sent() -> None:
    server = ServerLedger(1 << 30)
    server.plans = Plans(1 << 28, server)
    ann, bob = (session(1 << 28, server, owner=owner) for owner in ("ann", "bob"))
    for request in (PROGRAMS["training"], PROGRAMS["kept"]):
        first = told(ann, request)[1]
        for _ in range(4):
            last = told(ann, request)[1]
        assert last != first
        assert told(bob, request)[1] == first


def test_a_plan_keeps_no_tensor_of_a_session() -> None:
    server = ServerLedger(1 << 30)
    server.plans = Plans(1 << 28, server)
    made = session(1 << 28, server)
    big = {"inputs": {"big": {**floats(300, 300), "requires_grad": True}}}
    steps = [
        step("mul", "y", input="big", other="big"),
        step("t", "y", input="y"),
        step("mm", "y", input="y", mat2="big"),
        step("nn.functional.softmax", "y", input="y", dim=0),
        step("nn.functional.cross_entropy", "l", input="y", target={"data": [0] * 300}),
        step("autograd.grad", ["g"], outputs=["l"], inputs=["big"]),
        step("optim.sgd_", None, params=["big"], grads=["g"], lr=0.01),
    ]
    for _ in range(4):
        reply = run(made, *steps, **big, return_=["l"])
        run(made, repeat(5, *steps), **big, return_=["l"])
    assert ran(reply["plans"]) == [1]
    storages = [weakref.ref(t.storage) for t in made.tensors.values()]
    arrays = [weakref.ref(t.array) for t in made.tensors.values()]
    context = weakref.ref(made.ctx.ledger)
    assert server.plans.made == 2
    made.close()
    del made
    gc.collect()
    assert not any(x() for x in (*storages, *arrays, context))
    assert server.held == server.plans.ledger.held > 0


def test_plans_are_bounded() -> None:
    server = ServerLedger(1 << 30)
    server.plans = Plans(1 << 20, server)
    made = session(1 << 20, server)
    for i in range(30):
        for _ in range(3):
            body = [step("mul", "y", input="x", other=1.0 + i), *[step("exp", "y", input="y")] * 3]
            reply = run(made, *body, inputs={"x": {"data": [0.5] * 20000}}, return_=["y"], values="none")
        assert ran(reply["plans"]) == [1]
        assert server.plans.ledger.held <= 1 << 20
    assert server.plans.dropped > 10
    assert sum(e.nbytes for e in server.plans.entries.values()) == server.plans.ledger.held


def test_memory_that_plans_hold_is_given_back_when_it_is_short() -> None:
    server = ServerLedger(3 << 20)
    server.plans = Plans(1 << 28, server)
    made = session(1 << 28, server)
    body = [step("mul", "y", input="x", other=2.0), step("exp", "y", input="y"), step("sum", "y", input="y")]
    body.append(step("neg", "y", input="y"))
    for _ in range(4):
        run(made, *body, inputs={"x": {"data": [0.5] * 100_000}}, return_=["y"])
    assert server.plans.ledger.held > 400_000
    run(made, step("zeros", "z", size=[700_000]), return_=["z"], values="none")
    assert server.plans.ledger.held == 0


def test_inputs_of_another_form_each_time_are_given_up() -> None:
    made = session(1 << 28)
    body = [step("mul", "y", input="x", other=2.0), *[step("exp", "y", input="y")] * 3]
    for i in range(40):
        reply = run(made, *body, inputs={"x": {"data": [0.5] * (i + 1)}}, return_=["y"])
    assert reply["plans"][0]["why_not"] == "the inputs are of another form each time"
    assert made.plans.made < 20


def test_plans_can_be_turned_off() -> None:
    for limits in (Limits(plan_bytes=0), Limits(plan_from=0)):
        made = Session("s", limits=limits)
        for _ in range(5):
            reply = run(made, *[step("exp", "y", input="x")] * 5, inputs={"x": {"data": [0.5]}}, return_=["y"])
            assert reply["plans"] == []
        assert made.plans.made == 0


# ---------------------------------------------------------------- random programs


def try_sequence(seed: int) -> int:
    """A random program, again and again, with a change of some kind in between; how often a plan ran."""
    r = random.Random(seed)
    program, fields = Maker(seed).program()
    if r.random() < 0.6:
        program = [s for one in program for s in (one["steps"] if "repeat" in one else [one])]
    if r.random() < 0.5:
        fields["keep"] = {name: f"kept{i}" for i, name in enumerate(fields["return_"][-2:]) if name not in "abc"}
    requests: list[Request] = []
    for _ in range(r.randrange(4, 9)):
        requests.append((program, fields))
        if r.random() < 0.35:
            requests.append(CHANGES[r.choice(list(CHANGES))])
        if r.random() < 0.2:
            swap = r.sample(["a", "b", "c"], 2)
            requests.append(([step("mul", "x", input=swap[0], other=1.0), step("detach", "x", input="x")],
                             {"keep": {"x": swap[1]}}))  # fmt: skip
    try:
        found = same(requests)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {requests}") from error
    return sum(sum(ran(p)) for p in found)


@pytest.mark.parametrize("chunk", range(4))
def test_random_sequences(chunk: int) -> None:
    assert sum(try_sequence(seed) for seed in range(chunk * 25, chunk * 25 + 25)) > 10


@pytest.mark.parametrize("seed", range(10))
def test_tiles_that_come_again(seed: int) -> None:
    program, fields = large_chain(seed)
    inputs = fields.pop("inputs")
    sent: list[Request] = [([], {"inputs": inputs, "keep": {name: name for name in inputs}})]
    flat = [s for one in program for s in (one["steps"] if "repeat" in one else [one])]
    for i in range(5):
        sent.append((program, fields))
        sent.append((flat, fields | ({"keep": {"y0": "y", "loss": "l"}} if seed % 2 else {})))
        if i == 3:  # memory that overlaps: what was planned for tensors apart must not run
            sent.append(
                ([quiet(step("view", "o", input="p", size=list(np.shape(inputs["p"]["data"]))))], {"keep": {"o": "q"}})
            )
    same(sent)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(30))
def test_many_random_sequences(chunk: int) -> None:
    assert sum(try_sequence(seed) for seed in range(1000 + chunk * 40, 1040 + chunk * 40)) > 20


def test_values_of_a_pass_are_its_own() -> None:
    """What one request was given is no memory of the plan: the next leaves it alone."""
    made = session(1 << 28)
    steps = [step("mul", "y", input="x", other=2.0), step("exp", "z", input="y"), *[step("neg", "y", input="y")] * 2]
    for i in range(6):
        run(made, *steps, inputs={"x": {"data": [float(i)]}}, keep={"z": f"z{i}", "y": f"y{i}"})
    for i in range(6):
        assert np.allclose(made.names[f"z{i}"].array, np.exp(2.0 * i))
        assert np.allclose(made.names[f"y{i}"].array, 2.0 * i)
