"""The dtypes of the contract and PyTorch's rules of promotion.

Promotion has two levels. A dtype has a category (bool < int < float < complex); an operand has a rank
(tensor with dimensions > 0-d tensor > Python scalar). Operands of a lower rank change the dtype only where they
bring a higher category; see `torch.result_type`.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np

from engine.errors import DtypeMismatch, Hint, Invalid

BOOL, INT, FLOAT, COMPLEX = range(4)


class DType:
    """One element type. `np` is the NumPy dtype of its storage: uint16, the raw bits, for bfloat16."""

    __slots__ = ("category", "compute", "index", "is_complex", "is_floating", "itemsize", "name", "np", "reduced")

    def __init__(self, index: int, name: str, storage: str, category: int) -> None:
        self.index = index
        self.name = name
        self.np: np.dtype[Any] = np.dtype(storage)
        self.itemsize = self.np.itemsize
        self.category = category
        self.is_floating = category == FLOAT
        self.is_complex = category == COMPLEX
        self.reduced = name in ("float16", "bfloat16")
        self.compute: DType = self  # float32 for the two reduced ones, set below

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return dtype, (self.name,)


_TABLE = (
    ("bool", "bool", BOOL),
    ("uint8", "u1", INT),
    ("int8", "i1", INT),
    ("int16", "i2", INT),
    ("int32", "i4", INT),
    ("int64", "i8", INT),
    ("float16", "f2", FLOAT),
    ("bfloat16", "u2", FLOAT),
    ("float32", "f4", FLOAT),
    ("float64", "f8", FLOAT),
    ("complex64", "c8", COMPLEX),
    ("complex128", "c16", COMPLEX),
)
DTYPES: dict[str, DType] = {row[0]: DType(i, *row) for i, row in enumerate(_TABLE)}
bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64, complex64, complex128 = DTYPES.values()
float16.compute = bfloat16.compute = float32

# What PyTorch's printed names and older books call them.
TENSOR_TYPES = {
    "bool": "BoolTensor",
    "uint8": "ByteTensor",
    "int8": "CharTensor",
    "int16": "ShortTensor",
    "int32": "IntTensor",
    "int64": "LongTensor",
    "float16": "HalfTensor",
    "bfloat16": "BFloat16Tensor",
    "float32": "FloatTensor",
    "float64": "DoubleTensor",
    "complex64": "ComplexFloatTensor",
    "complex128": "ComplexDoubleTensor",
}
SYNONYMS = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    "cfloat": "complex64",
    "cdouble": "complex128",
}
# c10's names, which PyTorch uses in messages.
SCALAR_TYPES = {
    "bool": "Bool",
    "uint8": "Byte",
    "int8": "Char",
    "int16": "Short",
    "int32": "Int",
    "int64": "Long",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "float32": "Float",
    "float64": "Double",
    "complex64": "ComplexFloat",
    "complex128": "ComplexDouble",
}
# What PyTorch calls a tensor's type on the CPU where the older name above is not in use.
OTHER_TYPES = frozenset(("bool", "bfloat16", "complex64", "complex128"))
C_NAMES = {
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
SYNONYMS.update({kind: name for name, kind in TENSOR_TYPES.items()})  # as in x.type("torch.LongTensor")
_BY_NUMPY = {d.np: d for d in DTYPES.values() if d is not bfloat16}


def dtype(name: str) -> DType:
    """The dtype called `name` ("float32", "torch.float32", "long"). Raises Invalid with the names there are."""
    found = DTYPES.get(name)
    if found is None:
        short = name.removeprefix("torch.")
        found = DTYPES.get(SYNONYMS.get(short, short))
    if found is None:
        near = get_close_matches(name.removeprefix("torch."), [*DTYPES, *SYNONYMS], 1, 0.5)
        hint = Hint("choice", near=near[0]) if near else Hint("choices", choices=list(DTYPES))
        raise Invalid(f"unknown dtype {name!r}: the dtypes are {', '.join(DTYPES)}", code="unknown-dtype", hint=hint)
    return found


def from_numpy(np_dtype: np.dtype[Any]) -> DType | None:
    """The dtype whose storage is `np_dtype`, in any byte order; None where there is none (uint32, datetime64)."""
    return _BY_NUMPY.get(np_dtype.newbyteorder("=") if np_dtype.kind in "biufc" else np_dtype)


def scalar_type(d: DType) -> str:
    """c10's name: Float, Long, ComplexDouble."""
    return SCALAR_TYPES[d.name]


def tensor_type(d: DType) -> str:
    """The type of a tensor in messages: torch.FloatTensor, CPUComplexFloatType."""
    return f"CPU{SCALAR_TYPES[d.name]}Type" if d.name in OTHER_TYPES else f"torch.{TENSOR_TYPES[d.name]}"


# ---------------------------------------------------------------- promotion


