"""Normalization by the statistics of channels: batch_norm and instance_norm, with running statistics."""

from __future__ import annotations

from math import prod
from typing import Any

from engine.carriers import K
from engine.context import grad_mode
from engine.declare import Array, composite, op
from engine.dtypes import FLOAT
from engine.errors import IndexOutOfRange, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.channels import add_to_channels, affine, channel_dots, per_channel
from engine.ops.common import not_implemented
from engine.ops.losses import torch_size, undifferentiable
from engine.ops.normalization import mixed, row_blocks
from engine.ops.reductions import total
from engine.samples import S, T
from engine.shapes import wrap_dim

# ---------------------------------------------------------------- batch_norm


def _check_batch(input: Spec, training: bool, **parameters: Spec | None) -> None:
    if training and not input.ndim:
        raise ShapeMismatch("tuple index out of range", param="input")
    if training and input.ndim < 2:
        wrap_dim(1, input.ndim)  # PyTorch asks for a size that is not there
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
    if not prod(input.shape):
        return
    if input.ndim == 1:
        wrap_dim(1, 1)  # nor is it there where the statistics are empty
    if input.dtype.category != FLOAT:
        raise not_implemented("batch_norm", input.dtype)
    mixed(input, **{name: parameters[name] for name in ("weight", "bias", "running_mean", "running_var")})
    for name in ("running_mean", "running_var"):
        p = parameters[name]
        if p is not None and p.ndim != 1:
            raise ShapeMismatch(f"TensorAccessor expected 1 dims but tensor has {p.ndim}", param=name)


def _batch_meta(
    k: K, input: Spec, weight: Spec | None, bias: Spec | None, mean: Spec | None, var: Spec | None, eps: float
) -> Any:
    if not input.ndim:
        raise ShapeMismatch("batch_norm needs channels, and a tensor of no dimensions has none", param="input")
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
        mean = xp.true_divide(total(k, x, (0,)) if x.ndim == 2 else total(k, x, (0, *range(2, x.ndim))), n)
        made = xp.subtract(x, per_channel(mean, x.ndim))
        var = xp.true_divide(total(k, made * made, (0,)) if x.ndim == 2 else channel_dots(k, made, made), n)
    rstd = 1 / xp.sqrt(var + eps)
    scale = rstd if weight is None else weight.reshape(-1) * rstd
    if made is None:  # by statistics that are known: x * scale + shift
        shift = -(mean.reshape(-1) * scale) if bias is None else bias.reshape(-1) - mean.reshape(-1) * scale
        return affine(k, x, scale.astype(x.dtype), shift.astype(x.dtype)), mean, rstd
    made *= per_channel(scale.astype(made.dtype), x.ndim)
    if bias is not None:
        add_to_channels(k, made, bias.astype(made.dtype, copy=False))
    return made, mean, rstd


@_batch_norm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s, main = saved, g[0]
    shape = s.input.shape
    if len(shape) < 2:  # no channels, no elements
        return main, None, None, None, None
    own = s.mean is None
    if not F.recording:
        if not need.input and not need.weight:
            return None, None, F.sum(main, [0, *range(2, len(shape))]), None, None
        mean, rstd = (s.save_mean, s.save_rstd) if own else (s.mean, F.rsqrt(s.var + s.eps))
        weight = s.weight if need.input else None
        mine, of_weight, of_bias = F._batch_norm_back(main, s.input, mean, rstd, weight, own, bool(need.input))
        return mine, need.weight and of_weight, need.bias and of_bias, None, None
    # In terms of the input alone, so that it can be differentiated again.
    axes = [0, *range(2, len(shape))]
    wide = (shape[1],) + (1,) * (len(shape) - 2)
    of_bias = F.sum(main, axes) if need.bias or need.input else None
    if not need.input and not need.weight:
        return None, None, of_bias, None, None
    mean, var = (s.mean, s.var) if not own else (F.mean(s.input, axes), None)
    centred = s.input - F.reshape(mean, wide)
    rstd = F.rsqrt((F.mean(centred * centred, axes) if own else var) + s.eps)
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


def _batch_back_meta(
    k: K, grad: Spec, input: Spec, mean: Spec, rstd: Spec, weight: Spec | None, own: bool, need_input: bool
) -> Any:
    stats = Spec((grad.shape[1],), grad.dtype)
    return grad if need_input else None, stats, stats


