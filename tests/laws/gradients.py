"""Laws about gradients: finite differences of first and second order, frozen inputs, and where a tape is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.autograd import run_backward
from engine.errors import EngineError
from engine.op import PRIMITIVE, Op
from engine.record import REC
from engine.tensor import Tensor
from tests.laws.harness import (
    Broken,
    Case,
    brief,
    cotangents,
    floating,
    gradients,
    memory,
    parts,
    seeds,
    share,
    values,
)
from tests.laws.law import changes_input, differentiable, functional, law

STEP = 1e-5
Host = np.ndarray[Any, Any]


def _inner(a: Host, b: Host) -> float:
    """Re<a, b>: what a gradient in PyTorch's convention and a direction make."""
    return float(np.sum(np.conj(a) * b).real)


def _direction(rng: np.random.Generator, like: Host, kind: str) -> Host:
    v = rng.uniform(-1, 1, like.shape)
    return v if kind == "real" else 1j * v


def _slope(along: Callable[[float], float]) -> float:
    """The derivative at 0 by central differences of two steps, extrapolated."""
    one = (along(STEP) - along(-STEP)) / (2 * STEP)
    two = (along(2 * STEP) - along(-2 * STEP)) / (4 * STEP)
    return (4 * one - two) / 3


def _agree(what: str, have: float, want: float, size: float) -> None:
    if not (abs(have - want) <= 2e-6 * max(1.0, size, abs(want))):
        raise Broken(f"{what}: the rule gives {have:.9g}, finite differences {want:.9g}")


class _Moved:
    """The case with some of its inputs moved along a direction; gives them back."""

    def __init__(self, case: Case, hosts: list[Any], at: int, direction: Host) -> None:
        self.case, self.hosts, self.at, self.direction = case, hosts, at, direction
        self.start = hosts[at]

    def __call__(self, t: float, f: Callable[[], float]) -> float:
        old = self.start
        moved = (old[0] + t * self.direction).astype(old[0].dtype)
        self.hosts[self.at] = (moved, old[1])
        try:
            return f()
        finally:
            self.hosts[self.at] = old


def _tensors(case: Case, require: Sequence[int] = ()) -> list[Tensor]:
    """Fresh inputs; an operation that changes its input gets a clone of it, since leaves may not be changed."""
    made = case.tensors(require)
    if changes_input(case.op) or case.op.kind == "inplace":
        made[0] = REC.clone(made[0])
    return made


def _differentiable(op: Op) -> bool:
    return differentiable(op) or changes_input(op)


@law("gradient", _differentiable)
def gradient(case: Case) -> None:
    """The gradient of every input agrees with finite differences in float64, along random directions: real and
    imaginary ones for complex inputs; every output has a random cotangent, and each input is frozen once."""
    if not case.sample.gradcheck or not case.floats or case.tied:
        return
    with case.here(grad=False):
        outs = case.outputs(_tensors(case))
    cots = cotangents(outs)
    if all(c is None for c in cots):
        return

    def loss() -> float:
        with case.here(grad=False):
            found = case.outputs(_tensors(case))
        return sum(_inner(c, values(t)) for c, t in zip(cots, found, strict=True) if c is not None)

    with case.here():
        leaves = case.tensors(case.floats)
        inputs = list(leaves)
        if changes_input(case.op):
            inputs[0] = REC.clone(leaves[0])
        outs = case.outputs(inputs)
        roots, given = seeds(case, outs, cots)
        wanted = [leaves[i] for i in case.floats]
        found = run_backward(roots, given, inputs=wanted, accumulate=False) if roots else [None] * len(wanted)
    rng = np.random.default_rng(11)
    for i, g in zip(case.floats, found, strict=True):
        host, d = case.hosts[i]
        if g is None:
            have_values = np.zeros(host.shape, host.dtype)
        else:
            if g.shape != host.shape or g.dtype is not d:
                raise Broken(f"the gradient of input {i} is {g.spec}, the input {list(host.shape)} {d.name}")
            have_values = values(g)
        if not host.size:
            continue
        for kind in ("real", "real", "imaginary") if d.is_complex else ("real", "real"):
            v = _direction(rng, host, kind)
            move = _Moved(case, case.hosts, i, v)
            want = _slope(lambda t, move=move: move(t, loss))  # type: ignore[misc]
            if not np.isfinite(want):
                raise Broken(f"finite differences of input {i} are {want}: the sample leaves the domain")
            size = float(np.abs(have_values).max())
            _agree(f"input {i}, {kind} direction", _inner(have_values, v), want, size)


