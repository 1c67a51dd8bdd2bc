"""Kernels and gradient rules as the ufuncs that they are made of.

A function is run once on probes, arrays that write down which ufuncs they go through. Where it does nothing else, and
gives bit for bit what it gives on the arrays themselves, those ufuncs stand for it: their results can go into memory
that is kept, and several of them over large arrays can take turns tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from engine.backend import Array
from engine.carriers import resolve
from engine.errors import EngineError
from engine.op import Spec

Slot = int
MOST = 16  # ufuncs that one function is made of, at most: a longer one is called as it is
BLOCK = 1 << 15


class Constant:
    """An argument that is the same in every round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Step:
    """One call: `function` of slots and constants, in the order of its parameters.

    `outputs`: the slots of what it returns, -1 for what is no array; `single` where that is no tuple. `writes`: slots
    whose memory it changes. `removable`: whether nothing is lost where nobody needs its outputs. `ufunc`: whether it is
    a ufunc whose result may be given memory. `view`: whether its result is a view of its first argument. `spec`: what
    kernels find in `k.spec`. `place`: the step of the program.
    """

    __slots__ = (
        "arguments", "function", "k", "outputs", "place", "removable", "single", "spec", "ufunc", "view", "writes",
    )  # fmt: skip

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        outputs: Sequence[Slot],
        place: int,
        *,
        single: bool = True,
        writes: Sequence[Slot] = (),
        removable: bool = False,
        ufunc: bool = False,
        view: bool = False,
        k: Any = None,
        spec: Any = None,
    ) -> None:
        self.function = function
        self.arguments = list(arguments)
        self.outputs = list(outputs)
        self.place = place
        self.single = single
        self.writes = tuple(writes)
        self.removable = removable
        self.ufunc = ufunc
        self.view = view
        self.k, self.spec = k, spec


class Trace(Protocol):
    """What is written into."""

    steps: list[Step]
    place: int

    def slot(self, array: Array) -> Slot: ...
    def register(self, array: Array) -> Slot: ...
    def emit(self, function: Callable[..., Any], arguments: Sequence[Any], **traits: Any) -> Any: ...


# ---------------------------------------------------------------- probes


class _Opaque(Exception):
    """A function does what is no ufunc."""


class _New:
    """Memory that a function takes for itself; `slot` once it has one."""

    __slots__ = ("array", "slot")

    def __init__(self, array: Array) -> None:
        self.array = array
        self.slot: Slot | None = None


_ASKED = frozenset(("shape", "dtype", "ndim", "nbytes", "itemsize", "strides", "flags"))


class _Probe(NDArrayOperatorsMixin):
    """An array that writes down what is done with it: (function, references, target, is it a ufunc, is it a view)."""

    __slots__ = ("array", "log", "ref")

    def __init__(self, log: list[Any], array: Array, ref: Any) -> None:
        self.log, self.array, self.ref = log, array, ref

    def _reference(self, x: Any) -> tuple[Any, Any]:
        if isinstance(x, _Probe):
            return x.array, x.ref
        if isinstance(x, int | float | complex | np.generic):
            return x, Constant(x)
        raise _Opaque

    def noted(self, function: Callable[..., Any], inputs: Sequence[Any], *, view: bool = False) -> _Probe:
        """The result of a function that makes an array of its own, or a view, written down."""
        if len(self.log) >= MOST:
            raise _Opaque
        pairs = [self._reference(x) for x in inputs]
        made = function(*(value for value, _ in pairs))
        array = made if isinstance(made, np.ndarray) else np.asarray(made)
        ref = _New(array)
        self.log.append((function, [r for _, r in pairs], ref, isinstance(function, np.ufunc), view))
        return _Probe(self.log, array, ref)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **rest: Any) -> Any:
        if method != "__call__" or rest or ufunc.nout != 1:
            raise _Opaque
        if out is None:
            return self.noted(ufunc, inputs)
        target = out[0]
        if not isinstance(target, _Probe) or len(self.log) >= MOST:
            raise _Opaque
        pairs = [self._reference(x) for x in inputs]
        ufunc(*(value for value, _ in pairs), out=target.array)
        self.log.append((ufunc, [r for _, r in pairs], target.ref, True, False))
        return target

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.empty_like and len(args) == 1:
            made = np.empty_like(args[0].array, **kwargs)
            return _Probe(self.log, made, _New(made))
        if function is np.where and len(args) == 3 and not kwargs:
            return self.noted(function, args)
        raise _Opaque

    def __getattr__(self, name: str) -> Any:
        if name == "size":  # what works block by block does it in one go: plans have tiles of their own
            return min(self.array.size, BLOCK)
        if name in _ASKED:
            return getattr(self.array, name)
        raise _Opaque

    def _refuse(self, *_: Any) -> Any:
        raise _Opaque

    __bool__ = __float__ = __int__ = __index__ = __len__ = __iter__ = __getitem__ = __setitem__ = _refuse


class _ProbedRaw:
    """The carrier of rules on probes: element-wise operations by their kernels, and `expand`."""

    recording = False

    def __init__(self, k: Any, probed: _ProbedK) -> None:
        self._raw, self._probed = k.raw, probed

    def conj(self, input: Any) -> Any:
        if input.dtype.kind == "c":
            raise _Opaque
        return input

    def expand(self, input: Any, size: Any) -> Any:
        if not isinstance(input, _Probe):
            raise _Opaque
        raw = self._raw
        return input.noted(lambda array: raw.expand(array, size), (input,), view=True)

    def shape(self, x: Any) -> Any:
        return x.shape

    def dtype(self, x: Any) -> Any:
        return self._raw.dtype(x)

    def __getattr__(self, name: str) -> Any:
        op = resolve(name)
        if not op.keeps or op.kernel is None or op.outputs != ("result",) or op.has_lists:
            raise _Opaque
        kernel = op.kernel

        def call(*args: Any, **kwargs: Any) -> Any:
            args = op.bind(args, kwargs)
            first = args[0]
            for at, _ in op.slots:
                x = args[at]
                if isinstance(x, _Probe):
                    if x.dtype != first.dtype or x.dtype.kind != "f":
                        raise _Opaque
                elif type(x) not in (int, float) or at == 0:
                    raise _Opaque
            return kernel(self._probed, *args)

        return call


