"""Special functions against SciPy's, closed forms and PyTorch 2.13's answers at the edges."""

from __future__ import annotations

from math import inf, log, nan, pi, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import special

from engine.errors import Invalid, NoGradient
from tests.engine.tensors import call, context, host, leaf, tensor  # noqa: F401  (a fixture)

pytestmark = pytest.mark.usefixtures("context")


def of(name: str, *operands: Any, dtype: str = "float64") -> Any:
    """The result on arrays of one dtype; whole numbers stay parameters."""
    return host(call(name, *[x if isinstance(x, int) else tensor(np.array(x, dtype)) for x in operands]))


class TestAiry:
    def test_agrees_with_scipy_from_waves_to_underflow(self) -> None:
        x = np.concatenate([np.linspace(-40, 15, 1101), [-2.0, 2.0, -2.0 - 1e-12, 2.0 + 1e-12, 100.0]])
        want = special.airy(x)[0]
        # A wave's error counts against its amplitude, not against the values near its zeros.
        scale = np.where(x < 0, 1 / (sqrt(pi) * (1 + np.abs(x)) ** 0.25), want)
        assert np.abs((of("special.airy_ai", x) - want) / scale).max() < 2e-13

    def test_solves_its_equation(self) -> None:
        h = 1e-3
        x = np.array([-8.0, -3.0, -1.0, 0.5, 1.9, 2.1, 5.0])
        below, here, above = (of("special.airy_ai", x + step) for step in (-h, 0, h))
        np.testing.assert_allclose((above - 2 * here + below) / h**2, x * here, rtol=1e-4, atol=1e-9)

    def test_edges_are_pytorchs(self) -> None:
        edges = of("special.airy_ai", [104.0, inf, -inf, nan], dtype="float32")
        np.testing.assert_array_equal(edges, np.array([0, nan, nan, nan], np.float32))


class TestPolynomials:
    X = np.array([-1.7, -1.0, -0.6, 0.0, 0.3, 0.99, 1.0, 1.2])
    N = np.arange(16)

    @pytest.mark.parametrize(
        "name, reference",
        [
            ("chebyshev_polynomial_t", special.eval_chebyt),
            ("chebyshev_polynomial_u", special.eval_chebyu),
            ("shifted_chebyshev_polynomial_t", special.eval_sh_chebyt),
            ("shifted_chebyshev_polynomial_u", special.eval_sh_chebyu),
            ("hermite_polynomial_h", special.eval_hermite),
            ("hermite_polynomial_he", special.eval_hermitenorm),
            ("laguerre_polynomial_l", special.eval_laguerre),
            ("legendre_polynomial_p", special.eval_legendre),
        ],
    )
    def test_agree_with_scipy(self, name: str, reference: Any) -> None:
        made = of(f"special.{name}", self.X[:, None], self.N)
        np.testing.assert_allclose(made, reference(self.N, self.X[:, None]), rtol=1e-9, atol=1e-10)

    def test_the_third_and_fourth_kind_are_waves(self) -> None:
        angle = np.array([0.3, 1.1, 2.9])[:, None]
        made = of("special.chebyshev_polynomial_v", np.cos(angle), self.N)
        np.testing.assert_allclose(made, np.cos((self.N + 0.5) * angle) / np.cos(angle / 2), atol=1e-9)
        made = of("special.shifted_chebyshev_polynomial_w", (1 + np.cos(angle)) / 2, self.N)
        np.testing.assert_allclose(made, np.sin((self.N + 0.5) * angle) / np.sin(angle / 2), atol=1e-9)

    def test_a_degree_is_cut_and_negative_ones_give_0(self) -> None:
        made = of("special.legendre_polynomial_p", [0.5] * 6, [1.9, -0.5, -1.0, nan, inf, 1e20])
        np.testing.assert_array_equal(made, [0.5, 1, 0, 0, 0, 0])

    def test_two_numbers_give_the_default_dtype(self) -> None:
        made = call("special.chebyshev_polynomial_t", 0.5, 3)
        assert made.dtype.name == "float32"
        assert host(made).item() == -1

    def test_what_overflows_ends_the_recurrence(self) -> None:
        made = of("special.hermite_polynomial_h", [3.0, 0.1], [5000, 5000], dtype="float32")
        assert np.isnan(made).all()

    def test_a_degree_that_would_run_for_minutes_is_refused(self) -> None:
        with pytest.raises(Invalid, match="degrees above"):
            of("special.laguerre_polynomial_l", [0.5], [1e9])
        np.testing.assert_allclose(of("special.chebyshev_polynomial_t", [0.0], [1e9]), 1, atol=1e-6)


