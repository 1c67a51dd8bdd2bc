"""What tensors are, as plain values: numbers, sizes, flags and names of dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.backend import CPU
from engine.carriers import NUMBERS
from engine.context import Context
from engine.declare import Array, Dim, DTypeArg, Scalar, special
from engine.dtypes import bfloat16, can_cast, promote_types, scalar_dtype
from engine.dtypes import result_type as joint_type
from engine.errors import Hint, Invalid, NotScalar
from engine.metas import as_dtype
from engine.samples import B, C, I, S, T
from engine.shapes import wrap_dim

LISTED = 40  # bytes that an element takes in a list: a number, and the reference to it


def host_values(t: Any) -> Any:
    """A tensor's values as a host array that NumPy can count with; bfloat16 widened."""
    array = t.backend.to_host(t.array)
    return CPU.widen(array, t.dtype) if t.dtype is bfloat16 else array


@special(family="values", returns="value", samples=[S(T()), S(T(1)), S(I(1, 1)), S(B()), S(C())])
def item(ctx: Context, input: Array) -> Any:
    """The one element of a tensor, as a number or bool."""
    if input.numel != 1:
        raise NotScalar(
            f"a Tensor with {input.numel} elements cannot be converted to Scalar",
            code="not-one-element",
            hint=Hint("index-first", shape=list(input.shape)),
            param="input",
        )
    return host_values(input).item()


@special(family="values", returns="value", samples=[S(T(2, 3)), S(T()), S(I(3)), S(B(2)), S(T(0, 2))])
def tolist(ctx: Context, input: Array) -> Any:
    """The elements as nested lists; a 0-d tensor gives its number."""
    ctx.admit(input.numel * LISTED)
    return host_values(input).tolist()


@special(family="values", returns="value", alias=("nelement",), samples=[S(T(2, 3)), S(T())])
def numel(ctx: Context, input: Array) -> int:
    """How many elements there are."""
    return int(input.numel)


@special(family="values", returns="value", alias=("ndimension", "ndim"), samples=[S(T(2, 3)), S(T())])
def dim(ctx: Context, input: Array) -> int:
    """How many dimensions there are."""
    return int(input.ndim)


@special(family="values", returns="value", samples=[S(T(2, 3)), S(T(2, 3), 1), S(T(2, 3), -1)])
def size(ctx: Context, input: Array, dim: Dim | None = None) -> Any:
    """The sizes, as a list; or that of one dimension."""
    return list(input.shape) if dim is None else input.shape[wrap_dim(dim, input.ndim, scalar_ok=False)]


@special(family="values", returns="value", samples=[S(T(2, 3)), S(T())])
def shape(ctx: Context, input: Array) -> list[int]:
    """The sizes, as a list."""
    return list(input.shape)


@special(family="values", returns="value", samples=[S(T(2, 3)), S(T(2, 3), 0)])
def stride(ctx: Context, input: Array, dim: Dim | None = None) -> Any:
    """How many elements of memory lie between neighbours, for each dimension or for one."""
    return list(input.strides) if dim is None else input.strides[wrap_dim(dim, input.ndim, scalar_ok=False)]


@special(family="values", returns="value", samples=[S(T(2, 3))])
def storage_offset(ctx: Context, input: Array) -> int:
    """The place of the first element in the memory that the tensor views."""
    return int(input.offset)


@special(family="values", returns="value", alias=("itemsize",), samples=[S(T(2, 3)), S(I(2))])
def element_size(ctx: Context, input: Array) -> int:
    """The bytes that an element takes."""
    return int(input.dtype.itemsize)


@special(family="values", returns="value", samples=[S(T(2, 3)), S(I(2))])
def nbytes(ctx: Context, input: Array) -> int:
    """The bytes that all elements take."""
    return int(input.numel * input.dtype.itemsize)


