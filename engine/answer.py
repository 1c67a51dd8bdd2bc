"""What goes in and out of a worker: plain data, with arrays on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(slots=True)
class ArrayData:
    """Values given by a client: a C-contiguous host array and its dtype name (bfloat16 as uint16 bits).

    `inferred` says that the dtype was guessed from JSON numbers, so that torch.tensor's inference still applies.
    """

    array: np.ndarray[Any, Any]
    dtype: str
    inferred: bool = False


@dataclass(slots=True)
class TensorAnswer:
    """A tensor as a client sees it. `values` is a C-contiguous host array (bfloat16 as uint16 bits), or None."""

    id: str | None
    name: str | None
    shape: tuple[int, ...]
    dtype: str
    device: str
    numel: int
    nbytes: int
    requires_grad: bool
    is_leaf: bool
    grad_fn: str | None
    version: int
    etag: str | None
    values: np.ndarray[Any, Any] | None = None
    grad: TensorAnswer | None = None
    strides: tuple[int, ...] | None = None
