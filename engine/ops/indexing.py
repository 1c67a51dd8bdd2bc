"""Indexing: `x[...]` and `x[...] = value`, with everything that PyTorch takes between the brackets.

An index is a list of integers, slices, `None`, `...`, booleans and tensors. Integers, slices, `None` and `...` alone
make a view (`_basic_index`). Tensors are then applied to that view (`_index`, `_index_put`): a mask stands for the
tensors of its True places; all of them broadcast together; their common dimensions take the place of the first one
if they are neighbours, else they come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from engine.carriers import NUMBERS, K, in_layout
from engine.context import HERE, Context
from engine.declare import Array, Index, Scalar, Shape, composite, op, special, view
from engine.dtypes import COMPLEX, FLOAT, INT, bool_, float64, from_numpy, int32, int64, scalar_type, uint8
from engine.errors import DtypeMismatch, Hint, IndexOutOfRange, Invalid, ShapeMismatch
from engine.op import REGISTRY, Spec
from engine.ops.common import fitting
from engine.ops.scatter import add_rows, check_range, combine, floats, relaid
from engine.ops.views import number_in, region_gradient
from engine.record import REC
from engine.samples import B, C, I, S, T
from engine.shapes import broadcast_two, contiguous_strides, iterated_strides, text
from engine.tape import check_inplace, check_overlap, overlap_between, refresh
from engine.tensor import Tensor, fresh

# ---------------------------------------------------------------- basic indices

# An entry of a basic index as a node keeps it: an integer, None, (start, stop, step) in range, or () for all.
Entry = Any


def _basic_geometry(input: Any, entries: Any) -> Any:
    sizes: list[int] = []
    strides: list[int] = []
    offset = input.offset
    dim = 0
    for e in entries:
        if e is None:
            sizes.append(1)
            strides.append(input.shape[dim] * input.strides[dim] if dim < input.ndim else 1)
            continue
        n, s = input.shape[dim], input.strides[dim]
        dim += 1
        if type(e) is int:
            offset += e * s
        elif e:
            start, stop, step = e
            offset += start * s
            sizes.append(-((start - stop) // step) if stop > start else 0)
            strides.append(s * step)
        else:
            sizes.append(n)
            strides.append(s)
    return (*sizes, *input.shape[dim:]), (*strides, *input.strides[dim:]), offset


def _key(entries: Any) -> tuple[Any, ...]:
    return (*(slice(*e) if type(e) is tuple and e else slice(None) if e == () else e for e in entries), ...)


@view(family="indexing", name="_basic_index", geometry=_basic_geometry)
def _basic_index(k: K, input: Array, entries: Any) -> Array:
    """The part of a tensor that integers, slices and new dimensions select."""
    return input[_key(entries)]


_basic_index.vjp(region_gradient("_basic_index"))


def _basic_node(input: Any, entries: Any) -> str:
    """Torch applies an index entry by entry: the last one names the node."""
    for e in reversed(entries):
        if e is None:
            return "UnsqueezeBackward0"
        if type(e) is int:
            return "SelectBackward0"
        if e:
            return "SliceBackward0"
    return "AliasBackward0"


_basic_index.op.node_rule = _basic_node


class Parts:
    """An index, taken apart: the basic entries, whether they do anything, and tensors by dimension of their result."""

    __slots__ = ("entries", "tensors", "trivial")

    def __init__(self, entries: tuple[Entry, ...], trivial: bool, tensors: list[tuple[int, Any]]) -> None:
        self.entries = entries
        self.trivial = trivial
        self.tensors = tensors


def too_many(ndim: int) -> IndexOutOfRange:
    """The error of an index with more items than the tensor has dimensions."""
    words = f"too many indices for tensor of dimension {ndim}"
    return IndexOutOfRange(words, hint=Hint("index-count", ndim=ndim), param="index")


def take_apart(F: Any, shape: Shape, index: Any) -> Parts:
    """An index in normal form. Raises what PyTorch raises."""
    items = list(index) if isinstance(index, list | tuple) else [index]
    used = 0
    for item in items:
        if item is not None and item is not Ellipsis and type(item) is not bool:
            used += 1 if type(item) in (int, slice) else _dims_of(F, item)
    ndim = len(shape)
    if used > ndim and (shape or len(items) > 1 or type(items[0]) not in (int, slice)):
        raise too_many(ndim)
    entries: list[Entry] = []
    tensors: list[tuple[int, Any]] = []
    trivial = True
    at = place = 0  # in the input, in the result
    gap = True
    for number, item in enumerate(items):
        kind = type(item)
        if item is None:
            entries.append(None)
            place += 1
            trivial = False
        elif item is Ellipsis:
            skip = max(ndim - used, 0) if gap else 0
            gap = False
            entries += [()] * skip
            at += skip
            place += skip
        elif kind is slice:
            entries.append(_slice_entry(item, _size(shape, at) if shape else 0))
            if not shape:
                raise IndexOutOfRange("slice() cannot be applied to a 0-dim tensor.", param="index")
            trivial = trivial and entries[-1] == ()
            at += 1
            place += 1
        elif kind is int:
            entries.append(_int_entry(item, shape, at, number))
            at += 1
            trivial = False
        elif kind is bool:
            entries.append(None)
            tensors.append((place, item))
            place += 1
            trivial = False
        else:
            d, rank = F.dtype(item), len(F.shape(item))
            if not rank and d in (bool_, uint8):
                entries.append(None)
                tensors.append((place, bool(number_in(item)) or type(item) is Spec))
                place += 1
                trivial = False
            elif not rank and d.category == INT:
                value = 0 if type(item) is Spec else number_in(item)
                entries.append(_int_entry(value, shape, at, number))
                at += 1
                trivial = False
            else:
                taken = rank if d in (bool_, uint8) else 1
                tensors.append((place, item))
                entries += [()] * min(taken, max(ndim - at, 0))
                at += taken
                place += taken
    return Parts(tuple(entries), trivial, tensors)


def _dims_of(F: Any, item: Any) -> Any:
    rank: int = len(F.shape(item))
    return rank if any(F.dtype(item) is d for d in (bool_, uint8)) else 1


def _size(shape: Shape, at: int) -> int:
    if at >= len(shape):
        raise too_many(len(shape))
    return int(shape[at])


def _int_entry(value: int, shape: Shape, at: int, number: int) -> int:
    """An integer in range. `number`: which item of the index it is, for which PyTorch takes the dimension's number."""
    if not shape:
        if value == 0:
            raise IndexOutOfRange(
                "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to "
                "convert a 0-dim tensor to a number",
                param="index",
            )
        raise IndexOutOfRange(f"index {value} is out of bounds for dimension 0 with size 0", param="index")
    n = _size(shape, at)
    if not -n <= value < n:
        raise IndexOutOfRange(
            f"index {value} is out of bounds for dimension {number} with size {n}",
            hint=Hint("index-range", low=-n, high=n - 1, index=value),
            param="index",
        )
    return value + n if value < 0 else value