class TestGamma:
    def test_closed_forms(self) -> None:
        assert of("lgamma", 0.5) == pytest.approx(log(pi) / 2)
        assert of("digamma", 1.0) == pytest.approx(-np.euler_gamma)
        assert of("polygamma", 1, 1.0) == pytest.approx(pi**2 / 6)
        assert of("polygamma", 3, 1.0) == pytest.approx(pi**4 / 15)
        assert of("special.zeta", 4.0, 1.0) == pytest.approx(pi**4 / 90)
        assert of("igamma", 1.0, 2.0) == pytest.approx(1 - np.exp(-2))
        assert of("mvlgamma", 2.5, 2) == pytest.approx(log(pi) / 2 + special.gammaln(2.5) + special.gammaln(2.0))

    def test_poles_and_limits_are_pytorchs(self) -> None:
        np.testing.assert_array_equal(of("digamma", [0.0, -0.0, -1.0, -inf]), [-inf, inf, nan, nan])
        np.testing.assert_array_equal(of("lgamma", [0.0, -1.0, inf, -inf]), [inf] * 4)
        np.testing.assert_array_equal(of("polygamma", 2, [0.0, -1.0, inf, -inf]), [-inf, -inf, nan, -inf])
        a, x = [0.0, 1.0, 0.0, inf, inf, 2.0, -1.0, nan], [1.0, 0.0, 0.0, 1.0, inf, inf, 1.0, 0.0]
        np.testing.assert_array_equal(of("igamma", a, x), [1, 0, nan, 0, nan, 1, nan, 0])
        np.testing.assert_array_equal(of("igammac", a, x), [0, 1, nan, 1, nan, 0, nan, 1])

    def test_refusals_are_pytorchs(self) -> None:
        with pytest.raises(Invalid, match=r"^polygamma\(n, x\) does not support negative n\.$"):
            of("polygamma", -1, 1.0)
        with pytest.raises(Invalid, match=r"^p has to be greater than or equal to 1$"):
            of("mvlgamma", 1.0, 0)
        made = call("igamma", leaf([1.0]), tensor(np.array([2.0])))
        with pytest.raises(NoGradient, match=r"^the derivative for 'igamma: input' is not implemented\.$"):
            call("backward", call("sum", made))


class TestFloats:
    def test_the_next_number_is_that_of_the_dtype(self) -> None:
        for dtype, step in (("float16", 2.0**-10), ("bfloat16", 2.0**-7), ("float32", 2.0**-23)):
            one, less, zero = (call("to", tensor(np.array([v])), dtype) for v in (1.0, -2.0, 0.0))
            up = call("to", tensor(np.array([2.0])), dtype)
            assert host(call("to", call("nextafter", one, up), "float64")).tolist() == [1 + step]
            assert host(call("to", call("nextafter", one, less), "float64")).tolist() == [1 - step / 2]
            least = host(call("to", call("nextafter", zero, less), "float64"))[0]
            assert least == -(2.0**-24 if dtype == "float16" else 2.0**-133 if dtype == "bfloat16" else 2.0**-149)

    def test_ldexp_does_not_overflow_in_between(self) -> None:
        made = host(call("ldexp", tensor(np.array([1e-30, 3.0], np.float32)), tensor(np.array([130, -2]))))
        np.testing.assert_allclose(made, [1e-30 * 2.0**130, 0.75], rtol=1e-6)

    def test_ldexp_has_a_gradient_for_negative_exponents(self) -> None:
        x = leaf([3.0, 5.0])
        call("backward", call("sum", call("ldexp", x, tensor(np.array([-1, 9], np.int8)))))
        assert x.grad is not None
        assert host(x.grad).tolist() == [0.5, 512]

    def test_least_common_multiples_wrap_as_in_c(self) -> None:
        made = of("lcm", [127, -128, 12], [126, 127, -8], dtype="int8")
        assert made.tolist() == [-126, -128, 24]
        assert of("gcd", [-12, 0, 5], [8, 0, 0], dtype="int64").tolist() == [4, 0, 5]

    def test_the_largest_number_is_that_of_the_dtype(self) -> None:
        half = call("nan_to_num", tensor(np.array([inf, -inf, nan], np.float16)))
        assert host(half).tolist() == [65504, -65504, 0]

    def test_a_double_power_in_place_wants_a_double(self) -> None:
        with pytest.raises(
            Invalid, match=r"^the base given to float_power_ has dtype Float but the operation's result"
        ):
            call("float_power_", tensor(np.ones(2, np.float32)), 2)
