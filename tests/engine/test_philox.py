"""The devices' stream: Philox as published, PyTorch's CUDA numbers as published, and what every stream must be."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import kernels
from engine.backend import CPU, Backend
from engine.errors import EngineError
from engine.random import Generator, Philox
from engine.session import Session
from tests.devices import cuda

CUDA = cuda()
BOTH = pytest.mark.parametrize("backend", [CPU, CUDA], ids=lambda b: b.name)


@BOTH
def test_the_known_answers(backend: Backend) -> None:
    """Of Random123 (Salmon et al.), for counters whose low half is the offset and whose high half is the element."""
    words = [int(backend.to_host(w)[0]) for w in backend.philox(0, 0, 1)]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    # Counter 243f6a88 85a308d3 13198a2e 03707344 with key a4093822 299f31d0: element 0x0370734413198a2e is too far
    # to draw from 0, so its round function is asked directly.
    seed, offset, index = 0x299F31D0A4093822, 0x85A308D3243F6A88, 0x0370734413198A2E
    assert _block(seed, offset, index) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]
    assert _block(2**64 - 1, 2**64 - 1, 2**64 - 1) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def _block(seed: int, offset: int, index: int) -> list[int]:
    """Philox4x32-10 in Python's integers: the definition, written once more."""
    x = [offset & 0xFFFFFFFF, offset >> 32, index & 0xFFFFFFFF, index >> 32]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p, q = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(q >> 32) ^ x[1] ^ k0, q & 0xFFFFFFFF, (p >> 32) ^ x[3] ^ k1, p & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return x


@BOTH
@pytest.mark.parametrize("seed, offset", [(1, 0), (2**63 + 12345, 7), (2**64 - 1, 2**33 + 5)])
def test_array_code_and_definition_agree(backend: Backend, seed: int, offset: int) -> None:
    made = np.stack([backend.to_host(w) for w in backend.philox(seed, offset, 50)])
    assert made.T.tolist() == [_block(seed, offset, i) for i in range(50)]


def on_cuda(seed: int) -> Philox:
    return Philox(Generator(seed), CUDA)


def values(made: object) -> list[float]:
    return np.asarray(CUDA.to_host(made) if isinstance(made, CUDA.ndarray) else made).tolist()


def test_published_numbers_of_pytorch_on_cuda() -> None:
    """torch.manual_seed(0) and torch.rand, torch.randn with device="cuda", as many pages on the web show them."""
    assert np.round(values(on_cuda(0).rand(5)), 4).tolist() == [0.3990, 0.5167, 0.0249, 0.9401, 0.9459]
    assert np.round(values(on_cuda(0).normal(4)), 4).tolist() == [-0.9247, -0.4253, -2.6438, 0.1452]


DRAWS = [
    ("rand", (40, dtype)) for dtype in ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
] + [("normal", (40, dtype)) for dtype in ("float16", "bfloat16", "float32", "float64", "complex64")]
DRAWS += [("uniform", (40, "float32", -2.0, 3.0)), ("normal", (40, "float64", 5.0, 0.5)), ("bernoulli_p", (40, 0.3))]
DRAWS += [("random", (40, "int64", 0, 10)), ("random", (40, "int64", -(2**40), 2**40)), ("randperm", (40,))]
DRAWS += [("exponential", (40,)), ("log_normal", (40,)), ("cauchy", (40,)), ("geometric", (40,)), ("gumbel", (40,))]
DRAWS += [("poisson", (np.full(600, 3.0),)), ("binomial", (np.full(40, 9.0), np.full(40, 0.4)))]
DRAWS += [("multinomial", (np.arange(1.0, 9.0), 4)), ("dropout_mask", (40, 0.5))]


@pytest.mark.parametrize("name, args", DRAWS, ids=lambda x: x if isinstance(x, str) else str(x)[:30])
def test_a_seed_decides_and_draws_follow_each_other(name: str, args: tuple[object, ...]) -> None:
    rng = on_cuda(3)
    first, second = (values(getattr(rng, name)(*args)) for _ in range(2))
    assert first != second
    again = on_cuda(3)
    assert [values(getattr(again, name)(*args)) for _ in range(2)] == [first, second]
    other = on_cuda(4)
    assert values(getattr(other, name)(*args)) != first


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_uniform_numbers_stay_below_their_end(dtype: str) -> None:
    made = np.array(values(on_cuda(1).uniform(20_000, dtype, 1.0, 2.0)))
    assert made.min() >= 1.0
    assert made.max() < 2.0
    assert abs(made.mean() - 1.5) < 0.01


def test_normal_numbers_have_their_moments() -> None:
    for dtype in ("float32", "float64"):
        made = np.array(values(on_cuda(2).normal(40_000, dtype, 3.0, 2.0)))
        assert abs(made.mean() - 3.0) < 0.04
        assert abs(made.std() - 2.0) < 0.04
        assert abs(((made - made.mean()) ** 3).mean()) < 0.4


