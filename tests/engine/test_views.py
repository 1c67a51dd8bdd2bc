"""Views: what shares memory with what, strides, indices, and what is refused in which words; as in PyTorch 2.13."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.tensor import Tensor
from tests.engine.tensors import call, context, host, leaf, strides, tensor  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("context")


def numbers(*shape: int) -> Tensor:
    return tensor(np.arange(1.0, 1.0 + np.prod(shape, dtype=int)).reshape(shape))


def words(name: str, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(EngineError) as caught:
        call(name, *args, **kwargs)
    return caught.value.detail


# name, sizes of the input, arguments; sizes, strides and offset of the result
GEOMETRIES = [
    ("view", (2, 3), ([3, 2],), (3, 2), (2, 1), 0),
    ("view", (2, 3), ([-1],), (6,), (1,), 0),
    ("view", (), ([1, 1],), (1, 1), (1, 1), 0),
    ("reshape", (2, 3), ([6],), (6,), (1,), 0),
    ("flatten", (2, 3, 4), (1,), (2, 12), (12, 1), 0),
    ("unflatten", (2, 6), (1, [2, -1]), (2, 2, 3), (6, 3, 1), 0),
    ("expand", (2, 1), ([4, 2, 3],), (4, 2, 3), (0, 1, 0), 0),
    ("expand", (3,), ([2, -1],), (2, 3), (0, 1), 0),
    ("squeeze", (1, 2, 1), (), (2,), (1,), 0),
    ("squeeze", (1, 2, 1), (0,), (2, 1), (1, 1), 0),
    ("squeeze", (1, 2, 1), ([0, 2],), (2,), (1,), 0),
    ("unsqueeze", (2, 3), (1,), (2, 1, 3), (3, 3, 1), 0),
    ("unsqueeze", (2, 3), (-1,), (2, 3, 1), (3, 1, 1), 0),
    ("transpose", (2, 3, 4), (0, -1), (4, 3, 2), (1, 4, 12), 0),
    ("t", (2, 3), (), (3, 2), (1, 3), 0),
    ("T", (2, 3, 4), (), (4, 3, 2), (1, 4, 12), 0),
    ("mT", (2, 3, 4), (), (2, 4, 3), (12, 1, 4), 0),
    ("permute", (2, 3, 4), ([2, 0, 1],), (4, 2, 3), (1, 12, 4), 0),
    ("movedim", (2, 3, 4), (0, 2), (3, 4, 2), (4, 1, 12), 0),
    ("movedim", (2, 3, 4), ([0, 1], [-1, 0]), (3, 4, 2), (4, 1, 12), 0),
    ("select", (2, 3), (1, -1), (2,), (3,), 2),
    ("narrow", (2, 3), (1, 1, 2), (2, 2), (3, 1), 1),
    ("narrow", (4,), (0, -2, 2), (2,), (1,), 2),
    ("diagonal", (3, 4), (), (3,), (5,), 0),
    ("diagonal", (3, 4), (1,), (3,), (5,), 1),
    ("diagonal", (3, 4), (-2,), (1,), (5,), 8),
    ("unfold", (5,), (0, 3, 2), (2, 3), (2, 1), 0),
    ("as_strided", (3, 3), ([2, 2], [1, 2], 1), (2, 2), (1, 2), 1),
    ("getitem", (2, 3), ([0],), (3,), (1,), 0),
    ("getitem", (2, 3), ([slice(None), slice(1, None)],), (2, 2), (3, 1), 1),
    ("getitem", (2, 3, 4), ([1, slice(None, None, 2), None, -1],), (2, 1), (8, 4), 15),
    ("getitem", (2, 3, 4), ([Ellipsis, 0],), (2, 3), (12, 4), 0),
    ("getitem", (), ([None],), (1,), (1,), 0),
    ("getitem", (4,), ([slice(3, 1)],), (0,), (1,), 3),
]


@pytest.mark.parametrize("name, shape, args, sizes, steps, offset", GEOMETRIES)
def test_a_view_sees_the_memory_of_its_base(
    name: str, shape: tuple[int, ...], args: tuple[Any, ...], sizes: tuple[int, ...], steps: Any, offset: int
) -> None:
    x = numbers(*shape)
    y = call(name, x, *args)
    assert (y.shape, strides(y), y.offset) == (sizes, steps, offset)
    assert y.storage is x.storage
    call("mul_", x, 10.0)
    assert y.version == x.version == 1
    if y.numel:
        memory = host(x).reshape(-1)
        last = sum((n - 1) * s for n, s in zip(sizes, steps, strict=True)) + offset
        assert host(y).reshape(-1)[0] == memory[offset]
        assert host(y).reshape(-1)[-1] == memory[last]


def test_views_of_views_have_one_base() -> None:
    x = numbers(4, 4)
    y = call("getitem", call("t", call("getitem", x, [slice(1, None)])), [0])
    assert y.view is not None
    assert y.view.base is x
    assert host(y).tolist() == [5, 9, 13]
    call("fill_", y, 0.0)
    assert host(x)[:, 0].tolist() == [1, 0, 0, 0]


def test_reshape_copies_only_where_strides_ask_for_it() -> None:
    x = numbers(2, 3)
    assert call("reshape", x, [6]).storage is x.storage
    copied = call("reshape", call("t", x), [6])
    assert copied.storage is not x.storage
    assert copied.view is None
    assert host(copied).tolist() == [1, 4, 2, 5, 3, 6]
    assert call("reshape", call("t", x), [3, 1, 2]).storage is x.storage


def test_what_seems_a_copy_is_one_and_what_seems_a_view_is_one() -> None:
    x = numbers(2, 2)
    for name, args in (("clone", ()), ("flip", ([0],)), ("roll", (1,)), ("repeat", ([1, 1],)), ("diag", ())):
        assert call(name, x, *args).storage is not x.storage, name
    assert call("real", x) is x
    assert call("detach", x).storage is x.storage
    assert call("detach", x).view is None  # it starts anew
    assert all(part.storage is x.storage for part in call("unbind", x))
    assert all(part.storage is x.storage for part in call("split", x, 1))
    assert call("getitem", x, [tensor(np.array([0, 1]))]).storage is not x.storage


def test_empty_views_belong_to_their_storage_too() -> None:
    x = numbers(0, 3)
    y = call("view", x, [3, 0])
    assert y.storage is x.storage
    call("zero_", y)
    assert x.version == 1


def test_other_dtypes_on_the_same_bytes() -> None:
    x = tensor(np.array([[1.0, 2.0]], np.float32))
    bits = call("view", x, dtype="int32")
    assert bits.dtype.name == "int32"
    assert bits.storage is x.storage
    call("mul_", x, 2.0)
    assert host(bits).view(np.float32).tolist() == [[2.0, 4.0]]
    assert call("view", x, dtype="uint8").shape == (1, 8)
    assert call("view", x, dtype="float64").shape == (1, 1)
    assert "self.size(-1) must be divisible by 2 to view Float as Double" in words(
        "view", call("getitem", x, [slice(None), slice(0, 1)]), dtype="float64"
    )


def test_parts_of_complex_numbers() -> None:
    z = tensor(np.array([1 + 2j, 3 + 4j]))
    pairs = call("view_as_real", z)
    assert strides(pairs) == (2, 1)
    call("fill_", call("imag", z), 9.0)
    assert host(pairs).tolist() == [[1, 9], [3, 9]]
    assert host(call("view_as_complex", pairs)).tolist() == [1 + 9j, 3 + 9j]
    assert call("view_as_complex", pairs).storage is z.storage


INDICES = [
    ([slice(None), [0, 2]], (2, 2, 4)),
    ([[0, 1], slice(None), [1, 3]], (2, 3)),
    ([slice(None), [0, 2], [1, 3]], (2, 2)),
    ([0, slice(None), [1, 3]], (3, 2)),
    ([[1], None, slice(1, None)], (1, 1, 2, 4)),
    ([[[0, 1], [1, 0]]], (2, 2, 3, 4)),
    ([Ellipsis, [3, 0, 0]], (2, 3, 3)),
    ([True], (1, 2, 3, 4)),
    ([False], (0, 2, 3, 4)),
    ([slice(None), [True, False, True]], (2, 2, 4)),
    ([[[True, False, True], [False, False, True]], slice(1, 3)], (3, 2)),
    ([[]], (0, 3, 4)),
]


@pytest.mark.parametrize("index, shape", INDICES)
def test_tensors_as_indices_are_placed_as_numpy_places_them(index: list[Any], shape: tuple[int, ...]) -> None:
    x = numbers(2, 3, 4)
    given = [tensor(np.array(i, dtype=None if i else np.int64)) if isinstance(i, list) else i for i in index]
    y = call("getitem", x, given)
    assert y.shape == shape
    # PyTorch applies integers first; NumPy takes them for arrays.
    array = host(x)[index[0]] if type(index[0]) is int else host(x)
    rest = index[1:] if type(index[0]) is int else index
    key = tuple(np.array(i, dtype=None if i else np.int64) if isinstance(i, list) else i for i in rest)
    assert np.array_equal(host(y), array[key])


def test_duplicates_in_an_index_add_up_in_the_gradient() -> None:
    x = leaf([1.0, 2.0, 3.0])
    y = call("getitem", x, [tensor(np.array([0, 2, 2, -1]))])
    call("backward", y, tensor(np.array([1.0, 10.0, 100.0, 1000.0])))
    assert x.grad is not None
    assert host(x.grad).tolist() == [1, 0, 1110]


REFUSED = [
    ("getitem", (2,), ([5],), "index 5 is out of bounds for dimension 0 with size 2"),
    ("getitem", (2,), ([-3],), "index -3 is out of bounds for dimension 0 with size 2"),
    ("getitem", (2,), ([0, 0],), "too many indices for tensor of dimension 1"),
    ("getitem", (2,), ([slice(None, None, -1)],), "step must be greater than zero"),
    ("getitem", (2,), ([slice(None, None, 0)],), "slice step cannot be zero"),
    ("getitem", (2,), ([[7]],), "index 7 is out of bounds for dimension 0 with size 2"),
    ("getitem", (2,), ([[0.5]],), "tensors used as indices must be long, int, byte or bool tensors"),
    (
        "getitem",
        (2, 3),
        ([[True]],),
        "The shape of the mask [1] at index 0 does not match the shape of the indexed tensor [2, 3] at index 0",
    ),
    (
        "getitem",
        (2, 3),
        ([[0, 1], [0, 1, 2]],),
        "shape mismatch: indexing tensors could not be broadcast together with shapes [2], [3]",
    ),
    ("getitem", (0, 3), ([[0]],), "index is out of bounds for dimension with size 0"),
    ("view", (2, 3), ([4],), "shape '[4]' is invalid for input of size 6"),
    ("view", (2, 3), ([-1, -1],), "only one dimension can be inferred"),
    (
        "expand",
        (2, 3),
        ([3, 3],),
        (
            "The expanded size of the tensor (3) must match the existing size (2) at non-singleton dimension 0.  "
            "Target sizes: [3, 3].  Tensor sizes: [2, 3]"
        ),
    ),
    ("permute", (2, 3), ([0, 0],), "permute(): duplicate dims are not allowed."),
    ("transpose", (2, 3), (0, 2), "Dimension out of range (expected to be in range of [-2, 1], but got 2)"),
    ("t", (2, 3, 4), (), "t() expects a tensor with <= 2 dimensions, but self is 3D"),
    ("narrow", (4,), (0, 2, 3), "start (2) + length (3) exceeds dimension size (4)."),
    ("select", (2, 3), (0, 2), "select(): index 2 out of range for tensor of size [2, 3] at dimension 0"),
    ("diagonal", (2, 3), (0, 1, 1), "diagonal dimensions cannot be identical 1, 1"),
    (
        "split",
        (4,),
        ([1, 2],),
        (
            "split_with_sizes expects split_sizes to sum exactly to 4 (input tensor's size at dimension 0), but got "
            "split_sizes=[1, 2]"
        ),
    ),
    ("chunk", (4,), (0,), "chunk expects `chunks` to be greater than 0, got: 0"),
    ("unfold", (4,), (0, 5, 1), "maximum size for tensor at dimension 0 is 4 but size is 5"),
    ("imag", (4,), (), "imag is not implemented for tensors with non-complex dtypes."),
    (
        "as_strided",
        (4,),
        ([3], [2]),
        (
            "setStorage: sizes [3], strides [2], storage offset 0, and itemsize 8 requiring a storage size of 40 are "
            "out of bounds for storage of size 32"
        ),
    ),
]


@pytest.mark.parametrize("name, shape, args, expected", REFUSED)
def test_refusals_are_in_the_words_of_pytorch(
    name: str, shape: tuple[int, ...], args: tuple[Any, ...], expected: str
) -> None:
    if name == "getitem":
        args = ([tensor(np.array(i)) if isinstance(i, list) else i for i in args[0]],)
    assert words(name, numbers(*shape), *args) == expected


def test_a_view_that_strides_forbid_says_what_to_do() -> None:
    with pytest.raises(EngineError) as caught:
        call("view", call("t", numbers(2, 3)), [6])
    assert "Use .reshape(...) instead" in caught.value.detail
    assert caught.value.hint is not None
    assert caught.value.hint.key == "use-reshape"


def test_joined_tensors() -> None:
    a, b = numbers(2, 2), numbers(1, 2)
    assert call("cat", [a, b]).shape == (3, 2)
    assert call("cat", [tensor(np.zeros(0)), a], 1).shape == (2, 2)  # an old freedom of PyTorch's
    assert call("cat", [tensor(np.zeros(1, np.int32)), tensor(np.zeros(1, np.float32))]).dtype.name == "float32"
    assert call("stack", [a, a], -1).shape == (2, 2, 2)
    assert words("cat", [a, numbers(3)]) == "Tensors must have same number of dimensions: got 2 and 1"
    assert words("stack", [a, b]).endswith("but got [2, 2] at entry 0 and [1, 2] at entry 1")
    assert words("cat", []) == "torch.cat(): expected a non-empty list of Tensors"


@pytest.mark.parametrize(
    "name, args, node",
    [
        ("view", ([6],), "ViewBackward0"),
        ("t", (), "TBackward0"),
        ("T", (), "PermuteBackward0"),
        ("squeeze", (), "SqueezeBackward0"),
        ("squeeze", (0,), "SqueezeBackward1"),
        ("getitem", ([0],), "SelectBackward0"),
        ("getitem", ([slice(1, None)],), "SliceBackward0"),
        ("getitem", ([None],), "UnsqueezeBackward0"),
        ("getitem", ([Ellipsis],), "AliasBackward0"),
        ("narrow", (0, 0, 1), "SliceBackward0"),
        ("expand", ([2, 2, 3],), "ExpandBackward0"),
        ("flatten", (), "ViewBackward0"),
    ],
)
def test_nodes_have_the_names_of_pytorch(name: str, args: tuple[Any, ...], node: str) -> None:
    x = leaf(np.ones((2, 3)))
    made = call(name, x, *args)
    assert made.edge is not None
    assert made.edge[0].grad_fn == node
