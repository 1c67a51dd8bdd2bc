"""Tensors as JSON: what is written reads back to the same bits, in the fewest digits of the tensor's dtype."""

from __future__ import annotations

import json
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.wire import json_write
from engine.dtypes import DTYPES, bf16_to_f32, f32_to_bf16
from engine.service import TensorAnswer

Array = np.ndarray[Any, Any]
REAL = [name for name in DTYPES if not name.startswith(("complex", "bfloat"))]


def answer(values: Array, dtype: str, **fields: Any) -> TensorAnswer:
    known = {"id": "t1", "name": None, "device": "cpu", "requires_grad": False, "is_leaf": True, "grad_fn": None}
    return TensorAnswer(
        **{**known, "version": 0, "etag": "e", **fields},
        shape=values.shape,
        dtype=dtype,
        numel=values.size,
        nbytes=values.nbytes,
        values=values,
    )


def arrays(dtype: str) -> st.SearchStrategy[Array]:
    return hnp.arrays(DTYPES[dtype].np, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))


def back(values: Any, dtype: str, shape: tuple[int, ...]) -> Array:
    """JSON values as an array of the dtype: what a client does."""
    flat: list[Any] = []

    def walk(value: Any, sizes: tuple[int, ...]) -> None:
        if not sizes:
            flat.append(float(value) if isinstance(value, str) else value)
            return
        assert isinstance(value, list)
        assert len(value) == sizes[0]
        for item in value:
            walk(item, sizes[1:])

    is_complex = dtype.startswith("complex")
    walk(values, (*shape, 2) if is_complex else shape)
    if is_complex:
        return np.array(flat, np.float64).view(np.complex128).reshape(shape).astype(dtype)
    if dtype == "bfloat16":
        with np.errstate(over="ignore"):
            return f32_to_bf16(np.array(flat, np.float64).astype(np.float32)).reshape(shape)
    if "float" in dtype:
        with np.errstate(over="ignore"):
            return np.array(flat, np.float64).astype(dtype).reshape(shape)
    return np.array(flat, dtype).reshape(shape)


def same_bits(a: Array, b: Array) -> bool:
    """Equal to the sign of zero; one NaN is as good as another, since JSON has but one."""
    if a.dtype.kind in "fc":
        parts = a.reshape(-1).view(a.real.dtype), b.reshape(-1).view(b.real.dtype)
        return bool(
            np.array_equal(*parts, equal_nan=True) and np.array_equal(*map(np.signbit, map(np.nan_to_num, parts)))
        )
    return np.array_equal(a, b)


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bfloat16"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_values_read_back_to_the_same_bits(dtype: str, data: st.DataObject) -> None:
    values = data.draw(arrays(dtype))
    text = json.loads(json_write.write(answer(values, dtype)), parse_constant=pytest.fail)
    assert text["shape"] == list(values.shape)
    assert same_bits(back(text["values"], dtype, values.shape), values)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_each_16_bit_float_reads_back_and_no_shorter_decimal_does(dtype: str) -> None:
    bits = np.arange(65_536, dtype=np.uint32).astype(np.uint16)
    stored = bits if dtype == "bfloat16" else bits.view(np.float16)
    written = json.loads(json_write.write(answer(stored, dtype)))["values"]
    with np.errstate(invalid="ignore"):
        wide = (bf16_to_f32(bits) if dtype == "bfloat16" else stored).astype(np.float64)
    read = back(written, dtype, (65_536,))
    finite = np.isfinite(wide)
    assert np.array_equal(read.view(np.uint16)[finite], bits[finite])
    assert [w for w in np.array(written, object)[~finite] if w not in ("NaN", "Infinity", "-Infinity")] == []
    shorter: list[float] = []
    owner: list[int] = []
    for i in np.flatnonzero(finite & (wide > 0)):
        digits = len(Decimal(repr(written[i])).normalize().as_tuple().digits)
        for rounding in (ROUND_FLOOR, ROUND_CEILING) if digits > 1 else ():
            shorter.append(float(Context(prec=digits - 1, rounding=rounding).plus(Decimal(float(wide[i])))))
            owner.append(int(i))
    assert len(shorter) > 10_000
    assert not np.any(back(shorter, dtype, (len(shorter),)).view(np.uint16) == bits[owner])


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_has_the_digits_of_float32(value: float) -> None:
    for shape in ((), (1,)):
        text = json_write.write({"v": json_write.values(np.full(shape, value, np.float32), "float32")}).decode()
        digits = text.strip().removeprefix('{"v":').removesuffix("}").strip("[]")
        assert np.float32(digits) == np.float32(value)
        assert len(Decimal(digits).normalize().as_tuple().digits) == len(
            Decimal(np.format_float_scientific(np.float32(value))).normalize().as_tuple().digits
        )


