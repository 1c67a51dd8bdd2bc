"""The text of tensors is torch's (tests/data/printing.json, written by make_printing.py with torch)."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.dtypes import DTYPES, f32_to_bf16
from engine.errors import Invalid
from engine.printing import PrintOptions, describe_text, format_value, tensor_text

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "printing.json").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = GOLDEN["cases"]


def array_of(case: dict[str, Any]) -> np.ndarray[Any, Any]:
    dtype, data = case["dtype"], case["data"]
    if isinstance(data, str):
        flat = np.frombuffer(bytes.fromhex(data), DTYPES[dtype].np)
    else:
        count, modulo, scale = data
        values = (np.arange(count) % modulo) * scale
        flat = f32_to_bf16(values.astype("f4")) if dtype == "bfloat16" else values.astype(DTYPES[dtype].np)
    array = flat.reshape(case["shape"])
    layout = case.get("layout")
    return array.swapaxes(0, -1) if layout == "T" else array[::2] if layout == "2" else array


def printed(case: dict[str, Any]) -> dict[str, Any]:
    return {
        "requires_grad": case.get("requires_grad", False),
        "grad_fn": case.get("grad_fn"),
        "options": PrintOptions().updated(**case.get("options", {})),
        "default_dtype": case.get("default_dtype", "float32"),
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_text_is_torchs(dtype: str) -> None:
    chosen = [c for c in CASES if c["dtype"] == dtype]
    assert len(chosen) >= 20
    for case in chosen:
        assert tensor_text(array_of(case), dtype, **printed(case)) == case["text"], case


def test_format_and_describe_are_torchs() -> None:
    seen: Counter[str] = Counter()
    for case in CASES:
        if "format" in case:
            assert format_value(array_of(case), case["dtype"]) == case["format"], case
            seen["format"] += 1
        if "describe" in case:
            assert describe_text(array_of(case), case["dtype"], **printed(case)) == case["describe"], case
            seen["describe"] += 1
    assert min(seen["format"], seen["describe"]) > 100


def test_the_golden_file_covers_the_ways_of_writing() -> None:
    texts = [c["text"] for c in CASES]
    for part in ("e+", "e-", "nan", "inf", "...", "size=", "dtype=", "requires_grad=True", "grad_fn=<", "\n\n\n", "j,"):
        assert sum(part in text for text in texts) >= 5, part
    assert any("\n       grad_fn=" in text for text in texts)
    assert {key for c in CASES for key in c.get("options", {})} == {
        *("precision", "threshold", "edgeitems", "linewidth", "profile", "sci_mode")
    }


def test_describe() -> None:
    """The example of the contract, and of the books."""
    x = np.array([[1, 2, 3], [4, 5, 6]], "f4")
    assert describe_text(x, "float32").split("\n") == [
        "Type: torch.FloatTensor",
        "Shape/size: torch.Size([2, 3])",
        "Values: ",
        "tensor([[1., 2., 3.],",
        "        [4., 5., 6.]])",
    ]
    assert describe_text(x.sum(), "float32").split("\n") == [
        "Type: torch.FloatTensor",
        "Shape/size: torch.Size([])",
        "Values: ",
        "21.0",
    ]
    assert describe_text(np.array([1, 2]), "int64", device="cuda:0").split("\n") == [
        "Type: torch.cuda.LongTensor",
        "Shape/size: torch.Size([2])",
        "Values: ",
        "tensor([1, 2], device='cuda:0')",
    ]


def test_device_comes_first_and_counts_for_the_line() -> None:
    x = np.ones(2, "f2")
    assert tensor_text(x, "float16", device="cuda:0", grad_fn="MulBackward0") == (
        "tensor([1., 1.], device='cuda:0', dtype=torch.float16, grad_fn=<MulBackward0>)"
    )
    assert tensor_text(x[:0], "float16", device="cuda:1", requires_grad=True, options=PrintOptions(linewidth=40)) == (
        "tensor([], device='cuda:1',\n       dtype=torch.float16,\n       requires_grad=True)"
    )


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (50, 60)])
def test_strides_do_not_show(shape: tuple[int, ...]) -> None:
    dense = np.arange(math.prod(shape), dtype="f8").reshape(shape)
    spread = np.full(tuple(2 * n for n in reversed(shape)), np.nan)[tuple(slice(None, None, 2) for _ in shape)].T
    spread[...] = dense
    assert not spread.flags.c_contiguous
    text = tensor_text(dense, "float64")
    assert tensor_text(spread, "float64") == tensor_text(dense[::-1][::-1], "float64") == text
    assert tensor_text(np.broadcast_to(np.float64(1.5), shape), "float64") == tensor_text(
        np.full(shape, 1.5), "float64"
    )


def test_only_what_is_shown_is_looked_at() -> None:
    """A tensor of a million elements is a matter of its edges."""
    x = np.broadcast_to(np.float32(2.0), (1000, 1000, 1000))
    assert tensor_text(x, "float32").count("2.") == 6**3


def test_options() -> None:
    default = PrintOptions()
    assert default.updated(precision=2, edgeitems=1) == PrintOptions(precision=2, edgeitems=1)
    assert default.updated(sci_mode=True).updated(precision=2) == PrintOptions(precision=2)  # as torch: sci_mode resets
    assert PrintOptions(linewidth=40).updated(profile="default") == default
    assert default.updated(profile="full").threshold == math.inf
    assert default.updated(profile="short", precision=3) == PrintOptions(precision=3, edgeitems=2)
    with pytest.raises(Invalid, match="unknown profile 'long': the profiles are default, short, full"):
        default.updated(profile="long")