def _slice_entry(item: slice, n: int) -> Entry:
    step = 1 if item.step is None else item.step
    if step <= 0:
        words = "slice step cannot be zero" if step == 0 else "step must be greater than zero"
        raise Invalid(words, code="slice-step", hint=Hint("flip-instead"), param="index")
    start, stop, step = item.indices(n)
    return () if (start, stop, step) == (0, n, 1) else (start, max(stop, start), step)


# ---------------------------------------------------------------- tensors as indices


def _places_of(F: Any, input: Any, tensors: Sequence[tuple[int, Any]]) -> tuple[list[Any], tuple[int, ...]]:
    """Integer tensors, and the dimension that each one indexes: masks as the places of their True elements."""
    shape = F.shape(input)
    flat: list[Any] = []
    dims: list[int] = []
    for place, item in tensors:
        if type(item) is bool:
            flat.append(_constant_place(F, input, item))
            dims.append(place)
            continue
        d = F.dtype(item)
        if d in (bool_, uint8):
            mask = F.shape(item)
            for j, n in enumerate(mask):
                if place + j >= len(shape):
                    raise _too_many(shape, tensors)
                if shape[place + j] != n:
                    raise IndexOutOfRange(
                        f"The shape of the mask {text(mask)} at index {j} does not match the shape of the indexed "
                        f"tensor {text(shape)} at index {place + j}",
                        hint=Hint("mask-shape", mask=list(mask), shape=list(shape)),
                        param="index",
                    )
            flat += _true_places(F, item)
            dims += range(place, place + len(mask))
        elif d is int64 or d is int32:
            if place >= len(shape):
                raise _too_many(shape, tensors)
            flat.append(item)
            dims.append(place)
        else:
            raise _bad_index(F, item)
    return flat, tuple(dims)


