"""The session's generator: seeds and states."""

from __future__ import annotations

import numpy as np

from engine.backend import CPU
from engine.context import Context
from engine.declare import Array, special
from engine.dtypes import uint8
from engine.errors import WrongType
from engine.op import Spec
from engine.tensor import Tensor, fresh


@special(family="random", returns="value", example={"seed": 0})
def manual_seed(ctx: Context, seed: int) -> None:
    """Seeds the session's generator, from -2^63 to 2^64 - 1: the numbers that follow are PyTorch's for that seed."""
    ctx.touch_rng().manual_seed(seed)


@special(family="random", returns="value", example={})
def seed(ctx: Context) -> int:
    """Seeds the session's generator with a number from the system, and returns it."""
    return int(ctx.touch_rng().seed())


@special(family="random", returns="value", example={})
def initial_seed(ctx: Context) -> int:
    """The seed that the session's generator started from."""
    return int(ctx.rng.initial_seed)


@special(family="random", example={})
def get_rng_state(ctx: Context) -> Tensor:
    """The state of the session's generator, 5056 bytes as uint8: those that PyTorch has for the same numbers."""
    state = np.frombuffer(ctx.rng.get_state(), np.uint8).copy()
    return fresh(state, Spec(state.shape, uint8), CPU, ctx.ledger)


@special(family="random", returns="value", example={})
def set_rng_state(ctx: Context, new_state: Array | None = None) -> None:
    """Takes the session's generator back to a state that `get_rng_state`, here or in PyTorch, gave.

    Without one it begins again from its seed.
    """
    if new_state is None:
        ctx.touch_rng().manual_seed(ctx.rng.initial_seed)
        return
    if new_state.dtype is not uint8:
        raise WrongType("RNG state must be a torch.ByteTensor", param="new_state")
    state = np.ascontiguousarray(new_state.backend.to_host(new_state.array)).tobytes()
    ctx.touch_rng().set_state(state)
