"""What a function does on a device, element by element.

A function of `k` and arrays is run on probes, with a `k` whose modules and backend write down what they are asked for:
promotion, widening of reduced floats, kernel and rounding alike. What it consists of are steps that a fused kernel can
say (`engine.fused`), views, and a few calls in between that are more than that, such as sums. Where it does anything
else, or does not give bit for bit what it gives on the arrays themselves, it stays one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from engine.backend import Array, Backend
from engine.carriers import K
from engine.dtypes import DType, bfloat16, float16
from engine.fused.table import FUNCTIONS, OTHER_NAMES, Element, loop_of
from engine.lower import Constant, Step, Trace

MOST = 96  # steps that one function is made of, at most
FEW = 4096  # elements that are compared on the host

_PSEUDO = frozenset(
    ("copy", "cast", "fill", "widen_bfloat16", "narrow_bfloat16", "where")
)  # none of the module's names
_REDUCTIONS = frozenset(("sum", "prod", "max", "min", "mean", "amax", "amin"))
_SCALARS = (bool, int, float)


class Opaque(Exception):
    """A function does what cannot be written down."""


class Memory:
    """What a reference means: memory that a function takes for itself, or a slot from before.

    `written`: whether anything is in it. `seen`: whether a view shows it; `view`: whether it is one itself.
    """

    __slots__ = ("array", "seen", "slot", "view", "written")

    def __init__(self, array: Array, slot: int | None = None, *, written: bool = True, view: bool = False) -> None:
        self.array, self.slot, self.written, self.view = array, slot, written, view
        self.seen = False


class Recording:
    """What one function did: (function, references, target, is it element by element, is it a view)."""

    def __init__(self, backend: Backend, trace: Trace) -> None:
        self.backend = backend
        self.trace: Any = trace  # only while the function runs: steps hold recordings, and a trace its steps
        self.xp: Any = None  # the module of probes
        self.log: list[tuple[Any, list[Any], Memory, bool, bool]] = []

    def reference(self, x: Any) -> tuple[Any, Any]:
        if type(x) is Probe:
            if x.recording is not self or not x.memory.written:
                raise Opaque
            return x.array, x.memory
        if type(x) in _SCALARS:
            return x, Constant(x)
        if type(x) is Number:
            return x.memory.array, x.memory
        raise Opaque

    def _add(self, function: Any, refs: list[Any], target: Memory, element: bool, view: bool) -> None:
        if len(self.log) >= MOST:
            raise Opaque
        self.log.append((function, refs, target, element, view))

    def call(self, name: str, function: Callable[..., Any], inputs: Sequence[Any], out: Any = None) -> Any:
        """A function of the table, its result new or written into a probe."""
        pairs = [self.reference(x) for x in inputs]
        refs = [ref for _, ref in pairs]
        if out is None:
            made = function(*[value for value, _ in pairs])
            if type(made) is not self.backend.ndarray:
                raise Opaque
            target = Memory(made)
            result = Probe(self, made, target)
        else:
            self.may_write(out)
            function(*[value for value, _ in pairs], out.array)
            result, target, made = out, out.memory, out.array
            target.written = True
        given = [value if type(value) in _SCALARS else value.dtype for value, _ in pairs]
        loop = loop_of(name, given, made.dtype)
        self._add(Element(name, function, loop, made.dtype), refs, target, True, False)
        return result

    def number(self, function: Callable[[Any], Any], x: Any) -> Number:
        """A Python float made of an array's only element, or of another number."""
        value, ref = self.reference(x)
        made = function(value)
        if type(made) is not float:
            raise Opaque
        target = Memory(made)
        self._add(function, [ref], target, False, False)
        return Number(self, target)

    def may_write(self, out: Any) -> None:
        if type(out) is not Probe or out.recording is not self or out.memory.view or out.memory.seen:
            raise Opaque  # what a view shows, or is, would change behind its back

    def other(self, function: Callable[..., Any], inputs: Sequence[Any], *, view: bool = False) -> Probe:
        """A call of anything that gives one array: a new one, or a view of its first operand."""
        pairs = [self.reference(x) for x in inputs]
        made = function(*[value for value, _ in pairs])
        if type(made) is not self.backend.ndarray:
            raise Opaque
        if view:
            if made is pairs[0][0]:
                return inputs[0]  # type: ignore[no-any-return]
            pairs[0][1].seen = True
        target = Memory(made, view=view)
        self._add(function, [ref for _, ref in pairs], target, False, view)
        return Probe(self, made, target)