def _promote(a: DType, b: DType) -> DType:
    if a is b:
        return a
    if a.category > b.category:
        a, b = b, a
    if b.category == COMPLEX:
        wide = b is complex128 or a is float64 or a is complex128
        return complex128 if wide else complex64
    if a.category < b.category:
        return b
    if a.category == FLOAT:
        if a.reduced and b.reduced:
            return float32
        return a if a.index > b.index else b
    if uint8 in (a, b):  # two integers: an unsigned byte does not fit in a signed one
        other = b if a is uint8 else a
        return int16 if other is int8 else other
    return a if a.index > b.index else b


_PROMOTED = {(a, b): _promote(a, b) for a in DTYPES.values() for b in DTYPES.values()}


def promote_types(a: DType, b: DType) -> DType:
    """torch.promote_types."""
    return _PROMOTED[a, b]


def to_complex(d: DType) -> DType:
    """The complex dtype with this precision. float16 would be complex32, which the contract lacks."""
    if d is float16:
        raise DtypeMismatch(
            "float16 with a complex number would be complex32 (ComplexHalf), which is not supported here",
            code="unsupported-dtype",
        )
    return complex128 if d in (float64, complex128) else complex64


def to_real(d: DType) -> DType:
    """The real dtype of a complex dtype's parts; any other dtype is its own."""
    return float64 if d is complex128 else float32 if d is complex64 else d


def scalar_dtype(value: Any, default: DType) -> DType:
    """The dtype that a Python scalar counts as: bool, int64, the default dtype, or the default's complex one."""
    kind = type(value)
    if kind is bool:
        return bool_
    if kind is int:
        return int64
    if kind is float:
        return default
    return complex128 if default is float64 else complex64


def _combine(higher: DType | None, lower: DType | None) -> DType | None:
    """The dtype of operands of two ranks, `higher` being the rank that counts more."""
    if higher is None or lower is None:
        return higher or lower
    if higher.category == COMPLEX:
        return higher
    if higher.category == FLOAT:
        return to_complex(higher) if lower.category == COMPLEX else higher
    if higher.category == BOOL or lower.category >= FLOAT:
        return _PROMOTED[higher, lower]
    return higher


def _join(a: DType | None, b: DType) -> DType:
    return b if a is None else _PROMOTED[a, b]


def result_type(operands: Iterable[tuple[DType, int]], default: DType = float32) -> DType:
    """torch.result_type of (dtype, rank) pairs; rank 2 for tensors with dimensions, 1 for 0-d, 0 for scalars."""
    ranks: list[DType | None] = [None, None, None]
    for d, rank in operands:
        if rank == 0 and d.category >= FLOAT:
            d = default if d.category == FLOAT else (complex128 if default is float64 else complex64)
        ranks[rank] = _join(ranks[rank], d)
    result = _combine(ranks[2], _combine(ranks[1], ranks[0]))
    if result is None:
        raise DtypeMismatch("result_type of no operands")
    return result


def can_cast(source: DType, target: DType) -> bool:
    """torch.can_cast: whether an in-place result may be stored. Category must not fall (bool<-int is refused)."""
    return source.category <= target.category


_INT_LIMITS = {d: (1 << (8 * d.itemsize), d is not uint8) for d in (uint8, int8, int16, int32, int64)}


def cast_scalar(value: Any, d: DType) -> Any:
    """A Python number as C would convert it to `d`: bool, int (wrapped), float or complex.

    NumPy and CuPy take such a number without changing the array's dtype (NEP 50).
    """
    category = d.category
    if category == FLOAT:
        if type(value) is complex:
            value = value.real
        return float(value)
    if category == INT:
        if type(value) is complex:
            value = value.real
        if type(value) is float and (value != value or value in (float("inf"), float("-inf"))):
            return -(1 << (8 * d.itemsize - 1)) if d is not uint8 else 0
        whole = int(value)
        modulus, signed = _INT_LIMITS[d]
        whole %= modulus
        return whole - modulus if signed and whole >= modulus >> 1 else whole
    if category == BOOL:
        return bool(value)
    return complex(value)


def round_scalar(value: float, d: DType) -> float:
    """A float as float16 or bfloat16 has it."""
    single = np.array(value, np.float32)
    return float(single.astype(np.float16) if d is float16 else bf16_to_f32(f32_to_bf16(single)))


def check_default_dtype(name: str) -> DType:
    """A dtype that can be a default: a floating-point one. Raises Invalid."""
    d = dtype(name)
    if not d.is_floating or (d.reduced and d.name != "float16" and d.name != "bfloat16"):
        raise Invalid(
            f"only floating-point types are supported as the default type, got {d.name}", param="default_dtype"
        )
    return d


# ---------------------------------------------------------------- bfloat16 bits (host arrays)


def bf16_to_f32(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """bfloat16 bits (uint16) as float32; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def f32_to_bf16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float32 as bfloat16 bits (uint16), rounded to nearest even; a NaN stays a NaN."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    rounded = (bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))) >> np.uint32(16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(nan, np.uint32(0x7FC0), rounded).astype(np.uint16)