def _bad_index(F: Any, item: Any) -> DtypeMismatch:
    """A call cannot be told: `index` as it was sent is a list, of which this tensor is one item."""
    words = "tensors used as indices must be long, int, byte or bool tensors"
    hint = Hint("cast-index", have=F.dtype(item).name, param="index")
    return DtypeMismatch(words, code="index-dtype", hint=hint, param="index")


def _too_many(shape: Shape, tensors: Any) -> IndexOutOfRange:
    return too_many(len(shape))


def _constant_place(F: Any, like: Any, there: bool) -> Any:
    """What a plain True or False indexes a dimension of size 1 with: its only element, or nothing."""
    spec = Spec((1 if there else 0,), int64)
    if type(like) is Spec:
        return spec
    if type(like) is Tensor:
        return fresh(like.backend.xp.zeros(spec.shape, int64.np), spec, like.backend, HERE.ctx.ledger)
    return F.k.xp.zeros(spec.shape, int64.np)


def _true_places(F: Any, mask: Any) -> list[Any]:
    """For each dimension of a mask, where its elements are nonzero: int64 tensors of one dimension."""
    if type(mask) is Spec:
        return [Spec((mask.numel,), int64)] * mask.ndim
    if type(mask) is not Tensor:
        return list(mask.nonzero())
    xp = mask.backend.xp
    ctx = HERE.ctx
    ctx.admit(8 * mask.ndim * int(xp.count_nonzero(mask.array)))
    found = mask.array.nonzero()
    return [fresh(xp.ascontiguousarray(p), Spec(p.shape, int64), mask.backend, ctx.ledger) for p in found]


def _result_shape(shape: Shape, indices: Sequence[Any], dims: Sequence[int]) -> Shape:
    common: Shape = ()
    for i in indices:
        try:
            common = broadcast_two(common, i.shape)
        except ShapeMismatch:
            raise IndexOutOfRange(
                "shape mismatch: indexing tensors could not be broadcast together with shapes "
                + ", ".join(text(x.shape) for x in indices),
                param="index",
            ) from None
    rest = [n for d, n in enumerate(shape) if d not in dims]
    first = dims[0] if all(b == a + 1 for a, b in pairwise(dims)) else 0
    return (*rest[:first], *common, *rest[first:])


def _index_meta(k: K, input: Spec, indices: Any, dims: Any) -> Spec:
    made = _result_shape(input.shape, indices, dims)
    if any(input.shape[d] == 0 for d in dims) and not any(0 in i.shape for i in indices):
        raise IndexOutOfRange("index is out of bounds for dimension with size 0", param="index")
    return Spec(made, input.dtype)


def _nothing_to_index(shape: Shape, dims: Any) -> bool:
    """Whether there is no element to read or write, whatever the indices: then nobody looks at them."""
    return any(n == 0 for d, n in enumerate(shape) if d not in dims)


def _check_places(k: K, shape: Shape, indices: Any, dims: Any) -> None:
    if _nothing_to_index(shape, dims) or any(i.size == 0 for i in indices):
        return
    for j, (i, d) in enumerate(zip(indices, dims, strict=True)):
        n = shape[d]
        check_range(i, -n, n, lambda bad, j=j, n=n: f"index {bad} is out of bounds for dimension {j} with size {n}")


