"""The array class of the stand-in: a NumPy array that pretends to lie in a GPU's memory.

Nothing crosses between host and device by itself. `np.asarray(a)`, NumPy's functions and ufuncs, NumPy arrays and
NumPy scalars as operands are refused; `asarray` and `get` are the two borders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from engine.simulated.memory import (
    Flags,
    Host,
    Memory,
    MemoryPointer,
    address,
    overlaps_itself,
    poison,
    root,
    supported,
)
from engine.simulated.names import NAMES, VERSION, NotOffered

SCALARS = frozenset({bool, int, float, complex})
# The functions that operators and methods call, by dotted name; filled by the modules that define them, which need
# the array class first.
CALLS: dict[str, Callable[..., Any]] = {}


class Call(NamedTuple):
    """One call as the recorder sees it: hashable, so that a set of them is the list of what the engine uses."""

    name: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]


class _Recorder:
    """Holds the hook; an object, so that every module sees the same one."""

    hook: Callable[[Call], None] | None = None


recorder = _Recorder()


def describe(value: Any) -> Any:
    """A value as plain data: ("array", dtype, shape), ("scalar", type), ("dtype", name); a string or None as it is."""
    if type(value) is ndarray:
        return ("array", value._array.dtype.name, value._array.shape)
    if type(value) in SCALARS:
        return ("scalar", type(value).__name__)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, tuple | list):
        return (type(value).__name__, *map(describe, value))
    if isinstance(value, np.dtype):
        return ("dtype", value.name)
    if isinstance(value, type):
        return ("dtype", value.__name__)
    return ("object", type(value).__name__)


def record(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Tell the hook of a call; callers test `recorder.hook` themselves, to keep this off the usual path."""
    if recorder.hook is not None:
        named = tuple((k, describe(v)) for k, v in sorted(kwargs.items()))
        recorder.hook(Call(name, tuple(map(describe, args)), named))


