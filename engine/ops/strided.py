"""Views that only strides can tell: windows, sizes and strides as given, real and imaginary parts; and in-place changes
of a tensor's own sizes."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.context import Context
from engine.declare import Array, Dim, Dims, Shape, composite, op, special, view
from engine.dtypes import DTYPES, FLOAT, scalar_type
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch
from engine.op import REGISTRY, Op, Spec
from engine.ops.scatter import combine, floats
from engine.samples import C, S, T
from engine.shapes import contiguous_strides, extent, has_internal_overlap, text, wrap_dim
from engine.tape import Node, check_inplace, refresh
from engine.tensor import Tensor, View, view_of

# ---------------------------------------------------------------- windows


def _unfold_geometry(input: Any, dimension: int, size: int, step: int) -> Any:
    sizes, strides = list(input.shape), list(input.strides)
    d = wrap_dim(dimension, len(sizes))
    n = sizes[d] if sizes else 1
    if size < 0:
        raise ShapeMismatch(f"size is {size} but must be >= 0", param="size")
    if size > n:
        raise ShapeMismatch(f"maximum size for tensor at dimension {d} is {n} but size is {size}", param="size")
    if step <= 0:
        raise Invalid(f"step is {step} but must be > 0", param="step")
    along = strides[d] if strides else 1
    if sizes:
        sizes[d] = (n - size) // step + 1
        strides[d] = step * along
    return (*sizes, size), (*strides, along), input.offset


@view(
    family="views",
    geometry=_unfold_geometry,
    samples=[S(T(5), 0, 2, 1), S(T(2, 7), 1, 3, 2), S(T(4, 2), -2, 3, 1), S(T(), 0, 1, 1)],
)
def unfold(k: K, input: Array, dimension: Dim, size: int, step: int) -> Array:
    """Windows of `size` elements along a dimension, `step` apart, as a last dimension."""
    like = Spec(input.shape, k.dtype)
    sizes = _unfold_geometry(like, dimension, size, step)[0]
    if not input.ndim:
        return input.reshape(1)[:size]
    d = dimension % input.ndim
    strides = list(input.strides)
    strides[d] *= step
    return k.xp.lib.stride_tricks.as_strided(input, sizes, (*strides, input.strides[d]))


@unfold.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._unfold_backward(g, saved.input.shape, saved.dimension, saved.size, saved.step)


def _unfold_backward_meta(k: K, grad: Spec, sizes: Any, dimension: int, size: int, step: int) -> Spec:
    return Spec(sizes, grad.dtype)


@op(family="views", meta=_unfold_backward_meta, moves=True)
def _unfold_backward(k: K, grad: Array, sizes: Shape, dimension: Dim, size: int, step: int) -> Array:
    """Each window's gradient added where the window lay."""
    grad = floats(k, grad)
    made = k.xp.zeros(sizes, grad.dtype)
    if not sizes:
        return grad.reshape(()) if size else made
    d = dimension % len(sizes)
    count = grad.shape[d]
    before = (slice(None),) * d
    for j in range(size):
        part = made[(*before, slice(j, j + (count - 1) * step + 1, step))]
        part += grad[..., j]
    return made


@_unfold_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.unfold(g, saved.dimension, saved.size, saved.step)


# ---------------------------------------------------------------- sizes and strides as given


def _as_strided_geometry(input: Any, size: Any, stride: Any, storage_offset: int, origin: Any) -> Any:
    return size, stride, storage_offset


def _places(k: K, shape: Any, strides: Any, offset: int) -> Array:
    """Where the elements of a geometry lie in its storage."""
    made = k.xp.full((1,) * len(shape), offset, dtype="int64")
    for i, (n, s) in enumerate(zip(shape, strides, strict=True)):
        line = k.xp.arange(n, dtype="int64") * s
        made = made + line.reshape((-1,) + (1,) * (len(shape) - 1 - i))
    return made


def _needed(*geometries: Any) -> int:
    return max(int(offset) + extent(shape, strides) for shape, strides, offset in geometries)