def _full_key(indices: Any, dims: Any) -> tuple[Any, ...]:
    key: list[Any] = [slice(None)] * (dims[-1] + 1)
    for i, d in zip(indices, dims, strict=True):
        key[d] = i
    return tuple(key)


@op(family="indexing", meta=_index_meta, moves=True, node="IndexBackward0", save={"input": ("indices",)})
def _index(k: K, input: Array, indices: list[Array], dims: Shape) -> Array:
    """The elements at integer indices along `dims`, as NumPy places them; in memory as PyTorch's iterator does."""
    if _nothing_to_index(input.shape, dims) or any(i.size == 0 for i in indices):
        return k.xp.empty(_result_shape(input.shape, indices, dims), input.dtype)
    if len(dims) == 1:
        made = k.xp.take(input, indices[0], axis=dims[0])
    else:
        made = input[_full_key(indices, dims)]
    if made.ndim < 2 or not made.size or all(x.flags.c_contiguous for x in (input, made, *indices)):
        return made
    common = max([i.ndim for i in indices])
    first = dims[0] if all(b == a + 1 for a, b in pairwise(dims)) else 0
    rest = [s for d, s in enumerate(input.strides) if d not in dims]
    sizes, after = made.shape[first : first + common], (0,) * (made.ndim - first - common)
    operands = [(made.shape, (*rest[:first], *(0,) * common, *rest[first:]))]
    for i in indices:
        lead = common - i.ndim
        kept = [0 if n == 1 != m else s for n, m, s in zip(i.shape, sizes[lead:], i.strides, strict=True)]
        operands.append((made.shape, (*(0,) * (first + lead), *kept, *after)))
    return in_layout(k.xp, made, iterated_strides(made.shape, operands))


@_index.guard
def _(k: K, input: Any, indices: Any, dims: Any) -> None:
    _check_places(k, input.shape, indices, dims)


@_index.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and F._index_backward(g, saved.indices, saved.dims, saved.input.shape), None


def _linear(k: K, shape: Shape, indices: Any, dims: Any) -> Array:
    """Where in the flattened array the elements at these indices lie, in the shape of the indexed result."""
    common = indices[0]
    strides = contiguous_strides(shape)
    at = None
    for i, d in zip(indices, dims, strict=True):
        n = shape[d]
        part = k.xp.where(i < 0, i + n, i).astype("int64") * strides[d]
        at = part if at is None else at + part
    common = at.shape  # type: ignore[union-attr]
    rest = [d for d in range(len(shape)) if d not in dims]
    first = dims[0] if all(b == a + 1 for a, b in pairwise(dims)) else 0
    ndim = len(common) + len(rest)
    made = at.reshape((1,) * first + common + (1,) * (ndim - first - len(common)))  # type: ignore[union-attr]
    for j, d in enumerate(rest):
        place = j if j < first else j + len(common)
        line = k.xp.arange(shape[d], dtype="int64") * strides[d]
        made = made + line.reshape((-1,) + (1,) * (ndim - 1 - place))
    return made


def _add_at(k: K, target: Array, indices: Any, dims: Any, values: Array) -> None:
    """target[indices] += values, duplicates adding up; `target` is C-contiguous, `values` broadcast to the result."""
    shape = target.shape
    if not target.size or any(i.size == 0 for i in indices):
        return
    if dims == (0,) or list(dims) == [0]:
        n = shape[0]
        at = indices[0].reshape(-1)
        rows = k.xp.ascontiguousarray(k.xp.broadcast_to(values, (*indices[0].shape, *shape[1:])))
        at = k.xp.where(at < 0, at + n, at)
        add_rows(k, target.reshape(n, -1), at, rows.reshape(at.size, -1).astype(target.dtype, copy=False))
        return
    places = _linear(k, shape, indices, dims)
    values = k.xp.ascontiguousarray(k.xp.broadcast_to(values, places.shape)).astype(target.dtype, copy=False)
    combine(k, "add", target.reshape(-1), places.reshape(-1), values.reshape(-1))


