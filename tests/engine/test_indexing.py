"""What is refused between the brackets, in which order and with which words, and what passes: as PyTorch 2.13 does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import run, step, values


def zeros(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"data": np.zeros(shape).tolist(), "shape": list(shape), "dtype": dtype}


def get(shape: tuple[int, ...], *index: Any) -> Any:
    picked = step("getitem", "y", input="x", index=list(index))
    made = run(Session("s"), picked, inputs={"x": zeros(*shape)}, return_=["y"])
    return made["results"]["y"]


def put(x: Any, index: list[Any], value: Any) -> Any:
    made = run(Session("s"), step("setitem_", input="x", index=index, value=value), inputs={"x": x}, return_=["x"])
    return values(made["results"]["x"])


@pytest.mark.parametrize(
    "shape, index, words",
    [
        ((), [None, -1, "..."], "too many indices for tensor of dimension 0"),
        ((), [[0, 0]], "too many indices for tensor of dimension 0"),
        ((), [3], "index 3 is out of bounds for dimension 0 with size 0"),
        ((), ["1:"], "slice() cannot be applied to a 0-dim tensor."),
        ((), ["::0"], "slice step cannot be zero"),
        ((4,), [[False, False, True, False], [-2], True], "too many indices for tensor of dimension 1"),
        ((2,), [[True, False, False], [0, 1]], "too many indices for tensor of dimension 1"),
        ((5, 2, 1), ["1:", None, 7], "index 7 is out of bounds for dimension 2 with size 2"),
        ((1, 1, 1), ["...", 5], "index 5 is out of bounds for dimension 1 with size 1"),
        ((0, 0, 3), [[1, 0]], "index is out of bounds for dimension with size 0"),
    ],
)
def test_what_is_refused(shape: tuple[int, ...], index: list[Any], words: str) -> None:
    with pytest.raises(EngineError) as caught:
        get(shape, *index)
    assert caught.value.detail == words


@pytest.mark.parametrize(
    "shape, index, made",
    [
        ((3, 0), [[[1], [4]]], (2, 1, 0)),  # there is nothing that would be read
        ((3, 2), [[[]]], (1, 0, 2)),
        ((1, 1, 2), [[[False]], [[0], [-5]]], (2, 0)),
    ],
)
def test_nobody_looks_at_indices_of_nothing(shape: tuple[int, ...], index: list[Any], made: tuple[int, ...]) -> None:
    assert get(shape, *index).shape == made
    whole = zeros(*shape)
    assert np.shape(put(whole, index, 1.0)) == np.shape(whole["data"])


class TestWriting:
    def test_the_value_comes_before_the_index(self) -> None:
        for dtype, words in (("uint8", "uint8_t"), ("bfloat16", "double"), ("float16", "double"), ("float32", "float")):
            with pytest.raises(EngineError, match=f"value cannot be converted to type {words} without overflow"):
                put(zeros(2, dtype=dtype), [0, 0, 0], {"re": 0, "im": 1})

    def test_leading_sizes_of_1_do_not_count(self) -> None:
        assert put(zeros(2), ["1:"], [[[5.0]]]) == [0.0, 5.0]
        assert put(zeros(2), [[1, 0]], [[[5.0, 6.0]]]) == [6.0, 5.0]
        with pytest.raises(EngineError, match=r"Target sizes: \[2\].  Tensor sizes: \[3\]"):
            put(zeros(2), [":"], [[1.0, 2.0, 3.0]])
        with pytest.raises(EngineError, match=r"value tensor of shape \[3\] cannot be broadcast .* of shape \[2\]"):
            put(zeros(2), [[1, 0]], [[1, 2, 3]])

    def test_but_index_put_takes_them_for_dimensions(self) -> None:
        with pytest.raises(EngineError, match=r"value tensor of shape \[1, 1, 2\] cannot be broadcast"):
            run(
                Session("s"),
                step("index_put", "y", input="x", indices=[[0, 1]], values=[[[1.0, 2.0]]]),
                inputs={"x": zeros(2)},
            )

    def test_one_number_behind_a_mask_is_cast(self) -> None:
        assert put(zeros(3), [[False, True, True]], {"data": [7], "dtype": "int64"}) == [0.0, 7.0, 7.0]
        with pytest.raises(EngineError, match="value cannot be converted to type float without overflow"):
            put(zeros(3), [[True, True, False]], {"data": [0.0, 1.0], "dtype": "complex64"})
        with pytest.raises(EngineError, match="Index put requires the source and destination dtypes match"):
            put(zeros(3), [[1, 2]], {"data": [7], "dtype": "int64"})

    def test_true_alone_is_the_whole_and_false_nothing(self) -> None:
        whole = {"data": [[7, 8]], "dtype": "int64"}
        assert put(zeros(2), [True], whole) == [7.0, 8.0]
        assert put(zeros(2), [False], whole) == [0.0, 0.0]
