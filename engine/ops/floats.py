"""What floating-point numbers are made of: signs, mantissas and exponents, neighbours, NaN and infinity."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import Any

import numpy as np

from engine.carriers import K
from engine.declare import Array, Scalar, composite, op
from engine.dtypes import BOOL, COMPLEX, FLOAT, INT, bfloat16, can_cast, float16, int32, scalar_type, to_real
from engine.errors import DtypeMismatch
from engine.metas import broadcast, same
from engine.op import REGISTRY, Spec
from engine.ops.common import either, joint, lacking, not_implemented, publish_inplace, put
from engine.samples import C, I, S, T

_REAL = [S(T(2, 3)), S(T()), S(T(0, 2)), S(I(4, low=-2))]
_FLOATS = [S(T(2, 3)), S(T()), S(T(0, 2))]
_PAIRS = [S(T(3, 2), T(2)), S(T(), T()), S(T(0, 2), T(1, 2))]
_NAN, _INF = float("nan"), float("inf")


def _real_input(words: str) -> Callable[..., Spec]:
    """The meta of a function of one real operand, with PyTorch's words for complex ones."""

    def meta(k: K, input: Any) -> Spec:
        if input.dtype.category == COMPLEX:
            raise DtypeMismatch(words, code="dtype-not-implemented", param="input")
        return same(k, input)

    return meta


# ---------------------------------------------------------------- signs and directions