@law("second-order", _differentiable)
def second_order(case: Case) -> None:
    """The gradient of (gradient . v), by create_graph, agrees with finite differences of the first gradient, for the
    inputs and for the cotangents."""
    if not case.sample.gradcheck or not case.floats or case.tied:
        return
    with case.here(grad=False):
        outs = case.outputs(_tensors(case))
    cots = cotangents(outs)
    live = [j for j, c in enumerate(cots) if c is not None]
    if not live:
        return

    def first(create_graph: bool) -> tuple[list[Tensor | None], list[Tensor], list[Tensor], list[int]]:
        leaves = case.tensors(case.floats)
        inputs = list(leaves)
        if changes_input(case.op):
            inputs[0] = REC.clone(leaves[0])
        found = case.outputs(inputs)
        roots, given = seeds(case, found, cots)
        at = [j for j in live if found[j].requires_grad]
        for c in given:
            c.requires_grad = create_graph
        wanted = [leaves[i] for i in case.floats]
        if not roots:
            return [None] * len(wanted), wanted, given, at
        grads = run_backward(roots, given, inputs=wanted, accumulate=False, create_graph=create_graph)
        return grads, wanted, given, at

    rng = np.random.default_rng(13)
    with case.here():
        grads, leaves, given, at = first(True)
        weights = []
        for g in grads:
            if g is None:
                weights.append(None)
                continue
            w = rng.uniform(-1, 1, g.shape)
            weights.append((w + 1j * rng.uniform(-1, 1, g.shape)) if g.dtype.is_complex else w)
        pairs = [(g, w) for g, w in zip(grads, weights, strict=True) if g is not None and g.requires_grad]
        targets = [*leaves, *given]
        second: list[Tensor | None] = [None] * len(targets)
        if pairs:
            second = run_backward(
                [g for g, _ in pairs],
                [case.tensor(np.asarray(w).astype(g.dtype.np), g.dtype) for g, w in pairs],
                inputs=targets,
                accumulate=False,
            )

    def total() -> float:
        with case.here():
            return sum(
                _inner(np.asarray(w), values(g))
                for g, w in zip(first(False)[0], weights, strict=True)
                if g is not None and w is not None
            )

    places = [(case.hosts, i, f"input {i}") for i in case.floats]
    boxed: list[Any] = [None if c is None else (c, None) for c in cots]

    def total_of_boxed() -> float:
        for j, box in enumerate(boxed):
            cots[j] = None if box is None else box[0]
        return total()

    places += [(boxed, j, f"cotangent {j}") for j in at]
    for (hosts, i, what), h in zip(places, second, strict=True):
        host = hosts[i][0]
        if not host.size:
            continue
        have = np.zeros(host.shape, host.dtype) if h is None else values(h)
        for kind in ("real", "imaginary") if host.dtype.kind == "c" else ("real",):
            v = _direction(rng, host, kind)
            move = _Moved(case, hosts, i, v)
            want = _slope(lambda t, move=move: move(t, total_of_boxed))  # type: ignore[misc]
            size = float(np.abs(have).max())
            _agree(f"{what}, {kind} direction, second order", _inner(have, v), want, 10 * size)


@law("need", differentiable, dtypes=("float64", "float32"))
def need(case: Case) -> None:
    """A gradient does not depend on which other inputs want one: alone, and with each of the others frozen, it is what
    it is when all require grad; and one cotangent alone gives what the others being zero gives."""
    every = case.floats
    with case.here():
        full = gradients(case, every)
    if len(every) > 1:
        groups = [[i] for i in every] + ([[j for j in every if j != i] for i in every] if len(every) > 2 else [])
        for group in groups:
            with case.here():
                found = gradients(case, group)
            for i, g in zip(group, found, strict=True):
                _equal(f"input {i} with {group} of {every} requiring grad", g, full[every.index(i)])
    with case.here(grad=False):
        outs = case.outputs(case.tensors())
    cots = cotangents(outs)
    live = [j for j, c in enumerate(cots) if c is not None]
    if not every or len(live) < 2:
        return
    for j in live:
        alone = [c if i == j else None for i, c in enumerate(cots)]
        zeros = [c if i == j or c is None else np.zeros_like(c) for i, c in enumerate(cots)]
        with case.here():
            a, b = gradients(case, every, alone), gradients(case, every, zeros)
        for i, x, y in zip(every, a, b, strict=True):
            _equal(f"input {i} from output {j} alone", x, y)


def _equal(what: str, a: Tensor | None, b: Tensor | None) -> None:
    if a is None and b is None:
        return
    shown = a if a is not None else b
    assert shown is not None
    zero = np.zeros(shown.shape)
    x = zero if a is None else values(a)
    y = zero if b is None else values(b)
    tol = 1e-5 if shown.dtype.name in ("float32", "complex64") else 1e-10
    if x.shape != y.shape or not np.allclose(x, y, rtol=tol, atol=tol, equal_nan=True):
        raise Broken(f"the gradient of {what} is {brief(x)}, else {brief(y)}")


