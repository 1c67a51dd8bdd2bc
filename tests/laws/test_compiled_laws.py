"""The laws hold on compiled kernels too: all of them, for the operations that ask for one, at every size."""

from __future__ import annotations

import numpy as np
import pytest

from engine import backend, compiled
from engine.backend import CPU
from engine.op import REGISTRY
from tests.laws.law import LAWS, subjects
from tests.laws.test_laws import hold_all

OPERATIONS = (
    "cumsum",
    "embedding",
    "erf",
    "gather",
    "hardshrink",
    "index_select",
    "log_softmax",
    "logsumexp",
    "nn.functional.batch_norm",
    "nn.functional.conv1d",
    "nn.functional.conv2d",
    "nn.functional.conv3d",
    "nn.functional.conv_transpose2d",
    "nn.functional.cross_entropy",
    "nn.functional.gelu",
    "nn.functional.group_norm",
    "nn.functional.grid_sample",
    "nn.functional.hardswish",
    "nn.functional.hardtanh",
    "nn.functional.layer_norm",
    "nn.functional.leaky_relu",
    "nn.functional.silu",
    "nn.functional.softshrink",
    "optim.adam_",
    "relu",
    "scatter_add",
    "sigmoid",
    "softmax",
    "topk",
)


@pytest.mark.parametrize("name", OPERATIONS)
def test_laws_on_compiled_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CPU, "kernels", compiled.load())
    monkeypatch.setattr(backend, "COMPILED_FROM", 1)
    asked: set[str] = set()
    plain = CPU.compiled

    def noticing(kernel: str, *arrays: object) -> object:
        made = plain(kernel, *arrays)
        if made is not None:
            asked.add(kernel)
        return made

    monkeypatch.setattr(CPU, "compiled", noticing)
    assert name in REGISTRY
    with np.errstate(all="ignore"):
        hold_all(
            lambda law=law: law.holds(name, "cpu")  # type: ignore[misc]
            for law in LAWS.values()
            if name in subjects(law)
        )
    assert asked
