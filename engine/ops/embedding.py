"""Tables of vectors that are looked up by index."""

from __future__ import annotations

from math import isinf
from typing import Any, Literal

from engine.carriers import K
from engine.context import grad_mode
from engine.declare import Array, composite, op
from engine.dtypes import FLOAT, int32, int64, scalar_type, tensor_type
from engine.errors import DtypeMismatch, IndexOutOfRange, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import publish_inplace
from engine.ops.losses import torch_size
from engine.ops.scatter import add_rows, cast_index, check_range, floats
from engine.samples import I, S, T
from engine.shapes import text

_PAIR = I(2, 2, values=[[0, 2], [2, 1]])


def _lookup_meta(k: K, weight: Spec, indices: Spec, *rest: Any) -> Spec:
    return _looked_up(weight, indices, "embedding", 1)


def _looked_up(weight: Spec, indices: Spec, caller: str, at: int) -> Spec:
    if weight.ndim != 2:
        raise ShapeMismatch("'weight' must be 2-D", param="weight")
    if indices.dtype is not int64 and indices.dtype is not int32:
        name = tensor_type(indices.dtype)
        raise cast_index(
            f"Expected tensor for argument #{at} 'indices' to have one of the following scalar types: Long, Int; but "
            f"got {name} instead (while checking arguments for {caller})",
            indices,
            "input",
        )
    return Spec((*indices.shape, weight.shape[1]), weight.dtype)