@law("tape", functional, dtypes=("float32", "int64"))
def tape(case: Case) -> None:
    """A tape is written where it is due and nowhere else: not without grad mode, not without an input that requires
    grad, not for integers; and a differentiable operation's floating outputs have one."""
    for grad, require in ((True, []), (False, case.floats)):
        tensors = case.tensors(require if case.wanted != "int64" else [])
        with case.here(grad) as ctx:
            before = ctx.seq
            try:
                outs = case.outputs(tensors)
            except Exception:
                if case.wanted == "int64":
                    return  # not for integers: the law of metas looks after how that is refused
                raise
            _no_tape(case, outs, f"grad mode {'on' if grad else 'off'}, {len(require)} inputs requiring grad", tensors)
            if ctx.seq != before:
                raise Broken(f"grad mode {'on' if grad else 'off'}: {ctx.seq - before} nodes were written for nothing")
    require = case.floats
    if not require or case.wanted == "int64":
        return
    with case.here():
        tensors = case.tensors(require)
        outs = case.outputs(tensors)
    for j, t in enumerate(outs):
        if type(t) is not Tensor:
            continue
        has = t.edge is not None
        if has != t.requires_grad and t not in tensors:
            raise Broken(f"output {j}: requires_grad is {t.requires_grad}, but there is {'a' if has else 'no'} node")
        if not floating(t):
            if t.requires_grad:
                raise Broken(f"output {j} of {t.dtype.name} requires grad")
        elif case.op.vjp is None and case.op.kind == PRIMITIVE:
            if t.requires_grad:
                raise Broken(f"output {j} requires grad, but the operation has no gradient")
        elif not t.requires_grad and _names(case.op, len(outs))[j] not in case.op.nondiff:
            raise Broken(f"output {j} has no tape, but the operation is differentiable")


def _no_tape(case: Case, outs: list[Any], when: str, inputs: list[Tensor]) -> None:
    for j, t in enumerate(parts(outs)):
        if type(t) is not Tensor or any(t is x for x in inputs):
            continue
        # As in PyTorch a view made without grad mode requires grad where its source does, and has no node.
        shows = t.requires_grad and not any(t.storage is x.storage and x.requires_grad for x in inputs)
        if t.edge is not None or shows:
            raise Broken(f"{when}: output {j} has a tape")


def _names(op: Op, n: int) -> Sequence[str]:
    return op.outputs if len(op.outputs) == n else ("result",) * n


@law("own-gradient", differentiable)
def own_gradient(case: Case) -> None:
    """Each leaf's `.grad` owns its memory: no other gradient, cotangent, input or output lies there; and a second
    backward adds to it what the first one put there."""
    if not case.floats:
        return
    with case.here() as ctx:
        tensors = case.tensors(case.floats)
        outs = case.outputs(tensors)
        roots, given = seeds(case, outs, cotangents(outs))
        if not roots:
            return
        run_backward(roots, given, retain_graph=True)
        grads = [(i, tensors[i].grad) for i in case.floats]
        others = [("an input", t) for t in tensors] + [("a cotangent", t) for t in given]
        others += [("an output", t) for t in outs if type(t) is Tensor]
        first = {}
        for i, g in grads:
            if g is None:
                continue
            if g.requires_grad or g.edge is not None:
                raise Broken(f".grad of input {i} has a tape without create_graph")
            first[i] = values(g).copy()
            for what, t in others:
                if share(g, t):
                    raise Broken(f".grad of input {i} lies in the memory of {what}")
            others.append((f"the gradient of input {i}", g))
        run_backward(roots, given, retain_graph=True)
        for i, before in first.items():
            g = tensors[i].grad
            assert g is not None
            if not np.allclose(values(g), 2 * before, rtol=1e-6, atol=1e-9, equal_nan=True):
                raise Broken(f".grad of input {i} after two backwards is {brief(values(g))}, once {brief(before)}")
        if not ctx.grad_enabled:
            raise Broken("backward left grad mode off")


def _has_indices(op: Op) -> bool:
    return any(p.name in ("index", "indices") and p.form == "tensor" for p in op.params)


@law("guards", _has_indices)
def guards(case: Case) -> None:
    """Indices out of range are refused, on a device that would wrap them silently too, and nothing has changed."""
    places = [i for i, (_, d) in enumerate(case.hosts) if d.name == "int64"]
    holes = {n: a for n, a in zip(case.op.names, case.arguments, strict=True) if n in ("index", "indices")}
    for hole in holes.values():
        at = getattr(hole, "at", None)
        if at not in places or not case.hosts[at][0].size:
            continue
        host, d = case.hosts[at]
        for bad in (1000, -1000):
            wrong = host.copy()
            wrong.reshape(-1)[-1] = bad
            tensors = case.tensors()
            tensors[at] = case.tensor(wrong, d)
            before = [memory(t) for t in tensors]
            with case.here(grad=False):
                try:
                    case.run(tensors)
                except EngineError:
                    pass
                else:
                    raise Broken(f"index {bad} was taken")
            for t, old in zip(tensors, before, strict=True):
                if t.version or not np.array_equal(memory(t), old, equal_nan=old.dtype.kind in "fc"):
                    raise Broken(f"index {bad} was refused, but an input has changed")
