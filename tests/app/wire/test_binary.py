"""The binary forms: lossless both ways, and nothing but the bytes that they promise."""

from __future__ import annotations

import io
import json
import pickle
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.wire import npy, raw
from app.wire import safetensors as st_file
from app.wire.arrays import Parts
from engine.dtypes import DTYPES, bf16_to_f32
from engine.errors import EngineError, Malformed, NotAcceptable
from engine.service import ArrayData, TensorAnswer

Array = np.ndarray[Any, Any]
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def answer(values: Array, dtype: str) -> TensorAnswer:
    return TensorAnswer(
        "t1", None, values.shape, dtype, "cpu", values.size, values.nbytes, False, True, None, 0, None, values
    )


def bits(values: Array) -> bytes:
    return values.tobytes()


def joined(written: tuple[dict[str, str], Parts]) -> bytes:
    """A written file in one piece."""
    return b"".join(written[1])


def assert_holds(data: ArrayData, values: Array, dtype: str) -> None:
    assert (data.dtype, data.array.shape, data.inferred) == (dtype, values.shape, False)
    assert data.array.dtype == DTYPES[dtype].np
    assert data.array.dtype.isnative
    assert data.array.flags.c_contiguous
    assert bits(data.array) == bits(values)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_each_form_keeps_every_bit(dtype: str, data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(DTYPES[dtype].np, shapes))
    headers, parts = raw.write(answer(values, dtype))
    body = b"".join(parts)
    sizes = [int(size) for size in headers["Curlgrad-Shape"].split(",") if size]
    assert_holds(raw.read(body, headers["Curlgrad-Dtype"], sizes), values, dtype)
    if dtype != "bfloat16":
        assert_holds(npy.read(joined(npy.write(answer(values, dtype)))), values, dtype)
    if dtype != "complex128":
        assert_holds(st_file.read(joined(st_file.write({"w": answer(values, dtype)})))["w"], values, dtype)


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bfloat16"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("layout", "CF")
def test_npy_as_numpy_writes_it(dtype: str, order: str, layout: Any) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    file = io.BytesIO()
    np.save(file, np.asarray(values, values.dtype.newbyteorder(order), order=layout))
    assert_holds(npy.read(file.getvalue()), values, dtype)
    again = np.load(io.BytesIO(joined(npy.write(answer(values, dtype)))), allow_pickle=False)
    assert again.dtype == values.dtype
    assert np.array_equal(again, values)


def saved(array: Array, *, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


def with_header(text: str, data: bytes = b"", version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + length + text.encode() + data


GOOD = saved(np.arange(3.0))


@pytest.mark.parametrize(
    "body, words",
    [
        (b"", "not an npy file"),
        (b"PK\x03\x04" + b"\0" * 20, "not an npy file"),
        (GOOD + b"\0", "after its end"),
        (GOOD[:-1], "ends too early"),
        (GOOD[:40], "inside its header"),
        (GOOD[:10], "inside its header"),
        (b"\x93NUMPY\x03\x00" + GOOD[8:], "version 3.0"),
        (saved(np.array([object()]), pickled=True), "pickles are never read"),
        (with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps(1)), "pickles"),
        (with_header("__import__('os').system('true')"), "not the text of a dict"),
        (with_header("(" * 5000), "not the text of a dict"),
        (with_header("-" * 9000 + "1"), "not the text of a dict"),
        (with_header("{'descr': '<f8', 'fortran_order': False}"), "exactly the keys"),
        (with_header("{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}", b"\0" * 8), "a string, a bool"),
        (with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"), "not a list of sizes"),
        (with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}", b"\0" * 8), "not a list of sizes"),
        (with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1e3,)}"), "not a list of sizes"),
        (with_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**40}, {2**40})}}"), "more elements"),
        (with_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': (0, {2**70})}}"), "not a list of sizes"),
        (with_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {(1,) * 65}}}", b"\0" * 8), "65 dimensions"),
        (with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}" + " " * 10_000), "at most"),
    ],
)
def test_what_is_no_npy_file_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        npy.read(body)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "S3", "U2", "M8[s]", "g", [("a", "<i4")]])
def test_npy_of_a_dtype_that_tensors_lack_is_refused(dtype: Any) -> None:
    with pytest.raises(EngineError) as caught:
        npy.read(saved(np.zeros(2, dtype)))
    assert caught.value.code == "unsupported-dtype"


@given(st.binary(max_size=200), st.integers(0, len(GOOD)))
def test_any_bytes_are_an_npy_file_or_refused(noise: bytes, keep: int) -> None:
    try:
        data = npy.read(GOOD[:keep] + noise)
    except EngineError:
        return
    assert data.array.nbytes <= len(noise) + keep


def test_a_bool_that_is_neither_0_nor_1_is_true() -> None:
    data = raw.read(b"\x00\x01\x02\xff", "bool", None)
    assert data.array.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_raw_without_a_shape_has_one_dimension() -> None:
    assert raw.read(struct.pack("<2f", 1, 2), "float32", None).array.tolist() == [1.0, 2.0]
    with pytest.raises(Malformed, match="whole number"):
        raw.read(b"\0" * 7, "float32", None)
    with pytest.raises(Malformed, match="24 bytes, but 20"):
        raw.read(b"\0" * 20, "float32", [2, 3])


