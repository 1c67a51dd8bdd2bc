"""A GPU behind CuPy, with a CuPy of the tests' own: memory that runs out, kernels that fail, a device that is lost.

Nothing here has run on a GPU; `make test-gpu` does that. What is held here is what this project does with what CuPy
says: allocators, limits, errors, in the order in which CuPy would raise them.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine import backend, kernels, simulated
from engine.backend import CudaBackend
from engine.errors import DeviceLost, NoSuchDevice, OutOfMemory
from engine.limits import Limits
from engine.workers import making
from engine.workers.gpus import find_gpus


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory's."""


class CUDARuntimeError(RuntimeError):
    """As cupy_backends.cuda.api.runtime's."""


OutOfMemoryError.__module__ = "cupy.cuda.memory"
CUDARuntimeError.__module__ = "cupy_backends.cuda.api.runtime"


class Pool:
    """CuPy's pool: `held` bytes, of which `unused` are free blocks that a caller may give back."""

    def __init__(self, size: int) -> None:
        self.size, self.used, self.unused = size, 0, 0
        self.limit = 0
        self.calls: list[Any] = []

    def set_limit(self, size: int) -> None:
        self.limit = size

    def malloc(self, size: int) -> str:
        self.calls.append(size)
        if self.used + self.unused + size > min(self.size, self.limit or self.size):
            raise OutOfMemoryError(f"Out of memory allocating {size} bytes")
        self.used += size
        return f"{size} bytes"

    def free_all_blocks(self) -> None:
        self.calls.append("free")
        self.unused = 0

    def used_bytes(self) -> int:
        return self.used

    def free_bytes(self) -> int:
        return self.unused

    def total_bytes(self) -> int:
        return self.used + self.unused


class FakeCupy:
    """What the backend takes from CuPy, over the strict stand-in; `broken` is what every kernel raises."""

    def __init__(self, size: int = 1000, count: int = 1) -> None:
        self.pool, self.broken, self.used_device = Pool(size), None, None
        self.compiled: list[str] = []
        runtime = SimpleNamespace(
            memGetInfo=lambda: (size - self.pool.total_bytes(), size),
            getDeviceCount=lambda: count,
            getDeviceProperties=lambda number: {"name": b"NVIDIA Test " + str(number).encode()},
        )
        self.cuda = SimpleNamespace(
            Device=lambda number: SimpleNamespace(use=lambda: setattr(self, "used_device", number)),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=runtime,
            set_allocator=lambda function: setattr(self, "allocator", function),
            get_current_stream=lambda: SimpleNamespace(synchronize=self._synchronize),
            is_available=lambda: count > 0,
        )
        self.ndarray = simulated.ndarray

    def get_default_memory_pool(self) -> Pool:
        return self.pool

    def _synchronize(self) -> None:
        if self.broken is not None:
            raise self.broken

    def ElementwiseKernel(  # noqa: N802
        self, inputs: str, outputs: str, body: str, name: str, *, preamble: str
    ) -> Any:
        self.compiled.append(name)
        if name == kernels.NARROW.name:
            return lambda bits: kernels.narrow_bfloat16(simulated.xp, bits.view(np.float32))
        return lambda seed, offset, size: kernels.philox(simulated.xp, int(seed), int(offset), size)

    def __getattr__(self, name: str) -> Any:
        return getattr(simulated.xp, name)


@pytest.fixture
def cupy() -> FakeCupy:
    return FakeCupy()


@pytest.fixture
def gpu(cupy: FakeCupy) -> CudaBackend:
    made = CudaBackend("cuda:1", cupy, simulated.sp)
    made.begin()
    return made


# ---------------------------------------------------------------- the start


def test_the_start_takes_the_device_bounds_its_memory_and_computes(cupy: FakeCupy, gpu: CudaBackend) -> None:
    assert (cupy.used_device, cupy.pool.limit, gpu.limit) == (1, 900, 900)
    assert cupy.allocator == gpu.allocate
    assert gpu.model == "NVIDIA Test 1"
    gpu.begin(500)
    assert cupy.pool.limit == 500


@pytest.mark.parametrize("problem", [CUDARuntimeError("cudaErrorUnknown"), OSError("no libcublas")])
def test_a_device_that_does_not_compute_is_not_ready(cupy: FakeCupy, problem: Exception) -> None:
    cupy.broken = problem
    with pytest.raises(NoSuchDevice, match=rf"cuda:0 is there, but does not compute: {type(problem).__name__}"):
        CudaBackend("cuda:0", cupy, simulated.sp).begin()


