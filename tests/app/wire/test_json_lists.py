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

from app.wire import json_lists, json_read
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
    monkeypatch.setattr(json_lists, "SHORTEST_FLAT", 64)
    monkeypatch.setattr(json_lists, "_STEP", 32)
    monkeypatch.setattr(json_lists, "_SAMPLE", 48)
    monkeypatch.setattr(json_lists, "_WHOLE", 160)


# ---------------------------------------------------------------- texts


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def halfway(rng: random.Random) -> str:
    """A number that is next to the middle between two floats, or the middle itself, in up to 24 digits."""
    a = rng.uniform(0.01, 9) * 10 ** rng.randint(-2, 3)
    middle = (Fraction(a) + Fraction(np.nextafter(a, 1e9).item())) / 2
    places = rng.randint(14, 19)
    scaled = int(middle * 10**places) + rng.choice((0, 0, 1, -1))
    text = str(scaled).rjust(places + 1, "0")
    return f"{text[:-places]}.{text[-places:]}"


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
