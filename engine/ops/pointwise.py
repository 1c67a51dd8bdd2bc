"""Pointwise arithmetic: one result element from one element of each operand, with broadcasting."""

from __future__ import annotations

import cmath
import math
from typing import Any, Literal

from engine.carriers import NUMBERS, K
from engine.declare import Array, Scalar, op
from engine.dtypes import BOOL, COMPLEX, FLOAT, INT, cast_scalar, float32, from_numpy, scalar_dtype
from engine.errors import Call, DtypeMismatch, Hint, Invalid, NoGradient, Param
from engine.metas import broadcast, refuse_bool
from engine.op import Spec
from engine.ops.common import conjugate, either, fitting, joint, lacking, not_implemented, put, scalar_or_tensor, times
from engine.samples import C, I, S, T

_PAIRS = [S(T(3, 2), T(2)), S(T(), T()), S(T(0, 2), T(1, 2)), S(T(2, 3), T(2, 1)), S(T(2, 2), 2.5), S(C(2, 3), C(3))]
_REAL_PAIRS = [
    S(T(3, 2), T(2, low=0.5)),
    S(T(), T(low=0.5)),
    S(T(0, 2), T(1, 2)),
    S(T(2, 2), 1.5),
    S(I(4), I(4, low=1)),
]


# ---------------------------------------------------------------- sums


def _category(*operands: Any) -> int:
    """The category of a kernel's operands, which have one dtype."""
    for x in operands:
        if type(x) not in NUMBERS:
            return {"b": BOOL, "f": FLOAT, "c": COMPLEX}.get(x.dtype.kind, INT)
    return scalar_dtype(operands[0], float32).category


def _check_alpha(alpha: Any, category: int) -> None:
    words = None
    if type(alpha) is bool and category != BOOL:
        words = "Boolean alpha only supported for Boolean results."
    elif type(alpha) in (float, complex) and category < FLOAT:
        words = "For integral input tensors, argument alpha must not be a floating point number."
    elif type(alpha) is complex and category == FLOAT:
        words = "For non-complex input tensors, argument alpha must not be a complex number."
    if words:
        raise DtypeMismatch(words, param="alpha")


def _alpha_meta(k: K, input: Any, other: Any, alpha: Any = 1) -> Spec:
    out = broadcast(k, input, other)
    _check_alpha(alpha, out.dtype.category)
    if alpha != 1:
        fitting(alpha, out.dtype, "alpha")
    return out


def _scaled(input: Any, other: Any, alpha: Any) -> Any:
    """`other * alpha` in the dtype of the operands."""
    if alpha == 1 and alpha is not True:
        return other
    _check_alpha(alpha, _category(input, other))
    scaled = times(alpha, other)
    if type(scaled) in NUMBERS and type(input) not in NUMBERS:
        d = from_numpy(input.dtype)
        return scaled if d is None else cast_scalar(scaled, d)
    return scaled


@op(
    family="pointwise",
    meta=_alpha_meta,
    promote="arithmetic",
    over=("input", "other"),
    elementwise=True,
    ufunc="add",
    inplace=True,
    numbers=True,
    samples=[*_PAIRS, S(T(2, 2), T(2), alpha=3), S(I(3), I(3))],
)
def add(k: K, input: Array | Scalar, other: Array | Scalar, alpha: Scalar = 1, *, out: Any = None) -> Array:
    """input + alpha * other, with broadcasting. Shapes: any two that broadcast; dtype: promoted."""
    return k.xp.add(input, _scaled(input, other, alpha), out=out)


@add.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g, need.other and (g if saved.alpha == 1 else g * saved.alpha.conjugate())


@add.array_vjp
def _(k: K, values: Any, g: Any, mask: int) -> Any:
    alpha = values[2]
    return g, mask & 2 and (g if alpha == 1 else g * alpha)


def _sub_meta(k: K, input: Any, other: Any, alpha: Any = 1) -> Spec:
    refuse_bool(
        (input, other),
        "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
        "operator instead.",
        Hint(
            "logical-instead",
            Call("logical_xor", {"input": Param("input"), "other": Param("other")}),
            name="logical_xor",
        ),
    )
    if any(type(x) is bool or (type(x) is Spec and x.dtype.category == BOOL) for x in (input, other)):
        raise DtypeMismatch(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, "
            "use the `~` or `logical_not()` operator instead.",
            hint=Hint("cast-bool"),
        )
    return _alpha_meta(k, input, other, alpha)


