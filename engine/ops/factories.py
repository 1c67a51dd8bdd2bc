"""Factories: tensors from sizes, numbers and data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.backend import CPU
from engine.carriers import NUMBERS, K, blank_like
from engine.declare import Array, Device, DTypeArg, Scalar, Shape, op
from engine.dtypes import (
    BOOL,
    COMPLEX,
    INT,
    DType,
    float32,
    float64,
    int64,
    scalar_dtype,
    scalar_type,
    to_complex,
)
from engine.errors import DtypeMismatch, Hint, Invalid, ShapeMismatch, WrongType
from engine.metas import as_dtype, sized
from engine.op import Spec
from engine.ops.common import fitting, not_implemented
from engine.samples import I, S, T
from engine.shapes import check_size

# ---------------------------------------------------------------- one number everywhere


def _sized(k: K, size: Any, dtype: Any = None, *rest: Any) -> Spec:
    return sized(k, size, dtype)


def _zeros_meta(k: K, size: Any, dtype: Any = None, *rest: Any) -> Spec:
    if any(type(n) is int and n < 0 for n in ([size] if isinstance(size, int) else size)):
        raise ShapeMismatch("zeros: Dimension size must be non-negative.", hint=Hint("size-range"), param="size")
    return sized(k, size, dtype)


def filled(k: K, value: complex) -> Any:
    """An array of `k.spec` with one number at every place."""
    spec = k.spec
    d = spec.dtype.compute.np
    if value == 0:
        return k.xp.zeros(spec.shape, dtype=d)
    return k.xp.ones(spec.shape, dtype=d) if value == 1 else k.xp.full(spec.shape, value, dtype=d)


@op(family="factories", meta=_zeros_meta, vjp=None, samples=[S([2, 3]), S([]), S([0, 2]), S([2], dtype="int64")])
def zeros(
    k: K,
    size: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Zeros of the given size."""
    return filled(k, 0)


