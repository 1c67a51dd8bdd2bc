"""Normalization by the statistics of each sample: layer_norm, rms_norm, group_norm, local_response_norm."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, Shape, composite, op
from engine.dtypes import FLOAT, float32, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.channels import _channel_affine  # noqa: F401  it registers itself
from engine.ops.common import not_implemented
from engine.ops.outer import add_outer, less_column, outer_product, times_column
from engine.ops.reductions import total
from engine.samples import C, S, T
from engine.shapes import text

# Work is done in blocks of about this many elements: 1 MiB of float32.
BLOCK_ELEMENTS = 1 << 18

# ---------------------------------------------------------------- checks


def mixed(input: Spec, **parameters: Spec | None) -> None:
    """Parameters have the input's dtype, or float32 beside a reduced input, as in PyTorch on the CPU."""
    given = [p for p in parameters.values() if p is not None]
    other = next((p for p in given if p.dtype is not float32), None)
    if all(p.dtype is input.dtype for p in given) or (input.dtype.reduced and other is None):
        return
    words = "all inputs must share same datatype." if other is None else "expect parameter to have scalar type of Float"
    words = f"mixed dtype (CPU): {words}"
    want = float32 if input.dtype.reduced else input.dtype
    name, found = next((n, p.dtype) for n, p in parameters.items() if p is not None and p.dtype is not input.dtype)
    if given[0].dtype is input.dtype:  # PyTorch finds the others later
        words = f"expected scalar type {scalar_type(input.dtype)} but found {scalar_type(found)}"
    raise DtypeMismatch(
        words,
        hint=Hint(
            "cast-one",
            Call("to", {"input": Param(name), "dtype": want.name}),
            a=input.dtype.name,
            b=found.name,
            param=name,
        ),
        param=name,
    )


def _check_layer(input: Spec, normalized: tuple[int, ...], weight: Spec | None, bias: Spec | None, star: str) -> None:
    if not normalized:
        raise ShapeMismatch(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got "
            "normalized_shape = []",
            param="normalized_shape",
        )
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None and p.shape != normalized:
            raise ShapeMismatch(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape {text(p.shape)} and "
                f"normalized_shape = {text(normalized)}",
                param=name,
            )
    if input.shape[len(input.shape) - len(normalized) :] != normalized or input.ndim < len(normalized):
        sizes = ", ".join(map(str, normalized))
        raise ShapeMismatch(
            f"Given normalized_shape={text(normalized)}, expected input with shape [*{star}{sizes}], but got input of "
            f"size{text(input.shape)}",
            param="normalized_shape",
        )


def _sizes(shape: Any) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def sum_squares(k: K, d: Array) -> Array:
    """The sum of squares of each row of a matrix, without a temporary of its size."""
    if k.backend.kind == "cpu":
        return k.xp.vecdot(d, d)
    return k.xp.einsum("ij,ij->i", d, d)


