"""application/octet-stream: the elements alone, little-endian and in C order; dtype and shape travel beside them."""

from __future__ import annotations

from collections.abc import Sequence

from app.wire.arrays import Body, Parts, from_bytes, to_bytes, values_of
from engine.dtypes import dtype as dtype_named
from engine.errors import Malformed
from engine.service import ArrayData, TensorAnswer

MEDIA_TYPE = "application/octet-stream"


def read(body: Body, dtype: str, shape: Sequence[int] | None) -> ArrayData:
    """The array whose elements are `body`; without a shape, one dimension of as many as there are."""
    kind = dtype_named(dtype)
    if shape is None:
        if len(body) % kind.itemsize:
            raise Malformed(
                f"{len(body)} bytes are not a whole number of {kind.name} elements of {kind.itemsize} bytes",
                code="wrong-length",
            )
        shape = [len(body) // kind.itemsize]
    return from_bytes(body, kind, shape, "the body")


def write(answer: TensorAnswer) -> tuple[dict[str, str], Parts]:
    """The elements where they lie, with `Curlgrad-Dtype` and `Curlgrad-Shape` (`2,3`; empty for a 0-d tensor)."""
    values, dtype = values_of(answer)
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Curlgrad-Dtype": dtype.name,
        "Curlgrad-Shape": ",".join(map(str, values.shape)),
    }
    return headers, [to_bytes(values)]
