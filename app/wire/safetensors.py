"""application/x-safetensors: many named tensors in one file that runs no code.

The format is that of the safetensors library, which checks offsets, overlaps and lengths. bfloat16 travels as its bits.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import orjson
from safetensors import SafetensorError, TensorSpec, deserialize, serialize

from app.wire.arrays import from_bytes, to_little, values_of
from engine.dtypes import DTYPES
from engine.errors import DtypeMismatch, Hint, Malformed, NotAcceptable
from engine.service import ArrayData, TensorAnswer

MEDIA_TYPE = "application/x-safetensors"

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


def read(body: bytes) -> dict[str, ArrayData]:
    """The file's tensors by key, in the order of its header.

    Raises Malformed where the bytes are no such file, DtypeMismatch where a dtype is none of a tensor's.
    """
    try:
        tensors = dict(deserialize(body))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise Malformed(f"the body is not a safetensors file: {error}") from None
    (length,) = struct.unpack_from("<Q", body)
    order = [key for key in orjson.loads(body[8 : 8 + length]) if key != "__metadata__"]
    found = {}
    for key in order:
        code = tensors[key]["dtype"]
        if code not in _CODES:
            raise DtypeMismatch(
                f"the tensor {key!r} has the dtype {code}; the dtypes that can be read are {', '.join(_CODES)}",
                code="unsupported-dtype",
            )
        entry = tensors.pop(key)
        found[key] = from_bytes(entry["data"], DTYPES[_CODES[code]], entry["shape"], f"the tensor {key!r}")
    return found


def write(answers: Mapping[str, TensorAnswer], metadata: dict[str, str] | None = None) -> tuple[dict[str, str], bytes]:
    """The tensors as one file, with these entries of metadata.

    Raises NotAcceptable for complex128, which the format lacks.
    """
    specs, kept = {}, []
    for key, answer in answers.items():
        values, dtype = values_of(answer)
        if dtype.name not in _CODES.values():
            raise NotAcceptable(
                f"a safetensors file cannot hold {dtype.name}, the dtype of {key!r}",
                code="dtype-not-acceptable",
                hint=Hint("other-form", forms=["npy", "raw", "json"]),
            )
        data = to_little(values)
        kept.append(data)  # the library reads the memory behind the pointer: it must live until `serialize` is done
        specs[key] = TensorSpec(dtype=dtype.name, shape=values.shape, data_ptr=data.ctypes.data, data_len=data.nbytes)
    return {"Content-Type": MEDIA_TYPE}, bytes(serialize(specs, metadata))