def row_blocks(k: K, x: Array) -> Iterator[slice]:
    """Blocks of the first dimension, so small that temporaries stay in the CPU's cache; all at once on a GPU."""
    rows = x.shape[0]
    step = max(BLOCK_ELEMENTS * rows // max(x.size, 1), 1) if k.backend.kind == "cpu" else max(rows, 1)
    return (slice(start, start + step) for start in range(0, rows, step))


def scratched(k: K, x: Array, count: int) -> Iterator[tuple[slice, list[Array]]]:
    """The blocks of `row_blocks` for a matrix, each with `count` temporaries of its size, whose memory is one."""
    rows = x.shape[0]
    memory: list[Array] = []
    for part in row_blocks(k, x):
        n = min(part.stop, rows) - part.start
        if not memory:
            memory = [k.xp.empty((n, *x.shape[1:]), x.dtype) for _ in range(count)]
        yield part, [m[:n] for m in memory]


def _whole(k: K, x: Array, weight: Array | None, bias: Array | None) -> tuple[Array, Array]:
    """Weight and bias for a compiled kernel, which takes no None: ones and zeros where they are missing."""
    xp, n = k.xp, x.shape[1]
    return (
        xp.ones(n, x.dtype) if weight is None else xp.ascontiguousarray(weight, x.dtype),
        xp.zeros(n, x.dtype) if bias is None else xp.ascontiguousarray(bias, x.dtype),
    )


# ---------------------------------------------------------------- layer_norm


def _layer_meta(k: K, input: Spec, normalized_shape: Any, weight: Spec | None, bias: Spec | None, eps: float) -> Any:
    normalized = _sizes(normalized_shape)
    _check_layer(input, normalized, weight, bias, ", ")
    mixed(input, weight=weight, bias=bias)
    if input.dtype.category != FLOAT:
        raise not_implemented("LayerNormKernelImpl", input.dtype)
    outer = input.ndim - len(normalized)
    kept = Spec((*input.shape[:outer], *(1,) * len(normalized)), weight.dtype if weight is not None else input.dtype)
    return input, kept, kept


@op(
    family="nn",
    node="NativeLayerNormBackward0",
    meta=_layer_meta,
    outputs=("result", "mean", "rstd"),
    save={"input": ("input", "weight", "mean", "rstd"), "weight": ("input", "mean", "rstd"), "bias": ()},
)
def _layer_norm(
    k: K, input: Array, normalized_shape: Shape, weight: Array | None, bias: Array | None, eps: float
) -> Array:
    """The result, the means and one over the standard deviations; all three have gradients."""
    xp = k.xp
    normalized = _sizes(normalized_shape)
    width = prod(normalized)
    stats = (*input.shape[: input.ndim - len(normalized)], *(1,) * len(normalized))
    x = input.reshape(prod(stats), width)
    if not x.size:
        return input.copy(), xp.zeros(stats, x.dtype), xp.full(stats, float("nan"), x.dtype)
    made, rstd = xp.empty(x.shape, x.dtype), xp.empty((x.shape[0], 1), x.dtype)
    w, b = (None if p is None else p.reshape(-1) for p in (weight, bias))
    if (run := k.backend.compiled("layer_norm", x)) is not None:
        mean = xp.empty(rstd.shape, x.dtype)
        run(x, *_whole(k, x, w, b), eps, made, mean.reshape(-1), rstd.reshape(-1))
        return made.reshape(input.shape), mean.reshape(stats), rstd.reshape(stats)
    mean = xp.true_divide(total(k, x, (1,), True), width)
    ones = xp.ones(max(x.shape), x.dtype)
    for part, (centred,) in scratched(k, x, 1):
        here, r, m = made[part], rstd[part, 0], mean[part, 0]
        found = _deviations(k, x[part], m, eps)
        if found is None:
            less_column(k, x[part], m, ones[:width], centred)
            r[...] = 1 / xp.sqrt(xp.true_divide(sum_squares(k, centred), width) + eps)
            _scaled_rows(k, centred, r, w, ones[:width], here)
        else:
            r[...] = found
            _scaled_rows(k, x[part], r, w, ones[:width], here)
            add_outer(k, here, m * r, ones[:width] if w is None else w, -1.0)
        if b is not None:
            add_outer(k, here, ones[: here.shape[0]], b)
    return made.reshape(input.shape), mean.reshape(stats), rstd.reshape(stats)


def _scaled_rows(k: K, x: Array, column: Array, row: Array | None, ones: Array, out: Array) -> None:
    """out = x * column * row, or x * column."""
    if row is None:
        times_column(k, x, column, ones, out)
    else:
        outer_product(k, column, row, out)
        out *= x


# Where a mean is no further from 0 than so many deviations, all is done without subtracting it first: that loses less
# than three bits of a result's last digits, and saves two passes forward and back.
_NEAR = 2.0
_MANY = 1 << 14  # elements from which passes are what costs


def _deviations(k: K, x: Array, mean: Array, eps: float) -> Array | None:
    """One over the deviations of rows from their sums of squares; None where digits would be lost, or little saved."""
    if k.backend.kind != "cpu" or x.size < _MANY:
        return None
    squares = mean * mean
    variance = k.xp.true_divide(sum_squares(k, x), x.shape[1]) - squares
    if not bool((squares <= _NEAR * _NEAR * variance).all()):
        return None
    found: Array = (1 / k.xp.sqrt(variance + eps)).astype(x.dtype, copy=False)
    return found


@_layer_norm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    axes = list(range(len(s.input.shape) - len(_sizes(s.normalized_shape)), len(s.input.shape)))
    outer = list(range(axes[0]))
    main, of_mean, of_rstd = g
    if not F.recording and of_mean is None and of_rstd is None and (need.input or need.weight):
        return tuple(
            F._layer_norm_back(
                main,
                *((s.input, s.mean, s.rstd) if need.input or need.weight else (main, main, main)),
                s.weight if need.input else None,
                len(outer),
                bool(need.input),
                bool(need.weight),
                bool(need.bias),
            )
        )
    # In terms of the input alone, so that it can be differentiated again.
    if not need.input and not need.weight:
        return None, None, None if main is None else _sum_over(F, main, outer)
    centred = s.input - F.mean(s.input, axes, True)
    variance = F.mean(centred * centred, axes, True)
    rstd = F.rsqrt(variance + s.eps)
    normal = centred * rstd
    mine = None
    if need.input:
        n = prod(s.input.shape[i] for i in axes)
        if main is not None:
            scaled = main if s.weight is None else main * s.weight
            mine = rstd * (scaled - F.mean(scaled, axes, True) - normal * F.mean(scaled * normal, axes, True))
        if of_mean is not None:
            part = F.expand(of_mean / n, s.input.shape)
            mine = part if mine is None else mine + part
        if of_rstd is not None:
            part = of_rstd * rstd * rstd * normal * (-1.0 / n)
            mine = part if mine is None else mine + part
    return (
        mine,
        need.weight and main is not None and _sum_over(F, main * normal, outer),
        need.bias and main is not None and _sum_over(F, main, outer),
    )


def _sum_over(F: Any, x: Any, axes: list[int]) -> Any:
    return F.sum(x, axes) if axes else x


def _layer_back_meta(
    k: K,
    grad: Spec,
    input: Spec,
    mean: Spec,
    rstd: Spec,
    weight: Spec | None,
    outer: int,
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
) -> Any:
    part = Spec(grad.shape[outer:], grad.dtype)
    return grad if need_input else None, part if need_weight else None, part if need_bias else None


@op(family="nn", meta=_layer_back_meta, vjp=None, outputs=("of_input", "of_weight", "of_bias"))
def _layer_norm_back(
    k: K,
    grad: Array,
    input: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    outer: Any,
    need_input: Any,
    need_weight: Any,
    need_bias: Any,
) -> Array:
    """The first-order gradient of layer_norm, fused; the rule of native_layer_norm has the formula."""
    xp = k.xp
    shape = grad.shape
    g = grad.reshape(prod(shape[:outer]), prod(shape[outer:]))
    width = g.shape[1]
    if need_input and (run := k.backend.compiled("layer_norm_back", g, input)) is not None:
        w, zeros = _whole(k, g, None if weight is None else weight.reshape(-1), None)
        of_x, of_w, of_b = xp.empty(shape, g.dtype), zeros, zeros.copy()
        stats = [xp.ascontiguousarray(p, g.dtype).reshape(-1) for p in (mean, rstd)]
        run(g, input.reshape(g.shape), w, *stats, of_x.reshape(g.shape), of_w, of_b)
        tail = shape[outer:]
        return (
            of_x,
            of_w.reshape(tail) if need_weight else None,
            of_b.reshape(tail) if need_bias else None,
        )
    if not need_input and not need_weight:
        return None, None, total(k, xp.ascontiguousarray(g), (0,)).reshape(shape[outer:]) if need_bias else None
    x = xp.ascontiguousarray(input.reshape(g.shape))
    mean, rstd = mean.reshape(-1, 1).astype(g.dtype, copy=False), rstd.reshape(-1, 1).astype(g.dtype, copy=False)
    ones = xp.ones(width, g.dtype)
    w = ones if weight is None else weight.reshape(-1).astype(g.dtype, copy=False)
    of_input = xp.empty(shape, g.dtype) if need_input else None  # not a view: that would be copied
    made = None if of_input is None else of_input.reshape(g.shape)
    of_weight = xp.zeros(width, g.dtype) if need_weight else None
    of_bias = xp.zeros(width, g.dtype) if need_bias else None
    near = k.backend.kind == "cpu" and g.size >= _MANY and bool((xp.abs(mean) * rstd <= _NEAR).all())
    for part, scratch in scratched(k, g, 1 if near else 2):
        # Sums along and across rows are products with vectors, which is the fastest way to add up.
        grad, r, m, both = g[part], rstd[part, 0], mean[part, 0], scratch[0]
        if near:  # x for x - mean, and what that is too much taken off the sums
            centred = x[part]
        else:
            centred = scratch[1]
            less_column(k, x[part], m, ones, centred)
        xp.multiply(grad, centred, out=both)
        if of_weight is not None:
            of_weight += r @ both
            if near:
                of_weight -= (r * m) @ grad
        if of_bias is not None:
            of_bias += xp.ones(len(grad), g.dtype) @ grad
        if made is not None:
            first, second = grad @ w, both @ w
            if near:
                second -= m * first
            second = xp.true_divide(second, max(width, 1)) * (r * r * r)
            first = xp.true_divide(first, max(width, 1)) * r
            here = made[part]
            _scaled_rows(k, grad, r, None if weight is None else w, ones, here)
            times_column(k, centred, second, ones, both)
            here -= both
            add_outer(k, here, first - second * m if near else first, ones, -1.0)
    return (
        of_input,
        None if of_weight is None else of_weight.reshape(shape[outer:]),
        None if of_bias is None else of_bias.reshape(shape[outer:]),
    )


_LAYER = [
    S(T(2, 3), [3], T(3), T(3), 1e-5),
    S(T(2, 3), [2, 3], None, None, 1e-5),
    S(T(2, 2, 3), [3], T(3), None, 1e-3),
    S(T(0, 3), [3], T(3), T(3), 1e-5),
]


@composite(family="nn", moves=True, samples=_LAYER, returns="list of Tensors")
def native_layer_norm(
    F: Any, input: Array, normalized_shape: Shape, weight: Array | None, bias: Array | None, eps: float
) -> Array:
    """layer_norm with its statistics: (the result, the means, one over the standard deviations)."""
    made, mean, rstd = F._layer_norm(input, normalized_shape, weight, bias, eps)
    return [made, F.detach(mean), F.detach(rstd)]


@composite(
    family="nn",
    name="nn.functional.layer_norm",
    moves=True,
    samples=[S(T(2, 3), [3], T(3), T(3)), S(T(2, 3), [2, 3]), S(T(2, 2, 3), [3], T(3), eps=1e-3)],
)
def layer_norm(
    F: Any,
    input: Array,
    normalized_shape: Shape,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """(x - mean) / sqrt(var + eps) * weight + bias, over the last dimensions, whose sizes are `normalized_shape`."""
    return F._layer_norm(input, normalized_shape, weight, bias, eps)[0]


@composite(family="nn", name="layer_norm", moves=True, samples=[S(T(2, 3), [3], T(3), T(3)), S(T(2, 3), [2, 3])])
def torch_layer_norm(
    F: Any,
    input: Array,
    normalized_shape: Shape,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Array:
    """(x - mean) / sqrt(var + eps) * weight + bias, over the last dimensions, whose sizes are `normalized_shape`."""
    return F._layer_norm(input, normalized_shape, weight, bias, eps)[0]


# ---------------------------------------------------------------- rms_norm


def _rms_meta(k: K, input: Spec, normalized_shape: Any, weight: Spec | None, eps: float) -> Any:
    outer = input.ndim - len(_sizes(normalized_shape))
    stats = Spec((*input.shape[:outer], *(1,) * (input.ndim - outer)), input.dtype.compute)
    return input, stats


@op(
    family="nn",
    node="MulBackward0",
    meta=_rms_meta,
    outputs=("result", "rstd"),
    nondiff=("rstd",),
    save={"input": ("input", "weight", "rstd"), "weight": ("input", "rstd")},
)
def _rms_norm(k: K, input: Array, normalized_shape: Any, weight: Array | None, eps: Any) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight, and one over the square root."""
    xp = k.xp
    stats = k.spec[1].shape
    width = prod(_sizes(normalized_shape))
    x = input.reshape(prod(stats), width)
    rstd = (1 / xp.sqrt(xp.true_divide(sum_squares(k, x), max(width, 1)) + eps)).reshape(-1, 1).astype(x.dtype)
    made = xp.multiply(x, rstd)
    if weight is not None:
        made *= weight.reshape(-1)
    return made.reshape(input.shape), rstd.reshape(stats)


@_rms_norm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    shape = s.input.shape
    outer = len(shape) - len(_sizes(s.normalized_shape))
    if not F.recording:
        weight = s.weight if need.input else None
        return tuple(F._rms_norm_back(g[0], s.input, s.rstd, weight, outer, bool(need.input), bool(need.weight)))
    # In terms of the input alone, so that it can be differentiated again.
    axes, lead = list(range(outer, len(shape))), list(range(outer))
    rstd = F.rsqrt(F.mean(s.input * s.input, axes, True) + s.eps)
    normal = s.input * rstd
    mine = None
    if need.input:
        scaled = g[0] if s.weight is None else g[0] * s.weight
        mine = rstd * (scaled - normal * F.mean(scaled * normal, axes, True))
    return mine, need.weight and _sum_over(F, g[0] * normal, lead)


def _rms_back_meta(
    k: K, grad: Spec, input: Spec, rstd: Spec, weight: Spec | None, outer: int, need_input: bool, need_weight: bool
) -> Any:
    return grad if need_input else None, Spec(grad.shape[outer:], grad.dtype) if need_weight else None


@op(family="nn", meta=_rms_back_meta, vjp=None, outputs=("of_input", "of_weight"))
def _rms_norm_back(
    k: K,
    grad: Array,
    input: Array,
    rstd: Array,
    weight: Array | None,
    outer: Any,
    need_input: Any,
    need_weight: Any,
) -> Array:
    """The first-order gradient of rms_norm, fused; the rule of _rms_norm has the formula."""
    xp = k.xp
    shape = grad.shape
    g = grad.reshape(prod(shape[:outer]), prod(shape[outer:]))
    x, rstd = input.reshape(g.shape), rstd.reshape(-1, 1)
    normal = xp.multiply(x, rstd)
    of_weight = xp.einsum("ij,ij->j", g, normal).reshape(shape[outer:]) if need_weight else None
    if not need_input:
        return None, of_weight
    made = g.copy() if weight is None else g * weight.reshape(-1)
    normal *= xp.true_divide(xp.einsum("ij,ij->i", made, normal), max(g.shape[1], 1))[:, None]
    made -= normal
    made *= rstd
    return made.reshape(shape), of_weight


@composite(
    family="nn",
    name="nn.functional.rms_norm",
    alias=("rms_norm",),
    moves=True,
    samples=[S(T(2, 3), [3], T(3)), S(T(2, 3), [2, 3], eps=1e-3), S(C(2, 3), [3])],
)
def rms_norm(
    F: Any, input: Array, normalized_shape: Shape, weight: Array | None = None, eps: float | None = None
) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimensions; `eps` defaults to the dtype's epsilon."""
    shape, d = F.shape(input), F.dtype(input)
    normalized = _sizes(normalized_shape)
    parameter = None if weight is None else Spec(F.shape(weight), F.dtype(weight))
    _check_layer(Spec(shape, d), normalized, parameter, None, "")
    if d.category < FLOAT:
        raise not_implemented("rms_norm", d)
    if eps is None:
        eps = 2.220446049250313e-16 if d.name in ("float64", "complex128") else 1.1920928955078125e-07
    own = parameter is None or parameter.dtype is d or (d.reduced and not parameter.dtype.is_complex)
    if d.category == FLOAT and own:
        return F._rms_norm(input, normalized, weight, eps)[0]
    axes = list(range(len(shape) - len(normalized), len(shape)))
    made = F.mul(input, F.rsqrt(F.add(F.mean(F.mul(input, input), axes, True), eps)))
    if weight is not None:
        made = F.mul(made, weight)
    return made if F.dtype(made) is d else F._to_dtype(made, d)


# ---------------------------------------------------------------- group_norm


def _check_group(shape: tuple[int, ...], num_groups: int, weight: Any, bias: Any, F: Any) -> None:
    if len(shape) < 2:
        raise ShapeMismatch(f"Expected at least 2 dimensions for input tensor but received {len(shape)}", param="input")
    channels = shape[1]
    if num_groups <= 0:
        raise Invalid(f"Expected num groups to be greater than 0, got {num_groups}", param="num_groups")
    if channels % num_groups:
        raise ShapeMismatch(
            "Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{text(shape)} and num_groups={num_groups}",
            param="num_groups",
        )
    for name, p in (("weight", weight), ("bias", bias)):
        if p is not None and F.shape(p) != (channels,):
            raise ShapeMismatch(
                f"Expected {name} to be a vector of size equal to the number of channels in input, but got {name} of "
                f"shape {text(F.shape(p))} and input of shape {text(shape)}",
                param=name,
            )


def _more_than_one(sizes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if prod(sizes) == 1:
        raise Invalid(
            f"Expected more than 1 value per channel when training, got input size {text(shape)}",
            code="too-few-values",
            param="input",
        )


def _grouped(F: Any, input: Any, num_groups: int, weight: Any, bias: Any, eps: float) -> Any:
    """(the result, means, one over standard deviations); the statistics have shape (N, groups)."""
    shape, d = F.shape(input), F.dtype(input)
    given = [None if x is None else Spec(F.shape(x), F.dtype(x)) for x in (weight, bias)]
    mixed(Spec(shape, d), weight=given[0], bias=given[1])
    if d.category != FLOAT:
        raise not_implemented("GroupNormKernelImpl", d)
    if d.reduced:  # computed in float32 and rounded once
        x, w, b = [x if x is None else F.to(x, "float32") for x in (input, weight, bias)]
        made, *stats = _grouped(F, x, num_groups, w, b, eps)
        kept = d if weight is None else F.dtype(weight)
        return (F.to(made, d.name), *(F.to(s, kept.name) for s in stats))
    inner = prod(shape[1:]) // num_groups
    lines = F.reshape(input, (shape[0] * num_groups, inner))
    made, mean, rstd = F._layer_norm(lines, [inner], None, None, eps)
    made = F.reshape(made, shape)
    if weight is not None or bias is not None:
        made = F._channel_affine(made, weight, bias)
    return made, F.reshape(mean, (shape[0], num_groups)), F.reshape(rstd, (shape[0], num_groups))


_GROUP = [S(T(2, 4, 3), 2, T(4), T(4)), S(T(2, 4), 2), S(T(2, 4, 2, 2), 1, T(4), eps=1e-3)]


@composite(family="nn", name="nn.functional.group_norm", node="NativeGroupNormBackward0", samples=_GROUP)
def group_norm(
    F: Any, input: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Array:
    """Channels in groups, each normalized by its own mean and variance; weight and bias per channel."""
    shape = F.shape(input)
    if len(shape) >= 2:
        samples = shape[0] * shape[1] // num_groups if num_groups else 0
        _more_than_one((samples, *shape[2:]), (samples, num_groups, *shape[2:]))
    _check_group(shape, num_groups, weight, bias, F)
    return _grouped(F, input, num_groups, weight, bias, eps)[0]


@composite(family="nn", name="group_norm", node="NativeGroupNormBackward0", samples=_GROUP)
def torch_group_norm(
    F: Any,
    input: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Array:
    """Channels in groups, each normalized by its own mean and variance; weight and bias per channel."""
    _check_group(F.shape(input), num_groups, weight, bias, F)
    return _grouped(F, input, num_groups, weight, bias, eps)[0]


@composite(family="nn", samples=[S(T(2, 4, 3), T(4), T(4), 2, 4, 3, 2, 1e-5)], returns="list of Tensors")
def native_group_norm(
    F: Any,
    input: Array,
    weight: Array | None,
    bias: Array | None,
    N: int,
    C: int,
    HxW: int,
    group: int,
    eps: float,
) -> Array:
    """group_norm with its statistics: (the result, the means, one over the standard deviations)."""
    shape = F.shape(input)
    if prod(shape) != N * C * HxW:
        raise ShapeMismatch(f"Expected the input to have N * C * HxW elements, but got shape {text(shape)}", param="N")
    _check_group(shape, group, weight, bias, F)
    return list(_grouped(F, input, group, weight, bias, eps))


# ---------------------------------------------------------------- local_response_norm


@composite(
    family="nn",
    name="nn.functional.local_response_norm",
    node="DivBackward0",
    samples=[S(T(2, 4, 3), 2), S(T(1, 5, 2, 2), 3, alpha=0.5, beta=0.5, k=2.0)],
)
def local_response_norm(
    F: Any, input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """x / (k + alpha * mean(x^2))^beta, the mean over `size` neighbouring channels, with zeros beyond the borders."""
    shape = F.shape(input)
    if len(shape) < 3:
        raise ShapeMismatch(
            f"Expected 3D or higher dimensionality                          input (got {len(shape)} dimensions)",
            param="input",
        )
    if 0 in shape:
        return F.clone(input)
    channels = shape[1]
    widest = 2 * channels + 1  # a window of that many channels holds all there are, wherever it lies
    if size > widest + 1:
        alpha, size = alpha * widest / size, widest
    padding = (size // 2, (size - 1) // 2)
    squares = F.reshape(F.mul(input, input), (shape[0], 1, channels, shape[2], prod(shape[3:])))
    if len(shape) == 3:  # the pools that PyTorch takes, with their dtypes
        around = F.avg_pool2d(F.pad(F.squeeze(squares, -1), (0, 0, *padding)), (size, 1), 1)
    else:
        around = F.avg_pool3d(F.pad(squares, (0, 0, 0, 0, *padding)), (size, 1, 1), 1)
    return F.div(input, F.pow(F.add(F.mul(F.reshape(around, shape), alpha), k), beta))
