"""application/x-npy: NumPy's own file of one array, versions 1 and 2 of the format, never a pickle.

The layout is that of `numpy.lib.format`: magic, version, length of the header, the header as the text of a Python
dict with the keys `descr`, `fortran_order` and `shape`, the elements. Headers are read here with a closed list of
dtypes, so that no text from outside is ever handed to NumPy's dtype parser.
"""

from __future__ import annotations

import ast
import io
import struct

from numpy.lib import format as npy_format

from app.wire.arrays import Body, Parts, from_bytes, to_bytes, values_of
from engine.dtypes import DTYPES
from engine.errors import DtypeMismatch, Hint, Malformed, NotAcceptable
from engine.service import ArrayData, TensorAnswer

MEDIA_TYPE = "application/x-npy"
MAX_HEADER = 10_000
_LENGTHS = {(1, 0): "<H", (2, 0): "<I"}
_KEYS = {"descr", "fortran_order", "shape"}

# What `descr` says for each dtype that a tensor can have: "<f4" and ">f4" are float32. NumPy has no bfloat16.
_DESCR = {d.np.str[1:]: d for d in DTYPES.values() if d.name != "bfloat16"}


def read(body: Body) -> ArrayData:
    """The array in `body`, converted to C order and native bytes.

    Raises Malformed where the bytes are no such file or end in more, DtypeMismatch where the dtype is none of a
    tensor's.
    """
    if bytes(body[:6]) != npy_format.MAGIC_PREFIX or len(body) < 10:
        raise Malformed("the body is not an npy file: it does not begin with \\x93NUMPY", hint=Hint("npy-how"))
    version = (body[6], body[7])
    if version not in _LENGTHS:
        raise Malformed(f"the npy file has version {version[0]}.{version[1]}; 1.0 and 2.0 are read")
    start = 8 + struct.calcsize(_LENGTHS[version])
    if len(body) < start:
        raise Malformed("the npy file ends inside its header")
    (length,) = struct.unpack_from(_LENGTHS[version], body, 8)
    if length > MAX_HEADER:
        raise Malformed(f"the npy header is {length} bytes long; that of one array has at most {MAX_HEADER}")
    if len(body) < start + length:
        raise Malformed("the npy file ends inside its header")
    descr, fortran, shape = _header(bytes(body[start : start + length]))
    if "O" in descr:
        raise Malformed(
            "the npy file holds Python objects; pickles are never read", code="pickle-refused", hint=Hint("npy-dtype")
        )
    dtype = _DESCR.get(descr[1:]) if descr[:1] in "<>|=" else None
    if dtype is None:
        names = ", ".join(d.name for d in _DESCR.values())
        raise DtypeMismatch(
            f"the npy file has the dtype {descr!r}; the dtypes that can be read are {names}",
            code="unsupported-dtype",
            hint=Hint("npy-dtype"),
        )
    data = memoryview(body)[start + length :]
    return from_bytes(data, dtype, shape, "the npy file", big_endian=descr[0] == ">", fortran=fortran)


def _header(text: bytes) -> tuple[str, bool, tuple[object, ...]]:
    try:
        header = ast.literal_eval(text.decode("latin-1").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise Malformed("the npy header is not the text of a dict") from None
    if not isinstance(header, dict) or set(header) != _KEYS:
        raise Malformed("the npy header does not have exactly the keys descr, fortran_order and shape")
    descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    if isinstance(descr, list):
        words = "the npy file holds records; one array of numbers can be read"
        raise DtypeMismatch(words, code="unsupported-dtype", hint=Hint("npy-records"))
    if not isinstance(descr, str) or not isinstance(fortran, bool) or not isinstance(shape, tuple):
        raise Malformed("the npy header's descr, fortran_order and shape are not a string, a bool and a tuple")
    return descr, fortran, shape


def write(answer: TensorAnswer) -> tuple[dict[str, str], Parts]:
    """The tensor as an npy file, its elements where they lie. Raises NotAcceptable for bfloat16, which NumPy lacks."""
    values, dtype = values_of(answer)
    if dtype.name == "bfloat16":
        raise NotAcceptable(
            "NumPy has no bfloat16, so an npy file cannot hold this tensor",
            code="dtype-not-acceptable",
            hint=Hint("other-form", forms=["safetensors", "raw", "json"]),
        )
    header = io.BytesIO()
    described = {"descr": dtype.np.newbyteorder("<").str, "fortran_order": False, "shape": values.shape}
    npy_format.write_array_header_1_0(header, described)
    return {"Content-Type": MEDIA_TYPE}, [header.getvalue(), to_bytes(values)]
