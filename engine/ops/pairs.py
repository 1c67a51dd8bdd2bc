"""Pointwise functions of two operands beside arithmetic: sums of exponentials, double powers, divisors, steps."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, Scalar, op
from engine.dtypes import BOOL, COMPLEX, FLOAT, INT, complex128, float64, scalar_type
from engine.errors import DtypeMismatch, NoGradient
from engine.metas import broadcast
from engine.op import REGISTRY, Spec
from engine.ops import pointwise
from engine.ops.common import either, joint, lacking, put
from engine.samples import C, I, S, T

_PAIRS = [S(T(3, 2), T(2)), S(T(), T()), S(T(0, 2), T(1, 2))]

# ---------------------------------------------------------------- sums of exponentials


@op(
    family="pointwise",
    meta=lacking("logaddexp_cpu", BOOL, INT),
    promote="arithmetic",
    elementwise=True,
    save={"input": ("input", "other"), "other": ("input", "other")},
    samples=[*_PAIRS, S(C(2, 3), C(3))],
)
def logaddexp(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """log(exp(input) + exp(other)), without overflow in between."""
    xp = k.xp
    if input.dtype.kind != "c":
        return xp.logaddexp(input, other, out=out)
    first = input.real >= other.real
    high, low = either(xp, first, input, other), either(xp, first, other, input)
    # Two equal infinities have no difference: the larger part decides, as in the limit.
    alone = xp.isinf(high.real) & (high.real == low.real)
    gap = either(xp, alone, 0, low - either(xp, alone, 0, high))
    summed = high + xp.log1p(xp.exp(gap))
    return put(either(xp, alone & (high.real < 0), high, summed), out)


@logaddexp.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    gap = F.conj(saved.other - saved.input)
    return need.input and g / (F.exp(gap) + 1), need.other and g / (F.exp(-gap) + 1)


@op(
    family="pointwise",
    meta=lacking("logaddexp2_cpu", BOOL, INT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    save={"input": ("input", "other"), "other": ("input", "other")},
    samples=_PAIRS,
)
def logaddexp2(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """log2(2^input + 2^other), without overflow in between."""
    return k.xp.logaddexp2(input, other, out=out)


@logaddexp2.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    gap = saved.other - saved.input
    return need.input and g / (F.exp2(gap) + 1), need.other and g / (F.exp2(-gap) + 1)


# ---------------------------------------------------------------- powers


def _double(k: K, input: Any, exponent: Any) -> Any:
    d = complex128 if joint(k, "arithmetic", input, exponent)[0].category == COMPLEX else float64
    return d, d


def _double_base(k: K, input: Any, exponent: Any) -> None:
    if input.dtype is not k.dtype:
        raise DtypeMismatch(
            f"the base given to float_power_ has dtype {scalar_type(input.dtype)} but the operation's result requires "
            f"dtype {scalar_type(k.dtype)}",
            param="input",
        )


@op(
    family="pointwise",
    meta=broadcast,
    promote=_double,
    elementwise=True,
    keeps=False,
    inplace=True,
    numbers=True,
    node=lambda input, exponent: f"PowBackward{2 if type(input) is not Spec else 1 if type(exponent) is Spec else 0}",
    save={"input": ("input", "exponent"), "exponent": ("input", "exponent", "result")},
    samples=[
        S(T(3, 2, low=0.3), 2),
        S(T(3, 2, low=0.3), T(2)),
        S(T(low=0.3), T()),
        S(T(0, 2), T(1, 2)),
        S(2.5, T(2, 3)),
        S(C(2, 3), C(3)),
        S(I(4, low=1), I(4, low=-2)),
    ],
)
def float_power(k: K, input: Array | Scalar, exponent: Array | Scalar, *, out: Any = None) -> Array:
    """input to the power of exponent in float64, or in complex128 where one of them is complex."""
    return pointwise.pow.op.kernel(k, input, exponent, out=out)  # type: ignore[misc]


float_power.vjp(pointwise.pow.op.vjp)  # type: ignore[arg-type]
REGISTRY["float_power_"].meta = _double_base
REGISTRY["float_power_"].example = {"input": {"data": [0.5, 1.5, 2.5], "dtype": "float64"}, "exponent": 2}


# ---------------------------------------------------------------- divisors and multiples

_WHOLE = [S(I(3, 2, high=20), I(2, low=-9, high=20)), S(I(high=20), I(high=20)), S(I(0, 2), I(1, 2))]


@op(
    family="pointwise",
    meta=lacking("gcd_cpu", BOOL, FLOAT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    keeps=False,
    inplace=True,
    vjp=None,
    samples=_WHOLE,
)
def gcd(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """The greatest common divisor of two integers, not negative; that of 0 and 0 is 0."""
    return k.xp.gcd(input, other, out=out)


@op(
    family="pointwise",
    meta=lacking("lcm_cpu", BOOL, FLOAT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    keeps=False,
    inplace=True,
    vjp=None,
    samples=_WHOLE,
)
def lcm(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """The least common multiple of two integers; 0 where one of them is 0. It wraps where it does not fit."""
    xp = k.xp
    made = xp.lcm(input, other)
    if made.dtype.kind == "i" and made.dtype.itemsize >= 4:  # C computes narrower ones in int: they wrap at the end
        made = xp.abs(made)
    return put(made, out)


# ---------------------------------------------------------------- steps


def _heaviside_meta(k: K, input: Any, values: Any) -> Spec:
    if COMPLEX in (input.dtype.category, values.dtype.category):
        raise DtypeMismatch("heaviside is not yet implemented for complex tensors.")
    if input.dtype is not values.dtype:
        raise DtypeMismatch("heaviside is not yet implemented for tensors with different dtypes.", param="values")
    return broadcast(k, input, values)


@op(
    family="pointwise",
    meta=_heaviside_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    node="NotImplemented",
    samples=[
        S(T(3, 2, grad=False), T(2, grad=False)),
        S(T(3, values=[-1.0, 0.0, 2.0], grad=False), T(grad=False)),
        S(T(0, 2, grad=False), T(1, 2, grad=False)),
        S(I(4, low=-2), I(4)),
    ],
)
def heaviside(k: K, input: Array, values: Array, *, out: Any = None) -> Array:
    """0 where input is negative, 1 where it is positive, `values` where it is 0. There is no gradient."""
    xp = k.xp
    step = (input > 0).astype(input.dtype)
    return put(xp.where(input == 0, values, step), out)


@heaviside.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    raise NoGradient("derivative for aten::heaviside is not implemented", code="no-derivative", op="heaviside")
