"""Shapes, dims, strides: against NumPy on small shapes of every kind, and PyTorch's words where it refuses."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import shapes
from engine.errors import DimOutOfRange, EngineError, Invalid, ShapeMismatch

SHAPES = [(), (1,), (3,), (0,), (2, 3), (1, 3), (2, 1), (2, 0), (1, 1, 1), (4, 1, 3), (2, 3, 4)]
sizes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


class TestBroadcast:
    @pytest.mark.parametrize("a", SHAPES, ids=str)
    def test_agrees_with_numpy(self, a: tuple[int, ...]) -> None:
        for b in SHAPES:
            try:
                want: Any = np.broadcast_shapes(a, b)
            except ValueError:
                want = None
            try:
                have: Any = shapes.broadcast_two(a, b)
            except ShapeMismatch:
                have = None
            assert have == want, (a, b)

    def test_the_words_are_torchs_and_name_the_sizes_in_the_callers_order(self) -> None:
        with pytest.raises(ShapeMismatch) as caught:
            shapes.broadcast_two((3,), (2, 4))
        assert str(caught.value) == (
            "The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1"
        )


class TestDims:
    @pytest.mark.parametrize("ndim", [1, 2, 4])
    def test_negative_dims_count_from_the_end(self, ndim: int) -> None:
        assert [shapes.wrap_dim(d, ndim) for d in range(-ndim, ndim)] == [*range(ndim)] * 2

    def test_a_0d_tensor_takes_0_and_minus_1(self) -> None:
        assert shapes.wrap_dim(0, 0) == shapes.wrap_dim(-1, 0) == 0
        with pytest.raises(DimOutOfRange):
            shapes.wrap_dim(0, 0, scalar_ok=False)

    @pytest.mark.parametrize("dim, ndim", [(2, 2), (-3, 2), (1, 0), (-2, 0)])
    def test_others_are_refused_with_the_range(self, dim: int, ndim: int) -> None:
        with pytest.raises(DimOutOfRange, match=r"expected to be in range of \[-"):
            shapes.wrap_dim(dim, ndim)

    def test_a_bool_is_no_dim(self) -> None:
        with pytest.raises(Invalid):
            shapes.wrap_dim(True, 2)

    def test_lists_of_dims(self) -> None:
        assert shapes.wrap_dims(None, 3) == shapes.wrap_dims([], 3) == (0, 1, 2)
        assert shapes.wrap_dims([], 3, empty_is_all=False) == ()
        assert shapes.wrap_dims([-1, 0], 3) == (2, 0)
        with pytest.raises(Invalid, match="appears multiple times"):
            shapes.wrap_dims([0, -3], 3)


class TestStrides:
    @given(sizes)
    def test_contiguous_strides_agree_with_numpy(self, shape: tuple[int, ...]) -> None:
        have = shapes.contiguous_strides(shape)
        want = [s // 8 for s in np.empty([max(n, 1) for n in shape]).strides]
        assert [s for s, n in zip(have, shape, strict=True) if n > 1] == [
            s for s, n in zip(want, shape, strict=True) if n > 1
        ]
        assert shapes.is_contiguous(shape, have)
        assert shapes.is_dense(shape, have)
        assert not shapes.has_internal_overlap(shape, have)

    @given(sizes, st.randoms(use_true_random=False))
    def test_a_permutation_stays_dense(self, shape: tuple[int, ...], random: Any) -> None:
        order = list(range(len(shape)))
        random.shuffle(order)
        strides = shapes.contiguous_strides(shape)
        assert shapes.is_dense(tuple(shape[i] for i in order), tuple(strides[i] for i in order))

    def test_gaps_and_repeats_are_not_dense(self) -> None:
        assert not shapes.is_dense((3,), (2,))
        assert not shapes.is_dense((3, 2), (0, 1))
        assert shapes.has_internal_overlap((3, 2), (0, 1))
        assert not shapes.has_internal_overlap((1, 2), (0, 1))

    @given(sizes)
    def test_extent_reaches_the_last_element(self, shape: tuple[int, ...]) -> None:
        count = shapes.numel(shape)
        assert shapes.extent(shape, shapes.contiguous_strides(shape)) == count

    @settings(max_examples=200)
    @given(st.sampled_from([(6,), (2, 3), (3, 2, 2), (4, 3), (2, 1, 6), (12,)]), st.data())
    def test_view_strides_agree_with_what_numpy_can_see_without_a_copy(self, shape: tuple[int, ...], data: Any) -> None:
        order = data.draw(st.permutations(range(len(shape))))
        array = np.arange(shapes.numel(shape)).reshape(shape).transpose(order)
        targets = [t for n in (1, 2, 3) for t in product((1, 2, 3, 4, 6, 12), repeat=n) if np.prod(t) == array.size]
        target = data.draw(st.sampled_from(targets))
        found = shapes.view_strides(array.shape, tuple(s // 8 for s in array.strides), target)
        reshaped = array.reshape(target)
        assert (found is not None) == np.shares_memory(reshaped, array)
        if found is not None:
            seen = np.lib.stride_tricks.as_strided(array, target, [s * 8 for s in found])
            assert np.array_equal(seen, reshaped)


class TestSizes:
    @pytest.mark.parametrize(
        "shape, total, want",
        [((2, -1), 6, (2, 3)), ((-1,), 0, (0,)), ((0, 3), 0, (0, 3)), ((), 1, ()), ((3, -1), 0, (3, 0))],
    )
    def test_one_size_may_be_worked_out(self, shape: Any, total: int, want: Any) -> None:
        assert shapes.infer_size(shape, total) == want

    @pytest.mark.parametrize(
        "shape, total, words",
        [
            ((-1, -1), 4, "only one dimension can be inferred"),
            ((-2,), 4, "invalid shape dimension -2"),
            ((3,), 4, r"shape '\[3\]' is invalid for input of size 4"),
            ((-1, 0), 0, "ambiguous"),
            ((4, -1), 6, "is invalid for input of size 6"),
        ],
    )
    def test_the_rest_is_refused(self, shape: Any, total: int, words: str) -> None:
        with pytest.raises(ShapeMismatch, match=words):
            shapes.infer_size(shape, total)

    def test_sizes_that_no_memory_holds_are_refused(self) -> None:
        for bad in ((-1,), (1 << 60,), (1 << 40, 1 << 40), (0, 1 << 62, 8)):
            with pytest.raises(EngineError):
                shapes.check_size(bad)
        with pytest.raises(Invalid):
            shapes.check_size((2.0,))  # type: ignore[arg-type]
        shapes.check_size((0, 5))

    @pytest.mark.parametrize("a", [(3,), (2, 3), (5, 2, 3), (1, 1, 2, 3), (0, 3)], ids=str)
    def test_matmul_shape_agrees_with_numpy(self, a: tuple[int, ...]) -> None:
        for b in ((3,), (3, 4), (5, 3, 4), (2, 1, 3, 4), (4,), (2, 4), (3, 0)):
            try:
                want: Any = np.matmul(np.zeros(a), np.zeros(b)).shape
            except ValueError:
                want = None
            try:
                have: Any = shapes.matmul_shape(a, b)
            except ShapeMismatch:
                have = None
            assert have == want, (a, b)

    def test_reduced(self) -> None:
        assert shapes.reduced((2, 3, 4), (1,), False) == (2, 4)
        assert shapes.reduced((2, 3, 4), (0, 2), True) == (1, 3, 1)
