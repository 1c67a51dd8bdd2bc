"""Laws about memory: layouts, ownership, views, and changes in place."""

from __future__ import annotations

import numpy as np

from engine.autograd import run_backward
from engine.backend import CPU
from engine.context import grad_mode
from engine.dtypes import can_cast
from engine.errors import DtypeMismatch, EngineError, LeafInPlace, ShapeMismatch
from engine.op import PRIMITIVE, VIEW
from engine.random import Generator
from engine.record import REC
from engine.tensor import Tensor
from tests.laws.harness import (
    Broken,
    Case,
    all_same,
    brief,
    cotangents,
    floating,
    gradients,
    laid_out,
    memory,
    parts,
    same,
    seeds,
    share,
    tensor,
    values,
    wide,
)
from tests.laws.law import functional, in_place, law

LAYOUTS = ("transposed", "sliced", "expanded")


@law("layouts", functional)
def layouts(case: Case) -> None:
    """Transposed, sliced (with an offset and a step) and expanded (stride 0) inputs give the values and gradients of
    contiguous ones; 0-d and empty inputs are among the samples."""
    if case.op.random or _draws(case):
        return _random_layouts(case)
    for i, (host, _) in enumerate(case.hosts):
        for layout in LAYOUTS:
            if layout == "transposed" and host.ndim < 2:
                continue
            if layout == "expanded" and (host.ndim < 1 or host.shape[0] < 2 or case.drawn[i].values is not None):
                continue
            _one_layout(case, i, layout)
    return None


def _draws(case: Case) -> bool:
    """Whether the generator moves: composites draw by the operations that they are made of."""
    with case.here(grad=False):
        case.run(case.tensors())
    rng, fresh = case.ctx.rng, Generator(1234)
    return (rng.get_state(), rng.get_device_state()) != (fresh.get_state(), fresh.get_device_state())


def _random_layouts(case: Case) -> None:
    """Random numbers are dealt out in memory order: only the sizes and dtypes can be asked."""
    for i, (host, d) in enumerate(case.hosts):
        with case.here(grad=False):
            tensors = case.tensors()
            want = case.run(tensors)
            tensors[i] = laid_out(host, d, "sliced", case.backend, case.ctx)
            have = case.run(tensors)
        for x, y in zip(parts(have), parts(want), strict=True):
            if type(x) is Tensor and x.spec != y.spec:
                raise Broken(f"input {i} sliced: {x.spec} and {y.spec}")


def _one_layout(case: Case, i: int, layout: str) -> None:
    host, d = case.hosts[i]
    if layout == "expanded":
        host = np.ascontiguousarray(np.broadcast_to(host[:1], host.shape))
        if case.drawn[i].spd and host.ndim == 2:
            return
    saved = case.hosts[i]
    case.hosts[i] = (host, d)
    try:
        with case.here():
            plain = case.tensors()
            try:
                want = case.run(plain)
            except EngineError as e:
                if layout == "expanded":
                    return  # equal rows are no input for it
                raise Broken(f"contiguous input refused: {e}") from e
            others = case.tensors()
            others[i] = laid_out(host, d, layout, case.backend, case.ctx)
            before = memory(others[i])
            have = case.run(others)
            all_same(have, want, f"input {i} {layout}")
            if not np.array_equal(memory(others[i]), before, equal_nan=before.dtype.kind in "fc"):
                raise Broken(f"input {i} {layout}: its memory has changed")
            if not case.floats or not any(floating(t) for t in parts(want)) or not case.op.differentiable:
                return
            if layout == "expanded" and "linalg" in case.op.family:
                return  # gradients of singular matrices
            a = gradients(case, case.floats)
            others = case.tensors()
            others[i] = laid_out(host, d, layout, case.backend, case.ctx)
            b = gradients(case, case.floats, tensors=others)
            all_same(b, a, f"gradients with input {i} {layout}")
    finally:
        case.hosts[i] = saved


