"""In-place changes: histories, views, versions, and what is refused. Every expectation is what PyTorch 2.13 does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.context import grad_mode
from engine.errors import EngineError, LeafInPlace, SavedChanged
from engine.session import Session
from engine.tape import refresh, shown_grad_fn
from engine.tensor import Tensor
from tests.engine.programs import run, state, step
from tests.engine.tensors import call, context, host, leaf, strides, tensor  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("context")


def refusal(kind: type[EngineError], act: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        act()
    return caught.value.detail


def grad(x: Tensor) -> Any:
    assert x.grad is not None
    return host(x.grad).tolist()


def backward(t: Tensor) -> None:
    call("backward", call("sum", t))


def times_one(x: Tensor) -> Tensor:
    made: Tensor = call("mul", x, 1.0)
    return made


class TestHistory:
    def test_a_change_of_a_view_is_pasted_into_its_base(self) -> None:
        x = leaf([1.0, 2.0, 3.0])
        y = times_one(x)
        call("mul_", call("getitem", y, [0]), 10.0)
        assert shown_grad_fn(y) == "CopySlices"
        assert host(y).tolist() == [10, 2, 3]
        backward(y)
        assert grad(x) == [10, 1, 1]

    def test_views_made_before_follow_their_base(self) -> None:
        x = leaf([1.0, 2.0, 3.0])
        y = times_one(x)
        v = call("getitem", y, [slice(1, None)])
        call("mul_", y, 5.0)
        assert shown_grad_fn(v) == "AsStridedBackward0"
        backward(v)
        assert grad(x) == [0, 5, 5]

    def test_views_follow_each_other(self) -> None:
        x = leaf(np.ones((2, 2)))
        y = times_one(x)
        row, column = call("getitem", y, [0]), call("getitem", y, [slice(None), 0])
        call("mul_", row, 3.0)
        call("mul_", column, 5.0)
        assert host(y).tolist() == [[15, 3], [5, 1]]
        backward(row)
        assert grad(x) == [[15, 3], [0, 0]]

    def test_a_constant_gets_a_history_through_its_view(self) -> None:
        x = leaf([2.0, 3.0])
        y = tensor(np.zeros((2, 2)))
        call("copy_", call("getitem", y, [1]), x)
        assert y.requires_grad
        assert shown_grad_fn(y) == "CopySlices"
        backward(call("mul", y, y))
        assert grad(x) == [4, 6]

    def test_views_of_views_through_a_transposition(self) -> None:
        x = leaf(np.arange(6.0).reshape(2, 3))
        y = times_one(x)
        part = call("getitem", call("t", y), [slice(0, 2), 1])
        call("mul_", part, tensor(np.array([10.0, 100.0])))
        backward(y)
        assert grad(x) == [[1, 1, 1], [10, 100, 1]]

    def test_a_change_through_an_expanded_view(self) -> None:
        x = leaf([1.0, 2.0])
        y = times_one(x)
        call("fill_", call("getitem", call("expand", y, [3, 2]), [1]), 7.0)
        assert host(y).tolist() == [7, 7]
        backward(y)
        assert grad(x) == [0, 0]

    def test_what_is_overwritten_gets_zeros_not_nothing(self) -> None:
        x = leaf([1.0, 2.0])
        y = times_one(x)
        call("copy_", y, tensor(np.array([5.0, 6.0])))
        backward(y)
        assert grad(x) == [0, 0]

    def test_second_order_through_a_pasted_change(self) -> None:
        x = leaf([2.0, 3.0])
        y = times_one(x)
        v = call("getitem", y, [0])
        call("copy_", v, call("mul", call("getitem", x, [1]), call("getitem", x, [1])))
        (first,) = call("autograd.grad", [call("sum", call("mul", y, y))], [x], create_graph=True)
        assert host(first).tolist() == [0, 4 * 27 + 6]
        backward(first)
        assert grad(x) == [0, 12 * 9 + 2]

    def test_parts_of_complex_numbers(self) -> None:
        z = tensor(np.array([1 + 2j, 3 + 4j]))
        z.requires_grad = True
        y = call("mul", z, 1.0)
        call("mul_", call("imag", y), 3.0)
        assert host(y).tolist() == [1 + 6j, 3 + 12j]
        call("backward", y, tensor(np.array([1 + 1j, 1 + 1j])))
        assert grad(z) == [1 + 3j, 1 + 3j]


class TestIndices:
    def test_numbers_and_tensors_are_written(self) -> None:
        x = tensor(np.zeros((3, 2)))
        assert call("setitem_", x, [0], 1.0) is x
        call("setitem_", x, [slice(1, None), 1], tensor(np.array([5.0, 6.0])))
        assert host(x).tolist() == [[1, 1], [0, 5], [0, 6]]
        call("setitem_", x, [tensor(np.array([True, False, True]))], -1.0)
        assert host(x).tolist() == [[-1, -1], [0, 5], [-1, -1]]
        assert x.version == 3

    def test_of_duplicates_the_last_one_wins_or_all_add_up(self) -> None:
        at = tensor(np.array([1, 1, 0]))
        values = tensor(np.array([1.0, 2.0, 3.0]))
        x = tensor(np.zeros(2))
        call("index_put_", x, [at], values)
        assert host(x).tolist() == [3, 2]
        call("index_put_", x, [at], values, True)
        assert host(x).tolist() == [6, 5]

    def test_gradients_of_what_is_written_and_of_what_is_left(self) -> None:
        x, v = leaf([1.0, 2.0, 3.0]), leaf([10.0, 20.0])
        y = times_one(x)
        call("setitem_", y, [tensor(np.array([0, 2]))], v)
        assert shown_grad_fn(y) == "IndexPutBackward0"
        call("backward", y, tensor(np.array([1.0, 2.0, 3.0])))
        assert grad(x) == [0, 2, 0]
        assert grad(v) == [1, 3]

    def test_values_are_converted_as_in_pytorch(self) -> None:
        x = tensor(np.zeros(2, np.int64))
        call("setitem_", x, [0], 1.7)
        call("setitem_", x, [1], tensor(np.array(2.7)))
        assert host(x).tolist() == [1, 2]
        assert refusal(EngineError, lambda: call("setitem_", x, [tensor(np.array([0]))], tensor(np.array([1.5])))) == (
            "Index put requires the source and destination dtypes match, got Long for the destination and Double for "
            "the source."
        )
        assert "without overflow" in refusal(EngineError, lambda: call("setitem_", x, [0], 1j))

    def test_sizes_that_do_not_fit(self) -> None:
        x = tensor(np.zeros((2, 3)))
        assert (
            refusal(EngineError, lambda: call("setitem_", x, [tensor(np.array([0, 1]))], tensor(np.zeros(2))))
            == "shape mismatch: value tensor of shape [2] cannot be broadcast to indexing result of shape [2, 3]"
        )
        assert refusal(EngineError, lambda: call("setitem_", x, [0], tensor(np.zeros(2)))).startswith(
            "The expanded size of the tensor (3) must match the existing size (2) at non-singleton dimension 0."
        )
        assert "index 9 is out of bounds for dimension 0 with size 2" in refusal(
            EngineError, lambda: call("setitem_", x, [tensor(np.array([0, 9]))], 1.0)
        )
        assert host(x).tolist() == [[0, 0, 0], [0, 0, 0]]  # nothing was written


class TestRefusals:
    def test_leaves_and_views_of_leaves(self) -> None:
        x = leaf([1.0, 2.0])
        words = "a leaf Variable that requires grad is being used in an in-place operation."
        assert refusal(LeafInPlace, lambda: call("mul_", x, 2.0)) == words
        view = call("getitem", x, [0])
        assert refusal(LeafInPlace, lambda: call("mul_", view, 2.0)) == f"a view of {words}"
        with grad_mode(False):
            call("mul_", x, 2.0)
        assert host(x).tolist() == [2, 4]

    def test_outputs_of_functions_with_several_views(self) -> None:
        y = times_one(leaf(np.ones((2, 2))))
        part = call("unbind", y)[1]
        assert refusal(EngineError, lambda: call("mul_", part, 2.0)).startswith(
            "Output 1 of Unbind is a view and is being modified inplace. This view is the output of a function that "
            "returns multiple views."
        )
        call("mul_", y, 2.0)
        assert refusal(EngineError, lambda: call("mul", part, 1.0)).startswith(
            "Output 1 of Unbind is a view and its base or another view of its base has been modified inplace."
        )
        free = call("unbind", tensor(np.ones((2, 2))))[0]
        call("mul_", free, 2.0)  # nothing requires grad

    def test_views_made_in_no_grad_mode(self) -> None:
        y = times_one(leaf([1.0, 2.0]))
        with grad_mode(False):
            v = call("getitem", y, [0])
        assert v.requires_grad
        assert v.is_leaf
        assert refusal(EngineError, lambda: call("mul_", v, 2.0)).startswith(
            "A view was created in no_grad mode and is being modified inplace with grad mode enabled."
        )
        inner = call("unsqueeze", v, 0)
        assert refusal(EngineError, lambda: call("mul_", inner, 2.0)).startswith(
            "Output 0 of Unsqueeze is a view of a view which was created in no_grad mode"
        )

    def test_memory_that_overlaps(self) -> None:
        x = tensor(np.zeros(5))
        within = "more than one element of the written-to tensor refers to a single memory location"
        assert within in refusal(EngineError, lambda: call("add_", call("expand", x, [2, 5]), 1.0))
        between = "some elements of the input tensor and the written-to tensor refer to a single memory location"
        part, shifted = call("getitem", x, [slice(1, None)]), call("getitem", x, [slice(0, -1)])
        assert between in refusal(EngineError, lambda: call("add_", part, shifted))
        assert between in refusal(EngineError, lambda: call("setitem_", x, [slice(1, None)], shifted))
        assert between in refusal(EngineError, lambda: call("index_put_", x, [tensor(np.array([0]))], x))
        square = tensor(np.zeros((2, 2)))
        assert between in refusal(EngineError, lambda: call("add_", call("t", square), square))
        call("add_", x, x)  # the same elements
        call("add_", call("getitem", x, [slice(0, 2)]), call("getitem", x, [slice(2, 4)]))

    def test_saved_values_that_changed(self) -> None:
        x = leaf([1.0, 2.0])
        y = times_one(x)
        product = call("mul", y, y)
        call("add_", call("detach", y), 1.0)
        words = refusal(SavedChanged, lambda: backward(product))
        assert "has been modified by an inplace operation: [torch.DoubleTensor [2]]" in words
        assert "is at version 1; expected version 0 instead" in words

    def test_a_product_with_itself_in_place(self) -> None:
        y = times_one(leaf([1.0, 2.0]))
        call("mul_", y, y)
        assert "modified by an inplace operation" in refusal(SavedChanged, lambda: backward(y))

    def test_results_that_are_saved_survive_being_made_in_place(self) -> None:
        x = leaf([0.5, 1.0])
        y = times_one(x)
        call("tanh_", y)
        backward(y)
        assert grad(x) == pytest.approx((1 - np.tanh([0.5, 1.0]) ** 2).tolist())


class TestOwnSizes:
    def test_a_tensor_changes_its_own_sizes(self) -> None:
        x = tensor(np.arange(6.0).reshape(2, 3))
        assert call("t_", x) is x
        assert (x.shape, strides(x), x.version) == ((3, 2), (1, 3), 1)
        call("unsqueeze_", x, 0)
        assert x.shape == (1, 3, 2)
        call("squeeze_", x)
        call("transpose_", x, 0, 1)
        assert host(x).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert x.version == 4

    def test_the_history_goes_on(self) -> None:
        x = leaf(np.arange(6.0).reshape(2, 3))
        y = times_one(x)
        call("transpose_", y, 0, 1)
        assert shown_grad_fn(y) == "TransposeBackward1"
        call("backward", y, tensor(np.arange(6.0).reshape(3, 2)))
        assert grad(x) == [[0, 2, 4], [1, 3, 5]]

    def test_views_made_before_still_see_what_they_saw(self) -> None:
        x = leaf(np.arange(6.0).reshape(2, 3))
        y = times_one(x)
        row = call("getitem", y, [0])
        call("t_", y)
        call("mul_", row, 10.0)
        refresh(y)
        assert host(y).tolist() == [[0, 3], [10, 4], [20, 5]]
        call("backward", y, tensor(np.arange(1.0, 7.0).reshape(3, 2)))
        assert grad(x) == [[10, 30, 50], [2, 4, 6]]

    def test_a_session_is_rebuilt_with_them(self) -> None:
        commits: list[Any] = []
        session = Session("s", seed=0, on_commit=commits.append)
        run(session, inputs={"x": {"data": [[1.0, 2.0], [3.0, 4.0]], "requires_grad": True}}, keep={"x": "x"})
        run(
            session,
            step("mul", "y", input="x", other=1.0),
            step("getitem", "r", input="y", index=[0]),
            keep={"y": "y", "r": "r"},
        )
        run(session, step("t_", input="y"))
        again = Session.rebuild(commits, "s", seed=0)
        for one in (session, again):
            run(one, step("mul_", input="r", other=10.0), step("sum", "s", input="y"), step("backward", input="s"))
            assert host(one.names["y"]).tolist() == [[10, 3], [20, 4]]
            assert grad(one.names["x"]) == [[10, 10], [1, 1]]

    def test_a_leaf_refuses(self) -> None:
        x = leaf([[1.0, 2.0]])
        refusal(LeafInPlace, lambda: call("t_", x))
        assert x.shape == (1, 2)

    def test_a_failed_program_gives_the_sizes_back(self) -> None:
        session = Session("s", seed=0)
        run(session, inputs={"m": {"data": [[1.0, 2.0, 3.0]]}}, keep={"m": "m"})
        before = state(session)
        with pytest.raises(EngineError):
            run(session, step("t_", input="m"), step("mul_", input="m", other=2), step("view", input="m", size=[7]))
        assert state(session) == before
        run(session, step("t_", input="m"))
        assert session.names["m"].shape == (3, 1)


class TestRefusalsInOrder:
    """PyTorch looks at shapes first, then at what may be stored, and last at what a kernel lacks."""

    def test_shapes_come_before_a_dtype_that_the_kernel_lacks(self) -> None:
        a, b = tensor(np.ones(5)), tensor(np.ones(2))
        assert refusal(EngineError, lambda: call("bitwise_and", a, b)).startswith("The size of tensor a (5) must match")
        assert refusal(EngineError, lambda: call("gcd_", tensor(np.ones(1)), b)).startswith("output with shape [1]")
        z = tensor(np.ones(2, np.complex64))
        assert refusal(EngineError, lambda: call("ge_", tensor(np.ones(1)), z)).startswith("output with shape [1]")

    def test_the_cast_comes_before_a_dtype_that_the_kernel_lacks(self) -> None:
        whole, z = tensor(np.ones(2, np.int64)), tensor(np.ones(2, np.complex64))
        said = refusal(EngineError, lambda: call("copysign_", whole, z))
        assert said == "result type ComplexFloat can't be cast to the desired output type Long"
        said = refusal(EngineError, lambda: call("copysign_", tensor(np.ones(2, np.complex64)), z))
        assert said == "\"copysign_cpu\" not implemented for 'ComplexFloat'"

    def test_a_number_that_clamps_in_place_is_told_by_cs_names(self) -> None:
        said = refusal(EngineError, lambda: call("clamp_", tensor(np.ones(2, np.uint8)), 0.5, None))
        assert said == "result type Float can't be cast to the desired output type unsigned char"

    def test_sizes_are_named_as_the_swapped_operands_stand(self) -> None:
        said = refusal(EngineError, lambda: call("rsub", tensor(np.ones(5)), tensor(np.ones(2))))
        assert said.startswith("The size of tensor a (2) must match the size of tensor b (5)")


def test_a_comparison_in_place_has_the_gradient_0() -> None:
    x, y = leaf([1.0, 2.0]), leaf([1.0, 3.0])
    made = times_one(x)
    call("eq_", made, y)
    assert shown_grad_fn(made) == "EqBackward0"
    assert host(made).tolist() == [1, 0]
    backward(made)
    assert grad(x) == grad(y) == [0, 0]


def test_a_floored_quotient_has_no_gradient() -> None:
    made = call("floor_divide", leaf([5.0]), 2.0)
    assert refusal(EngineError, lambda: backward(made)) == "derivative for aten::floor_divide is not implemented"
