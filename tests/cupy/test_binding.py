"""What engine.backend takes from CuPy is there, under these names; and where there is no GPU it says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine import backend, kernels
from engine.backend import CudaBackend
from engine.errors import NoSuchDevice
from engine.workers.gpus import find_gpus

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_names_that_the_backend_uses() -> None:
    import cupy

    cuda = cupy.cuda
    for name in ("Device", "set_allocator", "get_current_stream", "is_available"):
        assert callable(getattr(cuda, name))
    for name in ("memGetInfo", "getDeviceCount", "getDeviceProperties", "driverGetVersion", "runtimeGetVersion"):
        assert callable(getattr(cuda.runtime, name))
    assert callable(cuda.Device.use)
    assert callable(cuda.Stream.synchronize)
    for name in ("malloc", "set_limit", "free_all_blocks", "used_bytes", "free_bytes", "total_bytes"):
        assert callable(getattr(cupy.get_default_memory_pool(), name))
    assert issubclass(cuda.memory.OutOfMemoryError, MemoryError)
    assert "size" in (cupy.cuda.MemoryPool.set_limit.__doc__ or "")


def test_errors_of_cupy_are_known_by_their_modules() -> None:
    import cupy
    from cupy_backends.cuda.api import driver, runtime

    for error in (cupy.cuda.memory.OutOfMemoryError, runtime.CUDARuntimeError, driver.CUDADriverError):
        assert error.__module__.startswith(("cupy", "cupy_backends"))


def test_a_backend_is_made_without_touching_a_device() -> None:
    import cupy

    made = CudaBackend("cuda:0", cupy)
    assert made.ndarray is cupy.ndarray
    assert made.sp.special.erf is __import__("cupyx.scipy.special").scipy.special.erf
    kernel = made._kernel(kernels.PHILOX)
    assert kernel is made._kernel(kernels.PHILOX)
    assert "size" in (type(kernel).__doc__ or "") + (type(kernel).__call__.__doc__ or "")


def test_without_a_gpu_it_is_said_and_nothing_is_raised() -> None:
    import cupy

    if cupy.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert backend.cuda_devices() == []
    assert find_gpus() == []
    with pytest.raises(NoSuchDevice, match="CuPy finds no CUDA device: is there an NVIDIA GPU"):
        backend.real_cuda("cuda:0")


def test_the_web_process_does_not_load_cupy() -> None:
    code = (
        "import sys; from app.main import create_app; from app.settings import Settings; create_app(Settings());"
        "print([m for m in sys.modules if m.partition('.')[0] in ('cupy', 'cupyx', 'cupy_backends')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
