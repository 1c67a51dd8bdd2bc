"""Array modules and devices. The only file that names cupy, and where bfloat16 storage is widened and narrowed.

A `Backend` is one device: `xp` is its NumPy-like module, `sp` its SciPy-like one. Kernels use these two and the few
methods below, which hide what NumPy and CuPy do differently.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import logging
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine import compiled, kernels, processor
from engine.dtypes import COMPLEX, DType, bfloat16, float16, float32, from_numpy
from engine.errors import DeviceLost, EngineError, Hint, NoSuchDevice, OutOfMemory
from engine.fused.launch import Kernels

log = logging.getLogger("curlgrad.backend")

Array = Any  # an ndarray of either module

_ARRAYS: set[type] = {np.ndarray}  # the array classes of all devices


def is_array(x: Any) -> bool:
    """Whether this is an array, of whichever device."""
    return type(x) in _ARRAYS or isinstance(x, np.ndarray)


# Of fewer elements a kernel is NumPy's whatever is installed: there, calls cost and not loops.
COMPILED_FROM = 1024


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
        self.kernels: Mapping[str, compiled.Kernel] = {}
        # Whether a float32 matrix by a transposed one is slow here: ops/products.py goes around it.
        self.slow_at_transposed = self.kind == "cpu" and _openblas_with_avx512()

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

    def axpy(self, a: float, x: Array, y: Array) -> None:
        """y += a * x in one pass that rounds once, on the CPU: float32 or float64, contiguous, memory apart."""
        blas = self.sp.linalg.blas
        (blas.saxpy if y.dtype.char == "f" else blas.daxpy)(x.reshape(-1), y.reshape(-1), None, a)

    # ------------------------------------------------ compiled kernels

    def compile(self) -> bool:
        """Takes compiled kernels into use where the extra for them is installed; whether it is."""
        if compiled.available():
            self.kernels = compiled.load()
        return bool(self.kernels)

    def compiled(self, name: str, *arrays: Array) -> Callable[..., Any] | None:
        """The compiled kernel of this name for these arrays, or None: then NumPy has to do.

        The arrays must be C-contiguous, of one dtype that the kernel takes, and the first not small.
        """
        found = self.kernels.get(name)
        if found is None or arrays[0].size < COMPILED_FROM:
            return None
        d = arrays[0].dtype
        if d not in found.dtypes or not all(a.dtype == d and a.flags.c_contiguous for a in arrays):
            return None
        return found.run

    def elements(self, name: str, arrays: Sequence[Array], out: Array, *numbers: float) -> bool:
        """Has a compiled kernel write `out`, element by element, of arrays of its shape; False where there is none."""
        run = self.compiled(name, *arrays, out)
        if run is None:
            return False
        run(*[a.reshape(-1) for a in (*arrays, out)], *numbers)
        return True

    def philox(self, seed: int, offset: int, n: int) -> tuple[Array, Array, Array, Array]:
        """n blocks of four random words (engine.kernels.philox)."""
        return kernels.philox(self.xp, seed, offset, n)

    # ------------------------------------------------ the device itself

    def begin(self, limit: int = 0) -> None:
        """Makes the device ready in the thread that will compute. Raises NoSuchDevice where it cannot compute.

        `limit`: bytes that all arrays may take; 0 for the device's own choice.
        """

    def synchronize(self) -> None:
        """Waits for the device. The CPU is never behind."""

    def memory(self) -> dict[str, int] | None:
        """Bytes of the device's memory: `total`, `free`, and of this process: `used` by arrays, `held`, the `limit`."""
        return None

    def free_unused(self) -> None:
        """Gives memory that no array uses back to the device."""

    def fault(self, problem: BaseException) -> EngineError | None:
        """What an exception of the device's library means: OutOfMemory, DeviceLost; None where it is a bug of ours."""
        return None

    @cached_property
    def model(self) -> str:
        """What the device is, as its maker calls it."""
        with contextlib.suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        return platform.processor() or platform.machine()


def _converted(array: Array, d: Any) -> Array:
    """The array in another dtype: in its own layout, but in row-major order where it is expanded, as in PyTorch."""
    return array.astype(d, order="C" if 0 in array.strides else "K")


class ModuleBackend(Backend):
    """A device behind a CuPy-like module: CuPy itself, or the strict stand-in of tests and practice."""

    def __init__(self, name: str, xp: Any, sp: Any, *, simulated: bool) -> None:
        super().__init__(name)
        self.xp, self.sp, self.simulated = xp, sp, simulated
        self.ndarray = xp.ndarray
        self.chains = Kernels(xp, self.sp)
        _ARRAYS.add(xp.ndarray)

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

    @cached_property
    def model(self) -> str:
        return f"a simulation of CUDA on {CPU.model}"


