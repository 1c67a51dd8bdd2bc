"""What is refused, in which order and with which words, and what an empty tensor lets pass: as PyTorch 2.13 does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import run, step, values
from tests.engine.tensors import call, context, host, leaf, strides, tensor  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("context")


def words(name: str, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(EngineError) as caught:
        call(name, *args, **kwargs)
    return caught.value.detail


def of(dtype: str, *shape: int) -> Any:
    return tensor(np.ones(shape, dtype))


class TestOrder:
    def test_cells_written_twice_come_before_shapes_and_dtypes(self) -> None:
        x = call("expand", of("float32", 3, 1), [3, 3])
        for name, other in (("add_", of("float32", 2)), ("eq_", of("float32", 2)), ("asin_", None)):
            given = () if other is None else (other,)
            assert words(name, x, *given).startswith("unsupported operation: more than one element")
        whole = call("expand", of("bool", 3, 1), [3, 3])
        assert words("asin_", whole).startswith("unsupported operation: more than one element")

    @pytest.mark.parametrize("name", ["eq_", "logical_and_", "masked_fill_", "add_"])
    def test_what_goes_cell_by_cell_names_the_broadcast_shape(self, name: str) -> None:
        other = of("bool", 5, 5) if name == "masked_fill_" else of("float32", 5, 5)
        rest = (1.0,) if name == "masked_fill_" else ()
        assert words(name, of("float32", 5), other, *rest) == (
            "output with shape [5] doesn't match the broadcast shape [5, 5]"
        )

    def test_masked_fill_names_the_mask_first(self) -> None:
        assert "tensor a (5) must match the size of tensor b (4)" in words(
            "masked_fill", of("float32", 4), of("bool", 5), 1.0
        )

    def test_dims_are_looked_at_before_dtypes(self) -> None:
        for name in ("max", "min", "amax", "amin"):
            assert words(name, of("complex64", 2), dim=3).startswith("Dimension out of range")

    def test_permute_finds_the_first_mistake(self) -> None:
        assert words("permute", of("float32", 1, 2, 3, 4), [2, 2, 9, 9]) == "permute(): duplicate dims are not allowed."
        assert words("permute", of("float32", 1, 2, 3, 4), [2, 9, 2, 9]).startswith("Dimension out of range")


class TestWithoutGradients:
    @pytest.mark.parametrize("name", ["sum", "prod", "nansum"])
    def test_a_sum_in_whole_numbers_is_refused_for_what_requires_grad(self, name: str) -> None:
        assert words(name, leaf([1.0, 2.0]), dtype="int16") == "Autograd not support dtype: Short"
        assert host(call(name, tensor([1.0, 2.0]), dtype="int16")).dtype == np.int16

    @pytest.mark.parametrize("name", ["cumsum", "cumprod"])
    def test_running_sums_too(self, name: str) -> None:
        assert words(name, leaf([1.0, 2.0]), 0, dtype="int64") == "Autograd not support dtype: Long"

    def test_a_value_that_requires_grad_goes_into_no_bools(self) -> None:
        mask = of("bool", 2)
        assert words("masked_fill", mask, mask, leaf(1.0)) == "Autograd not support dtype: Bool"

    def test_comparisons_and_casts_have_no_gradient_to_miss(self) -> None:
        x = leaf([1.0, 2.0])
        assert not call("lt", x, 1.5).requires_grad
        assert not call("to", x, dtype="int64").requires_grad


class TestRunning:
    @pytest.mark.parametrize("name", ["cumsum", "cumprod"])
    def test_bools_are_not_added_up_as_bools(self, name: str) -> None:
        said = f"\"{name}_out_cpu\" not implemented for 'Bool'"
        assert words(name, of("bool", 3), 0, dtype="bool") == said
        assert words(f"{name}_", of("bool", 3), 0) == said
        assert host(call(name, of("bool", 0), 0, dtype="bool")).shape == (0,)
        assert host(call(name, of("bool"), 0, dtype="bool")).all()

    def test_in_place_they_keep_their_dtype(self) -> None:
        x = of("int16", 3)
        assert host(call("cumsum_", x, 0)).tolist() == [1, 2, 3]
        assert words("cumsum_", x, 0, dtype="float32") == (
            "Bad in-place call: input tensor dtype short int and output tensor dtype float should match"
        )

    @pytest.mark.parametrize("name", ["cummax", "cummin"])
    def test_what_has_no_two_elements_is_copied(self, name: str) -> None:
        assert host(call(name, of("complex64"), 0)[0]).tolist() == 1
        assert host(call(name, of("float32", 0, 2), 5)[1]).shape == (0, 2)
        assert words(name, of("float32"), 5) == f"{name}(): Expected reduction dim -1 or 0 for scalar but got 5"
        assert words(name, of("complex64", 2), 0) == f"\"{name}_cpu\" not implemented for 'ComplexFloat'"


class TestEmpty:
    @pytest.mark.parametrize("name", ["normal_", "log_normal_", "exponential_", "random_", "bernoulli_"])
    def test_nothing_is_drawn_for_nothing(self, name: str) -> None:
        assert host(call(name, of("complex64", 0))).shape == (0,)

    @pytest.mark.parametrize("name", ["uniform_", "cauchy_"])
    def test_but_some_ask_for_the_dtype_first(self, name: str) -> None:
        assert "int64" in (said := words(name, of("int64", 0)).replace("'Long'", "int64")) or "long int" in said

    def test_normal_numbers_like_nothing(self) -> None:
        assert host(call("randn_like", of("int64", 0))).shape == (0,)
        assert words("rand_like", of("int64", 0)) == "\"check_uniform_bounds\" not implemented for 'Long'"

    def test_largest_elements_of_no_rows(self) -> None:
        assert host(call("amax", of("complex64", 0, 2), -1)).shape == (0,)
        assert "max_values_cpu" in words("amax", of("complex64", 2, 2), -1)


class TestLists:
    def test_null_is_a_tensor_only_where_it_may_be(self) -> None:
        x = {"data": [1.0, 2.0]}
        with pytest.raises(EngineError, match="expected Tensor as element 1 in argument 0, but got NoneType"):
            run(Session("s"), step("cat", "y", tensors=["x", None]), inputs={"x": x})
        done = run(
            Session("s"),
            step("index_put", "y", input="x", indices=[None, "i"], values="v"),
            inputs={"x": {"data": [[1.0, 2.0]]}, "i": {"data": [1]}, "v": {"data": [5.0]}},
            return_=["y"],
        )
        assert done["results"]["y"].values.tolist() == [[1.0, 5.0]]


def test_copies_of_strided_views_are_row_major() -> None:
    copy = call("as_strided_copy", of("float32", 3, 3), [2, 2], [1, 2])
    assert strides(copy) == (2, 1)


def test_a_reducing_scatter_takes_an_index_of_one_for_a_number() -> None:
    x, src = leaf(1.0), leaf(3.0)
    call("backward", call("scatter_reduce", x, 0, tensor(np.array([0])), src, "mean"))
    assert (host(x.grad), host(src.grad)) == (0.5, 0.5)  # type: ignore[arg-type]


def test_pad_and_constant_pad_have_words_of_their_own() -> None:
    x = of("float32", 2, 3)
    assert words("constant_pad_nd", x, [1, 2, 3]) == "Length of pad must be even but instead it equals 3"
    assert words("nn.functional.pad", x, [1, 2, 3]) == "Padding length must be divisible by 2"
    assert words("constant_pad_nd", x, [1] * 6).startswith("Length of pad should be no more than twice the number of")
    assert words("nn.functional.pad", x, [1] * 6).startswith("Padding length should be less than or equal to two times")


class TestArguments:
    """Arguments of another type, as PyTorch's parser of keyword arguments takes or refuses them."""

    X = [1.0, 2.0]  # noqa: RUF012

    def refused(self, op: str, **args: Any) -> str:
        with pytest.raises(EngineError) as caught:
            run(Session("s"), step(op, **args))
        return caught.value.detail

    @pytest.mark.parametrize(
        "op, args, said",
        [
            ("sum", {"dim": "a"}, "sum(): argument 'dim' must be tuple of ints, not str"),
            ("sum", {"dim": [1.5]}, "sum(): argument 'dim' must be tuple of ints, not list"),
            ("add", {"other": None}, "add(): argument 'other' must be Tensor, not NoneType"),
            ("topk", {"k": {"re": 0, "im": 1}}, "topk(): argument 'k' must be int, not complex"),
            ("cumsum", {"dim": 0, "dtype": 3}, "cumsum(): argument 'dtype' must be torch.dtype, not int"),
            ("max", {"dim": "a"}, "max(): argument 'dim' must be int, not str"),
            ("special.zeta", {"other": None}, "special_zeta(): argument 'other' must be Tensor, not NoneType"),
            ("nn.functional.linear", {"weight": None}, "linear(): argument 'weight' must be Tensor, not NoneType"),
            (
                "sum",
                {"dim": [0, 1 << 70]},
                (
                    "sum(): argument 'dim' failed to unpack the object at pos 2 with error "
                    '"Overflow when unpacking long long"'
                ),
            ),
            ("add", {"other": 1 << 64}, "int too big to convert"),
            ("add", {"other": -(1 << 63) - 1}, "can't convert negative int to unsigned"),
            ("gather", {"dim": 0}, 'gather() missing 1 required positional arguments: "index"'),
            ("gather", {"index": [0]}, 'gather() missing 2 required positional argument: "dim", "index"'),
            # Python's words, of functions that are written in it.
            ("nn.functional.mse_loss", {}, "mse_loss() missing 1 required positional argument: 'target'"),
            ("nn.functional.relu", {"foo": 1}, "relu() got an unexpected keyword argument 'foo'"),
            (
                "nn.functional.batch_norm",
                {},
                "batch_norm() missing 2 required positional arguments: 'running_mean' and 'running_var'",
            ),
            ("nn.functional.linear", {}, 'linear() missing 1 required positional arguments: "weight"'),
            ("nn.functional.gelu", {"foo": 1}, "gelu() got an unexpected keyword argument 'foo'"),
            ("linalg.cross", {"foo": 1}, "linalg_cross() got an unexpected keyword argument 'foo'"),
            ("nn.functional.mse_loss", {"target": X, "reduction": None}, "None is not a valid value for reduction"),
            ("nn.functional.mse_loss", {"target": X, "reduction": 1}, "1 is not a valid value for reduction"),
            ("nn.functional.l1_loss", {"target": X, "reduction": "avg"}, "avg is not a valid value for reduction"),
        ],
    )
    def test_words(self, op: str, args: dict[str, Any], said: str) -> None:
        assert self.refused(op, input=self.X, **args) == said

    def test_three_that_are_missing_are_listed_as_python_lists_them(self) -> None:
        words = "triplet_margin_loss() missing 3 required positional arguments: 'anchor', 'positive', and 'negative'"
        assert self.refused("nn.functional.triplet_margin_loss") == words

    def test_words_of_a_python_function_for_another_type(self) -> None:
        words = "Coefficients must be a list/tuple"
        assert self.refused("signal.windows.general_cosine", M=3, a=None) == words
        assert self.refused("signal.windows.general_cosine", M=3, a=1.0) == words

    def test_later_items_of_sizes_are_named_by_their_place(self) -> None:
        assert self.refused("zeros", size=[1, 1.5]) == (
            "zeros(): argument 'size' failed to unpack the object at pos 2 with error "
            '"type must be tuple of ints,but got float"'
        )
        assert self.refused("zeros", size=[True, 1]) == "zeros(): argument 'size' must be tuple of ints, not list"

    def test_true_is_a_number(self) -> None:
        made = run(
            Session("s"),
            step("zeros", "y", size=[2, True]),
            step("isclose", "z", input=self.X, other=[1.5, 9.0], rtol=True),
            return_=["y", "z"],
        )
        assert made["results"]["y"].shape == (2, 1)
        assert made["results"]["z"].values.tolist() == [True, True]


