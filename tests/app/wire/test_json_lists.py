"""Long lists of numbers that are read past orjson: the same values, to the bit, and the same refusals."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import orjson
import pytest

from app.wire import arguments, form, json_lists, json_read
from app.wire.json_numbers import Floats, Integers, Level, Odd
from engine.errors import EngineError

KINDS = [
    *("float32", "small32", "any32", "float64", "uniform", "scaled", "any64", "widened", "price", "zeros", "long"),
    *("half", "byte", "bits", "int", "large", "exponent", "odd"),
]
ODD = ["1e5", "-1E-5", "1.5e-7", "01", "-", "1.", ".5", "+1", "--1", "", "true", "null", "NaN", '"NaN"', "-0", "00.5"]
BYTES = [*b'0123456789.,-+eE[]{} \t\r\n":x\\', 0, 127, 128, 255]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short lists and small blocks, so that short texts go all ways."""
    shorten(monkeypatch)


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lists, "SHORTEST", 64)
    monkeypatch.setattr(json_lists, "_SHORTEST_WIDE", 64)
    monkeypatch.setattr(json_lists, "_SHORTEST_LONG", 64)
    monkeypatch.setattr(json_lists, "_STEP", 32)
    monkeypatch.setattr(json_lists, "_SAMPLE", 48)
    monkeypatch.setattr(json_lists, "_WHOLE", 160)


# ---------------------------------------------------------------- texts


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def middle(a: float, places: int, off: int) -> str:
    """The number between `a` and the float after it, cut off after so many places, and `off` in the last of them."""
    between = (Fraction(a) + Fraction(np.nextafter(a, 1e9).item())) / 2
    text = str(int(between * 10**places) + off).rjust(places + 1, "0")
    return f"{text[:-places]}.{text[-places:]}"


def halfway(rng: random.Random) -> str:
    return middle(rng.uniform(0.01, 9) * 10 ** rng.randint(-2, 3), rng.randint(14, 19), rng.choice((0, 0, 1, -1)))


def number(rng: random.Random, kind: str) -> str:
    """A number's text as one kind of program writes it."""
    sign = rng.choice(("", "-"))
    match kind:
        case "float32":
            return orjson.dumps(np.float32(rng.gauss(0, 1)), option=orjson.OPT_SERIALIZE_NUMPY).decode()
        case "small32":
            return orjson.dumps(np.float32(rng.gauss(0, 0.001)), option=orjson.OPT_SERIALIZE_NUMPY).decode()
        case "any32":
            value = np.frombuffer(struct.pack("<I", rng.getrandbits(32)), np.float32)[0]
            return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode().replace("null", "0.0")
        case "float64":
            return repr(rng.gauss(0, 1))
        case "uniform":
            return repr(rng.random())
        case "scaled":
            return repr(rng.gauss(0, 1) * 10 ** rng.randint(-4, 6))
        case "any64":
            value = struct.unpack("<d", struct.pack("<Q", rng.getrandbits(64)))[0]
            return repr(value) if abs(value) < 1e308 else "1.0"
        case "widened":
            return repr(float(np.float32(rng.gauss(0, 1))))
        case "price":
            return f"{sign}{rng.randint(0, 99999)}.{digits(rng, 2)}"
        case "zeros":
            return rng.choice(("0.0", "-0.0", "0.5", "1.0", "-1.0", "0.25", "0.50000000000000000", "2.00"))
        case "long":
            return f"{sign}{rng.randint(0, 20)}.{digits(rng, rng.randint(1, 26))}"
        case "half":
            return sign + halfway(rng)
        case "byte":
            return str(rng.randint(0, 255))
        case "bits":
            return rng.choice("01")
        case "int":
            return str(rng.randint(-(10**7), 10**7))
        case "large":
            return str(rng.randint(-(2**63), 2**64) >> rng.randint(0, 64))
        case "exponent":
            power = f"{rng.choice('eE')}{rng.choice(('', '+', '-'))}{rng.randint(0, 330)}"
            return f"{sign}{rng.randint(0, 9)}.{digits(rng, 3)}{power}"
        case _:
            return rng.choice(ODD)


def a_list(rng: random.Random) -> str:
    """A list's text: of one kind of numbers or of two, flat or nested, with the spaces of one program or another."""
    kind, other = rng.choice(KINDS), rng.choice(KINDS)
    share = rng.choice((0, 0, 0, 0.01, 0.1))
    comma = rng.choice((",", ", ", ",\n  ", ",\r\n\t", " , ", ",  ", " ,"))
    inner = rng.choice((("[", "]"), ("[", "]"), ("[ ", " ]"), ("[\n   ", "\n ]"), (" [", "]")))
    shape = [rng.randint(1, 5) for _ in range(rng.randint(0, 3))] + [rng.randint(1, 30)]

    def level(sizes: list[int]) -> str:
        if not sizes:
            return number(rng, other if rng.random() < share else kind)
        count = sizes[0] + (rng.random() < 0.002)
        return f"{inner[0]}{comma.join(level(sizes[1:]) for _ in range(count))}{inner[1]}"

    return level(shape)


