"""Values that a client wrote down: nested lists and numbers, read as torch.tensor reads them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from engine.answer import ArrayData
from engine.backend import CPU
from engine.dtypes import (
    BOOL,
    COMPLEX,
    DTYPES,
    FLOAT,
    INT,
    DType,
    bool_,
    float32,
    float64,
    from_numpy,
    int64,
    scalar_dtype,
    to_complex,
)
from engine.errors import Hint, Invalid, ShapeMismatch, WrongType
from engine.shapes import check_size, text

WORDS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_PYTHON = {dict: "dict", type(None): "NoneType"}  # what PyTorch would call what is no data
MAX_DEPTH = 64  # NumPy's limit on dimensions

HostArray = np.ndarray[Any, Any]


def read(
    data: Any, d: DType | None, shape: Sequence[int] | None, default: DType, *, param: str = "data", adopt: bool = False
) -> tuple[HostArray, DType]:
    """A host array in storage dtype, of its own memory, and its dtype.

    Without `d` the dtype is torch.tensor's inference: bool, int64, or `default` where there is a float. A complex
    dtype takes pairs [re, im]. With `adopt`, a writable array is taken over instead of copied. Raises ShapeMismatch
    for ragged lists, with the path of the first offender.
    """
    if d is None and shape is None and type(data) is list and set(map(type, data)) == _FLOATS:
        # What most lists of a small call are. To float32 and float64 NumPy casts as C does.
        plain = default is float32 or default is float64
        return np.array(data, default.np) if plain else CPU.cast(np.array(data), float64, default), default
    if isinstance(data, ArrayData):
        array, source, inferred = data.array, DTYPES[data.dtype], data.inferred
    else:
        array, source = _from_python(data, d, param)
        inferred = True
    if d is None:
        d = source
        if inferred and source.category >= FLOAT:
            d = default if source is float64 else to_complex(default)
    if d.category == COMPLEX and inferred:
        array, source = _pairs(array, source, param)
    _check_range(array, source, d, param)
    made = CPU.cast(array, source, d)
    if shape is not None:
        made = _reshaped(made, shape, param)
    plain = made.flags.c_contiguous and made.flags.writeable
    if not plain or not (adopt or (made is not array and made.base is None)):
        made = np.array(made, order="C", copy=True)
    return made, d


def _reshaped(array: HostArray, shape: Sequence[int], param: str) -> HostArray:
    check_size(shape)
    if array.size == 0 == prod(shape):
        return array.reshape(tuple(shape))  # nested lists cannot say which of their dimensions is the empty one
    if array.ndim > 1 and array.shape != tuple(shape):
        raise ShapeMismatch(
            f"the data have shape {text(array.shape)}, but shape says {text(shape)}",
            param=param,
            code="data-shape",
            hint=Hint("data-shape", count=array.size, shape=list(array.shape)),
        )
    if array.size != prod(shape):
        raise ShapeMismatch(
            f"shape '{text(shape)}' is invalid for input of size {array.size}",
            param=param,
            code="data-shape",
            hint=Hint("data-shape", count=array.size, shape=list(array.shape)),
        )
    return array.reshape(tuple(shape))


_FLOATS = {float}
_NUMBERS = frozenset((bool, int, float, complex))


def _from_python(data: Any, d: DType | None, param: str) -> tuple[HostArray, DType]:
    if isinstance(data, int | float | complex):
        return _number(data, d, param)
    if isinstance(data, str):
        return np.array(_word(data, d, param)), (int64 if d is not None and d.category == INT else float64)
    if not isinstance(data, list | tuple):
        words = f"Could not infer dtype of {_PYTHON.get(type(data), 'object')}"
        raise WrongType(words, param=param, hint=Hint("data-words"))
    kinds = set(map(type, data))
    if kinds and kinds <= _NUMBERS:  # a plain row of numbers, which most lists of a small call are
        shape: tuple[int, ...] = (len(data),)
        flat = data
    else:
        shape = _shape_of(data, param)
        if 0 in shape:
            return np.empty(shape, np.float64), float64
        flat = data
        for _ in range(len(shape) - 1):
            flat = [x for row in flat for x in row]
        if any(type(x) is str for x in flat):
            words = "too many dimensions 'str'" if type(flat[0]) is str else "new(): invalid data type 'str'"
            flat = [_word(x, d, param, words) if type(x) is str else x for x in flat]
        kinds = set(map(type, flat))
    if not kinds <= _NUMBERS:
        bad = next(x for x in flat if type(x) not in (bool, int, float, complex))
        raise WrongType(f"Could not infer dtype of {_PYTHON.get(type(bad), 'object')}", param=param)
    joint = bool_
    for kind in kinds:
        joint = max(joint, scalar_dtype(kind(0), float64), key=lambda t: t.category)
    try:
        return np.array(flat, joint.np).reshape(shape), joint
    except OverflowError as e:
        if d is not None and d.category != INT:
            return np.array([float(x) for x in flat]).reshape(shape), float64
        raise Invalid(
            "Overflow when unpacking long long",
            code="integer-overflow",
            param=param,
        ) from e


def _number(value: complex, wanted: DType | None, param: str) -> tuple[HostArray, DType]:
    d = scalar_dtype(value, float64)
    if d.category == INT and wanted is not None and wanted.category != INT:
        value, d = float(value.real), float64  # no whole number is too large for those
    try:
        return np.array(value, d.np), d
    except OverflowError as e:
        raise Invalid("Overflow when unpacking long long", code="integer-overflow", param=param) from e


def _word(word: str, d: DType | None, param: str, words: str = "new(): invalid data type 'str'") -> Any:
    if d is not None and d.category == INT:
        try:
            return int(word)
        except ValueError:
            if word in WORDS:
                words = f"value cannot be converted to type {d.name} without overflow"
                raise Invalid(words, code="number-overflow", param=param) from None
    elif word in WORDS:
        return WORDS[word]
    raise WrongType(words, param=param, hint=Hint("data-words"))


def _shape_of(data: Any, param: str) -> tuple[int, ...]:
    """The shape of nested lists; refuses ragged ones in PyTorch's words, with the path of the first offender."""
    shape: list[int] = []
    level = [data]
    while level and isinstance(level[0], list | tuple):
        n = len(level[0])
        depth = len(shape)
        if depth >= MAX_DEPTH:
            raise ShapeMismatch(f"more than {MAX_DEPTH} dimensions", param=param)
        for i, row in enumerate(level):
            if not isinstance(row, list | tuple):
                raise _ragged("not a sequence", shape, i, param)
            if len(row) != n:
                words = f"expected sequence of length {n} at dim {depth} (got {len(row)})"
                raise _ragged(words, shape, i, param)
        shape.append(n)
        level = [x for row in level for x in row]
    for i, x in enumerate(level):
        if isinstance(x, list | tuple):
            words = f"expected a number at dim {len(shape)} (got a list)"
            raise _ragged(words, shape, i, param)
    return tuple(shape)