def floats(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"data": np.ones(shape).tolist(), "dtype": dtype, "shape": list(shape)}


@pytest.mark.parametrize(
    "op, args, said",
    [
        (
            "masked_fill_",
            {"input": "x", "mask": [True, False], "value": 1},
            "The size of tensor a (3) must match the size of tensor b (2) at non-singleton dimension 0",
        ),
        (
            "nn.functional.batch_norm",
            {"input": floats(2, 3), "running_mean": floats(3, dtype="float64"), "running_var": floats(3)},
            "mixed dtype (CPU): expect parameter to have scalar type of Float",
        ),
        (
            "nn.functional.batch_norm",
            {
                "input": floats(2, 3),
                "running_mean": floats(3, dtype="float64"),
                "running_var": floats(3),
                "weight": floats(3),
            },
            "expected scalar type Float but found Double",
        ),
        (
            "nn.functional.batch_norm",
            {"input": "x", "running_mean": floats(0), "running_var": floats(0)},
            "Dimension out of range (expected to be in range of [-1, 0], but got 1)",
        ),
        (
            "nn.functional.cross_entropy",
            {"input": floats(2, 3), "target": floats(2, 3), "label_smoothing": 1.5},
            "label_smoothing must be between 0.0 and 1.0. Got: 1.5",
        ),
        (
            "linalg.vector_norm",
            {"x": "x", "dtype": "float16"},
            (
                "linalg.vector_norm: the dtype of the input (Float) should be convertible without narrowing to the "
                "specified dtype (Half)"
            ),
        ),
        (
            "linalg.norm",
            {"input": floats(2, 2), "ord": "nuc", "dtype": "float16"},
            (
                "linalg.matrix_norm: the dtype of the input (Float) should be convertible without narrowing to the "
                "specified dtype (Half)"
            ),
        ),
        (
            "linalg.matrix_norm",
            {"A": floats(2, 2), "dtype": "int64"},
            "linalg.matrix_norm: dtype should be floating point or complex, but got Long",
        ),
        (
            "norm",
            {"input": "x", "dtype": "complex64"},
            "linalg.vector_norm: dtype should be real for real inputs, but got ComplexFloat",
        ),
        (
            "index_fill",
            {"input": {"data": [1, 2], "dtype": "uint8"}, "dim": 0, "index": [0], "value": {"data": -3.0}},
            "value cannot be converted to type uint8_t without overflow",
        ),
        (
            "scatter_add",
            {"input": floats(4, 3), "dim": 0, "index": {"data": [[0, 0]] * 4, "dtype": "int64"}, "src": "x"},
            "Index tensor must have the same number of dimensions as src tensor",
        ),
        (
            "scatter_add",
            {"input": floats(4, 3), "dim": 0, "index": [[0, 0]], "src": "x"},
            "Dimension out of range (expected to be in range of [-1, 0], but got 1)",
        ),
        (
            "nn.functional.grid_sample",
            {"input": floats(1, 1, 2, 2), "grid": floats(1, 2, 2, 2), "mode": "linear"},
            "nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: 'linear'",
        ),
        (
            "logspace",
            {"start": 3, "end": 0, "steps": 1, "dtype": "uint8"},
            "value cannot be converted to type uint8_t without overflow",
        ),
    ],
    ids=lambda x: x if isinstance(x, str) and len(x) < 30 else "",
)
def test_words_of_operations(op: str, args: dict[str, Any], said: str) -> None:
    with pytest.raises(EngineError) as caught:
        run(Session("s"), step(op, **args), inputs={"x": floats(3)})
    assert caught.value.detail == said


