"""Tensors by the layout of their memory: made with given strides, and resized in place."""

from __future__ import annotations

from typing import Any

from engine.backend import find
from engine.carriers import K
from engine.context import Context
from engine.declare import Array, Device, DTypeArg, Shape, special
from engine.dtypes import DType
from engine.errors import (
    Call,
    Conflict,
    DeviceMismatch,
    DtypeMismatch,
    Hint,
    Invalid,
    NoGradient,
    Param,
    ShapeMismatch,
)
from engine.metas import as_dtype
from engine.op import REGISTRY, Spec
from engine.ops.strided import geometry_of, regeometry
from engine.samples import I, S, T
from engine.shapes import check_size, contiguous_strides, extent, text
from engine.tape import check_inplace, require_grad
from engine.tensor import Storage, Tensor, fresh, view_of

# ---------------------------------------------------------------- made with strides


def _checked(size: Any, stride: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sizes, strides = tuple(size), tuple(stride)
    check_size(sizes)
    if len(sizes) != len(strides):
        raise ShapeMismatch(
            f"dimensionality of sizes ({len(sizes)}) must match dimensionality of strides ({len(strides)})",
            param="stride",
        )
    if any(s < 0 for s in strides):
        raise ShapeMismatch(
            f"Storage size calculation overflowed with sizes={text(sizes)} and strides={text(strides)}", param="stride"
        )
    check_size((extent(sizes, strides),))
    return sizes, strides


def _with_strides(ctx: Context, size: Any, stride: Any, d: DType, device: str | None, requires_grad: bool) -> Tensor:
    sizes, strides = _checked(size, stride)
    backend = ctx.default_backend if device is None else find(device, ctx.devices)
    spec = Spec((extent(sizes, strides),), d)
    ctx.admit(max(spec.nbytes, Spec(sizes, d).nbytes))
    flat = fresh(backend.xp.zeros(spec.shape, dtype=d.np), spec, backend, ctx.ledger)
    made = view_of(flat, sizes, strides, 0)
    if requires_grad:
        require_grad(made)
    return made


@special(family="factories", samples=[S([2, 3], [1, 2]), S([2, 0], [1, 1]), S([], []), S([2], [2], dtype="int64")])
def empty_strided(
    ctx: Context,
    size: Shape,
    stride: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """A tensor of the given size and strides, in elements; its values are not specified, and here they are zeros."""
    return _with_strides(ctx, size, stride, as_dtype(dtype) or ctx.default_dtype, device, requires_grad)


@empty_strided.meta
def _(k: K, size: Any, stride: Any, dtype: Any = None, *rest: Any) -> Spec:
    return Spec(_checked(size, stride)[0], as_dtype(dtype) or k.default_dtype)


@special(family="factories", samples=[S(T(2), [2, 3], [1, 2]), S(I(2), [2], [2]), S(T(), [2], [1], dtype="int64")])
def new_empty_strided(
    ctx: Context,
    input: Array,
    size: Shape,
    stride: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """As `empty_strided`, in the dtype and on the device of `input`."""
    d = as_dtype(dtype) or input.dtype
    return _with_strides(ctx, size, stride, d, device or input.device, requires_grad)


@new_empty_strided.meta
def _(k: K, input: Any, size: Any, stride: Any, dtype: Any = None, *rest: Any) -> Spec:
    return Spec(_checked(size, stride)[0], as_dtype(dtype) or input.dtype)


def _permuted_strides(size: Any, order: Any) -> tuple[int, ...]:
    n = len(size)
    if len(order) != n:
        raise ShapeMismatch(
            "Number of dimensions in size does not match the length of the physical_layout; i.e. len(size) = "
            f"{n} is not equal to len(physical_layout) = {len(order)}",
            param="physical_layout",
        )
    seen: set[int] = set()
    for i, d in enumerate(order):
        if not 0 <= d < n:
            raise Invalid(
                f"Dimension out of range (expected to be between 0 and {n - 1}, but got {d} at index {i}).  NB: "
                "negative dims not currently supported; file an issue if you want it.",
                code="dim-out-of-range",
                param="physical_layout",
            )
        if d in seen:
            raise Invalid("Duplicate dim not allowed", code="repeated-dim", param="physical_layout")
        seen.add(d)
    check_size([size[d] for d in order])
    steps = contiguous_strides([size[d] for d in order])
    return tuple([steps[list(order).index(d)] for d in range(n)])


@special(family="factories", samples=[S([2, 3], [1, 0]), S([2, 3, 4], [2, 0, 1]), S([], [])])
def empty_permuted(
    ctx: Context,
    size: Shape,
    physical_layout: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """A dense tensor whose dimensions lie in memory in the order `physical_layout`, the outermost first.

    Its values are not specified, and here they are zeros.
    """
    strides = _permuted_strides(size, physical_layout)
    return _with_strides(ctx, size, strides, as_dtype(dtype) or ctx.default_dtype, device, requires_grad)


@empty_permuted.meta
def _(k: K, size: Any, physical_layout: Any, dtype: Any = None, *rest: Any) -> Spec:
    _permuted_strides(size, physical_layout)
    return Spec(tuple(size), as_dtype(dtype) or k.default_dtype)


# ---------------------------------------------------------------- resized in place


def _resized(ctx: Context, t: Tensor, size: Any) -> Tensor:
    """The tensor with another size, in row-major order, on the elements that its memory holds.

    Where the memory is too small the tensor gets memory of its own, with zeros after the old elements.
    """
    shape = tuple(size)
    if t.requires_grad:
        raise Conflict("cannot resize variables that require grad", code="resize-requires-grad", param="input")
    if any(n < 0 for n in shape):
        raise ShapeMismatch("numel: integer multiplication overflow", param="size")
    check_size(shape)
    if shape == t.shape:
        return t
    strides = contiguous_strides(shape)
    needed = t.offset + extent(shape, strides)
    item = t.dtype.itemsize
    if needed * item <= t.storage.nbytes:
        return regeometry(ctx, t, REGISTRY["_as_strided"], (shape, strides, t.offset, geometry_of(t)), "")
    ctx.admit(needed * item)
    backend, old = t.backend, t.storage
    array = backend.xp.zeros(needed, dtype=t.dtype.np)
    held = view_of(t, (old.nbytes // item,), (1,), 0).array
    array[: held.shape[0]] = held
    storage = Storage(array, backend, ctx.ledger)
    storage.version = old.version + 1
    shown = view_of(Tensor(array, Spec(array.shape, t.dtype), storage, backend), shape, strides, t.offset)
    for name in ("array", "spec", "offset", "_strides", "storage", "view"):
        ctx.undo.slot(t, name)
    t.array, t.spec, t._strides, t.storage, t.view = shown.array, shown.spec, strides, storage, None
    return t


@special(family="views", samples=[S(T(2, 3, grad=False), [3, 2]), S(T(4, grad=False), [2]), S(I(2), [2, 2])])
def resize_(ctx: Context, input: Array, size: Shape) -> Array:
    """Gives the tensor another size in place, on the elements in its memory, in their order there.

    New elements are not specified, and here they are zeros.
    """
    return _resized(ctx, input, size)


@special(family="views", samples=[S(T(2, 3, grad=False), T(3, 2)), S(T(2, grad=False), T(2, 2))])
def resize_as_(ctx: Context, input: Array, the_template: Array) -> Array:
    """Gives the tensor the size of `the_template` in place, as `resize_` does."""
    return _resized(ctx, input, the_template.shape)


# ---------------------------------------------------------------- memory of another tensor

_CALLED = {
    "bool": "bool",
    "uint8": "unsigned char",
    "int8": "signed char",
    "int16": "short int",
    "int32": "int",
    "int64": "long int",
    "float16": "c10::Half",
    "bfloat16": "c10::BFloat16",
    "float32": "float",
    "float64": "double",
    "complex64": "c10::complex<float>",
    "complex128": "c10::complex<double>",
}


def reseat(ctx: Context, t: Tensor, shown: Tensor) -> Tensor:
    """Makes a tensor see the memory that another one sees; what saw its old memory still does."""
    for name in ("array", "spec", "offset", "_strides", "storage", "view"):
        ctx.undo.slot(t, name)
    ctx.undo.slot(t.storage, "version")  # what saved its values must not take the new ones for them
    t.storage.version += 1
    t.array, t.spec, t.offset, t._strides = shown.array, shown.spec, shown.offset, shown.strides
    t.storage, t.view = shown.storage, None
    return t


@special(
    family="views",
    samples=[
        S(T(2, 3, grad=False), T(4, grad=False)),
        S(T(2, grad=False), T(6, grad=False), 1, [2, 2], [2, 1]),
        S(I(2)),
    ],
)
def set_(
    ctx: Context,
    input: Array,
    source: Array | None = None,
    storage_offset: int = 0,
    size: Shape | None = None,
    stride: Shape | None = None,
) -> Tensor:
    """Makes the tensor see the memory of `source`: as `source` does, or with a geometry of its own in its storage.

    Without `source` it becomes an empty vector. Both tensors change together from then on; no history is kept.
    """
    for x, param in ((input, "input"), (source, "source")):
        if x is not None and x.requires_grad and ctx.grad_enabled:
            if x is input and x.edge is None:
                check_inplace(x, True)
            raise NoGradient(
                "the derivative for 'set_' is not implemented",
                code="no-derivative",
                hint=Hint("detach", Call("detach", {"input": Param(param)})),
                param=param,
            )
    if source is None:
        backend = input.backend
        return reseat(
            ctx, input, fresh(backend.xp.zeros((0,), input.dtype.np), Spec((0,), input.dtype), backend, ctx.ledger)
        )
    if source.backend is not input.backend:
        raise DeviceMismatch(
            f"a tensor on {input.device} cannot see memory on {source.device}",
            hint=Hint("move-device", Call("to", {"input": Param("source"), "device": input.device})),
            param="source",
        )
    if source.dtype is not input.dtype:
        raise DtypeMismatch(
            f"Could not set tensor of type {_CALLED[source.dtype.name]} to a tensor of type "
            f"{_CALLED[input.dtype.name]}",
            param="source",
        )
    if size is None:
        if stride is not None or storage_offset:
            raise Invalid("set_ takes an offset and strides together with a size", param="size")
        return reseat(ctx, input, view_of(source, source.shape, source.strides, source.offset))
    strides = tuple(stride) if stride else contiguous_strides(tuple(size))
    if len(strides) != len(size):
        raise ShapeMismatch(f"unequal size length ({len(size)}) and stride length ({len(strides)})", param="stride")
    if storage_offset < 0:
        raise Invalid(f"Tensor: invalid storage offset {storage_offset}", param="storage_offset")
    sizes, strides = _checked(size, strides)
    item = input.dtype.itemsize
    needed = (storage_offset + extent(sizes, strides)) * item if 0 not in sizes else 0
    if needed > source.storage.nbytes:
        raise ShapeMismatch(
            f"setStorage: sizes {text(sizes)}, strides {text(strides)}, storage offset {storage_offset}, and itemsize "
            f"{item} requiring a storage size of {needed} are out of bounds for storage of size "
            f"{source.storage.nbytes}",
            param="size",
        )
    ctx.admit_view(Spec(sizes, input.dtype).nbytes)
    return reseat(ctx, input, view_of(source, sizes, strides, storage_offset))