@law("ownership", functional)
def ownership(case: Case) -> None:
    """An operation leaves its inputs as they are; its results own their memory, unless it is a view, and a view and
    its source have one storage: two tensors share memory if and only if they share a storage."""
    for require in ([], case.floats):
        tensors = case.tensors(require)
        before = [memory(t) for t in tensors]
        with case.here():
            outs = [t for t in case.outputs(tensors) if type(t) is Tensor]
        for i, (t, b) in enumerate(zip(tensors, before, strict=True)):
            if t.version or not np.array_equal(memory(t), b, equal_nan=b.dtype.kind in "fc"):
                raise Broken(f"input {i} has changed")
        _check_sharing(case, tensors, outs)
        for j, t in enumerate(outs):
            if t.storage.nbytes < t.nbytes and case.op.kind == PRIMITIVE:
                raise Broken(f"output {j}: a storage of {t.storage.nbytes} bytes for {t.nbytes}")
    for layout in ("transposed", "sliced"):
        tensors = [
            laid_out(host, d, layout if host.ndim > 1 or layout == "sliced" else "contiguous", case.backend, case.ctx)
            for host, d in case.hosts
        ]
        with case.here(grad=False):
            outs = [t for t in case.outputs(tensors) if type(t) is Tensor]
        _check_sharing(case, tensors, outs)


def _check_sharing(case: Case, tensors: list[Tensor], outs: list[Tensor]) -> None:
    for j, t in enumerate(outs):
        for i, x in enumerate(tensors):
            shares, one = share(t, x), t.storage is x.storage
            if shares and not one:
                raise Broken(f"output {j} lies in the memory of input {i}, but has another storage")
            if one and case.op.kind == PRIMITIVE:
                raise Broken(f"output {j} has the storage of input {i}, and the operation is no view")
        if case.op.kind == VIEW and t.storage is not tensors[0].storage:
            raise Broken(f"output {j} of a view has a storage of its own")
        if case.op.kind == VIEW and t.numel and not share(t, tensors[0]) and len(outs) == 1:
            raise Broken(f"output {j} of a view does not lie in its source's memory")
        if case.op.kind != VIEW:
            for other in outs[:j]:
                if share(t, other) and t.storage is not other.storage:
                    raise Broken(f"output {j} shares memory with another output")
        if t.storage.backend is not t.backend or not t.backend.flat(t.storage.buf).flags.c_contiguous:
            raise Broken(f"output {j}: its storage's memory is not dense")


# ---------------------------------------------------------------- in place


@law("inplace", in_place, dtypes=("float64", "float32", "bfloat16", "int64"))
def inplace(case: Case) -> None:
    """`x_` gives the values and gradients of `x`, in its input's memory: the tensor stays itself, its version rises by
    one, and its base and other views see it; where shape or dtype do not fit it is refused and nothing has changed."""
    op, f = case.op, case.op.functional
    assert f is not None
    if case.wanted == "int64" and all(t.dtype is not None for t in case.drawn):
        return
    with case.here(grad=False):
        try:
            want = case.run(case.tensors(), f)
        except EngineError:
            want = None
    t = case.tensors()
    first = t[0]
    fits = want is not None and want.shape == first.shape and can_cast(want.dtype, first.dtype)
    before, storage = memory(first), first.storage
    with case.here():
        try:
            made = case.run(t)
        except EngineError as e:
            if fits and want is not None:
                raise Broken(f"refused: {e}") from e
            if want is not None and type(e) is not (ShapeMismatch if want.shape != first.shape else DtypeMismatch):
                raise Broken(f"{want.spec} into {first.spec} is refused as {e!r}") from e
            if first.version or not np.array_equal(memory(first), before, equal_nan=before.dtype.kind in "fc"):
                raise Broken(f"refused ({e}), but the input has changed") from e
            return
    if not fits:
        raise Broken(f"{want.spec if want is not None else 'an operation that refuses'} went into {first.spec}")
    assert want is not None
    if made is not first or first.storage is not storage:
        raise Broken("the result is not the tensor that was given")
    if storage.version != 1:
        raise Broken(f"its version is {storage.version}, not 1")
    target = first.dtype
    want = REC._to_dtype(want, target) if want.dtype is not target else want
    same(first, want, "in place and out of place", exact=case.wanted == "int64")
    _through_views(case, want)
    _overlap_refused(case)
    if case.floats and case.wanted != "int64" and op.differentiable:
        _leaf_refused(case)
        if floating(first):
            _gradients_in_place(case)


def _overlap_refused(case: Case) -> None:
    """What sees one place many times cannot be written to."""
    host, d = case.hosts[0]
    if host.ndim < 1 or host.shape[0] < 2 or not host.size:
        return
    tensors = case.tensors()
    tensors[0] = laid_out(host, d, "expanded", case.backend, case.ctx)
    before = memory(tensors[0])
    with case.here(grad=False):
        try:
            case.run(tensors)
        except EngineError:
            pass
        else:
            raise Broken("an expanded tensor was changed in place")
    if tensors[0].version or not np.array_equal(memory(tensors[0]), before, equal_nan=before.dtype.kind in "fc"):
        raise Broken("an expanded tensor was refused, but has changed")