@view(family="views", name="_as_strided", node="AsStridedBackward0", geometry=_as_strided_geometry)
def _as_strided(k: K, input: Array, size: Shape, stride: Shape, storage_offset: int, origin: Any) -> Array:
    """A geometry in the storage in which the input has the geometry `origin`; what the input does not hold is 0."""
    shape, strides, offset = origin
    here = (size, stride, storage_offset)
    plain = input.flags.c_contiguous and strides == contiguous_strides(shape) and offset == 0
    if plain and _needed(here) <= input.size:
        steps = [s * input.itemsize for s in stride]
        start = input.reshape(-1)[storage_offset:]
        return k.xp.lib.stride_tricks.as_strided(start, size, steps) if start.size else start.reshape(size)
    flat = k.xp.zeros(max(_needed(here, origin), 1), input.dtype)
    flat[_places(k, *origin).reshape(-1)] = input.reshape(-1)
    return flat[_places(k, *here)]


@_as_strided.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._as_strided_backward(g, saved.size, saved.stride, saved.storage_offset, saved.origin)


def _as_strided_backward_meta(k: K, grad: Spec, size: Any, stride: Any, storage_offset: int, origin: Any) -> Spec:
    return Spec(tuple(origin[0]), grad.dtype)


@op(family="views", meta=_as_strided_backward_meta, moves=True)
def _as_strided_backward(k: K, grad: Array, size: Shape, stride: Shape, storage_offset: int, origin: Any) -> Array:
    """Gradients added up place by place of the storage, then read through the input's geometry.

    Where several of the input's elements share a place, each gets its part of the place's gradient.
    """
    grad = floats(k, grad)
    here = (size, stride, storage_offset)
    flat = k.xp.zeros(max(_needed(here, origin), 1), grad.dtype)
    if grad.size:
        combine(k, "add", flat, _places(k, *here).reshape(-1), k.xp.ascontiguousarray(grad).reshape(-1))
    places = _places(k, *origin)
    if has_internal_overlap(tuple(origin[0]), tuple(origin[1])):
        shared = k.xp.zeros(flat.shape, grad.dtype)
        combine(k, "add", shared, places.reshape(-1), k.xp.ones(places.size, grad.dtype))
        flat = flat / k.xp.where(shared == 0, k.xp.ones_like(shared), shared)
    return flat[places]


@_as_strided_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._as_strided(g, saved.size, saved.stride, saved.storage_offset, saved.origin)


def check_strided(input: Any, size: Any, stride: Any, storage_offset: int | None) -> tuple[Any, ...]:
    """(sizes, strides, offset) in the storage of a tensor. Raises in PyTorch's words where they do not fit."""
    offset = input.offset if storage_offset is None else storage_offset
    if len(size) != len(stride):
        raise ShapeMismatch("mismatch in length of strides and shape", param="stride")
    for s in stride:
        if s < 0:
            raise Invalid(
                f"as_strided: Negative strides are not supported at the moment, got strides: {text(stride)}",
                param="stride",
            )
    if any(n < 0 for n in size):
        raise ShapeMismatch(
            f"Storage size calculation overflowed with sizes={text(size)} and strides={text(stride)}", param="size"
        )
    if offset < 0:
        raise Invalid(f"Tensor: invalid storage offset {offset}", param="storage_offset")
    reach = extent(tuple(size), tuple(stride))
    item = input.dtype.itemsize
    held = input.storage.nbytes if type(input) is Tensor else 1 << 62  # of a Spec nothing is known
    if reach and (offset + reach) * item > held:
        raise ShapeMismatch(
            f"setStorage: sizes {text(size)}, strides {text(stride)}, storage offset {offset}, and itemsize {item} "
            f"requiring a storage size of {(offset + reach) * item} are out of bounds for storage of size {held}",
            param="size",
        )
    return tuple(size), tuple(stride), offset


def geometry_of(x: Any) -> tuple[Any, ...]:
    """(sizes, strides, offset), as nodes keep them."""
    return x.shape, tuple(x.strides), x.offset


@special(family="views", samples=[S(T(3, 3), [2, 2], [1, 2]), S(T(2, 4), [3], [2], 1), S(T(4), [2, 2], [1, 1])])
def as_strided(ctx: Context, input: Array, size: Shape, stride: Shape, storage_offset: int | None = None) -> Array:
    """A view of the tensor's storage with any sizes and strides, counted in elements."""
    here = check_strided(input, size, stride, storage_offset)
    made: Tensor = REGISTRY["_as_strided"].run((input, *here, geometry_of(input)))
    view_ = made.view
    if view_ is not None and view_.base is not input:
        # A chain of views may hide memory that this one sees: it is told from the base itself.
        step = (REGISTRY["_as_strided"], (*here, geometry_of(view_.base)), 0)
        if view_.base.dtype is made.dtype:
            made.view = View(view_.base, (step,), view_.creation, view_.version)
    return made


