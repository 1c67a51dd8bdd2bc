"""In which order results lie in memory: strides decide what `view` may do, and which random number goes where.

The expected strides are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.engine.tensors import call, context, strides, tensor  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("context")

Made = tuple[tuple[int, ...], tuple[int, ...]]  # sizes and strides


def made(geometry: Made) -> Any:
    """Small numbers with these sizes and strides, in memory of their own."""
    sizes, steps = geometry
    size = 1 + sum((n - 1) * s for n, s in zip(sizes, steps, strict=True))
    return call("as_strided", tensor(np.arange(size, dtype=np.float32) + 3), list(sizes), list(steps))


PERMUTED: Made = ((5, 5, 2), (5, 1, 25))
PLAIN: Made = ((5, 5, 2), (10, 2, 1))
TURNED: Made = ((4, 3), (1, 4))
ROWS: Made = ((3, 5, 7), (0, 7, 1))
MIDDLE: Made = ((4, 5, 3), (1, 0, 4))
MOVED: Made = ((4, 5, 3), (1, 12, 4))


@pytest.mark.parametrize(
    "name, operands, expected",
    [
        ("add", (PERMUTED, PLAIN), (5, 1, 25)),
        ("add", (PLAIN, PERMUTED), (10, 2, 1)),
        ("rsub", (PERMUTED, PLAIN), (10, 2, 1)),
        ("eq", (PERMUTED, PLAIN), (5, 1, 25)),
        ("logical_and", (PERMUTED, PLAIN), (5, 1, 25)),
        ("clamp", (((4, 4), (4, 1)), ((4, 4, 1), (1, 4, 16)), ((4, 1, 4), (4, 4, 1))), (4, 16, 1)),
        ("isclose", (TURNED, ((4, 3), (3, 1))), (1, 4)),
        ("isreal", (TURNED,), (1, 4)),
        ("clone", (ROWS,), (35, 7, 1)),
        ("clone", (MIDDLE,), (1, 4, 20)),
        ("zeros_like", (ROWS,), (35, 7, 1)),
        ("exp", (MIDDLE,), (1, 4, 20)),
        ("double", (MIDDLE,), (1, 4, 20)),
    ],
)
def test_results_lie_as_pytorchs_iterator_lays_them(
    name: str, operands: Sequence[Made], expected: tuple[int, ...]
) -> None:
    assert strides(call(name, *[made(x) for x in operands])) == expected


def test_where_takes_the_condition_for_its_first_operand() -> None:
    condition = call("gt", made(TURNED), 5.0)
    other = made(((2, 4, 3), (12, 1, 4)))
    assert strides(call("where", condition, made(((2, 4, 3), (12, 3, 1))), other)) == (12, 1, 4)


@pytest.mark.parametrize("name", ["sum", "amax", "mean", "prod", "std", "logsumexp", "count_nonzero", "argmax"])
def test_reductions_are_row_major(name: str) -> None:
    assert strides(call(name, made(MOVED), 1)) == (3, 1)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_is_row_major(name: str) -> None:
    assert strides(call(name, made(MOVED), 1)) == (15, 3, 1)


def test_others_that_are_row_major() -> None:
    assert strides(call("linalg.vector_norm", made(MOVED), 2, 1)) == (3, 1)
    assert strides(call("matmul", made(((3, 2, 5, 4), (8, 4, 24, 1))), made(((4, 4), (4, 1))))) == (40, 20, 4, 1)
    assert strides(call("isin", made(TURNED), made(((2,), (1,))))) == (3, 1)
    assert strides(call("mvlgamma", made(TURNED), 2)) == (3, 1)


def test_what_is_copied_from_an_expanded_tensor_can_be_viewed() -> None:
    assert call("view", call("clone", made(ROWS)), [105]).shape == (105,)
    assert strides(call("flip", made(ROWS), [0])) == (35, 7, 1)
    assert strides(call("sort", made(ROWS), 1)[0]) == (35, 7, 1)


@pytest.mark.parametrize(
    "geometry, index, expected",
    [
        (((5, 5, 5), (1, 5, 25)), [0, 3], (25, 1, 5)),
        (((4, 4, 2), (1, 4, 16)), [0, 3], (8, 1, 4)),
    ],
)
def test_indexed_tensors_keep_the_order_of_the_other_dimensions(
    geometry: Made, index: list[int], expected: tuple[int, ...]
) -> None:
    assert strides(call("getitem", made(geometry), [tensor(np.array(index))])) == expected


def test_random_numbers_for_an_expanded_tensor_are_pytorchs() -> None:
    call("manual_seed", 0)
    found = call("rand_like", made(((3, 2, 2), (1, 0, 3))))
    expected = [
        [[0.49625658988952637, 0.4900934100151062], [0.13203048706054688, 0.6323062777519226]],
        [[0.7682217955589294, 0.8964447379112244], [0.30742281675338745, 0.3488934636116028]],
        [[0.08847743272781372, 0.455627977848053], [0.6340786814689636, 0.40171730518341064]],
    ]
    assert found.array.tolist() == expected


def test_channel_shuffle_of_one_group_is_a_copy() -> None:
    x = made(((1, 4, 2, 2), (16, 4, 2, 1)))
    assert call("channel_shuffle", x, 1).storage is not x.storage
