"""The other ways an operation can run, views, composites, in-place forms, and the recording carrier `Rec`."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from engine.apply import (
    Inputs,
    binary_runner,
    device_mismatch,
    primitive_runner,
    record,
    several_runner,
    single_runner,
    unary_runner,
)
from engine.backend import Backend
from engine.carriers import Meta, infer_inplace, prepare, resolve
from engine.context import HERE, SMALL
from engine.dtypes import DType, float32, from_numpy
from engine.op import COMPOSITE, INPLACE, LIST, ONE, PRIMITIVE, REGISTRY, VIEW, Op, Spec
from engine.shapes import view_strides
from engine.tape import Node, base_of, check_inplace, check_overlap, rebase, refresh, view_refusal
from engine.tensor import Tensor, View, fresh, view_of

# ---------------------------------------------------------------- views


def view_runner(op: Op) -> Callable[[tuple[Any, ...]], Any]:
    """Views share their source's memory; the geometry rule alone decides what they see."""
    geometry: Any = op.geometry
    multi = op.multi_view

    def run(args: tuple[Any, ...]) -> Any:
        source: Tensor = args[0]
        ctx = HERE.ctx
        made = geometry(source, *args[1:])
        if source.view is not None and op.vjp is not None:
            refresh(source)
        many = type(made) is list
        geometries = made if many else [made]
        for g in geometries:
            if prod(g[0]) * source.dtype.itemsize > source.storage.nbytes:
                ctx.admit_view(prod(g[0]) * source.dtype.itemsize)
        results = [view_of(source, *g) for g in geometries]
        if op.vjp is None:  # an alias through which no gradient passes starts anew: PyTorch does not call it a view
            return results if many else results[0]
        old = source.view
        base = source if old is None else old.base
        steps = () if old is None else old.steps
        creation = "no_grad" if not ctx.grad_enabled else "multi" if multi else "default"
        if creation == "default" and old is not None:
            creation = old.creation
        version = source.storage.version
        rest = args[1:]
        for i, r in enumerate(results):
            r.view = View(base, (*steps, (op, rest, i)), creation, version)
        if source.requires_grad and ctx.grad_enabled:
            outs = tuple(r.spec for r in results)
            edge = source.edge if source.edge is not None else source
            node = Node(op, (source.spec, *rest), (edge,), (), outs, 1, (), None, source.backend, ctx.next_seq())
            node.plain = not many
            for i, r in enumerate(results):
                if r.dtype.is_floating or r.dtype.is_complex:
                    r.edge = (node, i)
                    r.requires_grad = True
        elif source.requires_grad:  # as in PyTorch: it requires grad, but nothing ever arrives at it (see `send`)
            for r in results:
                r.requires_grad = r.dtype.is_floating or r.dtype.is_complex
        return results if many else results[0]

    return run


# ---------------------------------------------------------------- composites


def composite_runner(op: Op) -> Callable[[tuple[Any, ...]], Any]:
    """Composites run recorded; float16 and bfloat16 are widened once before and rounded once after."""
    body: Any = op.body
    slots = op.slots
    label = op.composite_node
    widens = not op.moves

    def run(args: tuple[Any, ...]) -> Any:
        if widens and _any_reduced(slots, args):
            result = _widened(op, args)
        else:
            result = body(REC, *args)
        if label and type(result) is Tensor and result.edge is not None:
            result.edge[0].name = label
        return result

    return run


def _any_reduced(slots: tuple[tuple[int, str], ...], args: tuple[Any, ...]) -> bool:
    for at, form in slots:
        v = args[at]
        if form == LIST:
            if v and any(t.spec.dtype.reduced for t in v):
                return True
        elif type(v) is Tensor and v.spec.dtype.reduced:
            return True
    return False


def _widened(op: Op, args: tuple[Any, ...]) -> Any:
    given = Inputs(op, args)
    k = HERE.ctx.k(given.backend or HERE.ctx.default_backend)
    specs = op.body(Meta(k), *given.specs)  # type: ignore[misc]
    values = list(args)
    to = REGISTRY["_to_dtype"].run
    for at, form in op.slots:
        v = args[at]
        if form == LIST and v is not None:
            values[at] = [to((t, float32)) if t.spec.dtype.reduced else t for t in v]
        elif type(v) is Tensor and v.spec.dtype.reduced:
            values[at] = to((v, float32))
    made = op.body(REC, *values)  # type: ignore[misc]
    return _narrowed(made, specs)


def _narrowed(made: Any, specs: Any) -> Any:
    if type(made) is Tensor:
        if made.spec.dtype is specs.dtype:
            return made
        return REGISTRY["_to_dtype"].run((made, specs.dtype))
    if type(made) is list or type(made) is tuple:
        return [_narrowed(m, s) for m, s in zip(made, specs, strict=True)]
    return made


# ---------------------------------------------------------------- in place


