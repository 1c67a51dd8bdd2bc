"""Bounds and extremes, element by element: clamp, and the larger or smaller of two operands."""

from __future__ import annotations

from math import inf
from typing import Any

from engine.carriers import NUMBERS, K
from engine.declare import Array, Scalar, op
from engine.dtypes import BOOL, C_NAMES, COMPLEX, FLOAT, INT, DType, can_cast, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param
from engine.metas import broadcast
from engine.op import REGISTRY, Spec
from engine.ops.common import bounded, fitting, lacking, not_implemented, scalar_or_tensor
from engine.samples import I, S, T
from engine.shapes import broadcast_two

# ---------------------------------------------------------------- clamp


def _check_bounds(d: DType, *bounds: Any) -> None:
    if d.category in (INT, FLOAT):
        for bound in bounds:
            if type(bound) in NUMBERS:
                fitting(bound, d, "min")


def _clamp_meta(k: K, input: Any, min: Any = None, max: Any = None) -> Spec:
    if min is None and max is None:
        raise Invalid("torch.clamp: At least one of 'min' or 'max' must not be None", op="clamp", param="min")
    d = k.dtype
    tensors = type(min) is Spec or type(max) is Spec
    kernel = "clamp_cpu" if max is not None and min is not None else "maximum_cpu" if max is None else "minimum_cpu"
    if input.dtype.category == COMPLEX:
        raise DtypeMismatch("clamp is not supported for complex types", op="clamp")
    made = broadcast(k, input, min, max)
    if tensors and (d.category == COMPLEX or (d.category == BOOL and kernel == "clamp_cpu")):
        raise not_implemented(kernel, d)
    if d.category == COMPLEX:
        if input.dtype.category == FLOAT:
            param = "min" if type(min) is complex else "max"
            raise Invalid("value cannot be converted to type double without overflow", op="clamp", param=param)
        raise DtypeMismatch("clamp is not supported for complex types", op="clamp")
    if not tensors:
        if d.category == BOOL:
            which = "" if max is not None and min is not None else "min_" if max is None else "max_"
            raise not_implemented(f"clamp_{which}scalar_cpu", d)
        _check_bounds(d, min, max)
    return made


def _clamp_node(input: Any, min: Any, max: Any) -> str:
    return "ClampBackward0" if type(min) is Spec or type(max) is Spec else "ClampBackward1"


def _finite(bound: Any) -> bool:
    """Whether a bound is missing, or a number that every float dtype of ours has."""
    return bound is None or (type(bound) in (int, float) and abs(bound) < 1e38)


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
    if input.dtype.kind == "f" and _finite(min) and _finite(max):
        low, high = -inf if min is None else float(min), inf if max is None else float(max)
        if low <= high:
            return bounded(xp, input, low, high, out)
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
        made = broadcast(k, input, bound)
        if k.dtype.category == COMPLEX:
            if type(bound) is Spec:
                raise not_implemented("maximum_cpu" if "min" in kernel else "minimum_cpu", k.dtype)
            raise DtypeMismatch("clamp is not supported for complex types")
        if k.dtype.category == BOOL and type(bound) is not Spec:
            raise not_implemented(kernel, k.dtype)
        _check_bounds(k.dtype, bound)
        return made

    return meta


def _number_cast(k: K, input: Any, *bounds: Any) -> None:
    """PyTorch's words where a number would change the dtype of what is clamped in place."""
    numbers = all(type(b) in NUMBERS or b is None for b in bounds)
    if numbers and input.dtype.category < FLOAT and not can_cast(k.dtype, input.dtype):
        raise DtypeMismatch(
            f"result type {scalar_type(k.dtype)} can't be cast to the desired output type {C_NAMES[input.dtype.name]}",
            hint=Hint(
                "inplace-dtype",
                Call("to", {"input": Param("input"), "dtype": k.dtype.name}),
                have=input.dtype.name,
                want=k.dtype.name,
            ),
        )


@op(
    family="pointwise",
    meta=_one_bound("clamp_min_scalar_cpu"),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    numbers=True,
    node=scalar_or_tensor("ClampMin", 0, 1),
    save={"input": ("input", "min"), "min": ("input", "min")},
    samples=[S(T(2, 3), 0.1), S(T(2, 3, distinct=True), T(3, low=1.1, high=1.4)), S(T(), 0.1), S(I(4), 1)],
)
def clamp_min(k: K, input: Array, min: Array | Scalar, *, out: Any = None) -> Array:
    """Every element raised to at least `min`."""
    if input.dtype.kind == "f" and _finite(min):
        return bounded(k.xp, input, float(min), out=out)
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
    node=scalar_or_tensor("ClampMax", 0, 1),
    save={"input": ("input", "max"), "max": ("input", "max")},
    samples=[S(T(2, 3), 0.1), S(T(2, 3, distinct=True), T(3, low=1.1, high=1.4)), S(T(), 0.1), S(I(4), 1)],
)
def clamp_max(k: K, input: Array, max: Array | Scalar, *, out: Any = None) -> Array:
    """Every element lowered to at most `max`."""
    if input.dtype.kind == "f" and _finite(max):
        return bounded(k.xp, input, high=float(max), out=out)
    return k.xp.minimum(input, max, out=out)


@clamp_max.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x, high = saved.input, saved.max
    return need.input and F.where(F.le(x, high), g, 0), need.max and F.where(F.gt(x, high), g, 0)


REGISTRY["clamp_"].meta = REGISTRY["clamp_min_"].meta = REGISTRY["clamp_max_"].meta = _number_cast


# ---------------------------------------------------------------- the larger and the smaller of two


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