@op(
    family="pointwise",
    meta=_sub_meta,
    promote="arithmetic",
    over=("input", "other"),
    elementwise=True,
    ufunc="subtract",
    inplace=True,
    numbers=True,
    alias=("subtract",),
    samples=[*_PAIRS, S(T(2, 2), T(2), alpha=3)],
)
def sub(k: K, input: Array | Scalar, other: Array | Scalar, alpha: Scalar = 1, *, out: Any = None) -> Array:
    """input - alpha * other, with broadcasting. Shapes: any two that broadcast; dtype: promoted."""
    return k.xp.subtract(input, _scaled(input, other, alpha), out=out)


@sub.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g, need.other and (-g if saved.alpha == 1 else g * -saved.alpha.conjugate())


@sub.array_vjp
def _(k: K, values: Any, g: Any, mask: int) -> Any:
    alpha = values[2]
    return g, mask & 2 and (-g if alpha == 1 else g * -alpha)


def _rsub_meta(k: K, input: Any, other: Any, alpha: Any = 1) -> Spec:
    return _sub_meta(k, other, input, alpha)


@op(
    family="pointwise",
    meta=_rsub_meta,
    promote="arithmetic",
    over=("input", "other"),
    elementwise=True,
    node=scalar_or_tensor("Rsub", 1, 0),
    samples=[*_PAIRS, S(T(2, 2), T(2), alpha=3)],
)
def rsub(k: K, input: Array, other: Array | Scalar, alpha: Scalar = 1, *, out: Any = None) -> Array:
    """other - alpha * input, with broadcasting."""
    return k.xp.subtract(other, _scaled(other, input, alpha), out=out)


@rsub.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and (-g if saved.alpha == 1 else g * -saved.alpha.conjugate()), need.other and g


# ---------------------------------------------------------------- products and quotients


