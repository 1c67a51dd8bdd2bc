"""Changes of dtype, device and layout. Where nothing changes the result is the tensor itself, as in PyTorch."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.context import Context
from engine.declare import Array, Device, DTypeArg, composite, op, special
from engine.dtypes import DTYPES, TENSOR_TYPES, DType, from_numpy
from engine.metas import as_dtype
from engine.op import REGISTRY, Spec
from engine.ops.common import memory_order
from engine.samples import B, C, I, S, T
from engine.tape import Node, edge_of, refresh
from engine.tensor import fresh

# ---------------------------------------------------------------- dtypes


def _to_meta(k: K, input: Any, dtype: Any) -> Spec:
    return Spec(input.shape, as_dtype(dtype))  # type: ignore[arg-type]


@op(family="casts", meta=_to_meta, by_cell=True, node="ToCopyBackward0")
def _to_dtype(k: K, input: Array, dtype: DTypeArg) -> Array:
    """A copy in another dtype; `to` and its short names end here."""
    source, target = from_numpy(input.dtype), k.spec.dtype.compute
    if source is None or source is target:
        return input.copy(order="K")
    return k.backend.cast(input, source, target)


@_to_dtype.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g  # the driver casts a gradient to its input's dtype


# ---------------------------------------------------------------- devices


@special(family="casts")
def _to_device(ctx: Context, input: Array, device: Device) -> Array:
    """The tensor on another device, in the same layout where it is dense. The gradient moves back."""
    target, source = ctx.find(device), input.backend
    if target is source:
        return input
    if input.view is not None:
        refresh(input)
    ctx.admit(input.nbytes)
    array = input.array
    if input.is_dense and array.ndim > 1:
        order = list(memory_order(array))
        back = [order.index(i) for i in range(array.ndim)]
        array = target.from_host(source.to_host(array.transpose(order))).transpose(back)
    else:
        array = target.from_host(source.to_host(array))
    if array.base is not None or not input.is_dense:
        array = array.copy(order="K")
    made = fresh(array, input.spec, target, ctx.ledger)
    edge = edge_of(input)
    if edge is not None and ctx.grad_enabled:
        moved = REGISTRY["_to_device"]
        moved.plan(1, ())
        node = Node(moved, (input.spec, source.name), (edge,), (), (made.spec,), 1, (), None, target, ctx.next_seq())
        made.edge, made.requires_grad = (node, 0), True
    return made


def _device_meta(k: K, input: Any, device: Any) -> Spec:
    return input  # type: ignore[no-any-return]


def _device_rule(F: Any, saved: Any, g: Any, need: Any) -> Any:
    if F.recording:
        return F._to_device(g, saved.device)
    return F.k.ctx.find(saved.device).from_host(F.k.backend.to_host(g))


_moved = REGISTRY["_to_device"]
_moved.meta, _moved.vjp, _moved.moves, _moved.node = _device_meta, _device_rule, True, "ToCopyBackward0"


@composite(
    family="casts",
    moves=True,
    samples=[
        S(T(2, 3), dtype="float64"),
        S(T(2, 3), dtype="float32", copy=True),
        S(T(), dtype="float16"),
        S(T(0, 2), dtype="float64"),
        S(T(2, 3), other=T(1)),
        S(I(3), dtype="float32"),
        S(C(2), dtype="complex128"),
    ],
)
def to(
    F: Any,
    input: Array,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    other: Array | None = None,
    non_blocking: bool = False,
    copy: bool = False,
) -> Array:
    """The tensor in another dtype, on another device, or in those of `other`.

    Where nothing changes the result is the tensor itself, unless `copy`. Floats become integers by losing their
    fraction. `non_blocking` changes nothing here.
    """
    d = as_dtype(dtype)
    if other is not None:
        d = F.dtype(other)
        if F.recording:
            device = other.device
    made = input if device is None or not F.recording else F._to_device(input, device)
    if d is not None and d is not F.dtype(made):
        return F._to_dtype(made, d)
    return F._to_dtype(made, F.dtype(made)) if copy and made is input else made


def _short(name: str, d: DType) -> None:
    def body(F: Any, input: Array) -> Array:
        return input if F.dtype(input) is d else F._to_dtype(input, d)

    body.__doc__ = f"The tensor as {d.name}; itself if it is that already."
    composite(name=name, family="casts", moves=True, samples=[S(T(2, 3)), S(T()), S(I(3)), S(B(2)), S(T(0, 2))])(body)


for _name, _dtype in (
    ("float", "float32"),
    ("double", "float64"),
    ("half", "float16"),
    ("bfloat16", "bfloat16"),
    ("int", "int32"),
    ("long", "int64"),
    ("short", "int16"),
    ("char", "int8"),
    ("byte", "uint8"),
    ("bool", "bool"),
    ("cfloat", "complex64"),
    ("cdouble", "complex128"),
):
    _short(_name, DTYPES[_dtype])


@composite(family="casts", moves=True, samples=[S(T(2, 3), I(1)), S(T(2, 3), T(2))])
def type_as(F: Any, input: Array, other: Array) -> Array:
    """The tensor in the dtype and on the device of `other`."""
    return F.to(input, other=other)


@special(family="casts", name="type", returns="Tensor or string", example={"input": [1.5, 2.5]})
def type_of(ctx: Context, input: Array, dtype: DTypeArg | None = None) -> Any:
    """The tensor as `dtype`; without one, the name of its type, such as torch.FloatTensor."""
    if dtype is not None:
        return REGISTRY["to"].run((input, dtype, None, None, False, False))
    where = "torch.cuda." if input.backend.kind == "cuda" else "torch."
    return where + TENSOR_TYPES[input.dtype.name]


@composite(family="casts", moves=True, samples=[S(T(2, 3)), S(T()), S(I(3))])
def cpu(F: Any, input: Array) -> Array:
    """The tensor in the host's memory; itself if it is there."""
    return F.to(input, device="cpu")


@special(family="casts", example={"input": [1.5, 2.5]})
def cuda(ctx: Context, input: Array, device: Device | int | None = None, non_blocking: bool = False) -> Array:
    """The tensor on a CUDA device, the first one if none is named. `non_blocking` changes nothing here."""
    name = "cuda:0" if device is None else f"cuda:{device}" if isinstance(device, int) else device
    return REGISTRY["_to_device"].run((input, name))


REGISTRY["cuda"].meta = lambda k, input, device=None, non_blocking=False: input


# ---------------------------------------------------------------- layout


@composite(family="casts", moves=True, samples=[S(T(2, 3)), S(T())])
def contiguous(F: Any, input: Array) -> Array:
    """The tensor with its elements in row-major order: itself, or a copy."""
    if F.recording and input.is_contiguous:
        return input
    return F._contiguous(input)


@op(family="casts", meta=lambda k, input: input, moves=True, node="CloneBackward0")
def _contiguous(k: K, input: Array) -> Array:
    """A copy in row-major order."""
    return input.copy()


@_contiguous.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g


@special(family="casts", samples=[S(T(2, 3)), S(T(2), "float64")])
def to_dense(ctx: Context, input: Array, dtype: DTypeArg | None = None, masked_grad: bool | None = None) -> Any:
    """The tensor itself, since it is dense; in another dtype where one is given."""
    d = as_dtype(dtype)
    return input if d is None or d is input.dtype else REGISTRY["to"].run((input, d.name, None, None, False, False))