def _index_backward_meta(k: K, grad: Spec, indices: Any, dims: Any, size: Any) -> Spec:
    return Spec(size, grad.dtype)


@op(family="indexing", meta=_index_backward_meta, moves=True, save={"grad": ("indices",)})
def _index_backward(k: K, grad: Array, indices: list[Array], dims: Shape, size: Shape) -> Array:
    """Zeros of `size`, with `grad` added at integer indices along `dims`: the gradient of `_index`."""
    grad = floats(k, grad)
    made = k.xp.zeros(size, grad.dtype)
    _add_at(k, made, indices, dims, grad)
    return made


@_index_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.grad and F._index(g, saved.indices, saved.dims), None


# ---------------------------------------------------------------- writing at indices


def _put_meta(k: K, input: Spec, indices: Any, values: Spec, dims: Any) -> Spec:
    made = _index_meta(k, input, indices, dims)
    try:
        fits = broadcast_two(values.shape, made.shape) == made.shape
    except ShapeMismatch:
        fits = False
    if not fits:
        raise ShapeMismatch(
            f"shape mismatch: value tensor of shape {text(values.shape)} cannot be broadcast to indexing result of "
            f"shape {text(made.shape)}",
            param="values",
        )
    if values.dtype is not input.dtype:
        raise DtypeMismatch(
            f"Index put requires the source and destination dtypes match, got {scalar_type(input.dtype)} for the "
            f"destination and {scalar_type(values.dtype)} for the source.",
            param="values",
        )
    return input


def _as_filling(F: Any, input: Any, tensors: Sequence[Any], values: Any) -> Any:
    """One number behind one mask is written as `masked_fill` does, which casts it; other values stay as they are."""
    masks = [i for i in tensors if type(i) is bool or F.dtype(i) in (bool_, uint8)]
    d = F.dtype(input)
    if F.dtype(values) is d or len(masks) != 1 or len(tensors) != 1 or type(masks[0]) is bool:
        return values
    if prod(F.shape(values)) != 1:
        return values
    if type(values) is Tensor and values.dtype.category == COMPLEX and d.category != COMPLEX:
        fitting(values.backend.to_host(values.array).item(), d)
        values = F.real(values)
    return F.to(values, d)


_PUT_SAVES: dict[str, Sequence[str]] = {"input": ("indices",), "values": ("indices",)}


@op(
    family="indexing", meta=_put_meta, moves=True, updates=True, inplace=True, node="IndexPutBackward0", save=_PUT_SAVES
)
def _index_put(k: K, input: Array, indices: list[Array], values: Array, dims: Shape, *, out: Any = None) -> Array:
    """A copy with `values` written at integer indices along `dims`; of duplicates the last one wins on the CPU."""
    if out is None:
        made = k.xp.empty_like(input)
        made[...] = input
    else:
        made = out
    if made.size and all(i.size for i in indices):
        if out is not None and k.xp.may_share_memory(out, values):
            values = values.copy()
        made[_full_key(indices, dims)] = values
    return made


@_index_put.guard
def _(k: K, input: Any, indices: Any, values: Any, dims: Any) -> None:
    _check_places(k, input.shape, indices, dims)


@_index_put.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (
        need.input and F._index_put(g, saved.indices, F.constant(0, g), saved.dims),
        None,
        need.values and _values_gradient(F, saved, g),
    )


def _values_gradient(F: Any, saved: Any, g: Any) -> Any:
    return F._index(g, saved.indices, saved.dims)


@op(family="indexing", meta=_put_meta, updates=True, inplace=True, node="IndexPutBackward0", save=_PUT_SAVES)
def _index_put_add(k: K, input: Array, indices: list[Array], values: Array, dims: Shape, *, out: Any = None) -> Array:
    """A copy with `values` added at integer indices along `dims`, duplicates adding up."""
    made = input.copy(order="C") if out is None or not out.flags.c_contiguous else out
    _add_at(k, made, indices, dims, values)
    return relaid(k, made, input, out)


