"""Losses with class targets: cross_entropy and nll_loss."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import FLOAT, int64, scalar_type, uint8
from engine.errors import Call, DtypeMismatch, Hint, IndexOutOfRange, Invalid, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.losses import Reduction, legacy, undifferentiable
from engine.ops.reductions import total
from engine.ops.softmax import compiled_rows, probabilities, turned_lines
from engine.samples import I, S, T
from engine.shapes import text

# ---------------------------------------------------------------- targets


def _class_axis(shape: tuple[int, ...]) -> int:
    return 0 if len(shape) == 1 else 1


def _check_classes(input: Spec, target: Spec, weight: Spec | None) -> tuple[int, ...]:
    """What nll_loss asks of shapes and dtypes; the shape of the unreduced losses. Raises in PyTorch's words."""
    shape, given = input.shape, target.shape
    if not shape:
        raise ShapeMismatch("Expected 1 or more dimensions (got 0)", param="input")
    if len(shape) != 1 and shape[:1] != given[:1]:
        raise ShapeMismatch(
            f"Expected input batch_size ({shape[0]}) to match target batch_size ({given[0] if given else 0}).",
            hint=Hint("one-target-each", count=shape[0]),
            param="target",
        )
    classes = shape[_class_axis(shape)]
    if len(shape) <= 2:
        if len(given) > 1:
            raise ShapeMismatch("0D or 1D target tensor expected, multi-target not supported", param="target")
        if len(shape) == 1 and len(given) == 1 and given[0] != 1:
            raise ShapeMismatch(
                f"For 1D input, 1D target must have size 1, but got target size: {given[0]}", param="target"
            )
        if weight is not None and weight.shape != (classes,):
            raise ShapeMismatch(
                f"weight tensor should be defined either for all {classes} classes or no classes but got weight tensor "
                f"of shape: {text(weight.shape)}",
                param="weight",
            )
    else:
        if len(shape) == 4 and len(given) != 3:
            raise ShapeMismatch(
                f"only batches of spatial targets supported (3D tensors) but got targets of dimension: {len(given)}",
                param="target",
            )
        if given[1:] != shape[2:]:
            words = f"Expected target size {text((shape[0], *shape[2:]))}, got {text(given)}"
            if len(shape) == 4:
                words = f"size mismatch (got input: {text(shape)} , target: {text(given)}"
            raise ShapeMismatch(words, param="target")
        if weight is not None and weight.numel != classes:
            raise ShapeMismatch("weight tensor should be defined either for all or no classes", param="weight")
    if target.dtype is not int64 and (target.dtype is not uint8 or len(shape) > 2):
        d = scalar_type(target.dtype)
        raise DtypeMismatch(
            f"expected target dtype to be Long or Byte, but got {d}"
            if target.dtype is not uint8
            else f"expected scalar type Long but found {d}",
            code="index-dtype",
            hint=Hint(
                "cast-index",
                Call("to", {"input": Param("target"), "dtype": "int64"}),
                have=target.dtype.name,
                param="target",
            ),
            param="target",
        )
    if weight is not None and weight.dtype is not input.dtype:
        raise DtypeMismatch(
            f"expected scalar type {scalar_type(input.dtype)} but found {scalar_type(weight.dtype)}", param="weight"
        )
    return () if len(shape) == 1 else given


def _check_targets(target: Array, classes: int, ignore_index: int) -> None:
    """Refuses targets that are no class and are not ignored."""
    if not target.size:
        return
    whole = target if target.dtype.kind == "u" else target.view("u8")  # in which negative ones are large
    if int(whole.max()) < classes:
        return
    flat = target.reshape(-1).astype(int64.np)
    bad = ((flat < 0) | (flat >= classes)) & (flat != ignore_index)
    if bool(bad.any()):
        value = int(flat[int(bad.argmax())])
        raise IndexOutOfRange(
            f"Target {value} is out of bounds.",
            hint=Hint("index-range", low=0, high=classes - 1, index=value),
            param="target",
            index=value,
        )


