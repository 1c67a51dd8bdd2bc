"""Views: other sizes and strides on the same memory."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, Shape, composite, op, view
from engine.errors import Hint, Param, ShapeMismatch
from engine.op import Spec
from engine.samples import S, T
from engine.shapes import infer_size, text, view_strides, wrap_dim


def _view_geometry(input: Any, shape: Any) -> Any:
    new = infer_size(shape, input.numel)
    strides = view_strides(input.shape, input.strides, new)
    if strides is None:
        raise ShapeMismatch(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead.",
            hint=Hint("use-reshape", shape=list(new)),
        )
    return new, strides, input.offset


@view(family="views", name="view", geometry=_view_geometry, samples=[S(T(2, 3), [3, 2]), S(T(2, 3), [-1]), S(T(), [1])])
def view_(k: K, input: Array, shape: Shape) -> Array:
    """The same memory with other sizes; one size may be -1."""
    return input.reshape(infer_size(shape, input.size))


@view_.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.reshape(g, saved.input.shape)


@composite(family="views", moves=True, samples=[S(T(2, 3), [3, 2]), S(T(2, 3), [-1]), S(T(), [1])])
def reshape(F: Any, input: Array, shape: Shape) -> Array:
    """The same elements with other sizes: a view where the strides allow it, else a copy."""
    n = 1
    for size in F.shape(input):
        n *= size
    new = infer_size(shape, n)
    return F.view(input if F.can_view(input, new) else F.clone(input), new)


def _expand_geometry(input: Any, size: Any) -> Any:
    old, strides = input.shape, input.strides
    if len(size) < len(old):
        raise ShapeMismatch(
            f"expand(torch.FloatTensor{{{text(old)}}}, size={text(size)}): the number of sizes provided ({len(size)}) "
            f"must be greater or equal to the number of dimensions in the tensor ({len(old)})"
        )
    shift = len(size) - len(old)
    sizes, steps = [], []
    for i, n in enumerate(size):
        if i < shift:
            if n < 0:
                raise ShapeMismatch(
                    f"The expanded size of the tensor ({n}) isn't allowed in a leading, non-existing dimension {i}"
                )
            sizes.append(n)
            steps.append(0)
            continue
        have = old[i - shift]
        if n == -1 or n == have:
            sizes.append(have)
            steps.append(strides[i - shift])
        elif have == 1:
            sizes.append(n)
            steps.append(0)
        else:
            raise ShapeMismatch(
                f"The expanded size of the tensor ({n}) must match the existing size ({have}) at non-singleton dimension "
                f"{i}.  Target sizes: {text(size)}.  Tensor sizes: {text(old)}",
                hint=Hint("expand", input=Param("input")),
            )
    return tuple(sizes), tuple(steps), input.offset


@view(family="views", geometry=_expand_geometry, samples=[S(T(2, 1), [2, 3]), S(T(3), [2, -1]), S(T(), [2])])
def expand(k: K, input: Array, size: Shape) -> Array:
    """Dimensions of size 1 repeated without a copy; -1 keeps a size."""
    return k.xp.broadcast_to(input, _expand_geometry(Spec(input.shape, k.dtype), size)[0])


@expand.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g  # the driver sums it back


def _transpose_geometry(input: Any, dim0: int, dim1: int) -> Any:
    a, b = wrap_dim(dim0, input.ndim), wrap_dim(dim1, input.ndim)
    sizes, strides = list(input.shape), list(input.strides)
    if sizes:
        sizes[a], sizes[b], strides[a], strides[b] = sizes[b], sizes[a], strides[b], strides[a]
    return tuple(sizes), tuple(strides), input.offset


@view(family="views", geometry=_transpose_geometry, samples=[S(T(2, 3), 0, 1), S(T(2, 3, 4), -1, 0), S(T(), 0, 0)])
def transpose(k: K, input: Array, dim0: Dim, dim1: Dim) -> Array:
    """Two dimensions exchanged."""
    return input.swapaxes(dim0, dim1) if input.ndim else input


@transpose.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.transpose(g, saved.dim0, saved.dim1)


@op(family="views", meta=lambda k, input: input, moves=True, samples=[S(T(2, 3)), S(T())])
def clone(k: K, input: Array) -> Array:
    """A copy with memory of its own; the gradient passes through."""
    return input.copy(order="K")


@clone.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g


def _put_meta(k: K, input: Any, src: Any, steps: Any) -> Any:
    return input


@op(family="views", meta=_put_meta, moves=True, updates=True)
def _view_put(k: K, input: Array, src: Array, steps: Any, *, out: Any = None) -> Array:
    """A copy of `input` in which the region that a chain of view steps selects is `src`."""
    made = input.copy() if out is None else out
    region = made
    for step, rest, index in steps:
        region = step.kernel(k, region, *rest)
        if step.multi_view:
            region = region[index]
    if not k.xp.may_share_memory(made, region) and src.size:
        places = k.xp.arange(made.size).reshape(made.shape)
        for step, rest, index in steps:
            places = step.kernel(k, places, *rest)
            if step.multi_view:
                places = places[index]
        flat = made.reshape(-1)
        flat[places.reshape(-1)] = src.reshape(-1)
        return flat.reshape(made.shape)
    region[...] = src
    return made


@_view_put.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    part = g
    for step, rest, index in saved.steps:
        part = getattr(F, step.name)(part, *rest)
        if step.multi_view:
            part = part[index]
    return need.input and F._view_put(g, F.zeros_like(part), saved.steps), need.src and part
