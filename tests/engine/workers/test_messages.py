"""Bodies and blobs: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.answer import ArrayData, TensorAnswer
from engine.dtypes import DTYPES
from engine.errors import Call, EngineError, Hint, ShapeMismatch
from engine.workers.messages import INLINE_BYTES, TENSOR_FIELDS, BadMessage, CannotPack, Codec
from tests.engine.workers.fakes import answer

ANY_TEXT = st.text(st.characters(codec=None))  # lone surrogates too
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | ANY_TEXT | st.binary()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4), max_leaves=20
)


def through(message: dict[str, Any]) -> dict[str, Any]:
    body, blobs = Codec().pack(message)
    return Codec().unpack(body, blobs)


def same(a: Any, b: Any) -> bool:
    """Equal in type, value and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return bool(np.float64(a).tobytes() == np.float64(b).tobytes())
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(ANY_TEXT, VALUES, max_size=5))
def test_what_goes_in_comes_out(message: dict[str, Any]) -> None:
    assert same(through(message), message)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3), (70_000,)], ids=str)
def test_arrays_keep_their_bits(name: str, shape: tuple[int, ...]) -> None:
    storage = DTYPES[name].np
    count = math.prod(shape)
    bits = np.random.default_rng(7).integers(0, 2 if name == "bool" else 256, count * storage.itemsize, np.uint8)
    values = bits.view(storage).reshape(shape)
    message = {
        "given": ArrayData(values, name, inferred=True),
        "tensor": dataclasses.replace(answer("x", values, name), grad=answer(None, values, name)),
    }
    back = through(message)
    assert same(back, message)
    assert back["given"].array.flags.aligned
    assert back["tensor"].values.flags.c_contiguous


def test_arrays_in_any_order_of_memory_arrive_in_c_order() -> None:
    big = np.arange(90_000.0).reshape(300, 300)
    for values in (big.T, big[::2, ::-3], np.broadcast_to(np.float32(3), (200, 200)), big[:3, :3].T):
        back = through({"a": ArrayData(values, str(values.dtype))})["a"].array
        assert np.array_equal(back, values)
        assert back.flags.c_contiguous


def test_big_arrays_stay_out_of_the_body_and_are_not_copied() -> None:
    edge, over = np.zeros(INLINE_BYTES, np.uint8), np.zeros(INLINE_BYTES + 1, np.uint8)
    body, blobs = Codec().pack({"edge": ArrayData(edge, "uint8"), "over": ArrayData(over, "uint8")})
    assert INLINE_BYTES < len(body) < INLINE_BYTES + 200
    assert [np.shares_memory(blob, over) for blob in blobs] == [True]


def test_a_lost_blob_is_said() -> None:
    body, _ = Codec().pack({"id": 1, "a": ArrayData(np.zeros(99_999), "float64")})
    back = Codec().unpack(body, [None])
    assert back["lost"] is True
    assert back["id"] == 1


def test_numpy_scalars_become_python_numbers() -> None:
    message = {"a": np.float32(1.5), "b": np.int64(-3), "c": np.bool_(True), "d": np.complex64(1 + 2j), "e": (1, 2)}
    assert same(through(message), {"a": 1.5, "b": -3, "c": True, "d": 1 + 2j, "e": [1, 2]})


def test_errors_cross_as_data() -> None:
    error = ShapeMismatch("no", hint=Hint("cast-one", Call("to", {"input": "x"}), size=3), op="mm", big=2**70)
    error.step = [5, 0]
    back = EngineError.from_data(through({"error": error.to_data()})["error"])
    assert type(back) is ShapeMismatch
    assert back.to_data() == error.to_data()


def test_the_table_of_fields_is_the_dataclass() -> None:
    assert tuple(f.name for f in dataclasses.fields(TensorAnswer)) == TENSOR_FIELDS
    assert [f.name for f in dataclasses.fields(ArrayData)] == ["array", "dtype", "inferred"]


