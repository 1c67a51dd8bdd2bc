"""What the tests call `cuda:0`: the strict stand-in for CuPy, or, for `make test-gpu`, a GPU of this machine."""

from __future__ import annotations

import os
from functools import cache

from engine.backend import Backend, real_cuda, simulated_cuda

VARIABLE = "CURLGRAD_TEST_GPU"  # the GPU, as "cuda:0"


@cache
def cuda() -> Backend:
    """The device, ready to compute. Raises NoSuchDevice where a GPU is asked for that cannot."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return simulated_cuda()
    made = real_cuda(wanted)
    made.begin()
    return made
