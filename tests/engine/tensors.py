"""Helpers for tests that run operations on tensors, without a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import engine.ops  # noqa: F401  the operations register themselves
from engine.backend import CPU
from engine.context import Context, active, current
from engine.dtypes import from_numpy
from engine.op import REGISTRY, Spec, choose
from engine.random import Generator
from engine.tensor import Ledger, Tensor, fresh


@pytest.fixture
def context() -> Iterator[Context]:
    """A context of its own, in which the test's operations run."""
    with active(Context(ledger=Ledger(1 << 30), rng=Generator())) as ctx:
        yield ctx


def tensor(values: Any) -> Tensor:
    array = np.array(values)
    d = from_numpy(array.dtype)
    assert d is not None
    return fresh(array, Spec(array.shape, d), CPU, current().ledger)


def leaf(values: Any) -> Tensor:
    made = tensor(np.array(values, dtype=np.float64))
    made.requires_grad = True
    return made


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Runs a public operation as a program's step does."""
    op = REGISTRY[name]
    if op.overloads:
        given = dict(zip(op.overloads[0].names, args, strict=False)) | kwargs
        op = choose(op, given)
        return op.run(op.bind((), given))  # type: ignore[misc]
    return op.run(op.bind(args, kwargs))  # type: ignore[misc]


def host(t: Tensor) -> np.ndarray[Any, Any]:
    return np.array(t.backend.to_host(t.array))


def strides(t: Tensor) -> tuple[int, ...]:
    return tuple(t.strides)
