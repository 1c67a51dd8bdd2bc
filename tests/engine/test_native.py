"""Functions of torch itself: reductions as numbers; fake quantization; states of the generator; products of groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import run, step, values


def answer(*steps: dict[str, Any], back: str = "r") -> Any:
    found = run(Session("s", seed=0), *steps, return_=[back])["results"][back]
    return values(found)


A, B, SIGNS = [[0.5, -1.0], [2.0, 1.5]], [[1.0, 0.25], [0.5, 0.75]], [1.0, -1.0]
LOSSES: dict[str, dict[str, Any]] = {
    "kl_div": {"input": A, "target": B},
    "binary_cross_entropy_with_logits": {"input": A, "target": B},
    "hinge_embedding_loss": {"input": A[0], "target": SIGNS},
    "cosine_embedding_loss": {"input1": A, "input2": B, "target": SIGNS},
    "margin_ranking_loss": {"input1": A[0], "input2": B[0], "target": SIGNS},
    "triplet_margin_loss": {"anchor": A, "positive": B, "negative": [[3.0, 1.0], [0.0, 0.5]]},
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "given, reduction",
    [({}, "none"), ({"reduction": 1}, "mean"), ({"reduction": 2}, "sum"), ({"reduction": "mean"}, "mean")],
)
def test_reductions_are_numbers(name: str, given: dict[str, Any], reduction: str) -> None:
    plain = answer(step(f"nn.functional.{name}", "r", **LOSSES[name], reduction=reduction))
    assert answer(step(name, "r", **LOSSES[name], **given)) == plain


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_convolution_is_that_of_its_dimensions(dims: int, transposed: bool) -> None:
    made = [step("randn", "x", size=[1, 2, *[4] * dims]), step("randn", "w", size=[2, 2, *[3] * dims])]
    rest = {"stride": [2], "padding": [1], "dilation": [1], "groups": 1}
    name = f"nn.functional.conv{'_transpose' if transposed else ''}{dims}d"
    more = {"output_padding": [1]} if transposed else {}
    plain = answer(*made, step(name, "r", input="x", weight="w", **rest, **more))
    asked = {"bias": None, "transposed": transposed, "output_padding": [1 if transposed else 0]}
    assert answer(*made, step("convolution", "r", input="x", weight="w", **rest, **asked)) == plain


def test_quantized_numbers_as_floats() -> None:
    """The example of PyTorch's documentation, and where the gradient passes."""
    x = {"data": [0.0552, 0.9730, 0.3973, -1.0780], "requires_grad": True}
    asked = step("fake_quantize_per_tensor_affine", "r", input="x", scale=0.1, zero_point=0, quant_min=0, quant_max=255)
    made = run(
        Session("s"),
        asked,
        step("sum", "l", input="r"),
        step("backward", "l", input="l"),
        inputs={"x": x},
        return_=["r", "x.grad"],
    )["results"]
    assert np.allclose(values(made["r"]), [0.1, 1.0, 0.4, 0.0])
    assert values(made["x.grad"]) == [1.0, 1.0, 1.0, 0.0]


def test_a_scale_for_each_channel() -> None:
    asked = step(
        "fake_quantize_per_channel_affine",
        "r",
        input=[[0.26, 9.0], [0.26, -9.0]],
        scale=[0.5, 0.125],
        zero_point={"data": [0, 4], "dtype": "int32"},
        axis=0,
        quant_min=0,
        quant_max=15,
    )
    assert answer(asked) == [[0.5, 7.5], [0.25, -0.5]]


@pytest.mark.parametrize(
    "asked, words",
    [
        (
            step("fake_quantize_per_tensor_affine", input=[1.0], scale=1.0, zero_point=9, quant_min=0, quant_max=8),
            "zero_point` must be between",
        ),
        (
            step("fake_quantize_per_tensor_affine", input=[1], scale=1.0, zero_point=0, quant_min=0, quant_max=8),
            "not implemented for 'Long'",
        ),
        (step("kl_div", input=[1.0], target=[1.0], reduction="all"), "all is not a valid value for reduction"),
        (
            step(
                "convolution",
                input=[[1.0]],
                weight=[[1.0]],
                bias=None,
                stride=[1],
                padding=[0],
                dilation=[1],
                transposed=False,
                output_padding=[0],
                groups=1,
            ),
            "at least three dimensions",
        ),
        (
            step(
                "instance_norm",
                input=[1.0, 2.0],
                weight=None,
                bias=None,
                running_mean=None,
                running_var=None,
                use_input_stats=True,
                momentum=0.1,
                eps=1e-5,
                cudnn_enabled=True,
            ),
            "Dimension out of range",
        ),
        (
            step(
                "nn.utils.fuse_conv_bn_weights",
                conv_w=1.0,
                conv_b=None,
                bn_rm=[0.0],
                bn_rv=[1.0],
                bn_eps=0.0,
                bn_w=None,
                bn_b=None,
            ),
            "two dimensions at least",
        ),
        (step("set_rng_state", new_state=[0.0]), "RNG state must be a torch.ByteTensor"),
        (step("set_rng_state", new_state={"data": [1, 2, 3], "dtype": "uint8"}), "of size 5056"),
        (
            step("nn.functional.grouped_mm", mat_a=[[1.0]], mat_b=[[[1.0]]], offs={"data": [2], "dtype": "int32"}),
            "rising places up to 1",
        ),
        (step("lobpcg", A=[[1.0, 0.0], [0.0, 2.0]]), "smaller than 3 x the number"),
    ],
)
def test_what_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        run(Session("s"), asked)


def test_a_state_of_the_generator_brings_its_numbers_back() -> None:
    steps = [
        step("randn", "skip", size=[3]),
        step("get_rng_state", "state"),
        step("randn", "a", size=[5]),
        step("set_rng_state", new_state="state"),
        step("randn", "b", size=[5]),
        step("set_rng_state"),
        step("randn", "c", size=[3]),
    ]
    made = run(Session("s", seed=3), *steps, return_=["a", "b", "c", "skip", "state"])["results"]
    assert values(made["a"]) == values(made["b"])
    assert values(made["c"]) == values(made["skip"])
    assert len(values(made["state"])) == 5056


def test_products_of_groups() -> None:
    a, b = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]
    ends = {"data": [1, 2], "dtype": "int32"}
    asked = step("nn.functional.grouped_mm", "r", mat_a=a, mat_b=b, offs=ends)
    assert answer(asked) == [[1.0, 2.0], [4.0, 3.0], [0.0, 0.0]]


@pytest.mark.parametrize("largest", [True, False])
def test_extreme_eigenvalues(largest: bool) -> None:
    diagonal = [3.0, 1.0, 4.0, 1.5, 9.0, 2.0]
    matrix = np.diag(diagonal).tolist()
    made = answer(step("lobpcg", ["r", "x"], A=matrix, k=2, largest=largest))
    assert np.allclose(made, sorted(diagonal, reverse=largest)[:2])


def test_deviations_do_not_overflow_on_the_way() -> None:
    assert np.isclose(answer(step("std", "r", input=[1e30, 2e30, -1e30])), 1.5275252e30)
    assert answer(step("var", "r", input=[1e30, 2e30, -1e30])) == float("inf")
