"""Pointwise operations: one result element from one element of each operand, with broadcasting."""

from __future__ import annotations

from typing import Any, Literal

from engine.carriers import K, categories
from engine.declare import Array, Scalar, composite, op
from engine.dtypes import BOOL, FLOAT, INT, result_type, scalar_dtype
from engine.errors import DtypeMismatch, Hint, Invalid
from engine.metas import broadcast, refuse_bool, same
from engine.op import Spec
from engine.samples import C, I, S, T

_PAIRS = [S(T(3, 2), T(2)), S(T(), T()), S(T(0, 2), T(1, 2)), S(T(2, 3), T(2, 1)), S(T(2, 2), 2.5), S(C(2, 3), C(3))]

# ---------------------------------------------------------------- arithmetic


def _scaled(k: K, other: Any, alpha: Any) -> Any:
    """`other * alpha` in the dtype of `other`; alpha was checked against the dtype by the meta."""
    return other if alpha == 1 and type(alpha) is not bool else other * alpha


def _alpha_meta(k: K, input: Any, other: Any, alpha: Any = 1) -> Spec:
    out = broadcast(k, input, other)
    category = out.dtype.category
    if type(alpha) is bool and category != BOOL:
        raise DtypeMismatch("Boolean alpha only supported for Boolean results.", param="alpha")
    if type(alpha) is float and category < FLOAT or type(alpha) is complex and category <= FLOAT:
        kind = "argument alpha must not be a floating point number."
        words = f"For integral input tensors, {kind}" if type(alpha) is float else (
            "For non-complex input tensors, argument alpha must not be a complex number."
        )
        raise DtypeMismatch(words, param="alpha")
    return out


@op(family="pointwise", meta=_alpha_meta, promote="arithmetic", over=("input", "other"), elementwise=True,
    inplace=True, samples=[*_PAIRS, S(T(2, 2), T(2), alpha=3), S(I(3), I(3))])
def add(k: K, input: Array | Scalar, other: Array | Scalar, alpha: Scalar = 1, *, out: Any = None) -> Array:
    """input + alpha * other, with broadcasting. Shapes: any two that broadcast; dtype: promoted."""
    return k.xp.add(input, _scaled(k, other, alpha), out=out)


@add.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g, need.other and (g if saved.alpha == 1 else g * saved.alpha.conjugate())


def _sub_meta(k: K, input: Any, other: Any, alpha: Any = 1) -> Spec:
    refuse_bool(
        (input, other),
        "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` operator "
        "instead.",
    )
    if any(type(x) is Spec and x.dtype.category == BOOL for x in (input, other)):
        raise DtypeMismatch(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, use "
            "the `~` or `logical_not()` operator instead."
        )
    return _alpha_meta(k, input, other, alpha)


@op(family="pointwise", meta=_sub_meta, promote="arithmetic", over=("input", "other"), elementwise=True,
    inplace=True, alias=("subtract",), samples=[*_PAIRS, S(T(2, 2), T(2), alpha=3)])
def sub(k: K, input: Array | Scalar, other: Array | Scalar, alpha: Scalar = 1, *, out: Any = None) -> Array:
    """input - alpha * other, with broadcasting. Shapes: any two that broadcast; dtype: promoted."""
    return k.xp.subtract(input, _scaled(k, other, alpha), out=out)


@sub.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g, need.other and (-g if saved.alpha == 1 else -g * saved.alpha.conjugate())


@composite(family="pointwise", samples=_PAIRS)
def rsub(F: Any, input: Array, other: Array | Scalar, alpha: Scalar = 1) -> Array:
    """other - alpha * input."""
    return F.add(F.mul(input, -alpha), other)


@op(family="pointwise", meta=broadcast, promote="arithmetic", elementwise=True, inplace=True, alias=("multiply",),
    save={"input": ("other",), "other": ("input",)}, samples=[*_PAIRS, S(I(2, 3), I(3))])