def test_the_bytes_of_protocol_1() -> None:
    """Bytes written down by hand from the module's docstring: a change of them is a new protocol."""
    message = {"i": 2**64, "z": 1 - 2j, "a": ArrayData(np.array([[1, -1]], np.int16), "int16")}
    body, blobs = Codec().pack(message)
    assert blobs == []
    assert body == (
        b"\x83"
        b"\xa1i" + b"\xc7\x09\x01" + bytes(8) + b"\x01"
        b"\xa1z" + b"\xd8\x02" + bytes.fromhex("000000000000f03f 00000000000000c0") +
        b"\xa1a" + b"\xc7\x11\x03" + b"\x94" + b"\x92\x01\x02" + b"\xc4\x04\x01\x00\xff\xff" + b"\xa5int16" + b"\xc2"
    )  # fmt: skip


@pytest.mark.parametrize("value", [object(), {1, 2}, np.zeros(3), type])
def test_what_has_no_place_in_a_message_is_refused(value: Any) -> None:
    codec = Codec()
    with pytest.raises(CannotPack):
        codec.pack({"a": [1, {"b": value}]})
    body, _ = codec.pack({"a": 1})
    assert Codec().unpack(body) == {"a": 1}


def test_too_deep_a_nesting_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(CannotPack, match="recursion"):
        Codec().pack({"a": deep})


def _hostile() -> dict[str, bytes]:
    def ext(code: int, *fields: Any) -> bytes:
        packed: bytes = msgpack.packb({"a": msgpack.ExtType(code, msgpack.packb(list(fields)))})
        return packed

    fields = ["t1", None, [2], "float32", "cpu", 2, 8, False, True, None, 0, "e", bytes(8), None, None]
    return {
        "nothing": b"",
        "not a dict": msgpack.packb([1, 2]),
        "keys that are no strings": msgpack.packb({1: 2}),
        "bytes left over": msgpack.packb({}) + b"\xc0",
        "deeper than any stack": b"\x91" * 200_000 + b"\xc0",
        "a list longer than the message": b"\x81\xa1a\xdd\xff\xff\xff\xff",
        "an unknown extension": ext(77, 1),
        "too few bytes for the shape": ext(3, [3], bytes(8), "float32", False),
        "negative sizes": ext(3, [-1, -2], bytes(8), "float32", False),
        "sizes that overflow": ext(3, [2**40, 2**40, 2**40], bytes(8), "float32", False),
        "sizes that are no ints": ext(3, [2.0], bytes(8), "float32", False),
        "an unknown dtype": ext(3, [2], bytes(8), "object", False),
        "an unhashable dtype": ext(3, [2], bytes(8), ["float32"], False),
        "a blob that is not there": ext(3, [2], 0, "float32", False),
        "a negative blob": ext(3, [2], -1, "float32", False),
        "fields that are missing": ext(4, *fields[:-1]),
        "a shape that is none": ext(4, *fields[:2], 5, *fields[3:]),
        "a complex of three bytes": msgpack.packb({"a": msgpack.ExtType(2, b"123")}),
        "text that is no UTF-8": b"\x81\xa1a\xa1\xff",
    }


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in _hostile().items()])
def test_hostile_bodies_are_bad_messages(body: bytes) -> None:
    with pytest.raises(BadMessage):
        Codec().unpack(body)


SAMPLE, SAMPLE_BLOBS = Codec().pack(
    {
        "id": 9,
        "ok": {"r": [answer("x", np.arange(6.0).reshape(2, 3)), 2**80, 1j, "é", None, -1.5]},
        "big": ArrayData(np.arange(10_000), "int64"),
    }
)


def test_a_body_cut_anywhere_is_a_bad_message() -> None:
    for end in range(len(SAMPLE)):
        with pytest.raises(BadMessage):
            Codec().unpack(SAMPLE[:end], SAMPLE_BLOBS)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_body_is_a_message_or_a_bad_message(damage: list[tuple[int, int]]) -> None:
    body = bytearray(SAMPLE)
    for at, value in damage:
        body[at] = value
    with contextlib.suppress(BadMessage):
        assert isinstance(Codec().unpack(body, SAMPLE_BLOBS), dict)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_a_message_or_a_bad_message(body: bytes) -> None:
    with contextlib.suppress(BadMessage):
        assert isinstance(Codec().unpack(body), dict)
