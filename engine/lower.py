"""Kernels and gradient rules as the ufuncs that they are made of.

A function is run once on probes, arrays that write down which ufuncs they go through. Where it does nothing else, and
gives bit for bit what it gives on the arrays themselves, those ufuncs stand for it: their results can go into memory
that is kept, and several of them over large arrays can take turns tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

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
    """One call: `function` of slots, constants and lists of them, in the order of its parameters.

    `outputs`: the slots of what it returns, -1 for what is no array; `single` where that is no tuple. `writes`: slots
    whose memory it changes. `removable`: whether nothing is lost where nobody needs its outputs. `ufunc`: whether it is
    a ufunc whose result may be given memory. `lines`: whether it is a compiled loop, which takes arrays as lines of
    elements, and memory for its result as a ufunc does. `view`: whether its result is a view of its first argument.
    `spec`: what kernels find in `k.spec`. `place`: the step of the program. `alone`: functions that give one of
    several outputs, by its place.
    """

    __slots__ = (
        "alone", "arguments", "function", "k", "lines", "outputs", "place", "removable", "single", "spec", "ufunc",
        "view", "writes",
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
        lines: bool = False,
        view: bool = False,
        k: Any = None,
        spec: Any = None,
        alone: Mapping[int, Callable[..., Any]] | None = None,
    ) -> None:
        self.function = function
        self.arguments = list(arguments)
        self.outputs = list(outputs)
        self.place = place
        self.single = single
        self.writes = tuple(writes)
        self.removable = removable
        self.ufunc = ufunc
        self.lines = lines
        self.view = view
        self.k, self.spec = k, spec
        self.alone = alone or {}

    @property
    def inputs(self) -> list[Slot]:
        """The slots among the arguments, those in lists too."""
        return list(slots_in(self.arguments))


def slots_in(arguments: Iterable[Any]) -> Iterator[Slot]:
    """The slots among arguments, which may be lists of slots and constants."""
    for x in arguments:
        if type(x) is list:
            yield from slots_in(x)
        elif type(x) is not Constant:
            yield x


class Trace(Protocol):
    """What is written into."""

    steps: list[Step]
    place: int

    def slot(self, array: Array) -> Slot: ...
    def register(self, array: Array) -> Slot: ...
    def constant(self, array: Array) -> Slot: ...
    def k_of(self, backend: Any) -> Any: ...
    def emit(self, function: Callable[..., Any], arguments: Sequence[Any], **traits: Any) -> Any: ...


# ---------------------------------------------------------------- probes


class _Opaque(Exception):
    """A function does what is no ufunc."""


class _New:
    """Memory that a function takes for itself; `slot` once it has one. `written`: whether anything is in it yet."""

    __slots__ = ("array", "slot", "written")

    def __init__(self, array: Array, *, written: bool = True) -> None:
        self.array = array
        self.slot: Slot | None = None
        self.written = written


_ASKED = frozenset(("shape", "dtype", "ndim", "nbytes", "itemsize", "strides", "flags"))


def _copied(x: Array, out: Array) -> None:
    """A copy in another dtype."""
    np.copyto(out, x)


class _Call(NamedTuple):
    """What was done with probes; `target`: where its result is. The kinds are those of a `Step`."""

    function: Callable[..., Any]
    references: list[Any]
    target: Any
    ufunc: bool = False
    view: bool = False
    lines: bool = False


class _Probe(NDArrayOperatorsMixin):
    """An array that writes down what is done with it."""

    __slots__ = ("array", "log", "ref")

    def __init__(self, log: list[_Call], array: Array, ref: Any) -> None:
        self.log, self.array, self.ref = log, array, ref

    def _reference(self, x: Any) -> tuple[Any, Any]:
        if isinstance(x, _Probe):
            if isinstance(x.ref, _New) and not x.ref.written:
                raise _Opaque  # a view of what is empty would be written to behind its back
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
        self.log.append(_Call(function, [r for _, r in pairs], ref, isinstance(function, np.ufunc), view))
        return _Probe(self.log, array, ref)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **rest: Any) -> Any:
        if method != "__call__" or rest or ufunc.nout != 1:
            raise _Opaque
        if out is None:
            return self.noted(ufunc, inputs)
        target = out[0]
        if not isinstance(target, _Probe):
            raise _Opaque
        target.changed(lambda *values: ufunc(*values, out=target.array), inputs, function=ufunc, ufunc=True)
        return target

    def changed(self, change: Callable[..., Any], inputs: Sequence[Any], **call: Any) -> None:
        """Has `change` write into this array of inputs, and writes the call down."""
        if len(self.log) >= MOST:
            raise _Opaque
        pairs = [self._reference(x) for x in inputs]
        change(*(value for value, _ in pairs))
        if isinstance(self.ref, _New):
            self.ref.written = True
        self.log.append(_Call(references=[r for _, r in pairs], target=self.ref, **call))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function is np.empty_like and len(args) == 1:
            made = np.empty_like(args[0].array, **kwargs)
            return _Probe(self.log, made, _New(made, written=False))
        if function is np.copyto and len(args) == 2 and not kwargs:
            target, source = args
            if not isinstance(target, _Probe) or not isinstance(source, _Probe) or target.shape != source.shape:
                raise _Opaque
            if not (target.flags.c_contiguous and source.flags.c_contiguous):
                raise _Opaque
            target.changed(lambda x: _copied(x, target.array), (source,), function=_copied, lines=True)
            return None
        if function is np.may_share_memory:  # which tensors do, a plan's guard has looked at
            return np.may_share_memory(*[x.array if isinstance(x, _Probe) else x for x in args])
        if function is np.where and len(args) == 3 and not kwargs:
            return self.noted(function, args)
        raise _Opaque

    @property
    def T(self) -> _Probe:  # noqa: N802  NumPy's name
        return self.noted(np.transpose, (self,), view=True)

    def reshape(self, *shape: Any) -> _Probe:
        """A reshape that is a view; one that copies is for the function itself."""
        if not self.array.flags.c_contiguous:
            raise _Opaque
        sizes = shape[0] if len(shape) == 1 and type(shape[0]) in (tuple, list) else shape
        return self.noted(lambda array: array.reshape(sizes), (self,), view=True)

    def view(self, dtype: Any) -> _Probe:
        return self.noted(lambda array: array.view(dtype), (self,), view=True)

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

    def mm(self, input: Any, mat2: Any) -> Any:
        return input @ mat2

    def transpose(self, input: Any, dim0: int, dim1: int) -> Any:
        if not isinstance(input, _Probe) or not input.ndim:
            raise _Opaque
        return input.noted(lambda array: array.swapaxes(dim0, dim1), (input,), view=True)

    def reshape(self, input: Any, shape: Any) -> Any:
        return input.reshape(shape)

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


class _ProbedBackend:
    """What rules and kernels find in `k.backend` when they run on probes."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def axpy(self, a: float, x: Any, y: Any) -> None:
        if not isinstance(x, _Probe) or not isinstance(y, _Probe) or isinstance(y.ref, _New):
            raise _Opaque
        down = partial(self._backend.axpy, a)
        y.changed(down, (x, y), function=down)

    def compiled(self, name: str, *arrays: Any) -> None:
        if self._compiled(name, arrays) is not None:
            raise _Opaque

    def elements(self, name: str, arrays: Sequence[Any], out: Any, *numbers: float) -> bool:
        run = self._compiled(name, (*arrays, out))
        if run is None:
            return False

        def lines(*given: Array) -> None:
            run(*given, *numbers)

        def change(*given: Array) -> None:
            lines(*[x.reshape(-1) for x in given], out.array.reshape(-1))

        out.changed(change, arrays, function=lines if numbers else run, lines=True)
        return True

    def _compiled(self, name: str, arrays: Sequence[Any]) -> Any:
        if not all(isinstance(x, _Probe) for x in arrays):
            raise _Opaque
        return self._backend.compiled(name, *[x.array for x in arrays])


