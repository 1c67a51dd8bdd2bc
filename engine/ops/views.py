"""Views: other sizes and strides on the same memory."""

from __future__ import annotations

from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, Dims, DTypeArg, Scalar, Shape, composite, join, op, view
from engine.dtypes import INT, scalar_type, tensor_type
from engine.errors import Call, DimOutOfRange, Hint, IndexOutOfRange, Invalid, Param, ShapeMismatch
from engine.metas import as_dtype
from engine.op import REGISTRY, Spec
from engine.samples import C, S, T
from engine.shapes import infer_size, text, view_strides, wrap_dim
from engine.tensor import Tensor

# ---------------------------------------------------------------- what all views share


def _put_meta(k: K, input: Spec, src: Spec, steps: Any) -> Spec:
    return input


@op(family="views", meta=_put_meta, moves=True, updates=True)
def _view_put(k: K, input: Array, src: Array, steps: Any, *, out: Any = None) -> Array:
    """A copy of `input` in which the region that a chain of view steps selects is `src`."""
    if out is None:
        made = k.xp.empty_like(input)
        made[...] = input
    else:
        made = out
    region = _region(k, made, steps)
    if not src.size or not made.size:
        return made
    if not k.xp.may_share_memory(made, region) or any(step.name == "expand" for step, _, _ in steps):
        places = _region(k, k.xp.arange(made.size).reshape(made.shape), steps)
        flat = k.xp.ascontiguousarray(made).reshape(-1)
        flat[places.reshape(-1)] = src.reshape(-1)
        return flat.reshape(made.shape)
    region[...] = src
    return made


def _region(k: K, array: Array, steps: Any) -> Array:
    for step, rest, index in steps:
        array = step.kernel(k, array, *rest)
        if step.multi_view:
            array = array[index]
    return array


@_view_put.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    part = g
    for step, rest, index in saved.steps:
        part = getattr(F, step.name)(part, *rest)
        if step.multi_view:
            part = part[index]
    return need.input and F._view_put(g, F.zeros_like(part), saved.steps), need.src and part


def _view_backward_meta(k: K, grads: Any, which: Any, size: Any, step: Any, rest: Any) -> Spec:
    return Spec(size, grads[0].dtype)


@op(family="views", meta=_view_backward_meta, moves=True)
def _view_backward(k: K, grads: list[Array], which: Shape, size: Shape, step: str, rest: Any) -> Array:
    """Zeros of `size`, with `grads` in the places that outputs `which` of the view `step` see: a view's gradient."""
    view_op = REGISTRY[step]
    if view_op.multi_view:
        made = k.xp.empty(size, grads[0].dtype)
        parts = view_op.kernel(k, made, *rest)  # type: ignore[misc]
        if len(which) < len(parts):
            made[...] = 0
    else:
        made = k.xp.zeros(size, grads[0].dtype)
        parts = [view_op.kernel(k, made, *rest)]  # type: ignore[misc]
    if made.size:
        for i, g in zip(which, grads, strict=True):
            parts[i][...] = g
    return made


@_view_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    parts = getattr(F, saved.step)(g, *saved.rest)
    return ([parts[i] for i in saved.which] if REGISTRY[saved.step].multi_view else [parts],)


def region_gradient(step: str) -> Any:
    """The rule of a view that sees a part of its input's elements, each of them once."""

    def rule(F: Any, saved: Any, g: Any, need: Any) -> Any:
        n = len(REGISTRY[step].names)
        if type(g) is list:
            which = tuple(i for i, x in enumerate(g) if x is not None)
            return F._view_backward([g[i] for i in which], which, saved.input.shape, step, tuple(saved[1:n]))
        return F._view_backward([g], (0,), saved.input.shape, step, tuple(saved[1:n]))

    return rule


# ---------------------------------------------------------------- other sizes, same elements


def _view_geometry(input: Any, size: Any) -> Any:
    new = infer_size(size, input.numel)
    strides = view_strides(input.shape, input.strides, new)
    if strides is None:
        raise ShapeMismatch(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead.",
            hint=Hint("use-reshape", shape=list(new)),
        )
    return new, strides, input.offset


_SIZES = [S(T(2, 3), [3, 2]), S(T(2, 3), [-1]), S(T(), [1]), S(T(0, 3), [3, 0]), S(C(2, 3), [6])]


