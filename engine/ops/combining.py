"""Pointwise functions of two and three operands that are more than arithmetic."""

from __future__ import annotations

from typing import Any

from engine.carriers import NUMBERS, K
from engine.declare import Array, Scalar, op
from engine.dtypes import BOOL, C_NAMES, COMPLEX, FLOAT, INT
from engine.errors import DtypeMismatch
from engine.metas import broadcast
from engine.op import Spec
from engine.ops.common import conjugate, either, fitting, lacking, not_implemented, put, scalar_or_tensor, times
from engine.samples import C, I, S, T

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
    made = broadcast(k, input, tensor1, tensor2)
    if k.dtype.category == BOOL:
        raise not_implemented("addcmul_cpu_out", k.dtype)
    fitting(value, k.dtype.compute)
    return made


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
            "Integer division with addcdiv is no longer supported, and in a future  release addcdiv will perform a "
            "true division of tensor1 and tensor2. The historic addcdiv behavior can be implemented as (input + value "
            "* torch.trunc(tensor1 / tensor2)).to(input.dtype) for integer inputs and as (input + value * tensor1 / "
            "tensor2) for float inputs. The future addcdiv behavior is just the latter implementation: (input + "
            "value * tensor1 / tensor2), for all dtypes.",
            param="tensor1",
        )
    fitting(value, k.dtype.compute)
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
    k.dtype = d
    made = broadcast(k, input, end, weight)
    if d.category < FLOAT:
        raise not_implemented("lerp_kernel_tensor" if type(weight) is Spec else "lerp_kernel_scalar", d)
    if type(weight) is not Spec:
        fitting(weight, d.compute, "weight")
    return made


@op(
    family="pointwise",
    meta=_lerp_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    numbers=True,
    exact=True,
    node=scalar_or_tensor("Lerp", 0, 1, 2),
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
    w: Any = conjugate(F, saved.weight) if need.input or need.end else None
    return (
        need.input and g * (1 - w),
        need.end and g * w,
        need.weight and g * F.conj(saved.end - saved.input),
    )


# ---------------------------------------------------------------- x log y


@op(
    family="pointwise",
    meta=lacking("xlogy_cpu", COMPLEX),
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
    d = input.dtype if type(input) not in NUMBERS else k.backend.asarray(other, k.default_dtype.np).dtype
    made = xp.multiply(input, xp.log(xp.asarray(other, dtype=d)))
    zero = xp.logical_and(xp.equal(input, 0), xp.equal(other, other))
    return put(either(xp, zero, 0, made), out)


@xlogy.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    of_input = None
    if need.input:
        off = F.logical_and(F.eq(saved.input, 0), F.le(saved.other, 0))
        of_input = g * F.where(off, 0, F.log(saved.other))
    return of_input, need.other and g * saved.input / saved.other
