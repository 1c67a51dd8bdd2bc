"""The tensors of a traced round, and the arguments of its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

from engine.backend import Array, Backend, is_array
from engine.carriers import K, resolve
from engine.context import HERE, Context
from engine.dtypes import DType
from engine.lower import Constant, Slot, Step
from engine.op import REGISTRY, Op, Spec
from engine.shapes import view_strides
from engine.tensor import Tensor


class NotPlanned(Exception):
    """The round is one for the interpreter; says why."""


class _PlannedK(K):
    """What kernels of plans find in `k`: its session is whichever runs, as a plan may outlive that which made it."""

    __slots__ = ()

    @property
    def ctx(self) -> Any:
        return HERE.ctx

    @ctx.setter
    def ctx(self, _: Any) -> None:
        pass


@cache
def planned_k(backend: Backend) -> K:
    """What kernels of plans find in `k`, on a device."""
    return _PlannedK(backend, None)


class Tracing(Protocol):
    """What cells and their carrier ask of the tracer."""

    ctx: Context
    steps: list[Step]
    place: int

    def run(self, op: Op, args: tuple[Any, ...]) -> Any: ...
    def emit(self, function: Callable[..., Any], arguments: Sequence[Any], **traits: Any) -> Any: ...
    def slot(self, array: Array) -> Slot: ...
    def register(self, array: Array) -> Slot: ...
    def constant(self, array: Array) -> Slot: ...
    def owned(self, array: Array, spec: Spec, backend: Backend, *, fixed: bool = False) -> Cell: ...
    def k_of(self, backend: Backend) -> K: ...


class Cell(Tensor):
    """A tensor of the traced round. Its operators go to the tracer."""

    tracer: Tracing
    origin: Tensor | None = None  # the tensor from outside the round that it stands for

    def _read(self, *_: Any, **__: Any) -> Any:
        """Whoever reads the values decides by them what is done, and the next round's may be others."""
        raise NotPlanned("what a step does depends on values")

    tolist = item = __array__ = __float__ = __int__ = __index__ = __bool__ = __len__ = __iter__ = __getitem__ = _read


def _operator(name: str, swapped: bool = False) -> Callable[[Any, Any], Any]:
    def call(self: Cell, other: Any) -> Any:
        op = REGISTRY[name]
        return self.tracer.run(op, op.bind((other, self) if swapped else (self, other), {}))

    return call


for _symbol, _name in {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "truediv": "div",
    "pow": "pow",
    "matmul": "matmul",
    "gt": "gt",
    "ge": "ge",
    "lt": "lt",
    "le": "le",
}.items():
    setattr(Cell, f"__{_symbol}__", _operator(_name))
    if _symbol in ("add", "mul"):
        setattr(Cell, f"__r{_symbol}__", _operator(_name))


def _reversed_sub(self: Cell, other: Any) -> Any:
    return self.tracer.run(REGISTRY["rsub"], REGISTRY["rsub"].bind((self, other), {}))


def _reversed_div(self: Cell, other: Any) -> Any:
    turned = self.tracer.run(REGISTRY["reciprocal"], (self,))
    return self.tracer.run(REGISTRY["mul"], (turned, other))


setattr(Cell, "__rsub__", _reversed_sub)  # noqa: B010
setattr(Cell, "__rtruediv__", _reversed_div)  # noqa: B010
setattr(Cell, "__neg__", lambda self: self.tracer.run(REGISTRY["neg"], (self,)))  # noqa: B010


class Carrier:
    """`F` of composites while a round is traced; as `Rec`."""

    recording = True

    def __init__(self, tracer: Tracing) -> None:
        self.tracer = tracer

    def __getattr__(self, name: str) -> Any:
        op = resolve(name)
        n = len(op.params)

        def call(*args: Any, **kwargs: Any) -> Any:
            if kwargs or len(args) != n:
                args = op.bind(args, kwargs)
            return self.tracer.run(op, args)

        return call

    def shape(self, x: Any) -> tuple[int, ...]:
        return x.shape  # type: ignore[no-any-return]

    def dtype(self, x: Any) -> DType:
        return x.dtype  # type: ignore[no-any-return]

    def can_view(self, x: Tensor, shape: tuple[int, ...]) -> bool:
        return view_strides(x.shape, x.strides, shape) is not None

    def zeros_for(self, spec: Spec) -> Cell:
        tracer = self.tracer
        k = tracer.k_of(tracer.ctx.default_backend)
        array = tracer.emit(k.xp.zeros, (Constant(spec.shape), Constant(spec.dtype.np)), removable=True)
        return tracer.owned(array, spec, k.backend)

    def constant(self, value: complex, like: Tensor) -> Cell:
        array = like.backend.asarray(value, like.dtype.np)
        self.tracer.constant(array)
        return self.tracer.owned(array, Spec((), like.dtype), like.backend, fixed=True)


