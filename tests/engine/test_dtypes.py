"""Dtypes: PyTorch's promotion tables (golden data, made by tests/data/make_promotion.py), numbers, bfloat16 bits."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.backend import CPU
from engine.dtypes import (
    DTYPES,
    SYNONYMS,
    bf16_to_f32,
    can_cast,
    cast_scalar,
    dtype,
    f32_to_bf16,
    from_numpy,
    promote_types,
    result_type,
    scalar_dtype,
)
from engine.errors import EngineError, Invalid
from tests.devices import cuda

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent.parent / "data" / "promotion.json").read_text("utf-8"))
NUMBERS = {"True": True, "1": 1, "1.0": 1.0, "1j": 1j}
BOTH = pytest.mark.parametrize("backend", [CPU, cuda()], ids=lambda b: b.name)


class TestAgainstTorch:
    def test_the_dtypes_are_those_of_the_golden_data(self) -> None:
        assert list(DTYPES) == GOLDEN["dtypes"]

    @pytest.mark.parametrize("pair", GOLDEN["promote_types"])
    def test_promote_types(self, pair: str) -> None:
        a, b = pair.split()
        assert promote_types(DTYPES[a], DTYPES[b]).name == GOLDEN["promote_types"][pair]

    @pytest.mark.parametrize("source", GOLDEN["can_cast"])
    def test_can_cast(self, source: str) -> None:
        assert [n for n, d in DTYPES.items() if can_cast(DTYPES[source], d)] == GOLDEN["can_cast"][source]

    def test_result_type_of_every_pair_of_ranks(self) -> None:
        wrong = []
        for pair, want in GOLDEN["result_type"].items():
            operands = []
            for word in pair.split():
                name, _, rank = word.partition(":")
                if name in NUMBERS:
                    operands.append((scalar_dtype(NUMBERS[name], DTYPES["float32"]), 0))
                else:
                    operands.append((DTYPES[name], 1 if rank else 2))
            try:
                have = result_type(operands).name
            except EngineError:
                have = "complex32"  # which the contract lacks
            if have != want:
                wrong.append((pair, want, have))
        assert wrong == []


class TestNames:
    @pytest.mark.parametrize("short, full", SYNONYMS.items())
    def test_a_synonym_is_its_dtype(self, short: str, full: str) -> None:
        assert dtype(short) is dtype(f"torch.{full}") is DTYPES[full]

    @pytest.mark.parametrize("name", ["float8", "", "Float32", "uint16", "int"[:2]])
    def test_an_unknown_name_is_refused_with_the_known_ones(self, name: str) -> None:
        with pytest.raises(Invalid, match="float32"):
            dtype(name)

    def test_numpy_dtypes_of_any_byte_order(self) -> None:
        assert from_numpy(np.dtype(">f4")) is DTYPES["float32"]
        assert from_numpy(np.dtype("uint32")) is None
        assert from_numpy(np.dtype("datetime64[s]")) is None


class TestNumbers:
    @pytest.mark.parametrize(
        "value, name, want",
        [
            (300, "uint8", 44),
            (-1, "uint8", 255),
            (128, "int8", -128),
            (2.9, "int64", 2),
            (-2.9, "int32", -2),
            (math.nan, "int64", -(1 << 63)),
            (math.inf, "int32", -(1 << 31)),
            (1 + 2j, "float32", 1.0),
            (0.5, "bool", True),
            (3, "complex64", 3 + 0j),
            (True, "float64", 1.0),
        ],
    )
    def test_a_number_becomes_what_c_makes_of_it(self, value: complex, name: str, want: object) -> None:
        made = cast_scalar(value, DTYPES[name])
        assert made == want
        assert type(made) is type(want)


class TestBfloat16:
    def test_every_pattern_survives_float32(self) -> None:
        bits = np.arange(1 << 16, dtype=np.uint16)
        back = f32_to_bf16(bf16_to_f32(bits))
        nan = np.isnan(bf16_to_f32(bits))
        assert np.array_equal(back[~nan], bits[~nan])
        assert np.isnan(bf16_to_f32(back[nan])).all()

    @BOTH
    def test_rounding_is_to_nearest_even(self, backend: Any) -> None:
        one, step = 0x3F80, 2.0**-7
        values = np.array(
            [1, 1 + step / 2, 1 + 1.5 * step, 1 + step * 0.51, 1 + step * 0.49, -1 - 1.5 * step, 3.4e38], np.float32
        )
        want = [one, one, one + 2, one + 1, one, 0x8000 | (one + 2), 0x7F80]
        assert f32_to_bf16(values).tolist() == want
        made = backend.cast(backend.from_host(values), DTYPES["float32"], DTYPES["bfloat16"])
        assert backend.to_host(made).tolist() == want

    @BOTH
    def test_double_is_rounded_to_float_first_as_in_torch(self, backend: Any) -> None:
        value = np.array([1 + 2.0**-8 + 2.0**-40])  # nearest is above, but float32 ends on the tie
        made = backend.cast(backend.from_host(value), DTYPES["float64"], DTYPES["bfloat16"])
        assert backend.to_host(made).tolist() == [0x3F80]

    @BOTH
    @pytest.mark.parametrize("source", DTYPES)
    @pytest.mark.parametrize("target", DTYPES)
    def test_casts_agree_with_numpy_through_float32(self, backend: Any, source: str, target: str) -> None:
        a, b = DTYPES[source], DTYPES[target]
        host = np.array([0, 1, 2, 3], np.float32)
        start = f32_to_bf16(host) if source == "bfloat16" else host.astype(a.np)
        with np.errstate(all="ignore"):
            made = backend.to_host(backend.cast(backend.from_host(start), a, b))
        number = bf16_to_f32(start) if source == "bfloat16" else start
        number = number.real if number.dtype.kind == "c" and not b.is_complex else number
        want = (
            number.astype(np.bool_) if target == "bool" else number.astype(np.float32 if target == "bfloat16" else b.np)
        )
        have = bf16_to_f32(made) if target == "bfloat16" else made
        assert made.dtype == b.np
        assert np.array_equal(have, want)