class _Rows:
    """What the kernels need of the targets: where they point, which count, and what they weigh."""

    def __init__(self, k: K, target: Array, weight: Array | None, ignore_index: int, axis: int, dtype: Any) -> None:
        xp = k.xp
        self.axis = axis
        target = target.astype(int64.np) if axis else target.reshape(()).astype(int64.np)
        self.valid = target != ignore_index
        self.at = xp.where(self.valid, target, xp.zeros((), int64.np))
        if weight is None:
            self.weight = self.valid.astype(dtype)
        else:
            weight = weight.reshape(-1)
            self.weight = xp.where(self.valid, xp.take(weight, self.at), xp.zeros((), dtype))

    def pick(self, k: K, x: Array) -> Array:
        """x at the targets."""
        if x.ndim == 2 and self.axis:
            return x[k.xp.arange(x.shape[0]), self.at]
        index = k.xp.expand_dims(self.at, self.axis)
        return k.xp.take_along_axis(x, index, self.axis).reshape(self.at.shape)

    def add(self, k: K, x: Array, values: Array) -> None:
        """Adds one value per row to x at the targets."""
        xp = k.xp
        if x.ndim == 2 and self.axis:
            x[xp.arange(x.shape[0]), self.at] += values
            return
        index = xp.expand_dims(self.at, self.axis)
        there = xp.take_along_axis(x, index, self.axis)
        xp.put_along_axis(x, index, there + xp.expand_dims(values, self.axis), self.axis)


def _all_plain(k: K, x: Array, target: Array, weight: Array | None, ignore_index: int, smoothing: float) -> bool:
    """Whether all rows of a matrix on the CPU count, and count the same: the usual case, where little is to be done."""
    usual = weight is None and smoothing == 0 and ignore_index < 0 and x.ndim == 2 and x.size > 0
    return usual and k.backend.kind == "cpu" and int(k.xp.minimum.reduce(target)) >= 0


# ---------------------------------------------------------------- nll_loss


def _nll_meta(k: K, input: Spec, target: Spec, weight: Spec | None, reduction: str, ignore_index: int) -> Spec:
    shape = _check_classes(input, target, weight)
    if input.dtype.category != FLOAT:
        raise not_implemented("nll_loss_out_frame" if input.ndim < 3 else "nll_loss2d_forward_out_frame", input.dtype)
    return Spec(shape if reduction == "none" else (), input.dtype)


def _nll_node(input: Spec, target: Spec, weight: Any, reduction: str, *rest: Any) -> str:
    """torch's grad_fn; PyTorch views all but images as images, and back."""
    if input.ndim <= 2:
        return "NllLossBackward0"
    return "ViewBackward0" if reduction == "none" and input.ndim != 4 else "NllLoss2DBackward0"


@op(family="losses", node=_nll_node, meta=_nll_meta, save={"input": ("target", "weight")}, ties=True)
def _nll_loss(k: K, input: Array, target: Array, weight: Array | None, reduction: Any, ignore_index: Any) -> Array:
    """Minus the element of each row at its target, weighted and reduced: linear in the input."""
    rows = _Rows(k, target, weight, ignore_index, _class_axis(input.shape) if input.ndim > 1 else 0, input.dtype)
    xp = k.xp
    if input.shape[_class_axis(input.shape)] == 0:
        losses = xp.zeros(rows.at.shape, input.dtype)
    else:
        losses = xp.where(rows.valid, -rows.pick(k, input) * rows.weight, xp.zeros((), input.dtype))
    if reduction == "none":
        return losses
    made = losses.sum()
    return made if reduction == "sum" else xp.true_divide(made, rows.weight.sum())


@_nll_loss.guard
def _(k: K, input: Any, target: Any, weight: Any, reduction: Any, ignore_index: Any) -> None:
    _check_targets(target, input.shape[_class_axis(input.shape)], ignore_index)


@_nll_loss.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    return F._nll_loss_back(g, s.target, s.weight, s.input.shape, s.reduction, s.ignore_index), None, None


def _shaped(k: K, grad: Spec, target: Spec, weight: Any, shape: Any, *rest: Any) -> Spec:
    return Spec(shape, grad.dtype)