class CudaBackend(ModuleBackend):
    """A GPU, by CuPy. `cupy` is the module, or what stands for it in tests.

    Errors of CUDA come late: a kernel that fails is noticed by whatever next waits for the device. Some of them leave
    the process's context unusable for good, and CUDA does not say which; so after any of them `check` is asked.
    """

    def __init__(self, name: str, cupy: Any, sp: Any = None) -> None:
        super().__init__(name, cupy, sp or Scipy("cupyx.scipy"), simulated=False)
        self.number = int(name.partition(":")[2])
        self._cuda = cupy.cuda
        self._pool = cupy.get_default_memory_pool()
        self._out_of_memory = cupy.cuda.memory.OutOfMemoryError
        self._kernels: dict[str, Any] = {}
        self.limit = 0

    def begin(self, limit: int = 0) -> None:
        """Takes the GPU for this thread, bounds its memory, and has it compute something.

        By default nine tenths of what is free now may be taken. (CuPy's own limit is per device and process.)
        """
        try:
            self._cuda.Device(self.number).use()
            free, _ = self._cuda.runtime.memGetInfo()
            self.limit = limit or free * 9 // 10
            self._pool.set_limit(size=self.limit)
            self._cuda.set_allocator(self.allocate)
            self.check()
        except Exception as error:
            raise NoSuchDevice(
                f"{self.name} is there, but does not compute: {type(error).__name__}: {error}", param="workers"
            ) from error

    def check(self) -> None:
        """Has the GPU compile a kernel, multiply with cuBLAS and add up, and compares. Raises whatever goes wrong."""
        xp = self.xp
        x = xp.arange(4096, dtype=np.float32).reshape(64, 64)
        made = float(((x * 0.5 + 1.0) @ xp.ones((64, 1), dtype=np.float32)).sum())
        self.synchronize()
        if made != 4096 * (0.5 * 4095 / 2 + 1):
            raise RuntimeError(f"a sum of {4096 * (0.5 * 4095 / 2 + 1)} came out as {made}")

    def synchronize(self) -> None:
        self._cuda.get_current_stream().synchronize()

    # ------------------------------------------------ memory

    def allocate(self, size: int) -> Any:
        """CuPy's allocator: the pool; where that has nothing left, what nobody uses is given back, and it is asked
        once more. Raises OutOfMemory with what was asked and what is held."""
        try:
            return self._pool.malloc(size)
        except self._out_of_memory:
            pass  # what it holds of the frames it came through goes first
        self.free_unused()
        try:
            return self._pool.malloc(size)
        except self._out_of_memory:
            pass
        raise self.no_memory(size)

    def free_unused(self) -> None:
        gc.collect()  # arrays in cycles, such as those of a caught exception's frames
        self._pool.free_all_blocks()

    def no_memory(self, asked: int | None) -> OutOfMemory:
        """The error, with what is held and free."""
        held, free = int(self._pool.used_bytes()), self._free()
        wanted = f"this needs {asked} bytes" if asked is not None else "a library of CUDA found no memory"
        error = OutOfMemory(
            f"{wanted}, but of the {self.limit} bytes that may be taken on {self.name} {held} are held and {free} free",
            hint=Hint("free-memory", whose="device"),
            limit=self.limit,
            held=held,
            free=free,
        )
        if asked is not None:
            error.facts["asked"] = asked
        return error

    def _free(self) -> int:
        """What could still be allocated: within the limit, and on the device, blocks of the pool included."""
        within = self.limit - int(self._pool.used_bytes())
        try:
            on_device = int(self._cuda.runtime.memGetInfo()[0]) + int(self._pool.free_bytes())
        except Exception as error:  # noqa: BLE001  it is asked while something else has failed already
            log.warning("%s does not say what memory is free: %s", self.name, error)
            on_device = within
        return max(0, min(within, on_device))

    def memory(self) -> dict[str, int]:
        free, total = self._cuda.runtime.memGetInfo()
        pool = self._pool
        return {
            "total": int(total),
            "free": int(free),
            "used": int(pool.used_bytes()),
            "held": int(pool.total_bytes()),
            "limit": self.limit,
        }

    # ------------------------------------------------ what may happen

    def fault(self, problem: BaseException) -> EngineError | None:
        if not type(problem).__module__.startswith(("cupy", "cupy_backends")):
            return None
        text = f"{type(problem).__name__}: {problem}"
        if isinstance(problem, self._out_of_memory) or "MemoryAllocation" in text or "ALLOC_FAILED" in text:
            self.free_unused()
            return self.no_memory(None)
        try:
            self.check()
        except Exception as error:  # noqa: BLE001  whatever it is: the device does not compute
            log.error("%s is lost: %s; then %s: %s", self.name, text, type(error).__name__, error)
            return DeviceLost(
                f"{self.name} failed ({text}); its worker starts anew, and what it held is gone",
                code="not-applied",
                hint=Hint("device-lost", device=self.name),
                why=text,
            )
        return None

    @cached_property
    def model(self) -> str:
        name = self._cuda.runtime.getDeviceProperties(self.number)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    # ------------------------------------------------ kernels of ours

    def _kernel(self, kernel: kernels.Kernel) -> Any:
        made = self._kernels.get(kernel.name)
        if made is None:
            made = self._kernels[kernel.name] = self.xp.ElementwiseKernel(
                kernel.inputs, kernel.outputs, kernel.body, kernel.name, preamble=kernel.preamble
            )
        return made

    def narrow_bfloat16(self, array: Array) -> Array:
        return self._kernel(kernels.NARROW)(array.view(np.uint32))

    def philox(self, seed: int, offset: int, n: int) -> tuple[Array, Array, Array, Array]:
        run = self._kernel(kernels.PHILOX)
        made: tuple[Array, Array, Array, Array] = run(np.uint64(seed), np.uint64(offset), size=n)
        return made


