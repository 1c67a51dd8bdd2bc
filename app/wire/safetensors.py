"""application/x-safetensors: many named tensors in one file that runs no code.

The layout is that of the safetensors library: u64 length of the header, the header as JSON (key -> dtype, shape,
data_offsets; `__metadata__` -> strings), the elements. Read and written here without a copy of the elements. As the
library does, a header of more than 100 MB is refused, and so are elements that overlap, leave a hole, or end before the
file does. bfloat16 travels as its bits.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.wire.arrays import Body, Parts, check_shape, from_bytes, to_bytes, values_of
from engine.dtypes import DTYPES
from engine.errors import DtypeMismatch, Hint, Malformed, NotAcceptable
from engine.service import ArrayData, TensorAnswer

MEDIA_TYPE = "application/x-safetensors"
MAX_HEADER = 100_000_000
METADATA = _METADATA = "__metadata__"
_ENTRY = {"dtype", "shape", "data_offsets"}

_CODES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
# What the format has and tensors have not; any other word is none of its.
_FOREIGN = frozenset(("U16", "U32", "U64", "F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3", "F8_E8M0"))
HOLDS = frozenset(_CODES.values())  # the dtypes that the format has
_CODE_OF = {name: code for code, name in _CODES.items()}


@dataclass(slots=True)
class File:
    """What a file holds: its tensors by key, in the order of its header, and its metadata."""

    tensors: dict[str, ArrayData] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def read(body: Body) -> dict[str, ArrayData]:
    """The file's tensors by key, in the order of its header. Raises as `read_file` does."""
    return read_file(body).tensors


def read_file(body: Body) -> File:
    """The file's tensors, which share its memory, and its metadata.

    Raises Malformed where the bytes are no such file, DtypeMismatch where a dtype is none of a tensor's.
    """
    if len(body) < 8:
        raise _malformed("it is shorter than the length of a header")
    (length,) = struct.unpack_from("<Q", body)
    if length > MAX_HEADER:
        raise _malformed(f"its header would be {length} bytes long")
    if 8 + length > len(body):
        raise _malformed("it ends inside its header")
    header = _header(bytes(body[8 : 8 + length]))
    found = File(metadata=_metadata(header.pop(_METADATA, None)))
    data = memoryview(body)[8 + length :]
    _check_places(header, len(data))
    for key, entry in header.items():
        code = entry["dtype"]
        if code not in _CODES:
            if code not in _FOREIGN:
                raise _malformed(f"the dtype of {key!r}, {code!r:.40}, is none of the format's")
            raise DtypeMismatch(
                f"the tensor {key!r} has the dtype {code}; the dtypes that can be read are {', '.join(_CODES)}",
                code="unsupported-dtype",
            )
        start, end = entry["data_offsets"]
        found.tensors[key] = from_bytes(data[start:end], DTYPES[_CODES[code]], entry["shape"], f"the tensor {key!r}")
    return found


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_unique) if text[:1] == b"{" else None
    except (ValueError, RecursionError):
        header = None
    if header is None:
        raise _malformed("its header is not a JSON object")
    for key, entry in header.items():
        if key != _METADATA and not (
            type(entry) is dict
            and set(entry) == _ENTRY
            and type(entry["dtype"]) is str
            and type(entry["shape"]) is list
            and type(entry["data_offsets"]) is list
            and [type(place) for place in entry["data_offsets"]] == [int, int]
        ):
            raise _malformed(f"its header does not give {key!r} a dtype, a shape and data_offsets")
    found: dict[str, Any] = header
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is given twice")
    return found


def _metadata(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if type(given) is not dict or not all(type(value) is str for value in given.values()):
        raise _malformed("its metadata are not strings by name")
    return given


def _check_places(header: Mapping[str, Any], length: int) -> None:
    """Raise Malformed where the tensors do not lie one behind the other, from the start of the data to its end."""
    at = 0
    for key in sorted(header, key=lambda key: tuple(header[key]["data_offsets"])):
        start, end = header[key]["data_offsets"]
        check_shape(header[key]["shape"], f"the tensor {key!r}")
        if start != at or end < start:
            raise _malformed(f"the elements of {key!r} do not begin where those before end")
        at = end
    if at != length:
        raise _malformed(f"its tensors have {at} bytes, and {length} follow the header")


def _malformed(why: str) -> Malformed:
    return Malformed(f"the body is not a safetensors file: {why}")


def write(
    answers: Mapping[str, TensorAnswer], metadata: Mapping[str, str] | None = None
) -> tuple[dict[str, str], Parts]:
    """The tensors as one file, their elements where they lie. Raises NotAcceptable for complex128.

    Wide elements come first, as the library has it, so that each lies evenly.
    """
    header: dict[str, Any] = {} if metadata is None else {_METADATA: dict(metadata)}
    parts: Parts = []
    at = 0
    for key in sorted(answers, key=lambda key: -DTYPES[answers[key].dtype].itemsize):
        values, dtype = values_of(answers[key])
        if dtype.name not in _CODE_OF:
            raise NotAcceptable(
                f"a safetensors file cannot hold {dtype.name}, the dtype of {key!r}",
                code="dtype-not-acceptable",
                hint=Hint("other-form", forms=["npy", "raw", "json"]),
            )
        if key == _METADATA:
            raise NotAcceptable(
                f"a safetensors file keeps the name {key} for itself",
                code="name-not-acceptable",
                hint=Hint("other-form", forms=["npy", "raw", "json"]),
            )
        data = to_bytes(values)
        header[key] = {
            "dtype": _CODE_OF[dtype.name],
            "shape": list(values.shape),
            "data_offsets": [at, at + len(data)],
        }
        at += len(data)
        parts.append(data)
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    return {"Content-Type": MEDIA_TYPE}, [struct.pack("<Q", len(text)) + text, *parts]
