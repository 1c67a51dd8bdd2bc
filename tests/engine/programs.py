"""Helpers for tests that run programs in a session."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.answer import TensorAnswer
from engine.session import Session

Steps = list[dict[str, Any]]


def step(op: str, out: Any = None, /, **args: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"op": op, "args": args}
    if out is not None:
        made["out"] = out
    return made


def run(
    session: Session,
    *steps: dict[str, Any],
    values: str = "all",
    dry_run: bool = False,
    explain: bool = False,
    **fields: Any,
) -> Any:
    """Runs a program to its end; the reply."""
    program = {"steps": list(steps), **{name.removesuffix("_"): value for name, value in fields.items()}}
    running = session.run(program, values=values, dry_run=dry_run, explain=explain)
    while True:
        try:
            next(running)
        except StopIteration as end:
            return end.value


def values(answer: TensorAnswer | None) -> Any:
    """An answer's values as nested lists."""
    assert answer is not None
    assert answer.values is not None
    return answer.values.tolist()


def state(session: Session) -> dict[str, Any]:
    """Everything about a session that a failing program must leave as it was, bit for bit."""
    tensors = {}
    for key, t in session.tensors.items():
        grad = t.grad
        tensors[key] = (
            id(t),
            t.name,
            t.backend.to_host(t.array).tobytes(),
            t.shape,
            t.strides,
            t.offset,
            t.requires_grad,
            t.version,
            None if t.edge is None else (id(t.edge[0]), t.edge[1], len(t.edge[0].saved)),
            None if grad is None else (id(grad), grad.version, grad.backend.to_host(grad.array).tobytes()),
        )
    ctx = session.ctx
    return {
        "tensors": tensors,
        "names": {name: id(t) for name, t in session.names.items()},
        "counter": session.counter,
        "seq": ctx.seq,
        "default_dtype": ctx.default_dtype.name,
        "generator": ctx.rng.get_state(),
        "held": ctx.ledger.held,
        "grad_enabled": ctx.grad_enabled,
    }


def floats(*shape: int, seed: int = 0) -> dict[str, Any]:
    """Data for a float32 tensor."""
    return {"data": np.random.default_rng(seed).standard_normal(shape).tolist(), "dtype": "float32"}
