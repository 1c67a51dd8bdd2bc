"""Bodies of requests for a fuzzer: good ones of every form, what turns them bad, and what must hold of each.

`check(form, body)` reads a body as a route would: it is refused by an EngineError that is no bug, or it is an array
that is as large as the body says, and that comes back, bit for bit, from what the form's writer makes of it.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image

from app.wire import arguments, csv, form, json_read, json_write, npy, pictures, raw
from app.wire import safetensors as st_file
from engine.dtypes import DTYPES
from engine.errors import Bug, EngineError
from engine.service import ArrayData, TensorAnswer

Array = np.ndarray[Any, Any]


def answer(data: ArrayData) -> TensorAnswer:
    """The answer of a tensor that holds these values."""
    a = data.array
    return TensorAnswer("t1", None, a.shape, data.dtype, "cpu", a.size, a.nbytes, False, True, None, 0, None, a)


def _as_sent(data: ArrayData, size: int) -> None:
    assert data.dtype in DTYPES, data.dtype
    assert data.array.dtype == DTYPES[data.dtype].np
    assert data.array.flags.c_contiguous
    assert data.array.dtype.isnative
    assert data.array.nbytes <= size


def _same(a: ArrayData, b: ArrayData) -> None:
    assert (a.dtype, a.array.shape) == (b.dtype, b.array.shape)
    assert a.array.tobytes() == b.array.tobytes()


# ---------------------------------------------------------------- what must hold


def _npy(body: bytes) -> None:
    data = npy.read(body)
    _as_sent(data, len(body))
    _same(npy.read(_joined(npy.write(answer(data))[1])), data)


def _joined(body: bytes | list[Any]) -> bytes:
    """A body that may be in parts, as a client gets it."""
    return body if isinstance(body, bytes) else b"".join(body)


def _safetensors(body: bytes) -> None:
    for key, data in st_file.read(body).items():
        _as_sent(data, len(body))
        if data.dtype != "complex128":
            _same(st_file.read(_joined(st_file.write({key: answer(data)})[1]))[key], data)


def _raw(body: bytes) -> None:
    """The first bytes choose dtype and shape, which come in the query."""
    names = list(DTYPES)
    dtype = names[body[0] % len(names)] if body else "float32"
    shape = None if len(body) < 2 or body[1] % 4 == 0 else [int(b) - 4 for b in body[2 : 2 + body[1] % 4]]
    data = raw.read(body[5:], dtype, shape)
    _as_sent(data, len(body))
    headers, again = raw.write(answer(data))
    sizes = [int(size) for size in headers["Curlgrad-Shape"].split(",") if size]
    _same(raw.read(_joined(again), headers["Curlgrad-Dtype"], sizes), data)


def _csv(body: bytes) -> None:
    data = csv.read(body)
    assert data.dtype in ("bool", "int64", "float64")
    assert data.array.ndim == 2
    assert data.array.nbytes <= 8 * len(body)
    again = csv.read(csv.write(answer(data))[1])
    assert again.array.shape == data.array.shape
    assert np.array_equal(again.array.astype(data.array.dtype), data.array, equal_nan=data.dtype == "float64")
    csv.read(body, dtype="float16")
    csv.read(body, columns=[0, 0])


def _picture(kind: str) -> Callable[[bytes], None]:
    def check(body: bytes) -> None:
        data = pictures.read(body, kind)
        assert data.dtype == "uint8"
        assert data.array.ndim == 3
        assert data.array.shape[2] in (1, 2, 3, 4)
        assert data.array.size <= 4 * pictures.MAX_PIXELS
        assert data.array.flags.c_contiguous

    return check


def _json(body: bytes) -> None:
    value = json_read.read(body).value
    assert _plain(json_read.read(json_write.write(value)).value) == _plain(value)


def _plain(value: Any) -> Any:
    """-0.0 and 0.0, 1 and 1.0 and true told apart."""
    return repr(value)


def _form(body: bytes) -> None:
    document = form.read(body)
    assert type(document.value) is dict
    for data in document.arrays.values():
        _as_sent(data, 8 * len(body))


@cache
def _kinds() -> arguments.Kinds:
    from engine import declare

    return arguments.kinds_of(declare.catalogue())


def _arguments(body: bytes) -> None:
    document = json_read.read(body)
    if type(document.value) is not dict:
        return
    for op in ("add", "cat", "getitem", "tensor", "zeros", "adam_"):
        taken = arguments.with_arrays(document.value, _kinds().get(op, {}), document.arrays)
        assert set(taken) == set(document.value)


CHECKS: dict[str, Callable[[bytes], None]] = {
    "npy": _npy,
    "safetensors": _safetensors,
    "raw": _raw,
    "csv": _csv,
    "png": _picture(pictures.PNG),
    "jpeg": _picture(pictures.JPEG),
    "json": _json,
    "form": _form,
    "arguments": _arguments,
}


def check(kind: str, body: bytes) -> str:
    """What became of a body: the code that it was refused with, or "read". Raises whatever is a bug."""
    try:
        CHECKS[kind](body)
    except EngineError as refusal:
        if isinstance(refusal, Bug) or refusal.code in ("error", "internal-error"):
            raise
        json.dumps(refusal.to_data())  # it goes to the client, and across processes
        return refusal.code
    return "read"


# ---------------------------------------------------------------- good bodies


def _saved(values: Any, dtype: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values).astype(dtype))
    return file.getvalue()


def _drawn(mode: str, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture = Image.new(mode, (5, 3))
    for i in range(15):
        picture.putpixel(
            (i % 5, i // 5), 16 * i if len(picture.getbands()) == 1 else (16 * i,) * len(picture.getbands())
        )
    picture.save(file, kind, **options)
    return file.getvalue()


@cache
def seeds(kind: str) -> tuple[bytes, ...]:
    """Good bodies of a form, small."""
    made: dict[str, Callable[[], list[bytes]]] = {
        "npy": lambda: [_saved([[1.5, -2.5]], d) for d in ("<f4", ">f8", "<i8", "|b1", "<c8")] + [_saved(3, "<f2")],
        "safetensors": lambda: [
            safetensors.numpy.save({"a": np.ones((2, 2), np.float32), "b": np.zeros((0, 3), np.int64)}),
            safetensors.numpy.save({"w": np.ones(3, np.float16)}, {"made": "by a test"}),
        ],
        "raw": lambda: [bytes((i, i % 4, 6, 5, 5)) + struct.pack("<4f", 1.5, 2.5, -1, 0) for i in range(12)],
        "csv": lambda: [
            b"1,2\n3,4\n",
            b'1.5,"2.5"\r\n-1e3,nan\r\n',
            b"true,false\n",
            b"\xef\xbb\xbf9223372036854775807\n",
        ],
        "png": lambda: [_drawn(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
        "jpeg": lambda: (
            [_drawn(mode, "JPEG") for mode in ("L", "RGB", "CMYK")] + [_drawn("RGB", "JPEG", progressive=True)]
        ),
        "json": lambda: [
            b'{"data":[[1,2.5],[true,"NaN"]],"dtype":"float32"}',
            b'{"a":{"re":1,"im":-0.0},"b":[null,"\\u003a"],"c":18446744073709551615}',
            json.dumps([i / 2 for i in range(300)]).encode(),
        ],
        "form": lambda: [b"size=[2,3]&out_name=x", b"a=1&b=1.0&c=%22x%22&d=hello+world", b'{"a":1}'],
        "arguments": lambda: [
            b'{"input":{"data":[[1,2],[3,4]]},"other":2.5}',
            json.dumps({"tensors": [list(range(300)), [0.5] * 300]}).encode(),
            json.dumps({"data": [[True] * 20] * 20, "input": [1.5] * 300, "index": [[0, 1], "1:"]}).encode(),
        ],
    }
    return tuple(made[kind]())


# ---------------------------------------------------------------- bad bodies

TOKENS: dict[str, tuple[bytes, ...]] = {
    "npy": (
        b"'descr'",
        b"'|O'",
        b"'<f4'",
        b"'>c16'",
        b"'<V8'",
        b"(1,)",
        b"()",
        b"(-1,)",
        b"(9223372036854775807,)",
        b"True",
        b"(0, 99999999999999999999)",
        b"[('a','<f4')]",
        b"\x93NUMPY\x02\x00",
        b"((((",
        b"'='",
        b"'|b1'",
        b"None",
        b"1j",
    ),
    "safetensors": (
        b'"dtype":"BF16"',
        b'"data_offsets":[0,4]',
        b'"__metadata__":{}',
        b'"shape":[-1]',
        b"[0,0]",
        b"null",
        b'"shape":[18446744073709551615,2]',
        b'"F8_E4M3"',
        b'"U64"',
        b"{}",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f",
        b'"a":',
    ),
    "raw": (b"\x00\x00\x80\x7f", b"\xff\xff\xff\xff", b"\x00"),
    "csv": (
        b",",
        b"\n",
        b'"',
        b"\r",
        b"\x00",
        b"1e999",
        b"-",
        b"+-1",
        b"9" * 30,
        b"1" * 400,
        b"0x1",
        b"1_0",
        b"inf",
        b"true",
        b" ",
        b"\t",
        b";",
        "٣".encode(),
        "−1".encode(),
        b"\xff",
        b"nan",
        b'""',
        b"1.5",
    ),
    "png": (
        b"IHDR",
        b"PLTE",
        b"tRNS",
        b"IDAT",
        b"IEND",
        b"zTXt",
        b"iCCP",
        b"acTL",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
    ),
    "jpeg": (
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xda",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xc4",
        b"\xff\xdb",
        b"\xff\xe1",
        b"\xff\xff",
    ),
    "json": (
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"null",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0.0",
        b"1E400",
        b"\\u0000",
        b"\\ud800",
        b"99999999999999999999",
        b"[" * 200,
        b'{"a":' * 150,
        b"18446744073709551616",
        b"\xff",
        b'"Infinity"',
        b"9007199254740993.0",
        b"1e19",
        b"-9223372036854775809",
        b"\\u003a",
    ),
    "form": (
        b"&",
        b"=",
        b"%",
        b"%00",
        b"%ff",
        b"+",
        b"[",
        b"{",
        b'"',
        b"a=1",
        b"%7B",
        b"NaN",
        b"1e999",
        b"[1,",
        b"%ED%95%9C",
    ),
}
TOKENS["arguments"] = (*TOKENS["json"], b'"data"', b'"input"', b'"tensors"', b'{"data":1}')


def mutated(rng: Random, kind: str, body: bytes | None = None) -> bytes:
    """A good body with one to eight things done to it."""
    made = bytearray(rng.choice(seeds(kind)) if body is None else body)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        at, end = rng.randrange(len(made) + 1), rng.randrange(len(made) + 1)
        low, high = min(at, end), max(at, end)
        what = rng.randrange(22) // 3
        if what == 0 and made:
            made[at % len(made)] ^= 1 << rng.randrange(8)
        elif what == 1 and made:
            made[at % len(made)] = rng.choice((0, 1, 4, 9, 10, 13, 32, 34, 44, 45, 48, 57, 127, 128, 255))
        elif what == 2:
            made[at:at] = rng.choice(TOKENS[kind])
        elif what == 3:
            token = rng.choice(TOKENS[kind])
            made[at : at + len(token)] = token
        elif what == 4:
            del made[low : min(high, low + rng.randint(1, 16))]
        elif what == 5:
            made[at:at] = made[low : min(high, low + 64)] * rng.randint(1, 3)
        elif what == 6:
            other = rng.choice(seeds(kind))
            made[low:] = other[rng.randrange(len(other) + 1) :]
        else:
            del made[at:]
    return bytes(made[:20_000])
