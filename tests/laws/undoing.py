"""The law of undo: a program that fails leaves its session as it was, bit for bit, whatever it did before."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.answer import ArrayData
from engine.dtypes import DType
from engine.errors import EngineError, ShapeMismatch
from engine.op import REGISTRY, Op
from engine.session import Session
from engine.tape import FREED
from engine.tensor import Tensor
from tests.engine.programs import run, state, step
from tests.laws.harness import DEVICES, Broken, Case, floating, memory, parts, walk
from tests.laws.law import law


def public_name(op: Op) -> str | None:
    """The name by which a program calls the operation: an overload's is that of its head."""
    if not op.internal:
        return op.name
    return next((n for n, head in REGISTRY.items() if op in head.overloads and not head.internal), None)


def has_program(op: Op) -> bool:
    return public_name(op) is not None


def as_argument(value: Any) -> Any:
    """A Python argument as a program may give it."""
    if isinstance(value, DType):
        return value.name
    if value is Ellipsis:
        return "..."
    if isinstance(value, slice):
        return ":".join("" if part is None else str(part) for part in (value.start, value.stop, value.step))
    return value


def as_json(value: Any) -> Any:
    made = walk(value, as_argument)
    return _lists(made)


def _lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_lists(v) for v in value]
    return {k: _lists(v) for k, v in value.items()} if isinstance(value, dict) else value


def everything(session: Session) -> dict[str, Any]:
    """`state`, and what is held of tapes, storages and memory besides."""
    found: dict[str, Any] = {"state": state(session)}
    for key, t in session.tensors.items():
        nodes, edge = [], t.edge
        if edge is not None:
            seen, stack = set(), [edge[0]]
            while stack:
                node = stack.pop()
                if node.seq in seen:
                    continue
                seen.add(node.seq)
                rows = None if node.saved is FREED else [(r[0], r[1], id(r[2]), r[4]) for r in node.saved]
                nodes.append((node.seq, node.op.name, rows, len(node.edges)))
                stack += [e[0] for e in node.edges if type(e) is tuple]
        found[key] = (id(t.storage), t.storage.version, memory(t).tobytes(), nodes, t.grad is None)
    return found


@law("undo", has_program, dtypes=("float32",))
def undo(case: Case) -> None:
    """After a program that ran the operation (and backward through it) and then failed, the session is what it was, bit
    for bit: values, versions, gradients, tapes, names, generator, memory."""
    session = Session("s", seed=3, device=case.device, devices=DEVICES)
    inputs, steps, keep = {}, [], {}
    for i, (host, d) in enumerate(case.hosts):
        flag = i in case.floats
        data = ArrayData(np.array(host, order="C", copy=True), d.name)
        inputs[f"l{i}"] = {"data": data, "dtype": d.name, "device": case.device, "requires_grad": flag}
        keep[f"l{i}"] = f"l{i}"
        steps.append(step("clone", f"x{i}", input=f"l{i}"))
        keep[f"x{i}"] = f"x{i}"
        if flag:  # a gradient that is there already, so that backward must add to it
            steps += [
                step("clone", f"p{i}", input=f"l{i}"),
                step("backward", input=f"p{i}", gradient=f"l{i}"),
            ]
    run(session, *steps, inputs=inputs, keep=keep, values="none")
    for prefix in ("x", "l"):
        _fails_without_trace(case, session, prefix, backward=prefix == "x")


def _fails_without_trace(case: Case, session: Session, prefix: str, *, backward: bool) -> None:
    names = [f"{prefix}{i}" for i in range(len(case.hosts))]
    args = {n: as_json(a) for n, a in zip(case.op.names, case.fill(names), strict=True)}
    given = {n for n, a in zip(case.op.names, case.arguments, strict=True)}
    for p in case.op.params:
        if not p.required and args[p.name] == as_json(p.default):
            given.discard(p.name)
    name = public_name(case.op)
    assert name is not None
    call: dict[str, Any] = {"op": name, "args": {n: args[n] for n in given}}
    if not backward:
        call["no_grad"] = True  # leaves: what optimizers and initializers change
    made = case_outputs(case)
    steps = [call]
    extra: dict[str, Any] = {}
    if made is not None:
        outs = [f"r{j}" if t is not None else None for j, t in enumerate(made)]
        if outs:
            call["out"] = outs if len(outs) > 1 or not isinstance(case_result(case), Tensor) else outs[0]
        roots = []
        for j, t in enumerate(made):
            if backward and t is not None and floating(t) and t.requires_grad:
                ones = np.ones(t.shape, t.dtype.np)
                extra[f"c{j}"] = {"data": ArrayData(ones, t.dtype.name), "dtype": t.dtype.name, "device": t.device}
                roots.append(j)
        if roots:
            seeds = [f"c{j}" for j in roots]
            steps.append(step("autograd.backward", tensors=[f"r{j}" for j in roots], grad_tensors=seeds))
    fail = step("add", "z", input=[1.0, 2.0, 3.0], other=[1.0, 2.0])
    steps.append(fail)
    before = everything(session)
    at: list[int] | None = None
    try:
        run(session, *steps, inputs=extra, keep={"z": "z"}, values="none")
    except EngineError as e:
        at, why = e.step, str(e)
        expected = at == [len(steps) - 1] and isinstance(e, ShapeMismatch)
    else:
        raise Broken("a program that must fail did not")
    after = everything(session)
    if before != after:
        raise Broken(f"after a program on {prefix}0.. that failed: {_difference(before, after)}")
    if not expected and made is not None:
        raise Broken(f"the program failed at step {at} already: {why}")


def case_result(case: Case) -> Any:
    tensors = case.tensors(case.floats)
    with case.here():
        from engine.record import REC

        return case.run([REC.clone(t) for t in tensors])


def case_outputs(case: Case) -> list[Any] | None:
    """The result's parts, of clones of the inputs; None where the operation refuses those."""
    try:
        found = case_result(case)
    except EngineError:
        return None
    if isinstance(found, dict):
        return []
    return [t if type(t) is Tensor else None for t in parts(found)] if not _plain(found) else []


def _plain(found: Any) -> bool:
    return not any(type(t) is Tensor for t in parts(found))


def _difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    for key, old in before.items():
        new = after.get(key)
        if key == "state" and new is not None:
            for field, was in old.items():
                if new[field] != was:
                    return f"{field} differs" + (f": {was!r} and {new[field]!r}" if field in _SHORT else "")
        elif new != old:
            fields = ("storage", "version", "memory", "tape", "gradient")
            return f"{key}: " + ", ".join(f for f, a, b in zip(fields, old, new or old, strict=True) if a != b)
    return "more than there was"


_SHORT = ("counter", "seq", "default_dtype", "held", "grad_enabled", "names")