def test_a_device_that_computes_wrongly_is_not_ready(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    arange = simulated.xp.arange
    monkeypatch.setattr(cupy, "arange", lambda *a, **k: arange(*a, **k) * 2.0, raising=False)
    with pytest.raises(NoSuchDevice, match="came out as"):
        CudaBackend("cuda:0", cupy, simulated.sp).begin()


def test_a_worker_asks_its_device_before_it_is_ready(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_BACKENDS", {"cpu": backend.CPU})
    monkeypatch.setattr(backend, "_cupy", lambda: (cupy, ""))
    monkeypatch.delenv("CUPY_CACHE_DIR", raising=False)
    start = {"name": "w", "devices": ["cpu", "cuda:0"], "practice": False, "limits": Limits(device_bytes=800).to_data()}
    made = making.make_worker({**start, "cache": "/somewhere/cupy"}, "tests.engine.workers.fakes:FakeSession")
    assert cupy.pool.limit == 800
    assert made._server.limit == made.limits.server_bytes + 800
    import os

    assert os.environ["CUPY_CACHE_DIR"] == "/somewhere/cupy"
    cupy.broken = CUDARuntimeError("cudaErrorIllegalAddress")
    with pytest.raises(NoSuchDevice, match="does not compute"):
        making.make_worker(start, "tests.engine.workers.fakes:FakeSession")
    monkeypatch.setenv("CUPY_CACHE_DIR", "")  # put back as it was, at the end


# ---------------------------------------------------------------- memory


def test_out_of_memory_frees_the_pool_and_asks_once_more(cupy: FakeCupy, gpu: CudaBackend) -> None:
    cupy.pool.calls.clear()
    cupy.pool.unused = 700
    assert gpu.allocate(400) == "400 bytes"
    assert cupy.pool.calls == [400, "free", 400]
    cupy.pool.calls.clear()
    assert gpu.allocate(100) == "100 bytes"
    assert cupy.pool.calls == [100]


def test_out_of_memory_for_good_says_what_is_held(cupy: FakeCupy, gpu: CudaBackend) -> None:
    gpu.allocate(300)
    cupy.pool.calls.clear()
    with pytest.raises(OutOfMemory) as caught:
        gpu.allocate(700)
    assert cupy.pool.calls == [700, "free", 700]  # once, and no more
    assert caught.value.facts == {"asked": 700, "limit": 900, "held": 300, "free": 600}
    assert caught.value.detail == (
        "this needs 700 bytes, but of the 900 bytes that may be taken on cuda:1 300 are held and 600 free"
    )
    assert caught.value.hint is not None
    assert caught.value.hint.facts == {"whose": "device"}


def test_memory(cupy: FakeCupy, gpu: CudaBackend) -> None:
    gpu.allocate(300)
    cupy.pool.unused = 50
    assert gpu.memory() == {"total": 1000, "free": 650, "used": 300, "held": 350, "limit": 900}
    gpu.free_unused()
    assert gpu.memory()["held"] == 300


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "problem", [OutOfMemoryError("pinned"), CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")]
)
def test_a_library_that_finds_no_memory(gpu: CudaBackend, problem: Exception) -> None:
    error = gpu.fault(problem)
    assert isinstance(error, OutOfMemory)
    assert error.facts["held"] == 0


def test_an_error_after_which_the_device_still_computes_is_a_bug_of_ours(gpu: CudaBackend) -> None:
    assert gpu.fault(CUDARuntimeError("cudaErrorInvalidValue")) is None
    assert gpu.fault(ValueError("not the device's")) is None


def test_an_error_after_which_nothing_computes_loses_the_device(cupy: FakeCupy, gpu: CudaBackend) -> None:
    cupy.broken = CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
    error = gpu.fault(cupy.broken)
    assert isinstance(error, DeviceLost)
    assert error.code == "not-applied"
    assert "an illegal memory access was encountered" in error.detail
    assert gpu.fault(ValueError("not the device's")) is None


# ---------------------------------------------------------------- kernels of ours


def test_kernels_are_compiled_once_and_give_what_the_array_code_gives(cupy: FakeCupy, gpu: CudaBackend) -> None:
    bits = [gpu.to_host(gpu.narrow_bfloat16(simulated.xp.asarray(np.float32([1.0, 3.14159, np.nan])))) for _ in "ab"]
    assert bits[0].tolist() == backend.CPU.narrow_bfloat16(np.float32([1.0, 3.14159, np.nan])).tolist()
    words = [[gpu.to_host(w).tolist() for w in gpu.philox(7, 3, 5)] for _ in "ab"]
    assert words[0] == [w.tolist() for w in backend.CPU.philox(7, 3, 5)]
    assert cupy.compiled == [kernels.NARROW.name, kernels.PHILOX.name]


# ---------------------------------------------------------------- which devices there are


def test_without_cupy_the_reason_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        NoSuchDevice, match=r"no device cuda:0 on this machine: CuPy is not installed; `make serve CUDA"
    ):
        backend.real_cuda("cuda:0")
    assert backend.cuda_devices() == []
    assert find_gpus() == []


@pytest.mark.parametrize("count, devices", [(0, []), (2, ["cuda:0", "cuda:1"])])
def test_cupy_says_which(monkeypatch: pytest.MonkeyPatch, count: int, devices: list[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", lambda name: FakeCupy(count=count))
    monkeypatch.setattr(backend, "_BACKENDS", {"cpu": backend.CPU})
    assert backend.cuda_devices() == devices
    why = "CUDA sees 2 devices: cuda:0 to cuda:1" if count else "CuPy finds no CUDA device: is there an NVIDIA GPU"
    with pytest.raises(NoSuchDevice, match=why):
        backend.real_cuda("cuda:2")
    if count:
        assert backend.real_cuda("cuda:1") is backend.real_cuda("cuda:1")


def test_a_cupy_that_cannot_be_imported_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ImportError("libnvrtc.so.12: cannot open shared object file")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(NoSuchDevice, match=r"cannot be imported \(ImportError: libnvrtc"):
        backend.real_cuda("cuda:0")
    assert backend.cuda_devices() == []


# ---------------------------------------------------------------- what NumPy and CuPy do differently


@pytest.mark.parametrize("device", [backend.CPU, backend.simulated_cuda()], ids=lambda b: b.name)
@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16"])
def test_scatters_add_up_duplicates_in_every_dtype(device: backend.Backend, dtype: str) -> None:
    """CuPy has atomic additions for few dtypes: the others go by parts, or through int64."""
    index, values = np.array([0, 2, 0, 0, 1]), np.array([1, 2, 3, 4, 1])
    values = values * (1 - 2j) if dtype[0] == "c" else values
    host = np.array([1, 0, 1, 1]).astype(dtype)
    target = device.from_host(host.copy())
    device.scatter_add(target, device.from_host(index), device.from_host(values.astype(dtype)))
    np.add.at(host, index, values.astype(dtype))
    assert device.to_host(target).tolist() == host.tolist()
