"""What PyTorch's layers and losses do with integers, halves, kinks, empty batches and operands that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.session import Session
from engine.tensor import Tensor
from tests.engine.programs import run, step
from tests.engine.tensors import call, context, host, leaf, tensor  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("context")


def _nn(name: str, *args: Any, **kwargs: Any) -> Any:
    return call(f"nn.functional.{name}", *args, **kwargs)


def _floats(*shape: int, kind: str = "float32") -> Tensor:
    return tensor(np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype(kind))


def _second(x: Tensor, made: Tensor) -> Any:
    """The gradient of the gradient's sum."""
    ones = tensor(np.ones(made.shape))
    (first,) = call("autograd.grad", [made], [x], [ones], create_graph=True)
    return host(call("autograd.grad", [first], [x], [ones])[0]).tolist()


# ---------------------------------------------------------------- values


def test_a_margin_is_an_integer_beside_integers() -> None:
    made = _nn("hinge_embedding_loss", tensor([0, 1, 3]), tensor([1, -1, -1]), 2.7, reduction="none")
    assert made.dtype.name == "int64"
    assert host(made).tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", ["huber_loss", "soft_margin_loss"])
def test_losses_that_are_computed_in_place_have_the_inputs_dtype(name: str) -> None:
    half = _floats(3, kind="float16")
    assert _nn(name, half, _floats(3)).dtype.name == "float16"
    assert _nn(name, _floats(3), _floats(3, kind="float64")).dtype.name == "float32"


def test_group_norm_of_halves_with_float32_weights_is_of_halves() -> None:
    x = _floats(2, 4, 3, kind="float16")
    weight = tensor(np.arange(4, dtype=np.float32))
    made = _nn("group_norm", x, 2, weight, weight)
    assert made.dtype.name == "float16"
    wide = _nn("group_norm", call("to", x, "float32"), 2, weight, weight)
    assert host(made).tolist() == host(call("to", wide, "float16")).tolist()


def test_local_response_norm_divides_integers_as_integers() -> None:
    made = _nn("local_response_norm", tensor(np.array([[[1], [2], [3]]])), 2, 1.0, 1.0, 0.0)
    np.testing.assert_allclose(host(made).reshape(-1), [np.inf, 2 / 2, 3 / 6])


def test_second_derivatives_at_kinks_are_pytorchs() -> None:
    x = leaf([1.0, 0.5])
    assert _second(x, _nn("softplus", x, 2.0, 2.0))[0] == 0  # at the threshold
    x, weight, ones = leaf([0.0]), leaf([0.25]), leaf([1.0])
    (first,) = call("autograd.grad", [call("prelu", x, weight)], [x], [ones], create_graph=True)
    assert host(first).tolist() == [0.25]
    assert host(call("autograd.grad", [first], [ones], [tensor([3.0])])[0]).tolist() == [3.0]


@pytest.mark.parametrize("name", ["pixel_shuffle", "pixel_unshuffle"])
def test_pixels_that_stay_where_they_are_have_memory_of_their_own(name: str) -> None:
    x = _floats(1, 1, 2, 2)
    made = _nn(name, x, 1)
    assert made.storage is not x.storage
    assert host(made).tolist() == host(x).tolist()


def test_embeddings_are_scaled_down_by_any_norm() -> None:
    for norm, want in ((0.0, [[0.5, 0, 1], [0, 0, 3]]), (float("-inf"), [[1, 0, 2], [0, 0, 3]])):
        table = tensor(np.array([[1.0, 0, 2], [0, 0, 3]]))
        made = _nn("embedding", tensor([0, 1]), table, max_norm=1.0, norm_type=norm)
        np.testing.assert_allclose(host(made), want, rtol=1e-6)