@op(
    family="pointwise",
    meta=broadcast,
    promote="arithmetic",
    elementwise=True,
    ufunc="multiply",
    inplace=True,
    numbers=True,
    exact=True,
    alias=("multiply",),
    save={"input": ("other",), "other": ("input",)},
    samples=[*_PAIRS, S(I(2, 3), I(3))],
)
def mul(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """Elementwise product, with broadcasting. Shapes: any two that broadcast; dtype: promoted."""
    return k.xp.multiply(input, other, out=out)


@mul.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (
        need.input and g * conjugate(F, saved.other),
        need.other and g * conjugate(F, saved.input),
    )


@mul.array_vjp
def _(k: K, values: Any, g: Any, mask: int) -> Any:
    return mask & 1 and g * values[1], mask & 2 and g * values[0]


def _is_whole(*operands: Any) -> bool:
    """Whether a kernel's operands, which have one dtype, are integers."""
    for x in operands:
        if type(x) not in NUMBERS:
            return bool(x.dtype.kind in "iu")
    return all(type(x) is int for x in operands)


def _div_types(k: K, input: Any, other: Any, rounding_mode: Any = None) -> Any:
    return joint(k, "float" if rounding_mode is None else "arithmetic", input, other)


def _bad_rounding(rounding_mode: Any) -> Invalid:
    return Invalid(
        f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'",
        param="rounding_mode",
    )


def _div_meta(k: K, input: Any, other: Any, rounding_mode: Any = None) -> Spec:
    if rounding_mode not in (None, "trunc", "floor"):
        raise _bad_rounding(rounding_mode)
    made = broadcast(k, input, other)
    if rounding_mode is not None and k.dtype.category in (BOOL, COMPLEX):
        raise not_implemented(f"div_{rounding_mode}_cpu", k.dtype)
    return made


def _div_node(input: Any, other: Any, rounding_mode: Any) -> str:
    return "DivBackward0" if rounding_mode is None else "DivBackward2"


@op(
    family="pointwise",
    meta=_div_meta,
    promote=_div_types,
    over=("input", "other"),
    elementwise=True,
    ufunc="true_divide",
    keeps=True,
    inplace=True,
    numbers=True,
    exact=True,
    alias=("divide", "true_divide"),
    node=_div_node,
    save={"input": ("other",), "other": ("other", "result")},
    samples=[
        S(T(3, 2), T(2, low=0.5)),
        S(T(), T(low=0.5)),
        S(T(0, 2), T(1, 2)),
        S(T(2, 2), 2.5),
        S(C(2, 2), C(2)),
        S(T(2, 3), T(3, low=0.5), rounding_mode="floor"),
        S(I(4), I(4, low=1), rounding_mode="trunc"),
    ],
)
def div(
    k: K,
    input: Array | Scalar,
    other: Array | Scalar,
    rounding_mode: Literal["trunc", "floor"] | None = None,
    *,
    out: Any = None,
) -> Array:
    """input / other; integers give floats unless `rounding_mode` is "trunc" (as C) or "floor" (as Python's //)."""
    if rounding_mode is None:
        return k.xp.true_divide(input, other, out=out)
    if rounding_mode == "floor":
        return _floored(k, input, other, out)
    if rounding_mode != "trunc":
        raise _bad_rounding(rounding_mode)
    if not _is_whole(input, other):
        quotient = k.xp.true_divide(input, other, out=out)
        return k.xp.trunc(quotient, out=quotient if quotient.ndim else out)
    floored = k.xp.floor_divide(input, other)
    return k.xp.add(floored, (floored * other != input) & (floored < 0), out=out, dtype=floored.dtype)


@div.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    if saved.rounding_mode is not None:
        zero = F.zeros_like(g)
        return need.input and zero, need.other and zero
    scaled = g / conjugate(F, saved.other)
    return need.input and scaled, need.other and -scaled * F.conj(saved.result)


def _floored(k: K, input: Any, other: Any, out: Any) -> Any:
    """input // other as C++ and PyTorch do it: exact where the remainder is, x / 0 of floats as true division."""
    xp = k.xp
    if _is_whole(input, other):
        return xp.floor_divide(input, other, out=out)
    rest = xp.fmod(input, other)
    quotient = xp.true_divide(xp.subtract(input, rest), other)
    quotient = quotient - ((rest != 0) & (xp.less(other, 0) != (rest < 0)))
    floored = xp.floor(quotient)
    floored = floored + (quotient - floored > 0.5)
    true = xp.true_divide(input, other)
    floored = either(xp, quotient != 0, floored, xp.copysign(xp.zeros_like(floored), true))
    return put(either(xp, xp.equal(other, 0), true, floored), out)


def _no_zero(k: K, input: Any, divisor: Any, rounded: bool = True) -> None:
    if rounded and k.dtype.category == INT:
        if any(type(x) not in NUMBERS and not x.size for x in (input, divisor)):
            return  # nothing is divided
        if divisor == 0 if type(divisor) in NUMBERS else bool((divisor == 0).any()):
            raise Invalid(
                "ZeroDivisionError", code="division-by-zero", hint=Hint("integer-zero-division"), param="other"
            )


@div.guard
def _(k: K, input: Any, other: Any, rounding_mode: Any = None) -> None:
    _no_zero(k, input, other, rounding_mode is not None)


@op(
    family="pointwise",
    meta=lacking("div_floor_cpu", BOOL, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    exact=True,
    node="NotImplemented",
    samples=[
        S(T(3, 2, grad=False), T(2, low=0.5, grad=False)),
        S(T(grad=False), T(low=0.5, grad=False)),
        S(T(0, 2, grad=False), T(1, 2, grad=False)),
        S(T(2, 2, grad=False), 1.5),
        S(I(4), I(4, low=1)),
    ],
)
def floor_divide(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """The largest whole number not above input / other, in the promoted dtype. There is no gradient."""
    return _floored(k, input, other, out)


@floor_divide.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    raise NoGradient("derivative for aten::floor_divide is not implemented", code="no-derivative", op="floor_divide")


@floor_divide.guard
def _(k: K, input: Any, other: Any) -> None:
    _no_zero(k, input, other)


@op(
    family="pointwise",
    meta=lacking("remainder_cpu", BOOL, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    numbers=True,
    node=scalar_or_tensor("Remainder", 0, 1),
    save={"other": ("input", "other")},
    samples=_REAL_PAIRS,
)
def remainder(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """input - other * floor(input / other): Python's %, with the sign of `other`."""
    xp = k.xp
    if _is_whole(input, other):
        return xp.remainder(input, other, out=out)
    rest = xp.fmod(input, other)
    wrong = (rest != 0) & (xp.less(other, 0) != (rest < 0))
    return put(either(xp, wrong, rest + other, rest), out)


@remainder.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g, need.other and -g * F.div(saved.input, saved.other, "floor")


@remainder.guard
def _(k: K, input: Any, other: Any) -> None:
    _no_zero(k, input, other)


@op(
    family="pointwise",
    meta=lacking("fmod_cpu", BOOL, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    numbers=True,
    node=scalar_or_tensor("Fmod", 0, 1),
    save={"other": ("input", "other")},
    samples=_REAL_PAIRS,
)
def fmod(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """input - other * trunc(input / other): C's remainder, with the sign of `input`."""
    return k.xp.fmod(input, other, out=out)


@fmod.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g, need.other and -g * F.div(saved.input, saved.other, "trunc")


@fmod.guard
def _(k: K, input: Any, other: Any) -> None:
    _no_zero(k, input, other)


# ---------------------------------------------------------------- powers


def _pow_meta(k: K, input: Any, exponent: Any) -> Spec:
    d = k.dtype
    made = broadcast(k, input, exponent)
    if d.category == BOOL and type(exponent) is not bool:
        raise not_implemented("pow", d)
    if d.category == INT and type(exponent) is int and exponent < 0:
        raise Invalid(
            "Integers to negative integer powers are not allowed.",
            code="negative-integer-power",
            hint=Hint("float-exponent"),
            param="exponent",
        )
    if d.category == INT and type(exponent) is int and type(input) is Spec:
        fitting(exponent, d, "exponent")
    return made


def _pow_node(input: Any, exponent: Any) -> str:
    return f"PowBackward{2 if type(input) is not Spec else 1 if type(exponent) is Spec else 0}"


@op(
    family="pointwise",
    meta=_pow_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    numbers=True,
    node=_pow_node,
    save={"input": ("input", "exponent"), "exponent": ("input", "exponent", "result")},
    samples=[
        S(T(3, 2, low=0.3), 2),
        S(T(3, 2, low=0.3), T(2)),
        S(T(low=0.3), T()),
        S(T(0, 2), T(1, 2)),
        S(T(2, 2, low=0.3), -1.5),
        S(2.5, T(2, 3)),
        S(C(2, 3), C(3)),
        S(I(4), I(4)),
    ],
)
def pow(k: K, input: Array | Scalar, exponent: Array | Scalar, *, out: Any = None) -> Array:
    """input to the power of exponent. Integers stay integers, so they take no negative number as exponent.

    The gradient is 0 where the exponent is 0, and for the exponent where the base is 0.
    """
    xp = k.xp
    if type(exponent) in NUMBERS and type(input) not in NUMBERS:
        return _fixed_power(xp, input, exponent, out)
    if _is_whole(input, exponent) and type(exponent) not in NUMBERS and exponent.dtype.kind == "i":
        # A negative power of an integer is 0, but for those of 1 and -1.
        positive = xp.power(input, xp.maximum(exponent, 0))
        inverse = xp.equal(input, 1) * 1 - xp.equal(input, -1) * (2 * (exponent & 1) - 1)
        return put(either(xp, exponent < 0, inverse, positive), out)
    return xp.power(input, exponent, out=out)


def _fixed_power(xp: Any, x: Any, exponent: Any, out: Any) -> Any:
    """A power with a number as exponent; the common ones without the general function, as in PyTorch."""
    if exponent == 2:
        return xp.square(x, out=out) if x.dtype.kind != "b" else put(x.copy(order="K"), out)
    if exponent == 1:
        return put(x, out) if out is not None else x.copy(order="K")
    if exponent == 0:
        return put(xp.ones_like(x), out)
    if x.dtype.kind in "fc":
        if exponent == 0.5:
            return xp.sqrt(x, out=out)
        if exponent == -1:
            return xp.reciprocal(x, out=out)
        if exponent == -0.5:
            root = xp.sqrt(x, out=out)
            return xp.reciprocal(root, out=root if root.ndim else out)
        if exponent == 3:
            return xp.multiply(x * x, x, out=out)
        if exponent == -2:
            return xp.reciprocal(x * x, out=out)
    return xp.power(x, exponent, out=out)


@pow.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x, e = saved.input, saved.exponent
    of_input = of_exponent = None
    if need.input:
        if type(e) not in NUMBERS:
            of_input = F.where(F.eq(e, 0), 0, g * F.conj(F.pow(x, e - 1) * e))
        elif e == 0:
            of_input = F.zeros_like(g)
        elif e == 1:
            of_input = g
        else:
            of_input = g * F.conj(F.pow(x, e - 1) * e)
    if need.exponent:
        if type(x) in NUMBERS:
            of_exponent = g * F.conj(saved.result * _log(x, F.dtype(saved.result).is_complex))
            if x == 0:
                of_exponent = F.where(_not_negative(F, e), 0, of_exponent)
        else:
            of_exponent = g * F.conj(saved.result * F.log(x))
            of_exponent = F.where(F.logical_and(F.eq(x, 0), _not_negative(F, e)), 0, of_exponent)
    return of_input, of_exponent


def _not_negative(F: Any, e: Any) -> Any:
    if type(e) in NUMBERS:
        return e.imag == 0 and e.real >= 0
    if F.dtype(e).is_complex:
        return F.logical_and(F.eq(F.imag(e), 0), F.ge(F.real(e), 0))
    return F.ge(e, 0)


def _log(x: Any, complex_: bool) -> Any:
    """A number's logarithm as C++ has it: -inf of 0, NaN of negative real numbers."""
    if complex_:
        return cmath.log(x) if x != 0 else complex(-math.inf, 0)
    return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan
