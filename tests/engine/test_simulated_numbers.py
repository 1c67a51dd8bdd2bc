"""The stand-in for CuPy: which type loop a call takes, `out=`, memory order of results, and linear algebra."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest

from tests.engine.simulated_calls import DTYPES, parts, run, sp, xp

# ---------------------------------------------------------------- dtypes


SCALARS: list[Any] = [True, 2, 2.5, 1j]


@pytest.mark.parametrize(
    "name", ["add", "multiply", "subtract", "true_divide", "power", "maximum", "less", "floor_divide"]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_python_scalars_are_weak_as_in_numpy(name: str, dtype: np.dtype[Any]) -> None:
    host = np.array([1, 1], dtype)
    for scalar, swapped in itertools.product(SCALARS, (False, True)):
        operands = (scalar, host) if swapped else (host, scalar)
        try:
            wanted = getattr(np, name)(*operands).dtype
        except TypeError:
            continue
        got = getattr(xp, name)(*[xp.asarray(o) if o is host else o for o in operands])
        assert got.dtype == wanted


@pytest.mark.parametrize("x, y", list(itertools.product(DTYPES, DTYPES)), ids=str)
def test_arrays_promote_as_in_numpy(x: np.dtype[Any], y: np.dtype[Any]) -> None:
    for name in ("add", "multiply", "true_divide", "maximum", "equal"):
        wanted = getattr(np, name)(np.ones(2, x), np.ones((), y)).dtype
        assert getattr(xp, name)(xp.ones(2, x), xp.ones((), y)).dtype == wanted
    if (x.kind, y.kind) != ("b", "b"):
        assert xp.where(xp.ones(2, bool), xp.ones(2, x), xp.ones((), y)).dtype == np.result_type(x, y)


def test_integers_that_do_not_fit() -> None:
    a = xp.asarray([1, 2], dtype=np.uint8)
    for call in (lambda: a + 300, lambda: a * -1, lambda: xp.where(a > 0, a, 256), lambda: xp.maximum(a, 1000)):
        with pytest.raises(OverflowError):
            call()
    # Comparisons look at the values, also where the type could not hold them.
    assert (a < 300).tolist() == [True, True]
    assert (a > -1).tolist() == [True, True]
    assert (xp.asarray([1, -1]) < 1 << 63).tolist() == [True, True]
    assert (xp.asarray([1], dtype=np.uint64) > -1).tolist() == [True]


def test_bool_and_complex_loops() -> None:
    t, c = xp.asarray([True, False]), xp.asarray([1j, 0])
    for call in (
        lambda: t - t,
        lambda: -t,
        lambda: +t,
        lambda: xp.gcd(t, t),
        lambda: ~xp.ones(2),
        lambda: xp.ones(2) & 1,
        lambda: c // 1,
        lambda: c % 1,
        lambda: xp.floor(c),
        lambda: xp.logical_and(c, c),
        lambda: xp.logical_or(c, c),
        lambda: xp.logical_not(c),
        lambda: xp.logical_xor(c, c),
        lambda: xp.clip(c, 0, 1),
        lambda: xp.clip(t, None, True),
        lambda: xp.left_shift(xp.ones(2), 1),
        lambda: xp.isneginf(c),
    ):
        with pytest.raises(TypeError, match=r"is not supported for|needs both limits"):
            call()
    assert (t + t).tolist() == [True, False]
    assert xp.sign(t).dtype == np.int8
    assert xp.conjugate(t).dtype == np.int8
    assert xp.angle(t).dtype == np.float64
    assert xp.angle(t.astype(np.int8)).dtype == np.float16
    assert xp.round(t).dtype == np.float16


def test_dtype_keyword() -> None:
    a = xp.asarray([1, 2], dtype=np.int32)
    assert xp.add(a, a, dtype=np.float64).dtype == np.float64
    assert xp.true_divide(a, a, dtype=np.float32).dtype == np.float32
    with pytest.raises(TypeError, match="cannot cast"):
        xp.add(xp.asarray([1.5]), 1, dtype=np.int64)
    with pytest.raises(TypeError, match="not supported"):
        xp.bitwise_and(a, a, dtype=np.float64)
    assert xp.add(xp.asarray([1.5]), 1, dtype=np.int64, casting="unsafe").tolist() == [2]


@pytest.mark.parametrize(
    "expression",
    [
        "xp.add(a, b, out=o)",
        "xp.add(a, b, o)",
        "xp.exp(a, out=o)",
        "xp.matmul(a, b, out=o)",
        "xp.dot(a, b, out=o)",
        "xp.cumsum(a, axis=0, out=o)",
        "xp.concatenate((a[:1], b[:1]), out=o)",
        "xp.stack((a[0], b[0]), out=o)",
        "xp.clip(a, 0, 1, out=o)",
        "xp.round(a, 1, out=o)",
        "xp.take(a, i, axis=0, out=o)",
        "a.__iadd__(b.astype(np.float64)) if o.dtype != np.float32 else a.__iadd__(b)",
    ],
)
def test_out_of_another_dtype_or_shape(expression: str) -> None:
    values = {"a": xp.ones((2, 2), np.float32), "b": xp.ones((2, 2), np.float32), "i": xp.asarray([0, 1])}
    good = xp.zeros((2, 2), np.float32)
    result = run(expression, xp, sp, {**values, "o": good})
    assert result is good or "iadd" in expression
    assert float(xp.abs(result).sum()) > 0
    with pytest.raises(TypeError, match=r"float32|float64"):
        run(expression, xp, sp, {**values, "o": xp.zeros((2, 2), np.float64)})
    if "iadd" not in expression:
        with pytest.raises(ValueError, match="shape"):
            run(expression, xp, sp, {**values, "o": xp.zeros((3, 3), np.float32)})


def test_out_of_reductions_and_several_outputs() -> None:
    a = xp.ones((2, 3), np.float32)
    out = xp.zeros(3, np.float32)
    assert xp.sum(a, axis=0, out=out) is out
    assert out.tolist() == [2, 2, 2]
    with pytest.raises(TypeError):
        xp.sum(a, axis=0, out=xp.zeros(3))
    with pytest.raises(ValueError, match="shape"):
        xp.sum(a, axis=0, out=xp.zeros(2, np.float32))
    quotient, rest = xp.zeros(2, np.int64), xp.zeros(2, np.int64)
    xp.divmod(xp.asarray([7, 8]), 3, out=(quotient, rest))
    assert (quotient.tolist(), rest.tolist()) == ([2, 2], [1, 2])
    with pytest.raises(ValueError, match="tuple"):
        xp.divmod(xp.asarray([7, 8]), 3, out=(quotient,))
    with pytest.raises(ValueError, match="both"):
        xp.add(a, a, a, out=a)
    assert xp.add(a, a, out=a) is a
    wide = xp.zeros((2, 3), np.float32)
    xp.add(a[0], 1, out=wide)
    assert wide.tolist() == [[3, 3, 3]] * 2


def test_results_are_in_c_order() -> None:
    f = xp.asarray(np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)))
    assert f.flags.f_contiguous
    for result in (f + 1, xp.exp(f), f * f, xp.sum(f, axis=0), xp.where(f > 1, f, 0.0), xp.sort(f), xp.cumsum(f, 0)):
        assert result.flags.c_contiguous
    assert f[:, xp.asarray([2, 0])].flags.c_contiguous
    assert xp.clip(f, 0, 1).flags.c_contiguous
    assert f.copy().flags.c_contiguous
    assert xp.copy(f).flags.f_contiguous
    assert f.astype(np.float32).flags.f_contiguous
    assert xp.zeros_like(f).flags.f_contiguous
    assert (f.T @ f.T.swapaxes(1, 2)).flags.c_contiguous


def test_short_powers() -> None:
    a = xp.asarray([-0.0, -np.inf])
    assert str((a**0.5).tolist()) == "[-0.0, nan]"  # a square root; a power would be 0.0 and inf
    assert (xp.asarray([3], dtype=np.uint8) ** 2).dtype == np.uint8
    assert (xp.asarray([True]) ** 2).dtype == np.int64
    assert (xp.asarray([3]) ** 0.5).dtype == np.float64
    assert (xp.asarray([4], dtype=np.int32) ** -1.0).tolist() == [0.25]


def test_clip_with_nan_and_crossed_limits() -> None:
    a = xp.asarray([1.0, 5.0, np.nan])
    assert str(xp.clip(a, np.nan, 3.0).tolist()) == "[1.0, 3.0, nan]"
    assert xp.clip(a[:2], 4.0, 2.0).tolist() == [2.0, 2.0]
    assert xp.clip(a[:2], None, 2.0).tolist() == [1.0, 2.0]
    assert xp.clip(xp.asarray([1, 9], dtype=np.int8), 3, None).tolist() == [3, 9]
    assert a.clip(2.0).tolist()[:2] == [2.0, 5.0]
    assert a.clip(max=2.0).tolist()[:2] == [1.0, 2.0]


def test_no_floating_point_warnings() -> None:
    zero = xp.zeros(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert xp.isnan(zero / zero).all()
        assert xp.isinf(xp.log(zero)).all()
        (xp.asarray([np.nan, np.inf, 1e30])).astype(np.int32)
        xp.asarray([1, 2]) // 0
        xp.exp(xp.asarray([1e6]))
        sp.special.gammaln(zero)
        xp.mean(xp.zeros(3) / 0)


# ---------------------------------------------------------------- linear algebra


def test_failed_factorisations_say_nothing() -> None:
    good = np.array([[2.0, 1.0], [1.0, 2.0]])
    singular, indefinite = np.ones((2, 2)), np.array([[1.0, 2.0], [2.0, 1.0]])
    stack = xp.asarray(np.stack([good, singular]))
    inverse = xp.linalg.inv(stack)
    np.testing.assert_allclose(inverse[0].get(), np.linalg.inv(good))
    assert xp.isnan(inverse[1]).all()
    assert xp.isnan(xp.linalg.inv(xp.asarray(singular))).all()
    solution = xp.linalg.solve(stack, xp.ones((2, 2, 1)))
    np.testing.assert_allclose(solution[0, :, 0].get(), [1 / 3, 1 / 3])
    assert xp.isnan(solution[1]).all()
    factor = xp.linalg.cholesky(xp.asarray(np.stack([good, indefinite])))
    np.testing.assert_allclose(factor[0].get(), np.linalg.cholesky(good))
    assert xp.isnan(factor[1]).all()
    u, s, vh = xp.linalg.svd(xp.full((2, 2), math.nan))
    assert all(bool(xp.isnan(x).all()) for x in (u, s, vh))
    assert [x.shape for x in xp.linalg.svd(xp.full((2, 3), math.nan), full_matrices=False)] == [(2, 2), (2,), (2, 3)]
    for name in ("eig", "eigvals"):
        assert all(bool(xp.isnan(x).all()) for x in parts(getattr(xp.linalg, name)(xp.full((2, 2), math.nan))))
    assert xp.isnan(xp.linalg.pinv(xp.full((2, 3), math.nan))).all()
    assert xp.isnan(xp.linalg.matrix_power(xp.asarray(singular), -1)).all()
    assert xp.isnan(xp.linalg.norm(xp.full((2, 2), math.nan), 2)).all()
    sign, logdet = xp.linalg.slogdet(xp.asarray(singular))
    assert (float(sign), float(logdet)) == (0, -math.inf)
    assert not xp.isfinite(sp.linalg.solve_triangular(xp.asarray([[1.0, 1.0], [0.0, 0.0]]), xp.ones(2))).all()


def test_linear_algebra_checks_shapes_and_dtypes() -> None:
    error = np.linalg.LinAlgError
    assert xp.linalg.LinAlgError is error
    for call in (
        lambda: xp.linalg.inv(xp.ones((2, 3))),
        lambda: xp.linalg.inv(xp.ones(2)),
        lambda: xp.linalg.det(xp.ones((2, 3))),
        lambda: xp.linalg.svd(xp.ones(3)),
        lambda: xp.linalg.lstsq(xp.ones((2, 2, 2)), xp.ones(2)),
        lambda: sp.linalg.lu(xp.ones((2, 2, 2))),
    ):
        with pytest.raises(error):
            call()
    eye = xp.eye(2, dtype=np.float32)
    with pytest.raises(TypeError, match="float16"):
        xp.linalg.inv(eye.astype(np.float16))
    assert xp.linalg.inv(xp.eye(2, dtype=np.int32)).dtype == np.float64
    assert xp.linalg.inv(eye).dtype == np.float32
    assert (eye.astype(np.float16) @ eye.astype(np.float16)).dtype == np.float16
    with pytest.raises(NotImplementedError):
        sp.linalg.lu_factor(xp.eye(2, dtype=np.int64))


def test_solve_does_not_broadcast_batches() -> None:
    a = xp.asarray(np.stack([np.eye(2), 2 * np.eye(2)]))
    assert xp.linalg.solve(a, xp.ones(2)).tolist() == [[1, 1], [0.5, 0.5]]
    assert xp.linalg.solve(a, xp.ones((2, 2, 1))).shape == (2, 2, 1)
    for b in (xp.ones((2, 1)), xp.ones((1, 2, 1)), xp.ones(3), xp.ones(())):
        with pytest.raises(ValueError, match=r"b must|must have"):
            xp.linalg.solve(a, b)
    triangular = sp.linalg.solve_triangular(a, xp.ones((2, 2)))
    assert triangular.tolist() == [[1, 1], [0.5, 0.5]]
    with pytest.raises(ValueError, match="incompatible"):
        sp.linalg.solve_triangular(a, xp.ones(2))


def test_fourier_dtypes() -> None:
    half = xp.ones(4, np.float16)
    assert xp.fft.fft(half).dtype == np.complex64
    assert xp.fft.rfft(half).dtype == np.complex64
    assert xp.fft.fft(xp.ones(4, np.int32)).dtype == np.complex128
    assert xp.fft.irfft(xp.ones(3, np.complex64)).dtype == np.float32
    assert xp.fft.fftn(xp.ones((2, 4)), s=(4,)).shape == (2, 4)
    with pytest.raises(TypeError, match="real"):
        xp.fft.rfft(xp.ones(4, np.complex64))
