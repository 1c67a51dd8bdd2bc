"""Losses with margins, of pairs, triplets and several classes, and losses that are composed of others."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.context import HERE
from engine.declare import Array, Scalar, composite, op
from engine.dtypes import COMPLEX, FLOAT, float32, float64, int64, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, IndexOutOfRange, Invalid, NoGradient, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.losses import (
    Reduction,
    apply_reduction,
    fits_input,
    legacy,
    reduce_in,
    share,
    stays_within,
    torch_size,
    undifferentiable,
)
from engine.samples import I, S, T
from engine.shapes import text, wrap_dim

_SIGNS = T(3, values=[1.0, -1.0, 1.0], grad=False)

# ---------------------------------------------------------------- pairs and triplets


@composite(
    family="losses",
    name="nn.functional.margin_ranking_loss",
    samples=[
        S(T(3), T(3), _SIGNS),
        S(T(3), T(3), _SIGNS, 0.5, reduction="none"),
        S(T(3), T(3), _SIGNS, reduction="sum"),
    ],
)
def margin_ranking_loss(
    F: Any,
    input1: Array,
    input2: Array,
    target: Array,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """max(0, -t (x1 - x2) + margin): x1 is to rank higher where the target is 1, lower where it is -1."""
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    shapes = F.shape(input1), F.shape(input2), F.shape(target)
    if len({len(s) for s in shapes}) != 1:
        raise ShapeMismatch(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: "
            f"{torch_size(shapes[0])}, input2: {torch_size(shapes[1])}, target: {torch_size(shapes[2])} ",
            param="target",
        )
    losses = F.clamp_min(F.add(F.mul(F.neg(target), F.sub(input1, input2)), float(margin)), 0)
    return reduce_in(F, losses, reduction)


@composite(
    family="losses",
    name="nn.functional.hinge_embedding_loss",
    samples=[S(T(3), _SIGNS), S(T(3), _SIGNS, 0.5, reduction="none"), S(T(3), _SIGNS, reduction="sum")],
)
def hinge_embedding_loss(
    F: Any,
    input: Array,
    target: Array,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """The input where the target is 1, max(0, margin - input) where it is -1."""
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    zeros = F.zeros_like(input)
    beyond = F.sub(F.full_like(input, float(margin)), input)  # the margin as an integer where the input is one
    far = F.where(F.ne(target, 1), F.clamp_min(beyond, 0), zeros)
    return reduce_in(F, F.add(far, F.where(F.ne(target, -1), input, zeros)), reduction)


@composite(
    family="losses",
    name="nn.functional.cosine_embedding_loss",
    samples=[
        S(T(3, 2), T(3, 2), _SIGNS),
        S(T(3, 2), T(3, 2), _SIGNS, 0.2, reduction="none"),
        S(T(3), T(3), T(values=1.0, grad=False), reduction="sum"),
    ],
)
def cosine_embedding_loss(
    F: Any,
    input1: Array,
    input2: Array,
    target: Array,
    margin: float = 0.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1, of the angle between rows."""
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    rank = len(F.shape(target))
    if rank > 1:
        raise ShapeMismatch("0D or 1D target tensor expected, multi-target not supported", param="target")
    sizes = F.shape(input1), F.shape(input2)
    if any(len(s) != rank + 1 for s in sizes):
        raise ShapeMismatch(
            f"{rank}D target tensor expects {rank + 1}D input tensors, but found inputs with sizes {text(sizes[0])} "
            f"and {text(sizes[1])}.",
            param="target",
        )
    inner = F.sum(F.mul(input1, input2), rank)
    squares = [F.add(F.sum(F.mul(x, x), rank), 1e-12) for x in (input1, input2)]
    cosine = F.div(inner, F.sqrt(F.mul(*squares)))
    zeros = F.zeros_like(cosine)
    near = F.where(F.eq(target, 1), F.sub(1, cosine), zeros)
    far = F.where(F.eq(target, -1), F.clamp_min(F.sub(cosine, float(margin)), 0), zeros)
    return reduce_in(F, F.add(near, far), reduction)


