"""Reductions of segments, against loops over the segments, and PyTorch 2.13's answers at the edges."""

from __future__ import annotations

from math import inf, isnan
from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from tests.engine.tensors import call, context, host, leaf, tensor  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("context")

REDUCTIONS = {"sum": np.sum, "mean": np.mean, "prod": np.prod, "max": np.max, "min": np.min}
EMPTY = {"sum": 0.0, "prod": 1.0, "max": -inf, "min": inf}


def segments(*args: Any, **kwargs: Any) -> Any:
    return host(call("segment_reduce", *args, **kwargs))


@pytest.mark.parametrize("reduce", list(REDUCTIONS))
class TestEach:
    def test_rows_of_a_batch_have_segments_of_their_own(self, reduce: str) -> None:
        data = np.random.default_rng(0).standard_normal((2, 6, 3))
        lengths = np.array([[1, 2, 3], [4, 1, 1]])
        got = segments(tensor(data), reduce, tensor(lengths), axis=1)
        for row, cuts in enumerate(np.cumsum(lengths, axis=1)):
            parts = np.split(data[row], cuts[:-1])
            np.testing.assert_allclose(got[row], [REDUCTIONS[reduce](p, axis=0) for p in parts], rtol=1e-12)

    def test_offsets_leave_out_what_lies_around_them(self, reduce: str) -> None:
        data = np.array([9.0, 1.0, 2.0, 5.0, 9.0])
        got = segments(tensor(data), reduce, offsets=tensor(np.array([1, 2, 4])))
        assert got.tolist() == [REDUCTIONS[reduce](data[1:2]), REDUCTIONS[reduce](data[2:4])]

    def test_an_empty_segment(self, reduce: str) -> None:
        got = segments(tensor(np.array([3.0])), reduce, tensor(np.array([0, 1])))
        assert isnan(got[0]) if reduce == "mean" else got[0] == EMPTY[reduce]
        assert segments(tensor(np.array([3.0])), reduce, tensor(np.array([0, 1])), initial=2)[0] == 2

    def test_the_gradient_is_that_of_the_segment(self, reduce: str) -> None:
        x = leaf([1.0, 2.0, 2.0, 0.0, 5.0, 3.0])
        made = call("segment_reduce", x, reduce, tensor(np.array([1, 2, 3])), initial=1)
        call("backward", made, tensor(np.array([1.0, 10.0, 100.0], "float32")))
        assert host(x.grad).tolist() == pytest.approx(  # type: ignore[arg-type]
            {
                "sum": [1, 10, 10, 100, 100, 100],
                "mean": [1, 5, 5, 100 / 3, 100 / 3, 100 / 3],
                "prod": [1, 20, 20, 1500, 0, 0],
                "max": [1, 5, 5, 0, 100, 0],
                "min": [1, 0, 0, 100, 0, 0],
            }[reduce]
        )


@pytest.mark.parametrize(
    "given, said",
    [
        ({"reduce": "mode", "lengths": [3]}, "reduce argument must be either sum, prod, mean, amax or amin, got mode"),
        ({"lengths": [2]}, "segment_reduce(): Expected all rows of lengths along axis to sum to data.size"),
        ({"lengths": [-1, 4]}, "lengths contains negative value!"),
        ({"offsets": [0, 2, 1]}, "Expected segment_length >= 0 to be true, but got false."),
        ({"offsets": [0, 4]}, "segment_reduce(): a segment ends after the last of 3 elements"),
        ({"lengths": [4], "unsafe": True}, "segment_reduce(): a segment ends after the last of 3 elements"),
        ({}, "segment_reduce(): Either lengths or offsets must be defined."),
        ({"lengths": [[3]]}, "Expected data.dim() >= lengths_value.dim() to be true, but got false."),
        ({"lengths": [3.0]}, "\"_segment_reduce_lengths_cpu_kernel1\" not implemented for 'Float'"),
    ],
)
def test_what_is_refused(given: dict[str, Any], said: str) -> None:
    bounds = {
        name: tensor(np.array(v, "float32" if isinstance(v[0], float) else "int64"))
        for name, v in given.items()
        if name in ("lengths", "offsets")
    }
    with pytest.raises(EngineError) as caught:
        call("segment_reduce", tensor([1.0, 2.0, 3.0]), **{"reduce": "sum", **given, **bounds})
    assert caught.value.detail.startswith(said)


@pytest.mark.parametrize("form", ["lengths", "offsets"])
def test_many_segments_are_looked_up_and_not_compared(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((2, 40))
    ends = np.sort(rng.integers(0, 41, (2, 9)), axis=1)
    bounds = np.concatenate([np.zeros((2, 1), int), ends, np.full((2, 1), 40)], axis=1)
    given = {form: tensor(np.diff(bounds, axis=1) if form == "lengths" else bounds)}
    compared = segments(tensor(data), "sum", **given, axis=1)
    monkeypatch.setattr("engine.ops.segments._TABLE", 0)
    assert segments(tensor(data), "sum", **given, axis=1).tolist() == compared.tolist()
    assert compared[1, 3] == pytest.approx(data[1, bounds[1, 3] : bounds[1, 4]].sum())