@op(family="nn", meta=_batch_back_meta, vjp=None, outputs=("of_input", "of_weight", "of_bias"))
def _batch_norm_back(
    k: K, grad: Array, input: Array, mean: Array, rstd: Array, weight: Array | None, own: Any, need_input: Any
) -> Array:
    """The first-order gradient of batch_norm, fused; the rule of _batch_norm has the formula.

    For the input it is a * grad + b * input + c, with three numbers for each channel.
    """
    xp = k.xp
    samples, channels = grad.shape[:2]
    inner = prod(grad.shape[2:])
    shape = (samples, channels, inner) if inner != 1 else (samples, channels)
    g, x = grad.reshape(shape), input.reshape(shape)
    mean, rstd = mean.reshape(-1), rstd.reshape(-1)
    of_bias = total(k, g, (0, 2) if inner != 1 else (0,))
    of_weight = xp.zeros(channels, g.dtype)
    for part in row_blocks(k, g):
        centred = xp.subtract(x[part], per_channel(mean, g.ndim))
        if inner == 1:
            centred *= g[part]
            of_weight += total(k, centred, (0,))
        else:
            of_weight += channel_dots(k, g[part], centred)
    of_weight *= rstd
    if not need_input:
        return None, of_weight, of_bias
    a = rstd if weight is None else rstd * weight.reshape(-1)
    of_input = xp.empty(grad.shape, g.dtype)  # not a view: that would be copied
    made = of_input.reshape(g.shape)
    xp.multiply(g, per_channel(a, g.ndim), out=made)
    if own:
        n = max(samples * inner, 1)
        b = -a * rstd * of_weight / n
        c = -a * of_bias / n - b * mean
        b, c = b.astype(g.dtype), c.astype(g.dtype)
        for part in row_blocks(k, g):
            here = made[part]
            here += xp.multiply(x[part], per_channel(b, g.ndim))
            add_to_channels(k, here, c)
    return of_input, of_weight, of_bias


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
    undifferentiable(F, "native_batch_norm", running_mean=running_mean, running_var=running_var)
    if not training:
        return F._batch_norm(input, weight, bias, running_mean, running_var, eps)
    made = F._batch_norm(input, weight, bias, None, None, eps)
    if F.recording and running_mean is not None:
        n = prod(shape) // max(shape[1], 1) if len(shape) > 1 else 0
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
        S(T(2, 3, 2), T(3, grad=False), T(3, low=0.5, grad=False), None, T(3)),
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
    if eps < 0 or (training and eps == 0):
        words = "positive during training" if training else "non-negative"
        raise Invalid(f"batch_norm eps must be {words}, but got {eps}", param="eps")
    if 0 in shape and F.dtype(input).category == FLOAT:
        return _of_nothing(F, input, weight, bias)
    return _batch_normalized(F, input, running_mean, running_var, weight, bias, training, momentum, eps)[0]


def _of_nothing(F: Any, input: Any, weight: Any, bias: Any) -> Any:
    """The input, of no elements, and on the tape of weight and bias; the running statistics stay as they are."""
    made = F.clone(input)
    if weight is not None:
        made = F.mul(made, F.select(weight, 0, 0))
    return made if bias is None else F.add(made, F.select(bias, 0, 0))


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
    return instances(F, input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def instances(
    F: Any,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
) -> Any:
    """Each channel of each sample normalized; other checks are its callers'."""
    shape = F.shape(input)
    wrap_dim(1, len(shape))
    n, c = shape[0], shape[1]
    lines = F.reshape(input, (1, n * c, *shape[2:]))

    def repeated(p: Any) -> Any:
        return None if p is None else F.repeat(p, (n,))

    own = use_input_stats
    made = _batch_normalized(
        F, lines, repeated(running_mean), repeated(running_var), repeated(weight), repeated(bias), own, momentum, eps
    )
    if own and running_mean is not None and F.recording:
        if not n:  # PyTorch looks for the first sample's
            words = "select(): index 0 out of range for tensor of size [0] at dimension 0"
            raise IndexOutOfRange(words, param="input")
        count = prod(shape[2:])
        with grad_mode(False):
            means = F.mean(F.reshape(made[1], (n, c)), 0)
            variances = F.mean(F.reshape(F._variance_of(made[2], made[2], eps, 1.0), (n, c)), 0)
            F._blend_(running_mean, means, momentum, 1.0)
            F._blend_(running_var, variances, momentum, count / (count - 1))
    return F.reshape(made[0], shape)
