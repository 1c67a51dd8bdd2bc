"""`cupy.RawKernel`: CUDA C run on the host, thread after thread, where a C++ compiler is installed.

What CuPy takes for granted is checked here: each argument against the parameter it goes to. CuPy passes a NumPy array
by value, a Python int as 64 bits and a float as double, whatever the kernel declares, and of an array its address.
Here a wrong one is a TypeError; so is an array that is not C-contiguous (nor one element that is repeated), unless the
kernel takes strides for it: parameters called `x_0`, `x_1` after a pointer `x`. Only what needs nothing of a GPU can
run: no shared memory, no synchronisation, no textures.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.simulated.array import ndarray

TIMEOUT_S = 60
OPTIONS = ("-O1", "-fwrapv", "-ffp-contract=off", "-fno-math-errno", "-w", "-shared", "-fPIC")


class NoCompiler(RuntimeError):
    """There is nothing here that could compile a kernel."""


class CompileException(Exception):
    """A source is wrong; CuPy's has this name too."""


# What NVRTC knows without being told, as far as the engine's kernels use it.
_HOST = r"""
#define __device__
#define __global__
#define __forceinline__ inline
struct uint3_ { unsigned int x, y, z; };
static thread_local uint3_ gridDim, blockDim, blockIdx, threadIdx;
extern "C" {
#define ONE(name) double name(double); float name##f(float);
#define TWO(name) double name(double, double); float name##f(float, float);
ONE(exp) ONE(exp2) ONE(expm1) ONE(log) ONE(log1p) ONE(log2) ONE(log10) ONE(sin) ONE(cos) ONE(tan) ONE(sinh) ONE(cosh)
ONE(tanh) ONE(asin) ONE(acos) ONE(atan) ONE(asinh) ONE(acosh) ONE(atanh) ONE(erf) ONE(erfc) ONE(sqrt) ONE(fabs)
ONE(floor) ONE(ceil) ONE(trunc) ONE(rint) TWO(pow) TWO(atan2) TWO(hypot) TWO(fmod) TWO(copysign) TWO(fmax) TWO(fmin)
}
"""

_C_TYPES: dict[str, Any] = {
    "bool": (ctypes.c_bool, "?"),
    "signed char": (ctypes.c_int8, "b"),
    "unsigned char": (ctypes.c_uint8, "B"),
    "short": (ctypes.c_int16, "h"),
    "unsigned short": (ctypes.c_uint16, "He"),  # float16 travels as its bits
    "int": (ctypes.c_int32, "i"),
    "unsigned int": (ctypes.c_uint32, "I"),
    "long long": (ctypes.c_int64, "lq"),
    "unsigned long long": (ctypes.c_uint64, "LQ"),
    "float": (ctypes.c_float, "f"),
    "double": (ctypes.c_double, "d"),
}