def test_a_view_that_became_a_leaf_has_gradients_of_every_order() -> None:
    steps = [
        {**step("as_strided", "x", input="m", size=[3], stride=[2]), "no_grad": True},
        step("requires_grad_", "x", input="x"),
        step("pow", "y", input="x", exponent=3),
        step("autograd.grad", ["d"], outputs=["y"], inputs=["x"], grad_outputs=["g"], create_graph=True),
        step("autograd.grad", ["e"], outputs=["d"], inputs=["x"], grad_outputs=["g"]),
    ]
    inputs = {"m": {"data": [1.0, 0.0, 2.0, 0.0, 3.0]}, "g": {"data": [1.0, 1.0, 1.0]}}
    results = run(Session("s"), *steps, inputs=inputs, return_=["d", "e"])["results"]
    assert results["d"].values.tolist() == [3, 12, 27]
    assert results["e"].values.tolist() == [6, 12, 18]


# ---------------------------------------------------------------- samples of an image


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_a_grid_of_pixel_centers_gives_the_image(mode: str, padding: str) -> None:
    x = _floats(2, 3, 4, 5, kind="float64")
    lines = [np.linspace(-1, 1, n) for n in (4, 5)]
    at = np.stack(np.meshgrid(*lines, indexing="ij")[::-1], axis=-1)
    made = _nn("grid_sample", x, tensor(np.stack([at, at])), mode, padding, True)
    np.testing.assert_allclose(host(made), host(x), atol=1e-12)


def test_what_lies_outside_an_image_is_zero_whatever_the_image() -> None:
    x = tensor(np.full((1, 1, 2, 2), np.nan))
    made = _nn("grid_sample", x, tensor(np.array([[[[5.0, 5.0]]]])), align_corners=True)
    assert host(made).reshape(-1).tolist() == [0]


# ---------------------------------------------------------------- refusals

_IMAGE = (1, 2, 5, 5)
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("batch_norm", ((),), {"training": True}, "tuple index out of range"),
    ("batch_norm", ((3,),), {"training": True},
     "Dimension out of range (expected to be in range of [-1, 0], but got 1)"),
    ("binary_cross_entropy_with_logits", ((3, 4), (3, 4)), {"pos_weight": (2, 3, 4)},
     "output with shape [3, 4] doesn't match the broadcast shape [2, 3, 4]"),
    ("conv2d", (_IMAGE, (3, 2, 2, 2)), {"dilation": 0}, "dilation should be greater than zero, but got [0, 0]"),
    ("conv_transpose1d", ((1, 2, 5), (2, 3, 2)), {"dilation": 0},
     "dilation should be greater than zero, but got dilation_height: 1, dilation_width: 0"),
    ("fractional_max_pool2d", (_IMAGE, 2), {"output_size": -1},
     "Trying to create tensor with negative dimension -1: [1, 2, -1, -1]"),
    ("huber_loss", ((3,), (3,)), {"delta": float("nan")}, "huber_loss does not support non-positive values for delta."),
    ("interpolate", ((2, 0, 4),), {"scale_factor": 2.0},
     "Non-empty 3D data tensor expected but got a tensor with sizes [2, 0, 4]"),
    ("max_unpool1d", ((1, 1, 2), (1, 1, 2), [3, 3]), {}, "tuple index out of range"),
    ("multilabel_soft_margin_loss", ((), (5, 5)), {}, "Dimension specified as -1 but tensor has no dimensions"),
    ("pad", ((2, 0, 3), [1, 1], "reflect"), {},
     ("Expected 2D or 3D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, "
      "but got: [2, 0, 3]")),
    ("soft_margin_loss", ((4,), (3, 4)), {}, "output with shape [4] doesn't match the broadcast shape [3, 4]"),
]  # fmt: skip


def _given(value: Any) -> Any:
    return _floats(*value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c[0])
def test_what_pytorch_refuses_is_refused_in_its_words(case: Any) -> None:
    name, args, kwargs, words = case
    given = [_given(v) for v in args]
    if name == "batch_norm":
        given += [None, None]
    with pytest.raises(EngineError) as caught:
        _nn(name, *given, **{key: _given(v) for key, v in kwargs.items()})
    assert caught.value.detail == words
