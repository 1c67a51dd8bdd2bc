"""Laws about ways that must agree: arrays and tensors, two ways of backward, fast and general runners, meta and run,
reduced precision and float32."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.apply import primitive_runner
from engine.autograd import run_backward
from engine.backend import CPU
from engine.carriers import Raw, _raw, infer, infer_inplace
from engine.dtypes import DTYPES, can_cast, float32, from_numpy
from engine.errors import DtypeMismatch, EngineError, ShapeMismatch
from engine.op import INPLACE, PRIMITIVE, SPECIAL, Spec
from engine.tensor import Tensor, fresh
from tests.laws.excluded import VALUES_DECIDE
from tests.laws.harness import (
    Broken,
    Case,
    all_same,
    brief,
    close,
    cotangents,
    floating,
    gradients,
    memory,
    parts,
    raw,
    same,
    seeds,
    values,
    wide,
)
from tests.laws.law import anything, differentiable, functional, law, primitive


@law("carriers", functional, dtypes=("float64", "float32", "int64", "complex64"))
def carriers(case: Case) -> None:
    """On arrays (`Raw`) an operation gives what it gives on tensors (`Rec`): the same values and dtypes, or the same
    class of refusal; and what `Raw` has written by hand agrees with the general way."""
    if any(d.reduced for _, d in case.hosts):
        return
    k = case.ctx.k(case.backend)
    with case.here(grad=False):
        tensors = case.tensors()
        want, refused = _try(lambda: case.run(tensors))
        ways = [_raw(case.op, k.raw)]
        if case.op.name in Raw.__dict__:
            ways.append(getattr(k.raw, case.op.name))
        for i, way in enumerate(ways):
            if i and any(d.category < 2 for _, d in case.hosts):
                continue  # rules, for which these were written, see floats alone
            case.ctx.rng.manual_seed(1234)
            args = case.fill([t.array for t in tensors])
            have, also = _try(lambda way=way, args=args: way(*args))
            if refused is not None and case.op.kind != PRIMITIVE:
                continue  # rules see only what a run has accepted
            if refused is not None or also is not None:
                if type(refused) is not type(also):
                    raise Broken(f"on tensors {refused!r}, on arrays {also!r}")
                continue
            _compare_arrays(case, have, want, "on arrays and on tensors" if not i else "Raw's own way and the general")


def _try(f: Any) -> tuple[Any, EngineError | None]:
    try:
        return f(), None
    except EngineError as e:
        return None, e


def _compare_arrays(case: Case, have: Any, want: Any, what: str) -> None:
    xs, ys = parts(have), parts(want)
    if len(xs) != len(ys):
        raise Broken(f"{what}: {len(xs)} and {len(ys)} results")
    for x, y in zip(xs, ys, strict=True):
        if type(y) is not Tensor:
            continue
        array = case.ctx.k(case.backend).xp.asarray(x)
        d = from_numpy(array.dtype)
        if d is not y.dtype.compute:
            raise Broken(f"{what}: dtypes {array.dtype} and {y.dtype.name}")
        if y.dtype.reduced:
            continue
        same(fresh(array, Spec(array.shape, y.dtype), case.backend, case.ctx.ledger), y, what)


@law("backward", differentiable, dtypes=("float64", "float32", "bfloat16", "mixed"))
def backward(case: Case) -> None:
    """Backward on arrays gives the same gradients as backward with create_graph, in value, shape and dtype, which are
    the input's, for operands of different dtypes too."""
    with case.here():
        if not case.floats:
            return
        plain = gradients(case, case.floats)
        recorded = gradients(case, case.floats, create_graph=True)
    for i, a, b in zip(case.floats, plain, recorded, strict=True):
        if (a is None) != (b is None):
            raise Broken(f"input {i}: {a} on arrays, {b} with create_graph")
        if a is not None:
            for g in (a, b):
                if g is None or g.dtype is not case.hosts[i][1] or g.shape != case.hosts[i][0].shape:
                    raise Broken(f"the gradient of input {i} is {g}, the input {case.hosts[i][1].name}")
            same(a, b, f"gradient of input {i} on arrays and with create_graph")