def inplace_runner(op: Op) -> Callable[[tuple[Any, ...]], Any]:
    """`x_`: the functional form's meta, guard, kernel and rule, written into the tensor's own memory."""
    f: Op = op.functional  # type: ignore[assignment]
    kernel: Any = f.kernel
    has_rule = f.vjp is not None
    by_cell = f.by_cell

    def run(args: tuple[Any, ...]) -> Any:
        ctx = HERE.ctx
        t = args[0]
        view = t.view
        if (
            view is not None
            and view.creation != "default"
            and ctx.grad_enabled
            and (base_of(view).requires_grad or any(type(a) is Tensor and a.requires_grad for a in args))
        ):
            raise view_refusal(view, t, indirect=False)
        given = Inputs(f, args)
        if given.mask:
            check_inplace(t, True)
        backend: Backend = t.backend
        if given.backend is not backend:
            raise device_mismatch(f, backend, next(x for x in given.tensors[1:] if x is not None), given.tensors)
        k = ctx.k(backend)
        values, specs = given.values, given.specs
        if by_cell:  # PyTorch's iterator looks at memory before it looks at shapes and dtypes
            check_overlap(t, given.tensors[1:])
        out, compute = infer_inplace(op, k, specs)
        d = t.spec.dtype
        if not by_cell:
            check_overlap(t, given.tensors[1:])
        tracked = bool(given.mask) and has_rule
        prepare(f, k, values, specs, compute)
        if f.guard is not None:
            f.guard(k, *values)
        if t.array.nbytes > SMALL:
            ctx.admit(t.array.nbytes)
        original = None
        if tracked and ctx.grad_enabled:
            _, saves = f.plan(given.mask, given.sizes)
            original = t.array.copy() if 0 in saves else ()
        storage = t.storage
        low, high = t.touched()
        ctx.undo.write(storage, low, high)
        direct = values[0] is t.array and (f.updates or (f.elementwise and out.dtype is d))
        k.spec = out
        if direct:
            kernel(k, *values, out=t.array)
        else:
            made = kernel(k, *values)
            if type(made) is not backend.ndarray:
                made = k.xp.asarray(made)
            if f.moves:
                t.array[...] = made
            else:
                t.array[...] = backend.cast(made, from_numpy(made.dtype) or float32, d)
        ctx.undo.slot(storage, "version")
        storage.version += 1
        if tracked and ctx.grad_enabled:
            keep = Tensor(t.array, t.spec, storage, backend)
            node = record(f, ctx, args, given, (keep,), compute, backend, () if original is None else original)
            if node is not None:
                rebase(ctx, t, node)
        return t

    return run


def special_runner(op: Op) -> Callable[[tuple[Any, ...]], Any]:
    """An operation that works on tensors themselves: autograd, flags, devices."""
    kernel: Any = op.kernel

    def run(args: tuple[Any, ...]) -> Any:
        return kernel(HERE.ctx, *args)

    return run


def runner(op: Op) -> Callable[[tuple[Any, ...]], Any]:
    """The way to run an operation on tensors, chosen once, when it is declared."""
    if op.kind == PRIMITIVE:
        if op.elementwise and not op.has_lists and not op.random and op.outputs == ("result",):
            if len(op.slots) == 1 and op.slots[0][0] == 0:
                return unary_runner(op)
            if [at for at, _ in op.slots] == [0, 1] and op.promote_at == (0, 1):
                return binary_runner(op)
        plain = op.outputs == ("result",) and not (op.mutates or op.dynamic or op.has_lists or op.states or op.random)
        if plain and not {"device", "requires_grad"} & set(op.positions):
            if op.slots == ((0, ONE),):
                return single_runner(op)
            if len(op.slots) > 1:
                return several_runner(op)
        return primitive_runner(op)
    makers = {VIEW: view_runner, COMPOSITE: composite_runner, INPLACE: inplace_runner}
    return makers.get(op.kind, special_runner)(op)


# ---------------------------------------------------------------- Rec


class Rec:
    """The carrier of tensors: every operation runs recorded."""

    recording = True

    def __getattr__(self, name: str) -> Any:
        op = resolve(name)
        n = len(op.params)

        def call(*args: Any, **kwargs: Any) -> Any:
            if kwargs or len(args) != n:
                args = op.bind(args, kwargs)
            return op.run(args)

        setattr(self, name, call)
        return call

    def shape(self, x: Tensor | Spec) -> tuple[int, ...]:
        return x.shape

    def dtype(self, x: Tensor | Spec) -> DType:
        return x.dtype

    def can_view(self, x: Tensor, shape: tuple[int, ...]) -> bool:
        return view_strides(x.shape, x.strides, shape) is not None

    def zeros_for(self, spec: Spec) -> Tensor:
        k = HERE.ctx.k(HERE.ctx.default_backend)
        return fresh(k.xp.zeros(spec.shape, spec.dtype.np), spec, k.backend, HERE.ctx.ledger)

    def constant(self, value: complex, like: Tensor) -> Tensor:
        array = like.backend.asarray(value, like.dtype.np)
        return fresh(array, Spec((), like.dtype), like.backend, HERE.ctx.ledger)


REC = Rec()


def _operator(name: str, swapped: bool = False) -> Callable[[Any, Any], Any]:
    def call(self: Any, other: Any) -> Any:
        op = REGISTRY[name]
        return op.run(op.bind((other, self) if swapped else (self, other), {}))

    return call


for _symbol, _name in (
    ("add", "add"),
    ("sub", "sub"),
    ("mul", "mul"),
    ("truediv", "div"),
    ("pow", "pow"),
    ("matmul", "matmul"),
    ("gt", "gt"),
    ("ge", "ge"),
    ("lt", "lt"),
    ("le", "le"),
):
    setattr(Tensor, f"__{_symbol}__", _operator(_name))
    if _symbol in ("add", "mul"):
        setattr(Tensor, f"__r{_symbol}__", _operator(_name))
setattr(Tensor, "__rsub__", lambda self, other: REC.rsub(self, other))  # noqa: B010, PLW0108  found when called
setattr(Tensor, "__rtruediv__", lambda self, other: REC.mul(REC.reciprocal(self), other))  # noqa: B010
setattr(Tensor, "__neg__", lambda self: REC.neg(self))  # noqa: B010, PLW0108
