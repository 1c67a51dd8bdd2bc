"""Every CUDA kernel source of ours compiles, for every architecture that is promised. NVRTC needs no driver."""

from __future__ import annotations

import re

import pytest

from engine import kernels

_C_TYPES = {"uint64": "unsigned long long", "uint32": "unsigned int", "uint16": "unsigned short", "float32": "float"}


def source(kernel: kernels.Kernel, scalars: bool) -> str:
    """The kernel as CUDA C: the body for each index of a grid-stride loop, as CuPy's elementwise kernels run it."""
    inputs = [part.split() for part in kernel.inputs.split(", ")]
    outputs = [part.split() for part in kernel.outputs.split(", ")]
    declared = [f"{_C_TYPES[k]} {n}" if scalars else f"const {_C_TYPES[k]}* {n}_" for k, n in inputs]
    declared += [f"{_C_TYPES[k]}* {n}_" for k, n in outputs]
    reads = "" if scalars else " ".join(f"const {_C_TYPES[k]} {n} = {n}_[i];" for k, n in inputs)
    writes = " ".join(f"{_C_TYPES[k]}& {n} = {n}_[i];" for k, n in outputs)
    return f"""
    {kernel.preamble}
    extern "C" __global__ void {kernel.name}({", ".join(declared)}, long long n) {{
      const long long step = gridDim.x * (long long)blockDim.x;
      for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += step) {{
        {reads} {writes}
        {kernel.body}
      }}
    }}
    """


@pytest.mark.parametrize("architecture", kernels.ARCHITECTURES)
@pytest.mark.parametrize("kernel", kernels.KERNELS, ids=lambda k: k.name)
def test_a_kernel_compiles(kernel: kernels.Kernel, architecture: int) -> None:
    from cupy_backends.cuda.libs import nvrtc

    assert architecture in nvrtc.getSupportedArchs()
    program = nvrtc.createProgram(source(kernel, kernel is kernels.PHILOX), f"{kernel.name}.cu", [], [])
    try:
        nvrtc.compileProgram(program, [f"--gpu-architecture=sm_{architecture}", "--std=c++17"])
        cubin = nvrtc.getCUBIN(program)
    finally:
        nvrtc.destroyProgram(program)
    assert cubin[:4] == b"\x7fELF"
    assert kernel.name.encode() in cubin


def test_a_source_that_is_wrong_does_not_compile() -> None:
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(source(kernels.NARROW, False).replace("0x7FC0", "no_such_name"), "wrong.cu", [], [])
    with pytest.raises(Exception, match="NVRTC_ERROR_COMPILATION"):
        nvrtc.compileProgram(program, ["--gpu-architecture=sm_80"])
    assert '"no_such_name" is undefined' in nvrtc.getProgramLog(program)
    nvrtc.destroyProgram(program)


@pytest.mark.parametrize("kernel", kernels.KERNELS, ids=lambda k: k.name)
def test_cupy_takes_the_parameters(kernel: kernels.Kernel) -> None:
    import cupy

    made = cupy.ElementwiseKernel(kernel.inputs, kernel.outputs, kernel.body, kernel.name, preamble=kernel.preamble)
    assert (made.nin, made.nout) == (kernel.inputs.count(",") + 1, kernel.outputs.count(",") + 1)
    assert made.name == kernel.name


def test_there_are_no_other_sources() -> None:
    """Nothing else in the engine makes a kernel of its own."""
    from pathlib import Path

    root = Path(kernels.__file__).parent
    made = re.compile(r"\b(RawKernel|RawModule|ElementwiseKernel|ReductionKernel|jit\.rawkernel|cupy\.fuse)\b")
    found = {p.relative_to(root).as_posix() for p in root.rglob("*.py") if made.search(p.read_text("utf-8"))}
    assert found <= {"backend.py", "kernels.py"}
