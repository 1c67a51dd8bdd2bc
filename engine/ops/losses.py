"""Losses between two tensors: mse_loss, l1_loss, huber_loss, binary_cross_entropy, kl_div and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from engine.carriers import K
from engine.context import HERE
from engine.declare import Array, composite, op
from engine.dtypes import BOOL, C_NAMES, COMPLEX, FLOAT, DType, can_cast, promote_types, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Invalid, NoGradient, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import bounded, joint, not_implemented
from engine.ops.reductions import total
from engine.samples import C, S, T
from engine.shapes import broadcast_two, text

Reduction = Literal["none", "mean", "sum"]

# ---------------------------------------------------------------- reductions


def legacy(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """`reduction`, or what the two older parameters say where one of them is given."""
    if size_average is not None or reduce is not None:
        if reduce is False:
            return "none"
        return "mean" if size_average is not False else "sum"
    if reduction not in ("none", "mean", "sum"):
        raise Invalid(f"{reduction} is not a valid value for reduction", param="reduction")
    return reduction


def reduced_shape(shape: tuple[int, ...], reduction: str) -> tuple[int, ...]:
    """The shape of the reduced losses."""
    return shape if reduction == "none" else ()


def apply_reduction(k: K, losses: Array, reduction: str) -> Array:
    """In a kernel: the losses, their sum, or their mean (NaN for none)."""
    if reduction == "none":
        return losses
    made = total(k, losses, tuple(range(losses.ndim)))
    return made if reduction == "sum" else k.xp.true_divide(made, losses.size)


def stays_within(shape: tuple[int, ...], other: tuple[int, ...], param: str) -> None:
    """Refuses an operand that would broadcast losses beyond the input's shape, where PyTorch writes in place."""
    made = broadcast_two(shape, other)
    if made != shape:
        words = f"output with shape {text(shape)} doesn't match the broadcast shape {text(made)}"
        raise ShapeMismatch(words, param=param)


def fits_input(made: DType, d: DType) -> None:
    """Refuses losses that cannot be stored in the input's dtype, where PyTorch computes in place."""
    if not can_cast(made, d):
        raise DtypeMismatch(
            f"result type {scalar_type(made)} can't be cast to the desired output type {scalar_type(d)}",
            hint=Hint(
                "cast-one",
                Call("to", {"input": Param("input"), "dtype": made.name}),
                a=made.name,
                b=d.name,
                param="input",
            ),
            param="input",
        )


def share(g: Any, shape: tuple[int, ...], reduction: str) -> Any:
    """In a rule: the gradient of each loss, broadcasting."""
    if reduction != "mean":
        return g
    n = 1
    for size in shape:
        n *= size
    return g / n


def reduce_in(F: Any, losses: Any, reduction: str) -> Any:
    """In a composite: the same as `apply_reduction`."""
    return F.mean(losses) if reduction == "mean" else F.sum(losses) if reduction == "sum" else losses


def torch_size(shape: tuple[int, ...]) -> str:
    """torch.Size([2, 3]), as some messages write shapes."""
    return f"torch.Size({text(shape)})"


def undifferentiable(F: Any, name: str, **parameters: Any) -> None:
    """Refuses parameters that require a gradient which PyTorch does not compute, rather than leave it out silently."""
    for param, x in parameters.items():
        if F.recording and x is not None and x.requires_grad and HERE.ctx.grad_enabled:
            raise NoGradient(
                f"The function '{name}' is not differentiable with respect to argument '{param}'. This input cannot "
                "have requires_grad True.",
                code="no-derivative",
                hint=Hint("detach", Call("detach", {"input": Param(param)})),
                param=param,
            )


def _weighted(F: Any, losses: Any, input: Any, weight: Any, reduction: str, by_weight: bool = True) -> Any:
    if F.shape(weight) != F.shape(input):
        raise ShapeMismatch("Weights and input must have the same size.", param="weight")
    losses = F.mul(losses, weight)
    if reduction == "mean" and by_weight:
        return F.div(F.sum(losses), F.sum(weight))
    return reduce_in(F, losses, reduction)


