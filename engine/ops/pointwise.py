"""Pointwise arithmetic: one result element from one element of each operand, with broadcasting."""

from __future__ import annotations

import cmath
import math
from typing import Any, Literal

from engine.carriers import NUMBERS, K
from engine.declare import Array, Scalar, composite, op
from engine.dtypes import BOOL, C_NAMES, COMPLEX, FLOAT, INT, DType, cast_scalar, float32, from_numpy, scalar_dtype
from engine.errors import DtypeMismatch, Hint, Invalid
from engine.metas import broadcast, refuse_bool
from engine.op import Spec
from engine.ops.common import conjugate, either, fitting, joint, lacking, not_implemented, times
from engine.samples import C, I, S, T
from engine.shapes import broadcast_two

_PAIRS = [S(T(3, 2), T(2)), S(T(), T()), S(T(0, 2), T(1, 2)), S(T(2, 3), T(2, 1)), S(T(2, 2), 2.5), S(C(2, 3), C(3))]
_REAL_PAIRS = [S(T(3, 2), T(2, low=0.5)), S(T(), T(low=0.5)), S(T(0, 2), T(1, 2)), S(T(2, 2), 1.5), S(I(4), I(4, low=1))]


def _scalar_or_tensor(name: str, scalar: int, tensor: int, at: int = 1) -> Any:
    """torch's grad_fn where it says whether the operand at a position was a number."""

    def node(*args: Any) -> str:
        return f"{name}Backward{tensor if type(args[at]) is Spec else scalar}"

    return node


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
    inplace=True,
    samples=[*_PAIRS, S(T(2, 2), T(2), alpha=3), S(I(3), I(3))],
)
def add(k: K, input: Array | Scalar, other: Array | Scalar, alpha: Scalar = 1, *, out: Any = None) -> Array:
    """input + alpha * other, with broadcasting. Shapes: any two that broadcast; dtype: promoted."""
    return k.xp.add(input, _scaled(input, other, alpha), out=out)


@add.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g, need.other and (g if saved.alpha == 1 else g * saved.alpha.conjugate())


def _sub_meta(k: K, input: Any, other: Any, alpha: Any = 1) -> Spec:
    refuse_bool(
        (input, other),
        "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` operator "
        "instead.",
    )
    if any(type(x) is bool or (type(x) is Spec and x.dtype.category == BOOL) for x in (input, other)):
        raise DtypeMismatch(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, use "
            "the `~` or `logical_not()` operator instead."
        )
    return _alpha_meta(k, input, other, alpha)


@op(
    family="pointwise",
    meta=_sub_meta,
    promote="arithmetic",
    over=("input", "other"),
    elementwise=True,
    inplace=True,
    alias=("subtract",),
    samples=[*_PAIRS, S(T(2, 2), T(2), alpha=3)],
)
def sub(k: K, input: Array | Scalar, other: Array | Scalar, alpha: Scalar = 1, *, out: Any = None) -> Array:
    """input - alpha * other, with broadcasting. Shapes: any two that broadcast; dtype: promoted."""
    return k.xp.subtract(input, _scaled(input, other, alpha), out=out)


@sub.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g, need.other and (-g if saved.alpha == 1 else g * -saved.alpha.conjugate())


def _rsub_meta(k: K, input: Any, other: Any, alpha: Any = 1) -> Spec:
    return _sub_meta(k, other, input, alpha)


