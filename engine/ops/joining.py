"""Joining tensors, and taking them apart again."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, Ints, Shape, composite, op, view
from engine.dtypes import DType, int64, result_type, scalar_type
from engine.errors import Hint, Invalid, LimitExceeded, ShapeMismatch
from engine.op import Spec
from engine.ops.views import at_least, number_in, region_gradient
from engine.samples import C, I, S, T
from engine.shapes import text, wrap_dim
from engine.tensor import Tensor

# ---------------------------------------------------------------- cat, stack


def promoted(k: K, tensors: Any, *rest: Any) -> tuple[DType, DType]:
    """The dtype that all are promoted to, whatever their dimensions: in a list each tensor counts fully."""
    if not tensors:
        return k.default_dtype, k.default_dtype
    d = tensors[0].dtype
    for t in tensors:
        if t.dtype is not d:
            d = result_type([(t.dtype, 2 if t.shape else 1) for t in tensors], k.default_dtype)
            break
    return d, d


def _is_legacy(shape: Any) -> bool:
    """PyTorch lets an empty one-dimensional tensor be joined with anything."""
    return len(shape) == 1 and shape[0] == 0


def _cat_meta(k: K, tensors: Any, dim: int = 0) -> Spec:
    if not tensors:
        words = "torch.cat(): expected a non-empty list of Tensors"
        raise Invalid(words, code="no-tensors", hint=Hint("some-tensors"), param="tensors")
    for i, t in enumerate(tensors):
        if not t.shape:
            raise ShapeMismatch(
                f"zero-dimensional tensor (at position {i}) cannot be concatenated",
                hint=Hint("stack-instead"),
                param="tensors",
            )
    first = next((t for t in tensors if not _is_legacy(t.shape)), None)
    if first is None:
        return Spec((0,), k.dtype)
    shape = first.shape
    d = wrap_dim(dim, len(shape))
    total = 0
    for i, t in enumerate(tensors):
        if _is_legacy(t.shape):
            continue
        if len(t.shape) != len(shape):
            raise ShapeMismatch(
                f"Tensors must have same number of dimensions: got {len(shape)} and {len(t.shape)}", param="tensors"
            )
        for j, (n, m) in enumerate(zip(shape, t.shape, strict=True)):
            if j != d and n != m:
                raise ShapeMismatch(
                    f"Sizes of tensors must match except in dimension {d}. Expected size {n} but got size {m} for "
                    f"tensor number {i} in the list.",
                    hint=Hint("cat-sizes", dim=d, shapes=[list(x.shape) for x in tensors]),
                    param="tensors",
                )
        total += t.shape[d]
    return Spec((*shape[:d], total, *shape[d + 1 :]), k.dtype)


@op(
    family="joining",
    meta=_cat_meta,
    promote=promoted,
    over=("tensors",),
    alias=("concat", "concatenate"),
    samples=[
        S([T(2, 3), T(1, 3)]),
        S([T(2, 3), T(2, 1)], -1),
        S([T(2), I(2)]),
        S([T(0), T(2, 3)], 1),
        S([T(0, 2), T(1, 2)]),
        S([C(2), T(1)]),
    ],
)
def cat(k: K, tensors: list[Array], dim: Dim = 0) -> Array:
    """The tensors one after another along a dimension that they have; other sizes must be equal.

    Dtypes are promoted. An empty tensor of one dimension may be among tensors of any sizes.
    """
    parts = [t for t in tensors if not _is_legacy(t.shape)]
    if not parts:
        return k.xp.zeros((0,), tensors[0].dtype)
    return k.xp.ascontiguousarray(k.xp.concatenate(parts, axis=dim))


@cat.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    shapes = [t.shape for t in saved.tensors]
    legacy = [_is_legacy(shape) for shape in shapes]
    d = 0 if all(legacy) else wrap_dim(saved.dim, len(F.shape(g)))  # of those alone PyTorch takes any dimension
    grads: list[Any] = []
    at = 0
    for shape, passed, wanted in zip(shapes, legacy, need.tensors, strict=True):
        if passed:
            grads.append(F.reshape(F._slice(g, d, 0, 0), (0,)) if wanted else None)
            continue
        grads.append(F._slice(g, d, at, at + shape[d]) if wanted else None)
        at += shape[d]
    return (grads,)


def _stack_meta(k: K, tensors: Any, dim: int = 0) -> Spec:
    if not tensors:
        raise Invalid("stack expects a non-empty TensorList", code="no-tensors", param="tensors")
    shape = tensors[0].shape
    d = wrap_dim(dim, len(shape) + 1)
    for i, t in enumerate(tensors):
        if t.shape != shape:
            raise ShapeMismatch(
                f"stack expects each tensor to be equal size, but got {text(shape)} at entry 0 and {text(t.shape)} at "
                f"entry {i}",
                hint=Hint("stack-sizes", shapes=[list(x.shape) for x in tensors]),
                param="tensors",
            )
    return Spec((*shape[:d], len(tensors), *shape[d:]), k.dtype)


@op(
    family="joining",
    meta=_stack_meta,
    promote=promoted,
    over=("tensors",),
    samples=[
        S([T(3), T(3)]),
        S([T(2, 3), T(2, 3)], -1),
        S([T(), T()]),
        S([T(0), T(0)]),
        S([T(2), I(2)]),
        S([C(2), C(2)]),
    ],
)
def stack(k: K, tensors: list[Array], dim: Dim = 0) -> Array:
    """The tensors, all of one size, along a new dimension."""
    return k.xp.ascontiguousarray(k.xp.stack(tensors, axis=dim))


@stack.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return ([F._select(g, saved.dim, i) if wanted else None for i, wanted in enumerate(need.tensors)],)


def _some(tensors: Any, name: str) -> None:
    if not tensors:
        raise Invalid(f"{name} expects a non-empty TensorList", code="no-tensors", param="tensors")


_PAIR = [S([T(2, 3), T(2, 3)]), S([T(3), T(3)]), S([T(), T()])]


@composite(family="joining", moves=True, samples=_PAIR)
def hstack(F: Any, tensors: list[Array]) -> Array:
    """The tensors side by side: along the second dimension, or the only one."""
    _some(tensors, "hstack")
    parts = [at_least(F, t, 1) for t in tensors]
    return F.cat(parts, 0 if len(F.shape(parts[0])) == 1 else 1)


@composite(family="joining", moves=True, alias=("row_stack",), samples=_PAIR)
def vstack(F: Any, tensors: list[Array]) -> Array:
    """The tensors one below another: along the first dimension, vectors being rows."""
    _some(tensors, "vstack")
    return F.cat([at_least(F, t, 2) for t in tensors], 0)


@composite(family="joining", moves=True, samples=_PAIR)
def dstack(F: Any, tensors: list[Array]) -> Array:
    """The tensors one behind another: along the third dimension."""
    _some(tensors, "dstack")
    return F.cat([at_least(F, t, 3) for t in tensors], 2)


@composite(family="joining", moves=True, samples=_PAIR)
def column_stack(F: Any, tensors: list[Array]) -> Array:
    """The tensors side by side, vectors and scalars being columns."""
    _some(tensors, "column_stack")
    parts = []
    for t in tensors:
        shape = F.shape(t)
        n = shape[0] if shape else 1
        parts.append(t if len(shape) > 1 else F.reshape(t, (n, 1)))
    return F.cat(parts, 1)


# ---------------------------------------------------------------- unbind, split

MANY = 100_000  # tensors that one step may give: a view costs no memory for its elements, but some for itself


def _refuse_many(count: int) -> None:
    if count > MANY:
        raise LimitExceeded(f"this would give {count} tensors, and one step gives at most {MANY}", param="input")


def _unbind_geometry(input: Any, dim: int = 0) -> Any:
    sizes, strides, offset = input.shape, input.strides, input.offset
    d = wrap_dim(dim, len(sizes))
    wrap_dim(d, len(sizes), scalar_ok=False)
    rest, steps, step = sizes[:d] + sizes[d + 1 :], strides[:d] + strides[d + 1 :], strides[d]
    _refuse_many(sizes[d])
    return [(rest, steps, offset + i * step) for i in range(sizes[d])]


@view(
    family="joining",
    geometry=_unbind_geometry,
    multi=True,
    returns="list of Tensors",
    samples=[S(T(2, 3)), S(T(2, 3), -1), S(T(3)), S(C(2, 2))],
)
def unbind(k: K, input: Array, dim: Dim = 0) -> Any:
    """All slices along a dimension, without it."""
    before = (slice(None),) * (dim % input.ndim)
    return [input[(*before, i, ...)] for i in range(input.shape[dim])]


unbind.vjp(region_gradient("unbind"))


def _pieces(input: Any, sizes: Any, d: int) -> Any:
    shape, strides, offset = input.shape, input.strides, input.offset
    made = []
    at = 0
    for n in sizes:
        # an empty piece at the end does not point past the memory
        made.append(((*shape[:d], n, *shape[d + 1 :]), strides, offset + at * strides[d] if n else offset))
        at += n
    return made


def _cut(input: Array, sizes: Any, dim: int) -> list[Array]:
    before = (slice(None),) * (dim % input.ndim)
    made = []
    at = 0
    for n in sizes:
        made.append(input[(*before, slice(at, at + n))])
        at += n
    return made


def _equal_sizes(n: int, size: int) -> list[int]:
    if size == 0:
        return [0]
    _refuse_many(-(-n // size))
    return [min(size, n - at) for at in range(0, n, size)] or [0]


def _split_checks(input: Any, size: int, dim: int) -> int:
    if not input.shape:
        raise ShapeMismatch("split expects at least a 1-dimensional tensor", param="tensor")
    if size < 0:
        raise Invalid(
            f"split expects split_size be non-negative, but got split_size={size}", code="bad-split", param="split_size"
        )
    d = wrap_dim(dim, len(input.shape))
    n = input.shape[d]
    if size == 0 and n:
        raise Invalid(
            f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}",
            code="bad-split",
            param="split_size",
        )
    return d


def _split_geometry(input: Any, size: int, dim: int = 0) -> Any:
    d = _split_checks(input, size, dim)
    return _pieces(input, _equal_sizes(input.shape[d], size), d)


@view(family="joining", name="_split", node="SplitBackward0", geometry=_split_geometry, multi=True)
def _split(k: K, input: Array, size: int, dim: Dim = 0) -> Any:
    """Pieces of `size` along a dimension; the last one may be smaller."""
    return _cut(input, _equal_sizes(input.shape[dim], size), dim)


_split.vjp(region_gradient("_split"))


def _sections_geometry(input: Any, split_sizes: Any, dim: int = 0) -> Any:
    if not input.shape:
        raise ShapeMismatch("split expects at least a 1-dimensional tensor", param="input")
    d = wrap_dim(dim, len(input.shape))
    if any(n < 0 for n in split_sizes):
        raise Invalid(
            "split_with_sizes expects split_sizes have only non-negative entries, but got "
            f"split_sizes={text(split_sizes)}",
            code="bad-split",
            param="split_sizes",
        )
    n = input.shape[d]
    if sum(split_sizes) != n:
        raise ShapeMismatch(
            f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension {dim}), but "
            f"got split_sizes={text(split_sizes)}",
            hint=Hint("split-sizes", size=n, dim=d),
            param="split_sizes",
        )
    return _pieces(input, split_sizes, d)


@view(
    family="joining",
    geometry=_sections_geometry,
    multi=True,
    returns="list of Tensors",
    samples=[S(T(3, 2), [1, 2]), S(T(2, 4), [1, 0, 3], -1)],
)
def split_with_sizes(k: K, input: Array, split_sizes: Shape, dim: Dim = 0) -> Any:
    """Pieces of the given sizes along a dimension."""
    return _cut(input, split_sizes, dim)


split_with_sizes.vjp(region_gradient("split_with_sizes"))


def _split_either(F: Any, input: Any, size: Any, dim: int) -> Any:
    return F._split(input, size, dim) if isinstance(size, int) else F.split_with_sizes(input, size, dim)


@composite(
    family="joining",
    name="_split_tensor",
    joins="split",
    moves=True,
    returns="list of Tensors",
    samples=[S(T(4, 2), 3), S(T(2, 4), [1, 3], 1), S(T(0, 2), 2), S(C(3), 1)],
)
def _split_tensor(F: Any, tensor: Array, split_size_or_sections: Ints, dim: Dim = 0) -> Any:
    """Pieces along a dimension: all of one size, the last one perhaps smaller, or of the sizes in a list."""
    return _split_either(F, tensor, split_size_or_sections, dim)


@composite(
    family="joining",
    name="_split_method",
    joins="split",
    moves=True,
    returns="list of Tensors",
    samples=[S(T(4, 2), 3)],
)
def _split_method(F: Any, input: Array, split_size: Ints, dim: Dim = 0) -> Any:
    """Pieces along a dimension: all of one size, the last one perhaps smaller, or of the sizes in a list."""
    return _split_either(F, input, split_size, dim)


@composite(
    family="joining", name="_split_input", joins="split", moves=True, returns="list of Tensors", samples=[S(T(4, 2), 3)]
)
def _split_input(F: Any, input: Array, split_size_or_sections: Ints, dim: Dim = 0) -> Any:
    """Pieces along a dimension: all of one size, the last one perhaps smaller, or of the sizes in a list."""
    return _split_either(F, input, split_size_or_sections, dim)


@composite(
    family="joining", moves=True, returns="list of Tensors", samples=[S(T(5, 2), 2), S(T(2, 4), 4, 1), S(T(0, 2), 3)]
)
def chunk(F: Any, input: Array, chunks: int, dim: Dim = 0) -> Any:
    """At most `chunks` pieces along a dimension, all but the last of one size."""
    shape = F.shape(input)
    if not shape:
        raise ShapeMismatch("chunk expects at least a 1-dimensional tensor", param="input")
    if chunks <= 0:
        raise Invalid(f"chunk expects `chunks` to be greater than 0, got: {chunks}", code="bad-split", param="chunks")
    d = wrap_dim(dim, len(shape))
    size = -(-shape[d] // chunks)
    if size == 0:
        _refuse_many(chunks)
        return F.split_with_sizes(input, [0] * chunks, d)
    return F._split(input, size, d)


def _at_places(F: Any, input: Any, places: Any, d: int) -> Any:
    n = F.shape(input)[d]
    made = []
    start = 0
    for place in [*places, n]:
        low, high, _ = slice(start, place).indices(n)
        made.append(F._slice(input, d, low, max(low, high), 1))
        start = place
    return made


def _in_sections(F: Any, input: Any, sections: int, d: int) -> Any:
    n = F.shape(input)[d]
    _refuse_many(sections)
    size, more = divmod(n, sections)
    ends = [i * size + min(i, more) for i in range(sections + 1)]
    return [F._slice(input, d, a, b, 1) for a, b in pairwise(ends)]


def _tensor_split(F: Any, input: Any, how: Any, dim: int) -> Any:
    shape = F.shape(input)
    if not shape:
        raise ShapeMismatch(
            "tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims", param="input"
        )
    d = wrap_dim(dim, len(shape))
    if isinstance(how, int):
        if how <= 0:
            raise Invalid(f"number of sections must be larger than 0, got {how}", code="bad-split", param="sections")
        return _in_sections(F, input, how, d)
    return _at_places(F, input, how, d)


_HALVES = [S(T(5, 2), 2), S(T(2, 5), 3, 1)]
_PLACES = [S(T(5, 2), [1, 3]), S(T(2, 5), [2, 4, 9], 1)]


@composite(
    family="joining",
    name="_tensor_split_sections",
    joins="tensor_split",
    moves=True,
    returns="list of Tensors",
    samples=_HALVES,
)
def _tensor_split_sections(F: Any, input: Array, sections: int, dim: Dim = 0) -> Any:
    """So many pieces along a dimension, whose sizes differ by at most one."""
    return _tensor_split(F, input, sections, dim)


@composite(
    family="joining",
    name="_tensor_split_indices",
    joins="tensor_split",
    moves=True,
    returns="list of Tensors",
    samples=_PLACES,
)
def _tensor_split_indices(F: Any, input: Array, indices: Shape, dim: Dim = 0) -> Any:
    """The pieces between the given places along a dimension."""
    return _tensor_split(F, input, indices, dim)


@composite(
    family="joining",
    name="_tensor_split_either",
    joins="tensor_split",
    moves=True,
    returns="list of Tensors",
    samples=[S(T(5, 2), I(2, values=[1, 3]))],
)
def _tensor_split_either(F: Any, input: Array, tensor_indices_or_sections: Array, dim: Dim = 0) -> Any:
    """The pieces between the places, or the number of pieces, that a tensor of int64 on the CPU holds."""
    how = tensor_indices_or_sections
    rank = len(F.shape(how))
    if F.dtype(how) is not int64:
        raise Invalid(
            "tensor_split expected tensor_indices_or_sections to have dtype of long, but got "
            f"{scalar_type(F.dtype(how))}",
            code="index-dtype",
            param="tensor_indices_or_sections",
        )
    if rank > 1:
        raise ShapeMismatch(
            "tensor_split expected tensor_indices_or_sections to be a zero-dimensional or one-dimensional tensor, but "
            f"got a tensor with {rank} dims",
            param="tensor_indices_or_sections",
        )
    if type(how) is Spec:
        values: Any = 1 if rank == 0 else [0] * how.numel
    elif rank == 0:
        values = number_in(how)
    else:
        values = (how.backend.to_host(how.array) if type(how) is Tensor else how).tolist()
    return _tensor_split(F, input, values, dim)


def _along(name: str, least: int) -> None:
    """hsplit, vsplit and dsplit: tensor_split along a fixed dimension, in equal parts."""

    def cut(F: Any, input: Any, how: Any) -> Any:
        shape = F.shape(input)
        if len(shape) < least:
            raise ShapeMismatch(
                f"torch.{name} requires a tensor with at least {least} dimension, but got a tensor with {len(shape)} "
                "dimensions!",
                param="input",
            )
        d = {"hsplit": min(1, len(shape) - 1), "vsplit": 0, "dsplit": 2}[name]
        if isinstance(how, int) and (how == 0 or shape[d] % how):
            raise ShapeMismatch(
                f"torch.{name} attempted to split along dimension {d}, but the size of the dimension {shape[d]} is not "
                f"divisible by the split_size {how}!",
                param="sections",
            )
        return _tensor_split(F, input, how, d)

    def in_sections(F: Any, input: Array, sections: int) -> Any:
        return cut(F, input, sections)

    def at_places(F: Any, input: Array, indices: Shape) -> Any:
        return cut(F, input, indices)

    where = {"hsplit": "side by side", "vsplit": "one below another", "dsplit": "one behind another"}[name]
    in_sections.__doc__ = f"So many equal pieces that lie {where}."
    at_places.__doc__ = f"The pieces, lying {where}, between the given places."
    common: Any = {"family": "joining", "joins": name, "moves": True, "returns": "list of Tensors"}
    shape = (2, 4, 2)
    composite(name=f"_{name}_sections", samples=[S(T(*shape), 2)], **common)(in_sections)
    composite(name=f"_{name}_indices", samples=[S(T(*shape), [1])], **common)(at_places)


for _row in (("hsplit", 1), ("vsplit", 2), ("dsplit", 3)):
    _along(*_row)