# ---------------------------------------------------------------- losses of the difference


def _alike(F: Any, input: Any, target: Any) -> Any:
    """The two as PyTorch compares them: broadcast first, so that one of no dimensions counts fully for the dtype."""
    ranks = len(F.shape(input)), len(F.shape(target))
    if F.dtype(input) is F.dtype(target) or 0 not in ranks or ranks == (0, 0):
        return input, target
    return (F.reshape(input, (1,)), target) if not ranks[0] else (input, F.reshape(target, (1,)))


def _difference_meta(kernel: str) -> Any:
    def meta(k: K, input: Spec, target: Spec, reduction: str, limit: Any = 1.0) -> Spec:
        if k.dtype.category != FLOAT:
            raise not_implemented(kernel, k.dtype)
        return Spec(reduced_shape(broadcast_two(input.shape, target.shape), reduction), k.dtype)

    return meta


_PAIR = [S(T(3, 2), T(3, 2)), S(T(3, 2), T(2), reduction="sum"), S(T(2, 2), T(2, 2), reduction="none"), S(T(), T())]


def _difference_rule(slope: Any) -> Any:
    """The rule of a loss of (input - target) with the derivative `slope(F, difference, limit)`."""

    def rule(F: Any, saved: Any, g: Any, need: Any) -> Any:
        shape = broadcast_two(F.shape(saved.input), F.shape(saved.target))
        made = slope(F, saved.input - saved.target, saved.limit) * share(g, shape, saved.reduction)
        return need.input and made, need.target and -made

    return rule


_SAVE: dict[str, Sequence[str]] = {"input": ("input", "target"), "target": ("input", "target")}


@op(family="losses", node="MseLossBackward0", meta=_difference_meta("mse_cpu"), promote="arithmetic", save=_SAVE)
def _mse_loss(k: K, input: Array, target: Array, reduction: Any, limit: Any = 1.0) -> Array:
    """(input - target)^2, reduced."""
    d = k.xp.subtract(input, target)
    return apply_reduction(k, k.xp.multiply(d, d, out=d) if d.ndim else d * d, reduction)


_mse_loss.vjp(_difference_rule(lambda F, d, limit: d * 2))


@op(
    family="losses",
    node="SmoothL1LossBackward0",
    meta=_difference_meta("smooth_l1_cpu"),
    promote="arithmetic",
    save=_SAVE,
)
def _smooth_l1_loss(k: K, input: Array, target: Array, reduction: Any, limit: Any = 1.0) -> Array:
    """Quadratic within `limit`, linear with slope one beyond, reduced."""
    made = _bent(k, input, target, limit)
    made /= limit
    return apply_reduction(k, made, reduction)


def _bent(k: K, input: Array, target: Array, limit: float) -> Array:
    """c (d - c / 2), where d is the difference and c the smaller of d and `limit`."""
    xp = k.xp
    d = xp.asarray(xp.subtract(input, target))
    xp.abs(d, out=d)
    made = xp.asarray(bounded(xp, d, high=limit))
    xp.subtract(d, made * 0.5, out=d)
    xp.multiply(made, d, out=made)
    return made


_smooth_l1_loss.vjp(_difference_rule(lambda F, d, limit: F.clamp(d / limit, -1.0, 1.0)))


def _huber_types(k: K, input: Spec, target: Spec, *rest: Any) -> tuple[DType, DType]:
    """PyTorch computes the loss into a tensor of the input's dtype."""
    made = joint(k, "arithmetic", input, target)[0]
    fits_input(made, input.dtype)
    return made, input.dtype


@op(
    family="losses",
    node="HuberLossBackward0",
    meta=_difference_meta("huber_cpu"),
    promote=_huber_types,
    over=("input", "target"),
    save=_SAVE,
)
def _huber_loss(k: K, input: Array, target: Array, reduction: Any, limit: Any = 1.0) -> Array:
    """Quadratic within `limit`, linear with slope `limit` beyond, reduced."""
    return apply_reduction(k, _bent(k, input, target, limit), reduction)


_huber_loss.vjp(_difference_rule(lambda F, d, limit: F.clamp(d, -limit, limit)))


