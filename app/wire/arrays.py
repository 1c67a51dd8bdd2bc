"""What the binary codecs share: bytes of one dtype and shape as a host array, and back.

Host arrays are C-contiguous and in native byte order; bfloat16 is its raw bits (uint16), as everywhere in the engine's
answers. Bytes on the wire are little-endian, in C order, without padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.dtypes import DTYPES, DType
from engine.errors import Bug, Malformed
from engine.service import ArrayData, TensorAnswer

Array = np.ndarray[Any, Any]
Body = bytes | bytearray | memoryview
Parts = list[bytes | memoryview]  # a body in pieces, so that an array need not be copied to stand behind its header

MAX_DIMS = 64
MAX_SIZE = 2**63 - 1


def check_shape(shape: Sequence[Any], what: str) -> tuple[int, ...]:
    """`shape` as a tuple, if it is one that a tensor can have. Raises Malformed, naming `what` it came from."""
    if len(shape) > MAX_DIMS:
        raise Malformed(f"{what} has {len(shape)} dimensions; a tensor has at most {MAX_DIMS}")
    for size in shape:
        if type(size) is not int or not 0 <= size <= MAX_SIZE:
            raise Malformed(f"{what} has the shape {tuple(shape)}, which is not a list of sizes")
    if math.prod(size for size in shape if size) > MAX_SIZE:
        raise Malformed(f"{what} has the shape {tuple(shape)}, which has more elements than can be counted")
    return tuple(shape)


def from_bytes(
    data: bytes | bytearray | memoryview,
    dtype: DType,
    shape: Sequence[Any],
    what: str,
    *,
    big_endian: bool = False,
    fortran: bool = False,
) -> ArrayData:
    """The array of `shape` whose elements are `data`, and nothing but `data`.

    Shares memory with `data` where the bytes are right as they are. Raises Malformed when there are too few or too
    many.
    """
    sizes = check_shape(shape, what)
    expected, given = math.prod(sizes) * dtype.itemsize, memoryview(data).nbytes
    if given != expected:
        which = "ends too early" if given < expected else "has bytes after its end"
        raise Malformed(
            f"{what} {which}: {dtype.name} of shape {list(sizes)} is {expected} bytes, but {given} were sent",
            code="wrong-length",
        )
    if not expected:
        return ArrayData(np.empty(sizes, dtype.np), dtype.name)
    if dtype.name == "bool":  # a byte other than 0 and 1 would be neither true nor false to NumPy
        flat: Array = np.frombuffer(data, np.uint8) != 0
    else:
        flat = np.frombuffer(data, dtype.np.newbyteorder(">" if big_endian else "<"))
        flat = np.require(flat.astype(dtype.np, copy=False), requirements="A")  # a header may be of any length
    array = flat.reshape(sizes, order="F" if fortran else "C")
    return ArrayData(np.ascontiguousarray(array).reshape(sizes), dtype.name)


def to_little(values: Array) -> Array:
    """The elements as they stand on the wire: one dimension, C order, little-endian."""
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1)


def to_bytes(values: Array) -> memoryview:
    """The bytes of `to_little`, without a copy where the array is as it should be."""
    return to_little(values).view(np.uint8).data if values.size else memoryview(b"")


def values_of(answer: TensorAnswer) -> tuple[Array, DType]:
    """The answer's values, and their dtype. A binary form without values cannot be written."""
    if answer.values is None:
        raise Bug("a binary form was asked for without values")
    return answer.values, DTYPES[answer.dtype]