def text_of(values: Array, dtype: str | None = None, integers: json_write.Integers = "number") -> str:
    written = json_write.write(json_write.values(values, dtype or values.dtype.name, integers))
    return written.decode().removesuffix("\n")


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array(0.1, np.float32), "0.1"),
        (np.array(0.1, np.float16), "0.1"),
        (np.array(1.0), "1.0"),
        (np.array(-0.0, np.float32), "-0.0"),
        (np.array(math.nan), '"NaN"'),
        (np.array([math.inf, 1.0, -math.inf], np.float32), '["Infinity",1.0,"-Infinity"]'),
        (np.array([[1 + 2j]], np.complex64), "[[[1.0,2.0]]]"),
        (np.array(complex(math.nan, 1)), '["NaN",1.0]'),
        (np.zeros((0, 3)), "[]"),
        (np.zeros((2, 0, 3)), "[[],[]]"),
        (np.zeros((0,), np.complex64), "[]"),
        (np.array([True, False]), "[true,false]"),
        (np.array(True), "true"),
        (np.array([2**63 - 1, -(2**63)]), "[9223372036854775807,-9223372036854775808]"),
        (np.array(7, np.uint8), "7"),
    ],
    ids=str,
)
def test_values_are_written_as_the_contract_says(values: Array, expected: str) -> None:
    assert text_of(values) == expected


def test_bfloat16_bits_are_written_as_its_numbers() -> None:
    assert text_of(f32_to_bf16(np.array([0.1, 1.0, math.nan], np.float32)), "bfloat16") == '[0.1,1.0,"NaN"]'


def test_int64_is_written_as_strings_where_asked_for() -> None:
    assert text_of(np.array([[2**63 - 1], [-5]]), integers="string") == '[["9223372036854775807"],["-5"]]'
    assert text_of(np.array(-5), integers="string") == '"-5"'
    assert text_of(np.array([5], np.int32), integers="string") == "[5]"
    assert json_write.result(2**62, "string") == str(2**62)
    assert json_write.result(True, "string") is True


@pytest.mark.parametrize("shape", [(200_000,), (3, 100_000), (100_000, 3), (2, 1, 70_000), (1, 1, 65_537)])
@pytest.mark.parametrize("with_nan", [False, True])
def test_long_arrays_are_written_in_parts_that_join(shape: tuple[int, ...], with_nan: bool) -> None:
    values = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    if with_nan:
        values.reshape(-1)[[0, 65_536, -1]] = math.nan
    written = json.loads(text_of(values))
    assert same_bits(back(written, "float64", shape), values)


def test_a_strided_array_is_written_in_its_own_order() -> None:
    values = np.arange(6).reshape(2, 3).T
    assert json.loads(text_of(values)) == values.tolist()


def test_scalars_and_fields() -> None:
    result = {"values": [1.5, math.nan, None, 1 + 2j, -math.inf], "where": (1, True, "x")}
    assert json.loads(json_write.write(result)) == {
        "values": [1.5, "NaN", None, {"re": 1.0, "im": 2.0}, "-Infinity"],
        "where": [1, True, "x"],
    }


def test_the_tensor_object_is_the_contracts() -> None:
    grad = answer(np.array([1.0, 1.0]), "float64", id=None, etag=None)
    tensor = answer(np.array([3.0, 4.0]), "float64", name="w", requires_grad=True, grad=grad)
    written = json.loads(json_write.write(tensor))
    fields = ["id", "name", "shape", "dtype", "device", "numel", "nbytes", "requires_grad", "is_leaf", "grad_fn"]
    assert list(written) == [*fields, "version", "etag", "values", "grad"]
    assert written["values"] == [3.0, 4.0]
    assert set(written["grad"]) == set(written) - {"id", "grad"}
    assert written["grad"]["values"] == [1.0, 1.0]


def test_weight_counts_the_bytes_of_all_arrays() -> None:
    tensor = answer(np.zeros(10), "float64", grad=answer(np.zeros(5), "float64"))
    assert json_write.weight({"results": {"a": tensor, "b": [tensor, None, 3]}}) == 240