@special(family="values", returns="value", samples=[S(T(2, 3)), S(I(2))])
def is_floating_point(ctx: Context, input: Array) -> bool:
    """Whether the dtype is a floating one."""
    return bool(input.dtype.is_floating)


@special(family="values", returns="value", samples=[S(T(2, 3)), S(C(2))])
def is_complex(ctx: Context, input: Array) -> bool:
    """Whether the dtype is a complex one."""
    return bool(input.dtype.is_complex)


@special(family="values", returns="value", samples=[S(T(2, 3)), S(B(2))])
def is_signed(ctx: Context, input: Array) -> bool:
    """Whether the dtype has negative numbers."""
    return input.dtype.name not in ("bool", "uint8")


@special(family="values", returns="value", samples=[S(T(2, 3))])
def is_contiguous(ctx: Context, input: Array) -> bool:
    """Whether the elements lie in memory in row-major order, without gaps."""
    return bool(input.is_contiguous)


@special(family="values", returns="value", samples=[S(T()), S(I(1))])
def is_nonzero(ctx: Context, input: Array) -> bool:
    """Whether the one element of a tensor is not 0."""
    if input.numel != 1:
        words = "no values" if input.numel == 0 else "more than one value"
        raise NotScalar(f"Boolean value of Tensor with {words} is ambiguous", code="not-one-element", param="input")
    return bool(host_values(input).item())


@special(family="values", returns="value", samples=[S(T(2, 3), T(2, 3)), S(T(2), T(3))])
def is_same_size(ctx: Context, input: Array, other: Array) -> bool:
    """Whether two tensors have the same shape."""
    return bool(input.shape == other.shape)


@special(family="values", returns="value", samples=[S(T(2))])
def get_device(ctx: Context, input: Array) -> int:
    """The number of the CUDA device that holds the tensor, -1 for the CPU."""
    return -1 if input.backend.kind == "cpu" else int(input.device.partition(":")[2] or 0)


@special(family="values", name="dtype", returns="value", samples=[S(T(2)), S(I(2))])
def dtype_name(ctx: Context, input: Array) -> str:
    """The name of the dtype."""
    return str(input.dtype.name)


@special(family="values", returns="value", samples=[S(T(2))])
def device(ctx: Context, input: Array) -> str:
    """The device that holds the tensor: cpu, or cuda and its number."""
    return str(input.device)


@special(family="values", returns="value", samples=[S(T(2))])
def layout(ctx: Context, input: Array) -> str:
    """How the elements lie in memory: strided, as of every tensor here."""
    return "strided"


@special(family="values", returns="value", samples=[S(T(2))])
def is_cpu(ctx: Context, input: Array) -> bool:
    """Whether the tensor is on the CPU."""
    return bool(input.backend.kind == "cpu")


@special(family="values", returns="value", samples=[S(T(2))])
def is_cuda(ctx: Context, input: Array) -> bool:
    """Whether the tensor is on a CUDA device."""
    return bool(input.backend.kind == "cuda")


def _never(name: str, what: str) -> None:
    def asked(ctx: Context, input: Array) -> bool:
        return False

    asked.__doc__ = f"Whether the tensor {what}: never here, all tensors are dense and hold their values."
    special(family="values", name=name, returns="value", samples=[S(T(2))])(asked)


_never("is_sparse", "keeps only what is not zero")
_never("is_quantized", "is of a quantized dtype")
_never("is_nested", "holds sequences of several lengths")
_never("is_meta", "has a shape and no values")


@special(family="values", returns="value", example={})
def get_default_device(ctx: Context) -> str:
    """The device that new tensors of this session are on."""
    return str(ctx.default_backend.name)


# ---------------------------------------------------------------- dtypes by name


@special(family="values", returns="value", samples=[S(T(2), I(2)), S(I(2), 1.5), S(T(), T(2))])
def result_type(ctx: Context, tensor1: Array | Scalar, tensor2: Array | Scalar) -> str:
    """The name of the dtype that arithmetic on two operands gives."""
    operands = [
        (scalar_dtype(x, ctx.default_dtype), 0) if type(x) in NUMBERS else (x.dtype, 2 if x.shape else 1)
        for x in (tensor1, tensor2)
    ]
    return joint_type(operands, ctx.default_dtype).name


