"""The law of plans: rounds that run by a plan are what they are without one, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from engine.answer import ArrayData, TensorAnswer
from engine.errors import EngineError
from engine.limits import Limits
from engine.op import Op
from engine.session import Session
from engine.tensor import Tensor
from tests.devices import cuda
from tests.engine.programs import run, step
from tests.laws.harness import Broken, Case, floating
from tests.laws.law import law
from tests.laws.undoing import as_json, case_outputs, has_program, public_name

ROUNDS = 5


def may_repeat(op: Op) -> bool:
    """Whether it means anything to call the operation again and again: not what makes things, or ends them."""
    return has_program(op) and op.kind != "special" and not op.functions


@law("plans", may_repeat, dtypes=("float32", "float64"))
def plans(case: Case) -> None:
    """A repeat that runs by a plan gives what an interpreted one gives, bit for bit (values, gradients,
    versions, random numbers), or it is refused in the same words in the same round."""
    if case.device != "cpu" and case.wanted != "float32":
        return  # on a device plans are made of the same calls in every dtype
    # There fused chains run as array code; that kernels say the same is held by tests/engine/test_fused.py.
    steps, inputs, names = _round(case)
    with array_code(case.device):
        slow, fast = (_told(case, steps, inputs, names, plan_from) for plan_from in (0, 2))
    if slow != fast:
        what = next((n for n in slow if slow[n] != fast.get(n)), "more than there was")
        raise Broken(f"with a plan {what} is {fast.get(what)!r:.200}, without {slow[what]!r:.200}")


@contextmanager
def array_code(device: str) -> Iterator[None]:
    """Fused chains run as array code meanwhile."""
    if device == "cpu":
        yield
        return
    chains = cuda().chains
    before = chains.why
    chains.forget("array code is asked for")
    try:
        yield
    finally:
        chains.forget(before)


def _round(case: Case) -> tuple[list[dict[str, Any]], dict[str, Any], list[str]]:
    """The steps of a round: the operation on copies, backward where there is one, and a small step down."""
    inputs: dict[str, Any] = {}
    steps: list[dict[str, Any]] = []
    leaves = case.floats
    for i, (host, d) in enumerate(case.hosts):
        data = ArrayData(np.array(host, order="C", copy=True), d.name)
        inputs[f"l{i}"] = {"data": data, "dtype": d.name, "requires_grad": i in leaves}
        steps.append(step("clone", f"x{i}", input=f"l{i}"))
    args = {
        n: as_json(a) for n, a in zip(case.op.names, case.fill([f"x{i}" for i in range(len(case.hosts))]), strict=True)
    }
    given = {n: v for n, v in args.items() if _given(case, n, v)}
    name = public_name(case.op)
    assert name is not None
    call: dict[str, Any] = {"op": name, "args": given}
    steps.append(call)
    made = case_outputs(case)
    names = [f"x{i}" for i in range(len(case.hosts))]
    if not made:
        return steps, inputs, names
    outs = [f"r{j}" if t is not None else "" for j, t in enumerate(made)]
    call["out"] = outs if len(outs) > 1 else outs[0]
    names += [n for n in outs if n]
    roots = [j for j, t in enumerate(made) if type(t) is Tensor and floating(t) and t.requires_grad]
    if not roots or not leaves:
        return steps, inputs, names
    for j in roots:
        ones = np.full(made[j].shape, 0.5, made[j].dtype.np)
        inputs[f"c{j}"] = {"data": ArrayData(ones, made[j].dtype.name), "dtype": made[j].dtype.name}
    grads = [f"g{i}" for i in leaves]
    steps.append(
        step(
            "autograd.grad",
            grads,
            outputs=[f"r{j}" for j in roots],
            inputs=[f"l{i}" for i in leaves],
            grad_outputs=[f"c{j}" for j in roots],
            allow_unused=True,
        )
    )
    lists = {"params": [f"l{i}" for i in leaves], "grads": grads}
    if not any(case.hosts[i][1].is_complex for i in leaves):
        steps.append(step("optim.sgd_", None, **lists, lr=0.001))
    return steps, inputs, [*names, *(f"l{i}" for i in leaves)]


def _given(case: Case, name: str, value: Any) -> bool:
    p = case.op.params[case.op.positions[name]]
    return p.required or value != as_json(p.default)


def _told(
    case: Case, steps: list[dict[str, Any]], inputs: dict[str, Any], names: list[str], plan_from: int
) -> dict[str, Any]:
    devices = ("cpu",) if case.device == "cpu" else ("cpu", case.device)
    session = Session("s", seed=3, limits=Limits(plan_from=plan_from), devices=devices, device=case.device)
    fresh = {
        name: {**given, "data": ArrayData(given["data"].array.copy(), given["data"].dtype)}
        for name, given in inputs.items()
    }
    try:
        reply = run(session, {"repeat": ROUNDS, "steps": steps}, inputs=fresh, return_=names)
    except EngineError as error:
        return {"refusal": (type(error).__name__, str(error), error.step, error.round)}
    found = {name: _plain(answer) for name, answer in reply["results"].items()}
    return {**found, "generator": session.ctx.rng.get_state(), "seq": session.ctx.seq, "steps": reply["steps_run"]}


def _plain(answer: Any) -> Any:
    if isinstance(answer, TensorAnswer):
        assert answer.values is not None
        known = (answer.dtype, answer.shape, answer.strides, answer.version, answer.requires_grad, answer.grad_fn)
        return known, answer.values.tobytes()
    if isinstance(answer, list | tuple):
        return [_plain(x) for x in answer]
    return answer