@cache
def _openblas_with_avx512() -> bool:
    """Whether NumPy's products are OpenBLAS's with AVX-512, as far as NumPy tells."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    core = (processor.CHOSEN or "").lower()
    features = getattr(importlib.import_module("numpy._core._multiarray_umath"), "__cpu_features__", {})
    return (
        "openblas" in blas
        and core in ("", "skylakex", "cooperlake", "sapphirerapids")
        and bool(features.get("AVX512_SKX"))
    )


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


def release_free_memory() -> None:
    """Gives the pages of freed blocks back to the system; what is computed next pays for them again. On glibc."""
    import ctypes

    try:
        malloc_trim = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return
    malloc_trim.argtypes = (ctypes.c_size_t,)
    malloc_trim(0)


CPU = Backend()
_BACKENDS: dict[str, Backend] = {"cpu": CPU}


def simulated_cuda(name: str = "cuda:0") -> Backend:
    """The strict CuPy stand-in as a device: what tests run CUDA code on."""
    from engine import simulated

    if name not in _BACKENDS:
        _BACKENDS[name] = ModuleBackend(name, simulated.xp, simulated.sp, simulated=True)
    return _BACKENDS[name]


def real_cuda(name: str) -> Backend:
    """A GPU of this machine, CuPy being imported now. Raises NoSuchDevice, saying what is missing."""
    known = _BACKENDS.get(name)
    if isinstance(known, CudaBackend):
        return known
    cupy, why = _cupy()
    count = 0 if cupy is None else int(cupy.cuda.runtime.getDeviceCount())
    if cupy is None or int(name.partition(":")[2]) >= count:
        why = why or f"CUDA sees {count} device{'s' if count > 1 else ''}: cuda:0 to cuda:{count - 1}"
        raise NoSuchDevice(f"there is no device {name} on this machine: {why}", param="workers")
    _BACKENDS[name] = made = CudaBackend(name, cupy)
    return made


def _cupy() -> tuple[Any, str]:
    """CuPy where it can compute; else None and the reason, in words that say what to do."""
    if importlib.util.find_spec("cupy") is None:
        return None, (
            "CuPy is not installed; `make serve CUDA=12` (or 13) installs it, "
            "and --workers practice-cuda simulates a device"
        )
    try:
        cupy = importlib.import_module("cupy")
        if cupy.cuda.is_available():
            return cupy, ""
    except Exception as error:  # noqa: BLE001  an import of compiled code raises what it likes
        return None, f"CuPy cannot be imported ({type(error).__name__}: {error})"
    return None, "CuPy finds no CUDA device: is there an NVIDIA GPU, with a driver that is new enough?"


def cuda_devices() -> list[str]:
    """The GPUs of this machine that CuPy can compute on; none where anything is missing. Imports CuPy."""
    cupy, _ = _cupy()
    return [] if cupy is None else [f"cuda:{i}" for i in range(int(cupy.cuda.runtime.getDeviceCount()))]


def canonical(name: str) -> str:
    """ "cuda" is "cuda:0"; "cpu:0" is "cpu"."""
    if name == "cuda":
        return "cuda:0"
    return "cpu" if name == "cpu:0" else name


def devices_hint(asked: str, have: Sequence[str]) -> Hint:
    """What to do where a device is not: the ones that are; where CUDA was asked of a server without, how to get it."""
    lacks_cuda = asked.startswith("cuda") and not any(name.startswith("cuda") for name in have)
    return Hint("no-cuda" if lacks_cuda else "device-here", devices=list(have))


def find(name: str, available: Sequence[str], offered: Sequence[str] | None = None) -> Backend:
    """The backend of a device of this process. Raises NoSuchDevice with the devices that the server has (`offered`)."""
    full = canonical(name)
    if full not in available:
        have = list(offered or available)
        # What the server has and this worker has not: the session may move to where it is.
        raise NoSuchDevice(
            f"this server has no device {name!r}: it has {', '.join(have)}"
            if full not in have
            else f"the session is on a worker without {full}: that has {', '.join(available)}",
            hint=Hint("device-elsewhere", device=full) if full in have else devices_hint(full, have),
            param="device",
            device=full,
        )
    return _BACKENDS[full]


__all__ = [
    "CPU",
    "Array",
    "Backend",
    "CudaBackend",
    "ModuleBackend",
    "canonical",
    "cuda_devices",
    "devices_hint",
    "find",
    "from_numpy",
    "is_array",
    "real_cuda",
    "simulated_cuda",
]