class _ProbedK:
    """What rules and kernels find in `k` when they run on probes."""

    def __init__(self, k: Any) -> None:
        self.backend, self.xp, self.sp = _ProbedBackend(k.backend), k.xp, k.sp
        self.raw = _ProbedRaw(k, self)


# ---------------------------------------------------------------- lowering


def _probed(trace: Trace, arguments: Sequence[Any], log: list[Any]) -> list[Any]:
    return [
        x.value if type(x) is Constant else _probed(trace, x, log) if type(x) is list else _Probe(log, x, trace.slot(x))
        for x in arguments
    ]


def plain_arguments(arguments: Sequence[Any]) -> list[Any]:
    """Arguments of arrays, Constants and lists of them as a function takes them."""
    return [x.value if type(x) is Constant else plain_arguments(x) if type(x) is list else x for x in arguments]


def _write_down(trace: Trace, log: Sequence[_Call], *, removable: bool) -> None:
    """The probed calls as steps of the trace. What is written into memory that was there before, stays."""

    def slot(ref: Any) -> Any:
        if isinstance(ref, _New):
            if ref.slot is None:
                ref.slot = trace.register(ref.array)
            return ref.slot
        return ref

    for call in log:
        inputs = [slot(r) for r in call.references]
        writes = () if isinstance(call.target, _New) else (call.target,)
        has_result = call.ufunc or call.lines or call.view or not writes
        trace.steps.append(
            Step(
                call.function,
                inputs,
                [slot(call.target) if has_result else -1],
                trace.place,
                writes=writes,
                removable=removable and not writes,
                ufunc=call.ufunc,
                lines=call.lines,
                view=call.view,
            )
        )


# What was found equal once is not compared again: (function, constants, dtypes and layouts of the arrays).
_equal: set[Any] = set()
_REMEMBERED = 4096