@op(
    family="nn",
    meta=_lookup_meta,
    moves=True,
    save={"weight": ("indices",)},
    samples=[
        S(T(3, 2), _PAIR),
        S(T(3, 2), I(4, high=3), 1),
        S(T(3, 2), _PAIR, scale_grad_by_freq=True),
        S(T(3, 2), I(high=3)),
        S(T(3, 2), I(0)),
    ],
)
def embedding(
    k: K, weight: Array, indices: Array, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Array:
    """The rows of `weight` (V x D) at `indices`; the row `padding_idx` gets no gradient.

    `scale_grad_by_freq` divides a row's gradient by how often its index occurs; gradients are dense always.
    """
    return k.xp.take(weight, indices, axis=0)


@embedding.guard
def _(k: K, weight: Any, indices: Any, *rest: Any) -> None:
    check_range(indices, 0, weight.shape[0], "index out of range in self", "input")


@embedding.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._embedding_backward(
        g, saved.indices, saved.weight.shape[0], saved.padding_idx, saved.scale_grad_by_freq
    ), None


def _table_meta(k: K, src: Spec, indices: Spec, rows: Any, padding_idx: Any, by_frequency: Any) -> Spec:
    return Spec((rows, src.shape[-1]), src.dtype)


@op(family="nn", meta=_table_meta, node="EmbeddingDenseBackwardBackward0", save={"src": ("indices",)})
def _embedding_backward(k: K, src: Array, indices: Array, rows: Any, padding_idx: Any, by_frequency: Any) -> Array:
    """The sum of the gradients of each row of the table."""
    src = floats(k, src)
    made = k.xp.zeros((rows, src.shape[-1]), src.dtype)
    if src.size:
        flat = indices.reshape(-1)
        add_rows(k, made, flat, src.reshape(-1, src.shape[-1]))
        if by_frequency:
            made /= k.xp.maximum(k.xp.bincount(flat, None, rows), 1).astype(made.dtype)[:, None]
    if padding_idx >= 0:
        made[padding_idx] = 0
    return made


@_embedding_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    if saved.by_frequency or saved.padding_idx >= 0:
        g = F._embedding_mask(g, saved.indices, saved.padding_idx, saved.by_frequency)
    return F.embedding(g, saved.indices), None


def _mask_meta(k: K, rows: Spec, indices: Spec, padding_idx: Any, by_frequency: Any) -> Spec:
    return rows


@op(family="nn", meta=_mask_meta, save={"rows": ("indices",)})
def _embedding_mask(k: K, rows: Array, indices: Array, padding_idx: Any, by_frequency: Any) -> Array:
    """Rows divided by how often they are looked up, the padding row zero: the transpose of the backward's scaling."""
    made = rows.copy()
    if by_frequency:
        made /= k.xp.maximum(k.xp.bincount(indices.reshape(-1), None, made.shape[0]), 1).astype(made.dtype)[:, None]
    if padding_idx >= 0:
        made[padding_idx] = 0
    return made


@_embedding_mask.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._embedding_mask(g, saved.indices, saved.padding_idx, saved.by_frequency), None


def _renorm_meta(k: K, input: Spec, indices: Spec, max_norm: Any, norm_type: Any) -> Spec:
    if input.ndim != 2:
        raise ShapeMismatch(
            f"Expected 2-dimensional tensor, but got {input.ndim}-dimensional tensor for argument #1 'self' (while "
            "checking arguments for embedding_renorm_)",
            param="input",
        )
    _looked_up(input, indices, "embedding_renorm_", 2)
    if input.dtype.category < FLOAT:
        raise DtypeMismatch(
            f"norm(): input dtype should be either floating point or complex. Got {scalar_type(input.dtype)} instead.",
            code="dtype-not-implemented",
            param="weight",
        )
    return input


@op(
    family="nn",
    meta=_renorm_meta,
    vjp=None,
    updates=True,
    inplace=True,
    node="EmbeddingRenormBackward0",
    samples=[S(T(3, 2, grad=False), _PAIR, 1.0, 2.0), S(T(3, 2, grad=False), I(high=3), 0.5, 1.0)],
)
def _embedding_renorm(
    k: K, input: Array, indices: Array, max_norm: float, norm_type: float, *, out: Any = None
) -> Array:
    """Scales each row of a table that is looked up down to `max_norm` where its norm is larger, in place."""
    xp = k.xp
    made = input.copy() if out is None else out
    used = xp.unique(indices.reshape(-1))
    rows = made[used]
    if norm_type == 0:
        size = (rows != 0).sum(axis=1)
    elif isinf(norm_type):
        size = xp.abs(rows).max(axis=1) if norm_type > 0 else xp.abs(rows).min(axis=1)
    else:
        size = (xp.abs(rows) ** norm_type).sum(axis=1) ** (1.0 / norm_type)
    scale = xp.where(size > max_norm, max_norm / (size + 1e-7), xp.ones((), rows.dtype)).astype(rows.dtype)
    made[used] = rows * scale[:, None]
    return made


@_embedding_renorm.guard
def _(k: K, input: Any, indices: Any, *rest: Any) -> None:
    check_range(
        indices,
        0,
        input.shape[0],
        lambda bad: f"select(): index {bad} out of range for tensor of size {text(input.shape)} at dimension 0",
    )


publish_inplace(_embedding_renorm, "embedding_renorm_")


def _padding(padding_idx: int | None, rows: int) -> int:
    if padding_idx is None:
        return -1
    if not -rows <= padding_idx < rows:
        raise Invalid("Padding_idx must be within num_embeddings", param="padding_idx")
    return padding_idx + rows if padding_idx < 0 else padding_idx


@composite(
    family="nn",
    name="nn.functional.embedding",
    moves=True,
    samples=[
        S(_PAIR, T(3, 2)),
        S(I(4, high=3), T(3, 2), padding_idx=1),
        S(I(high=3), T(3, 2)),
        S(_PAIR, T(3, 2), scale_grad_by_freq=True),
    ],
)
def embedding_lookup(
    F: Any,
    input: Array,
    weight: Array,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Array:
    """The rows of `weight` at the indices `input`; the row `padding_idx` gets no gradient.

    `max_norm` first scales the rows that are looked up, in `weight` itself, down to that norm (of `norm_type`).
    Gradients are dense always; `sparse` is taken and makes no difference.
    """
    shape = F.shape(weight)
    at = _padding(padding_idx, shape[0]) if shape else -1
    if max_norm is not None and F.recording:
        with grad_mode(False):
            F.embedding_renorm_(weight, input, max_norm, norm_type)
    return F.embedding(weight, input, at, scale_grad_by_freq, sparse)


# ---------------------------------------------------------------- bags


def _bags_meta(k: K, offsets: Spec, count: int, bags: int) -> Spec:
    return Spec((count,), int64)


@op(family="nn", meta=_bags_meta, vjp=None)
def _bag_of(k: K, offsets: Array, count: Any, bags: Any) -> Array:
    """Which bag each of `count` indices belongs to."""
    xp = k.xp
    at = xp.searchsorted(offsets.astype(int64.np), xp.arange(count, dtype=int64.np), side="right") - 1
    return xp.minimum(at, bags - 1).astype(int64.np)


@_bag_of.guard
def _(k: K, offsets: Any, count: Any, bags: Any) -> None:
    if not offsets.size:
        return
    if int(offsets[0]) != 0:
        raise IndexOutOfRange(
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. However, "
            f"got {int(offsets[0])}\n[ torch.{'Long' if offsets.dtype == int64.np else 'Int'}Tensor{{}} ]",
            param="offsets",
        )
    if int(offsets[-1]) > count:
        raise IndexOutOfRange(
            f"offsets[-1] can not be greater than input's length {count} but got offsets[-1] of {int(offsets[-1])}",
            param="offsets",
        )


def _check_bags(F: Any, input: Any, weight: Any, offsets: Any, mode: str, per_sample: Any, by_frequency: bool) -> None:
    shape, table = F.shape(input), F.shape(weight)
    if per_sample is not None and F.shape(per_sample) != shape:
        raise ShapeMismatch(
            f"embedding_bag: If per_sample_weights ({torch_size(F.shape(per_sample))}) is not None, then it must have "
            f"the same shape as the input ({torch_size(shape)})",
            param="per_sample_weights",
        )
    if len(table) != 2:
        raise ShapeMismatch(f"weight has to be a 2D Tensor, but got Tensor of dimension {len(table)}", param="weight")
    if len(shape) == 2 and offsets is not None:
        raise ShapeMismatch(
            "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed length "
            "sequences. However, found offsets of type <class 'torch.Tensor'>",
            param="offsets",
        )
    if len(shape) == 1 and offsets is None:
        raise ShapeMismatch("offsets has to be a 1D Tensor but got None", param="offsets")
    if len(shape) == 1 and len(F.shape(offsets)) != 1:
        raise ShapeMismatch("offsets has to be a 1D Tensor", param="offsets")
    if len(shape) not in (1, 2):
        raise ShapeMismatch(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {len(shape)}", param="input")
    if mode not in ("sum", "mean", "max"):
        raise Invalid("mode has to be one of sum, mean or max", param="mode")
    if mode == "max" and by_frequency:
        raise Invalid("max mode does not support scaling the gradient by the frequency", param="scale_grad_by_freq")
    if per_sample is not None and mode != "sum":
        raise Invalid(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' (got "
            f"mode='{mode}').",
            param="per_sample_weights",
        )


def _check_bag_types(F: Any, input: Any, weight: Any, offsets: Any, per_sample: Any) -> None:
    found = F.dtype(weight)
    for x in (input, offsets):
        if x is not None and F.dtype(x) not in (int32, int64):
            raise DtypeMismatch(
                "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but "
                f"got {tensor_type(F.dtype(x))} instead (while checking arguments for embedding_bag)",
                code="index-dtype",
                param="input" if x is input else "offsets",
            )
    if found.category != FLOAT:
        got = tensor_type(found)
        raise DtypeMismatch(
            "Expected tensor for argument #1 'weight' to have one of the following scalar types: Half, BFloat16, "
            f"Float, Double; but got {got} instead (while checking arguments for embedding_bag)",
            param="weight",
        )
    if per_sample is not None and F.dtype(per_sample) is not found:
        raise DtypeMismatch(
            "Expected tensor for argument #1 'weight' to have the same type as tensor for argument #1 "
            f"'per_sample_weights'; but type {tensor_type(found)} does not equal {tensor_type(F.dtype(per_sample))} "
            "(while checking arguments for embedding_bag)",
            param="per_sample_weights",
        )


_BAG = I(6, values=[0, 2, 1, 1, 2, 0])
_OFFSETS = I(2, values=[0, 4])


@composite(
    family="nn",
    name="nn.functional.embedding_bag",
    node="EmbeddingBagBackward0",
    samples=[
        S(_PAIR, T(3, 2)),
        S(_BAG, T(3, 2), _OFFSETS, mode="sum"),
        S(_BAG, T(3, 2, distinct=True), _OFFSETS, mode="max"),
        S(_BAG, T(3, 2), _OFFSETS, mode="sum", per_sample_weights=T(6)),
        S(_BAG, T(3, 2), I(3, values=[0, 4, 6]), include_last_offset=True, padding_idx=1),
    ],
)
def embedding_bag(
    F: Any,
    input: Array,
    weight: Array,
    offsets: Array | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: Literal["sum", "mean", "max"] = "mean",
    sparse: bool = False,
    per_sample_weights: Array | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Array:
    """The sum, mean or maximum of the rows of `weight` at each bag of indices.

    A bag is a row of a matrix `input`, or begins at each of the `offsets` into a vector. Indices equal to `padding_idx`
    do not count. `sparse` is taken and makes no difference.
    """
    _check_bags(F, input, weight, offsets, mode, per_sample_weights, scale_grad_by_freq)
    if mode == "max" and sparse:
        raise Invalid("max mode does not support sparse weights", param="sparse")
    shape, (rows, width) = F.shape(input), F.shape(weight)
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise Invalid(
            f"padding_idx must be within the number of embeddings, {-rows} through {rows - 1}, but got {padding_idx}",
            param="padding_idx",
        )
    if max_norm is not None and F.recording:
        with grad_mode(False):
            F.embedding_renorm_(weight, input, max_norm, norm_type)
    _check_bag_types(F, input, weight, offsets, per_sample_weights)
    padding = _padding(padding_idx, rows)
    count = shape[0] if len(shape) == 1 else shape[0] * shape[1]
    if offsets is None:
        bags = shape[0]
        bag = F._bag_of_row(input)
    else:
        bags = F.shape(offsets)[0] - int(include_last_offset)
        bag = F._bag_of(F.narrow(offsets, 0, 0, bags), count, bags)
    flat = F.reshape(input, (count,))
    picked = F.embedding(weight, flat, padding, scale_grad_by_freq)
    if per_sample_weights is not None:
        picked = F.mul(picked, F.unsqueeze(F.reshape(per_sample_weights, (count,)), 1))
    counted = None if padding_idx is None else F.unsqueeze(F.ne(flat, padding), 1)
    empty = F.new_zeros(picked, (bags, width))
    if mode == "max":
        if counted is not None:
            picked = F.where(counted, picked, float("-inf"))
        made = F.index_reduce(empty, 0, bag, picked, "amax", False)
        return made if counted is None else F.where(F.eq(made, float("-inf")), 0.0, made)
    if counted is not None:
        picked = F.mul(picked, counted)
    made = F.index_add(empty, 0, bag, picked)
    if mode == "sum":
        return made
    ones = F.ones_like(F.narrow(picked, 1, 0, min(width, 1)))
    if counted is not None:
        ones = F.mul(ones, counted)
    sizes = F.index_add(F.new_zeros(picked, (bags, min(width, 1))), 0, bag, ones)
    return F.div(made, F.clamp_min(sizes, 1))


def _bag_row_meta(k: K, input: Spec) -> Spec:
    return Spec((input.numel,), int64)


@op(family="nn", meta=_bag_row_meta, vjp=None)
def _bag_of_row(k: K, input: Array) -> Array:
    """Which row each element of a matrix lies in."""
    return k.xp.repeat(k.xp.arange(input.shape[0], dtype=int64.np), input.shape[1])