def _leaf_refused(case: Case) -> None:
    if 0 not in case.floats:
        return
    t = case.tensors([0])
    before = memory(t[0])
    with case.here():
        try:
            case.run(t)
        except LeafInPlace:
            pass
        else:
            raise Broken("a leaf that requires grad was changed in place")
        if t[0].version or not np.array_equal(memory(t[0]), before):
            raise Broken("a leaf was refused, but has changed")
    with case.here(), grad_mode(False):
        case.run(t)
        if t[0].edge is not None or t[0].version != 1:
            raise Broken("without grad mode a leaf is changed, with a version and without a tape")


def _through_views(case: Case, want: Tensor) -> None:
    """On a part of a larger tensor: the part changes, what lies around it does not."""
    host, d = case.hosts[0]
    # Random numbers are dealt out in memory order: there only a part that lies as the whole does is the same.
    for axis in (0,) if case.op.functional.random else (0, host.ndim):  # type: ignore[union-attr]
        block = np.stack([host, host], axis)
        base = tensor(block, d, case.backend, case.ctx)
        with case.here(grad=False):
            part = REC.select(base, axis, 1)
            tensors = case.tensors()
            tensors[0] = part
            case.run(tensors)
            same(part, want, f"on a view along dimension {axis}")
            same(REC.select(base, axis, 1), want, "seen through the base")
            rest = REC.select(base, axis, 0)
            same(rest, tensor(host, d, case.backend, case.ctx), "what lies beside the view", exact=True)
            if base.version != 1 or part.version != 1:
                raise Broken(f"a view was changed, and the versions are {base.version} and {part.version}")


def _gradients_in_place(case: Case) -> None:
    """y = clone(x); y.op_(): the gradients of op; the same on a part of a larger tensor."""
    f = case.op.functional
    require = case.floats
    with case.here():
        out = case.run(case.tensors(require), f)
        if not out.requires_grad:
            return
        [c] = cotangents([out])
        assert c is not None
        if out.dtype is not case.hosts[0][1]:
            return
        leaves = case.tensors(require)
        roots, given = seeds(case, [case.run(leaves, f)], [c])
        want = run_backward(roots, given, inputs=[leaves[i] for i in require], accumulate=False)
        leaves = case.tensors(require)
        inputs = list(leaves)
        inputs[0] = REC.clone(leaves[0])
        roots, given = seeds(case, [case.run(inputs)], [c])
        have = run_backward(roots, given, inputs=[leaves[i] for i in require], accumulate=False)
        all_same(have, want, "gradients in place and out of place")
        if 0 not in require:
            return
        host, d = case.hosts[0]
        axis = host.ndim
        leaf = tensor(np.stack([host, host], axis), d, case.backend, case.ctx)
        leaf.requires_grad = True
        base = REC.clone(leaf)
        inputs = case.tensors(require)
        others = [inputs[i] for i in require if i != 0]
        inputs[0] = REC.select(base, axis, 1)
        case.run(inputs)
        both = np.stack([c, c], axis)
        roots, given = seeds(case, [base], [both])
        found = run_backward(roots, given, inputs=[leaf, *others], accumulate=False)
        if found[0] is None:
            raise Broken("no gradient went through a view that was changed in place")
        g = values(found[0])
        upper, lower = np.take(g, 1, axis), np.take(g, 0, axis)
        rounded = wide(CPU.cast(c, d.compute, d), d)
        expected = np.zeros(host.shape) if want[require.index(0)] is None else values(want[require.index(0)])  # type: ignore[arg-type]
        loose = 3e-2 if d.reduced else 1e-5
        if not np.allclose(lower, rounded, rtol=loose, atol=loose):
            raise Broken("the gradient beside a view that was changed in place is not the cotangent")
        if not np.allclose(upper, expected, rtol=loose, atol=loose, equal_nan=True):
            raise Broken(f"the gradient through a view is {brief(upper)}, out of place {brief(expected)}")
        all_same(found[1:], [w for i, w in zip(require, want, strict=True) if i != 0], "gradients of the others")