def a_body(rng: random.Random) -> bytes:
    frame = rng.choice(
        (
            "{}",
            '{{"data": {}}}',
            '{{"data":{},"dtype":"float32"}}',
            '{{"steps": [{{"op": "add", "args": {{"input": {}, "other": {}}}}}, {{"op": "f", "args": {{"a": {}}}}}]}}',
            '{{"tensors": [{}, {}], "size": [2, 3], "dim": []}}',
            '{{"tensors": [{}, "t1", {}, 5]}}',
            '[{}, {{"a": 1, "b": {}}}]',
            '{{"a": {}, "a": {}}}',
            '  {{"a:b": "[1, 2]", "x": {}}}\n',
            '{{"a": "\\u0041", "x": {}}}',
        )
    )
    body = frame.format(*(a_list(rng) for _ in range(frame.count("{}")))).encode()
    return b"\xef\xbb\xbf" + body if rng.random() < 0.05 else body


def mutated(rng: random.Random, body: bytes) -> bytes:
    """The body with a few bytes changed, added, taken out, or moved."""
    changed = bytearray(body)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([rng.choice(BYTES)])
            case 1:
                changed[at:at] = bytes([rng.choice(BYTES)])
            case 2:
                del changed[at : at + rng.randint(1, 3)]
            case _:
                other = rng.randrange(len(changed) + 1)
                changed[at:at] = changed[other : other + rng.randint(1, 8)]
    return bytes(changed)


# ---------------------------------------------------------------- the same as orjson


def outcome(read: Any, body: bytes) -> Any:
    """All that a reader says of a body: the value, to the bit, and the arrays by their places; or why not."""
    try:
        document = read(body)
    except EngineError as error:
        return type(error), error.to_data()
    value = document.value
    return repr(value), dict(places(value, document.arrays, ()))


def places(value: Any, arrays: json_read.Arrays, path: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    if id(value) in arrays:
        data = arrays[id(value)]
        yield path, (data.array.shape, data.dtype, data.array.tobytes())
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, arrays, (*path, key))


def whole(body: bytes) -> json_read.Document:
    return json_read.read_whole(body.removeprefix(b"\xef\xbb\xbf"))


def disagreement(body: bytes) -> str | None:
    ours, theirs = outcome(json_read.read, body), outcome(whole, body)
    if ours[0] != theirs[0] or (isinstance(ours[0], type) and ours != theirs):
        return f"{ours[0]!r} and not {theirs[0]!r}"
    if isinstance(ours[0], str):
        for path, found in theirs[1].items():
            if ours[1].get(path) != found:
                return f"at {path}"
        value = json.loads(body.decode("utf-8-sig")) if ours[1].keys() - theirs[1].keys() else None
        for path in ours[1].keys() - theirs[1].keys():  # shorter than ARRAY_FROM
            item = value
            for key in path:
                item = item[key]
            expected = np.array(item)
            if ours[1][path] != (expected.shape, expected.dtype.name, expected.tobytes()):
                return f"at {path}, which is short"
    return None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.usefixtures("short")