@special(family="values", name="promote_types", returns="value", samples=[S("int8", "uint8")])
def promote(ctx: Context, type1: DTypeArg, type2: DTypeArg) -> str:
    """The name of the smallest dtype that holds two dtypes."""
    return promote_types(as_dtype(type1), as_dtype(type2)).name  # type: ignore[arg-type]


@special(family="values", name="can_cast", returns="value", example={"from": "float32", "to": "int64"},
         samples=[S("float32", "int64")])  # fmt: skip
def castable(ctx: Context, from_: DTypeArg, to: DTypeArg) -> bool:
    """Whether an in-place operation may store results of one dtype in a tensor of another."""
    return can_cast(as_dtype(from_), as_dtype(to))  # type: ignore[arg-type]


@special(family="values", returns="value", samples=[S("float32")])
def finfo(ctx: Context, dtype: DTypeArg) -> dict[str, Any]:
    """The limits of a floating dtype: bits, eps, max, min, smallest_normal, resolution."""
    d = as_dtype(dtype)
    if d is None or not (d.is_floating or d.is_complex):
        raise Invalid("torch.finfo() requires a floating point input type. Use torch.iinfo to handle 'torch.finfo'")
    if d is bfloat16:
        tiny, eps, largest, resolution, bits = 2.0**-126, 2.0**-7, 3.3895313892515355e38, 0.01, 16
    else:
        info = np.finfo(d.np)
        tiny, eps, largest, resolution, bits = (
            float(info.tiny),
            float(info.eps),
            float(info.max),
            10.0 ** -int(info.precision),
            int(info.bits),
        )
    return {
        "bits": bits,
        "eps": eps,
        "max": largest,
        "min": -largest,
        "smallest_normal": tiny,
        "tiny": tiny,
        "resolution": resolution,
        "dtype": d.name,
    }


@special(family="values", returns="value", samples=[S("int32")])
def iinfo(ctx: Context, dtype: DTypeArg) -> dict[str, Any]:
    """The limits of an integer dtype: bits, max, min."""
    d = as_dtype(dtype)
    if d is None or d.np.kind not in "iu" or d is bfloat16:
        raise Invalid("torch.iinfo() requires an integer input type. Use torch.finfo to handle 'torch.iinfo'")
    info = np.iinfo(d.np)
    return {"bits": int(info.bits), "max": int(info.max), "min": int(info.min), "dtype": d.name}


# ---------------------------------------------------------------- memory


@special(family="values", returns="value", samples=[S(T(2, 3)), S(C(2))])
def is_conj(ctx: Context, input: Array) -> bool:
    """Whether the tensor is the conjugate of its memory: never here, conjugates are computed at once."""
    return False


@special(family="values", returns="value", samples=[S(T(2, 3)), S(C(2))])
def is_neg(ctx: Context, input: Array) -> bool:
    """Whether the tensor is the negative of its memory: never here, negatives are computed at once."""
    return False


@special(family="values", returns="value", samples=[S(T(2, 3), T(2, 3))])
def is_set_to(ctx: Context, input: Array, tensor: Array) -> bool:
    """Whether both tensors are the same elements of the same memory: offset, sizes and strides are equal too."""
    return (
        input.storage is tensor.storage
        and input.offset == tensor.offset
        and input.shape == tensor.shape
        and input.strides == tensor.strides
    )


@special(family="values", returns="value", samples=[S(T(2, 3)), S(T())])
def dim_order(ctx: Context, input: Array) -> list[int]:
    """The dimensions as they lie in memory, the outermost first."""
    return sorted(range(input.ndim), key=lambda d: (-input.strides[d], -input.shape[d]))