@op(
    family="pointwise",
    meta=lacking("copysign_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    inplace=True,
    save={"input": ("input", "result")},
    samples=[*_PAIRS, S(T(2, 2), -1.5), S(I(4), I(4, low=-2))],
)
def copysign(k: K, input: Array, other: Array | Scalar, *, out: Any = None) -> Array:
    """The magnitude of `input` with the sign of `other`, the sign of -0.0 and of NaNs being one too."""
    return k.xp.copysign(input, other, out=out)


@copysign.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    of_input = None
    if need.input:
        of_input = g * F.where(F.eq(saved.input, 0), 0, saved.result / saved.input)
    return of_input, need.other and F.zeros_like(g)


@op(
    family="pointwise",
    meta=_real_input("signbit is not implemented for complex tensors."),
    promote="compare",
    vjp=None,
    samples=[*_REAL, S(T(3, values=[-0.0, 0.0, _NAN]))],
)
def signbit(k: K, input: Array) -> Array:
    """Whether the sign bit is set: of negative numbers, of -0.0 and of some NaNs."""
    kind = input.dtype.kind
    if kind == "b":
        return k.xp.zeros_like(input)
    return k.xp.signbit(input) if kind == "f" else input < 0


def _angle_meta(k: K, input: Any) -> Spec:
    return Spec(input.shape, to_real(k.dtype))


@op(
    family="pointwise",
    meta=_angle_meta,
    promote="float",
    elementwise=True,
    save={"input": ("input",)},
    samples=[*_REAL, S(C(2, 2))],
)
def angle(k: K, input: Array, *, out: Any = None) -> Array:
    """The angle of a complex number, in (-pi, pi]; of a real one 0, or pi where it is negative."""
    xp = k.xp
    if input.dtype.kind == "c":
        return xp.arctan2(input.imag, input.real, out=out)
    made = either(xp, input < 0, pi, either(xp, xp.isnan(input), input, 0))
    return put(made.astype(input.dtype), out)


@angle.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    z = saved.input
    if not F.dtype(z).is_complex:
        return F.zeros_like(g)
    length = F.abs(z)
    zero = F.eq(length, 0)
    across = F.div(z, F.where(zero, 1, F.square(length))) * 1j
    return F.where(zero, 0, F.mul(g, across))


@composite(family="pointwise", moves=True, samples=[*_REAL, S(C(2, 2))])
def conj_physical(F: Any, input: Array) -> Array:
    """The complex conjugate in memory of its own; a real tensor is its own."""
    return F._conj_physical(input) if F.dtype(input).is_complex else input


@op(
    family="pointwise",
    meta=same,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    node="ConjPhysicalBackward0",
    samples=[*_REAL, S(C(2, 2))],
)
def _conj_physical(k: K, input: Array, *, out: Any = None) -> Array:
    """Makes the elements their complex conjugates; real ones stay as they are."""
    if input.dtype.kind == "b":
        return put(input.copy(), out)
    return k.xp.conjugate(input, out=out)


@_conj_physical.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.conj(g)


publish_inplace(_conj_physical, "conj_physical_")


def _scaled(name: str, factor: float, doc: str) -> None:
    def kernel(k: K, input: Array, *, out: Any = None) -> Array:
        return k.xp.multiply(input, factor, out=out)

    kernel.__doc__ = doc
    declared = op(
        name=name,
        family="pointwise",
        meta=_real_input(f"{name} is not supported for complex tensors."),
        promote="float",
        elementwise=True,
        inplace=True,
        samples=_REAL,
    )(kernel)

    @declared.vjp
    def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
        return g * factor


_scaled("deg2rad", pi / 180, "Degrees as radians.")
_scaled("rad2deg", 180 / pi, "Radians as degrees.")


# ---------------------------------------------------------------- mantissa and exponent


def _frexp_meta(k: K, input: Any) -> tuple[Spec, Spec]:
    if input.dtype.category != FLOAT:
        raise DtypeMismatch("torch.frexp() only supports floating-point dtypes", param="input")
    return input, Spec(input.shape, int32)


@op(
    family="pointwise",
    meta=_frexp_meta,
    outputs=("mantissa", "exponent"),
    fields=True,
    nondiff=("exponent",),
    node="FrexpBackward0",
    save={"input": ("exponent",)},
    samples=_FLOATS,
)
def frexp(k: K, input: Array) -> tuple[Array, Array]:
    """Mantissa and exponent: input = mantissa * 2^exponent, with 0.5 <= |mantissa| < 1; the exponent is int32."""
    mantissa, exponent = k.xp.frexp(input)
    return mantissa, either(k.xp, k.xp.isfinite(input), exponent, 0).astype(np.int32)


@frexp.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.div(g[0], F.exp2(saved.exponent))


_MOST = 1 << 16  # a larger exponent changes nothing more


def _ldexp_types(k: K, input: Any, other: Any) -> Any:
    return joint(k, "float", input, other)


def _by_bits(input: Any, other: Any) -> bool:
    """Whether PyTorch adds to exponents, of floating numbers, instead of multiplying with powers of 2."""
    return bool(input.dtype.category == FLOAT and other.dtype.category <= INT)


def _ldexp_meta(k: K, input: Any, other: Any) -> Spec:
    made = broadcast(k, input, other)
    if _by_bits(input, other) and other.dtype.category == BOOL:
        raise not_implemented("ldexp_cpu_exp", other.dtype)
    return made


def _ldexp_cast(k: K, input: Any, other: Any) -> None:
    if not can_cast(k.dtype, input.dtype) and input.dtype.category < FLOAT:
        raise DtypeMismatch(f"ldexp can't be cast to the desired output type {scalar_type(input.dtype)}")


@op(
    family="pointwise",
    meta=_ldexp_meta,
    promote=_ldexp_types,
    over=("input",),
    elementwise=True,
    keeps=False,
    inplace=True,
    save={"input": ("other",), "other": ("result",)},
    samples=[
        S(T(3, 2), I(2, low=-2)),
        S(T(), I()),
        S(T(0, 2), T(1, 2)),
        S(T(2, 2), T(2)),
        S(I(3), I(3)),
        S(C(2), T(2)),
    ],
)
def ldexp(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """input * 2^other, with broadcasting; integers give floats.

    With whole exponents there is no overflow in between: the exponent of `input` is added to.
    """
    xp = k.xp
    kind = other.dtype.kind
    if input.dtype.kind == "f" and kind in "iu":
        steps = xp.clip(other, -_MOST, _MOST) if other.dtype.itemsize == 8 else other
        return xp.ldexp(input, steps.astype(np.int32), out=out)
    power = xp.power(2.0, other if kind in "fc" else other.astype(k.default_dtype.np))
    return xp.multiply(input, power.astype(input.dtype, copy=False), out=out)


REGISTRY["ldexp_"].meta = _ldexp_cast


@ldexp.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    of_input = None
    if need.input:
        whole = F.dtype(saved.other).category <= INT
        of_input = F.ldexp(g, saved.other) if whole else F.mul(g, F.conj(F.pow(2.0, saved.other)))
    return of_input, need.other and g * F.conj(saved.result * log(2))


# ---------------------------------------------------------------- neighbours


@op(
    family="pointwise",
    meta=lacking("nextafter_cpu", BOOL, INT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    keeps=False,
    inplace=True,
    save={"input": ("input", "other")},
    samples=[S(T(3, 2, grad=False), T(2)), S(T(grad=False), T()), S(T(0, 2), T(1, 2))],
)
def nextafter(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
    """The next number of the dtype after `input`, towards `other`."""
    d = k.spec.dtype
    if d is float16:
        half = k.xp.nextafter(input.astype(np.float16), other.astype(np.float16))
        return put(half.astype(np.float32), out)
    if d is bfloat16:
        return put(_next_bfloat16(k.xp, input, other), out)
    return k.xp.nextafter(input, other, out=out)


def _next_bfloat16(xp: Any, x: Any, y: Any) -> Any:
    """Read as integers, floats of one sign are in the order of magnitude; bfloat16 has the upper half of the bits."""
    x, y = xp.broadcast_arrays(xp.asarray(x), xp.asarray(y))
    bits = xp.ascontiguousarray(x).view(np.int32).reshape(x.shape)
    grows = (y > x) == (x > 0)
    stepped = xp.where(grows, bits + 0x10000, bits - 0x10000).astype(np.int32).view(np.float32)
    least = xp.copysign(xp.asarray(0x10000, np.int32).view(np.float32), y)
    made = xp.where(x == 0, least, stepped)
    return xp.where(x == y, y, xp.where(xp.isnan(x) | xp.isnan(y), x + y, made))


@nextafter.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    # PyTorch: the step to the neighbour counts as constant, but where there is none.
    return need.input and F.where(F.eq(saved.input, saved.other), 0, g), need.other and F.zeros_like(g)


# ---------------------------------------------------------------- NaN and infinity


@op(
    family="pointwise",
    meta=same,
    promote="arithmetic",
    elementwise=True,
    keeps=False,
    inplace=True,
    save={"input": ("input",)},
    samples=[*_REAL, S(T(2, 3), 1.0, 2.0, -2.0), S(T(4, values=[_NAN, _INF, -_INF, 1.5], grad=False)), S(C(2, 2))],
)
def nan_to_num(
    k: K,
    input: Array,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
    *,
    out: Any = None,
) -> Array:
    """The elements with NaN replaced by `nan` (0), infinity by `posinf` and -infinity by `neginf`.

    Without these the largest and the least number of the dtype. Both parts of a complex number are looked at.
    """
    xp = k.xp
    if input.dtype.kind not in "fc":
        return put(input.copy(), out)
    largest = _LARGEST.get(k.spec.dtype.name) or float(np.finfo(input.dtype).max)
    by = (nan or 0.0, largest if posinf is None else posinf, -largest if neginf is None else neginf)
    if input.dtype.kind == "f":
        return put(_replaced(xp, input, *by), out)
    made = input.copy() if out is None else put(input, out)
    made.real[...] = _replaced(xp, input.real, *by)
    made.imag[...] = _replaced(xp, input.imag, *by)
    return made


_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}


def _replaced(xp: Any, x: Any, *by: float) -> Any:
    nan, high, low = (xp.asarray(value, dtype=x.dtype) for value in by)
    return either(xp, x != x, nan, either(xp, x == float("inf"), high, either(xp, x == -float("inf"), low, x)))


@nan_to_num.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.mul(g, F.isfinite(saved.input))


def _infinite(name: str, sign: int, doc: str) -> None:
    def kernel(k: K, input: Array) -> Array:
        if input.dtype.kind != "f":
            return k.xp.zeros(input.shape, bool)
        return input == sign * float("inf")

    kernel.__doc__ = doc
    op(
        name=name,
        family="pointwise",
        meta=_real_input(f"{name} does not support complex inputs."),
        promote="compare",
        vjp=None,
        samples=[*_REAL, S(T(3, values=[_INF, -_INF, _NAN]))],
    )(kernel)


_infinite("isposinf", 1, "Whether each element is positive infinity.")
_infinite("isneginf", -1, "Whether each element is negative infinity.")


@op(family="pointwise", meta=same, promote="compare", vjp=None, samples=[*_REAL, S(C(2, 2))])
def isreal(k: K, input: Array) -> Array:
    """Whether each element has no imaginary part."""
    return input.imag == 0 if input.dtype.kind == "c" else k.xp.ones(input.shape, bool)