@view(family="views", name="view", geometry=_view_geometry, samples=_SIZES)
def view_(k: K, input: Array, size: Shape) -> Array:
    """The same memory with other sizes; one size may be -1."""
    return input.reshape(infer_size(size, input.size))


@view_.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.reshape(g, saved.input.shape)


def _dtype_geometry(input: Any, dtype: Any) -> Any:
    have, want = input.dtype, as_dtype(dtype)
    old, new = have.itemsize, want.itemsize  # type: ignore[union-attr]
    sizes, strides, offset = list(input.shape), list(input.strides), input.offset
    if old == new:
        return input.shape, input.strides, offset, want
    what = f"to view {scalar_type(have)} as {scalar_type(want)} (different element sizes)"  # type: ignore[arg-type]
    if not sizes:
        raise ShapeMismatch(f"self.dim() cannot be 0 {what}")
    if old > new:
        ratio = old // new
        if strides[-1] != 1:
            raise ShapeMismatch(f"self.stride(-1) must be 1 {what}, but got {strides[-1]}")
        sizes[-1] *= ratio
        return tuple(sizes), (*(s * ratio for s in strides[:-1]), 1), offset * ratio, want
    ratio = new // old
    if sizes[-1] % ratio:
        raise ShapeMismatch(f"self.size(-1) must be divisible by {ratio} {what}, but got {sizes[-1]}")
    if offset % ratio:
        raise ShapeMismatch(f"self.storage_offset() must be divisible by {ratio} {what}, but got {offset}")
    if strides[-1] != 1:
        raise ShapeMismatch(f"self.stride(-1) must be 1 {what}, but got {strides[-1]}")
    for i, s in enumerate(strides[:-1]):
        if s % ratio:
            raise ShapeMismatch(f"self.stride({i}) must be divisible by {ratio} {what}, but got {s}")
    sizes[-1] //= ratio
    return tuple(sizes), (*(s // ratio for s in strides[:-1]), 1), offset // ratio, want


@view(family="views", name="_view_dtype", geometry=_dtype_geometry, samples=[S(T(2, 3), "int32")])
def _view_dtype(k: K, input: Array, dtype: DTypeArg) -> Array:
    """The same bytes read as another dtype; no gradient passes."""
    return k.xp.ascontiguousarray(input).view(as_dtype(dtype).np)  # type: ignore[union-attr]


_view_dtype.vjp(None)  # type: ignore[arg-type]
join(view_.op, "view")
join(_view_dtype.op, "view")


@view(family="views", geometry=lambda input: (input.shape, input.strides, input.offset), samples=[S(T(2, 3)), S(T())])
def detach(k: K, input: Array) -> Array:
    """The same memory without history: no gradient passes."""
    return input


detach.vjp(None)  # type: ignore[arg-type]


@composite(family="views", moves=True, samples=[S(T(2, 3), T(3, 2)), S(T(), T(1))])
def view_as(F: Any, input: Array, other: Array) -> Array:
    """The same memory with the sizes of `other`."""
    return F.view(input, F.shape(other))


def _reshape_copy_meta(k: K, input: Spec, shape: Any) -> Spec:
    return Spec(shape, input.dtype)


@op(family="views", meta=_reshape_copy_meta, moves=True, node="UnsafeViewBackward0")
def _reshape_copy(k: K, input: Array, shape: Shape) -> Array:
    """A contiguous copy with other sizes."""
    made = k.xp.ascontiguousarray(input)
    return (made.copy() if made is input or input.flags.c_contiguous else made).reshape(shape)


@_reshape_copy.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.reshape(g, saved.input.shape)


@composite(family="views", moves=True, samples=_SIZES)
def reshape(F: Any, input: Array, shape: Shape) -> Array:
    """The same elements with other sizes: a view where the strides allow it, else a copy."""
    new = infer_size(shape, prod(F.shape(input)))
    return F.view(input, new) if F.can_view(input, new) else F._reshape_copy(input, new)


@composite(family="views", moves=True, samples=[S(T(2, 3), T(3, 2)), S(T(), T(1))])
def reshape_as(F: Any, input: Array, other: Array) -> Array:
    """The same elements with the sizes of `other`."""
    return F.reshape(input, F.shape(other))


@composite(
    family="views",
    moves=True,
    samples=[S(T(2, 3)), S(T(2, 3, 2), 1), S(T(2, 3, 2), 0, 1), S(T()), S(T(2, 0, 3), 1, -1)],
)
def flatten(F: Any, input: Array, start_dim: Dim = 0, end_dim: Dim = -1) -> Array:
    """The dimensions from `start_dim` to `end_dim` as one."""
    shape = F.shape(input)
    first, last = wrap_dim(start_dim, len(shape)), wrap_dim(end_dim, len(shape))
    if first > last:
        raise ShapeMismatch("flatten() has invalid args: start_dim cannot come after end_dim", param="start_dim")
    if not shape:
        return F.reshape(input, (1,))
    if first == last:
        return input
    return F.reshape(input, (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]))


@composite(family="views", moves=True, samples=[S(T(6), 0, [2, 3]), S(T(2, 6), -1, [3, -1])])
def unflatten(F: Any, input: Array, dim: Dim, sizes: Shape) -> Array:
    """One dimension as several; one of `sizes` may be -1."""
    shape = F.shape(input)
    d = wrap_dim(dim, len(shape))
    if not sizes:
        raise ShapeMismatch("unflatten: sizes must be non-empty", param="sizes")
    n = shape[d] if shape else 1
    try:
        new = infer_size(sizes, n)
    except ShapeMismatch as e:
        if "is invalid for input" not in e.detail and "ambiguous" not in e.detail:
            raise ShapeMismatch(f"unflatten got an unexpected error:\n{e.detail}", param="sizes") from None
        raise ShapeMismatch(
            f"unflatten: Provided sizes {text(sizes)} don't multiply up to the size of dim {d} ({n}) in the input "
            "tensor",
            param="sizes",
        ) from None
    return F.view(input, (*shape[:d], *new, *shape[d + 1 :]))


@composite(family="views", moves=True, samples=[S(T(2, 3)), S(T())])
def ravel(F: Any, input: Array) -> Array:
    """All elements in one dimension."""
    return F.view(F.contiguous(input), (prod(F.shape(input)),))


# ---------------------------------------------------------------- repeated without a copy


def _expand_geometry(input: Any, size: Any) -> Any:
    old, strides = input.shape, input.strides
    if len(size) < len(old):
        raise ShapeMismatch(
            f"expand({tensor_type(input.dtype)}{{{text(old)}}}, size={text(size)}): the number of sizes provided "
            f"({len(size)}) must be greater or equal to the number of dimensions in the tensor ({len(old)})",
            param="size",
        )
    shift = len(size) - len(old)
    sizes, steps = [0] * len(size), [0] * len(size)
    for i in range(len(size) - 1, -1, -1):  # from the last one, which PyTorch complains of first
        n = size[i]
        if i < shift:
            if n < 0:
                raise ShapeMismatch(
                    f"The expanded size of the tensor ({n}) isn't allowed in a leading, non-existing dimension {i}",
                    param="size",
                )
            sizes[i] = n
            continue
        have = old[i - shift]
        if n == -1 or n == have:
            sizes[i], steps[i] = have, strides[i - shift]
        elif have == 1 and n >= 0:
            sizes[i] = n
        else:
            raise ShapeMismatch(
                f"The expanded size of the tensor ({n}) must match the existing size ({have}) at non-singleton "
                f"dimension {i}.  Target sizes: {text(size)}.  Tensor sizes: {text(old)}",
                hint=Hint("expand", input=Param("input")),
                param="size",
            )
    for i in range(shift - 1, -1, -1):  # PyTorch gives a leading dimension of size 1 the stride of a contiguous one
        if sizes[i] == 1:
            steps[i] = sizes[i + 1] * steps[i + 1] if i + 1 < len(sizes) else 1
    return tuple(sizes), tuple(steps), input.offset


@view(family="views", geometry=_expand_geometry, samples=[S(T(2, 1), [2, 3]), S(T(3), [2, -1]), S(T(), [2])])
def expand(k: K, input: Array, size: Shape) -> Array:
    """Dimensions of size 1 repeated without a copy; -1 keeps a size."""
    return k.xp.broadcast_to(input, _expand_geometry(Spec(input.shape, k.dtype), size)[0])


@expand.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g  # the driver sums it back


@composite(family="views", moves=True, samples=[S(T(2, 1), T(2, 3)), S(T(), T(2))])
def expand_as(F: Any, input: Array, other: Array) -> Array:
    """Dimensions of size 1 repeated without a copy, to the sizes of `other`."""
    return F.expand(input, F.shape(other))


@composite(family="views", moves=True, samples=[S(T(2, 1), [2, 3]), S(T(3), [2, -1]), S(T(), [2])])
def broadcast_to(F: Any, input: Array, size: Shape) -> Array:
    """Dimensions of size 1 repeated without a copy; as `expand`."""
    return F.expand(input, size)


# ---------------------------------------------------------------- dimensions of size 1


def _squeeze_geometry(input: Any, dim: Any = None) -> Any:
    sizes, strides = input.shape, input.strides
    n = len(sizes)
    if type(dim) is int:
        d = wrap_dim(dim, n)
        if n and sizes[d] == 1:
            return sizes[:d] + sizes[d + 1 :], strides[:d] + strides[d + 1 :], input.offset
        return sizes, strides, input.offset
    dims = range(n) if dim is None else [wrap_dim(d, n) for d in dim]
    if dim is not None:
        for i, d in enumerate(dims):
            if d in dims[:i]:
                raise Invalid(f"dim {d} appears multiple times in the list of dims", code="repeated-dim", param="dim")
    keep = [i for i in range(n) if sizes[i] != 1 or i not in dims]
    return tuple([sizes[i] for i in keep]), tuple([strides[i] for i in keep]), input.offset


@view(
    family="views",
    geometry=_squeeze_geometry,
    samples=[S(T(2, 1, 3)), S(T(1, 3, 1), 0), S(T(1, 3, 1), [0, 2]), S(T()), S(T(0, 1))],
)
def squeeze(k: K, input: Array, dim: Dims | None = None) -> Array:
    """Without dimensions of size 1: all of them, or those among `dim`."""
    return input.reshape(_squeeze_geometry(Spec(input.shape, k.dtype), dim)[0])


squeeze.op.node_rule = lambda input, dim: f"SqueezeBackward{0 if dim is None else 1 if type(dim) is int else 2}"


@squeeze.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.reshape(g, saved.input.shape)


def _unsqueeze_geometry(input: Any, dim: int) -> Any:
    sizes, strides = input.shape, input.strides
    d = wrap_dim(dim, len(sizes) + 1)
    step = sizes[d] * strides[d] if d < len(sizes) else 1
    return (*sizes[:d], 1, *sizes[d:]), (*strides[:d], step, *strides[d:]), input.offset


@view(family="views", geometry=_unsqueeze_geometry, samples=[S(T(2, 3), 0), S(T(2, 3), -1), S(T(), 0)])
def unsqueeze(k: K, input: Array, dim: Dim) -> Array:
    """With one more dimension, of size 1, at `dim`."""
    d = wrap_dim(dim, input.ndim + 1)
    return input.reshape(*input.shape[:d], 1, *input.shape[d:])


@unsqueeze.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.squeeze(g, saved.dim)


def at_least(F: Any, input: Any, n: int) -> Any:
    """A tensor with at least `n` dimensions: sizes of 1 are put around."""
    have = len(F.shape(input))
    if have >= n:
        return input
    if have == 0:
        return F.reshape(input, (1,) * n)
    if have == 2:
        return F.unsqueeze(input, -1)
    made = F.unsqueeze(input, 0)
    return made if n == 2 else F.unsqueeze(made, -1)


def _atleast(n: int) -> None:
    def body(F: Any, tensors: Array | list[Array]) -> Any:
        if type(tensors) is not list:
            return at_least(F, tensors, n)
        made = [at_least(F, t, n) for t in tensors]
        return made[0] if len(made) == 1 else made

    many = "s" if n > 1 else ""
    body.__doc__ = f"A tensor, or each of a list, with at least {n} dimension{many}: sizes of 1 are put around."
    composite(
        family="views",
        name=f"atleast_{n}d",
        moves=True,
        returns="Tensor or list of Tensors",
        samples=[S(T()), S(T(3)), S(T(2, 3))],
    )(body)


for _n in (1, 2, 3):
    _atleast(_n)

# ---------------------------------------------------------------- dimensions in another order


def _transpose_geometry(input: Any, dim0: int, dim1: int) -> Any:
    a, b = wrap_dim(dim0, input.ndim), wrap_dim(dim1, input.ndim)
    sizes, strides = list(input.shape), list(input.strides)
    if sizes:
        sizes[a], sizes[b], strides[a], strides[b] = sizes[b], sizes[a], strides[b], strides[a]
    return tuple(sizes), tuple(strides), input.offset


_SWAPS = [S(T(2, 3), 0, 1), S(T(2, 3, 4), -1, 0), S(T(), 0, 0)]


@view(family="views", geometry=_transpose_geometry, samples=_SWAPS)
def transpose(k: K, input: Array, dim0: Dim, dim1: Dim) -> Array:
    """Two dimensions exchanged."""
    return input.swapaxes(dim0, dim1) if input.ndim else input


@transpose.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.transpose(g, saved.dim0, saved.dim1)


@composite(family="views", moves=True, samples=_SWAPS)
def swapaxes(F: Any, input: Array, axis0: Dim, axis1: Dim) -> Array:
    """Two dimensions exchanged; another name of `transpose`."""
    return F.transpose(input, axis0, axis1)


@composite(family="views", moves=True, samples=_SWAPS)
def swapdims(F: Any, input: Array, dim0: Dim, dim1: Dim) -> Array:
    """Two dimensions exchanged; another name of `transpose`."""
    return F.transpose(input, dim0, dim1)


def _t_geometry(input: Any) -> Any:
    if input.ndim > 2:
        raise ShapeMismatch(
            f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D",
            param="input",
            hint=Hint("transpose-two", Call("transpose", {"input": Param("input"), "dim0": -2, "dim1": -1})),
        )
    return tuple(input.shape[::-1]), tuple(input.strides[::-1]), input.offset


@view(family="views", geometry=_t_geometry, node="TBackward0", samples=[S(T(2, 3)), S(T(3)), S(T())])
def t(k: K, input: Array) -> Array:
    """A matrix transposed; vectors and scalars as they are."""
    return input.T


@t.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.t(g)


def _permute_geometry(input: Any, dims: Any) -> Any:
    n = len(input.shape)
    if len(dims) != n:
        raise ShapeMismatch(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the length of the desired "
            f"ordering of dimensions i.e. input.dim() = {n} is not equal to len(dims) = {len(dims)}",
            hint=Hint("every-dim", order=list(range(n))),
            param="dims",
        )
    order: list[int] = []
    for d in dims:
        order.append(wrap_dim(d, n))
        if order.count(order[-1]) > 1:
            hint = Hint("every-dim", order=list(range(n)))
            raise Invalid("permute(): duplicate dims are not allowed.", code="repeated-dim", hint=hint, param="dims")
    return tuple([input.shape[d] for d in order]), tuple([input.strides[d] for d in order]), input.offset


@view(family="views", geometry=_permute_geometry, samples=[S(T(2, 3), [1, 0]), S(T(2, 3, 4), [2, 0, -2]), S(T(), [])])
def permute(k: K, input: Array, dims: Shape) -> Array:
    """All dimensions in another order."""
    return input.transpose(tuple(d % input.ndim for d in dims))


@permute.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    n = len(saved.dims)
    back = [0] * n
    for i, d in enumerate(saved.dims):
        back[d % n] = i
    return F.permute(g, tuple(back))


# ---------------------------------------------------------------- parts


def _select_geometry(input: Any, dim: int, index: int) -> Any:
    sizes, strides = input.shape, input.strides
    if not sizes:
        raise DimOutOfRange("select() cannot be applied to a 0-dim tensor.", param="input")
    d = wrap_dim(dim, len(sizes))
    n = sizes[d]
    if not -n <= index < n:
        raise IndexOutOfRange(
            f"select(): index {index} out of range for tensor of size {text(sizes)} at dimension {d}",
            hint=Hint("index-range", low=-n, high=n - 1, index=index),
            param="index",
        )
    at = index + n if index < 0 else index
    return sizes[:d] + sizes[d + 1 :], strides[:d] + strides[d + 1 :], input.offset + at * strides[d]


@view(family="views", name="_select", node="SelectBackward0", geometry=_select_geometry)
def _select(k: K, input: Array, dim: Dim, index: int) -> Array:
    """One slice along `dim`, without that dimension."""
    return input[(*(slice(None),) * (dim % input.ndim), index, ...)]


_select.vjp(region_gradient("_select"))


@composite(family="views", moves=True, samples=[S(T(3, 2), 0, 1), S(T(2, 3, 4), -1, -2)])
def select(F: Any, input: Array, dim: Dim, index: int) -> Array:
    """One slice along `dim`, without that dimension."""
    return F._select(input, dim, index)


def _slice_geometry(input: Any, dim: int, start: int, end: int, step: int = 1) -> Any:
    sizes, strides = list(input.shape), list(input.strides)
    offset = input.offset + start * strides[dim] if end > start or start else input.offset
    sizes[dim] = max(end - start + step - 1, 0) // step
    strides[dim] *= step
    return tuple(sizes), tuple(strides), offset


@view(family="views", name="_slice", node="SliceBackward0", geometry=_slice_geometry)
def _slice(k: K, input: Array, dim: int, start: int, end: int, step: int = 1) -> Array:
    """The part from `start` to before `end` along `dim`; all of them in range already."""
    return input[(*(slice(None),) * dim, slice(start, end, step))]


_slice.vjp(region_gradient("_slice"))


def number_in(x: Any) -> Any:
    """The number that a 0-d tensor holds; 0 where only shapes are known."""
    if type(x) is Spec:
        return 0
    return (x.backend.to_host(x.array) if type(x) is Tensor else x).item()


@composite(family="views", moves=True, samples=[S(T(4, 3), 0, 1, 2), S(T(2, 3), -1, -2, 1), S(T(3), 0, 1, 0)])
def narrow(F: Any, input: Array, dim: Dim, start: Array | Scalar, length: int) -> Array:
    """The `length` elements along `dim` that begin at `start`."""
    shape = F.shape(input)
    if not shape:
        raise ShapeMismatch("narrow() cannot be applied to a 0-dim tensor.", param="input")
    if length < 0:
        raise ShapeMismatch("narrow(): length must be non-negative.", param="length")
    if type(start) is not int:
        if type(start) in (float, complex, bool) or F.shape(start) or F.dtype(start).category != INT:
            raise Invalid("start must be an 0-dim integral Tensor.", code="wrong-type", param="start")
        start = number_in(start)
    d = wrap_dim(dim, len(shape))
    n = shape[d]
    if not -n <= start <= n:
        raise IndexOutOfRange(
            f"start out of range (expected to be in range of [{-n}, {n}], but got {start})", param="start"
        )
    at = start + n if start < 0 else start
    if at > n - length:
        raise ShapeMismatch(f"start ({at}) + length ({length}) exceeds dimension size ({n}).", param="length")
    return F._slice(input, d, at, at + length, 1)


def _diagonal_geometry(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    sizes, strides = input.shape, input.strides
    a, b = wrap_dim(dim1, len(sizes), scalar_ok=True), wrap_dim(dim2, len(sizes), scalar_ok=True)
    if a == b:
        raise Invalid(f"diagonal dimensions cannot be identical {dim1}, {dim2}", code="repeated-dim", param="dim2")
    n = max(min(sizes[a], sizes[b] - offset) if offset >= 0 else min(sizes[a] + offset, sizes[b]), 0)
    start = input.offset
    if n:
        start += offset * strides[b] if offset >= 0 else -offset * strides[a]
    keep = [i for i in range(len(sizes)) if i not in (a, b)]
    return (*(sizes[i] for i in keep), n), (*(strides[i] for i in keep), strides[a] + strides[b]), start


@view(
    family="views",
    geometry=_diagonal_geometry,
    samples=[S(T(3, 3)), S(T(2, 4), 1), S(T(4, 2), -1), S(T(2, 3, 4), 0, -2, -1), S(T(2, 2), 5)],
)
def diagonal(k: K, input: Array, offset: int = 0, dim1: Dim = 0, dim2: Dim = 1) -> Array:
    """The elements whose places along `dim1` and `dim2` differ by `offset`, as the last dimension."""
    made = input.diagonal(offset, dim1, dim2)
    if k.backend.kind == "cpu":
        made.flags.writeable = input.flags.writeable  # NumPy withholds that
    return made


diagonal.vjp(region_gradient("diagonal"))
