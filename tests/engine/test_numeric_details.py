"""Numbers at the edges: branch cuts, zeros, numbers that do not fit, float16 beside numbers. Expected is PyTorch's."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import run, step
from tests.engine.tensors import call, context, host, tensor  # noqa: F401  (a fixture)

INF, NAN = float("inf"), float("nan")


def gradient(name: str, data: list[Any], dtype: str, **args: Any) -> Any:
    """The gradient of the sum of an operation's result."""
    session = Session("s")
    one = {"data": [1.0, 0.0] if dtype.startswith("complex") else 1.0, "dtype": dtype}
    done = run(
        session,
        step(name, "y", input="x", **args),
        step("sum", "z", input="y"),
        step("backward", input="z", gradient=one),
        inputs={"x": {"data": data, "dtype": dtype, "requires_grad": True}},
        return_=["x.grad"],
    )
    return done["results"]["x.grad"].values.tolist()


@pytest.mark.parametrize(
    "name, points, expected",
    [
        ("asinh", [[0.0, 2.0], [0.0, -2.0]], [0.5773502691896258j, 0.5773502691896258j]),
        ("asin", [[2.0, 0.0], [-2.0, 0.0]], [0.5773502691896258j, 0.5773502691896258j]),
        ("acos", [[2.0, 0.0], [-2.0, 0.0]], [-0.5773502691896258j, -0.5773502691896258j]),
        (
            "acosh",
            [[-2.0, 0.0], [-2.0, -0.0], [0.5, -0.0]],
            [-0.5773502691896258, -0.5773502691896258, 1.1547005383792517j],
        ),
    ],
)
def test_gradients_on_branch_cuts(name: str, points: list[Any], expected: list[complex]) -> None:
    assert gradient(name, points, "complex128") == pytest.approx(expected)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("name", ["reciprocal", "rsqrt"])
def test_the_inverse_of_a_complex_zero_is_infinite(name: str) -> None:
    made = host(call(name, tensor(np.zeros(3, np.complex64))))
    assert np.isposinf(made.real).all()
    assert np.isnan(made.imag).all()


@pytest.mark.parametrize(
    "name, args, expected",
    [
        ("var", {"dim": 0, "correction": 4}, [4.0, 2.0, -6.0]),
        ("var", {"dim": 0, "correction": 3}, [-INF, -INF, INF]),
        ("var", {"correction": 4}, [INF, INF, INF]),
        ("std", {"dim": 0, "correction": 4}, [0.0, 0.0, 0.0]),
    ],
)
def test_gradients_of_a_variance_without_freedom(name: str, args: dict[str, Any], expected: list[float]) -> None:
    assert gradient(name, [1.0, 2.0, 6.0], "float32", **args) == expected


@pytest.mark.usefixtures("context")
def test_the_deviation_of_complex_numbers_without_freedom_is_that_of_its_parts() -> None:
    real = tensor(np.array([1, 2], np.complex64))
    both = tensor(np.array([1 + 1j, 2], np.complex64))
    assert np.isnan(host(call("std", real, dim=0, correction=5)))
    assert host(call("std", both, dim=0, correction=5)) == INF


@pytest.mark.usefixtures("context")
def test_a_number_before_float16_is_rounded_and_one_after_it_is_not() -> None:
    x = tensor(np.array([5, 7], np.float16))
    assert host(call("mul", x, 0.1)).tolist() == [0.5, 0.7001953125]
    assert host(call("mul", 0.1, x)).tolist() == [0.5, 0.69970703125]


@pytest.mark.usefixtures("context")
def test_float16_becomes_complex64() -> None:
    assert call("cfloat", tensor(np.array([1.5], np.float16))).dtype.name == "complex64"


