"""CuPy's ufuncs: which loop a call takes, and what is refused, decided by CuPy's own tables.

CuPy goes through the loops of a ufunc in order and takes the first one to which every operand can be cast safely.
Python scalars are weak (NEP 50) unless they are of a higher kind than every array. The loop found, NumPy computes,
on operands cast to exactly the loop's types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.simulated.array import (
    CALLS,
    SCALARS,
    deliver,
    host_of,
    ndarray,
    quiet,
    record,
    recorder,
    wrap,
)
from engine.simulated.memory import Host, overlaps_itself, supported
from engine.simulated.names import NAMES

Types = tuple[np.dtype[Any], ...]

# What CuPy's atomic operations exist for (`_scatter_op_single`); no complex, no bool, nothing of one or two bytes but
# float16 in add.
AT_DTYPES = {
    "add": "ilqILQefd",
    "sub": "iI",
    "max": "ilqILQfd",
    "min": "ilqILQfd",
    "and": "ilqILQ",
    "or": "ilqILQ",
    "xor": "ilqILQ",
}

_BOOL, _INT64, _UINT64 = np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.uint64)
_FLOAT64, _COMPLEX128 = np.dtype(np.float64), np.dtype(np.complex128)


def scalar_type(value: Any) -> tuple[np.dtype[Any], type | None]:
    """How CuPy sees a Python scalar: its dtype alone, and the type it is weak as. bool is not weak."""
    kind = type(value)
    if kind is bool:
        return _BOOL, None
    if kind is int:
        return (_UINT64 if value >= 1 << 63 else _INT64), int
    return (_FLOAT64, float) if kind is float else (_COMPLEX128, complex)


def _kind_score(kind: str) -> int:
    return 0 if kind == "b" else 1 if kind in "iu" else 2


class Loops:
    """The type table of one ufunc."""

    def __init__(self, record_of: dict[str, Any]) -> None:
        self.nin: int = record_of["nin"]
        self.nout: int = record_of["nout"]
        self.loops = [self._parse(text) for text in record_of["loops"]]
        self.refused = {self._parse(text) for text in record_of.get("refused", ())}
        self.with_dtype = [self._parse(text) for text in record_of.get("with_dtype", record_of["loops"])]
        self.promotes_int: bool = record_of.get("promotes_int", False)
        self._cache: dict[Any, tuple[Types, Types]] = {}

    @staticmethod
    def _parse(text: str) -> tuple[Types, Types]:
        ins, outs = text.split("->")
        return tuple(map(np.dtype, ins)), tuple(map(np.dtype, outs))

    def find(self, name: str, operands: Sequence[Any], dtype: np.dtype[Any] | None) -> tuple[Types, Types]:
        """Types of operands and results for NumPy arrays and Python scalars; TypeError if CuPy has no such loop."""
        key = (dtype, *[o.dtype if isinstance(o, np.ndarray) else _scalar_key(o) for o in operands])
        found = self._cache.get(key)
        if found is None:
            found = self._search(name, operands, dtype)
            self._cache[key] = found
        return found

    def _search(self, name: str, operands: Sequence[Any], dtype: np.dtype[Any] | None) -> tuple[Types, Types]:
        types: list[np.dtype[Any]] = []
        weak: list[type | None] = []
        for operand in operands:
            if isinstance(operand, np.ndarray):
                types.append(operand.dtype)
                weak.append(None)
            else:
                t, w = scalar_type(operand)
                types.append(t)
                weak.append(w)
        if dtype is not None:
            found = next((loop for loop in self.with_dtype if all(t == dtype for t in loop[1])), None)
        else:
            if not self._weakness_counts(types, weak):
                weak = [None] * len(types)
            if self.promotes_int and len(types) == 2:
                self._strengthen(types, weak)
            found = next((loop for loop in self.loops if self._fits(types, weak, loop[0])), None)
        if found is None or found in self.refused:
            given = ", ".join(str(t) for t in types) if dtype is None else f"dtype={dtype}"
            raise TypeError(f"cupy.{name} is not supported for ({given})")
        return found

    @staticmethod
    def _weakness_counts(types: Sequence[np.dtype[Any]], weak: Sequence[type | None]) -> bool:
        arrays = [_kind_score(t.kind) for t, w in zip(types, weak, strict=True) if w is None]
        scalars = [1 if w is int else 2 for w in weak if w is not None]
        return bool(arrays and scalars) and max(arrays) >= max(scalars)

    @staticmethod
    def _strengthen(types: Sequence[np.dtype[Any]], weak: list[type | None]) -> None:
        # Comparisons: int32(-1) < 2**40 compares as int64 instead of failing to make an int32 of 2**40.
        for i, other in ((0, 1), (1, 0)):
            if weak[i] is int and weak[other] is None and types[other].kind in "iu":
                weak[i] = None
                return

    @staticmethod
    def _fits(types: Sequence[np.dtype[Any]], weak: Sequence[type | None], loop: Types) -> bool:
        for given, w, wanted in zip(types, weak, loop, strict=True):
            if np.can_cast(given, wanted):
                continue
            if w is None or np.result_type(w(0), wanted) != wanted:
                return False
        return True


def _scalar_key(value: Any) -> Any:
    kind = type(value)
    return (int, value >= 1 << 63) if kind is int else kind


def operand(name: str, value: Any) -> Any:
    """The NumPy array under a device array, or a Python scalar; TypeError for all else."""
    if type(value) is ndarray:
        return value._array
    if type(value) in SCALARS:
        return value
    return host_of(f"cupy.{name}", value)


def cast(value: Any, dtype: np.dtype[Any], casting: str, name: str) -> Host:
    """An operand in its loop's type. OverflowError for a Python integer that does not fit, as in CuPy."""
    if not isinstance(value, np.ndarray):
        return np.asarray(value, dtype=dtype)
    if value.dtype == dtype:
        return value
    # CuPy casts operands silently when dtype= asks for it (a known gap there); NumPy's rule is kept here.
    if not np.can_cast(value.dtype, dtype, casting):  # type: ignore[arg-type]
        raise TypeError(f"cupy.{name}: cannot cast {value.dtype} to {dtype} by the rule {casting!r}")
    return value.astype(dtype)


