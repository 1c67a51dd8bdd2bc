"""Orthogonal polynomials, whose degree is an operand as their argument is.

A degree is cut to a whole number; polynomials of negative degree are 0. As in PyTorch there are no gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.carriers import NUMBERS, K
from engine.declare import Array, Scalar, op
from engine.errors import Invalid
from engine.ops.common import full_precision, put
from engine.samples import I, S, T

_SAMPLES = [
    S(T(2, 3, low=-1.5, high=1.5), I(3, low=-1, high=5)),
    S(T(), I()),
    S(T(3, low=-1.5, high=1.5), 12),
    S(0.5, I(4, high=12)),
    S(T(0, 2), I(1, 2)),
    S(I(3, low=-1, high=2), I(3)),
]
MOST_STEPS = 100_000  # of a recurrence: a second, where it is vectorized over few elements
_LOOKS_EVERY = 64  # steps of a recurrence between looks at whether anything is left that is not NaN

# From degrees k - 1 and k to k + 1: step(k, x, p_k, p_(k-1)).
Step = Callable[[int, Any, Any, Any], Any]
# step, degree 1, and for Chebyshev's the values at 1 and -1 and inside (-1, 1) from some degree on
Closed = tuple[int, Callable[[Any, Any, Any], Any], Callable[[Any, Any, Any], Any]]


def _polynomial(name: str, doc: str, first: Callable[[Any], Any], step: Step, closed: Closed | None = None,
                argument: Callable[[Any], Any] = lambda x: x) -> None:  # fmt: skip
    """Declares polynomials of degree n by their recurrence, `first` being that of degree 1.

    `closed` has a degree, and what gives the values inside (-1, 1) above it, and at 1 and -1: both functions of the
    array module, the argument and the degree as a float.
    """

    def arrays(k: K, x: Any, n: Any) -> tuple[Any, Any, Any]:
        """The argument; the degree, and as an integer: -1 where it is none that int64 has."""
        d = next((a.dtype for a in (x, n) if type(a) not in NUMBERS), k.default_dtype.np)
        xp = k.xp
        x, degree = (k.backend.asarray(a, d) if type(a) in NUMBERS else a for a in (x, n))
        degree = xp.trunc(xp.where(xp.abs(degree) < 2.0**63, degree, -1))
        return argument(x), degree, degree.astype(np.int64)

    def steps(xp: Any, x: Any, n: Any) -> int:
        """The highest degree that the recurrence is needed for."""
        if closed is not None:
            n = xp.where((n > closed[0]) & (xp.abs(x) <= 1), 0, n)
        return int(n.max()) if n.size and x.size else 0

    def kernel(k: K, x: Array | Scalar, n: Array | Scalar, *, out: Any = None) -> Array:
        xp = k.xp
        x, degree, whole = arrays(k, x, n)
        before, last = xp.ones_like(x), first(x)
        made = xp.where(whole == 0, before, xp.where(whole == 1, last, xp.zeros_like(x)))
        for at in range(1, steps(xp, x, whole)):
            before, last = last, step(at, x, last, before)
            made = xp.where(whole == at + 1, last, made)
            if at % _LOOKS_EVERY == 0 and bool(xp.isnan(last).all()):
                made = xp.where(whole > at, last, made)
                break
        if closed is not None:
            above, inside, ends = closed
            made = xp.where((whole > above) & (xp.abs(x) < 1), inside(xp, x, degree), made)
            made = xp.where((whole >= 0) & (xp.abs(x) == 1), ends(xp, x, degree), made)
        return put(made.astype(x.dtype, copy=False), out)

    kernel.__doc__ = doc
    declared = op(
        name=f"special.{name}",
        family="special",
        meta=full_precision(f"{name}_cpu"),
        promote="float",
        elementwise=True,
        keeps=False,
        vjp=None,
        samples=_SAMPLES,
    )(kernel)

    @declared.guard
    def _(k: K, x: Any, n: Any) -> None:
        x, _, whole = arrays(k, x, n)
        if steps(k.xp, k.xp.where(k.xp.isfinite(x), x, 0), whole) > MOST_STEPS:
            raise Invalid(
                f"polynomials of degrees above {MOST_STEPS} are not computed here, but for Chebyshev's in [-1, 1]",
                code="degree-too-high",
                op=f"special.{name}",
                param="n",
            )


# ---------------------------------------------------------------- Chebyshev's


def _sign(n: Any) -> Any:
    """(-1)^n, for degrees as floats."""
    return 1 - 2 * (n % 2)


def _chebyshev(kind: str, doc: str, first: Callable[[Any], Any], above: int, shifted: int, inside: Any, ends: Any
               ) -> None:  # fmt: skip
    _polynomial(f"chebyshev_polynomial_{kind}", doc, first, lambda k, x, p, q: (x + x) * p - q, (above, inside, ends))
    _polynomial(
        f"shifted_chebyshev_polynomial_{kind}",
        f"{doc[:-1]}, at 2x - 1: orthogonal on [0, 1].",
        first,
        lambda k, x, p, q: (x + x) * p - q,
        (shifted, inside, ends),
        lambda x: x + x - 1,
    )


def _ratio(xp: Any, over: Any, under: Any, limit: Any) -> Any:
    """A quotient of waves, with its limit where the lower one has a zero."""
    zero = under == 0
    return xp.where(zero, limit, over / xp.where(zero, 1, under))


_chebyshev(
    "t",
    "Chebyshev polynomials of the first kind, T_n(cos a) = cos(n a).",
    lambda x: x,
    6,
    6,
    lambda xp, x, n: xp.cos(n * xp.arccos(x)),
    lambda xp, x, n: xp.where(x > 0, 1, _sign(n)),
)
_chebyshev(
    "u",
    "Chebyshev polynomials of the second kind, U_n(cos a) = sin((n + 1) a) / sin(a).",
    lambda x: x + x,
    8,
    6,
    lambda xp, x, n: _ratio(xp, xp.sin((n + 1) * xp.arccos(x)), xp.sin(xp.arccos(x)), n + 1),
    lambda xp, x, n: xp.where(x > 0, n + 1, _sign(n) * (n + 1)),
)
_chebyshev(
    "v",
    "Chebyshev polynomials of the third kind, V_n(cos a) = cos((n + 1/2) a) / cos(a / 2).",
    lambda x: x + x - 1,
    8,
    6,
    lambda xp, x, n: _ratio(xp, xp.cos((n + 0.5) * xp.arccos(x)), xp.cos(xp.arccos(x) / 2), _sign(n) * (2 * n + 1)),
    lambda xp, x, n: xp.where(x > 0, 1, _sign(n) * (2 * n + 1)),
)
_chebyshev(
    "w",
    "Chebyshev polynomials of the fourth kind, W_n(cos a) = sin((n + 1/2) a) / sin(a / 2).",
    lambda x: x + x + 1,
    8,
    4,
    lambda xp, x, n: _ratio(xp, xp.sin((n + 0.5) * xp.arccos(x)), xp.sin(xp.arccos(x) / 2), 2 * n + 1),
    lambda xp, x, n: xp.where(x > 0, 2 * n + 1, _sign(n)),
)


# ---------------------------------------------------------------- others


_polynomial(
    "hermite_polynomial_h",
    "The physicists' Hermite polynomials: H_(n+1) = 2x H_n - 2n H_(n-1).",
    lambda x: x + x,
    lambda k, x, p, q: (x + x) * p - 2 * k * q,
)
_polynomial(
    "hermite_polynomial_he",
    "The probabilists' Hermite polynomials: He_(n+1) = x He_n - n He_(n-1).",
    lambda x: x,
    lambda k, x, p, q: x * p - k * q,
)
_polynomial(
    "laguerre_polynomial_l",
    "Laguerre polynomials: (n + 1) L_(n+1) = (2n + 1 - x) L_n - n L_(n-1).",
    lambda x: 1 - x,
    lambda k, x, p, q: ((2 * k + (1 - x)) * p - k * q) / (k + 1),
)
_polynomial(
    "legendre_polynomial_p",
    "Legendre polynomials: (n + 1) P_(n+1) = (2n + 1) x P_n - n P_(n-1).",
    lambda x: x,
    lambda k, x, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1),
)