@op(family="losses", node="NllLossBackwardBackward0", meta=_shaped, save={"grad": ("target", "weight")})
def _nll_loss_back(
    k: K, grad: Array, target: Array, weight: Array | None, shape: Any, reduction: Any, ignore_index: Any
) -> Array:
    """The transpose of nll_loss."""
    xp = k.xp
    rows = _Rows(k, target, weight, ignore_index, _class_axis(shape) if len(shape) > 1 else 0, grad.dtype)
    made = xp.zeros(shape, grad.dtype)
    scale = -rows.weight * grad
    if reduction == "mean":
        scale = xp.where(rows.valid, xp.true_divide(scale, rows.weight.sum()), xp.zeros((), grad.dtype))
    if made.size:
        rows.add(k, made, scale)
    return made


@_nll_loss_back.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._nll_loss(g, saved.target, saved.weight, saved.reduction, saved.ignore_index), None, None


_TARGET = I(3, values=[0, 2, 1])


@composite(
    family="losses",
    name="nn.functional.nll_loss",
    moves=True,
    samples=[
        S(T(3, 4), _TARGET),
        S(T(3, 4), I(3, values=[0, 2, -100]), T(4, low=0.5, grad=False)),
        S(T(3, 4), _TARGET, reduction="none"),
        S(T(2, 3, 2), I(2, 2, high=3), reduction="sum"),
        S(T(4), I(high=4)),
        S(T(2, 3, 2, 2), I(2, 2, 2, high=3), ignore_index=1),
    ],
)
def nll_loss(
    F: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """Minus the log-probability of each target class; input (N, C) or (N, C, d1, ...), target (N) or (N, d1, ...).

    "mean" divides by the sum of the targets' weights; targets equal to `ignore_index` count nowhere.
    """
    undifferentiable(F, "nll_loss_forward", weight=weight)
    return F._nll_loss(input, target, weight, legacy(size_average, reduce, reduction), ignore_index)


# ---------------------------------------------------------------- cross_entropy


def _cross_meta(
    k: K, input: Spec, target: Spec, weight: Spec | None, reduction: str, ignore_index: int, smoothing: float
) -> Any:
    if input.dtype.category != FLOAT:
        raise not_implemented(f"log_softmax_{'lastdim_' if input.ndim < 3 else ''}kernel_impl", input.dtype)
    shape = _check_classes(input, target, weight)
    # Probabilities keep the precision they are computed in.
    return Spec(shape if reduction == "none" else (), input.dtype), Spec(input.shape, input.dtype.compute)


def _cross_node(input: Spec, target: Spec, weight: Any, reduction: str, ignore_index: int, smoothing: float) -> str:
    """torch's grad_fn, which is that of the last of the operations that PyTorch composes the loss of."""
    return "AddBackward0" if smoothing > 0 else _nll_node(input, target, weight, reduction)


def _of_columns(k: K, x: Array, target: Array | None) -> tuple[Array, Array]:
    """The losses, if targets are given, and the probabilities as rows again, of samples that are the columns of x."""
    xp = k.xp
    x = xp.subtract(x, xp.maximum.reduce(x, axis=0))
    at_target = None if target is None else x[target, xp.arange(x.shape[1])]
    xp.exp(x, out=x)
    s = xp.add.reduce(x, axis=0)
    x *= xp.reciprocal(s)
    if at_target is not None:
        xp.log(s, out=s)
        s -= at_target
    return s, xp.ascontiguousarray(x.T)


@op(
    family="losses",
    node=_cross_node,
    meta=_cross_meta,
    outputs=("result", "probs"),
    save={"input": ("target", "weight", "probs")},
)
def _cross_entropy(
    k: K, input: Array, target: Array, weight: Array | None, reduction: Any, ignore_index: Any, smoothing: Any
) -> Array:
    """The loss, and the probabilities, which the gradient is made of.

    In each row with target t, weight w and x' = x - max(x), s = sum(exp(x')):
    (1 - e) w[t] (log s - x'[t]) + e / C sum_c w[c] (log s - x'[c]), e the label smoothing.
    """
    xp = k.xp
    axis = _class_axis(input.shape) if input.ndim > 1 else 0
    if reduction != "none" and _all_plain(k, input, target, weight, ignore_index, smoothing):
        count = len(target)
        x, along, turned = turned_lines(k, input, axis)
        if turned:  # a copy of few lines
            losses, probs = _of_columns(k, x, target)
        else:
            probs, s, top = probabilities(k, x, along)
            losses = xp.log(s).reshape(-1) - (input[xp.arange(count), target] - top.reshape(-1))
        made = total(k, losses, None)
        return (made if reduction == "sum" else xp.true_divide(made, input.dtype.type(count))), probs
    rows = _Rows(k, target, weight, ignore_index, axis, input.dtype)
    classes = input.shape[axis]
    if input.size == 0:
        losses, probs = xp.zeros(rows.at.shape, input.dtype), xp.zeros(input.shape, input.dtype)
    else:
        x, along, turned = turned_lines(k, input, axis)
        probs, s, top = probabilities(k, x, along)
        log_s = xp.log(s).reshape(rows.at.shape)
        losses = (log_s - (rows.pick(k, input) - top.reshape(rows.at.shape))) * rows.weight
        if smoothing > 0:
            spread = x - top
            if weight is None:
                smooth = log_s * classes - spread.sum(axis=along).reshape(rows.at.shape)
            else:
                w = weight.reshape((-1,) + (1,) * (x.ndim - 1 - along))
                smooth = log_s * weight.sum() - (spread * w).sum(axis=along).reshape(rows.at.shape)
            losses = losses * (1 - smoothing) + smooth * (smoothing / classes)
        losses = xp.where(rows.valid, losses, xp.zeros((), input.dtype))
        probs = probs.T.reshape(input.shape) if turned else probs
    if reduction == "none":
        return losses, probs
    made = total(k, losses, None)
    return (made if reduction == "sum" else xp.true_divide(made, rows.weight.sum())), probs


@_cross_entropy.alone("probs")
def _(k: K, input: Array, target: Array, weight: Any, reduction: Any, ignore_index: Any, smoothing: Any) -> Array:
    if input.size == 0:
        return k.xp.zeros(input.shape, input.dtype)
    x, along, turned = turned_lines(k, input, _class_axis(input.shape) if input.ndim > 1 else 0)
    if turned and reduction != "none" and _all_plain(k, input, target, weight, ignore_index, smoothing):
        return _of_columns(k, x, None)[1]
    probs = probabilities(k, x, along)[0]
    return probs.T.reshape(input.shape) if turned else probs


@_cross_entropy.guard
def _(k: K, input: Any, target: Any, weight: Any, reduction: Any, ignore_index: Any, smoothing: Any) -> None:
    _check_targets(target, input.shape[_class_axis(input.shape)], ignore_index)


@_cross_entropy.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    made = None
    if g[0] is not None:
        made = F._cross_entropy_back(g[0], s.probs, s.target, s.weight, s.reduction, s.ignore_index, s.smoothing)
    if g[1] is not None:
        through = F._softmax_back(g[1], s.probs, _class_axis(s.input.shape))
        made = through if made is None else F.add(made, through)
    return made, None, None


@_cross_entropy.array_vjp
def _(k: K, values: Any, g: Any, mask: int) -> Any:
    _, target, weight, reduction, ignore_index, smoothing, _, probs = values
    if g[1] is not None:
        return NotImplemented
    return _back(k, g[0], probs, target, weight, reduction, ignore_index, smoothing), None, None


def _coefficients(k: K, rows: _Rows, weight: Array | None, classes: int, reduction: str, smoothing: float) -> Any:
    """(a, b, c): the gradient of a row is a p - b onehot(t) - c w."""
    xp = k.xp
    b, c = rows.weight, None
    if smoothing > 0:
        b = b * (1 - smoothing)
        c = rows.valid.astype(b.dtype) * (smoothing / classes)
        a = b + c * (classes if weight is None else weight.sum())
    else:
        a = b
    if reduction == "mean":
        n = rows.weight.sum()
        zero = xp.zeros((), b.dtype)  # where all targets are ignored, n is zero, and the gradient zero, not NaN
        a, b = xp.where(rows.valid, xp.true_divide(a, n), zero), xp.where(rows.valid, xp.true_divide(b, n), zero)
        c = None if c is None else xp.where(rows.valid, xp.true_divide(c, n), zero)
    return a, b, c


def _back(
    k: K,
    grad: Array,
    probs: Array,
    target: Array,
    weight: Array | None,
    reduction: Any,
    ignore_index: Any,
    smoothing: Any,
) -> Array:
    xp = k.xp
    axis = _class_axis(probs.shape) if probs.ndim > 1 else 0
    if reduction != "none" and _all_plain(k, probs, target, weight, ignore_index, smoothing):
        count, one = len(target), probs.dtype.type(1)
        each = (one if reduction == "sum" else one / probs.dtype.type(count)) * grad
        made = xp.multiply(probs, each)
        made[xp.arange(count), target] -= each
        return made
    rows = _Rows(k, target, weight, ignore_index, axis, probs.dtype)
    a, b, c = _coefficients(k, rows, weight, probs.shape[axis], reduction, smoothing)
    a, b = a * grad, b * grad
    run, (rows_of_probs, *_) = compiled_rows(k, "scale_rows", axis, probs)
    if run is not None:
        made = xp.empty_like(probs)
        run(rows_of_probs, xp.ascontiguousarray(a, probs.dtype).reshape(-1), made.reshape(rows_of_probs.shape))
    else:
        made = xp.multiply(probs, xp.expand_dims(a, axis))
    if made.size:
        if c is not None:
            c = xp.expand_dims(c * grad, axis)
            made -= c if weight is None else c * weight.reshape((-1,) + (1,) * (probs.ndim - 1 - axis))
        rows.add(k, made, -b)
    return made


def _back_meta(k: K, grad: Spec, probs: Spec, *rest: Any) -> Spec:
    return probs


@op(
    family="losses",
    node="NllLossBackwardBackward0",
    meta=_back_meta,
    save={"grad": ("probs", "target", "weight"), "probs": ("grad", "target", "weight")},
)
def _cross_entropy_back(
    k: K,
    grad: Array,
    probs: Array,
    target: Array,
    weight: Array | None,
    reduction: Any,
    ignore_index: Any,
    smoothing: Any,
) -> Array:
    """The gradient of cross_entropy: linear in `grad`, affine in the probabilities."""
    return _back(k, grad, probs, target, weight, reduction, ignore_index, smoothing)


@_cross_entropy_back.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    rest = (saved.target, saved.weight, saved.reduction, saved.ignore_index, saved.smoothing)
    mine = theirs = None
    axis = _class_axis(saved.probs.shape)
    if need.grad:
        unit = F.ones_like(F.sum(g, axis)) if saved.reduction == "none" else F.ones_like(F.sum(g))
        mine = g * F._cross_entropy_back(unit, saved.probs, *rest)
        mine = F.sum(mine, axis) if saved.reduction == "none" else F.sum(mine)
    if need.probs:
        theirs = g * F._cross_entropy_rows(saved.grad, *rest, saved.probs.shape)
    return mine, theirs, None, None


def _rows_meta(
    k: K, grad: Spec, target: Spec, weight: Any, reduction: Any, ignore_index: Any, smoothing: Any, shape: Any
) -> Spec:
    axis = _class_axis(shape)
    return Spec((*shape[:axis], 1, *shape[axis + 1 :]), grad.dtype)


@op(family="losses", node="NllLossBackwardBackward0", meta=_rows_meta, save={"grad": ("target", "weight")})
def _cross_entropy_rows(
    k: K,
    grad: Array,
    target: Array,
    weight: Array | None,
    reduction: Any,
    ignore_index: Any,
    smoothing: Any,
    shape: Any,
) -> Array:
    """What multiplies the probabilities in the gradient of cross_entropy, with the class axis of size 1."""
    axis = _class_axis(shape) if len(shape) > 1 else 0
    rows = _Rows(k, target, weight, ignore_index, axis, grad.dtype)
    a, _, _ = _coefficients(k, rows, weight, shape[axis], reduction, smoothing)
    return k.xp.expand_dims(a * grad, axis)


@_cross_entropy_rows.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    axis = _class_axis(s.shape)
    none = s.reduction == "none"
    g = F.sum(g, axis)
    unit = F.ones_like(g) if none else F.ones_like(F.sum(g))
    scale = F._cross_entropy_rows(unit, s.target, s.weight, s.reduction, s.ignore_index, s.smoothing, s.shape)
    made = g * F.sum(scale, axis)
    return made if none else F.sum(made), None, None


@composite(family="losses")
def _cross_entropy_soft(
    F: Any, input: Array, target: Array, weight: Array | None, reduction: Any, smoothing: Any
) -> Array:
    """cross_entropy for targets that are probabilities."""
    shape = F.shape(input)
    axis = 0 if len(shape) <= 1 else 1
    classes = shape[axis] if shape else 1
    if weight is not None and F.shape(weight) != (classes,):
        raise ShapeMismatch(
            f"cross_entropy: weight tensor should be defined either for all {classes} classes or no classes but got "
            f"weight tensor of shape: {text(F.shape(weight))}",
            param="weight",
        )
    logs = F.log_softmax(input, axis)
    if smoothing > 0:
        target = F.add(F.mul(target, 1 - smoothing), smoothing / classes)
    terms = F.mul(logs, target)
    if weight is not None:
        terms = F.mul(terms, F.reshape(weight, (classes,) + (1,) * max(len(shape) - 2, 0)))
    if reduction == "none":
        return F.neg(F.sum(terms, axis))
    made = F.neg(F.sum(terms))
    if reduction == "sum":
        return made
    n = 1
    for size in shape:
        n *= size
    return F.div(made, n // classes if n else 0)


def _check_smoothing(smoothing: float) -> None:
    if smoothing > 1:  # PyTorch does not look at the other end
        raise Invalid(f"label_smoothing must be between 0.0 and 1.0. Got: {smoothing:g}", param="label_smoothing")


@composite(
    family="losses",
    name="nn.functional.cross_entropy",
    moves=True,
    samples=[
        S(T(3, 4), _TARGET),
        S(T(3, 4), I(3, values=[0, 2, -100]), T(4, low=0.5, grad=False)),
        S(T(3, 4), T(3, 4, low=0.0, high=1.0)),
        S(T(3, 4), _TARGET, label_smoothing=0.1, reduction="none"),
        S(T(2, 3, 2), I(2, 2, high=3), reduction="sum"),
        S(T(4), I(high=4)),
        S(T(3, 4), _TARGET, T(4, low=0.5, grad=False), label_smoothing=0.2),
    ],
)
def cross_entropy(
    F: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """The cross entropy of softmax(input) with class targets, or with probabilities of the input's shape.

    input (N, C) or (N, C, d1, ...), or (C) alone; class targets (N) or (N, d1, ...), int64. "mean" divides by the sum
    of the targets' weights; targets equal to `ignore_index` count nowhere.
    """
    reduction = legacy(size_average, reduce, reduction)  # type: ignore[assignment]
    if F.shape(input) == F.shape(target):
        if F.dtype(target).category != FLOAT:
            raise DtypeMismatch(
                f"Expected floating point type for target with class probabilities, got {scalar_type(F.dtype(target))}",
                param="target",
            )
        _check_smoothing(label_smoothing)
        if ignore_index >= 0:
            raise Invalid("ignore_index is not supported for floating point target", param="ignore_index")
        return F._cross_entropy_soft(input, target, weight, reduction, label_smoothing)
    _check_smoothing(label_smoothing)
    undifferentiable(F, "nll_loss_forward", weight=weight)
    return F._cross_entropy(input, target, weight, reduction, ignore_index, label_smoothing)[0]
