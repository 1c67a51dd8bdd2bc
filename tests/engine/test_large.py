"""The ways that kernels take with many elements give what those with few give: other tests are small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special

from engine.autograd import run_backward
from engine.context import Context
from tests.engine.tensors import call, context, host, tensor

__all__ = ["context"]  # a fixture


def _gradients(run: Any, arrays: list[Any], grad: Any) -> list[Any]:
    inputs = [tensor(a) for a in arrays]
    for t in inputs:
        t.requires_grad = True
    made = run(*inputs)
    run_backward([made], [tensor(grad)])
    return [host(made), *(host(t.grad) for t in inputs)]  # type: ignore[arg-type]


@pytest.mark.parametrize("d", [np.float32, np.float64])
@pytest.mark.parametrize("parameters", [0, 1, 2])
def test_layer_norm_of_a_large_matrix(d: Any, parameters: int, context: Context) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(d) for shape in ((3000, 100), (100,), (100,))[: 1 + parameters]]
    arrays[0] += d(3)
    grad = rng.standard_normal((3000, 100)).astype(d)
    whole = _gradients(lambda x, *p: call("nn.functional.layer_norm", x, [100], *p), arrays, grad)
    rows = slice(2000, 2010)  # a few rows alone, which no BLAS is called for
    few = _gradients(
        lambda x, *p: call("nn.functional.layer_norm", x, [100], *p), [arrays[0][rows], *arrays[1:]], grad[rows]
    )
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if d is np.float32 else {"rtol": 1e-11, "atol": 1e-12}
    for a, b in zip(whole[:2], few[:2], strict=True):
        np.testing.assert_allclose(a[rows], b, **tolerance)
    if parameters:
        wide = arrays[0].astype(np.float64)
        normal = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(whole[2], (grad * normal).sum(0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spread", [1.0, 30.0])  # beyond the second the maximum is subtracted first
@pytest.mark.parametrize("name", ["softmax", "logsumexp"])
def test_exponentials_of_a_large_matrix(name: str, spread: float, context: Context) -> None:
    rng = np.random.default_rng(0)
    x, grad = rng.standard_normal((200, 100)) * spread, rng.standard_normal((200, 100))
    grad = grad if name == "softmax" else grad[:, 0]
    made, slope = _gradients(lambda x: call(name, x, 1), [x.astype(np.float32)], grad.astype(np.float32))
    p = special.softmax(x, 1)
    if name == "softmax":
        wanted, back = p, p * (grad - (grad * p).sum(1, keepdims=True))
    else:
        wanted, back = special.logsumexp(x, 1), p * grad[:, None]
    np.testing.assert_allclose(made, wanted, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(slope, back, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("shape, dim", [((1 << 15) + 7, None), ((3, 20_000), 1), ((3, 20_000), None), ((9, 50), 1)])
def test_sums_along_long_rows(shape: Any, dim: int | None, context: Context) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32) + 1
    for name, wanted in (("sum", x.sum(dim, np.float64)), ("mean", x.mean(dim, np.float64)), ("amax", x.max(dim))):
        made = host(call(name, tensor(x), *(() if dim is None else (dim,))))
        assert made.shape == wanted.shape
        np.testing.assert_allclose(made, wanted, rtol=1e-6)


@pytest.mark.parametrize("low, high", [(0.0, None), (None, 0.5), (-1.0, 1.0), (0.5, -0.5), (-1, 2)])
def test_many_elements_are_bounded_as_few_are(low: float | None, high: float | None, context: Context) -> None:
    x = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    x[:6] = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0]
    whole = host(call("clamp", tensor(x), low, high))
    parts = [host(call("clamp", tensor(x[i : i + 100]), low, high)) for i in range(0, 3000, 100)]
    np.testing.assert_array_equal(whole.view(np.uint32), np.concatenate(parts).view(np.uint32))
    if low == 0:
        assert np.signbit(whole[5])  # as in PyTorch


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("kind", ["distinct", "ties", "equal", "nan", "infinite", "int64", "uint8"])
def test_topk_of_a_large_matrix_is_the_beginning_of_its_order(kind: str, largest: bool, context: Context) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 301)).astype(np.float32)
    if kind == "ties":
        x = np.round(x, 1)
    elif kind == "equal":
        x[:] = 1
    elif kind == "nan":
        x[3, 7] = x[3, 100] = np.nan
    elif kind == "infinite":
        x[2, :] = -np.inf
        x[3, :299] = np.inf
    elif kind in ("int64", "uint8"):
        x = rng.integers(0, 250, x.shape).astype(kind)
    for k in (1, 7, 25):
        values, indices = call("topk", tensor(x), k, 1, largest)
        ordered, order = call("sort", tensor(x), 1, largest, True)
        np.testing.assert_array_equal(host(values), host(ordered)[:, :k])
        np.testing.assert_array_equal(host(indices), host(order)[:, :k])
    values, indices = call("topk", tensor(np.ascontiguousarray(x.T)), 7, 0, largest)
    np.testing.assert_array_equal(host(indices), host(call("topk", tensor(x), 7, 1, largest)[1]).T)


@pytest.mark.parametrize("d", [np.float32, np.complex64])
@pytest.mark.parametrize("shape, dim", [((40, 300), 0), ((2, 30, 300), 1), ((30, 40), 1), ((300, 2, 256), 1)])
def test_running_sums_from_either_end(d: Any, shape: tuple[int, ...], dim: int, context: Context) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(d)
    made, grad = _gradients(lambda t: call("cumsum", t, dim), [x], x)
    wide = x.astype(np.complex128 if d is np.complex64 else np.float64)
    np.testing.assert_array_equal(made, np.cumsum(wide, dim).astype(d))
    np.testing.assert_array_equal(grad, np.flip(np.cumsum(np.flip(wide, dim), dim), dim).astype(d))


@pytest.mark.parametrize("shape", [(1 << 17,), (2000,)])
def test_the_error_function_in_float32(shape: tuple[int, ...], context: Context) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-5, 5, shape), 10 ** rng.uniform(-37, 1, shape)]).astype(np.float32)
    x[:6] = [0.0, -0.0, np.inf, -np.inf, 3e38, -1e-40]
    made, true = host(call("erf", tensor(x))), special.erf(x.astype(np.float64))
    units = np.abs(made - true) / np.spacing(np.abs(true).astype(np.float32))
    assert units.max() <= 2
    assert np.signbit(made[1])
    assert np.abs(made).max() == 1
    assert np.isnan(host(call("erf", tensor(np.full(3, np.nan, np.float32))))).all()


def test_rows_of_a_large_table_add_up(context: Context) -> None:
    rng = np.random.default_rng(0)
    index, rows = rng.integers(0, 1000, 60), rng.standard_normal((60, 8))
    index[:10] = 999
    (_, grad) = _gradients(lambda t: call("index_select", t, 0, tensor(index)), [np.zeros((1000, 8))], rows)
    expected = np.zeros((1000, 8))
    np.add.at(expected, index, rows)
    np.testing.assert_allclose(grad, expected, rtol=1e-12)
