"""Array modules and devices. The only file that names cupy, and where bfloat16 storage is widened and narrowed.

A `Backend` is one device: `xp` is its NumPy-like module, `sp` its SciPy-like one. Kernels use these two and the few
methods below, which hide what NumPy and CuPy do differently.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engine import kernels
from engine.dtypes import COMPLEX, DType, bfloat16, float16, float32, from_numpy
from engine.errors import Hint, NoSuchDevice

Array = Any  # an ndarray of either module


class Scipy:
    """SciPy's submodules, imported when first used: `sp.special.erf`."""

    def __init__(self, root: str) -> None:
        self._root = root

    def __getattr__(self, name: str) -> Any:
        module = importlib.import_module(f"{self._root}.{name}")
        setattr(self, name, module)
        return module


class Backend:
    """A device with NumPy's semantics: the CPU."""

    def __init__(self, name: str = "cpu") -> None:
        self.name = name
        self.kind = name.partition(":")[0]
        self.xp: Any = np
        self.sp: Any = Scipy("scipy")
        self.simulated = False
        self.ndarray: Any = np.ndarray

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"

    # ------------------------------------------------ memory

    def view(self, flat: Array, d: np.dtype[Any], shape: Sequence[int], offset: int, strides: Sequence[int]) -> Array:
        """An array on the memory of `flat` (dense), `offset` and `strides` in bytes."""
        return np.ndarray(shape, d, flat, offset, strides)

    def flat(self, array: Array) -> Array:
        """The memory of a dense array as a C-contiguous one, without a copy."""
        if array.flags.c_contiguous:
            return array
        return array.transpose(sorted(range(array.ndim), key=lambda i: -array.strides[i]))

    def is_fresh(self, array: Array, others: Iterable[Any]) -> bool:
        """Whether nobody else can see this array's memory: not a view, and none of `others`."""
        return array.base is None and not any(array is x for x in others)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """The values in host memory; no copy where they are there already."""
        return array  # type: ignore[no-any-return]

    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        """The values in this device's memory; no copy where they are there already."""
        return array

    def asarray(self, value: Any, d: np.dtype[Any]) -> Array:
        """A 0-d or nested Python value as an array of this device."""
        return self.xp.asarray(value, dtype=d)

    # ------------------------------------------------ dtypes

    def widen(self, array: Array, d: DType) -> Array:
        """The array in the dtype that kernels compute in: float32 for the two reduced ones."""
        if d is bfloat16:
            wide = _converted(array, np.uint32)
            wide <<= 16
            return wide.view(np.float32)
        if d is float16:
            return _converted(array, np.float32)
        return array

    def narrow_bfloat16(self, array: Array) -> Array:
        """float32 to bfloat16 bits, to nearest even; a NaN stays one."""
        return kernels.narrow_bfloat16(self.xp, array)

    def cast(self, array: Array, source: DType, target: DType) -> Array:
        """The values of storage dtype `source` converted as C does, in storage dtype `target`; itself where equal.

        Like PyTorch, everything reaches float16 and bfloat16 through float32; a complex number loses its
        imaginary part.
        """
        if source is target:
            return array
        if source is bfloat16:
            array, source = self.widen(array, source), float32
        if source.category == COMPLEX and target.category != COMPLEX:
            if target.name == "bool":
                return array != 0
            array = array.real
        if target is bfloat16:
            return self.narrow_bfloat16(_converted(array, np.float32))
        if target is float16 and source is not float32:
            array = _converted(array, np.float32)
        return _converted(array, target.np)

    # ------------------------------------------------ what NumPy and CuPy call differently

    def scatter_add(self, target: Array, index: Any, values: Array) -> None:
        """target[index] += values, duplicates adding up."""
        self.xp.add.at(target, index, values)

    def philox(self, seed: int, offset: int, n: int) -> tuple[Array, Array, Array, Array]:
        """n blocks of four random words (engine.kernels.philox)."""
        return kernels.philox(self.xp, seed, offset, n)

    def synchronize(self) -> None:
        """Waits for the device. The CPU is never behind."""


def _converted(array: Array, d: Any) -> Array:
    """The array in another dtype: in its own layout, but in row-major order where it is expanded, as in PyTorch."""
    return array.astype(d, order="C" if 0 in array.strides else "K")


class ModuleBackend(Backend):
    """A device behind a CuPy-like module: CuPy itself, or the strict stand-in of tests and practice."""

    def __init__(self, name: str, xp: Any, sp: Any, *, simulated: bool) -> None:
        super().__init__(name)
        self.xp, self.sp, self.simulated = xp, sp, simulated
        self.ndarray = xp.ndarray

    def view(self, flat: Array, d: np.dtype[Any], shape: Sequence[int], offset: int, strides: Sequence[int]) -> Array:
        return self.xp.ndarray(shape, d, flat.data + offset, strides)

    def is_fresh(self, array: Array, others: Iterable[Any]) -> bool:
        # A view made from a pointer has no base here, but it shares the allocation.
        if array.base is not None:
            return False
        memory = array.data.mem
        return not any(isinstance(x, self.ndarray) and x.data.mem == memory for x in others)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        return array.get()  # type: ignore[no-any-return]

    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        return self.xp.asarray(array)

    def scatter_add(self, target: Array, index: Any, values: Array) -> None:
        """`add.at` there knows no complex numbers and no small integers: these go by parts, or through int64."""
        kind, size = target.dtype.kind, target.dtype.itemsize
        if kind == "c":
            self.xp.add.at(target.real, index, values.real)
            self.xp.add.at(target.imag, index, values.imag)
        elif kind in "biu" and size < 4:
            wide = target.astype(np.int64)
            self.xp.add.at(wide, index, values.astype(np.int64) if hasattr(values, "astype") else values)
            target[...] = wide.astype(target.dtype)
        else:
            self.xp.add.at(target, index, values)


def tune_allocator() -> None:
    """Lets glibc keep freed blocks of up to 32 MiB, called once in a process that computes.

    By default each large array is mapped and unmapped anew, and its pages are faulted in and zeroed again: for
    element-wise operations that costs as much as the arithmetic. Elsewhere than on glibc nothing is done.
    """
    import ctypes

    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return
    m_mmap_threshold, m_trim_threshold, m_top_pad = -3, -1, -2
    mallopt(m_mmap_threshold, 32 << 20)
    mallopt(m_trim_threshold, 512 << 20)
    mallopt(m_top_pad, 64 << 20)


CPU = Backend()
_BACKENDS: dict[str, Backend] = {"cpu": CPU}


def simulated_cuda(name: str = "cuda:0") -> Backend:
    """The strict CuPy stand-in as a device: what tests run CUDA code on."""
    from engine import simulated

    if name not in _BACKENDS:
        _BACKENDS[name] = ModuleBackend(name, simulated.xp, simulated.sp, simulated=True)
    return _BACKENDS[name]


def canonical(name: str) -> str:
    """ "cuda" is "cuda:0"; "cpu:0" is "cpu"."""
    if name == "cuda":
        return "cuda:0"
    return "cpu" if name == "cpu:0" else name


def find(name: str, available: Sequence[str]) -> Backend:
    """The backend of a device. Raises NoSuchDevice with the devices that there are."""
    full = canonical(name)
    if full not in available:
        raise NoSuchDevice(
            f"this server has no device {name!r}: it has {', '.join(available)}",
            hint=Hint("device-here", devices=list(available)),
            param="device",
        )
    return _BACKENDS[full]


__all__ = ["CPU", "Array", "Backend", "ModuleBackend", "canonical", "find", "from_numpy", "simulated_cuda"]