def _writing(function: Callable[..., Any], operands: int) -> Callable[..., Any]:
    """A function without `out` as one that takes it."""

    def call(*arguments: Any) -> Any:
        if len(arguments) == operands:
            return function(*arguments)
        arguments[-1][...] = function(*arguments[:-1])
        return arguments[-1]

    return call


class Probe(NDArrayOperatorsMixin):
    """A device array that writes down what is done with it."""

    __slots__ = ("array", "memory", "recording")

    def __init__(self, recording: Recording, array: Array, memory: Memory) -> None:
        self.recording, self.array, self.memory = recording, array, memory

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **rest: Any) -> Any:
        if method != "__call__" or rest or ufunc.nout != 1:
            raise Opaque
        target = None if out is None else out[0]
        return getattr(self.recording.xp, ufunc.__name__)(*inputs, **({} if target is None else {"out": target}))

    def __pow__(self, other: Any) -> Any:
        if type(other) not in _SCALARS:
            return self.recording.xp.power(self, other)
        # CuPy takes these three powers by shorter ways, which differ at -0.0 and -inf.
        short = {2: "square", 0.5: "sqrt", -1.0: "reciprocal"}.get(other) if self.array.dtype.kind == "f" else None
        return getattr(self.recording.xp, short)(self) if short else self.recording.xp.power(self, other)

    # ------------------------------------------------ what is asked

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    ndim = property(lambda self: self.array.ndim)
    size = property(lambda self: self.array.size)
    nbytes = property(lambda self: self.array.nbytes)
    itemsize = property(lambda self: self.array.itemsize)
    strides = property(lambda self: self.array.strides)
    flags = property(lambda self: self.array.flags)
    base = property(lambda self: self if self.memory.view else None)

    # ------------------------------------------------ copies and casts

    def copy(self, order: str = "C") -> Probe:
        made: Probe = self.recording.call("copy", _writing(lambda x: x.copy(order=order), 1), (self,))
        return made

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> Probe:
        d = np.dtype(dtype)
        if d == self.array.dtype:
            return self.copy() if copy else self
        made: Probe = self.recording.call("cast", _writing(lambda x: x.astype(d, order=order), 1), (self,))
        return made

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is not Ellipsis:
            raise Opaque
        if type(value) is Probe:
            same = value.dtype == self.dtype
            self.recording.call("copy" if same else "cast", _assigned, (value,), self)
        else:
            like = Probe(self.recording, self.array, Memory(self.array, self.memory.slot))
            if self.memory.slot is None:
                raise Opaque  # what is filled is written to before it is read
            self.recording.call("fill", _filled, (like, value), self)

    # ------------------------------------------------ views

    def reshape(self, *shape: Any) -> Probe:
        sizes = shape[0] if len(shape) == 1 and type(shape[0]) in (tuple, list) else shape
        if not self.array.flags.c_contiguous:
            raise Opaque
        return self.recording.other(lambda x: x.reshape(sizes), (self,), view=True)

    def transpose(self, *axes: Any) -> Probe:
        return self.recording.other(lambda x: x.transpose(*axes), (self,), view=True)

    def swapaxes(self, a: int, b: int) -> Probe:
        return self.recording.other(lambda x: x.swapaxes(a, b), (self,), view=True)

    T = property(lambda self: self if self.array.ndim < 2 else self.transpose())

    @property
    def real(self) -> Probe:
        if self.array.dtype.kind == "c":
            raise Opaque
        return self

    def __getitem__(self, key: Any) -> Probe:
        parts = key if type(key) is tuple else (key,)
        if not all(x is None or x is Ellipsis or type(x) in (int, slice) for x in parts):
            raise Opaque
        return self.recording.other(lambda x: x[key], (self,), view=True)

    # ------------------------------------------------ more than that

    def _reduced(self, name: str, axis: Any, keepdims: bool) -> Probe:
        if self.array.dtype.kind != "f":
            raise Opaque
        return self.recording.other(lambda x: getattr(x, name)(axis=axis, keepdims=keepdims), (self,))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Probe:
        return self._reduced("sum", axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Probe:
        return self._reduced("max", axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Probe:
        return self._reduced("min", axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Probe:
        return self._reduced("mean", axis, keepdims)

    def number(self) -> Number:
        """The only element, as a number that is read in every round."""
        return self.recording.number(float, self)

    def _refuse(self, *_: Any) -> Any:
        raise Opaque

    __bool__ = __float__ = __int__ = __index__ = __len__ = __iter__ = _refuse


class Number:
    """A Python float that may be another one in every round."""

    __slots__ = ("memory", "recording")

    def __init__(self, recording: Recording, memory: Memory) -> None:
        self.recording, self.memory = recording, memory

    def _with(self, function: Callable[[Any], Any]) -> Number:
        return self.recording.number(function, self)

    def __rpow__(self, base: float) -> Number:
        return self._with(lambda x: base**x)

    def __pow__(self, exponent: float) -> Number:
        return self._with(lambda x: x**exponent)

    def __rsub__(self, other: float) -> Number:
        return self._with(lambda x: other - x)

    def __rtruediv__(self, other: float) -> Number:
        return self._with(lambda x: other / x)

    def __mul__(self, other: float) -> Number:
        return self._with(lambda x: x * other)

    __rmul__ = __mul__


def _assigned(value: Any, target: Any) -> Any:
    target[...] = value
    return target


def _filled(like: Any, value: Any, target: Any) -> Any:
    target[...] = value
    return target


class _Module:
    """The array module of probes."""

    def __init__(self, recording: Recording, xp: Any) -> None:
        self._recording, self._xp = recording, xp

    def __getattr__(self, name: str) -> Any:
        known = OTHER_NAMES.get(name, name)
        if known == "copy":
            return lambda x: x.copy() if type(x) is Probe and x.dtype.kind != "c" else _opaque()
        if known in FUNCTIONS and known not in _PSEUDO:
            return self._function(known, getattr(self._xp, known), FUNCTIONS[known].arity)
        if name in _REDUCTIONS:
            method = name.removeprefix("a")

            def reduced(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
                return getattr(x, method)(axis=axis, keepdims=keepdims) if type(x) is Probe else _opaque()

            return reduced
        value = getattr(self._xp, name)
        if isinstance(value, type | float) or value is None:
            return value  # dtypes and constants
        raise Opaque

    def _function(self, name: str, function: Any, operands: int) -> Any:
        def call(*inputs: Any, out: Any = None) -> Any:
            if len(inputs) == operands + 1 and out is None:
                *inputs, out = inputs  # type: ignore[assignment]
            if len(inputs) != operands:
                raise Opaque
            return self._recording.call(name, function, inputs, out)

        return call

    def where(self, mask: Any, a: Any, b: Any) -> Any:
        return self._recording.call("where", _writing(self._xp.where, 3), (mask, a, b))

    def copyto(self, target: Any, source: Any, where: Any = None) -> None:
        if where is None:
            target[...] = source
        else:
            self._recording.call("where", _writing(self._xp.where, 3), (where, source, target), target)

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        if type(x) is Probe:
            return x if dtype is None else x.astype(dtype, copy=False)
        if type(x) not in _SCALARS or dtype is None:
            raise Opaque
        made = self._xp.asarray(x, dtype=dtype)  # the same in every round
        return Probe(self._recording, made, Memory(made, self._recording.trace.constant(made)))

    def ascontiguousarray(self, x: Any) -> Any:
        if type(x) is not Probe or not x.flags.c_contiguous or not x.ndim:
            raise Opaque
        return x

    def empty(self, shape: Any, dtype: Any) -> Any:
        made = self._xp.empty(shape, dtype=dtype)
        return Probe(self._recording, made, Memory(made, written=False))

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return self._recording.other(lambda: self._xp.zeros(shape, dtype=dtype), ())

    def ones(self, shape: Any, dtype: Any) -> Any:
        return self._recording.other(lambda: self._xp.ones(shape, dtype=dtype), ())

    def empty_like(self, x: Any, dtype: Any = None, order: Any = "K") -> Any:
        if type(x) is not Probe:
            raise Opaque
        made = self._xp.empty_like(x.array, dtype=dtype, order=order)
        return Probe(self._recording, made, Memory(made, written=False))

    def full_like(self, x: Any, value: Any, dtype: Any = None) -> Any:
        made = self.empty_like(x, dtype)
        self._recording.call("fill", _filled, (x, value), made)
        return made

    def zeros_like(self, x: Any, dtype: Any = None) -> Any:
        return self.full_like(x, 0, dtype)

    def ones_like(self, x: Any, dtype: Any = None) -> Any:
        return self.full_like(x, 1, dtype)

    def broadcast_to(self, x: Any, shape: Any) -> Any:
        return self._recording.other(lambda a: self._xp.broadcast_to(a, shape), (x,), view=True)

    def matmul(self, a: Any, b: Any) -> Any:
        return self._recording.other(self._xp.matmul, (a, b))


def _opaque() -> Any:
    raise Opaque


class _Special:
    """`scipy.special` of probes."""

    def __init__(self, recording: Recording, special: Any) -> None:
        self._recording, self._special = recording, special

    def __getattr__(self, name: str) -> Any:
        if name not in ("erf", "erfc"):
            raise Opaque
        function = getattr(self._special, name)
        return lambda x, out=None: self._recording.call(name, function, (x,), out)


class _Scipy:
    def __init__(self, recording: Recording, sp: Any) -> None:
        self._recording, self._sp = recording, sp

    @property
    def special(self) -> _Special:
        return _Special(self._recording, self._sp.special)


class _Backend(Backend):
    """A device whose arrays are probes."""

    def __init__(self, real: Backend, recording: Recording) -> None:
        super().__init__(real.name)
        self.real, self.recording = real, recording
        self.xp = _Module(recording, real.xp)
        self.sp = _Scipy(recording, real.sp)
        self.simulated, self.ndarray = real.simulated, Probe

    def view(self, flat: Any, d: Any, shape: Any, offset: int, strides: Any) -> Any:
        if type(flat) is not Probe:
            raise Opaque
        return self.recording.other(lambda x: self.real.view(x, d, shape, offset, strides), (flat,), view=True)

    def is_fresh(self, array: Any, others: Iterable[Any]) -> bool:
        memory = array.memory
        return (
            memory.slot is None and not memory.view and not any(type(x) is Probe and x.memory is memory for x in others)
        )

    def widen(self, array: Any, d: DType) -> Any:
        if d is bfloat16:
            widen = _writing(lambda x: self.real.widen(x, bfloat16), 1)
            return self.recording.call("widen_bfloat16", widen, (array,))
        return array.astype(np.float32) if d is float16 else array

    def narrow_bfloat16(self, array: Any) -> Any:
        return self.recording.call("narrow_bfloat16", _writing(self.real.narrow_bfloat16, 1), (array,))

    def _refuse(self, *_: Any) -> Any:
        raise Opaque

    flat: Any = _refuse
    to_host: Any = _refuse
    from_host: Any = _refuse
    asarray: Any = _refuse
    scatter_add: Any = _refuse
    philox: Any = _refuse

    def compiled(self, name: str, *arrays: Array) -> None:
        return None


# ---------------------------------------------------------------- lowering


def lowered(
    trace: Trace,
    ctx: Any,
    backend: Backend,
    function: Callable[..., Any],
    arrays: Sequence[Array],
    targets: Sequence[Array] = (),
    *,
    removable: bool = False,
) -> Any:
    """What `function(k, *arrays)` gives on a device, its steps written down; None where it stays one call.

    `targets`: those of the arrays that it writes into. The answer is a list, of arrays and of what else it gave.
    """
    recording = Recording(backend, trace)
    probed = _Backend(backend, recording)
    recording.xp = probed.xp
    k = K(probed, ctx)
    k.dtype = trace.k_of(backend).dtype
    before = [t.copy() for t in targets]
    seq = ctx.seq
    slots = [trace.slot(x) for x in arrays]
    try:
        memories: dict[int, Memory] = {}
        probes = [Probe(recording, x, memories.setdefault(s, Memory(x, s))) for x, s in zip(arrays, slots, strict=True)]
        found = function(k, *probes)
    except Exception:  # noqa: BLE001  a function may fail in any way on what is no array; its own errors come below
        found = None
        recording.log.clear()
        opaque = True
    else:
        opaque = False
    recording.trace = None
    ctx.seq = seq
    changed = [t.copy() for t in targets]
    _put_back(targets, before)
    if opaque:
        return None
    parts = list(found) if type(found) in (tuple, list) else [found]
    written = {id(m): m for _, _, m, _, _ in recording.log if m.slot is not None}
    allowed = {trace.slot(t) for t in targets}
    if any(m.slot not in allowed for m in written.values()):
        return None
    if any(type(x) is Probe and not x.memory.written for x in parts):
        return None
    wanted = function(trace.k_of(backend), *arrays)
    if ctx.seq != seq:  # it uses up numbers of the tape, and has to in every round
        ctx.seq = seq
        _put_back(targets, before)
        return None
    real = list(wanted) if type(wanted) in (tuple, list) else [wanted]
    if len(real) != len(parts) or not all(_alike(backend, a, b) for a, b in zip(parts, real, strict=True)):
        _put_back(targets, before)
        return None
    if not all(_equal_bits(backend, a, b) for a, b in zip(changed, targets, strict=True)):
        _put_back(targets, before)
        return None
    _write_down(trace, recording.log, removable=removable)
    recording.log.clear()  # steps hold the recording, and a plan that is kept must not hold a round's arrays
    return [x.array if type(x) is Probe else x for x in parts]


def _put_back(targets: Sequence[Array], before: Sequence[Array]) -> None:
    for target, copy in zip(targets, before, strict=True):
        target[...] = copy


def _alike(backend: Backend, made: Any, wanted: Any) -> bool:
    if type(made) is not Probe:
        return made is wanted or (type(made) in (bool, int, float, type(None)) and made == wanted)
    if made.memory.slot is not None:  # what came in
        return made.array is wanted
    return type(wanted) is backend.ndarray and _equal_bits(backend, made.array, wanted)


def _equal_bits(backend: Backend, a: Array, b: Array) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape or a.strides != b.strides:
        return False
    if a.flags.c_contiguous and a.size > FEW:  # compared where they are
        bits = np.dtype(f"u{min(a.itemsize, 8)}")
        return bool((a.reshape(-1).view(bits) == b.reshape(-1).view(bits)).all())
    return bool(backend.to_host(a).tobytes() == backend.to_host(b).tobytes())


def _write_down(trace: Trace, log: Sequence[Any], *, removable: bool) -> None:
    def slot(memory: Any) -> Any:
        if type(memory) is Constant:
            return memory
        if memory.slot is None:
            memory.slot = trace.register(memory.array)
        return memory.slot

    before = {id(m) for _, refs, t, _, _ in log for m in (*refs, t) if type(m) is Memory and m.slot is not None}
    for function, refs, target, element, view in log:
        writes = (slot(target),) if id(target) in before else ()
        trace.steps.append(
            Step(
                function,
                [slot(r) for r in refs],
                [slot(target)],
                trace.place,
                writes=writes,
                removable=removable and not writes,
                ufunc=element,
                view=view,
            )
        )


def on_device(
    trace: Trace,
    ctx: Any,
    backend: Backend,
    function: Callable[..., Any],
    arrays: Sequence[Array],
    writes: Sequence[Array] = (),
    *,
    removable: bool = False,
) -> Any:
    """The one result of a function of `k` and arrays: of its steps where it has some, else of one call."""
    found = lowered(trace, ctx, backend, function, arrays, writes, removable=removable)
    if found is not None:
        return found[0]
    return trace.emit(partial(function, trace.k_of(backend)), arrays, writes=writes, removable=removable)


def copied_array(k: Any, array: Array) -> Array:
    """An array of its own."""
    return array.copy()


def accumulated(k: Any, target: Array, array: Array) -> None:
    """Adds to what is there."""
    k.xp.add(target, array, out=target)


__all__ = ["accumulated", "copied_array", "lowered", "on_device"]
