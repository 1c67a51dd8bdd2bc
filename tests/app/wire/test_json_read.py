"""JSON as it comes in: nothing guessed, nothing lost, what cannot be held refused."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.wire import json_read
from engine.errors import EngineError, LimitExceeded, Malformed

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=30,
)


def exactly_equal(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(exactly_equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(exactly_equal, a, b))
    return bool(a == b and (not isinstance(a, float) or math.copysign(1, a) == math.copysign(1, b)))


@settings(max_examples=300)
@given(json_values, st.booleans())
def test_what_json_can_say_is_read_as_it_is(value: Any, escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()
    assert exactly_equal(json_read.read(body).value, value)


@pytest.mark.parametrize("digits", ["18446744073709551616", "-9223372036854775809", "9" * 400, "1" + "0" * 5000])
@pytest.mark.parametrize("frame", ["%s", '{"seed": %s}', "[[1.5, %s]]", '{"data": [' + "1," * 500 + "%s]}"])
def test_an_integer_of_more_than_64_bits_is_refused(digits: str, frame: str) -> None:
    with pytest.raises((LimitExceeded, Malformed), match=r"64 bits|too large"):
        json_read.read((frame % digits).encode())


@pytest.mark.parametrize("number", ["18446744073709551615", "-9223372036854775808", "1e300", "18446744073709551616.0"])
def test_large_numbers_that_can_be_held_are_read(number: str) -> None:
    assert exactly_equal(json_read.read(b"[%s]" % number.encode()).value, [json.loads(number)])
    assert exactly_equal(json_read.read(number.encode()).value, json.loads(number))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 2}',
        b'{"x": {"a": 1, "b": 2, "a": 1}}',
        b'[{"a": 1}, {"b": 1, "b": 1}]',
        b'{"a": 1, "a": "\\u003a"}',
        b'{"a": "x:y", "a": 2}',
        b'{"a": 1, "\\u0061": 2}',
    ],
)
def test_a_key_given_twice_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed, match="given twice"):
        json_read.read(body)


@pytest.mark.parametrize("body", [b'{"index": ["1:", ":", "::2"]}', b'{"a:b": {"c": ":"}}', b'{"a": "\\u003a"}'])
def test_colons_within_strings_are_no_keys(body: bytes) -> None:
    assert json_read.read(body).value == json.loads(body)


@pytest.mark.parametrize("depth", [200, 5_000, 200_000])
@pytest.mark.parametrize("start, end", [("[", "]"), ('{"a":', "}")])
def test_nesting_is_bounded(depth: int, start: str, end: str) -> None:
    with pytest.raises(LimitExceeded, match="nested"):
        json_read.read((start * depth + "1" + end * depth).encode())


@pytest.mark.parametrize(
    "body, words, key",
    [
        (b"[NaN]", "not JSON", "json-nan"),
        (b"[1, -Infinity]", "not JSON", "json-nan"),
        (b"{'a': 1}", "not JSON", "json-quotes"),
        (b"'{\"a\": 1}'", "not JSON", "json-quotes"),
        (b'{"a": True}', "line 1, column 7", "json-python"),
        (b'{"a": 1,}', "not JSON", "json-comma"),
        (b'{"a": 1} x', "not JSON", None),
        (b'{"a": 01}', "not JSON", None),
        (b'"\xff"', "UTF-8", None),
        (b'"\\ud800"', "surrogate", None),
        (b'"a\nb"', "not JSON", None),
        (b"  ", "empty", None),
        (b"1e400", "too large", "json-nan"),
    ],
)
def test_what_is_not_json_is_refused_with_the_place_and_a_hint(body: bytes, words: str, key: str | None) -> None:
    with pytest.raises(Malformed, match=words) as caught:
        json_read.read(body)
    assert (caught.value.hint.key if caught.value.hint else None) == key


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        json_read.read(body)
    except EngineError:
        return
    json.loads(body.removeprefix(b"\xef\xbb\xbf"))


def test_a_byte_order_mark_is_passed_over() -> None:
    assert json_read.read(b"\xef\xbb\xbf{}").value == {}


def kept(value: Any) -> list[tuple[np.ndarray[Any, Any], str, bool]]:
    document = json_read.read(json.dumps(value).encode())
    return [(data.array, data.dtype, data.inferred) for data in document.arrays.values()]


@pytest.mark.parametrize(
    "data, dtype",
    [
        ([[1, 2]] * 200, "int64"),
        ([[1.5, 2]] * 200, "float64"),
        ([1.5] * 255 + [True], "float64"),
        ([True] * 300, "bool"),
        ([True, 2] * 200, "int64"),
        ([[[0.25]] * 3] * 100, "float64"),
    ],
)
def test_long_regular_lists_are_kept_as_arrays(data: Any, dtype: str) -> None:
    ((array, name, inferred),) = kept({"data": data})
    assert (name, inferred, array.dtype.name) == (dtype, True, dtype)
    assert array.tolist() == np.array(data).tolist()


def test_the_numbers_that_json_lacks_are_read_in_long_lists() -> None:
    ((array, dtype, _),) = kept({"data": [[1.5, "NaN", "Infinity", "-Infinity"]] * 100})
    assert dtype == "float64"
    assert np.isnan(array[0, 1])
    assert array[0, 2] == math.inf
    assert array[0, 3] == -math.inf
    assert kept({"data": ["NaN"] * 300})[0][1] == "float64"


@pytest.mark.parametrize(
    "data",
    [
        [1] * 100,
        [[1, 2]] * 200 + [[1]],
        [[1, 2]] * 200 + [1],
        [1] * 300 + [None],
        [1] * 300 + ["x"],
        ["t1"] * 300,
        [1] * 300 + [2**63],
        [-1] * 300 + [2**63],
        [1.5] * 300 + [2**63],
        [{"a": 1}] * 300,
    ],
)
def test_other_lists_stay_lists(data: Any) -> None:
    assert kept({"data": data}) == []


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=256, max_size=300))
def test_int64_is_kept_exactly(data: list[int]) -> None:
    ((array, dtype, _),) = kept(data)
    assert dtype == "int64"
    assert array.tolist() == data