def test_what_to_cast_is_what_differs() -> None:
    args = {"input": floats(2, 3), "running_mean": "m", "running_var": floats(3), "weight": floats(3)}
    with pytest.raises(EngineError) as caught:
        run(Session("s"), step("nn.functional.batch_norm", **args), inputs={"m": floats(3, dtype="float64")})
    assert caught.value.hint is not None
    assert [call.args for call in caught.value.hint.calls] == [{"input": "m", "dtype": "float32"}]


def test_backward_through_empty_tensors_joined_along_any_dimension() -> None:
    inputs = {"x": {**floats(0), "requires_grad": True}}
    joined = step("cat", "y", tensors=["x", "x"], dim=1)
    done = run(Session("s"), joined, step("sum", "z", input="y"), step("autograd.backward", tensors=["z"]),
               inputs=inputs, return_=["x.grad"])  # fmt: skip
    assert done["results"]["x.grad"].shape == (0,)


@pytest.mark.parametrize("op", ["scatter", "scatter_add", "scatter_reduce"])
def test_an_index_without_dimensions_uses_one_element_of_a_longer_source(op: str) -> None:
    more = {"reduce": "sum"} if op == "scatter_reduce" else {}
    inputs = {"x": {"data": 1.0, "requires_grad": True}, "src": {"data": [2.0, 3.0, 4.0], "requires_grad": True}}
    moved = step(op, "y", input="x", dim=0, index=0, src="src", **more)
    done = run(Session("s"), moved, step("autograd.backward", tensors=["y"]), inputs=inputs,
               return_=["y", "src.grad"])  # fmt: skip
    assert values(done["results"]["y"]) == (2.0 if op == "scatter" else 3.0)
    assert values(done["results"]["src.grad"]) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "op, args, expected",
    [
        ("nn.functional.normalize", {"input": [[3.0, 0.0], [0.0, 4.0]], "dim": None}, [[0.6, 0.0], [0.0, 0.8]]),
        ("nn.functional.normalize", {"input": [[3.0, 0.0], [0.0, 4.0]], "dim": [0, 1]}, [[0.6, 0.0], [0.0, 0.8]]),
        ("roll", {"input": [1, 2, 3], "shifts": 1, "dims": None}, [3, 1, 2]),
        ("logspace", {"start": 2.5, "end": 0, "steps": 1, "dtype": "int64"}, [316]),
        ("logspace", {"start": -0.5, "end": 0, "steps": 1, "dtype": "uint8"}, [0]),
        ("lu", {"A": [[2.0]]}, None),
        ("linalg.matrix_power", {"A": {"data": [[True, False], [True, True]]}, "n": 0}, [[True, False], [False, True]]),
        ("linalg.matrix_power", {"A": [["NaN", 1.0], [1.0, 1.0]], "n": 0}, [[1.0, 0.0], [0.0, 1.0]]),
        ("linalg.lstsq", {"A": [[2.0]], "B": [[4.0]], "driver": "GELS"}, None),
    ],
    ids=str,
)
def test_what_pytorch_takes_is_taken(op: str, args: dict[str, Any], expected: Any) -> None:
    made = run(Session("s"), step(op, "y", **args), return_=["y"])["results"]["y"]
    assert expected is None or np.allclose(values(made), expected)


