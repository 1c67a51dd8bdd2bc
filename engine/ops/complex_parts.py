"""Complex numbers from their parts, in Cartesian and in polar coordinates."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import float16, float32, float64, scalar_type, to_complex
from engine.errors import Call, DtypeMismatch, Hint, Param
from engine.metas import broadcast
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.samples import C, S, T


def _joined(first: Spec, second: Spec, name: str) -> None:
    if any(x.dtype not in (float16, float32, float64) for x in (first, second)):
        raise DtypeMismatch(
            f"Expected both inputs to be Half, Float or Double tensors but got {scalar_type(first.dtype)} and "
            f"{scalar_type(second.dtype)}",
            param=name,
        )
    if first.dtype is not second.dtype:
        raise DtypeMismatch(
            f"Expected object of scalar type {scalar_type(first.dtype)} but got scalar type "
            f"{scalar_type(second.dtype)} for second argument",
            hint=Hint(
                "cast-one",
                Call("to", {"input": Param(name), "dtype": first.dtype.name}),
                a=first.dtype.name,
                b=second.dtype.name,
                param=name,
            ),
            param=name,
        )


def _blank(k: K, *operands: Any) -> Any:
    """Memory for the result, in the layout of the first operand that has its shape."""
    shape, d = k.spec.shape, k.spec.dtype.np
    for x in operands:
        if x.shape == shape and 0 not in x.strides:
            return k.xp.empty_like(x, dtype=d)
    return k.xp.empty(shape, dtype=d)


def _complex_meta(k: K, real: Spec, imag: Spec) -> Spec:
    _joined(real, imag, "imag")
    d = to_complex(real.dtype)
    return Spec(broadcast(k, real, imag).shape, d)


_SAMPLES = [S(T(2, 3, low=0.2), T(2, 3)), S(T(low=0.2), T()), S(T(3, low=0.2), T(2, 1)), S(T(0, low=0.2), T(0))]


@op(family="factories", name="complex", meta=_complex_meta, elementwise=True, keeps=False, samples=_SAMPLES)
def complex_(k: K, real: Array, imag: Array, *, out: Any = None) -> Array:
    """The complex numbers real + i imag; float32 parts make complex64, float64 ones complex128."""
    made = _blank(k, real, imag) if out is None else out
    made.real, made.imag = real, imag
    return made


@complex_.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.real and F.real(g), need.imag and F.imag(g)


def _polar_meta(k: K, abs: Spec, angle: Spec) -> Spec:
    _joined(abs, angle, "angle")
    shape = broadcast(k, abs, angle).shape
    if abs.dtype is float16:
        raise not_implemented("polar_cpu", abs.dtype)
    return Spec(shape, to_complex(abs.dtype))


@op(
    family="factories",
    meta=_polar_meta,
    elementwise=True,
    keeps=False,
    save={"abs": ("result",), "angle": ("result",)},
    samples=_SAMPLES,
)
def polar(k: K, abs: Array, angle: Array, *, out: Any = None) -> Array:
    """The complex numbers abs (cos angle + i sin angle)."""
    made = _blank(k, abs, angle) if out is None else out
    made.real, made.imag = abs * k.xp.cos(angle), abs * k.xp.sin(angle)
    return made


@polar.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    back = F.conj(g)
    return (
        need.abs and F.real(F.mul(back, F.sgn(saved.result))),
        need.angle and F.real(F.mul(back, F.mul(saved.result, 1j))),
    )


# ---------------------------------------------------------------- lazy conjugates, which there are none of here


@composite(family="views", moves=True, samples=[S(C(2)), S(T(2, 3))])
def resolve_conj(F: Any, input: Array) -> Array:
    """The tensor itself: its conjugate, where it is one, was computed at once."""
    return input


@composite(family="views", moves=True, samples=[S(C(2)), S(T(2, 3))])
def resolve_neg(F: Any, input: Array) -> Array:
    """The tensor itself: its negative, where it is one, was computed at once."""
    return input
