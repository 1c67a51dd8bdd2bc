"""Tensors from data: numbers and nested lists that a client wrote down, and the constructors of older books."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.backend import CPU, canonical
from engine.context import Context
from engine.declare import Array, Data, Device, DTypeArg, Shape, special
from engine.dtypes import DTYPES, DType, scalar_type
from engine.errors import DtypeMismatch, Hint, Invalid, WrongType
from engine.literal import WORDS, read
from engine.metas import as_dtype
from engine.op import REGISTRY, Spec
from engine.samples import I, S, T
from engine.shapes import check_size
from engine.tape import require_grad
from engine.tensor import Tensor, fresh


def _plain(data: Any) -> Any:
    """A JSON object that stands for a number, as the number; anything else as it is."""
    if type(data) is dict:
        if set(data) == {"re", "im"}:
            return complex(*(WORDS.get(v, math.nan) if type(v) is str else v for v in (data["re"], data["im"])))
        if set(data) == {"float"}:
            return float(data["float"])
    return data


def make_tensor(
    ctx: Context, data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """What torch.tensor makes of a number, nested lists of them, a tensor, or an object with `data`: a new leaf."""
    d = as_dtype(dtype)
    backend = ctx.default_backend if device is None else ctx.find(device)
    if type(data) is Tensor:
        if device is None:
            backend = data.backend
        d = d or data.dtype
        host = data.backend.to_host(data.array)
        array = np.array(CPU.cast(host, data.dtype, d), order="C", copy=True)
    else:
        data, shape = _plain(data), None
        if type(data) is dict:
            if "data" not in data or not data.keys() <= {"data", "shape", "dtype"}:
                raise WrongType("data must be numbers, bools or nested lists of them, got an object", param="data")
            data, shape, d = data["data"], data.get("shape"), d or as_dtype(data.get("dtype"))
        array, d = read(data, d, shape, ctx.default_dtype)
    ctx.admit(array.nbytes)
    t = fresh(backend.from_host(array), Spec(array.shape, d), backend, ctx.ledger)
    if requires_grad:
        require_grad(t)
    return t


_LISTS = [S([[1.5, 2.5], [3.5, 4.5]]), S([1, 2]), S(True), S([]), S([[1, 2], [3, 4]], dtype="float32")]


@special(family="data", example={"data": [[1.5, 2.5], [3.5, 4.5]]}, samples=_LISTS)
def tensor(
    ctx: Context,
    data: Data,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """A new tensor of numbers, bools or nested lists of them, or a copy of a tensor.

    Without `dtype`: bool, int64, or the default floating dtype where there is a float among them.
    """
    return make_tensor(ctx, data, dtype, device, requires_grad)


@special(family="data", example={"data": [[1.5, 2.5], [3.5, 4.5]]}, samples=_LISTS)
def as_tensor(ctx: Context, data: Data, dtype: DTypeArg | None = None, device: Device | None = None) -> Array:
    """As `tensor`; but a tensor that has the dtype and device already is itself the result, with its history."""
    if type(data) is Tensor:
        return REGISTRY["to"].run((data, dtype, device, None, False, False))
    return make_tensor(ctx, data, dtype, device)


@special(
    family="data",
    example={"obj": [[1.5, 2.5], [3.5, 4.5]]},
    samples=[
        S([[1.5, 2.5], [3.5, 4.5]]),
        S(T(2)),
        S(T(2), copy=True),
        S(T(2), dtype="float64"),
        S(I(2), requires_grad=False),
    ],
)
def asarray(
    ctx: Context,
    obj: Data,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    copy: bool | None = None,
    requires_grad: bool | None = None,
) -> Array:
    """As `as_tensor`; with `copy` a copy in any case, or in no case.

    `requires_grad` makes the result a leaf that does or does not require grad; null leaves a tensor its history.
    """
    if type(obj) is not Tensor:
        if copy is False:
            raise Invalid("can't alias arbitrary sequence into a tensor.", param="copy")
        return make_tensor(ctx, obj, dtype, device, bool(requires_grad))
    d, where = as_dtype(dtype) or obj.dtype, obj.device if device is None else canonical(device)
    if copy is False and where != obj.device:
        raise Invalid(f"can't alias tensor from device '{obj.device}' to '{where}'.", param="copy")
    if copy is False and d is not obj.dtype:
        raise Invalid(
            f"can't alias tensor with dtype '{scalar_type(obj.dtype)}' into dtype '{scalar_type(d)}'.", param="copy"
        )
    made: Tensor = obj
    if d is not obj.dtype or where != obj.device:
        made = REGISTRY["to"].run((obj, d.name, where, None, False, False))
    elif copy:
        made = REGISTRY["clone"].run((obj,))
    if requires_grad is not None and not (requires_grad and made.requires_grad and made.edge is None):
        made = REGISTRY["detach"].run((made,))
        if requires_grad:
            require_grad(made)
    return made


@special(
    family="data",
    example={"input": [1.5], "data": [1, 2]},
    samples=[S(T(2), [1, 2]), S(I(2), [1, 2]), S(T(2), [1, 2], dtype="int64")],
)
def new_tensor(
    ctx: Context,
    input: Array,
    data: Data,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """A new tensor of data, in the dtype and on the device of `input`."""
    return make_tensor(ctx, data, dtype or input.dtype, device or input.device, requires_grad)


# ---------------------------------------------------------------- constructors


def _construct(ctx: Context, d: DType, data: Any, size: Any) -> Tensor:
    if type(data) is Tensor:
        if data.dtype is not d:
            raise DtypeMismatch(
                f"expected a tensor of dtype {d.name}, got one of {data.dtype.name}",
                hint=Hint("give-dtype", dtype=d.name, have=data.dtype.name),
                param="data",
            )
        return REGISTRY["detach"].run((data,))  # type: ignore[no-any-return]
    if type(data) is int and size is None:
        data, size = None, [data]
    if data is None:
        shape = tuple(size) if size is not None else (0,)
        check_size(shape)
        ctx.admit(Spec(shape, d).nbytes)
        backend = ctx.default_backend
        return fresh(backend.xp.zeros(shape, dtype=d.np), Spec(shape, d), backend, ctx.ledger)
    data = _plain(data)
    if type(data) in (bool, float, complex):
        raise WrongType(f"new(): data must be a sequence (got {type(data).__name__})", param="data")
    return make_tensor(ctx, data, d)


def _constructor(name: str, d: DType | None) -> None:
    def build(ctx: Context, data: Data = None, size: Shape | None = None) -> Array:
        return _construct(ctx, d or ctx.default_dtype, data, size)

    kind = d.name if d is not None else "the default floating dtype"
    build.__doc__ = (
        f"A tensor of {kind}: of nested lists, or of a size.\n\nThe values of one made by `size` are not specified in "
        "PyTorch, and here they are zeros."
    )
    special(name=name, family="data", example={"data": [1, 0, 1]}, samples=[S([1, 0, 1]), S(size=[2, 3]), S()])(build)


_constructor("Tensor", None)
for _name, _dtype in (
    ("FloatTensor", "float32"),
    ("DoubleTensor", "float64"),
    ("HalfTensor", "float16"),
    ("BFloat16Tensor", "bfloat16"),
    ("LongTensor", "int64"),
    ("IntTensor", "int32"),
    ("ShortTensor", "int16"),
    ("CharTensor", "int8"),
    ("ByteTensor", "uint8"),
    ("BoolTensor", "bool"),
):
    _constructor(_name, DTYPES[_dtype])
