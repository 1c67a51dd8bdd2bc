"""The CUDA kernels of our own: each as source, and as array code that says the same.

The source is the body of a `cupy.ElementwiseKernel`, run for each index `i`; the array code is what every other device
runs, and what the source is held to: tests compile it with a C++ compiler and compare bit by bit, and `make test-cupy`
compiles it with NVRTC for every architecture in `ARCHITECTURES`. Kernels are few on purpose: one is written where the
array code would launch dozens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any

ARCHITECTURES = (75, 80, 90, 100)  # Turing, Ampere, Hopper, Blackwell: compute capabilities, times ten


@dataclass(frozen=True, slots=True)
class Kernel:
    """An elementwise kernel: parameters as CuPy writes them, the body for index `i`, and functions before it."""

    name: str
    inputs: str
    outputs: str
    body: str
    preamble: str = ""


# ---------------------------------------------------------------- Philox

M0, M1 = 0xD2511F53, 0xCD9E8D57  # the multipliers and Weyl constants of Philox4x32 (Salmon et al., SC 2011)
W0, W1 = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
LOW = 0xFFFFFFFF

PHILOX = Kernel(
    name="curlgrad_philox4x32_10",
    inputs="uint64 seed, uint64 offset",
    outputs="uint32 a, uint32 b, uint32 c, uint32 d",
    body="""
    unsigned int x[4] = {(unsigned int)offset, (unsigned int)(offset >> 32), (unsigned int)i,
                         (unsigned int)((unsigned long long)i >> 32)};
    curlgrad_philox(seed, x);
    a = x[0]; b = x[1]; c = x[2]; d = x[3];
    """,
    preamble="""
    __device__ void curlgrad_philox(unsigned long long seed, unsigned int* x) {
      unsigned int k0 = (unsigned int)seed, k1 = (unsigned int)(seed >> 32);
      for (int round = 0; round < 10; ++round) {
        unsigned long long p = 0xD2511F53ULL * x[0], q = 0xCD9E8D57ULL * x[2];
        unsigned int y0 = (unsigned int)(q >> 32) ^ x[1] ^ k0, y2 = (unsigned int)(p >> 32) ^ x[3] ^ k1;
        x[0] = y0; x[1] = (unsigned int)q; x[2] = y2; x[3] = (unsigned int)p;
        k0 += 0x9E3779B9U; k1 += 0xBB67AE85U;
      }
    }
    """,
)


def philox(xp: Any, seed: int, offset: int, n: int) -> tuple[Array, Array, Array, Array]:
    """Blocks of four random words for the indices 0 to n - 1, each word an array of n uint32.

    Block i is Philox4x32-10 of the key `seed` and the counter (offset, i), both 64 bits, low words first: what curand
    gives sequence number i of that seed after 4 * offset words.
    """
    index = xp.arange(n, dtype=np.uint64)
    x0 = xp.full(n, offset & LOW, np.uint64)
    x1 = xp.full(n, offset >> 32 & LOW, np.uint64)
    x2, x3 = index & LOW, index >> 32
    k0, k1 = seed & LOW, seed >> 32 & LOW
    for _ in range(ROUNDS):
        p, q = x0 * M0, x2 * M1
        x0, x1, x2, x3 = (q >> 32) ^ x1 ^ k0, q & LOW, (p >> 32) ^ x3 ^ k1, p & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return x0.astype(np.uint32), x1.astype(np.uint32), x2.astype(np.uint32), x3.astype(np.uint32)


# ---------------------------------------------------------------- bfloat16

NARROW = Kernel(
    name="curlgrad_narrow_bfloat16",
    inputs="uint32 bits",
    outputs="uint16 narrow",
    body="""
    narrow = (bits & 0x7FFFFFFFU) > 0x7F800000U ? 0x7FC0  // NaN
                                                : (unsigned short)((bits + ((bits >> 16) & 1U) + 0x7FFFU) >> 16);
    """,
)


def narrow_bfloat16(xp: Any, array: Array) -> Array:
    """float32 to bfloat16 bits, to nearest even; a NaN stays one."""
    bits = array.view(np.uint32)
    rounded = xp.asarray((bits + ((bits >> 16) & 1) + 0x7FFF) >> 16)
    xp.copyto(rounded, 0x7FC0, where=xp.isnan(array))
    return rounded.astype(np.uint16)


KERNELS = (PHILOX, NARROW)