def compute(name: str, function: Any, loops: Loops, operands: Sequence[Any]) -> tuple[Host, ...]:
    """The results of NumPy's `function` in the types of CuPy's loop, as C-contiguous arrays of their own."""
    ins, outs = loops.find(name, operands, None)
    results = quiet(function, [cast(o, t, "same_kind", name) for o, t in zip(operands, ins, strict=True)], {})
    return _tidy(results, outs)


def _tidy(results: Any, outs: Types) -> tuple[Host, ...]:
    if isinstance(results, tuple):
        return tuple(_tidy(result, (t,))[0] for result, t in zip(results, outs, strict=True))
    if type(results) is np.ndarray and results.dtype == outs[0] and results.flags.c_contiguous:
        return (results,)
    return (np.asarray(results).astype(outs[0], order="C", copy=False),)


class ufunc:
    """A ufunc of CuPy: `cupy.add(x1, x2, /, out=None, *, casting="same_kind", dtype=None)` and its methods."""

    def __init__(self, module: str, name: str, function: Any, record_of: dict[str, Any]) -> None:
        self.name = self.__name__ = name
        self._dotted = f"{module}.{name}"
        self._function = function
        self._loops = Loops(record_of)
        self._at: str | None = record_of.get("at")
        self.nin, self.nout = self._loops.nin, self._loops.nout
        self.nargs = self.nin + self.nout
        self.types: list[str] = list(record_of["loops"])
        # NumPy's own ufuncs write in the order of their inputs' memory unless told otherwise; CuPy's always in C order.
        self._options = {"order": "C"} if isinstance(function, np.ufunc) else {}

    def __repr__(self) -> str:
        return f"<ufunc 'cupy_{self.name}'>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if recorder.hook is not None:
            record(self._dotted, args, kwargs)
        nin = self.nin
        if not nin <= len(args) <= self.nargs:
            raise TypeError(f"{self._dotted}() takes {nin} operands and {self.nout} outputs, {len(args)} were given")
        dtype, casting = None, "same_kind"
        outputs = args[nin:]
        if kwargs:
            outputs, dtype, casting = self._keywords(kwargs, outputs)
        operands = [operand(self.name, a) for a in args[:nin]]
        ins, outs = self._loops.find(self.name, operands, dtype)
        for i, wanted in enumerate(ins):
            if getattr(operands[i], "dtype", None) is not wanted:
                operands[i] = cast(operands[i], wanted, casting, self.name)
        tidy = _tidy(quiet(self._function, operands, self._options), outs)
        if outputs:
            return self._deliver(tidy, outputs)
        return wrap(tidy[0]) if self.nout == 1 else tuple(map(wrap, tidy))

    def _keywords(self, kwargs: dict[str, Any], outputs: tuple[Any, ...]) -> tuple[Any, Any, str]:
        for name in kwargs:
            if name not in ("out", "dtype", "casting"):
                raise TypeError(f"{self._dotted}() takes no keyword {name!r}")
        out, dtype = kwargs.get("out"), kwargs.get("dtype")
        if out is not None:
            if outputs:
                raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
            outputs = out if isinstance(out, tuple) else (out,)
            if len(outputs) != self.nout:
                raise ValueError("The 'out' tuple must have exactly one entry per ufunc output")
        return outputs, None if dtype is None else supported(dtype), kwargs.get("casting", "same_kind")

    def _deliver(self, results: tuple[Host, ...], outputs: tuple[Any, ...]) -> Any:
        given = list(outputs) + [None] * (self.nout - len(outputs))
        delivered = [
            wrap(r) if out is None else deliver(self._dotted, _broadcast_out(r, out), out)
            for r, out in zip(results, given, strict=True)
        ]
        return delivered[0] if self.nout == 1 else tuple(delivered)

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        """`a[indices] = self(a[indices], b)`, every occurrence of a duplicate index counting."""
        if recorder.hook is not None:
            record(f"{self._dotted}.at", (a, indices, b), {})
        if self._at is None:
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        CALLS["scatter"](a, indices, b, self._at)

    def outer(self, A: ndarray, B: ndarray, **kwargs: Any) -> Any:
        """All pairs of elements of A and B."""
        host_of(self._dotted, A), host_of(self._dotted, B)
        return self(A.reshape(A.shape + (1,) * B.ndim), B.reshape((1,) * A.ndim + B.shape), **kwargs)

    def reduce(self, array: ndarray, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Only add and multiply have it in CuPy."""
        if self.name not in ("add", "multiply"):
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        return (array.sum if self.name == "add" else array.prod)(axis, dtype, out, keepdims)

    def accumulate(self, array: ndarray, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        """Only add and multiply have it in CuPy."""
        if self.name not in ("add", "multiply"):
            raise NotImplementedError(f"`{self.name}.accumulate` is not supported yet")
        return (array.cumsum if self.name == "add" else array.cumprod)(axis, dtype, out)


def _broadcast_out(result: Host, out: Any) -> Host:
    """A result repeated to a larger `out`, which ufuncs allow."""
    if type(out) is ndarray and out.shape != result.shape and not overlaps_itself(out._array):
        try:
            return np.broadcast_to(result, out.shape)
        except ValueError:
            return result  # deliver words the error
    return result


class Matmul:
    """`cupy.matmul`: a generalised ufunc; of its keywords only `out` is offered here."""

    name = __name__ = "matmul"

    def __call__(self, *args: Any, **kwargs: Any) -> ndarray:
        if recorder.hook is not None:
            record("cupy.matmul", args, kwargs)
        if not 2 <= len(args) <= 3:
            raise TypeError(f"cupy.matmul() takes two operands and an output, {len(args)} were given")
        for name in kwargs:
            if name != "out" or len(args) == 3:
                raise TypeError(f"cupy.matmul() takes no keyword {name!r} here")
        a, b = (host_of("cupy.matmul", x) for x in args[:2])
        if a.ndim == 0 or b.ndim == 0:
            raise ValueError("Scalar operands are not allowed, use '*' instead")
        result = np.asarray(quiet(np.matmul, (a, b), {"order": "C"}))
        out = args[2] if len(args) == 3 else kwargs.get("out")
        return wrap(result) if out is None else deliver("cupy.matmul", result, out)


matmul = Matmul()
CALLS["cupy.matmul"] = matmul

HELPERS = {name: Loops(record_of) for name, record_of in NAMES["helpers"].items()}


def make(module: str, name: str, function: Any) -> ufunc:
    """The ufunc `name` of CuPy's `module`, computed by `function`."""
    return ufunc(module, name, function, NAMES["modules"][module]["ufuncs"][name])


for _name in NAMES["modules"]["cupy"]["ufuncs"]:
    CALLS[f"cupy.{_name}"] = make("cupy", _name, getattr(np, _name))
