"""Tensors by the layout of their memory: what is made with strides, resized in place, or laid out by a transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import run, state, step, values
from tests.engine.tensors import call, context, host, leaf, strides, tensor  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("context")


def resized(start: Any, size: list[int]) -> Any:
    return call("resize_", start, size)


class TestResize:
    def test_within_its_memory_a_tensor_shows_what_is_there(self) -> None:
        x = tensor(np.arange(6.0))
        storage = x.storage
        assert host(resized(x, [2, 2])).tolist() == [[0, 1], [2, 3]]
        assert host(resized(x, [3, 2])).tolist() == [[0, 1], [2, 3], [4, 5]]
        assert x.storage is storage

    def test_a_transposed_tensor_is_read_in_the_order_of_its_memory(self) -> None:
        x = call("t", tensor(np.arange(6.0).reshape(2, 3)))
        assert host(resized(x, [6])).tolist() == [0, 1, 2, 3, 4, 5]

    def test_beyond_its_memory_a_tensor_gets_its_own_and_zeros(self) -> None:
        base = tensor(np.arange(6.0))
        x = call("getitem", base, [slice(2, None)])
        assert host(resized(x, [2, 3])).tolist() == [[2, 3, 4], [5, 0, 0]]
        assert strides(x) == (3, 1)
        call("fill_", x, 9.0)
        assert host(base).tolist() == [0, 1, 2, 3, 4, 5]

    def test_one_that_requires_grad_is_refused(self) -> None:
        with pytest.raises(EngineError, match="cannot resize variables that require grad"):
            resized(leaf([1.0, 2.0]), [3])

    def test_a_program_that_fails_takes_it_back(self) -> None:
        session = Session("s", seed=1)
        run(session, inputs={"x": {"data": [1, 2, 3]}}, keep={"x": "x"})
        before = state(session)
        for size in ([5], [2]):
            with pytest.raises(EngineError, match="nosuch"):
                run(session, step("resize_", input="x", size=size), step("add", input="nosuch", other=1))
            assert state(session) == before

    @pytest.mark.parametrize("size", [[5], [2], [3, 4]])
    def test_a_session_rebuilt_from_its_commits_has_it_too(self, size: list[int]) -> None:
        commits: list[Any] = []
        session = Session("s", seed=1, on_commit=commits.append)
        run(session, inputs={"x": {"data": [1, 2, 3]}}, keep={"x": "x"})
        run(session, step("resize_", input="x", size=size))
        run(session, step("add_", input="x", other=1))
        again = Session.rebuild(commits, "s", seed=1)
        ours, theirs = (run(s, return_=["x"])["results"]["x"] for s in (session, again))
        assert values(ours) == values(theirs)
        assert np.prod(ours.shape) == np.prod(size)


@pytest.mark.parametrize(
    "name, args, want",
    [
        ("empty_strided", ([2, 3], [1, 2]), (1, 2)),
        ("empty_strided", ([2, 3], [10, 1]), (10, 1)),
        ("empty_permuted", ([2, 3, 4], [2, 0, 1]), (3, 1, 6)),
    ],
)
def test_strides_are_as_asked_for(name: str, args: Any, want: tuple[int, ...]) -> None:
    made = call(name, *args)
    assert strides(made) == want
    assert not host(made).any()


# What PyTorch 2.13 with MKL gives for a contiguous (4, 5, 6): transformed dimensions last in memory, the others before.
@pytest.mark.parametrize(
    "name, dims, want",
    [
        ("fft.fftn", [0], (1, 24, 4)),
        ("fft.fftn", [1], (30, 1, 5)),
        ("fft.fftn", [2, 0], (6, 24, 1)),
        ("fft.rfftn", [0, 1], (3, 1, 12)),
        ("fft.rfftn", [1, 0], (1, 3, 15)),
        ("fft.irfftn", [0, 2], (10, 40, 1)),
        ("fft.ihfftn", [0, 1], (1, 4, 12)),
    ],
)
def test_a_transform_is_laid_out_as_in_pytorch(name: str, dims: list[int], want: tuple[int, ...]) -> None:
    x = tensor(np.arange(120.0).reshape(4, 5, 6))
    assert strides(call(name, x, dim=dims)) == want


def test_an_empty_batch_has_an_empty_transform() -> None:
    assert call("fft.rfft", tensor(np.zeros((0, 6)))).shape == (0, 4)


def test_pieces_that_are_not_safe_share_memory() -> None:
    x = tensor(np.arange(4.0))
    call("mul_", call("unsafe_split", x, 2)[1], 10.0)
    assert host(x).tolist() == [0, 1, 20, 30]