FLOAT = "value cannot be converted to type float without overflow"
HALF = "value cannot be converted to type c10::Half without overflow"


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    "name, dtype, args, words",
    [
        ("clamp", np.float16, (70000.0,), HALF),
        ("clamp", np.float32, (1e39,), FLOAT),
        ("nn.functional.leaky_relu", np.float32, (1j,), FLOAT),
        ("nn.functional.leaky_relu", np.float16, (1e39,), FLOAT),
        ("nn.functional.elu", np.float32, (1e39,), FLOAT),
        ("nn.functional.softplus", np.float32, (1e39,), FLOAT),
        ("nn.functional.hardshrink", np.float16, (70000.0,), HALF),
        ("nn.functional.hardtanh", np.float32, (0.0, 1e39), FLOAT),
        ("quantile", np.float32, (1j,), "must be Tensor or float, not complex"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(name: str, dtype: Any, args: tuple[Any, ...], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        call(name, tensor(np.array([-1, 2], dtype)), *args)


@pytest.mark.usefixtures("context")
def test_factors_that_do_not_fit_are_refused() -> None:
    x = tensor(np.ones((2, 2), np.float32))
    with pytest.raises(EngineError, match=FLOAT):
        call("addmm", x, x, x, alpha=1e39)
    with pytest.raises(EngineError, match=FLOAT):
        call("add", x, x, alpha=1e39)
    n = tensor(np.ones((2, 2), np.int64))
    with pytest.raises(EngineError, match="value cannot be converted to type int64_t without overflow"):
        call("addmm", n, n, n, beta=NAN)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("bias", [(4, 4), (2, 1, 4), (5, 2, 1, 4)])
def test_a_bias_that_broadcasts_is_taken_and_one_that_would_widen_the_result_is_refused(bias: tuple[int, ...]) -> None:
    args = tensor(np.ones((2, 1, 2))), tensor(np.ones((4, 2))), tensor(np.ones(bias))
    if bias == (2, 1, 4):
        assert host(call("nn.functional.linear", *args)).tolist() == [[[3.0] * 4]] * 2
        return
    with pytest.raises(EngineError, match=r"output with shape \[2, 1, 4\] doesn't match the broadcast shape"):
        call("nn.functional.linear", *args)


@pytest.mark.usefixtures("context")
def test_sizes_are_looked_at_in_pytorchs_order() -> None:
    flat = tensor(np.ones((2, 3), np.float32))
    with pytest.raises(EngineError, match=r"Expected 3D \(unbatched\) or 4D \(batched\) input to conv2d"):
        call("nn.functional.conv2d", flat, tensor(np.ones(3, np.float32)))
    with pytest.raises(EngineError, match="q must be a scalar or 1D tensor"):
        call("quantile", tensor(np.ones((2, 2), np.int64)), tensor(np.ones((2, 2), np.float32)))
    with pytest.raises(EngineError, match="either size or scale_factor should be defined"):
        call("nn.functional.interpolate", flat)
    table = tensor(np.ones((4, 3), np.float32))
    with pytest.raises(EngineError, match=r"label_smoothing must be between 0\.0 and 1\.0\. Got: 2\.5"):
        call("nn.functional.linear_cross_entropy", flat, table, tensor(np.array([0, 1])), label_smoothing=2.5)


HALF_OF_IT = "pad should be smaller than or equal to half of kernel size, but got "


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    "name, sizes, args, words",
    [
        (
            "max_pool1d",
            (1, 2, 9),
            (3, 2, 2, 2),
            "max_pool1d() padding should be at most half of kernel size, but got pad",
        ),
        ("max_pool1d", (1, 2, 9), (3, 2, -1, 1), "max_pool1d() padding must be non-negative, but got -1"),
        ("max_pool1d_with_indices", (1, 2, 9), (3, 2, 2, 2), f"{HALF_OF_IT}padW = 2, padH = 0, kW = 3, kH = 1"),
        ("max_pool1d_with_indices", (1, 2, 9), (3, 0, 1, 1), "stride should not be zero"),
        ("max_pool2d", (1, 2, 8, 9), ([3, 5], 2, [2, 1], 2), f"{HALF_OF_IT}padW = 1, padH = 2, kW = 5, kH = 3"),
        ("max_pool3d", (1, 2, 8, 9, 8), (3, 2, 2, 2), f"{HALF_OF_IT}kT: 3 kW: 3 kH: 3 padT: 2 padW: 2 padH: 2"),
    ],
)
def test_padding_is_at_most_half_of_a_window_without_its_dilation(
    name: str, sizes: tuple[int, ...], args: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(EngineError, match=re.escape(words)):
        call(f"nn.functional.{name}", tensor(np.ones(sizes, np.float32)), *args)


def test_scatter_reduce_at_no_index_passes_the_gradient_on() -> None:
    session = Session("s")
    done = run(
        session,
        step("scatter_reduce", "y", input="x", dim=1, index="i", src="s", reduce="amax", include_self=False),
        step("sum", "z", input="y"),
        step("backward", input="z"),
        inputs={
            "x": {"data": [[1.0, 2.0]], "requires_grad": True},
            "i": {"data": [[]], "shape": [1, 0], "dtype": "int64"},
            "s": {"data": [3.0], "requires_grad": True},
        },
        return_=["x.grad", "s.grad"],
    )
    assert done["results"]["x.grad"].values.tolist() == [[1.0, 1.0]]
    assert done["results"]["s.grad"].values.tolist() == [0.0]


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    "start, end, step_, words",
    [
        (0, -0.5, 3.3, "upper bound and lower bound inconsistent with step sign"),
        (5, 3.3, 0.1, "upper bound and lower bound inconsistent with step sign"),
        (0, 5, 0.5, "step must be nonzero"),
        (0, 2, INF, "value cannot be converted to type int64_t without overflow"),
    ],
)
def test_bounds_of_a_whole_range_are_compared_before_they_lose_their_fractions(
    start: float, end: float, step_: float, words: str
) -> None:
    with pytest.raises(EngineError, match=words):
        call("arange", start, end, step_, dtype="int64")
