"""Random numbers of the devices: Philox4x32-10, a function of seed, draw and element, and nothing else.

The CPU's stream cannot be drawn in parallel, so CUDA devices have one of their own, as in PyTorch, seeded by the same
`manual_seed`. Element i of draw number d (the offset, counted from 0 at seeding) takes the block of four words that
`engine.kernels.philox` gives for (seed, d, i): so a draw of any size costs one number of state, every element is
computed by itself, and the numbers do not depend on the GPU.

`rand`, `randn`, `uniform_`, `normal_`, `randint` and `random_` make of the block what PyTorch's CUDA kernels make of
it, in float32 up to the last bits of the device's own log, sin and cos: torch.manual_seed(0) is followed by
torch.rand(3, device="cuda") = [0.3990, 0.5167, 0.0249] here as well. Two things differ. A tensor so large that a
PyTorch kernel gives several elements to one thread (from about 200,000 elements on, depending on the GPU) goes on in
another order there. And the other distributions, dropout among them, are the CPU's algorithms on this stream.
Uniform and normal numbers are made on the device, the others on the host and brought over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from engine.backend import CPU, Backend
from engine.random.arithmetic import f4, f8, u8
from engine.random.generator import COMPONENT, Generator, _check_uniform, _refusal

Array = Any  # of the host or of the device

_BLOCK = 512  # draws at a time where it cannot be said before how many will be needed


class Philox(Generator):
    """The stream of one device: `generator` is the session's, whose seed it has and whose count of draws it moves."""

    __slots__ = ("_backend", "_generator")

    def __init__(self, generator: Generator, backend: Backend) -> None:
        self._generator, self._backend = generator, backend

    # ------------------------------------------------------------ words

    def _blocks(self, n: int, backend: Backend = CPU) -> tuple[Array, Array, Array, Array]:
        generator = self._generator
        blocks = backend.philox(generator.initial_seed, generator.draws, n)
        generator.draws += n > 0
        return blocks

    def _words(self, n: int) -> Array:
        return np.asarray(self._blocks(n)[0].astype(u8))

    def _words64(self, n: int) -> Array:
        high, low, _, _ = self._blocks(n)
        return (high.astype(u8) << u8(32)) | low

    def _unit32(self, n: int) -> Array:
        return _units32(np, self._blocks(n)[0])

    def _unit64(self, n: int) -> Array:
        return _units64(np, *self._blocks(n)[:2])

    def _skip(self, words: int) -> None:
        raise NotImplementedError("nothing is skipped in this stream")

    @contextmanager
    def _uniforms(self) -> Iterator[Callable[[], float]]:
        def supply() -> Iterator[float]:
            while True:
                yield from self._unit64(_BLOCK).tolist()

        yield supply().__next__

    # ------------------------------------------------------------ on the device

    def uniform(self, n: int, dtype: str = "float32", low: float = 0.0, high: float = 1.0) -> Array:
        if dtype in COMPONENT:
            return self.uniform(2 * n, COMPONENT[dtype], low, high).view(dtype)
        _check_uniform(dtype, low, high)
        backend = self._backend
        xp = backend.xp
        if not n:
            return xp.empty(0, _stored(dtype))
        blocks = self._blocks(n, backend)
        if dtype == "float64":
            return _units64(xp, *blocks[:2]) * (high - low) + low
        values = _units32(xp, blocks[0])
        if (low, high) != (0.0, 1.0):
            values = values * float(f4(high) - f4(low)) + float(f4(low))
        if dtype != "float32":
            values = _narrow(values, dtype, backend)
            start, stop = (_narrow(xp.asarray([x], dtype=f4), dtype, backend) for x in (low, high))
            values = xp.where(values == stop, start, values)
        return values

    def normal(
        self, n: int, dtype: str = "float32", mean: float = 0.0, std: float = 1.0, contiguous: bool = True
    ) -> Array:
        return self._normal(n, dtype, mean, std, self._backend)

    def host_normal(self, n: int, dtype: str = "float32", mean: float = 0.0, std: float = 1.0) -> Array:
        return self._normal(n, dtype, mean, std, CPU)

    def _normal(self, n: int, dtype: str, mean: float, std: float, backend: Backend) -> Array:
        if not std >= 0:
            raise _refusal("normal_", "std", f"normal expects std >= 0.0, but found std {std:g}")
        if dtype in COMPONENT:
            return self._normal(2 * n, COMPONENT[dtype], mean, std / math.sqrt(2.0), backend).view(dtype)
        xp = backend.xp
        if not n:
            return xp.empty(0, _stored(dtype))
        with np.errstate(over="ignore", invalid="ignore"):
            values = _normals(xp, self._blocks(n, backend), f8 if dtype == "float64" else f4)
            if (mean, std) != (0.0, 1.0):
                values = values * std + mean
            return _narrow(values, dtype, backend)

    def _pairs(self, n: int, dtype: str) -> Array:
        if not n:
            return np.empty(0)
        return np.asarray(_normals(np, self._blocks(n), f8 if dtype == "float64" else f4)).astype(f8)

    def bernoulli_p(self, n: int, p: float) -> Array:
        if not 0 <= p <= 1:
            raise _refusal("bernoulli_", "p", f"bernoulli_ expects p to be in [0, 1], but got p={p:g}")
        xp = self._backend.xp
        if not n:
            return xp.empty(0, bool)
        return _units64(xp, *self._blocks(n, self._backend)[:2]) < p


# ---------------------------------------------------------------- from words to numbers, as curand does it


def _units32(xp: Any, words: Array) -> Array:
    """Numbers from [0, 1) in float32; curand's (0, 1] with 1 turned into 0, as PyTorch turns it."""
    u = (words.astype(f4).astype(f8) * 2.0**-32 + 2.0**-33).astype(f4)  # a fused multiply-add of float32
    return xp.where(u == 1.0, f4(0.0).item(), u).astype(f4)


def _units64(xp: Any, low: Array, high: Array) -> Array:
    """Numbers from [0, 1) in float64, of 53 bits."""
    z = low.astype(u8) ^ (high.astype(u8) << 21)
    u = z.astype(f8) * 2.0**-53 + 2.0**-54
    return xp.where(u == 1.0, 0.0, u)


def _normals(xp: Any, blocks: tuple[Array, Array, Array, Array], d: Any) -> Array:
    """Standard normals by Box and Muller's transform, of which the sine is kept."""
    if d is f8:
        u, v = (
            (x.astype(u8) ^ (y.astype(u8) << 21)).astype(f8) * 2.0**-53 + 2.0**-54 for x, y in (blocks[:2], blocks[2:])
        )
    else:
        u, v = (word.astype(f4).astype(f8) * 2.0**-32 + 2.0**-33 for word in blocks[:2])
    made = xp.sqrt(xp.log(u) * -2.0) * xp.sin(v * (2.0 * math.pi))
    return made.astype(d, copy=False)


def _narrow(values: Array, dtype: str, backend: Backend) -> Array:
    """Computed numbers in a dtype; bfloat16 as float32 that is rounded to it."""
    if dtype == "bfloat16":
        bits = backend.narrow_bfloat16(values.astype(f4))
        return (bits.astype(np.uint32) << 16).view(f4)
    return values.astype(dtype, copy=False)


def _stored(dtype: str) -> str:
    return "float32" if dtype == "bfloat16" else dtype