@cache
def compiler() -> str | None:
    """The C++ compiler of this machine; None where there is none."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "c++", "g++", "clang++"))), None)


@cache
def _folder() -> Path:
    """Where compiled kernels are kept: where CuPy keeps its own, or a folder that goes with the process."""
    kept = os.environ.get("CUPY_CACHE_DIR")
    if kept:
        folder = Path(kept) / "simulated"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
    made = tempfile.TemporaryDirectory(prefix="curlgrad-kernels-")
    _kept.append(made)
    return Path(made.name)


_kept: list[Any] = []


def _declared(code: str, name: str) -> list[tuple[str, str, bool]]:
    """(C type, name, is it a pointer) of each parameter of a kernel."""
    found = re.search(rf'extern "C" __global__ void {re.escape(name)}\s*\(([^)]*)\)', code)
    if found is None:
        raise CompileException(f'there is no extern "C" __global__ void {name}(...) in the source')
    rows = []
    for text in found[1].split(","):
        kind, pointer, called = re.fullmatch(r"\s*(?:const\s+)?([a-z ]+?)\s*(\*?)\s*(\w+)\s*", text).groups()  # type: ignore[union-attr]
        if kind not in _C_TYPES:
            raise CompileException(f"the stand-in knows no parameters of type {kind!r}")
        rows.append((kind, called, bool(pointer)))
    return rows


def build(code: str, names: Sequence[str], options: Sequence[str] = OPTIONS) -> ctypes.CDLL:
    """Kernels of a source as functions of a library, `name_run(grid, block, ...)`.

    Raises NoCompiler or CompileException.
    """
    tool = compiler()
    if tool is None:
        raise NoCompiler("there is no C++ compiler here, with which the simulated device runs kernels")
    lines = [_HOST, code]
    for name in names:
        rows = _declared(code, name)
        taken = ", ".join(f"{kind}{'*' if pointer else ''} {called}" for kind, called, pointer in rows)
        passed = ", ".join(called for _, called, _ in rows)
        lines.append(
            f'extern "C" void {name}_run(unsigned int grid_, unsigned int block_, {taken}) {{\n'
            "  gridDim = {grid_, 1, 1}; blockDim = {block_, 1, 1};\n"
            "  for (blockIdx.x = 0; blockIdx.x < grid_; ++blockIdx.x)\n"
            "    for (threadIdx.x = 0; threadIdx.x < block_; ++threadIdx.x)\n"
            f"      {name}({passed});\n}}"
        )
    text = "\n".join(lines)
    digest = hashlib.sha256("\n".join((tool, *options, text)).encode()).hexdigest()[:32]
    library = _folder() / f"{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as place:
            made = Path(place) / "made.so"
            command = [tool, *options, "-x", "c++", "-std=c++17", "-o", str(made), "-", "-lm"]
            try:
                done = subprocess.run(
                    command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NoCompiler(f"the C++ compiler here does not run: {error}") from error
            if done.returncode:
                raise CompileException(done.stderr[-4000:])
            made.replace(library)
    return ctypes.CDLL(str(library))


class RawKernel:
    """`cupy.RawKernel(code, name, options=(), backend="nvrtc")`, called with (grid, block, args)."""

    __module__ = "engine.simulated"

    def __init__(
        self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc", *, jitify: bool = False
    ) -> None:
        if type(code) is not str or type(name) is not str or type(options) is not tuple:
            raise TypeError("RawKernel takes a source, a name and a tuple of options")
        if backend != "nvrtc" or jitify:
            raise NotImplementedError("the stand-in compiles for nvrtc alone")
        if "--fmad=false" not in options:
            raise NotImplementedError("the stand-in never fuses products and sums: say --fmad=false")
        self.code, self.name, self.options, self.backend = code, name, options, backend
        self._rows: list[tuple[str, str, bool]] = []
        self._strides: dict[str, bool] = {}
        self._run: Any = None

    def compile(self) -> None:
        """Compiles, which the first call does otherwise."""
        library = build(self.code, [self.name])
        weakref.finalize(self, _close, library._handle)
        self.bind(library)

    def bind(self, library: ctypes.CDLL) -> None:
        """Takes the kernel from a library that `build` made of its source."""
        self._rows = _declared(self.code, self.name)
        names = {called for _, called, _ in self._rows}
        self._strides = {called: f"{called}_0" in names for _, called, pointer in self._rows if pointer}
        self._run = getattr(library, f"{self.name}_run")
        self._run.restype = None

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int = 0) -> None:
        if type(grid) is not tuple or type(block) is not tuple or type(args) is not tuple:
            raise TypeError("grid, block and args are tuples")
        if len(grid) != 1 or len(block) != 1 or shared_mem:
            raise NotImplementedError("the stand-in runs kernels of one dimension, without shared memory")
        if not 1 <= block[0] <= 1024 or not 1 <= grid[0] < 1 << 31:
            raise ValueError(f"no GPU runs a grid of {grid[0]} blocks of {block[0]} threads")
        if self._run is None:
            self.compile()
        if len(args) != len(self._rows):
            raise TypeError(f"{self.name} takes {len(self._rows)} arguments, and got {len(args)}")
        passed = [self._passed(row, value) for row, value in zip(self._rows, args, strict=True)]
        self._run(ctypes.c_uint(int(grid[0])), ctypes.c_uint(int(block[0])), *passed)

    def _passed(self, row: tuple[str, str, bool], value: Any) -> Any:
        kind, called, pointer = row
        c, chars = _C_TYPES[kind]
        where = f"{self.name}: {called}"
        if isinstance(value, np.ndarray):
            raise TypeError(f"{where} is a NumPy array: CuPy would pass its bytes by value")
        if pointer:
            if type(value) is not ndarray:
                raise TypeError(f"{where} is a pointer, and got {type(value).__name__}")
            if value.dtype.char not in chars:
                raise TypeError(f"{where} points to {kind}, and the array is {value.dtype}")
            if not value.flags.c_contiguous and any(value.strides) and not self._strides[called]:
                raise TypeError(f"{where} is not C-contiguous, and the kernel takes no strides for it")
            return ctypes.c_void_p(value.data.ptr)
        if type(value) is ndarray:
            raise TypeError(f"{where} is {kind}, and got an array: CuPy would pass its address")
        if type(value) in (int, float, bool):  # as CuPy widens them
            value = {int: np.int64, float: np.float64, bool: np.bool_}[type(value)](value)
        if not isinstance(value, np.generic):
            raise TypeError(f"Unsupported type {type(value)}")
        if value.dtype.char not in chars:
            raise TypeError(f"{where} is {kind}, and got {value.dtype}")
        return c(value.view(np.uint16).item() if value.dtype.char == "e" else value.item())


def _close(handle: int) -> None:
    """Lets go of a library that no kernel uses any more."""
    import _ctypes

    if hasattr(_ctypes, "dlclose"):
        _ctypes.dlclose(handle)


__all__ = ["CompileException", "NoCompiler", "RawKernel", "build", "compiler"]
