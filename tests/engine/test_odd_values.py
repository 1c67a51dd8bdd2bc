"""Numbers and shapes that nobody means to give, each of them answered or refused as PyTorch 2.13 does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import run, step

INF, NAN = float("inf"), float("nan")
I = {"re": 0, "im": 1}
ONE = [1.0, 2.0]
HOLED = [["NaN", 1.0], [1.0, 1.0]]
NOT_FINITE = "The algorithm failed to converge because the input matrix contained non-finite values."


def made(op: str, **args: Any) -> Any:
    return run(Session("s"), step(op, "y", **args), return_=["y"])["results"]["y"]


def of(dtype: str, data: Any) -> dict[str, Any]:
    return {"data": data, "dtype": dtype}


@pytest.mark.parametrize(
    "op, args, words",
    [
        ("logspace", {"start": 0, "end": 1, "steps": 3, "base": I}, "argument 'base' must be float, not complex"),
        ("logspace", {"start": 39, "end": 0, "steps": 1}, "value cannot be converted to type float without overflow"),
        ("pinverse", {"input": HOLED}, f"linalg.svd: {NOT_FINITE}"),
        ("linalg.matrix_rank", {"A": HOLED}, f"linalg.svd: {NOT_FINITE}"),
        ("norm", {"input": ONE, "p": I}, "linalg.vector_norm: Expected a non-complex scalar as the order of norm."),
        ("dist", {"input": ONE, "other": ONE, "p": I}, "Expected a non-complex scalar as the order of norm."),
        ("repeat_interleave", {"input": ONE, "repeats": 1.5}, "argument 'repeats' must be Tensor, not float"),
        ("isclose", {"input": ONE, "other": ONE, "rtol": "NaN"}, "rtol must be greater than or equal to zero, but got"),
        ("cov", {"input": ONE, "aweights": ["NaN", 1.0]}, "cov(): aweights cannot be negative"),
        ("add", {"input": ONE, "other": ONE, "alpha": True}, "Boolean alpha only supported for Boolean results."),
        ("normal", {"mean": 0.5, "std": I, "size": [2]}, "normal(): argument 'std' must be float, not complex"),
        ("bernoulli_", {"input": ONE, "p": I}, "bernoulli_(): argument 'p' must be float, not complex"),
        ("random_", {"input": of("complex64", []), "to": 7}, "check_random_bounds handles only integral"),
        ("nn.init.dirac_", {"tensor": [[[1.0]]], "groups": 0}, "integer modulo by zero"),
        ("nn.init.sparse_", {"tensor": [[1.0]], "sparsity": "NaN"}, "cannot convert float NaN to integer"),
        ("cross", {"input": 1.5, "other": 1.5, "dim": -1}, "Dimension specified as -1 but tensor has no dimensions"),
        (
            "nn.functional.fractional_max_pool2d",
            {"input": [[[1.0]]], "kernel_size": 1, "output_ratio": "Infinity"},
            "cannot convert float infinity to integer",
        ),
        (
            "nn.functional.ctc_loss",
            {
                "log_probs": np.zeros((3, 2, 4)).tolist(),
                "targets": [[1, 2]],
                "input_lengths": [3, 3],
                "target_lengths": [2, 2],
            },
            "Expected tensor to have size 2 at dimension 0, but got size 1 for argument #2 'targets'",
        ),
        (
            "nn.functional.nll_loss",
            {"input": [[[0.5, 0.5], [0.5, 0.5]]], "target": of("uint8", [[0, 1]])},
            "expected scalar type Long but found Byte",
        ),
        (
            "binomial",
            {"count": [3], "prob": [0.5]},
            "binomial only supports floating-point dtypes for count, got: Long",
        ),
        (
            "binomial",
            {"count": of("float16", [3.0]), "prob": of("float16", [0.5])},
            "\"binomial_cpu\" not implemented for 'Half'",
        ),
        ("binomial", {"count": [3.0], "prob": of("float64", [0.5])}, "Found dtype Double but expected Float"),
        (
            "nn.functional.pad",
            {"input": [[1.0, 2.0]], "pad": [-1, -1], "mode": "reflect"},
            "input (W: 2) is too small. Calculated output W: 0",
        ),
        (
            "nn.functional.pad",
            {"input": [[1.0, 2.0]], "pad": [1] * 6, "mode": "circular"},
            "but got padding length 6 and input of dimension 2",
        ),
        (
            "nn.functional.group_norm",
            {"input": [[1.0, 2.0]], "num_groups": 2},
            "Expected more than 1 value per channel when training, got input size [1, 2]",
        ),
        (
            "nn.functional.layer_norm",
            {"input": ONE, "normalized_shape": [2], "weight": ONE, "bias": [1, 2]},
            "expected scalar type Float but found Long",
        ),
        (
            "baddbmm",
            {"input": [[1.0]], "batch1": of("float64", [[[1.0]]]), "batch2": [[[1.0]]]},
            "Input dtypes must be the same, got: input float, batch1: double, batch2: float",
        ),
        (
            "baddbmm",
            {"input": [[1.0]], "batch1": ONE, "batch2": [[[1.0]]]},
            "Dimension out of range (expected to be in range of [-1, 0], but got 1)",
        ),
        ("quantile", {"input": of("float32", []), "q": 1.5}, "quantile() q must be in the range [0, 1] but got 1.5"),
        ("linalg.cross", {"input": [True] * 3, "other": [1.0] * 3}, "\"cross\" not implemented for 'Bool'"),
        ("tensor", {"data": ["NaN", 1], "dtype": "uint8"}, "value cannot be converted to type uint8 without overflow"),
        ("einsum", {"equation": "ab->ab->a", "operands": [[[1.0]]]}, "invalid subscript given at index 6"),
        ("einsum", {"equation": "....", "operands": [ONE, ONE]}, "found '.' for operand 0 for which an ellipsis was"),
        (
            "einsum",
            {"equation": "...,...", "operands": [ONE, [1.0] * 3]},
            "dimension 0 covered by ellipsis in operand 1has size 3 which does not broadcast with",
        ),
        (
            "nn.functional.linear",
            {"input": ONE, "weight": [ONE] * 3, "bias": [[1.0] * 3] * 2},
            "output with shape [3] doesn't match the broadcast shape [2, 3]",
        ),
        (
            "nn.functional.fractional_max_pool2d",
            {"input": [[[1.0]]], "kernel_size": 1, "output_ratio": [1, I]},
            "int() argument must be a string, a bytes-like object or a real number, not 'complex'",
        ),
        (
            "nn.functional.pad",
            {"input": [[1.0]], "pad": [-1, 1], "mode": "circular"},
            "Negative padding value is resulting in an empty dimension",
        ),
        (
            "nn.functional.pad",
            {"input": {"data": [], "shape": [0, 3], "dtype": "int64"}, "pad": [1, 2], "value": "NaN"},
            "value cannot be converted to type int64_t without overflow",
        ),
        ("nn.functional.hardtanh", {"input": [0], "min_val": 0.5, "max_val": 0.0}, "min_val cannot be greater than"),
        (
            "roll",
            {"input": {"data": [], "shape": [0, 2]}, "shifts": [1, 2, 3], "dims": [0, 1]},
            "shifts and dimensions must align. shifts: 3, dims:2",
        ),
        (
            "cholesky_inverse",
            {"L": [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]},
            "cholesky_inverse: (Batch element 1): The diagonal element 2 is zero, the inversion could not be completed",
        ),
        (
            "index_fill",
            {"input": of("int32", [1]), "dim": 0, "index": [0], "value": {"data": 1 << 40, "dtype": "int64"}},
            "value cannot be converted to type int without overflow",
        ),
        (
            "nn.functional.softshrink",
            {"input": of("float64", ONE), "lambd": "Infinity"},
            "lambda must be in range [0, 1.79769e+308] for input dtype Double, but found inf",
        ),
        (
            "native_group_norm",
            {"input": [ONE], "weight": None, "bias": None, "N": 1, "C": 2, "HxW": 7, "group": 1, "eps": 1e-5},
            "Expected the input to have N * C * HxW elements",
        ),
        (
            "nn.functional.batch_norm",
            {"input": [ONE], "running_mean": {"data": ONE, "requires_grad": True}, "running_var": ONE},
            "The function 'native_batch_norm' is not differentiable with respect to argument 'running_mean'.",
        ),
        (
            "masked_fill",
            {"input": ONE, "mask": [True, False], "value": {"data": [0.0, 1.0], "dtype": "complex64"}},
            "value cannot be converted to type float without overflow",
        ),
    ],
)
def test_refused(op: str, args: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError) as caught:
        made(op, **args)
    assert words in caught.value.detail


@pytest.mark.parametrize(
    "op, args, expected",
    [
        ("nn.functional.multi_margin_loss", {"input": [["NaN", 1.0, 2.0]], "target": [1]}, 2 / 3),
        ("nn.functional.multi_margin_loss", {"input": [[0.0, 0.0, 0.0]], "target": [1], "p": 2.0}, 2 / 3),
        ("nn.functional.multilabel_margin_loss", {"input": [["NaN", 1.0, 2.0]], "target": [[1, -1, 0]]}, 2 / 3),
        (
            "nn.functional.soft_margin_loss",
            {"input": [100.0, -200.0], "target": [-1.0, -1.0], "reduction": "none"},
            [INF, 0.0],
        ),
        ("cdist", {"x1": [["NaN", 1.0]], "x2": [[1.0, 1.0]], "p": 0.0}, [[NAN]]),
        ("nn.functional.linear", {"input": ONE, "weight": [ONE] * 3, "bias": [[1.0] * 3]}, [6.0, 6.0, 6.0]),
        ("triu", {"input": [[1.0, 2.0]], "diagonal": -(1 << 63)}, [[1.0, 2.0]]),
        ("roll", {"input": {"data": [], "shape": [0]}, "shifts": 1, "dims": 5}, []),
        ("roll", {"input": ONE, "shifts": 1, "dims": None}, [2.0, 1.0]),
        ("sort", {"input": ONE, "stable": None}, [1.0, 2.0]),
        ("logspace", {"start": 4.3, "end": 2, "steps": 1, "base": 3.0, "dtype": "int32"}, [112]),
        ("logspace", {"start": 0, "end": -1, "steps": 2, "base": 1e-9, "dtype": "int64"}, [1, 999999999]),
        (
            "linspace",
            {"start": -3, "end": 3, "steps": 16, "dtype": "int64"},
            [-3, -2, -2, -1, -1, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3],
        ),
        (
            "nn.functional.ctc_loss",  # a target that is the blank
            {
                "log_probs": np.log(np.full((2, 1, 4), 0.25)).tolist(),
                "targets": [[1, 2]],
                "input_lengths": [2],
                "target_lengths": [2],
                "blank": 2,
                "reduction": "sum",
            },
            np.log(16.0),
        ),
        (
            "nn.functional.kl_div",
            {"input": [ONE, ONE], "target": [ONE, ONE], "log_target": True, "reduction": "batchmean", "reduce": False},
            [[0.0, 0.0]] * 2,
        ),
        (
            "nn.functional.kl_div",
            {"input": [[0.0], [0.0]], "target": [[1.0], [1.0]], "log_target": True}
            | {"reduction": "batchmean", "size_average": True},
            np.e / 2,
        ),
        ("linalg.vector_norm", {"x": 2.0, "ord": "NaN"}, NAN),
        ("linalg.vector_norm", {"x": [[0.5], [-0.25]], "ord": 1e9, "dim": 1}, [0.5, 0.25]),
        (
            "addmm",
            {"input": [ONE], "mat1": {"data": [], "shape": [1, 0]}, "mat2": {"data": [], "shape": [0, 2]}, "alpha": I},
            [ONE],
        ),
        (
            "nn.functional.triplet_margin_loss",
            {"anchor": [[0.0]], "positive": [[1e9]], "negative": [[1e9]], "margin": 10.0},
            0.0,
        ),
        ("nn.functional.multilabel_margin_loss", {"input": 2.0, "target": [0]}, 0.0),
        ("nn.functional.normalize", {"input": [ONE, ONE], "p": 1.0, "dim": None}, [[1 / 6, 1 / 3]] * 2),
        ("nn.functional.threshold", {"input": ONE, "threshold": {"re": 1.5, "im": 0}, "value": 0}, [0.0, 2.0]),
        ("scatter_add", {"input": [1.0, 2.0], "dim": 0, "index": 1, "src": [4.0, 5.0]}, [1.0, 6.0]),
        ("scatter_reduce", {"input": ONE, "dim": 0, "index": 1, "src": [4.0, 5.0], "reduce": "amax"}, [1.0, 4.0]),
        (
            "masked_fill",
            {"input": ONE, "mask": [True, False], "value": {"data": [3.0, 0.0], "dtype": "complex64"}},
            [3.0, 2.0],
        ),
        ("nn.functional.avg_pool1d", {"input": [[(1 << 62) + 1, 2, -3, 0]], "kernel_size": 2}, [[(1 << 61) + 1, -1]]),
        (
            "nn.functional.rms_norm",
            {
                "input": of("bfloat16", []) | {"shape": [0, 1]},
                "normalized_shape": [1],
                "weight": of("complex64", [ONE]),
            },
            np.empty((0, 1)),
        ),
        ("nn.functional.mse_loss", {"input": [1, 3], "target": [0, 0], "weight": [1, 1]}, 5.0),
        (
            "nn.functional.batch_norm",
            {"input": {"data": [], "shape": [0]}, "running_mean": None, "running_var": None, "training": True},
            [],
        ),
    ],
)
def test_answered(op: str, args: dict[str, Any], expected: Any) -> None:
    found = made(op, **args)
    values = (found["values"] if op == "sort" else found).values
    np.testing.assert_allclose(values, expected, rtol=1e-6 if values.dtype.kind == "f" else 0)


def test_running_sums_begin_at_zero() -> None:
    found = made("cumsum", input=[-0.0, -0.0], dim=0).values
    assert not np.signbit(found).any()


def test_a_singular_matrix_is_told_and_not_refused() -> None:
    found = made("linalg.solve_ex", A=[[[0.0, 0.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 4.0]]], B=[[1.0, 1.0]] * 2)
    assert found["info"].values.tolist() == [1, 0]
    assert np.isnan(found["result"].values[0]).all()
    assert found["result"].values[1].tolist() == [0.5, 0.25]
    with pytest.raises(EngineError, match="The solver failed because the input matrix is singular"):
        made("linalg.solve_ex", A=[[0.0, 0.0], [0.0, 0.0]], B=ONE, check_errors=True)


def test_a_permutation_in_bfloat16_is_rounded_and_not_refused() -> None:
    assert made("randperm", n=300, dtype="bfloat16").shape == (300,)
    with pytest.raises(EngineError, match="n cannot be greater than 2049 for Half type"):
        made("randperm", n=3000, dtype="float16")


def test_one_element_of_no_dimensions_has_its_kth_value_whatever_the_dtype() -> None:
    assert made("kthvalue", input=True, k=1)["values"].values.tolist() is True


def test_the_gradient_for_a_target_is_not_held_where_the_loss_is() -> None:
    done = run(
        Session("s"),
        step("nn.functional.binary_cross_entropy", "y", input=[0.0, 1.0], target="t", reduction="sum"),
        step("backward", input="y"),
        inputs={"t": {**of("float32", [0.3, 0.4]), "requires_grad": True}},
        return_=["t.grad"],
    )
    assert done["results"]["t.grad"].values.tolist() == [INF, -INF]


def gradients(*steps: Any, **leaves: Any) -> list[Any]:
    """The gradients of the sum of y, as the steps make it, for each leaf."""
    done = run(
        Session("s"),
        *steps,
        step("sum", "z", input="y"),
        step("backward", input="z"),
        inputs={name: {**data, "requires_grad": True} for name, data in leaves.items()},
        return_=[f"{name}.grad" for name in leaves],
    )
    found = done["results"].values()
    return [None if grad is None else grad.values.tolist() for grad in found]


def test_an_index_of_no_dimensions_stands_for_one_place() -> None:
    pair, three = of("float32", [1.0, 2.0]), of("float32", [1.0, 2.0, 3.0])
    add = step("scatter_add", "y", input="x", dim=0, index=1, src="s")
    assert gradients(add, x=pair, s=three) == [[1.0, 1.0], [1.0, 0.0, 0.0]]
    most = step("scatter_reduce", "y", input="x", dim=0, index=0, src="s", reduce="amax")
    assert gradients(most, x=of("float32", [0.5, 2.0]), s=three) == [[0.0, 1.0], [1.0, 0.0, 0.0]]
    strided = step("slice_copy", "half", input="x", dim=0, step=2), step("gather", "y", input="half", dim=0, index=1)
    assert gradients(*strided, x=three) == [[0.0, 0.0, 1.0]]
    view = step("getitem", "half", input="x", index=["::2"]), step("gather", "y", input="half", dim=0, index=1)
    assert gradients(*view, x=three) == [[0.0, 0.0, 1.0]]


def test_of_nothing_the_gradient_is_nothing() -> None:
    empty = {"data": [], "shape": [0], "dtype": "float32"}
    assert gradients(step("cat", "y", tensors=["a", "b"], dim=2), a=empty, b=empty) == [[], []]
    none = {"data": [], "shape": [0, 1], "dtype": "float64"}
    assert gradients(step("cdist", "y", x1="x", x2=none), x=of("float64", [["-Infinity"]])) == [[[0.0]]]


def test_halfway_between_two_neighbours_is_no_function_of_the_quantile() -> None:
    q = step("quantile", "y", input="x", q="q", interpolation="midpoint")
    assert gradients(q, x=of("float32", [0.0, 1.0, 2.0]), q=of("float32", [0.3])) == [[0.5, 0.5, 0.0], None]


def test_the_softmax_of_an_infinity_has_no_gradient_to_speak_of() -> None:
    for name in ("softmax", "log_softmax"):
        assert np.isnan(gradients(step(name, "y", input="x", dim=0), x=of("float32", "Infinity"))).all()


def test_of_several_nan_adaptive_pooling_takes_the_last() -> None:
    found = made(
        "nn.functional.adaptive_max_pool1d", input=[["NaN", 1.0, "NaN", 2.0]], output_size=1, return_indices=True
    )
    assert found[1].values.tolist() == [[2]]


def test_a_matrix_keeps_its_digits_beside_a_huge_one() -> None:
    small = [[0.5, 3.0], [-7.0, 0.25]]
    alone = made("matrix_exp", input=of("float64", small)).values
    many = made(
        "matrix_exp", input=of("float64", [[[1e30, 0.0], [0.0, 1e30]], small, [["NaN", 0.0], [0.0, 0.0]]])
    ).values
    np.testing.assert_allclose(many[1], alone, rtol=1e-14)
    big = made("matrix_exp", input=of("float64", [[["NaN", 0.0], [0.0, 0.0]], [[20.0, 0.0], [0.0, -20.0]]])).values
    np.testing.assert_allclose(big[1].diagonal(), np.exp([20.0, -20.0]), rtol=1e-12)


@pytest.mark.parametrize("place", [1e30, -1e30, 1e10])
@pytest.mark.parametrize("mode", [0, 1, 2])
def test_far_outside_a_picture_there_are_zeros(place: float, mode: int) -> None:
    args = {"interpolation_mode": mode, "padding_mode": 0, "align_corners": False}
    assert made("grid_sampler_2d", input=[[[[1.0, 1.0]]]], grid=[[[[place, place]]]], **args).values.item() == 0
    if mode < 2:
        found = made("grid_sampler_3d", input=[[[[[1.0, 1.0]]]]], grid=[[[[[place, "NaN", "Infinity"]]]]], **args)
        assert found.values.item() == 0
    args["padding_mode"] = 1
    found = made("grid_sampler_2d", input=[[[[1.0, 2.0]]]], grid=[[[[place, 0.0]]]], **args)
    assert found.values.item() == (2 if place > 0 else 1)


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_a_number_of_no_dimensions_counts_fully_beside_a_target(name: str) -> None:
    found = made(f"nn.functional.{name}", input=of("float64", 1.0), target=of("float32", [1.0, 2.0]))
    assert found.dtype == "float64"


def test_what_no_slice_is_over_passes_its_gradient_on() -> None:
    x = of("float32", [[3.0, 4.0]])
    assert gradients(step("renorm", "y", input="x", p=2, dim=0, maxnorm="Infinity"), x=x) == [[[1.0, 1.0]]]


@pytest.mark.parametrize("driver", ["gelsy", "gelsd", "gelss"])
def test_least_squares_of_a_matrix_without_full_rank(driver: str) -> None:
    a = of("float64", [[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    solve = step("linalg.lstsq", ["y", "residuals", "rank", "values"], A="a", B="b", driver=driver)
    of_a, of_b = gradients(solve, a=a, b=of("float64", [[5.0], [7.0]]))
    np.testing.assert_allclose(of_a, [[-0.2, 1.0, -1.4], [0.84, 0.0, 1.68]], atol=1e-12)
    np.testing.assert_allclose(of_b, [[0.6], [0.0]], atol=1e-12)


def test_the_rank_in_least_squares_is_that_of_the_matrices_that_were_given() -> None:
    found = made("linalg.lstsq", A=np.ones((3, 1, 2, 3)).tolist(), B=np.ones((3, 2, 2, 1)).tolist())
    assert found["rank"].values.tolist() == [[1], [1], [1]]


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", 1.0])
def test_the_softmax_of_one_number_passes_nan_on_to_its_gradient(op: str, number: Any) -> None:
    inputs = {"x": {"data": number, "requires_grad": True}}
    back = step("autograd.backward", tensors=["y"])
    done = run(Session("s"), step(op, "y", input="x", dim=0), back, inputs=inputs, return_=["x.grad"])
    assert np.array_equal(done["results"]["x.grad"].values, 0.0 if number == 1.0 else NAN, equal_nan=True)