@law("runners", primitive, dtypes=("float64", "float32", "bfloat16"))
def runners(case: Case) -> None:
    """A fast runner gives, bit for bit, what the general way of running a primitive gives, and the same gradients."""
    if case.op.run is None or case.op.run.__qualname__.startswith("primitive_runner"):
        return
    general = primitive_runner(case.op)
    results = []
    for way in (case.op.run, general):
        with case.here():
            tensors = case.tensors(case.floats)
            case.ctx.rng.manual_seed(1234)
            made = way(case.fill(tensors))
            outs = parts(made)
            roots, given = seeds(case, outs, cotangents(outs))
            leaves = [tensors[i] for i in case.floats]
            grads = run_backward(roots, given, inputs=leaves, accumulate=False) if roots else []
        results.append((made, list(grads), [t.edge is not None for t in outs if type(t) is Tensor]))
    (a, ga, ta), (b, gb, tb) = results
    all_same(a, b, "fast and general runner", exact=True)
    if ta != tb:
        raise Broken(f"tapes of the fast and the general runner: {ta} and {tb}")
    all_same(ga, gb, "gradients by the fast and the general runner", exact=True)


@law("meta", anything, dtypes=("float32", "float64", "float16", "bfloat16", "int64", "bool", "complex64"))
def meta(case: Case) -> None:
    """Meta says what the run gives, shape and dtype, for every dtype; what a run refuses meta has refused, with the
    same class of error, and nothing was changed then."""
    op = case.op
    if op.kind == SPECIAL and op.meta is None:
        return
    tensors = case.tensors()
    before = [memory(t) for t in tensors]
    specs = case.fill([t.spec for t in tensors])
    with case.here(grad=False):
        k = case.ctx.k(case.backend)
        said, refused = _try(lambda: _meta(op, k, list(specs)))
        made, also = _try(lambda: case.run(tensors))
    if type(refused) is not type(also):
        raise Broken(f"meta says {refused!r}, the run {also!r}")
    if refused is not None:
        if any(t.version for t in tensors) or not all(
            np.array_equal(memory(t), b, equal_nan=b.dtype.kind in "fc") for t, b in zip(tensors, before, strict=True)
        ):
            raise Broken(f"refused ({refused}), but an input has changed")
        return
    xs, ys = parts(_plain(said)), parts(made)
    if len(xs) != len(ys):
        raise Broken(f"meta promises {len(xs)} results, there are {len(ys)}")
    for x, y in zip(xs, ys, strict=True):
        if type(y) is not Tensor:
            if x is not None:
                raise Broken(f"meta promises {x}, the result is {y!r}")
            continue
        if (
            type(x) is not Spec
            or x.dtype is not y.dtype
            or not _fits(x.shape, y.shape, op.dynamic or op.name in VALUES_DECIDE)
        ):
            raise Broken(f"meta promises {x}, the result is {y.spec}")
        have = y.array
        if have.dtype != y.dtype.np or tuple(have.shape) != y.shape:
            raise Broken(f"the tensor says {y.spec}, its array is {have.dtype}{list(have.shape)}")


def _fits(said: tuple[int, ...], shape: tuple[int, ...], dynamic: bool) -> bool:
    """Where sizes depend on values only their number can be known beforehand."""
    return len(said) == len(shape) if dynamic else said == shape


def _plain(said: Any) -> Any:
    return list(said) if type(said) is tuple else said


def _meta(op: Any, k: Any, specs: list[Any]) -> Any:
    if op.kind == SPECIAL:
        return op.meta(k, *specs)
    if op.kind != INPLACE:
        return infer(op, k, specs)[0]
    out, target = infer_inplace(op, k, specs)[0], specs[0]
    if out.shape != target.shape:
        raise ShapeMismatch("the result does not fit its input")
    if not can_cast(out.dtype, target.dtype):
        raise DtypeMismatch("the result cannot be cast to its input's dtype")
    return target