def test_generated_texts_are_read_as_orjson_reads_them(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        body = mutated(rng, a_body(rng))
        assert disagreement(body) is None, body


FULL = 150_000  # numbers: several blocks of the size that is used


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).standard_normal(FULL).astype(np.float32),
        np.random.default_rng(2).standard_normal((FULL // 1000, 1000)),
        np.random.default_rng(3).random((2, FULL // 20, 10)) * 0.02,
        np.random.default_rng(4).integers(-300, 70_000, (FULL // 3, 3)),
    ],
    ids=["flat", "wide", "three levels", "integers"],
)
@pytest.mark.parametrize("style", [{}, {"separators": (",", ":")}, {"indent": 2}])
def test_long_lists_are_cut_and_exact(values: Any, style: dict[str, Any]) -> None:
    body = json.dumps({"data": values.tolist(), "dtype": "float32"}, **style).encode()
    cut = json_lists.cut(body)
    assert cut is not None
    assert json.loads(cut[0]) == {"data": [], "dtype": "float32"}
    (found,) = cut[1]
    expected = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
    assert found.array.shape == expected.shape
    assert found.array.dtype == expected.dtype
    assert found.array.tobytes() == expected.tobytes()
    assert bytes(found.text) == body[body.index(b"[") : body.rindex(b"]") + 1]


@pytest.mark.parametrize(
    "odd", ["3", "1e5", "1e400", "true", "1.5.5", "1.5-2.5", "1.5 2.5", "01.5", "-", "", "[1.5]", "1.5,,2.5", '"NaN"']
)
@pytest.mark.parametrize("place", [0, 1500, 2999])
@pytest.mark.usefixtures("short")
def test_one_odd_number_among_many_is_read_or_refused_as_ever(odd: str, place: int) -> None:
    numbers = ["-0.12345678"] * 3000
    numbers[place] = odd
    assert disagreement(f'{{"data": [{",".join(numbers)}]}}'.encode()) is None


def test_a_list_that_nobody_takes_is_filled_with_what_was_sent() -> None:
    numbers = [0.5] * 200_000 + [3]
    document = json_read.read(json.dumps({"a": numbers, "b": numbers}).encode())
    a, b = document.bare["a"], document.bare["b"]
    assert (a, b) == ([], [])
    taken = document.arrays.take(a)
    assert taken is not None
    assert taken.array.dtype == np.float64
    document.arrays.fill()
    assert a == []
    assert repr(b) == repr(numbers)
    assert document.value["b"] is b


def test_integers_become_floats_when_a_float_comes_late() -> None:
    numbers = [7] * 200_000 + [0.5]
    (data,) = json_read.read(json.dumps({"a": numbers}).encode()).arrays.values()
    assert data.array.dtype == np.float64
    assert data.array.tolist() == numbers


@pytest.mark.usefixtures("short")
def test_forms_have_long_lists_too() -> None:
    rows = [[0.5, -1.25]] * 200
    document = form.read(f"data={json.dumps(rows)}&other={json.dumps(rows)}".encode())
    assert document.bare == {"data": [], "other": []}
    assert [data.array.tolist() for data in document.arrays.values()] == [rows, rows]
    assert document.value == {"data": rows, "other": rows}


@pytest.mark.parametrize(
    "low, high, places", [(1, 9, 18), (0.01, 0.17, 20), (0.0001, 0.0017, 22), (100, 90_000, 14), (0.25, 4, 17)]
)
def test_the_middles_between_floats_are_rounded_as_by_python(low: float, high: float, places: int) -> None:
    rng = random.Random(places)
    texts = [middle(rng.uniform(low, high), places, rng.choice((-1, 0, 1))) for _ in range(5000)]
    out = np.empty(len(texts))
    assert Floats([Level(1, b",")], 1 << 18).read(",".join([*texts, ""]).encode(), 0, out) == len(texts)
    assert out.tolist() == list(map(float, texts))


@pytest.mark.parametrize(
    "reader, text",
    [
        (Floats, "1.5"),
        (Floats, "1.5,,"),
        (Floats, "1.5,2.5-3.5,"),
        (Floats, "1.5,.5,"),
        (Floats, "1.5,2.,"),
        (Floats, "1.5,02.5,"),
        (Floats, "1.5,--2.5,"),
        (Floats, "1.5,2.5 3.5,"),
        (Floats, "1.5,2.5e,"),
        (Floats, "1.5,2.5e400,"),
        (Floats, "1.5,2.5\xe9,"),
        (Floats, "1.5,2,"),
        (Integers, "1,,"),
        (Integers, "1,-,"),
        (Integers, "1,01,"),
        (Integers, "1,1-2,"),
        (Integers, "1,123456789,"),
        (Integers, "1,1.5,"),
        (Integers, ""),
    ],
)
def test_what_is_no_plain_number_is_left_to_others(reader: Any, text: str) -> None:
    with pytest.raises(Odd):
        reader([Level(1, b",")], 1024).read(text.encode(), 0, np.empty(8, np.float64 if reader is Floats else np.int64))


@pytest.mark.usefixtures("short")
def test_arguments_take_the_arrays_and_leave_what_is_no_tensor_filled() -> None:
    rows = [[0.5, 1.0]] * 200
    body = {"input": rows, "tensors": [rows, rows], "other": {"data": rows}, "size": [2] * 300}
    document = json_read.read(json.dumps(body).encode())
    kinds: dict[str, arguments.Kind] = {"input": "tensor", "tensors": "items"}
    taken = arguments.with_arrays(document.bare, kinds, document.arrays)
    document.arrays.fill()
    assert taken["input"]["data"].array.tolist() == rows
    assert [item["data"].array.tolist() for item in taken["tensors"]] == [rows, rows]
    assert taken["other"]["data"].array.tolist() == rows
    assert taken["size"] == [2] * 300
    assert document.bare["input"] == []