# ---------------------------------------------------------------- arguments


class Given:
    """The arguments of one call: cells, specs for the meta, arrays for the kernel."""

    __slots__ = ("backend", "cells", "mask", "sizes", "specs", "tensors", "values")

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.values: list[Any] = list(args)
        self.specs: list[Any] = list(args)
        self.cells: dict[int, Any] = {}
        self.tensors: list[Cell | None] = []
        self.sizes: tuple[int, ...] = ()
        self.mask = 0
        self.backend: Backend | None = None


def _is_state(v: Any) -> bool:
    """Whether an argument is an object of lists, as optimizers have it."""
    return type(v) is dict and all(type(group) is list for group in v.values())


_HOLE = object()


def _emptied(v: Any) -> Any:
    """An argument with holes for arrays: a plan must not keep those of the round in which it was made."""
    if is_array(v):
        return _HOLE
    if type(v) is list:
        return [_emptied(x) for x in v]
    return {name: _emptied(group) for name, group in v.items()} if _is_state(v) else v


class Layout:
    """Where arrays stand among a kernel's arguments. `flat`: never in objects of lists."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.template = [_emptied(v) for v in values]
        self.flat = not any(map(_is_state, values))

    def arguments(self, values: Sequence[Any]) -> list[Any]:
        """Arrays, and lists with arrays in them, as they are, all else as constants."""
        return [
            v if is_array(v) else self.arguments(v) if type(v) is list and any(is_array(x) for x in v) else Constant(v)
            for v in values
        ]

    def arrays(self, values: Sequence[Any]) -> list[Array]:
        found: list[Array] = []
        for v in values:
            groups = v.values() if _is_state(v) else [v] if type(v) is list else [[v]]
            found += [x for group in groups for x in group if is_array(x)]
        return found

    def fill(self, arrays: Sequence[Array]) -> list[Any]:
        rest = iter(arrays)

        def put(x: Any) -> Any:
            return next(rest) if x is _HOLE else x

        return [
            {name: [put(x) for x in group] for name, group in v.items()}
            if _is_state(v)
            else [put(x) for x in v]
            if type(v) is list
            else put(v)
            for v in self.template
        ]


def copied(values: Sequence[Any]) -> list[Any]:
    """The arguments, lists and objects of lists made anew."""
    return [list(v) if type(v) is list else dict(v) if _is_state(v) else v for v in values]


def same(prepared: Sequence[Any], given: Sequence[Any]) -> bool:
    """Whether `prepare` left all arrays, and numbers, as they are."""

    def alike(a: Any, b: Any) -> bool:
        if type(a) is list:
            return len(a) == len(b) and all(map(alike, a, b))
        if _is_state(a):
            return all(alike(a[name], b[name]) for name in a)
        return a is b or (type(a) is type(b) and type(a) in (int, float, bool, complex) and a == b)

    return all(map(alike, prepared, given))


def all_of(specs: Sequence[Any], op: Op, compute: DType) -> bool:
    """Whether nothing was promoted: all operands are tensors of the compute dtype, or numbers that a rule takes."""
    tensors = [specs[at] for at in op.promote_at if type(specs[at]) is Spec]
    whole = len(tensors) == len(op.promote_at) or op.numbers
    return whole and all(spec.dtype is compute for spec in tensors)


__all__ = [
    "Carrier",
    "Cell",
    "Given",
    "Layout",
    "NotPlanned",
    "Tracing",
    "all_of",
    "copied",
    "planned_k",
    "same",
]