@law("reduced", functional, dtypes=("float16", "bfloat16"))
def reduced(case: Case) -> None:
    """A float16 or bfloat16 result is the float32 computation rounded once, bit for bit, and a gradient has the dtype
    of its input and the value of the float32 gradient up to rounding."""
    narrow = DTYPES[case.wanted]
    full = Case(case.op.name, case.number, case.device, "float32")
    for i, ((host, d), t) in enumerate(zip(case.hosts, case.drawn, strict=True)):
        if d is narrow and t.dtype is None:
            full.hosts[i] = (wide(host, narrow), float32)
    full.ctx.default_dtype = case.ctx.default_dtype = float32
    with case.here(grad=False):
        have, refused = _try(lambda: case.run(case.tensors()))
    if refused is not None:
        return  # not for this dtype: the law of metas looks after how that is refused
    with full.here(grad=False):
        want = full.run(full.tensors())
    xs, ys = parts(have), parts(want)
    for j, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if type(x) is not Tensor:
            same(x, y, f"output {j}")
            continue
        if x.dtype is narrow and y.dtype is float32:
            bits = y.backend.to_host(y.backend.cast(y.array, float32, narrow))
            if not _same_bits(raw(x), bits, narrow):
                raise Broken(f"output {j}: {brief(values(x))}, float32 rounded once {brief(wide(bits, narrow))}")
        else:
            same(x, y, f"output {j}", exact=x.dtype is y.dtype)
    if not (differentiable(case.op) and case.floats) or not any(floating(x) for x in xs):
        return
    cots = cotangents(xs)
    rounded = [None if c is None else _round(c, x) for c, x in zip(cots, xs, strict=True)]
    with case.here():
        gs = gradients(case, case.floats, rounded)
    with full.here():
        ws = gradients(full, full.floats, rounded)
    for i, g, w in zip(case.floats, gs, ws, strict=True):
        if (g is None) != (w is None):
            raise Broken(f"gradient of input {i}: {g} and in float32 {w}")
        if g is None or w is None:
            continue
        if g.dtype is not case.hosts[i][1] or g.shape != case.hosts[i][0].shape:
            raise Broken(f"the gradient of input {i} is {g.spec}, the input {case.hosts[i][1].name}")
        a, b = values(g), values(w)
        tol = 2.0 ** (-7 if narrow.name == "bfloat16" else -10)
        top = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
        if not close(a, b, 2 * tol, 2 * tol * top + 1e-7):
            raise Broken(f"gradient of input {i}: {brief(a)}, in float32 {brief(b)}")


def _round(c: Any, x: Tensor) -> Any:
    """A cotangent that its output's dtype can hold exactly, in the compute dtype."""
    d = x.dtype
    return wide(CPU.cast(c, from_numpy(c.dtype) or d, d), d) if d.reduced else c


def _same_bits(a: Any, b: Any, d: Any) -> bool:
    return bool(np.array_equal(wide(a, d), wide(b, d), equal_nan=True))


@cache
def promotion_data() -> dict[str, Any]:
    path = Path(__file__).parent.parent / "data" / "promotion.json"
    return json.loads(path.read_text("utf-8"))  # type: ignore[no-any-return]


def _promotes(op: Any) -> bool:
    return op.name in promotion_data()["ops"] and op.kind != INPLACE


@law("dtypes", _promotes, dtypes=("float32",))
def dtypes(case: Case) -> None:
    """The dtype of a result is PyTorch's, for one operand of each dtype, for two of all pairs with and without
    dimensions, and for numbers; what PyTorch refuses is refused."""
    if case.number:
        return
    table = promotion_data()["ops"][case.op.name]
    for row, outcome in table.items():
        args = [_operand(case, word) for word in row.split()]
        with case.here(grad=False):
            try:
                made = case.op.run(case.op.bind(tuple(args), {}))  # type: ignore[misc]
                found = parts(made)[0].dtype.name
            except EngineError as e:
                found = "refused"
                if outcome != "refused":
                    raise Broken(f"{row}: {outcome} in PyTorch, refused here: {e}") from e
        if found != outcome:
            raise Broken(f"{row}: {outcome} in PyTorch, {found} here")


def _operand(case: Case, word: str) -> Any:
    """ "float32" is ones of shape [2], "float32:0" a 0-d one, "1", "1.0", "True" and "1j" are numbers."""
    name, _, rank = word.partition(":")
    if name not in DTYPES:
        return {"True": True, "1": 1, "1.0": 1.0, "1j": 1j}[name]
    d = DTYPES[name]
    ones = CPU.cast(np.ones(() if rank else (2,), np.float32), float32, d)
    return case.tensor(ones, d)