def _key(function: Any, arguments: Sequence[Any]) -> Any:
    """What decides which way a function goes: constants, and of arrays dtype, layout, and whether they are large."""
    parts: list[Any] = [function]
    for x in arguments:
        if type(x) is Constant:
            parts.append(repr(x.value) if type(x.value) in (int, float, bool, str, tuple) else type(x.value))
        elif type(x) is list:
            parts.append(_key(None, x))
        else:
            parts.append((x.dtype.char, x.ndim, x.flags.c_contiguous, x.size.bit_length()))
    return tuple(parts)


def _remember(key: Any) -> None:
    if len(_equal) >= _REMEMBERED:
        _equal.clear()
    _equal.add(key)


def equal_bits(a: Array, b: Array) -> bool:
    """Whether two arrays are the same, bit for bit and in layout."""
    if a.dtype != b.dtype or a.shape != b.shape or a.strides != b.strides:
        return False
    if a.flags.c_contiguous:
        return bool(np.array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8)))
    return bool(a.tobytes() == b.tobytes())


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
    log: list[_Call] = []
    values = plain_arguments(arguments)
    try:
        made = kernel(_ProbedK(values[0]), *_probed(trace, arguments, log)[1:])
    except (_Opaque, AttributeError, TypeError, EngineError):
        return None
    if not isinstance(made, _Probe) or not isinstance(made.ref, _New) or not made.ref.written:
        return None
    if (key := _key(kernel, arguments[1:])) not in _equal:
        values[0].spec = out
        if not equal_bits(made.array, final(kernel(*values), values[1:])):
            return None
        _remember(key)
    _write_down(trace, log, removable=removable)
    return made.array


def lower_writes(
    trace: Trace,
    kernel: Callable[..., Any],
    arguments: Sequence[Any],
    targets: Sequence[Array],
    *,
    into_first: bool = False,
) -> bool:
    """As `lower`, for a kernel that writes into `targets`; with `into_first` its result into its first operand."""
    before = [target.copy() for target in targets]
    log: list[_Call] = []
    values = plain_arguments(arguments)
    slots = [trace.slot(target) for target in targets]
    try:
        probes = _probed(trace, arguments, log)
        made = kernel(_ProbedK(values[0]), *probes[1:], **({"out": probes[1]} if into_first else {}))
        fits = (made is probes[1] if into_first else made is None) and all(
            isinstance(call.target, _New) or call.target in slots for call in log
        )
    except (_Opaque, AttributeError, TypeError, EngineError):
        fits = False
    key = _key((kernel, into_first), arguments[1:])
    if not fits:
        _put_back(targets, before)
        return False
    if key not in _equal:
        changed = [target.copy() for target in targets]
        _put_back(targets, before)
        kernel(*values, **({"out": values[1]} if into_first else {}))
        if any(a.tobytes() != b.tobytes() for a, b in zip(changed, targets, strict=True)):
            _put_back(targets, before)
            return False
        _remember(key)
    _write_down(trace, log, removable=True)
    return True


def _put_back(targets: Sequence[Array], before: Sequence[Array]) -> None:
    for target, copy in zip(targets, before, strict=True):
        target[...] = copy


def plain_results(found: Sequence[Any]) -> tuple[Any, ...]:
    """What a function gives, numbers as arrays."""
    return tuple([np.asarray(x) if isinstance(x, np.generic) else x for x in found])


def lower_rule(
    trace: Trace, rule: Callable[..., Any], probed: Callable[..., Any], arrays: Sequence[Array], g: Array, name: Any
) -> list[Any] | None:
    """The gradients of `rule(*arrays, g)`, written down as the ufuncs of `probed`, the same on probes.

    `probed(arrays, g, wrap)`: `wrap` makes of a `k` one to run with on probes. `name` says which rule it is. None where
    the rule is more than ufuncs.
    """
    log: list[_Call] = []
    try:
        made = probed([_Probe(log, x, trace.slot(x)) for x in arrays], _Probe(log, g, trace.slot(g)), _ProbedK)
    except (_Opaque, AttributeError, TypeError, EngineError):
        return None
    made = made if type(made) is tuple else (made,)
    if (key := _key(name, [*arrays, g])) not in _equal:
        wanted = plain_results(rule(*arrays, g))
        if len(made) != len(wanted) or not all(map(_agree, made, wanted)):
            return None
        _remember(key)
    _write_down(trace, log, removable=False)
    return [x.array if isinstance(x, _Probe) else None for x in made]


def _agree(made: Any, wanted: Any) -> bool:
    if isinstance(made, _Probe):
        return isinstance(wanted, np.ndarray) and equal_bits(made.array, wanted)
    return not isinstance(wanted, np.ndarray)


__all__ = [
    "Constant",
    "Slot",
    "Step",
    "equal_bits",
    "lower",
    "lower_rule",
    "lower_writes",
    "plain_arguments",
    "plain_results",
    "slots_in",
]
