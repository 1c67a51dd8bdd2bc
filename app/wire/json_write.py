"""JSON out: the engine's answers as text, with the fewest digits that read back to the same value in the tensor's
dtype.

orjson writes NumPy's arrays itself, float32 and float64 with such digits; but NaN as null, float16 as if it were
float32, and complex numbers and 0-d arrays not at all. Those are prepared here:

- float16 and bfloat16 have 65,536 values each: a table holds, for each, the float64 whose own digits are the fewest
  that do.
- NaN and the infinities come out as null, in order; each null is then replaced by the string that names it.
- complex numbers are pairs of floats in one dimension more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from decimal import ROUND_CEILING, Context, Decimal
from functools import cache
from typing import Any, Literal

import numpy as np
import orjson

from engine.dtypes import bf16_to_f32, f32_to_bf16
from engine.service import TensorAnswer

MEDIA_TYPE = "application/json"
Integers = Literal["number", "string"]
Array = np.ndarray[Any, Any]

CHUNK = 65_536  # elements: a long array is written in parts, so that other threads get their turn in between
_FEW = 1024
_INTEGER = re.compile(rb"-?\d+")


def write(value: Any, integers: Integers = "number") -> bytes:
    """The answer as JSON and a line's end. `value` is plain data, with TensorAnswers, complex numbers, NaN in it."""
    return orjson.dumps(plain(value, integers), option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def plain(value: Any, integers: Integers = "number") -> Any:
    """The answer as what orjson writes rightly."""
    kind = type(value)
    if kind is TensorAnswer:
        return tensor(value, integers)
    if kind is dict:
        return {key: plain(item, integers) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [plain(item, integers) for item in value]
    if kind is float:
        return value if math.isfinite(value) else constant(value)
    if kind is complex:
        return {"re": plain(value.real), "im": plain(value.imag)}
    return value


def result(value: Any, integers: Integers = "number") -> Any:
    """The result of an operation as `write` takes it: with `integers="string"`, a Python integer too is a string."""
    return str(value) if type(value) is int and integers == "string" else value


def tensor(answer: TensorAnswer, integers: Integers = "number") -> dict[str, Any]:
    """The tensor object; a gradient's has neither id, name nor grad of its own."""
    fields = _fields(answer, integers)
    grad = answer.grad
    return {
        "id": answer.id,
        "name": answer.name,
        **fields,
        "grad": None if grad is None else {"name": grad.name, **_fields(grad, integers)},
    }


def _fields(answer: TensorAnswer, integers: Integers) -> dict[str, Any]:
    return {
        "shape": answer.shape,
        "dtype": answer.dtype,
        "device": answer.device,
        "numel": answer.numel,
        "nbytes": answer.nbytes,
        "requires_grad": answer.requires_grad,
        "is_leaf": answer.is_leaf,
        "grad_fn": answer.grad_fn,
        "version": answer.version,
        "etag": answer.etag,
        "values": None if answer.values is None else values(answer.values, answer.dtype, integers),
    }


def weight(value: Any) -> int:
    """About how many bytes of arrays an answer has to write."""
    if type(value) is TensorAnswer:
        return (0 if value.values is None else value.values.nbytes) + (0 if value.grad is None else weight(value.grad))
    if type(value) is dict:
        return sum(map(weight, value.values()))
    return sum(map(weight, value)) if type(value) is list else 0


def constant(value: float) -> str:
    """What stands for a float that JSON lacks."""
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def values(array: Array, dtype: str, integers: Integers = "number") -> Any:
    """The elements, nested as the shape says, as what orjson writes rightly."""
    if dtype == "bfloat16" or dtype == "float16":
        array = _shortest(dtype)[array.view(np.uint16)]
    elif dtype == "complex64" or dtype == "complex128":
        part = np.float32 if dtype == "complex64" else np.float64
        array = np.ascontiguousarray(array).reshape(-1).view(part).reshape((*array.shape, 2))
    elif dtype == "int64" and integers == "string":
        return orjson.Fragment(_INTEGER.sub(rb'"\g<0>"', b"".join(_text(array))))
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        # Of a few a look at the bytes costs less than a reduction does.
        if b"\0" in finite.tobytes() if array.size <= _FEW else not np.logical_and.reduce(finite, axis=None):
            return _with_constants(array, finite)
    if array.ndim == 0:
        return array[()] if array.dtype == np.float32 else array.item()
    if array.size > CHUNK:
        return orjson.Fragment(b"".join(_text(array)))
    return np.ascontiguousarray(array)


def _text(array: Array) -> Iterator[bytes]:
    """The array's JSON in parts of at most CHUNK elements; NaN and the infinities are null."""
    if array.ndim == 0:
        yield orjson.dumps(array.reshape(1), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    elif array.size <= CHUNK:
        yield orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)
    else:
        rows = max(1, len(array) * CHUNK // array.size)
        yield b"["
        for start in range(0, len(array), rows):
            if start:
                yield b","
            if rows > 1 or array.ndim == 1:
                yield orjson.dumps(
                    np.ascontiguousarray(array[start : start + rows]), option=orjson.OPT_SERIALIZE_NUMPY
                )[1:-1]
            else:
                yield from _text(array[start])
        yield b"]"


def _with_constants(array: Array, finite: Array) -> orjson.Fragment:
    """The array's JSON with each null, which stands for a value that is not finite, replaced by that value's name."""
    parts = b"".join(_text(array)).split(b"null")
    missing = [b'"%s"' % constant(value).encode() for value in array[~finite].tolist()]
    joined: list[bytes] = [parts[0]]
    for name, part in zip(missing, parts[1:], strict=True):
        joined += (name, part)
    return orjson.Fragment(b"".join(joined))


# ---------------------------------------------------------------- fewest digits of the 16-bit floats


@cache
def _shortest(dtype: str) -> Array:
    """For each of the dtype's bit patterns, the float64 whose shortest digits are the shortest for the pattern."""
    bits = np.arange(65_536, dtype=np.uint32).astype(np.uint16)
    half = dtype == "float16"
    narrow = _float16_bits if half else _bfloat16_bits
    with np.errstate(invalid="ignore"):  # NaNs are among the patterns
        exact = (bits.view(np.float16) if half else bf16_to_f32(bits)).astype(np.float64)
    table = exact.copy()
    positive = np.flatnonzero(np.isfinite(exact[:32_768]) & (exact[:32_768] > 0))
    table[positive] = _fewest_digits(exact[positive], bits[positive], narrow)
    table[positive + 32_768] = -table[positive]
    return table


def _float16_bits(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).view(np.uint16)


def _bfloat16_bits(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return f32_to_bf16(values.astype(np.float32))


def _fewest_digits(exact: Array, bits: Array, narrow: Callable[[Array], Array]) -> Array:
    """For each positive value the decimal of fewest digits, of those the nearest, that `narrow` maps to its bits."""
    result = exact.copy()
    left = np.arange(len(exact))
    # Where the nearest decimal of so many digits misses, the next one up may still hit if the value is a power of two:
    # above it the values lie twice as far apart as below.
    power_of_two = np.frexp(exact)[0] == 0.5
    for digits in range(1, 10):
        decimals = np.array([float(f"{value:.{digits - 1}e}") for value in exact[left].tolist()])
        hit = narrow(decimals) == bits[left]
        for i in np.flatnonzero(~hit & power_of_two[left]):
            above = float(Context(prec=digits, rounding=ROUND_CEILING).plus(Decimal(float(exact[left[i]]))))
            if narrow(np.array([above]))[0] == bits[left[i]]:
                decimals[i], hit[i] = above, True
        result[left[hit]] = decimals[hit]
        left = left[~hit]
        if not len(left):
            break
    return result