@np.errstate(all="ignore")
def quiet(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call NumPy as a GPU computes: division by zero, overflow and NaN are results, not warnings."""
    return function(*args, **kwargs)


# ---------------------------------------------------------------- what may pass


def host_value_refused(where: str, value: Any) -> TypeError:
    """The error for a NumPy array or scalar where a device array or a Python scalar belongs."""
    what = f"a NumPy array of {value.dtype}" if isinstance(value, np.ndarray) else f"a NumPy {type(value).__name__}"
    advice = "move it with asarray first" if isinstance(value, np.ndarray) else "use .item() or a device array"
    return TypeError(f"{where}: {what} cannot be used on the device; {advice}")


def plain(where: str, value: Any) -> Any:
    """The value of a parameter that takes no array (an axis, a shape, a dtype); TypeError if it holds one."""
    kind = type(value)
    if kind is int or value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is tuple or kind is list:
        for item in value:
            plain(where, item)
        return value
    if kind is ndarray:
        raise TypeError(f"{where}: a device array cannot stand here; CuPy wants a Python value")
    if isinstance(value, np.ndarray | np.generic):
        raise host_value_refused(where, value)
    if value is Ellipsis or isinstance(value, type | np.dtype | slice | range | complex):
        return value
    raise TypeError(f"{where}: {kind.__name__} is no plain value")


# ---------------------------------------------------------------- the array


class ndarray:
    """`cupy.ndarray`, with NumPy underneath.

    `ndarray(shape, dtype=float, memptr=None, strides=None, order="C")`; strides in bytes. With `memptr` (an array's
    `data`, moved by bytes if need be) it is a view of that memory, whose `base` is None all the same, as in CuPy.
    """

    __slots__ = ("__weakref__", "_array", "base")

    __module__ = "engine.simulated"
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]  # comparisons answer with arrays

    _array: Host
    base: ndarray | None

    def __init__(
        self,
        shape: int | Sequence[int],
        dtype: Any = float,
        memptr: MemoryPointer | None = None,
        strides: Sequence[int] | None = None,
        order: Any = "C",
    ) -> None:
        if recorder.hook is not None:
            record("cupy.ndarray", (shape, dtype, memptr, strides, order), {})
        shape = (shape,) if isinstance(shape, int) else shape
        plain("cupy.ndarray", tuple(shape))
        plain("cupy.ndarray", strides if strides is None else tuple(strides))
        d = supported(dtype)
        self.base = None
        if memptr is not None:
            if type(memptr) is not MemoryPointer:
                raise TypeError("memptr must be the data of a device array")
            self._array = memptr.array(shape, d, strides, order or "C")
        elif strides is not None:
            raise TypeError("strides without memptr are not offered here")
        else:
            self._array = poison(np.empty(shape, d, order or "C"))

    def __getattr__(self, name: str) -> Any:
        listed = NAMES["ndarray"]
        if name in listed["methods"] or name in listed["attributes"] or name in listed["special"]:
            raise NotOffered(f"cupy.ndarray has {name!r}, but the stand-in does not offer it")
        raise AttributeError(f"cupy.ndarray of CuPy {VERSION} has no {name!r}")

    # ---- layout

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    @shape.setter
    def shape(self, shape: int | Sequence[int]) -> None:
        plain("cupy.ndarray.shape", shape)
        view = self._array.reshape(shape)
        if view.size and address(view) != address(self._array):
            raise AttributeError("Incompatible shape for in-place modification. Use `.reshape()` to make a copy")
        self._array = view

    @property
    def dtype(self) -> Any:
        return self._array.dtype

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def size(self) -> int:
        return self._array.size

    @property
    def itemsize(self) -> int:
        return self._array.itemsize

    @property
    def nbytes(self) -> int:
        return self._array.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        return self._array.strides

    @property
    def flags(self) -> Flags:
        flags = self._array.flags
        return Flags(flags.c_contiguous, flags.f_contiguous, self.base is None)

    @property
    def data(self) -> MemoryPointer:
        owner = root(self._array)
        return MemoryPointer(Memory(owner), address(self._array) - address(owner))

    @property
    def device(self) -> str:
        return "<CUDA Device 0>"

    @property
    def T(self) -> ndarray:
        return self if self._array.ndim < 2 else view_of(self._array.T, self)

    @property
    def mT(self) -> ndarray:
        return view_of(self._array.mT, self)

    @property
    def real(self) -> ndarray:
        return view_of(self._array.real, self) if self._array.dtype.kind == "c" else self

    @real.setter
    def real(self, value: Any) -> None:
        self.real[...] = value

    @property
    def imag(self) -> ndarray:
        if self._array.dtype.kind == "c":
            return view_of(self._array.imag, self)
        return wrap(np.zeros(self._array.shape, self._array.dtype))

    @imag.setter
    def imag(self, value: Any) -> None:
        if self._array.dtype.kind != "c":
            raise TypeError("cupy.ndarray does not have imaginary part to set")
        self.imag[...] = value

    # ---- borders

    def get(self, stream: None = None, order: Any = "C", out: Host | None = None, blocking: bool = True) -> Host:
        """A copy in host memory."""
        if recorder.hook is not None:
            record("cupy.ndarray.get", (self,), {"order": order})
        if out is None:
            return np.array(self._array, order=order)
        if type(out) is not np.ndarray or out.dtype != self.dtype:
            raise TypeError("Only a numpy.ndarray of the same dtype can be obtained from cupy.ndarray")
        if out.shape != self.shape:
            raise ValueError(f"Shape mismatch. Expected shape: {self.shape}, actual shape: {out.shape}")
        out[...] = self._array
        return out

    def set(self, arr: Host, stream: None = None) -> None:
        """Overwrite with a host array of the same dtype and shape."""
        if type(arr) is not np.ndarray or arr.dtype != self.dtype:
            raise TypeError("Only a numpy.ndarray of the same dtype can be set to cupy.ndarray")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not self.flags.forc:
            raise RuntimeError("Cannot set to non-contiguous array")
        self._array[...] = arr

    def item(self) -> Any:
        """The one element as a Python scalar; waits for the device."""
        if self._array.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self._array.item()

    def tolist(self) -> Any:
        return self._array.tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        return self._array.tobytes(order)

    def __bool__(self) -> bool:
        # CuPy still answers False for an empty array, with a warning; here it is an error already.
        if self._array.size != 1:
            raise ValueError("The truth value of an array with more or less than one element is ambiguous")
        return bool(self._array)

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"numpy.{ufunc.__name__} was called on a device array; call the device's own function")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> NoReturn:
        raise TypeError(f"numpy.{func.__name__} was called on a device array; call the device's own function")

    def __repr__(self) -> str:
        return repr(self._array)

    def __str__(self) -> str:
        return str(self._array)

    def __format__(self, spec: str) -> str:
        return format(self._array, spec)

    def __copy__(self) -> ndarray:
        return wrap(self._array.copy())

    def __deepcopy__(self, memo: Any) -> ndarray:
        return wrap(self._array.copy())

    def __reduce__(self) -> Any:
        return _from_host, (self.get(order="A"),)

    # ---- elements

    def __len__(self) -> int:
        if self._array.ndim == 0:
            raise TypeError("len() of unsized object")
        return len(self._array)

    def __iter__(self) -> Iterator[ndarray]:
        if self._array.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self._array)))

    def __getitem__(self, key: Any) -> Any:
        if recorder.hook is not None:
            record("cupy.ndarray.__getitem__", (self, key), {})
        return CALLS["getitem"](self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        if recorder.hook is not None:
            record("cupy.ndarray.__setitem__", (self, key, value), {})
        CALLS["setitem"](self, key, value)

    # ---- memory order and dtype

    def view(self, dtype: Any = None, type: None = None) -> ndarray:
        """The same memory; with `dtype`, its bytes read as that type."""
        if recorder.hook is not None:
            record("cupy.ndarray.view", (self, dtype), {})
        return view_of(self._array.view() if dtype is None else self._array.view(supported(dtype)), self)

    def astype(
        self, dtype: Any, order: Any = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        """The values in another dtype, cast as C does. CuPy takes neither `casting` nor `subok`."""
        if recorder.hook is not None:
            record("cupy.ndarray.astype", (self, dtype), {"order": order, "copy": copy})
        if casting is not None or subok is not None:
            raise TypeError("casting and subok are not supported yet")
        d = supported(dtype)
        result = quiet(self._array.astype, (d,), {"order": "K" if order is None else order, "copy": copy})
        return self if result is self._array else wrap(result)

    def copy(self, order: Any = "C") -> ndarray:
        if recorder.hook is not None:
            record("cupy.ndarray.copy", (self,), {"order": order})
        return wrap(self._array.copy(order))

    def reshape(self, *shape: Any, order: Any = "C", copy: bool | None = None) -> ndarray:
        """A view if the memory allows, else a copy."""
        if recorder.hook is not None:
            record("cupy.ndarray.reshape", (self, *shape), {"order": order, "copy": copy})
        plain("cupy.ndarray.reshape", shape)
        target = shape[0] if len(shape) == 1 else shape
        source = self._array.copy() if copy else self._array
        result: Host = source.reshape(target, order=order)
        if copy is False and result.size and address(result) != address(source):
            raise ValueError("Unable to avoid creating a copy while reshaping.")
        return adopt(result, (self,))

    def transpose(self, *axes: Any) -> ndarray:
        if recorder.hook is not None:
            record("cupy.ndarray.transpose", (self, *axes), {})
        plain("cupy.ndarray.transpose", axes)
        return view_of(self._array.transpose(*axes), self)

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        if recorder.hook is not None:
            record("cupy.ndarray.swapaxes", (self, axis1, axis2), {})
        plain("cupy.ndarray.swapaxes", (axis1, axis2))
        return view_of(self._array.swapaxes(axis1, axis2), self)

    def fill(self, value: Any) -> None:
        """Every element becomes `value`, a Python scalar or a 0-d array."""
        if recorder.hook is not None:
            record("cupy.ndarray.fill", (self, value), {})
        if type(value) is ndarray and value._array.ndim:
            raise ValueError("non-scalar cupy.ndarray cannot be used for fill")
        CALLS["setitem"](self, ..., value)

    def __pow__(self, other: Any) -> Any:
        # CuPy (14.2) and NumPy take these three powers by shorter ways, which differ at -0.0 and -inf.
        if type(other) is int and other == 2:
            return self._power("cupy.square", "ifc", other)
        if type(other) is float and other in (0.5, 2.0, -1.0):
            short = {0.5: "cupy.sqrt", 2.0: "cupy.square", -1.0: "cupy.reciprocal"}[other]
            return self._power(short, "fc", other)
        return CALLS["cupy.power"](self, other)

    def _power(self, function: str, kinds: str, power: Any) -> Any:
        kept = self._array.dtype.kind in kinds
        return CALLS[function](self, dtype=None if kept else np.result_type(self._array.dtype, power))


# Every operator is a ufunc of CuPy, so that dtypes and refusals are decided in one place.
_UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}
_COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
_BINARY = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "divmod": "divmod",
    "pow": "power",
    "matmul": "matmul",
    "lshift": "left_shift",
    "rshift": "right_shift",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}


def _operator(function: str, form: str) -> Callable[..., Any]:
    def unary(self: ndarray) -> Any:
        return CALLS[function](self)

    def binary(self: ndarray, other: Any) -> Any:
        return CALLS[function](self, other)

    def reflected(self: ndarray, other: Any) -> Any:
        return CALLS[function](other, self)

    def in_place(self: ndarray, other: Any) -> Any:
        return CALLS[function](self, other, self)

    forms: dict[str, Callable[..., Any]] = {"unary": unary, "": binary, "r": reflected, "i": in_place}
    return forms[form]


for _name, _function in _UNARY.items():
    setattr(ndarray, f"__{_name}__", _operator(f"cupy.{_function}", "unary"))
for _name, _function in _COMPARISONS.items():
    setattr(ndarray, f"__{_name}__", _operator(f"cupy.{_function}", ""))
for _name, _function in _BINARY.items():
    for _form in ("", "r", "i"):
        _special = f"__{_form}{_name}__"
        if _special in NAMES["ndarray"]["special"] and _special != "__pow__":
            setattr(ndarray, _special, _operator(f"cupy.{_function}", _form))


# ---------------------------------------------------------------- wrapping

_new = ndarray.__new__


def wrap(array: Host) -> ndarray:
    """A device array that owns what `array` holds."""
    self = _new(ndarray)
    self._array, self.base = array, None
    return self


def _from_host(array: Host) -> ndarray:
    return wrap(array)


def view_of(array: Host, source: ndarray) -> ndarray:
    """A device array on the memory of `source`; its base is the array at the root, as in CuPy."""
    self = _new(ndarray)
    self._array, self.base = array, source if source.base is None else source.base
    return self


def adopt(result: Host, sources: Sequence[ndarray]) -> ndarray:
    """A device array for what a NumPy function returned: a source itself, a view of one, or memory of its own."""
    for source in sources:
        if result is source._array:
            return source
    if result.base is not None:
        owner = root(result)
        for source in sources:
            if root(source._array) is owner:
                return view_of(result, source)
    return wrap(result)


def host_of(where: str, value: Any) -> Host:
    """The NumPy array under a device array; TypeError for anything else."""
    if type(value) is ndarray:
        return value._array
    if isinstance(value, np.ndarray | np.generic):
        raise host_value_refused(where, value)
    raise TypeError(f"{where}: a device array is needed here, not {type(value).__name__}")


def scalar_or_host(where: str, value: Any) -> Any:
    """The NumPy array under a device array, or a Python scalar as it is; TypeError for anything else."""
    if type(value) in SCALARS:
        return value
    return host_of(where, value)


def deliver(where: str, result: Host, out: ndarray) -> ndarray:
    """Write a result into `out=`; TypeError if the dtype is another one, ValueError if the shape is."""
    target = host_of(where, out)
    if target.dtype != result.dtype:
        raise TypeError(f"{where}: out is {target.dtype}, but the result is {result.dtype}")
    if target.shape != result.shape:
        raise ValueError(f"{where}: out has shape {target.shape}, but the result has {result.shape}")
    if overlaps_itself(target):
        raise ValueError(f"{where}: out overlaps itself")
    target[...] = result
    return out