def test_the_cpu_stream_and_the_devices_do_not_disturb_each_other() -> None:
    rng = Generator(5)
    cpu = rng.rand(4).tolist()
    rng.manual_seed(5)
    Philox(rng, CUDA).rand(4)
    assert rng.rand(4).tolist() == cpu
    state, device = rng.get_state(), rng.get_device_state()
    assert device == (5).to_bytes(8, "little") + (4).to_bytes(8, "little")  # as PyTorch: four words a draw
    following = values(Philox(rng, CUDA).rand(3))
    other = Generator(5)
    other.set_state(state)
    other.set_device_state(device)
    assert values(Philox(other, CUDA).rand(3)) == following


def test_a_failed_program_takes_its_draws_back() -> None:
    session = Session("s", seed=9, devices=("cpu", "cuda:0"))
    rand = {"op": "rand", "args": {"size": [3], "device": "cuda"}, "out": "x"}
    bad = {"op": "mm", "args": {"input": "x", "mat2": "x"}}

    def run(*steps: object) -> list[float]:
        *_, reply = _ended(session.run({"steps": list(steps), "return": ["x"]}))
        return reply["results"]["x"].values.tolist()

    with pytest.raises(EngineError, match="must be a matrix"):
        run(rand, bad)
    assert run(rand) == values(on_cuda(9).rand(3))


def _ended(running: object) -> list[object]:
    while True:
        try:
            next(running)  # type: ignore[call-overload]
        except StopIteration as end:
            return [end.value]


# ---------------------------------------------------------------- the CUDA sources, run by a C++ compiler


COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
_C_TYPES = {"uint64": "unsigned long long", "uint32": "unsigned int", "uint16": "unsigned short", "float32": "float"}


def run_on_host(kernel: kernels.Kernel, n: int, folder: Path, **inputs: Any) -> list[np.ndarray[Any, Any]]:
    """The outputs of a kernel's source for n indices: its body in a loop, its scalars and arrays by name."""
    outputs = [part.split() for part in kernel.outputs.split(", ")]
    lines = ["#define __device__ static", kernel.preamble, 'extern "C" void run(long long n']
    arguments: list[Any] = [ctypes.c_longlong(n)]
    reads = ""
    for kind, name in [part.split() for part in kernel.inputs.split(", ")]:
        value = inputs[name]
        if isinstance(value, np.ndarray):
            lines.append(f", const {_C_TYPES[kind]}* {name}_")
            reads += f"const {_C_TYPES[kind]} {name} = {name}_[i]; "
            arguments.append(value.ctypes.data_as(ctypes.c_void_p))
        else:
            lines.append(f", {_C_TYPES[kind]} {name}")
            arguments.append(ctypes.c_ulonglong(value))
    made = [np.zeros(n, kind) for kind, _ in outputs]
    for (kind, name), array in zip(outputs, made, strict=True):
        lines.append(f", {_C_TYPES[kind]}* {name}_")
        reads += f"{_C_TYPES[kind]}& {name} = {name}_[i]; "
        arguments.append(array.ctypes.data_as(ctypes.c_void_p))
    lines.append(f") {{ for (long long i = 0; i < n; ++i) {{ {reads} {kernel.body} }} }}")
    source, library = folder / f"{kernel.name}.cpp", folder / f"{kernel.name}.so"
    source.write_text("\n".join(lines))
    subprocess.run([str(COMPILER), "-O1", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    ctypes.CDLL(str(library)).run(*arguments)
    return made


needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler here")


@needs_compiler
def test_the_source_of_philox_says_what_its_array_code_says(tmp_path: Path) -> None:
    for seed, offset in ((0, 0), (2**63 + 12345, 7), (2**64 - 1, 2**33 + 5)):
        made = run_on_host(kernels.PHILOX, 1000, tmp_path, seed=seed, offset=offset)
        for ours, theirs in zip(made, kernels.philox(np, seed, offset, 1000), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@needs_compiler
def test_the_source_of_bfloat16_says_what_its_array_code_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    special = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF, 0x7F7FFFFF, 0x3F808000, 0x3F818000, 1, 0])
    bits = np.concatenate([special, rng.integers(0, 2**32, 100_000)]).astype(np.uint32)
    (made,) = run_on_host(kernels.NARROW, len(bits), tmp_path, bits=bits)
    np.testing.assert_array_equal(made, kernels.narrow_bfloat16(np, bits.view(np.float32)))


def test_no_kernel_is_without_such_a_test() -> None:
    assert set(kernels.KERNELS) == {kernels.PHILOX, kernels.NARROW}