class _ProbedK:
    """What rules and kernels find in `k` when they run on probes."""

    def __init__(self, k: Any) -> None:
        self.backend, self.xp, self.sp = k.backend, k.xp, k.sp
        self.raw = _ProbedRaw(k, self)


# ---------------------------------------------------------------- lowering


def _probed(trace: Trace, arguments: Sequence[Any], log: list[Any]) -> list[Any]:
    return [x.value if type(x) is Constant else _Probe(log, x, trace.slot(x)) for x in arguments]


def _write_down(trace: Trace, log: Sequence[Any], *, removable: bool) -> None:
    """The probed calls as steps of the trace."""

    def slot(ref: Any) -> Any:
        if isinstance(ref, _New):
            if ref.slot is None:
                ref.slot = trace.register(ref.array)
            return ref.slot
        return ref

    for function, refs, target, ufunc, view in log:
        inputs = [slot(r) for r in refs]
        trace.steps.append(
            Step(function, inputs, [slot(target)], trace.place, removable=removable, ufunc=ufunc, view=view)
        )


def _equal_bits(a: Array, b: Array) -> bool:
    return bool(a.dtype == b.dtype and a.shape == b.shape and a.strides == b.strides and a.tobytes() == b.tobytes())


def lower(
    trace: Trace,
    kernel: Callable[..., Any],
    arguments: Sequence[Any],
    out: Spec,
    final: Callable[[Any, list[Any]], Array],
    *,
    removable: bool,
) -> Array | None:
    """The kernel's result, the ufuncs that it is made of written down; None where it is more than that.

    `arguments` begin with a Constant of `k`; `final` makes a kernel's result the operation's.
    """
    log: list[Any] = []
    values = [x.value if type(x) is Constant else x for x in arguments]
    try:
        made = kernel(_ProbedK(values[0]), *_probed(trace, arguments, log)[1:])
    except (_Opaque, AttributeError, TypeError, EngineError):
        return None
    if not isinstance(made, _Probe) or not isinstance(made.ref, _New):
        return None
    values[0].spec = out
    if not _equal_bits(made.array, final(kernel(*values), values[1:])):
        return None
    _write_down(trace, log, removable=removable)
    return made.array


def lower_inplace(trace: Trace, kernel: Callable[..., Any], arguments: Sequence[Any], target: Array) -> bool:
    """As `lower`, for a kernel that writes its result into its first operand: some ufuncs, the last of them there."""
    before = target.copy()
    log: list[Any] = []
    values = [x.value if type(x) is Constant else x for x in arguments]
    slot = trace.slot(target)
    try:
        probes = _probed(trace, arguments, log)
        made = kernel(_ProbedK(values[0]), *probes[1:], out=probes[1])
        fits = made is probes[1] and log and log[-1][2] == slot and all(isinstance(t[2], _New) for t in log[:-1])
    except (_Opaque, AttributeError, TypeError, EngineError):
        fits = False
    changed = target.copy()
    target[...] = before
    if not fits:
        return False
    kernel(*values, out=target)
    if changed.tobytes() != target.tobytes():
        target[...] = before
        return False
    _write_down(trace, log, removable=True)
    last = trace.steps[-1]
    last.writes, last.removable = (slot,), False
    return True


def rule_results(found: Sequence[Any]) -> tuple[Any, ...]:
    """A rule's gradients, those that are numbers as arrays."""
    return tuple([np.asarray(x) if isinstance(x, np.generic) else x for x in found])


def lower_rule(trace: Trace, rule: Callable[..., Any], k: Any, values: Sequence[Any], g: Array, mask: int) -> list[Any]:
    """The gradients that a rule on arrays gives, written down as ufuncs where it is no more, else as one call."""
    plain = [x.value if type(x) is Constant else x for x in values]
    wanted = rule_results(rule(k, plain, g, mask))
    log: list[Any] = []
    try:
        made = rule(_ProbedK(k), _probed(trace, values, log), _Probe(log, g, trace.slot(g)), mask)
    except (_Opaque, AttributeError, TypeError):
        made = None
    if made is not None and all(map(_agree, made, wanted)):
        _write_down(trace, log, removable=False)
        return [x.array if isinstance(x, _Probe) else None for x in made]
    places = [i for i, x in enumerate(values) if type(x) is not Constant]

    def call(g: Array, *arrays: Array) -> Any:
        filled = plain.copy()
        for i, x in zip(places, arrays, strict=True):
            filled[i] = x
        return rule_results(rule(k, filled, g, mask))

    found = trace.emit(call, [g, *(values[i] for i in places)])
    return [x if isinstance(x, np.ndarray) else None for x in found]


def _agree(made: Any, wanted: Any) -> bool:
    if isinstance(made, _Probe):
        return isinstance(wanted, np.ndarray) and _equal_bits(made.array, wanted)
    return not isinstance(wanted, np.ndarray)


__all__ = ["Constant", "Slot", "Step", "lower", "lower_inplace", "lower_rule", "rule_results"]