def _ragged(words: str, shape: Sequence[int], index: int, param: str) -> ShapeMismatch:
    path: list[int] = []
    for n in reversed(shape):
        path.insert(0, index % n)
        index //= n
    return ShapeMismatch(words, code="ragged-list", param=param, hint=Hint("ragged", path=path, param=param), path=path)


def _pairs(array: HostArray, source: DType, param: str) -> tuple[HostArray, DType]:
    """Values nested one level deeper, [re, im], as complex numbers; plain complex numbers as they are."""
    if source.category == COMPLEX:
        return array, source
    if not array.ndim or array.shape[-1] != 2:
        if array.size == 0:
            return array.astype(np.complex128), DTYPES["complex128"]
        raise ShapeMismatch(
            "complex data are pairs [re, im] in the last dimension", param=param, hint=Hint("complex-pairs")
        )
    wide = np.ascontiguousarray(array, np.float64)
    return wide.view(np.complex128).reshape(array.shape[:-1]), DTYPES["complex128"]


def _check_range(array: HostArray, source: DType, d: DType, param: str) -> None:
    """Numbers must fit an integer dtype, as torch.tensor demands; negative ones wrap around in uint8, as there."""
    if source.category == COMPLEX and d.category != COMPLEX:
        raise WrongType("must be real number, not complex", param=param, hint=Hint("give-dtype", dtype="complex64"))
    if d.category != INT or source.category == BOOL or source is d or not array.size:
        return
    info = np.iinfo(d.np)
    low = info.min or -info.max
    if not ((array >= low) & (array <= info.max)).all():
        raise Invalid(
            f"value cannot be converted to type {d.name} without overflow", code="integer-overflow", param=param
        )


def is_literal(value: Any) -> bool:
    """Whether an argument is data rather than a reference: numbers, lists, arrays, or an object with `data`."""
    return type(value) in (bool, int, float, complex, list, dict, ArrayData) or (type(value) is str and value in WORDS)


__all__ = ["HostArray", "from_numpy", "is_literal", "read"]