@_index_put_add.guard
def _(k: K, input: Any, indices: Any, values: Any, dims: Any) -> None:
    _check_places(k, input.shape, indices, dims)


@_index_put_add.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g, None, need.values and _values_gradient(F, saved, g)


def _put_places(F: Any, input: Any, indices: Any) -> tuple[Any, list[int], list[Any], tuple[int, ...]]:
    """The indices of `index_put`, one for each leading dimension, or None for all of one.

    A bool of no dimensions indexes a dimension of size 1 that the input gets for it: (the input with these, where
    they are, the places, the dimensions that they index).
    """
    shape = F.shape(input)
    if len(indices) > len(shape):
        raise IndexOutOfRange(
            f"too many indices for tensor of dimension {len(shape)} (got {len(indices)})", param="indices"
        )
    tensors: list[tuple[int, Any]] = []
    added: list[int] = []
    place = 0
    for item in indices:
        if item is None:
            place += 1
        elif not F.shape(item) and F.dtype(item) in (bool_, uint8):
            tensors.append((place, type(item) is Spec or bool(number_in(item))))
            added.append(place)
            place += 1
        else:
            tensors.append((place, item))
            place += _dims_of(F, item)
    used = place - len(added)
    if used > len(shape):
        raise IndexOutOfRange(f"too many indices for tensor of dimension {len(shape)} (got {used})", param="indices")
    for at in added:
        input = F.unsqueeze(input, at)
    if not tensors:
        raise Invalid("at least one of the indices must be a tensor", code="no-indices", param="indices")
    return input, added, *_places_of(F, input, tensors)


_PUT = [
    S(T(4), [I(2, values=[0, 2])], T(2)),
    S(T(3, 4), [I(2, values=[0, 2]), I(2, values=[1, -1])], T()),
    S(T(3, 2), [I(2, values=[1, 1])], T(2, 2), True),
    S(C(3), [I(1, values=[1])], C(1)),
]


@composite(family="indexing", samples=_PUT, moves=True, node="IndexPutBackward0")
def index_put(F: Any, input: Array, indices: list[Array | None], values: Array, accumulate: bool = False) -> Array:
    """A copy with `values` written at, or with `accumulate` added to, the elements that `indices` select."""
    whole, added, flat, dims = _put_places(F, input, indices)
    if not accumulate:
        values = _as_filling(F, input, [i for i in indices if i is not None], values)
    made = (F._index_put_add if accumulate else F._index_put)(whole, flat, values, dims)
    for at in reversed(added):
        made = F.squeeze(made, at)
    return made


def _refuse_overlap(target: Tensor, values: Tensor) -> None:
    """Writing at indices refuses values from the memory that is written to."""
    if target.view is not None:
        refresh(target)
    check_inplace(target, target.requires_grad or values.requires_grad)
    same = values.storage is target.storage and values.shape == target.shape and values.offset == target.offset
    if values is target or (same and target.numel and target.is_dense):
        raise overlap_between()
    check_overlap(target, (values,))


@special(family="indexing", samples=_PUT)
def index_put_(
    ctx: Context, input: Array, indices: list[Array | None], values: Array, accumulate: bool = False
) -> Array:
    """Writes `values` to, or with `accumulate` adds them to, the elements that `indices` select."""
    whole, _, flat, dims = _put_places(REC, input, indices)
    _refuse_overlap(input, values)
    if not accumulate:
        values = _as_filling(REC, input, [i for i in indices if i is not None], values)
    name = "_index_put_add_" if accumulate else "_index_put_"
    REGISTRY[name].run((whole, flat, values, dims))
    return input


# ---------------------------------------------------------------- x[...]