@composite(family="losses", name="nn.functional.mse_loss", moves=True, samples=_PAIR)
def mse_loss(
    F: Any,
    input: Array,
    target: Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
    weight: Array | None = None,
) -> Array:
    """The squared difference of two tensors, averaged, summed or as it is; the two broadcast."""
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    given, other = _alike(F, input, target)
    if weight is None:
        return F._mse_loss(given, other, reduction)
    return _weighted(F, F.square(F.sub(given, other)), input, weight, reduction)


@composite(family="losses", name="nn.functional.l1_loss", samples=[*_PAIR, S(C(2, 2), C(2, 2))])
def l1_loss(
    F: Any,
    input: Array,
    target: Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
    weight: Array | None = None,
) -> Array:
    """The absolute difference of two tensors, averaged, summed or as it is; the two broadcast."""
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    losses = F.abs(F.sub(*_alike(F, input, target)))
    return reduce_in(F, losses, reduction) if weight is None else _weighted(F, losses, input, weight, reduction)


@composite(family="losses", name="nn.functional.smooth_l1_loss", moves=True, samples=[*_PAIR, S(T(3), T(3), beta=0.5)])
def smooth_l1_loss(
    F: Any,
    input: Array,
    target: Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
    beta: float = 1.0,
) -> Array:
    """0.5 d^2 / beta where the difference d is below `beta`, |d| - 0.5 beta elsewhere; the two tensors broadcast."""
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    if not beta >= 0:
        raise Invalid("smooth_l1_loss does not support negative values for beta.", param="beta")
    input, target = _alike(F, input, target)
    if beta == 0:
        return F.l1_loss(input, target, reduction=reduction)
    return F._smooth_l1_loss(input, target, reduction, beta)


@composite(family="losses", name="nn.functional.huber_loss", moves=True, samples=[*_PAIR, S(T(3), T(3), delta=0.5)])
def huber_loss(
    F: Any, input: Array, target: Array, reduction: Reduction = "mean", delta: float = 1.0, weight: Array | None = None
) -> Array:
    """0.5 d^2 where the difference d is at most `delta`, delta (|d| - 0.5 delta) elsewhere; the tensors broadcast."""
    reduction = legacy(None, None, reduction)  # type: ignore[assignment]
    if not delta > 0:
        raise Invalid("huber_loss does not support non-positive values for delta.", param="delta")
    given, other = _alike(F, input, target)
    if weight is None:
        return F._huber_loss(given, other, reduction, delta)
    return _weighted(F, F._huber_loss(given, other, "none", delta), input, weight, reduction, by_weight=False)


# ---------------------------------------------------------------- binary cross entropy


def _bce_types(k: K, input: Spec, target: Spec, weight: Any, reduction: Any) -> Any:
    return input.dtype, input.dtype


def _bce_meta(k: K, input: Spec, target: Spec, weight: Spec | None, reduction: str) -> Spec:
    if input.dtype.category != FLOAT:
        raise not_implemented("binary_cross_entropy", input.dtype)
    if target.dtype is not input.dtype:
        raise DtypeMismatch(
            f"Found dtype {scalar_type(target.dtype)} but expected {scalar_type(input.dtype)}",
            hint=Hint(
                "cast-one",
                Call("to", {"input": Param("target"), "dtype": input.dtype.name}),
                a=input.dtype.name,
                b=target.dtype.name,
                param="target",
            ),
            param="target",
        )
    if weight is not None:
        fits_input(weight.dtype, input.dtype)
    if weight is not None and broadcast_two(input.shape, weight.shape) != input.shape:
        raise ShapeMismatch(
            f"output with shape {text(input.shape)} doesn't match the broadcast shape "
            f"{text(broadcast_two(input.shape, weight.shape))}",
            param="weight",
        )
    return Spec(reduced_shape(input.shape, reduction), input.dtype)


