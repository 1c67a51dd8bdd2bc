"""Softmax and what is computed like it: subtract the maximum, exponentiate, divide by the sum."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, Dims, DTypeArg, composite, op
from engine.dtypes import FLOAT
from engine.metas import as_dtype, reduce
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.outer import less_column
from engine.ops.reductions import SHORT_LINE, kept, largest, spread, total
from engine.samples import C, I, S, T
from engine.shapes import wrap_dim, wrap_dims

_SAMPLES = [
    S(T(2, 3), 1),
    S(T(2, 3), 0),
    S(T(), 0),
    S(T(0, 3), 1),
    S(T(2, 3, 2), -2),
    S(T(2, 0), 1),
    S(I(2, 3), 1, dtype="float32"),
    S(T(2, 3), 1, dtype="float64"),
]


def _types(name: str) -> Any:
    def types(k: K, input: Spec, dim: Any, dtype: Any = None) -> Any:
        d = as_dtype(dtype) or input.dtype
        if d.category != FLOAT and input.numel:
            last = wrap_dim(dim, input.ndim) >= input.ndim - 1
            raise not_implemented(f"{name}_lastdim_kernel_impl" if last else f"{name}_kernel_impl", d)
        return d, d

    return types


def _meta(k: K, input: Spec, dim: int, dtype: Any = None) -> Spec:
    wrap_dim(dim, input.ndim)
    return Spec(input.shape, k.dtype)


def turned_lines(k: K, x: Array, axis: int) -> tuple[Array, int, bool]:
    """(x or its transpose, the axis to work along, whether it was transposed): short lines are slow on the CPU."""
    if k.backend.kind == "cpu" and axis == x.ndim - 1 and 0 < x.shape[axis] <= SHORT_LINE and x.size > 256:
        return k.xp.ascontiguousarray(x.reshape(-1, x.shape[axis]).T), 0, True
    return x, axis, False


def compiled_rows(k: K, name: str, axis: int, *arrays: Array) -> Any:
    """The compiled kernel of this name where it is there and `axis` is the last, and the arrays as matrices."""
    first = arrays[0]
    if axis != first.ndim - 1 or (run := k.backend.compiled(name, *arrays)) is None:
        return None, arrays
    return run, [a.reshape(-1, first.shape[-1]) for a in arrays]


# From here on a pass that looks for the largest and smallest elements costs less than one that subtracts.
_LARGE = 1 << 14
_MODEST = 60.0  # exp of numbers up to this size, and sums of 2^40 of them, are normal numbers of float32


def _modest(k: K, x: Array) -> bool:
    """Whether exp(x) and its sums neither overflow nor lose digits, so that nothing has to be subtracted first."""
    if k.backend.kind != "cpu" or x.size < _LARGE or x.dtype.kind != "f":
        return False
    return bool(x.max() < _MODEST) and bool(x.min() > -_MODEST)  # neither with a NaN


def probabilities(k: K, x: Array, axis: int) -> tuple[Array, Array, Array]:
    """(softmax in new memory, the sum of exp(x - max), max), the last two with the axis kept."""
    run, (rows, *_) = compiled_rows(k, "softmax", axis, x)
    if run is not None:
        made, kept = k.xp.empty_like(x), (*x.shape[:-1], 1)
        top, s = k.xp.empty(kept, x.dtype), k.xp.empty(kept, x.dtype)
        run(rows, made.reshape(rows.shape), top.reshape(-1), s.reshape(-1))
        return made, s, top
    top = largest(k, x, axis, True)
    e = k.xp.subtract(x, top)
    k.xp.exp(e, out=e)
    s = total(k, e, (axis,), True)
    e *= k.xp.reciprocal(s)
    return e, s, top


@op(
    family="nn",
    meta=_meta,
    promote=_types("softmax"),
    over=("input",),
    row_major=True,
    alias=("special.softmax",),
    save={"input": ("result",)},
    samples=_SAMPLES,
)
def softmax(k: K, input: Array, dim: Dim, dtype: DTypeArg | None = None) -> Array:
    """exp(x) / sum(exp(x)) along `dim`, without overflow; `dtype` casts first."""
    if input.ndim == 0:
        return input - input + 1
    if input.size == 0:
        return input.copy()
    x, axis, turned = turned_lines(k, input, wrap_dim(dim, input.ndim))
    if compiled_rows(k, "softmax", axis, x)[0] is None and _modest(k, x):
        made = k.xp.exp(x)
        made /= total(k, made, (axis,), True)
    else:
        made = probabilities(k, x, axis)[0]
    return made.T.reshape(input.shape) if turned else made


@softmax.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._softmax_back(g, saved.result, saved.dim)


def _back_meta(k: K, grad: Spec, y: Spec, dim: Any) -> Spec:
    return grad


@op(
    family="nn",
    meta=_back_meta,
    node="SoftmaxBackwardDataBackward0",
    save={"grad": ("y",), "y": ("grad", "y")},
)
def _softmax_back(k: K, grad: Array, y: Array, dim: Any) -> Array:
    """(g - sum(g * y)) * y along `dim`."""
    if grad.ndim == 0:
        return (grad - grad * y) * y
    y, axis, turned = turned_lines(k, y, wrap_dim(dim, y.ndim))
    if not turned:
        run, (rows, p) = compiled_rows(k, "softmax_back", axis, grad, y)
        if run is not None:
            made = k.xp.empty_like(y)
            run(rows, p, made.reshape(p.shape))
            return made
    g = k.xp.ascontiguousarray(grad.reshape(-1, grad.shape[-1]).T) if turned else grad
    if y.size and axis == y.ndim - 1 and k.backend.kind == "cpu" and g.flags.c_contiguous and y.flags.c_contiguous:
        made, n = k.xp.empty_like(y), y.shape[-1]
        rows = g.reshape(-1, n)
        less_column(k, rows, k.xp.vecdot(rows, y.reshape(-1, n)), k.xp.ones(n, y.dtype), made.reshape(-1, n))
    else:
        made = k.xp.multiply(g, y)
        inner = total(k, made, (axis,), True)
        k.xp.subtract(g, inner, out=made)
    made *= y
    return made.T.reshape(grad.shape) if turned else made


@_softmax_back.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    y, dim = saved.y, saved.dim
    theirs = None
    if need.y:
        first = saved.grad
        theirs = g * (first - F.sum(first * y, dim, True)) - first * F.sum(g * y, dim, True)
    return need.grad and F._softmax_back(g, y, dim), theirs


@op(
    family="nn",
    meta=_meta,
    promote=_types("log_softmax"),
    over=("input",),
    row_major=True,
    alias=("special.log_softmax",),
    save={"input": ("result",)},
    samples=_SAMPLES,
)
def log_softmax(k: K, input: Array, dim: Dim, dtype: DTypeArg | None = None) -> Array:
    """log(softmax(x)) along `dim`, without overflow and without loss; `dtype` casts first."""
    if input.ndim == 0:
        return input - input
    if input.size == 0:
        return input.copy()
    x, axis, turned = turned_lines(k, input, wrap_dim(dim, input.ndim))
    xp = k.xp
    run, (rows, *_) = compiled_rows(k, "log_softmax", axis, x)
    if run is not None:
        made = xp.empty_like(x)
        run(rows, made.reshape(rows.shape))
        return made
    made = xp.subtract(x, largest(k, x, axis, True))
    made -= xp.log(total(k, xp.exp(made), (axis,), True))
    return made.T.reshape(input.shape) if turned else made


@log_softmax.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._log_softmax_back(g, saved.result, saved.dim)


@op(
    family="nn",
    meta=_back_meta,
    node="LogSoftmaxBackwardDataBackward0",
    save={"grad": ("y",), "y": ("grad", "y")},
)
def _log_softmax_back(k: K, grad: Array, y: Array, dim: Any) -> Array:
    """g - exp(y) * sum(g) along `dim`."""
    if grad.ndim == 0:
        return grad - k.xp.exp(y) * grad
    axis = wrap_dim(dim, grad.ndim)
    run, (rows, p) = compiled_rows(k, "log_softmax_back", axis, grad, y)
    if run is not None:
        made = k.xp.empty_like(y)
        run(rows, p, made.reshape(p.shape))
        return made
    made = k.xp.exp(y)
    made *= total(k, grad, (axis,), True)
    return k.xp.subtract(grad, made, out=made)


@_log_softmax_back.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    dim, p = saved.dim, F.exp(saved.y)
    mine = None
    if need.grad:
        mine = g - F.sum(g * p, dim, True)
    return mine, need.y and -g * p * F.sum(saved.grad, dim, True)


# ---------------------------------------------------------------- nn.functional


def _implicit(F: Any, input: Any, dim: int | None) -> int:
    """The dim that nn.functional takes where none is given; PyTorch calls leaving it out deprecated."""
    if dim is not None:
        return dim
    return 0 if len(F.shape(input)) in (0, 1, 3) else 1


@composite(
    family="nn", name="nn.functional.softmax", moves=True, samples=[S(T(2, 3), 1), S(T(2, 3), 1, dtype="float64")]
)
def functional_softmax(
    F: Any, input: Array, dim: Dim | None = None, _stacklevel: int = 3, dtype: DTypeArg | None = None
) -> Array:
    """exp(x) / sum(exp(x)) along `dim`, without overflow; `dtype` casts first."""
    return F.softmax(input, _implicit(F, input, dim), dtype)


@composite(
    family="nn", name="nn.functional.log_softmax", moves=True, samples=[S(T(2, 3), 1), S(T(2, 3), 1, dtype="float64")]
)
def functional_log_softmax(
    F: Any, input: Array, dim: Dim | None = None, _stacklevel: int = 3, dtype: DTypeArg | None = None
) -> Array:
    """log(softmax(x)) along `dim`, without overflow and without loss; `dtype` casts first."""
    return F.log_softmax(input, _implicit(F, input, dim), dtype)


@composite(
    family="nn", name="nn.functional.softmin", moves=True, samples=[S(T(2, 3), 1), S(T(2, 3), 1, dtype="float64")]
)
def softmin(F: Any, input: Array, dim: Dim | None = None, _stacklevel: int = 3, dtype: DTypeArg | None = None) -> Array:
    """softmax(-x) along `dim`."""
    return F.softmax(F.neg(input), _implicit(F, input, dim), dtype)


# ---------------------------------------------------------------- logsumexp


def _float(k: K, input: Spec, dim: Any, keepdim: bool = False) -> Any:
    d = input.dtype if input.dtype.category >= FLOAT else k.default_dtype
    return d, d


@op(
    family="reductions",
    meta=reduce,
    promote=_float,
    over=("input",),
    alias=("special.logsumexp",),
    save={"input": ("input", "result")},
    samples=[
        S(T(2, 3), 1),
        S(T(2, 3), [0, 1]),
        S(T(2, 3), 0, True),
        S(T(), 0),
        S(T(0, 3), 0),
        S(C(2, 3), 1),
        S(I(2, 3), 1),
    ],
)
def logsumexp(k: K, input: Array, dim: Dims, keepdim: bool = False) -> Array:
    """log(sum(exp(x))) along `dim`, without overflow; of nothing it is -inf."""
    xp = k.xp
    axes = wrap_dims(dim, input.ndim)
    if input.ndim == 0:
        input, axes = input.reshape(1), (0,)
    if input.size == 0:
        return xp.log(input.sum(axis=axes, keepdims=keepdim))
    if len(axes) == 1:
        run, (rows, *_) = compiled_rows(k, "logsumexp", axes[0], input)
        if run is not None:
            made = xp.empty(k.spec.shape, input.dtype)
            run(rows, made.reshape(-1))
            return made
    if _modest(k, input):
        return xp.log(total(k, xp.exp(input), axes, True)).reshape(k.spec.shape)
    real = input.real if input.dtype.kind == "c" else input
    top = largest(k, real, axes[0], True) if len(axes) == 1 else real.max(axis=axes, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros((), top.dtype))
    e = xp.subtract(input, top)
    made = xp.log(total(k, xp.exp(e, out=e), axes, True))
    made += top
    return made.reshape(k.spec.shape)


@logsumexp.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x = saved.input
    shape = F.shape(x)
    result = kept(F, saved.result, shape, saved.dim, saved.keepdim)
    return spread(F, g, shape, saved.dim, saved.keepdim) * F.conj(F.exp(x - result))