@op(family="factories", meta=_sized, vjp=None, samples=[S([2, 3]), S([]), S([0, 2]), S([2], dtype="int64")])
def ones(
    k: K,
    size: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Ones of the given size."""
    return filled(k, 1)


@op(family="factories", meta=_sized, vjp=None, samples=[S([2, 3]), S([0, 2])])
def empty(
    k: K,
    size: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """A tensor of the given size; its values are not specified, and here they are zeros."""
    return filled(k, 0)


def _full_meta(k: K, size: Any, fill_value: Any, dtype: Any = None, *rest: Any) -> Spec:
    d = as_dtype(dtype) or scalar_dtype(fill_value, k.default_dtype)
    fitting(fill_value, d, "fill_value")
    return sized(k, size, d)


@op(
    family="factories",
    meta=_full_meta,
    vjp=None,
    samples=[S([2, 3], 1.5), S([], 7), S([2], True), S([0, 2], 1), S([2], 3, dtype="float32")],
)
def full(
    k: K,
    size: Shape,
    fill_value: Scalar,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """`fill_value` at every place; without `dtype` its own: bool, int64, or the default floating one."""
    return filled(k, fitting(fill_value, k.spec.dtype.compute))


def _scalar_meta(k: K, s: Any, dtype: Any = None, *rest: Any) -> Spec:
    d = as_dtype(dtype) or (k.default_dtype if type(s) is not complex else scalar_dtype(s, k.default_dtype))
    fitting(s, d, "s")
    return Spec((), d)


@op(family="factories", meta=_scalar_meta, vjp=None, samples=[S(1.5), S(3), S(2, dtype="int64")])
def scalar_tensor(
    k: K,
    s: Scalar,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """A 0-d tensor of a number, floating unless `dtype` says otherwise."""
    return filled(k, fitting(s, k.spec.dtype.compute))


def _eye_meta(k: K, n: int, m: int | None = None, dtype: Any = None, *rest: Any) -> Spec:
    columns = n if m is None else m
    for size, name in ((n, "n"), (columns, "m")):
        if size < 0:
            raise ShapeMismatch(f"{name} must be greater or equal to 0, got {size}", param=name)
    return sized(k, (n, columns), dtype)


@op(family="factories", meta=_eye_meta, vjp=None, samples=[S(3), S(2, 3), S(0), S(2, dtype="int64")])
def eye(
    k: K,
    n: int,
    m: int | None = None,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Ones on the diagonal of n x m zeros; m is n if not given."""
    return k.xp.eye(n, n if m is None else m, dtype=k.spec.dtype.compute.np)


# ---------------------------------------------------------------- like another tensor


def _like(k: K, input: Any, dtype: Any = None, *rest: Any) -> Spec:
    return Spec(input.shape, as_dtype(dtype) or input.dtype)


def alike(k: K, input: Any, value: complex) -> Any:
    """One number everywhere, in the shape and layout of `input`; it may be on another device than the result."""
    spec = k.spec
    d = spec.dtype.compute.np
    if not input.ndim or type(input) is not k.backend.ndarray:
        return filled(k, value)
    if value == 0 and input.flags.c_contiguous:
        return k.xp.zeros_like(input, dtype=d)
    made = blank_like(k.xp, input, d)
    made[...] = value
    return made


_LIKE = [S(T(2, 3)), S(T()), S(T(0, 2)), S(T(2), dtype="int64"), S(I(3))]


@op(family="factories", meta=_like, vjp=None, samples=_LIKE)
def zeros_like(
    k: K,
    input: Array,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Zeros in the shape of `input`."""
    return alike(k, input, 0)


@op(family="factories", meta=_like, vjp=None, samples=_LIKE)
def ones_like(
    k: K,
    input: Array,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Ones in the shape of `input`."""
    return alike(k, input, 1)


@op(family="factories", meta=_like, vjp=None, samples=_LIKE)
def empty_like(
    k: K,
    input: Array,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """A tensor in the shape of `input`; its values are not specified, and here they are zeros."""
    return alike(k, input, 0)


def _full_like_meta(k: K, input: Any, fill_value: Any, dtype: Any = None, *rest: Any) -> Spec:
    made = _like(k, input, dtype)
    fitting(fill_value, made.dtype, "fill_value")
    return made


@op(
    family="factories",
    meta=_full_like_meta,
    vjp=None,
    samples=[S(T(2, 3), 1.5), S(T(), 2), S(T(0, 2), 1), S(I(3), 7), S(T(2), 3, dtype="int64")],
)
def full_like(
    k: K,
    input: Array,
    fill_value: Scalar,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """`fill_value` in the shape of `input`, and in its dtype."""
    return alike(k, input, fitting(fill_value, k.spec.dtype.compute))


def _new_meta(k: K, input: Any, size: Any, dtype: Any = None, *rest: Any) -> Spec:
    return sized(k, size, as_dtype(dtype) or input.dtype)


_NEW = [S(T(2), [2, 3]), S(I(2), [2]), S(T(), []), S(T(2), [2], dtype="int64")]


@op(family="factories", meta=_new_meta, vjp=None, samples=_NEW)
def new_zeros(
    k: K,
    input: Array,
    size: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Zeros of the given size, in the dtype and on the device of `input`."""
    return filled(k, 0)


@op(family="factories", meta=_new_meta, vjp=None, samples=_NEW)
def new_ones(
    k: K,
    input: Array,
    size: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Ones of the given size, in the dtype and on the device of `input`."""
    return filled(k, 1)


@op(family="factories", meta=_new_meta, vjp=None, samples=_NEW)
def new_empty(
    k: K,
    input: Array,
    size: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """A tensor of the given size like `input`; its values are not specified, and here they are zeros."""
    return filled(k, 0)


def _new_full_meta(k: K, input: Any, size: Any, fill_value: Any, dtype: Any = None, *rest: Any) -> Spec:
    made = _new_meta(k, input, size, dtype)
    fitting(fill_value, made.dtype, "fill_value")
    return made


@op(family="factories", meta=_new_full_meta, vjp=None, samples=[S(T(2), [2, 3], 1.5), S(I(2), [2], 3), S(T(), [], 1)])
def new_full(
    k: K,
    input: Array,
    size: Shape,
    fill_value: Scalar,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """`fill_value` in the given size, in the dtype and on the device of `input`."""
    return filled(k, fitting(fill_value, k.spec.dtype.compute))


# ---------------------------------------------------------------- progressions


def _range_size(start: Any, end: Any, step: Any, d: DType) -> int:
    """How many numbers arange gives. Raises in PyTorch's words."""
    for value, name in ((start, "start"), (end, "end"), (step, "step")):
        if type(value) is complex:
            raise Invalid("value cannot be converted to type double without overflow", param=name)
    if not (step > 0 or step < 0):
        raise Invalid("step must be nonzero", param="step")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise Invalid(f"unsupported range: {start:g} -> {end:g}", param="end")
    if (step > 0 and end < start) or (step < 0 and end > start):
        words = "upper bound and lower bound inconsistent with step sign"
        raise Invalid(
            words, hint=Hint("step-sign", start=start, end=end, sign="-" if end < start else "+"), param="end"
        )
    if d.category == INT and not math.isfinite(step):
        raise Invalid("value cannot be converted to type int64_t without overflow", param="step")
    if d is not int64:
        count: float = (end - start) / step
        return math.ceil(count)
    first, last, by = int(start), int(end), int(step)
    if not by:
        raise Invalid("step must be nonzero", param="step")
    return -((first - last) // by)


def _bounds(start: Any, end: Any) -> tuple[Any, Any]:
    return (0, start) if end is None else (start, end)


def _arange_meta(k: K, start: Any = 0, end: Any = None, step: Any = 1, dtype: Any = None, *rest: Any) -> Spec:
    start, end = _bounds(start, end)
    d = as_dtype(dtype)
    if d is None:
        d = k.default_dtype if any(type(x) is float for x in (start, end, step)) else int64
    if d.category in (BOOL, COMPLEX):
        raise not_implemented("arange_cpu", d)
    n = _range_size(start, end, step, d)
    check_size((n,))
    return Spec((n,), d)


@op(
    family="factories",
    meta=_arange_meta,
    vjp=None,
    example={"end": 5},
    samples=[S(0, 5), S(1, 2.5, 0.5), S(5, 0, -2), S(0, 0), S(0, 3, dtype="float32")],
)
def arange(
    k: K,
    start: Scalar = 0,
    end: Scalar | None = None,
    step: Scalar = 1,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """start, start + step, ..., up to but without `end`; given one number only, it is the end and start is 0.

    Whole numbers give int64, others the default floating dtype.
    """
    start, end = _bounds(start, end)
    (n,), d = k.spec.shape, k.spec.dtype
    if d.category == INT:
        wide = np.arange(n, dtype=np.int64) * int(step) + int(start)
        return k.from_host(wide.astype(d.np))
    return k.from_host(_progression(float(start), float(step), n, d))


def _closed_range_meta(k: K, start: Any, end: Any, step: Any = 1, dtype: Any = None, *rest: Any) -> Spec:
    d = as_dtype(dtype) or k.default_dtype
    if d.category in (BOOL, COMPLEX):
        raise not_implemented("range_cpu", d)
    _range_size(start, end, step, d)
    first, last, by = (int(x) if d is int64 else x for x in (start, end, step))
    n = int((last - first) / by + 1)
    check_size((n,))
    return Spec((n,), d)


@op(
    family="factories",
    name="range",
    meta=_closed_range_meta,
    vjp=None,
    samples=[S(1, 4), S(0, 1, 0.25), S(5, 0, -2), S(0, 0), S(0, 5, 2, dtype="int64")],
)
def closed_range(
    k: K,
    start: Scalar,
    end: Scalar,
    step: Scalar = 1,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """start, start + step, ..., up to and with `end`; floating unless `dtype` says otherwise.

    PyTorch deprecates it in favour of `arange`, which leaves the end out.
    """
    (n,), d = k.spec.shape, k.spec.dtype
    if d.category == INT:
        return k.from_host((np.arange(n, dtype=np.int64) * int(step) + int(start)).astype(d.np))
    return k.from_host(rounded(np.arange(n) * float(step) + float(start), d))


def _progression(start: float, step: float, n: int, d: DType) -> Any:
    """start + step * i as PyTorch computes it on the CPU: group by group of the numbers that fit a vector register.

    The first number of a group is rounded, the others count from it; what does not fill two registers is computed
    one by one. All in float64, rounded once more.
    """
    lanes = 32 // d.itemsize
    exact: Any = np.longdouble if d.itemsize == 8 else np.float64  # as if fused, where the platform has more bits
    places = np.arange(n)
    grouped = n // (2 * lanes) * (2 * lanes)
    lane = np.where(places < grouped, places % lanes, 0)
    first = rounded((exact(start) + exact(step) * (places - lane).astype(exact)).astype(np.float64), d)
    made = (first.astype(exact) + exact(step) * lane.astype(exact)).astype(np.float64)
    return rounded(made, d)


def rounded(values: Any, d: DType) -> Any:
    """float64 host values as `d` has them: bfloat16 as float32."""
    if d.itemsize == 8:
        return values
    single = np.asarray(values).astype(np.float32)
    return CPU.widen(CPU.cast(single, float32, d), d) if d.reduced else single


def _linspace_meta(
    k: K, start: Any, end: Any, steps: int, dtype: Any = None, *rest: Any, name: str = "linspace"
) -> Spec:
    if steps < 0:
        raise ShapeMismatch("number of steps must be non-negative", param="steps")
    complex_ = False
    ends = ((start, "start"), (end, "end"))
    if wide := [(x.ndim, name) for x, name in ends if type(x) is Spec and x.shape]:
        said = " and ".join(f"{name} with {ndim} dimension(s)" for ndim, name in wide)
        raise ShapeMismatch(
            f"{name} only supports 0-dimensional start and end tensors, but got {said}.", param=wide[0][1]
        )
    for x, _ in ends:
        complex_ |= x.dtype.is_complex if type(x) is Spec else type(x) is complex
    d = as_dtype(dtype)
    inferred = to_complex(k.default_dtype) if complex_ else k.default_dtype
    if d is not None and complex_ and d.category != COMPLEX:
        names = {"complex64": "c10::complex<float>", "complex128": "c10::complex<double>"}
        raise DtypeMismatch(
            f"torch.linspace(): inferred dtype {names[inferred.name]} can't be safely cast to passed dtype "
            f"{scalar_type(d)}",
            param="dtype",
        )
    d = d or inferred
    if d.category == BOOL and steps > 1:
        raise not_implemented("linspace_cpu", d)
    for x, name in ((start, "start"), (end, "end"))[:steps]:  # what is not used need not fit
        if type(x) is not Spec:
            fitting(x, d, name)
    check_size((steps,))
    return Spec((steps,), d)


@op(
    family="factories",
    meta=_linspace_meta,
    vjp=None,
    samples=[S(0, 1, 5), S(-1.5, 2.5, 4), S(3, 3, 1), S(0, 1, 0), S(0, 10, 4, dtype="int64"), S(T(), T(), 3)],
)
def linspace(
    k: K,
    start: Array | Scalar,
    end: Array | Scalar,
    steps: int,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """`steps` numbers from start to end, both included, evenly spaced; floating unless `dtype` says otherwise."""
    d = k.spec.dtype
    first, last = (x if type(x) in NUMBERS else k.backend.to_host(x).item() for x in (start, end))
    return k.from_host(spaced(fitting(first, d), fitting(last, d) if steps > 1 else 0, steps, d))


def spaced(start: Any, end: Any, n: int, d: DType) -> Any:
    """Counted from the nearer end, in the roundings of PyTorch's CPU kernel."""
    if n < 2:
        return np.full(n, start, d.compute.np)
    up = np.arange(n)
    down, low = n - 1 - up, up < n // 2
    if d.category == INT:
        step = np.longdouble((float(end) - float(start)) / (n - 1))  # multiplied and added in one rounding
        made = np.where(low, float(start) + step * up, float(end) - step * down).astype(np.float64)
        return np.trunc(made).astype(np.int64).astype(d.np)
    if d.category == COMPLEX:
        t = d.np.type
        start, end = t(start), t(end)
        step = (end - start) / t(n - 1)
        return np.where(low, start + step * up.astype(d.np), end - step * down.astype(d.np)).astype(d.np)
    if d.reduced:  # every operation is rounded
        start, end = rounded(np.float64(start), d), rounded(np.float64(end), d)
        step = rounded(rounded(end - start, d) / np.float32(n - 1), d)
        up, down = rounded(up.astype(np.float64), d), rounded(down.astype(np.float64), d)
        made = np.where(low, start + rounded(step * up, d), end - rounded(step * down, d))
        return rounded(made, d)
    t = d.np.type
    step = (t(end) - t(start)) / t(n - 1)
    exact: Any = np.longdouble if d.itemsize == 8 else np.float64  # as if multiplied and added in one rounding
    rising = (exact(t(start)) + exact(step) * up.astype(exact)).astype(d.np)
    falling = (exact(t(end)) - exact(step) * down.astype(exact)).astype(d.np)
    return np.where(low, rising, falling)


def _logspace_meta(k: K, start: Any, end: Any, steps: int, base: Any = 10.0, dtype: Any = None, *rest: Any) -> Spec:
    if type(base) is complex:
        raise WrongType("logspace(): argument 'base' must be float, not complex", param="base")
    if type(base) is Spec and base.shape:
        raise ShapeMismatch("logspace() argument 'base' must be a number", param="base")
    if steps == 1 and not any(type(x) in (complex, Spec) for x in (start, end)):
        start = end = 0  # its power must fit, and that is seen when it is known
    return _linspace_meta(k, start, end, steps, dtype, name="logspace")


@op(
    family="factories",
    meta=_logspace_meta,
    vjp=None,
    samples=[S(0, 1, 5), S(-1.5, 2.5, 4, base=2.0), S(1, 1, 1), S(0, 1, 0), S(0, 3, 4, dtype="int64")],
)
def logspace(
    k: K,
    start: Array | Scalar,
    end: Array | Scalar,
    steps: int,
    base: Array | Scalar = 10.0,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """`steps` numbers from base^start to base^end, their exponents evenly spaced."""
    d = k.spec.dtype
    first, last, b = (x if type(x) in NUMBERS else k.backend.to_host(x).item() for x in (start, end, base))
    if type(b) is complex:  # of a tensor
        b = fitting(b, float64)
    if steps == 1 and d.category != COMPLEX:  # the start as it is given, whatever the dtype
        with np.errstate(all="ignore"):
            alone = fitting(float(np.power(float(b), float(fitting(first, float64)))), d, "start")
        return k.from_host(np.full(1, alone, d.compute.np))
    first, last = fitting(first, d), fitting(last, d)
    if d.category != INT:
        exponents = spaced(first, last, steps, d)
        return k.from_host(np.power(exponents.dtype.type(b), exponents))
    step = np.float32(last - first) / np.float32(steps - 1) if steps > 1 else np.float32(0)
    up = np.arange(steps)
    rising = first + step * up.astype(np.float32)
    falling = last - step * (steps - 1 - up).astype(np.float32)
    exponents = np.where(up < steps // 2, rising, falling) if steps > 1 else np.full(steps, first)
    return k.from_host(np.power(float(b), exponents.astype(np.float64)).astype(np.int64).astype(d.np))