@op(
    family="losses",
    node="BinaryCrossEntropyBackward0",
    meta=_bce_meta,
    promote=_bce_types,
    save={"input": ("input", "target", "weight"), "target": ("input", "weight")},
)
def _binary_cross_entropy(k: K, input: Array, target: Array, weight: Array | None, reduction: Any) -> Array:
    """-(t log(x) + (1 - t) log(1 - x)), logarithms no lower than -100, weighted and reduced."""
    xp = k.xp
    made = (target - 1) * xp.maximum(xp.log1p(-input), -100) - target * xp.maximum(xp.log(input), -100)
    if weight is not None:
        made *= weight
    return apply_reduction(k, made, reduction)


@_binary_cross_entropy.guard
def _(k: K, input: Any, target: Any, weight: Any, reduction: Any) -> None:
    for name, x in (("input", input), ("target", target)):
        if x.size and not bool(((x >= 0) & (x <= 1)).all()):
            hint = Hint("use-logits") if name == "input" else None
            raise Invalid(
                f"all elements of {name} should be between 0 and 1", code="not-a-probability", hint=hint, param=name
            )


@_binary_cross_entropy.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x = saved.input
    g = share(g, F.shape(x), saved.reduction)
    if saved.weight is not None:
        g = g * saved.weight
    mine = need.input and g * (x - saved.target) / F.clamp(x * (1 - x), 1e-12)
    theirs = need.target and g * (F.log1p(-x) - F.log(x))  # not held at -100 as the loss is
    return mine, theirs, None


def _p(*shape: int, grad: bool = True) -> T:
    """Probabilities that keep away from 0 and 1."""
    return T(*shape, low=0.1, high=0.9, grad=grad)


