"""Tables of vectors that are looked up by index."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.context import grad_mode
from engine.declare import Array, composite, op
from engine.dtypes import TENSOR_TYPES, bool_, int32, int64
from engine.errors import Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.scatter import add_rows, cast_index, check_range, floats
from engine.samples import I, S, T

_PAIR = I(2, 2, values=[[0, 2], [2, 1]])


def _lookup_meta(k: K, weight: Spec, indices: Spec, *rest: Any) -> Spec:
    if weight.ndim != 2:
        raise ShapeMismatch("'weight' must be 2-D", param="weight")
    if indices.dtype is not int64 and indices.dtype is not int32:
        name = "CPUBoolType" if indices.dtype is bool_ else f"torch.{TENSOR_TYPES[indices.dtype.name]}"
        raise cast_index(
            "Expected tensor for argument #1 'indices' to have one of the following scalar types: Long, Int; but got "
            f"{name} instead (while checking arguments for embedding)",
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
    _lookup_meta(k, input, indices)
    return input


@op(family="nn", meta=_renorm_meta, vjp=None, updates=True, inplace=True)
def _embedding_renorm(k: K, input: Array, indices: Array, max_norm: Any, norm_type: Any, *, out: Any = None) -> Array:
    """The table with each row that is looked up scaled down to `max_norm` where its norm is larger."""
    xp = k.xp
    made = input.copy() if out is None else out
    used = xp.unique(indices.reshape(-1))
    rows = made[used]
    size = (
        (xp.abs(rows) ** norm_type).sum(axis=1) ** (1.0 / norm_type)
        if norm_type != float("inf")
        else abs(rows).max(axis=1)
    )
    scale = xp.where(size > max_norm, max_norm / (size + 1e-7), xp.ones((), rows.dtype)).astype(rows.dtype)
    made[used] = rows * scale[:, None]
    return made


@_embedding_renorm.guard
def _(k: K, input: Any, indices: Any, *rest: Any) -> None:
    check_range(indices, 0, input.shape[0], "index out of range in self", "input")


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
            F._embedding_renorm_(weight, input, max_norm, norm_type)
    return F.embedding(weight, input, at, scale_grad_by_freq, sparse)
