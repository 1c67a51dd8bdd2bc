"""Gradients that do not depend on an input, and yet require grad as in PyTorch, whose backward kernels take the input:
with create_graph they can be differentiated again, to zeros."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import floats, run, step, values

PICTURE = [1, 2, 4, 4]


def twice(op: str, args: dict[str, Any], shape: list[int] = PICTURE) -> Any:
    """The reply of a program that differentiates an operation, and then its gradient."""
    return run(
        Session("s"),
        step(op, "y", input="x", **args),
        step("ones_like", "one", input="y"),
        step("autograd.grad", ["g"], outputs=["y"], inputs=["x"], grad_outputs=["one"], create_graph=True),
        step("ones_like", "seed", input="g"),
        step("autograd.grad", ["h"], outputs=["g"], inputs=["x"], grad_outputs=["seed"]),
        inputs={"x": {**floats(*shape), "requires_grad": True}},
        return_=["g", "h"],
    )["results"]


@pytest.mark.parametrize(
    "op, args, node",
    [
        ("nn.functional.max_pool2d", {"kernel_size": 2}, "MaxPool2DWithIndicesBackwardBackward0"),
        ("nn.functional.avg_pool2d", {"kernel_size": 2}, "AvgPool2DBackwardBackward0"),
        ("nn.functional.adaptive_avg_pool2d", {"output_size": 3}, "AdaptiveAvgPool2DBackwardBackward0"),
        ("nn.functional.adaptive_max_pool2d", {"output_size": 3}, "AdaptiveMaxPool2DBackwardBackward0"),
        ("nn.functional.pad", {"pad": [1, 1], "mode": "reflect"}, "ReflectionPad1DBackwardBackward0"),
        ("nn.functional.interpolate", {"size": [3, 2], "mode": "area"}, "AdaptiveAvgPool2DBackwardBackward0"),
    ],
)
def test_second_gradients_are_zeros(op: str, args: dict[str, Any], node: str) -> None:
    made = twice(op, args, [2, 4, 4] if "pad" in args else PICTURE)
    assert made["g"].requires_grad
    assert made["g"].grad_fn == node
    assert not made["h"].values.any()


def test_the_loss_of_classes_too() -> None:
    made = twice("nn.functional.nll_loss", {"target": [0, 2]}, [2, 3])
    assert values(made["h"]) == [[0.0] * 3] * 2


@pytest.mark.parametrize(
    "op, args",
    [
        ("nn.functional.interpolate", {"size": [3, 2], "mode": "bilinear"}),
        ("nn.functional.adaptive_avg_pool2d", {"output_size": 1}),
        ("mul", {"other": 2}),
    ],
)
def test_others_are_refused(op: str, args: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="element 0 of tensors does not require grad and does not have a grad_fn"):
        twice(op, args)


def test_what_the_gradient_does_depend_on_has_its_gradient_beside_the_zeros() -> None:
    done = run(
        Session("s"),
        step("nn.functional.avg_pool1d", "y", input="x", kernel_size=2),
        step("pow", "z", input="y", exponent=2),
        step("sum", "loss", input="z"),
        step("autograd.grad", ["g"], outputs=["loss"], inputs=["x"], create_graph=True),
        step("sum", "s", input="g"),
        step("backward", input="s"),
        inputs={"x": {"data": [[[1.0, 3.0, 5.0, 5.0]]], "dtype": "float32", "requires_grad": True}},
        return_=["g", "x.grad"],
    )["results"]
    assert values(done["g"]) == [[[2.0, 2.0, 5.0, 5.0]]]
    assert values(done["x.grad"]) == [[[1.0, 1.0, 1.0, 1.0]]]