@pytest.mark.parametrize("limit", ["atol", "rtol"])
def test_ranks_of_no_elements_ask_for_no_limits(limit: str) -> None:
    args = {"A": floats(0, 0), limit: floats(3), "hermitian": True}
    names = ["rank", "inverse"]
    steps = [step("linalg.matrix_rank", "rank", **args), step("linalg.pinv", "inverse", **args)]
    done = run(Session("s"), *steps, return_=names)["results"]
    assert [done[name].shape for name in names] == [(), (0, 0)]


def test_the_power_zero_keeps_the_dtype() -> None:
    args = {"A": {"data": [[True, False], [True, True]]}, "n": 0}
    made = run(Session("s"), step("linalg.matrix_power", "y", **args), return_=["y"])["results"]["y"]
    assert made.dtype == "bool"


@pytest.mark.parametrize(
    "a, b, expected",
    [((2, 3, 2), (2, 3), (2, 2)), ((1, 2, 3), (2, 3), (2, 3, 3)), ((1, 3, 3, 3), (3, 3, 3), (3, 3, 3, 3))],
    ids=str,
)
def test_one_dimension_less_is_a_vector_only_where_all_others_agree(a: Any, b: Any, expected: Any) -> None:
    args = {"A": floats(*a), "B": floats(*b), "driver": "gelsy"}
    made = run(Session("s"), step("linalg.lstsq", "y", **args), return_=["y"])["results"]["y"]
    assert made["solution"].shape == expected


def test_normal_numbers_of_a_size_take_single_tensors_for_numbers() -> None:
    session, inputs = Session("s", seed=0), {"m": floats(), "s": floats()}
    made = run(session, step("normal", "y", mean="m", std="s", size=[2, 3]), inputs=inputs, return_=["y"])
    assert made["results"]["y"].shape == (2, 3)
    for given in ({"size": [3]}, {"dtype": "float64"}):
        with pytest.raises(EngineError, match="invalid combination"):
            run(session, step("normal", mean="x", std=1.0, **given), inputs={"x": floats(3)})


def test_draws_without_replacement_are_in_the_order_of_memory() -> None:
    weights = np.arange(1.0, 31).reshape(3, 10)
    inputs = {"x": {"data": weights.T.tolist()}}
    steps = [step("manual_seed", seed=0), step("t", "w", input="x")]
    args = {"num_samples": 3}
    done = run(Session("s"), *steps, step("multinomial", "y", input="w", **args), inputs=inputs, return_=["y"])
    assert values(done["results"]["y"]) == [[8, 2, 3], [7, 5, 2], [3, 9, 6]]  # as PyTorch draws them