_PICK = [
    S(T(3, 4), [1]),
    S(T(3, 4), [slice(1, None), slice(None, None, 2)]),
    S(T(3, 4), [Ellipsis, None, -1]),
    S(T(3, 4), [I(2, values=[0, 2])]),
    S(T(3, 4), [slice(None), I(2, 2, values=[[0, 1], [3, 0]])]),
    S(C(3), [I(2, values=[2, 2])]),
]
_EXAMPLE = {"input": [[1.5, 2.5], [3.5, 4.5]], "index": [0, "1:"]}


@composite(family="indexing", moves=True, samples=_PICK, example=_EXAMPLE)
def getitem(F: Any, input: Array, index: Index) -> Array:
    """input[index]: a view for integers, slices, null and "..."; a copy where tensors, lists or masks index.

    The index is a list of integers, slices as strings ("1:", "::2"), "...", null, bools, lists, and tensors of integers
    or bools. Steps of slices are positive.
    """
    parts = take_apart(F, F.shape(input), index)
    if not parts.tensors:
        return F._basic_index(input, parts.entries)
    if not parts.trivial:
        input = F._basic_index(input, parts.entries)
    flat, dims = _places_of(F, input, parts.tensors)
    return F._index(input, flat, dims)


def _assign_meta(k: K, input: Spec, src: Spec, whole: bool) -> Spec:
    REGISTRY["expand"].geometry(src, input.shape)  # type: ignore[misc]
    return input


@op(
    family="indexing",
    meta=_assign_meta,
    inplace=True,
    node=lambda input, src, whole: "CopyBackwards" if src.shape or not input.shape else "FillBackward3",
)
def _assign(k: K, input: Array, src: Array, whole: bool) -> Array:
    """`src`, in the dtype of `input`, in its place. `whole`: the input is no part that was taken for this alone."""
    source = from_numpy(src.dtype)
    made = k.backend.cast(src, source, k.spec.dtype.compute) if source is not None else src
    if made is src and k.xp.may_share_memory(input, src):
        made = src.copy()
    return k.xp.broadcast_to(made, input.shape)


@_assign.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and saved.whole and F.zeros_like(g), need.src and g


_PUT_ITEMS = [
    S(T(3, 4), [1], T(4)),
    S(T(3, 4), [slice(1, None)], 2.5),
    S(T(3, 4), [I(2, values=[0, 2])], T(4)),
    S(T(3, 4), [B(3, 4)], 0.5),
]


@special(family="indexing", samples=_PUT_ITEMS, example={"input": [[1.5, 2.5], [3.5, 4.5]], "index": [0], "value": 9})
def setitem_(ctx: Context, input: Array, index: Index, value: Array | Scalar) -> Array:
    """input[index] = value: the value, a number or a tensor that broadcasts, is written into the input."""
    if type(value) in NUMBERS:
        d = input.dtype
        number = fitting(value, float64 if type(value) is complex and d.category == FLOAT and d.itemsize == 2 else d)
        backend = input.backend
        array = backend.asarray(number, d.compute.np)
        array = backend.cast(array, d.compute, d)
        value = fresh(backend.xp.asarray(array), Spec((), d), backend, ctx.ledger)
    else:  # leading dimensions of size 1 say nothing
        extra = next((j for j, n in enumerate(value.shape) if n != 1), value.ndim)
        value = REC.reshape(value, value.shape[extra:]) if extra else value
    if type(index) is list and len(index) == 1 and type(index[0]) is bool:
        if not index[0]:
            return input
        index = [None]
    parts = take_apart(REC, input.shape, index)
    region = input if parts.trivial else REC._basic_index(input, parts.entries)
    if parts.tensors:
        _refuse_overlap(region, value)
        value = _as_filling(REC, region, [item for _, item in parts.tensors], value)
        flat, dims = _places_of(REC, region, parts.tensors)
        REGISTRY["_index_put_"].run((region, flat, value, dims))
    else:
        if value.storage is region.storage and value.shape != region.shape:
            value = REC.expand(value, region.shape)
        REGISTRY["_assign_"].run((region, value, region is input))
    return input
