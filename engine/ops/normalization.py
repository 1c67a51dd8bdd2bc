"""Normalization: by the statistics of layers, groups, batches and instances, or by a norm."""

from __future__ import annotations

from math import prod
from typing import Any

from engine.carriers import K
from engine.context import grad_mode
from engine.declare import Array, Shape, composite, op
from engine.dtypes import FLOAT, float32, float64, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.losses import torch_size
from engine.ops.reductions import total
from engine.samples import C, S, T
from engine.shapes import text

# ---------------------------------------------------------------- checks


def mixed(input: Spec, *parameters: Spec | None) -> None:
    """Parameters have the input's dtype, or float32 beside a reduced input, as in PyTorch on the CPU."""
    for p in parameters:
        if p is not None and p.dtype is not input.dtype and not (input.dtype.reduced and p.dtype is float32):
            want = float32 if input.dtype.reduced or p.dtype.reduced else input.dtype
            raise DtypeMismatch(
                f"mixed dtype (CPU): expect parameter to have scalar type of {scalar_type(want)}",
                hint=Hint(
                    "cast-one",
                    Call("to", {"input": Param("weight"), "dtype": want.name}),
                    a=input.dtype.name,
                    b=p.dtype.name,
                    param="weight",
                ),
                param="weight",
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
    return k.xp.einsum("ij,ij->i", d, d)


# ---------------------------------------------------------------- layer_norm


def _layer_meta(k: K, input: Spec, normalized_shape: Any, weight: Spec | None, bias: Spec | None, eps: float) -> Any:
    normalized = _sizes(normalized_shape)
    _check_layer(input, normalized, weight, bias, ", ")
    if input.dtype.category != FLOAT:
        raise not_implemented("LayerNormKernelImpl", input.dtype)
    mixed(input, weight, bias)
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
    mean = xp.true_divide(total(k, x, (1,), True), width)
    made = xp.subtract(x, mean)
    rstd = (1 / xp.sqrt(xp.true_divide(sum_squares(k, made), width) + eps)).reshape(-1, 1).astype(x.dtype)
    made *= rstd
    if weight is not None:
        made *= weight.reshape(-1)
    if bias is not None:
        made += bias.reshape(-1)
    return made.reshape(input.shape), mean.reshape(stats), rstd.reshape(stats)


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


@op(family="nn", meta=_layer_back_meta, vjp=None, outputs=("input", "weight", "bias"))
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
    of_bias = total(k, xp.ascontiguousarray(g), (0,)).reshape(shape[outer:]) if need_bias else None
    if not need_input and not need_weight:
        return None, None, of_bias
    mean, rstd = mean.reshape(-1, 1), rstd.reshape(-1, 1)
    normal = xp.subtract(input.reshape(g.shape), mean)
    normal *= rstd
    of_weight = xp.einsum("ij,ij->j", g, normal).reshape(shape[outer:]) if need_weight else None
    if not need_input:
        return None, of_weight, of_bias
    made = g * weight.reshape(-1) if weight is not None else g.copy()
    width = max(g.shape[1], 1)
    inner = xp.true_divide(xp.einsum("ij,ij->i", made, normal), width)[:, None]
    made -= xp.true_divide(total(k, made, (1,), True), width)
    normal *= inner
    made -= normal
    made *= rstd
    return made.reshape(shape), of_weight, of_bias


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


@composite(
    family="nn",
    name="nn.functional.rms_norm",
    alias=("rms_norm",),
    node="MulBackward0",
    samples=[S(T(2, 3), [3], T(3)), S(T(2, 3), [2, 3], eps=1e-3), S(C(2, 3), [3])],
)
def rms_norm(
    F: Any, input: Array, normalized_shape: Shape, weight: Array | None = None, eps: float | None = None
) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimensions; `eps` defaults to the dtype's epsilon."""
    shape, d = F.shape(input), F.dtype(input)
    normalized = _sizes(normalized_shape)
    _check_layer(
        Spec(shape, d), normalized, None if weight is None else Spec(F.shape(weight), F.dtype(weight)), None, ""
    )
    if d.category < FLOAT:
        raise not_implemented("rms_norm", d)
    if eps is None:
        eps = 2.220446049250313e-16 if d is float64 or d.name == "complex128" else 1.1920928955078125e-07
    axes = list(range(len(shape) - len(normalized), len(shape)))
    squares = F.mul(input, input)
    made = F.mul(input, F.rsqrt(F.add(F.mean(squares, axes, True), eps)))
    if weight is None:
        return made
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
    if d.category != FLOAT:
        raise not_implemented("GroupNormKernelImpl", d)
    inner = prod(shape[1:]) // num_groups
    lines = F.reshape(input, (shape[0] * num_groups, inner))
    made, mean, rstd = F._layer_norm(lines, [inner], None, None, eps)
    made = F.reshape(made, shape)
    wide = (shape[1],) + (1,) * (len(shape) - 2)
    if weight is not None:
        made = F.mul(made, F.reshape(weight, wide))
    if bias is not None:
        made = F.add(made, F.reshape(bias, wide))
    return made, F.reshape(mean, (shape[0], num_groups)), F.reshape(rstd, (shape[0], num_groups))


_GROUP = [S(T(2, 4, 3), 2, T(4), T(4)), S(T(2, 4), 2), S(T(2, 4, 2, 2), 1, T(4), eps=1e-3)]


@composite(family="nn", name="nn.functional.group_norm", node="NativeGroupNormBackward0", samples=_GROUP)
def group_norm(
    F: Any, input: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Array:
    """Channels in groups, each normalized by its own mean and variance; weight and bias per channel."""
    shape = F.shape(input)
    if len(shape) >= 2:
        _more_than_one((shape[0] * shape[1] // num_groups if num_groups else 0, *shape[2:]), shape)
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
    _check_group(F.shape(input), group, weight, bias, F)
    return list(_grouped(F, input, group, weight, bias, eps))


# ---------------------------------------------------------------- batch_norm


def _channels(x: Array) -> tuple[int, ...]:
    """The axes that batch statistics are taken over: all but the channels'."""
    return (0, *range(2, x.ndim))


def _per_channel(p: Array, ndim: int) -> Array:
    return p.reshape((-1,) + (1,) * (ndim - 2))


def _check_batch(input: Spec, training: bool, **parameters: Spec | None) -> None:
    mean, var = parameters["running_mean"], parameters["running_var"]
    if (mean is None) != (var is None) and training:
        raise Invalid("running_mean and running_var must either both be None or neither be None", param="running_var")
    channels = input.shape[1] if input.ndim > 1 else 0
    for name, p in parameters.items():
        if p is None:
            if not training and name.startswith("running"):
                raise Invalid(f"{name} must be defined in evaluation mode", param=name)
        elif p.numel != channels:
            raise ShapeMismatch(f"{name} should contain {channels} elements not {p.numel}", param=name)
    if input.dtype.category != FLOAT:
        raise not_implemented("batch_norm", input.dtype)
    mixed(input, *parameters.values())


def _batch_meta(
    k: K, input: Spec, weight: Spec | None, bias: Spec | None, mean: Spec | None, var: Spec | None, eps: float
) -> Any:
    stats = Spec((input.shape[1] if input.ndim > 1 else 0,), input.dtype.compute)
    return input, stats, stats


_BATCH_SAVE = ("input", "weight", "mean", "var", "save_mean", "save_rstd")


@op(
    family="nn",
    node="NativeBatchNormBackward0",
    meta=_batch_meta,
    outputs=("result", "save_mean", "save_rstd"),
    nondiff=("save_mean", "save_rstd"),
    save={
        "input": _BATCH_SAVE,
        "weight": ("input", "mean", "var", "save_mean", "save_rstd"),
        "bias": (),
        "mean": _BATCH_SAVE,
        "var": _BATCH_SAVE,
    },
)
def _batch_norm(
    k: K, input: Array, weight: Array | None, bias: Array | None, mean: Array | None, var: Array | None, eps: Any
) -> Array:
    """batch_norm by the batch's own statistics, or by `mean` and `var`; (result, mean, one over the deviation)."""
    xp = k.xp
    x = input
    if not x.size:
        empty = xp.full(k.spec[1].shape, float("nan"), x.dtype)
        return x.copy(), empty, empty
    made = None
    if mean is None:
        n = x.size // x.shape[1] if x.shape[1] else 0
        mean = xp.true_divide(total(k, x, _channels(x)) if x.ndim == 2 else x.sum(axis=_channels(x)), n)
        made = xp.subtract(x, _per_channel(mean, x.ndim))
        squares = total(k, made * made, _channels(x)) if x.ndim == 2 else (made * made).sum(axis=_channels(x))
        var = xp.true_divide(squares, n)
    rstd = 1 / xp.sqrt(var + eps)
    scale = rstd if weight is None else weight.reshape(-1) * rstd
    if made is None:
        made = xp.subtract(x, _per_channel(mean, x.ndim))
    made *= _per_channel(scale.astype(made.dtype), x.ndim)
    if bias is not None:
        made += _per_channel(bias.astype(made.dtype), x.ndim)
    return made, mean, rstd


@_batch_norm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s, main = saved, g[0]
    shape = s.input.shape
    if len(shape) < 2:  # no channels, no elements
        return main, None, None, None, None
    axes = [0, *range(2, len(shape))]
    wide = (shape[1],) + (1,) * (len(shape) - 2)
    of_bias = F.sum(main, axes) if need.bias or (need.input and s.mean is None) else None
    if not need.input and not need.weight:
        return None, None, of_bias, None, None
    own = s.mean is None
    if own and F.recording:  # in terms of the input, so that it can be differentiated again
        mean = F.mean(s.input, axes)
        centred = s.input - F.reshape(mean, wide)
        rstd = F.rsqrt(F.mean(centred * centred, axes) + s.eps)
    else:
        rstd = s.save_rstd if own else F.rsqrt(s.var + s.eps)
        centred = s.input - F.reshape(s.save_mean if own else s.mean, wide)
    normal = centred * F.reshape(rstd, wide)
    of_weight = F.sum(main * normal, axes)
    mine = None
    if need.input:
        scale = rstd if s.weight is None else rstd * F.reshape(s.weight, (shape[1],))
        mine = main
        if own:
            n = max(prod(shape) // max(shape[1], 1), 1)
            mine = main - F.reshape(of_bias / n, wide) - normal * F.reshape(of_weight / n, wide)
        mine = mine * F.reshape(scale, wide)
    return mine, need.weight and of_weight, need.bias and of_bias, None, None


def _blend_meta(k: K, input: Spec, batch: Spec, momentum: Any, factor: Any) -> Spec:
    return input


@op(family="nn", meta=_blend_meta, vjp=None, inplace=True)
def _blend(k: K, input: Array, batch: Array, momentum: Any, factor: Any) -> Array:
    """(1 - momentum) * input + momentum * factor * batch: how running statistics move."""
    return input * (1 - momentum) + batch.reshape(input.shape) * (momentum * factor)


@op(family="nn", meta=_blend_meta, vjp=None)
def _variance_of(k: K, input: Array, batch: Array, momentum: Any, factor: Any) -> Array:
    """The variances behind one over the deviations: 1 / rstd^2 - eps, where `momentum` is eps and `factor` unused."""
    return 1 / (batch * batch) - momentum


def _batch_normalized(
    F: Any,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """(result, batch mean, one over its deviation); in training the running statistics are moved, in place."""
    specs = {
        name: None if p is None else Spec(F.shape(p), F.dtype(p))
        for name, p in (
            ("running_mean", running_mean),
            ("running_var", running_var),
            ("weight", weight),
            ("bias", bias),
        )
    }
    shape = F.shape(input)
    _check_batch(Spec(shape, F.dtype(input)), training, **specs)
    if not training:
        return F._batch_norm(input, weight, bias, running_mean, running_var, eps)
    made = F._batch_norm(input, weight, bias, None, None, eps)
    if F.recording and running_mean is not None:
        n = prod(shape) // max(shape[1], 1)
        with grad_mode(False):
            F._blend_(running_mean, made[1], momentum, 1.0)
            variance = F._variance_of(made[2], made[2], eps, 1.0)
            F._blend_(running_var, variance, momentum, n / (n - 1) if n > 1 else float("nan"))
    return made


@composite(
    family="nn",
    name="nn.functional.batch_norm",
    moves=True,
    samples=[
        S(T(4, 3), T(3, grad=False), T(3, low=0.5, grad=False), T(3), T(3)),
        S(T(4, 3, 2), T(3, grad=False), T(3, low=0.5, grad=False), T(3), T(3), True),
        S(T(4, 3), None, None, training=True),
    ],
)
def batch_norm(
    F: Any,
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Each channel (dimension 1) normalized by the running statistics or, in training, by those of the batch.

    In training the running statistics, where given, move towards the batch's by `momentum`, in place; their variance is
    the unbiased one.
    """
    shape = F.shape(input)
    if training and shape:
        _refuse_single(shape)
    return _batch_normalized(F, input, running_mean, running_var, weight, bias, training, momentum, eps)[0]


def _refuse_single(shape: tuple[int, ...]) -> None:
    if prod(shape[:1] + shape[2:]) == 1:
        raise Invalid(
            f"Expected more than 1 value per channel when training, got input size {torch_size(shape)}",
            code="too-few-values",
            param="input",
        )


@composite(
    family="nn",
    moves=True,
    returns="list of Tensors",
    samples=[
        S(T(4, 3), T(3), T(3), T(3, grad=False), T(3, low=0.5, grad=False), True, 0.1, 1e-5),
        S(T(4, 3), None, None, T(3, grad=False), T(3, low=0.5, grad=False), False, 0.1, 1e-5),
    ],
)
def native_batch_norm(
    F: Any,
    input: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Array:
    """batch_norm with the batch's statistics: (result, means, one over deviations), the two empty in evaluation."""
    made = _batch_normalized(F, input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        empty = F.narrow(F.reshape(running_mean, (-1,)), 0, 0, 0)
        return [made[0], F.clone(F.detach(empty)), F.clone(F.detach(empty))]
    example = next((p for p in (weight, running_mean) if p is not None), input)
    return [made[0], *(x if F.dtype(x) is F.dtype(example) else F._to_dtype(x, F.dtype(example)) for x in made[1:])]


# ---------------------------------------------------------------- instance_norm


@composite(
    family="nn",
    name="nn.functional.instance_norm",
    moves=True,
    samples=[
        S(T(2, 3, 4), weight=T(3), bias=T(3)),
        S(T(2, 3, 4)),
        S(T(2, 3, 4), T(3, grad=False), T(3, low=0.5, grad=False), use_input_stats=False),
    ],
)
def instance_norm(
    F: Any,
    input: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Each channel of each sample normalized by its own statistics, or by the running ones.

    With `use_input_stats` the running statistics, where given, move towards the batch's by `momentum`, in place.
    """
    shape = F.shape(input)
    if use_input_stats and prod(shape[2:]) == 1:
        raise Invalid(
            f"Expected more than 1 spatial element when training, got input size {torch_size(shape)}",
            code="too-few-values",
            param="input",
        )
    if not use_input_stats and (running_mean is None or running_var is None):
        raise Invalid(
            "Expected running_mean and running_var to be defined when use_input_stats is false", param="running_mean"
        )
    n, c = shape[0], shape[1]
    lines = F.reshape(input, (1, n * c, *shape[2:]))

    def repeated(p: Any) -> Any:
        return None if p is None else F.repeat(p, (n,))

    own = use_input_stats
    made = _batch_normalized(
        F, lines, repeated(running_mean), repeated(running_var), repeated(weight), repeated(bias), own, momentum, eps
    )
    if own and running_mean is not None and F.recording:
        count = prod(shape[2:])
        with grad_mode(False):
            means = F.mean(F.reshape(made[1], (n, c)), 0)
            variances = F.mean(F.reshape(F._variance_of(made[2], made[2], eps, 1.0), (n, c)), 0)
            F._blend_(running_mean, means, momentum, 1.0)
            F._blend_(running_var, variances, momentum, count / (count - 1))
    return F.reshape(made[0], shape)


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
    squares = F.mul(input, input)
    around = squares
    for by in range(1, max(size // 2, (size - 1) // 2) + 1):
        if by <= size // 2:
            around = F.add(around, F._shift(squares, 1, by))
        if by <= (size - 1) // 2:
            around = F.add(around, F._shift(squares, 1, -by))
    return F.div(input, F.pow(F.add(F.mul(F.div(around, size), alpha), k), beta))
