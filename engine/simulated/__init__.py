"""A strict stand-in for CuPy: its module, its array class and its refusals, with NumPy underneath.

It is the device `cuda` of tests and of practice. It is meant to be stricter than CuPy and never laxer, so that code
which runs here has no reason to fail there: what a CuPy release lacks is missing, what it refuses is refused, and what
it leaves undefined is refused or comes out in the less convenient way. What CuPy offers is not remembered but read off
an installed one (`names.json`, written by `scripts/cupy_names.py`).

    from engine import simulated
    xp, sp = simulated.xp, simulated.sp           # as `import cupy` and `import cupyx.scipy`
    a = xp.asarray(host_array)                    # to the device; lists and Python scalars too
    a.get(), xp.asnumpy(a), a.item(), a.tolist()  # back: the only ways
    xp.ndarray(shape, dtype, a.data + nbytes, strides)   # a view of a's memory, strides in bytes
    xp.add.at(a, index, values)                   # scatter-add; also subtract, maximum, minimum, bitwise_*
    with simulated.recording(calls.add): ...      # every call as hashable data: name, operands, keywords

What CuPy does that NumPy does not, and that an author of operations must know (CuPy 14.2, from its source):

Indices and assignment
- An index in an integer array that is out of range wraps around, silently: getitem, setitem, `take`, `put`,
  `take_along_axis`, `add.at`. (A Python int out of range is an IndexError.)
- Of several values assigned to one place any may win. Here the first does; NumPy's last never.
- `add.at` exists for int32, int64, uint32, uint64, float16, float32 and float64; not for complex (use `real` and
  `imag`), bool, int8, int16, uint8, uint16. `maximum.at` and `minimum.at` lack float16 as well. `cupyx.scatter_add` is
  deprecated in its favour and warns.
- Atomic additions of floats come in any order, so `add.at` differs in the last bits from run to run.
- `a[1:] = a[:-1]` may be a memcpy between overlapping ranges: undefined. Overlap of target and value is refused here,
  and writing to a broadcast view too.
- Elements of a host array or a list do index and can be assigned in CuPy, at the price of a hidden copy; refused here.

Dtypes
- Python scalars are weak (NEP 50), but a Python int that does not fit is an OverflowError also where PyTorch wraps.
- Results of ufuncs are in C order always, whatever the order of their operands: NumPy keeps theirs.
- `logical_and`, `logical_or`, `logical_xor` and `logical_not` have no complex loops; `clip` has none either.
- `clip` ignores a limit that is NaN (NumPy and PyTorch answer NaN), and `clip(bool, None, x)` is a TypeError.
- `subtract`, `negative` and `positive` refuse bool; `gcd` and `lcm` too.
- `angle` of int8 is float16 and of bool float64; `conjugate` of bool is int8; `sign` of bool is int8.
- `out=` of another dtype is a TypeError here; CuPy's ufuncs cast within the same kind, its reductions anything.
- `where=` is known to no function but `copyto`; `initial=` to none. `sort` takes `kind=None` or "stable" only.
- `linalg` refuses float16; `matmul` takes it and computes in float32.

Shapes and memory
- Reductions and every 0-d result are 0-d arrays. `a.T` of one axis, `a.squeeze()` with nothing to do, `a.real` and
  `a.conj()` of a real array, `astype(copy=False)` and `ascontiguousarray` may be `a` itself.
- An array made from a pointer, and `as_strided`, have `base` None and say they own their data. Ask the storage.
- `ascontiguousarray` of a 0-d array has shape (1,). `zeros_like(a, shape=())` ignores the shape: refused here.
- `empty` is not zero. It is full of NaN here.
- `a.sort()` wants a C-contiguous array. `argsort` of a 0-d array has shape (1,). `partition` may sort everything.
- `lexsort` takes one array of keys, no tuple. `einsum` takes no `out`. `percentile` knows five methods.
- `diag` copies the diagonal; `diagonal` is a view that can be written to.

Linear algebra
- Nothing is raised when a factorisation fails: `inv` and `solve` of a singular matrix, `cholesky` of one that is not
  positive definite, `svd` of a NaN give rubbish (NaN here). Look at the result, or at `slogdet`.
- `solve(a, b)`: `b` of one axis serves all matrices; else its batch must equal that of `a`, without broadcasting.
- `vecdot`, `unstack`, `nanquantile`, `linalg.vector_norm`, `linalg.matrix_norm`, `linalg.svdvals`, `linalg.multi_dot`,
  `linalg.outer`, `linalg.diagonal`, `linalg.trace` and upper-triangular `cholesky` do not exist.
- `scipy.linalg` has `lu`, `lu_factor`, `lu_solve` (one matrix each), `solve_triangular` (batched), `expm` and the
  special matrices; no `cholesky`, `solve`, `logm`, `sqrtm`. `scipy.special` has no `jv`, `iv`, `kv`, `airy`,
  `spherical_jn`, `dawsn` or orthogonal polynomials.

Functions of `cupyx.scipy` that no line here is written for are served by SciPy's of the same name (`generic.py`):
names, parameters and the border are CuPy's there too; dtypes of results, and what is refused beyond that, are SciPy's.

`RawKernel` runs CUDA C on the host, where a C++ compiler is installed (`raw.py`). Where CuPy does more than the
stand-in (other kernels, streams, random numbers, a few rare parameters) the stand-in says so: `NotOffered` is an
AttributeError, NotImplementedError a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np

from engine.simulated.array import CALLS, Call, ndarray, recorder
from engine.simulated.functions import TABLE, delegate
from engine.simulated.generic import generic
from engine.simulated.linear import LINALG, fft, is_written, linalg, scipy_function
from engine.simulated.memory import Memory, MemoryPointer
from engine.simulated.methods import add_methods
from engine.simulated.names import NAMES, VERSION, NotOffered, kind_of
from engine.simulated.raw import RawKernel
from engine.simulated.routines import ROUTINES, as_strided, routine, sliding_window_view
from engine.simulated.ufuncs import make, ufunc


class Namespace:
    """A module of CuPy as the stand-in has it: names are made when first used, and a name CuPy lacks has none."""

    def __init__(self, module: str, build: Callable[[str], Any]) -> None:
        self.__name__ = module
        self._build = build

    def __getattr__(self, name: str) -> Any:
        module = self.__name__
        kind = kind_of(module, name)
        if kind is None:
            raise AttributeError(f"{module} of CuPy {VERSION} has no {name!r}")
        try:
            value = self._build(name)
        except KeyError:
            raise NotOffered(f"{module} has {name!r}, but the stand-in does not offer it") from None
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        record = NAMES["modules"][self.__name__]
        return sorted([*record["functions"], *record["ufuncs"], *record["others"]])

    def __repr__(self) -> str:
        return f"<module {self.__name__!r} of the stand-in for CuPy {VERSION}>"


_OTHERS: dict[str, Any] = {
    "ndarray": ndarray,
    "ufunc": ufunc,
    "newaxis": None,
    "AxisError": np.exceptions.AxisError,
    "RawKernel": RawKernel,
}


def _other(name: str) -> Any:
    """Types of scalars, constants, `dtype`, `finfo`: NumPy's own, in CuPy too."""
    if name in _OTHERS:
        return _OTHERS[name]
    value = getattr(np, name, NotOffered)
    if isinstance(value, float) or (isinstance(value, type) and issubclass(value, np.generic | np.dtype)):
        return value
    if value in (np.finfo, np.iinfo, np.ndindex):
        return value
    raise KeyError(name)