@composite(
    family="losses",
    name="nn.functional.binary_cross_entropy",
    moves=True,
    samples=[
        S(_p(3, 2), _p(3, 2)),
        S(_p(3, 2), _p(3, 2), T(2, grad=False), reduction="sum"),
        S(_p(3), _p(3), reduction="none"),
        S(_p(), _p()),
    ],
)
def binary_cross_entropy(
    F: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """-(t log(x) + (1 - t) log(1 - x)) for probabilities x and targets t, averaged, summed or as it is.

    Both lie in [0, 1] and have one shape; logarithms are no lower than -100. For logits there is
    binary_cross_entropy_with_logits, which is stable.
    """
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    if F.shape(target) != F.shape(input):
        raise ShapeMismatch(
            f"Using a target size ({torch_size(F.shape(target))}) that is different to the input size "
            f"({torch_size(F.shape(input))}) is deprecated. Please ensure they have the same size.",
            param="target",
        )
    undifferentiable(F, "binary_cross_entropy", weight=weight)
    return F._binary_cross_entropy(input, target, weight, reduction)


def _logits_types(k: K, input: Spec, target: Spec, *rest: Any) -> tuple[DType, DType]:
    """PyTorch's loss is computed into 1 - target, whose dtype it keeps."""
    return promote_types(input.dtype, target.dtype), target.dtype


def _logits_meta(k: K, input: Spec, target: Spec, weight: Spec | None, pos_weight: Spec | None, reduction: str) -> Spec:
    if input.dtype.category != FLOAT:
        raise not_implemented("log_sigmoid_cpu", input.dtype)
    if target.dtype.category != FLOAT:
        raise DtypeMismatch(
            f"result type {scalar_type(input.dtype)} can't be cast to the desired output type "
            f"{scalar_type(target.dtype)}",
            hint=Hint(
                "cast-one",
                Call("to", {"input": Param("target"), "dtype": input.dtype.name}),
                a=input.dtype.name,
                b=target.dtype.name,
                param="target",
            ),
            param="target",
        )
    if pos_weight is not None and pos_weight.dtype.category == BOOL:
        raise DtypeMismatch(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, "
            "use the `~` or `logical_not()` operator instead.",
            param="pos_weight",
        )
    for extra in (pos_weight, weight):
        if extra is not None:
            fits_input(extra.dtype, k.dtype)
    shape = input.shape
    for extra in (pos_weight, weight):
        if extra is not None:
            stays_within(shape, extra.shape, "weight" if extra is weight else "pos_weight")
    return Spec(reduced_shape(shape, reduction), k.dtype)


@op(
    family="losses",
    node="BinaryCrossEntropyWithLogitsBackward0",
    meta=_logits_meta,
    promote=_logits_types,
    over=("input", "target", "weight", "pos_weight"),
    save={"input": ("input", "target", "weight", "pos_weight"), "target": ("input", "weight", "pos_weight")},
)
def _bce_with_logits(
    k: K, input: Array, target: Array, weight: Array | None, pos_weight: Array | None, reduction: Any
) -> Array:
    """(1 - t) x + w log(1 + exp(-x)) with w = 1 + (pos_weight - 1) t, without overflow, weighted and reduced."""
    xp = k.xp
    made = xp.log1p(xp.exp(-xp.abs(input))) - xp.minimum(input, 0)
    if pos_weight is not None:
        made = made * ((pos_weight - 1) * target + 1)
    made = made + (1 - target) * input
    return apply_reduction(k, made if weight is None else made * weight, reduction)


@_bce_with_logits.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x, t, w, p = saved.input, saved.target, saved.weight, saved.pos_weight
    shape = F.shape(x)
    for extra in (p, w):
        if extra is not None:
            shape = broadcast_two(F.shape(extra), shape)
    g = share(g, shape, saved.reduction)
    if w is not None:
        g = g * w
    mine = theirs = None
    if need.input:
        mine = g * (F.sigmoid(x) - t) if p is None else g * ((p * t + 1 - t) * F.sigmoid(x) - p * t)
    if need.target:
        theirs = -g * x if p is None else g * ((1 - p) * F.logsigmoid(x) - x)
    return mine, theirs, None, None


@composite(
    family="losses",
    name="nn.functional.binary_cross_entropy_with_logits",
    moves=True,
    samples=[
        S(
            T(3, 2),
            _p(3, 2),
        ),
        S(
            T(3, 2),
            _p(3, 2),
            T(2, grad=False),
            reduction="sum",
        ),
        S(
            T(3, 2),
            _p(3, 2),
            reduction="none",
            pos_weight=T(2, low=0.5, grad=False),
        ),
        S(T(), _p()),
    ],
)
def binary_cross_entropy_with_logits(
    F: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """The binary cross entropy of sigmoid(input) with targets of the same shape, without overflow.

    `pos_weight` multiplies the loss of positive targets, `weight` every loss; both broadcast.
    """
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    if F.shape(target) != F.shape(input):
        raise ShapeMismatch(
            f"Target size ({torch_size(F.shape(target))}) must be the same as input size "
            f"({torch_size(F.shape(input))})",
            param="target",
        )
    undifferentiable(F, "binary_cross_entropy_with_logits", weight=weight, pos_weight=pos_weight)
    return F._bce_with_logits(input, target, weight, pos_weight, reduction)


# ---------------------------------------------------------------- kl_div


@composite(
    family="losses",
    name="nn.functional.kl_div",
    samples=[
        S(
            T(3, 2),
            _p(3, 2),
        ),
        S(T(3, 2), T(3, 2), reduction="batchmean", log_target=True),
        S(
            T(2),
            _p(2),
            reduction="none",
        ),
        S(T(), _p(), reduction="sum"),
    ],
)
def kl_div(
    F: Any,
    input: Array,
    target: Array,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: Literal["none", "batchmean", "sum", "mean"] = "mean",
    log_target: bool = False,
) -> Array:
    """t (log(t) - x) for log-probabilities x and probabilities t, or log-probabilities with `log_target`.

    "batchmean" divides the sum by the first size, which is the divergence; "mean" by the number of elements.
    """
    kinds = F.dtype(input).category, F.dtype(target).category
    if max(kinds) == COMPLEX:
        raise DtypeMismatch("kl_div: Complex inputs not supported.", param="input" if kinds[0] == COMPLEX else "target")
    for x in (input, target):
        if F.dtype(x).category < FLOAT:
            raise DtypeMismatch("kl_div: Integral inputs not supported.", param="input" if x is input else "target")
        if F.dtype(x).is_complex:
            raise DtypeMismatch("kl_div: Complex inputs not supported.", param="input" if x is input else "target")
    batch = reduction == "batchmean"  # PyTorch divides by the size whatever the older two parameters say
    plain = "sum" if batch and size_average is None and reduce is None else legacy(size_average, reduce, reduction)
    if log_target:
        losses = F.mul(F.exp(target), F.sub(target, input))
    else:
        losses = F.sub(F.xlogy(target, target), F.mul(target, input))
    made = reduce_in(F, losses, plain)
    return made / F.shape(input)[0] if batch and F.shape(input) else made


# ---------------------------------------------------------------- losses of distributions


@composite(
    family="losses",
    name="nn.functional.poisson_nll_loss",
    samples=[
        S(T(3), T(3, low=0.5, high=3.0)),
        S(T(3, low=0.5), T(3, low=0.5, high=3.0), log_input=False),
        S(T(3), T(3, low=1.5, high=3.0), full=True, reduction="sum"),
    ],
)
def poisson_nll_loss(
    F: Any,
    input: Array,
    target: Array,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """exp(x) - t x, or with log_input=False x - t log(x + eps); `full` adds Stirling's approximation of log(t!)."""
    if size_average is None and reduce is None and reduction not in ("none", "mean", "sum"):
        raise Invalid(f"{reduction} is not a valid value for reduction", param="reduction")
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    if log_input:
        losses = F.sub(F.exp(input), F.mul(target, input))
    else:
        losses = F.sub(input, F.mul(target, F.log(F.add(input, eps))))
    if full:
        log_target = F.log(target)
        stirling = F.add(F.sub(F.mul(target, log_target), target), F.mul(F.add(log_target, _LOG_TWO_PI), 0.5))
        losses = F.add(losses, F.where(F.gt(target, 1), stirling, 0.0))
    return reduce_in(F, losses, reduction)


_LOG_TWO_PI = 1.8378770664093453


def _negative_meta(k: K, var: Spec) -> Spec:
    return var


@op(family="losses", meta=_negative_meta)
def _check_variance(k: K, var: Array) -> Array:
    """The variances, none of which is negative."""
    return var.copy()


@_check_variance.guard
def _(k: K, var: Any) -> None:
    if bool((var < 0).any()):
        raise Invalid("var has negative entry/entries", param="var")


@_check_variance.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g


@composite(
    family="losses",
    name="nn.functional.gaussian_nll_loss",
    samples=[
        S(T(3, 2), T(3, 2), T(3, 2, low=0.5)),
        S(T(3, 2), T(3, 2), T(3, low=0.5), full=True),
        S(T(3), T(3), T(3, low=0.5), reduction="none"),
    ],
)
def gaussian_nll_loss(
    F: Any,
    input: Array,
    target: Array,
    var: Array,
    full: bool = False,
    eps: float = 1e-6,
    reduction: Reduction = "mean",
) -> Array:
    """0.5 (log(v) + (x - t)^2 / v) with variances v no smaller than `eps`; `full` adds the constant."""
    shape, mine = F.shape(input), F.shape(var)
    if mine != shape:
        if shape[:-1] == mine and shape:
            var = F.unsqueeze(var, -1)
        elif not (len(mine) == len(shape) and sum(m for n, m in zip(shape, mine, strict=True) if n != m) == 1):
            raise ShapeMismatch("var is of incorrect size", param="var")
    if reduction not in ("none", "mean", "sum"):
        raise Invalid(f"{reduction} is not valid", param="reduction")
    d = F.dtype(var)
    if d.category < FLOAT:
        raise DtypeMismatch(
            f"result type Float can't be cast to the desired output type {C_NAMES[d.name]}", param="var"
        )
    # The clamp is not differentiated: where it acts, the variance keeps the gradient it would have had.
    checked = F._check_variance(var)
    var = F.add(checked, F.detach(F.sub(F.clamp(checked, eps), checked)))
    difference = F.sub(input, target)
    losses = F.mul(F.add(F.log(var), F.div(F.mul(difference, difference), var)), 0.5)
    if full:
        losses = F.add(losses, 0.5 * _LOG_TWO_PI)
    return reduce_in(F, losses, reduction)