def test_raw_of_a_0_d_tensor_has_an_empty_shape() -> None:
    headers, parts = raw.write(answer(np.array(1.5, np.float32), "float32"))
    assert (headers["Curlgrad-Shape"], b"".join(parts)) == ("", struct.pack("<f", 1.5))


def test_forms_that_cannot_hold_a_dtype_name_those_that_can() -> None:
    with pytest.raises(NotAcceptable, match="bfloat16") as npy_error:
        npy.write(answer(np.zeros(1, np.uint16), "bfloat16"))
    with pytest.raises(NotAcceptable, match="complex128") as safe_error:
        st_file.write({"z": answer(np.zeros(1, np.complex128), "complex128")})
    assert npy_error.value.hint
    assert npy_error.value.hint.facts["forms"] == ["safetensors", "raw", "json"]
    assert safe_error.value.hint
    assert safe_error.value.hint.facts["forms"] == ["npy", "raw", "json"]


def test_safetensors_as_its_library_reads_and_writes_it() -> None:
    tensors = {"b": np.arange(3.0), "a": np.array([[1, 2]], np.int64), "0.weight": np.zeros((0, 2), np.float16)}
    found = st_file.read(safetensors.numpy.save(tensors))
    assert set(found) == set(tensors)
    for name, values in tensors.items():
        assert_holds(found[name], values, values.dtype.name)
    body = joined(st_file.write({name: answer(values, values.dtype.name) for name, values in tensors.items()}))
    assert {n: a.tolist() for n, a in safetensors.numpy.load(body).items()} == {
        n: a.tolist() for n, a in tensors.items()
    }


def test_safetensors_come_in_the_order_of_the_file() -> None:
    header = {n: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, n in enumerate("zyxwv")}
    assert list(st_file.read(safetensors_file({"__metadata__": {"a": "b"}, **header}, b"12345"))) == list("zyxwv")


def safetensors_file(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 20,
        safetensors_file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234" + b"5"),
        safetensors_file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        safetensors_file({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"1234"),
        safetensors_file({"a": {"dtype": "F32", "shape": [0] + [1] * 70, "data_offsets": [0, 0]}}, b""),
        safetensors_file({"a": {"dtype": "nope", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        safetensors_file([], b""),
    ],
)
def test_what_is_no_safetensors_file_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        st_file.read(body)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_file_is_refused_where_its_library_refuses_it(data: st.DataObject) -> None:
    """Whatever is wrong with places, shapes, lengths, names and metadata."""
    places = st.integers(0, 12)
    entry = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["U8", "I16", "F32", "BOOL"]),
            "shape": st.lists(st.integers(0, 3), max_size=2),
            "data_offsets": st.tuples(places, places).map(list),
        }
    )
    good = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "I16", "shape": [2, 1], "data_offsets": [3, 7]},
    }
    changes = st.dictionaries(
        st.sampled_from(["a", "b", "c"]), entry | st.sampled_from([good["a"], good["b"], {}, [], {"dtype": "U8"}])
    )
    metadata = st.sampled_from([{}, {"__metadata__": {"k": "v"}}, {"__metadata__": {"k": 1}}, {"__metadata__": []}])
    header = {**good, **data.draw(changes), **data.draw(metadata)}
    body = safetensors_file(header, bytes(data.draw(st.sampled_from([7, 7, 7, 0, 3, 8]))))
    body = body[: data.draw(st.sampled_from([len(body), len(body), 4, 8, 20]))]
    try:
        theirs = dict(safetensors.deserialize(body))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError:
        with pytest.raises(Malformed):
            st_file.read(body)
    else:
        ours = st_file.read(body)
        assert {name: list(found.array.shape) for name, found in ours.items()} == {
            name: found["shape"] for name, found in theirs.items()
        }
        assert {name: bits(found.array) for name, found in ours.items() if found.dtype != "bool"} == {
            name: bytes(found["data"]) for name, found in theirs.items() if found["dtype"] != "BOOL"
        }


def test_a_file_keeps_its_metadata_and_shares_its_memory() -> None:
    body = joined(st_file.write({"x": answer(np.arange(4.0), "float64")}, {"program": "{}"}))
    found = st_file.read_file(body)
    assert found.metadata == {"program": "{}"}
    assert np.shares_memory(found.tensors["x"].array, np.frombuffer(body, np.uint8))
    odd = safetensors_file({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}, struct.pack("<d", 2.5))
    assert st_file.read(odd)["a"].array.flags.aligned


@pytest.mark.parametrize("code, size", [("U16", 2), ("U32", 4), ("U64", 8), ("F8_E5M2", 1)])
def test_safetensors_of_a_dtype_that_tensors_lack_is_refused(code: str, size: int) -> None:
    with pytest.raises(EngineError, match=code) as caught:
        st_file.read(safetensors_file({"a": {"dtype": code, "shape": [1], "data_offsets": [0, size]}}, b"\0" * size))
    assert caught.value.code == "unsupported-dtype"


def test_bfloat16_travels_as_its_bits() -> None:
    stored = np.array([0x3F80, 0x7FC0, 0x0001], np.uint16)
    found = st_file.read(joined(st_file.write({"h": answer(stored, "bfloat16")})))["h"]
    assert found.dtype == "bfloat16"
    assert found.array.tolist() == stored.tolist()
    assert bf16_to_f32(found.array)[0] == 1.0