@op(
    family="pointwise",
    meta=_rsub_meta,
    promote="arithmetic",
    over=("input", "other"),
    elementwise=True,
    node=_scalar_or_tensor("Rsub", 1, 0),
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


def _is_whole(*operands: Any) -> bool:
    """Whether a kernel's operands, which have one dtype, are integers."""
    for x in operands:
        if type(x) not in NUMBERS:
            return x.dtype.kind in "iu"  # type: ignore[no-any-return]
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
    if rounding_mode is not None and k.dtype.category in (BOOL, COMPLEX):
        raise not_implemented(f"div_{rounding_mode}_cpu", k.dtype)
    return broadcast(k, input, other)


def _div_node(input: Any, other: Any, rounding_mode: Any) -> str:
    return "DivBackward0" if rounding_mode is None else "DivBackward2"


@op(
    family="pointwise",
    meta=_div_meta,
    promote=_div_types,
    over=("input", "other"),
    elementwise=True,
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


def put(made: Any, out: Any) -> Any:
    """A kernel's result, written into `out` where there is one."""
    if out is None:
        return made
    out[...] = made
    return out


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
    vjp=None,
    samples=_REAL_PAIRS,
)
def floor_divide(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """The largest whole number not above input / other, in the promoted dtype."""
    return _floored(k, input, other, out)


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
    node=_scalar_or_tensor("Remainder", 0, 1),
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
    node=_scalar_or_tensor("Fmod", 0, 1),
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
    return broadcast(k, input, exponent)


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


# ---------------------------------------------------------------- extremes


def _check_bounds(d: DType, *bounds: Any) -> None:
    if d.category == INT:
        for bound in bounds:
            if type(bound) in NUMBERS:
                fitting(bound, d, "min")


def _clamp_meta(k: K, input: Any, min: Any = None, max: Any = None) -> Spec:
    if min is None and max is None:
        raise Invalid("torch.clamp: At least one of 'min' or 'max' must not be None", op="clamp", param="min")
    d = k.dtype
    tensors = type(min) is Spec or type(max) is Spec
    kernel = "clamp_cpu" if max is not None and min is not None else "maximum_cpu" if max is None else "minimum_cpu"
    if d.category == COMPLEX:
        if tensors:
            raise not_implemented(kernel, d)
        if type(min) is complex and max is None:
            raise Invalid("value cannot be converted to type double without overflow", op="clamp", param="min")
        raise DtypeMismatch("clamp is not supported for complex types", op="clamp")
    if not tensors:
        if d.category == BOOL:
            which = "" if max is not None and min is not None else "min_" if max is None else "max_"
            raise not_implemented(f"clamp_{which}scalar_cpu", d)
        _check_bounds(d, min, max)
    return broadcast(k, input, min, max)


def _clamp_node(input: Any, min: Any, max: Any) -> str:
    return "ClampBackward0" if type(min) is Spec or type(max) is Spec else "ClampBackward1"


@op(
    family="pointwise",
    meta=_clamp_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    numbers=True,
    alias=("clip",),
    node=_clamp_node,
    save={"input": ("input", "min", "max"), "min": ("input", "min", "max"), "max": ("input", "min", "max")},
    samples=[
        S(T(2, 3), -0.5, 1.0),
        S(T(2, 3), min=0.1),
        S(T(), max=0.1),
        S(T(0, 2), -1, 1),
        S(T(2, 3, distinct=True), T(3, low=-1.5, high=-1.0), T(2, 1, low=1.1, high=1.4)),
        S(T(2, 3, distinct=True), max=T(3, low=1.1, high=1.4)),
        S(I(4), 1, 2),
    ],
)
def clamp(
    k: K,
    input: Array,
    min: Array | Scalar | None = None,
    max: Array | Scalar | None = None,
    *,
    out: Any = None,
) -> Array:
    """Every element moved into [min, max]; where min > max, max. NaN stays NaN. Bounds are numbers or tensors."""
    xp = k.xp
    if max is None:
        return xp.maximum(input, min, out=out)
    if min is None:
        return xp.minimum(input, max, out=out)
    raised = xp.maximum(input, min)
    if out is None and raised.ndim and (type(max) in NUMBERS or broadcast_two(raised.shape, max.shape) == raised.shape):
        out = raised
    return xp.minimum(raised, max, out=out)


@clamp.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x, low, high = saved.input, saved.min, saved.max
    of_input = of_low = of_high = None
    if need.input:
        inside = None if low is None else F.ge(x, low)
        if high is not None:
            below = F.le(x, high)
            inside = below if inside is None else F.logical_and(inside, below)
        of_input = F.where(inside, g, 0)
    if need.min:
        raised = F.lt(x, low)
        of_low = F.where(raised if high is None else F.logical_and(raised, F.lt(low, high)), g, 0)
    if need.max:
        lowered = F.gt(x, high)
        of_high = F.where(lowered if low is None else F.logical_or(lowered, F.lt(high, low)), g, 0)
    return of_input, of_low, of_high


def _one_bound(kernel: str) -> Any:
    def meta(k: K, input: Any, bound: Any) -> Spec:
        if k.dtype.category == COMPLEX:
            if type(bound) is Spec:
                raise not_implemented("maximum_cpu" if "min" in kernel else "minimum_cpu", k.dtype)
            raise DtypeMismatch("clamp is not supported for complex types")
        if k.dtype.category == BOOL and type(bound) is not Spec:
            raise not_implemented(kernel, k.dtype)
        _check_bounds(k.dtype, bound)
        return broadcast(k, input, bound)

    return meta


@op(
    family="pointwise",
    meta=_one_bound("clamp_min_scalar_cpu"),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    numbers=True,
    node=_scalar_or_tensor("ClampMin", 0, 1),
    save={"input": ("input", "min"), "min": ("input", "min")},
    samples=[S(T(2, 3), 0.1), S(T(2, 3, distinct=True), T(3, low=1.1, high=1.4)), S(T(), 0.1), S(I(4), 1)],
)
def clamp_min(k: K, input: Array, min: Array | Scalar, *, out: Any = None) -> Array:
    """Every element raised to at least `min`."""
    return k.xp.maximum(input, min, out=out)


@clamp_min.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x, low = saved.input, saved.min
    return need.input and F.where(F.ge(x, low), g, 0), need.min and F.where(F.lt(x, low), g, 0)


@op(
    family="pointwise",
    meta=_one_bound("clamp_max_scalar_cpu"),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    numbers=True,
    node=_scalar_or_tensor("ClampMax", 0, 1),
    save={"input": ("input", "max"), "max": ("input", "max")},
    samples=[S(T(2, 3), 0.1), S(T(2, 3, distinct=True), T(3, low=1.1, high=1.4)), S(T(), 0.1), S(I(4), 1)],
)
def clamp_max(k: K, input: Array, max: Array | Scalar, *, out: Any = None) -> Array:
    """Every element lowered to at most `max`."""
    return k.xp.minimum(input, max, out=out)


@clamp_max.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x, high = saved.input, saved.max
    return need.input and F.where(F.le(x, high), g, 0), need.max and F.where(F.gt(x, high), g, 0)


_DISTINCT = [
    S(T(3, 2, distinct=True), T(2, distinct=True, low=-1.7, high=1.6)),
    S(T(), T()),
    S(T(0, 2), T(1, 2)),
    S(I(4), I(4)),
]


def _half_at_ties(F: Any, g: Any, a: Any, b: Any, loses: Any) -> Any:
    """The gradient of `a` in an extreme of `a` and `b`: nothing where `a` loses, half where they are equal."""
    return F.where(loses, 0, F.where(F.eq(a, b), g * 0.5, g))


@op(
    family="pointwise",
    meta=lacking("maximum_cpu", instead={COMPLEX: "maximum not implemented for complex tensors."}),
    promote="arithmetic",
    elementwise=True,
    save={"input": ("input", "other"), "other": ("input", "other")},
    samples=_DISTINCT,
)
def maximum(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """The larger of two elements; NaN where either is. At a tie each gets half of the gradient."""
    return k.xp.maximum(input, other, out=out)


@maximum.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    a, b = saved.input, saved.other
    return (
        need.input and _half_at_ties(F, g, a, b, F.lt(a, b)),
        need.other and _half_at_ties(F, g, a, b, F.lt(b, a)),
    )


@op(
    family="pointwise",
    meta=lacking("minimum_cpu", instead={COMPLEX: "minimum not implemented for complex tensors."}),
    promote="arithmetic",
    elementwise=True,
    save={"input": ("input", "other"), "other": ("input", "other")},
    samples=_DISTINCT,
)
def minimum(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """The smaller of two elements; NaN where either is. At a tie each gets half of the gradient."""
    return k.xp.minimum(input, other, out=out)


@minimum.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    a, b = saved.input, saved.other
    return (
        need.input and _half_at_ties(F, g, a, b, F.gt(a, b)),
        need.other and _half_at_ties(F, g, a, b, F.gt(b, a)),
    )


@op(
    family="pointwise",
    meta=lacking("fmax_cpu", instead={COMPLEX: "fmax not implemented for complex tensors."}),
    promote="arithmetic",
    elementwise=True,
    save={"input": ("input", "other"), "other": ("input", "other")},
    samples=_DISTINCT,
)
def fmax(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """The larger of two elements, or the one that is not NaN."""
    return k.xp.fmax(input, other, out=out)


@fmax.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    first = F.logical_or(F.ge(saved.input, saved.other), F.isnan(saved.other))
    return need.input and F.where(first, g, 0), need.other and F.where(first, 0, g)


@op(
    family="pointwise",
    meta=lacking("fmin_cpu", instead={COMPLEX: "fmin not implemented for complex tensors."}),
    promote="arithmetic",
    elementwise=True,
    save={"input": ("input", "other"), "other": ("input", "other")},
    samples=_DISTINCT,
)
def fmin(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """The smaller of two elements, or the one that is not NaN."""
    return k.xp.fmin(input, other, out=out)


@fmin.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    first = F.logical_or(F.le(saved.input, saved.other), F.isnan(saved.other))
    return need.input and F.where(first, g, 0), need.other and F.where(first, 0, g)


# ---------------------------------------------------------------- angles and lengths of two operands


@op(
    family="pointwise",
    meta=lacking("atan2_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("arctan2",),
    save={"input": ("input", "other"), "other": ("input", "other")},
    samples=[S(T(3, 2), T(2, low=0.3)), S(T(), T(low=0.3)), S(T(0, 2), T(1, 2)), S(I(4, low=1), I(4, low=1))],
)
def atan2(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """The angle of the point (other, input), in (-pi, pi]."""
    return k.xp.arctan2(input, other, out=out)


@atan2.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    y, x = saved.input, saved.other
    # torch masks the quotient where both are 0
    scale = F.reciprocal(y * y + x * x)
    scale = g * F.where(F.isinf(scale), 0, scale)
    return need.input and scale * x, need.other and -scale * y


@op(
    family="pointwise",
    meta=lacking("hypot_cpu", BOOL, INT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    save={"input": ("input", "result"), "other": ("other", "result")},
    samples=[S(T(3, 2), T(2)), S(T(low=0.3), T(low=0.3)), S(T(0, 2), T(1, 2))],
)
def hypot(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """sqrt(input^2 + other^2), without overflow in between."""
    return k.xp.hypot(input, other, out=out)


@hypot.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g * (saved.input / saved.result), need.other and g * (saved.other / saved.result)


# ---------------------------------------------------------------- three operands


def _addcmul_meta(k: K, input: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Spec:
    if k.dtype.category == BOOL:
        raise not_implemented("addcmul_cpu_out", k.dtype)
    fitting(value, k.dtype)
    return broadcast(k, input, tensor1, tensor2)


_TRIPLES = [
    S(T(2, 3), T(2, 3), T(2, 3, low=0.5)),
    S(T(3), T(2, 1), T(2, 3, low=0.5), value=0.5),
    S(T(), T(), T(low=0.5)),
    S(T(0, 2), T(1, 2), T(2, low=0.5)),
    S(C(2), C(2), C(2), value=2),
]


@op(
    family="pointwise",
    meta=_addcmul_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    save={"tensor1": ("tensor2",), "tensor2": ("tensor1",)},
    samples=[*_TRIPLES, S(I(3), I(3), I(3), value=2)],
)
def addcmul(k: K, input: Array, tensor1: Array, tensor2: Array, value: Scalar = 1, *, out: Any = None) -> Array:
    """input + value * tensor1 * tensor2, with broadcasting."""
    return k.xp.add(input, times(value, k.xp.multiply(tensor1, tensor2)), out=out)


@addcmul.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    scaled = g if saved.value == 1 else g * saved.value.conjugate()
    return (
        need.input and g,
        need.tensor1 and scaled * F.conj(saved.tensor2),
        need.tensor2 and scaled * F.conj(saved.tensor1),
    )


def _addcdiv_meta(k: K, input: Any, tensor1: Any, tensor2: Any, value: Any = 1) -> Spec:
    if tensor1.dtype.category <= INT and tensor2.dtype.category <= INT:
        raise DtypeMismatch(
            "Integer division with addcdiv is no longer supported, and in a future  release addcdiv will perform a true "
            "division of tensor1 and tensor2. The historic addcdiv behavior can be implemented as (input + value * "
            "torch.trunc(tensor1 / tensor2)).to(input.dtype) for integer inputs and as (input + value * tensor1 / "
            "tensor2) for float inputs. The future addcdiv behavior is just the latter implementation: (input + value * "
            "tensor1 / tensor2), for all dtypes.",
            param="tensor1",
        )
    fitting(value, k.dtype)
    return broadcast(k, input, tensor1, tensor2)


@op(
    family="pointwise",
    meta=_addcdiv_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    save={"tensor1": ("tensor2",), "tensor2": ("tensor1", "tensor2")},
    samples=_TRIPLES,
)
def addcdiv(k: K, input: Array, tensor1: Array, tensor2: Array, value: Scalar = 1, *, out: Any = None) -> Array:
    """input + value * tensor1 / tensor2, with broadcasting."""
    return k.xp.add(input, times(value, tensor1) / tensor2, out=out)


@addcdiv.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    if not (need.tensor1 or need.tensor2):
        return need.input and g, None, None
    scaled = (g if saved.value == 1 else g * saved.value.conjugate()) / F.conj(saved.tensor2)
    of_second = None
    if need.tensor2:
        of_second = -scaled * F.conj(saved.tensor1 / saved.tensor2)
    return need.input and g, need.tensor1 and scaled, of_second


def _lerp_meta(k: K, input: Any, end: Any, weight: Any) -> Spec:
    d = input.dtype
    for x, name in ((end, "end"), (weight, "weight")):
        if type(x) is Spec and x.dtype is not d and (name == "end" or x.shape):
            have, want = C_NAMES[x.dtype.name], C_NAMES[d.name]
            words = [w.replace("int64_t", "long int") for w in (want, have)]
            raise DtypeMismatch(f"expected dtype {words[0]} for `{name}` but got dtype {words[1]}", param=name)
    if d.category < FLOAT:
        raise not_implemented("lerp_kernel_tensor" if type(weight) is Spec else "lerp_kernel_scalar", d)
    if type(weight) is not Spec:
        fitting(weight, d, "weight")
    k.dtype = d
    return broadcast(k, input, end, weight)


@op(
    family="pointwise",
    meta=_lerp_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    numbers=True,
    node=_scalar_or_tensor("Lerp", 0, 1, 2),
    save={"input": ("weight",), "end": ("weight",), "weight": ("input", "end")},
    samples=[
        S(T(2, 3), T(2, 3), 0.3),
        S(T(2, 3), T(3), T(2, 1)),
        S(T(), T(), 0.8),
        S(T(0, 2), T(1, 2), 0.5),
        S(C(2), C(2), 0.3),
    ],
)
def lerp(k: K, input: Array, end: Array, weight: Array | Scalar, *, out: Any = None) -> Array:
    """input + weight * (end - input): linear interpolation. All tensors have one dtype.

    Computed from the nearer end, so that weights 0 and 1 are exact.
    """
    xp = k.xp
    span = xp.subtract(end, input)
    if type(weight) in NUMBERS:
        if abs(weight) < 0.5:
            return xp.add(input, span * weight, out=out)
        return xp.subtract(end, span * (1 - weight), out=out)
    return put(either(xp, xp.abs(weight) < 0.5, input + span * weight, end - span * (1 - weight)), out)


@lerp.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    w = conjugate(F, saved.weight) if need.input or need.end else None
    return (
        need.input and g * (1 - w),
        need.end and g * w,
        need.weight and g * F.conj(saved.end - saved.input),
    )


# ---------------------------------------------------------------- x log y


@op(
    family="pointwise",
    meta=broadcast,
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("special.xlogy",),
    save={"input": ("input", "other"), "other": ("input", "other")},
    samples=[S(T(2, 3, low=0.2), T(3, low=0.2)), S(T(low=0.2), T(low=0.2)), S(T(0, 2), T(1, 2, low=0.2))],
)
def xlogy(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """input * log(other), and 0 where input is 0 and other is no NaN."""
    xp = k.xp
    d = input.dtype if hasattr(input, "dtype") else other.dtype
    made = xp.multiply(input, xp.log(xp.asarray(other, dtype=d)))
    zero = xp.logical_and(xp.equal(input, 0), xp.equal(other, other))
    return put(either(xp, zero, xp.zeros((), dtype=d), made), out)


@xlogy.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    log = need.input and F.masked_fill(
        F.log(saved.other), F.logical_and(F.eq(saved.input, 0), F.le(saved.other, 0)), 0.0
    )
    return need.input and g * log, need.other and g * saved.input / saved.other