def mul(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """Elementwise product, with broadcasting. Shapes: any two that broadcast; dtype: promoted."""
    return k.xp.multiply(input, other, out=out)


@mul.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g * F.conj(saved.other), need.other and g * F.conj(saved.input)


def _div_types(k: K, input: Any, other: Any, rounding_mode: Any = None) -> Any:
    return joint(k, "float" if rounding_mode is None else "arithmetic", input, other)


def _div_meta(k: K, input: Any, other: Any, rounding_mode: Any = None) -> Spec:
    if rounding_mode is not None and k.dtype.category == BOOL:
        raise DtypeMismatch('"div_floor" not implemented for \'Bool\'' if rounding_mode == "floor" else
                            '"div_trunc" not implemented for \'Bool\'')
    return broadcast(k, input, other)


@op(family="pointwise", meta=_div_meta, promote=_div_types, over=("input", "other"), elementwise=True, keeps=True,
    inplace=True, alias=("divide",), save={"input": ("other",), "other": ("other", "result")},
    samples=[S(T(3, 2), T(2, low=0.5)), S(T(), T(low=0.5)), S(T(0, 2), T(1, 2)), S(T(2, 2), 2.5),
             S(T(2, 3), T(3, low=0.5), rounding_mode="floor"), S(I(4), I(4, low=1), rounding_mode="trunc")])
def div(
    k: K,
    input: Array | Scalar,
    other: Array | Scalar,
    rounding_mode: Literal["trunc", "floor"] | None = None,
    *,
    out: Any = None,
) -> Array:
    """input / other; integers give floats unless `rounding_mode` is "trunc" (as C) or "floor" (as Python's //)."""
    xp = k.xp
    if rounding_mode is None:
        return xp.true_divide(input, other, out=out)
    if k.spec.dtype.category == INT:
        floored = xp.floor_divide(input, other, out=out)
        if rounding_mode == "floor":
            return floored
        inexact = (floored * other != input) & (floored < 0)
        return xp.add(floored, inexact, out=out, dtype=floored.dtype)
    quotient = xp.true_divide(input, other)
    if rounding_mode == "trunc":
        return xp.trunc(quotient, out=out)
    return floor_quotient(k, input, other, out)


def floor_quotient(k: K, input: Array, other: Array, out: Any) -> Array:
    """Floored division of floats as C++ and PyTorch do it: exact where the remainder is, x / 0 as true division."""
    xp = k.xp
    rest = xp.fmod(input, other)
    quotient = xp.true_divide(xp.subtract(input, rest), other)
    quotient = xp.where((rest != 0) & ((xp.less(other, 0)) != (rest < 0)), quotient - 1, quotient)
    floored = xp.floor(quotient)
    floored = xp.where(quotient - floored > 0.5, floored + 1, floored)
    true = xp.true_divide(input, other)
    floored = xp.where(quotient != 0, floored, xp.copysign(xp.zeros_like(floored), true))
    return _put(k, xp.where(xp.equal(other, 0), true, floored), out)


def _put(k: K, made: Array, out: Any) -> Array:
    if out is None:
        return made
    out[...] = made
    return out


@div.guard
def _(k: K, input: Any, other: Any, rounding_mode: Any = None) -> None:
    if rounding_mode is not None and k.dtype.category == INT and bool((k.xp.asarray(other) == 0).any()):
        raise Invalid("ZeroDivisionError", code="division-by-zero", hint=Hint("integer-zero-division"))


@div.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    if saved.rounding_mode is not None:
        return need.input and F.zeros_like(g), need.other and F.zeros_like(saved.other)
    scaled = g / F.conj(saved.other)
    return need.input and scaled, need.other and -scaled * F.conj(saved.result)


def joint(k: K, category: str, *operands: Any) -> Any:
    """(compute, result) of these operands in a category: for operations whose category depends on a parameter."""
    default = k.default_dtype
    typed = [(x.dtype, 2 if x.shape else 1) if type(x) is Spec else (scalar_dtype(x, default), 0) for x in operands]
    return categories[category](result_type(typed, default), default)


# ---------------------------------------------------------------- unary

_ANY = [S(T(2, 3)), S(T()), S(T(0, 2)), S(C(2, 2))]
_REAL = [S(T(2, 3)), S(T()), S(T(0, 2))]


def _neg_meta(k: K, input: Any) -> Spec:
    if input.dtype.category == BOOL:
        raise DtypeMismatch(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use the "
            "`~` or `logical_not()` operator instead."
        )
    return same(k, input)


@op(family="pointwise", meta=_neg_meta, promote="arithmetic", elementwise=True, inplace=True, alias=("negative",),
    samples=_ANY)
def neg(k: K, input: Array, *, out: Any = None) -> Array:
    """-input."""
    return k.xp.negative(input, out=out)


@neg.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return -g


@op(family="pointwise", meta=same, promote="arithmetic", elementwise=True, samples=_ANY)
def conj(k: K, input: Array, *, out: Any = None) -> Array:
    """The complex conjugate; a real tensor is copied."""
    return k.xp.conjugate(input, out=out)


@conj.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.conj(g)


@op(family="pointwise", meta=same, promote="float", elementwise=True, inplace=True, save={"input": ("result",)},
    samples=_ANY)
def exp(k: K, input: Array, *, out: Any = None) -> Array:
    """e to the power of each element."""
    return k.xp.exp(input, out=out)


@exp.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * F.conj(saved.result)


@op(family="pointwise", meta=same, promote="float", elementwise=True, inplace=True, save={"input": ("input",)},
    samples=[S(T(2, 3, low=0.2)), S(T(low=0.2)), S(T(0, 2)), S(C(2, 2))])
def log(k: K, input: Array, *, out: Any = None) -> Array:
    """The natural logarithm of each element."""
    return k.xp.log(input, out=out)


@log.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g / F.conj(saved.input)


@op(family="pointwise", meta=same, promote="float", elementwise=True, inplace=True, save={"input": ("result",)},
    alias=("nn.functional.tanh",), samples=_ANY)
def tanh(k: K, input: Array, *, out: Any = None) -> Array:
    """The hyperbolic tangent of each element."""
    return k.xp.tanh(input, out=out)


@tanh.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    y = F.conj(saved.result)
    return g * (1 - y * y)


@op(family="pointwise", meta=same, promote="arithmetic", elementwise=True, inplace=True,
    alias=("nn.functional.relu",), save={"input": ("result",)}, samples=_REAL)
def relu(k: K, input: Array, *, out: Any = None) -> Array:
    """max(input, 0)."""
    return k.xp.maximum(input, 0, out=out)


@relu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.mul(g, F.gt(saved.result, 0))


# ---------------------------------------------------------------- comparison



def _comparison(name: str, ufunc: str, symbol: str, alias: str) -> None:
    def kernel(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
        return getattr(k.xp, ufunc)(input, other, out=out)

    kernel.__doc__ = f"input {symbol} other, element by element; a bool tensor."
    op(name=name, family="comparison", meta=broadcast, promote="compare", vjp=None, alias=(alias,) if alias != name else (), inplace=True,
       samples=[S(T(3, 2), T(2)), S(I(4), I(4)), S(T(), T()), S(T(0, 2), 1.0)])(kernel)


for _row in (("eq", "equal", "==", "eq"), ("ne", "not_equal", "!=", "not_equal"), ("gt", "greater", ">", "greater"),
             ("ge", "greater_equal", ">=", "greater_equal"), ("lt", "less", "<", "less"),
             ("le", "less_equal", "<=", "less_equal")):
    _comparison(*_row)