def _top(name: str) -> Any:
    kind = kind_of("cupy", name)
    if kind == "other":
        return _other(name)
    if kind == "ufunc" or name == "matmul":
        return CALLS[f"cupy.{name}"]
    if name in ROUTINES:
        return routine("cupy", name, ROUTINES[name])
    return delegate(name) if name in TABLE else generic("cupy", name)


def _linalg(name: str) -> Any:
    return np.linalg.LinAlgError if name == "LinAlgError" else linalg(name)


def _tricks(name: str) -> Any:
    tricks: dict[str, Callable[..., Any]] = {"as_strided": as_strided, "sliding_window_view": sliding_window_view}
    return routine("cupy.lib.stride_tricks", name, tricks[name])


def _scipy(part: str) -> Namespace:
    module = f"cupyx.scipy.{part}"

    def build(name: str) -> Any:
        kind = kind_of(module, name)
        if kind == "other":
            return _namespaces(module)[name]
        if kind == "function":
            return scipy_function(part, name) if is_written(part, name) else generic(module, name)
        target = getattr(__import__("scipy", fromlist=[part]), part)
        return make(module, name, getattr(target, name, None) or _missing(name))

    return Namespace(module, build)


@cache
def _namespaces(module: str) -> dict[str, Namespace]:
    """The modules within one of `cupyx.scipy`, whose functions are all served generically."""
    inner = [name for name in NAMES["modules"] if name.rpartition(".")[0] == module]
    return {name.rpartition(".")[2]: Namespace(name, partial(generic, name)) for name in inner}


def _missing(name: str) -> Any:
    raise KeyError(name)


class _Root:
    """A package whose subpackages are namespaces: `cupyx.scipy`, `cupy.lib`."""

    def __init__(self, name: str, **parts: Any) -> None:
        self.__name__ = name
        self.__dict__.update(parts)

    def __getattr__(self, name: str) -> Any:
        raise NotOffered(f"{self.__name__}.{name} is not offered by the stand-in")


xp = Namespace("cupy", _top)
_OTHERS["linalg"] = Namespace("cupy.linalg", _linalg)
_OTHERS["fft"] = Namespace("cupy.fft", fft)
_OTHERS["lib"] = _Root("cupy.lib", stride_tricks=Namespace("cupy.lib.stride_tricks", _tricks))
sp = _Root("cupyx.scipy", **{part: _scipy(part) for part in ("special", "linalg", "signal", "ndimage", "fft")})

CALLS["module"] = lambda: xp
for _name in (*ROUTINES, *TABLE):
    # Made when called: most programs use a handful of them.
    CALLS.setdefault(f"cupy.{_name}", lambda *a, _name=_name, **k: getattr(xp, _name)(*a, **k))
add_methods(xp)


def scatter_add(a: ndarray, slices: Any, value: Any) -> None:
    """`cupy.add.at(a, slices, value)`, which is what `cupyx.scatter_add` warns to use instead of itself."""
    xp.add.at(a, slices, value)


def scatter_max(a: ndarray, slices: Any, value: Any) -> None:
    """`cupy.maximum.at(a, slices, value)`."""
    xp.maximum.at(a, slices, value)


def scatter_min(a: ndarray, slices: Any, value: Any) -> None:
    """`cupy.minimum.at(a, slices, value)`."""
    xp.minimum.at(a, slices, value)


@contextmanager
def recording(hook: Callable[[Call], None]) -> Iterator[None]:
    """Tell `hook` of every call of a function, ufunc, method or index made meanwhile. One hook at a time."""
    before = recorder.hook
    recorder.hook = hook
    try:
        yield
    finally:
        recorder.hook = before


__all__ = [
    "LINALG",
    "VERSION",
    "Call",
    "Memory",
    "MemoryPointer",
    "Namespace",
    "NotOffered",
    "ndarray",
    "recorder",
    "recording",
    "scatter_add",
    "scatter_max",
    "scatter_min",
    "sp",
    "xp",
]