@composite(
    family="losses",
    name="nn.functional.triplet_margin_loss",
    samples=[
        S(T(3, 2), T(3, 2), T(3, 2)),
        S(T(3, 2), T(3, 2), T(3, 2), 2.0, swap=True, reduction="none"),
        S(T(2), T(2), T(2), p=1.0, reduction="sum"),
    ],
)
def triplet_margin_loss(
    F: Any,
    anchor: Array,
    positive: Array,
    negative: Array,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """max(0, margin + |anchor - positive| - |anchor - negative|), p-norms along the last dimension.

    `swap` takes the distance of positive and negative instead where that is smaller.
    """
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    if margin <= 0:
        raise Invalid(f"margin must be greater than 0, got {margin}", param="margin")
    ranks = [len(F.shape(x)) for x in (anchor, positive, negative)]
    if len(set(ranks)) != 1:
        raise ShapeMismatch(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {ranks[0]}D, positive {ranks[1]}D, and negative {ranks[2]}D inputs",
            param="positive",
        )
    near = F.pairwise_distance(anchor, positive, p, eps)
    far = F.pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = F.minimum(far, F.pairwise_distance(positive, negative, p, eps))
    return reduce_in(F, F.clamp_min(F.sub(F.add(near, margin), far), 0), reduction)


# ---------------------------------------------------------------- two classes


@composite(
    family="losses",
    name="nn.functional.soft_margin_loss",
    node="SoftMarginLossBackward0",
    samples=[S(T(3), _SIGNS), S(T(3), _SIGNS, reduction="none"), S(T(3, 2), T(3, 2, grad=False), reduction="sum")],
)
def soft_margin_loss(
    F: Any,
    input: Array,
    target: Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """log(1 + exp(-t x)) for targets 1 and -1."""
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    undifferentiable(F, "soft_margin_loss", target=target)
    stays_within(F.shape(input), F.shape(target), "target")
    d, product = F.dtype(input), F.mul(F.neg(input), target)
    have = F.dtype(product)
    if have.category == COMPLEX:
        if F.recording and input.requires_grad and HERE.ctx.grad_enabled:
            words = "soft_margin_loss does not support automatic differentiation for outputs with complex dtype."
            raise NoGradient(words, param="input")
        losses = F.log1p(F.exp(product))
    else:
        wide = product if have.category >= FLOAT else F.mul(product, 1.0)
        losses = F.log1p(F.exp(wide))  # which overflows, as in PyTorch
    fits_input(F.dtype(losses), d)
    return reduce_in(F, F.to(losses, d.name), reduction)


@composite(
    family="losses",
    name="nn.functional.multilabel_soft_margin_loss",
    samples=[S(T(3, 2), T(3, 2, low=0.0, high=1.0)), S(T(3, 2), T(3, 2), T(2), reduction="none")],
)
def multilabel_soft_margin_loss(
    F: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """The binary cross entropy of sigmoid(input), averaged over the last dimension, the classes."""
    if size_average is None and reduce is None and reduction not in ("none", "mean", "sum"):
        raise Invalid(f"{reduction} is not valid", param="reduction")
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    if not F.shape(input):
        raise ShapeMismatch("Dimension specified as -1 but tensor has no dimensions", param="input")
    losses = F.neg(F.add(F.mul(target, F.logsigmoid(input)), F.mul(F.sub(1, target), F.logsigmoid(F.neg(input)))))
    if weight is not None:
        losses = F.mul(losses, weight)
    last = wrap_dim(-1, len(F.shape(input)), scalar_ok=False)
    return reduce_in(F, F.div(F.sum(losses, last), F.shape(input)[last]), reduction)


# ---------------------------------------------------------------- several classes


def _need_matrix(input: Spec) -> None:
    if input.ndim > 2 or (input.ndim and input.shape[-1] == 0):
        raise ShapeMismatch(
            f"Expected non-empty vector or matrix with optional 0-dim batch size, but got: {text(input.shape)}",
            param="input",
        )


def _need_long(target: Spec) -> None:
    if target.dtype is not int64:
        raise DtypeMismatch(
            f"expected scalar type Long but found {scalar_type(target.dtype)}",
            code="index-dtype",
            hint=Hint(
                "cast-index",
                Call("to", {"input": Param("target"), "dtype": "int64"}),
                have=target.dtype.name,
                param="target",
            ),
            param="target",
        )


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 2 else 1


def _multi_meta(k: K, input: Spec, target: Spec, weight: Spec | None, p: int, margin: float, reduction: str) -> Spec:
    _need_matrix(input)
    rows, classes = _rows(input.shape), input.shape[-1] if input.ndim else 1
    if target.ndim > 1 or target.numel != rows:
        raise ShapeMismatch(
            "multi_margin_loss: target tensor should be 1-D with size equal to the number of input samples (batch "
            f"size). Expected target size [{rows}], but got {text(target.shape)}. Input has shape {text(input.shape)}.",
            param="target",
        )
    if weight is not None and weight.numel != classes:
        raise ShapeMismatch(
            f"inconsistent weight size, expected {classes} but got {text(weight.shape)}", param="weight"
        )
    _need_long(target)
    if input.dtype not in (float32, float64):
        raise not_implemented("multi_margin_loss_cpu_kernel", input.dtype)
    if weight is not None and weight.dtype is not input.dtype:
        raise DtypeMismatch(
            f"expected scalar type {scalar_type(input.dtype)} but found {scalar_type(weight.dtype)}", param="weight"
        )
    return Spec((rows,) if reduction == "none" and target.ndim else (), input.dtype)


def _hinges(k: K, input: Array, target: Array, margin: float) -> tuple[Array, Array, Array]:
    """(max(0, margin - x[t] + x[j]) in each row, zero at j = t; the rows; the targets)."""
    xp = k.xp
    x = input.reshape(-1, input.shape[-1] if input.ndim else 1)
    rows, at = xp.arange(x.shape[0]), target.reshape(-1)
    made = margin + x - x[rows, at][:, None]
    made = xp.where(made > 0, made, xp.zeros((), made.dtype))  # NaN is no margin
    made[rows, at] = 0
    return made, rows, at


@op(
    family="losses",
    node="MultiMarginLossBackward0",
    meta=_multi_meta,
    save={"input": ("input", "target", "weight")},
)
def _multi_margin_loss(
    k: K, input: Array, target: Array, weight: Array | None, p: Any, margin: Any, reduction: Any
) -> Array:
    """sum_j max(0, margin - x[t] + x[j])^p w[t] / C for each row, reduced."""
    made, _, at = _hinges(k, input, target, margin)
    losses = (made if p == 1 else made * made).sum(axis=1) / made.shape[1]
    if weight is not None:
        losses = losses * weight.reshape(-1)[at]
    return apply_reduction(k, losses, reduction).reshape(k.spec.shape)


@_multi_margin_loss.guard
def _(k: K, input: Any, target: Any, *rest: Any) -> None:
    classes = input.shape[-1] if input.ndim else 1
    if target.size and not bool(((target >= 0) & (target < classes)).all()):
        raise IndexOutOfRange("target out of range", param="target")


@_multi_margin_loss.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    shape = F.shape(s.input)
    g = share(g, (_rows(shape),), s.reduction)
    slope = F._multi_margin_slope(s.input, s.target, s.weight, s.p, s.margin)
    return slope * (F.reshape(g, (-1, 1)) if len(F.shape(g)) == 1 and len(shape) == 2 else g), None, None


def _slope_meta(k: K, input: Spec, *rest: Any) -> Spec:
    return input


@op(family="losses", meta=_slope_meta, save={"input": ("input", "target", "weight")})
def _multi_margin_slope(k: K, input: Array, target: Array, weight: Array | None, p: Any, margin: Any) -> Array:
    """The derivative of each row's loss."""
    made, rows, at = _hinges(k, input, target, margin)
    made = (made > 0).astype(made.dtype) if p == 1 else made * 2
    return _balanced(made, rows, at, weight).reshape(input.shape)


def _balanced(made: Array, rows: Array, at: Array, weight: Array | None) -> Array:
    """Derivatives with respect to the other classes, weighted, and minus their sum at the targets; in place."""
    made /= made.shape[1]
    if weight is not None:
        made *= weight.reshape(-1)[at][:, None]
    made[rows, at] = 0
    made[rows, at] = -made.sum(axis=1)
    return made


@_multi_margin_slope.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    return F._multi_margin_curve(g, s.input, s.target, s.weight, s.p, s.margin), None, None


@op(family="losses", meta=_slope_meta, save={"grad": ("input", "target", "weight")})
def _multi_margin_curve(
    k: K, grad: Array, input: Array, target: Array, weight: Array | None, p: Any, margin: Any
) -> Array:
    """The second derivative, a symmetric matrix, times a vector for each row; it is constant between kinks."""
    hinges, rows, at = _hinges(k, input, target, margin)
    g = grad.reshape(hinges.shape)
    made = (g - g[rows, at][:, None]) * (hinges > 0).astype(g.dtype) * (2.0 if p == 2 else 0.0)
    return _balanced(made, rows, at, weight).reshape(input.shape)


@_multi_margin_curve.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    return need.grad and F._multi_margin_curve(g, s.input, s.target, s.weight, s.p, s.margin), None, None, None


_TARGET = I(3, values=[0, 2, 1])


@composite(
    family="losses",
    name="nn.functional.multi_margin_loss",
    moves=True,
    samples=[
        S(T(3, 4), _TARGET),
        S(T(3, 4), _TARGET, 2, 0.5, T(4, low=0.5, grad=False)),
        S(T(3, 4), _TARGET, reduction="none"),
        S(T(4), I(high=4), reduction="sum"),
    ],
)
def multi_margin_loss(
    F: Any,
    input: Array,
    target: Array,
    p: Scalar = 1,
    margin: float = 1.0,
    weight: Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """sum_j max(0, margin - x[t] + x[j])^p / C for rows x of scores and target classes t, weighted by w[t]."""
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    if p not in (1, 2):
        raise Invalid("only p == 1 and p == 2 supported", param="p")
    if weight is not None and len(F.shape(weight)) != 1:
        raise ShapeMismatch("weight must be one-dimensional", param="weight")
    undifferentiable(F, "multi_margin_loss", weight=weight)
    return F._multi_margin_loss(input, target, weight, p, margin, reduction)


def _multilabel_meta(k: K, input: Spec, target: Spec, reduction: str) -> Spec:
    _need_matrix(input)
    alone = max(input.ndim, target.ndim) < 2  # one row: a number is as good as a vector of one
    if (target.numel != input.numel) if alone else (target.shape != input.shape):
        raise ShapeMismatch(
            f"inconsistent target size: {text(target.shape)} for input of size: {text(input.shape)}", param="target"
        )
    _need_long(target)
    if input.dtype not in (float32, float64):
        raise not_implemented("multilabel_margin_loss_forward_out_frame", input.dtype)
    return Spec((_rows(input.shape),) if reduction == "none" and input.ndim == 2 else (), input.dtype)


def _labels(k: K, target: Array) -> tuple[Array, Array]:
    """(which places of `target` name a class: those before the first -1; which classes are named)."""
    xp = k.xp
    live = xp.cumsum(target < 0, axis=1) == 0
    named = xp.zeros(target.shape, bool)
    rows = xp.broadcast_to(xp.arange(target.shape[0])[:, None], target.shape)
    named[rows[live], target[live]] = True
    return live, named


def _pair_hinges(k: K, input: Array, target: Array) -> tuple[Array, Array, Array]:
    """(max(0, 1 - x[target[j]] + x[i]) for each row, place j and class i that is no target; x's rows; the places)."""
    xp = k.xp
    classes = input.shape[-1] if input.ndim else 1
    x, target = input.reshape(-1, classes), target.reshape(-1, classes)
    k.ctx.admit(3 * x.size * classes * x.itemsize)  # each class with each
    live, named = _labels(k, target)
    at = xp.where(live, target, xp.zeros((), int64.np))
    made = 1 - xp.take_along_axis(x, at, 1)[:, :, None] + x[:, None, :]
    made = xp.where(made > 0, made, xp.zeros((), made.dtype))  # NaN is no margin
    made *= (live[:, :, None] & ~named[:, None, :]).astype(x.dtype)
    return made, x, at


@op(
    family="losses",
    node="MultilabelMarginLossBackward0",
    meta=_multilabel_meta,
    save={"input": ("input", "target")},
)
def _multilabel_margin_loss(k: K, input: Array, target: Array, reduction: Any) -> Array:
    """sum over targets j and other classes i of max(0, 1 - x[j] + x[i]) / C for each row, reduced."""
    made, x, _ = _pair_hinges(k, input, target)
    losses = made.sum(axis=(1, 2)) / x.shape[1]
    return apply_reduction(k, losses, reduction).reshape(k.spec.shape)


@_multilabel_margin_loss.guard
def _(k: K, input: Any, target: Any, reduction: Any) -> None:
    classes = input.shape[-1] if input.ndim else 1
    if target.size and not bool(((target >= -1) & (target < classes)).all()):
        raise IndexOutOfRange("argument #2 'target' is out of range", param="target")


@_multilabel_margin_loss.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    shape = F.shape(saved.input)
    g = share(g, (_rows(shape),), saved.reduction)
    slope = F._multilabel_margin_slope(saved.input, saved.target)
    return slope * (F.reshape(g, (-1, 1)) if len(F.shape(g)) == 1 and len(shape) == 2 else g), None


@op(family="losses", meta=_slope_meta, vjp=None)
def _multilabel_margin_slope(k: K, input: Array, target: Array) -> Array:
    """The derivative of each row's loss, constant between kinks."""
    hinges, x, at = _pair_hinges(k, input, target)
    active = (hinges > 0).astype(x.dtype)
    made = active.sum(axis=1)
    rows = k.xp.broadcast_to(k.xp.arange(x.shape[0])[:, None], at.shape)
    k.backend.scatter_add(made, (rows, at), -active.sum(axis=2))
    return (made / x.shape[1]).reshape(input.shape)


@composite(
    family="losses",
    name="nn.functional.multilabel_margin_loss",
    moves=True,
    samples=[
        S(T(2, 3), I(2, 3, values=[[0, -1, 1], [1, 2, -1]])),
        S(T(2, 3), I(2, 3, values=[[0, -1, 1], [1, 2, -1]]), reduction="none"),
        S(T(3), I(3, values=[2, 0, -1]), reduction="sum"),
    ],
)
def multilabel_margin_loss(
    F: Any,
    input: Array,
    target: Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """sum over targets j and other classes i of max(0, 1 - x[j] + x[i]) / C; a row's targets end at its first -1."""
    return F._multilabel_margin_loss(input, target, legacy(size_average, reduce, reduction))


# ---------------------------------------------------------------- a linear layer with its loss


@composite(
    family="losses",
    name="nn.functional.linear_cross_entropy",
    moves=True,
    samples=[S(T(3, 2), T(4, 2), _TARGET), S(T(3, 2), T(4, 2), _TARGET, linear_bias=T(4), reduction="none")],
)
def linear_cross_entropy(
    F: Any,
    input: Array,
    linear_weight: Array,
    target: Array,
    linear_bias: Array | None = None,
    weight: Array | None = None,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> Array:
    """The cross entropy of linear(input, linear_weight, linear_bias).

    input (N, features) or (features), linear_weight (C, features) or (C, d1, ..., features), target as cross_entropy's.
    """
    shape, table = F.shape(input), F.shape(linear_weight)
    if not 1 <= len(shape) <= 2:
        raise ShapeMismatch(f"expected input with dimensionality 1 or 2, got {len(shape)}", param="input")
    if len(table) < 2:
        raise ShapeMismatch(
            f"expected linear_weight with dimensionality at least 2, got {len(table)}", param="linear_weight"
        )
    if shape[-1] != table[-1]:
        raise ShapeMismatch(
            "expected equal input and linear_weight last dimensions (in_features), "
            f"got {shape[-1]} and {table[-1]}, respectively",
            param="linear_weight",
        )
    if not 0 <= label_smoothing <= 1:
        raise Invalid(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing:g}", param="label_smoothing")
    outer = table[:-1]
    if linear_bias is not None and F.shape(linear_bias) != outer:
        raise ShapeMismatch(f"expected linear_bias shape {outer}, got {F.shape(linear_bias)}", param="linear_bias")
    if len(outer) > 1 and len(shape) == 1:
        raise ShapeMismatch(
            f"K-dimensional loss defined by linear_weight shape {table} requires batched input, (N, {shape[-1]}), got "
            f"unbatched input with shape {shape}",
            param="input",
        )
    logits_shape = (*shape[:-1], *outer)
    if F.shape(target) == logits_shape and ignore_index is not None:
        raise Invalid("ignore_index cannot be specified when target contains probabilities", param="ignore_index")
    if len(outer) > 1:
        linear_weight = F.reshape(linear_weight, (-1, table[-1]))
        linear_bias = None if linear_bias is None else F.reshape(linear_bias, (-1,))
    logits = F.reshape(F.linear(input, linear_weight, linear_bias), logits_shape)
    return F.cross_entropy(
        logits,
        target,
        weight,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
