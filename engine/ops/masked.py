"""Values written where a mask or the diagonal is, and the coordinates of flat indices."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from engine.carriers import K
from engine.context import Context
from engine.declare import Array, Ints, Scalar, Shape, composite, op, special
from engine.dtypes import BOOL, FLOAT, int64, scalar_type, tensor_type
from engine.errors import DtypeMismatch, Hint, Invalid, ShapeMismatch
from engine.op import REGISTRY, Spec
from engine.samples import B, C, I, S, T
from engine.shapes import broadcast_two, contiguous_strides, text

# ---------------------------------------------------------------- where a mask is true


def _scatter_meta(k: K, input: Spec, mask: Spec, source: Spec) -> Spec:
    shape = broadcast_two(mask.shape, input.shape)
    if input.dtype is not source.dtype:
        raise DtypeMismatch(
            f"masked_scatter: expected self and source to have same dtypes but got{scalar_type(input.dtype)} and "
            f"{scalar_type(source.dtype)}",
            param="source",
        )
    if mask.dtype.category != BOOL:
        raise DtypeMismatch(
            "masked_scatter_ only supports boolean masks, but got mask with dtype " + scalar_type(mask.dtype),
            hint=Hint("bool-mask"),
            param="mask",
        )
    return Spec(shape, input.dtype)


_MASK = T(2, 3, dtype="bool", values=[[True, False, True], [False, True, True]])


@op(
    family="indexing",
    meta=_scatter_meta,
    inplace=True,
    save={"input": ("mask",), "source": ("mask",)},
    samples=[
        S(T(2, 3), _MASK, T(5)),
        S(T(2, 3), _MASK, T(2, 3)),
        S(T(3), _MASK, T(4)),
        S(T(), B(), T(1)),
        S(T(0, 2), B(0, 2), T(0)),
        S(I(2, 3), _MASK, I(4)),
        S(C(2, 3), _MASK, C(4)),
    ],
)
def masked_scatter(k: K, input: Array, mask: Array, source: Array) -> Array:
    """A copy with the elements of `source`, in their order, in the places where the mask is true."""
    made = k.xp.empty(k.spec.shape, input.dtype)
    made[...] = input
    chosen = k.xp.flatnonzero(k.xp.broadcast_to(mask, made.shape))
    made.reshape(-1)[chosen] = source.reshape(-1)[: chosen.size]
    return made


@masked_scatter.guard
def _(k: K, input: Any, mask: Any, source: Any) -> None:
    shape = broadcast_two(mask.shape, input.shape)
    wanted = int(mask.sum()) * (prod(shape) // max(prod(mask.shape), 1))
    if wanted > source.size:
        raise Invalid("Number of elements of source < number of ones in mask", param="source")


def _inplace_meta(k: K, input: Spec, mask: Spec, source: Spec) -> None:
    if mask.ndim > input.ndim:
        raise ShapeMismatch(
            f"expand({tensor_type(mask.dtype)}{{{text(mask.shape)}}}, size={text(input.shape)}): the "
            f"number of sizes provided ({input.ndim}) must be greater or equal to the number of dimensions in the "
            f"tensor ({mask.ndim})",
            param="mask",
        )
    theirs = (1,) * (input.ndim - mask.ndim) + mask.shape
    for i, (n, m) in enumerate(zip(input.shape, theirs, strict=True)):
        if m not in (1, n):
            raise ShapeMismatch(
                f"The expanded size of the tensor ({n}) must match the existing size ({m}) at non-singleton dimension "
                f"{i}.  Target sizes: {text(input.shape)}.  Tensor sizes: {text(mask.shape)}",
                param="mask",
            )


REGISTRY["masked_scatter_"].meta = _inplace_meta


@masked_scatter.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (
        need.input and F.masked_fill(g, saved.mask, 0),
        None,
        need.source and F._masked_gather(g, saved.mask, saved.source.shape),
    )


def _gather_meta(k: K, input: Spec, mask: Spec, sizes: Any) -> Spec:
    return Spec(tuple(sizes), input.dtype)


@op(
    family="indexing",
    meta=_gather_meta,
    node="MaskedScatterBackwardBackward0",
    save={"input": ("mask",)},
    samples=[S(T(2, 3), _MASK, [2, 3])],
)
def _masked_gather(k: K, input: Array, mask: Array, sizes: Shape) -> Array:
    """The elements where the mask is true, then zeros: the gradient of masked_scatter for its source."""
    made = k.xp.zeros(tuple(sizes), input.dtype)
    chosen = k.xp.ascontiguousarray(input).reshape(-1)[k.xp.flatnonzero(k.xp.broadcast_to(mask, input.shape))]
    made.reshape(-1)[: chosen.size] = chosen
    return made


@_masked_gather.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.masked_scatter(F.new_zeros(g, saved.input.shape), saved.mask, g)


# ---------------------------------------------------------------- the diagonal


@special(family="indexing", samples=[S(T(3, 3), 1.5), S(T(5, 2), 1, True), S(I(2, 3), 7), S(T(2, 2, 2), 0)])
def fill_diagonal_(ctx: Context, input: Array, fill_value: Scalar, wrap: bool = False) -> Array:
    """Writes a number into the diagonal; with `wrap` a tall matrix has another one below each, a row between them."""
    n = input.ndim
    if n < 2:
        raise ShapeMismatch("dimensions must larger than 1", param="input")
    if n > 2 and len(set(input.shape)) > 1:
        raise ShapeMismatch("all dimensions of input must be of equal length", param="input")
    fill = REGISTRY["fill_"].run
    view = REGISTRY["as_strided"].run
    length, step = min(input.shape), sum(input.strides)
    fill((view((input, [length], [step], input.offset)), fill_value))
    if wrap and n == 2 and input.shape[0] > input.shape[1] + 1:
        width = input.shape[1]
        rest = -(-input.numel // (width + 1)) - length
        fill((view((input, [rest], [step], input.offset + input.strides[0] * (width + 1))), fill_value))
    return input


# ---------------------------------------------------------------- coordinates


def _unravel_meta(k: K, indices: Spec, shape: Any) -> Spec:
    if indices.dtype.category in (BOOL, FLOAT) or indices.dtype.is_complex:
        raise DtypeMismatch(
            f"expected 'indices' to be integer dtype, but got torch.{indices.dtype.name}", param="indices"
        )
    if any(n < 0 for n in shape):
        raise ShapeMismatch(f"'shape' cannot have negative values, but got {tuple(shape)}", param="shape")
    return Spec((*indices.shape, len(shape)), int64)


@op(family="indexing", meta=_unravel_meta, vjp=None, samples=[S(I(3), (2, 2))])
def _unravel(k: K, indices: Array, shape: Shape) -> Array:
    """The coordinates of flat indices, as a last dimension; what is out of range wraps around in the first one."""
    steps = k.from_host(_host(contiguous_strides(shape)))
    return indices.astype(int64.np)[..., None] // steps % k.from_host(_host(shape))


def _host(numbers: Any) -> Any:
    return np.asarray(tuple(numbers), np.int64)


@_unravel.guard
def _(k: K, indices: Any, shape: Any) -> None:
    if indices.size and 0 in shape:
        raise Invalid("ZeroDivisionError", code="integer-division-by-zero", param="shape")


@composite(
    family="indexing",
    moves=True,
    returns="list of Tensors",
    samples=[S(I(3, high=6), [2, 3]), S(I(high=4), 4), S(I(2, 2, high=8), [2, 2, 2]), S(I(0), [2, 3])],
)
def unravel_index(F: Any, indices: Array, shape: Ints) -> Array:
    """The coordinates, in an array of `shape`, of the elements that flat indices name: a tensor for each dimension."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    return F.unbind(F._unravel(indices, sizes), -1)