# ---------------------------------------------------------------- complex numbers and their parts

_REAL_OF = {"complex64": DTYPES["float32"], "complex128": DTYPES["float64"]}
_COMPLEX_OF = {real.name: DTYPES[name] for name, real in _REAL_OF.items()}


def _as_real_geometry(input: Any) -> Any:
    d = _REAL_OF.get(input.dtype.name)
    if d is None:
        raise DtypeMismatch("view_as_real is only supported for complex tensors", param="input")
    return (*input.shape, 2), (*(2 * s for s in input.strides), 1), 2 * input.offset, d


@view(family="views", geometry=_as_real_geometry, samples=[S(C(2, 3)), S(C())])
def view_as_real(k: K, input: Array) -> Array:
    """A complex tensor as a real one, with real and imaginary parts as a last dimension."""
    real = input.real
    step = input.dtype.itemsize // 2
    return k.xp.lib.stride_tricks.as_strided(real, (*input.shape, 2), (*input.strides, step))


@view_as_real.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.view_as_complex(F._reshape_copy(g, F.shape(g)))


def _as_complex_geometry(input: Any) -> Any:
    d = _COMPLEX_OF.get(input.dtype.name)
    if d is None:
        raise DtypeMismatch(
            "view_as_complex is only supported for half, float and double tensors, but got a tensor of scalar type: "
            + scalar_type(input.dtype),
            param="input",
        )
    if not input.shape:
        raise ShapeMismatch("Input tensor must have one or more dimensions", param="input")
    if input.shape[-1] != 2:
        raise ShapeMismatch("Tensor must have a last dimension of size 2", param="input")
    if input.strides[-1] != 1:
        raise ShapeMismatch("Tensor must have a last dimension with stride 1", param="input")
    if any(s % 2 for s in input.strides[:-1]):
        raise ShapeMismatch("Tensor must have a stride divisible by 2 for all but last dimension", param="input")
    if input.offset % 2:
        raise ShapeMismatch("Tensor must have a storage_offset divisible by 2", param="input")
    return input.shape[:-1], tuple([s // 2 for s in input.strides[:-1]]), input.offset // 2, d


@view(family="views", geometry=_as_complex_geometry, samples=[S(T(3, 2)), S(T(2))])
def view_as_complex(k: K, input: Array) -> Array:
    """Pairs along the last dimension as complex numbers."""
    d = _COMPLEX_OF["float64" if input.dtype.itemsize == 8 else "float32"].np
    if input.strides[-1] == input.itemsize or input.flags.c_contiguous:
        return input.view(d).reshape(input.shape[:-1])
    return k.xp.ascontiguousarray(input).view(d).reshape(input.shape[:-1])


@view_as_complex.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.view_as_real(g)


def _part_geometry(shift: int) -> Any:
    def geometry(input: Any) -> Any:
        return input.shape, tuple([2 * s for s in input.strides]), 2 * input.offset + shift, _REAL_OF[input.dtype.name]

    return geometry


@view(family="views", name="_real", node="SelectBackward0", geometry=_part_geometry(0))
def _real(k: K, input: Array) -> Array:
    """The real part of a complex tensor."""
    return input.real


@_real.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g  # the driver makes it complex


@view(family="views", name="_imag", node="SelectBackward0", geometry=_part_geometry(1))
def _imag(k: K, input: Array) -> Array:
    """The imaginary part of a complex tensor."""
    return input.imag


@_imag.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.mul(g, 1j)


@composite(family="views", moves=True, samples=[S(C(2, 3)), S(C()), S(T(2))])
def real(F: Any, input: Array) -> Array:
    """The real part, sharing memory; a real tensor as it is."""
    return F._real(input) if F.dtype(input).is_complex else input


@composite(family="views", moves=True, samples=[S(C(2, 3)), S(C())])
def imag(F: Any, input: Array) -> Array:
    """The imaginary part of a complex tensor, sharing memory."""
    if F.dtype(input).category <= FLOAT:
        raise DtypeMismatch("imag is not implemented for tensors with non-complex dtypes.", param="input")
    return F._imag(input)


# ---------------------------------------------------------------- in place


def regeometry(ctx: Context, t: Tensor, op_: Op, rest: tuple[Any, ...], node: str) -> Tensor:
    """Gives a tensor the geometry that a view of it would have. Its memory is not touched, its version is raised.

    Views that were made of it before are views of what it was: a tensor of the old geometry becomes their base, and
    its own.
    """
    if t.view is not None:
        refresh(t)
    check_inplace(t, t.requires_grad)
    made = op_.geometry(t, *rest)  # type: ignore[misc]
    shown = view_of(t, *made[:3])
    tracked = t.requires_grad and (ctx.grad_enabled or t.edge is not None)  # a history always fits the tensor
    undo = ctx.undo
    for name in ("array", "spec", "offset", "_strides", "view", "edge", "requires_grad"):
        undo.slot(t, name)
    step = (op_, rest, 0)
    if t.view is not None:
        t.view = View(t.view.base, (*t.view.steps, step), t.view.creation, t.view.version)
    elif not (t.requires_grad and t.edge is None):
        before = Tensor(t.array, t.spec, t.storage, t.backend)
        before.offset, before._strides = t.offset, t._strides
        before.edge, before.requires_grad = t.edge, t.requires_grad
        t.view = View(before, (step,), "default", t.storage.version)
    if tracked:
        made_by = Node(
            op_,
            (t.spec, *rest),
            (t.edge if t.edge is not None else t,),
            (),
            (shown.spec,),
            1,
            (),
            None,
            t.backend,
            ctx.next_seq(),
        )
        made_by.name = node
        t.edge = (made_by, 0)
    t.array, t.spec, t.offset, t._strides = shown.array, shown.spec, shown.offset, shown._strides
    undo.slot(t.storage, "version")
    t.storage.version += 1
    if t.view is not None:
        t.view.version = t.storage.version
    return t


@special(family="views", samples=[S(T(1, 3)), S(T(1, 3, 1), 2)])
def squeeze_(ctx: Context, input: Array, dim: Dims | None = None) -> Array:
    """In-place version of `squeeze`: takes dimensions of size 1 out of the tensor itself."""
    node = f"SqueezeBackward{3 if dim is None else 4 if type(dim) is int else 5}"
    return regeometry(ctx, input, REGISTRY["squeeze"], (dim,), node)


@special(family="views", samples=[S(T(2, 3), 0)])
def unsqueeze_(ctx: Context, input: Array, dim: Dim) -> Array:
    """In-place version of `unsqueeze`: puts a dimension of size 1 into the tensor itself."""
    return regeometry(ctx, input, REGISTRY["unsqueeze"], (dim,), "UnsqueezeBackward1")


@special(family="views", samples=[S(T(2, 3), 0, 1)])
def transpose_(ctx: Context, input: Array, dim0: Dim, dim1: Dim) -> Array:
    """In-place version of `transpose`: exchanges two dimensions of the tensor itself."""
    return regeometry(ctx, input, REGISTRY["transpose"], (dim0, dim1), "TransposeBackward1")


@special(family="views", samples=[S(T(2, 3), 0, 1)])
def swapaxes_(ctx: Context, input: Array, axis0: Dim, axis1: Dim) -> Array:
    """In-place version of `swapaxes`: exchanges two dimensions of the tensor itself."""
    return regeometry(ctx, input, REGISTRY["transpose"], (axis0, axis1), "TransposeBackward1")


@special(family="views", samples=[S(T(2, 3), 0, 1)])
def swapdims_(ctx: Context, input: Array, dim0: Dim, dim1: Dim) -> Array:
    """In-place version of `swapdims`: exchanges two dimensions of the tensor itself."""
    return regeometry(ctx, input, REGISTRY["transpose"], (dim0, dim1), "TransposeBackward1")


@special(family="views", samples=[S(T(2, 3))])
def t_(ctx: Context, input: Array) -> Array:
    """In-place version of `t`: transposes the matrix itself."""
    if input.ndim > 2:
        raise ShapeMismatch(f"t_() expects a tensor with <= 2 dimensions, but self is {input.ndim}D", param="input")
    return regeometry(ctx, input, REGISTRY["t"], (), "TBackward1")


@special(family="views", samples=[S(T(2, 3), [3], [2])])
def as_strided_(ctx: Context, input: Array, size: Shape, stride: Shape, storage_offset: int | None = None) -> Array:
    """In-place version of `as_strided`: gives the tensor itself other sizes and strides."""
    rest = (*check_strided(input, size, stride, storage_offset), geometry_of(input))
    return regeometry(ctx, input, REGISTRY["_as_strided"], rest, "AsStridedBackward1")
