"""Which of its kernels NumPy's OpenBLAS is to take, said while NumPy is loaded: later it is too late.

OpenBLAS has kernels for each kind of processor and takes those of the one it runs on; `OPENBLAS_CORETYPE` says others.
AMD's Zen 4 computes 512 bits in two steps, so that AVX-512 does not gain there what its kernels were written for: those
for AVX2 take 0.82 to 0.87 of the time at float32 products of more than a million multiplications
(docs/decisions/0011-blas-kernels.md). SciPy has an OpenBLAS of its own, which decides for itself: what is taken from it
are sums of vectors and outer products, which AVX-512 is good for.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "OPENBLAS_CORETYPE"
_AVX2 = "Haswell"  # OpenBLAS's name for it
_ZEN_3_AND_4 = "25"  # the processor family of both; the older one has no AVX-512


def load_numpy() -> str | None:
    """Loads NumPy, on Zen 4 with AVX2 kernels, unless the environment says which, or NumPy is there already.

    The kernels that were asked for.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is None and "numpy" not in sys.modules and is_zen_4(_description()):
        os.environ[VARIABLE] = chosen = _AVX2
        try:
            import numpy  # noqa: F401, ICN001
        finally:
            del os.environ[VARIABLE]
    return chosen


def is_zen_4(description: str) -> bool:
    """Whether the first processor of Linux's /proc/cpuinfo is an AMD Zen 4."""
    fields = dict(line.partition(":")[::2] for line in description.partition("\n\n")[0].splitlines())
    found = {name.strip(): value.strip() for name, value in fields.items()}
    return (
        found.get("vendor_id") == "AuthenticAMD"
        and found.get("cpu family") == _ZEN_3_AND_4
        and "avx512f" in found.get("flags", "").split()
    )


def _description() -> str:
    try:
        with Path("/proc/cpuinfo").open() as file:
            return file.read(1 << 14)
    except OSError:  # not Linux: then OpenBLAS decides
        return ""


CHOSEN = load_numpy()
