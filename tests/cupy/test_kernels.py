"""Every CUDA kernel source of ours compiles, for every architecture that is promised. NVRTC needs no driver."""

from __future__ import annotations

import re

import pytest

from engine import kernels
from engine.fused import source as fused
from tests.engine.chains import every_function, random_chain

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


# ---------------------------------------------------------------- fused chains

RANDOM = 100  # chains per compilation


@pytest.mark.parametrize("architecture", kernels.ARCHITECTURES)
@pytest.mark.parametrize("part", ["every function", "random chains"])
def test_fused_kernels_compile(part: str, architecture: int) -> None:
    """Each function in each of its loops, and random chains of them, with the options that CuPy is given and adds."""
    from cupy_backends.cuda.libs import nvrtc

    chains = every_function() if part == "every function" else [random_chain(seed)[0] for seed in range(RANDOM)]
    names = [f"chain_{i}" for i in range(len(chains))]
    code = fused.PRELUDE + "".join(fused.source(chain, name) for chain, name in zip(chains, names, strict=True))
    program = nvrtc.createProgram(code, "chains.cu", [], [])
    try:
        nvrtc.compileProgram(program, [f"--gpu-architecture=sm_{architecture}", "-ftz=true", *fused.OPTIONS])
        cubin = nvrtc.getCUBIN(program)
        said = nvrtc.getProgramLog(program)
    finally:
        nvrtc.destroyProgram(program)
    assert all(name.encode() in cubin for name in names)
    assert "error" not in said


def test_products_and_sums_stay_apart_in_the_code_of_a_device() -> None:
    """`--fmad=false` is obeyed: no fused multiply-add is in what NVRTC makes of a product and a sum."""
    from cupy_backends.cuda.libs import nvrtc

    chain = fused.Chain(
        (("f4", fused.DENSE),) * 3,
        (),
        (("multiply", "f4", (0, 1)), ("add", "f4", (3, 2))),
        ((4, fused.DENSE),),
        0,
        False,
    )
    found = []
    for options in (fused.OPTIONS, fused.OPTIONS[1:]):
        program = nvrtc.createProgram(fused.PRELUDE + fused.source(chain), "chain.cu", [], [])
        nvrtc.compileProgram(program, ["--gpu-architecture=compute_80", *options])
        found.append(nvrtc.getPTX(program))
        nvrtc.destroyProgram(program)
    with_option, without = (text if isinstance(text, str) else text.decode() for text in found)
    assert "fma.rn.f32" not in with_option
    assert "fma.rn.f32" in without


def test_conversions_of_float16_are_instructions_on_a_device() -> None:
    from cupy_backends.cuda.libs import nvrtc

    chain = fused.Chain(
        (("f2", fused.DENSE),), (), (("cast", "f4", (0,)), ("cast", "f2", (1,))), ((2, fused.DENSE),), 0, False
    )
    program = nvrtc.createProgram(fused.PRELUDE + fused.source(chain), "chain.cu", [], [])
    nvrtc.compileProgram(program, ["--gpu-architecture=compute_75", *fused.OPTIONS])
    text = nvrtc.getPTX(program)
    nvrtc.destroyProgram(program)
    text = text if isinstance(text, str) else text.decode()
    assert "cvt.f32.f16" in text
    assert "cvt.rn.f16.f32" in text


def test_cupy_takes_a_fused_kernel() -> None:
    import cupy

    made = cupy.RawKernel(fused.PRELUDE + fused.source(random_chain(1)[0]), fused.NAME, fused.OPTIONS)
    assert (made.name, made.options, made.backend) == (fused.NAME, fused.OPTIONS, "nvrtc")


def test_cupy_flushes_small_numbers_for_all_its_kernels() -> None:
    """docs/gpu.md says so: single calls and fused kernels agree since both are compiled with it."""
    from pathlib import Path

    import cupy

    text = (Path(cupy.__file__).parent / "cuda" / "compiler.py").read_text("utf-8")
    assert "options += ('-ftz=true',)" in text
    assert "fmad" not in text


def test_there_are_no_other_sources() -> None:
    """Nothing else in the engine makes a kernel of its own."""
    from pathlib import Path

    root = Path(kernels.__file__).parent
    made = re.compile(r"\b(RawKernel|RawModule|ElementwiseKernel|ReductionKernel|jit\.rawkernel|cupy\.fuse)\b")
    found = {p.relative_to(root).as_posix() for p in root.rglob("*.py") if made.search(p.read_text("utf-8"))}
    assert found == {"backend.py", "kernels.py", "fused/launch.py", "simulated/__init__.py", "simulated/raw.py"}
