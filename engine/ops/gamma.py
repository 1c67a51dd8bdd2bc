"""The gamma function's family: its logarithm, its logarithmic derivatives, its incomplete forms, and Hurwitz' zeta."""

from __future__ import annotations

from math import log, pi
from typing import Any

from engine.carriers import K
from engine.declare import Array, Scalar, composite, op
from engine.dtypes import BOOL, COMPLEX, INT, scalar_type
from engine.errors import DtypeMismatch, Invalid, NoGradient
from engine.op import REGISTRY, Spec
from engine.ops.common import either, full_precision, lacking, not_implemented, publish_inplace, put
from engine.samples import I, S, T

_POSITIVE = [S(T(2, 3, low=0.3, high=4.0)), S(T(low=0.3)), S(T(0, 2)), S(I(4, low=1))]


# ---------------------------------------------------------------- the logarithm and its derivatives


@op(
    family="special",
    meta=lacking("lgamma_vml_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("special.gammaln",),
    save={"input": ("input",)},
    samples=[*_POSITIVE, S(T(3, values=[-1.5, -0.3, 2.5]))],
)
def lgamma(k: K, input: Array, *, out: Any = None) -> Array:
    """log(|Gamma(x)|); infinite at 0, -1, -2, ..."""
    return put(_lgamma(k, input), out)


def _lgamma(k: K, x: Any) -> Any:
    return either(k.xp, k.xp.isinf(x), float("inf"), k.sp.special.gammaln(x))


@lgamma.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * F.digamma(saved.input)


@op(
    family="special",
    meta=lacking("digamma", COMPLEX),
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("special.digamma", "special.psi"),
    save={"input": ("input",)},
    samples=[*_POSITIVE, S(T(3, values=[-1.5, -0.3, 2.5]))],
)
def digamma(k: K, input: Array, *, out: Any = None) -> Array:
    """Gamma'(x) / Gamma(x), the derivative of `lgamma`; -inf at 0, NaN at -1, -2, ..."""
    return put(_digamma(k, input), out)


def _digamma(k: K, x: Any) -> Any:
    xp = k.xp
    made = either(xp, (x < 0) & (x == xp.floor(x)), float("nan"), k.sp.special.psi(x))
    return either(xp, x == 0, xp.copysign(float("inf"), -x), made)


@digamma.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * F._polygamma(saved.input, 1)


def _order_meta(k: K, input: Any, n: int) -> Spec:
    if n < 0:
        raise Invalid("polygamma(n, x) does not support negative n.", param="n")
    if k.dtype.category == COMPLEX:
        raise not_implemented({0: "digamma", 1: "trigamma"}.get(n, "polygamma"), k.dtype)
    return Spec(input.shape, k.dtype)


@op(
    family="special",
    meta=_order_meta,
    promote="float",
    elementwise=True,
    keeps=False,
    inplace=True,
    node="PolygammaBackward0",
    save={"input": ("input",)},
    samples=[S(T(2, 3, low=0.4, high=4.0), 2), S(T(low=0.4), 1), S(T(0, 2), 0), S(I(3, low=1), 3)],
)
def _polygamma(k: K, input: Array, n: int, *, out: Any = None) -> Array:
    """The derivative of order n of `digamma`: (-1)^(n+1) n! zeta(n+1, x).

    Shape: as the input. The derivative of order 0 is `digamma` itself, and that of order 1 is found by reflection.
    """
    if n == 0:
        return put(_digamma(k, input), out)
    if n == 1:
        return put(_trigamma(k.xp, input), out)
    xp, special = k.xp, k.sp.special
    order = xp.full_like(input, n + 1)
    sign = 1.0 if n % 2 else -1.0
    return put(sign * special.gamma(order) * _zeta(k, order, input), out)


def _trigamma(xp: Any, x: Any) -> Any:
    """Reflected to x >= 1/2, raised by six recurrences, then its asymptotic series (Abramowitz and Stegun 6.4.6-12)."""
    low = x < 0.5
    sine = xp.sin(x * pi)
    y = either(xp, low, 1 - x, x)
    made = xp.zeros_like(y)
    for _ in range(6):
        made = made + 1 / (y * y)
        y = y + 1
    inverse = 1 / (y * y)
    made = made + (1 + 1 / (2 * y) + inverse * (1 / 6 - inverse * (1 / 30 - inverse * (1 / 42)))) / y
    return either(xp, low, pi * pi / (sine * sine) - made, made)


@_polygamma.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * F._polygamma(saved.input, saved.n + 1)


publish_inplace(_polygamma, "polygamma_")


@composite(
    family="special",
    node="PolygammaBackward0",
    alias=("special.polygamma",),
    samples=[S(2, T(2, 3, low=0.4, high=4.0)), S(1, T(low=0.4)), S(0, T(0, 2)), S(3, I(3, low=1))],
)
def polygamma(F: Any, n: int, input: Array) -> Array:
    """The derivative of order n >= 0 of `digamma`: (-1)^(n+1) n! zeta(n+1, x)."""
    return F._polygamma(input, n)


# ---------------------------------------------------------------- several dimensions


def _check_dimensions(input: Any, p: int) -> None:
    if input.dtype.category == BOOL:
        raise DtypeMismatch("The input tensor may not be a boolean tensor.", param="input")
    if p < 1:
        raise Invalid("p has to be greater than or equal to 1", param="p")


def _mvlgamma_meta(k: K, input: Any, p: int, order: int = 0) -> Spec:
    _check_dimensions(input, p)
    if k.dtype.category == COMPLEX:
        raise not_implemented("arange_cpu", k.dtype)
    return Spec(input.shape, k.dtype)


@op(
    family="special",
    meta=_mvlgamma_meta,
    promote="float",
    row_major=True,
    inplace=True,
    alias=("special.multigammaln",),
    save={"input": ("input",)},
    samples=[S(T(2, 3, low=1.3, high=4.0), 2), S(T(low=1.3), 1), S(T(0, 2), 3), S(I(3, low=3, high=6), 3)],
)
def mvlgamma(k: K, input: Array, p: int) -> Array:
    """The logarithm of the multivariate gamma function in p dimensions.

    p (p - 1) log(pi) / 4 plus the sum over j = 1..p of lgamma(x + (1 - j) / 2).
    """
    terms = _lgamma(k, _steps(k, input, p))
    return terms.sum(axis=-1, dtype=input.dtype) + p * (p - 1) * log(pi) / 4


def _steps(k: K, x: Any, p: int) -> Any:
    """x + (1 - j) / 2 for j = p..1, along a last dimension."""
    k.ctx.admit(2 * x.size * p * x.dtype.itemsize)
    return x[..., None] + (k.xp.arange(p, dtype=x.dtype) * 0.5 - (p - 1) / 2)


def _mvlgamma_cast(k: K, input: Any, p: int) -> None:
    _check_dimensions(input, p)
    if input.dtype.category == INT:
        raise DtypeMismatch(
            f"mvlgamma: result type {scalar_type(input.dtype)} can't be cast to the desired output type "
            f"{scalar_type(k.default_dtype)}"
        )


REGISTRY["mvlgamma_"].meta = _mvlgamma_cast


@mvlgamma.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * F._mvdigamma(saved.input, saved.p)


@op(family="special", meta=_mvlgamma_meta, promote="float", save={"input": ("input",)})
def _mvdigamma(k: K, input: Array, p: int, order: int = 0) -> Array:
    """The derivative of `mvlgamma`, or a derivative of that."""
    steps = _steps(k, input, p)
    if order:
        return k.raw._polygamma(steps, order).sum(axis=-1, dtype=input.dtype)
    return _digamma(k, steps).sum(axis=-1, dtype=input.dtype)


@_mvdigamma.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * F._mvdigamma(saved.input, saved.p, saved.order + 1)


# ---------------------------------------------------------------- incomplete gamma functions

_FRACTIONS = [
    S(T(3, 2, low=0.5, high=3.0, grad=False), T(2, low=0.3, high=3.0)),
    S(T(low=0.5, grad=False), T(low=0.3)),
    S(T(0, 2, grad=False), T(1, 2)),
]


def _incomplete(name: str, function: str, alias: str, sign: int, doc: str) -> None:
    def kernel(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
        xp, a, x = k.xp, input, other
        below, above = (0, 1) if sign > 0 else (1, 0)  # the values at x = 0 and as x goes to infinity
        made = either(xp, xp.isinf(x), above, getattr(k.sp.special, function)(a, x))
        # As in PyTorch: the limits come before what NaN would give.
        made = either(xp, xp.isinf(a), either(xp, xp.isinf(x), float("nan"), below), made)
        made = either(xp, x == 0, below, made)
        made = either(xp, a == 0, either(xp, x > 0, above, float("nan")), made)
        return put(either(xp, (x < 0) | (a < 0), float("nan"), made).astype(a.dtype, copy=False), out)

    kernel.__doc__ = doc
    declared = op(
        name=name,
        family="special",
        meta=lacking(f"{name}_cpu", BOOL, INT, COMPLEX),
        promote="arithmetic",
        elementwise=True,
        inplace=True,
        alias=(alias,),
        save={"other": ("input", "other")},
        samples=_FRACTIONS,
    )(kernel)

    @declared.vjp
    def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
        if need.input:
            raise NoGradient(
                f"the derivative for '{name}: input' is not implemented.", code="no-derivative", op=name, param="input"
            )
        a, x = saved.input, saved.other
        density = F.exp((a - 1) * F.log(x) - x - F.lgamma(a))
        return None, g * (density if sign > 0 else -density)


_incomplete(
    "igamma",
    "gammainc",
    "special.gammainc",
    1,
    "The regularized lower incomplete gamma function P(input, other).\n\n"
    "The integral of t^(a-1) exp(-t) from 0 to x, over Gamma(a), where a is `input` and x is `other`; neither may be "
    "negative. `input` has no gradient.",
)
_incomplete(
    "igammac",
    "gammaincc",
    "special.gammaincc",
    -1,
    "The regularized upper incomplete gamma function Q(input, other) = 1 - P(input, other).\n\n"
    "The integral of t^(a-1) exp(-t) from x to infinity, over Gamma(a), where a is `input` and x is `other`; neither "
    "may be negative. `input` has no gradient.",
)


# ---------------------------------------------------------------- zeta


def _zeta(k: K, x: Any, q: Any) -> Any:
    """Hurwitz' zeta, infinite for q = 0, -1, ..., NaN for other q < 0 where x is not whole, and where q is infinite."""
    made = k.sp.special.zeta(x, q)
    return either(k.xp, (made == 0) & k.xp.isinf(q), float("nan"), made)


@op(
    name="special.zeta",
    family="special",
    meta=full_precision("zeta_cpu"),
    promote="float",
    elementwise=True,
    node="SpecialZetaBackward0",
    save={"other": ("input", "other")},
    samples=[
        S(T(3, 2, low=1.5, high=4.0, grad=False), T(2, low=0.5, high=3.0)),
        S(T(low=1.5, grad=False), T(low=0.5)),
        S(2.5, T(2, 3, low=0.5)),
        S(T(0, 2, grad=False), T(1, 2)),
        S(T(2, low=2.0, high=3.0, grad=False), 2),
        S(I(3, low=2), I(3, low=1)),
    ],
)
def zeta(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """Hurwitz' zeta function: the sum over n >= 0 of (other + n)^-input. `input` has no gradient."""
    return put(_zeta(k, input, other), out)


@zeta.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    if need.input:
        raise NoGradient("the derivative for 'zeta' is not implemented.", code="no-derivative", op="special.zeta")
    s, q = saved.input, saved.other
    return None, g * -s * F.zeta(s + 1, q)
